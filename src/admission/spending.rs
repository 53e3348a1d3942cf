//! Who spent when: the trailing hours in steps, for the page and the API.

use std::sync::Arc;

use tokio::time::Instant;

use super::account::{Account, KINDS};
use super::book::Book;
use super::ledger::Ledger;
use super::ring::Ring;
use super::time::Minute;

/// Accounts looked at under one hold of the lock.
const READ_AT_ONCE: usize = 256;

/// How a stretch of time is cut. It ends with the step under way, and all steps begin at multiples of their length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// Minutes of a step.
    pub minutes: u32,
    /// How many there are; together at most 24 h, which is what the books remember.
    pub steps: u32,
}

/// Calls by step, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spending {
    /// When the first step begins.
    pub begins: Minute,
    /// Calls of the whole org that came through us.
    pub all: Vec<u64>,
    /// Calls of each caller that was asked for, in that order; zeros for one that is not known.
    pub callers: Vec<Vec<u64>>,
}

impl Scale {
    fn begins(self, now: Minute) -> Minute {
        let minutes = self.minutes.max(1);
        Minute(((now.0 / minutes + 1) * minutes).saturating_sub(minutes.saturating_mul(self.steps)))
    }

    fn sums(self, ring: &Ring, begins: Minute) -> impl Iterator<Item = u64> + '_ {
        let minutes = self.minutes.max(1);
        (0..self.steps).map(move |step| {
            let from = begins.plus(minutes.saturating_mul(step));
            ring.between(from.0, from.plus(minutes).0)
        })
    }
}

impl Ledger {
    /// What the org and `callers` spent, cut by each of `scales`. Callers are those named by [`Self::callers`]; the names
    /// are compared by where they are, so that ten thousand accounts cost no comparison of texts.
    pub fn spending(&self, callers: &[Arc<str>], scales: &[Scale], now: Instant) -> Vec<Spending> {
        let mut all: Vec<_> =
            self.with(now, |book| scales.iter().map(|scale| book.spending(*scale, callers)).collect());
        let mut next = 0;
        loop {
            let more = self.with(now, |book| {
                for account in book.accounts.iter_mut().skip(next).take(READ_AT_ONCE) {
                    if account.used == 0 {
                        continue;
                    }
                    if let Some(place) = callers.iter().position(|name| Arc::ptr_eq(name, &account.name)) {
                        account.flush();
                        add(account, place, scales, &mut all);
                    }
                }
                next += READ_AT_ONCE;
                next < book.accounts.len()
            });
            if !more {
                return all;
            }
        }
    }
}

impl Book {
    fn spending(&self, scale: Scale, callers: &[Arc<str>]) -> Spending {
        let begins = scale.begins(self.now);
        Spending {
            begins,
            all: scale.sums(&self.own, begins).collect(),
            callers: vec![vec![0; scale.steps as usize]; callers.len()],
        }
    }
}

fn add(account: &Account, place: usize, scales: &[Scale], all: &mut [Spending]) {
    for (scale, spending) in scales.iter().zip(all) {
        let Some(sums) = spending.callers.get_mut(place) else { continue };
        for ring in KINDS.iter().flat_map(|kind| account.all(*kind)) {
            for (sum, more) in sums.iter_mut().zip(scale.sums(ring, spending.begins)) {
                *sum += more;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::admission::{Funding, OrgSettings, Share, Timeline};
    use crate::call::{ApiCalls, Class};
    use crate::clock::Clock;

    const SCALES: [Scale; 2] = [Scale { minutes: 30, steps: 48 }, Scale { minutes: 1, steps: 60 }];

    #[tokio::test(start_paused = true)]
    async fn steps_add_up_to_what_was_spent_and_the_last_is_under_way() {
        // Twelve minutes past an hour.
        let clock = Clock::at(Duration::from_hours(500_000) + Duration::from_mins(12));
        let timeline = Timeline::start(clock, clock.now(), Duration::ZERO);
        let shares = ["shop", "etl", "idle"].map(Share::borrower);
        let ledger = Ledger::new(OrgSettings::default(), &shares, Funding::Unbounded, timeline, clock.now());
        let spend = |caller: u16, calls: u32| {
            for _ in 0..calls {
                let held =
                    ledger.reserve(crate::call::CallerId(caller), Class::Batch, ApiCalls(1), clock.now()).unwrap();
                held.spend(clock.now()).unwrap().answered(ApiCalls(1), clock.now());
            }
        };
        spend(0, 5);
        tokio::time::advance(Duration::from_mins(90)).await;
        spend(1, 7);
        tokio::time::advance(Duration::from_mins(3)).await;
        spend(0, 2);
        spend(1, 1);

        let mut names: Vec<_> = ledger.callers(clock.now()).into_iter().map(|caller| caller.name).collect();
        names.retain(|name| &**name != "idle");
        names.push("a stranger".into());
        let [day, hour] = <[_; 2]>::try_from(ledger.spending(&names, &SCALES, clock.now())).unwrap();
        // It is 13:45: the running half hour began at 13:30, the one before at 13:00.
        assert_eq!(day.begins.0 % 30, 0);
        assert_eq!(day.callers[0][44..], [5, 0, 0, 2], "12:00, 12:30, 13:00 and 13:30");
        assert_eq!(day.callers[1][44..], [0, 0, 0, 8]);
        assert_eq!((day.all.iter().sum::<u64>(), day.all[47]), (15, 10));
        assert_eq!(day.callers[2], [0; 48]);
        assert_eq!(hour.begins.plus(60), Minute::containing(clock.wall(clock.now())).plus(1));
        assert_eq!((hour.callers[0][59], hour.callers[1][56], hour.callers[1][59]), (2, 7, 1));
        assert_eq!(hour.all.iter().sum::<u64>(), 10);
    }
}
