//! The circuit breakers of one org: one for each API, and one for each user of the APIs that limit users.
//!
//! A user whose quota is used up finds its own breaker open; nobody else does. What the gateway itself refuses says nothing of
//! Salesforce.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use smol_str::SmolStr;
use tokio::time::Instant;

use crate::admission::Mode;
use crate::call::{Call, Family, Meaning, Principal};
use crate::clock::Clock;
use crate::exchange::Cause;
use crate::exchange::breaker::{Breaker, BreakerSettings, BreakerState, Pass, Sample, Ticket, View};
use crate::refusal::{Reason, Refusal};
use crate::salesforce::taxonomy::{Kind, Scope, Verdict, has_quota_of_users};
use crate::stages::Passage;
use crate::telemetry::{Level, Log};

/// Users that have breakers of their own at a time; more have none.
const MOST_USERS: usize = 4_096;
/// Failures that open a user's own: a quota that is used up does not fail now and then.
const USERS_MINIMUM: u32 = 5;

/// How long the ledger and the slots have to act on a limit before refusals for it count as failures. Each of them is the
/// first anew if nothing was refused for as long as that, and as a breaker stays open.
const LIMITS_TAKE: Duration = Duration::from_mins(1);

/// The breakers of one org, as one configuration wants them.
#[derive(Debug)]
pub struct Breakers {
    org: SmolStr,
    log: Log,
    mode: Mode,
    settings: BreakerSettings,
    own: Arc<Own>,
}

/// What outlives a configuration.
#[derive(Debug)]
struct Own {
    /// By [`Family::index`].
    families: Box<[Breaker]>,
    users: Mutex<Users>,
    /// How many users have one, so that nobody looks while there is none.
    known: AtomicUsize,
    limits: Limits,
}

/// How long Salesforce has been refusing everything for a limit that the ledger or the slots act on.
#[derive(Debug, Default)]
struct Limits {
    /// Whether it does, so that nobody looks while it does not.
    seen: AtomicBool,
    /// The first and the last such answer.
    run: Mutex<Option<(Instant, Instant)>>,
}

impl Limits {
    /// One more such answer: whether they go on although there was time to act.
    fn go_on(&self, open_max: Duration, now: Instant) -> bool {
        let mut run = self.run.lock();
        let first = match *run {
            Some((first, last)) if now.saturating_duration_since(last) < LIMITS_TAKE + open_max => first,
            _ => now,
        };
        *run = Some((first, now));
        self.seen.store(true, Ordering::Relaxed);
        now.saturating_duration_since(first) >= LIMITS_TAKE
    }

    /// Something was answered otherwise.
    fn over(&self) {
        if self.seen.load(Ordering::Relaxed) {
            *self.run.lock() = None;
            self.seen.store(false, Ordering::Relaxed);
        }
    }
}

type Users = HashMap<(Principal, Family), Arc<Breaker>, ahash::RandomState>;

/// The right of one call to be made. What became of it has to be said; dropped before, it says nothing.
#[derive(Debug)]
pub struct Leave {
    breakers: Arc<Breakers>,
    family: Family,
    principal: Principal,
    ticket: Option<Ticket>,
    user: Option<OfUser>,
    clock: Clock,
}

/// A user's own breaker, and the call's ticket of it.
type OfUser = (Arc<Breaker>, Ticket);

/// What shows, after a wait, whether a [`Leave`] is still good.
#[derive(Debug, Clone)]
pub struct Permit {
    ticket: Ticket,
    user: Option<OfUser>,
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

/// What an operator wants of breakers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// They are held open: for ever, or until they find out again.
    Open(Option<Duration>),
    /// They are closed.
    Closed,
}

