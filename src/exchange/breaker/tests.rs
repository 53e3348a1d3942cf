//! Tests of the breaker: its states in order, and a model that counts what passes.

use proptest::prelude::*;

use super::*;
use crate::clock::Clock;

const SECOND: Duration = Duration::from_secs(1);

struct Bench {
    breaker: Breaker,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let now = Clock::start().now();
        Self { breaker: Breaker::new(BreakerSettings::default(), now), now }
    }

    fn ask(&self) -> Pass {
        self.breaker.ask(Class::Interactive, self.now)
    }

    fn go(&self) -> Ticket {
        match self.ask() {
            Pass::Go(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    fn call(&self, sample: Sample) -> Option<BreakerState> {
        self.breaker.report(self.go(), sample, self.now)
    }

    /// Calls at a steady rate that all go well.
    fn normal(&mut self, seconds: u32, per_second: u32) {
        for _ in 0..seconds * per_second {
            self.call(Sample::Well);
            self.now += SECOND / per_second;
        }
    }

    fn trip(&self) {
        let opened = (0..2_000).find_map(|_| self.call(Sample::Ill));
        assert_eq!(opened, Some(BreakerState::Open));
    }

    fn probe(&self) -> Ticket {
        match self.ask() {
            Pass::Probe(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    fn state(&self) -> BreakerState {
        self.breaker.view(self.now).0
    }
}

#[test]
fn it_opens_on_a_share_of_failures_and_not_on_a_few() {
    let bench = Bench::new();
    for _ in 0..19 {
        assert_eq!(bench.call(Sample::Ill), None);
    }
    assert_eq!(bench.call(Sample::Ill), Some(BreakerState::Open), "the twentieth of twenty");
    assert!(matches!(bench.ask(), Pass::Shut(wait) if wait == 5 * SECOND));

    let mut bench = Bench::new();
    bench.normal(10, 100);
    for _ in 0..900 {
        assert_eq!(bench.call(Sample::Ill), None, "most went well");
    }
    assert!((0..200).any(|_| bench.call(Sample::Ill).is_some()));
}

#[test]
fn failures_of_long_ago_and_calls_that_say_nothing_do_not_count() {
    let mut bench = Bench::new();
    for _ in 0..100 {
        assert_eq!(bench.call(Sample::Ill), None);
        assert_eq!(bench.call(Sample::Nothing), None);
        bench.now += SECOND;
    }
}

#[test]
fn one_call_finds_out_and_each_time_it_waits_longer() {
    let mut bench = Bench::new();
    bench.trip();
    for open in [5, 10, 20, 40, 60, 60] {
        bench.now += open * SECOND - SECOND / 10;
        assert!(matches!(bench.ask(), Pass::Shut(_)));
        bench.now += SECOND / 10;
        let ticket = bench.probe();
        assert!(matches!(bench.ask(), Pass::Shut(_)), "only one");
        assert_eq!(bench.breaker.probed(ticket, false, bench.now), Some(BreakerState::Open));
    }
    bench.now += 60 * SECOND;
    let ticket = bench.probe();
    assert_eq!(bench.breaker.probed(ticket, true, bench.now), None);
    assert_eq!(bench.breaker.report(ticket, Sample::Ill, bench.now), Some(BreakerState::Open), "the real one decides");
}

#[test]
fn a_probe_that_is_never_heard_of_does_not_keep_it_shut() {
    let mut bench = Bench::new();
    bench.trip();
    bench.now += 5 * SECOND;
    bench.probe();
    bench.now += PROBE;
    assert!(matches!(bench.ask(), Pass::Shut(_)));
    bench.now += 60 * SECOND;
    let ticket = bench.probe();
    assert_eq!(bench.breaker.report(ticket, Sample::Nothing, bench.now), Some(BreakerState::Open));
    bench.probe();
}

#[test]
fn a_ticket_is_void_once_it_has_opened() {
    let mut bench = Bench::new();
    let waiting = bench.go();
    assert!(bench.breaker.is_valid(waiting));
    bench.trip();
    assert!(!bench.breaker.is_valid(waiting));
    bench.now += 5 * SECOND;
    let probe = bench.probe();
    assert!(bench.breaker.is_valid(probe));
    assert_eq!(bench.breaker.report(waiting, Sample::Well, bench.now), None, "it says nothing of today");
    assert_eq!(bench.breaker.report(probe, Sample::Well, bench.now), None);
    assert_eq!(bench.state(), BreakerState::HalfOpen);
}

#[test]
fn it_is_loaded_slowly_and_urgent_calls_go_first() {
    let mut bench = Bench::new();
    bench.normal(120, 50);
    bench.trip();
    bench.now += 5 * SECOND;
    let probe = bench.probe();
    bench.breaker.report(probe, Sample::Well, bench.now);
    let began = bench.now;
    let mut per_second = Vec::new();
    // Everybody wants twice of what is usual, and goes on wanting it.
    while bench.now < began + 40 * SECOND {
        let mut passed = 0;
        for _ in 0..100 {
            if let Pass::Go(ticket) = bench.ask() {
                passed += 1;
                bench.breaker.report(ticket, Sample::Well, bench.now);
            }
            bench.now += SECOND / 100;
        }
        per_second.push(passed);
    }
    assert!(per_second[0] <= 20, "{per_second:?}");
    assert!(per_second.iter().all(|passed| *passed <= 60), "1.2 times the usual: {per_second:?}");
    assert!(per_second[35] >= 50, "{per_second:?}");
    bench.now = began;
    assert!(matches!(bench.breaker.ask(Class::Batch, began + SECOND), Pass::Shut(_)));
    // They want what is usual again.
    bench.now = began + 40 * SECOND;
    while bench.state() != BreakerState::Closed {
        if let Pass::Go(ticket) = bench.ask() {
            bench.breaker.report(ticket, Sample::Well, bench.now);
        }
        bench.now += SECOND / 40;
        assert!(bench.now < began + 60 * SECOND);
    }
}

#[test]
fn failures_while_it_is_loaded_open_it_again() {
    let mut bench = Bench::new();
    bench.normal(30, 50);
    bench.trip();
    bench.now += 5 * SECOND;
    let probe = bench.probe();
    bench.breaker.report(probe, Sample::Well, bench.now);
    bench.now += SECOND;
    let mut opened = None;
    while opened.is_none() {
        bench.now += SECOND / 5;
        opened = bench.call(Sample::Ill);
    }
    assert!(matches!(bench.ask(), Pass::Shut(wait) if wait == 10 * SECOND), "longer than before");
}

proptest! {
    /// Whatever happens, at most one probe is out, a closed breaker lets pass, and one that opened lets nothing pass before
    /// its time.
    #[test]
    fn nothing_passes_before_its_time(steps in prop::collection::vec((0u64..4_000, 0u8..4, 0usize..8), 1..300)) {
        let mut bench = Bench::new();
        let mut held: Vec<Ticket> = Vec::new();
        let mut shut_until = bench.now;
        for (pause, what, which) in steps {
            bench.now += Duration::from_millis(pause);
            let sample = [Sample::Well, Sample::Ill, Sample::Ill, Sample::Nothing][usize::from(what)];
            let state = bench.state();
            match bench.ask() {
                Pass::Go(ticket) => {
                    prop_assert_ne!(state, BreakerState::Open);
                    held.push(ticket);
                }
                Pass::Probe(ticket) => {
                    prop_assert_eq!(state, BreakerState::Open);
                    prop_assert!(bench.now >= shut_until);
                    held.push(ticket);
                }
                Pass::Shut(_) => prop_assert_ne!(state, BreakerState::Closed),
            }
            for _ in 0..which {
                let Some(ticket) = held.pop() else { break };
                if bench.breaker.report(ticket, sample, bench.now) == Some(BreakerState::Open) && sample == Sample::Ill {
                    shut_until = bench.now + 5 * SECOND;
                }
            }
        }
    }
}
