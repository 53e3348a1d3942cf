//! Identify: which org is this for, and who is calling?

use std::borrow::Cow;
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName};
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::call::{CallerId, Class, Meaning, OrgId};
use crate::clock::Clock;
use crate::config::key::{self, Shape};
use crate::edge::callers::{Evidence, Proof, Stranger};
use crate::edge::facade::token::is_gateway_token;
use crate::edge::{headers, proxies, target};
use crate::live::LiveOrg;
use crate::refusal::{Reason, Refusal};
use crate::salesforce;
use crate::stages::facade::{self, Desk};
use crate::stages::way::Way;
use crate::stages::{Known, Reply, Seen, own};

/// The header that carries a gateway key or a token of the company's identity provider.
pub const KEY_HEADER: HeaderName = HeaderName::from_static("weirkeeper-key");
/// The header by which a request may lower its class.
pub const CLASS_HEADER: HeaderName = HeaderName::from_static("weirkeeper-class");
/// The header that says how long the caller waits, in milliseconds.
pub const TIMEOUT_HEADER: HeaderName = HeaderName::from_static("x-request-timeout-ms");

/// Where Bulk API 1.0 wants a session.
const SESSION_HEADER: HeaderName = HeaderName::from_static("x-sfdc-session");

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
            Ok(Found::Facts(facts)) if is_own(seen.head.uri.path()) => {
                let known = facts.known(seen);
                match own::page(&known) {
                    Ok(page) => Way::answered(page),
                    Err(refusal) => {
                        note_family(&known.seen);
                        Way::refused(refusal)
                    }
                }
            }
            Ok(Found::Facts(facts)) => Way::onward(self.inner.call(facts.known(seen))),
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
    Facts(Facts),
    /// It asks for something the gateway answers itself.
    Page(OrgId, Meaning, facade::Page),
    /// Who calls stands in its SOAP envelope.
    Envelope(OrgId, Meaning),
}

/// What is known about a request whose caller was found.
pub(super) struct Facts {
    org: OrgId,
    caller: CallerId,
    class: Class,
    deadline: Option<Instant>,
    secure: bool,
    meaning: Option<Meaning>,
}

impl Facts {
    /// The request these facts are about.
    pub(super) fn known(self, seen: Seen) -> Known {
        let Self { org, caller, class, deadline, secure, meaning } = self;
        Known { seen, org, caller, class, deadline, secure, meaning }
    }
}

fn identify(clock: Clock, seen: &mut Seen) -> Result<Found, Refusal> {
    target::normalise(&mut seen.head)?;
    let host = lower(target::host_of(&seen.head)?.host);
    let org = seen
        .live
        .org_by_host(&host)
        .ok_or_else(|| Refusal::new(Reason::UnknownOrg, "No org is configured for the Host name of this request."))?;
    seen.record.lock().org = Some(org);
    let meaning = match seen.live.org(org) {
        Some(held) if held.facade.is_some() => {
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
    find(clock, seen, org, &host, meaning, None).map(Found::Facts)
}

/// Finds the caller of a request to `org`. `session` is what stands in the place of a session in its body.
pub(super) fn find(
    clock: Clock,
    seen: &Seen,
    org: OrgId,
    host: &str,
    meaning: Option<Meaning>,
    session: Option<&str>,
) -> Result<Facts, Refusal> {
    let live = &seen.live;
    let proof = proof(clock, seen, org, session);
    let client =
        proxies::client(seen.connection.peer, seen.connection.secure, &seen.head.headers, &live.trusted_proxies);
    let address = client.address;
    let secure = client.secure;
    let client = headers::client_of(&seen.head.headers);
    let evidence = Evidence { proof: &proof, certificate: seen.connection.certificate.as_ref(), host, address, client };
    let found = live.callers.identify(&evidence);
    let mut outcome = seen.record.lock();
    outcome.remote = Some(address);
    outcome.client = client.map(Into::into);
    let caller = match found {
        Ok(caller) => caller,
        Err(stranger) => return Err(unknown(stranger)),
    };
    let configured = live.caller(caller).ok_or_else(|| unknown(Stranger::Unmatched))?;
    let class = lowered(configured.class, &seen.head.headers);
    let deadline = earlier(configured.deadline, requested_timeout(&seen.head.headers)).map(|wait| seen.now + wait);
    outcome.caller = Some(caller);
    outcome.class = class;
    drop(outcome);
    Ok(Facts { org, caller, class, deadline, secure, meaning })
}

/// What the key or token in the request proves; remembered for the connection, so that a key is hashed and a token
/// verified once and compared afterwards.
fn proof(clock: Clock, seen: &Seen, org: OrgId, session: Option<&str>) -> Proof {
    let held = seen.live.org(org).filter(|held| held.facade.is_some());
    let shown = match (seen.head.headers.get(&KEY_HEADER), held) {
        (Some(shown), _) => shown.as_bytes(),
        (None, None) => return Proof::Absent,
        // Where a session may stand, a gateway key or token may, too.
        (None, Some(_)) => match session.or_else(|| session_of(&seen.head.headers)) {
            Some(text) if salesforce::is_gateway_key(text) || is_gateway_token(text) => text.as_bytes(),
            _ => return Proof::Absent,
        },
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
fn session_of(headers: &HeaderMap) -> Option<&str> {
    let ours = |text: &&str| salesforce::is_gateway_key(text) || is_gateway_token(text);
    let authorization = headers.get(AUTHORIZATION).and_then(|given| given.to_str().ok()?.split_once(' '));
    authorization
        .map(|(_scheme, session)| session.trim())
        .filter(ours)
        .or_else(|| headers.get(&SESSION_HEADER)?.to_str().ok().map(str::trim).filter(ours))
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
    if is_gateway_token(text) {
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
fn lowered(configured: Class, headers: &HeaderMap) -> Class {
    headers
        .get(&CLASS_HEADER)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| Class::parse(text.trim()))
        .map_or(configured, |asked| asked.max(configured))
}

fn requested_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(&TIMEOUT_HEADER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_millis)
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
        let mut headers = HeaderMap::new();
        headers.insert(CLASS_HEADER, "batch".parse().unwrap());
        assert_eq!(lowered(Class::Interactive, &headers), Class::Batch);
        headers.insert(CLASS_HEADER, "interactive".parse().unwrap());
        assert_eq!(lowered(Class::Standard, &headers), Class::Standard);
        headers.insert(CLASS_HEADER, "nonsense".parse().unwrap());
        assert_eq!(lowered(Class::Standard, &headers), Class::Standard);
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
