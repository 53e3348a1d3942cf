//! The addresses of the admin listener: which there are, and what each answers.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_SECURITY_POLICY, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Response, StatusCode, request};
use http_body_util::Full;
use serde::Serialize;

use super::Admin;
use super::guard::{Denied, Needs, Reach};
use super::live::{Body, Live, VIEWER_RETRY_SECONDS};
use super::orders::{Order, Purge, Switch, Unknown, chosen_org};
use super::page::{POLICY, PageFile};
use super::words::remedy;
use crate::call::closed_list;
use crate::telemetry::{Level, RecentTrouble, SpendingSnapshot, TEXT_FORMAT};

/// An answer of the admin listener.
pub(super) type Answer = Response<Body>;

closed_list! {
    /// The addresses there are, besides the files of the page.
    Page {
        /// This list.
        Index = "/api/v1",
        /// All metrics in Prometheus's text format.
        Metrics = "/metrics",
        /// 200 as long as the process can answer; depends on nothing else.
        Livez = "/livez",
        /// 200 if requests may be sent here, else 503; every check with its result.
        Readyz = "/readyz",
        /// What the gateway is doing, for people and scripts.
        Status = "/api/v1/status",
        /// Every org's budget: what is used, by whom, what comes back when, when it runs out.
        Budget = "/api/v1/budget",
        /// Who spent every org's calls when.
        Spending = "/api/v1/spending",
        /// Refusals and failures of the last 24 hours, and what to do about them.
        Recent = "/api/v1/recent",
        /// The page's data, every two seconds, as server-sent events.
        Live = "/api/v1/live",
        /// Every org's slots for calls that run long, and who waits.
        Slots = "/api/v1/slots",
        /// The replicas that share state with this one.
        Replicas = "/api/v1/replicas",
        /// Every org's circuit breakers, and what may still be made once more.
        Breakers = "/api/v1/breakers",
        /// POST: hold breakers of an org open.
        OpenBreakers = "/api/v1/breakers/open",
        /// POST: close them.
        CloseBreakers = "/api/v1/breakers/close",
        /// POST: pause a caller or a class of an org.
        Pause = "/api/v1/pause",
        /// POST: resume it.
        Resume = "/api/v1/resume",
        /// What is kept in memory, and what it saved.
        Cache = "/api/v1/cache",
        /// POST: makes kept answers of an org old: all, those about an object, or those of a principal.
        Purge = "/api/v1/cache/purge",
        /// The configuration in force, without secrets.
        Config = "/api/v1/config",
    }
}

impl Page {
    const fn needs(self) -> Needs {
        match self {
            Self::Livez | Self::Readyz => Needs::Nothing,
            Self::Index
            | Self::Metrics
            | Self::Status
            | Self::Budget
            | Self::Spending
            | Self::Recent
            | Self::Live
            | Self::Slots
            | Self::Replicas
            | Self::Breakers
            | Self::Cache
            | Self::Config => Needs::KeyFromAfar,
            Self::Pause | Self::Resume | Self::Purge | Self::OpenBreakers | Self::CloseBreakers => Needs::Key,
        }
    }

    const fn purpose(self) -> &'static str {
        match self {
            Self::Index => "this list",
            Self::Metrics => "all metrics, in Prometheus's text format",
            Self::Livez => "whether the process is alive",
            Self::Readyz => "whether requests may be sent here, and why not",
            Self::Status => "what the gateway is doing",
            Self::Budget => "every org's budget: what is used, by whom, what comes back when, when it runs out",
            Self::Spending => {
                "who spent every org's calls in the last 24 hours, by half hour, and in the last one, by minute"
            }
            Self::Recent => "refusals and failures of the last 24 hours by caller, and what to do about them",
            Self::Live => "what the page for people shows, as server-sent events; ?org=... chooses the org",
            Self::Slots => "every org's slots: which calls run long, whose, since when; and who waits",
            Self::Replicas => "the replicas that share state with this one, and the store by way of which they do",
            Self::Breakers => {
                "every org's circuit breakers: which hold calls back, and until when; and how many failed calls may still be made once more"
            }
            Self::OpenBreakers => {
                "POST ?org=... and perhaps &family=... and &for=...: calls are held back until they are closed, or for so long; needs the key"
            }
            Self::CloseBreakers => {
                "POST ?org=... and perhaps &family=...: they are closed, whatever they did; needs the key"
            }
            Self::Pause => {
                "POST ?org=...&caller=... or &class=...: nothing of it is sent until it is resumed; needs the key"
            }
            Self::Resume => "POST: the same, resumed",
            Self::Cache => "what is kept in memory, and what it saved",
            Self::Purge => {
                "POST ?org=... and perhaps &object=... or &principal=..., and &soft=true: kept answers are old; needs the key"
            }
            Self::Config => "the configuration in force, without secrets",
        }
    }
}

