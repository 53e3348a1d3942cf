//! The access log's line: which members it has and in which words, the same as the metrics'.

use std::time::Duration;

use super::labels;
use super::line::{Line, Stamp};
use super::{Finish, Recorder};
use crate::call::Principal;
use crate::outcome::Outcome;

/// Writes the line of one request. Every member comes from a closed list, a number, the configuration, or a cleaned word: a
/// token, body, literal, record id or path has no way in.
pub(super) fn write(
    out: &mut Vec<u8>,
    stamp: &mut Stamp,
    wall: Duration,
    outcome: &Outcome,
    object: Option<&str>,
    finish: &Finish<'_>,
) {
    let mut line = Line::begin(out, stamp, wall);
    line.word("event", "request");
    line.hex("request_id", &outcome.id.0.to_be_bytes());
    line.text("org", finish.names.org(outcome.org));
    line.text("caller", finish.names.caller(outcome.caller));
    line.word("class", outcome.class.as_str());
    if outcome.principal != Principal::NOBODY {
        line.hex("principal", &outcome.principal.0[..4]);
    }
    if let Some(client) = &outcome.client {
        line.text("client", labels::client(client));
    }
    if let Some(remote) = finish.remote {
        line.shown("remote", remote);
    }
    line.word("http", http_version(finish.http));
    line.word("method", labels::method(&outcome.method));
    line.word("family", outcome.family.as_str());
    line.word("operation", outcome.operation.as_str());
    if let Some(object) = object {
        line.text("object", object);
    }
    if !outcome.template.is_empty() {
        line.text("template", outcome.template);
    }
    if let Some(version) = outcome.version {
        line.text("version", &labels::version(version));
    }
    line.number("status", u64::from(outcome.status));
    line.word("source", outcome.source.as_str());
    if let Some(reason) = outcome.refusal {
        line.word("refusal", reason.as_str());
    }
    if let Some(reason) = outcome.would_refuse {
        line.word("would_refuse", reason.as_str());
    }
    line.word("ending", outcome.ending.as_str());
    line.number("charged", u64::from(outcome.charged().0));
    attempts(&mut line, outcome, finish);
    let ended = outcome.ended.unwrap_or(finish.now);
    line.milliseconds("duration_ms", ended.saturating_duration_since(outcome.started));
    line.number("bytes_in", outcome.bytes_in);
    line.number("bytes_out", outcome.bytes_out);
    line.end();
}

fn attempts(line: &mut Line<'_>, outcome: &Outcome, finish: &Finish<'_>) {
    line.number("attempts", outcome.exchanges.len() as u64);
    let Some(last) = outcome.exchanges.last() else { return };
    if let Some(status) = last.status {
        line.number("upstream_status", u64::from(status));
    }
    if let Some(kind) = last.failure {
        line.word("failure", kind.as_str());
    }
    if let Some(code) = &last.error_code {
        line.text("error_code", labels::error_code(code));
    }
    let ended = outcome.ended.unwrap_or(finish.now);
    let took =
        |exchange: &crate::outcome::Exchange| exchange.ended.unwrap_or(ended).saturating_duration_since(exchange.sent);
    line.milliseconds("upstream_ms", outcome.exchanges.iter().map(took).sum());
    if finish.continues {
        line.flag("continues", true);
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

impl Recorder {
    /// Logs a request that ended; `object` is the word its metrics used.
    pub(super) fn log(&self, outcome: &Outcome, object: labels::WordId, finish: &Finish<'_>) {
        let Some(access) = &self.access else { return };
        let wall = self.shared.clock.wall(outcome.ended.unwrap_or(finish.now));
        let object = (object != labels::WordId::NONE).then(|| self.shared.objects.word(object));
        access.append(|out, stamp| write(out, stamp, wall, outcome, object.as_deref(), finish));
    }
}
