//! How fast a caller may send: what a configuration says of it (a part of [`super::file`]) and what that means.

use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::value::{Count, Period, Text};

/// How fast a caller may send to each org. What exceeds it waits, one call after the other; what cannot wait is answered
/// with 429.
#[derive(Debug, Clone, Serialize, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PaceFile {
    /// What the pace does.
    pub mode: PaceMode,
    /// Calls a second in the long run.
    #[schemars(required)]
    pub per_second: Option<Count<1, 100_000>>,
    /// Calls at once after a pause; default: those of one second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<Count<1, 1_000_000>>,
    /// Calls that may wait for their turn.
    pub queue: Count<0, 100_000>,
    /// How long a call may wait, if its deadline does not come first.
    pub wait: Text<Period>,
}

impl Default for PaceFile {
    fn default() -> Self {
        Self {
            mode: PaceMode::default(),
            per_second: None,
            burst: None,
            queue: Count(100),
            wait: Text(Period(Duration::from_secs(5))),
        }
    }
}

/// What a caller's pace does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PaceMode {
    /// Nothing.
    Off,
    /// It counts what it would refuse, but delays and refuses nothing.
    Observe,
    /// It delays and refuses what exceeds it.
    #[default]
    Enforce,
}

/// How fast a caller may send to each org.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// What it does.
    pub mode: PaceMode,
    /// Calls a second in the long run.
    pub per_second: NonZeroU32,
    /// Calls at once after a pause.
    pub burst: NonZeroU32,
    /// Calls that may wait for their turn.
    pub queue: u32,
    /// How long a call may wait.
    pub wait: Duration,
}
