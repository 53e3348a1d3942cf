//! A strict reading of HTTP/1 framing, before hyper reads the same bytes.
//!
//! hyper forgives what a proxy must not: it drops `Content-Length` where `Transfer-Encoding` stands too, merges equal
//! lengths, takes bare line feeds. Two parties that disagree about where a request ends can be made to see different
//! requests (request smuggling), so this guard accepts only heads that can be read in one way, and follows each body
//! to its end to know where the next head begins.
//!
//! [`Guard`] is fed with bytes as they are read, in pieces of any size, and says how many of them may be passed on.
//! It holds no input beyond a few bytes, allocates only for absolute-form targets, and knows no clock.

use memchr::{memchr, memchr2};

use crate::edge::framing::chunked::up_to;
pub use crate::edge::framing::fault::Fault;
use crate::edge::framing::lines::{field_called, first_control};
use crate::edge::framing::tables::{HOST, PATH, QUERY, TOKEN};

mod chunked;
mod fault;
mod lines;
mod tables;

/// The longest `method` a head may have; Salesforce's longest is `OPTIONS`.
const METHOD_BYTES: u8 = 24;
/// The longest scheme and authority of an absolute-form target: a DNS name has 253 bytes at most.
const AUTHORITY_BYTES: usize = 8 + 255 + 6;
/// Hexadecimal digits of a chunk's size.
const CHUNK_DIGITS: u8 = 16;
/// All chunk extensions of one body, in bytes.
const EXTENSION_BYTES: u16 = 1024;
/// All trailer fields of one body, in bytes.
const TRAILER_BYTES: u16 = 4096;
/// The longest target hyper's URI type can hold.
const TARGET_BYTES: u32 = 65_000;

/// Bounds on one head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Request line and headers together.
    pub bytes: u32,
    /// Number of headers.
    pub count: u16,
}

/// What [`Guard::feed`] made of a piece of input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fed {
    /// Bytes from its start that may be passed on. All of them, unless there is a fault.
    pub passed: usize,
    /// What is wrong; once there is a fault, nothing more passes.
    pub fault: Option<Fault>,
}

/// Where in the stream of requests the guard stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before the first byte of a head.
    Between,
    /// Inside a head.
    Head,
    /// Inside a body.
    Body,
}

/// Follows one connection's requests.
#[derive(Debug)]
pub struct Guard {
    limits: HeadLimits,
    state: State,
    head: Head,
    /// Complete heads so far; wraps.
    heads: u32,
    /// Start of a field name, as far as it matters.
    name: [u8; NAME_BYTES],
    name_len: usize,
    /// Body bytes still to come, or digits of a length or chunk size so far.
    number: u64,
    digits: u8,
    extension_bytes: u16,
    trailer_bytes: u16,
    /// Scheme and authority of an absolute-form target.
    authority: Vec<u8>,
    fault: Option<Fault>,
}

/// One more than the longest name that matters, so that longer ones never match.
const NAME_BYTES: usize = b"transfer-encoding".len() + 1;

/// What the head said so far.
#[derive(Debug, Clone, Copy, Default)]
struct Head {
    bytes: u32,
    count: u16,
    method: u8,
    old_version: bool,
    hosts: u8,
    lengths: u8,
    codings: u8,
    length: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a request line; one empty line is allowed there (RFC 9112 section 2.2).
    Start {
        line_seen: bool,
    },
    StartLf,
    Method,
    Target,
    Path,
    Query,
    Absolute {
        slashes: u8,
    },
    Star,
    /// `HTTP/1.x` CR, so many bytes of it seen.
    Version(u8),
    RequestLf,
    LineStart,
    Name,
    Value(Field, Spot),
    ValueLf,
    EndLf,
    Sized,
    ChunkSize,
    ChunkExtension,
    ChunkLf,
    ChunkData,
    ChunkDataCr,
    ChunkDataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
}

/// The field whose value is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Plain,
    Length,
    Coding,
    Host,
}

/// Where in a value that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spot {
    Before,
    Inside,
    After,
}

