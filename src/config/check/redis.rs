//! The store that several replicas share.

use std::time::Duration;

use percent_encoding::percent_decode_str;
use smol_str::SmolStr;

use super::{At, Check};
use crate::config::problem::Fault;
use crate::config::redis::{Node, Redis, RedisFile, Sentinel, SentinelFile};
use crate::config::secret::Secret;

/// Least length of a secret that seals.
const LEAST_KEY: usize = 32;
/// The store's own port.
const PORT: u16 = 6379;
const URL: &str = "write it like redis://host:6379 or rediss://user:password@host:6379/0, several separated by commas";
const LEAST_TIMEOUT: Duration = Duration::from_millis(50);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What one address says.
struct Address {
    tls: bool,
    node: Node,
    username: Option<SmolStr>,
    password: Option<Secret>,
    database: u16,
}

impl Check<'_> {
    pub(super) fn redis(&mut self, at: &At, written: &RedisFile) -> Option<Redis> {
        let url_at = at.key("url");
        if written.url.is_none() {
            self.missing(&url_at, "say where it is kept: {env: REDIS_URL}");
        }
        let secret = written.url.as_ref().and_then(|reference| self.secret(&url_at, reference));
        let keys = self.sealing_keys(at, written);
        let sentinel = written.sentinel.as_ref().and_then(|sentinel| self.sentinel(&at.key("sentinel"), sentinel));
        if written.cluster && written.sentinel.is_some() {
            let fault = Fault::new("a Cluster has no Sentinels");
            self.wrong(&at.key("cluster"), fault.hint("leave out one of cluster and sentinel"));
        }
        let ca = written.ca.as_ref().map(|ca| self.certificates(&at.key("ca"), ca));
        let client_certificate = written.client_certificate.as_ref().and_then(|pair| {
            self.key_pair(&at.key("client_certificate"), pair.certificate.as_ref(), pair.key.as_ref())
        });
        let timeout = written.timeout.0.0;
        if !(LEAST_TIMEOUT..=LONGEST_TIMEOUT).contains(&timeout) {
            self.wrong(&at.key("timeout"), Fault::new("out of range").hint("50ms to 10s"));
        }
        let read: Option<Vec<Address>> =
            secret.as_ref().and_then(|secret| secret.expose().split(',').map(address).collect());
        let Some((first, rest)) = read.as_deref().and_then(<[Address]>::split_first) else {
            // The text is not repeated: it may hold a password.
            if secret.is_some() {
                self.wrong(&url_at, Fault::new("not the address of a store").hint(URL));
            }
            return None;
        };
        let alike = |other: &Address| {
            (other.tls, &other.username, &other.password, other.database)
                == (first.tls, &first.username, &first.password, first.database)
        };
        if !rest.iter().all(alike) {
            self.wrong(&url_at, Fault::new("its addresses differ in more than host and port").hint(URL));
        }
        if !rest.is_empty() && !written.cluster && written.sentinel.is_none() {
            let fault = Fault::new("several addresses of a single store");
            self.wrong(&url_at, fault.hint("write cluster: true, or name the service of the Sentinels"));
        }
        if written.cluster && first.database != 0 {
            self.wrong(&url_at, Fault::new("a Cluster has no databases"));
        }
        if !first.tls && (ca.is_some() || client_certificate.is_some()) {
            self.wrong(&url_at, Fault::new("certificates, but no TLS").hint("write rediss:// for TLS"));
        }
        Some(Redis {
            nodes: std::iter::once(first).chain(rest).map(|address| address.node.clone()).collect(),
            tls: first.tls,
            username: first.username.clone(),
            password: first.password.clone(),
            database: first.database,
            cluster: written.cluster,
            sentinel,
            ca,
            client_certificate,
            prefix: written.prefix.0.0.clone(),
            name: written.name.as_ref().map(|name| name.0.0.clone()).or_else(|| self.host_name()),
            keys,
            timeout,
        })
    }

    /// What the machine or the pod is called, if its environment says so.
    fn host_name(&self) -> Option<SmolStr> {
        self.outside.variable("HOSTNAME").filter(|name| !name.is_empty()).map(SmolStr::from)
    }

    fn sentinel(&mut self, at: &At, written: &SentinelFile) -> Option<Sentinel> {
        let Some(service) = &written.service else {
            self.missing(&at.key("service"), "write what the Sentinels call the primary, such as mymaster");
            return None;
        };
        Some(Sentinel {
            service: service.0.0.clone(),
            username: written.username.as_ref().map(|name| name.0.0.clone()),
            password: written.password.as_ref().and_then(|secret| self.secret(&at.key("password"), secret)),
        })
    }

    fn sealing_keys(&mut self, at: &At, written: &RedisFile) -> Vec<Secret> {
        let at = at.key("keys");
        if written.keys.is_empty() {
            self.missing(&at, "name a secret that all replicas have; make one with `openssl rand -base64 32`");
        }
        let mut keys: Vec<Secret> = Vec::with_capacity(written.keys.len());
        for (index, reference) in written.keys.iter().enumerate() {
            let at = at.index(index);
            let Some(key) = self.secret(&at, reference) else { continue };
            if key.expose().len() < LEAST_KEY {
                let fault = Fault::new(format!("shorter than {LEAST_KEY} characters"));
                self.wrong(&at, fault.hint("make one with `openssl rand -base64 32`"));
            }
            if keys.contains(&key) {
                self.wrong(&at, Fault::new("the same key stands here already"));
            }
            keys.push(key);
        }
        keys
    }
}

fn address(text: &str) -> Option<Address> {
    let uri: http::Uri = text.trim().parse().ok()?;
    let tls = match uri.scheme_str()? {
        "redis" => false,
        "rediss" => true,
        _ => return None,
    };
    let authority = uri.authority()?;
    let login = authority.as_str().rsplit_once('@').map_or("", |(login, _)| login);
    let (username, password) = login.split_once(':').unwrap_or((login, ""));
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned);
    let database = match uri.path() {
        "" | "/" => 0,
        path => path.strip_prefix('/')?.parse().ok()?,
    };
    if uri.query().is_some() {
        return None;
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    Some(Address {
        tls,
        node: Node { host: SmolStr::new(host), port: authority.port_u16().unwrap_or(PORT) },
        username: Some(decoded(username)?).filter(|name| !name.is_empty()).map(SmolStr::from),
        password: Some(decoded(password)?).filter(|text| !text.is_empty()).map(Secret::new),
        database,
    })
}
