//! Between hyper's HTTP/2 and the road: one small boxed future for each request, and the count of what is in service.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use pin_project_lite::pin_project;

use crate::body::BodyFault;
use crate::clock::Clock;
use crate::edge::connection::{Arrival, Connection};
use crate::edge::fault::Fault;
use crate::edge::inbound::Inbound;
use crate::edge::limits::Edge;
use crate::edge::pace::Pace;
use crate::edge::serve::refusal;
use crate::edge::wire::Wire;
use crate::written::Brings;

/// What the edge hands requests to. Implemented by every fitting [`tower::Service`].
pub trait EdgeService:
    tower::Service<Arrival, Response = Response<Self::Body>, Error = Infallible, Future: Send + 'static>
    + Clone
    + Send
    + 'static
{
    /// The body of its answers.
    type Body: Body<Data = Bytes, Error = BodyFault> + Brings + Send + 'static;
}

impl<S, B> EdgeService for S
where
    S: tower::Service<Arrival, Response = Response<B>, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + 'static,
    B: Body<Data = Bytes, Error = BodyFault> + Brings + Send + 'static,
{
    type Body = B;
}

/// Hands hyper's requests to the service.
pub(super) struct Adapter<S> {
    service: S,
    connection: Arc<Connection>,
    wire: Arc<Mutex<Wire>>,
    edge: Arc<Edge>,
}

impl<S> Adapter<S> {
    pub(super) fn new(service: S, connection: Arc<Connection>, wire: Arc<Mutex<Wire>>, edge: Arc<Edge>) -> Self {
        Self { service, connection, wire, edge }
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
        let in_service = InService::begin(&self.wire, self.edge.clock);
        if let Some(fault) = fault_of(&head, &self.edge) {
            self.edge.counts.refuse(fault.reason());
            return Answering::Refused(Some((refusal(fault), in_service)));
        }
        let body = Inbound::from_stream(body, self.edge.limits.body_bytes, self.edge.rate(), self.edge.clock);
        let arrival = Arrival { head, body, connection: Arc::clone(&self.connection) };
        let future = Box::pin(self.service.clone().call(arrival));
        Answering::Serving { future, in_service: Some(in_service) }
    }
}

/// What is checked on HTTP/1 and h2 does not check.
fn fault_of(head: &http::request::Parts, edge: &Edge) -> Option<Fault> {
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
    wire: Arc<Mutex<Wire>>,
    clock: Clock,
    /// How fast the peer takes this answer.
    pace: Arc<Mutex<Pace>>,
}

impl InService {
    fn begin(wire: &Arc<Mutex<Wire>>, clock: Clock) -> Self {
        let pace = Arc::new(Mutex::new(Pace::new()));
        let mut state = wire.lock();
        state.in_service += 1;
        state.idle_since = None;
        state.stream_pace = Some(Arc::clone(&pace));
        drop(state);
        Self { wire: Arc::clone(wire), clock, pace }
    }
}

impl Drop for InService {
    fn drop(&mut self) {
        let mut wire = self.wire.lock();
        wire.in_service = wire.in_service.saturating_sub(1);
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
    B: Brings,
{
    type Output = Result<Response<Answer<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Serving { future, in_service } => {
                let Ok(mut response) = ready!(future.as_mut().poll(cx));
                if let Some(written) = response.body().brings().cloned() {
                    // In the order in which HTTP/1 has them.
                    let later = std::mem::take(response.headers_mut());
                    written.add_to(response.headers_mut());
                    for (name, value) in &later {
                        response.headers_mut().append(name, value.clone());
                    }
                }
                let in_service = in_service.take();
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
        let paced = this.in_service.as_ref().map(|in_service| (&in_service.pace, in_service.clock));
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
