//! The head of an answer as it goes over the wire, and how its body is framed.

use std::io::Write as _;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, DATE, HeaderMap};
use http::{Extensions, Method, Response, StatusCode, Version};
use http_body::SizeHint;
use hyper::ext::ReasonPhrase;

use crate::http1::length;
use crate::written::Written;

/// How the body of an answer is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    None,
    /// It has this many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// It ends where the connection does.
    UntilClose,
}

/// What the request says about its answer.
#[derive(Debug, Clone, Copy)]
pub(in crate::edge) struct Asked {
    /// Only the head of the answer is wanted.
    head_only: bool,
    /// HTTP/1.0.
    old: bool,
}

impl Asked {
    /// By a request with this method and version.
    pub(in crate::edge) fn new(method: &Method, version: Version) -> Self {
        Self { head_only: *method == Method::HEAD, old: version == Version::HTTP_10 }
    }
}

/// An answer without its body.
pub(super) struct Told<'a> {
    pub(super) status: StatusCode,
    pub(super) headers: &'a HeaderMap,
    /// Further fields, ready to be sent.
    pub(super) written: Option<&'a Written>,
    pub(super) extensions: &'a Extensions,
    /// How long its body is, as far as that is known.
    pub(super) size: SizeHint,
}

/// Writes the head of an answer to the end of `out`; `keep` if the connection is to stay open, which it cannot after some.
///
/// `Connection` and `Transfer-Encoding` are the connection's own: they never come from `told`.
pub(super) fn write(
    out: &mut Vec<u8>,
    told: &Told<'_>,
    asked: Asked,
    keep: &mut bool,
    now: impl FnOnce() -> SystemTime,
) -> Framing {
    let status = told.status;
    let framing = framing(told, asked);
    *keep &= framing != Framing::UntilClose;
    out.extend_from_slice(if asked.old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    match told.extensions.get::<ReasonPhrase>() {
        Some(reason) => out.extend_from_slice(reason.as_bytes()),
        None => out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes()),
    }
    out.extend_from_slice(b"\r\n");
    let (mut lengths, mut dated) = (0, false);
    if let Some(written) = told.written {
        written.lines().into_iter().for_each(|lines| out.extend_from_slice(lines));
        dated = written.is_dated();
    }
    for (name, value) in told.headers {
        let name = name.as_str();
        // Told by its length first, so that the usual field costs one comparison.
        match name.len() {
            4 if name == "date" => dated = true,
            10 if name == "connection" => continue,
            14 if name == "content-length" => {
                lengths += 1;
                if lengths > 1 || !may_have_length(status) {
                    continue;
                }
                match framing {
                    Framing::Length(known) if length(value.as_bytes()) != Some(known) => {
                        tell_length(out, known);
                        continue;
                    }
                    Framing::Chunked | Framing::UntilClose => continue,
                    // For an answer to HEAD: what it would have been.
                    Framing::Length(_) | Framing::None => {}
                }
            }
            17 if name == "transfer-encoding" => continue,
            _ => {}
        }
        field(out, name, value.as_bytes());
    }
    match framing {
        Framing::Length(length) if lengths == 0 => tell_length(out, length),
        Framing::None if lengths == 0 && may_have_length(status) => {
            if let Some(length @ 1..) = told.size.exact() {
                tell_length(out, length);
            }
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::None | Framing::Length(_) | Framing::UntilClose => {}
    }
    if !dated {
        // Writing to memory cannot fail.
        let _ = write!(out, "{DATE}: {}\r\n", httpdate::HttpDate::from(now()));
    }
    match (*keep, asked.old) {
        (false, false) => out.extend_from_slice(b"connection: close\r\n"),
        (true, true) => out.extend_from_slice(b"connection: keep-alive\r\n"),
        (true, false) | (false, true) => {}
    }
    out.extend_from_slice(b"\r\n");
    framing
}

/// A whole answer, to a request that could not be read. The connection closes after it.
pub(in crate::edge) fn last(response: &Response<Bytes>, now: SystemTime) -> Vec<u8> {
    let told = Told {
        status: response.status(),
        headers: response.headers(),
        written: None,
        extensions: response.extensions(),
        size: SizeHint::with_exact(response.body().len() as u64),
    };
    let mut bytes = Vec::with_capacity(512 + response.body().len());
    write(&mut bytes, &told, Asked { head_only: false, old: false }, &mut false, || now);
    bytes.extend_from_slice(response.body());
    bytes
}

fn framing(told: &Told<'_>, asked: Asked) -> Framing {
    if asked.head_only || !may_have_body(told.status) {
        return Framing::None;
    }
    let told_length = || length(told.headers.get(CONTENT_LENGTH)?.as_bytes());
    match told.size.exact().or_else(told_length) {
        Some(length) => Framing::Length(length),
        None if asked.old => Framing::UntilClose,
        None => Framing::Chunked,
    }
}

fn may_have_body(status: StatusCode) -> bool {
    !status.is_informational() && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// A 304 may say how long the body is that it does not have.
fn may_have_length(status: StatusCode) -> bool {
    !status.is_informational() && status != StatusCode::NO_CONTENT
}

fn tell_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"content-length: ");
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(digits.format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn written(request: &(Method, Version), response: &Response<SizeHint>, mut keep: bool) -> (String, Framing, bool) {
        let told = Told {
            status: response.status(),
            headers: response.headers(),
            written: None,
            extensions: response.extensions(),
            size: *response.body(),
        };
        let asked = Asked::new(&request.0, request.1);
        let mut out = Vec::new();
        let framing = write(&mut out, &told, asked, &mut keep, || UNIX_EPOCH + Duration::from_secs(1_000_000_000));
        (String::from_utf8(out).unwrap(), framing, keep)
    }

    const NEW: Version = Version::HTTP_11;
    const DATE: &str = "date: Sun, 09 Sep 2001 01:46:40 GMT\r\n";

    fn answer(status: u16, fields: &[(&'static str, &'static str)], size: Option<u64>) -> Response<SizeHint> {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        response.body(size.map_or_else(SizeHint::default, SizeHint::with_exact)).unwrap()
    }

    #[test]
    fn fields_are_written_in_their_order_and_framing_is_ours() {
        let fields = [
            ("etag", "\"x\""),
            ("content-length", "5"),
            ("connection", "x-a"),
            ("transfer-encoding", "gzip"),
            ("date", "then"),
            ("content-length", "5"),
        ];
        let (head, framing, keep) = written(&(Method::GET, NEW), &answer(200, &fields, Some(5)), true);
        assert_eq!(head, "HTTP/1.1 200 OK\r\netag: \"x\"\r\ncontent-length: 5\r\ndate: then\r\n\r\n");
        assert_eq!((framing, keep), (Framing::Length(5), true));
        let (head, framing, keep) = written(&(Method::GET, NEW), &answer(404, &[], None), false);
        let expected =
            format!("HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n{DATE}connection: close\r\n\r\n");
        assert_eq!((head, framing, keep), (expected, Framing::Chunked, false));
    }

    #[test]
    fn a_length_is_what_is_known_of_the_body() {
        for (fields, size, line, framing) in [
            (&[][..], Some(7), "content-length: 7\r\n", Framing::Length(7)),
            (&[][..], Some(0), "content-length: 0\r\n", Framing::Length(0)),
            (&[("content-length", "7")][..], None, "content-length: 7\r\n", Framing::Length(7)),
            (&[("content-length", "8")][..], Some(7), "content-length: 7\r\n", Framing::Length(7)),
            (&[("content-length", "x")][..], None, "transfer-encoding: chunked\r\n", Framing::Chunked),
        ] {
            let found = written(&(Method::POST, NEW), &answer(201, fields, size), true);
            assert_eq!(found, (format!("HTTP/1.1 201 Created\r\n{line}{DATE}\r\n"), framing, true));
        }
    }

    #[test]
    fn answers_without_a_body_have_none() {
        for (method, status, fields, size, line) in [
            (Method::HEAD, 200, &[("content-length", "9")][..], Some(0), "content-length: 9\r\n"),
            (Method::HEAD, 200, &[][..], Some(9), "content-length: 9\r\n"),
            (Method::HEAD, 200, &[][..], None, ""),
            (Method::GET, 204, &[("content-length", "0")][..], Some(0), ""),
            (Method::GET, 204, &[][..], Some(3), ""),
            (Method::GET, 304, &[("content-length", "9")][..], Some(0), "content-length: 9\r\n"),
            (Method::GET, 304, &[][..], None, ""),
        ] {
            let (head, framing, keep) = written(&(method, NEW), &answer(status, fields, size), true);
            let (_, rest) = head.split_once("\r\n").unwrap();
            assert_eq!((rest, framing, keep), (&*format!("{line}{DATE}\r\n"), Framing::None, true), "{status}");
        }
    }

    #[test]
    fn http_1_0_gets_what_it_can_read() {
        let old = (Method::GET, Version::HTTP_10);
        let (head, framing, keep) = written(&old, &answer(200, &[], Some(2)), true);
        assert_eq!(head, format!("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n{DATE}connection: keep-alive\r\n\r\n"));
        assert_eq!((framing, keep), (Framing::Length(2), true));
        let found = written(&old, &answer(200, &[], None), true);
        assert_eq!(found, (format!("HTTP/1.0 200 OK\r\n{DATE}\r\n"), Framing::UntilClose, false));
    }

    #[test]
    fn the_reason_is_the_origins_if_it_is_not_the_usual_one() {
        let mut response = answer(299, &[], Some(0));
        let status = |response: &_| written(&(Method::GET, NEW), response, true).0.lines().next().unwrap().to_owned();
        assert_eq!(status(&response), "HTTP/1.1 299 ");
        response.extensions_mut().insert(ReasonPhrase::try_from(&b"Nearly"[..]).unwrap());
        assert_eq!(status(&response), "HTTP/1.1 299 Nearly");
    }
}
