//! The rules of the store: what it grants to whom, and what it counts as spent. Pure functions; the script that a store
//! runs is a transliteration of them.
//!
//! - *Committed* = calls in the window + what all replicas hold (leases, reserves, callers' own leases) + what is held back
//!   after a loss of data. Nothing is granted beyond `cap - committed`.
//! - A replica says what it spent as changes since what it said before. Its statements are numbered: one that comes twice
//!   changes nothing, and its answer repeats what was granted.
//! - What a replica holds counts as spent, at the moment it ended, once its lease has ended without a report. If the
//!   replica comes back and says what it really spent, that takes the place of it.
//! - The store's clock says what time it is when a replica comes and no other is alive. From then on the replicas' monotonic
//!   clocks carry the time, and it never goes back: a step of the store's clock, or another store with another clock,
//!   releases no call.
//! - Data may be lost at any moment. So between two answers to one replica, others are granted no more than half of what was
//!   left at the first: whoever remembers that answer knows how much may have been spent of which it has not heard. After a
//!   loss this half is held back until every replica that is remembered has reported or its lease has ended. A replica that
//!   others do not remember yet is granted nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::admission::ring::WINDOW_MINUTES;

use super::state::{LOST_NAMES, Mark, Member, State, minute};
use super::words::{Allot, Answer, Cell, Delta, Key, Known, Memory, Remembered, Tell, Told};

/// What a replica remembers that was not answered yet.
const NOTHING: Mark = Mark { version: 0, issued: 0, half: NO_HALF };
/// For how many minutes a lease may be spent unless it is renewed.
pub const LEASE_MINUTES: u32 = 30;
/// So many minutes after its end a lease counts as spent: a process that was paused between looking at its clock and
/// sending has sent by then.
pub const GRACE_MINUTES: u32 = 2;
/// A replica that was heard within this time is taken for alive: others wait until it knows of them.
pub const KNOWN_WITHIN_MS: u64 = 15_000;
/// After it began with new data, the store waits so long for replicas that remember the old ones.
pub const GATHER_MS: u64 = 5_000;
/// While a replica was heard within this time, no other may take the time from the store's clock.
pub const ALIVE_WITHIN_MS: u64 = 8_000;
/// Unless it differs by less than this. A ledger dates its calls as much later, so that they never leave too early.
pub const STEP_MS: u64 = 10_000;
/// How much may be issued beside an answer after which a replica remembers nothing of use.
pub const NO_HALF: u64 = 1 << 52;
/// For so long others are told that a replica got too little.
pub const WANTED_MS: u64 = 5_000;
/// Cells told in one answer.
pub const CELLS_AT_ONCE: usize = 1_000;
/// Replicas of one org.
pub const MOST_REPLICAS: usize = 64;

/// A replica comes. `time` is the store's raw clock; `fresh` becomes the epoch if there are no data.
pub fn open(state: &mut State, time: u64, replica: &Arc<str>, fresh: u64) -> Told {
    // Where others are alive, time is what they say, also if they only said what they remember.
    let alive = state.members.values().any(|member| time < member.heard_raw + ALIVE_WITHIN_MS);
    if !alive || time < state.now + STEP_MS {
        state.now = state.now.max(time);
    }
    begin(state, fresh);
    tidy(state);
    if state.members.len() >= MOST_REPLICAS && !state.members.contains_key(replica) {
        return Told::Stale;
    }
    state.version += 1;
    let (now, version) = (state.now, state.version);
    let member = state.members.entry(Arc::clone(replica)).or_default();
    if member.born == 0 {
        member.born = version;
        member.until = minute(now).plus(LEASE_MINUTES);
        let mark = Mark { version, issued: state.issued, half: NO_HALF };
        (member.sure, member.last) = (mark, mark);
    }
    (member.heard, member.heard_raw) = (now, time);
    let tell = Tell { replica: Arc::clone(replica), epoch: state.epoch, ..Tell::default() };
    answer(state, &tell)
}

