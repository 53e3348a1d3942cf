//! The gateway's own pages for callers, below `/weirkeeper/`. They cost no API call and are never refused for want of one.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Response};
use serde::Serialize;

use crate::admission::{Level, PaceBudget};
use crate::body::ReplyBody;
use crate::refusal::{Reason, Refusal};
use crate::stages::{Known, Reply};

/// What a caller sees of its own share. Numbers are API calls, times seconds.
#[derive(Debug, Serialize)]
struct Share<'a> {
    org: &'a str,
    caller: &'a str,
    /// Used in the trailing 24 hours.
    used: u64,
    /// Guaranteed in 24 hours.
    floor: u64,
    /// Never exceeded in 24 hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    ceiling: Option<u64>,
    /// What it may still use before it reaches its ceiling.
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<u64>,
    /// What the whole org still has.
    #[serde(skip_serializing_if = "Option::is_none")]
    org_left: Option<u64>,
    /// How scarce the org's calls are.
    level: Level,
    returning_within_1h: u64,
    returning_within_6h: u64,
    /// In how many seconds its ceiling is reached if it goes on like in the last 15 minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    runs_out_in_seconds: Option<u64>,
    paused: bool,
    /// How fast it may send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pace: Option<PaceBudget>,
}

/// The page that is asked for.
pub(super) fn page(known: &Known) -> Result<Reply, Refusal> {
    let head = &known.seen.head;
    if head.uri.path().trim_start_matches('/') != "weirkeeper/v1/budget" {
        let why = "Paths under /weirkeeper/ are the gateway's own, and it has no page here.";
        return Err(Refusal::new(Reason::NoSuchPage, why));
    }
    if head.method != Method::GET {
        return Err(Refusal::new(Reason::MethodNotAllowed, "This page can only be read."));
    }
    let gone = || Refusal::new(Reason::Internal, "The budget of this caller cannot be told.");
    let (live, now) = (&known.seen.live, known.seen.now);
    let org = live.org(known.org).ok_or_else(gone)?;
    let (budget, forecast) = org.ledger.caller(org.account(known.caller), now).ok_or_else(gone)?;
    let whole = org.ledger.org(now);
    let share = Share {
        org: &org.name,
        caller: &budget.name,
        used: budget.used,
        floor: budget.floor,
        ceiling: budget.ceiling,
        left: budget.ceiling.map(|ceiling| ceiling.saturating_sub(budget.used + budget.reserved)),
        org_left: whole.headroom,
        level: whole.level,
        returning_within_1h: forecast.returning_1h,
        returning_within_6h: forecast.returning_6h,
        runs_out_in_seconds: forecast.runs_out.map(|at| at.begins().saturating_sub(whole.now.begins()).as_secs()),
        paused: budget.paused,
        pace: org.pace(known.caller).map(|pace| pace.budget(now)),
    };
    let text = serde_json::to_vec(&share).map_err(|_| gone())?;
    let mut reply = Response::new(ReplyBody::Whole(Bytes::from(text)));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(reply)
}
