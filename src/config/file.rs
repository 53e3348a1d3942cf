//! What a configuration says: the file, key by key.
//!
//! These types are the only definition of the file format. The strict reader, the JSON Schema, the defaults and
//! the configuration shown to operators come from them, and the doc comment of a field is its reference text.
//! A new key is a field here, and what it means is a line in [`super::check`]. Keys that must be given are
//! `Option` with `schemars(required)`: Serde takes their absence, and the check reports all that are missing.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::auth::{GatewayTokensFile, IdentityFile};
use super::breaker::BreakerFile;
use super::cache::CacheFile;
use super::daily::{DailyFile, LadderFile, ShareFile, StateFile};
use super::key::KeyDigest;
use super::model::Origin;
use super::pace::PaceFile;
use super::retry::RetryFile;
use super::secret::SecretRef;
use super::slots::{ClassRuleFile, LongRunningFile, QueueFile};
use super::telling::{LogFile, MetricsFile, TracesFile};
use super::value::{ApiName, Count, HostName, Name, OneOrMany, Period, Phrase, ProxyUrl, Size, Text, WebUrl};
use crate::call::{Class, Family, Operation};

/// Weirkeeper's configuration.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConfigFile {
    /// Addresses on which callers are met. Changing them takes effect after a restart.
    pub listeners: Vec<ListenerFile>,
    /// Networks of proxies in front of the gateway, whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    pub trusted_proxies: Vec<Text<IpNet>>,
    /// The second listener, for operators: metrics, health, status.
    pub admin: AdminFile,
    /// Bounds on what callers may send, and how slowly.
    pub limits: LimitsFile,
    /// How Salesforce is reached.
    pub upstream: UpstreamFile,
    /// The Salesforce orgs behind this gateway.
    #[schemars(required, length(min = 1))]
    pub orgs: Vec<OrgFile>,
    /// The apps that use this gateway. Without any, everybody is let in as `anyone`, class `standard`.
    pub callers: Vec<CallerFile>,
    /// Whether callers with a ceiling or a pace are told what is left of it with every answer: `RateLimit` and
    /// `RateLimit-Policy`.
    pub rate_limit_headers: bool,
    /// What the `allow` rules of callers do.
    pub policy: PolicyFile,
    /// Lowers the class of some calls, whoever makes them.
    pub classes: Vec<ClassRuleFile>,
    /// Which answers may be given from memory.
    pub cache: CacheFile,
    /// What happens as an org's daily allowance runs out, or the queue fills up.
    pub ladder: LadderFile,
    /// How calls wait that cannot be sent at once.
    pub queue: QueueFile,
    /// Which calls that failed are made once more.
    pub retry: RetryFile,
    /// When calls are held back because Salesforce is not well.
    pub breaker: BreakerFile,
    /// Where it is remembered what was spent. Default: the folder `data` beside this file if any org enforces a budget,
    /// else `memory`. Changing it takes effect after a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<StateFile>,
    /// The access log: one JSON line for each request.
    pub log: LogFile,
    /// Bounds on metric labels.
    pub metrics: MetricsFile,
    /// Spans of requests, for a collector of traces. Off at first.
    pub traces: TracesFile,
    /// Worker runtimes, each on its own thread; default: one for each processor core. Changing it takes effect
    /// after a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtimes: Option<Count<1, 256>>,
    /// Secret of at least 16 characters that keys the hash which tells Salesforce users apart without revealing
    /// their tokens. Several replicas need a common one to agree on users. Default: drawn from `state.redis.keys`; without
    /// it, random for each process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal_key: Option<SecretRef>,
    /// The tokens that apps get when they log in with their gateway key, for orgs with `auth`.
    pub gateway_tokens: GatewayTokensFile,
}

impl Default for ConfigFile {
    fn default() -> Self {
        Self {
            listeners: vec![ListenerFile { address: Some(Text(loopback(8080))), tls: None }],
            trusted_proxies: Vec::new(),
            admin: AdminFile::default(),
            limits: LimitsFile::default(),
            upstream: UpstreamFile::default(),
            orgs: Vec::new(),
            callers: Vec::new(),
            rate_limit_headers: true,
            policy: PolicyFile::default(),
            classes: Vec::new(),
            cache: CacheFile::default(),
            ladder: LadderFile::default(),
            queue: QueueFile::default(),
            retry: RetryFile::default(),
            breaker: BreakerFile::default(),
            state: None,
            log: LogFile::default(),
            metrics: MetricsFile::default(),
            traces: TracesFile::default(),
            runtimes: None,
            principal_key: None,
            gateway_tokens: GatewayTokensFile::default(),
        }
    }
}

