//! The ledger against a naive model: a list of everything that was sent, with its time.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use super::*;

const DAY: Duration = Duration::from_hours(24);
const CEILING: u64 = 300;

#[derive(Debug, Clone)]
enum Op {
    Reserve {
        caller: u16,
        class: Class,
        cost: u32,
    },
    Spend(usize),
    Drop(usize),
    Answered {
        which: usize,
        charged: u32,
    },
    Unsent(usize),
    Wait(Duration),
    Tick,
    /// Part of a sweep, as the background does it between calls.
    Sweep(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let class = prop::sample::select(Class::ALL.to_vec());
    let wait = prop_oneof![
        4 => 0u64..90,
        2 => 90u64..7_200,
        1 => 80_000u64..90_000,
        1 => 0u64..400_000,
    ];
    prop_oneof![
        8 => (0u16..4, class, prop_oneof![4 => Just(1u32), 1 => 0u32..40])
            .prop_map(|(caller, class, cost)| Op::Reserve { caller, class, cost }),
        7 => any::<usize>().prop_map(Op::Spend),
        1 => any::<usize>().prop_map(Op::Drop),
        1 => (any::<usize>(), 0u32..3).prop_map(|(which, charged)| Op::Answered { which, charged }),
        1 => any::<usize>().prop_map(Op::Unsent),
        1 => wait.prop_map(|seconds| Op::Wait(Duration::from_millis(seconds * 1_000 + 137))),
        1 => Just(Op::Tick),
        2 => (1usize..4).prop_map(Op::Sweep),
    ]
}

struct Sent {
    at: Duration,
    caller: u16,
    calls: u32,
}

/// The ledger and the model, side by side.
struct World {
    stage: Stage,
    shares: Vec<Share>,
    sent: Vec<Sent>,
    reserved: Vec<(u16, u32, Reservation)>,
    /// Which of `sent` it is.
    spent: Vec<(usize, Spent)>,
}

impl World {
    fn new(settings: OrgSettings) -> Self {
        let shares = vec![
            share("floor", 80, None),
            share("both", 60, Some(100)),
            share("ceiling", 0, Some(90)),
            Share { weight: 3, ..share("borrower", 0, None) },
        ];
        let stage = Stage::new(settings, &shares);
        Self { stage, shares, sent: Vec::new(), reserved: Vec::new(), spent: Vec::new() }
    }

    fn used(&self, caller: Option<u16>, window: Duration) -> u64 {
        let counts =
            |sent: &&Sent| sent.at + window > self.stage.elapsed && caller.is_none_or(|caller| caller == sent.caller);
        self.sent.iter().filter(counts).map(|sent| u64::from(sent.calls)).sum()
    }

    fn reserved(&self, caller: Option<u16>) -> u64 {
        let counts = |(whose, _, _): &&(u16, u32, Reservation)| caller.is_none_or(|caller| caller == *whose);
        self.reserved.iter().filter(counts).map(|(_, cost, _)| u64::from(*cost)).sum()
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Reserve { caller, class, cost } => self.reserve(caller, class, cost),
            Op::Spend(which) if !self.reserved.is_empty() => {
                let (caller, calls, reservation) = self.reserved.swap_remove(which % self.reserved.len());
                let spent = reservation.spend(self.stage.now()).unwrap();
                self.spent.push((self.sent.len(), spent));
                self.sent.push(Sent { at: self.stage.elapsed, caller, calls });
            }
            Op::Drop(which) if !self.reserved.is_empty() => {
                drop(self.reserved.swap_remove(which % self.reserved.len()));
            }
            Op::Answered { which, charged } if !self.spent.is_empty() => {
                let (index, spent) = self.spent.swap_remove(which % self.spent.len());
                self.sent[index].calls = self.sent[index].calls.min(charged);
                spent.answered(ApiCalls(charged), self.stage.now());
            }
            Op::Unsent(which) if !self.spent.is_empty() => {
                let (index, spent) = self.spent.swap_remove(which % self.spent.len());
                self.sent[index].calls = 0;
                spent.unsent(self.stage.now());
            }
            Op::Wait(time) => self.stage.wait(time),
            Op::Tick => self.stage.ledger.tick(self.stage.now()),
            Op::Sweep(accounts) => {
                self.stage.ledger.with(self.stage.now(), |book| book.sweep(accounts));
            }
            Op::Spend(_) | Op::Drop(_) | Op::Answered { .. } | Op::Unsent(_) => {}
        }
        self.check();
    }

    fn reserve(&mut self, caller: u16, class: Class, cost: u32) {
        // The window may be a minute longer than 24 h, never shorter.
        let load = self.used(Some(caller), DAY + Duration::from_mins(1)) + self.reserved(Some(caller));
        match self.stage.reserve(caller, class, cost) {
            Ok(reservation) => self.reserved.push((caller, cost, reservation)),
            Err(denied) => {
                let floor = self.shares[usize::from(caller)].floor;
                assert!(load + u64::from(cost) > floor, "caller {caller} at {load} below its floor: {denied:?}");
            }
        }
    }

