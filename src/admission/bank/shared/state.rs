//! What the store keeps of one org.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::admission::LOST_LEASES;
use crate::admission::bank::Paused;
use crate::admission::ring::WINDOW_MINUTES;
use crate::admission::time::Minute;

use super::words::{Key, ReadAt};

/// Name of the account that holds what was leased in callers' names of which nobody knows which ones they were.
pub const LOST_NAMES: &str = "(lost names)";
/// Cells that leave the window in one go; the rest leaves with the next statement.
pub const RELEASED_AT_ONCE: usize = 5_000;

/// One org in the store.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Which data these are: a random number of whoever wrote first; 0 if nobody has.
    pub epoch: u64,
    /// When the epoch began.
    pub born: u64,
    /// The store's time: the highest yet.
    pub now: u64,
    /// Counts every change of a cell, and every replica that comes.
    pub version: u64,
    /// The window.
    pub cells: BTreeMap<Key, Stored>,
    /// Which cell has which version.
    pub changed: BTreeMap<u64, Key>,
    /// Calls in the window.
    pub sum: u64,
    /// The same by caller.
    pub callers: BTreeMap<Arc<str>, u64>,
    /// What is leased in callers' own names, by caller, all replicas together.
    pub named: BTreeMap<Arc<str>, u64>,
    /// The replicas.
    pub members: BTreeMap<Arc<str>, Member>,
    /// All calls that were ever told, plus what is leased: it grows by what is newly granted.
    pub issued: i64,
    /// Until then nothing is granted, because replicas may be about to say what they remember.
    pub gathering: u64,
    /// What is not granted because others may hold it that nobody has heard of.
    pub hold: Hold,
    /// When a replica last got too little for calls that wait, and which.
    pub wanted: (u64, Arc<str>),
    /// What Salesforce last said.
    pub reading: Option<ReadAt>,
    /// What is paused.
    pub paused: Paused,
    /// Counts changes of it.
    pub paused_version: u64,
}

/// One cell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    /// Calls.
    pub calls: u64,
    /// When it last changed.
    pub version: u64,
    /// How many of the calls were remembered by replicas after the store had lost its data.
    pub base: u64,
}

/// What is not granted after data were lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hold {
    /// How much.
    pub calls: u64,
    /// The version that the best memory is of; 0 if nobody remembers.
    pub version: u64,
    /// Somebody may have spent it of whom nobody knows.
    pub doubt: bool,
    /// Its amount is fixed.
    pub set: bool,
}

/// What a replica knew of the store at one answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// The version.
    pub version: u64,
    /// [`State::issued`].
    pub issued: i64,
    /// How much may be issued to others until the next answer.
    pub half: u64,
}

/// One replica.
#[derive(Debug, Clone, Default)]
pub struct Member {
    /// The last it told.
    pub seq: u64,
    /// The version at which it came; nothing is granted to it before others have heard of it.
    pub born: u64,
    /// When it was last heard.
    pub heard: u64,
    /// The same by the store's raw clock.
    pub heard_raw: u64,
    /// Last minute in which its lease may be spent.
    pub until: Minute,
    /// Calls it may spend of the common lease.
    pub out: u64,
    /// Calls of its reserve.
    pub reserve: u64,
    /// Calls it may spend in callers' own names.
    pub named: BTreeMap<Arc<str>, u64>,
    /// The same of which nobody knows in which callers' names.
    pub unnamed: u64,
    /// The last answer that it surely got.
    pub sure: Mark,
    /// The last answer.
    pub last: Mark,
    /// It is known from others' memory only.
    pub awaited: bool,
    /// Its lease ended without a report: what was booked for that.
    pub lost: Option<Vec<(Key, u64)>>,
    /// What was granted in the last answer: common, reserve, and to each allotment.
    pub granted: (u64, u64, Vec<u64>),
}

impl Member {
    /// Everything it may spend.
    pub fn holds(&self) -> u64 {
        self.out + self.reserve + self.unnamed + self.named.values().sum::<u64>()
    }
}

impl State {
    /// The first minute that counts.
    pub fn first(&self) -> Minute {
        Minute((minute(self.now).0 + 1).saturating_sub(WINDOW_MINUTES))
    }

    /// Calls spent or promised.
    pub fn committed(&self) -> u64 {
        self.sum + self.members.values().map(Member::holds).sum::<u64>() + self.hold.calls
    }

