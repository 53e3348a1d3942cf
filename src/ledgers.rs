//! One ledger for each org, for as long as the process lives, and the bank that remembers them.
//!
//! A reload finds the ledger of an org that stays by its name and changes its rules; what was used stays.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use smol_str::SmolStr;
use tokio::sync::watch;

use crate::admin::{Order, Unknown, Whom};
#[cfg(feature = "redis")]
use crate::admission::bank::join;
#[cfg(feature = "redis")]
use crate::admission::bank::redis::{BooksEvent, RedisBank};
use crate::admission::bank::sqlite::{OpenError, Present, SqliteBank};
use crate::admission::bank::{Bank as _, BankEvent, Keeping, Standing, keep};
use crate::admission::{self, AccountId, Blind, Funding, Ledger, Mode, OrgSettings, PerMille, Timeline};
use crate::clock::{Clock, Uptime};
#[cfg(feature = "redis")]
use crate::config::SharedLoss;
use crate::config::{self, Caller, Config, DailyMode, OnLoss, Org, State};
#[cfg(feature = "redis")]
use crate::store::Store;
use crate::tasks::Tasks;
use crate::telemetry::{Level, Log};

/// The gateway's own account, for its questions what is used. No caller can have this name.
pub const POLLER: &str = "(limits poll)";
/// Least time between two statements to a shared bank: four a second for each org and replica.
#[cfg(feature = "redis")]
const SHARED_APART: Duration = Duration::from_millis(250);
/// How often a shared bank that is lost is tried again.
#[cfg(feature = "redis")]
const SHARED_RETRY: Duration = Duration::from_secs(1);
/// How often calls that have come back are released where no bank is told.
const TICK: Duration = Duration::from_secs(1);

/// All ledgers of a process. Cloning is one reference count.
#[derive(Debug, Clone)]
pub struct Ledgers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    log: Log,
    bank: Banks,
    open: Mutex<HashMap<SmolStr, Ledger>>,
    /// Orgs whose shared books were not read yet.
    unread: watch::Sender<usize>,
    stop: watch::Sender<bool>,
    keepers: Tasks,
}

/// What remembers.
#[derive(Debug)]
enum Banks {
    None,
    Sqlite(Arc<SqliteBank>, Keeping),
    #[cfg(feature = "redis")]
    Redis(Arc<RedisBank>, Keeping),
}

/// Tells how the books stand that replicas share. It keeps no file open.
#[cfg(feature = "redis")]
#[derive(Debug, Clone, Default)]
pub struct Sharers(Option<Arc<RedisBank>>);

/// Tells that no books are shared.
#[cfg(not(feature = "redis"))]
#[derive(Debug, Clone, Default)]
pub struct Sharers {}

impl Sharers {
    /// How the books of `org` stand; `None` if they are not shared.
    #[cfg(feature = "redis")]
    pub fn standing(&self, org: &str) -> Option<Standing> {
        self.0.as_ref()?.standing(org)
    }

    /// They are not shared.
    #[cfg(not(feature = "redis"))]
    pub fn standing(&self, _: &str) -> Option<Standing> {
        None
    }
}

impl Ledgers {
    /// Ledgers that begin empty and are forgotten with the process.
    pub fn forgetful(clock: Clock, log: Log) -> Self {
        Self::new(clock, log, Banks::None)
    }

    /// Ledgers remembered as `state` says, unless that is a shared store: for those there is [`Self::shared`]. What an earlier process left there is read, and the leases it did not give
    /// back are counted as spent.
    pub fn open(state: &State, clock: Clock, log: Log) -> Result<Self, OpenError> {
        let (path, on_loss) = match state {
            State::Memory => return Ok(Self::forgetful(clock, log)),
            State::Folder { path, on_loss } => (path, on_loss),
            State::Redis { .. } => return Err(OpenError::Shared),
        };
        let present = Present { wall: clock.wall(clock.now()), uptime: Uptime::read() };
        let bank = SqliteBank::open(path, present)?;
        let on_loss = match on_loss {
            OnLoss::Refuse => admission::OnLoss::Refuse,
            OnLoss::Continue => admission::OnLoss::Continue,
        };
        Ok(Self::new(clock, log, Banks::Sqlite(Arc::new(bank), Keeping { on_loss, ..Keeping::default() })))
    }

