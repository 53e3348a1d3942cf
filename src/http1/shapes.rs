//! The fields heads usually have.
//!
//! Most answers of an org have the same fields in the same order, and so have most requests of an app. What they look like
//! is kept: a head that has them is read by comparing names, and gets a copy of a map with these names and no values, so
//! that they are not checked, lowered, hashed and put into a map for each head anew.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;
use smallvec::SmallVec;

use super::fields::{Role, trim_blanks};

/// As many shapes are kept.
const KEPT: usize = 8;
/// Of the heads that have none of them, one in so many is learnt from: there may be no shape that comes again.
const LEARN_ONE_IN: u32 = 16;
/// Heads with more fields have no shape.
const FIELDS: usize = 32;

/// The fields of one kind of head, each there once.
struct Shape {
    /// For each field as it came: its name and the colon, and what it is about.
    names: Vec<(Box<[u8]>, Role)>,
    empty: HeaderMap,
    /// For each field in the order of the map: which one of the head's it is.
    order: Vec<usize>,
}

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
    values: SmallVec<[Range<u32>; FIELDS]>,
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
        let first = self.kept.get(self.last).and_then(|shape| Some((self.last, shape.read(bytes)?)));
        let found = first.or_else(|| {
            let mut others = self.kept.iter().enumerate().filter(|(at, _)| *at != self.last);
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
        let mut empty = HeaderMap::with_capacity(names.len() + room);
        let (mut raws, mut fields) = (Vec::with_capacity(names.len()), Vec::with_capacity(names.len()));
        for raw in names {
            let name = HeaderName::from_bytes(raw).ok()?;
            raws.push(([raw, b":"].concat().into_boxed_slice(), Role::of(&name)));
            fields.push(name.clone());
            if empty.insert(name, HeaderValue::from_static("")).is_some() {
                return None;
            }
        }
        let order = empty.keys().map(|name| fields.iter().position(|field| field == name)).collect::<Option<_>>()?;
        Some(Self { names: raws, empty, order })
    }

    /// Where the values are in `bytes`, and where the head ends.
    fn read(&self, bytes: &[u8]) -> Option<(SmallVec<[Range<u32>; FIELDS]>, usize)> {
        let mut values = SmallVec::new();
        let mut at = 0;
        for (name, _) in &self.names {
            let raw = bytes.get(at..)?.strip_prefix(&**name)?;
            let end = memchr(b'\r', raw)?;
            let from = at + name.len();
            at = from + end + 2;
            if bytes.get(at - 1) != Some(&b'\n') {
                return None;
            }
            let (blanks, value) = trim_blanks(raw.get(..end)?);
            let from = u32::try_from(from + blanks).ok()?;
            values.push(from..from + value.len() as u32);
        }
        bytes.get(at..)?.starts_with(b"\r\n").then_some((values, at + 2))
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
        let mut headers = self.shape.empty.clone();
        for (place, field) in headers.values_mut().zip(&self.shape.order) {
            let value = self.values.get(*field)?;
            let value = bytes.slice(from + value.start as usize..from + value.end as usize);
            *place = HeaderValue::from_maybe_shared(value).ok()?;
            let (_, role) = self.shape.names.get(*field)?;
            if *role != Role::Other
                && let Err(error) = hear(*role, place.as_bytes())
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
