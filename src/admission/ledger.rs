//! The ledger: may this call be sent, and who pays for it.
//!
//! A call is reserved when it is dispatched, *spent* when it is handed to a connection (and dated by that), and
//! refunded if it never was: dropping a [`Reservation`] refunds it, and a reservation can be spent or dropped but
//! never both, so nothing is refunded twice. What Salesforce charged in the end may lower a [`Spent`] call, once.
//!
//! One ledger for each org, shared by all runtimes; every method takes one short lock. It does no I/O and knows no
//! clock; [`bank::keep`](super::bank::keep) does what has to be done in the background.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::MutexGuard;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::call::{ApiCalls, Class};
use crate::clock::Clock;

use super::bank::{Lease, Past, Statement};
use super::book::{Book, Pass};
use super::denied::{Cause, Denied};
use super::latch::{Apart, Latch};
use super::lease::{Lease as Leased, OnLoss};
use super::settings::{AccountId, OrgSettings, Share};
use super::terms::Terms;
use super::time::{Minute, Timeline};
use super::usage::{Misread, Reading};

/// Accounts released under one hold of the lock in the background.
const SWEPT_AT_ONCE: usize = 256;

/// Whether the right to spend comes from a bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Funding {
    /// Spend within the rules; nothing is remembered after the process.
    Unbounded,
    /// Spend only what a bank has leased.
    Leased,
}

/// One org's ledger. Cloning is one reference count, which [`Self::apart`] keeps from other threads.
#[derive(Clone)]
pub struct Ledger {
    shared: Arc<Apart<Arc<Shared>>>,
}

struct Shared {
    timeline: Timeline,
    book: Latch<Book>,
    /// Calls that wait should ask again.
    changed: Notify,
    /// The lease wants filling up.
    refill: Notify,
}

impl Ledger {
    /// A ledger that goes on where earlier processes left off.
    pub fn resume(settings: OrgSettings, shares: &[Share], past: &Past, clock: Clock, now: Instant) -> Self {
        // Replicas that share a bank share its time, whatever their own clocks say.
        let timeline = if past.shared {
            Timeline::start(Clock::anchored(now, past.now), now, past.now)
        } else {
            Timeline::resume(clock, now, past.now, past.forward)
        };
        let ledger = Self::new(settings, shares, Funding::Leased, timeline, now);
        ledger.with(now, |book| book.inherit(past));
        ledger
    }

    /// Goes on where other replicas are that share the bank, once it can be reached: until then nothing is leased.
    pub fn join(&self, past: &Past, now: Instant) {
        self.push(past.now, now);
        self.with(now, |book| book.inherit(past));
        self.wake();
    }

    fn push(&self, time: Duration, now: Instant) {
        let shared = self.shared();
        let mut book = shared.book.lock();
        if shared.timeline.push(time, now) {
            book.turn(now, &shared.timeline);
        }
    }

    /// An empty ledger; the account of caller `n` of `shares` has the id of `CallerId(n)`.
    pub fn new(settings: OrgSettings, shares: &[Share], funding: Funding, timeline: Timeline, now: Instant) -> Self {
        let lease = match funding {
            Funding::Unbounded => Leased::Unbounded,
            Funding::Leased => Leased::unopened(),
        };
        let book = Book::open(settings, shares, lease, timeline.minute(now));
        let (changed, refill) = (Notify::new(), Notify::new());
        let inner = Shared { timeline, book: Latch::new(book), changed, refill };
        Self { shared: Arc::new(Apart(Arc::new(inner))) }
    }

