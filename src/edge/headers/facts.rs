//! What the stages ask of a request's headers, answered in one pass over them.

use http::header::{HeaderMap, HeaderValue};

use super::{Scope, client_in, trace_id_in};
use crate::outcome::RequestId;

/// The fields of a request that the gateway itself reads. Each holds the first value of its field, which for all of them
/// but the credentials is the only one that counts; see [`Facts::repeated`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    /// `Host`.
    pub host: Option<&'a HeaderValue>,
    /// `Authorization`.
    pub authorization: Option<&'a HeaderValue>,
    /// `X-SFDC-Session`.
    pub session: Option<&'a HeaderValue>,
    /// `Weirkeeper-Key`.
    pub key: Option<&'a HeaderValue>,
    /// `Weirkeeper-Class`.
    pub class: Option<&'a HeaderValue>,
    /// `X-Request-Timeout-Ms`.
    pub timeout: Option<&'a HeaderValue>,
    /// `traceparent`.
    pub traceparent: Option<&'a HeaderValue>,
    /// `Sforce-Call-Options`.
    pub call_options: Option<&'a HeaderValue>,
    /// `Accept`.
    pub accept: Option<&'a HeaderValue>,
    /// `Content-Type`.
    pub content_type: Option<&'a HeaderValue>,
    /// One of the fields above stands there more than once: where all its values count, ask the map for them.
    pub repeated: bool,
    /// `X-Forwarded-For` or `X-Forwarded-Proto` is there.
    pub forwarded: bool,
    /// [`super::strip_request`] has something to remove.
    pub strippable: bool,
}

impl<'a> Facts<'a> {
    /// Reads `headers`, each field once.
    pub fn scan(headers: &'a HeaderMap) -> Self {
        let mut facts = Self::default();
        for (name, value) in headers {
            let name = name.as_str();
            let place = match name.len() {
                4 if name == "host" => &mut facts.host,
                6 if name == "accept" => &mut facts.accept,
                11 if name == "traceparent" => &mut facts.traceparent,
                12 if name == "content-type" => &mut facts.content_type,
                13 if name == "authorization" => &mut facts.authorization,
                14 if name == "x-sfdc-session" => &mut facts.session,
                14 if name == "weirkeeper-key" => {
                    facts.strippable = true;
                    &mut facts.key
                }
                16 if name == "weirkeeper-class" => {
                    facts.strippable = true;
                    &mut facts.class
                }
                19 if name == "sforce-call-options" => &mut facts.call_options,
                20 if name == "x-request-timeout-ms" => &mut facts.timeout,
                _ => {
                    facts.forwarded |= matches!(name, "x-forwarded-for" | "x-forwarded-proto");
                    facts.strippable |= !matches!(Scope::of(name), Scope::EndToEnd | Scope::NotDownstream);
                    continue;
                }
            };
            if place.is_none() {
                *place = Some(value);
            } else {
                facts.repeated = true;
            }
        }
        facts
    }

    /// The trace id of a valid `traceparent`, like [`super::trace_id`].
    pub fn trace_id(&self) -> Option<RequestId> {
        trace_id_in(self.traceparent?)
    }

    /// The client name a caller gave itself, like [`super::client_of`]. `headers` are those this was read from.
    pub fn client(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        if self.repeated { super::client_of(headers) } else { client_in(self.call_options?) }
    }
}

#[cfg(test)]
mod tests {
    use http::header::HeaderName;
    use proptest::prelude::*;

    use super::super::{client_of, strip_request, trace_id};
    use super::*;

    const NAMES: [&str; 24] = [
        "host",
        "authorization",
        "x-sfdc-session",
        "weirkeeper-key",
        "weirkeeper-class",
        "weirkeeper-other",
        "x-request-timeout-ms",
        "traceparent",
        "sforce-call-options",
        "accept",
        "content-type",
        "connection",
        "keep-alive",
        "te",
        "expect",
        "forwarded",
        "x-real-ip",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-port",
        "proxy-authorization",
        "proxy-authentication-info",
        "x-other",
        "sforce-query-options",
    ];
    const VALUES: [&str; 4] =
        ["client=Tool/1", "defaultNamespace=a", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "x-other"];

    proptest! {
        #[test]
        fn one_pass_says_what_the_map_says(
            fields in proptest::collection::vec((0..NAMES.len(), 0..VALUES.len()), 0..12),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(HeaderName::from_static(NAMES[name]), HeaderValue::from_static(VALUES[value]));
            }
            let facts = Facts::scan(&headers);
            for (name, found) in [
                ("host", facts.host),
                ("authorization", facts.authorization),
                ("x-sfdc-session", facts.session),
                ("weirkeeper-key", facts.key),
                ("weirkeeper-class", facts.class),
                ("x-request-timeout-ms", facts.timeout),
                ("traceparent", facts.traceparent),
                ("sforce-call-options", facts.call_options),
                ("accept", facts.accept),
                ("content-type", facts.content_type),
            ] {
                prop_assert_eq!(found, headers.get(name), "{}", name);
                prop_assert!(facts.repeated || headers.get_all(name).iter().count() < 2, "{}", name);
            }
            prop_assert_eq!(facts.trace_id(), trace_id(&headers));
            prop_assert_eq!(facts.client(&headers), client_of(&headers));
            let forwarded = headers.contains_key("x-forwarded-for") || headers.contains_key("x-forwarded-proto");
            prop_assert_eq!(facts.forwarded, forwarded);
            let strippable = facts.strippable;
            let mut stripped = headers.clone();
            strip_request(&mut stripped);
            prop_assert_eq!(strippable, stripped != headers);
        }
    }
}
