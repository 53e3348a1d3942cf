//! A call's turn: may it be in the air now, how it waits if not, and what it is told if it waits in vain.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::admission::slots::{Admitted, Ask, Busy, Entered, Slots, Ticket, is_weightless, presumed};
use crate::answers::Urgency;
use crate::call::{Call, Class, Family, Length};
use crate::clock::Clock;
use crate::edge::Drain;
use crate::hold::Hold;
use crate::live::LiveOrg;
use crate::outcome::{Queued, Record};
use crate::refusal::{Reason, Refusal};
use crate::salesforce;
use crate::stages::Passage;
use crate::stages::admit::{self, Fare};

/// What a call has to pass, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// The org's limit for Apex that runs long, if that is guarded.
    Apex,
    /// The org's limit for calls that run long.
    Org,
}

impl Door {
    fn slots(self, org: &LiveOrg) -> &Slots {
        match (self, &org.apex) {
            (Self::Apex, Some(apex)) => apex,
            _ => &org.slots,
        }
    }
}

/// A call that waits before a door, with what it holds of the doors behind it.
pub(super) struct Turn {
    door: Door,
    ticket: Ticket,
    behind: Option<Hold>,
}

/// What became of a call that asked.
pub(super) enum Passed {
    /// It may be sent.
    Free(Admitted),
    /// It has to wait.
    Waits(Turn),
    /// It may not even wait.
    Busy(Door, Length, Busy),
}

/// Makes a call as urgent as those are who wait for its answer.
pub(super) fn hurry(passage: &mut Passage) {
    if let Some(urgency) = &passage.urgency {
        passage.call.class = urgency.asks(passage.call.class);
    }
}

/// May this call be in the air?
pub(super) fn enter(org: &LiveOrg, passage: &Passage) -> Passed {
    if !org.watches || is_weightless(&passage.call.meaning) {
        return Passed::Free(Admitted { hold: None, length: Length::Short, would_wait: false });
    }
    let apex = org.apex.is_some() && passage.call.meaning.family == Family::Apex;
    pass(org, passage, if apex { Door::Apex } else { Door::Org }, None)
}

/// Asks at `door` and at those that follow; `behind` is what it holds of those behind it.
fn pass(org: &LiveOrg, passage: &Passage, door: Door, behind: Option<Hold>) -> Passed {
    let Passage { call, head, live, now, .. } = passage;
    let Call { class, deadline, ref meaning, .. } = *call;
    let (weight, caller_at_most) =
        live.caller(call.caller).map_or((1, None), |caller| (caller.weight, caller.in_flight));
    let path = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let slots = door.slots(org);
    let ask = Ask {
        fingerprint: salesforce::fingerprint(meaning, path, slots.key()),
        account: org.account(call.caller),
        weight,
        caller_at_most: caller_at_most.filter(|_| door == Door::Org),
        class,
        family: meaning.family,
        template: meaning.template,
        deadline,
    };
    match slots.enter(&ask, || presumed(class, meaning), *now) {
        Entered::Free(Admitted { hold, length, would_wait }) => {
            let hold = hold.map(|own| own.beside(behind));
            match door {
                Door::Org => Passed::Free(Admitted { hold, length, would_wait }),
                Door::Apex => match pass(org, passage, Door::Org, hold) {
                    Passed::Free(admitted) => {
                        Passed::Free(Admitted { would_wait: would_wait || admitted.would_wait, ..admitted })
                    }
                    other => other,
                },
            }
        }
        Entered::Waits(ticket) => Passed::Waits(Turn { door, ticket, behind }),
        Entered::Busy(length, busy) => Passed::Busy(door, length, busy),
    }
}

/// Gives an admitted call what it holds, and writes down what was expected of it.
pub(super) fn board(admitted: Admitted, fare: &mut Fare, record: &Record) {
    let Admitted { hold, length, would_wait } = admitted;
    fare.hold = hold;
    if length == Length::Long || would_wait {
        let mut outcome = record.lock();
        outcome.length = length;
        if would_wait {
            outcome.would_refuse = Some(reason(length, Busy::Waited));
        }
    }
}

/// Waits for whatever the call needs: its turn, if it is one that waits, and the right to spend. Both are had together when it
/// goes on.
pub(super) async fn wait(
    passage: &mut Passage,
    mut fare: Fare,
    turn: Option<Turn>,
    clock: Clock,
    drain: &Drain,
) -> Result<(), Refusal> {
    let live = Arc::clone(&passage.live);
    let Some(org) = live.org(passage.call.org) else {
        return Err(Refusal::new(Reason::UnknownOrg, "The org was removed from the configuration."));
    };
    let mut passed = if let Some(turn) = turn {
        Passed::Waits(turn)
    } else {
        admit::funds(passage, &mut fare, org, clock).await?;
        hurry(passage);
        enter(org, passage)
    };
    loop {
        match passed {
            Passed::Free(admitted) => {
                board(admitted, &mut fare, &passage.record);
                break;
            }
            Passed::Busy(door, length, busy) => {
                passage.record.lock().length = length;
                return Err(refusal(&passage.call, org, door, length, busy));
            }
            Passed::Waits(turn) => {
                // While it waits, others may have the calls set aside for it.
                fare.release();
                passed = queue(passage, org, turn, clock, drain).await?;
            }
        }
    }
    if !fare.is_reserved() {
        admit::funds(passage, &mut fare, org, clock).await?;
    }
    passage.fare = Some(fare);
    Ok(())
}

