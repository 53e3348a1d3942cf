//! How often one may try to log in: failures are counted by where they come from, successes by who succeeded.
//!
//! Keys are too long to be guessed; the bounds keep a broken or hostile client from costing anything, and a caller that
//! logs in before each request from going on unnoticed. The table is bounded: when it is full of sources that are being
//! held back, all further ones share one place.

use std::net::IpAddr;
use std::time::Duration;

use ahash::AHashMap;
use tokio::time::Instant;

use crate::call::CallerId;

/// Sources and callers that are told apart.
const MOST_PLACES: usize = 10_000;
/// Failures a source may make at once, and how fast it gets them back.
const FAILURES: Rate = Rate { burst: 20, every: Duration::from_secs(3) };
/// Log-ins a caller may make at once, and how fast it gets them back: 3,600 an hour, as at Salesforce (facts 1.5).
const LOGINS: Rate = Rate { burst: 120, every: Duration::from_secs(1) };

#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: u32,
    every: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Who {
    /// An IPv4 address.
    Four([u8; 4]),
    /// The network of an IPv6 address: one customer has all of it.
    Six(u64),
    Caller(CallerId),
    /// All for whom there was no place.
    Crowd,
}

impl Who {
    fn at(source: IpAddr) -> Self {
        match source.to_canonical() {
            IpAddr::V4(address) => Self::Four(address.octets()),
            IpAddr::V6(address) => Self::Six((address.to_bits() >> 64) as u64),
        }
    }

    fn rate(self) -> Rate {
        if matches!(self, Self::Caller(_)) { LOGINS } else { FAILURES }
    }
}

/// Who tried to log in lately. For each, the moment at which all its attempts will have come back.
#[derive(Debug, Default)]
pub struct Attempts {
    places: AHashMap<Who, Instant>,
}

impl Attempts {
    /// Whether `source` may try at all; else how long it has to wait.
    pub fn may_try(&self, source: IpAddr, now: Instant) -> Result<(), Duration> {
        let who = self.known(Who::at(source));
        self.wait(who, now)
    }

    /// An attempt from `source` failed.
    pub fn failed(&mut self, source: IpAddr, now: Instant) {
        let who = self.place(Who::at(source), now);
        self.count(who, now);
    }

    /// `caller` proved who it is: counts the log-in, or says how long it has to wait for the next.
    pub fn log_in(&mut self, caller: CallerId, now: Instant) -> Result<(), Duration> {
        let who = self.place(Who::Caller(caller), now);
        self.wait(who, now)?;
        self.count(who, now);
        Ok(())
    }

    fn wait(&self, who: Who, now: Instant) -> Result<(), Duration> {
        let Rate { burst, every } = who.rate();
        let back_at = self.places.get(&who).copied().unwrap_or(now);
        let owed = back_at.saturating_duration_since(now);
        match owed.checked_sub(every * (burst - 1)) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(()),
        }
    }

    fn count(&mut self, who: Who, now: Instant) {
        let every = who.rate().every;
        let back_at = self.places.entry(who).or_insert(now);
        *back_at = (*back_at).max(now) + every;
    }

    /// Where an attempt of `who` has been counted.
    fn known(&self, who: Who) -> Who {
        if self.places.contains_key(&who) || self.places.len() < MOST_PLACES { who } else { Who::Crowd }
    }

    /// Where an attempt of `who` is to be counted, after making room if need be.
    fn place(&mut self, who: Who, now: Instant) -> Who {
        if self.known(who) != who {
            self.places.retain(|_, back_at| *back_at > now);
        }
        self.known(who)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn four(last: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + last))
    }

    fn start() -> (Attempts, Instant) {
        (Attempts::default(), crate::clock::Clock::start().now())
    }

    #[test]
    fn a_source_that_fails_is_held_back_and_comes_back_slowly() {
        let (mut attempts, now) = start();
        for _ in 0..20 {
            assert_eq!(attempts.may_try(four(1), now), Ok(()));
            attempts.failed(four(1), now);
        }
        let wait = attempts.may_try(four(1), now).unwrap_err();
        assert_eq!(wait, Duration::from_secs(3));
        assert_eq!(attempts.may_try(four(2), now), Ok(()), "others are not");
        assert_eq!(attempts.may_try(four(1), now + wait), Ok(()));
        attempts.failed(four(1), now + wait);
        assert!(attempts.may_try(four(1), now + wait).is_err());
    }

    #[test]
    fn one_ipv6_network_is_one_source() {
        let (mut attempts, now) = start();
        for host in 0..20 {
            attempts.failed(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 3, 4, 5, host)), now);
        }
        assert!(attempts.may_try(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 9, 9, 9, 9)), now).is_err());
        assert!(attempts.may_try(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 3, 3, 4, 5, 0)), now).is_ok());
    }

    #[test]
    fn a_caller_may_log_in_3600_times_an_hour() {
        let (mut attempts, mut now) = start();
        let mut granted = 0;
        for _ in 0..36_000 {
            granted += u32::from(attempts.log_in(CallerId(1), now).is_ok());
            now += Duration::from_millis(100);
        }
        assert!((3_600..=3_720).contains(&granted), "{granted}");
        assert!(attempts.log_in(CallerId(2), now).is_ok());
    }

    #[test]
    fn a_full_table_neither_grows_nor_lets_everybody_in() {
        let (mut attempts, now) = start();
        for source in 0..50_000 {
            attempts.failed(four(source), now);
        }
        assert!(attempts.places.len() <= MOST_PLACES + 1);
        assert!(attempts.may_try(four(60_000), now).is_err(), "the crowd has used up its failures");
        let later = now + Duration::from_hours(48);
        attempts.failed(four(60_000), later);
        assert!(attempts.may_try(four(60_000), later).is_ok());
        assert!(attempts.places.len() < 10, "{}", attempts.places.len());
    }
}
