//! The ledger and its bank: whatever happens in between, no spent call is forgotten.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::admission::bank::memory::MemoryBank;
use crate::admission::bank::sqlite::SqliteBank;
use crate::admission::bank::{Bank, BankError, BankEvent, Keeping, Lease, Past, Statement, keep};
use crate::tasks::Tasks;

use Class::{Batch, Standard};

const DAY: Duration = Duration::from_hours(24);
const CEILING: u64 = 60;
/// Of the first caller; the second has none.
const OWN_CEILING: u64 = 33;

#[derive(Debug, Clone)]
enum Op {
    Spend {
        caller: u16,
        times: u8,
    },
    Reserve(u16),
    SpendReserved,
    Answered,
    Settle(Fate),
    Wait(u64),
    /// Dies and starts again, with the wall clock set back by this many seconds.
    Crash {
        back: u64,
        within: Option<Fate>,
    },
    Stop,
}

/// How a statement ends.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Written,
    /// Not written, and the ledger is told so.
    Failed,
    /// Written, and the ledger is told that it was not.
    WrittenButFailed,
}

fn op() -> impl Strategy<Value = Op> {
    let fate =
        prop::sample::select(vec![Fate::Written, Fate::Written, Fate::Written, Fate::Failed, Fate::WrittenButFailed]);
    let wait = prop_oneof![6 => 0u64..40, 2 => 60u64..1_500, 1 => 3_000u64..90_000];
    prop_oneof![
        12 => (0u16..2, 1u8..6).prop_map(|(caller, times)| Op::Spend { caller, times }),
        2 => (0u16..2).prop_map(Op::Reserve),
        2 => Just(Op::SpendReserved),
        2 => Just(Op::Answered),
        8 => fate.clone().prop_map(Op::Settle),
        4 => wait.prop_map(Op::Wait),
        2 => (prop_oneof![Just(0u64), 0u64..200_000], prop::option::of(fate)).prop_map(|(back, within)| Op::Crash { back, within }),
        1 => Just(Op::Stop),
    ]
}

struct World {
    dir: tempfile::TempDir,
    bank: SqliteBank,
    ledger: Ledger,
    clock: Clock,
    start: Instant,
    elapsed: Duration,
    /// How far the wall clock has been set back so far. It is never set forward again: a process that starts under
    /// a clock that is ahead has no way to know how long it was down.
    behind: Duration,
    /// When, how many, by whom.
    sent: Vec<(Duration, u32, u16)>,
    reserved: Vec<(u16, Reservation)>,
    spent: Vec<(usize, Spent)>,
}

fn settings() -> OrgSettings {
    OrgSettings { release_late_at_most: 0, ..assumed(CEILING) }
}

fn shares() -> [Share; 2] {
    [share("a", 20, Some(OWN_CEILING)), share("b", 0, None)]
}

pub(super) fn wait_for<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

impl World {
    fn new() -> Self {
        // Memory is fast; what is tested is what was written, not how long it took.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let (bank, ledger, clock, start) = Self::boot(dir.path(), EPOCH);
        let (elapsed, behind) = (Duration::ZERO, Duration::ZERO);
        Self { dir, bank, ledger, clock, start, elapsed, behind, sent: vec![], reserved: vec![], spent: vec![] }
    }

    fn boot(dir: &std::path::Path, wall: Duration) -> (SqliteBank, Ledger, Clock, Instant) {
        let clock = Clock::at(wall);
        let start = clock.now();
        let bank = SqliteBank::open(dir, wall).unwrap();
        let past = wait_for(bank.open("org")).unwrap();
        let ledger = Ledger::resume(settings(), &shares(), &past, clock, start);
        (bank, ledger, clock, start)
    }

    /// Real time as this process sees it: its own start and what went by since.
    fn now(&self) -> Instant {
        self.start + self.elapsed
    }

    fn real(&self) -> Duration {
        self.elapsed
    }