    /// Ledgers remembered in `store`, which other replicas share. It need not answer yet: until it does, nothing may be
    /// spent. `random` is a random number.
    #[cfg(feature = "redis")]
    pub fn shared(store: Store, on_loss: SharedLoss, random: u64, clock: Clock, log: Log) -> Self {
        let on_loss = match on_loss {
            SharedLoss::Refuse => admission::OnLoss::Refuse,
            SharedLoss::SpendLease => admission::OnLoss::SpendLease,
            SharedLoss::SafeShare => admission::OnLoss::SafeShare,
        };
        let said = log.clone();
        let report = move |org: &str, event: BooksEvent| {
            let (level, name) = match event {
                BooksEvent::Lost => (Level::Warn, "bank_epoch"),
                BooksEvent::Recovered => (Level::Info, "bank_recovered"),
            };
            said.event(level, name, &[("org", org.into())]);
        };
        let bank = Arc::new(RedisBank::new(store, clock, random, Box::new(report)));
        let keeping = Keeping { on_loss, apart: SHARED_APART, retry: SHARED_RETRY, ..Keeping::default() };
        Self::new(clock, log, Banks::Redis(bank, keeping))
    }

    fn new(clock: Clock, log: Log, bank: Banks) -> Self {
        let (stop, _) = watch::channel(false);
        let (unread, _) = watch::channel(0);
        Self(Arc::new(Inner { clock, log, bank, open: Mutex::default(), unread, stop, keepers: Tasks::new() }))
    }

    /// Waits until the shared books of all orgs were read, but not longer than `patience`.
    pub async fn read(&self, patience: Duration) {
        let mut unread = self.0.unread.subscribe();
        // Whoever is not read then is read later; until then nothing of it may be spent.
        let _ = tokio::time::timeout(patience, unread.wait_for(|unread| *unread == 0)).await;
    }

    /// What tells how the books stand that replicas share.
    pub fn sharers(&self) -> Sharers {
        match &self.0.bank {
            #[cfg(feature = "redis")]
            Banks::Redis(bank, _) => Sharers(Some(Arc::clone(bank))),
            _ => Sharers::default(),
        }
    }

    /// The ledger of each org of `config`, in the order of their ids. An org met for the first time gets one, which goes
    /// on where an earlier process left off; the others keep their rules. Runs inside the control runtime.
    pub fn of(&self, config: &Config) -> Vec<Ledger> {
        let mut open = self.0.open.lock();
        config
            .orgs
            .iter()
            .map(|org| {
                if let Some(ledger) = open.get(&org.name) {
                    return ledger.clone();
                }
                let ledger = self.0.first(&org.name, settings(org, config), &shares(org, config));
                open.insert(org.name.clone(), ledger.clone());
                ledger
            })
            .collect()
    }

    /// Puts the rules of `config` in force, for the orgs that [`Self::of`] knows; returns the accounts of its callers with
    /// each of them, in the order of their ids.
    pub fn put(&self, config: &Config) -> Vec<Vec<AccountId>> {
        let now = self.0.clock.now();
        let open = self.0.open.lock();
        let put = |org: &Org| {
            open.get(&org.name)
                .map(|ledger| ledger.reconfigure(settings(org, config), &shares(org, config), now))
                .unwrap_or_default()
        };
        config.orgs.iter().map(put).collect()
    }

    /// Pauses or resumes what `order` names. It is written down within a second, and so outlasts a restart.
    pub fn pause(&self, order: &Order) -> Result<(), Unknown> {
        let ledger = self.0.open.lock().get(order.org.as_str()).cloned().ok_or(Unknown::Org)?;
        let (now, paused) = (self.0.clock.now(), order.paused);
        match &order.whom {
            Whom::Class(class) => ledger.pause_class(*class, paused, now),
            Whom::Caller(caller) if ledger.pause_caller(caller, paused, now) => {}
            Whom::Caller(_) => return Err(Unknown::Caller),
        }
        let (kind, name) = match &order.whom {
            Whom::Caller(caller) => ("caller", caller.as_str()),
            Whom::Class(class) => ("class", class.as_str()),
        };
        let event = if paused { "paused" } else { "resumed" };
        self.0.log.event(Level::Info, event, &[("org", order.org.as_str().into()), (kind, name.into())]);
        Ok(())
    }

    /// Stops admitting, writes down what was spent, and gives back what was leased.
    pub async fn close(&self) {
        self.0.stop.send_replace(true);
        self.0.keepers.idle().await;
    }
}

