//! HTTP/1.1 towards Salesforce: one connection, one exchange at a time, polled by whoever waits for it.
//!
//! ```text
//! request.rs   the head of a request, and how its body is framed        pure
//! head.rs      the head of an answer, and how its body is framed         pure
//! shapes.rs    the fields answers usually have                          pure
//! body.rs      the body of an answer                                     pure
//! buffers.rs   what connections read into and write from
//! sending.rs   a request on its way out
//! wire.rs      the connection
//! ```
//!
//! Invariants: an answer is whole only if its framing says so; framing that can be read in two ways is refused (RFC 9112
//! section 11.2); a connection is used again only if not one byte is left over on it, in either direction; nothing is
//! read that nobody asked for, so that every buffer has a bound.

mod body;
mod buffers;
mod head;
mod request;
mod sending;
mod shapes;
#[cfg(test)]
mod tests;
mod wire;

pub use body::{Decoder, Malformed, Step};
pub use head::{Framing, Garbage, Head, HeadReader};
pub use shapes::Shapes;

pub(super) use buffers::Buffers;
pub(super) use wire::Connection;
