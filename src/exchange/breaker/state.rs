//! What a breaker decides: its states, what happened lately, and how fast calls come back. Everything happens at a `now` that
//! is given.

use std::time::Duration;

use tokio::time::Instant;

use super::{BreakerSettings, BreakerState, Pass, Sample, Ticket, View};
use crate::call::Class;

/// Pieces of the window; what is older than the window is forgotten piece by piece.
const PIECES: u32 = 10;
/// While a probe takes longer than this, which some calls do, another one finds out.
pub(super) const PROBE: Duration = Duration::from_secs(30);
/// Where every call fails, it opens after this part of the window, however many went well before.
const STREAK: u32 = 4;
/// After a probe of which nothing was learned, the next one.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// How long the usual rate is remembered, about.
const USUAL_SECONDS: f64 = 30.0;
/// Less of it than this is known of the first ten seconds only: then nobody knows what is usual.
const KNOWN: f64 = 0.28;
/// Where nobody knows what is usual, a ramp ends at this many calls in a second.
const UNKNOWN_RATE: f64 = 64.0;
/// The fastest at the end of a ramp, in shares of the usual rate.
const FASTEST: f64 = 1.1;
/// A ramp that is over, and still holds calls back, lasts this many times as long: then more calls are usual.
const LONGEST_RAMP: u32 = 4;
/// Failures among the calls of a ramp that open it again, at least.
const RAMP_FAILURES: u32 = 3;

#[derive(Debug)]
pub(super) struct Core {
    settings: BreakerSettings,
    state: State,
    pub(super) epoch: u32,
    start: Instant,
    booked: Instant,
    pieces: [Piece; PIECES as usize],
    /// Calls in a second, as they usually are, and how much of the past is known of; both fade together.
    usual: (f64, f64),
    /// Since when nothing but failures is known of.
    streak: Option<Instant>,
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
    /// Held open by an operator, perhaps not for ever.
    Held {
        until: Option<Instant>,
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
    },
}

impl Core {
    pub(super) fn new(settings: BreakerSettings, now: Instant) -> Self {
        Self {
            settings,
            state: State::Closed,
            epoch: 0,
            start: now,
            booked: now,
            pieces: [Piece::default(); PIECES as usize],
            usual: (0.0, 0.0),
            streak: None,
            opened: 0,
        }
    }

    pub(super) fn reconfigure(&mut self, settings: BreakerSettings) {
        if settings.window != self.settings.window {
            self.pieces = [Piece::default(); PIECES as usize];
        }
        self.settings = settings;
    }

