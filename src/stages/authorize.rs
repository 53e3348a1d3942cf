//! Authorize: puts the token of the identity a caller acts as into its request, and a new one if Salesforce rejects it.
//!
//! A caller without an identity passes as if this stage were not there. With one, whatever session it sent is replaced in
//! the form its API wants: `Authorization`, `X-SFDC-Session` for Bulk API 1.0, `sessionId` inside a SOAP envelope. If
//! Salesforce answers that the session is invalid, it has refused the request unread, so it is repeated once with a new
//! token, writes too, if its body is still here.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Response, StatusCode, Uri, Version};
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::answers::Urgency;
use crate::body::{HeldBytes, Payload, Pieces, ReplyBody, wiped};
use crate::call::{Call, Family};
use crate::clock::Clock;
use crate::exchange::vault::{Identity, NoToken, Token, Trouble};
use crate::live::Live;
use crate::outcome::Record;
use crate::refusal::{Reason, Refusal};
use crate::salesforce::{session_error, with_session};
use crate::stages::answer::{Gathered, gather, plain};
use crate::stages::back::Back;
use crate::stages::breakers::Permit;
use crate::stages::way::Waiting;
use crate::stages::{Passage, Reply, inflate};
use crate::tasks::Tasks;

const SESSION: HeaderName = HeaderName::from_static("x-sfdc-session");

/// Errors of Salesforce are shorter than this; a longer answer is none that says a session is invalid.
const LONGEST_ERROR: usize = 16 * 1_024;

/// Places for second attempts that wait to be used again, for each runtime.
const MOST_SPARE: usize = 64;
/// A place that holds more than this is not used again.
const ROOMY: usize = 4 * 1_024;

/// Puts [`Authorize`] on the road.
#[derive(Debug, Clone)]
pub struct AuthorizeLayer {
    /// What time it is.
    pub clock: Clock,
    /// Where log-ins run.
    pub tasks: Tasks,
}

impl<S> Layer<S> for AuthorizeLayer {
    type Service = Authorize<S>;

    fn layer(&self, inner: S) -> Authorize<S> {
        let office = Office { clock: self.clock, tasks: self.tasks.clone(), spare: Mutex::default() };
        Authorize { inner, office: Arc::new(office) }
    }
}

/// The stage. Cloning is one reference count and what the stage below costs.
#[derive(Debug, Clone)]
pub struct Authorize<S> {
    inner: S,
    office: Arc<Office>,
}

/// What all clones of the stage share.
struct Office {
    clock: Clock,
    tasks: Tasks,
    #[expect(clippy::vec_box, reason = "they travel with the call, by a pointer")]
    spare: Mutex<Vec<Box<Kept>>>,
}

impl fmt::Debug for Office {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Office").finish_non_exhaustive()
    }
}

impl Office {
    /// An empty place for what a second attempt needs.
    fn place(&self) -> Box<Kept> {
        self.spare.lock().pop().unwrap_or_default()
    }

    /// Takes one back that is not needed.
    fn take_back(&self, mut kept: Box<Kept>) {
        kept.head.clear();
        kept.rest = None;
        if kept.head.capacity() <= ROOMY {
            let mut spare = self.spare.lock();
            if spare.len() < MOST_SPARE {
                spare.push(kept);
            }
        }
    }
}

impl<S> Service<Box<Passage>> for Authorize<S>
where
    S: Service<Box<Passage>, Response = Reply, Error = Refusal> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Reply;
    type Error = Refusal;
    type Future = Authorizing<S::Future, S>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut passage: Box<Passage>) -> Self::Future {
        let org = passage.live.org(passage.call.org);
        let Some(identity) = org.and_then(|org| org.identity(passage.call.caller)) else {
            return Authorizing::Onward { inner: self.inner.call(passage) };
        };
        let fresh = identity.fresh(passage.now);
        let Some(token) = fresh.as_ref().and_then(|fresh| fresh.as_ref()) else {
            let identity = Arc::clone(identity);
            let waiting = Box::pin(self.clone().wait(identity, passage));
            return Authorizing::Slow { waiting };
        };
        let mut kept = self.office.place();
        match kept.put(&mut passage, token) {
            Ok(()) => {
                drop(fresh);
                Authorizing::First { inner: self.inner.call(passage), again: Some(Again { kept, stage: self.clone() }) }
            }
            Err(refusal) => Authorizing::Slow { waiting: Box::pin(std::future::ready(Err(refusal))) },
        }
    }
}

