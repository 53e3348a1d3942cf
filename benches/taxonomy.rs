//! What it costs to understand a failure: one error body, and a large answer that holds many.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a bench may stop at once")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use weirkeeper::call::Family;
use weirkeeper::salesforce::taxonomy::{Stream, classify, said, scan};

fn errors(c: &mut Criterion) {
    let mut group = c.benchmark_group("classify");
    let lock = r#"[{"message":"unable to obtain exclusive access to this record or 1 records: 001D000000IqhSLIAZ","errorCode":"UNABLE_TO_LOCK_ROW","fields":[]}]"#;
    let limit = r#"[{"message":"TotalRequests Limit exceeded.","errorCode":"REQUEST_LIMIT_EXCEEDED"}]"#;
    let wrapped = r#"[{"message":"Trigger: execution of BeforeUpdate caused by: System.DmlException: Update failed. First exception on row 0; first error: UNABLE_TO_LOCK_ROW, unable to obtain exclusive access to this record: []","errorCode":"CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY","fields":[]}]"#;
    let fault = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" xmlns:sf=\"urn:fault.partner.soap.sforce.com\"><soapenv:Body><soapenv:Fault><faultcode>sf:INVALID_SESSION_ID</faultcode><faultstring>INVALID_SESSION_ID: Invalid Session ID found in SessionHeader</faultstring><detail><sf:UnexpectedErrorFault><sf:exceptionCode>INVALID_SESSION_ID</sf:exceptionCode><sf:exceptionMessage>Invalid Session ID</sf:exceptionMessage></sf:UnexpectedErrorFault></detail></soapenv:Fault></soapenv:Body></soapenv:Envelope>";
    for (name, family, status, body) in [
        ("lock", Family::Rest, 400, lock),
        ("limit", Family::Rest, 403, limit),
        ("wrapped_lock", Family::Rest, 400, wrapped),
        ("soap_fault", Family::Soap, 500, fault),
    ] {
        group.bench_function(name, |b| b.iter(|| classify(family, status, &said(black_box(body.as_bytes())))));
    }
    group.finish();
}

/// 25 answers, most of them lists of rows, three of them errors.
fn composite(bytes: usize) -> String {
    let row = r#"{"attributes":{"type":"Account","url":"/services/data/v62.0/sobjects/Account/001D000000IqhSLIAZ"},"Id":"001D000000IqhSLIAZ","Name":"Acme & Sons","Phone":"555 0100","NumberOfEmployees":12,"Description":"Lorem ipsum dolor sit amet, \"consetetur\" sadipscing elitr"}"#;
    let rows = vec![row; bytes / 25 / (row.len() + 1)].join(",");
    let good = format!(
        r#"{{"body":{{"totalSize":50,"done":true,"records":[{rows}]}},"httpHeaders":{{}},"httpStatusCode":200,"referenceId":"a"}}"#
    );
    let bad = r#"{"body":[{"message":"No such column","errorCode":"INVALID_FIELD"}],"httpHeaders":{},"httpStatusCode":400,"referenceId":"b"}"#;
    let parts: Vec<&str> = (0..25).map(|at| if at % 8 == 7 { bad } else { &good }).collect();
    format!(r#"{{"compositeResponse":[{}]}}"#, parts.join(","))
}

fn parts(c: &mut Criterion) {
    let mut group = c.benchmark_group("scan");
    let body = composite(455_000);
    assert!(body.len() > 390_000 && scan(Family::Composite, body.as_bytes()).unwrap().failed == 3, "{}", body.len());
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("composite_400_kb", |b| b.iter(|| scan(Family::Composite, black_box(body.as_bytes()))));
    // The same while it passes, in pieces as they come from a connection.
    let streamed = |body: &[u8]| {
        let mut stream = Stream::new(Family::Composite).unwrap();
        body.chunks(16 * 1_024).for_each(|piece| stream.feed(piece));
        stream.found().unwrap()
    };
    assert_eq!(streamed(body.as_bytes()).failed, 3);
    group.bench_function("composite_400_kb_streamed", |b| b.iter(|| streamed(black_box(body.as_bytes()))));
    let good = r#"{"id":"001D000000IqhSLIAZ","success":true,"errors":[]}"#;
    let bad = r#"{"success":false,"errors":[{"statusCode":"DUPLICATE_VALUE","message":"duplicate value found","fields":[]}]}"#;
    let list: Vec<&str> = (0..200).map(|at| if at % 10 == 0 { bad } else { good }).collect();
    let list = format!("[{}]", list.join(","));
    group.throughput(Throughput::Bytes(list.len() as u64));
    group.bench_function("collection_200", |b| b.iter(|| scan(Family::Collections, black_box(list.as_bytes()))));
    group.finish();
}

criterion_group!(benches, errors, parts);
criterion_main!(benches);
