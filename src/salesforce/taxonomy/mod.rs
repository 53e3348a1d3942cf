//! What a failure means: one verdict that retry, breaker, ledger, slots, metrics and log act on.
//!
//! [`classify`] judges an error answer by its status, its API and what [`said`] hears in the beginning of its body;
//! [`scan`] looks for what failed inside an answer that is none, because Salesforce says 200 to a request of which half
//! failed (facts 3.6, 3.7); [`Stream`], [`Envelope`] and [`progress`] do so while an answer passes, for SOAP, and for bulk
//! jobs. All are tables and walks over bytes: they allocate next to nothing, never fail, and say unknown where they do not
//! know. What they do not know is passed on as it came, and never repeated if it could write.

mod bulk;
mod envelope;
mod mend;
mod partial;
mod said;
mod stream;
mod table;
mod walk;

use std::time::Duration;

use memchr::memmem;

pub use bulk::{Progress, progress};
pub use envelope::Envelope;
pub use mend::{locked, merged, only, only_ids};
pub use partial::{Failed, Partial, scan};
pub use said::{Said, Shape, said};
pub use stream::Stream;

use crate::call::{Family, Idempotency, closed_list};
use table::Row;

closed_list! {
    /// What kind of failure it is.
    Kind {
        /// Salesforce, or the way to it, is not well: soon it may be.
        Transient = "transient",
        /// The same request fails again, however often it is sent.
        Permanent = "permanent",
        /// It was undone, or not begun, because something else in the same request failed.
        Partial = "partial",
        /// A record it needs is being changed by somebody else; what it did was rolled back.
        Lock = "lock",
        /// The session or the log-in is not accepted.
        Auth = "auth",
        /// The org's API calls of 24 hours are used up.
        LimitDaily = "limit_daily",
        /// Too many calls, or too much Apex, run long.
        LimitSlots = "limit_slots",
        /// A limit of one API is used up, mostly one user's.
        LimitFamily = "limit_family",
        /// It asks for more than one request may, or than is left of another allowance.
        Governor = "governor",
        /// It names an object or a field that there is not, or not for this user.
        Schema = "schema",
        /// The API version is not served any more.
        Version = "version",
        /// The org is closed, or may only be read, for maintenance.
        Maintenance = "maintenance",
        /// Nobody can tell.
        Unknown = "unknown",
    }
}

closed_list! {
    /// Who could have done otherwise.
    Blame {
        /// The app that sent the request.
        Caller = "caller",
        /// Who sets up the org: permissions, features, code.
        Org = "org",
        /// Salesforce, or the network before it.
        Salesforce = "salesforce",
        /// The other apps that use the org, together with this one.
        Neighbours = "neighbours",
    }
}

closed_list! {
    /// How far a failure reaches: what else is likely to fail like this now.
    Scope {
        /// Nothing but this request.
        Call = "call",
        /// Requests of the same user to the same API.
        Principal = "principal",
        /// Requests to the same API of the org.
        Family = "family",
        /// All requests to the org.
        Org = "org",
    }
}

/// Whether Salesforce did what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Executed {
    /// It refused it or rolled it back: sent again, it is not done twice.
    No,
    /// Nobody knows.
    Maybe,
}

/// Which limit an answer says was reached (facts 1.2, 1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The org's API calls of 24 hours.
    Daily,
    /// Calls that run 20 s and longer.
    LongCalls,
    /// Apex that runs long.
    LongApex,
    /// The calls of one API in a time, mostly of one user.
    Rate,
}

/// What one failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// What kind of failure it is.
    pub kind: Kind,
    /// Who could have done otherwise.
    pub blame: Blame,
    /// Whether it was done.
    pub executed: Executed,
    /// Whose other requests are likely to fail like this.
    pub scope: Scope,
    /// Which limit was reached, if it says so.
    pub limit: Option<Limit>,
}

