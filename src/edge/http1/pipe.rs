//! A request's body between its connection, which reads it, and its reader, who asks for it.
//!
//! It holds one piece at most: the connection reads on only when the reader has taken that and waits for more.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::SizeHint;
use parking_lot::Mutex;

use crate::body::BodyFault;

#[derive(Debug)]
struct State {
    next: Option<Result<Bytes, BodyFault>>,
    /// Nothing comes after `next`.
    ended: bool,
    /// Bytes the reader has not had, if that is known.
    remaining: Option<u64>,
    /// The reader waits.
    reader: Option<Waker>,
    /// The connection waits until the reader does.
    connection: Option<Waker>,
}

/// The connection's end.
#[derive(Debug)]
pub(super) struct Supply(Arc<Mutex<State>>);

/// The reader's end.
#[derive(Debug)]
pub(in crate::edge) struct Demand(Arc<Mutex<State>>);

/// For a body of which `remaining` bytes are to come, if that is known.
pub(super) fn pipe(remaining: Option<u64>) -> (Supply, Demand) {
    let state = State { next: None, ended: false, remaining, reader: None, connection: None };
    let state = Arc::new(Mutex::new(state));
    (Supply(Arc::clone(&state)), Demand(state))
}

impl Supply {
    /// Whether the reader waits for a piece; if not, the connection's task is woken when it does.
    pub(super) fn is_wanted(&self, cx: &Context<'_>) -> bool {
        let mut state = self.0.lock();
        let wanted = state.reader.is_some();
        if !wanted && !state.connection.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.connection = Some(cx.waker().clone());
        }
        wanted
    }

    /// Hands over the next piece, if there is one, or how the body broke off; `last` if nothing comes after it. A reader in
    /// the task of `cx` is not woken: it is asked again at once.
    pub(super) fn put(&self, piece: Option<Result<Bytes, BodyFault>>, last: bool, cx: &Context<'_>) {
        let mut state = self.0.lock();
        (state.next, state.ended) = (piece, last);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader.filter(|reader| !reader.will_wake(cx.waker())) {
            reader.wake();
        }
    }
}

impl Drop for Supply {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if !state.ended {
            (state.next, state.ended) = (Some(Err(BodyFault::Gone)), true);
            if let Some(reader) = state.reader.take() {
                drop(state);
                reader.wake();
            }
        }
    }
}

impl Demand {
    /// The next piece.
    pub(in crate::edge) fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, BodyFault>>> {
        let mut state = self.0.lock();
        if let Some(piece) = state.next.take() {
            if let (Some(remaining), Ok(piece)) = (&mut state.remaining, &piece) {
                *remaining = remaining.saturating_sub(piece.len() as u64);
            }
            return Poll::Ready(Some(piece));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        state.reader = Some(cx.waker().clone());
        if let Some(connection) = state.connection.take()
            && !connection.will_wake(cx.waker())
        {
            connection.wake();
        }
        Poll::Pending
    }

    /// Whether nothing more will come.
    pub(in crate::edge) fn is_end(&self) -> bool {
        let state = self.0.lock();
        state.ended && state.next.is_none()
    }

    /// How much is to come.
    pub(in crate::edge) fn size_hint(&self) -> SizeHint {
        let state = self.0.lock();
        match state.remaining {
            Some(remaining) => SizeHint::with_exact(remaining),
            None if state.ended && state.next.is_none() => SizeHint::with_exact(0),
            None => SizeHint::default(),
        }
    }
}
