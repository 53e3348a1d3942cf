//! What Salesforce says has been used: the `Sforce-Limit-Info` header (facts 1.7).

use std::fmt;

use smol_str::SmolStr;

/// No org has a limit near this; anything above is a mistake or an attack on the ledger.
const ABSURD: u32 = 1_000_000_000;

/// A used number out of a limit, in API calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Used in the trailing 24 hours; may exceed the limit, which is soft (facts 1.2).
    pub used: u32,
    /// Allowed in 24 hours, never 0.
    pub limit: u32,
}

impl Usage {
    /// A plausible pair of numbers, or nothing.
    pub(crate) fn new(used: u32, limit: u32) -> Option<Self> {
        (limit > 0).then_some(Self { used, limit })
    }
}

/// Writes it as Salesforce does: `api-usage=25/5000`.
impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "api-usage={}/{}", self.used, self.limit)
    }
}

/// The entries of one `Sforce-Limit-Info` header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitInfo {
    /// `api-usage`: the org's daily allowance.
    pub org: Option<Usage>,
    /// `per-app-api-usage`, and the connected app's name.
    pub app: Option<(Usage, SmolStr)>,
    /// `api-bursts`.
    pub bursts: Option<Usage>,
}

impl LimitInfo {
    /// Reads a header's value: `name=used/limit[(appName=...)]` separated by `;`.
    ///
    /// Unknown names are passed over, and so is every entry that is malformed, absurd or given twice with different
    /// numbers: a reading that may be wrong is worse than none.
    pub fn parse(value: &[u8]) -> Self {
        if let Some(usage) = only_org(value) {
            return Self { org: Some(usage), ..Self::default() };
        }
        let (mut org, mut app, mut bursts) = (Entry::Absent, Entry::Absent, Entry::Absent);
        for entry in value.split(|byte| *byte == b';') {
            let Some((name, numbers)) = split_once(entry, b'=') else { continue };
            match name.trim_ascii() {
                b"api-usage" => org = org.with(numbers),
                b"per-app-api-usage" => app = app.with(numbers),
                b"api-bursts" => bursts = bursts.with(numbers),
                _ => {}
            }
        }
        Self {
            org: org.reading().map(|(usage, _)| usage),
            app: app.reading().map(|(usage, name)| (usage, name.unwrap_or_default())),
            bursts: bursts.reading().map(|(usage, _)| usage),
        }
    }
}

/// What nearly every answer says: `api-usage=18/5000`, and nothing else.
fn only_org(value: &[u8]) -> Option<Usage> {
    let (used, rest) = leading(value.strip_prefix(b"api-usage=")?)?;
    let (limit, rest) = leading(rest.strip_prefix(b"/")?)?;
    if rest.is_empty() { Usage::new(used, limit) } else { None }
}

/// The number at the beginning of `text`, and what follows it. Ten digits could overflow, and are absurd.
fn leading(text: &[u8]) -> Option<(u32, &[u8])> {
    let digit = |byte: &u8| Some(u32::from(byte.wrapping_sub(b'0'))).filter(|digit| *digit < 10);
    let (mut number, mut length) = (0_u32, 0);
    for digit in text.iter().take(9).map_while(digit) {
        number = number * 10 + digit;
        length += 1;
    }
    (length > 0).then_some((number, text.get(length..)?))
}

type Reading = (Usage, Option<SmolStr>);

/// What has been read of one name so far.
enum Entry {
    Absent,
    One(Reading),
    Unusable,
}

impl Entry {
    fn with(self, text: &[u8]) -> Self {
        match (self, reading(text.trim_ascii())) {
            (Self::Absent, Some(new)) => Self::One(new),
            (Self::One(old), Some(new)) if old == new => Self::One(old),
            _ => Self::Unusable,
        }
    }

    fn reading(self) -> Option<Reading> {
        match self {
            Self::One(reading) => Some(reading),
            Self::Absent | Self::Unusable => None,
        }
    }
}

/// `17/250` or `17/250(appName=sample)`.
fn reading(text: &[u8]) -> Option<Reading> {
    let (numbers, app) = match split_once(text, b'(') {
        None => (text, None),
        Some((numbers, rest)) => {
            let name = rest.strip_suffix(b")")?.strip_prefix(b"appName=")?;
            (numbers, Some(SmolStr::new(std::str::from_utf8(name).ok()?)))
        }
    };
    let (used, limit) = split_once(numbers, b'/')?;
    let parse = |digits: &[u8]| number(std::str::from_utf8(digits).ok()?.trim());
    Some((Usage::new(parse(used)?, parse(limit)?)?, app))
}

