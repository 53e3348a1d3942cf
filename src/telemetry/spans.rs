//! Spans of requests that ended, on their way to a collector: made from the same record and in the same words as the access
//! log, kept in a bounded queue, and written as OTLP in JSON.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use super::line::Stamp;
use super::{Finish, Shared, VERSION, access};
use crate::outcome::{Ending, Outcome, RequestId, Span};

/// Members of a line of the access log under the names that traces have for them; all others are `weirkeeper.` and their own.
const STANDARD: [(&str, &str); 6] = [
    ("method", "http.request.method"),
    ("status", "http.response.status_code"),
    ("template", "http.route"),
    ("remote", "client.address"),
    ("http", "network.protocol.version"),
    ("bytes_in", "http.request.body.size"),
];
/// Members that a span says in its own way.
const SAID: [&str; 3] = ["time", "event", "trace_id"];

/// `SPAN_KIND_SERVER`.
const SERVER: u8 = 2;
/// `STATUS_CODE_ERROR`.
const ERROR: u8 = 2;

/// The span of one request.
#[derive(Debug)]
pub struct EndedSpan {
    trace: RequestId,
    span: Box<Span>,
    /// The line of the access log.
    line: Vec<u8>,
    began: Duration,
    ended: Duration,
    failed: bool,
    events: Vec<Event>,
}

/// Something that happened at a stage.
#[derive(Debug)]
struct Event {
    at: Duration,
    name: &'static str,
    members: Vec<(&'static str, Value)>,
}

/// Spans that wait to be sent, and what became of the others. A number of them is kept at most; further ones are dropped.
#[derive(Debug, Default)]
pub struct Spans {
    waiting: Mutex<VecDeque<EndedSpan>>,
    most: AtomicUsize,
    enough: AtomicUsize,
    counts: [AtomicU64; 3],
    /// There is one, or there are enough.
    news: Notify,
    /// Nobody waits for more any longer.
    last: AtomicBool,
    /// Some were taken and not yet counted.
    on_their_way: AtomicUsize,
}

/// Spans by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpanCounts {
    /// The collector took them.
    pub sent: u64,
    /// There was no room for them.
    pub dropped: u64,
    /// The collector did not take them, or could not be reached for long.
    pub failed: u64,
}

impl Spans {
    /// At most so many wait from now on, and so many are enough to be sent.
    pub fn keep(&self, (most, enough): (usize, usize)) {
        self.most.store(most, Ordering::Relaxed);
        self.enough.store(enough.min(most), Ordering::Relaxed);
    }

    /// What became of all so far.
    pub fn counts(&self) -> SpanCounts {
        let [sent, dropped, failed] = self.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        SpanCounts { sent, dropped, failed }
    }

    fn add(&self, span: impl FnOnce() -> EndedSpan) {
        let most = self.most.load(Ordering::Relaxed);
        if self.waiting.lock().len() >= most {
            self.count(0, 1, 0);
            return;
        }
        // Written without the lock, for which all other runtimes would wait.
        let span = span();
        let mut waiting = self.waiting.lock();
        if waiting.len() >= most {
            drop(waiting);
            self.count(0, 1, 0);
            return;
        }
        waiting.push_back(span);
        let count = waiting.len();
        drop(waiting);
        if count == 1 || count == self.enough.load(Ordering::Relaxed) {
            self.news.notify_one();
        }
    }

