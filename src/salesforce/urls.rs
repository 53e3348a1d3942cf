//! The absolute URLs in answers that pull clients past a gateway, with their tokens (facts 11.2).
//!
//! Exactly these: `instance_url` and `id` of a token answer; `serverUrl` and `metadataServerUrl` of a SOAP log-in;
//! `identity` in the list of an API version's resources; the `urls` of the identity document and of userinfo. Their origin
//! is replaced byte for byte; nothing else changes, neither spelling nor order nor white space.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::session::is_soap_login;
use super::xml::{Event, Scanner};
use crate::call::{Family, Meaning};

/// Which of these an answer can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urls {
    /// `instance_url` and `id`.
    Token,
    /// `serverUrl` and `metadataServerUrl`.
    SoapLogin,
    /// `identity`.
    Resources,
    /// Members of `urls`.
    Identity,
}

impl Urls {
    /// What a successful answer to this call can carry; `None` for nearly all calls.
    pub fn of(meaning: &Meaning) -> Option<Self> {
        match meaning.family {
            Family::Oauth => match meaning.template {
                "/services/oauth2/token" => Some(Self::Token),
                "/services/oauth2/userinfo" | "/id/{org}/{user}" => Some(Self::Identity),
                _ => None,
            },
            Family::Rest if meaning.template == "/services/data/{version}" && meaning.method == Method::GET => {
                Some(Self::Resources)
            }
            Family::Soap if is_soap_login(meaning) => Some(Self::SoapLogin),
            _ => None,
        }
    }
}

/// Where the text of one URL stands, and what it is.
type Place<'a> = (Range<usize>, Cow<'a, str>);

#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow, default)]
    instance_url: Option<&'a RawValue>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    identity: Option<&'a RawValue>,
    #[serde(borrow, default)]
    urls: Option<&'a RawValue>,
}

/// `body` with `origin` (such as `https://salesforce.acme.internal`) in each of the URLs; `None` if it has none, cannot be
/// read, or has them so already.
pub fn with_origin(urls: Urls, body: &[u8], origin: &str) -> Option<Vec<u8>> {
    let is_xml = body.trim_ascii_start().first() == Some(&b'<');
    let places = if is_xml { in_xml(urls, body)? } else { in_json(urls, body)? };
    let mut new = Vec::with_capacity(body.len() + 64);
    let (mut copied, mut changed) = (0, false);
    for (range, url) in places {
        let Some(moved) = moved(&url, origin) else { continue };
        new.extend_from_slice(body.get(copied..range.start)?);
        if is_xml {
            push_xml(&mut new, &moved);
        } else {
            serde_json::to_writer(&mut new, &moved).ok()?;
        }
        copied = range.end;
        changed = true;
    }
    if !changed {
        return None;
    }
    new.extend_from_slice(body.get(copied..)?);
    Some(new)
}

/// `url` at `origin`; `None` if it is relative or there already.
fn moved(url: &str, origin: &str) -> Option<String> {
    let after_scheme = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let path = after_scheme.find(['/', '?', '#']).map_or("", |at| after_scheme.get(at..).unwrap_or_default());
    let moved = format!("{origin}{path}");
    (moved != url).then_some(moved)
}

/// Places in the order of the text.
fn in_json(urls: Urls, body: &[u8]) -> Option<SmallVec<[Place<'_>; 4]>> {
    let text = std::str::from_utf8(body).ok()?;
    let members: Members<'_> = serde_json::from_str(text).ok()?;
    let mut values: SmallVec<[&RawValue; 4]> = SmallVec::new();
    match urls {
        Urls::Token => values.extend(members.instance_url.into_iter().chain(members.id)),
        Urls::Resources => values.extend(members.identity),
        Urls::Identity => {
            let urls: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(members.urls?.get()).ok()?;
            values.extend(urls.into_values());
        }
        Urls::SoapLogin => {}
    }
    let mut places: SmallVec<[Place<'_>; 4]> = values
        .into_iter()
        .filter_map(|value| {
            let url: Cow<'_, str> = Cow::Owned(serde_json::from_str::<String>(value.get()).ok()?);
            Some((range_in(text, value.get())?, url))
        })
        .collect();
    places.sort_by_key(|(range, _)| range.start);
    Some(places)
}

fn in_xml(urls: Urls, body: &[u8]) -> Option<SmallVec<[Place<'_>; 4]>> {
    let wanted: &[&[u8]] = match urls {
        Urls::Token => &[b"instance_url", b"id"],
        Urls::SoapLogin => &[b"serverUrl", b"metadataServerUrl"],
        Urls::Resources => &[b"identity"],
        Urls::Identity => &[],
    };
    let mut places = SmallVec::new();
    let mut scanner = Scanner::new(body);
    // The depth at which `urls` is open.
    let mut inside = None;
    while let Some(event) = scanner.next().ok()? {
        match event {
            Event::Start { name, .. } => {
                if wanted.contains(&name) || inside.is_some() {
                    let from = body.len() - scanner.left();
                    let text = scanner.text().ok()?;
                    let to = body.len() - scanner.left();
                    let length = memchr::memmem::rfind(body.get(from..to)?, b"</").unwrap_or(0);
                    if length > 0 {
                        places.push((from..from + length, text));
                    }
                } else if urls == Urls::Identity && name == b"urls" {
                    inside = Some(scanner.depth());
                }
            }
            Event::End { .. } if inside.is_some_and(|depth| scanner.depth() < depth) => inside = None,
            _ => {}
        }
    }
    Some(places)
}

/// Where `part`, which is a piece of `whole`, stands in it.
fn range_in(whole: &str, part: &str) -> Option<Range<usize>> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    let range = start..start + part.len();
    (whole.get(range.clone()) == Some(part)).then_some(range)
}