impl Verdict {
    /// Whether the same request has a chance a little later, without anybody doing anything.
    pub const fn may_pass(self) -> bool {
        matches!(self.kind, Kind::Transient | Kind::Lock | Kind::LimitSlots)
    }

    /// Whether it can be sent again without being done twice.
    pub const fn is_safe(self, idempotency: Idempotency) -> bool {
        matches!(self.executed, Executed::No) || matches!(idempotency, Idempotency::Safe)
    }

    /// Whether nobody can tell if a write was done: its answer was lost on the way, or says no more than that something
    /// went wrong.
    pub const fn is_outcome_unknown(self, idempotency: Idempotency) -> bool {
        !self.is_safe(idempotency) && matches!(self.kind, Kind::Transient | Kind::Maintenance | Kind::Governor)
    }

    /// How long to wait before the first repetition, about; each further one waits twice as long, up to the second
    /// duration.
    pub const fn waits(self) -> (Duration, Duration) {
        match self.kind {
            // Somebody holds the record for as long as its transaction runs.
            Kind::Lock => (Duration::from_millis(400), Duration::from_secs(8)),
            // A call that runs long ends some time.
            Kind::LimitSlots | Kind::LimitFamily => (Duration::from_secs(2), Duration::from_secs(20)),
            Kind::Maintenance => (Duration::from_mins(1), Duration::from_mins(10)),
            _ => (Duration::from_millis(200), Duration::from_secs(5)),
        }
    }

    /// What to tell a caller, in plain words.
    pub const fn advice(self) -> &'static str {
        match self.kind {
            Kind::Transient => match self.executed {
                Executed::No => "Try again shortly.",
                Executed::Maybe => "Try a read again shortly; look whether a write was done before sending it again.",
            },
            Kind::Permanent => "Correct the request; sent again as it is, it fails again.",
            Kind::Partial => "See what else in the request failed; this part was not done.",
            Kind::Lock => "Try again shortly, and write to the children of one parent one after the other.",
            Kind::Auth => "Log in again.",
            Kind::LimitDaily => "Wait until calls come back.",
            Kind::LimitSlots => "Try again in a few seconds, or ask for less at once.",
            Kind::LimitFamily => "Send fewer requests to this API as this user, and try again later.",
            Kind::Governor => "Ask for less at once.",
            Kind::Schema => "Check the names of objects and fields, and what this user may see.",
            Kind::Version => "Use a newer API version.",
            Kind::Maintenance => "Wait until Salesforce has ended its maintenance.",
            Kind::Unknown => "See what the answer says.",
        }
    }
}

/// Calls of these APIs are limited for each user, and refused with 503 (facts 1.3, 2.2).
pub const fn has_quota_of_users(family: Family) -> bool {
    matches!(family, Family::Connect | Family::Ui | Family::Graphql)
}

/// What an answer of `status` to a call of `family` means, whose body `said` this. For answers that are errors; an error
/// inside another answer is judged like one of status 400.
pub fn classify(family: Family, status: u16, said: &Said<'_>) -> Verdict {
    let row = match table::row_of(said.code) {
        Some(row) if status < 500 || family == Family::Soap || table::is_known(said.code) => row,
        _ => by_status(family, status, said),
    };
    let Row { mut kind, mut blame, mut executed } = row;
    let mut limit = None;
    match said.code {
        "REQUEST_LIMIT_EXCEEDED" => (kind, limit) = which_limit(said.message),
        // The same limits by the name of Bulk API 1.0, which has it for quotas of its own too.
        "ExceededQuota" => match which_limit(said.message) {
            (_, Some(Limit::Rate) | None) => {}
            (named, named_limit) => (kind, blame, limit) = (named, Blame::Neighbours, named_limit),
        },
        "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY" | "APEX_ERROR" => {
            if memmem::find(said.message, b"UNABLE_TO_LOCK_ROW").is_some() {
                (kind, blame) = (Kind::Lock, Blame::Neighbours);
                // Code may have done things outside of its transaction before it failed.
                if said.code == "APEX_ERROR" {
                    executed = Executed::Maybe;
                }
            } else if memmem::find(said.message, b"LimitException").is_some() {
                kind = Kind::Governor;
            }
        }
        "TOO_MANY_APEX_REQUESTS" => limit = Some(Limit::LongApex),
        _ if kind == Kind::LimitFamily => limit = Some(Limit::Rate),
        _ => {}
    }
    // Who may not write during maintenance can still read (facts 2.7).
    let reads_go_on = said.code == "INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE";
    let scope = if reads_go_on { Scope::Call } else { scope(kind, family, status, said.shape) };
    Verdict { kind, blame, executed, scope, limit }
}

