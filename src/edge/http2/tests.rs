//! HTTP/2 as SDKs speak it, and as nobody should: raw frames against a served connection, on a paused clock.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2 as client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::edge::http1::PREFACE;
use crate::edge::limits::Limits;
use crate::edge::serve::rig::Rig;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// `GET path` for host `a`, as a header block without a dynamic table.
fn get(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x41, 1, b'a', 0x44, u8::try_from(path.len()).expect("short")];
    block.extend_from_slice(path.as_bytes());
    block
}

fn opening() -> Vec<u8> {
    [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[])].concat()
}

/// Frames until the gateway closes: kind, flags, stream and payload.
async fn frames(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut frames = Vec::new();
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).await.is_err() {
            return frames;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        if stream.read_exact(&mut payload).await.is_err() {
            return frames;
        }
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        frames.push((head[3], head[4], id, payload));
    }
}

/// The error code of the GOAWAY that ended a connection.
fn goaway(frames: &[(u8, u8, u32, Vec<u8>)]) -> Option<u8> {
    frames.iter().rev().find(|(kind, ..)| *kind == GOAWAY).and_then(|(.., payload)| payload.get(7).copied())
}

/// Floods the gateway with `piece` until it closes; how much it took, and what it said.
async fn flood(rig: &Rig, piece: impl Fn(u32) -> Vec<u8>) -> (usize, Vec<(u8, u8, u32, Vec<u8>)>) {
    let (mut read, mut write) = tokio::io::split(rig.open());
    let sending = async {
        let _ = write.write_all(&opening()).await;
        let mut sent = 0;
        for round in 0..200_000 {
            let bytes = piece(round);
            if write.write_all(&bytes).await.is_err() {
                return sent;
            }
            sent += bytes.len();
        }
        panic!("the flood was endured");
    };
    tokio::join!(sending, frames(&mut read))
}

async fn connect(rig: &Rig) -> client::SendRequest<Full<Bytes>> {
    let (sender, connection) =
        client::handshake(TokioExecutor::new(), TokioIo::new(rig.open())).await.expect("handshake");
    rig.edge.tasks.spawn_background(async move {
        let _ = connection.await;
    });
    sender
}

fn request(path: &str, body: &'static [u8]) -> Request<Full<Bytes>> {
    Request::builder()
        .method(if body.is_empty() { "GET" } else { "POST" })
        .uri(format!("http://a{path}"))
        .body(Full::new(Bytes::from_static(body)))
        .expect("request")
}

