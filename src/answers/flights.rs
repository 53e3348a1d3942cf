//! Single flight: of requests that ask the same at the same time, one is sent, and all get its answer.
//!
//! The first to ask leads, the others wait for it. A flight ends in one of three ways: its answer has landed and all who wait
//! get it; it cannot be shared, and each goes alone; or its leader has left or was refused, and one of those who wait leads
//! next, under its own name. Who waits is bounded, and so is how long.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::AHashMap;
use parking_lot::Mutex;
use tokio::sync::watch;

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
    state: watch::Sender<State>,
    waiting: AtomicUsize,
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
    /// number it is given. A flight is not joined by who is more urgent than its leader, for it would wait as its leader does.
    pub fn board(
        self: &Arc<Self>,
        key: &Key,
        as_of: u64,
        class: Class,
        may_join: impl FnOnce(u64) -> bool,
    ) -> Boarding {
        let mut flights = self.0.lock();
        if let Some(flight) = flights.get(key) {
            if class < flight.class {
                return Boarding::Alone;
            }
            if may_join(flight.as_of) {
                if flight.waiting.fetch_add(1, Ordering::AcqRel) >= MAX_WAITING {
                    flight.waiting.fetch_sub(1, Ordering::AcqRel);
                    return Boarding::Alone;
                }
                return Boarding::Waits(Seat { state: flight.state.subscribe(), flight: Arc::clone(flight) });
            }
        }
        let (state, _) = watch::channel(State::InAir);
        let flight = Arc::new(Flight { as_of, class, state, waiting: AtomicUsize::new(0) });
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

    #[test]
    fn who_is_more_urgent_does_not_wait_for_who_is_less() {
        let flights = Arc::new(Flights::default());
        let _leader = lead(&flights);
        assert!(matches!(flights.board(&key(), 5, Class::Interactive, |_| true), Boarding::Alone));
        assert!(matches!(flights.board(&key(), 5, Class::Batch, |_| true), Boarding::Waits(_)));
    }
}
