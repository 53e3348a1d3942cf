//! The ledger's own time: whole minutes that only ever go forward.
//!
//! It is anchored once, at start, and then advanced by the monotonic clock, so that a step of the system's clock
//! releases no call. At a restart it begins at max(wall clock, last persisted time): a wall clock that was set
//! back stretches the window, it never shortens it.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::clock::Clock;

/// A minute of the ledger's time, counted from the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize)]
pub struct Minute(pub u32);

impl Minute {
    /// The minute that holds `since_epoch`.
    pub fn containing(since_epoch: Duration) -> Self {
        Self(u32::try_from(since_epoch.as_secs() / 60).unwrap_or(u32::MAX))
    }

    /// When this minute begins, since the Unix epoch.
    pub fn begins(self) -> Duration {
        Duration::from_secs(u64::from(self.0) * 60)
    }

    /// `minutes` later.
    #[must_use]
    pub const fn plus(self, minutes: u32) -> Self {
        Self(self.0.saturating_add(minutes))
    }
}

/// Turns monotonic time into the ledger's time.
#[derive(Debug, Clone, Copy)]
pub struct Timeline {
    clock: Clock,
    /// How far the ledger's time is ahead of the clock's wall time, because an earlier process had seen later.
    ahead: Duration,
}

impl Timeline {
    /// A timeline that at `now` says max(wall time, `persisted`).
    pub fn start(clock: Clock, now: Instant, persisted: Duration) -> Self {
        Self { clock, ahead: persisted.saturating_sub(clock.wall(now)) }
    }

    /// Ledger time at `instant`, since the Unix epoch.
    pub fn at(&self, instant: Instant) -> Duration {
        self.clock.wall(instant) + self.ahead
    }

    /// The minute that holds `instant`.
    pub fn minute(&self, instant: Instant) -> Minute {
        Minute::containing(self.at(instant))
    }

    /// How far the ledger's time runs ahead of the wall clock; zero unless the wall clock was set back while the
    /// gateway was down.
    pub fn ahead(&self) -> Duration {
        self.ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_set_back_while_down_does_not_take_the_ledger_back() {
        let clock = Clock::at(Duration::from_mins(100));
        let timeline = Timeline::start(clock, clock.now(), Duration::from_mins(1_000));
        assert_eq!(timeline.minute(clock.now()), Minute(1_000));
        tokio::time::advance(Duration::from_mins(1)).await;
        assert_eq!(timeline.minute(clock.now()), Minute(1_001));
        assert_eq!(timeline.ahead(), Duration::from_hours(15));
    }

    #[tokio::test(start_paused = true)]
    async fn the_wall_clock_wins_when_it_is_later() {
        let clock = Clock::at(Duration::from_mins(100));
        let timeline = Timeline::start(clock, clock.now(), Duration::from_mins(1));
        assert_eq!(timeline.minute(clock.now()), Minute(100));
        assert_eq!(timeline.minute(clock.now()).begins(), Duration::from_mins(100));
    }
}
