//! Weirkeeper: an API gateway that meters, shares and protects a Salesforce org's API allowance.

pub mod admission;
pub mod body;
pub mod call;
pub mod clock;
pub mod outcome;
pub mod refusal;
pub mod tasks;
