//! Sends spans to the collector: in batches, by OTLP over HTTP in JSON. A collector that is slow, refuses or is gone costs
//! spans, never calls.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde_json::Value;

use crate::body::{ByteBudget, Payload};
use crate::clock::Clock;
use crate::edge::Inbound;
use crate::exchange::{Plan, Upstream};
use crate::live::{InForce, LiveTraces};
use crate::outcome::{Outcome, Record, RequestId};
use crate::tasks::Tasks;
use crate::telemetry::spans::encode;
use crate::telemetry::{Level, Log, Telemetry};

/// For how long a batch is sent.
const BOUND: Duration = Duration::from_secs(10);
/// How often a batch is sent at most.
const ATTEMPTS: u32 = 4;
/// How long to wait before the second time; twice as long before each further one.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest such wait, whatever the collector asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// An answer is never longer.
const LARGEST: usize = 64 * 1024;
/// Spans taken at once where they go nowhere.
const ALL: usize = 10_000;

/// Why a batch was not taken.
struct Refused {
    why: String,
    again: Again,
}

/// Whether a batch may be taken later.
enum Again {
    Never,
    /// After the usual pause.
    Soon,
    /// After the time that the collector asks for.
    After(Duration),
}

/// Sends spans for as long as the process lives.
pub fn keep(in_force: InForce, clock: Clock, tasks: &Tasks, telemetry: Telemetry) {
    let own = tasks.clone();
    tasks.spawn_background(async move {
        let mut way: Option<(Arc<LiveTraces>, Upstream<Inbound>)> = None;
        let mut well = true;
        loop {
            telemetry.spans().any().await;
            let Some(traces) = in_force.load().traces.clone() else {
                // A reload has ended them.
                telemetry.spans().next(ALL, Duration::ZERO).await;
                telemetry.spans().settle(0);
                continue;
            };
            let batch = telemetry.spans().next(traces.batch, traces.every).await;
            let upstream = match &way {
                Some((known, upstream)) if Arc::ptr_eq(known, &traces) => upstream.clone(),
                _ => {
                    let upstream = Upstream::new([traces.target.clone()], clock, &own, &ByteBudget::new(LARGEST));
                    way = Some((Arc::clone(&traces), upstream.clone()));
                    upstream
                }
            };
            let sent = send(&upstream, &traces, &Bytes::from(encode(&batch)), clock).await;
            let taken = sent.as_ref().map_or(0, |rejected| batch.len().saturating_sub(*rejected));
            telemetry.spans().settle(taken);
            tell(&mut well, sent.err(), telemetry.log());
        }
    });
}

/// Says once that spans are not taken, and once that they are again.
fn tell(well: &mut bool, problem: Option<String>, log: &Log) {
    match problem {
        Some(why) if *well => log.event(Level::Warn, "traces_not_taken", &[("why", why.as_str().into())]),
        None if !*well => log.event(Level::Info, "traces_taken_again", &[]),
        _ => return,
    }
    *well = !*well;
}

/// Sends a batch, more than once if need be; says how many of its spans the collector rejected.
async fn send(upstream: &Upstream<Inbound>, traces: &LiveTraces, body: &Bytes, clock: Clock) -> Result<usize, String> {
    let (mut made, mut pause) = (1, PAUSE);
    loop {
        let refused = match post(upstream, traces, body.clone(), clock).await {
            Ok(rejected) => return Ok(rejected),
            Err(refused) => refused,
        };
        let wait = match refused.again {
            Again::Soon if made < ATTEMPTS => pause,
            Again::After(told) if made < ATTEMPTS => told.min(LONGEST_PAUSE),
            _ => return Err(refused.why),
        };
        tokio::time::sleep(wait).await;
        made += 1;
        pause *= 2;
    }
}

async fn post(upstream: &Upstream<Inbound>, traces: &LiveTraces, body: Bytes, clock: Clock) -> Result<usize, Refused> {
    let for_good = |why: String| Refused { why, again: Again::Never };
    let json = HeaderValue::from_static("application/json");
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(traces.path.as_str())
        .header(HOST, traces.target.origin.authority())
        .header(ACCEPT, json.clone())
        .header(CONTENT_TYPE, json)
        .body(Payload::Whole(body, None))
        .map_err(|error| for_good(error.to_string()))?;
    request.headers_mut().extend(traces.headers.iter().cloned());
    let now = clock.now();
    let plan = Plan::aside(now, BOUND);
    let record = Record::new(Outcome::new(RequestId::default(), now, Method::POST));
    let answer = upstream.send(request, &plan, &record).await;
    let answer = answer.map_err(|failure| Refused { why: failure.detail.into_string(), again: Again::Soon })?;
    let status = answer.status();
    if !status.is_success() {
        let again = match told(answer.headers()) {
            _ if !may_pass(status) => Again::Never,
            Some(told) => Again::After(told),
            None => Again::Soon,
        };
        return Err(Refused { why: format!("the collector answered {status}"), again });
    }
    let body = Limited::new(answer.into_body(), LARGEST).collect().await;
    // An answer that cannot be read says nothing of rejected spans.
    Ok(body.map_or(0, |body| rejected(&body.to_bytes())))
}

/// Answers after which OTLP says that one should try again.
fn may_pass(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

fn told(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

/// How many spans of a batch the collector did not want although it took the batch.
fn rejected(body: &[u8]) -> usize {
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    let count = &said["partialSuccess"]["rejectedSpans"];
    let count = count.as_u64().or_else(|| count.as_str()?.parse().ok()).unwrap_or_default();
    usize::try_from(count).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_rejected_is_a_number_or_a_text() {
        for (body, count) in [
            (r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too old"}}"#, 3),
            (r#"{"partialSuccess":{"rejectedSpans":2}}"#, 2),
            ("{}", 0),
            ("", 0),
            ("not JSON", 0),
        ] {
            assert_eq!(rejected(body.as_bytes()), count, "{body}");
        }
    }

    #[test]
    fn only_what_may_pass_is_sent_again() {
        for (status, again) in [(429, true), (503, true), (400, false), (401, false), (404, false), (500, false)] {
            assert_eq!(may_pass(StatusCode::from_u16(status).unwrap()), again, "{status}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("7"));
        assert_eq!(told(&headers), Some(Duration::from_secs(7)));
    }
}