    /// The same ledger with a reference count of its own: every call counts twice, and threads that do so in one place take
    /// its cache line from each other.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self { shared: Arc::new(Apart(Arc::clone(&self.shared.0))) }
    }

    fn shared(&self) -> &Shared {
        &self.shared.0
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.shared().book.lock()
    }

    /// Reserves `cost` calls for a call about to be dispatched. A denial that [`Cause::waits`] is answered by
    /// waiting for [`Self::changed`], any other by a refusal.
    pub fn reserve(
        &self,
        account: impl Into<AccountId>,
        class: Class,
        cost: ApiCalls,
        now: Instant,
    ) -> Result<Reservation, Denied> {
        let mut book = self.book();
        book.touch(now, &self.shared().timeline);
        let pass = book.reserve(account.into(), class, cost);
        let refill = match &pass {
            Ok(pass) => book.is_low(pass),
            Err(denied) => denied.cause == Cause::AwaitLease,
        };
        drop(book);
        if refill {
            self.shared().refill.notify_one();
        }
        pass.map(|pass| Reservation { held: Some((self.clone(), pass)) })
    }

    /// Takes in what Salesforce said about the org's use.
    pub fn read(&self, reading: Reading, now: Instant) -> Result<(), Misread> {
        let changed = self.with(now, |book| book.read(reading))?;
        if changed {
            self.shared().changed.notify_waiters();
        }
        Ok(())
    }

    /// Pauses or resumes the caller of this name: while paused, nothing of its is admitted, not even below its floor nor
    /// where decisions do not bind. `false` if there is no such caller.
    pub fn pause_caller(&self, caller: &str, paused: bool, now: Instant) -> bool {
        let known = self.with(now, |book| book.pause_caller(caller, paused));
        self.shared().changed.notify_waiters();
        self.shared().refill.notify_one();
        known
    }

    /// Pauses or resumes a class.
    pub fn pause_class(&self, class: Class, paused: bool, now: Instant) {
        self.with(now, |book| {
            book.paused_classes[class.index()] = paused;
            book.pauses_changed = true;
        });
        self.shared().changed.notify_waiters();
        self.shared().refill.notify_one();
    }

    /// Puts new rules and shares in force. Use is kept by the callers' names; calls under way stay with whom they
    /// were reserved for. Returns the accounts of `shares`, in their order.
    pub fn reconfigure(&self, settings: OrgSettings, shares: &[Share], now: Instant) -> Vec<AccountId> {
        let accounts = self.with(now, |book| book.reconfigure(settings, shares));
        self.shared().changed.notify_waiters();
        accounts
    }

    /// Releases calls whose 24 h are over, a few accounts at a time; to be called every few seconds. Without it
    /// calls come back only when somebody would be refused for want of them: late, never early.
    pub fn tick(&self, now: Instant) {
        loop {
            let mut book = self.book();
            book.touch(now, &self.shared().timeline);
            let was = book.truth.footing();
            let done = book.sweep(SWEPT_AT_ONCE);
            let changed = was != book.truth.footing();
            drop(book);
            if changed {
                self.shared().changed.notify_waiters();
            }
            if done {
                return;
            }
        }
    }

    /// Stops admitting, for good. What is reserved may still be sent.
    pub fn stop(&self, now: Instant) {
        self.with(now, |book| {
            book.stopping = true;
            book.lease.give_up();
        });
        self.shared().changed.notify_waiters();
        self.shared().refill.notify_one();
    }

    /// Resolves when a call that was told to wait should ask again. Create it before asking, so that a change in
    /// between is not missed.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.shared().changed.notified()
    }

    /// When a denied call makes sense again; `None` if no time can be named.
    pub fn retry_after(&self, denied: Denied, account: impl Into<AccountId>, now: Instant) -> Option<Duration> {
        let time = self.shared().timeline.at(now);
        match denied.cause {
            Cause::AwaitProbe | Cause::AwaitReading | Cause::AwaitLease | Cause::Stopping => {
                return Some(Duration::from_secs(2));
            }
            Cause::BankLost => return Some(Duration::from_secs(10)),
            _ => {}
        }
        let when = self.with(now, |book| book.when(denied, account.into()))?;
        // Whole seconds, rounded up: that is what Retry-After can say.
        let wait = when.begins().saturating_sub(time);
        Some(Duration::from_secs(wait.as_millis().div_ceil(1_000).max(1) as u64))
    }

    /// How long ago Salesforce last said what is used, in whole minutes; `None` if it never did.
    pub fn reading_age(&self, now: Instant) -> Option<Duration> {
        self.with(now, |book| book.truth.age(book.now)).map(|minutes| Duration::from_mins(minutes.into()))
    }

    /// The ledger's time.
    pub fn timeline(&self) -> &Timeline {
        &self.shared().timeline
    }

    /// Resolves when the lease wants filling up.
    pub(super) fn refill(&self) -> tokio::sync::futures::Notified<'_> {
        self.shared().refill.notified()
    }

    pub(super) fn wake(&self) {
        self.shared().changed.notify_waiters();
    }

    /// What the bank has to know; `None` if there is nothing new or no bank.
    pub(super) fn statement(&self, now: Instant) -> Option<Statement> {
        let at = self.shared().timeline.at(now);
        self.with(now, |book| book.statement(at))
    }

    /// Takes in the bank's answer to a statement.
    pub(super) fn settled(&self, statement: &Statement, lease: &Lease, now: Instant) {
        if let Some(shared) = &lease.shared {
            self.push(shared.now, now);
        }
        let at = self.shared().timeline.at(now);
        self.with(now, |book| book.settled(statement, lease, at));
        self.wake();
    }

    /// The bank could not take a statement.
    pub(super) fn unsettled(&self, statement: &Statement, policy: OnLoss, now: Instant) {
        self.with(now, |book| book.unsettled(statement, policy));
        self.wake();
    }

    /// Runs `work` on the books at `now`.
    pub(super) fn with<T>(&self, now: Instant, work: impl FnOnce(&mut Book) -> T) -> T {
        let mut book = self.book();
        book.touch(now, &self.shared().timeline);
        book.post();
        work(&mut book)
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").finish_non_exhaustive()
    }
}

