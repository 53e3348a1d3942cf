//! The org's two pools: calls per day and places for long-running calls (facts 1.1-1.4).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use smol_str::SmolStr;

use super::clock::{DAY, Micros, SECOND, millis};
use super::config::SimConfig;
use super::window::Window;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// The daily allowance is used up.
    Daily,
    /// All long-running places are taken.
    Concurrent,
}

/// Clients, users and families whose calls are counted apart; further ones are counted as `other`.
const NAMES: usize = 1_000;

/// Calls of others booked at once.
const MOST_AT_ONCE: u64 = 1_000_000_000;

/// Samples kept for lagging displays.
const SAMPLES: usize = 10_000;
/// Usage changes without any request too, so it is sampled this often for what a display may show later.
const SAMPLED: Micros = 10 * SECOND;
/// A display that lags more than this is not exact.
const LONGEST_LAG: Micros = 3_600 * SECOND;

/// What was spent, by whom, and what is running.
#[derive(Debug)]
pub(super) struct Meter {
    pub(super) limit: u64,
    pub(super) overage: u64,
    window: Window,
    release_step_seconds: u64,
    pub(super) clients: BTreeMap<SmolStr, Window>,
    pub(super) users: BTreeMap<SmolStr, Window>,
    pub(super) families: BTreeMap<SmolStr, Window>,
    /// Usage as it was, one sample per change and second at most.
    samples: VecDeque<(Micros, u64)>,
    pub(super) dark_per_minute: f64,
    dark_since: Micros,
    dark_until: Micros,
    /// Booked since `dark_since`.
    dark_booked: u64,
    pub(super) dark: u64,
    slots: usize,
    slot_age: Micros,
    running: BTreeSet<(Micros, u64)>,
    pub(super) running_peak: usize,
    pub(super) slots_peak: usize,
}

impl Meter {
    pub(super) fn new(config: &SimConfig, now: Micros) -> Self {
        let step = config.daily.release_step_seconds;
        Self {
            limit: config.daily.limit,
            overage: config.daily.overage,
            window: Window::new(step),
            release_step_seconds: step,
            clients: BTreeMap::new(),
            users: BTreeMap::new(),
            families: BTreeMap::new(),
            samples: VecDeque::from([(now, 0)]),
            dark_per_minute: config.daily.dark_per_minute,
            dark_since: now,
            dark_until: now,
            dark_booked: 0,
            dark: 0,
            slots: config.long_running.slots,
            slot_age: millis(config.long_running.after_ms),
            running: BTreeSet::new(),
            running_peak: 0,
            slots_peak: 0,
        }
    }

    /// Books what other apps spent up to `now`, evenly spread over the seconds that passed.
    fn accrue_dark(&mut self, now: Micros) {
        let from = self.dark_until.max(now.saturating_sub(DAY));
        if self.dark_per_minute <= 0.0 || now <= from {
            self.dark_until = now.max(self.dark_until);
            return;
        }
        if from > self.dark_until {
            // What was due before the window began would be gone again anyway.
            self.dark_booked = whole(self.dark_per_minute * minutes(from - self.dark_since));
        }
        let mut at = from;
        while at < now {
            at = (at + SECOND).min(now);
            let due = whole(self.dark_per_minute * minutes(at - self.dark_since)).saturating_sub(self.dark_booked);
            self.window.add(at, due);
            self.dark_booked += due;
            self.dark += due;
        }
        self.dark_until = now;
    }

    /// Changes the rate of unseen spending from now on.
    pub(super) fn set_dark(&mut self, now: Micros, per_minute: f64) {
        self.accrue_dark(now);
        self.dark_since = now;
        self.dark_booked = 0;
        self.dark_per_minute = per_minute.clamp(0.0, 10_000_000.0);
    }

    /// Books calls of nobody we know, at once.
    pub(super) fn spend_dark(&mut self, now: Micros, calls: u64) {
        self.catch_up(now);
        self.accrue_dark(now);
        let calls = calls.min(MOST_AT_ONCE);
        self.window.add(now, calls);
        self.dark += calls;
        self.sample(now);
    }

    /// True usage of the trailing 24 hours.
    pub(super) fn used(&mut self, now: Micros) -> u64 {
        self.catch_up(now);
        self.accrue_dark(now);
        self.window.used(now)
    }

    /// Takes the samples of the time in which nobody asked.
    fn catch_up(&mut self, now: Micros) {
        let last = self.samples.back().map_or(now, |(at, _)| *at);
        let mut at = (last + SAMPLED).max(now.saturating_sub(LONGEST_LAG));
        while at < now {
            self.accrue_dark(at);
            let used = self.window.used(at);
            self.samples.push_back((at, used));
            if self.samples.len() > SAMPLES {
                self.samples.pop_front();
            }
            at += SAMPLED;
        }
    }

    /// All calls ever, dark ones included.
    pub(super) fn ever(&self) -> u64 {
        self.window.ever()
    }

    /// Usage as a display shows it that lags by `lag`.
    pub(super) fn shown(&mut self, now: Micros, lag: Micros) -> u64 {
        if lag == 0 {
            return self.used(now);
        }
        self.sample(now);
        let seen = now.saturating_sub(lag);
        self.samples.iter().rev().find(|(at, _)| *at <= seen).map_or(0, |(_, used)| *used)
    }

    fn sample(&mut self, now: Micros) {
        let used = self.used(now);
        match self.samples.back_mut() {
            Some((at, last)) if now < *at + SECOND / 2 => *last = used,
            _ => self.samples.push_back((now, used)),
        }
        if self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
    }

