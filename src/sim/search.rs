//! `search` and `parameterizedSearch`, as substring searches over text fields (facts 3.4).

use http::Method;

use super::answer::Answer;
use super::errors::ApiError;
use super::json::{Json, obj};
use super::request::Req;
use super::rows;
use super::store::is_deleted;
use super::world::World;

/// Most rows of one search (facts 1.8).
const MOST: usize = 2_000;

/// One object to be searched: its place and the fields to show.
struct Target {
    object: usize,
    fields: Vec<usize>,
    limit: usize,
}

/// `/search/...`.
pub(super) fn handle(world: &World, req: &Req<'_>, rest: &[String]) -> Result<Answer, ApiError> {
    match rest.first().map(String::as_str) {
        None => {
            let (text, targets) = sosl(world, req, req.head.param("q").unwrap_or_default())?;
            Ok(find(world, req, &text, &targets))
        }
        Some("scopeOrder" | "layout") => Ok(Answer::ok(Json::Arr(Vec::new()))),
        Some(_) => Err(ApiError::not_found()),
    }
}

/// `/parameterizedSearch`, by GET or POST.
pub(super) fn parameterized(world: &World, req: &Req<'_>) -> Result<Answer, ApiError> {
    let body = match req.head.method {
        Method::POST => Json::parse(req.body).map_err(ApiError::parser)?,
        _ => Json::Obj(Vec::new()),
    };
    let get = |name: &str| req.head.param(name).or_else(|| body.text(name)).unwrap_or_default().to_owned();
    let limit = |value: Option<u64>| value.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(MOST);
    let mut targets = Vec::new();
    for wanted in body.get("sobjects").map(Json::items).unwrap_or_default() {
        let name = wanted.text("name").unwrap_or_default();
        let fields: Vec<String> =
            wanted.get("fields").map(Json::items).unwrap_or_default().iter().map(Json::plain).collect();
        let mut target = target(world, req, name, fields.iter().map(String::as_str))?;
        target.limit = limit(wanted.get("limit").and_then(Json::as_u64));
        targets.push(target);
    }
    let listed = get("sobject");
    for name in listed.split(',').filter(|name| !name.is_empty()) {
        targets.push(target(world, req, name.trim(), std::iter::empty())?);
    }
    if targets.is_empty() {
        targets = everything(world, req);
    }
    let text = get("q");
    if text.is_empty() {
        return Err(ApiError::new(400, "MALFORMED_SEARCH", "q is missing"));
    }
    Ok(find(world, req, &text, &targets))
}

fn target<'a>(
    world: &World,
    req: &Req<'_>,
    name: &str,
    fields: impl Iterator<Item = &'a str>,
) -> Result<Target, ApiError> {
    let object = world
        .visible_object(req.user, name)
        .ok_or_else(|| ApiError::new(400, "INVALID_TYPE", format!("sObject type '{name}' is not supported.")))?;
    Ok(Target { object, fields: rows::field_list(world, req.user, object, fields)?, limit: MOST })
}

fn everything(world: &World, req: &Req<'_>) -> Vec<Target> {
    let sees = |object: usize| world.users.get(req.user).is_some_and(|user| user.sees_object(object));
    (0..world.schema.objects.len())
        .filter(|object| sees(*object))
        .map(|object| Target { object, fields: Vec::new(), limit: MOST })
        .collect()
}

/// Reads `FIND {text} [IN scope] [RETURNING Object(fields), ...] [LIMIT n]`.
fn sosl(world: &World, req: &Req<'_>, statement: &str) -> Result<(String, Vec<Target>), ApiError> {
    let malformed = || ApiError::new(400, "MALFORMED_SEARCH", "the search cannot be read");
    let trimmed = statement.trim();
    if !trimmed.get(..4).is_some_and(|word| word.eq_ignore_ascii_case("FIND")) {
        return Err(malformed());
    }
    let open = trimmed.find('{').ok_or_else(malformed)?;
    let close = trimmed[open..].find('}').ok_or_else(malformed)? + open;
    let text = trimmed[open + 1..close].to_owned();
    let rest = &trimmed[close + 1..];
    let upper = rest.to_ascii_uppercase();
    let Some(at) = upper.find("RETURNING") else { return Ok((text, everything(world, req))) };
    let list = &rest[at + "RETURNING".len()..];
    let list = list
        .to_ascii_uppercase()
        .rfind(" LIMIT ")
        .filter(|end| !list[*end..].contains(')'))
        .map_or(list, |end| &list[..end]);
    let mut targets = Vec::new();
    for part in split_outside(list) {
        let (name, fields) = part.split_once('(').map_or((part, ""), |(name, fields)| (name, fields));
        let fields = fields.trim_end().trim_end_matches(')');
        // Clauses behind the fields (WHERE, ORDER BY, LIMIT) are not evaluated.
        let fields = fields.split(',').filter_map(|field| field.split_whitespace().next());
        targets.push(target(world, req, name.trim(), fields)?);
    }
    Ok((text, targets))
}

/// Splits at commas that stand outside parentheses.
fn split_outside(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0_usize, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn find(world: &World, req: &Req<'_>, text: &str, targets: &[Target]) -> Answer {
    let Some(user) = world.users.get(req.user) else { return ApiError::session().into() };
    let wanted = text.trim().trim_matches('*').to_lowercase();
    let mut found = Vec::new();
    for target in targets {
        let hits = world
            .store
            .rows(target.object)
            .filter(|row| !is_deleted(row) && user.sees_row(&world.schema, target.object, row))
            .filter(|row| {
                // Ids and dates are not searched.
                row.iter().enumerate().skip(super::schema::MODSTAMP + 1).any(|(at, value)| {
                    user.sees_field(target.object, at)
                        && value.as_str().is_some_and(|value| value.to_lowercase().contains(&wanted))
                })
            })
            .take(target.limit.min(MOST.saturating_sub(found.len())));
        found.extend(hits.map(|row| rows::render(world, req, target.object, row, Some(&target.fields))));
    }
    Answer::ok(obj! {"searchRecords": Json::Arr(found)})
}
