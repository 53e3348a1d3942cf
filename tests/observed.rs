//! Promise: what is logged, measured and said in headers is one account of what happened.

use serde_json::json;

use crate::client::Answer as _;
use crate::world::World;

#[tokio::test(start_paused = true)]
async fn a_request_is_logged_measured_and_answered_with_the_same_figures() {
    let world = World::new("callers: [{name: billing, match: any, class: batch}]");
    let mut client = world.client();
    let id = client.any("Account").await;
    let answer = client.get(&format!("sobjects/Account/{id}")).await;
    assert_eq!(answer.code(), 200);
    let line = world.last_line().await;
    for (member, value) in [
        ("event", json!("request")),
        ("org", json!("prod")),
        ("caller", json!("billing")),
        ("class", json!("batch")),
        ("family", json!("rest")),
        ("operation", json!("read")),
        ("object", json!("Account")),
        ("version", json!("v62.0")),
        ("status", json!(200)),
        ("source", json!("upstream")),
        ("remote", json!("192.0.2.1")),
        ("http", json!("1.1")),
        ("method", json!("GET")),
        ("template", json!("/services/data/{version}/sobjects/{object}/{id}")),
        ("ending", json!("complete")),
        ("charged", json!(1)),
        ("attempts", json!(1)),
        ("upstream_status", json!(200)),
        ("bytes_in", json!(0)),
        ("bytes_out", json!(answer.body().len())),
    ] {
        assert_eq!(line[member], value, "{member} in {line}");
    }
    assert_eq!(line["request_id"], answer.header("weirkeeper-request-id"));
    assert_eq!(answer.header("weirkeeper-cost"), "1");
    assert!(answer.header("server-timing").starts_with("upstream;dur="), "{answer:?}");
    let labels = [("caller", "billing"), ("family", "rest"), ("class", "batch")];
    assert!((world.metric("weirkeeper_api_calls_spent_total", &labels) - 1.0).abs() < f64::EPSILON);
    world.close().await;
}
