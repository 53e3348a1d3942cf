//! The few members of JSON request bodies that matter, read in one pass.
//!
//! Members are matched exactly; one that comes twice, or that differs from a known one only in case, makes the body
//! ambiguous and is an error. Everything else is passed over by serde's skipping, unread.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::value::RawValue;

use super::body::{BodyError, Kind};
use super::path::is_api_name;
use crate::call::ObjectName;

/// Subrequests that are read from one body; Salesforce takes 25, or 500 in a graph (facts 3.6, 3.7).
const MAX_SUBREQUESTS: usize = 1_000;
/// Types that are told apart in one collection; Salesforce takes 10.
const MAX_TYPES: usize = 64;

/// One subrequest of a composite, batch or graph.
#[derive(Debug)]
pub(crate) struct Subrequest<'a> {
    pub(crate) method: Cow<'a, str>,
    pub(crate) url: Cow<'a, str>,
    pub(crate) body: Option<&'a RawValue>,
}

/// A GraphQL request.
#[derive(Debug)]
pub(crate) struct GraphqlRequest<'a> {
    pub(crate) query: Cow<'a, str>,
    pub(crate) operation: Option<Cow<'a, str>>,
}

/// The types of the records in a collection or tree.
#[derive(Debug, Default)]
pub(crate) struct RecordTypes {
    pub(crate) names: Vec<ObjectName>,
    /// Some record says no usable type, or there are too many of them.
    pub(crate) unnamed: bool,
}

impl RecordTypes {
    fn note(&mut self, name: Option<&str>) {
        match name.filter(|name| is_api_name(name)) {
            Some(name) if self.names.iter().any(|known| known.eq_ignore_ascii_case(name)) => {}
            Some(name) if self.names.len() < MAX_TYPES => self.names.push(ObjectName::new(name)),
            _ => self.unnamed = true,
        }
    }
}

/// The subrequests of a container.
pub(crate) fn subrequests(kind: Kind, body: &[u8]) -> Result<Vec<Subrequest<'_>>, BodyError> {
    let mut all = Vec::new();
    let seed = match kind {
        Kind::Batch => Container { member: "batchRequests", graphs: false, all: &mut all },
        Kind::Graph => Container { member: "graphs", graphs: true, all: &mut all },
        _ => Container { member: "compositeRequest", graphs: false, all: &mut all },
    };
    parse(body, seed)?;
    Ok(all)
}

/// The types of the records under `records`, and in a tree those of their children.
pub(crate) fn record_types(body: &[u8], tree: bool) -> Result<RecordTypes, BodyError> {
    let mut types = RecordTypes::default();
    parse(body, RecordList { types: &mut types, tree, top: true })?;
    Ok(types)
}

/// The members of a GraphQL request.
pub(crate) fn graphql(body: &[u8]) -> Result<GraphqlRequest<'_>, BodyError> {
    let [query, operation] = parse(body, Members(["query", "operationName"]))?;
    Ok(GraphqlRequest { query: query.ok_or(BodyError::Shape)?, operation })
}

/// One member of an object, if it is a string.
pub(crate) fn member<'a>(body: &'a [u8], name: &'static str) -> Result<Option<Cow<'a, str>>, BodyError> {
    let [value] = parse(body, Members([name]))?;
    Ok(value)
}

/// The names under `sobjects` of a parameterised search.
pub(crate) fn searched_objects(body: &[u8]) -> Result<Vec<Cow<'_, str>>, BodyError> {
    let mut names = Vec::new();
    parse(body, Searched(&mut names))?;
    Ok(names)
}

fn parse<'de, S: DeserializeSeed<'de>>(body: &'de [u8], seed: S) -> Result<S::Value, BodyError> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if !first.is_some_and(|byte| b"{[\"ntf0123456789".contains(byte)) {
        return Err(BodyError::NotJson);
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = seed.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    value.map_err(|error| if error.is_data() { BodyError::Shape } else { BodyError::Json })
}

/// A string, borrowed unless it holds escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for TextVisitor<'a> {
            type Value = Text<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor(PhantomData))
    }
}

/// Matches a member's name: `Some(index)` into `known`, `None` for others, an error for one that only differs in case.
fn known<E: de::Error>(key: &str, known: &[&str]) -> Result<Option<usize>, E> {
    match known.iter().position(|name| name.eq_ignore_ascii_case(key)) {
        Some(at) if known.get(at) == Some(&key) => Ok(Some(at)),
        Some(_) => Err(E::custom("a member in the wrong case")),
        None => Ok(None),
    }
}

fn twice<E: de::Error>() -> E {
    E::custom("a member given twice")
}

