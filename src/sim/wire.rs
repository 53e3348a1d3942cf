//! Faults below HTTP: a connection that can be made to send something else and end.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is sent instead of whatever the server writes next; the connection ends after it.
#[derive(Debug)]
struct Sabotage {
    bytes: Bytes,
    reset: bool,
}

/// The lever a request handler holds.
#[derive(Debug, Default)]
pub(super) struct Lever {
    pulled: AtomicBool,
    sabotage: Mutex<Option<Sabotage>>,
}

impl Lever {
    /// Replaces what the server writes next by `bytes` and ends the connection, in order or by a reset.
    pub(super) fn pull(&self, bytes: Bytes, reset: bool) {
        *self.sabotage.lock() = Some(Sabotage { bytes, reset });
        self.pulled.store(true, Ordering::Release);
    }
}

/// A connection with a [`Lever`].
pub(super) struct Wire<IO> {
    io: IO,
    lever: std::sync::Arc<Lever>,
    sabotage: Option<Sabotage>,
    reset: fn(&IO),
}

impl<IO> Wire<IO> {
    /// Wraps `io`; `reset` prepares it to be ended by a reset when it is dropped.
    pub(super) fn new(io: IO, lever: std::sync::Arc<Lever>, reset: fn(&IO)) -> Self {
        Self { io, lever, sabotage: None, reset }
    }
}

impl<IO: AsyncWrite + Unpin> Wire<IO> {
    /// Sends what was prepared, then ends the connection.
    fn poll_sabotage(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(sabotage) = &mut self.sabotage else { return Poll::Ready(io::ErrorKind::BrokenPipe.into()) };
        while sabotage.bytes.has_remaining() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &sabotage.bytes)) {
                Ok(0) => break,
                Ok(sent) => sabotage.bytes.advance(sent),
                Err(error) => return Poll::Ready(error),
            }
        }
        if sabotage.reset {
            (self.reset)(&self.io);
        } else if let Err(error) = ready!(Pin::new(&mut self.io).poll_shutdown(cx)) {
            return Poll::Ready(error);
        }
        Poll::Ready(io::ErrorKind::BrokenPipe.into())
    }

    fn is_pulled(&mut self) -> bool {
        if self.sabotage.is_none() && self.lever.pulled.load(Ordering::Acquire) {
            self.sabotage = self.lever.sabotage.lock().take();
        }
        self.sabotage.is_some()
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Wire<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Wire<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_pulled() {
            return self.poll_sabotage(cx).map(Err);
        }
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_pulled() {
            return self.poll_sabotage(cx).map(Err);
        }
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_pulled_lever_sends_something_else_and_ends() {
        let (mut near, far) = tokio::io::duplex(64);
        let lever = Arc::new(Lever::default());
        let mut wire = Wire::new(far, Arc::clone(&lever), |_| {});
        wire.write_all(b"good ").await.unwrap();
        lever.pull(Bytes::from_static(b"garbage"), false);
        assert!(wire.write_all(b"never seen").await.is_err());
        let mut seen = String::new();
        near.read_to_string(&mut seen).await.unwrap();
        assert_eq!(seen, "good garbage");
    }
}
