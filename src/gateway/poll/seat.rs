//! The seat of one org's poll: takes the chair in the store, keeps it, and gives it back. The poll itself only asks whether
//! the chair is held, which waits for nothing.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use smol_str::SmolStr;
use tokio::sync::watch;
use tokio::time::Instant;

use super::chair::{Chair, LEASE, MARGIN, Move, RENEW, Record};
use super::{Right, Ticket};
use crate::clock::Clock;
use crate::gateway::presence::Presence;
use crate::store::{Seen, Store, StoreError, Swap};
use crate::tasks::Tasks;
use crate::telemetry::{Level, Log};

/// How long a record that nobody renews is kept, so that fences go on from it.
const KEEP: Duration = Duration::from_hours(24);
/// The pause after the store failed.
const AGAIN: Duration = Duration::from_secs(2);
/// How often somebody else may come first before it is looked at anew.
const TRIES: usize = 3;
/// How long giving it back may take.
const LAST: Duration = Duration::from_secs(1);

/// The seats of this replica. Cloning is one reference count.
#[derive(Debug, Clone)]
pub struct Seats(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    presence: Presence,
    clock: Clock,
    log: Log,
    stop: watch::Sender<bool>,
    tasks: Tasks,
}

impl Seats {
    /// None yet. One of those that `presence` knows is elected by way of `store`.
    pub fn new(store: Store, presence: Presence, clock: Clock, log: Log) -> Self {
        let (stop, _) = watch::channel(false);
        Self(Arc::new(Inner { store, presence, clock, log, stop, tasks: Tasks::new() }))
    }

    /// The right to ask `org` until nobody is at the other end of `ended`. Runs inside the control runtime.
    pub fn take(&self, org: &SmolStr, mut ended: watch::Receiver<()>) -> Arc<dyn Right> {
        let seat = Arc::new(Seat { house: Arc::clone(&self.0), org: org.clone(), held: Mutex::new(None) });
        let (kept, mut stop) = (Arc::clone(&seat), self.0.stop.subscribe());
        self.0.tasks.spawn(async move {
            let stopped = async {
                tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => {}
                    // It fails once nobody is there.
                    _ = ended.changed() => {}
                }
            };
            kept.keep(stopped).await;
        });
        seat
    }

    /// Lets other replicas ask at once, and not only when they have seen that this one is gone.
    pub async fn leave(&self) {
        self.0.stop.send_replace(true);
        self.0.tasks.idle().await;
    }
}

/// Where replicas share state, the right to ask one org.
#[derive(Debug)]
struct Seat {
    house: Arc<Inner>,
    org: SmolStr,
    /// Until when this replica may ask, and under which fence.
    held: Mutex<Option<(Instant, u64)>>,
}

impl Right for Seat {
    /// While the store is away nobody can be elected, and a question costs a call: only a replica that knew of no other one asks
    /// on. The others learn from the answers to their callers what is used.
    fn ticket(&self, now: Instant) -> Option<Ticket> {
        if let Some((until, fence)) = *self.held.lock()
            && now < until
        {
            return Some(Ticket::Fence(fence));
        }
        (!self.house.store.is_up() && self.house.presence.is_alone()).then_some(Ticket::Alone)
    }
}

impl Seat {
    /// Keeps the seat until `stopped`.
    async fn keep(&self, stopped: impl Future<Output = ()>) {
        let mut stopped = std::pin::pin!(stopped);
        let key = self.house.store.key(&self.org, "chair");
        let mut chair = Chair::new(Arc::clone(self.house.store.replica()));
        let mut changes = self.house.presence.changes();
        let mut record = None;
        loop {
            let sent = self.house.clock.now();
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
            tokio::select! {
                () = stopped.as_mut() => break,
                () = tokio::time::sleep(wait) => {}
                // Whoever left may have sat here. The sender lives as long as `presence`.
                _ = changes.changed() => {}
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
            self.house.log.event(Level::Info, "poll_chair_taken", &words);
        }
    }

    fn stand(&self) {
        if let Some((_, fence)) = self.held.lock().take() {
            let words = [("org", self.org.as_str().into()), ("fence", fence.into())];
            self.house.log.event(Level::Info, "poll_chair_left", &words);
        }
    }

    async fn reach(&self, key: &str, chair: &mut Chair) -> Result<Reached, StoreError> {
        let mut seen = self.house.store.look(key).await?;
        for _ in 0..TRIES {
            match chair.decide(read(&seen), seen.now, self.house.clock.now()) {
                Move::Stand(wait) => return Ok(Reached::Theirs(wait)),
                Move::Sit(record) => {
                    match self.house.store.swap(key, &seen, record.to_string().as_bytes(), KEEP).await? {
                        Swap::Done(_) => return Ok(Reached::Ours(record)),
                        Swap::Lost(other) => seen = other,
                    }
                }
            }
        }
        Ok(Reached::Theirs(AGAIN))
    }

    async fn give_back(&self, key: &str, held: &Record) -> Result<(), StoreError> {
        let seen = self.house.store.look(key).await?;
        if read(&seen).as_ref().is_some_and(|record| record.fence == held.fence && record.holder == held.holder) {
            self.house.store.swap(key, &seen, Chair::leave(held).to_string().as_bytes(), KEEP).await?;
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
