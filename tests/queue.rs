//! Promise: whatever goes wrong while calls wait or hold slots, every place comes back, and whoever is refused is told why.

use std::collections::BTreeMap;
use std::time::Duration;

use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use weirkeeper::config::key;
use weirkeeper::sim::{Fault, FaultAction, SimConfig, SimSessions};

use crate::client::{Answer as _, Client, absolute, envelope, head, token};
use crate::identities::SECRET;
use crate::world::{ORIGIN, World, small};

const CALLERS: &str = "callers:
- {name: shop, match: {call_options_client: shop}, class: interactive}
- {name: etl, match: {call_options_client: etl}, class: batch}
- {name: anyone, match: any}
";
const QUERY: &str = "query?q=SELECT+Id+FROM+Account";

/// One org with these members, and callers.
fn org(members: &str, more: &str) -> String {
    format!("orgs: [{{name: prod, instance_url: 'http://{ORIGIN}', {members}}}]\n{more}{CALLERS}")
}

/// Batch may hold one slot, and waits for a minute and a half.
fn one_slot() -> String {
    org("long_running: {slots: 2, batch_at_most: 1}", "queue: {wait: {batch: 90s}}\n")
}

fn named(world: &World, name: &str) -> Client {
    world.client().with("sforce-call-options", &format!("client={name}"))
}

/// Calls of `etl` take 30 s and then meet `action`.
fn slow(world: &World, times: Option<u64>, action: FaultAction) {
    let client = Some("etl".to_owned());
    world.sim.script().fault(Fault { client, times, latency_ms: 30_000, action, ..Fault::default() });
}

/// Sends a batch call that holds a slot; gives its status, or 0 if its connection broke.
fn asks(world: &World) -> JoinHandle<u16> {
    let mut etl = named(world, "etl");
    tokio::spawn(async move { etl.try_send("GET", QUERY, &[], "").await.map_or(0, |answer| answer.code()) })
}

/// What waits and what is held, before both doors.
fn places(world: &World) -> (usize, usize) {
    let slots = world.telemetry.snapshot().slots.remove(0);
    let views = || std::iter::once(&slots.view).chain(&slots.apex);
    (views().flat_map(|view| &view.queue).map(|queue| queue.waiting).sum(), views().map(|view| view.in_the_air).sum())
}

/// One wait a call can be in: what is configured, who asks, for what, how many of the same go before it, and how long one of the
/// later turns is.
struct Wait {
    name: &'static str,
    yaml: String,
    client: &'static str,
    target: &'static str,
    before: usize,
    step: Duration,
    /// It happens once in the life of a gateway.
    once: bool,
}

/// Every wait there is between a request that is understood and its sending.
fn waits() -> Vec<Wait> {
    let step = Duration::from_millis(1_700);
    let patient = "queue: {wait: {interactive: 40s, batch: 40s}}\n";
    let of = |name, client, target, yaml| Wait { name, yaml, client, target, before: 1, step, once: false };
    let nightly = "/services/apexrest/Nightly";
    let bound = "callers: [{name: shop, match: any, class: interactive, in_flight: 1}]\n";
    let pace = "callers: [{name: shop, match: any, pace: {per_second: 1, burst: 1, queue: 20, wait: 30s}}]\n";
    vec![
        of("a slot", "etl", QUERY, one_slot()),
        of("a slot of Apex", "etl", nightly, org("long_running: {apex: {slots: 2, batch_at_most: 1}}", patient)),
        of(
            "a slot of the org with one of Apex in hand",
            "etl",
            nightly,
            org("long_running: {slots: 2, batch_at_most: 1, apex: {slots: 10}}", patient),
        ),
        of("a place in the air to the org", "shop", QUERY, org("in_flight: 1", patient)),
        of("a place in the air of its caller", "shop", QUERY, format!("{patient}{bound}")),
        Wait { before: 12, step: Duration::from_millis(700), ..of("its pace", "shop", QUERY, pace.to_owned()) },
        Wait {
            before: 20,
            once: true,
            ..of(
                "the first reading",
                "shop",
                QUERY,
                org("daily: {limit: from_salesforce, keep_free: 0%, assume: 50}", patient),
            )
        },
    ]
}

