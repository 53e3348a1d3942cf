//! Creating, changing and deleting rows: the checks that every write form shares.

use std::sync::Arc;

use smol_str::SmolStr;

use super::clock::Micros;
use super::dates::{datetime_text, parse_date, parse_datetime};
use super::errors::ApiError;
use super::ids;
use super::json::Json;
use super::schema::{
    CREATED_BY, CREATED_DATE, Field, ID, IS_DELETED, Kind, MODIFIED_BY, MODIFIED_DATE, MODSTAMP, Schema,
};
use super::store::{Change, Row, is_deleted};
use super::world::{Maintenance, World};

/// Who writes, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer {
    pub(super) user: usize,
    pub(super) now: Micros,
}

/// What an upsert did.
#[derive(Debug, PartialEq)]
pub(super) enum Upserted {
    Created(SmolStr),
    Updated(SmolStr),
    /// Several rows have this value; nothing was done.
    Several(Vec<SmolStr>),
}

type Members<'a> = &'a [(SmolStr, Json)];

impl World {
    /// Finds an object the user sees.
    pub(super) fn visible_object(&self, user: usize, name: &str) -> Option<usize> {
        let object = self.schema.object(name)?;
        self.users.get(user)?.sees_object(object).then_some(object)
    }

    /// Finds a row the user sees by an id of 15 or 18 characters.
    pub(super) fn visible_row(&self, user: usize, object: usize, id: &str) -> Result<&Row, ApiError> {
        let missing = || ApiError::new(404, "NOT_FOUND", "The requested resource does not exist");
        let id = ids::to18(id).ok_or_else(missing)?;
        let row = self.store.row(object, &id).ok_or_else(missing)?;
        let user = self.users.get(user).ok_or_else(missing)?;
        if !user.sees_row(&self.schema, object, row) {
            return Err(missing());
        }
        if is_deleted(row) {
            return Err(ApiError {
                fields: Some(Vec::new()),
                ..ApiError::new(404, "ENTITY_IS_DELETED", "entity is deleted")
            });
        }
        Ok(row)
    }

    fn may_write(&self, writer: Writer, object: usize) -> Result<(), ApiError> {
        if self.maintenance == Maintenance::ReadOnly {
            return Err(ApiError::new(
                503,
                "INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE",
                "This organization is in read-only mode for maintenance",
            ));
        }
        let edits = self.users.get(writer.user).is_some_and(|user| user.edits_object(object));
        if edits {
            return Ok(());
        }
        Err(ApiError::dml("INSUFFICIENT_ACCESS_OR_READONLY", "insufficient access rights on object id", &[]))
    }

    /// Inserts a row.
    pub(super) fn create(&mut self, writer: Writer, object: usize, members: Members<'_>) -> Result<SmolStr, ApiError> {
        self.may_write(writer, object)?;
        let schema = Arc::clone(&self.schema);
        let definition = &schema.objects[object];
        let mut row: Row = definition
            .fields
            .iter()
            .map(|field| if field.kind == Kind::Boolean { Json::Bool(false) } else { Json::Null })
            .collect();
        let user = self.users.get(writer.user).map(|user| user.id.clone());
        if let Some(owner) = definition.owner() {
            row[owner] = Json::from(user.clone());
        }
        self.assign(writer, object, &mut row, members)?;
        let missing: Vec<&str> = definition
            .fields
            .iter()
            .zip(&row)
            .filter(|(field, value)| field.required && value.is_null())
            .map(|(field, _)| field.name.as_str())
            .collect();
        if !missing.is_empty() {
            let message = format!("Required fields are missing: [{}]", missing.join(", "));
            return Err(ApiError::dml("REQUIRED_FIELD_MISSING", message, &missing));
        }
        let id = self.store.next_id(object, definition.prefix);
        row[ID] = Json::from(&id);
        row[IS_DELETED] = Json::Bool(false);
        row[CREATED_DATE] = Json::from(datetime_text(writer.now));
        row[CREATED_BY] = Json::from(user);
        self.finish(writer, object, row, Change::Created)?;
        Ok(id)
    }

    /// Notes the size of a blob that came with a row just created.
    pub(super) fn set_blob_size(&mut self, object: usize, id: &str, bytes: u64) {
        let place = self.schema.objects[object].field("ContentSize");
        if let (Some(place), Some(row)) = (place, self.store.row(object, id)) {
            let mut row = row.clone();
            row[place] = Json::from(bytes);
            self.store.amend(object, id, row);
        }
    }

    /// Changes a row.
    pub(super) fn update(
        &mut self,
        writer: Writer,
        object: usize,
        id: &str,
        members: Members<'_>,
    ) -> Result<(), ApiError> {
        let mut row = self.visible_row(writer.user, object, id)?.clone();
        self.may_write(writer, object)?;
        self.assign(writer, object, &mut row, members)?;
        self.finish(writer, object, row, Change::Updated)
    }

