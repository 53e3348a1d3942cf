//! Paths cut into segments: what Salesforce reads between the slashes, never what a proxy might.
//!
//! Duplicate slashes count as one (`//services` is what the `sf` command sends, facts 11.1). Percent-encoded letters are
//! decoded so that no spelling hides a resource, but an encoded slash never becomes a separator (facts 11.9). Fixed words
//! are compared without case: Salesforce takes some in any case, and being stricter would let a spelling slip past a rule.

use std::borrow::Cow;

use memchr::memchr;
use smallvec::SmallVec;

use crate::call::ApiVersion;

/// Segments looked at; no known route has more, and what follows is a variable part of the last.
const MAX_SEGMENTS: usize = 16;

/// The segments of a path.
pub(crate) type Segments<'a> = SmallVec<[&'a str; MAX_SEGMENTS]>;

/// A path, decoded once, in both the spelling of the caller and lower case.
pub(crate) struct Decoded<'a> {
    text: Cow<'a, str>,
    lower: SmallVec<[u8; 160]>,
}

impl<'a> Decoded<'a> {
    /// Decodes `path` (without its query).
    pub(crate) fn new(path: &'a str) -> Self {
        let text = decode_segments(path);
        let mut lower = SmallVec::from_slice(text.as_bytes());
        lower.make_ascii_lowercase();
        Self { text, lower }
    }

    /// The segments as the caller spells them.
    pub(crate) fn names(&self) -> Segments<'_> {
        split(&self.text)
    }

    /// The same segments in lower case.
    pub(crate) fn words(&self) -> Segments<'_> {
        // ASCII case changes keep UTF-8 valid, so the empty path is never used.
        split(std::str::from_utf8(&self.lower).unwrap_or_default())
    }
}

fn split(path: &str) -> Segments<'_> {
    path.split('/').filter(|segment| !segment.is_empty()).take(MAX_SEGMENTS).collect()
}

/// Whether a segment climbs or stands still: what the origin makes of it is not known, so neither is the route.
pub(crate) fn is_dots(segment: &str) -> bool {
    matches!(segment, "." | "..")
}

/// Decodes each `%XX` that stands for a printable ASCII character other than `/` and `%`.
fn decode_segments(path: &str) -> Cow<'_, str> {
    let bytes = path.as_bytes();
    let Some(first) = memchr(b'%', bytes) else { return Cow::Borrowed(path) };
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
    Cow::Owned(text)
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
    let (whole, tenth) = segment.split_once('.')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 3 || tenth.len() != 1 || !digits(whole) || !digits(tenth) {
        return None;
    }
    Some(ApiVersion(whole.parse::<u16>().ok()? * 10 + tenth.parse::<u16>().ok()?))
}

/// The last version in which `.json` and `.xml` at the end of a path choose the format (facts 0).
const LAST_WITH_SUFFIX: ApiVersion = ApiVersion(570);

/// The segment without a format suffix, where the version still reads one.
pub(crate) fn without_suffix(segment: &str, version: ApiVersion) -> &str {
    if version > LAST_WITH_SUFFIX {
        return segment;
    }
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
    use super::*;

    fn names(path: &str) -> Vec<String> {
        Decoded::new(path).names().iter().map(ToString::to_string).collect()
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
        assert_eq!(without_suffix("Account.json", ApiVersion(570)), "Account");
        assert_eq!(without_suffix("limits.XML", ApiVersion(200)), "limits");
        assert_eq!(without_suffix("Account.json", ApiVersion(580)), "Account.json");
        assert_eq!(without_suffix("Account.inc", ApiVersion(200)), "Account.inc");
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
