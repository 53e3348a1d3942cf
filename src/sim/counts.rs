//! The simulator's own book-keeping: what a test compares with what the gateway counted.

use std::collections::BTreeMap;

use serde::Serialize;

/// Everything that was counted since the start or the last reset.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SimCounts {
    /// Calls in the trailing 24 hours, dark ones included.
    pub used: u64,
    /// Calls per trailing 24 hours that are allowed.
    pub limit: u64,
    /// Calls since the start, without dark ones.
    pub charged: u64,
    /// Calls nobody sent to us.
    pub dark: u64,
    /// Requests whose head arrived, control requests excepted.
    pub requests: u64,
    /// Calls since the start by user name.
    pub by_user: BTreeMap<String, u64>,
    /// Calls since the start by client of `Sforce-Call-Options`.
    pub by_client: BTreeMap<String, u64>,
    /// Calls since the start by family.
    pub by_family: BTreeMap<String, u64>,
    /// Calls in the trailing 24 hours by user name.
    pub used_by_user: BTreeMap<String, u64>,
    /// Calls in the trailing 24 hours by client.
    pub used_by_client: BTreeMap<String, u64>,
    /// Calls in the trailing 24 hours by family.
    pub used_by_family: BTreeMap<String, u64>,
    /// Answers by status; `0` for connections ended without one.
    pub by_status: BTreeMap<u16, u64>,
    /// Requests refused because the daily allowance was used up.
    pub refused_daily: u64,
    /// Requests refused because all long-running places were taken.
    pub refused_concurrent: u64,
    /// Requests without a valid session.
    pub unauthenticated: u64,
    /// Successful logins.
    pub logins: u64,
    /// Refused logins.
    pub logins_refused: u64,
    /// Calls running now.
    pub running: usize,
    /// Most calls that ever ran at once.
    pub running_peak: usize,
    /// Long-running places taken now.
    pub slots: usize,
    /// Most long-running places ever taken.
    pub slots_peak: usize,
    /// Changes of rows that were kept, by object.
    pub writes: BTreeMap<String, SimWrites>,
    /// Connections accepted.
    pub connections: u64,
    /// Scripted faults that hit a request.
    pub faults: u64,
    /// Bytes of request bodies read.
    pub body_bytes: u64,
}

/// Changes of one object's rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SimWrites {
    /// Rows inserted.
    pub created: u64,
    /// Rows changed.
    pub updated: u64,
    /// Rows put into the recycle bin.
    pub deleted: u64,
}

/// One request as it arrived, for tests of what the gateway sends. Credentials are reduced to their scheme.
#[derive(Debug, Clone, Serialize)]
pub struct SimRequest {
    /// Method as sent.
    pub method: String,
    /// Target as sent.
    pub target: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// Headers in the order of arrival, credentials and cookies removed.
    pub headers: Vec<(String, String)>,
    /// Simulated time of arrival, microseconds since the Unix epoch.
    pub at: u64,
    /// User name of the session.
    pub user: String,
    /// Status answered; absent while it runs, `0` if the connection was ended without one.
    pub status: Option<u16>,
    /// Calls charged.
    pub charged: u64,
    #[serde(skip)]
    pub(super) number: u64,
}

/// The plain counters; the rest of [`SimCounts`] is read from where it is kept.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) requests: u64,
    pub(super) by_status: BTreeMap<u16, u64>,
    pub(super) refused_daily: u64,
    pub(super) refused_concurrent: u64,
    pub(super) unauthenticated: u64,
    pub(super) logins: u64,
    pub(super) logins_refused: u64,
    pub(super) writes: BTreeMap<usize, SimWrites>,
    pub(super) connections: u64,
    pub(super) body_bytes: u64,
}
