//! What the page shows, in one piece: one org in full, the others in a line. Bounded whatever the number of callers.

use serde::Serialize;

use super::concerns::{Concern, Severity, concerns};
use super::words::remedy;
use super::{Admin, Readiness};
use crate::admission::{CallerBudget, Level, OrgBudget};
use crate::config::DailyMode;
use crate::exchange::vault::IdentitySnapshot;
use crate::telemetry::{
    BreakersSnapshot, BudgetSnapshot, BulkBatches, CacheSummary, ConfigSnapshot, LogCounts, RecentTrouble,
    ReplicasSnapshot, SlotsSnapshot, Snapshot, SpendingSnapshot, TopClient, UpstreamSnapshot, VERSION,
};

/// Callers in the table; further ones are summed up.
const CALLERS: usize = 40;
/// Paused callers shown besides, so that they can be resumed.
const PAUSED: usize = 40;
/// Long calls shown, the oldest.
const CALLS: usize = 12;
/// Troubles shown, the latest.
const TROUBLES: usize = 40;
/// Sentences of what is wrong.
const CONCERNS: usize = 20;
/// Clients of unknown callers shown.
const CLIENTS: usize = 5;
/// Replicas shown.
const REPLICAS: usize = 40;
/// Other orgs in the list.
const ORGS: usize = 200;

/// The page's data at one moment.
#[derive(Debug, Serialize)]
pub struct View {
    version: &'static str,
    /// Seconds since the Unix epoch.
    now_seconds: u64,
    uptime_seconds: u64,
    readiness: Readiness,
    /// Every org, for choosing one.
    orgs: Vec<OrgLine>,
    /// The chosen one, if there is any.
    org: Option<OrgView>,
    /// What is wrong with the chosen org and the gateway.
    concerns: Vec<Concern>,
    recent: Vec<RecentLine>,
    /// The replicas that share state, if this one does.
    replicas: Option<ReplicasSnapshot>,
    cache: CacheSummary,
    config: ConfigSnapshot,
    log: LogCounts,
}

/// One org among others.
#[derive(Debug, Serialize)]
struct OrgLine {
    name: String,
    headroom: Option<u64>,
    ceiling: Option<u64>,
    level: Level,
    /// The worst that is wrong with it.
    worst: Option<Severity>,
}

/// One org in full.
#[derive(Debug, Serialize)]
struct OrgView {
    name: String,
    mode: DailyMode,
    #[serde(flatten)]
    budget: OrgBudget,
    returning_by_hour: [u64; 24],
    /// The largest users, and who is paused.
    callers: Vec<CallerBudget>,
    /// All the others.
    others: Others,
    spending: Option<SpendingSnapshot>,
    slots: Option<SlotsSnapshot>,
    upstream: Option<UpstreamSnapshot>,
    breakers: Option<BreakersSnapshot>,
    identities: Vec<IdentitySnapshot>,
    bulk_batches: BulkBatches,
    /// Who spends in nobody's name, by what it calls itself.
    unnamed: Vec<TopClient>,
}

/// Callers that are not shown one by one.
#[derive(Debug, Default, Serialize)]
struct Others {
    callers: usize,
    used: u64,
    pace_per_hour: u64,
}

/// A trouble and what to do about it.
#[derive(Debug, Serialize)]
struct RecentLine {
    #[serde(flatten)]
    trouble: RecentTrouble,
    remedy: &'static str,
}

impl View {
    /// What `admin` knows, with the org called `chosen` in full, or the first one if there is none of that name.
    pub(super) fn of(admin: &Admin, chosen: &str) -> Self {
        let telemetry = &admin.telemetry;
        let mut snapshot = telemetry.snapshot();
        let recent = telemetry.recent();
        let (readiness, log) = (admin.readiness(), telemetry.log().counts());
        let now_seconds = telemetry.wall().as_secs();
        let all = concerns(&snapshot, &recent, &readiness, log, now_seconds);
        let line = |budget: &BudgetSnapshot| OrgLine {
            name: budget.org.clone(),
            headroom: budget.budget.headroom,
            ceiling: budget.budget.ceiling,
            level: budget.budget.level,
            worst: all.iter().filter(|one| one.org.as_deref() == Some(&*budget.org)).map(|one| one.severity).min(),
        };
        let orgs = snapshot.budgets.iter().take(ORGS).map(line).collect();
        let place = snapshot.budgets.iter().position(|budget| budget.org == chosen).unwrap_or(0);
        let org = (place < snapshot.budgets.len()).then(|| snapshot.budgets.swap_remove(place));
        let name = org.as_ref().map(|org| org.org.clone()).unwrap_or_default();
        let here = |of: &str| of == name || of == crate::telemetry::UNKNOWN;
        let concerns = all.into_iter().filter(|one| one.org.as_deref().is_none_or(here)).take(CONCERNS).collect();
        let trouble = |trouble: RecentTrouble| RecentLine { remedy: remedy(&trouble.trouble), trouble };
        let mut replicas = snapshot.replicas.take();
        if let Some(replicas) = &mut replicas {
            replicas.replicas.truncate(REPLICAS);
            replicas.orgs.retain(|org| org.org == name);
        }
        let recent = recent.into_iter().filter(|line| here(&line.org)).take(TROUBLES).map(trouble).collect();
        Self {
            version: VERSION,
            now_seconds,
            uptime_seconds: telemetry.uptime().as_secs(),
            readiness,
            orgs,
            org: org.map(|org| OrgView::of(admin, org, &mut snapshot)),
            concerns,
            recent,
            replicas,
            cache: telemetry.cache_summary(&name, snapshot.cache),
            config: snapshot.config,
            log,
        }
    }
}

impl OrgView {
    fn of(admin: &Admin, budget: BudgetSnapshot, snapshot: &mut Snapshot) -> Self {
        let spending = admin.spending(&budget);
        let name = budget.org;
        let of = |org: &str| org == name;
        let slots = snapshot.slots.iter().position(|slots| of(&slots.org)).map(|place| {
            let mut slots = snapshot.slots.swap_remove(place);
            slots.view.calls.truncate(CALLS);
            if let Some(apex) = &mut slots.apex {
                apex.calls.truncate(CALLS);
            }
            slots
        });
        let upstream = snapshot.upstreams.iter().find(|upstream| of(&upstream.org)).cloned();
        let breakers = snapshot.breakers.iter().find(|breakers| of(&breakers.org)).cloned();
        let identities = snapshot.identities.iter().filter(|identity| of(&identity.org)).cloned().collect();
        let mut unnamed = budget.top_clients.by_client;
        if unnamed.iter().all(|client| client.name == "none") {
            unnamed = budget.top_clients.by_user_agent;
        }
        unnamed.truncate(CLIENTS);

        let (mut callers, mut others, mut paused) = (Vec::new(), Others::default(), 0);
        for (place, caller) in budget.callers.into_iter().enumerate() {
            let shown_as_paused = caller.paused && paused < PAUSED;
            if place < CALLERS || shown_as_paused {
                paused += usize::from(shown_as_paused);
                callers.push(caller);
            } else {
                others.callers += 1;
                others.used += caller.used;
                others.pace_per_hour += caller.pace_per_hour;
            }
        }
        Self {
            name,
            mode: budget.mode,
            budget: budget.budget,
            returning_by_hour: budget.returning_by_hour,
            callers,
            others,
            spending,
            slots,
            upstream,
            breakers,
            identities,
            bulk_batches: budget.bulk_batches,
            unnamed,
        }
    }
}
