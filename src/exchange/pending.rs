//! An exchange in the air: its message was handed to a connection and its head has not arrived.
//!
//! A caller may leave at any time, but Salesforce goes on working. So the exchange, dropped by its caller, moves to
//! the tracked tasks of this runtime and ends there: its record is completed and its connection given back.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode};
use tokio::time::Instant;

use super::body::UpstreamBody;
use super::conn::{Conn, GivenBack, Lent as _, Lost, in_runtime};
use super::connect::Origin;
use super::failure::{Cause, Failure};
use super::plan::Plan;
use super::pool::{Common, Stream};
use super::stats::Counters;
use crate::body::Payload;
use crate::call::ApiCalls;
use crate::hold::Hold;
use crate::outcome::{Exchange, FailureKind, Record};
use crate::salesforce::{Costs, LimitInfo, charged};

/// Says what the org has used (facts 1.7).
const LIMIT_INFO: &str = "sforce-limit-info";

/// The line of the record that belongs to one attempt, and what is held for it.
#[derive(Debug)]
pub(super) struct Attempt {
    record: Record,
    index: usize,
    hold: Option<Hold>,
}

impl Attempt {
    /// Writes down that a message is being handed over.
    pub(super) fn sent(record: &Record, now: Instant, cost: ApiCalls, hold: Option<Hold>) -> Self {
        let mut outcome = record.lock();
        let index = outcome.exchanges.len();
        outcome.exchanges.push(Exchange::sent(now, cost));
        drop(outcome);
        Self { record: record.clone(), index, hold }
    }

    /// The same line, to write to beside who holds the attempt.
    fn line(&self) -> Self {
        Self { record: self.record.clone(), index: self.index, hold: None }
    }

    /// The same attempt for whoever goes on with it.
    fn pass_on(&mut self) -> Self {
        Self { record: self.record.clone(), index: self.index, hold: self.hold.take() }
    }

    fn write(&self, write: impl FnOnce(&mut Exchange)) {
        if let Some(exchange) = self.record.lock().exchanges.get_mut(self.index) {
            write(exchange);
        }
    }

    /// The message was given back: nothing was sent, so nothing is charged.
    fn unsent(&self) {
        let mut outcome = self.record.lock();
        if self.index < outcome.exchanges.len() {
            outcome.exchanges.remove(self.index);
        }
    }

    /// The head came, and with it what the call cost; also if nobody waits for it any more.
    fn head(&self, now: Instant, status: StatusCode, price: Price) {
        self.write(|exchange| {
            exchange.head = Some(now);
            exchange.status = Some(status.as_u16());
            exchange.charged = charged(price.cost, status, &price.costs);
            if status.is_client_error() || status.is_server_error() {
                exchange.failure = Some(FailureKind::Status);
            }
        });
    }

    /// The last byte came.
    pub(super) fn ended(&mut self, now: Instant) {
        self.write(|exchange| exchange.ended = Some(now));
        if let Some(hold) = self.hold.take() {
            hold.ended(now);
        }
    }

    /// We cut it; Salesforce knows.
    pub(super) fn cut(&mut self, now: Instant) {
        self.write(|exchange| exchange.ended = Some(now));
        self.hold = None;
    }

    /// It broke off.
    pub(super) fn failed(&mut self, now: Instant, kind: Option<FailureKind>) {
        self.cut(now);
        self.write(|exchange| exchange.failure = kind);
    }

    /// Keeps what the answer says has been used: its caller has left, and nobody reads it.
    fn unread(&self, headers: &HeaderMap) {
        let said = headers.get(LIMIT_INFO).and_then(|value| LimitInfo::parse(value.as_bytes()).org);
        self.write(|exchange| exchange.unread = said);
    }

    /// Nobody will know when Salesforce is done with it.
    fn lost(&mut self, now: Instant) {
        if let Some(hold) = self.hold.take() {
            hold.lost(now);
        }
    }
}

/// What one exchange costs, by how it is answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Price {
    cost: ApiCalls,
    costs: Costs,
}