impl Breakers {
    /// Closed ones; or, with other settings soon ([`Self::reconfigure`]), those of `before`.
    pub fn new(
        org: &SmolStr,
        log: Log,
        mode: Mode,
        settings: BreakerSettings,
        before: Option<&Arc<Self>>,
        now: Instant,
    ) -> Arc<Self> {
        let own = before.map_or_else(
            || {
                let families = Family::ALL.iter().map(|_| Breaker::new(settings, now)).collect();
                Arc::new(Own {
                    families,
                    users: Mutex::default(),
                    known: AtomicUsize::new(0),
                    limits: Limits::default(),
                })
            },
            |before| Arc::clone(&before.own),
        );
        Arc::new(Self { org: org.clone(), log, mode, settings, own })
    }

    /// Puts the settings in force. What is open stays open.
    pub fn reconfigure(&self) {
        for breaker in &self.own.families {
            breaker.reconfigure(self.settings);
        }
        for breaker in self.own.users.lock().values() {
            breaker.reconfigure(of_user(self.settings));
        }
    }

    /// May `call` be made at `now`? `None`: nobody asks.
    pub fn ask(self: &Arc<Self>, call: &Call, clock: Clock, now: Instant) -> Option<Told> {
        let (family, principal) = (call.meaning.family, call.principal);
        if self.mode == Mode::Off || !may_be_held_back(&call.meaning) {
            return None;
        }
        let mut leave = Leave { breakers: Arc::clone(self), family, principal, ticket: None, user: None, clock };
        let passed = self.own.families.get(family.index())?.ask(call.class, now);
        match passed {
            Pass::Go(ticket) | Pass::Probe(ticket) => leave.ticket = Some(ticket),
            Pass::Shut(wait) => return Some(Told::Shut(self.refusal(family, wait, false))),
        }
        if let Some(user) = self.user(family, principal) {
            match user.ask(call.class, now) {
                // What costs nothing says nothing of a quota.
                Pass::Go(ticket) | Pass::Probe(ticket) => leave.user = Some((user, ticket)),
                Pass::Shut(wait) => return Some(Told::Shut(self.refusal(family, wait, true))),
            }
        }
        Some(if matches!(passed, Pass::Probe(_)) { Told::Probe(leave) } else { Told::Go(leave) })
    }

    /// Whether they refuse, or only say that they would.
    pub fn enforces(&self) -> bool {
        self.mode == Mode::Enforce
    }

    fn user(&self, family: Family, principal: Principal) -> Option<Arc<Breaker>> {
        if self.own.known.load(Ordering::Relaxed) == 0 || !has_quota_of_users(family) {
            return None;
        }
        self.own.users.lock().get(&(principal, family)).cloned()
    }

    /// The breaker of a user who is in trouble, made if there is room. Those of users who are well again make room.
    fn user_in_trouble(&self, family: Family, principal: Principal, now: Instant) -> Option<Arc<Breaker>> {
        let mut users = self.own.users.lock();
        if users.len() >= MOST_USERS && !users.contains_key(&(principal, family)) {
            users.retain(|_, breaker| breaker.is_in_trouble(now));
            if users.len() >= MOST_USERS {
                return None;
            }
        }
        let new = || Arc::new(Breaker::new(of_user(self.settings), now));
        let breaker = users.entry((principal, family)).or_insert_with(new);
        let breaker = Arc::clone(breaker);
        self.own.known.store(users.len(), Ordering::Relaxed);
        Some(breaker)
    }

    /// Does what an operator wants with the breaker of one API, or with all, at `now`. Those of users are closed with them.
    /// Whether that makes a difference: there is such a breaker, and what is open holds calls back.
    pub fn order(&self, family: Option<Family>, wanted: Wanted, now: Instant) -> bool {
        if family.is_some_and(|family| !has_breaker(family)) || (wanted != Wanted::Closed && !self.enforces()) {
            return false;
        }
        let is_meant = |other: Family| family.is_none_or(|family| family == other);
        for (family, breaker) in Family::ALL.iter().zip(&self.own.families) {
            if is_meant(*family) && has_breaker(*family) {
                let state = match wanted {
                    Wanted::Open(length) => breaker.hold(length, now),
                    Wanted::Closed => breaker.close(now),
                };
                self.changed(*family, false, state);
            }
        }
        if wanted == Wanted::Closed {
            let users = self.own.users.lock();
            for ((_, family), breaker) in users.iter().filter(|((_, family), _)| is_meant(*family)) {
                self.changed(*family, true, breaker.close(now));
            }
        }
        true
    }