fn push_xml(new: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'&' => new.extend_from_slice(b"&amp;"),
            b'<' => new.extend_from_slice(b"&lt;"),
            b'>' => new.extend_from_slice(b"&gt;"),
            _ => new.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::salesforce::{Costs, understand};

    const HERE: &str = "https://sf.acme.internal:8443";

    fn rewritten(urls: Urls, body: &str) -> Option<String> {
        with_origin(urls, body.as_bytes(), HERE).map(|body| String::from_utf8(body).unwrap())
    }

    #[test]
    fn a_token_answer_points_here_and_is_otherwise_the_same() {
        let body = r#"{ "access_token":"00D!https://acme.my.salesforce.com", "instance_url" : "https:\/\/acme.my.salesforce.com",
  "id":"https://login.salesforce.com/id/00D/005","signature":"x=","api_instance_url":"https://api.salesforce.com" }"#;
        let wanted = body
            .replace(r#""https:\/\/acme.my.salesforce.com""#, r#""https://sf.acme.internal:8443""#)
            .replace("https://login.salesforce.com/id", "https://sf.acme.internal:8443/id");
        assert_eq!(rewritten(Urls::Token, body), Some(wanted));
    }

    #[test]
    fn only_the_urls_of_an_identity_document_are_moved() {
        let body = r#"{"id":"https://login.salesforce.com/id/00D/005","urls":{"rest":"https://acme.my.salesforce.com/services/data/v{version}/",
            "profile":"https://acme.my.salesforce.com/005","n":null},"photos":{"picture":"https://acme.file.force.com/p"}}"#;
        let wanted = body.replace("https://acme.my.salesforce.com", HERE);
        assert_eq!(rewritten(Urls::Identity, body), Some(wanted));
    }

    #[test]
    fn resources_and_soap_log_ins_are_moved() {
        assert_eq!(
            rewritten(
                Urls::Resources,
                r#"{"tooling":"/services/data/v62.0/tooling","identity":"https://login.salesforce.com/id/a/b"}"#
            ),
            Some(
                r#"{"tooling":"/services/data/v62.0/tooling","identity":"https://sf.acme.internal:8443/id/a/b"}"#
                    .into()
            )
        );
        assert_eq!(
            rewritten(
                Urls::Resources,
                "<urls><identity>https://login.salesforce.com/id/a/b</identity><query>/q</query></urls>"
            ),
            Some("<urls><identity>https://sf.acme.internal:8443/id/a/b</identity><query>/q</query></urls>".into())
        );
        let body = "<E><Body><loginResponse><result><metadataServerUrl>https://a.b/services/Soap/m/62.0/00D</metadataServerUrl>\
            <passwordExpired>false</passwordExpired><serverUrl>https://a.b/services/Soap/u/62.0/00D</serverUrl>\
            <sessionId>00D!https://a.b</sessionId></result></loginResponse></Body></E>";
        let wanted = body.replace("https://a.b/", "https://sf.acme.internal:8443/");
        assert_eq!(rewritten(Urls::SoapLogin, body), Some(wanted));
    }

    #[test]
    fn what_cannot_be_read_or_has_nothing_to_move_stays() {
        for body in [
            "",
            "[]",
            "{}",
            "{\"identity\":null}",
            "{\"identity\":\"/relative\"}",
            "<html><body>",
            "not json",
            "{\"identity\":1}",
        ] {
            assert_eq!(rewritten(Urls::Resources, body), None, "{body}");
        }
        assert_eq!(rewritten(Urls::Resources, &format!(r#"{{"identity":"{HERE}/id/a/b"}}"#)), None);
    }

    #[test]
    fn few_calls_carry_any() {
        let of = |method: Method, path: &str| Urls::of(&understand(&method, path, &Costs::default()));
        assert_eq!(of(Method::POST, "//services/oauth2/token"), Some(Urls::Token));
        assert_eq!(of(Method::GET, "/services/oauth2/userinfo"), Some(Urls::Identity));
        assert_eq!(of(Method::GET, "/id/00D/005"), Some(Urls::Identity));
        assert_eq!(of(Method::GET, "/services/data/v62.0/"), Some(Urls::Resources));
        for path in [
            "/services/data",
            "/services/data/v62.0/sobjects",
            "/services/data/v62.0/query?q=x",
            "/services/Soap/u/62.0",
        ] {
            assert_eq!(of(Method::GET, path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_body_is_survived(body in proptest::collection::vec(any::<u8>(), 0..200), text in "[<>{}\":a-z/ ]{0,100}") {
            for urls in [Urls::Token, Urls::SoapLogin, Urls::Resources, Urls::Identity] {
                let _ = (with_origin(urls, &body, HERE), with_origin(urls, text.as_bytes(), HERE));
            }
        }

        #[test]
        fn every_url_of_an_identity_document_comes_here(paths in proptest::collection::vec("[a-z/{}.?=&]{0,20}", 1..8)) {
            let urls: BTreeMap<String, String> =
                paths.iter().enumerate().map(|(n, path)| (format!("u{n}"), format!("https://x.my.salesforce.com/{path}"))).collect();
            let body = serde_json::json!({ "urls": urls, "other": "https://x.my.salesforce.com/" }).to_string();
            let moved: serde_json::Value = serde_json::from_str(&rewritten(Urls::Identity, &body).unwrap()).unwrap();
            for (name, url) in urls {
                let wanted = url.replace("https://x.my.salesforce.com", HERE);
                prop_assert_eq!(moved["urls"][&name].as_str(), Some(wanted.as_str()));
            }
            prop_assert_eq!(moved["other"].as_str(), Some("https://x.my.salesforce.com/"));
        }
    }
}
