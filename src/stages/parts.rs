//! What failed inside of answers that are no failures: a part of [`super::retry`].
//!
//! Composite, batch, graph, tree and collection answers of up to 1 MiB are looked through before they are passed on; longer
//! ones, and those of SOAP, GraphQL and bulk jobs, while they pass, untouched. Compressed bodies are inflated in a copy, and
//! what takes long is done on another thread.

use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use flate2::write::{GzDecoder, ZlibDecoder};
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use smol_str::SmolStr;

use crate::body::{BodyFault, ByteBudget, HeldBytes, ReplyBody};
use crate::call::{Call, Family, Idempotency, Meaning, ObjectName};
use crate::outcome::{Failures, Record};
use crate::salesforce::taxonomy::{Envelope, Failed, Partial, Progress, Said, Stream, classify, progress, scan};
use crate::stages::answer::{Answer, Coding};
use crate::stages::tally::Tally;
use crate::stages::{Passage, Reply};
use crate::tasks::Tasks;

/// An answer that holds those of several parts is looked through whole up to this length, plain and as it came.
pub(super) const LONGEST_PARTS: usize = 1_024 * 1_024;
/// To look through a longer plain body, or to inflate a longer one, takes more than a moment.
const QUICK_PLAIN: usize = 64 * 1_024;
const QUICK_PACKED: usize = 8 * 1_024;
/// A compressed body that passes is copied up to this length, and inflated up to the other.
const LONGEST_COPY: usize = 4 * 1_024 * 1_024;
const LONGEST_PLAIN: usize = 64 * 1_024 * 1_024;
/// What says how a bulk job is doing is shorter than this, a list of its batches too.
const LONGEST_PROGRESS: usize = 256 * 1_024;

/// What an answer may tell of parts that failed.
pub(super) enum Seeks {
    /// Nothing.
    Nothing,
    /// Its parts, read whole.
    Parts,
    /// The same, or another shape of it, while it passes.
    Passing(Box<Passing>),
}

/// What is looked for in an answer that passes.
pub(super) struct Passing {
    search: Search,
    /// No more of it is looked at, in plain bytes.
    limit: usize,
    objects: Vec<Option<ObjectName>>,
    /// So many parts there are at least.
    parts: u32,
}

enum Search {
    Parts(Stream),
    Soap(Envelope),
    Bulk(Vec<u8>, Arc<Tally>),
}

/// Whether the answer to a call may hold failures of its parts, and is read whole for them.
pub(super) fn has_parts(call: &Call) -> bool {
    let several = matches!(
        call.meaning.family,
        Family::Composite | Family::Collections | Family::Tree | Family::Graph | Family::Batch
    );
    several && call.meaning.idempotency != Idempotency::Safe
}

/// What the answer to a request may tell.
pub(super) fn sought(passage: &Passage) -> Seeks {
    let meaning = &passage.call.meaning;
    let passing =
        |search, limit, parts| Seeks::Passing(Box::new(Passing { search, limit, objects: objects(meaning), parts }));
    match meaning.family {
        _ if has_parts(&passage.call) => Seeks::Parts,
        Family::Soap if meaning.idempotency != Idempotency::Safe => {
            passing(Search::Soap(Envelope::default()), LONGEST_PLAIN, 0)
        }
        // Mostly reads: not looked at for ever.
        Family::Graphql => Stream::new(Family::Graphql)
            .map_or(Seeks::Nothing, |stream| passing(Search::Parts(stream), LONGEST_PARTS, meaning.cost.0)),
        Family::Bulk1 | Family::Bulk2 if tells_progress(meaning.template) => match passage.live.org(passage.call.org) {
            Some(org) => passing(Search::Bulk(Vec::new(), Arc::clone(&org.tally)), LONGEST_PROGRESS, 0),
            None => Seeks::Nothing,
        },
        _ => Seeks::Nothing,
    }
}

