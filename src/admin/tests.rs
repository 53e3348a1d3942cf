//! The admin listener over an in-memory connection.

use std::io::Read as _;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::clock::Clock;
use crate::telemetry::{Log, Memory, TelemetryOptions};

struct World {
    admin: Arc<Admin>,
    log: Memory,
}

fn world() -> World {
    let clock = Clock::start();
    let (log, memory) = Log::in_memory(clock, 1 << 20);
    let telemetry = Telemetry::new(clock, log, TelemetryOptions::default());
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"the-admin-key");
    let access = Access { key_sha256: digest.as_ref().try_into().ok(), hosts: Vec::new() };
    World { admin: Arc::new(Admin::new(telemetry, access)), log: memory }
}

struct Answered {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answered {
    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Sends `request` as it is and reads until the listener closes.
async fn exchange(admin: &Arc<Admin>, reach: Reach, request: &str) -> Answered {
    let (mut ours, theirs) = tokio::io::duplex(64 * 1024);
    let serving = serve_connection(theirs, Arc::clone(admin), reach);
    let asking = async {
        ours.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        ours.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let ((), answer) = tokio::join!(serving, asking);
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    Answered { status: head[9..12].parse().unwrap(), head, body: answer[end + 4..].to_vec() }
}

async fn get(admin: &Arc<Admin>, reach: Reach, path: &str, headers: &str) -> Answered {
    let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1:9090\r\nconnection: close\r\n{headers}\r\n");
    exchange(admin, reach, &request).await
}

#[tokio::test]
async fn pages_answer_in_their_types_with_security_headers() {
    let World { admin, log } = world();
    admin.set_config(serde_json::json!({"orgs": []}));
    for (path, media_type, contains) in [
        ("/", "text/html; charset=utf-8", "<code>/metrics</code>"),
        ("/metrics", "text/plain; version=0.0.4", "# TYPE weirkeeper_build_info gauge"),
        ("/livez", "application/json", "\"alive\":true"),
        ("/readyz", "application/json", "\"ready\": true"),
        ("/api/v1/status", "application/json", "\"uptime_seconds\""),
        ("/api/v1/config?x=1", "application/json", "\"orgs\": []"),
    ] {
        let answer = get(&admin, Reach::Loopback, path, "").await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), Some(media_type), "{path}");
        assert!(String::from_utf8(answer.body.clone()).unwrap().contains(contains), "{path}");
        assert!(answer.header("content-security-policy").unwrap().starts_with("default-src 'none'"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
    }
    assert_eq!(log.text(), "", "what the admin listener serves is no traffic");
    assert_eq!(admin.telemetry.status().totals.requests, 0);
}

#[tokio::test]
async fn metrics_are_compressed_when_asked() {
    let World { admin, .. } = world();
    let answer = get(&admin, Reach::Loopback, "/metrics", "accept-encoding: gzip\r\n").await;
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    let body = unchunked(&answer.body);
    let mut text = String::new();
    flate2::read::GzDecoder::new(body.as_slice()).read_to_string(&mut text).unwrap();
    assert!(text.contains("# HELP weirkeeper_build_info"));
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let line = body.windows(2).position(|bytes| bytes == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&body[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return whole;
        }
        whole.extend_from_slice(&body[line + 2..line + 2 + size]);
        body = &body[line + 2 + size + 2..];
    }
}

#[tokio::test]
async fn head_is_answered_without_a_body() {
    let World { admin, .. } = world();
    let request = "HEAD /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answer = exchange(&admin, Reach::Loopback, request).await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(answer.header("content-length"), Some("15"));
}

#[tokio::test]
async fn what_is_not_there_or_not_allowed_is_said_in_json() {
    let World { admin, .. } = world();
    let missing = get(&admin, Reach::Loopback, "/api/v1/nothing", "").await;
    assert_eq!((missing.status, &missing.json()["error"]), (404, &"not_found".into()));
    let request = "POST /metrics HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let posted = exchange(&admin, Reach::Loopback, request).await;
    assert_eq!((posted.status, &posted.json()["error"]), (405, &"method_not_allowed".into()));
    assert_eq!(posted.header("allow"), Some("GET, HEAD"));
    assert!(posted.header("content-security-policy").is_some());
}

#[tokio::test]
async fn from_afar_only_probes_go_without_the_key() {
    let World { admin, .. } = world();
    for (path, status) in
        [("/livez", 200), ("/readyz", 200), ("/", 401), ("/metrics", 401), ("/api/v1/status", 401), ("/x", 401)]
    {
        assert_eq!(get(&admin, Reach::Network, path, "").await.status, status, "{path}");
    }
    let refused = get(&admin, Reach::Network, "/metrics", "authorization: Bearer guess\r\n").await;
    assert_eq!(refused.status, 401);
    assert!(refused.header("www-authenticate").unwrap().starts_with("Bearer"));
    let key = "authorization: Bearer the-admin-key\r\n";
    assert_eq!(get(&admin, Reach::Network, "/metrics", key).await.status, 200);
    admin.set_access(Access::default());
    assert_eq!(get(&admin, Reach::Network, "/metrics", key).await.status, 403);
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_turned_away() {
    let World { admin, .. } = world();
    let foreign = "GET /metrics HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
    assert_eq!(exchange(&admin, Reach::Loopback, foreign).await.status, 403);
    let absolute = "GET http://evil.example/metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    assert_eq!(exchange(&admin, Reach::Loopback, absolute).await.status, 400);
    let script = get(&admin, Reach::Loopback, "/api/v1/config", "origin: http://evil.example\r\n").await;
    assert_eq!(script.status, 403);
    assert_eq!(get(&admin, Reach::Loopback, "/livez", "origin: http://127.0.0.1:9090\r\n").await.status, 200);
}

#[tokio::test]
async fn readiness_names_the_check_that_fails_and_ends_with_a_drain() {
    let World { admin, .. } = world();
    let up = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&up);
    admin.add_check("listeners", move || {
        if seen.load(Ordering::Relaxed) { Ok(()) } else { Err("0.0.0.0:8080 is not open yet".to_owned()) }
    });
    let answer = get(&admin, Reach::Network, "/readyz", "").await;
    assert_eq!(answer.status, 503);
    assert_eq!(
        answer.json(),
        serde_json::json!({"ready": false, "draining": false,
            "checks": [{"name": "listeners", "ok": false, "reason": "0.0.0.0:8080 is not open yet"}]})
    );
    up.store(true, Ordering::Relaxed);
    assert_eq!(get(&admin, Reach::Network, "/readyz", "").await.status, 200);
    admin.drain();
    let answer = get(&admin, Reach::Network, "/readyz", "").await;
    assert_eq!((answer.status, &answer.json()["draining"]), (503, &true.into()));
    assert_eq!(get(&admin, Reach::Network, "/livez", "").await.status, 200);
}

#[tokio::test]
async fn a_panic_is_an_answer_too() {
    let World { admin, .. } = world();
    admin.add_check("broken", || panic!("meant to"));
    let answer = get(&admin, Reach::Loopback, "/readyz", "").await;
    assert_eq!((answer.status, &answer.json()["error"]), (500, &"internal".into()));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[tokio::test(start_paused = true)]
async fn who_never_sends_a_head_is_left() {
    let World { admin, .. } = world();
    let (mut ours, theirs) = tokio::io::duplex(1024);
    ours.write_all(b"GET /livez HTTP/1.1\r\nhost:").await.unwrap();
    serve_connection(theirs, admin, Reach::Network).await;
    let mut rest = Vec::new();
    let _ = ours.read_to_end(&mut rest).await;
    assert!(!rest.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn the_listener_accepts_on_loopback() {
    let World { admin, .. } = world();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = Tasks::new();
    tasks.spawn_background({
        let tasks = tasks.clone();
        async move { serve(listener, admin, tasks).await.unwrap() }
    });
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /api/v1/status HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}
