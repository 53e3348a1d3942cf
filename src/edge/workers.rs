//! The runtimes connections live on: one thread and one current-thread runtime each.
//!
//! One acceptor deals each connection to the worker with the fewest; from then on everything about it happens on
//! that thread. A drain waits for each worker's tracked tasks, up to a deadline, and drops what is left.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::edge::adapter::EdgeService;
use crate::edge::connection::Connection;
use crate::edge::drain::Drain;
use crate::edge::fault::Fault;
use crate::edge::limits::{Counts, Edge, Limits};
use crate::edge::listener::{Accepted, Listener, ListenerCounts};
use crate::edge::serve::{refuse_and_close, serve};
use crate::edge::tls::Tls;
use crate::tasks::Tasks;

/// Connections dealt to a worker that it has not taken yet.
const HANDOVER: usize = 1024;
/// Connections that are being told that there are too many, at once; the others are closed without a word.
const TURNING_AWAY: usize = 64;
/// First byte of every TLS connection: a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// What workers are made with.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// How many workers.
    pub count: usize,
    /// Limits of each connection.
    pub limits: Limits,
    /// Connections of the whole process.
    pub connections: usize,
    /// How long a drain waits for requests in service.
    pub drain: Duration,
    /// The gateway's clock.
    pub clock: Clock,
}

/// The running workers.
#[derive(Debug)]
pub struct Workers {
    dealer: Arc<Dealer>,
    threads: Vec<Thread>,
}

#[derive(Debug)]
struct Thread {
    handle: JoinHandle<()>,
    ended: oneshot::Receiver<usize>,
}

/// What the acceptors share.
#[derive(Debug)]
struct Dealer {
    seats: Vec<Seat>,
    connections: usize,
    turning_away: Arc<AtomicUsize>,
    counts: Arc<Counts>,
    drain: Drain,
    limits: Limits,
    clock: Clock,
}

#[derive(Debug)]
struct Seat {
    sender: mpsc::Sender<(Accepted, Seated)>,
    open: Arc<AtomicUsize>,
}

/// A connection in its place: counted for its worker and for its listener.
#[derive(Debug)]
struct Seated {
    _worker: Open,
    _listener: Open,
}

/// One open connection; counted until dropped.
#[derive(Debug)]
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// Starts the workers. `make_service` is called once on each worker's thread, inside its runtime.
    pub fn start<S, F>(
        settings: &WorkerSettings,
        drain: &Drain,
        counts: &Arc<Counts>,
        make_service: F,
    ) -> io::Result<Self>
    where
        S: EdgeService,
        F: Fn(usize, &Edge) -> S + Send + Sync + 'static,
    {
        let make_service = Arc::new(make_service);
        let mut seats = Vec::with_capacity(settings.count);
        let mut threads = Vec::with_capacity(settings.count);
        for index in 0..settings.count.max(1) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (sender, receiver) = mpsc::channel(HANDOVER);
            let (ending, ended) = oneshot::channel();
            let edge = Arc::new(Edge::new(
                settings.limits.clone(),
                Tasks::new(),
                settings.clock,
                drain.clone(),
                Arc::clone(counts),
            ));
            let make_service = Arc::clone(&make_service);
            let patience = settings.drain;
            let handle = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                let left = runtime.block_on(async {
                    let service = make_service(index, &edge);
                    work(receiver, service, &edge, patience).await
                });
                // Ends what the drain did not wait for any longer.
                drop(runtime);
                let _ = ending.send(left);
            })?;
            seats.push(Seat { sender, open: Arc::new(AtomicUsize::new(0)) });
            threads.push(Thread { handle, ended });
        }
        let dealer = Dealer {
            seats,
            connections: settings.connections,
            turning_away: Arc::new(AtomicUsize::new(0)),
            counts: Arc::clone(counts),
            drain: drain.clone(),
            limits: settings.limits.clone(),
            clock: settings.clock,
        };
        Ok(Self { dealer: Arc::new(dealer), threads })
    }

    /// Takes connections from `listener` and deals them, until the drain begins. Run it as a task of the control runtime;
    /// `tasks` are that runtime's.
    pub fn accept(&self, listener: Listener, tasks: &Tasks) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let dealer = Arc::clone(&self.dealer);
        let tasks = tasks.clone();
        async move {
            let (drain, counts) = (dealer.drain.clone(), Arc::clone(&dealer.counts));
            listener.accept(drain, counts, |accepted| dealer.deal(accepted, &tasks)).await
        }
    }

    /// Connections open on each worker.
    pub fn open(&self) -> Vec<usize> {
        self.dealer.seats.iter().map(|seat| seat.open.load(Ordering::Relaxed)).collect()
    }

    /// The same counts, to be read at any time.
    pub fn open_counts(&self) -> Vec<Arc<AtomicUsize>> {
        self.dealer.seats.iter().map(|seat| Arc::clone(&seat.open)).collect()
    }

    /// Tells at any time how many workers have ended, which none does before the drain unless it has a defect.
    pub fn watch(&self) -> impl Fn() -> usize + Send + Sync + 'static {
        let dealer = Arc::downgrade(&self.dealer);
        move || dealer.upgrade().map_or(0, |dealer| dealer.seats.iter().filter(|seat| seat.sender.is_closed()).count())
    }

    /// Waits until every worker has drained, after the drain has begun. Returns how many tasks had to be dropped.
    pub async fn finished(self) -> usize {
        let Self { dealer, threads } = self;
        drop(dealer);
        let mut left = 0;
        for Thread { handle, ended } in threads {
            // A worker that panicked has nothing left.
            left += ended.await.unwrap_or(0);
            let _ = handle.join();
        }
        left
    }
}

