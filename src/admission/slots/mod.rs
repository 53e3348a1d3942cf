//! Slots: which calls may be in the air, so that calls that run long never crowd out the others.
//!
//! Salesforce lets only so many calls run for 20 s and longer; with all those places taken it refuses every new call, the
//! shortest too (facts 1.4). So a call that is likely to grow that old holds a slot before it is sent, batch may hold only
//! part of them, and who cannot go now waits in a bounded queue. Calls that grow old unexpectedly are overdrafts: they take
//! from what batch may hold. A call whose caller left keeps its slot as a ghost for as long as Salesforce may work on it.
//!
//! | file | decides |
//! |---|---|
//! | `book` | may this call fly, wait, or neither |
//! | `air` | how old the calls in the air are, which count |
//! | `sketch`, `estimates`, `presume` | how long a call of its kind takes |
//! | `line` | who is next |
//! | `turnover` | how fast places in the air come free, where they are bounded |
//! | `capacity` | how many slots others leave us |
//! | `share` | how replicas divide the slots between them |
//! | `shared` | what this replica may use of them |
//! | `view` | everything there is to see |
//!
//! All of it but this file is pure. A call that need not wait takes a short lock when it comes and one when it ends.

mod air;
mod book;
mod capacity;
mod estimates;
mod line;
mod presume;
mod settings;
mod share;
mod shared;
pub mod sketch;
#[cfg(test)]
mod tests;
mod turnover;
mod view;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::admission::settings::Mode;
use crate::call::Length;
use crate::clock::Clock;
use crate::hold::{Fate, Hold, Keeper};
use book::{Book, Said};

pub use book::{Ask, Busy};
pub use presume::{Presumed, is_weightless, presumed};
pub use settings::{Hours, MOST_HOURS, QueueSettings, SlotSettings};
pub use shared::{Offer, Sight, Unusable};
pub use view::{LongCall, SharedView, SlotsView, WaitingView};

/// How often a call that waits looks whether time alone has changed anything.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// One org's slots. Cloning is one reference count.
#[derive(Clone)]
pub struct Slots(Arc<Shared>);

struct Shared {
    /// Keys the fingerprints of calls.
    key: RandomState,
    state: Mutex<State>,
    /// Told when there is news for the replicas that share the slots.
    news: Notify,
}

struct State {
    book: Book,
    /// Whom to tell that it may fly.
    waiting: HashMap<u64, oneshot::Sender<Hold>, RandomState>,
}

/// What became of a call that asked.
#[derive(Debug)]
pub enum Entered {
    /// It may be sent.
    Free(Admitted),
    /// It has to wait.
    Waits(Ticket),
    /// It may not even wait. How long it is expected to run, and why.
    Busy(Length, Busy),
}

/// How the sharing of slots stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sharing {
    /// Some slots are used or waited for.
    pub busy: bool,
    /// The store has lost its data, and nobody gets more until every replica has spoken.
    pub settling: bool,
}

/// A call that may be sent.
#[derive(Debug)]
pub struct Admitted {
    /// Its place; none where nothing is watched.
    pub hold: Option<Hold>,
    /// How long it is expected to run.
    pub length: Length,
    /// It would have had to wait if decisions were binding.
    pub would_wait: bool,
}

/// A place in the queue. Dropping it leaves the queue.
pub struct Ticket {
    slots: Slots,
    number: u64,
    granted: oneshot::Receiver<Hold>,
    until: Instant,
    /// Its place in the order of turns when it came, among those who wait for the same, counted from 1.
    pub position: usize,
    /// How long the call is expected to run.
    pub length: Length,
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slots")
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({})", self.number)
    }
}

impl Slots {
    /// No calls in the air, and nothing known of any.
    pub fn new(settings: SlotSettings, now: Instant) -> Self {
        let state = State { book: Book::new(settings, now), waiting: HashMap::default() };
        Self(Arc::new(Shared { key: RandomState::new(), state: Mutex::new(state), news: Notify::new() }))
    }

    /// What fingerprints of calls are keyed with.
    pub fn key(&self) -> &RandomState {
        &self.0.key
    }

    /// May this call fly at `now`? `presumed` says how long it is presumed to take if nothing is known of its kind.
    pub fn enter(&self, ask: &Ask, presumed: impl FnOnce() -> Presumed, now: Instant) -> Entered {
        let mut state = self.0.state.lock();
        if state.book.settings.mode == Mode::Off {
            return Entered::Free(Admitted { hold: None, length: Length::Short, would_wait: false });
        }
        let entered = match state.book.enter(ask, presumed, now) {
            Said::Go { place, length, would_wait } => {
                let hold = Some(Hold::new(Arc::clone(&self.0) as Arc<dyn Keeper>, place, now));
                Entered::Free(Admitted { hold, length, would_wait })
            }
            Said::Wait { number, length, position, until } => {
                let (tell, granted) = oneshot::channel();
                state.waiting.insert(number, tell);
                if state.book.sharer.is_some() && length == Length::Long {
                    self.0.news.notify_one();
                }
                Entered::Waits(Ticket { slots: self.clone(), number, granted, until, position, length })
            }
            Said::No(length, busy) => Entered::Busy(length, busy),
        };
        self.0.deliver(state);
        entered
    }

