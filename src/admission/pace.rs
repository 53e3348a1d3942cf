//! How fast one caller may send: a burst at once, then one call after the other, and a bounded queue for what exceeds it.
//!
//! `governor` does the arithmetic of the pace (GCRA) on our time: its clock says what it was told, and reads none. It can
//! neither give back a call nor keep an order among those who wait, so a call takes its part of the pace only at the moment
//! it goes: whoever leaves the queue has taken nothing. In `mode: observe` nobody waits, and what would have waited is
//! booked ahead, as if everybody had the patience it is allowed.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::ops::Add;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use serde::Serialize;
use tokio::time::Instant;

use super::settings::Mode;
use crate::call::closed_list;

/// What the operator decides about one caller's pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaceSettings {
    /// What its decisions do.
    pub mode: Mode,
    /// Calls a second in the long run.
    pub per_second: NonZeroU32,
    /// Calls at once after a pause.
    pub burst: NonZeroU32,
    /// Calls that may wait.
    pub places: u32,
    /// How long a call may wait.
    pub patience: Duration,
}

closed_list! {
    /// Why a call that exceeds its caller's pace does not wait for its turn.
    Hurry {
        /// As many wait as may.
        Places = "places",
        /// Its turn comes later than it may wait.
        Patience = "patience",
        /// Its turn comes after its deadline.
        Deadline = "deadline",
    }
}

/// A call that exceeds its caller's pace and cannot wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooFast {
    /// Why it cannot wait.
    pub why: Hurry,
    /// When its turn would have come.
    pub wait: Duration,
}

/// What a call is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes.
    Go {
        /// How many could follow at once.
        left: u32,
        /// What enforcement would have said, in `mode: observe`.
        would: Option<TooFast>,
    },
    /// It waits for its turn, as the last of those who do; this long if nobody leaves. It must [`Pacer::turn`] until it
    /// goes, or [`Pacer::leave`].
    Wait(Duration),
    /// It is refused.
    Refused(TooFast),
}

/// A caller's pace at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PaceBudget {
    /// Calls a second in the long run.
    pub per_second: u32,
    /// Calls at once after a pause.
    pub burst: u32,
    /// Calls that could go at once now.
    pub left: u32,
    /// Calls that wait.
    pub waiting: u32,
    /// Calls that may wait.
    pub places: u32,
    /// Calls that went after they had waited, since the start.
    pub waited: u64,
    /// Calls refused since the start, by why they could not wait, without what never happened.
    pub refused: Vec<(Hurry, u64)>,
}

/// A moment of ours, in `governor`'s words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Moment(Instant);

impl Add<Nanos> for Moment {
    type Output = Self;

    fn add(self, wait: Nanos) -> Self {
        Self(self.0.checked_add(wait.into()).unwrap_or(self.0))
    }
}

impl Reference for Moment {
    fn duration_since(&self, earlier: Self) -> Nanos {
        nanos(self.0.saturating_duration_since(earlier.0))
    }

    fn saturating_sub(&self, wait: Nanos) -> Self {
        Self(self.0.checked_sub(wait.into()).unwrap_or(self.0))
    }
}

