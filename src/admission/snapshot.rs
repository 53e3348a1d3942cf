//! What the books say, for the API, the metrics and the page.

use std::sync::Arc;

use serde::Serialize;
use tokio::time::Instant;

use crate::call::Class;

use super::account::{Account, CONTENDING_MINUTES};
use super::book::{Book, LOST};
use super::denied::Cause;
use super::forecast::{Forecast, Return};
use super::gate::Door;
use super::ladder::Level;
use super::ledger::Ledger;
use super::settings::AccountId;
use super::time::Minute;
use super::usage::{Footing, Reading};

/// Accounts read under one hold of the lock.
const READ_AT_ONCE: usize = 256;

/// One org's budget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OrgBudget {
    /// What the ceiling rests on.
    pub footing: Footing,
    /// The daily limit in force.
    pub limit: Option<u64>,
    /// The limit less what is kept free.
    pub ceiling: Option<u64>,
    /// Calls used by the whole org, as far as is known: the number decisions are made by, without reservations.
    pub used: u64,
    /// Calls of ours in the trailing 24 h.
    pub own: u64,
    /// Calls that did not come through us, as far as readings tell.
    pub dark: u64,
    /// Calls reserved and not yet sent.
    pub reserved: u64,
    /// Calls held for unspent floors.
    pub held: u64,
    /// What is left for anybody: ceiling - used - reserved, less the few calls that are kept for looks where others use the
    /// org too.
    pub headroom: Option<u64>,
    /// Leases that ended without a report and count as spent; part of `own`.
    pub lost_leases: u64,
    /// How scarce calls are.
    pub level: Level,
    /// Whether Salesforce lets us in.
    pub door: Door,
    /// Last reading believed.
    pub reading: Option<Reading>,
    /// When it was taken.
    pub read_at: Option<Minute>,
    /// Readings not believed because they are absurd.
    pub misread_absurd: u64,
    /// Readings not believed because they jump.
    pub misread_jump: u64,
    /// Calls the lease still holds; `None` without a bank.
    pub lease: Option<u64>,
    /// What comes back, the pace, and when it runs out.
    pub forecast: Forecast,
    /// What the operator should know.
    pub warnings: Vec<Warning>,
    /// Classes paused by the operator.
    pub paused_classes: Vec<Class>,
    /// The ledger's time.
    pub now: Minute,
}

/// Something the operator should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case", tag = "warning")]
pub enum Warning {
    /// Floors add up to more than the org's limit or other users leave; all are scaled down together.
    FloorsScaled {
        /// To how many thousandths of what was promised.
        per_mille: u16,
    },
    /// No reading came and nothing is assumed: nothing is refused.
    NoReading,
    /// No reading came; the limit is the operator's assumption.
    Assumed,
    /// The last reading is old although calls are being sent.
    OldReading {
        /// How old.
        minutes: u32,
    },
    /// Salesforce refused calls because its daily limit is reached.
    LimitExceeded,
    /// The bank cannot be written.
    BankLost,
}

/// One caller's budget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CallerBudget {
    /// Its name.
    pub name: Arc<str>,
    /// Calls of the trailing 24 h.
    pub used: u64,
    /// The same by class, in the order of [`Class::ALL`].
    pub used_by_class: [u64; 3],
    /// Calls of leases in its name that ended without a report and count as spent; part of `used`.
    pub lost: u64,
    /// Calls reserved and not yet sent.
    pub reserved: u64,
    /// Its floor in force.
    pub floor: u64,
    /// Its floor as configured.
    pub floor_set: u64,
    /// Its ceiling.
    pub ceiling: Option<u64>,
    /// Calls beyond the floor.
    pub borrowed: u64,
    /// Calls held for it that nobody else may borrow.
    pub held: u64,
    /// Calls an hour, by the average of the last 15 minutes.
    pub pace_per_hour: u64,
    /// Paused by the operator.
    pub paused: bool,
    /// No longer in the configuration.
    pub retired: bool,
    /// Calls not admitted since the start, by cause, without the causes that never happened.
    pub denied: Vec<(Cause, u32)>,
}

/// One caller's hours to come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CallerForecast {
    /// Calls that come back within an hour.
    pub returning_1h: u64,
    /// Within six hours.
    pub returning_6h: u64,
    /// When its ceiling is reached if its pace stays.
    pub runs_out: Option<Minute>,
}

impl Ledger {
    /// The org's budget.
    pub fn org(&self, now: Instant) -> OrgBudget {
        self.tick(now);
        self.with(now, Book::org_budget)
    }

    /// Calls used by the whole org, and its limit, if that is known.
    pub fn used_of_limit(&self, now: Instant) -> Option<(u64, u64)> {
        self.with(now, |book| Some((book.truth.used(book.own.sum()), book.truth.limit()?)))
    }