/// The same for an answer that is too long to be read whole.
pub(super) fn of_parts(meaning: &Meaning) -> Option<Box<Passing>> {
    let search = Search::Parts(Stream::new(meaning.family)?);
    Some(Box::new(Passing { search, limit: LONGEST_PLAIN, objects: objects(meaning), parts: 0 }))
}

fn tells_progress(template: &str) -> bool {
    matches!(
        template,
        "/services/data/{version}/jobs/ingest/{job}"
            | "/services/async/{version}/job/{job}"
            | "/services/async/{version}/job/{job}/batch"
            | "/services/async/{version}/job/{job}/batch/{batch}"
    )
}

fn objects(meaning: &Meaning) -> Vec<Option<ObjectName>> {
    meaning.parts.iter().map(|part| part.object.clone()).collect()
}

/// What is written down of parts that failed, if any did. `objects` are those of the parts: one for each, or one for all; else
/// nobody knows whose is whose.
fn told(found: Partial, objects: Vec<Option<ObjectName>>) -> Option<Box<Failures>> {
    let Partial { total, failed, list, .. } = found;
    let objects = if objects.len() == 1 || objects.len() == total as usize { objects } else { Vec::new() };
    (failed > 0).then(|| Box::new(Failures { total, failed, list, each: 1, objects }))
}

/// The same, of a whole answer to a call.
pub(super) fn failures(found: Partial, meaning: &Meaning) -> Option<Box<Failures>> {
    told(found, objects(meaning))
}

/// Looks through a whole answer to a call of `family`.
pub(super) async fn scanned(family: Family, headers: &HeaderMap, whole: &Bytes, tasks: &Tasks) -> Option<Partial> {
    let coding = Coding::of(headers);
    let quick = if coding == Coding::Identity { QUICK_PLAIN } else { QUICK_PACKED };
    let look = {
        let whole = whole.clone();
        move || {
            if let Some(plain) = coding.plain(&whole, LONGEST_PARTS) {
                return scan(family, &plain);
            }
            // It is longer than it looked.
            let mut looking = Looking::of(Search::Parts(Stream::new(family)?));
            looking.inflate(coding, &[whole]);
            looking.found()
        }
    };
    if whole.len() <= quick { look() } else { tasks.work(look).await.flatten() }
}

/// An answer that is looked through while it passes.
pub(super) fn watched(
    reply: Reply,
    passing: Box<Passing>,
    record: &Record,
    buffers: &ByteBudget,
    tasks: &Tasks,
) -> Reply {
    let coding = Coding::of(reply.headers());
    let (head, body) = reply.into_parts();
    if !head.status.is_success() || coding == Coding::Unknown || body.is_end_stream() {
        return Response::from_parts(head, body);
    }
    let looking =
        Looking { search: passing.search, left: passing.limit, objects: passing.objects, parts: passing.parts };
    let counting = Counting {
        body,
        coding,
        looking: Some(looking),
        copy: Vec::new(),
        hold: buffers.hold(),
        record: record.clone(),
        tasks: tasks.clone(),
    };
    Response::from_parts(head, ReplyBody::Stream(Answer::Counting(Box::new(counting))))
}

/// A body that passes untouched, and is looked through.
pub struct Counting {
    body: ReplyBody<Answer>,
    coding: Coding,
    /// `None` once it has ended, or is given up.
    looking: Option<Looking>,
    /// The compressed bytes so far.
    copy: Vec<Bytes>,
    hold: HeldBytes,
    record: Record,
    tasks: Tasks,
}

impl std::fmt::Debug for Counting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counting").field("body", &self.body).field("coding", &self.coding).finish_non_exhaustive()
    }
}

