//! Identify: which org is this for, and who is calling?

use std::borrow::Cow;
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderMap;
use http::header::HeaderName;
use tower::{Layer, Service};

use crate::call::Class;
use crate::clock::Clock;
use crate::config::key::{self, Shape};
use crate::edge::callers::{Evidence, Proof, Stranger};
use crate::edge::{headers, proxies, target};
use crate::refusal::{Reason, Refusal};
use crate::stages::way::Way;
use crate::stages::{Known, Reply, Seen, own};

/// The header that carries a gateway key or a token of the company's identity provider.
pub const KEY_HEADER: HeaderName = HeaderName::from_static("weirkeeper-key");
/// The header by which a request may lower its class.
pub const CLASS_HEADER: HeaderName = HeaderName::from_static("weirkeeper-class");
/// The header that says how long the caller waits, in milliseconds.
pub const TIMEOUT_HEADER: HeaderName = HeaderName::from_static("x-request-timeout-ms");

/// Puts [`Identify`] on the road.
#[derive(Debug, Clone, Copy)]
pub struct IdentifyLayer {
    /// Wall time, for the expiry of tokens.
    pub clock: Clock,
}

impl<S> Layer<S> for IdentifyLayer {
    type Service = Identify<S>;

    fn layer(&self, inner: S) -> Identify<S> {
        Identify { inner, clock: self.clock }
    }
}

/// The stage: finds org and caller, or refuses.
#[derive(Debug, Clone)]
pub struct Identify<S> {
    inner: S,
    clock: Clock,
}

impl<S> Service<Seen> for Identify<S>
where
    S: Service<Known, Response = Reply, Error = Refusal>,
{
    type Response = Reply;
    type Error = Refusal;
    type Future = Way<S::Future>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, seen: Seen) -> Self::Future {
        match self.identify(seen) {
            Ok(known) if is_own(known.seen.head.uri.path()) => match own::page(&known) {
                Ok(page) => Way::answered(page),
                Err(refusal) => Way::refused(refusal),
            },
            Ok(known) => Way::onward(self.inner.call(known)),
            Err(refusal) => Way::refused(refusal),
        }
    }
}

impl<S> Identify<S> {
    fn identify(&self, mut seen: Seen) -> Result<Known, Refusal> {
        target::normalise(&mut seen.head)?;
        let host = lower(target::host_of(&seen.head)?.host);
        let live = &seen.live;
        let org = live.org_by_host(&host).ok_or_else(|| {
            Refusal::new(Reason::UnknownOrg, "No org is configured for the Host name of this request.")
        })?;
        seen.record.lock().org = Some(org);

        let proof = self.proof(&seen);
        let address =
            proxies::client(seen.connection.peer, seen.connection.secure, &seen.head.headers, &live.trusted_proxies)
                .address;
        let client = headers::client_of(&seen.head.headers);
        let evidence =
            Evidence { proof: &proof, certificate: seen.connection.certificate.as_ref(), host: &host, address, client };
        let found = live.callers.identify(&evidence);
        let mut outcome = seen.record.lock();
        outcome.remote = Some(address);
        outcome.client = client.map(Into::into);
        let caller = match found {
            Ok(caller) => caller,
            Err(stranger) => return Err(unknown(stranger)),
        };
        let configured = live.caller(caller).ok_or_else(|| unknown(Stranger::Unmatched))?;
        let class = lowered(configured.class, &seen.head.headers);
        let deadline = earlier(configured.deadline, requested_timeout(&seen.head.headers)).map(|wait| seen.now + wait);
        outcome.caller = Some(caller);
        outcome.class = class;
        drop(outcome);
        Ok(Known { org, caller, class, deadline, seen })
    }

    /// What the key or token in the request proves; remembered for the connection, so that a key is hashed and a token
    /// verified once and compared afterwards.
    fn proof(&self, seen: &Seen) -> Proof {
        let Some(shown) = seen.head.headers.get(&KEY_HEADER) else { return Proof::Absent };
        let wall = self.clock.wall(seen.now);
        let mut remembered = seen.connection.remembered();
        if let Some(proof) = remembered.proof(shown.as_bytes(), seen.live.generation, wall) {
            return proof;
        }
        let (proof, until) = judge(shown.as_bytes(), seen, wall);
        remembered.remember_proof(shown.as_bytes(), seen.live.generation, until, proof.clone());
        proof
    }
}

/// What a key or token proves, and until when that holds.
fn judge(shown: &[u8], seen: &Seen, wall: Duration) -> (Proof, Option<Duration>) {
    let Ok(text) = std::str::from_utf8(shown) else {
        return (Proof::Rejected("This is neither a gateway key nor a token."), None);
    };
    match key::shape(text) {
        Shape::Damaged => {
            (Proof::Rejected("This gateway key is damaged: it was cut off, or a character is wrong."), None)
        }
        // Operators may also have keys they made themselves; a token has its three parts.
        Shape::NotAKey if text.matches('.').count() == 2 => match seen.live.issuers.verify(text, wall) {
            Ok(claims) => (seen.live.callers.by_claims(&claims), Some(claims.expires)),
            // Keys of an issuer may arrive later: a rejected token is judged anew each time.
            Err(why) => (Proof::Rejected(why), Some(wall)),
        },
        Shape::Key | Shape::NotAKey => (seen.live.callers.by_key(shown), None),
    }
}

/// Whether a path is the gateway's own and none of Salesforce's. However many slashes it begins with.
fn is_own(path: &str) -> bool {
    let rest = path.trim_start_matches('/').strip_prefix("weirkeeper");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn unknown(stranger: Stranger) -> Refusal {
    match stranger {
        Stranger::BadProof(why) => Refusal::new(Reason::UnknownCaller, why),
        Stranger::Unmatched => Refusal::new(Reason::UnknownCaller, "No configured caller matches this request."),
    }
}

/// `host` in lower case, which it nearly always is already.
fn lower(host: &str) -> Cow<'_, str> {
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

/// The caller's class, lowered if the request asks for it. It cannot be raised.
fn lowered(configured: Class, headers: &HeaderMap) -> Class {
    headers
        .get(&CLASS_HEADER)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| Class::parse(text.trim()))
        .map_or(configured, |asked| asked.max(configured))
}

fn requested_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(&TIMEOUT_HEADER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_millis)
}

fn earlier(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_may_lower_its_class_but_never_raise_it() {
        let mut headers = HeaderMap::new();
        headers.insert(CLASS_HEADER, "batch".parse().unwrap());
        assert_eq!(lowered(Class::Interactive, &headers), Class::Batch);
        headers.insert(CLASS_HEADER, "interactive".parse().unwrap());
        assert_eq!(lowered(Class::Standard, &headers), Class::Standard);
        headers.insert(CLASS_HEADER, "nonsense".parse().unwrap());
        assert_eq!(lowered(Class::Standard, &headers), Class::Standard);
    }

    #[test]
    fn own_paths_are_told_from_salesforces() {
        for own in ["/weirkeeper", "/weirkeeper/", "/weirkeeper/v1/budget", "//weirkeeper/v1"] {
            assert!(is_own(own), "{own}");
        }
        for theirs in ["/", "/services/data/", "/weirkeepers", "/services/weirkeeper/", "/apex/weirkeeper"] {
            assert!(!is_own(theirs), "{theirs}");
        }
    }

    #[test]
    fn the_earlier_deadline_wins() {
        let (short, long) = (Some(Duration::from_secs(1)), Some(Duration::from_secs(2)));
        assert_eq!(earlier(short, long), short);
        assert_eq!(earlier(None, long), long);
        assert_eq!(earlier(None, None), None);
    }
}
