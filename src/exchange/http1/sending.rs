//! A request on its way out.

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::Request;
use http::header::HeaderValue;
use http_body::Body as _;
use tokio::io::AsyncWrite;

use super::request::{self, Framing};
use crate::body::{BodyFault, Payload};
use crate::exchange::io::Io;
use crate::exchange::pool::Stream;
use crate::http1::Buffers;

/// Up to here a piece of a body is copied behind what stands before it; a larger one is written from where it is.
const COPIED: usize = 4 * 1_024;
/// A TLS record holds as much: of more, a part may have left before writing the first bytes fails.
const RECORD: usize = 16 * 1_024;

/// Why a request could not be written to its end.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The connection broke.
    Broken(io::Error),
    /// The caller's body broke off.
    Upload(BodyFault),
    /// The caller's body is shorter than its head said.
    Short,
}

/// A request on its way out.
pub(super) struct Sending<S> {
    /// What is to be written next: the rest of `buffer`, then `piece`, then `tail`.
    buffer: Vec<u8>,
    at: usize,
    piece: Bytes,
    tail: &'static [u8],
    /// The caller's body, for as long as anything of the request is to be written.
    payload: Option<Payload<S>>,
    /// What is still to be taken from a streamed body, or one in pieces.
    more: Framing,
    /// Bytes were written that may not have left the TLS layer.
    unflushed: bool,
    /// The connection has taken bytes of this request.
    begun: bool,
    /// Counts what was taken from a streamed body.
    pieces: u64,
}

impl<S: Stream> Sending<S> {
    /// Nothing to send.
    pub(super) fn nothing() -> Self {
        Self {
            buffer: Vec::new(),
            at: 0,
            piece: Bytes::new(),
            tail: b"",
            payload: None,
            more: Framing::None,
            unflushed: false,
            begun: false,
            pieces: 0,
        }
    }

    /// Prepares `message` for `host`. Its body is taken out of it.
    pub(super) fn start(&mut self, message: &mut Request<Payload<S>>, host: &HeaderValue, buffers: &Buffers) {
        self.buffer = buffers.take_write();
        let framing = request::write(&mut self.buffer, message, host);
        let payload = std::mem::replace(message.body_mut(), Payload::Empty);
        self.more = Framing::None;
        match &payload {
            Payload::Empty => {}
            Payload::Whole(bytes, _) if bytes.len() <= COPIED => self.buffer.extend_from_slice(bytes),
            Payload::Whole(bytes, _) => self.piece = bytes.clone(),
            Payload::Pieces(..) | Payload::Stream(_) => {
                self.more = if framing == Framing::Length(0) { Framing::None } else { framing }
            }
        }
        self.payload = Some(payload);
        (self.at, self.tail, self.unflushed, self.begun, self.pieces) = (0, b"", false, false, 0);
    }

    /// Whether the last byte of the request has been written.
    pub(super) fn is_done(&self) -> bool {
        self.payload.is_none()
    }

    /// Whether all of the caller's body has been taken.
    pub(super) fn is_taken(&self) -> bool {
        // A complete body in pieces was taken before.
        self.more == Framing::None || matches!(self.payload, Some(Payload::Pieces(..)))
    }

    /// A number that changes whenever a streamed body moves on.
    pub(super) fn progress(&self) -> u64 {
        self.pieces
    }

