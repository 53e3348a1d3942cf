//! The head of an answer: where it ends, what it says, and how the body after it is framed (RFC 9112 section 6.3).

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode, Version};
use hyper::ext::ReasonPhrase;
use smallvec::SmallVec;
use thiserror::Error;

use crate::http1::{Framing, Role, Shapes, length};

/// Largest head.
pub(super) const HEAD_BYTES: usize = 64 * 1_024;
/// Most fields of a head.
pub(super) const HEAD_FIELDS: usize = 100;
/// Most interim answers (1xx) before the answer. A server may send one every few seconds while it works.
const INTERIM: u8 = 128;

/// Fields the gateway will add to an answer: room is made for them at once.
const ADDED: usize = 4;

/// What came is not the head of an HTTP answer, or one that can be understood in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not an HTTP answer")]
pub struct Garbage;

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
    /// interim answers. `shapes` makes it faster, and changes nothing.
    pub fn read(&mut self, buffer: &mut BytesMut, shapes: &mut Shapes) -> Result<Option<Head>, Garbage> {
        if let Some((status, from)) = usual_start(buffer)
            && let Some(fitting) = buffer.get(from..HEAD_BYTES.min(buffer.len())).and_then(|fields| shapes.read(fields))
        {
            let bytes = buffer.split_to(from + fitting.length).freeze();
            let mut says = Says::default();
            let headers = fitting.headers(&bytes, from, |role, value| {
                says.hear(role, value);
                Ok::<_, Garbage>(())
            });
            match headers {
                Some(headers) => return says.head(status, Version::HTTP_11, headers?, self.bodiless).map(Some),
                None => put_back(buffer, &bytes),
            }
        }
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
            shapes.learn(parsed.headers.iter().map(|field| field.name.as_bytes()), ADDED);
            let spans: SmallVec<[Span; 32]> = parsed.headers.iter().map(|field| span(buffer, field)).collect();
            let bytes = buffer.split_to(length).freeze();
            let mut says = Says::default();
            let headers = collected(&bytes, &spans, &mut says)?;
            let mut head = says.head(status, version, headers, self.bodiless)?;
            if let Some(reason) = reason.map_err(|_| Garbage)? {
                head.response.extensions_mut().insert(reason);
            }
            return Ok(Some(head));
        }
    }
}

/// The status of an answer that begins as nearly all do, and where its fields begin.
fn usual_start(buffer: &[u8]) -> Option<(StatusCode, usize)> {
    const VERSION: &[u8] = b"HTTP/1.1 ";
    let (code, rest) = buffer.strip_prefix(VERSION)?.split_at_checked(3)?;
    let status = StatusCode::from_bytes(code).ok().filter(|status| !status.is_informational())?;
    let reason = status.canonical_reason()?;
    let ends = rest.strip_prefix(b" ")?.strip_prefix(reason.as_bytes())?.starts_with(b"\r\n");
    ends.then_some((status, VERSION.len() + 3 + 1 + reason.len() + 2))
}

