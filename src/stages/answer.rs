//! The body of Salesforce's answer as it passes: untouched, and looked at only if it is an error or SOAP.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::Read as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use flate2::read::{GzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use smol_str::SmolStr;

use crate::admission::slots::Slots;
use crate::answers::OrgAnswers;
use crate::body::{BodyFault, ReplyBody};
use crate::call::{ApiCalls, Family, Principal};
use crate::exchange::UpstreamBody;
use crate::live::LiveOrg;
use crate::outcome::Record;
use crate::salesforce::soap_usage;
use crate::salesforce::taxonomy::{Limit, classify, said};
use crate::stages::admit::Fare;
use crate::stages::changes::Changing;
use crate::stages::parts::Counting;

/// This much of a body is looked at; what is sought stands at the front.
const LOOKED_AT: usize = 16 * 1024;

/// An answer's body on its way to the caller.
#[derive(Debug)]
pub enum Answer {
    /// Passed on.
    Plain(UpstreamBody),
    /// Passed on, while a bounded copy of its beginning is kept to learn from.
    Learning(Box<Learning>),
    /// Passed on after its beginning was looked at.
    Resumed(Box<Resumed>),
    /// Passed on while Salesforce may still be changing what it was asked to change.
    Changing(Box<Changing>),
    /// Passed on while it is looked through for what failed inside.
    Counting(Box<Counting>),
}

/// A body whose beginning has been read already.
#[derive(Debug)]
pub struct Resumed {
    read: VecDeque<Bytes>,
    /// What follows; or how it broke off.
    rest: Result<ReplyBody<Answer>, BodyFault>,
    /// Its length was not said before, and is not said now.
    unmeasured: bool,
}

/// A whole body that passes on as one whose length nobody knows, because that is how it came.
pub fn unmeasured(whole: Bytes) -> ReplyBody<Answer> {
    let rest = Ok(ReplyBody::Whole(Bytes::new()));
    let read = Some(whole).filter(|whole| !whole.is_empty()).into_iter().collect();
    ReplyBody::Stream(Answer::Resumed(Box::new(Resumed { read, rest, unmeasured: true })))
}

/// What is sought in a body.
#[derive(Debug, Clone, Copy)]
pub enum Sought {
    /// The code of an error. If it says that a limit was exceeded, `if_refused` is what the call was charged.
    ErrorCode {
        /// What a refusal costs.
        if_refused: ApiCalls,
    },
    /// What a SOAP envelope says that the org has used.
    SoapUsage,
}

/// Learns something from a body while it passes; when it has passed or its caller has left, the call is settled.
#[derive(Debug)]
pub struct Learning {
    body: UpstreamBody,
    copy: Prefix,
    sought: Sought,
    family: Family,
    record: Record,
    fare: Fare,
    slots: Slots,
    apex: Option<Slots>,
    /// Whose session it was sent with, if that matters to what is kept.
    session: Option<Session>,
    learnt: bool,
}

/// A session under which answers may have been kept.
#[derive(Debug)]
pub struct Session {
    /// What is remembered of its org.
    pub org: Arc<OrgAnswers>,
    /// Whose it is.
    pub principal: Principal,
    /// How long it is entitled after Salesforce accepted it.
    pub recheck: Duration,
}

impl Session {
    /// Salesforce has rejected it.
    pub fn ended(&self) {
        self.org.session_ended(self.principal, self.recheck);
    }
}

/// The beginning of a body. It is not shown by Debug: bodies never are.
struct Prefix {
    bytes: Vec<u8>,
    coding: Coding,
}

impl std::fmt::Debug for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Prefix({} bytes)", self.bytes.len())
    }
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Deflate,
    Unknown,
}

/// What [`gather`] found.
pub enum Gathered {
    /// All of it.
    Whole(Bytes),
    /// It is longer than wanted, or it broke off: to be passed on from its first byte.
    Longer(ReplyBody<Answer>),
}

