//! `weirkeeper demo`: a simulated Salesforce, the gateway in front of it, and apps that use it, in one process.

use std::fs::DirBuilder;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::config;
use crate::gateway::Gateway;
use crate::sim::{Sim, SimConfig};
use crate::tasks::Tasks;
use crate::telemetry::{EventFormat, Log, LogOptions, Output};

mod certificates;
mod client;
mod summary;
mod traffic;

/// The arguments of `demo`.
#[derive(Debug, clap::Args)]
pub struct DemoArguments {
    /// Stop after this many seconds; without it, on Ctrl-C.
    #[arg(long)]
    seconds: Option<u64>,
    /// Where apps connect by HTTP; port 0 lets the system choose, here and below.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where apps connect by HTTPS.
    #[arg(long, default_value = "127.0.0.1:8443")]
    listen_tls: SocketAddr,
    /// Where operators connect.
    #[arg(long, default_value = "127.0.0.1:9090")]
    admin: SocketAddr,
    /// Where the simulated Salesforce listens.
    #[arg(long, default_value = "127.0.0.1:8081")]
    simulator: SocketAddr,
    /// Requests per second of all apps together.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    rate: u32,
}

/// A folder that only this user can read, removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn make() -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("weirkeeper-demo-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left behind is a throw-away certificate; there is nobody to tell.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs the demo to its end.
pub fn run(arguments: &DemoArguments) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start a runtime: {error}"))?;
    runtime.block_on(demo(arguments))
}

async fn demo(arguments: &DemoArguments) -> Result<(), String> {
    let folder = Folder::make().map_err(|error| format!("cannot make a folder for the demo: {error}"))?;
    let sim = Sim::new(SimConfig { latency_ms: 40, jitter_ms: 60, ..SimConfig::default() });
    let simulated = sim.listen(arguments.simulator).await.map_err(|error| format!("--simulator: {error}"))?;

    let ca = certificates::write(&folder.0)?;
    let keys = traffic::Keys::make().map_err(|error| error.to_string())?;
    let file = folder.0.join("weirkeeper.yaml");
    std::fs::write(&file, configuration(arguments, simulated.local_addr, &folder.0, &keys))
        .map_err(|error| format!("{}: {error}", file.display()))?;
    let config = config::load(&file).map_err(|problems| problems.to_string())?;

    let clock = Clock::start();
    let log_file = folder.0.join("access.log");
    let log = Log::start(
        clock,
        LogOptions { output: Output::File(log_file.clone()), event_format: EventFormat::Json, ..LogOptions::default() },
    )
    .map_err(|error| format!("cannot open the log: {error}"))?;
    let gateway = Gateway::start(config, clock, log).await.map_err(|error| error.to_string())?;
    let (plain, tls) = match gateway.addresses() {
        [plain, tls, ..] => (*plain, *tls),
        _ => return Err("the demo's listeners are missing".to_owned()),
    };

    greet(&sim, simulated.local_addr, plain, tls, gateway.admin_address(), &folder.0, &ca.path);
    let telemetry = gateway.telemetry().clone();
    let tasks = Tasks::new();
    let stop = Arc::new(tokio::sync::Notify::new());
    let apps =
        traffic::start(&tasks, &traffic::Plan { plain, tls, roots: ca.roots, keys, rate: arguments.rate, clock });
    let summary = summary::Summary::new(telemetry.clone(), sim.clone(), std::io::stdout().is_terminal());
    let until = {
        let stop = Arc::clone(&stop);
        async move { stop.notified().await }
    };
    let seconds = arguments.seconds;
    let show = async {
        let ended = async {
            match seconds {
                Some(seconds) => {
                    tokio::select! {
                        () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
                        _ = super::stop_signal() => {}
                    }
                }
                None => {
                    let _ = super::stop_signal().await;
                }
            }
        };
        tokio::select! {
            () = summary.show() => {}
            () = ended => {}
        }
        // The apps finish what they have begun, so that both books are closed before they are compared.
        apps.stop();
        tasks.idle().await;
        stop.notify_one();
    };
    tokio::join!(gateway.run(until), show);
    summary.close()
}

fn greet(
    sim: &Sim,
    simulated: SocketAddr,
    plain: SocketAddr,
    tls: SocketAddr,
    admin: SocketAddr,
    folder: &Path,
    ca: &Path,
) {
    let token = sim.config().users.first().map_or("", |user| user.token.as_str());
    super::say(&format!(
        "Weirkeeper demo\n  \
         gateway              http://{plain}  https://{tls}\n  \
         certificate of https {}\n  \
         operators            http://{admin}/  (metrics, readiness, status)\n  \
         simulated Salesforce http://{simulated}  ({} calls in 24 hours)\n  \
         configuration, log   {}\n\n\
         Try it:  curl -H 'Authorization: Bearer {token}' http://{plain}/services/data/v62.0/limits\n",
        ca.display(),
        sim.counts().limit,
        folder.display(),
    ));
}

/// The demo's configuration: what a small company would write.
fn configuration(arguments: &DemoArguments, simulated: SocketAddr, folder: &Path, keys: &traffic::Keys) -> String {
    let folder = folder.display();
    format!(
        "listeners:\n\
         - address: {listen}\n\
         - address: {listen_tls}\n  tls: {{certificate: {folder}/tls.crt, key: {folder}/tls.key}}\n\
         admin: {{address: {admin}}}\n\
         limits: {{drain: 5s}}\n\
         orgs:\n\
         - {{name: demo, instance_url: 'http://{simulated}'}}\n\
         cache:\n  entries:\n\
         \x20 - {{match: {{operations: [describe]}}, fresh: 1h}}\n\
         \x20 - {{match: {{objects: [Account], operations: [read]}}, fresh: 30s}}\n\
         callers:\n\
         - name: storefront\n  match: {{key_sha256: {storefront}}}\n  class: interactive\n  deadline: 10s\n  \
           allow: {{families: [rest, query], objects: [Account, Contact], operations: [read, query, describe]}}\n\
         - name: billing\n  match: {{key_sha256: {billing}}}\n  class: standard\n\
         - name: nightly-sync\n  match: {{call_options_client: nightly-sync}}\n  class: batch\n\
         - {{name: anyone, match: any, class: standard}}\n",
        listen = arguments.listen,
        listen_tls = arguments.listen_tls,
        admin = arguments.admin,
        storefront = keys.storefront.digest,
        billing = keys.billing.digest,
    )
}