impl<S> Authorize<S>
where
    S: Service<Box<Passage>, Response = Reply, Error = Refusal> + Clone + Send + 'static,
    S::Future: Send,
{
    /// The first attempt of a call for which there is no fresh token.
    async fn wait(mut self, identity: Arc<Identity>, mut passage: Box<Passage>) -> Result<Reply, Refusal> {
        let token = identity.token(passage.call.deadline, &self.office.tasks).await;
        let token = token.map_err(|none| no_token(&identity, none))?;
        passage.now = self.office.clock.now();
        let family = passage.call.meaning.family;
        let mut kept = self.office.place();
        kept.put(&mut passage, &token)?;
        drop(token);
        let reply = self.inner.call(passage).await?;
        if session_error(family, reply.status(), None) {
            return Again { kept, stage: self }.repeat(reply).await;
        }
        self.office.take_back(kept);
        Ok(reply)
    }
}

/// What a second attempt needs. It is used again and again: to allocate one for each call would cost more than all that
/// this stage does besides.
#[derive(Default)]
struct Kept {
    /// Target and headers, a line each, without credentials. Copied, because a clone of any of them would keep the whole
    /// buffer they were read into.
    head: Vec<u8>,
    rest: Option<Rest>,
}

struct Rest {
    call: Call,
    epoch: u64,
    jwt: bool,
    live: Arc<Live>,
    record: Record,
    secure: bool,
    permit: Option<Permit>,
    back: Option<Back>,
    urgency: Option<Arc<Urgency>>,
    method: Method,
    version: Version,
    /// `None`: the body streams, and is gone.
    body: Option<Whole>,
}

enum Whole {
    Empty,
    Bytes(Bytes, Option<HeldBytes>),
    Pieces(Pieces, Option<HeldBytes>),
}

impl Kept {
    /// Puts `token` into the request, and keeps what a second attempt with another one needs.
    fn put(&mut self, passage: &mut Passage, token: &Token) -> Result<(), Refusal> {
        let body = match &mut passage.payload {
            Payload::Empty => Some(Whole::Empty),
            // The hold is kept as long as the bytes may be needed.
            Payload::Whole(bytes, held) => Some(Whole::Bytes(bytes.clone(), held.take())),
            Payload::Pieces(pieces, held) => Some(Whole::Pieces(pieces.clone(), held.take())),
            Payload::Stream(_) => None,
        };
        self.rest = Some(Rest {
            call: passage.call.clone(),
            epoch: token.epoch(),
            jwt: token.is_jwt(),
            live: Arc::clone(&passage.live),
            record: passage.record.clone(),
            secure: passage.secure,
            permit: passage.permit.clone(),
            back: passage.back.clone(),
            urgency: passage.urgency.clone(),
            method: passage.head.method.clone(),
            version: passage.head.version,
            body,
        });
        let head = &mut self.head;
        head.extend_from_slice(passage.head.uri.path_and_query().map_or("/", PathAndQuery::as_str).as_bytes());
        head.push(b'\n');
        put(passage, token, |name, value| {
            head.extend_from_slice(name.as_bytes());
            head.push(b':');
            head.extend_from_slice(value.as_bytes());
            head.push(b'\n');
        })
    }
}

impl Rest {
    /// The request as it came, but for its credentials, for an attempt at `now`.
    fn passage(self, kept: &[u8], now: tokio::time::Instant) -> Option<Box<Passage>> {
        let Self { call, live, record, secure, method, version, body, permit, back, urgency, epoch: _, jwt: _ } = self;
        let payload = match body? {
            Whole::Empty => Payload::Empty,
            Whole::Bytes(bytes, held) => Payload::Whole(bytes, held),
            Whole::Pieces(pieces, held) => Payload::Pieces(pieces, held),
        };
        let (mut head, ()) = http::Request::new(()).into_parts();
        (head.method, head.version) = (method, version);
        // No value holds a line break, and no name a colon.
        let mut lines = kept.split(|byte| *byte == b'\n');
        head.uri = Uri::try_from(lines.next()?).ok()?;
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_at_checked(memchr::memchr(b':', line)?)?;
            let value = HeaderValue::from_bytes(value.get(1..)?).ok()?;
            head.headers.append(HeaderName::from_bytes(name).ok()?, value);
        }
        Some(Box::new(Passage {
            permit,
            back,
            urgency,
            ..Passage::new(call, head, payload, live, record, now, secure)
        }))
    }
}