/// Reads a body of at most `limit` bytes whole.
pub async fn gather(mut body: ReplyBody<Answer>, limit: usize) -> Gathered {
    if let ReplyBody::Whole(whole) | ReplyBody::Kept(whole, _) = body {
        return Gathered::Whole(whole);
    }
    let (mut read, mut length) = (VecDeque::new(), 0);
    let rest = loop {
        if length > limit || body.size_hint().lower() > limit as u64 {
            break Ok(body);
        }
        match body.frame().await {
            None => {
                let whole = match (read.pop_front(), read.is_empty()) {
                    (None, _) => Bytes::new(),
                    (Some(only), true) => only,
                    (Some(first), false) => {
                        let mut whole = Vec::with_capacity(length);
                        std::iter::once(first).chain(read).for_each(|piece| whole.extend_from_slice(&piece));
                        Bytes::from(whole)
                    }
                };
                return Gathered::Whole(whole);
            }
            Some(Err(fault)) => break Err(fault),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    length += data.len();
                    read.push_back(data);
                }
            }
        }
    };
    Gathered::Longer(ReplyBody::Stream(Answer::Resumed(Box::new(Resumed { read, rest, unmeasured: false }))))
}

/// The plain bytes of a whole body, at most `limit` of them; `None` if there are more, or its coding is unknown or broken.
pub fn plain<'a>(headers: &HeaderMap, body: &'a Bytes, limit: usize) -> Option<Cow<'a, [u8]>> {
    Coding::of(headers).plain(body, limit)
}

impl Resumed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        if let Some(data) = self.read.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match &mut self.rest {
            Ok(rest) => Pin::new(rest).poll_frame(cx),
            // Said each time it is asked, so that what broke off never looks complete.
            Err(fault) => Poll::Ready(Some(Err(*fault))),
        }
    }
}

impl Learning {
    /// Looks for `sought` in `body`, whose head carried `headers`.
    pub fn new(
        body: UpstreamBody,
        headers: &HeaderMap,
        sought: Sought,
        family: Family,
        record: Record,
        fare: Fare,
        org: &LiveOrg,
    ) -> Self {
        let copy = Prefix { bytes: Vec::new(), coding: Coding::of(headers) };
        let (slots, apex) = (org.slots.clone(), org.apex.clone());
        let mut learning = Self { body, copy, sought, family, record, fare, slots, apex, session: None, learnt: false };
        if learning.body.is_end_stream() {
            learning.learn();
        }
        learning
    }

    /// The same, sent with this session.
    #[must_use]
    pub fn of(mut self, session: Option<Session>) -> Self {
        self.session = session;
        self
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.copy.take(data);
                }
                if self.body.is_end_stream() || self.copy.is_full() {
                    self.learn();
                }
            }
            Some(Err(_)) | None => self.learn(),
        }
        Poll::Ready(frame)
    }

    fn learn(&mut self) {
        if std::mem::replace(&mut self.learnt, true) {
            return;
        }
        let plain = self.copy.coding.decoded(std::mem::take(&mut self.copy.bytes));
        let mut outcome = self.record.lock();
        let Some(exchange) = outcome.exchanges.last_mut() else { return };
        let at = exchange.head.unwrap_or(exchange.sent);
        match self.sought {
            Sought::SoapUsage => {
                if let Some(usage) = soap_usage(&plain) {
                    self.fare.read(usage, at);
                }
            }
            Sought::ErrorCode { if_refused } => {
                let said = said(&plain);
                let status = exchange.status.unwrap_or_default();
                let verdict = classify(self.family, status, &said);
                // SOAP and Bulk API 1.0 say so with other statuses than 401 (facts 2.5).
                if let Some(session) = &self.session
                    && matches!(said.code, "INVALID_SESSION_ID" | "InvalidSessionId")
                {
                    session.ended();
                }
                if said.code == "REQUEST_LIMIT_EXCEEDED"
                    || matches!(verdict.limit, Some(Limit::Daily | Limit::LongCalls | Limit::LongApex))
                {
                    exchange.charged = if_refused;
                }
                if !said.code.is_empty() {
                    exchange.error_code = Some(SmolStr::new(said.code));
                }
                exchange.verdict = Some(verdict);
                match verdict.limit {
                    Some(Limit::LongCalls) => self.slots.refused(exchange.sent, at),
                    Some(Limit::LongApex) => {
                        if let Some(apex) = &self.apex {
                            apex.refused(exchange.sent, at);
                        }
                    }
                    Some(Limit::Daily) => return self.fare.limit_exceeded(exchange.charged, at),
                    Some(Limit::Rate) | None => {}
                }
                self.fare.answered(exchange.charged, at);
            }
        }
    }
}

