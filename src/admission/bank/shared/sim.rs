//! The model check: real ledgers of several replicas, the rules in a store that is not there, and everything that can go
//! wrong between them, all out of one seed.
//!
//! Replicas come, die, are paused, are cut off; requests and answers are lost, late, or come twice; clocks differ by minutes;
//! the store's clock steps; the store is away, and forgets. What is checked at every single call: the calls that were really
//! sent in the 24 hours before it are within the org's ceiling, and within the ceiling of its caller.
//!
//! Two things are left out. The store does not forget while nobody who remembers can reach it: nothing could be done about
//! that without Salesforce's own numbers. And its clock is not ahead when a replica comes and no other was heard for some
//! seconds, because then it is the only one there is.

mod lives;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::rules::{self, ALIVE_WITHIN_MS, GRACE_MINUTES, LEASE_MINUTES};
use super::state::State;
use super::teller::{Reply, Request, Step, Teller};
use crate::admission::bank::{Past, Shared, Statement};
use crate::admission::{
    Blind, Funding, Ladder, Ledger, OnLoss, OrgSettings, PerMille, Reading, Reservation, Share, Timeline,
};
use crate::call::{ApiCalls, CallerId, Class};
use crate::clock::Clock;

const DAY: Duration = Duration::from_hours(24);
const EPOCH: Duration = Duration::from_mins(29_333_334);
const TIMEOUT: Duration = Duration::from_secs(2);
const APART: Duration = Duration::from_millis(250);

fn ms(time: Duration) -> u64 {
    time.as_millis() as u64
}

/// What a life is like.
#[derive(Debug, Clone)]
struct Plan {
    ceiling: u64,
    shares: Vec<Share>,
    replicas: usize,
    /// One of so many ticks brings a fault; 0 for none.
    faults: u32,
    /// Salesforce answers each call with what is used.
    readings: bool,
    dark: bool,
    policy: OnLoss,
    ticks: u32,
    /// Calls tried in a tick at one replica.
    tries: u32,
}

struct Job {
    statement: Option<Arc<Statement>>,
    token: u64,
    sent: Duration,
}

struct Replica {
    teller: Teller,
    ledger: Ledger,
    id: Arc<str>,
    joined: bool,
    cut: bool,
    paused_until: Duration,
    job: Option<Job>,
    next: Duration,
    reserved: Vec<(u16, u32, Reservation)>,
}

#[expect(clippy::large_enum_variant, reason = "there are few at a time")]
enum Event {
    Request { from: Arc<str>, token: u64, request: Request },
    Reply { to: Arc<str>, token: u64, reply: Reply },
    Timeout { of: Arc<str>, token: u64 },
}

struct World {
    plan: Plan,
    random: fastrand::Rng,
    base: Instant,
    elapsed: Duration,
    state: State,
    /// How far the store's clock is off, in milliseconds.
    skew: i64,
    away_until: Duration,
    forget_after: Duration,
    /// Until then this replica, which remembers, is left in peace.
    shielded: Option<(Arc<str>, Duration)>,
    replicas: Vec<Replica>,
    events: Vec<(Duration, u64, Event)>,
    counter: u64,
    sent: VecDeque<(Duration, u16, u32)>,
    dark: VecDeque<(Duration, u32)>,
    by_caller: Vec<u64>,
    all: u64,
    most: u64,
    total: u64,
}

impl World {
    fn new(plan: Plan, seed: u64) -> Self {
        let base = Clock::at(EPOCH).now();
        let callers = plan.shares.len();
        let mut world = Self {
            random: fastrand::Rng::with_seed(seed),
            base,
            elapsed: Duration::ZERO,
            state: State::default(),
            skew: 0,
            away_until: Duration::ZERO,
            forget_after: Duration::ZERO,
            shielded: None,
            replicas: Vec::new(),
            events: Vec::new(),
            counter: 0,
            sent: VecDeque::new(),
            dark: VecDeque::new(),
            by_caller: vec![0; callers],
            all: 0,
            most: 0,
            total: 0,
            plan,
        };
        for _ in 0..world.plan.replicas {
            world.join();
        }
        world
    }

