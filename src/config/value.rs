//! Values that are written as text: what is accepted, how they are shown, what the JSON Schema says of them.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::uri::{Authority, Scheme};
use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use smol_str::SmolStr;

use super::key::KeyDigest;
use super::model::Origin;
use super::problem::Fault;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

/// A number of bytes: `512`, `16KiB`, `1MiB`, `2GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

const SIZE_UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl Written for Size {
    const NAME: &'static str = "Size";
    const DESCRIPTION: &'static str = "A number of bytes: 512B, 16KiB, 1MiB or 2GiB.";
    const PATTERN: &'static str = "^[0-9]+(B|KiB|MiB|GiB)$";

    fn read(text: &str) -> Result<Self, Fault> {
        let hint = "write a whole number with B, KiB, MiB or GiB, such as 16KiB";
        let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let factor = match unit {
            "B" => 1,
            _ => SIZE_UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .map(|(_, factor)| *factor)
                .ok_or_else(|| Fault::new("not a size").hint(hint))?,
        };
        let number: u64 = digits.parse().map_err(|_| Fault::new("not a size").hint(hint))?;
        number
            .checked_mul(factor)
            .filter(|bytes| *bytes <= 1 << 50)
            .map(Self)
            .ok_or_else(|| Fault::new("this size is beyond all bounds").hint("1PiB is the most"))
    }

    fn write(&self) -> String {
        SIZE_UNITS
            .iter()
            .find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor))
            .map_or_else(|| format!("{}B", self.0), |(unit, factor)| format!("{}{unit}", self.0 / factor))
    }
}

/// A length of time: `500ms`, `10s`, `1h30m`, `1d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(pub Duration);

/// Units from large to small, in milliseconds.
const PERIOD_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Written for Period {
    const NAME: &'static str = "Duration";
    const DESCRIPTION: &'static str = "A length of time: 500ms, 10s, 5m, 1h30m or 1d, units from large to small.";
    const PATTERN: &'static str = "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$";

    fn read(text: &str) -> Result<Self, Fault> {
        let wrong = || {
            Fault::new("not a duration")
                .hint("write whole numbers with d, h, m, s or ms, from large to small, such as 10s or 1h30m")
        };
        let mut rest = text;
        let mut total = 0_u64;
        let mut units = PERIOD_UNITS.iter();
        while !rest.is_empty() {
            let (digits, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?);
            let (unit, after) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
            let number: u64 = digits.parse().map_err(|_| wrong())?;
            let factor = units.by_ref().find(|(name, _)| *name == unit).map(|(_, factor)| *factor).ok_or_else(wrong)?;
            total = number.checked_mul(factor).and_then(|ms| total.checked_add(ms)).ok_or_else(wrong)?;
            rest = after;
        }
        if text.is_empty() {
            return Err(wrong());
        }
        if total > 366 * 86_400_000 {
            return Err(Fault::new("this duration is beyond all bounds").hint("366d is the most"));
        }
        Ok(Self(Duration::from_millis(total)))
    }

    fn write(&self) -> String {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return "0s".to_owned();
        }
        let mut text = String::new();
        for (unit, factor) in PERIOD_UNITS {
            if rest >= factor {
                let _ = write!(text, "{}{unit}", rest / factor);
                rest %= factor;
            }
        }
        text
    }
}

impl Written for SocketAddr {
    const NAME: &'static str = "SocketAddress";
    const DESCRIPTION: &'static str = "IP address and port: 0.0.0.0:8080 or [::1]:8080.";
    const PATTERN: &'static str = "^(\\[[0-9A-Fa-f:.]+\\]|[0-9.]+):[0-9]+$";

