//! Observe: owns the record of a request, from its head to its last byte or its caller's departure.
//!
//! It is the outermost stage: it turns a refusal into an answer, adds the gateway's own response headers, and hands the
//! finished [`Outcome`] to the telemetry, whatever way the request ends.

use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderName;
use http::{HeaderValue, Response};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::body::{BodyFault, ReplyBody};
use crate::clock::Clock;
use crate::edge::connection::Arrival;
use crate::edge::refuse::{self, Shape};
use crate::live::{InForce, Live};
use crate::outcome::{Ending, Outcome, Reader, Record, RequestIds, Source};
use crate::refusal::{Reason, Refusal};
use crate::stages::answer::Answer;
use crate::stages::{Reply, Seen, admit};
use crate::telemetry::{Finish, InFlight, Recorder};
use crate::written::{Brings, Written};

const REQUEST_ID: HeaderName = HeaderName::from_static("weirkeeper-request-id");
const COST: HeaderName = HeaderName::from_static("weirkeeper-cost");
const SAVED: HeaderName = HeaderName::from_static("weirkeeper-saved");
/// `Weirkeeper-Partial-Failures: 3/200`: so many parts of the request failed, although it was answered well as a whole.
const PARTIAL_FAILURES: HeaderName = HeaderName::from_static("weirkeeper-partial-failures");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Status of a request whose caller left before the end of its answer.
const CALLER_LEFT: u16 = 499;

/// Puts [`Observe`] on the road.
#[derive(Debug, Clone)]
pub struct ObserveLayer {
    /// The configuration in force.
    pub in_force: InForce,
    /// Where outcomes go.
    pub recorder: Arc<Recorder>,
    /// What time it is.
    pub clock: Clock,
    /// Names requests.
    pub ids: Arc<RequestIds>,
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Observe<S> {
        let view = View { live: self.in_force.load_full(), recorder: Arc::clone(&self.recorder), clock: self.clock };
        let shared = Arc::new(Shared {
            in_force: Arc::clone(&self.in_force),
            view: Mutex::new(Arc::new(view)),
            ids: Arc::clone(&self.ids),
        });
        Observe { inner, shared }
    }
}

/// The stage. Cloning is one reference count for it and one for each stage below.
#[derive(Debug, Clone)]
pub struct Observe<S> {
    inner: S,
    shared: Arc<Shared>,
}

/// What all connections of one runtime share.
#[derive(Debug)]
struct Shared {
    in_force: InForce,
    view: Mutex<Arc<View>>,
    ids: Arc<RequestIds>,
}

impl Shared {
    /// The view of the configuration in force, made anew after a reload.
    fn view(&self) -> Arc<View> {
        let mut view = self.view.lock();
        let live = self.in_force.load();
        if live.generation != view.live.generation {
            *view = Arc::new(View { live: Arc::clone(&live), recorder: Arc::clone(&view.recorder), clock: view.clock });
        }
        Arc::clone(&view)
    }
}

/// One configuration and where its outcomes go: a request keeps the one it began with.
#[derive(Debug)]
struct View {
    live: Arc<Live>,
    recorder: Arc<Recorder>,
    clock: Clock,
}

impl Reader for View {
    fn ended(&self, outcome: &Outcome) {
        let finish = Finish {
            names: &self.live.names,
            now: outcome.ended.unwrap_or_else(|| self.clock.now()),
            remote: outcome.remote,
            http: outcome.http,
        };
        self.recorder.finish(outcome, &finish);
        for exchange in &outcome.exchanges {
            if let Some(usage) = exchange.unread
                && let Some(org) = outcome.org.and_then(|org| self.live.org(org))
            {
                admit::learn(&org.ledger, usage, exchange.head.unwrap_or(exchange.sent));
            }
        }
    }
}

impl<S> Service<Arrival> for Observe<S>
where
    S: Service<Seen, Response = Reply, Error = Refusal>,
{
    type Response = Response<ObservedBody>;
    type Error = Infallible;
    type Future = Observing<S::Future>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, arrival: Arrival) -> Self::Future {
        let view = self.shared.view();
        let now = view.clock.now();
        let mut outcome = Outcome::new(self.shared.ids.next(), now, arrival.head.method.clone());
        outcome.http = arrival.head.version;
        let record = Record::read_by(outcome, Arc::clone(&view) as Arc<dyn Reader>);
        let live = Arc::clone(&view.live);
        let watch = Watch { record: record.clone(), view, in_flight: None, finished: false };
        let seen = Seen { head: arrival.head, body: arrival.body, connection: arrival.connection, live, record, now };
        // A panic is answered like any other failure, and unwinding releases every guard on its way.
        match catch_unwind(AssertUnwindSafe(|| self.inner.call(seen))) {
            Ok(inner) => Observing { inner: Some(inner), watch: Some(watch) },
            Err(_) => Observing { inner: None, watch: Some(watch) },
        }
    }
}

/// Holds the record until the end of the answer, and marks that end exactly once: also when it is dropped.
#[derive(Debug)]
struct Watch {
    record: Record,
    view: Arc<View>,
    in_flight: Option<InFlight>,
    finished: bool,
}

