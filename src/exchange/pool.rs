//! The connections one runtime keeps open to one org.
//!
//! Idle connections are a stack: the one used last is used next, so that the others grow old and are closed. A call
//! that finds none opens one; at the bound it waits in a queue, and whoever gives a connection or a slot back hands
//! it to the first in the queue.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::conn::{Conn, Link, in_runtime};
use super::connect::{Connector, Origin, Protocol};
use super::failure::{Cause, Failure};
use super::http1::Connection;
use super::http2::Exchange;
use super::io::Io;
use super::plan::{Limits, Plan};
use super::stats::{Counters, OrgStats};
use super::upload::Upload;
use crate::body::{BodyFault, ByteBudget};
use crate::clock::Clock;
use crate::http1::Buffers;
use crate::tasks::Tasks;

/// With HTTP/2, what one unread answer may hold back, and what all of a connection may: a caller that does not read
/// must not stall the others.
const STREAM_WINDOW: u32 = 256 * 1_024;
const CONNECTION_WINDOW: u32 = 16 * 1_024 * 1_024;

/// How long the janitor of a pool without idle connections sleeps at least.
const SHORTEST_SLEEP: Duration = Duration::from_millis(100);

/// A request body that can be sent.
pub trait Stream: Body<Data = Bytes, Error = BodyFault> + Send + Unpin + 'static {}
impl<S: Body<Data = Bytes, Error = BodyFault> + Send + Unpin + 'static> Stream for S {}

/// What the exchanges of an org share, whatever their bodies.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) origin: Origin,
    pub(super) limits: Limits,
    pub(super) clock: Clock,
    pub(super) tasks: Tasks,
    pub(super) budget: ByteBudget,
    pub(super) counters: Counters,
}

/// One org's connections in this runtime.
pub(super) struct Org<S: Stream> {
    pub(super) common: Arc<Common>,
    connector: Connector,
    buffers: Arc<Buffers>,
    state: Mutex<State<S>>,
}

struct State<S: Stream> {
    /// The one used last is the last.
    idle: Vec<Box<Conn<S>>>,
    waiting: VecDeque<oneshot::Sender<Grant<S>>>,
    /// Slots taken.
    open: usize,
    /// The HTTP/2 connection new exchanges join, and since when it is open.
    shared: Option<(http2::SendRequest<Upload<S>>, Instant)>,
    /// A janitor is looking after `idle`.
    swept: bool,
    closed: bool,
}

/// What a call in the queue is given.
enum Grant<S: Stream> {
    Conn(Box<Conn<S>>),
    Slot(Slot<S>),
}

/// Where a call that found no idle connection stands.
enum Place<S: Stream> {
    Slot(Slot<S>),
    Queue(oneshot::Receiver<Grant<S>>),
}

/// The right to have one connection open; gives itself back, to the first in the queue if there is one.
pub(super) struct Slot<S: Stream> {
    /// `None` once it was given on.
    org: Option<Arc<Org<S>>>,
}

impl<S: Stream> Slot<S> {
    /// The pool it is of.
    pub(super) fn org(&self) -> Option<&Arc<Org<S>>> {
        self.org.as_ref()
    }
}

impl<S: Stream> Drop for Slot<S> {
    fn drop(&mut self) {
        while let Some(org) = self.org.take() {
            let mut state = org.state.lock();
            let Some(waiter) = state.waiting.pop_front() else {
                state.open -= 1;
                return;
            };
            drop(state);
            // If it has left, the slot is still ours to give.
            if let Err(Grant::Slot(mut slot)) = waiter.send(Grant::Slot(Self { org: Some(org) })) {
                self.org = slot.org.take();
            }
        }
    }
}

impl<S: Stream> Org<S> {
    pub(super) fn new(common: Common, connector: Connector) -> Arc<Self> {
        Arc::new(Self {
            common: Arc::new(common),
            connector,
            buffers: Arc::default(),
            state: Mutex::new(State {
                idle: Vec::new(),
                waiting: VecDeque::new(),
                open: 0,
                shared: None,
                swept: false,
                closed: false,
            }),
        })
    }

    /// An idle connection that can take a message now.
    pub(super) fn take_idle(self: &Arc<Self>, now: Instant) -> Option<Box<Conn<S>>> {
        loop {
            let mut state = self.state.lock();
            let Some(mut conn) = state.idle.pop() else { return self.join_shared(&mut state, now) };
            // A connection that is dropped gives its slot back, and needs the lock for that.
            drop(state);
            if self.is_fresh(&conn, now) && conn.is_usable() {
                return Some(conn);
            }
        }
    }

