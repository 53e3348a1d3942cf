//! A request body as hyper takes it, watched so that a truncated upload is noticed and never looks complete.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, header};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

use crate::body::{BodyFault, Payload};

/// What the other half of the exchange sees of a streamed upload.
#[derive(Debug, Default)]
pub(super) struct UploadWatch {
    pieces: AtomicU64,
    done: AtomicBool,
    fault: Mutex<Option<BodyFault>>,
}

impl UploadWatch {
    /// The last byte was handed to the connection.
    pub(super) fn done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// A number that changes whenever the upload moves on.
    pub(super) fn progress(&self) -> u64 {
        self.pieces.load(Ordering::Acquire)
    }

    /// Why the caller's body broke off, if it did.
    pub(super) fn fault(&self) -> Option<BodyFault> {
        *self.fault.lock()
    }
}

/// A [`Payload`] as it is handed to a connection.
#[derive(Debug)]
pub(super) struct Upload<S> {
    payload: Payload<S>,
    /// Only streams are watched: a complete body can neither stall nor break off.
    watch: Option<Arc<UploadWatch>>,
    /// Bytes of a stream still to come, if its length is known. hyper asks for no more once it has them all.
    left: Option<u64>,
}

impl<S> Upload<S> {
    /// The same request, its body watched if it is a stream.
    pub(super) fn of(request: Request<Payload<S>>) -> Request<Self> {
        let (head, payload) = request.into_parts();
        let (watch, left) = match &payload {
            Payload::Empty | Payload::Whole(..) | Payload::Pieces(..) => (None, None),
            Payload::Stream(_) => (Some(Arc::default()), announced(&head.headers)),
        };
        Request::from_parts(head, Self { payload, watch, left })
    }

    /// The body as it was before.
    pub(super) fn into_payload(self) -> Payload<S> {
        self.payload
    }

    /// What to watch a stream by.
    pub(super) fn watch(&self) -> Option<Arc<UploadWatch>> {
        self.watch.clone()
    }
}

/// The length a head says its body has.
fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl<S> Body for Upload<S>
where
    S: Body<Data = Bytes, Error = BodyFault> + Unpin,
{
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.payload).poll_frame(cx);
        if let (Some(watch), Poll::Ready(item)) = (&this.watch, &polled) {
            let done = match item {
                Some(Err(fault)) => {
                    *watch.fault.lock() = Some(*fault);
                    false
                }
                Some(Ok(frame)) => {
                    let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                    this.left = this.left.map(|left| left.saturating_sub(bytes));
                    this.left == Some(0) || this.payload.is_end_stream()
                }
                None => this.left.is_none_or(|left| left == 0),
            };
            if done {
                watch.done.store(true, Ordering::Release);
            }
            watch.pieces.fetch_add(1, Ordering::AcqRel);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.payload.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.payload.size_hint()
    }
}
