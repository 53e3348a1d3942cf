//! Kept answers: what of them is kept, and how they are given out again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use smallvec::smallvec;
use smol_str::SmolStr;

use super::kept::{Kept, Whole};
use super::question::{Kind, Question};
use super::touch::{Deps, Touch, lower};
use super::wish::Wish;
use super::{Answers, Store};
use crate::call::Principal;
use crate::clock::Clock;

const RECHECK: Duration = Duration::from_mins(5);
const WHO: Principal = Principal([1; 16]);

fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

fn whole(fields: &[(&'static str, &'static str)], body: &'static [u8]) -> Whole {
    Whole::new(StatusCode::OK, &headers(fields), &Bytes::from_static(body))
}

const JSON: (&str, &str) = ("content-type", "application/json;charset=UTF-8");

fn question() -> Question {
    let deps = Deps::Objects(smallvec![lower("account")]);
    Question { kind: Kind::Query, who: WHO, shared: false, deps, key: vec![1, 2, 3], wish: Wish::default() }
}

fn gzip(plain: &[u8]) -> &'static [u8] {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).unwrap();
    Box::leak(encoder.finish().unwrap().into_boxed_slice())
}

#[test]
fn only_whole_plain_answers_are_kept() {
    let done = br#"{"totalSize":0,"done":true,"records":[]}"#;
    assert!(whole(&[JSON], done).may_be_kept(Kind::Query));
    assert!(whole(&[JSON, ("content-encoding", "gzip")], gzip(done)).may_be_kept(Kind::Query));
    assert!(
        whole(&[JSON, ("set-cookie", "BrowserId=x;Path=/"), ("vary", "Accept-Encoding")], done)
            .may_be_kept(Kind::Query)
    );
    for (fields, body) in [
        (&[][..], &done[..]),
        (&[("content-type", "text/html")], done),
        (&[("content-type", "application/octet-stream")], done),
        (&[JSON, ("set-cookie", "sid=x")], done),
        (&[JSON, ("vary", "Cookie")], done),
        (&[JSON, ("vary", "*")], done),
        (&[JSON, ("content-encoding", "br")], done),
        (&[JSON, ("content-encoding", "gzip")], done),
        (&[JSON], br#"{"done":false,"nextRecordsUrl":"/services/data/v62.0/query/01g-2000","records":[]}"#),
        (&[JSON], br#"{"done":true,"records":[{"Contacts":{"done":false,"nextRecordsUrl":"/x"}}]}"#),
        (&[JSON], b"{}"),
    ] {
        assert!(!whole(fields, body).may_be_kept(Kind::Query), "{fields:?} {}", String::from_utf8_lossy(body));
    }
    for status in [201, 203, 206, 300, 304, 400, 404, 500] {
        let answer = Whole::new(StatusCode::from_u16(status).unwrap(), &headers(&[JSON]), &Bytes::from_static(b"{}"));
        assert!(!answer.may_be_kept(Kind::Row), "{status}");
    }
}

#[test]
fn what_is_true_for_one_caller_only_is_left_out() {
    let fields = [
        JSON,
        ("set-cookie", "BrowserId=x"),
        ("sforce-limit-info", "api-usage=1/5"),
        ("etag", "\"a\""),
        ("x-robots-tag", "none"),
    ];
    let answer = whole(&fields, b"{}").answer(&Wish::default()).unwrap();
    let mut names: Vec<&str> = answer.headers().keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "content-type", "etag", "x-robots-tag"]);
}

#[test]
fn compressed_bytes_go_to_who_takes_them_and_plain_ones_to_who_does_not() {
    let kept = whole(&[JSON, ("content-encoding", "gzip"), ("etag", "\"a--gzip\"")], gzip(b"{\"a\":1}"));
    let plain = kept.answer(&Wish::default()).unwrap();
    assert_eq!((plain.body().as_ref(), plain.headers().contains_key("etag")), (&b"{\"a\":1}"[..], false));
    assert!(!plain.headers().contains_key("content-encoding"));
    let same = kept.answer(&Wish { gzip: true, ..Wish::default() }).unwrap();
    for (name, value) in [("content-encoding", "gzip"), ("etag", "\"a--gzip\"")] {
        assert_eq!(same.headers()[name], value);
    }
}

#[test]
fn conditions_are_answered_as_salesforce_would() {
    let now = Clock::start().now();
    let modified = ("last-modified", "Sun, 22 Nov 2026 08:00:00 GMT");
    let keep = |fields: &[(&'static str, &'static str)]| {
        Kept::new(Arc::new(whole(fields, b"{}")), &question(), now, 0, 1, 1, Arc::default())
    };
    let tagged = keep(&[JSON, modified, ("etag", "\"a\"")]);
    let asks = |tag: Option<&'static str>, since: Option<&'static str>| Wish {
        none_match: tag.map(HeaderValue::from_static),
        modified_since: since.map(HeaderValue::from_static),
        ..Wish::default()
    };
    let later = "Sun, 22 Nov 2026 09:00:00 GMT";
    let earlier = "Sun, 22 Nov 2026 07:59:59 GMT";
    for (kept, wish, status) in [
        (&tagged, asks(Some("\"a\""), None), 304),
        (&tagged, asks(Some("\"b\", \"a\""), None), 304),
        (&tagged, asks(Some("\"b\""), Some(later)), 200),
        (&tagged, asks(None, Some(later)), 304),
        (&tagged, asks(None, Some(modified.1)), 304),
        (&tagged, asks(None, Some(earlier)), 200),
        (&tagged, asks(None, Some("nonsense")), 200),
        (&keep(&[JSON]), asks(Some("\"a\""), Some(later)), 200),
    ] {
        let answer = kept.answer(&wish).unwrap();
        assert_eq!(answer.status(), status, "{wish:?}");
        assert_eq!(answer.body().is_empty(), status == 304);
        assert_eq!(answer.headers().contains_key("content-type"), status == 200);
    }
}

