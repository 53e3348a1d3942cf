//! The embedded bank: one SQLite file in `state.path`, one writer thread, one process.
//!
//! Write-ahead log with full synchronisation: a statement is on the disk before its lease may be spent, so `kill -9`
//! at any moment loses headroom and never a spent call. The writer thread gathers the statements that wait and
//! commits them together. The file is locked for as long as the bank is open, so a second process refuses to start.
//!
//! After any failed write the file is closed and opened again before the next one: what the operating system made of
//! a failed `fsync` is not known, and SQLite's recovery is the only one to ask.

mod file;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use self::file::File;
use super::{Bank, BankError, Lease, Past, Statement};
use crate::clock::Uptime;

/// Statements that may wait for the writer; each org has one at most.
const WAITING: usize = 1_024;
/// Statements written in one transaction.
const TOGETHER: usize = 64;

/// Why the state cannot be opened. Each says what to do about it.
#[derive(Debug)]
pub enum OpenError {
    /// Another process has it open.
    InUse(PathBuf),
    /// It is not a state file of this gateway.
    Foreign(PathBuf),
    /// A later version of the gateway wrote it.
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
    },
    /// It is damaged.
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        why: Box<str>,
    },
    /// It lies on a network file system, where its locks and its log are not safe.
    NetworkFileSystem(PathBuf),
    /// It is kept in a store that replicas share, of which this build knows nothing.
    Shared,
    /// It cannot be read or written.
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: Box<str>,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is lost by moving the file away, and why that is safe.
        const AFRESH: &str = "To begin afresh, move it and the files beside it that begin with its name away and start \
                              again: what was used in the last 24 hours is then learned from Salesforce's own readings, \
                              and pauses have to be set again";
        match self {
            Self::InUse(path) => {
                write!(
                    f,
                    "{} is in use by another process. Stop that one, or give this one its own state.path",
                    path.display()
                )
            }
            Self::Foreign(path) => {
                write!(f, "{} is not a state file of this gateway. Check state.path. {AFRESH}", path.display())
            }
            Self::Newer { path, found } => write!(
                f,
                "{} was written by a later version (format {found}, this one knows {}). Use that version. {AFRESH}",
                path.display(),
                file::FORMAT
            ),
            Self::Corrupt { path, why } => write!(f, "{} is damaged: {why}. {AFRESH}", path.display()),
            Self::NetworkFileSystem(path) => {
                write!(
                    f,
                    "{} lies on a network file system, where its locks are not safe. Use a local disk",
                    path.display()
                )
            }
            Self::Shared => {
                f.write_str("this gateway was built without shared stores. Use another build, or state.path")
            }
            Self::Io { path, why } => write!(
                f,
                "{} cannot be read and written: {why}. Let the gateway's user write it and the folder it is in, see that the \
                 disk has room, or give another state.path",
                path.display()
            ),
        }
    }
}

impl std::error::Error for OpenError {}

struct Job {
    org: Box<str>,
    statement: Arc<Statement>,
    closing: bool,
    done: oneshot::Sender<Result<Lease, BankError>>,
}

/// What time it is where a state is opened.
#[derive(Debug, Clone)]
pub struct Present {
    /// The wall clock's time, since the Unix epoch.
    pub wall: Duration,
    /// How long the machine has been up, if it says so.
    pub uptime: Option<Uptime>,
}

impl From<Duration> for Present {
    fn from(wall: Duration) -> Self {
        Self { wall, uptime: None }
    }
}

/// The embedded bank. Dropping it closes the file.
#[derive(Debug)]
pub struct SqliteBank {
    /// `None` once dropped.
    jobs: Option<SyncSender<Job>>,
    writer: Option<JoinHandle<()>>,
    pasts: Mutex<HashMap<String, Past>>,
    /// Of an org it knows nothing of.
    blank: Past,
}

impl SqliteBank {
    /// Opens or creates the state in the directory `dir`, at `present`.
    /// Leases of an earlier process that were not given back are counted as spent, on the disk, before it returns.
    pub fn open(dir: &Path, present: impl Into<Present>) -> Result<Self, OpenError> {
        let mut file = File::open(dir)?;
        let (blank, pasts) = file.inherit(&present.into())?;
        let (jobs, waiting) = sync_channel(WAITING);
        let path = file.path().to_owned();
        let writer = std::thread::Builder::new()
            .name("bank".into())
            .spawn(move || write(file, &waiting))
            .map_err(|error| OpenError::Io { path, why: error.to_string().into() })?;
        Ok(Self { jobs: Some(jobs), writer: Some(writer), pasts: Mutex::new(pasts), blank })
    }

    async fn submit(&self, org: &str, statement: Arc<Statement>, closing: bool) -> Result<Lease, BankError> {
        let (done, answer) = oneshot::channel();
        let job = Job { org: org.into(), statement, closing, done };
        let jobs = self.jobs.as_ref().ok_or_else(|| BankError("it is closed".into()))?;
        jobs.try_send(job).map_err(|_| BankError("its writer is stuck".into()))?;
        answer.await.map_err(|_| BankError("its writer has stopped".into()))?
    }
}

impl Bank for SqliteBank {
    async fn open(&self, org: &str) -> Result<Past, BankError> {
        let past = self.pasts.lock().remove(org);
        Ok(past.unwrap_or_else(|| self.blank.clone()))
    }

    async fn settle(&self, org: &str, statement: Arc<Statement>) -> Result<Lease, BankError> {
        self.submit(org, statement, false).await
    }

    async fn close(&self, org: &str, statement: Arc<Statement>) -> Result<(), BankError> {
        self.submit(org, statement, true).await.map(|_| ())
    }
}

impl Drop for SqliteBank {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// The writer thread: commits what waits, together, until nobody is left to ask.
fn write(file: File, waiting: &Receiver<Job>) {
    let path = file.path().to_owned();
    let mut file = Some(file);
    while let Ok(first) = waiting.recv() {
        let mut jobs = vec![first];
        while jobs.len() < TOGETHER
            && let Ok(next) = waiting.try_recv()
        {
            jobs.push(next);
        }
        let answer = commit(&mut file, &path, &jobs);
        if answer.is_err() {
            file = None;
        }
        for (nth, job) in jobs.into_iter().enumerate() {
            // Whoever asked may be gone; what was written stays written.
            let _ = job.done.send(match &answer {
                Ok(leases) => leases.get(nth).cloned().ok_or_else(|| BankError("no lease".into())),
                Err(error) => Err(error.clone()),
            });
        }
    }
}

fn commit(file: &mut Option<File>, path: &Path, jobs: &[Job]) -> Result<Vec<Lease>, BankError> {
    let reopened = match file.take() {
        Some(open) => open,
        None => File::reopen(path).map_err(|error| BankError(error.to_string().into()))?,
    };
    let open = file.insert(reopened);
    let statements = jobs.iter().map(|job| (&*job.org, &*job.statement, job.closing));
    open.commit(statements).map_err(|error| BankError(error.to_string().into()))
}
