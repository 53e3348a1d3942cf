//! Poll: stands where others are identified and understood, for the gateway's own question what an org has used.
//!
//! From here on the question is a call like any other: its identity's token, its own account in the ledger, one attempt.

use std::task::{Context, Poll as Ready};
use std::time::Duration;

use http::uri::PathAndQuery;
use smol_str::SmolStr;
use tower::{Layer, Service};

use crate::call::{Call, Class, OrgId};
use crate::refusal::{Reason, Refusal};
use crate::salesforce;
use crate::stages::way::Way;
use crate::stages::{Passage, Reply, Seen};

/// How long the gateway waits for the answer to its question.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Puts [`Poll`] on the road.
#[derive(Debug, Clone)]
pub struct PollLayer {
    /// The name of the org that is asked.
    pub org: SmolStr,
}

impl<S> Layer<S> for PollLayer {
    type Service = Poll<S>;

    fn layer(&self, inner: S) -> Poll<S> {
        Poll { inner, org: self.org.clone() }
    }
}

/// The stage: makes a request of the gateway's own a call of its poller.
#[derive(Debug, Clone)]
pub struct Poll<S> {
    inner: S,
    org: SmolStr,
}

impl<S> Service<Seen> for Poll<S>
where
    S: Service<Box<Passage>, Response = Reply, Error = Refusal>,
{
    type Response = Reply;
    type Error = Refusal;
    type Future = Way<S::Future>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Ready<Result<(), Refusal>> {
        Ready::Ready(Ok(()))
    }

    fn call(&mut self, seen: Seen) -> Self::Future {
        match passage(seen, &self.org) {
            Some(passage) => Way::onward(self.inner.call(passage)),
            None => Way::refused(Refusal::new(Reason::UnknownOrg, "The org is not asked any more.")),
        }
    }
}

/// The question as a call; `None` if a reload ended the asking.
fn passage(seen: Seen, org: &SmolStr) -> Option<Box<Passage>> {
    let Seen { head, live, record, now, body: _, connection: _ } = seen;
    let place = live.orgs().iter().position(|held| held.name == *org)?;
    let (org, caller) = (OrgId(u16::try_from(place).ok()?), live.poller());
    let held = live.org(org)?;
    let principal = held.identity(caller)?.principal();
    let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let meaning = salesforce::understand(&head.method, path, &held.costs);
    // What it learns is worth more than the call, so nobody's class goes before it.
    let class = Class::Interactive;
    {
        let mut outcome = record.lock();
        (outcome.org, outcome.caller, outcome.principal, outcome.class) = (Some(org), Some(caller), principal, class);
        (outcome.family, outcome.operation) = (meaning.family, meaning.operation);
        (outcome.template, outcome.version) = (meaning.template, meaning.version);
    }
    let call = Call { org, caller, principal, class, meaning, deadline: Some(now + PATIENCE) };
    let payload = crate::body::Payload::Empty;
    Some(Box::new(Passage::new(call, head, payload, live, record, now, true)))
}