impl Inner {
    fn first(&self, org: &SmolStr, settings: OrgSettings, shares: &[admission::Share]) -> Ledger {
        let (clock, now) = (self.clock, self.clock.now());
        let mut stop = self.stop.subscribe();
        let stopped = async move {
            // The sender lives as long as the process.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        let (log, name) = (self.log.clone(), org.clone());
        let report = move |event: BankEvent<'_>| announce(&log, &name, event);
        let timeline = || Timeline::start(clock, now, Duration::ZERO);
        match &self.bank {
            Banks::None => {
                let ledger = Ledger::new(settings, shares, Funding::Unbounded, timeline(), now);
                self.keepers.spawn_background(tick(ledger.clone(), clock, stopped));
                ledger
            }
            Banks::Sqlite(bank, keeping) => {
                // The file was read when it was opened, so this is answered at once.
                let past = bank.open(org).now_or_never().and_then(Result::ok).unwrap_or_default();
                let ledger = Ledger::resume(settings, shares, &past, clock, now);
                let (bank, org) = (Arc::clone(bank), Arc::from(org.as_str()));
                self.keepers.spawn(keep(ledger.clone(), org, bank, clock, *keeping, stopped, report));
                ledger
            }
            #[cfg(feature = "redis")]
            Banks::Redis(bank, keeping) => {
                let ledger = Ledger::new(settings, shares, Funding::Leased, timeline(), now);
                let (bank, org) = (Arc::clone(bank), Arc::from(org.as_str()));
                let unread = self.unread.clone();
                unread.send_modify(|unread| *unread += 1);
                let report = move |event: BankEvent<'_>| {
                    if matches!(event, BankEvent::Opened) {
                        unread.send_modify(|unread| *unread -= 1);
                    }
                    report(event);
                };
                self.keepers.spawn(join(ledger.clone(), org, bank, clock, *keeping, stopped, report));
                ledger
            }
        }
    }
}

async fn tick(ledger: Ledger, clock: Clock, stopped: impl Future<Output = ()>) {
    let mut stopped = std::pin::pin!(stopped);
    while tokio::time::timeout(TICK, stopped.as_mut()).await.is_err() {
        ledger.tick(clock.now());
    }
    ledger.stop(clock.now());
}

fn announce(log: &Log, org: &str, event: BankEvent<'_>) {
    let (level, name, error) = match event {
        BankEvent::Lost(error) => (Level::Error, "bank_lost", error.to_string()),
        BankEvent::Opened => return,
        BankEvent::Back => (Level::Info, "bank_back", String::new()),
        BankEvent::NotClosed(error) => (Level::Error, "bank_not_closed", error.to_string()),
    };
    log.event(level, name, &[("org", org.into()), ("error", error.as_str().into())]);
}

/// What the configuration says of callers, and of the gateway itself where it asks `org` what is used, in the ledger's
/// words.
fn shares(org: &Org, config: &Config) -> Vec<admission::Share> {
    let share = |caller: &Caller| admission::Share {
        name: caller.name.as_str().into(),
        floor: caller.daily.floor,
        ceiling: caller.daily.ceiling,
        weight: caller.daily.weight,
    };
    let poller = org.daily.poll.map(|_| admission::Share::borrower(POLLER));
    config.callers.iter().map(share).chain(poller).collect()
}

/// What the configuration says of `org`, in the ledger's words.
fn settings(org: &Org, config: &Config) -> OrgSettings {
    let daily = &org.daily;
    // Replicas that refuse nothing, each for itself, pass every limit: one that the operator set then counts.
    let assumed = daily.assume.or(daily.limit.filter(|_| matches!(config.state, State::Redis { .. })));
    let minutes = u32::try_from(daily.first_reading_within.as_secs().div_ceil(60)).unwrap_or(u32::MAX);
    OrgSettings {
        mode: match daily.mode {
            DailyMode::Off => Mode::Off,
            DailyMode::Observe => Mode::Observe,
            DailyMode::Enforce => Mode::Enforce,
        },
        limit: daily.limit,
        keep_free: PerMille::new(daily.keep_free),
        before_reading: daily.before_first_reading,
        patience: minutes,
        blind: assumed.map_or(Blind::Observe, Blind::Assume),
        ladder: ladder(&config.ladder),
        ..OrgSettings::default()
    }
}

/// The steps by which scarcity narrows what is let in, in the ledger's words.
pub fn ladder(ladder: &config::Ladder) -> admission::Ladder {
    admission::Ladder {
        lean: PerMille::new(ladder.lean),
        pace_batch: PerMille::new(ladder.pace_batch),
        stop_batch: PerMille::new(ladder.stop_batch),
        stop_standard: PerMille::new(ladder.stop_standard),
        back_below: PerMille::new(ladder.back_below),
    }
}
