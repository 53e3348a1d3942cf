//! The labels of metrics: which ones each set has, and what values they take.

use std::borrow::Cow;

use smol_str::SmolStr;

use super::cells::LabelSet;
use super::results::{ConnectResult, ConnectionState, LoginResult, RefreshResult, ReloadResult, ShareResult};
use crate::admission::Hurry;
use crate::call::{Class, Family, Operation};
use crate::exchange::vault::State;
use crate::outcome::{CacheResult, Errand, FailureKind, PollResult, Purse, Remembered, RetryResult, Source};
use crate::refusal::Reason;

/// Declares the labels of one metric.
macro_rules! labels {
    ($(#[$meta:meta])* $name:ident { $($label:ident: $kind:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub struct $name { $(#[doc = concat!("The label `", stringify!($label), "`.")] pub $label: $kind),* }

        impl LabelSet for $name {
            const NAMES: &'static [&'static str] = &[$(stringify!($label)),*];

            fn values(&self) -> Vec<Cow<'_, str>> {
                vec![$(self.$label.text()),*]
            }
        }
    };
}

labels! {
    /// Of metrics that have one series.
    NoLabels {}
}
labels! {
    /// Of `requests_total`.
    RequestLabels {
        org: SmolStr, caller: SmolStr, class: Class, family: Family, object: SmolStr, operation: Operation,
        status: Status, source: Source,
    }
}
labels! {
    /// Of what a caller uses.
    UseLabels { org: SmolStr, caller: SmolStr, class: Class, family: Family }
}
labels! {
    /// Of refusals.
    RefusalLabels { org: SmolStr, caller: SmolStr, reason: Reason }
}
labels! {
    /// Of `upstream_errors_total`.
    UpstreamErrorLabels { org: SmolStr, family: Family, kind: &'static str, error_code: SmolStr }
}
labels! {
    /// Of breakers.
    BreakerLabels { org: SmolStr, family: Family }
}
labels! {
    /// Of `retries_total`.
    RetryLabels { org: SmolStr, reason: Purse, result: RetryResult }
}
labels! {
    /// Of `retry_budget_left`.
    PurseLabels { org: SmolStr, reason: Purse }
}
labels! {
    /// Of `remembered_failures_total`.
    RememberedLabels { org: SmolStr, result: Remembered }
}
labels! {
    /// Of `record_failures_total`.
    RecordFailureLabels { org: SmolStr, caller: SmolStr, object: SmolStr, error_code: SmolStr }
}
labels! {
    /// Of what is counted by caller only.
    CallerLabels { org: SmolStr, caller: SmolStr }
}
labels! {
    /// Of `api_calls_saved_total`.
    SavedLabels { org: SmolStr, caller: SmolStr, by: Source }
}
labels! {
    /// Of `cache_events_total`.
    CacheLabels { org: SmolStr, result: CacheResult }
}
labels! {
    /// Of what is kept about one object.
    ObjectLabels { org: SmolStr, object: SmolStr }
}
labels! {
    /// Of `generation_events_total`.
    EventLabels { org: SmolStr, direction: &'static str }
}
labels! {
    /// Of `cache_errands_total`.
    ErrandLabels { org: SmolStr, caller: SmolStr, errand: Errand }
}
labels! {
    /// Of `pace_refusals_total`.
    PaceRefusalLabels { org: SmolStr, caller: SmolStr, cause: Hurry }
}
labels! {
    /// Of `api_version_requests_total`.
    VersionLabels { org: SmolStr, caller: SmolStr, version: SmolStr }
}
labels! {
    /// Of what is counted by org only.
    OrgLabels { org: SmolStr }
}
labels! {
    /// Of `budget_used`.
    ViewLabels { org: SmolStr, view: &'static str }
}
labels! {
    /// Of `budget_returning`.
    WithinLabels { org: SmolStr, within: &'static str }
}
labels! {
    /// Of `bank_settles_total`.
    SettleLabels { org: SmolStr, result: &'static str }
}
labels! {
    /// Of `in_flight`.
    InFlightLabels { org: SmolStr, class: Class }
}
labels! {
    /// Of `long_running_slots` and `apex_slots`.
    SlotLabels { org: SmolStr, state: &'static str }
}
labels! {
    /// Of those that wait.
    QueueLabels { org: SmolStr, class: Class }
}
labels! {
    /// Of a listener's figures.
    ListenerLabels { listener: SmolStr }
}
labels! {
    /// Of a runtime's figures.
    RuntimeLabels { runtime: SmolStr }
}
labels! {
    /// Of `upstream_connections`.
    ConnectionLabels { org: SmolStr, state: ConnectionState }
}
labels! {
    /// Of `upstream_connects_total`.
    ConnectLabels { org: SmolStr, result: ConnectResult }
}
labels! {
    /// Of `tokens_refreshed_total`.
    RefreshLabels { org: SmolStr, identity: SmolStr, result: RefreshResult }
}
labels! {
    /// Of `token_shares_total`.
    ShareLabels { org: SmolStr, identity: SmolStr, result: ShareResult }
}
labels! {
    /// Of `identity_state`.
    IdentityStateLabels { org: SmolStr, identity: SmolStr, state: State }
}
labels! {
    /// Of an identity's figures.
    IdentityLabels { org: SmolStr, identity: SmolStr }
}
labels! {
    /// Of `facade_logins_total`.
    LoginLabels { org: SmolStr, result: LoginResult }
}
labels! {
    /// Of `limits_polls_total`.
    PollLabels { org: SmolStr, result: PollResult }
}
labels! {
    /// Of `store_commands_total`.
    CommandLabels { purpose: SmolStr, result: &'static str }
}
labels! {
    /// Of `trace_spans_total`.
    SpanLabels { result: &'static str }
}
labels! {
    /// Of `config_reloads_total`.
    ReloadLabels { result: ReloadResult }
}
labels! {
    /// Of `build_info`.
    BuildLabels { version: &'static str, profile: &'static str }
}

/// A value a label can take.
pub(super) trait LabelValue {
    fn text(&self) -> Cow<'_, str>;
}

impl LabelValue for SmolStr {
    fn text(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.as_str())
    }
}

impl LabelValue for &'static str {
    fn text(&self) -> Cow<'_, str> {
        Cow::Borrowed(self)
    }
}

macro_rules! closed_list_labels {
    ($($kind:ty),+) => {
        $(impl LabelValue for $kind {
            fn text(&self) -> Cow<'_, str> {
                Cow::Borrowed(self.as_str())
            }
        })+
    };
}
closed_list_labels!(
    Class,
    Family,
    Operation,
    Source,
    Reason,
    FailureKind,
    Hurry,
    PollResult,
    CacheResult,
    Errand,
    Purse,
    Remembered,
    RetryResult
);

/// An HTTP status as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(u16);

impl Status {
    /// `status`, or `other` if it is none that HTTP defines a class for.
    pub fn new(status: u16) -> Self {
        Self(if (100..=599).contains(&status) { status } else { 0 })
    }
}

impl LabelValue for Status {
    fn text(&self) -> Cow<'_, str> {
        if self.0 == 0 { Cow::Borrowed("other") } else { Cow::Owned(self.0.to_string()) }
    }
}

impl LabelValue for State {
    fn text(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.as_str())
    }
}
