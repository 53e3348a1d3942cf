//! Promise: answers from memory are never another user's, and never older than a write that was answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use serde_json::json;
use weirkeeper::answers::{Touch, lower};
use weirkeeper::sim::{Fault, FaultAction};

use crate::client::{Answer, Client, envelope, token};
use crate::world::{Line, World};

/// Rows, queries and descriptions are kept.
pub const ROWS: &str = "cache:
  entries:
  - match: {objects: [Account, Contact, Lead, Opportunity, Case, Product2, Invoice__c], operations: [read, query]}
    fresh: 60s
    stale_if_error: 4m
  - {match: {operations: [describe]}, fresh: 1h}
";

/// What serves without a file: descriptions.
const DEFAULT: &str = "cache: {}\n";

fn once(action: FaultAction) -> Fault {
    Fault { times: Some(1), action, ..Fault::default() }
}

pub fn from_memory(answer: &Response<Bytes>) -> bool {
    assert_eq!(
        answer.headers().contains_key("age"),
        answer.header("weirkeeper-cost") == "0" && answer.header("cache-status").contains("hit")
    );
    answer.header("cache-status").starts_with("weirkeeper;hit")
}

/// Reads twice; says whether the second answer came from memory.
pub async fn is_kept(client: &mut Client, target: &str) -> bool {
    let first = client.get(target).await;
    assert_eq!(first.code(), 200, "{target}: {}", first.text());
    let second = client.get(target).await;
    assert_eq!(first.plain(), second.plain(), "{target}");
    from_memory(&second)
}

