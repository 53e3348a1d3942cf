//! From the tree to [`ConfigFile`], past every mistake.
//!
//! Serde stops at the first value it cannot take. So the value is set aside, its problem noted, and the reading
//! begins anew, until what is left can be read. Every key of the file has a default or is checked for presence
//! later, so setting one value aside never makes its neighbours unreadable.

use std::fmt::{self, Write as _};

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, Unexpected, Visitor};

use super::file::ConfigFile;
use super::problem::{Fault, Place, Problem};
use super::tree::{Entry, Located, Node, NodeId, Tree, Value};

/// After this many problems the reading ends: the file is not a configuration.
const MAX_PROBLEMS: usize = 200;

/// Reads what can be read. Problems are added to `problems`; what they concern has been set aside in `tree` and
/// has its default in the result. `None`: not even the whole is a map.
pub fn read(tree: &mut Tree, problems: &mut Vec<Problem>) -> Option<ConfigFile> {
    use serde::Deserialize as _;

    while problems.len() < MAX_PROBLEMS {
        let failure = match ConfigFile::deserialize(Reader { tree, node: tree.root() }) {
            Ok(file) => return Some(file),
            Err(failure) => failure,
        };
        let at = failure.at.unwrap_or(At { id: tree.root().id, key: false });
        let located =
            tree.locate(at.id).unwrap_or(Located { path: String::new(), key: Place::START, value: Place::START });
        let place = if at.key { located.key } else { located.value };
        let Fault { reason, hint } = failure.fault;
        if !speaks_of(problems, &located.path) {
            problems.push(Problem { place, path: located.path, reason, hint });
        }
        if at.id == tree.root().id || !tree.set_aside(at.id) {
            return None;
        }
    }
    problems.push(Problem {
        place: tree.root().place,
        path: String::new(),
        reason: format!("more than {MAX_PROBLEMS} mistakes, of which only so many are shown"),
        hint: None,
    });
    None
}

/// Whether one of `problems` is at `path` or inside of it, so that a further one there would only be its echo.
pub fn speaks_of(problems: &[Problem], path: &str) -> bool {
    problems
        .iter()
        .any(|known| known.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '['])))
}

/// Where reading failed: a value, or the key it has.
#[derive(Debug, Clone, Copy)]
struct At {
    id: NodeId,
    key: bool,
}

/// Why reading failed, and where, once that is known.
#[derive(Debug)]
struct Failure {
    fault: Fault,
    at: Option<At>,
}

impl Failure {
    fn new(fault: Fault) -> Self {
        Self { fault, at: None }
    }

    /// Says where, unless a deeper place is known.
    fn at(mut self, id: NodeId) -> Self {
        self.at.get_or_insert(At { id, key: false });
        self
    }

    fn at_key(mut self, id: NodeId) -> Self {
        self.at.get_or_insert(At { id, key: true });
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.fault, f)
    }
}

impl std::error::Error for Failure {}

impl de::Error for Failure {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Fault::from(message.to_string()))
    }

    /// Without the value, which may be a secret in the wrong place.
    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(Fault::new(format!("expected {expected}")))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(Fault::new(format!("expected {expected}")))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Fault::unknown("key", field, expected))
    }
}

/// A node as Serde reads it: the type that is wanted decides what a text means.
#[derive(Clone, Copy)]
struct Reader<'de> {
    tree: &'de Tree,
    node: &'de Node,
}

impl<'de> Reader<'de> {
    fn inside(self, node: &'de Node) -> Self {
        Self { node, ..self }
    }

    fn expected(self, what: &str) -> Failure {
        Failure::new(Fault::new(format!("expected {what}, found {}", self.node.kind())))
    }

    fn text(self, what: &str) -> Result<&'de str, Failure> {
        match &self.node.value {
            Value::Scalar { text, .. } if !self.node.is_null() => Ok(text),
            _ => Err(self.expected(what)),
        }
    }

    fn plain(self, what: &str) -> Result<&'de str, Failure> {
        match &self.node.value {
            Value::Scalar { plain: false, .. } => {
                Err(Failure::new(Fault::new(format!("expected {what}, found a text in quotes"))))
            }
            _ => self.text(what),
        }
    }

    /// The entries of a map that were not set aside; a key without a value stands for an empty map.
    fn entries(self, what: &str) -> Result<impl Iterator<Item = &'de Entry> + Clone + use<'de>, Failure> {
        let entries = match &self.node.value {
            Value::Map(entries) => entries.as_slice(),
            _ if self.node.is_null() => &[],
            _ => return Err(self.expected(what)),
        };
        Ok(entries.iter().filter(move |entry| !self.tree.is_unusable(entry.node.id)))
    }

    fn items(self, what: &str) -> Result<impl Iterator<Item = &'de Node> + use<'de>, Failure> {
        let items = match &self.node.value {
            Value::List(items) => items.as_slice(),
            _ if self.node.is_null() => &[],
            _ => return Err(self.expected(what)),
        };
        Ok(items.iter().filter(move |item| !self.tree.is_unusable(item.id)))
    }
}

/// Whole numbers are read from plain decimal digits only: `0x10`, `1_000` and `1e3` mean different things to
/// different readers.
fn whole_number<T: std::str::FromStr>(reader: Reader<'_>) -> Result<T, Failure> {
    let wrong = || Failure::new(Fault::new("expected a whole number").hint("write digits only, without unit"));
    let text = reader.plain("a whole number")?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    text.parse().map_err(|_| wrong())
}