    /// Whether the connection has taken bytes of this request.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Bytes of memory it holds besides the body.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.buffer.capacity()
    }

    /// Sends no more. The body, if it can still be sent on another connection: nothing of it was taken.
    pub(super) fn stop(&mut self) -> Option<Payload<S>> {
        (self.buffer, self.at, self.piece, self.tail) = (Vec::new(), 0, Bytes::new(), b"");
        self.payload.take().filter(|_| !self.begun)
    }

    /// Writes on. Ready when the last byte has been handed over.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, io: &mut Io, buffers: &Buffers) -> Poll<Result<(), Stopped>> {
        loop {
            while self.has_bytes() {
                ready!(self.poll_write(cx, io)).map_err(Stopped::Broken)?;
            }
            if self.more != Framing::None {
                match self.poll_more(cx) {
                    Poll::Ready(more) => {
                        more?;
                        continue;
                    }
                    Poll::Pending => {
                        ready!(self.poll_flush(cx, io))?;
                        return Poll::Pending;
                    }
                }
            }
            ready!(self.poll_flush(cx, io))?;
            self.payload = None;
            buffers.put_write(std::mem::take(&mut self.buffer));
            self.at = 0;
            return Poll::Ready(Ok(()));
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, io: &mut Io) -> Poll<Result<(), Stopped>> {
        // Only TLS holds back what was written.
        if self.unflushed && matches!(io, Io::Tls(_)) {
            ready!(Pin::new(io).poll_flush(cx)).map_err(Stopped::Broken)?;
        }
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn has_bytes(&self) -> bool {
        self.at < self.buffer.len() || !self.piece.is_empty() || !self.tail.is_empty()
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, io: &mut Io) -> Poll<io::Result<()>> {
        let buffer = self.buffer.get(self.at..).unwrap_or_default();
        let whole = buffer.len() + self.piece.len() <= RECORD;
        let io_is_tls = matches!(io, Io::Tls(_));
        let written = if self.piece.is_empty() && self.tail.is_empty() {
            Pin::new(io).poll_write(cx, buffer)
        } else {
            let slices = [IoSlice::new(buffer), IoSlice::new(&self.piece), IoSlice::new(self.tail)];
            let from = usize::from(buffer.is_empty());
            Pin::new(io).poll_write_vectored(cx, slices.get(from..).unwrap_or_default())
        };
        let written = match ready!(written) {
            Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Ok(written) => written,
            Err(error) => {
                self.begun |= io_is_tls && !whole;
                return Poll::Ready(Err(error));
            }
        };
        (self.begun, self.unflushed) = (true, true);
        self.advance(written);
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, written: usize) {
        let of_buffer = written.min(self.buffer.len() - self.at);
        self.at += of_buffer;
        let of_piece = (written - of_buffer).min(self.piece.len());
        self.piece.advance(of_piece);
        self.tail = self.tail.get(written - of_buffer - of_piece..).unwrap_or_default();
        if self.piece.is_empty() {
            // So that a piece that was sent is not held until the next one.
            self.piece = Bytes::new();
        }
    }

    /// Takes the next piece of a streamed body.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        let Some(payload) = &mut self.payload else {
            self.more = Framing::None;
            return Poll::Ready(Ok(()));
        };
        let polled = ready!(Pin::new(&mut *payload).poll_frame(cx));
        let ended = polled.is_none() || payload.is_end_stream();
        self.pieces += 1;
        self.buffer.clear();
        self.at = 0;
        let data = match polled {
            Some(Err(fault)) => return Poll::Ready(Err(Stopped::Upload(fault))),
            // Trailer fields end here: the head announced none.
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            None => Bytes::new(),
        };
        match &mut self.more {
            Framing::None => {}
            Framing::Length(left) => {
                let some = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
                *left -= some as u64;
                self.piece = data.slice(..some);
                if *left == 0 {
                    self.more = Framing::None;
                } else if ended {
                    return Poll::Ready(Err(Stopped::Short));
                }
            }
            Framing::Chunked => {
                self.chunk(data);
                if ended {
                    self.more = Framing::None;
                    self.tail = if self.tail.is_empty() { b"0\r\n\r\n" } else { b"\r\n0\r\n\r\n" };
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn chunk(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        // Writing to memory cannot fail.
        let _ = write!(self.buffer, "{:x}\r\n", data.len());
        if data.len() <= COPIED {
            self.buffer.extend_from_slice(&data);
        } else {
            self.piece = data;
        }
        self.tail = b"\r\n";
    }
}
