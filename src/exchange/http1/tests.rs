//! The connection against an origin that does as the test says.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::header::HeaderValue;
use http::{Method, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::Connection;
use crate::body::{BodyFault, Payload};
use crate::exchange::conn::{GivenBack, Lost};
use crate::exchange::failure::{Cause, Sent};
use crate::exchange::io::{Io, Wire};

/// A body whose pieces are all there.
#[derive(Debug)]
struct Ready(std::vec::IntoIter<Bytes>);

impl Body for Ready {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        Poll::Ready(self.0.next().map(|piece| Ok(Frame::data(piece))))
    }
}

fn connected(room: usize) -> (Connection<Ready>, DuplexStream) {
    let (ours, theirs) = duplex(room);
    (Connection::new(Io::Plain(Wire::Memory(ours)), Arc::default()).begun(), theirs)
}

fn start(connection: &mut Connection<Ready>, body: Payload<Ready>) {
    let mut message = Request::post("/x").body(body).unwrap();
    connection.start(&mut message, &HeaderValue::from_static("acme.test"));
}

async fn head(connection: &mut Connection<Ready>) -> Result<Response<()>, Lost<Ready>> {
    poll_fn(|cx| connection.poll_head(cx)).await
}

/// The rest of the body; the number of its trailer fields.
async fn body(connection: &mut Connection<Ready>) -> std::io::Result<(Vec<u8>, usize)> {
    let (mut bytes, mut trailers) = (Vec::new(), 0);
    while let Some(frame) = poll_fn(|cx| connection.poll_piece(cx)).await {
        match frame?.into_data() {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().unwrap().len(),
        }
    }
    Ok((bytes, trailers))
}

fn whole(bytes: impl Into<Bytes>) -> Payload<Ready> {
    Payload::Whole(bytes.into(), None)
}

#[tokio::test]
async fn a_message_a_closed_connection_did_not_take_is_given_back_with_its_body() {
    for size in [10, 100_000] {
        let (mut connection, theirs) = connected(64);
        assert!(connection.is_usable());
        start(&mut connection, whole(vec![7; size]));
        drop(theirs);
        let Err(Lost::Unsent(GivenBack::Body(Payload::Whole(given, None)))) = head(&mut connection).await else {
            panic!("not given back");
        };
        assert_eq!(given, vec![7; size]);
        assert!(!connection.is_usable());
    }
    let (mut connection, theirs) = connected(64);
    start(&mut connection, Payload::Stream(Ready(vec![Bytes::from_static(b"x")].into_iter())));
    drop(theirs);
    let Err(Lost::Unsent(GivenBack::Body(Payload::Stream(mut given)))) = head(&mut connection).await else {
        panic!("not given back");
    };
    assert_eq!(given.0.next().as_deref(), Some(&b"x"[..]), "nothing was taken of it");
}

#[tokio::test]
async fn what_a_new_connection_hears_before_its_first_message_leaves_that_unsent() {
    for greeting in [&b""[..], b"HTTP/1.1 503 Too Busy\r\n\r\n"] {
        let (ours, mut theirs) = duplex(64);
        let mut connection = Connection::new(Io::Plain(Wire::Memory(ours)), Arc::default());
        theirs.write_all(greeting).await.unwrap();
        drop(theirs);
        start(&mut connection, whole("body"));
        assert!(matches!(head(&mut connection).await, Err(Lost::Unsent(_))));
    }
}

