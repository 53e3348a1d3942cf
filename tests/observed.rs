//! Promise: what is logged, measured and said in headers is one account of what happened, and tells no secret.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use weirkeeper::sim::{Fault, FaultAction, SimConfig, SimCosts};

use crate::client::{Answer as _, encoded, envelope, head, token};
use crate::world::{Line, World, small};

fn once(action: FaultAction) -> Fault {
    Fault { times: Some(1), action, ..Fault::default() }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_logged_measured_and_answered_with_the_same_figures() {
    let world = World::new("callers: [{name: billing, match: any, class: batch}]");
    let mut client = world.client();
    let id = client.any("Account").await;
    world.sim.script().latency(1_250, 0);
    let answer = client.get(&format!("sobjects/Account/{id}")).await;
    assert_eq!(answer.code(), 200);
    let line = world.last_line().await;
    for (member, value) in [
        ("event", json!("request")),
        ("time", json!("2026-11-22T12:00:01.250Z")),
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
        ("upstream_ms", json!(1_250.0)),
        ("duration_ms", json!(1_250.0)),
        ("bytes_in", json!(0)),
        ("bytes_out", json!(answer.body().len())),
    ] {
        assert_eq!(line[member], value, "{member} in {line}");
    }
    assert_eq!(line["principal"].as_str().map(str::len), Some(8));
    assert_eq!(line["request_id"], answer.header("weirkeeper-request-id"));
    assert_eq!((answer.header("weirkeeper-cost"), answer.header("server-timing")), ("1", "upstream;dur=1250.000"));
    let labels = [("caller", "billing"), ("family", "rest"), ("class", "batch")];
    for (name, value) in [
        ("weirkeeper_api_calls_spent_total", 1.0),
        ("weirkeeper_request_duration_seconds_count", 1.0),
        ("weirkeeper_request_duration_seconds_sum", 1.25),
        ("weirkeeper_upstream_duration_seconds_sum", 1.25),
    ] {
        assert!((world.metric(name, &labels) - value).abs() < 1e-9, "{name}");
    }
    assert!(world.metric("weirkeeper_overhead_seconds_sum", &[]) < 1e-6);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_salesforce_says_of_itself_stays_and_costs_are_told() {
    let world = World::new("");
    let mut client = world.client();
    let timing = FaultAction::Answer {
        status: 200,
        body: "{}".into(),
        content_type: "application/json".into(),
        headers: vec![("server-timing".into(), "db;dur=5".into()), ("weirkeeper-cost".into(), "77".into())],
    };
    world.sim.script().fault(once(timing));
    let answer = client.get("sobjects/Account").await;
    let timings: Vec<_> = answer.headers().get_all("server-timing").iter().collect();
    assert_eq!(timings, ["db;dur=5", "upstream;dur=0.000"]);
    assert_eq!(answer.headers().get_all("weirkeeper-cost").iter().collect::<Vec<_>>(), ["1"]);
    let batch: Vec<_> = (0..3).map(|_| json!({"method": "GET", "url": "v62.0/limits"})).collect();
    assert_eq!(client.post("composite/batch", &json!({"batchRequests": batch})).await.header("weirkeeper-cost"), "3");
    assert_eq!(client.get("/services/data/").await.header("weirkeeper-cost"), "0");
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_trace_leads_from_the_caller_to_salesforce() {
    let world = World::new("");
    let mut client = world.client();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    for (sent, kept) in
        [(parent.as_str(), true), ("00-00000000000000000000000000000000-b7ad6b7169203331-01", false), ("x", false)]
    {
        let answer = client.send("GET", "limits", &[("traceparent", sent), ("x-sfdc-request-id", "forged")], "").await;
        let seen = world.sim.requests().pop().unwrap();
        let ids: Vec<_> = seen.headers.iter().filter(|(name, _)| name == "x-sfdc-request-id").collect();
        let line = world.last_line().await;
        let ours = answer.header("weirkeeper-request-id");
        assert_eq!(line["request_id"], ours);
        assert_eq!((ids.len(), ids[0].1.as_str()), (1, if kept { trace } else { ours }));
        assert_eq!(line.get("trace_id"), kept.then(|| json!(trace)).as_ref(), "{line}");
        let passed_on = seen.headers.iter().find(|(name, _)| name == "traceparent").unwrap();
        assert_eq!(passed_on.1, sent, "where nothing is traced, the trace is passed on as it is");
    }
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn error_codes_are_learnt_from_every_form_of_error() {
    let world = World::new("");
    let mut client = world.client();
    let session = token("nobody");
    let soap = |body: &str| envelope(&token("admin"), body);
    let gzip = ("accept-encoding", "gzip");
    let xml = ("content-type", "text/xml");
    let wrong = format!("Bearer {session}");
    let query = soap("<urn:query><urn:queryString>SELECT</urn:queryString></urn:query>");
    for (method, target, headers, body, code) in [
        ("GET", "sobjects/Nope", &[][..], "", "NOT_FOUND"),
        ("GET", "sobjects/Nope", &[gzip], "", "NOT_FOUND"),
        ("GET", "query?q=SELECT+Nope+FROM+Account", &[gzip], "", "INVALID_FIELD"),
        ("POST", "sobjects/Account", &[gzip], "{}", "REQUIRED_FIELD_MISSING"),
        ("GET", "limits", &[("authorization", &wrong)], "", "INVALID_SESSION_ID"),
        ("GET", "sobjects/Nope", &[("accept", "application/xml")], "", "NOT_FOUND"),
        ("GET", "sobjects/Nope", &[("accept", "application/xml"), gzip], "", "NOT_FOUND"),
        ("POST", "/services/Soap/u/62.0", &[xml], &query, "MALFORMED_QUERY"),
        ("POST", "/services/Soap/u/62.0", &[xml, gzip], &query, "MALFORMED_QUERY"),
    ] {
        let answer = client.send(method, target, headers, body.to_owned()).await;
        assert!(answer.code() >= 400, "{method} {target}");
        let line = world.last_line().await;
        let kind = match code {
            "INVALID_SESSION_ID" => "auth",
            "INVALID_FIELD" | "INVALID_TYPE" => "schema",
            _ => "permanent",
        };
        assert_eq!((&line["error_code"], &line["failure"]), (&json!(code), &json!(kind)), "{line}");
    }
    let counted =
        world.metric("weirkeeper_upstream_errors_total", &[("kind", "permanent"), ("error_code", "NOT_FOUND")]);
    assert!((counted - 4.0).abs() < f64::EPSILON, "{counted}");
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn the_undocumented_costs_are_counted_as_configured() {
    let costs = SimCosts { not_modified: 0, client_error: 0, server_error: 0, refusal: 0, oauth: 1, limits: 0 };
    let world = World::with(
        SimConfig { costs, ..small() },
        "orgs:
- name: prod
  instance_url: 'http://127.0.0.1:8081'
  costs: {not_modified: 0, client_error: 0, server_error: 0, refusal: 0, oauth: 1, limits: 0}
",
    );
    let mut client = world.client().with("accept-encoding", "gzip");
    let row = format!("sobjects/Account/{}", client.any("Account").await);
    let tag = client.get(&row).await.header("etag").to_owned();
    assert_eq!(client.send("GET", &row, &[("if-none-match", &tag)], "").await.code(), 304);
    for path in ["limits", "sobjects/Nope", "/services/apexrest/fail", "/services/oauth2/userinfo"] {
        client.get(path).await;
    }
    // A refusal stands in the body, here compressed.
    world.sim.script().set_daily_limit(1);
    let batch: Vec<_> = (0..3).map(|_| json!({"method": "GET", "url": "v62.0/recent"})).collect();
    let refused = client.post("composite/batch", &json!({"batchRequests": batch})).await;
    assert_eq!((refused.code(), refused.error().as_str()), (403, "REQUEST_LIMIT_EXCEEDED"));
    assert_eq!(world.last_line().await["charged"], 0);
    assert_eq!(world.sim.counts().charged, 3);
    world.close().await;
}

/// One line of each kind of request and ending.
async fn mixed(world: &World) {
    for round in 0..3 {
        let mut client = world.client().with("sforce-call-options", ["client=etl", "client=x", ""][round]);
        let id = client.any("Account").await;
        client.get(&format!("sobjects/Account/{id}")).await;
        client.get("sobjects/Contact").await;
        client.get("/services/data/v58.0/sobjects/Lead/describe").await;
        client.get("sobjects/Nope").await;
        client.post("sobjects/Lead", &json!({"LastName": "x", "Company": "y"})).await;
        client.post("sobjects/Lead", &json!({})).await;
        client.get("/services/data/").await;
        client.get("/nonsense").await;
        client.send("GET", "limits", &[("weirkeeper-class", "batch")], "").await;
        client.send("GET", "limits", &[("weirkeeper-key", "wrong")], "").await;
        client.send("GET", "limits", &[("x-sfdc-session", "second")], "").await;
        client.send("GET", "limits", &[("x-request-timeout-ms", "0")], "").await;
        world.sim.script().fault(once(FaultAction::Close { apply: true, reset: false }));
        client.post("sobjects/Account", &json!({"Name": "lost"})).await;
        world.sim.script().fault(once(FaultAction::Truncate { body_bytes: 3 }));
        assert!(client.try_send("GET", "sobjects/Account", &[], "").await.is_err());
        world.sim.script().fault(once(FaultAction::Unavailable { html: true, retry_after_seconds: None }));
        client.query("SELECT Id FROM Account").await;
        world.line(Line::Broken(std::io::ErrorKind::ConnectionRefused));
        world.sim.script().fault(once(FaultAction::Close { apply: false, reset: false }));
        client.get("recent").await;
        client.get("recent").await;
        world.line(Line::Sim);
        // One that leaves while Salesforce works.
        world.sim.script().fault(Fault { latency_ms: 5_000, ..once(FaultAction::None) });
        let mut stream = world.raw();
        stream.write_all(head("GET", "limits", "").as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(stream);
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
}

/// How many lines there are of each set of these members.
fn tally<'a>(lines: impl Iterator<Item = &'a Value>, members: &[&str], of: &str) -> BTreeMap<Vec<String>, u64> {
    let mut tally = BTreeMap::new();
    for line in lines {
        let key = members.iter().map(|member| match &line[*member] {
            Value::Null => "none".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        *tally.entry(key.collect()).or_default() += if of.is_empty() { 1 } else { line[of].as_u64().unwrap() };
    }
    tally
}

#[tokio::test(start_paused = true)]
async fn the_metrics_are_what_the_log_adds_up_to() {
    let world = World::new(
        "callers:
- {name: etl, match: {call_options_client: etl}, class: batch, allow: {objects: [Account, Lead]}}
- {name: anyone, match: any, class: interactive}
",
    );
    mixed(&world).await;
    let lines = world.lines();
    assert!(lines.len() > 50, "{}", lines.len());
    let endings = tally(lines.iter(), &["ending"], "");
    assert_eq!(endings.keys().flatten().collect::<Vec<_>>(), ["caller_left", "complete", "cut"]);
    let failed = || lines.iter().filter(|line| line["failure"].is_string());
    let refused = || lines.iter().filter(|line| line["refusal"].is_string());
    let versioned = || lines.iter().filter(|line| line["version"].is_string());
    let unknown = || lines.iter().filter(|line| line["outcome"] == "unknown");
    let request = ["org", "caller", "class", "family", "object", "operation", "status", "source"];
    let used = ["org", "caller", "class", "family"];
    let errors = ["org", "family", "failure", "error_code"];
    for (metric, labels, members, tally) in [
        ("requests_total", &request[..], &request[..], tally(lines.iter(), &request, "")),
        ("api_calls_spent_total", &used, &used, tally(lines.iter(), &used, "charged")),
        ("request_duration_seconds_count", &used, &used, tally(lines.iter(), &used, "")),
        ("upstream_duration_seconds_count", &used, &used, tally(lines.iter(), &used, "attempts")),
        ("upstream_errors_total", &["org", "family", "kind", "error_code"], &errors, tally(failed(), &errors, "")),
        (
            "refusals_total",
            &["org", "caller", "reason"],
            &["org", "caller", "refusal"],
            tally(refused(), &["org", "caller", "refusal"], ""),
        ),
        ("unknown_outcomes_total", &["org", "caller"], &["org", "caller"], tally(unknown(), &["org", "caller"], "")),
        (
            "api_version_requests_total",
            &["org", "caller", "version"],
            &["org", "caller", "version"],
            tally(versioned(), &["org", "caller", "version"], ""),
        ),
    ] {
        let name = format!("weirkeeper_{metric}");
        assert!(tally.len() > 1 || metric.starts_with("unknown"), "{metric}: {tally:?}");
        let mut sum = 0;
        for (values, count) in &tally {
            let pairs: Vec<_> = labels.iter().copied().zip(values.iter().map(String::as_str)).collect();
            let measured = world.metric(&name, &pairs);
            assert!(
                (measured - *count as f64).abs() < 1e-9,
                "{name} {members:?} {values:?}: {measured}, logged {count}"
            );
            sum += count;
        }
        let measured = world.metric(&name, &[]);
        assert!((measured - sum as f64).abs() < 1e-9, "{name}: {measured}, logged {sum}");
    }
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_in_the_air_is_shown_while_it_is() {
    let world = World::new("callers: [{name: anyone, match: any, class: interactive}]");
    world.sim.script().latency(2_000, 0);
    let mut client = world.client();
    let both = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let during = world.metric("weirkeeper_in_flight", &[("org", "prod"), ("class", "interactive")]);
        (during, world.upstream())
    };
    let (answer, (during, upstream)) = tokio::join!(client.get("recent"), both);
    assert_eq!(answer.code(), 200);
    assert!((during - 1.0).abs() < f64::EPSILON, "{during}");
    assert_eq!((upstream.open, upstream.idle), (1, 0));
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn no_secret_is_told_wherever_it_stands() {
    let world =
        World::new("callers: [{name: anyone, match: any, allow: {families: [rest, query, composite, soap, other]}}]");
    // None of these may be seen, in any case.
    for canary in ["CANARY", "canary", "Canary", "00DC4N4RY", "001C4N4RY000001", "555-C4N4RY"] {
        world.secret(canary);
    }
    let mut client = world.client();
    let bearer = ("authorization", "Bearer 00DC4N4RY!AQ4CANARY");
    let soap =
        envelope("00DC4N4RY!AQ4CANARY", "<urn:query><urn:queryString>SELECT CANARY</urn:queryString></urn:query>");
    let literal =
        format!("query?q={}", encoded("SELECT Id FROM Account WHERE Name = 'CANARY' AND Phone = '555-C4N4RY'"));
    for (method, target, headers, body) in [
        ("GET", "limits", &[bearer][..], ""),
        ("GET", "limits", &[("authorization", "Basic CANARY")], ""),
        ("GET", "limits", &[("authorization", "CANARY")], ""),
        ("GET", "limits", &[("x-sfdc-session", "CANARY")], ""),
        ("GET", "limits", &[("weirkeeper-key", "wk_CANARY")], ""),
        (
            "GET",
            "limits",
            &[("cookie", "sid=CANARY"), ("user-agent", "00DC4N4RY000001CANARY"), ("x-forwarded-for", "CANARY")],
            "",
        ),
        ("GET", "limits", &[("sforce-call-options", "client=00DC4N4RY000001CANARY")], ""),
        ("GET", "limits", &[("traceparent", "00-CANARY"), ("x-request-timeout-ms", "CANARY")], ""),
        ("GET", "limits", &[("weirkeeper-class", "CANARY"), ("accept", "application/CANARY")], ""),
        ("GET", &literal, &[], ""),
        ("GET", &format!("{literal}+SELECT+CANARY__c"), &[], ""),
        ("GET", "sobjects/CANARY__c/describe", &[], ""),
        ("GET", "sobjects/CANARY__c/001C4N4RY000001", &[], ""),
        ("GET", "sobjects/Account/001C4N4RY000001AAA", &[], ""),
        ("DELETE", "sobjects/Account/001C4N4RY000001AAA", &[], ""),
        ("GET", "sobjects/Account/Ext_Id__c/CANARY%2F1", &[], ""),
        ("GET", "sobjects/Account/CANARY__c/1", &[], ""),
        ("POST", "sobjects/Account", &[], "{\"Name\": \"CANARY\", \"CANARY__c\": 1}"),
        ("POST", "sobjects/Account", &[("content-encoding", "CANARY")], "CANARY"),
        ("POST", "composite", &[], "{\"compositeRequest\": [{\"url\": \"/CANARY\", \"method\": \"CANARY\"}]}"),
        ("POST", "composite", &[], "CANARY"),
        ("POST", "composite", &[("content-encoding", "gzip")], "CANARY"),
        ("POST", "composite/batch", &[], "{\"batchRequests\": [{\"url\": \"CANARY\", \"method\": \"GET\"}]}"),
        ("POST", "/services/Soap/u/62.0", &[("content-type", "text/xml")], &soap),
        ("POST", "/services/Soap/u/62.0", &[("content-type", "text/xml")], "<CANARY>"),
        ("POST", "/services/oauth2/token", &[], "grant_type=password&username=x&password=CANARY&client_secret=CANARY"),
        ("GET", "/services/data/vCANARY/sobjects", &[], ""),
        ("GET", "/services/apexrest/CANARY?token=CANARY", &[], ""),
        ("GET", "/CANARY?sid=CANARY", &[], ""),
        ("CANARY", "limits", &[], ""),
        ("GET", "/services/data/v62.0/sobjects/%43%41NARY", &[], ""),
    ] {
        client.send(method, target, headers, body.to_owned()).await;
        world.sim.script().fault(once(FaultAction::Error {
            status: 400,
            code: "CANARY_C0DE".into(),
            message: "CANARY".into(),
        }));
        client.send(method, target, headers, body.to_owned()).await;
        world.sim.script().fault(once(FaultAction::Garbage { text: "CANARY CANARY CANARY\r\n\r\n".into() }));
        client.send(method, target, headers, body.to_owned()).await;
        world.sim.script().clear_faults();
    }
    world.settle().await;
    assert!(world.lines().len() > 90);
    world.close().await;
}
