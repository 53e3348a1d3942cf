//! Requests that fail the same permanent way again and again, answered with what Salesforce said: a part of
//! [`super::retry`], which has the request still when its answer is known. What is remembered, and for how long, is decided
//! in [`crate::answers`].

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AGE, CACHE_CONTROL, HeaderName, PRAGMA};
use http::{HeaderMap, HeaderValue};

use crate::answers::{Exact, Failure, Whole, Wish, exact};
use crate::body::{Payload, ReplyBody};
use crate::edge::inbound::Inbound;
use crate::outcome::{Remembered, Source};
use crate::salesforce::taxonomy::Verdict;
use crate::stages::{Passage, Reply};

/// `Weirkeeper-Remembered: 12`: Salesforce's answer to this very request a short while ago; it is asked again in as many
/// seconds at the latest.
const REMEMBERED: HeaderName = HeaderName::from_static("weirkeeper-remembered");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// A request with a longer body is not remembered: to tell it from others would cost too much.
const LONGEST_BODY: usize = 64 * 1_024;

/// The answer to a request that is known to fail.
pub(super) fn answer(passage: &Passage) -> Option<Reply> {
    let (live, call) = (&passage.live, &passage.call);
    let rule = live.cache.as_ref()?.rules.failures.filter(|rule| rule.covers(call))?;
    let org = live.org(call.org)?;
    let spot = org.answers.failing(call, target(passage))?;
    if wants_to_ask(&passage.head.headers) {
        org.answers.ask_again(spot);
        return None;
    }
    let recalled = org.answers.recall(spot, call, &exactly(passage)?, passage.now)?;
    let mut outcome = passage.record.lock();
    if !rule.answers {
        outcome.remembered = Some(Remembered::WouldGive);
        return None;
    }
    // It has the coding that its request accepts: the same header is part of what was compared.
    let mut reply =
        recalled.whole.answer(&Wish { gzip: true, deflate: true, ..Wish::default() })?.map(ReplyBody::Whole);
    let left = recalled.left.as_secs();
    let headers = reply.headers_mut();
    headers.insert(REMEMBERED, HeaderValue::from(left));
    headers.insert(AGE, HeaderValue::from(recalled.age.as_secs()));
    if let Ok(status) = HeaderValue::from_str(&format!("weirkeeper;hit;ttl={left};detail=failure")) {
        headers.append(CACHE_STATUS, status);
    }
    outcome.remembered = Some(Remembered::Given);
    outcome.source = Source::Remembered;
    outcome.saved = recalled.cost;
    Some(reply)
}

/// Remembers that a request failed, with this answer.
pub(super) fn note(passage: &Passage, head: &http::response::Parts, body: &Bytes, verdict: Verdict) {
    let (live, call) = (&passage.live, &passage.call);
    let Some(rule) = live.cache.as_ref().and_then(|cache| cache.rules.failures) else { return };
    let Some(org) = live.org(call.org) else { return };
    // Until it is known which user an identity is, nobody can say whose its failures are.
    let known = org.identity(call.caller).is_none_or(|identity| identity.is_known());
    if !known || !rule.covers(call) || !Failure::is_permanent(verdict) {
        return;
    }
    let whole = Arc::new(Whole::new(head.status, &head.headers, body));
    let Some(exact) = exactly(passage).filter(|_| whole.is_for_others()) else { return };
    let mut outcome = passage.record.lock();
    let Some(exchange) = outcome.exchanges.last() else { return };
    let (sent, cost) = (exchange.sent, exchange.charged.0);
    let code = exchange.error_code.clone().unwrap_or_default();
    let failure = Failure { verdict, code, sent, cost, whole };
    if org.answers.failed(call, target(passage), exact, failure, &rule) {
        outcome.remembered = Some(outcome.remembered.unwrap_or(Remembered::Learnt));
    }
}

fn target(passage: &Passage) -> &str {
    passage.head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
}

/// What tells it from requests of the same kind; `None` if that would cost too much.
fn exactly(passage: &Passage) -> Option<Exact> {
    let body: &[u8] = match &passage.payload {
        Payload::<Inbound>::Empty => b"",
        Payload::Whole(bytes, _) if bytes.len() <= LONGEST_BODY => bytes,
        _ => return None,
    };
    Some(exact(&passage.head.headers, body))
}

/// Whether the caller wants Salesforce to be asked.
fn wants_to_ask(headers: &HeaderMap) -> bool {
    let says = |value: &HeaderValue, word: &[u8]| {
        value.as_bytes().split(|byte| *byte == b',').any(|said| said.trim_ascii().eq_ignore_ascii_case(word))
    };
    headers
        .get_all(CACHE_CONTROL)
        .iter()
        .any(|value| [&b"no-cache"[..], b"no-store", b"max-age=0"].iter().any(|word| says(value, word)))
        || headers.get_all(PRAGMA).iter().any(|value| says(value, b"no-cache"))
}
