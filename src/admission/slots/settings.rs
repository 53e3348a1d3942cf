//! What the operator decides about calls that run long and calls that wait, as plain checked values.

use std::time::Duration;

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
    /// Calls in the air at most, of any length; `None`: as many as come.
    pub in_flight: Option<usize>,
    /// How calls wait.
    pub queue: QueueSettings,
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
            in_flight: None,
            queue: QueueSettings::default(),
        }
    }
}
