//! One org's books: every account, the org's totals, and the decision about one call.
//!
//! Everything here happens under the ledger's short lock. Two facts keep it right:
//!
//! - Calls come back only in a *sweep* (`sweep`). Until one is through, the org's total is too high, never too low.
//!   Whoever would be refused sweeps first.
//! - A borrowed call is admitted only if org used + reserved + what is held for unspent floors stays within the
//!   ceiling. A call below its caller's floor moves one from *held* to *reserved*, so it always has its place,
//!   unless Salesforce's own numbers took it away.
//! - Where others use the org too, a small part below the ceiling is kept for *looks*: single calls that find out what
//!   the others left when an old reading says that nothing is. They are paid from it and so never pass the ceiling.

use std::time::Duration;

use tokio::time::Instant;

use crate::call::{ApiCalls, Class};

use super::account::Account;
use super::denied::{Cause, Denied};
use super::gate::{Entry, Gate};
use super::ladder::{Level, Steps};
use super::lease::{Common, Funds, Lease};
use super::ring::{Ring, WINDOW_MINUTES};
use super::settings::{AccountId, Mode, OrgSettings, PerMille};
use super::sharing::Sharing;
use super::terms::{Paid, Terms};
use super::time::{Minute, Timeline};
use super::usage::{Footing, Misread, Reading, Truth};

/// The slot of the account that holds leases of which nobody knows whether they were spent.
pub(super) const LOST: usize = 0;
/// Sweep at the latest when this many minutes wait to be released.
const SWEEP_AFTER_MINUTES: u32 = 30;
/// Fixed-point unit of [`Book::fair`].
pub(super) const FAIR_UNIT: u64 = 256;

/// A call that was let in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pass {
    pub(super) slot: u32,
    pub(super) generation: u32,
    pub(super) class: Class,
    pub(super) cost: u32,
    /// How much of the cost came out of the lease.
    pub(super) leased: u32,
    /// That lease is the caller's own.
    pub(super) allotted: bool,
    pub(super) probe: bool,
    pub(super) borrowed: bool,
    pub(super) terms: Terms,
    /// What enforcement would have said, in `mode: observe`.
    pub(super) would_deny: Option<Denied>,
}

/// A call that asks for room.
#[derive(Debug, Clone, Copy)]
struct Ask {
    slot: usize,
    class: Class,
    cost: u64,
    /// Below its caller's floor.
    guaranteed: bool,
}

/// What every call changes stands first: with the byte of the lock before it, it fills one cache line. What calls only read
/// stands behind it, so that a thread takes one line from the thread before it, and its caller's account.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Book {
    /// Calls reserved and not yet sent.
    pub(super) reserved: u64,
    /// Calls of floors that nobody may borrow.
    pub(super) held: u64,
    /// Calls sent in the running minute and not yet posted; see [`Self::post`].
    unposted: u64,
    /// Calls of the common lease in `reserved`.
    pub(super) leased: u64,
    pub(super) lease: Lease,
    // The second line begins here.
    pub(super) now: Minute,
    pub(super) stopping: bool,
    pub(super) paused_classes: [bool; 3],
    /// When that minute is over, so that most decisions need not find out which one it is.
    minute_ends: Option<Instant>,
    pub(super) accounts: Vec<Account>,
    pub(super) ceiling: Option<u64>,
    /// Calls below the ceiling that only looks may use.
    kept_for_looks: u64,
    pub(super) settings: OrgSettings,
    pub(super) truth: Truth,
    pub(super) steps: Steps,
    /// Borrowed calls each unit of weight may hold, times [`FAIR_UNIT`]; `None` while there is enough for all.
    pub(super) fair: Option<u64>,
    pub(super) gate: Gate,
    /// All calls of ours, by minute.
    pub(super) own: Ring,
    /// Calls of callers' own leases in `reserved`.
    pub(super) allotted_out: u64,
    /// Calls left in callers' own leases.
    pub(super) allotted: u64,
    /// The accounts with leases of their own.
    pub(super) allotments: Vec<u32>,
    pub(super) common: Common,
    /// Calls counted as spent that may never have been sent.
    pub(super) unproven: u64,
    /// Floors are scaled by this, where the pool is smaller than all of them.
    pub(super) floor_scale: Option<(u64, u64)>,
    /// Largest cost that found the lease empty since the bank was last asked.
    pub(super) needed: u64,
    /// Calls below their callers' floors that found it empty since then.
    pub(super) needed_floor: u64,
    /// What is known of other replicas, where the bank is shared.
    pub(super) sharing: Option<Box<Sharing>>,
    pub(super) dirty: Vec<u32>,
    /// Pauses changed since the bank was last told.
    pub(super) pauses_changed: bool,
    pub(super) misread: [u64; 2],
    /// Calls spent since the bank was last asked.
    pub(super) spent_lately: u64,
    pub(super) per_second: u64,
    /// When that was last taken.
    pub(super) rated_at: Duration,
    /// Batch calls lent in a minute, and how many that minute may lend.
    lent: (Minute, u64, u64),
    looked: Minute,
    /// Since the last reading a call was refused because the org has nothing left.
    pub(super) silenced: bool,
    /// The minute up to which everything has been released, and the account at which the sweep of a later one stands.
    pub(super) swept: Minute,
    pub(super) cursor: usize,
    pub(super) sweeping: Minute,
}

