//! The log: one line for each request and each event, written without a system call per line.
//!
//! Each runtime appends to its own bounded buffer. A writer thread swaps the buffers out about every 50 ms, and only while
//! there is something to write, and hands each to the output in one write. An output that is slow, blocked or broken
//! never delays a request: once a buffer is full its lines are dropped and counted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use serde::Serialize;

use super::line::{Line, Stamp, Value, event_text, key};
use super::output::{Memory, Output, Sink};
use crate::call::closed_list;
use crate::clock::Clock;

/// How long lines gather before they are written.
const GATHER: Duration = Duration::from_millis(50);
/// Capacity a buffer keeps when little is logged.
const USUAL_BYTES: usize = 64 << 10;

closed_list! {
    /// How much an event matters.
    Level {
        /// Nothing to do.
        Info = "info",
        /// Worth a look.
        Warn = "warn",
        /// Somebody must act.
        Error = "error",
    }
}

closed_list! {
    /// How events are written; requests are always JSON.
    EventFormat {
        /// One JSON object a line.
        Json = "json",
        /// For people at a terminal.
        Text = "text",
    }
}

/// How to log.
#[derive(Debug)]
pub struct LogOptions {
    /// Where to.
    pub output: Output,
    /// How events look.
    pub event_format: EventFormat,
    /// Whether requests are logged; events always are.
    pub access: bool,
    /// Bytes each runtime may have waiting; beyond, lines are dropped.
    pub buffer_bytes: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { output: Output::Stdout, event_format: EventFormat::Json, access: true, buffer_bytes: 4 << 20 }
    }
}

/// Lines so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LogCounts {
    /// Handed to the output.
    pub lines: u64,
    /// Lost.
    pub dropped: u64,
}

/// The log of one process. Cloning is a reference count; the writer ends when the last clone is gone.
#[derive(Debug, Clone)]
pub struct Log {
    shared: Arc<Shared>,
    _stop: Arc<StopOnDrop>,
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    event_format: EventFormat,
    access: bool,
    buffer_bytes: usize,
    events: Arc<Buffer>,
    buffers: Mutex<Vec<Arc<Buffer>>>,
    lines: AtomicU64,
    dropped: AtomicU64,
    /// Something waits to be written, and the writer knows.
    dirty: AtomicBool,
    requests: Mutex<Requests>,
    /// Wakes the writer.
    wake: Condvar,
    /// Wakes those who wait for a flush.
    flushed: Condvar,
    /// Without a writer thread, lines go to the sink at once.
    inline: Option<Mutex<Sink>>,
}

/// What others want of the writer.
#[derive(Debug, Default)]
struct Requests {
    flushes_wanted: u64,
    flushes_done: u64,
    reopen: bool,
    stop: bool,
}

/// Lines that wait to be written.
#[derive(Debug, Default)]
struct Buffer(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    stamp: Stamp,
}

#[derive(Debug)]
struct StopOnDrop(Arc<Shared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.requests.lock().stop = true;
        self.0.wake.notify_one();
    }
}

