//! What a configuration says of circuit breakers: a part of [`super::file`], and what it means: a part of [`super::model`].

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::value::{Count, Percent, Period, Text};

/// When calls to an API of an org are held back because Salesforce is not well, and for how long.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerFile {
    /// What breakers do.
    pub mode: BreakerMode,
    /// The time they look back.
    pub window: Text<Period>,
    /// Calls there must be in it.
    pub minimum: Count<1, 10_000>,
    /// The share of them that must have failed.
    pub ratio: Text<Percent>,
    /// How long calls are held back the first time.
    pub open: Text<Period>,
    /// How long at most, if it does not get better: each time is twice as long as the last.
    pub open_max: Text<Period>,
    /// How long it takes to come back to the usual number of calls afterwards.
    pub ramp: Text<Period>,
}

impl Default for BreakerFile {
    fn default() -> Self {
        let seconds = |count| Text(Period(Duration::from_secs(count)));
        Self {
            mode: BreakerMode::Enforce,
            window: seconds(10),
            minimum: Count(20),
            ratio: Text(Percent(500)),
            open: seconds(5),
            open_max: seconds(60),
            ramp: seconds(30),
        }
    }
}

/// What breakers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakerMode {
    /// Nothing.
    Off,
    /// They decide and count, but hold back nothing.
    Observe,
    /// They hold calls back.
    Enforce,
}

/// When calls to an API of an org are held back, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    /// What breakers do.
    pub mode: BreakerMode,
    /// The time they look back.
    pub window: Duration,
    /// Calls there must be in it.
    pub minimum: u32,
    /// Percent of them that must have failed.
    pub ratio: u32,
    /// How long calls are held back the first time.
    pub open: Duration,
    /// How long at most; not less than `open`.
    pub open_max: Duration,
    /// How long it takes to come back to the usual number of calls.
    pub ramp: Duration,
}
