//! Circuit breakers: who is not well is left alone, asked carefully whether it is well again, and loaded slowly.
//!
//! A [`Breaker`] is closed (calls pass, and are counted), open (none passes), or half-open: first one probe that costs
//! nothing, then one real call, then a ramp up to the rate there was before. Calls that stand in a queue hold a
//! [`Ticket`], whose epoch is over as soon as the breaker opens, so that they do not burst into it afterwards.
//!
//! While it is closed a call costs two loads and an addition; only failures, and every 64th call, take its lock.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::call::{Class, closed_list};

/// Pieces of the window; what is older than the window is forgotten piece by piece.
const PIECES: u32 = 10;
/// A probe that was not heard of for this long has failed.
const PROBE: Duration = Duration::from_secs(60);
/// How long the usual rate is remembered, about.
const USUAL_SECONDS: f64 = 30.0;
/// The fastest at the end of a ramp, in shares of the usual rate.
const FASTEST: f64 = 1.1;
/// A ramp that is over, and still holds calls back, lasts this many times as long: then more calls are usual.
const LONGEST_RAMP: u32 = 4;
/// Failures among the calls of a ramp that open it again, at least.
const RAMP_FAILURES: u32 = 3;
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

impl Default for BreakerSettings {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { window: seconds(10), minimum: 20, ratio: 50, open: seconds(5), open_max: seconds(60), ramp: seconds(30) }
    }
}

/// The right to make one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// One breaker.
#[derive(Debug)]
pub struct Breaker {
    /// The epoch, twice, and 1 more unless it is closed.
    word: AtomicU32,
    /// Calls that went well and are not booked yet.
    well: AtomicU32,
    core: Mutex<Core>,
}

#[derive(Debug)]
struct Core {
    settings: BreakerSettings,
    state: State,
    epoch: u32,
    start: Instant,
    booked: Instant,
    pieces: [Piece; PIECES as usize],
    /// Calls in a second, as they usually are, and how much of the past is known of; both fade together.
    usual: (f64, f64),
    opened: u64,
}

/// What happened in one piece of the window; `at` says in which.
#[derive(Debug, Clone, Copy, Default)]
struct Piece {
    at: u64,
    well: u32,
    ill: u32,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed,
    Open {
        until: Instant,
        /// How often it has opened since it was last well.
        times: u32,
    },
    Probing {
        since: Instant,
        times: u32,
    },
    Ramp {
        since: Instant,
        times: u32,
        /// Calls that may go now.
        tokens: f64,
        filled: Instant,
        refused: Option<Instant>,
        well: u32,
        ill: u32,
    },
}

impl Breaker {
    /// A closed one.
    pub fn new(settings: BreakerSettings, now: Instant) -> Self {
        let core = Core {
            settings,
            state: State::Closed,
            epoch: 0,
            start: now,
            booked: now,
            pieces: [Piece::default(); PIECES as usize],
            usual: (0.0, 0.0),
            opened: 0,
        };
        Self { word: AtomicU32::new(0), well: AtomicU32::new(0), core: Mutex::new(core) }
    }

    /// May a call of `class` be made at `now`?
    #[inline]
    pub fn ask(&self, class: Class, now: Instant) -> Pass {
        let word = self.word.load(Ordering::Acquire);
        if word & 1 == 0 {
            return Pass::Go(Ticket { epoch: word >> 1, probe: false });
        }
        self.core.lock().ask(class, now)
    }

    /// Whether a call that waited may still go.
    pub fn is_valid(&self, ticket: Ticket) -> bool {
        self.word.load(Ordering::Acquire) >> 1 == ticket.epoch
    }

    /// What became of the call with `ticket`; says what the breaker does now, if that has changed.
    #[inline]
    pub fn report(&self, ticket: Ticket, sample: Sample, now: Instant) -> Option<BreakerState> {
        let closed = self.word.load(Ordering::Acquire) & 1 == 0;
        if closed && sample == Sample::Well {
            if self.well.fetch_add(1, Ordering::Relaxed) % STEP != STEP - 1 {
                return None;
            }
            let mut core = self.core.lock();
            core.book(self.well.swap(0, Ordering::Relaxed), now);
            return None;
        }
        if closed && sample == Sample::Nothing {
            return None;
        }
        self.change(|core, well| {
            core.book(well, now);
            core.report(ticket, sample, now);
        })
    }

