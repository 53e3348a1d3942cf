//! The running gateway: listeners, workers, admin side, reload and drain, assembled from a configuration.
//!
//! Everything here runs on the control runtime; the road of a request ([`crate::stack`]) runs on the workers.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use zeroize::Zeroizing;

use crate::admin::{self, Admin};
use crate::admission::bank::sqlite::OpenError;
use crate::answers::{Answers, Touch, lower};
use crate::body::ByteBudget;
use crate::call::Family;
use crate::clock::Clock;
use crate::config::watch::{Reload, Watcher};
use crate::config::{AccessTo, Config};
use crate::edge::listener::{BindError, raise_open_files};
use crate::edge::tls::TlsError;
use crate::edge::workers::{WorkerSettings, Workers};
use crate::edge::{Counts, Drain, Limits};
use crate::ledgers::Ledgers;
use crate::live::{InForce, Lasting, Live, Unusable};
use crate::outcome::RequestIds;
use crate::stack::{self, Local, Shared};
use crate::stages::breakers::Wanted;
use crate::tasks::Tasks;
use crate::telemetry::{EventFormat, Level, Log, LogOptions, Output, Telemetry, TelemetryOptions};

#[cfg(not(feature = "redis"))]
mod alone;
mod doors;
pub mod figures;
#[cfg(feature = "redis")]
mod generations;
mod issuers;
pub mod panics;
#[cfg(feature = "redis")]
mod places;
pub mod poll;
#[cfg(feature = "redis")]
mod presence;
#[cfg(feature = "redis")]
mod replicas;
#[cfg(feature = "redis")]
mod sharing;
mod signals;
#[cfg(feature = "otlp")]
mod traces;

#[cfg(not(feature = "redis"))]
use alone::Sharing;
use doors::{Door, Renewal};
#[cfg(feature = "redis")]
use sharing::Sharing;

/// How long the start waits for a store that replicas share.
const SHARED_STATE: Duration = Duration::from_secs(1);
/// How long the last log lines may take to be written at the end.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Why the gateway could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address is taken or not allowed.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A certificate or key cannot be used.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// What was spent cannot be remembered.
    #[error("state: {0}")]
    State(#[from] OpenError),
    /// The configuration cannot be put in force.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// The system gave no thread, file or random number.
    #[error("{what}: {why}")]
    System {
        /// What was wanted.
        what: &'static str,
        /// What the system said.
        why: String,
    },
}

fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> StartError {
    move |error| StartError::System { what, why: error.to_string() }
}

/// Runs a gateway until it is told to stop by SIGTERM or SIGINT, then drains.
pub fn serve(config: Config) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("cannot start the control runtime"))?;
    runtime.block_on(async {
        let clock = Clock::start();
        let log = Log::start(clock, log_options(&config)).map_err(system("cannot open the log"))?;
        panics::log_to(&log);
        let gateway = Gateway::start(config, clock, log).await?;
        let signals = signals::Signals::new(&gateway).map_err(system("cannot listen for signals"))?;
        gateway.run(signals.stop()).await;
        Ok(())
    })
}

fn log_options(config: &Config) -> LogOptions {
    let output = match &config.log.access {
        AccessTo::Stdout | AccessTo::Off => Output::Stdout,
        AccessTo::Stderr => Output::Stderr,
        AccessTo::File(path) => Output::File(path.clone()),
    };
    LogOptions {
        output,
        event_format: EventFormat::Json,
        access: config.log.access != AccessTo::Off,
        buffer_bytes: config.log.buffer_bytes,
    }
}

/// A gateway that has started. Dropping it without [`Self::run`] leaves its workers running until the process ends.
#[derive(Debug)]
pub struct Gateway {
    in_force: InForce,
    lasting: Lasting,
    telemetry: Telemetry,
    admin: Arc<Admin>,
    buffers: ByteBudget,
    workers: Workers,
    doors: Vec<Door>,
    drain: Drain,
    watcher: Option<Watcher>,
    addresses: Vec<SocketAddr>,
    admin_address: SocketAddr,
    reloads: Arc<figures::Reloads>,
    sharing: Option<Sharing>,
}

