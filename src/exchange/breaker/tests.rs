//! Tests of the breaker: its states in order, and a model that counts what passes.

use proptest::prelude::*;

use super::state::{PAUSE, PROBE};
use super::*;
use crate::clock::Clock;

const SECOND: Duration = Duration::from_secs(1);

const SETTINGS: BreakerSettings = BreakerSettings {
    window: Duration::from_secs(10),
    minimum: 20,
    ratio: 50,
    open: Duration::from_secs(5),
    open_max: Duration::from_mins(1),
    ramp: Duration::from_secs(30),
};

struct Bench {
    breaker: Breaker,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let now = Clock::start().now();
        Self { breaker: Breaker::new(SETTINGS, now), now }
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
        self.breaker.report(self.go(), sample, || self.now)
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
        self.breaker.view(self.now).state
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
fn it_opens_soon_where_every_call_fails_and_later_where_some_go_well() {
    let fails = |well_in: u32| {
        let mut bench = Bench::new();
        bench.normal(10, 100);
        let mut failed = 0;
        for call in 1.. {
            let sample = if well_in > 0 && call % well_in == 0 { Sample::Well } else { Sample::Ill };
            failed += u32::from(sample == Sample::Ill);
            if bench.call(sample).is_some() {
                break;
            }
            bench.now += SECOND / 100;
        }
        failed
    };
    let (all, most) = (fails(0), fails(10));
    assert!((240..=260).contains(&all), "after a quarter of the window: {all}");
    assert!((450..=650).contains(&most), "half of the window's calls: {most}");
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
        bench.now += (open - 1) * SECOND;
        assert!(matches!(bench.ask(), Pass::Shut(_)));
        bench.now += SECOND;
        let ticket = bench.probe();
        assert!(matches!(bench.ask(), Pass::Shut(_)), "only one");
        assert_eq!(bench.breaker.probed(ticket, false, bench.now), None, "it is as open as before");
        assert_eq!((bench.state(), bench.breaker.view(bench.now).opened), (BreakerState::Open, 1));
    }
    bench.now += 60 * SECOND;
    let ticket = bench.probe();
    assert_eq!(bench.breaker.probed(ticket, true, bench.now), None);
    assert_eq!(bench.state(), BreakerState::HalfOpen);
    assert_eq!(bench.breaker.report(ticket, Sample::Ill, || bench.now), None);
    assert_eq!(bench.state(), BreakerState::Open, "the real one decides");
}

#[test]
fn a_probe_that_is_never_heard_of_does_not_keep_it_shut() {
    let mut bench = Bench::new();
    bench.trip();
    bench.now += 5 * SECOND;
    let slow = bench.probe();
    bench.now += PROBE / 2;
    assert!(matches!(bench.ask(), Pass::Shut(_)));
    bench.now += PROBE / 2;
    let ticket = bench.probe();
    assert_eq!(bench.breaker.report(ticket, Sample::Nothing, || bench.now), None);
    assert!(matches!(bench.ask(), Pass::Shut(_)), "not one after the other");
    bench.now += PAUSE;
    bench.probe();
    assert_eq!(bench.breaker.report(slow, Sample::Well, || bench.now), Some(BreakerState::HalfOpen), "at last");
}

#[test]
fn a_ticket_is_void_once_it_has_opened() {
    let mut bench = Bench::new();
    let waiting = bench.go();
    let is_good = |bench: &Bench, ticket| bench.breaker.is_good(ticket, Class::Interactive, bench.now);
    assert!(is_good(&bench, waiting));
    bench.trip();
    assert!(!is_good(&bench, waiting));
    bench.now += 5 * SECOND;
    assert!(!is_good(&bench, waiting), "who has waited does not find out");
    let probe = bench.probe();
    assert!(is_good(&bench, probe) && !is_good(&bench, waiting));
    assert_eq!(bench.breaker.report(waiting, Sample::Well, || bench.now), None, "it says nothing of today");
    assert_eq!(bench.breaker.report(probe, Sample::Well, || bench.now), Some(BreakerState::HalfOpen));
    assert!(is_good(&bench, waiting), "its turn has come");
    assert!(!is_good(&bench, waiting), "and not that of all others");
    bench.breaker.close(bench.now);
    assert!((0..100).all(|_| is_good(&bench, waiting)));
}

