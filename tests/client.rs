//! A small HTTP/1.1 client over connections in memory, for tests.

use std::io::Read as _;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use weirkeeper::sim::ORG_ID;
use weirkeeper::tasks::Tasks;

/// Opens a connection.
pub type Open = Arc<dyn Fn() -> DuplexStream + Send + Sync>;

/// The session of a user that every simulated org has.
pub fn token(user: &str) -> String {
    format!("{ORG_ID}!{user}")
}

/// One app with one connection, opened again when it has ended.
pub struct Client {
    open: Open,
    sender: Option<SendRequest<Full<Bytes>>>,
    host: &'static str,
    headers: Vec<(HeaderName, HeaderValue)>,
    tasks: Tasks,
    refusals: Arc<Mutex<Vec<String>>>,
}

impl Client {
    /// A client of `host` with the session of `admin`; refusals it meets are written to `refusals`.
    pub fn new(open: Open, host: &'static str, tasks: Tasks, refusals: Arc<Mutex<Vec<String>>>) -> Self {
        Self { open, sender: None, host, headers: Vec::new(), tasks, refusals }.user("admin")
    }

    /// The same, with one header more in each request; replaces those of the same name.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        let name = HeaderName::from_static(name);
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, HeaderValue::from_str(value).unwrap()));
        self
    }

    /// The same, without that header.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self
    }

    /// The same, with the session of `user`.
    pub fn user(self, user: &str) -> Self {
        let bearer = format!("Bearer {}", token(user));
        self.with("authorization", &bearer)
    }

    /// The same, for another host.
    pub fn host(mut self, host: &'static str) -> Self {
        self.host = host;
        self
    }

    /// Sends one request and reads its answer to the end. `target` is absolute, or below a recent version.
    pub async fn try_send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Response<Bytes>, hyper::Error> {
        let mut request = Request::builder().method(method).uri(absolute(target)).header("host", self.host);
        for (name, value) in &self.headers {
            if !headers.iter().any(|(other, _)| name == other) {
                request = request.header(name, value);
            }
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let mut sender = self.connected().await?;
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        if parts.headers.contains_key("weirkeeper-refused") {
            self.refusals.lock().push(format!("{parts:?} {}", String::from_utf8_lossy(&body)));
        }
        self.sender = Some(sender);
        Ok(Response::from_parts(parts, body))
    }

    /// The connection as it is, or a new one.
    async fn connected(&mut self) -> Result<SendRequest<Full<Bytes>>, hyper::Error> {
        if let Some(mut sender) = self.sender.take()
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        let (sender, connection) = handshake(TokioIo::new((self.open)())).await?;
        self.tasks.spawn(async move {
            let _ended = connection.await;
        });
        Ok(sender)
    }

    /// The same; there has to be an answer.
    pub async fn send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<Bytes> {
        let answer = self.try_send(method, target, headers, body).await;
        answer.unwrap_or_else(|error| panic!("{method} {target}: {error:?}"))
    }

    pub async fn get(&mut self, target: &str) -> Response<Bytes> {
        self.send("GET", target, &[], "").await
    }

    pub async fn query(&mut self, soql: &str) -> Response<Bytes> {
        self.get(&format!("query?q={}", encoded(soql))).await
    }

    pub async fn post(&mut self, target: &str, body: &Value) -> Response<Bytes> {
        self.send("POST", target, &[("content-type", "application/json")], body.to_string()).await
    }

    pub async fn patch(&mut self, target: &str, body: &Value) -> Response<Bytes> {
        self.send("PATCH", target, &[("content-type", "application/json")], body.to_string()).await
    }

    pub async fn delete(&mut self, target: &str) -> Response<Bytes> {
        self.send("DELETE", target, &[], "").await
    }

    /// The id of one row of `object` that this user sees.
    pub async fn any(&mut self, object: &str) -> String {
        let found = self.query(&format!("SELECT Id FROM {object} ORDER BY Id LIMIT 1")).await;
        found.json()["records"][0]["Id"].as_str().unwrap().to_owned()
    }
}

