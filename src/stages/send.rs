//! Send: the last stage. Makes the message Salesforce gets, sends it, and hands its answer on.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Response, StatusCode};
use parking_lot::Mutex;
use tower::Service;

use crate::admission::Terms;
use crate::body::{ByteBudget, Payload, ReplyBody};
use crate::call::{Call, Family, OrgId};
use crate::clock::Clock;
use crate::edge::facade::through::at_login_host;
use crate::edge::headers;
use crate::edge::inbound::Inbound;
use crate::edge::trace::{Parent, TRACEPARENT, TRACESTATE};
use crate::exchange::{OrgStats, Plan, Upstream, UpstreamBody};
use crate::live::{Live, LiveOrg};
use crate::outcome::Record;
use crate::refusal::{Reason, Refusal};
use crate::salesforce::{LimitInfo, charged_if_refused};
use crate::stack::Local;
use crate::stages::admit::{self, Fare};
use crate::stages::answer::{Answer, Learning, Session, Sought};
use crate::stages::way::Waiting;
use crate::stages::{Passage, Reply, parts};

/// Says what the org has used (facts 1.7).
const LIMIT_INFO: &str = "sforce-limit-info";

/// The stage: one attempt at Salesforce. Cloning is one reference count.
#[derive(Debug, Clone)]
pub struct Send(Arc<Ways>);

/// The way to Salesforce of one runtime, made anew when a reload changes how orgs are reached.
#[derive(Debug)]
struct Ways {
    clock: Clock,
    local: Local,
    buffers: ByteBudget,
    current: Mutex<Option<(u64, Upstream<Inbound>)>>,
}

impl Send {
    /// Keeps its connections in this runtime.
    pub fn new(clock: Clock, local: &Local, buffers: ByteBudget) -> Self {
        Self(Arc::new(Ways { clock, local: local.clone(), buffers, current: Mutex::default() }))
    }

    /// The connections of this runtime to `org`.
    pub fn stats(&self, org: OrgId) -> Option<OrgStats> {
        self.0.current.lock().as_ref().and_then(|(_, upstream)| upstream.stats(org))
    }

    /// The way to Salesforce under `live`. Calls that began under an earlier configuration keep theirs.
    fn upstream(&self, live: &Live) -> Upstream<Inbound> {
        let mut current = self.0.current.lock();
        match &*current {
            Some((epoch, upstream)) if *epoch == live.targets_epoch => upstream.clone(),
            _ => {
                let ways = &self.0;
                let upstream =
                    Upstream::new(live.targets.iter().cloned(), ways.clock, &ways.local.tasks, &ways.buffers);
                *current = Some((live.targets_epoch, upstream.clone()));
                upstream
            }
        }
    }
}

impl Service<Box<Passage>> for Send {
    type Response = Reply;
    type Error = Refusal;
    type Future = Waiting;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, passage: Box<Passage>) -> Self::Future {
        let upstream = self.upstream(&passage.live);
        if passage.call.meaning.long_poll {
            // It would keep a drain waiting for nothing: its caller polls again, somewhere else.
            let drain = self.0.local.drain.clone();
            return Box::pin(async move {
                tokio::select! {
                    answer = send(upstream, passage) => answer,
                    () = drain.wait() => Err(Refusal::new(Reason::Draining, "The long poll was ended.")),
                }
            });
        }
        Box::pin(send(upstream, passage))
    }
}

async fn send(upstream: Upstream<Inbound>, passage: Box<Passage>) -> Result<Reply, Refusal> {
    let Passage { call, mut head, mut payload, live, record, now, fare, permit: _, back, urgency, secure } = *passage;
    let Some(org) = live.org(call.org) else {
        return Err(Refusal::new(Reason::UnknownOrg, "The org was removed from the configuration."));
    };
    outgoing(&mut head, &call, &live, &record, fare.as_ref().and_then(Fare::terms));
    let mut plan = Plan::of(&call, now, org.costs, org.timeouts(call.meaning.family), live.read_ahead);
    if org.identity(call.caller).is_none() && at_login_host(&call.meaning, payload.whole().map(|body| &**body)) {
        plan.org = org.login;
    }
    let kept = back.as_ref().and_then(|_| kept(&mut payload));
    let mut request = http::Request::from_parts(head, payload);
    let Some(mut fare) = fare else {
        return Err(Refusal::new(Reason::Internal, "The call came to be sent without having been admitted."));
    };
    let (result, failure) = match upstream.send_paid(&mut request, &plan, &record, &mut fare).await {
        Ok(response) if is_well(&response, &call) => return Ok(answered(response, &call, &live, org, record, fare)),
        Ok(response) => (Ok(answered(response, &call, &live, org, record.clone(), fare)), None),
        Err(failure) => {
            let how = (failure.cause, failure.sent);
            let refusal = match fare.denied() {
                Some(denied) => admit::refusal_of(&call, &live, org, denied, now),
                None => failure.refusal(call.meaning.idempotency),
            };
            (Err(refusal), Some(how))
        }
    };
    if let Some((back, payload)) = back.zip(kept) {
        let (head, _) = request.into_parts();
        let passage = Passage { urgency, ..Passage::new(call, head, payload, live, record, now, secure) };
        back.leave(Box::new(passage), failure);
    }
    result
}

