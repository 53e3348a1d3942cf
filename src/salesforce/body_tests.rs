//! Bodies and what they make of a request.

use proptest::prelude::*;

use super::tests::meaning;
use super::*;
use crate::call::ApiCalls;

fn read(path: &str, body: &str) -> Result<Meaning, BodyError> {
    read_as("POST", path, body)
}

fn read_as(method: &str, path: &str, body: &str) -> Result<Meaning, BodyError> {
    let mut found = meaning(method, path);
    assert!(needs_body(&found), "{path}");
    read_body(&mut found, body.as_bytes(), &Costs { oauth: 3, ..Costs::default() }).map(|()| found)
}

/// `family operation object reach` of each part.
fn parts(found: &Meaning) -> Vec<String> {
    found
        .parts
        .iter()
        .map(|part| {
            format!("{} {} {} {}", part.family, part.operation, part.object.as_deref().unwrap_or("-"), part.reach)
        })
        .collect()
}

fn summary(found: &Meaning) -> (&str, &str, &str, u32, &str) {
    let object = found.object.as_deref().unwrap_or("-");
    (found.operation.as_str(), object, found.reach.as_str(), found.cost.0, found.idempotency.as_str())
}

const COMPOSITE: &str = "/services/data/v62.0/composite";
const BATCH: &str = "/services/data/v62.0/composite/batch";

#[test]
fn which_calls_need_their_body() {
    let data = |path: &str| format!("/services/data/v62.0{path}");
    for (method, path) in [
        ("POST", "/composite"),
        ("POST", "/composite/batch"),
        ("POST", "/composite/graph"),
        ("POST", "/composite/tree/Account"),
        ("POST", "/composite/sobjects"),
        ("PATCH", "/composite/sobjects"),
        ("PATCH", "/composite/sobjects/Account/Key__c"),
        ("POST", "/tooling/composite"),
        ("POST", "/graphql"),
        ("POST", "/jobs/ingest"),
        ("POST", "/jobs/query"),
        ("POST", "/parameterizedSearch"),
        ("POST", "/composite?_HttpMethod=GET"),
    ] {
        assert!(needs_body(&meaning(method, &data(path))), "{method} {path}");
    }
    for (method, path) in [
        ("GET", "/composite"),
        ("POST", "/composite/sobjects/Account"),
        ("DELETE", "/composite/sobjects?ids=a"),
        ("POST", "/sobjects/Account"),
        ("PATCH", "/sobjects/Account/001D000000IqhSL"),
        ("PUT", "/jobs/ingest/750/batches"),
        ("PATCH", "/jobs/ingest/750"),
        ("GET", "/query?q=x"),
    ] {
        assert!(!needs_body(&meaning(method, &data(path))), "{method} {path}");
    }
    assert!(needs_body(&meaning("POST", "/services/Soap/u/62.0")));
    assert!(needs_body(&meaning("POST", "/services/async/62.0/job")));
    assert!(!needs_body(&meaning("POST", "/services/async/62.0/job/750/batch")));
    assert!(!needs_body(&meaning("POST", "/services/apexrest/x")));
}

#[test]
fn a_composite_is_its_subrequests() {
    let found = read(
        COMPOSITE,
        r#"{"allOrNone":true,"compositeRequest":[
            {"method":"POST","url":"/services/data/v62.0/sobjects/Account","referenceId":"a","body":{"Name":"}]","url":"/x"}},
            {"method":"GET","url":"\/services\/data\/v62.0\/query?q=SELECT Id FROM Contact WHERE Id IN (SELECT X FROM Case)","referenceId":"b"},
            {"referenceId":"c","url":"/services/data/v62.0/sobjects/Account/@{a.id}","method":"patch","httpHeaders":{"method":"GET"}},
            {"method":"POST","url":"/services/data/v62.0/sobjects/Account/@{a.id}?_HttpMethod=DELETE","referenceId":"d"},
            {"method":"GET","url":"/somewhere/else","referenceId":"e"}]}"#,
    )
    .unwrap();
    assert_eq!(
        parts(&found),
        [
            "rest create Account named",
            "query query Contact named",
            "query query Case named",
            "rest update Account named",
            "rest delete Account named",
            "other unknown - unknown",
        ]
    );
    assert_eq!(summary(&found), ("mixed", "-", "unknown", 1, "unsafe"));
}

