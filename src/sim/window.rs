//! The trailing 24 hours of calls, exact to the microsecond (facts 1.1).

use std::collections::VecDeque;

use super::clock::{DAY, Micros, SECOND, seconds};

/// Entries from which neighbours within 100 ms are merged, so that a day stays within some 30 MiB.
const EXACT_ENTRIES: usize = 1_000_000;

/// Calls of the trailing 24 hours.
#[derive(Debug, Default)]
pub(super) struct Window {
    entries: VecDeque<(Micros, u64)>,
    sum: u64,
    ever: u64,
    /// Calls come back at multiples of this; `0` means exactly after a day.
    release_step: Micros,
}

impl Window {
    pub(super) fn new(release_step_seconds: u64) -> Self {
        Self { release_step: seconds(release_step_seconds).min(DAY), ..Self::default() }
    }

    /// When calls of `at` come back.
    fn release(&self, at: Micros) -> Micros {
        let exact = at + DAY;
        if self.release_step == 0 { exact } else { exact.div_ceil(self.release_step) * self.release_step }
    }

    /// Books `calls` at `at`. Times may come slightly out of order.
    pub(super) fn add(&mut self, at: Micros, calls: u64) {
        if calls == 0 {
            return;
        }
        self.sum += calls;
        self.ever += calls;
        let crowded = self.entries.len() > EXACT_ENTRIES;
        if let Some((last, count)) = self.entries.back_mut()
            && (at <= *last || (crowded && at - *last < SECOND / 10))
        {
            *count += calls;
        } else {
            self.entries.push_back((at, calls));
        }
    }

    /// Takes back `calls` booked at `at` or, if that entry was merged, the latest ones.
    pub(super) fn refund(&mut self, at: Micros, mut calls: u64) {
        while calls > 0 {
            let place = self.entries.iter().rposition(|(time, count)| *time <= at && *count > 0);
            let place = place.or_else(|| self.entries.iter().position(|(_, count)| *count > 0));
            let Some((_, count)) = place.and_then(|place| self.entries.get_mut(place)) else { return };
            let taken = calls.min(*count);
            *count -= taken;
            self.sum -= taken;
            self.ever -= taken;
            calls -= taken;
        }
    }

    /// Calls that count at `now`.
    pub(super) fn used(&mut self, now: Micros) -> u64 {
        while let Some((at, count)) = self.entries.front().copied() {
            if self.release(at) > now {
                break;
            }
            self.sum -= count;
            self.entries.pop_front();
        }
        self.sum
    }

    /// All calls since the start.
    pub(super) fn ever(&self) -> u64 {
        self.ever
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_official_example() {
        // 14,500 calls at 05:00 on Wednesday and 499 at 23:00 leave one of 15,000 until 05:00 on Thursday (facts 1.1).
        let mut window = Window::new(0);
        let wednesday = 20_000 * DAY;
        let hour = 3_600 * SECOND;
        window.add(wednesday + 5 * hour, 14_500);
        window.add(wednesday + 23 * hour, 499);
        assert_eq!(window.used(wednesday + DAY + 5 * hour - 1), 14_999);
        assert_eq!(window.used(wednesday + DAY + 5 * hour), 499);
        assert_eq!(window.ever(), 14_999);
    }

    #[test]
    fn steps_give_back_late_and_never_early() {
        let mut window = Window::new(3_600);
        window.add(DAY + 10 * SECOND, 5);
        assert_eq!(window.used(2 * DAY + 20 * SECOND), 5);
        assert_eq!(window.used(2 * DAY + 3_600 * SECOND), 0);
    }

    #[test]
    fn refunds_find_their_entry() {
        let mut window = Window::new(0);
        window.add(10, 1);
        window.add(20, 1);
        window.refund(10, 1);
        assert_eq!(window.used(DAY + 10), 1);
        assert_eq!(window.used(DAY + 20), 0);
        assert_eq!(window.ever(), 1);
        window.refund(30, 9);
        assert_eq!(window.ever(), 1);
    }

    proptest::proptest! {
        /// The window agrees with counting by hand, whatever was booked and taken back.
        #[test]
        fn it_agrees_with_a_list(
            steps in proptest::collection::vec((0..DAY / 3, 1..5_u64, proptest::bool::weighted(0.2)), 1..60),
            step in proptest::sample::select(vec![0_u64, 900, 3_600]),
        ) {
            let mut window = Window::new(step);
            let mut list: Vec<(Micros, u64)> = Vec::new();
            let mut now = DAY;
            for (pause, calls, refunds) in steps {
                now += pause;
                window.add(now, calls);
                list.push((now, calls));
                if refunds {
                    window.refund(now, 1);
                    list.last_mut().unwrap().1 -= 1;
                }
                let counts = |at: Micros| if step == 0 {
                    at + DAY > now
                } else {
                    (at + DAY).div_ceil(step * SECOND) * step * SECOND > now
                };
                let expected: u64 = list.iter().filter(|(at, _)| counts(*at)).map(|(_, calls)| calls).sum();
                proptest::prop_assert_eq!(window.used(now), expected);
            }
        }
    }
}
