//! Bodies, as small enums: what goes to Salesforce ([`Payload`]) and what comes back ([`ReplyBody`]).
//!
//! All bytes the gateway buffers are taken from one process-wide [`ByteBudget`]; [`HeldBytes`] gives them back.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::written::{Brings, Written};

/// Why a body could not be read or written to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BodyFault {
    /// Longer than allowed.
    #[error("the body is longer than allowed")]
    TooLarge,
    /// Slower than the minimum rate.
    #[error("the body arrives slower than the minimum rate")]
    TooSlow,
    /// Ended early, or its framing is broken.
    #[error("the body ended early or its framing is broken")]
    Malformed,
    /// The other side is gone.
    #[error("the connection broke while the body was under way")]
    Gone,
}

/// One bound on all bytes that are buffered in this process. Cloning is one reference count.
#[derive(Debug, Clone)]
pub struct ByteBudget(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    limit: AtomicUsize,
    used: AtomicUsize,
}

impl ByteBudget {
    /// At most `limit` bytes at any time.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Budget { limit: AtomicUsize::new(limit), used: AtomicUsize::new(0) }))
    }

    /// Changes the bound; bytes already held stay held.
    pub fn set_limit(&self, limit: usize) {
        self.0.limit.store(limit, Ordering::Relaxed);
    }

    /// Bytes held now.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// An empty hold, to be grown as bytes arrive.
    pub fn hold(&self) -> HeldBytes {
        HeldBytes { budget: self.clone(), bytes: 0 }
    }

    fn try_take(&self, bytes: usize) -> bool {
        let limit = self.0.limit.load(Ordering::Relaxed);
        self.0
            .used
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|total| *total <= limit)
            })
            .is_ok()
    }
}

/// Bytes taken from a [`ByteBudget`], given back on drop.
#[derive(Debug)]
pub struct HeldBytes {
    budget: ByteBudget,
    bytes: usize,
}

impl HeldBytes {
    /// Takes `more` bytes; false, and nothing is taken, if the budget has no room for them.
    #[must_use]
    pub fn grow(&mut self, more: usize) -> bool {
        let granted = self.budget.try_take(more);
        if granted {
            self.bytes += more;
        }
        granted
    }

    /// Gives `fewer` bytes back, at most what is held.
    pub fn shrink(&mut self, fewer: usize) {
        let fewer = fewer.min(self.bytes);
        self.bytes -= fewer;
        self.budget.0.used.fetch_sub(fewer, Ordering::Relaxed);
    }

    /// All of it, for somebody else to give back.
    #[must_use]
    pub fn split(&mut self) -> Self {
        Self { budget: self.budget.clone(), bytes: std::mem::take(&mut self.bytes) }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.budget.0.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Bytes that hold a secret: they are wiped from memory when the last reference to them is gone.
pub fn wiped(bytes: Zeroizing<Vec<u8>>) -> Bytes {
    struct Wiped(Zeroizing<Vec<u8>>);

    impl AsRef<[u8]> for Wiped {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    Bytes::from_owner(Wiped(bytes))
}

/// A complete body in pieces, or what is left of it to be sent. Cloning is one reference count.
#[derive(Debug, Clone)]
pub struct Pieces {
    all: Arc<[Bytes]>,
    next: usize,
    left: usize,
}

impl Pieces {
    /// How many there are still.
    pub fn number(&self) -> usize {
        self.all.len() - self.next
    }

    /// Bytes in them.
    pub fn len(&self) -> usize {
        self.left
    }

    /// Whether there are no more.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// All in one; what was one is not copied.
    pub fn joined(mut self) -> Bytes {
        if self.number() <= 1 {
            return self.next().unwrap_or_default();
        }
        let mut whole = Vec::with_capacity(self.left);
        self.for_each(|piece| whole.extend_from_slice(&piece));
        Bytes::from(whole)
    }
}

impl From<Vec<Bytes>> for Pieces {
    fn from(pieces: Vec<Bytes>) -> Self {
        let left = pieces.iter().map(Bytes::len).sum();
        Self { all: Arc::from(pieces), next: 0, left }
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let piece = self.all.get(self.next)?.clone();
        self.next += 1;
        self.left -= piece.len();
        Some(piece)
    }
}

/// A request body on its way to Salesforce.
#[derive(Debug)]
pub enum Payload<S> {
    /// No body.
    Empty,
    /// A complete body; the hold gives its bytes back when it has been sent.
    Whole(Bytes, Option<HeldBytes>),
    /// The same in pieces, because it is large and need not be read.
    Pieces(Pieces, Option<HeldBytes>),
    /// A body passed on as it arrives, because it is larger than `stream_above`.
    Stream(S),
}

impl<S> Payload<S> {
    /// The bytes, if the body is complete and in one.
    pub fn whole(&self) -> Option<&Bytes> {
        match self {
            Self::Whole(bytes, _) => Some(bytes),
            Self::Empty | Self::Pieces(..) | Self::Stream(_) => None,
        }
    }
}

impl<S> Body for Payload<S>
where
    S: Body<Data = Bytes, Error = BodyFault> + Unpin,
{
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let this = self.get_mut();
        match this {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes, _) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready(if bytes.is_empty() { None } else { Some(Ok(Frame::data(bytes))) })
            }
            Self::Pieces(pieces, _) => Poll::Ready(pieces.next().map(|piece| Ok(Frame::data(piece)))),
            Self::Stream(stream) => Pin::new(stream).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes, _) => bytes.is_empty(),
            Self::Pieces(pieces, _) => pieces.is_empty(),
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes, _) => SizeHint::with_exact(bytes.len() as u64),
            Self::Pieces(pieces, _) => SizeHint::with_exact(pieces.len() as u64),
            Self::Stream(stream) => stream.size_hint(),
        }
    }
}

