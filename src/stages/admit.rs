//! Admit: may this call be sent now, and who pays for it?
//!
//! Before anything else, a call that exceeds its caller's pace waits for its turn. Then the org's ledger decides, and then its
//! slots. A call they admit carries its [`Fare`] onward: reserved here, spent when the message is handed to a connection, given
//! back if it is not, settled by what the answer says. A call that waits, for an answer that is on its way (the first reading, a
//! lease) or for a slot, is one of a bounded number and waits for a bounded time.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;
use tower::{Layer, Service};

use crate::admission::{AccountId, Cause, Denied, Ledger, Level, Reading, Reservation, Spent, Terms};
use crate::body::Payload;
use crate::call::{ApiCalls, Call, Class};
use crate::clock::Clock;
use crate::edge::Drain;
use crate::exchange::{Payer, Unpaid};
use crate::hold::Hold;
use crate::live::{Live, LiveOrg};
use crate::refusal::{Reason, Refusal};
use crate::salesforce::Usage;
use crate::stages::pace::Asked;
use crate::stages::way::Way;
use crate::stages::{Passage, Reply, turn};

/// The calls of one org that wait for the ledger. Cloning is one reference count.
#[derive(Debug, Clone, Default)]
pub struct Waiting(Arc<AtomicUsize>);

/// A place among them; gives itself back.
struct Place(Waiting);