impl Price {
    pub(super) fn of(plan: &Plan) -> Self {
        Self { cost: plan.cost, costs: plan.costs }
    }
}

/// What one exchange may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    first_byte: Duration,
    pub(super) idle: Duration,
    pub(super) total_by: Instant,
    deadline: Option<Instant>,
    pub(super) read_ahead: usize,
    long_poll: bool,
}

impl Terms {
    pub(super) fn of(plan: &Plan) -> Self {
        Self {
            first_byte: plan.timeouts.first_byte,
            idle: plan.timeouts.idle,
            total_by: plan.now + plan.timeouts.total,
            deadline: plan.deadline,
            read_ahead: plan.read_ahead,
            long_poll: plan.long_poll,
        }
    }
}

/// How an exchange brought no head.
#[derive(Debug)]
pub(super) enum Broken<S> {
    /// The message was given back, and what was held for it: it can be sent again, for it was not sent.
    Unsent(GivenBack<S>, Option<Hold>),
    /// Anything else.
    Failed(Failure),
}

/// An exchange in the air.
pub(super) struct Pending<S: Stream> {
    /// `None` once it has ended.
    flight: Option<Box<Conn<S>>>,
    attempt: Attempt,
    price: Price,
    terms: Terms,
    /// When the head is due; moves while an upload does.
    head_by: Instant,
    upload_progress: u64,
    /// Its caller has left.
    abandoned: bool,
}

impl<S: Stream> Pending<S> {
    /// Hands `message`, of which the head may stay, to `conn` at `now`.
    pub(super) fn start(
        mut conn: Box<Conn<S>>,
        message: &mut Request<Payload<S>>,
        origin: &Origin,
        attempt: Attempt,
        price: Price,
        terms: Terms,
        now: Instant,
    ) -> Self {
        conn.send(message, origin);
        Self {
            flight: Some(conn),
            attempt,
            price,
            terms,
            head_by: now + terms.first_byte,
            upload_progress: 0,
            abandoned: false,
        }
    }

    /// The next moment at which waiting may be over.
    fn due(&self) -> Instant {
        let due = self.head_by.min(self.terms.total_by);
        self.terms.deadline.map_or(due, |deadline| deadline.min(due))
    }

    /// What the passing of [`Self::due`] means; `None` if the upload moved on, and the head is due later now.
    fn overdue(&mut self, conn: &Conn<S>) -> Option<Cause> {
        let due = self.due();
        if due == self.terms.total_by {
            return Some(Cause::Total);
        }
        if self.terms.deadline == Some(due) {
            return Some(Cause::Deadline);
        }
        let progress = conn.progress();
        if progress == self.upload_progress {
            return Some(Cause::FirstByte);
        }
        self.upload_progress = progress;
        self.head_by = due + self.terms.first_byte;
        None
    }

    /// Turns what the connection says into an answer, or says what it means that there is none.
    fn land(
        &mut self,
        conn: Box<Conn<S>>,
        said: Result<Response<()>, Lost<S>>,
    ) -> Result<Response<UpstreamBody>, Broken<S>> {
        let Some(common) = conn.common() else {
            return Err(Broken::Failed(Failure::maybe_sent(Cause::Reset, "The connection was taken away.")));
        };
        let now = common.clock.now();
        match said {
            Ok(response) => {
                self.attempt.head(now, response.status(), self.price);
                let (attempt, terms) = (self.attempt.pass_on(), self.terms);
                Ok(response.map(|()| UpstreamBody::new(conn, attempt, terms, now)))
            }
            Err(Lost::Refused(why)) => {
                self.attempt.unsent();
                Counters::add(&common.counters.tls);
                let detail = format!("No TLS connection to {}: {why}.", common.origin.host());
                Err(Broken::Failed(Failure::unsent(Cause::Tls, detail)))
            }
            Err(Lost::Unsent(message)) => {
                self.attempt.unsent();
                Err(Broken::Unsent(message, self.attempt.hold.take()))
            }
            Err(Lost::Failed(cause, sent)) => {
                self.attempt.failed(now, cause.kind());
                Err(Broken::Failed(Failure { sent, ..describe(common, cause) }))
            }
        }
    }
}

