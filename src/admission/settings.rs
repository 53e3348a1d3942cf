//! What the operator decides about one org's allowance, as plain checked values.

use std::sync::Arc;

use crate::call::CallerId;

/// A share in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PerMille(u16);

impl PerMille {
    /// `thousandths` of a whole, at most all of it.
    pub const fn new(thousandths: u16) -> Self {
        Self(if thousandths > 1_000 { 1_000 } else { thousandths })
    }

    /// The same in percent.
    pub const fn percent(percent: u16) -> Self {
        Self::new(percent.saturating_mul(10))
    }

    /// Thousandths.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// This share of `calls`, rounded down.
    pub const fn of(self, calls: u64) -> u64 {
        (calls as u128 * self.0 as u128 / 1_000) as u64
    }

    /// This share of `calls`, rounded up.
    pub const fn of_rounded_up(self, calls: u64) -> u64 {
        (calls as u128 * self.0 as u128).div_ceil(1_000) as u64
    }

    /// `self - other`, at least nothing.
    #[must_use]
    pub const fn less(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// What the ledger's decisions do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Every call is counted and none is judged.
    Off,
    /// Calls are judged and all are let through; what would have been refused is counted.
    Observe,
    /// Calls are judged and refused.
    Enforce,
}

/// What applies if no reading ever comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blind {
    /// Take this for the daily limit.
    Assume(u64),
    /// Refuse nothing, count everything, say so loudly.
    Observe,
}

/// What happens to a caller's floor while it asks for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lending {
    /// After how many minutes without a call a floor counts as idle; 1,440 at least, so that an idle floor is an
    /// unspent one.
    pub idle_after: u32,
    /// The part of an idle floor that is held back for its owner's return.
    pub kept: PerMille,
}

/// When the org's use, in thousandths of its ceiling, narrows what may be borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ladder {
    /// Borrowers get weighted shares, answers may be staler.
    pub lean: PerMille,
    /// Batch borrows at the pace at which calls come back.
    pub pace_batch: PerMille,
    /// Batch no longer borrows.
    pub stop_batch: PerMille,
    /// Only interactive calls borrow.
    pub stop_standard: PerMille,
    /// A level is left when use is this far below the point where it was entered.
    pub back_below: PerMille,
}

impl Default for Ladder {
    fn default() -> Self {
        Self {
            lean: PerMille::percent(70),
            pace_batch: PerMille::percent(80),
            stop_batch: PerMille::percent(90),
            stop_standard: PerMille::percent(97),
            back_below: PerMille::percent(10),
        }
    }
}

/// One org's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrgSettings {
    /// Whether decisions bind.
    pub mode: Mode,
    /// A daily number to stay below, if it is lower than Salesforce's limit.
    pub limit: Option<u64>,
    /// The part of the limit that is never used.
    pub keep_free: PerMille,
    /// Calls that may be spent before the first reading.
    pub before_reading: u64,
    /// Minutes to wait for a first reading before [`Self::blind`] applies.
    pub patience: u32,
    /// What applies then.
    pub blind: Blind,
    /// Minutes by which a reading may lag behind (facts 1.1).
    pub lag_at_most: u32,
    /// Minutes by which Salesforce may release calls later than 24 h after they were sent (facts 1.1).
    pub release_late_at_most: u32,
    /// How many minutes old a reading must be before one call may be sent to get a new one, although the reading
    /// says that nothing is left. Such looks are paid from a part kept for them below the ceiling.
    pub look_every: u32,
    /// What happens to idle floors; `None` holds every floor for its owner always.
    pub lending: Option<Lending>,
    /// When borrowing narrows.
    pub ladder: Ladder,
}

impl Default for OrgSettings {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            limit: None,
            keep_free: PerMille::percent(5),
            before_reading: 20,
            patience: 2,
            blind: Blind::Observe,
            lag_at_most: 10,
            release_late_at_most: 75,
            look_every: 5,
            lending: Some(Lending { idle_after: 1_440, kept: PerMille::percent(25) }),
            ladder: Ladder::default(),
        }
    }
}

/// A caller's account with one ledger: the same for as long as its name is configured, whatever its place among the
/// callers. So a request that began under an earlier configuration is charged to whom it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(u32);

impl AccountId {
    /// Nobody's account.
    pub const NOBODY: Self = Self(u32::MAX);

    /// The first account holds lost leases and belongs to no caller.
    pub(super) fn of_slot(slot: usize) -> Self {
        u32::try_from(slot).map_or(Self::NOBODY, |slot| Self(slot.wrapping_sub(1)))
    }

    pub(super) fn slot(self) -> usize {
        (self.0 as usize).saturating_add(1)
    }
}

/// In a ledger that was never reconfigured, accounts stand as callers were given.
impl From<CallerId> for AccountId {
    fn from(caller: CallerId) -> Self {
        Self(u32::from(caller.0))
    }
}

/// One caller's rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Its name, by which its use is kept across reloads and restarts.
    pub name: Arc<str>,
    /// Calls of the trailing 24 h that it is guaranteed.
    pub floor: u64,
    /// Calls of the trailing 24 h that it never exceeds.
    pub ceiling: Option<u64>,
    /// Its part, relative to other borrowers, when borrowing is scarce.
    pub weight: u32,
}

impl Share {
    /// A caller that is guaranteed nothing and may borrow without a ceiling of its own.
    pub fn borrower(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), floor: 0, ceiling: None, weight: 1 }
    }
}
