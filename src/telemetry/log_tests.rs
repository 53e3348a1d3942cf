//! The log's promises: nothing is lost unnoticed, and no output can hold anybody up.

use std::io::{self, ErrorKind, Write};
use std::sync::mpsc;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn start(output: Output, buffer_bytes: usize) -> Log {
    let options = LogOptions { output, buffer_bytes, ..LogOptions::default() };
    Log::start(Clock::start(), options).unwrap()
}

/// Takes nothing until the gate is opened, then all.
struct Gated {
    gate: mpsc::Receiver<()>,
    open: bool,
    memory: Memory,
}

impl Write for Gated {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.open {
            self.open = self.gate.recv().is_ok();
        }
        self.memory.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes ten bytes, then fails for ever or until `failures` are used up.
struct Breaking {
    failures: usize,
    taken: bool,
    memory: Memory,
}

impl Write for Breaking {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.taken {
            self.taken = true;
            return self.memory.write(&bytes[..10]);
        }
        match self.failures.checked_sub(1) {
            Some(left) => {
                self.failures = left;
                Err(ErrorKind::BrokenPipe.into())
            }
            None => self.memory.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn lines_of_all_runtimes_are_written_whole() {
    let memory = Memory::new(64 << 20);
    let log = start(Output::Writer(Box::new(memory.clone())), 16 << 20);
    std::thread::scope(|scope| {
        for runtime in 0..4_u64 {
            let access = log.access().unwrap();
            scope.spawn(move || {
                for line in 0..5_000_u64 {
                    access.append(|out, _| writeln!(out, "{{\"runtime\":{runtime},\"line\":{line}}}").unwrap());
                }
            });
        }
    });
    assert!(log.flush(PATIENCE));
    let text = memory.text();
    assert_eq!(text.lines().count(), 20_000);
    assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    assert_eq!(log.counts(), LogCounts { lines: 20_000, dropped: 0 });
}

#[test]
fn a_blocked_output_costs_lines_but_no_time() {
    let (open, gate) = mpsc::channel();
    let memory = Memory::new(1 << 20);
    let log = start(Output::Writer(Box::new(Gated { gate, open: false, memory: memory.clone() })), 1_000);
    for number in 0..1_000_u64 {
        log.event(Level::Info, "test", &[("n", number.into())]);
    }
    assert!(!log.flush(Duration::from_millis(20)), "the output takes nothing");
    assert!(log.counts().dropped > 900, "{:?}", log.counts());
    open.send(()).unwrap();
    assert!(log.flush(PATIENCE));
    let counts = log.counts();
    assert_eq!(counts.lines + counts.dropped, 1_000);
    assert_eq!(memory.text().lines().count() as u64, counts.lines);
}

#[test]
fn a_broken_output_is_counted_and_used_again_once_it_works() {
    let memory = Memory::new(1 << 20);
    let log = start(Output::Writer(Box::new(Breaking { failures: 2, taken: false, memory: memory.clone() })), 1 << 20);
    for name in ["cut", "lost", "kept"] {
        log.event(Level::Error, name, &[]);
        assert!(log.flush(PATIENCE));
    }
    assert_eq!(log.counts(), LogCounts { lines: 1, dropped: 2 });
    let text = memory.text();
    let last = text.lines().last().unwrap();
    let read: serde_json::Value = serde_json::from_str(last).expect("the cut line is ended before the next begins");
    assert_eq!(read["event"], "kept");
}

#[test]
fn a_file_moved_away_is_opened_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.json");
    let log = start(Output::File(path.clone()), 1 << 20);
    log.event(Level::Info, "before", &[]);
    assert!(log.flush(PATIENCE));
    std::fs::rename(&path, folder.path().join("log.json.1")).unwrap();
    log.reopen();
    log.event(Level::Info, "after", &[("path", "x".into())]);
    assert!(log.flush(PATIENCE));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert!(read("log.json.1").contains("\"before\""));
    assert!(read("log.json").contains("\"level\":\"info\",\"event\":\"after\",\"path\":\"x\""));
    assert!(!read("log.json").contains("\"before\""));
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_at_start_and_an_event_later() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing").join("log.json");
    let options = LogOptions { output: Output::File(missing.clone()), ..LogOptions::default() };
    assert!(Log::start(Clock::start(), options).is_err());

    std::fs::create_dir(missing.parent().unwrap()).unwrap();
    let log = start(Output::File(missing.clone()), 1 << 20);
    let moved = folder.path().join("moved");
    std::fs::rename(missing.parent().unwrap(), &moved).unwrap();
    log.reopen();
    assert!(log.flush(PATIENCE));
    assert!(std::fs::read_to_string(moved.join("log.json")).unwrap().contains("log_reopen_failed"));
}

#[test]
fn a_runtime_that_ends_leaves_no_line_behind() {
    let (open, gate) = mpsc::channel();
    let memory = Memory::new(1 << 20);
    let log = start(Output::Writer(Box::new(Gated { gate, open: false, memory: memory.clone() })), 1 << 20);
    log.event(Level::Info, "first", &[]);
    let access = log.access().unwrap();
    access.append(|out, _| out.extend_from_slice(b"last\n"));
    drop(access);
    open.send(()).unwrap();
    assert!(log.flush(PATIENCE));
    assert!(memory.text().contains("last\n"));
}

#[test]
fn requests_are_not_logged_if_switched_off() {
    let options = LogOptions { output: Output::Writer(Box::new(io::sink())), access: false, ..LogOptions::default() };
    assert!(Log::start(Clock::start(), options).unwrap().access().is_none());
}

#[test]
fn the_writer_ends_with_the_last_clone_and_writes_what_waits() {
    struct Told(Memory, mpsc::Sender<()>);
    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.1.send(());
        }
    }
    let memory = Memory::new(1 << 20);
    let (ended, end) = mpsc::channel();
    let log = start(Output::Writer(Box::new(Told(memory.clone(), ended))), 1 << 20);
    log.event(Level::Info, "last_words", &[]);
    drop(log);
    end.recv_timeout(PATIENCE).unwrap();
    assert!(memory.text().contains("last_words"));
}
