//! Numbers and remedies in words that people use.

use crate::refusal::Reason;
use crate::telemetry::Trouble;

/// `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 call`, `1,200 calls`.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// What an operator can do about a trouble. [`Reason::advice`] speaks to callers; where it sends them to the operator, this
/// says what the operator then does.
pub fn remedy(trouble: &Trouble) -> &'static str {
    match trouble {
        Trouble::Refused { reason } | Trouble::WouldRefuse { reason } => of_refusal(*reason),
        Trouble::Failed { kind, .. } => of_failure(kind),
        Trouble::Partial { .. } => {
            "The app must read the result of each record and send the failed ones again; the answer as a whole looked well."
        }
        Trouble::UnknownOutcome => {
            "The app must read the record before it sends the write again; upserts by external id can be repeated safely."
        }
    }
}

const fn of_refusal(reason: Reason) -> &'static str {
    match reason {
        Reason::UnknownOrg => "Add the Host name to the org's hosts, or correct the app's address.",
        Reason::UnknownCaller => "Add the app to callers, or correct its key.",
        Reason::Forbidden => "Correct the app, or extend the caller's allow-rules if it needs this.",
        Reason::Paused => "Resume the caller or class when it may go on.",
        Reason::CallerCeiling => "Raise the caller's ceiling, or have the app ask less often or for more at once.",
        Reason::OrgAllowance => "Find the largest spender and pause it, or wait until calls come back.",
        Reason::Shed => "Calls are scarce: pause batch work, or give this caller a floor.",
        Reason::Pace => "Calls are scarce and batch work goes as fast as they come back; it catches up by itself.",
        Reason::CallerPace => "Have the app go slower, or raise the caller's pace.",
        Reason::BudgetUnready => {
            "Wait for Salesforce's first word on the allowance; if it stays, look at the state path and the log."
        }
        Reason::SlotsBusy => {
            "Look at the oldest calls: their callers ask for too much at once. Bulk API 2.0 holds no slot."
        }
        Reason::CallsInFlight => "Have the app send fewer calls at a time, or raise its in_flight.",
        Reason::CircuitOpen => {
            "Salesforce fails, or somebody has opened the breaker: see the circuit breakers on the page; it ends by itself once Salesforce is well."
        }
        Reason::QueueFull => "More is asked than can go: pause batch work, or raise the queue's places.",
        Reason::LoginLimited => "Correct the key the app logs in with, and have it keep its token.",
        Reason::IdentityUnavailable => "Look at the identity below: its token endpoint does not answer.",
        Reason::IdentityRefused => "Correct the identity's secret or connected app, then reload the configuration.",
        Reason::BuffersFull => "Raise limits.buffered_bytes_total, or have apps send smaller bodies.",
        Reason::TooManyConnections => "Raise limits.connections, or have apps close idle ones.",
        Reason::UpstreamUnreachable => {
            "Look at DNS, the egress proxy and the firewall; then at Salesforce's status page."
        }
        Reason::UpstreamTls => "Look at upstream.roots: a proxy on the way may present another certificate.",
        Reason::UpstreamReset => {
            "Salesforce or a proxy on the way closes connections; if it stays, look at Salesforce's status page."
        }
        Reason::UpstreamGarbage => {
            "Something else than Salesforce answers at the org's address: look at instance_url and the proxy."
        }
        Reason::UpstreamBusy => "Raise upstream.connections_per_runtime.",
        Reason::UpstreamTimeout => {
            "Salesforce is slow or the call asks for too much: look at its route, then at upstream.first_byte."
        }
        Reason::DeadlinePassed => {
            "The call waited longer than its deadline: look at the queue, or allow the caller more time."
        }
        Reason::OutcomeUnknown => {
            "The app must read the record before it sends the write again; upserts by external id can be repeated safely."
        }
        Reason::Internal => "A defect of the gateway: report it with the log line of this request.",
        other => other.advice(),
    }
}

fn of_failure(kind: &str) -> &'static str {
    match kind {
        "transient" => {
            "Salesforce is not well; reads are made once more by themselves. If it stays, look at its status page."
        }
        "permanent" | "governor" | "partial" => "The app must change the request: sent again, it fails again.",
        "lock" => "Several apps change the same records: have them take turns, or write them in one order.",
        "auth" => "The session is not accepted: the app must log in again; look at the user and its permissions.",
        "limit_daily" => "The org's allowance is used up: pause the largest spender or wait until calls come back.",
        "limit_slots" => "Too many calls run long: look at the oldest ones.",
        "limit_family" => "A limit of this API is used up, mostly one user's: have the app go slower.",
        "schema" => "The object or field does not exist for this user: correct the app or the permissions.",
        "version" => "Salesforce no longer serves this API version: the app must use a newer one.",
        "maintenance" => "The org is in maintenance: wait.",
        "dns" | "connect" => "Look at DNS, the egress proxy and the firewall; then at Salesforce's status page.",
        "tls" => "Look at upstream.roots: a proxy on the way may present another certificate.",
        "reset" | "timeout" | "garbage" => {
            "If it stays, look at Salesforce's status page and at what stands on the way."
        }
        _ => "Look at the error code in Salesforce's documentation.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::FailureKind;
    use crate::salesforce::taxonomy::Kind;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(counted(1, "call", "calls") + ", " + &counted(2_000, "call", "calls"), "1 call, 2,000 calls");
    }

    #[test]
    fn operators_are_never_sent_to_the_operator() {
        for reason in Reason::ALL {
            let text = remedy(&Trouble::Refused { reason: *reason });
            assert!(text.ends_with('.') && !text.contains("operator"), "{reason}: {text}");
        }
    }

    #[test]
    fn every_kind_of_failure_has_a_remedy_of_its_own() {
        let unknown = of_failure("?");
        for kind in Kind::ALL.iter().filter(|kind| **kind != Kind::Unknown) {
            assert_ne!(of_failure(kind.as_str()), unknown, "{kind}");
        }
        for kind in FailureKind::ALL.iter().filter(|kind| **kind != FailureKind::Status) {
            assert_ne!(of_failure(kind.as_str()), unknown, "{kind}");
        }
    }
}
