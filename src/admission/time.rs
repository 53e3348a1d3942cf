//! The ledger's own time: whole minutes that only ever go forward.
//!
//! It is anchored once, at start, and then advanced by the monotonic clock, so that a step of the system's clock
//! releases no call. At a restart it begins at max(wall clock, last persisted time): a wall clock that was set
//! back stretches the window, it never shortens it. Nor does one that was set forward, as long as the machine has been
//! up since: then how long the machine has been up says how long the process was down.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
#[derive(Debug, Clone)]
pub struct Timeline {
    /// Says the ledger's time.
    clock: Clock,
    ahead: Duration,
    /// By how many milliseconds it was pushed forward since.
    pushed: Arc<AtomicU64>,
}

impl Timeline {
    /// A timeline that at `now` says max(wall time, `persisted`).
    pub fn start(clock: Clock, now: Instant, persisted: Duration) -> Self {
        Self::resume(clock, now, persisted, Duration::ZERO)
    }

    /// The same, where the wall clock is known to have been set forward by `forward` since the ledger's time was persisted.
    pub fn resume(clock: Clock, now: Instant, persisted: Duration, forward: Duration) -> Self {
        let wall = clock.wall(now);
        let at = wall.saturating_sub(forward).max(persisted);
        Self { clock: Clock::anchored(now, at), ahead: at.saturating_sub(wall), pushed: Arc::default() }
    }

    /// Goes forward to `time`, if it is not there yet: whoever else counts the same calls is ahead. Says whether it moved.
    pub(super) fn push(&self, time: Duration, instant: Instant) -> bool {
        let behind = time.saturating_sub(self.at(instant)).as_millis();
        self.pushed.fetch_add(u64::try_from(behind).unwrap_or(0), Ordering::Relaxed);
        behind > 0
    }

    fn pushed(&self) -> Duration {
        Duration::from_millis(self.pushed.load(Ordering::Relaxed))
    }

    /// Ledger time at `instant`, since the Unix epoch.
    pub fn at(&self, instant: Instant) -> Duration {
        self.clock.wall(instant) + self.pushed()
    }

    /// The minute that holds `instant`.
    pub fn minute(&self, instant: Instant) -> Minute {
        Minute::containing(self.at(instant))
    }

    /// When `minute` is over.
    pub fn ends(&self, minute: Minute) -> Instant {
        self.clock.instant(minute.plus(1).begins().saturating_sub(self.pushed()))
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
    async fn a_wall_clock_set_forward_while_down_does_not_take_the_ledger_with_it() {
        let clock = Clock::at(Duration::from_mins(10_000));
        let timeline = Timeline::resume(clock, clock.now(), Duration::from_mins(100), Duration::from_hours(150));
        assert_eq!((timeline.minute(clock.now()), timeline.ahead()), (Minute(1_000), Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn the_wall_clock_wins_when_it_is_later() {
        let clock = Clock::at(Duration::from_mins(100));
        let timeline = Timeline::start(clock, clock.now(), Duration::from_mins(1));
        assert_eq!(timeline.minute(clock.now()), Minute(100));
        assert_eq!(timeline.minute(clock.now()).begins(), Duration::from_mins(100));
    }
}
