//! Which host a request is for, and whether its target has a form a gateway may forward.

use std::net::Ipv6Addr;

use http::header::HOST;
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderValue, Method, Version};

use crate::edge::facts::Sole;
use crate::edge::http1::is_host_byte;
use crate::refusal::{Reason, Refusal};

/// The host names a request can name: for the look-up of the org, never for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// Host without its port, as sent; compare without case. Empty for an HTTP/1.0 request that names none.
    pub host: &'a str,
    /// The port, if one was sent.
    pub port: Option<u16>,
}

/// Turns an absolute-form target into origin-form, after which `head.uri` is only path and query. Refuses targets that no
/// Salesforce API has, and a target and a `Host` that name two hosts.
pub fn normalise(head: &mut Parts) -> Result<(), Refusal> {
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        return Err(Refusal::new(Reason::MethodNotAllowed, "This gateway neither tunnels nor traces."));
    }
    let uri = &head.uri;
    match uri.path() {
        "*" => return Err(malformed("The target `*` means this gateway itself, which has nothing to say about it.")),
        path if !path.starts_with('/') => return Err(malformed("The request target has no path.")),
        _ => {}
    }
    let Some(authority) = uri.authority() else { return Ok(()) };
    if uri.scheme().is_none() {
        return Err(malformed("The request target is an authority instead of a path."));
    }
    if authority.as_str().contains('@') {
        return Err(malformed("The request target contains user information."));
    }
    match head.headers.get(HOST) {
        Some(host) if !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) => {
            return Err(malformed("The request target and the Host header name different hosts."));
        }
        Some(_) => {}
        // HTTP/2 names the host only here; keep it where HTTP/1 has it.
        None => {
            let host = HeaderValue::from_str(authority.as_str())
                .map_err(|_| malformed("The request target names no valid host."))?;
            head.headers.insert(HOST, host);
        }
    }
    let origin = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    head.uri = Uri::from(origin);
    Ok(())
}

/// The host of a request whose target was [normalised](normalise).
pub fn host_of(host: Sole<'_>, version: Version) -> Result<Target<'_>, Refusal> {
    let Some(value) = host.first else {
        return if version == Version::HTTP_10 {
            Ok(Target { host: "", port: None })
        } else {
            Err(malformed("The request names no host."))
        };
    };
    if host.more {
        return Err(malformed("The request has more than one Host header."));
    }
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| no_host())?;
    let (host, port) = split_port(text);
    if host.is_empty() {
        return Err(malformed("The Host header is empty."));
    }
    if !is_host(host) {
        return Err(no_host());
    }
    let port = match port {
        None | Some("") => None,
        // `parse` takes a plus sign, too.
        Some(port) if port.starts_with(|first: char| first.is_ascii_digit()) => {
            Some(port.parse().map_err(|_| malformed("The Host header has no valid port."))?)
        }
        Some(_) => return Err(malformed("The Host header has no valid port.")),
    };
    Ok(Target { host: host.strip_suffix('.').unwrap_or(host), port })
}

/// Host and port of an authority without user information; IPv6 addresses keep their brackets.
fn split_port(text: &str) -> (&str, Option<&str>) {
    // From the right: ports are short.
    for (at, byte) in text.bytes().enumerate().rev() {
        match byte {
            b':' => return (text.get(..at).unwrap_or_default(), text.get(at + 1..)),
            b']' => break,
            _ => {}
        }
    }
    (text, None)
}

/// A name or address.
fn is_host(host: &str) -> bool {
    match host.strip_prefix('[') {
        Some(address) => address.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => host.bytes().all(|byte| is_host_byte(byte) && !matches!(byte, b':' | b'[' | b']')),
    }
}

fn no_host() -> Refusal {
    malformed("The Host header is not a host name.")
}

fn malformed(detail: &'static str) -> Refusal {
    Refusal::new(Reason::MalformedRequest, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::facts::Facts;

    fn host_of(head: &Parts) -> Result<Target<'_>, Refusal> {
        super::host_of(Facts::of(&head.headers).host, head.version)
    }

    fn head(method: &str, uri: &str, host: Option<&str>) -> Parts {
        let mut builder = http::Request::builder().method(method).uri(uri);
        if let Some(host) = host {
            builder = builder.header(HOST, host);
        }
        builder.body(()).expect("request").into_parts().0
    }

    #[test]
    fn an_origin_form_target_stays_as_it_is() {
        let mut head = head("GET", "//services/data/v62.0/query?q=a%2Fb", Some("SF.internal:8080"));
        normalise(&mut head).expect("fine");
        assert_eq!(head.uri, "//services/data/v62.0/query?q=a%2Fb");
        assert_eq!(host_of(&head), Ok(Target { host: "SF.internal", port: Some(8080) }));
    }

    #[test]
    fn an_absolute_form_target_becomes_origin_form_if_it_agrees_with_host() {
        let mut agreeing = head("GET", "http://sf.internal/x?y", Some("SF.internal"));
        normalise(&mut agreeing).expect("fine");
        assert_eq!(agreeing.uri, "/x?y");
        for host in ["other.internal", "sf.internal:81"] {
            let refused = normalise(&mut head("GET", "http://sf.internal/x", Some(host))).expect_err("differs");
            assert_eq!(refused.reason, Reason::MalformedRequest);
        }
    }

    #[test]
    fn the_authority_of_http2_becomes_host() {
        let mut head = head("GET", "https://sf.internal/x", None);
        normalise(&mut head).expect("fine");
        assert_eq!(head.headers[HOST], "sf.internal");
        assert_eq!(host_of(&head).expect("host").host, "sf.internal");
    }

    #[test]
    fn targets_no_salesforce_api_has_are_refused() {
        for (method, uri, reason) in [
            ("CONNECT", "a.internal:443", Reason::MethodNotAllowed),
            ("TRACE", "/x", Reason::MethodNotAllowed),
            ("OPTIONS", "*", Reason::MalformedRequest),
            ("GET", "a.internal:443", Reason::MalformedRequest),
            ("GET", "http://u:p@sf.internal/x", Reason::MalformedRequest),
        ] {
            let refused = normalise(&mut head(method, uri, Some("sf.internal"))).expect_err(uri);
            assert_eq!(refused.reason, reason, "{method} {uri}");
        }
    }

    #[test]
    fn hosts_that_are_none_are_refused() {
        for host in ["", "a b", "user@a", "a:b:c", "a,b", "a\tb", "\u{e4}"] {
            let mut head = head("GET", "/", Some(host));
            let refused = normalise(&mut head).and_then(|()| host_of(&head).map(|_| ()));
            assert!(refused.is_err(), "{host:?}");
        }
        let mut twice = head("GET", "/", Some("a"));
        twice.headers.append(HOST, http::HeaderValue::from_static("a"));
        assert!(host_of(&twice).is_err());
        assert!(host_of(&head("GET", "/", None)).is_err());
    }

    #[test]
    fn hosts_are_split_from_their_ports() {
        for (sent, host, port) in [
            ("a", "a", None),
            ("a.", "a", None),
            ("a:1", "a", Some(1)),
            ("[::1]", "[::1]", None),
            ("[::1]:443", "[::1]", Some(443)),
        ] {
            assert_eq!(host_of(&head("GET", "/", Some(sent))), Ok(Target { host, port }), "{sent}");
        }
    }
}
