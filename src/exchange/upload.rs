//! A request body on its way, watched so that a truncated upload is noticed and never looks complete.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
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
}

impl<S> Upload<S> {
    /// Watches `payload` if it is a stream.
    pub(super) fn new(payload: Payload<S>) -> Self {
        let watch = matches!(payload, Payload::Stream(_)).then(Arc::default);
        Self { payload, watch }
    }

    /// What to watch a stream by.
    pub(super) fn watch(&self) -> Option<Arc<UploadWatch>> {
        self.watch.clone()
    }
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
            match item {
                Some(Err(fault)) => *watch.fault.lock() = Some(*fault),
                Some(Ok(_)) if !this.payload.is_end_stream() => {}
                Some(Ok(_)) | None => watch.done.store(true, Ordering::Release),
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