    /// A stream of the shared HTTP/2 connection, if there is one and the bound allows.
    fn join_shared(self: &Arc<Self>, state: &mut State<S>, now: Instant) -> Option<Box<Conn<S>>> {
        let (sender, opened) = state.shared.as_ref()?;
        if sender.is_closed() || now.saturating_duration_since(*opened) >= self.common.limits.age {
            state.shared = None;
            return None;
        }
        if state.open >= self.common.limits.connections {
            return None;
        }
        let (sender, opened) = (sender.clone(), *opened);
        state.open += 1;
        let slot = Slot { org: Some(Arc::clone(self)) };
        Some(Self::stream(sender, slot, opened))
    }

    fn stream(sender: http2::SendRequest<Upload<S>>, slot: Slot<S>, opened: Instant) -> Box<Conn<S>> {
        let mut conn = Conn::new(Link::Http2(Exchange::new(sender)), opened, slot);
        conn.reused = true;
        conn
    }

    fn is_fresh(&self, conn: &Conn<S>, now: Instant) -> bool {
        now.saturating_duration_since(conn.idle_since) < self.common.limits.idle
            && conn.age(now) < self.common.limits.age
    }

    /// Opens a connection, or waits in the queue for one.
    pub(super) async fn wait_or_open(self: &Arc<Self>, plan: &Plan, now: Instant) -> Result<Box<Conn<S>>, Failure> {
        let slot = match self.place()? {
            Place::Slot(slot) => slot,
            Place::Queue(granted) => {
                let longest = now + self.common.limits.wait;
                let by = plan.deadline.map_or(longest, |deadline| deadline.min(longest));
                match timeout_at(by, granted).await {
                    Ok(Ok(Grant::Conn(conn))) => return Ok(conn),
                    Ok(Ok(Grant::Slot(slot))) => slot,
                    Ok(Err(_)) => return Err(self.busy("the gateway is being reconfigured")),
                    Err(_) => return Err(self.busy("none became free in time")),
                }
            }
        };
        self.open(slot, plan).await
    }

    fn place(self: &Arc<Self>) -> Result<Place<S>, Failure> {
        let limits = &self.common.limits;
        let mut state = self.state.lock();
        if state.open < limits.connections {
            state.open += 1;
            return Ok(Place::Slot(Slot { org: Some(Arc::clone(self)) }));
        }
        if state.waiting.len() >= limits.waiting {
            state.waiting.retain(|waiter| !waiter.is_closed());
            if state.waiting.len() >= limits.waiting {
                return Err(self.busy("the queue for one is full"));
            }
        }
        let (waiter, granted) = oneshot::channel();
        state.waiting.push_back(waiter);
        // At the bound with idle ones means that those were just given back unsent: the slot of the oldest is more
        // use than the connection.
        let oldest = if state.idle.is_empty() { None } else { Some(state.idle.remove(0)) };
        drop(state);
        drop(oldest);
        Ok(Place::Queue(granted))
    }

    fn busy(&self, why: &str) -> Failure {
        Failure::unsent(
            Cause::Busy,
            format!(
                "All {} connections to {} are in use and {why}.",
                self.common.limits.connections,
                self.common.origin.host()
            ),
        )
    }

    /// Opens a connection in `slot`.
    async fn open(self: &Arc<Self>, slot: Slot<S>, plan: &Plan) -> Result<Box<Conn<S>>, Failure> {
        let common = &self.common;
        let now = common.clock.now();
        if let Some((sender, opened)) = self.live_shared(now) {
            return Ok(Self::stream(sender, slot, opened));
        }
        let left = plan.deadline.map(|deadline| deadline.saturating_duration_since(now));
        let limit = left.map_or(plan.timeouts.connect, |left| left.min(plan.timeouts.connect));
        match self.connector.connect(common.clock, &common.origin, limit).await {
            Ok((io, protocol)) => {
                Counters::add(&common.counters.connected);
                match protocol {
                    Protocol::Http1 => {
                        let link = Link::Http1(Connection::new(io, Arc::clone(&self.buffers)));
                        Ok(Conn::new(link, common.clock.now(), slot))
                    }
                    Protocol::Http2 => self.run_http2(io, slot).await,
                }
            }
            Err(mut failure) => {
                Counters::add(match failure.cause {
                    Cause::Dns => &common.counters.dns,
                    Cause::ConnectTimeout => &common.counters.timeout,
                    Cause::Proxy => &common.counters.proxy,
                    Cause::Tls => &common.counters.tls,
                    _ => &common.counters.connect,
                });
                if failure.cause == Cause::ConnectTimeout && limit < plan.timeouts.connect {
                    failure.cause = Cause::Deadline;
                }
                Err(failure)
            }
        }
    }