macro_rules! numbers {
    ($($method:ident $visit:ident $as:ty),+ $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
            visitor.$visit(whole_number::<$as>(self)?)
        })+
    };
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match &self.node.value {
            Value::Scalar { .. } if self.node.is_null() => visitor.visit_unit(),
            Value::Scalar { text, .. } => visitor.visit_borrowed_str(text),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Map(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.plain("true or false")? {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            _ => Err(Failure::new(Fault::new("expected true or false"))),
        }
    }

    numbers! {
        deserialize_u8 visit_u64 u64, deserialize_u16 visit_u64 u64, deserialize_u32 visit_u64 u64,
        deserialize_u64 visit_u64 u64, deserialize_i8 visit_i64 i64, deserialize_i16 visit_i64 i64,
        deserialize_i32 visit_i64 i64, deserialize_i64 visit_i64 i64,
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_borrowed_str(self.text("a text")?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        if self.node.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_seq(Items { reader: self, rest: self.items("a list")? })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_map(Entries { reader: self, rest: self.entries("a map of keys")?, value: None })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let entries = self.entries("a map of keys")?;
        if let Some(unknown) = entries.clone().find(|entry| !fields.contains(&entry.key.as_str())) {
            return Err(Failure::new(Fault::unknown("key", &unknown.key, fields)).at_key(unknown.node.id));
        }
        visitor.visit_map(Entries { reader: self, rest: entries, value: None })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        if let Value::Map(_) = self.node.value {
            let mut entries = self.entries("one key")?;
            let (Some(entry), None) = (entries.next(), entries.next()) else {
                let fault = Fault::new("exactly one key belongs here");
                return Err(Failure::new(fault.hint(format!("one of {}", variants.join(", ")))));
            };
            known(name, &entry.key, variants).map_err(|failure| failure.at_key(entry.node.id))?;
            visitor.visit_enum(Variant { name: &entry.key, content: Some(self.inside(&entry.node)) })
        } else {
            let text = off(self.text(&format!("one of {}", variants.join(", ")))?, variants);
            known(name, text, variants)?;
            visitor.visit_enum(Variant { name: text, content: None })
        }
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct
    }
}

/// YAML 1.1, which Helm reads values with, makes `false` of an unquoted `off`.
fn off<'a>(text: &'a str, variants: &[&str]) -> &'a str {
    if text == "false" && variants.contains(&"off") { "off" } else { text }
}

/// Whether an enum has this variant. A long text is not repeated: it may be a key or token in the wrong place.
fn known(name: &str, text: &str, variants: &[&str]) -> Result<(), Failure> {
    if variants.contains(&text) {
        return Ok(());
    }
    let what = words(name);
    Err(Failure::new(if text.len() <= 32 {
        Fault::unknown(&what, text, variants)
    } else {
        Fault::new(format!("unknown {what}")).hint(format!("known: {}", variants.join(", ")))
    }))
}

/// The name of a type of [`super::file`] as words: `PolicyMode` is a policy mode, `MatchFile` a match.
fn words(name: &str) -> String {
    let mut words = String::new();
    for c in name.trim_end_matches("File").chars() {
        if c.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        let _ = write!(words, "{}", c.to_ascii_lowercase());
    }
    words
}

struct Items<'de, I> {
    reader: Reader<'de>,
    rest: I,
}

impl<'de, I: Iterator<Item = &'de Node>> de::SeqAccess<'de> for Items<'de, I> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failure> {
        self.rest
            .next()
            .map(|item| seed.deserialize(self.reader.inside(item)).map_err(|failure| failure.at(item.id)))
            .transpose()
    }
}

struct Entries<'de, I> {
    reader: Reader<'de>,
    rest: I,
    value: Option<&'de Node>,
}

impl<'de, I: Iterator<Item = &'de Entry>> de::MapAccess<'de> for Entries<'de, I> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Failure> {
        let Some(entry) = self.rest.next() else { return Ok(None) };
        self.value = Some(&entry.node);
        seed.deserialize(Key(&entry.key)).map(Some).map_err(|failure| failure.at_key(entry.node.id))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        let Some(node) = self.value.take() else {
            return Err(Failure::new(Fault::new("a value without a key")));
        };
        seed.deserialize(self.reader.inside(node)).map_err(|failure| failure.at(node.id))
    }
}

/// A key of a map: a text, or a member of a closed list.
struct Key<'de>(&'de str);

impl<'de> Deserializer<'de> for Key<'de> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        known(name, self.0, variants)?;
        visitor.visit_enum(Variant { name: self.0, content: None })
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// A variant of an enum: a name alone, or a name with content.
struct Variant<'de> {
    name: &'de str,
    content: Option<Reader<'de>>,
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Failure;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Failure> {
        let name: StrDeserializer<'de, Failure> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'de> {
    type Error = Failure;

    fn unit_variant(self) -> Result<(), Failure> {
        match self.content {
            None => Ok(()),
            Some(content) => {
                let fault = Fault::new(format!("{:?} takes no value", self.name));
                Err(Failure::new(fault.hint(format!("write only {}", self.name))).at_key(content.node.id))
            }
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Failure> {
        let Some(content) = self.content else {
            let fault = Fault::new(format!("{:?} needs a value", self.name));
            return Err(Failure::new(fault.hint(format!("write {{{}: ...}}", self.name))));
        };
        seed.deserialize(content).map_err(|failure| failure.at(content.node.id))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Failure> {
        self.newtype_variant_seed(SeedOf(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Failure> {
        self.newtype_variant_seed(SeedOf(visitor))
    }
}

/// Lets a visitor read whatever stands there.
struct SeedOf<V>(V);

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for SeedOf<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        deserializer.deserialize_any(self.0)
    }
}
