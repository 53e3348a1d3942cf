//! The figures of the gateway's parts, filled in when somebody looks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::UNIX_EPOCH;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Ways;
use super::doors::Door;
use crate::admission::Scale;
use crate::admission::slots::Slots;
use crate::answers::{Answers, Certainty, Traffic};
use crate::body::ByteBudget;
use crate::call::{CallerId, OrgId};
use crate::clock::Clock;
use crate::config::{Caller, Org};
use crate::edge::Counts;
use crate::exchange::retry::Left;
use crate::ledgers::Sharers;
use crate::live::{InForce, Live, LiveOrg};
use crate::outcome::FailureKind;
use crate::refusal::Reason;
use crate::telemetry::{
    BreakerSnapshot, BreakersSnapshot, BudgetSnapshot, BufferedBytes, BulkBatches, CacheSnapshot, ConfigSnapshot,
    GenerationsSnapshot, ListenerSnapshot, ObjectRoom, PaceSnapshot, RetrySnapshot, RuntimeSnapshot, SlotsSnapshot,
    Snapshot, SpendingSnapshot, SpendingSteps, Telemetry, TopClients, UNKNOWN, UpstreamSnapshot,
};

/// What came of the reloads so far.
#[derive(Debug)]
pub struct Reloads {
    clock: Clock,
    state: Mutex<ConfigSnapshot>,
}

impl Reloads {
    /// The configuration of the start counts as loaded.
    pub fn new(clock: Clock) -> Self {
        let loaded = ConfigSnapshot {
            last_reload_successful: true,
            last_reload_timestamp_seconds: clock.wall(clock.now()).as_secs_f64(),
            ..ConfigSnapshot::default()
        };
        Self { clock, state: Mutex::new(loaded) }
    }

    /// A new configuration is in force.
    pub fn succeeded(&self) {
        let mut state = self.state.lock();
        state.reloads_succeeded += 1;
        self.ended(&mut state, None);
    }

    /// The old configuration stays in force, because of `why`.
    pub fn failed(&self, why: String) {
        let mut state = self.state.lock();
        state.reloads_failed += 1;
        self.ended(&mut state, Some(why));
    }

    fn ended(&self, state: &mut ConfigSnapshot, error: Option<String>) {
        state.last_reload_successful = error.is_none();
        state.last_reload_error = error;
        state.last_reload_timestamp_seconds = self.clock.wall(self.clock.now()).as_secs_f64();
    }
}

/// The parts that are looked at.
pub struct Parts {
    /// The configuration in force.
    pub in_force: InForce,
    /// Bytes buffered.
    pub buffers: ByteBudget,
    /// What the edge counted.
    pub counts: Arc<Counts>,
    /// The workers' ways to Salesforce and tasks.
    pub ways: Ways,
    /// Open connections of each worker.
    pub open: Vec<Arc<AtomicUsize>>,
    /// Every listener.
    pub doors: Vec<Door>,
    /// What time it is.
    pub clock: Clock,
    /// What came of the reloads.
    pub reloads: Arc<Reloads>,
    /// What is kept.
    pub answers: Answers,
    /// How shared books stand.
    pub sharers: Sharers,
}

/// Fills in the figures of `parts` at each look.
pub fn register(telemetry: &Telemetry, parts: Parts) {
    let refused = Mutex::new([0; Reason::ALL.len()]);
    let counter = telemetry.clone();
    telemetry.add_source(move |snapshot| {
        bring_over(&parts.counts, &mut *refused.lock(), &counter);
        parts.fill(snapshot);
    });
}

/// Counts the refusals of the edge since the last look where all refusals are counted. No stage of the road saw them, so
/// nobody is known to have been refused.
fn bring_over(counts: &Counts, known: &mut [u64], telemetry: &Telemetry) {
    for (reason, known) in Reason::ALL.iter().zip(known) {
        let now = counts.refused(*reason);
        telemetry.add_refusals(*reason, now.saturating_sub(*known));
        *known = now;
    }
}

