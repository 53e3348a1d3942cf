//! The wait of calls that exceed their caller's pace: one after the other, as one of a bounded number, for a bounded time.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::admission::{Hurry, Mode, PaceBudget, PaceSettings, Pacer, TooFast, Verdict};
use crate::clock::Clock;
use crate::refusal::{Reason, Refusal};
use crate::stages::Passage;

/// One caller's pace at one org, shared by all runtimes. Cloning is one reference count.
#[derive(Debug, Clone)]
pub struct Pace(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pacer: Mutex<Pacer>,
    /// Held by the call that waits for its part of the pace; the others wait for it in the order they came.
    turn: Semaphore,
}

/// What a call is told.
#[derive(Debug)]
pub enum Asked {
    /// It goes.
    Go,
    /// It waits for its turn.
    Waits(Turn),
    /// It is refused.
    Refused(Refusal),
}

impl Pace {
    /// A caller that has not sent anything yet.
    pub fn new(settings: PaceSettings, now: Instant) -> Self {
        Self(Arc::new(Shared { pacer: Mutex::new(Pacer::new(settings, now)), turn: Semaphore::new(1) }))
    }

    /// Puts other settings in force. What was taken stays taken, and who waits keeps its place.
    pub fn reconfigure(&self, settings: PaceSettings, now: Instant) {
        self.0.pacer.lock().reconfigure(settings, now);
    }

    /// What there is to see.
    pub fn budget(&self, now: Instant) -> PaceBudget {
        self.0.pacer.lock().budget(now)
    }

    /// Asks for the call of `passage`.
    pub fn ask(&self, passage: &Passage) -> Asked {
        let now = passage.now;
        let time_left = passage.call.time_left(now);
        let mut pacer = self.0.pacer.lock();
        let verdict = pacer.ask(now, time_left);
        let settings = pacer.settings();
        drop(pacer);
        match verdict {
            Verdict::Go { left, would } => {
                let mut outcome = passage.record.lock();
                outcome.pace_left = (settings.mode == Mode::Enforce).then_some(left);
                if would.is_some() {
                    outcome.would_refuse = Some(Reason::CallerPace);
                }
                Asked::Go
            }
            Verdict::Wait(_) => {
                let patience = time_left.map_or(settings.patience, |left| left.min(settings.patience));
                Asked::Waits(Turn { pace: self.clone(), since: now, until: now + patience, gone: false })
            }
            Verdict::Refused(too_fast) => {
                passage.record.lock().pace_left = Some(0);
                Asked::Refused(refusal(settings, too_fast))
            }
        }
    }
}

/// A place among the calls that wait; gives itself back.
#[derive(Debug)]
pub struct Turn {
    pace: Pace,
    since: Instant,
    until: Instant,
    /// It took its part, and is not among those who wait any more.
    gone: bool,
}

impl Turn {
    /// Waits until the call of `passage` may go, or there is no more time.
    pub async fn come(mut self, passage: &mut Passage, clock: Clock) -> Result<(), Refusal> {
        let pace = self.pace.clone();
        if let Ok(Ok(_turn)) = tokio::time::timeout_at(self.until, pace.0.turn.acquire()).await {
            loop {
                let now = clock.now();
                passage.now = now;
                let asked = pace.0.pacer.lock().turn(now);
                match asked {
                    Ok(left) => {
                        self.gone = true;
                        let mut outcome = passage.record.lock();
                        outcome.paced = now.saturating_duration_since(self.since);
                        outcome.pace_left = Some(left);
                        return Ok(());
                    }
                    Err(at) if at <= self.until => tokio::time::sleep_until(at).await,
                    Err(_) => break,
                }
            }
        }
        Err(self.too_late(passage, clock.now()))
    }

    /// It waited as long as it may, because the pace was slowed down meanwhile or timers were late.
    fn too_late(&self, passage: &mut Passage, now: Instant) -> Refusal {
        passage.now = now;
        let mut outcome = passage.record.lock();
        outcome.paced = now.saturating_duration_since(self.since);
        outcome.pace_left = Some(0);
        drop(outcome);
        let deadline = passage.call.deadline.is_some_and(|deadline| deadline <= self.until);
        let why = if deadline { Hurry::Deadline } else { Hurry::Patience };
        let mut pacer = self.pace.0.pacer.lock();
        pacer.count(why);
        refusal(pacer.settings(), TooFast { why, wait: pacer.settings().patience })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.gone {
            self.pace.0.pacer.lock().leave();
        }
    }
}

/// The answer to a call that exceeds the pace and cannot wait.
fn refusal(settings: PaceSettings, too_fast: TooFast) -> Refusal {
    let PaceSettings { per_second, burst, places, patience, .. } = settings;
    let mut detail = format!("This caller may send {per_second} calls a second and {burst} at once, ");
    let _ = match too_fast.why {
        Hurry::Places if places == 0 => detail.write_str("and none of its calls may wait."),
        Hurry::Places => write!(detail, "and {places} more wait already."),
        Hurry::Patience => write!(detail, "and this call would wait longer than {} s.", patience.as_secs_f64()),
        Hurry::Deadline => detail.write_str("and this call's turn comes after its deadline."),
    };
    // Those who come back in the same second exceed the pace again.
    Refusal::new(Reason::CallerPace, detail).retry_after(too_fast.wait.max(Duration::from_secs(1)))
}
