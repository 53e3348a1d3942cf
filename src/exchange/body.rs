//! An answer's body on its way from Salesforce.
//!
//! It is passed on as it is asked for, and small answers have arrived whole by then. A long one is read ahead of a
//! slow caller, within a bound, so that Salesforce is done with it sooner. The connection goes back to the pool at
//! the last byte; a body that breaks off is an error, never a short body that looks complete.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::ahead::{self, Reader};
use super::conn::{Lent, in_runtime};
use super::pending::{Attempt, Terms};
use crate::body::BodyFault;
use crate::outcome::FailureKind;

/// An answer that is longer than this is read ahead.
const AHEAD_FROM: u64 = 64 * 1_024;

/// An answer's body.
#[derive(Debug)]
pub struct UpstreamBody(State);

enum State {
    /// Nothing more will come.
    Ended,
    /// It came with its head: all of it, and it is not empty. Its length is told if the origin told it.
    Whole { bytes: Bytes, length: Option<u64> },
    /// Asked for piece by piece.
    Direct(Box<Flow>),
    /// Read ahead by a task.
    Ahead(Reader),
}

/// A body as it comes from its connection.
pub(super) struct Flow {
    /// `None` once the body has ended.
    conn: Option<Box<dyn Lent>>,
    attempt: Attempt,
    terms: Terms,
    head: Instant,
    /// Since the last piece had been taken we have waited for the next, until then.
    idle_by: Option<Instant>,
    /// It has waited at least once, so that it did not end when its head came.
    waited: bool,
    passed: u64,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ended => "Ended",
            Self::Whole { .. } => "Whole",
            Self::Direct(_) => "Direct",
            Self::Ahead(_) => "Ahead",
        })
    }
}

impl UpstreamBody {
    /// The body of an answer whose head came at `head`.
    pub(super) fn new(mut conn: Box<dyn Lent>, mut attempt: Attempt, terms: Terms, head: Instant) -> Self {
        let length = conn.remaining();
        if let Some(bytes) = conn.take_whole() {
            attempt.ended(head);
            conn.give_back(head);
            return Self(if bytes.is_empty() { State::Ended } else { State::Whole { bytes, length } });
        }
        let flow = Flow { conn: Some(conn), attempt, terms, head, idle_by: None, waited: false, passed: 0 };
        // On the heap, because an answer is handed through every stage by value.
        Self(State::Direct(Box::new(flow)))
    }

    /// Reads the rest to its end if it is short, so that the connection can be kept; else closes it.
    pub(super) async fn drain(mut self) {
        if let State::Direct(flow) = std::mem::replace(&mut self.0, State::Ended) {
            flow.drain().await;
        }
    }
}

impl Flow {
    /// Bytes still to come, if the origin said so.
    pub(super) fn remaining(&self) -> Option<u64> {
        self.conn.as_ref().map_or(Some(0), |conn| conn.remaining())
    }

