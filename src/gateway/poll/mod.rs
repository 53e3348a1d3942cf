//! Asks `/limits` what an org has used, where the operator wants it and no answer has said so for a while.
//!
//! One poller for each org. It stays silent while callers' answers say what is used, so a busy org is never asked. What it
//! asks is a call like any other: counted, logged, and refused where nothing is left. After a failure it waits longer and
//! longer. Of several replicas that share state one asks for all.

#[cfg(feature = "redis")]
mod chair;
#[cfg(feature = "redis")]
pub mod seat;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use parking_lot::Mutex;
use smol_str::SmolStr;
use tokio::sync::watch;
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
/// How soon one that did not ask so far notices that it shall.
const TURN: Duration = Duration::from_secs(1);

/// What a question is asked under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ticket {
    /// Nobody else could ask.
    Alone,
    /// Of all replicas this one was elected; whoever is elected later has a higher number.
    Fence(u64),
}

/// The right to ask one org.
pub trait Right: fmt::Debug + Send + Sync {
    /// What may be asked under at `now`, if anything.
    fn ticket(&self, now: Instant) -> Option<Ticket>;

    /// Whether what was asked under `ticket` may still be taken in at `now`.
    fn holds(&self, ticket: Ticket, now: Instant) -> bool {
        match ticket {
            Ticket::Alone => true,
            Ticket::Fence(_) => self.ticket(now) == Some(ticket),
        }
    }
}

/// The right of the only replica.
#[derive(Debug)]
struct Own;

impl Right for Own {
    fn ticket(&self, _: Instant) -> Option<Ticket> {
        Some(Ticket::Alone)
    }
}

/// Makes the right to ask an org, which is given up once nobody is at the other end of the second argument.
pub type Elect = Box<dyn Fn(&SmolStr, watch::Receiver<()>) -> Arc<dyn Right> + Send + Sync>;

/// Whoever asks. Cloning is one reference count.
#[derive(Clone)]
pub struct Polls(Arc<Inner>);

struct Inner {
    shared: Shared,
    elect: Option<Elect>,
    /// Every org that is being asked, and the right to ask it.
    asked: Mutex<HashMap<SmolStr, Arc<dyn Right>>>,
}

impl fmt::Debug for Polls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Polls").field("asked", &self.0.asked.lock()).finish_non_exhaustive()
    }
}

/// Asks every org that is to be asked, for as long as the process lives. Where several replicas share state, the right to do
/// so comes from `elect`.
pub fn keep(shared: Shared, elect: Option<Elect>, tasks: &Tasks) -> Polls {
    let polls = Polls(Arc::new(Inner { shared, elect, asked: Mutex::default() }));
    let (kept, own) = (polls.clone(), tasks.clone());
    tasks.spawn_background(async move {
        loop {
            kept.begin(&own);
            tokio::time::sleep(NOTICE).await;
        }
    });
    polls
}

impl Polls {
    /// Whether this replica is the one that asks `org`; `None` if it is not to be asked.
    pub fn asks(&self, org: &str) -> Option<bool> {
        let now = self.0.shared.clock.now();
        self.0.asked.lock().get(org).map(|right| right.ticket(now).is_some())
    }

    /// Begins with the orgs that are not yet asked.
    fn begin(&self, tasks: &Tasks) {
        for org in self.0.shared.in_force.load().orgs().iter().filter(|org| org.poll.is_some()) {
            let mut asked = self.0.asked.lock();
            if asked.contains_key(&org.name) {
                continue;
            }
            let (end, ended) = watch::channel(());
            let right: Arc<dyn Right> = match &self.0.elect {
                Some(elect) => elect(&org.name, ended),
                None => Arc::new(Own),
            };
            let (name, polls) = (org.name.clone(), self.clone());
            asked.insert(name.clone(), Arc::clone(&right));
            tasks.spawn_background(async move {
                poll(&name, &polls.0.shared, &*right).await;
                // With this the right is given up.
                drop(end);
                polls.0.asked.lock().remove(&name);
            });
        }
    }
}

/// Asks one org until it is not to be asked any more.
async fn poll(name: &SmolStr, shared: &Shared, right: &dyn Right) {
    let local = Local { tasks: Tasks::new(), drain: Drain::new() };
    let mut road = stack::build_poll(shared, &local, name);
    let (clock, log) = (shared.clock, shared.telemetry.log().clone());
    let mut schedule = Schedule::default();
    loop {
        let Some((every, ledger)) = asked(name, shared) else { return };
        let now = clock.now();
        let Some(ticket) = right.ticket(now) else {
            tokio::time::sleep(TURN).await;
            continue;
        };
        let wait = schedule.wait(every, ledger.reading_age(now), now);
        if !wait.is_zero() {
            tokio::time::sleep(wait.min(NOTICE)).await;
            continue;
        }
        let result = match road.call(question(clock)).await {
            Ok(response) => answer(response, &ledger, clock, || right.holds(ticket, clock.now())).await,
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

/// What came of the question. A figure in the head has been read on the way, as that of any call; what stands in the body is
/// read here, if the right to ask still `holds`: else somebody else may have asked since, and read what is newer.
async fn answer(
    response: Response<ObservedBody>,
    ledger: &Ledger,
    clock: Clock,
    holds: impl Fn() -> bool,
) -> PollResult {
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
    if !holds() {
        return PollResult::Superseded;
    }
    let daily = salesforce::daily_requests(&body.to_bytes());
    match daily.and_then(|(max, remaining)| Reading::from_limits(max, remaining)) {
        Some(reading) if ledger.read(reading, clock.now()).is_ok() => PollResult::Read,
        _ => PollResult::Silent,
    }
}

fn announce(log: &Log, org: &SmolStr, result: PollResult) {
    let (level, event) = match result {
        PollResult::Read => (Level::Info, "limits_poll_back"),
        PollResult::Refused | PollResult::Silent | PollResult::Failed | PollResult::Superseded => {
            (Level::Warn, "limits_poll_failed")
        }
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
            // That says nothing about Salesforce.
            PollResult::Superseded => self.failures,
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
