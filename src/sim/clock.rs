//! The simulator's own clock: tokio's time, scaled, and moved forward on request.
//!
//! Everything here counts in microseconds of *simulated* time since the Unix epoch. In a paused runtime the test owns
//! this clock too, because it stands on tokio's.

#![expect(clippy::disallowed_methods, reason = "this module is what the ban points to, for the simulator")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Microseconds of simulated time since the Unix epoch.
pub(super) type Micros = u64;

/// One second in [`Micros`].
pub(super) const SECOND: Micros = 1_000_000;
/// One day in [`Micros`].
pub(super) const DAY: Micros = 86_400 * SECOND;

/// No stretch of time is longer: sums stay far from overflow, and dates within four digits of a year.
const LONGEST: Micros = 100 * 365 * DAY;

/// So many seconds, at most a hundred years.
pub(super) fn seconds(count: u64) -> Micros {
    count.saturating_mul(SECOND).min(LONGEST)
}

/// So many milliseconds, at most a hundred years.
pub(super) fn millis(count: u64) -> Micros {
    count.saturating_mul(1_000).min(LONGEST)
}

/// Simulated time.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    wall_at_start: Micros,
    speed: f64,
    skipped: AtomicU64,
}

impl Clock {
    /// A clock that starts at `wall_at_start` (or at the present) and runs `speed` times as fast as tokio's.
    pub(super) fn start(wall_at_start: Option<Duration>, speed: f64) -> Self {
        let wall = wall_at_start.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        let speed = if speed.is_finite() && speed > 0.0 { speed.clamp(0.001, 1_000_000.0) } else { 1.0 };
        Self { started: Instant::now(), wall_at_start: micros(wall), speed, skipped: AtomicU64::new(0) }
    }

    /// Simulated now.
    pub(super) fn now(&self) -> Micros {
        let elapsed = self.started.elapsed();
        let scaled =
            if (self.speed - 1.0).abs() < f64::EPSILON { micros(elapsed) } else { micros(elapsed.mul_f64(self.speed)) };
        self.wall_at_start + scaled + self.skipped.load(Ordering::Relaxed)
    }

    /// Jumps forward, a hundred years in all at most; those who sleep are not woken.
    pub(super) fn advance(&self, by: Duration) {
        let by = micros(by);
        // Never fails: the closure always returns a value.
        let _before = self.skipped.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |skipped| {
            Some(skipped.saturating_add(by).min(LONGEST))
        });
    }

    /// The real length of a stretch of simulated time.
    pub(super) fn real(&self, simulated: Duration) -> Duration {
        simulated.div_f64(self.speed)
    }

    /// Sleeps for a stretch of simulated time.
    pub(super) async fn sleep(&self, simulated: Duration) {
        tokio::time::sleep(self.real(simulated)).await;
    }
}

/// A duration in [`Micros`].
pub(super) fn micros(duration: Duration) -> Micros {
    u64::try_from(duration.as_micros()).unwrap_or(LONGEST).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_paused_runtime_owns_the_clock() {
        let clock = Clock::start(Some(Duration::from_secs(1_000)), 60.0);
        assert_eq!(clock.now(), 1_000 * SECOND);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(clock.now(), 1_120 * SECOND);
        clock.advance(Duration::from_secs(5));
        assert_eq!(clock.now(), 1_125 * SECOND);
        clock.sleep(Duration::from_mins(1)).await;
        assert!(clock.now().abs_diff(1_185 * SECOND) < SECOND);
    }
}
