//! JSON that keeps the order of its members.
//!
//! Salesforce's answers follow the order of the SELECT list, so an alphabetical map would be a tell-tale.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use smol_str::SmolStr;

/// One JSON value.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum Json {
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    Num(f64),
    Str(SmolStr),
    Arr(Vec<Json>),
    Obj(Vec<(SmolStr, Json)>),
}

/// An object from `name: value` pairs, each value converted with `Into`.
macro_rules! obj {
    ($($name:literal : $value:expr),* $(,)?) => {
        $crate::sim::json::Json::Obj(vec![$((smol_str::SmolStr::new_static($name), $crate::sim::json::Json::from($value))),*])
    };
}
pub(super) use obj;

impl Json {
    /// Parses UTF-8 JSON; the message is the parser's, without the text it stands in.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }

    /// The compact text.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The indented text, for `X-PrettyPrint: 1`.
    pub(super) fn to_pretty_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// The member `name` of an object, names compared exactly.
    pub(super) fn get(&self, name: &str) -> Option<&Json> {
        self.members().iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The members of an object; none for anything else.
    pub(super) fn members(&self) -> &[(SmolStr, Json)] {
        match self {
            Self::Obj(members) => members,
            _ => &[],
        }
    }

    /// The items of an array; none for anything else.
    pub(super) fn items(&self) -> &[Json] {
        match self {
            Self::Arr(items) => items,
            _ => &[],
        }
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    pub(super) fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Num(number) => Some(*number),
            _ => None,
        }
    }

    /// A whole number that is not negative; what has a fraction is cut.
    pub(super) fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Int(number) => u64::try_from(*number).ok(),
            Self::Num(number) => u64::try_from(*number as i64).ok(),
            _ => None,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The text member `name`, or nothing.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Self::as_str)
    }

    /// Appends a member to an object.
    pub(super) fn push(&mut self, name: impl Into<SmolStr>, value: impl Into<Json>) {
        if let Self::Obj(members) = self {
            members.push((name.into(), value.into()));
        }
    }

    /// What the value looks like inside text: strings bare, the rest as JSON.
    pub(super) fn plain(&self) -> String {
        match self {
            Self::Str(text) => text.to_string(),
            Self::Null => String::new(),
            other => String::from_utf8(other.to_bytes()).unwrap_or_default(),
        }
    }
}

impl From<bool> for Json {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}
impl From<i64> for Json {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}
impl From<u16> for Json {
    fn from(value: u16) -> Self {
        Self::Int(i64::from(value))
    }
}
impl From<u32> for Json {
    fn from(value: u32) -> Self {
        Self::Int(i64::from(value))
    }
}
impl From<u64> for Json {
    fn from(value: u64) -> Self {
        Self::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}
impl From<usize> for Json {
    fn from(value: usize) -> Self {
        Self::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}
impl From<f64> for Json {
    fn from(value: f64) -> Self {
        Self::Num(value)
    }
}
impl From<&str> for Json {
    fn from(value: &str) -> Self {
        Self::Str(SmolStr::new(value))
    }
}
impl From<String> for Json {
    fn from(value: String) -> Self {
        Self::Str(SmolStr::from(value))
    }
}
impl From<SmolStr> for Json {
    fn from(value: SmolStr) -> Self {
        Self::Str(value)
    }
}
impl From<&SmolStr> for Json {
    fn from(value: &SmolStr) -> Self {
        Self::Str(value.clone())
    }
}
impl<T: Into<Json>> From<Vec<T>> for Json {
    fn from(value: Vec<T>) -> Self {
        Self::Arr(value.into_iter().map(Into::into).collect())
    }
}
impl<T: Into<Json>> From<Option<T>> for Json {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => out.serialize_unit(),
            Self::Bool(flag) => out.serialize_bool(*flag),
            Self::Int(number) => out.serialize_i64(*number),
            Self::Num(number) => out.serialize_f64(*number),
            Self::Str(text) => out.serialize_str(text),
            Self::Arr(items) => {
                let mut seq = out.serialize_seq(Some(items.len()))?;
                for item in items {
                    seq.serialize_element(item)?;
                }
                seq.end()
            }
            Self::Obj(members) => {
                let mut map = out.serialize_map(Some(members.len()))?;
                for (name, value) in members {
                    map.serialize_entry(name.as_str(), value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Int(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(i64::try_from(value).map_or(Json::Num(value as f64), Json::Int))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Num(value))
    }
    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Str(SmolStr::new(value)))
    }
    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }
    fn visit_none<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Json::Arr(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, Json>()? {
            members.push((SmolStr::from(name), value));
        }
        Ok(Json::Obj(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order() {
        let text = br#"{"b":1,"a":[true,null,"x",2.5],"Z":{}}"#;
        let value = Json::parse(text).unwrap();
        assert_eq!(value.to_bytes(), text);
        assert_eq!(value.get("a").unwrap().items().len(), 4);
    }

    #[test]
    fn bad_text_is_refused() {
        assert!(Json::parse(b"{\"a\":}").is_err());
        assert!(Json::parse(b"{} x").is_err());
        let deep = "[".repeat(100_000);
        assert!(Json::parse(deep.as_bytes()).is_err());
    }
}