/// Whether nobody will want to send the request again.
fn is_well(response: &Response<UpstreamBody>, call: &Call) -> bool {
    let status = response.status();
    !status.is_client_error() && !status.is_server_error() && !parts::has_parts(call)
}

/// The body once more, should it have to be sent again. The hold goes with it, for its bytes stay as long as it does.
fn kept(payload: &mut Payload<Inbound>) -> Option<Payload<Inbound>> {
    match payload {
        Payload::Empty => Some(Payload::Empty),
        Payload::Whole(bytes, held) => Some(Payload::Whole(bytes.clone(), held.take())),
        Payload::Pieces(pieces, held) => Some(Payload::Pieces(pieces.clone(), held.take())),
        Payload::Stream(_) => None,
    }
}

/// Edits the caller's head into the one Salesforce gets, and notes on what terms it is sent.
fn outgoing(head: &mut http::request::Parts, call: &Call, live: &Live, record: &Record, terms: Option<Terms>) {
    if let Some(caller) = live.caller(call.caller) {
        headers::stamp_call_options(&mut head.headers, &caller.stamp);
    }
    let mut outcome = record.lock();
    outcome.terms = terms;
    let id = match outcome.trace {
        Some(trace) => trace.header(),
        None => outcome.id_header(),
    };
    let parent = outcome.span.as_deref().map(|span| {
        let trace = outcome.trace.unwrap_or(outcome.id);
        (Parent { trace, span: span.id, sampled: span.sampled }.write(), span.parent.is_some())
    });
    drop(outcome);
    if let Some((parent, continued)) = parent {
        head.headers.insert(TRACEPARENT, parent);
        if !continued {
            head.headers.remove(TRACESTATE);
        }
    }
    headers::stamp_request_id(&mut head.headers, id);
}

/// Makes the answer the caller's, and learns from it: what was charged, what the org has used, the code of an error.
fn answered(
    mut response: Response<UpstreamBody>,
    call: &Call,
    live: &Live,
    org: &LiveOrg,
    record: Record,
    mut fare: Fare,
) -> Reply {
    let mut usage = None;
    headers::strip_response(response.headers_mut(), |name, value| {
        if name.len() == LIMIT_INFO.len() && name == LIMIT_INFO {
            usage = usage.or_else(|| LimitInfo::parse(value.as_bytes()).org);
        }
    });
    let (charged, at) = match record.lock().exchanges.last() {
        Some(exchange) => (exchange.charged, exchange.head.unwrap_or(exchange.sent)),
        None => return response.map(|body| ReplyBody::Stream(Answer::Plain(body))),
    };
    if let Some(usage) = usage {
        fare.read(usage, at);
    }
    let status = response.status();
    let failed = status.is_client_error() || status.is_server_error();
    if !failed {
        fare.answered(charged, at);
        if call.meaning.family != Family::Soap {
            return response.map(|body| ReplyBody::Stream(Answer::Plain(body)));
        }
    }
    let if_refused = charged_if_refused(call.meaning.cost, &org.costs);
    let (head, body) = response.into_parts();
    let sought = if failed { Sought::ErrorCode { if_refused } } else { Sought::SoapUsage };
    let session = live.cache.as_ref().map(|cache| Session {
        org: Arc::clone(&org.answers),
        principal: call.principal,
        recheck: cache.rules.recheck,
    });
    if status == StatusCode::UNAUTHORIZED
        && let Some(session) = &session
    {
        session.ended();
    }
    let learning = Learning::new(body, &head.headers, sought, call.meaning.family, record, fare, org)
        .of(session.filter(|_| failed));
    Response::from_parts(head, ReplyBody::Stream(Answer::Learning(Box::new(learning))))
}
