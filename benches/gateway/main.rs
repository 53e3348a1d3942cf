//! Measures the whole `weirkeeper` binary between a load generator and a fast origin, on loopback only.
//!
//! ```text
//! cargo bench --bench gateway                        CPU per proxied call, beside nginx if it is installed
//! cargo bench --bench gateway -- instructions        user-space instructions per proxied call (valgrind)
//! cargo bench --bench gateway -- ledger              the ledger's share of them
//! cargo bench --bench gateway -- syscalls            system calls per proxied call (strace)
//! cargo bench --bench gateway -- speed --memory      CPU per answer from memory, beside nginx's cache
//! cargo bench --bench gateway -- kept                memory that kept answers take, beside their bound
//! cargo bench --bench gateway -- entries             instructions per answer from memory among few and many (valgrind)
//! cargo bench --bench gateway -- idle                memory of idle connections
//! cargo bench --bench gateway -- replicas            what three replicas ask of the store they share, at 5,000 calls/s
//! cargo bench --bench gateway -- stream              memory while large and slow bodies pass
//! ```
//!
//! `--target-cmd 'COMMAND with {port} and {upstream}'` measures any other gateway in its place. What is measured
//! runs alone on core 0; the origin, in its own process, and the load share core 1. With `--gate...` the exit code
//! is 1 if a bound is broken. Instructions and system calls repeat to about 1 % and can be gated anywhere; CPU
//! times are only comparable within one run, which is why they are reported as ratios of paired rounds.
#![expect(
    clippy::disallowed_methods,
    reason = "a bench times real processes; the gateway's clock rules are not its own"
)]

mod counts;
mod idle;
mod kept;
mod load;
mod measure;
mod origin;
mod replicas;
mod report;
mod share;
mod speed;
mod stream;
mod target;

use std::error::Error;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// The core of what is measured.
const TARGET_CORE: usize = 0;
/// The core of origin and load.
const LOAD_CORE: usize = 1;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Measures the whole gateway.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    speed: speed::Options,
    #[command(flatten)]
    common: Common,
    /// Passed by `cargo bench`; without it (as from `cargo test --benches`) nothing is measured.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

/// What every measurement takes.
#[derive(Args)]
struct Common {
    /// Measure this gateway instead; `{port}` and `{upstream}` are replaced, words are split at spaces.
    #[arg(long, global = true)]
    target_cmd: Option<String>,
    /// Leave nginx out.
    #[arg(long, global = true)]
    no_nginx: bool,
}

#[derive(Subcommand)]
enum What {
    /// CPU time per call at saturation (the default).
    Speed(speed::Options),
    /// User-space instructions per call.
    Instructions(counts::InstructionOptions),
    /// The ledger's share of the instructions.
    Ledger(share::Options),
    /// System calls per call at saturation.
    Syscalls(counts::SyscallOptions),
    /// Memory that kept answers take.
    Kept(kept::Options),
    /// User-space instructions of an answer from memory where many are kept.
    Entries(kept::EntriesOptions),
    /// Memory of idle connections.
    Idle(idle::Options),
    /// What several replicas ask of the store they share.
    Replicas(replicas::Options),
    /// Memory while large and slow bodies pass.
    Stream(stream::Options),
    /// The origin's own process.
    #[command(hide = true)]
    Origin(origin::Options),
    /// Calls of the ledger alone, in their own process.
    #[command(hide = true)]
    LedgerCalls(share::Calls),
    /// Becomes another program on one core, with as many open files as allowed.
    #[command(hide = true)]
    Pinned(target::Pinned),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.what {
        Some(What::Origin(options)) => origin::serve(&options).map(|()| true),
        Some(What::LedgerCalls(calls)) => share::make(&calls).map(|()| true),
        Some(What::Pinned(command)) => Err(target::become_pinned(&command)),
        _ if !cli.bench => {
            println!("nothing measured: run `cargo bench --bench gateway`");
            Ok(true)
        }
        what => prepare().and_then(|()| match what {
            Some(What::Instructions(options)) => counts::instructions(&cli.common, &options),
            Some(What::Ledger(options)) => share::run(&options),
            Some(What::Syscalls(options)) => counts::syscalls(&cli.common, &options),
            Some(What::Kept(options)) => kept::run(&cli.common, &options),
            Some(What::Entries(options)) => kept::entries(&cli.common, &options),
            Some(What::Idle(options)) => idle::run(&cli.common, &options),
            Some(What::Replicas(options)) => replicas::run(&cli.common, &options),
            Some(What::Stream(options)) => stream::run(&cli.common, &options),
            Some(What::Speed(options)) => speed::run(&cli.common, &options),
            _ => speed::run(&cli.common, &cli.speed),
        }),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("gateway bench: {error}");
            ExitCode::from(2)
        }
    }
}

/// Puts this process, which makes the load, on its core and lets it hold many connections.
fn prepare() -> Outcome<()> {
    target::pin(LOAD_CORE)?;
    target::prefer();
    target::raise_open_files()
}
