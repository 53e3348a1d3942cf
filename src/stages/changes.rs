//! What a call that may change something does to kept answers, once it is answered: part of [`super::recall`].
//!
//! What it changed is old before the writer sees the answer. Where Salesforce may begin to answer before it is done, what is
//! being changed goes on to change until the last byte; an answer that does not come leaves it in doubt.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};

use crate::answers::{DOUBT, JOB, Job, Touch, Touches, Writing, ingest_job, job_of_path, with_what_changes_along};
use crate::body::{BodyFault, ReplyBody};
use crate::call::{Family, Meaning, OrgId};
use crate::live::Live;
use crate::outcome::Record;
use crate::refusal::Refusal;
use crate::stages::answer::{Answer, Gathered, gather, plain};
use crate::stages::{Passage, Reply};

/// What says how a job is doing is shorter than this.
const LONGEST_JOB: usize = 64 * 1_024;

/// When Salesforce is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// When it begins to answer: one row, one collection.
    AtHead,
    /// When it has answered.
    AtEnd,
}

impl Kind {
    pub(super) fn of(meaning: &Meaning) -> Self {
        if meaning.family == Family::Rest { Self::AtHead } else { Self::AtEnd }
    }
}

/// Ends `writing` by what came of its call.
pub(super) fn settled(
    result: Result<Reply, Refusal>,
    writing: Writing,
    kind: Kind,
    record: &Record,
) -> Result<Reply, Refusal> {
    match result {
        Err(refusal) => {
            // What was never handed over did not happen; all else is in doubt.
            if record.lock().exchanges.is_empty() {
                writing.ended();
            }
            Err(refusal)
        }
        // It may have happened, or may happen yet.
        Ok(reply) if is_doubtful(&reply) => Ok(reply),
        Ok(reply) if kind == Kind::AtHead || reply.body().is_end_stream() => {
            writing.ended();
            Ok(reply)
        }
        Ok(reply) => {
            writing.answering();
            Ok(reply
                .map(|body| ReplyBody::Stream(Answer::Changing(Box::new(Changing { body, writing: Some(writing) })))))
        }
    }
}

/// Whether an answer leaves open what became of its call: it comes from something in front of Salesforce, which may be at
/// work still. What failed in Salesforce itself says so in the form of its API, with 500.
fn is_doubtful(reply: &Reply) -> bool {
    let status = reply.status();
    let own = |kind: &HeaderValue| {
        [&b"application/json"[..], b"text/xml", b"application/xml"].iter().any(|form| kind.as_bytes().starts_with(form))
    };
    let says = status == StatusCode::INTERNAL_SERVER_ERROR && reply.headers().get(CONTENT_TYPE).is_some_and(own);
    status.is_server_error() && !says
}

/// The answer to a call that may still be changing something.
#[derive(Debug)]
pub struct Changing {
    body: ReplyBody<Answer>,
    /// `None` once Salesforce is done. If it is dropped before, nobody knows whether it will be.
    writing: Option<Writing>,
}

impl Changing {
    /// The next piece. What was changed is settled before the last one is passed on.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let over = match &frame {
            Some(Ok(_)) => self.body.is_end_stream(),
            Some(Err(_)) => false,
            None => true,
        };
        if over && let Some(writing) = self.writing.take() {
            writing.ended();
        }
        Poll::Ready(frame)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A call about a bulk job.
pub(super) struct JobCall {
    live: Arc<Live>,
    org: OrgId,
    /// The job, if its id stands in the path.
    id: Option<smol_str::SmolStr>,
    /// Its answer describes the job.
    describes: bool,
    bulk2: bool,
    /// It only asks.
    reads: bool,
    /// What it may change, while nobody knows better.
    writing: Option<Writing>,
    record: Record,
}