impl Waiting {
    fn enter(&self, places: usize) -> Option<Place> {
        let taken = self.0.try_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < places).then_some(n + 1));
        taken.ok().map(|_| Place(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Puts [`Admit`] on the road.
#[derive(Debug, Clone)]
pub struct AdmitLayer {
    /// For calls that wait.
    pub clock: Clock,
    /// Tells calls that wait that this process ends.
    pub drain: Drain,
}

impl<S> Layer<S> for AdmitLayer {
    type Service = Admit<S>;

    fn layer(&self, inner: S) -> Admit<S> {
        Admit { inner, clock: self.clock, drain: self.drain.clone() }
    }
}

/// The stage: asks the org's ledger, refuses, waits, or passes on.
#[derive(Debug, Clone)]
pub struct Admit<S> {
    inner: S,
    clock: Clock,
    drain: Drain,
}

impl<S> Service<Box<Passage>> for Admit<S>
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

    fn call(&mut self, mut passage: Box<Passage>) -> Self::Future {
        if !matches!(passage.payload, Payload::Empty) {
            // Its body may have taken a while.
            passage.now = self.clock.now();
        }
        let org = passage.live.org(passage.call.org);
        let Some(pace) = org.and_then(|org| org.pace(passage.call.caller)) else { return self.admit(passage) };
        match pace.ask(&passage) {
            Asked::Go => self.admit(passage),
            Asked::Refused(refusal) => Way::refused(refusal),
            Asked::Waits(turn) => {
                let (mut admit, mut passage) = (self.clone(), passage);
                Way::waits(async move {
                    turn.come(&mut passage, admit.clock).await?;
                    admit.admit(passage).await
                })
            }
        }
    }
}

impl<S> Admit<S>
where
    S: Service<Box<Passage>, Response = Reply, Error = Refusal> + Clone + Send + 'static,
    S::Future: Send,
{
    /// Asks the ledger, and then the slots.
    fn admit(&mut self, mut passage: Box<Passage>) -> Way<S::Future> {
        turn::hurry(&mut passage);
        let Some(org) = passage.live.org(passage.call.org) else { return Way::onward(self.inner.call(passage)) };
        let mut fare = Fare::of(org, &passage.call);
        let (turn, place) = match fare.reserve(passage.now) {
            Ok(would_deny) => {
                if let Some(denied) = would_deny {
                    passage.record.lock().would_refuse = Some(reason(denied.cause));
                }
                match turn::enter(org, &passage) {
                    turn::Passed::Free(admitted) => {
                        turn::board(admitted, &mut fare, &passage.record);
                        passage.fare = Some(fare);
                        return Way::onward(self.inner.call(passage));
                    }
                    turn::Passed::Waits(turn) => (Some(turn), None),
                    turn::Passed::Busy(door, length, busy) => {
                        passage.record.lock().length = length;
                        return Way::refused(turn::refusal(&passage.call, org, door, length, busy));
                    }
                }
            }
            Err(denied) if denied.cause.waits() => match org.waiting.enter(org.queue.places) {
                Some(place) => (None, Some(place)),
                None => return Way::refused(refusal(&passage, denied)),
            },
            Err(denied) => return Way::refused(refusal(&passage, denied)),
        };
        let (mut inner, clock, drain) = (self.inner.clone(), self.clock, self.drain.clone());
        Way::waits(async move {
            turn::wait(&mut passage, fare, turn, clock, &drain).await?;
            drop(place);
            inner.call(passage).await
        })
    }
}

/// Asks the ledger again whenever it changes, until it says yes or no or there is no more time.
pub(super) async fn funds(passage: &mut Passage, fare: &mut Fare, org: &LiveOrg, clock: Clock) -> Result<(), Refusal> {
    let since = clock.now();
    let patient_until = since + org.queue.patience(passage.call.class);
    let until = passage.call.deadline.map_or(patient_until, |deadline| deadline.min(patient_until));
    let ledger = fare.ledger.clone();
    loop {
        // Listens before it asks, so that no change in between is missed.
        let mut changed = std::pin::pin!(ledger.changed());
        changed.as_mut().enable();
        let now = clock.now();
        passage.now = now;
        match fare.reserve(now) {
            Ok(_) => return Ok(()),
            Err(denied) if denied.cause.waits() && now < until => {
                // Whatever ended the wait, the ledger is asked once more.
                let _ = tokio::time::timeout_at(until, changed).await;
            }
            Err(denied) => return Err(refusal(passage, denied)),
        }
    }
}

/// What one call costs and who pays: reserved, then spent, then settled, each once. Dropping it gives back what was not
/// spent, and leaves what was spent charged in full.
#[derive(Debug)]
pub struct Fare {
    ledger: Ledger,
    account: AccountId,
    class: Class,
    cost: ApiCalls,
    held: Held,
    /// Its place among the calls in the air, until the message is handed over.
    pub(super) hold: Option<Hold>,
    /// Why the message could not be handed over.
    denied: Option<Denied>,
}

#[derive(Debug)]
enum Held {
    Nothing,
    Reserved(Reservation),
    Spent(Spent),
}

impl Fare {
    fn of(org: &LiveOrg, call: &Call) -> Self {
        Self {
            ledger: org.ledger.clone(),
            account: org.account(call.caller),
            class: call.class,
            cost: call.meaning.cost,
            held: Held::Nothing,
            hold: None,
            denied: None,
        }
    }

    /// Gives back what is set aside.
    pub(super) fn release(&mut self) {
        self.held = Held::Nothing;
    }

    /// Whether calls are set aside.
    pub(super) fn is_reserved(&self) -> bool {
        matches!(self.held, Held::Reserved(_))
    }

    /// Sets the calls aside; says what would have been denied if the ledger did not only observe.
    fn reserve(&mut self, now: Instant) -> Result<Option<Denied>, Denied> {
        let reservation = self.ledger.reserve(self.account, self.class, self.cost, now)?;
        let would_deny = reservation.would_deny();
        self.held = Held::Reserved(reservation);
        Ok(would_deny)
    }

    /// On what terms the call was let in, until it is sent.
    pub fn terms(&self) -> Option<Terms> {
        match &self.held {
            Held::Reserved(reservation) => reservation.terms(),
            Held::Nothing | Held::Spent(_) => None,
        }
    }

    /// Why the message could not be handed over, if that is why there is no answer.
    pub fn denied(&self) -> Option<Denied> {
        self.denied
    }

    /// Tells the ledger what Salesforce said, in an answer that came at `now`, about the org's use.
    pub fn read(&self, usage: Usage, now: Instant) {
        learn(&self.ledger, usage, now);
    }

    /// It was answered at `now`, and charged this.
    pub fn answered(&mut self, charged: ApiCalls, now: Instant) {
        if let Held::Spent(spent) = std::mem::replace(&mut self.held, Held::Nothing) {
            spent.answered(charged, now);
        }
    }

    /// Salesforce refused it because the daily allowance is used up, and charged this.
    pub fn limit_exceeded(&mut self, charged: ApiCalls, now: Instant) {
        if let Held::Spent(spent) = std::mem::replace(&mut self.held, Held::Nothing) {
            spent.limit_exceeded(charged, now);
        }
    }
}

/// Tells `ledger` what Salesforce said, in an answer that came at `now`, about the org's use.
pub fn learn(ledger: &Ledger, usage: Usage, now: Instant) {
    let reading = Reading { used: u64::from(usage.used), limit: u64::from(usage.limit) };
    // What is not believed is counted by the ledger itself.
    let _ = ledger.read(reading, now);
}

impl Payer for Fare {
    fn hand_over(&mut self, now: Instant) -> Result<Option<Hold>, Unpaid> {
        let reserved = match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Reserved(reservation) => Ok(reservation),
            // Once more, because the last connection gave it back.
            Held::Nothing | Held::Spent(_) => self.ledger.reserve(self.account, self.class, self.cost, now),
        };
        let ended = Denied { cause: Cause::AwaitLease, level: Level::Normal, missing: 0 };
        match reserved.and_then(|reservation| reservation.spend(now).map_err(|_| ended)) {
            Ok(spent) => {
                self.held = Held::Spent(spent);
                let mut hold = self.hold.take();
                if let Some(hold) = &mut hold {
                    hold.sent(now);
                }
                Ok(hold)
            }
            Err(denied) => {
                self.denied = Some(denied);
                Err(Unpaid)
            }
        }
    }

    fn given_back(&mut self, hold: Option<Hold>, now: Instant) {
        self.hold = hold;
        if let Held::Spent(spent) = std::mem::replace(&mut self.held, Held::Nothing) {
            spent.unsent(now);
        }
    }
}

