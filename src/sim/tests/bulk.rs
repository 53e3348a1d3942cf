//! Bulk jobs of both versions.

use std::time::Duration;

use serde_json::json;

use super::{Caller, config, token};
use crate::sim::Sim;

#[tokio::test(start_paused = true)]
async fn an_ingest_job_goes_through_its_states() {
    let mut caller = Caller::admin(config()).await;
    let body = json!({"object": "Contact", "operation": "insert", "contentType": "CSV", "lineEnding": "LF"});
    let job = caller.post("jobs/ingest", &body).await.json();
    assert_eq!((job["state"].clone(), job["apiVersion"].clone()), (json!("Open"), json!(62.0)));
    let url = job["contentUrl"].as_str().unwrap();
    let id = job["id"].as_str().unwrap().to_owned();
    assert_eq!(url, format!("services/data/v62.0/jobs/ingest/{id}/batches"));
    let csv = "LastName,Account.Ext_Id__c\n\"Bulk, One\",Account-00001\nTwo,\n,Account-00001\nThree,unknown\n";
    assert_eq!(caller.send("PUT", &format!("/{url}"), csv).await.unwrap().status, 201);
    assert_eq!(caller.send("PUT", &format!("/{url}"), csv).await.unwrap().code(), "INVALIDJOBSTATE");
    let path = format!("jobs/ingest/{id}");
    assert_eq!(caller.patch(&path, &json!({"state": "UploadComplete"})).await.json()["state"], "UploadComplete");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(caller.get(&path).await.json()["state"], "InProgress");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let done = caller.get(&path).await.json();
    assert_eq!(
        (done["state"].clone(), done["numberRecordsProcessed"].clone(), done["numberRecordsFailed"].clone()),
        (json!("JobComplete"), json!(4), json!(2))
    );
    let good = caller.get(&format!("{path}/successfulResults")).await;
    let text = String::from_utf8_lossy(&good.body).into_owned();
    assert!(text.starts_with("\"sf__Id\",\"sf__Created\",\"LastName\",\"Account.Ext_Id__c\"\n\"003"), "{text}");
    assert_eq!((text.lines().count(), good.header("content-type")), (3, "text/csv"));
    let bad = caller.get(&format!("{path}/failedResults")).await;
    let text = String::from_utf8_lossy(&bad.body).into_owned();
    assert!(text.contains("\"REQUIRED_FIELD_MISSING:Required fields are missing: [LastName]:LastName--\""), "{text}");
    assert_eq!(
        caller.get(&format!("{path}/unprocessedrecords")).await.body.as_ref(),
        b"\"LastName\",\"Account.Ext_Id__c\"\n"
    );
    assert_eq!(caller.get("jobs/ingest").await.json()["records"].as_array().unwrap().len(), 1);
    assert_eq!(caller.delete(&path).await.status, 204);
    assert_eq!(caller.get(&path).await.status, 404);
    assert_eq!(caller.sim.counts().writes["Contact"].created, 2);
}

#[tokio::test(start_paused = true)]
async fn an_aborted_job_leaves_its_rows_unprocessed() {
    let mut caller = Caller::admin(config()).await;
    let body = json!({"object": "Lead", "operation": "insert"});
    let id = caller.post("jobs/ingest", &body).await.json()["id"].as_str().unwrap().to_owned();
    caller.send("PUT", &format!("jobs/ingest/{id}/batches"), "LastName,Company\nA,B\n").await.unwrap();
    caller.patch(&format!("jobs/ingest/{id}"), &json!({"state": "UploadComplete"})).await;
    assert_eq!(
        caller.patch(&format!("jobs/ingest/{id}"), &json!({"state": "Aborted"})).await.json()["state"],
        "Aborted"
    );
    tokio::time::sleep(Duration::from_secs(5)).await;
    let left = caller.get(&format!("jobs/ingest/{id}/unprocessedRecords")).await;
    assert_eq!(left.body.as_ref(), b"\"LastName\",\"Company\"\n\"A\",\"B\"\n");
    assert!(caller.sim.counts().writes.is_empty());
    let unknown = json!({"object": "Lead", "operation": "insert"});
    let id = caller.post("jobs/ingest", &unknown).await.json()["id"].as_str().unwrap().to_owned();
    caller.send("PUT", &format!("jobs/ingest/{id}/batches"), "Nope\n1\n").await.unwrap();
    caller.patch(&format!("jobs/ingest/{id}"), &json!({"state": "UploadComplete"})).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let failed = caller.get(&format!("jobs/ingest/{id}")).await.json();
    assert_eq!(
        (failed["state"].clone(), failed["errorMessage"].clone()),
        (json!("Failed"), json!("InvalidBatch : Field name not found : Nope"))
    );
}

