//! HTTP/1.1 towards callers: one connection, one request at a time, polled by its driver (`edge::serve`).
//!
//! ```text
//! head.rs      the head of a request: read once, strictly              pure
//! scan.rs      where tokens and values end                             pure
//! tables.rs    which bytes may stand where                             pure
//! answer.rs    the head of an answer, and how its body is framed       pure
//! out.rs       what is on its way to the caller
//! pipe.rs      a request's body, between connection and reader
//! conn.rs      the connection
//! ```
//!
//! Invariants: the bytes that say where a request ends are the bytes that are obeyed, as nobody else reads them; a body
//! is read only as it is asked for; what a caller sends ahead is kept within a bound; a connection is used again only
//! if the whole request was read and the whole answer written.

mod answer;
mod conn;
mod head;
mod out;
mod pipe;
mod scan;
mod tables;
#[cfg(test)]
mod tests;

pub use head::{Head, HeadLimits, read};

pub(super) use answer::{Asked, last};
#[cfg(test)]
pub(super) use conn::PREFACE;
pub(super) use conn::{Conn, Next, Sent};
pub(super) use head::is_host_byte;
pub(super) use pipe::Demand;

/// Size of a buffer that is read into. Most heads fit several times.
pub(super) const BUFFER: usize = 8 * 1024;