    /// Why a call that waited may not be sent any more, if it may not.
    fn shut(&self, permit: &Permit, call: &Call, now: Instant) -> Option<Refusal> {
        let (family, class) = (call.meaning.family, call.class);
        let refused = |user| Some(self.refusal(family, self.settings.open, user));
        if !self.own.families.get(family.index())?.is_good(permit.ticket, class, now) {
            return refused(false);
        }
        let is_good = match &permit.user {
            Some((breaker, ticket)) => breaker.is_good(*ticket, class, now),
            // Its first ticket is that of who came when there was none.
            None => self.user(family, call.principal).is_none_or(|user| user.is_good(Ticket::default(), class, now)),
        };
        if is_good { None } else { refused(true) }
    }

    fn refusal(&self, family: Family, wait: Duration, user: bool) -> Refusal {
        let whose = if user { " of this user" } else { "" };
        let why = match self.own.families.get(family.index()) {
            _ if user => "because its quota is used up",
            Some(breaker) if breaker.is_held() => "by order of the operator",
            _ => "because Salesforce is not well",
        };
        let detail = format!("Calls{whose} to the API {family} of {} are held back {why}.", self.org);
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

    /// What they do at `now`: one for each API, and how many users' are not closed. Forgets those of users who are well again.
    pub fn view(&self, now: Instant) -> (Vec<(Family, View)>, usize) {
        let families = Family::ALL.iter().zip(&self.own.families).filter(|(family, _)| has_breaker(**family));
        let families = families.map(|(family, breaker)| (*family, breaker.view(now))).collect();
        let mut users = self.own.users.lock();
        users.retain(|_, breaker| breaker.is_in_trouble(now));
        self.own.known.store(users.len(), Ordering::Relaxed);
        let open = users.values().filter(|breaker| breaker.view(now).state != BreakerState::Closed).count();
        (families, open)
    }
}

fn of_user(settings: BreakerSettings) -> BreakerSettings {
    BreakerSettings { minimum: settings.minimum.min(USERS_MINIMUM), ..settings }
}

/// Whether there is a breaker for this API. What is free is how it is found out, and log-ins are no calls.
const fn has_breaker(family: Family) -> bool {
    !matches!(family, Family::Versions | Family::Oauth)
}

/// Whether calls like this are ever held back. Long polls are held open on purpose.
pub const fn may_be_held_back(meaning: &Meaning) -> bool {
    !meaning.long_poll && has_breaker(meaning.family)
}

impl Leave {
    /// What shows, after a wait, whether it is still good.
    pub fn permit(&self) -> Option<Permit> {
        Some(Permit { ticket: self.ticket?, user: self.user.clone() })
    }