    fn count(&self, sent: u64, dropped: u64, failed: u64) {
        for (count, more) in self.counts.iter().zip([sent, dropped, failed]) {
            count.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// The next ones to be sent, at most `most`: once there are enough, or after `gather`. What became of them is said by
    /// [`Self::settle`].
    pub async fn next(&self, most: usize, gather: Duration) -> Vec<EndedSpan> {
        while self.waiting.lock().is_empty() {
            self.news.notified().await;
        }
        let enough = async {
            while self.waiting.lock().len() < self.enough.load(Ordering::Relaxed) && !self.last.load(Ordering::Relaxed)
            {
                self.news.notified().await;
            }
        };
        let _ = tokio::time::timeout(gather, enough).await;
        let mut waiting = self.waiting.lock();
        let count = waiting.len().min(most);
        self.on_their_way.store(count, Ordering::Relaxed);
        waiting.drain(..count).collect()
    }

    /// Waits until there is one.
    pub async fn any(&self) {
        while self.waiting.lock().is_empty() {
            self.news.notified().await;
        }
    }

    /// Of the ones taken last, `sent` were sent, and the others were not.
    pub fn settle(&self, sent: usize) {
        let taken = self.on_their_way.swap(0, Ordering::Relaxed);
        self.count(sent.min(taken) as u64, 0, taken.saturating_sub(sent) as u64);
    }

    /// Has what waits sent at once, and waits for that, but no longer than `patience`.
    pub async fn finish(&self, patience: Duration) {
        self.last.store(true, Ordering::Relaxed);
        self.news.notify_one();
        let gone = async {
            while !self.waiting.lock().is_empty() || self.on_their_way.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = tokio::time::timeout(patience, gone).await;
    }
}

impl Shared {
    /// Keeps the span of a request, if it is recorded. `words` are the members of its line that are labels.
    #[cold]
    pub(super) fn trace(&self, span: &Span, outcome: &Outcome, words: &[u8], finish: &Finish<'_>) {
        if span.sampled {
            self.spans.add(|| self.ended(span, outcome, words, finish));
        }
    }

    fn ended(&self, span: &Span, outcome: &Outcome, words: &[u8], finish: &Finish<'_>) -> EndedSpan {
        let wall = |at| self.clock.wall(at);
        let ended = wall(outcome.ended.unwrap_or(finish.now));
        let mut line = Vec::new();
        access::write(&mut line, &mut Stamp::default(), ended, outcome, words, finish);
        let mut events = Vec::new();
        let mut happened = |at, name, members| events.push(Event { at: wall(at), name, members });
        for (place, exchange) in outcome.exchanges.iter().enumerate() {
            let attempt = ("attempt", Value::from(place + 1));
            happened(exchange.sent, "sent", vec![attempt.clone()]);
            if let Some(head) = exchange.head {
                let status = exchange.status.map(|status| ("status", status.into()));
                happened(head, "upstream_head", [attempt.clone()].into_iter().chain(status).collect());
            }
            if let Some(end) = exchange.ended {
                let trouble = exchange.trouble().map(|trouble| ("failure", trouble.as_str().into()));
                happened(end, "upstream_end", [attempt].into_iter().chain(trouble).collect());
            }
        }
        if let Some(answered) = outcome.answered {
            let refusal = outcome.refusal.map(|reason| ("refusal", reason.as_str().into()));
            let cache = outcome.cache.map(|result| ("cache", result.as_str().into()));
            happened(answered, "answer", refusal.into_iter().chain(cache).collect());
        }
        EndedSpan {
            trace: outcome.trace.unwrap_or(outcome.id),
            span: Box::new(span.clone()),
            line,
            began: wall(outcome.started),
            ended,
            failed: outcome.status >= 500 || outcome.ending == Ending::Cut,
            events,
        }
    }
}

/// The body of a request to the collector: OTLP, `ExportTraceServiceRequest`, in JSON.
pub fn encode(spans: &[EndedSpan]) -> Vec<u8> {
    let spans: Vec<_> = spans.iter().map(span).collect();
    let body = json!({"resourceSpans": [{
        "resource": {"attributes": [attribute("service.name", &"weirkeeper".into()), attribute("service.version", &VERSION.into())]},
        "scopeSpans": [{"scope": {"name": "weirkeeper", "version": VERSION}, "spans": spans}],
    }]});
    serde_json::to_vec(&body).unwrap_or_default()
}

fn span(ended: &EndedSpan) -> Value {
    let line: Map<String, Value> = serde_json::from_slice(&ended.line).unwrap_or_default();
    let word = |key: &str| line.get(key).and_then(Value::as_str);
    let method = word("method").unwrap_or("HTTP");
    let name = word("template").map_or_else(|| method.to_owned(), |template| format!("{method} {template}"));
    let named = line.iter().filter(|(key, _)| !SAID.contains(&key.as_str())).map(|(key, value)| {
        match STANDARD.iter().find(|(ours, _)| ours == key) {
            Some((_, standard)) => attribute(standard, value),
            None => attribute(&format!("weirkeeper.{key}"), value),
        }
    });
    let events = ended.events.iter().map(|event| {
        let members: Vec<_> = event.members.iter().map(|(key, value)| attribute(key, value)).collect();
        json!({"timeUnixNano": nanos(event.at), "name": event.name, "attributes": members})
    });
    let mut span = json!({
        "traceId": format!("{:032x}", ended.trace.0),
        "spanId": format!("{:016x}", ended.span.id),
        "name": name,
        "kind": SERVER,
        "flags": 1,
        "startTimeUnixNano": nanos(ended.began),
        "endTimeUnixNano": nanos(ended.ended.max(ended.began)),
        "attributes": named.collect::<Vec<_>>(),
        "events": events.collect::<Vec<_>>(),
        "status": if ended.failed { json!({"code": ERROR}) } else { json!({}) },
    });
    if let Some(parent) = ended.span.parent {
        span["parentSpanId"] = format!("{parent:016x}").into();
    }
    if let Some(state) = ended.span.state.as_deref() {
        span["traceState"] = state.into();
    }
    span
}

/// Numbers of 64 bits are texts in OTLP's JSON.
fn nanos(time: Duration) -> String {
    time.as_nanos().to_string()
}

fn attribute(key: &str, value: &Value) -> Value {
    let value = match value {
        Value::Bool(flag) => json!({"boolValue": flag}),
        Value::Number(number) if number.is_f64() => json!({"doubleValue": number}),
        Value::Number(number) => json!({"intValue": number.to_string()}),
        Value::String(text) => json!({"stringValue": text}),
        other => json!({"stringValue": other.to_string()}),
    };
    json!({"key": key, "value": value})
}
