//! An HTTP/1.1 connection, polled by whoever waits for it.

use std::future::Future as _;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::header::HeaderValue;
use http::{Request, Response};
use http_body::Frame;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, ReadBuf};

use super::head::HeadReader;
use super::sending::{Sending, Stopped};
use crate::body::Payload;
use crate::exchange::conn::{GivenBack, Lost};
use crate::exchange::failure::{Cause, Sent};
use crate::exchange::io::Io;
use crate::exchange::pool::Stream;
use crate::exchange::tls;
use crate::http1::{Buffers, Decoder, Framing, Malformed, Rules, Step};

/// Size of a buffer that is read into. An answer and its head usually fit several times; what is read keeps the
/// buffer alive until it has been passed on.
pub(super) const BLOCK: usize = 32 * 1_024;
/// Largest read buffer of a connection, and with it the largest piece of a body.
const READ_BUFFER: usize = 128 * 1_024;

/// An HTTP/1.1 connection.
pub(in crate::exchange) struct Connection<S> {
    io: Io,
    buffers: Arc<Buffers>,
    /// What has been read and not been used, with room for more while something is being read.
    read: BytesMut,
    /// How much room is made at a time: more, if answers come faster.
    room: usize,
    /// The buffer is larger than those that go round.
    large: bool,
    sending: Sending<S>,
    head: HeadReader,
    body: Decoder,
    /// Nothing has happened after which the connection cannot be used again.
    keep: bool,
    start: Start,
}

/// How a new connection begins: an origin that closes at once is noticed while the message is still ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// Others have their turn before the first message is sent, so that what has arrived is seen.
    Yield,
    /// Nothing may have arrived yet.
    Listen,
    /// It has carried a message.
    Over,
}

impl<S: Stream> Connection<S> {
    pub(in crate::exchange) fn new(io: Io, buffers: Arc<Buffers>) -> Self {
        Self {
            io,
            buffers,
            read: BytesMut::new(),
            room: BLOCK,
            large: false,
            sending: Sending::nothing(),
            head: HeadReader::default(),
            body: Decoder::new(Framing::Length(0), Rules::ANSWERS),
            keep: true,
            start: Start::Yield,
        }
    }

    /// Whether it can be used again: the other side has neither closed it nor said anything since the last answer.
    /// Asks only what the runtime knows already.
    pub(in crate::exchange) fn is_usable(&mut self) -> bool {
        let mut byte = [0];
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(&mut self.io).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending()
    }

    /// Takes `message`, whose body it takes out of it, to be sent to `host` by [`Self::poll_head`].
    pub(in crate::exchange) fn start(&mut self, message: &mut Request<Payload<S>>, host: &HeaderValue) {
        self.head = HeadReader::new(message.method());
        self.sending.start(message, host, &self.buffers);
    }

    /// Whether all of the caller's body has been taken.
    pub(in crate::exchange) fn uploaded(&self) -> bool {
        self.sending.is_taken()
    }

    /// A number that changes whenever the caller's body moves on.
    pub(in crate::exchange) fn progress(&self) -> u64 {
        self.sending.progress()
    }

    /// Sends the request, and waits for the head of the answer, which may come before the end of the request.
    pub(in crate::exchange) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, Lost<S>>> {
        if self.start != Start::Over {
            ready!(self.poll_start(cx))?;
        }
        self.send(cx)?;
        loop {
            if !self.read.is_empty() {
                match self.head.read(&mut self.read, &mut self.buffers.shapes()) {
                    Ok(Some(head)) => {
                        self.keep &= head.keep_alive;
                        self.body = Decoder::new(head.framing, Rules::ANSWERS);
                        return Poll::Ready(Ok(head.response));
                    }
                    Ok(None) => {}
                    Err(_) => return Poll::Ready(Err(Lost::Failed(Cause::Garbage, Sent::Maybe))),
                }
            }
            match ready!(self.poll_read(cx)) {
                Ok(0) => return Poll::Ready(Err(self.lost())),
                Ok(_) => {}
                Err(error) if tls::refused_us(&error) => return Poll::Ready(Err(refused(&error))),
                Err(_) => return Poll::Ready(Err(self.lost())),
            }
        }
    }

