//! What comes back when, and when it runs out.
//!
//! Because the window trails, what comes back when is known exactly. Exhaustion assumes that everybody goes on at
//! the average pace of the last 15 minutes, within the rules, while calls come back as scheduled.

use serde::Serialize;

use super::account::{Account, CONTENDING_MINUTES, KINDS};
use super::book::Book;
use super::denied::{Cause, Denied};
use super::gate::Door;
use super::ring::{Ring, WINDOW_MINUTES};
use super::settings::AccountId;
use super::time::Minute;

/// Calls that come back in one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Return {
    /// The minute, since the Unix epoch.
    pub minute: Minute,
    /// How many.
    pub calls: u64,
}

/// What is known of the hours to come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Forecast {
    /// Calls of ours that come back within an hour.
    pub returning_1h: u64,
    /// Within six hours.
    pub returning_6h: u64,
    /// Within 24 hours: all.
    pub returning_24h: u64,
    /// Calls an hour, by the average of the last 15 minutes.
    pub pace_per_hour: u64,
    /// When nothing is left if the pace stays; `None` if it lasts for the next 24 h.
    pub runs_out: Option<Minute>,
}

impl Book {
    /// The minute in which what a call was denied for has come back.
    pub(super) fn when(&mut self, denied: Denied, account: AccountId) -> Option<Minute> {
        match denied.cause {
            Cause::CallerCeiling | Cause::Share => {
                let slot = self.slot(account)?;
                let account = &mut self.accounts[slot];
                account.flush();
                account.next_return(denied.missing)
            }
            Cause::OrgCeiling | Cause::Reserved | Cause::Shed => {
                next_return(&[&self.own, self.truth.dark_ring()], denied.missing)
            }
            Cause::Paced => Some(self.now.plus(1)),
            Cause::OrgClosed => match self.gate.door() {
                Door::Closed { until } => Some(until),
                Door::Open | Door::Probing { .. } => Some(self.now.plus(1)),
            },
            _ => None,
        }
    }

    pub(super) fn forecast(&self) -> Forecast {
        let rings = [&self.own, self.truth.dark_ring()];
        let pace = self.own.recent(CONTENDING_MINUTES) + self.truth.dark_pace(CONTENDING_MINUTES);
        Forecast {
            returning_1h: self.own.returning(self.now, 60),
            returning_6h: self.own.returning(self.now, 360),
            returning_24h: self.own.sum(),
            pace_per_hour: pace * 60 / u64::from(CONTENDING_MINUTES),
            runs_out: self.spendable().and_then(|calls| runs_out(&rings, pace, self.used(), calls, self.now)),
        }
    }

    /// When a caller with a ceiling reaches it at its pace.
    pub(super) fn caller_runs_out(&self, account: &Account) -> Option<Minute> {
        let rings: Vec<&Ring> = KINDS.iter().flat_map(|kind| account.all(*kind)).collect();
        runs_out(&rings, account.recent(self.now, CONTENDING_MINUTES), account.load(), account.ceiling?, self.now)
    }

    /// What comes back in each minute of the next 24 h, ours only.
    pub(super) fn schedule(&self) -> Vec<Return> {
        self.own.schedule().map(|(minute, calls)| Return { minute, calls: u64::from(calls) }).collect()
    }
}

/// The first minute by which `calls` of several rings have come back.
fn next_return(rings: &[&Ring], calls: u64) -> Option<Minute> {
    let (first, last) = span(rings)?;
    let mut sum = 0;
    (first..=last).find_map(|minute| {
        sum += at(rings, minute);
        (sum >= calls).then_some(Minute(minute).plus(WINDOW_MINUTES))
    })
}

/// The minute in which `used`, growing by `pace` calls in 15 minutes and shrinking as scheduled, passes `ceiling`.
fn runs_out(rings: &[&Ring], pace: u64, used: u64, ceiling: u64, now: Minute) -> Option<Minute> {
    if used >= ceiling {
        return Some(now);
    }
    let quarter = u64::from(CONTENDING_MINUTES);
    let mut left = (ceiling - used) * quarter;
    for ahead in 1..WINDOW_MINUTES {
        let minute = now.plus(ahead);
        left += at(rings, minute.0 - WINDOW_MINUTES) * quarter;
        if left < pace {
            return Some(minute);
        }
        left -= pace;
    }
    None
}

fn at(rings: &[&Ring], minute: u32) -> u64 {
    rings.iter().filter(|ring| ring.first().0 <= minute).map(|ring| u64::from(ring.at(Minute(minute)))).sum()
}

fn span(rings: &[&Ring]) -> Option<(u32, u32)> {
    let first = rings.iter().map(|ring| ring.first().0).min()?;
    let last = rings.iter().map(|ring| ring.latest().0).max()?;
    Some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Minute = Minute(10_000);

    #[test]
    fn a_steady_pace_runs_out_when_the_rest_is_spent() {
        let mut ring = Ring::new(START);
        for minute in 0..15 {
            ring.extend(START.plus(minute));
            ring.add(START.plus(minute), 10);
        }
        let now = START.plus(14);
        assert_eq!(runs_out(&[&ring], 150, 150, 1_000, now), Some(now.plus(86)));
        assert_eq!(runs_out(&[&ring], 0, 150, 1_000, now), None);
        assert_eq!(runs_out(&[&ring], 150, 1_000, 1_000, now), Some(now));
    }

    #[test]
    fn calls_that_come_back_in_time_are_counted_in() {
        let mut ring = Ring::new(START);
        ring.add(START, 500);
        ring.extend(START.plus(1_400));
        let now = START.plus(1_400);
        // 500 left, 10 a minute, 500 come back in minute 41: lasts a hundred minutes, not fifty.
        assert_eq!(runs_out(&[&ring], 150, 500, 1_000, now), Some(now.plus(101)));
    }

    #[test]
    fn returns_of_several_rings_add_up() {
        let (mut one, mut other) = (Ring::new(START), Ring::new(START));
        one.add(START, 5);
        other.extend(START.plus(7));
        other.add(START.plus(7), 5);
        assert_eq!(next_return(&[&one, &other], 5), Some(START.plus(1_441)));
        assert_eq!(next_return(&[&one, &other], 6), Some(START.plus(1_448)));
        assert_eq!(next_return(&[&one, &other], 11), None);
    }
}
