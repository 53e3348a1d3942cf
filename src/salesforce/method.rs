//! The method a request really has, and its query parameters.

use std::borrow::Cow;

use http::Method;
use memchr::memchr2;

use super::path;

/// The method that Salesforce acts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effective {
    /// The method on the request line, or the one it tunnels.
    Certain(Method),
    /// A tunnelled method that nobody documents: it may be this POST or something else.
    Doubtful,
}

/// Applies `POST ...?_HttpMethod=PATCH` (facts 0; the parameter's name is case-sensitive).
///
/// Only methods that write are believed: a tunnelled `GET` would make what may be an insert look like a read.
pub(crate) fn effective(method: &Method, query: &str) -> Effective {
    if method != Method::POST || query.is_empty() {
        return Effective::Certain(method.clone());
    }
    match only(query, "_HttpMethod") {
        Parameter::Absent => Effective::Certain(Method::POST),
        Parameter::Many => Effective::Doubtful,
        Parameter::One(value) => [Method::PATCH, Method::DELETE, Method::PUT, Method::POST]
            .into_iter()
            .find(|known| value.eq_ignore_ascii_case(known.as_str()))
            .map_or(Effective::Doubtful, Effective::Certain),
    }
}

/// What a query string says of one parameter.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parameter<'a> {
    /// It is not there.
    Absent,
    /// Its decoded value.
    One(Cow<'a, str>),
    /// It is there more than once, or not decodable: which value counts is not known.
    Many,
}

/// Finds the parameter `name` in a raw query string.
pub(crate) fn only<'a>(query: &'a str, name: &str) -> Parameter<'a> {
    let mut found = Parameter::Absent;
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if key != name && (memchr2(b'%', b'+', key.as_bytes()).is_none() || decode(key).is_none_or(|key| key != name)) {
            continue;
        }
        found = match (found, decode(value)) {
            (Parameter::Absent, Some(value)) => Parameter::One(value),
            _ => return Parameter::Many,
        };
    }
    found
}

/// Form decoding: `%XX` and `+` as space; `None` if the result is not UTF-8.
pub(crate) fn decode(text: &str) -> Option<Cow<'_, str>> {
    if memchr2(b'%', b'+', text.as_bytes()).is_none() {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'+' => decoded.push(b' '),
            b'%' => match path::hex_pair(after) {
                Some(byte) => {
                    decoded.push(byte);
                    rest = after.get(2..).unwrap_or_default();
                }
                None => decoded.push(b'%'),
            },
            _ => decoded.push(*first),
        }
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(query: &str) -> Effective {
        effective(&Method::POST, query)
    }

    #[test]
    fn a_post_may_tunnel_a_write() {
        assert_eq!(post("_HttpMethod=PATCH"), Effective::Certain(Method::PATCH));
        assert_eq!(post("a=b&_HttpMethod=delete"), Effective::Certain(Method::DELETE));
        assert_eq!(post("_Http%4dethod=PATC%48"), Effective::Certain(Method::PATCH));
        assert_eq!(post("_HttpMethod=POST"), Effective::Certain(Method::POST));
    }

    #[test]
    fn the_name_is_case_sensitive_and_only_post_tunnels() {
        assert_eq!(post("_httpmethod=PATCH"), Effective::Certain(Method::POST));
        assert_eq!(effective(&Method::GET, "_HttpMethod=DELETE"), Effective::Certain(Method::GET));
    }

    #[test]
    fn what_is_not_documented_is_in_doubt() {
        for query in [
            "_HttpMethod=GET",
            "_HttpMethod=",
            "_HttpMethod",
            "_HttpMethod=PATCH&_HttpMethod=DELETE",
            "_HttpMethod=%ff",
        ] {
            assert_eq!(post(query), Effective::Doubtful, "{query}");
        }
    }

    #[test]
    fn parameters_are_form_decoded() {
        assert_eq!(only("q=SELECT+Id%2B1&x", "q"), Parameter::One(Cow::Borrowed("SELECT Id+1")));
        assert_eq!(only("q=1&q=1", "q"), Parameter::Many);
        assert_eq!(only("qq=1&Q=2", "q"), Parameter::Absent);
        assert_eq!(only("x&q", "q"), Parameter::One(Cow::Borrowed("")));
    }
}
