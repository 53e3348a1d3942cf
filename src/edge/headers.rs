//! Which headers pass, in each direction, and which the gateway sets. Maps are edited in place.

use bytes::{BufMut, BytesMut};
use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

/// `Sforce-Call-Options`: the client's name in Salesforce's event logs (facts 3.5).
const CALL_OPTIONS: HeaderName = HeaderName::from_static("sforce-call-options");
/// `X-SFDC-REQUEST-ID`: the request's id in Salesforce's event logs.
pub const SFDC_REQUEST_ID: HeaderName = HeaderName::from_static("x-sfdc-request-id");

/// Whom a field is not meant for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// It passes both ways.
    EndToEnd,
    /// `Connection`: it passes neither way, and takes others with it.
    Connection,
    /// Between two neighbours only (RFC 9110 section 7.6.1), between a proxy and its client, or the gateway's own.
    Hop,
    /// Nothing for Salesforce: proxy credentials, the HTTP/2 offer, what the edge has already answered, and who stands before
    /// us, which is none of Salesforce's business and could be forged.
    NotUpstream,
    /// Nothing for the caller.
    NotDownstream,
}

impl Scope {
    /// Of the field `name`, told by its length first, so that the usual field costs a comparison or two.
    #[inline]
    fn of(name: &str) -> Self {
        match name.len() {
            2 if name == "te" => Self::Hop,
            6 if name == "expect" => Self::NotUpstream,
            7 if matches!(name, "trailer" | "upgrade") => Self::Hop,
            9 if matches!(name, "forwarded" | "x-real-ip") => Self::NotUpstream,
            10 if name == "connection" => Self::Connection,
            10 if name == "keep-alive" => Self::Hop,
            14 if name == "http2-settings" => Self::NotUpstream,
            15 if name == "x-forwarded-for" => Self::NotUpstream,
            16 if name == "proxy-connection" => Self::Hop,
            16 if matches!(name, "x-forwarded-host" | "x-forwarded-port") => Self::NotUpstream,
            17 if name == "transfer-encoding" => Self::Hop,
            17 if name == "x-forwarded-proto" => Self::NotUpstream,
            18 if name == "proxy-authenticate" => Self::Hop,
            19 if name == "proxy-authorization" => Self::NotUpstream,
            25 if name == "proxy-authentication-info" => Self::NotDownstream,
            _ if name.as_bytes().first() == Some(&b'w') && name.starts_with(OURS) => Self::Hop,
            _ => Self::EndToEnd,
        }
    }
}

const OURS: &str = "weirkeeper-";
/// `Weirkeeper-Key`: a gateway key or a token of the company's identity provider.
const KEY: HeaderName = HeaderName::from_static("weirkeeper-key");

/// Fields `Connection` cannot take away from the other end, whatever it names: they say what the message is, how long
/// it is, whom it is for and who sent it.
const END_TO_END: [HeaderName; 12] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::AUTHORIZATION,
    header::COOKIE,
    header::SET_COOKIE,
    header::CACHE_CONTROL,
    header::ACCEPT,
    HeaderName::from_static("x-sfdc-session"),
    HeaderName::from_static("soapaction"),
    HeaderName::from_static("sforce-call-options"),
];

/// Removes what must not reach the caller. `Weirkeeper-*` fields of an upstream are removed too, so that only the
/// gateway can speak for itself. Shows each field to `look`, because it goes through them anyway.
pub fn strip_response(headers: &mut HeaderMap, mut look: impl FnMut(&str, &HeaderValue)) {
    let mut foreign = Foreign::default();
    for (name, value) in &*headers {
        look(name.as_str(), value);
        foreign.look_at(name, headers, Scope::NotDownstream);
    }
    foreign.leave(headers);
}

/// Names of fields that must not pass on, collected first, because a map cannot be edited while it is read. Most heads
/// hold one or two such fields at most.
#[derive(Debug, Default)]
pub struct Foreign(SmallVec<[HeaderName; 4]>);

impl Foreign {
    /// Notes `name`, a field of `headers`, if it must not reach Salesforce: hop-by-hop fields and those `Connection` names,
    /// forwarding fields, and everything that is for the gateway.
    #[inline]
    pub fn look_at_request(&mut self, name: &HeaderName, headers: &HeaderMap) {
        self.look_at(name, headers, Scope::NotUpstream);
    }

