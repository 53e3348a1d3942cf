//! What HTTP/1.1 towards callers ([`crate::edge::http1`]) and towards Salesforce ([`crate::exchange::http1`]) have in
//! common.
//!
//! ```text
//! fields.rs    lengths, and fields after a body                pure
//! body.rs      a body, taken out of its framing                pure
//! shapes.rs    the fields heads usually have                   pure
//! buffers.rs   what connections read into and write from
//! ```

mod body;
mod buffers;
mod fields;
mod shapes;

pub use body::{Decoder, Framing, Malformed, Rules, Step};
pub use shapes::Shapes;

pub(crate) use buffers::Buffers;
pub(crate) use fields::{Role, length, trim_blanks};
pub(crate) use shapes::Fitting;
