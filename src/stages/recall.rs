//! Recall: a question that was answered a short while ago need not be asked again, and a write makes old what it may change.
//!
//! Which answers may be kept, for whom, and when they are old is decided in [`crate::answers`]. This stage stands inside of
//! Rewrite, so that what is kept is what Salesforce said, and URLs are rewritten for each caller on the way out; and outside
//! of Authorize and Admit, so that an answer from memory needs neither a token nor a call of the allowance.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AGE, CACHE_CONTROL, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body::Body as _;
use tokio::time::{Instant, timeout_at};
use tower::{Layer, Service};

use crate::answers::{
    Boarding, Kept, Kind, Landed, Leader, Look, Objects, OrgAnswers, Question, Resolved, Shape, State, Whole, effect,
    lower,
};
use crate::body::{ByteBudget, Payload, ReplyBody};
use crate::call::{Call, Class, Idempotency, Reach};
use crate::clock::Clock;
use crate::live::{Live, LiveCache, LiveOrg};
use crate::outcome::{CacheResult, Record, Source};
use crate::refusal::{Reason, Refusal};
use crate::salesforce::query_reads;
use crate::stages::answer::{Gathered, gather};
use crate::stages::concern::{Concern, may_be_stale, not_cached, wants_memory_only};
use crate::stages::errand::{Errand, Errands};
use crate::stages::observe::ObserveLayer;
use crate::stages::way::Way;
use crate::stages::{Passage, Reply, changes};
use crate::tasks::Tasks;
use crate::written::Value;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const LIMIT_INFO: HeaderName = HeaderName::from_static("sforce-limit-info");

/// How long a request without a deadline waits for another one's answer before it goes alone.
const LONGEST_WAIT: Duration = Duration::from_mins(2);

/// Puts [`Recall`] on the road.
#[derive(Debug, Clone)]
pub struct RecallLayer {
    /// What time it is.
    pub clock: Clock,
    /// Where the bytes of answers are taken from while they are read.
    pub buffers: ByteBudget,
    /// Records what the gateway asks on its own account.
    pub observe: ObserveLayer,
    /// Where that goes on while nobody waits for it.
    pub tasks: Tasks,
}

impl<S> Layer<S> for RecallLayer {
    type Service = Recall<S>;

    fn layer(&self, inner: S) -> Recall<S> {
        let errands = Errands::new(self.clock, self.observe.clone(), self.tasks.clone());
        Recall { inner, clock: self.clock, buffers: self.buffers.clone(), errands }
    }
}

/// The stage.
#[derive(Debug, Clone)]
pub struct Recall<S> {
    inner: S,
    clock: Clock,
    buffers: ByteBudget,
    errands: Errands,
}

impl<S> Service<Box<Passage>> for Recall<S>
where
    S: Service<Box<Passage>, Response = Reply, Error = Refusal> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Reply;
    type Error = Refusal;
    type Future = Way<S::Future>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, passage: Box<Passage>) -> Self::Future {
        let Some(cache) = &passage.live.cache else { return Way::onward(self.inner.call(passage)) };
        match Concern::of(&passage.call.meaning, cache.rules.keeps_rows(), cache.rules.follows_rows()) {
            Concern::Nothing => self.unkept(passage),
            Concern::Question(kind) => self.question(kind, passage),
            Concern::Change => {
                let Some(org) = passage.live.org(passage.call.org) else {
                    return Way::onward(self.inner.call(passage));
                };
                let touches = effect(&passage.call, target(&passage), &cache.rules);
                if touches.is_empty() {
                    return Way::onward(self.inner.call(passage));
                }
                let writing = org.answers.write(touches, passage.now);
                let (record, kind) = (passage.record.clone(), changes::Kind::of(&passage.call.meaning));
                let answer = self.inner.call(passage);
                Way::waits(async move { changes::settled(answer.await, writing, kind, &record) })
            }
            Concern::Job => {
                let job = changes::JobCall::of(&passage);
                let answer = self.inner.call(passage);
                Way::waits(async move { job.settled(answer.await).await })
            }
            Concern::Farewell => {
                let live = Arc::clone(&passage.live);
                let org = passage.call.org;
                let answer = self.inner.call(passage);
                Way::waits(async move {
                    let reply = answer.await;
                    if let Some(org) = live.org(org) {
                        org.answers.sessions_ended();
                    }
                    reply
                })
            }
        }
    }
}

