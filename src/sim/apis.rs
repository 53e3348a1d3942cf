//! The smaller APIs, as far as a gateway needs them: Apex REST, Tooling, Connect and Chatter, UI API (facts 3.8).

use std::collections::HashMap;

use http::Method;
use smol_str::SmolStr;

use super::answer::{Answer, Content};
use super::body::Upload;
use super::clock::{Micros, SECOND};
use super::config::ORG_ID;
use super::describe;
use super::errors::ApiError;
use super::json::{Json, obj};
use super::query;
use super::request::{Head, Req};
use super::schema::{ID, MODSTAMP};
use super::world::World;

/// Users and apps whose Chatter requests are counted apart.
const MOST_RATED: usize = 10_000;

/// Chatter requests of each user and app in the running hour.
#[derive(Debug, Default)]
pub(super) struct ChatterRates {
    counts: HashMap<(usize, SmolStr), (u64, u64)>,
}

impl ChatterRates {
    /// Counts one request; `false` if the hour's share is used up.
    fn take(&mut self, user: usize, client: SmolStr, now: Micros, limit: u64) -> bool {
        let hour = now / (3_600 * SECOND);
        if self.counts.len() >= MOST_RATED {
            self.counts.retain(|_, (counted, _)| *counted == hour);
        }
        let entry = self.counts.entry((user, client)).or_insert((hour, 0));
        if entry.0 != hour {
            *entry = (hour, 0);
        }
        entry.1 += 1;
        entry.1 <= limit
    }
}

/// Apex REST: code of the org. This one tells what reached it; the bytes of a long body are counted, not kept.
pub(super) fn apex(head: &Head, upload: &Upload) -> Answer {
    let path = format!("/{}", head.segments.get(2..).unwrap_or_default().join("/"));
    if path == "/fail" {
        let message = "System.NullPointerException: Attempt to de-reference a null object\n\nClass.Echo.run: line 7";
        return ApiError::new(500, "APEX_ERROR", message).into();
    }
    let mut parameters = Json::Obj(Vec::new());
    for (name, value) in &head.query {
        parameters.push(name.as_str(), value.as_str());
    }
    let body = if upload.kept.len() <= 64 << 10 { Json::parse(&upload.kept).ok() } else { None };
    Answer::ok(obj! {
        "method": head.method.as_str(),
        "path": path,
        "parameters": parameters,
        "bytes": upload.total,
        "body": body,
    })
}

/// `/tooling/...`.
pub(super) fn tooling(world: &mut World, req: &Req<'_>, rest: &[String]) -> Result<Answer, ApiError> {
    let parts: Vec<&str> = rest.iter().map(String::as_str).collect();
    match parts.as_slice() {
        [] => {
            let mut body = Json::Obj(Vec::new());
            for name in ["query", "sobjects", "executeAnonymous", "composite"] {
                body.push(name, format!("{}/tooling/{name}", req.base()));
            }
            Ok(Answer::ok(body))
        }
        ["query"] if metadata_query(req).is_some() => Ok(metadata(world, req)),
        ["query", ..] => {
            let mut answer = query::handle(world, req, false, rest.get(1..).unwrap_or_default())?;
            if let Content::Json(Json::Obj(members)) = &mut answer.content {
                for (_, value) in members.iter_mut().filter(|(name, _)| name == "nextRecordsUrl") {
                    *value = Json::from(value.plain().replacen("/query/", "/tooling/query/", 1));
                }
            }
            Ok(answer)
        }
        ["sobjects"] => describe::global(world, req),
        ["executeAnonymous"] => Ok(Answer::ok(obj! {
            "line": -1_i64,
            "column": -1_i64,
            "compiled": true,
            "success": true,
            "compileProblem": Json::Null,
            "exceptionStackTrace": Json::Null,
            "exceptionMessage": Json::Null,
        })),
        _ => Err(ApiError::not_found()),
    }
}

fn metadata_query<'a>(req: &'a Req<'_>) -> Option<&'a str> {
    let text = req.head.param("q")?;
    let upper = text.to_ascii_uppercase();
    ["ENTITYDEFINITION", "APEXCLASS", "APEXTRIGGER"].iter().any(|name| upper.contains(name)).then_some(text)
}

