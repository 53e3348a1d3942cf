//! How many log-ins a user may make in an hour (facts 1.5), counted in minutes.

use std::time::Duration;

use tokio::time::Instant;

/// One more than an hour has, so that the running minute counts and the window is never shorter than an hour.
const MINUTES: usize = 61;
const MINUTE: Duration = Duration::from_mins(1);

/// A trailing hour of log-ins.
#[derive(Debug)]
pub(super) struct Logins {
    limit: u32,
    used: u32,
    counts: [u32; MINUTES],
    /// When minute 0 began, and the running minute.
    began: Option<Instant>,
    minute: u64,
}

impl Logins {
    /// At most `limit` in an hour.
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, used: 0, counts: [0; MINUTES], began: None, minute: 0 }
    }

    /// Whether one can be had; else when the next can.
    pub(super) fn spare(&mut self, now: Instant) -> Result<(), Instant> {
        self.roll(now);
        if self.used >= self.limit { Err(self.frees_at(now)) } else { Ok(()) }
    }

    /// Takes one; else says when the next can be had.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        self.spare(now)?;
        let place = place(self.minute);
        if let Some(count) = self.counts.get_mut(place) {
            *count += 1;
            self.used += 1;
        }
        Ok(())
    }

    /// Taken in the last hour.
    pub(super) fn used(&mut self, now: Instant) -> u32 {
        self.roll(now);
        self.used
    }

    /// The most there may be.
    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    fn roll(&mut self, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let minute = now.saturating_duration_since(began).as_secs() / MINUTE.as_secs();
        let passed = minute.saturating_sub(self.minute).min(MINUTES as u64);
        for ahead in 1..=passed {
            if let Some(count) = self.counts.get_mut(place(self.minute + ahead)) {
                self.used -= std::mem::take(count);
            }
        }
        self.minute = self.minute.max(minute);
    }

    /// When the oldest minute that holds any leaves the window.
    fn frees_at(&self, now: Instant) -> Instant {
        let Some(began) = self.began else { return now };
        let oldest = self.minute.saturating_sub(MINUTES as u64 - 1);
        let held =
            (oldest..=self.minute).find(|minute| self.counts.get(place(*minute)).is_some_and(|count| *count > 0));
        let minutes = held.unwrap_or(self.minute) + MINUTES as u64;
        began + MINUTE * u32::try_from(minutes).unwrap_or(u32::MAX)
    }
}

fn place(minute: u64) -> usize {
    (minute % MINUTES as u64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_next_can_be_had_when_the_oldest_leaves() {
        let start = crate::clock::Clock::start().now();
        let mut logins = Logins::new(2);
        assert_eq!(logins.take(start), Ok(()));
        assert_eq!(logins.take(start + MINUTE * 5), Ok(()));
        let again = logins.take(start + MINUTE * 6).unwrap_err();
        assert_eq!(again, start + MINUTE * 61);
        assert_eq!(logins.take(again), Ok(()));
        assert_eq!(logins.used(again + MINUTE * 200), 0);
    }

    proptest! {
        #[test]
        fn never_more_than_the_limit_in_any_hour(steps in proptest::collection::vec(0_u64..600, 1..500)) {
            let mut now = crate::clock::Clock::start().now();
            let (mut logins, mut taken) = (Logins::new(7), Vec::new());
            for seconds in steps {
                now += Duration::from_secs(seconds);
                if logins.take(now).is_ok() {
                    taken.push(now);
                }
                let hour = taken.iter().filter(|taken| now - **taken < Duration::from_hours(1)).count();
                prop_assert!(hour <= 7);
            }
        }
    }
}
