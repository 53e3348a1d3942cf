//! What is known about one accepted connection, and a request that arrived on it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::call::{CallerId, OrgId, Principal};
use crate::edge::inbound::Inbound;
use crate::edge::wire::Wire;

/// A request as it arrived. The head is the caller's own: no rule of [`crate::edge::headers`] was applied to it.
#[derive(Debug)]
pub struct Arrival {
    /// Method, target, version and headers.
    pub head: http::request::Parts,
    /// The body, read as it arrives.
    pub body: Inbound,
    /// On which connection.
    pub connection: Arc<Connection>,
}

/// One accepted connection.
#[derive(Debug)]
pub struct Connection {
    /// The other end of the socket; behind a trusted proxy that is the proxy ([`crate::edge::proxies`]).
    pub peer: SocketAddr,
    /// Which of the configured listeners accepted it.
    pub listener: usize,
    /// Whether it is encrypted.
    pub secure: bool,
    /// The client certificate it was opened with, already verified.
    pub certificate: Option<PeerCertificate>,
    /// What the last request proved about its sender.
    remembered: Mutex<Option<Remembered>>,
    /// State shared by the raw stream, hyper and the driver.
    pub(super) wire: Mutex<Wire>,
}

impl Connection {
    /// A connection from `peer`, accepted by the listener at `listener`.
    pub fn new(peer: SocketAddr, listener: usize) -> Self {
        Self {
            peer,
            listener,
            secure: false,
            certificate: None,
            remembered: Mutex::new(None),
            wire: Mutex::new(Wire::default()),
        }
    }

    /// The same, encrypted, with the certificate the client showed.
    #[must_use]
    pub fn secured(mut self, certificate: Option<PeerCertificate>) -> Self {
        self.secure = true;
        self.certificate = certificate;
        self
    }

    /// The same, with HTTP/2 agreed on by ALPN.
    #[must_use]
    pub fn speaking_http2(self) -> Self {
        self.wire.lock().http2 = true;
        self
    }

    /// Whether the connection speaks HTTP/2; known before the first request.
    pub fn http2(&self) -> bool {
        self.wire.lock().http2
    }

    /// What an earlier request with the same Host and credential bytes proved, if `epoch` (the generation of the
    /// configuration it was judged by) is still the same. Compares in constant time, so a token costs no hash.
    pub fn recall(&self, host: &[u8], credential: &[u8], epoch: u64) -> Option<Known> {
        let remembered = self.remembered.lock();
        let entry = remembered.as_ref()?;
        let same = entry.epoch == epoch
            && *entry.host == *host
            && aws_lc_rs::constant_time::verify_slices_are_equal(&entry.credential, credential).is_ok();
        same.then_some(entry.known)
    }

    /// Remembers what a request proved. One entry is kept: connections that alternate between credentials gain nothing.
    pub fn remember(&self, host: &[u8], credential: &[u8], epoch: u64, known: Known) {
        let entry = Remembered { host: host.into(), credential: Zeroizing::new(credential.into()), epoch, known };
        *self.remembered.lock() = Some(entry);
    }

    /// Forgets it, for example because Salesforce no longer accepts the credential.
    pub fn forget(&self) {
        *self.remembered.lock() = None;
    }
}

/// Who sent a request, as far as Host and credential say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The org its Host leads to.
    pub org: OrgId,
    /// The caller it was identified as.
    pub caller: CallerId,
    /// The Salesforce user or session of its token.
    pub principal: Principal,
}

struct Remembered {
    host: Box<[u8]>,
    credential: Zeroizing<Box<[u8]>>,
    epoch: u64,
    known: Known,
}

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembered").field("known", &self.known).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// The facts of a verified client certificate that can identify a caller.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerCertificate {
    /// Common name of the subject.
    pub common_name: Option<String>,
    /// DNS names among the alternative names.
    pub dns_names: Vec<String>,
    /// URIs among the alternative names (SPIFFE ids, for example).
    pub uris: Vec<String>,
    /// SHA-256 of the whole certificate.
    pub fingerprint: [u8; 32],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_recalls_exactly_what_was_proven() {
        let connection = Connection::new(([127, 0, 0, 1], 1).into(), 0);
        let known = Known { org: OrgId(1), caller: CallerId(2), principal: Principal([3; 16]) };
        connection.remember(b"a.internal", b"Bearer canary", 7, known);
        assert_eq!(connection.recall(b"a.internal", b"Bearer canary", 7), Some(known));
        assert_eq!(connection.recall(b"b.internal", b"Bearer canary", 7), None);
        assert_eq!(connection.recall(b"a.internal", b"Bearer canarz", 7), None);
        assert_eq!(connection.recall(b"a.internal", b"Bearer canary", 8), None, "reloaded");
        assert!(!format!("{connection:?}").contains("canary"));
        connection.forget();
        assert_eq!(connection.recall(b"a.internal", b"Bearer canary", 7), None);
    }
}
