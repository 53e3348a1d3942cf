//! MAKE: calls to Salesforce, over connections this runtime keeps open.
//!
//! The road of one call, in order:
//!
//! ```text
//! Upstream::send   upstream.rs   prepares the message, resends what was given back unsent
//!   Org            pool.rs       an idle connection, a new one, or a place in the queue for one
//!     Connector    connect.rs    name, TCP, egress proxy (proxy.rs), TLS (tls.rs)
//!   Conn           conn.rs       a connection while it is lent to a call: HTTP/1.1 (http1/) or a stream of HTTP/2 (http2.rs)
//!   Pending        pending.rs    waits for the head; keeps waiting if the caller has left
//!   UpstreamBody   body.rs       the body, on demand; read ahead of a slow caller (ahead.rs)
//!   Failure        failure.rs    what went wrong, whether it may have been sent, and the refusal that says so
//! vault            vault/        the Salesforce identities the gateway holds, and their tokens
//! Breaker          breaker.rs    who is not well is left alone, probed, and loaded slowly
//! retry            retry.rs      whether a call that failed is made once more, and when: attempts, budget, jitter
//! ```
//!
//! Invariants: a message is sent a second time only if its connection gives it back unsent; a message that was sent is not
//! cancelled because its caller left; every connection, queue place, buffered byte and task is given back.
//! Of Salesforce only the cost table is known here, because a call without its caller is settled too; no error codes and no
//! caches. What a failure means, and so whether a call may be repeated at all, is decided by the stages.

mod ahead;
mod body;
pub mod breaker;
mod conn;
mod connect;
mod failure;
pub mod http1;
mod http2;
mod io;
mod payer;
mod pending;
mod plan;
mod pool;
mod proxy;
pub mod retry;
mod stats;
mod tls;
mod upload;
mod upstream;
pub mod vault;

#[cfg(test)]
mod tests;

pub use body::UpstreamBody;
pub use connect::{Connector, MemoryDial, Origin, OriginError, Scheme};
pub use failure::{Cause, Failure, Sent};
pub use payer::{Nobody, Payer, Unpaid};
pub use plan::{Limits, Plan, Timeouts};
pub use proxy::Proxy;
pub use stats::{ConnectCounts, OrgStats};
pub use tls::{ClientIdentity, Roots, TlsSettings, TlsSetupError};
pub use upstream::{Target, Upstream};
