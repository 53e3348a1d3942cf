//! Rows, and the undo log that makes `allOrNone` real.

use std::collections::BTreeMap;

use smol_str::SmolStr;

use super::ids;
use super::json::Json;
use super::schema::{ID, IS_DELETED, Schema};

/// One record: a value for each field of its object.
pub(super) type Row = Vec<Json>;

/// The rows of one object, by 18-character id.
#[derive(Debug, Default)]
struct Table {
    rows: BTreeMap<SmolStr, Row>,
    last_number: u64,
}

/// What a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Created,
    Updated,
    Deleted,
}

#[derive(Debug)]
struct Undo {
    object: usize,
    id: SmolStr,
    before: Option<Row>,
    change: Change,
}

/// All rows of the org.
#[derive(Debug)]
pub(super) struct Store {
    tables: Vec<Table>,
    undo: Vec<Undo>,
}

/// A point to roll back to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Savepoint(usize);

impl Store {
    pub(super) fn empty(schema: &Schema) -> Self {
        Self { tables: schema.objects.iter().map(|_| Table::default()).collect(), undo: Vec::new() }
    }

    /// The row, deleted or not.
    pub(super) fn row(&self, object: usize, id: &str) -> Option<&Row> {
        self.tables.get(object)?.rows.get(id)
    }

    /// The row unless it is deleted.
    pub(super) fn live(&self, object: usize, id: &str) -> Option<&Row> {
        self.row(object, id).filter(|row| !is_deleted(row))
    }

    /// All rows, also deleted ones, in the order of their ids.
    pub(super) fn rows(&self, object: usize) -> impl Iterator<Item = &Row> {
        self.tables.get(object).into_iter().flat_map(|table| table.rows.values())
    }

    /// A fresh id of an object.
    pub(super) fn next_id(&mut self, object: usize, prefix: &str) -> SmolStr {
        let table = &mut self.tables[object];
        table.last_number += 1;
        ids::make(prefix, table.last_number)
    }

    /// Puts a row, new or changed; it can be undone until [`Self::commit`].
    pub(super) fn put(&mut self, object: usize, row: Row, change: Change) {
        let id = row.get(ID).and_then(Json::as_str).map(SmolStr::new).unwrap_or_default();
        let before = self.tables[object].rows.insert(id.clone(), row);
        self.undo.push(Undo { object, id, before, change });
    }

    /// Completes a row that was put just before, without counting as a change of its own.
    pub(super) fn amend(&mut self, object: usize, id: &str, row: Row) {
        self.tables[object].rows.insert(SmolStr::new(id), row);
    }

    /// Where to return to if what follows fails.
    pub(super) fn savepoint(&self) -> Savepoint {
        Savepoint(self.undo.len())
    }

    /// Takes back everything since `to`.
    pub(super) fn roll_back(&mut self, to: Savepoint) {
        while self.undo.len() > to.0 {
            let Some(undo) = self.undo.pop() else { return };
            match undo.before {
                Some(row) => self.tables[undo.object].rows.insert(undo.id, row),
                None => self.tables[undo.object].rows.remove(&undo.id),
            };
        }
    }

    /// Makes everything final and returns what was done.
    pub(super) fn commit(&mut self) -> impl Iterator<Item = (usize, Change)> + '_ {
        self.undo.drain(..).map(|undo| (undo.object, undo.change))
    }
}

/// Whether the row lies in the recycle bin.
pub(super) fn is_deleted(row: &Row) -> bool {
    row.get(IS_DELETED) == Some(&Json::Bool(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rolling_back_restores_rows_exactly() {
        let schema = Schema::standard();
        let mut store = Store::empty(&schema);
        let id = store.next_id(0, "001");
        let row = |name: &str| vec![Json::from(&id), Json::Bool(false), Json::from(name)];
        store.put(0, row("first"), Change::Created);
        assert_eq!(store.commit().count(), 1);
        let savepoint = store.savepoint();
        store.put(0, row("second"), Change::Updated);
        let other = store.next_id(0, "001");
        store.put(0, vec![Json::from(&other), Json::Bool(false)], Change::Created);
        assert_eq!(store.rows(0).count(), 2);
        store.roll_back(savepoint);
        assert_eq!(store.rows(0).count(), 1);
        assert_eq!(store.live(0, &id), Some(&row("first")));
        assert_eq!(store.commit().count(), 0);
    }
}
