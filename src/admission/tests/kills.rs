//! Killed at every single write: whichever call to the system was the last one, nothing spent is forgotten.
//!
//! A child process goes through all there is to write: creating the file, leases, minutes, pauses, pruning, the clean
//! stop. A library between it and the system kills it at its first write, in another life at its second, and so on, until
//! it gets through; every other write is torn in half first.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::restarts::wait_for;
use super::*;
use crate::admission::bank::Bank as _;
use crate::admission::bank::sqlite::SqliteBank;

#[path = "../../../tests/shim/mod.rs"]
mod shim;

use shim::Shim;

const CEILING: u64 = 90;
/// Of the first caller; the second has none.
const OWN_CEILING: u64 = 40;
/// From one life to the next.
const LIFE: Duration = Duration::from_mins(20);

fn shares() -> [Share; 2] {
    [share("a", 20, Some(OWN_CEILING)), share("b", 0, None)]
}

fn wall(life: u32) -> Duration {
    EPOCH + LIFE * life
}

fn open(dir: &Path, life: u32) -> (SqliteBank, Ledger, Clock) {
    let clock = Clock::at(wall(life));
    let bank = SqliteBank::open(dir, wall(life)).unwrap();
    let past = wait_for(bank.open("org")).unwrap();
    (bank, Ledger::resume(assumed(CEILING), &shares(), &past, clock, clock.now()), clock)
}

/// Not a test: the process that is killed. It says what it sends before it sends anything else.
#[test]
#[ignore = "started by the test below, in a directory of its own"]
fn child() {
    let life = std::fs::read_to_string("life").unwrap().parse().unwrap();
    let (bank, ledger, clock) = open(Path::new("."), life);
    let start = clock.now();
    for round in 0..4 {
        let now = start + Duration::from_mins(4 * round);
        // Twice, because who has a ceiling waits for a lease in its own name.
        for _ in 0..2 {
            for caller in 0..2 {
                for _ in 0..3 {
                    let Ok(call) = ledger.reserve(CallerId(caller), Class::Standard, ApiCalls(1), now) else { break };
                    println!("\nsent {caller}");
                    drop(call.spend(now).unwrap());
                }
            }
            let Some(statement) = ledger.statement(now).map(Arc::new) else { continue };
            let lease = wait_for(bank.settle("org", Arc::clone(&statement))).unwrap();
            ledger.settled(&statement, &lease, now);
        }
        ledger.pause_class(Class::Batch, round % 2 == 0, now);
    }
    let end = start + LIFE;
    ledger.stop(end);
    wait_for(bank.close("org", Arc::new(ledger.statement(end).unwrap()))).unwrap();
    drop(bank);
    println!("\ndone");
}

/// What one life sent, by caller, and whether it got through.
struct Life {
    sent: [u64; 2],
    done: bool,
}

/// One life, killed at its `nth` write.
fn live(shim: &Shim, dir: &Path, life: u32, nth: u64, torn: bool) -> Life {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "admission::tests::kills::child", "--ignored", "--nocapture"]).current_dir(dir);
    std::fs::write(dir.join("life"), life.to_string()).unwrap();
    child.env("SHIM_DIE_AT", nth.to_string()).stderr(Stdio::null());
    if torn {
        child.env("SHIM_TEAR", "1");
    }
    shim.before(&mut child);
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let done = text.lines().any(|line| line == "done");
    let killed = std::os::unix::process::ExitStatusExt::signal(&output.status) == Some(9);
    assert!(done || killed, "write {nth}: {:?}\n{text}", output.status);
    let sent = [0, 1].map(|caller| text.lines().filter(|line| *line == format!("sent {caller}")).count() as u64);
    Life { sent, done }
}

#[test]
fn a_kill_at_any_write_forgets_nothing() {
    let shim = Shim::new();
    let mut random = fastrand::Rng::with_seed(4);
    let (mut kills, mut most_lost) = (0, 0);
    for nth in 1.. {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let first = live(&shim, dir.path(), 0, nth, nth % 2 == 0);
        // The next life finds what the kill left, and is killed as well.
        let second = live(&shim, dir.path(), 1, random.u64(1..60), nth % 2 == 1);
        let sent = [0, 1].map(|caller| first.sent[caller] + second.sent[caller]);
        let (_bank, ledger, clock) = open(dir.path(), 2);
        let (org, callers) = (ledger.org(clock.now()), ledger.callers(clock.now()));
        let used = |name: &str| callers.iter().find(|caller| &*caller.name == name).map_or(0, |caller| caller.used);
        let all: u64 = sent.iter().sum();
        assert!(all <= CEILING && sent[0] <= OWN_CEILING, "write {nth}: {sent:?} sent");
        assert!(org.own >= all, "write {nth}: {all} sent, {} on the books", org.own);
        assert!(org.own <= CEILING, "write {nth}: {} on the books", org.own);
        assert!(used("a") >= sent[0], "write {nth}: {} sent, {} on the books of its caller", sent[0], used("a"));
        assert!(org.own - all <= org.lost_leases, "write {nth}: what is too much are lost leases");
        most_lost = most_lost.max(org.own - all);
        kills += u32::from(!first.done) + u32::from(!second.done);
        if first.done {
            assert!(nth > 50, "only {nth} writes");
            println!(
                "{} writes, {kills} kills: nothing forgotten, at most {most_lost} calls lost with leases",
                nth - 1
            );
            return;
        }
    }
}
