//! UNDERSTAND: what a request means to Salesforce, from its bytes alone.
//!
//! Pure knowledge: the path grammar and route table, the effective method, the cost table, what stands in bodies, the
//! forms of credentials, SOQL far enough to name its objects, and what Salesforce says of its own limits. Nothing here
//! does I/O, knows a clock or fails on any input; time is linear in the input, and what cannot be told is said to be
//! unknown, never guessed.
//!
//! [`understand`] reads the head. If [`needs_body`], the stage in front collects the body and calls [`read_body`].

mod body;
mod cost;
mod credential;
mod data;
mod fingerprint;
mod graphql;
mod json;
mod method;
mod path;
mod route;
mod session;
mod soap;
pub mod soql;
mod steady;
pub mod taxonomy;
mod urls;
mod usage;
mod xml;

use http::Method;
use memchr::memchr;

pub use body::{BodyError, needs_body, read_body};
pub use cost::{Costs, charged, charged_if_refused};
pub use credential::{Credential, CredentialError, Form, PrincipalKey, credentials, principal};
pub use fingerprint::fingerprint;
pub use session::{SoapLogin, is_soap_login, session_error, soap_login, with_session};
pub use soap::usage as soap_usage;
pub use steady::{only_row, query_reads, steady_query};
pub use urls::{Urls, with_origin};
pub use usage::{LimitInfo, Usage, daily_requests};

use crate::call::{Family, Idempotency, Meaning, Operation, Part, Reach};
use method::{Effective, Parameter};

/// Understands a request from its method and its path with query, as they stand on the request line.
///
/// Headers do not change what a request means, only how it is answered. For calls that [`needs_body`] names the result
/// is the worst the body can make of it.
pub fn understand(method: &Method, path_and_query: &str, costs: &Costs) -> Meaning {
    head(method, path_and_query, costs)
}

fn head(method: &Method, path_and_query: &str, costs: &Costs) -> Meaning {
    let (path, query) = memchr(b'?', path_and_query.as_bytes())
        .and_then(|at| Some((path_and_query.get(..at)?, path_and_query.get(at + 1..)?)))
        .unwrap_or((path_and_query, ""));
    let route = route::find(path);
    let spot = route.spot;
    let effective = method::effective(method, query);
    let (method, operation, idempotency) = match effective {
        Effective::Certain(method) => {
            let (operation, idempotency) = spot.does.by(&method);
            (method, operation, idempotency)
        }
        Effective::Doubtful => (Method::POST, Operation::Unknown, Idempotency::Unsafe),
    };
    let mut meaning = Meaning {
        family: spot.family,
        operation,
        object: route.object,
        reach: spot.reach,
        template: spot.template,
        version: route.version,
        cost: spot.price.at_most(costs),
        idempotency,
        long_poll: spot.family == Family::Cometd && method == Method::POST,
        method,
        parts: Box::default(),
    };
    if operation == Operation::Query && spot.reach == Reach::Unknown {
        read_query(&mut meaning, query);
    }
    meaning
}

/// The objects of `?q=` or `?explain=`.
fn read_query(meaning: &mut Meaning, query: &str) {
    let soql = match (method::only(query, "q"), method::only(query, "explain")) {
        (Parameter::One(soql), Parameter::Absent) => soql,
        (Parameter::Absent, Parameter::One(soql)) => {
            meaning.template = match meaning.template {
                "/services/data/{version}/tooling/query" => "/services/data/{version}/tooling/query?explain",
                "/services/data/{version}/queryAll" => "/services/data/{version}/queryAll?explain",
                _ => "/services/data/{version}/query?explain",
            };
            soql
        }
        _ => return,
    };
    let mut parts = Vec::new();
    let part = Part { family: meaning.family, operation: meaning.operation, object: None, reach: Reach::Unknown };
    query_parts(&soql, part, &mut parts);
    let mut parts = parts.into_iter();
    if let Some(outer) = parts.next() {
        meaning.object = outer.object;
        meaning.reach = outer.reach;
    }
    meaning.parts = parts.collect();
}

/// Adds one part for the FROM object of `soql`, like `part`, and one for each semi-join.
fn query_parts(soql: &str, part: Part, parts: &mut Vec<Part>) {
    let Ok(objects) = soql::objects(soql) else {
        parts.push(part);
        return;
    };
    let reach = if objects.relationships.is_empty() { Reach::Named } else { Reach::Related };
    parts.push(Part { object: Some(objects.from), reach, ..part });
    parts.extend(objects.semi_joins.into_iter().map(|object| Part {
        object: Some(object),
        reach: Reach::Named,
        ..part
    }));
}

#[cfg(test)]
mod body_tests;
#[cfg(test)]
mod soql_tests;
#[cfg(test)]
mod tests;
