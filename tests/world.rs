//! A gateway before a simulated Salesforce, in one paused runtime: no thread, no socket, no time but the test's own.

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::DuplexStream;
use weirkeeper::answers::Answers;
use weirkeeper::body::ByteBudget;
use weirkeeper::call::OrgId;
use weirkeeper::clock::Clock;
use weirkeeper::config::{self, Config, Outside};
use weirkeeper::edge::{self, Connection, Counts, Drain, Edge};
use weirkeeper::exchange::OrgStats;
use weirkeeper::gateway;
use weirkeeper::ledgers::Ledgers;
use weirkeeper::live::{InForce, Lasting, Live};
use weirkeeper::outcome::RequestIds;
use weirkeeper::sim::{Sim, SimConfig};
use weirkeeper::stack::{self, Local, Shared};
use weirkeeper::stages::send;
use weirkeeper::tasks::Tasks;
use weirkeeper::telemetry::{Log, Memory, Telemetry, TelemetryOptions};
use zeroize::Zeroizing;

use crate::client::Client;

/// Where the simulated Salesforce is.
pub const ORIGIN: &str = "127.0.0.1:8081";
/// Longer than anything goes on.
const FOR_EVER: Duration = Duration::from_secs(24 * 3_600);

/// An origin written out by a test.
pub type Origin = Arc<dyn Fn(DuplexStream) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// What answers when the gateway connects to Salesforce.
#[derive(Clone, Default)]
pub enum Line {
    /// The simulator.
    #[default]
    Sim,
    /// Nobody: this error.
    Broken(io::ErrorKind),
    /// Nobody, and nobody says so.
    Silent,
    /// What the test wrote.
    Origin(Origin),
}

/// Gateway, simulator, and everything that must be in order when both are done.
pub struct World {
    pub sim: Sim,
    pub telemetry: Telemetry,
    pub log: Memory,
    pub buffers: ByteBudget,
    pub in_force: InForce,
    lasting: Lasting,
    pub answers: Answers,
    shared: Shared,
    pub edge: Arc<Edge>,
    line: Arc<Mutex<Line>>,
    way: send::Send,
    open: Arc<dyn Fn(Connection) -> DuplexStream + Send + Sync>,
    clients: Tasks,
    refusals: Arc<Mutex<Vec<String>>>,
    secrets: RefCell<Vec<String>>,
    apart: Cell<i64>,
}

/// A machine without environment, on which every certificate, key and key set a configuration may name is found.
struct Machine;

