//! What one call may take: time, memory, and the bounds of the pool it draws on.

use std::time::Duration;

use tokio::time::Instant;

use crate::call::{ApiCalls, Call, Family, OrgId};
use crate::salesforce::Costs;

/// How long each part of an exchange may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Name, TCP, egress proxy and TLS together.
    pub connect: Duration,
    /// From the last byte of the request to the head of the answer.
    pub first_byte: Duration,
    /// Between two pieces of the answer's body.
    pub idle: Duration,
    /// From the start to the last byte of the answer; also how long an answer is waited for after its caller left.
    pub total: Duration,
}

/// Salesforce holds a CometD connect for up to 110 s, and clients must wait at least 120 s (facts 6.7).
const LONG_POLL: Duration = Duration::from_secs(125);

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_mins(2),
            idle: Duration::from_mins(2),
            total: Self::usual_total(Family::Rest),
        }
    }
}

impl Timeouts {
    /// How long a whole call of `family` may take unless the operator says otherwise: a little longer than
    /// Salesforce itself lets it run, ten minutes, or 32 for a query (facts 1.4). Files of bulk jobs stream.
    pub const fn usual_total(family: Family) -> Duration {
        match family {
            Family::Query => Duration::from_mins(33),
            Family::Bulk1 | Family::Bulk2 => Duration::from_hours(6),
            _ => Duration::from_secs(630),
        }
    }

    /// The same, but none so short that it would cut a long poll.
    #[must_use]
    pub fn for_long_poll(self) -> Self {
        Self {
            first_byte: self.first_byte.max(LONG_POLL),
            idle: self.idle.max(LONG_POLL),
            total: self.total.max(LONG_POLL),
            ..self
        }
    }
}

/// How one call is to be made.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Which target: the org itself, or its login host behind the orgs.
    pub org: OrgId,
    /// The present, read once for the request.
    pub now: Instant,
    /// What Salesforce charges if the call succeeds, for the record of the exchange.
    pub cost: ApiCalls,
    /// What it charges otherwise.
    pub costs: Costs,
    /// How long each part may take.
    pub timeouts: Timeouts,
    /// When the caller gives up.
    pub deadline: Option<Instant>,
    /// Bytes of the answer that may be read before the caller takes them; zero for none.
    pub read_ahead: usize,
    /// A CometD long poll: never read ahead, and ended when its caller leaves.
    pub long_poll: bool,
}

impl Plan {
    /// A request of the gateway's own to somebody who is not Salesforce: it costs no call, and nothing of it takes longer
    /// than `bound`.
    pub fn aside(now: Instant, bound: Duration) -> Self {
        Self {
            org: OrgId(0),
            now,
            cost: ApiCalls(0),
            costs: Costs::default(),
            timeouts: Timeouts { connect: bound, first_byte: bound, idle: bound, total: bound },
            deadline: Some(now + bound),
            read_ahead: 0,
            long_poll: false,
        }
    }

    /// The plan of `call` as it stands at `now`.
    pub fn of(call: &Call, now: Instant, costs: Costs, timeouts: Timeouts, read_ahead: usize) -> Self {
        let long_poll = call.meaning.long_poll;
        Self {
            org: call.org,
            now,
            cost: call.meaning.cost,
            costs,
            timeouts: if long_poll { timeouts.for_long_poll() } else { timeouts },
            // A deadline for its other calls is none for a poll.
            deadline: call.deadline.map(|deadline| if long_poll { deadline.max(now + LONG_POLL) } else { deadline }),
            read_ahead: if long_poll { 0 } else { read_ahead },
            long_poll,
        }
    }
}

/// Bounds of the pool of one runtime, for each org.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at a time (with HTTP/2: exchanges at a time).
    pub connections: usize,
    /// Calls that may wait for a connection.
    pub waiting: usize,
    /// How long a call waits for a connection at most, deadline or not.
    pub wait: Duration,
    /// A connection unused for this long is closed.
    pub idle: Duration,
    /// A connection this old is not used again, so that a moved org is followed.
    pub age: Duration,
    /// Answers waited for after their callers left.
    pub abandoned: usize,
    /// The rest of an answer that nobody reads is read to its end, to keep the connection, up to this many bytes.
    pub drain_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            waiting: 1_024,
            wait: Duration::from_secs(10),
            idle: Duration::from_secs(50),
            age: Duration::from_mins(10),
            abandoned: 256,
            drain_bytes: 64 * 1_024,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_poll_is_never_cut_before_salesforce_ends_it() {
        let short = Timeouts {
            connect: Duration::from_secs(1),
            first_byte: Duration::from_secs(2),
            idle: Duration::from_secs(3),
            total: Duration::from_secs(4),
        };
        let poll = short.for_long_poll();
        assert!(poll.first_byte > Duration::from_mins(2) && poll.total > Duration::from_mins(2));
        assert_eq!(poll.connect, short.connect);
    }

    #[test]
    fn nothing_is_cut_before_salesforce_would_end_it() {
        assert!(Timeouts::usual_total(Family::Query) > Duration::from_mins(32));
        assert!(Family::ALL.iter().all(|family| Timeouts::usual_total(*family) > Duration::from_mins(10)));
    }
}
