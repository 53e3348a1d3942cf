//! All promises, one file each, in one binary so that they are linked once.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod admin;
mod arrows;
mod cli;
mod client;
mod pki;
mod process;
mod reload;
mod serve;
mod upstream_tls;
