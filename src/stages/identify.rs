//! Identify: which org is this for, and who is calling?

use std::borrow::Cow;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::call::{CallerId, Class, Meaning, OrgId};
use crate::clock::Clock;
use crate::config::key::{self, Shape};
use crate::edge::callers::{Evidence, Proof, Stranger};
use crate::edge::facade::token::is_gateway_token;
use crate::edge::facts::{Facts, Sole};
use crate::edge::headers::Foreign;
use crate::edge::trace::{self, Parent, TRACESTATE};
use crate::edge::{proxies, target};
use crate::live::{LiveOrg, LiveTraces};
use crate::outcome::{Outcome, Span};
use crate::refusal::{Reason, Refusal};
use crate::salesforce;
use crate::stages::facade::{self, Desk};
use crate::stages::way::Way;
use crate::stages::{Known, Reply, Seen, Session, own};

/// Puts [`Identify`] on the road.
#[derive(Debug, Clone)]
pub struct IdentifyLayer {
    /// What it needs to answer log-ins itself.
    pub desk: Desk,
}

impl<S> Layer<S> for IdentifyLayer {
    type Service = Identify<S>;

    fn layer(&self, inner: S) -> Identify<S> {
        Identify { inner, desk: self.desk.clone() }
    }
}

/// The stage: finds org and caller, or refuses. For orgs whose identities the gateway holds, it answers log-ins itself.
#[derive(Debug, Clone)]
pub struct Identify<S> {
    inner: S,
    desk: Desk,
}

impl<S> Service<Seen> for Identify<S>
where
    S: Service<Known, Response = Reply, Error = Refusal> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Reply;
    type Error = Refusal;
    type Future = Way<S::Future>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut seen: Seen) -> Self::Future {
        match identify(self.desk.clock, &mut seen) {
            Ok(Found::Known(findings)) if is_own(seen.head.uri.path()) => {
                let known = findings.known(seen);
                match own::page(&known) {
                    Ok(page) => Way::answered(page),
                    Err(refusal) => {
                        note_family(&known.seen);
                        Way::refused(refusal)
                    }
                }
            }
            Ok(Found::Known(findings)) => Way::onward(self.inner.call(findings.known(seen))),
            Ok(Found::Page(org, meaning, page)) => {
                let desk = self.desk.clone();
                Way::waits(async move { facade::page(&desk, seen, org, &meaning, page).await })
            }
            Ok(Found::Envelope(org, meaning)) => {
                // Every layer of this road is always ready, so a clone keeps the readiness contract.
                let (desk, mut inner) = (self.desk.clone(), self.inner.clone());
                Way::waits(async move {
                    match facade::envelope(&desk, seen, org, meaning).await? {
                        facade::Opened::Answer(reply) => Ok(reply),
                        facade::Opened::Onward(known) => inner.call(*known).await,
                    }
                })
            }
            Err(refusal) => {
                note_family(&seen);
                Way::refused(refusal)
            }
        }
    }
}

/// What became of a request here.
enum Found {
    /// Its caller is known.
    Known(Findings),
    /// It asks for something the gateway answers itself.
    Page(OrgId, Meaning, facade::Page),
    /// Who calls stands in its SOAP envelope.
    Envelope(OrgId, Meaning),
}

/// What is known about a request whose caller was found.
pub(super) struct Findings {
    org: OrgId,
    caller: CallerId,
    class: Class,
    deadline: Option<Instant>,
    secure: bool,
    meaning: Option<Meaning>,
    session: Session,
    foreign: Foreign,
}

impl Findings {
    /// The request they are about, without what is not for Salesforce.
    pub(super) fn known(self, mut seen: Seen) -> Known {
        let Self { org, caller, class, deadline, secure, meaning, session, foreign } = self;
        foreign.leave(&mut seen.head.headers);
        Known { seen, org, caller, class, deadline, secure, meaning, session }
    }
}

