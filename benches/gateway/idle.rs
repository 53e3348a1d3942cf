//! Memory of kept-alive connections that have each made one request and now wait.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use rustix::process::{Resource, getrlimit};
use serde_json::json;

use crate::load::{self, Client};
use crate::target::{Kind, Stage, Target};
use crate::{Common, Outcome, measure, report};

/// Files this process needs besides the connections.
const SPARE_FILES: u64 = 200;

/// How to measure idle memory.
#[derive(Args)]
pub struct Options {
    /// Connections at the last step; the step before has a tenth.
    #[arg(long, default_value_t = 10_000)]
    connections: u64,
    /// How long the connections have been idle when memory is read.
    #[arg(long, default_value_t = 2.0)]
    settle_seconds: f64,
    /// Fail above so many KiB for each idle connection.
    #[arg(long)]
    gate_kib: Option<f64>,
    /// Fail if the idle process has more MiB than this.
    #[arg(long)]
    gate_idle_mib: Option<f64>,
    /// Write the figures here.
    #[arg(long)]
    json: Option<PathBuf>,
}

struct Figures {
    idle_kib: u64,
    /// Connections, and KiB above idle for each.
    steps: Vec<(u64, f64)>,
    closed: usize,
}

/// Measures, prints, and says whether all bounds hold.
pub fn run(common: &Common, options: &Options) -> Outcome<bool> {
    let allowed = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX).saturating_sub(SPARE_FILES);
    let most = options.connections.min(allowed);
    if most < options.connections {
        println!("only {most} connections: this process may not open more files");
    }
    let stage = Stage::set(0)?;
    let (mut all, mut rows) = (Vec::new(), Vec::new());
    for kind in Kind::chosen(common) {
        let target = stage.start(&kind, &[])?;
        let figures = hold(&stage, &target, &[most / 10, most], options.settle_seconds)?;
        let step =
            |place: usize| figures.steps.get(place).map_or(String::new(), |(count, kib)| format!("{kib:.1} ({count})"));
        rows.push(vec![
            kind.name().to_owned(),
            format!("{:.1}", figures.idle_kib as f64 / 1024.0),
            step(0),
            step(1),
            figures.closed.to_string(),
        ]);
        all.push((kind.name(), figures));
    }
    report::table(&["target", "idle MiB", "KiB/connection", "KiB/connection", "closed"], &rows);
    let named = all.iter().map(|(name, figures)| {
        (
            (*name).to_owned(),
            json!({"idle_kib": figures.idle_kib, "kib_per_connection": figures.steps, "closed": figures.closed}),
        )
    });
    report::json(options.json.as_deref(), &json!({"idle": named.collect::<serde_json::Map<_, _>>()}))?;
    let Some((_, own)) = all.first() else { return Ok(false) };
    let per_connection = own.steps.last().map_or(f64::NAN, |(_, kib)| *kib);
    let mut good = report::within("KiB per idle connection", per_connection, options.gate_kib);
    good &= report::within("idle MiB", own.idle_kib as f64 / 1024.0, options.gate_idle_mib);
    good &= report::within("idle connections that were closed", own.closed as f64, options.gate_kib.map(|_| 0.0));
    Ok(good)
}

fn hold(stage: &Stage, target: &Target, steps: &[u64], settle_seconds: f64) -> Outcome<Figures> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let processes = target.processes();
    let requests = load::row_requests(&stage.key);
    runtime.block_on(async {
        let settle = || tokio::time::sleep(Duration::from_secs_f64(settle_seconds));
        settle().await;
        let mut figures = Figures { idle_kib: measure::rss_kib(&processes)?, steps: Vec::new(), closed: 0 };
        let mut clients = Vec::new();
        for &step in steps {
            for request in requests.iter().cycle().take(usize::try_from(step)?.saturating_sub(clients.len())) {
                let mut client = Client::connect(target.port).await?;
                let answer = client.exchange(request).await?;
                if answer.status != 200 {
                    return Err(format!("{} answered {}", target.kind.name(), answer.status).into());
                }
                client.rest_idle();
                clients.push(client);
            }
            settle().await;
            let above = measure::rss_kib(&processes)?.saturating_sub(figures.idle_kib);
            figures.steps.push((step, above as f64 / step.max(1) as f64));
        }
        figures.closed = clients.iter().filter(|client| client.is_closed()).count();
        Ok(figures)
    })
}
