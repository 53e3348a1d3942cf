//! The head of a request as it goes over the wire.

use std::io::Write as _;

use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request};
use http_body::Body as _;

use crate::body::Payload;
use crate::exchange::pool::Stream;
use crate::http1::length;

/// How the body of a request is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none, and nothing is said about it.
    None,
    /// It has this many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// What the framing has to add to the caller's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// The field is there.
    Already,
    Length(u64),
    Chunked,
}

/// Writes the head of `message`, for `host`, to the end of `out`.
///
/// The fields keep their order, and Host its place. Transfer-Encoding is ours alone: it never comes from `message`.
pub(super) fn write<S: Stream>(out: &mut Vec<u8>, message: &Request<Payload<S>>, host: &HeaderValue) -> Framing {
    let (framing, said) = framing(message);
    out.extend_from_slice(message.method().as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(message.uri().path_and_query().map_or("/", PathAndQuery::as_str).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut hosts = 0;
    for (name, value) in message.headers() {
        let name = name.as_str();
        // Told by its length first, so that the usual field costs one comparison.
        let value = match name.len() {
            4 if name == "host" => {
                hosts += 1;
                if hosts > 1 {
                    continue;
                }
                host
            }
            14 if said != Said::Already && name == "content-length" => continue,
            17 if name == "transfer-encoding" => continue,
            _ => value,
        };
        field(out, name, value.as_bytes());
    }
    if hosts == 0 {
        field(out, HOST.as_str(), host.as_bytes());
    }
    match said {
        Said::Already => {}
        Said::Length(length) => {
            // Writing to memory cannot fail.
            let _ = write!(out, "content-length: {length}\r\n");
        }
        Said::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
    framing
}

fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn framing<S: Stream>(message: &Request<Payload<S>>) -> (Framing, Said) {
    let body = message.body();
    if body.is_end_stream() {
        return (Framing::None, Said::Already);
    }
    if let Some(length) = announced(message.headers()) {
        return (Framing::Length(length), Said::Already);
    }
    match body.size_hint().exact() {
        Some(length) => (Framing::Length(length), Said::Length(length)),
        // These have no body in practice; one that has says how long it is.
        None if matches!(*message.method(), Method::GET | Method::HEAD) => (Framing::Length(0), Said::Already),
        None => (Framing::Chunked, Said::Chunked),
    }
}

/// The length a head says its body has; `None` also if what it says is no length.
fn announced(headers: &HeaderMap) -> Option<u64> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let first = length(values.next()?.as_bytes())?;
    values.all(|value| length(value.as_bytes()) == Some(first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use http_body::{Body, Frame, SizeHint};

    use super::*;
    use crate::body::BodyFault;

    struct Unread(SizeHint);

    impl Body for Unread {
        type Data = Bytes;
        type Error = BodyFault;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
            Poll::Pending
        }

        fn size_hint(&self) -> SizeHint {
            self.0
        }
    }

    fn written(method: Method, fields: &[(&'static str, &'static str)], body: Payload<Unread>) -> (String, Framing) {
        let mut message = Request::builder().method(method).uri("https://gateway.internal/a?b=c");
        for (name, value) in fields {
            message = message.header(*name, *value);
        }
        let mut out = b"before".to_vec();
        let framing = write(&mut out, &message.body(body).unwrap(), &HeaderValue::from_static("acme.test"));
        (String::from_utf8(out).unwrap().strip_prefix("before").unwrap().to_owned(), framing)
    }

    fn whole(text: &'static str) -> Payload<Unread> {
        Payload::Whole(Bytes::from_static(text.as_bytes()), None)
    }

    #[test]
    fn fields_keep_their_order_and_host_its_place() {
        let fields = [("accept", "*/*"), ("host", "gateway"), ("x-a", "1"), ("x-a", "2"), ("host", "again")];
        let (head, framing) = written(Method::GET, &fields, Payload::Empty);
        assert_eq!(head, "GET /a?b=c HTTP/1.1\r\naccept: */*\r\nhost: acme.test\r\nx-a: 1\r\nx-a: 2\r\n\r\n");
        assert_eq!(framing, Framing::None);
        let (head, _) = written(Method::DELETE, &[("accept", "*/*")], Payload::Empty);
        assert_eq!(head, "DELETE /a?b=c HTTP/1.1\r\naccept: */*\r\nhost: acme.test\r\n\r\n");
    }

    #[test]
    fn a_target_without_a_path_is_the_root() {
        let message = Request::get("https://gateway.internal").body(Payload::<Unread>::Empty).unwrap();
        let mut out = Vec::new();
        write(&mut out, &message, &HeaderValue::from_static("h"));
        assert!(out.starts_with(b"GET / HTTP/1.1\r\n"));
    }

    #[test]
    fn the_length_is_said_once_and_is_the_callers_if_it_is_one() {
        for (fields, rest) in [
            (vec![], "host: acme.test\r\ncontent-length: 4\r\n\r\n"),
            (vec![("content-length", "4")], "content-length: 4\r\nhost: acme.test\r\n\r\n"),
            (vec![("content-length", "four")], "host: acme.test\r\ncontent-length: 4\r\n\r\n"),
            (vec![("content-length", "4"), ("content-length", "5")], "host: acme.test\r\ncontent-length: 4\r\n\r\n"),
            (vec![("transfer-encoding", "chunked")], "host: acme.test\r\ncontent-length: 4\r\n\r\n"),
        ] {
            let (head, framing) = written(Method::POST, &fields, whole("body"));
            assert_eq!(head, format!("POST /a?b=c HTTP/1.1\r\n{rest}"));
            assert_eq!(framing, Framing::Length(4));
        }
        // Without a body, what the caller said stands: nothing, or zero.
        assert!(!written(Method::POST, &[], Payload::Empty).0.contains("content-length"));
        assert!(written(Method::POST, &[("content-length", "0")], whole("")).0.contains("content-length: 0\r\n"));
    }

    #[test]
    fn a_stream_is_framed_by_what_is_known_of_it() {
        let unknown = || Payload::Stream(Unread(SizeHint::default()));
        let (head, framing) = written(Method::PUT, &[], unknown());
        assert!(head.ends_with("\r\ntransfer-encoding: chunked\r\n\r\n"), "{head}");
        assert_eq!(framing, Framing::Chunked);
        let (head, framing) = written(Method::PUT, &[("content-length", "7")], unknown());
        assert!(head.contains("content-length: 7\r\n") && !head.contains("chunked"), "{head}");
        assert_eq!(framing, Framing::Length(7));
        let (head, framing) = written(Method::PUT, &[], Payload::Stream(Unread(SizeHint::with_exact(9))));
        assert!(head.ends_with("\r\ncontent-length: 9\r\n\r\n"), "{head}");
        assert_eq!(framing, Framing::Length(9));
        let (head, framing) = written(Method::GET, &[], unknown());
        assert!(!head.contains("chunked") && !head.contains("content-length"), "{head}");
        assert_eq!(framing, Framing::Length(0));
    }
}
