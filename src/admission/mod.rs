//! EARN: may this call be sent now, and who pays for it.
//!
//! The [`Ledger`] counts the calls of the trailing 24 hours by caller, class and minute, and admits a call only
//! within the org's ceiling, the caller's ceiling and the floors of all the others. What Salesforce itself says
//! about its allowance corrects it. A [`bank`] remembers what was spent across restarts: it leases slices of the
//! allowance in the background, so that a decision costs nanoseconds and waits for no store.
//!
//! | file | decides |
//! |---|---|
//! | `ledger` | the door: reserve, spend, refund, settle |
//! | `book` | the decision about one call, under the lock (`latch`) |
//! | `ring` | what counts: 1,441 one-minute buckets |
//! | `sweep` | how calls come back |
//! | `account` | one caller's calls and what is held for it |
//! | `usage` | what the org used, from Salesforce's readings |
//! | `gate` | closing and careful reopening after Salesforce refused |
//! | `ladder`, `fair`, `terms` | what may be borrowed when calls are scarce, and what was |
//! | `pace` | how fast one caller may send, and who waits for it |
//! | `sharing` | what other replicas spent, and what they have to know |
//! | `lease`, `allotment`, `statement`, `bank` | what may be spent without asking the store, and the stores |
//! | `forecast`, `snapshot`, `spending` | what comes back when, everything there is to see, and who spent when |
//! | [`slots`] | which calls may be in the air, who waits, and who is next |
//!
//! Unit: API calls as Salesforce charges them (facts 1.3). Time: [`time::Timeline`], whole minutes.

mod account;
mod allotment;
pub mod bank;
mod book;
mod changes;
mod denied;
mod fair;
mod forecast;
mod gate;
mod ladder;
mod latch;
mod lease;
mod ledger;
mod pace;
pub mod ring;
pub mod settings;
mod sharing;
pub mod slots;
mod snapshot;
mod spending;
mod statement;
mod sweep;
mod terms;
#[cfg(test)]
mod tests;
pub mod time;
mod usage;

pub use changes::LOST_LEASES;
pub use denied::{Cause, Denied};
pub use forecast::{Forecast, Return};
pub use gate::Door;
pub use ladder::Level;
pub use lease::OnLoss;
pub use ledger::{Funding, LeaseEnded, Ledger, Reservation, Spent};
pub use pace::{Hurry, PaceBudget, PaceSettings, Pacer, TooFast, Verdict};
pub use settings::{AccountId, Blind, Ladder, Lending, Mode, OrgSettings, PerMille, Share};
pub use snapshot::{CallerBudget, CallerForecast, OrgBudget, Warning};
pub use spending::{Scale, Spending};
pub use terms::{Paid, Terms};
pub use time::{Minute, Timeline};
pub use usage::{Footing, Misread, Reading};
