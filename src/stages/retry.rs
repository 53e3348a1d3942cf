//! Retry: a call is held back while Salesforce is not well, and one that failed is made once more if that cannot do it twice, and if there is time and budget for it.
//!
//! What a failure means is the taxonomy's verdict; whether to try again is decided by [`crate::exchange::retry`]. This stage
//! stands outside of everything an attempt needs: each one gets a token, pays and queues anew, and gives its slot back while
//! the next one waits. A write whose answer was lost is never repeated; that nobody knows what became of it is said to its
//! caller.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, Response};
use http_body::Body as _;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::body::{ByteBudget, Payload, ReplyBody};
use crate::call::{Call, Class, Family, Idempotency, Meaning, Operation};
use crate::clock::Clock;
use crate::exchange::retry::{Decision, Wish, decide};
use crate::exchange::{Cause, Sent};
use crate::outcome::{Outcome, Purse, Record, RequestId, RetryResult};
use crate::refusal::{Reason, Refusal};
use crate::salesforce::taxonomy::{Kind, Partial, Verdict, retry_after};
use crate::salesforce::understand;
use crate::stages::answer::{Gathered, gather, unmeasured};
use crate::stages::back::{Back, Left, Places};
use crate::stages::breakers::{Leave, Said, Told};
use crate::stages::mend::{self, Apart, Mending};
use crate::stages::parts::{LONGEST_PARTS, Seeks};
use crate::stages::way::Waiting;
use crate::stages::{Passage, Reply, parts, remember};
use crate::tasks::Tasks;

/// Errors of Salesforce are shorter than this; of a longer one the beginning is judged as it passes.
const LONGEST_ERROR: usize = 16 * 1_024;
/// Salesforce may ask for a longer pause; nobody waits that long here.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// Before the first repetition of what failed on the way, and at most before any.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// The same where a record is locked.
const LOCKED: (Duration, Duration) = (Duration::from_millis(400), Duration::from_secs(8));

/// What is asked to find out whether Salesforce is well, and how long its answer is waited for.
const VERSIONS: &str = "/services/data/";
const PROBE: Duration = Duration::from_secs(10);

/// Puts [`Retry`] on the road.
#[derive(Debug, Clone)]
pub struct RetryLayer {
    /// What time it is.
    pub clock: Clock,
    /// Where the bytes of answers are taken from while they are looked through.
    pub buffers: ByteBudget,
    /// What looks through long answers.
    pub tasks: Tasks,
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Retry<S> {
        let (buffers, tasks) = (self.buffers.clone(), self.tasks.clone());
        let desk = Desk { clock: self.clock, buffers, tasks, places: Places::default() };
        Retry { inner, desk: Arc::new(desk) }
    }
}

/// The stage. Cloning is one reference count and what the stage below costs.
#[derive(Clone)]
pub struct Retry<S> {
    inner: S,
    desk: Arc<Desk>,
}

impl<S> std::fmt::Debug for Retry<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Retry").finish_non_exhaustive()
    }
}

/// What all clones of the stage share.
struct Desk {
    clock: Clock,
    buffers: ByteBudget,
    tasks: Tasks,
    places: Places,
}

impl Desk {
    /// The answer to who asked, looked through while it passes if that was not done yet.
    fn passed(&self, result: Result<Reply, Refusal>, seeks: Seeks, record: &Record) -> Result<Reply, Refusal> {
        match seeks {
            Seeks::Passing(passing) => {
                result.map(|reply| parts::watched(reply, passing, record, &self.buffers, &self.tasks))
            }
            Seeks::Nothing | Seeks::Parts => result,
        }
    }
}