fn nanos(duration: Duration) -> Nanos {
    Nanos::new(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

/// A clock that says what it was told last.
#[derive(Debug)]
struct Told(Cell<Moment>);

impl Clock for Told {
    type Instant = Moment;

    fn now(&self) -> Moment {
        self.0.get()
    }
}

/// The limiter's state, which can be looked at from outside, too.
#[derive(Debug, Clone, Default)]
struct State(Arc<InMemoryState>);

impl StateStore for State {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, key: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.measure_and_replace(key, decide)
    }
}

impl State {
    /// When, counted from the anchor, all that was taken is given again.
    fn whole_at(&self) -> u64 {
        let look = self.measure_and_replace(&NotKeyed::NonKey, Err::<((), Nanos), _>);
        look.err().flatten().map_or(0, Nanos::as_u64)
    }

    fn set_whole_at(&self, at: u64) {
        let _always = self.measure_and_replace(&NotKeyed::NonKey, |_| Ok::<_, ()>(((), Nanos::new(at))));
    }
}

type Limiter = RateLimiter<NotKeyed, State, Told, StateInformationMiddleware>;

/// One caller's pace: what it took, and who waits. Takes the time as an argument and waits for nothing.
#[derive(Debug)]
pub struct Pacer {
    settings: PaceSettings,
    limiter: Limiter,
    state: State,
    /// The limiter counts its time from here.
    anchor: Instant,
    waiting: u32,
    waited: u64,
    refused: [u64; Hurry::ALL.len()],
}

impl Pacer {
    /// A caller that has not sent anything yet.
    pub fn new(settings: PaceSettings, now: Instant) -> Self {
        let state = State::default();
        let limiter = limiter(settings, &state, now);
        Self { settings, limiter, state, anchor: now, waiting: 0, waited: 0, refused: [0; Hurry::ALL.len()] }
    }

    /// Puts other settings in force. The part of the burst that was taken stays taken.
    pub fn reconfigure(&mut self, settings: PaceSettings, now: Instant) {
        let old = self.settings;
        if (old.per_second, old.burst) != (settings.per_second, settings.burst) {
            let taken = self.state.whole_at().saturating_sub(self.since_anchor(now));
            let scaled = u128::from(taken) * u128::from(interval(settings)) / u128::from(interval(old));
            let scaled = scaled.min(u128::from(interval(settings)) * u128::from(settings.burst.get()));
            let state = State::default();
            state.set_whole_at(self.since_anchor(now).saturating_add(u64::try_from(scaled).unwrap_or(u64::MAX)));
            self.limiter = limiter(settings, &state, self.anchor);
            self.state = state;
        }
        self.settings = settings;
    }

    /// Asks for a call that arrives at `now` and whose caller gives up after `time_left`.
    pub fn ask(&mut self, now: Instant, time_left: Option<Duration>) -> Verdict {
        if self.settings.mode == Mode::Off {
            return Verdict::Go { left: self.left(now), would: None };
        }
        // Nobody overtakes those who wait.
        if self.waiting == 0
            && let Ok(left) = self.take(now)
        {
            return Verdict::Go { left, would: None };
        }
        let soonest = Duration::from_nanos(self.next_at().saturating_sub(self.since_anchor(now)));
        let interval = Duration::from_nanos(interval(self.settings));
        let wait = soonest.saturating_add(interval.saturating_mul(self.waiting));
        let enforced = self.settings.mode == Mode::Enforce;
        let booked = soonest.as_nanos().div_ceil(interval.as_nanos().max(1)).saturating_sub(1);
        let ahead = if enforced { u128::from(self.waiting) } else { booked };
        let why = if ahead >= u128::from(self.settings.places) {
            Some(Hurry::Places)
        } else if wait > self.settings.patience {
            Some(Hurry::Patience)
        } else if time_left.is_some_and(|left| wait >= left) {
            Some(Hurry::Deadline)
        } else {
            None
        };
        match why {
            Some(why) if enforced => {
                self.count(why);
                Verdict::Refused(TooFast { why, wait })
            }
            None if enforced => {
                self.waiting += 1;
                Verdict::Wait(wait)
            }
            Some(why) => Verdict::Go { left: 0, would: Some(TooFast { why, wait }) },
            None => {
                // Taken now for the moment at which it would go.
                let _booked = self.take(now + soonest);
                Verdict::Go { left: 0, would: None }
            }
        }
    }

    /// Asks for the call that has waited longest. It goes, and how many could follow at once; or when it is to ask again.
    pub fn turn(&mut self, now: Instant) -> Result<u32, Instant> {
        let left = if self.settings.mode == Mode::Enforce { self.take(now)? } else { self.left(now) };
        self.waiting = self.waiting.saturating_sub(1);
        self.waited += 1;
        Ok(left)
    }

    /// A call that waited leaves without having gone.
    pub fn leave(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// Counts a refusal, also of a call whose wait turned out too long.
    pub fn count(&mut self, why: Hurry) {
        if let Some(count) = self.refused.get_mut(why.index()) {
            *count += 1;
        }
    }

    /// The settings in force.
    pub fn settings(&self) -> PaceSettings {
        self.settings
    }

    /// What there is to see.
    pub fn budget(&self, now: Instant) -> PaceBudget {
        let refused = Hurry::ALL.iter().copied().zip(self.refused);
        PaceBudget {
            per_second: self.settings.per_second.get(),
            burst: self.settings.burst.get(),
            left: if self.waiting == 0 { self.left(now) } else { 0 },
            waiting: self.waiting,
            places: self.settings.places,
            waited: self.waited,
            refused: refused.filter(|(_, count)| *count > 0).collect(),
        }
    }

    /// Takes one call's part at `at`, and says how many more there are; or when there will be one.
    fn take(&self, at: Instant) -> Result<u32, Instant> {
        self.limiter.clock().0.set(Moment(at));
        match self.limiter.check() {
            Ok(state) => Ok(state.remaining_burst_capacity()),
            Err(not_until) => Err(not_until.earliest_possible().0),
        }
    }

    /// How many could go at once.
    fn left(&self, now: Instant) -> u32 {
        let taken = self.state.whole_at().saturating_sub(self.since_anchor(now));
        let calls = u32::try_from(taken.div_ceil(interval(self.settings))).unwrap_or(u32::MAX);
        self.settings.burst.get().saturating_sub(calls)
    }

    /// From when on one can go, counted from the anchor.
    fn next_at(&self) -> u64 {
        let ahead = interval(self.settings).saturating_mul(u64::from(self.settings.burst.get() - 1));
        self.state.whole_at().saturating_sub(ahead)
    }

    fn since_anchor(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.anchor)).as_u64()
    }
}

fn quota(settings: PaceSettings) -> Quota {
    Quota::per_second(settings.per_second).allow_burst(settings.burst)
}

/// Nanoseconds from one call to the next in the long run.
fn interval(settings: PaceSettings) -> u64 {
    nanos(quota(settings).replenish_interval()).as_u64().max(1)
}

fn limiter(settings: PaceSettings, state: &State, anchor: Instant) -> Limiter {
    let clock = Told(Cell::new(Moment(anchor)));
    RateLimiter::new(quota(settings), state.clone(), clock)
}

#[cfg(test)]
mod tests;