#[test]
fn a_composite_is_as_safe_as_its_worst_part() {
    let get = r#"{"method":"GET","url":"/services/data/v62.0/sobjects/Account/001D000000IqhSL","referenceId":"a"}"#;
    let patch = get.replace("GET", "PATCH");
    let read = |list: &str| read(COMPOSITE, &format!("{{\"compositeRequest\":[{list}]}}")).unwrap();
    assert_eq!(summary(&read(get)), ("read", "Account", "named", 1, "safe"));
    assert_eq!(summary(&read(&format!("{get},{patch}"))), ("mixed", "Account", "named", 1, "idempotent"));
    assert_eq!(summary(&read("")), ("mixed", "-", "nothing", 1, "safe"));
}

#[test]
fn a_batch_costs_what_is_in_it() {
    let found = read(
        BATCH,
        r#"{"batchRequests":[{"method":"PATCH","url":"v62.0/sobjects/account/001D000000IqhSL","richInput":{"Name":"x"}},
            {"method":"GET","url":"v62.0/sobjects/Account/001D000000IqhSL"},
            {"method":"GET","url":"/services/data/v62.0/limits"},{"method":"GET","url":"/v62.0/query?q=SELECT+Id+FROM+Lead"}]}"#,
    )
    .unwrap();
    assert_eq!(
        parts(&found),
        ["rest update account named", "rest read Account named", "rest limits - nothing", "query query Lead named"]
    );
    assert_eq!(summary(&found), ("mixed", "-", "named", 4, "idempotent"));
}

#[test]
fn an_empty_batch_costs_one() {
    assert_eq!(read(BATCH, r#"{"batchRequests":[]}"#).unwrap().cost, ApiCalls(1));
}

#[test]
fn a_graph_is_the_subrequests_of_all_its_graphs() {
    let found = read(
        "/services/data/v62.0/composite/graph",
        r#"{"graphs":[{"graphId":"1","compositeRequest":[{"method":"POST","url":"/services/data/v62.0/sobjects/Account","referenceId":"a","body":{}}]},
           {"graphId":"2","compositeRequest":[{"method":"PATCH","url":"/services/data/v62.0/sobjects/Lead/Key__c/1","referenceId":"a","body":{}}]}]}"#,
    )
    .unwrap();
    assert_eq!(parts(&found), ["rest create Account named", "rest upsert Lead named"]);
    assert_eq!(found.cost, ApiCalls(1));
}

#[test]
fn containers_inside_containers_hide_nothing() {
    let inner = r#"{"batchRequests":[{"method":"DELETE","url":"v62.0/sobjects/Secret__c/a0RE000000IJmcN"},{"method":"GET","url":"v62.0/limits"}]}"#;
    let found = read(
        BATCH,
        &format!(r#"{{"batchRequests":[{{"richInput":{inner},"url":"v62.0/composite/batch","method":"POST"}}]}}"#),
    )
    .unwrap();
    assert_eq!(parts(&found), ["batch mixed - named", "rest delete Secret__c named", "rest limits - nothing"]);
    assert_eq!(found.cost, ApiCalls(2));

    let collection = r#"{"compositeRequest":[{"method":"POST","url":"/services/data/v62.0/composite/sobjects","referenceId":"a",
        "body":{"records":[{"attributes":{"type":"Secret__c"}},{"attributes":{"type":"Lead"}}]}}]}"#;
    assert_eq!(
        parts(&read(COMPOSITE, collection).unwrap()),
        ["collections create - named", "collections create Secret__c named", "collections create Lead named"]
    );

    let mut deep = inner.to_owned();
    for _ in 0..5 {
        deep = format!(r#"{{"batchRequests":[{{"method":"POST","url":"v62.0/composite/batch","richInput":{deep}}}]}}"#);
    }
    assert_eq!(read(BATCH, &deep), Err(BodyError::TooDeep));
}

