//! `/api/v1/status`: the same figures as the metrics, for people and scripts.

use std::collections::BTreeMap;

use serde::Serialize;

use super::objects::ObjectStatus;
use super::render::VERSION;
use super::{CacheSnapshot, LogCounts, ProcessSnapshot, Snapshot, Telemetry};
use crate::call::Class;
use crate::outcome::{CacheResult, Source};

/// The gateway at one moment. Every member is part of the public contract.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Version of the gateway.
    pub version: &'static str,
    /// When the process started, in seconds since the Unix epoch.
    pub started_timestamp_seconds: f64,
    /// For how long it has been running.
    pub uptime_seconds: f64,
    /// What was done since then.
    pub totals: Totals,
    /// What is in the air now, by org.
    pub in_flight: Vec<InFlightStatus>,
    /// What each caller did since the start, the busiest first.
    pub callers: Vec<CallerStatus>,
    /// What the gateway's parts say about themselves.
    #[serde(flatten)]
    pub parts: Snapshot,
    /// Lines of the log.
    pub log: LogCounts,
    /// What the operating system says about the process.
    pub process: ProcessSnapshot,
}

/// Sums since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Requests that ended.
    pub requests: u64,
    /// API calls Salesforce charged.
    pub api_calls_spent: u64,
    /// Requests the gateway answered itself.
    pub refusals: u64,
    /// Attempts at Salesforce that failed.
    pub upstream_errors: u64,
    /// Callers' connections open now.
    pub connections: u64,
}

/// One org's calls in the air.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct InFlightStatus {
    /// The org's name.
    pub org: String,
    /// Calls by class.
    pub by_class: BTreeMap<&'static str, u64>,
}

/// One caller's use of one org since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CallerStatus {
    /// The org's name.
    pub org: String,
    /// The caller's name.
    pub caller: String,
    /// Requests that ended.
    pub requests: u64,
    /// API calls Salesforce charged.
    pub api_calls_spent: u64,
    /// Requests the gateway answered itself.
    pub refusals: u64,
}

/// `/api/v1/cache`: what is kept, and what it saved since the start.
#[derive(Debug, Clone, Serialize)]
pub struct CacheStatus {
    /// What is kept.
    #[serde(flatten)]
    pub kept: CacheSnapshot,
    /// API calls that were not made, by org, caller and why.
    pub saved: Vec<Saved>,
    /// Requests the cache has to do with, by org and what it made of them.
    pub events: Vec<CacheEvents>,
    /// What it does for each object, the largest saving first.
    pub objects: Vec<ObjectStatus>,
}

/// API calls that were not made.
#[derive(Debug, Clone, Serialize)]
pub struct Saved {
    /// The org's name.
    pub org: String,
    /// The caller's name.
    pub caller: String,
    /// `cache`, `stale` or `joined`.
    pub by: Source,
    /// How many.
    pub api_calls: u64,
}

/// Requests the cache has to do with.
#[derive(Debug, Clone, Serialize)]
pub struct CacheEvents {
    /// The org's name.
    pub org: String,
    /// What it made of them.
    pub result: CacheResult,
    /// How many.
    pub requests: u64,
}

impl Telemetry {
    /// What is kept, and what it saved.
    pub fn cache_status(&self) -> CacheStatus {
        let metrics = &self.0.metrics;
        let (mut saved, mut events) = (Vec::new(), Vec::new());
        metrics.api_calls_saved_total.visit(|l, api_calls| {
            saved.push(Saved { org: l.org.to_string(), caller: l.caller.to_string(), by: l.by, api_calls });
        });
        metrics.cache_events_total.visit(|l, requests| {
            events.push(CacheEvents { org: l.org.to_string(), result: l.result, requests });
        });
        saved.sort_by(|a, b| b.api_calls.cmp(&a.api_calls).then_with(|| (&a.org, &a.caller).cmp(&(&b.org, &b.caller))));
        events.sort_by(|a, b| (&a.org, a.result).cmp(&(&b.org, b.result)));
        let snapshot = self.snapshot();
        let objects = self.0.by_object(&snapshot);
        CacheStatus { kept: snapshot.cache, saved, events, objects }
    }

    /// The gateway now.
    pub fn status(&self) -> Status {
        let shared = &self.0;
        let now = shared.clock.now();
        let parts = self.snapshot();
        let callers = self.callers();
        let mut totals = Totals::default();
        for caller in &callers {
            totals.requests += caller.requests;
            totals.api_calls_spent += caller.api_calls_spent;
            totals.refusals += caller.refusals;
        }
        shared.metrics.upstream_errors_total.visit(|_, count| totals.upstream_errors += count);
        totals.connections = parts.listeners.iter().map(|listener| listener.connections).sum();
        Status {
            version: VERSION,
            started_timestamp_seconds: shared.clock.wall(shared.started).as_secs_f64(),
            uptime_seconds: now.saturating_duration_since(shared.started).as_secs_f64(),
            totals,
            in_flight: self.in_flight(),
            callers,
            parts,
            log: shared.log.counts(),
            process: ProcessSnapshot::read(),
        }
    }

    fn in_flight(&self) -> Vec<InFlightStatus> {
        let occupancies = self.0.occupancies.lock();
        let mut orgs: Vec<_> = occupancies
            .iter()
            .map(|(org, occupancy)| InFlightStatus {
                org: org.to_string(),
                by_class: Class::ALL.iter().map(|class| (class.as_str(), occupancy.in_flight(*class) as u64)).collect(),
            })
            .collect();
        orgs.sort_by(|a, b| a.org.cmp(&b.org));
        orgs
    }

    fn callers(&self) -> Vec<CallerStatus> {
        let metrics = &self.0.metrics;
        let mut callers: BTreeMap<(String, String), CallerStatus> = BTreeMap::new();
        let mut add = |org: &str, caller: &str, count: &dyn Fn(&mut CallerStatus)| {
            let entry = callers.entry((org.to_owned(), caller.to_owned())).or_insert_with(|| CallerStatus {
                org: org.to_owned(),
                caller: caller.to_owned(),
                ..CallerStatus::default()
            });
            count(entry);
        };
        metrics.requests_total.visit(|l, n| add(&l.org, &l.caller, &|caller| caller.requests += n));
        metrics.api_calls_spent_total.visit(|l, n| add(&l.org, &l.caller, &|caller| caller.api_calls_spent += n));
        metrics.refusals_total.visit(|l, n| add(&l.org, &l.caller, &|caller| caller.refusals += n));
        let mut callers: Vec<_> = callers.into_values().collect();
        callers.sort_by_key(|caller| std::cmp::Reverse((caller.api_calls_spent, caller.requests)));
        callers
    }
}
