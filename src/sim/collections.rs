//! `/composite/sobjects`: many rows in one call (facts 3.7).

use std::collections::BTreeMap;

use http::Method;
use smol_str::SmolStr;

use super::answer::Answer;
use super::dml::{Upserted, Writer};
use super::errors::ApiError;
use super::ids;
use super::json::{Json, obj};
use super::request::Req;
use super::rows;
use super::world::World;

/// Most rows written by one request.
const MOST_WRITTEN: usize = 200;
/// Most rows read by one request.
const MOST_READ: usize = 2_000;

/// One item's result: the id and whether it was created, or why not.
type Outcome = Result<(SmolStr, Option<bool>), ApiError>;

/// Anything at or below `/composite/sobjects`.
pub(super) fn handle(world: &mut World, req: &Req<'_>, rest: &[String]) -> Result<Answer, ApiError> {
    match (rest, &req.head.method) {
        ([], &Method::POST | &Method::PATCH) => write(world, req, None),
        ([], &Method::DELETE) => delete(world, req),
        ([], &Method::GET | &Method::HEAD) => Err(ApiError::method_not_allowed("GET")),
        ([object], &Method::GET | &Method::POST) => retrieve(world, req, object),
        ([object, field], &Method::PATCH) => write(world, req, Some((object, field))),
        _ => Err(ApiError::not_found()),
    }
}

fn too_many(most: usize) -> ApiError {
    ApiError::new(
        400,
        "EXCEEDED_ID_LIMIT",
        format!("record limit reached. cannot submit more than {most} records into this call"),
    )
}

fn write(world: &mut World, req: &Req<'_>, key: Option<(&String, &String)>) -> Result<Answer, ApiError> {
    let body = Json::parse(req.body).map_err(ApiError::parser)?;
    let records = body.get("records").map(Json::items).unwrap_or_default();
    if records.len() > MOST_WRITTEN {
        return Err(too_many(MOST_WRITTEN));
    }
    let key = match key {
        Some((object, field)) => {
            let at = world.visible_object(req.user, object).ok_or_else(ApiError::not_found)?;
            Some((at, world.external_id_field(req.user, at, field)?))
        }
        None => None,
    };
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let all_or_none = body.get("allOrNone").and_then(Json::as_bool).unwrap_or(false);
    Ok(run(world, all_or_none, records.len(), |world, number| {
        let Some(record) = records.get(number) else { return Err(ApiError::not_found()) };
        match key {
            Some((object, field)) => upsert_one(world, req, object, field, record),
            None if req.head.method == Method::POST => create_one(world, req, record),
            None => {
                let id = id_of(record)?;
                if seen.insert(id.clone(), number).is_some() {
                    let message = format!("Duplicate id in the request: {id}");
                    return Err(ApiError::dml("DUPLICATE_VALUE", message, &[]));
                }
                update_one(world, req, &id, record)
            }
        }
    }))
}

/// Does one thing after another; with `all_or_none` a failure takes everything back and marks the others.
fn run(
    world: &mut World,
    all_or_none: bool,
    count: usize,
    mut one: impl FnMut(&mut World, usize) -> Outcome,
) -> Answer {
    let savepoint = world.store.savepoint();
    let mut outcomes: Vec<Outcome> = (0..count).map(|number| one(world, number)).collect();
    if all_or_none && outcomes.iter().any(Result::is_err) {
        world.store.roll_back(savepoint);
        for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_ok()) {
            *outcome = Err(ApiError::dml(
                "ALL_OR_NONE_OPERATION_ROLLED_BACK",
                "Record rolled back because not all records were valid and the request was using AllOrNone header",
                &[],
            ));
        }
    }
    Answer::ok(Json::Arr(outcomes.iter().map(item).collect())).root("Results")
}

/// One result in the shape of collections.
fn item(outcome: &Outcome) -> Json {
    match outcome {
        Ok((id, created)) => {
            let mut item = obj! {"id": id, "success": true, "errors": Json::Arr(Vec::new())};
            if let Some(created) = created {
                item.push("created", *created);
            }
            item
        }
        Err(error) => obj! {"success": false, "errors": Json::Arr(vec![error.item_entry()])},
    }
}

fn writer(req: &Req<'_>) -> Writer {
    Writer { user: req.user, now: req.now }
}

fn object_of(world: &World, req: &Req<'_>, record: &Json) -> Result<usize, ApiError> {
    let name = record.get("attributes").and_then(|attributes| attributes.text("type"));
    let name = name.ok_or_else(|| ApiError::dml("INVALID_TYPE", "The attributes need a type", &[]))?;
    world
        .visible_object(req.user, name)
        .ok_or_else(|| ApiError::dml("INVALID_TYPE", format!("sObject type '{name}' is not supported."), &[]))
}

