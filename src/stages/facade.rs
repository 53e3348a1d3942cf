//! The pages of the facade: log-ins and what belongs to them, for orgs whose identities the gateway holds.
//!
//! Nothing here reaches Salesforce with a caller's words: a key, password or assertion is judged here, and what is handed out
//! is a gateway token. What the answers look like is decided in [`crate::edge::facade`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Response};
use zeroize::Zeroizing;

use crate::body::{ByteBudget, ReplyBody};
use crate::call::{CallerId, Family, Meaning, Operation, OrgId};
use crate::clock::Clock;
use crate::config::key::{self, KEY_LEN, Shape};
use crate::edge::callers::Proof;
use crate::edge::facade::Facade;
use crate::edge::facade::envelope::{self, Api, LoggedIn};
use crate::edge::facade::grant::{self, Form, Granted, OAuthError};
use crate::edge::facade::token::{Pass, Serial, is_gateway_token};
use crate::edge::facts::Facts;
use crate::edge::inbound::Inbound;
use crate::edge::{proxies, target};
use crate::exchange::vault::{Identity, User};
use crate::live::{Live, LiveOrg};
use crate::refusal::{Reason, Refusal};
use crate::salesforce::{self, Credential};
use crate::stages::authorize::no_token;
use crate::stages::identify::{find, lower, note};
use crate::stages::{Known, Reply, Seen, inflate};
use crate::tasks::Tasks;

/// Forms and log-in envelopes are small.
const LARGEST_FORM: usize = 64 * 1_024;

/// What the pages need.
#[derive(Debug, Clone)]
pub struct Desk {
    /// What time it is.
    pub clock: Clock,
    /// Where the bytes of bodies are taken from.
    pub buffers: ByteBudget,
    /// Where log-ins of identities run.
    pub tasks: Tasks,
}

/// What the gateway answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// `/services/oauth2/token`.
    Token,
    /// `/services/oauth2/introspect`.
    Introspect,
    /// `/services/oauth2/revoke`.
    Revoke,
    /// A log-in the facade does not have.
    None,
}

/// What a request to an org with a facade needs before its caller can be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing more.
    Nothing,
    /// Nobody: the gateway answers.
    Page(Page),
    /// Its SOAP envelope, which holds the session, or a log-in.
    Envelope,
}

impl Need {
    /// Decided by what the head says.
    pub fn of(meaning: &Meaning) -> Self {
        match (meaning.family, meaning.template) {
            (Family::Soap, _) if meaning.method == Method::POST => Self::Envelope,
            (Family::Oauth, "/services/oauth2/token") => Self::Page(Page::Token),
            (Family::Oauth, "/services/oauth2/introspect") => Self::Page(Page::Introspect),
            (Family::Oauth, "/services/oauth2/revoke") => Self::Page(Page::Revoke),
            // Who the user is, Salesforce says; its answer is rewritten.
            (Family::Oauth, "/services/oauth2/userinfo" | "/id/{org}/{user}" | "/id/keys") => Self::Nothing,
            (Family::Oauth, template) if template.starts_with("/.well-known/") => Self::Nothing,
            (Family::Oauth, _) => Self::Page(Page::None),
            _ => Self::Nothing,
        }
    }
}

/// Who holds a gateway token.
pub struct Holder {
    /// The caller.
    pub caller: CallerId,
    /// Until when.
    pub expires: Duration,
    serial: Serial,
}

/// The holder of `token` in `org` at wall time `now`; `None` if it is not valid here and now.
pub fn holder(live: &Live, org: &LiveOrg, token: &str, now: Duration) -> Option<Holder> {
    let opened = live.sealer.open(token, now).ok()?;
    let Pass { org: name, caller, identity, expires } = opened.pass;
    let revoked = &org.facade.as_ref()?.revoked;
    if name != org.name || revoked.has(&opened.serial) {
        return None;
    }
    let caller = live.config.caller_named(&caller)?;
    // A caller that acts as somebody else now has to log in again.
    let acts = org.identity(caller).is_some_and(|acts| *acts.name() == identity);
    acts.then_some(Holder { caller, expires, serial: opened.serial })
}

