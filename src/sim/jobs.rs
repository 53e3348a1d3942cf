//! Bulk jobs of both versions: what they hold, and the work they do when their time has come (facts 4).

use std::collections::BTreeMap;

use bytes::Bytes;
use smol_str::SmolStr;

use super::clock::Micros;
use super::csv;
use super::dml::{Upserted, Writer};
use super::errors::ApiError;
use super::ids;
use super::json::Json;
use super::schema::ID;
use super::soql;
use super::world::World;

/// Jobs kept; the oldest is dropped for a new one.
const MOST: usize = 2_000;

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Insert,
    Update,
    Upsert,
    Delete,
    Query { all: bool },
}

impl Operation {
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "insert" => Self::Insert,
            "update" => Self::Update,
            "upsert" => Self::Upsert,
            "delete" | "hardDelete" => Self::Delete,
            "query" => Self::Query { all: false },
            "queryAll" => Self::Query { all: true },
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Upsert => "upsert",
            Self::Delete => "delete",
            Self::Query { all: false } => "query",
            Self::Query { all: true } => "queryAll",
        }
    }

    pub(super) fn is_query(self) -> bool {
        matches!(self, Self::Query { .. })
    }
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Open,
    /// Complete, and done at `due`; it shows `InProgress` in the second half of its wait.
    Waiting {
        since: Micros,
        due: Micros,
    },
    Done,
    Failed,
    Aborted,
    /// Bulk v1: closed by its creator.
    Closed,
}

/// One row of an ingest job and what became of it.
#[derive(Debug, Clone)]
pub(super) struct RowResult {
    pub(super) id: String,
    pub(super) created: bool,
    /// `CODE:message:fields--`.
    pub(super) error: Option<String>,
    pub(super) columns: Vec<String>,
}

/// One batch of a Bulk v1 job.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    pub(super) id: SmolStr,
    pub(super) data: Bytes,
    pub(super) due: Micros,
    pub(super) done: bool,
    pub(super) failed: Option<String>,
    pub(super) rows: Vec<RowResult>,
    /// Header and rows of a query.
    pub(super) table: Vec<Vec<String>>,
    /// Id of the query's result set.
    pub(super) result: SmolStr,
}

/// One job.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) id: SmolStr,
    pub(super) v1: bool,
    pub(super) version: u16,
    pub(super) user: usize,
    pub(super) object: String,
    pub(super) operation: Operation,
    pub(super) key: Option<String>,
    pub(super) delimiter: &'static str,
    pub(super) line_ending: &'static str,
    pub(super) content: String,
    pub(super) created: Micros,
    pub(super) changed: Micros,
    pub(super) state: State,
    pub(super) message: Option<String>,
    pub(super) uploaded: bool,
    pub(super) data: Bytes,
    /// Rows that were only counted, because the upload was longer than what is kept.
    pub(super) uncounted: u64,
    pub(super) query: String,
    pub(super) rows: Vec<RowResult>,
    /// Header and rows of a query.
    pub(super) table: Vec<Vec<String>>,
    pub(super) batches: Vec<Batch>,
}

impl Job {
    pub(super) fn separator(&self) -> char {
        match self.delimiter {
            "TAB" => '\t',
            "PIPE" => '|',
            "SEMICOLON" => ';',
            "CARET" => '^',
            "BACKQUOTE" => '`',
            _ => ',',
        }
    }

    pub(super) fn line_end(&self) -> &'static str {
        if self.line_ending == "CRLF" { "\r\n" } else { "\n" }
    }

    pub(super) fn failed_rows(&self) -> usize {
        self.rows.iter().filter(|row| row.error.is_some()).count()
    }
}

/// All jobs.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    pub(super) all: BTreeMap<SmolStr, Job>,
    last: [u64; 3],
}

impl Jobs {
    /// A fresh id: `750` jobs, `751` batches, `752` results.
    pub(super) fn next_id(&mut self, prefix: &'static str) -> SmolStr {
        let last = match prefix {
            "750" => &mut self.last[0],
            "751" => &mut self.last[1],
            _ => &mut self.last[2],
        };
        *last += 1;
        ids::make(prefix, *last)
    }

