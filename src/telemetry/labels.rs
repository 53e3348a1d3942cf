//! Words from outside that may become label values: object names, error codes, API versions, methods.
//!
//! Each list is closed by form and by number, so that no client can grow the metrics, and a record id, a token or a key
//! that stands where a name should is never repeated.

use std::collections::HashMap;

use parking_lot::RwLock;
use smol_str::SmolStr;

use crate::call::ApiVersion;

/// A word's place in a [`Capped`] list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WordId(u16);

impl WordId {
    /// There is no word.
    pub const NONE: Self = Self(0);
    /// A word that is not in the list.
    pub const OTHER: Self = Self(1);

    /// For packing into keys.
    pub fn index(self) -> u16 {
        self.0
    }
}

const NONE: &str = "none";
const OTHER: &str = "other";
/// Longest word any list takes.
const LONGEST: usize = 80;

/// A list of words that grows to a limit and never shrinks; what does not fit is `other`.
#[derive(Debug)]
pub struct Capped {
    limit: usize,
    plausible: fn(&str) -> bool,
    words: RwLock<Words>,
}

#[derive(Debug, Default)]
struct Words {
    /// By lower-case spelling.
    ids: HashMap<SmolStr, u16, ahash::RandomState>,
    /// Position is id - 2; spelt as first seen.
    spelt: Vec<SmolStr>,
}

impl Capped {
    /// Object names, at most `limit` of them.
    pub fn objects(limit: usize) -> Self {
        Self::new(limit, is_plausible_object)
    }

    /// Salesforce's error codes, at most `limit` of them.
    pub fn error_codes(limit: usize) -> Self {
        Self::new(limit, is_plausible_error_code)
    }

    fn new(limit: usize, plausible: fn(&str) -> bool) -> Self {
        Self { limit: limit.min(usize::from(u16::MAX) - 2), plausible, words: RwLock::default() }
    }

    /// The id of `word`, compared without case. An unknown word is taken into the list only if `learn`.
    pub fn id(&self, word: &str, learn: bool) -> WordId {
        let mut lower = [0; LONGEST];
        let Some(lower) = lower.get_mut(..word.len()) else { return WordId::OTHER };
        lower.copy_from_slice(word.as_bytes());
        lower.make_ascii_lowercase();
        let Ok(lower) = std::str::from_utf8(lower) else { return WordId::OTHER };
        if let Some(id) = self.words.read().ids.get(lower) {
            return WordId(*id);
        }
        if !learn || !(self.plausible)(word) {
            return WordId::OTHER;
        }
        let mut words = self.words.write();
        if let Some(id) = words.ids.get(lower) {
            return WordId(*id);
        }
        if words.spelt.len() >= self.limit {
            return WordId::OTHER;
        }
        words.spelt.push(word.into());
        let id = u16::try_from(words.spelt.len() + 1).unwrap_or(WordId::OTHER.0);
        words.ids.insert(lower.into(), id);
        WordId(id)
    }

    /// The one spelling of `id`.
    pub fn word(&self, id: WordId) -> SmolStr {
        match id {
            WordId::NONE => SmolStr::new_static(NONE),
            WordId(id) => {
                let place = usize::from(id).checked_sub(2);
                let known = place.and_then(|place| self.words.read().spelt.get(place).cloned());
                known.unwrap_or(SmolStr::new_static(OTHER))
            }
        }
    }

    /// How many words the list holds.
    pub fn len(&self) -> usize {
        self.words.read().spelt.len()
    }
}

/// `[A-Za-z][A-Za-z0-9_]{0,79}`, and not a record id: ids of custom objects begin with a letter too.
fn is_plausible_object(word: &str) -> bool {
    let form = word.len() <= LONGEST
        && word.starts_with(|first: char| first.is_ascii_alphabetic())
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let like_an_id =
        matches!(word.len(), 15 | 18) && !word.contains('_') && word.bytes().any(|byte| byte.is_ascii_digit());
    form && !like_an_id
}

/// Error codes of APIs that write theirs otherwise: Bulk API 1.0 (facts 2.5) and GraphQL (facts 2.1).
const OTHERWISE: [&str; 18] = [
    "ClientInputError",
    "DataFetchingException",
    "ExceededQuota",
    "ExecutionAborted",
    "FeatureNotEnabled",
    "InvalidBatch",
    "InvalidJob",
    "InvalidJobState",
    "InvalidOperation",
    "InvalidSessionId",
    "InvalidSyntax",
    "InvalidUrl",
    "InvalidUser",
    "InvalidXML",
    "OperationNotSupported",
    "Timeout",
    "TooManyLockFailure",
    "ValidationError",
];

