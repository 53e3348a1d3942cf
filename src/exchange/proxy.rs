//! The egress proxy: a tunnel through it by CONNECT.

use std::fmt;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroizing;

use super::io::Wire;

/// Largest head of a proxy's answer.
const HEAD_BYTES: usize = 8 * 1_024;

/// An egress proxy that makes tunnels by CONNECT.
#[derive(Clone)]
pub struct Proxy {
    host: Box<str>,
    port: u16,
    /// `Basic ...`, ready to be sent.
    authorization: Option<Zeroizing<String>>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Why the proxy made no tunnel.
#[derive(Debug)]
pub(super) enum TunnelError {
    /// It answered with this status.
    Refused(u16),
    /// It answered with something else than HTTP, or with too much of it.
    Garbage,
    /// The connection to it broke.
    Broken(io::Error),
}

impl Proxy {
    /// The proxy at `host`:`port`; `credentials` are `user:password`, as they are.
    pub fn new(host: &str, port: u16, credentials: Option<&str>) -> Self {
        let authorization =
            credentials.map(|credentials| Zeroizing::new(format!("Basic {}", STANDARD.encode(credentials))));
        Self { host: host.into(), port, authorization }
    }

    /// The proxy's host.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The proxy's port.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Asks for a tunnel to `host`:`port` on a fresh connection to the proxy.
    pub(super) async fn tunnel(&self, wire: &mut Wire, host: &str, port: u16) -> Result<(), TunnelError> {
        let mut head = Zeroizing::new(format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n"));
        if let Some(authorization) = &self.authorization {
            head.push_str("Proxy-Authorization: ");
            head.push_str(authorization);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        wire.write_all(head.as_bytes()).await.map_err(TunnelError::Broken)?;
        wire.flush().await.map_err(TunnelError::Broken)?;
        read_answer(wire).await
    }
}

/// Reads the head of the proxy's answer. Whoever is behind the tunnel speaks only after us, so more than the head
/// means that this is no tunnel.
async fn read_answer(wire: &mut Wire) -> Result<(), TunnelError> {
    let mut head = Vec::with_capacity(512);
    loop {
        let read = wire.read_buf(&mut head).await.map_err(TunnelError::Broken)?;
        let status = status(&head);
        match memchr::memmem::find(&head, b"\r\n\r\n") {
            Some(end) => {
                return match status {
                    Some(200..=299) if end + 4 == head.len() => Ok(()),
                    Some(200..=299) | None => Err(TunnelError::Garbage),
                    Some(status) => Err(TunnelError::Refused(status)),
                };
            }
            None if read == 0 && head.is_empty() => {
                return Err(TunnelError::Broken(io::ErrorKind::UnexpectedEof.into()));
            }
            None if read == 0 || head.len() >= HEAD_BYTES => {
                return Err(status.map_or(TunnelError::Garbage, TunnelError::Refused));
            }
            None => {}
        }
    }
}

/// The status in `HTTP/1.x NNN`.
fn status(head: &[u8]) -> Option<u16> {
    let code = head.strip_prefix(b"HTTP/1.")?.get(1..)?.strip_prefix(b" ")?.get(..3)?;
    let code = std::str::from_utf8(code).ok()?.parse().ok()?;
    (100..=599).contains(&code).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_password_is_sent_and_never_shown() {
        let proxy = Proxy::new("egress.acme.internal", 8080, Some("svc:p@ss"));
        assert_eq!(proxy.to_string(), "egress.acme.internal:8080");
        assert_eq!(proxy.authorization.as_deref().map(String::as_str), Some("Basic c3ZjOnBAc3M="));
        assert!(!format!("{proxy:?}").contains("ss@") && !format!("{proxy:?}").contains("Basic"));
    }

    /// What [`read_answer`] makes of `answer`, the proxy closing after it.
    async fn answer(answer: &[u8]) -> Result<(), TunnelError> {
        let (mut theirs, ours) = tokio::io::duplex(64 * 1_024);
        theirs.write_all(answer).await.expect("room");
        drop(theirs);
        read_answer(&mut Wire::Memory(ours)).await
    }

    #[tokio::test]
    async fn only_a_clean_success_is_a_tunnel() {
        assert!(answer(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n").await.is_ok());
        assert!(matches!(answer(b"HTTP/1.1 407 No\r\n\r\n").await, Err(TunnelError::Refused(407))));
        assert!(matches!(answer(b"HTTP/1.1 403 No\r\nContent-Length: 9\r\n").await, Err(TunnelError::Refused(403))));
        assert!(matches!(answer(b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200").await, Err(TunnelError::Garbage)));
        assert!(matches!(answer(b"SSH-2.0-x\r\n\r\n").await, Err(TunnelError::Garbage)));
        assert!(matches!(answer(b"").await, Err(TunnelError::Broken(_))));
        assert!(matches!(answer(&b"x".repeat(20_000)).await, Err(TunnelError::Garbage)));
    }

    proptest! {
        #[test]
        fn no_bytes_of_a_proxy_make_the_parser_panic(head in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = status(&head);
        }
    }
}
