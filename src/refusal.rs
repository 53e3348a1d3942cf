//! The answers the gateway gives itself, and why.
//!
//! A [`Refusal`] is the error type of the whole road: every stage that does not pass a call on returns one.
//! Its [`Reason`] is the word used for it in metrics, log, `Weirkeeper-Refused` and the answer's body.
//! How it looks on the wire (JSON, SOAP fault, Bulk XML) is decided at the edge.

use std::fmt;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

use crate::call::closed_list;

closed_list! {
    /// Why the gateway answered itself.
    Reason {
        /// The request is not valid HTTP, or says two different things about its own length or host.
        MalformedRequest = "malformed_request",
        /// The request line is longer than allowed.
        UriTooLong = "uri_too_long",
        /// The head is larger than allowed, or has too many headers.
        HeadTooLarge = "head_too_large",
        /// The head did not arrive in time.
        HeadTimeout = "head_timeout",
        /// A method no API of Salesforce knows (CONNECT, TRACE).
        MethodNotAllowed = "method_not_allowed",
        /// No org is configured for this Host.
        UnknownOrg = "unknown_org",
        /// No configured caller matches.
        UnknownCaller = "unknown_caller",
        /// The caller's allow-rules do not cover this call or one of its subrequests.
        Forbidden = "forbidden",
        /// The operator has paused the caller or the class.
        Paused = "paused",
        /// The caller has used as many API calls as it may in 24 hours.
        CallerCeiling = "caller_ceiling",
        /// The org's daily allowance is used up, or what is left of it is guaranteed to others.
        OrgAllowance = "org_allowance",
        /// Calls are scarce, and the call's class or caller is among those that stop first.
        Shed = "shed",
        /// Calls are scarce, and the call came sooner than calls come back.
        Pace = "pace",
        /// The caller exceeds its pace, and the call cannot wait for its turn.
        CallerPace = "caller_pace",
        /// What may be spent is not known yet, or cannot be written down.
        BudgetUnready = "budget_unready",
        /// All slots for calls that run long are held, and the call cannot wait for one.
        SlotsBusy = "slots_busy",
        /// As many calls are in the air as may be, and the call cannot wait for its turn.
        CallsInFlight = "calls_in_flight",
        /// Salesforce is not well, and is left alone for a while.
        CircuitOpen = "circuit_open",
        /// Too many calls wait already.
        QueueFull = "queue_full",
        /// Two different credentials in one request, or one that cannot be read.
        BadCredential = "bad_credential",
        /// A gateway token that has expired, was given back, or was not made here.
        SessionInvalid = "session_invalid",
        /// Too many log-ins, or too many that failed.
        LoginLimited = "login_limited",
        /// The identity the caller acts as has no token now: the token endpoint does not answer, or not with one.
        IdentityUnavailable = "identity_unavailable",
        /// Salesforce refuses to log in the identity the caller acts as.
        IdentityRefused = "identity_refused",
        /// The body is larger than allowed.
        BodyTooLarge = "body_too_large",
        /// The body ended early or its framing is broken.
        BodyMalformed = "body_malformed",
        /// The body arrives slower than the minimum rate.
        BodyTooSlow = "body_too_slow",
        /// All memory for buffered bodies is in use.
        BuffersFull = "buffers_full",
        /// The process has as many connections as it may.
        TooManyConnections = "too_many_connections",
        /// The gateway is shutting down.
        Draining = "draining",
        /// No connection to Salesforce could be made (DNS, TCP, egress proxy).
        UpstreamUnreachable = "upstream_unreachable",
        /// The TLS handshake with Salesforce failed.
        UpstreamTls = "upstream_tls",
        /// The connection to Salesforce broke before an answer came.
        UpstreamReset = "upstream_reset",
        /// What came from Salesforce is not HTTP.
        UpstreamGarbage = "upstream_garbage",
        /// Every connection this runtime may hold to the org is in use.
        UpstreamBusy = "upstream_busy",
        /// Salesforce did not answer in time.
        UpstreamTimeout = "upstream_timeout",
        /// The caller's deadline passed.
        DeadlinePassed = "deadline_passed",
        /// A write was sent and its answer was lost: it may have happened.
        OutcomeUnknown = "outcome_unknown",
        /// The request wants an answer from memory only, and there is none.
        NotCached = "not_cached",
        /// The gateway itself has no such page (`/weirkeeper/...`).
        NoSuchPage = "no_such_page",
        /// A defect of the gateway.
        Internal = "internal",
    }
}