impl Log {
    /// Opens the output and starts the writer thread.
    pub fn start(clock: Clock, options: LogOptions) -> io::Result<Self> {
        let LogOptions { output, event_format, access, buffer_bytes } = options;
        let sink = Sink::open(output)?;
        let shared = Arc::new(Shared::new(clock, event_format, access, buffer_bytes, None));
        let writer = Arc::clone(&shared);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_until_stopped(sink))?;
        Ok(Self::from(shared))
    }

    /// A log in memory, without a thread: for tests, which own the clock and must not wait for a thread. Holds at most
    /// `limit` bytes.
    pub fn in_memory(clock: Clock, limit: usize) -> (Self, Memory) {
        let memory = Memory::new(limit);
        let sink = Sink::from_writer(Box::new(memory.clone()));
        let shared = Shared::new(clock, EventFormat::Json, true, limit, Some(Mutex::new(sink)));
        (Self::from(Arc::new(shared)), memory)
    }

    fn from(shared: Arc<Shared>) -> Self {
        Self { _stop: Arc::new(StopOnDrop(Arc::clone(&shared))), shared }
    }

    /// Writes an event: `name` and its members, whose values must be free of secrets.
    pub fn event(&self, level: Level, name: &str, members: &[(&str, Value<'_>)]) {
        let wall = self.shared.clock.wall(self.shared.clock.now());
        let format = self.shared.event_format;
        self.shared.append(&self.shared.events, |out, stamp| match format {
            EventFormat::Text => event_text(out, stamp, wall, level.as_str(), name, members),
            EventFormat::Json => {
                let mut line = Line::begin(out, stamp, wall);
                line.word(key!("level"), level.as_str());
                line.value("event", name.into());
                for (key, value) in members {
                    line.value(key, *value);
                }
                line.end();
            }
        });
    }

    /// A buffer of its own for one runtime's requests; `None` if requests are not logged.
    pub(super) fn access(&self) -> Option<AccessLog> {
        if !self.shared.access {
            return None;
        }
        let buffer = Arc::new(Buffer::default());
        self.shared.buffers.lock().push(Arc::clone(&buffer));
        Some(AccessLog { log: self.clone(), buffer })
    }

    /// Lines so far.
    pub fn counts(&self) -> LogCounts {
        LogCounts {
            lines: self.shared.lines.load(Ordering::Relaxed),
            dropped: self.shared.dropped.load(Ordering::Relaxed),
        }
    }

    /// Opens a file output anew, after it was moved away. If that fails, the old file stays in use and an event says so.
    pub fn reopen(&self) {
        self.shared.requests.lock().reopen = true;
        self.shared.wake.notify_one();
    }

    /// Writes all that is waiting; false if the output did not take it within `patience`. Blocks the thread: for the
    /// control thread, at the end.
    pub fn flush(&self, patience: Duration) -> bool {
        if self.shared.inline.is_some() {
            return true;
        }
        let mut requests = self.shared.requests.lock();
        requests.flushes_wanted += 1;
        let mine = requests.flushes_wanted;
        self.shared.wake.notify_one();
        let waited =
            self.shared.flushed.wait_while_for(&mut requests, |requests| requests.flushes_done < mine, patience);
        !waited.timed_out()
    }
}

/// One runtime's way into the log.
#[derive(Debug)]
pub(super) struct AccessLog {
    log: Log,
    buffer: Arc<Buffer>,
}

impl AccessLog {
    pub(super) fn append(&self, write: impl FnOnce(&mut Vec<u8>, &mut Stamp)) {
        self.log.shared.append(&self.buffer, write);
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        // What waits is still written, with the events.
        let mut waiting = std::mem::take(&mut self.buffer.0.lock().bytes);
        let shared = &self.log.shared;
        shared.buffers.lock().retain(|buffer| !Arc::ptr_eq(buffer, &self.buffer));
        if !waiting.is_empty() {
            shared.events.0.lock().bytes.append(&mut waiting);
            shared.tell_writer();
        }
    }
}

impl Shared {
    fn new(
        clock: Clock,
        event_format: EventFormat,
        access: bool,
        buffer_bytes: usize,
        inline: Option<Mutex<Sink>>,
    ) -> Self {
        let events = Arc::new(Buffer::default());
        Self {
            clock,
            event_format,
            access,
            buffer_bytes,
            buffers: Mutex::new(vec![Arc::clone(&events)]),
            events,
            lines: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            dirty: AtomicBool::new(false),
            requests: Mutex::default(),
            wake: Condvar::new(),
            flushed: Condvar::new(),
            inline,
        }
    }

    fn append(&self, buffer: &Buffer, write: impl FnOnce(&mut Vec<u8>, &mut Stamp)) {
        {
            let waiting = &mut *buffer.0.lock();
            let before = waiting.bytes.len();
            write(&mut waiting.bytes, &mut waiting.stamp);
            if waiting.bytes.len() > self.buffer_bytes {
                waiting.bytes.truncate(before);
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        match &self.inline {
            Some(sink) => self.write_waiting(&mut sink.lock(), &mut Vec::new()),
            None => self.tell_writer(),
        }
    }

    /// Costs a system call only for the first line after the writer last looked.
    fn tell_writer(&self) {
        if !self.dirty.load(Ordering::Relaxed) && !self.dirty.swap(true, Ordering::AcqRel) {
            // Taken so that the writer is either before its look at `dirty` or already waiting.
            drop(self.requests.lock());
            self.wake.notify_one();
        }
    }

    fn write_until_stopped(&self, mut sink: Sink) {
        let mut scratch = Vec::new();
        loop {
            let (flushes, reopen, stop) = self.await_work();
            if reopen && let Err(error) = sink.reopen() {
                self.reopen_failed(&error);
            }
            self.write_waiting(&mut sink, &mut scratch);
            self.requests.lock().flushes_done = flushes;
            self.flushed.notify_all();
            if stop {
                return;
            }
        }
    }

    /// Sleeps until there is something to write, then a little longer so that more can gather, unless someone is waiting.
    fn await_work(&self) -> (u64, bool, bool) {
        let mut requests = self.requests.lock();
        let urgent =
            |requests: &Requests| requests.flushes_wanted > requests.flushes_done || requests.reopen || requests.stop;
        self.wake.wait_while(&mut requests, |requests| !urgent(requests) && !self.dirty.load(Ordering::Acquire));
        self.wake.wait_while_for(&mut requests, |requests| !urgent(requests), GATHER);
        let reopen = std::mem::take(&mut requests.reopen);
        (requests.flushes_wanted, reopen, requests.stop)
    }

    fn write_waiting(&self, sink: &mut Sink, scratch: &mut Vec<u8>) {
        // Before the buffers are emptied: a line appended after that sets it again.
        self.dirty.store(false, Ordering::Release);
        let buffers = self.buffers.lock().clone();
        for buffer in buffers {
            scratch.clear();
            std::mem::swap(&mut buffer.0.lock().bytes, scratch);
            if !scratch.is_empty() {
                let (lines, dropped) = sink.write(scratch);
                self.lines.fetch_add(lines, Ordering::Relaxed);
                self.dropped.fetch_add(dropped, Ordering::Relaxed);
                // Memory of a burst is given back once the burst is over.
                if scratch.len() < scratch.capacity() / 4 {
                    scratch.shrink_to(USUAL_BYTES);
                }
            }
        }
    }

    fn reopen_failed(&self, error: &io::Error) {
        let wall = self.clock.wall(self.clock.now());
        self.append(&self.events, |out, stamp| {
            let mut line = Line::begin(out, stamp, wall);
            line.word(key!("level"), Level::Error.as_str());
            line.word(key!("event"), "log_reopen_failed");
            line.text(key!("error"), &error.to_string());
            line.end();
        });
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
