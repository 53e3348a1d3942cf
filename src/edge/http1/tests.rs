//! The reader against what is known to split proxies, and against hyper as a reference.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::clock::Clock;
use crate::edge::drain::Drain;
use crate::edge::fault::Fault;
use crate::edge::limits::{Edge, Limits};
use crate::http1::{Decoder, Rules, Shapes, Step};
use crate::tasks::Tasks;

const LIMITS: HeadLimits = HeadLimits { bytes: 16 * 1024, count: 100 };

/// A request that was read to its end.
type Seen = (Method, Uri, HeaderMap, Vec<u8>);

/// What stands behind the last whole request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nothing, or the beginning of a head.
    Head,
    /// A part of a body.
    Body,
    /// Something that is no head.
    Fault(Fault),
    /// Something that is no body.
    Broken,
}

/// The requests in `pieces`, what stands behind them, and how many bytes they are.
fn follow<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Seen>, End, usize) {
    follow_knowing(&mut Shapes::default(), pieces)
}

fn follow_knowing<'a>(shapes: &mut Shapes, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Seen>, End, usize) {
    let (mut seen, mut buffer, mut came, mut used) = (Vec::new(), BytesMut::new(), 0, 0);
    let mut open: Option<(Seen, Decoder)> = None;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        came += piece.len();
        loop {
            let Some((request, decoder)) = &mut open else {
                match read(&mut buffer, LIMITS, shapes) {
                    Err(fault) => return (seen, End::Fault(fault), used),
                    Ok(None) => break,
                    Ok(Some(head)) => {
                        let parts = head.parts;
                        let request = (parts.method, parts.uri, parts.headers, Vec::new());
                        open = Some((request, Decoder::new(head.framing, Rules::REQUESTS)));
                    }
                }
                continue;
            };
            match decoder.decode(&mut buffer) {
                Err(_) => return (seen, End::Broken, used),
                Ok(Step::More) => break,
                Ok(Step::Data(data)) => request.3.extend_from_slice(&data),
                Ok(Step::Trailers(_)) => {}
                Ok(Step::End) => {
                    seen.extend(open.take().map(|(request, _)| request));
                    used = came - buffer.len();
                }
            }
        }
    }
    (seen, if open.is_some() { End::Body } else { End::Head }, used)
}

fn verdict(input: &[u8]) -> (usize, End) {
    let (seen, end, _) = follow([input]);
    (seen.len(), end)
}

const GOOD: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET //services/data/v62.0/limits/ HTTP/1.1\r\nHost: a.internal:8080\r\nAccept: */*\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /x HTTP/1.1\r\nhost:a\r\nCONTENT-LENGTH:  5 \t\r\n\r\nhello",
    "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n00a;name=\"value\"\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n",
    "GET http://a/x?y HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET https://a:443?y HTTP/1.1\r\nHost: a\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT a.internal:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /q?q=SELECT+Id+FROM+Account+WHERE+Name='x%27'&x={} HTTP/1.1\r\nHost: [::1]:80\r\nX: caf\u{e9}\r\n\r\n",
    "PATCH /x HTTP/1.1\r\nHost: a\r\nEmpty:\r\nX-Content-Length: 9\r\nContent-Lengthy: 9\r\n\r\n",
];

