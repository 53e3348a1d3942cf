//! What the ledger alone costs each call: reserve, hand over, settle, and read what Salesforce says is used, with leases of a
//! bank on disk, as the gateway does it. Counted in user-space instructions by callgrind over all threads, so that the bank's
//! work in the background is part of it: some rows a second and for each refill, however many calls there are.

use std::error::Error;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tempfile::TempDir;
use tokio::time::Instant;
use weirkeeper::admission::bank::sqlite::{Present, SqliteBank};
use weirkeeper::admission::bank::{Bank as _, Keeping, keep};
use weirkeeper::admission::{Ledger, OrgSettings, Reading, Reservation, Share};
use weirkeeper::call::{ApiCalls, CallerId, Class};
use weirkeeper::clock::Clock;
use weirkeeper::per_thread::PerThread;
use weirkeeper::salesforce::LimitInfo;

use crate::target::installed;
use crate::{Outcome, counts, report};

/// How long a call waits for a lease, on a machine that is slowed down.
const PATIENCE: Duration = Duration::from_secs(30);
/// The bank's turn comes at least after so many calls.
const CALLS_IN_A_ROW: u64 = 16;

/// How to count the ledger's instructions.
#[derive(Args)]
pub struct Options {
    /// Calls of the shorter run; the figure is the difference of the two, so that start and end fall out.
    #[arg(long, default_value_t = 50_000)]
    fewer: u64,
    /// Calls of the longer run.
    #[arg(long, default_value_t = 150_000)]
    more: u64,
    /// Fail above so many instructions per call.
    #[arg(long)]
    gate: Option<f64>,
}

/// What is counted: so many calls.
#[derive(Args)]
pub struct Calls {
    calls: u64,
    /// All the same but for the ledger: what this costs is not its share.
    #[arg(long)]
    without: bool,
}

/// User-space instructions of the ledger per call.
pub fn run(options: &Options) -> Outcome<bool> {
    if !installed("valgrind") {
        return Err("valgrind is not installed".into());
    }
    if options.more <= options.fewer {
        return Err("--more must be above --fewer".into());
    }
    let folder = TempDir::new()?;
    let count = |calls: u64, without: bool| {
        let profile = folder.path().join("callgrind.out");
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "--fair-sched=try"]);
        command.arg(format!("--callgrind-out-file={}", profile.display()));
        command.arg(std::env::current_exe()?).args(["ledger-calls", &calls.to_string()]);
        command.args(without.then_some("--without"));
        let status = command.stderr(Stdio::null()).status()?;
        if status.success() {
            counts::total_of(&profile)
        } else {
            Err(format!("{calls} calls ended with {status}").into())
        }
    };
    let each = |without: bool| -> Outcome<f64> {
        let more = count(options.more, without)?.saturating_sub(count(options.fewer, without)?);
        Ok(more as f64 / (options.more - options.fewer) as f64)
    };
    let figure = each(false)? - each(true)?;
    report::table(
        &["the ledger's share", "user instructions per call"],
        &[vec!["reserve, spend, settle, read".to_owned(), format!("{figure:.0}")]],
    );
    Ok(report::within("instructions of the ledger per call", figure, options.gate))
}

/// Makes the calls, on a thread that has nothing else to do.
pub fn make(calls: &Calls) -> Outcome<()> {
    tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(make_all(calls))
}

async fn make_all(&Calls { calls, without }: &Calls) -> Outcome<()> {
    let folder = TempDir::new()?;
    let clock = Clock::start();
    let bank = Arc::new(SqliteBank::open(folder.path(), Present::from(clock.wall(clock.now())))?);
    let past = bank.open("org").await?;
    // One has a lease of its own, the other spends from what all share.
    let storefront = Share { floor: 10_000, ceiling: Some(1_000_000), ..Share::borrower("storefront".to_owned()) };
    let shares = [storefront, Share::borrower("anyone".to_owned())];
    let ledger = Ledger::resume(OrgSettings::default(), &shares, &past, clock, clock.now());
    ledger.read(Reading { used: 0, limit: 5_000_000 }, clock.now()).map_err(|misread| format!("{misread:?}"))?;
    let handles = PerThread::of(|| ledger.apart());
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let stopped = async {
        let _ = stopped.await;
    };
    let work = async {
        let mut said = *b"api-usage=000000/5000000";
        for call in 0..calls {
            if call.is_multiple_of(CALLS_IN_A_ROW) {
                tokio::task::yield_now().await;
            }
            count_up(&mut said[10..16]);
            let (caller, class) =
                if call.is_multiple_of(2) { (CallerId(0), Class::Interactive) } else { (CallerId(1), Class::Standard) };
            let now = clock.now();
            if without {
                std::hint::black_box((&said, caller, class, now));
                continue;
            }
            let ledger = Ledger::clone(&handles);
            let reservation = match ledger.reserve(caller, class, ApiCalls(1), now) {
                Err(denied) if denied.cause.waits() => wait(&ledger, caller, class, clock).await?,
                reserved => reserved.map_err(|denied| format!("{denied:?}"))?,
            };
            settle(&ledger, reservation, &said, now)?;
        }
        // The bank may have ended with an error of its own; then it says so.
        let _ = stop.send(());
        Ok::<(), Box<dyn Error>>(())
    };
    let kept = keep(ledger.clone(), Arc::from("org"), bank, clock, Keeping::default(), stopped, |_| {});
    let (done, ()) = tokio::join!(work, kept);
    done?;
    let own = ledger.org(clock.now()).own;
    if own == if without { 0 } else { calls } {
        Ok(())
    } else {
        Err(format!("{own} of {calls} calls are on the books").into())
    }
}

/// A call that finds the lease empty waits for the bank.
async fn wait(ledger: &Ledger, caller: CallerId, class: Class, clock: Clock) -> Outcome<Reservation> {
    loop {
        let mut changed = std::pin::pin!(ledger.changed());
        changed.as_mut().enable();
        match ledger.reserve(caller, class, ApiCalls(1), clock.now()) {
            Err(denied) if denied.cause.waits() => tokio::time::timeout(PATIENCE, changed).await?,
            reserved => return Ok(reserved.map_err(|denied| format!("{denied:?}"))?),
        }
    }
}

/// It is handed over, and answered.
fn settle(ledger: &Ledger, reservation: Reservation, said: &[u8], now: Instant) -> Outcome<()> {
    let spent = reservation.spend(now).map_err(|_| "the lease ended")?;
    let usage = LimitInfo::parse(said).org.ok_or("not a reading")?;
    let reading = Reading { used: usage.used.into(), limit: usage.limit.into() };
    ledger.read(reading, now).map_err(|misread| format!("{misread:?}"))?;
    spent.answered(ApiCalls(1), now);
    Ok(())
}

/// Adds one to a number written in digits.
fn count_up(digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        if *digit < b'9' {
            *digit += 1;
            return;
        }
        *digit = b'0';
    }
}
