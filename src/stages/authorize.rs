//! Authorize: puts the token of the identity a caller acts as into its request, and a new one if Salesforce rejects it.
//!
//! A caller without an identity passes as if this stage were not there. With one, whatever session it sent is replaced in
//! the form its API wants: `Authorization`, `X-SFDC-Session` for Bulk API 1.0, `sessionId` inside a SOAP envelope. If
//! Salesforce answers that the session is invalid, it has refused the request unread, so it is repeated once with a new
//! token, writes too, if its body is still here.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, HeaderName, HeaderValue};
use http::{Method, Response, Uri, Version};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::body::{HeldBytes, Payload, ReplyBody, wiped};
use crate::call::{Call, Family};
use crate::clock::Clock;
use crate::exchange::vault::{Identity, NoToken, Token, Trouble};
use crate::live::Live;
use crate::outcome::Record;
use crate::refusal::{Reason, Refusal};
use crate::salesforce::{session_error, with_session};
use crate::stages::answer::{Gathered, gather, plain};
use crate::stages::way::Waiting;
use crate::stages::{Passage, Reply, inflate};
use crate::tasks::Tasks;

const SESSION: HeaderName = HeaderName::from_static("x-sfdc-session");

/// Errors of Salesforce are shorter than this; a longer answer is none that says a session is invalid.
const LONGEST_ERROR: usize = 16 * 1_024;

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
        Authorize { inner, clock: self.clock, tasks: self.tasks.clone() }
    }
}

