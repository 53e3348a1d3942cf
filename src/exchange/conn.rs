//! One connection to Salesforce, while it is lent to a call.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::uri::{PathAndQuery, Uri};
use http::{Request, Response, Version, header};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep, sleep_until};

use super::connect::{Origin, Scheme};
use super::pool::{Common, Org, Slot, Stream};
use super::upload::{Upload, UploadWatch};

/// How long a connection may take to be ready for the next message once an answer has ended.
const SETTLE: Duration = Duration::from_secs(1);

/// What hyper makes of a message.
pub(super) type Answer<S> =
    Pin<Box<dyn Future<Output = Result<Response<Incoming>, TrySendError<Request<Upload<S>>>>> + Send>>;

/// A timer that follows a deadline that mostly moves forward.
///
/// It stays armed across phases and calls and is moved when it fires early, so an ordinary exchange never touches
/// the runtime's timer wheel.
#[derive(Debug)]
pub(super) struct Timer(Pin<Box<Sleep>>);

impl Timer {
    fn new(at: Instant) -> Self {
        Self(Box::pin(sleep_until(at)))
    }

    /// Ready once `by` has passed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, by: Instant) -> Poll<()> {
        if self.0.deadline() > by {
            self.0.as_mut().reset(by);
        }
        loop {
            ready!(self.0.as_mut().poll(cx));
            if self.0.deadline() >= by {
                return Poll::Ready(());
            }
            self.0.as_mut().reset(by);
        }
    }
}

/// hyper's half of the connection that takes messages.
pub(super) enum Sender<S> {
    Http1(http1::SendRequest<Upload<S>>),
    /// One stream of a shared connection, counted by its slot.
    Http2(http2::SendRequest<Upload<S>>, #[expect(dead_code, reason = "held for its drop")] Slot<S>),
}

/// A connection. Dropped while a message is under way, it is closed at once; dropped idle, it says goodbye.
pub(super) struct Conn<S> {
    sender: Sender<S>,
    pub(super) timer: Timer,
    /// The task that runs the connection; a shared one is not ours to end.
    task: Option<AbortHandle>,
    opened: Instant,
    pub(super) idle_since: Instant,
    /// It has carried a message before: the origin may have closed it in the meantime.
    pub(super) reused: bool,
    /// A message is under way.
    busy: bool,
    upload: Option<Arc<UploadWatch>>,
    /// The pool to go back to; `None` while in the pool.
    home: Option<Arc<Org<S>>>,
}

impl<S: Stream> Conn<S> {
    #[expect(clippy::unnecessary_box_returns, reason = "it stays in this box from here to the pool and back")]
    pub(super) fn new(sender: Sender<S>, task: Option<AbortHandle>, opened: Instant, home: Arc<Org<S>>) -> Box<Self> {
        Box::new(Self {
            sender,
            timer: Timer::new(opened),
            task,
            opened,
            idle_since: opened,
            reused: false,
            busy: false,
            upload: None,
            home: Some(home),
        })
    }

    /// Lends it out again.
    pub(super) fn lend(&mut self, home: &Arc<Org<S>>) {
        self.home = Some(Arc::clone(home));
    }

    /// Whether it can take a message now.
    pub(super) fn is_ready(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_ready(),
            Sender::Http2(sender, _) => sender.is_ready(),
        }
    }

    /// How long it has been open at `now`.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.opened)
    }

    /// Hands `message` to the connection.
    pub(super) fn send(&mut self, message: Request<Upload<S>>) -> Answer<S> {
        self.busy = true;
        self.upload = message.body().watch();
        match &mut self.sender {
            Sender::Http1(sender) => Box::pin(sender.try_send_request(message)),
            Sender::Http2(sender, _) => Box::pin(sender.try_send_request(message)),
        }
    }

    /// Writes where the message goes in the way this connection's protocol wants it.
    pub(super) fn address(&self, message: &mut Request<Upload<S>>, origin: &Origin) {
        match &self.sender {
            Sender::Http1(_) => {
                *message.version_mut() = Version::HTTP_11;
                if message.uri().authority().is_some() {
                    *message.uri_mut() = Uri::from(target(message.uri()));
                }
                message.headers_mut().insert(header::HOST, origin.authority().clone());
            }
            Sender::Http2(..) => {
                *message.version_mut() = Version::HTTP_2;
                let mut parts = http::uri::Parts::default();
                parts.scheme = Some(match origin.scheme() {
                    Scheme::Http => http::uri::Scheme::HTTP,
                    Scheme::Https => http::uri::Scheme::HTTPS,
                });
                parts.authority = Some(origin.uri_authority().clone());
                parts.path_and_query = Some(target(message.uri()));
                if let Ok(uri) = Uri::from_parts(parts) {
                    *message.uri_mut() = uri;
                }
                message.headers_mut().remove(header::HOST);
            }
        }
    }

    /// The upload under way, if it is a stream.
    pub(super) fn upload(&self) -> Option<&Arc<UploadWatch>> {
        self.upload.as_ref()
    }

    fn poll_settled(&mut self, cx: &mut Context<'_>, by: Instant) -> Poll<bool> {
        let ready = match &mut self.sender {
            Sender::Http1(sender) => sender.poll_ready(cx),
            Sender::Http2(sender, _) => sender.poll_ready(cx),
        };
        match ready {
            Poll::Ready(result) => Poll::Ready(result.is_ok()),
            Poll::Pending => self.timer.poll(cx, by).map(|()| false),
        }
    }
}

fn target(uri: &Uri) -> PathAndQuery {
    uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}

impl<S> Drop for Conn<S> {
    fn drop(&mut self) {
        if self.busy
            && let Some(task) = &self.task
        {
            task.abort();
        }
    }
}

/// A lent connection, whatever bodies it sends: what an answer's body needs of it.
pub(super) trait Lent: Send + Sync {
    /// Its timer.
    fn timer(&mut self) -> &mut Timer;
    /// What its org's exchanges share.
    fn common(&self) -> Option<&Arc<Common>>;
    /// The answer has ended, at `at`: back to the pool, if it can be used again.
    fn give_back(self: Box<Self>, at: Instant);
}

impl<S: Stream> Lent for Conn<S> {
    fn timer(&mut self) -> &mut Timer {
        &mut self.timer
    }

    fn common(&self) -> Option<&Arc<Common>> {
        self.home.as_ref().map(|home| &home.common)
    }

    fn give_back(mut self: Box<Self>, at: Instant) {
        let Some(home) = self.home.take() else { return };
        if self.upload.take().is_some_and(|upload| !upload.done()) {
            // Answered before the upload was complete: the rest of it must not go to the next call.
            return;
        }
        match &self.sender {
            Sender::Http2(..) => {}
            Sender::Http1(sender) if sender.is_ready() => {
                self.busy = false;
                home.check_in(self, at);
            }
            Sender::Http1(sender) if sender.is_closed() => {}
            Sender::Http1(_) => settle(self, home, at),
        }
    }
}

/// Waits until a connection is ready for its next message. Rare: hyper is done with most answers before we are.
fn settle<S: Stream>(mut conn: Box<Conn<S>>, home: Arc<Org<S>>, at: Instant) {
    if !in_runtime() {
        return;
    }
    let common = Arc::clone(&home.common);
    common.tasks.spawn(async move {
        if std::future::poll_fn(|cx| conn.poll_settled(cx, at + SETTLE)).await {
            conn.busy = false;
            home.check_in(conn, at);
        }
    });
}

/// Whether a task can be spawned here: not while a runtime is being taken down.
pub(super) fn in_runtime() -> bool {
    tokio::runtime::Handle::try_current().is_ok()
}
