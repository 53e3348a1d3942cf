//! CPU time per proxied call at saturation, in paired rounds of alternating order.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::load::{self, Until};
use crate::measure::{self, median};
use crate::target::{Kind, Stage, Target};
use crate::{Common, Outcome, TARGET_CORE, report};

/// Share of the target's core that other processes may have used before a measurement is taken once more.
const FOREIGN_AT_MOST: f64 = 0.35;
/// Answers the origin must have given for each that the caller got: a cached answer is no proxied call.
const PROXIED_AT_LEAST: f64 = 0.95;
/// The same for answers from memory: nearly none may be asked for.
const PROXIED_AT_MOST: f64 = 0.01;

/// How to measure CPU time.
#[derive(Args)]
pub struct Options {
    /// 5 rounds of 0.6 seconds for each target.
    #[arg(long)]
    quick: bool,
    /// Rounds; ratios are medians over them.
    #[arg(long, default_value_t = 7)]
    rounds: u32,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// Connections of the caller.
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// Measure answers from memory, beside nginx answering from its cache.
    #[arg(long)]
    memory: bool,
    /// Fail if a call costs more than so many times what nginx takes for it.
    #[arg(long)]
    gate: Option<f64>,
    /// Write the figures of every round here.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// One measurement.
#[derive(Clone, Copy)]
struct Round {
    cpu_us: f64,
    per_second: f64,
    p50_us: f64,
    core_use: f64,
    foreign: f64,
}

/// Measures, prints, and says whether all went well.
pub fn run(common: &Common, options: &Options) -> Outcome<bool> {
    let (rounds, seconds) = if options.quick { (5, 0.6) } else { (options.rounds.max(1), options.seconds) };
    let until = Until::Time { warm: Duration::from_millis(300), window: Duration::from_secs_f64(seconds) };
    let stage = Stage::set(0)?;
    let kinds = if options.memory { Kind::remembering(common)? } else { Kind::chosen(common) };
    let targets = kinds.iter().map(|kind| stage.start(kind, &[])).collect::<Outcome<Vec<_>>>()?;
    for target in targets.iter().filter(|target| target.kind.remembers()) {
        let requests = load::row_requests(&stage.key);
        let once = Until::Requests(requests.len() as u64);
        load::closed_loop(target.port, options.connections, &requests, once, || Ok(()))?;
    }
    let mut figures = vec![Vec::new(); targets.len()];
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..targets.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for place in order {
            let (Some(target), Some(list)) = (targets.get(place), figures.get_mut(place)) else { continue };
            let mut result = measured(&stage, target, options.connections, until)?;
            if result.foreign > FOREIGN_AT_MOST {
                let again = measured(&stage, target, options.connections, until)?;
                result = if again.foreign < result.foreign { again } else { result };
            }
            list.push(result);
        }
    }
    let ratio = print(&targets, &figures);
    let named = targets.iter().zip(&figures).map(|(target, list)| {
        let list = list.iter().map(|round| {
            json!({"cpu_us": round.cpu_us, "per_second": round.per_second, "p50_us": round.p50_us,
                   "core_use": round.core_use, "foreign": round.foreign})
        });
        (target.kind.name().to_owned(), list.collect())
    });
    report::json(options.json.as_deref(), &json!({"rounds": named.collect::<serde_json::Map<_, _>>()}))?;
    Ok(report::within("CPU beside nginx", ratio, options.gate))
}

fn measured(stage: &Stage, target: &Target, connections: u32, until: Until) -> Outcome<Round> {
    let processes = target.processes();
    let requests = load::row_requests(&stage.key);
    let served = stage.served()?;
    let seen = load::closed_loop(target.port, connections, &requests, until, || {
        Ok((measure::cpu_ns(&processes)?, measure::core_busy_seconds(TARGET_CORE)?))
    })
    .map_err(|error| format!("{}: {error}", target.kind.name()))?;
    let ((cpu_before, busy_before), (cpu_after, busy_after)) = seen.edges;
    if seen.answered == 0 {
        return Err(format!("{} answered nothing", target.kind.name()).into());
    }
    let proxied = (stage.served()? - served) as f64 / seen.answered as f64;
    if target.kind.remembers() && proxied > PROXIED_AT_MOST {
        return Err(format!("{} asked the origin", target.kind.name()).into());
    }
    if !target.kind.remembers() && proxied < PROXIED_AT_LEAST {
        return Err(format!("{} did not ask the origin each time", target.kind.name()).into());
    }
    let cpu_seconds = (cpu_after - cpu_before) as f64 / 1e9;
    Ok(Round {
        cpu_us: cpu_seconds * 1e6 / seen.answered as f64,
        per_second: seen.answered as f64 / seen.seconds,
        p50_us: seen.p50_us,
        core_use: cpu_seconds / seen.seconds,
        foreign: ((busy_after - busy_before - cpu_seconds) / seen.seconds).max(0.0),
    })
}

/// Prints all figures; what the first target takes beside nginx.
fn print(targets: &[Target], figures: &[Vec<Round>]) -> f64 {
    let is_base = |target: &Target| matches!(target.kind, Kind::Nginx { access_log: false } | Kind::NginxCache);
    let base = targets.iter().position(is_base);
    let base = base.and_then(|place| figures.get(place));
    let rows: Vec<Vec<String>> = targets.iter().zip(figures).map(|(target, list)| row(target, list, base)).collect();
    report::table(
        &["target", "CPU us/call (min-max)", "beside nginx", "calls/s", "p50 us", "core use", "others' use"],
        &rows,
    );
    println!(
        "Median of {} rounds; ratios are of paired rounds. Core use under 90 %: the load was the limit, not the target.",
        figures.first().map_or(0, Vec::len)
    );
    figures.first().zip(base).map_or(f64::NAN, |(own, base)| median(&ratios(own, base)))
}

/// What a target takes beside another, round by round.
fn ratios(list: &[Round], base: &[Round]) -> Vec<f64> {
    list.iter().zip(base).map(|(round, base)| round.cpu_us / base.cpu_us).collect()
}

fn row(target: &Target, list: &[Round], base: Option<&Vec<Round>>) -> Vec<String> {
    let of = |figure: fn(&Round) -> f64| list.iter().map(figure).collect::<Vec<f64>>();
    let cpu = of(|round| round.cpu_us);
    let (least, most) = cpu.iter().fold((f64::INFINITY, 0.0_f64), |(least, most), &us| (least.min(us), most.max(us)));
    let ratios = base.map_or_else(Vec::new, |base| ratios(list, base));
    vec![
        target.kind.name().to_owned(),
        format!("{:.1} ({least:.1}-{most:.1})", median(&cpu)),
        if ratios.is_empty() { "-".to_owned() } else { format!("{:.2}", median(&ratios)) },
        format!("{:.0}", median(&of(|round| round.per_second))),
        format!("{:.0}", median(&of(|round| round.p50_us))),
        format!("{:.0} %", 100.0 * median(&of(|round| round.core_use))),
        format!("{:.0} %", 100.0 * median(&of(|round| round.foreign))),
    ]
}
