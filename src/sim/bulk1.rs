//! Bulk API 1.0, as far as common clients use it (facts 4.3): XML or JSON jobs with CSV, XML or JSON batches.

use bytes::Bytes;
use http::Method;

use super::answer::{Answer, Content};
use super::clock::{Micros, seconds};
use super::csv;
use super::dates::datetime_text;
use super::errors::ApiError;
use super::forms::{BULK1, speaks_json};
use super::jobs::{Batch, Job, Operation, RowResult, State};
use super::json::{Json, obj};
use super::request::Head;
use super::world::{Maintenance, World};
use super::xml::{self, close, open, put};

/// Anything below `/services/async/XX.0/`.
pub(super) fn handle(
    world: &mut World,
    head: &Head,
    body: &Bytes,
    user: usize,
    now: Micros,
) -> Result<Answer, ApiError> {
    let parts: Vec<&str> = head.segments.iter().skip(2).map(String::as_str).collect();
    let Some((version, rest)) = parts.split_first() else { return Err(invalid("InvalidUrl", "no version")) };
    let version = version.strip_suffix(".0").and_then(|number| number.parse().ok());
    let version: u16 = version.ok_or_else(|| invalid("InvalidUrl", "unknown version"))?;
    if world.maintenance == Maintenance::ReadOnly {
        return Err(invalid("FeatureNotEnabled", "Bulk API is not available in read-only mode"));
    }
    let post = match head.method {
        Method::POST => true,
        Method::GET => false,
        _ => return Err(ApiError::method_not_allowed(head.method.as_str())),
    };
    let json = speaks_json(head);
    match (rest, post) {
        (["job"], true) => create(world, head, body, user, version, now),
        (["job", id, ..], _) => {
            let wait = seconds(world.config.bulk_seconds);
            let batch_id = world.jobs.next_id("751");
            let result_id = world.jobs.next_id("752");
            let job = world.jobs.get(id, user, true).ok_or_else(|| invalid("InvalidJob", "Unable to find job"))?;
            // What is said of a job has the form of the request; what is said of its batches, that of the job.
            let of_batch = job.content == "JSON";
            match (rest.get(2..).unwrap_or_default(), post) {
                ([], false) => Ok(show(json, "jobInfo", &job_info(job))),
                ([], true) => {
                    let wanted = read(body, json)?;
                    match wanted.text("state") {
                        Some("Closed") if job.state == State::Open => job.state = State::Closed,
                        Some("Aborted") => job.state = State::Aborted,
                        _ => return Err(invalid("InvalidJobState", "The job cannot go to this state")),
                    }
                    Ok(show(json, "jobInfo", &job_info(job)))
                }
                (["batch"], true) => {
                    if job.state != State::Open {
                        return Err(invalid("InvalidJobState", "The job is not open"));
                    }
                    let batch = Batch {
                        id: batch_id,
                        data: body.clone(),
                        due: now + wait,
                        done: false,
                        failed: None,
                        rows: Vec::new(),
                        table: Vec::new(),
                        result: result_id,
                    };
                    let shown = batch_info(job, &batch, now);
                    if job.batches.len() < 1_000 {
                        job.batches.push(batch);
                    }
                    let mut answer = show(of_batch, "batchInfo", &shown);
                    answer.status = 201;
                    Ok(answer)
                }
                (["batch"], false) => {
                    let list: Vec<Json> = job.batches.iter().map(|batch| batch_info(job, batch, now)).collect();
                    Ok(show(of_batch, "batchInfoList", &obj! {"batchInfo": Json::Arr(list)}))
                }
                (["batch", id, what @ ..], false) => {
                    let batch = super::ids::to18(id).and_then(|id| job.batches.iter().find(|batch| batch.id == id));
                    let batch = batch.ok_or_else(|| invalid("InvalidBatch", "Unable to find batch"))?;
                    match what {
                        [] => Ok(show(of_batch, "batchInfo", &batch_info(job, batch, now))),
                        ["request"] => Ok(Answer::text(200, content_type(job), batch.data.clone())),
                        ["result"] => result(job, batch),
                        ["result", _] => Ok(query_rows(job, batch)),
                        _ => Err(invalid("InvalidUrl", "unknown resource")),
                    }
                }
                _ => Err(invalid("InvalidUrl", "unknown resource")),
            }
        }
        _ => Err(invalid("InvalidUrl", "unknown resource")),
    }
}

fn invalid(code: &'static str, message: &'static str) -> ApiError {
    ApiError::new(400, code, message)
}

/// Reads a job body in XML or JSON into the same shape.
fn read(body: &Bytes, json: bool) -> Result<Json, ApiError> {
    if json {
        return Json::parse(body).map_err(|_| invalid("InvalidJob", "The JSON cannot be read"));
    }
    let text = std::str::from_utf8(body).ok().and_then(xml::parse);
    let root = text.ok_or_else(|| invalid("InvalidXML", "The XML cannot be read"))?;
    Ok(Json::Obj(root.children.iter().map(|child| (child.name.as_str().into(), child.text.trim().into())).collect()))
}

