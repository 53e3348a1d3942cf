//! The head of an answer: where it ends, what it says, and how the body after it is framed (RFC 9112 section 6.3).

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode, Version};
use hyper::ext::ReasonPhrase;
use smallvec::SmallVec;
use thiserror::Error;

/// Largest head.
pub(super) const HEAD_BYTES: usize = 64 * 1_024;
/// Most fields of a head.
pub(super) const HEAD_FIELDS: usize = 100;
/// Most interim answers (1xx) before the answer. A server may send one every few seconds while it works.
const INTERIM: u8 = 128;

/// What came is not the head of an HTTP answer, or one that can be understood in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not an HTTP answer")]
pub struct Garbage;

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// After this many bytes.
    Length(u64),
    /// After the last chunk.
    Chunked,
    /// Where the connection ends.
    UntilClose,
}

/// The head of an answer.
#[derive(Debug)]
pub struct Head {
    /// Status, version, fields; the reason as an extension if it is not the usual one.
    pub response: Response<()>,
    /// How its body is framed.
    pub framing: Framing,
    /// The other side keeps the connection open after this answer.
    pub keep_alive: bool,
}

/// Reads the head of one answer from bytes as they arrive.
#[derive(Debug, Default)]
pub struct HeadReader {
    interim: u8,
    /// The answer to HEAD has no body, whatever it says.
    bodiless: bool,
}

/// Where a field stands in the head.
#[derive(Clone, Copy)]
struct Span {
    name: (u32, u32),
    value: (u32, u32),
}

/// What the fields of a head say about its body and its connection.
#[derive(Default)]
struct Says {
    /// The one length all Content-Length fields agree on.
    length: Option<u64>,
    chunked: bool,
    close: bool,
    /// Something about the body that cannot be, or not in one way only.
    unclear: bool,
}

impl HeadReader {
    /// For the answer to a request with `method`.
    pub fn new(method: &Method) -> Self {
        Self { interim: 0, bodiless: *method == Method::HEAD }
    }

    /// Takes the head from the front of `buffer`. `None`: its end has not arrived, and `buffer` is as it was but for
    /// interim answers.
    pub fn read(&mut self, buffer: &mut BytesMut) -> Result<Option<Head>, Garbage> {
        loop {
            let mut fields = [const { MaybeUninit::uninit() }; HEAD_FIELDS];
            let mut parsed = httparse::Response::new(&mut []);
            let status = httparse::ParserConfig::default()
                .parse_response_with_uninit_headers(&mut parsed, buffer, &mut fields)
                .map_err(|_| Garbage)?;
            let httparse::Status::Complete(length) = status else {
                return if buffer.len() >= HEAD_BYTES { Err(Garbage) } else { Ok(None) };
            };
            if length > HEAD_BYTES {
                return Err(Garbage);
            }
            let status = StatusCode::from_u16(parsed.code.ok_or(Garbage)?).map_err(|_| Garbage)?;
            if status.is_informational() {
                self.interim += 1;
                // No protocol to switch to was offered.
                if status == StatusCode::SWITCHING_PROTOCOLS || self.interim >= INTERIM {
                    return Err(Garbage);
                }
                let _ = buffer.split_to(length);
                continue;
            }
            let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
            let reason = parsed.reason.filter(|reason| status.canonical_reason() != Some(reason));
            let reason = reason.map(|reason| ReasonPhrase::try_from(reason.as_bytes())).transpose();
            let spans: SmallVec<[Span; 32]> = parsed.headers.iter().map(|field| span(buffer, field)).collect();
            let bytes = buffer.split_to(length).freeze();
            return finish(status, version, reason.map_err(|_| Garbage)?, &bytes, &spans, self.bodiless).map(Some);
        }
    }
}

fn span(buffer: &[u8], field: &httparse::Header<'_>) -> Span {
    let place = |part: &[u8]| {
        let start = part.as_ptr().addr() - buffer.as_ptr().addr();
        // A head has at most HEAD_BYTES bytes.
        (start as u32, (start + part.len()) as u32)
    };
    Span { name: place(field.name.as_bytes()), value: place(field.value) }
}

fn range((start, end): (u32, u32)) -> std::ops::Range<usize> {
    start as usize..end as usize
}

fn finish(
    status: StatusCode,
    version: Version,
    reason: Option<ReasonPhrase>,
    bytes: &Bytes,
    spans: &[Span],
    bodiless: bool,
) -> Result<Head, Garbage> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = version;
    if let Some(reason) = reason {
        response.extensions_mut().insert(reason);
    }
    let headers = response.headers_mut();
    headers.reserve(spans.len());
    let mut says = Says::default();
    for span in spans {
        let name = HeaderName::from_bytes(bytes.get(range(span.name)).ok_or(Garbage)?).map_err(|_| Garbage)?;
        let value = HeaderValue::from_maybe_shared(bytes.slice(range(span.value))).map_err(|_| Garbage)?;
        if says.hear(&name, value.as_bytes()) {
            headers.append(name, value);
        }
    }
    let framing = says.framing(status, version, bodiless)?;
    let keep_alive = version == Version::HTTP_11 && !says.close && framing != Framing::UntilClose;
    Ok(Head { response, framing, keep_alive })
}

impl Says {
    /// Takes note of a field; false if it only repeats what was said.
    fn hear(&mut self, name: &HeaderName, value: &[u8]) -> bool {
        match *name {
            header::CONTENT_LENGTH => {
                let length = length(value);
                let again = self.length.is_some();
                self.unclear |= length.is_none() || (again && self.length != length);
                self.length = length.or(self.length);
                !again
            }
            header::TRANSFER_ENCODING => {
                self.unclear |= self.chunked || !value.eq_ignore_ascii_case(b"chunked");
                self.chunked = true;
                true
            }
            header::CONNECTION => {
                let mut tokens = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
                self.close |= tokens.any(|token| token.eq_ignore_ascii_case(b"close"));
                true
            }
            _ => true,
        }
    }

    fn framing(&self, status: StatusCode, version: Version, bodiless: bool) -> Result<Framing, Garbage> {
        if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) || bodiless {
            return Ok(Framing::Length(0));
        }
        // Chunks were unknown to HTTP/1.0, and of two lengths somebody between us may have believed the other.
        if self.unclear || (self.chunked && (self.length.is_some() || version == Version::HTTP_10)) {
            return Err(Garbage);
        }
        Ok(match self.length {
            _ if self.chunked => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => Framing::UntilClose,
        })
    }
}

/// A Content-Length: digits, and nothing else.
pub(super) fn length(value: &[u8]) -> Option<u64> {
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
    let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS];
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
