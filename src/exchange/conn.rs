//! One connection to Salesforce, while it is lent to a call.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use tokio::time::{Instant, Sleep, sleep_until};

use super::connect::Origin;
use super::failure::{Cause, Sent};
use super::http1::Connection;
use super::http2::Exchange;
use super::pool::{Common, Org, Slot, Stream};
use crate::body::{BodyFault, Payload};
use crate::outcome::FailureKind;

/// A timer that follows a deadline that mostly moves forward.
///
/// It stays armed across phases and calls and is moved when it fires early, so an ordinary exchange never touches
/// the runtime's timer wheel.
#[derive(Debug)]
pub(super) struct Timer(Pin<Box<Sleep>>);

impl Timer {
    fn new(at: Instant) -> Self {
        Self(Box::pin(sleep_until(at)))
    }

    /// Ready once `by` has passed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, by: Instant) -> Poll<()> {
        if self.0.deadline() > by {
            self.0.as_mut().reset(by);
        }
        loop {
            ready!(self.0.as_mut().poll(cx));
            if self.0.deadline() >= by {
                return Poll::Ready(());
            }
            self.0.as_mut().reset(by);
        }
    }
}

/// What a connection gives back of a message it did not send.
#[derive(Debug)]
pub(super) enum GivenBack<S> {
    /// Its body; the head was not taken.
    Body(Payload<S>),
    /// All of it.
    Message(Box<Request<Payload<S>>>),
}

impl<S> GivenBack<S> {
    /// Puts back what was taken of `message`.
    pub(super) fn restore(self, message: &mut Request<Payload<S>>) {
        match self {
            Self::Body(body) => *message.body_mut() = body,
            Self::Message(whole) => *message = *whole,
        }
    }
}

/// How an exchange brought no head.
#[derive(Debug)]
pub(super) enum Lost<S> {
    /// The message was not sent: it can be sent on another connection.
    Unsent(GivenBack<S>),
    /// The other side does not accept who we are, as the end of a sentence about it. Nothing was sent.
    Refused(String),
    /// Anything else.
    Failed(Cause, Sent),
}

/// How a body broke off: for the record, and for its reader.
pub(super) type Cut = (FailureKind, BodyFault);

/// The protocol spoken.
#[expect(clippy::large_enum_variant, reason = "nearly every connection is the large one, and stands in a box")]
pub(super) enum Link<S> {
    Http1(Connection<S>),
    /// One stream of a shared connection.
    Http2(Exchange<S>),
}

/// A connection. Dropped while a message is under way, it is closed at once; dropped idle, it says goodbye.
pub(super) struct Conn<S: Stream> {
    link: Link<S>,
    pub(super) timer: Timer,
    opened: Instant,
    pub(super) idle_since: Instant,
    /// It has carried a message before: the origin may have closed it in the meantime.
    pub(super) reused: bool,
    /// A message is under way.
    busy: bool,
    /// The right to be open, and the pool it is of. Given on after the connection is closed.
    slot: Slot<S>,
}

impl<S: Stream> Conn<S> {
    pub(super) fn new(link: Link<S>, opened: Instant, slot: Slot<S>) -> Box<Self> {
        let timer = Timer::new(opened);
        Box::new(Self { link, timer, opened, idle_since: opened, reused: false, busy: false, slot })
    }

    /// Whether it can take a message now.
    pub(super) fn is_usable(&mut self) -> bool {
        match &mut self.link {
            Link::Http1(connection) => connection.is_usable(),
            Link::Http2(exchange) => exchange.is_usable(),
        }
    }

    /// The pool it is of.
    pub(super) fn org(&self) -> Option<&Arc<Org<S>>> {
        self.slot.org()
    }

