//! Promise: answers from memory are never another user's, and never older than a write that was answered.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};
use weirkeeper::answers::{Touch, lower};
use weirkeeper::edge::Connection;
use weirkeeper::sim::{Fault, FaultAction, SimConfig, SimRows, SimUser};

use crate::client::{Answer, Client, encoded, envelope, token};
use crate::world::{Line, World, small};

/// Rows, queries and descriptions are kept.
const ROWS: &str = "cache:
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

fn from_memory(answer: &Response<Bytes>) -> bool {
    assert_eq!(
        answer.headers().contains_key("age"),
        answer.header("weirkeeper-cost") == "0" && answer.header("cache-status").contains("hit")
    );
    answer.header("cache-status").starts_with("weirkeeper;hit")
}

/// Reads twice; says whether the second answer came from memory.
async fn is_kept(client: &mut Client, target: &str) -> bool {
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
    let url = format!("/services/data/v62.0/{row}");
    let mut value = 100;
    let update = |value: i64| json!({"NumberOfEmployees": value});
    let record = |value: i64| json!({"attributes": {"type": "Account"}, "id": id, "NumberOfEmployees": value});
    for way in 0..8 {
        for target in [&row, &query] {
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
            6 => client.patch(&row, &update(value)).await,
            _ => client.patch(&row, &update(value)).await,
        };
        assert!(answer.code() < 300, "{way}: {}", answer.text());
        assert_eq!(client.get(&row).await.json()["NumberOfEmployees"], value, "{way}");
        assert_eq!(client.get(&query).await.json()["records"][0]["NumberOfEmployees"], value, "{way}");
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
    for target in [other.as_str(), leads, "sobjects/Account/describe"] {
        client.get(target).await;
    }
    assert_eq!(client.patch(&one, &json!({"Name": "x"})).await.code(), 204);
    for target in [other.as_str(), leads, "sobjects/Account/describe"] {
        assert!(from_memory(&client.get(target).await), "{target}");
    }
    // A new row changes lists and no row; a deleted one may have taken others with it.
    assert_eq!(client.post("sobjects/Account", &json!({"Name": "y"})).await.code(), 201);
    assert!(from_memory(&client.get(&other).await));
    assert_eq!(client.delete(&one).await.code(), 204);
    for (target, kept) in [(other.as_str(), false), (leads, false), ("sobjects/Account/describe", true)] {
        assert_eq!(from_memory(&client.get(target).await), kept, "{target}");
    }
    // What the gateway does not know may have changed anything.
    client.post("/services/apexrest/x", &json!({})).await;
    for target in [other.as_str(), leads, "sobjects/Account/describe"] {
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
    world.reload(DEFAULT);
    world.reload(ROWS);
    let mut client = world.client();
    assert!(!is_kept(&mut client, &row).await);
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert!(is_kept(&mut world.client(), &row).await);
    world.close().await;
}

/// One user for each way to see less than all.
fn users() -> SimConfig {
    let mut config = small();
    config.users.push(SimUser {
        hidden_fields: vec!["Account.Name".to_owned(), "Lead.Company".to_owned()],
        ..SimUser::named("blind")
    });
    config.users.push(SimUser { rows: SimRows::Own, ..SimUser::named("own") });
    config
}

#[tokio::test(start_paused = true)]
async fn nobody_gets_what_salesforce_would_not_give_him() {
    let world = World::with(users(), ROWS);
    let names = ["admin", "integration", "sales", "blind", "own"];
    let mut rng = fastrand::Rng::with_seed(0x0000_a11f);
    let mut ids: Vec<(String, String)> = Vec::new();
    let mut admin = world.client();
    for object in ["Account", "Contact", "Lead", "Invoice__c"] {
        let rows = admin.query(&format!("SELECT Id FROM {object} ORDER BY Id LIMIT 8")).await.json();
        let found = rows["records"].as_array().unwrap().iter();
        ids.extend(found.map(|row| (object.to_owned(), row["Id"].as_str().unwrap().to_owned())));
    }
    let queries = [
        "SELECT Id, Name FROM Account ORDER BY Id",
        "SELECT Id, Name, AnnualRevenue FROM Account ORDER BY Id LIMIT 5",
        "SELECT COUNT() FROM Lead",
        "SELECT Id, Company FROM Lead ORDER BY Id",
        "SELECT Id FROM Contact WHERE AccountId IN (SELECT Id FROM Account) ORDER BY Id",
        "SELECT Id, Account.Name FROM Contact ORDER BY Id LIMIT 3",
        "SELECT Id FROM Account WHERE CreatedDate < TOMORROW ORDER BY Id",
        "SELECT Id FROM Invoice__c ORDER BY Id",
        "SELECT Nope FROM Account",
    ];
    let headers: [&[(&str, &str)]; 8] = [
        &[],
        &[("accept", "application/xml")],
        &[("accept-encoding", "gzip")],
        &[("x-prettyprint", "1")],
        &[("sforce-query-options", "batchSize=200")],
        &[("sforce-call-options", "client=x, defaultNamespace=acme")],
        &[("accept", "application/xml"), ("accept-encoding", "gzip")],
        &[("accept-language", "de")],
    ];
    let mut through: Vec<Client> = names.iter().map(|name| world.client().user(name)).collect();
    let mut direct: Vec<Client> = names.iter().map(|name| world.direct().user(name)).collect();
    // Nothing changes, so that Salesforce's own answer is asked for once.
    let mut known: HashMap<(usize, String, usize), (u16, String, String)> = HashMap::new();
    let mut by_memory = 0;
    for round in 0..6_000 {
        let who = rng.usize(..names.len());
        let with = rng.usize(..headers.len());
        let target = match rng.u8(..10) {
            0 => "sobjects".to_owned(),
            1 => format!("sobjects/{}/describe", rng.choice(["Account", "Lead", "Invoice__c"]).unwrap()),
            2 | 3 => format!("query?q={}", encoded(rng.choice(queries).unwrap())),
            4 => format!("query?q={}", encoded(&rng.choice(queries).unwrap().replace("SELECT ", "select  "))),
            5 => {
                let (object, id) = &ids[rng.usize(..ids.len())];
                format!("sobjects/{object}/{id}?fields=Id,OwnerId")
            }
            _ => {
                let (object, id) = &ids[rng.usize(..ids.len())];
                format!("sobjects/{object}/{id}")
            }
        };
        let answer = through[who].send("GET", &target, headers[with], "").await;
        by_memory += usize::from(answer.header("cache-status").starts_with("weirkeeper;hit"));
        let seen = (answer.code(), answer.header("content-type").to_owned(), answer.text());
        let place = (who, target, with);
        if !known.contains_key(&place) {
            let before = world.sim.counts().charged;
            let answer = direct[who].send("GET", &place.1, headers[with], "").await;
            world.counts_more(-i64::try_from(world.sim.counts().charged - before).unwrap());
            known.insert(place.clone(), (answer.code(), answer.header("content-type").to_owned(), answer.text()));
        }
        assert_eq!(&seen, &known[&place], "round {round}: {} asks {} with {:?}", names[who], place.1, headers[with]);
        if round % 500 == 0 {
            tokio::time::sleep(Duration::from_secs(20)).await;
        }
    }
    assert!(by_memory > 1_000, "{by_memory}");
    world.close().await;
}

/// What one record's writers and readers know of it.
#[derive(Default)]
struct Known {
    /// The highest value whose write was answered well.
    answered: AtomicI64,
}

fn patient(client: Client) -> Client {
    client.with("x-request-timeout-ms", "60000")
}

/// Writes ever higher values, each time in another way.
async fn write(mut client: Client, id: String, known: Arc<Known>, mut rng: fastrand::Rng, times: i64) {
    let row = format!("sobjects/Account/{id}");
    let url = format!("/services/data/v62.0/{row}");
    for value in 1..=times {
        let body = json!({"NumberOfEmployees": value});
        let record = json!({"attributes": {"type": "Account"}, "id": id, "NumberOfEmployees": value});
        let content = [("content-type", "application/json")];
        let part = json!({"method": "PATCH", "url": url, "referenceId": "a", "body": body});
        let (method, target, sent) = match rng.u8(..6) {
            0 | 1 => ("PATCH", row.clone(), body.clone()),
            2 => ("POST", "composite".to_owned(), json!({"compositeRequest": [part]})),
            3 => ("PATCH", "composite/sobjects".to_owned(), json!({"records": [record]})),
            4 => (
                "POST",
                "composite/graph".to_owned(),
                json!({"graphs": [{"graphId": "g", "compositeRequest": [part]}]}),
            ),
            _ => {
                let part = json!({"method": "PATCH", "url": format!("v62.0/{row}"), "richInput": body});
                ("POST", "composite/batch".to_owned(), json!({"batchRequests": [part]}))
            }
        };
        let answer = client.try_send(method, &target, &content, sent.to_string()).await;
        let well = answer.as_ref().is_ok_and(|answer| {
            answer.code() < 300 && !answer.text().contains("rrorCode") && !answer.text().contains("\"success\":false")
        });
        if well {
            known.answered.store(value, Ordering::SeqCst);
        }
        if rng.u8(..20) == 0 {
            // Where rows come and go, lists change.
            client.post("sobjects/Account", &json!({"Name": "one more"})).await;
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(..3_000))).await;
    }
}

/// Reads, and sees nothing that is older than what had been answered when it began.
async fn read(
    mut client: Client,
    all: Vec<(String, Arc<Known>)>,
    mut rng: fastrand::Rng,
    times: u32,
    kept: Arc<AtomicU64>,
) {
    for _ in 0..times {
        let (id, known) = &all[rng.usize(..all.len())];
        let least = known.answered.load(Ordering::SeqCst);
        let target = match rng.u8(..4) {
            0 | 1 => format!("sobjects/Account/{id}"),
            2 => format!("query?q=SELECT+Id,NumberOfEmployees+FROM+Account+WHERE+Id='{id}'"),
            _ => format!("sobjects/Account/{id}?fields=NumberOfEmployees"),
        };
        let Ok(answer) = client.try_send("GET", &target, &[], "").await else { continue };
        if answer.code() == 200 {
            kept.fetch_add(u64::from(answer.header("cache-status").starts_with("weirkeeper;hit")), Ordering::Relaxed);
            let body = answer.json();
            let value = body["records"].get(0).unwrap_or(&body)["NumberOfEmployees"].as_i64().unwrap_or_default();
            assert!(value >= least, "{target}: {value} is older than {least}: {:?}", answer.headers());
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(..400))).await;
    }
}

