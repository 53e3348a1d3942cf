//! Replicas, a store and Salesforce in one random world: whatever is lost, late or dead, Salesforce never works on more long
//! calls than there are slots; and where nothing goes wrong, the slots are used.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::*;
use crate::admission::slots::share::Part;
use crate::clock::Clock;

/// Everything happens sooner, so that more happens.
const TERMS: Terms = Terms { fresh: 4_000, lease: 15_000, longest: 60_000, slack: 3_000, settle: 6_000 };
const TIMEOUT: Millis = 1_000;
const BEAT: Millis = 1_000;

/// What happens, to which replica in which of its lives.
#[derive(Debug, Clone)]
enum Event {
    Beat(usize),
    Asked { replica: usize, exchange: u64, sent: Millis, swap: Option<Box<(Offer, u64, u64)>> },
    Answered { replica: usize, exchange: u64, sent: Millis, answer: Box<Answer> },
    TimedOut { replica: usize, exchange: u64 },
    Works(usize),
    Disturbance,
}

#[derive(Debug, Clone)]
struct Answer {
    done: Option<Offer>,
    value: Option<Vec<u8>>,
    version: u64,
    run: u64,
    now: Millis,
}

#[derive(Debug)]
struct Replica {
    sharer: Sharer,
    /// What its clock is ahead.
    ahead: Millis,
    /// By class: when each call in the air began, and when it ends.
    calls: [Vec<(Millis, Millis)>; 3],
    wants: [u32; 3],
    /// How many calls it wants at most, by class.
    eager: [u32; 3],
    capacity: u32,
    exchange: u64,
    attempts: u32,
    cut_until: Millis,
    alive: bool,
    confirmed: Option<Millis>,
}

#[derive(Debug)]
struct World {
    random: fastrand::Rng,
    base: Instant,
    now: Millis,
    slots: u32,
    events: BinaryHeap<Reverse<(Millis, u64)>>,
    what: BTreeMap<u64, Event>,
    numbers: u64,
    replicas: Vec<Replica>,
    store: (Option<Vec<u8>>, u64, u64),
    earlier: Vec<(Option<Vec<u8>>, u64)>,
    store_down_until: Millis,
    /// What the store's clock is ahead.
    store_ahead: Millis,
    lossy: u8,
    /// Somebody who remembers everything, and lives until everybody has spoken.
    witness: Option<(usize, Millis)>,
    /// Since the last loss of data: who knew everybody, until one of them has spoken.
    knowing: Vec<usize>,
    /// None of them spoke in the time to settle, and others went on without what they knew: nothing is promised then.
    excused: bool,
    /// Calls whose replica is dead.
    orphans: Vec<Millis>,
    peak: u32,
    used: (u64, u64),
}

impl World {
    fn new(seed: u64, slots: u32, replicas: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let base = runtime.block_on(async { Clock::start().now() });
        let mut world = Self {
            random: fastrand::Rng::with_seed(seed),
            base,
            now: 1_000_000,
            slots,
            events: BinaryHeap::new(),
            what: BTreeMap::new(),
            numbers: 0,
            replicas: Vec::new(),
            store: (None, 0, seed),
            earlier: Vec::new(),
            store_down_until: 0,
            store_ahead: 5_000_000,
            lossy: 0,
            witness: None,
            knowing: Vec::new(),
            excused: false,
            orphans: Vec::new(),
            peak: 0,
            used: (0, 0),
        };
        for _ in 0..replicas {
            world.born();
        }
        world
    }

    fn later(&mut self, after: Millis, event: Event) {
        self.numbers += 1;
        self.events.push(Reverse((self.now + after, self.numbers)));
        self.what.insert(self.numbers, event);
    }

    fn born(&mut self) -> usize {
        let place = self.replicas.len();
        let eager = [self.random.u32(..8), self.random.u32(..8), self.random.u32(..40)];
        self.replicas.push(Replica {
            sharer: Sharer::new(&format!("{:x}-{place}", self.random.u32(..)), TERMS),
            ahead: self.random.u64(..10_000_000),
            calls: [const { Vec::new() }; 3],
            wants: [0; 3],
            eager,
            capacity: self.slots,
            exchange: 0,
            attempts: 0,
            cut_until: 0,
            alive: true,
            confirmed: None,
        });
        let wait = self.random.u64(..BEAT);
        self.later(wait, Event::Beat(place));
        self.later(wait, Event::Works(place));
        place
    }

