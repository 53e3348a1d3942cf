//! The ledger against what it promises.

mod files;
mod kills;
mod model;
mod readings;
mod restarts;
mod rules;

use std::time::Duration;

use tokio::time::Instant;

use crate::call::{ApiCalls, CallerId, Class};
use crate::clock::Clock;

use super::*;

/// Where the ledger's time begins in these tests: some whole minute.
const EPOCH: Duration = Duration::from_mins(29_333_334);

/// A ledger whose time the test owns.
struct Stage {
    ledger: Ledger,
    start: Instant,
    /// Since the start.
    elapsed: Duration,
}

impl Stage {
    fn new(settings: OrgSettings, shares: &[Share]) -> Self {
        let clock = Clock::at(EPOCH);
        let start = clock.now();
        let timeline = Timeline::start(clock, start, EPOCH);
        Self {
            ledger: Ledger::new(settings, shares, Funding::Unbounded, timeline, start),
            start,
            elapsed: Duration::ZERO,
        }
    }

    fn now(&self) -> Instant {
        self.start + self.elapsed
    }

    fn wait(&mut self, time: Duration) {
        self.elapsed += time;
    }

    fn minutes(&mut self, minutes: u64) {
        self.wait(Duration::from_mins(minutes));
    }

    fn reserve(&self, caller: u16, class: Class, cost: u32) -> Result<Reservation, Denied> {
        self.ledger.reserve(CallerId(caller), class, ApiCalls(cost), self.now())
    }

    fn spend(&self, caller: u16, class: Class, cost: u32) -> Result<Spent, Denied> {
        self.reserve(caller, class, cost).map(|reservation| reservation.spend(self.now()).unwrap())
    }

    /// Spends one call at a time until refused; returns how many were admitted and the refusal.
    fn drain(&self, caller: u16, class: Class) -> (u64, Denied) {
        let mut spent = 0;
        loop {
            match self.spend(caller, class, 1) {
                Ok(_) => spent += 1,
                Err(denied) => return (spent, denied),
            }
        }
    }

    fn org(&self) -> OrgBudget {
        self.ledger.org(self.now())
    }

    fn read(&self, used: u64, limit: u64) -> Result<(), Misread> {
        self.ledger.read(Reading { used, limit }, self.now())
    }
}

/// A ceiling known from the start, no reading expected, floors held for their owners always.
fn assumed(ceiling: u64) -> OrgSettings {
    OrgSettings {
        blind: Blind::Assume(ceiling),
        patience: 0,
        keep_free: PerMille::percent(0),
        lending: None,
        ..OrgSettings::default()
    }
}

fn share(name: &str, floor: u64, ceiling: Option<u64>) -> Share {
    Share { name: name.into(), floor, ceiling, weight: 1 }
}
