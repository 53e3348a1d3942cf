//! Counts outcomes: what one runtime needs on its hot path, resolved once.
//!
//! A recorder belongs to one runtime, so its lock is not contended. It remembers the cells of the label sets it has met
//! under packed numbers; in the steady state an outcome costs two lookups and a dozen atomic additions, and allocates nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use smol_str::SmolStr;
use tokio::time::Instant;

use super::access;
use super::cells::{Counter, Histogram};
use super::labels::{self, WordId};
use super::metrics::{
    CacheLabels, CallerLabels, ErrandLabels, OrgLabels, OverheadBuckets, QueueLabels, RecordFailureLabels,
    RefusalLabels, RememberedLabels, RequestBuckets, RequestLabels, RetryLabels, SavedLabels, Status,
    UpstreamErrorLabels, UseLabels, VersionLabels,
};
use super::names::Names;
use super::recent::{Trouble as Lately, Whose};
use super::spenders::Client;
use super::{Finish, Shared};
use crate::admission::Minute;
use crate::call::{Class, Family, ObjectName, Operation};
use crate::outcome::{
    CacheResult, Ending, Errand, Exchange, Failures, Outcome, Purse, Remembered, RetryResult, Source, Trouble,
};
use crate::refusal::Reason;

/// Label sets one recorder remembers; beyond, it forgets all and begins anew.
const REMEMBERED: usize = 8_192;
/// Object spellings one recorder remembers.
const REMEMBERED_SPELLINGS: usize = 4_096;

/// Counts the outcomes of one runtime.
#[derive(Debug)]
pub(super) struct Counting {
    shared: Arc<Shared>,
    cache: Mutex<Cache>,
}

/// Cells by packed labels, valid for one table of names.
#[derive(Debug, Default)]
struct Cache {
    names: Arc<Names>,
    requests: HashMap<u128, Cells, ahash::RandomState>,
    rare: HashMap<u64, Arc<Counter>, ahash::RandomState>,
    objects: HashMap<SmolStr, WordId, ahash::RandomState>,
}

/// What a usual request counts.
#[derive(Debug, Clone)]
struct Cells {
    requests: Arc<Counter>,
    spent: Arc<Counter>,
    duration: Arc<Histogram<RequestBuckets>>,
    upstream: Arc<Histogram<RequestBuckets>>,
    overhead: Arc<Histogram<OverheadBuckets>>,
    version: Option<Arc<Counter>>,
    /// The labels as members of a log line.
    words: Box<[u8]>,
}

/// Counters most requests do not touch.
#[derive(Debug, Clone, Copy)]
enum Rare {
    Refused(Reason),
    WouldRefuse(Reason),
    UnknownOutcome,
    Cache(CacheResult),
    Saved(Source),
    Errand(Errand),
    Retried(Purse, RetryResult),
    Remembered(Remembered),
    Error(Family, Trouble, WordId),
}