impl Drop for Learning {
    fn drop(&mut self) {
        self.learn();
    }
}

impl Prefix {
    fn is_full(&self) -> bool {
        self.bytes.len() >= LOOKED_AT
    }

    fn take(&mut self, data: &[u8]) {
        let room = LOOKED_AT.saturating_sub(self.bytes.len());
        if self.coding != Coding::Unknown {
            self.bytes.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
        }
    }
}

impl Coding {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        match headers.get(CONTENT_ENCODING).map(http::HeaderValue::as_bytes) {
            None => Self::Identity,
            Some(name) if name.eq_ignore_ascii_case(b"gzip") => Self::Gzip,
            Some(name) if name.eq_ignore_ascii_case(b"deflate") => Self::Deflate,
            Some(_) => Self::Unknown,
        }
    }

    /// The plain bytes of a whole body, at most `limit` of them; `None` if there are more, or it is broken.
    pub(super) fn plain(self, body: &[u8], limit: usize) -> Option<Cow<'_, [u8]>> {
        let mut inflated = Vec::new();
        let most = limit as u64 + 1;
        match self {
            Self::Identity => return Some(Cow::Borrowed(body)),
            Self::Unknown => return None,
            Self::Gzip => GzDecoder::new(body).take(most).read_to_end(&mut inflated),
            Self::Deflate => ZlibDecoder::new(body).take(most).read_to_end(&mut inflated),
        }
        .ok()?;
        (inflated.len() <= limit).then_some(Cow::Owned(inflated))
    }

    /// As much of the plain bytes as can be had; what is cut off or broken ends early.
    fn decoded(self, bytes: Vec<u8>) -> Vec<u8> {
        let mut plain = Vec::new();
        let limit = LOOKED_AT as u64;
        // An error is no failure here: whatever came out before it is looked at.
        let _ = match self {
            Self::Identity | Self::Unknown => return bytes,
            Self::Gzip => GzDecoder::new(bytes.as_slice()).take(limit).read_to_end(&mut plain),
            Self::Deflate => ZlibDecoder::new(bytes.as_slice()).take(limit).read_to_end(&mut plain),
        };
        plain
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match self.get_mut() {
            Self::Plain(body) => Pin::new(body).poll_frame(cx),
            Self::Learning(learning) => learning.poll_frame(cx),
            Self::Resumed(resumed) => resumed.poll_frame(cx),
            Self::Changing(changing) => changing.poll_frame(cx),
            Self::Counting(counting) => counting.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Plain(body) => body.is_end_stream(),
            Self::Learning(learning) => learning.body.is_end_stream(),
            Self::Resumed(resumed) => resumed.read.is_empty() && resumed.rest.as_ref().is_ok_and(Body::is_end_stream),
            Self::Changing(changing) => changing.is_end_stream(),
            Self::Counting(counting) => counting.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Plain(body) => body.size_hint(),
            Self::Learning(learning) => learning.body.size_hint(),
            Self::Resumed(resumed) if resumed.unmeasured => SizeHint::default(),
            Self::Resumed(resumed) => {
                let ahead: usize = resumed.read.iter().map(Bytes::len).sum();
                let rest = resumed.rest.as_ref().ok().and_then(|rest| rest.size_hint().exact());
                rest.map_or_else(SizeHint::default, |rest| SizeHint::with_exact(rest + ahead as u64))
            }
            Self::Changing(changing) => changing.size_hint(),
            Self::Counting(counting) => counting.size_hint(),
        }
    }
}
