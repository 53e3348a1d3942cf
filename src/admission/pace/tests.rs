//! The pace beside a naive model: a bucket of nanoseconds, a list of who waits, and nothing clever.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn settings(per_second: u32, burst: u32, places: u32, patience: Duration) -> PaceSettings {
    PaceSettings {
        mode: Mode::Enforce,
        per_second: NonZeroU32::new(per_second).unwrap(),
        burst: NonZeroU32::new(burst).unwrap(),
        places,
        patience,
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn start() -> Instant {
    crate::clock::Clock::start().now()
}

const fn go(left: u32) -> Verdict {
    Verdict::Go { left, would: None }
}

#[test]
fn a_burst_goes_at_once_and_the_rest_waits_in_order() {
    let now = start();
    let mut pacer = Pacer::new(settings(10, 3, 2, SECOND), now);
    assert_eq!([2, 1, 0].map(go), [(); 3].map(|()| pacer.ask(now, None)));
    let tenth = SECOND / 10;
    assert_eq!(pacer.ask(now, None), Verdict::Wait(tenth));
    assert_eq!(pacer.ask(now, None), Verdict::Wait(2 * tenth));
    let refused = Verdict::Refused(TooFast { why: Hurry::Places, wait: 3 * tenth });
    assert_eq!(pacer.ask(now, None), refused);
    assert_eq!(pacer.turn(now), Err(now + tenth));
    assert_eq!(pacer.turn(now + tenth), Ok(0));
    // Whoever comes now waits behind the second, although a part of the pace has just come back.
    assert_eq!(pacer.ask(now + 2 * tenth, None), Verdict::Wait(tenth));
    assert_eq!(pacer.turn(now + 2 * tenth), Ok(0));
    let budget = pacer.budget(now + 2 * tenth);
    assert_eq!((budget.waiting, budget.waited, budget.left), (1, 2, 0));
    assert_eq!(budget.refused, [(Hurry::Places, 1)]);
}

#[test]
fn a_wait_beyond_patience_or_deadline_is_not_begun() {
    let now = start();
    let mut pacer = Pacer::new(settings(2, 1, 10, SECOND), now);
    assert_eq!(pacer.ask(now, None), go(0));
    let half = SECOND / 2;
    let deadline = Verdict::Refused(TooFast { why: Hurry::Deadline, wait: half });
    assert_eq!(pacer.ask(now, Some(half)), deadline);
    assert_eq!(pacer.ask(now, Some(half + Duration::from_nanos(1))), Verdict::Wait(half));
    assert_eq!(pacer.ask(now, None), Verdict::Wait(SECOND));
    let patience = Verdict::Refused(TooFast { why: Hurry::Patience, wait: SECOND + half });
    assert_eq!(pacer.ask(now, None), patience);
}

#[test]
fn who_leaves_has_taken_nothing() {
    let now = start();
    let mut pacer = Pacer::new(settings(1, 1, 10, 10 * SECOND), now);
    assert_eq!(pacer.ask(now, None), go(0));
    for place in 1..=5 {
        assert_eq!(pacer.ask(now, None), Verdict::Wait(place * SECOND));
    }
    for _ in 0..4 {
        pacer.leave();
    }
    assert_eq!(pacer.turn(now + SECOND), Ok(0), "the fifth goes in the place of the first");
    pacer.leave();
    assert_eq!(pacer.ask(now + 2 * SECOND, None), go(0));
}

#[test]
fn without_places_what_exceeds_the_burst_is_refused() {
    let now = start();
    let mut pacer = Pacer::new(settings(1, 1, 0, SECOND), now);
    assert_eq!(pacer.ask(now, None), go(0));
    assert_eq!(pacer.ask(now, None), Verdict::Refused(TooFast { why: Hurry::Places, wait: SECOND }));
}

#[test]
fn observing_delays_nothing_and_says_what_enforcing_would_refuse() {
    let now = start();
    let mut pacer = Pacer::new(PaceSettings { mode: Mode::Observe, ..settings(10, 2, 3, SECOND) }, now);
    assert_eq!([1, 0, 0, 0, 0].map(go), [(); 5].map(|()| pacer.ask(now, None)), "two at once, three would wait");
    let would = Some(TooFast { why: Hurry::Places, wait: SECOND * 4 / 10 });
    assert_eq!(pacer.ask(now, None), Verdict::Go { left: 0, would });
    // What would have been refused has taken nothing, and those who would wait are through after three tenths.
    assert_eq!(pacer.ask(now + SECOND * 4 / 10, None), go(0));
    assert_eq!(pacer.budget(now).waiting, 0);
}

#[test]
fn switched_off_it_counts_nothing_and_lets_those_go_who_wait() {
    let now = start();
    let on = settings(1, 1, 10, 10 * SECOND);
    let mut pacer = Pacer::new(on, now);
    assert_eq!(pacer.ask(now, None), go(0));
    assert_eq!(pacer.ask(now, None), Verdict::Wait(SECOND));
    pacer.reconfigure(PaceSettings { mode: Mode::Off, ..on }, now);
    assert_eq!(pacer.turn(now), Ok(0));
    assert_eq!(pacer.ask(now, None), go(0));
}

#[test]
fn other_settings_forget_nothing_that_was_taken() {
    let now = start();
    let mut pacer = Pacer::new(settings(10, 100, 10, SECOND), now);
    for _ in 0..60 {
        pacer.ask(now, None);
    }
    pacer.reconfigure(settings(50, 100, 10, SECOND), now);
    assert_eq!(pacer.budget(now).left, 40);
    pacer.reconfigure(settings(50, 20, 10, SECOND), now);
    assert_eq!(pacer.budget(now).left, 0);
    assert_eq!(pacer.ask(now, None), Verdict::Wait(SECOND / 50));
    pacer.leave();
    // The same settings again change nothing.
    let later = now + SECOND / 50;
    pacer.reconfigure(settings(50, 20, 10, SECOND), later);
    assert_eq!(pacer.ask(later, None), go(0));
    assert_eq!(pacer.budget(now + 20 * SECOND).left, 20);
}

#[test]
fn time_that_seems_to_go_back_gives_nothing() {
    let later = start() + SECOND;
    let mut pacer = Pacer::new(settings(10, 1, 10, SECOND), later);
    assert_eq!(pacer.ask(later, None), go(0));
    // Runtimes read the clock before they take the lock: one may come with an earlier moment.
    assert_eq!(pacer.ask(later - SECOND, None), Verdict::Wait(SECOND / 10));
}

/// A bucket of nanoseconds: `interval` of them for each call, `burst` times that at most.
struct Naive {
    settings: PaceSettings,
    interval: u64,
    credit: u64,
    queue: VecDeque<u32>,
}

impl Naive {
    fn new(settings: PaceSettings) -> Self {
        let interval = 1_000_000_000 / u64::from(settings.per_second.get());
        let credit = interval * u64::from(settings.burst.get());
        Self { settings, interval, credit, queue: VecDeque::new() }
    }

    fn pass(&mut self, time: u64) {
        self.credit = (self.credit + time).min(self.interval * u64::from(self.settings.burst.get()));
    }

    /// Nanoseconds until one can go.
    fn due(&self) -> u64 {
        self.interval.saturating_sub(self.credit)
    }

    fn arrive(&mut self, id: u32, time_left: Option<u64>) -> Verdict {
        if self.queue.is_empty() && self.credit >= self.interval {
            self.credit -= self.interval;
            return go((self.credit / self.interval) as u32);
        }
        let wait = self.due() + self.interval * self.queue.len() as u64;
        let refused = |why| Verdict::Refused(TooFast { why, wait: Duration::from_nanos(wait) });
        if self.queue.len() >= self.settings.places as usize {
            return refused(Hurry::Places);
        }
        if u128::from(wait) > self.settings.patience.as_nanos() {
            return refused(Hurry::Patience);
        }
        if time_left.is_some_and(|left| wait >= left) {
            return refused(Hurry::Deadline);
        }
        self.queue.push_back(id);
        Verdict::Wait(Duration::from_nanos(wait))
    }
}

#[derive(Debug, Clone)]
enum Step {
    Arrive { time_left: Option<u64> },
    Leave { place: usize },
    Pass { time: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let left = prop::option::of(1_000_000_u64..3_000_000_000);
    let step = prop_oneof![
        5 => left.prop_map(|time_left| Step::Arrive { time_left }),
        1 => any::<usize>().prop_map(|place| Step::Leave { place }),
        3 => (0_u64..400_000_000).prop_map(|time| Step::Pass { time }),
        1 => (0_u64..20_000_000_000).prop_map(|time| Step::Pass { time }),
    ];
    prop::collection::vec(step, 1..400)
}

fn any_settings() -> impl Strategy<Value = PaceSettings> {
    let patience = (0_u64..5_000).prop_map(Duration::from_millis);
    (1_u32..200, 1_u32..50, 0_u32..30, patience)
        .prop_map(|(rate, burst, places, patience)| settings(rate, burst, places, patience))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn it_is_the_naive_bucket_with_a_naive_queue(settings in any_settings(), steps in steps()) {
        let began = start();
        let (mut pacer, mut naive) = (Pacer::new(settings, began), Naive::new(settings));
        let mut now = began;
        let (mut asked, mut refused, mut left) = (0_u64, 0_u64, 0_u64);
        let mut sent: Vec<Instant> = Vec::new();
        for (id, step) in steps.into_iter().enumerate() {
            match step {
                Step::Arrive { time_left } => {
                    asked += 1;
                    let verdict = pacer.ask(now, time_left.map(Duration::from_nanos));
                    prop_assert_eq!(verdict, naive.arrive(id as u32, time_left));
                    match verdict {
                        Verdict::Go { .. } => sent.push(now),
                        Verdict::Refused(_) => refused += 1,
                        Verdict::Wait(_) => {}
                    }
                }
                Step::Leave { place } => {
                    if !naive.queue.is_empty() {
                        naive.queue.remove(place % naive.queue.len());
                        pacer.leave();
                        left += 1;
                    }
                }
                Step::Pass { time } => {
                    let until = now + Duration::from_nanos(time);
                    while !naive.queue.is_empty() {
                        let due = naive.due();
                        let at = now + Duration::from_nanos(due);
                        if at > until {
                            prop_assert_eq!(pacer.turn(now), Err(at), "it goes neither sooner nor later");
                            break;
                        }
                        if due > 0 {
                            prop_assert_eq!(pacer.turn(now), Err(at));
                        }
                        naive.pass(due);
                        naive.credit -= naive.interval;
                        naive.queue.pop_front();
                        now = at;
                        prop_assert!(pacer.turn(now).is_ok());
                        sent.push(now);
                    }
                    naive.pass((until - now).as_nanos() as u64);
                    now = until;
                }
            }
            let budget = pacer.budget(now);
            prop_assert_eq!(budget.waiting as usize, naive.queue.len());
            if naive.queue.is_empty() {
                prop_assert_eq!(u64::from(budget.left), naive.credit / naive.interval);
            }
        }
        // Nobody is lost and nobody is counted twice.
        prop_assert_eq!(asked, sent.len() as u64 + refused + left + naive.queue.len() as u64);
        prop_assert_eq!(pacer.budget(now).refused.iter().map(|(_, count)| count).sum::<u64>(), refused);
        // However it came about: no window holds more than the burst and what comes back in it.
        let burst = settings.burst.get() as usize;
        for (first, at) in sent.iter().enumerate() {
            for more in [1, 2, 7, 40] {
                if let Some(later) = sent.get(first + burst + more - 1) {
                    let spans = (*later - *at).as_nanos() as u64;
                    prop_assert!(spans >= naive.interval * more as u64, "{} calls in {} ns", burst + more, spans);
                }
            }
        }
    }

    #[test]
    fn a_reload_at_any_time_gives_no_second_burst(
        before in any_settings(),
        after in any_settings(),
        taken in 0_u32..60,
        pause in 0_u64..300_000_000,
    ) {
        let began = start();
        let before = PaceSettings { places: 0, ..before };
        let mut pacer = Pacer::new(before, began);
        let mut went = 0;
        for _ in 0..taken {
            went += u32::from(matches!(pacer.ask(began, None), Verdict::Go { .. }));
        }
        let now = began + Duration::from_nanos(pause);
        let back = (pause / interval(before)) as u32 + 1;
        pacer.reconfigure(after, now);
        let used = after.burst.get() - pacer.budget(now).left;
        prop_assert!(used + back >= went.min(after.burst.get()), "{used} of {went} are still known");
        prop_assert!(used <= went.min(after.burst.get()), "{used} of {went} were never taken");
    }
}
