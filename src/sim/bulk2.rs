//! Bulk API 2.0: ingest and query jobs (facts 4.1, 4.2).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Method;

use super::answer::Answer;
use super::body::{Upload, lines_in};
use super::clock::{Micros, seconds};
use super::csv;
use super::dates::datetime_text;
use super::errors::ApiError;
use super::jobs::{Job, Operation, State, refuse_for_bulk};
use super::json::{Json, obj};
use super::request::Req;
use super::soql;
use super::world::{Maintenance, World};

/// Rows of one page of query results if the caller does not say.
const PAGE: usize = 50_000;
/// Pages handed out for parallel download.
const PAGES: usize = 5;

/// Anything below `/jobs/`.
pub(super) fn handle(world: &mut World, req: &Req<'_>, upload: &Upload, rest: &[String]) -> Result<Answer, ApiError> {
    let parts: Vec<&str> = rest.iter().map(String::as_str).collect();
    let kind = parts.first().copied().unwrap_or_default();
    if !matches!(kind, "ingest" | "query") {
        return Err(ApiError::not_found());
    }
    if world.maintenance == Maintenance::ReadOnly {
        return Err(ApiError::new(503, "SERVER_UNAVAILABLE", "Bulk API is not available in read-only mode"));
    }
    let is_query = kind == "query";
    match (&req.head.method, parts.get(1..).unwrap_or_default()) {
        (&Method::POST, []) => create(world, req, is_query),
        (&Method::GET, []) => Ok(list(world, req, is_query)),
        (method, [id, what @ ..]) => {
            let user = req.user;
            let job = world.jobs.get(id, user, false).filter(|job| job.operation.is_query() == is_query);
            let Some(job) = job else { return Err(missing()) };
            match (method, what) {
                (&Method::GET, []) => Ok(Answer::ok(describe(job, req.now))),
                (&Method::DELETE, []) => delete(world, id, user),
                (&Method::PATCH, []) => change_state(world, req, id),
                (&Method::PUT, ["batches"]) if !is_query => put_data(job, upload),
                (&Method::GET, ["successfulResults"]) if !is_query => Ok(ingest_result(job, Part::Successful)),
                (&Method::GET, ["failedResults"]) if !is_query => Ok(ingest_result(job, Part::Failed)),
                (&Method::GET, ["unprocessedrecords" | "unprocessedRecords"]) if !is_query => {
                    Ok(ingest_result(job, Part::Unprocessed))
                }
                (&Method::GET, ["results"]) if is_query => results(job, req),
                (&Method::GET, ["resultPages"]) if is_query => pages(job, req),
                _ => Err(ApiError::not_found()),
            }
        }
        (method, _) => Err(ApiError::method_not_allowed(method.as_str())),
    }
}

