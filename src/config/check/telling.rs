//! Log and traces.

use std::collections::BTreeMap;

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue};

use super::{At, Check};
use crate::config::problem::Fault;
use crate::config::secret::SecretRef;
use crate::config::telling::{AccessTo, Log, LogFile, Traces, TracesFile};
use crate::config::value::{FieldName, Text};

/// Headers that the gateway itself writes.
const OURS: [HeaderName; 5] = [CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING];

impl Check<'_> {
    pub(super) fn log(&mut self, at: &At, log: &LogFile) -> Log {
        let access = match &log.access {
            AccessTo::Stdout => AccessTo::Stdout,
            AccessTo::Stderr => AccessTo::Stderr,
            AccessTo::Off => AccessTo::Off,
            AccessTo::File(path) => AccessTo::File(self.path(path)),
        };
        let buffer_bytes = self.length(&at.key("buffer_bytes"), log.buffer_bytes, 64 << 10, 1 << 30);
        Log { access, buffer_bytes }
    }

    pub(super) fn traces(&mut self, at: &At, written: &TracesFile) -> Option<Traces> {
        let every = self.positive(&at.key("every"), written.every);
        let headers = self.collector_headers(&at.key("headers"), &written.headers);
        let Text(endpoint) = written.endpoint.as_ref()?;
        if !cfg!(feature = "otlp") {
            let fault = Fault::new("this build sends no traces");
            self.wrong(&at.key("endpoint"), fault.hint("build it with the feature otlp"));
        }
        if !headers.is_empty() && !endpoint.is_private() {
            let fault = Fault::new("headers would be sent without TLS");
            self.wrong(&at.key("headers"), fault.hint("use an https endpoint"));
        }
        Some(Traces {
            endpoint: endpoint.uri.clone(),
            headers,
            sample: written.sample.0.0,
            queue: written.queue.as_usize(),
            batch: written.batch.as_usize(),
            every,
        })
    }

    fn collector_headers(
        &mut self,
        at: &At,
        written: &BTreeMap<Text<FieldName>, SecretRef>,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        for (Text(FieldName(name)), reference) in written {
            let at = at.name(name);
            let Some(secret) = self.secret(&at, reference) else { continue };
            let Some(name) = HeaderName::try_from(name.as_str()).ok().filter(|name| !OURS.contains(name)) else {
                self.wrong(&at, Fault::new("the gateway writes this header itself"));
                continue;
            };
            match HeaderValue::try_from(secret.expose()) {
                Ok(mut value) => {
                    value.set_sensitive(true);
                    headers.push((name, value));
                }
                Err(_) => self.wrong(&at, Fault::new("this is not the value of a header")),
            }
        }
        headers
    }
}
