//! One caller's account: what it spent by class and minute, what it holds reserved, what is held for it.

use std::sync::Arc;

use crate::call::Class;

use super::allotment::Allotment;
use super::denied::Cause;
use super::ring::{Ring, WINDOW_MINUTES};
use super::settings::{PerMille, Share};
use super::time::Minute;

/// Nothing changed since the bank was last told.
const CLEAN: u32 = u32::MAX;
/// A request that began before its caller left the configuration has come to its end after so many minutes.
const VACANT_AFTER_MINUTES: u32 = 60;
/// Rings of an account: one for each class, and one for leases of which nobody knows whether they were spent.
pub(super) const KINDS: [Option<Class>; 4] =
    [Some(Class::Interactive), Some(Class::Standard), Some(Class::Batch), None];
/// The rings of calls that other replicas sent stand behind those of our own.
const THEIRS: usize = KINDS.len();
/// A caller counts among those who want to borrow for this long after it last asked.
pub(super) const CONTENDING_MINUTES: u32 = 15;

/// What a decision needs stands first and close together: with many callers, a decision costs as much as the memory
/// it has to wait for.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Account {
    /// Calls in the window, all classes.
    pub(super) used: u64,
    /// Calls reserved and not yet sent.
    pub(super) reserved: u64,
    /// The floor, scaled down if the org's pool is smaller than all floors.
    pub(super) floor: u64,
    /// Calls of the floor that nobody else may borrow.
    pub(super) held: u64,
    pub(super) ceiling: Option<u64>,
    pub(super) weight: u32,
    /// Last minute in which it asked for a call.
    asked: u32,
    // The second line begins about here.
    /// Last minute in which it asked for a borrowed call.
    borrowing: u32,
    /// Earliest minute that changed since the bank was told.
    dirty_from: u32,
    /// Distinguishes the successive users of one slot.
    pub(super) generation: u32,
    /// The minute of `tally`.
    tallied: u32,
    /// Calls of one minute by class, counted in `used` and not yet in the rings.
    tally: [u32; 3],
    idle: bool,
    pub(super) paused: bool,
    /// Not in the configuration any more; kept until its use has left the window.
    pub(super) retired: bool,
    /// What is leased in its name, if it has a ceiling.
    pub(super) allotment: Option<Box<Allotment>>,
    rings: [Option<Box<Ring>>; 2 * KINDS.len()],
    pub(super) name: Arc<str>,
    pub(super) floor_set: u64,
    pub(super) denied: Option<Box<[u32; Cause::ALL.len()]>>,
}

impl Account {
    pub(super) fn new(share: &Share, generation: u32, now: Minute) -> Self {
        let mut account = Self {
            used: 0,
            reserved: 0,
            floor: 0,
            held: 0,
            ceiling: None,
            weight: 1,
            asked: now.0,
            borrowing: 0,
            dirty_from: CLEAN,
            generation,
            tallied: now.0,
            tally: [0; 3],
            idle: false,
            paused: false,
            retired: false,
            allotment: None,
            rings: [const { None }; 2 * KINDS.len()],
            name: Arc::clone(&share.name),
            floor_set: 0,
            denied: None,
        };
        account.set_share(share);
        account
    }

    pub(super) fn count_denial(&mut self, cause: Cause) {
        let counts = self.denied.get_or_insert_with(|| Box::new([0; Cause::ALL.len()]));
        counts[cause.index()] = counts[cause.index()].saturating_add(1);
    }

    pub(super) fn set_share(&mut self, share: &Share) {
        self.floor_set = share.floor;
        self.ceiling = share.ceiling;
        self.weight = share.weight.max(1);
        self.retired = false;
    }

    /// Leaves the configuration: no rights any more, but what it spent stays spent.
    pub(super) fn retire(&mut self, now: Minute) {
        if !self.retired {
            self.asked = now.0;
        }
        self.floor_set = 0;
        self.retired = true;
    }

    /// Nothing is left that anybody could ask about, nor a request under way that could be taken for another's.
    pub(super) fn vacant(&self, now: Minute) -> bool {
        self.retired
            && now.0.saturating_sub(self.asked) >= VACANT_AFTER_MINUTES
            && self.load() == 0
            && self.dirty_from == CLEAN
            && self.allotment.is_none()
    }

    pub(super) fn load(&self) -> u64 {
        self.used + self.reserved
    }

    pub(super) fn borrowed(&self) -> u64 {
        self.load().saturating_sub(self.floor)
    }

    /// Notes that it asks; says whether its idle floor has to be held again.
    pub(super) fn ask(&mut self, now: Minute) -> bool {
        self.asked = now.0;
        std::mem::take(&mut self.idle)
    }

    pub(super) fn ask_to_borrow(&mut self, now: Minute) {
        self.borrowing = now.0;
    }

    pub(super) fn contends(&self, now: Minute) -> bool {
        self.borrowing + CONTENDING_MINUTES >= now.0
    }

    pub(super) fn rest(&mut self, idle_after: Option<u32>, now: Minute) {
        self.idle = idle_after.is_some_and(|minutes| now.0.saturating_sub(self.asked) >= minutes);
    }

    /// What must be held for it when its load is `load`.
    pub(super) fn to_hold(&self, load: u64, kept_when_idle: PerMille) -> u64 {
        let unspent = self.floor.saturating_sub(load);
        if self.idle { kept_when_idle.of_rounded_up(unspent) } else { unspent }
    }

