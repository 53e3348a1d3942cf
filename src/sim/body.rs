//! Bodies: reading requests within bounds, and answers that are generated or trickle.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};

/// One piece of a generated blob: printable, and without a period that divides a power of two.
static PIECE: LazyLock<Bytes> = LazyLock::new(|| (b'0'..b'0' + 75).cycle().take(64 * 1024).collect::<Vec<u8>>().into());

/// The body of an answer.
#[derive(Debug)]
pub(super) enum SimBody {
    Empty,
    /// All at once; without a known size it is sent in chunks, as Salesforce sends JSON.
    Whole {
        data: Option<Bytes>,
        sized: bool,
    },
    /// So many bytes of a pattern.
    Blob(u64),
    /// Pieces with a pause before each.
    Trickle {
        pieces: VecDeque<Bytes>,
        pause: Duration,
        sleep: Option<Pin<Box<Sleep>>>,
    },
}

impl SimBody {
    pub(super) fn whole(data: impl Into<Bytes>, sized: bool) -> Self {
        Self::Whole { data: Some(data.into()), sized }
    }

    pub(super) fn trickle(mut data: Bytes, piece: usize, pause: Duration) -> Self {
        let mut pieces = VecDeque::new();
        while !data.is_empty() {
            pieces.push_back(data.split_to(piece.max(1).min(data.len())));
        }
        Self::Trickle { pieces, pause, sleep: None }
    }
}

impl Body for SimBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match &mut *self {
            Self::Empty | Self::Blob(0) => None,
            Self::Whole { data, .. } => data.take(),
            Self::Blob(left) => {
                let size = PIECE.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= size as u64;
                Some(PIECE.slice(..size))
            }
            Self::Trickle { pieces, .. } if pieces.is_empty() => None,
            Self::Trickle { pieces, pause, sleep: pending } => {
                let timer = pending.get_or_insert_with(|| Box::pin(sleep(*pause)));
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                *pending = None;
                pieces.pop_front()
            }
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Blob(0) | Self::Whole { data: None, .. } => true,
            Self::Trickle { pieces, .. } => pieces.is_empty(),
            _ => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Whole { data: None, .. } => SizeHint::with_exact(0),
            Self::Whole { data: Some(data), sized: true } => SizeHint::with_exact(data.len() as u64),
            Self::Blob(left) => SizeHint::with_exact(*left),
            Self::Whole { .. } | Self::Trickle { .. } => SizeHint::default(),
        }
    }
}

/// A request body as far as it was kept.
#[derive(Debug, Clone, Default)]
pub(super) struct Upload {
    pub(super) kept: Bytes,
    /// All bytes that came, kept or not.
    pub(super) total: u64,
    /// Line ends that came.
    pub(super) lines: u64,
}

/// Why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UploadError {
    /// More than may be kept.
    TooLarge,
    /// The sender left or broke off.
    Broken,
}

/// Line ends in some bytes.
pub(super) fn lines_in(data: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', data).count() as u64
}

/// Reads a body. Beyond `keep` bytes it is an error, or with `sink` the rest is only counted.
pub(super) async fn read(mut body: Incoming, keep: usize, sink: bool) -> Result<Upload, UploadError> {
    let mut upload = Upload::default();
    let mut many: Option<BytesMut> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| UploadError::Broken)?;
        let Ok(data) = frame.into_data() else { continue };
        upload.total += data.len() as u64;
        if sink {
            upload.lines += lines_in(&data);
        }
        let room = keep.saturating_sub(many.as_ref().map_or(upload.kept.len(), BytesMut::len));
        if data.len() > room && !sink {
            return Err(UploadError::TooLarge);
        }
        let data = data.slice(..data.len().min(room));
        match &mut many {
            Some(many) => many.extend_from_slice(&data),
            None if upload.kept.is_empty() => upload.kept = data,
            None => {
                let mut joined = BytesMut::from(upload.kept.as_ref());
                joined.extend_from_slice(&data);
                many = Some(joined);
            }
        }
    }
    if let Some(many) = many {
        upload.kept = many.freeze();
    }
    Ok(upload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_blob_has_exactly_its_size() {
        let blob = SimBody::Blob(200_001);
        assert_eq!(blob.size_hint().exact(), Some(200_001));
        let bytes = blob.collect().await.unwrap().to_bytes();
        assert_eq!(bytes.len(), 200_001);
    }

    #[tokio::test(start_paused = true)]
    async fn pieces_wait_for_their_pause() {
        let started = crate::sim::clock::Clock::start(None, 1.0);
        let before = started.now();
        let body = SimBody::trickle(Bytes::from_static(b"abcdefg"), 3, Duration::from_secs(10));
        assert_eq!(body.collect().await.unwrap().to_bytes().as_ref(), b"abcdefg");
        assert!(started.now() - before >= 30 * crate::sim::clock::SECOND);
    }
}
