//! HTTP/2 towards Salesforce: one exchange of a shared connection, which hyper runs.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::uri::{PathAndQuery, Uri};
use http::{Request, Response, Version, header};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http2};

use super::conn::{Cut, GivenBack, Lost, cut};
use super::connect::{Origin, Scheme};
use super::failure::{Cause, Sent};
use super::pool::Stream;
use super::tls;
use super::upload::{Upload, UploadWatch};
use crate::body::{BodyFault, Payload};
use crate::outcome::FailureKind;

/// What hyper makes of a message.
type Answer<S> = Pin<Box<dyn Future<Output = Result<Response<Incoming>, TrySendError<Request<Upload<S>>>>> + Send>>;

/// One exchange of a shared connection.
pub(super) struct Exchange<S> {
    sender: http2::SendRequest<Upload<S>>,
    state: State<S>,
    upload: Option<Arc<UploadWatch>>,
}

enum State<S> {
    Idle,
    Waiting(Answer<S>),
    Body(Incoming),
}

impl<S: Stream> Exchange<S> {
    pub(super) fn new(sender: http2::SendRequest<Upload<S>>) -> Self {
        Self { sender, state: State::Idle, upload: None }
    }

    /// Whether the connection takes messages.
    pub(super) fn is_usable(&self) -> bool {
        self.sender.is_ready()
    }

    /// Sends `message` to `origin`. Its body is taken out of it; its head stays, for it may have to be sent again.
    pub(super) fn start(&mut self, message: &mut Request<Payload<S>>, origin: &Origin) {
        address(message, origin);
        let mut sent = Request::new(std::mem::replace(message.body_mut(), Payload::Empty));
        message.method().clone_into(sent.method_mut());
        message.uri().clone_into(sent.uri_mut());
        message.headers().clone_into(sent.headers_mut());
        *sent.version_mut() = message.version();
        let message = Upload::of(sent);
        self.upload = message.body().watch();
        self.state = State::Waiting(Box::pin(self.sender.try_send_request(message)));
    }

    /// The head of the answer.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, Lost<S>>> {
        let State::Waiting(answer) = &mut self.state else { return Poll::Pending };
        let said = ready!(answer.as_mut().poll(cx));
        self.state = State::Idle;
        Poll::Ready(match said {
            Ok(response) => {
                let (head, body) = response.into_parts();
                self.state = State::Body(body);
                Ok(Response::from_parts(head, ()))
            }
            Err(error) => Err(self.lost(error)),
        })
    }

    fn lost(&self, mut error: TrySendError<Request<Upload<S>>>) -> Lost<S> {
        if let Some(refused) = refused_us(error.error()) {
            return Lost::Refused(tls::reason(refused));
        }
        if let Some(message) = error.take_message() {
            return Lost::Unsent(GivenBack::Message(Box::new(message.map(Upload::into_payload))));
        }
        let error = error.into_error();
        let garbage = if error.is_parse() { Cause::Garbage } else { Cause::Reset };
        let fault = self.upload.as_ref().and_then(|upload| upload.fault());
        let sent = if refused_stream(&error) { Sent::Nothing } else { Sent::Maybe };
        Lost::Failed(fault.map_or(garbage, Cause::Upload), sent)
    }

    /// Whether all of the caller's body has been taken.
    pub(super) fn uploaded(&self) -> bool {
        self.upload.as_ref().is_none_or(|upload| upload.done())
    }

    /// A number that changes whenever the caller's body moves on.
    pub(super) fn progress(&self) -> u64 {
        self.upload.as_ref().map_or(0, |upload| upload.progress())
    }

    /// The next piece of the body.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let State::Body(body) = &mut self.state else { return Poll::Ready(None) };
        Pin::new(body).poll_frame(cx).map_err(|error| classify(&error))
    }

    /// Bytes of the body still to come, if that is known.
    pub(super) fn remaining(&self) -> Option<u64> {
        match &self.state {
            State::Body(body) => body.size_hint().exact(),
            State::Idle | State::Waiting(_) => None,
        }
    }

    /// Whether the body has ended.
    pub(super) fn is_ended(&self) -> bool {
        matches!(&self.state, State::Body(body) if body.is_end_stream())
    }
}

/// Writes where `message` goes as HTTP/2 wants it.
fn address<B>(message: &mut Request<B>, origin: &Origin) {
    *message.version_mut() = Version::HTTP_2;
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(match origin.scheme() {
        Scheme::Http => http::uri::Scheme::HTTP,
        Scheme::Https => http::uri::Scheme::HTTPS,
    });
    parts.authority = Some(origin.uri_authority().clone());
    let target = message.uri().path_and_query().cloned();
    parts.path_and_query = Some(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
    if let Ok(uri) = Uri::from_parts(parts) {
        *message.uri_mut() = uri;
    }
    message.headers_mut().remove(header::HOST);
}

/// The origin said that it did not look at this stream (RFC 9113, 8.7).
fn refused_stream(error: &hyper::Error) -> bool {
    error.source().and_then(|source| source.downcast_ref::<h2::Error>()).is_some_and(|error| {
        error.is_remote() && error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM)
    })
}

/// The first I/O error among the causes of `error`.
fn io_error(error: &hyper::Error) -> Option<&io::Error> {
    let mut source = error.source();
    while let Some(error) = source {
        match error.downcast_ref() {
            Some(error) => return Some(error),
            None => source = error.source(),
        }
    }
    None
}

/// The origin did not accept our certificate, or wants one: what it said.
fn refused_us(error: &hyper::Error) -> Option<&io::Error> {
    io_error(error).filter(|error| tls::refused_us(error))
}

fn classify(error: &hyper::Error) -> Cut {
    io_error(error).map_or((FailureKind::Reset, BodyFault::Gone), cut)
}