/// A second attempt, should it be needed.
pub struct Again<S> {
    kept: Box<Kept>,
    stage: Authorize<S>,
}

impl<S> Again<S>
where
    S: Service<Box<Passage>, Response = Reply, Error = Refusal> + Clone + Send + 'static,
    S::Future: Send,
{
    /// Whether an answer of `status` is worth a look.
    fn may_help(&self, status: StatusCode) -> bool {
        self.kept.rest.as_ref().is_some_and(|rest| session_error(rest.call.meaning.family, status, None))
    }

    /// Repeats the request with a new token, if `reply` really says that the session is invalid.
    async fn repeat(self, reply: Reply) -> Result<Reply, Refusal> {
        let Self { kept, mut stage } = self;
        let Kept { head, rest: Some(rest) } = *kept else { return Ok(reply) };
        let family = rest.call.meaning.family;
        // A new JSON Web Token would be refused by SOAP like the old one, without end.
        if family == Family::Soap && rest.jwt {
            return Ok(reply);
        }
        let (reply, invalid) = says_invalid(family, reply).await;
        let org = rest.live.org(rest.call.org);
        let Some(identity) = org.and_then(|org| org.identity(rest.call.caller)).filter(|_| invalid).map(Arc::clone)
        else {
            return Ok(reply);
        };
        let deadline = rest.call.deadline;
        identity.rejected(rest.epoch, stage.office.clock.now());
        let Some(mut passage) = rest.passage(&head, stage.office.clock.now()) else { return Ok(reply) };
        let token = identity.token(deadline, &stage.office.tasks).await;
        let token = token.map_err(|none| no_token(&identity, none))?;
        passage.now = stage.office.clock.now();
        put(&mut passage, &token, |_, _| {})?;
        let epoch = token.epoch();
        drop(token);
        let second = stage.inner.call(passage).await?;
        let (second, invalid) = says_invalid(family, second).await;
        if invalid {
            // Logging in did not help: its next caller waits for the back-off step.
            identity.rejected(epoch, stage.office.clock.now());
        }
        Ok(second)
    }
}

/// Whether an answer says that its session is invalid. It comes back as it was.
async fn says_invalid(family: Family, reply: Reply) -> (Reply, bool) {
    if !session_error(family, reply.status(), None) {
        return (reply, false);
    }
    let (head, body) = reply.into_parts();
    match gather(body, LONGEST_ERROR).await {
        Gathered::Whole(whole) => {
            let said = plain(&head.headers, &whole, LONGEST_ERROR);
            let invalid = said.is_some_and(|said| session_error(family, head.status, Some(&said)));
            (Response::from_parts(head, ReplyBody::Whole(whole)), invalid)
        }
        Gathered::Longer(body) => (Response::from_parts(head, body), false),
    }
}

/// Puts `token` where the call's API wants it, and takes every other credential out. `other` sees each header that is
/// none.
fn put(passage: &mut Passage, token: &Token, mut other: impl FnMut(&str, &HeaderValue)) -> Result<(), Refusal> {
    let headers = &mut passage.head.headers;
    // One look at each costs less than two look-ups.
    let (mut given, mut session) = (0, false);
    for (name, value) in headers.iter_mut() {
        match name.as_str() {
            "authorization" => {
                *value = token.authorization().clone();
                given += 1;
            }
            "x-sfdc-session" => session = true,
            name => other(name, value),
        }
    }
    match passage.call.meaning.family {
        Family::Bulk1 => {
            headers.remove(AUTHORIZATION);
            headers.insert(SESSION, token.session().clone());
        }
        Family::Soap => {
            headers.remove(AUTHORIZATION);
            headers.remove(SESSION);
            return into_envelope(passage, token);
        }
        _ => {
            if given != 1 {
                headers.insert(AUTHORIZATION, token.authorization().clone());
            }
            if session {
                headers.remove(SESSION);
            }
        }
    }
    Ok(())
}

