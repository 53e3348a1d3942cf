//! What a call holds for as long as Salesforce works on it: a place among the calls in the air, and perhaps a slot.
//!
//! A [`Hold`] is made where a call is admitted and travels with its exchange, also when the caller has left. Whoever has it
//! says what became of the exchange; dropping it says that nothing was sent, or that what was sent has broken off.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

/// What becomes of an exchange, as far as its place is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its message was handed over now, and not when it was admitted.
    Sent(Instant),
    /// Its caller left; somebody goes on waiting for its end.
    Left(Instant),
    /// It has ended, and took as long as it took.
    Ended(Instant),
    /// Nobody waits for it any more, but Salesforce may go on working.
    Lost(Instant),
    /// Nothing was sent, or it broke off: Salesforce does not work on it, and how long it took says nothing.
    Gone,
}

/// Keeps the places.
pub trait Keeper: Send + Sync {
    /// This is what became of the exchange at `place`. After anything but [`Fate::Sent`] and [`Fate::Left`] the place is
    /// not spoken of again.
    fn tell(self: Arc<Self>, place: u32, fate: Fate);
}

/// One call's place. It has one owner at a time, and is given back when that owner lets go.
pub struct Hold {
    keeper: Option<Arc<dyn Keeper>>,
    place: u32,
    since: Instant,
    beside: Option<Box<Hold>>,
}

impl Hold {
    /// The hold on `place`, which counts from `since`.
    pub fn new(keeper: Arc<dyn Keeper>, place: u32, since: Instant) -> Self {
        Self { keeper: Some(keeper), place, since, beside: None }
    }

    /// The same, and `other` with it: what becomes of one becomes of both.
    #[must_use]
    pub fn beside(mut self, other: Option<Self>) -> Self {
        if let Some(other) = other {
            self.beside = Some(Box::new(other.beside(self.beside.take().map(|own| *own))));
        }
        self
    }

    /// The message is handed over at `now`.
    pub fn sent(&mut self, now: Instant) {
        if now > self.since {
            self.since = now;
            self.tell(Fate::Sent(now));
        }
        if let Some(beside) = &mut self.beside {
            beside.sent(now);
        }
    }

    /// The caller has left, and the exchange goes on without it.
    pub fn left(&self, now: Instant) {
        self.tell(Fate::Left(now));
        if let Some(beside) = &self.beside {
            beside.left(now);
        }
    }

    /// The exchange ended at `now`.
    pub fn ended(self, now: Instant) {
        self.over(Fate::Ended(now));
    }

    /// From `now` on nobody will know when it ends.
    pub fn lost(self, now: Instant) {
        self.over(Fate::Lost(now));
    }

    fn over(mut self, fate: Fate) {
        if let Some(keeper) = self.keeper.take() {
            keeper.tell(self.place, fate);
        }
        if let Some(beside) = self.beside.take() {
            beside.over(fate);
        }
    }

    fn tell(&self, fate: Fate) {
        if let Some(keeper) = &self.keeper {
            Arc::clone(keeper).tell(self.place, fate);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.tell(self.place, Fate::Gone);
        }
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hold({})", self.place)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Default)]
    struct Told(Mutex<Vec<(u32, Fate)>>);

    impl Keeper for Told {
        fn tell(self: Arc<Self>, place: u32, fate: Fate) {
            self.0.lock().push((place, fate));
        }
    }

    #[tokio::test]
    async fn its_end_is_told_exactly_once() {
        let told = Arc::new(Told::default());
        let now = crate::clock::Clock::start().now();
        let later = now + Duration::from_secs(1);
        let hold = |place| Hold::new(Arc::clone(&told) as Arc<dyn Keeper>, place, now);
        let mut first = hold(1);
        first.sent(now);
        first.sent(later);
        first.left(later);
        first.ended(later);
        hold(2).lost(later);
        drop(hold(3));
        hold(4).beside(None).beside(Some(hold(5))).ended(later);
        drop(hold(6).beside(Some(hold(7))));
        let expected = [
            (1, Fate::Sent(later)),
            (1, Fate::Left(later)),
            (1, Fate::Ended(later)),
            (2, Fate::Lost(later)),
            (3, Fate::Gone),
            (4, Fate::Ended(later)),
            (5, Fate::Ended(later)),
            (6, Fate::Gone),
            (7, Fate::Gone),
        ];
        assert_eq!(*told.0.lock(), expected);
    }
}
