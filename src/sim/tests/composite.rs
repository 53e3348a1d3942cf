//! Composite, batch and collections.

use serde_json::{Value, json};

use super::{Caller, config};

const BASE: &str = "/services/data/v62.0";

fn sub(method: &str, path: &str, reference: &str, body: Value) -> Value {
    let mut sub = json!({"method": method, "url": format!("{BASE}/{path}"), "referenceId": reference});
    if !body.is_null() {
        sub["body"] = body;
    }
    sub
}

#[tokio::test(start_paused = true)]
async fn subrequests_refer_to_each_other() {
    let mut caller = Caller::admin(config()).await;
    let subs = vec![
        sub("POST", "sobjects/Account", "acc", json!({"Name": "Parent"})),
        sub("POST", "sobjects/Contact", "con", json!({"LastName": "Child", "AccountId": "@{acc.id}"})),
        sub("GET", "sobjects/Contact/@{con.id}?fields=AccountId", "read", Value::Null),
        sub("PATCH", "sobjects/Account/@{acc.id}", "upd", json!({"Phone": "1"})),
        sub("GET", "query?q=SELECT+Id+FROM+Contact+WHERE+AccountId='@{acc.id}'", "q", Value::Null),
        sub("GET", "sobjects/Contact/@{q.records[0].Id}", "again", Value::Null),
        sub("GET", "sobjects/Contact/@{none.id}", "broken", Value::Null),
    ];
    let reply = caller.post("composite", &json!({"compositeRequest": subs})).await;
    assert_eq!((reply.status, reply.header("content-length")), (200, ""));
    let results = reply.json()["compositeResponse"].as_array().unwrap().clone();
    let statuses: Vec<_> = results.iter().map(|result| result["httpStatusCode"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [201, 201, 200, 204, 200, 200, 400]);
    assert!(results[0]["httpHeaders"]["Location"].as_str().unwrap().contains("/sobjects/Account/001"));
    assert_eq!(results[2]["body"]["AccountId"], results[0]["body"]["id"]);
    assert_eq!(results[3]["body"], Value::Null);
    assert_eq!(results[6]["body"][0]["errorCode"], "PROCESSING_HALTED");
}

#[tokio::test(start_paused = true)]
async fn all_or_none_takes_everything_back() {
    let mut caller = Caller::admin(config()).await;
    let subs = vec![
        sub("POST", "sobjects/Account", "one", json!({"Name": "Only together"})),
        sub("POST", "sobjects/Account", "two", json!({"Nope": 1})),
        sub("POST", "sobjects/Account", "three", json!({"Name": "Never"})),
    ];
    let body = json!({"allOrNone": true, "compositeRequest": subs});
    let results = caller.post("composite", &body).await.json()["compositeResponse"].as_array().unwrap().clone();
    let codes: Vec<_> = results.iter().map(|result| result["body"][0]["errorCode"].as_str().unwrap()).collect();
    assert_eq!(codes, ["PROCESSING_HALTED", "INVALID_FIELD", "PROCESSING_HALTED"]);
    let found = caller.query("SELECT COUNT() FROM Account WHERE Name = 'Only together'").await;
    assert_eq!(found.json()["totalSize"], 0);
    assert!(caller.sim.counts().writes.is_empty());
}

#[tokio::test(start_paused = true)]
async fn too_many_subrequests_are_refused_inside_a_200() {
    let mut caller = Caller::admin(config()).await;
    let many: Vec<_> = (0..26).map(|n| sub("GET", "sobjects/Account", &format!("r{n}"), Value::Null)).collect();
    let reply = caller.post("composite", &json!({"compositeRequest": many})).await;
    assert_eq!(reply.status, 200);
    let result = reply.json()["compositeResponse"][0].clone();
    assert_eq!(result["body"][0]["errorCode"], "LIMIT_EXCEEDED");
    assert_eq!(result["body"][0]["message"], "The request can’t contain more than 25 operations.");
    assert_eq!((result["httpStatusCode"].clone(), result["referenceId"].clone()), (json!(400), Value::Null));
    let heavy: Vec<_> =
        (0..6).map(|n| sub("GET", "query?q=SELECT+Id+FROM+Lead", &format!("r{n}"), Value::Null)).collect();
    let reply = caller.post("composite", &json!({"compositeRequest": heavy})).await;
    assert_eq!(reply.json()["compositeResponse"][0]["httpStatusCode"], 400);
    let mut bad = sub("GET", "sobjects/Account", "r", Value::Null);
    bad["httpHeaders"] = json!({"Authorization": "x"});
    assert_eq!(caller.post("composite", &json!({"compositeRequest": [bad]})).await.status, 400);
}

#[tokio::test(start_paused = true)]
async fn a_batch_halts_when_told() {
    let mut caller = Caller::admin(config()).await;
    let requests = json!([
        {"method": "GET", "url": "v62.0/sobjects/Account"},
        {"method": "GET", "url": "v62.0/sobjects/Nope"},
        {"method": "POST", "url": "v62.0/sobjects/Account", "richInput": {"Name": "Batched"}},
    ]);
    let halted = caller.post("composite/batch", &json!({"haltOnError": true, "batchRequests": requests})).await.json();
    let statuses: Vec<_> = halted["results"].as_array().unwrap().iter().map(|r| r["statusCode"].clone()).collect();
    assert_eq!((statuses, halted["hasErrors"].clone()), (vec![json!(200), json!(404), json!(412)], json!(true)));
    let went_on = caller.post("composite/batch", &json!({"batchRequests": requests})).await.json();
    assert_eq!(went_on["results"][2]["statusCode"], 201);
}

#[tokio::test(start_paused = true)]
async fn collections_keep_the_order_and_fail_item_by_item() {
    let mut caller = Caller::admin(config()).await;
    let record = |name: Value| json!({"attributes": {"type": "Account"}, "Name": name});
    let body = json!({"records": [record(json!("a")), record(Value::Null), record(json!("c"))]});
    let results = caller.post("composite/sobjects", &body).await.json();
    assert_eq!((results[0]["success"].clone(), results[1]["success"].clone()), (json!(true), json!(false)));
    assert_eq!(results[1]["errors"][0]["statusCode"], "REQUIRED_FIELD_MISSING");
    let ids = [results[0]["id"].as_str().unwrap(), "001Wk0000000ZZZ", results[2]["id"].as_str().unwrap()];
    let read = caller.get(&format!("composite/sobjects/Account?ids={}&fields=Name", ids.join(","))).await.json();
    assert_eq!(
        (read[0]["Name"].clone(), read[1].clone(), read[2]["Name"].clone()),
        (json!("a"), Value::Null, json!("c"))
    );
    let same = caller.post("composite/sobjects/Account", &json!({"ids": ids, "fields": ["Name"]})).await.json();
    assert_eq!(read, same);
    let update = json!({"allOrNone": true, "records": [
        {"attributes": {"type": "Account"}, "id": ids[0], "Name": "A"},
        {"attributes": {"type": "Account"}, "id": ids[2], "Nope": "C"},
    ]});
    let rolled = caller.patch("composite/sobjects", &update).await.json();
    assert_eq!(rolled[0]["errors"][0]["statusCode"], "ALL_OR_NONE_OPERATION_ROLLED_BACK");
    assert_eq!(rolled[1]["errors"][0]["statusCode"], "INVALID_FIELD");
    assert_eq!(caller.get(&format!("sobjects/Account/{}", ids[0])).await.json()["Name"], "a");
    let upsert = json!({"records": [
        {"attributes": {"type": "Invoice__c"}, "Ext_Id__c": "Invoice-00001", "Amount__c": 7},
        {"attributes": {"type": "Invoice__c"}, "Ext_Id__c": "brand-new", "Account__r": {"Ext_Id__c": "Account-00002"}},
    ]});
    let upserted = caller.patch("composite/sobjects/Invoice__c/Ext_Id__c", &upsert).await.json();
    assert_eq!((upserted[0]["created"].clone(), upserted[1]["created"].clone()), (json!(false), json!(true)));
    let gone = caller.delete(&format!("composite/sobjects?ids={},{}&allOrNone=true", ids[0], ids[2])).await.json();
    assert_eq!(gone[1], json!({"id": ids[2], "success": true, "errors": []}));
    let many = vec![record(json!("x")); 201];
    assert_eq!(caller.post("composite/sobjects", &json!({"records": many})).await.code(), "EXCEEDED_ID_LIMIT");
    assert_eq!(caller.get("composite/sobjects/Account?ids=x&fields=Nope").await.status, 400);
}