/// A replica tells what it spent, and asks. `time` is the store's raw clock.
pub fn settle(state: &mut State, time: u64, tell: &Tell) -> Told {
    if state.epoch == 0 || tell.epoch != state.epoch {
        return Told::Strange { epoch: state.epoch };
    }
    let Some(seq) = state.members.get(&tell.replica).map(|member| member.seq) else {
        return Told::Strange { epoch: state.epoch };
    };
    if tell.seq < seq {
        return Told::Stale;
    }
    if tell.seq == seq {
        return answer(state, tell);
    }
    state.now = state.now.max(tell.at);
    tidy(state);
    if !state.members.contains_key(&tell.replica) {
        return Told::Strange { epoch: state.epoch };
    }
    come_back(state, &tell.replica);
    state.find(&tell.replica);
    report(state, time, tell);
    note(state, tell);
    grant(state, tell);
    answer(state, tell)
}

/// A replica stops: it keeps nothing but what is still under way, which counts as spent when its lease ends.
pub fn close(state: &mut State, time: u64, tell: &Tell) -> Told {
    let told = settle(state, time, &Tell { ask: 0, reserve: 0, reserve_ask: 0, ..tell.clone() });
    if let (Told::Settled(_), Some(member)) = (&told, state.members.get_mut(&tell.replica))
        && member.holds() == 0
    {
        state.members.remove(&tell.replica);
    }
    told
}

/// A replica says what it remembers of data that are lost.
pub fn remember(state: &mut State, time: u64, memory: &Memory) -> Remembered {
    state.now = state.now.max(memory.at);
    begin(state, memory.fresh);
    if memory.epoch != state.epoch && memory.epoch != 0 {
        return Remembered { epoch: state.epoch, seq: 0, taken: false };
    }
    // Nothing is granted while somebody is in the middle of it.
    state.gathering = state.gathering.max(state.now + GATHER_MS);
    for cell in &memory.cells {
        state.remember(&cell.key, cell.calls);
    }
    for known in &memory.members {
        let member = state.members.entry(Arc::clone(&known.replica)).or_insert_with(|| Member {
            awaited: true,
            born: 1,
            until: known.until,
            sure: NOTHING,
            last: NOTHING,
            ..Member::default()
        });
        if member.awaited && (known.seq >= member.seq) {
            state.issued += (known.out + known.named).cast_signed() - member.holds().cast_signed();
            (member.seq, member.out, member.unnamed) = (known.seq, known.out, known.named);
            member.until = member.until.max(known.until);
        }
    }
    if memory.version > state.hold.version {
        state.hold.version = memory.version;
        state.hold.calls = memory.half;
        state.hold.doubt |= memory.stale;
        state.hold.set = true;
    }
    state.version = state.version.max(memory.version);
    if memory.paused_version > state.paused_version {
        (state.paused_version, state.paused) = (memory.paused_version, memory.paused.clone());
    }
    let Some(member) = state.members.get_mut(&memory.replica) else {
        return Remembered { epoch: state.epoch, seq: 0, taken: false };
    };
    (member.heard, member.heard_raw) = (state.now, time);
    if memory.last {
        state.gathering = state.gathering.min(state.now.max(state.born + GATHER_MS));
    }
    Remembered { epoch: state.epoch, seq: member.seq, taken: true }
}

/// The first to write finds nothing: the data are new.
fn begin(state: &mut State, fresh: u64) {
    if state.epoch == 0 {
        *state = State { epoch: fresh.max(1), now: state.now, ..State::default() };
        state.born = state.now;
        state.gathering = state.now + GATHER_MS;
    }
}

/// What time brings: calls leave the window, leases end, doubts are settled.
fn tidy(state: &mut State) {
    state.release();
    let now = minute(state.now);
    let ended: Vec<_> = state
        .members
        .iter()
        .filter(|(_, member)| now > member.until.plus(GRACE_MINUTES) && (member.holds() > 0 || member.awaited))
        .map(|(replica, _)| Arc::clone(replica))
        .collect();
    for replica in ended {
        state.lose(&replica);
    }
    state.members.retain(|_, member| now <= member.until.plus(WINDOW_MINUTES));
    if state.now >= state.gathering && state.hold.set {
        end_hold(state);
    }
}

