//! Promise: an unmodified client sees through the gateway what it would see without it.
//!
//! Two equal orgs are asked the same, one directly and one through the gateway. Status, headers and body bytes must be equal,
//! and so must be what the two orgs were asked, but for exactly what is listed here.

use bytes::Bytes;
use http::{HeaderMap, Response};
use serde_json::{Value, json};
use weirkeeper::sim::{Fault, FaultAction, SimConfig, SimRequest};

use crate::client::{Answer as _, Client, encoded, envelope, gzip, token};
use crate::world::{World, small};

/// What the gateway adds to answers.
const ADDED: [&str; 3] = ["weirkeeper-request-id", "weirkeeper-cost", "server-timing"];
/// What the gateway sets in requests.
const STAMPED: [&str; 2] = ["sforce-call-options", "x-sfdc-request-id"];

/// Two equal orgs, and how each is asked.
struct Pair {
    through: World,
    bare: World,
    gateway: Client,
    direct: Client,
    asked: usize,
}

impl Pair {
    fn new() -> Self {
        let org = SimConfig { blob_bytes: vec![1 << 10, 1 << 20], ..small() };
        let (through, bare) = (World::with(org.clone(), ""), World::with(org, ""));
        let (gateway, direct) = (through.client(), bare.direct());
        Self { through, bare, gateway, direct, asked: 0 }
    }

    /// The same requests from now on carry this header.
    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.gateway = self.gateway.with(name, value);
        self.direct = self.direct.with(name, value);
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.gateway = self.gateway.without(name);
        self.direct = self.direct.without(name);
        self
    }

    fn fault(&self, fault: &Fault) {
        self.through.sim.script().fault(fault.clone());
        self.bare.sim.script().fault(fault.clone());
    }

    /// Asks both, compares, and returns the answer.
    async fn ask(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<Bytes> {
        let body = body.into();
        // At the same time, so that what takes its time takes the same.
        let (direct, gateway) = tokio::join!(
            self.direct.send(method, target, headers, body.clone()),
            self.gateway.send(method, target, headers, body)
        );
        self.asked += 1;
        let what = format!("{method} {target}\ndirect {direct:?}\nthrough {gateway:?}");
        assert_eq!(gateway.status(), direct.status(), "{what}");
        assert_eq!(gateway.version(), direct.version(), "{what}");
        let mut headers = gateway.headers().clone();
        for name in ADDED {
            assert!(headers.remove(name).is_some() || name == "server-timing", "{name} is missing: {what}");
        }
        // Said only where something failed inside, or may have been done.
        for name in ["weirkeeper-outcome", "weirkeeper-partial-failures"] {
            headers.remove(name);
        }
        assert_eq!(sorted(&headers), sorted(direct.headers()), "{what}");
        assert!(gateway.body() == direct.body(), "{what}");
        direct
    }

    async fn get(&mut self, target: &str) -> Response<Bytes> {
        self.ask("GET", target, &[], "").await
    }

    async fn query(&mut self, soql: &str) -> Response<Bytes> {
        self.get(&format!("query?q={}", encoded(soql))).await
    }

    async fn post(&mut self, target: &str, body: &Value) -> Response<Bytes> {
        self.ask("POST", target, &[("content-type", "application/json")], body.to_string()).await
    }

    async fn patch(&mut self, target: &str, body: &Value) -> Response<Bytes> {
        self.ask("PATCH", target, &[("content-type", "application/json")], body.to_string()).await
    }

    async fn soap(&mut self, session: &str, body: &str) -> Response<Bytes> {
        let headers = [("content-type", "text/xml; charset=UTF-8"), ("soapaction", "\"\"")];
        self.ask("POST", "/services/Soap/u/62.0", &headers, envelope(session, body)).await
    }

    /// Compares what both orgs were asked and what they did, and closes the books. At least `asked` requests were made.
    async fn close(self, asked: usize) {
        assert!(self.asked >= asked, "only {} requests", self.asked);
        self.through.settle().await;
        let (through, bare) = (self.through.sim.requests(), self.bare.sim.requests());
        assert_eq!(through.len(), bare.len());
        for (through, bare) in through.iter().zip(&bare) {
            assert_eq!(request(through), request(bare));
            for name in STAMPED {
                assert_eq!(through.headers.iter().filter(|(header, _)| header == name).count(), 1, "{through:?}");
            }
        }
        let (through, bare) = (self.through.sim.counts(), self.bare.sim.counts());
        assert_eq!((through.charged, through.by_status, through.writes), (bare.charged, bare.by_status, bare.writes));
        self.through.close().await;
    }
}

