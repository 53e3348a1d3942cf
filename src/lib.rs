//! Weirkeeper: an API gateway that meters, shares and protects a Salesforce org's API allowance.

pub mod admin;
pub mod body;
pub mod call;
pub mod cli;
pub mod clock;
pub mod config;
pub mod edge;
pub mod exchange;
pub mod gateway;
pub mod live;
pub mod outcome;
pub mod refusal;
pub mod salesforce;
#[cfg(feature = "demo")]
pub mod sim;
pub mod stack;
pub mod stages;
pub mod tasks;
pub mod telemetry;
