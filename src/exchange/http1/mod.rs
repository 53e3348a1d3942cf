//! HTTP/1.1 towards Salesforce: one connection, one exchange at a time, polled by whoever waits for it.
//!
//! ```text
//! request.rs   the head of a request, and how its body is framed        pure
//! head.rs      the head of an answer, and how its body is framed         pure
//! sending.rs   a request on its way out
//! wire.rs      the connection
//! ```
//!
//! Invariants: an answer is whole only if its framing says so; framing that can be read in two ways is refused (RFC 9112
//! section 11.2); a connection is used again only if not one byte is left over on it, in either direction; nothing is
//! read that nobody asked for, so that every buffer has a bound.

mod head;
mod request;
mod sending;
#[cfg(test)]
mod tests;
mod wire;

pub use head::{Garbage, Head, HeadReader};

pub(super) use wire::Connection;
