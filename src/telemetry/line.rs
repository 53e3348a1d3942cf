//! Writes one line of the log, by hand, into a buffer: JSON for requests and events, text for events on a terminal.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use smol_str::SmolStr;

use crate::outcome::hex_digits;

/// Room made for a line before it is written.
const USUAL_LENGTH: usize = 1_024;

/// A value of an event's member. It must not hold a token, a body, a literal or a record id.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Any text; it is escaped.
    Text(&'a str),
    /// A whole number.
    Number(u64),
    /// Yes or no.
    Flag(bool),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Value<'_> {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// A member's key as it stands in the line, comma and colon included; only for words that need no escaping.
macro_rules! key {
    ($key:literal) => {
        concat!(",\"", $key, "\":")
    };
}
pub(super) use key;

/// One JSON object under construction. Keys are made by [`key`], so that each costs one copy of known length.
#[derive(Debug)]
pub(super) struct Line<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Line<'a> {
    /// Begins with the time; every other member follows it.
    pub(super) fn begin(out: &'a mut Vec<u8>, stamp: &mut Stamp, wall: Duration) -> Self {
        out.reserve(USUAL_LENGTH);
        out.extend_from_slice(b"{\"time\":\"");
        stamp.write(out, wall);
        out.push(b'"');
        Self { out }
    }

    /// Members that are put into a line later, by [`Self::members`].
    pub(super) fn part(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    pub(super) fn end(self) {
        self.out.extend_from_slice(b"}\n");
    }

    /// Members made earlier.
    pub(super) fn members(&mut self, members: &[u8]) {
        self.out.extend_from_slice(members);
    }

    #[inline]
    fn key(&mut self, key: &'static str) {
        self.out.extend_from_slice(key.as_bytes());
    }

    /// A word that needs no escaping because it stands in the code.
    #[inline]
    pub(super) fn word(&mut self, key: &'static str, word: &'static str) {
        self.key(key);
        self.out.push(b'"');
        self.out.extend_from_slice(word.as_bytes());
        self.out.push(b'"');
    }

    pub(super) fn text(&mut self, key: &'static str, text: &str) {
        self.key(key);
        self.out.push(b'"');
        escape(self.out, text);
        self.out.push(b'"');
    }

    /// An IP address; version 4 without the detour through formatting.
    pub(super) fn address(&mut self, key: &'static str, address: IpAddr) {
        self.key(key);
        self.out.push(b'"');
        match address {
            IpAddr::V4(address) => {
                let [a, b, c, d] = address.octets();
                for (octet, end) in [(a, b'.'), (b, b'.'), (c, b'.'), (d, b'"')] {
                    decimal(self.out, u64::from(octet));
                    self.out.push(end);
                }
            }
            IpAddr::V6(address) => {
                let _ = write!(Utf8(self.out), "{address}\"");
            }
        }
    }

    /// Lower-case hexadecimal digits.
    #[inline]
    pub(super) fn hex<const N: usize>(&mut self, key: &'static str, bytes: [u8; N]) {
        let mut digits = [[0; 2]; N];
        hex_digits(&bytes, digits.as_flattened_mut());
        self.key(key);
        self.out.push(b'"');
        self.out.extend_from_slice(digits.as_flattened());
        self.out.push(b'"');
    }

    #[inline]
    pub(super) fn number(&mut self, key: &'static str, number: u64) {
        self.key(key);
        decimal(self.out, number);
    }

    /// Milliseconds with three decimals.
    #[inline]
    pub(super) fn milliseconds(&mut self, key: &'static str, duration: Duration) {
        self.key(key);
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        decimal(self.out, micros / 1_000);
        let rest = micros % 1_000;
        let digit = |number: u64| b'0' + (number % 10) as u8;
        self.out.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
    }
    /// A member of an event: key and value may be any text.
    pub(super) fn value(&mut self, key: &str, value: Value<'_>) {
        self.out.extend_from_slice(b",\"");
        escape(self.out, key);
        self.out.extend_from_slice(b"\":");
        match value {
            Value::Text(text) => {
                self.out.push(b'"');
                escape(self.out, text);
                self.out.push(b'"');
            }
            Value::Number(number) => decimal(self.out, number),
            Value::Flag(flag) => self.out.extend_from_slice(if flag { b"true" } else { b"false" }),
        }
    }
}

/// Lets `write!` append to bytes without going through an `io::Error`.
struct Utf8<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Utf8<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// An event as one line of text: `TIME LEVEL name key=value key="two words"`.
pub(super) fn event_text(
    out: &mut Vec<u8>,
    stamp: &mut Stamp,
    wall: Duration,
    level: &str,
    name: &str,
    members: &[(&str, Value<'_>)],
) {
    stamp.write(out, wall);
    let _ = write!(Utf8(out), " {level:<5} {name}");
    for (key, value) in members {
        let _ = write!(Utf8(out), " {key}=");
        match value {
            Value::Text(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"') => {
                out.extend_from_slice(text.as_bytes());
            }
            Value::Text(text) => {
                out.push(b'"');
                escape(out, text);
                out.push(b'"');
            }
            Value::Number(number) => decimal(out, *number),
            Value::Flag(flag) => {
                let _ = write!(Utf8(out), "{flag}");
            }
        }
    }
    out.push(b'\n');
}

/// JSON's escapes; text without any is copied whole.
fn escape(out: &mut Vec<u8>, text: &str) {
    let needs_escape = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\' || *byte == 0x7f;
    // Looks at every byte without leaving early, which the compiler turns into a few wide comparisons.
    if !text.as_bytes().iter().fold(false, |found, byte| found | needs_escape(byte)) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    let mut rest = text.as_bytes();
    while let Some(place) = rest.iter().position(needs_escape) {
        let (plain, special) = rest.split_at(place);
        out.extend_from_slice(plain);
        let Some((byte, after)) = special.split_first() else { break };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            other => {
                let _ = write!(Utf8(out), "\\u{other:04x}");
            }
        }
        rest = after;
    }
    out.extend_from_slice(rest);
}

fn decimal(out: &mut Vec<u8>, mut number: u64) {
    if number < 10 {
        return out.push(b'0' + number as u8);
    }
    let mut digits = [0; 20];
    let mut length = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        length += 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(20 - length..).unwrap_or_default());
}

/// Writes RFC 3339 times with milliseconds; remembers the second it wrote last, because most lines share it.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    second: Option<u64>,
    /// Up to the seconds, without the zone.
    text: SmolStr,
}

