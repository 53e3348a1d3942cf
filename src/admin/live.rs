//! `/api/v1/live`: the page's data again and again, as server-sent events.
//!
//! Every event is whole, so that a viewer who missed some has lost nothing. What is read for one viewer serves all who look at
//! the same org in the same second. The number of viewers is bounded, below the number of connections, so that those who
//! watch never keep a probe or a scrape out; a viewer who does not read is asked for no more than fits into its socket.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::Full;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::Admin;
use super::view::View;

/// Viewers at the same time; a further one is told to come back.
pub const VIEWERS: usize = 16;
/// Seconds after which it may.
pub const VIEWER_RETRY_SECONDS: u64 = 10;
/// Time between two events; each is also a sign of life.
const EVERY: Duration = Duration::from_secs(2);
/// Events of one stream; then the viewer asks again, on a new connection.
const EVENTS: u32 = 270;
/// What was read is given to others who ask so soon.
const SHARED_FOR: Duration = Duration::from_secs(1);
/// Orgs whose data is remembered that long.
const REMEMBERED: usize = 16;

/// What viewers share.
#[derive(Debug)]
pub(super) struct Audience {
    places: Arc<Semaphore>,
    latest: Mutex<Vec<(String, Instant, Bytes)>>,
}

impl Audience {
    pub(super) fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(VIEWERS)), latest: Mutex::default() }
    }
}

/// The body of an answer of the admin listener.
pub(super) enum Body {
    /// All there at once.
    Whole(Full<Bytes>),
    /// One event after another.
    Live(Live),
}

/// One viewer's stream.
pub(super) struct Live {
    admin: Arc<Admin>,
    org: String,
    ticks: Interval,
    left: u32,
    _place: OwnedSemaphorePermit,
}

impl Live {
    /// A stream about `org`; `None` if there are as many viewers as may be.
    pub(super) fn new(admin: &Arc<Admin>, org: String) -> Option<Self> {
        let place = Arc::clone(&admin.audience.places).try_acquire_owned().ok()?;
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Some(Self { admin: Arc::clone(admin), org, ticks, left: EVENTS, _place: place })
    }
}

impl Admin {
    /// The page's data about `org` as JSON, not older than a second.
    pub(super) fn view(&self, org: &str) -> Bytes {
        let now = self.telemetry.now();
        let mut latest = self.audience.latest.lock();
        latest.retain(|(_, read, _)| now.saturating_duration_since(*read) < SHARED_FOR);
        if let Some((_, _, text)) = latest.iter().find(|(known, ..)| known == org) {
            return text.clone();
        }
        // Nothing in it fails to be written: every key is a string.
        let text = Bytes::from(serde_json::to_vec(&View::of(self, org)).unwrap_or_default());
        if latest.len() < REMEMBERED {
            latest.push((org.to_owned(), now, text.clone()));
        }
        text
    }
}

impl HttpBody for Live {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        ready!(this.ticks.poll_tick(cx));
        let Some(left) = this.left.checked_sub(1) else { return Poll::Ready(None) };
        this.left = left;
        let view = this.admin.view(&this.org);
        let event = [b"event: view\ndata: ".as_slice(), &view, b"\n\n"].concat();
        Poll::Ready(Some(Ok(Frame::data(event.into()))))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(whole) => Pin::new(whole).poll_frame(cx),
            Self::Live(live) => Pin::new(live).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Live(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => HttpBody::size_hint(whole),
            Self::Live(_) => SizeHint::default(),
        }
    }
}
