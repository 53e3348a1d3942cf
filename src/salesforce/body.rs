//! Requests that cannot be understood from their head: containers of subrequests, collections, GraphQL, SOAP, new jobs.
//!
//! A body is scanned once, and what subrequests carry is passed over unread unless it holds requests or records of its
//! own. Every subrequest becomes a [`Part`], whatever it is nested in; a body that could be read in two ways (a member
//! given twice, or in another case) is an error, so that no spelling hides one.

use http::Method;

use super::cost::Costs;
use super::json::{self, Subrequest};
use super::path::is_api_name;
use super::{graphql, head, query_parts, soap};
use crate::call::{ApiCalls, Family, Idempotency, Meaning, ObjectName, Operation, Part, Reach};

/// Containers inside containers that are followed; Salesforce takes at most one inside a batch.
const MAX_DEPTH: u8 = 4;

/// Why a body could not be understood. Salesforce will refuse most of these itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BodyError {
    /// It is not JSON at all: XML, a form, compressed bytes.
    #[error("the body is not JSON")]
    NotJson,
    /// It is JSON that does not parse.
    #[error("the body is malformed JSON")]
    Json,
    /// It parses, but not as this resource's request, or it could be read in two ways.
    #[error("the body does not have the form of this request")]
    Shape,
    /// It is malformed XML, or in an encoding this gateway does not read.
    #[error("the body is malformed XML")]
    Xml,
    /// It has a document type.
    #[error("the body has a document type, which this gateway refuses")]
    Doctype,
    /// It is nested too deeply.
    #[error("the body is nested too deeply")]
    TooDeep,
    /// Its GraphQL document cannot be read.
    #[error("the GraphQL document cannot be read")]
    Graphql,
}

/// What a body has to be read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Composite,
    Batch,
    Graph,
    Records,
    Tree,
    Graphql,
    Soap(soap::Api),
    IngestJob,
    QueryJob,
    Bulk1Job,
    Search,
}

/// What has been found in a body so far.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) parts: Vec<Part>,
    /// The worst of the parts.
    pub(crate) idempotency: Idempotency,
    /// API calls of the parts that are charged one by one.
    pub(crate) cost: u32,
    /// A SOAP log-in is among them.
    pub(crate) login: bool,
}

impl Default for Found {
    fn default() -> Self {
        Self { parts: Vec::new(), idempotency: Idempotency::Safe, cost: 0, login: false }
    }
}

impl Found {
    /// Notes that one of the parts may only be repeated like this.
    pub(crate) fn weaken(&mut self, idempotency: Idempotency) {
        self.idempotency = self.idempotency.max(idempotency);
    }

    /// The object of a new job.
    pub(crate) fn job_object(&mut self, family: Family, name: &str) {
        self.parts.push(object_part(family, Operation::Job, name));
    }
}

fn object_part(family: Family, operation: Operation, name: &str) -> Part {
    let object = is_api_name(name).then(|| ObjectName::new(name));
    let reach = if object.is_some() { Reach::Named } else { Reach::Unknown };
    Part { family, operation, object, reach }
}

/// Whether `meaning` is incomplete until [`read_body`] has seen the body.
///
/// Composite, batch, graph, tree, collections, GraphQL and SOAP; also parameterised search and new Bulk jobs, whose
/// object stands in the body. CSV uploads and plain rows are never needed.
pub fn needs_body(meaning: &Meaning) -> bool {
    kind(meaning).is_some()
}

pub(crate) fn kind(meaning: &Meaning) -> Option<Kind> {
    let post = meaning.method == Method::POST;
    if !post && meaning.method != Method::PATCH {
        return None;
    }
    match meaning.family {
        Family::Rest | Family::Query | Family::Versions | Family::Other | Family::Oauth | Family::Apex => return None,
        _ => {}
    }
    let template = meaning.template;
    if let Some(soap) = template.strip_prefix("/services/Soap/") {
        let api = match soap.as_bytes().first() {
            Some(b'm') => soap::Api::Metadata,
            Some(b'u' | b'T') => soap::Api::Rows,
            Some(b'c') if !soap.starts_with("class") => soap::Api::Rows,
            _ => soap::Api::Code,
        };
        return post.then_some(Kind::Soap(api));
    }
    if template == "/services/async/{version}/job" {
        return post.then_some(Kind::Bulk1Job);
    }
    let tail = template.strip_prefix("/services/data/{version}")?;
    match tail.strip_prefix("/tooling").unwrap_or(tail) {
        "/composite" if post => Some(Kind::Composite),
        "/composite/batch" if post => Some(Kind::Batch),
        "/composite/graph" if post => Some(Kind::Graph),
        "/composite/tree/{object}" if post => Some(Kind::Tree),
        "/composite/sobjects" | "/composite/sobjects/{object}/Id" | "/composite/sobjects/{object}/{field}" => {
            Some(Kind::Records)
        }
        "/graphql" if post => Some(Kind::Graphql),
        "/jobs/ingest" if post => Some(Kind::IngestJob),
        "/jobs/query" if post => Some(Kind::QueryJob),
        "/parameterizedSearch" if post => Some(Kind::Search),
        _ => None,
    }
}

/// Completes `meaning` from its whole, uncompressed body: parts, and what follows from them for operation, object,
/// reach, cost and idempotency. Does nothing if the body is not needed.
///
/// On an error `meaning` stays as the head left it, which is the worst it can be: no parts, reach unknown, not
/// repeatable, for a batch the cost of a full one. A policy that judges parts must refuse it; else it can pass, and
/// [`charged`](super::charged) settles its cost by the status of the answer.
pub fn read_body(meaning: &mut Meaning, body: &[u8], costs: &Costs) -> Result<(), BodyError> {
    read(meaning, body, costs, 0)
}