    /// What the clock of one replica says.
    fn clock(&self, replica: usize, at: Millis) -> Instant {
        self.base + Duration::from_millis(at + self.replicas[replica].ahead)
    }

    fn delay(&mut self) -> Millis {
        match self.random.u8(..20) {
            0 if self.lossy > 0 => self.random.u64(..6_000),
            1 => self.random.u64(..300),
            _ => self.random.u64(1..20),
        }
    }

    fn is_lost(&mut self, replica: usize) -> bool {
        self.now < self.replicas[replica].cut_until || self.random.u8(..100) < self.lossy
    }

    fn ask(&mut self, replica: usize, swap: Option<Box<(Offer, u64, u64)>>) {
        let (delay, exchange, sent) = (self.delay(), self.replicas[replica].exchange, self.now);
        if !self.is_lost(replica) {
            self.later(delay, Event::Asked { replica, exchange, sent, swap });
        }
        self.later(TIMEOUT, Event::TimedOut { replica, exchange });
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Beat(replica) => {
                if !self.replicas[replica].alive {
                    return;
                }
                self.replicas[replica].exchange += 1;
                self.replicas[replica].attempts = 0;
                self.ask(replica, None);
            }
            Event::Asked { replica, exchange, sent, swap } => {
                if self.now < self.store_down_until {
                    return;
                }
                let mut done = None;
                if let Some(swap) = swap {
                    let (offer, version, run) = *swap;
                    if (version, run) == (self.store.1, self.store.2) {
                        self.earlier.push((self.store.0.clone(), self.store.1));
                        self.store = (Some(offer.value.clone()), version + 1, run);
                        self.spoke(replica, &offer.value);
                        done = Some(offer);
                    }
                }
                let (value, version, run) = self.store.clone();
                let answer = Box::new(Answer { done, value, version, run, now: self.now + self.store_ahead });
                let delay = self.delay();
                if !self.is_lost(replica) {
                    self.later(delay, Event::Answered { replica, exchange, sent, answer });
                }
            }
            Event::Answered { replica, exchange, sent, answer } => self.answered(replica, exchange, sent, *answer),
            Event::TimedOut { replica, exchange } => {
                let one = &mut self.replicas[replica];
                if one.alive && one.exchange == exchange {
                    one.sharer.failed();
                    one.exchange += 1;
                    self.later(BEAT, Event::Beat(replica));
                }
            }
            Event::Works(replica) => self.works(replica),
            Event::Disturbance => self.disturbed(),
        }
    }

    /// One who knows everybody has to be heard before the new table has settled.
    fn spoke(&mut self, replica: usize, table: &[u8]) {
        if self.knowing.contains(&replica) {
            self.knowing.clear();
        }
        let made = Table::read(table).unwrap().made();
        self.excused |= !self.knowing.is_empty() && self.now + self.store_ahead >= made + TERMS.settle;
    }

    fn answered(&mut self, replica: usize, exchange: u64, sent: Millis, answer: Answer) {
        if !self.replicas[replica].alive || self.replicas[replica].exchange != exchange {
            return;
        }
        // Whoever times out from here on times out the next question.
        self.replicas[replica].exchange += 1;
        if let Some(offer) = answer.done {
            let now = self.now;
            let one = &mut self.replicas[replica];
            one.sharer.confirm(&offer, answer.version);
            one.confirmed = Some(now);
            self.later(BEAT, Event::Beat(replica));
            return;
        }
        let (asked, now) = (self.clock(replica, sent), self.clock(replica, self.now));
        let one = &mut self.replicas[replica];
        one.attempts += 1;
        if one.attempts > 4 {
            self.later(BEAT / 4, Event::Beat(replica));
            return;
        }
        let store_now = Duration::from_millis(answer.now);
        let sight =
            Sight { value: answer.value.as_deref(), version: answer.version, now: store_now, run: answer.run, asked };
        let news = one.news();
        let offer = one.sharer.offer(&sight, &news, now).unwrap();
        self.ask(replica, Some(Box::new((offer, answer.version, answer.run))));
    }

    /// Calls end, others begin as far as they may.
    fn works(&mut self, replica: usize) {
        let (clock, now) = (self.clock(replica, self.now), self.now);
        let Replica { alive: true, sharer, calls, wants, eager, .. } = &mut self.replicas[replica] else { return };
        for calls in calls.iter_mut() {
            calls.retain(|(_, ends)| now < *ends);
        }
        let limit = sharer.limit(clock);
        for class in [0, 1, 2] {
            wants[class] = eager[class].saturating_sub(calls[class].len() as u32);
            while wants[class] > 0 {
                let uses = uses(calls);
                let fits = uses.all < limit.all
                    && (class == 0 || uses.unreserved < limit.unreserved)
                    && (class < 2 || uses.batch < limit.batch);
                if !fits {
                    break;
                }
                wants[class] -= 1;
                calls[class].push((now, now + self.random.u64(2_000..TERMS.longest)));
            }
        }
        let wait = self.random.u64(50..500);
        self.later(wait, Event::Works(replica));
        self.count();
    }

    fn count(&mut self) {
        let now = self.now;
        self.orphans.retain(|ends| now < *ends);
        let flying: usize = self
            .replicas
            .iter()
            .filter(|one| one.alive)
            .flat_map(|one| &one.calls)
            .map(|calls| calls.iter().filter(|(_, ends)| now < *ends).count())
            .sum();
        if self.excused {
            return;
        }
        self.peak = self.peak.max((flying + self.orphans.len()) as u32);
        self.used.0 += flying as u64;
        self.used.1 += 1;
    }

    fn disturbed(&mut self) {
        let replica = self.random.usize(..self.replicas.len());
        let protected = |world: &Self, replica| {
            world.witness.is_some_and(|(witness, until)| witness == replica && world.now < until)
        };
        let living = self.replicas.iter().filter(|one| one.alive).count();
        match self.random.u8(..10) {
            0 if living < 6 => {
                self.born();
            }
            1 | 2 if living > 1 && !protected(self, replica) && self.replicas[replica].alive => {
                let now = self.now;
                let one = &mut self.replicas[replica];
                one.alive = false;
                // Salesforce goes on with what it was sent, for as long as it may.
                let calls = std::mem::take(&mut one.calls).into_iter().flatten().filter(|(_, ends)| now < *ends);
                self.orphans.extend(calls.map(|(began, _)| began + TERMS.longest));
            }
            3 if !protected(self, replica) => {
                self.replicas[replica].cut_until = self.now + self.random.u64(..3 * TERMS.lease);
            }
            4 => self.store_down_until = self.now + self.random.u64(..2 * TERMS.lease),
            5 | 6 => self.lose_data(),
            7 => self.replicas[replica].capacity = self.random.u32(1..=self.slots),
            8 => {
                let eager = [self.random.u32(..8), self.random.u32(..8), self.random.u32(..40)];
                self.replicas[replica].eager = eager;
            }
            _ => self.lossy = self.random.u8(..30),
        }
        let wait = self.random.u64(500..20_000);
        self.later(wait, Event::Disturbance);
    }

    /// The store forgets everything, or its last changes, if somebody who knows everybody is there to tell.
    fn lose_data(&mut self) {
        let recent = self.now.saturating_sub(2 * BEAT);
        let knows = |one: &Replica| one.alive && one.confirmed.is_some_and(|at| at >= recent);
        let knowing: Vec<_> = (0..self.replicas.len()).filter(|one| knows(&self.replicas[*one])).collect();
        let Some(witness) = knowing.first().copied() else { return };
        let now = self.now;
        if self.witness.is_some_and(|(_, until)| now < until) {
            return;
        }
        self.witness = Some((witness, now + 60_000));
        self.knowing = knowing;
        self.replicas[witness].cut_until = 0;
        // It usually reaches the store in time, which is what the time to settle is for.
        self.lossy = self.lossy.min(5);
        self.store_down_until = self.store_down_until.min(now + 1_000);
        let back = self.random.usize(..20);
        let kept = self.earlier.len().checked_sub(back + 1).filter(|_| self.random.bool());
        self.store = match kept.and_then(|at| self.earlier.get(at).cloned()) {
            Some((value, version)) => (value, version, self.store.2 + 1),
            None => (None, 0, self.store.2 + 1),
        };
        self.earlier.clear();
        // It comes back elsewhere, where it is another time.
        self.store_ahead = self.store_ahead.saturating_add_signed(self.random.i64(-2_000..2_000));
    }

    fn run(&mut self, length: Millis) {
        let end = self.now + length;
        while let Some(Reverse((at, number))) = self.events.peek().copied()
            && at <= end
        {
            self.events.pop();
            self.now = at;
            if let Some(event) = self.what.remove(&number) {
                self.happens(event);
            }
        }
        self.now = end;
    }

    fn flying(&self, replica: usize) -> u32 {
        uses(&self.replicas[replica].calls).all
    }
}

