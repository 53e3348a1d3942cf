//! Everything there is to see of an org's slots and queue at one moment.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::book::Book;
use crate::admission::AccountId;
use crate::admission::ladder::Level;
use crate::call::{Class, Family};

/// Long calls that are shown one by one; the oldest.
const SHOWN: usize = 200;

/// An org's slots and queue. Times are seconds.
#[derive(Debug, Clone, Serialize)]
pub struct SlotsView {
    /// How many calls may run long at the same time.
    pub slots: u32,
    /// As many of them as others seem to leave us.
    pub effective: u32,
    /// What this process has of them, if replicas share them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<SharedView>,
    /// How many of them class batch may hold now.
    pub batch_at_most: u32,
    /// How many of them are left to class interactive now.
    pub reserve: u32,
    /// The age from which Salesforce counts a call.
    pub after_seconds: f64,
    /// Calls of that age that hold a slot and whose caller waits.
    pub live: usize,
    /// Younger ones that hold a slot, because their kind grows old.
    pub predicted: usize,
    /// Calls that hold a slot or are that old, and whose caller has left.
    pub ghost: usize,
    /// Calls that grew old without a slot.
    pub overdraft: usize,
    /// Slots held, by class.
    pub held: BTreeMap<&'static str, usize>,
    /// Calls in the air, of any length.
    pub in_the_air: usize,
    /// Calls Salesforce refused for want of slots, since the start.
    pub refusals: u64,
    /// Kinds of calls whose duration is known.
    pub kinds_known: usize,
    /// Those that wait, by class.
    pub queue: Vec<WaitingView>,
    /// How full the queue is: whose calls it still takes.
    pub queue_level: Level,
    /// The oldest calls that hold a slot or are old.
    pub calls: Vec<LongCall>,
}

/// One replica's part of slots that several share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SharedView {
    /// Slots this replica may use now.
    pub granted: u32,
    /// Of them, for class batch.
    pub granted_batch: u32,
    /// Slots other replicas have.
    pub elsewhere: u32,
    /// Of them, those that calls take, or may.
    pub used_elsewhere: u32,
    /// Slots of replicas that are not heard of: they come back when nothing of theirs can be in the air.
    pub unheard: u32,
    /// Replicas that are heard of, this one included.
    pub replicas: u32,
    /// The store has lost its data, and not every replica has spoken since: nobody gets more.
    pub settling: bool,
}

/// Those of one class that wait.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct WaitingView {
    /// Their class.
    pub class: Class,
    /// How many.
    pub waiting: usize,
    /// How long the first of them has waited.
    pub longest_seconds: f64,
}

/// A call that holds a slot, or is old.
#[derive(Debug, Clone, Serialize)]
pub struct LongCall {
    /// Since it was sent.
    pub age_seconds: f64,
    /// Its caller's account.
    #[serde(skip)]
    pub account: AccountId,
    /// Its caller's name, filled in by whoever knows it.
    pub caller: String,
    /// How urgent it is.
    pub class: Class,
    /// Which API.
    pub family: Family,
    /// Its route.
    pub template: &'static str,
    /// What kind of call it is: the same for calls that take equally long, and meaningless outside this process.
    pub fingerprint: String,
    /// It was expected to grow old, and holds a slot.
    pub predicted: bool,
    /// Its caller has left.
    pub ghost: bool,
}

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1_000.0).round() / 1_000.0
}

impl SlotsView {
    pub(super) fn of(book: &Book) -> Self {
        let now = book.now();
        let (mut live, mut predicted, mut ghost, mut overdraft) = (0, 0, 0, 0);
        let mut calls: Vec<_> = book.air.counted().collect();
        for flight in &calls {
            let of = match (flight.is_ghost(), flight.about.slot, flight.old) {
                (true, ..) => &mut ghost,
                (false, true, true) => &mut live,
                (false, true, false) => &mut predicted,
                (false, false, _) => &mut overdraft,
            };
            *of += 1;
        }
        calls.sort_by_key(|flight| flight.since);
        let waiting = |class: &Class| WaitingView {
            class: *class,
            waiting: book.line.depth(*class),
            longest_seconds: book.line.longest(*class, now).map_or(0.0, seconds),
        };
        Self {
            slots: book.settings.slots,
            effective: book.effective(),
            shared: book.sharer.as_ref().map(|sharer| {
                let (limit, facts) = (sharer.limit(now), &sharer.facts);
                SharedView {
                    granted: limit.all,
                    granted_batch: limit.batch,
                    elsewhere: facts.elsewhere,
                    used_elsewhere: facts.used,
                    unheard: facts.gone,
                    replicas: facts.replicas,
                    settling: facts.settling,
                }
            }),
            batch_at_most: book.parts.0,
            reserve: book.parts.1,
            after_seconds: seconds(book.settings.after),
            live,
            predicted,
            ghost,
            overdraft,
            held: Class::ALL.iter().map(|class| (class.as_str(), book.air.held_by(*class))).collect(),
            in_the_air: book.air.flying(),
            refusals: book.capacity.refusals(),
            kinds_known: book.estimates.known(),
            queue: Class::ALL.iter().map(waiting).collect(),
            queue_level: book.level(),
            calls: calls
                .into_iter()
                .take(SHOWN)
                .map(|flight| LongCall {
                    age_seconds: seconds(now.saturating_duration_since(flight.since)),
                    account: flight.about.account,
                    caller: String::new(),
                    class: flight.about.class,
                    family: flight.about.family,
                    template: flight.about.template,
                    fingerprint: format!("{:016x}", flight.about.fingerprint),
                    predicted: flight.about.slot,
                    ghost: flight.is_ghost(),
                })
                .collect(),
        }
    }
}