#[test]
fn the_store_never_takes_more_than_it_may() {
    let now = Clock::start().now();
    let bound = 1 << 20;
    let store = Store::new(bound);
    for number in 0..4_000_u32 {
        let body = Bytes::from(vec![b'x'; 1_000 + (number as usize * 37) % 9_000]);
        let whole = Arc::new(Whole::new(StatusCode::OK, &headers(&[JSON]), &body));
        store.put(&number.to_be_bytes(), Arc::new(Kept::new(whole, &question(), now, 0, 1, 1, Arc::default())));
        let (bytes, _) = store.size();
        assert!(bytes <= bound, "{bytes}");
    }
    assert!(store.size().1 > 50);
    store.clear();
    assert_eq!(store.size().1, 0);
}

#[test]
fn an_answer_is_for_whom_it_was_fetched_and_for_nobody_else() {
    let clock = Clock::start();
    let now = clock.now();
    let org = Answers::new(clock).org(&SmolStr::new("prod"), "https://a");
    let question = question();
    let session = org.accepted(WHO, now, RECHECK).unwrap();
    let kept = Kept::new(Arc::new(whole(&[JSON], b"{}")), &question, now, 0, session, 1, Arc::default());
    let good = |who, at| org.look(Some(&kept), &question.deps, who, at, RECHECK).good;
    assert!(good(WHO, now) && good(WHO, now + RECHECK));
    assert!(
        !good(WHO, now + RECHECK + Duration::from_millis(1)),
        "nobody has asked Salesforce about the session for long"
    );
    let other = Principal([2; 16]);
    org.accepted(other, now, RECHECK);
    assert!(!good(other, now), "another session");
    org.session_ended(WHO, RECHECK);
    assert!(!good(WHO, now));
    org.accepted(WHO, now + Duration::from_secs(1), RECHECK);
    assert!(!good(WHO, now + Duration::from_secs(1)), "it was lost when the session was rejected");
}

#[tokio::test(start_paused = true)]
async fn a_write_makes_old_when_it_is_sent_and_when_it_is_answered() {
    let clock = Clock::start();
    let org = Answers::new(clock).org(&SmolStr::new("prod"), "https://a");
    let question = question();
    let session = org.accepted(WHO, clock.now(), RECHECK).unwrap();
    let keep =
        |as_of| Kept::new(Arc::new(whole(&[JSON], b"{}")), &question, clock.now(), as_of, session, 1, Arc::default());
    let good = |kept: &Kept| org.look(Some(kept), &question.deps, WHO, clock.now(), RECHECK).good;
    let as_of = || org.look(None, &question.deps, WHO, clock.now(), RECHECK).as_of;
    let before = keep(as_of());
    assert!(good(&before));
    let writing = org.write(smallvec![Touch::New(lower("account"))], clock.now());
    let during = keep(as_of());
    assert!(!good(&before) && !good(&during));
    writing.ended();
    assert!(!good(&before) && !good(&during), "fetched before the writer had its answer");
    let after = keep(as_of());
    assert!(good(&after));
    drop(org.write(smallvec![Touch::New(lower("account"))], clock.now()));
    tokio::time::advance(super::DOUBT.saturating_sub(Duration::from_secs(1))).await;
    org.accepted(WHO, clock.now(), RECHECK);
    assert!(!good(&keep(as_of())), "nobody knows whether it happened");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(good(&keep(as_of())));
}

#[test]
fn orgs_are_told_apart_by_where_they_are() {
    let answers = Answers::new(Clock::start());
    let name = SmolStr::new("prod");
    let first = answers.org(&name, "https://a").number();
    assert_eq!(answers.org(&name, "https://a").number(), first);
    assert_ne!(answers.org(&name, "https://b").number(), first);
    assert_ne!(answers.org(&name, "https://a").number(), first, "nothing of before comes back");
}

#[test]
fn who_takes_compressed_bytes_is_not_given_those_of_who_does_not() {
    let now = Clock::start().now();
    let mut question = question();
    let gzip = Wish { gzip: true, ..Wish::default() };
    let keep = |question: &Question| Kept::new(Arc::new(whole(&[JSON], b"{}")), question, now, 0, 1, 1, Arc::default());
    assert!(keep(&question).answer(&gzip).is_none());
    question.wish.gzip = true;
    assert!(keep(&question).answer(&gzip).is_some(), "Salesforce did not compress it although it might have");
}
