//! The head of a request: read once, in one way only, or refused.
//!
//! Two parties that disagree about where a request ends can be made to see different requests (request smuggling), so
//! nothing is forgiven here that anybody else could read in another way (RFC 9112 sections 2.2, 5 and 6.3): no bare CR
//! or LF, no folding, one `Host`, one length or one `chunked` and never both.

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Uri, Version};
use memchr::{memchr, memchr2};
use smallvec::SmallVec;

use super::scan::{first_control, token_end};
use super::tables::{HOST, PATH, QUERY, TOKEN};
use crate::edge::fault::Fault;
use crate::http1::{Fitting, Framing, Role, Shapes, length, trim_blanks};

/// The longest method a head may have; Salesforce's longest is `OPTIONS`.
const METHOD_BYTES: usize = 24;
/// The longest scheme and authority of an absolute-form target: a DNS name has 253 bytes at most.
const AUTHORITY_BYTES: usize = 8 + 255 + 6;
/// The longest target the URI type can hold.
const TARGET_BYTES: usize = 65_000;
/// Fields the gateway will add to a request: room is made for them at once.
const ADDED: usize = 3;

/// Bounds on one head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Request line and headers together.
    pub bytes: usize,
    /// Number of headers.
    pub count: usize,
}

/// The head of a request.
#[derive(Debug)]
pub struct Head {
    /// Method, target, version and fields.
    pub parts: Parts,
    /// How its body is framed.
    pub framing: Framing,
    /// The caller keeps the connection open after the answer.
    pub keep_alive: bool,
    /// The caller waits to be told before it sends its body (`Expect: 100-continue`).
    pub expects: bool,
}

/// Takes the head from the front of `buffer`. `None`: its end has not arrived, and `buffer` is as it was. `shapes` makes it
/// faster, and changes nothing.
///
/// Whatever was found so far is found again when more has arrived: how the bytes were cut never changes the verdict. A
/// head that is bounded to 16 KiB and comes byte by byte costs less than the packets it comes in.
pub fn read(buffer: &mut BytesMut, limits: HeadLimits, shapes: &mut Shapes) -> Result<Option<Head>, Fault> {
    // A head is looked at up to its bound, so that the verdict does not depend on what came with it.
    let seen = buffer.get(..limits.bytes).unwrap_or(buffer);
    // Nearly every head is read by its line ends; if there is something wrong with it, byte by byte, to say what.
    let mut scanner = Scanner::new(seen, limits.count, line_end);
    let lines = match scanner.request_line() {
        Ok(()) => match shapes.read(scanner.rest()).filter(|fitting| fitting.count() <= limits.count) {
            Some(fitting) => {
                let (line, from) = (scanner.lines.line, scanner.at);
                let bytes = buffer.split_to(from + fitting.length).freeze();
                return shaped(&line, &fitting, from, &bytes).map(Some).ok_or_else(|| verdict(&bytes, limits));
            }
            None => scanner.fields(),
        },
        Err(stop) => Err(stop),
    };
    match lines.or_else(|_| scan(seen, limits)) {
        Ok(lines) => {
            let bytes = buffer.split_to(lines.length).freeze();
            shapes.learn(lines.fields.iter().map(|(name, _)| name.of(&bytes)), ADDED);
            collected(&lines, &bytes).map(Some).ok_or_else(|| verdict(&bytes, limits))
        }
        Err(Stop::Fault(fault)) => Err(fault),
        Err(Stop::More { .. }) if buffer.len() <= limits.bytes => Ok(None),
        Err(Stop::More { request_line: true }) => Err(Fault::UriTooLong),
        Err(Stop::More { request_line: false }) => Err(Fault::HeadTooLarge),
    }
}

/// Reads a head byte by byte.
fn scan(bytes: &[u8], limits: HeadLimits) -> Result<Lines, Stop> {
    let mut scanner = Scanner::new(bytes, limits.count, first_control);
    scanner.request_line()?;
    scanner.fields()
}

/// What is wrong with a head that was taken for whole.
#[cold]
fn verdict(bytes: &[u8], limits: HeadLimits) -> Fault {
    match scan(bytes, limits) {
        Err(Stop::Fault(fault)) => fault,
        _ => Fault::Target,
    }
}

