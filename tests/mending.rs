//! Promise: of a request that is not all or none only the records that were locked are sent again, if the operator wants
//! that; every other record, its place and its id stay what they were, and what is not known is said.

use serde_json::{Value, json};
use weirkeeper::sim::{Fault, FaultAction, SimConfig};

use crate::client::{Answer as _, Client};
use crate::world::{World, small};

const ON: &str = "retry: {mode: enforce, lock: {attempts: 10, per_record: true}}";

fn impatient() -> SimConfig {
    SimConfig { lock_wait_ms: 300, ..small() }
}

/// The ids of three accounts.
async fn accounts(world: &World) -> Vec<String> {
    let found = world.direct().query("SELECT Id FROM Account ORDER BY Id LIMIT 3").await.json();
    found["records"].as_array().unwrap().iter().map(|row| row["Id"].as_str().unwrap().to_owned()).collect()
}

/// Somebody writes to this account for two seconds; resolves when that is answered.
async fn hold(world: &World, id: &str) -> tokio::task::JoinHandle<()> {
    let slow = Fault { times: Some(1), latency_ms: 2_000, action: FaultAction::None, ..Fault::default() };
    world.sim.script().fault(slow);
    let (mut other, path) = (world.direct(), format!("sobjects/Account/{id}"));
    let held = world.beside(async move {
        other.patch(&path, &json!({"Phone": "1"})).await;
    });
    world.settle().await;
    held
}

fn updated(world: &World) -> u64 {
    world.sim.counts().writes.get("Account").map_or(0, |writes| writes.updated)
}

fn records(ids: &[String]) -> Value {
    ids.iter().map(|id| json!({"attributes": {"type": "Account"}, "id": id, "Name": format!("New {id}")})).collect()
}

fn ids_of(answer: &Value) -> Vec<(String, bool)> {
    let of = |item: &Value| (item["id"].as_str().unwrap_or_default().to_owned(), item["success"] == true);
    answer.as_array().unwrap().iter().map(of).collect()
}