impl Gateway {
    /// Binds every address, starts the workers, and begins to accept. Runs inside the control runtime.
    pub async fn start(config: Config, clock: Clock, log: Log) -> Result<Self, StartError> {
        let open_files = raise_open_files();
        let options = TelemetryOptions {
            max_objects: config.metrics.max_objects,
            max_callers: config.metrics.max_callers,
            ..TelemetryOptions::default()
        };
        let telemetry = Telemetry::new(clock, log, options);
        let mut made_up_key = Zeroizing::new([0; 32]);
        fill(&mut *made_up_key)?;

        // Sockets first: a taken port must stop the start before anything else happens.
        let (listeners, doors): (Vec<_>, Vec<_>) = doors::open(&config)?.into_iter().unzip();
        let admin_listener = TcpListener::bind(config.admin.address)
            .await
            .map_err(|reason| BindError { address: config.admin.address, reason })?;
        let addresses: Vec<_> = doors.iter().map(|door| door.address).collect();
        let admin_address = admin_listener.local_addr().map_err(system("cannot tell the admin listener's address"))?;

        let tasks = Tasks::new();
        let sharing = Sharing::open(&config, clock, telemetry.log(), &tasks)?;
        let ledgers = match &sharing {
            Some(sharing) => sharing.ledgers()?,
            None => Ledgers::open(&config.state, clock, telemetry.log().clone())?,
        };
        let answers = sharing.as_ref().map_or_else(|| Answers::new(clock), Sharing::answers);
        let shelves = sharing.as_ref().map(Sharing::shelves);
        let lasting =
            Lasting { telemetry: telemetry.clone(), ledgers, answers, made_up_key, dial: None, clock, shelves };
        let live = Live::new(Arc::new(config), &lasting, None)?;
        if let Some(sharing) = &sharing {
            sharing.adopt(&live);
        }
        lasting.ledgers.read(SHARED_STATE).await;
        let config = Arc::clone(&live.config);
        let watcher = Watcher::new(&config);
        let in_force: InForce = Arc::new(ArcSwap::from_pointee(live));
        let buffers = ByteBudget::new(bytes(config.limits.buffered_bytes_total));
        let mut prefix = [0; 8];
        fill(&mut prefix)?;
        let shared = Shared {
            in_force: Arc::clone(&in_force),
            telemetry: telemetry.clone(),
            clock,
            buffers: buffers.clone(),
            ids: Arc::new(RequestIds::new(u64::from_ne_bytes(prefix))),
        };

        let drain = Drain::new();
        let counts = Arc::new(Counts::default());
        let ways = Arc::new(Mutex::new(Vec::new()));
        let workers = start_workers(&config, clock, &drain, &counts, shared.clone(), Arc::clone(&ways))?;
        let polls = poll::keep(shared, sharing.as_ref().map(Sharing::elect), &tasks);
        if let Some(sharing) = &sharing {
            sharing.keep(&in_force, &tasks)?;
        }
        let failed = Arc::new(AtomicUsize::new(0));
        for listener in listeners {
            let accepting = workers.accept(listener, &tasks);
            let log = telemetry.log().clone();
            let failed = Arc::clone(&failed);
            tasks.spawn(async move {
                if let Err(error) = accepting.await {
                    failed.fetch_add(1, Ordering::Relaxed);
                    log.event(Level::Error, "listener_failed", &[("error", error.to_string().as_str().into())]);
                }
            });
        }

        let admin = Arc::new(Admin::new(telemetry.clone(), access(&config)));
        admin.set_config(config.redacted());
        let ledgers = lasting.ledgers.clone();
        admin.carry_out(move |order| ledgers.pause(order));
        let (answers, log) = (lasting.answers.clone(), telemetry.log().clone());
        admin.purge_by(move |order| purge(&answers, &log, order));
        let looked_at = Arc::clone(&in_force);
        admin.spending_by(move |budget| figures::spending(&looked_at.load(), budget, clock.now()));
        let (source, log) = (Arc::clone(&in_force), telemetry.log().clone());
        admin.switch_by(move |order| switch(&source.load(), &log, clock, order));
        admin.add_check("listeners", none_of(addresses.len(), move || failed.load(Ordering::Relaxed)));
        admin.add_check("workers", none_of(config.runtimes, workers.watch()));
        {
            let admin = Arc::clone(&admin);
            let background = tasks.clone();
            tasks.spawn_background(async move {
                // Ends with the process; a failing accept is logged and retried inside.
                let _ = admin::serve(admin_listener, admin, background).await;
            });
        }
        let reloads = Arc::new(figures::Reloads::new(clock));
        figures::register(
            &telemetry,
            figures::Parts {
                in_force: Arc::clone(&in_force),
                buffers: buffers.clone(),
                counts,
                ways,
                open: workers.open_counts(),
                doors: doors.clone(),
                clock,
                reloads: Arc::clone(&reloads),
                answers: lasting.answers.clone(),
                sharers: lasting.ledgers.sharers(),
            },
        );
        if let Some(sharing) = &sharing {
            // After the figures of orgs, of which it says what is shared.
            sharing.show(&telemetry, &admin, &in_force, &polls);
        }
        issuers::keep(Arc::clone(&in_force), clock, &tasks, telemetry.log().clone());
        #[cfg(feature = "otlp")]
        traces::keep(Arc::clone(&in_force), clock, &tasks, telemetry.clone());

        let gateway = Self {
            in_force,
            lasting,
            telemetry,
            admin,
            buffers,
            workers,
            doors,
            drain,
            watcher,
            addresses,
            admin_address,
            reloads,
            sharing,
        };
        gateway.announce(open_files.ok().flatten());
        Ok(gateway)
    }

