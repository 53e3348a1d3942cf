//! The access log's line: which members it has and in which words, the same as the metrics'.

use std::time::Duration;

use super::labels;
use super::line::{Line, Stamp, key};
use super::{Finish, Names};
use crate::call::{Length, Principal};
use crate::outcome::{Exchange, Outcome};
use crate::refusal::Reason;

/// The members that are labels too: made once for each set of labels, copied into every line.
pub(super) fn words(names: &Names, outcome: &Outcome, object: Option<&str>) -> Box<[u8]> {
    let mut out = Vec::new();
    let mut line = Line::part(&mut out);
    line.text(key!("org"), names.org(outcome.org));
    line.text(key!("caller"), names.caller(outcome.caller));
    line.word(key!("class"), outcome.class.as_str());
    line.word(key!("family"), outcome.family.as_str());
    line.word(key!("operation"), outcome.operation.as_str());
    if let Some(object) = object {
        line.text(key!("object"), object);
    }
    if let Some(version) = outcome.version {
        line.text(key!("version"), &labels::version(version));
    }
    line.number(key!("status"), u64::from(outcome.status));
    line.word(key!("source"), outcome.source.as_str());
    out.into_boxed_slice()
}

/// Writes the line of one request. Every member comes from a closed list, a number, the configuration, or a cleaned word: a
/// token, body, literal, record id or path has no way in.
pub(super) fn write(
    out: &mut Vec<u8>,
    stamp: &mut Stamp,
    wall: Duration,
    outcome: &Outcome,
    words: &[u8],
    finish: &Finish<'_>,
) {
    let mut line = Line::begin(out, stamp, wall);
    line.word(key!("event"), "request");
    line.hex(key!("request_id"), outcome.id.0.to_be_bytes());
    if let Some(trace) = outcome.trace {
        line.hex(key!("trace_id"), trace.0.to_be_bytes());
    }
    line.members(words);
    if outcome.principal != Principal::NOBODY {
        let [a, b, c, d, ..] = outcome.principal.0;
        line.hex(key!("principal"), [a, b, c, d]);
    }
    if let Some(client) = &outcome.client {
        line.text(key!("client"), labels::client(client));
    }
    if let Some(remote) = finish.remote {
        line.address(key!("remote"), remote);
    }
    line.word(key!("http"), http_version(finish.http));
    line.word(key!("method"), labels::method(&outcome.method));
    if !outcome.template.is_empty() {
        line.word(key!("template"), outcome.template);
    }
    if let Some(result) = outcome.cache {
        line.word(key!("cache"), result.as_str());
    }
    if let Some(result) = outcome.remembered {
        line.word(key!("remembered"), result.as_str());
    }
    if let Some(errand) = outcome.errand {
        line.word(key!("errand"), errand.as_str());
    }
    if outcome.saved > 0 {
        line.number(key!("saved"), u64::from(outcome.saved));
    }
    if let Some(reason) = outcome.refusal {
        line.word(key!("refusal"), reason.as_str());
    }
    if let Some(reason) = outcome.would_refuse {
        line.word(key!("would_refuse"), reason.as_str());
    }
    if outcome.length == Length::Long {
        line.word(key!("length"), outcome.length.as_str());
    }
    if let Some(queued) = outcome.queued {
        line.milliseconds(key!("queued_ms"), queued.wait);
        line.number(key!("queue_position"), queued.position as u64);
    }
    if let Some((purse, result)) = outcome.retried {
        line.word(key!("retry"), result.as_str());
        line.word(key!("retry_for"), purse.as_str());
    }
    if outcome.unknown || outcome.refusal == Some(Reason::OutcomeUnknown) {
        line.word(key!("outcome"), "unknown");
    }
    if let Some(failures) = &outcome.failures {
        line.number(key!("parts"), u64::from(failures.total));
        line.number(key!("parts_failed"), u64::from(failures.failed));
    }
    if outcome.urls_kept {
        line.number(key!("urls_kept"), 1);
    }
    line.word(key!("ending"), outcome.ending.as_str());
    line.number(key!("charged"), u64::from(outcome.charged().0));
    if let Some(terms) = &outcome.terms {
        line.number(key!("cost"), u64::from(terms.cost.0));
        if let Some(paid) = terms.paid {
            line.word(key!("paid"), paid.as_str());
        }
        line.word(key!("level"), terms.level.as_str());
    }
    let ended = outcome.ended.unwrap_or(finish.now);
    line.number(key!("attempts"), outcome.exchanges.len() as u64);
    if let Some(last) = outcome.exchanges.last() {
        last_attempt(&mut line, last);
        let took = |exchange: &Exchange| exchange.ended.unwrap_or(ended).saturating_duration_since(exchange.sent);
        line.milliseconds(key!("upstream_ms"), outcome.exchanges.iter().map(took).sum());
    }
    if !outcome.paced.is_zero() {
        line.milliseconds(key!("paced_ms"), outcome.paced);
    }
    line.milliseconds(key!("duration_ms"), ended.saturating_duration_since(outcome.started));
    line.number(key!("bytes_in"), outcome.bytes_in);
    line.number(key!("bytes_out"), outcome.bytes_out);
    line.end();
}

fn last_attempt(line: &mut Line<'_>, last: &Exchange) {
    if let Some(status) = last.status {
        line.number(key!("upstream_status"), u64::from(status));
    }
    if let Some(trouble) = last.trouble() {
        line.word(key!("failure"), trouble.as_str());
    }
    if let Some(verdict) = last.verdict {
        line.word(key!("blame"), verdict.blame.as_str());
    }
    if let Some(code) = &last.error_code {
        line.text(key!("error_code"), labels::error_code(code));
    }
}

fn http_version(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_2 => "2",
        http::Version::HTTP_10 => "1.0",
        http::Version::HTTP_09 => "0.9",
        http::Version::HTTP_3 => "3",
        _ => "1.1",
    }
}