fn create(
    world: &mut World,
    head: &Head,
    body: &Bytes,
    user: usize,
    version: u16,
    now: Micros,
) -> Result<Answer, ApiError> {
    let json = speaks_json(head);
    let wanted = read(body, json)?;
    let operation = wanted.text("operation").and_then(Operation::parse);
    let operation = operation.ok_or_else(|| invalid("InvalidJob", "operation is missing or unknown"))?;
    let object = wanted.text("object").and_then(|name| world.visible_object(user, name));
    let object = object.ok_or_else(|| invalid("InvalidJob", "Unable to find object"))?;
    let content = wanted.text("contentType").unwrap_or(if json { "JSON" } else { "XML" }).to_owned();
    let job = Job {
        id: world.jobs.next_id("750"),
        v1: true,
        version,
        user,
        object: world.schema.objects[object].name.to_string(),
        operation,
        key: wanted.text("externalIdFieldName").map(str::to_owned),
        delimiter: "COMMA",
        line_ending: "LF",
        content,
        created: now,
        changed: now,
        state: State::Open,
        message: None,
        uploaded: false,
        data: Bytes::new(),
        uncounted: 0,
        query: String::new(),
        rows: Vec::new(),
        table: Vec::new(),
        batches: Vec::new(),
    };
    let mut answer = show(json, "jobInfo", &job_info(&job));
    answer.status = 201;
    world.jobs.add(job);
    Ok(answer)
}

fn content_type(job: &Job) -> &'static str {
    match job.content.as_str() {
        "JSON" => "application/json",
        "CSV" => "text/csv",
        _ => "application/xml",
    }
}

fn job_info(job: &Job) -> Json {
    let state = match job.state {
        State::Open => "Open",
        State::Aborted => "Aborted",
        State::Failed => "Failed",
        _ => "Closed",
    };
    let count = |keep: &dyn Fn(&Batch) -> bool| job.batches.iter().filter(|batch| keep(batch)).count();
    let rows = || job.batches.iter().flat_map(|batch| &batch.rows);
    obj! {
        "id": &job.id,
        "operation": job.operation.name(),
        "object": job.object.as_str(),
        "createdById": super::ids::make("005", job.user as u64 + 1),
        "createdDate": datetime_text(job.created),
        "systemModstamp": datetime_text(job.changed),
        "state": state,
        "externalIdFieldName": job.key.clone(),
        "concurrencyMode": "Parallel",
        "contentType": job.content.as_str(),
        "numberBatchesQueued": count(&|batch| !batch.done),
        "numberBatchesInProgress": 0_i64,
        "numberBatchesCompleted": count(&|batch| batch.done && batch.failed.is_none()),
        "numberBatchesFailed": count(&|batch| batch.failed.is_some()),
        "numberBatchesTotal": job.batches.len(),
        "numberRecordsProcessed": rows().count(),
        "numberRetries": 0_i64,
        "apiVersion": format!("{}.0", job.version),
        "numberRecordsFailed": rows().filter(|row| row.error.is_some()).count(),
        "totalProcessingTime": 0_i64,
        "apiActiveProcessingTime": 0_i64,
        "apexProcessingTime": 0_i64,
    }
}

fn batch_info(job: &Job, batch: &Batch, now: Micros) -> Json {
    let state = match (batch.done, &batch.failed) {
        (true, None) => "Completed",
        (true, Some(_)) => "Failed",
        (false, _) if batch.due.saturating_sub(now) * 2 < super::clock::SECOND => "InProgress",
        (false, _) => "Queued",
    };
    let processed = if job.operation.is_query() { batch.table.len().saturating_sub(1) } else { batch.rows.len() };
    let mut info = obj! {
        "id": &batch.id,
        "jobId": &job.id,
        "state": state,
        "createdDate": datetime_text(job.created),
        "systemModstamp": datetime_text(job.changed),
        "numberRecordsProcessed": processed,
        "numberRecordsFailed": batch.rows.iter().filter(|row| row.error.is_some()).count(),
        "totalProcessingTime": 0_i64,
        "apiActiveProcessingTime": 0_i64,
        "apexProcessingTime": 0_i64,
    };
    if let Some(message) = &batch.failed {
        info.push("stateMessage", message.as_str());
    }
    info
}

/// JSON or XML; the content types are compared as strings by clients, so nothing is added to them (facts 11).
fn show(json: bool, root: &str, info: &Json) -> Answer {
    if json {
        let content = Content::Text("application/json".into(), info.to_bytes().into());
        return Answer { status: 200, content, ..Answer::default() };
    }
    let mut text = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><{root} xmlns=\"{BULK1}\">");
    elements(&mut text, info);
    close(&mut text, root);
    Answer::text(200, "application/xml", text)
}

fn elements(out: &mut String, info: &Json) {
    for (name, value) in info.members() {
        match value {
            Json::Null => {}
            Json::Arr(items) => {
                for item in items {
                    open(out, name);
                    elements(out, item);
                    close(out, name);
                }
            }
            scalar => put(out, name, &scalar.plain()),
        }
    }
}

