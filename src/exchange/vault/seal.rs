//! What identities seal: for which purpose, for whom, and as text.
//!
//! Each identity with one configuration has keys of its own, and what is sealed is bound to what it is for and to the
//! number of its log-in: nobody moves it to another org or identity, to other credentials, or to another log-in.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use zeroize::Zeroizing;

use crate::seal::{self, NoSeal};

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

/// Seals and opens for one identity.
#[derive(Debug)]
pub struct Seal(seal::Seal);

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
        seal::Seal::new(secrets, &[b"token ", fingerprint.as_slice()].concat()).map(Self)
    }

    /// Seals `plain`, which is overwritten.
    pub(super) fn seal(&self, purpose: Purpose, turn: u64, plain: Zeroizing<Vec<u8>>) -> Result<String, NoSeal> {
        self.0.seal(&bound(purpose, turn), plain).map(|whole| STANDARD_NO_PAD.encode(whole))
    }

    /// Opens what was sealed for this purpose and turn; `None` if it was not sealed here, or changed since.
    pub(super) fn open(&self, purpose: Purpose, turn: u64, sealed: &str) -> Option<Zeroizing<Vec<u8>>> {
        let whole = STANDARD_NO_PAD.decode(Some(sealed).filter(|text| text.len() <= LONGEST)?).ok()?;
        self.0.open(&bound(purpose, turn), &whole)
    }
}

fn bound(purpose: Purpose, turn: u64) -> [u8; 9] {
    let mut bytes = [purpose as u8; 9];
    for (to, from) in bytes.iter_mut().skip(1).zip(turn.to_be_bytes()) {
        *to = from;
    }
    bytes
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
    fn texts_that_join_alike_are_told_apart() {
        let print = |texts: &[&str]| fingerprint(texts.iter().map(|text| text.as_bytes()));
        assert_ne!(print(&["ab", "c"]), print(&["a", "bc"]));
        assert_ne!(print(&["a"]), print(&["a", ""]));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC{0,80}") {
            prop_assert_eq!(opened(&seal([NEW], "x"), &text), None);
        }
    }
}
