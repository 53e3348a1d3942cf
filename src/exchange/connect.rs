//! How a connection is made: name, TCP, egress proxy, TLS.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;
use tokio::io::DuplexStream;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::failure::{Cause, Failure};
use super::io::{Io, Wire};
use super::proxy::{Proxy, TunnelError};
use super::tls;
use crate::clock::Clock;

/// Idle time after which the kernel asks whether the other side is still there; firewalls forget after minutes.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// With or without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS: a simulator, or a proxy beside us that makes TLS.
    Http,
    /// With TLS.
    Https,
}

/// Where an org answers.
#[derive(Debug, Clone)]
pub struct Origin {
    scheme: Scheme,
    host: Box<str>,
    port: u16,
    authority: HeaderValue,
    uri_authority: http::uri::Authority,
    /// Whom the certificate must be for; `None` without TLS.
    tls_name: Option<ServerName<'static>>,
}

/// Why a URL is no origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OriginError {
    /// Not an absolute URL.
    #[error("not an absolute URL; write https://HOST")]
    NotAUrl,
    /// Neither `http` nor `https`.
    #[error("the scheme must be https or http")]
    Scheme,
    /// The host is neither a name nor an address.
    #[error("the host is neither a name nor an address")]
    Host,
    /// It has a path, a query, or credentials.
    #[error("only scheme, host and port may be given")]
    Extra,
}

impl Origin {
    /// Reads `https://HOST[:PORT]`.
    pub fn parse(url: &str) -> Result<Self, OriginError> {
        let uri: http::Uri = url.parse().map_err(|_| OriginError::NotAUrl)?;
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            Some(_) => return Err(OriginError::Scheme),
            None => return Err(OriginError::NotAUrl),
        };
        let uri_authority = uri.authority().ok_or(OriginError::NotAUrl)?.clone();
        if uri_authority.as_str().contains('@') || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(OriginError::Extra);
        }
        let host = uri_authority.host().trim_start_matches('[').trim_end_matches(']');
        let tls_name = match scheme {
            Scheme::Http => None,
            Scheme::Https => Some(ServerName::try_from(host.to_owned()).map_err(|_| OriginError::Host)?),
        };
        let port = uri_authority.port_u16().unwrap_or(match scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        });
        let authority = HeaderValue::from_str(uri_authority.as_str()).map_err(|_| OriginError::Host)?;
        Ok(Self { scheme, host: host.into(), port, authority, uri_authority, tls_name })
    }

    /// With or without TLS.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The value of `Host`, ready to be sent.
    pub fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// The authority of an HTTP/2 request.
    pub(super) fn uri_authority(&self) -> &http::uri::Authority {
        &self.uri_authority
    }
}

/// Which protocol a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, agreed on by ALPN.
    Http2,
}

/// Opens a pipe to a server inside this process.
pub type MemoryDial = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = io::Result<DuplexStream>> + Send>> + Send + Sync>;

/// Makes connections. Cloning is a few reference counts.
#[derive(Clone)]
pub struct Connector {
    dial: Dial,
    proxy: Option<Arc<Proxy>>,
    tls: Option<Arc<ClientConfig>>,
}

#[derive(Clone)]
enum Dial {
    Tcp,
    Memory(MemoryDial),
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dial = match self.dial {
            Dial::Tcp => "tcp",
            Dial::Memory(_) => "memory",
        };
        f.debug_struct("Connector").field("dial", &dial).field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

impl Connector {
    /// Connects by TCP.
    pub fn tcp() -> Self {
        Self { dial: Dial::Tcp, proxy: None, tls: None }
    }

    /// Connects to a server inside this process: the seam for tests and simulations.
    pub fn memory(dial: MemoryDial) -> Self {
        Self { dial: Dial::Memory(dial), proxy: None, tls: None }
    }

    /// With TLS for `https` origins; without this they cannot be reached.
    #[must_use]
    pub fn with_tls(mut self, tls: Arc<ClientConfig>) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Through an egress proxy.
    #[must_use]
    pub fn with_proxy(mut self, proxy: Option<Proxy>) -> Self {
        self.proxy = proxy.map(Arc::new);
        self
    }

    /// Connects to `origin` within `limit`.
    pub(super) async fn connect(
        &self,
        clock: Clock,
        origin: &Origin,
        limit: Duration,
    ) -> Result<(Io, Protocol), Failure> {
        let by = clock.now() + limit;
        match timeout(limit, self.connect_by(clock, origin, by)).await {
            Ok(result) => result,
            Err(_) => Err(Failure::unsent(
                Cause::ConnectTimeout,
                format!(
                    "Could not connect to {}{} within {} ms; check that the gateway's network reaches it.",
                    origin.host,
                    self.via(),
                    limit.as_millis()
                ),
            )),
        }
    }

