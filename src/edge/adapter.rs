//! Between hyper and the road: one small boxed future for each request, and the count of what is in service.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use pin_project_lite::pin_project;

use crate::body::BodyFault;
use crate::clock::Clock;
use crate::edge::connection::{Arrival, Connection};
use crate::edge::framing::Fault;
use crate::edge::inbound::Inbound;
use crate::edge::limits::Edge;
use crate::edge::pace::Pace;
use crate::edge::serve::refusal;

/// What the edge hands requests to. Implemented by every fitting [`tower::Service`].
pub trait EdgeService:
    tower::Service<Arrival, Response = Response<Self::Body>, Error = Infallible, Future: Send + 'static>
    + Clone
    + Send
    + 'static
{
    /// The body of its answers.
    type Body: Body<Data = Bytes, Error = BodyFault> + Send + 'static;
}

impl<S, B> EdgeService for S
where
    S: tower::Service<Arrival, Response = Response<B>, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + 'static,
    B: Body<Data = Bytes, Error = BodyFault> + Send + 'static,
{
    type Body = B;
}

/// Hands hyper's requests to the service.
pub(super) struct Adapter<S> {
    service: S,
    connection: Arc<Connection>,
    edge: Arc<Edge>,
}

impl<S> Adapter<S> {
    pub(super) fn new(service: S, connection: Arc<Connection>, edge: Arc<Edge>) -> Self {
        Self { service, connection, edge }
    }
}

// Nothing in it is ever pinned.
impl<S> Unpin for Adapter<S> {}

impl<S: EdgeService> hyper::service::Service<Request<Incoming>> for Adapter<S> {
    type Response = Response<Answer<S::Body>>;
    type Error = Infallible;
    type Future = Answering<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        // Nothing is ever upgraded.
        head.extensions.clear();
        let (in_service, http2) = InService::begin(&self.connection, self.edge.clock);
        if http2 && let Some(fault) = http2_fault(&head, &self.edge) {
            self.edge.counts.refuse(fault.reason());
            return Answering::Refused(Some((refusal(fault), in_service)));
        }
        let body = Inbound::from_peer(body, self.edge.limits.body_bytes, self.edge.rate(), self.edge.clock);
        let arrival = Arrival { head, body, connection: Arc::clone(&self.connection) };
        let future = Box::pin(self.service.clone().call(arrival));
        Answering::Serving { future, in_service: Some(in_service) }
    }
}

/// What the framing guard checks on HTTP/1 and h2 does not.
fn http2_fault(head: &http::request::Parts, edge: &Edge) -> Option<Fault> {
    if head.headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Some(Fault::TwoLengths);
    }
    if head.headers.len() > edge.limits.head_count {
        return Some(Fault::TooManyHeaders);
    }
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target > edge.limits.head_bytes {
        return Some(Fault::UriTooLong);
    }
    let fields: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    (target + fields > edge.limits.head_bytes).then_some(Fault::HeadTooLarge)
}

/// One request in service, from its head to the last byte of its answer.
#[derive(Debug)]
pub(super) struct InService {
    connection: Arc<Connection>,
    clock: Clock,
    /// How fast the peer takes this answer; for HTTP/1 the connection's own pace says that.
    pace: Option<Arc<Mutex<Pace>>>,
}

impl InService {
    fn begin(connection: &Arc<Connection>, clock: Clock) -> (Self, bool) {
        let mut wire = connection.wire.lock();
        wire.in_service += 1;
        wire.idle_since = None;
        let pace = if wire.http2 {
            let pace = Arc::new(Mutex::new(Pace::new()));
            wire.stream_pace = Some(Arc::clone(&pace));
            Some(pace)
        } else {
            wire.calls = wire.calls.wrapping_add(1);
            None
        };
        let http2 = wire.http2;
        drop(wire);
        (Self { connection: Arc::clone(connection), clock, pace }, http2)
    }
}

impl InService {
    /// Whether the request's body is still under way, or broken.
    fn body_is_open(&self) -> bool {
        let wire = self.connection.wire.lock();
        !wire.http2 && wire.in_body
    }
}

impl Drop for InService {
    fn drop(&mut self) {
        let mut wire = self.connection.wire.lock();
        wire.in_service = wire.in_service.saturating_sub(1);
        if wire.head_since.is_some() {
            wire.answered = Some(self.clock.now());
        }
    }
}

/// The answer to one request, under way.
pub(super) enum Answering<F> {
    /// The road works on it.
    Serving { future: Pin<Box<F>>, in_service: Option<InService> },
    /// It was refused here.
    Refused(Option<(Response<Bytes>, InService)>),
}

impl<F, B> Future for Answering<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<Answer<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Serving { future, in_service } => {
                let Ok(mut response) = ready!(future.as_mut().poll(cx));
                let in_service = in_service.take();
                if in_service.as_ref().is_some_and(InService::body_is_open) {
                    // hyper closes a connection whose body nobody read to its end, but does not say so.
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Poll::Ready(Ok(response.map(|body| Answer { kind: Kind::Road { body }, in_service, fault: None })))
            }
            Self::Refused(refused) => match refused.take() {
                Some((response, in_service)) => Poll::Ready(Ok(response.map(|bytes| Answer {
                    kind: Kind::Own { bytes },
                    in_service: Some(in_service),
                    fault: None,
                }))),
                None => Poll::Pending,
            },
        }
    }
}

pin_project! {
    /// The body of an answer; its request is in service until this is dropped.
    pub(super) struct Answer<B> {
        #[pin]
        kind: Kind<B>,
        in_service: Option<InService>,
        // How the body failed; told one poll later.
        fault: Option<BodyFault>,
    }
}

pin_project! {
    #[project = KindProjection]
    enum Kind<B> {
        Road { #[pin] body: B },
        Own { bytes: Bytes },
    }
}

impl<B> Body for Answer<B>
where
    B: Body<Data = Bytes, Error = BodyFault>,
{
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let this = self.project();
        if let Some(fault) = this.fault.take() {
            return Poll::Ready(Some(Err(fault)));
        }
        let paced = this.in_service.as_ref().and_then(|in_service| Some((in_service.pace.as_ref()?, in_service.clock)));
        if let Some((pace, clock)) = paced {
            // Being polled means that the peer has room for more.
            pace.lock().resume(clock.now());
        }
        let frame = match this.kind.project() {
            KindProjection::Road { body } => match ready!(body.poll_frame(cx)) {
                Some(Err(fault)) => {
                    // hyper drops what it has not flushed when a body fails: let it flush first, so that the caller sees
                    // an answer cut short, not none.
                    *this.fault = Some(fault);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                frame => frame,
            },
            KindProjection::Own { bytes } if bytes.is_empty() => None,
            KindProjection::Own { bytes } => Some(Ok(Frame::data(std::mem::take(bytes)))),
        };
        if let Some((pace, clock)) = paced
            && let Some(Ok(frame)) = &frame
        {
            let mut pace = pace.lock();
            pace.moved(frame.data_ref().map_or(0, |data| data.len() as u64));
            pace.wait(clock.now());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Road { body } => self.fault.is_none() && body.is_end_stream(),
            Kind::Own { bytes } => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Road { body } => body.size_hint(),
            Kind::Own { bytes } => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}
