//! The raw stream of one connection, with the framing guard in it, and the state its driver reads.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::edge::connection::Connection;
use crate::edge::framing::{Fault, Guard, Phase};
use crate::edge::pace::Pace;

/// hyper's buffers as it makes them. A read of this length makes hyper double the next one, which then stays.
pub(super) const BUFFER: usize = 8 * 1024;
/// A body of which so much has come is worth larger buffers.
const LARGE_BODY: u64 = 256 * 1024;

/// What the raw stream and the service adapter tell the driver. Only the connection's own task locks it
/// (and, with HTTP/2, its streams), never across an await.
#[derive(Debug, Default)]
pub(super) struct Wire {
    /// HTTP/2 is spoken.
    pub(super) http2: bool,
    /// Heads the guard passed; wraps.
    pub(super) heads: u32,
    /// Requests handed to the service; wraps.
    pub(super) calls: u32,
    /// Requests whose answer has not been handed over to its last byte.
    pub(super) in_service: u32,
    /// What is wrong with the input.
    pub(super) fault: Option<Fault>,
    /// Where the fault is.
    pub(super) place: Place,
    /// A request body is under way.
    pub(super) in_body: bool,
    /// Since when a head has been incomplete.
    pub(super) head_since: Option<Instant>,
    /// Since when nothing has been in service; `None` while something is, and before the driver looked.
    pub(super) idle_since: Option<Instant>,
    /// Since when the peer has sent all it will send, while it is still owed an answer.
    pub(super) half_closed: Option<Instant>,
    /// How fast the peer reads.
    pub(super) pace: Pace,
    /// When the last request was answered, if a head had come behind it.
    pub(super) answered: Option<Instant>,
    /// The pace of the HTTP/2 stream whose task is about to be started.
    pub(super) stream_pace: Option<Arc<Mutex<Pace>>>,
}

/// Where a fault was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Place {
    /// In a head: the driver answers for it.
    #[default]
    Head,
    /// In a body: the request it belongs to answers for it.
    Body,
    /// By hyper, which had written an answer of its own; it was withheld, and the driver answers.
    Hyper,
}

impl Wire {
    /// Whether anything is still to be answered or written.
    pub(super) fn owing(&self) -> bool {
        self.in_service > 0 || self.heads != self.calls || self.pace.waiting()
    }
}

/// A stream whose first bytes may have been read already, and whose HTTP/1 input is watched.
#[derive(Debug)]
pub(super) struct Guarded<IO> {
    io: IO,
    connection: Arc<Connection>,
    clock: Clock,
    /// Bytes read while the protocol was being told apart.
    prefix: Prefix,
    /// `None` for HTTP/2.
    guard: Option<Guard>,
    /// [`Wire::fault`] is set, which only this stream does.
    faulty: bool,
    /// Bytes passed of the body that is being read, and of what came with its start.
    passed: u64,
}

/// A few bytes that were read ahead.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Prefix {
    bytes: [u8; PREFACE.len()],
    from: u8,
    to: u8,
}

/// The first bytes of an HTTP/2 connection (RFC 9113 section 3.4).
pub(super) const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Prefix {
    /// What was read ahead and not taken.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(usize::from(self.from)..usize::from(self.to)).unwrap_or_default()
    }

    /// Room for more.
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.bytes.get_mut(usize::from(self.to)..).unwrap_or_default()
    }

    /// `count` bytes were put into the room.
    pub(super) fn filled(&mut self, count: usize) {
        self.to = self.to.saturating_add(count as u8).min(PREFACE.len() as u8);
    }

    /// One byte.
    fn of(byte: u8) -> Self {
        let mut one = Self::default();
        if let Some(first) = one.bytes.first_mut() {
            (*first, one.to) = (byte, 1);
        }
        one
    }

    fn take(&mut self, buf: &mut ReadBuf<'_>) {
        let count = self.bytes().len().min(buf.remaining());
        buf.put_slice(self.bytes().get(..count).unwrap_or_default());
        self.from = self.from.saturating_add(count as u8);
    }
}

