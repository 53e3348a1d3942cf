//! Fills an org with records that are always the same for the same seed.

use smol_str::SmolStr;

use super::access::User;
use super::clock::{DAY, Micros, SECOND};
use super::config::{ORG_ID, SimConfig};
use super::dates::{date_text, datetime_text, day_of};
use super::json::Json;
use super::schema::{
    CREATED_BY, CREATED_DATE, ID, IS_DELETED, Kind, MODIFIED_BY, MODIFIED_DATE, MODSTAMP, Object, Schema,
};
use super::store::{Change, Row, Store};

const FIRST: &[&str] = &["Ada", "Ben", "Chloe", "Dmitri", "Elif", "Farid", "Grace", "Hugo", "Ines", "Jonas"];
const LAST: &[&str] = &["Abel", "Brandt", "Costa", "Dorsey", "Engel", "Farrow", "Garza", "Holt", "Ivanova", "Jansen"];
const NOUNS: &[&str] = &["Harbour", "Summit", "Willow", "Granite", "Lantern", "Juniper", "Falcon", "Meadow"];
const FORMS: &[&str] = &["Ltd", "GmbH", "Inc", "SA", "Group"];
const CITIES: &[(&str, &str)] =
    &[("Bremen", "Germany"), ("Lyon", "France"), ("Porto", "Portugal"), ("Leeds", "United Kingdom"), ("Reno", "USA")];

/// Makes all rows of a new org.
pub(super) fn fill(schema: &Schema, users: &[User], config: &SimConfig, now: Micros) -> Store {
    let mut seeder = Seeder {
        schema,
        users,
        rng: fastrand::Rng::with_seed(config.seed),
        store: Store::empty(schema),
        ids: vec![Vec::new(); schema.objects.len()],
        now,
    };
    for (at, object) in schema.objects.iter().enumerate() {
        if matches!(object.name.as_str(), "User" | "Organization" | "ContentVersion") {
            continue;
        }
        for number in 0..config.records_of.get(object.name.as_str()).copied().unwrap_or(config.records) {
            seeder.record(at, object, number);
        }
    }
    seeder.users();
    seeder.organization();
    seeder.blobs(&config.blob_bytes);
    seeder.store.commit().for_each(drop);
    seeder.store
}

struct Seeder<'a> {
    schema: &'a Schema,
    users: &'a [User],
    rng: fastrand::Rng,
    store: Store,
    ids: Vec<Vec<SmolStr>>,
    now: Micros,
}

