//! Traces, as one configuration wants them: which requests are traced, and how the collector is reached.

use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue};

use super::{Unusable, connector};
use crate::config::{Config, Upstream};
use crate::exchange::{Limits, Origin, Target};

/// What is done with spans.
#[derive(Debug)]
pub struct LiveTraces {
    /// The share of requests that are traced, in thousandths.
    sample: u16,
    /// The collector.
    pub target: Target,
    /// What of it takes spans.
    pub path: PathAndQuery,
    /// Headers for it.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Spans that may wait to be sent.
    pub queue: usize,
    /// Spans sent at once.
    pub batch: usize,
    /// How long spans gather.
    pub every: Duration,
}

impl LiveTraces {
    /// Those that `config` wants, if it wants any.
    pub(super) fn new(config: &Config) -> Result<Option<Self>, Unusable> {
        let Some(traces) = &config.traces else { return Ok(None) };
        let uri = &traces.endpoint;
        let (scheme, authority) = (uri.scheme_str().unwrap_or("https"), uri.authority());
        let base = format!("{scheme}://{}", authority.map_or("", |authority| authority.as_str()));
        let origin = Origin::parse(&base).map_err(|error| Unusable(format!("traces.endpoint: {error}")))?;
        // A collector is near: not behind the egress proxy, and it wants no certificate of ours.
        let way = Upstream { proxy: None, client_certificate: None, http2: false, ..config.upstream.clone() };
        let limits = Limits { connections: 1, ..Limits::default() };
        Ok(Some(Self {
            sample: traces.sample,
            target: Target { origin, connector: connector(&way, None)?, limits },
            path: uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/v1/traces")),
            headers: traces.headers.clone(),
            queue: traces.queue,
            batch: traces.batch,
            every: traces.every,
        }))
    }

    /// Whether a request that says nothing of it is traced: at random.
    pub fn draw(&self) -> bool {
        fastrand::u16(..1_000) < self.sample
    }
}
