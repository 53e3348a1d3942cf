//! Paths cut into segments: what Salesforce reads between the slashes, never what a proxy might.
//!
//! Duplicate slashes count as one (`//services` is what the `sf` command sends, facts 11.1). Percent-encoded letters are
//! decoded so that no spelling hides a resource, but an encoded slash never becomes a separator (facts 11.9). Fixed words
//! are compared without case: Salesforce takes some in any case, and being stricter would let a spelling slip past a rule.

use std::borrow::Cow;

use memchr::memchr;

use crate::call::ApiVersion;

/// Segments looked at; no known route has more, and what follows is a variable part of the last.
const MAX_SEGMENTS: usize = 16;
/// Paths up to this length are put into lower case on the stack.
pub(crate) const SHORT: usize = 128;

/// A path (without its query) in the spelling of the caller, decoded once.
pub(crate) fn decoded(path: &str) -> Cow<'_, str> {
    match memchr(b'%', path.as_bytes()) {
        None => Cow::Borrowed(path),
        Some(first) => Cow::Owned(decode_segments(path, first)),
    }
}

/// `text` in lower case, in `room` if it fits.
pub(crate) fn lower<'a>(text: &str, room: &'a mut [u8; SHORT]) -> Cow<'a, str> {
    let bytes = text.as_bytes();
    let Some(place) = room.get_mut(..bytes.len()) else { return Cow::Owned(text.to_ascii_lowercase()) };
    place.copy_from_slice(bytes);
    // Whole vectors cost less than an exact end.
    if let Some(vectors) = room.get_mut(..bytes.len().next_multiple_of(16)) {
        vectors.make_ascii_lowercase();
    }
    // ASCII case changes keep UTF-8 valid, so the empty path is never used.
    Cow::Borrowed(room.get(..bytes.len()).and_then(|lower| std::str::from_utf8(lower).ok()).unwrap_or_default())
}

/// The highest bit of each byte that is a slash, and no other bit.
fn slashes_in(eight: [u8; 8]) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const LOW: u64 = ONES * 0x7f;
    let others = u64::from_le_bytes(eight) ^ (ONES * u64::from(b'/'));
    !(((others & LOW) + LOW) | others | LOW)
}

