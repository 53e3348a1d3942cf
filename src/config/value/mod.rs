//! Values that are written as text: what is accepted, how they are shown, what the JSON Schema says of them.

mod net;
mod units;

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use smol_str::SmolStr;

use super::key::KeyDigest;
use super::problem::Fault;

pub use net::{CollectorUrl, HostName, ProxyUrl, WebUrl};
pub use units::{Percent, Period, Size, TimeOfDay};

/// A type with a written form.
pub trait Written: Sized {
    /// Its name in the JSON Schema.
    const NAME: &'static str;
    /// What the JSON Schema says of it.
    const DESCRIPTION: &'static str;
    /// A regular expression that every written form matches.
    const PATTERN: &'static str;

    /// Reads the written form. The fault repeats `text` only if it can never be a secret.
    fn read(text: &str) -> Result<Self, Fault>;

    /// The written form, as it is shown.
    fn write(&self) -> String;
}

/// Lets Serde and schemars read and write a [`Written`] type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<T>(pub T);

impl<T: Written> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.write())
    }
}

impl<'de, T: Written> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        T::read(&text).map(Text).map_err(de::Error::custom)
    }
}

impl<T: Written> JsonSchema for Text<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::NAME.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": T::DESCRIPTION, "pattern": T::PATTERN })
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Count<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> Count<MIN, MAX> {
    /// The number as a length.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// The number as a `u32`, which every number in the configuration fits into.
    pub fn as_u32(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Count<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(deserializer)?;
        if (MIN..=MAX).contains(&number) {
            Ok(Self(number))
        } else {
            Err(de::Error::custom(Fault::new(format!("{number} is out of range")).hint(format!("{MIN} to {MAX}"))))
        }
    }
}

impl<const MIN: u64, const MAX: u64> JsonSchema for Count<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("From{MIN}To{MAX}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

/// One value or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T: Serialize> Serialize for OneOrMany<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            many => many.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
                T::deserialize(de::value::StrDeserializer::new(text)).map(|one| vec![one])
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Vec<T>, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(list))
            }
        }

        deserializer.deserialize_any(Either(std::marker::PhantomData)).map(Self)
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("OneOrMany{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
    }
}

impl Written for KeyDigest {
    const NAME: &'static str = "KeySha256";
    const DESCRIPTION: &'static str = "SHA-256 of a key made by `weirkeeper key`: 64 hexadecimal digits.";
    const PATTERN: &'static str = "^[0-9A-Fa-f]{64}$";

    fn read(text: &str) -> Result<Self, Fault> {
        let hint = "`weirkeeper key` prints a key and its key_sha256";
        Self::parse(text).ok_or_else(|| match super::key::shape(text) {
            super::key::Shape::NotAKey => Fault::new("not 64 hexadecimal digits").hint(hint),
            super::key::Shape::Key | super::key::Shape::Damaged => {
                Fault::new("this is a key itself, not its SHA-256; it is no secret any more").hint(hint)
            }
        })
    }

    fn write(&self) -> String {
        format!("{}...", self.short())
    }
}

/// A name that operators give: of an org or a caller.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(pub SmolStr);

impl Written for Name {
    const NAME: &'static str = "Name";
    const DESCRIPTION: &'static str =
        "Lower-case letters, digits, `-` and `_`, at most 63, beginning with a letter or digit.";
    const PATTERN: &'static str = "^[a-z0-9][a-z0-9_-]{0,62}$";

    fn read(text: &str) -> Result<Self, Fault> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let good =
            text.len() <= 63 && text.starts_with(plain) && text.chars().all(|c| plain(c) || c == '-' || c == '_');
        if good {
            Ok(Self(SmolStr::new(text)))
        } else {
            Err(Fault::new(format!("{text:?} is not a name"))
                .hint("use lower-case letters, digits, - and _, at most 63, beginning with a letter or digit"))
        }
    }

    fn write(&self) -> String {
        self.0.to_string()
    }
}

/// An object's API name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiName(pub SmolStr);

impl Written for ApiName {
    const NAME: &'static str = "ObjectName";
    const DESCRIPTION: &'static str = "An object's API name, such as Account or Invoice__c.";
    const PATTERN: &'static str = "^[A-Za-z][A-Za-z0-9_]{0,79}$";

    fn read(text: &str) -> Result<Self, Fault> {
        let good = text.len() <= 80
            && text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if good {
            Ok(Self(SmolStr::new(text)))
        } else {
            Err(Fault::new(format!("{text:?} is not an object's API name")).hint("write it like Account or Invoice__c"))
        }
    }

    fn write(&self) -> String {
        self.0.to_string()
    }
}

/// The name of a header field.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldName(pub SmolStr);

impl Written for FieldName {
    const NAME: &'static str = "HeaderName";
    const DESCRIPTION: &'static str = "The name of a request header, such as X-Acme-Team.";
    const PATTERN: &'static str = "^[A-Za-z0-9_-]{1,64}$";

    fn read(text: &str) -> Result<Self, Fault> {
        let good = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        if good {
            Ok(Self(SmolStr::new(text)))
        } else {
            Err(Fault::new(format!("{text:?} is not the name of a header")).hint("write it like X-Acme-Team"))
        }
    }

    fn write(&self) -> String {
        self.0.to_string()
    }
}

/// A text that is taken as it is: not empty, at most 1,024 bytes, without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Phrase(pub SmolStr);

impl Written for Phrase {
    const NAME: &'static str = "Text";
    const DESCRIPTION: &'static str = "Text on one line, at most 1024 bytes.";
    // In two halves: regular expressions of Go, in which Helm is written, repeat at most 1,000 times.
    const PATTERN: &'static str = "^.{1,512}.{0,512}$";

    fn read(text: &str) -> Result<Self, Fault> {
        if text.is_empty() || text.len() > 1024 || text.chars().any(char::is_control) {
            return Err(Fault::new("not a text of 1 to 1024 bytes on one line"));
        }
        Ok(Self(SmolStr::new(text)))
    }

    fn write(&self) -> String {
        self.0.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};
    use std::time::Duration;

    use ipnet::IpNet;
    use proptest::prelude::*;

    use super::*;
    use crate::config::model::Origin;

    fn round_trip<T: Written + PartialEq + fmt::Debug>(value: &T) {
        assert_eq!(T::read(&value.write()).as_ref(), Ok(value));
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_as_the_same_value(bytes in 0_u64..=1 << 50, ms in 0_u64..31_622_400_000, port: u16, ip: [u8; 4]) {
            round_trip(&Size(bytes));
            round_trip(&Period(Duration::from_millis(ms)));
            round_trip(&SocketAddr::from((ip, port)));
            round_trip(&IpNet::from(IpAddr::from(ip)));
        }

        #[test]
        fn no_text_makes_a_value_panic(text in "\\PC{0,40}|[0-9a-zA-Z:/.@\\[\\]-]{0,40}") {
            let _ = (Size::read(&text), Period::read(&text), SocketAddr::read(&text), IpNet::read(&text));
            let _ = (KeyDigest::read(&text), Name::read(&text), HostName::read(&text), Origin::read(&text));
            let _ = (ProxyUrl::read(&text), WebUrl::read(&text), ApiName::read(&text), Phrase::read(&text));
            let _ = Origin::read(&format!("https://{text}"));
            let _ = (TimeOfDay::read(&text), WebUrl::read(&format!("http://{text}")));
        }
    }
}