/// Each line: the input, and what is wrong with it.
fn bad() -> Vec<(Vec<u8>, Fault)> {
    let head = |fields: &str| format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n").into_bytes();
    let raw = |text: &str| text.as_bytes().to_vec();
    vec![
        (head("Content-Length: 5\r\nTransfer-Encoding: chunked"), Fault::LengthAndCoding),
        (head("Transfer-Encoding: chunked\r\nContent-Length: 5"), Fault::LengthAndCoding),
        (head("tRANSFER-eNCODING: chunked\r\ncONTENT-lENGTH: 5"), Fault::LengthAndCoding),
        (head("Content-Length: 5\r\nContent-Length: 5"), Fault::TwoLengths),
        (head("Content-Length: 5\r\nContent-Length: 6"), Fault::TwoLengths),
        (head("Content-Length: 5, 5"), Fault::Length),
        (head("Content-Length: 5 5"), Fault::Length),
        (head("Content-Length: +5"), Fault::Length),
        (head("Content-Length: -5"), Fault::Length),
        (head("Content-Length: 0x5"), Fault::Length),
        (head("Content-Length:"), Fault::Length),
        (head("Content-Length: \t "), Fault::Length),
        (head("Content-Length: 9223372036854775808"), Fault::Length),
        (head("Content-Length: 99999999999999999999999"), Fault::Length),
        (head("Content-Length : 5"), Fault::FieldName),
        (head("Transfer-Encoding : chunked"), Fault::FieldName),
        (head("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), Fault::Coding),
        (head("Transfer-Encoding: gzip, chunked"), Fault::Coding),
        (head("Transfer-Encoding: chunked, identity"), Fault::Coding),
        (head("Transfer-Encoding: xchunked"), Fault::Coding),
        (head("Transfer-Encoding: chunkedx"), Fault::Coding),
        (head("Transfer-Encoding: chunked;q=1"), Fault::Coding),
        (head("Transfer-Encoding:"), Fault::Coding),
        (head("Transfer-Encoding: identity"), Fault::Coding),
        (head("Transfer-Encoding: \u{b}chunked"), Fault::Coding),
        (raw("POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"), Fault::Coding),
        (head("X: a\r\n b"), Fault::Folded),
        (head("X: a\r\n\tTransfer-Encoding: chunked"), Fault::Folded),
        (raw("GET / HTTP/1.1\r\n Host: a\r\n\r\n"), Fault::Folded),
        (head("X: a\nTransfer-Encoding: chunked"), Fault::BareLf),
        (head("X: a\rTransfer-Encoding: chunked"), Fault::BareCr),
        (head("X\nY: a"), Fault::BareLf),
        (raw("GET / HTTP/1.1\nHost: a\n\n"), Fault::BareLf),
        (raw("GET / HTTP/1.1\r\nHost: a\n\r\n"), Fault::BareLf),
        (raw("GET / HTTP/1.1\r\nHost: a\r\n\n"), Fault::BareLf),
        (head("X: a\0b"), Fault::FieldValue),
        (head("X\0: a"), Fault::FieldName),
        (head("X: \u{7f}"), Fault::FieldValue),
        (head("X: \u{1b}[31m"), Fault::FieldValue),
        (head(": a"), Fault::FieldName),
        (head("no colon"), Fault::FieldName),
        (head("Caf\u{e9}: a"), Fault::FieldName),
        (raw("GET / HTTP/1.1\r\n\r\n"), Fault::NoHost),
        (head("Host: b"), Fault::TwoHosts),
        (head("host: a"), Fault::TwoHosts),
        (raw("GET / HTTP/1.1\r\nHost:\r\n\r\n"), Fault::Host),
        (raw("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), Fault::Host),
        (raw("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"), Fault::Host),
        (raw("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"), Fault::Host),
        (raw("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"), Fault::Host),
        (raw("GET /\r\n\r\n"), Fault::Target),
        (raw("GET  / HTTP/1.1\r\nHost: a\r\n\r\n"), Fault::Target),
        (raw("GET /  HTTP/1.1\r\nHost: a\r\n\r\n"), Fault::Version),
        (raw("GET / HTTP/1.1 \r\nHost: a\r\n\r\n"), Fault::Version),
        (raw("GET / HTTP/1.2\r\nHost: a\r\n\r\n"), Fault::Version),
        (raw("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), Fault::Version),
        (raw("GET / http/1.1\r\nHost: a\r\n\r\n"), Fault::Version),
        (raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Fault::Version),
        (raw("GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n"), Fault::Target),
        (raw("GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n"), Fault::Target),
        (raw("GET /caf\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n"), Fault::Target),
        (raw("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"), Fault::Target),
        (raw("GET ?a HTTP/1.1\r\nHost: a\r\n\r\n"), Fault::Target),
        (raw("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"), Fault::Target),
        (raw("GET http:/a/ HTTP/1.1\r\nHost: a\r\n\r\n"), Fault::Target),
        (raw("GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n"), Fault::Target),
        (raw("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n"), Fault::Target),
        (raw("GET http://[::1/ HTTP/1.1\r\nHost: a\r\n\r\n"), Fault::Target),
        (raw("G\u{e9}T / HTTP/1.1\r\nHost: a\r\n\r\n"), Fault::RequestLine),
        (raw("AVERYLONGMETHODTHATNOBODYKNOWS / HTTP/1.1\r\n"), Fault::RequestLine),
        (raw("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), Fault::RequestLine),
        (vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01], Fault::RequestLine),
        (vec![0xff; 40], Fault::RequestLine),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(17_000)).into_bytes(), Fault::UriTooLong),
        (head(&format!("X: {}", "a".repeat(17_000))), Fault::HeadTooLarge),
        (head(&"X: a\r\n".repeat(100)), Fault::TooManyHeaders),
    ]
}

/// Chunks that are none.
fn bad_chunks() -> Vec<Vec<u8>> {
    let bodies = [
        "\r\nhello".to_owned(),
        "g\r\n".to_owned(),
        "5 \r\nhello".to_owned(),
        " 5\r\nhello".to_owned(),
        "0x5\r\nhello".to_owned(),
        "-1\r\n".to_owned(),
        "5\nhello".to_owned(),
        "5\r\rhello".to_owned(),
        "10000000000000000\r\n".to_owned(),
        "ffffffffffffffff\r\n".to_owned(),
        "00000000000000005\r\nhello".to_owned(),
        "5\r\nhelloo".to_owned(),
        "5\r\nhello\n0\r\n\r\n".to_owned(),
        "5;a\nhello".to_owned(),
        format!("5;{}\r\nhello", "e".repeat(1_100)),
        format!("1;{0}\r\na\r\n1;{0}\r\nb\r\n", "e".repeat(600)),
        format!("0\r\nT: {}\r\n\r\n", "t".repeat(5_000)),
        "0\r\n folded\r\n\r\n".to_owned(),
        "0\r\nT : x\r\n\r\n".to_owned(),
        "0\r\n\rGET / HTTP/1.1\r\n".to_owned(),
    ];
    let head = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    bodies.iter().map(|body| format!("{head}{body}\n").into_bytes()).collect()
}

#[test]
fn what_is_clear_is_accepted() {
    for input in GOOD {
        assert_eq!(verdict(input.as_bytes()), (1, End::Head), "{input:?}");
        assert_eq!(verdict(format!("{input}{input}").as_bytes()), (2, End::Head), "{input:?} twice");
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    for (input, fault) in bad() {
        assert_eq!(verdict(&input), (0, End::Fault(fault)), "{:?}", String::from_utf8_lossy(&input));
    }
    for input in bad_chunks() {
        assert_eq!(verdict(&input), (0, End::Broken), "{:?}", String::from_utf8_lossy(&input));
    }
}

#[test]
fn a_known_shape_forgives_nothing() {
    let known = |names: &[&str]| {
        let mut shapes = Shapes::default();
        shapes.learn(names.iter().map(|name| name.as_bytes()), 0);
        shapes
    };
    for (input, fault) in bad() {
        for names in [&["Host"][..], &["Host", "X"], &["Host", "Content-Length"], &["Host", "Transfer-Encoding"], &[]] {
            assert_eq!(follow_knowing(&mut known(names), [&input[..]]).1, End::Fault(fault), "{names:?}");
        }
    }
}

#[test]
fn every_fault_is_in_the_table() {
    let shown: Vec<Fault> = bad().into_iter().map(|(_, fault)| fault).collect();
    for fault in Fault::ALL {
        // These are found by others: the driver and the workers.
        let elsewhere = matches!(fault, Fault::Late | Fault::NotTls | Fault::TooManyConnections);
        assert_eq!(shown.contains(fault), !elsewhere, "{fault:?}");
    }
}

#[test]
fn a_line_break_is_no_blank_and_a_value_has_neither_at_its_ends() {
    for value in ["a\n", "\na", "a\u{c}", "\u{b}a"] {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {value}\r\n\r\n");
        assert!(matches!(verdict(head.as_bytes()), (0, End::Fault(Fault::BareLf | Fault::FieldValue))), "{value:?}");
    }
    let (seen, _, _) = follow([&b"GET / HTTP/1.1\r\nHost:a \t\r\nX:\t b  c \r\nEmpty: \r\n\r\n"[..]]);
    let headers = &seen[0].2;
    assert_eq!(
        (&headers["host"], &headers["x"], &headers["empty"]),
        (&"a".parse().unwrap(), &"b  c".parse().unwrap(), &"".parse().unwrap())
    );
}

#[test]
fn what_is_not_yet_a_head_is_faulty_as_soon_as_it_shows() {
    for (input, fault) in [
        (&b"\x16\x03"[..], Fault::RequestLine),
        (b"GET /a b", Fault::Version),
        (b"GET / HTTP/1.1\r\nHost: a\n", Fault::BareLf),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \0", Fault::FieldValue),
        (b"GET / HTTP/1.1\r\nno colon", Fault::FieldName),
        (b"GET / HTTP/1.1\r\n ", Fault::Folded),
    ] {
        assert_eq!(verdict(input), (0, End::Fault(fault)), "{:?}", String::from_utf8_lossy(input));
    }
}

#[test]
fn a_head_says_whether_its_connection_is_kept_and_its_caller_waits() {
    let say = |version: &str, fields: &str| {
        let mut buffer = BytesMut::from(format!("POST / HTTP/{version}\r\nHost: a\r\n{fields}\r\n").as_bytes());
        let head = read(&mut buffer, LIMITS, &mut Shapes::default()).unwrap().unwrap();
        (head.keep_alive, head.expects)
    };
    assert_eq!(say("1.1", ""), (true, false));
    assert_eq!(say("1.1", "Connection: x, Close\r\nConnection: keep-alive\r\n"), (false, false));
    assert_eq!(say("1.1", "Expect: 100-Continue\r\n"), (true, true));
    assert_eq!(say("1.0", "Expect: 100-continue\r\n"), (false, false));
    assert_eq!(say("1.0", "Connection: Keep-Alive\r\n"), (true, false));
}

#[test]
fn a_head_that_came_whole_is_not_copied() {
    let mut buffer = BytesMut::from(&b"GET /x HTTP/1.1\r\nHost: a\r\nX: value\r\n\r\nnext"[..]);
    let memory = buffer.as_ptr_range();
    let head = read(&mut buffer, LIMITS, &mut Shapes::default()).unwrap().unwrap();
    assert!(memory.contains(&head.parts.headers["x"].as_bytes().as_ptr()));
    assert_eq!(&buffer[..], b"next");
}

#[test]
fn the_largest_head_allowed_is_accepted_and_one_byte_more_is_not() {
    for (excess, expected) in [(0, (1, End::Head)), (1, (0, End::Fault(Fault::HeadTooLarge)))] {
        let frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n";
        let input = frame.replace("X: ", &format!("X: {}", "a".repeat(16 * 1024 - frame.len() + excess)));
        assert_eq!(verdict(input.as_bytes()), expected);
        // The body before it does not count.
        let (heads, end) = verdict(format!("{}{input}", GOOD[6]).as_bytes());
        assert_eq!((heads - 1, end), expected);
    }
}

/// The requests hyper finds in `input`.
async fn hypers(input: Vec<u8>) -> Vec<Seen> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let (mut near, far) = tokio::io::duplex(1024);
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let noted = Arc::clone(&noted);
        async move {
            let (head, body) = request.into_parts();
            if let Ok(body) = body.collect().await {
                noted.lock().push((head.method, head.uri, head.headers, body.to_bytes().to_vec()));
            }
            Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::new())))
        }
    });
    let serving =
        hyper::server::conn::http1::Builder::new().half_close(true).serve_connection(TokioIo::new(far), service);
    let talking = async move {
        let (mut read, mut write) = tokio::io::split(&mut near);
        let sending = async {
            let _ = write.write_all(&input).await;
            let _ = write.shutdown().await;
        };
        let mut answers = Vec::new();
        let _ = tokio::join!(sending, read.read_to_end(&mut answers));
        answers
    };
    let (_, answers) = tokio::join!(serving, talking);
    assert!(!answers.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answers));
    std::mem::take(&mut *seen.lock())
}