    /// Where callers connect, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where operators connect.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// What it counts and logs.
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// `notify_one` on it asks for a reload; `None` if there is no file to reload from.
    pub fn reload_request(&self) -> Option<Arc<Notify>> {
        self.watcher.as_ref().map(Watcher::request)
    }

    /// Reloads as needed until `stop` resolves, then drains: nothing new is accepted, what is under way is finished within
    /// `limits.drain`, and the last log lines are written.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut watcher = self.watcher.take();
        loop {
            let news = async {
                match &mut watcher {
                    Some(watcher) => watcher.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = &mut stop => break,
                news = news => self.reload(news),
            }
        }
        self.finish().await;
    }

    async fn finish(self) {
        let log = self.telemetry.log().clone();
        log.event(Level::Info, "draining", &[]);
        self.admin.drain();
        // Who balances load over replicas asks for readiness now and then, and until it has seen that this one is no
        // longer ready it sends new connections here.
        tokio::time::sleep(self.in_force.load().config.limits.drain_notice).await;
        self.drain.begin();
        let left = self.workers.finished().await;
        if let Some(sharing) = &self.sharing {
            sharing.leave().await;
        }
        // What is spent until now is written down, and what was leased is given back.
        self.lasting.ledgers.close().await;
        #[cfg(feature = "otlp")]
        self.telemetry.spans().finish(LAST_LINES).await;
        let level = if left == 0 { Level::Info } else { Level::Warn };
        log.event(level, "stopped", &[("requests_cut", (left as u64).into())]);
        log.flush(LAST_LINES);
    }

    /// Puts a new configuration in force, or says why the old one stays.
    fn reload(&self, news: Reload) {
        let log = self.telemetry.log();
        match news {
            Reload::Unchanged => {}
            Reload::Bad(problems) => {
                self.reloads.failed(problems.to_string());
                log.event(Level::Error, "config_rejected", &[("problems", problems.to_string().as_str().into())]);
            }
            Reload::New { config, changed, warnings } => {
                for warning in &warnings {
                    log.event(Level::Warn, "config_needs_restart", &[("what", warning.as_str().into())]);
                }
                if let Err(why) = self.put_in_force(&config) {
                    self.reloads.failed(why.clone());
                    log.event(Level::Error, "config_rejected", &[("problems", why.as_str().into())]);
                    return;
                }
                self.reloads.succeeded();
                let changed: Vec<_> = changed.iter().map(|path| path.display().to_string()).collect();
                log.event(Level::Info, "config_reloaded", &[("changed", changed.join(", ").as_str().into())]);
            }
        }
    }

    fn put_in_force(&self, config: &Arc<Config>) -> Result<(), String> {
        // What can fail comes first: a configuration is put in force as a whole or not at all.
        let certificates = Renewal::read(&self.doors, config).map_err(|error| error.to_string())?;
        let earlier = self.in_force.load_full();
        let live = Live::new(Arc::clone(config), &self.lasting, Some(&earlier)).map_err(|error| error.to_string())?;
        if let Some(sharing) = &self.sharing {
            sharing.adopt(&live);
        }
        self.buffers.set_limit(bytes(config.limits.buffered_bytes_total));
        self.admin.set_access(access(config));
        self.admin.set_config(config.redacted());
        self.in_force.store(Arc::new(live));
        for file in certificates.put() {
            let file = file.display().to_string();
            self.telemetry.log().event(Level::Info, "certificate_reloaded", &[("file", file.as_str().into())]);
        }
        Ok(())
    }

