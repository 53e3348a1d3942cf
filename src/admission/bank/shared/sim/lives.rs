//! Lives of replicas, by the hundred or by the hundred thousand, and what they must come to when nothing goes wrong.

use crate::admission::{OnLoss, Share};
use crate::call::{ApiCalls, CallerId, Class};

use super::{APART, Plan, World, setting};

fn share(name: &str, floor: u64, ceiling: Option<u64>) -> Share {
    Share { name: name.into(), floor, ceiling, weight: 1 }
}

/// One life, all of it out of one number.
fn life(seed: u64) -> World {
    let mut random = fastrand::Rng::with_seed(seed);
    let ceiling = [7, 30, 100, 300, 3_000][random.usize(0..5)];
    let third = ceiling / 3;
    let shares = vec![
        share("floor", third / 2, None),
        share("both", third / 2, Some(third)),
        share("ceiling", 0, Some(third.max(1))),
        Share::borrower("borrower"),
    ];
    let readings = random.bool();
    let plan = Plan {
        ceiling,
        shares,
        replicas: random.usize(1..4),
        faults: [3, 6, 15][random.usize(0..3)],
        readings,
        dark: readings && random.bool(),
        policy: [OnLoss::Refuse, OnLoss::SpendLease, OnLoss::SafeShare, OnLoss::SafeShare][random.usize(0..4)],
        ticks: random.u32(60..260),
        tries: random.u32(1..40),
    };
    World::new(plan, seed).live()
}

fn lives(seeds: std::ops::Range<u64>) -> (u64, u64) {
    let (mut total, mut full) = (0, 0);
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| {
            let world = life(seed);
            (world.total, u64::from(world.most * 10 >= world.plan.ceiling * 9))
        });
        match outcome {
            Ok((calls, reached)) => (total, full) = (total + calls, full + reached),
            Err(why) => panic!("the life of seed {seed} broke a promise: {:?}", why.downcast_ref::<String>()),
        }
    }
    (total, full)
}

#[test]
fn whatever_happens_no_ceiling_is_passed() {
    let (calls, full) = lives(0..400);
    assert!(calls > 10_000 && full > 100, "{calls} calls, {full} lives near the ceiling: nothing was tested");
}

/// `WEIRKEEPER_LIVES` says how many, `WEIRKEEPER_SEED` from which on; `WEIRKEEPER_TRACE` prints everything that is said.
#[test]
#[ignore = "takes as long as it is told to"]
fn many_lives() {
    let number = |name: &str, otherwise| setting(name).map_or(otherwise, |text| text.parse().unwrap());
    let (first, count) = (number("WEIRKEEPER_SEED", 1_000_000), number("WEIRKEEPER_LIVES", 100_000));
    let (calls, full) = lives(first..first + count);
    println!("{count} lives from seed {first}: {calls} calls, {full} lives near the ceiling, no overshoot");
}

#[test]
fn three_replicas_use_nearly_all_of_the_ceiling() {
    for readings in [false, true] {
        let plan = Plan {
            ceiling: 3_000,
            shares: vec![Share::borrower("a"), Share::borrower("b"), Share::borrower("c")],
            replicas: 3,
            faults: 0,
            readings,
            dark: false,
            policy: OnLoss::SafeShare,
            ticks: 4 * 60,
            tries: 100,
        };
        let world = World::new(plan, 1).live();
        assert!(world.total >= 2_940, "{} calls of 3,000, readings: {readings}", world.total);
    }
}

#[test]
fn what_is_lent_to_borrowers_leaves_the_floors_of_others() {
    let plan = Plan {
        ceiling: 300,
        shares: vec![share("floor", 120, None), Share::borrower("borrower"), share("both", 60, Some(80))],
        replicas: 3,
        faults: 0,
        readings: false,
        dark: false,
        policy: OnLoss::SafeShare,
        ticks: 0,
        tries: 0,
    };
    let mut world = World::new(plan, 2);
    for _ in 0..4 * 60 {
        world.run_to(world.elapsed + APART);
        for place in 0..3 {
            for _ in 0..20 {
                let now = world.now();
                if let Ok(call) =
                    world.replicas[place].ledger.reserve(CallerId(1), Class::Interactive, ApiCalls(1), now)
                {
                    world.spend(place, 1, 1, call);
                }
            }
            world.keep(place);
        }
    }
    let borrowed = world.by_caller[1];
    assert!((80..=120).contains(&borrowed), "{borrowed} of 120 were borrowed");
    // Each floor is spent at another replica than where it was borrowed.
    for _ in 0..4 * 120 {
        world.run_to(world.elapsed + APART);
        for (caller, place) in [(0, 1), (2, 2)] {
            let now = world.now();
            if let Ok(call) = world.replicas[place].ledger.reserve(CallerId(caller), Class::Batch, ApiCalls(1), now) {
                world.spend(place, caller, 1, call);
            }
        }
        (0..3).for_each(|place| world.keep(place));
    }
    assert!(world.by_caller[0] >= 118 && world.by_caller[2] >= 60, "{:?}", world.by_caller);
}
