//! Errands: questions the gateway asks on its own account, in the name of a caller, so that an answer is in memory before it
//! is needed. A part of [`super::recall`].
//!
//! An errand goes with the session of the request that occasioned it, under its caller's account, as a call like any other:
//! recorded, admitted, paid, and refused where nothing is left for calls of class batch. Its answer goes to memory and to
//! whoever joins its flight. Of one question one errand is under way, and of all a bounded number.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, IF_MODIFIED_SINCE, IF_NONE_MATCH, PRAGMA};
use http::{HeaderValue, Method, Request};
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Layer as _, Service};

use crate::answers::{Boarding, Kind, Leader, Look, Question};
use crate::body::Payload;
use crate::call::{Call, Class};
use crate::clock::Clock;
use crate::edge::{Arrival, Connection, Inbound};
use crate::live::Live;
use crate::outcome;
use crate::refusal::{Reason, Refusal};
use crate::salesforce;
use crate::stages::observe::ObserveLayer;
use crate::stages::recall::{Asked, Recall, Who};
use crate::stages::way::Waiting;
use crate::stages::{Passage, Reply, Seen};
use crate::tasks::Tasks;

/// Errands of one runtime under way at the same time; more are not begun.
const AT_ONCE: usize = 32;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where errands are sent from. Cloning is one reference count.
#[derive(Debug, Clone)]
pub(super) struct Errands(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    observe: ObserveLayer,
    tasks: Tasks,
    places: Arc<Semaphore>,
}

/// One errand.
pub(super) struct Errand {
    why: outcome::Errand,
    head: http::request::Parts,
    call: Call,
    live: Arc<Live>,
    question: Question,
    fresh: Duration,
    keeps: bool,
    look: Look,
    leader: Leader,
}

impl Errand {
    /// To ask what `passage` asks, for its answer is no longer fresh.
    pub(super) fn revalidate(
        passage: &Passage,
        question: &Question,
        fresh: Duration,
        look: Look,
        leader: Leader,
    ) -> Self {
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = Method::GET;
        head.uri.clone_from(&passage.head.uri);
        head.headers.clone_from(&passage.head.headers);
        // A whole answer is wanted.
        for name in [CACHE_CONTROL, PRAGMA, IF_NONE_MATCH, IF_MODIFIED_SINCE] {
            head.headers.remove(name);
        }
        Self {
            why: outcome::Errand::Revalidate,
            head,
            call: passage.call.clone(),
            live: Arc::clone(&passage.live),
            question: question.plainly(),
            fresh,
            keeps: true,
            look,
            leader,
        }
    }
}

impl Errand {
    /// To ask what `object` looks like to the session of `passage`.
    pub(super) fn describe(passage: &Passage, object: &str) -> Option<Self> {
        let (live, call) = (&passage.live, &passage.call);
        let (cache, org) = (live.cache.as_ref()?, live.org(call.org)?);
        let target = format!("/services/data/{}/sobjects/{object}/describe", call.meaning.version?);
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = Method::GET;
        head.uri = target.parse().ok()?;
        head.headers.clone_from(&passage.head.headers);
        for name in [CACHE_CONTROL, PRAGMA, IF_NONE_MATCH, IF_MODIFIED_SINCE] {
            head.headers.remove(name);
        }
        head.headers.remove("sforce-query-options");
        head.headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let call = Call { meaning: salesforce::understand(&head.method, &target, &org.costs), ..call.clone() };
        let number = org.answers.number();
        let rules = &cache.rules;
        let question = Question::of(Kind::Describe, &call, number, &target, &head.headers, rules, None)?;
        let entry = rules.entry(&call, &question);
        let (fresh, keeps) = (entry.map_or(Duration::ZERO, |entry| entry.fresh), entry.is_some());
        let look = org.answers.look(None, &question.deps, call.principal, passage.now, rules.recheck);
        let may_join = |as_of| org.answers.unmoved(&question.deps, as_of, passage.now);
        let leader = match cache.flights.board(&question.key, look.as_of, Class::Batch, may_join) {
            Boarding::Leads(leader) if !look.busy => *leader,
            // Somebody is asking, and what he is told teaches as much.
            _ => return None,
        };
        let (why, live) = (outcome::Errand::Describe, Arc::clone(live));
        Some(Self { why, head, call, live, question, fresh, keeps, look, leader })
    }
}

impl Errands {
    pub(super) fn new(clock: Clock, observe: ObserveLayer, tasks: Tasks) -> Self {
        Self(Arc::new(Inner { clock, observe, tasks, places: Arc::new(Semaphore::new(AT_ONCE)) }))
    }

    /// A place for one more errand, if there is one.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.places).try_acquire_owned().ok()
    }

    /// Sends `errand` on its way.
    pub(super) fn send<S>(&self, errand: Errand, place: OwnedSemaphorePermit, recall: Recall<S>)
    where
        S: Service<Box<Passage>, Response = Reply, Error = Refusal> + Clone + Send + 'static,
        S::Future: Send,
    {
        let connection = Connection::new((Ipv4Addr::LOCALHOST, 0).into(), 0);
        let arrival = Arrival {
            head: errand.head.clone(),
            body: Inbound::whole(Bytes::new(), self.0.clock),
            connection: Arc::new(connection),
        };
        let mut road = self.0.observe.layer(Run { recall, errand: Some(Box::new(errand)) });
        self.0.tasks.spawn(async move {
            let mut body = match road.call(arrival).await {
                Ok(response) => response.into_body(),
                Err(never) => match never {},
            };
            while let Some(Ok(_)) = body.frame().await {}
            drop(place);
        });
    }
}

/// Stands where others are identified and understood.
struct Run<S> {
    recall: Recall<S>,
    errand: Option<Box<Errand>>,
}

impl<S> Service<Seen> for Run<S>
where
    S: Service<Box<Passage>, Response = Reply, Error = Refusal> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Reply;
    type Error = Refusal;
    type Future = Waiting;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, seen: Seen) -> Self::Future {
        let Seen { head, record, now, live, .. } = seen;
        let current = self.errand.take().filter(|errand| errand.live.generation == live.generation);
        let Some(errand) = current else {
            let gone = Refusal::new(Reason::UnknownOrg, "The configuration has changed since.");
            return Box::pin(std::future::ready(Err(gone)));
        };
        let Errand { why, call, question, fresh, keeps, look, leader, .. } = *errand;
        let call = Call { class: Class::Batch, deadline: Some(now + PATIENCE), ..call };
        {
            let mut outcome = record.lock();
            outcome.errand = Some(why);
            (outcome.org, outcome.caller, outcome.principal) = (Some(call.org), Some(call.caller), call.principal);
            (outcome.class, outcome.family, outcome.operation) =
                (call.class, call.meaning.family, call.meaning.operation);
            (outcome.template, outcome.version) = (call.meaning.template, call.meaning.version);
            outcome.object.clone_from(&call.meaning.object);
        }
        let who = Who { live: Arc::clone(&live), record: record.clone(), call: call.clone() };
        let asked = Asked { question, fresh, stale: Duration::ZERO, candidate: None, look, who, keeps };
        let payload = Payload::Empty;
        let passage = Passage::new(call, head, payload, live, record, now, true);
        let recall = self.recall.clone();
        Box::pin(recall.run(Box::new(passage), asked, leader))
    }
}