impl Guard {
    /// At the start of a connection.
    pub fn new(limits: HeadLimits) -> Self {
        Self {
            limits,
            state: State::Start { line_seen: false },
            head: Head::default(),
            heads: 0,
            name: [0; NAME_BYTES],
            name_len: 0,
            number: 0,
            digits: 0,
            extension_bytes: 0,
            trailer_bytes: 0,
            authority: Vec::new(),
            fault: None,
        }
    }

    /// Where the guard stands.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Start { .. } => Phase::Between,
            State::StartLf
            | State::Method
            | State::Target
            | State::Path
            | State::Query
            | State::Absolute { .. }
            | State::Star
            | State::Version(_)
            | State::RequestLf
            | State::LineStart
            | State::Name
            | State::Value(..)
            | State::ValueLf
            | State::EndLf => Phase::Head,
            _ => Phase::Body,
        }
    }

    /// Complete heads passed so far; wraps.
    pub fn heads(&self) -> u32 {
        self.heads
    }

    /// Reads the next piece of input.
    pub fn feed(&mut self, input: &[u8]) -> Fed {
        if let Some(fault) = self.fault {
            return Fed { passed: 0, fault: Some(fault) };
        }
        let mut at = 0;
        // Where the head that is being read began in this piece: a faulty head is withheld as far as it can be.
        let mut head_at = 0;
        while let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) {
            if self.phase() == Phase::Between {
                head_at = at;
            }
            let in_head = self.phase() != Phase::Body;
            let in_request_line = self.in_request_line();
            // A head is looked at up to the byte that makes it too large, so that the verdict does not depend on
            // how the input was cut.
            let room =
                if in_head { (self.limits.bytes.saturating_sub(self.head.bytes)) as usize + 1 } else { rest.len() };
            let used = match self.step(rest.get(..room).unwrap_or(rest)) {
                Ok(used) => used,
                Err(fault) => return self.fail(fault, if in_head { head_at } else { at }),
            };
            if in_head {
                self.head.bytes = self.head.bytes.saturating_add(u32::try_from(used).unwrap_or(u32::MAX));
                if self.head.bytes > self.limits.bytes {
                    let fault = if in_request_line { Fault::UriTooLong } else { Fault::HeadTooLarge };
                    return self.fail(fault, head_at);
                }
                if self.phase() != Phase::Head {
                    self.head = Head::default();
                }
            }
            at += used;
        }
        Fed { passed: input.len(), fault: None }
    }

    fn fail(&mut self, fault: Fault, passed: usize) -> Fed {
        self.fault = Some(fault);
        Fed { passed, fault: Some(fault) }
    }

    fn in_request_line(&self) -> bool {
        matches!(
            self.state,
            State::Start { .. }
                | State::StartLf
                | State::Method
                | State::Target
                | State::Path
                | State::Query
                | State::Absolute { .. }
                | State::Star
                | State::Version(_)
        )
    }

    /// Reads as much of `rest` (which is not empty) as belongs to the present state, at least one byte.
    fn step(&mut self, rest: &[u8]) -> Result<usize, Fault> {
        let Some((&first, _)) = rest.split_first() else { return Ok(0) };
        match self.state {
            State::Start { line_seen } => match first {
                b'\r' if !line_seen => self.to(State::StartLf, 1),
                _ if TOKEN[usize::from(first)] => self.to(State::Method, 0),
                _ => Err(Fault::RequestLine),
            },
            State::StartLf => {
                expect(first, b'\n', Fault::BareCr).and_then(|()| self.to(State::Start { line_seen: true }, 1))
            }
            State::Method => self.method(rest),
            State::Target => match first {
                b'/' => self.to(State::Path, 1),
                b'*' => self.to(State::Star, 1),
                _ => {
                    self.authority.clear();
                    self.to(State::Absolute { slashes: 0 }, 0)
                }
            },
            State::Path => self.path(rest, &PATH),
            State::Query => self.path(rest, &QUERY),
            State::Absolute { slashes } => self.absolute(first, slashes),
            State::Star => expect(first, b' ', Fault::Target).and_then(|()| self.to(State::Version(0), 1)),
            State::Version(0) if rest.starts_with(b"HTTP/1.1\r\n") => self.to(State::LineStart, 10),
            State::Version(seen) => self.version(first, seen),
            State::RequestLf | State::ValueLf => {
                expect(first, b'\n', Fault::BareCr).and_then(|()| self.to(State::LineStart, 1))
            }
            State::LineStart => match self.whole_lines(rest) {
                0 => self.line_start(first),
                used => Ok(used),
            },
            State::Name => self.field_name(rest),
            State::Value(Field::Plain, _) => self.plain_value(rest, State::ValueLf),
            State::Value(field, spot) => self.value(first, field, spot),
            State::EndLf => expect(first, b'\n', Fault::BareCr).and_then(|()| self.end_of_head()),
            State::Sized => Ok(self.count_down(rest, State::Start { line_seen: false })),
            State::ChunkSize => self.chunk_size(first),
            State::ChunkExtension => self.chunk_extension(rest),
            State::ChunkLf => {
                expect(first, b'\n', Fault::ChunkSize)?;
                let next = if self.number == 0 { State::TrailerStart } else { State::ChunkData };
                self.to(next, 1)
            }
            State::ChunkData => Ok(self.count_down(rest, State::ChunkDataCr)),
            State::ChunkDataCr => expect(first, b'\r', Fault::ChunkEnd).and_then(|()| self.to(State::ChunkDataLf, 1)),
            State::ChunkDataLf => {
                expect(first, b'\n', Fault::ChunkEnd)?;
                self.number = 0;
                self.digits = 0;
                self.to(State::ChunkSize, 1)
            }
            State::TrailerStart => match first {
                b'\r' => self.to(State::LastLf, 1),
                b' ' | b'\t' => Err(Fault::Folded),
                _ => {
                    self.name_len = 0;
                    self.to(State::TrailerName, 0)
                }
            },
            State::TrailerName => self.trailer_name(rest),
            State::TrailerValue => {
                let used = self.plain_value(up_to(rest, TRAILER_BYTES, self.trailer_bytes), State::TrailerLf)?;
                self.count_trailer(used)?;
                Ok(used)
            }
            State::TrailerLf => expect(first, b'\n', Fault::BareCr).and_then(|()| self.to(State::TrailerStart, 1)),
            State::LastLf => {
                expect(first, b'\n', Fault::BareCr).and_then(|()| self.to(State::Start { line_seen: false }, 1))
            }
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "closes the arms of `step`")]
    fn to(&mut self, state: State, used: usize) -> Result<usize, Fault> {
        self.state = state;
        Ok(used)
    }

    fn method(&mut self, rest: &[u8]) -> Result<usize, Fault> {
        let end = rest.iter().position(|byte| !TOKEN[usize::from(*byte)]);
        let length = end.unwrap_or(rest.len());
        let total = usize::from(self.head.method) + length;
        if total > usize::from(METHOD_BYTES) {
            return Err(Fault::RequestLine);
        }
        self.head.method = total as u8;
        match end.and_then(|end| rest.get(end)) {
            None => Ok(length),
            Some(b' ') if total > 0 => self.to(State::Target, length + 1),
            Some(_) => Err(Fault::RequestLine),
        }
    }

    fn path(&mut self, rest: &[u8], allowed: &[bool; 256]) -> Result<usize, Fault> {
        // Up to what usually ends it all is well; else the first byte that is not decides.
        let mut end = memchr2(b' ', b'?', rest);
        let path = end.and_then(|end| rest.get(..end)).unwrap_or(rest);
        if !path.iter().fold(true, |good, byte| good & allowed[usize::from(*byte)])
            || end.is_some_and(|end| rest.get(end).is_some_and(|byte| allowed[usize::from(*byte)]))
        {
            end = rest.iter().position(|byte| !allowed[usize::from(*byte)]);
        }
        let length = end.unwrap_or(rest.len());
        if self.head.bytes as usize + length > TARGET_BYTES as usize {
            return Err(Fault::UriTooLong);
        }
        match end.and_then(|end| rest.get(end)) {
            None => Ok(length),
            Some(b' ') => self.to(State::Version(0), length + 1),
            Some(b'?') => self.to(State::Query, length + 1),
            Some(_) => Err(Fault::Target),
        }
    }

    /// `http://authority` of an absolute-form target (or the authority-form of CONNECT), up to its path.
    fn absolute(&mut self, byte: u8, slashes: u8) -> Result<usize, Fault> {
        let ends = byte == b' ' || (matches!(byte, b'/' | b'?') && slashes == 2);
        if ends {
            let readable = http::Uri::try_from(self.authority.as_slice()).is_ok_and(|uri| uri.authority().is_some());
            if !readable {
                return Err(Fault::Target);
            }
            return match byte {
                b'/' => self.to(State::Path, 1),
                b'?' => self.to(State::Query, 1),
                _ => self.to(State::Version(0), 1),
            };
        }
        if self.authority.len() >= AUTHORITY_BYTES {
            return Err(Fault::Target);
        }
        if !(byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'/' | b'[' | b']')) {
            return Err(Fault::Target);
        }
        self.authority.push(byte);
        if byte == b'/' {
            let scheme_read = matches!(self.authority.as_slice(), b"http:/" | b"http://" | b"https:/" | b"https://");
            if !scheme_read {
                return Err(Fault::Target);
            }
            return self.to(State::Absolute { slashes: slashes + 1 }, 1);
        }
        Ok(1)
    }

    fn version(&mut self, byte: u8, seen: u8) -> Result<usize, Fault> {
        const VERSION: &[u8; 9] = b"HTTP/1.1\r";
        let wanted = VERSION.get(usize::from(seen)).copied();
        if seen == 7 && byte == b'0' {
            self.head.old_version = true;
        } else if wanted != Some(byte) {
            return Err(if byte == b'\n' { Fault::BareLf } else { Fault::Version });
        }
        let next = if seen == 8 { State::RequestLf } else { State::Version(seen + 1) };
        self.to(next, 1)
    }

    fn line_start(&mut self, first: u8) -> Result<usize, Fault> {
        match first {
            b'\r' => self.to(State::EndLf, 1),
            b' ' | b'\t' => Err(Fault::Folded),
            b'\n' => Err(Fault::BareLf),
            _ => {
                self.head.count += 1;
                if self.head.count > self.limits.count {
                    return Err(Fault::TooManyHeaders);
                }
                self.name_len = 0;
                self.to(State::Name, 0)
            }
        }
    }

    fn field_name(&mut self, rest: &[u8]) -> Result<usize, Fault> {
        let colon = memchr(b':', rest);
        let name = colon.and_then(|colon| rest.get(..colon)).unwrap_or(rest);
        check_name(name)?;
        self.keep_name(name);
        let Some(colon) = colon else { return Ok(name.len()) };
        if self.name_len == 0 {
            return Err(Fault::FieldName);
        }
        let field = self.field();
        let count = match field {
            Field::Plain => None,
            Field::Length => Some(&mut self.head.lengths),
            Field::Coding => Some(&mut self.head.codings),
            Field::Host => Some(&mut self.head.hosts),
        };
        if let Some(count) = count {
            *count += 1;
            if *count > 1 {
                return Err(match field {
                    Field::Host => Fault::TwoHosts,
                    Field::Length => Fault::TwoLengths,
                    _ => Fault::Coding,
                });
            }
            if self.head.lengths > 0 && self.head.codings > 0 {
                return Err(Fault::LengthAndCoding);
            }
        }
        self.name_len = 0;
        self.to(State::Value(field, Spot::Before), colon + 1)
    }

    fn keep_name(&mut self, name: &[u8]) {
        if let Some(free) = self.name.get_mut(self.name_len..) {
            let kept = name.len().min(free.len());
            if let (Some(free), Some(name)) = (free.get_mut(..kept), name.get(..kept)) {
                free.copy_from_slice(name);
            }
            self.name_len += kept;
        }
    }

    fn field(&self) -> Field {
        field_called(self.name.get(..self.name_len).unwrap_or_default())
    }

    /// A value nobody here reads: up to its CR, without control characters.
    fn plain_value(&mut self, rest: &[u8], after: State) -> Result<usize, Fault> {
        let end = first_control(rest);
        match end.and_then(|end| Some((end, rest.get(end)?))) {
            None => Ok(rest.len()),
            Some((end, b'\r')) => self.to(after, end + 1),
            Some((_, b'\n')) => Err(Fault::BareLf),
            Some(_) => Err(Fault::FieldValue),
        }
    }

    /// One byte of a value that matters.
    fn value(&mut self, byte: u8, field: Field, spot: Spot) -> Result<usize, Fault> {
        match (byte, spot) {
            (b' ' | b'\t', Spot::Before) => return Ok(1),
            (b' ' | b'\t', _) => return self.to(State::Value(field, Spot::After), 1),
            (b'\r', spot) => {
                let complete = match field {
                    Field::Coding => {
                        self.name.get(..self.name_len).is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"))
                    }
                    _ => spot != Spot::Before,
                };
                return if complete { self.to(State::ValueLf, 1) } else { Err(bad_value(field)) };
            }
            (b'\n', _) => return Err(Fault::BareLf),
            (_, Spot::After) => return Err(bad_value(field)),
            _ => {}
        }
        let fits = match field {
            Field::Length => byte.is_ascii_digit() && self.length_digit(byte),
            Field::Coding => {
                self.keep_name(&[byte]);
                byte.is_ascii_alphabetic()
            }
            Field::Host => is_host_byte(byte),
            Field::Plain => true,
        };
        if fits { self.to(State::Value(field, Spot::Inside), 1) } else { Err(bad_value(field)) }
    }

    /// Adds a digit to the length; false if it no longer fits what hyper can count.
    fn length_digit(&mut self, byte: u8) -> bool {
        let longer = self.head.length.checked_mul(10).and_then(|length| length.checked_add(u64::from(byte - b'0')));
        match longer {
            Some(length) if i64::try_from(length).is_ok() => {
                self.head.length = length;
                true
            }
            _ => false,
        }
    }

    fn end_of_head(&mut self) -> Result<usize, Fault> {
        if self.head.hosts == 0 && !self.head.old_version {
            return Err(Fault::NoHost);
        }
        if self.head.codings > 0 && self.head.old_version {
            return Err(Fault::Coding);
        }
        self.heads = self.heads.wrapping_add(1);
        self.extension_bytes = 0;
        self.trailer_bytes = 0;
        self.digits = 0;
        self.number = 0;
        let next = if self.head.codings > 0 {
            State::ChunkSize
        } else if self.head.length > 0 {
            self.number = self.head.length;
            State::Sized
        } else {
            State::Start { line_seen: false }
        };
        self.to(next, 1)
    }

    fn count_down(&mut self, rest: &[u8], after: State) -> usize {
        let used = usize::try_from(self.number).unwrap_or(usize::MAX).min(rest.len());
        self.number -= used as u64;
        if self.number == 0 {
            self.state = after;
        }
        used
    }
}

fn expect(byte: u8, wanted: u8, fault: Fault) -> Result<(), Fault> {
    if byte == wanted { Ok(()) } else { Err(fault) }
}

fn check_name(name: &[u8]) -> Result<(), Fault> {
    if name.iter().fold(true, |good, byte| good & TOKEN[usize::from(*byte)]) {
        return Ok(());
    }
    let bad = name.iter().find(|byte| !TOKEN[usize::from(**byte)]);
    Err(if bad == Some(&b'\n') { Fault::BareLf } else { Fault::FieldName })
}

/// Whether a Host may have this byte. RFC 3986 allows more, which no host name uses.
pub(super) fn is_host_byte(byte: u8) -> bool {
    HOST[usize::from(byte)]
}

fn bad_value(field: Field) -> Fault {
    match field {
        Field::Length => Fault::Length,
        Field::Coding => Fault::Coding,
        Field::Host => Fault::Host,
        Field::Plain => Fault::FieldValue,
    }
}

#[cfg(test)]
mod tests;