fn which_limit(message: &[u8]) -> (Kind, Option<Limit>) {
    let says = |text: &[u8]| memmem::find(message, text).is_some();
    if says(b"TotalRequests") {
        (Kind::LimitDaily, Some(Limit::Daily))
    } else if says(b"ConcurrentRequests") {
        (Kind::LimitSlots, Some(Limit::LongCalls))
    } else if says(b"ConcurrentPerOrg") {
        (Kind::LimitSlots, Some(Limit::LongApex))
    } else {
        (Kind::LimitFamily, Some(Limit::Rate))
    }
}

/// What a status alone means (facts 2.2).
fn by_status(family: Family, status: u16, said: &Said<'_>) -> Row {
    let row = |kind, blame, executed| Row { kind, blame, executed };
    let quota = status == 503 && has_quota_of_users(family) && said.shape == Shape::Json;
    match status {
        401 => row(Kind::Auth, Blame::Caller, Executed::No),
        410 => row(Kind::Version, Blame::Caller, Executed::No),
        // The host is not known to the edge yet, or not any more.
        420 => row(Kind::Transient, Blame::Salesforce, Executed::No),
        429 => row(Kind::LimitFamily, Blame::Neighbours, Executed::No),
        300..=499 if family == Family::Apex => row(Kind::Unknown, Blame::Org, Executed::Maybe),
        300 | 400 | 402..=409 | 411..=419 | 428 | 431 => row(Kind::Permanent, Blame::Caller, Executed::No),
        503 if quota => row(Kind::LimitFamily, Blame::Neighbours, Executed::No),
        503 if said.shape == Shape::Html && mentions_maintenance(said.message) => {
            row(Kind::Maintenance, Blame::Salesforce, Executed::Maybe)
        }
        // What the org's own code answers, it means.
        500..=599 if family == Family::Apex && said.shape != Shape::Html && !matches!(status, 502..=504) => {
            row(Kind::Unknown, Blame::Org, Executed::Maybe)
        }
        500..=599 => row(Kind::Transient, Blame::Salesforce, Executed::Maybe),
        _ => row(Kind::Unknown, Blame::Caller, Executed::Maybe),
    }
}

fn mentions_maintenance(page: &[u8]) -> bool {
    memmem::find(page, b"maintenance").is_some() || memmem::find(page, b"Maintenance").is_some()
}

fn scope(kind: Kind, family: Family, status: u16, shape: Shape) -> Scope {
    match kind {
        Kind::LimitDaily | Kind::LimitSlots | Kind::Maintenance => Scope::Org,
        Kind::LimitFamily if has_quota_of_users(family) => Scope::Principal,
        // As likely this user's quota as the server; what ails the server, other APIs say too.
        Kind::Transient if has_quota_of_users(family) && status == 503 && shape == Shape::Json => Scope::Principal,
        Kind::LimitFamily | Kind::Transient => Scope::Family,
        _ => Scope::Call,
    }
}

/// A `Retry-After` in seconds, at most `most`. A date is not understood: no capture of Salesforce has either (facts 2.2).
pub fn retry_after(value: &[u8], most: Duration) -> Option<Duration> {
    let seconds: u64 = std::str::from_utf8(value.trim_ascii()).ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(most))
}

#[cfg(test)]
mod tests;