fn id_of(record: &Json) -> Result<String, ApiError> {
    let id = record.members().iter().find(|(name, _)| name.eq_ignore_ascii_case("id"));
    id.and_then(|(_, id)| id.as_str())
        .map(str::to_owned)
        .ok_or_else(|| ApiError::dml("MISSING_ARGUMENT", "Id not specified in an update call", &[]))
}

fn without_id(record: &Json) -> Vec<(SmolStr, Json)> {
    record.members().iter().filter(|(name, _)| !name.eq_ignore_ascii_case("id")).cloned().collect()
}

fn create_one(world: &mut World, req: &Req<'_>, record: &Json) -> Outcome {
    let object = object_of(world, req, record)?;
    world.create(writer(req), object, record.members()).map(|id| (id, None))
}

fn update_one(world: &mut World, req: &Req<'_>, id: &str, record: &Json) -> Outcome {
    let object = object_of(world, req, record)?;
    let id = ids::to18(id).ok_or_else(|| ApiError::dml("MALFORMED_ID", format!("malformed id {id}"), &["Id"]))?;
    world.update(writer(req), object, &id, &without_id(record)).map_err(as_item).map(|()| (id, None))
}

fn upsert_one(world: &mut World, req: &Req<'_>, object: usize, field: usize, record: &Json) -> Outcome {
    let name = world.schema.objects[object].fields[field].name.clone();
    let value = record.members().iter().find(|(member, _)| member.eq_ignore_ascii_case(&name));
    let value = value.map(|(_, value)| value.plain()).unwrap_or_default();
    if field == super::schema::ID {
        if value.is_empty() {
            return world.create(writer(req), object, &without_id(record)).map(|id| (id, Some(true)));
        }
        return update_one(world, req, &value, record).map(|(id, _)| (id, Some(false)));
    }
    if value.is_empty() {
        return Err(ApiError::dml("MISSING_ARGUMENT", format!("{name} not specified"), &[]));
    }
    let members: Vec<(SmolStr, Json)> =
        record.members().iter().filter(|(member, _)| !member.eq_ignore_ascii_case(&name)).cloned().collect();
    match world.upsert(writer(req), object, field, &value, &members)? {
        Upserted::Created(id) => Ok((id, Some(true))),
        Upserted::Updated(id) => Ok((id, Some(false))),
        Upserted::Several(_) => {
            let message = format!("{name}: more than one record found for external id field");
            Err(ApiError::dml("DUPLICATE_EXTERNAL_ID", message, &[]))
        }
    }
}

/// A missing row is an invalid reference here, not a missing resource.
fn as_item(error: ApiError) -> ApiError {
    match error.code.as_ref() {
        "NOT_FOUND" => ApiError::dml("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", &[]),
        _ => error,
    }
}

fn delete(world: &mut World, req: &Req<'_>) -> Result<Answer, ApiError> {
    let ids: Vec<&str> = req.head.param("ids").unwrap_or_default().split(',').filter(|id| !id.is_empty()).collect();
    if ids.is_empty() {
        return Err(ApiError::new(400, "MISSING_ARGUMENT", "The ids parameter is needed"));
    }
    if ids.len() > MOST_WRITTEN {
        return Err(too_many(MOST_WRITTEN));
    }
    let all_or_none = req.head.param("allOrNone").is_some_and(|flag| flag.eq_ignore_ascii_case("true"));
    Ok(run(world, all_or_none, ids.len(), |world, number| {
        let id = ids.get(number).copied().unwrap_or_default();
        let malformed = || ApiError::dml("MALFORMED_ID", format!("malformed id {id}"), &[]);
        let id = ids::to18(id).ok_or_else(malformed)?;
        let object = world.schema.object_of_id(&id).ok_or_else(malformed)?;
        world.delete(writer(req), object, &id).map_err(as_item).map(|()| (id, None))
    }))
}

fn retrieve(world: &World, req: &Req<'_>, object: &str) -> Result<Answer, ApiError> {
    let object = world.visible_object(req.user, object).ok_or_else(ApiError::not_found)?;
    let (ids, fields): (Vec<String>, Vec<String>) = if req.head.method == Method::POST {
        let body = Json::parse(req.body).map_err(ApiError::parser)?;
        let list = |name: &str| -> Vec<String> {
            body.get(name).map(Json::items).unwrap_or_default().iter().map(Json::plain).collect()
        };
        (list("ids"), list("fields"))
    } else {
        let list = |name: &str| -> Vec<String> {
            req.head.param(name).unwrap_or_default().split(',').map(str::to_owned).collect()
        };
        (list("ids"), list("fields"))
    };
    if ids.len() > MOST_READ {
        return Err(too_many(MOST_READ));
    }
    let wanted = rows::field_list(world, req.user, object, fields.iter().map(String::as_str))?;
    let found = ids
        .iter()
        .map(|id| {
            let row = world.visible_row(req.user, object, id).ok();
            row.map_or(Json::Null, |row| rows::render(world, req, object, row, Some(&wanted)))
        })
        .collect();
    Ok(Answer::ok(Json::Arr(found)))
}
