//! How books that replicas share stand, for operators.

use serde::Serialize;

/// How one org's shared books stand, as this replica last heard, and what it did there since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Replicas that the books know.
    pub replicas: u64,
    /// Calls that this replica may spend beyond its lease while it cannot reach the books.
    pub safe_share: u64,
    /// The books were lost, and not everybody has said again what it remembers.
    pub recovering: bool,
    /// How often they were lost.
    pub epochs: u64,
    /// Statements that were taken.
    pub taken: u64,
    /// Statements that could not be told.
    pub failed: u64,
}
