//! What is remembered of one org beside the answers themselves: its changes and its sessions, under one short lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use smol_str::SmolStr;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::failures::{Exact, Failure, Memory, Recalled, Remembering, Spot};
use super::generations::{Generations, JOB};
use super::kept::Kept;
use super::relations::{Relations, Resolved, Shape};
use super::room::{Rooms, Taken};
use super::sessions::{SessionId, Sessions};
use super::shared::{Event, millis};
use super::sharing::Shared;
use super::touch::{Deps, Lower, Touch, Touches};
use crate::call::{Call, Principal};
use crate::clock::Clock;
use crate::salesforce::soql::Reads;

/// One org, for as long as the process lives. Share it by `Arc`.
#[derive(Debug)]
pub struct OrgAnswers {
    number: u32,
    pub(super) clock: Clock,
    /// Locked before `state`, where both are.
    relations: Mutex<Relations>,
    pub(super) state: Mutex<State>,
    /// There is something to tell other replicas.
    pub(super) posted: Notify,
    rooms: Mutex<Rooms>,
    /// Locked before `state`, where both are.
    memory: Mutex<Memory>,
    /// How many failures are in it, so that nobody looks where there are none.
    failures: AtomicUsize,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) generations: Generations,
    sessions: Sessions,
    /// What passes between this replica and others, if there may be others.
    pub(super) shared: Option<Box<Shared>>,
}

/// What one look found.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// The number of the last change so far: a call that is sent now knows of no later one.
    pub as_of: u64,
    /// What an answer would depend on is being changed, or may be.
    pub busy: bool,
    /// The kept answer is right, and its caller entitled to it.
    pub good: bool,
    /// An operator wants Salesforce to be asked again, if it answers.
    pub soft: bool,
}

impl OrgAnswers {
    /// `replica` names this process to others, if there may be others.
    pub(super) fn new(number: u32, clock: Clock, replica: Option<&str>) -> Self {
        let mut state = State::default();
        if let Some(replica) = replica {
            let now = clock.now();
            state.generations.certain(now);
            // What is made anew under the name of an org counts its messages anew.
            let name = smol_str::format_smolstr!("{replica}.{number}");
            state.shared = Some(Box::new(Shared::new(name, now)));
        }
        Self {
            number,
            clock,
            relations: Mutex::default(),
            state: Mutex::new(state),
            posted: Notify::new(),
            rooms: Mutex::default(),
            memory: Mutex::default(),
            failures: AtomicUsize::new(0),
        }
    }

    /// Tells its answers from those of other orgs; never given to another org.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Whether `kept` may be given to `who`, and what a call that is sent now starts from.
    pub fn look(&self, kept: Option<&Kept>, deps: &Deps, who: Principal, now: Instant, recheck: Duration) -> Look {
        let mut state = self.state.lock();
        let standing = state.generations.standing(deps, now);
        let session = state.sessions.entitled(who, now, recheck);
        // What another fetched with the same rights is lost with his session all the same.
        let entitled = |kept: &Kept| match session {
            Some(session) if kept.by == who => session == kept.session,
            Some(_) => kept.shared && state.sessions.goes_on(kept.by, kept.session),
            None => false,
        };
        let good = !standing.busy && kept.is_some_and(|kept| standing.moved <= kept.as_of && entitled(kept));
        let soft = kept.is_some_and(|kept| standing.softened.max(state.sessions.softened(kept.by)) > kept.as_of);
        Look { as_of: state.generations.count(), busy: standing.busy, good, soft }
    }

    /// Where the bytes are counted that answers about `object` take.
    pub fn room(&self, object: Option<&str>) -> Arc<Taken> {
        self.rooms.lock().of(object)
    }

    /// The objects that answers are kept about, in lower case, with their bytes and answers.
    pub fn by_object(&self) -> Vec<(Lower, u64, u64)> {
        self.rooms.lock().all().map(|(object, bytes, answers)| (object.clone(), bytes, answers)).collect()
    }

    /// Salesforce described an object to `who`, in an answer whose call was sent when `as_of` was the last change.
    pub fn learn(&self, who: Principal, object: Lower, shape: Shape, as_of: u64, now: Instant) {
        self.relations.lock().learn(who, object, shape, as_of, now);
    }

    /// Which objects `reads` leads `who` to.
    pub fn resolve(&self, who: Principal, reads: &Reads, now: Instant) -> Resolved {
        let relations = self.relations.lock();
        let mut state = self.state.lock();
        relations.resolve(who, reads, now, |object| {
            state.generations.standing(&Deps::Metadata(Some(object.clone())), now).moved
        })
    }

