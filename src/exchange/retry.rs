//! When a call that failed is made once more: a pure decision, and the budget that bounds all repetitions of an org.
//!
//! What may be repeated is decided before, by what the failure means; here it is decided whether there is still an
//! attempt, time and budget for it, and how long to wait first. Waits are drawn at random from the whole range ("full
//! jitter"), so that calls that failed together do not return together.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::outcome::{Purse, RetryResult};

/// Repetitions of every org that are always allowed, each second, whatever its traffic.
const FLOOR_PER_SECOND: u64 = 10;
/// The time over which shares of the traffic are counted.
const WINDOW_SECONDS: usize = 10;

/// What an org's operator allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetrySettings {
    /// How often a call is made at most, the first time included.
    pub attempts: u32,
    /// Repetitions in thousandths of the calls made.
    pub budget: u16,
    /// How often a call is made at most that finds a record locked.
    pub lock_attempts: u32,
    /// Its repetitions in thousandths of the calls made.
    pub lock_budget: u16,
    /// Whether only the records that were locked are sent again, where a request is not all or none.
    pub lock_per_record: bool,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self { attempts: 3, budget: 100, lock_attempts: 5, lock_budget: 300, lock_per_record: false }
    }
}

impl RetrySettings {
    const fn attempts(self, purse: Purse) -> u32 {
        match purse {
            Purse::Usual => self.attempts,
            Purse::Lock => self.lock_attempts,
        }
    }

    const fn share(self, purse: Purse) -> u64 {
        (match purse {
            Purse::Usual => self.budget,
            Purse::Lock => self.lock_budget,
        }) as u64
    }
}

/// A call that failed in a way that may pass, and that can be sent again.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// How often it was made.
    pub made: u32,
    /// Which budget it asks.
    pub purse: Purse,
    /// How long to wait before the first repetition, and at most before any.
    pub waits: (Duration, Duration),
    /// What Salesforce said how long to wait.
    pub told: Option<Duration>,
    /// When its caller gives up.
    pub deadline: Option<Instant>,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is made once more, after this time.
    Again(Duration),
    /// It is not.
    Stop(RetryResult),
}

/// Decides on a call that failed at `now`. `chance` is a random number from 0 to 1.
pub fn decide(wish: &Wish, settings: RetrySettings, budget: &Budget, chance: f64, now: Instant) -> Decision {
    if wish.made >= settings.attempts(wish.purse) {
        return Decision::Stop(RetryResult::Failed);
    }
    let wait = wait(wish, chance);
    // There must be time left for an answer.
    if wish.deadline.is_some_and(|deadline| now + wait >= deadline) {
        return Decision::Stop(RetryResult::Deadline);
    }
    if !budget.take(wish.purse, settings.share(wish.purse), now) {
        return Decision::Stop(RetryResult::Budget);
    }
    Decision::Again(wait)
}

/// Anything from nothing to the step of this attempt; what Salesforce asks for comes on top.
fn wait(wish: &Wish, chance: f64) -> Duration {
    let (first, most) = wish.waits;
    let step = first.saturating_mul(1_u32.checked_shl(wish.made.saturating_sub(1).min(16)).unwrap_or(u32::MAX));
    let jitter = step.min(most).mul_f64(chance.clamp(0.0, 1.0));
    wish.told.unwrap_or_default() + jitter
}

/// What one budget still allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Which.
    pub purse: Purse,
    /// Repetitions it allows in a window of ten seconds.
    pub allowed: u64,
    /// Those of them that are left.
    pub left: u64,
}

/// How many calls of one org were made, and how many of them were repetitions, in the last seconds.
#[derive(Debug)]
pub struct Budget {
    /// Calls since the books were last looked at.
    calls: AtomicU32,
    books: Mutex<Books>,
}

#[derive(Debug)]
struct Books {
    start: Instant,
    looked: Instant,
    seconds: [Second; WINDOW_SECONDS],
}