    fn poll_start(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost<S>>> {
        if self.start == Start::Yield {
            self.start = Start::Listen;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.start = Start::Over;
        match self.poll_read(cx) {
            Poll::Pending => Poll::Ready(Ok(())),
            Poll::Ready(Err(error)) if tls::refused_us(&error) => Poll::Ready(Err(refused(&error))),
            Poll::Ready(_) => Poll::Ready(Err(self.lost())),
        }
    }

    /// Sends on while there is no answer.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<(), Lost<S>> {
        if self.sending.is_done() {
            return Ok(());
        }
        match self.sending.poll(cx, &mut self.io, &self.buffers) {
            Poll::Pending | Poll::Ready(Ok(())) => return Ok(()),
            Poll::Ready(Err(Stopped::Upload(fault))) => return Err(Lost::Failed(Cause::Upload(fault), Sent::Maybe)),
            Poll::Ready(Err(Stopped::Short)) => return Err(Lost::Failed(Cause::Reset, Sent::Maybe)),
            Poll::Ready(Err(Stopped::Broken(error))) if tls::refused_us(&error) => return Err(refused(&error)),
            Poll::Ready(Err(Stopped::Broken(_))) => {}
        }
        self.keep = false;
        if !self.sending.has_begun()
            && let Poll::Ready(Err(error)) = self.poll_read(cx)
            && tls::refused_us(&error)
        {
            return Err(refused(&error));
        }
        // Otherwise there may be an answer that says why.
        self.sending.stop().map_or(Ok(()), |payload| Err(Lost::Unsent(GivenBack::Body(payload))))
    }

    /// What it means that the connection has ended.
    fn lost(&mut self) -> Lost<S> {
        match self.sending.stop() {
            Some(payload) => Lost::Unsent(GivenBack::Body(payload)),
            None => Lost::Failed(Cause::Reset, Sent::Maybe),
        }
    }

    /// Bytes of the body still to come, if that is known.
    pub(in crate::exchange) fn remaining(&self) -> Option<u64> {
        self.body.remaining()
    }

    /// Whether the body has ended.
    pub(in crate::exchange) fn is_ended(&self) -> bool {
        self.body.is_ended()
    }

    /// The whole body, if it came with its head.
    pub(in crate::exchange) fn take_whole(&mut self) -> Option<Bytes> {
        self.body.whole(&mut self.read)
    }

    /// The next piece of the body. After an error, the connection is of no more use.
    pub(in crate::exchange) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if !self.sending.is_done()
            && let Poll::Ready(Err(_)) = self.sending.poll(cx, &mut self.io, &self.buffers)
        {
            // The answer may be whole all the same.
            self.keep = false;
            drop(self.sending.stop());
        }
        loop {
            match self.body.decode(&mut self.read) {
                Ok(Step::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Step::Trailers(fields)) => return Poll::Ready(Some(Ok(Frame::trailers(*fields)))),
                Ok(Step::End) => return Poll::Ready(None),
                Ok(Step::More) => {}
                Err(malformed) => return Poll::Ready(Some(Err(broken(malformed)))),
            }
            if ready!(self.poll_read(cx))? == 0
                && let Err(malformed) = self.body.close()
            {
                return Poll::Ready(Some(Err(broken(malformed))));
            }
        }
    }

    /// The answer has ended: makes ready for the next request, if there can be one.
    pub(in crate::exchange) fn rest(&mut self) -> bool {
        if !self.keep || !self.sending.is_done() || !self.body.is_ended() || !self.read.is_empty() {
            return false;
        }
        let buffer = std::mem::take(&mut self.read);
        if buffer.capacity() > 0 && !self.large {
            self.buffers.put_read(buffer);
        }
        self.room = BLOCK;
        true
    }

    /// Tells the other side that nothing more will come, as far as that can be done at once.
    pub(in crate::exchange) fn say_goodbye(&mut self) {
        if matches!(self.io, Io::Tls(_)) {
            let _ = Pin::new(&mut self.io).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
    }

    /// The same, as if it had carried a message before.
    #[cfg(test)]
    pub(super) fn begun(mut self) -> Self {
        self.start = Start::Over;
        self
    }

    /// Bytes of memory it holds for reading and writing.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.read.capacity() + self.sending.held()
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.read.capacity() == 0 {
            self.read = self.buffers.take_read();
            self.large = false;
        }
        if self.read.capacity() - self.read.len() < self.room / 4 {
            self.read.reserve(self.room);
            self.large |= self.room > BLOCK;
        }
        let room = self.read.capacity() - self.read.len();
        let polled = pin!(self.io.read_buf(&mut self.read)).poll(cx);
        match &polled {
            Poll::Ready(Ok(read)) if *read == room => self.room = (self.room * 2).min(READ_BUFFER),
            Poll::Ready(Ok(read)) if *read < self.room / 4 => self.room = (self.room / 2).max(BLOCK),
            // A large one is used up first: each piece would keep another alive.
            Poll::Pending if self.read.is_empty() && !self.large => {
                self.buffers.put_read(std::mem::take(&mut self.read));
            }
            Poll::Ready(_) | Poll::Pending => {}
        }
        polled
    }
}

fn broken(malformed: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, malformed)
}

fn refused<S>(error: &io::Error) -> Lost<S> {
    Lost::Refused(tls::reason(error))
}
