//! What is asked, if it is a question whose answer may be kept: which one, on what its answer depends, and its key.
//!
//! Two requests have the same key only if Salesforce answers both with the same bytes, as far as anything in the request
//! decides. The key holds the org, the principal, what is asked in one spelling, and every header that changes an answer; a
//! header nobody knows, a parameter or a spelling in doubt makes no key at all.

use std::time::Duration;

use http::header::HeaderMap;
use http::{HeaderValue, Method};
use smallvec::{SmallVec, smallvec};

use super::effect::{ROW, last_segment};
use super::touch::{Deps, Lower, RowId, lower};
use crate::call::{Call, Family, Idempotency, Meaning, Operation, Principal, Reach};
use crate::salesforce::steady_query;

/// The kinds of questions whose answers may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The list of all objects.
    Global,
    /// What one object looks like.
    Describe,
    /// One row.
    Row,
    /// A query.
    Query,
}

impl Kind {
    /// Told from what is known of every call, at the cost of a comparison or two for calls that are none.
    pub fn of(meaning: &Meaning) -> Option<Self> {
        if meaning.idempotency != Idempotency::Safe || meaning.method != Method::GET {
            return None;
        }
        match (meaning.operation, meaning.family) {
            (Operation::Describe, Family::Rest) => match meaning.template {
                "/services/data/{version}/sobjects" => Some(Self::Global),
                "/services/data/{version}/sobjects/{object}/describe" => Some(Self::Describe),
                _ => None,
            },
            (Operation::Read, Family::Rest) if meaning.template == ROW => Some(Self::Row),
            (Operation::Query, Family::Query) if meaning.template == "/services/data/{version}/query" => {
                Some(Self::Query)
            }
            _ => None,
        }
    }

    /// Whether its answer holds rows.
    pub fn is_of_rows(self) -> bool {
        matches!(self, Self::Row | Self::Query)
    }
}

/// The bytes by which an answer is found.
pub type Key = Vec<u8>;

/// Most keys are no longer, in bytes.
const USUAL_KEY: usize = 256;

/// A question.
#[derive(Debug)]
pub struct Question {
    /// Which kind.
    pub kind: Kind,
    /// What its answer depends on.
    pub deps: Deps,
    /// By which its answer is found.
    pub key: Key,
    /// How it wants to be answered.
    pub wish: Wish,
}

/// What a request says about how it wants to be answered.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is said on its own")]
pub struct Wish {
    /// Salesforce is to be asked.
    pub no_cache: bool,
    /// The answer is not to be kept.
    pub no_store: bool,
    /// Salesforce is not to be asked.
    pub only_if_cached: bool,
    /// No older answer will do.
    pub max_age: Option<Duration>,
    /// An answer that is no longer fresh will do, by so much.
    pub max_stale: Option<Duration>,
    /// `If-None-Match`.
    pub none_match: Option<HeaderValue>,
    /// `If-Modified-Since`.
    pub modified_since: Option<HeaderValue>,
    /// Codings its sender takes.
    pub gzip: bool,
    /// The same.
    pub deflate: bool,
}

impl Question {
    /// Reads what `call` asks of org `org`; `None` if its answer must not be kept.
    pub fn of(
        kind: Kind,
        call: &Call,
        org: u32,
        target: &str,
        headers: &HeaderMap,
        harmless: &[Box<str>],
    ) -> Option<Self> {
        if call.principal == Principal::NOBODY {
            return None;
        }
        let (path, parameters) = target.split_once('?').unwrap_or((target, ""));
        let version = call.meaning.version?;
        let mut key = Key::with_capacity(USUAL_KEY);
        key.extend_from_slice(&org.to_be_bytes());
        key.extend_from_slice(&call.principal.0);
        key.extend_from_slice(&version.0.to_be_bytes());
        let deps = match kind {
            Kind::Global => {
                key.push(b'g');
                nothing(parameters, path)?;
                Deps::Metadata(None)
            }
            Kind::Describe => {
                key.push(b'd');
                nothing(parameters, path)?;
                let object = call.meaning.object.as_deref()?;
                text(&mut key, object.as_bytes());
                Deps::Metadata(Some(lower(object)))
            }
            Kind::Row => {
                key.push(b'r');
                let (object, id) = (call.meaning.object.as_deref()?, last_segment(path)?);
                text(&mut key, object.as_bytes());
                text(&mut key, id.as_bytes());
                text(&mut key, fields(parameters)?.as_bytes());
                Deps::Row(lower(object), RowId::parse(id)?)
            }
            Kind::Query => {
                key.push(b'q');
                text(&mut key, steady_query(parameters)?.as_bytes());
                Deps::Objects(objects(&call.meaning)?)
            }
        };
        let wish = Wish::read(headers, harmless, &mut key)?;
        Some(Self { kind, deps, key, wish })
    }
}