    /// Puts a row into the recycle bin.
    pub(super) fn delete(&mut self, writer: Writer, object: usize, id: &str) -> Result<(), ApiError> {
        let mut row = self.visible_row(writer.user, object, id)?.clone();
        self.may_write(writer, object)?;
        row[IS_DELETED] = Json::Bool(true);
        self.finish(writer, object, row, Change::Deleted)
    }

    /// Inserts or changes the row whose external id field has this value.
    pub(super) fn upsert(
        &mut self,
        writer: Writer,
        object: usize,
        field: usize,
        value: &str,
        members: Members<'_>,
    ) -> Result<Upserted, ApiError> {
        let found = self.by_external_id(writer.user, object, field, value);
        match found.as_slice() {
            [] => {
                let name = self.schema.objects[object].fields[field].name.clone();
                let mut members = members.to_vec();
                members.retain(|(member, _)| !member.eq_ignore_ascii_case(&name));
                members.push((name, Json::from(value)));
                self.create(writer, object, &members).map(Upserted::Created)
            }
            [id] => self.update(writer, object, id, members).map(|()| Upserted::Updated(id.clone())),
            _ => Ok(Upserted::Several(found)),
        }
    }

    /// The rows the user sees whose external id field has this value, compared without regard to case.
    pub(super) fn by_external_id(&self, user: usize, object: usize, field: usize, value: &str) -> Vec<SmolStr> {
        let Some(user) = self.users.get(user) else { return Vec::new() };
        self.store
            .rows(object)
            .filter(|row| row.get(field).and_then(Json::as_str).is_some_and(|own| own.eq_ignore_ascii_case(value)))
            .filter(|row| !is_deleted(row) && user.sees_row(&self.schema, object, row))
            .filter_map(|row| row.get(ID).and_then(Json::as_str).map(SmolStr::new))
            .collect()
    }

    /// Finds an external id field (or `Id`) by name.
    pub(super) fn external_id_field(&self, user: usize, object: usize, name: &str) -> Result<usize, ApiError> {
        let definition = &self.schema.objects[object];
        let visible = |field: &usize| self.users.get(user).is_some_and(|user| user.sees_field(object, *field));
        definition
            .field(name)
            .filter(visible)
            .filter(|field| *field == ID || definition.fields[*field].external_id)
            .ok_or_else(|| {
                ApiError::new(
                    404,
                    "NOT_FOUND",
                    format!("Provided external ID field does not exist or is not accessible: {name}"),
                )
            })
    }

    fn assign(&self, writer: Writer, object: usize, row: &mut Row, members: Members<'_>) -> Result<(), ApiError> {
        let definition = &self.schema.objects[object];
        let user = self.users.get(writer.user).ok_or_else(ApiError::session)?;
        for (name, value) in members {
            if name == "attributes" {
                continue;
            }
            if let Some(field) = definition.relationship(name)
                && let Json::Obj(parent) = value
            {
                row[field] = self.parent_by_external_id(writer.user, &definition.fields[field], parent)?;
                continue;
            }
            let field = definition.field(name).filter(|field| user.sees_field(object, *field));
            let Some(at) = field else {
                let message = format!("No such column '{name}' on sobject of type {}", definition.name);
                return Err(ApiError::new(400, "INVALID_FIELD", message));
            };
            let field = &definition.fields[at];
            if !field.writable {
                let message = format!(
                    "Unable to create/update fields: {}. Please check the security settings of this field and \
                     verify that it is read/write for your profile or permission set.",
                    field.name
                );
                return Err(ApiError::dml("INVALID_FIELD_FOR_INSERT_UPDATE", message, &[&field.name]));
            }
            row[at] = self.fit(field, value)?;
            if field.required && row[at].is_null() {
                let message = format!("Required fields are missing: [{}]", field.name);
                return Err(ApiError::dml("REQUIRED_FIELD_MISSING", message, &[&field.name]));
            }
        }
        Ok(())
    }

    /// Resolves `"Account": {"Ext_Id__c": "x"}` to the parent's id.
    fn parent_by_external_id(&self, user: usize, field: &Field, parent: Members<'_>) -> Result<Json, ApiError> {
        let bad = |text: String| ApiError::dml("INVALID_FIELD", text, &[]);
        let member = parent.iter().find(|(name, _)| name != "attributes");
        let (Some((name, value)), Some(target)) = (member, field.refers.first()) else {
            return Err(bad(format!("Foreign key external ID missing for {}", field.name)));
        };
        let object = self.visible_object(user, target).ok_or_else(|| bad(format!("No access to {target}")))?;
        let key = self.external_id_field(user, object, name)?;
        match self.by_external_id(user, object, key, &value.plain()).as_slice() {
            [id] => Ok(Json::from(id)),
            _ => Err(bad(format!(
                "Foreign key external ID: {} not found for field {name} in entity {target}",
                value.plain()
            ))),
        }
    }