/// Puts `bytes` before what is in `buffer`.
#[cold]
fn put_back(buffer: &mut BytesMut, bytes: &[u8]) {
    let rest = buffer.split();
    buffer.extend_from_slice(bytes);
    buffer.extend_from_slice(&rest);
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

fn value(bytes: &Bytes, span: &Span) -> Result<HeaderValue, Garbage> {
    HeaderValue::from_maybe_shared(bytes.slice(range(span.value))).map_err(|_| Garbage)
}

/// The fields of any head.
fn collected(bytes: &Bytes, spans: &[Span], says: &mut Says) -> Result<HeaderMap, Garbage> {
    let mut headers = HeaderMap::with_capacity(spans.len() + ADDED);
    for span in spans {
        let name = HeaderName::from_bytes(bytes.get(range(span.name)).ok_or(Garbage)?).map_err(|_| Garbage)?;
        let value = value(bytes, span)?;
        if says.hear(Role::of(&name), value.as_bytes()) {
            headers.append(name, value);
        }
    }
    Ok(headers)
}

impl Says {
    /// Takes note of a field; false if it only repeats what was said.
    fn hear(&mut self, role: Role, value: &[u8]) -> bool {
        match role {
            Role::Length => {
                let length = length(value);
                let again = self.length.is_some();
                self.unclear |= length.is_none() || (again && self.length != length);
                self.length = length.or(self.length);
                !again
            }
            Role::Coding => {
                self.unclear |= self.chunked || !value.eq_ignore_ascii_case(b"chunked");
                self.chunked = true;
                true
            }
            Role::Connection => {
                let mut tokens = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
                self.close |= tokens.any(|token| token.eq_ignore_ascii_case(b"close"));
                true
            }
            Role::Host | Role::Expect | Role::Other => true,
        }
    }

    fn head(&self, status: StatusCode, version: Version, headers: HeaderMap, bodiless: bool) -> Result<Head, Garbage> {
        let framing = self.framing(status, version, bodiless)?;
        let keep_alive = version == Version::HTTP_11 && !self.close && framing != Framing::UntilClose;
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.version_mut() = version;
        *response.headers_mut() = headers;
        Ok(Head { response, framing, keep_alive })
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Option<Head>, Garbage> {
        HeadReader::default().read(&mut BytesMut::from(bytes), &mut Shapes::default())
    }

    fn framing_of(head: &str) -> Result<(Framing, bool), Garbage> {
        let head = read(format!("{head}\r\n\r\n").as_bytes())?.expect("a whole head");
        Ok((head.framing, head.keep_alive))
    }

    #[test]
    fn a_head_says_how_its_body_ends_and_whether_the_connection_goes_on() {
        use Framing::{Chunked, Length, UntilClose};
        for (head, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5", (Length(5), true)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nCONTENT-LENGTH:5", (Length(5), true)),
            ("HTTP/1.1 200\r\ntransfer-encoding: Chunked", (Chunked, true)),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: x, Close", (Length(5), false)),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\nconnection: keep-alive", (Length(5), false)),
            ("HTTP/1.1 200 OK", (UntilClose, false)),
            ("HTTP/1.0 200 OK\r\ncontent-length: 5\r\nconnection: keep-alive", (Length(5), false)),
            ("HTTP/1.1 204 No Content\r\ncontent-length: 5", (Length(0), true)),
            ("HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked", (Length(0), true)),
            (
                "HTTP/1.1 100 Continue\r\ncontent-length: 9\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1",
                (Length(1), true),
            ),
        ] {
            assert_eq!(framing_of(head), Ok(expected), "{head}");
        }
        let mut to_head = HeadReader::new(&Method::HEAD);
        let mut buffer = BytesMut::from("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
        let head = to_head.read(&mut buffer, &mut Shapes::default()).unwrap().unwrap();
        assert_eq!((head.framing, head.keep_alive), (Length(0), true));
        assert_eq!(head.response.headers()["content-length"], "5");
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for head in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6",
            "HTTP/1.1 200 OK\r\ncontent-length: 5, 5",
            "HTTP/1.1 200 OK\r\ncontent-length: +5",
            "HTTP/1.1 200 OK\r\ncontent-length: 0x5",
            "HTTP/1.1 200 OK\r\ncontent-length:",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, identity",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: \x0bchunked",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked",
            "HTTP/1.1 200 OK\r\nfolded: a\r\n b",
            "HTTP/1.1 200 OK\r\nspace : a",
            "HTTP/1.1 200 OK\r\n: a",
            "HTTP/1.1 200 OK\r\nno colon",
            "HTTP/1.1 200 OK\r\nx: a\0b",
            "HTTP/1.1 200 OK\r\nx: a\rb",
            "HTTP/1.1 099 No",
            "HTTP/1.1 101 Switching Protocols",
            "HTTP/2 200 OK",
            "SSH-2.0-x",
        ] {
            assert_eq!(framing_of(head), Err(Garbage), "{head:?}");
        }
    }

    #[test]
    fn fields_and_reason_are_passed_on_as_they_came() {
        let bytes =
            b"HTTP/1.1 299 Nearly\r\nX-Multi: a\r\nSforce-Limit-Info: api-usage=1/2 \r\nx-multi: \xe4\r\n\r\nrest";
        let mut buffer = BytesMut::from(&bytes[..]);
        let head = HeadReader::default().read(&mut buffer, &mut Shapes::default()).unwrap().unwrap();
        assert_eq!(&buffer[..], b"rest");
        let response = head.response;
        assert_eq!((response.status().as_u16(), response.version()), (299, Version::HTTP_11));
        assert_eq!(response.extensions().get::<ReasonPhrase>().unwrap().as_bytes(), b"Nearly");
        let values =
            |name: &str| response.headers().get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();
        assert_eq!(values("x-multi"), [b"a".as_slice(), b"\xe4"]);
        assert_eq!(values("sforce-limit-info"), [b"api-usage=1/2"]);
        assert!(read(b"HTTP/1.1 200 OK\r\n\r\n").unwrap().unwrap().response.extensions().is_empty());
        let twice = read(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n").unwrap().unwrap();
        assert_eq!(twice.response.headers().get_all("content-length").iter().count(), 1, "said once");
    }

    #[test]
    fn a_head_has_bounds() {
        let fields = |count: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(count));
        assert!(read(fields(HEAD_FIELDS).as_bytes()).unwrap().is_some());
        assert!(read(fields(HEAD_FIELDS + 1).as_bytes()).is_err());
        let long = |bytes: usize| format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(bytes));
        assert!(read(long(HEAD_BYTES - 100).as_bytes()).unwrap().is_none());
        assert!(read(long(HEAD_BYTES).as_bytes()).is_err());
        assert!(read(format!("{}\r\n\r\n", long(HEAD_BYTES)).as_bytes()).is_err());
        let interim =
            |count: u8| "HTTP/1.1 102 Processing\r\n\r\n".repeat(usize::from(count)) + "HTTP/1.1 204 -\r\n\r\n";
        assert!(read(interim(INTERIM - 1).as_bytes()).unwrap().is_some());
        assert!(read(interim(INTERIM).as_bytes()).is_err());
    }

    /// Pieces a head may be made of, and noise.
    fn heads() -> impl Strategy<Value = Vec<u8>> {
        let words = prop::sample::select(vec![
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.0 404 Not Found\r\n",
            "HTTP/1.1 204 Gone away\r\n",
            "Content-Length: 12\r\n",
            "Content-Length: 7\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Connection: close\r\n",
            "x-a: b\r\n",
            "x-long: 0123456789012345678901234567890123456789\r\n",
            "\r\n",
            "\n",
            "\r",
            ":",
            " ",
            "body",
        ]);
        let word = prop_oneof![
            9 => words.prop_map(|word| word.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..4),
        ];
        prop::collection::vec(word, 0..12).prop_map(|words| words.concat())
    }

    type Seen = Result<Option<(StatusCode, HeaderMap, Framing, bool)>, Garbage>;

    fn seen(read: Result<Option<Head>, Garbage>) -> Seen {
        read.map(|head| {
            head.map(|head| {
                let (parts, ()) = head.response.into_parts();
                (parts.status, parts.headers, head.framing, head.keep_alive)
            })
        })
    }

    proptest! {
        #[test]
        fn how_the_bytes_were_cut_changes_nothing(bytes in heads(), cuts in prop::collection::vec(1_usize..40, 1..8)) {
            let mut whole = BytesMut::from(&bytes[..]);
            let expected = seen(HeadReader::default().read(&mut whole, &mut Shapes::default()));
            // Twice, so that its shape is known.
            let mut shapes = Shapes::default();
            for _ in 0..2 {
                let again = HeadReader::default().read(&mut BytesMut::from(&bytes[..]), &mut shapes);
                prop_assert_eq!(seen(again), expected.clone());
            }
            let (mut buffer, mut reader, mut rest) = (BytesMut::new(), HeadReader::default(), &bytes[..]);
            let mut cuts = cuts.into_iter().cycle();
            let mut found = Ok(None);
            while matches!(found, Ok(None)) && !rest.is_empty() {
                let (piece, more) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                buffer.extend_from_slice(piece);
                rest = more;
                found = seen(reader.read(&mut buffer, &mut shapes));
            }
            buffer.extend_from_slice(rest);
            prop_assert_eq!(&found, &expected);
            if matches!(found, Ok(Some(_))) {
                prop_assert_eq!(&buffer[..], &whole[..], "what follows the head");
            }
        }
    }
}
