//! Who waits, and who is next: strict by class, weighted fair between callers, first come first served for each caller.
//!
//! A call that has waited for half of what its class may wait is lifted by one class, once: batch at most to standard.
//! Fairness is start-time fair queuing: each caller has a tag that grows by 1 / weight with each call served, and the
//! smallest tag is next. A caller that was away begins where the others are, so that nobody saves up turns.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::air::About;
use crate::admission::AccountId;
use crate::call::Class;

/// What one call of a caller of weight 1 adds to its tag.
const TURN: u64 = 1 << 20;
const CLASSES: usize = Class::ALL.len();
/// For each class, those that want a slot and those that want only to be in the air.
const KINDS: usize = CLASSES * 2;

/// A call that waits.
#[derive(Debug, Clone)]
pub(super) struct Waiter {
    pub(super) about: About,
    /// Its caller's part, relative to others.
    pub(super) weight: u32,
    /// Calls its caller may have in the air.
    pub(super) caller_at_most: Option<usize>,
    pub(super) arrived: Instant,
    /// The level it waits at: its class, or one higher.
    level: usize,
}

impl Waiter {
    pub(super) fn new(about: About, weight: u32, caller_at_most: Option<usize>, arrived: Instant) -> Self {
        Self { about, weight: weight.max(1), caller_at_most, arrived, level: about.class.index() }
    }

    fn kind(&self) -> usize {
        self.about.class.index() * 2 + usize::from(self.about.slot)
    }
}

/// The calls of one caller that wait at one level.
#[derive(Debug, Default)]
struct Backlog {
    tag: u64,
    weight: u32,
    lines: [BTreeSet<u64>; KINDS],
}

impl Backlog {
    fn len(&self) -> usize {
        self.lines.iter().map(BTreeSet::len).sum()
    }

    /// How many of them want a slot, or how many do not.
    fn len_of(&self, slot: bool) -> usize {
        self.lines.iter().skip(usize::from(slot)).step_by(2).map(BTreeSet::len).sum()
    }
}

/// Those who wait at one level.
#[derive(Debug, Default)]
struct Level {
    callers: HashMap<AccountId, Backlog, ahash::RandomState>,
    order: BTreeSet<(u64, AccountId)>,
    /// Tags of callers that do not wait now, as far as they are ahead.
    ahead: HashMap<AccountId, u64, ahash::RandomState>,
    /// The tag served last.
    turn: u64,
}

impl Level {
    fn add(&mut self, number: u64, waiter: &Waiter) {
        let account = waiter.about.account;
        let backlog = self.callers.entry(account).or_default();
        if backlog.len() == 0 {
            backlog.tag = self.ahead.remove(&account).unwrap_or(0).max(self.turn);
            self.order.insert((backlog.tag, account));
        }
        backlog.weight = waiter.weight;
        if let Some(line) = backlog.lines.get_mut(waiter.kind()) {
            line.insert(number);
        }
    }

    /// Takes a waiter out. `served`: it was its caller's turn.
    fn take(&mut self, number: u64, waiter: &Waiter, served: bool) {
        let account = waiter.about.account;
        let Some(backlog) = self.callers.get_mut(&account) else { return };
        if let Some(line) = backlog.lines.get_mut(waiter.kind()) {
            line.remove(&number);
        }
        let before = backlog.tag;
        if served {
            self.turn = self.turn.max(before);
            backlog.tag += TURN / u64::from(backlog.weight.max(1));
        }
        let (tag, empty) = (backlog.tag, backlog.len() == 0);
        if served || empty {
            self.order.remove(&(before, account));
        }
        if empty {
            self.callers.remove(&account);
            if self.order.is_empty() {
                // Nobody is left to be fair to.
                self.ahead.clear();
            } else if tag > self.turn {
                self.ahead.insert(account, tag);
            }
        } else if served {
            self.order.insert((tag, account));
        }
    }

