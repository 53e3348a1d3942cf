//! Gateway tokens: what an app gets for its key, and shows instead of a Salesforce session.
//!
//! A token says who its caller is, as which identity it acts in which org, and until when; it is sealed by AES-256-GCM, so
//! that nobody can read, change or make one without a key. Nothing is stored: every replica with the same keys opens it,
//! also after a restart. It has the shape of a Salesforce session, `<org id>!<text>`, because client libraries read the
//! org's id from it (facts 5.2), and its text begins with a mark no session of Salesforce has.
//!
//! ```text
//! 00D000000000001 ! wk1. base64( key id, 4 | nonce, 12 | sealed { expiry, 8 | org, caller, identity } | tag, 16 )
//! ```

use std::fmt;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, rand};
use base64::Engine as _;
use base64::alphabet::Alphabet;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use smol_str::SmolStr;
use zeroize::Zeroizing;

/// What the text of every gateway token begins with; Salesforce's begins with `AQ` or `AR`.
const MARK: &str = "!wk1.";
/// The characters a Salesforce session has (facts 5.2).
const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._";
/// Longest name that is sealed; the configuration takes no longer ones.
const LONGEST_NAME: usize = 63;
/// Longest token that is looked at.
const LONGEST: usize = 512;
const KEY_ID_LEN: usize = 4;

/// What a gateway token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// The org's name.
    pub org: SmolStr,
    /// The caller's name.
    pub caller: SmolStr,
    /// The identity it acts as.
    pub identity: SmolStr,
    /// When it expires, in wall time since the Unix epoch, to the second.
    pub expires: Duration,
}

/// A pass that was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// What it says.
    pub pass: Pass,
    /// What tells this token from every other.
    pub serial: Serial,
}

/// The nonce a token was sealed with: its number, in a way.
pub type Serial = [u8; NONCE_LEN];

/// Why a gateway token is not accepted. Callers are told the same in each case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadToken {
    /// Not sealed with any of our keys, or changed since.
    Foreign,
    /// Past its time.
    Expired,
}

/// A token cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cryptographic library failed")]
pub struct NoSeal;

struct Key {
    id: [u8; KEY_ID_LEN],
    key: LessSafeKey,
}

/// Seals and opens gateway tokens. The first key seals, all open.
pub struct Sealer {
    keys: Vec<Key>,
    engine: GeneralPurpose,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({} keys)", self.keys.len())
    }
}

/// 32 bytes, in the words of the key derivation.
struct Length32;

impl hkdf::KeyType for Length32 {
    fn len(&self) -> usize {
        32
    }
}

impl Key {
    /// Key and id are drawn from the secret, each for its own purpose.
    fn from_secret(secret: &[u8]) -> Result<Self, NoSeal> {
        let drawn = hkdf::Salt::new(hkdf::HKDF_SHA256, b"weirkeeper gateway token 1").extract(secret);
        let draw = |purpose: &[u8]| -> Result<Zeroizing<[u8; 32]>, NoSeal> {
            let mut bytes = Zeroizing::new([0; 32]);
            let info = [purpose];
            let okm = drawn.expand(&info, Length32).map_err(|_| NoSeal)?;
            okm.fill(bytes.as_mut_slice()).map_err(|_| NoSeal)?;
            Ok(bytes)
        };
        let key = UnboundKey::new(&AES_256_GCM, draw(b"key")?.as_slice()).map_err(|_| NoSeal)?;
        let [a, b, c, d, ..] = *draw(b"id")?;
        Ok(Self { id: [a, b, c, d], key: LessSafeKey::new(key) })
    }
}

