//! Who may see and change what (facts 8): objects, fields and rows, for each user.

use std::collections::HashSet;

use smol_str::SmolStr;

use super::config::{SimRows, SimUser};
use super::ids;
use super::json::Json;
use super::schema::Schema;
use super::store::Row;

/// A user with its permissions resolved against the schema.
pub(super) struct User {
    pub(super) id: SmolStr,
    pub(super) username: SmolStr,
    pub(super) password: String,
    pub(super) view_setup: bool,
    pub(super) api_enabled: bool,
    rows: SimRows,
    hidden_objects: HashSet<usize>,
    hidden_fields: HashSet<(usize, usize)>,
    read_only: HashSet<usize>,
}

impl User {
    /// User `number` (from 0) of the org.
    pub(super) fn new(number: usize, config: &SimUser, schema: &Schema) -> Self {
        let objects = |names: &[String]| names.iter().filter_map(|name| schema.object(name)).collect();
        let hidden_fields = config
            .hidden_fields
            .iter()
            .filter_map(|path| {
                let (object, field) = path.split_once('.')?;
                let object = schema.object(object)?;
                Some((object, schema.objects[object].field(field)?))
            })
            .collect();
        Self {
            id: ids::make("005", number as u64 + 1),
            username: SmolStr::new(&config.username),
            password: config.password.clone(),
            view_setup: config.view_setup,
            api_enabled: config.api_enabled,
            rows: config.rows,
            hidden_objects: objects(&config.hidden_objects),
            hidden_fields,
            read_only: objects(&config.read_only_objects),
        }
    }

    pub(super) fn sees_object(&self, object: usize) -> bool {
        !self.hidden_objects.contains(&object)
    }

    pub(super) fn sees_field(&self, object: usize, field: usize) -> bool {
        !self.hidden_fields.contains(&(object, field))
    }

    pub(super) fn edits_object(&self, object: usize) -> bool {
        self.sees_object(object) && !self.read_only.contains(&object)
    }

    /// Whether the user sees this row; rows of objects without owners are seen by all who see the object.
    pub(super) fn sees_row(&self, schema: &Schema, object: usize, row: &Row) -> bool {
        if self.rows == SimRows::All {
            return true;
        }
        match schema.objects[object].owner() {
            Some(owner) => row.get(owner).and_then(Json::as_str) == Some(self.id.as_str()),
            None => true,
        }
    }

    /// Hides or shows a field from now on, as an administrator would.
    pub(super) fn set_field_hidden(&mut self, object: usize, field: usize, hidden: bool) {
        if hidden {
            self.hidden_fields.insert((object, field));
        } else {
            self.hidden_fields.remove(&(object, field));
        }
    }

    /// Which rows the user sees from now on.
    pub(super) fn set_rows(&mut self, rows: SimRows) {
        self.rows = rows;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_name_what_they_hide() {
        let schema = Schema::standard();
        let account = schema.object("Account").unwrap();
        let revenue = schema.objects[account].field("AnnualRevenue").unwrap();
        let config = SimUser {
            hidden_objects: vec!["Invoice__c".into()],
            hidden_fields: vec!["Account.AnnualRevenue".into()],
            rows: SimRows::Own,
            ..SimUser::named("x")
        };
        let mut user = User::new(4, &config, &schema);
        assert!(!user.sees_object(schema.object("Invoice__c").unwrap()));
        assert!(!user.sees_field(account, revenue));
        user.set_field_hidden(account, revenue, false);
        assert!(user.sees_field(account, revenue));
        let owner = schema.objects[account].owner().unwrap();
        let mut row: Row = vec![Json::Null; schema.objects[account].fields.len()];
        assert!(!user.sees_row(&schema, account, &row));
        row[owner] = Json::from(&user.id);
        assert!(user.sees_row(&schema, account, &row));
    }
}