    fn announce(&self, open_files: Option<u64>) {
        let live = self.in_force.load();
        let listeners: Vec<_> = self.addresses.iter().map(SocketAddr::to_string).collect();
        let orgs: Vec<_> = live.config.orgs.iter().map(|org| format!("{} ({})", org.name, org.instance)).collect();
        self.telemetry.log().event(
            Level::Info,
            "started",
            &[
                ("version", env!("CARGO_PKG_VERSION").into()),
                ("listeners", listeners.join(", ").as_str().into()),
                ("admin", self.admin_address.to_string().as_str().into()),
                ("orgs", orgs.join(", ").as_str().into()),
                ("callers", (live.config.callers.len() as u64).into()),
                ("open_files_limit", open_files.unwrap_or(0).into()),
            ],
        );
    }
}

/// Makes old what `order` names.
fn purge(answers: &Answers, log: &Log, order: &admin::Purge) -> Result<serde_json::Value, admin::Unknown> {
    let org = answers.org_named(&order.org).ok_or(admin::Unknown::Org)?;
    let purge = |touch| if order.soft { org.soften(touch) } else { org.purge(touch) };
    let (what, name) = match &order.what {
        admin::Purged::All => {
            purge(Touch::Everything);
            ("all", "")
        }
        admin::Purged::Object(object) => {
            purge(Touch::Object(lower(object)));
            ("object", object.as_str())
        }
        admin::Purged::Principal(short) => {
            if order.soft {
                org.soften_principal(short)
            } else {
                org.purge_principal(short)
            };
            ("principal", short.as_str())
        }
    };
    log.event(
        Level::Info,
        "cache_purged",
        &[
            ("org", order.org.as_str().into()),
            ("what", what.into()),
            ("name", name.into()),
            ("soft", order.soft.into()),
        ],
    );
    Ok(serde_json::json!({"purged": what, "soft": order.soft}))
}

/// Opens or closes the breakers that `order` names.
fn switch(live: &Live, log: &Log, clock: Clock, order: &admin::Switch) -> Result<(), admin::Unknown> {
    let org = live.orgs().iter().find(|org| org.name == order.org).ok_or(admin::Unknown::Org)?;
    let wanted = if order.open { Wanted::Open(order.length) } else { Wanted::Closed };
    if !org.breakers.order(order.family, wanted, clock.now()) {
        return Err(admin::Unknown::Breaker);
    }
    log.event(
        Level::Info,
        if order.open { "breaker_opened" } else { "breaker_closed" },
        &[
            ("org", order.org.as_str().into()),
            ("family", order.family.map_or("all", Family::as_str).into()),
            ("for_seconds", order.length.map_or(0, |length| length.as_secs()).into()),
        ],
    );
    Ok(())
}

/// What the workers' road ends in, for the figures.
type Ways = Arc<Mutex<Vec<(crate::stages::send::Send, Tasks)>>>;

fn start_workers(
    config: &Config,
    clock: Clock,
    drain: &Drain,
    counts: &Arc<Counts>,
    shared: Shared,
    ways: Ways,
) -> Result<Workers, StartError> {
    let settings = WorkerSettings {
        count: config.runtimes,
        limits: limits(config),
        connections: config.limits.connections,
        drain: config.limits.drain,
        clock,
    };
    Workers::start(&settings, drain, counts, move |_, edge| {
        let (road, send) = stack::build(&shared, &Local { tasks: edge.tasks.clone(), drain: edge.drain.clone() });
        ways.lock().push((send, edge.tasks.clone()));
        road
    })
    .map_err(system("cannot start a worker"))
}

/// A check that passes while none of `all` has failed.
fn none_of(
    all: usize,
    failed: impl Fn() -> usize + Send + Sync + 'static,
) -> impl Fn() -> Result<(), String> + Send + Sync + 'static {
    move || match failed() {
        0 => Ok(()),
        failed => Err(format!("{failed} of {all} have failed; the log says why")),
    }
}

/// What the edge asks of each connection under `config`.
pub fn limits(config: &Config) -> Limits {
    let limits = &config.limits;
    Limits {
        head_bytes: limits.head_bytes,
        head_count: limits.header_count,
        head_time: limits.head_time,
        idle: limits.idle,
        body_bytes: limits.body_bytes,
        minimum_rate: limits.minimum_rate,
        minimum_rate_grace: limits.minimum_rate_grace,
        streams: limits.streams,
        ..Limits::default()
    }
}

fn access(config: &Config) -> admin::Access {
    admin::Access {
        key_sha256: config.admin.key.map(|key| *key.as_bytes()),
        hosts: config.admin.hosts.iter().map(ToString::to_string).collect(),
    }
}

fn bytes(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn fill(bytes: &mut [u8]) -> Result<(), StartError> {
    aws_lc_rs::rand::fill(bytes)
        .map_err(|_| StartError::System { what: "cannot get random numbers", why: "the system gave none".to_owned() })
}
