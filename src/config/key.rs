//! Gateway keys: what an app shows to say who it is.
//!
//! A key is `wk_`, 32 random bytes as base64url without padding, and six characters of checksum over all that, so
//! that a typo is told from a wrong key and a secret scanner knows one when it sees it. The gateway stores and
//! compares SHA-256 digests only.

use std::fmt::{self, Write as _};

use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::{Zeroize, Zeroizing};

/// What every gateway key begins with.
pub const PREFIX: &str = "wk_";

/// Characters of the random part: 32 bytes as base64url.
const RANDOM_LEN: usize = 43;
/// Characters of the checksum.
const CHECK_LEN: usize = 6;
/// Characters of a whole key.
pub const KEY_LEN: usize = PREFIX.len() + RANDOM_LEN + CHECK_LEN;

/// The SHA-256 of a gateway key. It tells nothing about the key, which is random, but is shown shortened anyway.
///
/// `==` takes the same time wherever two digests differ.
#[derive(Clone, Copy, Eq)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// The digest of `key`.
    pub fn of(key: &[u8]) -> Self {
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(digest::digest(&digest::SHA256, key).as_ref()) {
            *to = *from;
        }
        Self(bytes)
    }

    /// Reads 64 hexadecimal digits in either case.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (to, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let [high, low] = pair else { return None };
            *to = (hex_digit(*high)? << 4) | hex_digit(*low)?;
        }
        Some(Self(bytes))
    }

    /// The digest's 32 bytes, for tables keyed by it.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// All 64 hexadecimal digits, as the configuration wants them.
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }

    /// The first eight hexadecimal digits.
    pub fn short(self) -> String {
        let [a, b, c, d, ..] = self.0;
        hex(&[a, b, c, d])
    }
}

impl PartialEq for KeyDigest {
    fn eq(&self, other: &Self) -> bool {
        constant_time_eq(&self.0, &other.0)
    }
}

impl std::hash::Hash for KeyDigest {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyDigest({})", self.short())
    }
}

/// Whether two byte strings are equal, in a time that depends on their lengths only.
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// The SHA-256 of `key` in hexadecimal: what `key_sha256` in the configuration holds.
pub fn sha256_hex(key: &str) -> String {
    KeyDigest::of(key.as_bytes()).to_hex()
}

/// A new gateway key. It exists nowhere else: show it once and keep its digest.
pub fn generate() -> Result<Zeroizing<String>, NoRandomness> {
    let mut random = Zeroizing::new([0_u8; 32]);
    rand::fill(random.as_mut_slice()).map_err(|_| NoRandomness)?;
    Ok(assemble(&random))
}

/// The operating system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct NoRandomness;

fn assemble(random: &[u8; 32]) -> Zeroizing<String> {
    let mut key = Zeroizing::new(String::with_capacity(KEY_LEN));
    key.push_str(PREFIX);
    URL_SAFE_NO_PAD.encode_string(random, &mut key);
    let check = checksum(&key);
    key.push_str(&check);
    key
}

/// What a text that claims to be a gateway key turns out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Prefix, length and checksum are right; whether anybody has this key is another matter.
    Key,
    /// It has the prefix, but was cut off, extended or mistyped.
    Damaged,
    /// It does not have the prefix.
    NotAKey,
}

/// Tells a gateway key from other texts without knowing any.
pub fn shape(text: &str) -> Shape {
    if !text.starts_with(PREFIX) {
        return Shape::NotAKey;
    }
    match text.split_at_checked(KEY_LEN - CHECK_LEN) {
        Some((body, check)) if constant_time_eq(checksum(body).as_bytes(), check.as_bytes()) => Shape::Key,
        _ => Shape::Damaged,
    }
}

/// Six base64url characters of the SHA-256 of `body`.
fn checksum(body: &str) -> String {
    let mut all = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, body.as_bytes()));
    let check = all.chars().take(CHECK_LEN).collect();
    all.zeroize();
    check
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_new_key_has_the_shape_and_differs_from_the_next() {
        let (one, two) = (generate().unwrap(), generate().unwrap());
        assert_eq!(one.len(), KEY_LEN);
        assert_eq!(shape(&one), Shape::Key);
        assert_ne!(*one, *two);
    }

    #[test]
    fn the_digest_is_sha_256() {
        assert_eq!(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let digest = KeyDigest::of(b"abc");
        assert_eq!(KeyDigest::parse(&digest.to_hex().to_uppercase()), Some(digest));
        assert_eq!(format!("{digest:?}"), "KeyDigest(ba7816bf)");
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        assert_eq!(KeyDigest::parse("ba78"), None);
        assert_eq!(KeyDigest::parse(&"g".repeat(64)), None);
        assert_eq!(KeyDigest::parse(&"é".repeat(32)), None);
    }

    proptest! {
        #[test]
        fn one_wrong_character_damages_a_key(random: [u8; 32], at in 3..KEY_LEN) {
            let key = assemble(&random);
            let mut wrong: Vec<char> = key.chars().collect();
            wrong[at] = if wrong[at] == 'x' { 'y' } else { 'x' };
            let wrong: String = wrong.into_iter().collect();
            prop_assert_eq!(shape(&key), Shape::Key);
            prop_assert_eq!(shape(&wrong), Shape::Damaged);
        }

        #[test]
        fn digests_are_equal_if_and_only_if_their_bytes_are(a: [u8; 32], b: [u8; 32]) {
            prop_assert_eq!(KeyDigest(a) == KeyDigest(b), a == b);
            prop_assert!(KeyDigest(a) == KeyDigest(a));
        }

        #[test]
        fn any_text_has_a_shape(text in "\\PC{0,80}") {
            let _ = shape(&text);
            let _ = KeyDigest::parse(&text);
        }
    }
}