impl<S: Stream> Future for Pending<S> {
    type Output = Result<Response<UpstreamBody>, Broken<S>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Some(mut conn) = this.flight.take() else { return Poll::Pending };
        if let Poll::Ready(said) = conn.poll_head(cx) {
            return Poll::Ready(this.land(conn, said));
        }
        while conn.timer.poll(cx, this.due()).is_ready() {
            let Some(cause) = this.overdue(&conn) else { continue };
            let failure = conn.common().map(|common| (describe(common, cause), common.clock.now()));
            if cause == Cause::Deadline {
                // Only this caller has no more time: it leaves, the exchange goes on.
                this.flight = Some(conn);
                this.leave();
            } else if let Some((_, now)) = failure {
                this.attempt.lost(now);
                this.attempt.failed(now, cause.kind());
            }
            let failure =
                failure.map_or_else(|| Failure::maybe_sent(cause, "No answer in time."), |(failure, _)| failure);
            return Poll::Ready(Err(Broken::Failed(failure)));
        }
        this.flight = Some(conn);
        Poll::Pending
    }
}

impl<S: Stream> Pending<S> {
    /// Its caller leaves: the exchange goes on without it, unless that is not to be.
    fn leave(&mut self) {
        let Some(conn) = self.flight.take() else { return };
        let Some(common) = conn.common().cloned() else { return };
        let now = common.clock.now();
        let works_on = !self.terms.long_poll && conn.uploaded();
        let goes_on = works_on && !self.abandoned && now < self.terms.total_by;
        let Some(place) = goes_on.then(|| Abandoned::enter(&common)).flatten() else {
            Counters::add(&common.counters.cut);
            if works_on {
                self.attempt.lost(now);
            }
            self.attempt.cut(now);
            return;
        };
        if let Some(hold) = &self.attempt.hold {
            hold.left(now);
        }
        let orphan = Self {
            flight: Some(conn),
            attempt: self.attempt.pass_on(),
            price: self.price,
            terms: Terms { deadline: None, read_ahead: 0, ..self.terms },
            head_by: self.terms.total_by,
            upload_progress: 0,
            abandoned: true,
        };
        common.tasks.spawn(async move {
            let _place = place;
            let attempt = orphan.attempt.line();
            if let Ok(response) = orphan.await {
                attempt.unread(response.headers());
                response.into_body().drain().await;
            }
        });
    }
}

impl<S: Stream> Drop for Pending<S> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A place among the exchanges that go on without their callers.
struct Abandoned(Arc<Common>);

impl Abandoned {
    fn enter(common: &Arc<Common>) -> Option<Self> {
        if !in_runtime() {
            return None;
        }
        let bound = common.limits.abandoned;
        common
            .counters
            .abandoned_running
            .try_update(Ordering::AcqRel, Ordering::Acquire, |running| (running < bound).then_some(running + 1))
            .ok()?;
        Counters::add(&common.counters.abandoned);
        Some(Self(Arc::clone(common)))
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.0.counters.abandoned_running.fetch_sub(1, Ordering::AcqRel);
    }
}

fn describe(common: &Common, cause: Cause) -> Failure {
    let host = common.origin.host();
    let detail = match cause {
        Cause::FirstByte => format!("{host} did not begin to answer in time (first_byte)."),
        Cause::Total => format!("{host} did not answer in time (total)."),
        Cause::Deadline => format!("The caller's deadline passed before {host} answered."),
        Cause::Garbage => format!("What came from {host} is not an HTTP answer."),
        Cause::Upload(fault) => format!("The request was not passed on to {host} whole: {fault}."),
        _ => format!("The connection to {host} broke before it answered."),
    };
    Failure::maybe_sent(cause, detail)
}
