//! AVOID: answers without asking. What may be kept, who may have it, and when it is old.
//!
//! ```text
//! Question     question.rs      what is asked, if its answer may be kept: key, dependencies, wishes
//!   Wish       wish.rs          how it wants to be answered, which headers decide
//! Rules        rules.rs         what the operator lets be kept, for how long
//! effect       effect.rs        what a call may change (pure)
//!   Touch Deps touch.rs         the words for both sides
//! OrgAnswers   org.rs           one org's changes and sessions, under one lock; and what its objects look like
//!   Generations generations.rs  when what was last changed, what is being changed (pure)
//!   Relations  relations.rs     where relationship names lead (pure)
//!   Sessions   sessions.rs      who is entitled to kept answers (pure)
//!   Shared     sharing.rs       what passes between the replicas of one org
//!     Outbox Peers shared/      what is told and heard, and until when it is certain that nothing was missed (pure)
//!   Memory     failures.rs      requests that fail the same way again and again (pure)
//! Store        store.rs         the kept answers, bounded by bytes
//!   Kept Whole kept.rs          one answer: what of it may be kept, how it is given out again (pure)
//!   Room       room.rs          the bytes answers take, by the object they are about
//! Flights      flights.rs       of those who ask the same at the same time, one asks
//! Job          jobs.rs          what Salesforce says of a bulk job (pure)
//! ```
//!
//! Invariants: an answer is given out only to the principal it was fetched for, while Salesforce accepts that principal's
//! session; never after anything it depends on was changed by way of this gateway, nor while that is being changed or may
//! be; and it holds no cookie, no error, no locator and no part of a body. What is in doubt is not kept. Where several replicas
//! serve an org, each hears of the others' changes, and what may have been missed is in doubt.
//! The rules and the stage that applies them are elsewhere: nothing here sends, waits for or refuses a call.

mod effect;
mod failures;
mod flights;
mod generations;
mod jobs;
mod kept;
mod org;
mod question;
mod relations;
mod room;
mod rules;
mod sessions;
mod shared;
mod sharing;
mod store;
mod touch;
mod wish;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use smol_str::SmolStr;

pub use effect::{effect, with_what_changes_along};
pub use failures::{Exact, Failure, Recalled, Remembering, Spot, exact};
pub use flights::{Boarding, Flights, Landed, Leader, Seat, State, Urgency};
pub use generations::{DOUBT, JOB};
pub use jobs::{Job, ingest_job, job_of_path};
pub use kept::{Kept, Whole};
pub use org::{Look, OrgAnswers, Writing};
pub use question::{Kind, Question};
pub use relations::{Objects, Resolved, Shape};
pub use room::{Room, Taken};
pub use rules::{Entry, Rules};
pub use sharing::{Certainty, Heard, Traffic};
pub use store::Store;
pub use touch::{Touch, Touches, lower};
pub use wish::Wish;

use crate::clock::Clock;

/// What is remembered for as long as the process lives, whatever is configured. Cloning is one reference count.
#[derive(Debug, Clone)]
pub struct Answers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    /// What names this process to other replicas, if there may be some.
    replica: Option<SmolStr>,
    orgs: Mutex<Orgs>,
    store: Mutex<Option<Store>>,
    flights: Arc<Flights>,
}

#[derive(Debug, Default)]
struct Orgs {
    last: u32,
    /// By name; with where its API is.
    known: HashMap<SmolStr, (String, Arc<OrgAnswers>)>,
}

impl Answers {
    /// Nothing is kept yet.
    pub fn new(clock: Clock) -> Self {
        Self::shared(clock, None)
    }

    /// The same of one of several replicas: `replica` names it to the others, and nothing is kept or given out of an org
    /// until they are heard.
    pub fn shared(clock: Clock, replica: Option<&str>) -> Self {
        let replica = replica.map(SmolStr::new);
        let inner = Inner { clock, replica, orgs: Mutex::default(), store: Mutex::default(), flights: Arc::default() };
        Self(Arc::new(inner))
    }

    /// What is remembered of the org `name`, whose API is at `instance`: the same after a reload, but nothing of an org that
    /// was elsewhere.
    pub fn org(&self, name: &SmolStr, instance: &str) -> Arc<OrgAnswers> {
        let mut orgs = self.0.orgs.lock();
        if let Some((known, org)) = orgs.known.get(name)
            && known == instance
        {
            return Arc::clone(org);
        }
        orgs.last += 1;
        let org = Arc::new(OrgAnswers::new(orgs.last, self.0.clock, self.0.replica.as_deref()));
        orgs.known.insert(name.clone(), (instance.to_owned(), Arc::clone(&org)));
        org
    }

    /// The store, with room for `bytes`. With another bound than before it is a new one.
    pub fn store(&self, bytes: u64) -> Store {
        let mut store = self.0.store.lock();
        match &*store {
            Some(known) if known.bound() == bytes => known.clone(),
            _ => store.insert(Store::new(bytes)).clone(),
        }
    }

    /// Nothing is kept any more.
    pub fn forget(&self) {
        if let Some(store) = self.0.store.lock().take() {
            store.clear();
        }
    }

    /// The flights of all runtimes.
    pub fn flights(&self) -> Arc<Flights> {
        Arc::clone(&self.0.flights)
    }

    /// The org of this name, if it is known.
    pub fn org_named(&self, name: &str) -> Option<Arc<OrgAnswers>> {
        self.0.orgs.lock().known.get(name).map(|(_, org)| Arc::clone(org))
    }

    /// The objects that answers are kept about: org, object in lower case, bytes and answers.
    pub fn by_object(&self) -> Vec<(SmolStr, SmolStr, u64, u64)> {
        let orgs = self.0.orgs.lock();
        orgs.known
            .iter()
            .flat_map(|(name, (_, org))| {
                org.by_object().into_iter().map(|(object, bytes, answers)| (name.clone(), object, bytes, answers))
            })
            .collect()
    }

    /// Bytes taken by answers, by how many, and the bound.
    pub fn size(&self) -> (u64, u64, u64) {
        let store = self.0.store.lock().clone();
        store.map_or((0, 0, 0), |store| {
            let (bytes, answers) = store.size();
            (bytes, answers, store.bound())
        })
    }
}

#[cfg(test)]
mod tests;