    pub(super) fn add(&mut self, job: Job) {
        if self.all.len() >= MOST {
            self.all.pop_first();
        }
        self.all.insert(job.id.clone(), job);
    }

    /// The job of this id (15 or 18 characters), if the user may see it.
    pub(super) fn get(&mut self, id: &str, user: usize, v1: bool) -> Option<&mut Job> {
        let id = ids::to18(id)?;
        self.all.get_mut(&id).filter(|job| job.user == user && job.v1 == v1)
    }
}

impl World {
    /// Does the work of every job and batch whose time has come. Called before every request.
    pub(super) fn run_due_jobs(&mut self, now: Micros) {
        let due: Vec<SmolStr> = self
            .jobs
            .all
            .values()
            .filter(|job| {
                matches!(job.state, State::Waiting { due, .. } if due <= now)
                    || job.batches.iter().any(|batch| !batch.done && batch.due <= now)
            })
            .map(|job| job.id.clone())
            .collect();
        for id in due {
            let Some(mut job) = self.jobs.all.remove(&id) else { continue };
            if job.v1 {
                for at in 0..job.batches.len() {
                    self.run_batch(&mut job, at, now);
                }
            } else {
                self.run_job(&mut job, now);
            }
            job.changed = now;
            self.jobs.all.insert(id, job);
        }
    }

    fn run_job(&mut self, job: &mut Job, now: Micros) {
        let outcome = if let Operation::Query { all } = job.operation {
            self.run_query(job.user, job.version, &job.query, all, now).map(|table| job.table = table)
        } else {
            let text = String::from_utf8_lossy(&job.data).into_owned();
            self.run_rows(job, &csv::parse(&text, job.separator()), now).map(|rows| job.rows = rows)
        };
        match outcome {
            Ok(()) => job.state = State::Done,
            Err(error) => {
                job.state = State::Failed;
                job.message = Some(format!("{} : {}", error.code, error.message));
            }
        }
    }

    fn run_batch(&mut self, job: &mut Job, at: usize, now: Micros) {
        let Some(mut batch) = job.batches.get(at).filter(|batch| !batch.done && batch.due <= now).cloned() else {
            return;
        };
        let text = String::from_utf8_lossy(&batch.data).into_owned();
        let outcome = if let Operation::Query { all } = job.operation {
            self.run_query(job.user, job.version, text.trim(), all, now).map(|table| batch.table = table)
        } else {
            let table = super::bulk1::table(job, &text);
            table.and_then(|table| self.run_rows(job, &table, now)).map(|rows| batch.rows = rows)
        };
        batch.done = true;
        batch.failed = outcome.err().map(|error| format!("InvalidBatch : {}", error.message));
        if let Some(place) = job.batches.get_mut(at) {
            *place = batch;
        }
    }

    /// Rows one by one: failures stay with their row.
    fn run_rows(&mut self, job: &Job, table: &[Vec<String>], now: Micros) -> Result<Vec<RowResult>, ApiError> {
        let writer = Writer { user: job.user, now };
        let object = self
            .visible_object(job.user, &job.object)
            .ok_or_else(|| ApiError::new(400, "InvalidBatch", format!("Unable to find object: {}", job.object)))?;
        let Some((header, rows)) = table.split_first() else { return Ok(Vec::new()) };
        let unknown = header.iter().find(|name| !self.knows_column(job.user, object, name));
        if let Some(name) = unknown {
            return Err(ApiError::new(400, "InvalidBatch", format!("Field name not found : {name}")));
        }
        let results = rows
            .iter()
            .map(|columns| {
                let outcome = self.run_row(job, writer, object, header, columns);
                let columns = columns.clone();
                match outcome {
                    Ok((id, created)) => RowResult { id: id.to_string(), created, error: None, columns },
                    Err(error) => {
                        let fields = error.fields.iter().flatten().map(SmolStr::as_str).collect::<Vec<_>>().join(",");
                        let text = format!("{}:{}:{fields}--", error.code, error.message);
                        RowResult { id: String::new(), created: false, error: Some(text), columns }
                    }
                }
            })
            .collect();
        Ok(results)
    }