#[tokio::test(start_paused = true)]
async fn the_locked_record_of_a_collection_is_sent_again_alone_and_stands_in_its_place() {
    for coding in ["identity", "gzip"] {
        let world = World::with(impatient(), ON);
        let ids = accounts(&world).await;
        let before = updated(&world);
        let other = hold(&world, &ids[1]).await;
        let mut client = world.client().with("accept-encoding", coding);
        let request = json!({"allOrNone": false, "records": records(&ids)});
        let done = client.patch("composite/sobjects", &request).await;
        let wanted: Vec<_> = ids.iter().map(|id| (id.clone(), true)).collect();
        assert_eq!((done.code(), ids_of(&done.json())), (200, wanted), "{}", done.text());
        assert_eq!(done.header("weirkeeper-partial-failures"), "");
        other.await.unwrap();
        // Each of ours once, and the other's.
        assert_eq!(updated(&world), before + 4);
        let line = world.last_line().await;
        let told = (&line["retry"], &line["retry_for"], line["attempts"].as_u64() > Some(1), &line["parts_failed"]);
        assert_eq!(told, (&json!("succeeded"), &json!("lock"), true, &Value::Null), "{line}");
        assert_eq!(line["charged"], line["attempts"], "each attempt pays");
        world.counts_more(-2);
        world.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_not_done_unless_it_is_wanted_nor_where_it_is_all_or_none() {
    for (config, all_or_none) in [("retry: {mode: enforce}", false), (ON, true)] {
        let world = World::with(impatient(), config);
        let ids = accounts(&world).await;
        let other = hold(&world, &ids[1]).await;
        let request = json!({"allOrNone": all_or_none, "records": records(&ids)});
        let done = world.client().patch("composite/sobjects", &request).await;
        // What was rolled back as a whole is sent again as a whole.
        let failed = if all_or_none { "" } else { "1/3" };
        assert_eq!((done.code(), done.header("weirkeeper-partial-failures")), (200, failed), "{}", done.text());
        other.await.unwrap();
        world.counts_more(-2);
        world.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn locked_records_are_deleted_in_the_end() {
    let world = World::with(impatient(), ON);
    let mut client = world.client();
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        let made = client.post("sobjects/Account", &json!({"Name": name})).await.json();
        ids.push(made["id"].as_str().unwrap().to_owned());
    }
    let other = hold(&world, &ids[2]).await;
    let done = client.delete(&format!("composite/sobjects?ids={}&allOrNone=false", ids.join(","))).await;
    let wanted: Vec<_> = ids.iter().map(|id| (id.clone(), true)).collect();
    assert_eq!(ids_of(&done.json()), wanted, "{}", done.text());
    other.await.unwrap();
    world.counts_more(-1);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_locked_subrequest_is_sent_again_alone() {
    let world = World::new(ON);
    let ids = accounts(&world).await;
    let sub = |at: usize| json!({"method": "PATCH", "url": format!("/services/data/v62.0/sobjects/Account/{}", ids[at]), "referenceId": format!("r{at}"), "body": {"Name": "x"}});
    let lock =
        json!([{"errorCode": "UNABLE_TO_LOCK_ROW", "message": "unable to obtain exclusive access", "fields": []}]);
    let said = |at: usize, status: u16, body: &Value| json!({"body": body, "httpHeaders": {"Was": at}, "httpStatusCode": status, "referenceId": format!("r{at}")});
    let first = [said(0, 204, &Value::Null), said(1, 400, &lock), said(2, 204, &Value::Null)];
    world.sim.script().fault(once(answer(&json!({"compositeResponse": first}))));
    let before = updated(&world);
    let done = world.client().post("composite", &json!({"compositeRequest": [sub(0), sub(1), sub(2)]})).await;
    let parts = done.json()["compositeResponse"].as_array().unwrap().clone();
    assert_eq!((&parts[0], &parts[2]), (&first[0], &first[2]), "what was done stays as it was said");
    assert_eq!((&parts[1]["referenceId"], &parts[1]["httpStatusCode"]), (&json!("r1"), &json!(204)), "{}", done.text());
    assert_eq!(updated(&world), before + 1, "only the second was sent again");
    world.counts_more(-1);
    world.close().await;
}

fn answer(body: &Value) -> FaultAction {
    FaultAction::Answer {
        status: 200,
        body: body.to_string(),
        content_type: "application/json;charset=UTF-8".to_owned(),
        headers: Vec::new(),
    }
}

fn once(action: FaultAction) -> Fault {
    Fault { times: Some(1), action, ..Fault::default() }
}

async fn create_two(client: &mut Client) -> http::Response<bytes::Bytes> {
    let record = |name: &str| json!({"attributes": {"type": "Account"}, "Name": name});
    client.post("composite/sobjects", &json!({"records": [record("one"), record("two")]})).await
}

fn half() -> Value {
    let lock =
        json!({"statusCode": "UNABLE_TO_LOCK_ROW", "message": "unable to obtain exclusive access", "fields": []});
    json!([{"success": false, "errors": [lock]}, {"id": "001000000000002AAA", "success": true, "errors": []}])
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_on_the_second_way_is_said_to_be_unknown() {
    for (action, attempts) in [
        (FaultAction::Close { apply: true, reset: false }, 2),
        (FaultAction::ApplyThenStatus { status: 502 }, 2),
        (answer(&json!({"something": "else"})), 2),
    ] {
        let world = World::new(ON);
        world.sim.script().fault(once(answer(&half())));
        world.sim.script().fault(once(action.clone()));
        let done = create_two(&mut world.client()).await;
        assert_eq!((done.code(), done.json()), (200, half()), "{action:?}");
        assert_eq!(done.header("weirkeeper-outcome"), "unknown", "{action:?}");
        assert_eq!(done.header("weirkeeper-partial-failures"), "1/2");
        let line = world.last_line().await;
        assert_eq!((&line["attempts"], &line["outcome"]), (&json!(attempts), &json!("unknown")), "{line}");
        let ours = line["charged"].as_i64().unwrap();
        world.counts_more(ours - i64::try_from(world.sim.counts().charged).unwrap());
        world.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_are_bounded_and_what_is_refused_changes_nothing() {
    let world = World::new("retry: {mode: enforce, lock: {attempts: 4, per_record: true}}");
    let locked = half();
    let again: Value = [locked[0].clone()].into_iter().collect();
    world.sim.script().fault(once(answer(&locked)));
    world.sim.script().fault(Fault { times: Some(2), action: answer(&again), ..Fault::default() });
    let refused = FaultAction::Error { status: 403, code: "INSUFFICIENT_ACCESS".to_owned(), message: "no".to_owned() };
    world.sim.script().fault(once(refused));
    let done = create_two(&mut world.client()).await;
    assert_eq!((done.code(), done.json()), (200, locked), "{}", done.text());
    assert_eq!((done.header("weirkeeper-partial-failures"), done.header("weirkeeper-outcome")), ("1/2", ""));
    let line = world.last_line().await;
    let told = (&line["attempts"], &line["retry"], &line["parts_failed"]);
    assert_eq!(told, (&json!(4), &json!("failed"), &json!(1)), "{line}");
    assert_eq!(world.sim.counts().writes.get("Account").map_or(0, |writes| writes.created), 0);
    world.close().await;
}