    /// Salesforce refused a call sent at `sent` because too many run long.
    pub fn refused(&self, sent: Instant, now: Instant) {
        self.with(|book| book.refused(sent, now));
    }

    /// Puts other rules in force. What is in the air, who waits and what was learnt stays.
    pub fn reconfigure(&self, settings: SlotSettings, now: Instant) {
        self.with(|book| book.reconfigure(settings, now));
    }

    /// How many slots others seem to leave, of how many, and from which age a call takes one.
    pub fn extent(&self) -> (u32, u32, Duration) {
        let state = self.0.state.lock();
        (state.book.effective(), state.book.settings.slots, state.book.settings.after)
    }

    /// From now on it uses only what the store grants to `replica`: at first nothing.
    pub fn share(&self, replica: &str) {
        self.with(|book| book.share(replica));
    }

    /// Resolves when there is something to tell the other replicas.
    pub async fn news(&self) {
        self.0.news.notified().await;
    }

    /// Whether others should soon hear of this process again, and whether it gets no more because others have not spoken.
    pub fn sharing(&self) -> Sharing {
        self.with(|book| book.sharing())
    }

    /// The table that should replace the one of `sight`; `None` if nothing is shared.
    pub fn offer(&self, sight: &Sight<'_>, now: Instant) -> Option<Result<Offer, Unusable>> {
        self.with(|book| book.offer(sight, now))
    }

    /// The same, as this process's last word.
    pub fn farewell(&self, sight: &Sight<'_>, now: Instant) -> Option<Result<Offer, Unusable>> {
        self.with(|book| book.farewell(sight, now))
    }

    /// The store holds what `offer` says, in this version.
    pub fn confirm(&self, offer: &Offer, version: u64, now: Instant) {
        self.with(|book| book.confirm(offer, version, now));
    }

    /// The store was not reached. What was granted holds until its lease ends; with `stop` nothing more is let in.
    pub fn unshared(&self, stop: bool) {
        self.with(|book| book.unshared(stop));
    }

    /// Everything there is to see at `now`.
    pub fn view(&self, now: Instant) -> SlotsView {
        self.with(|book| {
            book.advance(now);
            SlotsView::of(book)
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Book) -> T) -> T {
        let mut state = self.0.state.lock();
        let result = act(&mut state.book);
        self.0.deliver(state);
        result
    }
}

impl Shared {
    /// Tells those who may fly, once the lock is gone: a hold that nobody takes comes back here.
    fn deliver(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if state.book.grants.is_empty() {
            return;
        }
        let (grants, now) = (std::mem::take(&mut state.book.grants), state.book.now());
        let told: Vec<_> = grants
            .into_iter()
            .map(|(number, place)| {
                (state.waiting.remove(&number), Hold::new(Arc::clone(self) as Arc<dyn Keeper>, place, now))
            })
            .collect();
        drop(state);
        for (tell, hold) in told {
            // A receiver that has just left drops the hold, which lets the next one in.
            if let Some(tell) = tell {
                let _ = tell.send(hold);
            }
        }
    }
}

impl Keeper for Shared {
    fn tell(self: Arc<Self>, place: u32, fate: Fate) {
        let mut state = self.state.lock();
        state.book.tell(place, fate);
        if state.book.can_give() {
            self.news.notify_one();
        }
        self.deliver(state);
    }
}

impl Ticket {
    /// Waits for its turn, as long as it may.
    pub async fn granted(&mut self, clock: Clock) -> Result<Hold, Busy> {
        loop {
            let now = clock.now();
            let look = self.until.min(now + LOOK_EVERY);
            match tokio::time::timeout_at(look, &mut self.granted).await {
                Ok(Ok(hold)) => return Ok(hold),
                // Nobody is left who could tell.
                Ok(Err(_)) => return Err(Busy::Waited),
                Err(_) => {}
            }
            let now = clock.now();
            if now >= self.until {
                // Its turn may have come in the same moment.
                return self.granted.try_recv().map_err(|_| Busy::Waited);
            }
            self.slots.with(|book| book.advance(now));
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.slots.0.state.lock();
        state.waiting.remove(&self.number);
        state.book.leave(self.number);
        self.slots.0.deliver(state);
    }
}