    fn now(&self) -> Instant {
        self.base + self.elapsed
    }

    /// What the store's own clock says.
    fn raw(&self) -> u64 {
        ms(EPOCH + self.elapsed).saturating_add_signed(self.skew)
    }

    fn number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn faulty(&self) -> bool {
        self.plan.faults > 0 && self.shielded.is_none()
    }

    fn settings(&self) -> OrgSettings {
        let off = PerMille::new(1_000);
        let ladder = Ladder { lean: off, pace_batch: off, stop_batch: off, stop_standard: off, back_below: off };
        OrgSettings {
            blind: Blind::Assume(self.plan.ceiling),
            patience: if self.plan.readings { 2 } else { 0 },
            before_reading: 20.min(self.plan.ceiling),
            keep_free: PerMille::percent(0),
            lending: None,
            ladder,
            ..OrgSettings::default()
        }
    }

    fn join(&mut self) {
        // Its own clock may be wrong by minutes.
        let skew = if self.plan.faults > 0 { self.random.u64(0..1_200) } else { 600 };
        let wall = (EPOCH + self.elapsed + Duration::from_secs(skew)).saturating_sub(Duration::from_mins(10));
        let (now, id) = (self.now(), Arc::from(format!("replica {}", self.number())));
        let timeline = Timeline::start(Clock::anchored(now, wall), now, Duration::ZERO);
        let ledger = Ledger::new(self.settings(), &self.plan.shares, Funding::Leased, timeline, now);
        let teller = Teller::new(Arc::clone(&id), self.random.u64(..));
        self.replicas.push(Replica {
            teller,
            ledger,
            id,
            joined: false,
            cut: false,
            paused_until: Duration::ZERO,
            job: None,
            next: self.elapsed,
            reserved: Vec::new(),
        });
    }

    fn after(&mut self, delay: Duration, event: Event) {
        let (at, number) = (self.elapsed + delay, self.number());
        self.events.push((at, number, event));
    }

    fn delay(&mut self) -> Duration {
        if !self.faulty() {
            return Duration::from_millis(1);
        }
        Duration::from_millis(match self.random.u32(0..100) {
            0..90 => self.random.u64(1..60),
            90..98 => self.random.u64(60..3_000),
            _ => self.random.u64(3_000..200_000),
        })
    }

    fn one_in(&mut self, many: u32) -> bool {
        self.faulty() && self.random.u32(0..many) == 0
    }

    /// Sends the next request of the replica's job.
    fn send(&mut self, place: usize) {
        let token = self.number();
        let (elapsed, replica) = (self.elapsed, &mut self.replicas[place]);
        let Some(job) = &mut replica.job else { return };
        (job.token, job.sent) = (token, elapsed);
        let request = replica.teller.request(job.statement.as_deref(), false, elapsed);
        let (from, cut) = (Arc::clone(&replica.id), replica.cut);
        self.after(TIMEOUT, Event::Timeout { of: Arc::clone(&from), token });
        if cut || self.one_in(30) {
            return;
        }
        if self.one_in(20) {
            let delay = self.delay() + self.delay();
            self.after(delay, Event::Request { from: Arc::clone(&from), token: 0, request: request.clone() });
        }
        let delay = self.delay();
        self.after(delay, Event::Request { from, token, request });
    }

    fn trace(&self, text: &str) {
        if setting("WEIRKEEPER_TRACE").is_some() {
            println!("{:>10.3} {text}", self.elapsed.as_secs_f64());
        }
    }