/// The stage. Cloning is one reference count and what the stage below costs.
#[derive(Debug, Clone)]
pub struct Authorize<S> {
    inner: S,
    clock: Clock,
    tasks: Tasks,
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
        let identity = Arc::clone(identity);
        let fresh = identity.fresh(passage.now);
        let Some(token) = fresh.as_ref().and_then(|fresh| fresh.as_ref()) else {
            let waiting = Box::pin(self.clone().wait(identity, passage));
            return Authorizing::Slow { waiting };
        };
        let kept = Kept::of(&mut passage, token);
        match put(&mut passage, token) {
            Ok(()) => {
                // On the heap, because the future is handed from stage to stage by value.
                let kept = Some(Box::new(Try { kept, identity, stage: self.clone() }));
                drop(fresh);
                Authorizing::First { inner: self.inner.call(passage), kept }
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
        let token = identity.token(passage.call.deadline, &self.tasks).await;
        let token = token.map_err(|none| no_token(&identity, none))?;
        passage.now = self.clock.now();
        let kept = Kept::of(&mut passage, &token);
        put(&mut passage, &token)?;
        drop(token);
        let reply = self.inner.call(passage).await?;
        if session_error(kept.call.meaning.family, reply.status(), None) {
            return Try { kept, identity, stage: self }.again(reply).await;
        }
        Ok(reply)
    }
}

/// What a second attempt needs.
struct Kept {
    call: Call,
    epoch: u64,
    jwt: bool,
    live: Arc<Live>,
    record: Record,
    secure: bool,
    method: Method,
    uri: Uri,
    version: Version,
    /// In a list: a map is made only if it is needed.
    headers: Vec<(HeaderName, HeaderValue)>,
    /// `None`: the body streams, and is gone.
    body: Option<Whole>,
}

enum Whole {
    Empty,
    Bytes(Bytes, Option<HeldBytes>),
}

impl Kept {
    fn of(passage: &mut Passage, token: &Token) -> Self {
        let body = match &mut passage.payload {
            Payload::Empty => Some(Whole::Empty),
            // The hold is kept as long as the bytes may be needed.
            Payload::Whole(bytes, held) => Some(Whole::Bytes(bytes.clone(), held.take())),
            Payload::Stream(_) => None,
        };
        let head = &passage.head;
        let mut headers = Vec::new();
        if body.is_some() {
            headers.reserve_exact(head.headers.len());
            headers.extend(head.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        Self {
            call: passage.call.clone(),
            epoch: token.epoch(),
            jwt: token.is_jwt(),
            live: Arc::clone(&passage.live),
            record: passage.record.clone(),
            secure: passage.secure,
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            headers,
            body,
        }
    }

    /// The request as it came, for an attempt at `now`.
    fn passage(self, now: tokio::time::Instant) -> Option<Box<Passage>> {
        let Self { call, live, record, secure, method, uri, version, headers, body, epoch: _, jwt: _ } = self;
        let payload = match body? {
            Whole::Empty => Payload::Empty,
            Whole::Bytes(bytes, held) => Payload::Whole(bytes, held),
        };
        let (mut head, ()) = http::Request::new(()).into_parts();
        (head.method, head.uri, head.version) = (method, uri, version);
        head.headers.reserve(headers.len());
        for (name, value) in headers {
            head.headers.append(name, value);
        }
        Some(Box::new(Passage { call, head, payload, live, record, now, secure, fare: None }))
    }
}

/// One attempt, and what a second needs.
pub struct Try<S> {
    kept: Kept,
    identity: Arc<Identity>,
    stage: Authorize<S>,
}

impl<S> Try<S>
where
    S: Service<Box<Passage>, Response = Reply, Error = Refusal> + Clone + Send + 'static,
    S::Future: Send,
{
    /// Repeats the request with a new token, if `reply` really says that the session is invalid.
    async fn again(self, reply: Reply) -> Result<Reply, Refusal> {
        let Self { kept, identity, mut stage } = self;
        let family = kept.call.meaning.family;
        // A new JSON Web Token would be refused by SOAP like the old one, without end.
        if family == Family::Soap && kept.jwt {
            return Ok(reply);
        }
        let (reply, invalid) = says_invalid(family, reply).await;
        if !invalid {
            return Ok(reply);
        }
        let (deadline, rejected) = (kept.call.deadline, kept.epoch);
        identity.rejected(rejected, stage.clock.now());
        let Some(mut passage) = kept.passage(stage.clock.now()) else { return Ok(reply) };
        let token = identity.token(deadline, &stage.tasks).await;
        let token = token.map_err(|none| no_token(&identity, none))?;
        passage.now = stage.clock.now();
        put(&mut passage, &token)?;
        let epoch = token.epoch();
        drop(token);
        let second = stage.inner.call(passage).await?;
        let (second, invalid) = says_invalid(family, second).await;
        if invalid {
            // Logging in did not help: its next caller waits for the back-off step.
            identity.rejected(epoch, stage.clock.now());
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

/// Puts `token` where the call's API wants it, and takes every other credential out.
fn put(passage: &mut Passage, token: &Token) -> Result<(), Refusal> {
    let headers = &mut passage.head.headers;
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
            // One look at each name costs less than two look-ups.
            let (mut given, mut session) = (0, false);
            for (name, value) in headers.iter_mut() {
                if *name == AUTHORIZATION {
                    *value = token.authorization().clone();
                    given += 1;
                } else {
                    session |= *name == SESSION;
                }
            }
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
        First { #[pin] inner: F, kept: Option<Box<Try<S>>> },
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
        let (reply, kept) = match self.as_mut().project() {
            Projection::Onward { inner } => return inner.poll(cx),
            Projection::Slow { waiting } => return waiting.as_mut().poll(cx),
            Projection::First { inner, kept } => match ready!(inner.poll(cx)) {
                Err(refusal) => return Poll::Ready(Err(refusal)),
                Ok(reply) => match kept.take() {
                    Some(kept) if session_error(kept.kept.call.meaning.family, reply.status(), None) => (reply, kept),
                    _ => return Poll::Ready(Ok(reply)),
                },
            },
        };
        let mut waiting: Waiting = Box::pin(kept.again(reply));
        match waiting.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => {
                self.set(Authorizing::Slow { waiting });
                Poll::Pending
            }
        }
    }
}
