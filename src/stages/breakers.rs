//! The circuit breakers of one org: one for each API, and one for each user of the APIs that limit users.
//!
//! A user whose quota is used up finds its own breaker open; nobody else does. What the gateway itself refuses says nothing of
//! Salesforce.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use smol_str::SmolStr;
use tokio::time::Instant;

use crate::admission::Mode;
use crate::call::{Call, Class, Family, Principal};
use crate::clock::Clock;
use crate::exchange::Cause;
use crate::exchange::breaker::{Breaker, BreakerSettings, BreakerState, Pass, Sample, Ticket};
use crate::refusal::{Reason, Refusal};
use crate::salesforce::taxonomy::{Kind, Scope, Verdict, has_quota_of_users};
use crate::stages::Passage;
use crate::telemetry::{Level, Log};

/// Users that have breakers of their own at a time; more have none.
const MOST_USERS: usize = 4_096;

/// The breakers of one org.
#[derive(Debug)]
pub struct Breakers {
    org: SmolStr,
    log: Log,
    mode: Mode,
    settings: BreakerSettings,
    /// By [`Family::index`].
    families: Vec<Breaker>,
    users: Mutex<Users>,
    /// How many users have one, so that nobody looks while there is none.
    known: AtomicUsize,
}

type Users = HashMap<(Principal, Family), Arc<Breaker>, ahash::RandomState>;

/// The right of one call to be made. What became of it has to be said; dropped before, it says nothing.
#[derive(Debug)]
pub struct Leave {
    breakers: Arc<Breakers>,
    family: Family,
    principal: Principal,
    ticket: Option<Ticket>,
    user: Option<(Arc<Breaker>, Ticket)>,
    clock: Clock,
}

/// What a call is told.
pub enum Told {
    /// It may be made.
    Go(Leave),
    /// It may be made if something that costs nothing is answered first.
    Probe(Leave),
    /// It may not.
    Shut(Refusal),
}

impl Breakers {
    /// Closed ones; or those of `before`, if nothing about them has changed.
    pub fn new(
        org: &SmolStr,
        log: Log,
        mode: Mode,
        settings: BreakerSettings,
        before: Option<&Arc<Self>>,
        now: Instant,
    ) -> Arc<Self> {
        if let Some(before) = before.filter(|before| (before.mode, before.settings) == (mode, settings)) {
            return Arc::clone(before);
        }
        Arc::new(Self {
            org: org.clone(),
            log,
            mode,
            settings,
            families: Family::ALL.iter().map(|_| Breaker::new(settings, now)).collect(),
            users: Mutex::default(),
            known: AtomicUsize::new(0),
        })
    }

    /// May `call` be made at `now`? `None`: nobody asks.
    pub fn ask(self: &Arc<Self>, call: &Call, clock: Clock, now: Instant) -> Option<Told> {
        let (family, principal) = (call.meaning.family, call.principal);
        if self.mode == Mode::Off || is_exempt(call) {
            return None;
        }
        let mut leave = Leave { breakers: Arc::clone(self), family, principal, ticket: None, user: None, clock };
        let mut probe = false;
        if let Some(user) = self.user(family, principal) {
            match user.ask(call.class, now) {
                Pass::Go(ticket) | Pass::Probe(ticket) => leave.user = Some((user, ticket)),
                Pass::Shut(wait) => return Some(Told::Shut(self.refusal(family, wait, true))),
            }
        }
        match self.families.get(family.index())?.ask(call.class, now) {
            Pass::Go(ticket) => leave.ticket = Some(ticket),
            Pass::Probe(ticket) => {
                leave.ticket = Some(ticket);
                probe = true;
            }
            Pass::Shut(wait) => return Some(Told::Shut(self.refusal(family, wait, false))),
        }
        Some(if probe { Told::Probe(leave) } else { Told::Go(leave) })
    }

    /// Whether they refuse, or only say that they would.
    pub fn enforces(&self) -> bool {
        self.mode == Mode::Enforce
    }

    fn user(&self, family: Family, principal: Principal) -> Option<Arc<Breaker>> {
        if self.known.load(Ordering::Relaxed) == 0 || !has_quota_of_users(family) {
            return None;
        }
        self.users.lock().get(&(principal, family)).cloned()
    }

    /// The breaker of a user who is in trouble, made if there is room. Those that are closed make room.
    fn user_in_trouble(&self, family: Family, principal: Principal, now: Instant) -> Option<Arc<Breaker>> {
        let mut users = self.users.lock();
        if users.len() >= MOST_USERS && !users.contains_key(&(principal, family)) {
            users.retain(|_, breaker| breaker.view(now).0 != BreakerState::Closed);
            if users.len() >= MOST_USERS {
                return None;
            }
        }
        let breaker = users.entry((principal, family)).or_insert_with(|| Arc::new(Breaker::new(self.settings, now)));
        let breaker = Arc::clone(breaker);
        self.known.store(users.len(), Ordering::Relaxed);
        Some(breaker)
    }

