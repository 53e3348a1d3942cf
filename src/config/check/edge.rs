//! Listeners, the admin listener and the limits.

use std::net::SocketAddr;

use super::{At, Check};
use crate::config::file::{AdminFile, LimitsFile, ListenerFile, TlsFile};
use crate::config::model::{Admin, Limits, Listener, ServerTls};
use crate::config::problem::Fault;

/// hyper cannot read heads with less.
const LEAST_HEAD_BYTES: u64 = 8 << 10;

impl Check<'_> {
    pub(super) fn listeners(&mut self, at: &At, written: &[ListenerFile]) -> Vec<Listener> {
        if written.is_empty() {
            self.wrong(at, Fault::new("nobody can connect").hint("give at least one {address: ...}"));
        }
        let mut listeners: Vec<Listener> = Vec::with_capacity(written.len());
        for (index, listener) in written.iter().enumerate() {
            let at = at.index(index);
            let tls = listener.tls.as_ref().and_then(|tls| self.server_tls(&at.key("tls"), tls));
            let address_at = at.key("address");
            let Some(address) = listener.address.map(|address| address.0) else {
                self.missing(&address_at, "write it like 0.0.0.0:8080");
                continue;
            };
            if let Some(other) = listeners.iter().find(|other| overlap(other.address, address)) {
                self.wrong(&address_at, Fault::new(format!("{address} is taken by the listener on {}", other.address)));
            }
            listeners.push(Listener { address, tls });
        }
        listeners
    }

    fn server_tls(&mut self, at: &At, written: &TlsFile) -> Option<ServerTls> {
        let pair = self.key_pair(at, written.certificate.as_ref(), written.key.as_ref());
        let client_ca = written.client_ca.as_ref().map(|ca| self.certificates(&at.key("client_ca"), ca));
        if written.client_ca_required && client_ca.is_none() {
            let fault = Fault::new("no client could be let in without client_ca");
            self.wrong(&at.key("client_ca_required"), fault.hint("name the authorities in client_ca"));
        }
        let pair = pair?;
        Some(ServerTls {
            certificate: pair.certificate,
            key: pair.key,
            client_ca,
            client_ca_required: written.client_ca_required,
        })
    }

    pub(super) fn admin(&mut self, at: &At, written: &AdminFile, listeners: &[Listener]) -> Admin {
        let address = written.address.0;
        if let Some(other) = listeners.iter().find(|other| overlap(other.address, address)) {
            let fault = Fault::new(format!("{address} is taken by the listener on {}", other.address));
            self.wrong(&at.key("address"), fault);
        }
        if written.key_sha256.is_none() && !address.ip().is_loopback() {
            let fault =
                Fault::new(format!("{address} can be reached from outside, and nobody would be asked for a key"));
            self.wrong(&at.key("key_sha256"), fault.hint("`weirkeeper key` makes one; or listen on 127.0.0.1"));
        }
        Admin {
            address,
            key: written.key_sha256.map(|digest| digest.0),
            hosts: written.hosts.iter().map(|host| host.0.0.clone()).collect(),
        }
    }

    pub(super) fn limits(&mut self, at: &At, written: &LimitsFile) -> Limits {
        const GIB: u64 = 1 << 30;
        let limits = Limits {
            head_bytes: self.length(&at.key("head_bytes"), written.head_bytes, LEAST_HEAD_BYTES, 1 << 20),
            header_count: written.header_count.as_usize(),
            head_time: self.positive(&at.key("head_time"), written.head_time),
            body_bytes: self.bytes(&at.key("body_bytes"), written.body_bytes, 1, 1024 * GIB),
            stream_above: written.stream_above.0.0,
            buffered_bytes_total: self.bytes(
                &at.key("buffered_bytes_total"),
                written.buffered_bytes_total,
                1 << 20,
                1024 * GIB,
            ),
            connections: written.connections.as_usize(),
            streams: written.streams.as_u32(),
            idle: self.positive(&at.key("idle"), written.idle),
            minimum_rate: written.minimum_rate.0.0,
            minimum_rate_grace: self.positive(&at.key("minimum_rate_grace"), written.minimum_rate_grace),
            drain_notice: written.drain_notice.0.0,
            drain: written.drain.0.0,
        };
        if limits.stream_above > limits.body_bytes {
            let fault = Fault::new("longer than body_bytes, so that nothing would ever be streamed");
            self.wrong(&at.key("stream_above"), fault.hint("set it to at most body_bytes"));
        }
        // A body under way takes a little more than its length.
        if limits.stream_above >= limits.buffered_bytes_total {
            let fault = Fault::new("a complete body of this size never fits into buffered_bytes_total");
            self.wrong(&at.key("stream_above"), fault.hint("set it lower than buffered_bytes_total"));
        }
        limits
    }
}

/// Whether the system would refuse to listen on both. Port 0 asks for any free port.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let (x, y) = (a.ip(), b.ip());
    a.port() == b.port()
        && a.port() != 0
        && x.is_ipv4() == y.is_ipv4()
        && (x == y || x.is_unspecified() || y.is_unspecified())
}