async fn writers_and_readers(seed: u64) {
    let world = World::new(ROWS);
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut client = world.client();
    let rows = client.query("SELECT Id FROM Account ORDER BY Id LIMIT 4").await.json();
    let mut all = Vec::new();
    for row in rows["records"].as_array().unwrap() {
        let id = row["Id"].as_str().unwrap().to_owned();
        assert_eq!(client.patch(&format!("sobjects/Account/{id}"), &json!({"NumberOfEmployees": 0})).await.code(), 204);
        all.push((id, Arc::new(Known::default())));
    }
    let script = world.sim.script();
    script.latency(5, 400);
    for (method, action) in [
        ("PATCH", FaultAction::Close { apply: false, reset: false }),
        ("POST", FaultAction::Close { apply: true, reset: false }),
        ("PATCH", FaultAction::ApplyThenStatus { status: 503 }),
        ("GET", FaultAction::Unavailable { html: false, retry_after_seconds: None }),
        ("POST", FaultAction::Trickle { piece_bytes: 20, pause_ms: 100 }),
        ("GET", FaultAction::Truncate { body_bytes: 30 }),
        ("GET", FaultAction::Trickle { piece_bytes: 40, pause_ms: 150 }),
    ] {
        // What is lost leaves its object in doubt for longer than this goes on.
        let skip = if method == "GET" { rng.u64(50..300) } else { rng.u64(60..110) };
        script.fault(Fault {
            method: Some(method.into()),
            skip,
            times: Some(2),
            probability: 0.5,
            action,
            ..Fault::default()
        });
    }
    let kept = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for (id, known) in &all {
        let client = patient(world.client());
        tasks.push(world.beside(write(client, id.clone(), Arc::clone(known), rng.fork(), 60)));
    }
    for user in ["admin", "integration", "admin", "integration", "admin", "admin"] {
        let client = patient(world.client().user(user));
        tasks.push(world.beside(read(client, all.clone(), rng.fork(), 300, Arc::clone(&kept))));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert!(kept.load(Ordering::Relaxed) > 20, "seed {seed}: {} of 1800", kept.load(Ordering::Relaxed));
    world.sim.script().clear_faults();
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn no_read_that_begins_after_a_writes_answer_sees_the_older_value() {
    for seed in [1, 2] {
        writers_and_readers(seed).await;
    }
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

#[tokio::test(start_paused = true)]
async fn a_key_without_the_principal_would_be_noticed() {
    // Shows that the promise above bites: two users do get different answers to the same question.
    let world = World::with(users(), ROWS);
    let mut answers: Vec<Value> = Vec::new();
    for user in ["admin", "blind", "own"] {
        answers.push(world.client().user(user).query("SELECT Id, Name FROM Account ORDER BY Id").await.json());
    }
    assert!(answers[0] != answers[1] && answers[1] != answers[2] && answers[0] != answers[2]);
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
