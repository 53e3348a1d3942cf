//! Who the caller really is, if a proxy we trust stands between.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The client behind trusted proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// Its address, as far as only trusted proxies vouch for it.
    pub address: IpAddr,
    /// Whether it speaks to the outermost of them over TLS.
    pub secure: bool,
}

/// The client of a request that came from `peer` (over TLS if `secure`). `X-Forwarded-For` is read from its right end, and only
/// as far as each hop is a proxy in `trusted`: what stands further left, the client may have written itself.
pub fn client(peer: SocketAddr, secure: bool, headers: &HeaderMap, trusted: &[IpNet]) -> Client {
    let mut address = peer.ip().to_canonical();
    if trusted.is_empty() || !is_trusted(address, trusted) {
        return Client { address, secure };
    }
    let values = headers.get_all(FORWARDED_FOR).iter().collect::<smallvec::SmallVec<[_; 2]>>();
    let hops = values.iter().rev().flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
    for hop in hops {
        let Some(hop) = address_of(hop) else { break };
        address = hop;
        if !is_trusted(address, trusted) {
            break;
        }
    }
    // The last value is the one our neighbour wrote.
    let scheme = headers
        .get_all(FORWARDED_PROTO)
        .iter()
        .next_back()
        .and_then(|value| value.as_bytes().rsplit(|byte| *byte == b',').next());
    let secure = scheme.map_or(secure, |scheme| scheme.trim_ascii().eq_ignore_ascii_case(b"https"));
    Client { address, secure }
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// An address, with or without a port.
fn address_of(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip())).ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn resolve(peer: &str, forwarded: &[&'static str], proto: Option<&'static str>) -> (String, bool) {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"].iter().map(|net| net.parse().expect("net")).collect();
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, HeaderValue::from_static(value));
        }
        if let Some(proto) = proto {
            headers.insert(FORWARDED_PROTO, HeaderValue::from_static(proto));
        }
        let client = client(SocketAddr::new(peer.parse().expect("ip"), 1), false, &headers, &trusted);
        (client.address.to_string(), client.secure)
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_claims() {
        assert_eq!(resolve("192.0.2.1", &["203.0.113.9"], Some("https")), ("192.0.2.1".into(), false));
    }

    #[test]
    fn the_client_is_the_right_most_address_no_trusted_proxy_has() {
        for (forwarded, address) in [
            (&["203.0.113.9"][..], "203.0.113.9"),
            (&["127.0.0.1, 203.0.113.9"], "203.0.113.9"),
            (&["127.0.0.1, 203.0.113.9, 10.1.1.1"], "203.0.113.9"),
            (&["127.0.0.1", "203.0.113.9,10.1.1.1"], "203.0.113.9"),
            (&["203.0.113.9:1234"], "203.0.113.9"),
            (&["[2001:db8::1]:1234"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["::ffff:203.0.113.9"], "203.0.113.9"),
            (&["10.2.2.2, 10.1.1.1"], "10.2.2.2"),
            (&["203.0.113.9, nonsense, 10.1.1.1"], "10.1.1.1"),
            (&["nonsense"], "10.0.0.1"),
            (&[""], "10.0.0.1"),
            (&[], "10.0.0.1"),
        ] {
            assert_eq!(resolve("10.0.0.1", forwarded, None).0, address, "{forwarded:?}");
        }
    }

    #[test]
    fn an_ipv4_peer_on_a_dual_stack_socket_is_recognised() {
        assert_eq!(resolve("::ffff:10.0.0.1", &["203.0.113.9"], None).0, "203.0.113.9");
    }

    #[test]
    fn the_scheme_is_what_the_neighbouring_proxy_says() {
        assert!(resolve("10.0.0.1", &[], Some("https")).1);
        assert!(!resolve("10.0.0.1", &[], Some("https, http")).1);
        assert!(!resolve("10.0.0.1", &[], None).1);
    }
}
