//! What the gateway itself reads in a request's head, found in one pass over it.
//!
//! A look-up by name costs a hash and a comparison, also where the field is absent; nearly all of these are absent nearly
//! always.

use http::{HeaderMap, HeaderValue};

use crate::edge::headers::{self, Foreign};
use crate::refusal::Wants;

/// The fields of a request that decide about it. The first of each; [`Sole`] where a second one matters.
#[derive(Debug, Default)]
pub struct Facts<'a> {
    /// `Host`.
    pub host: Sole<'a>,
    /// `Authorization`.
    pub authorization: Sole<'a>,
    /// `Weirkeeper-Key`.
    pub key: Option<&'a HeaderValue>,
    /// `Weirkeeper-Class`.
    pub class: Option<&'a HeaderValue>,
    /// `X-Request-Timeout-Ms`.
    pub timeout: Option<&'a HeaderValue>,
    /// `X-SFDC-Session`.
    pub session: Option<&'a HeaderValue>,
    /// `traceparent`: the W3C trace the request belongs to.
    pub traceparent: Option<&'a HeaderValue>,
    /// What must not reach Salesforce.
    pub foreign: Foreign,
    call_options: Sole<'a>,
    accept: Option<&'a HeaderValue>,
    user_agent: Option<&'a HeaderValue>,
    content_type: Option<&'a HeaderValue>,
}

/// A field that may stand in a head once.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sole<'a> {
    /// Its first value.
    pub first: Option<&'a HeaderValue>,
    /// There are others.
    pub more: bool,
}

impl<'a> Sole<'a> {
    /// Its value, if it stands there exactly once.
    pub fn only(self) -> Option<&'a HeaderValue> {
        self.first.filter(|_| !self.more)
    }

    fn add(&mut self, value: &'a HeaderValue) {
        self.more = self.first.is_some();
        self.first = self.first.or(Some(value));
    }
}

impl<'a> Facts<'a> {
    /// Reads `headers`.
    pub fn of(headers: &'a HeaderMap) -> Self {
        let mut facts = Self::default();
        for (field, value) in headers {
            facts.foreign.look_at_request(field, headers);
            let name = field.as_str();
            // Told by length first, so that the usual field costs a comparison or two.
            let first = match name.len() {
                4 if name == "host" => {
                    facts.host.add(value);
                    continue;
                }
                13 if name == "authorization" => {
                    facts.authorization.add(value);
                    continue;
                }
                19 if name == "sforce-call-options" => {
                    facts.call_options.add(value);
                    continue;
                }
                6 if name == "accept" => &mut facts.accept,
                10 if name == "user-agent" => &mut facts.user_agent,
                11 if name == "traceparent" => &mut facts.traceparent,
                12 if name == "content-type" => &mut facts.content_type,
                14 if name == "weirkeeper-key" => &mut facts.key,
                14 if name == "x-sfdc-session" => &mut facts.session,
                16 if name == "weirkeeper-class" => &mut facts.class,
                20 if name == "x-request-timeout-ms" => &mut facts.timeout,
                _ => continue,
            };
            *first = first.or(Some(value));
        }
        facts
    }

    /// In which form an error is expected.
    pub fn wants(&self) -> Wants {
        Wants::of(self.accept, self.content_type)
    }

    /// Whether the body holds several parts, for example a Bulk job and its data (facts 4.1).
    pub fn multipart(&self) -> bool {
        let start = b"multipart/";
        let kind = self.content_type.and_then(|kind| kind.as_bytes().get(..start.len()));
        kind.is_some_and(|kind| kind.eq_ignore_ascii_case(start))
    }

    /// The client name the caller gave itself in `Sforce-Call-Options`; `headers` are those these facts are of.
    pub fn client(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        self.call_options.first.and_then(|_| headers::client_of(headers))
    }

    /// The first product in `User-Agent`, without its version.
    pub fn agent(&self) -> Option<&'a str> {
        let product = self.user_agent?.to_str().ok()?.split(['/', ' ']).next()?;
        Some(product).filter(|product| !product.is_empty())
    }

    /// What stands in `Authorization`, if that is the only credential of the head.
    pub fn only_credential(&self) -> Option<&'a [u8]> {
        self.authorization.only().filter(|_| self.session.is_none()).map(HeaderValue::as_bytes)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn each_field_is_found_as_a_look_up_would_find_it() {
        let headers = map(&[
            ("host", "a"),
            ("user-agent", "x"),
            ("weirkeeper-key", "wk_1"),
            ("weirkeeper-class", "batch"),
            ("x-request-timeout-ms", "5"),
            ("x-sfdc-session", "s"),
            ("sforce-call-options", "client=Tool"),
            ("authorization", "Bearer x"),
            ("weirkeeper-key", "wk_2"),
        ]);
        let facts = Facts::of(&headers);
        let found = [facts.host.only(), facts.key, facts.class, facts.timeout, facts.session];
        let names = ["host", "weirkeeper-key", "weirkeeper-class", "x-request-timeout-ms", "x-sfdc-session"];
        assert_eq!(found, names.map(|name| headers.get(name)));
        assert_eq!(facts.client(&headers), Some("Tool"));
        assert_eq!(facts.only_credential(), None, "a session stands beside it");
        assert!(Facts::of(&HeaderMap::new()).host.first.is_none());
    }

    #[test]
    fn a_field_that_stands_twice_is_no_sole_one() {
        let headers = map(&[("host", "a"), ("authorization", "Bearer x"), ("host", "b"), ("authorization", "y")]);
        let facts = Facts::of(&headers);
        assert_eq!((facts.host.first, facts.host.only()), (headers.get("host"), None));
        assert_eq!(facts.only_credential(), None);
        let once = map(&[("authorization", "Bearer x")]);
        assert_eq!(Facts::of(&once).only_credential(), Some(&b"Bearer x"[..]));
    }

    #[test]
    fn an_agent_is_its_first_product() {
        for (shown, product) in [
            ("python-requests/2.31.0", Some("python-requests")),
            ("Mozilla/5.0 (X11; Linux)", Some("Mozilla")),
            ("jsforce", Some("jsforce")),
            ("Data Loader", Some("Data")),
            ("/x", None),
            ("", None),
        ] {
            assert_eq!(Facts::of(&map(&[("user-agent", shown)])).agent(), product, "{shown}");
        }
        assert_eq!(Facts::of(&HeaderMap::new()).agent(), None);
    }

    #[test]
    fn the_form_of_errors_follows_accept_and_content_type() {
        let json = map(&[("content-type", "application/json"), ("accept", "*/*")]);
        assert_eq!(Facts::of(&json).wants(), Wants::of(None, json.get("content-type")));
        let xml = map(&[("accept", "text/xml")]);
        assert_eq!(Facts::of(&xml).wants(), Wants::of(xml.get("accept"), None));
        assert_ne!(Facts::of(&xml).wants(), Wants::default());
    }

    #[test]
    fn a_body_of_several_parts_is_told_from_others() {
        for (kind, parts) in [("Multipart/form-data; boundary=b", true), ("application/json", false), ("multi", false)]
        {
            assert_eq!(Facts::of(&map(&[("content-type", kind)])).multipart(), parts, "{kind}");
        }
        assert!(!Facts::of(&HeaderMap::new()).multipart());
    }
}