/// Whether `bytes` are no request yet: nothing, or the empty line that may stand before one.
pub(super) fn is_blank(bytes: &[u8]) -> bool {
    matches!(bytes, b"" | b"\r" | b"\r\n")
}

/// Whether a Host may have this byte. RFC 3986 allows more, which no host name uses.
pub(in crate::edge) fn is_host_byte(byte: u8) -> bool {
    HOST[usize::from(byte)]
}

/// Why a head could not be read.
enum Stop {
    Fault(Fault),
    /// Its end has not arrived.
    More {
        request_line: bool,
    },
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// A part of a head, in bytes from its start.
#[derive(Clone, Copy, Default)]
struct Span {
    from: u32,
    to: u32,
}

impl Span {
    fn new(from: usize, to: usize) -> Self {
        // A head has at most `HeadLimits::bytes`, which fit.
        Self { from: from as u32, to: to as u32 }
    }

    fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.from as usize..self.to as usize).unwrap_or_default()
    }

    fn shared(self, bytes: &Bytes) -> Bytes {
        bytes.slice(self.from as usize..self.to as usize)
    }
}

/// The request line.
#[derive(Clone, Copy, Default)]
struct Line {
    method: Span,
    target: Span,
    old_version: bool,
}

/// The lines of a head.
#[derive(Default)]
struct Lines {
    line: Line,
    fields: SmallVec<[(Span, Span); 24]>,
    says: Says,
    /// Of all.
    length: usize,
}

/// What the fields say about the body and the connection.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "any of them may be said beside any other")]
struct Says {
    host: bool,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects: bool,
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    count: usize,
    /// Finds the end of a value.
    end_of: fn(&[u8]) -> Option<usize>,
    lines: Lines,
}

/// The end of a value that has no control characters.
fn line_end(bytes: &[u8]) -> Option<usize> {
    memchr(b'\r', bytes)
}

const MORE_LINE: Stop = Stop::More { request_line: true };
const MORE: Stop = Stop::More { request_line: false };