impl Watch {
    fn finish(&mut self, ending: Ending) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        self.in_flight = None;
        let mut outcome = self.record.lock();
        outcome.ending = ending;
        outcome.ended = Some(self.view.clock.now());
        if ending == Ending::CallerLeft {
            outcome.status = CALLER_LEFT;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.finish(Ending::CallerLeft);
    }
}

pin_project! {
    /// The future of [`Observe`].
    pub struct Observing<F> {
        #[pin]
        inner: Option<F>,
        watch: Option<Watch>,
    }
}

impl<F> Future for Observing<F>
where
    F: Future<Output = Result<Reply, Refusal>>,
{
    type Output = Result<Response<ObservedBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(watch) = this.watch else { return Poll::Pending };
        let result = match this.inner.as_pin_mut() {
            None => Err(panicked()),
            Some(inner) => match catch_unwind(AssertUnwindSafe(|| inner.poll(cx))) {
                Ok(Poll::Ready(result)) => result,
                Ok(Poll::Pending) => {
                    watch.enter();
                    return Poll::Pending;
                }
                Err(_) => Err(panicked()),
            },
        };
        let (mut response, refusal) = match result {
            Ok(reply) => (reply, None),
            Err(refusal) => (refused(&refusal, watch).map(ReplyBody::Whole), Some(refusal.reason)),
        };
        {
            let mut outcome = watch.record.lock();
            outcome.status = response.status().as_u16();
            outcome.answered = Some(watch.view.clock.now());
            outcome.refusal = refusal;
            if refusal.is_none() && outcome.source == Source::Gateway && !outcome.exchanges.is_empty() {
                outcome.source = Source::Upstream;
            }
            stamp(&mut response, &mut outcome);
            let caller = outcome.caller.and_then(|caller| watch.view.live.caller(caller));
            if let Some(advertised) = caller.and_then(|caller| caller.advertised.as_ref()) {
                advertised.stamp(response.headers_mut(), &outcome);
            }
        }
        match this.watch.take() {
            Some(watch) => Poll::Ready(Ok(response.map(|body| ObservedBody { body, watch }))),
            None => Poll::Pending,
        }
    }
}

impl Watch {
    /// Counts the request as in flight, once it is known to wait for something.
    fn enter(&mut self) {
        if self.in_flight.is_none() {
            let outcome = self.record.lock();
            let (org, class) = (outcome.org, outcome.class);
            drop(outcome);
            self.in_flight = org.and_then(|org| self.view.live.names.enter(org, class));
        }
    }
}

fn panicked() -> Refusal {
    Refusal::new(Reason::Internal, "The gateway failed while it handled this request.")
}

fn refused(refusal: &Refusal, watch: &Watch) -> Response<Bytes> {
    let outcome = watch.record.lock();
    let live = &watch.view.live;
    let context = refuse::RefusalContext {
        org: outcome.org.and_then(|org| live.org(org)).map(|org| org.name.as_str()),
        caller: outcome.caller.and_then(|caller| live.caller(caller)).map(|caller| caller.name.as_str()),
        request: outcome.id,
    };
    refuse::render(refusal, Shape::of(outcome.family, outcome.wants), &context)
}

/// Adds what the gateway says about every answer.
fn stamp(response: &mut Reply, outcome: &mut Outcome) {
    match response.body_mut().written() {
        Some(written) => written.make(&REQUEST_ID, |value| {
            value.id(outcome.id);
        }),
        None => drop(response.headers_mut().insert(REQUEST_ID, outcome.id_header())),
    }
    tell(response, COST, cost(outcome.charged().0));
    if let Some(queued) = outcome.queued
        && let Ok(value) = HeaderValue::try_from(format!("queue;dur={:.3}", queued.wait.as_secs_f64() * 1_000.0))
    {
        tell(response, SERVER_TIMING, value);
    }
    if outcome.unknown {
        tell(response, refuse::OUTCOME, HeaderValue::from_static("unknown"));
    }
    if let Some(failures) = &outcome.failures
        && let Ok(value) = HeaderValue::try_from(format!("{}/{}", failures.failed, failures.total))
    {
        tell(response, PARTIAL_FAILURES, value);
    }
    if outcome.saved > 0 {
        tell(response, SAVED, cost(outcome.saved));
    }
    if let Some(exchange) = outcome.exchanges.last()
        && let Some(head) = exchange.head
    {
        let upstream = head.saturating_duration_since(exchange.sent);
        let mut room = [0; TIMING_BYTES];
        if let Ok(value) = HeaderValue::from_bytes(timing(upstream, &mut room)) {
            tell(response, SERVER_TIMING, value);
        }
    }
}

/// Adds a field in the place of any other of its name; Salesforce's own timing, if it sends any, stays.
fn tell(response: &mut Reply, name: HeaderName, value: HeaderValue) {
    if let Some(written) = response.body_mut().written() {
        written.add(&name, &value);
    } else if name == SERVER_TIMING {
        response.headers_mut().append(name, value);
    } else {
        response.headers_mut().insert(name, value);
    }
}

