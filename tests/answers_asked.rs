//! Promise: what the gateway asks on its own account costs no more than it may; who shares answers does so by order.

use std::time::Duration;

use serde_json::{Value, json};
use weirkeeper::edge::Connection;

use crate::answers::{ROWS, from_memory, is_kept};
use crate::client::{Answer, encoded, token};
use crate::world::World;

/// The lines of the access log about what the gateway asked on its own account.
fn errands(world: &World) -> Vec<Value> {
    world.lines().into_iter().filter(|line| !line["errand"].is_null()).collect()
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_newer_answer_where_an_older_one_will_do() {
    let world = World::new(&ROWS.replace("fresh: 60s", "fresh: 60s\n    stale_while_revalidate: 30s"));
    let mut client = world.client();
    let row = format!("sobjects/Account/{}", client.any("Account").await);
    assert!(is_kept(&mut client, &row).await);
    let before = world.sim.counts().charged;
    // A write that does not come through the gateway.
    let other = world.direct().patch(&row, &json!({"Name": "elsewhere"})).await;
    assert_eq!(other.code(), 204);
    world.counts_more(-1);
    tokio::time::sleep(Duration::from_secs(70)).await;
    world.sim.script().latency(2_000, 0);
    for _ in 0..3 {
        let stale = client.get(&row).await;
        assert_eq!(stale.header("cache-status"), "weirkeeper;hit;ttl=-10");
        assert_ne!(stale.json()["Name"], "elsewhere");
        assert_eq!(stale.header("weirkeeper-cost"), "0");
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let fresh = client.get(&row).await;
    assert_eq!(
        (fresh.header("cache-status"), fresh.json()["Name"].as_str()),
        ("weirkeeper;hit;ttl=57", Some("elsewhere"))
    );
    assert_eq!(world.sim.counts().charged - before, 2, "one by the other way, one by the errand");
    let errands = errands(&world);
    assert_eq!(errands.len(), 1);
    let told = ["errand", "class", "caller", "source"].map(|name| errands[0][name].as_str().unwrap().to_owned());
    assert_eq!(told, ["revalidate", "batch", "anyone", "upstream"]);
    let counted = world.metric("weirkeeper_cache_errands_total", &[("caller", "anyone"), ("errand", "revalidate")]);
    assert!((counted - 1.0).abs() < f64::EPSILON, "{counted}");
    // Of the three that were given an older answer, one occasioned a call.
    let saved = world.metric("weirkeeper_api_calls_saved_total", &[("by", "stale")]);
    assert!((saved - 2.0).abs() < f64::EPSILON, "{saved}");
    // Longer than that nobody wants it, and a write leaves nothing to give.
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(client.get(&row).await.header("cache-status"), "weirkeeper;fwd=miss;stored");
    tokio::time::sleep(Duration::from_secs(70)).await;
    assert_eq!(client.patch(&row, &json!({"Name": "new"})).await.code(), 204);
    assert_eq!(client.get(&row).await.json()["Name"], "new");
    world.sim.script().latency(0, 0);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn an_errand_is_no_way_around_a_budget_or_a_write() {
    let world = World::new(&format!(
        "{}callers:
- {{name: poor, match: {{call_options_client: poor}}, daily: {{ceiling: 1}}}}
- {{name: anyone, match: any}}
",
        ROWS.replace("fresh: 60s", "fresh: 60s\n    stale_while_revalidate: 30s")
    ));
    let mut client = world.client();
    let row = format!("sobjects/Account/{}", client.any("Account").await);
    let mut poor = world.client().with("sforce-call-options", "client=poor");
    poor.get(&row).await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(poor.get(&row).await.header("cache-status"), "weirkeeper;hit;ttl=-1");
    world.settle().await;
    let refused = errands(&world);
    assert_eq!((refused.len(), &refused[0]["refusal"]), (1, &json!("caller_ceiling")));
    // What an errand fetched before a write is not kept after it.
    world.sim.script().latency(2_000, 0);
    assert_eq!(client.get(&row).await.header("cache-status"), "weirkeeper;hit;ttl=-1");
    world.settle().await;
    world.sim.script().latency(0, 0);
    assert_eq!(client.patch(&row, &json!({"Name": "new"})).await.code(), 204);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(client.get(&row).await.json()["Name"], "new");
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn queries_through_relationships_are_kept_once_it_is_known_where_they_lead() {
    let world = World::new(ROWS);
    let mut client = world.client();
    let account = client.any("Account").await;
    let row = format!("sobjects/Account/{account}");
    let target = |soql: &str| format!("query?q={}", encoded(soql));
    let parents = target("SELECT Id, Account.Name FROM Contact ORDER BY Id");
    let children = target("SELECT Id, (SELECT Id FROM Contacts) FROM Account ORDER BY Id");
    for query in [&parents, &children] {
        // The first one occasions a question.
        assert_eq!(client.get(query).await.header("cache-status"), "");
        world.settle().await;
        assert_eq!(errands(&world).last().unwrap()["errand"], "describe");
        assert!(is_kept(&mut client, query).await, "{query}");
    }
    let asked = errands(&world);
    assert_eq!(asked.len(), 2);
    for (line, object) in asked.iter().zip(["contact", "account"]) {
        let told = ["object", "class", "caller", "operation"].map(|name| line[name].as_str().unwrap().to_lowercase());
        assert_eq!(
            (told, &line["charged"]),
            ([object.into(), "batch".into(), "anyone".into(), "describe".into()], &json!(1))
        );
    }
    // Each object on the way counts.
    assert_eq!(client.patch(&row, &json!({"Name": "new"})).await.code(), 204);
    for query in [&parents, &children] {
        assert!(!from_memory(&client.get(query).await), "{query}");
        assert!(from_memory(&client.get(query).await), "{query}");
    }
    let new = json!({"LastName": "new", "AccountId": account});
    assert_eq!(client.post("sobjects/Contact", &new).await.code(), 201);
    for query in [&parents, &children] {
        assert!(!from_memory(&client.get(query).await), "{query}");
    }
    // A description that passes teaches as much.
    client.get("sobjects/Opportunity/describe").await;
    assert!(is_kept(&mut client, &target("SELECT Account.Name FROM Opportunity ORDER BY Id")).await);
    // What leads to an object that may not be kept, or nowhere, is not kept, and asked for no second time.
    for soql in ["SELECT Owner.Name FROM Account ORDER BY Id", "SELECT Parent.Owner.Name FROM Account ORDER BY Id"] {
        assert!(!is_kept(&mut client, &target(soql)).await, "{soql}");
    }
    assert_eq!(client.get(&target("SELECT Nope.Name FROM Account")).await.code(), 400);
    world.settle().await;
    assert_eq!(errands(&world).len(), 2);
    // Another user is asked for anew; and what may have changed is.
    let mut other = world.client().user("integration");
    other.get(&parents).await;
    world.settle().await;
    assert_eq!(errands(&world).len(), 3);
    tokio::time::sleep(Duration::from_mins(2)).await;
    let mut client = world.client();
    client.post("/services/apexrest/x", &json!({})).await;
    assert!(!from_memory(&client.get(&parents).await));
    world.settle().await;
    assert_eq!(errands(&world).len(), 4);
    assert!(is_kept(&mut client, &parents).await);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn the_gateway_describes_no_more_than_it_may() {
    let world = World::new(&ROWS.replace("cache:\n", "cache:\n  describes_per_hour: 0\n"));
    let mut client = world.client();
    let query = format!("query?q={}", encoded("SELECT Id, Account.Name FROM Contact ORDER BY Id"));
    for _ in 0..3 {
        assert!(!is_kept(&mut client, &query).await);
    }
    world.settle().await;
    assert_eq!(errands(&world).len(), 0);
    client.get("sobjects/Contact/describe").await;
    assert!(is_kept(&mut client, &query).await);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn callers_with_the_same_rights_share_if_the_operator_says_so() {
    let callers = "callers:
- {name: one, match: {network: 192.0.2.0/24}}
- {name: two, match: {network: 198.51.100.0/24}}
- {name: three, match: {network: 203.0.113.0/24}}
";
    for together in [true, false] {
        let groups = if together { "cache:\n  same_rights: [[one, two]]\n" } else { "cache:\n" };
        let world = World::new(&format!("{}{callers}", ROWS.replace("cache:\n", groups)));
        let of = |network: [u8; 4], user: &str| {
            world.client_on(move || Connection::new((network, 40_000).into(), 0)).user(user)
        };
        let (mut one, mut two) = (of([192, 0, 2, 1], "admin"), of([198, 51, 100, 1], "integration"));
        let mut three = of([203, 0, 113, 1], "sales");
        let row = format!("sobjects/Account/{}", one.any("Account").await);
        assert!(is_kept(&mut one, &row).await);
        // Salesforce has to accept each session itself.
        assert!(!from_memory(&two.get(&row).await), "{together}");
        let lead = format!("sobjects/Lead/{}", one.any("Lead").await);
        one.get(&lead).await;
        assert_eq!(from_memory(&two.get(&lead).await), together);
        assert!(!from_memory(&three.get(&lead).await), "{together}");
        assert_eq!(two.patch(&row, &json!({"Name": "new"})).await.code(), 204);
        assert_eq!(one.get(&row).await.json()["Name"], "new");
        // What a session fetched is lost with it, for the others too.
        one.get(&lead).await;
        assert!(from_memory(&two.get(&lead).await), "{together}");
        world.sim.script().revoke(&token("admin"));
        assert_eq!(one.get("limits").await.code(), 401);
        assert_eq!(one.get(&lead).await.code(), 401, "{together}");
        assert_eq!(two.get(&lead).await.code(), 200, "{together}");
        world.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stranger_waits_for_nobodys_answer_even_in_a_group() {
    let world = World::new(&format!(
        "{}callers:
- {{name: one, match: {{network: 192.0.2.0/24}}}}
- {{name: two, match: {{network: 198.51.100.0/24}}}}
",
        ROWS.replace("cache:\n", "cache:\n  same_rights: [[one, two]]\n")
    ));
    let of =
        |network: [u8; 4], user: &str| world.client_on(move || Connection::new((network, 40_000).into(), 0)).user(user);
    let (mut one, mut two) = (of([192, 0, 2, 1], "admin"), of([198, 51, 100, 1], "nobody-at-all"));
    let row = format!("sobjects/Account/{}", one.any("Account").await);
    world.sim.script().latency(1_000, 0);
    let (good, stranger) = tokio::join!(one.get(&row), two.get(&row));
    assert_eq!((good.code(), stranger.code()), (200, 401));
    world.sim.script().latency(0, 0);
    assert_eq!(two.get(&row).await.code(), 401);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn callers_of_one_identity_share_its_answers_as_far_as_their_rules_go() {
    let world = World::new(&format!(
        "{ROWS}orgs:
- name: prod
  instance_url: 'http://127.0.0.1:8081'
  hosts: [sf.internal]
  auth: {{integration: {{flow: client_credentials, client_id: 3MVGsim.app, client_secret: {{file: sim-app-secret.secret}}}}}}
callers:
- {{name: one, match: {{network: 192.0.2.0/24}}, act_as: integration}}
- {{name: two, match: {{network: 198.51.100.0/24}}, act_as: integration}}
- {{name: three, match: {{network: 203.0.113.0/24}}, act_as: integration, allow: {{objects: [Contact]}}}}
- {{name: anyone, match: any}}
"
    ));
    let of = |network: [u8; 4]| world.client_on(move || Connection::new((network, 40_000).into(), 0));
    let (mut one, mut two) = (of([192, 0, 2, 1]), of([198, 51, 100, 1]));
    let (mut three, mut own) = (of([203, 0, 113, 1]), of([127, 0, 0, 9]).user("integration"));
    // Who it is, is not known before its first log-in.
    one.get("sobjects/Account/describe").await;
    assert_eq!(world.last_line().await["cache"], "uncacheable");
    let row = format!("sobjects/Account/{}", one.any("Account").await);
    assert!(!from_memory(&one.get(&row).await));
    assert!(from_memory(&two.get(&row).await));
    three.get(&row).await.is_refusal(403, "forbidden", "INSUFFICIENT_ACCESS");
    assert!(!from_memory(&own.get(&row).await), "the same user by a session of its own");
    assert_eq!(two.patch(&row, &json!({"Name": "new"})).await.code(), 204);
    for client in [&mut one, &mut two] {
        assert_eq!(client.get(&row).await.json()["Name"], "new");
    }
    assert_eq!(own.get(&row).await.json()["Name"], "new");
    world.close().await;
}