impl<'a> Scanner<'a> {
    fn new(bytes: &'a [u8], count: usize, end_of: fn(&[u8]) -> Option<usize>) -> Self {
        Self { bytes, at: 0, count, end_of, lines: Lines::default() }
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn request_line(&mut self) -> Result<(), Stop> {
        // One empty line is allowed before a request (RFC 9112 section 2.2).
        match self.rest() {
            [b'\r', b'\n', ..] => self.at = 2,
            [b'\r'] => return Err(MORE_LINE),
            [b'\r', ..] => return Err(Fault::BareCr.into()),
            _ => {}
        }
        self.method()?;
        self.target()?;
        self.version()
    }

    fn fields(mut self) -> Result<Lines, Stop> {
        while self.field()? {}
        self.lines.says.check(self.lines.line.old_version)?;
        self.lines.length = self.at;
        Ok(self.lines)
    }

    fn method(&mut self) -> Result<(), Stop> {
        let rest = self.rest();
        let end = rest.iter().position(|byte| !TOKEN[usize::from(*byte)]);
        let length = end.unwrap_or(rest.len());
        if length > METHOD_BYTES {
            return Err(Fault::RequestLine.into());
        }
        match end.and_then(|end| rest.get(end)) {
            None => Err(MORE_LINE),
            Some(b' ') if length > 0 => {
                self.lines.line.method = Span::new(self.at, self.at + length);
                self.at += length + 1;
                Ok(())
            }
            Some(_) => Err(Fault::RequestLine.into()),
        }
    }

    fn target(&mut self) -> Result<(), Stop> {
        let from = self.at;
        match self.rest() {
            [] | [b'*'] => return Err(MORE_LINE),
            [b'/', ..] => self.path()?,
            [b'*', b' ', ..] => self.at += 1,
            [b'*', ..] => return Err(Fault::Target.into()),
            _ => self.absolute()?,
        }
        self.lines.line.target = Span::new(from, self.at);
        if self.at - from > TARGET_BYTES {
            return Err(Fault::UriTooLong.into());
        }
        // The space behind it.
        self.at += 1;
        Ok(())
    }

    /// Up to the space behind a path and its query.
    fn path(&mut self) -> Result<(), Stop> {
        for allowed in [&PATH, &QUERY] {
            let rest = self.rest();
            // Up to what usually ends it all is well; else the first byte that is not decides.
            let usual = memchr2(b' ', b'?', rest).filter(|end| {
                let path = rest.get(..*end).unwrap_or_default();
                path.iter().fold(true, |good, byte| good & allowed[usize::from(*byte)])
                    && rest.get(*end).is_some_and(|byte| !allowed[usize::from(*byte)])
            });
            let end = usual.or_else(|| rest.iter().position(|byte| !allowed[usize::from(*byte)]));
            let Some((end, last)) = end.and_then(|end| Some((end, rest.get(end)?))) else {
                return Err(if rest.len() > TARGET_BYTES { Fault::UriTooLong.into() } else { MORE_LINE });
            };
            self.at += end;
            match last {
                b' ' => return Ok(()),
                b'?' => self.at += 1,
                _ => return Err(Fault::Target.into()),
            }
        }
        Err(Fault::Target.into())
    }

    /// `http://authority` of an absolute-form target (or the authority-form of CONNECT), up to its path.
    fn absolute(&mut self) -> Result<(), Stop> {
        let rest = self.rest();
        let mut slashes = 0;
        for (at, byte) in rest.iter().enumerate() {
            let authority = rest.get(..at).unwrap_or_default();
            let ends = *byte == b' ' || (matches!(byte, b'/' | b'?') && slashes == 2);
            if ends {
                if !Uri::try_from(authority).is_ok_and(|uri| uri.authority().is_some()) {
                    return Err(Fault::Target.into());
                }
                self.at += at;
                return if *byte == b' ' { Ok(()) } else { self.path() };
            }
            match byte {
                b'/' if matches!(authority, b"http:" | b"http:/" | b"https:" | b"https:/") => slashes += 1,
                b'.' | b'-' | b'_' | b':' | b'[' | b']' => {}
                _ if byte.is_ascii_alphanumeric() => {}
                _ => return Err(Fault::Target.into()),
            }
            if at >= AUTHORITY_BYTES {
                return Err(Fault::Target.into());
            }
        }
        Err(MORE_LINE)
    }

    fn version(&mut self) -> Result<(), Stop> {
        const VERSION: &[u8; 10] = b"HTTP/1.1\r\n";
        let rest = self.rest();
        if !rest.starts_with(VERSION) {
            for (at, wanted) in VERSION.iter().enumerate() {
                match rest.get(at) {
                    None => return Err(MORE_LINE),
                    Some(byte) if byte == wanted => {}
                    Some(b'0') if at == 7 => self.lines.line.old_version = true,
                    Some(_) if at == 9 => return Err(Fault::BareCr.into()),
                    Some(b'\n') => return Err(Fault::BareLf.into()),
                    Some(_) => return Err(Fault::Version.into()),
                }
            }
        }
        self.at += VERSION.len();
        Ok(())
    }

    /// Reads one field; false at the end of the head.
    fn field(&mut self) -> Result<bool, Stop> {
        let line = self.rest();
        match line {
            [b'\r', b'\n', ..] => {
                self.at += 2;
                return Ok(false);
            }
            [] | [b'\r'] => return Err(MORE),
            [b'\r', ..] => return Err(Fault::BareCr.into()),
            [b' ' | b'\t', ..] => return Err(Fault::Folded.into()),
            [b'\n', ..] => return Err(Fault::BareLf.into()),
            _ if self.lines.fields.len() >= self.count => return Err(Fault::TooManyHeaders.into()),
            _ => {}
        }
        let colon = token_end(line);
        let (name, after) = line.split_at_checked(colon).unwrap_or_default();
        let value = match after {
            [] => return Err(MORE),
            [b':', value @ ..] if colon > 0 => value,
            [b'\n', ..] => return Err(Fault::BareLf.into()),
            _ => return Err(Fault::FieldName.into()),
        };
        let role = Role::of_raw(name);
        let Some((value, after)) = (self.end_of)(value).and_then(|end| value.split_at_checked(end)) else {
            return Err(MORE);
        };
        match after {
            [b'\r', b'\n', ..] => {}
            [b'\r'] => return Err(MORE),
            [b'\r', ..] => return Err(Fault::BareCr.into()),
            [b'\n', ..] => return Err(Fault::BareLf.into()),
            _ => return Err(bad_value(role).into()),
        }
        let from = self.at + colon + 1;
        let (blank, trimmed) = trim_blanks(value);
        self.lines.says.hear(role, trimmed)?;
        let name = Span::new(self.at, self.at + colon);
        self.lines.fields.push((name, Span::new(from + blank, from + blank + trimmed.len())));
        self.at = from + value.len() + 2;
        Ok(true)
    }
}

impl Says {
    /// Whether a request may say this.
    fn check(&self, old_version: bool) -> Result<(), Fault> {
        if !self.host && !old_version {
            return Err(Fault::NoHost);
        }
        // Chunks were unknown to HTTP/1.0.
        if self.chunked && old_version { Err(Fault::Coding) } else { Ok(()) }
    }

