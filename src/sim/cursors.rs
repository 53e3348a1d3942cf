//! Query cursors: opaque, bound to a user, with an end (facts 1.8, must-have 14).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use smol_str::SmolStr;

use super::clock::Micros;
use super::errors::ApiError;
use super::ids;
use super::json::Json;

/// Cursors kept; the oldest is dropped for a new one.
const MOST: usize = 10_000;

#[derive(Debug)]
struct Cursor {
    user: usize,
    opened: Micros,
    records: Arc<Vec<Json>>,
    batch: usize,
}

/// All open cursors.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    open: BTreeMap<SmolStr, Cursor>,
    age: VecDeque<SmolStr>,
    last_number: u64,
}

/// One page.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) records: Vec<Json>,
    pub(super) total: usize,
    /// Locator of the page that follows.
    pub(super) next: Option<String>,
}

impl Cursors {
    /// The first page of a result, with a cursor for the rest if there is one.
    pub(super) fn open(&mut self, records: Vec<Json>, batch: usize, user: usize, now: Micros) -> Page {
        let total = records.len();
        if total <= batch {
            return Page { records, total, next: None };
        }
        self.last_number += 1;
        let id = ids::make("01g", self.last_number);
        let records = Arc::new(records);
        let first = records.iter().take(batch).cloned().collect();
        self.open.insert(id.clone(), Cursor { user, opened: now, records, batch });
        self.age.push_back(id.clone());
        if self.age.len() > MOST
            && let Some(oldest) = self.age.pop_front()
        {
            self.open.remove(&oldest);
        }
        Page { records: first, total, next: Some(format!("{id}-{batch}")) }
    }

    /// The page a locator names.
    pub(super) fn page(&self, locator: &str, user: usize, now: Micros, life: Micros) -> Result<Page, ApiError> {
        let invalid = || ApiError::new(400, "INVALID_QUERY_LOCATOR", "invalid query locator");
        let (id, offset) = locator.rsplit_once('-').ok_or_else(invalid)?;
        let offset: usize = offset.parse().map_err(|_| invalid())?;
        let cursor = self.open.get(id).ok_or_else(invalid)?;
        if cursor.user != user || now.saturating_sub(cursor.opened) >= life || offset > cursor.records.len() {
            return Err(invalid());
        }
        let end = (offset + cursor.batch).min(cursor.records.len());
        let next = (end < cursor.records.len()).then(|| format!("{id}-{end}"));
        let records = cursor.records.get(offset..end).unwrap_or_default().to_vec();
        Ok(Page { records, total: cursor.records.len(), next })
    }

    /// Forgets all cursors.
    pub(super) fn clear(&mut self) {
        self.open.clear();
        self.age.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_for_their_user_until_the_end() {
        let mut cursors = Cursors::default();
        let records: Vec<Json> = (0..5_i64).map(Json::Int).collect();
        let first = cursors.open(records, 2, 7, 100);
        let locator = first.next.unwrap();
        let second = cursors.page(&locator, 7, 150, 1_000).unwrap();
        assert_eq!(second.records, vec![Json::Int(2), Json::Int(3)]);
        let third = cursors.page(second.next.as_deref().unwrap(), 7, 150, 1_000).unwrap();
        assert_eq!(third.records, vec![Json::Int(4)]);
        assert_eq!(third.next, None);
        assert!(cursors.page(&locator, 8, 150, 1_000).is_err());
        assert!(cursors.page(&locator, 7, 1_100, 1_000).is_err());
        assert!(cursors.page("nonsense", 7, 150, 1_000).is_err());
    }
}
