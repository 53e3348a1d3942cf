//! The guard against what is known to split proxies, and against hyper itself.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const LIMITS: HeadLimits = HeadLimits { bytes: 16 * 1024, count: 100 };

fn guard() -> Guard {
    Guard::new(LIMITS)
}

fn verdict(input: &[u8]) -> (u32, Option<Fault>) {
    let mut guard = guard();
    let fed = guard.feed(input);
    (guard.heads(), fed.fault)
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
    let chunked =
        |body: &str| format!("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}").into_bytes();
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
        (chunked("\r\nhello"), Fault::ChunkSize),
        (chunked("g\r\n"), Fault::ChunkSize),
        (chunked("5 \r\nhello"), Fault::ChunkSize),
        (chunked(" 5\r\nhello"), Fault::ChunkSize),
        (chunked("0x5\r\nhello"), Fault::ChunkSize),
        (chunked("-1\r\n"), Fault::ChunkSize),
        (chunked("5\nhello"), Fault::ChunkSize),
        (chunked("5\r\rhello"), Fault::ChunkSize),
        (chunked("10000000000000000\r\n"), Fault::ChunkSize),
        (chunked("ffffffffffffffff\r\n"), Fault::ChunkSize),
        (chunked("00000000000000005\r\nhello"), Fault::ChunkSize),
        (chunked("5\r\nhelloo"), Fault::ChunkEnd),
        (chunked("5\r\nhello\n0\r\n\r\n"), Fault::ChunkEnd),
        (chunked("5;a\nhello"), Fault::BareLf),
        (chunked(&format!("5;{}\r\nhello", "e".repeat(1_100))), Fault::ChunkExtension),
        (chunked(&format!("1;{0}\r\na\r\n1;{0}\r\nb\r\n", "e".repeat(600))), Fault::ChunkExtension),
        (chunked(&format!("0\r\nT: {}\r\n\r\n", "t".repeat(5_000))), Fault::Trailers),
        (chunked("0\r\n folded\r\n\r\n"), Fault::Folded),
        (chunked("0\r\nT : x\r\n\r\n"), Fault::FieldName),
        (chunked("0\r\n\rGET / HTTP/1.1\r\n"), Fault::BareCr),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(17_000)).into_bytes(), Fault::UriTooLong),
        (head(&format!("X: {}", "a".repeat(17_000))), Fault::HeadTooLarge),
        (head(&"X: a\r\n".repeat(100)), Fault::TooManyHeaders),
    ]
}

#[test]
fn what_is_clear_is_accepted() {
    for input in GOOD {
        assert_eq!(verdict(input.as_bytes()), (1, None), "{input:?}");
        let twice = format!("{input}{input}");
        let mut guard = guard();
        assert_eq!(guard.feed(twice.as_bytes()).fault, None, "{input:?} twice");
        assert_eq!((guard.heads(), guard.phase()), (2, Phase::Between), "{input:?} twice");
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    for (input, fault) in bad() {
        assert_eq!(verdict(&input).1, Some(fault), "{:?}", String::from_utf8_lossy(&input));
    }
}

#[test]
fn every_fault_of_the_guard_is_in_the_table() {
    let shown: Vec<Fault> = bad().into_iter().map(|(_, fault)| fault).collect();
    for fault in Fault::ALL {
        // These are found by others: the driver, hyper, and the workers.
        let elsewhere = matches!(fault, Fault::Late | Fault::Unreadable | Fault::NotTls | Fault::TooManyConnections);
        assert_eq!(shown.contains(fault), !elsewhere, "{fault:?}");
    }
}

#[test]
fn a_faulty_head_is_withheld_and_what_came_before_is_not() {
    let good = GOOD[4];
    let input = format!("{good}GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    let mut guard = guard();
    let fed = guard.feed(input.as_bytes());
    assert_eq!(fed, Fed { passed: good.len(), fault: Some(Fault::TwoHosts) });
    assert_eq!(guard.feed(b"more").passed, 0, "nothing passes after a fault");
}

#[test]
fn the_largest_head_allowed_is_accepted_and_one_byte_more_is_not() {
    for (excess, fault) in [(0, None), (1, Some(Fault::HeadTooLarge))] {
        let frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n";
        let input = frame.replace("X: ", &format!("X: {}", "a".repeat(16 * 1024 - frame.len() + excess)));
        assert_eq!(verdict(input.as_bytes()).1, fault);
        // Its body does not count.
        assert_eq!(verdict(format!("{}{input}", GOOD[6]).as_bytes()).1, fault);
    }
}

#[test]
fn phases_follow_the_input() {
    let mut guard = guard();
    assert_eq!(guard.phase(), Phase::Between);
    guard.feed(b"\r\n");
    assert_eq!(guard.phase(), Phase::Between, "an empty line is not a request");
    guard.feed(b"P");
    assert_eq!(guard.phase(), Phase::Head);
    guard.feed(b"OST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r");
    assert_eq!(guard.phase(), Phase::Head);
    guard.feed(b"\n");
    assert_eq!(guard.phase(), Phase::Body);
    guard.feed(b"abc");
    assert_eq!(guard.phase(), Phase::Between);
}

/// How many requests hyper finds in `input`.
async fn hyper_counts(input: Vec<u8>) -> u32 {
    let count = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&count);
    let (mut near, far) = tokio::io::duplex(1024);
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let counted = Arc::clone(&counted);
        async move {
            if request.into_body().collect().await.is_ok() {
                counted.fetch_add(1, Ordering::Relaxed);
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
    count.load(Ordering::Relaxed)
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

proptest! {
    #[test]
    fn cutting_the_input_never_changes_the_verdict(
        input in inputs(),
        cuts in prop::collection::vec(1_usize..40, 1..30),
    ) {
        let mut whole = guard();
        let fed = whole.feed(&input);
        let mut cut = guard();
        let mut rest = input.as_slice();
        let mut passed = 0;
        let mut fault = None;
        let mut sizes = cuts.iter().cycle();
        while !rest.is_empty() && fault.is_none() {
            let (piece, later) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
            let fed = cut.feed(piece);
            passed += fed.passed;
            fault = fed.fault;
            rest = later;
        }
        prop_assert_eq!(fault, fed.fault);
        prop_assert_eq!(cut.heads(), whole.heads());
        prop_assert_eq!(cut.phase(), whole.phase());
        prop_assert!(passed >= fed.passed);
    }

    #[test]
    fn hyper_finds_the_same_requests_in_what_is_accepted(input in inputs()) {
        let mut guard = guard();
        let fed = guard.feed(&input);
        let passed = input[..fed.passed].to_vec();
        let contains = |text: &[u8]| passed.windows(text.len()).any(|window| window == text);
        // A body that is not complete is not a request to hyper, and HTTP/1.0 and CONNECT end a connection, also for
        // those behind them.
        if guard.phase() == Phase::Body || contains(b"HTTP/1.0") || contains(b"CONNECT") {
            return Ok(());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        prop_assert_eq!(runtime.block_on(hyper_counts(passed)), guard.heads());
    }
}