/// Appends a text whose end is told.
fn text(key: &mut Key, text: &[u8]) {
    key.extend_from_slice(&(text.len() as u32).to_be_bytes());
    key.extend_from_slice(text);
}

/// Descriptions take no parameters, and end in no format.
fn nothing(parameters: &str, path: &str) -> Option<()> {
    (parameters.is_empty() && last_segment(path).is_some_and(|last| !last.contains('.'))).then_some(())
}

/// The only parameter of a row: names of its own fields.
fn fields(parameters: &str) -> Option<&str> {
    if parameters.is_empty() {
        return Some("");
    }
    let names = parameters.strip_prefix("fields=")?;
    names.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b',')).then_some(names)
}

/// All objects a query reads, if all are known.
fn objects(meaning: &Meaning) -> Option<SmallVec<[Lower; 2]>> {
    if meaning.reach != Reach::Named {
        return None;
    }
    let mut names = smallvec![lower(meaning.object.as_deref()?)];
    for part in &meaning.parts {
        let name = lower(part.object.as_deref().filter(|_| part.reach == Reach::Named)?);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Some(names)
}

/// What a request header does to the answer.
enum Effect {
    /// Nothing.
    None,
    /// It is part of the question.
    Key,
    /// It says how to answer.
    Wish,
    /// Nobody knows, or nothing may be kept with it.
    Doubt,
}

fn effect(name: &str, value: &HeaderValue, harmless: &[Box<str>]) -> Effect {
    match name {
        // The credential is the principal; the rest is about the connection, the caller's own records, or the way.
        "authorization"
        | "x-sfdc-session"
        | "host"
        | "user-agent"
        | "content-type"
        | "content-length"
        | "date"
        | "dnt"
        | "from"
        | "referer"
        | "via"
        | "priority"
        | "te"
        | "upgrade-insecure-requests"
        | "keep-alive"
        | "connection"
        | "forwarded"
        | "traceparent"
        | "tracestate"
        | "baggage"
        | "b3"
        | "sentry-trace"
        | "uber-trace-id"
        | "newrelic"
        | "x-real-ip"
        | "x-request-id"
        | "x-correlation-id"
        | "x-request-timeout-ms"
        | "x-sfdc-request-id"
        | "x-cloud-trace-context"
        | "x-requested-with" => Effect::None,
        "accept" | "accept-language" | "accept-charset" | "sforce-query-options" | "x-prettyprint" => Effect::Key,
        "cache-control" | "pragma" | "accept-encoding" | "if-none-match" | "if-modified-since" => Effect::Wish,
        // The client's name changes no answer; a name space does.
        "sforce-call-options" => match value.to_str() {
            Ok(options) if options.split(',').all(|option| names_client(option.trim())) => Effect::None,
            _ => Effect::Key,
        },
        // To note that a row was looked at is the only effect of this one.
        "sforce-mru" if value.as_bytes().eq_ignore_ascii_case(b"updatemru=false") => Effect::None,
        _ if name.starts_with("x-sfdc-packageversion-") => Effect::Key,
        _ if ["x-forwarded-", "x-b3-", "x-amzn-", "x-datadog-", "x-envoy-", "sec-", "weirkeeper-"]
            .iter()
            .any(|start| name.starts_with(start)) =>
        {
            Effect::None
        }
        _ if harmless.iter().any(|known| **known == *name) => Effect::None,
        _ => Effect::Doubt,
    }
}

fn names_client(option: &str) -> bool {
    option.is_empty() || option.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("client="))
}

