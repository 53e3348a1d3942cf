//! HTTP/2 connections: hyper's, with bounds on everything a peer can make it keep.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;

use crate::edge::adapter::{Adapter, EdgeService};
use crate::edge::connection::Connection;
use crate::edge::limits::Edge;
use crate::edge::pace::Pace;
use crate::edge::wire::{Paced, Wire};

/// Bytes a peer may send on one stream before they are read.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Bytes a peer may send on all streams before they are read.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Serves one HTTP/2 connection to its end; `read` has been read from it.
pub(super) async fn serve<IO, S>(io: IO, read: Bytes, connection: Arc<Connection>, service: S, edge: Arc<Edge>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: EdgeService,
{
    let limits = &edge.limits;
    let rate = edge.rate();
    let wire = Arc::new(Mutex::new(Wire::default()));
    let raw = Paced::new(io, read, Arc::clone(&wire), edge.clock);
    let streams = StreamTasks { wire: Arc::clone(&wire), edge: Arc::clone(&edge) };
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        // Twice our own bound, so that what is a little too large still gets an answer in Salesforce's form.
        .max_header_list_size(u32::try_from(limits.head_bytes.saturating_mul(2)).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(limits.resets)
        .max_local_error_reset_streams(limits.resets)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(limits.write_buffer)
        .keep_alive_interval(limits.ping_after)
        .keep_alive_timeout(limits.ping_timeout);
    let adapter = Adapter::new(service, connection, Arc::clone(&wire), Arc::clone(&edge));
    let mut http = pin!(builder.serve_connection(TokioIo::new(raw), adapter));
    let mut drained = pin!(edge.drain.listen());
    let mut timer = pin!(tokio::time::sleep(limits.idle));
    let mut finishing = false;
    poll_fn(|cx| {
        loop {
            if http.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if !finishing && (drained.as_mut().poll(cx).is_ready() || edge.drain.begun()) {
                finishing = true;
                http.as_mut().graceful_shutdown();
                continue;
            }
            let mut wire = wire.lock();
            let (at, reader) = if let Some(at) = wire.pace.due(rate) {
                (at, true)
            } else if wire.in_service > 0 {
                return Poll::Pending;
            } else {
                // An idle peer is told to go away, and dropped if it does not.
                let patience = if finishing { limits.linger } else { limits.idle };
                let since = *wire.idle_since.get_or_insert_with(|| edge.clock.now());
                (since + patience, false)
            };
            if timer.deadline() != at {
                timer.as_mut().reset(at);
            }
            ready!(timer.as_mut().poll(cx));
            if reader {
                if wire.pace.too_slow(rate, edge.clock.now()) {
                    edge.counts.slow_readers.fetch_add(1, Ordering::Relaxed);
                    return Poll::Ready(());
                }
            } else if finishing {
                return Poll::Ready(());
            } else {
                finishing = true;
                wire.idle_since = None;
                drop(wire);
                http.as_mut().graceful_shutdown();
            }
        }
    })
    .await;
}

/// Runs the tasks of one connection's streams.
#[derive(Clone)]
struct StreamTasks {
    wire: Arc<Mutex<Wire>>,
    edge: Arc<Edge>,
}

impl<F> Executor<F> for StreamTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        let pace = self.wire.lock().stream_pace.take();
        let edge = Arc::clone(&self.edge);
        self.edge.tasks.spawn(async move {
            match pace {
                Some(pace) => paced(future, &pace, &edge).await,
                None => future.await,
            }
        });
    }
}

/// Runs a stream until it ends, or its reader turns out to be too slow: then it is reset, the others go on.
async fn paced<F: Future<Output = ()>>(stream: F, pace: &Mutex<Pace>, edge: &Edge) {
    let rate = edge.rate();
    let mut stream = pin!(stream);
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx: &mut Context<'_>| {
        loop {
            if stream.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let Some(at) = pace.lock().due(rate) else { return Poll::Pending };
            let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            if timer.deadline() != at {
                timer.as_mut().reset(at);
            }
            ready!(timer.as_mut().poll(cx));
            if pace.lock().too_slow(rate, edge.clock.now()) {
                edge.counts.slow_readers.fetch_add(1, Ordering::Relaxed);
                return Poll::Ready(());
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests;
