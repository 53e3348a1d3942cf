//! The simulator end to end: HTTP over connections in memory, in a paused runtime.

mod accounting;
mod apis;
mod bulk;
mod cometd;
mod composite;
mod data;
mod faults;
mod oauth;
mod soap;
mod transport;

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::tasks::Tasks;
use super::{ORG_ID, Sim, SimConfig};

/// One answer, read to its end.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Reply {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(super) fn code(&self) -> String {
        self.json()[0]["errorCode"].as_str().unwrap_or_default().to_owned()
    }
}

/// A caller with one connection.
pub(super) struct Caller {
    pub(super) sim: Sim,
    send: SendRequest<Full<Bytes>>,
    token: String,
    pub(super) extra: Vec<(&'static str, String)>,
}

/// Runs a caller beside the test.
#[expect(clippy::disallowed_methods, reason = "a test waits for what it started, and the rest ends with its runtime")]
pub(super) fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    tokio::spawn(future)
}

/// Simulated time that passed since `before`.
pub(super) fn since(sim: &Sim, before: Duration) -> Duration {
    sim.now().saturating_sub(before)
}

/// The simulator most tests use: small, at a fixed time.
pub(super) fn config() -> SimConfig {
    SimConfig { records: 30, start_unix_seconds: Some(1_795_348_800), ..SimConfig::default() }
}

pub(super) fn token(user: &str) -> String {
    format!("{ORG_ID}!{user}")
}

impl Caller {
    /// A caller with the session of a user known from the start; none for an empty name.
    pub(super) async fn of(sim: &Sim, user: &str) -> Self {
        Self::with_token(sim, &if user.is_empty() { String::new() } else { token(user) }).await
    }

    pub(super) async fn with_token(sim: &Sim, token: &str) -> Self {
        let (send, connection) = handshake(TokioIo::new(sim.connect_in_memory())).await.unwrap();
        Tasks::default().spawn(async move {
            let _ended = connection.await;
        });
        Self { sim: sim.clone(), send, token: token.to_owned(), extra: Vec::new() }
    }

    pub(super) async fn admin(config: SimConfig) -> Self {
        Self::of(&Sim::new(config), "admin").await
    }

    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.extra.push((name, value.to_owned()));
        self
    }

    /// Sends one request; `target` is absolute or below the newest version.
    pub(super) async fn send(
        &mut self,
        method: &str,
        target: &str,
        body: impl AsRef<[u8]>,
    ) -> Result<Reply, hyper::Error> {
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/services/data/v62.0/{target}") };
        let mut request = Request::builder().method(method).uri(target).header("host", "sim.my.salesforce.com");
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        for (name, value) in &self.extra {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_ref()))).unwrap();
        self.send.ready().await?;
        let response = self.send.send_request(request).await?;
        let (parts, body) = response.into_parts();
        let mut body = body.collect().await?.to_bytes();
        if parts.headers.get("content-encoding").is_some_and(|coding| coding == "gzip") {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(body.as_ref()).read_to_end(&mut plain).unwrap();
            body = Bytes::from(plain);
        }
        Ok(Reply { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    pub(super) async fn get(&mut self, target: &str) -> Reply {
        self.send("GET", target, "").await.unwrap()
    }

    pub(super) async fn query(&mut self, soql: &str) -> Reply {
        let soql = percent_encoding::utf8_percent_encode(soql, percent_encoding::NON_ALPHANUMERIC);
        self.get(&format!("query?q={soql}")).await
    }

    pub(super) async fn post(&mut self, target: &str, body: &Value) -> Reply {
        self.send("POST", target, body.to_string()).await.unwrap()
    }

    pub(super) async fn patch(&mut self, target: &str, body: &Value) -> Reply {
        self.send("PATCH", target, body.to_string()).await.unwrap()
    }

    pub(super) async fn delete(&mut self, target: &str) -> Reply {
        self.send("DELETE", target, "").await.unwrap()
    }

    /// The id of the first account the caller sees.
    pub(super) async fn account(&mut self) -> String {
        self.query("SELECT Id FROM Account LIMIT 1").await.json()["records"][0]["Id"].as_str().unwrap().to_owned()
    }
}