fn sorted(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut fields: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    fields.sort();
    fields
}

/// Method, target, status and headers of a request as the org saw it, without what the gateway sets.
fn request(seen: &SimRequest) -> (String, String, Option<u16>, Vec<(String, String)>) {
    let mut headers = seen.headers.clone();
    headers.retain(|(name, _)| !STAMPED.contains(&name.as_str()));
    headers.sort();
    (seen.method.clone(), seen.target.clone(), seen.status, headers)
}

#[tokio::test(start_paused = true)]
async fn reads_are_the_same() {
    let mut pair = Pair::new();
    let account = pair.query("SELECT Id FROM Account ORDER BY Id LIMIT 1").await.json()["records"][0]["Id"].clone();
    let account = account.as_str().unwrap().to_owned();
    for target in [
        "/services/data",
        "/services/data/",
        "//services/data/v62.0/limits",
        "/services/data/v62.0",
        "/services/data/v62.0/",
        "/services//data/v62.0/sobjects",
        "limits",
        "recent",
        "sobjects",
        "sobjects/",
        "sobjects/Account",
        "sobjects/account/describe",
        "sobjects/Invoice__c/describe/",
        "sobjects/Account/Ext_Id__c/Account-00001",
        "sobjects/Account/Ext_Id__c/a%2Fb%20c",
        "sobjects/Account/ext_id__c/none?fields=Name,Industry",
        "query?q=SELECT+COUNT()+FROM+Account",
        "query/?q=SELECT%20Id,Name%20FROM%20Account%20LIMIT%203&",
        "query?q=SELECT+Industry,COUNT(Id)+n+FROM+Account+GROUP+BY+Industry",
        "query?q=SELECT+Id,(SELECT+Id+FROM+Contacts)+FROM+Account+LIMIT+5",
        "query?q=SELECT+Id,Account.Name,Owner.Name+FROM+Contact+LIMIT+5",
        "query?q=SELECT+Id+FROM+Account+WHERE+Id+IN+(SELECT+AccountId+FROM+Contact)",
        "query?explain=SELECT+Id+FROM+Account",
        "queryAll?q=SELECT+Id,IsDeleted+FROM+Account+LIMIT+2",
        "query?q=SELECT+Nope+FROM+Account",
        "query?q=",
        "query",
        "query?",
        "query?q=a&q=b;c&%zz=%",
        "search?q=FIND+%7Bharbour%7D+RETURNING+Account(Id,Name)",
        "search?q=nonsense",
        "parameterizedSearch?q=harbour&sobject=Account",
        "composite",
        "tooling/",
        "tooling/query?q=SELECT+KeyPrefix+FROM+EntityDefinition",
        "ui-api/object-info/Account",
        "connect/organization",
        "chatter/users/me",
        "/services/apexrest/orders/v1?x=%2F&y=+",
        "/services/apexrest/fail",
        "/services/data/v26.0/limits",
        "/services/data/v35.0/sobjects",
        "/services/data/v99.0/sobjects",
        "/services/data/vNaN/sobjects",
        "nonsense",
        "sobjects/Nope",
        "sobjects/Account/001Wk0000000ZZZAAA",
        "/favicon.ico",
        "/",
        "/services/oauth2/userinfo",
        "/.well-known/openid-configuration",
    ] {
        pair.get(target).await;
    }
    for target in ["", "?fields=Name", "/Contacts", "/Owner", "/Parent", "/describe"] {
        pair.get(&format!("sobjects/Account/{account}{target}")).await;
    }
    for method in ["HEAD", "OPTIONS", "PUT"] {
        for target in ["limits", "sobjects/Account", "sobjects/Account/describe", "nonsense"] {
            pair.ask(method, target, &[], "").await;
        }
    }
    pair.close(65).await;
}

