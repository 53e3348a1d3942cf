//! What the books tell the bank, and what the bank's answers change.
//!
//! A statement is taken under the lock in one go: every minute that changed since the last one, as absolute numbers
//! (so that telling it twice does no harm), and the *balance*, the calls that may be spent without telling the bank
//! again. Once it is written, everything that was or may be spent is on record: the minutes, and the balance.

use std::sync::Arc;
use std::time::Duration;

use crate::call::Class;

use super::account::KINDS;
use super::allotment::Room;
use super::bank::{Allotted, Entry, Lease, Past, Paused, Statement, Wishes};
use super::book::Book;
use super::lease::{self, OnLoss};
use super::time::Minute;
use super::usage::Footing;

/// Most minutes of callers told in one statement; the rest is covered by the balance until the next.
const MOST_ENTRIES: usize = 50_000;
/// The rate of spending is taken over at least this long.
const RATED_OVER: Duration = Duration::from_millis(200);
/// A lease is renewed when it would end within this many minutes.
const RENEW_WITHIN_MINUTES: u32 = 10;
/// Headroom where nothing limits.
const UNLIMITED: u64 = 1 << 40;

impl Book {
    /// Everything the bank has to know at `at`; `None` if there is nothing new. The last one is never nothing.
    pub(super) fn statement(&mut self, at: Duration) -> Option<Statement> {
        self.rate(at);
        let before = self.lease.left()?;
        let needed = std::mem::take(&mut self.needed);
        let own_leases = self.allotments.iter().filter_map(|slot| self.accounts[*slot as usize].allotment.as_ref());
        let (mut needs, mut largest) = (needed, needed);
        for allotment in own_leases {
            needs += allotment.needed();
            largest = largest.max(allotment.needed());
        }
        let free = self.headroom_to_lease();
        let headroom = free.saturating_sub(self.others()).max(self.leased + self.allotted_out + largest);
        let held = before + self.leased + self.allotted + self.allotted_out;
        let scarce = (self.wanted_elsewhere() || (needs > 0 && needs > headroom.saturating_sub(held)))
            && !self.lease.is_cut_off();
        let in_use = std::mem::take(&mut self.common.asked);
        let ask = if self.stopping || !self.common.spends || (scarce && !in_use) {
            self.lease.give_up();
            0
        } else {
            self.lease.adapt(self.per_second, headroom, needed)
        };
        let left = self.lease.left()?;
        let mut statement = Statement { at, ask, headroom, balance: left + self.leased, ..Statement::default() };
        self.tell_allotments(&mut statement, scarce);
        statement.outstanding = statement.balance + self.allotted + self.allotted_out;
        let curious = self.is_curious(at);
        let news = !self.dirty.is_empty() || self.pauses_changed || left != before || !statement.allotted.is_empty();
        // Others may hold what is wanted here: they are told.
        let wanting = (ask > 0 && headroom > statement.outstanding) || (needs > 0 && self.sharing.is_some());
        if !news && !wanting && !curious && !self.stopping && !self.lease.ends_within(RENEW_WITHIN_MINUTES, self.now) {
            return None;
        }
        self.tell_minutes(&mut statement);
        statement.sharing = Wishes { waiting: needs > 0, ..self.wishes(at, free, ask) };
        if std::mem::take(&mut self.pauses_changed) {
            statement.paused = Some(self.paused());
        }
        Some(statement)
    }

    /// Adapts what callers have leased in their own names, and tells what changed.
    fn tell_allotments(&mut self, statement: &mut Statement, scarce: bool) {
        let usual = lease::Lease::usual(self.per_second);
        let before = statement.balance + self.allotted + self.allotted_out;
        let grantable = statement.headroom > before || self.sharing.is_some();
        for slot in std::mem::take(&mut self.allotments) {
            let account = &mut self.accounts[slot as usize];
            let gone = self.stopping || account.retired;
            let own = account.ceiling.filter(|_| !gone).map_or(0, |ceiling| ceiling.saturating_sub(account.used));
            let idle = account.is_quiet(self.now);
            let Some(allotment) = &mut account.allotment else { continue };
            self.allotted -= allotment.left();
            let ask = allotment.adapt(Room { own, org: statement.headroom, usual, idle, scarce }, self.now);
            self.allotted += allotment.left();
            if allotment.is_over() && ask == 0 {
                account.allotment = None;
                continue;
            }
            self.allotments.push(slot);
            if allotment.has_news() || (ask > 0 && grantable) {
                allotment.tell();
                let (caller, balance) = (Arc::clone(&account.name), allotment.balance());
                let floor = account.floor.saturating_sub(account.load()).min(ask);
                let ceiling = account.ceiling.unwrap_or(0);
                statement.allotted.push(Allotted { caller, balance, ask, floor, ceiling });
                statement.holders.push((slot, account.generation));
            }
        }
    }

