//! A small Salesforce that is honest about limits.
//!
//! It keeps rows, users and sessions, charges every call to a trailing 24-hour window, refuses what the real one
//! refuses in the shapes the real one uses, and fails on request. It shares no code with the gateway, so that two
//! independent books can be compared at the end of every test. It never makes a request of its own.

mod access;
mod answer;
mod apis;
mod batch;
mod blobs;
mod body;
mod bulk1;
mod bulk2;
mod clock;
mod collections;
mod cometd;
mod composite;
mod config;
mod control;
mod counts;
mod csv;
mod cursors;
mod dates;
mod describe;
mod dml;
mod errors;
mod faults;
mod forms;
mod graph;
mod graphql;
mod ids;
mod jobs;
mod json;
mod ledger;
mod locks;
mod meter;
mod oauth;
mod query;
mod request;
mod respond;
mod route;
mod rows;
mod schema;
mod script;
mod search;
mod seed;
mod server;
mod soap;
mod soql;
mod store;
mod tasks;
#[cfg(test)]
mod tests;
mod tree;
mod window;
mod wire;
mod world;
mod xml;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use smol_str::SmolStr;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpListener, TcpStream};

pub use config::{
    ORG_ID, SimApp, SimConfig, SimCosts, SimDaily, SimHeader, SimLongRunning, SimRows, SimSessions, SimUser,
};
pub use counts::{SimCounts, SimRequest, SimWrites};
pub use faults::{Fault, FaultAction};
pub use script::SimScript;

use clock::Clock;
use tasks::Tasks;
use world::World;

/// Bytes an in-memory connection holds in each direction.
const MEMORY_BUFFER: usize = 256 << 10;

/// A simulated org. Cloning is one reference count.
#[derive(Clone)]
pub struct Sim {
    inner: Arc<Inner>,
}

struct Inner {
    config: Arc<SimConfig>,
    clock: Clock,
    tasks: Tasks,
    world: Mutex<World>,
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sim").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl Sim {
    /// A new org. Must be called where tokio's time is known, that is inside a runtime if it is to be paused.
    pub fn new(config: SimConfig) -> Self {
        let config = Arc::new(config);
        let clock = Clock::start(config.start_unix_seconds.map(Duration::from_secs), config.speed);
        let world = Mutex::new(World::new(Arc::clone(&config), clock.now()));
        Self { inner: Arc::new(Inner { config, clock, tasks: Tasks::default(), world }) }
    }

