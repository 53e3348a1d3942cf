//! The pages of the admin listener: which there are, and what each answers.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Response, StatusCode, request};
use http_body_util::Full;
use serde::Serialize;

use super::Admin;
use super::guard::{Denied, Needs, Reach};
use super::orders::{Order, Purge, Switch, Unknown};
use crate::call::closed_list;
use crate::telemetry::TEXT_FORMAT;

/// An answer of the admin listener.
pub(super) type Answer = Response<Full<Bytes>>;

closed_list! {
    /// The pages there are.
    Page {
        /// This list.
        Index = "/",
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
        /// Every org's slots for calls that run long, and who waits.
        Slots = "/api/v1/slots",
        /// Every org's circuit breakers.
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
            | Self::Slots
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
            Self::Slots => "every org's slots: which calls run long, whose, since when; and who waits",
            Self::Breakers => "every org's circuit breakers: which hold calls back, and until when",
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
pub(super) fn answer(admin: &Admin, reach: Reach, head: &request::Parts) -> Answer {
    let page = Page::parse(head.uri.path());
    let needs = page.map_or(Needs::KeyFromAfar, Page::needs);
    if let Err(denied) = admin.access.load().check(head, needs, reach) {
        return refuse(denied);
    }
    let Some(page) = page else {
        return error(StatusCode::NOT_FOUND, "not_found", "There is no such page; / lists those there are.");
    };
    let (allowed, methods, advice): (_, &[Method], _) = if matches!(page.needs(), Needs::Key) {
        ("POST", &[Method::POST], "Use POST.")
    } else {
        ("GET, HEAD", &[Method::GET, Method::HEAD], "Use GET or HEAD.")
    };
    if !methods.contains(&head.method) {
        let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", advice);
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        return answer;
    }
    match page {
        Page::Index => respond(StatusCode::OK, "text/html; charset=utf-8", index()),
        Page::Metrics => respond(StatusCode::OK, TEXT_FORMAT, admin.telemetry.render()),
        Page::Livez => respond(StatusCode::OK, JSON, "{\"alive\":true}\n"),
        Page::Readyz => {
            let readiness = admin.readiness();
            let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            json(status, &readiness)
        }
        Page::Status => json(StatusCode::OK, &admin.telemetry.status()),
        Page::Budget => json(StatusCode::OK, &serde_json::json!({"orgs": admin.telemetry.snapshot().budgets})),
        Page::Breakers => json(StatusCode::OK, &serde_json::json!({"orgs": admin.telemetry.snapshot().breakers})),
        Page::Slots => json(StatusCode::OK, &serde_json::json!({"orgs": admin.telemetry.snapshot().slots})),
        Page::OpenBreakers => switched(admin, head, true),
        Page::CloseBreakers => switched(admin, head, false),
        Page::Pause => ordered(admin, head, true),
        Page::Resume => ordered(admin, head, false),
        Page::Cache => json(StatusCode::OK, &admin.telemetry.cache_status()),
        Page::Purge => purged(admin, head),
        Page::Config => json(StatusCode::OK, &**admin.config.load()),
    }
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
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer
}

fn index() -> String {
    use std::fmt::Write as _;

    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>Weirkeeper</title></head>\n<body>\n\
         <h1>Weirkeeper</h1>\n<ul>\n",
    );
    for entry in Page::ALL {
        let _ = writeln!(page, "<li><a href=\"{entry}\"><code>{entry}</code></a>: {}</li>", entry.purpose());
    }
    page.push_str("</ul>\n</body>\n</html>\n");
    page
}
