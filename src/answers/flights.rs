//! Single flight: of requests that ask the same at the same time, one is sent, and all get its answer.
//!
//! The first to ask leads, the others wait for it. A flight ends in one of three ways: its answer has landed and all who wait
//! get it; it cannot be shared, and each goes alone; or its leader has left or was refused, and one of those who wait leads
//! next, under its own name. Who waits is bounded, and so is how long. If who joins is more urgent than who leads, the flight
//! becomes as urgent, for as long as it waits for its turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use ahash::AHashMap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::kept::Whole;
use super::question::Key;
use crate::call::Class;

/// Requests that wait for one flight; more go alone.
const MAX_WAITING: usize = 10_000;

/// What is known of a flight.
#[derive(Debug, Clone)]
pub enum State {
    /// It is in the air.
    InAir,
    /// Its answer is here for everybody.
    Landed(Arc<Landed>),
    /// Its answer is for its leader only.
    Alone,
    /// Its leader is gone, or was refused.
    Lost,
}

/// An answer for everybody who waits for it.
#[derive(Debug)]
pub struct Landed {
    /// The answer.
    pub whole: Arc<Whole>,
    /// API calls it cost.
    pub cost: u32,
}

/// A flight others may wait for.
#[derive(Debug)]
pub struct Flight {
    /// The number of the last change when its call was sent.
    as_of: u64,
    /// How urgent its leader is.
    class: Class,
    urgency: Arc<Urgency>,
    state: watch::Sender<State>,
    waiting: AtomicUsize,
}

/// How urgent a flight is: as urgent as the most urgent of those who wait for it.
#[derive(Debug)]
pub struct Urgency {
    /// The class by its index, or [`Self::NOT_YET`].
    class: AtomicU8,
    raised: Notify,
}

impl Default for Urgency {
    fn default() -> Self {
        Self { class: AtomicU8::new(Self::NOT_YET), raised: Notify::new() }
    }
}

impl Urgency {
    /// Its call does not ask for its turn yet: what it waits for does not go by class.
    const NOT_YET: u8 = u8::MAX;

    /// Its call, of this class, asks for its turn, or has had it: the class it goes by.
    pub fn asks(&self, class: Class) -> Class {
        self.class.fetch_min(class.index() as u8, Ordering::AcqRel);
        self.class().unwrap_or(class)
    }

    /// Somebody of this class would wait for it; `false` if that would take longer than going alone.
    fn raise(&self, class: Class) -> bool {
        if self.class().is_none() {
            return false;
        }
        let wanted = class.index() as u8;
        if self.class.fetch_min(wanted, Ordering::AcqRel) > wanted {
            self.raised.notify_one();
        }
        true
    }

    fn class(&self) -> Option<Class> {
        Class::ALL.get(usize::from(self.class.load(Ordering::Acquire))).copied()
    }

    /// Ready when it is more urgent than `class`, with what it is then. For one who waits.
    pub async fn above(&self, class: Class) -> Class {
        loop {
            if let Some(wanted) = self.class().filter(|wanted| *wanted < class) {
                return wanted;
            }
            self.raised.notified().await;
        }
    }
}

/// All flights of the process.
#[derive(Debug, Default)]
pub struct Flights(Mutex<AHashMap<Key, Arc<Flight>>>);

/// What becomes of a request.
#[derive(Debug)]
pub enum Boarding {
    /// It leads.
    Leads(Box<Leader>),
    /// It waits.
    Waits(Seat),
    /// It goes alone.
    Alone,
}

impl Flights {
    /// Joins the flight of `key`, or leads one. `may_join` says whether nothing its answer depends on has changed since the
    /// number it is given. Who is more urgent than its leader joins once its call goes by class, and lends it his own; before,
    /// he would wait as its leader does.
    pub fn board(
        self: &Arc<Self>,
        key: &Key,
        as_of: u64,
        class: Class,
        may_join: impl FnOnce(u64) -> bool,
    ) -> Boarding {
        let mut flights = self.0.lock();
        if let Some(flight) = flights.get(key)
            && may_join(flight.as_of)
        {
            if class < flight.class && !flight.urgency.raise(class) {
                return Boarding::Alone;
            }
            if flight.waiting.fetch_add(1, Ordering::AcqRel) >= MAX_WAITING {
                flight.waiting.fetch_sub(1, Ordering::AcqRel);
                return Boarding::Alone;
            }
            return Boarding::Waits(Seat { state: flight.state.subscribe(), flight: Arc::clone(flight) });
        }
        let (state, _) = watch::channel(State::InAir);
        let urgency = Arc::default();
        let flight = Arc::new(Flight { as_of, class, urgency, state, waiting: AtomicUsize::new(0) });
        flights.insert(key.clone(), Arc::clone(&flight));
        Boarding::Leads(Box::new(Leader { flights: Arc::clone(self), key: key.clone(), flight, ended: false }))
    }

