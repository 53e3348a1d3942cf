//! Promise: no caller can make the gateway hold more, wait longer or forward less than it may.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncWriteExt as _, DuplexStream};
use tokio::time::Instant;
use weirkeeper::refusal::Reason;

use crate::client::{Answer as _, absolute, ask, head, read_all, read_until, token};
use crate::world::World;

const ECHO: &str = "/services/apexrest/echo";

/// Checks that `text` is one answer with this status and reason, in the form of REST, after which the connection closes.
#[track_caller]
fn refused(text: &str, status: u16, reason: Reason) {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
    assert!(head.contains(&format!("weirkeeper-refused: {reason}\r\n")), "{text}");
    assert!(head.to_ascii_lowercase().contains("connection: close"), "{text}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {text}"));
    assert_eq!(body[0]["errorCode"], reason.error_code());
}

/// The head of an upload of `length` bytes; chunked if it is not announced.
fn upload(length: Option<usize>) -> String {
    match length {
        Some(length) => head("POST", ECHO, &format!("content-length: {length}\r\n")),
        None => head("POST", ECHO, "transfer-encoding: chunked\r\n"),
    }
}

/// One chunk of `length` bytes.
fn chunk(length: usize) -> Vec<u8> {
    [format!("{length:x}\r\n").as_bytes(), &vec![b'x'; length], b"\r\n"].concat()
}

/// What comes after the length in an answer of [`ECHO`].
const LAST: &str = "\"body\":";

/// The next answer of [`ECHO`]: how many bytes Salesforce says it got.
async fn echo(stream: &mut DuplexStream) -> Option<usize> {
    echoed(&read_until(stream, LAST).await)
}

fn echoed(text: &str) -> Option<usize> {
    let (_, rest) = text.split_once("\"bytes\":")?;
    rest.split([',', '}']).next()?.parse().ok()
}