/// Calls set aside for one call about to be sent. Dropping it gives them back.
#[derive(Debug)]
#[must_use = "dropping a reservation refunds it"]
pub struct Reservation {
    /// `None` once spent or given back.
    held: Option<(Ledger, Pass)>,
}

/// The lease ended before the call was sent: it must not be sent. What was reserved is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseEnded;

impl Reservation {
    /// Counts the calls as sent at `now`. To be called right before the message is handed to a connection; if the
    /// connection gives it back unsent, [`Spent::unsent`] undoes it.
    pub fn spend(mut self, now: Instant) -> Result<Spent, LeaseEnded> {
        let Some((ledger, pass)) = self.held.take() else { return Err(LeaseEnded) };
        let mut book = ledger.book();
        book.touch(now, &ledger.shared().timeline);
        let minute = book.spend(&pass);
        drop(book);
        let Some(minute) = minute else {
            self.held = Some((ledger, pass));
            return Err(LeaseEnded);
        };
        Ok(Spent { ledger, pass, minute, open: true })
    }

    /// On what terms it was let in; `None` once spent or given back.
    pub fn terms(&self) -> Option<Terms> {
        self.held.as_ref().map(|(_, pass)| pass.terms)
    }

    /// Whether it goes beyond the caller's floor.
    pub fn borrowed(&self) -> bool {
        self.held.as_ref().is_some_and(|(_, pass)| pass.borrowed)
    }

    /// Why it would have been refused, if the ledger did not only observe.
    pub fn would_deny(&self) -> Option<Denied> {
        self.held.as_ref().and_then(|(_, pass)| pass.would_deny)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some((ledger, pass)) = self.held.take() {
            ledger.book().refund(&pass);
            if pass.probe {
                ledger.wake();
            }
        }
    }
}

/// A call that was handed to a connection. Dropping it leaves it charged in full.
#[derive(Debug)]
pub struct Spent {
    ledger: Ledger,
    pass: Pass,
    minute: Minute,
    /// Its answer is still to come.
    open: bool,
}

impl Spent {
    /// It was answered, and Salesforce charged `charged` calls for it; more than was reserved is not possible.
    pub fn answered(mut self, charged: ApiCalls, now: Instant) {
        self.open = false;
        let less = self.pass.cost.saturating_sub(charged.0);
        if less == 0 && !self.pass.probe {
            return;
        }
        let more = self.ledger.with(now, |book| {
            if less > 0 {
                book.charged_less(&self.pass, self.minute, less);
            }
            self.pass.probe && book.gate.passed()
        });
        if more {
            self.ledger.wake();
        }
    }

    /// The connection gave the message back: nothing was sent, nothing is charged.
    pub fn unsent(mut self, now: Instant) {
        self.open = false;
        self.ledger.with(now, |book| {
            book.charged_less(&self.pass, self.minute, self.pass.cost);
            if self.pass.probe {
                book.gate.unresolved();
            }
        });
        if self.pass.probe {
            self.ledger.wake();
        }
    }

    /// Salesforce refused it with `TotalRequests Limit exceeded`: the ledger closes at once. A refused request is
    /// not charged.
    pub fn limit_exceeded(mut self, charged: ApiCalls, now: Instant) {
        self.open = false;
        self.ledger.with(now, |book| {
            let less = self.pass.cost.saturating_sub(charged.0);
            if less > 0 {
                book.charged_less(&self.pass, self.minute, less);
            }
            book.gate.refused(book.now);
        });
    }
}

impl Drop for Spent {
    fn drop(&mut self) {
        if self.open && self.pass.probe {
            self.ledger.book().gate.unresolved();
            self.ledger.wake();
        }
    }
}