/// An answer the gateway gives itself. `detail` never holds a token, a body, a literal or a record id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which of the closed list.
    pub reason: Reason,
    /// What exactly, in words that help the caller: names a host, a limit, a rule.
    pub detail: Box<str>,
    /// When it makes sense to come back.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal for `reason`, saying `detail`.
    pub fn new(reason: Reason, detail: impl Into<Box<str>>) -> Self {
        Self { reason, detail: detail.into(), retry_after: reason.default_retry_after() }
    }

    /// The same, to be tried again after `wait`.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// HTTP status of the answer.
    pub fn status(&self) -> StatusCode {
        self.reason.status()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reason == Reason::SessionInvalid {
            // Clients look for Salesforce's own words.
            return f.write_str(&self.detail);
        }
        write!(f, "{} {}", self.detail, self.reason.advice())
    }
}

impl std::error::Error for Refusal {}

impl Reason {
    /// HTTP status of an answer for this reason (design 5).
    pub const fn status(self) -> StatusCode {
        match self {
            Self::MalformedRequest | Self::BadCredential | Self::BodyMalformed => StatusCode::BAD_REQUEST,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::HeadTimeout | Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnknownOrg | Self::NoSuchPage => StatusCode::NOT_FOUND,
            Self::UnknownCaller
            | Self::Forbidden
            | Self::IdentityRefused
            | Self::CallerCeiling
            | Self::OrgAllowance => StatusCode::FORBIDDEN,
            Self::SessionInvalid => StatusCode::UNAUTHORIZED,
            Self::LoginLimited | Self::Pace | Self::CallerPace => StatusCode::TOO_MANY_REQUESTS,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BuffersFull
            | Self::TooManyConnections
            | Self::Draining
            | Self::UpstreamBusy
            | Self::IdentityUnavailable
            | Self::Paused
            | Self::Shed
            | Self::BudgetUnready
            | Self::SlotsBusy
            | Self::CallsInFlight
            | Self::CircuitOpen
            | Self::QueueFull => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamUnreachable | Self::UpstreamTls | Self::UpstreamReset | Self::UpstreamGarbage => {
                StatusCode::BAD_GATEWAY
            }
            Self::UpstreamTimeout | Self::DeadlinePassed | Self::OutcomeUnknown | Self::NotCached => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The `errorCode` Salesforce clients know (design 5; restforce accepts a fixed list only).
    pub const fn error_code(self) -> &'static str {
        match self {
            Self::MalformedRequest
            | Self::UriTooLong
            | Self::HeadTooLarge
            | Self::HeadTimeout
            | Self::BodyMalformed
            | Self::BodyTooSlow => "INVALID_OPERATION",
            Self::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Self::UnknownOrg | Self::NoSuchPage => "NOT_FOUND",
            Self::UnknownCaller | Self::Forbidden | Self::BadCredential | Self::IdentityRefused => {
                "INSUFFICIENT_ACCESS"
            }
            Self::SessionInvalid => "INVALID_SESSION_ID",
            Self::BodyTooLarge => "OPERATION_TOO_LARGE",
            Self::LoginLimited | Self::CallerCeiling | Self::OrgAllowance | Self::Pace | Self::CallerPace => {
                "REQUEST_LIMIT_EXCEEDED"
            }
            Self::Paused
            | Self::Shed
            | Self::BudgetUnready
            | Self::SlotsBusy
            | Self::CallsInFlight
            | Self::CircuitOpen
            | Self::QueueFull
            | Self::BuffersFull
            | Self::TooManyConnections
            | Self::Draining
            | Self::UpstreamBusy
            | Self::UpstreamUnreachable
            | Self::UpstreamTls
            | Self::UpstreamReset
            | Self::UpstreamGarbage
            | Self::NotCached
            | Self::IdentityUnavailable => "SERVER_UNAVAILABLE",
            Self::UpstreamTimeout | Self::DeadlinePassed | Self::OutcomeUnknown => "REQUEST_RUNNING_TOO_LONG",
            Self::Internal => "UNKNOWN_EXCEPTION",
        }
    }

    /// What the caller can do about it, in plain words.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::MalformedRequest => "Correct the request; it was not forwarded.",
            Self::UriTooLong => "Send a long query in the body, for example through /composite.",
            Self::HeadTooLarge => "Send fewer or shorter headers; Salesforce takes 16,384 bytes of URI and headers.",
            Self::HeadTimeout => "Send the whole request head sooner.",
            Self::MethodNotAllowed => "Use a method of the Salesforce APIs.",
            Self::UnknownOrg => "Check the Host name; ask the gateway's operator which names lead to an org.",
            Self::UnknownCaller => "Ask the gateway's operator to add this app as a caller.",
            Self::Forbidden => "Ask the gateway's operator to allow it if the app needs it.",
            Self::Paused => "Ask the gateway's operator when it will be resumed.",
            Self::CallerCeiling => "Wait, ask for more at once, or ask the gateway's operator for a higher ceiling.",
            Self::OrgAllowance => "Wait, or ask the gateway's operator who uses it.",
            Self::Shed => "Try again later; the operator can guarantee this caller a floor.",
            Self::Pace | Self::CallerPace => "Go slower.",
            Self::SlotsBusy => "Try again later, ask for less at once, or use Bulk API 2.0, whose jobs hold no slot.",
            Self::CallsInFlight => "Send fewer calls at the same time.",
            Self::CircuitOpen => {
                "Try again when Retry-After says; the gateway finds out by itself when Salesforce is well."
            }
            Self::QueueFull => "Try again later.",
            Self::BadCredential => "Send exactly one credential.",
            Self::SessionInvalid => "Log in again.",
            Self::LoginLimited => "Use the token a log-in gave until it expires; check the key if log-ins fail.",
            Self::IdentityRefused => {
                "Ask the gateway's operator to check the identity and its connected app, and to load the configuration again."
            }
            Self::BodyTooLarge => "Split the request, or use Bulk API 2.0.",
            Self::BodyMalformed => "Correct the body; it was not forwarded.",
            Self::BodyTooSlow => "Send the body faster; it was not forwarded whole.",
            Self::BuffersFull => "The gateway holds as many request bodies as it may; try again shortly.",
            Self::TooManyConnections => "Use fewer connections, or try again shortly.",
            Self::Draining => "The gateway is shutting down; try again, another replica will answer.",
            Self::BudgetUnready
            | Self::UpstreamUnreachable
            | Self::UpstreamReset
            | Self::UpstreamBusy
            | Self::IdentityUnavailable => "Try again shortly.",
            Self::UpstreamTls => "Ask the gateway's operator to check the certificate and its roots.",
            Self::UpstreamGarbage => "Ask the gateway's operator to check what answers at the org's address.",
            Self::UpstreamTimeout => {
                "The answer was not waited for any longer; ask for less at once, or try again later."
            }
            Self::DeadlinePassed => "Allow more time, or try again later.",
            Self::OutcomeUnknown => {
                "The write may have happened: read the record before sending it again, or use an upsert by external id."
            }
            Self::NotCached => "Leave only-if-cached out to have Salesforce asked.",
            Self::NoSuchPage => "See the gateway's documentation for the pages it has.",
            Self::Internal => "Tell the gateway's operator the request id.",
        }
    }

    const fn default_retry_after(self) -> Option<Duration> {
        match self {
            Self::BuffersFull
            | Self::TooManyConnections
            | Self::Draining
            | Self::UpstreamBusy
            | Self::UpstreamUnreachable
            | Self::UpstreamTls
            | Self::UpstreamReset
            | Self::UpstreamGarbage
            | Self::IdentityUnavailable => Some(Duration::from_secs(2)),
            _ => None,
        }
    }
}

