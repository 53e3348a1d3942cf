//! What many kept answers take: memory beside the bound that was set for them, and instructions for one of them.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::Args;
use serde_json::json;

use crate::counts::total_of;
use crate::load::{self, Client, Until};
use crate::origin::SMALL;
use crate::target::{Kind, Stage, Target, installed};
use crate::{Common, Outcome, measure, report};

/// Connections of the caller.
const CONNECTIONS: u32 = 32;
/// Requests made ahead of being sent.
const AT_ONCE: u64 = 50_000;
/// Answers from memory whose instructions are counted.
const COUNTED: u64 = 5_000;
/// Room for each small answer where none may be lost, in bytes.
const ROOM: u64 = 3 << 10;

/// How to measure the memory that kept answers take.
#[derive(Args)]
pub struct Options {
    /// Memory for kept answers, in MiB.
    #[arg(long, default_value_t = 64)]
    mib: u64,
    /// How many times as much is asked for.
    #[arg(long, default_value_t = 3)]
    times: u64,
    /// Fail if what is counted is ever more than so many times the bound.
    #[arg(long)]
    gate_counted: Option<f64>,
    /// Fail if the process grows by more than so many times the bound.
    #[arg(long)]
    gate_rss: Option<f64>,
    /// Write the figures here.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// How to count what an answer costs where there are many.
#[derive(Args)]
pub struct EntriesOptions {
    /// How many answers are kept.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 100_000])]
    entries: Vec<u64>,
    /// Fail if an answer among the most costs so many times one among the fewest.
    #[arg(long)]
    gate: Option<f64>,
    /// Write the figures here.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Fills a memory several times over, with rows of 2 KiB and with small ones.
pub fn run(common: &Common, options: &Options) -> Outcome<bool> {
    own(common)?;
    let stage = Stage::set(0)?;
    let bound = options.mib << 20;
    let (mut rows, mut figures, mut within) = (Vec::new(), serde_json::Map::new(), true);
    for (name, suffix) in [("2 KiB", ""), ("small", SMALL)] {
        let target = stage.start(&Kind::Bounded { mib: options.mib }, &[])?;
        let processes = target.processes();
        // Buffers and connections are there before anything is kept.
        fill(&stage, &target, 0..2_000, suffix, "Cache-Control: no-store\r\n")?;
        let before = measure::rss_kib(&processes)?;
        let (mut asked, mut most, mut rss) = (0, 0.0_f64, 0.0_f64);
        let mut kept;
        loop {
            let next = asked + 5_000;
            fill(&stage, &target, asked..next, suffix, "")?;
            asked = next;
            let counted = metric(&target, "weirkeeper_cache_bytes")?;
            kept = metric(&target, "weirkeeper_cache_answers")?;
            most = most.max(counted);
            rss = rss.max((measure::rss_kib(&processes)?.saturating_sub(before) << 10) as f64);
            if asked as f64 * counted / kept.max(1.0) > (bound * options.times) as f64 {
                break;
            }
        }
        let (counted, grown) = (most / bound as f64, rss / bound as f64);
        rows.push(vec![
            name.to_owned(),
            asked.to_string(),
            format!("{kept:.0}"),
            format!("{:.0}", most / kept),
            format!("{counted:.3}"),
            format!("{:.0}", rss / kept),
            format!("{grown:.3}"),
        ]);
        figures.insert(name.to_owned(), json!({"asked": asked, "kept": kept, "counted": counted, "grown": grown}));
        within &= report::within("what is counted beside the bound", counted, options.gate_counted);
        within &= report::within("what the process grew by beside the bound", grown, options.gate_rss);
    }
    report::table(
        &["rows", "asked for", "kept", "counted bytes each", "of the bound", "grown bytes each", "of the bound"],
        &rows,
    );
    report::json(options.json.as_deref(), &json!({"kept": figures}))?;
    Ok(within)
}

/// Instructions of an answer from memory, among few and among many.
pub fn entries(common: &Common, options: &EntriesOptions) -> Outcome<bool> {
    own(common)?;
    if !installed("valgrind") {
        return Err("valgrind is not installed".into());
    }
    let stage = Stage::set(0)?;
    let (mut rows, mut figures) = (Vec::new(), Vec::new());
    for &entries in &options.entries {
        let profile = stage.directory.path().join(format!("callgrind.{entries}"));
        let wrapper = ["valgrind", "--tool=callgrind", "--fair-sched=try", "--instr-atstart=no"].map(str::to_owned);
        let wrapper = [&wrapper[..], &[format!("--callgrind-out-file={}", profile.display())]].concat();
        let mib = ((entries * ROOM) >> 20) + 64;
        let mut target = stage.start(&Kind::Bounded { mib }, &wrapper)?;
        fill(&stage, &target, 0..entries, SMALL, "")?;
        let kept = metric(&target, "weirkeeper_cache_answers")?;
        let step = usize::try_from((entries / 1_000).max(1))?;
        let requests = load::rows(&stage.key, (0..entries).step_by(step), SMALL, "");
        let served = stage.served()?;
        let hits = || load::closed_loop(target.port, CONNECTIONS, &requests, Until::Requests(COUNTED), || Ok(()));
        hits()?;
        counting(&target, true)?;
        hits()?;
        counting(&target, false)?;
        if stage.served()? - served > COUNTED / 100 {
            return Err("the origin was asked".into());
        }
        if !target.process.end() {
            return Err("it did not end when asked to".into());
        }
        let each = total_of(&profile)? as f64 / COUNTED as f64;
        rows.push(vec![entries.to_string(), format!("{kept:.0}"), format!("{each:.0}")]);
        figures.push((entries, each));
    }
    report::table(&["different rows", "kept", "user instructions per answer from memory"], &rows);
    report::json(options.json.as_deref(), &json!({"entries": figures}))?;
    let (least, most) =
        (figures.iter().min_by_key(|(entries, _)| *entries), figures.iter().max_by_key(|(entries, _)| *entries));
    let ratio = least.zip(most).map_or(f64::NAN, |((_, least), (_, most))| most / least);
    Ok(report::within("an answer among the most beside one among the fewest", ratio, options.gate))
}

fn own(common: &Common) -> Outcome<()> {
    if common.target_cmd.is_some() {
        return Err("only this gateway's memory can be measured".into());
    }
    Ok(())
}

/// Asks for rows once.
fn fill(stage: &Stage, target: &Target, rows: std::ops::Range<u64>, suffix: &str, header: &str) -> Outcome<()> {
    let mut start = rows.start;
    while start < rows.end {
        let end = rows.end.min(start + AT_ONCE);
        let requests = load::rows(&stage.key, start..end, suffix, header);
        load::closed_loop(target.port, CONNECTIONS, &requests, Until::Requests(end - start), || Ok(()))?;
        start = end;
    }
    Ok(())
}

/// One series without labels.
fn metric(target: &Target, name: &str) -> Outcome<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let request = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    let answer = runtime.block_on(async { Client::connect(target.admin).await?.exchange(request).await })?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.ok_or_else(|| format!("{name} is not among the metrics").into())
}

/// Turns callgrind's counting on or off.
fn counting(target: &Target, on: bool) -> Outcome<()> {
    let state = if on { "--instr=on" } else { "--instr=off" };
    let status = Command::new("callgrind_control")
        .args([state, &target.process.id().to_string()])
        .stdout(Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { Err("callgrind_control failed".into()) }
}