    /// Fits a JSON value to a field.
    fn fit(&self, field: &Field, value: &Json) -> Result<Json, ApiError> {
        let wrong = || {
            ApiError::parser(format!(
                "Cannot deserialize instance of {} from value of field {}",
                field.kind.describe(),
                field.name
            ))
        };
        match (field.kind, value) {
            (Kind::Boolean, Json::Null) => Ok(Json::Bool(false)),
            (_, Json::Null) => Ok(Json::Null),
            (_, Json::Str(text)) if text.is_empty() => Ok(Json::Null),
            (Kind::Boolean, Json::Bool(_)) => Ok(value.clone()),
            (Kind::Boolean, Json::Str(text)) => text.to_ascii_lowercase().parse().map(Json::Bool).map_err(|_| wrong()),
            (Kind::Int | Kind::Double | Kind::Currency, _) => self::number(field, value).ok_or_else(wrong),
            (Kind::Date, Json::Str(text)) => {
                let day = text.get(..10).and_then(parse_date).ok_or_else(wrong)?;
                Ok(Json::from(super::dates::date_text(day)))
            }
            (Kind::Datetime, Json::Str(text)) => Ok(Json::from(datetime_text(parse_datetime(text).ok_or_else(wrong)?))),
            (Kind::Reference, Json::Str(text)) => self.reference(field, text),
            (Kind::Blob, Json::Str(_)) => Ok(Json::Null),
            (_, Json::Arr(_) | Json::Obj(_)) => Err(wrong()),
            (_, scalar) => {
                let text = scalar.plain();
                if text.chars().count() > field.length {
                    let shown: String = text.chars().take(30).collect();
                    let message =
                        format!("{}: data value too large: {shown} (max length={})", field.name, field.length);
                    return Err(ApiError::dml("STRING_TOO_LONG", message, &[&field.name]));
                }
                Ok(Json::from(text))
            }
        }
    }

    fn reference(&self, field: &Field, text: &str) -> Result<Json, ApiError> {
        let malformed = || {
            let message = format!("{}: id value of incorrect type: {text}", field.name);
            ApiError::dml("MALFORMED_ID", message, &[&field.name])
        };
        let id = ids::to18(text).ok_or_else(malformed)?;
        let object = self.schema.object_of_id(&id).ok_or_else(malformed)?;
        let name = &self.schema.objects[object].name;
        if !field.refers.iter().any(|target| target == name) {
            return Err(malformed());
        }
        if self.store.live(object, &id).is_none() {
            return Err(ApiError::dml("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", &[]));
        }
        Ok(Json::from(id))
    }

    /// What every write ends with: derived names, uniqueness, stamps.
    fn finish(&mut self, writer: Writer, object: usize, mut row: Row, change: Change) -> Result<(), ApiError> {
        let schema = Arc::clone(&self.schema);
        derive_name(&schema, object, &mut row);
        if self.is_locked(object, &row) {
            return Err(ApiError::locked());
        }
        if change != Change::Deleted {
            self.check_unique(object, &row)?;
        }
        let stamp = Json::from(datetime_text(writer.now));
        row[MODIFIED_DATE] = stamp.clone();
        row[MODSTAMP] = stamp;
        row[MODIFIED_BY] = Json::from(self.users.get(writer.user).map(|user| user.id.clone()));
        self.store.put(object, row, change);
        Ok(())
    }

    fn check_unique(&self, object: usize, row: &Row) -> Result<(), ApiError> {
        let own = row.get(ID).and_then(Json::as_str);
        for (at, field) in self.schema.objects[object].fields.iter().enumerate().filter(|(_, field)| field.unique) {
            let Some(value) = row.get(at).and_then(Json::as_str) else { continue };
            let other = self.store.rows(object).find(|other| {
                !is_deleted(other)
                    && other.get(ID).and_then(Json::as_str) != own
                    && other.get(at).and_then(Json::as_str).is_some_and(|theirs| theirs.eq_ignore_ascii_case(value))
            });
            if let Some(id) = other.and_then(|other| other.get(ID)).and_then(Json::as_str) {
                let message = format!("duplicate value found: {} duplicates value on record with id: {id}", field.name);
                return Err(ApiError::dml("DUPLICATE_VALUE", message, &[]));
            }
        }
        Ok(())
    }
}

fn number(field: &Field, value: &Json) -> Option<Json> {
    let number = match value {
        Json::Str(text) => text.trim().parse::<f64>().ok()?,
        other => other.as_f64()?,
    };
    if !number.is_finite() {
        return None;
    }
    if field.kind == Kind::Int { Some(Json::Int(number.round() as i64)) } else { Some(Json::Num(number)) }
}

fn derive_name(schema: &Schema, object: usize, row: &mut Row) {
    let definition = &schema.objects[object];
    let (Some(first), Some(last), Some(name)) =
        (definition.field("FirstName"), definition.field("LastName"), definition.field("Name"))
    else {
        return;
    };
    let parts: Vec<&str> = [first, last].iter().filter_map(|at| row.get(*at).and_then(Json::as_str)).collect();
    let full = parts.join(" ");
    row[name] = Json::from(full);
}
