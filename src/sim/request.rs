//! A request, read: effective method, clean path, query, family, credentials.

use http::{HeaderMap, Method, header};
use percent_encoding::percent_decode_str;
use smol_str::SmolStr;

/// The head of a request as the simulator understands it.
#[derive(Debug, Clone)]
pub(super) struct Head {
    /// The effective method: `POST ?_HttpMethod=PATCH` is PATCH (facts 0).
    pub(super) method: Method,
    /// The path with repeated slashes made one.
    pub(super) path: String,
    /// Percent-decoded parts of the path, without empty ones.
    pub(super) segments: Vec<String>,
    /// Percent-decoded parameters in order.
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: HeaderMap,
}

/// What part of the API a request is for; the words of the counts.
pub(super) fn family(segments: &[String]) -> &'static str {
    let part = |at: usize| segments.get(at).map(String::as_str);
    match (part(0), part(1)) {
        (Some("services"), Some("data")) => data_family(part(2), part(3), part(4)),
        (Some("services"), Some("async")) => "bulk1",
        (Some("services"), Some("apexrest")) => "apex",
        (Some("services"), Some(name)) if name.eq_ignore_ascii_case("soap") => "soap",
        (Some("services"), Some("oauth2")) | (Some("id" | ".well-known"), _) => "oauth",
        (Some("cometd"), _) => "cometd",
        _ => "other",
    }
}

fn data_family(version: Option<&str>, first: Option<&str>, second: Option<&str>) -> &'static str {
    if version.is_none() {
        return "versions";
    }
    match (first, second) {
        (Some("query" | "queryAll"), _) => "query",
        (Some("search" | "parameterizedSearch"), _) => "search",
        (Some("composite"), Some("batch")) => "batch",
        (Some("composite"), Some("sobjects")) => "collections",
        (Some("composite"), Some("tree")) => "tree",
        (Some("composite"), Some("graph")) => "graph",
        (Some("composite"), _) => "composite",
        (Some("jobs"), _) => "bulk2",
        (Some("graphql"), _) => "graphql",
        (Some("ui-api"), _) => "ui",
        (Some("tooling"), _) => "tooling",
        (Some("connect" | "chatter"), _) => "connect",
        _ => "rest",
    }
}

impl Head {
    /// Reads method, target and headers.
    pub(super) fn read(method: &Method, target: &str, headers: HeaderMap) -> Self {
        let (raw_path, raw_query) = target.split_once('?').unwrap_or((target, ""));
        let mut path = String::with_capacity(raw_path.len());
        for byte in raw_path.chars() {
            if byte != '/' || !path.ends_with('/') {
                path.push(byte);
            }
        }
        let segments = path.split('/').filter(|part| !part.is_empty()).map(|part| decode(part, false)).collect();
        let query: Vec<(String, String)> = raw_query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decode(name, true), decode(value, true))
            })
            .collect();
        let tunnelled = query.iter().find(|(name, _)| name == "_HttpMethod").map(|(_, value)| value.as_str());
        let method = match (method, tunnelled) {
            (&Method::POST, Some(name)) => {
                Method::from_bytes(name.to_ascii_uppercase().as_bytes()).unwrap_or(Method::POST)
            }
            _ => method.clone(),
        };
        Self { method, path, segments, query, headers }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(super) fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The session the head carries: `Bearer`, `OAuth` or `X-SFDC-Session` (facts 5.8).
    pub(super) fn token(&self) -> Option<&str> {
        if let Some(value) = self.headers.get(header::AUTHORIZATION) {
            let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
            let known = scheme.eq_ignore_ascii_case("Bearer") || scheme.eq_ignore_ascii_case("OAuth");
            return known.then(|| token.trim());
        }
        self.header("x-sfdc-session").map(str::trim)
    }

    /// `client` of `Sforce-Call-Options`.
    pub(super) fn client(&self) -> SmolStr {
        let options = self.header("sforce-call-options").unwrap_or_default();
        option(options, "client").map_or_else(|| SmolStr::new_static("none"), SmolStr::from)
    }

    pub(super) fn family(&self) -> &'static str {
        family(&self.segments)
    }

    /// The object named in a path below `/sobjects/`, `/tree/` or `/composite/sobjects/`.
    pub(super) fn object(&self) -> Option<&str> {
        let at = self.segments.iter().position(|part| matches!(part.as_str(), "sobjects" | "tree"))?;
        self.segments.get(at + 1).map(String::as_str)
    }
}

