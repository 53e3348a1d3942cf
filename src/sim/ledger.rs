//! Admission and settlement: what a request costs, and whether it may run at all.

use http::header;
use smol_str::SmolStr;

use super::Sim;
use super::answer::{Answer, Content};
use super::batch;
use super::body::Upload;
use super::clock::{Micros, SECOND};
use super::config::SimCosts;
use super::counts::SimRequest;
use super::describe;
use super::errors::ApiError;
use super::faults::{FaultAction, Plan};
use super::meter::{Limit, Payer};
use super::request::{Head, Req, version};
use super::respond::Trimmings;
use super::route;
use super::server::Visit;
use super::store::Change;
use super::world::{Maintenance, World};

/// Requests remembered for tests.
const REMEMBERED: usize = 1_000;

/// What an admission decided.
pub(super) enum Admission {
    /// The request may run.
    Admitted(Ticket, Plan),
    /// It may not; this is the answer.
    Refused(Answer, Trimmings),
}

/// A running request. If it is dropped without having been settled, its caller left before the body was complete.
#[derive(Debug)]
pub(super) struct Ticket {
    sim: Sim,
    number: u64,
    began: Micros,
    payer: Payer,
    pub(super) user: Option<usize>,
    /// Calls booked so far.
    charged: u64,
    /// What it costs if it succeeds.
    base: u64,
    /// Whether a place among the running calls was taken.
    runs: bool,
    open: bool,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.open {
            let now = self.sim.clock().now();
            let mut world = self.sim.world();
            if self.runs {
                world.meter.end(self.began, self.number, now);
            }
            *world.tally.by_status.entry(0).or_default() += 1;
            remember(&mut world, self.number, 0, self.charged);
        }
    }
}

fn remember(world: &mut World, number: u64, status: u16, charged: u64) {
    if let Some(request) = world.requests.iter_mut().rev().find(|request| request.number == number) {
        request.status = Some(status);
        request.charged = charged;
    }
}

/// Whether a family needs a session and is charged at all.
fn is_call(family: &str) -> bool {
    !matches!(family, "versions" | "oauth" | "cometd" | "other")
}

impl Sim {
    /// Decides about a request whose head has arrived, and books one call if it may run.
    pub(super) fn admit(&self, visit: &Visit) -> Admission {
        let now = self.clock().now();
        let mut guard = self.world();
        let world = &mut *guard;
        world.tally.requests += 1;
        let number = world.tally.requests;
        let family = visit.head.family();
        let user = visit.head.token().and_then(|token| world.authenticate(token, now));
        let payer = Payer { user: world.username(user), client: visit.head.client(), family };
        note(world, visit, number, now, &payer.user);
        let refusal = edge(world, visit).or_else(|| session(world, &visit.head, user).map(Answer::from));
        let limited = if refusal.is_none() && is_call(family) { world.meter.refuses(now) } else { None };
        if let Some(limit) = limited {
            match limit {
                Limit::Daily => world.tally.refused_daily += 1,
                Limit::Concurrent => world.tally.refused_concurrent += 1,
            }
        }
        if let Some(answer) = refusal.or_else(|| limited.map(refused)) {
            let cost = if is_call(family) && answer.status != 420 {
                cost_of(&world.config.costs, &answer, family, 1)
            } else {
                0
            };
            world.meter.charge(now, &payer, cost);
            *world.tally.by_status.entry(answer.status).or_default() += 1;
            remember(world, number, answer.status, cost);
            let trimmings = trimmings(world, &payer, now, answer.status == 420);
            return Admission::Refused(answer, trimmings);
        }
        let base = u64::from(is_call(family));
        world.meter.charge(now, &payer, base);
        let runs = is_call(family);
        if runs {
            world.meter.begin(now, number);
        }
        let mut plan = {
            let World { faults, rng, users, .. } = world;
            let name = user.and_then(|user| users.get(user)).map(|user| user.username.as_str());
            faults.plan(&visit.head, name, rng).unwrap_or(Plan { latency_ms: 0, action: FaultAction::None })
        };
        if runs {
            let jitter = if world.jitter_ms == 0 { 0 } else { world.rng.u64(0..=world.jitter_ms) };
            plan.latency_ms += world.latency_ms + jitter;
        }
        let ticket =
            Ticket { sim: self.clone(), number, began: now, payer, user, charged: base, base, runs, open: true };
        Admission::Admitted(ticket, plan)
    }

    /// Runs the handler of a request whose body has arrived.
    pub(super) fn execute(&self, visit: &Visit, ticket: &Ticket, upload: &Upload) -> Answer {
        let now = self.clock().now();
        let mut guard = self.world();
        let world = &mut *guard;
        world.tally.body_bytes += upload.total;
        let answer = dispatch(world, visit, ticket, upload, now);
        let World { store, tally, .. } = world;
        for (object, change) in store.commit() {
            let writes = tally.writes.entry(object).or_default();
            match change {
                Change::Created => writes.created += 1,
                Change::Updated => writes.updated += 1,
                Change::Deleted => writes.deleted += 1,
            }
        }
        answer
    }

    /// Closes the books on a request. `seen` is the status the caller gets, if it gets one.
    pub(super) fn settle(&self, mut ticket: Ticket, answer: &Answer, seen: Option<u16>) -> Trimmings {
        ticket.open = false;
        let now = self.clock().now();
        let mut guard = self.world();
        let world = &mut *guard;
        let base = ticket.base.max(answer.calls);
        let cost = cost_of(&world.config.costs, answer, ticket.payer.family, base);
        let cost = if ticket.runs || ticket.payer.family == "oauth" { cost } else { 0 };
        if cost > ticket.charged {
            world.meter.charge(now, &ticket.payer, cost - ticket.charged);
        } else {
            world.meter.refund(ticket.began, now, &ticket.payer, ticket.charged - cost);
        }
        if ticket.runs {
            world.meter.end(ticket.began, ticket.number, now);
        }
        *world.tally.by_status.entry(seen.unwrap_or(0)).or_default() += 1;
        remember(world, ticket.number, seen.unwrap_or(0), cost);
        trimmings(world, &ticket.payer, now, !is_call(ticket.payer.family) || answer.is_page())
    }
}

