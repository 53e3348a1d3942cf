//! One replica at the counter of a shared bank: what it told, what it knows, and what it does about lost messages and lost
//! data. No I/O and no clock: whoever holds a [`Teller`] sends its [`Request`]s and gives it the [`Reply`]s.
//!
//! What was sent and not answered is sent again, the same under the same number, before anything new is. So the store
//! counts it once, and what it granted for it, which nobody spent, is given back by the statement after it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::admission::bank::{Allotted, Entry, Lease, Paused, Shared, Statement};
use crate::admission::ring::WINDOW_MINUTES;
use crate::admission::time::Minute;
use crate::admission::usage::Reading;

use super::rules::{KNOWN_WITHIN_MS, NO_HALF, STEP_MS};
use super::state::minute;
use super::words::{Allot, Answer, Cell, Delta, Key, Known, Memory, ReadAt, Remembered, Tell, Told};

/// Cells of one page of memory.
pub const REMEMBERED_AT_ONCE: usize = 1_000;

/// What to say to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// [`open`](super::rules::open) for this replica; the number becomes the epoch if there are no data.
    Open(u64),
    /// [`settle`](super::rules::settle)
    Settle(Tell),
    /// [`close`](super::rules::close)
    Close(Tell),
    /// [`remember`](super::rules::remember)
    Remember(Memory),
}

/// What the store says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To anything but a memory.
    Told(Told),
    /// To a memory.
    Remembered(Remembered),
}

/// What comes after a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// There is more to say.
    Again,
    /// That was all. Where there was no statement, nothing is granted, and everything that there is belongs to the others.
    Done(Lease),
    /// The store takes no more replicas.
    Full,
}

/// One replica at the counter.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about one conversation")]
pub struct Teller {
    replica: Arc<str>,
    /// Further epochs are made of it.
    random: u64,
    /// 0 until it was opened.
    epoch: u64,
    seq: u64,
    /// It has to come anew: it is not known there.
    stranger: bool,
    /// The store's time at a time of our own.
    anchor: (Duration, u64),
    /// What was told and written down.
    own: BTreeMap<Key, u64>,
    /// What all replicas spent, as far as the store said.
    all: BTreeMap<Key, u64>,
    known: u64,
    /// Told and not answered.
    pending: Option<Tell>,
    /// And it is the statement under way.
    current: bool,
    /// It is what the last request told.
    telling: bool,
    /// What the store knows of leases in callers' own names.
    named: BTreeMap<Arc<str>, u64>,
    /// It may know them no more.
    retell: bool,
    /// What is remembered in case that the store loses its data.
    memory: Option<Recalled>,
    /// How far that is said.
    saying: Option<Saying>,
    /// The ledger has to hear of these.
    changed: BTreeSet<Key>,
    paused_known: u64,
    paused: Paused,
    /// The ledger has to hear of that.
    repaused: bool,
    read: Option<ReadAt>,
    /// What was granted for the statement, while the rest of the answer is read.
    granted: Option<Box<Answer>>,
}

#[derive(Debug)]
struct Recalled {
    version: u64,
    half: u64,
    members: Vec<Known>,
    until: Minute,
    at: Duration,
    /// Others were still to say what they remembered of a loss before.
    recovering: bool,
}

#[derive(Debug)]
struct Saying {
    epoch: u64,
    /// The last cell that was said.
    after: Option<Key>,
    /// The page under way is the last.
    last: bool,
    /// And its last cell.
    through: Option<Key>,
}

impl Teller {
    /// A replica that has not come yet. `random` tells its data from those of any other.
    pub fn new(replica: Arc<str>, random: u64) -> Self {
        Self {
            replica,
            random,
            epoch: 0,
            seq: 0,
            stranger: true,
            anchor: (Duration::ZERO, 0),
            own: BTreeMap::new(),
            all: BTreeMap::new(),
            known: 0,
            pending: None,
            current: false,
            telling: false,
            named: BTreeMap::new(),
            retell: false,
            memory: None,
            saying: None,
            changed: BTreeSet::new(),
            paused_known: 0,
            paused: Paused::default(),
            repaused: false,
            read: None,
            granted: None,
        }
    }

    /// Whether the store was reached at all.
    pub fn is_open(&self) -> bool {
        self.epoch != 0
    }

    /// Which data of the store it knows; 0 before the first.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The store's time, at `now` of a monotonic clock.
    pub fn time(&self, now: Duration) -> u64 {
        let (then, time) = self.anchor;
        time + u64::try_from(now.saturating_sub(then).as_millis()).unwrap_or(0)
    }

