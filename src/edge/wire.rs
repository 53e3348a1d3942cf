//! The raw stream of an HTTP/2 connection, and what its driver reads of it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::edge::pace::Pace;

/// What the raw stream and the service adapter tell the driver. Only the connection's own task and those of its streams lock
/// it, never across an await.
#[derive(Debug, Default)]
pub(super) struct Wire {
    /// Requests whose answer has not been handed over to its last byte.
    pub(super) in_service: u32,
    /// Since when nothing has been in service; `None` while something is, and before the driver looked.
    pub(super) idle_since: Option<Instant>,
    /// How fast the peer reads.
    pub(super) pace: Pace,
    /// The pace of the stream whose task is about to be started.
    pub(super) stream_pace: Option<Arc<Mutex<Pace>>>,
}

/// A stream whose first bytes have been read already, and whose peer's reading is watched.
#[derive(Debug)]
pub(super) struct Paced<IO> {
    io: IO,
    /// Bytes read while the protocol was being told apart.
    read: Bytes,
    wire: Arc<Mutex<Wire>>,
    clock: Clock,
}

impl<IO> Paced<IO> {
    pub(super) fn new(io: IO, read: Bytes, wire: Arc<Mutex<Wire>>, clock: Clock) -> Self {
        Self { io, read, wire, clock }
    }

    fn note(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let mut wire = self.wire.lock();
        match &result {
            Poll::Ready(Ok(written)) => {
                if wire.pace.waiting() {
                    wire.pace.resume(self.clock.now());
                }
                wire.pace.moved(*written as u64);
            }
            Poll::Pending => {
                if !wire.pace.waiting() {
                    wire.pace.wait(self.clock.now());
                }
            }
            Poll::Ready(Err(_)) => {}
        }
        drop(wire);
        result
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Paced<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.read.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let count = this.read.len().min(buf.remaining());
        buf.put_slice(this.read.get(..count).unwrap_or_default());
        this.read.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Paced<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.note(result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_write_vectored(cx, slices);
        this.note(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_flush(cx);
        let _ = this.note(result.is_ready().then_some(Ok(0)).map_or(Poll::Pending, Poll::Ready));
        result
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_was_read_ahead_comes_first() {
        let (mut near, far) = tokio::io::duplex(1024);
        let mut raw = Paced::new(far, Bytes::from_static(b"PRI * "), Arc::default(), Clock::start());
        near.write_all(b"HTTP/2.0").await.expect("open");
        let mut seen = vec![0; 14];
        raw.read_exact(&mut seen).await.expect("whole");
        assert_eq!(seen, b"PRI * HTTP/2.0");
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_is_waited_for() {
        let (_near, far) = tokio::io::duplex(16);
        let mut raw = Paced::new(far, Bytes::new(), Arc::default(), Clock::start());
        let wire = Arc::clone(&raw.wire);
        let writing = raw.write_all(&[0; 17]);
        assert!(tokio::time::timeout(std::time::Duration::from_millis(1), writing).await.is_err());
        assert!(wire.lock().pace.waiting());
    }
}