#[tokio::test]
async fn one_byte_taken_may_have_been_all() {
    let (mut connection, theirs) = connected(1);
    start(&mut connection, whole("body"));
    assert!(connection.poll_head(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(theirs);
    assert!(matches!(head(&mut connection).await, Err(Lost::Failed(Cause::Reset, Sent::Maybe))));
}

#[tokio::test]
async fn what_an_idle_connection_hears_makes_it_useless() {
    let (mut connection, mut theirs) = connected(64);
    assert!(connection.is_usable() && connection.is_usable());
    theirs.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
    assert!(!connection.is_usable());
}

#[tokio::test]
async fn bodies_of_every_kind_arrive_whole_through_a_narrow_pipe() {
    let piece = |byte: u8, size: usize| Bytes::from(vec![byte; size]);
    let stream = |pieces: Vec<Bytes>| Payload::Stream(Ready(pieces.into_iter()));
    let chunked = [
        b"3\r\naaa\r\n".to_vec(),
        [b"2328\r\n".to_vec(), vec![b'b'; 9_000], b"\r\n".to_vec()].concat(),
        b"1\r\nc\r\n0\r\n\r\n".to_vec(),
    ];
    for (payload, sent) in [
        (whole(""), Vec::new()),
        (whole("small"), b"small".to_vec()),
        (whole(vec![b'x'; 50_000]), vec![b'x'; 50_000]),
        (stream(vec![]), b"0\r\n\r\n".to_vec()),
        (stream(vec![piece(b'a', 3), Bytes::new(), piece(b'b', 9_000), piece(b'c', 1)]), chunked.concat()),
    ] {
        let (mut connection, mut theirs) = connected(7);
        start(&mut connection, payload);
        let origin = async {
            let mut request = Vec::new();
            while !(request.ends_with(&sent) && memchr::memmem::find(&request, b"\r\n\r\n").is_some()) {
                assert!(theirs.read_buf(&mut request).await.unwrap() > 0);
            }
            theirs.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            let end = memchr::memmem::find(&request, b"\r\n\r\n").unwrap() + 4;
            request.split_off(end)
        };
        let (answer, arrived) = tokio::join!(head(&mut connection), origin);
        assert_eq!(answer.unwrap().status(), 200);
        assert_eq!(arrived, sent);
        assert_eq!(body(&mut connection).await.unwrap(), (b"ok".to_vec(), 0));
        assert!(connection.uploaded() && connection.rest() && connection.is_usable());
    }
}

#[tokio::test]
async fn an_answer_that_comes_early_does_not_stop_the_upload_and_the_connection_is_not_kept() {
    let (mut connection, mut theirs) = connected(64);
    start(&mut connection, whole(vec![b'x'; 1_000]));
    let early = async {
        theirs.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    };
    let (answer, ()) = tokio::join!(head(&mut connection), early);
    assert_eq!(answer.unwrap().status(), 200);
    assert!(!connection.rest());
    let rest = async {
        let mut request = Vec::new();
        while !request.ends_with(&[b'x'; 1_000]) {
            assert!(theirs.read_buf(&mut request).await.unwrap() > 0);
        }
        theirs.write_all(b"2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n").await.unwrap();
    };
    let (answer, ()) = tokio::join!(body(&mut connection), rest);
    assert_eq!(answer.unwrap(), (b"ok".to_vec(), 1));
    assert!(connection.rest(), "both are whole now");
}

#[tokio::test]
async fn a_connection_that_waits_or_rests_holds_no_buffer() {
    let (mut connection, mut theirs) = connected(1 << 20);
    for size in [10, 3_000_000] {
        start(&mut connection, whole("body"));
        assert!(connection.poll_head(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(connection.held(), 0, "while it waits");
        let origin = async {
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n");
            theirs.write_all(answer.as_bytes()).await.unwrap();
            theirs.write_all(&vec![1; size]).await.unwrap();
        };
        let caller = async {
            head(&mut connection).await.unwrap();
            let mut passed = 0;
            while let Some(frame) = poll_fn(|cx| connection.poll_piece(cx)).await {
                passed += frame.unwrap().into_data().unwrap().len();
                assert!(connection.held() <= 256 * 1_024, "{} bytes", connection.held());
            }
            passed
        };
        assert_eq!(tokio::join!(caller, origin).0, size);
        assert!(connection.rest());
        assert_eq!(connection.held(), 0, "at rest");
    }
}

/// What a client makes of `answer`, which the origin closes after.
type Seen = Result<(u16, http::HeaderMap, Result<(Vec<u8>, usize), ()>), ()>;

async fn seen_by_hyper(answer: &[u8], method: &Method) -> Seen {
    let (ours, mut theirs) = duplex(1 << 20);
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_header_size(super::head::HEAD_BYTES)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(ours))
        .await
        .unwrap();
    let running = crate::tasks::Tasks::new().spawn_background(async move {
        let _ = connection.await;
    });
    let request = Request::builder().method(method).uri("/").body(Empty::new()).unwrap();
    let answering = async {
        let mut head = [0; 16];
        theirs.read_exact(&mut head).await.unwrap();
        theirs.write_all(answer).await.unwrap();
        drop(theirs);
    };
    let (response, ()) = tokio::join!(sender.send_request(request), answering);
    let (parts, body) = response.map_err(drop)?.into_parts();
    let body = body.collect().await.map_err(drop).map(|whole| {
        let trailers = whole.trailers().map_or(0, http::HeaderMap::len);
        (whole.to_bytes().to_vec(), trailers)
    });
    running.abort();
    Ok((parts.status.as_u16(), parts.headers, body))
}

async fn seen_by_us(answer: &[u8], method: &Method, cut: usize) -> Seen {
    let (mut connection, mut theirs) = connected(1 << 20);
    let mut message = Request::builder().method(method).uri("/").body(Payload::Empty).unwrap();
    connection.start(&mut message, &HeaderValue::from_static("h"));
    let answering = async {
        let mut head = [0; 16];
        theirs.read_exact(&mut head).await.unwrap();
        for piece in answer.chunks(cut) {
            theirs.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        drop(theirs);
    };
    let asking = async {
        let (parts, ()) = head(&mut connection).await.map_err(drop)?.into_parts();
        Ok((parts.status.as_u16(), parts.headers, body(&mut connection).await.map_err(drop)))
    };
    tokio::join!(asking, answering).0
}

/// Answers put together from what answers are made of, often wrong.
fn answers() -> impl Strategy<Value = Vec<u8>> {
    let line = prop::sample::select(vec![
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 204 No Content\r\n",
        "HTTP/1.1 404 Nowhere\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n",
        "HTTP/1.0 200 OK\r\n",
        "HTTP/1.2 200 OK\r\n",
    ]);
    let field = prop::sample::select(vec![
        "Content-Length: 5\r\n",
        "content-length: 05\r\n",
        "content-length: 6\r\n",
        "content-length: 5, 5\r\n",
        "content-length: -5\r\n",
        "transfer-encoding: chunked\r\n",
        "Transfer-Encoding: CHUNKED\r\n",
        "transfer-encoding: gzip\r\n",
        "connection: close\r\n",
        "x-a: 1\r\n",
        "x-a:\t2 \r\n",
        "x-folded: 1\r\n 2\r\n",
        "x-bad : 1\r\n",
        "x-lf: 1\n",
    ]);
    let body = prop::sample::select(vec![
        "",
        "hello",
        "hello world",
        "5\r\nhello\r\n0\r\n\r\n",
        "5;a=b\r\nhello\r\n0\r\nx-t: 1\r\n\r\nmore",
        "5\r\nhello\r\n3\r\n wo\r\n0\r\n\r\n",
        "005 \r\nhello\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhel",
        "\r\nhello\r\n0\r\n\r\n",
    ]);
    (
        line,
        prop::collection::vec(field, 0..4),
        body,
        prop::option::weighted(0.2, (any::<prop::sample::Index>(), any::<u8>())),
    )
        .prop_map(|(line, fields, body, damage)| {
            let mut bytes = format!("{line}{}\r\n{body}", fields.concat()).into_bytes();
            if let Some((at, byte)) = damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// hyper is the reference: what we take for an answer it takes for the same one. We refuse more, never less.
    #[test]
    fn an_answer_is_what_hyper_says_it_is_or_refused(
        answer in answers(),
        method in prop::sample::select(vec![Method::GET, Method::HEAD, Method::POST]),
        cut in 1_usize..60,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (ours, theirs) = runtime.block_on(async {
            (seen_by_us(&answer, &method, cut).await, seen_by_hyper(&answer, &method).await)
        });
        if let Ok((status, mut headers, body)) = ours {
            let mut theirs = theirs.expect("hyper refuses it");
            for headers in [&mut headers, &mut theirs.1] {
                // A length that is said twice we pass on once.
                if let Some(length) = headers.get("content-length").cloned() {
                    headers.insert("content-length", length);
                }
            }
            prop_assert_eq!((status, headers), (theirs.0, theirs.1));
            if body.is_ok() {
                prop_assert_eq!(body, theirs.2);
            }
        }
    }
}