impl Counting {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, cache: Mutex::default() }
    }

    /// Counts a request that ended, and calls `log` with the words of its labels as members of a log line.
    pub(super) fn request(&self, outcome: &Outcome, finish: &Finish<'_>, log: impl FnOnce(&[u8])) {
        let mut cache = self.cache.lock();
        cache.follow(finish.names);
        let object = cache.object(&self.shared, outcome);
        let counted = &outcome.exchanges;
        let charged = counted.iter().map(|exchange| u64::from(exchange.charged.0)).sum();
        let ended = outcome.ended.unwrap_or(finish.now);
        let duration = ended.saturating_duration_since(outcome.started);

        let cells = cache.cells(&self.shared, outcome, object);
        cells.requests.add(1);
        cells.spent.add(charged);
        cells.duration.observe(duration);
        if let Some(version) = &cells.version {
            version.add(1);
        }
        let mut with_salesforce = Duration::ZERO;
        let mut failed = false;
        for exchange in counted {
            let took = exchange.ended.unwrap_or(ended).saturating_duration_since(exchange.sent);
            cells.upstream.observe(took);
            with_salesforce += took;
            failed |= exchange.failure.is_some();
        }
        if !counted.is_empty() && outcome.ending == Ending::Complete {
            cells.overhead.observe(duration.saturating_sub(with_salesforce));
        }
        log(&cells.words);

        if outcome.agent.is_some() || outcome.family == Family::Bulk1 || outcome.family == Family::Bulk2 {
            self.spenders(outcome, charged, ended, finish.names);
        }
        if failed {
            cache.failures(&self.shared, outcome, counted, ended);
        }
        if let Some(reason) = outcome.refusal {
            cache.rare(&self.shared, outcome, Rare::Refused(reason)).add(1);
            cache.note(&self.shared, outcome, Lately::Refused { reason }, ended);
        }
        if outcome.unknown || outcome.refusal == Some(Reason::OutcomeUnknown) {
            cache.rare(&self.shared, outcome, Rare::UnknownOutcome).add(1);
            cache.note(&self.shared, outcome, Lately::UnknownOutcome, ended);
        }
        if let Some((purse, result)) = outcome.retried {
            cache.rare(&self.shared, outcome, Rare::Retried(purse, result)).add(1);
        }
        if let Some(result) = outcome.remembered {
            cache.rare(&self.shared, outcome, Rare::Remembered(result)).add(1);
        }
        if let Some(failures) = &outcome.failures {
            cache.record_failures(&self.shared, outcome, failures, ended);
        }
        if let Some(queued) = outcome.queued {
            let labels = QueueLabels { org: finish.names.org(outcome.org).into(), class: outcome.class };
            self.shared.metrics.queue_wait_seconds.cell(labels).observe(queued.wait);
        }
        if let Some(result) = outcome.cache {
            cache.rare(&self.shared, outcome, Rare::Cache(result)).add(1);
        }
        if let Some(errand) = outcome.errand {
            cache.rare(&self.shared, outcome, Rare::Errand(errand)).add(1);
        }
        if outcome.saved > 0 {
            cache.rare(&self.shared, outcome, Rare::Saved(outcome.source)).add(u64::from(outcome.saved));
        }
        if !outcome.paced.is_zero() {
            cache.waited(&self.shared, outcome);
        }
        if let Some(reason) = outcome.would_refuse {
            cache.rare(&self.shared, outcome, Rare::WouldRefuse(reason)).add(1);
            cache.note(&self.shared, outcome, Lately::WouldRefuse { reason }, ended);
        }
    }
}

impl Counting {
    /// Counts what only some requests are asked for: who sent it in nobody's name, and the Bulk batches it made.
    fn spenders(&self, outcome: &Outcome, charged: u64, ended: Instant, names: &Names) {
        let Some(spenders) = names.spenders(outcome.org) else { return };
        let now = || Minute::containing(self.shared.clock.wall(ended));
        if let Some(agent) = outcome.agent.as_deref().filter(|_| charged > 0) {
            let [a, b, c, d, ..] = outcome.principal.0;
            let name = outcome.client.as_deref().unwrap_or_default();
            spenders.spent(&Client { name, agent, principal: [a, b, c, d] }, charged, now());
        }
        let batches = bulk_batches(outcome);
        if batches > 0 {
            spenders.made(batches, now());
        }
    }
}

/// The Bulk batches a request made (facts 1.9): each batch that a job of 1.0 was given, and, as far as can be told from
/// outside, each upload to an ingest job of 2.0, which Salesforce itself splits; an upload may come with the job, as one
/// body of several parts (facts 4.1). Queries of 2.0 make none.
fn bulk_batches(outcome: &Outcome) -> u32 {
    let makes = match outcome.template {
        "/services/async/{version}/job/{job}/batch" => outcome.method == http::Method::POST,
        "/services/data/{version}/jobs/ingest/{job}/batches" => outcome.method == http::Method::PUT,
        "/services/data/{version}/jobs/ingest" => outcome.multipart && outcome.method == http::Method::POST,
        _ => false,
    };
    let accepted = |exchange: &&Exchange| exchange.status.is_some_and(|status| (200..300).contains(&status));
    if makes { outcome.exchanges.iter().filter(accepted).count() as u32 } else { 0 }
}

impl Cache {
    /// Numbers mean other names under another table: what is remembered for the old one is forgotten.
    fn follow(&mut self, names: &Arc<Names>) {
        if !Arc::ptr_eq(&self.names, names) {
            self.names = Arc::clone(names);
            self.requests.clear();
            self.rare.clear();
        }
    }

    /// An object's name is learnt from a request that Salesforce answered well, never from one that failed: who asks
    /// for objects that do not exist cannot fill the list.
    fn object(&mut self, shared: &Shared, outcome: &Outcome) -> WordId {
        let Some(object) = &outcome.object else { return WordId::NONE };
        if let Some(id) = self.objects.get(object.as_str()) {
            return *id;
        }
        let exists = outcome.source == Source::Upstream && (200..400).contains(&outcome.status);
        let id = shared.objects.id(object, exists);
        if id != WordId::OTHER {
            if self.objects.len() >= REMEMBERED_SPELLINGS {
                self.objects.clear();
            }
            self.objects.insert(ObjectName::clone(object), id);
        }
        id
    }

