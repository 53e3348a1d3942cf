//! Who may read the admin listener: key, Host and Origin. Pure; decides from the head of a request alone.
//!
//! Host is checked against DNS rebinding: a page of a foreign site that resolves to this address still names its own host.
//! Origin is checked against scripts of foreign sites. The key is compared as a hash and in constant time.

use std::net::IpAddr;

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, StatusCode, request};

/// Who may read.
#[derive(Clone, Default)]
pub struct Access {
    /// SHA-256 of the admin key.
    pub key_sha256: Option<[u8; 32]>,
    /// Host names that lead here, besides IP addresses and `localhost`; compared without case and port.
    pub hosts: Vec<String>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("key", &self.key_sha256.is_some()).field("hosts", &self.hosts).finish()
    }
}

/// From where a listener can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// From this machine only.
    Loopback,
    /// From others too.
    Network,
}

impl Reach {
    /// How far a listener on `address` reaches.
    pub fn of(address: IpAddr) -> Self {
        if address.to_canonical().is_loopback() { Self::Loopback } else { Self::Network }
    }
}

/// What a page needs before it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: for probes.
    Nothing,
    /// The key, if the listener reaches further than this machine.
    KeyFromAfar,
    /// The key: for what changes something.
    Key,
}

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// No Host, several, one that cannot be read, or one that contradicts the request line.
    BadHost,
    /// A Host that does not lead here.
    ForeignHost,
    /// A script of another site asks.
    ForeignOrigin,
    /// The key is missing or wrong.
    Key,
    /// A key is needed and none is configured.
    NoKeyConfigured,
}

impl Denied {
    /// Status of the answer.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadHost => StatusCode::BAD_REQUEST,
            Self::Key => StatusCode::UNAUTHORIZED,
            Self::ForeignHost | Self::ForeignOrigin | Self::NoKeyConfigured => StatusCode::FORBIDDEN,
        }
    }

    /// The word for it in the answer.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadHost => "bad_host",
            Self::ForeignHost => "foreign_host",
            Self::ForeignOrigin => "foreign_origin",
            Self::Key => "key_required",
            Self::NoKeyConfigured => "no_key_configured",
        }
    }

    /// What to do about it.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::BadHost => "Send exactly one valid Host header.",
            Self::ForeignHost => "Use the address or localhost, or add the name to admin.hosts.",
            Self::ForeignOrigin => "Other sites may not read this listener.",
            Self::Key => "Send the admin key as 'Authorization: Bearer KEY'.",
            Self::NoKeyConfigured => {
                "Set admin.key_sha256. Without a key this listener can only be read, and only if it listens on 127.0.0.1."
            }
        }
    }
}

impl Access {
    /// Whether a request may see a page that `needs` something, on a listener of this `reach`.
    pub fn check(&self, head: &request::Parts, needs: Needs, reach: Reach) -> Result<(), Denied> {
        let headers = &head.headers;
        let host = host_of(headers)?;
        // An address in the request line counts more than Host (RFC 9112, 3.2.2): they must say the same.
        if head.uri.authority().is_some_and(|authority| *authority != host) {
            return Err(Denied::BadHost);
        }
        if !self.leads_here(&host) {
            return Err(Denied::ForeignHost);
        }
        if headers.get_all(ORIGIN).iter().any(|origin| !is_same_origin(origin.as_bytes(), &host)) {
            return Err(Denied::ForeignOrigin);
        }
        match (needs, reach) {
            (Needs::Nothing, _) | (Needs::KeyFromAfar, Reach::Loopback) => Ok(()),
            (Needs::KeyFromAfar, Reach::Network) | (Needs::Key, _) => self.check_key(headers),
        }
    }

    fn leads_here(&self, host: &Authority) -> bool {
        let name = host.host();
        let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        literal.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
    }

    fn check_key(&self, headers: &HeaderMap) -> Result<(), Denied> {
        let expected = self.key_sha256.as_ref().ok_or(Denied::NoKeyConfigured)?;
        let mut sent = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (sent.next(), sent.next()) else { return Err(Denied::Key) };
        let (scheme, key) = value.as_bytes().split_at_checked("Bearer ".len()).ok_or(Denied::Key)?;
        if !scheme.eq_ignore_ascii_case(b"Bearer ") {
            return Err(Denied::Key);
        }
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.trim_ascii());
        aws_lc_rs::constant_time::verify_slices_are_equal(digest.as_ref(), expected).map_err(|_| Denied::Key)
    }
}

fn host_of(headers: &HeaderMap) -> Result<Authority, Denied> {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(Denied::BadHost) };
    let host = Authority::try_from(host.as_bytes()).map_err(|_| Denied::BadHost)?;
    if host.as_str().contains('@') || host.host().is_empty() { Err(Denied::BadHost) } else { Ok(host) }
}