impl Parts {
    fn fill(&self, snapshot: &mut Snapshot) {
        let live = self.in_force.load();
        snapshot.config = self.reloads.state.lock().clone();
        snapshot.config.path = live.config.path.as_ref().map(|path| path.display().to_string());
        snapshot.buffered_bytes =
            BufferedBytes { used: self.buffers.used() as u64, limit: live.config.limits.buffered_bytes_total };
        snapshot.cache = kept(&self.answers);
        snapshot.generations = generations(&live, self.clock.now());
        snapshot.budgets = budgets(&live, self.clock.now());
        for budget in &mut snapshot.budgets {
            budget.shared = self.sharers.standing(&budget.org);
        }
        snapshot.slots = slots(&live, self.clock.now());
        snapshot.breakers = breakers(&live, self.clock.now());
        snapshot.listeners = self.listeners();
        let ways = self.ways.lock();
        snapshot.runtimes = ways
            .iter()
            .zip(&self.open)
            .enumerate()
            .map(|(place, ((_, tasks), open))| RuntimeSnapshot {
                runtime: format!("worker-{place}"),
                tasks: tasks.running() as u64,
                connections: open.load(Ordering::Relaxed) as u64,
            })
            .collect();
        for org in live.orgs() {
            snapshot.identities.extend(org.identities.iter().map(|identity| identity.snapshot()));
            snapshot.facades.extend(org.facade.iter().map(|facade| facade.snapshot(&org.name)));
        }
        snapshot.upstreams = (0..live.orgs().len()).map(|place| upstream(&live, OrgId(place as u16), &ways)).collect();
    }

    fn listeners(&self) -> Vec<ListenerSnapshot> {
        self.doors
            .iter()
            .map(|door| ListenerSnapshot {
                listener: door.address.to_string(),
                tls: door.tls.is_some(),
                connections: door.counts.open.load(Ordering::Relaxed) as u64,
                connections_refused: door.counts.refused.load(Ordering::Relaxed),
                certificate_not_after_seconds: door
                    .tls
                    .as_ref()
                    .and_then(|tls| tls.not_after().duration_since(UNIX_EPOCH).ok())
                    .map(|time| time.as_secs()),
            })
            .collect()
    }
}

/// The answers kept in memory.
pub fn kept(answers: &Answers) -> CacheSnapshot {
    let (bytes, count, limit) = answers.size();
    let objects = answers.by_object().into_iter();
    let objects = objects.map(|(org, object, bytes, answers)| ObjectRoom { org, object, bytes, answers }).collect();
    CacheSnapshot { bytes, limit, answers: count, flights: answers.flights().len() as u64, objects }
}

/// What replicas tell each other of every org's changes, as far as anything is kept.
pub fn generations(live: &Live, now: Instant) -> Vec<GenerationsSnapshot> {
    let one = |org: &LiveOrg| {
        let traffic = org.answers.traffic()?;
        let doubt = match org.answers.certainty(now) {
            Certainty::Doubt(why) => Some(why),
            Certainty::Alone | Certainty::Certain => None,
        };
        let Traffic { sent, received, gaps, peers } = traffic;
        Some(GenerationsSnapshot { org: org.name.to_string(), doubt, replicas: peers, sent, received, gaps })
    };
    if live.cache.is_none() {
        return Vec::new();
    }
    live.orgs().iter().filter_map(one).collect()
}

/// The budget of every org at `now`.
pub fn budgets(live: &Live, now: Instant) -> Vec<BudgetSnapshot> {
    let one = |(configured, org): (&Org, &LiveOrg)| {
        let mut callers = org.ledger.callers(now);
        callers.sort_by_key(|caller| std::cmp::Reverse(caller.used));
        let budget = org.ledger.org(now);
        let mut returning_by_hour = [0; 24];
        for back in org.ledger.schedule(now) {
            let hour = (back.minute.0.saturating_sub(budget.now.0) / 60) as usize;
            if let Some(calls) = returning_by_hour.get_mut(hour.min(23)) {
                *calls += back.calls;
            }
        }
        BudgetSnapshot {
            org: org.name.to_string(),
            mode: configured.daily.mode,
            budget,
            returning_by_hour,
            // The bank knows it.
            shared: None,
            callers,
            paces: paces(live, org, now),
            // The telemetry knows them itself.
            top_clients: TopClients::default(),
            bulk_batches: BulkBatches::default(),
        }
    };
    live.config.orgs.iter().zip(live.orgs()).map(one).collect()
}

/// Callers whose spending is shown one by one: as many as can be told apart by colour.
const NAMED: usize = 10;
/// Of them, those that spent most in 24 hours; the rest are those that spend fastest now.
const LARGEST: usize = 7;
/// The last 24 hours, and the last one.
const SCALES: [Scale; 2] = [Scale { minutes: 30, steps: 48 }, Scale { minutes: 1, steps: 60 }];

