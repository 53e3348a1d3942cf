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
use super::room::{Room, Taken};
use super::sessions::SessionId;
use super::touch::Deps;
use super::wish::Wish;
use crate::call::Principal;
use crate::written::Written;

/// Longest plain body that is looked into or made again from a compressed one.
const LONGEST_PLAIN: usize = 4 << 20;

/// What an answer's map entry and fields take besides their texts, in bytes.
const OVERHEAD: usize = 832;

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
    head: Written,
    body: Bytes,
    coding: Option<Coding>,
    /// It sets no cookie that may say who its caller is, and varies by nothing but what is in the key or made again here.
    for_others: bool,
    /// It is JSON or XML.
    text: bool,
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
    /// Bytes it takes, and its key.
    weight: usize,
    _room: Room,
}

impl Whole {
    /// Takes what may be given to others from `head`, and copies `body`, so that no buffer it was read into stays behind.
    pub fn new(status: StatusCode, head: &HeaderMap, body: &Bytes) -> Self {
        let anonymous =
            |cookie: &HeaderValue| ANONYMOUS_COOKIES.iter().any(|start| cookie.as_bytes().starts_with(start));
        let coding = coding(head);
        let for_others = coding.is_some() && head.get_all(SET_COOKIE).iter().all(anonymous) && varies_as_expected(head);
        Self {
            status,
            coding,
            for_others,
            text: is_text(head),
            head: Written::new(head, is_for_all),
            body: Bytes::copy_from_slice(body),
        }
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether it may be given to another request of the same principal.
    pub fn is_for_others(&self) -> bool {
        self.for_others
    }

    /// Whether it is an answer to `question` that may be kept.
    pub fn may_be_kept(&self, kind: Kind) -> bool {
        self.status == StatusCode::OK
            && self.is_for_others()
            && self.text
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
        self.head.add_to(headers);
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
        self.body.len() + self.head.length()
    }
}

impl Kept {
    /// Keeps `whole`, the answer to `question`, which was sent at `sent`. Its bytes are added to those `taken`.
    pub fn new(
        whole: Arc<Whole>,
        question: &Question,
        sent: Instant,
        as_of: u64,
        session: SessionId,
        cost: u32,
        taken: Arc<Taken>,
    ) -> Self {
        let modified = whole.head.get(&LAST_MODIFIED).and_then(date);
        let deps: usize = question.deps.objects().iter().map(|object| object.len() + 24).sum();
        let weight = OVERHEAD + question.key.len() + deps + whole.bytes();
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
            weight,
            _room: Room::take(taken, weight),
        }
    }

    /// Bytes it takes, and its key.
    pub fn weight(&self) -> usize {
        self.weight
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
        self.whole.head.add_to(headers);
        for name in [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LENGTH] {
            headers.remove(name);
        }
        Some(response)
    }

    /// The answer for most requests: its body as it came, and its head; `None` if [`Self::answer`] has more to do for this one.
    pub fn as_it_came(&self, wish: &Wish) -> Option<(Bytes, Written)> {
        let conditional = wish.none_match.is_some() || wish.modified_since.is_some();
        let as_it_came = match self.whole.coding? {
            Coding::Identity => !wish.gzip || self.might_be_packed,
            Coding::Gzip => wish.gzip,
            Coding::Deflate => wish.deflate,
        };
        (!conditional && as_it_came).then(|| (self.whole.body.clone(), self.whole.head.clone()))
    }

    /// Whether its sender has this answer, by the conditions Salesforce knows (facts 3.1, 3.3).
    fn is_known_to(&self, wish: &Wish) -> bool {
        if let Some(asked) = &wish.none_match {
            let Some(tag) = self.whole.head.get(&ETAG) else { return false };
            return asked.as_bytes().split(|byte| *byte == b',').any(|one| one.trim_ascii() == tag);
        }
        match (wish.modified_since.as_ref().and_then(|since| date(since.as_bytes())), self.modified) {
            (Some(since), Some(modified)) => modified <= since,
            _ => false,
        }
    }
}

fn date(value: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()
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
        "ratelimit",
        "ratelimit-policy",
    ]
    .contains(&name.as_str())
        && !name.as_str().starts_with("weirkeeper-")
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