fn target(passage: &Passage) -> &str {
    passage.head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
}

/// A question under way.
pub(super) struct Asked {
    pub(super) question: Question,
    /// How long its answer is fresh, and how much longer it may be given out if Salesforce cannot be asked.
    pub(super) fresh: Duration,
    pub(super) stale: Duration,
    /// An answer that is right, but not fresh.
    pub(super) candidate: Option<Arc<Kept>>,
    pub(super) look: Look,
    pub(super) who: Who,
    /// Whether its answer may be kept.
    pub(super) keeps: bool,
}

/// Who asks what, once the request itself has gone on.
pub(super) struct Who {
    pub(super) live: Arc<Live>,
    pub(super) record: Record,
    pub(super) call: Call,
}

impl Who {
    fn of(passage: &Passage) -> Self {
        Self { live: Arc::clone(&passage.live), record: passage.record.clone(), call: passage.call.clone() }
    }

    fn org(&self) -> Option<(&LiveCache, &LiveOrg)> {
        Some((self.live.cache.as_ref()?, self.live.org(self.call.org)?))
    }

    /// Whether the caller still acts as whom it acted when the question was asked.
    fn is_same(&self, org: &LiveOrg) -> bool {
        org.identity(self.call.caller).is_none_or(|identity| identity.principal() == self.call.principal)
    }
}