    fn hear(&mut self, role: Role, value: &[u8]) -> Result<(), Fault> {
        match role {
            Role::Other => {}
            Role::Host => {
                if self.host {
                    return Err(Fault::TwoHosts);
                }
                if value.is_empty() || !value.iter().all(|byte| is_host_byte(*byte)) {
                    return Err(Fault::Host);
                }
                self.host = true;
            }
            Role::Length => {
                if self.length.is_some() {
                    return Err(Fault::TwoLengths);
                }
                if self.chunked {
                    return Err(Fault::LengthAndCoding);
                }
                let length = length(value).filter(|length| i64::try_from(*length).is_ok());
                self.length = Some(length.ok_or(Fault::Length)?);
            }
            Role::Coding => {
                if self.length.is_some() {
                    return Err(Fault::LengthAndCoding);
                }
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Fault::Coding);
                }
                self.chunked = true;
            }
            Role::Connection => {
                for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    self.close |= token.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            Role::Expect => self.expects |= value.eq_ignore_ascii_case(b"100-continue"),
        }
        Ok(())
    }
}

/// The head with fields of a known shape; `None` if it has a fault.
fn shaped(line: &Line, fitting: &Fitting<'_>, from: usize, bytes: &Bytes) -> Option<Head> {
    let mut says = Says::default();
    let headers = fitting.headers(bytes, from, |role, value| says.hear(role, value))?.ok()?;
    says.check(line.old_version).ok()?;
    line.head(&says, headers, bytes)
}

/// The head with any fields; `None` if a value is none, or the target cannot be read.
fn collected(lines: &Lines, bytes: &Bytes) -> Option<Head> {
    let mut headers = HeaderMap::with_capacity(lines.fields.len() + ADDED);
    for (name, value) in &lines.fields {
        let name = HeaderName::from_bytes(name.of(bytes)).ok()?;
        headers.append(name, HeaderValue::from_maybe_shared(value.shared(bytes)).ok()?);
    }
    lines.line.head(&lines.says, headers, bytes)
}

impl Line {
    fn head(&self, says: &Says, headers: HeaderMap, bytes: &Bytes) -> Option<Head> {
        let uri = Uri::from_maybe_shared(self.target.shared(bytes)).ok()?;
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = Method::from_bytes(self.method.of(bytes)).ok()?;
        parts.uri = uri;
        parts.headers = headers;
        let old = self.old_version;
        parts.version = if old { Version::HTTP_10 } else { Version::HTTP_11 };
        let framing = if says.chunked { Framing::Chunked } else { Framing::Length(says.length.unwrap_or(0)) };
        let keep_alive = !says.close && (!old || says.keep_alive);
        Some(Head { parts, framing, keep_alive, expects: says.expects && !old })
    }
}

fn bad_value(role: Role) -> Fault {
    match role {
        Role::Length => Fault::Length,
        Role::Coding => Fault::Coding,
        Role::Host => Fault::Host,
        Role::Connection | Role::Expect | Role::Other => Fault::FieldValue,
    }
}