/// A path below a recent version, unless it is absolute.
pub fn absolute(target: &str) -> String {
    if target.starts_with('/') { target.to_owned() } else { format!("/services/data/v62.0/{target}") }
}

/// `text` as a query parameter.
pub fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// What tests ask of an answer.
pub trait Answer {
    /// Its body, inflated if need be.
    fn plain(&self) -> Vec<u8>;
    /// One header; empty if it is absent.
    fn header(&self, name: &str) -> &str;
    /// Its status as a number.
    fn code(&self) -> u16;

    /// Its body as text.
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.plain()).into_owned()
    }

    /// Its body as JSON.
    fn json(&self) -> Value {
        serde_json::from_slice(&self.plain()).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    /// Salesforce's code of an error.
    fn error(&self) -> String {
        self.json()[0]["errorCode"].as_str().unwrap_or_default().to_owned()
    }

    /// Checks that this is the gateway's own answer in the form of REST.
    #[track_caller]
    fn is_refusal(&self, status: u16, reason: &str, code: &str) {
        let seen = (self.code(), self.header("weirkeeper-refused"), self.error());
        assert_eq!(seen, (status, reason, code.to_owned()), "{}", self.text());
        assert_eq!(self.header("content-type"), "application/json;charset=UTF-8");
        let body = self.json();
        assert_eq!(body[0]["gateway"]["reason"], reason);
        assert_eq!(body[0]["gateway"]["request_id"], self.header("weirkeeper-request-id"));
        assert!(body[0]["message"].as_str().is_some_and(|message| message.ends_with('.')), "{body}");
        let wait = body[0]["gateway"]["retry_after_seconds"].as_u64().map(|seconds| seconds.to_string());
        assert_eq!(wait.unwrap_or_default(), self.header("retry-after"));
    }
}

impl Answer for Response<Bytes> {
    fn plain(&self) -> Vec<u8> {
        let mut plain = Vec::new();
        if self.header("content-encoding") == "gzip" {
            flate2::read::GzDecoder::new(self.body().as_ref()).read_to_end(&mut plain).unwrap();
        } else {
            plain.extend_from_slice(self.body());
        }
        plain
    }

    fn header(&self, name: &str) -> &str {
        self.headers().get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn code(&self) -> u16 {
        self.status().as_u16()
    }
}

/// The head of a request with the session of `admin`; `rest` is further header lines, each with its line end.
pub fn head(method: &str, target: &str, rest: &str) -> String {
    let target = absolute(target);
    format!("{method} {target} HTTP/1.1\r\nhost: sf.internal\r\nauthorization: Bearer {}\r\n{rest}\r\n", token("admin"))
}

/// Sends `input`, then reads until the other side closes.
pub async fn ask(mut stream: DuplexStream, input: impl AsRef<[u8]>) -> String {
    // The other side may have answered and closed before it has taken everything.
    let _taken = stream.write_all(input.as_ref()).await;
    read_all(&mut stream).await
}

/// Everything until the other side closes.
pub async fn read_all(stream: &mut DuplexStream) -> String {
    let mut bytes = Vec::new();
    let _ended = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Everything up to and including `end`, or the close.
pub async fn read_until(stream: &mut DuplexStream, end: &str) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        let Ok(byte) = stream.read_u8().await else { break };
        bytes.push(byte);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A SOAP envelope with a session.
pub fn envelope(session: &str, body: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         xmlns:urn=\"urn:partner.soap.sforce.com\"><soapenv:Header><urn:SessionHeader><urn:sessionId>{session}\
         </urn:sessionId></urn:SessionHeader></soapenv:Header><soapenv:Body>{body}</soapenv:Body></soapenv:Envelope>"
    )
}

/// `plain`, compressed.
pub fn gzip(plain: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}