/// Holds back no longer, once nobody is awaited any more.
fn end_hold(state: &mut State) {
    let remembered = state.hold.version > 0;
    let over = if remembered {
        !state.members.values().any(|member| member.awaited)
    } else {
        minute(state.now) > minute(state.born).plus(LEASE_MINUTES + GRACE_MINUTES)
    };
    if !over {
        return;
    }
    let hold = state.hold;
    (state.hold.calls, state.hold.doubt) = (0, false);
    if remembered && hold.doubt {
        // Somebody may have spent it of whom nobody remembers anything.
        let key = Key { minute: minute(state.now), class: None, caller: LOST_NAMES.into() };
        state.issued -= state.change(&key, hold.calls.cast_signed());
    }
}

/// Whose lease has ended is forgotten by others, who have to hear of it again as of one that comes.
fn come_back(state: &mut State, replica: &Arc<str>) {
    let now = minute(state.now);
    if let Some(member) = state.members.get_mut(replica).filter(|member| now > member.until) {
        state.version += 1;
        member.born = state.version;
    }
}

/// Writes down what was spent and what is still held.
fn report(state: &mut State, time: u64, tell: &Tell) {
    for Delta { key, calls } in &tell.deltas {
        state.change(key, *calls);
    }
    for Allot { caller, balance, .. } in &tell.allotted {
        let before = state.members.get(&tell.replica).and_then(|member| member.named.get(caller)).copied();
        state.issued += balance.cast_signed() - before.unwrap_or(0).cast_signed();
        state.set_named(&tell.replica, caller, *balance);
    }
    let now = state.now;
    let Some(member) = state.members.get_mut(&tell.replica) else { return };
    state.issued +=
        (tell.balance + tell.reserve).cast_signed() - (member.out + member.reserve + member.unnamed).cast_signed();
    (member.out, member.reserve, member.unnamed) = (tell.balance, tell.reserve, 0);
    (member.seq, member.awaited) = (tell.seq, false);
    (member.heard, member.heard_raw) = (now, time);
    member.until = member.until.max(minute(now.max(tell.at)).plus(LEASE_MINUTES));
    // It tells on, so it got the last answer.
    member.sure = member.last;
}

fn note(state: &mut State, tell: &Tell) {
    if let Some(reading) = tell.reading
        && state.reading.is_none_or(|known| known.at < reading.at)
    {
        state.reading = Some(reading);
    }
    if let Some(paused) = &tell.paused {
        state.paused = paused.clone();
        state.paused_version += 1;
    }
}

/// What the store can give away now.
struct Purse {
    /// Below the ceiling.
    free: u64,
    /// Until others have to be answered.
    room: u64,
    held: u64,
}

impl Purse {
    /// Up to `ask` calls; only `floor` of them out of what is held for floors.
    fn take(&mut self, ask: u64, floor: u64) -> u64 {
        let granted = ask.min(self.free_of_floors().max(floor.min(self.free))).min(self.room);
        self.free -= granted;
        self.room -= granted;
        granted
    }

    fn free_of_floors(&self) -> u64 {
        self.free.saturating_sub(self.held)
    }
}

/// How much may be issued to `replica` before the others have to be answered.
fn room(state: &State, replica: &Arc<str>) -> u64 {
    let now = minute(state.now);
    let others = state.members.iter().filter(|(id, member)| *id != replica && !member.awaited && now <= member.until);
    let issued = state.issued;
    others
        .flat_map(|(_, member)| [member.sure, member.last])
        .map(|mark| (mark.half.cast_signed() - (issued - mark.issued)).max(0).cast_unsigned())
        .min()
        .unwrap_or(u64::MAX)
}

/// Whether every replica that seems to be alive knows of `replica`.
fn is_known(state: &State, replica: &Arc<str>) -> bool {
    let born = state.members.get(replica).map_or(u64::MAX, |member| member.born);
    let recent = |member: &Member| !member.awaited && state.now < member.heard + KNOWN_WITHIN_MS;
    state.members.iter().all(|(id, member)| id == replica || !recent(member) || member.sure.version >= born)
}

