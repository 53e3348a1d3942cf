//! Header fields that many answers have alike, written out once.
//!
//! An answer from memory has the same fields each time it is given out, but for a few. They are kept as they go over the wire,
//! so that a connection copies them in one piece, and no map of them is made for each caller.

use bytes::Bytes;
use http::header::{DATE, HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;

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
        self.begin(name);
        self.added.extend_from_slice(value.as_bytes());
        self.added.extend_from_slice(b"\r\n");
    }

    /// The same for a value that is made here.
    pub fn make(&mut self, name: &HeaderName, write: impl FnOnce(&mut Value<'_>)) {
        self.begin(name);
        write(&mut Value(&mut self.added));
        self.added.extend_from_slice(b"\r\n");
    }

    fn begin(&mut self, name: &HeaderName) {
        if self.added.capacity() == 0 {
            self.added.reserve(ROOM);
        }
        self.added.extend_from_slice(name.as_str().as_bytes());
        self.added.extend_from_slice(b": ");
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

/// Where a value is written that is made of fixed text and numbers, and so needs no check that it is one.
#[derive(Debug)]
pub struct Value<'a>(&'a mut Vec<u8>);

impl Value<'_> {
    /// Some text: visible characters and spaces.
    pub fn text(&mut self, text: &'static str) -> &mut Self {
        debug_assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{text:?} is no value");
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// A number in decimal.
    pub fn number(&mut self, number: u64) -> &mut Self {
        self.0.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        self
    }

    /// The id of a request.
    pub fn id(&mut self, id: RequestId) -> &mut Self {
        self.0.extend_from_slice(&id.hex());
        self
    }

    /// What `write` writes, as a value of a map.
    pub fn header(write: impl FnOnce(&mut Value<'_>)) -> Option<HeaderValue> {
        let mut text = Vec::new();
        write(&mut Value(&mut text));
        HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        written.make(&HeaderName::from_static("age"), |value| {
            value.number(7);
        });
        assert_eq!((written.lines()[1], written.length()), (&b"age: 7\r\n"[..], written.lines()[0].len() + 8));
        let mut again = HeaderMap::new();
        written.add_to(&mut again);
        assert_eq!((again.len(), again.get("age")), (map.len() + 1, Some(&HeaderValue::from_static("7"))));
        map.insert(DATE, HeaderValue::from_static("now"));
        assert!(Written::new(&map, |_| true).is_dated());
        assert_eq!(Written::new(&map, |_| false).length(), 0);
    }
}