    /// How long it has been open at `now`.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.opened)
    }

    /// Takes what it needs of `message`, to send it to `origin` while its head is waited for.
    pub(super) fn send(&mut self, message: &mut Request<Payload<S>>, origin: &Origin) {
        self.busy = true;
        match &mut self.link {
            Link::Http1(connection) => connection.start(message, origin.authority()),
            Link::Http2(exchange) => exchange.start(message, origin),
        }
    }

    /// The head of the answer.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, Lost<S>>> {
        match &mut self.link {
            Link::Http1(connection) => connection.poll_head(cx),
            Link::Http2(exchange) => exchange.poll_head(cx),
        }
    }

    /// Whether all of the caller's body has been taken.
    pub(super) fn uploaded(&self) -> bool {
        match &self.link {
            Link::Http1(connection) => connection.uploaded(),
            Link::Http2(exchange) => exchange.uploaded(),
        }
    }

    /// A number that changes whenever the caller's body moves on.
    pub(super) fn progress(&self) -> u64 {
        match &self.link {
            Link::Http1(connection) => connection.progress(),
            Link::Http2(exchange) => exchange.progress(),
        }
    }
}

impl<S: Stream> Drop for Conn<S> {
    fn drop(&mut self) {
        if let Link::Http1(connection) = &mut self.link
            && !self.busy
        {
            connection.say_goodbye();
        }
    }
}

/// A lent connection whose answer's head has come, whatever bodies it sends: what the answer's body needs of it.
pub(super) trait Lent: Send {
    /// Its timer.
    fn timer(&mut self) -> &mut Timer;
    /// What its org's exchanges share.
    fn common(&self) -> Option<&Arc<Common>>;
    /// The next piece of the body. After an error, there is none.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>>;
    /// The whole body, if it came with its head.
    fn take_whole(&mut self) -> Option<Bytes>;
    /// Bytes of the body still to come, if that is known.
    fn remaining(&self) -> Option<u64>;
    /// Whether the body has ended.
    fn is_ended(&self) -> bool;
    /// The answer has ended, at `at`: back to the pool, if it can be used again.
    fn give_back(self: Box<Self>, at: Instant);
}

impl<S: Stream> Lent for Conn<S> {
    fn timer(&mut self) -> &mut Timer {
        &mut self.timer
    }

    fn common(&self) -> Option<&Arc<Common>> {
        self.org().map(|org| &org.common)
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match &mut self.link {
            Link::Http1(connection) => connection.poll_piece(cx).map_err(|error| cut(&error)),
            Link::Http2(exchange) => exchange.poll_piece(cx),
        }
    }

    fn take_whole(&mut self) -> Option<Bytes> {
        match &mut self.link {
            Link::Http1(connection) => connection.take_whole(),
            Link::Http2(exchange) => exchange.is_ended().then(Bytes::new),
        }
    }

    fn remaining(&self) -> Option<u64> {
        match &self.link {
            Link::Http1(connection) => connection.remaining(),
            Link::Http2(exchange) => exchange.remaining(),
        }
    }

    fn is_ended(&self) -> bool {
        match &self.link {
            Link::Http1(connection) => connection.is_ended(),
            Link::Http2(exchange) => exchange.is_ended(),
        }
    }

    fn give_back(mut self: Box<Self>, at: Instant) {
        // A shared connection goes on without its streams. One answered before the upload was complete is not used
        // again: the rest of the upload must not go to the next call.
        if let Link::Http1(connection) = &mut self.link
            && connection.rest()
        {
            self.busy = false;
            Org::check_in(self, at);
        }
    }
}

/// A body that does not end as its head said is broken; anything else that ends it early is a broken connection.
pub(super) fn cut(error: &std::io::Error) -> Cut {
    use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    if matches!(error.kind(), UnexpectedEof | InvalidData | InvalidInput) {
        (FailureKind::Garbage, BodyFault::Malformed)
    } else {
        (FailureKind::Reset, BodyFault::Gone)
    }
}

/// Whether a task can be spawned here: not while a runtime is being taken down.
pub(super) fn in_runtime() -> bool {
    tokio::runtime::Handle::try_current().is_ok()
}
