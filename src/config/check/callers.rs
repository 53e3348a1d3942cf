//! The callers: who they are, how they are recognised, what they may do.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use smol_str::SmolStr;

use super::{At, Check};
use crate::call::Class;
use crate::config::file::{AllowFile, CertificateFile, ConfigFile, JwksFile, JwtFile, ListenerFile, MatchFile};
use crate::config::model::{Allow, Caller, CertificateName, Jwks, JwtMatch, Match, Share};
use crate::config::pace::{Pace, PaceFile};
use crate::config::problem::Fault;
use crate::config::value::{Count, Period, Phrase, Text, Written as _};

/// More than any company has apps; the ledger is sized for it.
const MAX_CALLERS: usize = 10_000;
/// Whoever waits longer has usually left.
const LONGEST_WAIT: Duration = Duration::from_mins(10);

impl Check<'_> {
    pub(super) fn callers(&mut self, at: &At, file: &ConfigFile) -> Vec<Caller> {
        let written = &file.callers;
        if written.is_empty() {
            return vec![anyone()];
        }
        if written.len() > MAX_CALLERS {
            self.wrong(at, Fault::new(format!("more than {MAX_CALLERS} callers")));
            return Vec::new();
        }
        let mut names = HashMap::new();
        let mut claims = HashMap::new();
        let mut callers = Vec::with_capacity(written.len());
        for (index, caller) in written.iter().enumerate() {
            let at = at.index(index);
            let name = self.name(&at, caller.name.as_ref(), &mut names);
            let match_at = at.key("match");
            let way = if let Some(written) = &caller.matches {
                self.reachable(&match_at, written, file);
                self.way(&match_at, written)
            } else {
                self.missing(&match_at, "say how it is recognised, such as {key_sha256: ...} or any");
                None
            };
            if let Some(way) = &way {
                self.claimed_once(&match_at, way, &mut claims);
            }
            let act_as = caller.act_as.as_ref().map(|Text(identity)| {
                self.act_as(&at.key("act_as"), identity, caller.matches.as_ref(), file);
                identity.0.clone()
            });
            let deadline = caller.deadline.map(|deadline| self.positive(&at.key("deadline"), deadline));
            let daily = self.share(&at.key("daily"), &caller.daily);
            let pace = caller.pace.as_ref().and_then(|pace| self.pace(&at.key("pace"), pace));
            let allow = self.allow(&at.key("allow"), &caller.allow);
            if let (Some(name), Some(matches)) = (name, way) {
                let class = caller.class.unwrap_or(Class::Standard);
                let in_flight = caller.in_flight.map(Count::as_usize);
                callers.push(Caller { name, matches, act_as, class, deadline, in_flight, daily, pace, allow });
            }
        }
        callers
    }

    fn pace(&mut self, at: &At, written: &PaceFile) -> Option<Pace> {
        let wait = written.wait.0.0;
        if wait > LONGEST_WAIT {
            let fault = Fault::new(format!("{} is longer than most clients wait", written.wait.0.write()));
            self.wrong(&at.key("wait"), fault.hint(format!("{} is the most", Period(LONGEST_WAIT).write())));
        }
        let Some(per_second) = written.per_second else {
            self.missing(&at.key("per_second"), "say how many calls it may send in a second");
            return None;
        };
        Some(Pace {
            mode: written.mode,
            per_second: NonZeroU32::new(per_second.as_u32())?,
            burst: NonZeroU32::new(written.burst.map_or(per_second.as_u32(), Count::as_u32))?,
            queue: written.queue.as_u32(),
            wait,
        })
    }

    fn way(&mut self, at: &At, written: &MatchFile) -> Option<Match> {
        Some(match written {
            MatchFile::KeySha256(digests) => {
                self.not_empty(at, digests.0.len());
                Match::Key(digests.0.iter().map(|digest| digest.0).collect())
            }
            MatchFile::Certificate(name) => Match::Certificate(match name {
                CertificateFile::CommonName(name) => CertificateName::CommonName(name.0.0.clone()),
                CertificateFile::Dns(name) => CertificateName::Dns(name.0.0.clone()),
                CertificateFile::Uri(name) => CertificateName::Uri(name.0.0.clone()),
            }),
            MatchFile::Host(host) => Match::Host(host.0.0.clone()),
            MatchFile::Network(networks) => {
                self.not_empty(at, networks.0.len());
                Match::Network(networks.0.iter().map(|network| network.0).collect())
            }
            MatchFile::CallOptionsClient(client) => Match::CallOptionsClient(client.0.0.clone()),
            MatchFile::Jwt(jwt) => Match::Jwt(self.jwt(&at.key("jwt"), jwt)?),
            MatchFile::Any => Match::Any,
        })
    }

    fn not_empty(&mut self, at: &At, length: usize) {
        if length == 0 {
            self.wrong(at, Fault::new("an empty list matches nobody"));
        }
    }

    fn jwt(&mut self, at: &At, written: &JwtFile) -> Option<JwtMatch> {
        let mut given = |key, phrase: Option<&Text<Phrase>>, hint| {
            if phrase.is_none() {
                self.missing(&at.key(key), hint);
            }
            phrase.map(|phrase| phrase.0.0.clone())
        };
        let issuer = given("issuer", written.issuer.as_ref(), "write what the tokens' iss says");
        let audience = given("audience", written.audience.as_ref(), "write what the tokens' aud says");
        let subject = written.subject.as_ref().map(|subject| subject.0.0.clone());
        let jwks_at = at.key("jwks");
        let jwks = match &written.jwks {
            Some(JwksFile::File(written)) => Some(Jwks::File(self.key_set(&jwks_at.key("file"), written))),
            Some(JwksFile::Url(url)) => Some(Jwks::Url(url.0.0.clone())),
            None => {
                self.missing(&jwks_at, "say where the issuer's keys are: {file: ...} or {url: ...}");
                None
            }
        };
        Some(JwtMatch { issuer: issuer?, audience: audience?, subject, jwks: jwks? })
    }

    fn key_set(&mut self, at: &At, written: &Text<Phrase>) -> std::path::PathBuf {
        let path = self.path(written);
        if let Some(bytes) = self.file(at, &path)
            && !serde_json::from_slice::<serde_json::Value>(&bytes)
                .is_ok_and(|set| set.get("keys").is_some_and(serde_json::Value::is_array))
        {
            let fault = Fault::new(format!("{} is no JSON Web Key Set", path.display()));
            self.wrong(at, fault.hint("it is JSON with a list called keys"));
        }
        path
    }

    /// Whether any request could be recognised this way. Looks at what was written, for an org or a listener with a
    /// mistake in another key still has its hosts and authorities.
    fn reachable(&mut self, at: &At, way: &MatchFile, file: &ConfigFile) {
        match way {
            MatchFile::Certificate(_) if self.was_read("listeners") => {
                let asks = |listener: &ListenerFile| listener.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
                if !file.listeners.iter().any(asks) {
                    let fault = Fault::new("no listener asks clients for a certificate");
                    self.wrong(&at.key("certificate"), fault.hint("name the authorities in listeners[].tls.client_ca"));
                }
            }
            MatchFile::Host(Text(host)) if self.was_read("orgs") => {
                let hosts: Vec<&str> =
                    file.orgs.iter().flat_map(|org| &org.hosts).map(|host| host.0.0.as_str()).collect();
                if !hosts.is_empty() && !hosts.contains(&host.0.as_str()) {
                    let fault = Fault::unknown("host", &host.0, &hosts);
                    self.wrong(&at.key("host"), Fault { reason: format!("{} leads to no org", host.0), ..fault });
                }
            }
            MatchFile::Certificate(_)
            | MatchFile::Host(_)
            | MatchFile::KeySha256(_)
            | MatchFile::Network(_)
            | MatchFile::CallOptionsClient(_)
            | MatchFile::Jwt(_)
            | MatchFile::Any => {}
        }
    }

    /// Two callers that are recognised by the same thing cannot be told apart.
    fn claimed_once(&mut self, at: &At, way: &Match, claims: &mut HashMap<String, At>) {
        for claim in claims_of(way) {
            if let Some(first) = claims.get(&claim) {
                let fault = Fault::new(format!("{} matches the same requests", self.named(first)));
                self.wrong(at, fault.hint("the later of the two would never be seen"));
            } else {
                claims.insert(claim, at.clone());
            }
        }
    }

    fn allow(&mut self, at: &At, written: &AllowFile) -> Allow {
        let lists = [
            ("families", written.families.as_ref().map(Vec::len)),
            ("objects", written.objects.as_ref().map(Vec::len)),
            ("operations", written.operations.as_ref().map(Vec::len)),
        ];
        for (key, length) in lists {
            if length == Some(0) {
                let fault = Fault::new("an empty list allows nothing at all");
                self.wrong(&at.key(key), fault.hint("leave the key out to allow everything"));
            }
        }
        Allow {
            families: written.families.clone(),
            objects: written.objects.as_ref().map(|names| names.iter().map(|name| name.0.0.clone()).collect()),
            operations: written.operations.clone(),
        }
    }
}

/// Who is there if nobody is named.
fn anyone() -> Caller {
    Caller {
        name: SmolStr::new_static("anyone"),
        matches: Match::Any,
        act_as: None,
        class: Class::Standard,
        deadline: None,
        in_flight: None,
        daily: Share { floor: 0, ceiling: None, weight: 1 },
        pace: None,
        allow: Allow::default(),
    }
}

/// What a way of matching claims for itself, as text that is equal exactly for equal claims.
fn claims_of(way: &Match) -> Vec<String> {
    match way {
        Match::Key(digests) => digests.iter().map(|digest| format!("key {}", digest.to_hex())).collect(),
        Match::Network(networks) => networks.iter().map(|network| format!("network {network}")).collect(),
        Match::Jwt(jwt) => vec![format!("jwt {:?} {:?} {:?}", jwt.issuer, jwt.audience, jwt.subject)],
        Match::Certificate(name) => vec![format!("certificate {name:?}")],
        Match::Host(host) => vec![format!("host {host}")],
        Match::CallOptionsClient(client) => vec![format!("client {}", client.to_ascii_lowercase())],
        Match::Any => vec!["any".to_owned()],
    }
}
