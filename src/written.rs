//! Header fields that many answers have alike, written out once.
//!
//! An answer from memory has the same fields each time it is given out, but for a few. They are kept as they go over the wire,
//! so that a connection copies them in one piece, and no map of them is made for each caller.

use bytes::Bytes;
use http::header::{DATE, HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;
use smallvec::SmallVec;

use crate::outcome::RequestId;

/// Room for what is added to the fields of one answer, in bytes.
const ROOM: usize = 256;

/// Fields as they go over the wire, each with its line end. Cloning is one reference count until some are added.
#[derive(Clone)]
pub struct Written {
    lines: Bytes,
    dated: bool,
    /// Fields of this answer alone.
    added: Vec<u8>,
}

/// A body that may bring fields of its head with it. The answer's own map has none of these.
pub trait Brings {
    /// The fields.
    fn brings(&self) -> Option<&Written>;
}

impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Written({} bytes)", self.lines.len() + self.added.len())
    }
}

impl Written {
    /// Those of `fields` that `are_told`: none that tells of the body's length or of a connection.
    pub fn new(fields: &HeaderMap, are_told: impl Fn(&HeaderName) -> bool) -> Self {
        let told = || fields.iter().filter(|(name, _)| are_told(name));
        let length = told().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        let (mut lines, mut dated) = (Vec::with_capacity(length), false);
        for (name, value) in told() {
            dated |= name == DATE;
            line(&mut lines, name, value.as_bytes());
        }
        Self { lines: Bytes::from(lines), dated, added: Vec::new() }
    }

    /// Adds a field to this answer alone.
    pub fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.add_line(name, value.as_bytes());
    }

    /// The same for a value that is made here.
    pub fn add_made(&mut self, name: &HeaderName, value: &Value) {
        self.add_line(name, &value.0);
    }

    fn add_line(&mut self, name: &HeaderName, value: &[u8]) {
        if self.added.capacity() == 0 {
            self.added.reserve(ROOM);
        }
        line(&mut self.added, name, value);
    }

    /// The lines, to be written one part after the other behind the status and before the end of the head.
    pub fn lines(&self) -> [&[u8]; 2] {
        [&self.lines, &self.added]
    }

    /// Bytes in all lines.
    pub fn length(&self) -> usize {
        self.lines.len() + self.added.len()
    }

    /// Whether `Date` is among them.
    pub fn is_dated(&self) -> bool {
        self.dated
    }

    /// Adds the fields to a map, for whom lines do not serve.
    pub fn add_to(&self, map: &mut HeaderMap) {
        for (name, value) in self.fields() {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                map.append(name, value);
            }
        }
    }

    /// The first value of a field.
    pub fn get(&self, name: &HeaderName) -> Option<&[u8]> {
        self.fields().find(|(found, _)| *found == name.as_str().as_bytes()).map(|(_, value)| value)
    }

    fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines().into_iter().flat_map(|mut rest| {
            std::iter::from_fn(move || {
                let name = memchr(b':', rest)?;
                let value = rest.get(name + 2..)?;
                // A value holds no line end.
                let end = memchr(b'\r', value)?;
                let field = (rest.get(..name)?, value.get(..end)?);
                rest = value.get(end + 2..)?;
                Some(field)
            })
        })
    }
}

fn line(out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// A value that is made of fixed text and numbers, and needs no check that it is one.
#[derive(Debug, Clone, Default)]
pub struct Value(SmallVec<[u8; 64]>);

impl Value {
    /// Begins with some text: visible characters and spaces.
    pub fn text(text: &'static str) -> Self {
        debug_assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{text:?} is no value");
        Self(SmallVec::from_slice(text.as_bytes()))
    }

    /// Goes on with `number` in decimal.
    #[must_use]
    pub fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(Digits::default().of(number));
        self
    }

    /// Goes on with one more character.
    #[must_use]
    pub fn slash(mut self) -> Self {
        self.0.push(b'/');
        self
    }

    /// The same as a value of a map.
    pub fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_bytes(&self.0).ok()
    }
}

impl From<RequestId> for Value {
    fn from(id: RequestId) -> Self {
        Self(SmallVec::from_slice(&id.hex()))
    }
}

/// Room for a number in decimal.
#[derive(Debug, Default)]
pub struct Digits([u8; 20]);

impl Digits {
    /// The digits of `number`.
    pub fn of(&mut self, number: u64) -> &[u8] {
        let (mut rest, mut start) = (number, self.0.len());
        for place in self.0.iter_mut().rev() {
            *place = b'0' + (rest % 10) as u8;
            start -= 1;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.0.get(start..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0, 7, 10, 305, u64::MAX] {
            assert_eq!(Digits::default().of(number), number.to_string().as_bytes());
        }
    }

    #[test]
    fn what_is_written_is_what_was_given() {
        let fields = [("etag", "\"a:b\""), ("vary", "Accept"), ("vary", "Cookie"), ("x-empty", ""), ("x-last", "1")];
        let mut map: HeaderMap = fields
            .into_iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let mut written = Written::new(&map, |_| true);
        assert_eq!(written.lines()[0], b"etag: \"a:b\"\r\nvary: Accept\r\nvary: Cookie\r\nx-empty: \r\nx-last: 1\r\n");
        assert!(!written.is_dated());
        let mut again = HeaderMap::new();
        written.add_to(&mut again);
        assert_eq!(again, map);
        let get = |name| written.get(&HeaderName::from_static(name));
        assert_eq!((get("vary"), get("x-last"), get("va")), (Some(&b"Accept"[..]), Some(&b"1"[..]), None));
        written.add_made(&HeaderName::from_static("age"), &Value::text("").number(7));
        assert_eq!((written.lines()[1], written.length()), (&b"age: 7\r\n"[..], written.lines()[0].len() + 8));
        let mut again = HeaderMap::new();
        written.add_to(&mut again);
        assert_eq!((again.len(), again.get("age")), (map.len() + 1, Some(&HeaderValue::from_static("7"))));
        map.insert(DATE, HeaderValue::from_static("now"));
        assert!(Written::new(&map, |_| true).is_dated());
        assert_eq!(Written::new(&map, |_| false).length(), 0);
    }
}
