//! Promise: whatever is asked, by whomever, beside whatever is written: answers from memory are right. At random, seeds fixed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use weirkeeper::sim::{Fault, FaultAction, SimConfig, SimRows, SimUser};

use crate::answers::ROWS;
use crate::client::{Answer, Client, encoded};
use crate::world::{World, small};

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
    mixed(20_000, 0).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "takes minutes: cargo test --test promises -- --ignored a_hundred_thousand"]
async fn nobody_of_a_hundred_thousand_gets_what_salesforce_would_not_give_him() {
    // Worlds of their own, so that no log outgrows its memory.
    for seed in 1..=5 {
        mixed(20_000, seed).await;
    }
}

/// Users who see different rows and fields ask in every spelling and with every header; nobody writes.
async fn mixed(rounds: u32, seed: u64) {
    let world = World::with(users(), ROWS);
    let names = ["admin", "integration", "sales", "blind", "own"];
    let mut rng = fastrand::Rng::with_seed(0x0000_a11f + seed);
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
        "SELECT Id, Account.Owner.Name, Account.Parent.Name FROM Contact ORDER BY Id LIMIT 4",
        "SELECT Id, (SELECT Id, LastName FROM Contacts ORDER BY Id) FROM Account ORDER BY Id LIMIT 6",
        "SELECT Id FROM Contact WHERE Account.Name LIKE 'A%' ORDER BY Account.Name, Id",
        "SELECT COUNT(Id) n, Account.Name FROM Opportunity GROUP BY Account.Name ORDER BY Account.Name",
        "SELECT Id FROM Account WHERE CreatedDate < TOMORROW ORDER BY Id",
        "SELECT Id FROM Invoice__c ORDER BY Id",
        "SELECT Nope FROM Account",
    ];
    let headers: [&[(&str, &str)]; 16] = [
        &[],
        &[("accept", "application/xml")],
        &[("accept-encoding", "gzip")],
        &[("x-prettyprint", "1")],
        &[("sforce-query-options", "batchSize=200")],
        &[("sforce-call-options", "client=x, defaultNamespace=acme")],
        &[("accept", "application/xml"), ("accept-encoding", "gzip")],
        &[("accept-language", "de")],
        &[("accept-encoding", "gzip, deflate"), ("x-prettyprint", "1")],
        &[("cache-control", "no-cache")],
        &[("cache-control", "max-age=5")],
        &[("cache-control", "no-store"), ("accept-encoding", "gzip")],
        &[("x-forwarded-for", "10.1.2.3"), ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")],
        &[("sforce-mru", "updateMru=false"), ("user-agent", "x")],
        &[("x-of-nobody", "1")],
        &[("x-sfdc-packageversion-acme", "1.2"), ("accept", "application/json")],
    ];
    let mut through: Vec<Client> = names.iter().map(|name| world.client().user(name)).collect();
    let mut direct: Vec<Client> = names.iter().map(|name| world.direct().user(name)).collect();
    // Nothing changes, so that Salesforce's own answer is asked for once.
    let mut known: HashMap<(usize, String, usize), (u16, String, String)> = HashMap::new();
    let mut by_memory = 0;
    for round in 0..rounds {
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
            // What the gateway asks on its own account comes to its end.
            world.settle().await;
            let before = world.sim.counts().charged;
            let answer = direct[who].send("GET", &place.1, headers[with], "").await;
            world.counts_more(-i64::try_from(world.sim.counts().charged - before).unwrap());
            known.insert(place.clone(), (answer.code(), answer.header("content-type").to_owned(), answer.text()));
        }
        assert_eq!(&seen, &known[&place], "round {round}: {} asks {} with {:?}", names[who], place.1, headers[with]);
        if round % 4_000 == 0 {
            tokio::time::sleep(Duration::from_secs(20)).await;
        }
    }
    println!("seed {seed}: {by_memory} of {rounds} by memory");
    assert!(by_memory > rounds as usize / 8, "{by_memory}");
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
    kept: Arc<[AtomicU64; 6]>,
) {
    for _ in 0..times {
        let (id, known) = &all[rng.usize(..all.len())];
        let least = known.answered.load(Ordering::SeqCst);
        // By row, query, way to the parent, beside its children, and inside a composite.
        let way = rng.usize(..6);
        let target = match way {
            0 | 1 => format!("sobjects/Account/{id}"),
            2 => format!("query?q=SELECT+Id,NumberOfEmployees+FROM+Account+WHERE+Id='{id}'"),
            3 => format!("query?q=SELECT+Id,Account.NumberOfEmployees+FROM+Contact+WHERE+AccountId='{id}'+LIMIT+1"),
            4 => format!("query?q=SELECT+NumberOfEmployees,(SELECT+Id+FROM+Contacts)+FROM+Account+WHERE+Id='{id}'"),
            _ => format!("sobjects/Account/{id}?fields=NumberOfEmployees"),
        };
        let part = json!({"method": "GET", "url": format!("/services/data/v62.0/{target}"), "referenceId": "a"});
        let answer = if rng.u8(..8) == 0 {
            let composite = json!({"compositeRequest": [part]}).to_string();
            client.try_send("POST", "composite", &[("content-type", "application/json")], composite).await
        } else {
            client.try_send("GET", &target, &[], "").await
        };
        let Ok(answer) = answer else { continue };
        let mut body = if answer.code() == 200 { answer.json() } else { Value::Null };
        if let Some(part) = body.pointer_mut("/compositeResponse/0") {
            body = if part["httpStatusCode"] == 200 { part["body"].take() } else { Value::Null };
        }
        if !body.is_null() {
            let by_memory = answer.header("cache-status").starts_with("weirkeeper;hit");
            kept[way].fetch_add(u64::from(by_memory), Ordering::Relaxed);
            let row = body["records"].get(0).unwrap_or(&body);
            let row = if way == 3 { &row["Account"] } else { row };
            let value = row["NumberOfEmployees"].as_i64().unwrap_or_else(|| panic!("{target}: {body}"));
            assert!(value >= least, "{target}: {value} is older than {least}: {:?}", answer.headers());
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(..400))).await;
    }
}

