//! What a configuration means: the checked form, and the only one that reaches the rest of the program.
//!
//! Durations are durations, addresses are parsed, secrets are resolved, paths are absolute or relative to the
//! working directory, and every cross reference holds. A value of these types is made by [`super::load`],
//! [`super::check_text`] or [`Config::for_org`] only.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;
use ipnet::IpNet;
use smol_str::SmolStr;

use super::breaker::Breaker;
use super::cache::Cache;
use super::daily::{DailyMode, OnLoss, SharedLoss};
use super::file::{ConfigFile, PolicyMode, Roots};
use super::key::KeyDigest;
use super::pace::Pace;
use super::redis::Redis;
use super::retry::Retry;
use super::secret::Secret;
use super::slots::{ClassRule, LongRunning, Queue};
use super::telling::{Log, MetricCaps, Traces};
use crate::call::{ApiCalls, CallerId, Class, Family, ObjectName, Operation, OrgId};

/// A configuration without mistakes. Share it by `Arc`; a reload makes a new one.
#[derive(Debug)]
pub struct Config {
    /// The file it was read from; `None` for [`Config::for_org`].
    pub path: Option<PathBuf>,
    /// Where callers connect; at least one.
    pub listeners: Vec<Listener>,
    /// Peers whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The second listener, for operators.
    pub admin: Admin,
    /// Bounds on what callers may send and how slowly.
    pub limits: Limits,
    /// How Salesforce is reached.
    pub upstream: Upstream,
    /// The orgs; `orgs[id.0]` is the org with [`OrgId`] `id`. At least one.
    pub orgs: Vec<Org>,
    /// The callers; `callers[id.0]` is the caller with [`CallerId`] `id`, in the order in which they are tried.
    pub callers: Vec<Caller>,
    /// Whether callers are told of their shares with every answer.
    pub rate_limit_headers: bool,
    /// What the allow-rules of callers do.
    pub policy: PolicyMode,
    /// What lowers the class of some calls.
    pub classes: Vec<ClassRule>,
    /// Which answers may be given from memory; `None`: none.
    pub cache: Option<Cache>,
    /// What happens as an org's daily allowance runs out, or the queue fills up.
    pub ladder: Ladder,
    /// How calls wait.
    pub queue: Queue,
    /// Which calls that failed are made once more.
    pub retry: Retry,
    /// When calls are held back.
    pub breaker: Breaker,
    /// Where it is remembered what was spent.
    pub state: State,
    /// The access log.
    pub log: Log,
    /// Bounds on metric labels.
    pub metrics: MetricCaps,
    /// Which requests are traced; `None`: none is.
    pub traces: Option<Traces>,
    /// Worker runtimes; at least 1.
    pub runtimes: usize,
    /// Keys the hash that turns a token into a principal. If absent, the process makes one up at start and keeps
    /// it across reloads; replicas that shall agree on principals need the same one.
    pub principal_key: Option<Secret>,
    /// The tokens that apps get for their keys.
    pub gateway_tokens: GatewayTokens,
    /// What was written, with every default filled in; it holds references to secrets only.
    pub(super) written: Arc<ConfigFile>,
    /// Every other file this configuration read or points to.
    pub(super) referenced: Vec<PathBuf>,
}

impl Config {
    /// The org with this id; ids come from the configuration that is in force, so there always is one.
    pub fn org(&self, id: OrgId) -> Option<&Org> {
        self.orgs.get(usize::from(id.0))
    }

    /// The caller with this id.
    pub fn caller(&self, id: CallerId) -> Option<&Caller> {
        self.callers.get(usize::from(id.0))
    }

    /// The org with this name.
    pub fn org_named(&self, name: &str) -> Option<OrgId> {
        position(self.orgs.iter().map(|org| &org.name), name).map(OrgId)
    }

    /// The caller with this name.
    pub fn caller_named(&self, name: &str) -> Option<CallerId> {
        position(self.callers.iter().map(|caller| &caller.name), name).map(CallerId)
    }

    /// Whether orgs are reached just as under `other`, so that open connections can be kept. Where files decide about
    /// that, which may have changed, it never is.
    pub fn reaches_like(&self, other: &Self) -> bool {
        let files =
            |config: &Self| config.upstream.extra_roots.is_some() || config.upstream.client_certificate.is_some();
        let places =
            |config: &Self| config.orgs.iter().map(|org| (org.instance.clone(), org.login.clone())).collect::<Vec<_>>();
        !files(self) && !files(other) && self.upstream == other.upstream && places(self) == places(other)
    }

