//! One answer of Salesforce's: what of it may be kept, and how it is given out again.

use std::io::Read as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use flate2::read::{GzDecoder, ZlibDecoder};
use http::header::{
    self, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, LAST_MODIFIED,
    SET_COOKIE, VARY,
};
use http::{HeaderValue, Response, StatusCode};
use memchr::memmem;
use tokio::time::Instant;

use super::question::{Kind, Question};
use super::sessions::SessionId;
use super::touch::Deps;
use super::wish::Wish;
use crate::call::Principal;

/// Longest plain body that is looked into or made again from a compressed one.
const LONGEST_PLAIN: usize = 4 << 20;

/// What an answer's map entry and fields take besides their texts, in bytes.
const OVERHEAD: usize = 512;

/// Cookies that tell nothing of their owner: Salesforce sends them with nearly every answer (facts 0).
const ANONYMOUS_COOKIES: [&[u8]; 4] =
    [b"BrowserId=", b"BrowserId_sec=", b"CookieConsentPolicy=", b"LSKey-c$CookieConsentPolicy="];

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Identity,
    Gzip,
    Deflate,
}

/// An answer with its body whole, as it came: what is given to callers who asked the same.
pub struct Whole {
    status: StatusCode,
    head: HeaderMap,
    body: Bytes,
    coding: Option<Coding>,
    /// It sets a cookie that may say who its caller is.
    personal: bool,
}

impl std::fmt::Debug for Whole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Whole({}, {} bytes)", self.status, self.body.len())
    }
}

/// An answer that is kept.
#[derive(Debug)]
pub struct Kept {
    whole: Arc<Whole>,
    modified: Option<SystemTime>,
    /// When its call was sent: it is never older than that.
    pub sent: Instant,
    /// The number of the last change when its call was sent.
    pub as_of: u64,
    /// Who fetched it.
    pub by: Principal,
    /// Whether others have the same rights.
    pub shared: bool,
    /// Under which session it was fetched.
    pub session: SessionId,
    /// What it depends on.
    pub deps: Deps,
    /// API calls it cost.
    pub cost: u32,
    /// Whether it could have come compressed.
    might_be_packed: bool,
}

impl Whole {
    /// Takes what may be given to others from `head`, and copies `body`, so that no buffer it was read into stays behind.
    pub fn new(status: StatusCode, head: &HeaderMap, body: &Bytes) -> Self {
        let mut kept = HeaderMap::with_capacity(head.len());
        for (name, value) in head {
            if is_for_all(name) {
                // A value or name may be a piece of what was read from the connection.
                let name = HeaderName::from_bytes(name.as_str().as_bytes());
                if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
                    kept.append(name, value);
                }
            }
        }
        let anonymous =
            |cookie: &HeaderValue| ANONYMOUS_COOKIES.iter().any(|start| cookie.as_bytes().starts_with(start));
        Self {
            status,
            coding: coding(head),
            personal: !head.get_all(SET_COOKIE).iter().all(anonymous),
            head: kept,
            body: Bytes::copy_from_slice(body),
        }
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether it may be given to another request of the same principal.
    pub fn is_for_others(&self) -> bool {
        !self.personal && self.coding.is_some() && varies_as_expected(&self.head)
    }

    /// Whether it is an answer to `question` that may be kept.
    pub fn may_be_kept(&self, kind: Kind) -> bool {
        self.status == StatusCode::OK
            && self.is_for_others()
            && is_text(&self.head)
            && (kind != Kind::Query || self.is_whole_query())
    }

    /// Whether a query's answer holds all rows, and so no locator, which belongs to one session and ends.
    fn is_whole_query(&self) -> bool {
        self.plain().is_some_and(|plain| {
            let holds = |text: &[u8]| memmem::find(&plain, text).is_some();
            !holds(b"nextRecordsUrl")
                && !holds(b"queryLocator")
                && (holds(b"\"done\":true") || holds(b"\"done\" : true") || holds(b"<done>true</done>"))
        })
    }

    /// The body without compression; `None` if it is broken or too long.
    pub fn plain(&self) -> Option<Bytes> {
        let mut plain = Vec::new();
        let most = LONGEST_PLAIN as u64 + 1;
        match self.coding? {
            Coding::Identity => return Some(self.body.clone()),
            Coding::Gzip => GzDecoder::new(self.body.as_ref()).take(most).read_to_end(&mut plain),
            Coding::Deflate => ZlibDecoder::new(self.body.as_ref()).take(most).read_to_end(&mut plain),
        }
        .ok()?;
        (plain.len() <= LONGEST_PLAIN).then(|| Bytes::from(plain))
    }

