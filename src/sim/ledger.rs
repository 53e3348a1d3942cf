//! Admission and settlement: what a request costs, and whether it may run at all.

use http::header;
use smol_str::SmolStr;

use super::Sim;
use super::answer::{Answer, Content};
use super::apis;
use super::batch;
use super::body::Upload;
use super::bulk1;
use super::clock::{Micros, millis, seconds};
use super::cometd;
use super::config::SimCosts;
use super::counts::SimRequest;
use super::describe;
use super::errors::ApiError;
use super::faults::{FaultAction, Plan};
use super::forms;
use super::meter::{Limit, Payer};
use super::oauth;
use super::request::{Head, Req, version};
use super::respond::Trimmings;
use super::route;
use super::server::Visit;
use super::soap::{self, Caller, Envelope};
use super::store::Change;
use super::world::{Maintenance, World};

/// Longest a request may be held, milliseconds of simulated time.
const LONGEST_LATENCY_MS: u64 = 3_600_000;
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
    /// The body of a SOAP request.
    envelope: Option<Envelope>,
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
            world.locks.release(self.number);
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

/// Whether a family is refused without a session in the head.
fn needs_session(family: &str) -> bool {
    !matches!(family, "versions" | "oauth" | "cometd" | "soap")
}

/// Whether a request of this family is a call that can grow old.
fn can_age(family: &str) -> bool {
    !matches!(family, "versions" | "oauth" | "cometd")
}

/// What a request costs if it succeeds, as far as its head tells (facts 1.3).
fn price(costs: &SimCosts, head: &Head) -> u64 {
    let path = head.segments.get(3..).unwrap_or_default();
    match head.family() {
        "versions" | "cometd" => 0,
        "oauth" => costs.oauth,
        "connect" if apis::is_chatter(path) => 0,
        "rest" if path.len() == 1 && path.first().is_some_and(|part| part == "limits") => costs.limits,
        _ => 1,
    }
}

impl Sim {
    /// Decides about a request whose head has arrived, and books its price if it may run.
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
        let base = price(&world.config.costs, &visit.head);
        let at_edge = edge(world, visit);
        let is_edge = at_edge.is_some();
        let refusal = at_edge
            .or_else(|| session(world, &visit.head, user).map(Answer::from))
            .or_else(|| if needs_session(family) { limited(world, now) } else { None });
        if let Some(answer) = refusal {
            let answer = forms::shape(&visit.head, answer);
            let cost = if answer.status == 420 { 0 } else { cost_of(&world.config.costs, &answer, base) };
            world.meter.charge(now, &payer, cost);
            *world.tally.by_status.entry(answer.status).or_default() += 1;
            remember(world, number, answer.status, cost);
            let trimmings = trimmings(world, &payer, now, is_edge);
            return Admission::Refused(answer, trimmings);
        }
        world.meter.charge(now, &payer, base);
        let runs = can_age(family);
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
            plan.latency_ms = plan.latency_ms.saturating_add(world.latency_ms).saturating_add(jitter);
        }
        plan.latency_ms = plan.latency_ms.min(LONGEST_LATENCY_MS);
        let sim = self.clone();
        let ticket =
            Ticket { sim, number, began: now, payer, user, charged: base, base, runs, envelope: None, open: true };
        Admission::Admitted(ticket, plan)
    }

    /// What is done once the body has arrived and before any time passes: SOAP says only now who is calling and
    /// what for, and a write that will take its time locks its rows. The answer is a refusal.
    pub(super) fn prepare(
        &self,
        visit: &Visit,
        ticket: &mut Ticket,
        upload: &Upload,
        latency_ms: u64,
    ) -> Option<Answer> {
        let mut guard = self.world();
        let world = &mut *guard;
        let arrived = self.clock().now();
        let until = arrived + millis(latency_ms);
        world.take_locks(ticket.number, &visit.head, &upload.kept, arrived, until);
        if ticket.payer.family != "soap" {
            return None;
        }
        let now = ticket.began;
        ticket.envelope = soap::read(&upload.kept);
        let envelope = ticket.envelope.as_ref()?;
        world.meter.refund(now, now, &ticket.payer, ticket.charged);
        ticket.charged = 0;
        if envelope.is_login() {
            ticket.base = world.config.costs.oauth;
        } else if let Some(token) = envelope.session.as_ref().filter(|token| !token.starts_with("eyJ")) {
            // SOAP knows no sessions in the form of a JWT (facts 2.5).
            ticket.user = world.authenticate(token, now);
            ticket.payer.user = world.username(ticket.user);
        }
        if ticket.user.is_some() && !envelope.is_login() {
            if let Some(answer) = limited(world, now) {
                return Some(answer);
            }
        } else if !envelope.is_login() {
            world.tally.unauthenticated += 1;
        }
        world.meter.charge(now, &ticket.payer, ticket.base);
        ticket.charged = ticket.base;
        None
    }

    /// Runs the handler of a request whose body has arrived.
    pub(super) fn execute(&self, visit: &Visit, ticket: &Ticket, upload: &Upload) -> Answer {
        let now = self.clock().now();
        let mut guard = self.world();
        let world = &mut *guard;
        world.run_due_jobs(now);
        world.locks.current = ticket.number;
        let answer = dispatch(world, visit, ticket, upload, now);
        let answer = forms::shape(&visit.head, answer);
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
        let base = if ticket.base == 0 { 0 } else { ticket.base.max(answer.calls) };
        let cost = cost_of(&world.config.costs, answer, base);
        if cost > ticket.charged {
            world.meter.charge(now, &ticket.payer, cost - ticket.charged);
        } else {
            world.meter.refund(ticket.began, now, &ticket.payer, ticket.charged - cost);
        }
        if ticket.runs {
            world.meter.end(ticket.began, ticket.number, now);
        }
        world.locks.release(ticket.number);
        *world.tally.by_status.entry(seen.unwrap_or(0)).or_default() += 1;
        remember(world, ticket.number, seen.unwrap_or(0), cost);
        trimmings(world, &ticket.payer, now, !can_age(ticket.payer.family) || answer.is_page())
    }
}

