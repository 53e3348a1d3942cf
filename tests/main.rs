//! All promises, one file each, in one binary so that they are linked once.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod arrows;
mod blocking;
mod callers;
mod client;
mod identities;
mod observed;
mod pki;
mod process;
mod sdk;
mod transparency;
mod world;
