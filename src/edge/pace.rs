//! Whether a peer keeps up: bytes moved, over the time spent waiting for it.
//!
//! Only time in which *we* wait for the *peer* counts, so a stage that pauses reading blames nobody.

use std::time::Duration;

use tokio::time::Instant;

/// The speed asked of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinimumRate {
    /// Bytes per second.
    pub bytes_per_second: u64,
    /// Waiting time over which the rate is measured.
    pub window: Duration,
}

/// Measures one direction of one connection or body.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    /// Bytes moved in the running window.
    moved: u64,
    /// Waiting time in the running window that is over.
    waited: Duration,
    /// Since when the peer is being waited for.
    waiting_since: Option<Instant>,
}

impl Pace {
    /// Nothing moved, nothing awaited.
    pub fn new() -> Self {
        Self::default()
    }

    /// The peer has to be waited for.
    pub fn wait(&mut self, now: Instant) {
        self.waiting_since.get_or_insert(now);
    }

    /// Whether the peer is being waited for.
    pub fn waiting(&self) -> bool {
        self.waiting_since.is_some()
    }

    /// `bytes` moved while nobody was waiting: costs no clock.
    pub fn moved(&mut self, bytes: u64) {
        self.moved = self.moved.saturating_add(bytes);
    }

    /// The wait is over at `now`.
    pub fn resume(&mut self, now: Instant) {
        if let Some(since) = self.waiting_since.take() {
            self.waited += now.saturating_duration_since(since);
        }
    }

    /// When the running window is full if nothing changes; `None` while nobody is waiting.
    pub fn due(&self, rate: MinimumRate) -> Option<Instant> {
        self.waiting_since.and_then(|since| since.checked_add(rate.window.saturating_sub(self.waited)))
    }

    /// Judges a full window and starts the next one: true if the peer was too slow in it.
    pub fn too_slow(&mut self, rate: MinimumRate, now: Instant) -> bool {
        let running = self.waiting_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let waited = self.waited + running;
        if waited < rate.window {
            return false;
        }
        let owed = u128::from(rate.bytes_per_second) * waited.as_millis() / 1_000;
        let slow = u128::from(self.moved) < owed;
        self.moved = 0;
        self.waited = Duration::ZERO;
        if self.waiting_since.is_some() {
            self.waiting_since = Some(now);
        }
        slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: MinimumRate = MinimumRate { bytes_per_second: 100, window: Duration::from_secs(10) };

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn start() -> Instant {
        crate::clock::Clock::start().now()
    }

    #[test]
    fn a_peer_that_sends_nothing_is_too_slow_after_the_window() {
        let start = start();
        let mut pace = Pace::new();
        pace.wait(start);
        assert_eq!(pace.due(RATE), Some(at(start, 10)));
        assert!(!pace.too_slow(RATE, at(start, 9)));
        assert!(pace.too_slow(RATE, at(start, 10)));
    }

    #[test]
    fn our_own_pauses_blame_nobody() {
        let start = start();
        let mut pace = Pace::new();
        pace.wait(start);
        pace.resume(at(start, 1));
        pace.moved(10);
        pace.wait(at(start, 100));
        assert_eq!(pace.due(RATE), Some(at(start, 109)));
        assert!(!pace.too_slow(RATE, at(start, 101)));
    }

    #[test]
    fn a_trickle_below_the_rate_is_too_slow_and_one_at_the_rate_is_not() {
        for (bytes, slow) in [(999, true), (1_000, false)] {
            let start = start();
            let mut pace = Pace::new();
            pace.wait(start);
            pace.moved(bytes);
            assert_eq!(pace.too_slow(RATE, at(start, 10)), slow, "{bytes}");
        }
    }

    #[test]
    fn each_window_is_judged_on_its_own() {
        let start = start();
        let mut pace = Pace::new();
        pace.wait(start);
        pace.moved(1_000_000);
        assert!(!pace.too_slow(RATE, at(start, 10)));
        assert!(pace.too_slow(RATE, at(start, 20)), "a burst buys one window, not the next");
    }
}