    fn serve(&mut self, from: &Arc<str>, token: u64, request: &Request) {
        if self.elapsed < self.away_until {
            return;
        }
        let mut time = self.raw();
        let alone = |state: &State| state.members.values().all(|member| time >= member.heard_raw + ALIVE_WITHIN_MS);
        if matches!(request, Request::Open(_)) && alone(&self.state) {
            time = time.min(ms(EPOCH + self.elapsed));
        }
        let state = &mut self.state;
        let reply = match request {
            Request::Open(fresh) => Reply::Told(rules::open(state, time, from, *fresh)),
            Request::Settle(tell) => Reply::Told(rules::settle(state, time, tell)),
            Request::Close(tell) => Reply::Told(rules::close(state, time, tell)),
            Request::Remember(memory) => Reply::Remembered(rules::remember(state, time, memory)),
        };
        self.books_agree();
        self.trace(&format!(
            "{from} asks {request:?}\n    is told {reply:?}\n    sum {} committed {} hold {:?}",
            self.state.sum,
            self.state.committed(),
            self.state.hold
        ));
        if token > 0 && !self.one_in(30) {
            let delay = self.delay();
            self.after(delay, Event::Reply { to: Arc::clone(from), token, reply });
        }
    }

    fn books_agree(&self) {
        let state = &self.state;
        debug_assert_eq!(state.sum, state.cells.values().map(|cell| cell.calls).sum::<u64>());
        debug_assert_eq!(state.sum, state.callers.values().sum::<u64>());
        debug_assert_eq!(state.cells.len(), state.changed.len());
    }

    fn place(&self, id: &Arc<str>) -> Option<usize> {
        self.replicas.iter().position(|replica| replica.id == *id)
    }

    fn hear(&mut self, to: &Arc<str>, token: u64, reply: Reply) {
        let Some(place) = self.place(to) else { return };
        let (elapsed, now) = (self.elapsed, self.now());
        let replica = &mut self.replicas[place];
        let Some(job) = replica.job.as_ref().filter(|job| job.token == token) else { return };
        if replica.cut || elapsed < replica.paused_until {
            return;
        }
        match replica.teller.hear(reply, job.statement.as_deref(), job.sent, elapsed) {
            Step::Again => self.send(place),
            Step::Full => self.give_up(place),
            Step::Done(lease) => {
                if let Some(statement) = &job.statement {
                    replica.ledger.settled(statement, &lease, now);
                } else {
                    let Shared { now: time, entries, paused, .. } = *lease.shared.unwrap_or_default();
                    let paused = paused.unwrap_or_default();
                    replica.ledger.join(&Past { now: time, entries, paused, shared: true, ..Past::default() }, now);
                    replica.joined = true;
                }
                (replica.job, replica.next) = (None, elapsed + APART);
            }
        }
    }

    fn give_up(&mut self, place: usize) {
        let (now, policy) = (self.now(), self.plan.policy);
        let replica = &mut self.replicas[place];
        let Some(job) = replica.job.take() else { return };
        replica.teller.lost();
        if let Some(statement) = &job.statement {
            replica.ledger.unsettled(statement, policy, now);
        }
        replica.next = self.elapsed + APART;
    }

    /// Lets everything happen that happens until `end`.
    fn run_to(&mut self, end: Duration) {
        loop {
            let next = (0..self.events.len()).min_by_key(|place| (self.events[*place].0, self.events[*place].1));
            let Some(place) = next.filter(|place| self.events[*place].0 <= end) else { break };
            let (at, _, event) = self.events.swap_remove(place);
            self.elapsed = self.elapsed.max(at);
            match event {
                Event::Request { from, token, request } => self.serve(&from, token, &request),
                Event::Reply { to, token, reply } => self.hear(&to, token, reply),
                Event::Timeout { of, token } => {
                    if let Some(place) = self.place(&of)
                        && self.replicas[place].job.as_ref().is_some_and(|job| job.token == token)
                    {
                        self.give_up(place);
                    }
                }
            }
        }
        self.elapsed = end;
    }

    fn keep(&mut self, place: usize) {
        let (now, elapsed) = (self.now(), self.elapsed);
        let replica = &mut self.replicas[place];
        if replica.job.is_some() || elapsed < replica.next || elapsed < replica.paused_until {
            return;
        }
        replica.ledger.tick(now);
        let statement = if replica.joined { replica.ledger.statement(now).map(Arc::new) } else { None };
        if replica.joined && statement.is_none() {
            return;
        }
        replica.job = Some(Job { statement, token: 0, sent: elapsed });
        self.send(place);
    }