    #[inline]
    fn look_at(&mut self, name: &HeaderName, headers: &HeaderMap, this_way: Scope) {
        let scope = Scope::of(name.as_str());
        if scope != Scope::EndToEnd {
            self.note(scope, name, headers, this_way);
        }
    }

    fn note(&mut self, scope: Scope, name: &HeaderName, headers: &HeaderMap, this_way: Scope) {
        match scope {
            Scope::EndToEnd => {}
            Scope::Connection => {
                named_by_connection(headers, &mut self.0);
                self.0.push(header::CONNECTION);
            }
            // The copy of a constant costs no allocation.
            Scope::Hop if *name == KEY => self.0.push(KEY),
            Scope::Hop => self.0.push(name.clone()),
            scope if scope == this_way => self.0.push(name.clone()),
            Scope::NotUpstream | Scope::NotDownstream => {}
        }
    }

    /// Takes the fields out of `headers`.
    pub fn leave(self, headers: &mut HeaderMap) {
        for name in self.0 {
            headers.remove(name);
        }
    }
}

fn named_by_connection(headers: &HeaderMap, removed: &mut SmallVec<[HeaderName; 4]>) {
    for value in headers.get_all(header::CONNECTION) {
        for token in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            // What most clients say, and a field that never passes anyway.
            if token.eq_ignore_ascii_case(b"keep-alive") {
                continue;
            }
            if let Ok(name) = HeaderName::from_bytes(token)
                && headers.contains_key(&name)
                && !END_TO_END.contains(&name)
            {
                removed.push(name);
            }
        }
    }
}

/// Replaces Host.
pub fn set_host(headers: &mut HeaderMap, host: &HeaderValue) {
    headers.insert(header::HOST, host.clone());
}

/// Sets `X-SFDC-REQUEST-ID`, whatever the caller sent: what Salesforce's event logs name stands in our log, too.
pub fn stamp_request_id(headers: &mut HeaderMap, id: HeaderValue) {
    headers.insert(SFDC_REQUEST_ID, id);
}

/// Sets `client=<caller>` in `Sforce-Call-Options`, keeping the other options (`defaultNamespace`, for example).
/// `alone` is `client=<caller>` made once for each caller, so that the usual request costs one reference count.
pub fn stamp_call_options(headers: &mut HeaderMap, alone: &HeaderValue) {
    match headers.entry(CALL_OPTIONS) {
        Entry::Vacant(empty) => {
            empty.insert(alone.clone());
        }
        Entry::Occupied(mut sent) => {
            let mut merged = BytesMut::from(alone.as_bytes());
            for value in sent.iter() {
                for option in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    if !option.is_empty() && !is_client(option) {
                        merged.put_slice(b", ");
                        merged.put_slice(option);
                    }
                }
            }
            let merged = HeaderValue::from_maybe_shared(merged.freeze()).unwrap_or_else(|_| alone.clone());
            sent.insert(merged);
        }
    }
}

/// The client name a caller gave itself in `Sforce-Call-Options`.
pub fn client_of(headers: &HeaderMap) -> Option<&str> {
    headers.get_all(CALL_OPTIONS).iter().find_map(client_in)
}

/// The client name in one value of `Sforce-Call-Options`.
fn client_in(value: &HeaderValue) -> Option<&str> {
    let options = value.to_str().ok()?.split(',');
    options.map(str::trim).find(|option| is_client(option.as_bytes())).and_then(|option| {
        let (_, name) = option.split_once('=')?;
        Some(name.trim()).filter(|name| !name.is_empty())
    })
}

/// `client=<caller>`; what a header cannot hold becomes `_`.
pub fn call_options_for(caller: &str) -> HeaderValue {
    let safe: String = caller
        .chars()
        .map(|char| if char.is_ascii_graphic() && !matches!(char, ',' | '=' | '"' | ';') { char } else { '_' })
        .collect();
    HeaderValue::from_str(&format!("client={safe}")).unwrap_or(HeaderValue::from_static("client=_"))
}

