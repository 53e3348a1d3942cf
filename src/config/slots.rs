//! What a configuration says of calls that run long, of calls that wait, and of classes: a part of [`super::file`], and what it
//! means: a part of [`super::model`].

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::value::{Count, Period, Phrase, Text, TimeOfDay};
use crate::call::{Class, Family};

/// How many calls an org takes that run long (facts 1.4), and who may make them.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LongRunningFile {
    /// What slots do.
    pub mode: SlotMode,
    /// How many calls may run long at the same time: 25, or 5 for developer and trial orgs. One is always kept free.
    pub slots: Count<2, 1000>,
    /// The age from which Salesforce counts a call.
    pub after: Text<Period>,
    /// How many of them class batch may hold. Default: three fifths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_at_most: Option<Count<1, 1000>>,
    /// How many of them are left to class interactive. Default: a fifth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserve: Option<Count<0, 1000>>,
    /// Other parts at certain hours of the day; at most 4. The first that matches holds.
    pub hours: Vec<HoursFile>,
    /// The org's limit for Apex that runs long. Default: not guarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apex: Option<ApexFile>,
}

/// Who may hold how many slots at certain hours of every day.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HoursFile {
    /// From when, in UTC.
    #[schemars(required)]
    pub from: Option<Text<TimeOfDay>>,
    /// Until when, in UTC; the next day if it is earlier than `from`.
    #[schemars(required)]
    pub to: Option<Text<TimeOfDay>>,
    /// How many slots class batch may hold then.
    #[schemars(required)]
    pub batch_at_most: Option<Count<1, 1000>>,
    /// How many are left to class interactive then. Default: as at other hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserve: Option<Count<0, 1000>>,
}

/// How many calls of Apex code an org takes that run long (facts 1.4), and who may make them.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ApexFile {
    /// How many may run long at the same time. One is always kept free.
    pub slots: Count<2, 1000>,
    /// The age from which Salesforce counts one.
    pub after: Text<Period>,
    /// How many of them class batch may hold. Default: three fifths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_at_most: Option<Count<1, 1000>>,
    /// How many of them are left to class interactive. Default: a fifth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserve: Option<Count<0, 1000>>,
}

impl Default for ApexFile {
    fn default() -> Self {
        let after = Text(Period(Duration::from_secs(5)));
        Self { slots: Count(10), after, batch_at_most: None, reserve: None }
    }
}

impl Default for LongRunningFile {
    fn default() -> Self {
        Self {
            mode: SlotMode::Enforce,
            slots: Count(25),
            after: Text(Period(Duration::from_secs(20))),
            batch_at_most: None,
            reserve: None,
            hours: Vec::new(),
            apex: None,
        }
    }
}

/// What slots do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SlotMode {
    /// Nothing: no call in the air is looked at, and none is held back for how many there are.
    Off,
    /// They decide and count, but hold back nothing.
    Observe,
    /// Calls wait for them.
    Enforce,
}

/// How calls wait that cannot be sent at once.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QueueFile {
    /// How many calls may wait, for each org. As it fills up, `ladder` says which classes are still taken.
    pub places: Count<1, 100_000>,
    /// How long a call waits at most, unless its deadline comes first.
    pub wait: WaitFile,
}

impl Default for QueueFile {
    fn default() -> Self {
        Self { places: Count(1_000), wait: WaitFile::default() }
    }
}

/// How long calls wait, by class.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WaitFile {
    /// Class interactive.
    pub interactive: Text<Period>,
    /// Class standard.
    pub standard: Text<Period>,
    /// Class batch.
    pub batch: Text<Period>,
}

impl Default for WaitFile {
    fn default() -> Self {
        let seconds = |count| Text(Period(Duration::from_secs(count)));
        Self { interactive: seconds(5), standard: seconds(15), batch: seconds(60) }
    }
}

/// Lowers the class of the calls it matches, whoever makes them. Without `families` and `paths` it matches none.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClassRuleFile {
    /// Families of APIs, such as `bulk1` and `bulk2`.
    pub families: Vec<Family>,
    /// Beginnings of paths, such as `/services/apexrest/Nightly`, or of routes as `explain` shows them, such as
    /// `/services/data/{version}/analytics/reports`; compared by whole segments and without case.
    pub paths: Vec<Text<Phrase>>,
    /// The class such calls have at most.
    #[schemars(required)]
    pub class: Option<Class>,
}

/// An org's slots for calls that run long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongRunning {
    /// What they do.
    pub mode: SlotMode,
    /// How many there are; at least 2.
    pub slots: u32,
    /// The age from which a call takes one.
    pub after: Duration,
    /// How many class batch may hold; less than `slots`.
    pub batch_at_most: u32,
    /// How many are left to class interactive; less than `slots`.
    pub reserve: u32,
    /// Other parts at certain hours.
    pub hours: [Option<Hours>; MOST_HOURS],
    /// The same for Apex, if that is guarded.
    pub apex: Option<Apex>,
}

/// So many times of day may have parts of their own.
pub const MOST_HOURS: usize = 4;

/// Who may hold how many slots at certain hours of every day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// From when, in minutes since midnight UTC.
    pub from: u16,
    /// Until when; the next day if that is earlier.
    pub to: u16,
    /// How many class batch may hold; less than all.
    pub batch_at_most: u32,
    /// How many are left to class interactive; less than all.
    pub reserve: u32,
}

/// An org's slots for Apex that runs long; the members mean what those of [`LongRunning`] do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Apex {
    /// How many there are; at least 2.
    pub slots: u32,
    /// The age from which a call takes one.
    pub after: Duration,
    /// How many class batch may hold; less than `slots`.
    pub batch_at_most: u32,
    /// How many are left to class interactive; less than `slots`.
    pub reserve: u32,
}

/// How calls wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// How many may, for each org.
    pub places: usize,
    /// How long those of class interactive do.
    pub interactive: Duration,
    /// How long those of class standard do.
    pub standard: Duration,
    /// How long those of class batch do.
    pub batch: Duration,
}

/// Lowers the class of the calls it matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassRule {
    /// Families it matches.
    pub families: Vec<Family>,
    /// Beginnings of paths or routes it matches, in lower case, without a slash at the end.
    pub paths: Vec<SmolStr>,
    /// The class such calls have at most.
    pub class: Class,
}