    /// The next request, for `statement` or, where there is none, to learn what there is; `now` is that of a monotonic clock.
    /// A closing replica says nothing after this.
    pub fn request(&mut self, statement: Option<&Statement>, closing: bool, now: Duration) -> Request {
        self.telling = false;
        if self.saying.is_some() {
            return Request::Remember(self.page(now));
        }
        if self.stranger {
            return Request::Open(self.fresh());
        }
        if self.granted.is_some() || (statement.is_none() && self.pending.is_none()) {
            // The same number again: only to read on.
            return Request::Settle(self.tell(self.seq, now));
        }
        if let Some(pending) = &mut self.pending {
            (pending.known, self.telling) = (self.known, true);
            let tell = pending.clone();
            return if closing && self.current { Request::Close(tell) } else { Request::Settle(tell) };
        }
        let Some(statement) = statement else { return Request::Settle(self.tell(self.seq, now)) };
        let tell = self.put(statement, now);
        (self.pending, self.current, self.telling) = (Some(tell.clone()), true, true);
        if closing { Request::Close(tell) } else { Request::Settle(tell) }
    }

    /// Takes in the reply to the last request, which was `sent` and came at `now`. `statement` is the one of that request.
    pub fn hear(&mut self, reply: Reply, statement: Option<&Statement>, sent: Duration, now: Duration) -> Step {
        match reply {
            Reply::Remembered(remembered) => self.remembered(remembered),
            Reply::Told(Told::Stale) if self.stranger => return Step::Full,
            Reply::Told(Told::Stale) => self.stranger = true,
            Reply::Told(Told::Strange { epoch }) if self.memory.is_some() && epoch != self.epoch => {
                self.granted = None;
                self.saying = Some(Saying { epoch, after: None, last: false, through: None });
            }
            Reply::Told(Told::Strange { .. }) => (self.stranger, self.retell, self.granted) = (true, true, None),
            Reply::Told(Told::Settled(answer)) => return self.settled(answer, statement, sent, now),
        }
        Step::Again
    }

    /// The last request was not answered, and its statement is given up: the ledger was told so.
    pub fn lost(&mut self) {
        (self.current, self.granted) = (false, None);
    }

    fn settled(&mut self, answer: Box<Answer>, statement: Option<&Statement>, sent: Duration, now: Duration) -> Step {
        self.stranger = false;
        if answer.epoch != self.epoch {
            (self.epoch, self.known) = (answer.epoch, 0);
        }
        if answer.now > self.time(now) {
            // It was so late at least a moment ago: nobody's time runs faster than that of the first.
            self.anchor = (now, answer.now);
        }
        let mine = answer.members.iter().find(|known| known.replica == self.replica).map_or(0, |known| known.seq);
        self.seq = self.seq.max(mine);
        let mut new = false;
        let told = self.telling;
        if let Some(pending) = self.pending.take_if(|pending| told || pending.seq <= mine) {
            self.seq = self.seq.max(pending.seq);
            let granted = answer.allotted.iter().filter(|_| told).copied().chain(std::iter::repeat(0));
            for (allot, granted) in pending.allotted.iter().zip(granted) {
                self.named.insert(Arc::clone(&allot.caller), allot.balance + granted);
            }
            self.named.retain(|_, calls| *calls > 0);
            self.confirm(pending);
            // What is granted for a statement that the ledger was told to be lost is given back by the next.
            new = std::mem::take(&mut self.current);
        }
        self.prune(now);
        for Cell { key, calls } in &answer.cells {
            self.all.insert(key.clone(), *calls);
            self.changed.insert(key.clone());
        }
        self.known = answer.through;
        self.paused_known = answer.paused_version;
        if let Some(paused) = &answer.paused {
            (self.paused, self.repaused) = (paused.clone(), true);
        }
        if !answer.more {
            self.memory = Some(Recalled {
                version: answer.through,
                half: answer.half,
                members: answer.members.clone(),
                until: answer.until,
                at: sent,
                recovering: answer.recovering,
            });
        }
        let more = answer.more;
        match &mut self.granted {
            Some(granted) => {
                (granted.others, granted.scarce, granted.reading) = (answer.others, answer.scarce, answer.reading);
            }
            None if new || statement.is_none() => self.granted = Some(answer),
            None => return Step::Again,
        }
        if more {
            return Step::Again;
        }
        let Some(answer) = self.granted.take() else { return Step::Again };
        Step::Done(self.lease(*answer, now))
    }