/// Answers one request.
pub(super) fn answer(admin: &Arc<Admin>, reach: Reach, head: &request::Parts) -> Answer {
    if let Some(file) = PageFile::parse(head.uri.path()) {
        return shown(admin, reach, head, file);
    }
    let page = Page::parse(head.uri.path());
    let needs = page.map_or(Needs::KeyFromAfar, Page::needs);
    if let Err(denied) = admin.access.load().check(head, needs, reach) {
        if let Some(page) = page.filter(|_| needs == Needs::Key) {
            let members = [("order", page.as_str().into()), ("reason", denied.as_str().into())];
            admin.telemetry.log().event(Level::Warn, "order_refused", &members);
        }
        return refuse(denied);
    }
    let Some(page) = page else {
        return error(StatusCode::NOT_FOUND, "not_found", "There is no such page; /api/v1 lists those there are.");
    };
    let orders = matches!(page.needs(), Needs::Key);
    let (allowed, methods, advice): (_, &[Method], _) =
        if orders { ("POST", &[Method::POST], "Use POST.") } else { (READS, &READING, USE_READS) };
    if !methods.contains(&head.method) {
        return not_allowed(allowed, advice);
    }
    match page {
        Page::Index => json(StatusCode::OK, &index()),
        Page::Metrics => respond(StatusCode::OK, TEXT_FORMAT, admin.telemetry.render()),
        Page::Livez => respond(StatusCode::OK, JSON, "{\"alive\":true}\n"),
        Page::Readyz => {
            let readiness = admin.readiness();
            let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            json(status, &readiness)
        }
        Page::Status => json(StatusCode::OK, &admin.telemetry.status()),
        Page::Budget => json(StatusCode::OK, &serde_json::json!({"orgs": admin.telemetry.snapshot().budgets})),
        Page::Spending => json(StatusCode::OK, &serde_json::json!({"orgs": spending(admin)})),
        Page::Recent => json(StatusCode::OK, &serde_json::json!({"troubles": recent(admin)})),
        Page::Live => live(admin, head),
        Page::Breakers => json(StatusCode::OK, &serde_json::json!({"orgs": admin.telemetry.snapshot().breakers})),
        Page::Slots => json(StatusCode::OK, &serde_json::json!({"orgs": admin.telemetry.snapshot().slots})),
        Page::Replicas => json(StatusCode::OK, &replicas(admin)),
        Page::OpenBreakers => switched(admin, head, true),
        Page::CloseBreakers => switched(admin, head, false),
        Page::Pause => ordered(admin, head, true),
        Page::Resume => ordered(admin, head, false),
        Page::Cache => json(StatusCode::OK, &admin.telemetry.cache_status()),
        Page::Purge => purged(admin, head),
        Page::Config => json(StatusCode::OK, &**admin.config.load()),
    }
}

const READS: &str = "GET, HEAD";
const READING: [Method; 2] = [Method::GET, Method::HEAD];
const USE_READS: &str = "Use GET or HEAD.";

fn not_allowed(allowed: &'static str, advice: &str) -> Answer {
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", advice);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

/// A file of the page. It needs no key, for it shows nothing by itself.
fn shown(admin: &Admin, reach: Reach, head: &request::Parts, file: PageFile) -> Answer {
    if let Err(denied) = admin.access.load().check(head, Needs::Nothing, reach) {
        return refuse(denied);
    }
    if !READING.contains(&head.method) {
        return not_allowed(READS, USE_READS);
    }
    let (media_type, text) = file.content();
    let mut answer = respond(StatusCode::OK, media_type, text);
    answer.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY);
    answer
}

/// The page's data from now on.
fn live(admin: &Arc<Admin>, head: &request::Parts) -> Answer {
    let org = match chosen_org(head.uri.query().unwrap_or_default()) {
        Ok(org) => org,
        Err(why) => return error(StatusCode::BAD_REQUEST, "bad_request", why),
    };
    let Some(live) = Live::new(admin, org) else {
        let advice = "As many watch the page as may; close one, or come back.";
        let mut answer = error(StatusCode::SERVICE_UNAVAILABLE, "too_many_viewers", advice);
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(VIEWER_RETRY_SECONDS));
        return answer;
    };
    let mut answer = Response::new(Body::Live(live));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    answer
}

fn spending(admin: &Admin) -> Vec<SpendingSnapshot> {
    admin.telemetry.snapshot().budgets.iter().filter_map(|budget| admin.spending(budget)).collect()
}

