//! Asks `/limits` what an org has used, where the operator wants it and no answer has said so for a while.
//!
//! One poller for each org. It stays silent while callers' answers say what is used, so a busy org is never asked. What it
//! asks is a call like any other: counted, logged, and refused where nothing is left. After a failure it waits longer and
//! longer.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use parking_lot::Mutex;
use smol_str::SmolStr;
use tokio::time::Instant;
use tower::Service;

use crate::admission::{Ledger, Reading};
use crate::call::OrgId;
use crate::clock::Clock;
use crate::edge::{Arrival, Connection, Drain, Inbound};
use crate::outcome::PollResult;
use crate::refusal::Reason;
use crate::salesforce::{self, LimitInfo};
use crate::stack::{self, Local, Shared};
use crate::stages::observe::ObservedBody;
use crate::tasks::Tasks;
use crate::telemetry::{Level, Log};

/// A version every org serves (facts 1.6).
const PATH: &str = "/services/data/v62.0/limits";
/// Names the gateway in Salesforce's own logs.
const CLIENT: &str = "client=weirkeeper";
/// Longest answer that is read.
const LONGEST: usize = 256 * 1_024;
/// How soon a reload that begins or ends the asking is noticed.
const NOTICE: Duration = Duration::from_secs(5);
/// How long it waits after a first failure.
const FIRST_WAIT: Duration = Duration::from_mins(1);
/// And after many.
const LAST_WAIT: Duration = Duration::from_hours(1);

/// Asks every org that is to be asked, for as long as the process lives.
pub fn keep(shared: Shared, tasks: &Tasks) {
    let own = tasks.clone();
    tasks.spawn_background(async move {
        let asked: Arc<Mutex<HashSet<SmolStr>>> = Arc::default();
        loop {
            for org in shared.in_force.load().orgs().iter().filter(|org| org.poll.is_some()) {
                if !asked.lock().insert(org.name.clone()) {
                    continue;
                }
                let (name, shared, asked) = (org.name.clone(), shared.clone(), Arc::clone(&asked));
                own.spawn_background(async move {
                    poll(&name, &shared).await;
                    asked.lock().remove(&name);
                });
            }
            tokio::time::sleep(NOTICE).await;
        }
    });
}

/// Asks one org until it is not to be asked any more.
async fn poll(name: &SmolStr, shared: &Shared) {
    let local = Local { tasks: Tasks::new(), drain: Drain::new() };
    let mut road = stack::build_poll(shared, &local, name);
    let (clock, log) = (shared.clock, shared.telemetry.log().clone());
    let mut schedule = Schedule::default();
    loop {
        let Some((every, ledger)) = asked(name, shared) else { return };
        let now = clock.now();
        let wait = schedule.wait(every, ledger.reading_age(now), now);
        if !wait.is_zero() {
            tokio::time::sleep(wait.min(NOTICE)).await;
            continue;
        }
        let result = match road.call(question(clock)).await {
            Ok(response) => answer(response, &ledger, clock).await,
            Err(never) => match never {},
        };
        shared.telemetry.add_poll(name, result);
        if schedule.asked(result, clock.now()) {
            announce(&log, name, result);
        }
    }
}

/// How old a reading of `name` may grow, and its ledger, if it is to be asked.
fn asked(name: &SmolStr, shared: &Shared) -> Option<(Duration, Ledger)> {
    let live = shared.in_force.load();
    let place = live.orgs().iter().position(|org| org.name == *name)?;
    let org = live.org(OrgId(u16::try_from(place).ok()?))?;
    Some((org.poll?.every, org.ledger.clone()))
}

fn question(clock: Clock) -> Arrival {
    let mut request = Request::new(());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = http::Uri::from_static(PATH);
    let headers = request.headers_mut();
    headers.insert(header::ACCEPT, header::HeaderValue::from_static("application/json"));
    headers.insert("sforce-call-options", header::HeaderValue::from_static(CLIENT));
    let (head, ()) = request.into_parts();
    let connection = Connection::new((std::net::Ipv4Addr::LOCALHOST, 0).into(), 0);
    Arrival { head, body: Inbound::whole(Bytes::new(), clock), connection: Arc::new(connection) }
}

