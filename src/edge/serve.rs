//! Drives one connection from its first byte to its close.
//!
//! ```text
//! wait for a head -> HTTP/1: the road, its answer -> wait again
//!                 -> fault: write the refusal, linger, close
//!                 -> HTTP/2
//! ```

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::edge::adapter::EdgeService;
use crate::edge::connection::{Arrival, Connection};
use crate::edge::fault::Fault;
use crate::edge::http1::{self, Asked, Conn, Head, Next, Sent};
use crate::edge::http2;
use crate::edge::limits::Edge;
use crate::edge::refuse::{self, RefusalContext, Shape};
use crate::outcome::RequestId;
use crate::written::Brings as _;

/// Bytes read and thrown away after an answer that ends a connection, so that the caller gets to read it.
const LINGER_BYTES: usize = 1024 * 1024;

/// Serves one connection to its end: HTTP/2 if TLS agreed on it or a plain connection opens with its preface,
/// else HTTP/1. `service` must be ready at all times: it is called for each request without being polled for readiness.
/// Returns when the connection is closed.
pub async fn serve<IO, S>(io: IO, connection: Arc<Connection>, mut service: S, edge: Arc<Edge>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: EdgeService,
{
    if connection.http2() {
        // Boxed: its state is many times that of HTTP/1, and a connection's task is as large as its largest state.
        return Box::pin(http2::serve(io, Bytes::new(), connection, service, edge)).await;
    }
    let mut timer = pin!(tokio::time::sleep(edge.limits.head_time));
    let mut drained = pin!(edge.drain.listen());
    let mut conn = Conn::new(io, Arc::clone(&edge), !connection.secure);
    loop {
        let next = poll_fn(|cx| conn.poll_next(cx, timer.as_mut(), drained.as_mut())).await;
        let head = match next {
            Next::Head(head) => head,
            Next::Http2 => {
                let (io, read) = conn.into_parts();
                return Box::pin(http2::serve(io, read, connection, service, edge)).await;
            }
            Next::Fault(fault) => return refuse_and_close(conn.into_parts().0, fault, &edge).await,
            Next::Over => return close(conn.into_parts().0, &edge).await,
            Next::Gone => return,
        };
        let Head { parts, framing, keep_alive, expects } = head;
        let asked = Asked::new(&parts.method, parts.version);
        let body = conn.body(framing, keep_alive, expects);
        let arrival = Arrival { head: parts, body, connection: Arc::clone(&connection) };
        // Boxed, so that an idle connection does not keep room for it.
        let mut road = Box::pin(service.call(arrival));
        let answered = poll_fn(|cx| conn.poll_answer(cx, road.as_mut(), timer.as_mut())).await;
        drop(road);
        let Some(Ok(response)) = answered else { return };
        conn.begin(&response, response.body().brings(), asked);
        let mut body = pin!(Some(response.into_body()));
        match poll_fn(|cx| conn.poll_send(cx, body.as_mut(), timer.as_mut())).await {
            Sent::Whole if conn.keeps() => {}
            Sent::Whole => return close(conn.into_parts().0, &edge).await,
            Sent::Gone => return,
            Sent::SlowReader => {
                edge.counts.slow_readers.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }
}

/// Writes the refusal for a request that could not be read, and closes.
pub(super) async fn refuse_and_close<IO: AsyncRead + AsyncWrite + Unpin>(mut io: IO, fault: Fault, edge: &Edge) {
    edge.counts.refuse(fault.reason());
    let response = refusal(fault);
    let bytes = http1::last(&response, edge.clock.system_time());
    let write = async {
        io.write_all(&bytes).await?;
        io.flush().await
    };
    if matches!(tokio::time::timeout(edge.limits.head_time, write).await, Ok(Ok(()))) {
        close(io, edge).await;
    }
}

pub(super) fn refusal(fault: Fault) -> Response<Bytes> {
    let context = RefusalContext { request: RequestId(fastrand::u128(..)), ..RefusalContext::default() };
    refuse::render(&fault.refusal(), Shape::Json, &context)
}

/// Closes our side, then reads on for a while: closing a socket with unread input would make the system throw away the
/// answer it still has to send.
pub(super) async fn close<IO: AsyncRead + AsyncWrite + Unpin>(mut io: IO, edge: &Edge) {
    let lingering = async {
        if io.shutdown().await.is_err() {
            return;
        }
        let mut scratch = [0; 1024];
        let mut left = LINGER_BYTES;
        while let Ok(count @ 1..) = io.read(&mut scratch).await {
            left = left.saturating_sub(count);
            if left == 0 {
                return;
            }
        }
    };
    let patience =
        if edge.drain.begun() { edge.limits.linger.min(Duration::from_millis(500)) } else { edge.limits.linger };
    let _ = tokio::time::timeout(patience, lingering).await;
}

#[cfg(test)]
pub(super) mod rig;
#[cfg(test)]
mod tests;
