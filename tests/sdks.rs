//! How clients of Salesforce repeat calls by themselves, where no gateway does it for them.

use std::time::Duration;

use bytes::Bytes;
use http::Response;

use crate::client::{Answer as _, Client};

/// What a client does after a failure, in its default settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sdk {
    /// simple-salesforce raises an exception and never repeats (facts 11).
    SimpleSalesforce,
    /// jsforce repeats what its table calls idempotent five times, first after half a second, then twice as long each time,
    /// whatever `Retry-After` says: on 420, 429, 500, 502, 503, 504 and broken connections (facts 11, hazard 3; its source
    /// `src/request.ts`).
    Jsforce,
    /// `curl --retry 5`: whatever the method, on 408, 429, 500, 502, 503, 504, 522 and 524; after `Retry-After`, or one
    /// second, then twice as long each time. A broken connection is none of its transient errors (its manual page, `--retry`).
    Curl,
}

impl Sdk {
    pub const ALL: [Self; 3] = [Self::SimpleSalesforce, Self::Jsforce, Self::Curl];

    pub fn name(self) -> &'static str {
        match self {
            Self::SimpleSalesforce => "simple-salesforce",
            Self::Jsforce => "jsforce",
            Self::Curl => "curl --retry 5",
        }
    }

    /// How long it waits before it repeats for the `made`th time; `None` if it does not.
    pub fn waits(self, method: &str, made: u32, result: &Result<Response<Bytes>, hyper::Error>) -> Option<Duration> {
        let doubled = |first: u64| Duration::from_millis(first << made.saturating_sub(1));
        match (self, result) {
            (Self::SimpleSalesforce, _) => None,
            _ if made > 5 => None,
            (Self::Jsforce, result) => {
                let repeats = matches!(method, "GET" | "PUT" | "HEAD" | "OPTIONS" | "DELETE");
                let failed = match result {
                    Ok(answer) => matches!(answer.code(), 420 | 429 | 500 | 502 | 503 | 504),
                    Err(_) => true,
                };
                (repeats && failed).then(|| doubled(500))
            }
            (Self::Curl, Ok(answer)) => {
                let told = answer.header("retry-after").parse().ok().map(Duration::from_secs);
                let failed = matches!(answer.code(), 408 | 429 | 500 | 502 | 503 | 504 | 522 | 524);
                failed.then(|| told.unwrap_or_else(|| doubled(1_000)))
            }
            (Self::Curl, Err(_)) => None,
        }
    }

    /// Sends one request as this client does.
    pub async fn send(
        self,
        client: &mut Client,
        method: &str,
        target: &str,
        body: &str,
    ) -> Result<Response<Bytes>, hyper::Error> {
        let headers = [("content-type", "application/json")];
        for made in 1.. {
            let result = client.try_send(method, target, &headers, body.to_owned()).await;
            match self.waits(method, made, &result) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return result,
            }
        }
        unreachable!("each of them gives up")
    }
}
