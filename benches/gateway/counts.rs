//! Figures that do not depend on how busy the machine is: instructions and system calls per proxied call.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::load::{self, Until};
use crate::target::{Kind, Stage, installed};
use crate::{Common, Outcome, report};

/// Answers from memory whose system calls are counted.
const REMEMBERED: u64 = 20_000;
/// Calls forwarded while system calls are counted.
const FORWARDED: u64 = 30_000;

/// How to count instructions.
#[derive(Args)]
pub struct InstructionOptions {
    /// Calls of the shorter run; the figure is the difference of the two, so that start and end fall out.
    #[arg(long, default_value_t = 2000)]
    fewer: u64,
    /// Calls of the longer run.
    #[arg(long, default_value_t = 6000)]
    more: u64,
    /// Each run is made so often, and the smallest count is taken: what the clock sets off only ever adds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    rounds: u8,
    /// Connections of the caller.
    #[arg(long, default_value_t = 16)]
    connections: u32,
    /// Fail above so many instructions per call.
    #[arg(long)]
    gate: Option<f64>,
    /// Measure calls in the name of an identity that the gateway holds, too; fail if one costs so many instructions more
    /// than a call that brings its own session.
    #[arg(long)]
    gate_identity: Option<f64>,
    /// Measure answers from memory, too; fail above so many instructions for one.
    #[arg(long)]
    gate_memory: Option<f64>,
    /// Keep the last longer run's callgrind output here, to read with `callgrind_annotate`; the identity's ends in `.identity`,
    /// that of answers from memory in `.memory`.
    #[arg(long)]
    profile: Option<PathBuf>,
    /// Write the figures here.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// How to count system calls.
#[derive(Args)]
pub struct SyscallOptions {
    /// Count those of answers from memory, beside nginx answering from its cache.
    #[arg(long)]
    memory: bool,
    /// Connections of the caller.
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// Fail above so many system calls per call.
    #[arg(long)]
    gate: Option<f64>,
    /// Write the figures here.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// User-space instructions per call, counted by callgrind over all threads.
pub fn instructions(common: &Common, options: &InstructionOptions) -> Outcome<bool> {
    if !installed("valgrind") {
        return Err("valgrind is not installed".into());
    }
    if options.more <= options.fewer {
        return Err("--more must be above --fewer".into());
    }
    if (options.gate_identity.is_some() || options.gate_memory.is_some()) && common.target_cmd.is_some() {
        return Err("only this gateway's identities and memory can be measured".into());
    }
    let stage = Stage::set(0)?;
    let mut figures = Vec::new();
    let mut kinds = kinds(common);
    if options.gate_identity.is_some() {
        kinds.insert(1, Kind::Identity);
    }
    if options.gate_memory.is_some() {
        kinds.extend(Kind::remembering(common)?.into_iter().rev());
    }
    for kind in kinds {
        let (mut fewer, mut more) = (u64::MAX, u64::MAX);
        for _ in 0..options.rounds {
            fewer = fewer.min(instructions_of(&stage, &kind, options.fewer, options.connections)?);
            more = more.min(instructions_of(&stage, &kind, options.more, options.connections)?);
        }
        let file = match (&kind, &options.profile) {
            (Kind::Gateway | Kind::Command(_), Some(file)) => Some(file.clone()),
            (Kind::Identity, Some(file)) => Some(file.with_added_extension("identity")),
            (Kind::Memory, Some(file)) => Some(file.with_added_extension("memory")),
            _ => None,
        };
        if let Some(file) = file {
            fs::copy(profile_of(&stage), file)?;
        }
        figures.push((kind.name(), more.saturating_sub(fewer) as f64 / (options.more - options.fewer) as f64));
    }
    let rows: Vec<Vec<String>> =
        figures.iter().map(|(name, count)| vec![(*name).to_owned(), format!("{count:.0}")]).collect();
    report::table(&["target", "user instructions per call"], &rows);
    let mut within = finish("instructions per call", &figures, options.gate, options.json.as_deref())?;
    if let (Some(gate), Some((_, memory))) = (options.gate_memory, figures.last()) {
        within &= report::within("instructions for an answer from memory", *memory, Some(gate));
    }
    let more = match figures.as_slice() {
        [(_, own), (_, identity), ..] if options.gate_identity.is_some() => identity - own,
        _ => return Ok(within),
    };
    Ok(report::within("instructions more for an identity's call", more, options.gate_identity) && within)
}

/// The gateway, and nginx without its log.
fn kinds(common: &Common) -> Vec<Kind> {
    Kind::chosen(common).into_iter().filter(|kind| !matches!(kind, Kind::Nginx { access_log: true })).collect()
}

fn profile_of(stage: &Stage) -> PathBuf {
    stage.directory.path().join("callgrind.out")
}

fn instructions_of(stage: &Stage, kind: &Kind, calls: u64, connections: u32) -> Outcome<u64> {
    let profile = profile_of(stage);
    if profile.exists() {
        fs::remove_file(&profile)?;
    }
    let wrapper = ["valgrind", "--tool=callgrind", "--fair-sched=try"].map(str::to_owned);
    let wrapper = [&wrapper[..], &[format!("--callgrind-out-file={}", profile.display())]].concat();
    let mut target = stage.start(kind, &wrapper)?;
    load::closed_loop(target.port, connections, &load::row_requests(&stage.key), Until::Requests(calls), || Ok(()))?;
    if !target.process.end() {
        return Err(format!("{} did not end when asked to, so its instructions are not known", kind.name()).into());
    }
    total_of(&profile)
}

/// What callgrind counted in all.
pub fn total_of(profile: &Path) -> Outcome<u64> {
    let text = fs::read_to_string(profile)?;
    // Where counting was turned off before the end, one of the two is nothing.
    let totals = text.lines().filter_map(|line| line.strip_prefix("summary:").or_else(|| line.strip_prefix("totals:")));
    let total = totals.filter_map(|rest| rest.split_whitespace().next()?.parse().ok()).max();
    Ok(total.ok_or("callgrind wrote no total")?)
}

/// System calls per call while the target is saturated, counted by strace over all threads.
pub fn syscalls(common: &Common, options: &SyscallOptions) -> Outcome<bool> {
    if !installed("strace") {
        return Err("strace is not installed".into());
    }
    let stage = Stage::set(0)?;
    let (mut figures, mut rows) = (Vec::new(), Vec::new());
    let kinds = if options.memory { Kind::remembering(common)? } else { kinds(common) };
    for kind in kinds {
        let calls = syscalls_of(&stage, &kind, options.connections)?;
        let total: f64 = calls.iter().map(|(_, count)| count).sum();
        let most: Vec<String> = calls
            .iter()
            .filter(|(_, count)| *count >= 0.01)
            .map(|(name, count)| format!("{name} {count:.2}"))
            .collect();
        rows.push(vec![kind.name().to_owned(), format!("{total:.2}"), most.join(", ")]);
        figures.push((kind.name(), total));
    }
    report::table(&["target", "system calls per call", "of which"], &rows);
    finish("system calls per call", &figures, options.gate, options.json.as_deref())
}

fn syscalls_of(stage: &Stage, kind: &Kind, connections: u32) -> Outcome<Vec<(String, f64)>> {
    let target = stage.start(kind, &[])?;
    let requests = load::row_requests(&stage.key);
    let until =
        |milliseconds| Until::Time { warm: Duration::from_millis(100), window: Duration::from_millis(milliseconds) };
    load::closed_loop(target.port, connections, &requests, until(300), || Ok(()))?;
    if kind.remembers() {
        let once = Until::Requests(requests.len() as u64);
        load::closed_loop(target.port, connections, &requests, once, || Ok(()))?;
    }
    let output = stage.directory.path().join("strace.txt");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-c", "-o"]).arg(&output);
    for pid in target.processes() {
        strace.args(["-p", &pid.to_string()]);
    }
    let mut strace = strace.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    std::thread::sleep(Duration::from_millis(700));
    let served = stage.served()?;
    // Where the origin is not asked, it cannot say how often the target was.
    // So many requests, not so much time: on a slow machine what is done once for each connection would weigh more.
    let number = if kind.remembers() { REMEMBERED } else { FORWARDED };
    let load = load::closed_loop(target.port, connections, &requests, Until::Requests(number), || Ok(()));
    let asked = stage.served()? - served;
    let answered = if kind.remembers() { REMEMBERED } else { asked };
    if let Some(pid) = i32::try_from(strace.id()).ok().and_then(Pid::from_raw) {
        kill_process(pid, Signal::INT)?;
    }
    strace.wait()?;
    load?;
    let text = fs::read_to_string(&output)?;
    let mut calls: Vec<(String, f64)> = text.lines().filter_map(|line| strace_line(line, answered)).collect();
    if calls.is_empty() {
        return Err("strace saw nothing: may it attach to processes here?".into());
    }
    calls.sort_by(|one, other| other.1.total_cmp(&one.1));
    Ok(calls)
}

/// `% time, seconds, usecs/call, calls[, errors], name`, without the sum.
fn strace_line(line: &str, answered: u64) -> Option<(String, f64)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let count: u64 = words.get(3)?.parse().ok()?;
    let name = *words.last()?;
    (name != "total").then(|| (name.to_owned(), count as f64 / answered.max(1) as f64))
}

fn finish(what: &str, figures: &[(&str, f64)], gate: Option<f64>, file: Option<&Path>) -> Outcome<bool> {
    let named = figures.iter().map(|(name, figure)| ((*name).to_owned(), json!(figure)));
    report::json(file, &json!({what: named.collect::<serde_json::Map<_, _>>()}))?;
    let own = figures.first().map_or(f64::NAN, |(_, figure)| *figure);
    Ok(report::within(what, own, gate))
}