/// `127.0.0.1` with this port.
pub(super) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// One address on which callers are met.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerFile {
    /// IP address and port, such as `0.0.0.0:8080` or `[::]:8443`.
    #[schemars(required)]
    pub address: Option<Text<SocketAddr>>,
    /// Makes this listener speak TLS. Without it, it speaks HTTP/1.1 and HTTP/2 with prior knowledge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFile>,
}

/// Certificate, key and client authorities of a TLS listener. The files are read again when they change.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TlsFile {
    /// PEM file of the certificate chain, leaf first. Relative to the configuration's directory.
    #[schemars(required)]
    pub certificate: Option<Text<Phrase>>,
    /// PEM file of the leaf's private key.
    #[schemars(required)]
    pub key: Option<Text<Phrase>>,
    /// PEM file of the authorities whose client certificates are accepted (mutual TLS).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<Text<Phrase>>,
    /// Turns clients without a certificate away. Needs `client_ca`.
    pub client_ca_required: bool,
}

/// The listener for operators.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminFile {
    /// IP address and port. Changing it takes effect after a restart.
    pub address: Text<SocketAddr>,
    /// SHA-256 of the admin key (`weirkeeper key` makes both). The key is needed for actions, and for everything
    /// but the health checks if the address is not loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_sha256: Option<Text<KeyDigest>>,
    /// Host names by which operators reach it, besides loopback addresses and `localhost`.
    pub hosts: Vec<Text<HostName>>,
}

impl Default for AdminFile {
    fn default() -> Self {
        Self { address: Text(loopback(9090)), key_sha256: None, hosts: Vec::new() }
    }
}

/// Bounds on what a caller may send, and how slowly.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsFile {
    /// Size of the request line and headers together.
    pub head_bytes: Text<Size>,
    /// Number of header fields.
    pub header_count: Count<1, 1000>,
    /// Time a request head may take to arrive.
    pub head_time: Text<Period>,
    /// Size of a request body.
    pub body_bytes: Text<Size>,
    /// Request bodies longer than this are streamed to Salesforce; shorter ones are forwarded once complete.
    pub stream_above: Text<Size>,
    /// Memory for bodies in the whole process; beyond it requests are refused with 503.
    pub buffered_bytes_total: Text<Size>,
    /// Connections of callers, over all listeners.
    pub connections: Count<1, 1_000_000>,
    /// Requests in the air on one HTTP/2 connection.
    pub streams: Count<1, 10_000>,
    /// How long a connection may be idle between requests.
    pub idle: Text<Period>,
    /// Bytes per second below which a caller that sends or receives a body is cut off.
    pub minimum_rate: Text<Size>,
    /// How long a body may be slower than `minimum_rate`.
    pub minimum_rate_grace: Text<Period>,
    /// How long new connections are still accepted after the gateway was told to stop, while `/readyz` says that it is
    /// not ready: as long as a load balancer takes to notice. Then `drain` begins.
    pub drain_notice: Text<Period>,
    /// How long requests may go on after the gateway has stopped accepting.
    pub drain: Text<Period>,
}

impl Default for LimitsFile {
    fn default() -> Self {
        Self {
            head_bytes: kib(16),
            header_count: Count(100),
            head_time: seconds(10),
            body_bytes: kib(160 * 1024),
            stream_above: kib(1024),
            buffered_bytes_total: kib(256 * 1024),
            connections: Count(20_000),
            streams: Count(100),
            idle: seconds(120),
            minimum_rate: kib(1),
            minimum_rate_grace: seconds(10),
            drain_notice: seconds(0),
            drain: seconds(30),
        }
    }
}

fn kib(count: u64) -> Text<Size> {
    Text(Size(count * 1024))
}

fn seconds(count: u64) -> Text<Period> {
    Text(Period(Duration::from_secs(count)))
}

