//! Real stores for tests: a `redis-server` of their own, and a wire in front of it that can be cut.

#![allow(
    clippy::disallowed_methods,
    clippy::missing_panics_doc,
    reason = "real servers of tests live in real time; unit tests and promises include this file under different lints"
)]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A store of a test's own, which ends with it.
pub struct Redis {
    port: u16,
    folder: tempfile::TempDir,
    process: Option<Child>,
    configured: bool,
    extra: Vec<String>,
}

const FILE: &str = "redis.conf";

/// A port that is free now.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

impl Redis {
    /// Starts one that keeps nothing on disk.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with further arguments.
    pub fn start_with(extra: &[&str]) -> Self {
        Self::start_as(None, extra)
    }

    /// One whose configuration file holds `text`.
    pub fn start_configured(text: &str, extra: &[&str]) -> Self {
        Self::start_as(Some(text), extra)
    }

    fn start_as(text: Option<&str>, extra: &[&str]) -> Self {
        let extra = extra.iter().map(|&word| word.to_owned()).collect();
        let folder = tempfile::tempdir().unwrap();
        if let Some(text) = text {
            std::fs::write(folder.path().join(FILE), text).unwrap();
        }
        let mut redis = Self { port: free_port(), folder, process: None, configured: text.is_some(), extra };
        redis.run();
        redis
    }

    fn run(&mut self) {
        let mut command = Command::new("redis-server");
        if self.configured {
            command.arg(self.folder.path().join(FILE));
        } else {
            command.args(["--save", "", "--appendonly", "no"]);
        }
        let child = command
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--dir", self.folder.path().to_str().unwrap()])
            .args(&self.extra)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is missing: install the package redis-server");
        self.process = Some(child);
        let until = Instant::now() + Duration::from_secs(10);
        while !self.answers() {
            assert!(Instant::now() < until, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) else { return false };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
        let mut first = [0; 1];
        stream.write_all(b"PING\r\n").is_ok() && stream.read_exact(&mut first).is_ok()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Ends it at once, and starts an empty one in its place.
    pub fn restart_empty(&mut self) {
        self.kill();
        self.run();
    }

    /// It stays, and answers nothing.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// It answers again.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Runs one command, written inline, and returns the raw answer.
    pub fn command(&self, line: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(format!("{line}\r\n").as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Leads to a server, unless it is cut.
pub struct Wire {
    port: u16,
    shared: Arc<WireState>,
}

struct WireState {
    to: u16,
    cut: AtomicBool,
    ended: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

impl Wire {
    /// A wire to the server at `to`.
    pub fn to(to: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cut, ended) = (AtomicBool::new(false), AtomicBool::new(false));
        let shared = Arc::new(WireState { to, cut, ended, streams: Mutex::default() });
        let state = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if state.ended.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(stream) = stream {
                    state.lead(&stream);
                }
            }
        });
        Self { port, shared }
    }

    /// Where the wire begins.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of a store behind it.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Breaks every connection, and lets none be made.
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::SeqCst);
        self.break_all();
    }

    /// Breaks every connection; new ones can be made at once.
    pub fn break_all(&self) {
        for stream in self.shared.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Connections can be made again.
    pub fn mend(&self) {
        self.shared.cut.store(false, Ordering::SeqCst);
    }
}

impl WireState {
    fn lead(&self, near: &TcpStream) {
        if self.cut.load(Ordering::SeqCst) {
            return;
        }
        let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.to)) else { return };
        let pair = [(near, &far), (&far, near)];
        for (from, to) in pair {
            let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            self.streams.lock().unwrap().push(from.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.cut();
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}
