//! Who is calling: the configured caller that a request's evidence points to.
//!
//! What proves more is asked first: a gateway key, then a JSON Web Token, then a client certificate; then what only
//! hints: host name, network, the client name in `Sforce-Call-Options`; last `any`. Among equals the order of the
//! file decides. A key or token that is presented and matches nobody is refused: it never falls through to `any`.

use std::net::IpAddr;

use ahash::AHashMap;
use ipnet::IpNet;
use smol_str::SmolStr;

use crate::call::CallerId;
use crate::config::{Caller, CertificateName, JwtMatch, KeyDigest, Match};
use crate::edge::connection::PeerCertificate;
use crate::edge::jwt::Claims;

/// What a request shows of its sender.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// What its key or token turned out to be.
    pub proof: &'a Proof,
    /// The certificate its connection was opened with.
    pub certificate: Option<&'a PeerCertificate>,
    /// The host name it used, in lower case and without port.
    pub host: &'a str,
    /// Where it comes from, trusted proxies left out.
    pub address: IpAddr,
    /// The client name in its `Sforce-Call-Options`.
    pub client: Option<&'a str>,
}

/// What was in `Weirkeeper-Key`, or in the place of a session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Proof {
    /// Nothing.
    #[default]
    Absent,
    /// A key or token of this caller.
    Caller(CallerId),
    /// A key nobody has, or a token that does not verify.
    Rejected(&'static str),
    /// A gateway token that has expired, was given back, or was not made for this org.
    Invalid,
}

/// Why nobody could be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stranger {
    /// The key or token is nobody's; the text says why.
    BadProof(&'static str),
    /// The gateway token is not valid: its holder has to log in again.
    BadSession,
    /// No caller matches.
    Unmatched,
}

/// The configured callers, arranged for looking up.
#[derive(Debug, Default)]
pub struct Callers {
    /// Looked up by digest: the digest of what an attacker sends is not under his control, so the time the look-up
    /// takes tells nothing about the digests that are stored.
    keys: AHashMap<KeyDigest, CallerId>,
    tokens: Vec<(JwtMatch, CallerId)>,
    certificates: Vec<(CertificateName, CallerId)>,
    hosts: AHashMap<SmolStr, CallerId>,
    networks: Vec<(IpNet, CallerId)>,
    clients: AHashMap<SmolStr, CallerId>,
    any: Option<CallerId>,
}

impl Callers {
    /// Arranges the callers of a configuration; `CallerId` is the place in the list.
    pub fn new(configured: &[Caller]) -> Self {
        let mut callers = Self::default();
        for (place, caller) in configured.iter().enumerate() {
            let id = CallerId(place as u16);
            match &caller.matches {
                Match::Key(digests) => callers.keys.extend(digests.iter().map(|digest| (*digest, id))),
                Match::Jwt(rule) => callers.tokens.push((rule.clone(), id)),
                Match::Certificate(name) => callers.certificates.push((name.clone(), id)),
                Match::Host(host) => {
                    callers.hosts.entry(host.clone()).or_insert(id);
                }
                Match::Network(networks) => callers.networks.extend(networks.iter().map(|network| (*network, id))),
                Match::CallOptionsClient(client) => {
                    callers.clients.entry(client.clone()).or_insert(id);
                }
                Match::Any => callers.any = callers.any.or(Some(id)),
            }
        }
        callers
    }

    /// What a key proves.
    pub fn by_key(&self, key: &[u8]) -> Proof {
        match self.keys.get(&KeyDigest::of(key)) {
            Some(caller) => Proof::Caller(*caller),
            None => Proof::Rejected("This gateway key is not known."),
        }
    }

    /// What a verified token proves.
    pub fn by_claims(&self, claims: &Claims) -> Proof {
        let found = self.tokens.iter().find(|(rule, _)| {
            rule.issuer == claims.issuer
                && claims.audience.contains(&rule.audience)
                && rule.subject.as_ref().is_none_or(|subject| *subject == claims.subject)
        });
        match found {
            Some((_, caller)) => Proof::Caller(*caller),
            None => Proof::Rejected(
                "This token is valid, but no caller is configured for its issuer, audience and subject.",
            ),
        }
    }

    /// The caller that the evidence points to.
    pub fn identify(&self, evidence: &Evidence<'_>) -> Result<CallerId, Stranger> {
        match evidence.proof {
            Proof::Caller(caller) => return Ok(*caller),
            Proof::Rejected(why) => return Err(Stranger::BadProof(why)),
            Proof::Invalid => return Err(Stranger::BadSession),
            Proof::Absent => {}
        }
        self.by_certificate(evidence.certificate)
            .or_else(|| self.hosts.get(evidence.host).copied())
            .or_else(|| self.by_network(evidence.address))
            .or_else(|| evidence.client.and_then(|client| self.clients.get(client).copied()))
            .or(self.any)
            .ok_or(Stranger::Unmatched)
    }

    fn by_certificate(&self, shown: Option<&PeerCertificate>) -> Option<CallerId> {
        let shown = shown?;
        self.certificates
            .iter()
            .find(|(name, _)| match name {
                CertificateName::CommonName(name) => shown.common_name.as_deref() == Some(name.as_str()),
                CertificateName::Dns(name) => shown.dns_names.iter().any(|dns| dns.eq_ignore_ascii_case(name)),
                CertificateName::Uri(name) => shown.uris.iter().any(|uri| *uri == **name),
            })
            .map(|(_, caller)| *caller)
    }

    fn by_network(&self, address: IpAddr) -> Option<CallerId> {
        self.networks.iter().find(|(network, _)| network.contains(&address)).map(|(_, caller)| *caller)
    }
}
