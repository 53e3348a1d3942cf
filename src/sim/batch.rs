//! `/composite/batch`: up to 25 requests, each charged on its own, one after the other (facts 3.7).

use http::{HeaderMap, Method};

use super::answer::Answer;
use super::errors::ApiError;
use super::json::{Json, obj};
use super::request::{Head, Req, version};
use super::route;
use super::world::World;

/// Most subrequests.
const MOST: usize = 25;

/// How many calls a batch body costs: one for each subrequest.
pub(super) fn cost(body: &[u8]) -> u64 {
    let count = Json::parse(body).ok().and_then(|body| body.get("batchRequests").map(|list| list.items().len()));
    count.filter(|count| *count <= MOST).unwrap_or(1).max(1) as u64
}

/// Runs the batch.
pub(super) fn handle(world: &mut World, req: &Req<'_>) -> Result<Answer, ApiError> {
    let body = Json::parse(req.body).map_err(ApiError::parser)?;
    let halt = body.get("haltOnError").and_then(Json::as_bool).unwrap_or(false);
    let requests = body.get("batchRequests").map(Json::items).unwrap_or_default();
    if requests.len() > MOST {
        let message = format!("The request can’t contain more than {MOST} operations.");
        return Err(ApiError::new(400, "LIMIT_EXCEEDED", message));
    }
    let mut failed = false;
    let mut results = Vec::with_capacity(requests.len());
    for request in requests {
        let answer = if failed && halt {
            ApiError::new(412, "BATCH_PROCESSING_HALTED", "Batch processing halted per request by the haltOnError flag")
                .into()
        } else {
            one(world, req, request)
        };
        failed |= !answer.succeeded();
        results.push(obj! {"statusCode": answer.status, "result": answer.body()});
    }
    Ok(Answer::ok(obj! {"hasErrors": failed, "results": Json::Arr(results)}))
}

fn one(world: &mut World, req: &Req<'_>, request: &Json) -> Answer {
    let method = request.text("method").unwrap_or("GET");
    let Ok(method) = Method::from_bytes(method.to_ascii_uppercase().as_bytes()) else {
        return ApiError::method_not_allowed(method).into();
    };
    let url = request.text("url").unwrap_or_default();
    let url = url.trim_start_matches('/').trim_start_matches("services/data/");
    let head = Head::read(&method, &format!("/services/data/{url}"), HeaderMap::new());
    let Some(number) = head.segments.get(2).and_then(|text| version(text)) else {
        return ApiError::not_found().into();
    };
    if number < 34 || number > req.version {
        return ApiError::new(400, "INVALID_BATCH_REQUEST", "The version of a subrequest is out of range").into();
    }
    let body = request.get("richInput").map(Json::to_bytes).unwrap_or_default();
    let path = head.segments.get(3..).unwrap_or_default();
    if path.first().is_some_and(|part| part == "composite") && path.get(1).is_none_or(|part| part != "tree") {
        return ApiError::new(400, "INVALID_BATCH_REQUEST", "This resource is not allowed in a batch").into();
    }
    let sub =
        Req { head: &head, path, version: number, body: &body, body_bytes: body.len() as u64, nested: true, ..*req };
    route::data(world, &sub)
}