    fn read(text: &str) -> Result<Self, Fault> {
        text.parse().map_err(|_| {
            Fault::new(format!("{text:?} is not an IP address with a port"))
                .hint("write it like 0.0.0.0:8080 or [::]:8080; host names are not looked up here")
        })
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Written for IpNet {
    const NAME: &'static str = "Network";
    const DESCRIPTION: &'static str = "A network or a single address: 10.0.0.0/8, fd00::/8 or 192.0.2.7.";
    const PATTERN: &'static str = "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$";

    fn read(text: &str) -> Result<Self, Fault> {
        let network = match text.parse::<Self>() {
            Ok(network) => network,
            Err(_) => text.parse::<IpAddr>().map(Self::from).map_err(|_| {
                Fault::new(format!("{text:?} is not a network")).hint("write it like 10.0.0.0/8 or 192.0.2.7")
            })?,
        };
        if network.trunc() == network {
            Ok(network)
        } else {
            Err(Fault::new(format!("{text} has bits set beyond its prefix"))
                .hint(format!("did you mean {}?", network.trunc())))
        }
    }

    fn write(&self) -> String {
        self.to_string()
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

/// A host name or address without port, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(pub SmolStr);

impl Written for HostName {
    const NAME: &'static str = "Host";
    const DESCRIPTION: &'static str = "A host name or address, without scheme and port.";
    const PATTERN: &'static str = "^(\\[[0-9A-Fa-f:.]+\\]|[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)$";

    fn read(text: &str) -> Result<Self, Fault> {
        let wrong = |reason: String| Fault::new(reason).hint("write only the host, such as salesforce.acme.internal");
        if text.contains("://") || text.contains('/') {
            return Err(wrong("a host has no scheme and no path".to_owned()));
        }
        if is_host(text) {
            return Ok(Self(SmolStr::new(text.to_ascii_lowercase())));
        }
        if text.parse::<Authority>().is_ok_and(|authority| authority.port().is_some() && is_host(authority.host())) {
            return Err(wrong(format!("{text:?} has a port, which is not compared")));
        }
        Err(wrong(format!("{text:?} is not a host name")))
    }

    fn write(&self) -> String {
        self.0.to_string()
    }
}

/// A DNS name of at most 253 characters, an IPv4 address, or an IPv6 address in brackets.
fn is_host(text: &str) -> bool {
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().is_ok();
    }
    text.len() <= 253
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

impl Origin {
    /// Where users of production orgs log in.
    pub(super) fn salesforce_login() -> Self {
        Self::new(true, Authority::from_static("login.salesforce.com"), 443)
    }
}

impl Written for Origin {
    const NAME: &'static str = "Origin";
    const DESCRIPTION: &'static str = "Scheme and host, with a port if it is not the scheme's own, without a path.";
    const PATTERN: &'static str = "^https?://[^/?#@]+/?$";

    fn read(text: &str) -> Result<Self, Fault> {
        let hint = "write it like https://acme.my.salesforce.com";
        let (https, authority) = absolute(text, hint)?;
        let (uri_authority, path) = authority;
        if !matches!(path.as_str(), "" | "/") {
            return Err(Fault::new("only scheme and host belong here, no path").hint(hint));
        }
        let own = if https { 443 } else { 80 };
        let port = uri_authority.port_u16().unwrap_or(own);
        let host = uri_authority.host().to_ascii_lowercase();
        let shown = if port == own { host } else { format!("{host}:{port}") };
        let authority = shown.parse().map_err(|_| Fault::new("not a URL").hint(hint))?;
        Ok(Self::new(https, authority, port))
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

/// Splits an absolute http or https URL. Its text is never repeated in a fault: it may hold a password.
fn absolute(text: &str, hint: &str) -> Result<(bool, (Authority, String)), Fault> {
    let uri: http::Uri = text.parse().map_err(|_| Fault::new("not a URL").hint(hint))?;
    let https = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => true,
        Some(scheme) if *scheme == Scheme::HTTP => false,
        Some(_) => return Err(Fault::new("only http and https are spoken here").hint(hint)),
        None => return Err(Fault::new("not an absolute URL").hint(hint)),
    };
    let path = uri.path_and_query().map(|path| path.as_str().to_owned()).unwrap_or_default();
    let authority = uri.authority().cloned().ok_or_else(|| Fault::new("not a URL with a host").hint(hint))?;
    if authority.as_str().contains('@') {
        return Err(Fault::new("a URL in a configuration holds no user name or password")
            .hint("credentials are given as {env: NAME} or {file: PATH} under a key of their own"));
    }
    if !is_host(authority.host()) {
        return Err(Fault::new("not a URL with a host").hint(hint));
    }
    if authority.as_str().len() > authority.host().len() && authority.port_u16().is_none_or(|port| port == 0) {
        return Err(Fault::new("not a URL with a port from 1 to 65535").hint(hint));
    }
    Ok((https, (authority, path)))
}

/// The address of an egress proxy: `http://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyUrl {
    /// Host without brackets.
    pub host: SmolStr,
    /// Port.
    pub port: u16,
}

impl Written for ProxyUrl {
    const NAME: &'static str = "ProxyUrl";
    const DESCRIPTION: &'static str = "An HTTP proxy, with its port: http://egress:3128.";
    const PATTERN: &'static str = "^http://[^/?#@]+:[0-9]+/?$";

    fn read(text: &str) -> Result<Self, Fault> {
        let hint = "write it like http://egress:3128";
        let (https, (authority, path)) = absolute(text, hint)?;
        if https || !matches!(path.as_str(), "" | "/") {
            return Err(Fault::new("only http proxies without a path are known").hint(hint));
        }
        let port = authority.port_u16().ok_or_else(|| Fault::new("the proxy's port is missing").hint(hint))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        Ok(Self { host: SmolStr::new(host), port })
    }

    fn write(&self) -> String {
        if self.host.contains(':') {
            format!("http://[{}]:{}", self.host, self.port)
        } else {
            format!("http://{}:{}", self.host, self.port)
        }
    }
}

/// A URL that is fetched: `https`, or `http` on loopback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebUrl(pub http::Uri);

impl Written for WebUrl {
    const NAME: &'static str = "Url";
    const DESCRIPTION: &'static str = "An https URL; http only on loopback.";
    const PATTERN: &'static str = "^https?://[^/?#@]+(/[^#]*)?$";

    fn read(text: &str) -> Result<Self, Fault> {
        let hint = "write it like https://login.acme.internal/keys";
        let (https, (authority, _)) = absolute(text, hint)?;
        if !https && !Origin::new(false, authority, 80).is_loopback() {
            return Err(Fault::new("keys fetched without TLS prove nothing").hint("use https"));
        }
        text.parse().map(Self).map_err(|_| Fault::new("not a URL").hint(hint))
    }

    fn write(&self) -> String {
        self.0.to_string()
    }
}

/// An object's API name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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

/// A text that is taken as it is: not empty, at most 1,024 bytes, without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Phrase(pub SmolStr);

impl Written for Phrase {
    const NAME: &'static str = "Text";
    const DESCRIPTION: &'static str = "Text on one line, at most 1024 bytes.";
    const PATTERN: &'static str = "^.{1,1024}$";

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
    use proptest::prelude::*;

    use super::*;

    fn size(text: &str) -> Option<u64> {
        Size::read(text).ok().map(|size| size.0)
    }

    fn millis(text: &str) -> Option<u128> {
        Period::read(text).ok().map(|period| period.0.as_millis())
    }

    #[test]
    fn sizes_are_whole_and_have_a_unit() {
        assert_eq!(size("16KiB"), Some(16 << 10));
        assert_eq!(size("0B"), Some(0));
        assert_eq!(size("2GiB"), Some(2 << 30));
        for wrong in
            ["", "16", "KiB", "16 KiB", "16KB", "16kib", "1.5MiB", "-1B", "+1B", "１KiB", "99999999999999999GiB"]
        {
            assert_eq!(size(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn durations_go_from_large_to_small_and_have_units() {
        assert_eq!(millis("1h30m"), Some(5_400_000));
        assert_eq!(millis("1d2h3m4s5ms"), Some(93_784_005));
        assert_eq!(millis("500ms"), Some(500));
        assert_eq!(millis("0s"), Some(0));
        for wrong in
            ["", "10", "s", "10 s", "1m1h", "1s1s", "1.5s", "-1s", "1y", "367d", "99999999999999999999d", "1sx"]
        {
            assert_eq!(millis(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn hosts_are_names_or_addresses_alone() {
        for right in ["a", "salesforce.acme.internal", "10.0.0.1", "[::1]", "A-b_c.d"] {
            assert_eq!(HostName::read(right).map(|host| host.0), Ok(right.to_ascii_lowercase().into()));
        }
        let long = "a.".repeat(127) + "a";
        for wrong in ["", "-a", "a-", "a..b", "a:80", "https://a", "a/b", "::1", "[::1", "a b", "u@a", long.as_str()] {
            assert!(HostName::read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn origins_lose_the_schemes_own_port_and_case() {
        let read = |text: &str| Origin::read(text).map(|origin| (origin.to_string(), origin.port()));
        assert_eq!(read("https://ACME.my.salesforce.com:443/"), Ok(("https://acme.my.salesforce.com".to_owned(), 443)));
        assert_eq!(read("http://[::1]:8081"), Ok(("http://[::1]:8081".to_owned(), 8081)));
        assert!(Origin::read("http://[::1]:8081").is_ok_and(|origin| origin.is_loopback()));
        for wrong in [
            "",
            "acme",
            "//acme",
            "ftp://acme",
            "https://",
            "https://u:p@acme",
            "https://acme/x",
            "https://acme?x=1",
            "https://acme:0",
            "https://acme:99999",
            "https://acme:",
            "https://a b",
        ] {
            assert!(Origin::read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn networks_have_no_bits_beyond_their_prefix() {
        assert_eq!(IpNet::read("192.0.2.7").map(|net| net.to_string()), Ok("192.0.2.7/32".to_owned()));
        assert_eq!(IpNet::read("10.1.0.0/8").unwrap_err().hint.as_deref(), Some("did you mean 10.0.0.0/8?"));
        assert!(IpNet::read("10.0.0.0/33").is_err());
    }

    #[test]
    fn proxies_have_a_port() {
        let url = ProxyUrl::read("http://[fd00::1]:3128/").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.write().as_str()), ("fd00::1", 3128, "http://[fd00::1]:3128"));
    }

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
            let _ = WebUrl::read(&format!("http://{text}"));
        }
    }
}