    /// Whether the gateway may ask Salesforce to describe `object` to `who`, `limit` such questions an hour.
    pub fn may_ask(&self, who: Principal, object: &Lower, limit: usize, now: Instant) -> bool {
        self.relations.lock().may_ask(who, object, limit, now)
    }

    /// Whether nothing that `deps` names has changed since `as_of`, and nothing is changing.
    pub fn unmoved(&self, deps: &Deps, as_of: u64, now: Instant) -> bool {
        let standing = self.state.lock().generations.standing(deps, now);
        !standing.busy && standing.moved <= as_of
    }

    /// Whether Salesforce accepted a call of `who` a short while ago.
    pub fn is_entitled(&self, who: Principal, now: Instant, recheck: Duration) -> bool {
        self.state.lock().sessions.entitled(who, now, recheck).is_some()
    }

    /// Salesforce accepted a call of `who` sent at `sent`: the number under which answers may be kept for it.
    pub fn accepted(&self, who: Principal, sent: Instant, recheck: Duration) -> Option<SessionId> {
        self.state.lock().sessions.accepted(who, sent, recheck)
    }

    /// Salesforce rejected the session of `who`.
    pub fn session_ended(&self, who: Principal, recheck: Duration) {
        self.post(|| Event::SessionEnded(who.0, millis(recheck)));
        self.end_session(who, recheck);
    }

    /// The same, said by another replica.
    pub(super) fn end_session(&self, who: Principal, recheck: Duration) {
        let now = self.clock.now();
        self.state.lock().sessions.ended(who, now, recheck);
        self.forget_failures(|other| other != who);
    }

    /// Some session was given back, nobody knows whose.
    pub fn sessions_ended(&self) {
        self.post(|| Event::SessionsEnded);
        self.end_sessions();
    }

    /// The same, said by another replica.
    pub(super) fn end_sessions(&self) {
        let now = self.clock.now();
        self.state.lock().sessions.all_ended(now);
        self.forget_failures(|_| false);
    }

    /// A call is about to be sent that may change `touches`.
    pub fn write(self: &Arc<Self>, touches: Touches, now: Instant) -> Writing {
        let mut state = self.state.lock();
        let touches = state.generations.begin(touches, now);
        let call = state.shared.as_mut().map_or(0, |shared| shared.outbox.begin(&touches));
        self.tell(&state);
        drop(state);
        Writing { org: Arc::clone(self), touches: Some(touches), call }
    }

    /// Something may change `touches` for as long as `lasts`.
    pub fn doubt(&self, touches: Touches, lasts: Duration) {
        let now = self.clock.now();
        self.post(|| Event::Doubt(touches.clone(), millis(lasts)));
        self.state.lock().generations.doubt(touches, now + lasts, now);
    }

    /// Bulk job `id` may be changing `touches` from now on.
    pub fn job(&self, id: &str, touches: Touches) {
        let now = self.clock.now();
        self.post(|| Event::Job(SmolStr::new(id), touches.clone(), millis(JOB)));
        self.state.lock().generations.job(id, touches, now);
    }

    /// Whether the bulk job is watched.
    pub fn knows_job(&self, id: &str) -> bool {
        self.state.lock().generations.knows_job(id)
    }

    /// The bulk job has come to its end.
    pub fn job_ended(&self, id: &str) {
        let now = self.clock.now();
        if self.knows_job(id) {
            self.post(|| Event::JobEnd(SmolStr::new(id)));
        }
        self.state.lock().generations.job_ended(id, now);
    }

    /// Makes what depends on `touch` old.
    pub fn purge(&self, touch: Touch) {
        let now = self.clock.now();
        self.post(|| Event::Purge(touch.clone()));
        self.state.lock().generations.purge(touch, now);
    }

    /// Makes what depends on `touch` no longer fresh: it is given out only in the place of a failure.
    pub fn soften(&self, touch: Touch) {
        let now = self.clock.now();
        self.post(|| Event::Soften(touch.clone()));
        self.state.lock().generations.soften(touch, now);
    }

    /// The same of all answers that were kept for principals which are shown as `short`; returns how many there are.
    pub fn soften_principal(&self, short: &str) -> usize {
        self.post(|| Event::Principal(SmolStr::new(short), false));
        self.make_principal_soft(short)
    }

    /// The same, said by another replica.
    pub(super) fn make_principal_soft(&self, short: &str) -> usize {
        let mut state = self.state.lock();
        let number = state.generations.number();
        state.sessions.soften_where(|who| who.short() == short, number)
    }

