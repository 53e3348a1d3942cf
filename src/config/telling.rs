//! What a configuration says of log, metrics and traces: a part of [`super::file`], and what it means: a part of
//! [`super::model`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::secret::SecretRef;
use super::value::{CollectorUrl, Count, FieldName, Percent, Period, Phrase, Size, Text};

/// The access log.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogFile {
    /// Where lines go.
    pub access: AccessTo<Text<Phrase>>,
    /// Lines that may wait to be written; beyond it they are dropped and counted.
    pub buffer_bytes: Text<Size>,
}

impl Default for LogFile {
    fn default() -> Self {
        Self { access: AccessTo::Stdout, buffer_bytes: Text(Size(1 << 20)) }
    }
}

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "AccessTo")]
pub enum AccessTo<P> {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Nowhere.
    Off,
    /// Appended to this file, relative to the configuration's directory.
    File(P),
}

/// How many different values a metric label may take before further ones are called `other`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsFile {
    /// Object names.
    pub max_objects: Count<1, 10_000>,
    /// Caller names.
    pub max_callers: Count<1, 10_000>,
}

impl Default for MetricsFile {
    fn default() -> Self {
        Self { max_objects: Count(200), max_callers: Count(500) }
    }
}

/// Traces: one span for each request, sent by OTLP over HTTP in JSON. Nothing is traced without an endpoint.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TracesFile {
    /// Where spans are sent, such as `http://collector:4318/v1/traces`; not through the egress proxy. Default: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Text<CollectorUrl>>,
    /// Headers for the collector, such as its token, by name. They need an https endpoint, or one on loopback.
    #[schemars(extend("propertyNames" = { "$ref": "#/definitions/HeaderName" }))]
    pub headers: BTreeMap<Text<FieldName>, SecretRef>,
    /// The share of requests that are traced, of those without a `traceparent`; the others say themselves whether they are.
    pub sample: Text<Percent>,
    /// Spans that may wait to be sent; beyond it they are dropped and counted.
    pub queue: Count<1, 100_000>,
    /// Spans sent at once.
    pub batch: Count<1, 10_000>,
    /// How long spans gather, unless there are enough before.
    pub every: Text<Period>,
}

impl Default for TracesFile {
    fn default() -> Self {
        Self {
            endpoint: None,
            headers: BTreeMap::new(),
            sample: Text(Percent(100)),
            queue: Count(2_048),
            batch: Count(512),
            every: Text(Period(Duration::from_secs(5))),
        }
    }
}

/// The access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Where lines go.
    pub access: AccessTo<PathBuf>,
    /// Bytes of lines that may wait to be written; more are dropped and counted.
    pub buffer_bytes: usize,
}

impl Log {
    /// The file that is written to, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match &self.access {
            AccessTo::File(path) => Some(path),
            AccessTo::Stdout | AccessTo::Stderr | AccessTo::Off => None,
        }
    }
}

/// How many different values a metric label may take before further ones are called `other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricCaps {
    /// Object names.
    pub max_objects: usize,
    /// Caller names.
    pub max_callers: usize,
}

/// Which requests are traced, and where their spans go.
#[derive(Debug, Clone, PartialEq)]
pub struct Traces {
    /// Where spans are sent.
    pub endpoint: http::Uri,
    /// Headers for the collector; their values are marked as sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The share of requests that are traced, in thousandths, of those whose callers say nothing of it.
    pub sample: u16,
    /// Spans that may wait to be sent.
    pub queue: usize,
    /// Spans sent at once.
    pub batch: usize,
    /// How long spans gather.
    pub every: Duration,
}
