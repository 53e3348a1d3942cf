//! A bank that forgets: for those who want no state, and for tests that own the clock.
//!
//! It answers at once and keeps nothing. A restart begins with an empty ledger, and with Salesforce's first reading.

use std::sync::Arc;

use super::{Bank, BankError, Lease, Past, Statement};

/// The bank of `state: memory`.
#[derive(Debug, Clone, Copy, Default)]
pub struct MemoryBank;

impl Bank for MemoryBank {
    async fn open(&self, _: &str) -> Result<Past, BankError> {
        Ok(Past::default())
    }

    async fn settle(&self, _: &str, statement: Arc<Statement>) -> Result<Lease, BankError> {
        Ok(statement.grant())
    }

    async fn close(&self, _: &str, _: Arc<Statement>) -> Result<(), BankError> {
        Ok(())
    }
}
