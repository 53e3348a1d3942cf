//! The body of a message, taken out of its framing (RFC 9112 sections 6 and 7).

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;
use thiserror::Error;

use super::fields;

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

/// Which chunks are taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Rules {
    /// Longest line that tells the size of a chunk.
    size_line: usize,
    /// Most digits of a size.
    digits: usize,
    /// Bytes of chunk extensions in a whole body: nobody reads them.
    extensions: usize,
    /// Longest section of trailer fields.
    trailers: usize,
    /// Blanks may stand behind a size.
    blanks: bool,
}

impl Rules {
    /// For the answers of a server that is trusted to mean well.
    pub const ANSWERS: &Self =
        &Self { size_line: 4 * 1_024, digits: usize::MAX, extensions: 16 * 1_024, trailers: 16 * 1_024, blanks: true };
    /// For the requests of anybody: nothing that anybody else could read in another way.
    pub const REQUESTS: &Self =
        &Self { size_line: 1_024 + 16, digits: 16, extensions: 1_024, trailers: 4 * 1_024, blanks: false };
}

const LINE_END: &[u8] = b"\r\n";
/// What follows the last byte of most chunked bodies.
const USUAL_END: &[u8] = b"\r\n0\r\n\r\n";

/// The framing is broken, or the body ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the body ended early or its framing is broken")]
pub struct Malformed;

/// What the next bytes are.
#[derive(Debug)]
pub enum Step {
    /// A piece of the body, never empty.
    Data(Bytes),
    /// The fields after the last chunk; the body has ended.
    Trailers(Box<HeaderMap>),
    /// The body has ended.
    End,
    /// More bytes must arrive first.
    More,
}

/// Takes one body out of its framing.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    rules: &'static Rules,
}

#[derive(Debug)]
enum State {
    Ended,
    /// This many bytes to come.
    Length(u64),
    UntilClose,
    /// Chunks, `extensions` bytes of extensions so far.
    Chunks {
        next: Next,
        extensions: usize,
    },
}

/// What comes next in a chunked body.
#[derive(Debug, Clone, Copy)]
enum Next {
    Size,
    /// This many bytes of a chunk.
    Data(u64),
    DataEnd,
    Trailers,
}

/// The line that tells the size of a chunk.
struct SizeLine {
    size: u64,
    /// With its line end.
    length: usize,
    extensions: usize,
}

impl Decoder {
    /// For a body with this framing.
    pub fn new(framing: Framing, rules: &'static Rules) -> Self {
        let state = match framing {
            Framing::Length(0) => State::Ended,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunks { next: Next::Size, extensions: 0 },
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, rules }
    }

    /// Whether nothing more will come.
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Bytes still to come, if that is known.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Ended => Some(0),
            State::Length(left) => Some(left),
            State::UntilClose | State::Chunks { .. } => None,
        }
    }

    /// Takes the next step from the front of `buffer`.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Step, Malformed> {
        match &mut self.state {
            State::Ended => Ok(Step::End),
            State::Length(left) => {
                let Some(data) = take(buffer, left) else { return Ok(Step::More) };
                if *left == 0 {
                    self.state = State::Ended;
                }
                Ok(Step::Data(data))
            }
            State::UntilClose if buffer.is_empty() => Ok(Step::More),
            State::UntilClose => Ok(Step::Data(buffer.split().freeze())),
            State::Chunks { next, extensions } => {
                let step = chunks(next, extensions, buffer, self.rules)?;
                let ended = match step {
                    Step::Data(_) => matches!(next, Next::DataEnd) && usual_end(buffer),
                    Step::Trailers(_) | Step::End => true,
                    Step::More => false,
                };
                if ended {
                    self.state = State::Ended;
                }
                Ok(step)
            }
        }
    }

    /// The whole body, if all of it stands in `buffer` and nothing of it was taken.
    pub fn whole(&mut self, buffer: &mut BytesMut) -> Option<Bytes> {
        let size = match self.state {
            State::Ended => return Some(Bytes::new()),
            State::Length(left) => left,
            State::Chunks { next: Next::Size, .. } => {
                let line = size_line(buffer, self.rules).ok().flatten()?;
                let end = line.length.checked_add(usize::try_from(line.size).ok()?)?;
                if line.size == 0 || !buffer.get(end..)?.starts_with(USUAL_END) {
                    return None;
                }
                buffer.advance(line.length);
                line.size
            }
            State::UntilClose | State::Chunks { .. } => return None,
        };
        let size = usize::try_from(size).ok().filter(|size| *size <= buffer.len())?;
        let data = buffer.split_to(size).freeze();
        if matches!(self.state, State::Chunks { .. }) {
            buffer.advance(USUAL_END.len());
        }
        self.state = State::Ended;
        Some(data)
    }

    /// The connection has ended; whether the body is whole.
    pub fn close(&mut self) -> Result<(), Malformed> {
        match self.state {
            State::Ended | State::UntilClose => {
                self.state = State::Ended;
                Ok(())
            }
            State::Length(_) | State::Chunks { .. } => Err(Malformed),
        }
    }
}

