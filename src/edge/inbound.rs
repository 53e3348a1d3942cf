//! A request's body, as it arrives: bounded in size and in slowness, its faults named.

use std::error::Error as _;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::poll_fn;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::body::{BodyFault, ByteBudget, HeldBytes, Pieces};
use crate::clock::Clock;
use crate::edge::http1::Demand;
use crate::edge::pace::{MinimumRate, Pace};
use crate::edge::room::{Full, Room};
use crate::outcome::Record;
use crate::refusal::{Reason, Refusal};

/// A request's body. An absent body costs nothing: no timer, no clock, no allocation.
pub struct Inbound(Option<Box<Coming>>);

/// A body that is there. Boxed, because a request is handed from stage to stage.
struct Coming {
    source: Source,
    /// Bytes read from the peer so far.
    received: u64,
    /// Most bytes it may have.
    limit: u64,
    rate: MinimumRate,
    clock: Clock,
    pace: Pace,
    /// Made when the peer is first waited for.
    timer: Option<Pin<Box<Sleep>>>,
    /// Bytes that were read ahead and given back by [`Self::gather`].
    prefix: Option<(Pieces, HeldBytes)>,
    /// Where `received` is written down.
    record: Option<Record>,
}

enum Source {
    Done,
    Whole(Bytes),
    /// As HTTP/1.1 connections read it.
    Asked(Demand),
    /// As HTTP/2 connections read it.
    Stream(Incoming),
    #[cfg(test)]
    Frames(tokio::sync::mpsc::Receiver<Result<Bytes, BodyFault>>),
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound").field("received", &self.received()).finish_non_exhaustive()
    }
}

/// What [`Inbound::gather`] found.
#[derive(Debug)]
pub enum Gathered {
    /// No body.
    Empty,
    /// The whole body, and the hold on its bytes.
    Whole(Bytes, HeldBytes),
    /// The same, in pieces.
    Pieces(Pieces, HeldBytes),
    /// Longer than what was to be gathered: to be passed on as it arrives, from its first byte.
    Longer(Inbound),
}

impl Inbound {
    /// A body that has arrived whole: at most `limit` bytes.
    pub(super) fn arrived(bytes: Bytes, limit: u64, rate: MinimumRate, clock: Clock) -> Self {
        if bytes.is_empty() { Self(None) } else { Self::new(Source::Whole(bytes), limit, rate, clock) }
    }

    /// The body an HTTP/1.1 connection reads: at most `limit` bytes, no slower than `rate`.
    pub(super) fn from_pipe(body: Demand, limit: u64, rate: MinimumRate, clock: Clock) -> Self {
        Self::new(Source::Asked(body), limit, rate, clock)
    }

    /// The body of a stream of an HTTP/2 connection: at most `limit` bytes, no slower than `rate`.
    pub(super) fn from_stream(body: Incoming, limit: u64, rate: MinimumRate, clock: Clock) -> Self {
        if body.is_end_stream() { Self(None) } else { Self::new(Source::Stream(body), limit, rate, clock) }
    }

    /// A body that is already here, for requests made inside the gateway and for tests.
    pub fn whole(bytes: Bytes, clock: Clock) -> Self {
        let rate = MinimumRate { bytes_per_second: 0, window: std::time::Duration::MAX };
        Self::arrived(bytes, u64::MAX, rate, clock)
    }

    /// A body that has been collected, to be read once more; its bytes stay held until then.
    pub fn again(bytes: Bytes, held: HeldBytes, clock: Clock) -> Self {
        let mut again = Self::whole(bytes, clock);
        if let Some(coming) = &mut again.0
            && let Source::Whole(bytes) = std::mem::replace(&mut coming.source, Source::Done)
        {
            coming.prefix = Some((Pieces::from(vec![bytes]), held));
        }
        again
    }

    /// A body whose frames a test sends.
    #[cfg(test)]
    pub(crate) fn frames(
        limit: u64,
        rate: MinimumRate,
        clock: Clock,
    ) -> (tokio::sync::mpsc::Sender<Result<Bytes, BodyFault>>, Self) {
        let (sender, frames) = tokio::sync::mpsc::channel(16);
        (sender, Self::new(Source::Frames(frames), limit, rate, clock))
    }

    fn new(source: Source, limit: u64, rate: MinimumRate, clock: Clock) -> Self {
        let pace = Pace::new();
        let coming = Coming { source, received: 0, limit, rate, clock, pace, timer: None, prefix: None, record: None };
        Self(Some(Box::new(coming)))
    }