    fn settle(&self, fate: Fate) {
        let Some(statement) = self.ledger.statement(self.now()) else { return };
        let statement = Arc::new(statement);
        let lease = match fate {
            Fate::Failed => Err(BankError("not written".into())),
            Fate::Written => wait_for(self.bank.settle("org", Arc::clone(&statement))),
            Fate::WrittenButFailed => {
                wait_for(self.bank.settle("org", Arc::clone(&statement))).unwrap();
                Err(BankError("who knows".into()))
            }
        };
        match lease {
            Ok(lease) => self.ledger.settled(&statement, &lease, self.now()),
            Err(_) => self.ledger.unsettled(&statement, OnLoss::Refuse, self.now()),
        }
    }

    fn apply(&mut self, op: &Op) {
        let one = ApiCalls(1);
        match *op {
            Op::Spend { caller, times } => {
                for _ in 0..times {
                    if let Ok(reservation) = self.ledger.reserve(CallerId(caller), Standard, one, self.now()) {
                        self.spend(caller, reservation);
                    }
                }
            }
            Op::Reserve(caller) => {
                let reserved = self.ledger.reserve(CallerId(caller), Batch, one, self.now());
                self.reserved.extend(reserved.map(|reservation| (caller, reservation)));
            }
            Op::SpendReserved => {
                if let Some((caller, reservation)) = self.reserved.pop() {
                    self.spend(caller, reservation);
                }
            }
            Op::Answered => {
                if let Some((which, spent)) = self.spent.pop() {
                    self.sent[which].1 = 0;
                    spent.answered(ApiCalls(0), self.now());
                }
            }
            Op::Settle(fate) => self.settle(fate),
            Op::Wait(seconds) => self.elapsed += Duration::from_millis(seconds * 1_000 + 91),
            Op::Crash { back, within } => {
                if let (Some(fate), Some(statement)) = (within, self.ledger.statement(self.now()))
                    && !matches!(fate, Fate::Failed)
                {
                    // Dies after the bank wrote and before it could use the lease.
                    wait_for(self.bank.settle("org", Arc::new(statement))).unwrap();
                }
                self.restart(back);
            }
            Op::Stop => {
                self.reserved.clear();
                self.ledger.stop(self.now());
                let last = self.ledger.statement(self.now()).unwrap();
                wait_for(self.bank.close("org", Arc::new(last))).unwrap();
                let before = self.ledger.org(self.now());
                self.restart(0);
                let after = self.ledger.org(self.now());
                assert_eq!(after.own, before.own, "a clean stop gives the lease back");
            }
        }
        self.check();
    }

    fn spend(&mut self, caller: u16, reservation: Reservation) {
        if let Ok(spent) = reservation.spend(self.now()) {
            self.spent.push((self.sent.len(), spent));
            self.sent.push((self.elapsed, 1, caller));
        }
    }

    fn restart(&mut self, back: u64) {
        self.behind += Duration::from_secs(back);
        let wall = (EPOCH + self.elapsed).saturating_sub(self.behind);
        // The old process is gone; what it still holds changes nothing any more.
        let (old, _) = (std::mem::take(&mut self.reserved), std::mem::take(&mut self.spent));
        let placeholder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        self.bank = SqliteBank::open(placeholder.path(), wall).unwrap();
        let process = Self::boot(self.dir.path(), wall);
        (self.bank, self.ledger, self.clock, self.start) = process;
        // The new process's clock begins now.
        self.start -= self.elapsed;
        drop(old);
    }