#[test]
fn collections_name_their_objects() {
    let found = read(
        "/services/data/v62.0/composite/sobjects",
        r#"{"allOrNone":false,"records":[{"attributes":{"type":"Account"},"Name":"a"},{"Name":"b","attributes":{"type":"account"}},
            {"attributes":{"type":"Contact","x":1},"Account":{"attributes":{"type":"Account"},"Key__c":"7"}}]}"#,
    )
    .unwrap();
    assert_eq!(parts(&found), ["collections create Account named", "collections create Contact named"]);
    assert_eq!(summary(&found), ("create", "-", "named", 1, "unsafe"));

    let upsert = "/services/data/v62.0/composite/sobjects/Account/Key__c";
    let found =
        read_as("PATCH", upsert, r#"{"records":[{"attributes":{"type":"Account"}},{"attributes":{"type":"Lead"}}]}"#);
    assert_eq!(parts(&found.unwrap()), ["collections upsert Account named", "collections upsert Lead named"]);
    let found = read_as("PATCH", upsert, r#"{"records":[{"attributes":{"type":"Account"}}]}"#).unwrap();
    assert_eq!(summary(&found), ("upsert", "Account", "named", 1, "idempotent"));
    let found = read_as("PATCH", upsert, r#"{"records":[{"Name":"no type"}]}"#).unwrap();
    assert_eq!(parts(&found), ["collections upsert Account named", "collections upsert - unknown"]);
}

#[test]
fn a_tree_names_the_objects_of_its_children() {
    let found = read(
        "/services/data/v62.0/composite/tree/Account",
        r#"{"records":[{"attributes":{"type":"Account","referenceId":"r1"},"Name":"x","Employees":7,"Rate":1.5,"Active":true,"None":null,"List":[1],
            "Contacts":{"records":[{"attributes":{"type":"Contact"},"Cases":{"records":[{"attributes":{"type":"Case"}}]}}]}}]}"#,
    )
    .unwrap();
    assert_eq!(parts(&found), ["tree create Account named", "tree create Contact named", "tree create Case named"]);
    assert_eq!(summary(&found), ("create", "-", "named", 1, "unsafe"));
}

