//! Promise: it can be seen who spends what: by a caller its own share, by the operator whoever hides behind a common name.

use std::time::Duration;

use serde_json::json;
use weirkeeper::sim::{Fault, FaultAction, SimConfig, SimDaily};

use crate::client::{Answer as _, token};
use crate::world::{ORIGIN, World, small};

const SHOP: &str = "
callers:
- {name: shop, match: {call_options_client: shop}, class: interactive, daily: {floor: 2, ceiling: 4}, pace: {per_second: 10, burst: 30}}
- {name: hurried, match: {call_options_client: hurried}, pace: {per_second: 10, burst: 25}}
- {name: observed, match: {call_options_client: observed}, pace: {mode: observe, per_second: 1}}
- {name: anyone, match: any}
";

fn world(simulated: SimConfig, yaml: &str) -> World {
    World::with(
        simulated,
        &format!("orgs: [{{name: prod, instance_url: 'http://{ORIGIN}', daily: {{limit: 5000}}}}]\n{yaml}"),
    )
}

fn client(world: &World, name: &str) -> crate::client::Client {
    world.client().with("sforce-call-options", &format!("client={name}"))
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_a_share_is_told_with_every_answer_what_is_left_of_it() {
    let world = world(small(), SHOP);
    let mut shop = client(&world, "shop");
    for left in (0..4).rev() {
        let answer = shop.get("limits").await;
        assert_eq!(answer.code(), 200);
        let (policy, limit) = (answer.header("ratelimit-policy"), answer.header("ratelimit"));
        assert_eq!(policy, "\"daily\";q=4;w=86400, \"pace\";q=30;w=3");
        assert_eq!(limit, format!("\"daily\";r={left}, \"pace\";r={}", 26 + left));
    }
    let refused = shop.get("limits").await;
    refused.is_refusal(403, "caller_ceiling", "REQUEST_LIMIT_EXCEEDED");
    assert!(refused.header("ratelimit").starts_with("\"daily\";r=0, \"pace\";r="), "{}", refused.header("ratelimit"));
    let hurried = client(&world, "hurried").get("limits").await;
    assert_eq!(hurried.header("ratelimit-policy"), "\"pace\";q=25;w=3");
    assert_eq!(hurried.header("ratelimit"), "\"pace\";r=24");
    for without in ["observed", "other"] {
        let answer = client(&world, without).get("limits").await;
        assert_eq!((answer.header("ratelimit-policy"), answer.header("ratelimit")), ("", ""), "{without}");
    }
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn the_headers_can_be_switched_off() {
    let world = world(small(), &format!("rate_limit_headers: false{SHOP}"));
    let answer = client(&world, "shop").get("limits").await;
    assert_eq!((answer.code(), answer.header("ratelimit-policy"), answer.header("ratelimit")), (200, "", ""));
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn the_log_says_on_what_terms_a_call_was_sent() {
    let world = world(small(), SHOP);
    let mut shop = client(&world, "shop");
    for _ in 0..3 {
        shop.get("limits").await;
    }
    shop.get("/services/data/").await;
    shop.get("/weirkeeper/v1/budget").await;
    world.settle().await;
    let terms: Vec<_> = world.lines().iter().map(|line| json!([line["cost"], line["paid"], line["level"]])).collect();
    let expected = [
        json!([1, "floor", "normal"]),
        json!([1, "floor", "normal"]),
        json!([1, "borrowed", "normal"]),
        json!([0, null, "normal"]),
        json!([null, null, null]),
    ];
    assert_eq!(terms, expected);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_hides_behind_the_name_of_everybody_is_found() {
    let world = world(small(), SHOP);
    let java = "Jakarta-Commons/3.1";
    for (calls, name, agent, user) in [
        (7, "loader", java, "admin"),
        (4, "loader", "python-requests/2.31.0", "integration"),
        (2, "shop", java, "admin"),
    ] {
        let mut client = client(&world, name).with("user-agent", agent).user(user);
        for _ in 0..calls {
            client.get("limits").await;
        }
    }
    // What costs nothing is no spending, and what a secret could be is not told.
    world.client().get("/services/data/").await;
    world.client().with("user-agent", &token("sales")).get("limits").await;
    world.settle().await;
    let budget = json!(world.telemetry.snapshot().budgets[0]);
    let named = |kind: &str| {
        let list = budget["top_clients"][kind].as_array().unwrap();
        list.iter().map(|one| json!([one["name"], one["calls"], one["at_least"]])).collect::<Vec<_>>()
    };
    assert_eq!(named("by_client"), [json!(["loader", 11, 11]), json!(["none", 1, 1])]);
    let agents = [json!(["Jakarta-Commons", 7, 7]), json!(["python-requests", 4, 4]), json!(["other", 1, 1])];
    assert_eq!(named("by_user_agent"), agents);
    let principals = named("by_principal");
    assert_eq!((principals.len(), &principals[0][1], &principals[1][1]), (2, &json!(8), &json!(4)));
    let line = world.lines().into_iter().find(|line| line["client"] == "loader").unwrap();
    assert_eq!(principals[0][0], line["principal"], "the same digits as in the log");
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn bulk_batches_are_counted_for_24_hours() {
    let world = world(small(), SHOP);
    let mut loader = world.client();
    let session = token("admin");
    let session = [("x-sfdc-session", session.as_str()), ("content-type", "application/xml")];
    let namespace = "http://www.force.com/2009/06/asyncapi/dataload";
    let job = format!(
        "<?xml version=\"1.0\"?><jobInfo xmlns=\"{namespace}\"><operation>insert</operation><object>Account</object>\
         <contentType>CSV</contentType></jobInfo>"
    );
    let mut loader_v1 = world.client().without("authorization");
    let made = loader_v1.send("POST", "/services/async/62.0/job", &session, job).await;
    assert_eq!(made.code(), 201, "{}", made.text());
    let id = made.text().split("<id>").nth(1).unwrap().split('<').next().unwrap().to_owned();
    let batch = format!("/services/async/62.0/job/{id}/batch");
    let csv = [session[0], ("content-type", "text/csv")];
    for _ in 0..2 {
        let made = loader_v1.send("POST", &batch, &csv, "Name\nA\n").await;
        assert_eq!(made.code(), 201, "{}", made.text());
    }
    assert_eq!(loader_v1.send("GET", &batch, &session, "").await.code(), 200);
    let refused = loader_v1.send("POST", "/services/async/62.0/job/750000000000001AAA/batch", &csv, "Name\nA\n").await;
    assert!(refused.code() >= 400, "{}", refused.text());

    let made =
        loader.post("jobs/ingest", &json!({"object": "Account", "operation": "insert", "contentType": "CSV"})).await;
    let content = format!("/{}", made.json()["contentUrl"].as_str().unwrap());
    assert_eq!(loader.send("PUT", &content, &[("content-type", "text/csv")], "Name\nA\n").await.code(), 201);
    let query = json!({"operation": "query", "query": "SELECT Id FROM Account"});
    assert_eq!(loader.post("jobs/query", &query).await.code(), 200);
    world.settle().await;
    let batches = || json!(world.telemetry.snapshot().budgets[0].bulk_batches);
    assert_eq!(batches(), json!({"used": 3, "limit": 15_000}));
    assert!((world.metric("weirkeeper_bulk_batches_used", &[("org", "prod")]) - 3.0).abs() < f64::EPSILON);
    tokio::time::sleep(Duration::from_secs(86_400 + 120)).await;
    assert_eq!(batches(), json!({"used": 0, "limit": 15_000}));
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_salesforce_says_is_learnt_although_nobody_waits_for_the_answer_any_more() {
    let simulated = SimConfig { daily: SimDaily { limit: 1_000, ..SimDaily::default() }, ..small() };
    let world = world(simulated, SHOP);
    let reading = || json!(world.telemetry.snapshot().budgets[0].budget.reading);
    let mut first = world.client();
    assert_eq!(first.get("limits").await.code(), 200);
    assert_eq!(reading(), json!({"used": 1, "limit": 1_000}));
    world.sim.script().spend_dark(300);
    let slow = Fault { latency_ms: 5_000, times: Some(1), action: FaultAction::None, ..Fault::default() };
    world.sim.script().fault(slow);
    let late = first.send("GET", "limits", &[("x-request-timeout-ms", "1000")], "").await;
    assert_eq!(late.code(), 504);
    assert_eq!(reading(), json!({"used": 1, "limit": 1_000}), "nothing was said yet");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(reading(), json!({"used": 302, "limit": 1_000}));
    world.close().await;
}
