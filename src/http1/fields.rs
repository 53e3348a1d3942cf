//! Fields that say how a message is framed, and those that come after a body.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Most fields after a body.
pub(super) const TRAILER_FIELDS: usize = 100;

/// What a field is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Length,
    Coding,
    Connection,
    Host,
    Expect,
    /// Nothing a connection needs to know.
    Other,
}

impl Role {
    /// Of a field by its name.
    pub(crate) fn of(name: &HeaderName) -> Self {
        match *name {
            header::CONTENT_LENGTH => Self::Length,
            header::TRANSFER_ENCODING => Self::Coding,
            header::CONNECTION => Self::Connection,
            header::HOST => Self::Host,
            header::EXPECT => Self::Expect,
            _ => Self::Other,
        }
    }

    /// Of a field by its name as it came, told by its length first.
    pub(crate) fn of_raw(name: &[u8]) -> Self {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => Self::Host,
            6 if name.eq_ignore_ascii_case(b"expect") => Self::Expect,
            10 if name.eq_ignore_ascii_case(b"connection") => Self::Connection,
            14 if name.eq_ignore_ascii_case(b"content-length") => Self::Length,
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => Self::Coding,
            _ => Self::Other,
        }
    }
}

/// A Content-Length: digits, and nothing else.
pub(crate) fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |length, byte| match byte {
        b'0'..=b'9' => length.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// The trailer fields in `section`, which ends with an empty line.
pub(super) fn trailers(section: &[u8]) -> Option<HeaderMap> {
    let mut fields = [httparse::EMPTY_HEADER; TRAILER_FIELDS];
    let Ok(httparse::Status::Complete((end, fields))) = httparse::parse_headers(section, &mut fields) else {
        return None;
    };
    if end != section.len() {
        return None;
    }
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        trailers.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    Some(trailers)
}

/// A field's value without the blanks around it, and how many stand before it.
pub(crate) fn trim_blanks(value: &[u8]) -> (usize, &[u8]) {
    let is_blank = |byte: &&u8| matches!(byte, b' ' | b'\t');
    let before = value.iter().take_while(is_blank).count();
    let rest = value.get(before..).unwrap_or_default();
    let behind = rest.iter().rev().take_while(is_blank).count();
    (before, rest.get(..rest.len() - behind).unwrap_or_default())
}
