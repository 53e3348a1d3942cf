//! All promises, one file each, in one binary so that they are linked once.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]
#![allow(
    clippy::pedantic,
    clippy::needless_splitn,
    clippy::disallowed_methods,
    reason = "a test is read for its promise; its clock is its own"
)]

mod admin;
mod answers;
mod answers_asked;
mod answers_process;
mod answers_proof;
mod arrows;
mod blocking;
mod breakers_process;
mod budget;
mod budget_days;
mod budget_process;
mod cache_day;
mod callers;
mod charts;
mod cli;
mod client;
mod facade;
mod faults;
mod identities;
mod image;
mod limits;
mod limits_poll;
mod mending;
mod observed;
mod outage;
mod pacing;
mod page;
mod partial;
mod pki;
mod polls;
mod process;
mod queue;
mod readings;
mod readme;
mod redis;
mod reload;
mod remembered;
mod replicas_answers;
mod replicas_budget;
mod replicas_seen;
mod replicas_slots;
mod replicas_tokens;
mod retries;
mod sdk;
mod sdks;
mod seen;
mod serve;
mod shim;
mod slots;
mod state;
mod tools;
mod traces;
mod transparency;
mod upstream_tls;
mod uptime;
mod world;
