//! Weirkeeper: an API gateway that meters, shares and protects a Salesforce org's API allowance.

pub mod call;
pub mod clock;
pub mod salesforce;
pub mod tasks;
