//! The Salesforce identities the gateway holds, so that apps need not.
//!
//! ```text
//! Identity   identity.rs   the token in force; callers that wait for one
//!   LogIn    errand.rs     one errand at a time: to another replica's token, or to the token endpoint
//!   Core     core.rs       when to log in, when to wait, when to give up (pure)
//!   Logins   logins.rs     log-ins of the last hour (pure)
//!   Flow     flow.rs       what is sent to the token endpoint (pure)
//!   Answered answer.rs     what it answered (pure)
//!   post     ask.rs        one bounded request
//!   Sharing  sharing.rs    what other replicas are asked and told by way of a store
//!   Record   common.rs     what replicas know together, and which of them logs in (pure)
//!   Seal     seal.rs       nobody else reads it
//! ```
//!
//! Invariants: at most one log-in of an identity is under way, in all replicas together while their store answers; none is made before its back-off step has passed; a token
//! and a secret are wiped when nobody uses them any more, and appear in no text.

mod answer;
mod ask;
mod common;
mod core;
mod errand;
mod flow;
mod identity;
mod logins;
mod seal;
mod sharing;
#[cfg(test)]
mod sharing_tests;
#[cfg(test)]
mod tests;

pub use answer::User;
pub use ask::Endpoint;
pub use core::{State, Trouble};
pub use flow::{BadKey, Flow, Hidden, SigningKey};
pub use identity::{Identity, IdentitySnapshot, NoToken, Settings, Token};
pub use sharing::{NoAnswer, Seen, Shares, Sharing, Shelf, Swapped};