#[test]
fn graphql_costs_its_connection_fields() {
    let graphql = "/services/data/v62.0/graphql";
    let found = read(graphql, r#"{"query":"query q { uiapi { query {\n Account { edges { node { Id } } } Case { totalCount } } } }","variables":{"query":1}}"#).unwrap();
    assert_eq!(parts(&found), ["graphql query Account related", "graphql query Case related"]);
    assert_eq!(summary(&found), ("query", "-", "related", 2, "safe"));

    let found = read(graphql, r#"{"query":"{__typename}","operationName":null}"#).unwrap();
    assert_eq!(summary(&found), ("read", "-", "nothing", 1, "safe"));

    let found = read(graphql, r#"{"query":"mutation { uiapi { AccountUpdate(input: {}) { success } } }"}"#).unwrap();
    assert_eq!(summary(&found), ("update", "Account", "related", 1, "unsafe"));

    let mut unread = meaning("POST", graphql);
    assert_eq!(read_body(&mut unread, br#"{"query":"{"}"#, &Costs::default()), Err(BodyError::Graphql));
    assert_eq!(unread, meaning("POST", graphql));
    assert_eq!(unread.cost, ApiCalls(10));
}

#[test]
fn new_jobs_name_their_object() {
    let found =
        read("/services/data/v62.0/jobs/ingest", r#"{"operation":"insert","object":"Account","contentType":"CSV"}"#);
    assert_eq!(summary(&found.unwrap()), ("job", "Account", "named", 1, "unsafe"));
    let found =
        read("/services/data/v62.0/jobs/query", r#"{"operation":"query","query":"SELECT Owner.Name FROM Lead"}"#);
    assert_eq!(summary(&found.unwrap()), ("job", "Lead", "related", 1, "unsafe"));
    let found = read("/services/data/v62.0/jobs/query", r#"{"operation":"query","query":"?"}"#);
    assert_eq!(summary(&found.unwrap()), ("job", "-", "unknown", 1, "unsafe"));
    let v1 = "/services/async/62.0/job";
    let xml = r#"<?xml version="1.0" encoding="UTF-8"?><jobInfo xmlns="http://www.force.com/2009/06/asyncapi/dataload"><operation>insert</operation><object>Account</object></jobInfo>"#;
    for body in [xml, r#"{"operation":"insert","object":"Account"}"#] {
        assert_eq!(summary(&read(v1, body).unwrap()), ("job", "Account", "named", 1, "unsafe"), "{body}");
    }
    let multipart = "--BOUNDARY\r\nContent-Disposition: form-data; name=\"job\"\r\n\r\n{}";
    assert_eq!(read("/services/data/v62.0/jobs/ingest", multipart), Err(BodyError::NotJson));
}

#[test]
fn a_search_names_its_objects_or_goes_through_all() {
    let search = "/services/data/v62.0/parameterizedSearch";
    let found = read(search, r#"{"q":"x","sobjects":[{"name":"Account","limit":1},{"name":"Lead"}]}"#).unwrap();
    assert_eq!(parts(&found), ["search search Account named", "search search Lead named"]);
    assert_eq!(summary(&read(search, r#"{"q":"x"}"#).unwrap()), ("search", "-", "unknown", 1, "safe"));
}

#[test]
fn ambiguous_and_broken_bodies_are_errors() {
    let one = r#""url":"/services/data/v62.0/limits""#;
    for (body, error) in [
        ("", BodyError::NotJson),
        ("<batch/>", BodyError::NotJson),
        ("\u{1f}\u{8b}", BodyError::NotJson),
        ("{", BodyError::Json),
        (r#"{"compositeRequest":[]} x"#, BodyError::Json),
        ("[]", BodyError::Shape),
        ("null", BodyError::Shape),
        ("{}", BodyError::Shape),
        (r#"{"batchRequests":[]}"#, BodyError::Shape),
        (r#"{"compositeRequest":[],"compositeRequest":[]}"#, BodyError::Shape),
        (r#"{"CompositeRequest":[]}"#, BodyError::Shape),
        (r#"{"compositeRequest":{}}"#, BodyError::Shape),
        (r#"{"compositeRequest":[7]}"#, BodyError::Shape),
        (&format!(r#"{{"compositeRequest":[{{{one}}}]}}"#), BodyError::Shape),
        (&format!(r#"{{"compositeRequest":[{{"method":"GET","method":"DELETE",{one}}}]}}"#), BodyError::Shape),
        (&format!(r#"{{"compositeRequest":[{{"method":"GET","m\u0065thod":"DELETE",{one}}}]}}"#), BodyError::Shape),
        (&format!(r#"{{"compositeRequest":[{{"method":"GET","Method":"DELETE",{one}}}]}}"#), BodyError::Shape),
        (&format!(r#"{{"compositeRequest":[{{"method":null,{one}}}]}}"#), BodyError::Shape),
        (&format!(r#"{{"compositeRequest":[{{"method":"GET","body":1,"richInput":2,{one}}}]}}"#), BodyError::Shape),
    ] {
        assert_eq!(read(COMPOSITE, body), Err(error), "{body}");
    }
}

#[test]
fn a_batch_that_cannot_be_read_keeps_the_cost_of_a_full_one() {
    let mut found = meaning("POST", BATCH);
    assert_eq!(read_body(&mut found, b"<batch/>", &Costs::default()), Err(BodyError::NotJson));
    assert_eq!(found, meaning("POST", BATCH));
}

#[test]
fn too_many_subrequests_are_an_error() {
    let list = vec![r#"{"method":"GET","url":"v62.0/limits"}"#; 1_001].join(",");
    assert_eq!(read(BATCH, &format!(r#"{{"batchRequests":[{list}]}}"#)), Err(BodyError::Shape));
}

fn envelope(header: &str, body: &str) -> String {
    format!(
        r#"<?xml version="1.0" encoding="utf-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsi="x" xmlns:urn="urn:partner.soap.sforce.com">
        <soapenv:Header>{header}</soapenv:Header><!-- <soapenv:Body> --><soapenv:Body>{body}</soapenv:Body></soapenv:Envelope>"#
    )
}

#[test]
fn soap_operations_and_their_objects() {
    #[rustfmt::skip]
    let table: &[(&str, &str, &str, &str, &[&str])] = &[
        ("<urn:query><urn:queryString>SELECT Id FROM Account WHERE Name &lt; 'x'</urn:queryString></urn:query>", "query", "Account", "safe", &["soap query Account named"]),
        ("<queryAll><queryString><![CDATA[SELECT Id FROM Lead WHERE Id IN (SELECT X FROM Case)]]></queryString></queryAll>", "query", "-", "safe", &["soap query Lead named", "soap query Case named"]),
        ("<query><queryString>SELECT Id FROM A</queryString><queryString>SELECT Id FROM B</queryString></query>", "query", "-", "safe", &["soap query - unknown"]),
        ("<urn:queryMore><urn:queryLocator>01g</urn:queryLocator></urn:queryMore>", "query", "-", "safe", &["soap query - continued"]),
        ("<urn:create><urn:sObjects><type>Account</type><Name>x</Name></urn:sObjects></urn:create>", "create", "Account", "unsafe", &["soap create Account named"]),
        (r#"<create><sObjects xsi:type="ens:Account"><Name>x</Name></sObjects><sObjects xsi:type="urn:sObject"><e:type> Lead </e:type></sObjects></create>"#, "create", "-", "unsafe", &["soap create Account named", "soap create Lead named"]),
        ("<create><sObjects><Name>x</Name></sObjects></create>", "create", "-", "unsafe", &["soap create - unknown"]),
        ("<update><sObjects><type>Account</type><Id>1</Id><Owner><type>User</type></Owner></sObjects></update>", "update", "Account", "idempotent", &["soap update Account named"]),
        ("<upsert><externalIDFieldName>Key__c</externalIDFieldName><sObjects><type>Account</type></sObjects></upsert>", "upsert", "Account", "idempotent", &["soap upsert Account named"]),
        ("<upsert><externalIDFieldName>Id</externalIDFieldName><sObjects><type>Account</type></sObjects></upsert>", "upsert", "Account", "unsafe", &["soap upsert Account named"]),
        ("<delete><ids>001</ids></delete>", "delete", "-", "idempotent", &["soap delete - unknown"]),
        ("<retrieve><fieldList>Id</fieldList><sObjectType>Account</sObjectType><ids>1</ids></retrieve>", "read", "Account", "safe", &["soap read Account named"]),
        ("<describeSObjects><sObjectType>Account</sObjectType><sObjectType>Lead</sObjectType></describeSObjects>", "describe", "-", "safe", &["soap describe Account named", "soap describe Lead named"]),
        ("<describeGlobal/>", "describe", "-", "safe", &["soap describe - nothing"]),
        ("<getUserInfo/>", "read", "-", "safe", &["soap read - nothing"]),
        ("<sendEmail><messages/></sendEmail>", "execute", "-", "unsafe", &["soap execute - unknown"]),
        ("<getUserInfo/><delete><ids>1</ids></delete>", "mixed", "-", "idempotent", &["soap read - nothing", "soap delete - unknown"]),
    ];
    for (body, operation, object, idempotency, expected) in table {
        let found = read("/services/Soap/u/62.0", &envelope("", body)).unwrap();
        assert_eq!(parts(&found), *expected, "{body}");
        assert_eq!((found.operation.as_str(), found.object.as_deref().unwrap_or("-")), (*operation, *object), "{body}");
        assert_eq!((found.idempotency.as_str(), found.cost), (*idempotency, ApiCalls(1)), "{body}");
    }
}

#[test]
fn soap_log_in_costs_what_a_token_request_costs() {
    let body = envelope(
        "",
        "<n1:login xmlns:n1='urn:partner.soap.sforce.com'><n1:username>u</n1:username><n1:password>p</n1:password></n1:login>",
    );
    let found = read("/services/Soap/u/62.0", &body).unwrap();
    assert_eq!(summary(&found), ("login", "-", "nothing", 3, "unsafe"));
}

#[test]
fn metadata_and_apex_operations() {
    let found = |path, body| read(path, &envelope("", body)).unwrap();
    assert_eq!(summary(&found("/services/Soap/m/62.0", "<deploy/>")), ("job", "-", "unknown", 1, "unsafe"));
    assert_eq!(summary(&found("/services/Soap/m/62.0", "<checkDeployStatus/>")), ("job", "-", "unknown", 1, "safe"));
    assert_eq!(summary(&found("/services/Soap/class/X", "<query/>")), ("execute", "-", "unknown", 1, "unsafe"));
}

#[test]
fn envelopes_that_could_be_read_in_two_ways_are_errors() {
    let soap = "/services/Soap/u/62.0";
    for (body, error) in [
        ("", BodyError::Shape),
        ("<Envelope><Header/></Envelope>", BodyError::Shape),
        ("<Envelope><Body/></Envelope>", BodyError::Shape),
        ("<Envelope><Body><a/></Body><Body><b/></Body></Envelope>", BodyError::Shape),
        ("<Body><query/></Body>", BodyError::Shape),
        ("<Envelope><Body><a/></Body></Envelope><Envelope/>", BodyError::Xml),
        ("<Envelope><Body><a></Body></Envelope>", BodyError::Xml),
        ("<Envelope><Body><a>", BodyError::Xml),
        ("<!DOCTYPE x [<!ENTITY y 'z'>]><Envelope><Body><a/></Body></Envelope>", BodyError::Doctype),
    ] {
        assert_eq!(read(soap, body), Err(error), "{body}");
    }
}

#[test]
fn the_usage_in_a_soap_answer() {
    let info = "<urn:LimitInfoHeader><urn:limitInfo><urn:current>18</urn:current><urn:limit>5000</urn:limit><urn:type>API REQUESTS</urn:type></urn:limitInfo></urn:LimitInfoHeader>";
    let answer = envelope(info, "<urn:queryResponse>");
    assert_eq!(soap_usage(answer.as_bytes()), Some(Usage { used: 18, limit: 5000 }));
    assert_eq!(soap_usage(answer.replace("API REQUESTS", "OTHER").as_bytes()), None);
    assert_eq!(soap_usage(answer.replace(">18<", ">-18<").as_bytes()), None);
    assert_eq!(soap_usage(envelope("", info).as_bytes()), None);
    assert_eq!(soap_usage(b"{}"), None);
}

fn json_like() -> impl Strategy<Value = String> {
    let token = proptest::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"method\"",
        "\"GET\"",
        "\"url\"",
        "\"v62.0/composite/batch\"",
        "\"batchRequests\"",
        "\"compositeRequest\"",
        "\"graphs\"",
        "\"body\"",
        "\"records\"",
        "\"attributes\"",
        "\"type\"",
        "null",
        "1",
        " ",
        "\\",
        "\"",
    ]);
    proptest::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

fn subrequest() -> impl Strategy<Value = String> {
    let path = proptest::sample::select(vec![
        "limits",
        "sobjects/Account",
        "query?q=SELECT Id FROM Lead",
        "nowhere",
        "query?q=SELECT Id FROM A WHERE B IN (SELECT C FROM D)",
    ]);
    ("(GET|POST|PATCH|DELETE)", path).prop_map(|(method, path)| {
        format!(r#"{{"method":"{method}","url":"v62.0/{path}","richInput":{{"a":[1,"}}"]}}}}"#)
    })
}

proptest! {
    #[test]
    fn any_body_is_survived(body in prop_oneof![json_like(), ".{0,100}", "<[a-zA-Z<>/ ='&;:!\\[\\]-]{0,100}"]) {
        for path in [COMPOSITE, BATCH, "/services/data/v62.0/composite/graph", "/services/data/v62.0/composite/tree/A",
            "/services/data/v62.0/composite/sobjects", "/services/data/v62.0/graphql", "/services/Soap/u/62.0", "/services/async/62.0/job",
            "/services/data/v62.0/jobs/query", "/services/data/v62.0/parameterizedSearch"]
        {
            let before = meaning("POST", path);
            let mut after = before.clone();
            if read_body(&mut after, body.as_bytes(), &Costs::default()).is_err() {
                prop_assert_eq!(after, before);
            }
        }
    }

    /// Every subrequest is a part and costs a call; one more never makes a batch cheaper or safer.
    #[test]
    fn a_batch_grows_with_its_subrequests(list in proptest::collection::vec(subrequest(), 1..25)) {
        let batch = |list: &[String]| read(BATCH, &format!(r#"{{"batchRequests":[{}]}}"#, list.join(","))).unwrap();
        let (all, fewer) = (batch(&list), batch(&list[1..]));
        prop_assert_eq!(all.cost, ApiCalls(list.len() as u32));
        prop_assert!(all.parts.len() >= list.len() && all.parts.len() > fewer.parts.len());
        prop_assert!(all.idempotency >= fewer.idempotency && all.reach >= fewer.reach && all.cost >= fewer.cost);
    }
}
