//! The fields heads usually have.
//!
//! Most answers of an org have the same fields in the same order, and so have most requests of an app. What they look like
//! is kept: a head that has them is read by comparing names, and gets a copy of a map with these names, so that they are
//! not checked, lowered, hashed and put into a map for each head anew. Of a few fields the value is mostly the same too,
//! and tells nothing of a call: it is kept with the name, and then the whole line is compared, and not read.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;
use smallvec::SmallVec;

use super::fields::{Role, trim_blanks};

/// As many shapes are kept.
const KEPT: usize = 8;
/// Of the heads that have none of them, one in so many is learnt from: there may be no shape that comes again.
const LEARN_ONE_IN: u32 = 16;
/// Heads with more fields have no shape.
const FIELDS: usize = 32;
/// Longer lines are read each time.
const LINE: usize = 256;
/// Of the heads with other values than those kept, the values of one in so many are kept instead.
const KEEP_ONE_IN: u32 = 16;

/// Whether a field says mostly the same, and nothing of the call: no token, no cookie, no record.
fn repeats(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::ACCEPT
            | header::ACCEPT_ENCODING
            | header::ACCEPT_LANGUAGE
            | header::CACHE_CONTROL
            | header::CONNECTION
            | header::CONTENT_ENCODING
            | header::CONTENT_SECURITY_POLICY
            | header::CONTENT_TYPE
            | header::DATE
            | header::EXPIRES
            | header::HOST
            | header::REFERRER_POLICY
            | header::SERVER
            | header::STRICT_TRANSPORT_SECURITY
            | header::TRANSFER_ENCODING
            | header::USER_AGENT
            | header::VARY
            | header::X_CONTENT_TYPE_OPTIONS
    )
}

/// One field of a shape.
struct Field {
    /// Its name as it came, and the colon.
    name: Box<[u8]>,
    /// What it is about.
    role: Role,
    /// Its value may be kept.
    repeats: bool,
    /// The whole line with the value that is kept; empty if none is.
    line: Box<[u8]>,
}

/// The fields of one kind of head, each there once.
struct Shape {
    /// As they came.
    fields: Vec<Field>,
    /// With the values that are kept.
    map: HeaderMap,
    /// For each field in the order of the map: which one of the head's it is.
    order: Vec<usize>,
    /// Heads whose values were not those kept.
    others: u32,
}

/// Where the value of a field stands in a head; `None` if it is the one that is kept.
type Place = Option<Range<u32>>;

/// The shapes of the heads some connections read.
#[derive(Default)]
pub struct Shapes {
    kept: Vec<Shape>,
    /// Which one fitted last.
    last: usize,
    unknown: u32,
}

/// The fields of a head that has a known shape.
pub(crate) struct Fitting<'a> {
    shape: &'a Shape,
    values: SmallVec<[Place; FIELDS]>,
    /// Bytes from the first field to the end of the head.
    pub(crate) length: usize,
}

impl fmt::Debug for Shapes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shapes({} kept)", self.kept.len())
    }
}

impl Shapes {
    /// The fields at the front of `bytes`, which end a head, if they have a known shape.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Option<Fitting<'_>> {
        let first = self.kept.get_mut(self.last).and_then(|shape| Some((self.last, shape.read(bytes)?)));
        let found = first.or_else(|| {
            let mut others = self.kept.iter_mut().enumerate().filter(|(at, _)| *at != self.last);
            others.find_map(|(at, shape)| Some((at, shape.read(bytes)?)))
        });
        let (at, (values, length)) = found?;
        self.last = at;
        Some(Fitting { shape: self.kept.get(at)?, values, length })
    }

    /// Learns, for the next time, from a head with fields of these `names`; its map will have room for so many more.
    pub(crate) fn learn<'a>(&mut self, names: impl ExactSizeIterator<Item = &'a [u8]>, room: usize) {
        let due = self.unknown.is_multiple_of(LEARN_ONE_IN);
        self.unknown = self.unknown.wrapping_add(1);
        if due
            && names.len() <= FIELDS
            && let Some(shape) = Shape::new(names, room)
        {
            if self.kept.len() >= KEPT {
                self.kept.remove(0);
            }
            self.kept.push(shape);
        }
    }
}