    /// Serves HTTP/1.1, or HTTP/2 with prior knowledge, on one connection to its end.
    pub fn serve_connection<IO>(&self, io: IO) -> impl Future<Output = ()> + Send + 'static
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        server::connection(self.clone(), io, "https", |_| {})
    }

    /// A connection inside this process; its other end is served on the current runtime.
    pub fn connect_in_memory(&self) -> DuplexStream {
        let (near, far) = tokio::io::duplex(MEMORY_BUFFER);
        self.inner.tasks.spawn(self.serve_connection(far));
        near
    }

    /// Listens for plain connections. The error of a taken port names the address.
    pub async fn listen(&self, address: SocketAddr) -> io::Result<ListeningSim> {
        let sim = self.clone();
        self.accept(address, move |stream| {
            sim.inner.tasks.spawn(server::connection(sim.clone(), stream, "http", reset_tcp));
        })
        .await
    }

    /// Listens for TLS connections.
    pub async fn listen_tls(&self, address: SocketAddr, config: Arc<rustls::ServerConfig>) -> io::Result<ListeningSim> {
        let sim = self.clone();
        let acceptor = tokio_rustls::TlsAcceptor::from(config);
        self.accept(address, move |stream| {
            let (sim, acceptor) = (sim.clone(), acceptor.clone());
            let tasks = sim.inner.tasks.clone();
            tasks.spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    server::connection(sim, stream, "https", |stream| reset_tcp(stream.get_ref().0)).await;
                }
            });
        })
        .await
    }

    async fn accept(
        &self,
        address: SocketAddr,
        serve: impl Fn(TcpStream) + Send + 'static,
    ) -> io::Result<ListeningSim> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))?;
        let local_addr = listener.local_addr()?;
        let task = self.inner.tasks.spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        // Without it small answers would wait for the peer's acknowledgement; failing is no reason
                        // to refuse the connection.
                        let _without_delay = stream.set_nodelay(true);
                        serve(stream);
                    }
                    // Out of descriptors, or a peer that left at once: wait a little and go on.
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
        Ok(ListeningSim { local_addr, task: task.abort_handle() })
    }

    /// What was counted.
    pub fn counts(&self) -> SimCounts {
        let now = self.inner.clock.now();
        let mut guard = self.world();
        let world = &mut *guard;
        let used = world.meter.used(now);
        let (by_user, used_by_user) = by_name(&mut world.meter.users, now);
        let (by_client, used_by_client) = by_name(&mut world.meter.clients, now);
        let (by_family, used_by_family) = by_name(&mut world.meter.families, now);
        let tally = &world.tally;
        SimCounts {
            used,
            limit: world.meter.limit,
            charged: world.meter.ever() - world.meter.dark,
            dark: world.meter.dark,
            requests: tally.requests,
            by_user,
            by_client,
            by_family,
            used_by_user,
            used_by_client,
            used_by_family,
            by_status: tally.by_status.clone(),
            refused_daily: tally.refused_daily,
            refused_concurrent: tally.refused_concurrent,
            unauthenticated: tally.unauthenticated,
            logins: tally.logins,
            logins_refused: tally.logins_refused,
            running: world.meter.running(),
            running_peak: world.meter.running_peak,
            writes: tally
                .writes
                .iter()
                .map(|(object, writes)| (world.schema.objects[*object].name.to_string(), *writes))
                .collect(),
            connections: tally.connections,
            faults: world.faults.fired,
            body_bytes: tally.body_bytes,
            slots: world.meter.slots_used(now),
            slots_peak: world.meter.slots_peak,
        }
    }

    /// The last thousand requests as they arrived, oldest first.
    pub fn requests(&self) -> Vec<SimRequest> {
        self.world().requests.iter().cloned().collect()
    }

    /// Makes things happen.
    pub fn script(&self) -> SimScript<'_> {
        SimScript { sim: self }
    }

    /// Makes the org new: rows, sessions, counts and faults. Time goes on.
    pub fn reset(&self) {
        let fresh = World::new(Arc::clone(&self.inner.config), self.inner.clock.now());
        *self.world() = fresh;
    }

    /// Simulated time since the Unix epoch.
    pub fn now(&self) -> Duration {
        Duration::from_micros(self.inner.clock.now())
    }

    /// How this org was set up.
    pub fn config(&self) -> &SimConfig {
        &self.inner.config
    }

    /// Tasks still running: connections, and calls that Salesforce would still be working on.
    pub fn running_tasks(&self) -> usize {
        self.inner.tasks.running()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.inner.world.lock()
    }

    fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    fn tasks(&self) -> &Tasks {
        &self.inner.tasks
    }
}

/// Calls ever and in the trailing 24 hours, by name; names without calls are left out.
fn by_name(
    windows: &mut BTreeMap<SmolStr, window::Window>,
    now: clock::Micros,
) -> (BTreeMap<String, u64>, BTreeMap<String, u64>) {
    let ever = windows.iter().map(|(name, window)| (name.to_string(), window.ever()));
    let ever = ever.filter(|(_, calls)| *calls > 0).collect();
    let used = windows.iter_mut().map(|(name, window)| (name.to_string(), window.used(now)));
    (ever, used.filter(|(_, calls)| *calls > 0).collect())
}

fn reset_tcp(stream: &TcpStream) {
    // If the option cannot be set the connection ends in an orderly way, which a test would notice.
    let _linger = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// A listening simulator. It stops accepting when it is shut down or dropped; connections go on to their end.
#[derive(Debug)]
pub struct ListeningSim {
    /// The address it listens on, with the port chosen by the system if `0` was asked for.
    pub local_addr: SocketAddr,
    task: tokio::task::AbortHandle,
}

impl ListeningSim {
    /// Stops accepting.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl Drop for ListeningSim {
    fn drop(&mut self) {
        self.task.abort();
    }
}
