//! Seals what replicas lend each other through the store.
//!
//! AES-256-GCM under a key drawn by HKDF-SHA256 from a configured secret for one identity with one configuration, so that
//! nobody reads, changes or moves anything without the secret: not to another org or identity, not to other credentials,
//! not to another log-in.
//!
//! ```text
//! base64( 1 | nonce, 12 | sealed | tag, 16 )        bound to what it is for and to the number of its log-in
//! ```

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{digest, hkdf, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use zeroize::Zeroizing;

/// The first byte of everything sealed.
const VERSION: u8 = 1;
/// Longest text that is looked at.
const LONGEST: usize = 32 * 1_024;

/// What something sealed is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// An access token, and whose it is.
    Token = 1,
    /// A refresh token.
    Refresh = 2,
    /// The credentials were refused.
    Refusal = 3,
}

/// There is no key, or the cryptographic library failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cryptographic library failed")]
pub struct NoSeal;

/// Seals and opens for one identity. The first key seals, all open.
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

/// The SHA-256 of some texts, which no other texts have.
pub(super) fn fingerprint<'t>(texts: impl IntoIterator<Item = &'t [u8]>) -> [u8; 32] {
    let mut all = digest::Context::new(&digest::SHA256);
    for text in texts {
        all.update(&(text.len() as u64).to_be_bytes());
        all.update(text);
    }
    let mut bytes = [0; 32];
    for (to, from) in bytes.iter_mut().zip(all.finish().as_ref()) {
        *to = *from;
    }
    bytes
}

impl Seal {
    /// From secrets of at least 32 characters each, for what has this fingerprint.
    pub(super) fn new<'s>(secrets: impl IntoIterator<Item = &'s [u8]>, fingerprint: &[u8; 32]) -> Result<Self, NoSeal> {
        let key = |secret| {
            let bytes = drawn(secret, &[b"token ", fingerprint.as_slice()].concat())?;
            UnboundKey::new(&AES_256_GCM, bytes.as_slice()).map(LessSafeKey::new).map_err(|_| NoSeal)
        };
        let keys = secrets.into_iter().map(key).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() { Err(NoSeal) } else { Ok(Self { keys }) }
    }

    /// Seals `plain`, which is overwritten.
    pub(super) fn seal(&self, purpose: Purpose, turn: u64, mut plain: Zeroizing<Vec<u8>>) -> Result<String, NoSeal> {
        let key = self.keys.first().ok_or(NoSeal)?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| NoSeal)?;
        let (aad, once) = (bound(purpose, turn), Nonce::assume_unique_for_key(nonce));
        let tag = key.seal_in_place_separate_tag(once, aad, &mut plain).map_err(|_| NoSeal)?;
        let mut whole = Vec::with_capacity(1 + NONCE_LEN + plain.len() + tag.as_ref().len());
        whole.push(VERSION);
        whole.extend_from_slice(&nonce);
        whole.extend_from_slice(&plain);
        whole.extend_from_slice(tag.as_ref());
        Ok(STANDARD_NO_PAD.encode(whole))
    }

    /// Opens what was sealed for this purpose and turn; `None` if it was not sealed here, or changed since.
    pub(super) fn open(&self, purpose: Purpose, turn: u64, sealed: &str) -> Option<Zeroizing<Vec<u8>>> {
        let whole = STANDARD_NO_PAD.decode(Some(sealed).filter(|text| text.len() <= LONGEST)?).ok()?;
        let (version, rest) = whole.split_first()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>().filter(|_| *version == VERSION)?;
        self.keys.iter().find_map(|key| {
            let mut attempt = Zeroizing::new(sealed.to_vec());
            let once = Nonce::assume_unique_for_key(*nonce);
            let length = key.open_in_place(once, bound(purpose, turn), &mut attempt).ok()?.len();
            attempt.truncate(length);
            Some(attempt)
        })
    }
}