/// What a finished request costs, with the switches for the undocumented cases (facts 1.3). What is free stays free.
fn cost_of(costs: &SimCosts, answer: &Answer, base: u64) -> u64 {
    match answer.status {
        _ if base == 0 => 0,
        304 => costs.not_modified,
        _ if answer.refusal => costs.refusal,
        400..=499 => costs.client_error,
        500.. => costs.server_error,
        _ => base,
    }
}

/// The refusal of a call that arrives now, if a limit is used up.
fn limited(world: &mut World, now: Micros) -> Option<Answer> {
    let limit = world.meter.refuses(now)?;
    match limit {
        Limit::Daily => world.tally.refused_daily += 1,
        Limit::Concurrent => world.tally.refused_concurrent += 1,
    }
    Some(refused(limit))
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
    if !needs_session(head.family()) {
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
    match (ticket.payer.family, ticket.user) {
        ("versions", _) => describe::versions(),
        ("oauth", _) => oauth::handle(world, head, &upload.kept, &visit.origin, now),
        ("cometd", _) => cometd::handle(world, head, &upload.kept, ticket.began, now),
        ("soap", user) => soap_call(world, visit, ticket.envelope.as_ref(), user, now),
        ("bulk1", Some(user)) => bulk1::handle(world, head, &upload.kept, user, now).into(),
        ("apex", Some(_)) => apis::apex(head, upload),
        (_, Some(user)) => data(world, visit, upload, user, now),
        (_, None) => ApiError::session().into(),
    }
}

fn data(world: &mut World, visit: &Visit, upload: &Upload, user: usize, now: Micros) -> Answer {
    let head = &visit.head;
    let is_data = head.segments.first().is_some_and(|part| part == "services")
        && head.segments.get(1).is_some_and(|part| part == "data");
    let Some(number) = head.segments.get(2).filter(|_| is_data).and_then(|text| version(text)) else {
        return ApiError::not_found().into();
    };
    let path = head.segments.get(3..).unwrap_or_default();
    let req = Req {
        head,
        path,
        version: number,
        body: &upload.kept,
        body_bytes: upload.total,
        user,
        now,
        origin: &visit.origin,
        nested: false,
    };
    let mut answer = route::whole(world, &req, upload);
    if head.family() == "batch" {
        answer.calls = batch::cost(&upload.kept);
    }
    answer
}

fn soap_call(
    world: &mut World,
    visit: &Visit,
    envelope: Option<&Envelope>,
    user: Option<usize>,
    now: Micros,
) -> Answer {
    let number = visit.head.segments.get(3).and_then(|text| text.strip_suffix(".0")).and_then(|text| text.parse().ok());
    let (Some(envelope), Some(number)) = (envelope, number) else {
        return ApiError::new(500, "UNKNOWN_EXCEPTION", "The envelope cannot be read").into();
    };
    let caller = Caller { user, now, version: number, path: &visit.head.path, origin: &visit.origin };
    soap::handle(world, caller, envelope).into()
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
    let used = world.meter.shown(now, seconds(world.lag_seconds));
    let per_app = config.header.per_app.get(payer.client.as_str()).map(|share| {
        let (app, used) = (&payer.client, world.meter.client_used(&payer.client, now));
        format!("; per-app-api-usage={used}/{share}(appName={app})")
    });
    let bursts = config.header.bursts.then(|| format!("; api-bursts={}/750", used.saturating_sub(limit).min(1)));
    [Some(format!("api-usage={used}/{limit}")), per_app, bursts].into_iter().flatten().collect()
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
