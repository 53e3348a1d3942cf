//! What went wrong with an attempt, and the refusal that tells the caller.
//!
//! A [`Failure`] belongs to one attempt and says whether trying again is safe; a [`Refusal`] is the answer the caller
//! gets. The mapping is pure.

use crate::body::BodyFault;
use crate::call::Idempotency;
use crate::outcome::FailureKind;
use crate::refusal::{Reason, Refusal};

/// Whether Salesforce may have seen the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Not one complete request reached a connection: sending it again cannot do it twice.
    Nothing,
    /// It was handed to a connection: Salesforce may be working on it, or have finished.
    Maybe,
}

/// What exactly went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The host's name has no address.
    Dns,
    /// No address accepted a TCP connection.
    Connect,
    /// Name, TCP, proxy and TLS together took longer than the connect timeout.
    ConnectTimeout,
    /// The egress proxy could not be reached or refused.
    Proxy,
    /// The TLS handshake failed.
    Tls,
    /// Every connection is in use, and the queue is full or the wait was too long.
    Busy,
    /// Nobody pays for it: what was reserved for it ended before it could be sent.
    Unpaid,
    /// The caller's deadline passed.
    Deadline,
    /// The connection broke.
    Reset,
    /// No head in time.
    FirstByte,
    /// The whole exchange took too long.
    Total,
    /// The answer is not HTTP.
    Garbage,
    /// The caller's body broke off while it was being passed on.
    Upload(BodyFault),
}

/// An attempt that brought no answer. `detail` names the host and what to check, never a path, token or body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub cause: Cause,
    /// Whether Salesforce may have seen the request.
    pub sent: Sent,
    /// One sentence, naming the host.
    pub detail: Box<str>,
}

impl Failure {
    /// A failure before anything was sent.
    pub(super) fn unsent(cause: Cause, detail: impl Into<Box<str>>) -> Self {
        Self { cause, sent: Sent::Nothing, detail: detail.into() }
    }

    /// A failure after the message was handed to a connection.
    pub(super) fn maybe_sent(cause: Cause, detail: impl Into<Box<str>>) -> Self {
        Self { cause, sent: Sent::Maybe, detail: detail.into() }
    }

    /// How it counts in metrics; `None` if Salesforce is not to blame.
    pub fn kind(&self) -> Option<FailureKind> {
        self.cause.kind()
    }

    /// The answer for the caller of a call with this `idempotency`.
    pub fn refusal(self, idempotency: Idempotency) -> Refusal {
        let reason = reason(self.cause, self.sent, idempotency);
        Refusal::new(reason, self.detail)
    }
}

impl Cause {
    /// How it counts in metrics; `None` if Salesforce is not to blame.
    pub fn kind(self) -> Option<FailureKind> {
        match self {
            Self::Dns => Some(FailureKind::Dns),
            Self::Connect | Self::ConnectTimeout | Self::Proxy => Some(FailureKind::Connect),
            Self::Tls => Some(FailureKind::Tls),
            Self::Reset => Some(FailureKind::Reset),
            Self::FirstByte | Self::Total => Some(FailureKind::Timeout),
            Self::Garbage => Some(FailureKind::Garbage),
            Self::Busy | Self::Unpaid | Self::Deadline | Self::Upload(_) => None,
        }
    }
}

/// Why the caller gets no answer from Salesforce (facts 2.6): what may have happened comes before how it went wrong.
fn reason(cause: Cause, sent: Sent, idempotency: Idempotency) -> Reason {
    if let Cause::Upload(fault) = cause {
        // A body that broke off never looked complete to Salesforce, so nothing was done with it.
        return match fault {
            BodyFault::TooLarge => Reason::BodyTooLarge,
            BodyFault::TooSlow => Reason::BodyTooSlow,
            BodyFault::Malformed | BodyFault::Gone => Reason::BodyMalformed,
        };
    }
    if sent == Sent::Maybe && idempotency != Idempotency::Safe {
        return Reason::OutcomeUnknown;
    }
    match cause {
        Cause::Dns | Cause::Connect | Cause::ConnectTimeout | Cause::Proxy => Reason::UpstreamUnreachable,
        Cause::Tls => Reason::UpstreamTls,
        Cause::Busy => Reason::UpstreamBusy,
        Cause::Unpaid => Reason::OrgAllowance,
        Cause::Deadline => Reason::DeadlinePassed,
        Cause::Reset => Reason::UpstreamReset,
        Cause::FirstByte | Cause::Total => Reason::UpstreamTimeout,
        Cause::Garbage => Reason::UpstreamGarbage,
        Cause::Upload(BodyFault::TooLarge) => Reason::BodyTooLarge,
        Cause::Upload(BodyFault::TooSlow) => Reason::BodyTooSlow,
        Cause::Upload(BodyFault::Malformed | BodyFault::Gone) => Reason::BodyMalformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAUSES: [Cause; 13] = [
        Cause::Dns,
        Cause::Connect,
        Cause::ConnectTimeout,
        Cause::Proxy,
        Cause::Tls,
        Cause::Busy,
        Cause::Unpaid,
        Cause::Deadline,
        Cause::Reset,
        Cause::FirstByte,
        Cause::Total,
        Cause::Garbage,
        Cause::Upload(BodyFault::TooSlow),
    ];

    #[test]
    fn a_write_that_may_have_happened_is_never_reported_as_anything_else() {
        for cause in CAUSES.into_iter().filter(|cause| !matches!(cause, Cause::Upload(_))) {
            for idempotency in [Idempotency::Unsafe, Idempotency::Idempotent] {
                let refusal = Failure::maybe_sent(cause, "x").refusal(idempotency);
                assert_eq!(refusal.reason, Reason::OutcomeUnknown, "{cause:?}");
                assert_eq!(refusal.status(), 504);
                assert_eq!(refusal.retry_after, None, "nothing invites a blind retry");
            }
        }
    }

    #[test]
    fn a_write_that_was_not_sent_is_never_reported_as_unknown() {
        for cause in CAUSES {
            let refusal = Failure::unsent(cause, "x").refusal(Idempotency::Unsafe);
            assert_ne!(refusal.reason, Reason::OutcomeUnknown, "{cause:?}");
        }
    }

    #[test]
    fn reads_are_told_what_went_wrong() {
        for (cause, reason) in [
            (Cause::Reset, Reason::UpstreamReset),
            (Cause::FirstByte, Reason::UpstreamTimeout),
            (Cause::Total, Reason::UpstreamTimeout),
            (Cause::Garbage, Reason::UpstreamGarbage),
            (Cause::Deadline, Reason::DeadlinePassed),
        ] {
            assert_eq!(Failure::maybe_sent(cause, "x").refusal(Idempotency::Safe).reason, reason);
        }
        let unreachable = Failure::unsent(Cause::Dns, "x").refusal(Idempotency::Safe);
        assert_eq!(unreachable.status(), 502);
        assert!(unreachable.retry_after.is_some());
    }

    #[test]
    fn a_broken_upload_is_the_callers_fault() {
        let refusal = Failure::maybe_sent(Cause::Upload(BodyFault::TooLarge), "x").refusal(Idempotency::Unsafe);
        assert_eq!(refusal.reason, Reason::BodyTooLarge);
        assert_eq!(Cause::Upload(BodyFault::Gone).kind(), None);
    }
}
