//! Understand: from an HTTP request to a [`Call`], and from a body under way to a complete one.
//!
//! Only complete requests go on, so that a slow upload never holds a connection to Salesforce, let alone a slot; bodies
//! above `stream_above` are the exception and stream. What a composite, batch, graph or SOAP request asks for stands in
//! its body, so that body is always read whole.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Body as _;
use tower::{Layer, Service};

use crate::body::{ByteBudget, Payload};
use crate::call::{Call, Family, Principal};
use crate::edge::facts::Facts;
use crate::edge::inbound::{Gathered, Inbound};
use crate::exchange::vault::Identity;
use crate::live::Live;
use crate::refusal::{Reason, Refusal};
use crate::salesforce::{self, CredentialError};
use crate::stages::identify::is_ours;
use crate::stages::policy::Mode;
use crate::stages::way::Way;
use crate::stages::{Known, Passage, Reply, Seen, Session, inflate};

/// Puts [`Understand`] on the road.
#[derive(Debug, Clone)]
pub struct UnderstandLayer {
    /// Where the bytes of complete bodies are taken from.
    pub buffers: ByteBudget,
}

impl<S> Layer<S> for UnderstandLayer {
    type Service = Understand<S>;

    fn layer(&self, inner: S) -> Understand<S> {
        Understand { inner, buffers: self.buffers.clone() }
    }
}

/// The stage: classifies by the head, reads the body where that is needed or cheap, refuses what contradicts itself.
#[derive(Debug, Clone)]
pub struct Understand<S> {
    inner: S,
    buffers: ByteBudget,
}

impl<S> Service<Known> for Understand<S>
where
    S: Service<Box<Passage>, Response = Reply, Error = Refusal> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Reply;
    type Error = Refusal;
    type Future = Way<S::Future>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, known: Known) -> Self::Future {
        let (mut passage, body) = match by_head(known) {
            Ok(understood) => understood,
            Err(refusal) => return Way::refused(refusal),
        };
        match body {
            None => Way::onward(self.inner.call(passage)),
            Some(body) => {
                // The clone is one reference count for each layer below; the readiness contract is kept because every
                // layer of this road is always ready.
                let mut inner = self.inner.clone();
                let buffers = self.buffers.clone();
                Way::waits(async move {
                    by_body(&mut passage, body, &buffers).await?;
                    inner.call(passage).await
                })
            }
        }
    }
}

/// Everything the head alone tells. The body comes back if there is one.
fn by_head(known: Known) -> Result<(Box<Passage>, Option<Inbound>), Refusal> {
    let Known { seen, org, caller, class, deadline, secure, meaning, session } = known;
    let held = seen.live.org(org);
    let costs = held.map(|org| org.costs).unwrap_or_default();
    let principal = match (session, held.and_then(|org| org.identity(caller))) {
        // A caller that acts as an identity is that identity, and one credential cannot contradict itself.
        (Session::Remembered(_) | Session::One, Some(identity)) => Ok(identity.principal()),
        (Session::Remembered(principal), None) => Ok(principal),
        (_, identity) => principal(&seen, identity),
    };
    let path = seen.head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let meaning = meaning.unwrap_or_else(|| salesforce::understand(&seen.head.method, path, &costs));
    let class = seen.live.classes.of(class, &meaning, path);

    let mut outcome = seen.record.lock();
    outcome.class = class;
    outcome.method.clone_from(&meaning.method);
    outcome.family = meaning.family;
    outcome.operation = meaning.operation;
    outcome.object.clone_from(&meaning.object);
    outcome.template = meaning.template;
    outcome.version = meaning.version;
    outcome.principal = principal.as_ref().copied().unwrap_or(Principal::NOBODY);
    drop(outcome);
    // Only now: the form of a refusal depends on the family.
    let principal = principal?;

    let call = Call { org, caller, principal, class, meaning, deadline };
    let body = (!seen.body.is_end_stream()).then_some(seen.body);
    let Seen { head, live, record, now, .. } = seen;
    let payload = Payload::Empty;
    Ok((Box::new(Passage::new(call, head, payload, live, record, now, secure)), body))
}