#[tokio::test(start_paused = true)]
async fn descriptions_are_asked_for_once_an_hour() {
    let world = World::new(DEFAULT);
    let mut client = world.client();
    let first = client.get("sobjects/Account/describe").await;
    assert_eq!(first.header("cache-status"), "weirkeeper;fwd=miss;stored");
    tokio::time::sleep(Duration::from_secs(10)).await;
    let second = client.get("sobjects/Account/describe").await;
    assert_eq!(second.plain(), first.plain());
    let told = ["cache-status", "age", "weirkeeper-cost", "weirkeeper-saved"].map(|name| second.header(name));
    assert_eq!(told, ["weirkeeper;hit;ttl=3590", "10", "0", "1"]);
    assert_eq!(second.header("content-type"), first.header("content-type"));
    assert_eq!(second.header("sforce-limit-info"), "api-usage=1/100000");
    assert!(!second.headers().contains_key("server-timing"));
    let line = world.last_line().await;
    let logged = ["source", "cache"].map(|name| line[name].as_str().unwrap_or_default().to_owned());
    assert_eq!(
        (logged, &line["saved"], &line["attempts"]),
        (["cache".into(), "hit".into()], &json!(1), &json!(0)),
        "{line}"
    );
    assert_eq!(world.sim.counts().charged, 1);
    assert!(is_kept(&mut client, "sobjects").await);
    for (result, requests) in [("hit", 2.0), ("miss", 2.0)] {
        let counted = world.metric("weirkeeper_cache_events_total", &[("org", "prod"), ("result", result)]);
        assert!((counted - requests).abs() < f64::EPSILON, "{result}: {counted}");
    }
    let saved = world.metric("weirkeeper_api_calls_saved_total", &[("caller", "anyone"), ("by", "cache")]);
    assert!((saved - 2.0).abs() < f64::EPSILON, "{saved}");
    // Somebody has to ask about the session every five minutes, and about the answer every hour.
    for (minutes, kept) in [(4, true), (6, false), (4, true)] {
        tokio::time::sleep(Duration::from_mins(minutes)).await;
        assert_eq!(from_memory(&world.client().get("sobjects").await), kept, "{minutes}");
    }
    // Rows and queries are not kept unless the operator says so.
    let mut client = world.client();
    let row = format!("sobjects/Account/{}", client.any("Account").await);
    assert!(!is_kept(&mut client, &row).await);
    assert!(!is_kept(&mut client, "query?q=SELECT+Id+FROM+Account").await);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_used_is_asked_for_once_a_minute_by_each_user() {
    let world = World::new("cache: {entries: [{match: {operations: [limits]}, fresh: 60s}]}\n");
    let mut client = world.client();
    assert!(is_kept(&mut client, "limits").await);
    let mut other = world.client().user("integration");
    assert!(!from_memory(&other.get("limits").await));
    assert!(!is_kept(&mut client, "sobjects/Account/describe").await);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert!(!from_memory(&client.get("limits").await));
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_salesforce_rejects_loses_its_answers() {
    let world = World::new(ROWS);
    let mut client = world.client();
    let row = format!("sobjects/Account/{}", client.any("Account").await);
    assert!(is_kept(&mut client, &row).await);
    world.sim.script().revoke(&token("admin"));
    assert!(from_memory(&client.get(&row).await), "nobody knows yet");
    assert_eq!(client.get("limits").await.code(), 401);
    assert_eq!(client.get(&row).await.code(), 401);
    world.sim.script().grant(&token("admin"), "admin@sim.example", None);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let again = client.get(&row).await;
    assert!(again.code() == 200 && !from_memory(&again), "kept under the session that was rejected");
    assert!(from_memory(&client.get(&row).await));
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_is_checked_every_five_minutes() {
    let world = World::new(&ROWS.replace("60s", "1h"));
    let mut client = world.client();
    let row = format!("sobjects/Account/{}", client.any("Account").await);
    assert!(is_kept(&mut client, &row).await);
    world.sim.script().revoke(&token("admin"));
    tokio::time::sleep(Duration::from_mins(5) + Duration::from_secs(1)).await;
    assert_eq!(world.client().get(&row).await.code(), 401, "an hour is what rows may be old, not sessions");
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn every_write_is_seen_by_the_next_read() {
    let world = World::new(ROWS);
    let mut client = world.client();
    let id = client.any("Account").await;
    let row = format!("sobjects/Account/{id}");
    let query = format!("query?q=SELECT+Id,NumberOfEmployees+FROM+Account+WHERE+Id='{id}'");
    assert_eq!(client.patch(&row, &json!({"Ext_Id__c": "of/its own"})).await.code(), 204);
    let external = "sobjects/Account/Ext_Id__c/of%2Fits%20own".to_owned();
    let collection = format!("composite/sobjects/Account?ids={id}&fields=Id,NumberOfEmployees");
    let url = format!("/services/data/v62.0/{row}");
    let mut value = 100;
    let update = |value: i64| json!({"NumberOfEmployees": value});
    let record = |value: i64| json!({"attributes": {"type": "Account"}, "id": id, "NumberOfEmployees": value});
    for way in 0..9 {
        for target in [&row, &query, &external, &collection] {
            assert!(is_kept(&mut client, target).await, "{way} {target}");
        }
        value += 1;
        let answer = match way {
            0 => client.patch(&row, &update(value)).await,
            1 => client.send("POST", &format!("{row}?_HttpMethod=PATCH"), &[("content-type", "application/json")], update(value).to_string()).await,
            2 => client.post("composite", &json!({"compositeRequest": [{"method": "PATCH", "url": url, "referenceId": "a", "body": update(value)}]})).await,
            3 => client.patch("composite/sobjects", &json!({"records": [record(value)]})).await,
            4 => client.post("composite/batch", &json!({"batchRequests": [{"method": "PATCH", "url": format!("v62.0/{row}"), "richInput": update(value)}]})).await,
            5 => {
                let graph = json!({"graphId": "g", "compositeRequest": [{"method": "PATCH", "url": url, "referenceId": "a", "body": update(value)}]});
                client.post("composite/graph", &json!({"graphs": [graph]})).await
            }
            6 => client.patch(&external, &update(value)).await,
            7 => {
                let record = json!({"attributes": {"type": "Account"}, "Ext_Id__c": "of/its own", "NumberOfEmployees": value});
                client.patch("composite/sobjects/Account/Ext_Id__c", &json!({"records": [record]})).await
            }
            _ => {
                let url = format!("/services/data/v62.0/{external}");
                let part = json!({"method": "PATCH", "url": url, "referenceId": "a", "body": update(value)});
                client.post("composite", &json!({"compositeRequest": [part]})).await
            }
        };
        assert!(answer.code() < 300, "{way}: {}", answer.text());
        assert_eq!(client.get(&row).await.json()["NumberOfEmployees"], value, "{way}");
        assert_eq!(client.get(&query).await.json()["records"][0]["NumberOfEmployees"], value, "{way}");
        assert_eq!(client.get(&external).await.json()["NumberOfEmployees"], value, "{way}");
        assert_eq!(client.get(&collection).await.json()[0]["NumberOfEmployees"], value, "{way}");
    }
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_write_does_not_touch_stays_kept() {
    let world = World::new(ROWS);
    let mut client = world.client();
    let ids: Vec<String> = {
        let rows = client.query("SELECT Id FROM Account ORDER BY Id LIMIT 2").await.json();
        (0..2).map(|at| rows["records"][at]["Id"].as_str().unwrap().to_owned()).collect()
    };
    let [one, other] = [0, 1].map(|at| format!("sobjects/Account/{}", ids[at]));
    let leads = "query?q=SELECT+Id+FROM+Lead";
    // A query for one id is about that row, as its address is.
    let asked = format!("query?q=SELECT+Name+FROM+Account+WHERE+Id='{}'", ids[1]);
    let all = [other.as_str(), asked.as_str(), leads, "sobjects/Account/describe"];
    for target in all {
        client.get(target).await;
    }
    assert_eq!(client.patch(&one, &json!({"Name": "x"})).await.code(), 204);
    for target in all {
        assert!(from_memory(&client.get(target).await), "{target}");
    }
    assert_eq!(client.patch(&other, &json!({"Name": "z"})).await.code(), 204);
    for (target, kept) in all.into_iter().zip([false, false, true, true]) {
        assert_eq!(from_memory(&client.get(target).await), kept, "{target}");
    }
    // A new row changes lists and no row; a deleted one may have taken others with it.
    assert_eq!(client.post("sobjects/Account", &json!({"Name": "y"})).await.code(), 201);
    assert!(from_memory(&client.get(&other).await) && from_memory(&client.get(&asked).await));
    assert_eq!(client.delete(&one).await.code(), 204);
    for (target, kept) in all.into_iter().zip([false, false, false, true]) {
        assert_eq!(from_memory(&client.get(target).await), kept, "{target}");
    }
    // What the gateway does not know may have changed anything.
    client.post("/services/apexrest/x", &json!({})).await;
    for target in all {
        assert!(!from_memory(&client.get(target).await), "{target}");
    }
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_while_a_write_is_in_the_air_or_its_outcome_unknown() {
    let world = World::new(ROWS);
    let (mut client, mut writer) = (world.client(), world.client());
    let row = format!("sobjects/Account/{}", client.any("Account").await);
    assert!(is_kept(&mut client, &row).await);
    let patch = Fault { method: Some("PATCH".into()), latency_ms: 5_000, ..once(FaultAction::None) };
    world.sim.script().fault(patch);
    let change = json!({"Name": "new"});
    let reads = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for _ in 0..2 {
            assert!(!from_memory(&client.get(&row).await));
        }
    };
    let (written, ()) = tokio::join!(writer.patch(&row, &change), reads);
    assert_eq!(written.code(), 204);
    assert!(is_kept(&mut client, &row).await);
    // Its answer is lost: it may happen for ten minutes.
    let patch = Fault { method: Some("PATCH".into()), ..once(FaultAction::Close { apply: true, reset: false }) };
    world.sim.script().fault(patch);
    assert_eq!(writer.patch(&row, &json!({"Name": "newer"})).await.code(), 504);
    for minutes in [0, 5, 4] {
        tokio::time::sleep(Duration::from_mins(minutes)).await;
        assert!(!is_kept(&mut world.client(), &row).await, "{minutes}");
    }
    tokio::time::sleep(Duration::from_mins(2)).await;
    let mut client = world.client();
    assert!(is_kept(&mut client, &row).await);
    assert_eq!(client.get(&row).await.json()["Name"], "newer");
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_under_way_when_its_row_was_written_is_not_kept() {
    let world = World::new(ROWS);
    let (mut reader, mut writer) = (world.client(), world.client());
    let row = format!("sobjects/Account/{}", reader.any("Account").await);
    let slow = Fault { method: Some("GET".into()), latency_ms: 5_000, ..once(FaultAction::None) };
    world.sim.script().fault(slow);
    let write = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(writer.patch(&row, &json!({"Name": "new"})).await.code(), 204);
        let asked = writer.get(&row).await;
        assert!(!from_memory(&asked) && asked.header("cache-status").contains("fwd=miss"), "it is not joined either");
        assert_eq!(asked.json()["Name"], "new");
    };
    let (slow, ()) = tokio::join!(reader.get(&row), write);
    assert_eq!((slow.code(), slow.header("cache-status")), (200, "weirkeeper;fwd=miss"));
    assert_eq!(reader.get(&row).await.json()["Name"], "new");
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_bulk_job_keeps_its_object_out_of_memory_until_its_end_is_seen() {
    let world = World::new(ROWS);
    let mut client = world.client();
    let id = client.any("Account").await;
    let row = format!("sobjects/Account/{id}");
    let leads = "query?q=SELECT+Id+FROM+Lead";
    assert!(is_kept(&mut client, &row).await && is_kept(&mut client, leads).await);
    let job = json!({"object": "Account", "operation": "update", "contentType": "CSV", "lineEnding": "LF"});
    let job = client.post("jobs/ingest", &job).await.json()["id"].as_str().unwrap().to_owned();
    assert!(!is_kept(&mut client, &row).await);
    assert!(is_kept(&mut client, leads).await);
    let csv = format!("Id,Name\n{id},bulk\n");
    let sent = client.send("PUT", &format!("jobs/ingest/{job}/batches"), &[("content-type", "text/csv")], csv).await;
    assert_eq!(sent.code(), 201);
    assert_eq!(client.patch(&format!("jobs/ingest/{job}"), &json!({"state": "UploadComplete"})).await.code(), 200);
    assert!(!is_kept(&mut client, &row).await);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!is_kept(&mut client, &row).await, "nobody has seen its end");
    assert_eq!(client.get(&format!("jobs/ingest/{job}")).await.json()["state"], "JobComplete");
    assert!(is_kept(&mut client, &row).await);
    assert_eq!(client.get(&row).await.json()["Name"], "bulk");
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_says_no_to_memory_is_asked() {
    let world = World::new(ROWS);
    let mut client = world.client();
    let row = format!("sobjects/Account/{}", client.any("Account").await);
    let mut ask = async |headers: &[(&str, &str)]| {
        let answer = client.send("GET", &row, headers, "").await;
        (answer.code(), answer.header("cache-status").to_owned())
    };
    let control = |value: &'static str| [("cache-control", value)];
    let mut other = world.client().with("cache-control", "max-age=5, Only-If-Cached");
    for target in ["limits", "recent", "query?q=SELECT+Id+FROM+User", "query?q=SELECT+Id+FROM+Account+FOR+VIEW"] {
        other.get(target).await.is_refusal(504, "not_cached", "SERVER_UNAVAILABLE");
    }
    assert_eq!(
        other.post("sobjects/Lead", &json!({"LastName": "x", "Company": "y"})).await.code(),
        201,
        "a write is no question"
    );
    ask(&control("only-if-cached")).await;
    let refused = ask(&control("only-if-cached")).await;
    assert_eq!(refused.0, 504);
    assert_eq!(ask(&control("no-store")).await, (200, String::new()));
    assert_eq!(ask(&[]).await.1, "weirkeeper;fwd=miss;stored");
    assert_eq!(ask(&control("only-if-cached")).await, (200, "weirkeeper;hit;ttl=60".into()));
    assert_eq!(ask(&control("no-cache")).await.1, "weirkeeper;fwd=request;stored");
    assert_eq!(ask(&[("x-unknown", "1")]).await.1, "");
    assert_eq!(ask(&[("cookie", "a=b")]).await.1, "");
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(ask(&control("max-age=49")).await.1, "weirkeeper;fwd=miss;stored");
    tokio::time::sleep(Duration::from_secs(70)).await;
    assert_eq!(ask(&control("max-stale=30")).await.1, "weirkeeper;hit;ttl=-10");
    assert_eq!(ask(&control("max-stale=5")).await.1, "weirkeeper;fwd=miss;stored");
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn conditions_are_met_from_memory() {
    let world = World::new(ROWS);
    let mut client = world.client().with("accept-encoding", "gzip");
    let row = format!("sobjects/Account/{}", client.any("Account").await);
    let tag = client.get(&row).await.header("etag").to_owned();
    assert!(!tag.is_empty());
    let same = client.send("GET", &row, &[("if-none-match", &tag)], "").await;
    assert_eq!((same.code(), same.body().len(), same.header("etag")), (304, 0, tag.as_str()));
    assert!(from_memory(&same));
    let other = client.send("GET", &row, &[("if-none-match", "\"other\"")], "").await;
    assert!(other.code() == 200 && from_memory(&other));
    let changed = client.get("sobjects/Account/describe").await.header("last-modified").to_owned();
    let same = client.send("GET", "sobjects/Account/describe", &[("if-modified-since", &changed)], "").await;
    assert!(same.code() == 304 && from_memory(&same));
    // Compressed bytes are made plain for who takes no others.
    let mut plain = world.client();
    let answer = plain.get(&row).await;
    assert!(from_memory(&answer) && !answer.headers().contains_key("content-encoding"));
    assert_eq!(answer.json()["Id"].as_str(), row.rsplit('/').next());
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_who_ask_the_same_cost_one_call() {
    let world = World::new(ROWS);
    let row = format!("sobjects/Account/{}", world.client().any("Account").await);
    let before = world.sim.counts().charged;
    world.sim.script().latency(2_000, 0);
    let joined = Arc::new(AtomicU64::new(0));
    let all: Vec<_> = (0..1_000)
        .map(|_| {
            let (mut client, row, joined) = (world.client(), row.clone(), Arc::clone(&joined));
            world.beside(async move {
                let answer = client.get(&row).await;
                assert_eq!(answer.code(), 200);
                if answer.header("cache-status") == "weirkeeper;fwd=miss;collapsed" {
                    joined.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for one in all {
        one.await.unwrap();
    }
    assert_eq!((world.sim.counts().charged - before, joined.load(Ordering::Relaxed)), (1, 999));
    let saved = world.metric("weirkeeper_api_calls_saved_total", &[("by", "joined")]);
    assert!((saved - 999.0).abs() < f64::EPSILON, "{saved}");
    assert_eq!(world.client().get(&row).await.code(), 200);
    let objects = world.telemetry.cache_status().objects;
    let account = objects.iter().find(|one| one.object == "Account").unwrap();
    // The first asked for ids by a query, whose answer is not shared by who has another session.
    assert_eq!((account.from_memory, account.joined, account.answers > 0), (1, 999, true), "{account:?}");
    assert!(account.hit_ratio.is_some_and(|ratio| ratio > 0.99) && account.bytes > 1_000, "{account:?}");
    let bytes = world.metric("weirkeeper_cache_object_bytes", &[("object", "Account")]);
    assert!((bytes - account.bytes as f64).abs() < f64::EPSILON);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn if_the_one_who_asks_leaves_another_asks() {
    let world = World::new(ROWS);
    let row = format!("sobjects/Account/{}", world.client().any("Account").await);
    let before = world.sim.counts().charged;
    world.sim.script().latency(2_000, 0);
    let mut leader = world.client().with("x-request-timeout-ms", "1000");
    let leading = {
        let row = row.clone();
        world.beside(async move { assert_eq!(leader.get(&row).await.code(), 504) })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    let all: Vec<_> = (0..100)
        .map(|_| {
            let (mut client, row) = (world.client(), row.clone());
            world.beside(async move { assert_eq!(client.get(&row).await.code(), 200) })
        })
        .collect();
    leading.await.unwrap();
    for one in all {
        one.await.unwrap();
    }
    assert_eq!(world.sim.counts().charged - before, 2);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_for_its_caller_alone() {
    let world = World::new(&format!(
        "{ROWS}callers:
- {{name: poor, match: {{call_options_client: poor}}, daily: {{ceiling: 1}}}}
- {{name: anyone, match: any}}
"
    ));
    let mut rich = world.client();
    let row = format!("sobjects/Account/{}", rich.any("Account").await);
    let mut poor = world.client().with("sforce-call-options", "client=poor");
    poor.get("limits").await;
    let mut other = world.client();
    let (refused, answered) = tokio::join!(poor.get(&row), other.get(&row));
    refused.is_refusal(403, "caller_ceiling", "REQUEST_LIMIT_EXCEEDED");
    assert_eq!(answered.code(), 200);
    // What costs nothing is not refused for want of calls.
    assert!(from_memory(&poor.get(&row).await));
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn an_older_answer_is_better_than_none() {
    let world = World::new(ROWS);
    let mut client = world.client();
    let row = format!("sobjects/Account/{}", client.any("Account").await);
    let fresh = client.get(&row).await;
    tokio::time::sleep(Duration::from_secs(90)).await;
    let unavailable =
        Fault { times: None, ..once(FaultAction::Unavailable { html: false, retry_after_seconds: None }) };
    world.sim.script().fault(unavailable);
    let stale = client.get(&row).await;
    assert_eq!((stale.code(), stale.plain()), (200, fresh.plain()));
    let statuses: Vec<_> = stale.headers().get_all("cache-status").iter().collect();
    assert_eq!(statuses, ["weirkeeper;hit;ttl=-30", "weirkeeper;fwd=stale;fwd-status=503"]);
    assert_eq!(stale.header("age"), "90");
    let line = world.last_line().await;
    assert_eq!(
        (&line["source"], &line["cache"], &line["charged"]),
        (&json!("stale"), &json!("stale"), &json!(1)),
        "{line}"
    );
    assert_eq!(client.get(&row.replace("Account/", "Contact/")).await.code(), 503, "nothing is kept of it");
    world.sim.script().clear_faults();
    world.line(Line::Broken(std::io::ErrorKind::ConnectionRefused));
    world.sim.script().fault(once(FaultAction::Close { apply: false, reset: false }));
    assert_eq!(client.get("recent").await.code(), 502);
    assert!(from_memory(&client.get(&row).await), "unreachable");
    tokio::time::sleep(Duration::from_mins(4)).await;
    assert_eq!(world.client().get(&row).await.code(), 502, "too old");
    world.line(Line::Sim);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn an_older_answer_is_better_than_no_place_in_the_queue() {
    let world = World::new(&format!(
        "{ROWS}orgs: [{{name: prod, instance_url: 'http://127.0.0.1:8081', in_flight: 1}}]
queue: {{wait: {{interactive: 1s, standard: 1s, batch: 1s}}}}
"
    ));
    let (mut client, mut slow) = (world.client(), world.client());
    let row = format!("sobjects/Account/{}", client.any("Account").await);
    client.get(&row).await;
    tokio::time::sleep(Duration::from_secs(90)).await;
    world.sim.script().fault(Fault { latency_ms: 10_000, ..once(FaultAction::None) });
    let reads = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.get("recent").await.is_refusal(503, "calls_in_flight", "SERVER_UNAVAILABLE");
        let stale = client.get(&row).await;
        assert!(from_memory(&stale));
        let statuses: Vec<_> = stale.headers().get_all("cache-status").iter().collect();
        assert_eq!(statuses.len(), 2);
        assert_eq!(statuses[1], "weirkeeper;fwd=stale;fwd-status=503");
    };
    tokio::join!(slow.get("query?q=SELECT+Id+FROM+User"), reads);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn an_older_answer_is_never_one_from_before_a_write() {
    let world = World::new(ROWS);
    let mut client = world.client();
    let row = format!("sobjects/Account/{}", client.any("Account").await);
    client.get(&row).await;
    assert_eq!(client.patch(&row, &json!({"Name": "new"})).await.code(), 204);
    let unavailable =
        Fault { times: None, ..once(FaultAction::Unavailable { html: false, retry_after_seconds: None }) };
    world.sim.script().fault(unavailable);
    assert_eq!(client.get(&row).await.code(), 503);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_makes_answers_old() {
    let world = World::new(ROWS);
    let mut client = world.client();
    let row = format!("sobjects/Account/{}", client.any("Account").await);
    let org = world.answers.org_named("prod").unwrap();
    let principal = world.last_line().await["principal"].as_str().unwrap().to_owned();
    let others = ["query?q=SELECT+Id+FROM+Lead", "sobjects/Lead/describe"];
    for (what, all) in [("object", false), ("principal", true), ("all", true)] {
        for target in [row.as_str(), "sobjects/Account/describe", others[0], others[1]] {
            assert!(is_kept(&mut client, target).await, "{target}");
        }
        match what {
            "object" => org.purge(Touch::Object(lower("ACCOUNT"))),
            "principal" => assert_eq!(org.purge_principal(&principal), 1),
            _ => org.purge(Touch::Everything),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        for target in others {
            assert_eq!(from_memory(&client.get(target).await), !all, "{what} {target}");
        }
        for target in [row.as_str(), "sobjects/Account/describe"] {
            assert!(!from_memory(&client.get(target).await), "{what} {target}");
        }
    }
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_wants_asked_again_is_there_if_nobody_answers() {
    let world = World::new(ROWS);
    let mut client = world.client();
    let row = format!("sobjects/Account/{}", client.any("Account").await);
    let lead = "query?q=SELECT+Id+FROM+Lead";
    let org = world.answers.org_named("prod").unwrap();
    let principal = world.last_line().await["principal"].as_str().unwrap().to_owned();
    for what in ["object", "principal", "all"] {
        for target in [row.as_str(), lead] {
            assert!(is_kept(&mut client, target).await, "{target}");
        }
        match what {
            "object" => org.soften(Touch::Object(lower("ACCOUNT"))),
            "principal" => assert_eq!(org.soften_principal(&principal), 1),
            _ => org.soften(Touch::Everything),
        }
        let failing = Fault {
            method: Some("GET".into()),
            ..once(FaultAction::Unavailable { html: false, retry_after_seconds: None })
        };
        world.sim.script().fault(failing);
        let stale = client.get(&row).await;
        let statuses: Vec<_> = stale.headers().get_all("cache-status").iter().collect();
        assert_eq!((stale.code(), statuses.len()), (200, 2), "{what}: {statuses:?}");
        assert_eq!(statuses[1], "weirkeeper;fwd=stale;fwd-status=503", "{what}");
        assert_eq!(client.get(&row).await.header("cache-status"), "weirkeeper;fwd=miss;stored", "{what}");
        assert!(from_memory(&client.get(&row).await), "{what}");
        assert_eq!(from_memory(&client.get(lead).await), what == "object", "{what}");
    }
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn other_rules_begin_with_nothing() {
    let world = World::new(ROWS);
    let mut client = world.client();
    let row = format!("sobjects/Account/{}", client.any("Account").await);
    assert!(is_kept(&mut client, &row).await);
    world.reload(&ROWS.replace("60s", "61s"));
    let mut client = world.client();
    assert!(!from_memory(&client.get(&row).await));
    assert!(from_memory(&client.get(&row).await));
    // Where writes were not followed, something may still be under way.
    world.reload("cache: {failures: {mode: off}}\n");
    world.reload(ROWS);
    let mut client = world.client();
    assert!(!is_kept(&mut client, &row).await);
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert!(is_kept(&mut world.client(), &row).await);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn soap_writes_are_followed_too() {
    let world = World::new(ROWS);
    let mut client = world.client();
    let id = client.any("Lead").await;
    let row = format!("sobjects/Lead/{id}");
    let query = "query?q=SELECT+COUNT()+FROM+Lead";
    assert!(is_kept(&mut client, &row).await && is_kept(&mut client, query).await);
    let soap = |body: &str| envelope(&token("admin"), body);
    let xml = [("content-type", "text/xml"), ("soapaction", "\"\"")];
    let read = soap("<urn:query><urn:queryString>SELECT Id FROM Lead</urn:queryString></urn:query>");
    client.send("POST", "/services/Soap/u/62.0", &xml, read).await;
    assert!(from_memory(&client.get(&row).await), "a query changes nothing");
    let create = soap(
        "<urn:create><urn:sObjects><urn:type>Lead</urn:type><urn:LastName>x</urn:LastName><urn:Company>y</urn:Company></urn:sObjects></urn:create>",
    );
    client.send("POST", "/services/Soap/u/62.0", &xml, create).await;
    assert!(!from_memory(&client.get(query).await));
    let unknown = soap("<urn:undelete><urn:ids>x</urn:ids></urn:undelete>");
    client.send("POST", "/services/Soap/u/62.0", &xml, unknown).await;
    assert!(!from_memory(&client.get(&row).await));
    world.close().await;
}
