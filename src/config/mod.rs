//! The configuration: what was written, and what it means.
//!
//! [`file`] mirrors the YAML file and defines it; [`model`] is what the program runs on.

mod file;
pub mod key;
mod model;
mod problem;
mod secret;
mod value;

pub use file::{AccessTo, PolicyMode, Roots};
pub use key::KeyDigest;
pub use model::{
    Admin, Allow, Caller, CertificateName, Config, Costs, EgressProxy, Jwks, JwtMatch, KeyPair, Limits, Listener, Log,
    Match, MetricCaps, Org, Origin, ServerTls, Totals, Upstream,
};
pub use problem::{Problem, Problems};
pub use secret::Secret;
