//! Where log lines go: standard output, standard error, a file, or memory.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// How long a writer waits before it tries an output again that would block.
const BUSY: Duration = Duration::from_millis(10);

/// Where to log.
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to; it can be moved away and opened anew.
    File(PathBuf),
    /// Anything that takes bytes; it may block without harm.
    Writer(Box<dyn Write + Send>),
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("Stdout"),
            Self::Stderr => f.write_str("Stderr"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Writer(_) => f.write_str("Writer"),
        }
    }
}

/// An open output. A line that was cut by a failure is ended before the next begins.
pub(super) struct Sink {
    writer: Box<dyn Write + Send>,
    path: Option<PathBuf>,
    torn: bool,
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sink").field("path", &self.path).field("torn", &self.torn).finish_non_exhaustive()
    }
}

impl Sink {
    pub(super) fn open(output: Output) -> io::Result<Self> {
        Ok(match output {
            // Copies of the descriptors, because the standard library's handles would split the writes at lines.
            Output::Stdout => Self::from_writer(Box::new(File::from(io::stdout().as_fd().try_clone_to_owned()?))),
            Output::Stderr => Self::from_writer(Box::new(File::from(io::stderr().as_fd().try_clone_to_owned()?))),
            Output::File(path) => {
                let file = append_to(&path)?;
                Self { path: Some(path), ..Self::from_writer(Box::new(file)) }
            }
            Output::Writer(writer) => Self::from_writer(writer),
        })
    }

    pub(super) fn from_writer(writer: Box<dyn Write + Send>) -> Self {
        Self { writer, path: None, torn: false }
    }

    /// Opens the file anew; other outputs stay as they are.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        if let Some(path) = &self.path {
            self.writer = Box::new(append_to(path)?);
            self.torn = false;
        }
        Ok(())
    }

    /// Writes whole lines; says how many were written and how many lost.
    pub(super) fn write(&mut self, lines: &[u8]) -> (u64, u64) {
        if self.torn {
            if self.write_some(b"\n") == 0 {
                return (0, count_lines(lines));
            }
            self.torn = false;
        }
        let written = self.write_some(lines);
        let (done, lost) = lines.split_at_checked(written).unwrap_or((lines, &[]));
        if !lost.is_empty() && !done.is_empty() && !done.ends_with(b"\n") {
            self.torn = true;
        }
        (count_lines(done), count_lines(lost))
    }

    /// Bytes written before the first failure.
    fn write_some(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match self.writer.write(rest) {
                Ok(0) => break,
                Ok(more) => written += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(BUSY),
                Err(_) => break,
            }
        }
        written.min(bytes.len())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

fn count_lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// A log kept in memory.
#[derive(Debug, Clone)]
pub struct Memory {
    bytes: Arc<Mutex<Vec<u8>>>,
    limit: usize,
}

impl Memory {
    pub(super) fn new(limit: usize) -> Self {
        Self { bytes: Arc::default(), limit }
    }

    /// All lines so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock()).into_owned()
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut held = self.bytes.lock();
        if held.len() + bytes.len() > self.limit {
            return Err(ErrorKind::StorageFull.into());
        }
        held.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