    /// Flights in the air.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Leads a flight. If it is dropped, the flight is lost.
#[derive(Debug)]
pub struct Leader {
    flights: Arc<Flights>,
    key: Key,
    flight: Arc<Flight>,
    ended: bool,
}

impl Leader {
    /// Whether anybody waits for the answer.
    pub fn has_followers(&self) -> bool {
        self.flight.waiting.load(Ordering::Acquire) > 0
    }

    /// How urgent the flight is.
    pub fn urgency(&self) -> Arc<Urgency> {
        Arc::clone(&self.flight.urgency)
    }

    /// The answer is here. From now on nobody joins.
    pub fn landed(mut self, landed: Landed) {
        self.end(State::Landed(Arc::new(landed)));
    }

    /// The answer is for nobody else.
    pub fn alone(mut self) {
        self.end(State::Alone);
    }

    fn end(&mut self, state: State) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let mut flights = self.flights.0.lock();
        if flights.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
            flights.remove(&self.key);
        }
        drop(flights);
        self.flight.state.send_replace(state);
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.end(State::Lost);
    }
}

/// Waits for a flight.
#[derive(Debug)]
pub struct Seat {
    state: watch::Receiver<State>,
    flight: Arc<Flight>,
}

impl Seat {
    /// How the flight ended.
    pub async fn ended(mut self) -> State {
        match self.state.wait_for(|state| !matches!(state, State::InAir)).await {
            Ok(state) => state.clone(),
            Err(_) => State::Lost,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.flight.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use http::{HeaderMap, StatusCode};

    use super::*;

    fn key() -> Key {
        Key::from(*b"one")
    }

    fn landed() -> Landed {
        let whole = Whole::new(StatusCode::OK, &HeaderMap::new(), &Bytes::from_static(b"{}"));
        Landed { whole: Arc::new(whole), cost: 1 }
    }

    fn lead(flights: &Arc<Flights>) -> Leader {
        match flights.board(&key(), 5, Class::Standard, |_| true) {
            Boarding::Leads(leader) => *leader,
            other => panic!("{other:?}"),
        }
    }

    fn seat(flights: &Arc<Flights>) -> Seat {
        match flights.board(&key(), 5, Class::Standard, |as_of| as_of == 5) {
            Boarding::Waits(seat) => seat,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn all_who_wait_get_the_answer_of_one() {
        let flights = Arc::new(Flights::default());
        let leader = lead(&flights);
        let seats = [seat(&flights), seat(&flights)];
        assert!(leader.has_followers());
        leader.landed(landed());
        assert!(flights.is_empty());
        for seat in seats {
            assert!(matches!(seat.ended().await, State::Landed(_)));
        }
    }

    #[tokio::test]
    async fn if_the_leader_leaves_one_of_those_who_wait_leads() {
        let flights = Arc::new(Flights::default());
        let leader = lead(&flights);
        let seats = [seat(&flights), seat(&flights)];
        drop(leader);
        for seat in seats {
            assert!(matches!(seat.ended().await, State::Lost));
        }
        let second = lead(&flights);
        assert!(matches!(flights.board(&key(), 5, Class::Standard, |_| true), Boarding::Waits(_)));
        second.alone();
    }

    #[test]
    fn a_flight_from_before_a_change_is_not_joined() {
        let flights = Arc::new(Flights::default());
        let old = lead(&flights);
        let Boarding::Leads(new) = flights.board(&key(), 6, Class::Standard, |_| false) else { panic!("leads") };
        old.landed(landed());
        assert_eq!(flights.len(), 1, "the old flight takes only itself away");
        new.landed(landed());
        assert!(flights.is_empty());
    }

    #[tokio::test]
    async fn who_is_more_urgent_lends_its_class_to_a_flight_that_goes_by_class() {
        let flights = Arc::new(Flights::default());
        let leader = lead(&flights);
        let board = |class| flights.board(&key(), 5, class, |_| true);
        assert!(matches!(board(Class::Interactive), Boarding::Alone), "it waits for something else");
        let batch = board(Class::Batch);
        assert!(matches!(batch, Boarding::Waits(_)));
        let urgency = leader.urgency();
        assert_eq!(urgency.asks(Class::Standard), Class::Standard);
        let mut raised = std::pin::pin!(urgency.above(Class::Standard));
        assert!(raised.as_mut().now_or_never().is_none());
        assert!(matches!(board(Class::Interactive), Boarding::Waits(_)));
        assert_eq!(raised.await, Class::Interactive);
        assert_eq!(urgency.asks(Class::Standard), Class::Interactive, "a second attempt is as urgent");
    }

    #[test]
    fn who_is_more_urgent_does_not_join_what_is_from_before_a_change() {
        let flights = Arc::new(Flights::default());
        let leader = lead(&flights);
        leader.urgency().asks(Class::Standard);
        assert!(matches!(flights.board(&key(), 6, Class::Interactive, |_| false), Boarding::Leads(_)));
        assert_eq!(leader.urgency().asks(Class::Standard), Class::Standard);
    }
}
