//! Addresses, networks, hosts and URLs.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::uri::{Authority, Scheme};
use ipnet::IpNet;
use smol_str::SmolStr;

use super::Written;
use crate::config::model::Origin;
use crate::config::problem::Fault;

impl Written for SocketAddr {
    const NAME: &'static str = "SocketAddress";
    const DESCRIPTION: &'static str = "IP address and port: 0.0.0.0:8080 or [::1]:8080.";
    const PATTERN: &'static str = "^(\\[[0-9A-Fa-f:.]+\\]|[0-9.]+):[0-9]+$";

    fn read(text: &str) -> Result<Self, Fault> {
        text.parse().map_err(|_| {
            Fault::new(format!("{text:?} is not an IP address with a port"))
                .hint("write it like 0.0.0.0:8080 or [::]:8080; host names are not looked up here")
        })
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Written for IpNet {
    const NAME: &'static str = "Network";
    const DESCRIPTION: &'static str = "A network or a single address: 10.0.0.0/8, fd00::/8 or 192.0.2.7.";
    const PATTERN: &'static str = "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$";

    fn read(text: &str) -> Result<Self, Fault> {
        let network = match text.parse::<Self>() {
            Ok(network) => network,
            Err(_) => text.parse::<IpAddr>().map(Self::from).map_err(|_| {
                Fault::new(format!("{text:?} is not a network")).hint("write it like 10.0.0.0/8 or 192.0.2.7")
            })?,
        };
        if network.trunc() == network {
            Ok(network)
        } else {
            Err(Fault::new(format!("{text} has bits set beyond its prefix"))
                .hint(format!("did you mean {}?", network.trunc())))
        }
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

/// A host name or address without port, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(pub SmolStr);

impl Written for HostName {
    const NAME: &'static str = "Host";
    const DESCRIPTION: &'static str = "A host name or address, without scheme and port.";
    const PATTERN: &'static str = "^(\\[[0-9A-Fa-f:.]+\\]|[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)$";

    fn read(text: &str) -> Result<Self, Fault> {
        let wrong = |reason: String| Fault::new(reason).hint("write only the host, such as salesforce.acme.internal");
        if text.contains("://") || text.contains('/') {
            return Err(wrong("a host has no scheme and no path".to_owned()));
        }
        if is_host(text) {
            return Ok(Self(SmolStr::new(text.to_ascii_lowercase())));
        }
        if text.parse::<Authority>().is_ok_and(|authority| authority.port().is_some() && is_host(authority.host())) {
            return Err(wrong(format!("{text:?} has a port, which is not compared")));
        }
        Err(wrong(format!("{text:?} is not a host name")))
    }

    fn write(&self) -> String {
        self.0.to_string()
    }
}

/// A DNS name of at most 253 characters, an IPv4 address, or an IPv6 address in brackets.
fn is_host(text: &str) -> bool {
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().is_ok();
    }
    text.len() <= 253
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

impl Origin {
    /// Where users of production orgs log in.
    pub(in crate::config) fn salesforce_login() -> Self {
        Self::new(true, Authority::from_static("login.salesforce.com"), 443)
    }
}

impl Written for Origin {
    const NAME: &'static str = "Origin";
    const DESCRIPTION: &'static str = "Scheme and host, with a port if it is not the scheme's own, without a path.";
    const PATTERN: &'static str = "^https?://[^/?#@]+/?$";

    fn read(text: &str) -> Result<Self, Fault> {
        let hint = "write it like https://acme.my.salesforce.com";
        let (https, authority) = absolute(text, hint)?;
        let (uri_authority, path) = authority;
        if !matches!(path.as_str(), "" | "/") {
            return Err(Fault::new("only scheme and host belong here, no path").hint(hint));
        }
        let own = if https { 443 } else { 80 };
        let port = uri_authority.port_u16().unwrap_or(own);
        let host = uri_authority.host().to_ascii_lowercase();
        let shown = if port == own { host } else { format!("{host}:{port}") };
        let authority = shown.parse().map_err(|_| Fault::new("not a URL").hint(hint))?;
        Ok(Self::new(https, authority, port))
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

/// Splits an absolute http or https URL. Its text is never repeated in a fault: it may hold a password.
fn absolute(text: &str, hint: &str) -> Result<(bool, (Authority, String)), Fault> {
    let uri: http::Uri = text.parse().map_err(|_| Fault::new("not a URL").hint(hint))?;
    let https = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => true,
        Some(scheme) if *scheme == Scheme::HTTP => false,
        Some(_) => return Err(Fault::new("only http and https are spoken here").hint(hint)),
        None => return Err(Fault::new("not an absolute URL").hint(hint)),
    };
    let path = uri.path_and_query().map(|path| path.as_str().to_owned()).unwrap_or_default();
    let authority = uri.authority().cloned().ok_or_else(|| Fault::new("not a URL with a host").hint(hint))?;
    if authority.as_str().contains('@') {
        return Err(Fault::new("a URL in a configuration holds no user name or password")
            .hint("credentials are given as {env: NAME} or {file: PATH} under a key of their own"));
    }
    if !is_host(authority.host()) {
        return Err(Fault::new("not a URL with a host").hint(hint));
    }
    if authority.as_str().len() > authority.host().len() && authority.port_u16().is_none_or(|port| port == 0) {
        return Err(Fault::new("not a URL with a port from 1 to 65535").hint(hint));
    }
    Ok((https, (authority, path)))
}

/// The address of an egress proxy: `http://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyUrl {
    /// Host without brackets.
    pub host: SmolStr,
    /// Port.
    pub port: u16,
}

impl Written for ProxyUrl {
    const NAME: &'static str = "ProxyUrl";
    const DESCRIPTION: &'static str = "An HTTP proxy, with its port: http://egress:3128.";
    const PATTERN: &'static str = "^http://[^/?#@]+:[0-9]+/?$";

    fn read(text: &str) -> Result<Self, Fault> {
        let hint = "write it like http://egress:3128";
        let (https, (authority, path)) = absolute(text, hint)?;
        if https || !matches!(path.as_str(), "" | "/") {
            return Err(Fault::new("only http proxies without a path are known").hint(hint));
        }
        let port = authority.port_u16().ok_or_else(|| Fault::new("the proxy's port is missing").hint(hint))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        Ok(Self { host: SmolStr::new(host), port })
    }

    fn write(&self) -> String {
        if self.host.contains(':') {
            format!("http://[{}]:{}", self.host, self.port)
        } else {
            format!("http://{}:{}", self.host, self.port)
        }
    }
}

/// A URL that is fetched: `https`, or `http` on loopback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebUrl(pub http::Uri);

impl Written for WebUrl {
    const NAME: &'static str = "Url";
    const DESCRIPTION: &'static str = "An https URL; http only on loopback.";
    const PATTERN: &'static str = "^https?://[^/?#@]+(/[^#]*)?$";

    fn read(text: &str) -> Result<Self, Fault> {
        let hint = "write it like https://login.acme.internal/keys";
        let (https, (authority, _)) = absolute(text, hint)?;
        if !https && !Origin::new(false, authority, 80).is_loopback() {
            return Err(Fault::new("keys fetched without TLS prove nothing").hint("use https"));
        }
        text.parse().map(Self).map_err(|_| Fault::new("not a URL").hint(hint))
    }

    fn write(&self) -> String {
        self.0.to_string()
    }
}

/// Where a collector of traces takes them: `http` or `https`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectorUrl {
    /// The URL.
    pub uri: http::Uri,
    private: bool,
}

impl CollectorUrl {
    /// Whether what is sent there can be read on the way by nobody: by TLS, or because there is no way.
    pub fn is_private(&self) -> bool {
        self.private
    }
}

impl Written for CollectorUrl {
    const NAME: &'static str = "CollectorUrl";
    const DESCRIPTION: &'static str = "An http or https URL with a path: http://collector:4318/v1/traces.";
    const PATTERN: &'static str = "^https?://[^/?#@]+/[^#]*$";

    fn read(text: &str) -> Result<Self, Fault> {
        let hint = "write it like http://collector:4318/v1/traces";
        let (https, (authority, path)) = absolute(text, hint)?;
        if matches!(path.as_str(), "" | "/") {
            return Err(Fault::new("the path is missing").hint(hint));
        }
        let private = https || Origin::new(false, authority, 80).is_loopback();
        let uri = text.parse().map_err(|_| Fault::new("not a URL").hint(hint))?;
        Ok(Self { uri, private })
    }

    fn write(&self) -> String {
        self.uri.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_or_addresses_alone() {
        for right in ["a", "salesforce.acme.internal", "10.0.0.1", "[::1]", "A-b_c.d"] {
            assert_eq!(HostName::read(right).map(|host| host.0), Ok(right.to_ascii_lowercase().into()));
        }
        let long = "a.".repeat(127) + "a";
        for wrong in ["", "-a", "a-", "a..b", "a:80", "https://a", "a/b", "::1", "[::1", "a b", "u@a", long.as_str()] {
            assert!(HostName::read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn origins_lose_the_schemes_own_port_and_case() {
        let read = |text: &str| Origin::read(text).map(|origin| (origin.to_string(), origin.port()));
        assert_eq!(read("https://ACME.my.salesforce.com:443/"), Ok(("https://acme.my.salesforce.com".to_owned(), 443)));
        assert_eq!(read("http://[::1]:8081"), Ok(("http://[::1]:8081".to_owned(), 8081)));
        assert!(Origin::read("http://[::1]:8081").is_ok_and(|origin| origin.is_loopback()));
        for wrong in [
            "",
            "acme",
            "//acme",
            "ftp://acme",
            "https://",
            "https://u:p@acme",
            "https://acme/x",
            "https://acme?x=1",
            "https://acme:0",
            "https://acme:99999",
            "https://acme:",
            "https://a b",
        ] {
            assert!(Origin::read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn networks_have_no_bits_beyond_their_prefix() {
        assert_eq!(IpNet::read("192.0.2.7").map(|net| net.to_string()), Ok("192.0.2.7/32".to_owned()));
        assert_eq!(IpNet::read("10.1.0.0/8").unwrap_err().hint.as_deref(), Some("did you mean 10.0.0.0/8?"));
        assert!(IpNet::read("10.0.0.0/33").is_err());
    }

    #[test]
    fn proxies_have_a_port() {
        let url = ProxyUrl::read("http://[fd00::1]:3128/").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.write().as_str()), ("fd00::1", 3128, "http://[fd00::1]:3128"));
    }

    #[test]
    fn a_collector_has_a_path_and_perhaps_tls() {
        let private = |text| CollectorUrl::read(text).map(|url| (url.write(), url.is_private()));
        for (text, is_private) in
            [("https://c.acme/v1/traces", true), ("http://127.0.0.1:4318/v1/traces", true), ("http://c:4318/x", false)]
        {
            assert_eq!(private(text), Ok((text.to_owned(), is_private)));
        }
        for wrong in
            ["", "collector:4318", "http://collector:4318", "grpc://c:4317/x", "http://u:p@c/x", "http://c:0/x"]
        {
            assert!(private(wrong).is_err(), "{wrong:?}");
        }
    }
}