/// Writes ever higher values by bulk jobs, until the outcome of one is not known: it might happen after a later one.
async fn write_in_bulk(mut client: Client, id: String, known: Arc<Known>, times: i64) {
    for value in 1..=times {
        let job = json!({"object": "Account", "operation": "update", "contentType": "CSV", "lineEnding": "LF"});
        let json = [("content-type", "application/json")];
        let Ok(made) = client.try_send("POST", "jobs/ingest", &json, job.to_string()).await else { continue };
        // A job without rows changes nothing.
        let Some(job) = (made.code() == 200).then(|| made.json()["id"].as_str().map(str::to_owned)).flatten() else {
            continue;
        };
        let path = format!("jobs/ingest/{job}");
        let csv = format!("Id,NumberOfEmployees\n{id},{value}\n");
        let sent = client.try_send("PUT", &format!("{path}/batches"), &[("content-type", "text/csv")], csv).await;
        if !sent.is_ok_and(|sent| sent.code() == 201) {
            continue;
        }
        let close = json!({"state": "UploadComplete"}).to_string();
        let closed = client.try_send("PATCH", &path, &json, close).await;
        let mut done = false;
        for _ in 0..60 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let Ok(state) = client.try_send("GET", &path, &[], "").await else { continue };
            if state.code() == 200 && state.json()["state"] == "JobComplete" {
                done = true;
                break;
            }
        }
        if !done {
            assert!(!closed.is_ok_and(|closed| closed.code() == 200), "the job goes on for ever");
            return;
        }
        known.answered.store(value, Ordering::SeqCst);
    }
}

/// `losses`: some writes end without anybody knowing how, after which nothing of their object is kept for longer than this
/// goes on.
async fn writers_and_readers(seed: u64, losses: bool) {
    let world = World::new(ROWS);
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut client = world.client();
    let rows = client.query("SELECT Id FROM Account ORDER BY Id LIMIT 5").await.json();
    let mut all = Vec::new();
    for row in rows["records"].as_array().unwrap() {
        let id = row["Id"].as_str().unwrap().to_owned();
        assert_eq!(client.patch(&format!("sobjects/Account/{id}"), &json!({"NumberOfEmployees": 0})).await.code(), 204);
        let child = json!({"LastName": "one of its own", "AccountId": id});
        assert_eq!(client.post("sobjects/Contact", &child).await.code(), 201);
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
        let is_loss = method != "GET" && !matches!(action, FaultAction::Trickle { .. });
        if is_loss && !losses {
            continue;
        }
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
    let kept: Arc<[AtomicU64; 6]> = Arc::default();
    let mut tasks = Vec::new();
    let (bulk, single) = all.split_last().unwrap();
    let client = patient(world.client());
    tasks.push(world.beside(write_in_bulk(client, bulk.0.clone(), Arc::clone(&bulk.1), 1)));
    for (id, known) in single {
        let client = patient(world.client());
        tasks.push(world.beside(write(client, id.clone(), Arc::clone(known), rng.fork(), 60)));
    }
    for user in ["admin", "integration", "admin", "integration", "admin", "admin"] {
        let client = patient(world.client().user(user));
        tasks.push(world.beside(read(client, all.clone(), rng.fork(), 500, Arc::clone(&kept))));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let kept: Vec<u64> = kept.iter().map(|kept| kept.load(Ordering::Relaxed)).collect();
    println!("seed {seed}: by memory, of 3,000, by way: {kept:?}; by bulk {}", bulk.1.answered.load(Ordering::SeqCst));
    let enough = if losses { 10 } else { 100 };
    assert!(kept.iter().sum::<u64>() > enough, "seed {seed}: {kept:?}");
    assert!(bulk.1.answered.load(Ordering::SeqCst) > 0, "seed {seed}");
    world.sim.script().clear_faults();
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn no_read_that_begins_after_a_writes_answer_sees_the_older_value() {
    for (seed, losses) in [(1, true), (2, true), (3, false)] {
        writers_and_readers(seed, losses).await;
    }
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