/// Grants what there is, and notes what the replica will know.
fn grant(state: &mut State, tell: &Tell) {
    let now = state.now;
    if now >= state.gathering
        && !state.hold.set
        && let Some(foreign) = tell.foreign
    {
        // Nobody remembered anything. What others than we seem to have used may have been used by a replica that still
        // cannot reach the store.
        let free = tell.cap.saturating_sub(state.committed());
        (state.hold.calls, state.hold.set) = (foreign.min(free / 2), true);
    }
    let may = now >= state.gathering && is_known(state, &tell.replica);
    let free = if may { tell.cap.saturating_sub(state.committed()) } else { 0 };
    let mut purse = Purse { free, room: room(state, &tell.replica), held: tell.held };
    let mut short = false;

    // Few calls go to those that wait in their own name first: the common lease is asked by all others together.
    let unnamed = state.hold.calls
        + state.callers.get(LOST_NAMES).copied().unwrap_or(0)
        + state.members.values().map(|member| member.unnamed).sum::<u64>();
    let mut allotted = Vec::with_capacity(tell.allotted.len());
    for Allot { caller, balance, ask, floor, ceiling } in &tell.allotted {
        let sum = |sums: &BTreeMap<Arc<str>, u64>| sums.get(caller).copied().unwrap_or(0);
        let own = ceiling.saturating_sub(sum(&state.callers) + sum(&state.named) + unnamed);
        let granted = purse.take((*ask).min(own), *floor);
        short |= granted < *ask;
        if granted > 0 {
            state.set_named(&tell.replica, caller, balance + granted);
        }
        allotted.push(granted);
    }
    let granted = purse.take(tell.ask, tell.floor);
    short |= granted < tell.ask;
    let living = state.members.values().filter(|member| member.awaited || minute(now) <= member.until).count();
    let spare = purse.free_of_floors().min(purse.room);
    let reserve = tell.reserve_ask.min(spare / (4 * living.max(1) as u64));
    state.issued += (allotted.iter().sum::<u64>() + granted + reserve).cast_signed();
    if short && tell.waiting {
        state.wanted = (now, Arc::clone(&tell.replica));
    }
    let Some(member) = state.members.get_mut(&tell.replica) else { return };
    member.out += granted;
    member.reserve += reserve;
    member.granted = (granted, reserve, allotted);
    let half = tell.cap.saturating_sub(state.committed()).div_ceil(2);
    let mark = Mark { version: state.version, issued: state.issued, half };
    if let Some(member) = state.members.get_mut(&tell.replica) {
        member.last = mark;
    }
}

/// What `replica` is told. It changes nothing.
fn answer(state: &State, tell: &Tell) -> Told {
    let Some(me) = state.members.get(&tell.replica) else { return Told::Strange { epoch: state.epoch } };
    let mut cells: Vec<Cell> = Vec::new();
    let mut through = state.version;
    let mut more = false;
    for (version, key) in state.changed.range(tell.known + 1..) {
        if cells.len() >= CELLS_AT_ONCE {
            more = true;
            break;
        }
        if let Some(cell) = state.cells.get(key) {
            cells.push(Cell { key: key.clone(), calls: cell.calls });
            through = *version;
        }
    }
    if !more {
        through = state.version;
    }
    let now = minute(state.now);
    let living = |member: &Member| member.awaited || member.holds() > 0 || now <= member.until;
    let members = state.members.iter().filter(|(_, member)| living(member)).map(|(replica, member)| Known {
        replica: Arc::clone(replica),
        seq: member.seq,
        out: member.out + member.reserve,
        named: member.unnamed + member.named.values().sum::<u64>(),
        until: member.until,
    });
    let others = state.members.iter().filter(|(id, _)| **id != tell.replica).map(|(_, member)| member.holds()).sum();
    let (wanted, by) = &state.wanted;
    let (granted, reserve, allotted) = me.granted.clone();
    Told::Settled(Box::new(Answer {
        epoch: state.epoch,
        now: state.now,
        version: state.version,
        granted,
        reserve,
        allotted,
        until: me.until,
        cells,
        through,
        more,
        others,
        members: members.collect(),
        // What is still in doubt since the last loss is so after the next.
        half: me.last.half + state.hold.calls,
        recovering: state.now < state.gathering
            || state.hold.calls > 0
            || state.members.values().any(|member| member.awaited),
        scarce: *by != tell.replica && state.now < wanted + WANTED_MS,
        reading: state.reading,
        paused_version: state.paused_version,
        paused: (tell.paused_known != state.paused_version).then(|| state.paused.clone()),
    }))
}
