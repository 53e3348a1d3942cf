//! Promise: while Salesforce is down it is left alone, and when it is back it is loaded slowly; one user's trouble is nobody
//! else's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use tokio::time::{Instant, sleep};
use weirkeeper::sim::{Fault, FaultAction, SimConfig};

use crate::client::{Answer as _, Client, absolute};
use crate::world::{World, small};

const ENFORCED: &str = "retry: {mode: enforce}\nbreaker: {mode: enforce}";
/// What the reader of the outage asks for may be old while Salesforce is down.
const WITH_CACHE: &str = "retry: {mode: enforce}
breaker: {mode: enforce}
cache:
  entries: [{match: {objects: [Contact], operations: [query]}, fresh: 10s, stale_if_error: 1h}]
  session_recheck: 1h";
const CLIENTS: u64 = 50;

/// An app that asks every two seconds, and repeats like jsforce what fails: each call up to six times over 15.6 s (facts 11).
async fn app(mut client: Client, number: u64, stop: Arc<AtomicBool>) {
    sleep(Duration::from_millis(2_000 * number / CLIENTS)).await;
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        for attempt in 0..6 {
            let answer = client.query("SELECT Id FROM Account LIMIT 1").await;
            if answer.code() == 200 || stop.load(Ordering::Relaxed) {
                break;
            }
            if attempt < 5 {
                sleep(Duration::from_millis(500 << attempt)).await;
            }
        }
        sleep(Duration::from_secs(2).saturating_sub(began.elapsed())).await;
    }
}

/// An app that shows something that may be old, every 15 s: how often that was well, stale, and nothing.
async fn reader(mut client: Client, stop: Arc<AtomicBool>) -> (u64, u64, u64) {
    let (mut well, mut stale, mut nothing) = (0, 0, 0);
    while !stop.load(Ordering::Relaxed) {
        let answer = client.query("SELECT Id FROM Contact LIMIT 1").await;
        if answer.code() != 200 {
            nothing += 1;
        } else if answer.header("cache-status").contains("ttl=-") {
            stale += 1;
        } else {
            well += 1;
        }
        sleep(Duration::from_secs(15)).await;
    }
    (well, stale, nothing)
}

/// While it is down, the simulator charges nothing; the gateway counts what nobody knows as charged.
fn charges_less(world: &World) {
    let ours: u64 = world.lines().iter().filter_map(|line| line["charged"].as_u64()).sum();
    world.counts_more(ours as i64 - world.sim.counts().charged as i64);
}

/// What an outage of 20 minutes looks like from Salesforce: requests during it, and in each second after it.
async fn outage(through: bool) -> (u64, Vec<u64>, f64) {
    let world = World::new(WITH_CACHE);
    let stop = Arc::new(AtomicBool::new(false));
    let apps: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let client = if through { world.client() } else { world.direct() };
            tokio::spawn(app(client, number, Arc::clone(&stop)))
        })
        .collect();
    let client = if through { world.client() } else { world.direct() };
    let reader = tokio::spawn(reader(client, Arc::clone(&stop)));
    sleep(Duration::from_mins(2)).await;
    let calls = || world.sim.counts().requests;
    let before = calls();
    sleep(Duration::from_mins(1)).await;
    let usual = (calls() - before) as f64 / 60.0;
    world.sim.script().take_down();
    let down = calls();
    sleep(Duration::from_mins(20)).await;
    let wasted = calls() - down;
    world.sim.script().end_maintenance();
    let mut seconds = Vec::new();
    for _ in 0..180 {
        let before = calls();
        sleep(Duration::from_secs(1)).await;
        seconds.push(calls() - before);
    }
    stop.store(true, Ordering::Relaxed);
    for app in apps {
        app.await.unwrap();
    }
    let (well, stale, nothing) = reader.await.unwrap();
    println!("who may be shown what is old: {well} times new, {stale} times stale, {nothing} times nothing");
    if through {
        assert!(nothing == 0 && stale >= 20 * 60 / 15, "{well} {stale} {nothing}");
        assert_eq!(world.metric("weirkeeper_breaker_opened_total", &[("family", "query")]) as u64, 1);
        let log = world.log.text();
        let events = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let states: Vec<_> = events.filter(|event| event["event"] == "breaker").collect();
        assert!(states.iter().all(|event| event["family"] == "query" && event["of_user"] == false), "{states:?}");
        let states: Vec<_> = states.iter().map(|event| event["state"].as_str().unwrap()).collect();
        assert_eq!(states, ["open", "half_open", "closed"]);
        charges_less(&world);
        world.close().await;
    }
    (wasted, seconds, usual)
}

