//! State that several replicas share: what a configuration says of it, a part of [`super::file`], and what it means.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::file::KeyPairFile;
use super::model::KeyPair;
use super::secret::{Secret, SecretRef};
use super::value::{Name, Period, Phrase, Text};

/// Redis or Valkey, where several replicas remember together what was spent.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedisFile {
    /// Where it is: `redis://[user:password@]host[:port][/database]`, or `rediss://` for TLS. Several nodes of a Cluster, or
    /// several Sentinels, are separated by commas.
    #[schemars(required)]
    pub url: Option<SecretRef>,
    /// Secrets of at least 32 characters that all replicas have. The first seals what lies in the store, all open it, so that
    /// keys can be replaced without a gap.
    #[schemars(required)]
    pub keys: Vec<SecretRef>,
    /// The nodes are those of a Cluster.
    pub cluster: bool,
    /// The nodes are Sentinels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentinel: Option<SentinelFile>,
    /// Further trusted certificate authorities, in PEM. Default: the operating system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<Text<Phrase>>,
    /// How the gateway shows itself if the store asks for a certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<KeyPairFile>,
    /// What the names of its keys begin with. Gateways that share one belong together.
    pub prefix: Text<Name>,
    /// What this replica is called where replicas are listed. Default: the variable `HOSTNAME`, or an id made up at each start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Text<Phrase>>,
    /// How long an answer may take before the store counts as lost.
    pub timeout: Text<Period>,
}

impl Default for RedisFile {
    fn default() -> Self {
        Self {
            url: None,
            keys: Vec::new(),
            cluster: false,
            sentinel: None,
            ca: None,
            client_certificate: None,
            prefix: Text(Name("weirkeeper".into())),
            name: None,
            timeout: Text(Period(Duration::from_secs(1))),
        }
    }
}

/// Sentinels that know which node is the primary.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SentinelFile {
    /// What the Sentinels call the primary.
    #[schemars(required)]
    pub service: Option<Text<Phrase>>,
    /// Who the gateway is to the Sentinels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<Text<Phrase>>,
    /// Its password there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretRef>,
}

/// Redis or Valkey, as several replicas share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redis {
    /// At least one: the store, some of a Cluster's nodes, or Sentinels.
    pub nodes: Vec<Node>,
    /// Whether it is spoken to by TLS.
    pub tls: bool,
    /// Who the gateway is there.
    pub username: Option<SmolStr>,
    /// Its password.
    pub password: Option<Secret>,
    /// Which of a single store's databases.
    pub database: u16,
    /// Whether the nodes are those of a Cluster.
    pub cluster: bool,
    /// If the nodes are Sentinels, how to ask them.
    pub sentinel: Option<Sentinel>,
    /// A PEM file of trusted authorities, instead of the operating system's.
    pub ca: Option<PathBuf>,
    /// How the gateway shows itself.
    pub client_certificate: Option<KeyPair>,
    /// What the names of its keys begin with.
    pub prefix: SmolStr,
    /// What this replica is called, if it has a name.
    pub name: Option<SmolStr>,
    /// At least one. The first seals, all open.
    pub keys: Vec<Secret>,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// Where a store listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Name or address; an IPv6 address without brackets.
    pub host: SmolStr,
    /// Its port.
    pub port: u16,
}

/// How Sentinels are asked for the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentinel {
    /// What they call it.
    pub service: SmolStr,
    /// Who the gateway is to them.
    pub username: Option<SmolStr>,
    /// Its password there.
    pub password: Option<Secret>,
}
