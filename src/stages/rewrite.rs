//! Rewrite: makes the absolute URLs in a few answers point to the gateway, so that clients do not walk past it.
//!
//! Which answers, and which URLs, is known to [`Urls`]; all other calls pass as if this stage were not there. It stands
//! outside of everything that may keep an answer: where an answer points depends on the host its caller used.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, ETAG, HOST, HeaderValue};
use http::{Response, StatusCode};
use tower::{Layer, Service};

use crate::body::ReplyBody;
use crate::outcome::Record;
use crate::refusal::Refusal;
use crate::salesforce::{Urls, with_origin};
use crate::stages::answer::{Gathered, gather, plain};
use crate::stages::way::Way;
use crate::stages::{Passage, Reply};

/// Answers that carry URLs are a few kilobytes; a longer one passes as it is.
const LONGEST: usize = 512 * 1_024;

/// Puts [`Rewrite`] on the road.
#[derive(Debug, Clone, Copy)]
pub struct RewriteLayer;

impl<S> Layer<S> for RewriteLayer {
    type Service = Rewrite<S>;

    fn layer(&self, inner: S) -> Rewrite<S> {
        Rewrite { inner }
    }
}

/// The stage.
#[derive(Debug, Clone)]
pub struct Rewrite<S> {
    inner: S,
}

impl<S> Service<Box<Passage>> for Rewrite<S>
where
    S: Service<Box<Passage>, Response = Reply, Error = Refusal>,
    S::Future: Send + 'static,
{
    type Response = Reply;
    type Error = Refusal;
    type Future = Way<S::Future>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, passage: Box<Passage>) -> Self::Future {
        let Some(urls) = Urls::of(&passage.call.meaning) else { return Way::onward(self.inner.call(passage)) };
        let org = passage.live.org(passage.call.org);
        let Some(origin) = org.and_then(|org| org.public(passage.head.headers.get(HOST), passage.secure)) else {
            return Way::onward(self.inner.call(passage));
        };
        let record = passage.record.clone();
        let answer = self.inner.call(passage);
        Way::waits(async move { Ok(rewritten(urls, &origin, answer.await?, &record).await) })
    }
}

async fn rewritten(urls: Urls, origin: &Arc<str>, reply: Reply, record: &Record) -> Reply {
    if reply.status() != StatusCode::OK {
        return reply;
    }
    let (mut head, body) = reply.into_parts();
    let whole = match gather(body, LONGEST).await {
        Gathered::Whole(whole) => whole,
        Gathered::Longer(body) => {
            record.lock().urls_kept = true;
            return Response::from_parts(head, body);
        }
    };
    let Some(readable) = plain(&head.headers, &whole, LONGEST) else {
        record.lock().urls_kept = true;
        return Response::from_parts(head, ReplyBody::Whole(whole));
    };
    let Some(new) = with_origin(urls, &readable, origin) else {
        return Response::from_parts(head, ReplyBody::Whole(whole));
    };
    // What was said of the old bytes is not true of the new ones.
    head.headers.remove(CONTENT_ENCODING);
    head.headers.remove(ETAG);
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(new.len()));
    Response::from_parts(head, ReplyBody::Whole(Bytes::from(new)))
}