/// The replicas; if this one shares nothing, that.
fn replicas(admin: &Admin) -> serde_json::Value {
    let of = admin.telemetry.snapshot().replicas.and_then(|replicas| serde_json::to_value(replicas).ok());
    let shared = of.is_some();
    let mut answer = of.unwrap_or_else(|| serde_json::json!({}));
    if let Some(members) = answer.as_object_mut() {
        members.insert("shared".to_owned(), shared.into());
    }
    answer
}

fn recent(admin: &Admin) -> Vec<serde_json::Value> {
    let with_remedy = |trouble: RecentTrouble| {
        let remedy = remedy(&trouble.trouble);
        let mut line = serde_json::to_value(trouble).ok()?;
        line.as_object_mut()?.insert("remedy".to_owned(), remedy.into());
        Some(line)
    };
    admin.telemetry.recent().into_iter().filter_map(with_remedy).collect()
}

/// Pauses or resumes what the query names.
fn ordered(admin: &Admin, head: &request::Parts, paused: bool) -> Answer {
    let order = match Order::parse(head.uri.query().unwrap_or_default(), paused) {
        Ok(order) => order,
        Err(why) => return error(StatusCode::BAD_REQUEST, "bad_order", why),
    };
    let carrier = admin.carrier.read();
    let Some(carrier) = &*carrier else {
        return error(StatusCode::SERVICE_UNAVAILABLE, "not_ready", "The gateway is still starting.");
    };
    match carrier(&order) {
        Ok(()) => json(StatusCode::OK, &serde_json::json!({"paused": paused})),
        Err(unknown) => nobody(unknown),
    }
}

/// Makes old what the query names.
fn purged(admin: &Admin, head: &request::Parts) -> Answer {
    let purge = match Purge::parse(head.uri.query().unwrap_or_default()) {
        Ok(purge) => purge,
        Err(why) => return error(StatusCode::BAD_REQUEST, "bad_order", why),
    };
    let purger = admin.purger.read();
    let Some(purger) = &*purger else {
        return error(StatusCode::SERVICE_UNAVAILABLE, "not_ready", "The gateway is still starting.");
    };
    match purger(&purge) {
        Ok(done) => json(StatusCode::OK, &done),
        Err(unknown) => nobody(unknown),
    }
}

/// Opens or closes what the query names.
fn switched(admin: &Admin, head: &request::Parts, open: bool) -> Answer {
    let switch = match Switch::parse(head.uri.query().unwrap_or_default(), open) {
        Ok(switch) => switch,
        Err(why) => return error(StatusCode::BAD_REQUEST, "bad_order", why),
    };
    let switcher = admin.switcher.read();
    let Some(switcher) = &*switcher else {
        return error(StatusCode::SERVICE_UNAVAILABLE, "not_ready", "The gateway is still starting.");
    };
    match switcher(&switch) {
        Ok(()) => json(StatusCode::OK, &serde_json::json!({"open": open})),
        Err(unknown) => nobody(unknown),
    }
}

fn nobody(unknown: Unknown) -> Answer {
    match unknown {
        Unknown::Org => error(StatusCode::NOT_FOUND, "unknown_org", "No org of this name is configured."),
        Unknown::Caller => error(StatusCode::NOT_FOUND, "unknown_caller", "No caller of this name is configured."),
        Unknown::Breaker => error(
            StatusCode::CONFLICT,
            "no_breaker",
            "Nothing would be held back: this API has no breaker, or breaker.mode is not enforce.",
        ),
    }
}

const JSON: &str = "application/json";

/// An error in the admin listener's shape.
pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Answer {
    #[derive(Serialize)]
    struct Error<'a> {
        error: &'a str,
        message: &'a str,
    }
    json(status, &Error { error: code, message })
}

fn refuse(denied: Denied) -> Answer {
    let mut answer = error(denied.status(), denied.as_str(), denied.advice());
    if denied == Denied::Key {
        let realm = HeaderValue::from_static("Bearer realm=\"weirkeeper admin\"");
        answer.headers_mut().insert(WWW_AUTHENTICATE, realm);
    }
    answer
}

fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec_pretty(value) {
        Ok(mut text) => {
            text.push(b'\n');
            respond(status, JSON, text)
        }
        Err(_) => respond(StatusCode::INTERNAL_SERVER_ERROR, JSON, "{\"error\":\"internal\"}\n"),
    }
}

fn respond(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Body::Whole(Full::new(body.into())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer
}

fn index() -> serde_json::Value {
    let about = |page: &Page| serde_json::json!({"path": page.as_str(), "purpose": page.purpose()});
    serde_json::json!({"pages": Page::ALL.iter().map(about).collect::<Vec<_>>()})
}
