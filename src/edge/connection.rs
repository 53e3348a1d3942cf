//! What is known about one accepted connection, and a request that arrived on it.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::edge::inbound::Inbound;
use crate::edge::remembered::Remembered;

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
    /// What its requests proved about their sender.
    remembered: Mutex<Remembered>,
    /// Whether HTTP/2 was agreed on by ALPN.
    http2: bool,
}

impl Connection {
    /// A connection from `peer`, accepted by the listener at `listener`.
    pub fn new(peer: SocketAddr, listener: usize) -> Self {
        Self { peer, listener, secure: false, certificate: None, remembered: Mutex::default(), http2: false }
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
    pub fn speaking_http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    /// Whether HTTP/2 was agreed on by ALPN; a plain connection may speak it all the same.
    pub fn http2(&self) -> bool {
        self.http2
    }

    /// What its requests proved so far. Never held across an await.
    pub fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock()
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