/// The usual costs need no allocation.
fn cost(calls: u32) -> HeaderValue {
    match calls {
        0 => HeaderValue::from_static("0"),
        1 => HeaderValue::from_static("1"),
        more => HeaderValue::from(more),
    }
}

const TIMING: &[u8] = b"upstream;dur=";
/// `TIMING`, the 20 digits a `u64` may have, and the point.
const TIMING_BYTES: usize = TIMING.len() + 21;

/// `upstream;dur=12.345`: milliseconds with three decimals, at the end of `room`.
fn timing(upstream: Duration, room: &mut [u8; TIMING_BYTES]) -> &[u8] {
    let mut left = u64::try_from(upstream.as_micros()).unwrap_or(u64::MAX);
    let mut start = TIMING_BYTES;
    let mut put = |byte: u8| {
        start -= 1;
        if let Some(place) = room.get_mut(start) {
            *place = byte;
        }
    };
    for _ in 0..3 {
        put(b'0' + (left % 10) as u8);
        left /= 10;
    }
    put(b'.');
    loop {
        put(b'0' + (left % 10) as u8);
        left /= 10;
        if left == 0 {
            break;
        }
    }
    TIMING.iter().rev().for_each(|byte| put(*byte));
    room.get(start..).unwrap_or_default()
}

/// An answer's body, watched to its last byte.
#[derive(Debug)]
pub struct ObservedBody {
    body: ReplyBody<Answer>,
    watch: Watch,
}

impl Body for ObservedBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.watch.record.lock().bytes_out += data.len() as u64;
                }
                if this.body.is_end_stream() {
                    this.watch.finish(Ending::Complete);
                }
            }
            Some(Err(_)) => this.watch.finish(Ending::Cut),
            None => this.watch.finish(Ending::Complete),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Brings for ObservedBody {
    fn brings(&self) -> Option<&Written> {
        self.body.brings()
    }
}

impl Drop for ObservedBody {
    fn drop(&mut self) {
        // A body that has nothing (more) to send is not polled to its end: HEAD, 204, 304, an exact length reached.
        if self.body.is_end_stream() {
            self.watch.finish(Ending::Complete);
        }
    }
}

#[cfg(test)]
mod tests {
    use arc_swap::ArcSwap;
    use zeroize::Zeroizing;

    use super::*;
    use crate::config::Config;
    use crate::edge::{Connection, Inbound};
    use crate::ledgers::Ledgers;
    use crate::live::Lasting;
    use crate::telemetry::{Log, Telemetry, TelemetryOptions};

    #[test]
    fn timings_are_milliseconds_with_three_decimals() {
        for (micros, text) in [
            (0, "0.000"),
            (7, "0.007"),
            (1_000, "1.000"),
            (12_345, "12.345"),
            (600_000_001, "600000.001"),
            (u64::MAX, "18446744073709551.615"),
        ] {
            let mut room = [0; TIMING_BYTES];
            let value = timing(Duration::from_micros(micros), &mut room);
            assert_eq!(std::str::from_utf8(value).unwrap(), format!("upstream;dur={text}"));
        }
    }

    #[tokio::test]
    async fn a_panic_is_answered_like_any_other_failure_and_counted() {
        let clock = Clock::start();
        let (log, memory) = Log::in_memory(clock, 1 << 20);
        let telemetry = Telemetry::new(clock, log, TelemetryOptions::default());
        let config = Config::for_org(
            "https://acme.my.salesforce.com",
            ([127, 0, 0, 1], 8080).into(),
            ([127, 0, 0, 1], 9090).into(),
        )
        .unwrap();
        let lasting = Lasting {
            telemetry: telemetry.clone(),
            ledgers: Ledgers::forgetful(clock, telemetry.log().clone()),
            answers: crate::answers::Answers::new(clock),
            made_up_key: Zeroizing::new([7; 32]),
            shelves: None,
            dial: None,
            clock,
        };
        let live = Live::new(Arc::new(config), &lasting, None).unwrap();
        let layer = ObserveLayer {
            in_force: Arc::new(ArcSwap::from_pointee(live)),
            recorder: Arc::new(telemetry.recorder()),
            clock,
            ids: Arc::new(RequestIds::new(1)),
        };
        let mut stage = layer.layer(tower::service_fn(|seen: Seen| async move {
            assert!(seen.head.headers.is_empty(), "meant to");
            Err(panicked())
        }));
        let request = http::Request::get("/services/data/v62.0/limits").header("accept", "*/*").body(()).unwrap();
        let arrival = Arrival {
            head: request.into_parts().0,
            body: Inbound::whole(Bytes::new(), clock),
            connection: Arc::new(Connection::new(([127, 0, 0, 1], 1).into(), 0)),
        };
        let Ok(response) = stage.call(arrival).await;
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()["weirkeeper-refused"], "internal");
        drop(response);
        assert!(memory.text().contains("\"refusal\":\"internal\""), "{}", memory.text());
    }
}