#[tokio::test(start_paused = true)]
async fn what_headers_ask_for_is_given() {
    let mut pair = Pair::new();
    let account = pair.query("SELECT Id FROM Account ORDER BY Id LIMIT 1").await.json()["records"][0]["Id"].clone();
    let row = format!("sobjects/Account/{}", account.as_str().unwrap());
    let compressed = pair.ask("GET", &row, &[("accept-encoding", "gzip")], "").await;
    assert_eq!(compressed.header("content-encoding"), "gzip");
    let tag = compressed.header("etag").to_owned();
    let unchanged = pair.ask("GET", &row, &[("accept-encoding", "gzip"), ("if-none-match", &tag)], "").await;
    assert_eq!(unchanged.code(), 304);
    let described = pair.get("sobjects/Contact/describe").await;
    let stamp = described.header("last-modified").to_owned();
    let unchanged = pair.ask("GET", "sobjects/Contact/describe", &[("if-modified-since", &stamp)], "").await;
    assert_eq!(unchanged.code(), 304);
    let xml = pair.ask("GET", &row, &[("accept", "application/xml")], "").await;
    assert!(xml.text().starts_with("<?xml"));
    pair.ask("GET", "sobjects/Nope", &[("accept", "application/xml")], "").await;
    pair.ask("GET", &row, &[("x-prettyprint", "1")], "").await;
    let options = [("sforce-query-options", "batchSize=200"), ("cookie", "BrowserId=x; sid=y")];
    pair.ask("GET", "query?q=SELECT+Id+FROM+Lead", &options, "").await;
    pair.ask("GET", &row, &[("x-custom-header", "kept"), ("user-agent", "tap-salesforce/1.0")], "").await;
    let names: Vec<_> = (0..700).map(|n| format!("'Some+name+{n}'")).collect();
    let long = format!("query?q=SELECT+Id+FROM+Account+WHERE+Name+IN+({})", names.join(","));
    assert!(long.len() > 10 * 1024);
    assert_eq!(pair.get(&long).await.code(), 200);
    pair.ask("GET", &row, &[("authorization", &format!("OAuth {}", token("sales")))], "").await;
    pair.ask("GET", &row, &[("authorization", &format!("bearer  {}", token("admin")))], "").await;
    let mut pair = pair.without("authorization").with("x-sfdc-session", &token("admin"));
    pair.get(&row).await;
    let mut pair = pair.without("x-sfdc-session");
    assert_eq!(pair.get(&row).await.code(), 401);
    pair.close(15).await;
}

