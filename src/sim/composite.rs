//! `/composite`: up to 25 subrequests that may refer to each other, one call in all (facts 3.6).

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::answer::Answer;
use super::errors::ApiError;
use super::json::{Json, obj};
use super::request::{Head, Req, version};
use super::route;
use super::world::World;

/// Most subrequests.
const MOST: usize = 25;
/// Most of them that may be queries or collections.
const MOST_HEAVY: usize = 5;

/// Runs a composite request.
pub(super) fn handle(world: &mut World, req: &Req<'_>) -> Result<Answer, ApiError> {
    let body = Json::parse(req.body).map_err(ApiError::parser)?;
    let all_or_none = body.get("allOrNone").and_then(Json::as_bool).unwrap_or(false);
    let list = body.get("compositeRequest").map(Json::items).unwrap_or_default();
    if list.is_empty() {
        return Err(ApiError::parser("compositeRequest is missing or empty"));
    }
    let heavy = list.iter().filter(|request| is_heavy(request)).count();
    if list.len() > MOST || heavy > MOST_HEAVY {
        let message = if list.len() > MOST {
            format!("The request can’t contain more than {MOST} operations.")
        } else {
            format!("The request can’t contain more than {MOST_HEAVY} query or collection operations.")
        };
        return Ok(Answer::ok(refused(&message)));
    }
    let subs = list.iter().map(Sub::read).collect::<Result<Vec<_>, _>>()?;
    let mut names: Vec<&str> = subs.iter().map(|sub| sub.reference.as_str()).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(ApiError::new(400, "INVALID_INPUT", "Duplicate reference id in the request"));
    }
    let (results, _) = run(world, req, &subs, all_or_none);
    Ok(Answer::ok(obj! {"compositeResponse": Json::Arr(results)}))
}

fn is_heavy(request: &Json) -> bool {
    let url = request.text("url").unwrap_or_default();
    url.contains("/query") || url.contains("/composite/sobjects")
}

fn refused(message: &str) -> Json {
    let error = ApiError::new(400, "LIMIT_EXCEEDED", message.to_owned());
    let entry = obj! {
        "body": error.array(),
        "httpHeaders": obj! {},
        "httpStatusCode": 400_u16,
        "referenceId": Json::Null,
    };
    obj! {"compositeResponse": Json::Arr(vec![entry])}
}

/// One subrequest as written.
#[derive(Debug, Clone)]
pub(super) struct Sub {
    method: Method,
    url: String,
    pub(super) reference: String,
    headers: HeaderMap,
    body: Json,
}

impl Sub {
    /// Reads one; what is wrong with it fails the whole request.
    pub(super) fn read(request: &Json) -> Result<Self, ApiError> {
        let invalid = |message: &'static str| ApiError::new(400, "INVALID_INPUT", message);
        let method = request.text("method").unwrap_or("GET").to_ascii_uppercase();
        let reference = request.text("referenceId").unwrap_or_default();
        let legal =
            reference.bytes().enumerate().all(|(at, byte)| byte.is_ascii_alphanumeric() || (at > 0 && byte == b'_'));
        if reference.is_empty() || !legal {
            return Err(invalid(
                "A reference id must begin with a letter or digit and hold only letters, digits and _",
            ));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in request.get("httpHeaders").map(Json::members).unwrap_or_default() {
            if ["accept", "authorization", "content-type"].iter().any(|banned| name.eq_ignore_ascii_case(banned)) {
                return Err(invalid("httpHeaders must not contain Accept, Authorization or Content-Type"));
            }
            let (name, value) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value.plain()));
            if let (Ok(name), Ok(value)) = (name, value) {
                headers.insert(name, value);
            }
        }
        Ok(Self {
            method: Method::from_bytes(method.as_bytes()).map_err(|_| invalid("invalid method"))?,
            url: request.text("url").unwrap_or_default().to_owned(),
            reference: reference.to_owned(),
            headers,
            body: request.get("body").cloned().unwrap_or_default(),
        })
    }
}

/// Runs subrequests in order; returns the entries of `compositeResponse` and whether all went well.
pub(super) fn run(world: &mut World, req: &Req<'_>, subs: &[Sub], all_or_none: bool) -> (Vec<Json>, bool) {
    let savepoint = world.store.savepoint();
    let mut results: BTreeMap<&str, Json> = BTreeMap::new();
    let mut answers: Vec<Answer> = Vec::with_capacity(subs.len());
    let mut failed_at = None;
    for (at, sub) in subs.iter().enumerate() {
        let answer = if all_or_none && failed_at.is_some() { halted() } else { one(world, req, sub, &results) };
        if answer.succeeded() {
            results.insert(&sub.reference, answer.body());
        } else {
            failed_at = failed_at.or(Some(at));
        }
        answers.push(answer);
    }
    if all_or_none && let Some(failed_at) = failed_at {
        world.store.roll_back(savepoint);
        for (at, answer) in answers.iter_mut().enumerate() {
            if at != failed_at {
                *answer = halted();
            }
        }
    }
    let entries = subs.iter().zip(&answers).map(|(sub, answer)| entry(sub, answer)).collect();
    (entries, failed_at.is_none())
}

fn halted() -> Answer {
    ApiError::new(
        400,
        "PROCESSING_HALTED",
        "The transaction was rolled back since another operation in the same transaction failed.",
    )
    .into()
}

/// The entry of a subrequest that was not tried because too many others had failed.
pub(super) fn not_tried(sub: &Sub) -> Json {
    entry(sub, &halted())
}