/// An answer's body on its way to the caller.
#[derive(Debug)]
pub enum ReplyBody<S> {
    /// A complete body (possibly empty), made or kept by the gateway.
    Whole(Bytes),
    /// A complete body that is kept, and the fields of its head.
    Kept(Bytes, Written),
    /// Salesforce's body, passed on as it arrives.
    Stream(S),
}

impl<S> Body for ReplyBody<S>
where
    S: Body<Data = Bytes, Error = BodyFault> + Unpin,
{
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match self.get_mut() {
            Self::Whole(bytes) | Self::Kept(bytes, _) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready(if bytes.is_empty() { None } else { Some(Ok(Frame::data(bytes))) })
            }
            Self::Stream(stream) => Pin::new(stream).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) | Self::Kept(bytes, _) => bytes.is_empty(),
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) | Self::Kept(bytes, _) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(stream) => stream.size_hint(),
        }
    }
}

impl<S> ReplyBody<S> {
    /// The fields it brings with it, to add to them.
    pub fn written(&mut self) -> Option<&mut Written> {
        match self {
            Self::Kept(_, written) => Some(written),
            Self::Whole(_) | Self::Stream(_) => None,
        }
    }
}

impl<S> Brings for ReplyBody<S> {
    fn brings(&self) -> Option<&Written> {
        match self {
            Self::Kept(_, written) => Some(written),
            Self::Whole(_) | Self::Stream(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_gives_back_what_it_took_and_never_more() {
        let budget = ByteBudget::new(100);
        let mut hold = budget.hold();
        assert!(hold.grow(60));
        assert!(!budget.hold().grow(41), "past the bound");
        hold.shrink(1_000);
        assert_eq!((hold.bytes(), budget.used()), (0, 0));
        assert!(hold.grow(100));
        drop(hold);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn pieces_are_sent_in_order_and_can_be_sent_again() {
        let all =
            Pieces::from(vec![Bytes::from_static(b"one "), Bytes::from_static(b"two "), Bytes::from_static(b"three")]);
        let mut payload: Payload<crate::edge::Inbound> = Payload::Pieces(all.clone(), None);
        assert_eq!((payload.size_hint().exact(), all.number(), all.len()), (Some(13), 3, 13));
        let Payload::Pieces(pieces, _) = &mut payload else { panic!("pieces") };
        assert_eq!(pieces.next().as_deref(), Some(b"one ".as_slice()));
        assert_eq!((pieces.number(), pieces.len(), pieces.clone().joined()), (2, 9, Bytes::from_static(b"two three")));
        assert!(!pieces.is_empty() && pieces.by_ref().count() == 2 && pieces.is_empty());
        assert_eq!(all.joined(), b"one two three".as_slice());
    }

    #[test]
    fn a_lowered_bound_refuses_new_bytes_only() {
        let budget = ByteBudget::new(100);
        let mut hold = budget.hold();
        assert!(hold.grow(80));
        budget.set_limit(50);
        assert!(!budget.hold().grow(1));
        assert_eq!(budget.used(), 80);
    }
}