    fn cells(&mut self, shared: &Shared, outcome: &Outcome, object: WordId) -> &Cells {
        if self.requests.len() >= REMEMBERED {
            self.requests.clear();
        }
        let names = &self.names;
        self.requests.entry(packed(outcome, object)).or_insert_with(|| resolve(shared, names, outcome, object))
    }

    fn rare(&mut self, shared: &Shared, outcome: &Outcome, what: Rare) -> &Counter {
        if self.rare.len() >= REMEMBERED {
            self.rare.clear();
        }
        let names = &self.names;
        self.rare.entry(what.packed(outcome)).or_insert_with(|| what.resolve(shared, names, outcome))
    }

    /// Not remembered: whoever waited has time.
    #[cold]
    fn waited(&self, shared: &Shared, outcome: &Outcome) {
        let (org, caller) = (self.names.org(outcome.org).into(), self.names.caller(outcome.caller).into());
        shared.metrics.pace_wait_seconds.cell(CallerLabels { org, caller }).observe(outcome.paced);
    }

    /// Not remembered: who has failures has few, and an answer that holds them costs much more than counting them.
    #[cold]
    fn record_failures(&self, shared: &Shared, outcome: &Outcome, failures: &Failures, ended: Instant) {
        let metrics = &shared.metrics;
        let (org, caller) = (self.names.org(outcome.org), self.names.caller(outcome.caller));
        for failed in &failures.list {
            let object = match failures.objects.as_slice() {
                [all] => all.as_ref(),
                each => each.get(failed.at as usize).and_then(Option::as_ref),
            };
            let object = object.or(outcome.object.as_ref());
            let object = object.map_or(WordId::NONE, |object| shared.objects.id(object, false));
            let code = if failed.code.is_empty() { WordId::NONE } else { shared.error_codes.id(&failed.code, true) };
            let partial = Lately::Partial { object: shared.objects.word(object), code: shared.error_codes.word(code) };
            self.note(shared, outcome, partial, ended);
            let labels = |object, code| RecordFailureLabels {
                org: org.into(),
                caller: caller.into(),
                object: shared.objects.word(object),
                error_code: shared.error_codes.word(code),
            };
            let cell = metrics.record_failures_total.cell_below(shared.max_series, labels(object, code));
            cell.unwrap_or_else(|| metrics.record_failures_total.cell(labels(WordId::OTHER, WordId::OTHER)))
                .add(u64::from(failures.each));
        }
    }

    /// Into the list of what went wrong lately.
    #[cold]
    fn note(&self, shared: &Shared, outcome: &Outcome, trouble: Lately, ended: Instant) {
        let whose = Whose {
            org: self.names.org(outcome.org),
            caller: self.names.caller(outcome.caller),
            family: outcome.family,
            template: outcome.template,
        };
        shared.recent.note(&whose, trouble, 1, shared.clock.wall(ended));
    }

    fn failures(&mut self, shared: &Shared, outcome: &Outcome, exchanges: &[Exchange], ended: Instant) {
        for exchange in exchanges {
            let Some(trouble) = exchange.trouble() else { continue };
            let code = exchange.error_code.as_ref().map_or(WordId::NONE, |code| shared.error_codes.id(code, true));
            self.rare(shared, outcome, Rare::Error(outcome.family, trouble, code)).add(1);
            // What the gateway said about it itself stands there already.
            if outcome.refusal.is_none() {
                let failed = Lately::Failed { kind: trouble.as_str(), code: shared.error_codes.word(code) };
                self.note(shared, outcome, failed, ended);
            }
        }
    }
}

/// All labels of `requests_total`, and the version, in one number.
fn packed(outcome: &Outcome, object: WordId) -> u128 {
    let version = match outcome.version {
        None => 0,
        Some(version) if labels::is_plausible_version(version) => version.0,
        Some(_) => 1,
    };
    let words = [
        place(outcome.org.map(|org| org.0)),
        place(outcome.caller.map(|caller| caller.0)),
        u32::from(object.index()),
        u32::from(outcome.status),
        u32::from(version),
    ];
    let packed = words.iter().fold(0, |packed, word| (packed << 17) | u128::from(*word));
    let lists = [outcome.class.index(), outcome.family.index(), outcome.operation.index(), outcome.source.index()];
    lists.iter().fold(packed, |packed, member| (packed << 8) | *member as u128)
}

/// 0 for none; needs 17 bits.
fn place(index: Option<u16>) -> u32 {
    index.map_or(0, |index| u32::from(index) + 1)
}

