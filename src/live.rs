//! The configuration in force, arranged for the road.
//!
//! A reload makes a new [`Live`] and swaps it in; a request keeps the one it started with. What must survive a reload
//! (connections, metrics, the hash key of principals) is handed from one to the next.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use arc_swap::ArcSwap;
use http::HeaderValue;
use ipnet::IpNet;
use smol_str::SmolStr;

use crate::call::{CallerId, Class, OrgId};
use crate::config::{Config, PolicyMode};
use crate::edge::callers::Callers;
use crate::edge::jwt::Issuers;
use crate::exchange::connect::Origin;
use crate::exchange::upstream::Timeouts;
use crate::salesforce::Costs;
use crate::salesforce::credential::PrincipalKey;
use crate::stages::policy::{Mode, Rules};

/// The one place that holds the configuration in force.
pub type InForce = Arc<ArcSwap<Live>>;

/// One configuration, arranged for looking up while a request passes.
#[derive(Debug)]
pub struct Live {
    /// Counts configurations of this process, from 1.
    pub generation: u64,
    /// What was configured.
    pub config: Arc<Config>,
    /// Who may call.
    pub callers: Callers,
    /// Whose tokens are accepted.
    pub issuers: Issuers,
    /// What the allow-rules do.
    pub policy_mode: Mode,
    /// Keys the hash of principals.
    pub principal_key: PrincipalKey,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Bodies longer than this are streamed.
    pub stream_above: u64,
    /// Bodies longer than this are refused.
    pub body_bytes: u64,
    /// Bytes of an answer that are read ahead of a slow caller.
    pub read_ahead: usize,
    orgs: Vec<LiveOrg>,
    by_caller: Vec<LiveCaller>,
    hosts: AHashMap<SmolStr, OrgId>,
    only_org: Option<OrgId>,
}

/// One org, arranged for the road.
#[derive(Debug)]
pub struct LiveOrg {
    /// Its name.
    pub name: SmolStr,
    /// Where its API is.
    pub origin: Arc<Origin>,
    /// What undocumented answers cost.
    pub costs: Costs,
    /// How long to wait for what, by family.
    timeouts: Vec<Timeouts>,
}

impl LiveOrg {
    /// How long to wait for a call of `family`.
    pub fn timeouts(&self, family: crate::call::Family) -> Timeouts {
        self.timeouts.get(family.index()).copied().unwrap_or_default()
    }
}

/// One caller, arranged for the road.
#[derive(Debug)]
pub struct LiveCaller {
    /// Its name.
    pub name: SmolStr,
    /// What it may do.
    pub rules: Rules,
    /// How urgent its calls are.
    pub class: Class,
    /// How long it waits.
    pub deadline: Option<Duration>,
    /// `client=<name>`, ready for `Sforce-Call-Options`.
    pub stamp: HeaderValue,
}

impl Live {
    /// The org that `host` (lower case, without port) leads to.
    pub fn org_by_host(&self, host: &str) -> Option<OrgId> {
        self.only_org.or_else(|| self.hosts.get(host).copied())
    }

    /// The org with this id.
    pub fn org(&self, id: OrgId) -> Option<&LiveOrg> {
        self.orgs.get(usize::from(id.0))
    }

    /// The caller with this id.
    pub fn caller(&self, id: CallerId) -> Option<&LiveCaller> {
        self.by_caller.get(usize::from(id.0))
    }

    /// All orgs.
    pub fn orgs(&self) -> &[LiveOrg] {
        &self.orgs
    }
}
