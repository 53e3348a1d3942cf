//! What is asked, if it is a question whose answer may be kept: which one, on what its answer depends, and its key.
//!
//! Two requests have the same key only if Salesforce answers both with the same bytes, as far as anything in the request
//! decides. The key holds the org, the principal, what is asked in one spelling, and every header that changes an answer; a
//! header nobody knows, a parameter or a spelling in doubt makes no key at all.

use http::Method;
use http::header::HeaderMap;
use memchr::memchr;
use smallvec::smallvec;

use super::effect::{ROW, last_segment};
use super::relations::Objects;
use super::rules::Rules;
use super::touch::{Deps, RowId, lower};
use super::wish::Wish;
use crate::call::{Call, Family, Idempotency, Meaning, Operation, Principal, Reach};
use crate::salesforce::{only_row, steady_query};

/// The kinds of questions whose answers may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The list of all objects.
    Global,
    /// What one object looks like.
    Describe,
    /// One row.
    Row,
    /// One row by an external id.
    External,
    /// Rows by their ids.
    Collection,
    /// A query.
    Query,
    /// What the org has used of its allowances.
    Limits,
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
            (Operation::Read, Family::Rest) => match meaning.template {
                ROW => Some(Self::Row),
                "/services/data/{version}/sobjects/{object}/{field}/{value}" => Some(Self::External),
                _ => None,
            },
            (Operation::Read, Family::Collections)
                if meaning.template == "/services/data/{version}/composite/sobjects/{object}" =>
            {
                Some(Self::Collection)
            }
            (Operation::Limits, Family::Rest) if meaning.template == "/services/data/{version}/limits" => {
                Some(Self::Limits)
            }
            (Operation::Query, Family::Query) if meaning.template == "/services/data/{version}/query" => {
                Some(Self::Query)
            }
            _ => None,
        }
    }

    /// Whether its answer holds rows.
    pub fn is_of_rows(self) -> bool {
        matches!(self, Self::Row | Self::External | Self::Collection | Self::Query)
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
    /// Who asks.
    pub who: Principal,
    /// Whether others have the same rights, by the operator's word.
    pub shared: bool,
    /// What its answer depends on.
    pub deps: Deps,
    /// By which its answer is found.
    pub key: Key,
    /// How it wants to be answered.
    pub wish: Wish,
}

impl Question {
    /// Reads what `call` asks of org `org`; `None` if its answer must not be kept. `reached` are the objects a query reads, if
    /// it reads more than it names.
    pub fn of(
        kind: Kind,
        call: &Call,
        org: u32,
        target: &str,
        headers: &HeaderMap,
        rules: &Rules,
        reached: Option<Objects>,
    ) -> Option<Self> {
        if call.principal == Principal::NOBODY {
            return None;
        }
        let query = memchr(b'?', target.as_bytes());
        let (path, parameters) =
            query.and_then(|at| Some((target.get(..at)?, target.get(at + 1..)?))).unwrap_or((target, ""));
        let version = call.meaning.version?;
        let mut key = Key::with_capacity(USUAL_KEY);
        key.extend_from_slice(&org.to_be_bytes());
        key.extend_from_slice(&rules.kept_for(call).0);
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
            Kind::External => {
                key.push(b'e');
                let object = call.meaning.object.as_deref()?;
                let (field, value) = external_id(path)?;
                text(&mut key, object.as_bytes());
                text(&mut key, field.as_bytes());
                text(&mut key, value.as_bytes());
                text(&mut key, fields(parameters)?.as_bytes());
                // Which row that is may change with any write of its object.
                Deps::Objects(smallvec![lower(object)])
            }
            Kind::Collection => {
                key.push(b'c');
                let object = call.meaning.object.as_deref()?;
                text(&mut key, object.as_bytes());
                text(&mut key, collection(parameters)?.as_bytes());
                Deps::Objects(smallvec![lower(object)])
            }
            Kind::Limits => {
                key.push(b'l');
                nothing(parameters, path)?;
                Deps::Metadata(None)
            }
            Kind::Query => {
                key.push(b'q');
                let query = steady_query(parameters)?;
                text(&mut key, query.as_bytes());
                let reached = match reached {
                    Some(objects) => objects,
                    None => objects(&call.meaning)?,
                };
                match (reached.as_slice(), only_row(&query).and_then(RowId::parse)) {
                    ([object], Some(id)) => Deps::Row(object.clone(), id),
                    _ => Deps::Objects(reached),
                }
            }
        };
        let wish = Wish::read(headers, &rules.harmless, &mut key)?;
        let shared = rules.kept_for(call) != call.principal;
        Some(Self { kind, who: call.principal, shared, deps, key, wish })
    }
}

