//! The books of one replica among several: what the others spent counts here too, and what is known here is told them.
//!
//! Calls of others enter the accounts and the org's sums like calls of our own, but in rings of their own: they are never
//! told the bank again. What others may have spent without telling is no usage of strangers when Salesforce counts it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::call::Class;

use super::bank::{Entry, Paused, Shared, Wishes};
use super::book::Book;
use super::lease::Lease;
use super::settings::Share;
use super::time::Minute;
use super::usage::{Footing, Reading};

/// How often the bank is asked what others spent, while they do.
const LIVELY: Duration = Duration::from_secs(1);
/// And while they do not.
const QUIET: Duration = Duration::from_secs(3);
/// What is set aside for the time in which the bank is lost is enough for so many seconds at the present rate.
const RESERVE_SECONDS: u64 = 900;
/// At least this much, with plenty left.
const USUAL_RESERVE: u64 = 100;
/// Calls of others in minutes that are still to come here; more than that are told again.
const MOST_EARLY: usize = 10_000;

/// What is known of the other replicas.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// Calls they may spend, or have spent without telling.
    pub(super) others: u64,
    replicas: u64,
    scarce: bool,
    lively: bool,
    asked: Duration,
    /// What they sent in minutes that have not begun here.
    early: Vec<Entry>,
    /// Where the accounts stand, by name; built when it is needed.
    index: Option<HashMap<Arc<str>, usize>>,
}

impl Book {
    /// Calls that other replicas may have spent or spend.
    pub(super) fn others(&self) -> u64 {
        self.sharing.as_ref().map_or(0, |sharing| sharing.others)
    }

    /// Another replica waits for calls.
    pub(super) fn wanted_elsewhere(&self) -> bool {
        self.sharing.as_ref().is_some_and(|sharing| sharing.scarce)
    }

    /// Whether it is time to hear what the others did.
    pub(super) fn is_curious(&self, at: Duration) -> bool {
        self.sharing
            .as_ref()
            .is_some_and(|sharing| at.saturating_sub(sharing.asked) >= if sharing.lively { LIVELY } else { QUIET })
    }

    /// What a bank of several replicas has to know; gives back what is too much of the reserve. `free` calls could be spent
    /// from now on, those leased included.
    pub(super) fn wishes(&mut self, at: Duration, free: u64, ask: u64) -> Wishes {
        let Some(sharing) = &mut self.sharing else { return Wishes::default() };
        sharing.asked = at;
        let mine = self.lease.left().unwrap_or(0) + self.leased + self.allotted + self.allotted_out;
        let left = free.saturating_sub(mine + sharing.others);
        let wanted = (self.per_second * RESERVE_SECONDS).max(USUAL_RESERVE).min(left / (4 * sharing.replicas.max(1)));
        let (reserve, reserve_ask) = self.lease.adapt_reserve(if self.stopping { 0 } else { wanted });
        let own = self.own.sum();
        // Before the first reading all replicas together spend what one alone would.
        let counted = if self.truth.footing() == Footing::Awaiting { 0 } else { own };
        Wishes {
            cap: counted + free,
            held: self.held,
            floor: std::mem::take(&mut self.needed_floor).min(ask),
            foreign: self.truth.last().map(|_| self.truth.used(own) - own),
            reserve,
            reserve_ask,
            waiting: false,
            reading: self.truth.last(),
        }
    }

    /// The bank is shared from now on, and knows what was spent before.
    pub(super) fn join(&mut self, entries: &[Entry], paused: &Paused) {
        self.sharing = Some(Box::default());
        self.lease.set_aside(0);
        self.import(entries, false);
        self.heed(paused);
        self.sweep_all();
    }

    /// Takes in what the bank said of the others.
    pub(super) fn share(&mut self, shared: &Shared) {
        let Some(sharing) = &mut self.sharing else { return };
        sharing.others = shared.others;
        sharing.replicas = u64::from(shared.replicas);
        sharing.scarce = shared.scarce;
        sharing.lively = !shared.entries.is_empty();
        let early = std::mem::take(&mut sharing.early);
        self.import(&early, true);
        self.import(&shared.entries, true);
        self.lease.set_aside(shared.reserve);
        self.truth.others_untold(shared.others);
        if let Some((reading, minute)) = shared.reading {
            self.overhear(reading, minute);
        }
        if let Some(paused) = &shared.paused
            && !self.pauses_changed
        {
            self.heed(paused);
        }
    }

    /// Counts what others sent: each entry replaces what was told of that minute before.
    fn import(&mut self, entries: &[Entry], unread: bool) {
        self.own.extend(self.now);
        for entry in entries {
            if entry.minute > self.now {
                if let Some(sharing) = self.sharing.as_mut().filter(|sharing| sharing.early.len() < MOST_EARLY) {
                    sharing.early.push(entry.clone());
                }
                continue;
            }
            let slot = self.slot_by_name(&entry.caller);
            let account = &mut self.accounts[slot];
            let lost = account.lost();
            let by = account.put_theirs(entry.class, entry.minute, entry.calls, self.now);
            self.unproven = self.unproven + account.lost() - lost;
            let calls = u32::try_from(by.unsigned_abs()).unwrap_or(u32::MAX);
            if by > 0 {
                self.own.add(entry.minute, calls);
                if unread {
                    self.truth.spent(u64::from(calls));
                }
            } else {
                self.own.take(entry.minute, calls);
            }
            self.rehold(slot);
        }
        if !entries.is_empty() {
            self.truth.imported();
        }
    }

    fn slot_by_name(&mut self, name: &Arc<str>) -> usize {
        let names = self.accounts.len();
        let index = self.sharing.as_mut().and_then(|sharing| sharing.index.take());
        let mut index = index.filter(|index| index.len() <= names).unwrap_or_else(|| self.index());
        let known = index.get(name).copied().filter(|slot| self.accounts[*slot].name == *name);
        let slot = known.or_else(|| self.slot_of(name)).unwrap_or_else(|| {
            let slot = self.install(&Share::borrower(Arc::clone(name)));
            self.accounts[slot].retire(self.now);
            slot
        });
        index.insert(Arc::clone(name), slot);
        if let Some(sharing) = &mut self.sharing {
            sharing.index = Some(index);
        }
        slot
    }

    fn index(&self) -> HashMap<Arc<str>, usize> {
        self.accounts.iter().enumerate().map(|(slot, account)| (Arc::clone(&account.name), slot)).collect()
    }

    /// Salesforce said this to another replica, maybe before our last calls, which are counted beside it.
    fn overhear(&mut self, reading: Reading, minute: Minute) {
        if self.truth.last().is_some_and(|(_, at)| at.plus(1) >= minute || at.plus(1) >= self.now) {
            return;
        }
        let since = self.truth.spent_unread();
        if self.read(reading).is_ok() {
            self.truth.spent(since);
        }
    }

    fn heed(&mut self, paused: &Paused) {
        for account in &mut self.accounts {
            account.paused = paused.callers.contains(&account.name);
        }
        for class in Class::ALL {
            self.paused_classes[class.index()] = paused.classes.contains(class);
        }
    }

    /// Whether calls have to be kept for what others may spend: a borrowed call must not take what is held for floors.
    pub(super) fn beside_floors(&self, held: u64) -> u64 {
        if held > 0 && !matches!(self.lease, Lease::Unbounded) { held + self.others() } else { held }
    }
}