impl JobCall {
    pub(super) fn of(passage: &Passage) -> Self {
        let Meaning { template, method, family, idempotency, parts, .. } = &passage.call.meaning;
        let reads = *idempotency == crate::call::Idempotency::Safe;
        let path = passage.head.uri.path();
        let id = job_of_path(path);
        let bulk2 = *family == Family::Bulk2;
        let (makes, one) = match *template {
            "/services/data/{version}/jobs/ingest" | "/services/async/{version}/job" => {
                (*method == Method::POST, false)
            }
            "/services/data/{version}/jobs/ingest/{job}" => (false, true),
            _ => (false, false),
        };
        let org = passage.live.org(passage.call.org);
        let mut writing = None;
        if !reads && let (Some(org), Some(cache)) = (org, &passage.live.cache) {
            let known = id.as_ref().is_some_and(|id| org.answers.knows_job(id));
            // A query job changes nothing. A job that is not known may be about any object.
            let touches: Touches = match parts.first().and_then(|part| part.object.as_deref()) {
                _ if template.starts_with("/services/data/{version}/jobs/query") => Touches::new(),
                _ if known => Touches::new(),
                Some(object) if makes => std::iter::once(Touch::Object(crate::answers::lower(object))).collect(),
                _ => std::iter::once(Touch::Rows).collect(),
            };
            let touches = with_what_changes_along(touches, &cache.rules);
            if !touches.is_empty() {
                writing = Some(org.answers.write(touches, passage.now));
            }
        }
        Self {
            live: Arc::clone(&passage.live),
            org: passage.call.org,
            id,
            describes: makes || one && (*method == Method::GET || *method == Method::PATCH),
            bulk2,
            reads,
            writing,
            record: passage.record.clone(),
        }
    }

    pub(super) async fn settled(mut self, result: Result<Reply, Refusal>) -> Result<Reply, Refusal> {
        let Ok(reply) = result else {
            // If it was handed over, nobody knows whether a job was made or closed.
            match self.writing.take() {
                Some(writing) if self.record.lock().exchanges.is_empty() => writing.ended(),
                Some(writing) => self.doubt(&writing),
                None => {}
            }
            return result;
        };
        if !reply.status().is_success() {
            let unknown = is_doubtful(&reply);
            match self.writing.take() {
                Some(writing) if unknown => self.doubt(&writing),
                Some(writing) => writing.ended(),
                None => {}
            }
            return Ok(reply);
        }
        let (reply, job) = if self.describes && reply.status() != StatusCode::NO_CONTENT {
            self.described(reply).await
        } else {
            (reply, None)
        };
        let live = Arc::clone(&self.live);
        let (Some(org), Some(cache)) = (live.org(self.org), &live.cache) else { return Ok(reply) };
        match job {
            Some(job) if job.over => org.answers.job_ended(&job.id),
            // Only what was made or closed by way of this gateway is watched: others' jobs are others' business.
            Some(job) if !self.reads => {
                let touches = with_what_changes_along(std::iter::once(job.touch).collect(), &cache.rules);
                org.answers.job(&job.id, touches);
            }
            None if !self.reads => match (&self.id, self.writing.as_ref()) {
                // More for a job that is known.
                (Some(id), _) if org.answers.knows_job(id) => org.answers.job(id, Touches::new()),
                (_, Some(writing)) => org.answers.doubt(writing.touches(), JOB),
                _ => {}
            },
            Some(_) | None => {}
        }
        if let Some(writing) = self.writing.take() {
            writing.ended();
        }
        Ok(reply)
    }

    /// What is being changed stays in doubt for as long as a job may go on.
    fn doubt(&self, writing: &Writing) {
        if let Some(org) = self.live.org(self.org) {
            org.answers.doubt(writing.touches(), JOB.max(DOUBT));
        }
    }

    /// Reads an answer that describes a job; it comes back as it was.
    async fn described(&self, reply: Reply) -> (Reply, Option<Job>) {
        let (head, body) = reply.into_parts();
        match gather(body, LONGEST_JOB).await {
            Gathered::Whole(whole) => {
                let job = plain(&head.headers, &whole, LONGEST_JOB).and_then(|plain| ingest_job(&plain, self.bulk2));
                (Response::from_parts(head, ReplyBody::Whole(whole)), job)
            }
            Gathered::Longer(body) => (Response::from_parts(head, body), None),
        }
    }
}