#[tokio::test(start_paused = true)]
async fn writes_are_the_same() {
    let mut pair = Pair::new();
    let made = pair.post("sobjects/Account", &json!({"Name": "Ünïcode \u{1F600}", "AnnualRevenue": 5})).await;
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let row = format!("sobjects/Account/{id}");
    pair.patch(&row, &json!({"Name": "Newer"})).await;
    pair.post(&format!("{row}?_HttpMethod=PATCH"), &json!({"Name": "Tunnelled"})).await;
    pair.post(&format!("/{}?_HttpMethod=PATCH", crate::client::absolute(&row)), &json!({"Name": "Slashes"})).await;
    let tag = pair.get(&row).await.header("etag").to_owned();
    let json_type = ("content-type", "application/json");
    assert_eq!(pair.ask("PATCH", &row, &[json_type, ("if-match", "\"other\"")], "{}").await.code(), 412);
    assert_eq!(pair.ask("PATCH", &row, &[json_type, ("if-match", &tag)], "{\"Phone\":\"1\"}").await.code(), 204);
    for name in ["One", "Two"] {
        pair.patch("sobjects/Account/Ext_Id__c/a%2Fb", &json!({"Name": name})).await;
    }
    pair.post("sobjects/Account", &json!({"Name": "Twin", "Ext_Id__c": "a/b"})).await;
    assert_eq!(pair.patch("sobjects/Account/Ext_Id__c/a%2Fb", &json!({"Name": "x"})).await.code(), 300);
    for body in ["", "{", "{}", "[]", "null", "{\"Name\":\"x\",\"Nope\":1}", "\u{feff}{}"] {
        pair.ask("POST", "sobjects/Account", &[json_type], body).await;
    }
    pair.ask("POST", "sobjects/Account", &[], Bytes::from_static(b"\xff\xfe\x00")).await;
    let coded = gzip(b"{\"Name\": \"Compressed\"}");
    assert_eq!(
        pair.ask("POST", "sobjects/Account", &[json_type, ("content-encoding", "gzip")], coded).await.code(),
        201
    );
    pair.post("sobjects/Account", &json!({"Name": "x".repeat(90_000)})).await;
    pair.post("/services/apexrest/echo", &json!({"text": "x".repeat(900_000)})).await;
    pair.ask("DELETE", &row, &[], "").await;
    assert_eq!(pair.get(&row).await.error(), "ENTITY_IS_DELETED");
    pair.ask("DELETE", &row, &[], "").await;
    pair.close(25).await;
}