fn uses(calls: &[Vec<(Millis, Millis)>; 3]) -> Part {
    let [interactive, standard, batch] = calls.each_ref().map(|calls| calls.len() as u32);
    Part { all: interactive + standard + batch, unreserved: standard + batch, batch }
}

impl Replica {
    fn news(&self) -> News {
        let all = self.capacity;
        let capacity = Part { all, unreserved: (all * 4 / 5).max(1), batch: (all * 3 / 5).max(1) };
        News { capacity, uses: uses(&self.calls), wants: self.wants, ..News::default() }
    }
}

/// What the environment says, for whoever looks for more.
#[expect(clippy::disallowed_methods, reason = "a test's own dials are no configuration")]
fn dial(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[test]
fn whatever_happens_there_are_never_more_long_calls_than_slots() {
    let (first, worlds, mut excused) = (dial("WEIRKEEPER_SEED", 0), dial("WEIRKEEPER_WORLDS", 120), 0);
    for seed in first..first + worlds {
        let mut random = fastrand::Rng::with_seed(seed);
        let (slots, replicas) = (random.u32(1..25), random.usize(1..6));
        let mut world = World::new(seed, slots, replicas);
        world.later(20_000, Event::Disturbance);
        for _ in 0..20 {
            world.run(20_000);
            assert!(world.peak <= slots, "seed {seed}: {} of {slots} at {}", world.peak, world.now);
            if world.excused {
                excused += 1;
                break;
            }
        }
    }
    println!("{excused} of {worlds} worlds ended early");
    assert!(excused <= 1 + worlds / 10, "{excused} of {worlds} worlds tell nothing");
}

#[test]
fn where_nothing_goes_wrong_the_slots_are_used() {
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (slots, replicas) = (random.u32(4..25), random.usize(2..6));
        let mut world = World::new(seed, slots, replicas);
        for one in &mut world.replicas {
            one.eager = [10, 10, 40];
        }
        world.run(60_000);
        world.used = (0, 0);
        world.run(300_000);
        let share = world.used.0 as f64 / world.used.1 as f64 / f64::from(slots);
        assert!(share >= 0.9, "seed {seed}: {share:.3} of {slots} slots by {replicas} replicas");
        assert_eq!(world.peak, slots, "seed {seed}");
    }
}

