//! What must not be left out of the rules: each test fails if the one thing that its name says is taken away.

use std::sync::Arc;
use std::time::Duration;

use super::rules::{self, GATHER_MS, GRACE_MINUTES, KNOWN_WITHIN_MS, LEASE_MINUTES};
use super::state::{State, minute};
use super::teller::{Reply, Request, Step, Teller};
use super::words::{Allot, Answer, Cell, Delta, Key, Known, Memory, Tell, Told};
use crate::admission::bank::{Entry, Lease, Paused, Statement, Wishes};
use crate::admission::time::Minute;
use crate::admission::{LOST_LEASES, OnLoss};
use crate::call::Class;

/// Some whole minute.
const START: u64 = 29_333_334 * 60_000;
const CAP: u64 = 1_000;

/// The store, a clock that is right, and replicas that speak for themselves.
struct Counter {
    state: State,
    now: u64,
}

impl Counter {
    /// A store that was begun long ago.
    fn new() -> Self {
        let mut counter = Self { state: State::default(), now: START };
        counter.open("a");
        counter.now += GATHER_MS;
        counter
    }

    fn open(&mut self, replica: &str) -> Answer {
        answer(rules::open(&mut self.state, self.now, &replica.into(), 7))
    }

    fn tell(&self, replica: &str, seq: u64) -> Tell {
        let (replica, epoch) = (Arc::from(replica), self.state.epoch);
        Tell { replica, epoch, seq, at: self.now, cap: CAP, ..Tell::default() }
    }

    fn settle(&mut self, tell: &Tell) -> Answer {
        answer(rules::settle(&mut self.state, self.now, tell))
    }

    /// Asks for `ask` calls while holding `balance`.
    fn ask(&mut self, replica: &str, seq: u64, balance: u64, ask: u64) -> u64 {
        self.settle(&Tell { balance, ask, ..self.tell(replica, seq) }).granted
    }

    /// Another replica that all know.
    fn second(&mut self, seq_of_a: u64) {
        self.open("b");
        self.ask("a", seq_of_a, 0, 0);
        self.ask("a", seq_of_a + 1, 0, 0);
    }
}

fn answer(told: Told) -> Answer {
    match told {
        Told::Settled(answer) => *answer,
        other => panic!("{other:?}"),
    }
}

fn key(at: u64, caller: &str) -> Key {
    Key { minute: minute(at), class: Some(Class::Batch), caller: caller.into() }
}

fn spent(at: u64, caller: &str, calls: i64) -> Vec<Delta> {
    vec![Delta { key: key(at, caller), calls }]
}

#[test]
fn what_is_told_twice_counts_once_and_is_granted_once() {
    let mut counter = Counter::new();
    let tell = Tell { deltas: spent(counter.now, "app", 40), ask: 10, ..counter.tell("a", 1) };
    let first = counter.settle(&tell);
    let again = counter.settle(&tell);
    assert_eq!((first.granted, again.granted), (10, 10));
    assert_eq!((counter.state.sum, counter.state.committed()), (40, 50));
    let later = Tell { deltas: spent(counter.now, "app", 2), balance: 10, ..counter.tell("a", 2) };
    counter.settle(&later);
    assert_eq!(rules::settle(&mut counter.state, counter.now, &tell), Told::Stale);
    assert_eq!(counter.state.sum, 42);
}

#[test]
fn a_lease_that_ends_without_a_report_counts_as_spent_when_it_ended() {
    let mut counter = Counter::new();
    counter.second(1);
    let ended = minute(counter.now).plus(LEASE_MINUTES);
    assert_eq!(counter.ask("b", 1, 0, 100), 100);
    counter.now += u64::from(LEASE_MINUTES + GRACE_MINUTES) * 60_000;
    counter.ask("a", 3, 0, 0);
    assert_eq!(counter.state.sum, 0, "it may still be under way");
    counter.now += 60_000;
    counter.ask("a", 4, 0, 0);
    assert_eq!(counter.state.sum, 100);
    let lost = Key { minute: ended, class: None, caller: LOST_LEASES.into() };
    assert_eq!(counter.state.cells[&lost].calls, 100);
    assert_eq!(counter.ask("a", 5, 0, CAP), CAP - 100);
}

