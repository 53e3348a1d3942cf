//! One request from its head to its answer: admission, latency, faults, the handler, the books.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version, header, request::Parts};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use super::Sim;
use super::answer::{Answer, Content};
use super::body::{self, SimBody, Upload, UploadError};
use super::control;
use super::errors::ApiError;
use super::faults::{FaultAction, Plan};
use super::forms;
use super::ledger::{Admission, Ticket};
use super::request::Head;
use super::respond::{self, Trimmings};
use super::wire::{Lever, Wire};

/// Body bytes kept of an ordinary request; more is 413.
const BODY_KEPT: usize = 64 << 20;
/// Body bytes kept of an upload whose rest is only counted.
const UPLOAD_KEPT: usize = 10 << 20;
/// URI and headers together (facts 0).
const LONGEST_HEAD: usize = 16_384;
/// Longest a scripted fault may hold a request.
const LONGEST_HANG_MS: u64 = 3_600_000;

/// The connection is to end without a response.
#[derive(Debug)]
pub(super) struct Dropped;

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the simulator ends this connection on purpose")
    }
}

impl std::error::Error for Dropped {}

/// Serves one connection to its end. `reset` prepares the transport to be ended by a reset.
pub(super) async fn connection<IO>(sim: Sim, io: IO, scheme: &'static str, reset: fn(&IO))
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    sim.world().tally.connections += 1;
    let lever = Arc::new(Lever::default());
    let wire = Wire::new(io, Arc::clone(&lever), reset);
    let mut builder = hyper_util::server::conn::auto::Builder::new(sim.tasks().clone());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(10_000);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        handle(sim.clone(), Arc::clone(&lever), scheme, request)
    });
    // How a connection ends is the caller's affair: resets and half-closed sockets are part of the tests.
    let _ended = builder.serve_connection(TokioIo::new(wire), service).await;
}

async fn handle(
    sim: Sim,
    lever: Arc<Lever>,
    scheme: &'static str,
    request: Request<Incoming>,
) -> Result<Response<SimBody>, Dropped> {
    let (parts, incoming) = request.into_parts();
    if parts.uri.path().starts_with(control::PREFIX) {
        return Ok(control::handle(&sim, &parts, incoming).await);
    }
    let visit = Visit::new(&sim, scheme, &parts);
    let (mut ticket, plan) = match sim.admit(&visit) {
        Admission::Refused(answer, trimmings) => {
            // What was refused is still read, so that the connection stays usable.
            let _ignored = body::read(incoming, 0, true).await;
            return Ok(respond::build(&visit.head, &answer, &trimmings));
        }
        Admission::Admitted(ticket, plan) => (ticket, plan),
    };
    let is_upload = matches!(visit.head.family(), "bulk2" | "apex") || super::blobs::boundary(&visit.head).is_some();
    let keep = if is_upload { UPLOAD_KEPT } else { BODY_KEPT };
    let upload = match body::read(incoming, keep, is_upload).await {
        Ok(upload) => inflate(&visit.head.headers, upload),
        Err(UploadError::Broken) => return Err(Dropped),
        Err(UploadError::TooLarge) => Err(UploadError::TooLarge),
    };
    let waits = plan.latency_ms > 0 || matches!(plan.action, FaultAction::Hang { .. });
    let mut refusal = None;
    if let Ok(upload) = &upload {
        sim.world().tally.body_bytes += upload.total;
        refusal = sim.prepare(&visit, &mut ticket, upload, plan.latency_ms);
    }
    let is_poll = visit.head.family() == "cometd";
    let job = Job { sim: sim.clone(), visit, upload, ticket, plan, refusal };
    // A long poll ends with its connection.
    let done = if waits && !is_poll {
        // Salesforce keeps working on a call whose caller has left, so this does not depend on the connection.
        let (send, receive) = oneshot::channel();
        sim.tasks().spawn(async move {
            let _caller_left = send.send(job.run().await);
        });
        receive.await.map_err(|_| Dropped)?
    } else {
        job.run().await
    };
    done.respond(&sim, &lever, parts.version)
}

/// A request whose body may be compressed (facts 0).
fn inflate(headers: &HeaderMap, mut upload: Upload) -> Result<Upload, UploadError> {
    if headers.get(header::CONTENT_ENCODING).is_none_or(|coding| coding.as_bytes() != b"gzip") {
        return Ok(upload);
    }
    use std::io::Read;
    let mut plain = Vec::new();
    let mut decoder = flate2::read::GzDecoder::new(upload.kept.as_ref()).take(BODY_KEPT as u64 + 1);
    decoder.read_to_end(&mut plain).map_err(|_| UploadError::Broken)?;
    if plain.len() > BODY_KEPT {
        return Err(UploadError::TooLarge);
    }
    upload.kept = Bytes::from(plain);
    Ok(upload)
}