    /// What was told is written down.
    fn confirm(&mut self, pending: Tell) {
        for Delta { key, calls } in pending.deltas {
            let own = self.own.entry(key.clone()).or_default();
            *own = own.saturating_add_signed(calls);
            self.changed.insert(key);
        }
    }

    fn lease(&mut self, answer: Answer, now: Duration) -> Lease {
        let reading = answer.reading.map(|ReadAt { used, limit, at }| (Reading { used, limit }, minute(at)));
        let shared = Shared {
            now: self.ledger_time(now),
            reserve: answer.reserve,
            others: answer.others,
            replicas: u32::try_from(answer.members.len()).unwrap_or(1),
            scarce: answer.scarce,
            recovering: answer.recovering,
            entries: self.news(),
            reading,
            paused: std::mem::take(&mut self.repaused).then(|| self.paused.clone()),
        };
        Lease {
            granted: answer.granted,
            allotted: answer.allotted,
            until: answer.until,
            shared: Some(Box::new(shared)),
        }
    }

    /// What the others spent, where that changed.
    fn news(&mut self) -> Vec<Entry> {
        let changed = std::mem::take(&mut self.changed);
        let entry = |key: Key| {
            let all = self.all.get(&key).copied().unwrap_or(0);
            let others = all.saturating_sub(self.own.get(&key).copied().unwrap_or(0));
            let calls = u32::try_from(others).unwrap_or(u32::MAX);
            Entry { caller: key.caller, class: key.class, minute: key.minute, calls }
        };
        changed.into_iter().map(entry).collect()
    }

    /// A ledger dates its calls a little later than the store, never earlier.
    fn ledger_time(&self, now: Duration) -> Duration {
        Duration::from_millis(self.time(now) + STEP_MS)
    }

    fn prune(&mut self, now: Duration) {
        let first = Minute((minute(self.time(now)).0 + 1).saturating_sub(WINDOW_MINUTES));
        let from = Key { minute: first, class: None, caller: "".into() };
        for cells in [&mut self.own, &mut self.all] {
            if cells.first_key_value().is_some_and(|(key, _)| key.minute < first) {
                *cells = cells.split_off(&from);
            }
        }
    }