/// Waits before one door; what became of it there and behind it.
async fn queue(
    passage: &mut Passage,
    org: &LiveOrg,
    turn: Turn,
    clock: Clock,
    drain: &Drain,
) -> Result<Passed, Refusal> {
    let Turn { door, mut ticket, behind } = turn;
    let (position, length) = (ticket.position, ticket.length);
    let measured = Measured { record: &passage.record, clock, since: passage.now, position, length };
    let granted = tokio::select! {
        biased;
        granted = ticket.granted(clock) => granted.map_err(|busy| refusal(&passage.call, org, door, length, busy)),
        () = ends(drain, length) => Err(too_long_to_begin()),
        class = raised(passage.urgency.as_deref(), passage.call.class) => {
            drop(measured);
            drop(ticket);
            (passage.now, passage.call.class) = (clock.now(), class);
            return Ok(pass(org, passage, door, behind));
        }
    };
    drop(measured);
    passage.now = clock.now();
    let hold = granted?.beside(behind);
    Ok(match door {
        Door::Org => Passed::Free(Admitted { hold: Some(hold), length, would_wait: false }),
        Door::Apex => pass(org, passage, Door::Org, Some(hold)),
    })
}

/// Ready when somebody more urgent waits for the answer of a call of this class, with the class it goes by then.
async fn raised(urgency: Option<&Urgency>, class: Class) -> Class {
    match urgency {
        Some(urgency) => urgency.above(class).await,
        None => std::future::pending().await,
    }
}

/// Ready when a drain makes it senseless to wait: a call that runs long would be cut when the drain is over, and nobody would
/// know what it has done. One that runs short has time.
async fn ends(drain: &Drain, length: Length) {
    match length {
        Length::Long => drain.wait().await,
        Length::Short => std::future::pending().await,
    }
}

fn too_long_to_begin() -> Refusal {
    Refusal::new(Reason::Draining, "The call was not sent, because it is likely to run longer than the gateway.")
}

/// Writes down how long a call waited, however that ended.
struct Measured<'a> {
    record: &'a Record,
    clock: Clock,
    since: Instant,
    position: usize,
    length: Length,
}

impl Drop for Measured<'_> {
    fn drop(&mut self) {
        let now = self.clock.now();
        let mut outcome = self.record.lock();
        let position = self.position;
        let queued = outcome.queued.get_or_insert(Queued { wait: Duration::ZERO, position });
        queued.wait += now.saturating_duration_since(self.since);
        outcome.length = self.length;
    }
}

fn reason(length: Length, busy: Busy) -> Reason {
    match (busy, length) {
        (Busy::Full | Busy::Crowds | Busy::Shed, _) => Reason::QueueFull,
        (_, Length::Long) => Reason::SlotsBusy,
        (_, Length::Short) => Reason::CallsInFlight,
    }
}

/// The answer to a call that cannot wait, or has waited in vain.
pub(super) fn refusal(call: &Call, org: &LiveOrg, door: Door, length: Length, busy: Busy) -> Refusal {
    let (name, class) = (&org.name, call.class);
    let mut detail = match (busy, length) {
        (Busy::Full, _) => format!("As many calls wait for {name} as may."),
        (Busy::Shed, _) => format!("So many calls wait for {name} that those of class {class} are not taken now."),
        (Busy::Crowds, _) => {
            format!(
                "So many calls wait for {name} that each caller may take only an equal part of the places, and this one has."
            )
        }
        (_, Length::Long) => {
            let (effective, slots, after) = door.slots(org).extent();
            let (after, what) = (after.as_secs_f64(), if door == Door::Apex { "Apex calls" } else { "calls" });
            let others = if effective < slots {
                format!(" (others seem to use {} of {slots})", slots - effective)
            } else {
                String::new()
            };
            format!(
                "All slots of {name} that calls of class {class} may hold are held by {what} that run {after} s or longer{others}."
            )
        }
        (_, Length::Short) => format!("As many calls are in the air to {name} as may be."),
    };
    let shortly = match class {
        Class::Interactive => 2..=5,
        Class::Standard => 5..=15,
        Class::Batch => 15..=45,
    };
    // All who are refused should not return at once.
    let mut back = Duration::from_secs(fastrand::u64(shortly));
    match busy {
        Busy::WouldTake(wait) => {
            let seconds = wait.as_secs().max(1);
            let _ = write!(detail, " This call would wait about {seconds} s, longer than it has.");
            back = Duration::from_secs(seconds + fastrand::u64(0..=seconds / 4));
        }
        Busy::Waited => detail.push_str(" It waited for as long as it may."),
        Busy::Full | Busy::Crowds | Busy::Shed => {}
    }
    Refusal::new(reason(length, busy), detail).retry_after(back)
}