#[test]
fn one_that_waits_alone_gets_what_the_others_do_not_use_and_gives_it_back() {
    let mut world = World::new(7, 24, 3);
    for one in &mut world.replicas {
        one.eager = [0; 3];
    }
    world.run(30_000);
    let limits: Vec<_> = (0..3).map(|one| world.replicas[one].sharer.limit(world.clock(one, world.now)).all).collect();
    assert_eq!(limits, [2; 3], "a few for the next calls");
    world.replicas[0].eager = [40, 0, 0];
    world.run(5_000);
    assert_eq!(world.flying(0), 24);
    world.replicas[1].eager = [40, 0, 0];
    world.run(4 * TERMS.longest);
    let flying: Vec<_> = (0..3).map(|one| world.flying(one)).collect();
    assert!(flying[0].abs_diff(12) <= 1 && flying[1].abs_diff(12) <= 1, "{flying:?}");
    assert!(world.peak <= 24);
}

#[test]
fn what_a_dead_replica_had_comes_back_when_nothing_of_it_can_be_in_the_air() {
    let mut world = World::new(3, 12, 2);
    for one in &mut world.replicas {
        one.eager = [12, 0, 0];
    }
    world.run(4 * TERMS.longest);
    let had = world.flying(1);
    assert!((5..=6).contains(&had), "{had}");
    let died = world.now;
    world.replicas[1].alive = false;
    world.run(TERMS.lease + TERMS.longest - 2 * BEAT);
    assert!(world.flying(0) <= 12 - had);
    world.run(TERMS.slack + 6 * BEAT);
    assert_eq!(world.flying(0), 12, "{} ms after", world.now - died);
}

#[test]
fn without_the_store_a_grant_ends_with_its_lease() {
    let mut world = World::new(5, 12, 2);
    for one in &mut world.replicas {
        one.eager = [12, 0, 0];
    }
    world.run(60_000);
    world.store_down_until = Millis::MAX;
    world.run(TERMS.lease - 3 * BEAT);
    assert!(world.flying(0) >= 5);
    world.run(TERMS.longest + 4 * BEAT);
    assert_eq!((world.flying(0), world.flying(1)), (0, 0));
    world.store_down_until = 0;
    world.run(4 * BEAT);
    assert!(world.flying(0) >= 5 && world.flying(1) >= 5);
    assert!(world.peak <= 12);
}