/// What happened in one second; `at` says in which.
#[derive(Debug, Clone, Copy, Default)]
struct Second {
    at: u64,
    calls: u64,
    repeated: [u64; Purse::ALL.len()],
}

impl Budget {
    /// Begins at `now`.
    pub fn new(now: Instant) -> Self {
        let books = Books { start: now, looked: now, seconds: [Second::default(); WINDOW_SECONDS] };
        Self { calls: AtomicU32::new(0), books: Mutex::new(books) }
    }

    /// A call is made for the first time.
    #[inline]
    pub fn count(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one repetition, if there is one left: `share` thousandths of the calls, and never fewer than the floor.
    fn take(&self, purse: Purse, share: u64, now: Instant) -> bool {
        let mut books = self.books(now);
        if books.left(purse, share, now).left == 0 {
            return false;
        }
        let at = books.second(now);
        if let Some(count) = books.at(at).repeated.get_mut(purse.index()) {
            *count += 1;
        }
        true
    }

    /// What is left at `now` of each budget from which something may be repeated at all.
    pub fn left(&self, settings: RetrySettings, now: Instant) -> Vec<Left> {
        let books = self.books(now);
        let used = Purse::ALL.iter().filter(|purse| settings.attempts(**purse) > 1);
        used.map(|purse| books.left(*purse, settings.share(*purse), now)).collect()
    }

    /// The books, with the calls since the last look in them.
    fn books(&self, now: Instant) -> MutexGuard<'_, Books> {
        let mut books = self.books.lock();
        let calls = u64::from(self.calls.swap(0, Ordering::Relaxed));
        books.note(calls, now);
        books
    }
}

impl Books {
    /// What `share` thousandths of the recent calls, and never fewer than the floor, allow.
    fn left(&self, purse: Purse, share: u64, now: Instant) -> Left {
        let at = self.second(now);
        let recent = self.seconds.iter().filter(|second| second.at + WINDOW_SECONDS as u64 > at);
        let (made, repeated) = recent.fold((0, 0), |(made, repeated), second| {
            (made + second.calls, repeated + second.repeated.get(purse.index()).copied().unwrap_or_default())
        });
        let allowed = (made * share / 1_000).max(FLOOR_PER_SECOND * WINDOW_SECONDS as u64);
        Left { purse, allowed, left: allowed.saturating_sub(repeated) }
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs()
    }

    fn at(&mut self, second: u64) -> &mut Second {
        let place = (second % WINDOW_SECONDS as u64) as usize;
        // The place is within the list.
        let place = &mut self.seconds[place.min(WINDOW_SECONDS - 1)];
        if place.at != second {
            *place = Second { at: second, ..Second::default() };
        }
        place
    }