/// The word for a cause in metrics, log and answers.
pub const fn reason(cause: Cause) -> Reason {
    match cause {
        Cause::CallerPaused | Cause::ClassPaused => Reason::Paused,
        Cause::CallerCeiling => Reason::CallerCeiling,
        Cause::OrgCeiling | Cause::Reserved | Cause::OrgClosed | Cause::AwaitProbe => Reason::OrgAllowance,
        Cause::Share | Cause::Shed => Reason::Shed,
        Cause::Paced => Reason::Pace,
        Cause::AwaitReading | Cause::AwaitLease | Cause::BankLost => Reason::BudgetUnready,
        Cause::Stopping => Reason::Draining,
        Cause::UnknownCaller => Reason::UnknownCaller,
    }
}

/// The answer to a call that was denied.
pub fn refusal(passage: &Passage, denied: Denied) -> Refusal {
    let Passage { call, live, now, .. } = passage;
    match live.org(call.org) {
        Some(org) => refusal_of(call, live, org, denied, *now),
        None => Refusal::new(Reason::UnknownOrg, "The org was removed from the configuration."),
    }
}

/// The same, of a call that has gone further.
pub fn refusal_of(call: &Call, live: &Live, org: &LiveOrg, denied: Denied, now: Instant) -> Refusal {
    let reason = reason(denied.cause);
    let back = org.ledger.retry_after(denied, org.account(call.caller), now);
    let mut detail = sentence(call, live, org, denied.cause);
    let retry_after = match reason {
        Reason::CallerCeiling | Reason::OrgAllowance => {
            if let Some(wait) = back {
                let at = org.ledger.timeline().at(now) + wait;
                let _ = write!(detail, " Enough come back by {}.", clock_time(at, at.saturating_sub(wait)));
            }
            back
        }
        // It may be over long before the calls it takes have come back; all who wait should not return at once.
        Reason::Shed => Some(Duration::from_secs(fastrand::u64(20..=60))),
        Reason::Paused => Some(Duration::from_mins(1)),
        _ => back,
    };
    let refusal = Refusal::new(reason, detail);
    match retry_after {
        Some(wait) => refusal.retry_after(wait),
        None => refusal,
    }
}