fn inputs() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop_oneof![
        (0..GOOD.len()).prop_map(|at| GOOD[at].as_bytes().to_vec()),
        (0..bad().len()).prop_map(|at| bad().swap_remove(at).0),
    ];
    let mutation = prop_oneof![
        3 => Just(None),
        1 => (any::<prop::sample::Index>(), prop_oneof![
            any::<u8>(),
            prop::sample::select(b"\r\n :\t;,0\0\x7f/?*[".to_vec()),
        ]).prop_map(Some),
    ];
    (prop::collection::vec(pieces, 1..4), mutation).prop_map(|(pieces, mutation)| {
        let mut input = pieces.concat();
        if let Some((at, byte)) = mutation {
            let at = at.index(input.len());
            input[at] = byte;
        }
        input
    })
}

fn cut<'a>(input: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let (mut pieces, mut rest) = (Vec::new(), input);
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, later) = rest.split_at(rest.len().min(*size));
        pieces.push(piece);
        rest = later;
    }
    pieces
}

/// A connection, and its other end.
fn connection() -> (DuplexStream, Conn<DuplexStream>) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (tasks, clock, drain) = (Tasks::new(), Clock::start(), Drain::new());
    let edge = Edge::new(Limits::default(), tasks, clock, drain, Arc::default());
    (near, Conn::new(far, Arc::new(edge), true))
}