    /// Books the calls since the last look; of those since long ago, as many as the window's share of the time.
    fn note(&mut self, calls: u64, now: Instant) {
        let elapsed = now.saturating_duration_since(self.looked).as_millis().max(1);
        let window = WINDOW_SECONDS as u128 * 1_000;
        let recent = if elapsed > window { u128::from(calls) * window / elapsed } else { u128::from(calls) };
        self.looked = now;
        let second = self.second(now);
        self.at(second).calls += u64::try_from(recent).unwrap_or(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn wish(made: u32, purse: Purse) -> Wish {
        Wish { made, purse, waits: (SECOND, 4 * SECOND), told: None, deadline: None }
    }

    fn decided(wish: &Wish, chance: f64) -> Decision {
        let now = Clock::start().now();
        decide(wish, RetrySettings::default(), &Budget::new(now), chance, now)
    }

    #[test]
    fn each_wait_is_drawn_from_a_longer_range() {
        for (made, chance, wait) in [(1, 0.0, 0), (1, 0.5, 500), (1, 1.0, 1_000), (2, 1.0, 2_000)] {
            assert_eq!(decided(&wish(made, Purse::Usual), chance), Decision::Again(Duration::from_millis(wait)));
        }
        assert_eq!(decided(&wish(4, Purse::Lock), 1.0), Decision::Again(4 * SECOND), "up to the longest");
        let told = Wish { told: Some(7 * SECOND), ..wish(1, Purse::Usual) };
        assert_eq!(decided(&told, 1.0), Decision::Again(8 * SECOND), "never before it was told to");
    }

    #[test]
    fn attempts_and_time_are_bounded() {
        assert_eq!(decided(&wish(3, Purse::Usual), 0.5), Decision::Stop(RetryResult::Failed));
        assert_eq!(decided(&wish(5, Purse::Lock), 0.5), Decision::Stop(RetryResult::Failed));
        let now = Clock::start().now();
        let late = Wish { deadline: Some(now), ..wish(1, Purse::Usual) };
        let decision = decide(&late, RetrySettings::default(), &Budget::new(now), 0.0, now);
        assert_eq!(decision, Decision::Stop(RetryResult::Deadline));
    }

    #[test]
    fn a_share_of_the_traffic_is_repeated_and_each_purse_has_its_own() {
        let now = Clock::start().now();
        let budget = Budget::new(now);
        (0..5_000).for_each(|_| budget.count());
        let taken = |purse: Purse, share| (0..5_000).filter(|_| budget.take(purse, share, now)).count();
        assert_eq!(taken(Purse::Usual, 100), 500);
        assert_eq!(taken(Purse::Lock, 300), 1_500);
        assert!(!budget.take(Purse::Usual, 100, now + 9 * SECOND));
        assert!(budget.take(Purse::Usual, 100, now + 10 * SECOND), "what is old does not count");
    }

    #[test]
    fn what_is_left_is_said_of_each_purse_that_is_used() {
        let now = Clock::start().now();
        let budget = Budget::new(now);
        (0..5_000).for_each(|_| budget.count());
        assert!((0..20).all(|_| budget.take(Purse::Lock, 300, now)));
        let settings = RetrySettings::default();
        let usual = Left { purse: Purse::Usual, allowed: 500, left: 500 };
        let lock = Left { purse: Purse::Lock, allowed: 1_500, left: 1_480 };
        assert_eq!(budget.left(settings, now), [usual, lock]);
        assert_eq!(budget.left(RetrySettings { attempts: 1, ..settings }, now), [lock]);
        let later = budget.left(settings, now + 10 * SECOND);
        assert!(later.iter().all(|left| (left.allowed, left.left) == (100, 100)), "the floor: {later:?}");
    }

    #[test]
    fn calls_of_long_ago_allow_nothing_now() {
        let now = Clock::start().now();
        let budget = Budget::new(now);
        (0..1_000_000).for_each(|_| budget.count());
        let later = now + 10_000 * SECOND;
        let taken = (0..1_000).filter(|_| budget.take(Purse::Usual, 100, later)).count();
        assert_eq!(taken, 100, "the floor");
    }

    proptest! {
        #[test]
        fn no_window_ever_exceeds_share_and_floor(steps in prop::collection::vec((0u64..3_000, 0u32..400, 0u32..400), 1..40)) {
            let mut now = Clock::start().now();
            let budget = Budget::new(now);
            let (mut made, mut repeated) = (Vec::new(), Vec::new());
            for (pause, calls, wishes) in steps {
                now += Duration::from_millis(pause);
                (0..calls).for_each(|_| budget.count());
                made.push((now, u64::from(calls)));
                let taken = (0..wishes).filter(|_| budget.take(Purse::Usual, 100, now)).count();
                repeated.push((now, taken as u64));
                // Two windows long, because calls are booked when they are looked at.
                let recent = |list: &[(Instant, u64)], span: Duration| {
                    list.iter().filter(|(at, _)| *at + span > now).map(|(_, count)| count).sum::<u64>()
                };
                let allowed = (recent(&made, 25 * SECOND) * 10 / 100).max(100);
                prop_assert!(recent(&repeated, 9 * SECOND) <= allowed);
            }
        }
    }
}
