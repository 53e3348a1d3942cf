//! What the operator decides about calls that run long and calls that wait, as plain checked values.

use std::time::Duration;

use tokio::time::Instant;

use crate::admission::settings::{Ladder, Mode};
use crate::call::Class;

/// One org's rules for calls that run long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotSettings {
    /// Whether decisions bind.
    pub mode: Mode,
    /// How many calls may run long at the same time (facts 1.4).
    pub slots: u32,
    /// The age from which Salesforce counts a call.
    pub after: Duration,
    /// How many of them may be of class batch.
    pub batch_at_most: u32,
    /// How many are left to class interactive.
    pub reserve: u32,
    /// Other parts at certain hours; the first that matches holds.
    pub hours: [Option<Hours>; MOST_HOURS],
    /// A moment, and what time of day (UTC) it was; `None` if hours do not matter.
    pub daytime: Option<(Instant, Duration)>,
    /// Calls in the air at most, of any length; `None`: as many as come.
    pub in_flight: Option<usize>,
    /// How calls wait.
    pub queue: QueueSettings,
}

/// So many times of day may have parts of their own.
pub const MOST_HOURS: usize = 4;
const MINUTES_OF_DAY: u64 = 24 * 60;

/// Who may hold how many slots at certain hours of every day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// From when, in minutes since midnight UTC.
    pub from: u16,
    /// Until when; the next day if that is earlier.
    pub to: u16,
    /// How many slots may be held by calls of class batch.
    pub batch_at_most: u32,
    /// How many are left to class interactive.
    pub reserve: u32,
}

impl Hours {
    /// Whether they hold at `minute` of the day.
    fn hold_at(&self, minute: u16) -> bool {
        let Self { from, to, .. } = *self;
        if from < to { (from..to).contains(&minute) } else { minute >= from || minute < to }
    }
}

impl SlotSettings {
    /// How many slots batch may hold at `now`, and how many are left to interactive calls.
    pub fn parts(&self, now: Instant) -> (u32, u32) {
        let usual = (self.batch_at_most, self.reserve);
        let (Some(_), Some((moment, time))) = (self.hours.first().copied().flatten(), self.daytime) else {
            return usual;
        };
        let minute = (time + now.saturating_duration_since(moment)).as_secs() / 60 % MINUTES_OF_DAY;
        let hours = self.hours.iter().flatten().find(|hours| hours.hold_at(minute as u16));
        hours.map_or(usual, |hours| (hours.batch_at_most, hours.reserve))
    }
}

/// How calls wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueSettings {
    /// How many may wait.
    pub places: usize,
    /// How long, by class.
    pub patience: [Duration; Class::ALL.len()],
    /// How full the queue is when it no longer takes calls of a class.
    pub ladder: Ladder,
}

impl QueueSettings {
    /// How long a call of `class` waits at most, unless its deadline comes first.
    pub fn patience(&self, class: Class) -> Duration {
        self.patience.get(class.index()).copied().unwrap_or_default()
    }
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            places: 1_000,
            patience: [Duration::from_secs(5), Duration::from_secs(15), Duration::from_mins(1)],
            ladder: Ladder::default(),
        }
    }
}

impl Default for SlotSettings {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            slots: 25,
            after: Duration::from_secs(20),
            batch_at_most: 15,
            reserve: 5,
            hours: [None; MOST_HOURS],
            daytime: None,
            in_flight: None,
            queue: QueueSettings::default(),
        }
    }
}