#[tokio::test(start_paused = true)]
async fn requests_are_answered_side_by_side() {
    let rig = Rig::new();
    let mut sender = connect(&rig).await;
    let slow = sender.send_request(request("/slow", b""));
    let quick = sender.send_request(request("/echo", b"hello"));
    let quick = quick.await.expect("answer");
    assert_eq!(quick.into_body().collect().await.expect("body").to_bytes(), "hello");
    assert_eq!(slow.await.expect("answer").status(), StatusCode::OK);
    assert_eq!(rig.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_head_over_the_limit_is_refused_in_words() {
    let rig = Rig::new();
    let mut sender = connect(&rig).await;
    let mut large = request("/", b"");
    large.headers_mut().insert("x-large", "a".repeat(17_000).parse().expect("value"));
    let answer = sender.send_request(large).await.expect("answer");
    assert_eq!(answer.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert_eq!(answer.headers()["weirkeeper-refused"], "head_too_large");
    let body = answer.into_body().collect().await.expect("body").to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).expect("json");
    assert_eq!(body[0]["gateway"]["reason"], "head_too_large");
    assert_eq!(rig.calls(), 0);
    assert_eq!(sender.send_request(request("/", b"")).await.expect("answer").status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn two_lengths_are_refused() {
    let rig = Rig::new();
    let mut stream = rig.open();
    let mut block = get("/");
    for _ in 0..2 {
        block.extend_from_slice(b"\x0f\x0d\x010");
    }
    let sent = [opening(), frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)].concat();
    stream.write_all(&sent).await.expect("open");
    tokio::time::sleep(Duration::from_secs(1)).await;
    stream.shutdown().await.expect("open");
    let frames = frames(&mut stream).await;
    let body: Vec<u8> = frames.iter().filter(|(kind, ..)| *kind == DATA).flat_map(|(.., data)| data.clone()).collect();
    assert!(String::from_utf8_lossy(&body).contains("more than one Content-Length"), "{frames:?}");
    assert_eq!(rig.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_shorter_or_longer_than_announced_is_malformed() {
    for data in [&b"no"[..], b"much too long"] {
        let rig = Rig::new();
        let mut stream = rig.open();
        let mut block = vec![0x83, 0x86, 0x41, 1, b'a', 0x44, 5];
        block.extend_from_slice(b"/echo\x0f\x0d\x015");
        let sent = [opening(), frame(HEADERS, END_HEADERS, 1, &block), frame(DATA, END_STREAM, 1, data)].concat();
        stream.write_all(&sent).await.expect("open");
        tokio::time::sleep(Duration::from_secs(1)).await;
        stream.shutdown().await.expect("open");
        let frames = frames(&mut stream).await;
        assert!(frames.iter().any(|(kind, _, id, _)| *kind == RST_STREAM && *id == 1), "{frames:?}");
        assert_eq!(rig.working(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn rapid_resets_end_the_connection() {
    let rig = Rig::new();
    let (sent, frames) = flood(&rig, |round| {
        let stream = 2 * round + 1;
        [frame(HEADERS, END_STREAM | END_HEADERS, stream, &get("/slow")), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])]
            .concat()
    })
    .await;
    assert_eq!(goaway(&frames), Some(0xb), "ENHANCE_YOUR_CALM: {frames:?}");
    assert!(sent < 200_000, "{sent}");
    rig.edge.tasks.idle().await;
    assert_eq!(rig.working(), 0);
}

#[tokio::test(start_paused = true)]
async fn endless_continuations_end_the_connection() {
    let rig = Rig::new();
    let (sent, frames) = flood(&rig, |round| match round {
        0 => frame(HEADERS, END_STREAM, 1, &get("/")),
        _ => frame(CONTINUATION, 0, 1, &[b"\x40\x01x\x7f\x80\x01".to_vec(), vec![b'a'; 255]].concat()),
    })
    .await;
    assert!(goaway(&frames).is_some(), "{frames:?}");
    assert!(sent < 500_000, "{sent}");
    assert_eq!(rig.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn empty_continuations_end_the_connection() {
    let rig = Rig::new();
    let (sent, frames) = flood(&rig, |round| match round {
        0 => frame(HEADERS, END_STREAM, 1, &get("/")),
        _ => frame(CONTINUATION, 0, 1, &[]),
    })
    .await;
    assert!(goaway(&frames).is_some(), "{frames:?}");
    assert!(sent < 500_000, "{sent}");
    assert_eq!(rig.calls(), 0);
}

/// A peer that sends control frames and never reads what they are answered with.
async fn unread_flood(piece: Vec<u8>) -> (usize, Rig) {
    let rig = Rig::new();
    let mut stream: DuplexStream = rig.open();
    stream.write_all(&opening()).await.expect("open");
    let mut sent = 0;
    for _ in 0..400_000 {
        match tokio::time::timeout(Duration::from_mins(2), stream.write_all(&piece)).await {
            Ok(Ok(())) => sent += piece.len(),
            Ok(Err(_)) => return (sent, rig),
            Err(elapsed) => panic!("the connection hangs: {elapsed}"),
        }
    }
    panic!("the flood was endured");
}

#[tokio::test(start_paused = true)]
async fn floods_of_settings_and_pings_are_not_buffered() {
    for piece in [frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]), frame(PING, 0, 0, &[7; 8])] {
        let (sent, rig) = unread_flood(piece).await;
        // Two pipes of 64 KiB and what h2 reads ahead.
        assert!(sent < 1_000_000, "{sent}");
        rig.edge.tasks.idle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_over_the_bound_is_refused_and_the_others_go_on() {
    let rig = Rig::with(Limits { streams: 2, ping_after: Duration::from_mins(5), ..Limits::default() });
    let mut stream = rig.open();
    let mut sent = opening();
    for id in [1, 3, 5] {
        sent.extend(frame(HEADERS, END_STREAM | END_HEADERS, id, &get("/slow")));
    }
    stream.write_all(&sent).await.expect("open");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(rig.working(), 2);
    tokio::time::sleep(Duration::from_secs(90)).await;
    stream.shutdown().await.expect("open");
    let frames = frames(&mut stream).await;
    let reset: Vec<u32> = frames.iter().filter(|(kind, ..)| *kind == RST_STREAM).map(|(_, _, id, _)| *id).collect();
    assert_eq!(reset, [5], "{frames:?}");
    let ended =
        |id| frames.iter().any(|(kind, flags, stream, _)| *kind == DATA && flags & END_STREAM != 0 && *stream == id);
    assert!(ended(1) && ended(3), "{frames:?}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_answer_pings_is_dropped() {
    let rig = Rig::new();
    let mut stream = rig.open();
    stream.write_all(&opening()).await.expect("open");
    stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &get("/"))).await.expect("open");
    let start = rig.edge.clock.now();
    let seen = frames(&mut stream).await;
    let took = rig.edge.clock.now() - start;
    assert!(seen.iter().any(|(kind, flags, ..)| *kind == PING && flags & ACK == 0), "{seen:?}");
    assert!((Duration::from_secs(45)..Duration::from_mins(1)).contains(&took), "{took:?}");
    rig.edge.tasks.idle().await;
}

/// Answers pings until the gateway closes, and returns when it did.
async fn stay_alive(stream: DuplexStream) -> Vec<u8> {
    let (mut read, mut write) = tokio::io::split(stream);
    let mut kinds = Vec::new();
    loop {
        let mut head = [0; 9];
        if read.read_exact(&mut head).await.is_err() {
            return kinds;
        }
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        if read.read_exact(&mut payload).await.is_err() {
            return kinds;
        }
        kinds.push(head[3]);
        if head[3] == PING && head[4] & ACK == 0 {
            let _ = write.write_all(&frame(PING, ACK, 0, &payload)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_told_to_go_away() {
    let rig = Rig::new();
    let mut stream = rig.open();
    stream.write_all(&opening()).await.expect("open");
    let start = rig.edge.clock.now();
    let kinds = stay_alive(stream).await;
    let took = rig.edge.clock.now() - start;
    assert!(kinds.contains(&GOAWAY), "{kinds:?}");
    assert!((Duration::from_secs(149)..Duration::from_secs(154)).contains(&took), "{took:?}");
    rig.edge.tasks.idle().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_window_stays_shut_is_reset_and_the_others_go_on() {
    let rig = Rig::new();
    let mut stream = rig.open();
    let mut sent = PREFACE.to_vec();
    // A window of 1000 bytes, that is never opened.
    sent.extend(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 3, 232]));
    sent.extend(frame(HEADERS, END_STREAM | END_HEADERS, 1, &get("/flood")));
    sent.extend(frame(HEADERS, END_STREAM | END_HEADERS, 3, &get("/slow")));
    sent.extend(frame(WINDOW_UPDATE, 0, 0, &[0, 15, 0, 0]));
    stream.write_all(&sent).await.expect("open");
    // The first window is paid for by what the gateway could send ahead.
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(rig.edge.counts.slow_readers.load(super::Ordering::Relaxed), 1);
    assert_eq!(rig.working(), 1, "the slow request goes on");
}

#[tokio::test(start_paused = true)]
async fn a_drain_lets_streams_end_and_takes_no_new_ones() {
    let rig = Rig::new();
    let mut sender = connect(&rig).await;
    let slow = tokio::time::timeout(Duration::from_mins(5), sender.send_request(request("/slow", b"")));
    let draining = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        rig.edge.drain.begin();
    };
    let (slow, ()) = tokio::join!(slow, draining);
    assert_eq!(slow.expect("in time").expect("answer").status(), StatusCode::OK);
    rig.edge.tasks.idle().await;
    assert!(sender.send_request(request("/", b"")).await.is_err());
    assert_eq!(rig.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_frees_its_streams() {
    let rig = Rig::new();
    let mut stream = rig.open();
    stream.write_all(&opening()).await.expect("open");
    for id in [1, 3] {
        stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, id, &get("/slow"))).await.expect("open");
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(rig.working(), 2);
    stream.write_all(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])).await.expect("open");
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(rig.working(), 1, "a reset stream is given up");
    drop(stream);
    rig.edge.tasks.idle().await;
    assert_eq!(rig.working(), 0);
}
