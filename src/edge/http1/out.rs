//! What is on its way to the caller.

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWrite;

/// Up to here a piece of a body is copied behind what stands before it; a larger one is written from where it is.
const COPIED: usize = 4 * 1_024;

/// What is to be written next: the rest of `buffer`, then `piece`, then `tail`.
#[derive(Debug, Default)]
pub(super) struct Out {
    buffer: Vec<u8>,
    at: usize,
    piece: Bytes,
    tail: &'static [u8],
    /// Something was written that may not have left the stream.
    unflushed: bool,
}

impl Out {
    /// Room for a head or an interim answer; `spare` is used if there is no buffer yet.
    pub(super) fn head(&mut self, spare: impl FnOnce() -> Vec<u8>) -> &mut Vec<u8> {
        if self.buffer.capacity() == 0 {
            self.buffer = spare();
        }
        &mut self.buffer
    }

    /// Whether nothing waits to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.at >= self.buffer.len() && self.piece.is_empty() && self.tail.is_empty()
    }

    /// Adds a piece of a body. At most one waits at a time.
    pub(super) fn piece(&mut self, data: Bytes) {
        if data.len() <= COPIED {
            self.buffer.extend_from_slice(&data);
        } else {
            self.piece = data;
        }
    }

    /// The same as a chunk.
    pub(super) fn chunk(&mut self, data: Bytes) {
        // Writing to memory cannot fail.
        let _ = write!(self.buffer, "{:x}\r\n", data.len());
        self.piece(data);
        self.tail = b"\r\n";
    }

    /// Adds the end of a body in chunks.
    pub(super) fn last_chunk(&mut self) {
        self.tail = if self.tail.is_empty() { b"0\r\n\r\n" } else { b"\r\n0\r\n\r\n" };
    }

    /// Bytes of memory it holds besides a body.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.buffer.capacity()
    }

    /// The buffer, for another use.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.at = 0;
        std::mem::take(&mut self.buffer)
    }

    /// Writes on. Ready with the number of bytes that were taken.
    pub(super) fn poll_write<IO: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut IO,
    ) -> Poll<io::Result<usize>> {
        let buffer = self.buffer.get(self.at..).unwrap_or_default();
        let polled = if self.piece.is_empty() && self.tail.is_empty() {
            Pin::new(io).poll_write(cx, buffer)
        } else {
            let slices = [IoSlice::new(buffer), IoSlice::new(&self.piece), IoSlice::new(self.tail)];
            let from = usize::from(buffer.is_empty());
            Pin::new(io).poll_write_vectored(cx, slices.get(from..).unwrap_or_default())
        };
        let written = ready!(polled)?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.unflushed = true;
        self.advance(written);
        Poll::Ready(Ok(written))
    }

    /// Hands over what the stream holds back.
    pub(super) fn poll_flush<IO: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut IO,
    ) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, written: usize) {
        let of_buffer = written.min(self.buffer.len() - self.at);
        self.at += of_buffer;
        if self.at == self.buffer.len() {
            self.buffer.clear();
            self.at = 0;
        }
        let of_piece = (written - of_buffer).min(self.piece.len());
        self.piece.advance(of_piece);
        self.tail = self.tail.get(written - of_buffer - of_piece..).unwrap_or_default();
        if self.piece.is_empty() {
            // So that a piece that was sent is not held until the next one.
            self.piece = Bytes::new();
        }
    }
}