#[test]
fn what_an_operator_holds_open_stays_open_for_as_long_as_was_said() {
    let mut bench = Bench::new();
    let waiting = bench.go();
    assert_eq!(bench.breaker.hold(None, bench.now), Some(BreakerState::Open));
    assert_eq!(bench.breaker.hold(None, bench.now), None, "no news");
    assert!(!bench.breaker.is_good(waiting, Class::Interactive, bench.now));
    bench.breaker.report(waiting, Sample::Well, || bench.now);
    bench.now += Duration::from_hours(24);
    assert!(matches!(bench.ask(), Pass::Shut(_)));
    let view = bench.breaker.view(bench.now);
    assert_eq!((view.state, view.by_hand, view.finds_out_in), (BreakerState::Open, true, None));
    assert_eq!(bench.breaker.close(bench.now), Some(BreakerState::Closed));
    assert_eq!(bench.breaker.close(bench.now), None, "no news");
    bench.go();
    bench.breaker.hold(Some(60 * SECOND), bench.now);
    bench.now += 59 * SECOND;
    assert!(matches!(bench.ask(), Pass::Shut(wait) if wait == SECOND));
    bench.now += SECOND;
    let probe = bench.probe();
    bench.breaker.report(probe, Sample::Ill, || bench.now);
    assert!(matches!(bench.ask(), Pass::Shut(wait) if wait == 5 * SECOND), "from now on like any other");
    assert!(!bench.breaker.is_held());
}

#[test]
fn other_settings_change_nothing_about_what_is_open() {
    let mut bench = Bench::new();
    bench.trip();
    let settings = BreakerSettings { open: SECOND, window: 2 * SECOND, minimum: 3, ..SETTINGS };
    bench.breaker.reconfigure(settings);
    bench.now += 4 * SECOND;
    assert!(matches!(bench.ask(), Pass::Shut(_)));
    bench.breaker.close(bench.now);
    let opened: Vec<_> = (0..3).map(|_| bench.call(Sample::Ill)).collect();
    assert_eq!(opened, [None, None, Some(BreakerState::Open)]);
}

#[test]
fn where_nobody_knows_what_is_usual_more_and_more_pass() {
    let mut bench = Bench::new();
    bench.trip();
    bench.now += 5 * SECOND;
    let probe = bench.probe();
    bench.breaker.report(probe, Sample::Well, || bench.now);
    let mut per_second = Vec::new();
    for _ in 0..30 {
        let mut passed = 0;
        for _ in 0..200 {
            passed += u32::from(matches!(bench.ask(), Pass::Go(_)));
            bench.now += SECOND / 200;
        }
        per_second.push(passed);
    }
    assert!(per_second[0] <= 3 && per_second[29] >= 50, "{per_second:?}");
    assert!(per_second.windows(2).all(|pair| pair[1] <= 2 * pair[0] + 2), "{per_second:?}");
}

#[test]
fn it_is_loaded_slowly_and_urgent_calls_go_first() {
    let mut bench = Bench::new();
    bench.normal(120, 50);
    bench.trip();
    bench.now += 5 * SECOND;
    let probe = bench.probe();
    bench.breaker.report(probe, Sample::Well, || bench.now);
    let began = bench.now;
    let mut per_second = Vec::new();
    // Everybody wants twice of what is usual, and goes on wanting it.
    while bench.now < began + 40 * SECOND {
        let mut passed = 0;
        for _ in 0..100 {
            if let Pass::Go(ticket) = bench.ask() {
                passed += 1;
                bench.breaker.report(ticket, Sample::Well, || bench.now);
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
            bench.breaker.report(ticket, Sample::Well, || bench.now);
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
    bench.breaker.report(probe, Sample::Well, || bench.now);
    bench.now += SECOND;
    let mut opened = None;
    while opened.is_none() {
        bench.now += SECOND / 5;
        opened = bench.call(Sample::Ill);
    }
    assert!(matches!(bench.ask(), Pass::Shut(wait) if wait == 10 * SECOND), "longer than before");
}

proptest! {
    /// Whatever happens, a closed breaker lets pass, and one that opened lets nothing pass before
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
                    prop_assert_ne!(state, BreakerState::Closed);
                    prop_assert!(bench.now >= shut_until);
                    held.push(ticket);
                }
                Pass::Shut(_) => prop_assert_ne!(state, BreakerState::Closed),
            }
            for _ in 0..which {
                let Some(ticket) = held.pop() else { break };
                if bench.breaker.report(ticket, sample, || bench.now) == Some(BreakerState::Open) && sample == Sample::Ill {
                    shut_until = bench.now + 5 * SECOND;
                }
            }
        }
    }
}