/// One value of a header like `client=x, defaultNamespace=y`.
pub(super) fn option<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split([',', ';']).find_map(|part| {
        let (key, value) = part.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn decode(text: &str, plus_is_blank: bool) -> String {
    if !text.contains(['%', '+']) {
        return text.to_owned();
    }
    let text = if plus_is_blank { text.replace('+', " ") } else { text.to_owned() };
    percent_decode_str(&text).decode_utf8_lossy().into_owned()
}

/// A request for data with all that a handler needs: of its own, or inside a composite or batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Req<'a> {
    pub(super) head: &'a Head,
    /// Parts of the path after `/services/data/vXX.X/`.
    pub(super) path: &'a [String],
    /// `62` for `v62.0`.
    pub(super) version: u16,
    pub(super) body: &'a [u8],
    /// Bytes of the body that came; more than `body` holds if it was too long to be kept.
    pub(super) body_bytes: u64,
    /// Index of the user.
    pub(super) user: usize,
    pub(super) now: u64,
    /// Scheme and host that absolute URLs point to.
    pub(super) origin: &'a str,
    /// Whether this is a subrequest.
    pub(super) nested: bool,
}

impl Req<'_> {
    /// `/services/data/v62.0`.
    pub(super) fn base(&self) -> String {
        format!("/services/data/v{}.0", self.version)
    }

    /// The URL of a record.
    pub(super) fn record_url(&self, object: &str, id: &str) -> String {
        format!("/services/data/v{}.0/sobjects/{object}/{id}", self.version)
    }
}

/// Reads `v62.0`.
pub(super) fn version(text: &str) -> Option<u16> {
    text.strip_prefix('v')?.strip_suffix(".0")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, target: &str) -> Head {
        Head::read(&Method::from_bytes(method.as_bytes()).unwrap(), target, HeaderMap::new())
    }

    #[test]
    fn double_slashes_and_tunnelled_methods_are_seen_through() {
        let plain = head("PATCH", "/services/data/v62.0/sobjects/Account/001");
        let odd = head("POST", "//services/data//v62.0/sobjects/Account/001?_HttpMethod=PATCH");
        assert_eq!(plain.segments, odd.segments);
        assert_eq!(odd.method, Method::PATCH);
        assert_eq!(odd.object(), Some("Account"));
    }

    #[test]
    fn encoded_slashes_stay_inside_their_part() {
        let head = head("GET", "/services/data/v62.0/sobjects/X/Ext/a%2Fb%25+c?q=a+b%2Bc");
        assert_eq!(head.segments.last().unwrap(), "a/b%+c");
        assert_eq!(head.param("q"), Some("a b+c"));
    }

    #[test]
    fn families_have_the_words_of_the_counts() {
        for (path, name) in [
            ("/services/data/", "versions"),
            ("/services/data/v62.0/", "rest"),
            ("/services/data/v62.0/query/01g-2000", "query"),
            ("/services/data/v62.0/composite/batch", "batch"),
            ("/services/Soap/u/62.0", "soap"),
            ("/services/async/62.0/job", "bulk1"),
            ("/cometd/62.0", "cometd"),
            ("/services/oauth2/token", "oauth"),
            ("/favicon.ico", "other"),
        ] {
            assert_eq!(head("GET", path).family(), name, "{path}");
        }
    }

    #[test]
    fn sessions_come_in_three_forms() {
        for (name, value) in [("authorization", "Bearer t"), ("authorization", "OAuth t"), ("x-sfdc-session", "t")] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            assert_eq!(Head::read(&Method::GET, "/", headers).token(), Some("t"));
        }
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Basic t".parse().unwrap());
        assert_eq!(Head::read(&Method::GET, "/", headers).token(), None);
    }
}
