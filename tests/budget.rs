//! Promise: no ceiling is ever exceeded, every floor is kept, and whoever is refused is told when to come back.

use std::time::Duration;

use serde_json::json;
use weirkeeper::sim::{SimConfig, SimDaily, SimHeader};

use crate::client::{Answer as _, envelope, token};
use crate::world::{ORIGIN, World, small};

fn limited(limit: u64) -> SimConfig {
    SimConfig { daily: SimDaily { limit, ..SimDaily::default() }, ..small() }
}

/// One org whose `daily` is this, and the callers.
fn budget(daily: &str, callers: &str) -> String {
    format!(
        "orgs: [{{name: prod, instance_url: 'http://{ORIGIN}', daily: {{{daily}}}}}]
callers:
- {{name: shop, match: {{call_options_client: shop}}, class: interactive, {callers}}}
- {{name: etl, match: {{call_options_client: etl}}, class: batch}}
- {{name: anyone, match: any}}
"
    )
}

fn client(world: &World, name: &str) -> crate::client::Client {
    world.client().with("sforce-call-options", &format!("client={name}"))
}

#[tokio::test(start_paused = true)]
async fn two_hundred_callers_at_once_get_exactly_what_the_ceiling_allows() {
    let simulated = SimConfig { latency_ms: 40, jitter_ms: 30, ..limited(100_000) };
    let world = World::with(simulated, &budget("limit: 50000", "daily: {ceiling: 1000}"));
    let (done, mut answers) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..200 {
        let (mut client, done) = (client(&world, "shop"), done.clone());
        world.beside(async move {
            for _ in 0..10 {
                let answer = client.get("limits").await;
                done.send((answer.code(), answer.header("weirkeeper-refused").to_owned())).unwrap();
            }
        });
    }
    drop(done);
    let mut counts = std::collections::BTreeMap::new();
    while let Some(answer) = answers.recv().await {
        *counts.entry(answer).or_insert(0) += 1;
    }
    let expected = [((200, String::new()), 1_000), ((403, "caller_ceiling".to_owned()), 1_000)];
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), expected);
    assert_eq!(world.sim.counts().charged, 1_000);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_when_calls_come_back_and_then_they_do() {
    let world = World::with(limited(100_000), &budget("limit: 50000", "daily: {ceiling: 2}"));
    let mut shop = client(&world, "shop");
    for _ in 0..2 {
        assert_eq!(shop.get("limits").await.code(), 200);
        tokio::time::sleep(Duration::from_mins(30)).await;
    }
    let refused = shop.get("limits").await;
    refused.is_refusal(403, "caller_ceiling", "REQUEST_LIMIT_EXCEEDED");
    let message = refused.json()[0]["message"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with("This caller may use 2 API calls of prod in 24 hours, and has used them."),
        "{message}"
    );
    assert!(message.contains("Enough come back by ") && message.contains(" UTC tomorrow."), "{message}");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((82_800 - 60..=82_800 + 60).contains(&wait), "{wait} is not 23 hours");

    let soap = envelope(&token("admin"), "<urn:getUserInfo/>");
    let fault = shop.send("POST", "/services/Soap/u/62.0", &[("content-type", "text/xml")], soap).await;
    assert_eq!(fault.code(), 500);
    assert!(fault.text().contains("<faultcode>sf:REQUEST_LIMIT_EXCEEDED</faultcode>"), "{}", fault.text());
    assert_eq!(fault.header("weirkeeper-refused"), "caller_ceiling");
    let bulk = shop.get("/services/async/62.0/job/750000000000001AAA").await;
    assert_eq!(bulk.header("content-type"), "application/xml");
    assert!(bulk.text().contains("<exceptionCode>ExceededQuota</exceptionCode>"), "{}", bulk.text());
    // What costs nothing is not refused, and nobody else is.
    assert_eq!(shop.get("/services/data/").await.code(), 200);
    assert_eq!(client(&world, "other").get("limits").await.code(), 200);

    tokio::time::sleep(Duration::from_secs(wait)).await;
    assert_eq!(shop.get("limits").await.code(), 200);
    assert_eq!(shop.get("limits").await.code(), 403, "only the first call has come back");
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_floor_is_kept_for_its_owner_whatever_others_ask_for() {
    let world = World::with(limited(100_000), &budget("limit: 200, keep_free: 0%", "daily: {floor: 50}"));
    let (mut etl, mut anyone, mut shop) = (client(&world, "etl"), client(&world, "other"), client(&world, "shop"));
    // Whoever has been here is not idle: none of its floor is lent.
    assert_eq!(shop.get("limits").await.code(), 200);
    let mut batch = 0;
    for _ in 0..300 {
        batch += u64::from(etl.get("limits").await.code() == 200);
    }
    let mut standard = 0;
    for _ in 0..300 {
        standard += u64::from(anyone.get("limits").await.code() == 200);
    }
    let refused = etl.get("limits").await;
    refused.is_refusal(403, "org_allowance", "REQUEST_LIMIT_EXCEEDED");
    let refused = anyone.get("limits").await;
    refused.is_refusal(403, "org_allowance", "REQUEST_LIMIT_EXCEEDED");
    assert!(batch + standard <= 150, "{batch} + {standard}");
    for nth in 2..=50 {
        assert_eq!(shop.get("limits").await.code(), 200, "call {nth} of 50 that are guaranteed");
    }
    assert!(world.sim.counts().charged <= 200);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn in_observe_mode_nothing_is_refused_and_everything_is_counted() {
    let world = World::with(limited(100_000), &budget("limit: 50000, mode: observe", "daily: {ceiling: 3}"));
    let mut shop = client(&world, "shop");
    for _ in 0..10 {
        assert_eq!(shop.get("limits").await.code(), 200);
    }
    world.settle().await;
    let would = world.lines().iter().filter(|line| line["would_refuse"] == "caller_ceiling").count();
    assert_eq!(would, 7);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_sees_its_own_share_and_pays_nothing_for_it() {
    let world = World::with(limited(100_000), &budget("limit: 50000", "daily: {floor: 10, ceiling: 30}"));
    let mut shop = client(&world, "shop");
    for _ in 0..3 {
        shop.get("limits").await;
    }
    let seen = shop.get("/weirkeeper/v1/budget").await;
    assert_eq!((seen.code(), seen.header("weirkeeper-cost")), (200, "0"));
    let seen = seen.json();
    for (member, value) in [
        ("org", json!("prod")),
        ("caller", json!("shop")),
        ("used", json!(3)),
        ("floor", json!(10)),
        ("ceiling", json!(30)),
        ("left", json!(27)),
        ("org_left", json!(47_497)),
        ("level", json!("normal")),
        ("paused", json!(false)),
    ] {
        assert_eq!(seen[member], value, "{member} in {seen}");
    }
    shop.send("POST", "/weirkeeper/v1/budget", &[], "").await.is_refusal(
        405,
        "method_not_allowed",
        "METHOD_NOT_ALLOWED",
    );
    shop.get("/weirkeeper/v2/budget").await.is_refusal(404, "no_such_page", "NOT_FOUND");
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn metrics_and_api_show_the_same_budget() {
    let world = World::with(limited(100_000), &budget("limit: 50000", "daily: {floor: 10, ceiling: 30}"));
    let mut shop = client(&world, "shop");
    for _ in 0..4 {
        shop.get("limits").await;
    }
    let is = |name: &str, labels: &[(&str, &str)], value: u32| {
        let measured = world.metric(name, labels);
        assert!((measured - f64::from(value)).abs() < f64::EPSILON, "{name} {labels:?}: {measured}");
    };
    is("weirkeeper_budget_limit", &[("org", "prod")], 50_000);
    is("weirkeeper_budget_headroom", &[("org", "prod")], 47_496);
    for view in ["own", "salesforce", "estimate"] {
        is("weirkeeper_budget_used", &[("view", view)], 4);
    }
    is("weirkeeper_budget_returning", &[("within", "24h")], 4);
    is("weirkeeper_caller_used", &[("caller", "shop")], 4);
    is("weirkeeper_caller_floor", &[("caller", "shop")], 10);
    is("weirkeeper_caller_ceiling", &[("caller", "shop")], 30);
    is("weirkeeper_bank_up", &[], 1);
    let snapshot = world.telemetry.snapshot();
    let budget = json!(snapshot.budgets[0]);
    assert_eq!((&budget["used"], &budget["mode"], &budget["limit"]), (&json!(4), &json!("enforce"), &json!(50_000)));
    let back: u64 = snapshot.budgets[0].returning_by_hour.iter().sum();
    assert_eq!((back, &budget["callers"][0]["name"]), (4, &json!("shop")));
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_gateway_nobody_gave_a_budget_refuses_nothing() {
    let world =
        World::with(SimConfig { daily: SimDaily { limit: 100, overage: 100, ..SimDaily::default() }, ..small() }, "");
    let mut client = world.client();
    for _ in 0..150 {
        assert_eq!(client.get("limits").await.code(), 200);
    }
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn only_a_few_calls_go_before_the_first_reading_and_the_others_wait_for_it() {
    let simulated = SimConfig { latency_ms: 2_000, ..limited(100_000) };
    let world = World::with(simulated, &budget("limit: from_salesforce, before_first_reading: 5", ""));
    let (done, mut answers) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..50 {
        let (mut client, done) = (client(&world, "shop"), done.clone());
        world.beside(async move { done.send(client.get("limits").await.code()).unwrap() });
    }
    drop(done);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.sim.counts().running, 5);
    while let Some(code) = answers.recv().await {
        assert_eq!(code, 200);
    }
    assert_eq!(world.sim.counts().charged, 50);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_others_spend_in_the_dark_is_left_room_for_and_no_more_than_that() {
    for burst in [300, 700] {
        dark_burst(burst).await;
    }
}

/// Others spend `burst` of 1,000 calls at once; the rest is served to its last call, less the fiftieth of the burst
/// that is left room for where it may go on unseen, and the hundredth of the ceiling that is kept to look.
async fn dark_burst(burst: u64) {
    let simulated = SimConfig {
        daily: SimDaily { limit: 1_000, ..SimDaily::default() },
        header: SimHeader { lag_seconds: 60, ..SimHeader::default() },
        ..small()
    };
    let world = World::with(simulated, &budget("limit: from_salesforce, keep_free: 0%", ""));
    let mut shop = client(&world, "shop");
    assert_eq!(shop.get("limits").await.code(), 200);
    world.sim.script().spend_dark(burst);
    tokio::time::sleep(Duration::from_mins(3)).await;
    let mut served = 1;
    for _ in 0..800 {
        match shop.get("limits").await.code() {
            200 => served += 1,
            code => assert_eq!(code, 403),
        }
    }
    let counts = world.sim.counts();
    assert_eq!((counts.refused_daily, counts.used <= 1_000), (0, true), "{counts:?}");
    let left = 1_000 - burst;
    let kept = burst / 50 + 10;
    assert!((left - kept..=left).contains(&served), "{served} of {left} that others left");
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn when_salesforce_says_that_nothing_is_left_the_ledger_closes_and_reopens_carefully() {
    let world = World::with(limited(100_000), &budget("limit: from_salesforce", ""));
    let mut shop = client(&world, "shop");
    assert_eq!(shop.get("limits").await.code(), 200);
    world.sim.script().set_daily_limit(1);
    let first = shop.get("limits").await;
    assert_eq!((first.code(), first.error().as_str()), (403, "REQUEST_LIMIT_EXCEEDED"));
    assert_eq!(first.header("weirkeeper-refused"), "", "this one is Salesforce's own");
    let sent = world.sim.counts().requests;
    for _ in 0..20 {
        shop.get("limits").await.is_refusal(403, "org_allowance", "REQUEST_LIMIT_EXCEEDED");
    }
    assert_eq!(world.sim.counts().requests, sent, "nothing was sent");
    world.sim.script().set_daily_limit(100_000);
    tokio::time::sleep(Duration::from_mins(90)).await;
    for _ in 0..20 {
        shop.get("limits").await;
    }
    assert_eq!(shop.get("limits").await.code(), 200);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_changes_a_share_and_forgets_no_use() {
    let world = World::with(limited(100_000), &budget("limit: 50000", "daily: {ceiling: 5}"));
    let mut shop = client(&world, "shop");
    for _ in 0..5 {
        assert_eq!(shop.get("limits").await.code(), 200);
    }
    assert_eq!(shop.get("limits").await.code(), 403);
    world.reload(&budget("limit: 50000", "daily: {ceiling: 8}"));
    for _ in 0..3 {
        assert_eq!(shop.get("limits").await.code(), 200);
    }
    assert_eq!(shop.get("limits").await.code(), 403);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_soap_answer_is_a_reading_too() {
    let world = World::with(limited(1_000), &budget("limit: from_salesforce, before_first_reading: 1", ""));
    let mut shop = client(&world, "shop");
    let soap = envelope(&token("admin"), "<urn:getUserInfo/>");
    let answer = shop.send("POST", "/services/Soap/u/62.0", &[("content-type", "text/xml")], soap).await;
    assert_eq!(answer.code(), 200, "{}", answer.text());
    if answer.header("sforce-limit-info").is_empty() {
        assert!(answer.text().contains("LimitInfoHeader"), "{}", answer.text());
    }
    // Without a reading this call would have to wait.
    let (ledger, clock) = (world.in_force.load().orgs()[0].ledger.clone(), weirkeeper::clock::Clock::start());
    assert_eq!(json!(ledger.org(clock.now()).reading), json!({"used": 1, "limit": 1_000}));
    assert_eq!(shop.get("limits").await.code(), 200);
    world.close().await;
}