impl Shape {
    /// Of a head with these fields, if none is there twice.
    fn new<'a>(names: impl ExactSizeIterator<Item = &'a [u8]>, room: usize) -> Option<Self> {
        let mut map = HeaderMap::with_capacity(names.len() + room);
        let (mut fields, mut keys) = (Vec::with_capacity(names.len()), Vec::with_capacity(names.len()));
        for raw in names {
            let name = HeaderName::from_bytes(raw).ok()?;
            fields.push(Field {
                name: [raw, b":"].concat().into_boxed_slice(),
                role: Role::of(&name),
                repeats: repeats(&name),
                line: Box::default(),
            });
            keys.push(name.clone());
            if map.insert(name, HeaderValue::from_static("")).is_some() {
                return None;
            }
        }
        let order = map.keys().map(|name| keys.iter().position(|key| key == name)).collect::<Option<_>>()?;
        Some(Self { fields, map, order, others: 0 })
    }

    /// Where the values are in `bytes`, and where the head ends.
    fn read(&mut self, bytes: &[u8]) -> Option<(SmallVec<[Place; FIELDS]>, usize)> {
        let mut values = SmallVec::new();
        let mut at = 0;
        let mut others = false;
        for field in &self.fields {
            let line = bytes.get(at..)?;
            if !field.line.is_empty() && line.starts_with(&field.line) {
                at += field.line.len();
                values.push(None);
                continue;
            }
            others |= field.repeats;
            let raw = line.strip_prefix(&*field.name)?;
            let end = memchr(b'\r', raw)?;
            let from = at + field.name.len();
            at = from + end + 2;
            if bytes.get(at - 1) != Some(&b'\n') {
                return None;
            }
            let (blanks, value) = trim_blanks(raw.get(..end)?);
            let from = u32::try_from(from + blanks).ok()?;
            values.push(Some(from..from + value.len() as u32));
        }
        if !bytes.get(at..)?.starts_with(b"\r\n") {
            return None;
        }
        if others {
            if self.others.is_multiple_of(KEEP_ONE_IN) {
                self.keep(bytes);
            }
            self.others = self.others.wrapping_add(1);
        }
        Some((values, at + 2))
    }

    /// Keeps the values that `bytes`, a head of this shape, has where they repeat.
    fn keep(&mut self, bytes: &[u8]) {
        let lines: SmallVec<[&[u8]; FIELDS]> = bytes.split_inclusive(|byte| *byte == b'\n').take(FIELDS).collect();
        for (kept, field) in self.map.values_mut().zip(&self.order) {
            let (Some(field), Some(line)) = (self.fields.get_mut(*field), lines.get(*field)) else { return };
            let value = line.strip_prefix(&*field.name).and_then(|raw| raw.strip_suffix(b"\r\n"));
            if let Some(value) = value.filter(|_| field.repeats && line.len() <= LINE && **line != *field.line)
                && let Ok(value) = HeaderValue::from_bytes(trim_blanks(value).1)
            {
                *kept = value;
                field.line = Box::from(*line);
            }
        }
    }
}

