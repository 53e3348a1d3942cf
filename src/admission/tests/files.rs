//! The state file: who may open it, what is refused and why, and what survives a kill.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::*;
use crate::admission::bank::sqlite::{OpenError, SqliteBank};
use crate::admission::bank::{Bank as _, BankEvent, Entry, Keeping, Statement, keep};
use crate::tasks::Tasks;

fn name(dir: &Path) -> std::path::PathBuf {
    dir.join("ledger.sqlite3")
}

fn statement(calls: u32) -> Arc<Statement> {
    let minute = Minute::containing(EPOCH);
    let entry = Entry { caller: "app".into(), class: Some(Class::Batch), minute, calls };
    Arc::new(Statement {
        at: EPOCH,
        entries: vec![entry],
        balance: 3,
        outstanding: 3,
        ask: 10,
        headroom: 9,
        ..Statement::default()
    })
}

#[tokio::test]
async fn what_is_settled_is_found_again_and_an_unreported_lease_counts_as_spent() {
    let dir = tempfile::tempdir().unwrap();
    let bank = SqliteBank::open(dir.path(), EPOCH).unwrap();
    let lease = bank.settle("org", statement(5)).await.unwrap();
    assert_eq!(lease.granted, 6, "what is asked for, within the headroom");
    // Told again, the same minute is replaced, not added to.
    bank.settle("org", statement(4)).await.unwrap();
    drop(bank);
    let later = EPOCH + Duration::from_hours(1);
    let bank = SqliteBank::open(dir.path(), later).unwrap();
    let past = bank.open("org").await.unwrap();
    let seen: Vec<_> =
        past.entries.iter().map(|entry| (&*entry.caller, entry.class, entry.minute, entry.calls)).collect();
    let minute = Minute::containing(EPOCH);
    assert_eq!(seen, [("app", Some(Class::Batch), minute, 4), (LOST_LEASES, None, minute.plus(15), 9)]);
    drop(bank);
    // Opening again loses nothing and adds nothing.
    let past = SqliteBank::open(dir.path(), later).unwrap().open("org").await.unwrap();
    assert_eq!(past.entries.len(), 2);
    // A wall clock set back is not believed.
    let past = SqliteBank::open(dir.path(), Duration::ZERO).unwrap().open("other").await.unwrap();
    assert_eq!((past.now, past.entries.len()), (later, 0));
}

#[tokio::test]
async fn a_clean_stop_leaves_no_lease_behind() {
    let dir = tempfile::tempdir().unwrap();
    let bank = SqliteBank::open(dir.path(), EPOCH).unwrap();
    bank.settle("org", statement(1)).await.unwrap();
    bank.close("org", Arc::new(Statement { at: EPOCH, ..Statement::default() })).await.unwrap();
    drop(bank);
    let past = SqliteBank::open(dir.path(), EPOCH).unwrap().open("org").await.unwrap();
    assert_eq!(past.entries.len(), 1);
}

#[test]
fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _bank = SqliteBank::open(dir.path(), EPOCH).unwrap();
    let refused = SqliteBank::open(dir.path(), EPOCH).unwrap_err();
    assert!(matches!(refused, OpenError::InUse(_)), "{refused}");
    assert!(refused.to_string().contains("in use by another process"), "{refused}");
}

#[test]
fn a_file_that_is_not_ours_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(name(dir.path()), "name,amount\n".repeat(400)).unwrap();
    let refused = SqliteBank::open(dir.path(), EPOCH).unwrap_err();
    assert!(matches!(refused, OpenError::Foreign(_)), "{refused:?}");
    assert!(refused.to_string().contains("move it and the files beside it"), "{refused}");

    let dir = tempfile::tempdir().unwrap();
    let other = rusqlite::Connection::open(name(dir.path())).unwrap();
    other.execute_batch("CREATE TABLE invoices (id INTEGER)").unwrap();
    drop(other);
    let refused = SqliteBank::open(dir.path(), EPOCH).unwrap_err();
    assert!(matches!(refused, OpenError::Foreign(_)), "{refused:?}");
}

#[test]
fn a_file_of_a_later_version_is_refused_by_its_number() {
    let dir = tempfile::tempdir().unwrap();
    drop(SqliteBank::open(dir.path(), EPOCH).unwrap());
    let later = rusqlite::Connection::open(name(dir.path())).unwrap();
    later.pragma_update(None, "user_version", 7).unwrap();
    drop(later);
    let refused = SqliteBank::open(dir.path(), EPOCH).unwrap_err();
    assert!(matches!(refused, OpenError::Newer { found: 7, .. }), "{refused:?}");
}

