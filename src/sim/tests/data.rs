//! Rows, describes, queries, visibility.

use serde_json::json;

use super::{Caller, config, spawn, token};
use crate::sim::{Fault, Sim, SimConfig};

#[tokio::test(start_paused = true)]
async fn versions_are_free_and_need_no_session() {
    let sim = Sim::new(config());
    let mut caller = Caller::of(&sim, "").await;
    let reply = caller.get("/services/data/").await;
    assert_eq!(reply.status, 200);
    let list = reply.json();
    assert_eq!(list[0], json!({"label": "Summer '14", "url": "/services/data/v31.0", "version": "31.0"}));
    assert_eq!(list.as_array().unwrap().last().unwrap()["version"], "67.0");
    assert_eq!(list.as_array().unwrap().last().unwrap()["label"], "Summer '26");
    assert!(!reply.headers.contains_key("sforce-limit-info"));
    assert_eq!(sim.counts().charged, 0);
    assert_eq!(caller.get("limits").await.status, 401);
}

#[tokio::test(start_paused = true)]
async fn answers_have_the_headers_of_real_ones() {
    let mut caller = Caller::admin(config()).await.with("accept-encoding", "gzip, deflate");
    let reply = caller.get("sobjects/Account").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("cache-control"), "no-cache,must-revalidate,max-age=0,no-store,private");
    assert!(reply.header("set-cookie").starts_with("BrowserId="));
    assert_eq!(reply.header("content-encoding"), "gzip");
    assert_eq!(reply.header("vary"), "Accept-Encoding");
    assert_eq!(reply.header("transfer-encoding"), "chunked");
    assert_eq!(reply.header("content-type"), "application/json;charset=UTF-8");
    assert_eq!(reply.header("sforce-limit-info"), "api-usage=1/100000");
    let missing = caller.get("nonsense").await;
    assert_eq!((missing.status, missing.code().as_str()), (404, "NOT_FOUND"));
}