/// What a request's headers say about the form in which it wants to be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wants {
    /// It accepts XML before anything else.
    pub xml: bool,
    /// It accepts JSON, or sends it and does not ask for XML.
    pub json: bool,
}

impl Wants {
    /// Reads `Accept` and `Content-Type`.
    pub fn of(accept: Option<&HeaderValue>, content_type: Option<&HeaderValue>) -> Self {
        let accepts = |form: &[u8]| accept.is_some_and(|accept| starts_with(accept, form));
        let json = b"application/json";
        if accepts(json) {
            return Self { xml: false, json: true };
        }
        let xml = accepts(b"application/xml");
        Self {
            xml: xml || accepts(b"text/xml"),
            json: !xml && content_type.is_some_and(|kind| starts_with(kind, json)),
        }
    }
}

fn starts_with(value: &HeaderValue, start: &[u8]) -> bool {
    value.as_bytes().get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_status_a_code_and_advice() {
        for reason in Reason::ALL {
            assert!(reason.status().as_u16() >= 400, "{reason}");
            assert!(reason.error_code().chars().all(|c| c.is_ascii_uppercase() || c == '_'), "{reason}");
            assert!(reason.advice().ends_with('.'), "{reason}");
        }
    }

    #[test]
    fn only_an_invalid_gateway_token_looks_like_an_expired_session() {
        // jsforce and restforce log in again on any 401 (facts 5.8).
        for reason in Reason::ALL {
            assert_eq!(reason.status() == StatusCode::UNAUTHORIZED, *reason == Reason::SessionInvalid, "{reason}");
        }
    }
}
