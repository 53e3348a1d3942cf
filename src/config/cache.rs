//! Answers from memory: what a configuration says of them, a part of [`super::file`], and what that means, a part of
//! [`super::model`].

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::value::{ApiName, FieldName, Name, Period, Size, Text};
use crate::call::{CallerId, Family, ObjectName, Operation, OrgId};

/// Which answers may be given from memory.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CacheFile {
    /// Whether anything is kept.
    pub mode: CacheMode,
    /// What is kept: the first entry that matches decides, and what none matches is not kept. Default: what objects look like,
    /// for an hour.
    pub entries: Vec<CacheEntryFile>,
    /// Memory for answers in the whole process, keys and heads counted.
    pub bytes: Text<Size>,
    /// Longer answers are not kept.
    pub largest: Text<Size>,
    /// A session gets answers from memory only if Salesforce has accepted it within this time.
    pub session_recheck: Text<Period>,
    /// Descriptions the gateway itself asks for in an hour, of each org, to learn where relationship names in queries lead; 0
    /// for none. They are calls of the callers whose queries need them.
    pub describes_per_hour: usize,
    /// Objects whose rows change when rows of another are written: roll-ups, formulas, triggers. By the object that is written.
    #[schemars(extend("propertyNames" = { "$ref": "#/definitions/ObjectName" }))]
    pub also_invalidates: BTreeMap<Text<ApiName>, Vec<Text<ApiName>>>,
    /// Callers whose sessions have the same rights in Salesforce, by their names: what is kept for one is given to the others too.
    /// Callers that act as one identity share anyway; nobody else does who is not named here.
    pub same_rights: Vec<Vec<Text<Name>>>,
    /// Request headers of your own that change no answer. A request with a header nobody knows is never answered from memory.
    pub harmless_headers: Vec<Text<FieldName>>,
    /// Requests that fail the same permanent way again and again.
    pub failures: FailuresFile,
}

/// Requests that fail the same permanent way three times in a row are answered with Salesforce's own words, without asking it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FailuresFile {
    /// Whether they are.
    pub mode: FailuresMode,
    /// How long, 30s at most; any change of what such a request is about ends it.
    #[serde(rename = "for")]
    pub lasts: Text<Period>,
    /// Whether writes are too. What ends it for them is a change of the schema, not of records.
    pub writes: bool,
}

impl Default for FailuresFile {
    fn default() -> Self {
        Self { mode: FailuresMode::Enforce, lasts: Text(Period(Duration::from_secs(30))), writes: false }
    }
}

/// What is done with requests that fail again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailuresMode {
    /// Nothing.
    Off,
    /// It is counted which could be answered from memory.
    Observe,
    /// They are answered from memory.
    Enforce,
}

impl Default for CacheFile {
    fn default() -> Self {
        let descriptions = CacheEntryFile {
            matches: CacheMatchFile { operations: Some(vec![Operation::Describe]), ..CacheMatchFile::default() },
            fresh: Some(Text(Period(Duration::from_hours(1)))),
            ..CacheEntryFile::default()
        };
        Self {
            mode: CacheMode::default(),
            entries: vec![descriptions],
            bytes: Text(Size(256 << 20)),
            largest: Text(Size(1 << 20)),
            session_recheck: Text(Period(Duration::from_mins(5))),
            describes_per_hour: 60,
            also_invalidates: BTreeMap::new(),
            same_rights: Vec::new(),
            harmless_headers: Vec::new(),
            failures: FailuresFile::default(),
        }
    }
}

/// Whether answers are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CacheMode {
    /// None is.
    Off,
    /// Those of the entries are.
    #[default]
    Enforce,
}

/// Some answers, and how long they are given out.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CacheEntryFile {
    /// Which.
    #[serde(rename = "match")]
    pub matches: CacheMatchFile,
    /// How long an answer is given out.
    #[schemars(required)]
    pub fresh: Option<Text<Period>>,
    /// How much longer it is given out in the place of a failure: Salesforce cannot be reached, or the calls are used up.
    pub stale_if_error: Text<Period>,
    /// How much longer it is given out while Salesforce is asked for a newer one, so that nobody waits for that.
    pub stale_while_revalidate: Text<Period>,
}

impl Default for CacheEntryFile {
    fn default() -> Self {
        Self {
            matches: CacheMatchFile::default(),
            fresh: None,
            stale_if_error: Text(Period(Duration::ZERO)),
            stale_while_revalidate: Text(Period(Duration::ZERO)),
        }
    }
}

/// Which answers an entry is about. A list that is absent matches all.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CacheMatchFile {
    /// Of these orgs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orgs: Option<Vec<Text<Name>>>,
    /// To these callers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callers: Option<Vec<Text<Name>>>,
    /// By these APIs: `rest`, `query`, `collections`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub families: Option<Vec<Family>>,
    /// About these objects; a query may read no others. Needed for `read` and `query`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objects: Option<Vec<Text<ApiName>>>,
    /// Of these reads: `describe`, `read` (rows by id or external id), `query`, `limits`.
    #[schemars(required)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operations: Option<Vec<Operation>>,
}

/// Which answers may be given from memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// In the order in which they are tried.
    pub entries: Vec<CacheEntry>,
    /// Memory for answers, in bytes.
    pub bytes: u64,
    /// Longer answers are not kept, in bytes.
    pub largest: usize,
    /// How long a session is entitled after Salesforce accepted it.
    pub session_recheck: Duration,
    /// Descriptions the gateway itself may ask for in an hour, of each org.
    pub describes_per_hour: usize,
    /// Objects whose rows change when rows of the first are written.
    pub also_invalidates: Vec<(ObjectName, Vec<ObjectName>)>,
    /// Callers whose sessions have the same rights.
    pub same_rights: Vec<Vec<CallerId>>,
    /// Request headers, in lower case, that change no answer.
    pub harmless_headers: Vec<Box<str>>,
    /// Which failures are remembered; `None`: none.
    pub failures: Option<RememberedFailures>,
}

/// Which failures are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RememberedFailures {
    /// Requests are answered from memory; else it is only counted that they could be.
    pub answers: bool,
    /// Writes are remembered too.
    pub writes: bool,
    /// How long.
    pub lasts: Duration,
}

/// Some answers, and how long they are given out. A list that is absent matches all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// Of these orgs.
    pub orgs: Option<Vec<OrgId>>,
    /// To these callers.
    pub callers: Option<Vec<CallerId>>,
    /// By these APIs.
    pub families: Option<Vec<Family>>,
    /// About these objects; always present if rows are kept.
    pub objects: Option<Vec<ObjectName>>,
    /// Of these reads: descriptions, rows, queries, limits.
    pub operations: Vec<Operation>,
    /// How long.
    pub fresh: Duration,
    /// How much longer in the place of a failure.
    pub stale_if_error: Duration,
    /// How much longer while Salesforce is asked again.
    pub stale_while_revalidate: Duration,
}
