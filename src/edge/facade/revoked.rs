//! Tokens that were given back before their time. This process knows them until they would have expired; replicas do not.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ahash::AHashMap;
use parking_lot::RwLock;

use super::token::Serial;

/// Most tokens remembered; each takes some 40 bytes.
const MOST: usize = 100_000;

/// The tokens that were given back.
#[derive(Debug, Default)]
pub struct Revoked {
    serials: RwLock<AHashMap<Serial, Duration>>,
    changes: AtomicU64,
}

/// There is no room to remember one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Revoked {
    /// The token with `serial`, which would expire at `expires`, is no longer accepted.
    pub fn add(&self, serial: Serial, expires: Duration, now: Duration) -> Result<(), Full> {
        let mut serials = self.serials.write();
        if serials.len() >= MOST {
            serials.retain(|_, expires| now < *expires);
            if serials.len() >= MOST {
                return Err(Full);
            }
        }
        serials.insert(serial, expires);
        self.changes.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Whether the token with `serial` was given back.
    pub fn has(&self, serial: &Serial) -> bool {
        self.changes() > 0 && self.serials.read().contains_key(serial)
    }

    /// Changes whenever a token is added: what was concluded before has to be concluded again.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_given_back_is_known_until_it_would_have_expired() {
        let revoked = Revoked::default();
        assert!(!revoked.has(&[1; 12]));
        revoked.add([1; 12], Duration::from_secs(100), Duration::ZERO).unwrap();
        assert!(revoked.has(&[1; 12]) && !revoked.has(&[2; 12]));
        assert_eq!(revoked.changes(), 1);
    }

    #[test]
    fn the_list_is_bounded_and_forgets_what_has_expired() {
        let revoked = Revoked::default();
        for number in 0..MOST as u32 {
            let mut serial = [0; 12];
            serial[..4].copy_from_slice(&number.to_be_bytes());
            revoked.add(serial, Duration::from_secs(100), Duration::ZERO).unwrap();
        }
        assert_eq!(revoked.add([9; 12], Duration::from_secs(200), Duration::from_secs(99)), Err(Full));
        assert_eq!(revoked.add([9; 12], Duration::from_secs(200), Duration::from_secs(100)), Ok(()));
    }
}