#[tokio::test(start_paused = true)]
async fn many_in_one_are_the_same() {
    let mut pair = Pair::new();
    let sub = |method: &str, path: &str, name: &str| json!({"method": method, "url": format!("/services/data/v62.0/{path}"), "referenceId": name});
    let mut create = sub("POST", "sobjects/Account", "a");
    create["body"] = json!({"Name": "Parent"});
    let subs = [create, sub("GET", "sobjects/Account/@{a.id}", "b"), sub("GET", "sobjects/Nope/1", "c")];
    pair.post("composite", &json!({"compositeRequest": subs})).await;
    pair.post("composite", &json!({"allOrNone": true, "compositeRequest": subs})).await;
    let many: Vec<_> = (0..26).map(|n| sub("GET", "limits", &format!("r{n}"))).collect();
    pair.post("composite", &json!({"compositeRequest": many})).await;
    let batch = json!([
        {"method": "GET", "url": "v62.0/sobjects/Account"},
        {"method": "GET", "url": "v62.0/sobjects/Nope"},
        {"method": "POST", "url": "v62.0/sobjects/Account", "richInput": {"Name": "Batched"}},
    ]);
    pair.post("composite/batch", &json!({"batchRequests": batch})).await;
    pair.post("composite/batch", &json!({"batchRequests": batch, "haltOnError": true})).await;
    let graph = json!({"graphs": [{"graphId": "g", "compositeRequest": [{"method": "POST",
        "url": "/services/data/v62.0/sobjects/Account", "referenceId": "a", "body": {"Name": "G"}}]}]});
    pair.post("composite/graph", &graph).await;
    let tree = json!({"records": [{"attributes": {"type": "Account", "referenceId": "a"}, "Name": "Tree"}]});
    pair.post("composite/tree/Account", &tree).await;
    let record = |name: Value| json!({"attributes": {"type": "Account"}, "Name": name});
    let made = pair.post("composite/sobjects", &json!({"records": [record(json!("a")), record(Value::Null)]})).await;
    let id = made.json()[0]["id"].as_str().unwrap().to_owned();
    pair.get(&format!("composite/sobjects/Account?ids={id},001Wk0000000ZZZ&fields=Name")).await;
    pair.post("composite/sobjects/Account", &json!({"ids": [id], "fields": ["Name"]})).await;
    pair.patch("composite/sobjects", &json!({"records": [{"attributes": {"type": "Account"}, "id": id, "Name": "A"}]}))
        .await;
    pair.ask("DELETE", &format!("composite/sobjects?ids={id}"), &[], "").await;
    let query =
        "query { uiapi { query { Account(first: 2) { edges { node { Id } } } Nope { edges { node { Id } } } } } }";
    pair.post("graphql", &json!({"query": query})).await;
    let bodies = [
        ("composite", json!({"compositeRequest": subs})),
        ("composite/batch", json!({"batchRequests": batch})),
        ("composite/graph", graph),
        ("composite/sobjects", json!({"records": [record(json!("c"))]})),
        ("graphql", json!({"query": query})),
    ];
    for (path, body) in bodies {
        pair.ask("POST", path, &[("content-type", "application/json")], "{").await;
        let coded = [("content-type", "application/json"), ("content-encoding", "gzip")];
        assert_eq!(pair.ask("POST", path, &coded, gzip(body.to_string().as_bytes())).await.code(), 200);
    }
    pair.close(23).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_passes_and_is_counted_at_the_most_it_can_be() {
    let mut pair = Pair::new();
    // Salesforce may read what the gateway cannot: 25 subrequests, 10 subqueries. The simulator charges one for each.
    assert_eq!(pair.post("composite/batch", &json!({"records": []})).await.code(), 200);
    assert_eq!(pair.post("graphql", &json!({"query": "{ uiapi {"})).await.code(), 200);
    pair.through.counts_more(24 + 9);
    pair.close(2).await;
}

#[tokio::test(start_paused = true)]
async fn pages_and_blobs_are_the_same() {
    let mut pair = Pair::new().with("sforce-query-options", "batchSize=200");
    for _ in 0..2 {
        let records: Vec<_> =
            (0..200).map(|n| json!({"attributes": {"type": "Contact"}, "LastName": format!("Paged {n}")})).collect();
        pair.post("composite/sobjects", &json!({"records": records})).await;
    }
    let mut page = pair.query("SELECT Id, LastName FROM Contact ORDER BY Id").await.json();
    let mut pages = 1;
    while let Some(next) = page["nextRecordsUrl"].as_str().map(str::to_owned) {
        page = pair.get(&next).await.json();
        pages += 1;
    }
    assert_eq!(pages, 3);
    pair.get("query/01gWk0000000000-2000").await;
    for size in [1 << 10, 1 << 20] {
        let found = pair.query(&format!("SELECT Id FROM ContentVersion WHERE ContentSize = {size}")).await.json();
        let id = found["records"][0]["Id"].as_str().unwrap().to_owned();
        let blob = pair.get(&format!("sobjects/ContentVersion/{id}/VersionData")).await;
        assert_eq!(blob.body().len(), size);
    }
    pair.close(9).await;
}

#[tokio::test(start_paused = true)]
async fn jobs_logins_and_soap_are_the_same() {
    let mut pair = Pair::new();
    let job = pair.post("jobs/ingest", &json!({"object": "Contact", "operation": "insert", "lineEnding": "LF"})).await;
    let job = format!("jobs/ingest/{}", job.json()["id"].as_str().unwrap());
    let csv = [("content-type", "text/csv")];
    pair.ask("PUT", &format!("{job}/batches"), &csv, "LastName\nOne\nTwo\n").await;
    pair.patch(&job, &json!({"state": "UploadComplete"})).await;
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    for part in ["", "/successfulResults", "/failedResults", "/unprocessedrecords", "/nonsense"] {
        pair.get(&format!("{job}{part}")).await;
    }
    let session = token("admin");
    let bulk1 = [("x-sfdc-session", session.as_str()), ("content-type", "application/xml")];
    let create = "<jobInfo xmlns=\"http://www.force.com/2009/06/asyncapi/dataload\"><operation>insert</operation>\
                  <object>Lead</object><contentType>CSV</contentType></jobInfo>";
    pair.ask("POST", "/services/async/60.0/job", &bulk1, create).await;
    pair.ask("GET", "/services/async/60.0/job/750", &bulk1, "").await;

    let mut pair = pair.without("authorization");
    let app = "client_id=3MVGsim.app&client_secret=sim-app-secret";
    let form = [("content-type", "application/x-www-form-urlencoded")];
    for flow in ["grant_type=client_credentials", "grant_type=nonsense", "grant_type=password&username=x&password=y"] {
        pair.ask("POST", "/services/oauth2/token", &form, format!("{flow}&{app}")).await;
    }
    pair.ask("POST", "/services/oauth2/introspect", &form, format!("token={}&{app}", encoded(&session))).await;
    for (session, body) in [
        (session.as_str(), "<urn:getUserInfo/>"),
        (session.as_str(), "<urn:query><urn:queryString>SELECT Id FROM Account LIMIT 2</urn:queryString></urn:query>"),
        (session.as_str(), "<urn:create><urn:sObjects><type>Account</type><Name>A</Name></urn:sObjects></urn:create>"),
        (session.as_str(), "<urn:query><urn:queryString>SELECT</urn:queryString></urn:query>"),
        ("wrong", "<urn:getUserInfo/>"),
    ] {
        pair.soap(session, body).await;
    }
    let login =
        "<urn:login><urn:username>admin@sim.example</urn:username><urn:password>secret</urn:password></urn:login>";
    pair.soap("", login).await;
    pair.ask("POST", "/services/Soap/u/62.0", &[("content-type", "text/xml")], "not xml").await;
    for target in ["sobjects", "/services/async/60.0/job/750", "/services/oauth2/userinfo", "composite"] {
        pair.get(target).await;
    }
    let hello = json!([{"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["long-polling"]}]);
    pair.post("/cometd/62.0", &hello).await;
    pair.close(24).await;
}

#[tokio::test(start_paused = true)]
async fn failures_of_salesforce_are_the_same() {
    let mut pair = Pair::new();
    let error = |status, code: &str| FaultAction::Error { status, code: code.into(), message: "because".into() };
    for action in [
        FaultAction::Unavailable { html: false, retry_after_seconds: Some(7) },
        FaultAction::Unavailable { html: true, retry_after_seconds: None },
        FaultAction::LockRow { wrapped: false },
        FaultAction::LockRow { wrapped: true },
        FaultAction::ApplyThenStatus { status: 502 },
        error(400, "QUERY_TIMEOUT"),
        error(403, "REQUEST_LIMIT_EXCEEDED"),
        error(429, "TOO_MANY"),
        error(500, "UNKNOWN_EXCEPTION"),
        FaultAction::Answer {
            status: 420,
            body: "<html>".into(),
            content_type: "text/html".into(),
            headers: vec![("location".into(), "https://elsewhere/".into()), ("x-odd".into(), "1".into())],
        },
        FaultAction::Trickle { piece_bytes: 3, pause_ms: 100 },
    ] {
        pair.fault(&Fault { times: Some(2), action, ..Fault::default() });
        pair.get("sobjects/Account").await;
        pair.post("sobjects/Account", &json!({"Name": "Faulty"})).await;
    }
    for world in [&pair.through, &pair.bare] {
        world.sim.script().make_read_only();
    }
    pair.post("sobjects/Account", &json!({"Name": "Read-only"})).await;
    for world in [&pair.through, &pair.bare] {
        world.sim.script().end_maintenance();
        world.sim.script().set_daily_limit(1);
    }
    assert_eq!(pair.get("sobjects/Account").await.error(), "REQUEST_LIMIT_EXCEEDED");
    pair.get("/services/async/60.0/job/750").await;
    let session = token("admin");
    pair.without("authorization").limits_in_soap(&session).await;
}

impl Pair {
    async fn limits_in_soap(mut self, session: &str) {
        self.soap(session, "<urn:getUserInfo/>").await;
        self.close(26).await;
    }
}
