//! Circuit breakers: who is not well is left alone, asked carefully whether it is well again, and loaded slowly.
//!
//! A [`Breaker`] is closed (calls pass, and are counted), open (none passes), or half-open: first one probe that costs
//! nothing, then one real call, then a ramp up to the rate there was before. Calls that stand in a queue hold a
//! [`Ticket`], whose epoch is over as soon as the breaker opens, so that they do not burst into it afterwards.
//!
//! While it is closed a call costs two loads and an addition; only failures, and every 64th call, take its lock.

mod state;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use self::state::Core;
use crate::call::{Class, closed_list};

/// Every how many calls the books are brought up to date.
const STEP: u32 = 64;

closed_list! {
    /// What a breaker does.
    BreakerState {
        /// Calls pass.
        Closed = "closed",
        /// Calls are refused.
        Open = "open",
        /// A few calls pass, to find out.
        HalfOpen = "half_open",
    }
}

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// The time it looks back.
    pub window: Duration,
    /// Calls there must be in it.
    pub minimum: u32,
    /// Of which this many percent must have failed.
    pub ratio: u32,
    /// How long it stays open the first time.
    pub open: Duration,
    /// How long at most, if it does not get better: each time is twice as long as the last.
    pub open_max: Duration,
    /// How long it takes to come back to the usual rate.
    pub ramp: Duration,
}

/// The right to make one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ticket {
    epoch: u32,
    /// Whether it is the one that finds out.
    probe: bool,
}

/// What a call is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// It may go.
    Go(Ticket),
    /// It may go if something that costs nothing is answered first: [`Breaker::probed`].
    Probe(Ticket),
    /// It may not, for about this long.
    Shut(Duration),
}

/// What became of a call, as far as a breaker cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// It was answered, well or with an error that says that Salesforce is well.
    Well,
    /// It was answered in a way that says that Salesforce is not well, or not at all.
    Ill,
    /// It says nothing: it was not sent, or refused for a reason of its own.
    Nothing,
}

/// What a breaker does at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Its state.
    pub state: BreakerState,
    /// An operator holds it open.
    pub by_hand: bool,
    /// How often it has opened.
    pub opened: u64,
    /// When it lets a probe pass, if it is open.
    pub finds_out_in: Option<Duration>,
}

/// One breaker.
#[derive(Debug)]
pub struct Breaker {
    /// The epoch, twice, and 1 more unless it is closed.
    word: AtomicU32,
    /// Calls that went well and are not booked yet.
    well: AtomicU32,
    core: Mutex<Core>,
}

impl Breaker {
    /// A closed one.
    pub fn new(settings: BreakerSettings, now: Instant) -> Self {
        Self { word: AtomicU32::new(0), well: AtomicU32::new(0), core: Mutex::new(Core::new(settings, now)) }
    }

    /// May a call of `class` be made at `now`?
    #[inline]
    pub fn ask(&self, class: Class, now: Instant) -> Pass {
        let word = self.word.load(Ordering::Acquire);
        if word & 1 == 0 {
            return Pass::Go(Ticket { epoch: word >> 1, probe: false });
        }
        self.change(|core, _| core.ask(class, now))
    }

    /// Whether a call of `class` that has waited may still go at `now`: nothing has broken meanwhile, or it is whole again, or
    /// being loaded and this one's turn.
    #[inline]
    pub fn is_good(&self, ticket: Ticket, class: Class, now: Instant) -> bool {
        let word = self.word.load(Ordering::Acquire);
        word >> 1 == ticket.epoch || word & 1 == 0 || self.core.lock().lets_in(class, now)
    }

    /// What became of the call with `ticket`; says what the breaker does now, if that is news. The clock is read only if
    /// somebody has to know.
    #[inline]
    pub fn report(&self, ticket: Ticket, sample: Sample, now: impl FnOnce() -> Instant) -> Option<BreakerState> {
        if self.word.load(Ordering::Acquire) & 1 == 0 {
            match sample {
                Sample::Well if self.well.fetch_add(1, Ordering::Relaxed) % STEP != STEP - 1 => return None,
                Sample::Nothing => return None,
                Sample::Well => {
                    self.change(|core, well| core.book(well, now()));
                    return None;
                }
                Sample::Ill => {}
            }
        }
        self.change(|core, well| {
            let now = now();
            core.book(well, now);
            core.report(ticket, sample, now)
        })
    }

    /// What became of the probe that costs nothing. If it went well, the call with `ticket` is made, and
    /// [`Self::report`]ed.
    pub fn probed(&self, ticket: Ticket, well: bool, now: Instant) -> Option<BreakerState> {
        if well { None } else { self.change(|core, _| core.report(ticket, Sample::Ill, now)) }
    }

    /// Holds it open until it is [`Self::close`]d, or for `length`: then it finds out how Salesforce is.
    pub fn hold(&self, length: Option<Duration>, now: Instant) -> Option<BreakerState> {
        self.change(|core, _| core.hold(length, now))
    }

    /// Closes it, whatever it did.
    pub fn close(&self, now: Instant) -> Option<BreakerState> {
        self.change(|core, _| core.close(now))
    }

    /// Whether it is not closed, or calls failed lately.
    pub fn is_in_trouble(&self, now: Instant) -> bool {
        self.core.lock().is_in_trouble(now)
    }

    /// Whether an operator holds it open.
    pub fn is_held(&self) -> bool {
        self.core.lock().is_held()
    }

    /// Other settings. What is open stays so, for as long as was said when it opened.
    pub fn reconfigure(&self, settings: BreakerSettings) {
        self.core.lock().reconfigure(settings);
    }

    fn change<T>(&self, change: impl FnOnce(&mut Core, u32) -> T) -> T {
        let mut core = self.core.lock();
        let told = change(&mut core, self.well.swap(0, Ordering::Relaxed));
        // 31 bits of epoch are enough for tickets, which live for minutes.
        self.word.store(core.epoch << 1 | u32::from(core.state() != BreakerState::Closed), Ordering::Release);
        told
    }

    /// What it does at `now`.
    pub fn view(&self, now: Instant) -> View {
        self.core.lock().view(now)
    }
}

#[cfg(test)]
mod tests;