#[tokio::test(start_paused = true)]
async fn twenty_minutes_of_503_cost_next_to_nothing_and_end_without_a_spike() {
    let (direct, _, usual) = outage(false).await;
    let (wasted, after, same) = outage(true).await;
    let highest = after.iter().copied().max().unwrap_or_default();
    let back = after.iter().position(|calls| *calls as f64 >= 0.9 * same);
    println!(
        "20 minutes of 503, 50 apps that retry: {direct} calls wasted directly, {wasted} through the gateway ({:.2} %); \
         usual {same:.0}/s, at most {highest}/s afterwards ({:.2} times), back at 90 % after {back:?} s",
        wasted as f64 * 100.0 / direct as f64,
        highest as f64 / same
    );
    assert!((usual - same).abs() < 1.0, "{usual} {same}");
    assert!(wasted * 100 < direct, "{wasted} of {direct}");
    assert!(highest as f64 <= 1.2 * same, "{after:?}");
    assert!(back.is_some(), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn one_users_quota_holds_nobody_else_back() {
    let world = World::new(ENFORCED);
    let (stopped, fine) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut others = Vec::new();
    for user in ["integration", "sales"] {
        let (mut client, fine) = (world.client().user(user), Arc::clone(&fine));
        others.push(tokio::spawn(async move {
            for _ in 0..150 {
                for target in ["chatter/users/me", "query?q=SELECT+Id+FROM+Account+LIMIT+1"] {
                    let answer = client.get(target).await;
                    assert_eq!(answer.code(), 200, "{target}: {}", answer.text());
                    fine.fetch_add(1, Ordering::Relaxed);
                }
                sleep(Duration::from_secs(1)).await;
            }
        }));
    }
    // Its 200 calls of the hour are soon used up, and it does not stop asking.
    let mut greedy = world.client();
    for _ in 0..1_500 {
        let answer = greedy.get("chatter/users/me").await;
        stopped.fetch_add(u64::from(answer.header("weirkeeper-refused") == "circuit_open"), Ordering::Relaxed);
        assert_eq!(greedy.get("sobjects/Account/describe").await.code(), 200, "its other calls go on");
        sleep(Duration::from_millis(100)).await;
    }
    for other in others {
        other.await.unwrap();
    }
    let stopped = stopped.load(Ordering::Relaxed);
    println!(
        "one user beyond its Chatter quota: {stopped} of its 1,300 calls too many were not sent; {} of others went well",
        fine.load(Ordering::Relaxed)
    );
    assert!(stopped > 1_200, "{stopped}");
    assert!(world.metric("weirkeeper_breaker_opened_total", &[]) < 0.5, "no API is held back");
    assert!(world.metric("weirkeeper_breaker_users_held_back", &[]) > 0.5);
    world.close().await;
}

/// Many calls at once, of which only two may be in the air, to what is not well: few are sent.
async fn queued(simulated: SimConfig, target: &str, fault: Option<FaultAction>) {
    let config = "callers: [{name: anyone, match: any, class: batch, in_flight: 2}]\nbreaker: {mode: enforce}";
    let world = World::with(simulated, config);
    if let Some(action) = fault {
        world.sim.script().fault(Fault { action, ..Fault::default() });
    }
    world.sim.script().latency(300, 0);
    let before = world.sim.counts().requests;
    let calls: Vec<_> = (0..60)
        .map(|_| {
            let (mut client, target) = (world.client(), target.to_owned());
            tokio::spawn(async move {
                let answer = client.get(&target).await;
                (answer.code(), answer.header("weirkeeper-refused").to_owned())
            })
        })
        .collect();
    let mut refused = 0;
    for call in calls {
        let (status, reason) = call.await.unwrap();
        assert_eq!(status, 503);
        refused += u64::from(reason == "circuit_open");
    }
    let sent = world.sim.counts().requests - before;
    println!("60 calls of {target} at once, 2 at a time: {sent} sent, {refused} refused while they waited");
    assert_eq!(sent + refused, 60);
    assert!(sent <= 24, "{sent}");
    world.sim.script().latency(0, 0);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_does_not_burst_into_what_has_broken_meanwhile() {
    let unavailable = FaultAction::Unavailable { html: false, retry_after_seconds: None };
    queued(small(), "query?q=SELECT+Id+FROM+Account+LIMIT+1", Some(unavailable)).await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_does_not_burst_into_its_own_quota() {
    queued(SimConfig { chatter_per_hour: 0, ..small() }, "chatter/users/me", None).await;
}

#[tokio::test(start_paused = true)]
async fn who_may_not_write_during_maintenance_can_still_read() {
    let world = World::new(ENFORCED);
    let mut client = world.client();
    let row = format!("sobjects/Account/{}", client.any("Account").await);
    world.sim.script().make_read_only();
    for _ in 0..60 {
        for _ in 0..2 {
            let refused = client.patch(&row, &json!({"Name": "changed"})).await;
            let text = refused.text();
            assert!(text.contains("INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE"), "{text}");
        }
        assert_eq!(client.get(&row).await.code(), 200);
    }
    let failed = world.metric("weirkeeper_upstream_errors_total", &[("kind", "maintenance")]);
    assert_eq!((failed as u64, world.sim.counts().requests), (120, 181), "recognised, and sent once each");
    world.sim.script().end_maintenance();
    assert_eq!(client.patch(&row, &json!({"Name": "changed"})).await.code(), 204, "at once");
    assert!(world.metric("weirkeeper_breaker_opened_total", &[]) < 0.5);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_free_is_asked_first_and_then_one_call_goes() {
    let world = World::new("breaker: {mode: enforce}");
    let mut client = world.client();
    world.sim.script().take_down();
    for _ in 0..20 {
        assert_eq!(client.get("limits").await.code(), 503);
    }
    client.get("limits").await.is_refusal(503, "circuit_open", "SERVER_UNAVAILABLE");
    let seen = |world: &World, from: usize| {
        let all = world.sim.requests();
        all.iter().skip(from).map(|request| request.target.clone()).collect::<Vec<_>>()
    };
    assert_eq!(seen(&world, 0).len(), 20);
    sleep(Duration::from_secs(6)).await;
    let refused = client.get("limits").await;
    refused.is_refusal(503, "circuit_open", "SERVER_UNAVAILABLE");
    assert_eq!(seen(&world, 20), ["/services/data/"], "it costs nothing, and the call was not sent");
    let after: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=13).contains(&after), "{after}");
    world.sim.script().end_maintenance();
    sleep(Duration::from_secs(11)).await;
    // Ten come at once: one finds out.
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let mut client = world.client();
            tokio::spawn(async move { client.get("limits").await.code() })
        })
        .collect();
    let mut well = 0;
    for call in calls {
        well += u64::from(call.await.unwrap() == 200);
    }
    assert_eq!((well, seen(&world, 21)), (1, vec!["/services/data/".to_owned(), absolute("limits")]));
    charges_less(&world);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_urgent_comes_back_first() {
    let world = World::new(
        "callers:
- {name: shop, match: {call_options_client: shop}, class: interactive}
- {name: etl, match: {call_options_client: etl}, class: batch}
breaker: {mode: enforce}",
    );
    let (shop, etl) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let stop = Arc::new(AtomicBool::new(false));
    let apps: Vec<_> = [("client=etl", &etl), ("client=shop", &shop)]
        .map(|(name, served)| {
            let (mut client, served, stop) = (world.client(), Arc::clone(served), Arc::clone(&stop));
            client = client.with("sforce-call-options", name);
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    if client.get("limits").await.code() == 200 {
                        served.lock().push(Instant::now());
                    }
                    sleep(Duration::from_millis(50)).await;
                }
            })
        })
        .into_iter()
        .collect();
    sleep(Duration::from_mins(1)).await;
    world.sim.script().take_down();
    sleep(Duration::from_mins(1)).await;
    world.sim.script().end_maintenance();
    let back = Instant::now();
    sleep(Duration::from_mins(3)).await;
    stop.store(true, Ordering::Relaxed);
    for app in apps {
        app.await.unwrap();
    }
    let first = |served: &Mutex<Vec<Instant>>| {
        let served = served.lock();
        let first = served.iter().find(|at| **at > back).copied().unwrap();
        let last_minute = back + Duration::from_mins(2);
        (first - back, served.iter().filter(|at| **at > last_minute).count())
    };
    let ((urgent, urgent_calls), (patient, patient_calls)) = (first(&shop), first(&etl));
    println!("after the outage interactive calls come back after {urgent:?}, batch after {patient:?}");
    assert!(patient >= urgent + Duration::from_secs(14), "half a ramp later: {urgent:?} {patient:?}");
    assert!(urgent_calls > 1_000 && patient_calls > 1_000, "{urgent_calls} {patient_calls}");
    charges_less(&world);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn refusals_of_our_own_open_nothing() {
    let world = World::new(
        "callers: [{name: anyone, match: any, pace: {per_second: 1, burst: 1, queue: 1, wait: 1s}}]\nbreaker: {mode: enforce}",
    );
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let mut client = world.client();
            tokio::spawn(async move { client.get("limits").await.header("weirkeeper-refused").to_owned() })
        })
        .collect();
    let mut refused = 0;
    for call in calls {
        refused += u64::from(call.await.unwrap() == "caller_pace");
    }
    assert!(refused >= 90, "{refused}");
    sleep(Duration::from_secs(3)).await;
    assert_eq!(world.client().get("limits").await.code(), 200);
    assert!(world.metric("weirkeeper_breaker_opened_total", &[]) < 0.5);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_only_observes_holds_nothing_back() {
    let world = World::new("retry: {mode: off}\nbreaker: {mode: observe}");
    world.sim.script().take_down();
    let mut client = world.client();
    for _ in 0..100 {
        let answer = client.get("sobjects/Account").await;
        assert_eq!((answer.code(), answer.header("weirkeeper-refused")), (503, ""));
    }
    assert_eq!(world.sim.counts().requests, 100);
    assert!(world.metric("weirkeeper_would_refuse_total", &[("reason", "circuit_open")]) > 70.0);
    assert!(world.metric("weirkeeper_breaker_state", &[("family", "rest")]) > 1.5);
    world.reload("retry: {mode: off}\nbreaker: {mode: enforce}");
    // A reload forgets nothing: it is open, and now it holds back.
    client.get("sobjects/Account").await.is_refusal(503, "circuit_open", "SERVER_UNAVAILABLE");
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_nobody_acts_on_opens_a_breaker_after_a_minute() {
    let world = World::new(ENFORCED);
    let refuse = FaultAction::Error {
        status: 403,
        code: "REQUEST_LIMIT_EXCEEDED".into(),
        message: "TotalRequests Limit exceeded.".into(),
    };
    let (mut client, mut minutes) = (world.client(), Vec::new());
    for _ in 0..600 {
        assert_eq!(client.query("SELECT Id FROM Account LIMIT 1").await.code(), 200);
        sleep(Duration::from_millis(100)).await;
    }
    world.sim.script().fault(Fault { action: refuse, ..Fault::default() });
    let mut refused = 0;
    for _ in 0..4 {
        let before = world.sim.counts().requests;
        for _ in 0..600 {
            refused += u64::from(client.query("SELECT Id FROM Account LIMIT 1").await.code() == 503);
            sleep(Duration::from_millis(100)).await;
        }
        minutes.push(world.sim.counts().requests - before);
    }
    println!("calls that reached Salesforce in each minute, of 600: {minutes:?}; {refused} held back");
    assert!(minutes[0] > 550, "the ledger has a minute, and only observes: {minutes:?}");
    assert!(minutes[2] + minutes[3] < 60 && refused > 1_100, "{minutes:?}");
    world.sim.script().clear_faults();
    sleep(Duration::from_mins(1)).await;
    let mut well = 0;
    for call in 0..1_200 {
        let answer = client.query("SELECT Id FROM Account LIMIT 1").await;
        well += u64::from(call >= 600 && answer.code() == 200);
        sleep(Duration::from_millis(100)).await;
    }
    assert!(well > 540, "{well} of 600 two minutes later");
    charges_less(&world);
    world.close().await;
}
