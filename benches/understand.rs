//! What understanding a request costs: the head alone, and bodies per byte.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a bench may stop at once")]

use std::fmt::Write as _;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method};
use weirkeeper::salesforce::{
    Costs, LimitInfo, PrincipalKey, credentials, principal, read_body, soap_usage, soql, understand,
};

const TOKEN: &str = "Bearer 00D5800000000abEAA!AQEAQNmNE9kYzGuJwwDqWvGyLk4gQ1vXyQ.example.session.of.usual.length.x9z8y7w6v5u4t3s2r1q0p";

fn heads(c: &mut Criterion) {
    let mut group = c.benchmark_group("head");
    let costs = Costs::default();
    for (name, method, path) in [
        ("row_get", Method::GET, "/services/data/v62.0/sobjects/Account/001D000000IqhSLIAZ?fields=Id,Name"),
        ("row_get_double_slash", Method::GET, "//services/data/v62.0/sobjects/Account/001D000000IqhSLIAZ"),
        (
            "row_tunnelled_patch",
            Method::POST,
            "/services/data/v62.0/sobjects/Account/001D000000IqhSLIAZ?_HttpMethod=PATCH",
        ),
        ("external_id_encoded", Method::PATCH, "/services/data/v62.0/sobjects/Invoice__c/Key__c/a%2Fb%25c"),
        (
            "query",
            Method::GET,
            "/services/data/v62.0/query?q=SELECT+Id,Name,Owner.Name,(SELECT+Id+FROM+Contacts)+FROM+Account+WHERE+Name+LIKE+%27Acme%25%27+AND+Id+IN+(SELECT+AccountId+FROM+Opportunity)+ORDER+BY+Name+LIMIT+200",
        ),
        ("query_page", Method::GET, "/services/data/v62.0/query/01gD0000002HU6KIAW-2000"),
        ("composite", Method::POST, "/services/data/v62.0/composite"),
        ("last_route", Method::GET, "/services/data/v62.0/specifications/x"),
        ("apex", Method::POST, "/services/apexrest/orders/v1/1234"),
        ("soap", Method::POST, "/services/Soap/u/62.0/00D5800000000ab"),
        ("unknown", Method::GET, "/services/data/v62.0/nothing/of/the/kind/is/known"),
    ] {
        group.bench_function(name, |b| b.iter(|| understand(black_box(&method), black_box(path), &costs)));
    }
    let long = format!(
        "/services/data/v62.0/query?q=SELECT+Id+FROM+Account+WHERE+Name+IN+({}%27z%27)",
        "%27a%27,".repeat(1_500)
    );
    group.throughput(Throughput::Bytes(long.len() as u64));
    group.bench_function("query_of_12_kb", |b| b.iter(|| understand(&Method::GET, black_box(&long), &costs)));
    group.finish();
}

/// A composite whose bodies make up nearly all of its 400 KB.
fn composite(subrequests: usize, bytes: usize) -> String {
    let field = "Lorem ipsum dolor sit amet, \\\"consetetur\\\" sadipscing elitr, sed diam nonumy eirmod tempor invidunt ut labore et dolore.";
    let fields = (0..bytes / subrequests / (field.len() + 16))
        .map(|at| format!(r#""Field_{at}__c":"{field}""#))
        .collect::<Vec<_>>()
        .join(",");
    let list = (0..subrequests)
        .map(|at| {
            format!(
                r#"{{"method":"PATCH","url":"/services/data/v62.0/sobjects/Account/001D000000IqhSLIAZ","referenceId":"r{at}","body":{{{fields}}}}}"#
            )
        })
        .collect::<Vec<_>>()
        .join(",");
    format!(r#"{{"allOrNone":false,"compositeRequest":[{list}]}}"#)
}

fn collection(records: usize) -> String {
    let mut list = String::new();
    for at in 0..records {
        let _ = write!(
            list,
            r#"{}{{"attributes":{{"type":"Account"}},"Name":"Account number {at}","Phone":"555 0100","NumberOfEmployees":{at},"Active__c":true,"Description":"{}"}}"#,
            if at == 0 { "" } else { "," },
            "words and more words ".repeat(20)
        );
    }
    format!(r#"{{"allOrNone":false,"records":[{list}]}}"#)
}

fn envelope(records: usize) -> String {
    let mut list = String::new();
    for at in 0..records {
        let _ = write!(
            list,
            "<urn:sObjects><urn1:type>Account</urn1:type><urn1:Name>Account number {at}</urn1:Name><urn1:Description>{}</urn1:Description></urn:sObjects>",
            "words and more words ".repeat(20)
        );
    }
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><soapenv:Envelope><soapenv:Header><urn:SessionHeader><urn:sessionId>x</urn:sessionId></urn:SessionHeader></soapenv:Header><soapenv:Body><urn:create>{list}</urn:create></soapenv:Body></soapenv:Envelope>"
    )
}

fn bodies(c: &mut Criterion) {
    let mut group = c.benchmark_group("body");
    let costs = Costs::default();
    let graphql = format!(
        r#"{{"query":"query accounts {{ uiapi {{ query {{ {} }} }} }}","variables":{{}}}}"#,
        "Account(first: 50, where: { Name: { like: \\\"A%\\\" } }) { edges { node { Id Name { value } Owner { Name { value } } } } } ".repeat(10)
    );
    for (name, path, body) in [
        ("composite_25_small", "/services/data/v62.0/composite", composite(25, 8_000)),
        ("composite_400_kb", "/services/data/v62.0/composite", composite(25, 400_000)),
        ("collection_200", "/services/data/v62.0/composite/sobjects", collection(200)),
        ("tree_200", "/services/data/v62.0/composite/tree/Account", collection(200)),
        ("graphql", "/services/data/v62.0/graphql", graphql),
        ("soap_create_200", "/services/Soap/u/62.0", envelope(200)),
    ] {
        let meaning = understand(&Method::POST, path, &costs);
        read_body(&mut meaning.clone(), body.as_bytes(), &costs).unwrap();
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut meaning = meaning.clone();
                read_body(&mut meaning, black_box(body.as_bytes()), &costs).map(|()| meaning)
            });
        });
    }
    group.finish();
}

fn small_things(c: &mut Criterion) {
    let mut group = c.benchmark_group("small");
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_static(TOKEN));
    headers.insert("accept", HeaderValue::from_static("application/json"));
    let key = PrincipalKey::new(&[7; 32]);
    group.bench_function("credential", |b| b.iter(|| credentials(black_box(&headers), None)));
    let credential = credentials(&headers, None).unwrap().unwrap();
    group.bench_function("principal", |b| b.iter(|| principal(&key, black_box(&credential))));
    group.bench_function("limit_info", |b| {
        b.iter(|| {
            LimitInfo::parse(black_box(b"api-usage=25/5000; per-app-api-usage=17/250(appName=sample-connected-app)"))
        });
    });
    group.bench_function("soql", |b| {
        b.iter(|| {
            soql::objects(black_box("SELECT Id, Name FROM Account WHERE Name LIKE 'Acme%' ORDER BY Name LIMIT 200"))
        });
    });
    let answer = envelope(200);
    group.bench_function("soap_usage", |b| b.iter(|| soap_usage(black_box(answer.as_bytes()))));
    group.finish();
}

criterion_group!(benches, heads, bodies, small_things);
criterion_main!(benches);