impl<S> Service<Box<Passage>> for Retry<S>
where
    S: Service<Box<Passage>, Response = Reply, Error = Refusal> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Reply;
    type Error = Refusal;
    type Future = Retrying<S::Future, S>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut passage: Box<Passage>) -> Self::Future {
        let may_be_left = may_be_left(&passage);
        if may_be_left && let Some(reply) = remember::answer(&passage) {
            return Retrying::Ended { result: Some(Ok(reply)) };
        }
        let mut leave = None;
        if let Some(org) = passage.live.org(passage.call.org) {
            org.retries.count();
            match org.breakers.ask(&passage.call, self.desk.clock, passage.now) {
                None => {}
                Some(Told::Probe(good)) if org.breakers.enforces() => {
                    return Retrying::Slow { waiting: Box::pin(self.clone().find_out(passage, good)) };
                }
                Some(Told::Go(good) | Told::Probe(good)) => leave = Some(good),
                Some(Told::Shut(refusal)) if org.breakers.enforces() => {
                    return Retrying::Ended { result: Some(Err(refusal)) };
                }
                Some(Told::Shut(_)) => passage.record.lock().would_refuse = Some(Reason::CircuitOpen),
            }
        }
        if !may_be_left && leave.is_none() {
            return Retrying::Onward { inner: self.inner.call(passage) };
        }
        let again = self.again(&mut passage, leave);
        Retrying::First { inner: self.inner.call(passage), again: Some(again) }
    }
}

impl<S> Retry<S>
where
    S: Service<Box<Passage>, Response = Reply, Error = Refusal> + Clone + Send + 'static,
    S::Future: Send,
{
    /// What a further attempt needs.
    fn again(&self, passage: &mut Passage, leave: Option<Leave>) -> Again<S> {
        let back = may_be_left(passage).then(|| self.desk.places.place());
        let seeks = if back.is_some() { parts::sought(passage) } else { Seeks::Nothing };
        passage.back.clone_from(&back);
        passage.permit = leave.as_ref().and_then(Leave::permit);
        Again { record: passage.record.clone(), seeks, back, leave, stage: self.clone() }
    }

    /// The first call after a pause: sent if something that costs nothing is answered.
    async fn find_out(mut self, mut passage: Box<Passage>, leave: Leave) -> Result<Reply, Refusal> {
        if !self.is_answered(&passage).await {
            return Err(leave.probe_failed());
        }
        passage.now = self.desk.clock.now();
        let again = self.again(&mut passage, Some(leave));
        let result = self.inner.call(passage).await;
        again.repeat(result).await
    }

    /// Whether the list of API versions can be had, which costs nothing and needs no session (facts 0).
    async fn is_answered(&mut self, passage: &Passage) -> bool {
        let now = self.desk.clock.now();
        let Some(org) = passage.live.org(passage.call.org) else { return true };
        let (mut head, ()) = http::Request::new(()).into_parts();
        head.uri = http::Uri::from_static(VERSIONS);
        let meaning = understand(&head.method, VERSIONS, &org.costs);
        let call = Call { meaning, class: Class::Interactive, deadline: Some(now + PROBE), ..passage.call.clone() };
        let record = Record::new(Outcome::new(RequestId::default(), now, head.method.clone()));
        let question = Passage::new(call, head, Payload::Empty, Arc::clone(&passage.live), record, now, passage.secure);
        match self.inner.call(Box::new(question)).await {
            Ok(reply) => Said::by_status(Family::Versions, reply.status()) == Said::Well,
            // What the gateway itself refuses says nothing.
            Err(refusal) => !matches!(
                refusal.reason,
                Reason::UpstreamUnreachable
                    | Reason::UpstreamTls
                    | Reason::UpstreamReset
                    | Reason::UpstreamGarbage
                    | Reason::UpstreamTimeout
                    | Reason::DeadlinePassed
            ),
        }
    }
}

/// Whether a request can be sent twice at all: its body is still here after it was sent.
fn may_be_left(passage: &Passage) -> bool {
    let meaning = &passage.call.meaning;
    let exempt = meaning.long_poll || matches!(meaning.family, Family::Oauth | Family::Versions);
    !exempt && !matches!(passage.payload, Payload::Stream(_))
}

/// A further attempt, should it be needed.
pub struct Again<S> {
    record: Record,
    back: Option<Back>,
    seeks: Seeks,
    leave: Option<Leave>,
    stage: Retry<S>,
}

