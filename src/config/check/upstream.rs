//! How Salesforce is reached.

use std::time::Duration;

use super::{At, Check};
use crate::call::Family;
use crate::config::file::UpstreamFile;
use crate::config::model::{EgressProxy, Limits, Totals, Upstream};
use crate::config::problem::Fault;
use crate::config::value::Written as _;

/// A CometD long poll lasts up to 110 s (facts 6.7).
const LEAST_LONG_POLL: Duration = Duration::from_mins(2);

impl Check<'_> {
    pub(super) fn upstream(&mut self, at: &At, written: &UpstreamFile, limits: &Limits) -> Upstream {
        let read_ahead_at = at.key("read_ahead");
        let read_ahead = self.length(&read_ahead_at, written.read_ahead, 4 << 10, 1 << 30);
        if read_ahead as u64 > limits.buffered_bytes_total {
            let fault = Fault::new("more than limits.buffered_bytes_total");
            self.wrong(&read_ahead_at, fault.hint("one response alone must fit into the memory for all"));
        }
        Upstream {
            proxy: self.proxy(at, written),
            roots: written.roots,
            extra_roots: written.ca.as_ref().map(|ca| self.certificates(&at.key("ca"), ca)),
            client_certificate: written.client_certificate.as_ref().and_then(|pair| {
                let at = at.key("client_certificate");
                self.key_pair(&at, pair.certificate.as_ref(), pair.key.as_ref())
            }),
            http2: written.http2,
            connect: self.positive(&at.key("connect"), written.connect),
            first_byte: self.positive(&at.key("first_byte"), written.first_byte),
            idle: self.positive(&at.key("idle"), written.idle),
            total: self.totals(&at.key("total"), written),
            connection_age: self.positive(&at.key("connection_age"), written.connection_age),
            connections_per_runtime: written.connections_per_runtime.as_usize(),
            read_ahead,
        }
    }

    fn totals(&mut self, at: &At, written: &UpstreamFile) -> Totals {
        let mut totals = Totals([None; Family::ALL.len()]);
        for (family, period) in &written.total {
            let at = at.key(family.as_str());
            let total = self.positive(&at, *period);
            if *family == Family::Cometd && !total.is_zero() && total < LEAST_LONG_POLL {
                let fault = Fault::new(format!("{} would cut long polls off, which last 110s", period.0.write()));
                self.wrong(&at, fault.hint("120s is the least"));
            }
            if let Some(slot) = totals.0.get_mut(family.index()) {
                *slot = Some(total);
            }
        }
        totals
    }

    fn proxy(&mut self, at: &At, written: &UpstreamFile) -> Option<EgressProxy> {
        let credentials_at = at.key("proxy_credentials");
        let credentials = written.proxy_credentials.as_ref().and_then(|reference| {
            let secret = self.secret(&credentials_at, reference)?;
            if !secret.expose().contains(':') || secret.expose().chars().any(char::is_control) {
                self.wrong(&credentials_at, Fault::new("the secret does not have the form user:password"));
            }
            Some(secret)
        });
        let Some(proxy) = &written.proxy else {
            if written.proxy_credentials.is_some() {
                let fault = Fault::new("credentials for a proxy, but no proxy");
                self.wrong(&credentials_at, fault.hint("name it under proxy: http://host:port"));
            }
            return None;
        };
        Some(EgressProxy { host: proxy.0.host.clone(), port: proxy.0.port, credentials })
    }
}