/// Either scheme, because TLS may end before us.
fn is_same_origin(origin: &[u8], host: &Authority) -> bool {
    let authority = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host.as_str().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "wka_0123456789";

    fn access() -> Access {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, KEY.as_bytes());
        Access { key_sha256: digest.as_ref().try_into().ok(), hosts: vec!["Admin.Example".to_owned()] }
    }

    fn check(access: &Access, reach: Reach, needs: Needs, headers: &[(&'static str, &str)]) -> Result<(), Denied> {
        let mut request = http::Request::new(());
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        access.check(&request.into_parts().0, needs, reach)
    }

    #[test]
    fn only_hosts_that_lead_here_are_answered() {
        for (host, expected) in [
            ("127.0.0.1:9090", Ok(())),
            ("10.1.2.3", Ok(())),
            ("[::1]:9090", Ok(())),
            ("LOCALHOST:1", Ok(())),
            ("admin.example:9090", Ok(())),
            ("evil.example", Err(Denied::ForeignHost)),
            ("127.0.0.1.evil.example", Err(Denied::ForeignHost)),
            ("localhost.evil.example", Err(Denied::ForeignHost)),
            ("localhost@evil.example", Err(Denied::BadHost)),
            ("evil.example@localhost", Err(Denied::BadHost)),
            ("", Err(Denied::BadHost)),
            ("a b", Err(Denied::BadHost)),
        ] {
            assert_eq!(check(&access(), Reach::Loopback, Needs::KeyFromAfar, &[("host", host)]), expected, "{host}");
        }
        assert_eq!(check(&access(), Reach::Loopback, Needs::Nothing, &[]), Err(Denied::BadHost));
        let two = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(check(&access(), Reach::Loopback, Needs::Nothing, &two), Err(Denied::BadHost));
    }

    #[test]
    fn scripts_of_other_sites_are_not_answered() {
        for (origin, expected) in [
            ("http://localhost:9090", Ok(())),
            ("https://LOCALHOST:9090", Ok(())),
            ("http://localhost:9091", Err(Denied::ForeignOrigin)),
            ("http://evil.example", Err(Denied::ForeignOrigin)),
            ("null", Err(Denied::ForeignOrigin)),
            ("", Err(Denied::ForeignOrigin)),
            ("localhost:9090", Err(Denied::ForeignOrigin)),
        ] {
            let headers = [("host", "localhost:9090"), ("origin", origin)];
            for needs in [Needs::Nothing, Needs::KeyFromAfar] {
                assert_eq!(check(&access(), Reach::Loopback, needs, &headers), expected, "{origin}");
            }
        }
    }

    #[test]
    fn from_afar_the_key_is_needed() {
        for (authorization, expected) in [
            (format!("Bearer {KEY}"), Ok(())),
            (format!("bearer  {KEY}"), Ok(())),
            (format!("Bearer {KEY}x"), Err(Denied::Key)),
            (format!("Basic {KEY}"), Err(Denied::Key)),
            (KEY.to_owned(), Err(Denied::Key)),
            ("Bearer ".to_owned(), Err(Denied::Key)),
            ("B".to_owned(), Err(Denied::Key)),
        ] {
            let headers = [("host", "10.0.0.1"), ("authorization", authorization.as_str())];
            assert_eq!(check(&access(), Reach::Network, Needs::KeyFromAfar, &headers), expected, "{authorization}");
        }
        let host = [("host", "10.0.0.1")];
        assert_eq!(check(&access(), Reach::Network, Needs::KeyFromAfar, &host), Err(Denied::Key));
        assert_eq!(check(&access(), Reach::Network, Needs::Nothing, &host), Ok(()));
        let keyless = Access::default();
        assert_eq!(check(&keyless, Reach::Network, Needs::KeyFromAfar, &host), Err(Denied::NoKeyConfigured));
        let right = format!("Bearer {KEY}");
        let two = [("host", "10.0.0.1"), ("authorization", right.as_str()), ("authorization", right.as_str())];
        assert_eq!(check(&access(), Reach::Network, Needs::KeyFromAfar, &two), Err(Denied::Key));
    }

    #[test]
    fn loopback_is_only_loopback() {
        for (address, reach) in [
            ("127.0.0.1", Reach::Loopback),
            ("::1", Reach::Loopback),
            ("::ffff:127.0.0.1", Reach::Loopback),
            ("0.0.0.0", Reach::Network),
            ("::", Reach::Network),
            ("10.0.0.1", Reach::Network),
        ] {
            assert_eq!(Reach::of(address.parse().unwrap()), reach, "{address}");
        }
    }

    #[test]
    fn a_key_is_never_shown() {
        assert!(!format!("{:?}", access()).contains("[1"), "{:?}", access());
    }
}
