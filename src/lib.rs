//! Weirkeeper: an API gateway that meters, shares and protects a Salesforce org's API allowance.

pub mod call;
pub mod clock;
#[cfg(feature = "demo")]
pub mod sim;
pub mod tasks;
