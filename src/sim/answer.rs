//! What a handler decides: status, headers and body, before they are put on the wire.

use std::borrow::Cow;

use bytes::Bytes;
use smol_str::SmolStr;
use tokio::sync::watch;

use super::clock::Micros;
use super::errors::ApiError;
use super::json::Json;

/// The content of an answer.
#[derive(Debug, Clone, Default)]
pub(super) enum Content {
    /// No body at all, as with 204 and 304.
    #[default]
    Empty,
    /// JSON, or XML for callers that ask for it.
    Json(Json),
    /// Ready-made text of this content type.
    Text(Cow<'static, str>, Bytes),
    /// A generated binary of so many bytes, never held in memory.
    Blob(u64),
    /// Nothing yet: the request is handled again when the bell rings, at the latest at this time (CometD).
    Later(watch::Receiver<u64>, Micros),
}

/// One answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(Cow<'static, str>, String)>,
    pub(super) content: Content,
    /// Name of the root element if the answer is written as XML.
    pub(super) root: Option<SmolStr>,
    /// Whether this is a refusal by a limit.
    pub(super) refusal: bool,
    /// Calls it costs, if more than one.
    pub(super) calls: u64,
    /// Whether the body is compressed even for callers that did not ask (Bulk query results).
    pub(super) always_compressed: bool,
    /// The error told in REST's form, for APIs that have another.
    pub(super) error: Option<Box<ApiError>>,
}

impl Answer {
    pub(super) fn json(status: u16, body: impl Into<Json>) -> Self {
        Self { status, content: Content::Json(body.into()), ..Self::default() }
    }

    pub(super) fn ok(body: impl Into<Json>) -> Self {
        Self::json(200, body)
    }

    pub(super) fn empty(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(super) fn text(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status, content: Content::Text(Cow::Borrowed(content_type), body.into()), ..Self::default() }
    }

    pub(super) fn html(status: u16, title: &str) -> Self {
        let page = format!(
            "<!DOCTYPE html>\n<html><head><title>{title}</title></head>\n<body><h1>{title}</h1></body></html>\n"
        );
        Self::text(status, "text/html;charset=UTF-8", page)
    }

    /// Asks to be handled again when `bell` rings, at the latest at `until`.
    pub(super) fn later(bell: watch::Receiver<u64>, until: Micros) -> Self {
        Self { status: 200, content: Content::Later(bell, until), ..Self::default() }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((Cow::Borrowed(name), value.into()));
        self
    }

    pub(super) fn root(mut self, name: impl Into<SmolStr>) -> Self {
        self.root = Some(name.into());
        self
    }

    /// The value of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The JSON body; null if there is none.
    pub(super) fn body(&self) -> Json {
        match &self.content {
            Content::Json(body) => body.clone(),
            _ => Json::Null,
        }
    }

    pub(super) fn succeeded(&self) -> bool {
        self.status < 400
    }
}

impl From<ApiError> for Answer {
    fn from(error: ApiError) -> Self {
        let mut answer = Self::json(error.status, error.array());
        answer.refusal = error.is_limit_refusal();
        answer.error = Some(Box::new(error));
        answer
    }
}

impl From<Result<Answer, ApiError>> for Answer {
    fn from(result: Result<Answer, ApiError>) -> Self {
        result.unwrap_or_else(Self::from)
    }
}