/// `[A-Z_]{3,60}`, or one of the few that are written otherwise.
fn is_plausible_error_code(word: &str) -> bool {
    OTHERWISE.contains(&word)
        || (3..=60).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

/// Writes a version as Salesforce does; one that no org serves is `other`, so that paths cannot invent labels.
pub fn version(version: ApiVersion) -> SmolStr {
    if is_plausible_version(version) { smol_str::format_smolstr!("{version}") } else { SmolStr::new_static(OTHER) }
}

/// v20.0 to v99.0, whole numbers only.
pub fn is_plausible_version(version: ApiVersion) -> bool {
    (200..=990).contains(&version.0) && version.0.is_multiple_of(10)
}

/// The methods HTTP and Salesforce know; anything else is `other`, because a method may be any word.
pub fn method(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "TRACE" => "TRACE",
        "CONNECT" => "CONNECT",
        _ => OTHER,
    }
}

/// Salesforce's error code for the log, unless it has not the form of one.
pub fn error_code(code: &str) -> &str {
    if is_plausible_error_code(code) { code } else { OTHER }
}

/// The client name a caller sent, if it looks like a name: short, of ordinary characters, and without a run of letters
/// and digits long enough to be a record id, a session or a key.
pub fn client(client: &str) -> &str {
    let ordinary = |byte: u8| byte.is_ascii_alphanumeric() || b" ._-/+:()".contains(&byte);
    let like_a_secret = |word: &[u8]| {
        word.len() >= 15 && word.iter().any(u8::is_ascii_digit) && word.iter().any(u8::is_ascii_alphabetic)
    };
    let words = |byte: &u8| !byte.is_ascii_alphanumeric();
    if client.len() <= 64 && client.bytes().all(ordinary) && !client.as_bytes().split(words).any(like_a_secret) {
        client
    } else {
        OTHER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_has_one_spelling_and_the_first_wins() {
        let objects = Capped::objects(10);
        let first = objects.id("Account", true);
        assert_eq!(objects.id("ACCOUNT", false), first);
        assert_eq!(objects.word(first), "Account");
    }

    #[test]
    fn a_word_that_is_only_asked_for_is_not_learnt() {
        let objects = Capped::objects(10);
        assert_eq!(objects.id("Account", false), WordId::OTHER);
        assert_eq!(objects.len(), 0);
    }

    #[test]
    fn a_full_list_says_other_and_keeps_what_it_has() {
        let objects = Capped::objects(2);
        let kept = objects.id("A", true);
        objects.id("B", true);
        assert_eq!(objects.id("C", true), WordId::OTHER);
        assert_eq!(objects.word(WordId::OTHER), OTHER);
        assert_eq!(objects.id("a", true), kept);
        assert_eq!(objects.len(), 2);
    }

    #[test]
    fn ids_tokens_and_broken_names_are_no_objects() {
        for word in [
            "",
            "1Account",
            "_x",
            "Acc ount",
            "Accoünt",
            "a0B5g00000XyzAb",
            "a0B5g00000XyzAbEAM",
            "00D5g000004CANARY!AQ4.x",
            &"x".repeat(81),
            &"ü".repeat(41),
        ] {
            assert_eq!(Capped::objects(10).id(word, true), WordId::OTHER, "{word}");
        }
        for word in ["Product2", "OpportunityTeam", "Invoice__c", "ns__Line_Item2__c", &"x".repeat(80)] {
            assert_ne!(Capped::objects(10).id(word, true), WordId::OTHER, "{word}");
        }
    }

    #[test]
    fn error_codes_have_the_form_of_salesforce() {
        let codes = Capped::error_codes(10);
        assert_ne!(codes.id("UNABLE_TO_LOCK_ROW", true), WordId::OTHER);
        assert_eq!(codes.id("unable", true), WordId::OTHER);
        assert_eq!(codes.id("AB", true), WordId::OTHER);
        assert_eq!(codes.id("CODE 7", true), WordId::OTHER);
        assert_ne!(codes.id("DataFetchingException", true), WordId::OTHER);
        assert_eq!(codes.id("SomebodysName", true), WordId::OTHER);
    }

    #[test]
    fn a_client_name_that_could_be_a_secret_is_withheld() {
        for name in ["billing/2.1 (nightly)", "DataLoader", "SalesforceMobileSDK", ""] {
            assert_eq!(client(name), name);
        }
        let long = "x".repeat(65);
        for secret in ["00D5g000004CANARY!AQ4AQ", "a0B5g00000XyzAb", "x 0123456789abcdefA", "tab\tbed", "Zoë", &long] {
            assert_eq!(client(secret), OTHER, "{secret}");
        }
    }

    #[test]
    fn versions_and_methods_are_closed_lists() {
        assert_eq!(version(ApiVersion(620)), "v62.0");
        for odd in [0, 190, 621, 1000, u16::MAX] {
            assert_eq!(version(ApiVersion(odd)), OTHER);
        }
        assert_eq!(method(&http::Method::PATCH), "PATCH");
        assert_eq!(method(&http::Method::from_bytes(b"00D!CANARY").unwrap()), OTHER);
    }
}