/// How Salesforce is reached.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamFile {
    /// Egress proxy through which all connections go by `CONNECT`, such as `http://egress:3128`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Text<ProxyUrl>>,
    /// `user:password` for the proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_credentials: Option<SecretRef>,
    /// Which certificate authorities are trusted.
    pub roots: Roots,
    /// PEM file of further authorities to trust.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<Text<Phrase>>,
    /// How the gateway shows itself if Salesforce asks for a certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<KeyPairFile>,
    /// Offers HTTP/2 to Salesforce. With HTTP/1.1 one slow answer can never hold up another.
    pub http2: bool,
    /// Time for name look-up, connection, proxy and TLS together.
    pub connect: Text<Period>,
    /// Time from the end of the request to the response head.
    pub first_byte: Text<Period>,
    /// Time between two pieces of a response body.
    pub idle: Text<Period>,
    /// Time a whole exchange may take, by family; families that are not named have no such bound.
    #[schemars(extend("propertyNames" = { "$ref": "#/definitions/Family" }))]
    pub total: BTreeMap<Family, Text<Period>>,
    /// A connection of this age is given no further request.
    pub connection_age: Text<Period>,
    /// Open connections to one org from each runtime.
    pub connections_per_runtime: Count<1, 10_000>,
    /// How much of a response is read before the caller has taken it.
    pub read_ahead: Text<Size>,
}

impl Default for UpstreamFile {
    fn default() -> Self {
        Self {
            proxy: None,
            proxy_credentials: None,
            roots: Roots::default(),
            ca: None,
            client_certificate: None,
            http2: false,
            connect: seconds(5),
            first_byte: seconds(120),
            idle: seconds(120),
            total: BTreeMap::new(),
            connection_age: seconds(600),
            connections_per_runtime: Count(256),
            read_ahead: kib(256),
        }
    }
}

/// Where trusted certificate authorities come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Roots {
    /// The operating system's store.
    #[default]
    Platform,
    /// Mozilla's list as built into the gateway, for images without a store.
    Bundled,
}

/// A certificate and its key.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeyPairFile {
    /// PEM file of the certificate chain, leaf first. Relative to the configuration's directory.
    #[schemars(required)]
    pub certificate: Option<Text<Phrase>>,
    /// PEM file of the leaf's private key.
    #[schemars(required)]
    pub key: Option<Text<Phrase>>,
}

/// One Salesforce org.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OrgFile {
    /// Its name in metrics, logs and the API.
    #[schemars(required)]
    pub name: Option<Text<Name>>,
    /// Where its API is: its My Domain URL.
    #[schemars(required)]
    pub instance_url: Option<Text<Origin>>,
    /// Where its users and apps log in.
    pub login_url: Text<Origin>,
    /// Host names that lead to this org. A single org needs none.
    pub hosts: Vec<Text<HostName>>,
    /// What URLs in rewritten answers point to. Default: the request's Host, if it is one of `hosts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_url: Option<Text<Origin>>,
    /// Its daily allowance of API calls.
    pub daily: DailyFile,
    /// Its places for calls that run long.
    pub long_running: LongRunningFile,
    /// Calls in the air at most, of all callers together; further ones wait. Default: as many as come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<Count<1, 1_000_000>>,
    /// The Salesforce users whose credentials the gateway holds, by a name of your choice. With this, apps use their
    /// gateway key wherever Salesforce wants a session, and callers with `act_as` need no Salesforce account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<BTreeMap<Text<Name>, IdentityFile>>,
    /// API calls to count for the answers whose charge Salesforce does not document.
    pub costs: CostsFile,
}

impl Default for OrgFile {
    fn default() -> Self {
        Self {
            name: None,
            instance_url: None,
            login_url: Text(Origin::salesforce_login()),
            hosts: Vec::new(),
            public_url: None,
            daily: DailyFile::default(),
            long_running: LongRunningFile::default(),
            in_flight: None,
            auth: None,
            costs: CostsFile::default(),
        }
    }
}

/// API calls to count for the answers whose charge Salesforce does not document.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CostsFile {
    /// 304 Not Modified.
    pub not_modified: Count<0, 1000>,
    /// Errors of the client (4xx), other than refusals.
    pub client_error: Count<0, 1000>,
    /// Errors of the server (5xx).
    pub server_error: Count<0, 1000>,
    /// Refusals because a limit is exceeded.
    pub refusal: Count<0, 1000>,
    /// Requests for tokens and identities.
    pub oauth: Count<0, 1000>,
    /// Reads of `/limits`.
    pub limits: Count<0, 1000>,
}

