//! Drives one connection from its first byte to its close.
//!
//! ```text
//! wait for bytes -> HTTP/1 (guarded) -> idle: give buffers back, wait again
//!                |                  -> fault: write the refusal, linger, close
//!                -> HTTP/2
//! ```

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::edge::adapter::{Adapter, EdgeService};
use crate::edge::connection::Connection;
use crate::edge::framing::{Fault, Guard, HeadLimits};
use crate::edge::http2;
use crate::edge::limits::Edge;
use crate::edge::refuse::{self, RefusalContext, Shape};
use crate::edge::wire::{BUFFER, Guarded, PREFACE, Place, Prefix, Wire};
use crate::outcome::RequestId;

/// Bytes read and thrown away after an answer that ends a connection, so that the caller gets to read it.
const LINGER_BYTES: usize = 1024 * 1024;
/// Room beyond the largest head, so that the guard's verdict comes before hyper's.
const BEYOND_HEAD: usize = 4 * 1024;

/// Serves one connection to its end: HTTP/2 if TLS agreed on it or a plain connection opens with its preface,
/// else HTTP/1. `service` must be ready at all times: it is cloned and called for each request without being polled for
/// readiness. Returns when the connection is closed.
pub async fn serve<IO, S>(mut io: IO, connection: Arc<Connection>, service: S, edge: Arc<Edge>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: EdgeService,
{
    let mut timer = pin!(tokio::time::sleep(edge.limits.head_time));
    let mut prefix = Prefix::default();
    let mut http2 = connection.http2();
    if !http2 {
        // Nothing is written to a caller that sent nothing.
        let sniff = !connection.secure;
        match first_bytes(&mut io, &mut prefix, sniff, timer.as_mut(), &edge).await {
            Waited::Bytes => {}
            Waited::Late if prefix.bytes().is_empty() => return,
            Waited::Late => return refuse_and_close(io, Fault::Late, &edge).await,
            Waited::Gone => return,
        }
        http2 = sniff && prefix.bytes() == PREFACE;
        connection.wire.lock().http2 = http2;
    }
    if http2 {
        // Boxed: its state is many times that of HTTP/1, and a connection's task is as large as its largest state.
        let io = Guarded::new(io, prefix, None, Arc::clone(&connection), edge.clock);
        return Box::pin(http2::serve(io, connection, service, edge)).await;
    }
    let mut guard = Guard::new(head_limits(&edge));
    loop {
        let raw = Guarded::new(io, prefix, Some(guard), Arc::clone(&connection), edge.clock);
        let (end, raw) = http1(raw, &connection, service.clone(), &edge, timer.as_mut()).await;
        let (parked, spent) = raw.into_parts();
        match (end, spent) {
            (End::Idle, Some(spent)) => {
                (io, guard) = (parked, spent);
                let idle_for = edge.limits.idle.saturating_sub(edge.limits.park_after);
                timer.as_mut().reset(edge.clock.now() + idle_for);
                prefix = Prefix::default();
                match first_bytes(&mut io, &mut prefix, false, timer.as_mut(), &edge).await {
                    Waited::Bytes => {}
                    Waited::Late | Waited::Gone => return close(io, &edge).await,
                }
            }
            (End::Fault(fault), _) => return refuse_and_close(parked, fault, &edge).await,
            (End::Finished, _) => return close(parked, &edge).await,
            (End::SlowReader, _) => {
                edge.counts.slow_readers.fetch_add(1, Ordering::Relaxed);
                return;
            }
            (End::Gone | End::Idle, _) => return,
        }
    }
}

fn head_limits(edge: &Edge) -> HeadLimits {
    HeadLimits {
        bytes: u32::try_from(edge.limits.head_bytes).unwrap_or(u32::MAX),
        count: u16::try_from(edge.limits.head_count).unwrap_or(u16::MAX),
    }
}

/// How waiting for bytes ended.
enum Waited {
    Bytes,
    /// The timer fired.
    Late,
    /// The peer closed, or the runtime drains and nothing was read yet.
    Gone,
}

/// Waits for the first bytes of a request; with `sniff`, for enough of them to tell HTTP/2 by.
async fn first_bytes<IO: AsyncRead + Unpin>(
    io: &mut IO,
    prefix: &mut Prefix,
    sniff: bool,
    mut timer: Pin<&mut Sleep>,
    edge: &Edge,
) -> Waited {
    let mut drained = pin!(edge.drain.listen());
    poll_fn(|cx| {
        loop {
            let seen = prefix.bytes();
            let undecided = sniff && seen.len() < PREFACE.len() && PREFACE.starts_with(seen);
            if !seen.is_empty() && !undecided {
                return Poll::Ready(Waited::Bytes);
            }
            let idle = seen.is_empty();
            let mut room = ReadBuf::new(prefix.room());
            match Pin::new(&mut *io).poll_read(cx, &mut room) {
                Poll::Ready(Ok(())) if !room.filled().is_empty() => {
                    let count = room.filled().len();
                    prefix.filled(count);
                }
                Poll::Ready(_) if idle => return Poll::Ready(Waited::Gone),
                // What was sent is not a whole request; hyper and the guard say so.
                Poll::Ready(_) => return Poll::Ready(Waited::Bytes),
                Poll::Pending => {
                    let draining = drained.as_mut().poll(cx).is_ready() || edge.drain.begun();
                    if draining && idle {
                        return Poll::Ready(Waited::Gone);
                    }
                    return timer.as_mut().poll(cx).map(|()| Waited::Late);
                }
            }
        }
    })
    .await
}

/// How a round of HTTP/1 ended.
enum End {
    /// Idle for a while: its buffers can be given back.
    Idle,
    /// hyper is done with it; everything owed was written.
    Finished,
    /// The peer is gone, or an answer could not be completed.
    Gone,
    /// The input is faulty; all answers owed were written.
    Fault(Fault),
    /// The peer does not read.
    SlowReader,
}

/// What has to happen by when.
enum Due {
    Nothing,
    Idle(Instant),
    HeadLate(Instant),
    Left(Instant),
    SlowReader(Instant),
}

async fn http1<IO, S>(
    raw: Guarded<IO>,
    connection: &Arc<Connection>,
    service: S,
    edge: &Arc<Edge>,
    mut timer: Pin<&mut Sleep>,
) -> (End, Guarded<IO>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: EdgeService,
{
    let limits = &edge.limits;
    let rate = edge.rate();
    let mut builder = http1::Builder::new();
    // As small as the largest head permits: with thousands of slow uploads the buffers of the connections count.
    builder.max_buf_size(limits.head_bytes.max(BUFFER) + BEYOND_HEAD);
    if limits.head_count > 100 {
        // Up to 100 hyper parses on its stack.
        builder.max_headers(limits.head_count);
    }
    let adapter = Adapter::new(service, Arc::clone(connection), Arc::clone(edge));
    let mut http = builder.serve_connection(TokioIo::new(raw), adapter);
    let mut drained = pin!(edge.drain.listen());
    let mut finishing = false;
    let end = poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = http.poll_without_shutdown(cx) {
                let wire = connection.wire.lock();
                return Poll::Ready(match wire.fault {
                    Some(fault) if wire.place == Place::Hyper => End::Fault(fault),
                    _ if result.is_ok() => End::Finished,
                    _ => End::Gone,
                });
            }
            let draining = !finishing && (drained.as_mut().poll(cx).is_ready() || edge.drain.begun());
            let mut wire = connection.wire.lock();
            let owing = wire.owing();
            if let Some(fault) = wire.fault
                && !owing
            {
                return Poll::Ready(if wire.place == Place::Body { End::Finished } else { End::Fault(fault) });
            }
            if wire.half_closed.is_some() && !owing {
                return Poll::Ready(End::Finished);
            }
            if draining {
                if !owing && wire.head_since.is_none() {
                    return Poll::Ready(End::Finished);
                }
                finishing = true;
                drop(wire);
                Pin::new(&mut http).graceful_shutdown();
                continue;
            }
            let due = due(&mut wire, owing, edge);
            let (Due::Idle(at) | Due::HeadLate(at) | Due::Left(at) | Due::SlowReader(at)) = due else {
                return Poll::Pending;
            };
            if !fired(timer.as_mut(), at, cx) {
                return Poll::Pending;
            }
            match due {
                Due::Idle(_) => return Poll::Ready(End::Idle),
                Due::HeadLate(_) => return Poll::Ready(End::Fault(Fault::Late)),
                Due::Left(_) => return Poll::Ready(End::Gone),
                Due::SlowReader(_) if wire.pace.too_slow(rate, edge.clock.now()) => {
                    return Poll::Ready(End::SlowReader);
                }
                Due::SlowReader(_) | Due::Nothing => {}
            }
        }
    })
    .await;
    (end, http.into_parts().io.into_inner())
}