fn bound(purpose: Purpose, turn: u64) -> Aad<[u8; 9]> {
    let mut bytes = [purpose as u8; 9];
    for (to, from) in bytes.iter_mut().skip(1).zip(turn.to_be_bytes()) {
        *to = from;
    }
    Aad::from(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLD: &[u8] = b"an old secret of at least 32 characters";
    const NEW: &[u8] = b"a new secret of at least 32 characters!";

    fn seal<const N: usize>(secrets: [&[u8]; N], whose: &str) -> Seal {
        Seal::new(secrets, &fingerprint([whose.as_bytes()])).unwrap()
    }

    fn sealed(seal: &Seal, plain: &[u8]) -> String {
        seal.seal(Purpose::Token, 7, Zeroizing::new(plain.to_vec())).unwrap()
    }

    fn opened(seal: &Seal, text: &str) -> Option<Vec<u8>> {
        seal.open(Purpose::Token, 7, text).map(|plain| plain.to_vec())
    }

    #[test]
    fn what_is_sealed_is_opened_and_never_looks_the_same() {
        let one = seal([NEW], "integration");
        let (first, second) = (sealed(&one, b"CANARY"), sealed(&one, b"CANARY"));
        assert_ne!(first, second);
        assert_eq!(opened(&one, &first).unwrap(), b"CANARY");
        assert_eq!(opened(&seal([NEW], "integration"), &second).unwrap(), b"CANARY");
        assert!(!format!("{one:?} {first}").contains("CANARY"));
        assert_eq!(opened(&one, &sealed(&one, b"")).unwrap(), b"");
    }

    #[test]
    fn nothing_opens_where_it_does_not_belong() {
        let one = seal([NEW], "integration");
        let text = sealed(&one, b"CANARY");
        assert_eq!(opened(&seal([OLD], "integration"), &text), None);
        assert_eq!(opened(&seal([NEW], "another"), &text), None);
        assert!(one.open(Purpose::Refresh, 7, &text).is_none());
        assert!(one.open(Purpose::Token, 8, &text).is_none());
    }

    #[test]
    fn keys_are_replaced_without_a_gap() {
        let (before, between, after) = (seal([OLD], "x"), seal([NEW, OLD], "x"), seal([NEW], "x"));
        assert!(opened(&between, &sealed(&before, b"a")).is_some());
        assert!(opened(&after, &sealed(&between, b"a")).is_some());
        assert!(opened(&after, &sealed(&before, b"a")).is_none());
        assert!(Seal::new([], &fingerprint([])).is_err());
    }

    #[test]
    fn texts_that_join_alike_are_told_apart() {
        let print = |texts: &[&str]| fingerprint(texts.iter().map(|text| text.as_bytes()));
        assert_ne!(print(&["ab", "c"]), print(&["a", "bc"]));
        assert_ne!(print(&["a"]), print(&["a", ""]));
    }

    #[test]
    fn each_purpose_draws_a_secret_of_its_own() {
        assert_ne!(drawn(NEW, b"a").unwrap(), drawn(NEW, b"b").unwrap());
        assert_ne!(drawn(NEW, b"a").unwrap(), drawn(OLD, b"a").unwrap());
        assert_eq!(drawn(NEW, b"a").unwrap(), drawn(NEW, b"a").unwrap());
    }

    proptest! {
        #[test]
        fn whatever_was_changed_is_not_there(at: proptest::sample::Index, bit in 0_u8..8) {
            let one = seal([NEW, OLD], "integration");
            let mut whole = STANDARD_NO_PAD.decode(sealed(&one, b"CANARY")).unwrap();
            let at = at.index(whole.len());
            whole[at] ^= 1 << bit;
            prop_assert_eq!(opened(&one, &STANDARD_NO_PAD.encode(whole)), None);
        }

        #[test]
        fn any_text_is_survived(text in "\\PC{0,80}") {
            prop_assert_eq!(opened(&seal([NEW], "x"), &text), None);
        }
    }
}