impl Outside for Machine {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let made = || rcgen::generate_simple_self_signed(vec!["sf.internal".to_owned()]).map_err(io::Error::other);
        match path.extension().and_then(OsStr::to_str) {
            Some("json") => Ok(b"{\"keys\": []}".to_vec()),
            Some("crt") => Ok(made()?.cert.pem().into_bytes()),
            Some("key") => Ok(made()?.signing_key.serialize_pem().into_bytes()),
            Some("rsa") => {
                let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).map_err(io::Error::other)?;
                Ok(pair.serialize_pem().into_bytes())
            }
            // `NAME.secret` holds NAME.
            Some("secret") => Ok(path.file_stem().unwrap_or_default().as_encoded_bytes().to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// The simulator most tests use: small, at a fixed time.
pub fn small() -> SimConfig {
    SimConfig { records: 30, start_unix_seconds: Some(1_795_348_800), ..SimConfig::default() }
}

/// The configuration of one org named `prod`, and what `yaml` adds.
#[track_caller]
pub fn configuration(yaml: &str) -> Config {
    let org = if yaml.contains("orgs:") {
        String::new()
    } else {
        format!("orgs: [{{name: prod, instance_url: 'http://{ORIGIN}'}}]\n")
    };
    // Other promises are about what Salesforce is asked.
    let cache = if yaml.contains("cache:") { "" } else { "cache: {mode: off}\n" };
    // Most look at one attempt; those that do not say so.
    let retry = if yaml.contains("retry:") { "" } else { "retry: {mode: off}\n" };
    let breaker = if yaml.contains("breaker:") { "" } else { "breaker: {mode: off}\n" };
    let text = format!("{org}{cache}{retry}{breaker}{yaml}");
    config::check_text(&text, Path::new("weirkeeper.yaml"), &Machine).unwrap_or_else(|problems| panic!("{problems}"))
}

impl World {
    /// A world whose configuration has one org named `prod` and what `yaml` adds.
    #[track_caller]
    pub fn new(yaml: &str) -> Self {
        Self::with(small(), yaml)
    }

    /// The same, with another simulator.
    #[track_caller]
    pub fn with(simulated: SimConfig, yaml: &str) -> Self {
        let config = configuration(yaml);
        let sim = Sim::new(simulated);
        let clock = Clock::at(sim.now());
        let (log, memory) = Log::in_memory(clock, 64 << 20);
        let telemetry = Telemetry::new(clock, log, TelemetryOptions::default());
        let line = Arc::new(Mutex::new(Line::Sim));
        let clients = Tasks::new();
        let answers = Answers::new(clock);
        let lasting = Lasting {
            telemetry: telemetry.clone(),
            ledgers: Ledgers::forgetful(clock, telemetry.log().clone()),
            answers: answers.clone(),
            made_up_key: Zeroizing::new([7; 32]),
            shelves: None,
            clock,
            dial: Some({
                let (sim, line, tasks) = (sim.clone(), Arc::clone(&line), clients.clone());
                Arc::new(move || {
                    let (sim, line, tasks) = (sim.clone(), line.lock().clone(), tasks.clone());
                    Box::pin(async move { line.dial(&sim, &tasks).await })
                })
            }),
        };
        let limits = gateway::limits(&config);
        let buffers = ByteBudget::new(usize::try_from(config.limits.buffered_bytes_total).unwrap());
        let live = Live::new(Arc::new(config), &lasting, None).unwrap();
        let in_force: InForce = Arc::new(ArcSwap::from_pointee(live));
        let shared = Shared {
            in_force: Arc::clone(&in_force),
            telemetry: telemetry.clone(),
            clock,
            buffers: buffers.clone(),
            ids: Arc::new(RequestIds::new(0xfeed)),
        };
        let (source, known) = (Arc::clone(&in_force), answers.clone());
        telemetry.add_source(move |snapshot| {
            let live = source.load();
            snapshot.budgets = gateway::figures::budgets(&live, clock.now());
            snapshot.slots = gateway::figures::slots(&live, clock.now());
            snapshot.cache = gateway::figures::kept(&known);
            snapshot.breakers = gateway::figures::breakers(&live, clock.now());
        });
        let tasks = Tasks::new();
        let drain = Drain::new();
        let edge = Edge::new(limits, tasks.clone(), clock, drain.clone(), Arc::new(Counts::default()));
        let edge = Arc::new(edge);
        let (road, way) = stack::build(&shared, &Local { tasks, drain });
        let open = {
            let edge = Arc::clone(&edge);
            Arc::new(move |connection| {
                let (near, far) = tokio::io::duplex(64 * 1024);
                edge.tasks.spawn(edge::serve(far, Arc::new(connection), road.clone(), Arc::clone(&edge)));
                near
            })
        };
        let users = &sim.config().users;
        let tokens = users.iter().map(|user| user.token.clone());
        let secrets = tokens.chain(sim.config().apps.iter().map(|app| app.client_secret.clone())).collect();
        Self {
            telemetry,
            log: memory,
            buffers,
            in_force,
            lasting,
            answers,
            shared,
            edge,
            line,
            way,
            open,
            clients,
            refusals: Arc::default(),
            secrets: RefCell::new(secrets),
            apart: Cell::new(0),
            sim,
        }
    }

    /// A client of the gateway.
    pub fn client(&self) -> Client {
        self.client_on(|| Connection::new(([192, 0, 2, 1], 40_000).into(), 0))
    }

    /// A client of the gateway whose connections are what `connection` says.
    pub fn client_on(&self, connection: impl Fn() -> Connection + Send + Sync + 'static) -> Client {
        let open = Arc::clone(&self.open);
        self.client_of("sf.internal", move || open(connection()))
    }

    /// The same client, but of the simulator itself.
    pub fn direct(&self) -> Client {
        let sim = self.sim.clone();
        self.client_of(ORIGIN, move || sim.connect_in_memory())
    }

    fn client_of(&self, host: &'static str, open: impl Fn() -> DuplexStream + Send + Sync + 'static) -> Client {
        Client::new(Arc::new(open), host, self.clients.clone(), Arc::clone(&self.refusals))
    }

    /// A connection to the gateway, for bytes written by hand.
    pub fn raw(&self) -> DuplexStream {
        (self.open)(Connection::new(([192, 0, 2, 1], 40_000).into(), 0))
    }

    /// From now on, this answers when the gateway connects.
    pub fn line(&self, line: Line) {
        *self.line.lock() = line;
    }

    /// From now on, connections of the gateway are served by `origin`.
    pub fn origin<F: Future<Output = ()> + Send + 'static>(
        &self,
        origin: impl Fn(DuplexStream) -> F + Send + Sync + 'static,
    ) {
        self.line(Line::Origin(Arc::new(move |stream| Box::pin(origin(stream)))));
    }

    /// Runs `future` beside the test.
    pub fn beside(&self, future: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
        self.clients.spawn(future)
    }

    /// Puts another configuration in force, as a reload does.
    #[track_caller]
    pub fn reload(&self, yaml: &str) {
        let earlier = self.in_force.load_full();
        let live = Live::new(Arc::new(configuration(yaml)), &self.lasting, Some(&earlier)).unwrap();
        self.in_force.store(Arc::new(live));
    }

    /// Lets the gateway ask for itself what is used, where the configuration says so.
    pub fn poll(&self) {
        self.poll_if(None);
    }

    /// The same, where others may ask as well.
    pub fn poll_if(&self, elect: Option<gateway::poll::Elect>) -> gateway::poll::Polls {
        gateway::poll::keep(self.shared.clone(), elect, &self.clients)
    }

    /// A text that must never be seen in log, metrics, status or a refusal.
    pub fn secret(&self, text: &str) {
        self.secrets.borrow_mut().push(text.to_owned());
    }

    /// The gateway counts so many calls more than the simulator, for a reason the test gives.
    pub fn counts_more(&self, calls: i64) {
        self.apart.set(self.apart.get() + calls);
    }

    /// The requests in the access log, in the order they ended.
    pub fn lines(&self) -> Vec<Value> {
        let lines = self.log.text();
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["event"] == "request").collect()
    }