impl Book {
    pub(super) fn new(settings: OrgSettings, lease: Lease, accounts: Vec<Account>, now: Minute) -> Self {
        let mut book = Self {
            settings,
            dirty: Vec::with_capacity(accounts.len()),
            accounts,
            now,
            minute_ends: None,
            own: Ring::new(now),
            reserved: 0,
            unposted: 0,
            leased: 0,
            allotted_out: 0,
            allotted: 0,
            allotments: Vec::new(),
            common: Common::default(),
            unproven: 0,
            held: 0,
            truth: Truth::new(settings, now),
            ceiling: None,
            kept_for_looks: 0,
            steps: Steps::new(),
            fair: None,
            floor_scale: None,
            gate: Gate::new(),
            lease,
            needed: 0,
            needed_floor: 0,
            sharing: None,
            paused_classes: [false; 3],
            pauses_changed: false,
            stopping: false,
            misread: [0; 2],
            spent_lately: 0,
            per_second: 0,
            rated_at: now.begins(),
            lent: (Minute(0), 0, 0),
            looked: Minute(0),
            silenced: false,
            swept: now,
            cursor: 0,
            sweeping: now,
        };
        book.common.spends = book.shares_a_lease();
        book.set_ceiling();
        book.sweep_all();
        book
    }

    /// Moves to `now`, or stays if another thread has already seen later.
    pub(super) fn touch(&mut self, now: Instant, timeline: &Timeline) {
        if self.minute_ends.is_none_or(|end| now >= end) {
            self.turn(now, timeline);
        }
    }

    #[cold]
    pub(super) fn turn(&mut self, now: Instant, timeline: &Timeline) {
        let now = timeline.minute(now).max(self.now);
        self.minute_ends = Some(timeline.ends(now));
        if now == self.now {
            return;
        }
        self.post();
        self.now = now;
        if now.0 - self.own.first().0 >= WINDOW_MINUTES + SWEEP_AFTER_MINUTES {
            self.sweep_all();
        }
    }

    /// Posts what was sent in the running minute to where it can be read. Until then it counts as what is reserved does,
    /// so that no decision depends on when that is; whoever reads anything else posts first.
    pub(super) fn post(&mut self) {
        let calls = std::mem::take(&mut self.unposted);
        if calls > 0 {
            self.own.extend(self.now);
            self.own.add(self.now, u32::try_from(calls).unwrap_or(u32::MAX));
            self.truth.spent(calls);
            self.spent_lately += calls;
        }
    }

    /// Calls used or about to be, ours and others'.
    pub(super) fn used(&self) -> u64 {
        self.truth.used(self.own.sum()) + self.unposted + self.reserved
    }