    /// The same, every byte of it written down in `record`, however far it gets.
    #[must_use]
    pub fn recorded(mut self, record: Record) -> Self {
        if let Some(coming) = &mut self.0 {
            coming.record = Some(record);
        }
        self
    }

    /// Bytes received from the caller so far.
    pub fn received(&self) -> u64 {
        self.0.as_ref().map_or(0, |coming| coming.received)
    }

    /// The length the caller announced, if it did; zero for no body.
    pub fn announced(&self) -> Option<u64> {
        Body::size_hint(self).exact()
    }

    /// Reads the whole body, at most `limit` bytes, taking its bytes from `budget` as they arrive.
    pub async fn collect_whole(self, budget: &ByteBudget, limit: usize) -> Result<(Bytes, HeldBytes), Refusal> {
        match self.gather(budget, limit).await? {
            Gathered::Empty => Ok((Bytes::new(), budget.hold())),
            Gathered::Whole(bytes, held) => Ok((bytes, held)),
            Gathered::Pieces(pieces, held) => Ok((pieces.joined(), held)),
            Gathered::Longer(_) => Err(too_large(limit as u64)),
        }
    }

    /// Reads up to `limit` bytes, taking them from `budget` as they arrive. A body announced as longer is not read at all.
    pub async fn gather(self, budget: &ByteBudget, limit: usize) -> Result<Gathered, Refusal> {
        let Some(mut coming) = self.0.filter(|coming| !Body::is_end_stream(&**coming)) else {
            return Ok(Gathered::Empty);
        };
        let announced = Body::size_hint(&*coming).exact();
        if announced.is_some_and(|length| length > coming.limit) {
            return Err(too_large(coming.limit));
        }
        if announced.is_some_and(|length| length > limit as u64) {
            return Ok(Gathered::Longer(Self(Some(coming))));
        }
        let Some(first) = coming.next_data().await? else {
            return Ok(Gathered::Empty);
        };
        if Body::is_end_stream(&*coming) && first.len() <= limit {
            let mut held = budget.hold();
            return if held.grow(first.len()) { Ok(Gathered::Whole(first, held)) } else { Err(full(Full)) };
        }
        // More than one frame: each is copied, as it keeps the whole buffer it was read into.
        let mut room = Room::new(budget, announced).map_err(full)?;
        room.append(&first).map_err(full)?;
        drop(first);
        while room.len() <= limit {
            let Some(data) = coming.next_data().await? else {
                let (pieces, held) = room.finish();
                return Ok(if pieces.number() == 1 {
                    Gathered::Whole(pieces.joined(), held)
                } else {
                    Gathered::Pieces(pieces, held)
                });
            };
            room.append(&data).map_err(full)?;
        }
        coming.prefix = Some(room.finish());
        Ok(Gathered::Longer(Self(Some(coming))))
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match &mut self.0 {
            Some(coming) => Pin::new(&mut **coming).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Coming {
    async fn next_data(&mut self) -> Result<Option<Bytes>, Refusal> {
        loop {
            match poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await {
                None => return Ok(None),
                Some(Err(fault)) => return Err(refusal(fault, self.limit)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyFault>>> {
        loop {
            return match &mut self.source {
                Source::Done => Poll::Ready(None),
                Source::Whole(bytes) => {
                    let bytes = std::mem::take(bytes);
                    self.source = Source::Done;
                    Poll::Ready(Some(Ok(bytes)))
                }
                Source::Asked(body) => body.poll_next(cx),
                Source::Stream(body) => match ready!(Pin::new(body).poll_frame(cx)) {
                    None => Poll::Ready(None),
                    Some(Err(error)) => Poll::Ready(Some(Err(fault_of(&error)))),
                    // Trailers end here: nothing behind the gateway reads them.
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => Poll::Ready(Some(Ok(data))),
                        Err(_trailers) => continue,
                    },
                },
                #[cfg(test)]
                Source::Frames(frames) => frames.poll_recv(cx),
            };
        }
    }

    /// The peer is being waited for: is it too slow?
    fn poll_pace(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.pace.waiting() {
            self.pace.wait(self.clock.now());
        }
        loop {
            let Some(due) = self.pace.due(self.rate) else { return Poll::Pending };
            let timer = match &mut self.timer {
                Some(timer) => {
                    if timer.deadline() != due {
                        timer.as_mut().reset(due);
                    }
                    timer
                }
                empty => empty.insert(Box::pin(tokio::time::sleep_until(due))),
            };
            ready!(timer.as_mut().poll(cx));
            if self.pace.too_slow(self.rate, self.clock.now()) {
                return Poll::Ready(());
            }
        }
    }
}

impl Body for Coming {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let this = &mut *self;
        if let Some((pieces, _held)) = &mut this.prefix {
            let next = pieces.next();
            if pieces.is_empty() {
                this.prefix = None;
            }
            if let Some(piece) = next {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
        }
        let Poll::Ready(next) = this.poll_source(cx) else {
            ready!(this.poll_pace(cx));
            this.source = Source::Done;
            return Poll::Ready(Some(Err(BodyFault::TooSlow)));
        };
        if this.pace.waiting() {
            this.pace.resume(this.clock.now());
        }
        Poll::Ready(match next {
            None => {
                this.source = Source::Done;
                None
            }
            Some(Err(fault)) => {
                this.source = Source::Done;
                Some(Err(fault))
            }
            Some(Ok(data)) => {
                let length = data.len() as u64;
                this.received += length;
                if let Some(record) = &this.record {
                    record.lock().bytes_in = this.received;
                }
                this.pace.moved(length);
                if this.received > this.limit {
                    this.source = Source::Done;
                    Some(Err(BodyFault::TooLarge))
                } else {
                    Some(Ok(Frame::data(data)))
                }
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.prefix.as_ref().is_none_or(|(pieces, _)| pieces.is_empty())
            && match &self.source {
                Source::Done => true,
                Source::Whole(bytes) => bytes.is_empty(),
                Source::Asked(body) => body.is_end(),
                Source::Stream(body) => body.is_end_stream(),
                #[cfg(test)]
                Source::Frames(_) => false,
            }
    }

    fn size_hint(&self) -> SizeHint {
        let rest = match &self.source {
            Source::Done => SizeHint::with_exact(0),
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Asked(body) => body.size_hint(),
            Source::Stream(body) => body.size_hint(),
            #[cfg(test)]
            Source::Frames(_) => SizeHint::default(),
        };
        match &self.prefix {
            None => rest,
            Some((pieces, _)) => {
                let ahead = pieces.len() as u64;
                let mut both = SizeHint::new();
                if let Some(upper) = rest.upper() {
                    both.set_upper(upper.saturating_add(ahead));
                }
                both.set_lower(rest.lower().saturating_add(ahead));
                both
            }
        }
    }
}

/// The refusal for a body that could not be read; `limit` is the number of bytes it was allowed.
pub fn refusal(fault: BodyFault, limit: u64) -> Refusal {
    match fault {
        BodyFault::TooLarge => too_large(limit),
        BodyFault::TooSlow => {
            Refusal::new(Reason::BodyTooSlow, "The request body arrived slower than the minimum rate.")
        }
        BodyFault::Malformed | BodyFault::Gone => {
            Refusal::new(Reason::BodyMalformed, "The request body ended early, or its framing is broken.")
        }
    }
}

fn too_large(limit: u64) -> Refusal {
    Refusal::new(Reason::BodyTooLarge, format!("The request body is larger than {limit} bytes."))
}

fn full(_: Full) -> Refusal {
    Refusal::new(Reason::BuffersFull, "There is no room for this request body.")
}

/// Whose fault a broken body is: the bytes', or the connection's.
fn fault_of(error: &hyper::Error) -> BodyFault {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::InvalidData
                | io::ErrorKind::InvalidInput
                | io::ErrorKind::Other => BodyFault::Malformed,
                _ => BodyFault::Gone,
            };
        }
        source = cause.source();
    }
    BodyFault::Gone
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::edge::room::UNDER_WAY;

    const RATE: MinimumRate = MinimumRate { bytes_per_second: 100, window: Duration::from_secs(10) };

    #[tokio::test]
    async fn a_single_frame_is_not_copied() {
        let bytes = Bytes::from_static(b"{\"Name\":\"Acme\"}");
        let address = bytes.as_ptr();
        let budget = ByteBudget::new(1_000);
        let (whole, held) = Inbound::whole(bytes, Clock::start()).collect_whole(&budget, 1_000).await.expect("fits");
        assert_eq!(whole.as_ptr(), address);
        assert_eq!((held.bytes(), budget.used()), (15, 15));
    }

    #[tokio::test]
    async fn an_absent_body_takes_nothing_from_the_budget() {
        let budget = ByteBudget::new(0);
        let gathered = Inbound::whole(Bytes::new(), Clock::start()).gather(&budget, 10).await;
        assert!(matches!(gathered, Ok(Gathered::Empty)));
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_has_arrived_is_held() {
        let budget = ByteBudget::new(1_000_000);
        let (sender, body) = Inbound::frames(1_000_000, RATE, Clock::start());
        let counted = budget.clone();
        let reading = async move { body.collect_whole(&budget, 1_000_000).await };
        let sending = async move {
            for round in 1..=5 {
                sender.send(Ok(Bytes::from(vec![b'x'; 1_000]))).await.expect("open");
                tokio::time::sleep(Duration::from_secs(1)).await;
                let held = counted.used() - UNDER_WAY;
                assert!((round * 1_000..=round * 2_000).contains(&held), "{held} held after {round} frames");
            }
        };
        let (whole, ()) = tokio::join!(reading, sending);
        let (whole, _held) = whole.expect("whole");
        assert_eq!(whole.len(), 5_000);
    }

    #[tokio::test]
    async fn a_full_budget_refuses_and_gives_back() {
        let budget = ByteBudget::new(UNDER_WAY + 1_500);
        let (sender, body) = Inbound::frames(1_000_000, RATE, Clock::start());
        for _ in 0..2 {
            sender.send(Ok(Bytes::from(vec![b'x'; 1_000]))).await.expect("open");
        }
        let refused = body.collect_whole(&budget, 1_000_000).await.expect_err("full");
        assert_eq!(refused.reason, Reason::BuffersFull);
        assert!(refused.retry_after.is_some());
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_body_longer_than_gathered_streams_from_its_first_byte() {
        let budget = ByteBudget::new(UNDER_WAY + 100);
        let (sender, body) = Inbound::frames(1_000_000, RATE, Clock::start());
        for part in ["first ", "second ", "third"] {
            sender.send(Ok(Bytes::from(part))).await.expect("open");
        }
        drop(sender);
        let Ok(Gathered::Longer(mut rest)) = body.gather(&budget, 8).await else { panic!("longer") };
        assert!(budget.used() > 0);
        let mut seen = Vec::new();
        while let Some(data) = rest.0.as_mut().expect("a body").next_data().await.expect("data") {
            seen.extend_from_slice(&data);
        }
        assert_eq!(seen, b"first second third");
        assert_eq!((budget.used(), rest.received()), (0, 18));
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_too_large() {
        let (sender, body) = Inbound::frames(10, RATE, Clock::start());
        for _ in 0..2 {
            sender.send(Ok(Bytes::from_static(b"sixsix"))).await.expect("open");
        }
        let refused = body.collect_whole(&ByteBudget::new(1 << 20), 50).await.expect_err("too large");
        assert_eq!(refused.reason, Reason::BodyTooLarge);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_below_the_minimum_rate_is_cut_after_the_window() {
        let clock = Clock::start();
        let (sender, body) = Inbound::frames(1_000_000, RATE, clock);
        let budget = ByteBudget::new(1_000_000);
        let start = clock.now();
        let reading = async { body.collect_whole(&budget, 1_000_000).await };
        let trickling = async {
            while sender.send(Ok(Bytes::from_static(b"x"))).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let (refused, ()) = tokio::join!(reading, trickling);
        assert_eq!(refused.expect_err("slow").reason, Reason::BodyTooSlow);
        let took = clock.now() - start;
        assert!((Duration::from_secs(10)..Duration::from_secs(13)).contains(&took), "{took:?}");
    }

    #[tokio::test]
    async fn faults_become_refusals() {
        for (fault, reason) in [
            (BodyFault::Malformed, Reason::BodyMalformed),
            (BodyFault::Gone, Reason::BodyMalformed),
            (BodyFault::TooSlow, Reason::BodyTooSlow),
        ] {
            let (sender, body) = Inbound::frames(100, RATE, Clock::start());
            sender.send(Ok(Bytes::from_static(b"part"))).await.expect("open");
            sender.send(Err(fault)).await.expect("open");
            assert_eq!(body.collect_whole(&ByteBudget::new(1 << 20), 50).await.expect_err("fault").reason, reason);
        }
    }
}
