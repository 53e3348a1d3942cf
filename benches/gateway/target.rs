//! Starts what is measured, on its own core, and ends it again.

use std::error::Error;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use rustix::io::Errno;
use rustix::process::{
    Pid, Resource, Rlimit, Signal, getrlimit, kill_process, set_parent_process_death_signal, setpriority_process,
    setrlimit,
};
use rustix::thread::{CpuSet, sched_setaffinity};
use tempfile::TempDir;

use crate::load::{self, Client};
use crate::{Common, LOAD_CORE, Outcome, TARGET_CORE, measure};

/// How long a target may take until it answers; slow because valgrind is.
const START_PATIENCE: Duration = Duration::from_mins(1);
/// How long a target may take to end after it was asked to.
const END_PATIENCE: Duration = Duration::from_secs(20);
/// Nice value of everything that takes part.
const PRIORITY: i32 = -10;
/// Bodies the measured gateway may hold in memory, all together.
pub const BUFFERED_MIB: u64 = 64;

/// A program to become.
#[derive(Args)]
pub struct Pinned {
    /// The core it runs on.
    #[arg(long)]
    core: usize,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Only returns if it fails.
pub fn become_pinned(pinned: &Pinned) -> Box<dyn Error> {
    if let Err(error) = pin(pinned.core).and_then(|()| raise_open_files()) {
        return error;
    }
    prefer();
    // Should the bench be killed, nothing it started outlives it.
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    let mut words = pinned.command.iter();
    let program = words.next().map(String::as_str).unwrap_or_default();
    format!("{program}: {}", Command::new(program).args(words).exec()).into()
}

/// Puts this process on one core. A machine without that core measures on what it has.
pub fn pin(core: usize) -> Outcome<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    match sched_setaffinity(None, &cores) {
        Err(error) if error != Errno::INVAL => Err(error.into()),
        _ => Ok(()),
    }
}

/// Keeps the work of other processes out of the figures where this process may do that.
pub fn prefer() {
    // Both need rights; without them the figures are only noisier.
    let _ = setpriority_process(None, PRIORITY);
    let _ = fs::write("/proc/self/autogroup", PRIORITY.to_string());
}

/// As many open files as this process may have.
pub fn raise_open_files() -> Outcome<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(())
}

/// What can be measured.
#[derive(Clone)]
pub enum Kind {
    /// This project's binary, everything on.
    Gateway,
    /// The same, with the same requests, for a caller that acts as an identity the gateway holds.
    Identity,
    /// The same as the first, answering from memory what it was asked before.
    Memory,
    /// The same with so many MiB for answers.
    Bounded { mib: u64 },
    /// The same as the first, with what is spent remembered in the store at this port.
    Replica { store: u16 },
    /// nginx as a plain reverse proxy, one worker.
    Nginx { access_log: bool },
    /// nginx answering from its proxy cache, whose files are in memory; no access log.
    NginxCache,
    /// Any command.
    Command(String),
}

impl Kind {
    /// The name in tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Gateway => "weirkeeper",
            Self::Identity => "weirkeeper, identity",
            Self::Memory | Self::Bounded { .. } => "weirkeeper, from memory",
            Self::Replica { .. } => "weirkeeper, replica",
            Self::Nginx { access_log: false } => "nginx",
            Self::Nginx { access_log: true } => "nginx, access log",
            Self::NginxCache => "nginx, from its cache",
            Self::Command(_) => "command",
        }
    }

    /// What this run is about, first; then nginx if it is installed and wanted.
    pub fn chosen(common: &Common) -> Vec<Self> {
        let mut kinds = vec![common.target_cmd.clone().map_or(Self::Gateway, Self::Command)];
        if !common.no_nginx && installed("nginx") {
            kinds.extend([Self::Nginx { access_log: false }, Self::Nginx { access_log: true }]);
        }
        kinds
    }

    /// What answers from memory: this gateway, and nginx if it is installed and wanted.
    pub fn remembering(common: &Common) -> Outcome<Vec<Self>> {
        if common.target_cmd.is_some() {
            return Err("only this gateway's memory can be measured".into());
        }
        let nginx = !common.no_nginx && installed("nginx");
        Ok(std::iter::once(Self::Memory).chain(nginx.then_some(Self::NginxCache)).collect())
    }

    /// Whether it answers without asking the origin.
    pub fn remembers(&self) -> bool {
        matches!(self, Self::Memory | Self::Bounded { .. } | Self::NginxCache)
    }
}