/// What became of a SOAP request.
pub enum Opened {
    /// It was a log-in or log-out.
    Answer(Reply),
    /// Its caller is known.
    Onward(Box<Known>),
}

/// Answers `page`.
pub async fn page(desk: &Desk, seen: Seen, org: OrgId, meaning: &Meaning, page: Page) -> Result<Reply, Refusal> {
    note(&seen, meaning);
    let Seen { head, body, connection, live, record, now } = seen;
    let address = proxies::client(connection.peer, connection.secure, &head.headers, &live.trusted_proxies);
    record.lock().remote = Some(address.address);
    let (held, facade) = parts(&live, org)?;
    let may_get = page == Page::Revoke && meaning.method == Method::GET;
    if page == Page::None {
        return Err(Refusal::new(
            Reason::NoSuchPage,
            "Apps log in to this org with their gateway key, not by this way.",
        ));
    }
    if meaning.method != Method::POST && !may_get {
        return Err(Refusal::new(Reason::MethodNotAllowed, "This endpoint takes POST."));
    }
    let (bytes, _held) = body.recorded(record.clone()).collect_whole(&desk.buffers, LARGEST_FORM).await?;
    let form = Form::parse(if may_get { head.uri.query().unwrap_or_default().as_bytes() } else { &bytes });
    let wall = desk.clock.wall(now);
    // Only now that all is here: nothing waits from here to the verdict, so attempts side by side are counted one by one.
    facade.attempts.lock().may_try(address.address, now).map_err(|wait| limited(facade, wait))?;
    let failed = |error: OAuthError| {
        facade.attempts.lock().failed(address.address, now);
        count(&facade.denied);
        Ok(whole(error.answer()))
    };
    match page {
        Page::Token => {}
        Page::Introspect => {
            let asks = grant::client_secret(&form, &head.headers);
            let proves = asks.is_some_and(|secret| caller_by_key(&live, &secret).is_some());
            if !proves {
                return failed(OAuthError::InvalidClient);
            }
            return Ok(whole(introspected(&live, held, form.get("token").unwrap_or_default(), wall)));
        }
        Page::Revoke => return Ok(whole(given_back(&live, held, facade, form.get("token"), wall)?)),
        Page::None => return Err(Refusal::new(Reason::NoSuchPage, "There is no such log-in.")),
    }
    let (caller, secret) = match grant::proof(&form, &head.headers) {
        Err(error @ (OAuthError::UnsupportedGrant | OAuthError::InvalidRequest)) => return Ok(whole(error.answer())),
        Err(error) => return failed(error),
        Ok(grant::Proof::Keys(keys)) => {
            let wrong = match form.get("grant_type") {
                Some("client_credentials") => OAuthError::InvalidClient,
                Some("refresh_token") => OAuthError::InvalidRefresh,
                _ => OAuthError::InvalidGrant,
            };
            match one_caller(&live, keys) {
                Some(found) => found,
                None => return failed(wrong),
            }
        }
        Ok(grant::Proof::Assertion(assertion)) => {
            let claims = live.issuers.verify(&assertion, wall);
            match claims.map(|claims| live.callers.by_claims(&claims)) {
                Ok(Proof::Caller(caller)) => (caller, assertion),
                _ => return failed(OAuthError::InvalidGrant),
            }
        }
    };
    record.lock().caller = Some(caller);
    let Some(identity) = held.identity(caller) else { return failed(OAuthError::NoAccess) };
    facade.attempts.lock().log_in(caller, now).map_err(|wait| limited(facade, wait))?;
    let user = user(desk, identity).await?;
    let token = sealed(&live, held, caller, identity, &user, wall)?;
    let public = public(held, &head.headers, address.secure)?;
    let granted = Granted { public: &public, org_id: &user.org, user_id: &user.user, issued_at_ms: wall.as_millis() };
    count(&facade.granted);
    Ok(whole(grant::token_answer(&token, secret.as_bytes(), granted)))
}

