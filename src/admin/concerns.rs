//! What is wrong now, in plain sentences with what to do about it. Pure: reads what the page shows anyway.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use super::Readiness;
use super::words::{counted, grouped, remedy};
use crate::admission::{Door, Footing, Level, OrgBudget, Warning};
use crate::call::closed_list;
use crate::config::{DailyMode, SlotMode};
use crate::exchange::breaker::BreakerState;
use crate::exchange::vault::State;
use crate::refusal::Reason;
use crate::telemetry::{
    BreakersSnapshot, BudgetSnapshot, IdentitySnapshot, ListenerSnapshot, LogCounts, RecentTrouble, SlotsSnapshot,
    Snapshot, Trouble,
};

/// Sentences about troubles of callers, at most.
const TROUBLES: usize = 6;
/// Paused callers that are named in one sentence.
const NAMED: usize = 5;
/// A certificate that ends sooner is worth a look; the quarter of it is urgent.
const CERTIFICATE_DAYS: u64 = 21;

closed_list! {
    /// How much it matters.
    Severity {
        /// Somebody must act now.
        Urgent = "urgent",
        /// Somebody should look.
        Warning = "warning",
        /// Good to know.
        Note = "note",
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Concern {
    /// How much it matters.
    pub severity: Severity,
    /// The org it is about; none for the gateway itself.
    pub org: Option<String>,
    /// What is wrong. `{at}` stands for a time.
    pub what: String,
    /// That time, in seconds since the Unix epoch.
    pub at_seconds: Option<u64>,
    /// What to do.
    pub remedy: String,
}

/// Collects them.
struct Concerns {
    org: Option<String>,
    list: Vec<Concern>,
}

impl Concerns {
    fn add(&mut self, severity: Severity, what: impl Into<String>, remedy: impl Into<String>) {
        self.add_at(severity, what, None, remedy);
    }

    fn add_at(&mut self, severity: Severity, what: impl Into<String>, at: Option<u64>, remedy: impl Into<String>) {
        let (what, remedy) = (what.into(), remedy.into());
        self.list.push(Concern { severity, org: self.org.clone(), what, at_seconds: at, remedy });
    }
}

/// All there is to worry about at `now` (seconds since the Unix epoch), what matters most first.
pub(super) fn concerns(
    snapshot: &Snapshot,
    recent: &[RecentTrouble],
    readiness: &Readiness,
    log: LogCounts,
    now: u64,
) -> Vec<Concern> {
    let mut concerns = Concerns { org: None, list: Vec::new() };
    process(&mut concerns, snapshot, readiness, log);
    for listener in &snapshot.listeners {
        certificate(&mut concerns, listener, now);
    }
    for budget in &snapshot.budgets {
        concerns.org = Some(budget.org.clone());
        daily(&mut concerns, budget, now);
        paused(&mut concerns, budget);
    }
    for slots in &snapshot.slots {
        concerns.org = Some(slots.org.clone());
        long_calls(&mut concerns, slots);
    }
    for breakers in &snapshot.breakers {
        concerns.org = Some(breakers.org.clone());
        held_back(&mut concerns, breakers);
    }
    for identity in &snapshot.identities {
        concerns.org = Some(identity.org.clone());
        session(&mut concerns, identity);
    }
    troubles(&mut concerns, recent);
    let mut list = concerns.list;
    list.sort_by_key(|concern| concern.severity);
    list
}

fn process(concerns: &mut Concerns, snapshot: &Snapshot, readiness: &Readiness, log: LogCounts) {
    if readiness.draining {
        concerns.add(Severity::Urgent, "The gateway is shutting down.", "New requests go to another replica.");
    }
    for check in readiness.checks.iter().filter(|check| !check.ok) {
        let why = check.reason.as_deref().unwrap_or("no reason given");
        concerns.add(
            Severity::Urgent,
            format!("The gateway is not ready: {}: {why}.", check.name),
            "Look at the log; a restart opens listeners and workers again.",
        );
    }
    if !snapshot.config.last_reload_successful {
        let why = snapshot.config.last_reload_error.as_deref().unwrap_or("the log says why");
        concerns.add_at(
            Severity::Warning,
            format!("The configuration could not be reloaded at {{at}}: {why}"),
            Duration::try_from_secs_f64(snapshot.config.last_reload_timestamp_seconds).ok().map(|at| at.as_secs()),
            "The one before stays in force. Correct the file; it is loaded by itself.",
        );
    }
    for check in readiness.checks.iter().filter(|check| check.degraded) {
        let why = check.reason.as_deref().unwrap_or("no reason given");
        concerns.add(
            Severity::Warning,
            format!("Something is missing: {}: {why}", check.name),
            "Calls go on. Look at what the log says of it, and at the server itself; nothing has to be done here once it is back.",
        );
    }
    if log.dropped > 0 {
        concerns.add(
            Severity::Warning,
            format!("{} lost since the start.", counted(log.dropped, "log line was", "log lines were")),
            "Whoever reads the log is too slow, or its disk is full.",
        );
    }
    let buffered = &snapshot.buffered_bytes;
    if buffered.limit > 0 && buffered.used >= buffered.limit / 10 * 9 {
        concerns.add(
            Severity::Warning,
            "Request bodies fill nine tenths of the memory they may take.",
            "Raise limits.buffered_bytes_total, or have apps send smaller bodies.",
        );
    }
}

fn certificate(concerns: &mut Concerns, listener: &ListenerSnapshot, now: u64) {
    let Some(ends) = listener.certificate_not_after_seconds else { return };
    let days = ends.saturating_sub(now) / 86_400;
    if days >= CERTIFICATE_DAYS {
        return;
    }
    let severity = if days < CERTIFICATE_DAYS / 4 { Severity::Urgent } else { Severity::Warning };
    let what = if ends <= now {
        format!("The certificate of {} has expired.", listener.listener)
    } else {
        format!("The certificate of {} expires in {}.", listener.listener, counted(days, "day", "days"))
    };
    concerns.add(severity, what, "Put a new one in its place; it is taken up within seconds.");
}

fn daily(concerns: &mut Concerns, snapshot: &BudgetSnapshot, now: u64) {
    let budget = &snapshot.budget;
    match snapshot.mode {
        DailyMode::Enforce => {}
        DailyMode::Observe => concerns.add(
            Severity::Note,
            "The daily allowance is only watched: nothing is refused because of it.",
            "Set daily.mode to enforce once the figures look right.",
        ),
        DailyMode::Off => return,
    }
    exhaustion(concerns, budget, now);
    for warning in &budget.warnings {
        budget_warning(concerns, *warning);
    }
    if let Door::Closed { until } = budget.door {
        concerns.add_at(
            Severity::Urgent,
            "Salesforce refuses calls because the org's allowance is used up. The next try is at {at}.",
            Some(until.begins().as_secs()),
            "Find the largest spender below and pause it; what others use outside the gateway counts too.",
        );
    }
    if budget.footing == Footing::Awaiting && budget.used > 0 {
        concerns.add(
            Severity::Warning,
            "Salesforce has not yet said what is left; only few calls are let through.",
            "It says so with its first answer. If none comes, look at the upstream below.",
        );
    }
    let (dark, own) = (budget.dark, budget.own);
    if dark > own && budget.limit.is_some_and(|limit| dark >= limit / 10) {
        concerns.add(
            Severity::Warning,
            format!("{} of the last 24 hours did not come through the gateway.", counted(dark, "call", "calls")),
            "Another app uses the org directly: find it in Salesforce's event logs and point it here.",
        );
    }
    let batches = snapshot.bulk_batches;
    if batches.limit > 0 && batches.used >= batches.limit / 10 * 8 {
        concerns.add(
            Severity::Warning,
            format!("{} of the org's {} Bulk batches are used.", grouped(batches.used), grouped(batches.limit)),
            "Have bulk jobs send larger batches.",
        );
    }
}

fn exhaustion(concerns: &mut Concerns, budget: &OrgBudget, now: u64) {
    let act = "Pause the largest spender below, or ask it to go slower.";
    let returning = counted(budget.forecast.returning_1h, "call returns", "calls return");
    if budget.headroom == Some(0) {
        let wait = format!("{act} {returning} within the hour.");
        concerns.add(Severity::Urgent, "No calls are left beyond what is guaranteed to callers.", wait);
    } else if let Some(at) = budget.forecast.runs_out {
        let at = at.begins().as_secs();
        let severity = match at.saturating_sub(now) / 3_600 {
            0 => Severity::Urgent,
            1..4 => Severity::Warning,
            _ => Severity::Note,
        };
        concerns.add_at(severity, "At the present pace the calls run out about {at}.", Some(at), act);
    }
    let of_ceiling = budget.ceiling.filter(|ceiling| *ceiling > 0).map(|ceiling| budget.used * 100 / ceiling);
    match of_ceiling {
        Some(share @ 95..) if budget.headroom != Some(0) => {
            concerns.add(Severity::Urgent, format!("{share} % of the calls are used."), act);
        }
        Some(share @ 80..95) => concerns.add(Severity::Warning, format!("{share} % of the calls are used."), act),
        _ => {}
    }
    let level = match budget.level {
        Level::Normal => return,
        Level::Lean => "Calls are getting scarce: callers share what is left by weight.",
        Level::PaceBatch => "Calls are scarce: batch work goes no faster than calls come back.",
        Level::StopBatch => "Calls are scarce: batch work gets only what is guaranteed to it.",
        Level::StopStandard => "Calls are very scarce: only interactive callers get more than is guaranteed to them.",
    };
    let severity = if budget.level >= Level::StopBatch { Severity::Warning } else { Severity::Note };
    concerns.add(severity, level, "It ends by itself as calls come back; pausing a large spender is quicker.");
}

fn budget_warning(concerns: &mut Concerns, warning: Warning) {
    match warning {
        Warning::FloorsScaled { per_mille } => concerns.add(
            Severity::Warning,
            format!("Only {} % of the guaranteed calls can be held for their callers.", per_mille / 10),
            "The floors add up to more than is left of the org's limit: lower them, or find who uses it outside.",
        ),
        Warning::NoReading => concerns.add(
            Severity::Warning,
            "Salesforce does not say what is left, so nothing is refused.",
            "Let the poller's user read /limits, or set daily.limit or daily.assume.",
        ),
        Warning::Assumed => concerns.add(
            Severity::Note,
            "Salesforce does not say what is left; the limit is the assumed one.",
            "Let the poller's user read /limits.",
        ),
        Warning::OldReading { minutes } => concerns.add(
            Severity::Warning,
            format!("Salesforce last said what is left {} ago.", counted(minutes.into(), "minute", "minutes")),
            "Calls by others since then are not seen. Set daily.poll.",
        ),
        // Said by the door.
        Warning::LimitExceeded => {}
        Warning::BankLost => concerns.add(
            Severity::Urgent,
            "What is spent cannot be written down.",
            "Look at the disk under state.path, or at the store; the log says what it answers.",
        ),
    }
}

fn paused(concerns: &mut Concerns, snapshot: &BudgetSnapshot) {
    let remedy = "Resume it below when it may go on.";
    for class in &snapshot.budget.paused_classes {
        concerns.add(Severity::Warning, format!("All {class} calls are paused."), remedy);
    }
    let all: Vec<_> = snapshot.callers.iter().filter(|caller| caller.paused).map(|caller| &*caller.name).collect();
    match all.as_slice() {
        [] => {}
        [one] => concerns.add(Severity::Note, format!("{one} is paused."), remedy),
        many if many.len() <= NAMED => {
            concerns.add(Severity::Note, format!("{} are paused.", many.join(", ")), "Resume them below.");
        }
        many => concerns.add(Severity::Note, format!("{} callers are paused.", many.len()), "Resume them below."),
    }
}

fn long_calls(concerns: &mut Concerns, snapshot: &SlotsSnapshot) {
    if snapshot.mode == SlotMode::Off {
        return;
    }
    let view = &snapshot.view;
    let elsewhere = view.shared.map_or(0, |shared| shared.used_elsewhere as usize);
    let held = view.live + view.predicted + view.ghost + view.overdraft + elsewhere;
    let slots = view.effective as usize;
    let look = "Look at the oldest calls below and ask their caller to ask for less at once.";
    if held >= slots.max(1) {
        concerns.add(Severity::Urgent, format!("All {slots} places for long calls are taken."), look);
    } else if held * 10 >= slots * 8 {
        concerns.add(Severity::Warning, format!("{held} of {slots} places for long calls are taken."), look);
    }
    if let Some(unheard) = view.shared.map(|shared| shared.unheard).filter(|unheard| *unheard > 0) {
        concerns.add(
            Severity::Note,
            format!("{unheard} places for long calls are kept for replicas that are not heard of."),
            "They come back once nothing those sent can be in the air.",
        );
    }
    if view.effective < view.slots {
        concerns.add(
            Severity::Warning,
            format!("Salesforce refused long calls: {} of {} places are used for now.", view.effective, view.slots),
            "Calls outside the gateway hold places too; it recovers by itself.",
        );
    }
    let longest = view.queue.iter().map(|class| class.longest_seconds).fold(0.0, f64::max);
    if longest >= 30.0 {
        let waiting: usize = view.queue.iter().map(|class| class.waiting).sum();
        concerns.add(
            Severity::Warning,
            format!(
                "{} for a turn, the longest for {longest:.0} s.",
                counted(waiting as u64, "call waits", "calls wait")
            ),
            look,
        );
    }
}

fn held_back(concerns: &mut Concerns, snapshot: &BreakersSnapshot) {
    for one in snapshot.families.iter().filter(|one| one.state != BreakerState::Closed) {
        let (severity, remedy) = match (one.by_hand, one.state) {
            (true, _) => (Severity::Warning, "An operator ordered it: close the breaker below when they may go on."),
            (_, BreakerState::Open) => {
                (Severity::Urgent, "Salesforce fails; see its status page. It is asked by itself.")
            }
            _ => (Severity::Warning, "Salesforce answers again; more and more is let through."),
        };
        concerns.add(severity, format!("Calls to the API {} are held back.", one.family), remedy);
    }
}

fn session(concerns: &mut Concerns, identity: &IdentitySnapshot) {
    let Some(trouble) = identity.trouble else { return };
    let (severity, remedy) = if identity.state == State::Refused {
        (Severity::Urgent, "Correct its secret or connected app, then reload the configuration.")
    } else {
        (Severity::Warning, "It tries again by itself; look at its token endpoint.")
    };
    concerns.add(severity, format!("The identity {} has no token: {trouble}.", identity.identity), remedy);
}

/// What callers met in the last minutes: one sentence for each trouble that somebody should look at, and one for all that
/// the apps made themselves.
fn troubles(concerns: &mut Concerns, recent: &[RecentTrouble]) {
    let lately = recent.iter().filter(|line| line.lately > 0);
    let (own, mut worst): (Vec<_>, Vec<_>) =
        lately.filter_map(|line| Some((act(line)?, line))).partition(|(severity, _)| *severity == Severity::Note);
    worst.sort_by_key(|(severity, line)| (*severity, std::cmp::Reverse(line.lately)));
    for (severity, line) in worst.into_iter().take(TROUBLES) {
        let calls = counted(line.lately, "call", "calls");
        let caller = &line.caller;
        let what = match &line.trouble {
            Trouble::Refused { reason } => {
                format!("{calls} of {caller} refused in the last minutes: {}.", plain(reason.as_str()))
            }
            Trouble::Failed { kind, code } if code == "none" => {
                format!("{calls} of {caller} failed at Salesforce in the last minutes: {}.", plain(kind))
            }
            Trouble::Failed { kind, code } => {
                format!("{calls} of {caller} failed at Salesforce in the last minutes: {} ({code}).", plain(kind))
            }
            Trouble::Partial { object, code } => format!(
                "{} of {caller} failed inside answers that look well: {object}, {code}.",
                counted(line.lately, "record", "records")
            ),
            Trouble::UnknownOutcome | Trouble::WouldRefuse { .. } => {
                format!("Of {calls} of {caller} nobody knows whether they were done.")
            }
        };
        concerns.org = Some(line.org.to_string());
        concerns.add(severity, what, remedy(&line.trouble));
    }
    let mut by_org = BTreeMap::<&str, (u64, BTreeSet<&str>)>::new();
    for (_, line) in own {
        let (calls, callers) = by_org.entry(&line.org).or_default();
        *calls += line.lately;
        callers.insert(&line.caller);
    }
    for (org, (calls, callers)) in by_org {
        let names: Vec<_> = callers.iter().copied().take(NAMED).collect();
        let more = callers.len().saturating_sub(names.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let calls = counted(calls, "call", "calls");
        concerns.org = Some(org.to_owned());
        concerns.add(
            Severity::Note,
            format!("{calls} of {}{more} failed lately by what the apps themselves asked.", names.join(", ")),
            "The list of refused and failed calls says what each should change.",
        );
    }
}

/// How much a trouble of the last minutes matters to an operator; `None` for what is said elsewhere or is the caller's own.
fn act(line: &RecentTrouble) -> Option<Severity> {
    match &line.trouble {
        Trouble::Refused { reason } => match reason {
            Reason::Internal => Some(Severity::Urgent),
            Reason::UpstreamUnreachable
            | Reason::UpstreamTls
            | Reason::UpstreamGarbage
            | Reason::UpstreamTimeout
            | Reason::UpstreamReset
            | Reason::UpstreamBusy
            | Reason::OrgAllowance
            | Reason::CallerCeiling
            | Reason::Shed
            | Reason::SlotsBusy
            | Reason::QueueFull
            | Reason::BuffersFull
            | Reason::TooManyConnections
            | Reason::IdentityRefused
            | Reason::IdentityUnavailable
            | Reason::BudgetUnready => Some(Severity::Warning),
            // Said with the unknown outcome and the breaker themselves.
            Reason::OutcomeUnknown | Reason::CircuitOpen | Reason::Paused | Reason::Draining => None,
            _ => Some(Severity::Note),
        },
        Trouble::UnknownOutcome | Trouble::Partial { .. } => Some(Severity::Warning),
        Trouble::Failed { kind, .. } => match *kind {
            "permanent" | "schema" | "governor" | "partial" => Some(Severity::Note),
            _ => Some(Severity::Warning),
        },
        Trouble::WouldRefuse { .. } => None,
    }
}

/// `caller_ceiling` as `caller ceiling`.
fn plain(word: &str) -> String {
    word.replace('_', " ")
}

#[cfg(test)]
mod tests;
