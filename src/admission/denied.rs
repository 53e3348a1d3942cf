//! Why a call was not admitted.

use crate::call::closed_list;

use super::ladder::Level;

closed_list! {
    /// Every way the ledger says no.
    Cause {
        /// The caller is paused by the operator.
        CallerPaused = "caller_paused",
        /// The class is paused by the operator.
        ClassPaused = "class_paused",
        /// The caller reached its own ceiling.
        CallerCeiling = "caller_ceiling",
        /// The org reached its ceiling.
        OrgCeiling = "org_ceiling",
        /// What is left is held for callers below their floors.
        Reserved = "reserved",
        /// The caller has borrowed its weighted share.
        Share = "share",
        /// The ladder lends no calls to this class now.
        Shed = "shed",
        /// The ladder lends to batch at the pace of returning calls, and this minute's are lent.
        Paced = "paced",
        /// Salesforce said that the daily allowance is used up.
        OrgClosed = "org_closed",
        /// Salesforce said so a while ago; a few calls are finding out whether it still does.
        AwaitProbe = "await_probe",
        /// The few calls allowed before the first reading are spent.
        AwaitReading = "await_reading",
        /// The lease is spent; a refill is under way.
        AwaitLease = "await_lease",
        /// The lease is spent and the bank cannot be written.
        BankLost = "bank_lost",
        /// The ledger is closed for good: the process is stopping.
        Stopping = "stopping",
        /// No such caller in the configuration in force.
        UnknownCaller = "unknown_caller",
    }
}

impl Cause {
    /// Whether the call should wait for [`Ledger::changed`](super::Ledger::changed) and ask again, rather than be
    /// refused: the answer is on its way.
    pub const fn waits(self) -> bool {
        matches!(self, Self::AwaitProbe | Self::AwaitReading | Self::AwaitLease)
    }
}

/// A call that was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denied {
    /// Why.
    pub cause: Cause,
    /// How scarce the org's calls were.
    pub level: Level,
    /// How many calls have to come back before it can be admitted, where that is what it takes.
    pub missing: u64,
}
