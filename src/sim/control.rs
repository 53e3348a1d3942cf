//! The control path `/__sim/`: scripts from outside the process. Never counted, never charged.
//!
//! | request | does |
//! |---|---|
//! | `GET counts` | what was counted, [`SimCounts`](super::SimCounts) |
//! | `GET requests` | the last thousand requests, [`SimRequest`](super::SimRequest) |
//! | `POST faults` | arms one [`Fault`] or a list of them; answers their numbers |
//! | `DELETE faults` | disarms all |
//! | `POST set` | daily limit, overage, dark calls per minute, lag of the header, latency, jitter, maintenance |
//! | `POST spend` | `{"calls": n}`: others spent n calls just now |
//! | `POST advance` | `{"seconds": n}`: moves simulated time forward |
//! | `POST revoke` | `{"token": "..."}`: ends a session |
//! | `POST publish` | `{"channel": "...", "payload": {}}`: an event for CometD subscribers |
//! | `POST forget` | forgets all CometD clients, as servers do every few hours |
//! | `POST reset` | a new org; time goes on |

use std::time::Duration;

use http::request::Parts;
use http::{Method, Response, StatusCode, header};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use super::Sim;
use super::body::SimBody;
use super::faults::Fault;
use super::server;

/// Where the control path begins.
pub(super) const PREFIX: &str = "/__sim/";

#[derive(Deserialize)]
#[serde(untagged)]
enum Several<T> {
    One(T),
    Many(Vec<T>),
}

/// What `POST /__sim/set` changes; what is absent stays.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    daily_limit: Option<u64>,
    overage: Option<u64>,
    dark_per_minute: Option<f64>,
    header_lag_seconds: Option<u64>,
    latency_ms: Option<u64>,
    jitter_ms: Option<u64>,
    /// `none`, `down` or `read_only`.
    maintenance: Option<String>,
}

#[derive(Deserialize)]
struct Amount {
    #[serde(default)]
    seconds: f64,
    #[serde(default)]
    calls: u64,
}

#[derive(Deserialize)]
struct Token {
    token: String,
}

#[derive(Deserialize)]
struct Publication {
    channel: String,
    payload: serde_json::Value,
}

#[derive(Serialize)]
struct Armed {
    ids: Vec<u64>,
}

/// Answers one control request.
pub(super) async fn handle(sim: &Sim, parts: &Parts, incoming: Incoming) -> Response<SimBody> {
    let Some(body) = server::small_body(incoming).await else {
        return error(StatusCode::BAD_REQUEST, "the body could not be read");
    };
    let what = parts.uri.path().trim_start_matches(PREFIX).trim_end_matches('/');
    let script = sim.script();
    let done = |result: Result<(), String>| match result {
        Ok(()) => json(&serde_json::json!({"ok": true})),
        Err(message) => error(StatusCode::BAD_REQUEST, &message),
    };
    match (&parts.method, what) {
        (&Method::GET, "counts") => json(&sim.counts()),
        (&Method::GET, "requests") => json(&sim.requests()),
        (&Method::POST, "faults") => match serde_json::from_slice::<Several<Fault>>(&body) {
            Ok(Several::One(fault)) => json(&Armed { ids: vec![script.fault(fault)] }),
            Ok(Several::Many(faults)) => {
                json(&Armed { ids: faults.into_iter().map(|fault| script.fault(fault)).collect() })
            }
            Err(problem) => error(StatusCode::BAD_REQUEST, &problem.to_string()),
        },
        (&Method::DELETE, "faults") => {
            script.clear_faults();
            done(Ok(()))
        }
        (&Method::POST, "forget") => {
            script.forget_cometd_clients();
            done(Ok(()))
        }
        (&Method::POST, "reset") => {
            sim.reset();
            done(Ok(()))
        }
        (&Method::POST, "advance") => done(parse::<Amount>(&body).and_then(|amount| {
            let by = Duration::try_from_secs_f64(amount.seconds).map_err(|problem| problem.to_string())?;
            script.advance(by);
            Ok(())
        })),
        (&Method::POST, "spend") => done(parse::<Amount>(&body).map(|amount| script.spend_dark(amount.calls))),
        (&Method::POST, "revoke") => done(parse::<Token>(&body).map(|token| script.revoke(&token.token))),
        (&Method::POST, "publish") => done(parse::<Publication>(&body).map(|event| {
            script.publish(&event.channel, &event.payload);
        })),
        (&Method::POST, "set") => done(parse::<Settings>(&body).and_then(|settings| apply(sim, &settings))),
        _ => error(StatusCode::NOT_FOUND, "no such control"),
    }
}

fn apply(sim: &Sim, settings: &Settings) -> Result<(), String> {
    let script = sim.script();
    match settings.maintenance.as_deref() {
        None => {}
        Some("none") => script.end_maintenance(),
        Some("down") => script.take_down(),
        Some("read_only") => script.make_read_only(),
        Some(_) => return Err("maintenance must be none, down or read_only".to_owned()),
    }
    if let Some(limit) = settings.daily_limit {
        script.set_daily_limit(limit);
    }
    if let Some(overage) = settings.overage {
        script.set_overage(overage);
    }
    if let Some(rate) = settings.dark_per_minute {
        script.dark(rate);
    }
    if let Some(seconds) = settings.header_lag_seconds {
        script.set_header_lag(seconds);
    }
    if settings.latency_ms.is_some() || settings.jitter_ms.is_some() {
        script.latency(settings.latency_ms.unwrap_or_default(), settings.jitter_ms.unwrap_or_default());
    }
    Ok(())
}

fn parse<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|problem| problem.to_string())
}

fn json(value: &impl Serialize) -> Response<SimBody> {
    let mut response = Response::new(SimBody::whole(serde_json::to_vec(value).unwrap_or_default(), true));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn error(status: StatusCode, message: &str) -> Response<SimBody> {
    let mut response = json(&serde_json::json!({"error": message}));
    *response.status_mut() = status;
    response
}
