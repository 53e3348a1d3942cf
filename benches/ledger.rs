//! What a decision costs: reserve and spend with 10,000 callers, alone and with a second thread at it on another core.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::time::Instant;
use weirkeeper::admission::{Blind, Funding, Ledger, Mode, OrgSettings, PerMille, Reading, Share, Timeline};
use weirkeeper::call::{ApiCalls, CallerId, Class};
use weirkeeper::clock::Clock;

const CALLERS: u16 = 10_000;

/// A ledger under a limit nobody reaches, with every caller below a floor of its own.
fn ledger(clock: Clock) -> Ledger {
    let settings = OrgSettings {
        mode: Mode::Enforce,
        blind: Blind::Assume(900_000_000),
        patience: 0,
        keep_free: PerMille::percent(0),
        ..OrgSettings::default()
    };
    let share = |n| Share { floor: 1_000, ..Share::borrower(format!("caller {n}")) };
    let shares: Vec<Share> = (0..CALLERS).map(share).collect();
    let now = clock.now();
    Ledger::new(settings, &shares, Funding::Unbounded, Timeline::start(clock, now, Duration::ZERO), now)
}

/// The clock is read once for each request, by whoever takes it in, not by the ledger.
fn one_call(ledger: &Ledger, now: Instant, random: &mut fastrand::Rng) {
    let caller = CallerId(random.u16(..CALLERS));
    let class = Class::ALL[random.usize(..3)];
    let reservation = ledger.reserve(caller, class, ApiCalls(1), now).unwrap();
    drop(reservation.spend(now).unwrap());
}

/// Keeps the thread on one core, if there is such a core: two threads on one core take turns and never contend.
fn pin(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    if let Err(error) = sched_setaffinity(None, &cores) {
        eprintln!("not on core {core}: {error}");
    }
}

fn benches(criterion: &mut Criterion) {
    let clock = Clock::at(Duration::from_secs(1_760_000_000));

    let now = clock.now();
    let books = ledger(clock);
    let mut random = fastrand::Rng::with_seed(1);
    criterion.bench_function("reserve_and_spend/alone", |bench| bench.iter(|| one_call(&books, now, &mut random)));

    // Each has a handle of its own, as the gateway's threads have.
    let books = ledger(clock);
    let others = books.apart();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(1);
            let mut random = fastrand::Rng::with_seed(2);
            while !stop.load(Ordering::Relaxed) {
                one_call(&others, now, &mut random);
            }
        });
        pin(0);
        let mut random = fastrand::Rng::with_seed(3);
        criterion
            .bench_function("reserve_and_spend/two_threads", |bench| bench.iter(|| one_call(&books, now, &mut random)));
        stop.store(true, Ordering::Relaxed);
    });

    let books = ledger(clock);
    criterion.bench_function("reserve_and_give_back", |bench| {
        bench.iter(|| drop(books.reserve(CallerId(7), Class::Standard, ApiCalls(1), now).unwrap()));
    });
    criterion.bench_function("reading", |bench| {
        bench.iter(|| books.read(Reading { used: 10, limit: 900_000_000 }, now).unwrap());
    });
    criterion.bench_function("first_minute_sweep_of_10000", |bench| {
        bench.iter_batched(|| ledger(clock), |books| books.tick(now + Duration::from_mins(1)), BatchSize::LargeInput);
    });
}

criterion_group!(ledger_benches, benches);
criterion_main!(ledger_benches);