/// Puts `token` into a SOAP envelope. One that could not be read is refused: nobody knows what it would do in the name of
/// the identity.
fn into_envelope(passage: &mut Passage, token: &Token) -> Result<(), Refusal> {
    let Payload::Whole(bytes, _) = &passage.payload else { return Ok(()) };
    if passage.call.meaning.parts.is_empty() {
        return Err(Refusal::new(Reason::BodyMalformed, "The SOAP envelope could not be read."));
    }
    let plain = inflate::plain(&passage.head.headers, bytes, passage.live.body_bytes)?;
    let Some(envelope) = with_session(&plain, token.session().as_bytes()) else {
        let detail = "The SOAP envelope has no sessionId, in whose place the identity's session could be put.";
        return Err(Refusal::new(Reason::BadCredential, detail));
    };
    let envelope = wiped(envelope);
    let headers = &mut passage.head.headers;
    headers.remove(CONTENT_ENCODING);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(envelope.len()));
    passage.payload = Payload::Whole(envelope, None);
    Ok(())
}

/// The answer for a caller whose identity has no token.
pub(super) fn no_token(identity: &Identity, none: NoToken) -> Refusal {
    let name = identity.name();
    let words = match none.why {
        Trouble::Unreachable => "the token endpoint does not answer",
        Trouble::Unavailable => "the token endpoint is not available",
        Trouble::Garbage => "what answers at the token endpoint is no token endpoint",
        Trouble::Refused => "its credentials are not accepted",
        Trouble::Rejected => "Salesforce rejects the sessions it was just given",
        Trouble::LoginBudget => "its log-ins of this hour are used up",
        Trouble::Crowded => "too many calls wait for it",
        Trouble::Interrupted => "the log-in was interrupted",
    };
    let detail = format!("The gateway cannot log in to Salesforce as \"{name}\": {words}.");
    match none.again {
        None => Refusal::new(Reason::IdentityRefused, detail),
        Some(wait) => Refusal::new(Reason::IdentityUnavailable, detail).retry_after(wait.max(Duration::from_secs(1))),
    }
}

pin_project! {
    /// The future of [`Authorize`].
    #[project = Projection]
    #[expect(missing_docs, reason = "the macro takes no documentation on fields of variants")]
    pub enum Authorizing<F, S> {
        /// The caller brings its own session.
        Onward { #[pin] inner: F },
        /// Sent with the identity's token.
        First { #[pin] inner: F, again: Option<Again<S>> },
        /// Waits for a token.
        Slow { waiting: Waiting },
    }
}

impl<F, S> Future for Authorizing<F, S>
where
    F: Future<Output = Result<Reply, Refusal>>,
    S: Service<Box<Passage>, Response = Reply, Error = Refusal> + Clone + Send + 'static,
    S::Future: Send,
{
    type Output = Result<Reply, Refusal>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (reply, again) = match self.as_mut().project() {
            Projection::Onward { inner } => return inner.poll(cx),
            Projection::Slow { waiting } => return waiting.as_mut().poll(cx),
            Projection::First { inner, again } => {
                let result = ready!(inner.poll(cx));
                let status = result.as_ref().ok().map(Response::status);
                if !status.zip(again.as_ref()).is_some_and(|(status, again)| again.may_help(status)) {
                    if let Some(Again { kept, stage }) = again.take() {
                        stage.office.take_back(kept);
                    }
                    return Poll::Ready(result);
                }
                match (result, again.take()) {
                    (Ok(reply), Some(again)) => (reply, again),
                    (result, _) => return Poll::Ready(result),
                }
            }
        };
        let mut waiting: Waiting = Box::pin(again.repeat(reply));
        match waiting.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => {
                self.set(Authorizing::Slow { waiting });
                Poll::Pending
            }
        }
    }
}
