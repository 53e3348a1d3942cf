//! `query`, `queryAll` and their pages (facts 3.4).

use http::Method;

use super::answer::Answer;
use super::clock::seconds;
use super::cursors::Page;
use super::errors::ApiError;
use super::json::{Json, obj};
use super::request::{Req, option};
use super::soql::{self, Found};
use super::world::World;

/// Most rows of one page, and the default.
const PAGE: usize = 2_000;
/// Fewest rows of one page that a caller may ask for.
const SMALLEST_PAGE: usize = 200;

/// `/query` or `/queryAll`, with a statement or a locator.
pub(super) fn handle(world: &mut World, req: &Req<'_>, all: bool, rest: &[String]) -> Result<Answer, ApiError> {
    if !matches!(req.head.method, Method::GET | Method::HEAD) {
        return Err(ApiError::method_not_allowed(req.head.method.as_str()));
    }
    match rest {
        [] => match (req.head.param("q"), req.head.param("explain")) {
            (Some(text), _) if req.head.param("columns") == Some("true") => columns(world, req, text),
            (Some(text), _) => first_page(world, req, text, all),
            (None, Some(text)) => explain(world, req, text),
            (None, None) => Err(ApiError::malformed_query("A query string has to be specified")),
        },
        [locator] => {
            let life = seconds(world.config.cursor_seconds);
            let page = world.cursors.page(locator, req.user, req.now, life)?;
            Ok(answer(req, page))
        }
        _ => Err(ApiError::not_found()),
    }
}

/// Runs a statement as the request's user.
pub(super) fn run(world: &World, req: &Req<'_>, text: &str, all: bool) -> Result<(soql::Query, Found), ApiError> {
    let query = soql::parse(text)?;
    let mut context = world.context(req.user, req.now, req.version).ok_or_else(ApiError::session)?;
    context.with_deleted = all;
    let found = soql::run(&context, &query)?;
    Ok((query, found))
}

fn first_page(world: &mut World, req: &Req<'_>, text: &str, all: bool) -> Result<Answer, ApiError> {
    let (query, mut found) = run(world, req, text, all)?;
    let batch = req
        .head
        .header("sforce-query-options")
        .and_then(|header| option(header, "batchSize"))
        .and_then(|size| size.parse().ok())
        .map_or(PAGE, |size: usize| size.clamp(SMALLEST_PAGE, PAGE));
    let batch = if world.config.short_pages { batch * 3 / 4 } else { batch };
    if query.aggregates() {
        if found.records.len() > PAGE {
            return Err(ApiError::new(
                400,
                "EXCEEDED_ID_LIMIT",
                "Aggregate query does not support queryMore(), use LIMIT to restrict the results to a single batch",
            ));
        }
        let body = obj! {"totalSize": found.total, "done": true, "records": Json::Arr(found.records)};
        return Ok(Answer::ok(body).root("QueryResult"));
    }
    if query.has_children() {
        for record in &mut found.records {
            page_children(world, req, record, batch);
        }
    }
    let page = world.cursors.open(found.records, batch, req.user, req.now);
    Ok(answer(req, page))
}

/// Cuts long child results and gives them locators of their own.
fn page_children(world: &mut World, req: &Req<'_>, record: &mut Json, batch: usize) {
    let Json::Obj(members) = record else { return };
    for (_, value) in members.iter_mut() {
        let many = value.get("records").is_some_and(|records| records.items().len() > batch);
        if !many {
            continue;
        }
        let records = value.get("records").map(|records| records.items().to_vec()).unwrap_or_default();
        let page = world.cursors.open(records, batch, req.user, req.now);
        *value = body(req, page);
    }
}

fn body(req: &Req<'_>, page: Page) -> Json {
    let mut body = obj! {"totalSize": page.total, "done": page.next.is_none()};
    if let Some(locator) = page.next {
        // Relative to the host, also for queryAll, whose pages are fetched from `query` (facts 3.4).
        body.push("nextRecordsUrl", format!("{}/query/{locator}", req.base()));
    }
    body.push("records", Json::Arr(page.records));
    body
}

fn answer(req: &Req<'_>, page: Page) -> Answer {
    Answer::ok(body(req, page)).root("QueryResult")
}

/// `&columns=true`: what the statement selects instead of rows, as command line tools ask for it (facts 11).
fn columns(world: &World, req: &Req<'_>, text: &str) -> Result<Answer, ApiError> {
    let (query, _) = run(world, req, text, false)?;
    let object = world.schema.object(&query.from).map(|at| &world.schema.objects[at]);
    let shown = query
        .columns()
        .into_iter()
        .map(|name| {
            obj! {
                "aggregate": false,
                "columnName": name.rsplit('.').next().unwrap_or(name),
                "custom": name.ends_with("__c"),
                "displayName": name,
                "joinColumns": Json::Arr(Vec::new()),
                "textType": true,
            }
        })
        .collect();
    Ok(Answer::ok(obj! {
        "columnMetadata": Json::Arr(shown),
        "entityName": query.from.as_str(),
        "groupBy": query.aggregates(),
        "idSelected": query.columns().iter().any(|name| name.eq_ignore_ascii_case("Id")),
        "keyPrefix": object.map(|object| object.prefix),
    }))
}

fn explain(world: &World, req: &Req<'_>, text: &str) -> Result<Answer, ApiError> {
    let (query, _) = run(world, req, text, false)?;
    let plan = obj! {
        "cardinality": 1_i64,
        "fields": Json::Arr(Vec::new()),
        "leadingOperationType": "TableScan",
        "relativeCost": 1.5,
        "sobjectCardinality": 1_i64,
        "sobjectType": query.from,
    };
    Ok(Answer::ok(obj! {"plans": Json::Arr(vec![plan])}))
}
