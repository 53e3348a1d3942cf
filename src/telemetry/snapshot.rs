//! What the gateway's parts say about themselves at one moment.
//!
//! Each part registers a closure that fills in its own figures. `/metrics` and `/api/v1/status` read the same
//! [`Snapshot`], so that a number seen in two places comes from one field. Its members are the documented members of the
//! status answer.

use serde::Serialize;
use smol_str::SmolStr;

use super::replicas::ReplicasSnapshot;
use super::spenders::{BulkBatches, TopClients};
use crate::admission::bank::Standing;
use crate::admission::slots::SlotsView;
use crate::admission::{CallerBudget, OrgBudget, PaceBudget};
use crate::call::Family;
use crate::config::{BreakerMode, DailyMode, PaceMode, SlotMode};
pub use crate::edge::facade::FacadeSnapshot;
use crate::exchange::breaker::BreakerState;
pub use crate::exchange::vault::IdentitySnapshot;
use crate::outcome::{FailureKind, Purse};

/// Figures of all parts, read at one scrape.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Snapshot {
    /// The configuration in force.
    pub config: ConfigSnapshot,
    /// Every listener.
    pub listeners: Vec<ListenerSnapshot>,
    /// Every runtime.
    pub runtimes: Vec<RuntimeSnapshot>,
    /// Bytes buffered for bodies.
    pub buffered_bytes: BufferedBytes,
    /// Answers kept in memory.
    pub cache: CacheSnapshot,
    /// What replicas tell each other of each org's changes; empty if there is one replica only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub generations: Vec<GenerationsSnapshot>,
    /// Every org's connections to Salesforce, summed over runtimes.
    pub upstreams: Vec<UpstreamSnapshot>,
    /// Every org's budget.
    pub budgets: Vec<BudgetSnapshot>,
    /// Every org's slots and queue.
    pub slots: Vec<SlotsSnapshot>,
    /// Every org's breakers.
    pub breakers: Vec<BreakersSnapshot>,
    /// Every identity.
    pub identities: Vec<IdentitySnapshot>,
    /// Every org's own log-in.
    pub facades: Vec<FacadeSnapshot>,
    /// This replica and the others, where several share state.
    pub replicas: Option<ReplicasSnapshot>,
    /// Spans of traced requests, by what became of them.
    pub spans: Vec<(&'static str, u64)>,
}

/// One org's daily budget. Numbers are API calls; minutes are counted from the Unix epoch.
#[derive(Debug, Clone, Serialize)]
pub struct BudgetSnapshot {
    /// The org's name.
    pub org: String,
    /// Whether it is enforced: `off`, `observe` or `enforce`.
    pub mode: DailyMode,
    /// The org as a whole.
    #[serde(flatten)]
    pub budget: OrgBudget,
    /// What comes back in each of the next 24 hours.
    pub returning_by_hour: [u64; 24],
    /// How the books stand that replicas share; absent where they do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<Standing>,
    /// Every caller that is configured or has used anything, the largest user first.
    pub callers: Vec<CallerBudget>,
    /// Every caller that has a pace.
    pub paces: Vec<PaceSnapshot>,
    /// Who spends in the name of the caller that everybody is whom nothing else matches.
    pub top_clients: TopClients,
    /// Bulk batches made.
    pub bulk_batches: BulkBatches,
}

/// Who spent one org's calls when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SpendingSnapshot {
    /// The org's name.
    pub org: String,
    /// Callers named below: those that spent most in 24 hours, and those that spend fastest now.
    pub callers: Vec<String>,
    /// The last 24 hours.
    pub day: SpendingSteps,
    /// The last hour.
    pub hour: SpendingSteps,
}

/// Calls by steps of time, the oldest first; the last step is under way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SpendingSteps {
    /// When the first step begins, in minutes since the Unix epoch.
    pub begins: u32,
    /// Minutes of a step.
    pub minutes: u32,
    /// Of each named caller, in their order.
    pub callers: Vec<Vec<u64>>,
    /// Of all others together.
    pub others: Vec<u64>,
}

/// One caller's pace at one org.
#[derive(Debug, Clone, Serialize)]
pub struct PaceSnapshot {
    /// The caller's name.
    pub caller: String,
    /// Whether it is enforced: `observe` or `enforce`.
    pub mode: PaceMode,
    /// What it allows, and who waits.
    #[serde(flatten)]
    pub pace: PaceBudget,
}

/// One org's slots for calls that run long, and its queue.
#[derive(Debug, Clone, Serialize)]
pub struct SlotsSnapshot {
    /// The org's name.
    pub org: String,
    /// Whether they are enforced: `off`, `observe` or `enforce`.
    pub mode: SlotMode,
    /// What there is to see.
    #[serde(flatten)]
    pub view: SlotsView,
    /// The same of the limit for Apex, if that is guarded.
    pub apex: Option<SlotsView>,
}