    /// Whether a request that arrives now is refused.
    pub(super) fn refuses(&mut self, now: Micros) -> Option<Limit> {
        if self.slots_used(now) >= self.slots {
            return Some(Limit::Concurrent);
        }
        (self.used(now) >= self.limit.saturating_add(self.overage)).then_some(Limit::Daily)
    }

    /// Books calls of a user and client.
    pub(super) fn charge(&mut self, now: Micros, who: &Payer, calls: u64) {
        self.catch_up(now);
        self.accrue_dark(now);
        self.window.add(now, calls);
        let step = self.release_step_seconds;
        named(&mut self.clients, &who.client, step).add(now, calls);
        named(&mut self.users, &who.user, step).add(now, calls);
        named(&mut self.families, &SmolStr::new_static(who.family), step).add(now, calls);
        self.sample(now);
    }

    /// Takes back calls booked at `at`.
    pub(super) fn refund(&mut self, at: Micros, now: Micros, who: &Payer, calls: u64) {
        self.window.refund(at, calls);
        let step = self.release_step_seconds;
        named(&mut self.clients, &who.client, step).refund(at, calls);
        named(&mut self.users, &who.user, step).refund(at, calls);
        named(&mut self.families, &SmolStr::new_static(who.family), step).refund(at, calls);
        self.sample(now);
    }

    /// Calls of one client in the trailing 24 hours.
    pub(super) fn client_used(&mut self, client: &str, now: Micros) -> u64 {
        self.clients.get_mut(client).map_or(0, |window| window.used(now))
    }

    /// A call begins.
    pub(super) fn begin(&mut self, at: Micros, number: u64) {
        self.running.insert((at, number));
        self.running_peak = self.running_peak.max(self.running.len());
    }

    /// A call ends.
    pub(super) fn end(&mut self, began: Micros, number: u64, now: Micros) {
        self.slots_used(now);
        self.running.remove(&(began, number));
    }

    /// Calls running now.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// Calls that run since `slot_age` or longer.
    pub(super) fn slots_used(&mut self, now: Micros) -> usize {
        let Some(before) = now.checked_sub(self.slot_age) else { return 0 };
        let used = self.running.range(..=(before, u64::MAX)).count();
        self.slots_peak = self.slots_peak.max(used);
        used
    }
}

fn named<'a>(windows: &'a mut BTreeMap<SmolStr, Window>, name: &SmolStr, step: u64) -> &'a mut Window {
    let name = if windows.len() >= NAMES && !windows.contains_key(name) { &SmolStr::new_static("other") } else { name };
    windows.entry(name.clone()).or_insert_with(|| Window::new(step))
}

/// A stretch of time in minutes.
fn minutes(stretch: Micros) -> f64 {
    stretch as f64 / (60.0 * SECOND as f64)
}

/// The whole part of a count.
#[expect(clippy::cast_sign_loss, reason = "what is negative is made zero first")]
fn whole(number: f64) -> u64 {
    number.max(0.0) as u64
}

/// On whose account a call goes.
#[derive(Debug, Clone)]
pub(super) struct Payer {
    pub(super) user: SmolStr,
    pub(super) client: SmolStr,
    pub(super) family: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter() -> Meter {
        let mut config = SimConfig::default();
        config.daily.limit = 10;
        config.long_running.slots = 2;
        Meter::new(&config, 100 * DAY)
    }

    fn payer() -> Payer {
        Payer { user: "u".into(), client: "c".into(), family: "rest" }
    }

    #[test]
    fn the_limit_holds_to_the_call() {
        let mut meter = meter();
        let now = 100 * DAY;
        for _ in 0..10 {
            assert_eq!(meter.refuses(now), None);
            meter.charge(now, &payer(), 1);
        }
        assert_eq!(meter.refuses(now), Some(Limit::Daily));
        assert_eq!(meter.refuses(now + DAY - 1), Some(Limit::Daily));
        assert_eq!(meter.refuses(now + DAY), None);
    }

    #[test]
    fn only_old_calls_take_places() {
        let mut meter = meter();
        let now = 100 * DAY;
        for number in 0..80 {
            meter.begin(now, number);
        }
        assert_eq!(meter.refuses(now + 20 * SECOND - 1), None);
        assert_eq!(meter.refuses(now + 20 * SECOND), Some(Limit::Concurrent));
        for number in 0..79 {
            meter.end(now, number, now + 21 * SECOND);
        }
        assert_eq!(meter.refuses(now + 22 * SECOND), None);
        assert_eq!(meter.slots_peak, 80);
    }

    #[test]
    fn dark_callers_spend_without_requests() {
        let mut meter = meter();
        let now = 100 * DAY;
        meter.set_dark(now, 6.0);
        assert_eq!(meter.used(now + 60 * SECOND), 6);
        assert_eq!(meter.used(now + 95 * SECOND), 9);
        assert_eq!(meter.dark, 9);
    }

    #[test]
    fn the_display_may_lag() {
        let mut meter = meter();
        let now = 100 * DAY;
        meter.charge(now, &payer(), 3);
        meter.charge(now + 30 * SECOND, &payer(), 2);
        assert_eq!(meter.shown(now + 40 * SECOND, 0), 5);
        assert_eq!(meter.shown(now + 40 * SECOND, 20 * SECOND), 3);
        assert_eq!(meter.shown(now + 50 * SECOND, 20 * SECOND), 5);
        // No longer than it says, although nobody asked for an hour.
        meter.set_dark(now + 50 * SECOND, 6.0);
        let later = now + 50 * SECOND + 3_600 * SECOND;
        assert_eq!(meter.shown(later, 100 * SECOND), 5 + 350);
        assert_eq!(meter.shown(later, 0), 5 + 360);
    }
}
