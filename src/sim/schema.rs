//! The objects of the simulated org: fields, key prefixes and relationships (facts 3.1, 7.5).

use std::collections::HashMap;

use smol_str::SmolStr;

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Id,
    Text,
    LongText,
    Boolean,
    Int,
    Double,
    Currency,
    Date,
    Datetime,
    Reference,
    Picklist,
    Email,
    Phone,
    Blob,
}

impl Kind {
    /// Describe's spelling.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Text => "string",
            Self::LongText => "textarea",
            Self::Boolean => "boolean",
            Self::Int => "int",
            Self::Double => "double",
            Self::Currency => "currency",
            Self::Date => "date",
            Self::Datetime => "datetime",
            Self::Reference => "reference",
            Self::Picklist => "picklist",
            Self::Email => "email",
            Self::Phone => "phone",
            Self::Blob => "base64",
        }
    }

    pub(super) fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::Double | Self::Currency)
    }
}

/// One field.
#[expect(clippy::struct_excessive_bools, reason = "each is a property of its own in the describe")]
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) name: SmolStr,
    pub(super) kind: Kind,
    pub(super) length: usize,
    /// Name of the way to the parent, for references.
    pub(super) relationship: Option<SmolStr>,
    /// Parents a reference may point to.
    pub(super) refers: Vec<SmolStr>,
    /// Name of the way from the parent back, if there is one.
    pub(super) child_relationship: Option<SmolStr>,
    pub(super) required: bool,
    pub(super) external_id: bool,
    pub(super) unique: bool,
    pub(super) writable: bool,
    pub(super) values: &'static [&'static str],
}

impl Field {
    pub(super) fn is_custom(&self) -> bool {
        self.name.ends_with("__c")
    }
}

fn field(name: &'static str, kind: Kind, length: usize) -> Field {
    Field {
        name: SmolStr::new_static(name),
        kind,
        length,
        relationship: None,
        refers: Vec::new(),
        child_relationship: None,
        required: false,
        external_id: false,
        unique: false,
        writable: true,
        values: &[],
    }
}

fn text(name: &'static str, length: usize) -> Field {
    field(name, Kind::Text, length)
}

fn number(name: &'static str, kind: Kind) -> Field {
    field(name, kind, 18)
}