/// `EntityDefinition` lists the objects; there are no classes and triggers.
fn metadata(world: &World, req: &Req<'_>) -> Answer {
    let entities = metadata_query(req).is_some_and(|text| text.to_ascii_uppercase().contains("ENTITYDEFINITION"));
    let user = world.users.get(req.user);
    let records: Vec<Json> = world
        .schema
        .objects
        .iter()
        .enumerate()
        .filter(|(at, _)| entities && user.is_some_and(|user| user.sees_object(*at)))
        .map(|(_, object)| {
            obj! {
                "attributes": obj! {"type": "EntityDefinition", "url": format!("{}/tooling/sobjects/EntityDefinition/{}", req.base(), object.name)},
                "QualifiedApiName": &object.name,
                "Label": object.name.trim_end_matches("__c"),
                "KeyPrefix": object.prefix,
            }
        })
        .collect();
    Answer::ok(obj! {
        "size": records.len(),
        "totalSize": records.len(),
        "done": true,
        "queryLocator": Json::Null,
        "entityTypeName": "EntityDefinition",
        "records": Json::Arr(records),
    })
}

/// Whether a path belongs to Chatter, which has a rate of its own and costs no call (facts 1.3).
pub(super) fn is_chatter(path: &[String]) -> bool {
    match path.first().map(String::as_str) {
        Some("chatter") => true,
        Some("connect") => path.iter().any(|part| part == "chatter"),
        _ => false,
    }
}

/// `/connect/...` and `/chatter/...`.
pub(super) fn connect(world: &mut World, req: &Req<'_>, path: &[String]) -> Result<Answer, ApiError> {
    if is_chatter(path) {
        let limit = world.config.chatter_per_hour;
        if !world.chatter.take(req.user, req.head.client(), req.now, limit) {
            return Err(ApiError::new(
                503,
                "REQUEST_LIMIT_EXCEEDED",
                "You have exceeded the hourly rate of Chatter requests",
            ));
        }
    }
    let parts: Vec<&str> = path.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["connect", "organization"] => Ok(Answer::ok(obj! {"orgId": ORG_ID, "name": "Simulated Org"})),
        ["chatter", "users", "me"] => {
            let user = world.users.get(req.user).ok_or_else(ApiError::session)?;
            Ok(Answer::ok(obj! {"id": &user.id, "username": &user.username, "isActive": true}))
        }
        ["chatter", "feeds", ..] => Ok(Answer::ok(obj! {"elements": Json::Arr(Vec::new()), "nextPageUrl": Json::Null})),
        ["connect" | "chatter", rest @ ..] if !rest.is_empty() => Ok(Answer::ok(obj! {"resource": rest.join("/")})),
        _ => Err(ApiError::not_found()),
    }
}

/// `/ui-api/...`.
pub(super) fn ui(world: &World, req: &Req<'_>, rest: &[String]) -> Result<Answer, ApiError> {
    if !matches!(req.head.method, Method::GET | Method::HEAD) {
        return Err(ApiError::method_not_allowed(req.head.method.as_str()));
    }
    let user = world.users.get(req.user).ok_or_else(ApiError::session)?;
    let parts: Vec<&str> = rest.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["object-info", name] => {
            let at = world.visible_object(req.user, name).ok_or_else(ApiError::not_found)?;
            let object = &world.schema.objects[at];
            let mut fields = Json::Obj(Vec::new());
            for (_, field) in object.fields.iter().enumerate().filter(|(place, _)| user.sees_field(at, *place)) {
                let info = obj! {"apiName": &field.name, "dataType": field.kind.describe(), "required": field.required};
                fields.push(field.name.clone(), info);
            }
            Ok(Answer::ok(obj! {"apiName": &object.name, "keyPrefix": object.prefix, "fields": fields}))
        }
        ["records", id] => {
            let object = world.schema.object_of_id(id).filter(|object| user.sees_object(*object));
            let object = object.ok_or_else(ApiError::not_found)?;
            let row = world.visible_row(req.user, object, id)?;
            let definition = &world.schema.objects[object];
            let wanted = req.head.param("fields").map(|list| {
                list.split(',').filter_map(|path| path.rsplit('.').next()).map(str::to_owned).collect::<Vec<_>>()
            });
            let mut fields = Json::Obj(Vec::new());
            for (place, field) in definition.fields.iter().enumerate() {
                let named =
                    wanted.as_ref().is_none_or(|names| names.iter().any(|name| field.name.eq_ignore_ascii_case(name)));
                if named && user.sees_field(object, place) {
                    let value = row.get(place).cloned().unwrap_or_default();
                    fields.push(field.name.clone(), obj! {"displayValue": Json::Null, "value": value});
                }
            }
            let stamp = row.get(MODSTAMP).map(Json::plain).unwrap_or_default();
            Ok(Answer::ok(obj! {
                "apiName": &definition.name,
                "eTag": super::rows::tag_of(row),
                "fields": fields,
                "id": row.get(ID).cloned(),
                "lastModifiedDate": stamp.as_str(),
                "weakEtag": super::dates::parse_datetime(&stamp).unwrap_or_default() / 1_000,
            })
            .with("etag", format!("\"{}\"", super::rows::tag_of(row))))
        }
        _ => Err(ApiError::not_found()),
    }
}
