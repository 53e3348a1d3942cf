//! Search, tree, graph, GraphQL, UI API, Tooling, Connect, Apex REST, locks, maintenance.

use std::time::Duration;

use serde_json::json;

use super::{Caller, config, spawn, token};
use crate::sim::{Fault, Sim, SimConfig};

#[tokio::test(start_paused = true)]
async fn searches_find_what_the_user_sees() {
    let sim = Sim::new(config());
    let mut caller = Caller::of(&sim, "admin").await;
    caller.post("sobjects/Account", &json!({"Name": "Needle Works"})).await;
    let found =
        caller.get("search?q=FIND+%7Bneedle%7D+IN+ALL+FIELDS+RETURNING+Account(Id,+Name),+Contact").await.json();
    assert_eq!(found["searchRecords"][0]["Name"], "Needle Works");
    assert_eq!(found["searchRecords"].as_array().unwrap().len(), 1);
    let body = json!({"q": "needle", "sobjects": [{"name": "Account", "fields": ["Name"], "limit": 5}]});
    assert_eq!(caller.post("parameterizedSearch", &body).await.json()["searchRecords"][0]["Name"], "Needle Works");
    let mut sales = Caller::of(&sim, "sales").await;
    assert_eq!(sales.get("parameterizedSearch?q=needle&sobject=Account").await.json()["searchRecords"], json!([]));
    assert_eq!(caller.get("search?q=nonsense").await.code(), "MALFORMED_SEARCH");
}

#[tokio::test(start_paused = true)]
async fn trees_are_planted_whole_or_not_at_all() {
    let mut caller = Caller::admin(config()).await;
    let tree = |last: &str| {
        json!({"records": [{
            "attributes": {"type": "Account", "referenceId": "a"}, "Name": "Tree",
            "Contacts": {"records": [{"attributes": {"type": "Contact", "referenceId": "c"}, "LastName": last}]},
        }]})
    };
    let planted = caller.post("composite/tree/Account", &tree("Leaf")).await;
    assert_eq!((planted.status, planted.json()["hasErrors"].clone()), (201, json!(false)));
    let parent = planted.json()["results"][0]["id"].clone();
    let child = caller.query("SELECT AccountId FROM Contact WHERE LastName = 'Leaf'").await.json();
    assert_eq!(child["records"][0]["AccountId"], parent);
    let failed = caller.post("composite/tree/Account", &tree("")).await;
    assert_eq!((failed.status, failed.json()["results"][0]["referenceId"].clone()), (400, json!("c")));
    assert_eq!(caller.sim.counts().writes["Account"].created, 1);
    let many: Vec<_> =
        (0..201).map(|n| json!({"attributes": {"type": "Lead", "referenceId": format!("r{n}")}})).collect();
    assert_eq!(caller.post("composite/tree/Lead", &json!({"records": many})).await.status, 400);
}

#[tokio::test(start_paused = true)]
async fn each_graph_stands_or_falls_alone() {
    let mut caller = Caller::admin(config()).await;
    let node = |name: &str, body: serde_json::Value| json!({"method": "POST", "url": "/services/data/v62.0/sobjects/Account", "referenceId": name, "body": body});
    let graphs = json!({"graphs": [
        {"graphId": "good", "compositeRequest": [node("a", json!({"Name": "G"})), node("b", json!({"Name": "H", "ParentId": "@{a.id}"}))]},
        {"graphId": "bad", "compositeRequest": [node("c", json!({"Name": "I"})), node("d", json!({"Nope": 1}))]},
    ]});
    let before = caller.sim.counts().charged;
    let done = caller.post("composite/graph", &graphs).await.json();
    assert_eq!(
        (done["graphs"][0]["isSuccessful"].clone(), done["graphs"][1]["isSuccessful"].clone()),
        (json!(true), json!(false))
    );
    let halted = &done["graphs"][1]["graphResponse"]["compositeResponse"][0];
    assert_eq!(halted["body"][0]["errorCode"], "PROCESSING_HALTED");
    assert_eq!(caller.sim.counts().charged - before, 1);
    assert_eq!(caller.sim.counts().writes["Account"].created, 2);
}

#[tokio::test(start_paused = true)]
async fn graphql_costs_a_call_for_each_subquery() {
    let mut caller = Caller::admin(config()).await;
    let query = "query { uiapi { query { Account(first: 2) { edges { node { Id Name { value } } } totalCount } c: Contact { edges { node { Id } } } Nope { edges { node { Id } } } } } }";
    let reply = caller.post("graphql", &json!({"query": query})).await;
    let data = reply.json();
    let accounts = &data["data"]["uiapi"]["query"]["Account"]["edges"];
    assert_eq!((reply.status, accounts.as_array().unwrap().len()), (200, 2));
    assert!(accounts[0]["node"]["Name"]["value"].is_string());
    assert_eq!(data["data"]["uiapi"]["query"]["c"]["edges"].as_array().unwrap().len(), 10);
    assert_eq!(data["errors"].as_array().unwrap().len(), 1);
    assert_eq!(caller.sim.counts().by_family["graphql"], 3);
    let wrong = caller.post("graphql", &json!({"query": "{ uiapi {"})).await;
    assert_eq!((wrong.status, wrong.json()["errors"][0]["message"].clone()), (200, json!("Invalid Syntax")));
}

