//! Rows by id and by external id (facts 3.2, 3.3).

use http::Method;
use smol_str::SmolStr;

use super::answer::{Answer, Content};
use super::blobs;
use super::clock::{DAY, SECOND};
use super::dates::{datetime_text, http_date, parse_datetime, parse_http_date};
use super::dml::{Upserted, Writer};
use super::errors::ApiError;
use super::ids;
use super::json::{Json, obj};
use super::request::Req;
use super::schema::{ID, Kind, MODSTAMP};
use super::store::Row;
use super::world::World;

/// Anything below `/sobjects/X/` but describes.
pub(super) fn handle(world: &mut World, req: &Req<'_>, object: usize, rest: &[String]) -> Result<Answer, ApiError> {
    let parts: Vec<&str> = rest.iter().map(String::as_str).collect();
    match parts.as_slice() {
        [] => create(world, req, object),
        ["Id" | "id"] if req.head.method == Method::POST => create(world, req, object),
        ["deleted" | "updated"] => changed(world, req, object, parts.first() == Some(&"deleted")),
        [id] => by_id(world, req, object, id),
        [first, second] if ids::to18(first).is_some() => related(world, req, object, first, second),
        [field, value] => by_external_id(world, req, object, field, value),
        _ => Err(ApiError::not_found()),
    }
}

fn writer(req: &Req<'_>) -> Writer {
    Writer { user: req.user, now: req.now }
}

/// The members of a JSON object body.
pub(super) fn members(body: &[u8]) -> Result<Vec<(SmolStr, Json)>, ApiError> {
    match Json::parse(body) {
        Ok(Json::Obj(members)) => Ok(members),
        Ok(_) => Err(ApiError::parser("Unexpected body: an object is needed")),
        Err(error) => Err(ApiError::parser(error)),
    }
}

fn create(world: &mut World, req: &Req<'_>, object: usize) -> Result<Answer, ApiError> {
    let Some(boundary) = blobs::boundary(req.head) else {
        let id = world.create(writer(req), object, &members(req.body)?)?;
        return Ok(created(world, req, object, &id));
    };
    let parts = blobs::read(boundary, req.body, req.body_bytes)?;
    let id = world.create(writer(req), object, &parts.members)?;
    world.set_blob_size(object, &id, parts.blob_bytes);
    Ok(created(world, req, object, &id))
}

fn created(world: &World, req: &Req<'_>, object: usize, id: &str) -> Answer {
    let name = &world.schema.objects[object].name;
    Answer::json(201, success(id)).with("location", req.record_url(name, id)).root("Result")
}

fn success(id: &str) -> Json {
    obj! {"id": id, "success": true, "errors": Json::Arr(Vec::new())}
}

fn by_id(world: &mut World, req: &Req<'_>, object: usize, id: &str) -> Result<Answer, ApiError> {
    match req.head.method {
        Method::GET | Method::HEAD => {
            let row = world.visible_row(req.user, object, id)?;
            if let Some(answer) = precondition(world, req, object, row)? {
                return Ok(answer);
            }
            read(world, req, object, row)
        }
        Method::PATCH => {
            let row = world.visible_row(req.user, object, id)?;
            if let Some(answer) = precondition(world, req, object, row)? {
                return Ok(answer);
            }
            world.update(writer(req), object, id, &members(req.body)?)?;
            Ok(Answer::empty(204))
        }
        Method::DELETE => {
            world.delete(writer(req), object, id)?;
            Ok(Answer::empty(204))
        }
        _ => Err(ApiError::method_not_allowed(req.head.method.as_str())),
    }
}

/// The value of a row's entity tag without the coding.
pub(super) fn tag_of(row: &Row) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for value in row {
        for byte in value.plain().bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    format!("{hash:016x}")
}

/// Evaluates conditional headers (facts 3.3). Entity tags exist on Account only; a tag is compared without its coding.
fn precondition(world: &World, req: &Req<'_>, object: usize, row: &Row) -> Result<Option<Answer>, ApiError> {
    let head = req.head;
    let reading = matches!(head.method, Method::GET | Method::HEAD);
    let has_tags = world.schema.objects[object].name == "Account";
    let failed = || Err(ApiError::new(412, "PRECONDITION_FAILED", "The precondition of the request is not met"));
    let listed = |header: &str| {
        let tag = tag_of(row);
        header.split(',').map(str::trim).any(|entry| {
            let bare = entry.trim_start_matches("W/").trim_matches('"');
            entry == "*" || bare.trim_end_matches("gzip").trim_end_matches('-') == tag
        })
    };
    if let Some(header) = head.header("if-match").filter(|_| has_tags)
        && !listed(header)
    {
        return failed();
    }
    if let Some(header) = head.header("if-none-match").filter(|_| has_tags)
        && listed(header)
    {
        return if reading { Ok(Some(Answer::empty(304).with("etag", etag(req, row)))) } else { failed() };
    }
    let stamp = row.get(MODSTAMP).and_then(Json::as_str).and_then(parse_datetime).unwrap_or_default();
    let changed = stamp / SECOND * SECOND;
    if let Some(header) = head.header("if-modified-since") {
        match parse_http_date(header) {
            Some(since) if reading && changed <= since => return Ok(Some(Answer::empty(304))),
            None if !reading => return Err(bad_condition()),
            _ => {}
        }
    }
    if let Some(header) = head.header("if-unmodified-since") {
        match parse_http_date(header) {
            Some(since) if changed > since => return failed(),
            None if !reading => return Err(bad_condition()),
            _ => {}
        }
    }
    Ok(None)
}