/// One exchange of `sharer` with a store that holds `store`.
fn exchanged(sharer: &mut Sharer, store: &mut (Option<Vec<u8>>, u64), now: Duration, asked: Instant, news: &News) {
    let sight = Sight { value: store.0.as_deref(), version: store.1, now, run: 1, asked };
    let offer = sharer.offer(&sight, news, asked).unwrap();
    *store = (Some(offer.value.clone()), store.1 + 1);
    sharer.confirm(&offer, store.1);
}

#[tokio::test]
async fn who_ends_leaves_only_what_is_in_the_air() {
    let start = Clock::start().now();
    let (mut store, at) = ((None, 0), |seconds: u64| Duration::from_secs(1_000_000 + seconds));
    let now = |seconds: u64| start + Duration::from_secs(seconds);
    let mut one = Sharer::new("one", Terms::USUAL);
    let capacity = Part { all: 8, unreserved: 8, batch: 8 };
    let busy = News { capacity, wants: [8, 0, 0], ..News::default() };
    exchanged(&mut one, &mut store, at(0), now(0), &busy);
    assert_eq!(one.limit(now(0)).all, 0, "there may be others");
    exchanged(&mut one, &mut store, at(11), now(11), &busy);
    assert_eq!(one.limit(now(11)).all, 8);
    let flying = News { capacity, uses: Part { all: 3, unreserved: 0, batch: 0 }, ..News::default() };
    let leaves = News { leaves: Some(60_000), ..flying };
    exchanged(&mut one, &mut store, at(12), now(12), &leaves);
    assert_eq!(one.limit(now(12)).all, 0);
    let mut two = Sharer::new("two", Terms::USUAL);
    exchanged(&mut two, &mut store, at(13), now(13), &busy);
    assert_eq!((two.limit(now(13)).all, two.facts.gone), (5, 3));
    exchanged(&mut two, &mut store, at(73), now(73), &busy);
    assert_eq!((two.limit(now(73)).all, two.facts.gone), (8, 0));
    let empty = News { leaves: Some(0), ..News::default() };
    exchanged(&mut two, &mut store, at(74), now(74), &empty);
    assert!(Table::read(store.0.as_deref().unwrap()).unwrap().ids().is_empty());
}

#[tokio::test]
async fn a_refusal_of_one_narrows_all_and_overdrafts_take_from_the_others() {
    let start = Clock::start().now();
    let (mut store, at) = ((None, 0), |seconds: u64| Duration::from_secs(1_000_000 + seconds));
    let now = |seconds: u64| start + Duration::from_secs(seconds);
    let (mut one, mut two) = (Sharer::new("one", Terms::USUAL), Sharer::new("two", Terms::USUAL));
    let part = |all| Part { all, unreserved: all, batch: all };
    let wants = |all, uses| News { capacity: part(all), uses: part(uses), wants: [20, 0, 0], ..News::default() };
    for second in [0, 11, 12, 13] {
        exchanged(&mut one, &mut store, at(second), now(second), &wants(20, 0));
        exchanged(&mut two, &mut store, at(second), now(second), &wants(20, 0));
    }
    assert_eq!((one.limit(now(13)).all, two.limit(now(13)).all), (10, 10));
    // Salesforce refused a call of the first.
    exchanged(&mut one, &mut store, at(14), now(14), &wants(8, 0));
    exchanged(&mut two, &mut store, at(14), now(14), &wants(20, 0));
    exchanged(&mut one, &mut store, at(15), now(15), &wants(8, 0));
    assert_eq!((one.limit(now(15)).all, two.limit(now(15)).all), (4, 4));
    // Seven calls of the second have grown old, three of them without a slot.
    exchanged(&mut two, &mut store, at(16), now(16), &wants(20, 7));
    exchanged(&mut one, &mut store, at(16), now(16), &wants(8, 0));
    assert_eq!(one.limit(now(16)).all, 1);
    assert!(Table::read(store.0.as_deref().unwrap()).unwrap().taken() <= 8);
}

#[tokio::test]
async fn a_table_of_another_form_is_left_alone() {
    let now = Clock::start().now();
    let mut one = Sharer::new("one", Terms::USUAL);
    for value in [&b"{\"form\":2}"[..], b"", b"[]"] {
        let sight = Sight { value: Some(value), version: 3, now: Duration::from_secs(1), run: 1, asked: now };
        assert_eq!(one.offer(&sight, &News::default(), now).unwrap_err(), Unusable);
    }
}
