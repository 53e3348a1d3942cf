//! The edge: where a caller's connection is met, read strictly, and answered.
//!
//! In travel order: [`listener`] binds, [`workers`] deals accepted sockets to runtimes, [`tls`] proves who speaks,
//! [`serve`](serve::serve) drives one connection, [`http1`] reads and writes it strictly, [`inbound`] is the request's body, [`facts`], [`target`], [`headers`] and [`proxies`] are the rules for its head, and [`refuse`] writes the
//! gateway's own answers. Nothing here knows what a request means; who calls is decided elsewhere.

mod adapter;
pub mod callers;
pub mod connection;
pub mod drain;
pub mod facade;
pub mod facts;
pub mod fault;
pub mod headers;
pub mod http1;
mod http2;
pub mod inbound;
pub mod jwt;
pub mod limits;
pub mod listener;
pub mod pace;
pub mod pem;
pub mod proxies;
pub mod refuse;
pub mod remembered;
mod room;
pub mod serve;
pub mod target;
pub mod tls;
pub mod trace;
mod wire;
pub mod workers;

pub use adapter::EdgeService;
pub use connection::{Arrival, Connection, PeerCertificate};
pub use drain::Drain;
pub use inbound::{Gathered, Inbound};
pub use limits::{Counts, Edge, Limits};
pub use listener::Listener;
pub use refuse::{RefusalContext, Shape};
pub use serve::serve;
pub use tls::Tls;
pub use workers::{WorkerSettings, Workers};
