//! Calls, limits, places: the books.

use std::time::Duration;

use serde_json::json;

use super::{Caller, config, spawn};
use crate::sim::{Fault, Sim, SimConfig, SimCosts, SimDaily};

fn with_limit(limit: u64) -> SimConfig {
    SimConfig { daily: SimDaily { limit, ..SimDaily::default() }, ..config() }
}

#[tokio::test(start_paused = true)]
async fn the_daily_limit_is_hard_and_trails() {
    let sim = Sim::new(with_limit(3));
    let mut caller = Caller::of(&sim, "admin").await.with("sforce-call-options", "client=billing");
    for used in 1..=3 {
        let reply = caller.get("sobjects").await;
        assert_eq!(reply.header("sforce-limit-info"), format!("api-usage={used}/3"));
    }
    let refused = caller.get("sobjects").await;
    assert_eq!(refused.status, 403);
    assert_eq!(
        refused.json(),
        json!([{"message": "TotalRequests Limit exceeded.", "errorCode": "REQUEST_LIMIT_EXCEEDED"}])
    );
    assert!(!refused.headers.contains_key("retry-after"));
    sim.script().advance(Duration::from_hours(24));
    assert_eq!(caller.get("sobjects").await.status, 200);
    let counts = sim.counts();
    // The refused one cost a call as well: the switch is on by default.
    assert_eq!((counts.charged, counts.used, counts.refused_daily), (5, 1, 1));
    assert_eq!((counts.by_client["billing"], counts.used_by_client["billing"]), (5, 1));
    assert_eq!(counts.by_family["rest"], 5);
    assert_eq!(counts.by_user["admin@sim.example"], 5);
}

#[tokio::test(start_paused = true)]
async fn a_soft_limit_lets_some_pass() {
    let mut config = with_limit(2);
    config.daily.overage = 2;
    config.header.bursts = true;
    let mut caller = Caller::admin(config).await;
    for _ in 0..3 {
        assert_eq!(caller.get("sobjects").await.status, 200);
    }
    let last = caller.get("sobjects").await;
    assert_eq!((last.status, last.header("sforce-limit-info")), (200, "api-usage=4/2; api-bursts=1/750"));
    assert_eq!(caller.get("sobjects").await.status, 403);
}

#[tokio::test(start_paused = true)]
async fn undocumented_costs_are_switches() {
    let free = SimCosts { not_modified: 0, client_error: 0, server_error: 0, refusal: 0, oauth: 0, limits: 0 };
    let sim = Sim::new(SimConfig { costs: free, ..with_limit(1) });
    let mut caller = Caller::of(&sim, "admin").await;
    caller.get("limits").await;
    caller.get("nonsense").await;
    let mut fresh = Caller::of(&sim, "admin").await.with("if-modified-since", "Sun, 22 Nov 2026 12:00:00 GMT");
    assert_eq!(fresh.get("sobjects").await.status, 304);
    assert_eq!(sim.counts().charged, 0);
    caller.get("sobjects").await;
    assert_eq!(caller.get("sobjects").await.status, 403);
    assert_eq!(sim.counts().charged, 1);
}

#[tokio::test(start_paused = true)]
async fn composite_costs_one_and_batch_each_subrequest() {
    let mut caller = Caller::admin(config()).await;
    let id = caller.account().await;
    let before = caller.sim.counts().charged;
    let url = format!("/services/data/v62.0/sobjects/Account/{id}");
    let subs: Vec<_> = (0..10).map(|n| json!({"method": "GET", "url": url, "referenceId": format!("r{n}")})).collect();
    assert_eq!(caller.post("composite", &json!({"compositeRequest": subs})).await.status, 200);
    assert_eq!(caller.sim.counts().charged - before, 1);
    let subs: Vec<_> = (0..7).map(|_| json!({"method": "GET", "url": url})).collect();
    let batch = caller.post("composite/batch", &json!({"batchRequests": subs})).await;
    assert_eq!(batch.json()["hasErrors"], false);
    assert_eq!(caller.sim.counts().charged - before, 8);
    assert_eq!(caller.sim.counts().by_family["batch"], 7);
}