/// Reads the envelope of a SOAP request: it logs in, logs out, or holds the session that says who calls.
pub async fn envelope(desk: &Desk, mut seen: Seen, org: OrgId, mut meaning: Meaning) -> Result<Opened, Refusal> {
    note(&seen, &meaning);
    let live = Arc::clone(&seen.live);
    let (held, facade) = parts(&live, org)?;
    let body = std::mem::replace(&mut seen.body, Inbound::whole(Bytes::new(), desk.clock));
    let (bytes, kept) = body.recorded(seen.record.clone()).collect_whole(&desk.buffers, live.body_bytes).await?;
    let plain = inflate::plain(&seen.head.headers, &bytes, live.body_bytes)?;
    let by_head = meaning.clone();
    if salesforce::read_body(&mut meaning, &plain, &held.costs).is_ok()
        && meaning.parts.iter().any(|part| part.operation == Operation::Login)
    {
        seen.record.lock().operation = Operation::Login;
        return session_call(desk, &seen, held, facade, &meaning, &plain).await.map(Opened::Answer);
    }
    let session = salesforce::credentials(&seen.head.headers, Some(&plain)).ok().flatten();
    let facts = Facts::of(&seen.head.headers);
    let host = lower(target::host_of(facts.host, seen.head.version)?.host);
    let shown = session.as_ref().map(Credential::secret);
    let findings = find(desk.clock, &seen, facts, org, &host, Some(by_head), shown)?;
    drop(plain);
    seen.body = Inbound::again(bytes, kept, desk.clock);
    Ok(Opened::Onward(Box::new(findings.known(seen))))
}

/// SOAP `login` and `logout`. Nothing of the kind is ever sent on: it would end the session all callers share.
async fn session_call(
    desk: &Desk,
    seen: &Seen,
    held: &LiveOrg,
    facade: &Facade,
    meaning: &Meaning,
    plain: &[u8],
) -> Result<Reply, Refusal> {
    let (live, now) = (&seen.live, seen.now);
    let wall = desk.clock.wall(now);
    let client =
        proxies::client(seen.connection.peer, seen.connection.secure, &seen.head.headers, &live.trusted_proxies);
    seen.record.lock().remote = Some(client.address);
    let Some(api) = Api::of(meaning.template) else {
        return Err(Refusal::new(Reason::Forbidden, "This API has no log-in."));
    };
    if !salesforce::is_soap_login(meaning) {
        let session = salesforce::credentials(&seen.head.headers, Some(plain)).ok().flatten();
        given_back(live, held, facade, session.as_ref().map(Credential::secret), wall)?;
        return Ok(whole(envelope::logged_out(api)));
    }
    facade.attempts.lock().may_try(client.address, now).map_err(|wait| limited(facade, wait))?;
    let login = salesforce::soap_login(plain);
    let caller = login.as_ref().and_then(|login| caller_by_key(live, &login.password));
    let Some((caller, identity)) = caller.and_then(|caller| Some((caller, held.identity(caller)?))) else {
        facade.attempts.lock().failed(client.address, now);
        count(&facade.denied);
        return Ok(whole(envelope::invalid_login()));
    };
    seen.record.lock().caller = Some(caller);
    facade.attempts.lock().log_in(caller, now).map_err(|wait| limited(facade, wait))?;
    let user = user(desk, identity).await?;
    let token = sealed(live, held, caller, identity, &user, wall)?;
    let version = meaning.version.map(|version| version.to_string()).unwrap_or_default();
    let said = LoggedIn {
        api,
        version: version.trim_start_matches('v'),
        public: &public(held, &seen.head.headers, client.secure)?,
        org_id: &user.org,
        user_id: &user.user,
        caller: live.caller(caller).map_or("", |caller| caller.name.as_str()),
        seconds: live.config.gateway_tokens.lifetime.as_secs(),
    };
    count(&facade.granted);
    Ok(whole(envelope::logged_in(&token, said)))
}

fn parts(live: &Live, org: OrgId) -> Result<(&LiveOrg, &Facade), Refusal> {
    live.org(org)
        .and_then(|held| Some((held, held.facade.as_deref()?)))
        .ok_or_else(|| Refusal::new(Reason::UnknownOrg, "The org was removed from the configuration."))
}

/// The caller whose gateway key `text` is. Clients that know of security tokens put one behind the password.
fn caller_by_key(live: &Live, text: &str) -> Option<CallerId> {
    let text = match text.split_at_checked(KEY_LEN) {
        Some((front, _)) if key::shape(front) == Shape::Key => front,
        _ => text,
    };
    match live.callers.by_key(text.as_bytes()) {
        Proof::Caller(caller) => Some(caller),
        Proof::Absent | Proof::Rejected(_) | Proof::Invalid => None,
    }
}

