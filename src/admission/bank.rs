//! The bank: remembers what was spent, and leases what may be spent.
//!
//! A bank, not a cashier: no call waits for it. [`keep`] tells it in the background what was spent, and gets leases
//! in return, slices of the allowance that the process spends on its own. The bank writes a lease down before it may
//! be spent, so a process that dies leaves behind what it reported and what it may have spent unreported. The latter
//! counts as spent at the last moment it could have been: when the lease ended or the next process started, whichever
//! was first, never when it was granted. A process that stops cleanly gives its lease back.

pub mod memory;
#[cfg(feature = "redis")]
pub mod redis;
pub mod shared;
pub mod sqlite;
mod standing;

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crate::call::Class;
use crate::clock::Clock;

use super::lease::OnLoss;
use super::ledger::Ledger;
use super::time::Minute;
use super::usage::Reading;

pub use standing::Standing;

/// For how many minutes a lease may be spent unless it is renewed.
pub const LEASE_MINUTES: u32 = 15;

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// Calls one caller spent in one minute, all of them: it replaces what was told of that minute before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The caller's name.
    pub caller: Arc<str>,
    /// The calls' class; `None` for a lease of which nobody knows whether it was spent.
    pub class: Option<Class>,
    /// When they were sent.
    pub minute: Minute,
    /// How many; zero if none is charged after all.
    pub calls: u32,
}

/// What the operator paused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paused {
    /// Callers, by name.
    pub callers: Vec<Arc<str>>,
    /// Classes.
    pub classes: Vec<Class>,
}

/// What is leased in one caller's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allotted {
    /// The caller's name.
    pub caller: Arc<str>,
    /// Calls it may spend that were not reported: it replaces what was told before.
    pub balance: u64,
    /// Further calls wanted for it.
    pub ask: u64,
    /// How many of those are below its floor.
    pub floor: u64,
    /// Calls that it may spend in 24 h.
    pub ceiling: u64,
}

/// What one org's books have to say, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Statement {
    /// The ledger's time, since the Unix epoch.
    pub at: Duration,
    /// Minutes that changed.
    pub entries: Vec<Entry>,
    /// Calls of the common lease that were not reported and may still be spent.
    pub balance: u64,
    /// Further calls wanted for it.
    pub ask: u64,
    /// What is leased in callers' own names, where that changed.
    pub allotted: Vec<Allotted>,
    /// Calls that may be spent unreported altogether.
    pub outstanding: u64,
    /// Most calls that should be leased altogether, `outstanding` included.
    pub headroom: u64,
    /// Everything that is paused, if that changed.
    pub paused: Option<Paused>,
    /// What a bank shared by several replicas has to know beside.
    pub sharing: Wishes,
    /// What to tell again if the bank cannot take it: slot, generation and first minute.
    pub(super) marks: Vec<(u32, u32, Minute)>,
    /// Whose the allotments are: slot and generation.
    pub(super) holders: Vec<(u32, u32)>,
}

/// What a bank shared by several replicas has to know of one of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wishes {
    /// How many calls of ours the window may hold, all replicas together, what is leased included.
    pub cap: u64,
    /// How many of them are held for callers below their floors.
    pub held: u64,
    /// How many of the calls asked for are for such callers.
    pub floor: u64,
    /// Calls that others than us used; `None` before Salesforce said what is used.
    pub foreign: Option<u64>,
    /// Calls that may be spent beyond the lease while the bank is lost.
    pub reserve: u64,
    /// Further ones that are wanted.
    pub reserve_ask: u64,
    /// Some call waits for what is asked for.
    pub waiting: bool,
    /// What Salesforce last said, and in which minute.
    pub reading: Option<(Reading, Minute)>,
}

impl Statement {
    /// What a bank with no other process at its counter grants.
    pub fn grant(&self) -> Lease {
        let mut left = self.headroom.saturating_sub(self.outstanding);
        let mut take = |wanted: u64| {
            let granted = wanted.min(left);
            left -= granted;
            granted
        };
        // Few calls go to those that wait in their own name first: the common lease is asked by all others together.
        let allotted = self.allotted.iter().map(|allotted| take(allotted.ask)).collect();
        let until = Minute::containing(self.at).plus(LEASE_MINUTES);
        Lease { granted: take(self.ask), allotted, until, shared: None }
    }
}

/// What the bank grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Further calls that may be spent by callers that share the common lease.
    pub granted: u64,
    /// Further calls that each of the statement's allotments may spend, in its order.
    pub allotted: Vec<u64>,
    /// Last minute in which these and all calls leased before may be spent.
    pub until: Minute,
    /// What a bank shared by several replicas says beside.
    pub shared: Option<Box<Shared>>,
}

/// What one replica has to know of the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shared {
    /// The bank's time, since the Unix epoch.
    pub now: Duration,
    /// Further calls that may be spent beyond the lease while the bank is lost.
    pub reserve: u64,
    /// Calls that others may spend, or have spent without telling.
    pub others: u64,
    /// How many replicas there are.
    pub replicas: u32,
    /// Some other replica has calls waiting and got too little.
    pub scarce: bool,
    /// The bank lost its data, and somebody may still know more of them.
    pub recovering: bool,
    /// Calls of the others that changed. Each replaces what was told of them before.
    pub entries: Vec<Entry>,
    /// What Salesforce last said to any replica, and in which minute.
    pub reading: Option<(Reading, Minute)>,
    /// Everything that is paused, if that changed.
    pub paused: Option<Paused>,
}