/// Who spent the calls of the org whose budget this is, in the trailing day and hour; `None` if there is no such org.
pub fn spending(live: &Live, budget: &BudgetSnapshot, now: Instant) -> Option<SpendingSnapshot> {
    let org = live.orgs().iter().find(|org| org.name == budget.org)?;
    // The largest user stands first.
    let mut shown: Vec<_> = budget.callers.iter().filter(|caller| caller.used > 0).take(LARGEST).collect();
    let mut fast: Vec<_> = budget.callers.iter().skip(shown.len()).filter(|caller| caller.used > 0).collect();
    fast.sort_by_key(|caller| std::cmp::Reverse((caller.pace_per_hour, caller.used)));
    shown.extend(fast.into_iter().take(NAMED - LARGEST));
    shown.sort_by_key(|caller| std::cmp::Reverse(caller.used));

    let names: Vec<_> = shown.iter().map(|caller| Arc::clone(&caller.name)).collect();
    let mut steps = org.ledger.spending(&names, &SCALES, now).into_iter().zip(SCALES).map(|(spending, scale)| {
        let mut others = spending.all;
        for caller in &spending.callers {
            others.iter_mut().zip(caller).for_each(|(all, calls)| *all = all.saturating_sub(*calls));
        }
        SpendingSteps { begins: spending.begins.0, minutes: scale.minutes, callers: spending.callers, others }
    });
    let (day, hour) = (steps.next()?, steps.next()?);
    Some(SpendingSnapshot {
        org: budget.org.clone(),
        callers: names.iter().map(ToString::to_string).collect(),
        day,
        hour,
    })
}

/// The circuit breakers of every org at `now`.
pub fn breakers(live: &Live, now: Instant) -> Vec<BreakersSnapshot> {
    let one = |org: &LiveOrg| {
        let (families, users) = org.breakers.view(now);
        let families = families.into_iter().map(|(family, view)| BreakerSnapshot {
            family,
            state: view.state,
            by_hand: view.by_hand,
            opened: view.opened,
            finds_out_in_seconds: view.finds_out_in.map(|again| again.as_secs_f64()),
        });
        BreakersSnapshot {
            org: org.name.to_string(),
            mode: live.config.breaker.mode,
            families: families.collect(),
            users_held_back: users as u64,
            retries: org.retries.left(org.retry, now).into_iter().map(retries).collect(),
        }
    };
    live.orgs().iter().map(one).collect()
}

fn retries(budget: Left) -> RetrySnapshot {
    RetrySnapshot { reason: budget.purse, allowed: budget.allowed, left: budget.left }
}

/// The slots and the queue of every org at `now`.
pub fn slots(live: &Live, now: Instant) -> Vec<SlotsSnapshot> {
    let seen = |org: &LiveOrg, slots: &Slots| {
        let mut view = slots.view(now);
        for call in &mut view.calls {
            org.holder(call.account, &live.config).unwrap_or(UNKNOWN).clone_into(&mut call.caller);
        }
        view
    };
    let one = |(configured, org): (&Org, &LiveOrg)| SlotsSnapshot {
        org: org.name.to_string(),
        mode: configured.long_running.mode,
        view: seen(org, &org.slots),
        apex: org.apex.as_ref().map(|apex| seen(org, apex)),
    };
    live.config.orgs.iter().zip(live.orgs()).map(one).collect()
}

/// The pace of every caller that has one with `org`, in the order of the configuration.
fn paces(live: &Live, org: &LiveOrg, now: Instant) -> Vec<PaceSnapshot> {
    let one = |(place, caller): (usize, &Caller)| {
        let pace = org.pace(CallerId(place as u16))?.budget(now);
        Some(PaceSnapshot { caller: caller.name.to_string(), mode: caller.pace?.mode, pace })
    };
    live.config.callers.iter().enumerate().filter_map(one).collect()
}

/// The connections of all workers to one org.
fn upstream(live: &Live, org: OrgId, ways: &[(crate::stages::send::Send, crate::tasks::Tasks)]) -> UpstreamSnapshot {
    let mut sum = UpstreamSnapshot {
        org: live.org(org).map(|org| org.name.to_string()).unwrap_or_default(),
        ..UpstreamSnapshot::default()
    };
    let mut failed =
        [(FailureKind::Dns, 0), (FailureKind::Connect, 0), (FailureKind::Tls, 0), (FailureKind::Timeout, 0)];
    for stats in ways.iter().filter_map(|(send, _)| send.stats(org)) {
        sum.idle += stats.idle as u64;
        sum.busy += stats.open.saturating_sub(stats.idle) as u64;
        sum.connects += stats.connects.ok;
        sum.resent += stats.resent;
        sum.abandoned += stats.abandoned_running as u64;
        let [dns, connect, tls, timeout] = &mut failed;
        dns.1 += stats.connects.dns;
        connect.1 += stats.connects.connect + stats.connects.proxy;
        tls.1 += stats.connects.tls;
        timeout.1 += stats.connects.timeout;
    }
    sum.connects_failed = failed.into_iter().filter(|(_, count)| *count > 0).collect();
    sum
}
