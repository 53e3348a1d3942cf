//! What a configuration says of calls that are made once more: a part of [`super::file`], and what it means: a part of
//! [`super::model`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::value::{Count, Percent, Text};

/// Which calls that failed are made once more. Only those that cannot be done twice by it: reads, and writes that were not
/// sent, were refused, or were rolled back.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetryFile {
    /// Whether any is.
    pub mode: RetryMode,
    /// How often a call is made at most, the first time included.
    pub attempts: Count<1, 10>,
    /// Repetitions, in percent of the calls made to the org. Ten in a second are always allowed.
    pub budget: Text<Percent>,
    /// Calls that found a record locked.
    pub lock: LockRetryFile,
}

/// The same for calls that found a record locked by somebody else.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LockRetryFile {
    /// How often a call is made at most, the first time included.
    pub attempts: Count<1, 10>,
    /// Repetitions, in percent of the calls made to the org. Ten in a second are always allowed.
    pub budget: Text<Percent>,
    /// Whether, of collections and composites that are not all or none, only the records that were locked are sent again, and
    /// what comes of it is put into the answer.
    pub per_record: bool,
}

impl Default for RetryFile {
    fn default() -> Self {
        Self {
            mode: RetryMode::Enforce,
            attempts: Count(3),
            budget: Text(Percent(100)),
            lock: LockRetryFile::default(),
        }
    }
}

impl Default for LockRetryFile {
    fn default() -> Self {
        Self { attempts: Count(5), budget: Text(Percent(300)), per_record: false }
    }
}

/// Whether calls are made once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RetryMode {
    /// None: whoever called does what it likes.
    Off,
    /// Those that can safely be.
    Enforce,
}

/// Which calls that failed are made once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// How often a call is made at most; 1 if none is repeated.
    pub attempts: u32,
    /// Repetitions in thousandths of the calls made.
    pub budget: u16,
    /// How often a call is made at most that found a record locked; 1 if none is repeated.
    pub lock_attempts: u32,
    /// Its repetitions in thousandths of the calls made.
    pub lock_budget: u16,
    /// Whether only the records that were locked are sent again, where a request is not all or none.
    pub lock_per_record: bool,
}

impl RetryFile {
    /// What it means. Every value it can hold is fine.
    pub(super) fn meant(&self) -> Retry {
        let often = |attempts: Count<1, 10>| if self.mode == RetryMode::Off { 1 } else { attempts.as_u32() };
        Retry {
            attempts: often(self.attempts),
            budget: self.budget.0.0,
            lock_attempts: often(self.lock.attempts),
            lock_budget: self.lock.budget.0.0,
            lock_per_record: self.mode == RetryMode::Enforce && self.lock.per_record,
        }
    }
}