/// The rows of a batch as a table, whatever their content type.
pub(super) fn table(job: &Job, text: &str) -> Result<Vec<Vec<String>>, ApiError> {
    let records: Vec<Vec<(String, String)>> = match job.content.as_str() {
        "CSV" => return Ok(csv::parse(text, ',')),
        "JSON" => {
            let list = Json::parse(text.as_bytes()).map_err(|_| invalid("InvalidBatch", "Failed to parse JSON"))?;
            let plain = |value: &Json| if value.is_null() { "#N/A".to_owned() } else { value.plain() };
            list.items()
                .iter()
                .map(|item| item.members().iter().map(|(name, value)| (name.to_string(), plain(value))).collect())
                .collect()
        }
        _ => {
            let root = xml::parse(text).ok_or_else(|| invalid("InvalidBatch", "Failed to parse XML"))?;
            root.children
                .iter()
                .map(|item| {
                    let text = |field: &xml::Element| {
                        if field.nil { "#N/A".to_owned() } else { field.text.clone() }
                    };
                    item.children.iter().map(|field| (field.name.clone(), text(field))).collect()
                })
                .collect()
        }
    };
    let mut header: Vec<String> = Vec::new();
    for (name, _) in records.iter().flatten() {
        if !header.contains(name) {
            header.push(name.clone());
        }
    }
    let mut table = vec![header.clone()];
    table.extend(records.iter().map(|record| {
        let value = |name: &String| record.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        header.iter().map(|name| value(name).unwrap_or_default()).collect()
    }));
    Ok(table)
}

fn result(job: &Job, batch: &Batch) -> Result<Answer, ApiError> {
    if !batch.done {
        return Err(invalid("InvalidBatch", "Batch not completed"));
    }
    if job.operation.is_query() {
        if job.content == "JSON" {
            let list = Json::Arr(vec![Json::from(&batch.result)]);
            let content = Content::Text("application/json".into(), list.to_bytes().into());
            return Ok(Answer { status: 200, content, ..Answer::default() });
        }
        let mut text = format!("<result-list xmlns=\"{BULK1}\">");
        put(&mut text, "result", &batch.result);
        text.push_str("</result-list>");
        return Ok(Answer::text(200, "application/xml", text));
    }
    Ok(match job.content.as_str() {
        "CSV" => {
            let mut out = String::new();
            csv::write(&mut out, ["Id", "Success", "Created", "Error"], ',', "\n");
            for row in &batch.rows {
                let (success, created) = (flag(row.error.is_none()), flag(row.created));
                csv::write(&mut out, [&row.id, success, created, row.error.as_deref().unwrap_or_default()], ',', "\n");
            }
            Answer::text(200, "text/csv", out)
        }
        "JSON" => {
            let rows: Vec<Json> = batch.rows.iter().map(|row| row_info(row, false)).collect();
            let content = Content::Text("application/json".into(), Json::Arr(rows).to_bytes().into());
            Answer { status: 200, content, ..Answer::default() }
        }
        _ => {
            let rows: Vec<Json> = batch.rows.iter().map(|row| row_info(row, true)).collect();
            show(false, "results", &obj! {"result": Json::Arr(rows)})
        }
    })
}

fn flag(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn row_info(row: &RowResult, flat: bool) -> Json {
    let errors: Vec<Json> = row
        .error
        .iter()
        .map(|text| {
            let mut parts = text.splitn(3, ':');
            let (code, message) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            obj! {"message": message, "statusCode": code}
        })
        .collect();
    let id = if row.id.is_empty() { Json::Null } else { Json::from(row.id.as_str()) };
    let mut info = obj! {"success": row.error.is_none(), "created": row.created, "id": id};
    if !flat || !errors.is_empty() {
        info.push("errors", Json::Arr(errors));
    }
    info
}

fn query_rows(job: &Job, batch: &Batch) -> Answer {
    let Some((header, rows)) = batch.table.split_first() else {
        return Answer::text(200, content_type(job), "");
    };
    match job.content.as_str() {
        "CSV" => {
            let mut out = String::new();
            for row in &batch.table {
                csv::write(&mut out, row.iter().map(String::as_str), ',', "\n");
            }
            Answer::text(200, "text/csv", out)
        }
        "JSON" => {
            let records: Vec<Json> = rows
                .iter()
                .map(|row| {
                    let mut record = obj! {"attributes": obj! {"type": job.object.as_str()}};
                    header.iter().zip(row).for_each(|(name, value)| record.push(name.as_str(), value.as_str()));
                    record
                })
                .collect();
            let content = Content::Text("application/json".into(), Json::Arr(records).to_bytes().into());
            Answer { status: 200, content, ..Answer::default() }
        }
        _ => {
            let mut text = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><queryResult xmlns=\"{BULK1}\">");
            for row in rows {
                text.push_str("<records>");
                put(&mut text, "type", &job.object);
                header.iter().zip(row).for_each(|(name, value)| put(&mut text, name, value));
                text.push_str("</records>");
            }
            text.push_str("</queryResult>");
            Answer::text(200, "application/xml", text)
        }
    }
}
