//! One caller's connection, polled by whoever drives it: a request's head, its body and its answer, then the next one.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::Response;
use http_body::Body;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, Sleep};

use super::BUFFER;
use super::answer::{self, Asked, Framing, Told};
use super::head::{self, Head, HeadLimits};
use super::out::Out;
use super::pipe::{Supply, pipe};
use crate::body::BodyFault;
use crate::edge::fault::Fault;
use crate::edge::inbound::Inbound;
use crate::edge::limits::Edge;
use crate::edge::pace::Pace;
use crate::http1::{Decoder, Framing as BodyFraming, Rules, Step};
use crate::written::Written;

/// A body of which so much has come is worth larger buffers,
const LARGE_BODY: u64 = 256 * 1024;
/// of this size.
const LARGE_BUFFER: usize = 64 * 1024;

/// The first bytes of an HTTP/2 connection (RFC 9113 section 3.4).
pub(in crate::edge) const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A connection. It holds buffers only while there is something in them, or a request is in service.
#[expect(clippy::struct_excessive_bools, reason = "they are facts of three directions, most of them independent")]
pub(in crate::edge) struct Conn<IO> {
    io: IO,
    edge: Arc<Edge>,
    limits: HeadLimits,
    /// What has been read and not been used, with room for more while something is being read.
    read: BytesMut,
    /// The buffer is larger than those that go round.
    large: bool,
    /// It has not been looked for a head in what was read.
    fresh: bool,
    /// The first bytes may be those of HTTP/2.
    sniff: bool,
    waiting: Waiting,
    /// Since when the caller has sent all it will send.
    ended: Option<Instant>,
    /// The body of the request in service.
    body: Decoder,
    /// Bytes of it that have been read.
    passed: u64,
    /// Where its pieces go, until it has ended.
    supply: Option<Supply>,
    /// The caller waits to be told before it sends its body.
    expects: bool,
    out: Out,
    /// What is still to come of the answer.
    more: Framing,
    /// Its head has just been put into `out`.
    begun: bool,
    /// The answer broke off.
    cut: bool,
    /// The connection stays open after the answer.
    keep: bool,
    /// How fast the caller reads.
    pace: Pace,
}

/// A connection between requests.
#[derive(Debug, Default)]
struct Waiting {
    since: Option<Instant>,
    /// No request has come yet.
    first: bool,
    /// A part of a head is here.
    begun: bool,
}