    fn check(&self) {
        let recent = self.sent.iter().filter(|(at, _, _)| *at + DAY > self.real());
        let (mut used, mut own) = (0, 0);
        for (_, calls, caller) in recent {
            used += calls;
            own += if *caller == 0 { *calls } else { 0 };
        }
        assert!(u64::from(used) <= CEILING, "{used} calls in 24 h");
        assert!(u64::from(own) <= OWN_CEILING, "{own} calls of one caller in 24 h");
        let org = self.ledger.org(self.now());
        assert!(org.own >= u64::from(used), "{} on the books, {used} really spent", org.own);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    #[test]
    fn a_restart_at_any_point_forgets_nothing(ops in prop::collection::vec(op(), 1..150)) {
        let mut world = World::new();
        for op in ops {
            world.apply(&op);
        }
    }
}

#[test]
fn a_lost_lease_counts_from_the_last_moment_it_could_have_been_spent() {
    let mut world = World::new();
    world.settle(Fate::Written);
    let lease = world.ledger.org(world.now()).lease.unwrap();
    assert!(lease > 0);
    // The whole lease is spent in its last minutes, and nothing of it is reported.
    world.elapsed += Duration::from_mins(12);
    for _ in 0..lease {
        world.apply(&Op::Spend { caller: 1, times: 1 });
    }
    assert_eq!(world.sent.len() as u64, lease);
    world.elapsed += Duration::from_hours(1);
    world.restart(0);
    let org = world.ledger.org(world.now());
    assert_eq!((org.own, org.lost_leases), (lease, lease));
    // 24 h after the grant it still counts; 24 h after the lease's end it does not.
    world.elapsed = Duration::from_mins(12 + 1_440);
    assert_eq!(world.ledger.org(world.now()).own, lease);
    world.elapsed = Duration::from_mins(15 + 1_441);
    assert_eq!(world.ledger.org(world.now()).own, 0);
}

#[test]
fn what_a_caller_with_a_ceiling_may_have_spent_counts_as_its_own() {
    let mut world = World::new();
    world.settle(Fate::Written);
    // It waits for a lease in its own name.
    world.apply(&Op::Spend { caller: 0, times: 1 });
    assert!(world.sent.is_empty());
    world.settle(Fate::Written);
    world.apply(&Op::Spend { caller: 0, times: 50 });
    let sent = world.sent.len() as u64;
    assert!(sent > 0);
    world.restart(0);
    let lost_of = |world: &World, caller: usize| world.ledger.callers(world.now())[caller].clone();
    let (capped, other) = (lost_of(&world, 1), lost_of(&world, 2));
    assert_eq!((&*capped.name, capped.used, capped.lost), ("a", sent, sent));
    assert_eq!((&*other.name, other.used), ("b", 0));
    // Over and over: what it spends and what it may have spent stay below its ceiling together.
    for _ in 0..20 {
        for _ in 0..30 {
            world.apply(&Op::Spend { caller: 0, times: 2 });
            world.settle(Fate::Written);
        }
        world.restart(0);
    }
    let capped = lost_of(&world, 1);
    println!("{} sent, {} lost, {} of {OWN_CEILING} on the books", world.sent.len(), capped.lost, capped.used);
    assert!(capped.used <= OWN_CEILING);
    assert!(world.sent.len() as u64 + capped.lost >= OWN_CEILING, "the ceiling is used but for what was lost");
}

#[test]
fn before_the_first_reading_no_more_is_leased_than_the_ceiling_leaves() {
    let clock = Clock::at(EPOCH);
    let spent = crate::admission::bank::Entry {
        caller: "b".into(),
        class: Some(Standard),
        minute: Minute::containing(EPOCH),
        calls: 60,
    };
    let past = Past { entries: vec![spent], now: EPOCH, ..Past::default() };
    let settings = OrgSettings { limit: Some(CEILING), keep_free: PerMille::percent(0), ..OrgSettings::default() };
    let ledger = Ledger::resume(settings, &shares(), &past, clock, clock.now());
    assert_eq!(ledger.org(clock.now()).footing, Footing::Awaiting);
    assert_eq!(ledger.statement(clock.now()).unwrap().grant().granted, 0, "a crash would lose it");
}

#[test]
fn what_is_paused_stays_paused_and_who_left_still_counts() {
    let mut world = World::new();
    world.settle(Fate::Written);
    world.apply(&Op::Spend { caller: 1, times: 1 });
    assert!(world.ledger.pause_caller("a", true, world.now()));
    assert!(!world.ledger.pause_caller("nobody", true, world.now()));
    world.ledger.pause_class(Batch, true, world.now());
    world.settle(Fate::Written);
    world.restart(0);
    let denied = world.ledger.reserve(CallerId(0), Standard, ApiCalls(1), world.now()).unwrap_err();
    assert_eq!(denied.cause, Cause::CallerPaused);
    assert_eq!(world.ledger.org(world.now()).paused_classes, [Batch]);
    let past = Past {
        entries: vec![crate::admission::bank::Entry {
            caller: "gone".into(),
            class: Some(Standard),
            minute: Minute::containing(EPOCH),
            calls: 7,
        }],
        now: EPOCH,
        ..Past::default()
    };
    let ledger = Ledger::resume(settings(), &shares(), &past, world.clock, world.now());
    assert_eq!(ledger.org(world.now()).own, 7);
    assert!(ledger.callers(world.now()).iter().any(|caller| &*caller.name == "gone" && caller.retired));
}

/// A bank that can be told to fail or to hang.
#[derive(Default)]
struct Moody {
    failing: AtomicBool,
    hanging: AtomicBool,
    settled: AtomicU64,
    closed: Mutex<Option<u64>>,
}

impl Bank for Moody {
    async fn open(&self, _: &str) -> Result<Past, BankError> {
        Ok(Past::default())
    }

