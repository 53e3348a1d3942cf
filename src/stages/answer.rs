//! The body of Salesforce's answer as it passes: untouched, and looked at only if it is an error.

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
use crate::salesforce::errors;

/// This much of an error's body is looked at; its code stands at the front.
const LOOKED_AT: usize = 16 * 1024;

/// An answer's body on its way to the caller.
#[derive(Debug)]
pub enum Answer {
    /// Passed on.
    Plain(UpstreamBody),
    /// Passed on, while a bounded copy of its beginning is kept to learn the error's code.
    Learning(Box<Learning>),
}

/// Learns the code of an error while its body passes.
#[derive(Debug)]
pub struct Learning {
    body: UpstreamBody,
    copy: Copy,
    record: Record,
    if_refused: ApiCalls,
}

/// The beginning of a body. It is not shown by Debug: bodies never are.
struct Copy {
    bytes: Vec<u8>,
    coding: Coding,
}

impl std::fmt::Debug for Copy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Copy({} bytes)", self.bytes.len())
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
    /// Looks at `body`, whose head carried `headers`. If it says that a limit was exceeded, its exchange is charged
    /// `if_refused`.
    pub fn new(body: UpstreamBody, headers: &HeaderMap, record: Record, if_refused: ApiCalls) -> Self {
        let coding = match headers.get(CONTENT_ENCODING).map(http::HeaderValue::as_bytes) {
            None => Coding::Identity,
            Some(name) if name.eq_ignore_ascii_case(b"gzip") => Coding::Gzip,
            Some(name) if name.eq_ignore_ascii_case(b"deflate") => Coding::Deflate,
            Some(_) => Coding::Unknown,
        };
        Self { body, copy: Copy { bytes: Vec::new(), coding }, record, if_refused }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.copy.take(data);
                }
                if self.body.is_end_stream() {
                    self.learn();
                }
            }
            Some(Err(_)) | None => self.learn(),
        }
        Poll::Ready(frame)
    }

    fn learn(&mut self) {
        let bytes = std::mem::take(&mut self.copy.bytes);
        if bytes.is_empty() {
            return;
        }
        let Some(code) = errors::error_code(&self.copy.coding.decoded(bytes)) else { return };
        if let Some(exchange) = self.record.lock().exchanges.last_mut() {
            if code == "REQUEST_LIMIT_EXCEEDED" {
                exchange.charged = self.if_refused;
            }
            exchange.error_code = Some(code);
        }
    }
}

impl Copy {
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