#[test]
fn who_comes_back_says_what_it_really_spent() {
    let mut counter = Counter::new();
    counter.second(1);
    counter.ask("b", 1, 0, 100);
    let then = counter.now;
    counter.now += 60 * 60_000;
    counter.ask("a", 3, 0, 0);
    assert_eq!(counter.state.sum, 100);
    let tell = Tell { deltas: spent(then, "app", 30), ..counter.tell("b", 2) };
    counter.settle(&tell);
    assert_eq!((counter.state.sum, counter.state.committed()), (30, 30), "instead of, not beside");
}

#[test]
fn what_others_hold_is_not_granted_again() {
    let mut counter = Counter::new();
    counter.second(1);
    let mut held = [0; 2];
    for seq in 3..60 {
        held[0] += counter.ask("a", seq, held[0], CAP);
        held[1] += counter.ask("b", seq - 2, held[1], CAP);
        assert!(held[0] + held[1] <= CAP);
    }
    assert_eq!(held[0] + held[1], CAP, "halves of halves are all of it in the end");
    // A reserve is a promise as well.
    let mut counter = Counter::new();
    counter.second(1);
    let reserve = counter.settle(&Tell { reserve_ask: 100, ..counter.tell("b", 1) }).reserve;
    assert_eq!(reserve, CAP / 2 / 8);
    assert_eq!(counter.ask("a", 3, 0, CAP), (CAP - reserve) / 2);
    assert_eq!(counter.state.committed(), reserve + (CAP - reserve) / 2);
}

#[test]
fn others_get_no_more_than_half_of_what_one_replica_remembers_to_be_left() {
    let mut counter = Counter::new();
    counter.second(1);
    let half = counter.settle(&counter.tell("b", 1)).half;
    assert_eq!(half, CAP / 2);
    assert_eq!(counter.ask("a", 3, 0, 400), 400);
    assert_eq!(counter.ask("a", 4, 400, 400), 100, "b has not heard of it");
    assert_eq!(counter.ask("a", 5, 500, 400), 0);
    counter.ask("b", 2, 0, 0);
    assert_eq!(counter.ask("a", 6, 500, 400), 0, "b may not have got the answer");
    counter.ask("b", 3, 0, 0);
    assert_eq!(counter.ask("a", 7, 500, 400), 250);
}

#[test]
fn after_a_loss_no_more_than_the_other_half_is_granted_until_all_have_reported() {
    let mut counter = Counter::new();
    counter.second(1);
    let remembered = counter.settle(&Tell { deltas: spent(counter.now, "app", 100), ..counter.tell("b", 1) });
    // Of this b has not heard when the store loses its data.
    assert_eq!(counter.ask("a", 3, 0, CAP), 450);
    let memory = memory(&counter, "b", &remembered);
    counter.state = State::default();
    let said = rules::remember(&mut counter.state, counter.now, &memory);
    assert!(said.taken && said.seq == 1);
    assert_eq!(counter.ask("b", 2, 0, CAP), 0, "others may be about to say what they remember");
    counter.now += GATHER_MS;
    assert_eq!(counter.ask("b", 3, 0, CAP), 450, "100 spent, and a may have 450");
    counter.now += u64::from(LEASE_MINUTES + GRACE_MINUTES + 1) * 60_000;
    assert_eq!(counter.ask("b", 4, 450, CAP), 0, "a did not report: nobody knows what it spent");
    assert_eq!(counter.state.sum, 550);
}