    /// The first in the order of turns for whom `fits` holds.
    fn next(&self, waiters: &BTreeMap<u64, Waiter>, fits: &impl Fn(&Waiter) -> bool) -> Option<u64> {
        self.order.iter().find_map(|(_, account)| {
            let heads = self.callers.get(account)?.lines.iter().filter_map(BTreeSet::first);
            heads.copied().filter(|number| waiters.get(number).is_some_and(fits)).min()
        })
    }
}

/// Everybody who waits.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiters: BTreeMap<u64, Waiter>,
    levels: [Level; CLASSES],
    /// Those of each class who have not been lifted, by arrival.
    native: [BTreeSet<u64>; CLASSES],
    depth: [usize; CLASSES],
    last: u64,
}

impl Line {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    /// How many of one class wait.
    pub(super) fn depth(&self, class: Class) -> usize {
        self.depth.get(class.index()).copied().unwrap_or_default()
    }

    /// How many of each class wait for a slot, and whether one of class standard is of an unknown kind.
    pub(super) fn wanting(&self) -> ([u32; CLASSES], bool) {
        let (mut wanting, mut unknown) = ([0; CLASSES], false);
        for waiter in self.waiters.values().filter(|waiter| waiter.about.slot) {
            unknown |= waiter.about.unknown && waiter.about.class == Class::Standard;
            if let Some(count) = wanting.get_mut(waiter.about.class.index()) {
                *count += 1;
            }
        }
        (wanting, unknown)
    }

    /// How long the one who has waited longest waits, of one class.
    pub(super) fn longest(&self, class: Class, now: Instant) -> Option<Duration> {
        let of_class = |waiter: &&Waiter| waiter.about.class == class;
        self.waiters.values().find(of_class).map(|waiter| now.saturating_duration_since(waiter.arrived))
    }

    /// One more waits; returns its number.
    pub(super) fn push(&mut self, waiter: Waiter) -> u64 {
        self.last += 1;
        let (number, class) = (self.last, waiter.about.class.index());
        if let Some(level) = self.levels.get_mut(waiter.level) {
            level.add(number, &waiter);
        }
        if let (Some(native), Some(depth)) = (self.native.get_mut(class), self.depth.get_mut(class)) {
            native.insert(number);
            *depth += 1;
        }
        self.waiters.insert(number, waiter);
        number
    }

    /// Lifts those who have waited for half of what their class may.
    pub(super) fn lift(&mut self, patience: &[Duration; CLASSES], now: Instant) {
        for class in [Class::Standard.index(), Class::Batch.index()] {
            let half = patience.get(class).map_or(Duration::MAX, |patience| *patience / 2);
            while let Some(number) = self.native.get(class).and_then(BTreeSet::first).copied() {
                let Some(waiter) = self.waiters.get_mut(&number) else { break };
                if now.saturating_duration_since(waiter.arrived) < half {
                    break;
                }
                if let Some(native) = self.native.get_mut(class) {
                    native.remove(&number);
                }
                if let Some(level) = self.levels.get_mut(waiter.level) {
                    level.take(number, waiter, false);
                }
                waiter.level = class - 1;
                if let Some(level) = self.levels.get_mut(waiter.level) {
                    level.add(number, waiter);
                }
            }
        }
    }

    /// Who is next among those for whom `fits` holds.
    pub(super) fn next(&self, fits: impl Fn(&Waiter) -> bool) -> Option<u64> {
        self.levels.iter().find_map(|level| level.next(&self.waiters, &fits))
    }

    /// Takes one out: its turn has come (`served`), or it leaves.
    pub(super) fn take(&mut self, number: u64, served: bool) -> Option<Waiter> {
        let waiter = self.waiters.remove(&number)?;
        let class = waiter.about.class.index();
        if let Some(level) = self.levels.get_mut(waiter.level) {
            level.take(number, &waiter, served);
        }
        if let (Some(native), Some(depth)) = (self.native.get_mut(class), self.depth.get_mut(class)) {
            native.remove(&number);
            *depth -= 1;
        }
        Some(waiter)
    }