fn sentence(call: &Call, live: &Live, org: &LiveOrg, cause: Cause) -> String {
    let (org, class) = (&org.name, call.class);
    match cause {
        Cause::CallerPaused => "The operator has paused this caller.".to_owned(),
        Cause::ClassPaused => format!("The operator has paused all calls of class {class}."),
        Cause::CallerCeiling => match live.config.caller(call.caller).and_then(|caller| caller.daily.ceiling) {
            Some(ceiling) => {
                format!("This caller may use {ceiling} API calls of {org} in 24 hours, and has used them.")
            }
            None => format!("This caller has used the API calls of {org} that it may use in 24 hours."),
        },
        Cause::OrgCeiling => format!("The API calls that {org} may use in 24 hours are used up."),
        Cause::Reserved => {
            format!("What is left of the daily API calls of {org} is held for callers that are guaranteed it.")
        }
        Cause::OrgClosed | Cause::AwaitProbe => {
            format!("Salesforce says that the daily API calls of {org} are used up.")
        }
        Cause::Share => {
            format!("The API calls of {org} are scarce, and this caller has had its share of what is left.")
        }
        Cause::Shed => {
            format!(
                "The API calls of {org} are scarce, and calls of class {class} beyond a caller's floor are not sent now."
            )
        }
        Cause::Paced => {
            format!(
                "The API calls of {org} are scarce, and calls of class {class} are sent only as fast as others come back."
            )
        }
        Cause::AwaitReading => format!("Salesforce has not said yet how many API calls of {org} are left."),
        Cause::AwaitLease => "The right to spend further API calls did not come in time.".to_owned(),
        Cause::BankLost => "What is spent cannot be written down at present.".to_owned(),
        Cause::Stopping => "The gateway admits no further calls.".to_owned(),
        Cause::UnknownCaller => "This caller was removed from the configuration.".to_owned(),
    }
}

/// `14:20 UTC`, and `tomorrow` if it is not the day of `now`; both are times since the Unix epoch.
fn clock_time(at: Duration, now: Duration) -> String {
    const DAY: u64 = 24 * 60;
    let (minutes, today) = (at.as_secs().div_ceil(60), now.as_secs() / 60 / DAY);
    let day = if minutes / DAY == today { "" } else { " tomorrow" };
    format!("{:02}:{:02} UTC{day}", minutes % DAY / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_is_never_too_early() {
        for (seconds, text) in [
            (0, "00:00 UTC"),
            (1, "00:01 UTC"),
            (51_600, "14:20 UTC"),
            (86_399, "00:00 UTC tomorrow"),
            (86_460, "00:01 UTC tomorrow"),
        ] {
            assert_eq!(clock_time(Duration::from_secs(seconds), Duration::ZERO), text);
        }
    }

    #[test]
    fn places_to_wait_are_bounded_and_given_back() {
        let waiting = Waiting::default();
        let places: Vec<_> = std::iter::from_fn(|| waiting.enter(100)).collect();
        assert_eq!(places.len(), 100);
        drop(places);
        assert!(waiting.enter(1).is_some());
    }

    #[test]
    fn every_cause_has_its_status() {
        for cause in Cause::ALL {
            let status = reason(*cause).status().as_u16();
            let wanted = match cause {
                Cause::Paced => 429,
                Cause::CallerCeiling
                | Cause::OrgCeiling
                | Cause::Reserved
                | Cause::OrgClosed
                | Cause::AwaitProbe
                | Cause::UnknownCaller => 403,
                _ => 503,
            };
            assert_eq!(status, wanted, "{cause}");
        }
    }
}