    fn reading(&mut self) -> Reading {
        let since = self.elapsed.saturating_sub(DAY);
        while self.dark.front().is_some_and(|(at, _)| *at < since) {
            self.dark.pop_front();
        }
        self.forget_sent();
        let dark: u64 = self.dark.iter().map(|(_, calls)| u64::from(*calls)).sum();
        Reading { used: self.all + dark, limit: self.plan.ceiling }
    }

    fn forget_sent(&mut self) {
        while let Some((at, caller, calls)) = self.sent.front().copied().filter(|sent| sent.0 + DAY <= self.elapsed) {
            debug_assert!(at <= self.elapsed);
            self.sent.pop_front();
            self.all -= u64::from(calls);
            self.by_caller[usize::from(caller)] -= u64::from(calls);
        }
    }

    fn spend(&mut self, place: usize, caller: u16, calls: u32, reservation: Reservation) {
        let now = self.now();
        let Ok(spent) = reservation.spend(now) else { return };
        self.trace(&format!("{} sends {calls} of {caller}", self.replicas[place].id));
        self.sent.push_back((self.elapsed, caller, calls));
        self.all += u64::from(calls);
        self.total += u64::from(calls);
        self.by_caller[usize::from(caller)] += u64::from(calls);
        self.forget_sent();
        self.most = self.most.max(self.all);
        assert!(self.all <= self.plan.ceiling, "{} calls in 24 h at {:?}", self.all, self.elapsed);
        if let Some(ceiling) = self.plan.shares[usize::from(caller)].ceiling {
            let used = self.by_caller[usize::from(caller)];
            assert!(used <= ceiling, "{used} calls of caller {caller} in 24 h at {:?}", self.elapsed);
        }
        spent.answered(ApiCalls(calls), now);
        if self.plan.readings {
            let reading = self.reading();
            let _ = self.replicas[place].ledger.read(reading, now);
        }
    }

    fn traffic(&mut self, place: usize) {
        if self.elapsed < self.replicas[place].paused_until {
            return;
        }
        // What was reserved a while ago is sent now, or never.
        while self.replicas[place].reserved.len() > 3 {
            let which = self.random.usize(0..self.replicas[place].reserved.len());
            let (caller, calls, reservation) = self.replicas[place].reserved.swap_remove(which);
            if self.random.u32(0..4) > 0 {
                self.spend(place, caller, calls, reservation);
            }
        }
        let tries = self.random.u32(0..=self.plan.tries);
        for _ in 0..tries {
            let caller = self.random.u16(0..self.plan.shares.len() as u16);
            let calls = if self.plan.faults > 0 && self.random.u32(0..8) == 0 { self.random.u32(2..6) } else { 1 };
            let now = self.now();
            let Ok(reservation) =
                self.replicas[place].ledger.reserve(CallerId(caller), Class::Interactive, ApiCalls(calls), now)
            else {
                continue;
            };
            if self.one_in(10) {
                self.replicas[place].reserved.push((caller, calls, reservation));
            } else {
                self.spend(place, caller, calls, reservation);
            }
        }
    }

    fn fault(&mut self) {
        let before = self.fingerprint();
        self.strike();
        if before != self.fingerprint() {
            self.trace(&format!("FAULT {before}\n    -> {}", self.fingerprint()));
        }
    }

    /// What a fault may change.
    fn fingerprint(&self) -> String {
        let replicas =
            self.replicas.iter().map(|replica| format!("{} {} {:?}", replica.id, replica.cut, replica.paused_until));
        let replicas: Vec<_> = replicas.collect();
        format!("{replicas:?} epoch {} away {:?} skew {}", self.state.epoch, self.away_until, self.skew)
    }