    fn check(&self) {
        let all = self.used(None, DAY) + self.reserved(None);
        assert!(all <= CEILING, "{all} calls in 24 h");
        for (caller, share) in self.shares.iter().enumerate() {
            if let Some(ceiling) = share.ceiling {
                let load = self.used(Some(caller as u16), DAY) + self.reserved(Some(caller as u16));
                assert!(load <= ceiling, "caller {caller}: {load} calls in 24 h");
            }
        }
    }

    /// After a full sweep the books say exactly what the model says, to the minute.
    fn balance(&self) {
        let org = self.stage.org();
        let at_least = self.used(None, DAY);
        let at_most = self.used(None, DAY + Duration::from_mins(1));
        assert!((at_least..=at_most).contains(&org.own), "{} not in {at_least}..={at_most}", org.own);
        assert_eq!(org.reserved, self.reserved(None));
        let callers = self.stage.ledger.callers(self.stage.now());
        assert_eq!(callers.iter().map(|caller| caller.used).sum::<u64>(), org.own);
        assert_eq!(callers.iter().map(|caller| caller.held).sum::<u64>(), org.held);
        assert_eq!(org.forecast.returning_24h, org.own);
        let schedule = self.stage.ledger.schedule(self.stage.now());
        assert_eq!(schedule.iter().map(|back| back.calls).sum::<u64>(), org.own);
    }

    fn end(mut self) {
        self.balance();
        // Refunds create no calls: with every reservation given back and a day gone by, exactly the ceiling is free.
        self.reserved.clear();
        self.stage.wait(DAY + Duration::from_mins(1));
        let org = self.stage.org();
        assert_eq!((org.own, org.reserved), (0, 0));
        assert_eq!(org.headroom, Some(CEILING));
        assert_eq!(org.held, self.shares.iter().map(|share| share.floor).sum::<u64>());
    }
}

fn no_ladder(settings: OrgSettings) -> OrgSettings {
    let off = PerMille::new(1_000);
    OrgSettings {
        ladder: Ladder { lean: off, pace_batch: off, stop_batch: off, stop_standard: off, back_below: off },
        ..settings
    }
}

proptest! {
    #[test]
    fn never_past_a_ceiling_never_below_a_floor(
        ops in prop::collection::vec(op(), 1..400),
        ladder in any::<bool>(),
    ) {
        let settings = if ladder { assumed(CEILING) } else { no_ladder(assumed(CEILING)) };
        let mut world = World::new(settings);
        for op in ops {
            world.apply(&op);
        }
        world.end();
    }
}

/// Long lives, in which the ring turns many times: 6,000 operations each, `PROPTEST_CASES` / 32 of them.
#[test]
fn long_lives_keep_every_promise() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let op = op();
    for life in 0..ProptestConfig::default().cases.div_ceil(32) {
        let settings = if life % 2 == 0 { assumed(CEILING) } else { no_ladder(assumed(CEILING)) };
        let mut world = World::new(settings);
        for step in 0..6_000 {
            let op = op.new_tree(&mut runner).unwrap().current();
            world.apply(&op);
            // The model forgets what neither it nor the ledger can count any more.
            if step % 500 == 0 {
                world.balance();
                world.spent.clear();
                let elapsed = world.stage.elapsed;
                world.sent.retain(|sent| sent.at + 2 * DAY > elapsed);
            }
        }
        world.end();
    }
}

#[test]
fn ten_thousand_callers_with_a_full_day_stay_within_the_bound() {
    // One call in every minute of the day in every class: 43 million calls, more than the largest org has.
    const BOUND: usize = 96 << 20;
    let shares: Vec<Share> = (0..10_000).map(|n| Share::borrower(format!("caller {n}"))).collect();
    let mut stage = Stage::new(OrgSettings { mode: Mode::Off, ..assumed(100_000_000) }, &shares);
    // Every 64th caller is enough to know what each costs.
    for _ in 0..1_500 {
        for caller in (0..10_000).step_by(64) {
            for class in Class::ALL {
                drop(stage.spend(caller, *class, 1).unwrap());
            }
        }
        stage.minutes(1);
    }
    let callers = 10_000_usize.div_ceil(64);
    let bytes = stage.ledger.memory_bytes(stage.now());
    let empty = Stage::new(assumed(1), &shares).ledger.memory_bytes(stage.start);
    let full = empty + (bytes - empty) / callers * 10_000;
    assert!(full < BOUND, "{full} bytes");
    assert!(bytes - empty > callers * 3 * 1_441, "the day is really there");
    // A day of silence gives the memory back.
    stage.minutes(3_000);
    stage.org();
    assert!(stage.ledger.memory_bytes(stage.now()) < empty + (1 << 16));
}
