//! Promise: a request that fails the same permanent way again and again costs no further calls, says where its answer comes
//! from, and is asked again as soon as anything it is about has changed.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use serde_json::json;

use crate::client::{Answer as _, Client};
use crate::world::World;

const ON: &str = "cache: {}\n";
const WRONG: &str = "SELECT Nope FROM Account";

fn is_remembered(answer: &Response<Bytes>) -> bool {
    let remembered = !answer.header("weirkeeper-remembered").is_empty();
    assert_eq!(remembered, answer.header("weirkeeper-cost") == "0", "{answer:?}");
    assert_eq!(remembered, answer.header("cache-status").ends_with(";detail=failure"));
    remembered
}

/// Fails three times; from the next time on it is remembered.
async fn fails(client: &mut Client, target: &str) {
    for _ in 0..3 {
        let answer = client.get(target).await;
        assert!((400..500).contains(&answer.code()) && !is_remembered(&answer), "{}", answer.text());
    }
}

#[tokio::test(start_paused = true)]
async fn a_blind_loop_costs_three_calls_and_one_in_half_a_minute() {
    let world = World::new(ON);
    let mut client = world.client();
    let mut seen = Vec::new();
    for _ in 0..60 {
        let answer = client.query(WRONG).await;
        assert_eq!((answer.code(), answer.error().as_str()), (400, "INVALID_FIELD"));
        seen.push((answer.plain(), is_remembered(&answer)));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(seen.iter().all(|(body, _)| *body == seen[0].0), "the same words");
    assert_eq!(world.sim.counts().requests, 4, "three, and one after half a minute");
    let told = client.query(WRONG).await;
    assert_eq!(
        told.header("age").parse::<u64>().unwrap() + told.header("weirkeeper-remembered").parse::<u64>().unwrap(),
        30
    );
    assert_eq!((told.header("weirkeeper-saved"), told.header("set-cookie")), ("1", ""));
    let line = world.last_line().await;
    assert_eq!((&line["source"], &line["remembered"]), (&json!("remembered"), &json!("given")), "{line}");
    let counted = |result| world.metric("weirkeeper_remembered_failures_total", &[("org", "prod"), ("result", result)]);
    assert!((counted("given") - 57.0).abs() < 0.5 && (counted("learnt") - 2.0).abs() < 0.5, "{}", counted("given"));
    let saved = world.metric("weirkeeper_api_calls_saved_total", &[("by", "remembered")]);
    assert!((saved - 57.0).abs() < 0.5, "{saved}");
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_else_and_nothing_else_is_answered_with_it() {
    let world = World::new(ON);
    let mut client = world.client();
    let wrong = "query?q=SELECT+Nope+FROM+Account";
    fails(&mut client, wrong).await;
    assert!(is_remembered(&world.client().get(wrong).await), "the same user on another connection");
    assert!(!is_remembered(&world.client().user("integration").get(wrong).await), "another user");
    assert!(!is_remembered(&world.client().with("accept", "application/xml").get(wrong).await), "another form");
    assert!(!is_remembered(&client.get("query?q=SELECT+Nope+FROM+Contact").await), "another question");
    assert!(
        !is_remembered(&client.send("GET", wrong, &[("cache-control", "no-cache")], "").await),
        "who wants to ask, asks"
    );
    assert!(!is_remembered(&client.get(wrong).await), "and what was known is forgotten");
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_records_or_of_the_schema_ends_it() {
    let world = World::new(ON);
    let mut client = world.client();
    let row = "sobjects/Account/Ext_Id__c/not-there-yet";
    fails(&mut client, row).await;
    assert!(is_remembered(&client.get(row).await));
    let made = world.client().user("integration").patch(row, &json!({"Name": "Now it is"})).await;
    assert_eq!(made.code(), 201, "{}", made.text());
    assert_eq!(client.get(row).await.code(), 200);
    // What a query names is a matter of the schema, not of rows.
    let wrong = "query?q=SELECT+Nope+FROM+Account";
    fails(&mut client, wrong).await;
    client.post("sobjects/Account", &json!({"Name": "x"})).await;
    assert!(is_remembered(&client.get(wrong).await));
    client.post("tooling/sobjects/CustomField", &json!({"FullName": "Account.Nope"})).await;
    assert!(!is_remembered(&client.get(wrong).await));
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_ends_it() {
    let world = World::new(ON);
    let mut client = world.client();
    let wrong = "query?q=SELECT+Nope+FROM+Account";
    fails(&mut client, wrong).await;
    world.sim.script().revoke(&crate::client::token("admin"));
    assert_eq!(client.get("sobjects/Account/describe").await.code(), 401);
    assert_eq!(client.get(wrong).await.code(), 401);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn writes_are_remembered_only_if_the_operator_says_so() {
    for (writes, remembered) in [("false", false), ("true", true)] {
        let world = World::new(&format!("cache: {{failures: {{writes: {writes}}}}}\n"));
        let mut client = world.client();
        let wrong = json!({"Name": "x", "Nope": 1});
        for _ in 0..3 {
            let answer = client.post("sobjects/Account", &wrong).await;
            assert!(answer.code() == 400 && !is_remembered(&answer), "{}", answer.text());
        }
        assert_eq!(is_remembered(&client.post("sobjects/Account", &wrong).await), remembered);
        assert!(
            !is_remembered(&client.post("sobjects/Account", &json!({"Name": "y", "Nope": 1})).await),
            "another body"
        );
        assert_eq!(client.post("sobjects/Account", &json!({"Name": "x"})).await.code(), 201);
        world.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn observed_only_it_is_counted_and_off_is_off() {
    let world = World::new("cache: {failures: {mode: observe}}\n");
    let mut client = world.client();
    let wrong = "query?q=SELECT+Nope+FROM+Account";
    fails(&mut client, wrong).await;
    assert!(!is_remembered(&client.get(wrong).await));
    assert_eq!(world.last_line().await["remembered"], "would_give");
    for off in ["cache: {failures: {mode: off}}\n", "cache: {mode: off}\n"] {
        world.reload(off);
        let requests = world.sim.counts().requests;
        for _ in 0..5 {
            assert!(!is_remembered(&client.get(wrong).await));
        }
        assert_eq!(world.sim.counts().requests, requests + 5);
        world.settle().await;
        assert_eq!(world.last_line().await["remembered"], serde_json::Value::Null);
    }
    world.close().await;
}