fn identify(clock: Clock, seen: &mut Seen) -> Result<Found, Refusal> {
    target::normalise(&mut seen.head)?;
    let facts = Facts::of(&seen.head.headers);
    let (org, host) = org_of(seen, facts.host)?;
    let meaning = match seen.live.org(org) {
        Some(held) if held.facade.is_some() => {
            seen.record.lock().org = Some(org);
            let path = seen.head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
            let meaning = salesforce::understand(&seen.head.method, path, &held.costs);
            match facade::Need::of(&meaning) {
                facade::Need::Nothing => Some(meaning),
                facade::Need::Page(page) => return Ok(Found::Page(org, meaning, page)),
                facade::Need::Envelope => return Ok(Found::Envelope(org, meaning)),
            }
        }
        _ => None,
    };
    find(clock, seen, facts, org, &host, meaning, None).map(Found::Known)
}

/// The org a request is for, and the name of its host in lower case; remembered for the connection.
fn org_of(seen: &Seen, host: Sole<'_>) -> Result<(OrgId, Arc<str>), Refusal> {
    let generation = seen.live.generation;
    if let Some(shown) = host.only()
        && let Some(known) = seen.connection.remembered().host(shown.as_bytes(), generation)
    {
        return Ok(known);
    }
    let name: Arc<str> = lower(target::host_of(host, seen.head.version)?.host).into();
    let org = seen
        .live
        .org_by_host(&name)
        .ok_or_else(|| Refusal::new(Reason::UnknownOrg, "No org is configured for the Host name of this request."))?;
    if let Some(shown) = host.only() {
        seen.connection.remembered().remember_host(shown.as_bytes(), generation, org, Arc::clone(&name));
    }
    Ok((org, name))
}

/// Finds the caller of a request to `org`. `session` is what stands in the place of a session in its body.
pub(super) fn find(
    clock: Clock,
    seen: &Seen,
    facts: Facts<'_>,
    org: OrgId,
    host: &str,
    meaning: Option<Meaning>,
    session: Option<&str>,
) -> Result<Findings, Refusal> {
    let live = &seen.live;
    let proof = proof(clock, seen, &facts, org, session);
    let client =
        proxies::client(seen.connection.peer, seen.connection.secure, &seen.head.headers, &live.trusted_proxies);
    let address = client.address;
    let secure = client.secure;
    let client = facts.client(&seen.head.headers);
    let evidence = Evidence { proof: &proof, certificate: seen.connection.certificate.as_ref(), host, address, client };
    let found = live.callers.identify(&evidence);
    let mut outcome = seen.record.lock();
    outcome.org = Some(org);
    outcome.wants = facts.wants();
    outcome.multipart = facts.multipart();
    outcome.remote = Some(address);
    outcome.client = client.map(Into::into);
    let parent = facts.traceparent.and_then(Parent::read);
    outcome.trace = parent.map(|parent| parent.trace);
    if let Some(traces) = &live.traces {
        traced(traces, parent, &seen.head.headers, &mut outcome);
    }
    let caller = match found {
        Ok(caller) => caller,
        Err(stranger) => return Err(unknown(stranger)),
    };
    let configured = live.caller(caller).ok_or_else(|| unknown(Stranger::Unmatched))?;
    let class = lowered(configured.class, facts.class);
    let deadline = earlier(configured.deadline, requested_timeout(facts.timeout)).map(|wait| seen.now + wait);
    outcome.caller = Some(caller);
    outcome.class = class;
    if configured.anybody {
        outcome.agent = Some(facts.agent().unwrap_or_default().into());
    }
    drop(outcome);
    // A connection usually carries the same credential again and again, so its bytes are compared before they are read.
    let session = match facts.only_credential() {
        Some(shown) => match seen.connection.remembered().principal(shown, live.generation) {
            Some(principal) => Session::Remembered(principal),
            None => Session::One,
        },
        None => Session::Other,
    };
    Ok(Findings { org, caller, class, deadline, secure, meaning, session, foreign: facts.foreign })
}

