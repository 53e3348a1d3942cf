//! Promise: what fails in a way that passes is repeated until it has passed, within a budget and the caller's time, and
//! nothing is ever done twice or reported as what it may not be.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;
use weirkeeper::sim::{Fault, FaultAction};

use crate::client::{Answer as _, Client};
use crate::sdks::Sdk;
use crate::world::{Line, World};

const RETRY: &str = "retry: {mode: enforce}";

fn times(count: u64, action: FaultAction) -> Fault {
    Fault { times: Some(count), action, ..Fault::default() }
}

fn unavailable() -> FaultAction {
    FaultAction::Unavailable { html: false, retry_after_seconds: None }
}

fn error(status: u16, code: &str, message: &str) -> FaultAction {
    FaultAction::Error { status, code: code.to_owned(), message: message.to_owned() }
}

fn created(world: &World) -> u64 {
    world.sim.counts().writes.get("Account").map_or(0, |writes| writes.created)
}

fn retries(world: &World, reason: &str, result: &str) -> f64 {
    world.metric("weirkeeper_retries_total", &[("reason", reason), ("result", result)])
}

fn is(measured: f64, count: u32) -> bool {
    (measured - f64::from(count)).abs() < f64::EPSILON
}

#[tokio::test(start_paused = true)]
async fn a_read_is_repeated_until_salesforce_is_well() {
    let world = World::new(RETRY);
    let mut client = world.client();
    for action in [
        unavailable(),
        error(500, "UNKNOWN_EXCEPTION", "An unexpected error occurred."),
        FaultAction::ApplyThenStatus { status: 502 },
        FaultAction::Close { apply: false, reset: false },
        FaultAction::Garbage { text: "SSH-2.0\r\n".to_owned() },
        error(403, "REQUEST_LIMIT_EXCEEDED", "ConcurrentRequests (Concurrent API Requests) Limit exceeded."),
    ] {
        let before = world.sim.counts().requests;
        world.sim.script().fault(times(2, action.clone()));
        let answer = client.query("SELECT Id FROM Account LIMIT 1").await;
        assert_eq!(answer.code(), 200, "{action:?}: {}", answer.text());
        assert_eq!(answer.header("weirkeeper-outcome"), "");
        assert_eq!(world.sim.counts().requests, before + 3, "{action:?}");
        let line = world.last_line().await;
        assert_eq!(
            (&line["attempts"], &line["retry"], &line["retry_for"]),
            (&json!(3), &json!("succeeded"), &json!("usual")),
            "{line}"
        );
    }
    assert!(is(retries(&world, "usual", "succeeded"), 6));
    // What broke on the way was charged by nobody knows whom; the simulator says by nobody.
    let lost = i64::try_from(world.lines().iter().filter_map(|line| line["charged"].as_u64()).sum::<u64>()).unwrap();
    world.counts_more(lost - i64::try_from(world.sim.counts().charged).unwrap());
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_does_not_pass_is_not_repeated() {
    let world = World::new(RETRY);
    let mut client = world.client();
    for (action, kind) in [
        (error(404, "NOT_FOUND", "The requested resource does not exist"), "permanent"),
        (error(400, "INVALID_FIELD", "No such column"), "schema"),
        (error(400, "QUERY_TIMEOUT", "Your query request was running for too long."), "governor"),
        (error(401, "INVALID_SESSION_ID", "Session expired or invalid"), "auth"),
        (error(503, "ORG_IN_MAINTENANCE", "x"), "maintenance"),
        (error(429, "REQUEST_LIMIT_EXCEEDED", "slow down"), "limit_family"),
        (error(410, "UNSUPPORTED_API_VERSION", "x"), "version"),
    ] {
        let before = world.sim.counts().requests;
        world.sim.script().fault(times(1, action));
        client.get("sobjects/Account/001").await;
        assert_eq!(world.sim.counts().requests, before + 1, "{kind}");
        let line = world.last_line().await;
        assert_eq!((&line["failure"], &line["retry"]), (&json!(kind), &json!(null)), "{line}");
    }
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_is_repeated_if_it_was_refused_or_rolled_back_and_never_if_it_may_have_been_done() {
    let world = World::new(RETRY);
    let mut client = world.client();
    let account = json!({"Name": "Once"});
    let refused = error(403, "REQUEST_LIMIT_EXCEEDED", "ConcurrentPerOrgLongTxn Limit exceeded.");
    for action in [FaultAction::LockRow { wrapped: false }, FaultAction::LockRow { wrapped: true }, refused] {
        let before = created(&world);
        world.sim.script().fault(times(2, action.clone()));
        let answer = client.post("sobjects/Account", &account).await;
        assert_eq!((answer.code(), created(&world)), (201, before + 1), "{action:?}: {}", answer.text());
    }
    assert!(is(retries(&world, "lock", "succeeded"), 2) && is(retries(&world, "usual", "succeeded"), 1));
    for (action, done) in [
        (unavailable(), 0),
        (FaultAction::Unavailable { html: true, retry_after_seconds: None }, 0),
        (FaultAction::ApplyThenStatus { status: 502 }, 1),
        (FaultAction::ApplyThenStatus { status: 503 }, 1),
        (error(500, "UNKNOWN_EXCEPTION", "An unexpected error occurred."), 0),
    ] {
        let (before, requests) = (created(&world), world.sim.counts().requests);
        world.sim.script().fault(times(1, action.clone()));
        let answer = client.post("sobjects/Account", &account).await;
        assert!(answer.code() >= 500, "{action:?}");
        assert_eq!(answer.header("weirkeeper-outcome"), "unknown", "{action:?}: {}", answer.text());
        assert_eq!((created(&world) - before, world.sim.counts().requests - requests), (done, 1), "{action:?}");
        assert_eq!(world.last_line().await["outcome"], "unknown");
    }
    assert!(is(world.metric("weirkeeper_unknown_outcomes_total", &[]), 5));
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn an_upsert_by_a_key_is_repeated_and_an_update_by_id_is_not() {
    let world = World::new(RETRY);
    let mut client = world.client();
    let id = client.any("Account").await;
    world.sim.script().fault(times(1, FaultAction::ApplyThenStatus { status: 502 }));
    let update = client.patch(&format!("sobjects/Account/{id}"), &json!({"Name": "Twice"})).await;
    assert_eq!((update.code(), update.header("weirkeeper-outcome")), (502, "unknown"));
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_composite_that_was_rolled_back_by_a_lock_is_sent_again_whole() {
    let world = World::new(RETRY);
    let mut client = world.client();
    let locked = json!({"compositeResponse": [
        {"body": [{"errorCode": "PROCESSING_HALTED", "message": "The transaction was rolled back since another operation in the same transaction failed."}], "httpHeaders": {}, "httpStatusCode": 400, "referenceId": "a"},
        {"body": [{"errorCode": "UNABLE_TO_LOCK_ROW", "message": "unable to obtain exclusive access to this record", "fields": []}], "httpHeaders": {}, "httpStatusCode": 400, "referenceId": "b"},
    ]});
    let answer = |body: &serde_json::Value| FaultAction::Answer {
        status: 200,
        body: body.to_string(),
        content_type: "application/json;charset=UTF-8".to_owned(),
        headers: Vec::new(),
    };
    let create = |name: &str| json!({"method": "POST", "url": "/services/data/v62.0/sobjects/Account", "referenceId": name, "body": {"Name": name}});
    let request = json!({"allOrNone": true, "compositeRequest": [create("a"), create("b")]});
    world.sim.script().fault(times(3, answer(&locked)));
    let done = client.post("composite", &request).await;
    assert_eq!(
        (done.code(), done.json()["compositeResponse"][1]["httpStatusCode"].as_u64()),
        (200, Some(201)),
        "{}",
        done.text()
    );
    assert_eq!((created(&world), done.header("weirkeeper-partial-failures")), (2, ""));

    // One of them was done: nobody can send it again whole. Its failure is counted and said.
    let half = json!({"compositeResponse": [
        {"body": null, "httpHeaders": {}, "httpStatusCode": 204, "referenceId": "a"}, locked["compositeResponse"][1],
    ]});
    world.sim.script().fault(times(1, answer(&half)));
    let before = world.sim.counts().requests;
    let done = client.post("composite", &request).await;
    assert_eq!((done.json(), done.header("weirkeeper-partial-failures")), (half, "1/2"));
    assert_eq!(world.sim.counts().requests, before + 1);
    let failures = [("object", "Account"), ("error_code", "UNABLE_TO_LOCK_ROW")];
    assert!(is(world.metric("weirkeeper_record_failures_total", &failures), 1), "{}", world.telemetry.render());
    let line = world.last_line().await;
    assert_eq!((&line["parts"], &line["parts_failed"]), (&json!(2), &json!(1)));
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn records_that_failed_in_a_collection_are_said_and_counted() {
    let world = World::new(RETRY);
    let mut client = world.client();
    let good = json!({"attributes": {"type": "Account"}, "Name": "Good"});
    let bad = json!({"attributes": {"type": "Account"}, "Name": null});
    let records = json!({"allOrNone": false, "records": [good, bad, good]});
    let answer = client.post("composite/sobjects", &records).await;
    assert_eq!((answer.code(), answer.header("weirkeeper-partial-failures")), (200, "1/3"), "{}", answer.text());
    let gzipped = client
        .send(
            "POST",
            "composite/sobjects",
            &[("content-type", "application/json"), ("accept-encoding", "gzip")],
            records.to_string(),
        )
        .await;
    assert_eq!(gzipped.header("weirkeeper-partial-failures"), "1/3");
    world.settle().await;
    assert!(is(world.metric("weirkeeper_record_failures_total", &[("error_code", "REQUIRED_FIELD_MISSING")]), 2));
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_is_kept_waiting_past_its_deadline() {
    let world = World::new(RETRY);
    let mut client = world.client().with("x-request-timeout-ms", "1000");
    world.sim.script().fault(Fault { latency_ms: 900, ..times(100, unavailable()) });
    let began = Instant::now();
    for _ in 0..20 {
        client.get("limits").await;
    }
    assert!(began.elapsed() <= Duration::from_secs(21), "{:?}", began.elapsed());
    assert!(retries(&world, "usual", "deadline") > 5.0, "{}", world.telemetry.render());
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_salesforce_asks_for_is_waited_for() {
    let world = World::new(RETRY);
    let mut client = world.client();
    world.sim.script().fault(times(1, FaultAction::Unavailable { html: false, retry_after_seconds: Some(7) }));
    let began = Instant::now();
    assert_eq!(client.get("limits").await.code(), 200);
    assert!((7.0..8.0).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_connection_is_tried_again_also_for_writes() {
    let world = World::new(RETRY);
    let mut client = world.client();
    world.line(Line::Broken(std::io::ErrorKind::ConnectionRefused));
    let write = client.post("sobjects/Account", &json!({"Name": "x"})).await;
    write.is_refusal(502, "upstream_unreachable", "SERVER_UNAVAILABLE");
    assert!(is(retries(&world, "usual", "failed"), 1));
    assert_eq!((world.sim.counts().requests, created(&world)), (0, 0));
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn repetitions_are_a_share_of_the_traffic_and_off_is_off() {
    let world = World::new("retry: {mode: enforce, budget: 10%}");
    world.sim.script().fault(times(u64::MAX, unavailable()));
    let apps: Vec<_> = (0..60)
        .map(|_| {
            let mut client = world.client();
            tokio::spawn(async move {
                for _ in 0..50 {
                    client.get("limits").await;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
        })
        .collect();
    for app in apps {
        app.await.unwrap();
    }
    let mut client = world.client();
    let requests = world.sim.counts().requests;
    assert!((3_050..=3_450).contains(&requests), "{requests}");
    assert!(retries(&world, "usual", "budget") > 2_000.0);
    world.reload("retry: {mode: off}");
    for _ in 0..10 {
        client.get("limits").await;
    }
    assert_eq!(world.sim.counts().requests, requests + 10);
    world.close().await;
}

/// What one app saw of its writes.
#[derive(Default)]
struct Seen {
    done: HashMap<String, u16>,
    unknown: u64,
    refused: u64,
}

/// Every second one creates a record, the others do so by a key of their own.
fn write(at: usize) -> (String, &'static str, String) {
    let name = format!("cut {at}");
    match at % 2 {
        0 => (name, "POST", "sobjects/Account".to_owned()),
        _ => (name, "PATCH", format!("sobjects/Account/Ext_Id__c/cut-{at}")),
    }
}

/// Connections are cut and answers lost before, during and after the commit.
fn cut(world: &World) {
    for method in ["POST", "PATCH"] {
        let share =
            |probability, action| Fault { probability, action, method: Some(method.to_owned()), ..Fault::default() };
        world.sim.script().fault(share(0.05, FaultAction::Close { apply: false, reset: false }));
        world.sim.script().fault(share(0.05, FaultAction::Close { apply: true, reset: false }));
        world.sim.script().fault(share(0.05, FaultAction::ApplyThenStatus { status: 502 }));
        world.sim.script().fault(share(0.05, FaultAction::LockRow { wrapped: false }));
        let page = FaultAction::Unavailable { html: true, retry_after_seconds: None };
        world.sim.script().fault(share(0.03, page));
    }
}

/// What becomes of such writes without a gateway: records that stand there twice, and those whose writers were told that they
/// are not there.
async fn cut_directly(sdk: Sdk, writes: usize) -> (usize, usize) {
    let world = World::new(RETRY);
    cut(&world);
    let mut client = world.direct();
    let mut failed = Vec::new();
    for at in 0..writes {
        let (name, method, target) = write(at);
        let result = sdk.send(&mut client, method, &target, &json!({"Name": name}).to_string()).await;
        if !result.is_ok_and(|answer| answer.status().is_success()) {
            failed.push(name);
        }
    }
    world.sim.script().clear_faults();
    let rows = names(&world).await;
    let there = failed.iter().filter(|name| rows.contains_key(*name)).count();
    (rows.values().filter(|rows| **rows > 1).count(), there)
}

async fn write_all(mut client: Client, first: usize, count: usize, seen: Arc<Mutex<Seen>>) {
    for at in first..first + count {
        let (name, method, target) = write(at);
        let body = json!({"Name": name}).to_string();
        let answer = client.send(method, &target, &[("content-type", "application/json")], body).await;
        let mut seen = seen.lock();
        match answer.code() {
            200 | 201 => drop(seen.done.insert(name, 201)),
            _ if answer.header("weirkeeper-outcome") == "unknown" => {
                seen.unknown += 1;
                seen.done.insert(name, 0);
            }
            _ => {
                seen.refused += 1;
                seen.done.insert(name, 502);
            }
        }
    }
}

/// How often each name stands in the org.
async fn names(world: &World) -> HashMap<String, u32> {
    let mut direct = world.direct();
    let mut found = HashMap::new();
    let mut page: Response<bytes::Bytes> = direct.query("SELECT Name FROM Account WHERE Name LIKE 'cut %'").await;
    loop {
        let body = page.json();
        for record in body["records"].as_array().unwrap() {
            *found.entry(record["Name"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        match body["nextRecordsUrl"].as_str() {
            Some(next) => page = direct.get(next).await,
            None => return found,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_writes_cut_anywhere_are_never_doubled_and_never_lost_silently() {
    const WRITES: usize = 10_000;
    const APPS: usize = 20;
    let world = World::new(&format!("{RETRY}\nlog: {{access: stdout}}"));
    cut(&world);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let apps: Vec<_> = (0..APPS)
        .map(|app| {
            let count = WRITES / APPS;
            world.beside(write_all(world.client(), app * count, count, Arc::clone(&seen)))
        })
        .collect();
    for app in apps {
        app.await.unwrap();
    }
    world.sim.script().clear_faults();
    let rows = names(&world).await;
    let seen = std::mem::take(&mut *seen.lock());
    assert_eq!(seen.done.len(), WRITES);
    for (name, status) in &seen.done {
        let rows = rows.get(name).copied().unwrap_or_default();
        match status {
            201 => assert_eq!(rows, 1, "{name} was reported as done"),
            0 => assert!(rows <= 1, "{name} was done twice"),
            _ => assert_eq!(rows, 0, "{name} was reported as not done"),
        }
    }
    let counted = world.metric("weirkeeper_unknown_outcomes_total", &[]);
    assert!((counted - seen.unknown as f64).abs() < 0.5, "{counted} counted, {} reported", seen.unknown);
    // Nearly all of them creations: an upsert whose answer is lost is sent again.
    assert!((600..1_300).contains(&seen.unknown), "{}", seen.unknown);
    println!(
        "10,000 writes cut anywhere: {} done, {} unknown and said so, {} refused; {} rows, none twice",
        WRITES as u64 - seen.unknown - seen.refused,
        seen.unknown,
        seen.refused,
        rows.len(),
    );
    for sdk in Sdk::ALL {
        let (twice, silent) = cut_directly(sdk, WRITES / 5).await;
        println!(
            "  directly, {} writes by {}: {twice} records twice, {silent} there whose writers were told they failed",
            WRITES / 5,
            sdk.name()
        );
        assert!(silent > 0 && (twice > 0) == (sdk == Sdk::Curl), "{sdk:?}: {twice} {silent}");
    }
    let ours: u64 = world.lines().iter().filter_map(|line| line["charged"].as_u64()).sum();
    let theirs = world.sim.counts().charged;
    // The simulator charges nothing for what it cut before doing it; and it was asked directly for the names.
    world.counts_more(i64::try_from(ours).unwrap() - i64::try_from(theirs).unwrap());
    world.close().await;
}

/// One app that writes to children of one parent, by this client; how many of its writes failed.
async fn lock_storm(mut client: Client, sdk: Sdk, writes: usize) -> usize {
    let mut failed = 0;
    for at in 0..writes {
        let body = json!({"LastName": format!("Child {at}")}).to_string();
        let answer = sdk.send(&mut client, "POST", "sobjects/Contact", &body).await;
        failed += usize::from(!answer.is_ok_and(|answer| answer.code() == 201));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    failed
}

#[tokio::test(start_paused = true)]
async fn a_lock_storm_is_weathered() {
    const APPS: usize = 40;
    const WRITES: usize = 60;
    let mut report = Vec::new();
    let directly = Sdk::ALL.map(|sdk| (sdk, false));
    for (sdk, through) in directly.into_iter().chain([(Sdk::SimpleSalesforce, true)]) {
        let world = World::new(&format!("{RETRY}\norgs: [{{name: prod, instance_url: 'http://127.0.0.1:8081'}}]"));
        world.sim.script().fault(Fault {
            probability: 0.2,
            latency_ms: 10_000,
            object: Some("Contact".to_owned()),
            action: FaultAction::LockRow { wrapped: false },
            ..Fault::default()
        });
        let apps: Vec<_> = (0..APPS)
            .map(|_| {
                let client = if through { world.client() } else { world.direct() };
                tokio::spawn(lock_storm(client, sdk, WRITES))
            })
            .collect();
        let mut failed = 0;
        for app in apps {
            failed += app.await.unwrap();
        }
        let calls = world.sim.counts().requests;
        let writes = (APPS * WRITES) as f64;
        let (failed, calls) = (failed as f64 / writes, calls as f64 / writes);
        if !through {
            println!(
                "lock storm directly, {}: {:.1} % of writes fail, {calls:.2} times the calls",
                sdk.name(),
                failed * 100.0
            );
        }
        report.push((failed, calls));
        if through {
            world.close().await;
        }
    }
    let [.., (direct, _), (through, calls)] = report[..] else { panic!("{report:?}") };
    println!(
        "lock storm, 20 % locks after 10 s: {:.1} % of writes fail directly, {:.2} % through the gateway, with {calls:.2} times the calls",
        direct * 100.0,
        through * 100.0
    );
    assert!(direct > 0.17 && through < 0.005 && calls <= 1.35, "{report:?}");
}