    /// Every caller that is configured or still has calls in the window; lost leases among them, under
    /// [`LOST_LEASES`](super::LOST_LEASES).
    pub fn callers(&self, now: Instant) -> Vec<CallerBudget> {
        self.tick(now);
        let (mut budgets, mut next) = (Vec::new(), 0);
        loop {
            let more = self.with(now, |book| {
                book.accounts.iter_mut().skip(next).take(READ_AT_ONCE).for_each(Account::flush);
                let part = book.accounts.iter().enumerate().skip(next).take(READ_AT_ONCE);
                let visible =
                    |(slot, account): &(usize, &Account)| account.used > 0 || !(account.retired || *slot == LOST);
                budgets.extend(part.filter(visible).map(|(_, account)| book.caller_budget(account)));
                next += READ_AT_ONCE;
                next < book.accounts.len()
            });
            if !more {
                return budgets;
            }
        }
    }

    /// One caller's budget and forecast.
    pub fn caller(&self, account: impl Into<AccountId>, now: Instant) -> Option<(CallerBudget, CallerForecast)> {
        let account = account.into();
        self.tick(now);
        self.with(now, |book| {
            let slot = book.slot(account)?;
            book.accounts[slot].flush();
            let account = &book.accounts[slot];
            let forecast = CallerForecast {
                returning_1h: account.returning(book.now, 60),
                returning_6h: account.returning(book.now, 360),
                runs_out: book.caller_runs_out(account),
            };
            Some((book.caller_budget(account), forecast))
        })
    }

    /// What comes back in each minute of the next 24 h.
    pub fn schedule(&self, now: Instant) -> Vec<Return> {
        self.tick(now);
        self.with(now, |book| book.schedule())
    }

    /// Bytes held by the books.
    pub fn memory_bytes(&self, now: Instant) -> usize {
        self.with(now, |book| book.own.bytes() + book.accounts.iter().map(Account::bytes).sum::<usize>())
    }
}

impl Book {
    fn org_budget(&mut self) -> OrgBudget {
        let used = self.truth.used(self.own.sum());
        let level = self.steps.at(used + self.reserved);
        let last = self.truth.last();
        OrgBudget {
            footing: self.truth.footing(),
            limit: self.truth.limit(),
            ceiling: self.ceiling,
            used,
            own: self.own.sum(),
            dark: self.truth.dark(),
            reserved: self.reserved,
            held: self.held,
            headroom: self.spendable().map(|calls| calls.saturating_sub(used + self.reserved)),
            lost_leases: self.unproven,
            level,
            door: self.gate.door(),
            reading: last.map(|(reading, _)| reading),
            read_at: last.map(|(_, at)| at),
            misread_absurd: self.misread[0],
            misread_jump: self.misread[1],
            lease: self.lease.left().map(|left| left + self.allotted),
            forecast: self.forecast(),
            warnings: self.warnings(),
            paused_classes: Class::ALL.iter().copied().filter(|class| self.paused_classes[class.index()]).collect(),
            now: self.now,
        }
    }

    fn warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        if let Some((pool, floors)) = self.floor_scale {
            warnings.push(Warning::FloorsScaled { per_mille: (u128::from(pool) * 1_000 / u128::from(floors)) as u16 });
        }
        match self.truth.footing() {
            Footing::Blind => warnings.push(Warning::NoReading),
            Footing::Assumed => warnings.push(Warning::Assumed),
            Footing::Awaiting | Footing::Read => {}
        }
        if let Some(minutes) = self.truth.age(self.now)
            && minutes > 60
            && self.own.recent(60) > 0
        {
            warnings.push(Warning::OldReading { minutes });
        }
        if self.gate.door() != Door::Open {
            warnings.push(Warning::LimitExceeded);
        }
        if self.lease.is_lost() {
            warnings.push(Warning::BankLost);
        }
        warnings
    }

    fn caller_budget(&self, account: &Account) -> CallerBudget {
        let mut used_by_class = [0; 3];
        for class in Class::ALL {
            used_by_class[class.index()] = account.all(Some(*class)).map(super::ring::Ring::sum).sum();
        }
        let count = |cause: Cause| account.denied.as_ref().map_or(0, |counts| counts[cause.index()]);
        let denied = Cause::ALL.iter().map(|cause| (*cause, count(*cause)));
        CallerBudget {
            name: Arc::clone(&account.name),
            used: account.used,
            used_by_class,
            lost: account.lost(),
            reserved: account.reserved,
            floor: account.floor,
            floor_set: account.floor_set,
            ceiling: account.ceiling,
            borrowed: account.borrowed(),
            held: account.held,
            pace_per_hour: account.recent(self.now, CONTENDING_MINUTES) * 60 / u64::from(CONTENDING_MINUTES),
            paused: account.paused,
            retired: account.retired,
            denied: denied.filter(|(_, count)| *count > 0).collect(),
        }
    }
}
