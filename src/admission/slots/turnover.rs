//! How fast places in the air come free, where they are bounded.

use std::time::Duration;

/// Calls that have to have ended before anything is foreseen.
const ENOUGH: u8 = super::sketch::ENOUGH;
/// The mean is that of about so many of the latest calls.
const LATEST: u8 = 16;

/// How long calls take a place, on average.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Turnover {
    /// In microseconds.
    mean: u64,
    seen: u8,
}

impl Turnover {
    /// One more call took its place for this long.
    pub(super) fn add(&mut self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.seen = self.seen.saturating_add(1).min(LATEST);
        let share = |by: u64| by / u64::from(self.seen);
        self.mean = match took.checked_sub(self.mean) {
            Some(more) => self.mean + share(more),
            None => self.mean - share(self.mean - took),
        };
    }

    /// How long it takes until `calls` of `places`, which are all taken, come free; `None` if too little is known.
    pub(super) fn until_free(&self, calls: usize, places: usize) -> Option<Duration> {
        let micros = self.mean.saturating_mul(calls as u64) / places.max(1) as u64;
        (self.seen >= ENOUGH).then(|| Duration::from_micros(micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_nothing_at_first_and_then_follows_the_latest_calls() {
        let mut turnover = Turnover::default();
        for _ in 0..4 {
            turnover.add(Duration::from_secs(2));
        }
        assert_eq!(turnover.until_free(1, 1), None);
        turnover.add(Duration::from_secs(2));
        assert_eq!(turnover.until_free(1, 4), Some(Duration::from_millis(500)));
        assert_eq!(turnover.until_free(6, 4), Some(Duration::from_secs(3)));
        for _ in 0..200 {
            turnover.add(Duration::from_secs(10));
        }
        let wait = turnover.until_free(1, 1).unwrap();
        assert!(wait > Duration::from_millis(9_990) && wait <= Duration::from_secs(10), "{wait:?}");
        turnover.add(Duration::MAX);
        turnover.add(Duration::ZERO);
        assert!(turnover.until_free(usize::MAX, 1).is_some());
    }
}