    fn fresh(&mut self) -> u64 {
        // Anything that does not repeat will do.
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 12).max(1)
    }

    fn tell(&self, seq: u64, now: Duration) -> Tell {
        let (replica, at) = (Arc::clone(&self.replica), self.time(now));
        let (epoch, known, paused_known) = (self.epoch, self.known, self.paused_known);
        Tell { replica, epoch, seq, known, at, paused_known, ..Tell::default() }
    }

    /// A statement in the words of the store.
    fn put(&mut self, statement: &Statement, now: Duration) -> Tell {
        let mut tell = self.tell(self.seq + 1, now);
        for Entry { caller, class, minute, calls } in &statement.entries {
            let key = Key { minute: *minute, class: *class, caller: Arc::clone(caller) };
            let told = self.own.get(&key).copied().unwrap_or(0);
            if u64::from(*calls) != told {
                tell.deltas.push(Delta { key, calls: i64::from(*calls) - told.cast_signed() });
            }
        }
        let wishes = statement.sharing;
        (tell.cap, tell.held, tell.foreign) = (wishes.cap, wishes.held, wishes.foreign);
        (tell.balance, tell.ask, tell.floor) = (statement.balance, statement.ask, wishes.floor);
        (tell.reserve, tell.reserve_ask, tell.waiting) = (wishes.reserve, wishes.reserve_ask, wishes.waiting);
        let allot = |allotted: &Allotted| Allot {
            caller: Arc::clone(&allotted.caller),
            balance: allotted.balance,
            ask: allotted.ask,
            floor: allotted.floor,
            ceiling: allotted.ceiling,
        };
        tell.allotted = statement.allotted.iter().map(allot).collect();
        if std::mem::take(&mut self.retell) {
            // What did not change stands behind.
            let told: BTreeSet<_> = tell.allotted.iter().map(|allot| Arc::clone(&allot.caller)).collect();
            let rest = self.named.iter().filter(|(caller, _)| !told.contains(*caller));
            tell.allotted.extend(rest.map(|(caller, balance)| Allot {
                caller: Arc::clone(caller),
                balance: *balance,
                ask: 0,
                floor: 0,
                ceiling: 0,
            }));
        }
        let reading = wishes.reading.map(|(Reading { used, limit }, minute)| ReadAt {
            used,
            limit,
            at: minute.begins().as_secs() * 1_000,
        });
        if reading != self.read {
            (tell.reading, self.read) = (reading, reading);
        }
        tell.paused.clone_from(&statement.paused);
        tell
    }

    /// Whether it knows how much others were granted of which it has not heard: after the end of its own lease that may be
    /// anything.
    pub(super) fn remembers(&self, now: Duration) -> bool {
        let at = minute(self.time(now));
        self.memory.as_ref().is_some_and(|recalled| recalled.until > at && recalled.half < NO_HALF / 4)
    }

    /// The page of memory under way, or the next one.
    fn page(&mut self, now: Duration) -> Memory {
        let (at, fresh) = (self.time(now), self.fresh());
        let cells = |after: Option<&Key>, all: &BTreeMap<Key, u64>, own: &BTreeMap<Key, u64>| -> Vec<Cell> {
            use std::ops::Bound::{Excluded, Unbounded};
            let range = (after.map_or(Unbounded, Excluded), Unbounded);
            // What was told and confirmed is there, even if the answer could not say so yet.
            let mut keys: BTreeSet<&Key> =
                all.range::<Key, _>(range).map(|(key, _)| key).take(REMEMBERED_AT_ONCE).collect();
            keys.extend(own.range::<Key, _>(range).map(|(key, _)| key).take(REMEMBERED_AT_ONCE));
            let calls = |key: &Key| all.get(key).copied().unwrap_or(0).max(own.get(key).copied().unwrap_or(0));
            let cell = |key: &Key| Cell { key: key.clone(), calls: calls(key) };
            keys.into_iter().take(REMEMBERED_AT_ONCE).map(cell).collect()
        };
        let after = self.saying.as_ref().and_then(|saying| saying.after.as_ref());
        let cells = cells(after, &self.all, &self.own);
        let last = cells.len() < REMEMBERED_AT_ONCE;
        let first = after.is_none();
        let mut epoch = 0;
        if let Some(saying) = &mut self.saying {
            epoch = saying.epoch;
            saying.last = last;
            saying.through = cells.last().map(|cell| cell.key.clone()).or_else(|| saying.after.take());
        }
        let mut memory = Memory {
            replica: Arc::clone(&self.replica),
            epoch,
            fresh,
            at,
            version: 0,
            half: 0,
            stale: true,
            members: Vec::new(),
            cells,
            last,
            paused_version: self.paused_known,
            paused: self.paused.clone(),
        };
        let Some(recalled) = &self.memory else { return memory };
        if self.remembers(now) {
            let silent = u64::try_from(now.saturating_sub(recalled.at).as_millis()).unwrap_or(u64::MAX);
            (memory.version, memory.half) = (recalled.version, recalled.half);
            memory.stale = silent > KNOWN_WITHIN_MS || recalled.recovering;
        }
        if first {
            memory.members.clone_from(&recalled.members);
            if memory.members.iter().all(|known| known.replica != self.replica) {
                // Its lease had ended, and it held nothing.
                let (replica, until) = (Arc::clone(&self.replica), recalled.until);
                memory.members.push(Known { replica, seq: self.seq, out: 0, named: 0, until });
            }
        }
        memory
    }

    fn remembered(&mut self, remembered: Remembered) {
        let Some(saying) = &mut self.saying else { return };
        if !remembered.taken {
            if remembered.epoch == saying.epoch {
                // It was taken for nobody: it comes as a new one does, and tells nothing of the lost data.
                (self.saying, self.stranger, self.retell) = (None, true, true);
                (self.pending, self.current, self.read) = (None, false, None);
            } else {
                *saying = Saying { epoch: remembered.epoch, after: None, last: false, through: None };
            }
            return;
        }
        saying.epoch = remembered.epoch;
        saying.after = saying.through.take();
        if !saying.last {
            return;
        }
        self.saying = None;
        (self.epoch, self.known) = (remembered.epoch, 0);
        self.retell = true;
        // What was told before may be in another replica's memory: its number is not used again.
        self.seq = self.pending.iter().map(|pending| pending.seq).fold(self.seq.max(remembered.seq), u64::max);
        if let Some(pending) = self.pending.take_if(|pending| pending.seq <= remembered.seq) {
            self.confirm(pending);
        }
        // Otherwise the ledger tells it again: it never heard that it was taken.
        (self.pending, self.current, self.read) = (None, false, None);
    }
}