    fn tell_minutes(&mut self, statement: &mut Statement) {
        let mut later = Vec::new();
        for slot in self.dirty.drain(..) {
            let account = &mut self.accounts[slot as usize];
            let Some(from) = account.clean() else { continue };
            account.flush();
            if statement.entries.len() >= MOST_ENTRIES {
                let untold = account.recent(self.now, self.now.0 + 1 - from.0);
                match statement.holders.iter().position(|(holder, _)| *holder == slot) {
                    Some(place) => statement.allotted[place].balance += untold,
                    None => statement.balance += untold,
                }
                statement.outstanding += untold;
                account.soil(from);
                later.push(slot);
                continue;
            }
            statement.marks.push((slot, account.generation, from));
            for kind in KINDS {
                let Some(ring) = account.ring(kind) else { continue };
                for minute in from.0.max(ring.first().0)..=self.now.0 {
                    let minute = Minute(minute);
                    let caller = Arc::clone(&account.name);
                    statement.entries.push(Entry { caller, class: kind, minute, calls: ring.at(minute) });
                }
            }
        }
        self.dirty.extend(later);
    }

    /// The bank has it in writing: the lease may be spent.
    pub(super) fn settled(&mut self, statement: &Statement, lease: &Lease, at: Duration) {
        // The bank of several replicas counts its own time. This one may be ahead of it.
        let ahead = lease.shared.as_ref().map_or(0, |shared| at.saturating_sub(shared.now).as_secs() / 60);
        self.lease.granted(lease.granted, lease.until.plus(u32::try_from(ahead).unwrap_or(0)));
        if let Some(shared) = &lease.shared {
            self.share(shared);
        }
        for ((slot, generation), granted) in statement.holders.iter().zip(&lease.allotted) {
            let account = &mut self.accounts[*slot as usize];
            if let Some(allotment) = account.allotment.as_mut().filter(|_| account.generation == *generation) {
                allotment.granted(*granted);
                self.allotted += granted;
            }
        }
    }

    /// The bank has not: what was told is told again, and nothing new may be spent.
    pub(super) fn unsettled(&mut self, statement: &Statement, policy: OnLoss) {
        for (slot, generation, from) in &statement.marks {
            let account = &mut self.accounts[*slot as usize];
            if account.generation == *generation && account.soil(*from) {
                self.dirty.push(*slot);
            }
        }
        for (slot, generation) in &statement.holders {
            let account = &mut self.accounts[*slot as usize];
            if let Some(allotment) = account.allotment.as_mut().filter(|_| account.generation == *generation) {
                allotment.untell();
            }
        }
        self.pauses_changed |= statement.paused.is_some();
        self.lease.lost(policy);
    }

    /// Takes over what earlier processes spent and which callers and classes were paused.
    pub(super) fn inherit(&mut self, past: &Past) {
        if past.shared {
            return self.join(&past.entries, &past.paused);
        }
        for entry in &past.entries {
            self.restore(&entry.caller, entry.class, entry.minute, entry.calls);
        }
        for account in &mut self.accounts {
            account.paused = past.paused.callers.contains(&account.name);
        }
        for class in &past.paused.classes {
            self.paused_classes[class.index()] = true;
        }
        self.sweep_all();
    }

    fn paused(&self) -> Paused {
        let callers = self.accounts.iter().filter(|account| account.paused && !account.retired);
        Paused {
            callers: callers.map(|account| Arc::clone(&account.name)).collect(),
            classes: Class::ALL.iter().copied().filter(|class| self.paused_classes[class.index()]).collect(),
        }
    }

    /// Calls that could be spent from now on, those under way and leased included.
    fn headroom_to_lease(&self) -> u64 {
        if !self.binds() {
            return UNLIMITED;
        }
        let free = self.spendable().map_or(UNLIMITED, |calls| calls.saturating_sub(self.used() - self.reserved));
        match self.truth.footing() {
            Footing::Awaiting => free.min(self.settings.before_reading.saturating_sub(self.truth.spent_unread())),
            _ => free,
        }
    }

    fn rate(&mut self, at: Duration) {
        let elapsed = at.saturating_sub(self.rated_at);
        if elapsed < RATED_OVER {
            return;
        }
        let rate = self.spent_lately.saturating_mul(1_000) / (elapsed.as_millis() as u64).max(1);
        self.per_second = u64::midpoint(self.per_second, rate).max(rate);
        self.spent_lately = 0;
        self.rated_at = at;
    }
}