/// As many of `left` bytes as there are; `None` if there is not one.
fn take(buffer: &mut BytesMut, left: &mut u64) -> Option<Bytes> {
    let some = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
    if some == 0 {
        return None;
    }
    *left -= some as u64;
    Some(buffer.split_to(some).freeze())
}

/// Takes the end of the body, if it is here and the usual one, so that a caller need not ask once more.
fn usual_end(buffer: &mut BytesMut) -> bool {
    let here = buffer.starts_with(USUAL_END);
    if here {
        buffer.advance(USUAL_END.len());
    }
    here
}

fn chunks(next: &mut Next, extensions: &mut usize, buffer: &mut BytesMut, rules: &Rules) -> Result<Step, Malformed> {
    loop {
        match next {
            Next::Size => {
                let Some(line) = size_line(buffer, rules)? else { return Ok(Step::More) };
                *extensions += line.extensions;
                if *extensions > rules.extensions {
                    return Err(Malformed);
                }
                buffer.advance(line.length);
                *next = if line.size == 0 { Next::Trailers } else { Next::Data(line.size) };
            }
            Next::Data(left) => {
                let Some(data) = take(buffer, left) else { return Ok(Step::More) };
                if *left == 0 {
                    *next = Next::DataEnd;
                }
                return Ok(Step::Data(data));
            }
            Next::DataEnd => {
                if !begins_with_line_end(buffer)? {
                    return Ok(Step::More);
                }
                buffer.advance(LINE_END.len());
                *next = Next::Size;
            }
            Next::Trailers => return trailers(buffer, rules),
        }
    }
}

/// Whether a line ends here; `Ok(false)` if that does not show yet.
fn begins_with_line_end(buffer: &[u8]) -> Result<bool, Malformed> {
    match buffer {
        [b'\r', b'\n', ..] => Ok(true),
        [] | [b'\r'] => Ok(false),
        _ => Err(Malformed),
    }
}

fn size_line(buffer: &[u8], rules: &Rules) -> Result<Option<SizeLine>, Malformed> {
    let Some(end) = memchr::memchr(b'\n', buffer) else {
        // What can be said before the end of the line: it has a digit first, and a bound.
        let digit = buffer.first().is_none_or(u8::is_ascii_hexdigit);
        return if digit && buffer.len() <= rules.size_line { Ok(None) } else { Err(Malformed) };
    };
    let line = buffer.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Malformed)?;
    if line.len() >= rules.size_line {
        return Err(Malformed);
    }
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at_checked(digits).ok_or(Malformed)?;
    let extension = rest.iter().find(|byte| !rules.blanks || !matches!(byte, b' ' | b'\t'));
    let clean =
        matches!(extension, None | Some(b';')) && !rest.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t');
    if digits.is_empty() || digits.len() > rules.digits || !clean {
        return Err(Malformed);
    }
    let size = digits.iter().try_fold(0_u64, |size, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        size.checked_mul(16)?.checked_add(u64::from(digit))
    });
    let size = size.filter(|size| i64::try_from(*size).is_ok()).ok_or(Malformed)?;
    Ok(Some(SizeLine { size, length: end + 1, extensions: rest.len() }))
}