impl<S> Recall<S>
where
    S: Service<Box<Passage>, Response = Reply, Error = Refusal> + Clone + Send + 'static,
    S::Future: Send,
{
    /// Asks Salesforce for what is never kept, unless the request wants that not to be done.
    fn unkept(&mut self, passage: Box<Passage>) -> Way<S::Future> {
        let reads = passage.call.meaning.idempotency == Idempotency::Safe;
        if reads && passage.head.headers.get_all(CACHE_CONTROL).iter().any(wants_memory_only) {
            return Way::refused(not_cached());
        }
        Way::onward(self.inner.call(passage))
    }

    fn question(&mut self, kind: Kind, passage: Box<Passage>) -> Way<S::Future> {
        let (live, call) = (&passage.live, &passage.call);
        let (Some(cache), Some(org)) = (&live.cache, live.org(call.org)) else {
            return Way::onward(self.inner.call(passage));
        };
        if !cache.rules.may_cover(kind, call) {
            return self.unkept(passage);
        }
        let plain = passage.head.method == Method::GET && matches!(passage.payload, Payload::Empty);
        // Until it is known which user an identity is, nobody can say whose its answers are.
        let known = org.identity(call.caller).is_none_or(|identity| identity.is_known());
        let headers = &passage.head.headers;
        let number = org.answers.number();
        let related = kind == Kind::Query && call.meaning.reach == Reach::Related;
        let reached = if related && plain && known { self.reached(cache, org, &passage) } else { None };
        let question = (plain && known && reached.is_some() == related)
            .then(|| Question::of(kind, call, number, target(&passage), headers, &cache.rules, reached))
            .flatten();
        let Some(question) = question else {
            passage.record.lock().cache = Some(CacheResult::Uncacheable);
            return self.unkept(passage);
        };
        let Some((fresh, stale, background)) = cache
            .rules
            .entry(call, &question)
            .map(|entry| (entry.fresh, entry.stale_if_error, entry.stale_while_revalidate))
        else {
            return self.unkept(passage);
        };
        let now = passage.now;
        let wish = &question.wish;
        let kept = if wish.no_cache || wish.no_store { None } else { cache.store.get(&question.key) };
        let look = org.answers.look(kept.as_deref(), &question.deps, call.principal, now, cache.rules.recheck);
        let candidate = kept.filter(|_| look.good);
        if let Some(kept) = candidate.as_ref().filter(|_| !look.soft) {
            let age = kept.age(now);
            let wanted = wish.max_age.unwrap_or(Duration::MAX);
            let late = wish.max_stale.unwrap_or_default().min(stale);
            if age <= wanted && age <= fresh.saturating_add(late) {
                let source = if age <= fresh { Source::Cache } else { Source::Stale };
                if let Some(reply) = given(kept, &question, org, &passage.record, now, fresh, source) {
                    return Way::answered(reply);
                }
            } else if age <= wanted
                && age <= fresh.saturating_add(background)
                && let Some(reply) = self.revalidated(kept, &question, org, &passage, fresh, look)
            {
                return Way::answered(reply);
            }
        }
        if wish.only_if_cached {
            passage.record.lock().cache = Some(CacheResult::Miss);
            return Way::refused(not_cached());
        }
        if wish.no_store {
            passage.record.lock().cache = Some(CacheResult::Bypass);
            return Way::onward(self.inner.call(passage));
        }
        passage.record.lock().cache = Some(if wish.no_cache { CacheResult::Bypass } else { CacheResult::Miss });
        let asked = Asked { who: Who::of(&passage), question, fresh, stale, candidate, look, keeps: true };
        let this = self.clone();
        Way::waits(this.ask(passage, asked))
    }

    /// The objects that a query with relationship names reads, if it is known where those lead. If it is not, Salesforce is
    /// asked, and the next such query finds it known.
    fn reached(&self, cache: &LiveCache, org: &LiveOrg, passage: &Passage) -> Option<Objects> {
        let (who, now) = (passage.call.principal, passage.now);
        match org.answers.resolve(who, &query_reads(target(passage))?, now) {
            Resolved::Objects(objects) => Some(objects),
            Resolved::Missing(object)
                if cache.rules.keeps_queries_of(&object)
                    && org.answers.may_ask(who, &object, cache.rules.describes, now) =>
            {
                let place = self.errands.place()?;
                self.errands.send(Errand::describe(passage, &object)?, place, self.clone());
                None
            }
            Resolved::Missing(_) | Resolved::Unknown => None,
        }
    }

    /// An answer that is no longer fresh, if Salesforce is being asked for a newer one in the meantime.
    fn revalidated(
        &self,
        kept: &Kept,
        question: &Question,
        org: &LiveOrg,
        passage: &Passage,
        fresh: Duration,
        look: Look,
    ) -> Option<Reply> {
        let cache = passage.live.cache.as_ref()?;
        let now = passage.now;
        let may_join = |as_of| org.answers.unmoved(&question.deps, as_of, now);
        let begun = match cache.flights.board(&question.key, look.as_of, Class::Batch, may_join) {
            Boarding::Leads(leader) => Some((*leader, self.errands.place()?)),
            Boarding::Waits(_) | Boarding::Alone => None,
        };
        let reply = given(kept, question, org, &passage.record, now, fresh, Source::Stale)?;
        if let Some((leader, place)) = begun {
            // Not now, but it is paid for.
            passage.record.lock().saved = 0;
            let errand = Errand::revalidate(passage, question, fresh, look, leader);
            self.errands.send(errand, place, self.clone());
        }
        Some(reply)
    }

    /// Asks for nobody in particular.
    pub(super) async fn run(
        mut self,
        mut passage: Box<Passage>,
        asked: Asked,
        leader: Leader,
    ) -> Result<Reply, Refusal> {
        passage.urgency = Some(leader.urgency());
        let result = self.inner.call(passage).await;
        self.landed(result, asked, Some(leader)).await
    }

    /// Asks Salesforce, or waits for who is asking the same.
    async fn ask(mut self, mut passage: Box<Passage>, mut asked: Asked) -> Result<Reply, Refusal> {
        let live = Arc::clone(&asked.who.live);
        let (Some(cache), Some(org)) = (&live.cache, live.org(asked.who.call.org)) else {
            return self.inner.call(passage).await;
        };
        if asked.look.busy {
            let why = if org.answers.is_in_doubt(passage.now) {
                "weirkeeper;fwd=miss;detail=doubt"
            } else {
                "weirkeeper;fwd=miss;detail=changing"
            };
            return self.inner.call(passage).await.map(|reply| told(reply, why));
        }
        let wish = &asked.question.wish;
        let principal = asked.who.call.principal;
        // Who shares the answers of others waits for theirs only where Salesforce has accepted his own session.
        let by_right = !asked.question.shared || org.answers.is_entitled(principal, passage.now, cache.rules.recheck);
        let shares = by_right && !wish.no_cache && wish.none_match.is_none() && wish.modified_since.is_none();
        let leader = loop {
            if !shares {
                break None;
            }
            let (question, now) = (&asked.question, self.clock.now());
            let may_join = |as_of| org.answers.unmoved(&question.deps, as_of, now);
            let seat = match cache.flights.board(&question.key, asked.look.as_of, asked.who.call.class, may_join) {
                Boarding::Leads(leader) => break Some(*leader),
                Boarding::Alone => break None,
                Boarding::Waits(seat) => seat,
            };
            let deadline = asked.who.call.deadline;
            let Ok(state) = timeout_at(deadline.unwrap_or(now + LONGEST_WAIT), seat.ended()).await else {
                if deadline.is_some() {
                    let detail = "The caller's deadline passed while the same question was being asked.";
                    return Err(Refusal::new(Reason::DeadlinePassed, detail));
                }
                break None;
            };
            passage.now = self.clock.now();
            match state {
                State::Landed(landed) => match joined(&landed, &asked, passage.now) {
                    Some(reply) => return Ok(reply),
                    None => break None,
                },
                State::Alone | State::InAir => break None,
                // Everything may have changed while it waited.
                State::Lost => {
                    let principal = asked.who.call.principal;
                    asked.look =
                        org.answers.look(None, &asked.question.deps, principal, passage.now, cache.rules.recheck);
                    if asked.look.busy {
                        break None;
                    }
                }
            }
        };
        // A call that waited starts from what is known now.
        let principal = asked.who.call.principal;
        if leader.is_none() && shares {
            asked.look = org.answers.look(None, &asked.question.deps, principal, passage.now, cache.rules.recheck);
        }
        passage.urgency = leader.as_ref().map(Leader::urgency);
        let result = self.inner.call(passage).await;
        self.landed(result, asked, leader).await
    }

    /// What becomes of an answer: for its caller, for who waits for it, and for who asks later.
    async fn landed(
        self,
        result: Result<Reply, Refusal>,
        asked: Asked,
        leader: Option<Leader>,
    ) -> Result<Reply, Refusal> {
        let Some((cache, org)) = asked.who.org() else { return result };
        let reply = match result {
            Err(refusal) if may_be_stale(refusal.reason) => {
                return self.stale(&asked, org, refusal.status()).ok_or(refusal);
            }
            Err(refusal) => return Err(refusal),
            Ok(reply) => reply,
        };
        let status = reply.status();
        if (status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS)
            && let Some(stale) = self.stale(&asked, org, status)
        {
            return Ok(stale);
        }
        let (sent, cost) = match asked.who.record.lock().exchanges.last() {
            Some(exchange) => (exchange.sent, exchange.charged.0),
            None => return Ok(reply),
        };
        let most = cache.rules.largest;
        let length =
            reply.body().size_hint().exact().map_or(most, |length| usize::try_from(length).unwrap_or(usize::MAX));
        let mut hold = self.buffers.hold();
        if length > most || !hold.grow(length) {
            if length > most {
                asked.who.record.lock().cache = Some(CacheResult::TooLarge);
            }
            return Ok(alone(reply, leader));
        }
        let (head, body) = reply.into_parts();
        let bytes = match gather(body, most).await {
            Gathered::Whole(bytes) => bytes,
            Gathered::Longer(body) => {
                asked.who.record.lock().cache = Some(CacheResult::TooLarge);
                return Ok(alone(Response::from_parts(head, body), leader));
            }
        };
        drop(hold);
        let same = asked.who.is_same(org);
        let stored = same && self.kept(&asked, cache, &org.answers, &head, &bytes, sent, cost, leader);
        let reply = Response::from_parts(head, ReplyBody::Whole(bytes));
        let bypass = asked.question.wish.no_cache;
        Ok(told(
            reply,
            match (bypass, stored) {
                (true, true) => "weirkeeper;fwd=request;stored",
                (true, false) => "weirkeeper;fwd=request",
                (false, true) => "weirkeeper;fwd=miss;stored",
                (false, false) => "weirkeeper;fwd=miss",
            },
        ))
    }

    /// Gives an answer to who waits for it, and keeps it if it may be kept; says whether it did.
    #[expect(clippy::too_many_arguments, reason = "all that is known of one answer")]
    fn kept(
        &self,
        asked: &Asked,
        cache: &LiveCache,
        org: &OrgAnswers,
        head: &http::response::Parts,
        bytes: &Bytes,
        sent: Instant,
        cost: u32,
        leader: Option<Leader>,
    ) -> bool {
        let Asked { question, look, who, .. } = asked;
        let principal = who.call.principal;
        let session = if head.status.is_success() || head.status == StatusCode::NOT_MODIFIED {
            org.accepted(principal, sent, cache.rules.recheck)
        } else {
            None
        };
        let followed = leader.as_ref().is_some_and(Leader::has_followers);
        if !followed && (session.is_none() || head.status != StatusCode::OK) {
            return false;
        }
        let whole = Arc::new(Whole::new(head.status, &head.headers, bytes));
        let now = self.clock.now();
        if session.is_some() && question.kind == Kind::Describe && whole.may_be_kept(Kind::Describe) {
            learnt(&whole, asked, cache, org, now);
        }
        let stored = match session {
            Some(session)
                if asked.keeps && whole.may_be_kept(question.kind) && org.unmoved(&question.deps, look.as_of, now) =>
            {
                let taken = org.room(who.call.meaning.object.as_deref());
                let kept = Kept::new(Arc::clone(&whole), question, sent, look.as_of, session, cost, taken);
                cache.store.put(&question.key, Arc::new(kept));
                true
            }
            _ => false,
        };
        if let Some(leader) = leader {
            if whole.is_for_others() {
                leader.landed(Landed { whole, cost });
            } else {
                leader.alone();
            }
        }
        stored
    }

    /// An answer that is no longer fresh, in the place of a failure, if the operator allows it and it is right still.
    fn stale(&self, asked: &Asked, org: &LiveOrg, failed: StatusCode) -> Option<Reply> {
        let Asked { question, fresh, stale, candidate, who, .. } = asked;
        let kept = candidate.as_ref().filter(|_| !stale.is_zero())?;
        let cache = who.live.cache.as_ref()?;
        let now = self.clock.now();
        let age = kept.age(now);
        let wanted = question.wish.max_age.unwrap_or(Duration::MAX);
        let look = org.answers.look(Some(kept), &question.deps, who.call.principal, now, cache.rules.recheck);
        if !look.good || age > fresh.saturating_add(*stale) || age > wanted {
            return None;
        }
        let mut reply = given(kept, question, org, &who.record, now, *fresh, Source::Stale)?;
        if let Ok(status) = HeaderValue::from_str(&format!("weirkeeper;fwd=stale;fwd-status={}", failed.as_u16())) {
            reply.headers_mut().append(CACHE_STATUS, status);
        }
        Some(reply)
    }
}