#[tokio::test(start_paused = true)]
async fn a_body_over_the_limit_is_refused_announced_or_not() {
    let world = World::new("limits: {body_bytes: 256KiB, stream_above: 64KiB}");
    // Announced: not a byte is waited for.
    refused(&ask(world.raw(), upload(Some(256 * 1024 + 1))).await, 413, Reason::BodyTooLarge);
    assert!(world.sim.requests().is_empty());
    // Not announced, and already on its way to Salesforce: it is cut there.
    let sent = [upload(None).into_bytes(), chunk(64 * 1024).repeat(5)].concat();
    refused(&ask(world.raw(), sent).await, 413, Reason::BodyTooLarge);
    world.settle().await;
    let seen = world.sim.requests();
    assert_eq!((seen.len(), seen[0].status), (1, Some(0)), "never complete");
    let mut client = world.client();
    let most = client.send("POST", ECHO, &[], vec![b'x'; 256 * 1024]).await;
    assert_eq!(most.json()["bytes"], 256 * 1024);
    // Read whole, because what it asks for stands in it.
    let long = [head("POST", "composite", "transfer-encoding: chunked\r\n").into_bytes(), chunk(64 * 1024).repeat(5)];
    refused(&ask(world.raw(), long.concat()).await, 413, Reason::BodyTooLarge);
    assert_eq!(world.sim.requests().len(), 2);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_inflates_over_the_limit_is_refused() {
    let world = World::new("limits: {body_bytes: 64KiB, stream_above: 64KiB}");
    let bomb = crate::client::gzip(&vec![b' '; 10 << 20]);
    let coded = [("content-encoding", "gzip")];
    let answer = world.client().send("POST", "composite", &coded, bomb).await;
    answer.is_refusal(413, "body_too_large", "OPERATION_TOO_LARGE");
    assert!(world.sim.requests().is_empty());
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_upload_is_ended_and_never_looks_complete() {
    let world = World::new("limits: {minimum_rate: 1KiB, minimum_rate_grace: 10s, stream_above: 64KiB}");
    for (length, first) in [(Some(1_000), 10), (None, 0), (Some(100_000), 70_000), (None, 70_000)] {
        let started = Instant::now();
        let mut stream = world.raw();
        let body = if length.is_some() { vec![b'x'; first] } else { chunk(first.max(1)) };
        stream.write_all(upload(length).as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        refused(&read_all(&mut stream).await, 408, Reason::BodyTooSlow);
        let took = started.elapsed();
        assert!((10..=80).contains(&took.as_secs()), "{took:?}");
    }
    world.settle().await;
    let seen = world.sim.requests();
    assert!(seen.iter().all(|request| request.status == Some(0)), "{seen:?}");
    assert_eq!(seen.len(), 2, "only the long ones were passed on as they came");
    // Slow, but not too slow.
    let mut stream = world.raw();
    stream.write_all(upload(Some(20 * 1024)).as_bytes()).await.unwrap();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(900)).await;
        stream.write_all(&[b'x'; 1024]).await.unwrap();
    }
    assert_eq!(echo(&mut stream).await, Some(20 * 1024));
    drop(stream);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn buffered_bytes_have_one_bound() {
    let world = World::new("limits: {buffered_bytes_total: 1MiB, stream_above: 512KiB, minimum_rate: 1B}");
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = world.raw();
        stream.write_all(upload(Some(400_000)).as_bytes()).await.unwrap();
        stream.write_all(&vec![b'x'; 399_999]).await.unwrap();
        held.push(stream);
    }
    world.settle().await;
    assert!(world.buffers.used() >= 799_998, "{}", world.buffers.used());
    let mut client = world.client();
    let full = client.send("POST", ECHO, &[], vec![b'x'; 400_000]).await;
    full.is_refusal(503, "buffers_full", "SERVER_UNAVAILABLE");
    assert_eq!(full.header("retry-after"), "2");
    assert_eq!(client.get("recent").await.code(), 200, "what needs no room goes on");
    for mut stream in held {
        stream.write_all(b"x").await.unwrap();
        assert_eq!(echo(&mut stream).await, Some(400_000));
    }
    assert_eq!(client.send("POST", ECHO, &[], vec![b'x'; 400_000]).await.json()["bytes"], 400_000);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn many_slow_uploads_stay_within_the_bound() {
    const BOUND: usize = 8 << 20;
    const LENGTH: usize = 1 << 20;
    let world = World::new("limits: {buffered_bytes_total: 8MiB, stream_above: 1MiB}");
    let mut uploads = Vec::new();
    for number in 0..40 {
        let mut stream = world.raw();
        let announced = (number % 2 == 0).then_some(LENGTH);
        stream.write_all(upload(announced).as_bytes()).await.unwrap();
        uploads.push((stream, announced.is_some(), true));
    }
    let mut most = 0;
    for _ in 0..32 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        for (stream, announced, open) in &mut uploads {
            let piece = if *announced { vec![b'x'; LENGTH / 32] } else { chunk(LENGTH / 32) };
            // A connection that was refused is closed: writing to it fails at some point.
            *open = *open && stream.write_all(&piece).await.is_ok();
            most = most.max(world.buffers.used());
        }
    }
    assert!(most <= BOUND && most > BOUND / 2, "{most}");
    let (mut whole, mut turned_away) = (0, 0);
    for (mut stream, announced, open) in uploads {
        if open && !announced {
            let _closed = stream.write_all(b"0\r\n\r\n").await;
        }
        let text = read_until(&mut stream, LAST).await;
        match echoed(&text) {
            Some(length) => {
                assert_eq!(length, LENGTH);
                whole += 1;
            }
            None => {
                assert!(text.is_empty() || text.contains("weirkeeper-refused: buffers_full"), "{text}");
                turned_away += 1;
            }
        }
    }
    assert!(whole >= 3 && turned_away > 0, "{whole} whole, {turned_away} turned away");
    assert_eq!(world.sim.requests().len(), whole, "only complete requests were sent");
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn short_uploads_are_forwarded_whole_and_long_ones_as_they_come() {
    let world = World::new("limits: {stream_above: 64KiB}");
    let lengths = |world: &World| {
        let seen = world.sim.requests().pop().unwrap();
        let header =
            |name: &str| seen.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.clone());
        (header("content-length"), header("transfer-encoding"))
    };
    for (pieces, each, announced) in [(3, 10_000, false), (1, 64 * 1024, true), (3, 60_000, false), (3, 60_000, true)] {
        let total = pieces * each;
        let mut stream = world.raw();
        let before = world.sim.requests().len();
        stream.write_all(upload(announced.then_some(total)).as_bytes()).await.unwrap();
        for piece in 0..pieces {
            let early = world.sim.requests().len() > before;
            assert!(!early || total > 64 * 1024, "sent before it was complete");
            assert!(early || piece * each <= 64 * 1024, "not sent though too long to be held");
            stream.write_all(&if announced { vec![b'x'; each] } else { chunk(each) }).await.unwrap();
            world.settle().await;
        }
        if !announced {
            stream.write_all(b"0\r\n\r\n").await.unwrap();
        }
        assert_eq!(echo(&mut stream).await, Some(total));
        let expected = if announced || total <= 64 * 1024 {
            (Some(total.to_string()), None)
        } else {
            (None, Some("chunked".to_owned()))
        };
        assert_eq!(lengths(&world), expected);
        assert_eq!(world.last_line().await["bytes_in"], total);
    }
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_breaks_off_never_looks_complete() {
    let world = World::new("limits: {stream_above: 64KiB}");
    let mut client = world.client();
    let job = client.post("jobs/ingest", &json!({"object": "Lead", "operation": "insert"})).await.json();
    let target = format!("jobs/ingest/{}/batches", job["id"].as_str().unwrap());
    let rows = "LastName,Company\n".to_owned() + &"A,B\n".repeat(50_000);
    let chunked = head("PUT", &target, "transfer-encoding: chunked\r\n");
    let announced = head("PUT", &target, &format!("content-length: {}\r\n", rows.len()));
    let piece = [format!("{:x}\r\n", rows.len()).as_bytes(), rows.as_bytes(), b"\r\n"].concat();
    for (head, sent) in [
        (&announced, &rows.as_bytes()[..100_000]),
        (&announced, &rows.as_bytes()[..rows.len() - 1]),
        (&announced, &rows.as_bytes()[..10]),
        (&chunked, &piece[..100_000]),
        (&chunked, &piece[..]),
        (&chunked, &[&piece[..], b"ZZ\r\n"].concat()[..]),
        (&chunked, &[&piece[..], b"0\r\n"].concat()[..]),
    ] {
        for leaves in [true, false] {
            let mut stream = world.raw();
            stream.write_all(head.as_bytes()).await.unwrap();
            let _cut = stream.write_all(sent).await;
            world.settle().await;
            if !leaves {
                stream.shutdown().await.unwrap();
                let answer = read_all(&mut stream).await;
                assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
            }
        }
    }
    world.settle().await;
    let seen = world.sim.requests();
    let uploads = seen.iter().filter(|request| request.method == "PUT");
    assert!(uploads.clone().count() > 5);
    assert!(uploads.clone().all(|request| request.status == Some(0)), "{seen:?}");
    // Salesforce still waits for the data.
    assert_eq!(client.send("PUT", &target, &[("content-type", "text/csv")], rows).await.code(), 201);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn heads_are_bounded_in_size_number_and_time() {
    let world = World::new("");
    for (input, status, reason) in [
        (head("GET", &format!("query?q={}", "x".repeat(16 * 1024)), ""), 414, Reason::UriTooLong),
        (head("GET", "recent", &format!("x-long: {}\r\n", "x".repeat(16 * 1024))), 431, Reason::HeadTooLarge),
        (head("GET", "recent", &"x: y\r\n".repeat(101)), 431, Reason::HeadTooLarge),
        ("GET / HTTP/1.1\r\nhost: sf.internal\r\nx: y".to_owned(), 408, Reason::HeadTimeout),
        (head("POST", ECHO, "content-length: 1\r\ntransfer-encoding: chunked\r\n"), 400, Reason::MalformedRequest),
        (head("POST", ECHO, "content-length: 1\r\ncontent-length: 1\r\n"), 400, Reason::MalformedRequest),
        (head("GET", "recent", "x: a\r\n b\r\n"), 400, Reason::MalformedRequest),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\x00\x00\r\n\r\n".to_owned(), 400, Reason::MalformedRequest),
    ] {
        let started = Instant::now();
        refused(&ask(world.raw(), &input).await, status, reason);
        let waited = if status == 408 { Duration::from_secs(10) } else { Duration::ZERO };
        assert!(started.elapsed() >= waited && started.elapsed() < waited + Duration::from_secs(5), "{reason}");
    }
    for (method, target, status, reason) in
        [("TRACE", "/", 405, Reason::MethodNotAllowed), ("OPTIONS", "*", 400, Reason::MalformedRequest)]
    {
        let input = format!("{method} {target} HTTP/1.1\r\nhost: sf.internal\r\nconnection: close\r\n\r\n");
        refused(&ask(world.raw(), input).await, status, reason);
    }
    assert!(world.sim.requests().is_empty());
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_cut_and_holds_little() {
    let world = World::new("limits: {minimum_rate: 1KiB, minimum_rate_grace: 10s}\nupstream: {read_ahead: 128KiB}");
    let mut client = world.client();
    let found = client.query("SELECT Id FROM ContentVersion WHERE ContentSize = 1048576").await.json();
    let target = format!("sobjects/ContentVersion/{}/VersionData", found["records"][0]["Id"].as_str().unwrap());
    let mut stream: DuplexStream = world.raw();
    stream.write_all(head("GET", &target, "").as_bytes()).await.unwrap();
    let started = Instant::now();
    while world.edge.tasks.running() > 1 || started.elapsed() < Duration::from_secs(1) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(world.buffers.used() <= 128 * 1024, "{}", world.buffers.used());
        assert!(started.elapsed() < Duration::from_mins(10), "never cut");
    }
    assert!(started.elapsed() >= Duration::from_secs(10));
    let got = read_all(&mut stream).await;
    assert!(got.len() < 400 * 1024, "{}", got.len());
    assert_eq!(world.last_line().await["ending"], "caller_left");
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn an_upload_is_begun_when_it_is_asked_for() {
    let world = World::new("");
    let mut stream = world.raw();
    stream.write_all(head("POST", ECHO, "content-length: 2\r\nexpect: 100-continue\r\n").as_bytes()).await.unwrap();
    assert_eq!(read_until(&mut stream, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"{}").await.unwrap();
    assert_eq!(echo(&mut stream).await, Some(2));
    drop(stream);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_lets_calls_finish_and_takes_no_more() {
    let world = World::new("");
    world.sim.script().latency(3_000, 0);
    let mut idle = world.raw();
    let mut busy = world.raw();
    busy.write_all(head("GET", "recent", "").as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.edge.drain.begin();
    let answer = read_all(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("[]"), "{answer}");
    let _closed = idle.write_all(head("GET", "recent", "").as_bytes()).await;
    assert_eq!(read_all(&mut idle).await, "");
    assert_eq!(world.sim.requests().len(), 1);
    world.close().await;
}

/// An HTTP/2 connection with prior knowledge.
async fn http2(world: &World) -> SendRequest<Full<Bytes>> {
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(world.raw())).await.unwrap();
    world.beside(async move {
        let _ended = connection.await;
    });
    sender
}

fn request(method: &str, target: &str) -> http::request::Builder {
    let bearer = format!("Bearer {}", token("admin"));
    Request::builder()
        .method(method)
        .uri(format!("http://sf.internal{}", absolute(target)))
        .header("authorization", bearer)
}

async fn whole(answer: Response<hyper::body::Incoming>) -> Response<Bytes> {
    let (parts, body) = answer.into_parts();
    Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}

#[tokio::test(start_paused = true)]
async fn http2_travels_the_same_road() {
    let world = World::new("limits: {stream_above: 64KiB}");
    world.sim.script().latency(1_000, 0);
    let mut sender = http2(&world).await;
    let started = Instant::now();
    let asked: Vec<_> =
        (0..20).map(|_| sender.send_request(request("GET", "recent").body(Full::default()).unwrap())).collect();
    for answer in asked {
        let answer = whole(answer.await.unwrap()).await;
        assert_eq!((answer.code(), answer.text().as_str(), answer.version()), (200, "[]", http::Version::HTTP_2));
        assert_eq!(answer.header("weirkeeper-cost"), "1");
    }
    assert!(started.elapsed() < Duration::from_secs(2), "at the same time");
    let line = world.last_line().await;
    assert_eq!((&line["http"], &line["status"]), (&json!("2"), &json!(200)));
    for length in [2, 60_000, 300_000] {
        let body = Full::new(Bytes::from(vec![b'x'; length]));
        let answer = whole(sender.send_request(request("POST", ECHO).body(body).unwrap()).await.unwrap()).await;
        assert_eq!(answer.json()["bytes"], length);
    }
    let twice = request("GET", "recent").header("x-sfdc-session", "other").body(Full::default()).unwrap();
    whole(sender.send_request(twice).await.unwrap()).await.is_refusal(400, "bad_credential", "INSUFFICIENT_ACCESS");
    let long = request("GET", "recent").header("x-long", "x".repeat(17_000)).body(Full::default()).unwrap();
    let long = whole(sender.send_request(long).await.unwrap()).await;
    assert_eq!((long.code(), long.header("weirkeeper-refused")), (431, "head_too_large"));
    // A stream that its caller resets.
    let left = sender.send_request(request("GET", "limits").body(Full::default()).unwrap());
    assert!(tokio::time::timeout(Duration::from_millis(500), left).await.is_err());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let line = world.last_line().await;
    assert_eq!(
        (&line["status"], &line["upstream_status"], &line["operation"]),
        (&json!(499), &json!(200), &json!("limits"))
    );
    drop(sender);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn many_slow_http2_uploads_stay_within_the_bound() {
    let world = World::new("limits: {buffered_bytes_total: 1MiB, stream_above: 512KiB}");
    let mut sender = http2(&world).await;
    world.sim.script().latency(2_000, 0);
    let uploads: Vec<_> = (0..10)
        .map(|_| sender.send_request(request("POST", ECHO).body(Full::new(Bytes::from(vec![b'x'; 300_000]))).unwrap()))
        .collect();
    let (mut whole_ones, mut turned_away) = (0, 0);
    for answer in uploads {
        let answer = whole(answer.await.unwrap()).await;
        assert!(world.buffers.used() <= 1 << 20, "{}", world.buffers.used());
        if answer.code() == 200 {
            assert_eq!(answer.json()["bytes"], 300_000);
            whole_ones += 1;
        } else {
            answer.is_refusal(503, "buffers_full", "SERVER_UNAVAILABLE");
            turned_away += 1;
        }
    }
    assert!(whole_ones >= 2 && turned_away >= 1, "{whole_ones} whole, {turned_away} turned away");
    drop(sender);
    world.close().await;
}
