//! What admission to the air costs: a call that comes and ends while 10,000 others are in the air.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a bench")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use http::Method;
use tokio::time::Instant;
use weirkeeper::admission::AccountId;
use weirkeeper::admission::slots::{Ask, Entered, Presumed, QueueSettings, SlotSettings, Slots, presumed};
use weirkeeper::call::{CallerId, Class, Family};
use weirkeeper::clock::Clock;
use weirkeeper::hold::Hold;
use weirkeeper::salesforce::{Costs, fingerprint, understand};

const IN_THE_AIR: u64 = 10_000;
const KINDS: u64 = 2_000;
const WAITING: usize = 1_000;

fn ask(fingerprint: u64) -> Ask {
    Ask {
        fingerprint,
        account: AccountId::from(CallerId((fingerprint % 30) as u16)),
        weight: 1,
        caller_at_most: None,
        class: Class::Interactive,
        family: Family::Rest,
        template: "/services/data/{version}/sobjects/{object}/{id}",
        deadline: None,
    }
}

fn hold(slots: &Slots, ask: &Ask, now: Instant) -> Hold {
    match slots.enter(ask, || Presumed::Short, now) {
        Entered::Free(admitted) => admitted.hold.unwrap(),
        other => panic!("{other:?}"),
    }
}

fn benches(criterion: &mut Criterion) {
    let clock = Clock::start();
    let queue = QueueSettings { places: 2 * WAITING, ..QueueSettings::default() };
    let slots = Slots::new(SlotSettings { queue, ..SlotSettings::default() }, clock.now());
    let mut random = fastrand::Rng::with_seed(1);
    let kinds: Vec<u64> = (0..KINDS).map(|_| random.u64(..)).collect();
    let mut now = clock.now();
    for kind in &kinds {
        for _ in 0..5 {
            hold(&slots, &ask(*kind), now).ended(now + Duration::from_millis(100));
        }
    }
    let flying: Vec<Hold> = (0..IN_THE_AIR).map(|n| hold(&slots, &ask(kinds[(n % KINDS) as usize]), now)).collect();
    let mut next = 0;
    criterion.bench_function("slots/admit_and_end_with_10000_in_the_air", |bench| {
        bench.iter(|| {
            next = (next + 1) % kinds.len();
            // Slow enough that nobody grows old meanwhile.
            now += Duration::from_nanos(1);
            hold(&slots, &ask(kinds[next]), now).ended(now);
        });
    });
    // The same while a thousand batch calls of a hundred callers wait for slots: none of them is looked at for its sake.
    let batch =
        |n: u64| Ask { account: AccountId::from(CallerId(100 + (n % 100) as u16)), class: Class::Batch, ..ask(n) };
    let (mut held, mut waiting) = (Vec::new(), Vec::new());
    let mut n = 0;
    while waiting.len() < WAITING {
        n += 1;
        match slots.enter(&batch(n), || Presumed::Long, now) {
            Entered::Free(admitted) => held.push(admitted.hold.unwrap()),
            Entered::Waits(ticket) => waiting.push(ticket),
            Entered::Busy(..) => panic!("{n} find room"),
        }
    }
    criterion.bench_function("slots/admit_and_end_with_1000_waiting", |bench| {
        bench.iter(|| {
            next = (next + 1) % kinds.len();
            now += Duration::from_nanos(1);
            hold(&slots, &ask(kinds[next]), now).ended(now);
        });
    });
    drop((flying, waiting, held));

    let costs = Costs::default();
    for (name, path) in [
        ("record", "/services/data/v62.0/sobjects/Account/001000000000001AAA"),
        (
            "query",
            "/services/data/v62.0/query?q=SELECT+Id,Name,Owner.Name+FROM+Account+WHERE+Name='Acme'+AND+Id+IN+('a','b')+LIMIT+200",
        ),
    ] {
        let meaning = understand(&Method::GET, path, &costs);
        criterion.bench_function(&format!("slots/fingerprint_of_a_{name}"), |bench| {
            bench.iter(|| fingerprint(black_box(&meaning), black_box(path), slots.key()));
        });
        criterion.bench_function(&format!("slots/presume_a_{name}"), |bench| {
            bench.iter(|| presumed(Class::Batch, black_box(&meaning)));
        });
    }
}

criterion_group!(slots_benches, benches);
criterion_main!(slots_benches);