fn is_client(option: &[u8]) -> bool {
    let name = option.split(|byte| *byte == b'=').next().unwrap_or_default();
    name.trim_ascii().eq_ignore_ascii_case(b"client")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn strip_request(headers: &mut HeaderMap) {
        let mut foreign = Foreign::default();
        headers.keys().for_each(|name| foreign.look_at_request(name, headers));
        foreign.leave(headers);
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn only_end_to_end_headers_reach_salesforce() {
        let mut headers = map(&[
            ("host", "a"),
            ("authorization", "Bearer x"),
            ("connection", "keep-alive, X-Private"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "Basic x"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("expect", "100-continue"),
            ("x-forwarded-for", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("weirkeeper-key", "secret"),
            ("weirkeeper-class", "batch"),
            ("sforce-query-options", "batchSize=200"),
            ("accept-encoding", "gzip"),
        ]);
        strip_request(&mut headers);
        assert_eq!(names(&headers), ["accept-encoding", "authorization", "host", "sforce-query-options"]);
    }

    #[test]
    fn connection_cannot_take_the_message_apart() {
        let mut headers = map(&[
            ("connection", "close, Host, content-length, Authorization, X-SFDC-Session, Content-Type"),
            ("connection", "if-match"),
            ("host", "a"),
            ("content-length", "5"),
            ("content-type", "application/json"),
            ("authorization", "Bearer x"),
            ("x-sfdc-session", "y"),
        ]);
        headers.append("connection", HeaderValue::from_static("x-hop"));
        headers.append("x-hop", HeaderValue::from_static("1"));
        strip_request(&mut headers);
        assert_eq!(names(&headers), ["authorization", "content-length", "content-type", "host", "x-sfdc-session"]);
    }

    #[test]
    fn answers_lose_hop_by_hop_headers_and_keep_the_rest() {
        let mut headers = map(&[
            ("connection", "x-internal"),
            ("x-internal", "1"),
            ("keep-alive", "timeout=5"),
            ("weirkeeper-refused", "forged"),
            ("proxy-authenticate", "Basic"),
            ("sforce-limit-info", "api-usage=1/5000"),
            ("set-cookie", "BrowserId=x"),
        ]);
        let mut looked = 0;
        strip_response(&mut headers, |_, _| looked += 1);
        assert_eq!(looked, 7);
        assert_eq!(names(&headers), ["set-cookie", "sforce-limit-info"]);
    }

    #[test]
    fn the_callers_name_is_merged_into_the_call_options() {
        let alone = call_options_for("billing");
        for (sent, merged) in [
            (None, "client=billing"),
            (Some("client=SomeTool/1.0"), "client=billing"),
            (Some("defaultNamespace=acme"), "client=billing, defaultNamespace=acme"),
            (Some("Client = x , defaultNamespace=acme,"), "client=billing, defaultNamespace=acme"),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(sent) = sent {
                headers.insert(CALL_OPTIONS, HeaderValue::from_static(sent));
            }
            stamp_call_options(&mut headers, &alone);
            assert_eq!(headers[CALL_OPTIONS], merged);
            assert_eq!(headers.get_all(CALL_OPTIONS).iter().count(), 1);
        }
    }

    #[test]
    fn the_client_a_caller_names_is_found() {
        assert_eq!(client_of(&map(&[("sforce-call-options", "defaultNamespace=a, client=Tool/1")])), Some("Tool/1"));
        assert_eq!(client_of(&map(&[("sforce-call-options", "client=")])), None);
        assert_eq!(client_of(&HeaderMap::new()), None);
    }

    #[test]
    fn the_request_id_is_ours() {
        let mut headers = map(&[("x-sfdc-request-id", "forged")]);
        stamp_request_id(&mut headers, HeaderValue::from_static("ours"));
        assert_eq!(headers.get_all(SFDC_REQUEST_ID).iter().collect::<Vec<_>>(), ["ours"]);
    }

    proptest! {
        #[test]
        fn any_caller_name_makes_one_option(name in any::<String>()) {
            let value = call_options_for(&name);
            let text = value.to_str().expect("ascii");
            prop_assert_eq!(text.matches(',').count(), 0);
            prop_assert_eq!(text.matches('=').count(), 1);
        }
    }
}