    /// Certificates, keys, CAs, key sets and secret files that this configuration read: when one of them changes,
    /// what was made of it must be made again.
    pub fn referenced_files(&self) -> &[PathBuf] {
        &self.referenced
    }

    /// The configuration in force as the file would say it, every default included. Secrets appear as the
    /// references they were written as, key hashes by their first eight digits.
    pub fn redacted(&self) -> serde_json::Value {
        serde_json::to_value(&*self.written).unwrap_or(serde_json::Value::Null)
    }
}

fn position<'a>(mut names: impl Iterator<Item = &'a SmolStr>, name: &str) -> Option<u16> {
    names.position(|candidate| candidate == name).and_then(|index| u16::try_from(index).ok())
}

/// One address on which callers are met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Where to listen.
    pub address: SocketAddr,
    /// TLS, if this listener speaks it.
    pub tls: Option<ServerTls>,
}

/// The files of a TLS listener. They exist and can be read, and `key` holds a PEM private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// PEM certificate chain, leaf first.
    pub certificate: PathBuf,
    /// PEM private key of the leaf.
    pub key: PathBuf,
    /// PEM certificates of the authorities whose client certificates are accepted; `None`: no client is asked.
    pub client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is turned away.
    pub client_ca_required: bool,
}

/// A certificate and its key, with which we show ourselves to Salesforce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// PEM certificate chain, leaf first.
    pub certificate: PathBuf,
    /// PEM private key of the leaf.
    pub key: PathBuf,
}

/// The admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where to listen.
    pub address: SocketAddr,
    /// The admin key; always present if `address` is not loopback.
    pub key: Option<KeyDigest>,
    /// Host names (lower case, without port) that are accepted besides loopback addresses and `localhost`.
    pub hosts: Vec<SmolStr>,
}

/// Bounds on what a caller may send, and how slowly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of request line and headers together.
    pub head_bytes: usize,
    /// Number of header fields.
    pub header_count: usize,
    /// Time from the first byte of a head to its last.
    pub head_time: Duration,
    /// Bytes of a request body.
    pub body_bytes: u64,
    /// Bodies longer than this are streamed, shorter ones are forwarded when complete.
    pub stream_above: u64,
    /// Bytes of bodies held in memory by the whole process.
    pub buffered_bytes_total: u64,
    /// Connections of callers, over all listeners.
    pub connections: usize,
    /// Requests in the air on one HTTP/2 connection.
    pub streams: u32,
    /// How long a connection may be idle between requests.
    pub idle: Duration,
    /// Bytes per second below which a caller that sends or receives a body is cut off.
    pub minimum_rate: u64,
    /// How long a body may be slower than `minimum_rate` before that.
    pub minimum_rate_grace: Duration,
    /// How long connections are still accepted after a stop was asked for.
    pub drain_notice: Duration,
    /// How long requests in the air may go on after that.
    pub drain: Duration,
}

/// How Salesforce is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The egress proxy all connections go through by `CONNECT`.
    pub proxy: Option<EgressProxy>,
    /// Which certificate authorities are trusted.
    pub roots: Roots,
    /// PEM file of further authorities to trust.
    pub extra_roots: Option<PathBuf>,
    /// How we show ourselves, if Salesforce asks.
    pub client_certificate: Option<KeyPair>,
    /// Whether HTTP/2 is offered to Salesforce.
    pub http2: bool,
    /// Time for name look-up, connection, proxy and TLS together.
    pub connect: Duration,
    /// Time from the last byte of the request to the response head.
    pub first_byte: Duration,
    /// Time between two pieces of a response body.
    pub idle: Duration,
    /// Time from the start of an exchange to its end, where a family has such a bound.
    pub total: Totals,
    /// A connection this old is given no further request.
    pub connection_age: Duration,
    /// Open connections to one org from one runtime.
    pub connections_per_runtime: usize,
    /// Bytes of a response read before the caller has taken them.
    pub read_ahead: usize,
}

/// An HTTP proxy that opens tunnels by `CONNECT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressProxy {
    /// Host name or address, without brackets.
    pub host: SmolStr,
    /// Port.
    pub port: u16,
    /// `user:password` for `Proxy-Authorization: Basic`.
    pub credentials: Option<Secret>,
}

/// The longest an exchange of each family may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals(pub(super) [Option<Duration>; Family::ALL.len()]);