impl Dealer {
    fn deal(self: &Arc<Self>, accepted: Accepted, tasks: &Tasks) {
        let mut total = 0;
        let mut fewest: Option<(usize, &Seat)> = None;
        for seat in &self.seats {
            let open = seat.open.load(Ordering::Relaxed);
            total += open;
            if seat.sender.is_closed() {
                continue;
            }
            if fewest.is_none_or(|(least, _)| open < least) {
                fewest = Some((open, seat));
            }
        }
        let Some((_, seat)) = fewest.filter(|_| total < self.connections) else {
            return self.turn_away(accepted, tasks);
        };
        let seated = Seated { _worker: Open::new(&seat.open), _listener: Open::new(&accepted.counts.open) };
        if let Err(refused) = seat.sender.try_send((accepted, seated)) {
            let (accepted, _seated) = refused.into_inner();
            self.turn_away(accepted, tasks);
        }
    }

    /// Too many connections: says so where that can be done without a handshake.
    fn turn_away(self: &Arc<Self>, accepted: Accepted, tasks: &Tasks) {
        self.counts.turned_away.fetch_add(1, Ordering::Relaxed);
        accepted.counts.refuse();
        if accepted.tls.is_some() || self.turning_away.load(Ordering::Relaxed) >= TURNING_AWAY {
            return;
        }
        let turning = Open::new(&self.turning_away);
        let dealer = Arc::clone(self);
        let edge_tasks = tasks.clone();
        tasks.spawn(async move {
            let _turning = turning;
            let (limits, counts) = (dealer.limits.clone(), Arc::clone(&dealer.counts));
            let edge = Edge::new(limits, edge_tasks, dealer.clock, dealer.drain.clone(), counts);
            if let Ok(stream) = TcpStream::from_std(accepted.stream) {
                refuse_and_close(stream, Fault::TooManyConnections, &edge).await;
            }
        });
    }
}

/// One worker's life. Returns how many tasks were still running when it stopped waiting for them.
async fn work<S: EdgeService>(
    mut receiver: mpsc::Receiver<(Accepted, Seated)>,
    service: S,
    edge: &Arc<Edge>,
    patience: Duration,
) -> usize {
    loop {
        let dealt = tokio::select! {
            biased;
            () = edge.drain.wait() => None,
            dealt = receiver.recv() => dealt,
        };
        let Some((accepted, seated)) = dealt else { break };
        let task = serve_accepted(accepted, seated, service.clone(), Arc::clone(edge));
        edge.tasks.spawn(task);
    }
    drop(receiver);
    if !edge.drain.begun() {
        // Every acceptor is gone without a drain: nothing new can come.
        edge.drain.begin();
    }
    let _ = tokio::time::timeout(patience, edge.tasks.idle()).await;
    edge.tasks.running()
}

async fn serve_accepted<S: EdgeService>(accepted: Accepted, seated: Seated, service: S, edge: Arc<Edge>) {
    let _seated = seated;
    let Accepted { stream, peer, listener, tls, counts } = accepted;
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    let connection = Connection::new(canonical(peer), listener);
    match tls {
        None => serve(stream, Arc::new(connection), service, edge).await,
        // Boxed, so that a plain connection's task is not as large as a TLS handshake.
        Some(tls) => Box::pin(serve_tls(stream, tls, counts, connection, service, edge)).await,
    }
}

async fn serve_tls<S: EdgeService>(
    stream: TcpStream,
    tls: Arc<Tls>,
    counts: Arc<ListenerCounts>,
    connection: Connection,
    service: S,
    edge: Arc<Edge>,
) {
    let handshake = Box::pin(async move {
        let mut first = [0];
        if stream.peek(&mut first).await.is_ok_and(|seen| seen == 1) && first != [TLS_HANDSHAKE] {
            return Err(Some(stream));
        }
        let (stream, connection) = tls.accept(stream, connection).await.map_err(|_| None)?;
        // Boxed, because it moves from state to state and is large.
        Ok((Box::new(stream), connection))
    });
    let shaken = tokio::time::timeout(edge.limits.head_time, handshake).await;
    match shaken {
        Ok(Ok((stream, connection))) => serve(stream, Arc::new(connection), service, edge).await,
        Ok(Err(Some(plain))) => {
            counts.refuse();
            refuse_and_close(plain, Fault::NotTls, &edge).await;
        }
        Ok(Err(None)) | Err(_) => {
            counts.refuse();
            edge.counts.handshakes_failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// An IPv4 peer of a dual-stack socket is an IPv4 peer.
fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

#[cfg(test)]
mod tests;