/// Learns from a description where relationship names lead, if that may ever be asked. It takes a millisecond or two for each
/// user and object, once in hours.
fn learnt(whole: &Whole, asked: &Asked, cache: &LiveCache, org: &OrgAnswers, now: Instant) {
    let about = asked.who.call.meaning.object.as_deref().map(lower);
    if about.is_none_or(|object| !cache.rules.keeps_queries_of(&object)) {
        return;
    }
    if let Some((object, shape)) = whole.plain().and_then(|plain| Shape::read(&plain)) {
        org.learn(asked.who.call.principal, object, shape, asked.look.as_of, now);
    }
}

/// The answer from memory.
fn given(
    kept: &Kept,
    question: &Question,
    org: &LiveOrg,
    record: &Record,
    now: Instant,
    fresh: Duration,
    source: Source,
) -> Option<Reply> {
    let mut reply = match kept.as_it_came(&question.wish) {
        Some((body, written)) => Response::new(ReplyBody::Kept(body, written)),
        None => kept.answer(&question.wish)?.map(ReplyBody::Whole),
    };
    let age = kept.age(now);
    tell(&mut reply, &AGE, |value| {
        value.number(age.as_secs());
    });
    tell(&mut reply, &CACHE_STATUS, |value| {
        let start = if age <= fresh { "weirkeeper;hit;ttl=" } else { "weirkeeper;hit;ttl=-" };
        value.text(start).number(fresh.abs_diff(age).as_secs());
    });
    tell_usage(&mut reply, org, now);
    let mut outcome = record.lock();
    outcome.cache = Some(if source == Source::Stale { CacheResult::Stale } else { CacheResult::Hit });
    outcome.source = source;
    if outcome.exchanges.is_empty() {
        outcome.saved = kept.cost;
    }
    Some(reply)
}