    async fn connect_by(&self, clock: Clock, origin: &Origin, by: Instant) -> Result<(Io, Protocol), Failure> {
        let wire = match (&self.dial, &self.proxy) {
            (Dial::Memory(dial), proxy) => {
                let wire = Wire::Memory(dial().await.map_err(|error| unreachable(origin, &error))?);
                match proxy {
                    Some(proxy) => tunnel(wire, proxy, origin).await?,
                    None => wire,
                }
            }
            (Dial::Tcp, None) => {
                let addresses = resolve(&origin.host, origin.port).await.map_err(|error| no_address(origin, &error))?;
                let tcp = open(clock, addresses, by).await.map_err(|error| unreachable(origin, &error))?;
                Wire::Tcp(tcp)
            }
            (Dial::Tcp, Some(proxy)) => {
                let addresses =
                    resolve(proxy.host(), proxy.port()).await.map_err(|error| proxy_broken(origin, proxy, &error))?;
                let tcp = open(clock, addresses, by).await.map_err(|error| proxy_broken(origin, proxy, &error))?;
                tunnel(Wire::Tcp(tcp), proxy, origin).await?
            }
        };
        match &origin.tls_name {
            None => Ok((Io::Plain(wire), Protocol::Http1)),
            Some(name) => self.secure(wire, origin, name.clone()).await,
        }
    }

    async fn secure(&self, wire: Wire, origin: &Origin, name: ServerName<'static>) -> Result<(Io, Protocol), Failure> {
        let Some(config) = &self.tls else {
            return Err(Failure::unsent(
                Cause::Tls,
                format!("TLS is not set up, so {} cannot be reached.", origin.host),
            ));
        };
        let stream = TlsConnector::from(Arc::clone(config)).connect(name, wire).await.map_err(|error| {
            Failure::unsent(
                Cause::Tls,
                format!("No TLS connection to {}{}: {}.", origin.host, self.via(), tls::reason(&error)),
            )
        })?;
        let protocol = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Protocol::Http2,
            _ => Protocol::Http1,
        };
        Ok((Io::Tls(Box::new(stream)), protocol))
    }

    /// How a sentence goes on if a proxy is in the way.
    fn via(&self) -> String {
        self.proxy.as_ref().map(|proxy| format!(" through the egress proxy {proxy}")).unwrap_or_default()
    }
}

fn no_address(origin: &Origin, error: &io::Error) -> Failure {
    Failure::unsent(
        Cause::Dns,
        format!(
            "The name {} has no address ({}); check the org's URL and the gateway's DNS.",
            origin.host,
            plain(error)
        ),
    )
}

fn unreachable(origin: &Origin, error: &io::Error) -> Failure {
    Failure::unsent(Cause::Connect, format!("Could not connect to {}:{} ({}).", origin.host, origin.port, plain(error)))
}

fn proxy_broken(origin: &Origin, proxy: &Proxy, error: &io::Error) -> Failure {
    Failure::unsent(
        Cause::Proxy,
        format!("The egress proxy {proxy} could not be used to reach {} ({}).", origin.host, plain(error)),
    )
}

/// The system's words for an error, which hold no data of ours.
fn plain(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.kind().to_string(), |_| error.to_string())
}

async fn tunnel(mut wire: Wire, proxy: &Proxy, origin: &Origin) -> Result<Wire, Failure> {
    match proxy.tunnel(&mut wire, &bracketed(&origin.host), origin.port).await {
        Ok(()) => Ok(wire),
        Err(TunnelError::Broken(error)) => Err(proxy_broken(origin, proxy, &error)),
        Err(TunnelError::Refused(status)) => {
            let hint = if status == 407 { "its credentials" } else { "its rules" };
            Err(Failure::unsent(
                Cause::Proxy,
                format!(
                    "The egress proxy {proxy} refused a tunnel to {}:{} with status {status}; check {hint}.",
                    origin.host, origin.port
                ),
            ))
        }
        Err(TunnelError::Garbage) => Err(Failure::unsent(
            Cause::Proxy,
            format!("What answers at the egress proxy's address {proxy} is no HTTP proxy."),
        )),
    }
}

/// An IPv6 address needs brackets before a port.
fn bracketed(host: &str) -> std::borrow::Cow<'_, str> {
    if host.contains(':') { format!("[{host}]").into() } else { host.into() }
}

async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
    if addresses.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(addresses) }
}

/// Tries the addresses in order, each with its share of the time left, so that one that is silent does not use it up.
async fn open(clock: Clock, addresses: Vec<SocketAddr>, by: Instant) -> io::Result<TcpStream> {
    let mut left = addresses.len() as u32;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        let share = by.saturating_duration_since(clock.now()) / left.max(1);
        left = left.saturating_sub(1);
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port_only() {
        let origin = Origin::parse("https://acme.my.salesforce.com").expect("valid");
        assert_eq!((origin.host(), origin.port(), origin.scheme()), ("acme.my.salesforce.com", 443, Scheme::Https));
        assert_eq!(origin.authority(), "acme.my.salesforce.com");
        let origin = Origin::parse("http://[::1]:8080/").expect("valid");
        assert_eq!((origin.host(), origin.port()), ("::1", 8_080));
        assert_eq!(origin.authority(), "[::1]:8080");
        for (url, error) in [
            ("acme", OriginError::NotAUrl),
            ("ftp://acme", OriginError::Scheme),
            ("https://acme/services", OriginError::Extra),
            ("https://user@acme", OriginError::Extra),
            ("https://-/", OriginError::Host),
            ("https://acme/?x", OriginError::Extra),
        ] {
            assert_eq!(Origin::parse(url).unwrap_err(), error, "{url}");
        }
    }
}
