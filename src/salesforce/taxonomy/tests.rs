//! Tests of the taxonomy: every row of facts 2.2, 2.3 and 2.6 that the gateway acts on, and bodies of any kind.

use proptest::prelude::*;

use super::*;

fn judged(family: Family, status: u16, body: &str) -> Verdict {
    classify(family, status, &said(body.as_bytes()))
}

fn rest(status: u16, code: &str, message: &str) -> Verdict {
    judged(Family::Rest, status, &format!(r#"[{{"message":"{message}","errorCode":"{code}"}}]"#))
}

#[test]
fn every_documented_code_has_its_kind() {
    for (status, code, kind, executed) in [
        (401, "INVALID_SESSION_ID", Kind::Auth, Executed::No),
        (400, "UNABLE_TO_LOCK_ROW", Kind::Lock, Executed::No),
        (503, "SERVER_UNAVAILABLE", Kind::Transient, Executed::Maybe),
        (500, "UNKNOWN_EXCEPTION", Kind::Transient, Executed::Maybe),
        (500, "APEX_ERROR", Kind::Permanent, Executed::No),
        (400, "QUERY_TIMEOUT", Kind::Governor, Executed::No),
        (400, "REQUEST_RUNNING_TOO_LONG", Kind::Governor, Executed::Maybe),
        (400, "LIMIT_EXCEEDED", Kind::Governor, Executed::No),
        (400, "INVALID_FIELD", Kind::Schema, Executed::No),
        (400, "INVALID_TYPE", Kind::Schema, Executed::No),
        (410, "UNSUPPORTED_API_VERSION", Kind::Version, Executed::No),
        (404, "NOT_FOUND", Kind::Permanent, Executed::No),
        (404, "ENTITY_IS_DELETED", Kind::Permanent, Executed::No),
        (400, "DUPLICATES_DETECTED", Kind::Permanent, Executed::No),
        (400, "A_CODE_OF_NEXT_YEAR", Kind::Permanent, Executed::No),
        (500, "A_CODE_OF_NEXT_YEAR", Kind::Transient, Executed::Maybe),
        (400, "PROCESSING_HALTED", Kind::Partial, Executed::No),
        (412, "BATCH_PROCESSING_HALTED", Kind::Partial, Executed::No),
        (500, "INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE", Kind::Maintenance, Executed::No),
        (403, "API_DISABLED_FOR_ORG", Kind::Permanent, Executed::No),
    ] {
        let verdict = rest(status, code, "x");
        assert_eq!((verdict.kind, verdict.executed), (kind, executed), "{status} {code}");
    }
}

#[test]
fn the_words_say_which_limit() {
    for (message, kind, limit) in [
        ("TotalRequests Limit exceeded.", Kind::LimitDaily, Limit::Daily),
        ("ConcurrentRequests (Concurrent API Requests) Limit exceeded.", Kind::LimitSlots, Limit::LongCalls),
        ("ConcurrentPerOrgLongTxn Limit exceeded.", Kind::LimitSlots, Limit::LongApex),
        ("ConcurrentPerOrgApex Limit exceeded.", Kind::LimitSlots, Limit::LongApex),
        ("Some other limit.", Kind::LimitFamily, Limit::Rate),
    ] {
        let verdict = rest(403, "REQUEST_LIMIT_EXCEEDED", message);
        assert_eq!((verdict.kind, verdict.limit), (kind, Some(limit)), "{message}");
        assert_eq!(verdict.executed, Executed::No, "a refused call can be sent again");
    }
    let bulk = |words: &str| {
        let error = format!(
            "<error><exceptionCode>ExceededQuota</exceptionCode><exceptionMessage>{words}</exceptionMessage></error>"
        );
        let verdict = judged(Family::Bulk1, 400, &error);
        (verdict.kind, verdict.limit)
    };
    assert_eq!(bulk("TotalRequests Limit exceeded."), (Kind::LimitDaily, Some(Limit::Daily)));
    assert_eq!(bulk("ConcurrentPerOrgApex Limit exceeded."), (Kind::LimitSlots, Some(Limit::LongApex)));
    assert_eq!(bulk("Maximum number of batches exceeded."), (Kind::Governor, None));
    let fault = "<soapenv:Envelope><soapenv:Body><soapenv:Fault><faultcode>sf:REQUEST_LIMIT_EXCEEDED</faultcode><faultstring>REQUEST_LIMIT_EXCEEDED: TotalRequests Limit exceeded.</faultstring>";
    assert_eq!(judged(Family::Soap, 500, fault).kind, Kind::LimitDaily);
}

#[test]
fn a_lock_is_found_inside_the_wrapper_of_a_trigger() {
    let message = "Trigger: execution of BeforeUpdate caused by: System.DmlException: Update failed. first error: UNABLE_TO_LOCK_ROW, unable to obtain exclusive access to this record: []";
    assert_eq!(rest(400, "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", message).kind, Kind::Lock);
    assert_eq!(rest(400, "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "Trigger: no").kind, Kind::Permanent);
    let apex = rest(500, "APEX_ERROR", message);
    assert_eq!((apex.kind, apex.executed), (Kind::Lock, Executed::Maybe), "code may have called others");
    assert!(!apex.is_safe(Idempotency::Unsafe));
    let limit = rest(500, "APEX_ERROR", "System.LimitException: Too many SOQL queries: 101");
    assert_eq!(limit.kind, Kind::Governor);
}

#[test]
fn a_status_without_a_code_means_what_it_can() {
    let page = "<html><body>Service unavailable</body></html>";
    for (family, status, body, kind, executed) in [
        (Family::Rest, 502, page, Kind::Transient, Executed::Maybe),
        (Family::Rest, 504, "", Kind::Transient, Executed::Maybe),
        (Family::Rest, 503, page, Kind::Transient, Executed::Maybe),
        (Family::Rest, 503, "<html>We are down for maintenance.</html>", Kind::Maintenance, Executed::Maybe),
        (Family::Rest, 420, page, Kind::Transient, Executed::No),
        (Family::Rest, 429, "", Kind::LimitFamily, Executed::No),
        (Family::Rest, 401, "", Kind::Auth, Executed::No),
        (Family::Rest, 404, "", Kind::Permanent, Executed::No),
        (Family::Rest, 300, "[\"/services/data/v23.0/sobjects/X/1\"]", Kind::Permanent, Executed::No),
        (Family::Rest, 410, "", Kind::Version, Executed::No),
        (Family::Rest, 499, "", Kind::Unknown, Executed::Maybe),
        (Family::Apex, 500, "{\"reason\":\"mine\"}", Kind::Unknown, Executed::Maybe),
        (Family::Apex, 503, page, Kind::Transient, Executed::Maybe),
        (Family::Apex, 422, "{\"reason\":\"mine\"}", Kind::Unknown, Executed::Maybe),
    ] {
        let verdict = judged(family, status, body);
        assert_eq!((verdict.kind, verdict.executed), (kind, executed), "{family} {status} {body}");
    }
}

#[test]
fn one_users_quota_is_nobody_elses_trouble() {
    for body in [
        r#"[{"message":"You have exceeded your hourly limit.","errorCode":"REQUEST_LIMIT_EXCEEDED"}]"#,
        r#"[{"message":"busy","errorCode":"SERVER_UNAVAILABLE"}]"#,
        r#"{"message":"quota"}"#,
    ] {
        assert_eq!(judged(Family::Connect, 503, body).scope, Scope::Principal, "{body}");
        assert_ne!(judged(Family::Rest, 503, body).scope, Scope::Principal, "{body}");
    }
    assert_eq!(judged(Family::Connect, 502, "<html>").scope, Scope::Family);
}

#[test]
fn a_write_is_repeated_only_if_it_was_refused_or_rolled_back() {
    for (verdict, repeats) in [
        (rest(400, "UNABLE_TO_LOCK_ROW", "x"), true),
        (rest(403, "REQUEST_LIMIT_EXCEEDED", "ConcurrentRequests (Concurrent API Requests) Limit exceeded."), true),
        (rest(503, "SERVER_UNAVAILABLE", "x"), false),
        (rest(500, "UNKNOWN_EXCEPTION", "x"), false),
        (judged(Family::Rest, 502, "<html>"), false),
    ] {
        for write in [Idempotency::Unsafe, Idempotency::Idempotent] {
            assert_eq!(verdict.is_safe(write), repeats, "{verdict:?}");
            assert_eq!(verdict.is_outcome_unknown(write), !repeats, "{verdict:?}");
        }
        assert!(verdict.is_safe(Idempotency::Safe));
        assert!(!verdict.is_outcome_unknown(Idempotency::Safe));
    }
}

#[test]
fn seconds_are_understood_and_clamped() {
    let most = Duration::from_mins(1);
    assert_eq!(retry_after(b" 7 ", most), Some(Duration::from_secs(7)));
    assert_eq!(retry_after(b"86400", most), Some(most));
    for value in [&b"soon"[..], b"", b"-1", b"Wed, 21 Oct 2026 07:28:00 GMT"] {
        assert_eq!(retry_after(value, most), None);
    }
}

#[test]
fn what_failed_in_a_collection_is_counted() {
    let body = br#"[{"id":"001","success":true,"errors":[]},{"success":false,"errors":[{"statusCode":"UNABLE_TO_LOCK_ROW","message":"m","fields":[]}]},null,{"success":false,"errors":[{"statusCode":"REQUIRED_FIELD_MISSING","message":"m","fields":["Name"]}]}]"#;
    let found = scan(Family::Collections, body).unwrap();
    assert_eq!((found.total, found.failed, found.whole), (4, 2, true));
    let list: Vec<_> = found.list.iter().map(|failed| (failed.at, failed.code.as_str(), failed.verdict.kind)).collect();
    assert_eq!(list, [(1, "UNABLE_TO_LOCK_ROW", Kind::Lock), (3, "REQUIRED_FIELD_MISSING", Kind::Permanent)]);
    assert!(!found.is_locked());
    let read = scan(Family::Collections, br#"[{"attributes":{"type":"A"},"Id":"1","errors":"x"},null]"#).unwrap();
    assert_eq!((read.total, read.failed), (2, 0));
}

#[test]
fn what_failed_in_a_composite_is_found_whichever_comes_first() {
    let body = br#"{"compositeResponse":[{"body":{"id":"1","success":true},"httpHeaders":{},"httpStatusCode":201,"referenceId":"a"},{"httpStatusCode":400,"body":[{"message":"m","errorCode":"INVALID_FIELD"}],"referenceId":"b"},{"body":[{"success":false,"errors":[{"statusCode":"DUPLICATE_VALUE"}]}],"httpStatusCode":200,"referenceId":"c"},{"body":null,"httpStatusCode":204}]}"#;
    let found = scan(Family::Composite, body).unwrap();
    assert_eq!((found.total, found.failed, found.whole), (4, 2, true));
    let codes: Vec<_> = found.list.iter().map(|failed| (failed.at, failed.code.as_str())).collect();
    assert_eq!(codes, [(1, "INVALID_FIELD"), (2, "DUPLICATE_VALUE")]);
}

#[test]
fn all_or_none_rolled_back_by_a_lock_can_be_sent_again_whole() {
    let halted = r#"{"body":[{"errorCode":"PROCESSING_HALTED","message":"The transaction was rolled back since another operation in the same transaction failed."}],"httpStatusCode":400}"#;
    let locked = r#"{"body":[{"errorCode":"UNABLE_TO_LOCK_ROW","message":"m"}],"httpStatusCode":400}"#;
    let done = r#"{"body":null,"httpStatusCode":204}"#;
    let wrong = r#"{"body":[{"errorCode":"INVALID_FIELD","message":"m"}],"httpStatusCode":400}"#;
    let of = |parts: &[&str]| {
        let body = format!(r#"{{"compositeResponse":[{}]}}"#, parts.join(","));
        scan(Family::Composite, body.as_bytes()).unwrap().is_locked()
    };
    assert!(of(&[halted, locked, halted]));
    assert!(!of(&[halted, locked, done]));
    assert!(!of(&[halted, wrong, locked]));
    assert!(!of(&[halted, halted]));
    assert!(!of(&[]));
    let cut = format!(r#"{{"compositeResponse":[{locked},{locked}"#);
    assert!(!scan(Family::Composite, cut.as_bytes()).unwrap().is_locked(), "the rest may have been done");
}

#[test]
fn batch_tree_and_graph_have_their_own_forms() {
    let batch = br#"{"hasErrors":true,"results":[{"statusCode":200,"result":{"statusCode":500}},{"statusCode":404,"result":[{"errorCode":"NOT_FOUND","message":"m"}]}]}"#;
    let found = scan(Family::Batch, batch).unwrap();
    assert_eq!((found.total, found.failed, found.list[0].code.as_str()), (2, 1, "NOT_FOUND"));
    let tree = br#"{"hasErrors":true,"results":[{"referenceId":"r1","errors":[{"statusCode":"UNABLE_TO_LOCK_ROW","message":"m","fields":[]}]}]}"#;
    assert!(scan(Family::Tree, tree).unwrap().is_locked());
    let fine = br#"{"hasErrors":false,"results":[{"referenceId":"r1","id":"001"}]}"#;
    assert_eq!(scan(Family::Tree, fine).unwrap().failed, 0);
    let graph = br#"{"graphs":[{"graphId":"1","graphResponse":{"compositeResponse":[{"body":[{"errorCode":"INVALID_FIELD"}],"httpStatusCode":400}]},"isSuccessful":false},{"graphId":"2","graphResponse":{"compositeResponse":[{"body":{},"httpStatusCode":201}]},"isSuccessful":true}]}"#;
    let found = scan(Family::Graph, graph).unwrap();
    assert_eq!((found.total, found.failed), (2, 1));
}

#[test]
fn other_answers_have_no_parts() {
    assert_eq!(scan(Family::Rest, b"{}"), None);
    assert_eq!(scan(Family::Composite, b"[]"), None);
    assert_eq!(scan(Family::Composite, b"{\"x\":1}"), None);
    assert_eq!(scan(Family::Collections, b""), None);
}

proptest! {
    #[test]
    fn no_body_is_too_much(
        family in prop::sample::select(Family::ALL.to_vec()),
        status in 100u16..1000,
        body in prop::collection::vec(prop::sample::select(b"{}[]\",:\\ 04ab<>/".to_vec()), 0..200),
    ) {
        let verdict = classify(family, status, &said(&body));
        if let Some(found) = scan(family, &body) {
            prop_assert!(found.failed <= found.total + 1);
            prop_assert!(found.list.len() <= found.failed as usize);
        }
        // What is not known is not repeated if it could write.
        if verdict.kind == Kind::Unknown {
            prop_assert!(!verdict.may_pass() && !verdict.is_safe(Idempotency::Unsafe));
        }
    }

    #[test]
    fn a_collection_is_counted_as_it_was_written(items in prop::collection::vec(prop::option::of(any::<bool>()), 0..300)) {
        let text: Vec<String> = items
            .iter()
            .map(|item| match item {
                None => "null".to_owned(),
                Some(true) => r#"{"id":"0","success":true,"errors":[]}"#.to_owned(),
                Some(false) => r#"{"success":false,"errors":[{"statusCode":"DUPLICATE_VALUE","message":"a \"b\""}]}"#.to_owned(),
            })
            .collect();
        let found = scan(Family::Collections, format!("[{}]", text.join(", ")).as_bytes()).unwrap();
        prop_assert_eq!(found.total as usize, items.len());
        prop_assert_eq!(found.failed as usize, items.iter().filter(|item| **item == Some(false)).count());
        prop_assert!(found.whole);
    }

    #[test]
    fn a_composite_cut_anywhere_never_claims_more(cut in 0usize..1200) {
        let entry = r#"{"body":[{"errorCode":"UNABLE_TO_LOCK_ROW","message":"m"}],"httpStatusCode":400},"#;
        let body = format!(r#"{{"compositeResponse":[{}null]}}"#, entry.repeat(12));
        let cut = cut.min(body.len() - 1);
        if let Some(found) = scan(Family::Composite, &body.as_bytes()[..cut]) {
            prop_assert!(!found.whole && !found.is_locked());
            prop_assert!(found.failed <= 12);
        }
    }
}