impl Seeder<'_> {
    fn record(&mut self, at: usize, object: &Object, number: usize) {
        let id = self.store.next_id(at, object.prefix);
        let mut row = self.system_fields(object, &id);
        for (place, field) in object.fields.iter().enumerate().skip(MODSTAMP + 1) {
            row[place] = self.value(object, place, number);
            if field.name == "Name" && matches!(object.name.as_str(), "Contact" | "Lead") {
                let part = |name| object.field(name).and_then(|at| row[at].as_str()).unwrap_or_default().to_owned();
                row[place] = Json::from(format!("{} {}", part("FirstName"), part("LastName")));
            }
        }
        self.ids[at].push(id);
        self.store.put(at, row, Change::Created);
    }

    fn system_fields(&mut self, object: &Object, id: &SmolStr) -> Row {
        let mut row: Row = vec![Json::Null; object.fields.len()];
        let age = self.rng.u64(DAY..300 * DAY);
        // Whole seconds, as the real timestamps have them.
        let created = self.now.saturating_sub(age) / SECOND * SECOND;
        let creator = self.users.first().map(|user| user.id.clone());
        row[ID] = Json::from(id);
        row[IS_DELETED] = Json::Bool(false);
        for place in [CREATED_DATE, MODIFIED_DATE, MODSTAMP] {
            row[place] = Json::from(datetime_text(created));
        }
        for place in [CREATED_BY, MODIFIED_BY] {
            row[place] = Json::from(creator.clone());
        }
        row
    }

    fn pick<'s>(&mut self, from: &[&'s str]) -> &'s str {
        from.get(self.rng.usize(0..from.len().max(1))).copied().unwrap_or_default()
    }

    fn value(&mut self, object: &Object, place: usize, number: usize) -> Json {
        let field = &object.fields[place];
        match field.name.as_str() {
            "OwnerId" => {
                let owners = self.users.len().max(1);
                return Json::from(self.users.get(number % owners).map(|user| user.id.clone()));
            }
            "Ext_Id__c" => return Json::from(format!("{}-{:05}", object.name.trim_end_matches("__c"), number + 1)),
            "CaseNumber" => return Json::from(format!("{:08}", number + 1_001)),
            "ProductCode" => return Json::from(format!("P-{:04}", number + 1)),
            "FirstName" => return Json::from(self.pick(FIRST)),
            "LastName" => return Json::from(self.pick(LAST)),
            "Company" => return Json::from(self.company()),
            "BillingCity" => return Json::from(self.place().0),
            "BillingCountry" => return Json::from(self.place().1),
            "Website" => return Json::from(format!("https://company-{}.example", number + 1)),
            "Subject" => return Json::from(format!("{} {}", self.pick(NOUNS), number + 1)),
            "ParentId" => return Json::Null,
            "Name" if object.name == "Account" => return Json::from(format!("{} {}", self.company(), number + 1)),
            "Name" => return Json::from(format!("{} {:05}", object.name.trim_end_matches("__c"), number + 1)),
            _ => {}
        }
        self.value_of_kind(object, place, number)
    }

    fn value_of_kind(&mut self, object: &Object, place: usize, number: usize) -> Json {
        let field = &object.fields[place];
        // A tenth of what may be empty is empty, so that null is met everywhere.
        if !field.required && self.rng.u8(0..10) == 0 {
            return if field.kind == Kind::Boolean { Json::Bool(false) } else { Json::Null };
        }
        match field.kind {
            Kind::Boolean => Json::Bool(self.rng.bool()),
            Kind::Int => Json::Int(self.rng.i64(1..5_000)),
            Kind::Double => Json::Num(self.rng.i64(0..=100) as f64),
            Kind::Currency => Json::Num(self.rng.i64(100..1_000_000) as f64),
            Kind::Date => Json::from(date_text(day_of(self.now) - self.rng.i64(-90..270))),
            Kind::Datetime => Json::from(datetime_text(self.now.saturating_sub(self.rng.u64(0..90 * DAY)))),
            Kind::Picklist => Json::from(self.pick(field.values)),
            Kind::Email => Json::from(format!("person{}@company.example", number + 1)),
            Kind::Phone => Json::from(format!("+49 421 {:06}", self.rng.u32(0..1_000_000))),
            Kind::Reference => self.parent(&field.refers),
            Kind::Text | Kind::LongText => Json::from(format!("{} {}", self.pick(NOUNS), number + 1)),
            Kind::Id | Kind::Blob => Json::Null,
        }
    }

    /// A record that exists already; parents stand before their children in the schema.
    fn parent(&mut self, refers: &[SmolStr]) -> Json {
        let names: Vec<&str> = refers.iter().map(SmolStr::as_str).collect();
        let Some(object) = self.schema.object(self.pick(&names)) else { return Json::Null };
        let count = self.ids[object].len();
        if count == 0 {
            return Json::Null;
        }
        let at = self.rng.usize(0..count);
        Json::from(self.ids[object].get(at))
    }

    fn company(&mut self) -> String {
        format!("{} {}", self.pick(NOUNS), self.pick(FORMS))
    }

    fn place(&mut self) -> (&'static str, &'static str) {
        CITIES.get(self.rng.usize(0..CITIES.len())).copied().unwrap_or_default()
    }

    fn users(&mut self) {
        let Some(at) = self.schema.object("User") else { return };
        let object = &self.schema.objects[at];
        for user in self.users {
            // The users' ids are the first ones of their object.
            let id = self.store.next_id(at, object.prefix);
            debug_assert_eq!(id, user.id);
            let mut row = self.system_fields(object, &id);
            let name = user.username.split('@').next().unwrap_or_default();
            for (field, value) in [
                ("Username", Json::from(&user.username)),
                ("LastName", Json::from(name)),
                ("Name", Json::from(name)),
                ("Email", Json::from(&user.username)),
                ("IsActive", Json::Bool(true)),
                ("TimeZoneSidKey", Json::from("Europe/Berlin")),
                ("LocaleSidKey", Json::from("en_US")),
            ] {
                if let Some(place) = object.field(field) {
                    row[place] = value;
                }
            }
            self.store.put(at, row, Change::Created);
        }
    }

    fn organization(&mut self) {
        let Some(at) = self.schema.object("Organization") else { return };
        let object = &self.schema.objects[at];
        let mut row = self.system_fields(object, &SmolStr::new_static(ORG_ID));
        for (field, value) in [
            ("Name", Json::from("Simulated Org")),
            ("InstanceName", Json::from("SIM1")),
            ("IsSandbox", Json::Bool(true)),
            ("OrganizationType", Json::from("Enterprise Edition")),
        ] {
            if let Some(place) = object.field(field) {
                row[place] = value;
            }
        }
        self.store.put(at, row, Change::Created);
    }

    fn blobs(&mut self, sizes: &[u64]) {
        let Some(at) = self.schema.object("ContentVersion") else { return };
        let object = &self.schema.objects[at];
        for (number, size) in sizes.iter().enumerate() {
            let id = self.store.next_id(at, object.prefix);
            let mut row = self.system_fields(object, &id);
            for (field, value) in [
                ("Title", Json::from(format!("File {}", number + 1))),
                ("PathOnClient", Json::from(format!("file-{}.bin", number + 1))),
                ("ContentSize", Json::from(*size)),
                ("VersionData", Json::from(format!("/services/data/v62.0/sobjects/ContentVersion/{id}/VersionData"))),
                ("OwnerId", Json::from(self.users.first().map(|user| user.id.clone()))),
            ] {
                if let Some(place) = object.field(field) {
                    row[place] = value;
                }
            }
            self.store.put(at, row, Change::Created);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_org() {
        let schema = Schema::standard();
        let config = SimConfig { records: 20, ..SimConfig::default() };
        let users: Vec<User> = config.users.iter().enumerate().map(|(at, user)| User::new(at, user, &schema)).collect();
        let now = 20_000 * DAY;
        let first = fill(&schema, &users, &config, now);
        let second = fill(&schema, &users, &config, now);
        let other = fill(&schema, &users, &SimConfig { seed: 2, ..config.clone() }, now);
        let rows = |store: &Store| -> Vec<Row> {
            (0..schema.objects.len()).flat_map(|object| store.rows(object).cloned()).collect()
        };
        assert_eq!(rows(&first), rows(&second));
        assert_ne!(rows(&first), rows(&other));
        let contact = schema.object("Contact").unwrap();
        let account = schema.objects[contact].field("AccountId").unwrap();
        assert!(first.rows(contact).any(|row| !row[account].is_null()));
    }
}
