//! The seat of one org's poll: takes the chair in the store, keeps it, and gives it back. The poll itself only asks whether
//! the chair is held, which waits for nothing.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::chair::{Chair, LEASE, MARGIN, Move, RENEW, Record};
use crate::clock::Clock;
use crate::gateway::presence::Presence;
use crate::store::{Seen, Store, StoreError, Swap};
use crate::telemetry::{Level, Log};

/// How long a record that nobody renews is kept, so that fences go on from it.
const KEEP: Duration = Duration::from_hours(24);
/// The pause after the store failed.
const AGAIN: Duration = Duration::from_secs(2);
/// How often somebody else may come first before it is looked at anew.
const TRIES: usize = 3;
/// How long giving it back may take.
const LAST: Duration = Duration::from_secs(1);

/// What a question is asked under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ticket {
    /// Nobody else could ask.
    Alone,
    /// The chair, under this fence.
    Fence(u64),
}

/// Where replicas share state, the right to ask one org.
#[derive(Debug)]
pub struct Seat {
    store: Store,
    presence: Presence,
    org: String,
    clock: Clock,
    log: Log,
    /// Until when this replica may ask, and under which fence.
    held: Mutex<Option<(Instant, u64)>>,
}

impl Seat {
    /// The seat of the org of this name; nobody sits on it yet.
    pub fn new(store: Store, presence: Presence, org: &str, clock: Clock, log: Log) -> Arc<Self> {
        Arc::new(Self { store, presence, org: org.to_owned(), clock, log, held: Mutex::new(None) })
    }

    /// What may be asked under at `now`, if anything.
    ///
    /// While the store is away nobody can be elected, and a question costs a call: only a replica that knew of no other one asks
    /// on. The others learn from the answers to their callers what is used.
    pub fn ticket(&self, now: Instant) -> Option<Ticket> {
        if let Some((until, fence)) = *self.held.lock()
            && now < until
        {
            return Some(Ticket::Fence(fence));
        }
        (!self.store.is_up() && self.presence.is_alone()).then_some(Ticket::Alone)
    }

    /// Whether what was asked under `ticket` may still be taken in at `now`.
    pub fn holds(&self, ticket: Ticket, now: Instant) -> bool {
        match ticket {
            Ticket::Alone => true,
            Ticket::Fence(_) => self.ticket(now) == Some(ticket),
        }
    }

    /// Keeps the seat until `stopped`.
    pub async fn keep(&self, stopped: impl Future<Output = ()>) {
        let mut stopped = std::pin::pin!(stopped);
        let key = self.store.key(&self.org, "chair");
        let mut chair = Chair::new(Arc::clone(self.store.replica()));
        let mut record = None;
        loop {
            let sent = self.clock.now();
            let wait = match self.reach(&key, &mut chair).await {
                Ok(Reached::Ours(ours)) => {
                    self.sit(ours.fence, sent);
                    record = Some(ours);
                    RENEW
                }
                Ok(Reached::Theirs(wait)) => {
                    self.stand();
                    record = None;
                    wait
                }
                // What is held runs out by itself.
                Err(_) => AGAIN,
            };
            if tokio::time::timeout(wait, stopped.as_mut()).await.is_ok() {
                break;
            }
        }
        self.stand();
        if let Some(record) = record {
            // Without it the next one waits until the lease has run out.
            let _ = tokio::time::timeout(LAST, self.give_back(&key, &record)).await;
        }
    }

    fn sit(&self, fence: u64, sent: Instant) {
        let new = (sent + LEASE.saturating_sub(MARGIN), fence);
        let earlier = self.held.lock().replace(new);
        if earlier.is_none_or(|(_, earlier)| earlier != fence) {
            let words = [("org", self.org.as_str().into()), ("fence", fence.into())];
            self.log.event(Level::Info, "poll_chair_taken", &words);
        }
    }

    fn stand(&self) {
        if let Some((_, fence)) = self.held.lock().take() {
            let words = [("org", self.org.as_str().into()), ("fence", fence.into())];
            self.log.event(Level::Info, "poll_chair_left", &words);
        }
    }

    async fn reach(&self, key: &str, chair: &mut Chair) -> Result<Reached, StoreError> {
        let mut seen = self.store.look(key).await?;
        for _ in 0..TRIES {
            match chair.decide(read(&seen), seen.now, self.clock.now()) {
                Move::Stand(wait) => return Ok(Reached::Theirs(wait)),
                Move::Sit(record) => {
                    match self.store.swap(key, &seen, record.to_string().as_bytes(), KEEP).await? {
                        Swap::Done(_) => return Ok(Reached::Ours(record)),
                        Swap::Lost(other) => seen = other,
                    }
                }
            }
        }
        Ok(Reached::Theirs(AGAIN))
    }

    async fn give_back(&self, key: &str, held: &Record) -> Result<(), StoreError> {
        let seen = self.store.look(key).await?;
        if read(&seen).as_ref().is_some_and(|record| record.fence == held.fence && record.holder == held.holder) {
            self.store.swap(key, &seen, Chair::leave(held).to_string().as_bytes(), KEEP).await?;
        }
        Ok(())
    }
}

enum Reached {
    Ours(Record),
    Theirs(Duration),
}

fn read(seen: &Seen) -> Option<Record> {
    Record::parse(seen.value.as_deref()?)
}
