//! The bank in Redis or Valkey, for any number of replicas.
//!
//! One script for each word of the protocol, run by the store as one step; `books.lua` stands before each of them and is,
//! with them, a transliteration of [`rules`]. All keys of an org have one hash tag. A test runs random sequences against
//! both.

mod codec;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use parking_lot::Mutex;

use super::shared::teller::{Reply, Request, Step, Teller};
use super::shared::words::{Memory, Remembered, Tell, Told};
use super::shared::{rules, state};
use super::{Bank, BankError, Lease, Past, Standing, Statement};
use crate::admission::changes::LOST_LEASES;
use crate::admission::ring::WINDOW_MINUTES;
use crate::clock::Clock;
use crate::store::{Script, Store, StoreError, Value};

/// Questions to the store for one statement: enough to read or to say again everything it can hold.
const MOST_ROUNDS: usize = 5_000;

/// What happened to one org's books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BooksEvent {
    /// The store lost them; this replica said again what it remembers.
    Lost,
    /// Everybody did, or can no longer spend what nobody knows of.
    Recovered,
}

/// Takes in what happened to the books of the org of this name.
pub type Report = Box<dyn Fn(&str, BooksEvent) + Send + Sync>;

/// The bank in a store that several replicas share.
pub struct RedisBank {
    store: Store,
    clock: Clock,
    /// Tells this process's data from those of any other.
    random: u64,
    orgs: Mutex<HashMap<Box<str>, Counter>>,
    report: Report,
}

/// One org's books, and this replica before them.
struct Counter {
    books: Arc<Books>,
    /// `None` while it speaks.
    teller: Option<Teller>,
    standing: Standing,
    /// The books were lost, and it is not known yet that they are whole again.
    mourning: bool,
}

impl RedisBank {
    /// The bank in `store`; nothing is asked yet. `random` is a random number.
    pub fn new(store: Store, clock: Clock, random: u64, report: Report) -> Self {
        Self { store, clock, random, orgs: Mutex::default(), report }
    }

    /// How the books of `org` stand.
    pub fn standing(&self, org: &str) -> Option<Standing> {
        self.orgs.lock().get(org).map(|counter| counter.standing)
    }

    fn take(&self, org: &str) -> Option<(Arc<Books>, Teller)> {
        let mut orgs = self.orgs.lock();
        let counter = orgs.entry(org.into()).or_insert_with(|| Counter {
            books: Arc::new(Books::of(&self.store, org)),
            teller: Some(Teller::new(Arc::clone(self.store.replica()), self.random)),
            standing: Standing::default(),
            mourning: false,
        });
        Some((Arc::clone(&counter.books), counter.teller.take()?))
    }

    /// Says `statement`, or comes and asks what there is.
    async fn speak(&self, org: &str, statement: Option<&Statement>, closing: bool) -> Result<Lease, BankError> {
        let (books, mut teller) = self.take(org).ok_or_else(|| BankError("somebody else speaks".into()))?;
        let known = teller.epoch();
        let now = || self.clock.uptime(self.clock.now());
        let said = exchange(&books, &mut teller, statement, closing, now).await;
        let lost = known != 0 && teller.epoch() != known;
        let mut orgs = self.orgs.lock();
        let Some(counter) = orgs.get_mut(org) else { return said };
        counter.teller = Some(teller);
        let standing = &mut counter.standing;
        match &said {
            Ok(lease) => {
                standing.taken += 1;
                if let Some(shared) = &lease.shared {
                    standing.replicas = shared.replicas.into();
                    standing.recovering = shared.recovering;
                    standing.safe_share = shared.reserve + statement.map_or(0, |statement| statement.sharing.reserve);
                }
            }
            Err(_) => standing.failed += 1,
        }
        standing.epochs += u64::from(lost);
        counter.mourning |= lost;
        let recovered = counter.mourning && said.is_ok() && !counter.standing.recovering;
        counter.mourning &= !recovered;
        drop(orgs);
        for (_, event) in [(lost, BooksEvent::Lost), (recovered, BooksEvent::Recovered)].iter().filter(|(is, _)| *is) {
            (self.report)(org, *event);
        }
        said
    }
}

async fn exchange(
    books: &Books,
    teller: &mut Teller,
    statement: Option<&Statement>,
    closing: bool,
    now: impl Fn() -> Duration,
) -> Result<Lease, BankError> {
    let mut why = "it never comes to an end".into();
    for _ in 0..MOST_ROUNDS {
        let sent = now();
        let reply = match teller.request(statement, closing, sent) {
            Request::Open(fresh) => books.open(fresh).await.map(Reply::Told),
            Request::Settle(tell) => books.settle(&tell, false).await.map(Reply::Told),
            Request::Close(tell) => books.settle(&tell, true).await.map(Reply::Told),
            Request::Remember(memory) => books.remember(&memory).await.map(Reply::Remembered),
        };
        match reply.map(|reply| teller.hear(reply, statement, sent, now())) {
            Ok(Step::Again) => {}
            Ok(Step::Done(lease)) => return Ok(lease),
            Ok(Step::Full) => {
                why = "it has as many replicas as it takes".into();
                break;
            }
            Err(error) => {
                why = error.to_string().into();
                break;
            }
        }
    }
    teller.lost();
    Err(BankError(why))
}