impl Wish {
    /// Goes through the headers once; what changes the answer is added to `key`.
    fn read(headers: &HeaderMap, harmless: &[Box<str>], key: &mut Key) -> Option<Self> {
        let mut wish = Self::default();
        for (name, value) in headers {
            let name = name.as_str();
            match effect(name, value, harmless) {
                Effect::None => {}
                Effect::Key => {
                    text(key, name.as_bytes());
                    text(key, value.as_bytes());
                }
                Effect::Wish => wish.add(name, value)?,
                Effect::Doubt => return None,
            }
        }
        Some(wish)
    }

    fn add(&mut self, name: &str, value: &HeaderValue) -> Option<()> {
        let words = || value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        match name {
            "cache-control" => words().for_each(|word| self.direct(word)),
            "pragma" => self.no_cache |= words().any(|word| word.eq_ignore_ascii_case(b"no-cache")),
            "accept-encoding" => {
                for word in words() {
                    let (coding, taken) = coding(word);
                    if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") {
                        self.gzip = taken;
                    } else if coding.eq_ignore_ascii_case(b"deflate") {
                        self.deflate = taken;
                    } else if !taken && (coding == b"*" || coding.eq_ignore_ascii_case(b"identity")) {
                        // Who takes no plain bytes gets what Salesforce makes of that.
                        return None;
                    }
                }
            }
            // What a star stands for, Salesforce alone knows.
            "if-none-match" if self.none_match.is_none() && value != "*" => self.none_match = Some(value.clone()),
            "if-modified-since" if self.modified_since.is_none() => self.modified_since = Some(value.clone()),
            _ => return None,
        }
        Some(())
    }

    fn direct(&mut self, word: &[u8]) {
        let (name, argument) = match word.iter().position(|byte| *byte == b'=') {
            Some(at) => (word.get(..at).unwrap_or_default(), word.get(at + 1..)),
            None => (word, None),
        };
        let seconds = argument
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| digits.trim_matches('"').parse().ok())
            .map(Duration::from_secs);
        match name {
            name if name.eq_ignore_ascii_case(b"no-cache") => self.no_cache = true,
            name if name.eq_ignore_ascii_case(b"no-store") => self.no_store = true,
            name if name.eq_ignore_ascii_case(b"only-if-cached") => self.only_if_cached = true,
            // What cannot be read is the strictest it can be.
            name if name.eq_ignore_ascii_case(b"max-age") => self.max_age = Some(seconds.unwrap_or(Duration::ZERO)),
            name if name.eq_ignore_ascii_case(b"max-stale") => {
                self.max_stale =
                    Some(if argument.is_none() { Duration::MAX } else { seconds.unwrap_or(Duration::ZERO) });
            }
            _ => {}
        }
    }
}

