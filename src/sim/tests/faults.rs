//! Scripted faults, seen from the caller's side.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Caller, config, since, token};
use crate::sim::{Fault, FaultAction, Sim};

fn once(action: FaultAction) -> Fault {
    Fault { times: Some(1), action, ..Fault::default() }
}

/// Sends a GET on a raw connection and returns all that comes back.
async fn raw(sim: &Sim, path: &str) -> String {
    let mut io = sim.connect_in_memory();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: sim\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
        token("admin")
    );
    io.write_all(request.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    io.read_to_end(&mut seen).await.unwrap();
    String::from_utf8_lossy(&seen).into_owned()
}

#[tokio::test(start_paused = true)]
async fn answers_can_be_replaced() {
    let mut caller = Caller::admin(config()).await;
    let script_of = |caller: &Caller, action| caller.sim.script().fault(once(action));
    script_of(&caller, FaultAction::Unavailable { html: false, retry_after_seconds: Some(7) });
    let busy = caller.get("sobjects").await;
    assert_eq!((busy.status, busy.code().as_str(), busy.header("retry-after")), (503, "SERVER_UNAVAILABLE", "7"));
    script_of(&caller, FaultAction::Unavailable { html: true, retry_after_seconds: None });
    let down = caller.get("sobjects").await;
    assert_eq!((down.status, down.header("content-type")), (503, "text/html;charset=UTF-8"));
    assert!(!down.headers.contains_key("retry-after"));
    script_of(&caller, FaultAction::LockRow { wrapped: false });
    assert_eq!(caller.post("sobjects/Account", &json!({"Name": "x"})).await.code(), "UNABLE_TO_LOCK_ROW");
    script_of(&caller, FaultAction::LockRow { wrapped: true });
    let wrapped = caller.post("sobjects/Account", &json!({"Name": "x"})).await;
    assert_eq!(wrapped.code(), "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY");
    assert!(wrapped.json()[0]["message"].as_str().unwrap().contains("UNABLE_TO_LOCK_ROW"));
    script_of(&caller, FaultAction::Error { status: 400, code: "QUERY_TIMEOUT".into(), message: "too long".into() });
    assert_eq!(caller.query("SELECT Id FROM Account").await.code(), "QUERY_TIMEOUT");
    assert_eq!(caller.sim.counts().charged, 5);
    assert!(caller.sim.counts().writes.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_401_may_be_one_that_no_log_in_mends() {
    let mut caller = Caller::admin(config()).await;
    for words in ["This session is not valid for use with the REST API", "Connected app is not attached to Agent"] {
        let action = FaultAction::Error { status: 401, code: "INVALID_SESSION_ID".into(), message: words.into() };
        caller.sim.script().fault(once(action));
        let refused = caller.get("sobjects").await;
        assert_eq!(refused.json(), json!([{"message": words, "errorCode": "INVALID_SESSION_ID"}]));
        assert_eq!((refused.status, caller.get("sobjects").await.status), (401, 200));
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_may_be_done_although_nobody_hears_of_it() {
    let sim = Sim::new(config());
    let lead = json!({"LastName": "L", "Company": "C"});
    let mut caller = Caller::of(&sim, "admin").await;
    sim.script().fault(once(FaultAction::ApplyThenStatus { status: 502 }));
    assert_eq!(caller.post("sobjects/Lead", &lead).await.status, 502);
    sim.script().fault(once(FaultAction::Close { apply: true, reset: false }));
    assert!(caller.send("POST", "sobjects/Lead", lead.to_string()).await.is_err());
    let mut caller = Caller::of(&sim, "admin").await;
    sim.script().fault(once(FaultAction::Close { apply: false, reset: false }));
    assert!(caller.send("POST", "sobjects/Lead", lead.to_string()).await.is_err());
    let counts = sim.counts();
    assert_eq!((counts.writes["Lead"].created, counts.charged, counts.by_status[&0]), (2, 3, 2));
}

#[tokio::test(start_paused = true)]
async fn bodies_can_be_too_short_too_long_or_no_http_at_all() {
    let sim = Sim::new(config());
    let path = "/services/data/v62.0/recent";
    sim.script().fault(once(FaultAction::Truncate { body_bytes: 1 }));
    let short = raw(&sim, path).await;
    assert!(short.contains("content-length: 2\r\n") && short.ends_with("\r\n\r\n["), "{short}");
    sim.script().fault(once(FaultAction::Overlong { extra_bytes: 3 }));
    let long = raw(&sim, path).await;
    assert!(long.contains("content-length: 2\r\n") && long.ends_with("\r\n\r\n[]   "), "{long}");
    sim.script().fault(once(FaultAction::Garbage { text: "SSH-2.0-x\r\n".into() }));
    assert_eq!(raw(&sim, path).await, "SSH-2.0-x\r\n");
    assert!(raw(&sim, path).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test(start_paused = true)]
async fn hanging_and_trickling_take_simulated_time() {
    let sim = Sim::new(config());
    let mut caller = Caller::of(&sim, "admin").await;
    sim.script().fault(once(FaultAction::Trickle { piece_bytes: 1_000, pause_ms: 5_000 }));
    let before = sim.now();
    assert_eq!(caller.get("sobjects").await.status, 200);
    assert!(since(&sim, before) > Duration::from_secs(20));
    sim.script().fault(once(FaultAction::Hang { milliseconds: 600_000 }));
    let before = sim.now();
    assert!(caller.send("GET", "sobjects", "").await.is_err());
    assert!(since(&sim, before) >= Duration::from_mins(10));
}

#[tokio::test(start_paused = true)]
async fn the_control_path_scripts_without_being_counted() {
    let mut caller = Caller::admin(config()).await;
    let fault = json!({"object": "Account", "times": 1, "action": {"unavailable": {"html": false}}});
    assert_eq!(caller.post("/__sim/faults", &fault).await.status, 200);
    assert_eq!(caller.get("sobjects/Account").await.status, 503);
    assert_eq!(caller.get("sobjects/Account").await.status, 200);
    let moved = json!({"times": 1, "action": {"answer": {"status": 301, "body": "", "content_type": "text/html",
        "headers": [["Location", "https://new.my.salesforce.com/"]]}}});
    assert_eq!(caller.post("/__sim/faults", &moved).await.status, 200);
    assert_eq!(caller.get("sobjects").await.header("location"), "https://new.my.salesforce.com/");
    let bad = caller.post("/__sim/faults", &json!({"objct": "Account"})).await;
    assert_eq!(bad.status, 400);
    assert_eq!(caller.post("/__sim/set", &json!({"daily_limit": 7, "maintenance": "down"})).await.status, 200);
    assert_eq!(caller.get("sobjects").await.status, 503);
    let counts = caller.get("/__sim/counts").await.json();
    assert_eq!(
        (counts["requests"].clone(), counts["charged"].clone(), counts["limit"].clone()),
        (json!(4), json!(4), json!(7))
    );
    let requests = caller.get("/__sim/requests").await;
    assert!(!String::from_utf8_lossy(&requests.body).contains(&token("admin")));
    assert_eq!(caller.post("/__sim/reset", &json!({})).await.status, 200);
    assert_eq!(caller.get("/__sim/counts").await.json()["requests"], 0);
}

#[tokio::test(start_paused = true)]
async fn blobs_stream_without_being_held() {
    let sim = Sim::new(config());
    let mut caller = Caller::of(&sim, "admin").await;
    let found = caller.query("SELECT Id FROM ContentVersion WHERE ContentSize = 1048576").await.json();
    let id = found["records"][0]["Id"].as_str().unwrap().to_owned();
    let reply = caller.get(&format!("sobjects/ContentVersion/{id}/VersionData")).await;
    assert_eq!((reply.body.len(), reply.header("content-length")), (1 << 20, "1048576"));
    assert_eq!(reply.header("content-type"), "application/octetstream");
}