    /// Admits a call or says why not; in observe mode it admits and says what it would have said.
    pub(super) fn reserve(&mut self, account: AccountId, class: Class, cost: ApiCalls) -> Result<Pass, Denied> {
        let Some(slot) = self.slot(account) else {
            return Err(Denied { cause: Cause::UnknownCaller, level: self.steps.level(), missing: 0 });
        };
        if self.stopping {
            return Err(self.deny(slot, Cause::Stopping, 0));
        }
        // The operator's word holds whatever the ledger itself may do.
        if self.accounts[slot].paused {
            return Err(self.deny(slot, Cause::CallerPaused, 0));
        }
        if self.paused_classes[class.index()] {
            return Err(self.deny(slot, Cause::ClassPaused, 0));
        }
        let mut decision = self.decide(slot, class, u64::from(cost.0));
        if decision.is_err() && self.sweep_due() {
            self.sweep_all();
            decision = self.decide(slot, class, u64::from(cost.0));
        }
        let (borrowed, would_deny) = match decision {
            Ok(borrowed) => (borrowed, None),
            Err((cause, missing)) => {
                let denied = self.deny(slot, cause, missing);
                if self.binds() {
                    return Err(denied);
                }
                // Waiting for an answer under way is no refusal.
                (true, (!cause.waits()).then_some(denied))
            }
        };
        let probe = cost.0 > 0 && self.gate.ask(self.now) == Entry::Probe;
        if probe {
            self.gate.probe();
        }
        self.reserved += u64::from(cost.0);
        let account = &mut self.accounts[slot];
        let (leased, allotted) = match &mut account.allotment {
            Some(allotment) if account.ceiling.is_some() => {
                let taken = allotment.reserve(cost.0);
                self.allotted -= u64::from(taken);
                self.allotted_out += u64::from(taken);
                (taken, true)
            }
            _ => {
                let taken = self.lease.reserve(cost.0);
                self.leased += u64::from(taken);
                (taken, false)
            }
        };
        account.reserved += u64::from(cost.0);
        let generation = account.generation;
        let judged = cost.0 > 0 && self.settings.mode != Mode::Off;
        let terms = Terms {
            cost,
            paid: judged.then_some(if borrowed { Paid::Borrowed } else { Paid::Floor }),
            level: self.steps.level(),
            left: account.ceiling.map(|ceiling| ceiling.saturating_sub(account.load())),
        };
        self.rehold(slot);
        if borrowed && class == Class::Batch && self.lent.0 == self.now {
            self.lent.1 += u64::from(cost.0);
        }
        let slot = slot as u32;
        Ok(Pass { slot, generation, class, cost: cost.0, leased, allotted, probe, borrowed, terms, would_deny })
    }

    /// Whether decisions are enforced. Where they are only observed nothing is refused or delayed, not even for want
    /// of a lease.
    pub(super) fn binds(&self) -> bool {
        self.settings.mode == Mode::Enforce && self.truth.footing() != Footing::Blind
    }

    fn deny(&mut self, slot: usize, cause: Cause, missing: u64) -> Denied {
        self.accounts[slot].count_denial(cause);
        self.silenced |= cause == Cause::OrgCeiling;
        Denied { cause, level: self.steps.level(), missing }
    }

    /// Whether a call may be reserved, and if so, whether it is borrowed.
    fn decide(&mut self, slot: usize, class: Class, cost: u64) -> Result<bool, (Cause, u64)> {
        let now = self.now;
        if self.settings.mode == Mode::Off {
            return self.fund(slot, cost, false).map(|()| false);
        }
        let account = &mut self.accounts[slot];
        if cost == 0 {
            return Ok(false);
        }
        let load = account.load() + cost;
        if account.ceiling.is_some_and(|ceiling| load > ceiling) {
            return Err((Cause::CallerCeiling, load - account.ceiling.unwrap_or(load)));
        }
        let guaranteed = load <= account.floor;
        let returned = account.ask(now);
        if !guaranteed {
            account.ask_to_borrow(now);
        }
        if returned {
            self.rehold(slot);
        }
        if self.truth.footing() == Footing::Awaiting
            && self.truth.spent_unread() + self.unposted + self.reserved + cost > self.settings.before_reading
        {
            return Err((Cause::AwaitReading, 0));
        }
        let mut looks = false;
        if let Some(ceiling) = self.ceiling {
            looks = self.within(ceiling, Ask { slot, class, cost, guaranteed })?;
        }
        match self.gate.ask(now) {
            Entry::Closed => return Err((Cause::OrgClosed, 0)),
            Entry::BatchFull => return Err((Cause::AwaitProbe, 0)),
            Entry::Free | Entry::Probe => {}
        }
        self.fund(slot, cost, guaranteed)?;
        if looks {
            self.looked = now;
        }
        Ok(!guaranteed)
    }

    /// Whether the org has room for it; says whether it is a look.
    fn within(&mut self, ceiling: u64, ask: Ask) -> Result<bool, (Cause, u64)> {
        let used = self.used();
        match self.room(ceiling - self.kept_for_looks, used, ask) {
            Ok(()) => Ok(false),
            Err(_) if self.may_look(ceiling, used, ask) => Ok(true),
            Err(denied) => Err(denied),
        }
    }

