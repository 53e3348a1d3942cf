//! How a request wants to be answered, and which of its headers decide what the answer is.

use std::time::Duration;

use http::HeaderValue;
use http::header::HeaderMap;

use super::question::{Key, text};

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
    pub(super) fn read(headers: &HeaderMap, harmless: &[Box<str>], key: &mut Key) -> Option<Self> {
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