fn choice(name: &'static str, values: &'static [&'static str]) -> Field {
    Field { values, ..field(name, Kind::Picklist, 255) }
}

/// A reference: field, way to the parent, parents, way back.
fn reference(name: &'static str, way: &'static str, parents: &[&'static str], back: Option<&'static str>) -> Field {
    Field {
        relationship: Some(SmolStr::new_static(way)),
        refers: parents.iter().map(|parent| SmolStr::new_static(parent)).collect(),
        child_relationship: back.map(SmolStr::new_static),
        ..field(name, Kind::Reference, 18)
    }
}

fn external_id(name: &'static str, unique: bool) -> Field {
    Field { external_id: true, unique, ..text(name, 64) }
}

fn required(field: Field) -> Field {
    Field { required: true, ..field }
}

fn read_only(field: Field) -> Field {
    Field { writable: false, ..field }
}

/// A way from a parent to its children.
#[derive(Debug, Clone)]
pub(super) struct Children {
    pub(super) relationship: Option<SmolStr>,
    /// Index of the child object in the schema.
    pub(super) object: usize,
    /// Index of the reference in the child object.
    pub(super) field: usize,
}

/// One object.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) name: SmolStr,
    pub(super) plural: &'static str,
    pub(super) prefix: &'static str,
    pub(super) fields: Vec<Field>,
    pub(super) children: Vec<Children>,
    by_name: HashMap<String, usize>,
}

/// Index of `Id` in every object.
pub(super) const ID: usize = 0;
/// Index of `IsDeleted` in every object.
pub(super) const IS_DELETED: usize = 1;
/// Index of `CreatedDate` in every object.
pub(super) const CREATED_DATE: usize = 2;
/// Index of `CreatedById` in every object.
pub(super) const CREATED_BY: usize = 3;
/// Index of `LastModifiedDate` in every object.
pub(super) const MODIFIED_DATE: usize = 4;
/// Index of `LastModifiedById` in every object.
pub(super) const MODIFIED_BY: usize = 5;
/// Index of `SystemModstamp` in every object.
pub(super) const MODSTAMP: usize = 6;

impl Object {
    fn new(name: &'static str, plural: &'static str, prefix: &'static str, owned: bool, own: Vec<Field>) -> Self {
        let mut fields = vec![
            read_only(field("Id", Kind::Id, 18)),
            read_only(field("IsDeleted", Kind::Boolean, 0)),
            read_only(field("CreatedDate", Kind::Datetime, 0)),
            read_only(reference("CreatedById", "CreatedBy", &["User"], None)),
            read_only(field("LastModifiedDate", Kind::Datetime, 0)),
            read_only(reference("LastModifiedById", "LastModifiedBy", &["User"], None)),
            read_only(field("SystemModstamp", Kind::Datetime, 0)),
        ];
        if owned {
            fields.push(reference("OwnerId", "Owner", &["User"], None));
        }
        fields.extend(own);
        let by_name = fields.iter().enumerate().map(|(at, field)| (field.name.to_ascii_lowercase(), at)).collect();
        Self { name: SmolStr::new_static(name), plural, prefix, fields, children: Vec::new(), by_name }
    }

    /// Finds a field, in any case (facts 0).
    pub(super) fn field(&self, name: &str) -> Option<usize> {
        match self.by_name.get(name) {
            Some(at) => Some(*at),
            None => self.by_name.get(&name.to_ascii_lowercase()).copied(),
        }
    }

    /// Finds a reference by the name of its way to the parent.
    pub(super) fn relationship(&self, name: &str) -> Option<usize> {
        self.fields
            .iter()
            .position(|field| field.relationship.as_ref().is_some_and(|way| way.eq_ignore_ascii_case(name)))
    }

    /// Finds a way to children.
    pub(super) fn child(&self, name: &str) -> Option<&Children> {
        self.children.iter().find(|child| child.relationship.as_ref().is_some_and(|way| way.eq_ignore_ascii_case(name)))
    }

    pub(super) fn is_custom(&self) -> bool {
        self.name.ends_with("__c")
    }

    /// Index of `OwnerId`, for objects that have owners.
    pub(super) fn owner(&self) -> Option<usize> {
        self.field("OwnerId")
    }
}

/// All objects.
#[derive(Debug)]
pub(super) struct Schema {
    pub(super) objects: Vec<Object>,
    by_name: HashMap<String, usize>,
}

impl Schema {
    /// The schema of every simulated org.
    pub(super) fn standard() -> Self {
        let mut objects = objects();
        let by_name: HashMap<String, usize> =
            objects.iter().enumerate().map(|(at, object)| (object.name.to_ascii_lowercase(), at)).collect();
        let mut ways = Vec::new();
        for (child, object) in objects.iter().enumerate() {
            for (at, field) in object.fields.iter().enumerate() {
                for parent in &field.refers {
                    if let Some(parent) = by_name.get(&parent.to_ascii_lowercase()) {
                        let relationship = field.child_relationship.clone();
                        ways.push((*parent, Children { relationship, object: child, field: at }));
                    }
                }
            }
        }
        for (parent, way) in ways {
            objects[parent].children.push(way);
        }
        Self { objects, by_name }
    }

    /// Finds an object, in any case.
    pub(super) fn object(&self, name: &str) -> Option<usize> {
        self.by_name.get(&name.to_ascii_lowercase()).copied()
    }

    /// Finds the object whose ids begin like `id`.
    pub(super) fn object_of_id(&self, id: &str) -> Option<usize> {
        let prefix = id.get(..3)?;
        self.objects.iter().position(|object| object.prefix == prefix)
    }
}

const STAGES: &[&str] = &["Prospecting", "Qualification", "Negotiation", "Closed Won", "Closed Lost"];
const INDUSTRIES: &[&str] = &["Agriculture", "Banking", "Energy", "Retail", "Technology"];

fn objects() -> Vec<Object> {
    use Kind::{Blob, Boolean, Currency, Date, Datetime, Double, Email, Int, LongText, Phone};
    vec![
        Object::new(
            "Account",
            "Accounts",
            "001",
            true,
            vec![
                required(text("Name", 255)),
                choice("Industry", INDUSTRIES),
                choice("Type", &["Customer", "Partner", "Prospect"]),
                field("Phone", Phone, 40),
                text("Website", 255),
                text("BillingCity", 40),
                text("BillingCountry", 80),
                number("AnnualRevenue", Currency),
                number("NumberOfEmployees", Int),
                field("Description", LongText, 32_000),
                reference("ParentId", "Parent", &["Account"], Some("ChildAccounts")),
                external_id("Ext_Id__c", false),
            ],
        ),
        Object::new(
            "Contact",
            "Contacts",
            "003",
            true,
            vec![
                reference("AccountId", "Account", &["Account"], Some("Contacts")),
                text("FirstName", 40),
                required(text("LastName", 80)),
                read_only(text("Name", 121)),
                field("Email", Email, 80),
                field("Phone", Phone, 40),
                text("Title", 128),
                field("Birthdate", Date, 0),
                field("HasOptedOutOfEmail", Boolean, 0),
                external_id("Ext_Id__c", true),
            ],
        ),
        Object::new(
            "Opportunity",
            "Opportunities",
            "006",
            true,
            vec![
                reference("AccountId", "Account", &["Account"], Some("Opportunities")),
                required(text("Name", 120)),
                required(choice("StageName", STAGES)),
                required(field("CloseDate", Date, 0)),
                number("Amount", Currency),
                number("Probability", Double),
                field("IsClosed", Boolean, 0),
            ],
        ),
        Object::new(
            "Case",
            "Cases",
            "500",
            true,
            vec![
                reference("AccountId", "Account", &["Account"], Some("Cases")),
                reference("ContactId", "Contact", &["Contact"], Some("Cases")),
                read_only(text("CaseNumber", 30)),
                text("Subject", 255),
                choice("Status", &["New", "Working", "Escalated", "Closed"]),
                choice("Priority", &["High", "Medium", "Low"]),
                choice("Origin", &["Phone", "Email", "Web"]),
                field("IsClosed", Boolean, 0),
            ],
        ),
        Object::new(
            "Lead",
            "Leads",
            "00Q",
            true,
            vec![
                text("FirstName", 40),
                required(text("LastName", 80)),
                read_only(text("Name", 121)),
                required(text("Company", 255)),
                field("Email", Email, 80),
                choice("Status", &["Open", "Contacted", "Qualified"]),
            ],
        ),
        Object::new(
            "Task",
            "Tasks",
            "00T",
            true,
            vec![
                reference("WhoId", "Who", &["Contact", "Lead"], Some("Tasks")),
                reference("WhatId", "What", &["Account", "Opportunity", "Case"], Some("Tasks")),
                text("Subject", 255),
                choice("Status", &["Not Started", "In Progress", "Completed"]),
                choice("Priority", &["High", "Normal", "Low"]),
                field("ActivityDate", Date, 0),
            ],
        ),
        Object::new(
            "User",
            "Users",
            "005",
            false,
            vec![
                required(text("Username", 80)),
                required(text("LastName", 80)),
                read_only(text("Name", 121)),
                field("Email", Email, 128),
                field("IsActive", Boolean, 0),
                text("TimeZoneSidKey", 40),
                text("LocaleSidKey", 40),
            ],
        ),
        Object::new(
            "Product2",
            "Products",
            "01t",
            false,
            vec![
                required(text("Name", 255)),
                text("ProductCode", 255),
                field("IsActive", Boolean, 0),
                field("Description", LongText, 4_000),
            ],
        ),
        Object::new(
            "Invoice__c",
            "Invoices",
            "a00",
            true,
            vec![
                text("Name", 80),
                reference("Account__c", "Account__r", &["Account"], Some("Invoices__r")),
                number("Amount__c", Currency),
                choice("Status__c", &["Draft", "Sent", "Paid"]),
                field("Due__c", Date, 0),
                field("Sent_At__c", Datetime, 0),
                external_id("Ext_Id__c", true),
            ],
        ),
        Object::new(
            "ContentVersion",
            "Content Versions",
            "068",
            true,
            vec![
                required(text("Title", 255)),
                text("PathOnClient", 500),
                read_only(number("ContentSize", Int)),
                field("VersionData", Blob, 0),
            ],
        ),
        Object::new(
            "Organization",
            "Organizations",
            "00D",
            false,
            vec![
                read_only(text("Name", 80)),
                read_only(text("InstanceName", 5)),
                read_only(field("IsSandbox", Boolean, 0)),
                read_only(text("OrganizationType", 40)),
            ],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case() {
        let schema = Schema::standard();
        let account = schema.object("aCCount").unwrap();
        assert_eq!(schema.objects[account].name, "Account");
        assert!(schema.objects[account].field("name").is_some());
        let contacts = schema.objects[account].child("contacts").unwrap();
        assert_eq!(schema.objects[contacts.object].name, "Contact");
        assert_eq!(schema.object_of_id("500Wk0000000001AAA"), schema.object("Case"));
    }

    #[test]
    fn system_fields_stand_where_the_constants_say() {
        for object in &Schema::standard().objects {
            for (at, name) in [
                (ID, "Id"),
                (IS_DELETED, "IsDeleted"),
                (CREATED_DATE, "CreatedDate"),
                (CREATED_BY, "CreatedById"),
                (MODIFIED_DATE, "LastModifiedDate"),
                (MODIFIED_BY, "LastModifiedById"),
                (MODSTAMP, "SystemModstamp"),
            ] {
                assert_eq!(object.fields[at].name, name);
            }
        }
    }
}