impl<S> Again<S>
where
    S: Service<Box<Passage>, Response = Reply, Error = Refusal> + Clone + Send + 'static,
    S::Future: Send,
{
    /// Whether a result is worth a look.
    fn concerns(&self, result: &Result<Reply, Refusal>) -> bool {
        match result {
            Ok(reply) => self.has_parts() || reply.status().is_client_error() || reply.status().is_server_error(),
            Err(_) => true,
        }
    }

    /// Whether its answer is read whole, for what failed of its parts.
    fn has_parts(&self) -> bool {
        matches!(self.seeks, Seeks::Parts)
    }

    /// Makes the call again as long as it fails in a way that may pass, and may be made again.
    async fn repeat(mut self, mut result: Result<Reply, Refusal>) -> Result<Reply, Refusal> {
        let clock = self.stage.desk.clock;
        let record = self.record.clone();
        let mut made = 1;
        // The last repetition's purse; and whether an attempt before the last may have written something.
        let (mut purse, mut doubt) = (None, false);
        // An answer of which a part is asked again.
        let mut mending: Option<Mending> = None;
        loop {
            let (mut left, mut over) = (self.back.as_ref().and_then(Back::take), false);
            if let Some(mending) = mending.take() {
                let mended = mending.mended(result, left, &record, &self.stage.desk.tasks).await;
                (result, left, over) = (Ok(mended.reply), mended.left, mended.over);
                doubt |= mended.unknown;
            }
            let seen = look(result, left, self.has_parts(), &self.stage.desk, &record).await;
            result = seen.result;
            if let Some(leave) = self.leave.take() {
                leave.report(seen.said);
            }
            let (well, unknown) = (seen.well, seen.unknown);
            let Some((trouble, mut passage)) = seen.trouble.filter(|_| !over) else {
                if let Some(purse) = purse {
                    let became = if well { RetryResult::Succeeded } else { RetryResult::Failed };
                    record.lock().retried = Some((purse, became));
                }
                let result = self.stage.desk.passed(result, self.seeks, &record);
                return told(result, &record, unknown || (doubt && !well));
            };
            let live = Arc::clone(&passage.live);
            let Some(org) = live.org(passage.call.org) else { return told(result, &record, unknown || doubt) };
            let wish = Wish {
                made,
                purse: trouble.purse,
                waits: trouble.waits,
                told: trouble.told,
                deadline: passage.call.deadline,
            };
            match decide(&wish, org.retry, &org.retries, fastrand::f64(), clock.now()) {
                Decision::Stop(why) => {
                    // Who may not repeat anything has not wished to.
                    if made > 1 || why != RetryResult::Failed {
                        record.lock().retried = Some((trouble.purse, why));
                    }
                    return told(result, &record, unknown || doubt);
                }
                Decision::Again(wait) => {
                    match (seen.apart, result) {
                        (Some(apart), Ok(reply)) => mending = Some(apart.begin(reply, &mut passage)),
                        // Nothing of the failed attempt is held while the next one waits.
                        (_, result) => drop(result),
                    }
                    tokio::time::sleep(wait).await;
                }
            }
            passage.now = clock.now();
            let shut = match org.breakers.ask(&passage.call, clock, passage.now) {
                Some(Told::Probe(leave)) if org.breakers.enforces() && !self.stage.is_answered(&passage).await => {
                    Some(leave.probe_failed())
                }
                Some(Told::Go(leave) | Told::Probe(leave)) => {
                    self.leave = Some(leave);
                    None
                }
                Some(Told::Shut(refusal)) if org.breakers.enforces() => Some(refusal),
                Some(Told::Shut(_)) | None => None,
            };
            (purse, doubt) = (Some(trouble.purse), doubt || unknown);
            if let Some(refusal) = shut {
                record.lock().retried = Some((trouble.purse, RetryResult::Failed));
                let result = match mending.take() {
                    Some(mending) => {
                        Ok(mending.mended(Err(refusal), None, &record, &self.stage.desk.tasks).await.reply)
                    }
                    None => Err(refusal),
                };
                return told(result, &record, doubt);
            }
            made += 1;
            passage.permit = self.leave.as_ref().and_then(Leave::permit);
            passage.back.clone_from(&self.back);
            result = self.stage.inner.call(passage).await;
        }
    }
}