/// What comes next on a connection.
#[expect(clippy::large_enum_variant, reason = "it is nearly always the large one, and never kept")]
pub(in crate::edge) enum Next {
    Head(Head),
    /// It speaks HTTP/2.
    Http2,
    Fault(Fault),
    /// Nothing more is to come, or to be waited for.
    Over,
    /// The caller is gone, or never said a word.
    Gone,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::edge) enum Sent {
    /// It was written to its end.
    Whole,
    /// The caller is gone, or the answer could not be completed.
    Gone,
    /// The caller does not read.
    SlowReader,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Conn<IO> {
    /// A connection that has just been accepted; with `sniff`, its first bytes tell whether it speaks HTTP/2.
    pub(in crate::edge) fn new(io: IO, edge: Arc<Edge>, sniff: bool) -> Self {
        let limits = HeadLimits { bytes: edge.limits.head_bytes, count: edge.limits.head_count };
        let waiting = Waiting { since: Some(edge.clock.now()), first: true, begun: false };
        Self {
            io,
            edge,
            limits,
            read: BytesMut::new(),
            large: false,
            fresh: false,
            sniff,
            waiting,
            ended: None,
            body: Decoder::new(BodyFraming::Length(0), Rules::REQUESTS),
            passed: 0,
            supply: None,
            expects: false,
            out: Out::default(),
            more: Framing::None,
            begun: false,
            cut: false,
            keep: false,
            pace: Pace::new(),
        }
    }

    /// The stream, and what was read from it and not used.
    pub(in crate::edge) fn into_parts(self) -> (IO, Bytes) {
        (self.io, self.read.freeze())
    }

    /// Whether another request may follow the answer that was sent.
    pub(in crate::edge) fn keeps(&self) -> bool {
        self.keep
    }

    /// Waits for the next head.
    pub(in crate::edge) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        timer: Pin<&mut Sleep>,
        drained: Pin<&mut OwnedNotified>,
    ) -> Poll<Next> {
        loop {
            if std::mem::take(&mut self.fresh)
                && let Some(next) = self.look()
            {
                return Poll::Ready(next);
            }
            let polled = if self.ended.is_some() { Poll::Ready(Ok(0)) } else { self.poll_read(cx) };
            match polled {
                Poll::Ready(Ok(0)) if head::is_blank(&self.read) => return Poll::Ready(Next::Over),
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::Gone),
                Poll::Ready(Ok(_)) => self.fresh = true,
                Poll::Pending => break,
            }
        }
        if self.read.is_empty() {
            self.rest();
        }
        let blank = head::is_blank(&self.read);
        if blank && (drained.poll(cx).is_ready() || self.edge.drain.begun()) {
            return Poll::Ready(Next::Over);
        }
        let Waiting { since, first, begun } = &mut self.waiting;
        if *begun == blank {
            *begun = !blank;
            if !*first {
                // From the first byte of a head, or from the answer before it if that was later.
                *since = None;
            }
        }
        let since = *since.get_or_insert_with(|| self.edge.clock.now());
        let limits = &self.edge.limits;
        ready!(poll_until(timer, since + if *first || *begun { limits.head_time } else { limits.idle }, cx));
        Poll::Ready(match (blank, first) {
            (false, _) => Next::Fault(Fault::Late),
            (true, true) => Next::Gone,
            (true, false) => Next::Over,
        })
    }

    /// What the bytes that were read say, if that is enough.
    fn look(&mut self) -> Option<Next> {
        if self.sniff && !self.read.is_empty() {
            if self.read.starts_with(&PREFACE) {
                return Some(Next::Http2);
            }
            if PREFACE.starts_with(&self.read) {
                return None;
            }
        }
        let read = head::read(&mut self.read, self.limits, &mut self.edge.buffers.shapes());
        match read {
            Ok(None) => None,
            Ok(Some(head)) => {
                self.sniff = false;
                self.waiting = Waiting::default();
                Some(Next::Head(head))
            }
            Err(fault) => Some(Next::Fault(fault)),
        }
    }

    /// Bytes of memory it holds for reading and writing.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.read.capacity() + self.out.held()
    }

    /// Gives the buffers back.
    fn rest(&mut self) {
        let read = std::mem::take(&mut self.read);
        if read.capacity() > 0 && !self.large {
            self.edge.buffers.put_read(read);
        }
        self.large = false;
    }

    /// The body of the request with this head.
    pub(in crate::edge) fn body(&mut self, framing: BodyFraming, keep_alive: bool, expects: bool) -> Inbound {
        self.keep = keep_alive;
        self.body = Decoder::new(framing, Rules::REQUESTS);
        self.passed = 0;
        let (limit, rate, clock) = (self.edge.limits.body_bytes, self.edge.rate(), self.edge.clock);
        if let Some(whole) = self.body.whole(&mut self.read) {
            return Inbound::arrived(whole, limit, rate, clock);
        }
        let (supply, demand) = pipe(self.body.remaining());
        self.supply = Some(supply);
        self.expects = expects && self.read.is_empty();
        Inbound::from_pipe(demand, limit, rate, clock)
    }

    /// Waits for the answer of `road`, reads the body it wants meanwhile, and notices if the caller leaves: `None`.
    pub(in crate::edge) fn poll_answer<F: Future>(
        &mut self,
        cx: &mut Context<'_>,
        mut road: Pin<&mut F>,
        timer: Pin<&mut Sleep>,
    ) -> Poll<Option<F::Output>> {
        loop {
            if let Poll::Ready(answer) = road.as_mut().poll(cx) {
                return Poll::Ready(Some(answer));
            }
            if self.poll_supply(cx).is_pending() {
                break;
            }
        }
        if let Poll::Ready(Err(_)) = self.poll_out(cx) {
            return Poll::Ready(None);
        }
        ready!(self.poll_caller(cx, timer));
        Poll::Ready(None)
    }

    /// Puts the head of an answer before what [`Self::poll_send`] writes.
    pub(in crate::edge) fn begin<B: Body>(&mut self, response: &Response<B>, written: Option<&Written>, asked: Asked) {
        self.expects = false;
        // What of the request's body was not read is not to be taken for the next request.
        self.keep &=
            self.body.is_ended() && !self.edge.drain.begun() && (self.ended.is_none() || !self.read.is_empty());
        let told = Told {
            status: response.status(),
            headers: response.headers(),
            written,
            extensions: response.extensions(),
            size: response.body().size_hint(),
        };
        let Self { out, edge, keep, .. } = self;
        let head = out.head(|| edge.buffers.take_write());
        self.more = match answer::write(head, &told, asked, keep, || edge.clock.system_time()) {
            Framing::Length(0) => Framing::None,
            framing => framing,
        };
        self.begun = true;
        self.cut = false;
    }

    /// Writes the answer whose head was [begun](Self::begin), and drops its body before its last byte is written.
    pub(in crate::edge) fn poll_send<B>(
        &mut self,
        cx: &mut Context<'_>,
        mut body: Pin<&mut Option<B>>,
        mut timer: Pin<&mut Sleep>,
    ) -> Poll<Sent>
    where
        B: Body<Data = Bytes, Error = BodyFault>,
    {
        loop {
            let mut starved = false;
            // The first piece goes with the head; any other when the one before has been written.
            if std::mem::take(&mut self.begun) || self.out.is_empty() {
                starved = self.poll_piece(cx, body.as_mut()).is_pending();
                if self.more == Framing::None {
                    body.set(None);
                }
            }
            match self.poll_out(cx) {
                Poll::Ready(Err(_)) => return Poll::Ready(Sent::Gone),
                Poll::Ready(Ok(())) if self.more == Framing::None => break,
                Poll::Ready(Ok(())) if !starved => {}
                Poll::Ready(Ok(())) | Poll::Pending => {
                    if self.poll_supply(cx).is_pending() {
                        return self.poll_caller(cx, timer.as_mut());
                    }
                }
            }
        }
        if self.cut {
            return Poll::Ready(Sent::Gone);
        }
        self.edge.buffers.put_write(self.out.take());
        (self.supply, self.passed) = (None, 0);
        self.fresh = !self.read.is_empty();
        Poll::Ready(Sent::Whole)
    }

    /// Takes the next piece of the answer.
    fn poll_piece<B>(&mut self, cx: &mut Context<'_>, mut body: Pin<&mut Option<B>>) -> Poll<()>
    where
        B: Body<Data = Bytes, Error = BodyFault>,
    {
        if self.more == Framing::None {
            return Poll::Ready(());
        }
        let Some(mut stream) = body.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        let (data, last) = match ready!(stream.as_mut().poll_frame(cx)) {
            // Trailer fields end here: the head announced none.
            Some(Ok(frame)) => (frame.into_data().unwrap_or_default(), stream.is_end_stream()),
            Some(Err(_)) => {
                // What was said so far is still written, so that the caller sees an answer cut short, not none.
                (self.cut, self.more) = (true, Framing::None);
                return Poll::Ready(());
            }
            None => (Bytes::new(), true),
        };
        match &mut self.more {
            Framing::None => {}
            Framing::Length(left) => {
                let some = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
                *left -= some as u64;
                self.cut |= some < data.len() || (last && *left > 0);
                if *left == 0 || last {
                    self.more = Framing::None;
                }
                self.out.piece(data.slice(..some));
            }
            Framing::Chunked => {
                if !data.is_empty() {
                    self.out.chunk(data);
                }
                if last {
                    self.out.last_chunk();
                    self.more = Framing::None;
                }
            }
            Framing::UntilClose => {
                self.out.piece(data);
                if last {
                    self.more = Framing::None;
                }
            }
        }
        Poll::Ready(())
    }

    /// Reads on in the request's body if its reader wants that. Ready when there is something new for the reader.
    fn poll_supply(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(supply) = self.supply.as_ref().filter(|supply| supply.is_wanted(cx)) else { return Poll::Pending };
            let (piece, last) = match self.body.decode(&mut self.read) {
                Ok(Step::Data(data)) => (Some(Ok(data)), self.body.is_ended()),
                // Trailer fields end here: nothing behind the gateway reads them.
                Ok(Step::Trailers(_)) => continue,
                Ok(Step::End) => (None, true),
                Err(_) => (Some(Err(BodyFault::Malformed)), true),
                Ok(Step::More) if self.ended.is_some() => (Some(Err(BodyFault::Malformed)), true),
                Ok(Step::More) => {
                    if std::mem::take(&mut self.expects) && self.read.is_empty() {
                        let edge = &self.edge;
                        self.out.head(|| edge.buffers.take_write()).extend_from_slice(CONTINUE);
                        // A connection that broke shows when it is read.
                        let _ = self.poll_out(cx);
                    }
                    match ready!(self.poll_read(cx)) {
                        Ok(0) => self.ended = Some(self.edge.clock.now()),
                        Ok(count) => self.passed = self.passed.saturating_add(count as u64),
                        Err(_) => self.supply = None,
                    }
                    continue;
                }
            };
            supply.put(piece, last, cx);
            if last {
                self.supply = None;
            }
            return Poll::Ready(());
        }
    }

    /// Waits until the caller has left, or is too slow a reader.
    fn poll_caller(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<Sent> {
        // What it sends meanwhile is kept, within a bound.
        while self.supply.is_none() && self.ended.is_none() && self.read.len() < BUFFER {
            match self.poll_read(cx) {
                Poll::Ready(Ok(0)) => self.ended = Some(self.edge.clock.now()),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Sent::Gone),
                Poll::Pending => break,
            }
        }
        loop {
            if let Some(due) = self.pace.due(self.edge.rate()) {
                ready!(poll_until(timer.as_mut(), due, cx));
                if self.pace.too_slow(self.edge.rate(), self.edge.clock.now()) {
                    return Poll::Ready(Sent::SlowReader);
                }
                continue;
            }
            // Some callers close their side once they have asked; one that has left looks the same.
            let Some(ended) = self.ended else { return Poll::Pending };
            ready!(poll_until(timer, ended + self.edge.limits.linger, cx));
            return Poll::Ready(Sent::Gone);
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.read.capacity() == 0 {
            self.read = self.edge.buffers.take_read();
            self.large = false;
        }
        let room = if self.passed < LARGE_BODY { BUFFER } else { LARGE_BUFFER };
        if self.read.capacity() - self.read.len() < room / 4 {
            self.large |= room > BUFFER;
            self.read.reserve(room);
        }
        pin!(self.io.read_buf(&mut self.read)).poll(cx)
    }

    /// Writes what waits to be written.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let polled = if self.out.is_empty() {
                self.out.poll_flush(cx, &mut self.io).map_ok(|()| 0)
            } else {
                self.out.poll_write(cx, &mut self.io)
            };
            match polled {
                Poll::Ready(Ok(written)) => {
                    if self.pace.waiting() {
                        self.pace.resume(self.edge.clock.now());
                    }
                    self.pace.moved(written as u64);
                    if written == 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if !self.pace.waiting() {
                        self.pace.wait(self.edge.clock.now());
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

/// Ready when `at` has come. The timer is only moved when it would wake too late, or has woken too early: a busy
/// connection touches it about once for each time it may be idle.
fn poll_until(mut timer: Pin<&mut Sleep>, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        ready!(timer.as_mut().poll(cx));
        if timer.deadline() >= at {
            return Poll::Ready(());
        }
        timer.as_mut().reset(at);
    }
}
