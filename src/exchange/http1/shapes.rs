//! The fields answers usually have.
//!
//! Most answers of an org have the same fields in the same order. A map with these fields and no values is kept and
//! copied, so that their names are not read, checked, hashed and put into a map for each answer anew.

use std::fmt;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::head::Role;

/// As many shapes are kept.
const KEPT: usize = 4;
/// Of the answers that have none of them, one in so many is learnt from: there may be no shape that comes again.
const LEARN_ONE_IN: u32 = 16;

/// The fields of one kind of answer, each there once.
pub(super) struct Shape {
    /// The names as they came, each with a line end after it.
    names: Vec<u8>,
    empty: HeaderMap,
    /// For each field, in the order of the map: which one of the answer's it is, and what it is about.
    fields: Vec<(usize, Role)>,
}

/// The shapes of one org's answers.
#[derive(Default)]
pub struct Shapes {
    kept: Vec<Shape>,
    unknown: u32,
}

impl fmt::Debug for Shapes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shapes({} kept)", self.kept.len())
    }
}

impl Shapes {
    /// The shape of an answer with these fields; if there is none, it may be learnt for the next time.
    pub(super) fn of(&mut self, fields: &[httparse::Header<'_>], room: usize) -> Option<&Shape> {
        let found = self.kept.iter().position(|shape| shape.fits(fields));
        if found.is_none() {
            if self.unknown.is_multiple_of(LEARN_ONE_IN)
                && let Some(shape) = Shape::new(fields, room)
            {
                if self.kept.len() >= KEPT {
                    self.kept.remove(0);
                }
                self.kept.push(shape);
            }
            self.unknown = self.unknown.wrapping_add(1);
        }
        self.kept.get(found?)
    }
}

impl Shape {
    /// Of an answer with these `fields`, if none is there twice; with room for so many more.
    fn new(fields: &[httparse::Header<'_>], room: usize) -> Option<Self> {
        let mut names = Vec::new();
        let mut empty = HeaderMap::with_capacity(fields.len() + room);
        for field in fields {
            names.extend_from_slice(field.name.as_bytes());
            names.push(b'\n');
            let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
            if empty.insert(name, HeaderValue::from_static("")).is_some() {
                return None;
            }
        }
        let place = |name: &HeaderName| fields.iter().position(|field| name == field.name);
        let fields = empty.keys().map(|name| Some((place(name)?, Role::of(name)))).collect::<Option<_>>()?;
        Some(Self { names, empty, fields })
    }

    fn fits(&self, fields: &[httparse::Header<'_>]) -> bool {
        if self.fields.len() != fields.len() {
            return false;
        }
        let mut rest = &self.names[..];
        for field in fields {
            match rest.strip_prefix(field.name.as_bytes()) {
                Some([b'\n', more @ ..]) => rest = more,
                _ => return false,
            }
        }
        true
    }

    /// A map with its fields and no values.
    pub(super) fn headers(&self) -> HeaderMap {
        self.empty.clone()
    }

    /// For each value of that map, in its order: which one of the answer's fields it is of, and what it is about.
    pub(super) fn fields(&self) -> impl Iterator<Item = (usize, Role)> {
        self.fields.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(names: &[&'static str]) -> Vec<httparse::Header<'static>> {
        names.iter().map(|name| httparse::Header { name, value: b"x" }).collect()
    }

    #[test]
    fn a_shape_is_learnt_and_fits_only_itself() {
        let mut shapes = Shapes::default();
        let names = ["Date", "Content-Length", "Sforce-Limit-Info"];
        assert!(shapes.of(&fields(&names), 2).is_none(), "never seen");
        let shape = shapes.of(&fields(&names), 2).expect("learnt");
        let found: Vec<_> = shape.headers().keys().zip(shape.fields()).map(|(k, f)| (k.to_string(), f)).collect();
        assert_eq!(
            found,
            [
                ("date".into(), (0, Role::Other)),
                ("content-length".into(), (1, Role::Length)),
                ("sforce-limit-info".into(), (2, Role::Other))
            ]
        );
        for other in [
            &["Date", "Content-Length"][..],
            &["Date", "Content-Length", "Sforce-Limit-Inf"],
            &["Date", "Content-Length", "Sforce-Limit-Infos"],
            &["Date", "Sforce-Limit-Info", "Content-Length"],
            &["date", "Content-Length", "Sforce-Limit-Info"],
            &["Date", "Content-Length", "Sforce-Limit-Info", "Etag"],
        ] {
            assert!(shapes.of(&fields(other), 2).is_none(), "{other:?}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_no_field_is_there_twice() {
        let mut shapes = Shapes::default();
        for _ in 0..2 * LEARN_ONE_IN {
            assert!(shapes.of(&fields(&["Set-Cookie", "set-cookie"]), 0).is_none());
        }
        let names: Vec<String> = (0..1_000).map(|number| format!("x-{number}")).collect();
        for name in &names {
            let once = [httparse::Header { name, value: b"" }];
            assert!(shapes.of(&once, 0).is_none());
        }
        assert_eq!(shapes.kept.len(), KEPT);
    }
}
