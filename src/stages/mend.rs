//! Sending again only the records of a request that were locked, where the operator wants that: a part of [`super::retry`].
//!
//! What is cut out of a request, and how what comes of it is put into the answer, is decided in
//! [`crate::salesforce::taxonomy`]. Here the answer of the first attempt is kept while the next one is made: whatever comes of
//! that, its caller gets an answer that says of each record what is known of it.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, ETAG};
use http::{HeaderMap, HeaderValue, Response, Uri, response};

use crate::body::{ByteBudget, HeldBytes, Payload, ReplyBody};
use crate::call::{Family, Idempotency};
use crate::edge::inbound::Inbound;
use crate::outcome::Record;
use crate::refusal::{Reason, Refusal};
use crate::salesforce::taxonomy::{Partial, Verdict, locked, merged, only, only_ids};
use crate::stages::answer::{Coding, Gathered, gather, unmeasured};
use crate::stages::back::Left;
use crate::stages::parts::LONGEST_PARTS;
use crate::stages::{Passage, Reply};
use crate::tasks::Tasks;

/// A part of a request that can be sent again by itself.
pub(super) struct Apart {
    /// Which of its records those are.
    places: Vec<u32>,
    request: Request,
    /// The answer without compression.
    answer: Bytes,
    hold: HeldBytes,
}

enum Request {
    Body(Bytes),
    Target(Uri),
}

/// What can be sent again of a request that was answered with `whole`, of which `found` failed.
pub(super) async fn apart(
    passage: &Passage,
    headers: &HeaderMap,
    whole: &Bytes,
    found: &Partial,
    buffers: &ByteBudget,
    tasks: &Tasks,
) -> Option<Apart> {
    let family = passage.call.meaning.family;
    let places = locked(found);
    if places.is_empty() || !matches!(family, Family::Collections | Family::Composite) {
        return None;
    }
    let (coding, whole, total) = (Coding::of(headers), whole.clone(), found.total);
    match &passage.payload {
        Payload::<Inbound>::Empty => {
            let uri = &passage.head.uri;
            let target = only_ids(uri.path_and_query()?.as_str(), total, &places)?;
            let mut parts = uri.clone().into_parts();
            parts.path_and_query = Some(target.parse().ok()?);
            let request = Request::Target(Uri::from_parts(parts).ok()?);
            let answer = tasks.work(move || coding.plain(&whole, LONGEST_PARTS).map(|plain| plain.into_owned().into()));
            let answer: Bytes = answer.await.flatten()?;
            let mut hold = buffers.hold();
            hold.grow(answer.len()).then_some(Apart { places, request, answer, hold })
        }
        Payload::Whole(body, _) if !passage.head.headers.contains_key(CONTENT_ENCODING) => {
            let body = body.clone();
            let cut = tasks.work(move || {
                let answer = Bytes::from(coding.plain(&whole, LONGEST_PARTS)?.into_owned());
                let (places, made) = only(family, &body, &answer, &places)?;
                Some((places, Bytes::from(made), answer))
            });
            let (places, made, answer) = cut.await.flatten()?;
            let mut hold = buffers.hold();
            let room = hold.grow(answer.len() + made.len());
            room.then_some(Apart { places, request: Request::Body(made), answer, hold })
        }
        _ => None,
    }
}

/// An answer that waits for what comes of a part of its request.
pub(super) struct Mending {
    places: Vec<u32>,
    head: response::Parts,
    answer: Bytes,
    payload: Payload<Inbound>,
    uri: Uri,
    length: Option<HeaderValue>,
    hold: HeldBytes,
}

/// What the further attempt came to.
pub(super) struct Mended {
    /// The answer to the whole request.
    pub(super) reply: Reply,
    /// The whole request, if there is to be one more.
    pub(super) left: Option<Left>,
    /// No further attempt makes sense.
    pub(super) over: bool,
    /// Nobody knows whether the records that were sent again were written.
    pub(super) unknown: bool,
}

impl Apart {
    /// Makes `passage` the request that is sent again, and keeps the answer it got.
    pub(super) fn begin(self, reply: Reply, passage: &mut Passage) -> Mending {
        let uri = passage.head.uri.clone();
        let length = passage.head.headers.get(CONTENT_LENGTH).cloned();
        let payload = match self.request {
            Request::Body(body) => {
                passage.head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
                std::mem::replace(&mut passage.payload, Payload::Whole(body, None))
            }
            Request::Target(target) => {
                passage.head.uri = target;
                Payload::Empty
            }
        };
        let (head, _) = reply.into_parts();
        Mending { places: self.places, head, answer: self.answer, payload, uri, length, hold: self.hold }
    }
}

impl Mending {
    /// Puts what came of the part into the answer. Where nothing came of it, the answer is what it was.
    pub(super) async fn mended(
        self,
        result: Result<Reply, Refusal>,
        left: Option<Left>,
        record: &Record,
        tasks: &Tasks,
    ) -> Mended {
        let Self { places, head, answer, payload, uri, length, mut hold } = self;
        let family = left.as_ref().map(|left| left.passage.call.meaning.family);
        let left = left.map(|mut left| {
            left.passage.payload = payload;
            left.passage.head.uri = uri;
            match length {
                Some(length) => left.passage.head.headers.insert(CONTENT_LENGTH, length),
                None => left.passage.head.headers.remove(CONTENT_LENGTH),
            };
            Left { failure: None, ..left }
        });
        let (head, answer, over, unknown) = match (result, family) {
            (Ok(reply), Some(family)) if reply.status().is_success() => {
                let (new, body) = reply.into_parts();
                let coding = Coding::of(&new.headers);
                let joined = match gather(body, LONGEST_PARTS).await {
                    Gathered::Whole(part) => {
                        let answer = answer.clone();
                        let join = move || merged(family, &answer, &places, &coding.plain(&part, LONGEST_PARTS)?);
                        tasks.work(join).await.flatten()
                    }
                    Gathered::Longer(_) => None,
                };
                match joined {
                    Some(joined) => (new, Bytes::from(joined), false, false),
                    // Salesforce did something, and does not say what.
                    None => (head, answer, true, true),
                }
            }
            (Ok(reply), _) => {
                let server = reply.status().is_server_error();
                // What it says is written down when it has passed.
                drop(gather(reply.into_body(), LONGEST_PARTS).await);
                let verdict = record.lock().exchanges.last().and_then(|exchange| exchange.verdict);
                let unknown = verdict.map_or(server, |verdict| verdict.is_outcome_unknown(Idempotency::Unsafe));
                (head, answer, unknown || !verdict.is_some_and(Verdict::may_pass), unknown)
            }
            (Err(refusal), _) => (head, answer, true, refusal.reason == Reason::OutcomeUnknown),
        };
        hold.shrink(usize::MAX);
        Mended { reply: plain(head, answer), left, over, unknown }
    }
}

/// An answer that is not compressed, whatever it was.
fn plain(mut head: response::Parts, body: Bytes) -> Reply {
    head.headers.remove(CONTENT_ENCODING);
    head.headers.remove(ETAG);
    let body = if head.headers.contains_key(CONTENT_LENGTH) {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        ReplyBody::Whole(body)
    } else {
        unmeasured(body)
    };
    Response::from_parts(head, body)
}
