//! A call's turn: may it be in the air now, how it waits if not, and what it is told if it waits in vain.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::admission::slots::{Admitted, Ask, Busy, Entered, Ticket, is_weightless, presumed};
use crate::call::{Call, Class, Length};
use crate::clock::Clock;
use crate::hold::Hold;
use crate::live::LiveOrg;
use crate::outcome::{Queued, Record};
use crate::refusal::{Reason, Refusal};
use crate::salesforce;
use crate::stages::Passage;
use crate::stages::admit::{self, Fare};

/// May this call be in the air?
pub(super) fn enter(org: &LiveOrg, passage: &Passage) -> Entered {
    let Passage { call, head, live, now, .. } = passage;
    let Call { class, deadline, ref meaning, .. } = *call;
    if !org.watches || is_weightless(meaning) {
        return Entered::Free(Admitted { hold: None, length: Length::Short, would_wait: false });
    }
    let (weight, caller_at_most) =
        live.caller(call.caller).map_or((1, None), |caller| (caller.weight, caller.in_flight));
    let path = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let ask = Ask {
        fingerprint: salesforce::fingerprint(meaning, path, org.slots.key()),
        account: org.account(call.caller),
        weight,
        caller_at_most,
        class,
        family: meaning.family,
        template: meaning.template,
        deadline,
    };
    org.slots.enter(&ask, || presumed(class, meaning), *now)
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

/// Waits for whatever the call needs: its turn, if it has a ticket, and the right to spend. Both are had together when it
/// goes on.
pub(super) async fn wait(
    passage: &mut Passage,
    mut fare: Fare,
    ticket: Option<Ticket>,
    clock: Clock,
) -> Result<(), Refusal> {
    let live = Arc::clone(&passage.live);
    let Some(org) = live.org(passage.call.org) else {
        return Err(Refusal::new(Reason::UnknownOrg, "The org was removed from the configuration."));
    };
    let ticket = if let Some(ticket) = ticket {
        Some(ticket)
    } else {
        admit::funds(passage, &mut fare, org, clock).await?;
        match enter(org, passage) {
            Entered::Free(admitted) => {
                board(admitted, &mut fare, &passage.record);
                None
            }
            Entered::Waits(ticket) => Some(ticket),
            Entered::Busy(length, busy) => return Err(refusal(&passage.call, org, length, busy)),
        }
    };
    if let Some(ticket) = ticket {
        // While it waits, others may have the calls set aside for it.
        fare.release();
        fare.hold = Some(queue(passage, org, ticket, clock).await?);
        passage.now = clock.now();
        admit::funds(passage, &mut fare, org, clock).await?;
    }
    passage.fare = Some(fare);
    Ok(())
}

async fn queue(passage: &Passage, org: &LiveOrg, mut ticket: Ticket, clock: Clock) -> Result<Hold, Refusal> {
    let (position, length) = (ticket.position, ticket.length);
    let _measured = Measured { record: &passage.record, clock, since: passage.now, position, length };
    ticket.granted(clock).await.map_err(|busy| refusal(&passage.call, org, length, busy))
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
        (Busy::Full | Busy::Shed, _) => Reason::QueueFull,
        (_, Length::Long) => Reason::SlotsBusy,
        (_, Length::Short) => Reason::CallsInFlight,
    }
}

/// The answer to a call that cannot wait, or has waited in vain.
pub(super) fn refusal(call: &Call, org: &LiveOrg, length: Length, busy: Busy) -> Refusal {
    let (name, class) = (&org.name, call.class);
    let mut detail = match (busy, length) {
        (Busy::Full, _) => format!("As many calls wait for {name} as may."),
        (Busy::Shed, _) => format!("So many calls wait for {name} that those of class {class} are not taken now."),
        (_, Length::Long) => {
            let (effective, slots, after) = org.slots.extent();
            let after = after.as_secs_f64();
            let others = if effective < slots {
                format!(" (others seem to use {} of {slots})", slots - effective)
            } else {
                String::new()
            };
            format!(
                "All slots of {name} that calls of class {class} may hold are held by calls that run {after} s or longer{others}."
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
        Busy::Full | Busy::Shed => {}
    }
    Refusal::new(reason(length, busy), detail).retry_after(back)
}