/// What a finished request costs, with the switches for the undocumented cases (facts 1.3).
fn cost_of(costs: &SimCosts, answer: &Answer, family: &str, base: u64) -> u64 {
    match answer.status {
        _ if family == "oauth" => costs.oauth,
        304 => costs.not_modified,
        _ if answer.refusal => costs.refusal,
        400..=499 => costs.client_error,
        500.. => costs.server_error,
        _ if answer.is_limits => costs.limits,
        _ => base,
    }
}

fn refused(limit: Limit) -> Answer {
    let message = match limit {
        Limit::Daily => "TotalRequests Limit exceeded.",
        Limit::Concurrent => "ConcurrentRequests (Concurrent API Requests) Limit exceeded.",
    };
    ApiError::new(403, "REQUEST_LIMIT_EXCEEDED", message).into()
}

/// What is refused before anybody asks who is calling.
fn edge(world: &World, visit: &Visit) -> Option<Answer> {
    let hosts = &world.config.hosts;
    let known = hosts.is_empty() || hosts.iter().any(|host| host.eq_ignore_ascii_case(&visit.host));
    if !known {
        return Some(Answer::html(420, "We are setting things up"));
    }
    match visit.too_long {
        Some(414) => return Some(Answer::html(414, "URI Too Long")),
        Some(_) => return Some(Answer::html(431, "Request Header Fields Too Large")),
        None => {}
    }
    (world.maintenance == Maintenance::Down).then(|| Answer::html(503, "We are down for maintenance."))
}

fn session(world: &mut World, head: &Head, user: Option<usize>) -> Option<ApiError> {
    if !is_call(head.family()) {
        return None;
    }
    let Some(user) = user else {
        world.tally.unauthenticated += 1;
        return Some(ApiError::session());
    };
    let enabled = world.users.get(user).is_some_and(|user| user.api_enabled);
    (!enabled).then(|| ApiError::new(403, "API_CURRENTLY_DISABLED", "API is disabled for this User"))
}

fn dispatch(world: &mut World, visit: &Visit, ticket: &Ticket, upload: &Upload, now: Micros) -> Answer {
    let head = &visit.head;
    if head.family() == "versions" {
        return describe::versions();
    }
    let data = head.segments.first().is_some_and(|part| part == "services")
        && head.segments.get(1).is_some_and(|part| part == "data");
    let number = head.segments.get(2).filter(|_| data).and_then(|text| version(text));
    let (Some(number), Some(user)) = (number, ticket.user) else {
        return ApiError::not_found().into();
    };
    let path = head.segments.get(3..).unwrap_or_default();
    let req = Req { head, path, version: number, body: &upload.kept, user, now, origin: &visit.origin, nested: false };
    let mut answer = route::data(world, &req);
    answer.is_limits = path.first().is_some_and(|part| part == "limits");
    if head.family() == "batch" {
        answer.calls = batch::cost(&upload.kept);
    }
    answer
}

fn trimmings(world: &mut World, payer: &Payer, now: Micros, plain: bool) -> Trimmings {
    let browser = (0..22).map(|_| world.rng.alphanumeric()).collect();
    let limit_info = (!plain).then(|| limit_info(world, payer, now));
    Trimmings { now, limit_info, browser, gzip: world.config.gzip }
}

/// `Sforce-Limit-Info` in the variant chosen (facts 1.7).
fn limit_info(world: &mut World, payer: &Payer, now: Micros) -> String {
    let config = std::sync::Arc::clone(&world.config);
    let limit = world.meter.limit;
    let used = world.meter.shown(now, config.header.lag_seconds * SECOND);
    let mut info = format!("api-usage={used}/{limit}");
    if let Some(share) = config.header.per_app.get(payer.client.as_str()) {
        let used = world.meter.client_used(&payer.client, now);
        info.push_str(&format!("; per-app-api-usage={used}/{share}(appName={})", payer.client));
    }
    if config.header.bursts {
        let over = used.saturating_sub(limit).min(1);
        info.push_str(&format!("; api-bursts={over}/750"));
    }
    info
}

fn note(world: &mut World, visit: &Visit, number: u64, at: Micros, user: &SmolStr) {
    let headers = visit
        .head
        .headers
        .iter()
        .map(|(name, value)| {
            let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
            let shown = match name {
                &header::AUTHORIZATION => text.split(' ').next().unwrap_or_default().to_owned() + " ...",
                &header::COOKIE => "...".to_owned(),
                name if name.as_str() == "x-sfdc-session" => "...".to_owned(),
                _ => text,
            };
            (name.as_str().to_owned(), shown)
        })
        .collect();
    if world.requests.len() >= REMEMBERED {
        world.requests.pop_front();
    }
    world.requests.push_back(SimRequest {
        method: visit.method.clone(),
        target: visit.target.clone(),
        version: format!("{:?}", visit.version),
        headers,
        at,
        user: user.to_string(),
        status: None,
        charged: 0,
        number,
    });
}

impl Answer {
    /// Whether this is a page of the edge, which knows nothing of the org's limits.
    fn is_page(&self) -> bool {
        matches!(&self.content, Content::Text(content_type, _) if content_type.starts_with("text/html"))
    }
}
