//! Promise: whatever fails, the caller gets an answer in its own form that says what happened, nothing is sent twice, no
//! write is reported as what it may not be, and everything borrowed comes back.

use std::io::ErrorKind;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::Instant;
use weirkeeper::sim::{Fault, FaultAction};

use crate::client::{Answer as _, ask, envelope, head, read_all, read_until, token};
use crate::world::{Line, World};

fn once(action: FaultAction) -> Fault {
    Fault { times: Some(1), action, ..Fault::default() }
}

fn created(world: &World) -> u64 {
    world.sim.counts().writes.get("Account").map_or(0, |writes| writes.created)
}

fn is(measured: f64, count: u32) -> bool {
    (measured - f64::from(count)).abs() < f64::EPSILON
}

/// Reads one request whose body, if any, is shorter than the pipe.
async fn request(stream: &mut DuplexStream) -> Option<String> {
    let mut text = read_until(stream, "\r\n\r\n").await;
    if text.is_empty() {
        return None;
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    text.push_str(&String::from_utf8_lossy(&body));
    Some(text)
}

/// An origin that answers the first request of each connection with `bytes` and closes.
fn answers(world: &World, bytes: &'static [u8]) {
    world.origin(move |mut stream| async move {
        if request(&mut stream).await.is_some() {
            let _gone = stream.write_all(bytes).await;
        }
    });
}

#[tokio::test(start_paused = true)]
async fn what_breaks_before_the_end_of_the_head_is_told_by_what_may_have_happened() {
    let world = World::new("");
    let mut client = world.client();
    let long = vec![b'x'; 80 * 1024];
    let long: &'static [u8] = Box::leak([b"HTTP/1.1 200 OK\r\nx: ", &long[..]].concat().into_boxed_slice());
    for (bytes, reason, failure) in [
        (&b""[..], "upstream_reset", "reset"),
        (b"HTTP/1.1 200", "upstream_reset", "reset"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconte", "upstream_reset", "reset"),
        (b"SSH-2.0-OpenSSH_9\r\n", "upstream_garbage", "garbage"),
        (b"\0\0\0\x04\x08", "upstream_garbage", "garbage"),
        (b"HTTP/1.1 two hundred\r\n\r\n", "upstream_garbage", "garbage"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", "upstream_garbage", "garbage"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nab", "upstream_garbage", "garbage"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            "upstream_garbage",
            "garbage",
        ),
        (long, "upstream_garbage", "garbage"),
    ] {
        let what = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
        answers(&world, bytes);
        let read = client.get("sobjects/Account").await;
        read.is_refusal(502, reason, "SERVER_UNAVAILABLE");
        assert_eq!(read.header("retry-after"), "2", "{what}");
        assert!(read.text().contains("127.0.0.1"), "the answer names the host: {}", read.text());
        let line = world.last_line().await;
        assert_eq!((&line["failure"], &line["source"]), (&json!(failure), &json!("gateway")), "{what}: {line}");
        for (method, target) in
            [("POST", "sobjects/Account"), ("PATCH", "sobjects/Account/001"), ("DELETE", "sobjects/Account/1")]
        {
            let write = client.send(method, target, &[], "{}").await;
            write.is_refusal(504, "outcome_unknown", "REQUEST_RUNNING_TOO_LONG");
            assert_eq!((write.header("weirkeeper-outcome"), write.header("retry-after")), ("unknown", ""), "{what}");
        }
        // One connection for each: nothing was sent twice, and each was counted once.
        world.counts_more(4);
    }
    assert_eq!(world.upstream().connects.ok, 40);
    assert!(is(world.metric("weirkeeper_unknown_outcomes_total", &[]), 30));
    assert!(is(world.metric("weirkeeper_upstream_errors_total", &[("kind", "reset")]), 12));
    assert!(is(world.metric("weirkeeper_upstream_errors_total", &[("kind", "garbage")]), 28));
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_breaks_after_the_head_is_seen_as_cut() {
    let world = World::new("");
    for (bytes, body) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"[..], "abc"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n5\r\nde", "3\r\nabc\r\n2\r\nde\r\n"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nZZ\r\n", "3\r\nabc\r\n"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", "3\r\nabc\r\n"),
    ] {
        answers(&world, bytes);
        let seen = ask(world.raw(), head("GET", "sobjects/Account", "")).await;
        assert!(seen.starts_with("HTTP/1.1 200 OK\r\n") && seen.ends_with(&format!("\r\n\r\n{body}")), "{seen:?}");
        assert!(world.client().try_send("GET", "sobjects/Account", &[], "").await.is_err());
        let line = world.last_line().await;
        assert_eq!((&line["ending"], &line["status"]), (&json!("cut"), &json!(200)), "{line}");
        assert!(line["failure"].is_string(), "{line}");
        world.counts_more(2);
    }
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_after_the_end_of_an_answer_is_no_answer() {
    let world = World::new("");
    for bytes in [
        &b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"[..],
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nother",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-trailer: 1\r\n\r\nrubbish",
        b"HTTP/1.0 200 OK\r\n\r\nok",
    ] {
        let mut client = world.client();
        world.origin(move |mut stream| async move {
            while request(&mut stream).await.is_some() {
                if stream.write_all(bytes).await.is_err() || bytes.starts_with(b"HTTP/1.0") {
                    return;
                }
            }
        });
        for _ in 0..3 {
            let answer = client.get("sobjects/Account").await;
            assert_eq!((answer.code(), answer.text().as_str()), (200, "ok"), "{}", String::from_utf8_lossy(bytes));
            world.settle().await;
        }
        world.counts_more(3);
    }
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_faulty_salesforce_is_told_from_a_faulty_gateway_and_the_books_agree() {
    let world = World::new("");
    let mut client = world.client();
    let faults = [
        (FaultAction::Close { apply: false, reset: false }, 502),
        (FaultAction::Close { apply: true, reset: true }, 502),
        (FaultAction::Garbage { text: "SSH-2.0-x\r\n".into() }, 502),
        (FaultAction::Overlong { extra_bytes: 9 }, 200),
        (FaultAction::Truncate { body_bytes: 7 }, 0),
        (FaultAction::Trickle { piece_bytes: 10, pause_ms: 700 }, 200),
        (FaultAction::ApplyThenStatus { status: 502 }, 502),
        (FaultAction::Unavailable { html: true, retry_after_seconds: None }, 503),
    ];
    for (action, status) in faults {
        let before = world.sim.counts().requests;
        world.sim.script().fault(once(action.clone()));
        let answer = client.try_send("GET", "sobjects/Account", &[], "").await;
        assert_eq!(answer.map_or(0, |answer| answer.code()), status, "{action:?}");
        assert_eq!(client.get("recent").await.text(), "[]", "{action:?}");
        assert_eq!(world.sim.counts().requests, before + 2, "{action:?}");
    }
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_is_lost_is_sent_once_and_called_unknown() {
    let world = World::new("upstream: {first_byte: 3s}");
    let mut client = world.client();
    for (number, action) in [
        FaultAction::Close { apply: true, reset: false },
        FaultAction::Garbage { text: "no HTTP".into() },
        FaultAction::Hang { milliseconds: 60_000 },
    ]
    .into_iter()
    .enumerate()
    {
        let applied = u64::from(matches!(action, FaultAction::Close { apply: true, .. }));
        let before = created(&world);
        world.sim.script().fault(once(action.clone()));
        let lost = client.post("sobjects/Account", &json!({"Name": "CANARY-literal"})).await;
        lost.is_refusal(504, "outcome_unknown", "REQUEST_RUNNING_TOO_LONG");
        assert_eq!((lost.header("weirkeeper-outcome"), lost.header("weirkeeper-cost")), ("unknown", "1"));
        assert_eq!(created(&world) - before, applied, "{action:?}");
        assert_eq!(world.sim.counts().requests, number as u64 + 1, "{action:?}");
    }
    world.secret("CANARY-literal");
    assert!(is(world.metric("weirkeeper_unknown_outcomes_total", &[("caller", "anyone")]), 3));
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn each_api_is_told_of_a_failure_in_its_own_form() {
    let world = World::new("");
    world.line(Line::Broken(ErrorKind::ConnectionRefused));
    let mut client = world.client();
    let xml = client.send("GET", "sobjects/Account", &[("accept", "application/xml")], "").await;
    assert_eq!((xml.code(), xml.header("content-type")), (502, "application/xml;charset=UTF-8"));
    assert!(xml.text().contains("<Errors><Error><errorCode>SERVER_UNAVAILABLE</errorCode><message>"), "{}", xml.text());
    let soap = envelope(&token("admin"), "<urn:getUserInfo/>");
    let soap = client.send("POST", "/services/Soap/u/62.0", &[("content-type", "text/xml")], soap).await;
    assert_eq!((soap.code(), soap.header("content-type")), (500, "text/xml;charset=UTF-8"));
    assert!(soap.text().contains("<faultcode>sf:SERVER_UNAVAILABLE</faultcode>"), "{}", soap.text());
    let bulk = client.get("/services/async/60.0/job/750").await;
    assert_eq!((bulk.code(), bulk.header("content-type")), (502, "application/xml"));
    assert!(bulk.text().contains("<exceptionCode>ServerUnavailable</exceptionCode>"), "{}", bulk.text());
    let json = [("content-type", "application/json")];
    let bulk = client.send("GET", "/services/async/60.0/job/750", &json, "").await;
    assert_eq!(
        (bulk.header("content-type"), bulk.json()["exceptionCode"].clone()),
        ("application/json", json!("ServerUnavailable"))
    );
    for answer in [xml, soap, bulk] {
        assert_eq!((answer.header("weirkeeper-refused"), answer.header("retry-after")), ("upstream_unreachable", "2"));
    }
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_never_sent_is_neither_unknown_nor_charged() {
    let world = World::new("upstream: {connect: 5s}");
    let mut client = world.client();
    for (line, detail, seconds) in [
        (Line::Broken(ErrorKind::ConnectionRefused), "connection refused", 0),
        (Line::Broken(ErrorKind::HostUnreachable), "host unreachable", 0),
        (Line::Silent, "within 5000 ms", 5),
    ] {
        world.line(line);
        let started = Instant::now();
        let answer = client.post("sobjects/Account", &json!({"Name": "x"})).await;
        answer.is_refusal(502, "upstream_unreachable", "SERVER_UNAVAILABLE");
        assert!(answer.text().contains(detail), "{}", answer.text());
        assert_eq!(answer.header("weirkeeper-cost"), "0");
        assert_eq!(started.elapsed().as_secs(), seconds);
        assert_eq!(world.last_line().await["attempts"], 0);
    }
    // A deadline that passes before a connection is made.
    let late = client.send("POST", "sobjects/Account", &[("x-request-timeout-ms", "1500")], "{}").await;
    late.is_refusal(504, "deadline_passed", "REQUEST_RUNNING_TOO_LONG");
    let never = client.send("POST", "sobjects/Account", &[("x-request-timeout-ms", "0")], "{}").await;
    never.is_refusal(504, "deadline_passed", "REQUEST_RUNNING_TOO_LONG");
    // An origin that closes at once gives the message back.
    world.origin(|stream| async move { drop(stream) });
    let closed = client.post("sobjects/Account", &json!({"Name": "x"})).await;
    assert_eq!((closed.code(), closed.header("weirkeeper-refused")), (502, "upstream_reset"), "{}", closed.text());
    assert!(world.sim.requests().is_empty());
    world.line(Line::Sim);
    assert_eq!(client.get("recent").await.code(), 200);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_for_a_connection_is_told_so() {
    let world = World::new("upstream: {connections_per_runtime: 1}");
    world.sim.script().fault(Fault { latency_ms: 15_000, ..once(FaultAction::None) });
    let mut first = world.client();
    let mut second = world.client();
    let (first, second) = tokio::join!(first.get("recent"), second.send("POST", "sobjects/Account", &[], "{}"));
    assert_eq!(first.code(), 200);
    second.is_refusal(503, "upstream_busy", "SERVER_UNAVAILABLE");
    assert_eq!(second.header("retry-after"), "2");
    assert_eq!(created(&world), 0);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn slowness_is_ended_where_the_configuration_says() {
    let world = World::new("upstream: {first_byte: 4s, idle: 6s}");
    let mut client = world.client();
    let slow = |milliseconds| once(FaultAction::Hang { milliseconds });
    let started = Instant::now();
    world.sim.script().fault(slow(30_000));
    let late = client.get("sobjects/Account").await;
    late.is_refusal(504, "upstream_timeout", "REQUEST_RUNNING_TOO_LONG");
    assert_eq!(started.elapsed(), Duration::from_secs(4));
    assert_eq!(world.last_line().await["failure"], "timeout");

    // A body may pause for less than `idle`, however long it takes in all.
    world.sim.script().fault(once(FaultAction::Trickle { piece_bytes: 1, pause_ms: 5_900 }));
    let started = Instant::now();
    assert_eq!(client.get("recent").await.text(), "[]");
    assert!(started.elapsed() > Duration::from_secs(11));
    world.sim.script().fault(once(FaultAction::Trickle { piece_bytes: 1, pause_ms: 6_100 }));
    assert!(client.try_send("GET", "recent", &[], "").await.is_err());
    assert_eq!(world.last_line().await["ending"], "cut");
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_wait_and_not_the_work() {
    let world = World::new("callers: [{name: hasty, match: any, deadline: 2s}]");
    world.sim.script().latency(5_000, 0);
    let mut client = world.client();
    for (asked, waited) in [("", 2_000), ("500", 500), ("60000", 2_000), ("nonsense", 2_000)] {
        let timeout = [("x-request-timeout-ms", asked)];
        let started = Instant::now();
        let read = client.send("GET", "sobjects/Account", &timeout, "").await;
        read.is_refusal(504, "deadline_passed", "REQUEST_RUNNING_TOO_LONG");
        assert_eq!(started.elapsed(), Duration::from_millis(waited), "{asked}");
        let write = client.send("POST", "sobjects/Account", &timeout, "{\"Name\":\"x\"}").await;
        write.is_refusal(504, "outcome_unknown", "REQUEST_RUNNING_TOO_LONG");
    }
    assert_eq!(created(&world), 3, "the last write is still being worked on");
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(created(&world), 4);
    assert_eq!((world.sim.counts().requests, world.upstream().abandoned), (8, 8));
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_goes_on_without_its_caller_is_charged_by_its_answer() {
    let world = World::new("");
    let batch: Vec<_> = (0..5).map(|_| json!({"method": "GET", "url": "v62.0/limits"})).collect();
    let batch = json!({"batchRequests": batch}).to_string();
    let unavailable = FaultAction::Unavailable { html: false, retry_after_seconds: None };
    for action in [FaultAction::None, unavailable] {
        world.sim.script().fault(Fault { latency_ms: 5_000, ..once(action) });
        let mut client = world.client();
        let late = client.send("POST", "composite/batch", &[("x-request-timeout-ms", "1000")], batch.clone()).await;
        assert_eq!(late.code(), 504);
    }
    // The books are compared in the end: five calls for the first, one for the second.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(world.sim.counts().charged, 6);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn callers_may_leave_at_any_time() {
    let world = World::new("");
    world.sim.script().latency(40, 0);
    let body = json!({"Name": "Left"}).to_string();
    let whole = head("POST", "sobjects/Account", &format!("content-length: {}\r\n", body.len())) + &body;
    // In the middle of the request: it never looks complete.
    for part in (0..whole.len()).step_by(3) {
        for wait in [0, 20] {
            let mut stream = world.raw();
            stream.write_all(&whole.as_bytes()[..part]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
    }
    world.settle().await;
    assert!(world.sim.requests().is_empty());
    assert!(world.lines().iter().all(|line| line["refusal"] == "body_malformed"), "{:?}", world.lines());

    // While Salesforce works on it, and while the answer is on its way: it is done once.
    let mut sent = 0;
    for wait in (1..60).step_by(2) {
        // In pieces: an answer that is whole at once has been handed over before it shows that nobody takes it.
        let slowly = FaultAction::Trickle { piece_bytes: 20, pause_ms: 1 };
        world.sim.script().fault(once(slowly));
        let mut stream = world.raw();
        stream.write_all(whole.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(wait)).await;
        let mut seen = vec![0; usize::try_from(wait).unwrap() * 3];
        let _partly = tokio::time::timeout(Duration::ZERO, stream.read_exact(&mut seen)).await;
        sent += 1;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((created(&world), world.sim.counts().requests), (sent, sent));
    let lines = world.lines();
    let (left, stayed): (Vec<_>, Vec<_>) =
        lines.iter().filter(|line| line["attempts"] == 1).partition(|line| line["status"] == 499);
    assert!(left.len() > 15 && stayed.len() > 5, "{} left, {} stayed", left.len(), stayed.len());
    for line in left {
        assert_eq!((&line["ending"], &line["upstream_status"]), (&json!("caller_left"), &json!(201)), "{line}");
        assert_eq!(line["charged"], 1, "{line}");
    }
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn callers_may_leave_in_the_middle_of_a_long_answer() {
    let world = World::new("");
    let mut client = world.client();
    let found = client.query("SELECT Id FROM ContentVersion WHERE ContentSize = 1048576").await.json();
    let target = format!("sobjects/ContentVersion/{}/VersionData", found["records"][0]["Id"].as_str().unwrap());
    for kilobytes in [0, 1, 63, 64, 65, 200, 500, 900, 1_024] {
        let mut stream = world.raw();
        stream.write_all(head("GET", &target, "").as_bytes()).await.unwrap();
        let mut seen = vec![0; kilobytes << 10];
        stream.read_exact(&mut seen).await.unwrap();
        drop(stream);
        world.settle().await;
        assert_eq!(world.buffers.used(), 0, "{kilobytes}");
    }
    let lines = world.lines();
    let left = lines.iter().filter(|line| line["status"] == 499).count();
    assert!((7..=9).contains(&left), "{left}");
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_only_closed_its_side_gets_its_answer() {
    let world = World::new("");
    world.sim.script().latency(1_000, 0);
    let mut stream = world.raw();
    stream.write_all(head("GET", "recent", "").as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let seen = read_all(&mut stream).await;
    assert!(seen.starts_with("HTTP/1.1 200 OK\r\n"), "{seen}");
    assert_eq!(world.last_line().await["ending"], "complete");
    world.close().await;
}