impl Fitting<'_> {
    /// How many fields there are.
    pub(crate) fn count(&self) -> usize {
        self.values.len()
    }

    /// The fields as a map; `bytes` are the whole head, its first field at `from`. The values of those that have a role are
    /// told to `hear`. `None` if one of them is no value.
    pub(crate) fn headers<E>(
        &self,
        bytes: &Bytes,
        from: usize,
        mut hear: impl FnMut(Role, &[u8]) -> Result<(), E>,
    ) -> Option<Result<HeaderMap, E>> {
        let mut headers = self.shape.map.clone();
        for (value, field) in headers.values_mut().zip(&self.shape.order) {
            if let Some(place) = self.values.get(*field)? {
                let read = bytes.slice(from + place.start as usize..from + place.end as usize);
                *value = HeaderValue::from_maybe_shared(read).ok()?;
            }
            let role = self.shape.fields.get(*field)?.role;
            if role != Role::Other
                && let Err(error) = hear(role, value.as_bytes())
            {
                return Some(Err(error));
            }
        }
        Some(Ok(headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(names: &[&str]) -> Vec<u8> {
        let lines: Vec<String> = names.iter().map(|name| format!("{name}: \tx {name}\t\r\n")).collect();
        format!("{}\r\nrest", lines.concat()).into_bytes()
    }

    fn learn(shapes: &mut Shapes, names: &[&str]) {
        shapes.learn(names.iter().map(|name| name.as_bytes()), 2);
    }

    #[test]
    fn a_shape_is_learnt_and_fits_only_itself() {
        let mut shapes = Shapes::default();
        let names = ["Date", "Content-Length", "Sforce-Limit-Info"];
        let bytes = head(&names);
        assert!(shapes.read(&bytes).is_none(), "never seen");
        learn(&mut shapes, &names);
        let fitting = shapes.read(&bytes).expect("learnt");
        assert_eq!(fitting.length, bytes.len() - 4);
        let mut heard = Vec::new();
        let whole = Bytes::from([b"before", &bytes[..]].concat());
        let headers = fitting.headers(&whole, 6, |role, value| {
            heard.push((role, value.to_vec()));
            Ok::<_, ()>(())
        });
        let headers = headers.expect("values").expect("no objection");
        let fields: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        let expected =
            [("date", "x Date"), ("content-length", "x Content-Length"), ("sforce-limit-info", "x Sforce-Limit-Info")];
        assert_eq!(fields, expected);
        assert_eq!(heard, [(Role::Length, b"x Content-Length".to_vec())]);
        for other in [
            &["Date", "Content-Length"][..],
            &["Date", "Content-Length", "Sforce-Limit-Inf"],
            &["Date", "Content-Length", "Sforce-Limit-Infos"],
            &["Date", "Sforce-Limit-Info", "Content-Length"],
            &["date", "Content-Length", "Sforce-Limit-Info"],
            &["Date", "Content-Length", "Sforce-Limit-Info", "Etag"],
        ] {
            assert!(shapes.read(&head(other)).is_none(), "{other:?}");
        }
        for cut in 0..bytes.len() - 4 {
            assert!(shapes.read(&bytes[..cut]).is_none(), "{cut} bytes");
        }
    }

    /// The fields of `bytes` as a map.
    fn headers(shapes: &mut Shapes, bytes: &Bytes) -> HeaderMap {
        shapes.read(bytes).expect("the shape fits").headers(bytes, 0, |_, _| Ok::<_, ()>(())).unwrap().unwrap()
    }

    #[test]
    fn a_value_that_repeats_is_kept_until_another_one_does() {
        let mut shapes = Shapes::default();
        learn(&mut shapes, &["Host", "Vary", "X"]);
        let mut memory = None;
        for (round, vary) in ["a", "a", "b"].iter().chain(&["c"; KEEP_ONE_IN as usize + 1]).enumerate() {
            let text = format!("Host: h\r\nVary: \t{vary} \r\nX: {round}\r\n\r\n");
            let read = headers(&mut shapes, &Bytes::from(text.clone()));
            let expected = [("host", "h"), ("vary", vary), ("x", &round.to_string())];
            assert!(expected.iter().all(|(name, value)| read[*name] == *value), "{text:?}: {read:?}");
            // The host never changed: it was copied once, from the first head.
            if round > 0 {
                let host = read["host"].as_bytes().as_ptr();
                assert_eq!(*memory.get_or_insert(host), host, "{text:?}");
            }
        }
        assert_eq!(shapes.kept[0].map["vary"], "c");
        let roles = |text: &str| {
            let (bytes, mut heard) = (Bytes::from(text.to_owned()), Vec::new());
            let mut shapes = Shapes::default();
            learn(&mut shapes, &["Connection"]);
            for _ in 0..2 {
                let fitting = shapes.read(&bytes).expect("the shape fits");
                let read = fitting.headers(&bytes, 0, |role, value| {
                    heard.push((role, value.to_vec()));
                    Ok::<_, ()>(())
                });
                assert!(read.is_some());
            }
            heard
        };
        assert_eq!(roles("Connection: close\r\n\r\n"), vec![(Role::Connection, b"close".to_vec()); 2]);
    }

    #[test]
    fn nothing_secret_and_nothing_long_is_kept() {
        let mut shapes = Shapes::default();
        let names = ["Authorization", "Cookie", "Set-Cookie", "Weirkeeper-Key", "X-SFDC-Session", "ETag", "User-Agent"];
        learn(&mut shapes, &names);
        let long = "canary".repeat(LINE / 6);
        let bytes = Bytes::from(format!("{}\r\n", names.map(|name| format!("{name}: {long}\r\n")).concat()));
        for _ in 0..2 {
            assert_eq!(headers(&mut shapes, &bytes).len(), names.len());
        }
        let short = Bytes::from(format!("{}\r\n", names.map(|name| format!("{name}: canary\r\n")).concat()));
        for _ in 0..KEEP_ONE_IN {
            headers(&mut shapes, &short);
        }
        let kept: Vec<_> = shapes.kept[0].fields.iter().filter(|field| !field.line.is_empty()).collect();
        assert!(matches!(&kept[..], [field] if *field.line == *b"User-Agent: canary\r\n"), "{} kept", kept.len());
        assert!(shapes.kept[0].map.values().filter(|value| !value.is_empty()).all(|value| value == "canary"));
        assert_eq!(shapes.kept[0].map.values().filter(|value| !value.is_empty()).count(), 1);
    }

    #[test]
    fn only_values_are_values() {
        let mut shapes = Shapes::default();
        learn(&mut shapes, &["X"]);
        for line in ["X: a\0b", "X: a\nb", "X: a\n", "X:\u{7f}"] {
            let bytes = Bytes::from(format!("{line}\r\n\r\n"));
            let fitting = shapes.read(&bytes).expect("the shape fits");
            assert!(fitting.headers(&bytes, 0, |_, _| Ok::<_, ()>(())).is_none(), "{line:?}");
        }
        for line in ["X: a\rb", "X : a", "X: a\r"] {
            assert!(shapes.read(format!("{line}\r\n\r\n").as_bytes()).is_none(), "{line:?}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_no_field_is_there_twice() {
        let mut shapes = Shapes::default();
        for _ in 0..2 * LEARN_ONE_IN {
            learn(&mut shapes, &["Set-Cookie", "set-cookie"]);
        }
        assert!(shapes.kept.is_empty());
        for number in 0..1_000 {
            learn(&mut shapes, &[&format!("x-{number}")]);
        }
        assert_eq!(shapes.kept.len(), KEPT);
        let many: Vec<String> = (0..=FIELDS).map(|number| format!("x-{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for _ in 0..LEARN_ONE_IN {
            learn(&mut shapes, &many);
        }
        assert!(shapes.read(&head(&many)).is_none());
    }
}