    /// Changes a cell by `calls`, if it counts; returns by how much it changed.
    pub fn change(&mut self, key: &Key, calls: i64) -> i64 {
        if key.minute < self.first() || calls == 0 {
            return 0;
        }
        let cell = self.cells.entry(key.clone()).or_default();
        let after = cell.calls.saturating_add_signed(calls);
        let by = after.cast_signed() - cell.calls.cast_signed();
        self.changed.remove(&cell.version);
        self.version += 1;
        (cell.calls, cell.version) = (after, self.version);
        self.changed.insert(self.version, key.clone());
        self.sum = self.sum.saturating_add_signed(by);
        let caller = self.callers.entry(Arc::clone(&key.caller)).or_default();
        *caller = caller.saturating_add_signed(by);
        self.issued += by;
        by
    }

    /// Takes what others remember of a cell: what was told since counts beside it, maybe once too often, never too seldom.
    pub fn remember(&mut self, key: &Key, calls: u64) {
        let base = self.cells.get(key).map_or(0, |cell| cell.base);
        if calls > base && key.minute >= self.first() {
            self.change(key, (calls - base).cast_signed());
            if let Some(cell) = self.cells.get_mut(key) {
                cell.base = calls;
            }
        }
    }

    /// Lets go what has left the window.
    pub fn release(&mut self) {
        let first = self.first();
        let gone: Vec<Key> =
            self.cells.keys().take_while(|key| key.minute < first).take(RELEASED_AT_ONCE).cloned().collect();
        for key in gone {
            let Some(cell) = self.cells.remove(&key) else { continue };
            self.changed.remove(&cell.version);
            self.sum -= cell.calls;
            if let Some(caller) = self.callers.get_mut(&key.caller) {
                *caller -= cell.calls;
                if *caller == 0 {
                    self.callers.remove(&key.caller);
                }
            }
        }
    }

    /// Sets what `replica` may spend in `caller`'s name.
    pub fn set_named(&mut self, replica: &Arc<str>, caller: &Arc<str>, calls: u64) {
        let Some(member) = self.members.get_mut(replica) else { return };
        let before =
            if calls == 0 { member.named.remove(caller) } else { member.named.insert(Arc::clone(caller), calls) };
        let all = self.named.entry(Arc::clone(caller)).or_default();
        *all = *all + calls - before.unwrap_or(0);
        if *all == 0 {
            self.named.remove(caller);
        }
    }

    /// The lease of `replica` has ended without a report: it counts as spent when it ended.
    pub fn lose(&mut self, replica: &Arc<str>) {
        let Some(member) = self.members.get_mut(replica) else { return };
        let booked = |caller: &Arc<str>, calls: u64, minute| {
            (calls > 0).then(|| (Key { minute, class: None, caller: Arc::clone(caller) }, calls))
        };
        let until = member.until;
        let mut lost: Vec<_> = booked(&LOST_LEASES.into(), member.out + member.reserve, until).into_iter().collect();
        lost.extend(booked(&LOST_NAMES.into(), member.unnamed, until));
        lost.extend(member.named.iter().filter_map(|(caller, calls)| booked(caller, *calls, until)));
        self.hold.doubt |= member.awaited;
        self.issued -= member.holds().cast_signed();
        (member.out, member.reserve, member.unnamed, member.awaited) = (0, 0, 0, false);
        for caller in member.named.keys().cloned().collect::<Vec<_>>() {
            self.set_named(replica, &caller, 0);
        }
        for (key, calls) in &lost {
            self.change(key, calls.cast_signed());
        }
        if let Some(member) = self.members.get_mut(replica) {
            member.lost = Some(lost);
        }
    }

    /// `replica` is back and says itself what it spent: it holds what it held, until it says otherwise.
    pub fn find(&mut self, replica: &Arc<str>) {
        let lost = self.members.get_mut(replica).and_then(|member| member.lost.take());
        for (key, calls) in lost.unwrap_or_default() {
            self.change(&key, -calls.cast_signed());
            self.issued += calls.cast_signed();
            let Some(member) = self.members.get_mut(replica) else { return };
            match &*key.caller {
                LOST_LEASES => member.out += calls,
                LOST_NAMES => member.unnamed += calls,
                _ => self.set_named(replica, &key.caller, calls),
            }
        }
    }
}

/// The minute of a time of the store.
pub fn minute(ms: u64) -> Minute {
    Minute(u32::try_from(ms / 60_000).unwrap_or(u32::MAX))
}
