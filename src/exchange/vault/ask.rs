//! One request to a token endpoint, over a connection of its own: log-ins are too rare to keep one.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, DATE, HOST, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::core::Trouble;
use crate::body::wiped;
use crate::clock::Clock;
use crate::exchange::connect::{Connector, Origin, Protocol};

/// Longest answer that is read.
const LONGEST_ANSWER: usize = 64 * 1_024;
/// Name, TCP, proxy and TLS.
const CONNECT: Duration = Duration::from_secs(5);
/// Everything together, if nobody else waits for how it ends.
pub(super) const TOTAL: Duration = Duration::from_secs(20);

/// Where tokens come from.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Host, and whether by TLS.
    pub origin: Origin,
    /// Path and query.
    pub path: PathAndQuery,
    /// How connections are made; it must not offer HTTP/2.
    pub connector: Connector,
}

/// What came back.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    /// The other side's wall time, since the Unix epoch.
    pub(super) date: Option<Duration>,
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// Posts `form` to `endpoint`; gives up after `total`.
pub(super) async fn post(
    endpoint: &Endpoint,
    clock: Clock,
    form: Zeroizing<Vec<u8>>,
    total: Duration,
) -> Result<Reply, Trouble> {
    match timeout(total, exchange(endpoint, clock, form)).await {
        Ok(result) => result,
        Err(_) => Err(Trouble::Unreachable),
    }
}

async fn exchange(endpoint: &Endpoint, clock: Clock, form: Zeroizing<Vec<u8>>) -> Result<Reply, Trouble> {
    let (io, protocol) =
        endpoint.connector.connect(clock, &endpoint.origin, CONNECT).await.map_err(|_| Trouble::Unreachable)?;
    if protocol != Protocol::Http1 {
        return Err(Trouble::Garbage);
    }
    let (mut sender, connection) =
        http1::Builder::new().handshake::<_, Full<Bytes>>(TokioIo::new(io)).await.map_err(|_| Trouble::Unreachable)?;
    let message = message(endpoint, form);
    let answer = async move {
        let response = sender.send_request(message).await.map_err(|_| Trouble::Unreachable)?;
        read(response).await
    };
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        // The answer is looked at first: it may be whole although the connection has ended.
        biased;
        answer = &mut answer => answer,
        _ = &mut connection => answer.await,
    }
}

fn message(endpoint: &Endpoint, form: Zeroizing<Vec<u8>>) -> Request<Full<Bytes>> {
    // The bytes keep their owner, which wipes them when the message has been sent.
    let mut request = Request::new(Full::new(wiped(form)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from(endpoint.path.clone());
    let headers = request.headers_mut();
    headers.insert(HOST, endpoint.origin.authority().clone());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    request
}

async fn read(response: Response<Incoming>) -> Result<Reply, Trouble> {
    let (head, body) = response.into_parts();
    let date = head
        .headers
        .get(DATE)
        .and_then(|value| httpdate::parse_http_date(value.to_str().ok()?).ok())
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    // Room for all that may come, so that nothing is left behind by a move.
    let expected = body.size_hint().exact().map_or(LONGEST_ANSWER, |exact| exact as usize);
    let mut whole = Zeroizing::new(Vec::with_capacity(expected.min(LONGEST_ANSWER)));
    let mut body = Limited::new(body, LONGEST_ANSWER);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Err(Trouble::Garbage) };
        if let Some(data) = frame.data_ref() {
            whole.extend_from_slice(data);
        }
    }
    Ok(Reply { status: head.status, date, body: whole })
}