#[test]
fn when_all_have_reported_nothing_is_held_back() {
    let mut counter = Counter::new();
    counter.second(1);
    counter.ask("b", 1, 0, 0);
    let known = counter.settle(&Tell { ask: 50, ..counter.tell("a", 3) });
    let (of_a, of_b) = (memory(&counter, "a", &known), memory(&counter, "b", &known));
    counter.state = State::default();
    for memory in [&of_b, &of_a, &of_b] {
        assert!(rules::remember(&mut counter.state, counter.now, memory).taken);
    }
    counter.now += GATHER_MS;
    let now = counter.now;
    counter.settle(&Tell { deltas: spent(now, "app", 20), balance: 30, ..counter.tell("a", 4) });
    counter.ask("b", 2, 0, 0);
    let committed = counter.state.committed() - counter.state.hold.calls;
    assert_eq!((counter.state.sum, committed), (20, 50), "no call twice, none forgotten");
    counter.settle(&Tell { balance: 30, ..counter.tell("a", 5) });
    counter.ask("b", 3, 0, 0);
    assert_eq!(counter.state.hold.calls, 0);
}

#[test]
fn what_was_told_since_counts_beside_what_others_remember() {
    let mut counter = Counter::new();
    counter.second(1);
    let now = counter.now;
    let known = counter.settle(&Tell { deltas: spent(now, "app", 10), ..counter.tell("b", 1) });
    let of_b = memory(&counter, "b", &known);
    let more = counter.settle(&Tell { deltas: spent(now, "app", 5), ..counter.tell("a", 3) });
    let of_a = memory(&counter, "a", &more);
    counter.state = State::default();
    rules::remember(&mut counter.state, now, &of_b);
    counter.settle(&Tell { deltas: spent(now, "app", 3), ..counter.tell("b", 2) });
    rules::remember(&mut counter.state, now, &of_a);
    assert_eq!(counter.state.sum, 18, "10 and 5 that both know, 3 that b told since");
}

#[test]
fn a_replica_of_which_others_have_not_heard_is_granted_nothing() {
    let mut counter = Counter::new();
    counter.ask("a", 1, 0, 0);
    counter.open("b");
    assert_eq!(counter.ask("b", 1, 0, 10), 0);
    counter.ask("a", 2, 0, 0);
    assert_eq!(counter.ask("b", 2, 0, 10), 0, "a may not have got the answer");
    counter.ask("a", 3, 0, 0);
    assert_eq!(counter.ask("b", 3, 0, 10), 10);
    // Who is silent is not waited for; what it does not know counts as doubt after a loss.
    counter.open("c");
    counter.ask("b", 4, 10, 0);
    counter.ask("b", 5, 10, 0);
    counter.now += KNOWN_WITHIN_MS;
    counter.ask("b", 6, 10, 0);
    assert_eq!(counter.ask("c", 1, 0, 10), 10);
}

#[test]
fn a_replica_whose_lease_has_ended_is_granted_nothing_before_others_hear_of_it_again() {
    let mut counter = Counter::new();
    counter.second(1);
    assert_eq!(counter.ask("b", 1, 0, 10), 10);
    counter.now += u64::from(LEASE_MINUTES + 1) * 60_000;
    counter.ask("a", 3, 0, 0);
    assert_eq!(counter.ask("b", 2, 0, 10), 0, "a may remember nothing of it");
    counter.ask("a", 4, 0, 0);
    counter.ask("a", 5, 0, 0);
    assert_eq!(counter.ask("b", 3, 0, 10), 10);
}

#[test]
fn a_store_without_data_waits_for_those_who_remember() {
    let mut counter = Counter { state: State::default(), now: START };
    counter.open("a");
    assert_eq!(counter.ask("a", 1, 0, 10), 0);
    counter.now += GATHER_MS;
    assert_eq!(counter.ask("a", 2, 0, 10), 10);
}

