//! The commands. Each verb is a short function that parses, calls, and prints; nothing clever happens here.
//!
//! Exit codes: 0 done, 1 it went wrong while running, 2 the command or the configuration is wrong.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, Config, Problems};
use crate::gateway;

mod admin_client;
mod breaker;
mod budget;
mod cache;
#[cfg(feature = "demo")]
mod demo;
mod explain;
mod pause;
mod replicas;
#[cfg(feature = "demo")]
mod simulate;

/// An API gateway that meters, shares and protects a Salesforce org's API allowance.
#[derive(Debug, Parser)]
#[command(name = "weirkeeper", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the gateway.
    Serve(Source),
    /// Try everything at once: simulated Salesforce, gateway and a mix of callers, with a live summary.
    #[cfg(feature = "demo")]
    Demo(demo::DemoArguments),
    /// Run the simulated Salesforce alone.
    #[cfg(feature = "demo")]
    Simulate(simulate::SimulateArguments),
    /// Check a configuration file and report all mistakes at once.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Show what the gateway understands of a request, and which rules apply to it.
    Explain(explain::ExplainArguments),
    /// Show what is left of every org's daily allowance, who used it, and when it comes back.
    Budget(budget::BudgetArguments),
    /// Send nothing more of a caller or of a class, until it is resumed; a restart changes nothing about it.
    Pause(pause::PauseArguments),
    /// Let a paused caller or class go on.
    Resume(pause::PauseArguments),
    /// Show the replicas that share state with a running gateway.
    Replicas(replicas::ReplicasArguments),
    /// Show, open and close the circuit breakers of a running gateway.
    Breaker(breaker::BreakerArguments),
    /// Look after the answers that a running gateway keeps in memory.
    Cache(cache::CacheArguments),
    /// Ask a running gateway whether it is ready: for health checks. Exits with 0 if it is.
    Ready(admin_client::AdminArguments),
    /// Make a gateway key for a caller; only its SHA-256 belongs into the configuration.
    Key {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of the configuration.
    Schema {
        /// Print a reference for people instead.
        #[arg(long)]
        markdown: bool,
    },
    /// Print the version and how this binary was built.
    Version,
}

/// Where a configuration comes from.
#[derive(Debug, clap::Args)]
struct Source {
    /// Configuration file; reloaded on SIGHUP and when it changes.
    #[arg(long, short, conflicts_with = "org", required_unless_present = "org")]
    config: Option<PathBuf>,
    /// Stand in front of this org with the default settings and no file.
    #[arg(long, value_name = "URL")]
    org: Option<String>,
    /// Address to listen on, with --org.
    #[arg(long, requires = "org", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Address for operators (metrics, readiness, status), with --org.
    #[arg(long, requires = "org", default_value = "127.0.0.1:9090")]
    admin: SocketAddr,
}

impl Source {
    fn load(&self) -> Result<Config, Problems> {
        match (&self.config, &self.org) {
            (Some(path), _) => config::load(path),
            (None, Some(url)) => Config::for_org(url, self.listen, self.admin),
            (None, None) => config::load(std::path::Path::new("weirkeeper.yaml")),
        }
    }
}

/// Runs the command that the arguments of this process name.
pub fn run() -> ExitCode {
    match Arguments::parse().verb {
        Verb::Serve(source) => match source.load() {
            Ok(config) => ended(gateway::serve(config)),
            Err(problems) => unusable(&problems),
        },
        #[cfg(feature = "demo")]
        Verb::Demo(arguments) => ended(demo::run(&arguments)),
        #[cfg(feature = "demo")]
        Verb::Simulate(arguments) => ended(simulate::run(&arguments)),
        Verb::Check { file } => match config::load(&file) {
            Ok(config) => {
                say(&format!(
                    "{}: fine ({} listeners, {} orgs, {} callers)",
                    file.display(),
                    config.listeners.len(),
                    config.orgs.len(),
                    config.callers.len()
                ));
                ExitCode::SUCCESS
            }
            Err(problems) => unusable(&problems),
        },
        Verb::Explain(arguments) => explain::run(&arguments),
        Verb::Budget(arguments) => budget::run(&arguments),
        Verb::Pause(arguments) => pause::run(&arguments, "pause"),
        Verb::Resume(arguments) => pause::run(&arguments, "resume"),
        Verb::Replicas(arguments) => replicas::run(&arguments),
        Verb::Breaker(arguments) => breaker::run(&arguments),
        Verb::Cache(arguments) => cache::run(&arguments),
        Verb::Ready(admin) => ready(&admin),
        Verb::Key { json } => make_key(json),
        Verb::Schema { markdown } => {
            let schema = config::schema();
            if markdown {
                say(config::reference(&schema).trim_end());
            } else {
                say(&serde_json::to_string_pretty(&schema).unwrap_or_default());
            }
            ExitCode::SUCCESS
        }
        Verb::Version => {
            let build = if cfg!(debug_assertions) { "debug" } else { "release" };
            say(&format!("weirkeeper {} ({build}, rustls with aws-lc-rs)", env!("CARGO_PKG_VERSION")));
            ExitCode::SUCCESS
        }
    }
}

fn ready(admin: &admin_client::AdminArguments) -> ExitCode {
    match admin.ready() {
        Ok(()) => {
            say("ready");
            ExitCode::SUCCESS
        }
        Err(why) => ended(Err(why)),
    }
}

fn make_key(json: bool) -> ExitCode {
    match config::key::generate() {
        Ok(key) => {
            let digest = config::key::sha256_hex(&key);
            if json {
                say(&serde_json::json!({"key": key.as_str(), "key_sha256": digest}).to_string());
            } else {
                say(&format!(
                    "key:        {}\nkey_sha256: {digest}\n\nGive the key to the app, which sends it as `Weirkeeper-Key`; it is not shown again.\n\
                     Put key_sha256 into the caller's `match` in the configuration.",
                    key.as_str()
                ));
            }
            ExitCode::SUCCESS
        }
        Err(error) => ended(Err(error.to_string())),
    }
}

/// Prints a line; a closed standard output (`| head`) is not an error.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Returns when the process is told to stop.
#[cfg(feature = "demo")]
async fn stop_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn unusable(problems: &Problems) -> ExitCode {
    complain(&problems.to_string());
    ExitCode::from(2)
}

fn ended<E: std::fmt::Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("weirkeeper: {error}"));
            ExitCode::FAILURE
        }
    }
}
