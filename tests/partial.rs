//! Promise: what failed inside of an answer that is no failure is counted by caller, object and code, whatever its API, its
//! size and its compression, and the answer itself passes as it came.

use std::time::Duration;

use serde_json::{Value, json};
use weirkeeper::sim::{Fault, FaultAction};

use crate::client::{Answer as _, Client, envelope, token};
use crate::world::World;

const XML: [(&str, &str); 2] = [("content-type", "text/xml"), ("soapaction", "\"\"")];

fn failed(world: &World, object: &str, code: &str) -> f64 {
    world.metric("weirkeeper_record_failures_total", &[("caller", "anyone"), ("object", object), ("error_code", code)])
}

#[track_caller]
fn is(measured: f64, count: u32) {
    assert!((measured - f64::from(count)).abs() < f64::EPSILON, "{measured} instead of {count}");
}

fn parts(line: &Value) -> (Option<u64>, Option<u64>) {
    (line["parts"].as_u64(), line["parts_failed"].as_u64())
}

#[tokio::test(start_paused = true)]
async fn errors_of_graphql_are_counted() {
    let world = World::new("");
    let mut client = world.client();
    let query = |object: &str| json!({"query": format!("{{ uiapi {{ query {{ Account {{ edges {{ node {{ Id }} }} }} {object} {{ edges {{ node {{ Id }} }} }} }} }} }}")});
    assert_eq!(client.post("graphql", &query("Contact")).await.code(), 200);
    assert_eq!(parts(&world.last_line().await), (None, None));
    for coding in ["identity", "gzip"] {
        let mut client = world.client().with("accept-encoding", coding);
        let answer = client.post("graphql", &query("Nope")).await;
        assert_eq!((answer.code(), answer.header("weirkeeper-partial-failures")), (200, ""));
        assert_eq!(answer.plain(), world.direct().post("graphql", &query("Nope")).await.plain());
        assert_eq!(parts(&world.last_line().await), (Some(2), Some(1)), "{}", answer.text());
    }
    is(world.metric("weirkeeper_record_failures_total", &[("error_code", "DataFetchingException")]), 2);
    world.counts_more(-4);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn records_of_soap_are_counted() {
    let world = World::new("");
    let mut client = world.client();
    let lead = |company: &str| {
        format!("<urn:sObjects><urn:type>Lead</urn:type><urn:LastName>x</urn:LastName>{company}</urn:sObjects>")
    };
    let create = [lead("<urn:Company>y</urn:Company>"), lead(""), lead("")].concat();
    let create = envelope(&token("admin"), &format!("<urn:create>{create}</urn:create>"));
    for coding in ["identity", "gzip"] {
        let mut client = world.client().with("accept-encoding", coding);
        let answer = client.send("POST", "/services/Soap/u/62.0", &XML, create.clone()).await;
        assert_eq!(answer.code(), 200, "{}", answer.text());
        assert_eq!(parts(&world.last_line().await), (Some(3), Some(2)), "{}", answer.text());
    }
    is(failed(&world, "Lead", "REQUIRED_FIELD_MISSING"), 4);
    let query = "<urn:query><urn:queryString>SELECT Id FROM Lead</urn:queryString></urn:query>";
    client.send("POST", "/services/Soap/u/62.0", &XML, envelope(&token("admin"), query)).await;
    assert_eq!(parts(&world.last_line().await), (None, None));
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn records_of_a_bulk_job_are_counted_once_however_often_it_is_asked_about() {
    let world = World::new("");
    let mut client = world.client();
    let job = json!({"object": "Contact", "operation": "insert", "contentType": "CSV", "lineEnding": "LF"});
    let made = client.post("jobs/ingest", &job).await.json();
    let id = made["id"].as_str().unwrap().to_owned();
    let rows = "LastName,Account.Ext_Id__c\nOne,\nTwo,unknown\nThree,unknown\n";
    let upload = format!("jobs/ingest/{id}/batches");
    assert_eq!(client.send("PUT", &upload, &[("content-type", "text/csv")], rows).await.code(), 201);
    client.patch(&format!("jobs/ingest/{id}"), &json!({"state": "UploadComplete"})).await;
    for _ in 0..30 {
        client.get(&format!("jobs/ingest/{id}")).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let done = client.get(&format!("jobs/ingest/{id}")).await.json();
    assert_eq!(done["numberRecordsFailed"], 2, "{done}");
    world.settle().await;
    is(failed(&world, "Contact", "none"), 2);
    let counted: Vec<_> = world.lines().iter().map(parts).filter(|(parts, _)| parts.is_some()).collect();
    assert_eq!(counted, [(Some(3), Some(2))]);

    // Version 1.0, whose jobs and batches tell of the same records.
    let mut client = world.client().with("x-sfdc-session", &token("admin")).without("authorization");
    let job = "<jobInfo xmlns=\"http://www.force.com/2009/06/asyncapi/dataload\"><operation>insert</operation><object>Lead</object><contentType>CSV</contentType></jobInfo>";
    let mut send = async |method: &str, path: &str, kind: &str, body: &str| {
        let path = format!("/services/async/60.0/{path}");
        client.send(method, &path, &[("content-type", kind)], body.to_owned()).await.text()
    };
    let value =
        |text: &str, name: &str| text.split(&format!("<{name}>")).nth(1).unwrap().split('<').next().unwrap().to_owned();
    let id = value(&send("POST", "job", "application/xml", job).await, "id");
    let batch = send("POST", &format!("job/{id}/batch"), "text/csv", "LastName,Company\nA,B\nC,\n").await;
    let batch = value(&batch, "id");
    tokio::time::sleep(Duration::from_secs(5)).await;
    for path in [format!("job/{id}/batch/{batch}"), format!("job/{id}"), format!("job/{id}/batch"), format!("job/{id}")]
    {
        assert_eq!(value(&send("GET", &path, "application/xml", "").await, "numberRecordsFailed"), "1");
    }
    world.settle().await;
    let all = world.metric("weirkeeper_record_failures_total", &[("error_code", "none")]);
    is(all, 3);
    world.close().await;
}

/// An answer to a collection of 200 records, three of which failed, of at least `bytes`.
fn collection(bytes: usize) -> String {
    // Not the same all over, so that compressed it is not short.
    let mut numbers = (1_u64..).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut noise =
        || (0..bytes / 200 / 16 + 1).map(|_| format!("{:016x}", numbers.next().unwrap())).collect::<String>();
    let record = |at: usize| match at {
        7 | 100 | 199 => {
            json!({"success": false, "errors": [{"statusCode": "DUPLICATE_VALUE", "message": noise(), "fields": []}]})
        }
        _ => json!({"id": "001D000000IqhSLIAZ", "success": true, "errors": [], "note": noise()}),
    };
    Value::from((0..200).map(record).collect::<Vec<_>>()).to_string()
}

async fn create_many(client: &mut Client) -> http::Response<bytes::Bytes> {
    let records = vec![json!({"attributes": {"type": "Account"}, "Name": "x"}); 200];
    client.post("composite/sobjects", &json!({"allOrNone": false, "records": records})).await
}

#[tokio::test(start_paused = true)]
async fn long_and_compressed_answers_are_counted_too() {
    let world = World::new("");
    for (size, header) in [(10_000, "3/200"), (700_000, "3/200"), (2_500_000, "")] {
        for coding in ["identity", "gzip", "deflate"] {
            let body = collection(size);
            let content_type = "application/json;charset=UTF-8".to_owned();
            let action = FaultAction::Answer { status: 200, body: body.clone(), content_type, headers: Vec::new() };
            world.sim.script().fault(Fault { times: Some(1), action, ..Fault::default() });
            let answer = create_many(&mut world.client().with("accept-encoding", coding)).await;
            assert_eq!(answer.header("weirkeeper-partial-failures"), header, "{size} {coding}");
            assert!(answer.plain() == body.as_bytes(), "{size} {coding}: the answer passes as it came");
            assert_eq!(parts(&world.last_line().await), (Some(200), Some(3)), "{size} {coding}");
        }
    }
    // Short as it comes, and longer than it looks.
    let body = collection(10_000).replace("\"note\":\"", &format!("\"note\":\"{}", "x".repeat(8_000)));
    let content_type = "application/json;charset=UTF-8".to_owned();
    let action = FaultAction::Answer { status: 200, body, content_type, headers: Vec::new() };
    world.sim.script().fault(Fault { times: Some(1), action, ..Fault::default() });
    let answer = create_many(&mut world.client().with("accept-encoding", "gzip")).await;
    assert!(answer.body().len() < 1 << 20 && answer.plain().len() > 1 << 20);
    assert_eq!(answer.header("weirkeeper-partial-failures"), "3/200");
    is(failed(&world, "Account", "DUPLICATE_VALUE"), 30);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_in_the_middle_leaves_nothing_behind() {
    let world = World::new("");
    for coding in ["identity", "gzip"] {
        let body = collection(4_000_000);
        let content_type = "application/json".to_owned();
        let action = FaultAction::Answer { status: 200, body, content_type, headers: Vec::new() };
        world.sim.script().fault(Fault { times: Some(1), action, ..Fault::default() });
        let request = json!({"records": [{"attributes": {"type": "Account"}}]}).to_string();
        let head = format!(
            "content-type: application/json\r\naccept-encoding: {coding}\r\ncontent-length: {}\r\n",
            request.len()
        );
        let mut stream = world.raw();
        let sent = crate::client::head("POST", "composite/sobjects", &head) + &request;
        tokio::io::AsyncWriteExt::write_all(&mut stream, sent.as_bytes()).await.unwrap();
        crate::client::read_until(&mut stream, "\r\n\r\n").await;
        drop(stream);
        world.settle().await;
    }
    world.close().await;
}
