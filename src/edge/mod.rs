//! The edge: where a caller's connection is met, read strictly, and answered.
//!
//! In travel order: [`serve`](serve::serve) drives one connection with [`framing`] watching the raw bytes, [`inbound`] is the
//! request's body, [`refuse`] writes the
//! gateway's own answers. Nothing here knows what a request means; who calls is decided elsewhere.

mod adapter;
pub mod callers;
pub mod connection;
pub mod drain;
pub mod framing;
pub mod headers;
mod http2;
pub mod inbound;
pub mod jwt;
pub mod limits;
pub mod pace;
pub mod pem;
pub mod proxies;
pub mod refuse;
pub mod remembered;
pub mod serve;
pub mod target;
mod wire;

pub use adapter::EdgeService;
pub use connection::{Arrival, Connection, PeerCertificate};
pub use drain::Drain;
pub use inbound::{Gathered, Inbound};
pub use limits::{Counts, Edge, Limits};
pub use refuse::{RefusalContext, Shape};
pub use serve::serve;