/// The segments of a path, in both the spelling of the caller and lower case.
pub(crate) struct Segments<'a> {
    names: [&'a str; MAX_SEGMENTS],
    words: [&'a str; MAX_SEGMENTS],
    count: usize,
}

impl<'a> Segments<'a> {
    /// Cuts `text` and its lower-case spelling `lower` at the same places.
    pub(crate) fn cut(text: &'a str, lower: &'a str) -> Self {
        let mut segments = Self { names: [""; MAX_SEGMENTS], words: [""; MAX_SEGMENTS], count: 0 };
        let mut from = 0;
        let (eights, rest) = text.as_bytes().as_chunks::<8>();
        for (index, eight) in eights.iter().enumerate() {
            let mut slashes = slashes_in(*eight);
            while slashes != 0 {
                let at = index * 8 + slashes.trailing_zeros() as usize / 8;
                slashes &= slashes - 1;
                segments.add(text, lower, from, at);
                from = at + 1;
            }
        }
        for (at, byte) in rest.iter().enumerate() {
            if *byte == b'/' {
                let at = eights.len() * 8 + at;
                segments.add(text, lower, from, at);
                from = at + 1;
            }
        }
        segments.add(text, lower, from, text.len());
        segments
    }

    fn add(&mut self, text: &'a str, lower: &'a str, from: usize, to: usize) {
        if from < to
            && let (Some(name), Some(word)) = (self.names.get_mut(self.count), self.words.get_mut(self.count))
        {
            *name = text.get(from..to).unwrap_or_default();
            *word = lower.get(from..to).unwrap_or_default();
            self.count += 1;
        }
    }

    /// The segments as the caller spells them.
    pub(crate) fn names(&self) -> &[&'a str] {
        self.names.get(..self.count).unwrap_or_default()
    }

    /// The same segments in lower case.
    pub(crate) fn words(&self) -> &[&'a str] {
        self.words.get(..self.count).unwrap_or_default()
    }

    /// Takes a format suffix off the last segment, where `version` still reads one.
    pub(crate) fn drop_suffix(&mut self, version: ApiVersion) {
        if version > LAST_WITH_SUFFIX {
            return;
        }
        for spelling in [&mut self.names, &mut self.words] {
            if let Some(last) = self.count.checked_sub(1).and_then(|last| spelling.get_mut(last)) {
                *last = without_suffix(last);
            }
        }
    }
}

/// Whether a segment climbs or stands still: what the origin makes of it is not known, so neither is the route.
pub(crate) fn is_dots(segment: &str) -> bool {
    matches!(segment, "." | "..")
}

/// Decodes each `%XX` that stands for a printable ASCII character other than `/` and `%`.
/// The first percent sign is at `first`.
fn decode_segments(path: &str, first: usize) -> String {
    let mut text = String::with_capacity(path.len());
    text.push_str(path.get(..first).unwrap_or_default());
    let mut rest = path.get(first..).unwrap_or_default();
    while !rest.is_empty() {
        let decoded = rest.strip_prefix('%').and_then(|pair| hex_pair(pair.as_bytes()));
        if let Some(decoded) = decoded.filter(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'%')) {
            text.push(char::from(decoded));
            rest = rest.get(3..).unwrap_or_default();
        } else {
            let next = memchr(b'%', rest.as_bytes().get(1..).unwrap_or_default()).map_or(rest.len(), |at| at + 1);
            text.push_str(rest.get(..next).unwrap_or_default());
            rest = rest.get(next..).unwrap_or_default();
        }
    }
    text
}

/// The byte that the two hexadecimal digits at the front stand for.
pub(crate) fn hex_pair(bytes: &[u8]) -> Option<u8> {
    match bytes {
        [high, low, ..] => {
            let digit = |byte: u8| match byte {
                b'0'..=b'9' => Some(byte - b'0'),
                b'A'..=b'F' => Some(byte - b'A' + 10),
                b'a'..=b'f' => Some(byte - b'a' + 10),
                _ => None,
            };
            Some(digit(*high)? << 4 | digit(*low)?)
        }
        _ => None,
    }
}

/// `v62.0` as a version.
pub(crate) fn version(segment: &str) -> Option<ApiVersion> {
    bare_version(segment.strip_prefix(['v', 'V'])?)
}

/// `62.0`, as SOAP, Bulk v1 and CometD paths spell it.
pub(crate) fn bare_version(segment: &str) -> Option<ApiVersion> {
    let [whole @ .., b'.', tenth] = segment.as_bytes() else { return None };
    let number = match whole {
        [_] | [_, _] | [_, _, _] => whole.iter().try_fold(0, |number, byte| Some(number * 10 + digit(*byte)?))?,
        _ => return None,
    };
    Some(ApiVersion(number * 10 + digit(*tenth)?))
}

fn digit(byte: u8) -> Option<u16> {
    byte.is_ascii_digit().then(|| u16::from(byte - b'0'))
}

/// The last version in which `.json` and `.xml` at the end of a path choose the format (facts 0).
const LAST_WITH_SUFFIX: ApiVersion = ApiVersion(570);

/// The segment without a format suffix.
fn without_suffix(segment: &str) -> &str {
    match segment.rsplit_once('.') {
        Some((stem, end)) if end.eq_ignore_ascii_case("json") || end.eq_ignore_ascii_case("xml") => stem,
        _ => segment,
    }
}