fn use_labels(names: &Names, outcome: &Outcome) -> UseLabels {
    UseLabels {
        org: names.org(outcome.org).into(),
        caller: names.caller(outcome.caller).into(),
        class: outcome.class,
        family: outcome.family,
    }
}

#[cold]
fn resolve(shared: &Shared, names: &Names, outcome: &Outcome, object: WordId) -> Cells {
    let metrics = &shared.metrics;
    let used = use_labels(names, outcome);
    let version = outcome.version.map(|version| {
        let labels =
            VersionLabels { org: used.org.clone(), caller: used.caller.clone(), version: labels::version(version) };
        metrics.api_version_requests_total.cell(labels)
    });
    let word = (object != WordId::NONE).then(|| shared.objects.word(object));
    Cells {
        requests: requests_cell(shared, &used, outcome, object),
        duration: metrics.request_duration_seconds.cell(used.clone()),
        upstream: metrics.upstream_duration_seconds.cell(used.clone()),
        overhead: metrics.overhead_seconds.cell(OrgLabels { org: used.org.clone() }),
        spent: metrics.api_calls_spent_total.cell(used),
        version,
        words: access::words(names, outcome, word.as_deref()),
    }
}

/// The most precise series there is still room for: with the object, without it, or by caller and status only.
fn requests_cell(shared: &Shared, used: &UseLabels, outcome: &Outcome, object: WordId) -> Arc<Counter> {
    let precise = RequestLabels {
        org: used.org.clone(),
        caller: used.caller.clone(),
        class: used.class,
        family: used.family,
        object: shared.objects.word(object),
        operation: outcome.operation,
        status: Status::new(outcome.status),
        source: outcome.source,
    };
    let table = &shared.metrics.requests_total;
    let without_object = || RequestLabels { object: shared.objects.word(WordId::OTHER), ..precise.clone() };
    let coarse = || RequestLabels {
        class: Class::Standard,
        family: Family::Other,
        operation: Operation::Unknown,
        ..without_object()
    };
    table
        .cell_below(shared.max_series, precise.clone())
        .or_else(|| table.cell_below(shared.max_series.saturating_mul(2), without_object()))
        .unwrap_or_else(|| table.cell(coarse()))
}

impl Rare {
    fn packed(self, outcome: &Outcome) -> u64 {
        let (kind, member, word) = match self {
            Self::Refused(reason) => (0, reason.index(), 0),
            Self::WouldRefuse(reason) => (1, reason.index(), 0),
            Self::UnknownOutcome => (2, 0, 0),
            Self::Cache(result) => (4, result.index(), 0),
            Self::Saved(source) => (5, source.index(), 0),
            Self::Errand(errand) => (6, errand.index(), 0),
            // Counted by org only.
            Self::Retried(purse, result) => (7, purse.index() * RetryResult::ALL.len() + result.index(), 0),
            Self::Remembered(result) => (8, result.index(), 0),
            Self::Error(family, trouble, code) => (3, family.index() * 32 + trouble.index(), code.index()),
        };
        let caller = if kind == 3 { u64::from(word) } else { u64::from(place(outcome.caller.map(|caller| caller.0))) };
        let org = u64::from(place(outcome.org.map(|org| org.0)));
        (((org << 17 | caller) << 16 | member as u64) << 4) | kind
    }

    #[cold]
    fn resolve(self, shared: &Shared, names: &Names, outcome: &Outcome) -> Arc<Counter> {
        let metrics = &shared.metrics;
        let org = SmolStr::from(names.org(outcome.org));
        let caller = SmolStr::from(names.caller(outcome.caller));
        match self {
            Self::Refused(reason) => metrics.refusals_total.cell(RefusalLabels { org, caller, reason }),
            Self::WouldRefuse(reason) => metrics.would_refuse_total.cell(RefusalLabels { org, caller, reason }),
            Self::Cache(result) => metrics.cache_events_total.cell(CacheLabels { org, result }),
            Self::Saved(by) => metrics.api_calls_saved_total.cell(SavedLabels { org, caller, by }),
            Self::Errand(errand) => metrics.cache_errands_total.cell(ErrandLabels { org, caller, errand }),
            Self::UnknownOutcome => metrics.unknown_outcomes_total.cell(CallerLabels { org, caller }),
            Self::Retried(reason, result) => metrics.retries_total.cell(RetryLabels { org, reason, result }),
            Self::Remembered(result) => metrics.remembered_failures_total.cell(RememberedLabels { org, result }),
            Self::Error(family, trouble, code) => {
                let kind = trouble.as_str();
                let error_code = shared.error_codes.word(code);
                metrics.upstream_errors_total.cell(UpstreamErrorLabels { org, family, kind, error_code })
            }
        }
    }
}