#[tokio::test(start_paused = true)]
async fn only_calls_of_twenty_seconds_take_places() {
    let sim = Sim::new(config());
    sim.script().fault(Fault { object: Some("Case".into()), latency_ms: 60_000, ..Fault::default() });
    let mut slow = Vec::new();
    for _ in 0..26 {
        let mut caller = Caller::of(&sim, "admin").await;
        slow.push(spawn(async move { caller.get("sobjects/Case").await.status }));
    }
    tokio::time::sleep(Duration::from_secs(19)).await;
    let mut caller = Caller::of(&sim, "admin").await;
    assert_eq!(caller.get("sobjects").await.status, 200);
    assert_eq!(sim.counts().slots, 0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(sim.counts().slots, 26);
    let refused = caller.get("sobjects").await;
    assert_eq!(refused.status, 403);
    assert_eq!(refused.json()[0]["message"], "ConcurrentRequests (Concurrent API Requests) Limit exceeded.");
    for call in slow {
        assert_eq!(call.await.unwrap(), 200);
    }
    assert_eq!(caller.get("sobjects").await.status, 200);
    let counts = sim.counts();
    assert_eq!((counts.slots, counts.slots_peak, counts.running, counts.refused_concurrent), (0, 26, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_call_goes_on_after_its_caller_left() {
    let sim = Sim::new(config());
    sim.script().fault(Fault { method: Some("POST".into()), latency_ms: 30_000, ..Fault::default() });
    let mut caller = Caller::of(&sim, "admin").await;
    let lead = json!({"LastName": "L", "Company": "C"});
    let gone = tokio::time::timeout(Duration::from_secs(1), caller.post("sobjects/Lead", &lead));
    assert!(gone.await.is_err());
    drop(caller);
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert_eq!((sim.counts().running, sim.counts().slots), (1, 1));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(sim.counts().running, 0);
    assert_eq!(sim.counts().writes["Lead"].created, 1);
}

#[tokio::test(start_paused = true)]
async fn the_header_may_lag_and_dark_callers_show_in_it() {
    let mut config = with_limit(1_000);
    config.header.lag_seconds = 60;
    let mut caller = Caller::admin(config).await;
    assert_eq!(caller.get("sobjects").await.header("sforce-limit-info"), "api-usage=0/1000");
    caller.sim.script().dark(60.0);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(caller.get("sobjects").await.header("sforce-limit-info"), "api-usage=1/1000");
    tokio::time::sleep(Duration::from_mins(1)).await;
    let shown = caller.get("sobjects").await.header("sforce-limit-info").to_owned();
    assert_eq!(shown, "api-usage=63/1000");
    let counts = caller.sim.counts();
    assert_eq!((counts.charged, counts.dark, counts.used), (3, 121, 124));
    caller.sim.script().set_header_lag(0);
    assert_eq!(caller.get("sobjects").await.header("sforce-limit-info"), "api-usage=125/1000");
}

#[tokio::test(start_paused = true)]
async fn limits_tell_what_remains() {
    let mut config = with_limit(50);
    config.header.per_app.insert("tap".to_owned(), 20);
    let mut caller = Caller::admin(config).await.with("sforce-call-options", "client=tap");
    let reply = caller.get("limits").await;
    assert_eq!(reply.json()["DailyApiRequests"], json!({"Max": 50, "Remaining": 49}));
    assert_eq!(reply.header("sforce-limit-info"), "api-usage=1/50; per-app-api-usage=1/20(appName=tap)");
}

#[tokio::test(start_paused = true)]
async fn limits_may_be_old_and_may_be_refused() {
    let mut config = with_limit(50);
    config.header.limits_lag_seconds = 300;
    let sim = Sim::new(config);
    let mut caller = Caller::of(&sim, "admin").await;
    caller.get("sobjects").await;
    sim.script().advance(Duration::from_secs(299));
    let reply = caller.get("limits").await;
    assert_eq!(reply.json()["DailyApiRequests"], json!({"Max": 50, "Remaining": 50}));
    assert_eq!(reply.header("sforce-limit-info"), "api-usage=2/50", "the header has a lag of its own");
    sim.script().advance(Duration::from_secs(2));
    assert_eq!(caller.get("limits").await.json()["DailyApiRequests"]["Remaining"], 49);
    // The user lacks the permission to see them.
    assert_eq!(Caller::of(&sim, "sales").await.get("limits").await.status, 403);
}

#[tokio::test(start_paused = true)]
async fn calls_may_come_back_in_steps() {
    let mut config = with_limit(2);
    config.daily.release_step_seconds = 3_600;
    let sim = Sim::new(config);
    let mut caller = Caller::of(&sim, "admin").await;
    sim.script().advance(Duration::from_mins(30));
    for _ in 0..2 {
        assert_eq!(caller.get("sobjects").await.status, 200);
    }
    sim.script().advance(Duration::from_hours(24));
    assert_eq!(caller.get("sobjects").await.status, 403, "not to the second");
    sim.script().advance(Duration::from_mins(31));
    assert_eq!(caller.get("sobjects").await.status, 200);
}