/// Gives the request its part in a trace: that of its caller, or one of its own.
#[cold]
fn traced(traces: &LiveTraces, parent: Option<Parent>, headers: &HeaderMap, outcome: &mut Outcome) {
    let sampled = parent.map_or_else(|| traces.draw(), |parent| parent.sampled);
    // Without a trace that can be understood, what was added to it means nothing.
    let state = parent.and_then(|_| trace::state(headers.get_all(TRACESTATE).iter()));
    let parent = parent.map(|parent| parent.span);
    outcome.span = Some(Box::new(Span { id: fastrand::u64(1..), parent, sampled, state }));
    if sampled {
        outcome.trace.get_or_insert(outcome.id);
    }
}

/// What the key or token in the request proves; remembered for the connection, so that a key is hashed and a token
/// verified once and compared afterwards.
fn proof(clock: Clock, seen: &Seen, facts: &Facts<'_>, org: OrgId, session: Option<&str>) -> Proof {
    let held = seen.live.org(org).filter(|held| held.facade.is_some());
    let shown = match (facts.key, held) {
        (Some(shown), _) => shown.as_bytes(),
        (None, None) => return Proof::Absent,
        // Where a session may stand, a gateway key or token may, too.
        (None, Some(_)) => {
            let of_body = session.map(str::as_bytes).filter(|shown| is_ours(shown));
            match of_body.or_else(|| session_of(facts)) {
                Some(shown) => shown,
                None => return Proof::Absent,
            }
        }
    };
    // A token is for one org, and may be given back; a connection may carry requests for several orgs.
    let changes = held.and_then(|held| held.facade.as_ref()).map_or(0, |facade| facade.revoked.changes());
    let epoch = seen.live.generation ^ (u64::from(org.0) << 48) ^ (changes << 24);
    let wall = clock.wall(seen.now);
    let mut remembered = seen.connection.remembered();
    if let Some(proof) = remembered.proof(shown, epoch, wall) {
        return proof;
    }
    let (proof, until) = judge(shown, seen, held, wall);
    remembered.remember_proof(shown, epoch, until, proof.clone());
    proof
}

/// The gateway key or token that stands in the place of a session. Whether another one stands beside it is looked at when
/// the request is understood.
fn session_of<'a>(facts: &Facts<'a>) -> Option<&'a [u8]> {
    let ours = |shown: &&[u8]| is_ours(shown);
    let authorization = facts.authorization.first.map(HeaderValue::as_bytes);
    authorization
        .and_then(|given| given.get(given.iter().position(|byte| *byte == b' ')?..))
        .map(<[u8]>::trim_ascii)
        .filter(ours)
        .or_else(|| facts.session.map(|given| given.as_bytes().trim_ascii()).filter(ours))
}

/// Whether a secret is for the gateway, and none of Salesforce's business.
pub(super) fn is_ours(secret: &[u8]) -> bool {
    secret.starts_with(key::PREFIX.as_bytes()) || is_gateway_token(secret)
}

/// A refusal has the form of the API the request was for.
fn note_family(seen: &Seen) {
    let path = seen.head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let meaning = salesforce::understand(&seen.head.method, path, &salesforce::Costs::default());
    note(seen, &meaning);
}

/// Writes into the record what is asked.
pub(super) fn note(seen: &Seen, meaning: &Meaning) {
    let mut outcome = seen.record.lock();
    outcome.wants = Facts::of(&seen.head.headers).wants();
    outcome.method.clone_from(&meaning.method);
    outcome.family = meaning.family;
    outcome.operation = meaning.operation;
    outcome.template = meaning.template;
    outcome.version = meaning.version;
}

/// What a key or token proves, and until when that holds.
fn judge(shown: &[u8], seen: &Seen, org: Option<&LiveOrg>, wall: Duration) -> (Proof, Option<Duration>) {
    let Ok(text) = std::str::from_utf8(shown) else {
        return (Proof::Rejected("This is neither a gateway key nor a token."), None);
    };
    if is_gateway_token(shown) {
        return match org.and_then(|org| facade::holder(&seen.live, org, text, wall)) {
            Some(holder) => (Proof::Caller(holder.caller), Some(holder.expires)),
            None => (Proof::Invalid, Some(wall)),
        };
    }
    match key::shape(text) {
        Shape::Damaged => {
            (Proof::Rejected("This gateway key is damaged: it was cut off, or a character is wrong."), None)
        }
        // Operators may also have keys they made themselves; a token has its three parts.
        Shape::NotAKey if text.matches('.').count() == 2 => match seen.live.issuers.verify(text, wall) {
            Ok(claims) => (seen.live.callers.by_claims(&claims), Some(claims.expires)),
            // Keys of an issuer may arrive later: a rejected token is judged anew each time.
            Err(why) => (Proof::Rejected(why), Some(wall)),
        },
        Shape::Key | Shape::NotAKey => (seen.live.callers.by_key(shown), None),
    }
}