impl Totals {
    /// The bound of `family`, if it has one.
    pub fn get(&self, family: Family) -> Option<Duration> {
        self.0.get(family.index()).copied().flatten()
    }
}

/// One Salesforce org.
#[derive(Debug, Clone)]
pub struct Org {
    /// Its name in metrics, logs and the API.
    pub name: SmolStr,
    /// Where its API is.
    pub instance: Origin,
    /// Where its users log in.
    pub login: Origin,
    /// Host names (lower case, without port) that lead to it. Empty only if it is the only org: then all do.
    pub hosts: Vec<SmolStr>,
    /// What absolute URLs in answers are rewritten to; `None`: the request's Host, if it is one of `hosts`.
    pub public: Option<Origin>,
    /// Its daily allowance.
    pub daily: Daily,
    /// Its slots for calls that run long.
    pub long_running: LongRunning,
    /// Calls in the air at most.
    pub in_flight: Option<usize>,
    /// The Salesforce users whose credentials the gateway holds; if there is none, callers bring their own tokens.
    pub identities: Vec<Identity>,
    /// The cost of answers whose charge Salesforce does not document.
    pub costs: Costs,
}

/// An org's daily allowance, in API calls of any 24 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Daily {
    /// What budgets do.
    pub mode: DailyMode,
    /// A number to stay below, if it is lower than Salesforce's own limit.
    pub limit: Option<u64>,
    /// The part of the limit, in thousandths, that is left to others.
    pub keep_free: u16,
    /// The limit to go by if Salesforce never says one.
    pub assume: Option<u64>,
    /// Calls that may be sent before Salesforce has first said what is used.
    pub before_first_reading: u64,
    /// How long its first word is waited for.
    pub first_reading_within: Duration,
    /// The gateway's own question for what is used, if it may ask.
    pub poll: Option<Poll>,
}

/// The gateway's own question for what an org has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Poll {
    /// The place of the identity it asks as among the org's.
    pub identity: u16,
    /// How old the last word may grow before it asks.
    pub every: Duration,
}

/// A caller's share of every org's daily allowance, in API calls of any 24 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// What it is guaranteed.
    pub floor: u64,
    /// What it never exceeds; never less than `floor`.
    pub ceiling: Option<u64>,
    /// Its part, relative to others, of what nobody is guaranteed.
    pub weight: u32,
}

/// At which thousandths of an org's allowance calls beyond floors are narrowed, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ladder {
    /// Weighted shares begin.
    pub lean: u16,
    /// Batch goes on as fast as calls come back.
    pub pace_batch: u16,
    /// Batch stops.
    pub stop_batch: u16,
    /// Only interactive calls go on.
    pub stop_standard: u16,
    /// A step is left this far below the point where it was entered.
    pub back_below: u16,
}

/// Where it is remembered what was spent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nowhere.
    Memory,
    /// In a folder.
    Folder {
        /// The folder; it need not exist yet.
        path: PathBuf,
        /// What happens while nothing can be written there.
        on_loss: OnLoss,
    },
    /// In a store that several replicas share.
    Redis {
        /// The store.
        redis: Box<Redis>,
        /// What happens while it cannot be reached.
        on_loss: SharedLoss,
    },
}

impl Org {
    /// Whether log-ins go to another host than calls. A simulator on this machine is its own login host.
    pub fn logs_in_elsewhere(&self) -> bool {
        let simulated = self.instance.is_loopback() && self.login == Origin::salesforce_login();
        self.login != self.instance && !simulated
    }
}

/// A Salesforce user whose credentials the gateway holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub name: SmolStr,
    /// How it logs in.
    pub flow: Flow,
    /// Where it logs in, if not at the org's own hosts.
    pub token_url: Option<http::Uri>,
    /// How long its sessions are expected to live.
    pub session: Duration,
}

/// How an identity logs in, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flow {
    /// As the connected app.
    ClientCredentials {
        /// Consumer key.
        client_id: SmolStr,
        /// Consumer secret.
        client_secret: Secret,
    },
    /// By a signed assertion.
    JwtBearer {
        /// Consumer key.
        client_id: SmolStr,
        /// The user's name.
        username: SmolStr,
        /// For whom the assertion is.
        audience: SmolStr,
        /// RSA private key in PEM; it can be used.
        private_key: Secret,
    },
    /// By a refresh token.
    RefreshToken {
        /// Consumer key.
        client_id: SmolStr,
        /// Consumer secret.
        client_secret: Option<Secret>,
        /// The refresh token.
        refresh_token: Secret,
    },
}

