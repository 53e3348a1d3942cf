//! The only place that reads a clock.
//!
//! Monotonic time is tokio's, so a test that pauses it owns every wait of the gateway. Wall time is derived
//! from it: read once at start, then advanced by the monotonic clock, so that a step of the system's clock
//! never makes the gateway jump.

#![expect(clippy::disallowed_methods, reason = "this module is what the ban points to")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// How long the machine has been up: time that goes on while a process is down, and that nobody can set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uptime {
    /// Tells this start of the machine from every other.
    pub boot: Box<str>,
    /// How long ago that was.
    pub up: Duration,
}

impl Uptime {
    /// What the system says; `None` where it does not say it.
    pub fn read() -> Option<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let text = std::fs::read_to_string("/proc/uptime").ok()?;
        let seconds: f64 = text.split_whitespace().next()?.parse().ok()?;
        Some(Self { boot: boot.trim().into(), up: Duration::try_from_secs_f64(seconds).ok()? })
    }
}

/// Monotonic and wall time of one process.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    /// Wall time at `started`, since the Unix epoch.
    wall_at_start: Duration,
}

impl Clock {
    /// A clock anchored at the present.
    pub fn start() -> Self {
        let wall_at_start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), wall_at_start }
    }

    /// A clock that says it is `wall` (since the Unix epoch) now, for tests and virtual days.
    pub fn at(wall: Duration) -> Self {
        Self { started: Instant::now(), wall_at_start: wall }
    }

    /// A clock that says it is `wall` at `instant`.
    pub const fn anchored(instant: Instant, wall: Duration) -> Self {
        Self { started: instant, wall_at_start: wall }
    }

    /// Monotonic now. Read it once for each request and pass it on.
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// Wall time at `instant`, since the Unix epoch.
    pub fn wall(&self, instant: Instant) -> Duration {
        if instant >= self.started {
            self.wall_at_start + (instant - self.started)
        } else {
            self.wall_at_start.saturating_sub(self.started - instant)
        }
    }

    /// When it says that it is `wall`; what was before it was started is not told apart.
    pub fn instant(&self, wall: Duration) -> Instant {
        self.started + wall.saturating_sub(self.wall_at_start)
    }

    /// How long this clock has been running at `instant`.
    pub fn uptime(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.started)
    }

    /// The system's own wall clock, for certificates and file times.
    pub fn system_time(&self) -> SystemTime {
        SystemTime::now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn wall_time_follows_the_monotonic_clock() {
        let clock = Clock::at(Duration::from_secs(1_000));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(clock.wall(clock.now()), Duration::from_secs(1_030));
        assert_eq!(clock.uptime(clock.now()), Duration::from_secs(30));
    }
}
