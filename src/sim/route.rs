//! Which handler answers what.

use http::Method;

use super::answer::Answer;
use super::body::Upload;
use super::errors::ApiError;
use super::request::Req;
use super::world::World;
use super::{apis, batch, bulk2, collections, composite, describe, graph, graphql, query, rows, search, tree};

/// A subrequest below `/services/data/vXX.0/`.
pub(super) fn data(world: &mut World, req: &Req<'_>) -> Answer {
    whole(world, req, &Upload::default())
}

/// Everything below `/services/data/vXX.0/`.
pub(super) fn whole(world: &mut World, req: &Req<'_>, upload: &Upload) -> Answer {
    if req.version < describe::OLDEST {
        // The code is SOAP's; the body of REST was never captured (facts 0).
        return ApiError::new(410, "UNSUPPORTED_API_VERSION", "This API version is retired").into();
    }
    if req.version > describe::NEWEST {
        return ApiError::not_found().into();
    }
    let mut answer: Answer = find(world, req, upload).into();
    if req.version <= 40 && !req.nested {
        answer = answer.with("warning", "299 - \"This API is deprecated and will be removed in Summer '28\"");
    }
    answer
}

fn find(world: &mut World, req: &Req<'_>, upload: &Upload) -> Result<Answer, ApiError> {
    let parts: Vec<&str> = req.path.iter().map(String::as_str).collect();
    let rest = |from: usize| req.path.get(from..).unwrap_or_default();
    match parts.as_slice() {
        [] => Ok(describe::resources(world, req)),
        ["limits"] => describe::limits(world, req),
        ["recent"] => Ok(Answer::ok(super::json::Json::Arr(Vec::new()))),
        ["sobjects"] => describe::global(world, req),
        ["sobjects", name, ..] => {
            let object = world.visible_object(req.user, name).ok_or_else(ApiError::not_found)?;
            match (parts.get(2), &req.head.method) {
                (None, &Method::GET | &Method::HEAD) => describe::basic(world, req, object),
                (Some(&"describe"), _) if parts.len() == 3 => describe::full(world, req, object),
                _ => rows::handle(world, req, object, rest(2)),
            }
        }
        ["query", ..] => query::handle(world, req, false, rest(1)),
        ["queryAll", ..] => query::handle(world, req, true, rest(1)),
        ["composite", "sobjects", ..] => collections::handle(world, req, rest(2)),
        ["composite", "tree", name] => post_only(req).and_then(|()| tree::handle(world, req, name)),
        ["search", ..] => search::handle(world, req, rest(1)),
        ["parameterizedSearch"] => search::parameterized(world, req),
        ["composite" | "jobs" | "graphql" | "tooling" | "connect" | "chatter", ..] if req.nested => {
            Err(ApiError::not_found())
        }
        ["composite"] if req.head.method == Method::GET => Ok(composite_resources(req)),
        ["composite"] => post_only(req).and_then(|()| composite::handle(world, req)),
        ["composite", "batch"] => post_only(req).and_then(|()| batch::handle(world, req)),
        ["composite", "graph"] => post_only(req).and_then(|()| graph::handle(world, req)),
        ["jobs", ..] => bulk2::handle(world, req, upload, rest(1)),
        ["graphql"] => post_only(req).and_then(|()| graphql::handle(world, req)),
        ["ui-api", ..] => apis::ui(world, req, rest(1)),
        ["tooling", ..] => apis::tooling(world, req, rest(1)),
        ["connect" | "chatter", ..] => apis::connect(world, req, req.path),
        _ => Err(ApiError::not_found()),
    }
}

fn post_only(req: &Req<'_>) -> Result<(), ApiError> {
    if req.head.method == Method::POST {
        return Ok(());
    }
    Err(ApiError::method_not_allowed(req.head.method.as_str()))
}

fn composite_resources(req: &Req<'_>) -> Answer {
    let mut body = super::json::Json::Obj(Vec::new());
    for name in ["tree", "batch", "sobjects", "graph"] {
        body.push(name, format!("{}/composite/{name}", req.base()));
    }
    Answer::ok(body)
}
