//! A connection in memory, served by a small road of its own, for tests.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::body::{BodyFault, ByteBudget, ReplyBody};
use crate::clock::Clock;
use crate::edge::connection::{Arrival, Connection};
use crate::edge::drain::Drain;
use crate::edge::limits::{Counts, Edge, Limits};
use crate::edge::refuse::{RefusalContext, Shape, render};
use crate::tasks::Tasks;

/// What happens to requests, counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Road {
    /// Requests that arrived.
    pub(crate) calls: Arc<AtomicUsize>,
    /// Requests that are being worked on.
    pub(crate) working: Arc<AtomicUsize>,
}

struct Working(Arc<AtomicUsize>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// `left` chunks of 16 KiB.
#[derive(Debug)]
pub(crate) struct Flood {
    left: usize,
    cut: bool,
}

impl Body for Flood {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        if self.left == 0 {
            return Poll::Ready(self.cut.then_some(Err(BodyFault::Gone)));
        }
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 16 * 1024])))))
    }
}

type Answer = Response<ReplyBody<Flood>>;

impl tower::Service<Arrival> for Road {
    type Response = Answer;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, arrival: Arrival) -> Self::Future {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.working.fetch_add(1, Ordering::Relaxed);
        let working = Working(Arc::clone(&self.working));
        Box::pin(async move {
            let _working = working;
            Ok(answer(arrival).await)
        })
    }
}

async fn answer(arrival: Arrival) -> Answer {
    let text = |text: &'static str| Response::new(ReplyBody::Whole(Bytes::from_static(text.as_bytes())));
    match arrival.head.uri.path() {
        "/echo" => match arrival.body.collect_whole(&ByteBudget::new(1 << 20), 1 << 20).await {
            Ok((bytes, _held)) => Response::new(ReplyBody::Whole(bytes)),
            Err(refusal) => render(&refusal, Shape::Json, &RefusalContext::default()).map(ReplyBody::Whole),
        },
        "/slow" => {
            tokio::time::sleep(Duration::from_mins(1)).await;
            text("slow")
        }
        "/flood" => Response::new(ReplyBody::Stream(Flood { left: 1_000, cut: false })),
        "/cut" => Response::new(ReplyBody::Stream(Flood { left: 2, cut: true })),
        "/unread" => {
            let mut refused = text("no");
            *refused.status_mut() = http::StatusCode::FORBIDDEN;
            refused
        }
        _ => text("ok"),
    }
}

/// One runtime's edge.
pub(crate) struct Rig {
    pub(crate) edge: Arc<Edge>,
    pub(crate) road: Road,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        let edge = Edge::new(limits, Tasks::new(), Clock::start(), Drain::new(), Arc::new(Counts::default()));
        Self { edge: Arc::new(edge), road: Road::default() }
    }

    /// Opens a connection through a pipe of 64 KiB.
    pub(crate) fn open(&self) -> DuplexStream {
        self.open_as(Connection::new(([192, 0, 2, 1], 1).into(), 0))
    }

    pub(crate) fn open_as(&self, connection: Connection) -> DuplexStream {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let edge = Arc::clone(&self.edge);
        self.edge.tasks.spawn(super::serve(far, Arc::new(connection), self.road.clone(), edge));
        near
    }

    /// Sends `input`, then reads until the gateway closes.
    pub(crate) async fn ask(&self, input: impl AsRef<[u8]>) -> String {
        let mut stream = self.open();
        stream.write_all(input.as_ref()).await.unwrap();
        read_all(&mut stream).await
    }

    pub(crate) fn calls(&self) -> usize {
        self.road.calls.load(Ordering::Relaxed)
    }

    pub(crate) fn working(&self) -> usize {
        self.road.working.load(Ordering::Relaxed)
    }
}

/// Everything until the gateway closes.
pub(crate) async fn read_all(stream: &mut DuplexStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads until `end` has come.
pub(crate) async fn read_until(stream: &mut DuplexStream, end: &str) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        let Ok(byte) = stream.read_u8().await else { break };
        bytes.push(byte);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Checks that `text` is one refusal as Salesforce would word it, and returns its body.
#[track_caller]
pub(crate) fn refusal_in(text: &str, status: u16, reason: &str) -> serde_json::Value {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    let lower = head.to_ascii_lowercase();
    assert!(lower.contains("content-type: application/json;charset=utf-8"), "{head}");
    assert!(lower.contains(&format!("weirkeeper-refused: {reason}")), "{head}");
    assert!(lower.contains("connection: close"), "{head}");
    assert!(lower.contains(&format!("content-length: {}", body.len())), "{head}\n{body}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("not JSON: {body:?}"));
    assert_eq!(body[0]["gateway"]["reason"], reason);
    assert!(body[0]["message"].as_str().is_some_and(|message| message.ends_with('.')));
    body
}