    pub(super) fn state(&self) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { .. } | State::Held { .. } => BreakerState::Open,
            State::Probing { .. } | State::Ramp { .. } => BreakerState::HalfOpen,
        }
    }

    pub(super) fn is_in_trouble(&self, now: Instant) -> bool {
        self.state() != BreakerState::Closed || self.window(now).1 > 0
    }

    pub(super) fn is_held(&self) -> bool {
        matches!(self.state, State::Held { .. })
    }

    pub(super) fn view(&self, now: Instant) -> View {
        let until = match self.state {
            State::Open { until, .. } => Some(until),
            State::Held { until } => until,
            _ => None,
        };
        View {
            state: self.state(),
            by_hand: self.is_held(),
            opened: self.opened,
            finds_out_in: until.map(|until| until.saturating_duration_since(now)),
        }
    }

    pub(super) fn ask(&mut self, class: Class, now: Instant) -> Pass {
        let epoch = self.epoch;
        match self.state {
            State::Closed => Pass::Go(Ticket { epoch, probe: false }),
            State::Open { until, times } if now >= until => self.probe(times, now),
            State::Open { until, .. } => Pass::Shut(until.saturating_duration_since(now)),
            State::Held { until: Some(until) } if now >= until => self.probe(0, now),
            State::Held { until } => {
                Pass::Shut(until.map_or(self.settings.open_max, |until| until.saturating_duration_since(now)))
            }
            State::Probing { since, times } if now >= since + PROBE => self.probe(times, now),
            State::Probing { .. } => Pass::Shut(PAUSE),
            State::Ramp { .. } => {
                let passes = self.ramp(class, now);
                if passes { Pass::Go(Ticket { epoch, probe: false }) } else { Pass::Shut(PAUSE) }
            }
        }
    }

    fn probe(&mut self, times: u32, now: Instant) -> Pass {
        self.state = State::Probing { since: now, times };
        Pass::Probe(Ticket { epoch: self.epoch, probe: true })
    }

    /// Whether a call that has waited since before it opened may go now; it never finds out anything.
    pub(super) fn lets_in(&mut self, class: Class, now: Instant) -> bool {
        match self.state {
            State::Closed => true,
            State::Ramp { .. } => self.ramp(class, now),
            State::Open { .. } | State::Held { .. } | State::Probing { .. } => false,
        }
    }

    /// How far a ramp has come, from 0 to 1.
    fn progress(&self, since: Instant, now: Instant) -> f64 {
        let ramp = self.settings.ramp.as_secs_f64().max(0.001);
        (now.saturating_duration_since(since).as_secs_f64() / ramp).min(1.0)
    }

    /// Calls in a second that a ramp lets pass.
    fn rate(&self, progress: f64) -> f64 {
        let (sum, weight) = self.usual;
        let rate =
            if weight > KNOWN { sum / weight * FASTEST * (0.1 + 0.9 * progress) } else { UNKNOWN_RATE.powf(progress) };
        rate.max(1.0)
    }

    /// Whether a call of `class` may go during a ramp: interactive calls first, and all together only as fast as the ramp
    /// allows.
    fn ramp(&mut self, class: Class, now: Instant) -> bool {
        let State::Ramp { since, times, mut tokens, filled, mut refused } = self.state else { return true };
        // Calls are asked about in another order than they came.
        let now = now.max(filled);
        let progress = self.progress(since, now);
        let rate = self.rate(progress);
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
        } else {
            refused = Some(now);
        }
        self.state = State::Ramp { since, times, tokens, filled: now, refused };
        passes
    }

    /// What became of a call; says what the breaker does now, if that is news.
    pub(super) fn report(&mut self, ticket: Ticket, sample: Sample, now: Instant) -> Option<BreakerState> {
        // What began before it opened says nothing of how it is now.
        if ticket.epoch != self.epoch {
            return None;
        }
        match self.state {
            State::Closed => {
                if sample == Sample::Ill {
                    self.piece(now).ill += 1;
                    let since = *self.streak.get_or_insert(now);
                    let lasts = now >= since + self.settings.window / STREAK;
                    let nothing_else = lasts && self.window(now).1 >= self.settings.minimum;
                    if nothing_else || self.is_ill(self.settings.minimum, 0, now) {
                        return self.open(0, now);
                    }
                }
                None
            }
            State::Probing { times, .. } if ticket.probe => match sample {
                Sample::Ill => self.open(times, now),
                Sample::Well => {
                    self.pieces = [Piece::default(); PIECES as usize];
                    self.state = State::Ramp { since: now, times, tokens: 1.0, filled: now, refused: None };
                    Some(BreakerState::HalfOpen)
                }
                Sample::Nothing => {
                    self.state = State::Open { until: now + PAUSE, times };
                    None
                }
            },
            State::Ramp { since, times, refused, .. } => {
                match sample {
                    Sample::Well => self.piece(now).well += 1,
                    Sample::Ill => self.piece(now).ill += 1,
                    Sample::Nothing => {}
                }
                if self.is_ill(0, RAMP_FAILURES, now) {
                    return self.open(times, now);
                }
                let over = since + self.settings.ramp;
                // Closed, it would let pass all at once who are still held back.
                let calm = refused.is_none_or(|refused| now >= refused + self.settings.ramp / 6);
                if now >= over && (calm || now >= over + self.settings.ramp * LONGEST_RAMP) {
                    return self.close(now);
                }
                None
            }
            State::Probing { .. } | State::Open { .. } | State::Held { .. } => None,
        }
    }

    /// Opens it; that is news if calls passed.
    fn open(&mut self, times: u32, now: Instant) -> Option<BreakerState> {
        let passed = matches!(self.state, State::Closed | State::Ramp { .. });
        let twice = self.settings.open.saturating_mul(1_u32.checked_shl(times.min(16)).unwrap_or(u32::MAX));
        let until = now + twice.min(self.settings.open_max);
        self.shut(State::Open { until, times: times.saturating_add(1) }, passed)
    }

    /// Holds it open, perhaps not for ever.
    pub(super) fn hold(&mut self, length: Option<Duration>, now: Instant) -> Option<BreakerState> {
        let passed = self.state() != BreakerState::Open;
        self.shut(State::Held { until: length.map(|length| now + length) }, passed)
    }

    fn shut(&mut self, state: State, news: bool) -> Option<BreakerState> {
        self.state = state;
        self.streak = None;
        self.epoch = self.epoch.wrapping_add(1) & (u32::MAX >> 1);
        self.opened += u64::from(news);
        news.then_some(BreakerState::Open)
    }

    /// Closes it, whatever it did; that is news if it was not closed.
    pub(super) fn close(&mut self, now: Instant) -> Option<BreakerState> {
        let news = self.state() != BreakerState::Closed;
        self.state = State::Closed;
        self.pieces = [Piece::default(); PIECES as usize];
        self.booked = now;
        news.then_some(BreakerState::Closed)
    }

    /// Whether enough of enough calls in the window failed.
    fn is_ill(&self, calls: u32, failures: u32, now: Instant) -> bool {
        let (well, ill) = self.window(now);
        let all = u64::from(well) + u64::from(ill);
        let ratio = u64::from(ill) * 100 >= all * u64::from(self.settings.ratio);
        ill > 0 && ill >= failures && all >= u64::from(calls) && ratio
    }

    fn place(&self, now: Instant) -> u64 {
        let length = (self.settings.window.as_millis() / u128::from(PIECES)).max(1);
        let passed = now.saturating_duration_since(self.start).as_millis() / length;
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
    pub(super) fn book(&mut self, well: u32, now: Instant) {
        let passed = now.saturating_duration_since(self.booked);
        if self.state() != BreakerState::Closed || (well == 0 && passed < self.settings.window) {
            return;
        }
        self.booked = now;
        if well > 0 {
            self.streak = None;
        }
        let window = self.settings.window;
        let part = |calls| u128::from(calls) * window.as_millis() / passed.as_millis().max(1);
        let recent = if passed > window { u32::try_from(part(well)).unwrap_or(well) } else { well };
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