fn missing() -> ApiError {
    ApiError::new(404, "NOT_FOUND", "The requested resource does not exist")
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> ApiError {
    ApiError::new(400, "INVALIDJOB", message)
}

fn create(world: &mut World, req: &Req<'_>, is_query: bool) -> Result<Answer, ApiError> {
    let body = Json::parse(req.body).map_err(ApiError::parser)?;
    let operation = body.text("operation").and_then(Operation::parse).filter(|op| op.is_query() == is_query);
    let operation = operation.ok_or_else(|| invalid("operation is missing or unknown"))?;
    let choose = |name: &str, known: &[&'static str]| -> Result<&'static str, ApiError> {
        let wanted = body.text(name).unwrap_or(known[0]);
        known.iter().copied().find(|value| *value == wanted).ok_or_else(|| invalid(format!("{name} is unknown")))
    };
    let delimiter = choose("columnDelimiter", &["COMMA", "TAB", "PIPE", "SEMICOLON", "CARET", "BACKQUOTE"])?;
    let line_ending = choose("lineEnding", &["LF", "CRLF"])?;
    let query = body.text("query").unwrap_or_default().to_owned();
    let key = body.text("externalIdFieldName").map(str::to_owned);
    let object = if is_query {
        let parsed = soql::parse(&query)?;
        refuse_for_bulk(&parsed)?;
        parsed.from
    } else {
        let name = body.text("object").unwrap_or_default();
        let at =
            world.visible_object(req.user, name).ok_or_else(|| invalid(format!("Unable to find object: {name}")))?;
        if operation == Operation::Upsert && key.is_none() {
            return Err(invalid("External ID was blank for upsert"));
        }
        world.schema.objects[at].name.to_string()
    };
    let id = world.jobs.next_id("750");
    let due = req.now + seconds(world.config.bulk_seconds);
    let job = Job {
        id,
        v1: false,
        version: req.version,
        user: req.user,
        object,
        operation,
        key,
        delimiter,
        line_ending,
        content: "CSV".to_owned(),
        created: req.now,
        changed: req.now,
        state: if is_query { State::Waiting { since: req.now, due } } else { State::Open },
        message: None,
        uploaded: false,
        data: Bytes::new(),
        uncounted: 0,
        query,
        rows: Vec::new(),
        table: Vec::new(),
        batches: Vec::new(),
    };
    let mut shown = describe(&job, req.now);
    if let (Json::Obj(members), true) = (&mut shown, is_query) {
        // Right after its creation a query job says UploadComplete; there is no Open (facts 4.2).
        members.retain(|(name, _)| name != "numberRecordsProcessed");
    }
    world.jobs.add(job);
    Ok(Answer::ok(shown))
}

fn state_name(job: &Job, now: Micros) -> &'static str {
    match job.state {
        State::Open => "Open",
        State::Waiting { since, due } if now.saturating_sub(since) * 2 < due.saturating_sub(since) => "UploadComplete",
        State::Waiting { .. } => "InProgress",
        State::Done => "JobComplete",
        State::Failed => "Failed",
        State::Aborted => "Aborted",
        State::Closed => "Closed",
    }
}

/// The job as JSON: the version is a number, the content URL relative without a leading slash (facts 4.1).
fn describe(job: &Job, now: Micros) -> Json {
    let mut shown = obj! {
        "id": &job.id,
        "operation": job.operation.name(),
        "object": job.object.as_str(),
        "createdById": super::ids::make("005", job.user as u64 + 1),
        "createdDate": datetime_text(job.created),
        "systemModstamp": datetime_text(job.changed),
        "state": state_name(job, now),
        "concurrencyMode": "Parallel",
        "contentType": "CSV",
        "apiVersion": f64::from(job.version),
    };
    if job.operation.is_query() {
        shown.push("jobType", "V2Query");
    } else {
        let url = format!("services/data/v{}.0/jobs/ingest/{}/batches", job.version, job.id);
        shown.push("contentUrl", url);
        shown.push("jobType", "V2Ingest");
        shown.push("externalIdFieldName", job.key.clone());
    }
    shown.push("lineEnding", job.line_ending);
    shown.push("columnDelimiter", job.delimiter);
    if !matches!(job.state, State::Open) {
        let processed = if job.operation.is_query() {
            job.table.len().saturating_sub(1) as u64
        } else {
            job.rows.len() as u64 + if job.state == State::Done { job.uncounted } else { 0 }
        };
        shown.push("numberRecordsProcessed", processed);
        shown.push("numberRecordsFailed", job.failed_rows());
        shown.push("retries", 0_i64);
        shown.push("totalProcessingTime", job.changed.saturating_sub(job.created) / 1_000);
        shown.push("apiActiveProcessingTime", 0_i64);
        shown.push("apexProcessingTime", 0_i64);
        shown.push("errorMessage", job.message.clone());
    }
    shown
}

fn list(world: &World, req: &Req<'_>, is_query: bool) -> Answer {
    let records = world
        .jobs
        .all
        .values()
        .filter(|job| !job.v1 && job.user == req.user && job.operation.is_query() == is_query)
        .take(1_000)
        .map(|job| describe(job, req.now))
        .collect();
    Answer::ok(obj! {"done": true, "records": Json::Arr(records), "nextRecordsUrl": Json::Null})
}

fn delete(world: &mut World, id: &str, user: usize) -> Result<Answer, ApiError> {
    let job = world.jobs.get(id, user, false).ok_or_else(missing)?;
    if matches!(job.state, State::Waiting { .. }) {
        return Err(ApiError::new(400, "INVALIDJOBSTATE", "A job in progress cannot be deleted"));
    }
    let id = job.id.clone();
    world.jobs.all.remove(&id);
    Ok(Answer::empty(204))
}

fn change_state(world: &mut World, req: &Req<'_>, id: &str) -> Result<Answer, ApiError> {
    let body = Json::parse(req.body).map_err(ApiError::parser)?;
    let wait = seconds(world.config.bulk_seconds);
    let job = world.jobs.get(id, req.user, false).ok_or_else(missing)?;
    match (body.text("state"), job.state) {
        (Some("UploadComplete"), State::Open) if !job.operation.is_query() => {
            job.state = State::Waiting { since: req.now, due: req.now + wait };
        }
        (Some("Aborted"), State::Open | State::Waiting { .. }) => job.state = State::Aborted,
        _ => return Err(ApiError::new(400, "INVALIDJOBSTATE", "The job cannot go to this state")),
    }
    job.changed = req.now;
    let shown = describe(job, req.now);
    Ok(Answer::ok(shown))
}

/// The one upload of a job (facts 4.1).
fn put_data(job: &mut Job, upload: &Upload) -> Result<Answer, ApiError> {
    if job.state != State::Open || job.uploaded {
        return Err(ApiError::new(400, "INVALIDJOBSTATE", "Found multiple contents for job or job is not open"));
    }
    job.uploaded = true;
    job.data = upload.kept.clone();
    if upload.total > upload.kept.len() as u64 {
        // Only whole rows are processed; the rest is counted.
        let end = job.data.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        job.data.truncate(end);
        let kept = lines_in(&job.data);
        job.uncounted = upload.lines.saturating_sub(kept);
    }
    Ok(Answer::empty(201))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Successful,
    Failed,
    Unprocessed,
}

fn ingest_result(job: &Job, part: Part) -> Answer {
    let text = String::from_utf8_lossy(&job.data);
    let table = csv::parse(&text, job.separator());
    let header = table.first().cloned().unwrap_or_default();
    let lead: &[&str] = match part {
        Part::Successful => &["sf__Id", "sf__Created"],
        Part::Failed => &["sf__Id", "sf__Error"],
        Part::Unprocessed => &[],
    };
    let mut out = String::new();
    let mut line = |fields: Vec<&str>| csv::write(&mut out, fields, job.separator(), job.line_end());
    line(lead.iter().copied().chain(header.iter().map(String::as_str)).collect());
    match part {
        Part::Unprocessed => {
            let left = if matches!(job.state, State::Aborted | State::Failed) { &table[..] } else { &[] };
            left.iter().skip(1).for_each(|row| line(row.iter().map(String::as_str).collect()));
        }
        _ => {
            for row in job.rows.iter().filter(|row| row.error.is_some() == (part == Part::Failed)) {
                let created = if row.created { "true" } else { "false" };
                let second = row.error.as_deref().unwrap_or(created);
                line([row.id.as_str(), second].into_iter().chain(row.columns.iter().map(String::as_str)).collect());
            }
        }
    }
    Answer::text(200, "text/csv", out)
}

fn offset_of(locator: &str) -> Option<usize> {
    String::from_utf8(STANDARD.decode(locator).ok()?).ok()?.parse().ok()
}

fn locator_of(offset: usize) -> String {
    STANDARD.encode(offset.to_string())
}

fn finished(job: &Job, req: &Req<'_>) -> Result<(), ApiError> {
    if job.version != req.version {
        // Locators belong to the version of their job (facts 4.2).
        return Err(ApiError::new(409, "API_VERSION_CONFLICT", "Use the API version the job was created with"));
    }
    if job.state != State::Done {
        return Err(ApiError::new(400, "INVALIDJOBSTATE", "The job has no results yet"));
    }
    Ok(())
}

/// One page of a query's rows; always compressed.
fn results(job: &Job, req: &Req<'_>) -> Result<Answer, ApiError> {
    finished(job, req)?;
    let Some((header, rows)) = job.table.split_first() else { return Err(missing()) };
    let offset = match req.head.param("locator") {
        Some(locator) => offset_of(locator)
            .filter(|offset| *offset < rows.len().max(1))
            .ok_or_else(|| ApiError::new(400, "INVALID_QUERY_LOCATOR", "invalid query locator"))?,
        None => 0,
    };
    let size = req.head.param("maxRecords").and_then(|size| size.parse().ok()).unwrap_or(PAGE).max(1);
    let end = (offset + size).min(rows.len());
    let mut out = String::new();
    let mut line = |row: &Vec<String>| {
        csv::write(&mut out, row.iter().map(String::as_str), job.separator(), job.line_end());
    };
    line(header);
    rows.get(offset..end).unwrap_or_default().iter().for_each(&mut line);
    let next = if end < rows.len() { locator_of(end) } else { "null".to_owned() };
    let mut answer = Answer::text(200, "text/csv", out)
        .with("sforce-locator", next)
        .with("sforce-numberofrecords", (end - offset).to_string());
    answer.always_compressed = true;
    Ok(answer)
}

fn pages(job: &Job, req: &Req<'_>) -> Result<Answer, ApiError> {
    finished(job, req)?;
    let rows = job.table.len().saturating_sub(1);
    let first = req.head.param("locator").and_then(offset_of).unwrap_or_default();
    let starts: Vec<usize> = (first..rows.max(first + 1)).step_by(PAGE).collect();
    let base = format!("{}/jobs/query/{}", req.base(), job.id);
    let shown = starts
        .iter()
        .take(PAGES)
        .map(|start| obj! {"resultUrl": format!("{base}/results?locator={}&maxRecords={PAGE}", locator_of(*start))})
        .collect();
    let next = starts.get(PAGES).map(|start| format!("{base}/resultPages?locator={}", locator_of(*start)));
    Ok(Answer::ok(obj! {"resultPages": Json::Arr(shown), "done": next.is_none(), "nextRecordsUrl": next}))
}