#[tokio::test(start_paused = true)]
async fn a_row_lives_from_creation_to_the_recycle_bin() {
    let mut caller = Caller::admin(config()).await;
    let made = caller.post("sobjects/Account", &json!({"Name": "New", "AnnualRevenue": 5})).await;
    assert_eq!(made.status, 201);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(made.json(), json!({"id": id, "success": true, "errors": []}));
    assert_eq!(made.header("location"), format!("/services/data/v62.0/sobjects/Account/{id}"));
    let short = &id[..15];
    let row = caller.get(&format!("sobjects/account/{short}")).await;
    assert_eq!(row.json()["Id"], json!(id));
    assert_eq!(row.json()["AnnualRevenue"], json!(5.0));
    let tunnelled = caller
        .post(&format!("//services/data/v62.0/sobjects/Account/{id}?_HttpMethod=PATCH"), &json!({"Name": "Newer"}))
        .await;
    assert_eq!((tunnelled.status, tunnelled.body.len()), (204, 0));
    let part = caller.get(&format!("sobjects/Account/{id}?fields=Name,Industry")).await.json();
    assert_eq!(part["Name"], "Newer");
    assert!(part.get("Phone").is_none());
    assert_eq!(caller.delete(&format!("sobjects/Account/{id}")).await.status, 204);
    let gone = caller.get(&format!("sobjects/Account/{id}")).await;
    assert_eq!((gone.status, gone.code().as_str()), (404, "ENTITY_IS_DELETED"));
    assert_eq!(caller.query(&format!("SELECT Id FROM Account WHERE Id='{id}'")).await.json()["totalSize"], 0);
    let all = caller.get(&format!("queryAll?q=SELECT+Id+FROM+Account+WHERE+Id='{id}'")).await;
    assert_eq!(all.json()["totalSize"], 1);
    let writes = caller.sim.counts().writes["Account"];
    assert_eq!((writes.created, writes.updated, writes.deleted), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_is_refused_with_its_code() {
    let mut caller = Caller::admin(config()).await;
    let cases = [
        (json!({}), "REQUIRED_FIELD_MISSING"),
        (json!({"Name": "x", "Nope": 1}), "INVALID_FIELD"),
        (json!({"Name": "x", "Id": "001"}), "INVALID_FIELD_FOR_INSERT_UPDATE"),
        (json!({"Name": "x".repeat(256)}), "STRING_TOO_LONG"),
        (json!({"Name": "x", "ParentId": "003Wk0000000001AAA"}), "MALFORMED_ID"),
        (json!({"Name": "x", "AnnualRevenue": "much"}), "JSON_PARSER_ERROR"),
    ];
    for (body, code) in cases {
        let reply = caller.post("sobjects/Account", &body).await;
        assert_eq!((reply.status, reply.code()), (400, code.to_owned()), "{body}");
    }
    let reply = caller.send("POST", "sobjects/Account", "{").await.unwrap();
    assert_eq!(reply.code(), "JSON_PARSER_ERROR");
    let twice = json!({"Ext_Id__c": "Invoice-00001"});
    assert_eq!(caller.post("sobjects/Invoice__c", &twice).await.code(), "DUPLICATE_VALUE");
    assert!(caller.sim.counts().writes.is_empty());
}

#[tokio::test(start_paused = true)]
async fn upserts_create_update_and_name_what_is_ambiguous() {
    let mut caller = Caller::admin(config()).await;
    let path = "sobjects/Account/Ext_Id__c/a%2Fb";
    let first = caller.patch(path, &json!({"Name": "One"})).await;
    assert_eq!((first.status, first.json()["created"].clone()), (201, json!(true)));
    let second = caller.patch(path, &json!({"Name": "Two"})).await;
    assert_eq!((second.status, second.json()["created"].clone()), (200, json!(false)));
    let old = caller.patch(&path.replace("sobjects", "/services/data/v45.0/sobjects"), &json!({"Name": "3"})).await;
    assert_eq!(old.status, 204);
    assert_eq!(caller.get(path).await.json()["Name"], "3");
    caller.post("sobjects/Account", &json!({"Name": "Twin", "Ext_Id__c": "a/b"})).await;
    let several = caller.patch(path, &json!({"Name": "Four"})).await;
    assert_eq!(several.status, 300);
    let urls = several.json();
    assert!(urls[1].as_str().unwrap().starts_with("/services/data/v62.0/sobjects/Account/001"));
    let unknown = caller.patch("sobjects/Account/Nope__c/1", &json!({"Name": "x"})).await;
    assert_eq!((unknown.status, unknown.code().as_str()), (404, "NOT_FOUND"));
    let only = caller.patch("sobjects/Invoice__c/Ext_Id__c/none?updateOnly=true", &json!({"Amount__c": 1})).await;
    assert_eq!(only.status, 404);
}

#[tokio::test(start_paused = true)]
async fn tags_are_for_accounts_only_and_know_their_coding() {
    let sim = Sim::new(config());
    let mut caller = Caller::of(&sim, "admin").await.with("accept-encoding", "gzip");
    let id = caller.account().await;
    let path = format!("sobjects/Account/{id}");
    let tag = caller.get(&path).await.header("etag").to_owned();
    assert!(tag.ends_with("--gzip\""), "{tag}");
    let mut fresh = Caller::of(&sim, "admin").await.with("if-none-match", &tag);
    assert_eq!(fresh.get(&path).await.status, 304);
    let mut wrong = Caller::of(&sim, "admin").await.with("if-match", "\"other\"");
    assert_eq!(wrong.patch(&path, &json!({"Name": "x"})).await.status, 412);
    let mut right = Caller::of(&sim, "admin").await.with("if-match", &tag);
    assert_eq!(right.patch(&path, &json!({"Name": "x"})).await.status, 204);
    assert_eq!(right.patch(&path, &json!({"Name": "y"})).await.status, 412);
    let contact = caller.query("SELECT Id FROM Contact LIMIT 1").await.json()["records"][0]["Id"].clone();
    assert_eq!(caller.get(&format!("sobjects/Contact/{}", contact.as_str().unwrap())).await.header("etag"), "");
}

#[tokio::test(start_paused = true)]
async fn describes_are_unmodified_until_the_metadata_changes() {
    let sim = Sim::new(config());
    let mut caller = Caller::of(&sim, "admin").await;
    let reply = caller.get("sobjects/Contact/describe").await;
    let described = reply.json();
    assert_eq!(described["keyPrefix"], "003");
    let fields = described["fields"].as_array().unwrap();
    let account = fields.iter().find(|field| field["name"] == "AccountId").unwrap();
    assert_eq!(
        (account["relationshipName"].clone(), account["referenceTo"][0].clone()),
        (json!("Account"), json!("Account"))
    );
    let stamp = reply.header("last-modified").to_owned();
    let mut again = Caller::of(&sim, "admin").await.with("if-modified-since", &stamp);
    let unchanged = again.get("sobjects/Contact/describe/").await;
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
    sim.script().touch_metadata("Contact");
    assert_eq!(again.get("sobjects/Contact/describe").await.status, 200);
    let parent = caller.get("sobjects/Account/describe").await.json();
    let ways = parent["childRelationships"].as_array().unwrap().clone();
    assert!(ways.iter().any(|way| way["relationshipName"] == "Invoices__r" && way["childSObject"] == "Invoice__c"));
}

#[tokio::test(start_paused = true)]
async fn two_users_see_different_orgs() {
    let sim = Sim::new(config());
    let mut admin = Caller::of(&sim, "admin").await;
    let mut sales = Caller::of(&sim, "sales").await;
    let all = admin.query("SELECT COUNT() FROM Account").await.json()["totalSize"].as_u64().unwrap();
    let own = sales.query("SELECT COUNT() FROM Account").await.json()["totalSize"].as_u64().unwrap();
    assert!(own > 0 && own < all, "{own} of {all}");
    let id = sales.account().await;
    assert!(admin.get(&format!("sobjects/Account/{id}")).await.json().get("AnnualRevenue").is_some());
    assert!(sales.get(&format!("sobjects/Account/{id}")).await.json().get("AnnualRevenue").is_none());
    let named = sales.get(&format!("sobjects/Account/{id}?fields=AnnualRevenue")).await;
    assert_eq!((named.status, named.code().as_str()), (400, "INVALID_FIELD"));
    assert_eq!(sales.query("SELECT AnnualRevenue FROM Account").await.code(), "INVALID_FIELD");
    assert_eq!(sales.query("SELECT Id FROM Account WHERE AnnualRevenue > 5").await.code(), "INVALID_FIELD");
    assert_eq!(sales.query("SELECT Id FROM Invoice__c").await.code(), "INVALID_TYPE");
    assert_eq!(sales.get("sobjects/Invoice__c/describe").await.status, 404);
    let global = sales.get("sobjects").await.json();
    assert!(!global["sobjects"].as_array().unwrap().iter().any(|object| object["name"] == "Invoice__c"));
    let foreign = admin.query("SELECT Id FROM Account WHERE Owner.Username = 'admin@sim.example' LIMIT 1").await.json();
    let foreign = foreign["records"][0]["Id"].as_str().unwrap().to_owned();
    assert_eq!(sales.get(&format!("sobjects/Account/{foreign}")).await.code(), "NOT_FOUND");
    assert_eq!(sales.patch(&format!("sobjects/Account/{foreign}"), &json!({"Name": "x"})).await.status, 404);
    let refused = sales.post("sobjects/Product2", &json!({"Name": "x"})).await;
    assert_eq!(refused.code(), "INSUFFICIENT_ACCESS_OR_READONLY");
    assert!(sim.script().hide_field("sales@sim.example", "Account.AnnualRevenue", false));
    assert_eq!(sales.get(&format!("sobjects/Account/{id}?fields=AnnualRevenue")).await.status, 200);
    let mut guest = Caller::of(&sim, "guest").await;
    assert_eq!(guest.get("limits").await.code(), "API_CURRENTLY_DISABLED");
    assert_eq!(sales.get("limits").await.status, 403);
}

#[tokio::test(start_paused = true)]
async fn pages_follow_locators_of_their_user() {
    let sim = Sim::new(SimConfig { records: 450, ..config() });
    let mut caller = Caller::of(&sim, "admin").await.with("sforce-query-options", "batchSize=200");
    let first = caller.query("SELECT Id FROM Account ORDER BY Id").await.json();
    assert_eq!((first["totalSize"].clone(), first["done"].clone()), (json!(450), json!(false)));
    let next = first["nextRecordsUrl"].as_str().unwrap().to_owned();
    assert!(next.starts_with("/services/data/v62.0/query/01g"), "{next}");
    let second = caller.get(&next).await.json();
    let third = caller.get(second["nextRecordsUrl"].as_str().unwrap()).await.json();
    assert_eq!((third["done"].clone(), third["records"].as_array().unwrap().len()), (json!(true), 50));
    let mut other = Caller::of(&sim, "integration").await;
    assert_eq!(other.get(&next).await.code(), "INVALID_QUERY_LOCATOR");
    sim.script().advance(std::time::Duration::from_hours(48));
    assert_eq!(caller.get(&next).await.code(), "INVALID_QUERY_LOCATOR");
    // Nested results have pages of their own.
    let parent = caller.account().await;
    for _ in 0..2 {
        let records: Vec<_> = (0..200)
            .map(|n| json!({"attributes": {"type": "Contact"}, "LastName": format!("Child {n}"), "AccountId": parent}))
            .collect();
        assert_eq!(caller.post("composite/sobjects", &json!({"records": records})).await.status, 200);
    }
    let nested =
        caller.query(&format!("SELECT Id, (SELECT Id FROM Contacts) FROM Account WHERE Id = '{parent}'")).await;
    let children = nested.json()["records"][0]["Contacts"].clone();
    assert_eq!(children["done"], false);
    let rest = caller.get(children["nextRecordsUrl"].as_str().unwrap()).await.json();
    assert!(rest["records"].as_array().unwrap().len() >= 200);
}

#[tokio::test(start_paused = true)]
async fn pages_may_be_shorter_than_asked_for() {
    let mut caller = Caller::admin(SimConfig { records: 210, short_pages: true, ..config() })
        .await
        .with("sforce-query-options", "batchSize=200");
    let first = caller.query("SELECT Id FROM Account").await.json();
    assert_eq!((first["records"].as_array().unwrap().len(), first["totalSize"].clone()), (150, json!(210)));
    let second = caller.get(first["nextRecordsUrl"].as_str().unwrap()).await.json();
    assert_eq!((second["records"].as_array().unwrap().len(), second["done"].clone()), (60, json!(true)));
}

#[tokio::test(start_paused = true)]
async fn a_statement_can_be_asked_for_its_columns_and_its_plan() {
    let mut caller = Caller::admin(config()).await;
    let shown = caller.get("query?q=SELECT+Id,Owner.Username+FROM+Account&columns=true").await.json();
    assert_eq!(shown["columnMetadata"][1]["columnName"], "Username");
    assert_eq!((shown["entityName"].clone(), shown["idSelected"].clone()), (json!("Account"), json!(true)));
    let plan = caller.get("query?explain=SELECT+Id+FROM+Account").await.json();
    assert_eq!(plan["plans"][0]["sobjectType"], "Account");
}

#[tokio::test(start_paused = true)]
async fn xml_is_spoken_on_request() {
    let mut caller = Caller::admin(config()).await.with("accept", "application/xml");
    let reply = caller.get("sobjects/Account/001Wk0000000000AAA").await;
    assert_eq!(reply.header("content-type"), "application/xml;charset=UTF-8");
    assert!(String::from_utf8_lossy(&reply.body).contains("<Errors><Error><message>"));
}

#[tokio::test(start_paused = true)]
async fn retired_and_deprecated_versions_say_so() {
    let mut caller = Caller::admin(config()).await;
    assert_eq!(caller.get("/services/data/v26.0/limits").await.status, 410);
    assert!(caller.get("/services/data/v35.0/sobjects").await.header("warning").starts_with("299"));
    assert_eq!(caller.get("/services/data/v90.0/sobjects").await.status, 404);
    let resources = caller.get("/services/data/v62.0/").await.json();
    let identity = resources["identity"].as_str().unwrap();
    assert!(identity.starts_with("https://sim.my.salesforce.com/id/00D"), "{identity}");
}

#[tokio::test(start_paused = true)]
async fn changes_are_listed_by_time() {
    let mut caller = Caller::admin(config()).await;
    let id = caller.account().await;
    caller.delete(&format!("sobjects/Account/{id}")).await;
    caller.sim.script().advance(std::time::Duration::from_mins(2));
    let start = "2026-11-22T00:00:00%2B00:00";
    let end = "2026-11-22T23:00:00Z";
    let gone = caller.get(&format!("sobjects/Account/deleted/?start={start}&end={end}")).await.json();
    assert_eq!(gone["deletedRecords"][0]["id"], json!(id));
    let changed = caller.get(&format!("sobjects/Account/updated/?start={start}&end={end}")).await.json();
    assert!(changed["ids"].is_array());
    assert_eq!(caller.get("sobjects/Account/updated/?start=x&end=y").await.status, 400);
}

#[tokio::test(start_paused = true)]
async fn sessions_end_when_idle_and_by_revocation() {
    let sim = Sim::new(config());
    let script = sim.script();
    let minutes = std::time::Duration::from_mins;
    for name in ["early", "late"] {
        assert!(script.grant(&token(name), "sales@sim.example", Some(minutes(30))));
    }
    let (mut early, mut late) = (Caller::of(&sim, "early").await, Caller::of(&sim, "late").await);
    let ask = "SELECT Id FROM Lead LIMIT 1";
    // Activity after ten of thirty minutes does not prolong a session, after twenty it does (facts 5.3).
    script.advance(minutes(10));
    assert_eq!(early.query(ask).await.status, 200);
    script.advance(minutes(10));
    assert_eq!(late.query(ask).await.status, 200);
    script.advance(minutes(11));
    let ended = early.query(ask).await;
    assert_eq!((ended.status, ended.code().as_str()), (401, "INVALID_SESSION_ID"));
    assert_eq!(late.query(ask).await.status, 200);
    script.revoke(&token("late"));
    assert_eq!(late.query(ask).await.status, 401);
}

#[tokio::test(start_paused = true)]
async fn a_session_may_be_revoked_in_the_middle_of_a_call() {
    let sim = Sim::new(config());
    sim.script().fault(Fault { times: Some(1), latency_ms: 10_000, ..Fault::default() });
    let mut caller = Caller::of(&sim, "sales").await;
    let slow = spawn(async move { caller.get("sobjects").await.status });
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    sim.script().revoke(&token("sales"));
    // It had been let in; the next is not.
    let mut next = Caller::of(&sim, "sales").await;
    assert_eq!(next.get("sobjects").await.code(), "INVALID_SESSION_ID");
    assert_eq!(slow.await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn bodies_may_be_compressed_and_heads_asked_for_alone() {
    let sim = Sim::new(config());
    let mut zipped = Vec::new();
    let mut encoder = flate2::write::GzEncoder::new(&mut zipped, flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, br#"{"Name": "Zipped"}"#).unwrap();
    encoder.finish().unwrap();
    let mut caller = Caller::of(&sim, "admin").await.with("content-encoding", "gzip");
    assert_eq!(caller.send("POST", "sobjects/Account", zipped).await.unwrap().status, 201);
    assert_eq!(caller.send("POST", "sobjects/Account", "no gzip").await.unwrap().status, 400);
    let mut caller = Caller::of(&sim, "admin").await;
    let id = caller.account().await;
    let head = caller.send("HEAD", &format!("sobjects/Account/{id}"), "").await.unwrap();
    assert_eq!((head.status, head.body.len()), (200, 0));
    let stamp = head.header("last-modified").to_owned();
    let mut fresh = Caller::of(&sim, "admin").await.with("if-modified-since", &stamp);
    assert_eq!(fresh.get(&format!("sobjects/Account/{id}")).await.status, 304);
}

#[tokio::test(start_paused = true)]
async fn a_file_is_uploaded_in_parts_and_read_back_by_size() {
    let mut caller = Caller::admin(config()).await.with("content-type", "multipart/form-data; boundary=\"b0\"");
    let blob = "x".repeat(100_000);
    let body = format!(
        "--b0\r\nContent-Disposition: form-data; name=\"e\"\r\n\r\n{{\"Title\": \"T\", \"PathOnClient\": \"t\"}}\r\n--b0\r\n\
         Content-Disposition: form-data; name=\"VersionData\"; filename=\"t\"\r\n\r\n{blob}\r\n--b0--\r\n"
    );
    let made = caller.send("POST", "sobjects/ContentVersion", body).await.unwrap();
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let read = caller.get(&format!("sobjects/ContentVersion/{id}/VersionData")).await;
    assert_eq!((made.status, read.body.len()), (201, 100_000));
    assert_eq!(caller.send("POST", "sobjects/ContentVersion", "x").await.unwrap().code(), "INVALID_MULTIPART_REQUEST");
}
