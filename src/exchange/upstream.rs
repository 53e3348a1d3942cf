//! Sends calls to Salesforce.

use std::sync::Arc;

use http::{Request, Response};

use super::body::UpstreamBody;
use super::conn::Lent as _;
use super::connect::{Connector, Origin};
use super::failure::{Cause, Failure};
use super::payer::{Nobody, Payer};
use super::pending::{Attempt, Broken, Pending, Price, Terms};
use super::plan::{Limits, Plan};
use super::pool::{Common, Org, Stream};
use super::stats::{Counters, OrgStats};
use crate::body::{ByteBudget, Payload};
use crate::call::OrgId;
use crate::clock::Clock;
use crate::outcome::Record;
use crate::tasks::Tasks;

/// How often a message that was given back unsent is sent on another connection.
const RESENDS: usize = 3;

/// One org as this runtime reaches it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where it answers.
    pub origin: Origin,
    /// How connections are made.
    pub connector: Connector,
    /// Bounds of its pool.
    pub limits: Limits,
}

/// The way to Salesforce of one runtime. Cloning is one reference count; dropping the last closes idle connections.
pub struct Upstream<S: Stream>(Arc<Shared<S>>);

struct Shared<S: Stream> {
    /// By [`OrgId`].
    orgs: Box<[Arc<Org<S>>]>,
    clock: Clock,
}

impl<S: Stream> Clone for Upstream<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Stream> std::fmt::Debug for Upstream<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Upstream({} orgs)", self.0.orgs.len())
    }
}

impl<S: Stream> Drop for Shared<S> {
    fn drop(&mut self) {
        self.orgs.iter().for_each(|org| org.close());
    }
}

impl<S: Stream> Upstream<S> {
    /// Reaches `targets`, in the order of their [`OrgId`]s. What outlives a call runs in `tasks`; what is read ahead
    /// of a caller is taken from `budget`.
    pub fn new(targets: impl IntoIterator<Item = Target>, clock: Clock, tasks: &Tasks, budget: &ByteBudget) -> Self {
        let org = |Target { origin, connector, limits }| {
            let (tasks, budget, counters) = (tasks.clone(), budget.clone(), Counters::default());
            Org::new(Common { origin, limits, clock, tasks, budget, counters }, connector)
        };
        Self(Arc::new(Shared { orgs: targets.into_iter().map(org).collect(), clock }))
    }

    /// Sends `request` and waits for the head of its answer. Each attempt that is handed to a connection is written
    /// into `record`, to its very end.
    ///
    /// Dropping the future before the message was sent cancels it; after that, the exchange goes on without it.
    pub async fn send(
        &self,
        mut request: Request<Payload<S>>,
        plan: &Plan,
        record: &Record,
    ) -> Result<Response<UpstreamBody>, Failure> {
        self.send_paid(&mut request, plan, record, &mut Nobody).await
    }

    /// The same, paid for by `payer`. What is left of `request` is of no more use.
    pub async fn send_paid(
        &self,
        request: &mut Request<Payload<S>>,
        plan: &Plan,
        record: &Record,
        payer: &mut impl Payer,
    ) -> Result<Response<UpstreamBody>, Failure> {
        let Some(org) = self.0.orgs.get(usize::from(plan.org.0)) else {
            return Err(Failure::unsent(Cause::Connect, "The org is not configured any more."));
        };
        let host = org.common.origin.host();
        if plan.deadline.is_some_and(|deadline| deadline <= plan.now) {
            return Err(Failure::unsent(
                Cause::Deadline,
                format!("The caller's deadline passed before {host} was asked."),
            ));
        }
        let terms = Terms::of(plan);
        let mut now = plan.now;
        let mut resends = 0;
        loop {
            let idle = if resends < RESENDS { org.take_idle(now) } else { None };
            let conn = if let Some(conn) = idle {
                conn
            } else {
                // Rare, and large: not to be carried by every call.
                let conn = Box::pin(org.wait_or_open(plan, now)).await?;
                now = self.0.clock.now();
                conn
            };
            let reused = conn.reused;
            let Ok(hold) = payer.hand_over(now) else {
                conn.give_back(now);
                return Err(Failure::unsent(Cause::Unpaid, "No API call is left for this request."));
            };
            let attempt = Attempt::sent(record, now, plan.cost, hold);
            match Pending::start(conn, request, &org.common.origin, attempt, Price::of(plan), terms, now).await {
                Ok(response) => return Ok(response),
                Err(Broken::Failed(failure)) => return Err(failure),
                Err(Broken::Unsent(unsent, hold)) if reused && resends < RESENDS => {
                    Counters::add(&org.common.counters.resent);
                    resends += 1;
                    unsent.restore(request);
                    now = self.0.clock.now();
                    payer.given_back(hold, now);
                }
                Err(Broken::Unsent(_, hold)) => {
                    payer.given_back(hold, self.0.clock.now());
                    return Err(Failure::unsent(
                        Cause::Reset,
                        format!("{host} closed the connection before the request could be sent."),
                    ));
                }
            }
        }
    }

    /// The connections to `org` now; `None` if there is no such org.
    pub fn stats(&self, org: OrgId) -> Option<OrgStats> {
        self.0.orgs.get(usize::from(org.0)).map(|org| org.snapshot())
    }
}