#[test]
fn a_step_of_the_stores_clock_releases_no_call() {
    let mut counter = Counter::new();
    let tell = Tell { deltas: spent(counter.now, "app", 40), ..counter.tell("a", 1) };
    counter.settle(&tell);
    let day = (24 * 60 + 2) * 60_000;
    // What the store's clock says and what the replica knows differ.
    let tell = counter.tell("a", 2);
    rules::settle(&mut counter.state, counter.now + day, &tell);
    assert_eq!(counter.state.sum, 40);
    rules::open(&mut counter.state, counter.now + day, &"b".into(), 8);
    assert_eq!(counter.state.sum, 40, "a is alive and says what time it is");
    counter.now += day;
    counter.ask("a", 3, 0, 0);
    assert_eq!(counter.state.sum, 0);
}

#[test]
fn who_only_said_what_it_remembers_is_alive_and_says_what_time_it_is() {
    for last in [true, false] {
        let mut counter = Counter::new();
        let known = counter.settle(&Tell { deltas: spent(counter.now, "app", 40), ..counter.tell("a", 1) });
        let of_a = Memory { last, ..memory(&counter, "a", &known) };
        counter.state = State::default();
        let day = (24 * 60 + 2) * 60_000;
        rules::remember(&mut counter.state, counter.now + day, &of_a);
        rules::open(&mut counter.state, counter.now + day, &"b".into(), 8);
        assert_eq!((counter.state.now, counter.state.sum), (counter.now, 40), "the last page: {last}");
    }
}

#[test]
fn a_callers_ceiling_holds_over_all_replicas() {
    let mut counter = Counter::new();
    counter.second(1);
    let allot = |balance, ask| Allot { caller: "app".into(), balance, ask, floor: 0, ceiling: 50 };
    let now = counter.now;
    let tell = Tell { allotted: vec![allot(0, 20)], deltas: spent(now, "app", 10), ..counter.tell("a", 3) };
    assert_eq!(counter.settle(&tell).allotted, [20]);
    assert_eq!(counter.settle(&Tell { allotted: vec![allot(0, 99)], ..counter.tell("b", 1) }).allotted, [20]);
    assert_eq!(counter.settle(&Tell { allotted: vec![allot(20, 99)], ..counter.tell("a", 4) }).allotted, [0]);
    // What a dead replica had in the caller's name is the caller's.
    counter.now += 60 * 60_000;
    let answer = counter.settle(&Tell { allotted: vec![allot(0, 99)], ..counter.tell("a", 5) });
    assert_eq!(answer.allotted, [20], "10 spent, 20 lost with b");
}

#[test]
fn only_calls_below_a_floor_are_granted_out_of_what_is_held_for_floors() {
    let mut counter = Counter::new();
    let tell = Tell { ask: CAP, floor: 30, held: 400, ..counter.tell("a", 1) };
    assert_eq!(counter.settle(&tell).granted, 600);
    assert_eq!(counter.settle(&Tell { balance: 600, seq: 2, ..tell.clone() }).granted, 30);
    assert_eq!(counter.settle(&Tell { balance: 630, floor: 0, seq: 3, ..tell }).granted, 0);
}

#[test]
fn who_got_too_little_is_heard_of_by_who_holds_something() {
    let mut counter = Counter::new();
    counter.second(1);
    counter.ask("b", 1, 0, 10);
    assert!(!counter.settle(&counter.tell("a", 3)).scarce);
    let tell = Tell { balance: 10, ask: 2 * CAP, waiting: true, ..counter.tell("b", 2) };
    assert!(!counter.settle(&tell).scarce, "it wants it itself");
    assert!(counter.settle(&counter.tell("a", 4)).scarce);
    counter.now += 60_000;
    assert!(!counter.settle(&counter.tell("a", 5)).scarce);
}

#[test]
fn a_clean_stop_leaves_nothing_behind() {
    let mut counter = Counter::new();
    counter.second(1);
    counter.ask("b", 1, 0, 100);
    let tell = Tell { deltas: spent(counter.now, "app", 3), ..counter.tell("b", 2) };
    answer(rules::close(&mut counter.state, counter.now, &tell));
    assert_eq!((counter.state.members.len(), counter.state.committed()), (1, 3));
}