/// The tokens that apps get for their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayTokens {
    /// The first seals, all open; none: the process makes one up.
    pub keys: Vec<Secret>,
    /// How long a token is valid.
    pub lifetime: Duration,
}

/// API calls charged for the answers about which Salesforce's documentation says nothing (facts 1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Costs {
    /// 304.
    pub not_modified: ApiCalls,
    /// 4xx, other than refusals.
    pub client_error: ApiCalls,
    /// 5xx.
    pub server_error: ApiCalls,
    /// A refusal because a limit is exceeded.
    pub refusal: ApiCalls,
    /// Token and identity requests.
    pub oauth: ApiCalls,
    /// `/limits`.
    pub limits: ApiCalls,
}

/// Scheme, host and port of a URL, without path.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    https: bool,
    authority: Authority,
    port: u16,
}

impl Origin {
    /// `authority` must not hold user information; [`super::value`] checks that.
    pub(super) fn new(https: bool, authority: Authority, port: u16) -> Self {
        Self { https, authority, port }
    }

    /// Whether the scheme is `https`.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Host, and port if it is not the scheme's own: what belongs into a `Host` header.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Host in lower case; an IPv6 address stands in brackets.
    pub fn host(&self) -> &str {
        self.authority.host()
    }

    /// Port, explicit or the scheme's own.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the host is `localhost` or a loopback address.
    pub fn is_loopback(&self) -> bool {
        let host = self.host().trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.https { "https" } else { "http" }, self.authority)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An internal app that uses the gateway.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Its name in metrics, logs, the API and Salesforce's own logs.
    pub name: SmolStr,
    /// How its requests are recognised.
    pub matches: Match,
    /// The identity as which its calls are made, in orgs that have it.
    pub act_as: Option<SmolStr>,
    /// How urgent its calls are.
    pub class: Class,
    /// How long it waits for an answer, unless a request says less.
    pub deadline: Option<Duration>,
    /// Calls of it in the air at most, to each org.
    pub in_flight: Option<usize>,
    /// Its share of every org's daily allowance.
    pub daily: Share,
    /// How fast it may send to each org; `None`: as fast as it likes.
    pub pace: Option<Pace>,
    /// What it may do.
    pub allow: Allow,
}

/// How a caller is recognised. What proves more is tried first: key, JWT, certificate, then host, network, client
/// name, then `Any`; among equals the order of the file decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// It sends one of these gateway keys; two while a key is replaced.
    Key(Vec<KeyDigest>),
    /// It sends a JSON Web Token.
    Jwt(JwtMatch),
    /// It shows a client certificate, verified against the listener's `client_ca`, that bears this name.
    Certificate(CertificateName),
    /// It uses this host name (lower case, without port).
    Host(SmolStr),
    /// It connects from one of these networks.
    Network(Vec<IpNet>),
    /// It names itself so in `Sforce-Call-Options: client=`; anybody can say that.
    CallOptionsClient(SmolStr),
    /// Everybody whom nothing else matches.
    Any,
}

/// A name in a client certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CertificateName {
    /// The subject's common name, compared exactly.
    CommonName(SmolStr),
    /// A DNS name among the alternative names, in lower case.
    Dns(SmolStr),
    /// A URI among the alternative names (SPIFFE), compared exactly.
    Uri(SmolStr),
}

/// What a JSON Web Token must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtMatch {
    /// `iss`.
    pub issuer: SmolStr,
    /// `aud`, or one of them.
    pub audience: SmolStr,
    /// `sub`, if only one subject is this caller.
    pub subject: Option<SmolStr>,
    /// Where the issuer's public keys are.
    pub jwks: Jwks,
}

/// Where a JSON Web Key Set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Jwks {
    /// In a file, which exists and can be read.
    File(PathBuf),
    /// At a URL, `https` unless it is loopback.
    Url(http::Uri),
}

/// What a caller may do; a list that is absent allows everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allow {
    /// Families of APIs.
    pub families: Option<Vec<Family>>,
    /// Objects by API name, compared without case.
    pub objects: Option<Vec<ObjectName>>,
    /// Operations.
    pub operations: Option<Vec<Operation>>,
}

impl Allow {
    /// Whether nothing is forbidden.
    pub fn is_everything(&self) -> bool {
        self.families.is_none() && self.objects.is_none() && self.operations.is_none()
    }
}