impl Stamp {
    pub(super) fn write(&mut self, out: &mut Vec<u8>, wall: Duration) {
        let second = wall.as_secs();
        if self.second != Some(second) {
            self.second = Some(second);
            let time = i64::try_from(second).ok().and_then(|second| jiff::Timestamp::from_second(second).ok());
            let shown = smol_str::format_smolstr!("{}", time.unwrap_or(jiff::Timestamp::MAX));
            self.text = shown.trim_end_matches('Z').into();
        }
        let milliseconds = wall.subsec_millis();
        let digit = |number: u32| b'0' + (number % 10) as u8;
        out.extend_from_slice(self.text.as_bytes());
        out.extend_from_slice(&[b'.', digit(milliseconds / 100), digit(milliseconds / 10), digit(milliseconds), b'Z']);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(name: &str, members: &[(&str, Value<'_>)]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut line = Line::begin(&mut out, &mut Stamp::default(), Duration::from_millis(1_500));
        line.value("event", name.into());
        for (key, value) in members {
            line.value(key, *value);
        }
        line.end();
        out
    }

    #[test]
    fn time_is_rfc_3339_with_milliseconds() {
        let mut stamp = Stamp::default();
        let mut out = Vec::new();
        for millis in [1_795_312_799_999, 1_795_312_800_000, 7] {
            stamp.write(&mut out, Duration::from_millis(millis));
            out.push(b' ');
        }
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "2026-11-22T01:59:59.999Z 2026-11-22T02:00:00.000Z 1970-01-01T00:00:00.007Z "
        );
        stamp.write(&mut Vec::new(), Duration::MAX);
    }

    #[test]
    fn numbers_and_addresses_are_written_as_they_read() {
        let mut out = Vec::new();
        let mut line = Line { out: &mut out };
        line.milliseconds(key!("a"), Duration::from_micros(1_000_007));
        line.milliseconds(key!("b"), Duration::ZERO);
        line.number(key!("c"), u64::MAX);
        line.number(key!("d"), 0);
        line.hex(key!("e"), [0xab, 0x01]);
        line.address(key!("f"), [10, 0, 200, 255].into());
        line.address(key!("g"), std::net::Ipv6Addr::LOCALHOST.into());
        assert_eq!(
            String::from_utf8(out).unwrap(),
            ",\"a\":1000.007,\"b\":0.000,\"c\":18446744073709551615,\"d\":0,\"e\":\"ab01\",\
             \"f\":\"10.0.200.255\",\"g\":\"::1\""
        );
    }

    #[test]
    fn text_for_people_quotes_what_has_spaces() {
        let mut out = Vec::new();
        let members = [("file", Value::Text("a b\nc")), ("ok", true.into()), ("n", 3.into()), ("x", "y".into())];
        event_text(&mut out, &mut Stamp::default(), Duration::ZERO, "info", "started", &members);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "1970-01-01T00:00:00.000Z info  started file=\"a b\\nc\" ok=true n=3 x=y\n"
        );
    }

    proptest! {
        #[test]
        fn any_text_becomes_one_line_of_valid_json(name in any::<String>(), value in any::<String>(), n in any::<u64>()) {
            let line = event(&name, &[("a", Value::Text(&value)), ("n", n.into())]);
            prop_assert_eq!(memchr::memchr_iter(b'\n', &line).count(), 1);
            let read: serde_json::Value = serde_json::from_slice(&line).unwrap();
            prop_assert_eq!(read["event"].as_str(), Some(name.as_str()));
            prop_assert_eq!(read["a"].as_str(), Some(value.as_str()));
            prop_assert_eq!(read["n"].as_u64(), Some(n));
        }

        #[test]
        fn every_millisecond_is_written_as_jiff_reads_it(millis in 0_i64..10_000_000_000_000) {
            let mut out = Vec::new();
            Stamp::default().write(&mut out, Duration::from_millis(millis.unsigned_abs()));
            let read: jiff::Timestamp = std::str::from_utf8(&out).unwrap().parse().unwrap();
            prop_assert_eq!(read.as_millisecond(), millis);
        }
    }
}
