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
        ("/", "text/html; charset=utf-8", "<h1>Weirkeeper</h1>"),
        ("/page/style.css", "text/css; charset=utf-8", "prefers-color-scheme"),
        ("/page/main.js", "text/javascript; charset=utf-8", "import"),
        ("/api/v1", "application/json", "\"path\": \"/metrics\""),
        ("/api/v1/spending", "application/json", "\"orgs\": []"),
        ("/api/v1/recent", "application/json", "\"troubles\": []"),
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
    let page = exchange(&admin, Reach::Loopback, &request.replace("/metrics", "/")).await;
    assert_eq!((page.status, page.header("allow")), (405, Some("GET, HEAD")));
    assert_eq!(posted.header("allow"), Some("GET, HEAD"));
    assert!(posted.header("content-security-policy").is_some());
}

#[tokio::test]
async fn from_afar_only_probes_go_without_the_key() {
    let World { admin, .. } = world();
    // The page shows nothing by itself: a browser needs it to ask for the key.
    for file in PageFile::ALL {
        assert_eq!(get(&admin, Reach::Network, file.as_str(), "").await.status, 200, "{file}");
    }
    for (path, status) in [
        ("/livez", 200),
        ("/readyz", 200),
        ("/metrics", 401),
        ("/api/v1/status", 401),
        ("/x", 401),
        ("/api/v1/live", 401),
    ] {
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
async fn what_is_missing_but_not_needed_leaves_the_gateway_ready_and_is_said() {
    let World { admin, .. } = world();
    let missing = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&missing);
    admin.add_lack("store", move || seen.load(Ordering::Relaxed).then(|| "degraded: it is away".to_owned()));
    let answer = get(&admin, Reach::Network, "/readyz", "").await;
    let well = serde_json::json!({"ready": true, "draining": false,
        "checks": [{"name": "store", "ok": true, "reason": null}]});
    assert_eq!((answer.status, answer.json()), (200, well));
    missing.store(true, Ordering::Relaxed);
    let answer = get(&admin, Reach::Network, "/readyz", "").await;
    let degraded = serde_json::json!({"ready": true, "degraded": true, "draining": false,
        "checks": [{"name": "store", "ok": true, "degraded": true, "reason": "degraded: it is away"}]});
    assert_eq!((answer.status, answer.json()), (200, degraded));
    admin.drain();
    let answer = get(&admin, Reach::Network, "/readyz", "").await;
    assert_eq!((answer.status, &answer.json()["degraded"]), (503, &serde_json::Value::Null));
}

#[tokio::test]
async fn a_gateway_that_shares_nothing_says_so() {
    let World { admin, .. } = world();
    let answer = get(&admin, Reach::Loopback, "/api/v1/replicas", "").await;
    assert_eq!((answer.status, answer.json()), (200, serde_json::json!({"shared": false})));
    assert_eq!(get(&admin, Reach::Network, "/api/v1/replicas", "").await.status, 401);
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

#[tokio::test]
async fn the_page_may_run_its_own_scripts_and_nothing_else_may_run_any() {
    let World { admin, .. } = world();
    for file in PageFile::ALL {
        let answer = get(&admin, Reach::Loopback, file.as_str(), "").await;
        let policy = answer.header("content-security-policy").unwrap();
        for rule in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "require-trusted-types-for 'script'",
            "frame-ancestors 'none'",
            "form-action 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(rule), "{file}: {rule}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"), "{policy}");
        assert_eq!(
            (answer.header("x-frame-options"), answer.header("referrer-policy")),
            (Some("DENY"), Some("no-referrer"))
        );
        assert_eq!(answer.body, file.content().1.as_bytes());
    }
    let data = get(&admin, Reach::Loopback, "/api/v1/status", "").await;
    assert!(!data.header("content-security-policy").unwrap().contains("script-src"));
    let foreign = "GET / HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
    assert_eq!(exchange(&admin, Reach::Loopback, foreign).await.status, 403);
}

/// Begins to watch; the answer so far is read up to `until`.
async fn watch(admin: &Arc<Admin>, path: &str, until: &str) -> (tokio::io::DuplexStream, String) {
    let (mut ours, theirs) = tokio::io::duplex(256 * 1024);
    Tasks::new().spawn_background(serve_connection(theirs, Arc::clone(admin), Reach::Loopback));
    ours.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    let text = read_until(&mut ours, until).await;
    (ours, text)
}

async fn read_until(from: &mut tokio::io::DuplexStream, until: &str) -> String {
    let mut read = Vec::new();
    let mut some = vec![0; 16 * 1024];
    while !String::from_utf8_lossy(&read).contains(until) {
        let count = from.read(&mut some).await.unwrap();
        assert!(count > 0, "ended: {}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&some[..count]);
    }
    String::from_utf8(read).unwrap()
}

#[tokio::test(start_paused = true)]
async fn whoever_watches_gets_the_whole_again_and_again_until_the_stream_is_over() {
    let World { admin, .. } = world();
    let (mut viewer, first) = watch(&admin, "/api/v1/live", "\n\n\r\n").await;
    assert!(
        first.starts_with("HTTP/1.1 200 OK\r\n") && first.contains("content-type: text/event-stream\r\n"),
        "{first}"
    );
    assert!(first.contains("cache-control: no-store") && !first.contains("content-encoding"), "{first}");
    let data = first.split("data: ").nth(1).unwrap().lines().next().unwrap();
    let view: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(
        (&view["orgs"], &view["org"], &view["readiness"]["ready"]),
        (&serde_json::json!([]), &serde_json::Value::Null, &true.into())
    );
    let mut events = 1;
    loop {
        let before = admin.telemetry.now();
        let more = read_until(&mut viewer, "\r\n").await;
        if more.starts_with("0\r\n") || more.contains("\r\n0\r\n") {
            break;
        }
        events += more.matches("event: view").count();
        assert!(admin.telemetry.now() - before <= Duration::from_secs(3));
        assert!(events <= 300, "it never ends");
    }
    assert!(events > 200, "{events}");
}

#[tokio::test(start_paused = true)]
async fn only_so_many_may_watch_and_a_place_is_free_again_when_one_leaves() {
    let World { admin, .. } = world();
    let mut viewers = Vec::new();
    for _ in 0..VIEWERS {
        viewers.push(watch(&admin, "/api/v1/live?org=prod", "event: view").await);
    }
    let turned_away = get(&admin, Reach::Loopback, "/api/v1/live", "").await;
    assert_eq!((turned_away.status, turned_away.header("retry-after")), (503, Some("10")));
    assert_eq!(turned_away.json()["error"], "too_many_viewers");
    // They keep nobody else out.
    assert_eq!(get(&admin, Reach::Loopback, "/readyz", "").await.status, 200);
    viewers.pop();
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (_place, answer) = watch(&admin, "/api/v1/live", "event: view").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let wrong = get(&admin, Reach::Loopback, "/api/v1/live?key=wk_1", "").await;
    assert_eq!((wrong.status, &wrong.json()["error"]), (400, &"bad_request".into()));
}

/// An org of ten thousand callers that each used something.
fn many() -> BudgetSnapshot {
    use crate::admission::{Funding, Ledger, OrgSettings, Share, Timeline};

    let clock = Clock::start();
    let now = clock.now();
    let timeline = Timeline::start(clock, now, Duration::ZERO);
    let shares: Vec<_> = (0..10_000).map(|number| Share::borrower(format!("caller-{number}"))).collect();
    let ledger = Ledger::new(OrgSettings::default(), &shares, Funding::Unbounded, timeline, now);
    let mut callers = ledger.callers(now);
    for (place, caller) in callers.iter_mut().enumerate() {
        caller.used = 20_000 - place as u64;
        caller.paused = place % 10 == 9;
    }
    BudgetSnapshot {
        org: "prod".to_owned(),
        mode: crate::config::DailyMode::Enforce,
        budget: ledger.org(now),
        returning_by_hour: [0; 24],
        shared: None,
        callers,
        paces: Vec::new(),
        top_clients: crate::telemetry::TopClients::default(),
        bulk_batches: crate::telemetry::BulkBatches::default(),
    }
}

#[tokio::test]
async fn ten_thousand_callers_are_no_more_to_show_than_forty() {
    let World { admin, .. } = world();
    let budget = many();
    let mut second = budget.clone();
    second.org = "test".to_owned();
    admin.telemetry.add_source(move |snapshot| snapshot.budgets = vec![budget.clone(), second.clone()]);
    let text = admin.view("test");
    assert!(text.len() < 48 * 1024, "{}", text.len());
    let view: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(view["org"]["name"], "test");
    let names: Vec<_> = view["orgs"].as_array().unwrap().iter().map(|org| org["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["prod", "test"]);
    let callers = view["org"]["callers"].as_array().unwrap();
    assert_eq!(callers[..40].iter().filter(|caller| caller["paused"] == true).count(), 4);
    assert!(
        callers.len() > 40 && callers[40..].iter().all(|caller| caller["paused"] == true),
        "who is paused can be resumed"
    );
    let others = &view["org"]["others"];
    assert_eq!(others["callers"].as_u64().unwrap() + callers.len() as u64, 10_000);
    let shown: u64 = callers.iter().map(|caller| caller["used"].as_u64().unwrap()).sum();
    assert_eq!(shown + others["used"].as_u64().unwrap(), (10_001..=20_000).sum::<u64>());
    // An org that there is not is the first one.
    let first: serde_json::Value = serde_json::from_slice(&admin.view("nowhere")).unwrap();
    assert_eq!(first["org"]["name"], "prod");
}