/// As whom Salesforce will see the request, as far as its head tells. The connection remembers what the only credential
/// of a head means.
fn principal(seen: &Seen, identity: Option<&Arc<Identity>>) -> Result<Principal, Refusal> {
    let (headers, live) = (&seen.head.headers, &seen.live);
    let principal = match salesforce::credentials(headers, None) {
        Ok(_) if identity.is_some() => return Ok(identity.map_or(Principal::NOBODY, |identity| identity.principal())),
        Ok(None) => return Ok(Principal::NOBODY),
        Ok(Some(credential)) if is_ours(credential.secret().as_bytes()) => return Err(not_here()),
        Ok(Some(credential)) => salesforce::principal(&live.principal_key, &credential),
        Err(error) => return Err(Refusal::new(Reason::BadCredential, sentence(&error))),
    };
    if let Some(shown) = Facts::of(headers).only_credential() {
        seen.connection.remembered().remember_principal(shown, live.generation, principal);
    }
    Ok(principal)
}

/// Reads the body, and everything it tells if it tells anything.
async fn by_body(passage: &mut Passage, body: Inbound, buffers: &ByteBudget) -> Result<(), Refusal> {
    let body = body.recorded(passage.record.clone());
    let speaks = salesforce::needs_body(&passage.call.meaning);
    let live = Arc::clone(&passage.live);
    let (bytes, held) = if speaks {
        body.collect_whole(buffers, live.body_bytes).await?
    } else {
        match body.gather(buffers, live.stream_above).await? {
            Gathered::Empty => return Ok(()),
            Gathered::Whole(bytes, held) => (bytes, held),
            // Where a request for a token goes depends on its form.
            Gathered::Pieces(pieces, held) if passage.call.meaning.family == Family::Oauth => (pieces.joined(), held),
            Gathered::Pieces(pieces, held) => {
                passage.payload = Payload::Pieces(pieces, Some(held));
                return Ok(());
            }
            Gathered::Longer(body) => {
                passage.payload = Payload::Stream(body);
                return Ok(());
            }
        }
    };
    if speaks {
        by_content(&mut passage.call, &live, &passage.head.headers, &bytes)?;
        let meaning = &passage.call.meaning;
        let mut outcome = passage.record.lock();
        outcome.operation = meaning.operation;
        outcome.object.clone_from(&meaning.object);
        outcome.principal = passage.call.principal;
    }
    passage.payload = Payload::Whole(bytes, Some(held));
    Ok(())
}

/// What a composite, batch, graph, collection, GraphQL or SOAP body says: parts, cost, object, credential.
fn by_content(call: &mut Call, live: &Live, headers: &http::HeaderMap, bytes: &Bytes) -> Result<(), Refusal> {
    let plain = inflate::plain(headers, bytes, live.body_bytes)?;
    let costs = live.org(call.org).map(|org| org.costs).unwrap_or_default();
    if let Err(error) = salesforce::read_body(&mut call.meaning, &plain, &costs) {
        // Rules that cannot see what is inside must not let it pass. Without rules Salesforce may say what is wrong.
        let judged = live.caller(call.caller).is_some_and(|caller| caller.rules.need_parts());
        if judged && live.policy_mode == Mode::Enforce {
            return Err(Refusal::new(Reason::BodyMalformed, sentence(&error)));
        }
    }
    let acts = live.org(call.org).is_some_and(|org| org.identity(call.caller).is_some());
    if call.meaning.family == Family::Soap {
        // The session of a SOAP call stands in its envelope.
        match salesforce::credentials(headers, Some(&plain)) {
            Ok(Some(_)) if acts => {}
            Ok(Some(credential)) if is_ours(credential.secret().as_bytes()) => return Err(not_here()),
            Ok(Some(credential)) => call.principal = salesforce::principal(&live.principal_key, &credential),
            Ok(None) | Err(CredentialError::Envelope) => {}
            Err(error) => return Err(Refusal::new(Reason::BadCredential, sentence(&error))),
        }
    }
    Ok(())
}

fn not_here() -> Refusal {
    Refusal::new(
        Reason::BadCredential,
        "This caller acts as no identity of this org: it needs a Salesforce session, and its gateway key in Weirkeeper-Key.",
    )
}

/// An error as a sentence of an answer.
fn sentence(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), chars.as_str()))
}
