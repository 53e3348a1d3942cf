//! Reads outcomes: metrics, access log and events. It decides nothing and never delays a request.
//!
//! [`Telemetry`] is shared by the process; each runtime has its own [`Recorder`]. Durations are counted in seconds, money in
//! API calls. `requests` count what callers asked, `api_calls_spent` what Salesforce was asked for: one to one only by accident.

mod access;
mod breakers;
mod buckets;
mod budget;
mod cells;
mod heavy;
mod label_sets;
mod labels;
mod line;
mod log;
pub mod metrics;
mod names;
mod objects;
mod output;
mod process;
mod recent;
mod recorder;
mod render;
mod replicas;
mod results;
mod slots;
mod snapshot;
#[cfg(feature = "otlp")]
pub mod spans;
mod spenders;
mod status;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use smol_str::SmolStr;
use tokio::time::Instant;

use self::labels::Capped;
pub use self::line::Value;
pub use self::log::{EventFormat, Level, Log, LogCounts, LogOptions};
use self::metrics::Metrics;
pub use self::names::{InFlight, Names, UNKNOWN};
use self::names::{Org, OrgOccupancy};
pub use self::output::{Memory, Output};
pub use self::process::ProcessSnapshot;
use self::recent::{Recent, Whose};
pub use self::recent::{RecentTrouble, Trouble};
pub use self::render::{TEXT_FORMAT, VERSION};
pub use self::replicas::{CommandsSnapshot, MemberSnapshot, ReplicasSnapshot, SharedSnapshot, StoreSnapshot};
pub use self::snapshot::{
    BreakerSnapshot, BreakersSnapshot, BudgetSnapshot, BufferedBytes, CacheSnapshot, ConfigSnapshot, FacadeSnapshot,
    GenerationsSnapshot, IdentitySnapshot, ListenerSnapshot, ObjectRoom, PaceSnapshot, RetrySnapshot, RuntimeSnapshot,
    SlotsSnapshot, Snapshot, SpendingSnapshot, SpendingSteps, UpstreamSnapshot,
};
pub use self::spenders::{BulkBatches, TopClient, TopClients};
pub use self::status::{CacheEvents, CacheStatus, CacheSummary, CallerStatus, InFlightStatus, Saved, Status, Totals};
use crate::admission::Minute;
use crate::call::Family;
use crate::clock::Clock;
use crate::outcome::{Outcome, PollResult};
use crate::refusal::Reason;

/// How many words and series there may be.
#[derive(Debug, Clone, Copy)]
pub struct TelemetryOptions {
    /// Object names; further ones are `other`.
    pub max_objects: usize,
    /// Salesforce's error codes; further ones are `other`.
    pub max_error_codes: usize,
    /// Series of `requests_total`; beyond, requests are counted without object, and beyond twice that by caller and status.
    pub max_series: usize,
    /// Callers whose budgets are named; further ones are `other` together.
    pub max_callers: usize,
}

impl Default for TelemetryOptions {
    fn default() -> Self {
        Self { max_objects: 500, max_error_codes: 300, max_series: 20_000, max_callers: 500 }
    }
}

/// What all runtimes and the admin listener share.
#[derive(Debug, Clone)]
pub struct Telemetry(Arc<Shared>);

struct Shared {
    clock: Clock,
    started: Instant,
    log: Log,
    metrics: Metrics,
    objects: Capped,
    error_codes: Capped,
    max_series: usize,
    max_callers: usize,
    names: ArcSwap<Names>,
    /// By name, so that a reload finds the cells of an org that stays.
    occupancies: Mutex<HashMap<SmolStr, Arc<OrgOccupancy>>>,
    sources: RwLock<Vec<Source>>,
    recent: Recent,
    #[cfg(feature = "otlp")]
    spans: spans::Spans,
}

/// Fills in one part's figures.
type Source = Box<dyn Fn(&mut Snapshot) + Send + Sync>;

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry").field("objects", &self.objects.len()).finish_non_exhaustive()
    }
}

impl Telemetry {
    /// Nothing counted yet.
    pub fn new(clock: Clock, log: Log, options: TelemetryOptions) -> Self {
        Self(Arc::new(Shared {
            clock,
            started: clock.now(),
            log,
            metrics: Metrics::default(),
            objects: Capped::objects(options.max_objects),
            error_codes: Capped::error_codes(options.max_error_codes),
            max_series: options.max_series,
            max_callers: options.max_callers,
            names: ArcSwap::default(),
            occupancies: Mutex::default(),
            sources: RwLock::default(),
            recent: Recent::default(),
            #[cfg(feature = "otlp")]
            spans: spans::Spans::default(),
        }))
    }