impl Question {
    /// The same question, without conditions and wishes but for the codings its sender takes.
    #[must_use]
    pub fn plainly(&self) -> Self {
        let Wish { gzip, deflate, .. } = self.wish;
        let wish = Wish { gzip, deflate, ..Wish::default() };
        Self {
            kind: self.kind,
            who: self.who,
            shared: self.shared,
            deps: self.deps.clone(),
            key: self.key.clone(),
            wish,
        }
    }
}

/// Appends a text whose end is told.
pub(super) fn text(key: &mut Key, text: &[u8]) {
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

/// Field and value of an external id, as they stand in the path: to Salesforce another spelling may be another value.
fn external_id(path: &str) -> Option<(&str, &str)> {
    let (rest, value) = path.rsplit_once('/')?;
    let (_, field) = rest.rsplit_once('/')?;
    // An end that looks like a format, and a way to another object, are not understood.
    let plain = field.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (plain && !field.is_empty() && !value.is_empty() && !value.contains('.')).then_some((field, value))
}

/// The parameters of a collection: ids, and names of its own fields.
fn collection(parameters: &str) -> Option<&str> {
    let (mut ids, mut fields) = (false, false);
    for member in parameters.split('&') {
        let (name, value) = member.split_once('=')?;
        let known = match name {
            "ids" => &mut ids,
            "fields" => &mut fields,
            _ => return None,
        };
        let plain = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b','));
        if std::mem::replace(known, true) || !plain || value.is_empty() {
            return None;
        }
    }
    (ids && fields).then_some(parameters)
}

/// All objects a query reads, if it names them all.
pub(super) fn objects(meaning: &Meaning) -> Option<Objects> {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::super::rules::tests::keeping_rows;
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
        Question::of(kind, &call, org, target, &map(headers), &keeping_rows(), None)
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
            ("/services/data/v62.0/sobjects/Account/Ext_Id__c/a%2Fb", Kind::External),
            ("/services/data/v62.0/composite/sobjects/Account?ids=001D000000IqhSLIAZ&fields=Id,Name", Kind::Collection),
            ("/services/data/v62.0/limits", Kind::Limits),
        ] {
            assert_eq!(ask(target, &[]).map(|question| question.kind), Some(kind), "{target}");
            // Whose answers are changed for each caller, and so need a map of their fields, is no question.
            assert!(Urls::of(&understand(&Method::GET, target, &Costs::default())).is_none(), "{target}");
        }
        for target in [
            "/services/data/v62.0/limits?x=1",
            "/services/data/v62.0/limits/recordCount?sObjects=Account",
            "/services/data/v62.0/recent",
            "/services/data/v62.0/sobjects/Account/Ext_Id__c/a.b",
            "/services/data/v62.0/sobjects/Account/Ext_Id__c/7?fields=Owner.Name",
            "/services/data/v62.0/sobjects/Contact/Account.Ext_Id__c/7",
            "/services/data/v62.0/composite/sobjects/Account?ids=001D000000IqhSLIAZ",
            "/services/data/v62.0/composite/sobjects/Account?ids=001D000000IqhSLIAZ&fields=Owner.Name",
            "/services/data/v62.0/composite/sobjects/Account?ids=a&ids=b&fields=Id",
            "/services/data/v62.0/composite/sobjects/Account?ids=a&fields=Id&x=1",
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

    #[test]
    fn a_query_for_one_id_depends_on_that_row_alone() {
        let deps = |soql: &str| ask(&format!("/services/data/v62.0/query?q={soql}"), &[]).unwrap().deps;
        let row = Deps::Row(lower("account"), RowId::parse("001D000000IqhSL").unwrap());
        assert_eq!(deps("SELECT+Name+FROM+Account+WHERE+Id='001D000000IqhSLIAZ'+LIMIT+1"), row);
        // What is no id says nothing about a row.
        assert_eq!(deps("SELECT+Name+FROM+Account+WHERE+Id='001'"), Deps::Objects(smallvec![lower("account")]));
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
