//! What replicas and the store of their shared bank say to each other.
//!
//! All numbers stay below 2^53, times are milliseconds since the Unix epoch, so that a script of the store, which knows
//! only floating-point numbers, computes them exactly.

use std::sync::Arc;

use crate::admission::bank::Paused;
use crate::admission::time::Minute;
use crate::call::Class;

/// Calls of one caller, class and minute.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// When they were sent.
    pub minute: Minute,
    /// Their class; `None` for leases of which nobody knows whether they were spent.
    pub class: Option<Class>,
    /// Whose they are.
    pub caller: Arc<str>,
}

/// How many calls there are of a [`Key`], all replicas together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Which.
    pub key: Key,
    /// How many.
    pub calls: u64,
}

/// By how much the calls of a [`Key`] changed at one replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// Which.
    pub key: Key,
    /// By how many.
    pub calls: i64,
}

/// What one replica holds in one caller's name, and asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allot {
    /// The caller.
    pub caller: Arc<str>,
    /// Calls it may spend that were not reported.
    pub balance: u64,
    /// Further calls wanted for it.
    pub ask: u64,
    /// How many of those are below its floor.
    pub floor: u64,
    /// Calls that it may spend in 24 h.
    pub ceiling: u64,
}

/// The newest answer of Salesforce to the question what is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadAt {
    /// Calls used by the whole org.
    pub used: u64,
    /// Calls allowed.
    pub limit: u64,
    /// When it was heard.
    pub at: u64,
}

/// What a replica tells and asks: everything since the last one that was answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tell {
    /// Who.
    pub replica: Arc<str>,
    /// Of which data of the store it believes to speak.
    pub epoch: u64,
    /// Counts what the replica tells. One told twice does no harm.
    pub seq: u64,
    /// Up to which version it knows all cells.
    pub known: u64,
    /// Its ledger's time.
    pub at: u64,
    /// What changed since what it told before.
    pub deltas: Vec<Delta>,
    /// How many calls of ours the window may hold, all replicas together, what is leased included.
    pub cap: u64,
    /// How many of them are for callers below their floors.
    pub held: u64,
    /// Calls that others than us used, if Salesforce said what is used.
    pub foreign: Option<u64>,
    /// Calls of the common lease that may be spent and were not reported.
    pub balance: u64,
    /// Further ones that are wanted.
    pub ask: u64,
    /// How many of those are below their callers' floors.
    pub floor: u64,
    /// Calls that it may spend beyond its lease while it cannot reach the store.
    pub reserve: u64,
    /// Further ones that are wanted.
    pub reserve_ask: u64,
    /// Some call waits for what is asked for.
    pub waiting: bool,
    /// What is leased in callers' own names, where that changed or is asked for.
    pub allotted: Vec<Allot>,
    /// What Salesforce last said, if it said anything new.
    pub reading: Option<ReadAt>,
    /// Everything that is paused, if the operator changed it here.
    pub paused: Option<Paused>,
    /// The version of the pauses it knows.
    pub paused_known: u64,
}

/// What a replica knows of another one, or of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Who.
    pub replica: Arc<str>,
    /// The last it told.
    pub seq: u64,
    /// Calls it may spend of the common lease and of its reserve.
    pub out: u64,
    /// Calls it may spend in callers' own names.
    pub named: u64,
    /// Last minute in which it may.
    pub until: Minute,
}

/// What the store answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Which data the store has.
    pub epoch: u64,
    /// The store's time.
    pub now: u64,
    /// The store's version.
    pub version: u64,
    /// Further calls of the common lease.
    pub granted: u64,
    /// Further calls of the reserve.
    pub reserve: u64,
    /// Further calls of each allotment told, in its order.
    pub allotted: Vec<u64>,
    /// Last minute in which all that is leased may be spent.
    pub until: Minute,
    /// Cells that changed since the version the replica knew: all replicas' calls, this one's included.
    pub cells: Vec<Cell>,
    /// The version up to which `cells` are complete.
    pub through: u64,
    /// There are more: ask again.
    pub more: bool,
    /// Calls that others may spend or have spent without telling.
    pub others: u64,
    /// Every replica whose lease has not ended.
    pub members: Vec<Known>,
    /// At most so many calls are granted to others before this replica is answered again.
    pub half: u64,
    /// Some other replica has calls waiting and got too little.
    pub scarce: bool,
    /// Data were lost, and somebody may still know more of them.
    pub recovering: bool,
    /// What Salesforce last said to any replica.
    pub reading: Option<ReadAt>,
    /// The version of the pauses.
    pub paused_version: u64,
    /// Everything that is paused, if the replica does not know it.
    pub paused: Option<Paused>,
}

/// What becomes of a [`Tell`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It is written down.
    Settled(Box<Answer>),
    /// A later one was written down already.
    Stale,
    /// The store has other data, or none, or does not know the replica: it has to say what it remembers.
    Strange {
        /// Which data it has; 0 for none.
        epoch: u64,
    },
}

/// What a replica remembers of data that the store has lost, a page of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// Who remembers.
    pub replica: Arc<str>,
    /// The data it found; 0 for none.
    pub epoch: u64,
    /// Becomes the epoch if the store has none.
    pub fresh: u64,
    /// Its ledger's time.
    pub at: u64,
    /// The version that it remembers; 0 if its lease ended before the data were lost, so that it knows too little of others.
    pub version: u64,
    /// [`Answer::half`] of then.
    pub half: u64,
    /// It had not been answered for longer than [`KNOWN_WITHIN_MS`](super::rules::KNOWN_WITHIN_MS).
    pub stale: bool,
    /// All replicas of then, itself included.
    pub members: Vec<Known>,
    /// Calls of all replicas, as far as it knows.
    pub cells: Vec<Cell>,
    /// There are no further pages.
    pub last: bool,
    /// The version of the pauses it knows.
    pub paused_version: u64,
    /// Everything that was paused.
    pub paused: Paused,
}

/// What becomes of a [`Memory`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered {
    /// Which data the store has now.
    pub epoch: u64,
    /// The last of what this replica told that they contain.
    pub seq: u64,
    /// Whether it was taken in; if not, the epoch is another one, and the replica begins again.
    pub taken: bool,
}
