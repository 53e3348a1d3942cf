//! What Salesforce charges (facts 1.3), and the cases it leaves undocumented as switches.

use http::StatusCode;

use crate::call::ApiCalls;

/// Subrequests that Salesforce takes in one batch (facts 3.7).
pub(crate) const BATCH_MAX: u32 = 25;
/// Subqueries that Salesforce takes in one GraphQL query (facts 3.8).
pub(crate) const GRAPHQL_MAX: u32 = 10;

/// API calls charged in the cases that Salesforce does not document; 0 or 1 each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Costs {
    /// For an answer 304.
    pub not_modified: u32,
    /// For an answer 4xx that is no limit refusal.
    pub client_error: u32,
    /// For an answer 5xx.
    pub server_error: u32,
    /// For a refusal because a limit is used up (`REQUEST_LIMIT_EXCEEDED`).
    pub refusal: u32,
    /// For a token, log-in or identity request.
    pub oauth: u32,
    /// For `/limits`.
    pub limits: u32,
}

impl Default for Costs {
    fn default() -> Self {
        Self { not_modified: 1, client_error: 1, server_error: 1, refusal: 1, oauth: 0, limits: 1 }
    }
}

/// How a route is priced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Price {
    /// One call, whatever is inside.
    One,
    /// No call: versions, CometD, Chatter.
    Free,
    /// By [`Costs::oauth`].
    Oauth,
    /// By [`Costs::limits`].
    Limits,
    /// One call for each subrequest of a batch.
    Batch,
    /// One call for each subquery.
    Graphql,
}

impl Price {
    /// The cost as far as the head tells: the most it can be.
    pub(crate) fn at_most(self, costs: &Costs) -> ApiCalls {
        ApiCalls(match self {
            Self::One => 1,
            Self::Free => 0,
            Self::Oauth => costs.oauth,
            Self::Limits => costs.limits,
            Self::Batch => BATCH_MAX,
            Self::Graphql => GRAPHQL_MAX,
        })
    }
}

/// What an exchange that was sent and answered with `status` was charged, if a success costs `cost`.
///
/// A limit refusal is not told from another 403 by its status: use [`charged_if_refused`] for those.
pub fn charged(cost: ApiCalls, status: StatusCode, costs: &Costs) -> ApiCalls {
    if cost == ApiCalls(0) {
        return cost;
    }
    match status.as_u16() {
        304 => ApiCalls(costs.not_modified),
        400..=499 => ApiCalls(costs.client_error),
        500.. => ApiCalls(costs.server_error),
        _ => cost,
    }
}

/// What an exchange was charged that Salesforce refused because a limit is used up.
pub fn charged_if_refused(cost: ApiCalls, costs: &Costs) -> ApiCalls {
    if cost == ApiCalls(0) { cost } else { ApiCalls(costs.refusal) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOTHING: Costs = Costs { not_modified: 0, client_error: 0, server_error: 0, refusal: 0, oauth: 0, limits: 0 };

    #[test]
    fn an_answer_is_charged_by_its_status() {
        let costs = Costs { not_modified: 0, client_error: 1, ..NOTHING };
        for (status, expected) in
            [(200, 7), (204, 7), (300, 7), (302, 7), (304, 0), (400, 1), (404, 1), (420, 1), (500, 0), (599, 0)]
        {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(charged(ApiCalls(7), status, &costs), ApiCalls(expected), "{status}");
        }
        assert_eq!(charged_if_refused(ApiCalls(7), &NOTHING), ApiCalls(0));
        assert_eq!(charged_if_refused(ApiCalls(7), &Costs::default()), ApiCalls(1));
    }

    proptest! {
        #[test]
        fn what_is_free_stays_free(status in 100u16..1000) {
            let status = StatusCode::from_u16(status).unwrap();
            prop_assert_eq!(charged(ApiCalls(0), status, &Costs::default()), ApiCalls(0));
        }

        #[test]
        fn a_dearer_call_is_never_charged_less(status in 100u16..1000, low in 0u32..100, more in 0u32..100) {
            let status = StatusCode::from_u16(status).unwrap();
            let costs = Costs::default();
            prop_assert!(charged(ApiCalls(low), status, &costs) <= charged(ApiCalls(low + more), status, &costs));
        }
    }
}