    /// The probe that costs nothing was not answered well.
    pub fn probe_failed(mut self) -> Refusal {
        let now = self.clock.now();
        if let (Some(ticket), Some(breaker)) = (self.ticket.take(), self.breakers.own.families.get(self.family.index()))
        {
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
        let clock = self.clock;
        let said = if let Said::Unseen(status) = said { Said::by_status(self.family, status) } else { said };
        let (family, user) = match said {
            Said::Well => {
                self.breakers.own.limits.over();
                (Sample::Well, Sample::Well)
            }
            // The API has answered; it is this user who may not.
            Said::Ill(Scope::Principal) => (Sample::Well, Sample::Ill),
            Said::Ill(_) => (Sample::Ill, Sample::Nothing),
            Said::Limited if self.breakers.own.limits.go_on(self.breakers.settings.open_max, clock.now()) => {
                (Sample::Ill, Sample::Nothing)
            }
            Said::Limited => (Sample::Well, Sample::Nothing),
            Said::Nothing | Said::Unseen(_) => (Sample::Nothing, Sample::Nothing),
        };
        if let (Some(ticket), Some(breaker)) = (self.ticket.take(), self.breakers.own.families.get(self.family.index()))
        {
            let state = breaker.report(ticket, family, || clock.now());
            self.breakers.changed(self.family, false, state);
        }
        let known = match self.user.take() {
            Some(known) => Some(known),
            None if user == Sample::Ill => {
                let breaker = self.breakers.user_in_trouble(self.family, self.principal, clock.now());
                breaker.map(|breaker| (breaker, Ticket::default()))
            }
            None => None,
        };
        if let Some((breaker, ticket)) = known {
            let state = breaker.report(ticket, user, || clock.now());
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

/// The answer to a call that has waited, if what would answer it has broken meanwhile.
pub fn shut(passage: &Passage) -> Option<Refusal> {
    let breakers = &passage.live.org(passage.call.org)?.breakers;
    breakers.shut(passage.permit.as_ref()?, &passage.call, passage.now).filter(|_| breakers.enforces())
}

/// What an attempt says of how Salesforce is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// It is well: it answered, with whatever.
    Well,
    /// It is not, for as many.
    Ill(Scope),
    /// It is well enough to refuse it, for a limit that the ledger or the slots act on: a failure only if that goes on.
    Limited,
    /// This, and nobody has looked behind it.
    Unseen(StatusCode),
    /// Nothing.
    Nothing,
}

impl Said {
    /// What a verdict says of it.
    pub fn by(verdict: Verdict) -> Self {
        match verdict.kind {
            // Who may not write now can still read.
            Kind::Maintenance if verdict.scope == Scope::Call => Self::Well,
            Kind::Transient | Kind::LimitFamily | Kind::Maintenance => Self::Ill(verdict.scope),
            Kind::LimitDaily | Kind::LimitSlots => Self::Limited,
            _ => Self::Well,
        }
    }

    /// What the lack of an answer says, if that is why.
    pub fn without_answer(cause: Option<Cause>) -> Self {
        if cause.and_then(Cause::kind).is_some() { Self::Ill(Scope::Family) } else { Self::Nothing }
    }

    /// What a status says, to a call of `family`, that nobody has looked behind.
    pub fn by_status(family: Family, status: StatusCode) -> Self {
        match status.as_u16() {
            // As likely this user's quota as the server.
            429 | 503 if has_quota_of_users(family) => Self::Ill(Scope::Principal),
            429 | 502..=504 => Self::Ill(Scope::Family),
            500..=599 => Self::Nothing,
            _ => Self::Well,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_for_a_limit_count_only_if_they_go_on_after_there_was_time_to_act() {
        let (limits, start) = (Limits::default(), Clock::start().now());
        let at = |seconds| limits.go_on(Duration::from_mins(1), start + Duration::from_secs(seconds));
        assert!(!at(0) && !at(40) && !at(59));
        assert!(at(60) && at(179));
        limits.over();
        assert!(!at(180) && !at(239), "something was answered between");
        assert!(!at(400) && !at(459), "there were none for a while");
        assert!(at(460));
    }

    #[test]
    fn what_an_answer_says_of_salesforce_is_what_it_means() {
        let by = |family, status: u16| Said::by_status(family, StatusCode::from_u16(status).unwrap());
        for (family, status, said) in [
            (Family::Rest, 200, Said::Well),
            (Family::Rest, 404, Said::Well),
            (Family::Rest, 429, Said::Ill(Scope::Family)),
            (Family::Rest, 503, Said::Ill(Scope::Family)),
            (Family::Apex, 500, Said::Nothing),
            (Family::Connect, 503, Said::Ill(Scope::Principal)),
            (Family::Connect, 502, Said::Ill(Scope::Family)),
        ] {
            assert_eq!(by(family, status), said, "{family} {status}");
        }
        assert_eq!(Said::without_answer(Some(Cause::Connect)), Said::Ill(Scope::Family));
        assert_eq!(Said::without_answer(Some(Cause::Deadline)), Said::Nothing, "the caller's own");
        assert_eq!(Said::without_answer(Some(Cause::Unpaid)), Said::Nothing, "our own");
        assert_eq!(Said::without_answer(None), Said::Nothing);
    }
}