fn entry(sub: &Sub, answer: &Answer) -> Json {
    let mut headers = obj! {};
    for (name, label) in [("location", "Location"), ("etag", "ETag"), ("last-modified", "Last-Modified")] {
        if let Some(value) = answer.header(name) {
            headers.push(label, value);
        }
    }
    obj! {
        "body": answer.body(),
        "httpHeaders": headers,
        "httpStatusCode": answer.status,
        "referenceId": sub.reference.as_str(),
    }
}

fn one(world: &mut World, req: &Req<'_>, sub: &Sub, results: &BTreeMap<&str, Json>) -> Answer {
    let resolved = resolve(&sub.url, results, true).and_then(|url| Ok((url, resolve_body(&sub.body, results)?)));
    let (url, body) = match resolved {
        Ok(resolved) => resolved,
        Err(error) => return error.into(),
    };
    let head = Head::read(&sub.method, &url, sub.headers.clone());
    let is_data = head.segments.first().is_some_and(|part| part == "services")
        && head.segments.get(1).is_some_and(|part| part == "data");
    let number = head.segments.get(2).and_then(|text| version(text));
    let (true, Some(number)) = (is_data, number) else {
        return ApiError::not_found().into();
    };
    let path = head.segments.get(3..).unwrap_or_default();
    let allowed = match path.first().map(String::as_str) {
        Some("sobjects" | "query" | "queryAll") => true,
        Some("composite") => path.get(1).is_some_and(|part| part == "sobjects"),
        _ => false,
    };
    if !allowed {
        return ApiError::new(400, "INVALID_INPUT", "This resource is not allowed in a composite request").into();
    }
    let body = if body.is_null() { Vec::new() } else { body.to_bytes() };
    let sub =
        Req { head: &head, path, version: number, body: &body, body_bytes: body.len() as u64, nested: true, ..*req };
    route::data(world, &sub)
}

/// Replaces every `@{ref.field}` of a text.
fn resolve(text: &str, results: &BTreeMap<&str, Json>, in_url: bool) -> Result<String, ApiError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("@{") {
        let Some(length) = rest[start..].find('}') else { break };
        out.push_str(&rest[..start]);
        let value = look_up(&rest[start + 2..start + length], results)?.plain();
        if in_url {
            out.extend(percent_encoding::utf8_percent_encode(&value, percent_encoding::NON_ALPHANUMERIC));
        } else {
            out.push_str(&value);
        }
        rest = &rest[start + length + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn resolve_body(body: &Json, results: &BTreeMap<&str, Json>) -> Result<Json, ApiError> {
    Ok(match body {
        Json::Str(text) if text.contains("@{") => {
            // A text that is nothing but one reference takes the value with its type.
            let inner = text.strip_prefix("@{").and_then(|rest| rest.strip_suffix('}'));
            match inner.filter(|inner| !inner.contains('}')) {
                Some(path) => look_up(path, results)?,
                None => Json::from(resolve(text, results, false)?),
            }
        }
        Json::Arr(items) => Json::Arr(items.iter().map(|item| resolve_body(item, results)).collect::<Result<_, _>>()?),
        Json::Obj(members) => Json::Obj(
            members
                .iter()
                .map(|(name, value)| Ok((name.clone(), resolve_body(value, results)?)))
                .collect::<Result<_, ApiError>>()?,
        ),
        other => other.clone(),
    })
}

fn look_up(path: &str, results: &BTreeMap<&str, Json>) -> Result<Json, ApiError> {
    let missing = |part: &str| {
        let message = format!("Invalid reference specified. No value for {part} found in {path}");
        ApiError::new(400, "PROCESSING_HALTED", message)
    };
    let mut parts = path.split('.');
    let first = parts.next().unwrap_or_default();
    let (name, mut indices) = split_indices(first);
    let mut value = results.get(name).ok_or_else(|| missing(name))?;
    loop {
        for index in indices {
            value = index.and_then(|index| value.items().get(index)).ok_or_else(|| missing(path))?;
        }
        let Some(part) = parts.next() else { return Ok(value.clone()) };
        let (name, next) = split_indices(part);
        let found = value.members().iter().find(|(member, _)| member.eq_ignore_ascii_case(name));
        value = found.map(|(_, value)| value).ok_or_else(|| missing(name))?;
        indices = next;
    }
}

/// `x[0][1]` as a name and indices; an index that is no number is `None`.
fn split_indices(part: &str) -> (&str, Vec<Option<usize>>) {
    let (name, rest) = part.split_once('[').map_or((part, ""), |(name, rest)| (name, rest));
    let indices =
        rest.split('[').filter(|index| !index.is_empty()).map(|index| index.trim_end_matches(']').parse().ok());
    (name, indices.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_reach_into_results() {
        let mut results = BTreeMap::new();
        results.insert("a", Json::parse(br#"{"id":"001/x","n":5,"records":[{"Id":"r0"}],"none":null}"#).unwrap());
        assert_eq!(resolve("/x/@{a.id}/@{a.records[0].Id}", &results, true).unwrap(), "/x/001%2Fx/r0");
        let body = Json::parse(br#"{"x":"@{a.n}","y":"n is @{a.n}!","z":["@{a.none}"]}"#).unwrap();
        let resolved = resolve_body(&body, &results).unwrap().to_bytes();
        assert_eq!(resolved, br#"{"x":5,"y":"n is 5!","z":[null]}"#);
        assert_eq!(resolve("@{b.id}", &results, true).unwrap_err().code, "PROCESSING_HALTED");
        assert_eq!(resolve("@{a.records[7].Id}", &results, true).unwrap_err().code, "PROCESSING_HALTED");
    }
}
