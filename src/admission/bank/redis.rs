//! The bank in Redis or Valkey, for any number of replicas.
//!
//! One script for each word of the protocol, run by the store as one step; `books.lua` stands before each of them and is,
//! with them, a transliteration of [`rules`]. All keys of an org have one hash tag. A test runs random sequences against
//! both.

mod codec;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::sync::LazyLock;

use super::shared::words::{Memory, Remembered, Tell, Told};
use super::shared::{rules, state};
use crate::admission::changes::LOST_LEASES;
use crate::admission::ring::WINDOW_MINUTES;
use crate::store::{Script, Store, StoreError, Value};

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