    /// Puts the names of a configuration in force: position is the number in `OrgId` and `CallerId`. Requests that began
    /// before keep the table they began with.
    pub fn set_names<O, C>(&self, orgs: O, callers: C) -> Arc<Names>
    where
        O: IntoIterator<Item: Into<SmolStr>>,
        C: IntoIterator<Item: Into<SmolStr>>,
    {
        let mut occupancies = self.0.occupancies.lock();
        let org = |name: SmolStr| {
            let occupancy = Arc::clone(occupancies.entry(name.clone()).or_default());
            Org { name, occupancy }
        };
        let names = Arc::new(Names {
            orgs: orgs.into_iter().map(Into::into).map(org).collect(),
            callers: callers.into_iter().map(Into::into).collect(),
        });
        // An org that is gone is forgotten once nothing of it is in the air.
        occupancies.retain(|_, occupancy| Arc::strong_count(occupancy) > 1);
        self.0.names.store(Arc::clone(&names));
        names
    }

    /// The names in force. A request takes them once, when it begins.
    pub fn names(&self) -> Arc<Names> {
        self.0.names.load_full()
    }

    /// Makes object names known before any call was seen, for example those the allow-rules name.
    pub fn learn_objects<'a>(&self, objects: impl IntoIterator<Item = &'a str>) {
        for object in objects {
            self.0.objects.id(object, true);
        }
    }

    /// Registers a part of the gateway; `fill` is called at each scrape and must be quick.
    pub fn add_source(&self, fill: impl Fn(&mut Snapshot) + Send + Sync + 'static) {
        self.0.sources.write().push(Box::new(fill));
    }

    /// Counts refusals by which no request ended, because the edge could not read one.
    pub fn add_refusals(&self, reason: Reason, more: u64) {
        if more > 0 {
            let labels = metrics::RefusalLabels { org: UNKNOWN.into(), caller: UNKNOWN.into(), reason };
            self.0.metrics.refusals_total.cell(labels).add(more);
            let whose = Whose { org: UNKNOWN, caller: UNKNOWN, family: Family::Other, template: "" };
            self.0.recent.note(&whose, Trouble::Refused { reason }, more, self.wall());
        }
    }

    /// What went wrong in the last 24 hours, the latest first; a bounded list.
    pub fn recent(&self) -> Vec<RecentTrouble> {
        self.0.recent.list(self.wall())
    }

    /// Now.
    pub fn now(&self) -> Instant {
        self.0.clock.now()
    }

    /// The same, since the Unix epoch.
    pub fn wall(&self) -> Duration {
        self.0.clock.wall(self.now())
    }

    /// For how long the process has been counting.
    pub fn uptime(&self) -> Duration {
        self.now().saturating_duration_since(self.0.started)
    }

    /// Counts a question of the gateway's own what `org` has used.
    pub fn add_poll(&self, org: &str, result: PollResult) {
        self.0.metrics.limits_polls_total.cell(metrics::PollLabels { org: org.into(), result }).add(1);
    }

    /// What all parts say about themselves now.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for fill in self.0.sources.read().iter() {
            fill(&mut snapshot);
        }
        let now = Minute::containing(self.0.clock.wall(self.0.clock.now()));
        let occupancies = self.0.occupancies.lock();
        for budget in &mut snapshot.budgets {
            if let Some(occupancy) = occupancies.get(budget.org.as_str()) {
                budget.top_clients = occupancy.spenders.top(now);
                budget.bulk_batches = occupancy.spenders.batches(now);
            }
        }
        drop(occupancies);
        #[cfg(feature = "otlp")]
        {
            let spans::SpanCounts { sent, dropped, failed } = self.0.spans.counts();
            snapshot.spans = vec![("sent", sent), ("dropped", dropped), ("failed", failed)];
        }
        snapshot
    }

    /// The spans that wait for the collector.
    #[cfg(feature = "otlp")]
    pub fn spans(&self) -> &spans::Spans {
        &self.0.spans
    }

    /// The log.
    pub fn log(&self) -> &Log {
        &self.0.log
    }

    /// A recorder for one runtime.
    pub fn recorder(&self) -> Recorder {
        Recorder {
            counting: recorder::Counting::new(Arc::clone(&self.0)),
            access: self.0.log.access(),
            shared: Arc::clone(&self.0),
        }
    }
}

/// What is known about a request's end besides its outcome.
#[derive(Debug, Clone, Copy)]
pub struct Finish<'a> {
    /// The names in force when it began.
    pub names: &'a Arc<Names>,
    /// Now; stands for the end of what has not ended.
    pub now: Instant,
    /// The caller's address.
    pub remote: Option<IpAddr>,
    /// Which HTTP the caller speaks.
    pub http: http::Version,
}

/// Records the outcomes of one runtime. Share it by `Arc`; its locks are for the futures' sake, not for sharing between
/// runtimes.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
    counting: recorder::Counting,
    access: Option<log::AccessLog>,
}

impl Recorder {
    /// Counts and logs a request that ended. Exactly once for each.
    pub fn finish(&self, outcome: &Outcome, finish: &Finish<'_>) {
        self.counting.request(outcome, finish, |words| {
            #[cfg(feature = "otlp")]
            if let Some(span) = outcome.span.as_deref() {
                self.shared.trace(span, outcome, words, finish);
            }
            if let Some(access) = &self.access {
                let wall = self.shared.clock.wall(outcome.ended.unwrap_or(finish.now));
                access.append(|out, stamp| access::write(out, stamp, wall, outcome, words, finish));
            }
        });
    }
}

#[cfg(test)]
mod tests;