/// Adds a field to the head of an answer from memory.
fn tell(reply: &mut Reply, name: &HeaderName, write: impl FnOnce(&mut Value<'_>)) {
    if let Some(written) = reply.body_mut().written() {
        written.make(name, write);
    } else if let Some(value) = Value::header(write) {
        reply.headers_mut().insert(name, value);
    }
}

/// What Salesforce would say of the org's use, as far as the gateway knows.
fn tell_usage(reply: &mut Reply, org: &LiveOrg, now: Instant) {
    if let Some((used, limit)) = org.ledger.used_of_limit(now) {
        tell(reply, &LIMIT_INFO, |value| {
            value.text("api-usage=").number(used).text("/").number(limit);
        });
    }
}

/// The answer another request got.
fn joined(landed: &Landed, asked: &Asked, now: Instant) -> Option<Reply> {
    let (_, org) = asked.who.org()?;
    let mut reply = landed.whole.answer(&asked.question.wish)?.map(ReplyBody::Whole);
    reply.headers_mut().append(CACHE_STATUS, HeaderValue::from_static("weirkeeper;fwd=miss;collapsed"));
    let mut outcome = asked.who.record.lock();
    outcome.source = Source::Joined;
    outcome.saved = landed.cost;
    drop(outcome);
    tell_usage(&mut reply, org, now);
    Some(reply)
}

/// An answer that is too long, that broke off, or for which there is no room is for its caller only.
fn alone(reply: Reply, leader: Option<Leader>) -> Reply {
    if let Some(leader) = leader {
        leader.alone();
    }
    told(reply, "weirkeeper;fwd=miss")
}

fn told(mut reply: Reply, status: &'static str) -> Reply {
    reply.headers_mut().append(CACHE_STATUS, HeaderValue::from_static(status));
    reply
}