/// Whether `name` can be the API name of an object, field or relationship.
pub(crate) fn is_api_name(name: &str) -> bool {
    name.len() <= 120
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whether a segment is a record id (15 or 18 characters with a digit, facts 7.5) or a composite reference to one.
pub(crate) fn is_record_id(segment: &str) -> bool {
    let id = matches!(segment.len(), 15 | 18)
        && segment.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && segment.bytes().any(|byte| byte.is_ascii_digit());
    id || (segment.starts_with("@{") && segment.ends_with('}'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(path: &str) -> Vec<String> {
        let text = decoded(path);
        let mut room = [0; SHORT];
        let lower = lower(&text, &mut room);
        assert_eq!(lower, text.to_ascii_lowercase());
        let segments = Segments::cut(&text, &lower);
        let lowered: Vec<String> = segments.names().iter().map(|name| name.to_ascii_lowercase()).collect();
        assert_eq!(segments.words(), lowered);
        segments.names().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn no_path_is_too_long_and_no_segment_beyond_the_sixteenth_counts() {
        for length in [SHORT - 2, SHORT - 1, SHORT, SHORT + 1, 1_000] {
            let segment = "A".repeat(length - 1);
            assert_eq!(names(&format!("/{segment}")), [segment]);
        }
        assert_eq!(names(&"/A".repeat(40)).len(), MAX_SEGMENTS);
    }

    proptest! {
        #[test]
        fn paths_are_cut_at_their_slashes(path in "[/aB.é%]{0,80}") {
            let lower = path.to_ascii_lowercase();
            let segments = Segments::cut(&path, &lower);
            let cut = |text: &str| -> Vec<String> {
                text.split('/').filter(|segment| !segment.is_empty()).take(MAX_SEGMENTS).map(str::to_owned).collect()
            };
            prop_assert_eq!(segments.names(), cut(&path));
            prop_assert_eq!(segments.words(), cut(&lower));
        }
    }

    #[test]
    fn duplicate_slashes_count_as_one() {
        assert_eq!(names("//services///data/"), ["services", "data"]);
        assert!(names("//").is_empty());
    }

    #[test]
    fn letters_are_decoded_and_slashes_never() {
        assert_eq!(names("/%71uer%79/a%2Fb%2fc/%2570"), ["query", "a%2Fb%2fc", "%2570"]);
        assert_eq!(names("/%71u41x/%41b42%42"), ["qu41x", "Ab42B"]);
        assert_eq!(names("/%2e%2e/x%"), ["..", "x%"]);
        assert_eq!(names("/%00/%C3%A9/%"), ["%00", "%C3%A9", "%"]);
        assert_eq!(names("/é%20%41"), ["é%20A"]);
    }

    #[test]
    fn versions_are_read_strictly() {
        assert_eq!(version("v62.0"), Some(ApiVersion(620)));
        assert_eq!(version("V9.5"), Some(ApiVersion(95)));
        for bad in ["62.0", "v62", "v62.", "v.0", "v62.00", "v6.2.0", "v+2.0", "v1234.0", "v"] {
            assert_eq!(version(bad), None, "{bad}");
        }
    }

    #[test]
    fn format_suffixes_end_with_version_57() {
        for (path, version, last) in [
            ("/x/Account.json", 570, "Account"),
            ("/limits.XML", 200, "limits"),
            ("/Account.json", 580, "Account.json"),
            ("/Account.inc", 200, "Account.inc"),
        ] {
            let lower = path.to_ascii_lowercase();
            let mut segments = Segments::cut(path, &lower);
            segments.drop_suffix(ApiVersion(version));
            assert_eq!(segments.names().last(), Some(&last));
            assert_eq!(segments.words().last(), Some(&last.to_ascii_lowercase().as_str()));
        }
    }

    #[test]
    fn ids_are_told_from_field_names() {
        for id in ["001D000000IqhSL", "001D000000IqhSLIAZ", "@{newAccount.id}"] {
            assert!(is_record_id(id), "{id}");
        }
        for field in ["External_Key__c", "SomeFifteenName", "001", "Customer_Id18__c"] {
            assert!(!is_record_id(field), "{field}");
        }
    }
}
