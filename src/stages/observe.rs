//! Observe: owns the record of a request, from its head to its last byte or its caller's departure.
//!
//! It is the outermost stage: it turns a refusal into an answer, adds the gateway's own response headers, and hands the
//! finished [`Outcome`] to the telemetry, whatever way the request ends.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::HeaderName;
use http::{HeaderValue, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::body::{BodyFault, ReplyBody};
use crate::clock::Clock;
use crate::edge::connection::Arrival;
use crate::edge::refuse::{self, Shape};
use crate::exchange::upstream::UpstreamBody;
use crate::live::{InForce, Live};
use crate::outcome::{Ending, Outcome, Record, RequestId, Source};
use crate::refusal::Refusal;
use crate::stages::{Reply, Seen};
use crate::telemetry::Recorder;

const REQUEST_ID: HeaderName = HeaderName::from_static("weirkeeper-request-id");
const COST: HeaderName = HeaderName::from_static("weirkeeper-cost");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Status of a request whose caller left before the end of its answer.
const CALLER_LEFT: u16 = 499;

/// Makes request ids that are unique for this process and, almost surely, across processes.
#[derive(Debug)]
pub struct RequestIds {
    prefix: u64,
    next: AtomicU64,
}

impl RequestIds {
    /// Ids that start with `prefix`, which should be random.
    pub fn new(prefix: u64) -> Self {
        Self { prefix, next: AtomicU64::new(1) }
    }

    /// The next id.
    pub fn next(&self) -> RequestId {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        RequestId(u128::from(self.prefix) << 64 | u128::from(count))
    }
}

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
        Observe { inner, with: self.clone() }
    }
}

/// The stage.
#[derive(Debug, Clone)]
pub struct Observe<S> {
    inner: S,
    with: ObserveLayer,
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
        let now = self.with.clock.now();
        let live = self.with.in_force.load_full();
        let id = self.with.ids.next();
        let mut outcome = Outcome::new(id, now, arrival.head.method.clone());
        outcome.http2 = arrival.head.version == http::Version::HTTP_2;
        let record = Record::new(outcome);
        self.with.recorder.started();
        let watch = Watch {
            record: record.clone(),
            recorder: Arc::clone(&self.with.recorder),
            clock: self.with.clock,
            live: Arc::clone(&live),
            finished: false,
        };
        let wants = refuse::Wants::of(&arrival.head);
        let seen = Seen { head: arrival.head, body: arrival.body, connection: arrival.connection, live, record, now };
        Observing { inner: self.inner.call(seen), watch: Some(watch), wants }
    }
}

/// Holds the record until the end, and finishes it exactly once: also when it is dropped.
#[derive(Debug)]
struct Watch {
    record: Record,
    recorder: Arc<Recorder>,
    clock: Clock,
    live: Arc<Live>,
    finished: bool,
}

impl Watch {
    fn finish(&mut self, ending: Ending) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let mut outcome = self.record.lock();
        outcome.ending = ending;
        outcome.ended = Some(self.clock.now());
        if ending == Ending::CallerLeft {
            outcome.status = CALLER_LEFT;
        }
        self.recorder.finish(&outcome);
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
        inner: F,
        watch: Option<Watch>,
        wants: refuse::Wants,
    }
}

impl<F> Future for Observing<F>
where
    F: Future<Output = Result<Reply, Refusal>>,
{
    type Output = Result<Response<ObservedBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        let Some(watch) = this.watch.take() else { return Poll::Pending };
        let (mut response, source) = match result {
            Ok(reply) => (reply, None),
            Err(refusal) => {
                let rendered = refused(&refusal, *this.wants, &watch);
                (rendered.map(ReplyBody::Whole), Some(refusal.reason))
            }
        };
        {
            let mut outcome = watch.record.lock();
            outcome.status = response.status().as_u16();
            outcome.answered = Some(watch.clock.now());
            outcome.refusal = source;
            if source.is_none() && !outcome.exchanges.is_empty() {
                outcome.source = Source::Upstream;
            }
            stamp(response.headers_mut(), &outcome);
        }
        Poll::Ready(Ok(response.map(|body| ObservedBody { body, watch })))
    }
}

fn refused(refusal: &Refusal, wants: refuse::Wants, watch: &Watch) -> Response<Bytes> {
    let outcome = watch.record.lock();
    let context = refuse::RefusalContext {
        org: outcome.org.and_then(|org| watch.live.org(org)).map(|org| org.name.as_str()),
        caller: outcome.caller.and_then(|caller| watch.live.caller(caller)).map(|caller| caller.name.as_str()),
        request_id: outcome.id,
    };
    refuse::render(refusal, Shape::of(outcome.family, wants), &context)
}

/// Adds what the gateway says about every answer.
fn stamp(headers: &mut http::HeaderMap, outcome: &Outcome) {
    if let Ok(id) = HeaderValue::from_bytes(&outcome.id.hex()) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(COST, HeaderValue::from(outcome.charged().0));
    if let Some(exchange) = outcome.exchanges.last()
        && let Some(head) = exchange.head
    {
        let upstream = head.saturating_duration_since(exchange.sent);
        let text = format!("upstream;dur={}.{:03}", upstream.as_millis(), upstream.as_micros() % 1_000);
        if let Ok(value) = HeaderValue::try_from(text) {
            // Salesforce's own timing, if it sends any, stays.
            headers.append(SERVER_TIMING, value);
        }
    }
}

/// An answer's body, watched to its last byte.
#[derive(Debug)]
pub struct ObservedBody {
    body: ReplyBody<UpstreamBody>,
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

impl Drop for ObservedBody {
    fn drop(&mut self) {
        // A body that has nothing (more) to send is not polled to its end: HEAD, 204, 304, an exact length reached.
        if self.body.is_end_stream() {
            self.watch.finish(Ending::Complete);
        }
    }
}
