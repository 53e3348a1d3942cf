//! What a caller is told of its own share with every answer: `RateLimit-Policy` and `RateLimit`
//! (draft-ietf-httpapi-ratelimit-headers-11).
//!
//! `daily` is its ceiling in API calls of any 24 hours, `pace` its burst. Neither has an effective window: in both, calls come
//! back one by one.

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use crate::config::{Caller, PaceMode};
use crate::outcome::Outcome;
use crate::refusal::Reason;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const DAY: u32 = 86_400;

/// What one caller is told; made once for each configuration.
#[derive(Debug, Clone)]
pub struct Advertised {
    policy: HeaderValue,
}

impl Advertised {
    /// What `caller` is told; `None` if it has neither ceiling nor pace.
    pub fn new(caller: &Caller) -> Option<Self> {
        let daily = caller.daily.ceiling.map(|ceiling| format!("\"daily\";q={ceiling};w={DAY}"));
        let pace = caller.pace.filter(|pace| pace.mode == PaceMode::Enforce).map(|pace| {
            let window = pace.burst.get().div_ceil(pace.per_second.get());
            format!("\"pace\";q={};w={window}", pace.burst)
        });
        let policy = match (daily, pace) {
            (None, None) => return None,
            (Some(one), None) | (None, Some(one)) => one,
            (Some(daily), Some(pace)) => format!("{daily}, {pace}"),
        };
        // Digits and quoted words are always valid.
        HeaderValue::try_from(policy).ok().map(|policy| Self { policy })
    }

    /// Adds both fields; the second only as far as something is known.
    pub fn stamp(&self, headers: &mut HeaderMap, outcome: &Outcome) {
        headers.insert(POLICY, self.policy.clone());
        let daily = match outcome.refusal {
            Some(Reason::CallerCeiling) => Some(0),
            _ => outcome.terms.and_then(|terms| terms.left),
        };
        let mut value = SmallVec::<[u8; 64]>::new();
        if let Some(left) = daily {
            value.extend_from_slice(b"\"daily\";r=");
            push(&mut value, left);
        }
        if let Some(left) = outcome.pace_left {
            value.extend_from_slice(if value.is_empty() { b"\"pace\";r=" } else { b", \"pace\";r=" });
            push(&mut value, u64::from(left));
        }
        if let Ok(value) = HeaderValue::from_bytes(&value)
            && !value.is_empty()
        {
            headers.insert(LIMIT, value);
        }
    }
}

/// Writes `number` in decimal.
fn push(value: &mut SmallVec<[u8; 64]>, number: u64) {
    let start = value.len();
    let mut rest = number;
    loop {
        value.push(b'0' + (rest % 10) as u8);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if let Some(digits) = value.get_mut(start..) {
        digits.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0, 7, 10, 27, 80_000, u64::MAX] {
            let mut value = SmallVec::from_slice(b"r=");
            push(&mut value, number);
            assert_eq!(std::str::from_utf8(&value).unwrap(), format!("r={number}"));
        }
    }
}