/// A request as it arrived.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) head: Head,
    pub(super) method: String,
    pub(super) target: String,
    pub(super) version: Version,
    pub(super) host: String,
    pub(super) origin: String,
    /// The edge's own refusal for heads that are too long.
    pub(super) too_long: Option<u16>,
}

impl Visit {
    fn new(sim: &Sim, scheme: &str, parts: &Parts) -> Self {
        let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let authority = parts.uri.authority().map(http::uri::Authority::as_str);
        let host =
            parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).or(authority).unwrap_or_default();
        let origin = sim.config().instance_url.clone().unwrap_or_else(|| format!("{scheme}://{host}"));
        let head_bytes: usize =
            parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>();
        let too_long = match (target.len() > LONGEST_HEAD, target.len() + head_bytes > LONGEST_HEAD) {
            (true, _) => Some(414),
            (false, true) => Some(431),
            _ => None,
        };
        Self {
            head: Head::read(&parts.method, target, parts.headers.clone()),
            method: parts.method.to_string(),
            target: target.to_owned(),
            version: parts.version,
            host: host.to_owned(),
            origin,
            too_long,
        }
    }
}

/// An admitted request with everything needed to answer it.
struct Job {
    sim: Sim,
    visit: Visit,
    upload: Result<Upload, UploadError>,
    ticket: Ticket,
    plan: Plan,
    /// A refusal found out only from the body.
    refusal: Option<Answer>,
}

/// An answered request.
struct Done {
    head: Head,
    answer: Answer,
    trimmings: Trimmings,
    action: FaultAction,
}

impl Job {
    async fn run(self) -> Done {
        let Self { sim, visit, upload, ticket, plan, refusal } = self;
        let held = match plan.action {
            FaultAction::Hang { milliseconds } => milliseconds,
            _ => 0,
        };
        let wait = plan.latency_ms.saturating_add(held).min(LONGEST_HANG_MS);
        if wait > 0 {
            sim.clock().sleep(Duration::from_millis(wait)).await;
        }
        let mut answer = match (refusal, scripted(&plan.action), &upload) {
            (Some(answer), ..) | (None, Some(answer), _) => forms::shape(&visit.head, answer),
            (None, None, Err(UploadError::TooLarge)) => Answer::text(413, "text/plain", "Request Entity Too Large"),
            (None, None, Err(UploadError::Broken)) => ApiError::parser("The compressed body cannot be read").into(),
            (None, None, Ok(upload)) => sim.execute(&visit, &ticket, upload),
        };
        if let FaultAction::ApplyThenStatus { status } = plan.action {
            answer = Answer::html(status, "The server could not answer");
        }
        // A long poll: handled again whenever something was published, until there is something to say.
        while let (Content::Later(bell, until), Ok(upload)) = (&mut answer.content, &upload) {
            let left = Duration::from_micros(until.saturating_sub(sim.clock().now()));
            // Whether it rang or the time is over, the handler looks itself.
            let _rang = tokio::time::timeout(sim.clock().real(left), bell.changed()).await;
            answer = sim.execute(&visit, &ticket, upload);
        }
        let seen = match plan.action {
            FaultAction::Close { .. } | FaultAction::Garbage { .. } | FaultAction::Hang { .. } => None,
            _ => Some(answer.status),
        };
        let trimmings = sim.settle(ticket, &answer, seen);
        Done { head: visit.head, answer, trimmings, action: plan.action }
    }
}