    /// The last line of the access log, once the request is settled.
    pub async fn last_line(&self) -> Value {
        self.settle().await;
        self.lines().pop().unwrap()
    }

    /// Lets everything run that needs no time.
    pub async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    /// The gateway's connections to Salesforce.
    pub fn upstream(&self) -> OrgStats {
        self.way.stats(OrgId(0)).unwrap_or_default()
    }

    /// The value of one series of `/metrics`, `name{label="value",...}` with any of its labels; 0 if there is none.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let text = self.telemetry.render();
        let series = text.lines().filter(|line| {
            let (found, rest) = line.split_at(line.find(['{', ' ']).unwrap_or(line.len()));
            found == name && labels.iter().all(|(label, value)| rest.contains(&format!("{label}=\"{value}\"")))
        });
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Ends the world: everything has to come to its end, everything borrowed has to be back, and both books agree.
    pub async fn close(self) {
        self.edge.drain.begin();
        let idle = tokio::time::timeout(FOR_EVER, self.edge.tasks.idle()).await;
        idle.unwrap_or_else(|_| panic!("{} tasks of the gateway never end", self.edge.tasks.running()));
        // Salesforce may still be working on calls whose callers have left.
        for _ in 0..24 * 60 {
            if self.sim.counts().running == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_mins(1)).await;
        }
        self.settle().await;
        assert_eq!(self.buffers.used(), 0, "bytes stay held");
        let status = self.telemetry.status();
        for org in &status.in_flight {
            assert!(org.by_class.values().all(|count| *count == 0), "{org:?}");
        }
        for view in status.parts.slots.iter().flat_map(|slots| std::iter::once(&slots.view).chain(&slots.apex)) {
            let waiting: usize = view.queue.iter().map(|waiting| waiting.waiting).sum();
            assert_eq!((view.in_the_air, waiting), (0, 0), "places stay held: {view:?}");
        }
        let upstream = self.upstream();
        assert_eq!((upstream.open, upstream.waiting), (upstream.idle, 0), "connections stay lent: {upstream:?}");
        assert_eq!(upstream.abandoned_running, 0, "{upstream:?}");

        let counts = self.sim.counts();
        let spent: u64 = status.callers.iter().map(|caller| caller.api_calls_spent).sum();
        let expected = i64::try_from(counts.charged).unwrap() + self.apart.get();
        let lines = self.lines();
        assert_eq!(i64::try_from(spent).unwrap(), expected, "calls counted, {}", self.differences(&lines));
        let logged: u64 = lines.iter().map(|line| line["charged"].as_u64().unwrap()).sum();
        assert_eq!(logged, spent, "calls in the log and in the metrics");
        assert_eq!(lines.len() as u64, status.totals.requests, "requests in the log and in the metrics");
        self.tells_no_secret(&status);
    }

    /// Where the two books differ, as long as both have the same requests in the same order.
    fn differences(&self, lines: &[Value]) -> String {
        let sent = lines.iter().filter(|line| line["attempts"] != 0);
        let differ = sent.zip(self.sim.requests()).filter(|(line, seen)| line["charged"] != seen.charged);
        let text = differ.map(|(line, seen)| format!("{} {}: {}\n{line}\n", seen.method, seen.target, seen.charged));
        format!("requests of the simulator, what it charged, and the gateway's log:\n{}", text.collect::<String>())
    }

    fn tells_no_secret(&self, status: &weirkeeper::telemetry::Status) {
        let told = [
            ("log", self.log.text()),
            ("metrics", self.telemetry.render()),
            ("status", serde_json::to_string(status).unwrap()),
            ("refusals", self.refusals.lock().join("\n")),
        ];
        // Sessions that were made in passing: Salesforce's own, and gateway tokens.
        let of_org = ["00DWk0000000001!".to_owned(), "00DWk0000000001MAA!".to_owned()];
        for secret in self.secrets.borrow().iter().chain(&of_org).filter(|secret| !secret.is_empty()) {
            for (place, text) in &told {
                assert!(!text.contains(secret.as_str()), "the {place} tells the secret {secret}");
            }
        }
    }
}

impl Line {
    async fn dial(self, sim: &Sim, tasks: &Tasks) -> io::Result<DuplexStream> {
        match self {
            Self::Sim => Ok(sim.connect_in_memory()),
            Self::Broken(kind) => Err(kind.into()),
            Self::Silent => std::future::pending().await,
            Self::Origin(origin) => {
                let (near, far) = tokio::io::duplex(64 * 1024);
                tasks.spawn(origin(far));
                Ok(near)
            }
        }
    }
}
