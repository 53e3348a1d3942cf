//! The decision about one call: may it fly now, wait, or not even wait.
//!
//! A function of what is in the air, who waits, and `now`. Whoever is granted a place while it waits is found in
//! [`Book::grants`], to be told once the lock is gone.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Sharing;
use super::air::{About, Air, Flight};
use super::capacity::Capacity;
use super::estimates::Estimates;
use super::line::{Line, Waiter};
use super::presume::Presumed;
use super::settings::SlotSettings;
use super::share::{News, Part, Terms};
use super::shared::{Offer, Sharer, Sight, Unusable};
use super::turnover::Turnover;
use crate::admission::AccountId;
use crate::admission::ladder::{Level, Steps};
use crate::admission::settings::Mode;
use crate::call::{Class, Family, Length};
use crate::hold::Fate;

/// So many calls of a kind of which nothing is known may be in the air without a slot, unless they are interactive.
const PROBES: usize = super::sketch::ENOUGH as usize;

/// A call that asks.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// What kind of call it is.
    pub fingerprint: u64,
    /// Whose.
    pub account: AccountId,
    /// Its caller's part among those who wait, relative to others.
    pub weight: u32,
    /// Calls its caller may have in the air.
    pub caller_at_most: Option<usize>,
    /// How urgent it is.
    pub class: Class,
    /// Which API.
    pub family: Family,
    /// Its route.
    pub template: &'static str,
    /// When its caller gives up.
    pub deadline: Option<Instant>,
}

/// Why a call may not even wait, or has waited in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    /// The wait would take this long: longer than the call has.
    WouldTake(Duration),
    /// The queue is full.
    Full,
    /// The queue fills up, and its caller has its part of the places.
    Crowds,
    /// The queue is nearly full and takes no calls of its class.
    Shed,
    /// It has waited as long as it may.
    Waited,
}

/// What became of a call that asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// It flies, at this place. `would_wait`: only because decisions do not bind.
    Go { place: u32, length: Length, would_wait: bool },
    /// It waits.
    Wait { number: u64, length: Length, position: usize, until: Instant },
    /// It does neither.
    No(Length, Busy),
}

/// A caller that may have only so many calls in the air.
#[derive(Debug, Clone, Copy, Default)]
struct Bounded {
    flying: usize,
    turnover: Turnover,
}

/// One org's calls in the air and those that wait.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) settings: SlotSettings,
    pub(super) air: Air,
    pub(super) line: Line,
    pub(super) estimates: Estimates,
    pub(super) capacity: Capacity,
    /// What this process may use, where others use the same slots.
    pub(super) sharer: Option<Sharer>,
    steps: Steps,
    /// How many slots batch may hold now, and how many are left to interactive calls.
    pub(super) parts: (u32, u32),
    /// Callers that have a bound.
    by_caller: HashMap<AccountId, Bounded, ahash::RandomState>,
    /// Of all calls, if the org has a bound.
    turnover: Turnover,
    /// Those who waited and may fly now: their numbers, and their places.
    pub(super) grants: Vec<(u64, u32)>,
    now: Instant,
}

impl Book {
    pub(super) fn new(settings: SlotSettings, now: Instant) -> Self {
        let mut steps = Steps::new();
        steps.set(settings.queue.ladder, Some(settings.queue.places as u64));
        Self {
            settings,
            air: Air::new(settings.after),
            line: Line::default(),
            estimates: Estimates::default(),
            capacity: Capacity::new(settings.slots),
            sharer: None,
            steps,
            parts: settings.parts(now),
            by_caller: HashMap::default(),
            turnover: Turnover::default(),
            grants: Vec::new(),
            now,
        }
    }