impl Bank for RedisBank {
    async fn open(&self, org: &str) -> Result<Past, BankError> {
        let shared = self.speak(org, None, false).await?.shared.unwrap_or_default();
        Ok(Past {
            now: shared.now,
            entries: shared.entries,
            paused: shared.paused.unwrap_or_default(),
            shared: true,
            ..Past::default()
        })
    }

    async fn settle(&self, org: &str, statement: Arc<Statement>) -> Result<Lease, BankError> {
        self.speak(org, Some(&statement), false).await
    }

    async fn close(&self, org: &str, statement: Arc<Statement>) -> Result<(), BankError> {
        self.speak(org, Some(&statement), true).await.map(|_| ())
    }
}

impl fmt::Debug for RedisBank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBank").field("store", &self.store).finish_non_exhaustive()
    }
}

static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| Scripts::new(|code| code));

/// Books that nobody wrote in for so long hold nothing that counts.
const KEEP_MS: u64 = 2 * 24 * 3_600_000;

struct Scripts {
    open: Script,
    settle: Script,
    remember: Script,
}

impl Scripts {
    fn new(adapt: impl Fn(String) -> String) -> Self {
        let script = |purpose, code| Script::new(purpose, &adapt(with_books(code)));
        Self {
            open: script("bank_open", include_str!("redis/open.lua")),
            settle: script("bank_settle", include_str!("redis/settle.lua")),
            remember: script("bank_remember", include_str!("redis/remember.lua")),
        }
    }
}

/// A script that begins with the rules' constants and the books.
fn with_books(code: &str) -> String {
    let numbers = [
        ("WINDOW_MINUTES", WINDOW_MINUTES.into()),
        ("LEASE_MINUTES", rules::LEASE_MINUTES.into()),
        ("GRACE_MINUTES", rules::GRACE_MINUTES.into()),
        ("KNOWN_WITHIN_MS", rules::KNOWN_WITHIN_MS),
        ("GATHER_MS", rules::GATHER_MS),
        ("ALIVE_WITHIN_MS", rules::ALIVE_WITHIN_MS),
        ("STEP_MS", rules::STEP_MS),
        ("NO_HALF", rules::NO_HALF),
        ("WANTED_MS", rules::WANTED_MS),
        ("CELLS_AT_ONCE", rules::CELLS_AT_ONCE as u64),
        ("MOST_REPLICAS", rules::MOST_REPLICAS as u64),
        ("RELEASED_AT_ONCE", state::RELEASED_AT_ONCE as u64),
        ("KEEP_MS", KEEP_MS),
    ];
    let mut text = String::new();
    for (name, number) in numbers {
        let _ = writeln!(text, "local {name} = {number}");
    }
    for (name, caller) in [("LOST_LEASES", LOST_LEASES), ("LOST_NAMES", state::LOST_NAMES)] {
        let _ = writeln!(text, "local {name} = '{caller}'");
    }
    text + include_str!("redis/books.lua") + code
}

/// One org's books in the store.
#[derive(Debug, Clone)]
struct Books {
    store: Store,
    keys: [String; 4],
}

impl Books {
    fn of(store: &Store, org: &str) -> Self {
        let keys = ["bank", "bank:own", "bank:minutes", "bank:changed"].map(|what| store.key(org, what));
        Self { store: store.clone(), keys }
    }

    async fn ask(&self, script: &Script, args: &codec::Args) -> Result<Value, StoreError> {
        self.store.run(script, &self.keys.each_ref().map(String::as_str), &args.slices()).await
    }

    async fn open(&self, fresh: u64) -> Result<Told, StoreError> {
        let args = codec::open(self.store.replica(), fresh);
        codec::told(&self.ask(&SCRIPTS.open, &args).await?).ok_or(StoreError::Garbage)
    }

    async fn settle(&self, tell: &Tell, closing: bool) -> Result<Told, StoreError> {
        let args = codec::tell(tell, closing);
        codec::told(&self.ask(&SCRIPTS.settle, &args).await?).ok_or(StoreError::Garbage)
    }

    async fn remember(&self, memory: &Memory) -> Result<Remembered, StoreError> {
        let args = codec::memory(memory);
        codec::remembered(&self.ask(&SCRIPTS.remember, &args).await?).ok_or(StoreError::Garbage)
    }
}