    fn refusal(&self, family: Family, wait: Duration, user: bool) -> Refusal {
        let whose = if user { " of this user" } else { "" };
        let detail =
            format!("Calls{whose} to the API {family} of {} are held back, because Salesforce is not well.", self.org);
        // All who are refused should not return at once.
        let wait = wait.max(Duration::from_secs(1));
        Refusal::new(Reason::CircuitOpen, detail).retry_after(wait + wait.mul_f64(fastrand::f64() / 4.0))
    }

    fn changed(&self, family: Family, user: bool, state: Option<BreakerState>) {
        let Some(state) = state else { return };
        let level = if state == BreakerState::Closed { Level::Info } else { Level::Warn };
        self.log.event(
            level,
            "breaker",
            &[
                ("org", self.org.as_str().into()),
                ("family", family.as_str().into()),
                ("of_user", user.into()),
                ("state", state.as_str().into()),
            ],
        );
    }

    /// What they do at `now`: those of families that are not closed or were ever open, and how many users' are open.
    pub fn view(&self, now: Instant) -> (Vec<(Family, BreakerState, u64, Option<Duration>)>, usize) {
        let families = Family::ALL.iter().zip(&self.families).map(|(family, breaker)| {
            let (state, opened, again) = breaker.view(now);
            (*family, state, opened, again)
        });
        let users = self.users.lock();
        let open = users.values().filter(|breaker| breaker.view(now).0 != BreakerState::Closed).count();
        (families.collect(), open)
    }
}

/// Long polls are held open on purpose, and what is free is how it is found out.
fn is_exempt(call: &Call) -> bool {
    call.meaning.long_poll || matches!(call.meaning.family, Family::Versions | Family::Oauth)
}

impl Leave {
    /// What shows, after a wait, whether it is still good.
    pub fn ticket(&self) -> Option<Ticket> {
        self.ticket
    }

    /// The probe that costs nothing was not answered well.
    pub fn probe_failed(mut self) -> Refusal {
        let now = self.clock.now();
        if let (Some(ticket), Some(breaker)) = (self.ticket.take(), self.breakers.families.get(self.family.index())) {
            let state = breaker.probed(ticket, false, now);
            self.breakers.changed(self.family, false, state);
        }
        self.breakers.refusal(self.family, self.breakers.settings.open, false)
    }

    /// It was answered, or not, in a way that says this.
    pub fn report(mut self, said: Said) {
        self.tell(said);
    }

    fn tell(&mut self, said: Said) {
        let now = self.clock.now();
        let (family, user) = match said {
            Said::Well => (Sample::Well, Sample::Well),
            Said::Ill(Scope::Principal) => (Sample::Nothing, Sample::Ill),
            Said::Ill(_) => (Sample::Ill, Sample::Nothing),
            Said::Nothing => (Sample::Nothing, Sample::Nothing),
        };
        if let (Some(ticket), Some(breaker)) = (self.ticket.take(), self.breakers.families.get(self.family.index())) {
            // A probe that met only a user's quota was answered: the API is well.
            let family = if said == Said::Ill(Scope::Principal) { Sample::Well } else { family };
            let state = breaker.report(ticket, family, now);
            self.breakers.changed(self.family, false, state);
        }
        let known = match self.user.take() {
            Some(known) => Some(known),
            None if user == Sample::Ill => {
                let breaker = self.breakers.user_in_trouble(self.family, self.principal, now);
                breaker.and_then(|breaker| match breaker.ask(Class::Interactive, now) {
                    Pass::Go(ticket) => Some((breaker, ticket)),
                    Pass::Probe(_) | Pass::Shut(_) => None,
                })
            }
            None => None,
        };
        if let Some((breaker, ticket)) = known {
            let state = breaker.report(ticket, user, now);
            self.breakers.changed(self.family, true, state);
        }
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        if self.ticket.is_some() || self.user.is_some() {
            self.tell(Said::Nothing);
        }
    }
}

/// The answer to a call that has waited, if the breaker of its API has opened meanwhile.
pub fn shut(passage: &Passage) -> Option<Refusal> {
    let (ticket, family) = (passage.ticket?, passage.call.meaning.family);
    let breakers = &passage.live.org(passage.call.org)?.breakers;
    if breakers.families.get(family.index())?.is_valid(ticket) || !breakers.enforces() {
        return None;
    }
    Some(breakers.refusal(family, breakers.settings.open, false))
}

/// What an attempt says of how Salesforce is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// It is well: it answered, with whatever.
    Well,
    /// It is not, for as many.
    Ill(Scope),
    /// Nothing.
    Nothing,
}

impl Said {
    /// What a verdict says of it.
    pub fn by(verdict: Verdict) -> Self {
        match verdict.kind {
            Kind::Transient | Kind::LimitFamily | Kind::Maintenance => Self::Ill(verdict.scope),
            // The ledger and the slots act on these.
            Kind::LimitDaily | Kind::LimitSlots => Self::Nothing,
            _ => Self::Well,
        }
    }

    /// What the lack of an answer says, if that is why.
    pub fn without_answer(cause: Option<Cause>) -> Self {
        if cause.and_then(Cause::kind).is_some() { Self::Ill(Scope::Family) } else { Self::Nothing }
    }

    /// What a status says that nobody has looked behind.
    pub fn by_status(status: StatusCode) -> Self {
        let ill = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        if ill { Self::Ill(Scope::Family) } else { Self::Well }
    }
}
