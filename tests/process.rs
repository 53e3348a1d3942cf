//! The real binary as a person or a supervisor runs it: started, watched, signalled and ended, with every wait bounded.

use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use weirkeeper::clock::Clock;

use crate::blocking;

/// Longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(1);
/// The simulator's user that sees everything.
pub const TOKEN: &str = "00DWk0000000001MAA!admin";

/// Asks `probe` again and again until it says something.
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let clock = Clock::start();
    let end = clock.now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(clock.now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a process wrote so far, line by line.
#[derive(Debug, Default)]
pub struct Lines {
    state: Mutex<(Vec<String>, bool)>,
    more: Condvar,
}

impl Lines {
    fn collect(source: impl Read + Send + 'static) -> Arc<Self> {
        let lines = Arc::new(Self::default());
        let filled = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(source).split(b'\n') {
                let Ok(line) = line else { break };
                filled.state.lock().0.push(String::from_utf8_lossy(&line).into_owned());
                filled.more.notify_all();
            }
            filled.state.lock().1 = true;
            filled.more.notify_all();
        });
        lines
    }

    /// Everything so far.
    pub fn text(&self) -> String {
        self.state.lock().0.join("\n")
    }

    /// Waits for the first line of which `pick` makes something; `None` if the output ends without one.
    pub fn find<T>(&self, pick: impl Fn(&str) -> Option<T>) -> Option<T> {
        let clock = Clock::start();
        let end = clock.now() + PATIENCE;
        let mut seen = 0;
        let mut state = self.state.lock();
        loop {
            while let Some(line) = state.0.get(seen) {
                if let Some(found) = pick(line) {
                    return Some(found);
                }
                seen += 1;
            }
            if state.1 {
                return None;
            }
            assert!(clock.now() < end, "no such line in time:\n{}", state.0.join("\n"));
            self.more.wait_for(&mut state, Duration::from_millis(100));
        }
    }

    /// Waits for the output's end and returns all of it.
    fn whole(&self) -> String {
        assert!(self.find(|_| None::<()>).is_none());
        self.text()
    }
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Everything it wrote to standard output.
    pub out: String,
    /// Everything it wrote to standard error.
    pub err: String,
}

/// A running `weirkeeper`; killed by its id when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Standard output.
    pub out: Arc<Lines>,
    /// Standard error.
    pub err: Arc<Lines>,
}

impl Process {
    /// Starts `weirkeeper` with these arguments.
    pub fn start<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Self {
        Self::of(Command::new(env!("CARGO_BIN_EXE_weirkeeper")).args(arguments))
    }

