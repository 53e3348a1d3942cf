//! The orgs.

use std::collections::HashMap;

use smol_str::SmolStr;

use super::{At, Check};
use crate::call::ApiCalls;
use crate::config::file::{CostsFile, OrgFile};
use crate::config::model::{Costs, Org, Origin};
use crate::config::problem::Fault;
use crate::config::value::Text;

/// More than any company has; an org's memory is not free.
const MAX_ORGS: usize = 1_000;

impl Check<'_> {
    pub(super) fn orgs(&mut self, at: &At, written: &[OrgFile], shared: bool) -> Vec<Org> {
        if written.is_empty() {
            self.wrong(
                at,
                Fault::new("no org to stand in front of").hint("give at least one {name: ..., instance_url: ...}"),
            );
        }
        if written.len() > MAX_ORGS {
            self.wrong(at, Fault::new(format!("more than {MAX_ORGS} orgs")));
            return Vec::new();
        }
        let mut names = HashMap::new();
        let mut instances: Vec<(&Origin, At)> = Vec::with_capacity(written.len());
        let mut hosts = HashMap::new();
        let mut orgs = Vec::with_capacity(written.len());
        for (index, org) in written.iter().enumerate() {
            let at = at.index(index);
            let name = self.name(&at, org.name.as_ref(), &mut names);
            let instance = self.instance(&at.key("instance_url"), org.instance_url.as_ref(), &mut instances);
            let login_at = at.key("login_url");
            self.encrypted(&login_at, &org.login_url.0, "tokens and passwords would travel in clear");
            if let Some(Text(public)) = &org.public_url {
                self.encrypted(&at.key("public_url"), public, "callers would send their tokens in clear");
            }
            let identities = self.identities(&at.key("auth"), org.auth.as_ref(), &org.login_url.0);
            if org.auth.is_some() && org.hosts.is_empty() && org.public_url.is_none() {
                let fault = Fault::new("apps that log in could not be told where to go on");
                self.wrong(&at.key("hosts"), fault.hint("give the org hosts or a public_url"));
            }
            self.org_hosts(&at.key("hosts"), org, written.len(), &mut hosts);
            let daily = self.daily(&at.key("daily"), org, shared);
            let long_running = self.long_running(&at.key("long_running"), &org.long_running);
            if let (Some(name), Some(instance)) = (name, instance) {
                orgs.push(Org {
                    name,
                    instance,
                    login: org.login_url.0.clone(),
                    hosts: org.hosts.iter().map(|host| host.0.0.clone()).collect(),
                    public: org.public_url.as_ref().map(|public| public.0.clone()),
                    daily,
                    long_running,
                    in_flight: org.in_flight.map(crate::config::value::Count::as_usize),
                    identities,
                    costs: costs(&org.costs),
                });
            }
        }
        orgs
    }

    fn instance<'o>(
        &mut self,
        at: &At,
        written: Option<&'o Text<Origin>>,
        before: &mut Vec<(&'o Origin, At)>,
    ) -> Option<Origin> {
        let Some(Text(origin)) = written else {
            self.missing(at, "write the org's My Domain URL, such as https://acme.my.salesforce.com");
            return None;
        };
        self.encrypted(at, origin, "tokens would travel in clear");
        if let Some((_, first)) = before.iter().find(|(known, _)| *known == origin) {
            let fault = Fault::new(format!("{origin} is {} already", self.named(first)));
            self.wrong(at, fault.hint("an org has one allowance, so it stands here once, with all its hosts"));
        }
        before.push((origin, at.clone()));
        Some(origin.clone())
    }

    /// Plain http is for simulators and sidecars on this machine.
    fn encrypted(&mut self, at: &At, origin: &Origin, danger: &str) {
        if !origin.is_https() && !origin.is_loopback() {
            self.wrong(at, Fault::new(format!("{origin} is not https: {danger}")).hint("http is for loopback only"));
        }
    }

    fn org_hosts(&mut self, at: &At, org: &OrgFile, orgs: usize, taken: &mut HashMap<SmolStr, At>) {
        if orgs > 1 && org.hosts.is_empty() {
            let fault = Fault::new("with several orgs, each needs a host name that leads to it");
            self.wrong(at, fault.hint("hosts: [salesforce.acme.internal]"));
        }
        for (index, Text(host)) in org.hosts.iter().enumerate() {
            let at = at.index(index);
            if let Some(first) = taken.get(&host.0) {
                let fault = Fault::new(format!("{} leads elsewhere already, by {}", host.0, self.named(first)));
                self.wrong(&at, fault.hint("a host name leads to one org"));
            } else {
                taken.insert(host.0.clone(), at);
            }
        }
    }
}

fn costs(written: &CostsFile) -> Costs {
    Costs {
        not_modified: ApiCalls(written.not_modified.as_u32()),
        client_error: ApiCalls(written.client_error.as_u32()),
        server_error: ApiCalls(written.server_error.as_u32()),
        refusal: ApiCalls(written.refusal.as_u32()),
        oauth: ApiCalls(written.oauth.as_u32()),
        limits: ApiCalls(written.limits.as_u32()),
    }
}