impl Sealer {
    /// From secrets of at least 32 characters each; there must be one.
    pub fn new<'s>(secrets: impl IntoIterator<Item = &'s [u8]>) -> Result<Self, NoSeal> {
        let keys = secrets.into_iter().map(Key::from_secret).collect::<Result<Vec<_>, _>>()?;
        let alphabet = Alphabet::new(ALPHABET).map_err(|_| NoSeal)?;
        let config = GeneralPurposeConfig::new()
            .with_encode_padding(false)
            .with_decode_padding_mode(base64::engine::DecodePaddingMode::RequireNone);
        if keys.is_empty() {
            return Err(NoSeal);
        }
        Ok(Self { keys, engine: GeneralPurpose::new(&alphabet, config) })
    }

    /// A token for `pass`, which says it is of the org with the record id `org_id`.
    pub fn seal(&self, pass: &Pass, org_id: &str) -> Result<Zeroizing<String>, NoSeal> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| NoSeal)?;
        self.seal_with(pass, org_id, nonce)
    }

    fn seal_with(&self, pass: &Pass, org_id: &str, nonce: [u8; NONCE_LEN]) -> Result<Zeroizing<String>, NoSeal> {
        let key = self.keys.first().ok_or(NoSeal)?;
        let mut sealed = Vec::with_capacity(256);
        sealed.extend_from_slice(&pass.expires.as_secs().to_be_bytes());
        for name in [&pass.org, &pass.caller, &pass.identity] {
            let length = u8::try_from(name.len()).ok().filter(|length| usize::from(*length) <= LONGEST_NAME);
            sealed.push(length.ok_or(NoSeal)?);
            sealed.extend_from_slice(name.as_bytes());
        }
        let mut token = Zeroizing::new(String::with_capacity(LONGEST));
        token.push_str(org_id);
        token.push_str(MARK);
        let aad = Aad::from(token.as_bytes());
        key.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).map_err(|_| NoSeal)?;
        let mut whole = Vec::with_capacity(KEY_ID_LEN + NONCE_LEN + sealed.len());
        whole.extend_from_slice(&key.id);
        whole.extend_from_slice(&nonce);
        whole.extend_from_slice(&sealed);
        self.engine.encode_string(&whole, &mut token);
        Ok(token)
    }

    /// Opens `token` at wall time `now`.
    pub fn open(&self, token: &str, now: Duration) -> Result<Opened, BadToken> {
        let (front, text) = split(token).ok_or(BadToken::Foreign)?;
        let mut whole = Zeroizing::new(self.engine.decode(text).map_err(|_| BadToken::Foreign)?);
        let (id, rest) = whole.split_at_mut_checked(KEY_ID_LEN).ok_or(BadToken::Foreign)?;
        let (nonce, sealed) = rest.split_at_mut_checked(NONCE_LEN).ok_or(BadToken::Foreign)?;
        let serial = Serial::try_from(&*nonce).map_err(|_| BadToken::Foreign)?;
        // Ids are short, so two keys may share one: each is tried.
        for key in self.keys.iter().filter(|key| key.id == *id) {
            let mut attempt = Zeroizing::new(sealed.to_vec());
            let nonce = Nonce::assume_unique_for_key(serial);
            let Ok(plain) = key.key.open_in_place(nonce, Aad::from(front.as_bytes()), &mut attempt) else { continue };
            let pass = read(plain).ok_or(BadToken::Foreign)?;
            return if now < pass.expires { Ok(Opened { pass, serial }) } else { Err(BadToken::Expired) };
        }
        Err(BadToken::Foreign)
    }
}

/// Whether `text` claims to be a gateway token; whether it is one, only [`Sealer::open`] can say.
pub fn is_gateway_token(text: &[u8]) -> bool {
    mark_at(text).is_some()
}

/// Where the mark stands in what claims to be a gateway token: behind an org's record id.
fn mark_at(text: &[u8]) -> Option<usize> {
    let marked = |at: usize| text.get(at..at + MARK.len()) == Some(MARK.as_bytes());
    let at = [15, 18].into_iter().find(|at| marked(*at))?;
    (text.starts_with(b"00D") && text.len() <= LONGEST).then_some(at)
}

/// A token up to and with its mark, and what follows.
fn split(token: &str) -> Option<(&str, &str)> {
    token.split_at_checked(mark_at(token.as_bytes())? + MARK.len())
}