/// What `replica` remembers of `answer`.
fn memory(counter: &Counter, replica: &str, answer: &Answer) -> Memory {
    let cells = counter.state.cells.iter().filter(|(_, cell)| cell.version <= answer.version);
    Memory {
        replica: replica.into(),
        epoch: 0,
        fresh: 9,
        at: counter.now,
        version: answer.version,
        half: answer.half,
        stale: false,
        members: answer.members.clone(),
        cells: cells.map(|(key, cell)| Cell { key: key.clone(), calls: cell.calls }).collect(),
        last: true,
        paused_version: 0,
        paused: Paused::default(),
    }
}

/// A teller with its store, without a ledger.
struct Desk {
    state: State,
    teller: Teller,
    now: Duration,
}

impl Desk {
    fn new() -> Self {
        let mut desk = Self { state: State::default(), teller: Teller::new("a".into(), 1), now: Duration::ZERO };
        assert_eq!(desk.run(None, |_| true).map(|lease| lease.granted), Some(0));
        assert!(desk.teller.is_open());
        desk.now += Duration::from_millis(GATHER_MS);
        desk
    }

    /// Says everything there is to say; `None` if `arrives` says that an answer does not.
    fn run(&mut self, statement: Option<&Statement>, arrives: impl Fn(&Request) -> bool) -> Option<Lease> {
        for _ in 0..100 {
            let request = self.teller.request(statement, false, self.now);
            let time = START + self.now.as_millis() as u64;
            let reply = match &request {
                Request::Open(fresh) => Reply::Told(rules::open(&mut self.state, time, &"a".into(), *fresh)),
                Request::Settle(tell) | Request::Close(tell) => Reply::Told(rules::settle(&mut self.state, time, tell)),
                Request::Remember(memory) => Reply::Remembered(rules::remember(&mut self.state, time, memory)),
            };
            if !arrives(&request) {
                self.teller.lost();
                return None;
            }
            match self.teller.hear(reply, statement, self.now, self.now) {
                Step::Again => {}
                Step::Done(lease) => return Some(lease),
                Step::Full => panic!("full"),
            }
        }
        panic!("there is no end of it")
    }
}

fn statement(calls: u32, balance: u64, ask: u64) -> Statement {
    let entry = Entry { caller: "app".into(), class: Some(Class::Batch), minute: Minute(29_333_334), calls };
    let sharing = Wishes { cap: CAP, ..Wishes::default() };
    Statement { entries: vec![entry], balance, ask, sharing, ..Statement::default() }
}

#[test]
fn an_answer_that_is_lost_is_asked_for_again_and_what_it_granted_is_given_back() {
    let mut desk = Desk::new();
    assert_eq!(desk.run(Some(&statement(5, 0, 10)), |_| false), None);
    assert_eq!(desk.state.committed(), 15);
    let lease = desk.run(Some(&statement(7, 0, 20)), |_| true).unwrap();
    assert_eq!(lease.granted, 20);
    assert_eq!((desk.state.sum, desk.state.committed()), (7, 27));
}

#[test]
fn what_was_told_before_a_loss_is_neither_forgotten_nor_counted_twice() {
    for answered in [true, false] {
        let mut desk = Desk::new();
        desk.run(Some(&statement(5, 0, 10)), |_| true).unwrap();
        desk.run(Some(&statement(8, 7, 0)), |_| answered);
        desk.state = State::default();
        let lease = desk.run(Some(&statement(9, 6, 0)), |_| true).unwrap();
        assert_eq!((desk.state.sum, lease.granted), (9, 0), "answered: {answered}");
        assert!(lease.shared.unwrap().entries.iter().all(|entry| entry.calls == 0), "all of it is its own");
    }
}