/// What earlier processes left behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    /// The latest ledger time on record, since the Unix epoch.
    pub now: Duration,
    /// How far the wall clock was set forward since then, where that is known.
    pub forward: Duration,
    /// Calls of the window, leases that may have been spent among them: those of callers' own, and the common ones
    /// under [`LOST_LEASES`](super::LOST_LEASES).
    pub entries: Vec<Entry>,
    /// What is paused.
    pub paused: Paused,
    /// The calls are not this replica's to tell: the bank is shared, and knows them.
    pub shared: bool,
}

/// Why the bank did not take a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BankError(
    /// What went wrong, in words for the operator.
    pub Box<str>,
);

impl fmt::Display for BankError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the bank cannot be written: {}", self.0)
    }
}

impl std::error::Error for BankError {}

/// A store that outlives the process. Shared by all orgs; a bank may be shared by several processes.
pub trait Bank: Send + Sync + 'static {
    /// What earlier processes left of `org`. To be called once, before the first statement.
    fn open(&self, org: &str) -> impl Future<Output = Result<Past, BankError>> + Send;

    /// Writes down what was spent and what is leased from now on. When it returns `Ok`, it is on the disk.
    fn settle(&self, org: &str, statement: Arc<Statement>) -> impl Future<Output = Result<Lease, BankError>> + Send;

    /// The last statement of this process: its lease is given back, except for what is still under way.
    fn close(&self, org: &str, statement: Arc<Statement>) -> impl Future<Output = Result<(), BankError>> + Send;
}

/// What happened to the bank, for the log.
#[derive(Debug, Clone, Copy)]
pub enum BankEvent<'a> {
    /// It could not be written; the lease is spent, then `on_loss` applies.
    Lost(&'a BankError),
    /// It can be written again.
    Back,
    /// It is shared, and answered for the first time.
    Opened,
    /// The process stopped without giving its lease back; it will count as spent.
    NotClosed(&'a BankError),
}

/// How the bank is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeping {
    /// How often the bank is told what was spent, and calls that have come back are released.
    pub every: Duration,
    /// What happens when the lease is spent and the bank cannot be written.
    pub on_loss: OnLoss,
    /// Least time between two statements, however fast a lease is spent.
    pub apart: Duration,
    /// Longest time between two attempts while the bank is lost.
    pub retry: Duration,
}

impl Default for Keeping {
    fn default() -> Self {
        Self { every: Duration::from_secs(1), on_loss: OnLoss::Refuse, apart: Duration::ZERO, retry: LAST_RETRY }
    }
}

async fn refill(ledger: &Ledger, apart: Duration) {
    if !apart.is_zero() {
        tokio::time::sleep(apart).await;
    }
    ledger.refill().await;
}

fn later(wait: Option<Duration>, keeping: &Keeping) -> Duration {
    wait.map_or(FIRST_RETRY, |wait| (wait * 2).min(keeping.retry))
}

/// The same as [`keep`] for a bank that other replicas share and that may not answer yet: until it does, nothing may be
/// spent.
pub async fn join<B: Bank>(
    ledger: Ledger,
    org: Arc<str>,
    bank: Arc<B>,
    clock: Clock,
    keeping: Keeping,
    stop: impl Future<Output = ()> + Send,
    report: impl Fn(BankEvent<'_>) + Send,
) {
    let mut stop = pin!(stop);
    let mut retry = None;
    loop {
        match bank.open(&org).await {
            Ok(past) => {
                ledger.join(&past, clock.now());
                break;
            }
            Err(error) => {
                ledger.unsettled(&Statement::default(), keeping.on_loss, clock.now());
                if retry.is_none() {
                    report(BankEvent::Lost(&error));
                }
                retry = Some(later(retry, &keeping));
            }
        }
        let over = tokio::time::timeout(retry.unwrap_or(FIRST_RETRY), stop.as_mut()).await.is_ok();
        ledger.tick(clock.now());
        if over {
            return ledger.stop(clock.now());
        }
    }
    report(BankEvent::Opened);
    if retry.is_some() {
        report(BankEvent::Back);
    }
    keep(ledger, org, bank, clock, keeping, stop, report).await;
}

/// Keeps one org's ledger and its bank in step until `stop` resolves; then stops the ledger, gives the lease back and
/// returns. One such loop runs for each org, in the background.
pub async fn keep<B: Bank>(
    ledger: Ledger,
    org: Arc<str>,
    bank: Arc<B>,
    clock: Clock,
    keeping: Keeping,
    stop: impl Future<Output = ()> + Send,
    report: impl Fn(BankEvent<'_>) + Send,
) {
    let mut stop = pin!(stop);
    let mut retry = None;
    loop {
        ledger.tick(clock.now());
        if let Some(statement) = ledger.statement(clock.now()) {
            let statement = Arc::new(statement);
            match bank.settle(&org, Arc::clone(&statement)).await {
                Ok(lease) => {
                    ledger.settled(&statement, &lease, clock.now());
                    if retry.take().is_some() {
                        report(BankEvent::Back);
                    }
                }
                Err(error) => {
                    ledger.unsettled(&statement, keeping.on_loss, clock.now());
                    if retry.is_none() {
                        report(BankEvent::Lost(&error));
                    }
                    retry = Some(later(retry, &keeping));
                }
            }
        }
        tokio::select! {
            biased;
            () = &mut stop => break,
            // While the bank is lost, an empty lease must not make it busy.
            () = refill(&ledger, keeping.apart), if retry.is_none() => {}
            () = tokio::time::sleep(retry.unwrap_or(keeping.every)) => {}
        }
    }
    ledger.stop(clock.now());
    if let Some(statement) = ledger.statement(clock.now())
        && let Err(error) = bank.close(&org, Arc::new(statement)).await
    {
        report(BankEvent::NotClosed(&error));
    }
}