impl<IO> Guarded<IO> {
    pub(super) fn new(io: IO, prefix: Prefix, guard: Option<Guard>, connection: Arc<Connection>, clock: Clock) -> Self {
        let faulty = connection.wire.lock().fault.is_some();
        Self { io, connection, clock, prefix, guard, faulty, passed: 0 }
    }

    /// The stream and the guard, to wait with and to go on with later.
    pub(super) fn into_parts(self) -> (IO, Option<Guard>) {
        (self.io, self.guard)
    }
}

impl<IO> Guarded<IO> {
    /// hyper gives up a request as soon as its input ends. Some callers close their side once they have asked, so while an
    /// answer is owed the end is kept from hyper, and the driver waits a little.
    fn end_of_input(&self) -> Poll<io::Result<()>> {
        let in_body = self.guard.as_ref().is_some_and(|guard| guard.phase() == Phase::Body);
        let mut wire = self.connection.wire.lock();
        if in_body || !wire.owing() {
            return Poll::Ready(Ok(()));
        }
        if wire.half_closed.is_none() {
            wire.half_closed = Some(self.clock.now());
        }
        Poll::Pending
    }
}

/// Reads what would, with a prefix before it, not fill hyper's first buffer; `buf` has more room than that.
fn poll_read_less<IO: AsyncRead>(
    io: Pin<&mut IO>,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let mut less = ReadBuf::new(buf.initialize_unfilled_to(BUFFER - PREFACE.len() - 1));
    ready!(io.poll_read(cx, &mut less))?;
    let count = less.filled().len();
    buf.advance(count);
    Poll::Ready(Ok(()))
}