fn bad_condition() -> ApiError {
    ApiError::new(400, "INVALID_HEADER", "The conditional header is invalid")
}

fn etag(req: &Req<'_>, row: &Row) -> String {
    let gzip = req.head.header("accept-encoding").is_some_and(|codings| codings.contains("gzip"));
    if gzip { format!("\"{}--gzip\"", tag_of(row)) } else { format!("\"{}\"", tag_of(row)) }
}

fn read(world: &World, req: &Req<'_>, object: usize, row: &Row) -> Result<Answer, ApiError> {
    let definition = &world.schema.objects[object];
    let wanted = match req.head.param("fields") {
        Some(list) => Some(field_list(world, req.user, object, list.split(','))?),
        None => None,
    };
    let body = render(world, req, object, row, wanted.as_deref());
    let stamp = row.get(MODSTAMP).and_then(Json::as_str).and_then(parse_datetime).unwrap_or_default();
    let mut answer = Answer::ok(body).root(definition.name.clone()).with("last-modified", http_date(stamp));
    if definition.name == "Account" {
        answer = answer.with("etag", etag(req, row));
    }
    Ok(answer)
}

/// Resolves field names; one that is unknown or hidden fails all (facts 3.2).
pub(super) fn field_list<'a>(
    world: &World,
    user: usize,
    object: usize,
    names: impl Iterator<Item = &'a str>,
) -> Result<Vec<usize>, ApiError> {
    let definition = &world.schema.objects[object];
    names
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(|name| {
            definition
                .field(name)
                .filter(|field| world.users.get(user).is_some_and(|user| user.sees_field(object, *field)))
                .ok_or_else(|| {
                    let message = format!("No such column '{name}' on sobject of type {}", definition.name);
                    ApiError::new(400, "INVALID_FIELD", message)
                })
        })
        .collect()
}

/// A row as JSON: these fields and the id, or all that the user sees.
pub(super) fn render(world: &World, req: &Req<'_>, object: usize, row: &Row, wanted: Option<&[usize]>) -> Json {
    let definition = &world.schema.objects[object];
    let id = row.get(ID).and_then(Json::as_str).unwrap_or_default();
    let mut body = obj! {"attributes": obj! {"type": &definition.name, "url": req.record_url(&definition.name, id)}};
    let Some(user) = world.users.get(req.user) else { return body };
    match wanted {
        Some(fields) => {
            for field in fields {
                body.push(definition.fields[*field].name.clone(), row.get(*field).cloned().unwrap_or_default());
            }
            if !fields.contains(&ID) {
                body.push("Id", id);
            }
        }
        None => {
            for (at, field) in definition.fields.iter().enumerate().filter(|(at, _)| user.sees_field(object, *at)) {
                body.push(field.name.clone(), row.get(at).cloned().unwrap_or_default());
            }
        }
    }
    body
}

/// `/sobjects/X/id/Name`: a blob, a parent or children.
fn related(world: &mut World, req: &Req<'_>, object: usize, id: &str, name: &str) -> Result<Answer, ApiError> {
    if !matches!(req.head.method, Method::GET | Method::HEAD) {
        return Err(ApiError::method_not_allowed(req.head.method.as_str()));
    }
    let schema = std::sync::Arc::clone(&world.schema);
    let definition = &schema.objects[object];
    let row = world.visible_row(req.user, object, id)?;
    if let Some(field) = definition.field(name)
        && definition.fields[field].kind == Kind::Blob
    {
        if req.nested {
            return Err(ApiError::new(400, "NOT_ACCEPTABLE", "Binary data cannot be fetched in a composite request"));
        }
        let size = definition.field("ContentSize").and_then(|at| row.get(at)).and_then(Json::as_u64);
        let size = size.unwrap_or(0);
        let answer = Answer { status: 200, content: Content::Blob(size), ..Answer::default() };
        return Ok(answer.with("content-type", "application/octetstream"));
    }
    if let Some(field) = definition.relationship(name) {
        let parent = row.get(field).and_then(Json::as_str).ok_or_else(ApiError::not_found)?;
        let target = schema.object_of_id(parent).ok_or_else(ApiError::not_found)?;
        let row = world.visible_row(req.user, target, parent)?;
        return read(world, req, target, row);
    }
    let way = definition.child(name).ok_or_else(ApiError::not_found)?;
    let id = ids::to18(id).ok_or_else(ApiError::not_found)?;
    let user = world.users.get(req.user).ok_or_else(ApiError::session)?;
    let children: Vec<Json> = world
        .store
        .rows(way.object)
        .filter(|row| row.get(way.field).and_then(Json::as_str) == Some(id.as_str()))
        .filter(|row| !super::store::is_deleted(row) && user.sees_row(&schema, way.object, row))
        .take(2_000)
        .map(|row| render(world, req, way.object, row, None))
        .collect();
    Ok(Answer::ok(obj! {"totalSize": children.len(), "done": true, "records": Json::Arr(children)}))
}