    /// Counts calls sent in the running minute.
    pub(super) fn spend(&mut self, class: Class, calls: u32, now: Minute) {
        if self.tallied != now.0 {
            self.flush();
            self.tallied = now.0;
        }
        let tally = &mut self.tally[class.index()];
        let before = *tally;
        *tally = before.saturating_add(calls);
        self.used += u64::from(*tally - before);
    }

    /// Puts the tally where it can be read.
    pub(super) fn flush(&mut self) {
        for class in Class::ALL {
            let calls = std::mem::take(&mut self.tally[class.index()]);
            if calls > 0 {
                self.used -= u64::from(calls);
                self.add(Some(*class), Minute(self.tallied), calls, Minute(self.tallied));
            }
        }
    }

    /// Counts calls of a minute; returns how many of them are in the window.
    pub(super) fn add(&mut self, kind: Option<Class>, minute: Minute, calls: u32, now: Minute) -> u32 {
        self.add_at(place(kind), minute, calls, now)
    }

    fn add_at(&mut self, place: usize, minute: Minute, calls: u32, now: Minute) -> u32 {
        let ring = self.rings[place].get_or_insert_with(|| Box::new(Ring::new(now)));
        let before = ring.sum();
        ring.extend(now);
        let counted = ring.add(minute, calls);
        // `extend` may have had to release first.
        self.used = self.used + ring.sum() - before;
        counted
    }

    /// Other replicas sent `calls` calls in a minute: returns how many more or fewer now count than before.
    pub(super) fn put_theirs(&mut self, kind: Option<Class>, minute: Minute, calls: u32, now: Minute) -> i64 {
        let place = THEIRS + place(kind);
        let before = self.rings[place].as_ref().map_or(0, |ring| ring.at(minute));
        if calls >= before {
            return i64::from(self.add_at(place, minute, calls - before, now));
        }
        let taken = self.rings[place].as_mut().map_or(0, |ring| ring.take(minute, before - calls));
        self.used -= u64::from(taken);
        -i64::from(taken)
    }

    /// Takes calls back that turned out not to be charged; returns how many still counted.
    pub(super) fn take(&mut self, class: Class, minute: Minute, calls: u32) -> u32 {
        self.flush();
        let taken = self.rings[class.index()].as_mut().map_or(0, |ring| ring.take(minute, calls));
        self.used -= u64::from(taken);
        taken
    }

    pub(super) fn release(&mut self, now: Minute) {
        self.flush();
        for slot in &mut self.rings {
            if let Some(ring) = slot {
                self.used -= ring.release(now);
                // What was taken back has to be told to the bank first.
                if ring.sum() == 0 && self.dirty_from == CLEAN {
                    *slot = None;
                }
            }
        }
    }

    /// The ring of a class, or of lost leases, if it has any: what this process sent or inherited; up to date after
    /// [`Self::flush`].
    pub(super) fn ring(&self, kind: Option<Class>) -> Option<&Ring> {
        self.rings[place(kind)].as_deref()
    }

    /// The same, and the ring of what other replicas sent.
    pub(super) fn all(&self, kind: Option<Class>) -> impl Iterator<Item = &Ring> {
        [place(kind), THEIRS + place(kind)].into_iter().filter_map(|place| self.rings[place].as_deref())
    }

    /// Calls of lost leases in the window; part of [`Self::used`].
    pub(super) fn lost(&self) -> u64 {
        self.all(None).map(Ring::sum).sum()
    }

    /// Whether it has not asked for anything for a minute or two.
    pub(super) fn is_quiet(&self, now: Minute) -> bool {
        self.asked + 1 < now.0
    }

    /// Calls of the last `minutes` minutes, the running one included.
    pub(super) fn recent(&self, now: Minute, minutes: u32) -> u64 {
        let from = (now.0 + 1).saturating_sub(minutes);
        self.rings.iter().flatten().map(|ring| ring.between(from, now.0 + 1)).sum()
    }

    /// Calls that come back within `minutes` of `now`.
    pub(super) fn returning(&self, now: Minute, minutes: u32) -> u64 {
        self.rings.iter().flatten().map(|ring| ring.returning(now, minutes)).sum()
    }

    /// First minute by which `calls` calls have come back.
    pub(super) fn next_return(&self, calls: u64) -> Option<Minute> {
        if calls > self.used {
            return None;
        }
        let first = self.rings.iter().flatten().map(|ring| ring.first().0).min()?;
        let last = self.rings.iter().flatten().map(|ring| ring.latest().0).max()?;
        let mut sum = 0;
        (first..=last).find_map(|minute| {
            sum += self.rings.iter().flatten().map(|ring| u64::from(ring.at(Minute(minute)))).sum::<u64>();
            (sum >= calls).then_some(Minute(minute).plus(WINDOW_MINUTES))
        })
    }

    /// Marks a minute as changed; says whether it was clean before.
    pub(super) fn soil(&mut self, minute: Minute) -> bool {
        let was_clean = self.dirty_from == CLEAN;
        self.dirty_from = self.dirty_from.min(minute.0);
        was_clean
    }

    /// The first changed minute, once.
    pub(super) fn clean(&mut self) -> Option<Minute> {
        let from = std::mem::replace(&mut self.dirty_from, CLEAN);
        (from != CLEAN).then_some(Minute(from))
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.denied.as_ref().map_or(0, |counts| size_of_val(&**counts))
            + self.allotment.as_ref().map_or(0, |allotment| size_of_val(&**allotment))
            + self.rings.iter().flatten().map(|ring| ring.bytes()).sum::<usize>()
    }
}

fn place(kind: Option<Class>) -> usize {
    kind.map_or(KINDS.len() - 1, Class::index)
}