/// Whether a path is the gateway's own and none of Salesforce's. However many slashes it begins with.
fn is_own(path: &str) -> bool {
    let rest = path.trim_start_matches('/').strip_prefix("weirkeeper");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn unknown(stranger: Stranger) -> Refusal {
    match stranger {
        Stranger::BadProof(why) => Refusal::new(Reason::UnknownCaller, why),
        Stranger::BadSession => Refusal::new(Reason::SessionInvalid, "Session expired or invalid"),
        Stranger::Unmatched => Refusal::new(Reason::UnknownCaller, "No configured caller matches this request."),
    }
}

/// `host` in lower case, which it nearly always is already.
pub(super) fn lower(host: &str) -> Cow<'_, str> {
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

/// The caller's class, lowered if the request asks for it. It cannot be raised.
fn lowered(configured: Class, asked: Option<&HeaderValue>) -> Class {
    asked
        .and_then(|value| value.to_str().ok())
        .and_then(|text| Class::parse(text.trim()))
        .map_or(configured, |asked| asked.max(configured))
}

fn requested_timeout(asked: Option<&HeaderValue>) -> Option<Duration> {
    asked?.to_str().ok()?.trim().parse().ok().map(Duration::from_millis)
}

fn earlier(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_may_lower_its_class_but_never_raise_it() {
        for (configured, asked, class) in [
            (Class::Interactive, "batch", Class::Batch),
            (Class::Standard, "interactive", Class::Standard),
            (Class::Standard, "nonsense", Class::Standard),
        ] {
            assert_eq!(lowered(configured, Some(&HeaderValue::from_static(asked))), class, "{asked}");
        }
    }

    #[test]
    fn a_key_is_found_wherever_a_session_may_stand() {
        let found = |name: &'static str, value: &'static str| {
            let headers: http::HeaderMap =
                [(http::HeaderName::from_static(name), HeaderValue::from_static(value))].into_iter().collect();
            session_of(&Facts::of(&headers)).map(|shown| String::from_utf8(shown.to_vec()).unwrap())
        };
        for scheme in ["Bearer wk_abc", "OAuth  wk_abc ", "oauth wk_abc"] {
            assert_eq!(found("authorization", scheme).as_deref(), Some("wk_abc"), "{scheme}");
        }
        assert_eq!(found("x-sfdc-session", " wk_abc").as_deref(), Some("wk_abc"));
        for other in ["wk_abc", "Bearer 00D000000000001!AQ4AQ", "Bearer WK_abc", "Bearer eyJhbGciOi.x.y", "Bearer ", ""]
        {
            assert_eq!(found("authorization", other), None, "{other}");
        }
    }

    #[test]
    fn own_paths_are_told_from_salesforces() {
        for own in ["/weirkeeper", "/weirkeeper/", "/weirkeeper/v1/budget", "//weirkeeper/v1"] {
            assert!(is_own(own), "{own}");
        }
        for theirs in ["/", "/services/data/", "/weirkeepers", "/services/weirkeeper/", "/apex/weirkeeper"] {
            assert!(!is_own(theirs), "{theirs}");
        }
    }

    #[test]
    fn the_earlier_deadline_wins() {
        let (short, long) = (Some(Duration::from_secs(1)), Some(Duration::from_secs(2)));
        assert_eq!(earlier(short, long), short);
        assert_eq!(earlier(None, long), long);
        assert_eq!(earlier(None, None), None);
    }
}
