//! All kept answers of the process, bounded by the bytes they take.

use std::sync::Arc;

use moka::sync::Cache;

use super::kept::Kept;

/// The store. Cloning is one reference count.
#[derive(Debug, Clone)]
pub struct Store {
    kept: Cache<Box<[u8]>, Arc<Kept>, ahash::RandomState>,
    bytes: u64,
}

impl Store {
    /// Room for `bytes`, keys and heads counted.
    pub fn new(bytes: u64) -> Self {
        let kept = Cache::builder().max_capacity(bytes).weigher(weight).build_with_hasher(ahash::RandomState::new());
        Self { kept, bytes }
    }

    /// The bytes there is room for.
    pub fn bound(&self) -> u64 {
        self.bytes
    }

    /// The answer kept under `key`.
    pub fn get(&self, key: &[u8]) -> Option<Arc<Kept>> {
        self.kept.get(key)
    }

    /// Keeps an answer; others make room at once.
    pub fn put(&self, key: &[u8], kept: Arc<Kept>) {
        self.kept.insert(key.into(), kept);
        self.kept.run_pending_tasks();
    }

    /// Bytes taken, and by how many answers.
    pub fn size(&self) -> (u64, u64) {
        self.kept.run_pending_tasks();
        (self.kept.weighted_size(), self.kept.entry_count())
    }

    /// Forgets all answers.
    pub fn clear(&self) {
        self.kept.invalidate_all();
        self.kept.run_pending_tasks();
    }
}

/// Bytes an answer takes, in the form the cache wants to be told.
#[expect(clippy::borrowed_box, reason = "the cache shows the key as it holds it")]
fn weight(_key: &Box<[u8]>, kept: &Arc<Kept>) -> u32 {
    u32::try_from(kept.weight()).unwrap_or(u32::MAX)
}