/// The answer a fault gives instead of the handler, if it does.
fn scripted(action: &FaultAction) -> Option<Answer> {
    let retry = |answer: Answer, seconds: &Option<u64>| match seconds {
        Some(seconds) => answer.with("retry-after", seconds.to_string()),
        None => answer,
    };
    match action {
        FaultAction::Answer { status, body, content_type, headers } => {
            let content = Content::Text(content_type.clone().into(), Bytes::from(body.clone()));
            let refusal = *status == 403 && body.contains("REQUEST_LIMIT_EXCEEDED");
            let headers = headers.iter().map(|(name, value)| (name.clone().into(), value.clone())).collect();
            Some(Answer { status: *status, headers, content, refusal, ..Answer::default() })
        }
        FaultAction::Error { status, code, message } => {
            let mut error = ApiError::new(*status, "", message.clone());
            error.code = code.clone().into();
            Some(error.into())
        }
        FaultAction::Unavailable { html: true, retry_after_seconds } => {
            Some(retry(Answer::html(503, "We are down for maintenance."), retry_after_seconds))
        }
        FaultAction::Unavailable { html: false, retry_after_seconds } => {
            let error = ApiError::new(503, "SERVER_UNAVAILABLE", "Server too busy");
            Some(retry(error.into(), retry_after_seconds))
        }
        FaultAction::LockRow { wrapped: false } => Some(ApiError::locked().into()),
        FaultAction::LockRow { wrapped: true } => Some(
            ApiError::dml(
                "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY",
                "Trigger: execution of AfterUpdate caused by: System.DmlException: Update failed. First exception on \
                 row 0; first error: UNABLE_TO_LOCK_ROW, unable to obtain exclusive access to this record: []",
                &[],
            )
            .into(),
        ),
        FaultAction::Close { apply: false, .. } | FaultAction::Garbage { .. } | FaultAction::Hang { .. } => {
            Some(Answer::empty(500))
        }
        FaultAction::None
        | FaultAction::ApplyThenStatus { .. }
        | FaultAction::Close { apply: true, .. }
        | FaultAction::Truncate { .. }
        | FaultAction::Overlong { .. }
        | FaultAction::Trickle { .. } => None,
    }
}

impl Done {
    fn respond(self, sim: &Sim, lever: &Lever, version: Version) -> Result<Response<SimBody>, Dropped> {
        let Self { head, answer, trimmings, action } = self;
        match action {
            FaultAction::Close { reset, .. } => {
                lever.pull(Bytes::new(), reset);
                // Over HTTP/2 there are other streams; the whole connection ends with this one.
                Ok(Response::new(SimBody::Empty))
            }
            FaultAction::Hang { .. } => Err(Dropped),
            FaultAction::Garbage { text } => {
                lever.pull(Bytes::from(text), false);
                Ok(Response::new(SimBody::Empty))
            }
            FaultAction::Truncate { body_bytes } => {
                let response = respond::build(&head, &answer, &trimmings);
                lever
                    .pull(raw(response, version, |body| (body.len(), body.slice(..body_bytes.min(body.len())))), false);
                Ok(Response::new(SimBody::Empty))
            }
            FaultAction::Overlong { extra_bytes } => {
                let response = respond::build(&head, &answer, &trimmings);
                let lie = |body: Bytes| {
                    let mut longer = body.to_vec();
                    longer.extend(std::iter::repeat_n(b' ', extra_bytes.min(1 << 20)));
                    (body.len(), Bytes::from(longer))
                };
                lever.pull(raw(response, version, lie), false);
                Ok(Response::new(SimBody::Empty))
            }
            FaultAction::Trickle { piece_bytes, pause_ms } => {
                let response = respond::build(&head, &answer, &trimmings);
                let pause = sim.clock().real(Duration::from_millis(pause_ms.min(LONGEST_HANG_MS)));
                Ok(response.map(|body| match body {
                    SimBody::Whole { data: Some(data), .. } => SimBody::trickle(data, piece_bytes, pause),
                    other => other,
                }))
            }
            _ => Ok(respond::build(&head, &answer, &trimmings)),
        }
    }
}

/// A response as bytes, with a `Content-Length` and a body that need not agree.
fn raw(response: Response<SimBody>, version: Version, shape: impl FnOnce(Bytes) -> (usize, Bytes)) -> Bytes {
    if version == Version::HTTP_2 {
        // The frames of HTTP/2 know no such lie: the connection just ends.
        return Bytes::new();
    }
    let (parts, body) = response.into_parts();
    let body = match body {
        SimBody::Whole { data: Some(data), .. } => data,
        _ => Bytes::new(),
    };
    let (length, body) = shape(body);
    let mut out = format!("HTTP/1.1 {}\r\n", parts.status).into_bytes();
    for (name, value) in &parts.headers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("content-length: {length}\r\n\r\n").as_bytes());
    out.extend_from_slice(&body);
    Bytes::from(out)
}

/// Reads a small control body.
pub(super) async fn small_body(incoming: Incoming) -> Option<Bytes> {
    let limited = http_body_util::Limited::new(incoming, 1 << 20);
    limited.collect().await.ok().map(http_body_util::Collected::to_bytes)
}