impl<IO: AsyncRead + Unpin> AsyncRead for Guarded<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(guard) = &this.guard
            && this.faulty
        {
            // A body that went wrong ends here, which its reader sees. After a faulty head nothing more is to be
            // read: the driver ends the connection once the answers owed are written.
            return if guard.phase() == Phase::Body { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        let before = buf.filled().len();
        let small = this.guard.is_some() && this.passed < LARGE_BODY;
        let roomy = buf.remaining() > BUFFER;
        if !this.prefix.bytes().is_empty() {
            this.prefix.take(buf);
        }
        let polled = if small && roomy {
            poll_read_less(Pin::new(&mut this.io), cx, buf)
        } else {
            Pin::new(&mut this.io).poll_read(cx, buf)
        };
        match buf.filled().get(before..).unwrap_or_default() {
            [] => ready!(polled)?,
            [start @ .., last] if small && start.len() + 1 == BUFFER => {
                this.prefix = Prefix::of(*last);
                buf.set_filled(before + BUFFER - 1);
            }
            _ => {}
        }
        let Some(guard) = &mut this.guard else { return Poll::Ready(Ok(())) };
        let read = buf.filled().get(before..).unwrap_or_default();
        if read.is_empty() {
            return this.end_of_input();
        }
        let fed = guard.feed(read);
        let mut wire = this.connection.wire.lock();
        let same_head = wire.heads == guard.heads();
        wire.heads = guard.heads();
        wire.fault = fed.fault;
        this.faulty = fed.fault.is_some();
        wire.in_body = guard.phase() == Phase::Body;
        wire.place = if wire.in_body { Place::Body } else { Place::Head };
        wire.idle_since = None;
        wire.head_since = match guard.phase() {
            // A head that is complete in one read costs no clock.
            Phase::Head => wire.head_since.filter(|_| same_head).or_else(|| Some(this.clock.now())),
            Phase::Between | Phase::Body => None,
        };
        drop(wire);
        this.passed = if guard.phase() == Phase::Body { this.passed.saturating_add(fed.passed as u64) } else { 0 };
        buf.set_filled(before + fed.passed);
        if fed.passed == 0 && guard.phase() != Phase::Body {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> Guarded<IO> {
    /// hyper answers some requests by itself, with nothing but a status. The guard leaves it no reason to; should it
    /// find one, the caller still gets an answer it can read.
    fn is_hypers_own(&mut self, start: &[u8]) -> bool {
        if self.guard.is_none() {
            return false;
        }
        let mut wire = self.connection.wire.lock();
        let unasked = wire.in_service == 0 && wire.heads != wire.calls && start.starts_with(b"HTTP/1.1 4");
        if unasked {
            wire.place = Place::Hyper;
            wire.fault.get_or_insert(Fault::Unreadable);
            self.faulty = true;
        }
        wire.place == Place::Hyper
    }

    fn note(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let mut wire = self.connection.wire.lock();
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

impl<IO: AsyncWrite + Unpin> AsyncWrite for Guarded<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_hypers_own(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let result = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.note(result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let first = slices.iter().find(|slice| !slice.is_empty());
        if first.is_some_and(|first| this.is_hypers_own(first)) {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
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
    use crate::edge::framing::HeadLimits;

    fn guarded(heads: u32) -> (tokio::io::DuplexStream, Guarded<tokio::io::DuplexStream>, Arc<Connection>) {
        let (near, far) = tokio::io::duplex(1024);
        let connection = Arc::new(Connection::new(([192, 0, 2, 1], 1).into(), 0));
        connection.wire.lock().heads = heads;
        let guard = Guard::new(HeadLimits { bytes: 1024, count: 10 });
        let raw = Guarded::new(far, Prefix::default(), Some(guard), Arc::clone(&connection), Clock::start());
        (near, raw, connection)
    }

    #[tokio::test]
    async fn an_answer_hyper_gives_alone_never_reaches_the_caller() {
        let (mut near, mut raw, connection) = guarded(1);
        raw.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await.expect("taken");
        drop(raw);
        let mut seen = Vec::new();
        near.read_to_end(&mut seen).await.expect("closed");
        assert!(seen.is_empty());
        let wire = connection.wire.lock();
        assert_eq!((wire.fault, wire.place), (Some(Fault::Unreadable), Place::Hyper));
    }

    #[tokio::test]
    async fn an_answer_of_the_road_does() {
        let (mut near, mut raw, connection) = guarded(1);
        connection.wire.lock().calls = 1;
        raw.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n").await.expect("taken");
        drop(raw);
        let mut seen = Vec::new();
        near.read_to_end(&mut seen).await.expect("closed");
        assert_eq!(seen, b"HTTP/1.1 404 Not Found\r\n\r\n");
    }

    #[tokio::test]
    async fn no_read_makes_hypers_buffer_grow_before_a_body_is_large() {
        for room in [BUFFER, 3 * BUFFER] {
            let (mut near, far) = tokio::io::duplex(1 << 20);
            let connection = Arc::new(Connection::new(([192, 0, 2, 1], 1).into(), 0));
            let guard = Guard::new(HeadLimits { bytes: 1024, count: 10 });
            let mut raw = Guarded::new(far, Prefix::default(), Some(guard), connection, Clock::start());
            let body: Vec<u8> = (0..600_000_u32).map(|number| (number % 251) as u8).collect();
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
            let sent = [head.into_bytes(), body].concat();
            near.write_all(&sent).await.expect("room");
            let mut seen = Vec::new();
            while seen.len() < sent.len() {
                let mut buffer = vec![0; room];
                let count = raw.read(&mut buffer).await.expect("open");
                assert!(count < BUFFER || seen.len() as u64 >= LARGE_BODY, "{count} bytes after {}", seen.len());
                seen.extend_from_slice(&buffer[..count]);
            }
            assert!(seen == sent, "every byte in its place");
        }
    }

    #[tokio::test]
    async fn bytes_read_ahead_come_first_and_are_watched() {
        let (mut near, raw, connection) = guarded(0);
        let (io, guard) = raw.into_parts();
        let mut prefix = Prefix::default();
        prefix.room()[..6].copy_from_slice(b"GET / ");
        prefix.filled(6);
        let mut raw = Guarded::new(io, prefix, guard, Arc::clone(&connection), Clock::start());
        near.write_all(b"HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("open");
        let mut seen = vec![0; 27];
        raw.read_exact(&mut seen).await.expect("whole");
        assert_eq!(seen, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(connection.wire.lock().heads, 1);
    }
}