    /// Time has passed: calls have grown old, ghosts have gone, slots have come back, some have waited long enough to be
    /// lifted.
    pub(super) fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
        let now = self.now;
        let mut freed = self.air.expire(now) | self.capacity.recover(now);
        let parts = self.settings.parts(now);
        freed |= std::mem::replace(&mut self.parts, parts) != parts;
        while let Some(old) = self.air.grow_old(now) {
            // How long it will take is not known, but longer than this.
            self.estimates.add(old.fingerprint, self.settings.after);
            freed = true;
        }
        if self.line.len() > 0 {
            self.line.lift(&self.settings.queue.patience, now);
            if freed {
                self.pump();
            }
        }
    }

    /// Lets in whoever may fly now.
    pub(super) fn pump(&mut self) {
        let binds = self.settings.mode == Mode::Enforce;
        while self.line.len() > 0 {
            let fits = |waiter: &Waiter| !binds || self.fits(&self.judged(waiter.about), waiter.caller_at_most);
            let Some(number) = self.line.next(fits) else { return };
            let Some(waiter) = self.line.take(number, true) else { return };
            self.steps.at(self.line.len() as u64);
            let place = self.fly(self.judged(waiter.about));
            self.grants.push((number, place));
        }
    }

    /// The call as it looks now: while it waited, it may have become known how long its kind takes.
    fn judged(&self, about: About) -> About {
        let known = self.estimates.peek(about.fingerprint).and_then(|sketch| sketch.is_long(self.settings.after));
        About { slot: known.unwrap_or(about.slot), unknown: about.unknown && known.is_none(), ..about }
    }

    fn fly(&mut self, mut about: About) -> u32 {
        about.unknown = about.unknown && self.estimates.probe(about.fingerprint);
        if about.capped {
            self.by_caller.entry(about.account).or_default().flying += 1;
        }
        self.air.enter(about, self.now)
    }

    /// How many slots there are: for all, for those not of class interactive, and for batch.
    fn usable(&self) -> Part {
        let (slots, (batch_at_most, reserve)) = (self.settings.slots, self.parts);
        let effective = self.capacity.effective();
        let share =
            |of: u32| u32::try_from(u64::from(of) * u64::from(effective) / u64::from(slots.max(1))).unwrap_or(u32::MAX);
        // With all slots taken Salesforce refuses every new call, so the last one stays free.
        let all = effective.saturating_sub(1).max(1);
        let unreserved = all.saturating_sub(share(reserve)).max(1);
        Part { all, unreserved, batch: share(batch_at_most).max(1) }
    }

    /// How many slots others than the gateway seem to leave, as those replicas say that were refused last.
    pub(super) fn effective(&self) -> u32 {
        let own = self.capacity.effective();
        // One of them stays free.
        self.sharer
            .as_ref()
            .filter(|sharer| sharer.facts.capacity.all > 0)
            .map_or(own, |sharer| own.min(sharer.facts.capacity.all + 1))
    }

    /// How many slots have to come free before one more call like `about` may hold one.
    fn lacking(&self, about: &About) -> usize {
        let usable = self.usable();
        let most = usable.all as usize / 2;
        let over = |taken: usize, most: u32| (taken + 1).saturating_sub(most as usize);
        // Of an unknown kind a few are in the air without a slot: should they grow old, there has to be room for them.
        let margin = |most: usize| if about.unknown && about.class == Class::Standard { most } else { 0 };
        if let Some(sharer) = &self.sharer {
            let limit = sharer.limit(self.now).least(usable);
            let uses = self.uses();
            let own = PROBES.div_ceil(sharer.facts.replicas.max(1) as usize).min(limit.all as usize / 2);
            let taken = over(uses.all as usize + margin(own), limit.all);
            let unreserved = over(uses.unreserved as usize, limit.unreserved);
            return match about.class {
                Class::Interactive => taken,
                Class::Standard => taken.max(unreserved),
                Class::Batch => taken.max(unreserved).max(over(uses.batch as usize, limit.batch)),
            };
        }
        // Calls that timed out may have ended long ago: that they might run on never takes more than half.
        let overdraft = self.air.overdraft() + self.air.lost_overdraft().min(most);
        let taken = self.air.held() + overdraft + margin(PROBES.min(most));
        match about.class {
            Class::Interactive => over(taken, usable.all),
            Class::Standard => over(taken, usable.unreserved),
            Class::Batch => {
                let batch = self.air.held_by(Class::Batch) + overdraft;
                over(taken, usable.unreserved).max(over(batch, usable.batch))
            }
        }
    }

    /// What this process takes of the slots it shares with others, but for calls of which nobody knows whether they run.
    fn uses(&self) -> Part {
        let (all, overdraft) = (self.air.held() + self.air.overdraft(), self.air.overdraft());
        let batch = self.air.held_by(Class::Batch) + overdraft;
        let unreserved = self.air.held_by(Class::Standard) + batch;
        Part { all: count(all), unreserved: count(unreserved), batch: count(batch) }
    }

    /// What this process says to the others at `now`.
    fn news(&self) -> News {
        let (mut wants, unknown) = self.line.wanting();
        if unknown && let Some(standard) = wants.get_mut(Class::Standard.index()) {
            *standard += PROBES as u32;
        }
        News { capacity: self.usable(), uses: self.uses(), lost: count(self.air.lost_overdraft()), wants, leaves: None }
    }

    /// From now on it uses only what the store grants to `replica`: at first nothing.
    pub(super) fn share(&mut self, replica: &str) {
        self.sharer.get_or_insert_with(|| Sharer::new(replica, Terms::USUAL));
    }

    /// What the table should say that replicas share, now that it says what `sight` shows; `None` if they share none.
    pub(super) fn offer(&mut self, sight: &Sight<'_>, now: Instant) -> Option<Result<Offer, Unusable>> {
        self.advance(now);
        let news = self.news();
        let now = self.now;
        self.sharer.as_mut().map(|sharer| sharer.offer(sight, &news, now))
    }

    /// The same, as the last word: it uses only what is in the air still.
    pub(super) fn farewell(&mut self, sight: &Sight<'_>, now: Instant) -> Option<Result<Offer, Unusable>> {
        self.advance(now);
        let lost = Part { all: count(self.air.lost_overdraft()), ..Part::default() };
        let uses = self.uses().and(lost);
        let left = self.air.all_end().map(|end| end.saturating_duration_since(self.now)).unwrap_or_default();
        let leaves = Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        let news = News { uses, leaves, ..News::default() };
        let now = self.now;
        self.sharer.as_mut().map(|sharer| sharer.offer(sight, &news, now))
    }

    /// The store holds what was offered: who waits may fly.
    pub(super) fn confirm(&mut self, offer: &Offer, version: u64, now: Instant) {
        if let Some(sharer) = &mut self.sharer {
            sharer.confirm(offer, version);
        }
        self.advance(now);
        self.pump();
    }

    /// The store was not reached. `stop`: nothing more is let in until it is.
    pub(super) fn unshared(&mut self, stop: bool) {
        if let Some(sharer) = &mut self.sharer {
            sharer.failed();
            if stop {
                sharer.stop();
            }
        }
    }

    /// How the sharing stands.
    pub(super) fn sharing(&self) -> Sharing {
        let Some(sharer) = &self.sharer else { return Sharing::default() };
        let waits = || self.line.wanting().0.iter().any(|wants| *wants > 0);
        let busy = self.uses().all > 0 || sharer.facts.used > 0 || sharer.facts.wanted || waits();
        Sharing { busy, settling: sharer.facts.settling }
    }

    /// Others wait for slots that this process has and no longer needs.
    pub(super) fn can_give(&self) -> bool {
        self.sharer.as_ref().is_some_and(|sharer| sharer.could_give(self.uses()))
    }

    fn fits(&self, about: &About, caller_at_most: Option<usize>) -> bool {
        let within = |most: Option<usize>, flying: &dyn Fn() -> usize| most.is_none_or(|most| flying() < most);
        (!about.slot || self.lacking(about) == 0)
            && within(self.settings.in_flight, &|| self.air.flying())
            && within(caller_at_most, &|| self.bounded(about.account).flying)
    }

    fn bounded(&self, account: AccountId) -> Bounded {
        self.by_caller.get(&account).copied().unwrap_or_default()
    }

    /// May this call fly now?
    pub(super) fn enter(&mut self, ask: &Ask, presumed: impl FnOnce() -> Presumed, now: Instant) -> Said {
        self.advance(now);
        let after = self.settings.after;
        let known = self.estimates.get(ask.fingerprint).and_then(|sketch| sketch.is_long(after));
        let (length, unknown) = match known {
            Some(true) => (Length::Long, false),
            Some(false) => (Length::Short, false),
            None => match presumed() {
                Presumed::Quick => (Length::Short, false),
                Presumed::Long => (Length::Long, true),
                // A few find out how long their kind takes; until then further ones may be as long as any. Interactive
                // calls are given the benefit of the doubt.
                Presumed::Short
                    if ask.class != Class::Interactive && self.estimates.probing(ask.fingerprint) >= PROBES =>
                {
                    (Length::Long, true)
                }
                Presumed::Short => (Length::Short, true),
            },
        };
        let Ask { fingerprint, account, class, family, template, .. } = *ask;
        let (slot, capped) = (length == Length::Long, ask.caller_at_most.is_some());
        let about = About { fingerprint, account, class, family, template, slot, capped, unknown };
        let fits = self.fits(&about, ask.caller_at_most);
        if fits || self.settings.mode != Mode::Enforce {
            return Said::Go { place: self.fly(about), length, would_wait: !fits };
        }
        let depth = self.line.len();
        if depth >= self.settings.queue.places {
            return Said::No(length, Busy::Full);
        }
        let level = self.steps.at(depth as u64);
        let (own, callers) = self.line.crowd(account);
        // As the queue fills up, nobody takes more than an equal part of it.
        if level >= Level::Lean && own * callers >= self.settings.queue.places {
            return Said::No(length, Busy::Crowds);
        }
        if !level.lends_to(class) {
            return Said::No(length, Busy::Shed);
        }
        let patient_until = self.now + self.settings.queue.patience(class);
        let until = ask.deadline.map_or(patient_until, |deadline| deadline.min(patient_until));
        let ahead = self.line.ahead_of(&about, ask.weight);
        if let Some(wait) = self.expected(&about, ahead, own, ask.caller_at_most)
            && self.now + wait > until
        {
            return Said::No(length, Busy::WouldTake(wait));
        }
        let number = self.line.push(Waiter::new(about, ask.weight, ask.caller_at_most, self.now));
        self.steps.at(depth as u64 + 1);
        Said::Wait { number, length, position: ahead + 1, until }
    }

    /// How long a call waits that has `ahead` others before it, `own` of its caller, by what is known of those in the air; `None`
    /// if too little is.
    fn expected(&self, about: &About, ahead: usize, own: usize, caller_at_most: Option<usize>) -> Option<Duration> {
        let in_flight = self.settings.in_flight.filter(|most| self.air.flying() >= *most);
        let of_org = in_flight.and_then(|most| self.turnover.until_free(ahead + 1, most));
        let bounded = self.bounded(about.account);
        let of_caller = caller_at_most.filter(|most| bounded.flying >= *most);
        let of_caller = of_caller.and_then(|most| bounded.turnover.until_free(own + 1, most));
        self.until_slot(about, ahead).max(of_org).max(of_caller)
    }

    /// The same, as far as it waits for a slot.
    fn until_slot(&self, about: &About, ahead: usize) -> Option<Duration> {
        // What other replicas do not use may be had soon.
        if !about.slot || self.sharer.as_ref().is_some_and(|sharer| sharer.facts.unused) {
            return None;
        }
        let of_batch = about.class == Class::Batch;
        let holders = self.air.counted().filter(|flight| !of_batch || batch_waits_for(flight));
        let (mut left, mut all, mut unknown) = (Vec::new(), Duration::ZERO, 0_usize);
        for flight in holders {
            let Some(mean) = self.estimates.peek(flight.about.fingerprint).and_then(super::sketch::Sketch::mean) else {
                unknown += 1;
                continue;
            };
            let age = self.now.saturating_duration_since(flight.since);
            // Of one that takes longer than usual nothing is known but that it has not ended.
            left.push(mean.checked_sub(age).unwrap_or(mean / 4));
            all += mean;
        }
        if left.is_empty() || unknown > left.len() {
            return None;
        }
        left.sort_unstable();
        // Those before it take the first that come free; fewer slots than are held mean that some come free for nobody.
        let ends = ahead + self.lacking(about).saturating_sub(1);
        let (rounds, place) = (ends / left.len(), ends % left.len());
        let mean = all / u32::try_from(left.len()).unwrap_or(u32::MAX);
        Some(*left.get(place)? + mean * u32::try_from(rounds).unwrap_or(u32::MAX))
    }

    /// One who waits leaves. Who stood behind it may fit where it did not.
    pub(super) fn leave(&mut self, number: u64) {
        if self.line.take(number, false).is_some() {
            self.steps.at(self.line.len() as u64);
            self.pump();
        }
    }

    /// What became of the call at `place`.
    pub(super) fn tell(&mut self, place: u32, fate: Fate) {
        let Some(about) = self.air.get(place).map(|flight| flight.about) else { return };
        let About { fingerprint, account, capped, unknown, .. } = about;
        // Where many short calls come and go while others wait, most of them change nothing for who waits.
        let mut frees = capped || self.settings.in_flight.is_some();
        match fate {
            Fate::Sent(now) => {
                self.now = self.now.max(now);
                // It may have grown old while it waited for a connection, and is young now.
                let counted = self.air.get(place).is_some_and(Flight::counts);
                self.air.sent(place, now);
                if counted {
                    self.pump();
                }
                return;
            }
            Fate::Left(now) => {
                self.now = self.now.max(now);
                return self.air.left(place);
            }
            Fate::Ended(now) => {
                self.advance(now);
                if let Some(flight) = self.air.remove(place) {
                    let took = now.saturating_duration_since(flight.since);
                    frees |= flight.counts();
                    if self.settings.in_flight.is_some() {
                        self.turnover.add(took);
                    }
                    if capped && let Some(bounded) = self.by_caller.get_mut(&account) {
                        bounded.turnover.add(took);
                    }
                    if !flight.old {
                        frees |= self.estimates.add(fingerprint, took);
                    } else if let Some(sketch) = self.estimates.get(fingerprint) {
                        sketch.correct(self.settings.after, took);
                        frees = true;
                    }
                }
            }
            Fate::Lost(now) => {
                self.advance(now);
                self.air.lost(place, now);
                frees = true;
            }
            Fate::Gone => frees |= self.air.remove(place).is_some_and(|flight| flight.counts()),
        }
        if unknown {
            self.estimates.probed(fingerprint);
        }
        if capped && let Some(bounded) = self.by_caller.get_mut(&account) {
            bounded.flying = bounded.flying.saturating_sub(1);
        }
        if frees {
            self.pump();
        }
    }

    /// Salesforce refused a call sent at `sent` because too many run long.
    pub(super) fn refused(&mut self, sent: Instant, now: Instant) {
        self.advance(now);
        self.capacity.refused(sent, now);
        // With less room, less of it is kept for calls that may have ended long ago.
        self.pump();
    }

    /// Puts other rules in force. What is in the air and who waits stays.
    pub(super) fn reconfigure(&mut self, settings: SlotSettings, now: Instant) {
        self.settings = settings;
        self.steps.set(settings.queue.ladder, Some(settings.queue.places as u64));
        self.steps.at(self.line.len() as u64);
        self.air.set_after(settings.after);
        self.capacity.set(settings.slots);
        self.advance(now);
        self.pump();
    }

    /// How full the queue is.
    pub(super) fn level(&self) -> Level {
        self.steps.level()
    }

    /// The latest time it was told.
    pub(super) fn now(&self) -> Instant {
        self.now
    }
}

fn count(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

/// Whether batch has one slot more when this call ends.
fn batch_waits_for(flight: &Flight) -> bool {
    flight.about.class == Class::Batch || flight.is_overdraft()
}