    fn strike(&mut self) {
        let some = |world: &mut Self| match world.replicas.len() {
            0 => None,
            many => Some(world.random.usize(0..many)),
        };
        match self.random.u32(0..20) {
            0..3 => {
                if let Some(place) = some(self) {
                    drop(self.replicas.swap_remove(place));
                }
            }
            3..6 if self.replicas.len() < 5 => self.join(),
            6..9 => {
                if let Some(place) = some(self) {
                    self.replicas[place].cut ^= true;
                }
            }
            9..12 => self.replicas.iter_mut().for_each(|replica| replica.cut = false),
            12 => {
                if let Some(place) = some(self) {
                    let time = Duration::from_millis(1 << self.random.u32(8..23));
                    self.replicas[place].paused_until = self.elapsed + time;
                }
            }
            13 => self.skew = self.random.i64(-900_000..900_000),
            14..16 => self.away_until = self.elapsed + Duration::from_millis(1 << self.random.u32(8..23)),
            16 => {
                if let Some(place) = some(self) {
                    self.leave(place);
                }
            }
            17 if self.plan.dark => {
                let calls = self.random.u32(1..20);
                self.dark.push_back((self.elapsed, calls));
            }
            _ => self.forget(),
        }
    }

    /// A replica stops cleanly, if it can.
    fn leave(&mut self, place: usize) {
        let mut replica = self.replicas.swap_remove(place);
        let now = self.now();
        replica.reserved.clear();
        if let Some(statement) = replica.job.take().and_then(|job| job.statement) {
            replica.ledger.unsettled(&statement, self.plan.policy, now);
        }
        replica.ledger.stop(now);
        replica.teller.lost();
        if !replica.joined || replica.cut || self.elapsed < self.away_until {
            return;
        }
        let Some(statement) = replica.ledger.statement(now) else { return };
        for _ in 0..20 {
            let request = replica.teller.request(Some(&statement), true, self.elapsed);
            let time = self.raw();
            let reply = match &request {
                Request::Close(tell) => Reply::Told(rules::close(&mut self.state, time, tell)),
                Request::Settle(tell) => Reply::Told(rules::settle(&mut self.state, time, tell)),
                _ => return,
            };
            match replica.teller.hear(reply, Some(&statement), self.elapsed, self.elapsed) {
                Step::Again => {}
                _ => return,
            }
        }
    }

    /// The store forgets everything, and somebody who remembers is there to say so.
    fn forget(&mut self) {
        let (elapsed, epoch) = (self.elapsed, self.state.epoch);
        if elapsed < self.forget_after || elapsed < self.away_until {
            return;
        }
        let ready = |replica: &&Replica| {
            let there = replica.joined && !replica.cut && elapsed >= replica.paused_until;
            there && replica.teller.epoch() == epoch && replica.teller.remembers(elapsed + Duration::from_mins(5))
        };
        let Some(id) = self.replicas.iter().find(ready).map(|replica| Arc::clone(&replica.id)) else { return };
        self.state = State::default();
        self.shielded = Some((id, elapsed + Duration::from_secs(30)));
        self.forget_after = elapsed + Duration::from_mins(u64::from(LEASE_MINUTES + GRACE_MINUTES + 2));
    }

    fn tick(&mut self) {
        let step = match self.random.u32(0..100) {
            _ if self.plan.faults == 0 || self.shielded.is_some() => 250,
            0..70 => self.random.u64(100..1_500),
            70..92 => self.random.u64(1_000..20_000),
            92..98 => self.random.u64(20_000..600_000),
            _ => self.random.u64(600_000..30_000_000),
        };
        self.run_to(self.elapsed + Duration::from_millis(step));
        if self.shielded.as_ref().is_some_and(|(id, until)| {
            let said = self.place(id).is_some_and(|place| {
                let replica = &self.replicas[place];
                replica.teller.epoch() == self.state.epoch
                    && self.state.members.get(id).is_some_and(|member| !member.awaited)
            });
            said || self.elapsed > *until
        }) {
            self.shielded = None;
        }
        if self.faulty() && self.random.u32(0..self.plan.faults) == 0 {
            self.fault();
        }
        for place in 0..self.replicas.len() {
            self.traffic(place);
        }
        for place in 0..self.replicas.len() {
            self.keep(place);
        }
    }

    fn live(mut self) -> Self {
        for _ in 0..self.plan.ticks {
            self.tick();
        }
        self
    }
}

#[expect(clippy::disallowed_methods, reason = "a test is told here what to do, nothing else is")]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