    /// The next piece. After an error or the end, there is none.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let Some(conn) = &mut self.conn else { return Poll::Ready(None) };
        match conn.poll_piece(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.idle_by = None;
                self.passed += frame.data_ref().map_or(0, |data| data.len() as u64);
                if conn.is_ended() {
                    self.complete();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                self.complete();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err((kind, fault)))) => {
                self.fail(kind);
                Poll::Ready(Some(Err(fault)))
            }
            Poll::Pending => {
                self.waited = true;
                let idle_by = if let Some(by) = self.idle_by {
                    by
                } else {
                    let Some(common) = conn.common() else { return Poll::Ready(None) };
                    *self.idle_by.insert(common.clock.now() + self.terms.idle)
                };
                ready!(conn.timer().poll(cx, idle_by.min(self.terms.total_by)));
                self.fail(FailureKind::Timeout);
                Poll::Ready(Some(Err(BodyFault::Gone)))
            }
        }
    }

    /// Whether the connection is not needed any more.
    pub(super) fn has_ended(&self) -> bool {
        self.conn.is_none()
    }

    /// Ready when the exchange has taken as long as it may.
    pub(super) fn poll_total(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let by = self.terms.total_by;
        match &mut self.conn {
            Some(conn) => conn.timer().poll(cx, by),
            None => Poll::Ready(()),
        }
    }

    /// The last byte has come.
    fn complete(&mut self) {
        let Some(conn) = self.conn.take() else { return };
        let at = if self.waited { conn.common().map_or(self.head, |common| common.clock.now()) } else { self.head };
        self.attempt.ended(at);
        conn.give_back(at);
    }

    /// It broke off: the connection is closed.
    pub(super) fn fail(&mut self, kind: FailureKind) {
        let Some(conn) = self.conn.take() else { return };
        let at = conn.common().map_or(self.head, |common| common.clock.now());
        self.attempt.failed(at, Some(kind));
    }

    /// Nobody wants the rest: the connection is closed.
    fn cut(&mut self) {
        let Some(conn) = self.conn.take() else { return };
        let at = conn.common().map_or(self.head, |common| common.clock.now());
        self.attempt.cut(at);
    }

    /// Whether reading the rest costs less than a new connection.
    fn worth_draining(&self) -> bool {
        let bound = self.conn.as_ref().and_then(|conn| conn.common()).map_or(0, |common| common.limits.drain_bytes);
        self.remaining().is_some_and(|left| left <= bound)
    }

    /// Reads the rest if it is short, else closes the connection.
    pub(super) async fn drain(mut self) {
        let bound = self.conn.as_ref().and_then(|conn| conn.common()).map_or(0, |common| common.limits.drain_bytes);
        if self.remaining().is_some_and(|left| left > bound) {
            return self.cut();
        }
        let from = self.passed;
        while self.passed - from <= bound {
            match std::future::poll_fn(|cx| self.poll_piece(cx)).await {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            }
        }
        self.cut();
    }

    /// Its reader has left.
    fn leave(mut self) {
        if self.remaining().is_none() {
            // The end of a body of unknown length shows only when it is asked for: it may be here already.
            let mut cx = Context::from_waker(Waker::noop());
            if self.passed > 0 && matches!(self.poll_piece(&mut cx), Poll::Ready(None)) {
                return;
            }
        }
        let common = self.conn.as_ref().and_then(|conn| conn.common()).cloned();
        match common {
            Some(common) if self.worth_draining() && in_runtime() => {
                common.tasks.spawn(self.drain());
            }
            _ => self.cut(),
        }
    }

    /// Whether the rest is to be read ahead, by how much.
    fn ahead(&self) -> Option<usize> {
        let long = self.passed >= AHEAD_FROM && self.remaining().is_none_or(|left| left > AHEAD_FROM);
        (long && self.terms.read_ahead > 0 && self.conn.is_some() && in_runtime()).then_some(self.terms.read_ahead)
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let this = self.get_mut();
        match &mut this.0 {
            State::Ended => Poll::Ready(None),
            State::Whole { bytes, .. } => {
                let bytes = std::mem::take(bytes);
                this.0 = State::Ended;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            State::Ahead(reader) => reader.poll_piece(cx),
            State::Direct(flow) => {
                let piece = ready!(flow.poll_piece(cx));
                if flow.has_ended() {
                    this.0 = State::Ended;
                } else if let Some(room) = flow.ahead()
                    && let State::Direct(flow) = std::mem::replace(&mut this.0, State::Ended)
                {
                    this.0 = read_ahead(*flow, room);
                }
                Poll::Ready(piece)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            State::Ended => true,
            State::Whole { .. } => false,
            State::Direct(flow) => flow.has_ended(),
            State::Ahead(reader) => reader.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let remaining = match &self.0 {
            State::Ended => Some(0),
            State::Whole { length, .. } => *length,
            State::Direct(flow) => flow.remaining(),
            State::Ahead(reader) => reader.remaining(),
        };
        remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Reads the rest of `flow` in a task, by up to `room` bytes ahead of its reader.
fn read_ahead(flow: Flow, room: usize) -> State {
    let Some(common) = flow.conn.as_ref().and_then(|conn| conn.common()).map(Arc::clone) else {
        return State::Ended;
    };
    let (reader, pump) = ahead::channel(flow, room, &common.budget);
    common.tasks.spawn(pump);
    State::Ahead(reader)
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        if let State::Direct(flow) = std::mem::replace(&mut self.0, State::Ended) {
            flow.leave();
        }
    }
}
