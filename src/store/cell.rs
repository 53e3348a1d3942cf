//! A cell: one value that is replaced only by who knows what it replaces.
//!
//! So rules about shared things are written as plain functions: look, decide, and swap, and decide again if somebody was
//! first. The answer carries the store's time, by which all replicas agree, and the number of the store's *run*: made up by
//! whoever first finds none, it is lost together with all other data, so another run means that they were lost.

use std::sync::LazyLock;
use std::time::Duration;

use super::{Script, Store, StoreError, Value};

static LOOK: LazyLock<Script> = LazyLock::new(|| Script::new("look", include_str!("look.lua")));
static SWAP: LazyLock<Script> = LazyLock::new(|| Script::new("swap", include_str!("swap.lua")));

/// What a cell holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The value; `None` if there is none, or it was kept long enough.
    pub value: Option<Vec<u8>>,
    /// Grows by one with each change; 0 where there is no value.
    pub version: u64,
    /// The store's time, since the Unix epoch.
    pub now: Duration,
    /// Which run of the store that was. Another one means that its data were lost.
    pub run: u64,
}

/// What came of a swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swap {
    /// It holds the new value, under this version.
    Done(Seen),
    /// Somebody was first: this is what it holds.
    Lost(Seen),
}

impl Store {
    /// What the cell `key` holds, which [`Self::key`] has named.
    pub async fn look(&self, key: &str) -> Result<Seen, StoreError> {
        let answer = self.run(&LOOK, &[key, &run_key(key)], &[made_up()?.as_bytes()]).await?;
        read(&answer, 0).ok_or(StoreError::Garbage)
    }

    /// Replaces what `seen` says that the cell `key` holds. The new value is kept for `keep` unless it is replaced. If the
    /// answer is lost, the next look tells whether it was done.
    pub async fn swap(&self, key: &str, seen: &Seen, value: &[u8], keep: Duration) -> Result<Swap, StoreError> {
        let made_up = made_up()?;
        let (version, run, keep) =
            (seen.version.to_string(), seen.run.to_string(), keep.as_millis().max(1).to_string());
        let args: [&[u8]; 5] = [made_up.as_bytes(), run.as_bytes(), version.as_bytes(), keep.as_bytes(), value];
        let answer = self.run(&SWAP, &[key, &run_key(key)], &args).await?;
        let done = answer.many().and_then(|answer| answer.first()?.int());
        let there = read(&answer, 1).ok_or(StoreError::Garbage)?;
        match done {
            Some(1) => Ok(Swap::Done(there)),
            Some(0) => Ok(Swap::Lost(there)),
            _ => Err(StoreError::Garbage),
        }
    }
}

/// The key beside `key` that is lost with it.
fn run_key(key: &str) -> String {
    let tag = key.split_once('}').map_or("", |(tag, _)| tag);
    format!("{tag}}}:run")
}

/// A run's number, if this replica turns out to be the first: below 2^53, so that every script can carry it.
fn made_up() -> Result<String, StoreError> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| StoreError::Refused("no random number".into()))?;
    Ok(((u64::from_be_bytes(bytes) >> 12) + 1).to_string())
}

/// `seconds, microseconds, run, version, value` from the answer's member `from` on.
fn read(answer: &Value, from: usize) -> Option<Seen> {
    let mut members = answer.many()?.get(from..)?.iter();
    let mut number = || u64::try_from(members.next()?.int()?).ok();
    let (seconds, micros, run, version) = (number()?, number()?, number()?, number()?);
    let value = match members.next() {
        Some(Value::Bytes(value)) => Some(value.clone()),
        _ => None,
    };
    Some(Seen { value, version, now: Duration::from_secs(seconds) + Duration::from_micros(micros), run })
}
