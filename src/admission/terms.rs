//! On what terms a call was let in, for who wants to see it.

use crate::call::{ApiCalls, closed_list};

use super::ladder::Level;

closed_list! {
    /// Out of what a call is paid.
    Paid {
        /// What its caller is guaranteed.
        Floor = "floor",
        /// What nobody is guaranteed, or is not using.
        Borrowed = "borrowed",
    }
}

/// On what terms a call was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// What it costs at most.
    pub cost: ApiCalls,
    /// Out of what it is paid; `None` if it costs nothing or nobody judges.
    pub paid: Option<Paid>,
    /// How scarce the org's calls were.
    pub level: Level,
    /// What its caller could still reserve below its own ceiling, after this call; `None` without one.
    pub left: Option<u64>,
}