/// What came of the question. A figure in the head has been read on the way; what stands in the body is read here.
async fn answer(response: Response<ObservedBody>, ledger: &Ledger, clock: Clock) -> PollResult {
    let (head, body) = response.into_parts();
    let refused = head.headers.get("weirkeeper-refused").and_then(|reason| Reason::parse(reason.to_str().ok()?));
    let body = Limited::new(body, LONGEST).collect().await;
    match refused {
        Some(Reason::OrgAllowance | Reason::Shed | Reason::Pace | Reason::BudgetUnready | Reason::Paused) => {
            return PollResult::Refused;
        }
        Some(_) => return PollResult::Failed,
        None if head.status != StatusCode::OK => return PollResult::Failed,
        None => {}
    }
    let told = head.headers.get("sforce-limit-info").and_then(|value| LimitInfo::parse(value.as_bytes()).org);
    if told.is_some() {
        return PollResult::Read;
    }
    let Ok(body) = body else { return PollResult::Failed };
    let daily = salesforce::daily_requests(&body.to_bytes());
    match daily.and_then(|(max, remaining)| Reading::from_limits(max, remaining)) {
        Some(reading) if ledger.read(reading, clock.now()).is_ok() => PollResult::Read,
        _ => PollResult::Silent,
    }
}

fn announce(log: &Log, org: &SmolStr, result: PollResult) {
    let (level, event) = match result {
        PollResult::Read => (Level::Info, "limits_poll_back"),
        PollResult::Refused | PollResult::Silent | PollResult::Failed => (Level::Warn, "limits_poll_failed"),
    };
    log.event(level, event, &[("org", org.as_str().into()), ("result", result.as_str().into())]);
}

/// When to ask next.
#[derive(Debug, Default)]
struct Schedule {
    last: Option<Instant>,
    /// Failures since the last success.
    failures: u32,
    /// The last question brought nothing.
    in_vain: bool,
}

impl Schedule {
    /// How long to wait, when the last reading is `age` old. There is nothing to ask while answers say what is used.
    fn wait(&self, every: Duration, age: Option<Duration>, now: Instant) -> Duration {
        let pause = match self.failures {
            _ if !self.in_vain => every,
            0 => FIRST_WAIT,
            failures => FIRST_WAIT.saturating_mul(1 << (failures - 1).min(10)).min(LAST_WAIT),
        };
        let rested = self.last.map_or(Duration::ZERO, |last| (last + pause).saturating_duration_since(now));
        rested.max(age.map_or(Duration::ZERO, |age| every.saturating_sub(age)))
    }

    /// Takes in what came of a question; says whether that is news.
    fn asked(&mut self, result: PollResult, now: Instant) -> bool {
        self.last = Some(now);
        self.failures = match result {
            PollResult::Failed | PollResult::Silent => self.failures.saturating_add(1),
            // Nothing was sent: to ask again costs nothing.
            PollResult::Refused | PollResult::Read => 0,
        };
        let in_vain = result != PollResult::Read;
        std::mem::replace(&mut self.in_vain, in_vain) != in_vain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_mins(5);

    #[tokio::test(start_paused = true)]
    async fn it_asks_at_once_then_when_the_last_reading_is_old() {
        let (mut schedule, now) = (Schedule::default(), Clock::start().now());
        assert_eq!(schedule.wait(EVERY, None, now), Duration::ZERO);
        assert!(!schedule.asked(PollResult::Read, now), "that is how it should be");
        assert_eq!(schedule.wait(EVERY, Some(Duration::ZERO), now), EVERY);
        let later = now + Duration::from_mins(7);
        assert_eq!(schedule.wait(EVERY, Some(Duration::from_mins(2)), later), Duration::from_mins(3));
        assert_eq!(schedule.wait(EVERY, Some(EVERY), later), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn it_backs_off_after_failures_and_not_after_refusals() {
        let (mut schedule, now) = (Schedule::default(), Clock::start().now());
        for (failures, minutes) in [1, 2, 4, 8, 16, 32, 60, 60].into_iter().enumerate() {
            assert_eq!(schedule.asked(PollResult::Failed, now), failures == 0, "said once");
            assert_eq!(schedule.wait(EVERY, None, now), Duration::from_mins(minutes));
        }
        schedule.asked(PollResult::Refused, now);
        assert_eq!(schedule.wait(EVERY, None, now), FIRST_WAIT);
        assert!(schedule.asked(PollResult::Read, now));
        assert_eq!(schedule.wait(EVERY, None, now), EVERY);
    }
}