    /// The answer for a request with this wish; `None` if it cannot be given in a coding its sender takes.
    pub fn answer(&self, wish: &Wish) -> Option<Response<Bytes>> {
        let taken = match self.coding? {
            Coding::Identity => true,
            Coding::Gzip => wish.gzip,
            Coding::Deflate => wish.deflate,
        };
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.clone_from(&self.head);
        let body = if taken {
            self.body.clone()
        } else {
            // What was said of the compressed bytes is not true of these.
            headers.remove(CONTENT_ENCODING);
            headers.remove(ETAG);
            self.plain()?
        };
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        *response.body_mut() = body;
        Some(response)
    }

    fn bytes(&self) -> usize {
        self.body.len() + self.head.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum::<usize>()
    }
}

impl Kept {
    /// Keeps `whole`, the answer to `question`, which was sent at `sent`.
    pub fn new(
        whole: Arc<Whole>,
        question: &Question,
        sent: Instant,
        as_of: u64,
        session: SessionId,
        cost: u32,
    ) -> Self {
        let modified = whole.head.get(LAST_MODIFIED).and_then(date);
        Self {
            whole,
            modified,
            sent,
            as_of,
            by: question.who,
            shared: question.shared,
            session,
            deps: question.deps.clone(),
            cost,
            might_be_packed: question.wish.gzip,
        }
    }

    /// Bytes it takes, and its key.
    pub fn weight(&self, key: usize) -> usize {
        let deps: usize = self.deps.objects().iter().map(|object| object.len() + 24).sum();
        OVERHEAD + key + deps + self.whole.bytes()
    }

    /// Its age.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.sent)
    }

    /// The answer for a request with this wish: whole, or 304 if its sender has it; `None` if it cannot be given.
    pub fn answer(&self, wish: &Wish) -> Option<Response<Bytes>> {
        if !self.is_known_to(wish) {
            // Who takes compressed bytes gets plain ones only if Salesforce itself preferred them; the next answer serves both.
            let plain = self.whole.coding == Some(Coding::Identity);
            return if plain && wish.gzip && !self.might_be_packed { None } else { self.whole.answer(wish) };
        }
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        let headers = response.headers_mut();
        headers.clone_from(&self.whole.head);
        for name in [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LENGTH] {
            headers.remove(name);
        }
        Some(response)
    }

    /// Whether its sender has this answer, by the conditions Salesforce knows (facts 3.1, 3.3).
    fn is_known_to(&self, wish: &Wish) -> bool {
        if let Some(asked) = &wish.none_match {
            let Some(tag) = self.whole.head.get(ETAG) else { return false };
            return asked.as_bytes().split(|byte| *byte == b',').any(|one| one.trim_ascii() == tag.as_bytes());
        }
        match (wish.modified_since.as_ref().and_then(date), self.modified) {
            (Some(since), Some(modified)) => modified <= since,
            _ => false,
        }
    }
}

fn date(value: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?).ok()
}

/// Whether a header is true for everybody who gets the answer, now and later.
fn is_for_all(name: &HeaderName) -> bool {
    ![
        "set-cookie",
        "sforce-limit-info",
        "server-timing",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "age",
        "cache-status",
        "x-request-id",
        "x-sfdc-request-id",
        "trailer",
        "alt-svc",
    ]
    .contains(&name.as_str())
}

fn coding(head: &HeaderMap) -> Option<Coding> {
    let mut all = head.get_all(CONTENT_ENCODING).iter();
    let first = all.next();
    if all.next().is_some() {
        return None;
    }
    match first.map(HeaderValue::as_bytes) {
        None => Some(Coding::Identity),
        Some(name) if name.eq_ignore_ascii_case(b"gzip") => Some(Coding::Gzip),
        Some(name) if name.eq_ignore_ascii_case(b"deflate") => Some(Coding::Deflate),
        Some(_) => None,
    }
}

/// Whether the answer varies by nothing but what is in the key or made again here.
fn varies_as_expected(head: &HeaderMap) -> bool {
    let known = [ACCEPT_ENCODING, header::ACCEPT, header::AUTHORIZATION, header::ACCEPT_LANGUAGE];
    head.get_all(VARY).iter().all(|value| {
        value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).all(|name| {
            name.is_empty() || known.iter().any(|known| name.eq_ignore_ascii_case(known.as_str().as_bytes()))
        })
    })
}

fn is_text(head: &HeaderMap) -> bool {
    head.get(CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        kind.eq_ignore_ascii_case(b"application/json") || kind.eq_ignore_ascii_case(b"application/xml")
    })
}
