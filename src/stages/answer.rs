//! The body of Salesforce's answer as it passes: untouched, and looked at only if it is an error or SOAP.

use std::io::Read as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use flate2::read::{GzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use http_body::{Body, Frame, SizeHint};

use crate::body::BodyFault;
use crate::call::ApiCalls;
use crate::exchange::UpstreamBody;
use crate::outcome::Record;
use crate::salesforce::{errors, soap_usage};
use crate::stages::admit::Fare;

/// This much of a body is looked at; what is sought stands at the front.
const LOOKED_AT: usize = 16 * 1024;

/// An answer's body on its way to the caller.
#[derive(Debug)]
pub enum Answer {
    /// Passed on.
    Plain(UpstreamBody),
    /// Passed on, while a bounded copy of its beginning is kept to learn from.
    Learning(Box<Learning>),
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
    record: Record,
    fare: Fare,
    learnt: bool,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Identity,
    Gzip,
    Deflate,
    Unknown,
}

impl Learning {
    /// Looks for `sought` in `body`, whose head carried `headers`.
    pub fn new(body: UpstreamBody, headers: &HeaderMap, sought: Sought, record: Record, fare: Fare) -> Self {
        let coding = match headers.get(CONTENT_ENCODING).map(http::HeaderValue::as_bytes) {
            None => Coding::Identity,
            Some(name) if name.eq_ignore_ascii_case(b"gzip") => Coding::Gzip,
            Some(name) if name.eq_ignore_ascii_case(b"deflate") => Coding::Deflate,
            Some(_) => Coding::Unknown,
        };
        let mut learning =
            Self { body, copy: Prefix { bytes: Vec::new(), coding }, sought, record, fare, learnt: false };
        if learning.body.is_end_stream() {
            learning.learn();
        }
        learning
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
                let code = errors::error_code(&plain);
                let limited = code.as_deref() == Some("REQUEST_LIMIT_EXCEEDED");
                if limited {
                    exchange.charged = if_refused;
                }
                if code.is_some() {
                    exchange.error_code = code;
                }
                if limited && errors::is_daily_limit(&plain) {
                    self.fare.limit_exceeded(exchange.charged, at);
                } else {
                    self.fare.answered(exchange.charged, at);
                }
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
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Plain(body) => body.is_end_stream(),
            Self::Learning(learning) => learning.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Plain(body) => body.size_hint(),
            Self::Learning(learning) => learning.body.size_hint(),
        }
    }
}