    async fn run_http2(self: &Arc<Self>, io: Io, slot: Slot<S>) -> Result<Box<Conn<S>>, Failure> {
        let mut builder = http2::Builder::new(Background(self.common.tasks.clone()));
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        let (sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(|_| self.broken_handshake())?;
        self.common.tasks.spawn_background(async move {
            let _ = connection.await;
        });
        let now = self.common.clock.now();
        if let Some((shared, opened)) = self.live_shared(now) {
            // Another call was faster; this one's connection closes as its sender is dropped.
            return Ok(Self::stream(shared, slot, opened));
        }
        let mut state = self.state.lock();
        if !state.closed {
            state.shared = Some((sender.clone(), now));
        }
        drop(state);
        let mut conn = Self::stream(sender, slot, now);
        conn.reused = false;
        Ok(conn)
    }

    fn live_shared(&self, now: Instant) -> Option<(http2::SendRequest<Upload<S>>, Instant)> {
        let state = self.state.lock();
        let (sender, opened) = state.shared.as_ref()?;
        let live = !sender.is_closed() && now.saturating_duration_since(*opened) < self.common.limits.age;
        live.then(|| (sender.clone(), *opened))
    }

    fn broken_handshake(&self) -> Failure {
        Failure::unsent(
            Cause::Reset,
            format!("{} closed the connection before a request could be sent.", self.common.origin.host()),
        )
    }

    /// Takes a connection back whose answer ended at `at`.
    pub(super) fn check_in(mut conn: Box<Conn<S>>, at: Instant) {
        let Some(org) = conn.org().cloned() else { return };
        if conn.age(at) >= org.common.limits.age {
            return;
        }
        conn.idle_since = at;
        conn.reused = true;
        loop {
            let mut state = org.state.lock();
            if state.closed {
                // Without the lock, because a connection that is dropped gives its slot back.
                drop(state);
                return;
            }
            let Some(waiter) = state.waiting.pop_front() else {
                state.idle.push(conn);
                let sweep = !std::mem::replace(&mut state.swept, true);
                drop(state);
                if sweep {
                    org.sweep_in_background();
                }
                return;
            };
            drop(state);
            match waiter.send(Grant::Conn(conn)) {
                Err(Grant::Conn(refused)) => conn = refused,
                Ok(()) | Err(Grant::Slot(_)) => return,
            }
        }
    }

    /// Runs for as long as there are connections.
    fn sweep_in_background(self: &Arc<Self>) {
        if !in_runtime() {
            self.state.lock().swept = false;
            return;
        }
        let org = Arc::downgrade(self);
        self.common.tasks.spawn_background(async move {
            while let Some(next) = Self::sweep(&org) {
                sleep_until(next).await;
            }
        });
    }

    /// Closes what is too old, or what the origin has closed; says when to look again.
    fn sweep(org: &Weak<Self>) -> Option<Instant> {
        let org = org.upgrade()?;
        let limits = &org.common.limits;
        let now = org.common.clock.now();
        let mut state = org.state.lock();
        let ended: Vec<_> = state.idle.extract_if(.., |conn| !(org.is_fresh(conn, now) && conn.is_usable())).collect();
        // Not at once for each of many: an eighth of the idle time late at most. And soon enough for those that the
        // origin closes, which nobody waits for.
        let late = limits.idle / 8;
        let next = match state.idle.first() {
            Some(oldest) => Some((oldest.idle_since + limits.idle).clamp(now + late, now + 2 * late)),
            // Those in use now will be idle again: a new janitor each time would cost a task for each call.
            None if state.open > ended.len() && !state.closed => Some(now + late.max(SHORTEST_SLEEP)),
            None => None,
        };
        state.swept = next.is_some();
        drop(state);
        drop(ended);
        next
    }

    /// Closes what is idle and lets nobody wait any longer. Calls under way end as they would.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let idle = std::mem::take(&mut state.idle);
        let waiting = std::mem::take(&mut state.waiting);
        let shared = state.shared.take();
        drop(state);
        drop((idle, waiting, shared));
    }

    /// The counters now. What the origin has closed is closed here too, and not counted.
    pub(super) fn snapshot(&self) -> OrgStats {
        let mut state = self.state.lock();
        let ended: Vec<_> = state.idle.extract_if(.., |conn| !conn.is_usable()).collect();
        drop(state);
        drop(ended);
        let state = self.state.lock();
        let waiting = state.waiting.iter().filter(|waiter| !waiter.is_closed()).count();
        self.common.counters.snapshot(state.open, state.idle.len(), waiting)
    }
}

/// Lets hyper run the streams of an HTTP/2 connection.
#[derive(Clone)]
struct Background(Tasks);

impl<F> hyper::rt::Executor<F> for Background
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn_background(future);
    }
}