fn read(meaning: &mut Meaning, body: &[u8], costs: &Costs, depth: u8) -> Result<(), BodyError> {
    let Some(kind) = kind(meaning) else { return Ok(()) };
    let mut found = Found::default();
    match kind {
        Kind::Composite | Kind::Batch | Kind::Graph => {
            if depth >= MAX_DEPTH {
                return Err(BodyError::TooDeep);
            }
            for request in json::subrequests(kind, body)? {
                subrequest(&request, kind, costs, depth, &mut found)?;
            }
        }
        Kind::Records | Kind::Tree => {
            let types = json::record_types(body, kind == Kind::Tree)?;
            let (family, operation) = (meaning.family, meaning.operation);
            let named = meaning.object.as_deref().into_iter().chain(types.names.iter().map(ObjectName::as_str));
            let mut known: Vec<Part> = Vec::with_capacity(types.names.len() + 2);
            for name in named {
                let part = object_part(family, operation, name);
                if !known.iter().any(|old| same_object(old, &part)) {
                    known.push(part);
                }
            }
            if types.unnamed {
                known.push(object_part(family, operation, ""));
            }
            found.parts = known;
            found.weaken(meaning.idempotency);
        }
        Kind::Graphql => {
            let request = json::graphql(body)?;
            graphql::subqueries(&request.query, request.operation.as_deref(), &mut found)?;
        }
        Kind::Soap(api) => soap::operations(body, api, &mut found)?,
        Kind::IngestJob => {
            found.job_object(meaning.family, json::member(body, "object")?.as_deref().unwrap_or_default());
            found.weaken(meaning.idempotency);
        }
        Kind::QueryJob => {
            let part =
                Part { family: meaning.family, operation: meaning.operation, object: None, reach: Reach::Unknown };
            query_parts(json::member(body, "query")?.as_deref().unwrap_or_default(), part, &mut found.parts);
            found.weaken(meaning.idempotency);
        }
        Kind::Bulk1Job => {
            match json::member(body, "object") {
                Err(BodyError::NotJson) => soap::job(body, &mut found)?,
                name => found.job_object(meaning.family, name?.as_deref().unwrap_or_default()),
            }
            found.weaken(meaning.idempotency);
        }
        Kind::Search => {
            let names = json::searched_objects(body)?;
            // A search without a list of objects goes through all of them.
            found.parts = match names.as_slice() {
                [] => vec![object_part(meaning.family, meaning.operation, "")],
                names => names.iter().map(|name| object_part(meaning.family, meaning.operation, name)).collect(),
            };
        }
    }
    merge(meaning, kind, found, costs);
    Ok(())
}

fn same_object(a: &Part, b: &Part) -> bool {
    match (&a.object, &b.object) {
        (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
        (None, None) => true,
        _ => false,
    }
}

/// Understands one subrequest like a request of its own, and takes its parts too.
fn subrequest(
    request: &Subrequest<'_>,
    container: Kind,
    costs: &Costs,
    depth: u8,
    found: &mut Found,
) -> Result<(), BodyError> {
    let method = Method::from_bytes(request.method.to_ascii_uppercase().as_bytes()).map_err(|_| BodyError::Shape)?;
    let mut meaning = if container == Kind::Batch && !is_absolute(&request.url) {
        // Batch urls begin with the version (facts 3.7).
        head(&method, &format!("/services/data/{}", request.url), costs)
    } else {
        head(&method, &request.url, costs)
    };
    read(&mut meaning, request.body.map_or(b"null", |body| body.get().as_bytes()), costs, depth + 1)?;
    found.cost = found.cost.saturating_add(meaning.cost.0.max(1));
    found.weaken(meaning.idempotency);
    let Meaning { family, operation, object, reach, parts, .. } = meaning;
    found.parts.push(Part { family, operation, object, reach });
    found.parts.extend(parts);
    Ok(())
}

fn is_absolute(url: &str) -> bool {
    url.trim_start_matches('/').get(..8).is_some_and(|start| start.eq_ignore_ascii_case("services"))
}

/// Draws the whole from its parts.
fn merge(meaning: &mut Meaning, kind: Kind, found: Found, costs: &Costs) {
    let parts = found.parts;
    meaning.idempotency = found.idempotency;
    meaning.reach = parts.iter().map(|part| part.reach).max().unwrap_or(Reach::Nothing);
    if let Some((first, rest)) = parts.split_first() {
        meaning.operation =
            if rest.iter().all(|part| part.operation == first.operation) { first.operation } else { Operation::Mixed };
        meaning.object = first.object.clone().filter(|_| rest.iter().all(|part| same_object(first, part)));
    }
    match kind {
        Kind::Batch => meaning.cost = ApiCalls(found.cost.max(1)),
        Kind::Graphql => {
            meaning.cost = ApiCalls(found.cost.max(1));
            // A query may have no connection field at all; it still only reads.
            if found.idempotency == Idempotency::Safe && parts.is_empty() {
                meaning.operation = Operation::Read;
            }
        }
        Kind::Soap(_) if found.login => meaning.cost = ApiCalls(costs.oauth),
        _ => {}
    }
    meaning.parts = parts.into_boxed_slice();
}