/// A number of calls: digits only, at most a thousand million.
pub(crate) fn number(digits: &str) -> Option<u32> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse::<u32>().ok()).flatten().filter(|number| *number <= ABSURD)
}

fn split_once(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let index = memchr::memchr(at, text)?;
    Some((text.get(..index)?, text.get(index + 1..)?))
}

/// `Max` and `Remaining` of the daily allowance in an answer to `/limits`; the latter may be negative (facts 1.6).
pub fn daily_requests(body: &[u8]) -> Option<(i64, i64)> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Limits {
        daily_api_requests: Daily,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Daily {
        max: i64,
        remaining: i64,
    }
    let Daily { max, remaining } = serde_json::from_slice::<Limits>(body).ok()?.daily_api_requests;
    Some((max, remaining))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn usage(used: u32, limit: u32) -> Usage {
        Usage { used, limit }
    }

    #[test]
    fn an_answer_to_limits_says_what_is_left_of_the_day() {
        let body = br#"{"ActiveScratchOrgs":{"Max":3,"Remaining":3},"DailyApiRequests":{"Max":15000,"Remaining":14998,"App":{"Max":0,"Remaining":0}}}"#;
        assert_eq!(daily_requests(body), Some((15_000, 14_998)));
        assert_eq!(daily_requests(br#"{"DailyApiRequests":{"Max":15000,"Remaining":-20}}"#), Some((15_000, -20)));
        for body in [&b"{}"[..], b"[]", b"", b"<html>", br#"{"DailyApiRequests":{"Max":15000}}"#] {
            assert_eq!(daily_requests(body), None);
        }
        let absurd = br#"{"DailyApiRequests":{"Max":1e18,"Remaining":99999999999999999999}}"#;
        assert_eq!(daily_requests(absurd), None);
    }

    #[test]
    fn every_documented_form_is_read() {
        let plain = LimitInfo::parse(b"api-usage=18/5000");
        assert_eq!(plain, LimitInfo { org: Some(usage(18, 5000)), ..LimitInfo::default() });

        let app = LimitInfo::parse(b"api-usage=25/5000; per-app-api-usage=17/250(appName=sample-connected-app)");
        assert_eq!(app.org, Some(usage(25, 5000)));
        assert_eq!(app.app, Some((usage(17, 250), "sample-connected-app".into())));

        let bursts = LimitInfo::parse(b"api-usage=10018/100000; api-bursts=1/750");
        assert_eq!((bursts.org, bursts.bursts), (Some(usage(10018, 100_000)), Some(usage(1, 750))));
    }

    #[test]
    fn usage_may_exceed_its_limit() {
        assert_eq!(LimitInfo::parse(b"api-usage=15003/15000").org, Some(usage(15_003, 15_000)));
    }

    #[test]
    fn unknown_names_are_passed_over() {
        assert_eq!(LimitInfo::parse(b"new-thing=a(b;c); api-usage=1/2;;x").org, Some(usage(1, 2)));
    }

    #[test]
    fn what_is_absurd_is_no_reading() {
        for value in [
            &b""[..],
            b"api-usage",
            b"api-usage=",
            b"api-usage=1",
            b"api-usage=1/",
            b"api-usage=/2",
            b"api-usage=-1/15000",
            b"api-usage=+1/15000",
            b"api-usage=1/0",
            b"api-usage=1/1000000000000000000",
            b"api-usage=1000000001/1000000000",
            b"api-usage=1.5/2",
            b"api-usage=1/2/3",
            b"api-usage=1/2x",
            b"api-usage=1/2(",
            b"api-usage=1/2; api-usage=1/3",
            b"api-usage=\xff/2",
            b"API-USAGE=1/2",
            b"api-usage=0x1/2",
            b"api-usage=1/2; api-usage=junk",
        ] {
            assert_eq!(LimitInfo::parse(value).org, None, "{}", value.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn the_short_way_says_what_the_long_one_does(used in "[0-9]{0,12}", limit in "[0-9 /]{0,12}") {
            let value = format!("api-usage={used}/{limit}");
            prop_assert_eq!(LimitInfo::parse(value.as_bytes()), LimitInfo::parse(format!("{value};").as_bytes()));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(used in 0..=ABSURD, limit in 1..=ABSURD) {
            let written = usage(used, limit).to_string();
            prop_assert_eq!(LimitInfo::parse(written.as_bytes()).org, Some(usage(used, limit)));
        }

        #[test]
        fn any_bytes_are_survived(value in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = LimitInfo::parse(&value);
        }
    }
}
