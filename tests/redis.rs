//! Real stores for the promises of several replicas; see the file it includes.

#[path = "../src/store/testing.rs"]
mod testing;

#[expect(unused_imports, reason = "each promise takes what it needs")]
pub use testing::{Redis, Wire, free_port};
