//! Reading a long answer ahead of its reader, within a bound and within the process's byte budget.
//!
//! Salesforce's long-running slot is free once it has written its answer, so a slow caller is not to hold it up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::Frame;
use parking_lot::Mutex;

use super::body::Flow;
use crate::body::{BodyFault, ByteBudget, HeldBytes};
use crate::outcome::FailureKind;

/// What the task and the reader share.
#[derive(Debug)]
struct Shared(Mutex<Queue>);

#[derive(Debug)]
struct Queue {
    pieces: VecDeque<Frame<Bytes>>,
    /// Bytes in `pieces`.
    bytes: usize,
    /// At most this many, and one piece more.
    room: usize,
    /// Taken from the process's budget for `pieces`.
    held: HeldBytes,
    /// The budget had no room for the last piece: read on only when all has been taken.
    starved: bool,
    end: Option<Result<(), BodyFault>>,
    reader_left: bool,
    reader: Option<Waker>,
    pump: Option<Waker>,
}

/// The reader's end.
#[derive(Debug)]
pub(super) struct Reader {
    shared: Arc<Shared>,
    /// Bytes still to be handed out, if the origin said so.
    remaining: Option<u64>,
}

/// Ends the queue even if the task is dropped.
struct Writer(Arc<Shared>);

/// Splits `flow` into a reader and the task that reads up to `room` bytes ahead of it.
pub(super) fn channel(
    flow: Flow,
    room: usize,
    budget: &ByteBudget,
) -> (Reader, impl Future<Output = ()> + Send + 'static) {
    let shared = Arc::new(Shared(Mutex::new(Queue {
        pieces: VecDeque::new(),
        bytes: 0,
        room,
        held: budget.hold(),
        starved: false,
        end: None,
        reader_left: false,
        reader: None,
        pump: None,
    })));
    let reader = Reader { shared: Arc::clone(&shared), remaining: flow.remaining() };
    (reader, pump(flow, Writer(shared)))
}

/// What the task is to do next.
enum Next {
    Read,
    Leave,
    GiveUp,
}

async fn pump(mut flow: Flow, writer: Writer) {
    loop {
        let next = std::future::poll_fn(|cx| match writer.poll_room(cx) {
            Poll::Ready(next) => Poll::Ready(next),
            Poll::Pending => flow.poll_total(cx).map(|()| Next::GiveUp),
        })
        .await;
        match next {
            Next::Read => {}
            Next::Leave => return flow.drain().await,
            Next::GiveUp => {
                flow.fail(FailureKind::Timeout);
                return writer.end(Err(BodyFault::Gone));
            }
        }
        let piece = std::future::poll_fn(|cx| {
            if writer.poll_left(cx) {
                return Poll::Ready(None);
            }
            flow.poll_piece(cx).map(Some)
        })
        .await;
        match piece {
            None => return flow.drain().await,
            Some(Some(Ok(frame))) => {
                writer.push(frame);
                if flow.has_ended() {
                    return writer.end(Ok(()));
                }
            }
            Some(Some(Err(fault))) => return writer.end(Err(fault)),
            Some(None) => return writer.end(Ok(())),
        }
    }
}

impl Writer {
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Next> {
        let mut queue = self.0.0.lock();
        if queue.reader_left {
            return Poll::Ready(Next::Leave);
        }
        if queue.pieces.is_empty() || (queue.bytes < queue.room && !queue.starved) {
            return Poll::Ready(Next::Read);
        }
        queue.pump = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether the reader has left; wakes when it does.
    fn poll_left(&self, cx: &mut Context<'_>) -> bool {
        let mut queue = self.0.0.lock();
        if !queue.reader_left && !queue.pump.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            queue.pump = Some(cx.waker().clone());
        }
        queue.reader_left
    }

    fn push(&self, frame: Frame<Bytes>) {
        let mut queue = self.0.0.lock();
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        queue.starved = !queue.held.grow(bytes);
        queue.bytes += bytes;
        queue.pieces.push_back(frame);
        let reader = queue.reader.take();
        drop(queue);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn end(&self, end: Result<(), BodyFault>) {
        let mut queue = self.0.0.lock();
        if queue.end.is_none() {
            queue.end = Some(end);
        }
        let reader = queue.reader.take();
        drop(queue);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end(Err(BodyFault::Gone));
    }
}

impl Reader {
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let mut queue = self.shared.0.lock();
        let Some(frame) = queue.pieces.pop_front() else {
            return match queue.end {
                Some(Ok(())) => Poll::Ready(None),
                Some(Err(fault)) => {
                    queue.end = Some(Ok(()));
                    Poll::Ready(Some(Err(fault)))
                }
                None => {
                    queue.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        queue.bytes -= bytes;
        // A piece the budget had no room for is the last in the queue and not in what is held.
        let held = queue.bytes.min(queue.held.bytes());
        let excess = queue.held.bytes() - held;
        queue.held.shrink(excess);
        let pump = queue.pump.take();
        drop(queue);
        if let Some(pump) = pump {
            pump.wake();
        }
        if let Some(remaining) = &mut self.remaining {
            *remaining = remaining.saturating_sub(bytes as u64);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    /// Whether nothing more will come.
    pub(super) fn is_end(&self) -> bool {
        if self.remaining == Some(0) {
            return true;
        }
        let queue = self.shared.0.lock();
        queue.pieces.is_empty() && queue.end == Some(Ok(()))
    }

    pub(super) fn remaining(&self) -> Option<u64> {
        self.remaining
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut queue = self.shared.0.lock();
        queue.reader_left = true;
        queue.pieces.clear();
        queue.bytes = 0;
        let held = queue.held.bytes();
        queue.held.shrink(held);
        let pump = queue.pump.take();
        drop(queue);
        if let Some(pump) = pump {
            pump.wake();
        }
    }
}
