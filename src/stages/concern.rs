//! What the cache has to do with a call, told from what is known of every call. A part of [`super::recall`].

use http::HeaderValue;

use crate::answers::Kind;
use crate::call::{Family, Idempotency, Meaning, Operation};
use crate::refusal::{Reason, Refusal};

/// What the stage has to do with a call.
pub(super) enum Concern {
    Nothing,
    Question(Kind),
    Change,
    /// An answer that says how a bulk job is doing.
    Job,
    /// A session is given back.
    Farewell,
}

impl Concern {
    /// Decided from what is known of every call; most are done after a comparison or two. `rows` are kept, or only `followed`.
    pub(super) fn of(meaning: &Meaning, rows: bool, followed: bool) -> Self {
        if meaning.idempotency == Idempotency::Safe {
            return match meaning.operation {
                Operation::Describe | Operation::Limits => Kind::of(meaning).map_or(Self::Nothing, Self::Question),
                Operation::Read | Operation::Query if rows => Kind::of(meaning).map_or(Self::Nothing, Self::Question),
                Operation::Job if followed && meaning.family == Family::Bulk2 => Self::Job,
                _ => Self::Nothing,
            };
        }
        match meaning.family {
            Family::Oauth if meaning.template == "/services/oauth2/revoke" => Self::Farewell,
            Family::Versions | Family::Cometd | Family::Oauth => Self::Nothing,
            Family::Soap if meaning.idempotency == Idempotency::Idempotent && has_log_out(meaning) => Self::Farewell,
            Family::Bulk1 | Family::Bulk2 if meaning.operation == Operation::Job => {
                if followed {
                    Self::Job
                } else {
                    Self::Nothing
                }
            }
            _ => Self::Change,
        }
    }
}

fn has_log_out(meaning: &Meaning) -> bool {
    !meaning.parts.is_empty() && meaning.parts.iter().all(|part| part.operation == Operation::Login)
}

/// The answer to who wants Salesforce not to be asked, where there is nothing in memory.
pub(super) fn not_cached() -> Refusal {
    Refusal::new(Reason::NotCached, "There is no answer in memory for this request.")
}

/// Whether a field `Cache-Control` says that Salesforce is not to be asked.
pub(super) fn wants_memory_only(value: &HeaderValue) -> bool {
    let mut words = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    words.any(|word| word.eq_ignore_ascii_case(b"only-if-cached"))
}

/// Failures in whose place an older answer is better than none. What an operator or a rule refused stays refused.
pub(super) fn may_be_stale(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::CallerCeiling
            | Reason::OrgAllowance
            | Reason::Shed
            | Reason::CircuitOpen
            | Reason::Pace
            | Reason::CallerPace
            | Reason::SlotsBusy
            | Reason::CallsInFlight
            | Reason::QueueFull
            | Reason::BudgetUnready
            | Reason::IdentityUnavailable
            | Reason::UpstreamUnreachable
            | Reason::UpstreamTls
            | Reason::UpstreamReset
            | Reason::UpstreamGarbage
            | Reason::UpstreamBusy
            | Reason::UpstreamTimeout
            | Reason::DeadlinePassed
    )
}