fn by_external_id(
    world: &mut World,
    req: &Req<'_>,
    object: usize,
    field: &str,
    value: &str,
) -> Result<Answer, ApiError> {
    let field = world.external_id_field(req.user, object, field)?;
    if field == ID {
        return by_id(world, req, object, value);
    }
    match req.head.method {
        Method::PATCH => upsert(world, req, object, field, value),
        Method::GET | Method::HEAD | Method::DELETE => {
            let found = world.by_external_id(req.user, object, field, value);
            match found.as_slice() {
                [] => Err(ApiError::not_found()),
                [id] => by_id(world, req, object, id),
                _ => Ok(several(world, req, object, &found)),
            }
        }
        _ => Err(ApiError::method_not_allowed(req.head.method.as_str())),
    }
}

fn several(world: &World, req: &Req<'_>, object: usize, found: &[SmolStr]) -> Answer {
    let name = &world.schema.objects[object].name;
    Answer::json(300, Json::Arr(found.iter().map(|id| Json::from(req.record_url(name, id))).collect()))
}

fn upsert(world: &mut World, req: &Req<'_>, object: usize, field: usize, value: &str) -> Result<Answer, ApiError> {
    let members = members(req.body)?;
    let only_update = req.head.param("updateOnly").is_some_and(|flag| flag.eq_ignore_ascii_case("true"));
    if only_update && world.by_external_id(req.user, object, field, value).is_empty() {
        return Err(ApiError::not_found());
    }
    match world.upsert(writer(req), object, field, value, &members)? {
        Upserted::Several(found) => Ok(several(world, req, object, &found)),
        Upserted::Created(id) => {
            let mut answer = created(world, req, object, &id);
            if let Content::Json(body) = &mut answer.content {
                body.push("created", true);
            }
            Ok(answer)
        }
        Upserted::Updated(_) if req.version <= 45 => Ok(Answer::empty(204)),
        Upserted::Updated(id) => {
            let mut body = success(&id);
            body.push("created", false);
            Ok(Answer::ok(body).root("Result"))
        }
    }
}

/// `/deleted/` and `/updated/`: what changed between two times; seconds are ignored.
fn changed(world: &World, req: &Req<'_>, object: usize, deleted: bool) -> Result<Answer, ApiError> {
    let time = |name: &str| {
        let text = req.head.param(name).unwrap_or_default();
        parse_datetime(text)
            .map(|at| at / (60 * SECOND) * 60 * SECOND)
            .ok_or_else(|| ApiError::new(400, "INVALID_FIELD", format!("{name} is missing or no valid date and time")))
    };
    let (start, end) = (time("start")?, time("end")?);
    let days_back = if deleted { 15 } else { 30 };
    if start >= end || start + days_back * DAY < req.now {
        let message = format!("start must be before end and at most {days_back} days ago");
        return Err(ApiError::new(400, "INVALID_REPLICATION_DATE", message));
    }
    let covered = datetime_text(end.min(req.now) / (60 * SECOND) * 60 * SECOND);
    let user = world.users.get(req.user).ok_or_else(ApiError::session)?;
    let (from, to) = (datetime_text(start), datetime_text(end));
    let in_time =
        |row: &&Row| row.get(MODSTAMP).and_then(Json::as_str).is_some_and(|at| at >= from.as_str() && at < to.as_str());
    let rows = || world.store.rows(object).filter(|row| user.sees_row(&world.schema, object, row)).filter(in_time);
    if deleted {
        let records = rows()
            .filter(|row| super::store::is_deleted(row))
            .map(|row| obj! {"id": row.get(ID).cloned(), "deletedDate": row.get(MODSTAMP).cloned()})
            .collect();
        return Ok(Answer::ok(obj! {
            "deletedRecords": Json::Arr(records),
            "earliestDateAvailable": datetime_text(req.now.saturating_sub(90 * DAY)),
            "latestDateCovered": covered,
        }));
    }
    let ids = rows().filter_map(|row| row.get(ID).cloned()).collect();
    Ok(Answer::ok(obj! {"ids": Json::Arr(ids), "latestDateCovered": covered}))
}