/// What an attempt came to, whose request was `left`. Its answer comes back as it was.
async fn look(
    result: Result<Reply, Refusal>,
    left: Option<Left>,
    has_parts: bool,
    desk: &Desk,
    record: &Record,
) -> Seen {
    let reply = match result {
        Ok(reply) => reply,
        Err(refusal) => {
            let unknown = refusal.reason == Reason::OutcomeUnknown;
            let cause = left.as_ref().and_then(|left| left.failure).map(|(cause, _)| cause);
            let said = Said::without_answer(cause);
            let trouble = left.and_then(|Left { passage, failure }| Some((lost(&passage.call, failure?)?, passage)));
            return Seen { result: Err(refusal), trouble, well: false, unknown, said, apart: None };
        }
    };
    let status = reply.status();
    let well = !status.is_client_error() && !status.is_server_error();
    let limit = if well { LONGEST_PARTS } else { LONGEST_ERROR };
    let known = reply.body().size_hint().exact();
    let expected = known.map_or(limit, |length| usize::try_from(length).unwrap_or(usize::MAX));
    let mut hold = desk.buffers.hold();
    let unseen = Said::Unseen(status);
    let passed = |reply| Seen { result: Ok(reply), trouble: None, well, unknown: false, said: unseen, apart: None };
    let Some(Left { passage, .. }) = left else { return passed(reply) };
    let watched = |reply| match parts::of_parts(&passage.call.meaning).filter(|_| has_parts) {
        Some(passing) => parts::watched(reply, passing, record, &desk.buffers, &desk.tasks),
        None => reply,
    };
    if (well && !has_parts) || expected > limit || !hold.grow(expected) {
        return passed(watched(reply));
    }
    let (head, body) = reply.into_parts();
    let (body, whole) = match gather(body, limit).await {
        Gathered::Whole(whole) if known.is_some() => (ReplyBody::Whole(whole.clone()), Some(whole)),
        Gathered::Whole(whole) => (unmeasured(whole.clone()), Some(whole)),
        Gathered::Longer(body) if well => return passed(watched(Response::from_parts(head, body))),
        Gathered::Longer(body) => (body, None),
    };
    drop(hold);
    let meaning = &passage.call.meaning;
    let found = match whole.as_ref().filter(|_| has_parts) {
        Some(whole) => parts::scanned(meaning.family, &head.headers, whole, &desk.tasks).await,
        None => None,
    };
    let locked = found.as_ref().is_some_and(Partial::is_locked);
    let mut apart = None;
    if let (Some(found), Some(whole)) = (found, &whole) {
        let wanted = passage.live.org(passage.call.org).is_some_and(|org| org.retry.lock_per_record);
        if wanted && well && !locked {
            apart = mend::apart(&passage, &head.headers, whole, &found, &desk.buffers, &desk.tasks).await;
        }
        record.lock().failures = parts::failures(found, meaning);
    }
    // The body has passed: what it says is written down.
    let verdict = if well { None } else { record.lock().exchanges.last().and_then(|exchange| exchange.verdict) };
    if let (Some(verdict), Some(whole)) = (verdict, &whole) {
        remember::note(&passage, &head, whole, verdict);
    }
    let unknown = verdict.is_some_and(|verdict| verdict.is_outcome_unknown(meaning.idempotency));
    let judged = verdict.map_or(unseen, Said::by);
    let trouble = if locked || apart.is_some() {
        Some(Trouble { purse: Purse::Lock, waits: LOCKED, told: None })
    } else {
        verdict.and_then(|verdict| said(verdict, meaning, &head.headers))
    };
    let trouble = trouble.map(|trouble| (trouble, passage));
    let well = well && !locked && apart.is_none();
    Seen { result: Ok(Response::from_parts(head, body)), trouble, well, unknown, said: judged, apart }
}

/// What one attempt came to.
struct Seen {
    result: Result<Reply, Refusal>,
    /// It failed in a way that may pass, and this can be sent again.
    trouble: Option<(Trouble, Box<Passage>)>,
    well: bool,
    /// It may have written something, and nobody knows.
    unknown: bool,
    /// What it says of how Salesforce is.
    said: Said,
    /// Only this part of it is to be sent again.
    apart: Option<Apart>,
}

/// A failure that may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Trouble {
    purse: Purse,
    waits: (Duration, Duration),
    told: Option<Duration>,
}