/// Whether a program can be started.
pub fn installed(program: &str) -> bool {
    let version = if program == "nginx" { "-v" } else { "--version" };
    let found = Command::new(program).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

/// A process that this run started. It is ended when this is dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(core: usize, command: &[String], log: &Path) -> Outcome<Self> {
        let output = File::create(log)?;
        let child = Command::new(std::env::current_exe()?)
            .args(["pinned", "--core", &core.to_string(), "--"])
            .args(command)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, waits, and ends it for good if it does not; whether it ended by itself.
    pub fn end(&mut self) -> bool {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended already; then waiting is all that is left.
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + END_PATIENCE;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        false
    }

    fn wait_until_up(&mut self, port: u16, request: &[u8]) -> Outcome<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let deadline = Instant::now() + START_PATIENCE;
        let mut last = String::from("nothing listened");
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                last = format!("it ended with {status}");
                break;
            }
            let attempt = runtime.block_on(async {
                tokio::time::timeout(Duration::from_secs(10), async {
                    Client::connect(port).await?.exchange(request).await
                })
                .await
            });
            match attempt {
                Ok(Ok(answer)) if answer.status == 200 => return Ok(()),
                // Replicas on an empty store grant nothing before they have heard of each other.
                Ok(Ok(answer)) if answer.status == 503 => "it answered 503".clone_into(&mut last),
                Ok(Ok(answer)) => {
                    last = format!("it answered {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
                    break;
                }
                Ok(Err(error)) => last = error.to_string(),
                Err(_) => "no answer within 10 seconds".clone_into(&mut last),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(8)..).unwrap_or_default().join("\n  ");
        Err(format!("did not come up: {last}\n  {tail}").into())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The place where all targets of a run live: a directory, an origin, the caller's key.
pub struct Stage {
    pub directory: TempDir,
    /// For what others keep in files: in memory where the machine has such a place.
    kept: TempDir,
    pub origin_port: u16,
    pub key: String,
    _origin: Process,
}

impl Stage {
    /// Starts the origin.
    pub fn set(blob_bytes: u64) -> Outcome<Self> {
        let directory = tempfile::tempdir()?;
        let origin_port = free_port()?;
        let key = weirkeeper::config::key::generate().map_err(|_| "no randomness for a key")?.to_string();
        let own = std::env::current_exe()?.display().to_string();
        let words = ["origin", "--port", &origin_port.to_string(), "--blob-bytes", &blob_bytes.to_string()];
        let command: Vec<String> = std::iter::once(own).chain(words.map(str::to_owned)).collect();
        let mut origin = Process::start(LOAD_CORE, &command, &directory.path().join("origin.log"))?;
        origin.wait_until_up(origin_port, &first_row(&key))?;
        let kept = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
        Ok(Self { directory, kept, origin_port, key, _origin: origin })
    }

    /// A store for replicas, which keeps nothing on disk.
    pub fn store(&self) -> Outcome<Store> {
        let port = free_port()?;
        let directory = self.directory.path().display().to_string();
        let number = port.to_string();
        let words = ["--bind", "127.0.0.1", "--port", &number, "--save", "", "--appendonly", "no", "--dir", &directory];
        let command: Vec<String> = std::iter::once("redis-server").chain(words).map(str::to_owned).collect();
        let process = Process::start(LOAD_CORE, &command, &self.directory.path().join("store.log"))?;
        let deadline = Instant::now() + START_PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > deadline {
                return Err("redis-server did not come up".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Store { port, process })
    }

    /// Starts a target, behind `wrapper` if that is not empty, and checks its answer against the origin's.
    pub fn start(&self, kind: &Kind, wrapper: &[String]) -> Outcome<Target> {
        let (port, admin) = (free_port()?, free_port()?);
        let mut command = wrapper.to_vec();
        command.extend(self.command(kind, port, admin)?);
        let log = self.directory.path().join(format!("{port}.log"));
        let name = kind.name();
        let mut process = Process::start(TARGET_CORE, &command, &log)?;
        process.wait_until_up(port, &first_row(&self.key)).map_err(|error| format!("{name} {error}"))?;
        self.check(port).map_err(|error| format!("{name}: {error}"))?;
        Ok(Target { kind: kind.clone(), port, admin, process })
    }

    fn command(&self, kind: &Kind, port: u16, admin: u16) -> Outcome<Vec<String>> {
        let file = self.directory.path().join(format!("{port}.conf"));
        let path = file.display().to_string();
        match kind {
            Kind::Command(command) => {
                let (own, upstream) = (port.to_string(), self.origin_port.to_string());
                let words = command.split_whitespace();
                Ok(words.map(|word| word.replace("{port}", &own).replace("{upstream}", &upstream)).collect())
            }
            Kind::Gateway | Kind::Identity | Kind::Memory | Kind::Bounded { .. } | Kind::Replica { .. } => {
                fs::write(&file, self.gateway_config(kind, port, admin)?)?;
                Ok([env!("CARGO_BIN_EXE_weirkeeper"), "serve", "--config", &path].map(str::to_owned).to_vec())
            }
            Kind::Nginx { .. } | Kind::NginxCache => {
                fs::write(&file, self.nginx_config(kind, port))?;
                Ok(["nginx", "-p", &self.directory.path().display().to_string(), "-c", &path]
                    .map(str::to_owned)
                    .to_vec())
            }
        }
    }

    /// One runtime, for one core; a caller known by its key, rules to check, metrics and access log on.
    fn gateway_config(&self, kind: &Kind, port: u16, admin: u16) -> Outcome<String> {
        let upstream = self.origin_port;
        let log = self.directory.path().join(format!("{port}-access.log"));
        let log = log.display();
        let digest = weirkeeper::config::key::sha256_hex(&self.key);
        let (mut auth, mut act_as) = (String::new(), "");
        if matches!(kind, Kind::Identity) {
            let secret = self.directory.path().join("secret");
            fs::write(&secret, "bench")?;
            auth = format!(
                ", public_url: \"https://acme.internal\", auth: {{app: {{flow: client_credentials, client_id: bench, client_secret: {{file: \"{}\"}}}}}}",
                secret.display()
            );
            act_as = "  act_as: app\n";
        }
        let entries = "entries: [{match: {objects: [Account], operations: [read]}, fresh: 1h}]";
        let cache = match kind {
            Kind::Memory => format!("cache: {{{entries}}}\n"),
            Kind::Bounded { mib } => format!("cache: {{bytes: {mib}MiB, {entries}}}\n"),
            _ => String::new(),
        };
        let (mut state, mut daily) = (String::new(), "");
        if let Kind::Replica { store } = kind {
            let (url, key) = (self.directory.path().join("url"), self.directory.path().join("key"));
            fs::write(&url, format!("redis://127.0.0.1:{store}"))?;
            fs::write(&key, "only-for-benches-only-for-benches")?;
            let (url, key) = (url.display(), key.display());
            state = format!("state: {{redis: {{url: {{file: \"{url}\"}}, keys: [{{file: \"{key}\"}}]}}}}\n");
            daily = ", daily: {mode: enforce}";
        }
        Ok(format!(
            "{state}{cache}listeners: [{{address: \"127.0.0.1:{port}\"}}]\n\
             admin: {{address: \"127.0.0.1:{admin}\"}}\n\
             runtimes: 1\n\
             limits: {{body_bytes: 2GiB, buffered_bytes_total: {BUFFERED_MIB}MiB, idle: 600s}}\n\
             log: {{access: {{file: \"{log}\"}}}}\n\
             orgs: [{{name: bench, instance_url: \"http://127.0.0.1:{upstream}\"{auth}{daily}}}]\n\
             callers:\n\
             - name: storefront\n  \
               match: {{key_sha256: \"{digest}\"}}\n  \
               class: interactive\n  \
               allow: {{objects: [Account, ContentVersion], families: [rest, bulk2]}}\n{act_as}\
             - {{name: anyone, match: any, class: standard}}\n\
             policy: {{mode: observe}}\n"
        ))
    }

    fn nginx_config(&self, kind: &Kind, port: u16) -> String {
        let (directory, upstream) = (self.directory.path().display(), self.origin_port);
        let (kept, keep) = if matches!(kind, Kind::NginxCache) {
            let kept = self.kept.path().display();
            // What the origin says of keeping is meant for caches that do not know whose answer it is.
            (
                format!(
                    "sendfile on;\nopen_file_cache max=10000 inactive=1h;\n\
                     proxy_cache_path {kept}/{port} levels=1:2 keys_zone=kept:64m max_size=1g inactive=1h use_temp_path=off;\n"
                ),
                "proxy_cache kept;\nproxy_cache_key $request_uri;\nproxy_cache_valid 200 1h;\nproxy_cache_lock on;\n\
                 proxy_ignore_headers Cache-Control Expires Vary;\n",
            )
        } else {
            (String::new(), "")
        };
        let log = if matches!(kind, Kind::Nginx { access_log: true }) {
            format!("{directory}/{port}-access.log combined buffer=64k flush=1s")
        } else {
            "off".to_owned()
        };
        let spill: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {directory}/{port}-{what};\n"))
            .concat();
        format!(
            "daemon off;\nmaster_process off;\nworker_processes 1;\npid {directory}/{port}.pid;\nerror_log stderr error;\n\
             events {{ worker_connections 15000; }}\n\
             http {{\naccess_log {log};\ntcp_nodelay on;\nkeepalive_timeout 600s;\nkeepalive_requests 1000000000;\n{spill}{kept}\
             client_max_body_size 0;\n\
             upstream origin {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000000; }}\n\
             server {{\nlisten 127.0.0.1:{port} backlog=4096;\n\
             location / {{\nproxy_pass http://origin;\nproxy_http_version 1.1;\nproxy_set_header Connection \"\";\n\
             proxy_set_header Host $host;\nproxy_buffer_size 8k;\nproxy_buffers 16 8k;\n{keep}}}\n}}\n}}\n"
        )
    }

    /// The body must be the origin's, byte for byte, and the headers that matter must have come through.
    fn check(&self, port: u16) -> Outcome<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let request = first_row(&self.key);
        let (direct, through) = runtime.block_on(async {
            let direct = Client::connect(self.origin_port).await?.exchange(&request).await?;
            let through = Client::connect(port).await?.exchange(&request).await?;
            std::io::Result::Ok((direct, through))
        })?;
        if direct.status != through.status || direct.body != through.body {
            return Err(format!("the answer differs from the origin's: status {}", through.status).into());
        }
        for name in ["etag", "last-modified", "content-type"] {
            if direct.header(name) != through.header(name) {
                return Err(format!("{name} is {:?}, not {:?}", through.header(name), direct.header(name)).into());
            }
        }
        if through.header("sforce-limit-info").is_none() {
            return Err("sforce-limit-info is missing".into());
        }
        Ok(())
    }

    /// Answers the origin has given so far.
    pub fn served(&self) -> Outcome<u64> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let request = first_row(&self.key);
        let answer = runtime.block_on(async { Client::connect(self.origin_port).await?.exchange(&request).await })?;
        let info = answer.header("sforce-limit-info").unwrap_or_default();
        let used = info.strip_prefix("api-usage=").and_then(|rest| rest.split('/').next()?.parse().ok());
        Ok(used.ok_or("the origin does not count")?)
    }
}

fn first_row(key: &str) -> Vec<u8> {
    load::row_requests(key).first().cloned().unwrap_or_default()
}

/// A port nobody listens on now.
fn free_port() -> Outcome<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// A store that is up.
pub struct Store {
    pub port: u16,
    process: Process,
}

impl Store {
    /// All its processes.
    pub fn processes(&self) -> Vec<u32> {
        measure::tree(self.process.id())
    }
}

/// A target that is up and gives the right answer.
pub struct Target {
    pub kind: Kind,
    pub port: u16,
    /// Where this gateway's metrics are.
    pub admin: u16,
    pub process: Process,
}

impl Target {
    /// All its processes.
    pub fn processes(&self) -> Vec<u32> {
        measure::tree(self.process.id())
    }
}