async fn next(conn: &mut Conn<DuplexStream>) -> Next {
    let mut timer = pin!(tokio::time::sleep(Duration::from_secs(10)));
    let drain = Drain::new();
    let mut drained = pin!(drain.listen());
    poll_fn(|cx| conn.poll_next(cx, timer.as_mut(), drained.as_mut())).await
}

async fn head(conn: &mut Conn<DuplexStream>) -> Head {
    match next(conn).await {
        Next::Head(head) => head,
        _ => panic!("no head"),
    }
}

/// Answers with `text`, and reads the whole body before.
async fn answer(conn: &mut Conn<DuplexStream>, head: Head, text: &'static str) -> Vec<u8> {
    let mut timer = pin!(tokio::time::sleep(Duration::from_secs(10)));
    let body = conn.body(head.framing, head.keep_alive, head.expects);
    let mut road = pin!(body.collect());
    let body = poll_fn(|cx| conn.poll_answer(cx, road.as_mut(), timer.as_mut())).await;
    let response = http::Response::new(Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}));
    conn.begin(&response, None, Asked::new(&head.parts.method, head.parts.version));
    let mut answer = pin!(Some(response.into_body()));
    assert_eq!(poll_fn(|cx| conn.poll_send(cx, answer.as_mut(), timer.as_mut())).await, Sent::Whole);
    body.expect("the caller stays").expect("whole").to_bytes().to_vec()
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_holds_no_buffer() {
    let (mut near, mut conn) = connection();
    for size in [3, 7_000, 600_000] {
        let body = vec![b'x'; size];
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n");
        near.write_all(&[request.as_bytes(), &body].concat()).await.unwrap();
        let head = head(&mut conn).await;
        assert!(answer(&mut conn, head, "ok").await == body);
        assert!(tokio::time::timeout(Duration::from_secs(1), next(&mut conn)).await.is_err(), "nothing comes");
        assert_eq!(conn.held(), 0, "after {size} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_read_as_it_is_asked_for() {
    let (mut near, mut conn) = connection();
    let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
    near.write_all(&[request.as_bytes(), &vec![b'x'; 500_000]].concat()).await.unwrap();
    let head = head(&mut conn).await;
    let mut body = conn.body(head.framing, head.keep_alive, head.expects);
    let mut timer = pin!(tokio::time::sleep(Duration::from_secs(10)));
    let mut idle = pin!(tokio::time::timeout(Duration::from_secs(1), std::future::pending::<()>()));
    let unread = poll_fn(|cx| conn.poll_answer(cx, idle.as_mut(), timer.as_mut())).await;
    assert!(matches!(unread, Some(Err(_))));
    assert!(conn.held() <= 2 * BUFFER, "{} bytes held for a body nobody reads", conn.held());
    let mut largest = 0;
    let mut reading = pin!(async {
        let mut sum = 0;
        while sum < 500_000 {
            let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            sum += piece.len();
            largest = largest.max(piece.len());
        }
        sum
    });
    let read = poll_fn(|cx| conn.poll_answer(cx, reading.as_mut(), timer.as_mut())).await;
    assert_eq!(read, Some(500_000));
    assert!(largest <= 256 * 1024, "{largest}");
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_ahead_is_kept_within_a_bound() {
    let (mut near, mut conn) = connection();
    near.write_all(GOOD[0].repeat(10_000).as_bytes()).await.unwrap();
    for _ in 0..10_000 {
        let head = head(&mut conn).await;
        let mut timer = pin!(tokio::time::sleep(Duration::from_secs(10)));
        let mut road = pin!(tokio::task::yield_now());
        assert!(poll_fn(|cx| conn.poll_answer(cx, road.as_mut(), timer.as_mut())).await.is_some());
        assert!(conn.held() <= 4 * BUFFER, "{}", conn.held());
        answer(&mut conn, head, "ok").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_is_told_to_send_its_body_only_if_it_waits_for_that() {
    for (sent, told) in [("", true), ("yes", false)] {
        let (mut near, mut conn) = connection();
        let request = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
        near.write_all(format!("{request}{sent}").as_bytes()).await.unwrap();
        let head = head(&mut conn).await;
        let answering = answer(&mut conn, head, "ok");
        let asking = async {
            let mut seen = vec![0; 25];
            near.read_exact(&mut seen).await.unwrap();
            if told {
                near.write_all(b"yes").await.unwrap();
            }
            String::from_utf8(seen).unwrap()
        };
        let (body, seen) = tokio::join!(answering, asking);
        assert_eq!((body, seen.contains("100 Continue")), (b"yes".to_vec(), told));
    }
}

proptest! {
    #[test]
    fn cutting_the_input_never_changes_the_verdict(
        input in inputs(),
        cuts in prop::collection::vec(1_usize..40, 1..30),
    ) {
        let mut shapes = Shapes::default();
        let whole = follow_knowing(&mut shapes, [&input[..]]);
        // The shapes of its heads may be known now.
        prop_assert_eq!(&follow_knowing(&mut shapes, [&input[..]]), &whole);
        prop_assert_eq!(&follow_knowing(&mut shapes, cut(&input, &cuts)), &whole);
    }

    #[test]
    fn hyper_finds_the_same_requests_in_what_is_accepted(input in inputs()) {
        let (seen, _, used) = follow([&input[..]]);
        let whole = input[..used].to_vec();
        let contains = |text: &[u8]| whole.windows(text.len()).any(|window| window == text);
        // HTTP/1.0 and CONNECT end a connection, also for those behind them.
        if contains(b"HTTP/1.0") || contains(b"CONNECT") {
            return Ok(());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        prop_assert_eq!(runtime.block_on(hypers(whole)), seen);
    }
}