    /// How many calls of one caller wait, and how many callers would with one more of it.
    pub(super) fn crowd(&self, account: AccountId) -> (usize, usize) {
        let (mut own, mut callers) = (0, 1);
        for level in &self.levels {
            let waits = level.callers.get(&account).map_or(0, Backlog::len);
            own += waits;
            callers += level.callers.len() - usize::from(waits > 0);
        }
        (own, callers)
    }

    /// How many of those who wait for the same, a slot or only a place in the air, would be served before one more call like
    /// `about`.
    pub(super) fn ahead_of(&self, about: &About, weight: u32) -> usize {
        let level = about.class.index();
        let above: usize = self
            .levels
            .iter()
            .take(level)
            .flat_map(|level| level.callers.values())
            .map(|backlog| backlog.len_of(about.slot))
            .sum();
        let Some(level) = self.levels.get(level) else { return above };
        let own = level.callers.get(&about.account).map_or(0, |backlog| backlog.len_of(about.slot));
        let turns = own as u64 + 1;
        let others = level.callers.iter().filter(|(account, _)| **account != about.account).map(|(_, backlog)| {
            let theirs = turns * u64::from(backlog.weight.max(1)) / u64::from(weight.max(1));
            backlog.len_of(about.slot).min(usize::try_from(theirs.max(1)).unwrap_or(usize::MAX))
        });
        above + own + others.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{CallerId, Family};
    use crate::clock::Clock;

    const PATIENCE: [Duration; 3] = [Duration::from_secs(5), Duration::from_secs(15), Duration::from_mins(1)];

    fn waiter(caller: u16, class: Class, weight: u32, arrived: Instant) -> Waiter {
        let account = AccountId::from(CallerId(caller));
        let (family, template) = (Family::Rest, "");
        let about =
            About { fingerprint: 1, account, class, family, template, slot: true, capped: false, unknown: false };
        Waiter::new(about, weight, None, arrived)
    }

    /// Serves everybody; the callers in the order in which they were served.
    fn served(line: &mut Line) -> Vec<AccountId> {
        std::iter::from_fn(|| {
            let number = line.next(|_| true)?;
            line.take(number, true).map(|waiter| waiter.about.account)
        })
        .collect()
    }

    fn count(served: &[AccountId], caller: u16) -> usize {
        served.iter().filter(|account| **account == AccountId::from(CallerId(caller))).count()
    }

    #[tokio::test]
    async fn classes_are_strict_and_callers_are_weighted() {
        let now = Clock::start().now();
        let mut line = Line::default();
        for _ in 0..90 {
            line.push(waiter(1, Class::Batch, 1, now));
            line.push(waiter(2, Class::Batch, 2, now));
            line.push(waiter(3, Class::Interactive, 1, now));
        }
        let order = served(&mut line);
        assert_eq!(count(&order[..90], 3), 90);
        assert_eq!((count(&order[90..150], 1), count(&order[90..150], 2)), (20, 40));
        assert_eq!(line.len(), 0);
    }

    #[tokio::test]
    async fn nobody_saves_up_turns_by_staying_away() {
        let now = Clock::start().now();
        let mut line = Line::default();
        for _ in 0..100 {
            line.push(waiter(1, Class::Standard, 1, now));
        }
        for _ in 0..50 {
            let next = line.next(|_| true).unwrap();
            line.take(next, true);
        }
        for _ in 0..50 {
            line.push(waiter(2, Class::Standard, 1, now));
        }
        let order = served(&mut line);
        assert_eq!((count(&order[..40], 1), count(&order[..40], 2)), (20, 20));
    }

    #[tokio::test]
    async fn who_comes_with_one_call_at_a_time_gets_no_more_than_its_turn() {
        let now = Clock::start().now();
        let mut line = Line::default();
        for _ in 0..200 {
            line.push(waiter(1, Class::Standard, 1, now));
        }
        let mut alone = 0;
        line.push(waiter(2, Class::Standard, 1, now));
        for _ in 0..100 {
            let next = line.next(|_| true).unwrap();
            if line.take(next, true).is_some_and(|waiter| waiter.about.account == AccountId::from(CallerId(2))) {
                alone += 1;
                line.push(waiter(2, Class::Standard, 1, now));
            }
        }
        assert_eq!(alone, 50);
    }

    #[tokio::test]
    async fn waiting_lifts_by_one_class_and_batch_never_to_interactive() {
        let start = Clock::start().now();
        let mut line = Line::default();
        line.push(waiter(1, Class::Batch, 1, start));
        line.push(waiter(2, Class::Standard, 1, start));
        let later = start + Duration::from_secs(31);
        line.push(waiter(3, Class::Interactive, 1, later));
        line.push(waiter(4, Class::Standard, 1, later));
        line.lift(&PATIENCE, later);
        line.lift(&PATIENCE, later + Duration::from_hours(1));
        let order: Vec<u16> = served(&mut line)
            .iter()
            .map(|account| (1..5).find(|n| AccountId::from(CallerId(*n)) == *account).unwrap())
            .collect();
        // The lifted standard call is as urgent as an interactive one, the batch call as a standard one.
        assert_eq!(order.iter().position(|caller| *caller == 1).map(|place| place >= 2), Some(true), "{order:?}");
        assert!(order[..2].contains(&2), "{order:?}");
    }

    #[tokio::test]
    async fn who_does_not_fit_is_passed_by() {
        let now = Clock::start().now();
        let mut line = Line::default();
        let batch = line.push(waiter(1, Class::Batch, 1, now));
        let standard = line.push(waiter(1, Class::Standard, 1, now));
        assert_eq!(line.next(|waiter| waiter.about.class == Class::Batch), Some(batch));
        assert_eq!(line.next(|_| true), Some(standard));
        assert_eq!(line.next(|_| false), None);
    }

    #[tokio::test]
    async fn a_place_in_the_line_is_told() {
        let now = Clock::start().now();
        let mut line = Line::default();
        for _ in 0..10 {
            line.push(waiter(1, Class::Batch, 1, now));
        }
        for _ in 0..3 {
            line.push(waiter(2, Class::Standard, 1, now));
        }
        let about = |caller, class| waiter(caller, class, 1, now).about;
        assert_eq!(line.ahead_of(&about(1, Class::Batch), 1), 13);
        assert_eq!(line.ahead_of(&about(3, Class::Batch), 1), 4, "the standard ones, and one of the other caller");
        assert_eq!(line.ahead_of(&about(3, Class::Interactive), 1), 0);
    }

    proptest::proptest! {
        /// Under any coming, going and serving: nobody is lost, nobody is served twice, and among callers that wait all
        /// the time nobody gets more than one turn beyond its share.
        #[test]
        fn shares_hold(weights in proptest::collection::vec(1_u32..5, 2..6), turns in 20_usize..300, seed: u64) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let now = runtime.block_on(async { Clock::start().now() });
            let mut random = fastrand::Rng::with_seed(seed);
            let mut line = Line::default();
            let mut got = vec![0_usize; weights.len()];
            let push = |line: &mut Line, caller: usize| line.push(waiter(caller as u16, Class::Batch, weights[caller], now));
            for caller in 0..weights.len() {
                for _ in 0..3 {
        push(&mut line, caller);
    }
            }
            for _ in 0..turns {
                let number = line.next(|_| true).unwrap();
                let account = line.take(number, true).unwrap().about.account;
                let caller = (0..weights.len()).find(|n| AccountId::from(CallerId(*n as u16)) == account).unwrap();
                got[caller] += 1;
                push(&mut line, caller);
                if random.bool() {
                    // Somebody comes and leaves again without having been served.
                    let passing = push(&mut line, random.usize(..weights.len()));
                    proptest::prop_assert!(line.take(passing, false).is_some());
                }
            }
            proptest::prop_assert_eq!(line.len(), weights.len() * 3);
            let all: u32 = weights.iter().sum();
            for (caller, weight) in weights.iter().enumerate() {
                let share = turns as f64 * f64::from(*weight) / f64::from(all);
                proptest::prop_assert!((got[caller] as f64 - share).abs() <= f64::from(*weight) + 1.0, "{got:?} of {weights:?}");
            }
        }
    }
}