    async fn settle(&self, _: &str, statement: Arc<Statement>) -> Result<Lease, BankError> {
        while self.hanging.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        if self.failing.load(Ordering::Relaxed) {
            return Err(BankError("disk full".into()));
        }
        self.settled.fetch_add(1, Ordering::Relaxed);
        Ok(statement.grant())
    }

    async fn close(&self, _: &str, statement: Arc<Statement>) -> Result<(), BankError> {
        *self.closed.lock() = Some(statement.balance);
        Ok(())
    }
}

struct Office {
    ledger: Ledger,
    clock: Clock,
    bank: Arc<Moody>,
    stop: tokio::sync::oneshot::Sender<()>,
    kept: tokio::task::JoinHandle<()>,
    events: Arc<Mutex<Vec<&'static str>>>,
}

fn office(ceiling: u64, on_loss: OnLoss) -> Office {
    let clock = Clock::at(EPOCH);
    let bank = Arc::new(Moody::default());
    let ledger = Ledger::resume(assumed(ceiling), &[share("app", ceiling, None)], &Past::default(), clock, clock.now());
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let events = Arc::new(Mutex::new(Vec::new()));
    let (log, kept_ledger, kept_bank) = (Arc::clone(&events), ledger.clone(), Arc::clone(&bank));
    let kept = Tasks::new().spawn(async move {
        let stop = async { drop(stopped.await) };
        let keeping = Keeping { on_loss, ..Keeping::default() };
        let report = |event: BankEvent<'_>| {
            log.lock().push(match event {
                BankEvent::Lost(_) => "lost",
                BankEvent::Back => "back",
                BankEvent::Opened => "opened",
                BankEvent::NotClosed(_) => "not closed",
            });
        };
        keep(kept_ledger, "org".into(), kept_bank, clock, keeping, stop, report).await;
    });
    Office { ledger, clock, bank, stop, kept, events }
}

impl Office {
    async fn spend_waiting(&self) -> Result<(), Denied> {
        loop {
            let mut changed = pin!(self.ledger.changed());
            changed.as_mut().enable();
            match self.ledger.reserve(CallerId(0), Standard, ApiCalls(1), self.clock.now()) {
                Ok(reservation) => {
                    drop(reservation.spend(self.clock.now()).unwrap());
                    return Ok(());
                }
                Err(denied) if denied.cause.waits() => changed.await,
                Err(denied) => return Err(denied),
            }
        }
    }

    fn now(&self) -> Result<Reservation, Denied> {
        self.ledger.reserve(CallerId(0), Standard, ApiCalls(1), self.clock.now())
    }
}

#[tokio::test(start_paused = true)]
async fn who_finds_the_lease_empty_waits_for_the_refill_and_everything_can_be_spent() {
    let office = office(5_000, OnLoss::Refuse);
    for _ in 0..5_000 {
        office.spend_waiting().await.unwrap();
    }
    assert_eq!(office.spend_waiting().await.unwrap_err().cause, Cause::OrgCeiling);
    let settled = office.bank.settled.load(Ordering::Relaxed);
    assert!(settled < 300, "{settled} statements for 5,000 calls");
}

