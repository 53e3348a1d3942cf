//! Seals what replicas tell each other, for it names records and principals.
//!
//! AES-256-GCM under a key drawn by HKDF-SHA256 from a secret of the shared configuration, for one channel. Who can write
//! to the store, and has no secret, can read nothing, and make nothing be believed.
//!
//! ```text
//! 1 | nonce, 12 | sealed | tag, 16
//! ```

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, rand};
use zeroize::Zeroizing;

/// The first byte of everything sealed.
const VERSION: u8 = 1;
/// Longest message that is looked at.
const LONGEST: usize = 16 * 1_024 * 1_024;

/// There is no key, or the cryptographic library failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cryptographic library failed")]
pub struct NoSeal;

/// Seals and opens what is said on one channel. The first key seals, all open.
pub struct Seal {
    channel: Vec<u8>,
    keys: Vec<LessSafeKey>,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seal({} keys)", self.keys.len())
    }
}

/// 32 bytes, in the words of the key derivation.
struct Length32;

impl hkdf::KeyType for Length32 {
    fn len(&self) -> usize {
        32
    }
}

fn key(secret: &[u8]) -> Result<LessSafeKey, NoSeal> {
    let pseudorandom = hkdf::Salt::new(hkdf::HKDF_SHA256, b"weirkeeper generations 1").extract(secret);
    let mut bytes = Zeroizing::new([0; 32]);
    let output = pseudorandom.expand(&[b"key"], Length32).map_err(|_| NoSeal)?;
    output.fill(bytes.as_mut_slice()).map_err(|_| NoSeal)?;
    UnboundKey::new(&AES_256_GCM, bytes.as_slice()).map(LessSafeKey::new).map_err(|_| NoSeal)
}

impl Seal {
    /// From the secrets that all replicas have, of which there must be one.
    pub fn new<'s>(secrets: impl IntoIterator<Item = &'s [u8]>, channel: &str) -> Result<Self, NoSeal> {
        let keys = secrets.into_iter().map(key).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() { Err(NoSeal) } else { Ok(Self { channel: channel.as_bytes().to_vec(), keys }) }
    }

    /// Seals `message`.
    pub fn seal(&self, mut message: Vec<u8>) -> Result<Vec<u8>, NoSeal> {
        let key = self.keys.first().ok_or(NoSeal)?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| NoSeal)?;
        let once = Nonce::assume_unique_for_key(nonce);
        let tag = key.seal_in_place_separate_tag(once, Aad::from(&self.channel), &mut message).map_err(|_| NoSeal)?;
        Ok([&[VERSION], nonce.as_slice(), &message, tag.as_ref()].concat())
    }

    /// Opens what was sealed for this channel; `None` if it was not, or was changed since.
    pub fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (version, rest) = Some(sealed).filter(|sealed| sealed.len() <= LONGEST)?.split_first()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>().filter(|_| *version == VERSION)?;
        self.keys.iter().find_map(|key| {
            let mut message = sealed.to_vec();
            let once = Nonce::assume_unique_for_key(*nonce);
            let length = key.open_in_place(once, Aad::from(&self.channel), &mut message).ok()?.len();
            message.truncate(length);
            Some(message)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLD: &[u8] = b"an old secret of at least 32 characters";
    const NEW: &[u8] = b"a new secret of at least 32 characters!";

    fn seal<const N: usize>(secrets: [&[u8]; N], channel: &str) -> Seal {
        Seal::new(secrets, channel).unwrap()
    }

    #[test]
    fn what_is_sealed_is_opened_by_who_has_the_secret_on_the_same_channel() {
        let one = seal([NEW], "prod");
        let sealed = one.seal(b"CANARY".to_vec()).unwrap();
        assert!(!sealed.windows(6).any(|text| text == b"CANARY") && !format!("{one:?}").contains("prod"));
        assert_eq!(seal([NEW], "prod").open(&sealed).unwrap(), b"CANARY");
        assert_eq!(seal([NEW], "dev").open(&sealed), None);
        assert_eq!(seal([OLD], "prod").open(&sealed), None);
        assert_ne!(one.seal(b"CANARY".to_vec()).unwrap(), sealed);
    }

    #[test]
    fn keys_are_replaced_without_a_gap() {
        let (before, between, after) = (seal([OLD], "x"), seal([NEW, OLD], "x"), seal([NEW], "x"));
        assert!(between.open(&before.seal(b"a".to_vec()).unwrap()).is_some());
        assert!(after.open(&between.seal(b"a".to_vec()).unwrap()).is_some());
        assert!(after.open(&before.seal(b"a".to_vec()).unwrap()).is_none());
        assert!(Seal::new([], "x").is_err());
    }

    proptest! {
        #[test]
        fn whatever_was_changed_is_not_opened(at: proptest::sample::Index, bit in 0_u8..8) {
            let one = seal([NEW, OLD], "prod");
            let mut sealed = one.seal(b"CANARY".to_vec()).unwrap();
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert_eq!(one.open(&sealed), None);
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(seal([NEW], "x").open(&bytes), None);
        }
    }
}