    /// Makes all answers old that were kept for principals which are shown as `short`; returns how many there were.
    pub fn purge_principal(&self, short: &str) -> usize {
        self.post(|| Event::Principal(SmolStr::new(short), true));
        self.make_principal_old(short)
    }

    /// The same, said by another replica.
    pub(super) fn make_principal_old(&self, short: &str) -> usize {
        let now = self.clock.now();
        self.forget_failures(|who| who.short() != short);
        self.state.lock().sessions.end_where(|who| who.short() == short, now)
    }

    /// The spot of a request, if any of its kind is known to fail. Costs next to nothing where nothing is.
    pub fn failing(&self, call: &Call, target: &str) -> Option<Spot> {
        if self.failures.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let memory = self.memory.lock();
        let spot = memory.spot(call.principal, &call.meaning.method, target);
        memory.knows(spot).then_some(spot)
    }

    /// What Salesforce said to this very request, if it would say the same now as far as anybody knows.
    pub fn recall(&self, spot: Spot, call: &Call, exact: &Exact, now: Instant) -> Option<Recalled> {
        let memory = self.memory.lock();
        memory.recall(spot, call.principal, exact, now, |deps, as_of| self.state.lock().stands(deps, as_of, now))
    }

    /// Remembers that `call`, to `target`, failed. Says whether requests like it are answered from memory from now on.
    pub fn failed(&self, call: &Call, target: &str, exact: Exact, failure: Failure, rule: &Remembering) -> bool {
        let now = self.clock.now();
        let deps = failure.depends(call, target);
        let mut memory = self.memory.lock();
        let spot = memory.spot(call.principal, &call.meaning.method, target);
        let as_of = self.state.lock().generations.count();
        let stands = |deps: Option<&Deps>, as_of| self.state.lock().stands(deps, as_of, now);
        let who = call.principal;
        let remembered = memory.note(spot, who, exact, failure, deps, rule.lasts, now, as_of, stands);
        self.failures.store(memory.len(), Ordering::Relaxed);
        remembered
    }

    /// A caller wants Salesforce to be asked again about requests of this spot.
    pub fn ask_again(&self, spot: Spot) {
        let mut memory = self.memory.lock();
        memory.forget(spot);
        self.failures.store(memory.len(), Ordering::Relaxed);
    }

    /// How many requests are known to fail.
    pub fn failures(&self) -> usize {
        self.failures.load(Ordering::Relaxed)
    }

    fn forget_failures(&self, keep: impl Fn(Principal) -> bool) {
        if self.failures.load(Ordering::Relaxed) > 0 {
            let mut memory = self.memory.lock();
            memory.retain(keep);
            self.failures.store(memory.len(), Ordering::Relaxed);
        }
    }
}

impl State {
    /// Whether nothing that `deps` names, or nothing at all, has changed since `as_of` or is changing.
    fn stands(&mut self, deps: Option<&Deps>, as_of: u64, now: Instant) -> bool {
        match deps {
            Some(deps) => {
                let standing = self.generations.standing(deps, now);
                !standing.busy && standing.moved.max(standing.softened) <= as_of
            }
            None => !self.generations.is_uncertain(now) && self.generations.count() <= as_of,
        }
    }
}

/// A call in the air that may change something. If it is dropped before its end is known, its outcome is in doubt.
#[derive(Debug)]
pub struct Writing {
    org: Arc<OrgAnswers>,
    touches: Option<Touches>,
    /// Its number, by which other replicas know it.
    call: u64,
}

impl Writing {
    /// It was answered, or certainly never sent.
    pub fn ended(mut self) {
        self.end(false);
    }

    /// Salesforce has begun to answer, and may not be done: what is changed is old once more, and goes on to change.
    pub fn answering(&self) {
        if let Some(touches) = &self.touches {
            let now = self.org.clock.now();
            let mut state = self.org.state.lock();
            let more = state.generations.begin(touches.clone(), now);
            state.generations.end(&more, false, now);
            if let Some(shared) = &mut state.shared {
                shared.outbox.post(Event::Again(self.call));
            }
            self.org.tell(&state);
        }
    }

    /// What it may change.
    pub fn touches(&self) -> Touches {
        self.touches.clone().unwrap_or_default()
    }

    fn end(&mut self, doubt: bool) {
        if let Some(touches) = self.touches.take() {
            let now = self.org.clock.now();
            let mut state = self.org.state.lock();
            state.generations.end(&touches, doubt, now);
            if let Some(shared) = &mut state.shared {
                shared.outbox.end(self.call, doubt);
            }
            self.org.tell(&state);
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.end(true);
    }
}