#[tokio::test(start_paused = true)]
async fn a_bank_that_hangs_for_a_minute_changes_nothing_within_the_lease() {
    let office = office(100_000, OnLoss::Refuse);
    office.spend_waiting().await.unwrap();
    office.bank.hanging.store(true, Ordering::Relaxed);
    let lease = office.ledger.org(office.clock.now()).lease.unwrap();
    for _ in 0..lease {
        tokio::time::sleep(Duration::from_millis(500)).await;
        drop(office.now().unwrap().spend(office.clock.now()).unwrap());
    }
    assert_eq!(office.now().unwrap_err().cause, Cause::AwaitLease);
    office.bank.hanging.store(false, Ordering::Relaxed);
    office.spend_waiting().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_bank_that_cannot_be_written_stops_admission_by_name_and_comes_back() {
    let office = office(100_000, OnLoss::Refuse);
    office.spend_waiting().await.unwrap();
    office.bank.failing.store(true, Ordering::Relaxed);
    let denied = loop {
        match office.spend_waiting().await {
            Ok(()) => {}
            Err(denied) => break denied,
        }
    };
    assert_eq!(denied.cause, Cause::BankLost);
    assert_eq!(office.ledger.org(office.clock.now()).warnings, [Warning::Assumed, Warning::BankLost]);
    tokio::time::sleep(Duration::from_mins(1)).await;
    office.bank.failing.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(15)).await;
    office.spend_waiting().await.unwrap();
    assert_eq!(*office.events.lock(), ["lost", "back"]);
}

#[tokio::test(start_paused = true)]
async fn by_policy_a_lost_bank_does_not_stop_admission_and_what_was_spent_is_told_later() {
    let office = office(1_000, OnLoss::Continue);
    office.bank.failing.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(1)).await;
    for _ in 0..1_000 {
        drop(office.now().unwrap().spend(office.clock.now()).unwrap());
    }
    assert_eq!(office.now().unwrap_err().cause, Cause::OrgCeiling, "the ceiling holds without a bank");
    office.bank.failing.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(office.bank.settled.load(Ordering::Relaxed) > 0);
    assert_eq!(*office.events.lock(), ["lost", "back"]);
}

#[tokio::test(start_paused = true)]
async fn where_decisions_are_only_observed_a_bank_delays_and_refuses_nothing() {
    let (clock, settings) = (Clock::at(EPOCH), OrgSettings { mode: Mode::Observe, ..assumed(10) });
    let ledger = Ledger::resume(settings, &[share("app", 10, None)], &Past::default(), clock, clock.now());
    for nth in 0..15 {
        let reservation = ledger.reserve(CallerId(0), Standard, ApiCalls(1), clock.now()).unwrap();
        let cause = reservation.would_deny().map(|denied| denied.cause);
        assert_eq!(cause, (nth >= 10).then_some(Cause::OrgCeiling));
        drop(reservation.spend(clock.now()).unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_clean_stop_admits_nothing_more_and_gives_the_lease_back() {
    let office = office(1_000, OnLoss::Refuse);
    office.spend_waiting().await.unwrap();
    let under_way = office.now().unwrap();
    let Office { stop, kept, ledger, clock, bank, .. } = office;
    stop.send(()).unwrap();
    kept.await.unwrap();
    assert_eq!(*bank.closed.lock(), Some(1), "only what is under way stays leased");
    let denied = ledger.reserve(CallerId(0), Standard, ApiCalls(1), clock.now()).unwrap_err();
    assert_eq!(denied.cause, Cause::Stopping);
    assert!(under_way.spend(clock.now()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_bank_of_memory_needs_no_other_clock() {
    let clock = Clock::at(EPOCH);
    let past = MemoryBank.open("org").await.unwrap();
    let ledger = Ledger::resume(assumed(50), &[share("app", 50, None)], &past, clock, clock.now());
    let statement = Arc::new(ledger.statement(clock.now()).unwrap());
    let lease = MemoryBank.settle("org", Arc::clone(&statement)).await.unwrap();
    ledger.settled(&statement, &lease, clock.now());
    assert!(ledger.reserve(CallerId(0), Standard, ApiCalls(1), clock.now()).is_ok());
}