/// One call leaves after so many turns of the runtime, while others before it hold what it waits for.
async fn left_after(turns: usize, world: &World, wait: &Wait) {
    let Wait { name, client, target, before, step, .. } = *wait;
    let holders: Vec<_> = (0..before)
        .map(|_| {
            let mut first = named(world, client);
            world.beside(async move { drop(first.get(target).await) })
        })
        .collect();
    world.settle().await;
    let mut leaves = world.raw();
    let options = format!("sforce-call-options: client={client}\r\n");
    leaves.write_all(head("GET", target, &options).as_bytes()).await.unwrap();
    for turn in 0..turns {
        // Many turns without time passing, then time, until after the call was sent.
        if turn < 20 {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(step).await;
        }
    }
    drop(leaves);
    for holder in holders {
        holder.await.unwrap();
    }
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(places(world), (0, 0), "{name}, after {turns} turns");
    let budget = world.telemetry.snapshot().budgets.remove(0);
    assert_eq!(budget.budget.reserved, 0, "{name}, after {turns} turns");
    assert_eq!(budget.paces.iter().map(|pace| pace.pace.waiting).sum::<u32>(), 0, "{name}, after {turns} turns");
}

#[tokio::test(start_paused = true)]
async fn a_caller_may_leave_at_every_turn_of_every_wait() {
    for wait in waits() {
        let mut attempts: BTreeMap<u64, usize> = BTreeMap::new();
        let count = |world: &World, attempts: &mut BTreeMap<u64, usize>| {
            for line in world.lines().iter().filter(|line| line["ending"] == "caller_left") {
                *attempts.entry(line["attempts"].as_u64().unwrap()).or_default() += 1;
            }
        };
        let new = || {
            let world = World::new(&wait.yaml);
            world.sim.script().latency(30_000, 0);
            world
        };
        let mut world = new();
        for turns in 0..44 {
            left_after(turns, &world, &wait).await;
            if wait.once {
                count(&world, &mut attempts);
                std::mem::replace(&mut world, new()).close().await;
            }
        }
        count(&world, &mut attempts);
        world.close().await;
        println!("waiting for {}, left at each of 44 turns, by attempts: {attempts:?}", wait.name);
        let left = |count: u64| attempts.get(&count).copied().unwrap_or_default();
        assert!(left(0) > 5 && left(1) > 2, "{}: {attempts:?}", wait.name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_http2_that_is_reset_in_the_queue_leaves_it_and_the_connection_goes_on() {
    let world = World::new(&one_slot());
    slow(&world, None, FaultAction::None);
    let (mut sender, connection) = hyper::client::conn::http2::handshake::<_, _, Full<bytes::Bytes>>(
        TokioExecutor::new(),
        TokioIo::new(world.raw()),
    )
    .await
    .unwrap();
    world.beside(async move {
        let _ended = connection.await;
    });
    let request = || {
        http::Request::get(format!("http://sf.internal{}", absolute(QUERY)))
            .header("authorization", format!("Bearer {}", token("admin")))
            .header("sforce-call-options", "client=etl")
            .body(Full::default())
            .unwrap()
    };
    let began = Instant::now();
    let (holds, resets, waits) =
        (sender.send_request(request()), sender.send_request(request()), sender.send_request(request()));
    let waits = tokio::spawn(waits);
    world.settle().await;
    assert_eq!(places(&world), (2, 1));
    drop(resets);
    world.settle().await;
    assert_eq!(places(&world), (1, 1), "the reset stream waits no longer");
    assert_eq!(holds.await.unwrap().status(), 200);
    assert_eq!(waits.await.unwrap().unwrap().status(), 200);
    assert_eq!(began.elapsed().as_secs(), 60, "it was the next");
    drop(sender);
    assert_eq!(world.sim.requests().len(), 2);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_dies_gives_back_every_slot_it_was_given() {
    for action in [
        FaultAction::Close { apply: false, reset: false },
        FaultAction::Truncate { body_bytes: 5 },
        FaultAction::Garbage { text: "no HTTP".into() },
    ] {
        let world = World::new(&org("long_running: {slots: 25}", "queue: {wait: {batch: 90s}}\n"));
        slow(&world, Some(15), action.clone());
        let dies: Vec<_> = (0..15).map(|_| asks(&world)).collect();
        world.settle().await;
        let next: Vec<_> = (0..15).map(|_| asks(&world)).collect();
        world.settle().await;
        assert_eq!(places(&world), (15, 15), "{action:?}");
        for call in dies {
            let code = call.await.unwrap();
            assert!(code == 0 || code == 502, "{action:?}: {code}");
        }
        for call in next {
            assert_eq!(call.await.unwrap(), 200, "{action:?}");
        }
        world.settle().await;
        assert_eq!(places(&world), (0, 0), "{action:?}");
        world.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_sends_no_call_that_would_be_cut_and_ends_those_in_the_air() {
    let world =
        World::new(&org("long_running: {slots: 2, batch_at_most: 1}, in_flight: 2", "queue: {wait: {batch: 90s}}\n"));
    slow(&world, None, FaultAction::None);
    world.sim.script().fault(Fault { client: Some("shop".into()), latency_ms: 3_000, ..Fault::default() });
    let holds = asks(&world);
    world.settle().await;
    let mut waiting = Vec::new();
    for _ in 0..5 {
        let mut etl = named(&world, "etl");
        waiting.push(tokio::spawn(async move { etl.get(QUERY).await }));
    }
    // Of two short calls one finds no room in the air, and will soon.
    let shops: Vec<_> = (0..2)
        .map(|_| {
            let mut shop = named(&world, "shop");
            tokio::spawn(async move { shop.get(QUERY).await.code() })
        })
        .collect();
    world.settle().await;
    assert_eq!(places(&world), (6, 2));
    let began = Instant::now();
    world.edge.drain.begin();
    for call in waiting {
        let refused = call.await.unwrap();
        refused.is_refusal(503, "draining", "SERVER_UNAVAILABLE");
        assert!(refused.text().contains("was not sent"), "{}", refused.text());
        assert_eq!(refused.header("retry-after"), "2");
    }
    assert!(began.elapsed() < Duration::from_millis(10), "{:?}", began.elapsed());
    for shop in shops {
        assert_eq!(shop.await.unwrap(), 200);
    }
    assert_eq!(holds.await.unwrap(), 200);
    assert_eq!(world.sim.requests().len(), 3);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_says_so_in_the_form_of_each_api() {
    let world =
        World::new(&org("long_running: {slots: 2, batch_at_most: 1}", "queue: {places: 3, wait: {batch: 5m}}\n"));
    slow(&world, None, FaultAction::None);
    let calls: Vec<_> = (0..4).map(|_| asks(&world)).collect();
    world.settle().await;
    assert_eq!(places(&world), (3, 1));
    let mut etl = named(&world, "etl");
    let refused = etl.get(QUERY).await;
    refused.is_refusal(503, "queue_full", "SERVER_UNAVAILABLE");
    assert!(refused.text().contains("As many calls wait for prod as may."), "{}", refused.text());
    let line = world.last_line().await;
    assert_eq!(
        (&line["length"], &line["refusal"], &line["attempts"]),
        (&json!("long"), &json!("queue_full"), &json!(0))
    );
    let soap =
        envelope(&token("admin"), "<urn:query><urn:queryString>SELECT Id FROM Lead</urn:queryString></urn:query>");
    let fault = etl.send("POST", "/services/Soap/u/62.0", &[("content-type", "text/xml")], soap).await;
    assert_eq!((fault.code(), fault.header("weirkeeper-refused")), (500, "queue_full"), "{}", fault.text());
    assert!(fault.text().contains("<faultcode>sf:SERVER_UNAVAILABLE</faultcode>"), "{}", fault.text());
    let batch = "/services/async/62.0/job/750000000000001AAA/batch";
    let bulk = etl.send("POST", batch, &[("content-type", "text/csv")], "Name\nx\n").await;
    assert_eq!((bulk.code(), bulk.header("content-type")), (503, "application/xml"), "{}", bulk.text());
    assert!(bulk.text().contains("<exceptionCode>ServerUnavailable</exceptionCode>"), "{}", bulk.text());
    for answer in [&refused, &fault, &bulk] {
        let wait: u64 = answer.header("retry-after").parse().unwrap();
        assert!((15..=45).contains(&wait), "{wait}");
    }
    // Nobody who waits is the worse for it, and nobody was let in besides.
    assert_eq!(places(&world), (3, 1));
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_only_observed_holds_nobody_back_and_is_counted() {
    let world = World::new(&org("long_running: {mode: observe, slots: 2, batch_at_most: 1}", ""));
    slow(&world, None, FaultAction::None);
    let began = Instant::now();
    let calls: Vec<_> = (0..5).map(|_| asks(&world)).collect();
    world.settle().await;
    assert_eq!(places(&world), (0, 5));
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    assert_eq!(began.elapsed().as_secs(), 30);
    let would: Vec<_> = world.lines().iter().filter(|line| line["would_refuse"] == "slots_busy").cloned().collect();
    assert_eq!(would.len(), 4);
    let counted = world.metric("weirkeeper_would_refuse_total", &[("reason", "slots_busy"), ("caller", "etl")]);
    assert!((counted - 4.0).abs() < f64::EPSILON);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_who_is_in_the_air_and_who_waits() {
    let world = World::new(&one_slot());
    slow(&world, None, FaultAction::None);
    let began = Instant::now();
    let calls: Vec<_> = (0..8).map(|_| asks(&world)).collect();
    world.settle().await;
    assert_eq!(places(&world), (7, 1));
    // Nothing that concerns them.
    world.reload(&one_slot().replace("class: batch", "class: standard"));
    world.settle().await;
    assert_eq!(places(&world), (7, 1));
    world.reload(&one_slot().replace("slots: 2, batch_at_most: 1", "slots: 25, batch_at_most: 3, reserve: 0"));
    world.settle().await;
    assert_eq!(places(&world), (5, 3), "two more slots, two more calls");
    tokio::time::sleep(Duration::from_secs(20)).await;
    world.reload(&one_slot().replace("slots: 2", "mode: observe, slots: 2"));
    world.settle().await;
    assert_eq!(places(&world), (0, 8), "what does not bind lets everybody go");
    world.reload(&one_slot());
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    assert_eq!(began.elapsed().as_secs(), 50);
    world.settle().await;
    assert_eq!(places(&world), (0, 0));
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_second_attempt_gives_back_the_place_of_the_first() {
    let key = key::generate().unwrap().to_string();
    let yaml = format!(
        "orgs: [{{name: prod, instance_url: 'http://{ORIGIN}', in_flight: 1, hosts: [sf.internal], public_url: 'https://sf.acme.internal', auth: {{integration: {SECRET}}}}}]
gateway_tokens: {{keys: [{{file: 0123456789abcdef0123456789abcdef.secret}}], lifetime: 30m}}
callers: [{{name: shop, match: {{key_sha256: '{}'}}, act_as: integration, class: interactive, in_flight: 1}}]
",
        key::sha256_hex(&key)
    );
    let sessions = SimSessions { idle_seconds: 60, ..SimSessions::default() };
    let world = World::with(SimConfig { sessions, ..small() }, &yaml);
    world.secret(&key);
    let app = || world.client().with("authorization", &format!("Bearer {key}"));
    assert_eq!(app().get(QUERY).await.code(), 200);
    tokio::time::sleep(Duration::from_mins(2)).await;
    let began = Instant::now();
    assert_eq!(app().get(QUERY).await.code(), 200);
    assert!(began.elapsed() < Duration::from_secs(1), "it waited for itself: {:?}", began.elapsed());
    let line = world.last_line().await;
    assert_eq!((&line["attempts"], &line["queued_ms"]), (&json!(2), &json!(null)), "{line}");
    assert_eq!(places(&world), (0, 0));
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_shed_may_be_answered_from_memory() {
    let cache = "cache: {entries: [{match: {objects: [Lead], operations: [query]}, fresh: 1s, stale_if_error: 4m}]}\n";
    let world = World::new(&format!("{cache}{}", one_slot()));
    let lead = "query?q=SELECT+Id+FROM+Lead";
    let mut etl = named(&world, "etl");
    assert_eq!(etl.get(lead).await.code(), 200);
    slow(&world, None, FaultAction::None);
    let calls: Vec<_> = (0..2).map(|_| asks(&world)).collect();
    world.settle().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let hurried = [("x-request-timeout-ms", "3000")];
    let stale = etl.send("GET", lead, &hurried, "").await;
    assert_eq!((stale.code(), stale.header("weirkeeper-cost")), (200, "0"), "{}", stale.text());
    let status: Vec<_> = stale.headers().get_all("cache-status").iter().collect();
    assert_eq!(status.last().unwrap(), &"weirkeeper;fwd=stale;fwd-status=503", "{status:?}");
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn the_refusals_of_salesforce_are_understood_in_the_form_of_each_api() {
    let world = World::new(&org("long_running: {apex: {slots: 10}}", ""));
    let refuse = |status, code: &str, message: &str| {
        let action = FaultAction::Error { status, code: code.into(), message: message.into() };
        world.sim.script().fault(Fault { times: Some(1), action, ..Fault::default() });
    };
    let capacity = |metric: &str| world.metric(metric, &[]) as u32;
    let mut shop = named(&world, "shop");
    let long = "ConcurrentRequests (Concurrent API Requests) Limit exceeded.";
    refuse(500, "REQUEST_LIMIT_EXCEEDED", long);
    let soap = envelope(&token("admin"), "<urn:getUserInfo/>");
    let fault = shop.send("POST", "/services/Soap/u/62.0", &[("content-type", "text/xml")], soap).await;
    assert_eq!((fault.code(), capacity("weirkeeper_long_running_capacity")), (500, 12), "{}", fault.text());
    tokio::time::sleep(Duration::from_secs(6)).await;
    refuse(400, "REQUEST_LIMIT_EXCEEDED", long);
    let bulk = shop.get("/services/async/62.0/job/750000000000001AAA").await;
    assert!(bulk.text().contains("ExceededQuota"), "{}", bulk.text());
    assert_eq!((bulk.code(), capacity("weirkeeper_long_running_capacity")), (400, 6));
    assert_eq!(capacity("weirkeeper_long_running_refused_total"), 2);
    refuse(403, "TOO_MANY_APEX_REQUESTS", "Try again later.");
    assert_eq!(shop.get("/services/apexrest/Nightly").await.code(), 403);
    assert_eq!((capacity("weirkeeper_apex_capacity"), capacity("weirkeeper_apex_refused_total")), (5, 1));
    assert_eq!(capacity("weirkeeper_long_running_capacity"), 6);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_urgent_hurries_the_call_he_waits_for() {
    let cache = "cache: {entries: [{match: {objects: [Lead], operations: [query]}, fresh: 1m}]}\n";
    let world = World::new(&format!("{cache}{}", one_slot()));
    let lead = "query?q=SELECT+Id+FROM+Lead";
    let mut shop = named(&world, "shop");
    assert_eq!(shop.get("recent").await.code(), 200);
    slow(&world, None, FaultAction::None);
    let holds = asks(&world);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = world.sim.counts().charged;
    let mut report = named(&world, "shop").with("weirkeeper-class", "batch");
    let waits = tokio::spawn(async move { report.get(lead).await.code() });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(places(&world).0, 1, "batch has no slot left");
    let begun = Instant::now();
    let answer = shop.get(lead).await;
    assert_eq!((answer.code(), answer.header("cache-status")), (200, "weirkeeper;fwd=miss;collapsed"));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(waits.await.unwrap(), 200);
    assert_eq!(world.sim.counts().charged - before, 1, "one call for both");
    assert_eq!(holds.await.unwrap(), 200);
    world.close().await;
}