fn due(wire: &mut Wire, owing: bool, edge: &Edge) -> Due {
    if let Some(at) = wire.pace.due(edge.rate()) {
        return Due::SlowReader(at);
    }
    if owing {
        return wire.half_closed.map_or(Due::Nothing, |since| Due::Left(since + edge.limits.linger));
    }
    let idle_since = *wire.idle_since.get_or_insert_with(|| edge.clock.now());
    match wire.head_since {
        // A head that came behind a request in service is not waited for before that one was answered.
        Some(since) => Due::HeadLate(since.max(wire.answered.unwrap_or(since)) + edge.limits.head_time),
        None => Due::Idle(idle_since + edge.limits.park_after.min(edge.limits.idle)),
    }
}

/// Whether `at` has come. The timer is only moved when it would wake too late, or has woken too early: a busy connection
/// touches it about once for each `park_after`.
fn fired(mut timer: Pin<&mut Sleep>, at: Instant, cx: &mut Context<'_>) -> bool {
    loop {
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        if timer.as_mut().poll(cx).is_pending() {
            return false;
        }
        if timer.deadline() >= at {
            return true;
        }
        timer.as_mut().reset(at);
    }
}

/// Writes the refusal for a request that could not be read, and closes.
pub(super) async fn refuse_and_close<IO: AsyncRead + AsyncWrite + Unpin>(mut io: IO, fault: Fault, edge: &Edge) {
    edge.counts.refuse(fault.reason());
    let response = refusal(fault);
    let bytes = refuse::wire_format(&response, edge.clock.system_time());
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
