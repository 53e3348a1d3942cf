//! The Salesforce identities the gateway holds, so that apps need not.
//!
//! ```text
//! Identity   identity.rs   the token in force; callers that wait for one; one log-in at a time
//!   Core     core.rs       when to log in, when to wait, when to give up (pure)
//!   Logins   logins.rs     log-ins of the last hour (pure)
//!   Flow     flow.rs       what is sent to the token endpoint (pure)
//!   Answered answer.rs     what it answered (pure)
//!   post     ask.rs        one bounded request
//! ```
//!
//! Invariants: at most one log-in of an identity is under way; none is made before its back-off step has passed; a token
//! and a secret are wiped when nobody uses them any more, and appear in no text.

mod answer;
mod ask;
mod core;
mod flow;
mod identity;
mod logins;
#[cfg(test)]
mod tests;

pub use answer::User;
pub use ask::Endpoint;
pub use core::{State, Trouble};
pub use flow::{BadKey, Flow, Hidden, SigningKey};
pub use identity::{Identity, IdentitySnapshot, NoToken, Settings, Token};