#[tokio::test]
async fn a_damaged_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let bank = SqliteBank::open(dir.path(), EPOCH).unwrap();
    for minute in 0..400 {
        let entry = |caller: u32| Entry {
            caller: format!("caller {caller}").into(),
            class: Some(Class::Batch),
            minute: Minute::containing(EPOCH).plus(minute),
            calls: 1,
        };
        let entries = (0..20).map(entry).collect();
        let statement = Statement { at: EPOCH, entries, ..Statement::default() };
        bank.settle("org", Arc::new(statement)).await.unwrap();
    }
    drop(bank);
    let mut bytes = std::fs::read(name(dir.path())).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 6_000].fill(0xA5);
    std::fs::write(name(dir.path()), bytes).unwrap();
    let refused = SqliteBank::open(dir.path(), EPOCH).unwrap_err();
    assert!(matches!(refused, OpenError::Corrupt { .. }), "{refused:?}");
    assert!(refused.to_string().contains("Salesforce's own readings"), "{refused}");
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let refused = SqliteBank::open(&file.join("state"), EPOCH).unwrap_err();
    assert!(matches!(refused, OpenError::Io { .. }) && refused.to_string().contains("state"), "{refused}");
}

/// How often the child below is killed.
const KILLS: u64 = 8;
const CEILING: u64 = 400;

/// Not a test: the process that is killed. It spends whatever it may, in its working directory, and says so.
#[test]
#[ignore = "started by the test below, in a directory of its own"]
fn child() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let clock = Clock::start();
    let now = clock.now();
    let bank = Arc::new(SqliteBank::open(Path::new("."), clock.wall(now)).unwrap());
    runtime.block_on(async {
        let past = bank.open("org").await.unwrap();
        let settings = OrgSettings { ladder: flat(), ..assumed(CEILING) };
        let ledger = Ledger::resume(settings, &[share("app", 0, None)], &past, clock, now);
        let lost = ledger.org(now).lost_leases;
        let (stdout, keeping) = (std::io::stdout(), Keeping::default());
        writeln!(stdout.lock(), "\nlost {lost}").unwrap();
        let stop = std::future::pending();
        let kept = keep(ledger.clone(), "org".into(), bank, clock, keeping, stop, |event: BankEvent<'_>| {
            println!("{event:?}");
        });
        Tasks::new().spawn(kept);
        loop {
            match ledger.reserve(CallerId(0), Class::Interactive, ApiCalls(1), clock.now()) {
                Ok(reservation) => {
                    drop(reservation.spend(clock.now()).unwrap());
                    writeln!(stdout.lock(), "sent").unwrap();
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(denied) if denied.cause.waits() => tokio::task::yield_now().await,
                Err(_) => {
                    writeln!(stdout.lock(), "full").unwrap();
                    std::future::pending::<()>().await;
                }
            }
        }
    });
}

fn flat() -> Ladder {
    let never = PerMille::new(1_000);
    Ladder { lean: never, pace_batch: never, stop_batch: never, stop_standard: never, back_below: never }
}

#[test]
fn kill_9_loses_headroom_and_never_forgets_a_call() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(9);
    let (mut sent, mut lost, mut kills) = (0, 0, 0);
    loop {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "admission::tests::files::child", "--ignored", "--nocapture"])
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (quota, mut life, mut full) = (random.u64(1..60), 0, false);
        while let Some(Ok(line)) = lines.next() {
            life += u64::from(line == "sent");
            lost = line.strip_prefix("lost ").map_or(lost, |lost| lost.parse().unwrap());
            full = line == "full";
            if full || (kills < KILLS && life >= quota) {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had said before it died, and nobody had read yet.
        life += lines.map_while(Result::ok).filter(|line| line == "sent").count() as u64;
        sent += life;
        kills += 1;
        if full {
            break;
        }
        assert!(kills < 100, "it never gets full");
    }
    println!("{kills} kills: {sent} of {CEILING} sent, {lost} lost with leases");
    assert!(sent <= CEILING);
    assert!(sent + lost + kills >= CEILING, "{sent} sent, {lost} lost");
}