    /// What became of the probe that costs nothing. If it went well, the call with `ticket` is made, and
    /// [`Self::report`]ed.
    pub fn probed(&self, ticket: Ticket, well: bool, now: Instant) -> Option<BreakerState> {
        if well { None } else { self.change(|core, _| core.report(ticket, Sample::Ill, now)) }
    }

    fn change(&self, change: impl FnOnce(&mut Core, u32)) -> Option<BreakerState> {
        let mut core = self.core.lock();
        let before = core.state();
        change(&mut core, self.well.swap(0, Ordering::Relaxed));
        let after = core.state();
        // 31 bits of epoch are enough for tickets, which live for minutes.
        self.word.store(core.epoch << 1 | u32::from(after != BreakerState::Closed), Ordering::Release);
        (before != after).then_some(after)
    }

    /// What it does at present, how often it has opened, and when it lets a probe pass.
    pub fn view(&self, now: Instant) -> (BreakerState, u64, Option<Duration>) {
        let core = self.core.lock();
        let again = match core.state {
            State::Open { until, .. } => Some(until.saturating_duration_since(now)),
            _ => None,
        };
        (core.state(), core.opened, again)
    }
}

impl Core {
    fn state(&self) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::Probing { .. } | State::Ramp { .. } => BreakerState::HalfOpen,
        }
    }

    fn enter(&mut self, state: State) {
        self.opened += u64::from(self.state() != BreakerState::Open && matches!(state, State::Open { .. }));
        self.state = state;
    }

    fn ask(&mut self, class: Class, now: Instant) -> Pass {
        let ticket = |core: &Self, probe| Ticket { epoch: core.epoch, probe };
        match self.state {
            State::Closed => Pass::Go(ticket(self, false)),
            State::Open { until, times } if now >= until => {
                self.state = State::Probing { since: now, times };
                Pass::Probe(ticket(self, true))
            }
            State::Open { until, .. } => Pass::Shut(until.saturating_duration_since(now)),
            State::Probing { since, times } if now >= since + PROBE => {
                self.open(times, now);
                Pass::Shut(self.settings.open)
            }
            State::Probing { .. } => Pass::Shut(Duration::from_secs(1)),
            State::Ramp { .. } => {
                let passes = self.ramp(class, now);
                if passes { Pass::Go(ticket(self, false)) } else { Pass::Shut(Duration::from_secs(1)) }
            }
        }
    }

    /// How far a ramp has come, from 0 to 1.
    fn progress(&self, since: Instant, now: Instant) -> f64 {
        let ramp = self.settings.ramp.as_secs_f64().max(0.001);
        (now.saturating_duration_since(since).as_secs_f64() / ramp).min(1.0)
    }

    /// Whether a call of `class` may go during a ramp: interactive calls first, and all together only as fast as the ramp
    /// allows.
    fn ramp(&mut self, class: Class, now: Instant) -> bool {
        let State::Ramp { since, times, mut tokens, filled, mut refused, well, ill } = self.state else { return true };
        // Calls are asked about in another order than they came.
        let now = now.max(filled);
        let progress = self.progress(since, now);
        let usual = if self.usual.1 > 0.0 { self.usual.0 / self.usual.1 } else { 0.0 };
        let rate = (usual * FASTEST * (0.1 + 0.9 * progress)).max(1.0);
        tokens += rate * now.saturating_duration_since(filled).as_secs_f64();
        tokens = tokens.min((rate / 5.0).max(1.0));
        let turn = match class {
            Class::Interactive => 0.0,
            Class::Standard => 0.25,
            Class::Batch => 0.5,
        };
        let passes = progress >= turn && tokens >= 1.0;
        if passes {
            tokens -= 1.0;
        } else if progress >= turn {
            refused = Some(now);
        }
        self.state = State::Ramp { since, times, tokens, filled: now, refused, well, ill };
        passes
    }

    fn report(&mut self, ticket: Ticket, sample: Sample, now: Instant) {
        // What began before it opened says nothing of how it is now.
        if ticket.epoch != self.epoch {
            return;
        }
        match self.state {
            State::Closed => {
                if sample == Sample::Ill {
                    self.piece(now).ill += 1;
                    let (well, ill) = self.window(now);
                    let all = u64::from(well) + u64::from(ill);
                    let enough = all >= u64::from(self.settings.minimum);
                    if enough && u64::from(ill) * 100 >= all * u64::from(self.settings.ratio) {
                        self.open(0, now);
                    }
                }
            }
            State::Probing { times, .. } if ticket.probe => match sample {
                Sample::Ill => self.open(times, now),
                Sample::Well => {
                    self.enter(State::Ramp {
                        since: now,
                        times,
                        tokens: 1.0,
                        filled: now,
                        refused: None,
                        well: 0,
                        ill: 0,
                    });
                }
                // The next call finds out.
                Sample::Nothing => self.state = State::Open { until: now, times },
            },
            State::Ramp { since, times, tokens, filled, refused, well, ill } => {
                let (well, ill) = match sample {
                    Sample::Well => (well.saturating_add(1), ill),
                    Sample::Ill => (well, ill.saturating_add(1)),
                    Sample::Nothing => (well, ill),
                };
                let all = u64::from(well) + u64::from(ill);
                if ill >= RAMP_FAILURES && u64::from(ill) * 100 >= all * u64::from(self.settings.ratio) {
                    return self.open(times, now);
                }
                self.state = State::Ramp { since, times, tokens, filled, refused, well, ill };
                let over = since + self.settings.ramp;
                // Closed, it would let pass all at once who are still held back.
                let calm = refused.is_none_or(|refused| now >= refused + self.settings.ramp / 6);
                if now >= over && (calm || now >= over + self.settings.ramp * LONGEST_RAMP) {
                    self.well_again(now);
                }
            }
            State::Probing { .. } | State::Open { .. } => {}
        }
    }

    fn open(&mut self, times: u32, now: Instant) {
        let twice = self.settings.open.saturating_mul(1_u32.checked_shl(times.min(16)).unwrap_or(u32::MAX));
        self.enter(State::Open { until: now + twice.min(self.settings.open_max), times: times.saturating_add(1) });
        self.epoch = self.epoch.wrapping_add(1) & (u32::MAX >> 1);
    }

    fn well_again(&mut self, now: Instant) {
        self.state = State::Closed;
        self.pieces = [Piece::default(); PIECES as usize];
        self.booked = now;
    }

    fn length(&self) -> u128 {
        (self.settings.window.as_millis() / u128::from(PIECES)).max(1)
    }

    fn place(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.start).as_millis() / self.length();
        // Counted from 1: what is 0 has never been.
        u64::try_from(passed).unwrap_or(u64::MAX - 1) + 1
    }

    fn piece(&mut self, now: Instant) -> &mut Piece {
        let at = self.place(now);
        let place = &mut self.pieces[(at % u64::from(PIECES)) as usize];
        if place.at != at {
            *place = Piece { at, well: 0, ill: 0 };
        }
        place
    }

    fn window(&self, now: Instant) -> (u32, u32) {
        let at = self.place(now);
        let recent = self.pieces.iter().filter(|piece| piece.at > 0 && piece.at + u64::from(PIECES) > at);
        recent.fold((0, 0), |(well, ill), piece| (well + piece.well, ill + piece.ill))
    }

    /// Books `well` calls made since the last time; of those since long ago, as many as the window's share of the time.
    fn book(&mut self, well: u32, now: Instant) {
        let passed = now.saturating_duration_since(self.booked);
        if self.state() != BreakerState::Closed || (well == 0 && passed < self.settings.window) {
            return;
        }
        self.booked = now;
        let window = self.settings.window;
        let recent =
            if passed > window { (f64::from(well) * window.as_secs_f64() / passed.as_secs_f64()) as u32 } else { well };
        let piece = self.piece(now);
        piece.well = piece.well.saturating_add(recent);
        let seconds = passed.as_secs_f64();
        if seconds > 0.0 {
            let keep = (-seconds / USUAL_SECONDS).exp();
            let (sum, weight) = self.usual;
            self.usual = (sum * keep + f64::from(well) / seconds * (1.0 - keep), weight * keep + (1.0 - keep));
        }
    }
}

#[cfg(test)]
mod tests;