fn read(plain: &[u8]) -> Option<Pass> {
    let (seconds, mut rest) = plain.split_first_chunk::<8>()?;
    let mut name = || -> Option<SmolStr> {
        let (length, after) = rest.split_first()?;
        let (name, after) = after.split_at_checked(usize::from(*length))?;
        rest = after;
        std::str::from_utf8(name).ok().map(SmolStr::new)
    };
    let (org, caller, identity) = (name()?, name()?, name()?);
    rest.is_empty().then_some(Pass {
        org,
        caller,
        identity,
        expires: Duration::from_secs(u64::from_be_bytes(*seconds)),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_hours(500_000);
    const OLD: &[u8] = b"an old secret of at least 32 characters";
    const NEW: &[u8] = b"a new secret of at least 32 characters!";
    const ORG_ID: &str = "00D000000000001";

    fn sealer(secrets: &[&[u8]]) -> Sealer {
        Sealer::new(secrets.iter().copied()).unwrap()
    }

    fn pass() -> Pass {
        Pass {
            org: "prod".into(),
            caller: "storefront".into(),
            identity: "integration".into(),
            expires: NOW + Duration::from_hours(2),
        }
    }

    #[test]
    fn a_token_looks_like_a_session_and_opens_everywhere_with_the_same_key() {
        let token = sealer(&[NEW]).seal(&pass(), ORG_ID).unwrap();
        let (org, text) = token.split_once('!').unwrap();
        assert_eq!(org, ORG_ID);
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._".contains(&byte)), "{text}");
        assert!(token.len() < 200, "{}", token.len());
        assert!(is_gateway_token(token.as_bytes()));
        // Another process, after a restart.
        assert_eq!(sealer(&[NEW]).open(&token, NOW).unwrap().pass, pass());
    }

    #[test]
    fn two_tokens_for_the_same_pass_differ() {
        let sealer = sealer(&[NEW]);
        let (one, two) = (sealer.seal(&pass(), ORG_ID).unwrap(), sealer.seal(&pass(), ORG_ID).unwrap());
        assert_ne!(*one, *two);
        assert_ne!(sealer.open(&one, NOW).unwrap().serial, sealer.open(&two, NOW).unwrap().serial);
    }

    #[test]
    fn keys_rotate_without_a_gap() {
        let old = sealer(&[OLD]).seal(&pass(), ORG_ID).unwrap();
        let both = sealer(&[NEW, OLD]);
        assert!(both.open(&old, NOW).is_ok());
        let new = both.seal(&pass(), ORG_ID).unwrap();
        assert!(sealer(&[NEW]).open(&new, NOW).is_ok());
        assert_eq!(sealer(&[NEW]).open(&old, NOW), Err(BadToken::Foreign));
    }

    #[test]
    fn a_token_expires_to_the_second() {
        let sealer = sealer(&[NEW]);
        let token = sealer.seal(&pass(), ORG_ID).unwrap();
        assert!(sealer.open(&token, pass().expires.saturating_sub(Duration::from_millis(1))).is_ok());
        assert_eq!(sealer.open(&token, pass().expires), Err(BadToken::Expired));
    }

    #[test]
    fn a_session_of_salesforce_is_no_gateway_token() {
        for other in [
            "00D000000000001!AQ4AQFK8.pXcM2",
            "00D000000000001",
            "wk_abc",
            "eyJhbGciOi.x.y",
            "!wk1.abc",
            "00D00000000!wk1.abc",
            "01D000000000001!wk1.abc",
            "",
        ] {
            assert!(!is_gateway_token(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_sealer_without_keys_is_none_and_none_shows_its_keys() {
        assert!(Sealer::new([]).is_err());
        assert_eq!(format!("{:?}", sealer(&[NEW, OLD])), "Sealer(2 keys)");
    }

    proptest! {
        #[test]
        fn any_change_makes_a_token_foreign(at in 0_usize..200, to in 0x21_u8..0x7f) {
            let sealer = sealer(&[NEW]);
            let token = sealer.seal_with(&pass(), ORG_ID, [7; NONCE_LEN]).unwrap();
            let at = at % token.len();
            let mut bytes = token.as_bytes().to_vec();
            prop_assume!(bytes[at] != to);
            bytes[at] = to;
            let changed = String::from_utf8(bytes).unwrap();
            prop_assert_eq!(sealer.open(&changed, NOW), Err(BadToken::Foreign));
            prop_assert_eq!(sealer.open(&token[..at], NOW), Err(BadToken::Foreign));
        }

        #[test]
        fn any_pass_comes_back_as_it_was(org in "[a-z0-9_-]{0,63}", caller in "[a-z0-9_-]{0,63}", seconds in 0..u64::MAX) {
            let pass = Pass {
                org: org.into(),
                caller: caller.into(),
                identity: "i".into(),
                expires: Duration::from_secs(seconds),
            };
            let sealer = sealer(&[NEW]);
            let token = sealer.seal(&pass, ORG_ID).unwrap();
            prop_assert!(token.len() <= LONGEST);
            if seconds > 0 {
                prop_assert_eq!(sealer.open(&token, Duration::ZERO).unwrap().pass, pass);
            }
        }

        #[test]
        fn any_text_is_survived(text in "\\PC{0,300}", tail in "[A-Za-z0-9._]{0,300}") {
            let sealer = sealer(&[NEW]);
            prop_assert!(sealer.open(&text, NOW).is_err());
            let forged = format!("00D000000000001!wk1.{tail}");
            prop_assert!(sealer.open(&forged, NOW).is_err());
        }
    }
}