    /// Starts this command, which is `weirkeeper` in unusual circumstances.
    pub fn of(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = Lines::collect(child.stdout.take().unwrap());
        let err = Lines::collect(child.stderr.take().unwrap());
        Self { child, out, err }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub fn ended(mut self) -> Ended {
        let status = until("the process ends", || self.child.try_wait().unwrap());
        Ended { code: status.code(), out: self.out.whole(), err: self.err.whole() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `weirkeeper` to its end.
pub fn run<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Ended {
    Process::start(arguments).ended()
}

/// A simulated Salesforce in a process of its own.
#[derive(Debug)]
pub struct Simulator {
    /// The process.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Simulator {
    /// Starts one on a free port.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// The same, with more arguments.
    pub fn with(more: &[&str]) -> Self {
        let process = Process::start(&[&["simulate", "--listen", "127.0.0.1:0"], more].concat());
        let address = process.out.find(|line| line.strip_prefix("simulated Salesforce at http://")?.parse().ok());
        Self { address: address.expect("it says where it listens"), process }
    }

    /// Arms a fault, in the words of its control path.
    pub fn fault(&self, fault: &Value) {
        let body = fault.to_string();
        let answer = blocking::ask(self.address, "POST", "/__sim/faults", &[], body.as_bytes()).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Its books.
    pub fn counts(&self) -> Value {
        blocking::ask(self.address, "GET", "/__sim/counts", &[], b"").unwrap().json()
    }

    /// Requests it is working on or has answered.
    pub fn requests(&self) -> u64 {
        self.counts()["requests"].as_u64().unwrap()
    }
}

/// A gateway in a process of its own.
#[derive(Debug)]
pub struct Gateway {
    /// The process.
    pub process: Process,
    /// Where callers connect, in the order of the configuration.
    pub listeners: Vec<SocketAddr>,
    /// Where operators connect.
    pub admin: SocketAddr,
    /// Keeps its configuration where it is.
    _folder: Option<Arc<tempfile::TempDir>>,
}

impl Gateway {
    /// Waits until `process` says that it has started, and `/readyz` that it may be used.
    pub fn ready(process: Process) -> Self {
        let gateway = Self::started(process);
        gateway.await_readiness();
        gateway
    }

    fn await_readiness(&self) {
        until("readiness", || (self.admin("/readyz").ok()?.status == 200).then_some(()));
    }

    /// Waits until `process` says that it has started.
    fn started(process: Process) -> Self {
        let Some(started) = process.out.find(|line| event(line, "started")) else {
            panic!("it did not start:\n{}\n{}", process.out.text(), process.err.text());
        };
        let addresses = |key: &str| -> Vec<SocketAddr> {
            started[key].as_str().unwrap().split(", ").map(|address| address.parse().unwrap()).collect()
        };
        Self { listeners: addresses("listeners"), admin: addresses("admin")[0], process, _folder: None }
    }

    /// The first listener.
    pub fn address(&self) -> SocketAddr {
        self.listeners[0]
    }

    /// Gets a page of the admin listener by way of loopback.
    pub fn admin(&self, path: &str) -> io::Result<blocking::Answer> {
        let loopback = SocketAddr::from(([127, 0, 0, 1], self.admin.port()));
        blocking::ask(loopback, "GET", path, &[], b"")
    }

    /// `/api/v1/status`.
    pub fn status(&self) -> Value {
        self.admin("/api/v1/status").unwrap().json()
    }

    /// The values of one metric that have these labels, such as `caller="anyone"`.
    fn samples(&self, name: &str, labels: &[&str]) -> Vec<String> {
        let text = self.admin("/metrics").unwrap().text();
        text.lines()
            .filter_map(|line| {
                let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
                let (words, value) = rest.rsplit_once(' ')?;
                labels.iter().all(|label| words.contains(label)).then(|| value.to_owned())
            })
            .collect()
    }

    /// Their sum, of whole numbers.
    pub fn count(&self, name: &str, labels: &[&str]) -> u64 {
        self.samples(name, labels).iter().map(|value| value.parse::<u64>().unwrap()).sum()
    }

    /// Their sum, of any numbers.
    pub fn measure(&self, name: &str, labels: &[&str]) -> f64 {
        self.samples(name, labels).iter().map(|value| value.parse::<f64>().unwrap()).sum()
    }

    /// Sends one request as the simulator's administrator.
    pub fn get(&self, path: &str) -> io::Result<blocking::Answer> {
        blocking::ask(self.address(), "GET", path, &[("authorization", &bearer())], b"")
    }

    /// Waits for an event in the log.
    pub fn event(&self, name: &str) -> Value {
        self.process.out.find(|line| event(line, name)).unwrap_or_else(|| panic!("no event {name}"))
    }
}

/// `Bearer TOKEN`.
pub fn bearer() -> String {
    format!("Bearer {TOKEN}")
}

/// The line as the event `name`, if it is one.
fn event(line: &str, name: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(line).ok()?;
    (value["event"] == name).then_some(value)
}

/// A folder with a configuration in it.
#[derive(Debug)]
pub struct Setup {
    /// The folder.
    folder: Arc<tempfile::TempDir>,
    /// `weirkeeper.yaml` in it.
    pub config: PathBuf,
}

impl Setup {
    /// One plain listener and the admin listener on free ports, in front of `org`; `more` are further sections.
    pub fn new(org: SocketAddr, more: &str) -> Self {
        Self::written(&config(org, more))
    }

    /// This text as the configuration.
    pub fn written(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("weirkeeper.yaml");
        std::fs::write(&config, text).unwrap();
        Self { folder: Arc::new(folder), config }
    }

    /// A file beside the configuration.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file beside the configuration.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Starts a gateway with it.
    pub fn serve(&self) -> Gateway {
        self.serve_with(|_| {})
    }

    /// The same, in circumstances that `arrange` makes.
    pub fn serve_with(&self, arrange: impl FnOnce(&mut Command)) -> Gateway {
        let gateway = self.start_with(arrange);
        gateway.await_readiness();
        gateway
    }

    /// The same, without waiting for readiness.
    pub fn start_with(&self, arrange: impl FnOnce(&mut Command)) -> Gateway {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weirkeeper"));
        command.args(["serve", "--config", self.config_str()]);
        arrange(&mut command);
        let gateway = Gateway::started(Process::of(&mut command));
        Gateway { _folder: Some(Arc::clone(&self.folder)), ..gateway }
    }

    /// The configuration's path as text.
    pub fn config_str(&self) -> &str {
        self.config.to_str().unwrap()
    }
}

/// The text of [`Setup::new`].
pub fn config(org: SocketAddr, more: &str) -> String {
    let org = format!("orgs: [{{name: prod, instance_url: 'http://{org}'}}]\n");
    format!("listeners: [{{address: 127.0.0.1:0}}]\nadmin: {{address: 127.0.0.1:0}}\nruntimes: 1\n{org}{more}")
}

/// An address of loopback on which nobody listens, as far as one can know.
pub fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