/// The one caller that `offered` proves, and its key. What an app was told before it moved here (a password or secret of
/// Salesforce) may stand beside the key; a gateway key that is nobody's, or another caller's, may not.
fn one_caller(
    live: &Live,
    offered: impl IntoIterator<Item = Zeroizing<String>>,
) -> Option<(CallerId, Zeroizing<String>)> {
    let mut found: Option<(CallerId, Zeroizing<String>)> = None;
    for text in offered {
        match (caller_by_key(live, &text), &found) {
            (Some(caller), Some((known, _))) if caller != *known => return None,
            (Some(caller), None) => found = Some((caller, text)),
            (None, _) if text.starts_with(key::PREFIX) => return None,
            _ => {}
        }
    }
    found
}

/// The Salesforce user behind an identity, which has to have logged in once.
async fn user(desk: &Desk, identity: &Arc<Identity>) -> Result<User, Refusal> {
    if let Some(user) = identity.user() {
        return Ok(user);
    }
    identity.token(None, &desk.tasks).await.map_err(|none| no_token(identity, none))?;
    // A token endpoint that does not say whose the token is leaves nothing to say.
    Ok(identity.user().unwrap_or(User { org: "00D000000000000AAA".into(), user: "005000000000000AAA".into() }))
}

fn sealed(
    live: &Live,
    held: &LiveOrg,
    caller: CallerId,
    identity: &Identity,
    user: &User,
    wall: Duration,
) -> Result<Zeroizing<String>, Refusal> {
    let pass = Pass {
        org: held.name.clone(),
        caller: live.caller(caller).map(|caller| caller.name.clone()).unwrap_or_default(),
        identity: identity.name().clone(),
        expires: wall + live.config.gateway_tokens.lifetime,
    };
    live.sealer
        .seal(&pass, user.org.get(..15).unwrap_or(&user.org))
        .map_err(|_| Refusal::new(Reason::Internal, "The token could not be sealed."))
}

fn introspected(live: &Live, held: &LiveOrg, token: &str, wall: Duration) -> Response<Bytes> {
    let (caller, expires) = if is_gateway_token(token.as_bytes()) {
        match holder(live, held, token, wall) {
            Some(holder) => (Some(holder.caller), Some(holder.expires.as_secs())),
            None => (None, None),
        }
    } else {
        (caller_by_key(live, token), None)
    };
    match caller.and_then(|caller| live.caller(caller)) {
        Some(caller) => grant::active(&caller.name, expires),
        None => grant::inactive(),
    }
}

fn given_back(
    live: &Live,
    held: &LiveOrg,
    facade: &Facade,
    token: Option<&str>,
    wall: Duration,
) -> Result<Response<Bytes>, Refusal> {
    let Some(token) = token else { return Ok(OAuthError::InvalidRequest.answer()) };
    if !is_gateway_token(token.as_bytes()) {
        return Ok(OAuthError::UnsupportedToken.answer());
    }
    let Some(holder) = holder(live, held, token, wall) else { return Ok(OAuthError::InvalidToken.answer()) };
    match facade.revoked.add(holder.serial, holder.expires, wall) {
        Ok(()) => Ok(grant::revoked()),
        Err(_) => Err(Refusal::new(Reason::BuffersFull, "No more tokens can be given back now; this one stays valid.")),
    }
}

fn public(held: &LiveOrg, headers: &http::HeaderMap, secure: bool) -> Result<Arc<str>, Refusal> {
    held.public(headers.get(HOST), secure).ok_or_else(|| {
        Refusal::new(Reason::Internal, "The gateway does not know its own address: public_url is not configured.")
    })
}

fn limited(facade: &Facade, wait: Duration) -> Refusal {
    count(&facade.limited);
    Refusal::new(Reason::LoginLimited, "Too many log-ins, or too many that failed.").retry_after(wait)
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn whole(answer: Response<Bytes>) -> Reply {
    answer.map(ReplyBody::Whole)
}