/// An attempt that brought no answer: what was not sent can be sent, and what was lost can be asked again if it only reads,
/// or writes what it names by a key of its own.
fn lost(call: &Call, (cause, sent): (Cause, Sent)) -> Option<Trouble> {
    let passes = match (cause, sent) {
        (Cause::Dns | Cause::Connect | Cause::ConnectTimeout | Cause::Proxy | Cause::Reset, Sent::Nothing) => true,
        (Cause::Reset | Cause::Garbage, Sent::Maybe) => repeats(&call.meaning),
        // Who has waited that long is not helped by waiting as long again; the others are no failures of Salesforce.
        _ => false,
    };
    passes.then_some(Trouble { purse: Purse::Usual, waits: PAUSES, told: None })
}

/// An answer that says that it failed.
fn said(verdict: Verdict, meaning: &Meaning, headers: &HeaderMap) -> Option<Trouble> {
    let told = headers.get(RETRY_AFTER).and_then(|value| retry_after(value.as_bytes(), LONGEST_PAUSE));
    let purse = if verdict.kind == Kind::Lock { Purse::Lock } else { Purse::Usual };
    is_repeated(verdict, meaning, told.is_some()).then_some(Trouble { purse, waits: verdict.waits(), told })
}

/// Whether a call that failed like this is made once more, if there is time and budget for it; `told` says whether
/// Salesforce said when.
pub fn is_repeated(verdict: Verdict, meaning: &Meaning, told: bool) -> bool {
    // Nobody knows when a rate is free again, unless it is said.
    let passes = verdict.may_pass() || (verdict.kind == Kind::LimitFamily && told);
    passes && (verdict.is_safe(meaning.idempotency) || repeats(meaning))
}

/// Whether doing it twice is like doing it once, also for who writes the same in between: reads, and upserts by a key of
/// their own. Such a call is made once more also if its answer was lost.
pub fn repeats(meaning: &Meaning) -> bool {
    match meaning.idempotency {
        Idempotency::Safe => true,
        Idempotency::Idempotent => meaning.operation == Operation::Upsert,
        Idempotency::Unsafe => false,
    }
}

/// Says so where nobody knows whether a write was done.
fn told(result: Result<Reply, Refusal>, record: &Record, unknown: bool) -> Result<Reply, Refusal> {
    if !unknown {
        return result;
    }
    record.lock().unknown = true;
    result.map_err(|refusal| Refusal { reason: Reason::OutcomeUnknown, retry_after: None, ..refusal })
}

pin_project! {
    /// The future of [`Retry`].
    #[project = Projection]
    #[expect(missing_docs, reason = "the macro takes no documentation on fields of variants")]
    pub enum Retrying<F, S> {
        /// It cannot be sent twice.
        Onward { #[pin] inner: F },
        /// It is held back, or what Salesforce would say is known.
        Ended { result: Option<Result<Reply, Refusal>> },
        /// The first attempt.
        First { #[pin] inner: F, again: Option<Again<S>> },
        /// Further ones, and what they wait for.
        Slow { waiting: Waiting },
    }
}

impl<F, S> Future for Retrying<F, S>
where
    F: Future<Output = Result<Reply, Refusal>>,
    S: Service<Box<Passage>, Response = Reply, Error = Refusal> + Clone + Send + 'static,
    S::Future: Send,
{
    type Output = Result<Reply, Refusal>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (result, again) = match self.as_mut().project() {
            Projection::Onward { inner } => return inner.poll(cx),
            Projection::Ended { result } => return result.take().map_or(Poll::Pending, Poll::Ready),
            Projection::Slow { waiting } => return waiting.as_mut().poll(cx),
            Projection::First { inner, again } => {
                let result = ready!(inner.poll(cx));
                let Some(again) = again.take() else { return Poll::Ready(result) };
                if !again.concerns(&result) {
                    let Again { record, back, seeks, leave, stage } = again;
                    if let Some(leave) = leave {
                        leave.report(Said::Well);
                    }
                    if let Some(back) = back {
                        stage.desk.places.take_back(back);
                    }
                    return Poll::Ready(stage.desk.passed(result, seeks, &record));
                }
                (result, again)
            }
        };
        let mut waiting: Waiting = Box::pin(again.repeat(result));
        match waiting.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => {
                self.set(Retrying::Slow { waiting });
                Poll::Pending
            }
        }
    }
}