fn trailers(buffer: &mut BytesMut, rules: &Rules) -> Result<Step, Malformed> {
    if let [b'\r', rest @ ..] = &buffer[..] {
        return match rest {
            [] => Ok(Step::More),
            [b'\n', ..] => {
                buffer.advance(LINE_END.len());
                Ok(Step::End)
            }
            _ => Err(Malformed),
        };
    }
    let seen = buffer.get(..rules.trailers).unwrap_or(buffer);
    let Some(end) = memchr::memmem::find(seen, b"\r\n\r\n") else {
        return if buffer.len() >= rules.trailers { Err(Malformed) } else { Ok(Step::More) };
    };
    let section = buffer.split_to(end + 2 * LINE_END.len());
    fields::trailers(&section).map(|fields| Step::Trailers(Box::new(fields))).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A body, its trailer fields, and what is left over.
    type Decoded = (Vec<u8>, Option<HeaderMap>, Vec<u8>);

    /// What a decoder makes of `pieces`, the connection closing after them.
    fn decode(framing: Framing, pieces: &[&[u8]]) -> Result<Decoded, Malformed> {
        let (mut decoder, mut buffer) = (Decoder::new(framing, Rules::ANSWERS), BytesMut::new());
        let (mut body, mut trailers) = (Vec::new(), None);
        let mut pieces = pieces.iter();
        loop {
            match decoder.decode(&mut buffer)? {
                Step::Data(data) => {
                    assert!(!data.is_empty());
                    body.extend_from_slice(&data);
                }
                Step::Trailers(fields) => trailers = Some(*fields),
                Step::End => break,
                Step::More => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => decoder.close()?,
                },
            }
        }
        assert!(decoder.is_ended() && decoder.remaining() == Some(0));
        for piece in pieces {
            buffer.extend_from_slice(piece);
        }
        Ok((body, trailers, buffer.to_vec()))
    }

    fn chunked(bytes: &[u8]) -> Result<Decoded, Malformed> {
        decode(Framing::Chunked, &[bytes])
    }

    #[test]
    fn each_framing_ends_where_it_says() {
        assert_eq!(decode(Framing::Length(0), &[b"next"]).unwrap().2, b"next");
        let (body, _, rest) = decode(Framing::Length(5), &[b"hel", b"lonext"]).unwrap();
        assert_eq!((&body[..], &rest[..]), (&b"hello"[..], &b"next"[..]));
        assert!(decode(Framing::Length(5), &[b"hell"]).is_err());
        assert_eq!(decode(Framing::UntilClose, &[b"hello", b" world"]).unwrap().0, b"hello world");
        assert_eq!(decode(Framing::UntilClose, &[]).unwrap().0, b"");
        let (body, trailers, rest) = chunked(b"5\r\nhello\r\n0006 ;a=b\r\n world\r\n0\r\n\r\nnext").unwrap();
        assert_eq!((&body[..], trailers, &rest[..]), (&b"hello world"[..], None, &b"next"[..]));
    }

    #[test]
    fn trailer_fields_are_read() {
        let (body, trailers, rest) = chunked(b"1\r\na\r\n0\r\nX-Sum: 7\r\nx-sum: 8\r\n\r\nnext").unwrap();
        assert_eq!((&body[..], &rest[..]), (&b"a"[..], &b"next"[..]));
        let sums: Vec<_> = trailers.unwrap().get_all("x-sum").iter().cloned().collect();
        assert_eq!(sums, ["7", "8"]);
    }

    #[test]
    fn broken_chunks_are_refused() {
        let long_line = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(Rules::ANSWERS.size_line));
        let many_fields = format!("0\r\n{}\r\n", "x: y\r\n".repeat(fields::TRAILER_FIELDS + 1));
        let long_fields = format!("0\r\nx: {}\r\n\r\n", "y".repeat(Rules::ANSWERS.trailers));
        let extensions = format!("1;{}\r\na\r\n", "x".repeat(Rules::ANSWERS.size_line - 10)).repeat(5) + "0\r\n\r\n";
        for bytes in [
            b"".as_slice(),
            b"\r\n\r\n",
            b"g\r\n",
            b"-1\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"5 5\r\nhello\r\n0\r\n\r\n",
            b"5\nhello\r\n0\r\n\r\n",
            b"5\r\r\nhello\r\n0\r\n\r\n",
            b"5;a\rb\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello\r\n",
            b"5\r\nhello\r\n0\r\n",
            b"5\r\nhello\r\n0\r\n\r",
            b"0\r\n\n",
            b"0\r\n\rx",
            b"0\r\nno colon\r\n\r\n",
            b"0\r\nx: y\r\n z\r\n\r\n",
            b"10000000000000000\r\n",
            long_line.as_bytes(),
            many_fields.as_bytes(),
            long_fields.as_bytes(),
            extensions.as_bytes(),
        ] {
            assert!(chunked(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_whole_body_is_taken_at_once_and_part_of_one_is_left() {
        for (framing, bytes, whole) in [
            (Framing::Length(0), &b"next"[..], Some(&b""[..])),
            (Framing::Length(5), b"hellonext", Some(b"hello")),
            (Framing::Length(5), b"hell", None),
            (Framing::Chunked, b"5\r\nhello\r\n0\r\n\r\nnext", Some(b"hello")),
            (Framing::Chunked, b"5\r\nhello\r\n0\r\n\r", None),
            (Framing::Chunked, b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", None),
            (Framing::Chunked, b"0\r\n\r\n", None),
            (Framing::UntilClose, b"hello", None),
        ] {
            let (mut decoder, mut buffer) = (Decoder::new(framing, Rules::ANSWERS), BytesMut::from(bytes));
            assert_eq!(decoder.whole(&mut buffer).as_deref(), whole, "{framing:?}");
            assert_eq!(decoder.is_ended(), whole.is_some());
            assert_eq!(&buffer[..], if whole.is_some() { b"next" } else { bytes });
        }
    }

    /// `body` in chunks of `sizes`, with what a server may add.
    fn in_chunks(body: &[u8], sizes: &[usize], extension: &str, trailer: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = body;
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (chunk, more) = rest.split_at((*size).min(rest.len()));
            bytes.extend_from_slice(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
            rest = more;
        }
        bytes.extend_from_slice(if trailer { b"0\r\nx-sum: 7\r\n\r\n" } else { b"0\r\n\r\n" });
        bytes
    }

    fn cut<'a>(bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
        let (mut pieces, mut rest) = (Vec::new(), bytes);
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                return pieces;
            }
            let (piece, more) = rest.split_at((*size).min(rest.len()));
            pieces.push(piece);
            rest = more;
        }
        pieces
    }

    proptest! {
        #[test]
        fn what_was_put_in_chunks_comes_out_however_it_is_cut(
            body in prop::collection::vec(any::<u8>(), 0..300),
            chunks in prop::collection::vec(1_usize..80, 1..5),
            cuts in prop::collection::vec(1_usize..50, 1..5),
            extension in prop::sample::select(vec!["", " ", ";a=b", " ; \"x\""]),
            trailer in any::<bool>(),
        ) {
            let mut bytes = in_chunks(&body, &chunks, extension, trailer);
            bytes.extend_from_slice(b"HTTP/1.1");
            let (found, trailers, rest) = decode(Framing::Chunked, &cut(&bytes, &cuts)).unwrap();
            prop_assert_eq!(found, body);
            prop_assert_eq!(trailers.is_some(), trailer);
            prop_assert_eq!(rest, b"HTTP/1.1");
        }

        #[test]
        fn a_body_cut_off_or_damaged_never_looks_longer_and_never_differs_by_its_cuts(
            body in prop::collection::vec(any::<u8>(), 1..60),
            chunks in prop::collection::vec(1_usize..20, 1..4),
            cuts in prop::collection::vec(1_usize..20, 1..5),
            at in any::<prop::sample::Index>(),
            byte in prop::option::of(any::<u8>()),
        ) {
            let mut bytes = in_chunks(&body, &chunks, "", false);
            let at = at.index(bytes.len());
            match byte {
                Some(byte) => bytes[at] = byte,
                None => bytes.truncate(at),
            }
            let whole = chunked(&bytes);
            prop_assert!(byte.is_some() || whole.is_err());
            prop_assert_eq!(decode(Framing::Chunked, &cut(&bytes, &cuts)), whole);
        }
    }
}
