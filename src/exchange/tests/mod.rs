//! Calls end to end, against origins inside the test and on its own clock.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bodies;
mod faults;
mod http2;
mod leaving;
mod pool;
mod secure;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;

use super::{Connector, Failure, Limits, OrgStats, Origin, Plan, Target, Timeouts, Upstream, UpstreamBody};
use crate::body::{BodyFault, ByteBudget, Payload};
use crate::call::{ApiCalls, OrgId};
use crate::clock::Clock;
use crate::outcome::{Exchange, Outcome, Record, RequestId};
use crate::tasks::Tasks;

/// A request body whose pieces the test sends.
#[derive(Debug)]
pub(super) struct Pieces(pub(super) mpsc::Receiver<Result<Bytes, BodyFault>>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

pub(super) type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// One gateway runtime and the org it calls.
pub(super) struct World {
    pub(super) upstream: Upstream<Pieces>,
    pub(super) tasks: Tasks,
    pub(super) budget: ByteBudget,
    pub(super) clock: Clock,
    pub(super) plan: Plan,
    connections: Arc<AtomicUsize>,
}

pub(super) const ORG: OrgId = OrgId(0);
pub(super) const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

impl World {
    /// An org whose `n`th connection (from 0) is served by `serve`.
    pub(super) fn new<F>(limits: Limits, serve: impl Fn(usize, DuplexStream) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::at("http://acme.test", limits, |connector| connector, serve)
    }

    pub(super) fn at<F>(
        origin: &str,
        limits: Limits,
        set_up: impl FnOnce(Connector) -> Connector,
        serve: impl Fn(usize, DuplexStream) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (clock, tasks, budget) = (Clock::start(), Tasks::new(), ByteBudget::new(1 << 20));
        let connections = Arc::new(AtomicUsize::new(0));
        let (count, spawner, serve) = (Arc::clone(&connections), tasks.clone(), Arc::new(serve));
        let dial = Arc::new(move || {
            let (ours, theirs) = tokio::io::duplex(64 * 1_024);
            let serving = serve(count.fetch_add(1, Ordering::SeqCst), theirs);
            spawner.spawn_background(serving);
            let connected: Boxed<io::Result<DuplexStream>> = Box::pin(async move { Ok(ours) });
            connected
        });
        let target =
            Target { origin: Origin::parse(origin).unwrap(), connector: set_up(Connector::memory(dial)), limits };
        let upstream = Upstream::new([target], clock, &tasks, &budget);
        let plan = Plan {
            org: ORG,
            now: clock.now(),
            cost: ApiCalls(1),
            costs: crate::salesforce::Costs::default(),
            timeouts: Timeouts::default(),
            deadline: None,
            read_ahead: 256 * 1_024,
            long_poll: false,
        };
        Self { upstream, tasks, budget, clock, plan, connections }
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(super) fn stats(&self) -> OrgStats {
        self.upstream.stats(ORG).unwrap()
    }

    pub(super) fn plan(&self) -> Plan {
        Plan { now: self.clock.now(), ..self.plan }
    }

    pub(super) fn record(&self) -> Record {
        Record::new(Outcome::new(RequestId(1), self.clock.now(), Method::GET))
    }

    pub(super) async fn send(
        &self,
        request: Request<Payload<Pieces>>,
        record: &Record,
    ) -> Result<Response<UpstreamBody>, Failure> {
        self.upstream.send(request, &self.plan(), record).await
    }

    /// Status and body of a GET; no body if it broke off.
    pub(super) async fn get(&self) -> Result<(u16, Option<Bytes>), Failure> {
        self.call(get()).await
    }

    pub(super) async fn call(&self, request: Request<Payload<Pieces>>) -> Result<(u16, Option<Bytes>), Failure> {
        let response = self.send(request, &self.record()).await?;
        let status = response.status().as_u16();
        Ok((status, response.into_body().collect().await.ok().map(http_body_util::Collected::to_bytes)))
    }

    /// Everything lent has been given back, once what is under way has ended and idle connections have grown old.
    pub(super) async fn assert_settled(&self) {
        self.tasks.idle().await;
        // A connection that is cut ends when the runtime comes to it.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let stats = self.stats();
        assert_eq!((stats.abandoned_running, stats.waiting), (0, 0), "{stats:?}");
        assert_eq!(stats.open, stats.idle, "a connection is neither idle nor lent: {stats:?}");
        assert_eq!(self.budget.used(), 0);
        tokio::time::sleep(Duration::from_hours(1)).await;
        assert_eq!((self.stats().open, self.stats().idle), (0, 0));
    }
}

pub(super) fn get() -> Request<Payload<Pieces>> {
    Request::get("/services/data/").body(Payload::Empty).unwrap()
}

pub(super) fn post(body: &'static str) -> Request<Payload<Pieces>> {
    let body = Payload::Whole(Bytes::from_static(body.as_bytes()), None);
    Request::post("/services/data/v62.0/sobjects/Account").body(body).unwrap()
}

/// A streamed POST, and where to send its pieces.
pub(super) fn upload() -> (mpsc::Sender<Result<Bytes, BodyFault>>, Request<Payload<Pieces>>) {
    let (pieces, body) = mpsc::channel(4);
    (pieces, Request::put("/services/data/v62.0/jobs/ingest/1/batches").body(Payload::Stream(Pieces(body))).unwrap())
}

/// Reads one request, whatever its framing; `None` if the connection ends before its end.
pub(super) async fn read_request(io: &mut DuplexStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        if let Some(head) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
            let length =
                text.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
            let done = if text.contains("transfer-encoding: chunked") {
                bytes.ends_with(b"0\r\n\r\n")
            } else {
                bytes.len() >= head + 4 + length.unwrap_or(0)
            };
            if done {
                return Some(bytes);
            }
        }
        if io.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// Answers every request with `answer`.
pub(super) async fn answer_all(mut io: DuplexStream, answer: &'static [u8]) {
    while read_request(&mut io).await.is_some() {
        if io.write_all(answer).await.is_err() {
            return;
        }
    }
}

/// The attempts written down in `record`.
pub(super) fn attempts(record: &Record) -> Vec<Exchange> {
    record.lock().exchanges.to_vec()
}

/// Polls `future` until it is done, at most `polls` times, then drops it: its caller has left.
pub(super) async fn leave_after<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut left = polls;
    std::future::poll_fn(move |cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