    fn room(&mut self, free: u64, used: u64, ask: Ask) -> Result<(), (Cause, u64)> {
        let Ask { slot, class, cost, guaranteed } = ask;
        if used + cost > free {
            return Err((Cause::OrgCeiling, used + cost - free));
        }
        let level = self.steps.at(used);
        if guaranteed {
            return Ok(());
        }
        if !level.lends_to(class) {
            let until =
                self.steps.entered_at(if class == Class::Batch { Level::StopBatch } else { Level::StopStandard });
            let below = until.saturating_sub(self.settings.ladder.back_below.of(self.ceiling.unwrap_or(0)));
            return Err((Cause::Shed, used.saturating_sub(below).max(1)));
        }
        let held = self.beside_floors(self.held_beside(slot, cost));
        if used + cost + held > free {
            return Err((Cause::Reserved, used + cost + held - free));
        }
        if let Some(fair) = self.fair
            && level >= Level::Lean
        {
            let account = &self.accounts[slot];
            let share = fair.saturating_mul(u64::from(account.weight)) / FAIR_UNIT;
            let borrowed = (account.load() + cost).saturating_sub(account.floor);
            if borrowed > share {
                return Err((Cause::Share, borrowed - share));
            }
        }
        if class == Class::Batch && level >= Level::PaceBatch {
            self.pace(used, cost)?;
        }
        Ok(())
    }

    /// What has to stay held for floors if the account at `slot` gets `cost` more calls.
    fn held_beside(&self, slot: usize, cost: u64) -> u64 {
        let account = &self.accounts[slot];
        self.held - account.held + account.to_hold(account.load() + cost, self.kept_when_idle())
    }

    /// One call of those that are refused may find out whether Salesforce still counts what its last, old reading says. It
    /// takes nothing from a floor and stays below the ceiling.
    fn may_look(&self, ceiling: u64, used: u64, ask: Ask) -> bool {
        let every = self.settings.look_every;
        let old = self.truth.age(self.now).is_some_and(|age| age >= every);
        let held = if ask.guaranteed { 0 } else { self.held_beside(ask.slot, ask.cost) };
        old && self.now.0.saturating_sub(self.looked.0) >= every && used + ask.cost + held <= ceiling
    }

    /// Lets batch borrow, in one minute, what comes back in it and a sixtieth of what is left until batch stops.
    fn pace(&mut self, used: u64, cost: u64) -> Result<(), (Cause, u64)> {
        if self.lent.0 != self.now {
            let left = self.steps.entered_at(Level::StopBatch).saturating_sub(used);
            self.lent = (self.now, 0, (left / 60 + self.own.returning(self.now, 1)).max(1));
        }
        let (_, lent, at_most) = self.lent;
        // One call that costs more than a minute's worth has a minute of its own.
        if lent > 0 && lent + cost > at_most { Err((Cause::Paced, 0)) } else { Ok(()) }
    }

    /// Calls the org may use but for looks.
    pub(super) fn spendable(&self) -> Option<u64> {
        self.ceiling.map(|ceiling| ceiling - self.kept_for_looks)
    }

    fn fund(&mut self, slot: usize, cost: u64, guaranteed: bool) -> Result<(), (Cause, u64)> {
        if let Lease::Unbounded = self.lease {
            return Ok(());
        }
        let account = &mut self.accounts[slot];
        let own = account.ceiling.map(|_| account.allotment.get_or_insert_default());
        let funds = self.lease.ask(cost, own.as_ref().map(|allotment| allotment.left()), self.now);
        if let Some(allotment) = own {
            allotment.ask();
            if !std::mem::replace(&mut allotment.listed, true) {
                self.allotments.push(slot as u32);
            }
            if funds == Funds::Empty {
                allotment.need(cost);
            }
        } else {
            self.common.asked = true;
            if funds == Funds::Empty {
                self.needed = self.needed.max(cost);
                self.needed_floor += if guaranteed { cost } else { 0 };
            }
        }
        match funds {
            Funds::Enough => Ok(()),
            Funds::Empty => Err((Cause::AwaitLease, 0)),
            Funds::Lost => Err((Cause::BankLost, 0)),
        }
    }