#[test]
fn what_is_told_after_a_loss_is_not_taken_for_what_was_told_before() {
    let mut desk = Desk::new();
    desk.run(Some(&statement(5, 0, 10)), |_| true).unwrap();
    desk.run(Some(&statement(8, 7, 0)), |_| false);
    let heard = desk.state.members["a"].seq;
    desk.state = State::default();
    // Another replica remembers what was told and not answered, and says so in between.
    let told = |request: &Request| !matches!(request, Request::Remember(_));
    assert_eq!(desk.run(Some(&statement(9, 6, 0)), told), None);
    let lease = desk.run(Some(&statement(9, 6, 0)), |request| !matches!(request, Request::Settle(_)));
    assert_eq!(lease, None);
    assert!(desk.state.members["a"].seq > heard, "its number was used before");
}

#[test]
fn a_memory_of_many_pages_is_taken_whole() {
    let mut desk = Desk::new();
    let mut many = statement(0, 0, 0);
    many.entries = (0..2_500)
        .map(|nth| Entry { caller: format!("caller {nth}").into(), minute: Minute(29_333_334), calls: 1, class: None })
        .collect();
    desk.run(Some(&many), |_| true).unwrap();
    desk.state = State::default();
    desk.run(Some(&statement(0, 0, 0)), |_| true).unwrap();
    assert_eq!(desk.state.sum, 2_500);
}

#[test]
fn a_replica_that_the_store_had_forgotten_says_what_it_remembers_all_the_same() {
    let mut desk = Desk::new();
    desk.run(Some(&statement(5, 0, 0)), |_| true).unwrap();
    desk.run(Some(&statement(6, 0, 0)), |_| false);
    desk.now += Duration::from_hours(1);
    rules::open(&mut desk.state, START + desk.now.as_millis() as u64, &"b".into(), 8);
    // The answer is that of an hour ago, and does not know it any more.
    assert_eq!(desk.run(None, |_| true).unwrap().shared.unwrap().replicas, 1);
    desk.state = State::default();
    desk.run(Some(&statement(9, 0, 0)), |_| true).unwrap();
    assert_eq!(desk.state.sum, 9);
    assert!(desk.state.members.contains_key("b"), "and of whom it heard");
}

#[test]
fn a_known_replica_is_booked_by_what_the_latest_memory_says_of_it() {
    let mut counter = Counter::new();
    let known = |seq, out| Known { replica: "b".into(), seq, out, named: 0, until: minute(START).plus(LEASE_MINUTES) };
    let answer = counter.settle(&counter.tell("a", 1));
    let mut memory = memory(&counter, "a", &answer);
    counter.state = State::default();
    for (seq, out) in [(3, 30), (5, 50), (4, 40)] {
        memory.members = vec![known(seq, out)];
        rules::remember(&mut counter.state, counter.now, &memory);
    }
    assert_eq!(counter.state.members["b"].out, 50);
}

#[test]
fn the_reserve_is_spent_while_the_bank_is_lost_and_told_as_balance_after() {
    use crate::admission::lease::{Funds, Lease as Leased};
    let mut lease = Leased::unopened();
    lease.granted(5, Minute(100));
    lease.set_aside(20);
    assert_eq!(lease.ask(6, None, Minute(50)), Funds::Empty);
    lease.lost(OnLoss::SafeShare);
    lease.lost(OnLoss::SafeShare);
    assert_eq!(lease.ask(25, None, Minute(50)), Funds::Enough);
    assert_eq!(lease.ask(26, None, Minute(50)), Funds::Lost);
    assert_eq!(lease.ask(1, None, Minute(98)), Funds::Lost, "it ends with the lease");
    assert_eq!((lease.left(), lease.adapt_reserve(20)), (Some(25), (0, 20)));
    let mut lease = Leased::unopened();
    lease.granted(5, Minute(100));
    lease.set_aside(0);
    lease.lost(OnLoss::Refuse);
    assert_eq!(lease.ask(1, None, Minute(50)), Funds::Lost);
    lease.lost(OnLoss::SpendLease);
    assert_eq!(lease.ask(5, None, Minute(50)), Funds::Enough);
}
