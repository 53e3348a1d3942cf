//! Seals what replicas leave where others can read it: tokens in the store, and what they tell each other.
//!
//! AES-256-GCM under a key drawn by HKDF-SHA256 from a configured secret for one purpose. What is sealed is bound to what
//! it is for: it opens nowhere else. Who has no secret can read nothing, and make nothing be believed.
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

/// There is no key, or the cryptographic library failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cryptographic library failed")]
pub struct NoSeal;

/// Seals and opens for one purpose. The first key seals, all open, so that keys are replaced without a gap.
pub struct Seal {
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

/// A secret of its own for `purpose`, drawn from `secret`.
pub fn drawn(secret: &[u8], purpose: &[u8]) -> Result<Zeroizing<[u8; 32]>, NoSeal> {
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"weirkeeper shared state 1");
    let mut bytes = Zeroizing::new([0; 32]);
    let info = [purpose];
    let pseudorandom = salt.extract(secret);
    let output = pseudorandom.expand(&info, Length32).map_err(|_| NoSeal)?;
    output.fill(bytes.as_mut_slice()).map_err(|_| NoSeal)?;
    Ok(bytes)
}

impl Seal {
    /// From the secrets that all replicas have, of which there must be one.
    pub fn new<'s>(secrets: impl IntoIterator<Item = &'s [u8]>, purpose: &[u8]) -> Result<Self, NoSeal> {
        let key = |secret| {
            let bytes = drawn(secret, purpose)?;
            UnboundKey::new(&AES_256_GCM, bytes.as_slice()).map(LessSafeKey::new).map_err(|_| NoSeal)
        };
        let keys = secrets.into_iter().map(key).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() { Err(NoSeal) } else { Ok(Self { keys }) }
    }

    /// Seals `plain`, which is overwritten, and binds it to `bound`.
    pub fn seal(&self, bound: &[u8], mut plain: Zeroizing<Vec<u8>>) -> Result<Vec<u8>, NoSeal> {
        let key = self.keys.first().ok_or(NoSeal)?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| NoSeal)?;
        let once = Nonce::assume_unique_for_key(nonce);
        let tag = key.seal_in_place_separate_tag(once, Aad::from(bound), &mut plain).map_err(|_| NoSeal)?;
        Ok([&[VERSION], nonce.as_slice(), &plain, tag.as_ref()].concat())
    }

    /// Opens what was sealed and bound to `bound`; `None` if it was not, or was changed since.
    pub fn open(&self, bound: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (version, rest) = sealed.split_first()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>().filter(|_| *version == VERSION)?;
        self.keys.iter().find_map(|key| {
            let mut attempt = Zeroizing::new(sealed.to_vec());
            let once = Nonce::assume_unique_for_key(*nonce);
            let length = key.open_in_place(once, Aad::from(bound), &mut attempt).ok()?.len();
            attempt.truncate(length);
            Some(attempt)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLD: &[u8] = b"an old secret of at least 32 characters";
    const NEW: &[u8] = b"a new secret of at least 32 characters!";

    fn seal<const N: usize>(secrets: [&[u8]; N], purpose: &str) -> Seal {
        Seal::new(secrets, purpose.as_bytes()).unwrap()
    }

    fn sealed(seal: &Seal, plain: &[u8]) -> Vec<u8> {
        seal.seal(b"prod", Zeroizing::new(plain.to_vec())).unwrap()
    }

    fn opened(seal: &Seal, bytes: &[u8]) -> Option<Vec<u8>> {
        seal.open(b"prod", bytes).map(|plain| plain.to_vec())
    }

    #[test]
    fn what_is_sealed_is_opened_where_it_belongs_and_nowhere_else() {
        let one = seal([NEW], "tokens");
        let (first, second) = (sealed(&one, b"CANARY"), sealed(&one, b"CANARY"));
        assert_ne!(first, second);
        assert!(!first.windows(6).any(|text| text == b"CANARY"));
        assert_eq!(opened(&one, &first).unwrap(), b"CANARY");
        assert_eq!(opened(&seal([NEW], "tokens"), &second).unwrap(), b"CANARY");
        assert_eq!(opened(&one, &sealed(&one, b"")).unwrap(), b"");
        assert_eq!(opened(&seal([NEW], "messages"), &first), None);
        assert_eq!(opened(&seal([OLD], "tokens"), &first), None);
        assert!(one.open(b"dev", &first).is_none());
    }

    #[test]
    fn keys_are_replaced_without_a_gap() {
        let (before, between, after) = (seal([OLD], "x"), seal([NEW, OLD], "x"), seal([NEW], "x"));
        assert!(opened(&between, &sealed(&before, b"a")).is_some());
        assert!(opened(&after, &sealed(&between, b"a")).is_some());
        assert!(opened(&after, &sealed(&before, b"a")).is_none());
        assert!(Seal::new([], b"x").is_err());
    }

    #[test]
    fn each_purpose_draws_a_secret_of_its_own() {
        assert_ne!(drawn(NEW, b"a").unwrap(), drawn(NEW, b"b").unwrap());
        assert_ne!(drawn(NEW, b"a").unwrap(), drawn(OLD, b"a").unwrap());
        assert_eq!(drawn(NEW, b"a").unwrap(), drawn(NEW, b"a").unwrap());
    }

    proptest! {
        #[test]
        fn whatever_was_changed_is_not_opened(at: proptest::sample::Index, bit in 0_u8..8) {
            let one = seal([NEW, OLD], "tokens");
            let mut whole = sealed(&one, b"CANARY");
            let at = at.index(whole.len());
            whole[at] ^= 1 << bit;
            prop_assert_eq!(opened(&one, &whole), None);
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(opened(&seal([NEW], "x"), &bytes), None);
        }
    }
}