#[tokio::test(start_paused = true)]
async fn query_results_come_in_pages_of_their_version() {
    let sim = Sim::new(config());
    let mut caller = Caller::of(&sim, "admin").await;
    let body = json!({"operation": "query", "query": "SELECT Id, Account.Name FROM Contact ORDER BY Id"});
    let job = caller.post("jobs/query", &body).await.json();
    assert_eq!(job["state"], "UploadComplete");
    let path = format!("jobs/query/{}", job["id"].as_str().unwrap());
    assert_eq!(caller.get(&format!("{path}/results")).await.status, 400);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let first = caller.get(&format!("{path}/results?maxRecords=20")).await;
    assert_eq!((first.header("sforce-numberofrecords"), first.header("content-encoding")), ("20", "gzip"));
    assert!(first.body.starts_with(b"\"Id\",\"Account.Name\"\n"));
    let locator = first.header("sforce-locator").to_owned();
    let second = caller.get(&format!("{path}/results?maxRecords=20&locator={locator}")).await;
    assert_eq!((second.header("sforce-numberofrecords"), second.header("sforce-locator")), ("10", "null"));
    let other = caller.get(&format!("/services/data/v61.0/{path}/results")).await;
    assert_eq!(other.status, 409);
    let pages = caller.get(&format!("{path}/resultPages")).await.json();
    assert_eq!((pages["done"].clone(), pages["resultPages"].as_array().unwrap().len()), (json!(true), 1));
    for query in [
        "SELECT COUNT() FROM Lead",
        "SELECT Id FROM Lead OFFSET 5",
        "SELECT Id, (SELECT Id FROM Contacts) FROM Account",
    ] {
        assert_eq!(
            caller.post("jobs/query", &json!({"operation": "query", "query": query})).await.status,
            400,
            "{query}"
        );
    }
    let mut stranger = Caller::of(&sim, "sales").await;
    assert_eq!(stranger.get(&path).await.status, 404);
    sim.script().make_read_only();
    assert_eq!(caller.get(&path).await.status, 503);
}

#[tokio::test(start_paused = true)]
async fn version_one_speaks_xml_with_its_own_session_header() {
    let sim = Sim::new(config());
    let mut caller = Caller::of(&sim, "").await.with("x-sfdc-session", &token("admin"));
    let send = async |caller: &mut Caller, method: &str, path: &str, body: &str| {
        let reply = caller.send(method, &format!("/services/async/60.0/{path}"), body).await.unwrap();
        (reply.status, String::from_utf8_lossy(&reply.body).into_owned())
    };
    let value =
        |text: &str, name: &str| text.split(&format!("<{name}>")).nth(1).unwrap().split('<').next().unwrap().to_owned();
    let job = "<jobInfo xmlns=\"http://www.force.com/2009/06/asyncapi/dataload\"><operation>insert</operation><object>Lead</object><contentType>CSV</contentType></jobInfo>";
    let (status, made) = send(&mut caller, "POST", "job", job).await;
    assert_eq!((status, value(&made, "state")), (201, "Open".to_owned()));
    let id = value(&made, "id");
    let (_, batch) = send(&mut caller, "POST", &format!("job/{id}/batch"), "LastName,Company\nA,B\nC,\n").await;
    assert_eq!(value(&batch, "state"), "Queued");
    let batch = value(&batch, "id");
    let (_, closed) = send(&mut caller, "POST", &format!("job/{id}"), "<jobInfo><state>Closed</state></jobInfo>").await;
    assert_eq!(value(&closed, "state"), "Closed");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (_, done) = send(&mut caller, "GET", &format!("job/{id}/batch/{batch}"), "").await;
    assert_eq!((value(&done, "state"), value(&done, "numberRecordsFailed")), ("Completed".to_owned(), "1".to_owned()));
    let (_, result) = send(&mut caller, "GET", &format!("job/{id}/batch/{batch}/result"), "").await;
    assert!(result.starts_with("\"Id\",\"Success\",\"Created\",\"Error\"\n\"00QWk"), "{result}");
    assert!(result.contains("REQUIRED_FIELD_MISSING"));
    let query = "<jobInfo><operation>query</operation><object>Account</object><contentType>CSV</contentType></jobInfo>";
    let id = value(&send(&mut caller, "POST", "job", query).await.1, "id");
    let batch =
        value(&send(&mut caller, "POST", &format!("job/{id}/batch"), "SELECT Id FROM Account LIMIT 3").await.1, "id");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let list = send(&mut caller, "GET", &format!("job/{id}/batch/{batch}/result"), "").await.1;
    let rows =
        send(&mut caller, "GET", &format!("job/{id}/batch/{batch}/result/{}", value(&list, "result")), "").await.1;
    assert_eq!(rows.lines().count(), 4);
    assert_eq!(send(&mut caller, "DELETE", "job", "").await.0, 405);
    let counts = sim.counts();
    assert_eq!((counts.by_family["bulk1"], counts.writes["Lead"].created), (10, 1));
}

#[tokio::test(start_paused = true)]
async fn version_one_tells_of_batches_in_the_form_of_their_job() {
    let sim = Sim::new(config());
    for (content, json) in [("CSV", false), ("JSON", true)] {
        let mut caller = Caller::of(&sim, "admin").await.with("content-type", "application/json");
        let body = json!({"operation": "queryAll", "object": "Account", "contentType": content});
        let job = caller.post("/services/async/60.0/job", &body).await.json();
        let path = format!("/services/async/60.0/job/{}/batch", job["id"].as_str().unwrap());
        let made = caller.send("POST", &path, "SELECT Id FROM Account").await.unwrap();
        assert_eq!((made.status, made.body.starts_with(b"{")), (201, json), "{content}");
        let list = caller.get(&path).await;
        assert_eq!(list.header("content-type") == "application/json", json, "{content}");
    }
}