impl Default for CostsFile {
    fn default() -> Self {
        Self {
            not_modified: Count(1),
            client_error: Count(1),
            server_error: Count(1),
            refusal: Count(1),
            oauth: Count(0),
            limits: Count(1),
        }
    }
}

/// An app that uses the gateway.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CallerFile {
    /// Its name in metrics, logs, the API and Salesforce's own logs.
    #[schemars(required)]
    pub name: Option<Text<Name>>,
    /// How its requests are recognised.
    #[schemars(required)]
    #[serde(rename = "match")]
    pub matches: Option<MatchFile>,
    /// The identity of `orgs[].auth` as which its calls are made, whatever session they carry. It needs proof of who the
    /// caller is: a key, certificate, token or network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub act_as: Option<Text<Name>>,
    /// How urgent its calls are; default: `standard`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// How long it waits for an answer, unless a request says less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Text<Period>>,
    /// Calls of it in the air at most, to each org; further ones wait. Default: as many as come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<Count<1, 1_000_000>>,
    /// Its share of every org's daily allowance.
    pub daily: ShareFile,
    /// How fast it may send; default: as fast as it likes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pace: Option<PaceFile>,
    /// What it may do; default: everything.
    pub allow: AllowFile,
}

/// How a caller is recognised: exactly one way. Keys, tokens and certificates are tried first, then hosts,
/// networks and client names, then `any`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MatchFile {
    /// By its gateway key. Two hashes let two keys work while one replaces the other.
    KeySha256(OneOrMany<Text<KeyDigest>>),
    /// By a name in its client certificate. Needs a listener with `client_ca`.
    Certificate(CertificateFile),
    /// By the host name it uses.
    Host(Text<HostName>),
    /// By the network it connects from.
    Network(OneOrMany<Text<IpNet>>),
    /// By the client name it sends in `Sforce-Call-Options`. Anybody can send it: this tells apps apart, it does
    /// not keep anybody out.
    CallOptionsClient(Text<Phrase>),
    /// By a JSON Web Token.
    Jwt(JwtFile),
    /// Everybody whom nothing else matches.
    Any,
}

/// A name in a client certificate.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CertificateFile {
    /// The subject's common name.
    CommonName(Text<Phrase>),
    /// A DNS name among the alternative names.
    Dns(Text<HostName>),
    /// A URI among the alternative names, such as a SPIFFE id.
    Uri(Text<Phrase>),
}

/// What a JSON Web Token must say.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JwtFile {
    /// The issuer, `iss`.
    #[schemars(required)]
    pub issuer: Option<Text<Phrase>>,
    /// The audience, `aud`.
    #[schemars(required)]
    pub audience: Option<Text<Phrase>>,
    /// The subject, `sub`; default: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Text<Phrase>>,
    /// Where the issuer's public keys are.
    #[schemars(required)]
    pub jwks: Option<JwksFile>,
}

/// Where a JSON Web Key Set is.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JwksFile {
    /// In this file. Relative to the configuration's directory.
    File(Text<Phrase>),
    /// At this URL.
    Url(Text<WebUrl>),
}

/// What a caller may do. A list that is absent allows everything.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AllowFile {
    /// Families of APIs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub families: Option<Vec<Family>>,
    /// Objects by API name. With this, calls about no object or an unknown one are forbidden too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objects: Option<Vec<Text<ApiName>>>,
    /// Operations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operations: Option<Vec<Operation>>,
}

/// What the `allow` rules of callers do.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyFile {
    /// Whether the rules refuse, only count what they would refuse, or do nothing.
    pub mode: PolicyMode,
}

/// What the `allow` rules do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PolicyMode {
    /// Nothing.
    Off,
    /// They decide and count, but refuse nothing.
    Observe,
    /// They refuse what they do not allow.
    #[default]
    Enforce,
}

impl ConfigFile {
    /// The file that `serve --org` stands for: everybody may use one org called `default`.
    pub(super) fn for_org(instance: Origin, listen: SocketAddr, admin: SocketAddr) -> Self {
        Self {
            listeners: vec![ListenerFile { address: Some(Text(listen)), tls: None }],
            admin: AdminFile { address: Text(admin), ..AdminFile::default() },
            orgs: vec![OrgFile {
                name: Some(Text(Name(SmolStr::new_static("default")))),
                instance_url: Some(Text(instance)),
                ..OrgFile::default()
            }],
            ..Self::default()
        }
    }
}