/// One org's circuit breakers.
#[derive(Debug, Clone, Serialize)]
pub struct BreakersSnapshot {
    /// The org's name.
    pub org: String,
    /// Whether they are enforced: `off`, `observe` or `enforce`.
    pub mode: BreakerMode,
    /// One for each API.
    pub families: Vec<BreakerSnapshot>,
    /// Users of one API each whose own breakers are not closed.
    pub users_held_back: u64,
    /// What may still be made once more; nothing if nothing is.
    pub retries: Vec<RetrySnapshot>,
}

/// One budget for calls that are made once more.
#[derive(Debug, Clone, Serialize)]
pub struct RetrySnapshot {
    /// For which failures: `usual`, or `lock` for records that somebody else changes.
    pub reason: Purse,
    /// Repetitions it allows in ten seconds.
    pub allowed: u64,
    /// Those of them that are left now.
    pub left: u64,
}

/// One circuit breaker.
#[derive(Debug, Clone, Serialize)]
pub struct BreakerSnapshot {
    /// The API it is for.
    pub family: Family,
    /// What it does: `closed`, `open` or `half_open`.
    pub state: BreakerState,
    /// Whether an operator holds it open.
    pub by_hand: bool,
    /// How often it has opened since the start.
    pub opened: u64,
    /// When it will find out whether Salesforce is well, if it is open.
    pub finds_out_in_seconds: Option<f64>,
}

/// The configuration and its reloads.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ConfigSnapshot {
    /// The file it came from; absent when there is none.
    pub path: Option<String>,
    /// Whether the last attempt to load it succeeded.
    pub last_reload_successful: bool,
    /// When that was, in seconds since the Unix epoch.
    pub last_reload_timestamp_seconds: f64,
    /// What was wrong with it, if it failed.
    pub last_reload_error: Option<String>,
    /// Attempts that succeeded since the start.
    pub reloads_succeeded: u64,
    /// Attempts that failed since the start.
    pub reloads_failed: u64,
}

/// One listener.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ListenerSnapshot {
    /// Its address as configured.
    pub listener: String,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Connections open now.
    pub connections: u64,
    /// Connections turned away since the start, because there were too many or they were not what they should be.
    pub connections_refused: u64,
    /// When the certificate expires, in seconds since the Unix epoch; absent without TLS.
    pub certificate_not_after_seconds: Option<u64>,
}

/// One runtime.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RuntimeSnapshot {
    /// Its name.
    pub runtime: String,
    /// Tracked tasks running.
    pub tasks: u64,
    /// Callers' connections it serves.
    pub connections: u64,
}

/// Bytes buffered for bodies.
#[derive(Debug, Clone, Default, Serialize)]
pub struct BufferedBytes {
    /// Held now.
    pub used: u64,
    /// The bound.
    pub limit: u64,
}

/// Answers kept in memory.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CacheSnapshot {
    /// Bytes they take, keys and heads counted.
    pub bytes: u64,
    /// Bytes they may take; 0 if there is no cache.
    pub limit: u64,
    /// How many there are.
    pub answers: u64,
    /// Questions being asked for which others may wait.
    pub flights: u64,
    /// Of those bytes and answers, the ones about each object.
    #[serde(skip)]
    pub objects: Vec<ObjectRoom>,
}

/// What replicas tell each other of one org's changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GenerationsSnapshot {
    /// The org's name.
    pub org: String,
    /// Why nothing is kept or answered from memory, if that is so.
    pub doubt: Option<&'static str>,
    /// Other replicas that are heard.
    pub replicas: u64,
    /// Events told to them.
    pub sent: u64,
    /// Events they told.
    pub received: u64,
    /// How many times something they told may have been missed.
    pub gaps: u64,
}

/// The answers kept about one object.
#[derive(Debug, Clone, Default)]
pub struct ObjectRoom {
    /// The org's name.
    pub org: SmolStr,
    /// The object, in lower case; `none` for answers about none.
    pub object: SmolStr,
    /// Bytes they take.
    pub bytes: u64,
    /// How many there are.
    pub answers: u64,
}

/// Connections to one org.
#[derive(Debug, Clone, Default, Serialize)]
pub struct UpstreamSnapshot {
    /// The org's name.
    pub org: String,
    /// Open and unused.
    pub idle: u64,
    /// Carrying a call.
    pub busy: u64,
    /// Being opened.
    pub connecting: u64,
    /// Opened since the start.
    pub connects: u64,
    /// Attempts to open one that failed since the start, by what failed.
    pub connects_failed: Vec<(FailureKind, u64)>,
    /// Messages that the connection gave back unsent and that were sent again on another.
    pub resent: u64,
    /// Sent calls that go on although their caller left.
    pub abandoned: u64,
}