impl Counting {
    /// The next piece.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if self.looking.is_some() {
            match &frame {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.take(data);
                    }
                    if self.body.is_end_stream() {
                        self.ended();
                    }
                }
                Some(Err(_)) => self.looking = None,
                None => self.ended(),
            }
        }
        Poll::Ready(frame)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    fn take(&mut self, data: &Bytes) {
        let Some(looking) = &mut self.looking else { return };
        if self.coding == Coding::Identity {
            looking.feed(data);
            return;
        }
        let most = LONGEST_COPY.min(looking.left);
        if self.hold.bytes() + data.len() <= most && self.hold.grow(data.len()) {
            self.copy.push(data.clone());
        } else {
            // There is no room to find out.
            (self.looking, self.copy) = (None, Vec::new());
            self.hold.shrink(usize::MAX);
        }
    }

    fn ended(&mut self) {
        let Some(mut looking) = self.looking.take() else { return };
        let (copy, coding) = (std::mem::take(&mut self.copy), self.coding);
        if coding == Coding::Identity || self.hold.bytes() <= QUICK_PACKED {
            looking.inflate(coding, &copy);
            self.hold.shrink(usize::MAX);
            return looking.concluded(&self.record);
        }
        let mut hold = self.hold.split();
        let (record, tasks) = (self.record.clone(), self.tasks.clone());
        self.tasks.spawn(async move {
            let looked = tasks.work(move || {
                looking.inflate(coding, &copy);
                looking
            });
            if let Some(looking) = looked.await {
                looking.concluded(&record);
            }
            hold.shrink(usize::MAX);
        });
    }
}

/// A search under way.
struct Looking {
    search: Search,
    left: usize,
    objects: Vec<Option<ObjectName>>,
    parts: u32,
}

impl Looking {
    fn of(search: Search) -> Self {
        Self { search, left: LONGEST_PLAIN, objects: Vec::new(), parts: 0 }
    }

    fn found(self) -> Option<Partial> {
        match self.search {
            Search::Parts(stream) => stream.found(),
            Search::Soap(envelope) => envelope.found(),
            Search::Bulk(..) => None,
        }
    }

    fn feed(&mut self, data: &[u8]) {
        let data = data.get(..self.left.min(data.len())).unwrap_or_default();
        self.left -= data.len();
        match &mut self.search {
            Search::Parts(stream) => stream.feed(data),
            Search::Soap(envelope) => envelope.feed(data),
            Search::Bulk(copy, _) => copy.extend_from_slice(data),
        }
    }

    /// As much as can be had: what is cut off or broken ends early.
    fn inflate(&mut self, coding: Coding, copy: &[Bytes]) {
        let feed = |sink: &mut dyn Write| {
            let _ = copy.iter().try_for_each(|piece| sink.write_all(piece)).and_then(|()| sink.flush());
        };
        match coding {
            Coding::Gzip => feed(&mut GzDecoder::new(self)),
            Coding::Deflate => feed(&mut ZlibDecoder::new(self)),
            Coding::Identity | Coding::Unknown => {}
        }
    }

    fn concluded(mut self, record: &Record) {
        if let Search::Bulk(copy, tally) = &self.search {
            return bulk(&progress(copy), tally, record);
        }
        let (parts, objects) = (self.parts, std::mem::take(&mut self.objects));
        let found = self.found().map(|found| Partial { total: found.total.max(parts), ..found });
        record.lock().failures = found.and_then(|found| told(found, objects));
    }
}

impl Write for &mut Looking {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.feed(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Writes down how many more records of a bulk job failed than were counted before; nobody says why.
fn bulk(told: &[Progress], tally: &Tally, record: &Record) {
    let (mut failed, mut object) = (0_u32, SmolStr::default());
    for progress in told {
        let (new, of) = tally.newly(progress);
        failed = failed.saturating_add(new);
        if !of.is_empty() {
            object = of;
        }
    }
    if failed == 0 {
        return;
    }
    let total = told.iter().fold(0_u32, |sum, progress| sum.saturating_add(progress.processed)).max(failed);
    let verdict = classify(Family::Bulk2, 400, &Said::default());
    let list = vec![Failed { at: 0, code: SmolStr::default(), verdict }];
    let objects = vec![Some(object).filter(|object| !object.is_empty())];
    record.lock().failures = Some(Box::new(Failures { total, failed, list, each: failed, objects }));
}