    fn knows_column(&self, user: usize, object: usize, name: &str) -> bool {
        let definition = &self.schema.objects[object];
        let sees = |field: usize| self.users.get(user).is_some_and(|user| user.sees_field(object, field));
        match name.split_once('.') {
            Some((way, _)) => definition.relationship(way).is_some_and(sees),
            None => definition.field(name).is_some_and(sees),
        }
    }

    fn run_row(
        &mut self,
        job: &Job,
        writer: Writer,
        object: usize,
        header: &[String],
        columns: &[String],
    ) -> Result<(SmolStr, bool), ApiError> {
        let mut id = String::new();
        let mut key = String::new();
        let mut members: Vec<(SmolStr, Json)> = Vec::new();
        let key_name = job.key.clone().unwrap_or_else(|| "Id".to_owned());
        for (name, value) in header.iter().zip(columns) {
            if name.eq_ignore_ascii_case("id") {
                id.clone_from(value);
            }
            if job.operation == Operation::Upsert && name.eq_ignore_ascii_case(&key_name) {
                key.clone_from(value);
            } else if name.eq_ignore_ascii_case("id") || value.is_empty() {
                // An empty value changes nothing; `#N/A` is how a field is emptied.
            } else {
                let value = if value == "#N/A" { Json::Null } else { Json::from(value.as_str()) };
                members.push(match name.split_once('.') {
                    Some((way, field)) => (SmolStr::new(way), Json::Obj(vec![(SmolStr::new(field), value)])),
                    None => (SmolStr::new(name), value),
                });
            }
        }
        let known = || ids::to18(&id).ok_or_else(|| ApiError::dml("MALFORMED_ID", format!("bad id {id}"), &["Id"]));
        match job.operation {
            Operation::Insert => self.create(writer, object, &members).map(|id| (id, true)),
            Operation::Update => {
                let id = known()?;
                self.update(writer, object, &id, &members).map(|()| (id, false))
            }
            Operation::Delete => {
                let id = known()?;
                self.delete(writer, object, &id).map(|()| (id, false))
            }
            Operation::Upsert => {
                let field = self.external_id_field(writer.user, object, &key_name)?;
                if field == ID {
                    let id = ids::to18(&key).ok_or_else(|| ApiError::dml("MALFORMED_ID", "bad id", &["Id"]))?;
                    return self.update(writer, object, &id, &members).map(|()| (id, false));
                }
                match self.upsert(writer, object, field, &key, &members)? {
                    Upserted::Created(id) => Ok((id, true)),
                    Upserted::Updated(id) => Ok((id, false)),
                    Upserted::Several(_) => {
                        Err(ApiError::dml("DUPLICATE_EXTERNAL_ID", "more than one record found", &[]))
                    }
                }
            }
            Operation::Query { .. } => Err(ApiError::not_found()),
        }
    }

    /// A query as a table, its header first.
    fn run_query(
        &self,
        user: usize,
        version: u16,
        text: &str,
        all: bool,
        now: Micros,
    ) -> Result<Vec<Vec<String>>, ApiError> {
        let query = soql::parse(text)?;
        refuse_for_bulk(&query)?;
        let mut context = self.context(user, now, version).ok_or_else(ApiError::session)?;
        context.with_deleted = all;
        let found = soql::run(&context, &query)?;
        let header: Vec<String> = query.columns().into_iter().map(str::to_owned).collect();
        let mut table = vec![header.clone()];
        table.extend(found.records.iter().map(|record| {
            header.iter().map(|path| at_path(record, path).map(Json::plain).unwrap_or_default()).collect()
        }));
        Ok(table)
    }
}

/// What Bulk queries do not allow (facts 4.2).
pub(super) fn refuse_for_bulk(query: &soql::Query) -> Result<(), ApiError> {
    if query.aggregates() || query.has_children() || query.has_offset() || query.columns().is_empty() {
        let message = "Aggregate Relationships not supported in Bulk Query";
        return Err(ApiError::new(400, "API_ERROR", message));
    }
    Ok(())
}

fn at_path<'a>(record: &'a Json, path: &str) -> Option<&'a Json> {
    let member = |value: &'a Json, name: &str| {
        value.members().iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    // A leading name may be the object's own alias.
    let parts: Vec<&str> = path.split('.').collect();
    (0..parts.len()).find_map(|skip| parts[skip..].iter().try_fold(record, |value, part| member(value, part)))
}