/// A member of `Accept-Encoding`, and whether it is taken at all.
fn coding(word: &[u8]) -> (&[u8], bool) {
    let mut parts = word.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let name = parts.next().unwrap_or_default();
    let refused = parts.any(|part| {
        let part = part.to_ascii_lowercase();
        part.strip_prefix(b"q=").is_some_and(|weight| weight.iter().all(|byte| matches!(byte, b'0' | b'.')))
    });
    (name, !refused)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use proptest::prelude::*;

    use super::*;
    use crate::call::{CallerId, Class, OrgId};
    use crate::salesforce::{Costs, Urls, understand};

    const ROW_PATH: &str = "/services/data/v62.0/sobjects/Account/001D000000IqhSLIAZ";
    const QUERY: &str = "/services/data/v62.0/query?q=SELECT+Id+FROM+Account";

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&str, &str)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        fields.iter().map(field).collect()
    }

    fn ask_as(principal: u8, org: u32, target: &str, headers: &[(&str, &str)]) -> Option<Question> {
        let meaning = understand(&Method::GET, target, &Costs::default());
        let kind = Kind::of(&meaning)?;
        let call = Call {
            org: OrgId(0),
            caller: CallerId(0),
            principal: Principal([principal; 16]),
            class: Class::Standard,
            meaning,
            deadline: None,
        };
        Question::of(kind, &call, org, target, &map(headers), &["x-acme-team".into()])
    }

    fn ask(target: &str, headers: &[(&str, &str)]) -> Option<Question> {
        ask_as(1, 1, target, headers)
    }

    fn key(target: &str, headers: &[(&str, &str)]) -> Option<Key> {
        ask(target, headers).map(|question| question.key)
    }

    #[test]
    fn few_calls_are_questions() {
        for (target, kind) in [
            ("/services/data/v62.0/sobjects", Kind::Global),
            ("/services/data/v62.0/sobjects/", Kind::Global),
            ("//services/data/v62.0/sobjects/Account/describe/", Kind::Describe),
            (ROW_PATH, Kind::Row),
            (QUERY, Kind::Query),
        ] {
            assert_eq!(ask(target, &[]).map(|question| question.kind), Some(kind), "{target}");
            // Whose answers are changed for each caller, and so need a map of their fields, is no question.
            assert!(Urls::of(&understand(&Method::GET, target, &Costs::default())).is_none(), "{target}");
        }
        for target in [
            "/services/data/v62.0/limits",
            "/services/data/v62.0/recent",
            "/services/data/v62.0/query/01gD0000002HU6KIAW-2000",
            "/services/data/v62.0/queryAll?q=SELECT+Id+FROM+Account",
            "/services/data/v62.0/query?explain=SELECT+Id+FROM+Account",
            "/services/data/v62.0/query?q=SELECT+Owner.Name+FROM+Account",
            "/services/data/v62.0/query?q=SELECT+Id+FROM+Account+FOR+VIEW",
            "/services/data/v62.0/query?q=SELECT+Id+FROM+Account&x=1",
            "/services/data/v62.0/tooling/sobjects",
            "/services/data/v62.0/sobjects?x=1",
            "/services/data/v50.0/sobjects.json",
            "/services/data/v50.0/sobjects/Account/describe.xml",
            "/services/data/v62.0/sobjects/Attachment/00PD000000IqhSL/Body",
            "/services/data/v62.0/sobjects/Account/001D000000IqhSLIAZ?fields=Owner.Name",
            "/services/data/v62.0/sobjects/Account/001D000000IqhSLIAZ?fields=Id&fields=Name",
            "/services/data/v62.0/sobjects/Account/%30%301D000000IqhSL",
            "/services/data/v62.0/sobjects/Account/NotAnId",
            "/services/apexrest/x",
            "/services/data/",
        ] {
            assert!(ask(target, &[]).is_none(), "{target}");
        }
        let get = |method: Method, target| Kind::of(&understand(&method, target, &Costs::default()));
        assert_eq!(get(Method::HEAD, ROW_PATH), None);
        assert_eq!(get(Method::POST, "/services/data/v62.0/query?q=SELECT+Id+FROM+Account&_HttpMethod=GET"), None);
    }

    #[test]
    fn everything_that_decides_is_in_the_key() {
        let plain = ask_as(1, 1, ROW_PATH, &[]).unwrap().key;
        assert_ne!(plain, ask_as(2, 1, ROW_PATH, &[]).unwrap().key, "principal");
        assert_ne!(plain, ask_as(1, 2, ROW_PATH, &[]).unwrap().key, "org");
        assert!(ask_as(0, 1, ROW_PATH, &[]).is_none(), "nobody");
        for target in [
            "/services/data/v61.0/sobjects/Account/001D000000IqhSLIAZ",
            "/services/data/v62.0/sobjects/account/001D000000IqhSLIAZ",
            "/services/data/v62.0/sobjects/Account/001D000000IqhSMIAZ",
            "/services/data/v62.0/sobjects/Account/001D000000IqhSLIAZ?fields=Name",
        ] {
            assert_ne!(Some(&plain), key(target, &[]).as_ref(), "{target}");
        }
        for header in [
            ("accept", "application/xml"),
            ("accept-language", "de"),
            ("sforce-query-options", "batchSize=200"),
            ("x-prettyprint", "1"),
            ("x-sfdc-packageversion-acme", "1.2"),
            ("sforce-call-options", "client=a, defaultNamespace=acme"),
        ] {
            let with = key(ROW_PATH, &[header]);
            assert!(with.as_ref().is_some_and(|with| *with != plain), "{header:?}");
        }
    }

    #[test]
    fn what_decides_nothing_is_not_in_the_key() {
        let plain = key(ROW_PATH, &[]);
        for header in [
            ("authorization", "Bearer x"),
            ("user-agent", "x"),
            ("accept-encoding", "gzip"),
            ("x-request-id", "1"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-acme-team", "1"),
            ("traceparent", "x"),
            ("cache-control", "max-age=5"),
            ("if-none-match", "x"),
            ("sforce-call-options", "client=Tool/1"),
            ("sforce-mru", "updateMru=false"),
        ] {
            assert_eq!(key(ROW_PATH, &[header]), plain, "{header:?}");
        }
        assert_eq!(key(QUERY, &[]), key("/services/data/v62.0/query/?q=select%20Id%20%20from+Account+", &[]));
    }

    #[test]
    fn a_header_that_nobody_knows_leaves_the_answer_in_doubt() {
        for header in [
            ("sforce-new", "1"),
            ("x-unknown", "1"),
            ("cookie", "sid=x"),
            ("range", "bytes=0-1"),
            ("if-match", "x"),
            ("if-unmodified-since", "x"),
            ("origin", "https://x"),
            ("sforce-mru", "updateMru=true"),
            ("accept-encoding", "gzip, identity;q=0"),
            ("accept-encoding", "br, *;q=0"),
        ] {
            assert!(key(ROW_PATH, &[header]).is_none(), "{header:?}");
        }
    }

    #[test]
    fn wishes_are_read() {
        let wish = |fields: &[(&str, &str)]| ask(ROW_PATH, fields).unwrap().wish;
        let seen =
            wish(&[("cache-control", "max-age=5, max-stale"), ("accept-encoding", "br, GZIP;q=0.5, deflate;q=0.0")]);
        assert_eq!((seen.max_age, seen.max_stale), (Some(Duration::from_secs(5)), Some(Duration::MAX)));
        assert!(seen.gzip && !seen.deflate && !seen.no_cache);
        let seen = wish(&[("cache-control", "No-Cache"), ("cache-control", "no-store,only-if-cached, max-stale=7")]);
        assert!(seen.no_cache && seen.no_store && seen.only_if_cached && !seen.gzip);
        assert_eq!(seen.max_stale, Some(Duration::from_secs(7)));
        assert!(wish(&[("pragma", "no-cache")]).no_cache);
        assert_eq!(wish(&[("cache-control", "max-age=soon")]).max_age, Some(Duration::ZERO));
    }

    #[test]
    fn a_query_depends_on_every_object_it_reads() {
        let question =
            ask("/services/data/v62.0/query?q=SELECT+Id+FROM+Account+WHERE+Id+IN+(SELECT+AccountId+FROM+Contact)", &[]);
        assert_eq!(question.unwrap().deps, Deps::Objects(smallvec![lower("account"), lower("contact")]));
    }

    proptest! {
        /// Two questions have one key only if they are about the same thing.
        #[test]
        fn keys_meet_only_where_questions_do(
            one in (0..3_u8, 0..2_u32, "Account|Lead|account", "001D0000000000[12]", "|Id|Name|Id,Name", 0..3_usize),
            other in (0..3_u8, 0..2_u32, "Account|Lead|account", "001D0000000000[12]", "|Id|Name|Id,Name", 0..3_usize),
        ) {
            let make = |(who, org, object, id, fields, header): &(u8, u32, String, String, String, usize)| {
                let parameters = if fields.is_empty() { String::new() } else { format!("?fields={fields}") };
                let target = format!("/services/data/v62.0/sobjects/{object}/{id}{parameters}");
                let headers: &[(&str, &str)] = [&[][..], &[("accept", "application/xml")], &[("x-prettyprint", "1")]][*header];
                ask_as(who + 1, *org, &target, headers).unwrap().key
            };
            prop_assert_eq!(make(&one) == make(&other), one == other);
        }
    }
}