/// Reads string members of an object; `null` counts as absent.
struct Members<const N: usize>([&'static str; N]);

impl<'de, const N: usize> DeserializeSeed<'de> for Members<N> {
    type Value = [Option<Cow<'de, str>>; N];

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Members<N> {
    type Value = [Option<Cow<'de, str>>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = [const { None }; N];
        let mut seen = [false; N];
        while let Some(Text(key)) = map.next_key()? {
            let Some(at) = known(&key, &self.0)? else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if let (Some(value), Some(seen)) = (values.get_mut(at), seen.get_mut(at)) {
                if std::mem::replace(seen, true) {
                    return Err(twice());
                }
                *value = map.next_value::<Option<Text<'de>>>()?.map(|text| text.0);
            }
        }
        Ok(values)
    }
}

/// The object around a list of subrequests, or a graph's.
struct Container<'r, 'de> {
    member: &'static str,
    graphs: bool,
    all: &'r mut Vec<Subrequest<'de>>,
}

impl<'de> DeserializeSeed<'de> for Container<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Container<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with {}", self.member)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = false;
        while let Some(Text(key)) = map.next_key()? {
            if known(&key, &[self.member])?.is_none() {
                map.next_value::<IgnoredAny>()?;
            } else if std::mem::replace(&mut seen, true) {
                return Err(twice());
            } else {
                map.next_value_seed(List { graphs: self.graphs, all: &mut *self.all })?;
            }
        }
        if seen { Ok(()) } else { Err(A::Error::custom("no subrequests")) }
    }
}

/// The list itself.
struct List<'r, 'de> {
    graphs: bool,
    all: &'r mut Vec<Subrequest<'de>>,
}

impl<'de> DeserializeSeed<'de> for List<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of subrequests")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        if self.graphs {
            loop {
                let graph = Container { member: "compositeRequest", graphs: false, all: &mut *self.all };
                if seq.next_element_seed(graph)?.is_none() {
                    return Ok(());
                }
            }
        }
        while let Some(subrequest) = seq.next_element::<Subrequest<'de>>()? {
            if self.all.len() >= MAX_SUBREQUESTS {
                return Err(A::Error::custom("too many subrequests"));
            }
            self.all.push(subrequest);
        }
        Ok(())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Subrequest<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SubrequestVisitor<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for SubrequestVisitor<'a> {
            type Value = Subrequest<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a subrequest")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut method, mut url, mut body) = (None, None, None);
                while let Some(Text(key)) = map.next_key()? {
                    match known(&key, &["method", "url", "body", "richInput"])? {
                        Some(0) if method.is_none() => method = Some(map.next_value::<Text<'a>>()?.0),
                        Some(1) if url.is_none() => url = Some(map.next_value::<Text<'a>>()?.0),
                        Some(2 | 3) if body.is_none() => body = Some(map.next_value::<&'a RawValue>()?),
                        Some(_) => return Err(twice()),
                        None => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                match (method, url) {
                    (Some(method), Some(url)) => Ok(Subrequest { method, url, body }),
                    _ => Err(A::Error::custom("a subrequest without method or url")),
                }
            }
        }
        deserializer.deserialize_map(SubrequestVisitor(PhantomData))
    }
}

/// An object with `records`, or anything else that may stand in a record's field.
struct RecordList<'r> {
    types: &'r mut RecordTypes,
    tree: bool,
    /// It is the body itself, which must be an object.
    top: bool,
}

impl<'de> DeserializeSeed<'de> for RecordList<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.top { deserializer.deserialize_map(self) } else { deserializer.deserialize_any(self) }
    }
}

impl<'de> Visitor<'de> for RecordList<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with records")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = false;
        while let Some(Text(key)) = map.next_key()? {
            if known(&key, &["records"])?.is_none() {
                map.next_value::<IgnoredAny>()?;
            } else if std::mem::replace(&mut seen, true) {
                return Err(twice());
            } else {
                map.next_value_seed(Records { types: &mut *self.types, tree: self.tree })?;
            }
        }
        if seen || !self.top { Ok(()) } else { Err(A::Error::custom("no records")) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// The list of records.
struct Records<'r> {
    types: &'r mut RecordTypes,
    tree: bool,
}

impl<'de> DeserializeSeed<'de> for Records<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Records<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Record { types: &mut *self.types, tree: self.tree })?.is_some() {}
        Ok(())
    }
}

/// One record.
struct Record<'r> {
    types: &'r mut RecordTypes,
    tree: bool,
}

impl<'de> DeserializeSeed<'de> for Record<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Record<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = false;
        while let Some(Text(key)) = map.next_key()? {
            if known(&key, &["attributes"])?.is_some() {
                if std::mem::replace(&mut seen, true) {
                    return Err(twice());
                }
                let [name] = map.next_value_seed(Members(["type"]))?;
                self.types.note(name.as_deref());
            } else if self.tree {
                map.next_value_seed(RecordList { types: &mut *self.types, tree: true, top: false })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        if !seen {
            self.types.note(None);
        }
        Ok(())
    }
}

/// A parameterised search.
struct Searched<'r, 'de>(&'r mut Vec<Cow<'de, str>>);

impl<'de> DeserializeSeed<'de> for Searched<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Searched<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a parameterised search")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        #[derive(Deserialize)]
        struct Searchable<'a> {
            #[serde(borrow)]
            name: Cow<'a, str>,
        }
        let mut seen = false;
        while let Some(Text(key)) = map.next_key()? {
            if known(&key, &["sobjects"])?.is_none() {
                map.next_value::<IgnoredAny>()?;
            } else if std::mem::replace(&mut seen, true) {
                return Err(twice());
            } else {
                let objects: Vec<Searchable<'de>> = map.next_value()?;
                self.0.extend(objects.into_iter().map(|object| object.name));
            }
        }
        Ok(())
    }
}
