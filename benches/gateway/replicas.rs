//! What several replicas ask of the store they share while calls pass at a steady rate.
//!
//! Real processes and a real `redis-server`. Calls are spread over the replicas as a Service does it; the store itself says
//! how often each command was run.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use tokio::task::JoinSet;

use crate::load::{self, Client};
use crate::target::{Kind, Stage, installed};
use crate::{Common, Outcome, measure, report};

/// How long calls pass before anything is counted.
const WARM: Duration = Duration::from_secs(3);

/// How to count what the store is asked.
#[derive(Args)]
pub struct Options {
    /// Replicas that share the store.
    #[arg(long, default_value_t = 3)]
    replicas: usize,
    /// Calls a second, over all of them.
    #[arg(long, default_value_t = 5_000)]
    rate: u32,
    /// For how long they are counted.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Connections to each replica.
    #[arg(long, default_value_t = 16)]
    connections: u32,
    /// Fail at more scripts a second than this: budgets, slots, tokens and presence together.
    #[arg(long)]
    gate: Option<f64>,
}

/// Measures, prints, and says whether the bound holds.
pub fn run(common: &Common, options: &Options) -> Outcome<bool> {
    if common.target_cmd.is_some() {
        return Err("only this gateway's replicas can be measured".into());
    }
    if !installed("redis-server") {
        return Err("redis-server is not installed".into());
    }
    let stage = Stage::set(0)?;
    let store = stage.store()?;
    let kind = Kind::Replica { store: store.port };
    let targets = (0..options.replicas).map(|_| stage.start(&kind, &[])).collect::<Outcome<Vec<_>>>()?;
    let ports: Vec<u16> = targets.iter().map(|target| target.port).collect();
    let pids: Vec<u32> = store.processes();

    let spread = Spread::new(options, load::row_requests(&stage.key));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (before, after, cpu) = runtime.block_on(async {
        let mut callers = JoinSet::new();
        for number in 0..options.connections as usize * ports.len() {
            let port = ports.get(number % ports.len()).copied().unwrap_or_default();
            callers.spawn(caller(port, Arc::clone(&spread)));
        }
        tokio::time::sleep(WARM).await;
        let busy = measure::cpu_ns(&pids)?;
        let before = Sample::take(store.port, &spread)?;
        tokio::time::sleep(Duration::from_secs(options.seconds)).await;
        let after = Sample::take(store.port, &spread)?;
        let cpu = measure::cpu_ns(&pids)? - busy;
        spread.rate.store(0, Ordering::Relaxed);
        while let Some(ended) = callers.join_next().await {
            ended??;
        }
        Outcome::Ok((before, after, cpu))
    })?;

    let seconds = (after.at - before.at).as_secs_f64();
    let each = |name: &str| {
        let count = |sample: &Sample| sample.commands.get(name).copied().unwrap_or_default();
        (count(&after) - count(&before)) as f64 / seconds
    };
    let scripts = each("evalsha") + each("eval");
    let calls = (after.answered - before.answered) as f64 / seconds;
    let row = vec![
        options.replicas.to_string(),
        format!("{calls:.0}"),
        format!("{scripts:.1}"),
        format!("{:.1}", each("publish")),
        format!("{:.1}", each("ping")),
        format!("{:.2}", cpu as f64 / 1e7 / seconds),
        format!("{:.1}", after.bytes as f64 / f64::from(1 << 20)),
    ];
    let headings =
        ["replicas", "calls/s", "scripts/s", "publish/s", "ping/s", "% of a core in the store", "MiB in the store"];
    report::table(&headings, &[row]);
    if calls < f64::from(options.rate) * 0.9 {
        println!("this machine made {calls:.0} calls/s only");
    }
    Ok(report::within("scripts a second in the store", scripts, options.gate))
}

/// Calls at a steady rate.
struct Spread {
    requests: Arc<Vec<Vec<u8>>>,
    begin: Instant,
    next: AtomicU64,
    answered: AtomicU64,
    /// Calls a second; none: the load ends.
    rate: AtomicU64,
}

impl Spread {
    fn new(options: &Options, requests: Arc<Vec<Vec<u8>>>) -> Arc<Self> {
        Arc::new(Self {
            requests,
            begin: Instant::now(),
            next: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            rate: AtomicU64::new(options.rate.into()),
        })
    }
}

async fn caller(port: u16, spread: Arc<Spread>) -> std::io::Result<()> {
    let mut client = Client::connect(port).await?;
    loop {
        let number = spread.next.fetch_add(1, Ordering::Relaxed);
        let rate = spread.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return Ok(());
        }
        // Each call has its moment; who is late goes at once, so that the rate is kept.
        let due = spread.begin + Duration::from_micros(number.saturating_mul(1_000_000) / rate);
        tokio::time::sleep_until(due.into()).await;
        let choice = usize::try_from(number).unwrap_or(0) % spread.requests.len();
        let answer = client.exchange(spread.requests.get(choice).map_or(&[], Vec::as_slice)).await?;
        if answer.status != 200 {
            return Err(std::io::Error::other(format!("answered {} under load", answer.status)));
        }
        spread.answered.fetch_add(1, Ordering::Relaxed);
    }
}

struct Sample {
    at: Instant,
    answered: u64,
    commands: BTreeMap<String, u64>,
    bytes: u64,
}

impl Sample {
    fn take(port: u16, spread: &Spread) -> Outcome<Self> {
        let (at, answered) = (Instant::now(), spread.answered.load(Ordering::Relaxed));
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.write_all(b"INFO everything\r\n")?;
        stream.shutdown(Shutdown::Write)?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        // `cmdstat_evalsha:calls=12,usec=...`
        let commands = text.lines().filter_map(|line| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        });
        let bytes = text.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok());
        Ok(Self { at, answered, commands: commands.collect(), bytes: bytes.ok_or("the store says nothing of itself")? })
    }
}