    /// Whether the lease that `pass` was reserved from wants filling up.
    pub(super) fn is_low(&self, pass: &Pass) -> bool {
        match &self.accounts[pass.slot as usize].allotment {
            Some(allotment) if pass.allotted => allotment.is_low(),
            _ => self.lease.is_low(),
        }
    }

    pub(super) fn kept_when_idle(&self) -> PerMille {
        self.settings.lending.map_or(PerMille::new(1_000), |lending| lending.kept)
    }

    /// Brings what is held for one account in line with its load.
    pub(super) fn rehold(&mut self, slot: usize) {
        let kept = self.kept_when_idle();
        let account = &mut self.accounts[slot];
        let held = account.to_hold(account.load(), kept);
        self.held = self.held - account.held + held;
        account.held = held;
    }

    /// Ends a reservation, by sending or not.
    fn unreserve(&mut self, pass: &Pass) {
        self.reserved -= u64::from(pass.cost);
        let account = &mut self.accounts[pass.slot as usize];
        account.reserved -= u64::from(pass.cost);
        if !pass.allotted {
            self.leased -= u64::from(pass.leased);
        } else if let Some(allotment) = &mut account.allotment {
            allotment.unreserve(pass.leased);
            self.allotted_out -= u64::from(pass.leased);
        }
    }

    pub(super) fn refund(&mut self, pass: &Pass) {
        self.unreserve(pass);
        match &mut self.accounts[pass.slot as usize].allotment {
            Some(allotment) if pass.allotted => {
                allotment.refund(pass.leased);
                self.allotted += u64::from(pass.leased);
            }
            _ => self.lease.refund(pass.leased),
        }
        self.rehold(pass.slot as usize);
        if pass.probe {
            self.gate.unresolved();
        }
    }

    /// Counts a reserved call in the running minute; `None` if its lease has ended, then nothing is counted.
    pub(super) fn spend(&mut self, pass: &Pass) -> Option<Minute> {
        if self.binds() && !self.lease.may_send(self.now) {
            return None;
        }
        self.unreserve(pass);
        let slot = pass.slot as usize;
        self.accounts[slot].spend(pass.class, pass.cost, self.now);
        self.unposted += u64::from(pass.cost);
        self.soil(slot, self.now);
        Some(self.now)
    }

    fn soil(&mut self, slot: usize, minute: Minute) {
        // Without a bank there is nobody to tell.
        if !matches!(self.lease, Lease::Unbounded) && self.accounts[slot].soil(minute) {
            self.dirty.push(slot as u32);
        }
    }

    /// Salesforce charged less than was spent.
    pub(super) fn charged_less(&mut self, pass: &Pass, minute: Minute, calls: u32) {
        let slot = pass.slot as usize;
        if self.accounts[slot].generation != pass.generation {
            return;
        }
        let taken = self.accounts[slot].take(pass.class, minute, calls);
        if taken > 0 {
            self.own.take(minute, taken);
            self.truth.charged_less(u64::from(taken));
            self.rehold(slot);
            self.soil(slot, minute);
        }
    }

    /// Takes in what Salesforce said; says whether waiting calls should ask again.
    pub(super) fn read(&mut self, reading: Reading) -> Result<bool, Misread> {
        self.own.extend(self.now);
        let was = (self.truth.footing(), self.ceiling);
        if let Err(misread) = self.truth.read(reading, &self.own, self.unproven, self.now) {
            self.misread[misread as usize] += 1;
            return Err(misread);
        }
        self.silenced = false;
        self.set_ceiling();
        let changed = was != (self.truth.footing(), self.ceiling);
        if changed {
            // Floors have to be scaled anew.
            self.swept = Minute(self.swept.0.min(self.now.0.saturating_sub(1)));
        }
        Ok(changed)
    }

    pub(super) fn set_ceiling(&mut self) {
        let ceiling = self.truth.ceiling();
        if ceiling != self.ceiling {
            self.ceiling = ceiling;
            self.steps.set(self.settings.ladder, ceiling);
        }
        // Nobody has to look at what only we use; and no more is kept than a day of looks can use.
        let looks_a_day = u64::from(WINDOW_MINUTES / self.settings.look_every.max(1));
        self.kept_for_looks = ceiling.map_or(0, |ceiling| looks_a_day.min(self.truth.dark() / 10).min(ceiling / 100));
    }
}