#[tokio::test(start_paused = true)]
async fn the_smaller_apis_answer() {
    let mut caller = Caller::admin(config()).await;
    let echo = caller.post("/services/apexrest/orders/v1?x=1", &json!({"n": 1})).await.json();
    assert_eq!(
        echo,
        json!({"method": "POST", "path": "/orders/v1", "parameters": {"x": "1"}, "bytes": 7, "body": {"n": 1}})
    );
    let failed = caller.get("/services/apexrest/fail").await;
    assert_eq!((failed.status, failed.code().as_str()), (500, "APEX_ERROR"));
    let entities = caller.get("tooling/query?q=SELECT+KeyPrefix+FROM+EntityDefinition").await.json();
    assert_eq!(entities["records"][0]["KeyPrefix"], "001");
    assert_eq!(caller.get("tooling/executeAnonymous/?anonymousBody=x").await.json()["success"], true);
    let id = caller.account().await;
    let record = caller.get(&format!("ui-api/records/{id}?fields=Account.Name")).await;
    assert!(record.json()["fields"]["Name"]["value"].is_string() && !record.header("etag").is_empty());
    assert_eq!(caller.get("ui-api/object-info/Account").await.json()["keyPrefix"], "001");
    assert_eq!(caller.get("connect/organization").await.json()["name"], "Simulated Org");
    assert_eq!(caller.get("/favicon.ico").await.status, 404);
    assert_eq!(caller.sim.counts().charged, 9);
}

#[tokio::test(start_paused = true)]
async fn chatter_has_a_rate_of_its_own_and_costs_nothing() {
    let mut caller = Caller::admin(SimConfig { chatter_per_hour: 2, ..config() }).await;
    for _ in 0..2 {
        assert_eq!(caller.get("chatter/users/me").await.status, 200);
    }
    assert_eq!(caller.get("chatter/feeds/news/me/feed-elements").await.status, 503);
    assert_eq!(caller.get("connect/organization").await.status, 200);
    caller.sim.script().advance(Duration::from_hours(1));
    assert_eq!(caller.get("chatter/users/me").await.status, 200);
    assert_eq!(caller.sim.counts().charged, 1);
}

#[tokio::test(start_paused = true)]
async fn writes_to_children_of_one_parent_contend() {
    let sim = Sim::new(SimConfig { lock_wait_ms: 0, ..config() });
    let mut caller = Caller::of(&sim, "admin").await;
    let parent = caller.account().await;
    let child = |name: &str| json!({"LastName": name, "AccountId": parent});
    let mut running = Vec::new();
    // Twice, so that what the first slow write held is seen to be given back.
    for name in ["Before", "First"] {
        sim.script().fault(Fault {
            method: Some("POST".into()),
            times: Some(1),
            latency_ms: 5_000,
            ..Fault::default()
        });
        let mut slow = Caller::of(&sim, "integration").await;
        let first = child(name);
        running.push(spawn(async move { slow.post("sobjects/Contact", &first).await.status }));
        if name == "Before" {
            tokio::time::sleep(Duration::from_secs(6)).await;
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let refused = caller.post("sobjects/Contact", &child("Second")).await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "UNABLE_TO_LOCK_ROW"));
    let items = json!({"records": [
        {"attributes": {"type": "Contact"}, "LastName": "Third", "AccountId": parent},
        {"attributes": {"type": "Contact"}, "LastName": "Fourth"},
    ]});
    let mixed = caller.post("composite/sobjects", &items).await.json();
    assert_eq!(mixed[0]["errors"][0]["statusCode"], "UNABLE_TO_LOCK_ROW");
    assert_eq!(mixed[1]["success"], true);
    assert_eq!(
        caller.patch(&format!("sobjects/Account/{parent}"), &json!({"Phone": "1"})).await.code(),
        "UNABLE_TO_LOCK_ROW"
    );
    for slow in running {
        assert_eq!(slow.await.unwrap(), 201);
    }
    assert_eq!(caller.post("sobjects/Contact", &child("Fifth")).await.status, 201);
}

#[tokio::test(start_paused = true)]
async fn maintenance_refuses_all_or_only_writes() {
    let sim = Sim::new(config());
    let mut caller = Caller::of(&sim, "admin").await;
    sim.script().make_read_only();
    let refused = caller.post("sobjects/Lead", &json!({"LastName": "L", "Company": "C"})).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE"));
    assert_eq!(caller.query("SELECT Id FROM Lead").await.status, 200);
    sim.script().take_down();
    let down = caller.get("sobjects").await;
    assert_eq!((down.status, down.header("content-type")), (503, "text/html;charset=UTF-8"));
    sim.script().end_maintenance();
    assert_eq!(caller.get("sobjects").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn unknown_hosts_meet_the_edge() {
    let sim = Sim::new(SimConfig { hosts: vec!["other.my.salesforce.com".into()], ..config() });
    let mut caller = Caller::of(&sim, "admin").await;
    let reply = caller.get("sobjects").await;
    assert_eq!((reply.status, reply.header("content-type")), (420, "text/html;charset=UTF-8"));
    assert_eq!(reply.header("sforce-limit-info"), "");
    assert_eq!(sim.counts().charged, 0);
}

#[tokio::test(start_paused = true)]
async fn heads_have_a_longest_length() {
    let sim = Sim::new(config());
    let mut caller = Caller::of(&sim, "admin").await;
    let long = "x".repeat(17_000);
    assert_eq!(caller.get(&format!("query?q={long}")).await.status, 414);
    let mut caller = Caller::of(&sim, "admin").await.with("x-long", &long);
    assert_eq!(caller.get("sobjects").await.status, 431);
    assert!(!token("admin").is_empty());
}
