//! The state file: its format, how it is opened, and the two transactions there are.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior, params};

use crate::call::Class;
use crate::clock::Uptime;

use super::super::{Entry, Lease, Past, Paused, Statement};
use super::{OpenError, Present};
use crate::admission::changes::LOST_LEASES;
use crate::admission::ring::WINDOW_MINUTES;
use crate::admission::time::Minute;

/// The file's name in `state.path`.
const NAME: &str = "ledger.sqlite3";
/// Marks a file as ours: "Weir".
const APPLICATION: i64 = 0x5765_6972;
/// The format this version reads and writes.
pub(super) const FORMAT: i64 = 3;
/// Stands for the class of a lost lease: nobody knows whether it was spent, and for what.
const LOST: &str = "lost";

const SCHEMA: &str = "
    CREATE TABLE spent (
        minute INTEGER NOT NULL, org TEXT NOT NULL, caller TEXT NOT NULL, class TEXT NOT NULL, calls INTEGER NOT NULL,
        PRIMARY KEY (minute, org, caller, class)
    ) WITHOUT ROWID;
    -- What all callers without a ceiling may spend unreported, and until when anybody may.
    CREATE TABLE lease (org TEXT PRIMARY KEY, balance INTEGER NOT NULL, until INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE paused (
        org TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (org, kind, name)
    ) WITHOUT ROWID;
    CREATE TABLE allotted (
        org TEXT NOT NULL, caller TEXT NOT NULL, balance INTEGER NOT NULL, PRIMARY KEY (org, caller)
    ) WITHOUT ROWID;
    CREATE TABLE latest (one INTEGER PRIMARY KEY CHECK (one = 1), at_ms INTEGER NOT NULL);
    -- The ledger's time less the time the machine had been up, when it was last opened.
    CREATE TABLE boot (one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL, since_ms INTEGER NOT NULL);
";
/// What each format has that the one before it had not.
const UPGRADES: [&str; 2] = [
    // Leases of callers' own.
    "CREATE TABLE allotted (
         org TEXT NOT NULL, caller TEXT NOT NULL, balance INTEGER NOT NULL, PRIMARY KEY (org, caller)
     ) WITHOUT ROWID;",
    // When the machine was started.
    "CREATE TABLE boot (one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL, since_ms INTEGER NOT NULL);",
];

/// An open state file, locked.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    connection: Connection,
    /// Minutes before this one have been deleted.
    pruned: u32,
}

impl File {
    /// Opens or creates the file in `dir`, checks it, and locks it.
    pub(super) fn open(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(NAME);
        std::fs::create_dir_all(dir).map_err(|error| io(&path, &error))?;
        if is_network(dir).map_err(|error| io(&path, &error))? {
            return Err(OpenError::NetworkFileSystem(path));
        }
        let mut connection = connect(&path, true).map_err(|error| explain(&path, &error))?;
        check(&mut connection, &path)?;
        Ok(Self { path, connection, pruned: 0 })
    }

    /// Opens it again after a failure.
    pub(super) fn reopen(path: &Path) -> Result<Self, OpenError> {
        let mut connection = connect(path, false).map_err(|error| explain(path, &error))?;
        check(&mut connection, path)?;
        Ok(Self { path: path.to_owned(), connection, pruned: 0 })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Counts what earlier processes may have spent unreported, and reads what is left of them.
    /// The first of what it returns is of an org that it knows nothing of.
    pub(super) fn inherit(&mut self, present: &Present) -> Result<(Past, HashMap<String, Past>), OpenError> {
        let path = self.path.clone();
        self.try_inherit(present).map_err(|error| explain(&path, &error))
    }

    fn try_inherit(&mut self, present: &Present) -> rusqlite::Result<(Past, HashMap<String, Past>)> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let latest = transaction.query_row("SELECT coalesce(max(at_ms), 0) FROM latest", [], |row| row.get(0))?;
        let begun = match &present.uptime {
            Some(uptime) => since_boot(&transaction, uptime)?.unwrap_or(present.wall),
            None => present.wall,
        };
        let now = begun.max(Duration::from_millis(unsigned(latest)));
        count_lost_leases(&transaction, Minute::containing(now))?;
        set_latest(&transaction, now)?;
        set_boot(&transaction, now, present.uptime.as_ref())?;
        let blank = Past { now, forward: present.wall.saturating_sub(now), ..Past::default() };
        let pasts = read_pasts(&transaction, &blank)?;
        transaction.commit()?;
        Ok((blank, pasts))
    }

    /// Writes statements down, all or none; returns their leases in order.
    pub(super) fn commit<'a>(
        &mut self,
        statements: impl Iterator<Item = (&'a str, &'a Statement, bool)>,
    ) -> rusqlite::Result<Vec<Lease>> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (mut leases, mut now) = (Vec::new(), Duration::ZERO);
        for (org, statement, closing) in statements {
            let mut lease = statement.grant();
            if closing {
                lease.granted = 0;
                lease.allotted.fill(0);
            }
            write_entries(&transaction, org, &statement.entries)?;
            transaction.execute(
                "INSERT INTO lease VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET balance = excluded.balance, until = excluded.until",
                params![org, signed(statement.balance + lease.granted), lease.until.0],
            )?;
            write_allotted(&transaction, org, statement, &lease)?;
            if let Some(paused) = &statement.paused {
                write_paused(&transaction, org, paused)?;
            }
            now = now.max(statement.at);
            leases.push(lease);
        }
        set_latest(&transaction, now)?;
        let first = (Minute::containing(now).0 + 1).saturating_sub(WINDOW_MINUTES);
        if first > self.pruned {
            transaction.execute("DELETE FROM spent WHERE minute < ?1", [first])?;
        }
        transaction.commit()?;
        self.pruned = first;
        Ok(leases)
    }
}

fn connect(path: &Path, create: bool) -> rusqlite::Result<Connection> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, create);
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::ZERO)?;
    // The lock comes before the log, so that no file in shared memory is needed.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    Ok(connection)
}

fn check(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |error: rusqlite::Error| explain(path, &error);
    let pragma = |connection: &Connection, name: &str| connection.pragma_query_value(None, name, |row| row.get(0));
    let application: i64 = pragma(connection, "application_id").map_err(failed)?;
    let format: i64 = pragma(connection, "user_version").map_err(failed)?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    let blank = application == 0 && format == 0 && tables == 0;
    if !blank && application != APPLICATION {
        return Err(OpenError::Foreign(path.to_owned()));
    }
    if format > FORMAT {
        return Err(OpenError::Newer { path: path.to_owned(), found: format });
    }
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    if blank {
        create(connection).map_err(failed)?;
    } else if format < FORMAT {
        upgrade(connection, format).map_err(failed)?;
    }
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if verdict != "ok" {
        return Err(OpenError::Corrupt { path: path.to_owned(), why: verdict.into() });
    }
    Ok(())
}

fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(SCHEMA)?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    transaction.commit()
}

/// Brings a file of an earlier format up to this one, or leaves it as it was.
fn upgrade(connection: &mut Connection, format: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let known = usize::try_from(format - 1).unwrap_or(0);
    for upgrade in UPGRADES.iter().skip(known) {
        transaction.execute_batch(upgrade)?;
    }
    transaction.pragma_update(None, "user_version", FORMAT)?;
    transaction.commit()
}

/// A lease that was not given back counts as spent at the last moment it could have been: its end, or now; by the
/// caller it was for, if it was for one alone.
fn count_lost_leases(transaction: &Transaction<'_>, now: Minute) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO spent SELECT min(until, ?1), org, ?2, ?3, balance FROM lease WHERE balance > 0
         ON CONFLICT DO UPDATE SET calls = calls + excluded.calls",
        params![now.0, LOST_LEASES, LOST],
    )?;
    transaction.execute(
        "INSERT INTO spent SELECT min(lease.until, ?1), org, caller, ?2, allotted.balance
         FROM allotted JOIN lease USING (org) WHERE allotted.balance > 0
         ON CONFLICT DO UPDATE SET calls = calls + excluded.calls",
        params![now.0, LOST],
    )?;
    transaction.execute("UPDATE lease SET balance = 0", [])?;
    transaction.execute("DELETE FROM allotted", [])?;
    Ok(())
}

fn write_allotted(
    transaction: &Transaction<'_>,
    org: &str,
    statement: &Statement,
    lease: &Lease,
) -> rusqlite::Result<()> {
    let mut set = transaction
        .prepare("INSERT INTO allotted VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET balance = excluded.balance")?;
    let mut clear = transaction.prepare("DELETE FROM allotted WHERE org = ?1 AND caller = ?2")?;
    for (allotted, granted) in statement.allotted.iter().zip(&lease.allotted) {
        match allotted.balance + granted {
            0 => clear.execute(params![org, &*allotted.caller])?,
            balance => set.execute(params![org, &*allotted.caller, signed(balance)])?,
        };
    }
    Ok(())
}

fn set_latest(transaction: &Transaction<'_>, now: Duration) -> rusqlite::Result<()> {
    let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    transaction.execute(
        "INSERT INTO latest VALUES (1, ?1) ON CONFLICT DO UPDATE SET at_ms = max(at_ms, excluded.at_ms)",
        [now_ms],
    )?;
    Ok(())
}

/// The ledger's time, if the machine has been up since the file was last opened.
fn since_boot(transaction: &Transaction<'_>, uptime: &Uptime) -> rusqlite::Result<Option<Duration>> {
    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?));
    let known = transaction.query_row("SELECT id, since_ms FROM boot", [], read).optional()?;
    let since = known.filter(|(id, _)| **id == *uptime.boot).map(|(_, since)| Duration::from_millis(unsigned(since)));
    Ok(since.map(|since| since + uptime.up))
}

fn set_boot(transaction: &Transaction<'_>, now: Duration, uptime: Option<&Uptime>) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM boot", [])?;
    if let Some(Uptime { boot, up }) = uptime {
        let since = i64::try_from(now.saturating_sub(*up).as_millis()).unwrap_or(i64::MAX);
        transaction.execute("INSERT INTO boot VALUES (1, ?1, ?2)", params![&**boot, since])?;
    }
    Ok(())
}

fn write_entries(transaction: &Transaction<'_>, org: &str, entries: &[Entry]) -> rusqlite::Result<()> {
    let mut set = transaction
        .prepare("INSERT INTO spent VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE SET calls = excluded.calls")?;
    let mut clear =
        transaction.prepare("DELETE FROM spent WHERE minute = ?1 AND org = ?2 AND caller = ?3 AND class = ?4")?;
    for Entry { caller, class, minute, calls } in entries {
        let class = class.map_or(LOST, Class::as_str);
        if *calls == 0 {
            clear.execute(params![minute.0, org, &**caller, class])?;
        } else {
            set.execute(params![minute.0, org, &**caller, class, calls])?;
        }
    }
    Ok(())
}

fn write_paused(transaction: &Transaction<'_>, org: &str, paused: &Paused) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM paused WHERE org = ?1", [org])?;
    let mut add = transaction.prepare("INSERT INTO paused VALUES (?1, ?2, ?3)")?;
    for caller in &paused.callers {
        add.execute(params![org, "caller", &**caller])?;
    }
    for class in &paused.classes {
        add.execute(params![org, "class", class.as_str()])?;
    }
    Ok(())
}

/// What is left of each org, as it differs from `blank`.
fn read_pasts(transaction: &Transaction<'_>, blank: &Past) -> rusqlite::Result<HashMap<String, Past>> {
    let mut pasts: HashMap<String, Past> = HashMap::new();
    let first = (Minute::containing(blank.now).0 + 1).saturating_sub(WINDOW_MINUTES);
    let mut select = transaction.prepare("SELECT org, caller, class, minute, calls FROM spent WHERE minute >= ?1")?;
    let mut rows = select.query([first])?;
    while let Some(row) = rows.next()? {
        let entry = Entry {
            caller: Arc::from(row.get::<_, String>(1)?),
            class: Class::parse(&row.get::<_, String>(2)?),
            minute: Minute(row.get(3)?),
            calls: u32::try_from(row.get::<_, i64>(4)?).unwrap_or(u32::MAX),
        };
        pasts.entry(row.get(0)?).or_default().entries.push(entry);
    }
    let mut select = transaction.prepare("SELECT org, kind, name FROM paused")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let past = pasts.entry(row.get(0)?).or_default();
        let name: String = row.get(2)?;
        if row.get::<_, String>(1)? == "caller" {
            past.paused.callers.push(Arc::from(name));
        } else {
            past.paused.classes.extend(Class::parse(&name));
        }
    }
    for past in pasts.values_mut() {
        (past.now, past.forward) = (blank.now, blank.forward);
    }
    Ok(pasts)
}

fn is_network(dir: &Path) -> rustix::io::Result<bool> {
    // NFS, SMB, CIFS, SMB2, 9P, Ceph, AFS (statfs(2)).
    const NETWORK: [i64; 7] = [0x6969, 0x517B, 0xFF53_4D42, 0xFE53_4D42, 0x0102_1997, 0x00C3_6400, 0x5346_414F];
    let magic = i128::from(rustix::fs::statfs(dir)?.f_type) & 0xFFFF_FFFF;
    Ok(NETWORK.iter().any(|network| i128::from(*network) == magic))
}

fn io(path: &Path, error: &dyn std::fmt::Display) -> OpenError {
    OpenError::Io { path: path.to_owned(), why: error.to_string().into() }
}

fn explain(path: &Path, error: &rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::InUse(path),
        Some(ErrorCode::NotADatabase) => OpenError::Foreign(path),
        Some(ErrorCode::DatabaseCorrupt) => OpenError::Corrupt { path, why: error.to_string().into() },
        _ => OpenError::Io { path, why: error.to_string().into() },
    }
}

/// SQLite's integers are signed; no count comes near their end.
fn signed(calls: u64) -> i64 {
    i64::try_from(calls).unwrap_or(i64::MAX)
}

fn unsigned(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(calls: u32, callers: u32) -> Statement {
        let entry = |nth| Entry {
            caller: format!("caller {nth}").into(),
            class: Some(Class::Batch),
            minute: Minute(29_000_000),
            calls,
        };
        let entries = (0..callers).map(entry).collect();
        Statement { at: Minute(29_000_000).begins(), entries, ..Statement::default() }
    }

    #[test]
    fn a_full_disk_fails_a_statement_whole_and_later_ones_are_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = File::open(dir.path()).unwrap();
        file.commit([("org", &told(1, 10), false)].into_iter()).unwrap();
        let pages: i64 = file.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        file.connection.pragma_update(None, "max_page_count", pages + 1).unwrap();
        let error = file.commit([("org", &told(2, 5_000), false)].into_iter()).unwrap_err();
        assert!(error.to_string().contains("full"), "{error}");
        let path = file.path().to_owned();
        drop(file);
        let mut file = File::reopen(&path).unwrap();
        let seen = |file: &mut File| {
            let (_, pasts) = file.inherit(&Minute(29_000_000).begins().into()).unwrap();
            pasts["org"].entries.iter().map(|entry| entry.calls).sum::<u32>()
        };
        assert_eq!(seen(&mut file), 10, "nothing of the failed statement");
        file.commit([("org", &told(2, 5_000), false)].into_iter()).unwrap();
        assert_eq!(seen(&mut file), 10_000);
    }

    #[test]
    fn a_file_of_the_first_format_is_upgraded_and_what_it_remembers_counts() {
        let dir = tempfile::tempdir().unwrap();
        // As the first version wrote it.
        let old = Connection::open(dir.path().join(NAME)).unwrap();
        old.execute_batch(&format!(
            "PRAGMA journal_mode = WAL;
             CREATE TABLE spent (
                 minute INTEGER NOT NULL, org TEXT NOT NULL, caller TEXT NOT NULL, class TEXT NOT NULL,
                 calls INTEGER NOT NULL, PRIMARY KEY (minute, org, caller, class)
             ) WITHOUT ROWID;
             CREATE TABLE lease (org TEXT PRIMARY KEY, balance INTEGER NOT NULL, until INTEGER NOT NULL) WITHOUT ROWID;
             CREATE TABLE paused (
                 org TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (org, kind, name)
             ) WITHOUT ROWID;
             CREATE TABLE latest (one INTEGER PRIMARY KEY CHECK (one = 1), at_ms INTEGER NOT NULL);
             INSERT INTO spent VALUES (29000000, 'org', 'app', 'batch', 7);
             INSERT INTO lease VALUES ('org', 5, 29000015);
             INSERT INTO paused VALUES ('org', 'class', 'batch');
             INSERT INTO latest VALUES (1, 1740000000000);
             PRAGMA application_id = {APPLICATION};
             PRAGMA user_version = 1;"
        ))
        .unwrap();
        drop(old);
        for _ in 0..2 {
            let mut file = File::open(dir.path()).unwrap();
            let format: i64 = file.connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
            assert_eq!(format, FORMAT);
            let (_, mut pasts) = file.inherit(&Minute(29_000_100).begins().into()).unwrap();
            let past = pasts.remove("org").unwrap();
            let calls: Vec<_> =
                past.entries.iter().map(|entry| (&*entry.caller, entry.minute.0, entry.calls)).collect();
            assert_eq!(calls, [("app", 29_000_000, 7), (LOST_LEASES, 29_000_015, 5)]);
            assert_eq!(past.paused.classes, [Class::Batch]);
        }
        // And it can do what the first format could not.
        let mut file = File::open(dir.path()).unwrap();
        let allotted = super::super::super::Allotted { caller: "app".into(), balance: 3, ask: 0, floor: 0, ceiling: 0 };
        let statement = Statement { allotted: vec![allotted], ..told(1, 1) };
        file.commit([("org", &statement, false)].into_iter()).unwrap();
        let (_, pasts) = file.inherit(&Minute(29_000_100).begins().into()).unwrap();
        assert!(
            pasts["org"]
                .entries
                .iter()
                .any(|entry| &*entry.caller == "app" && entry.class.is_none() && entry.calls == 3)
        );
    }

    #[test]
    fn while_the_machine_is_up_its_wall_clock_is_not_asked_how_long_nobody_was_there() {
        let minutes = Duration::from_mins;
        let dir = tempfile::tempdir().unwrap();
        let open = |wall, boot: &str, up| {
            let present = Present { wall, uptime: Some(Uptime { boot: boot.into(), up }) };
            let (past, _) = File::open(dir.path()).unwrap().inherit(&present).unwrap();
            (past.now, past.forward)
        };
        let start = minutes(1_000_000);
        assert_eq!(open(start, "a", minutes(10)), (start, Duration::ZERO));
        // Ten minutes later, by a clock that was set forward by a month.
        let month = minutes(43_200);
        assert_eq!(open(start + month, "a", minutes(20)), (start + minutes(10), minutes(43_190)));
        // Or back.
        assert_eq!(open(minutes(1), "a", minutes(30)), (start + minutes(20), Duration::ZERO));
        // After a restart of the machine there is only its word, if it is later.
        assert_eq!(open(start, "b", minutes(1)), (start + minutes(20), Duration::ZERO));
        assert_eq!(open(start + month, "c", minutes(1)), (start + month, Duration::ZERO));
        // Nor is uptime that went back.
        assert_eq!(open(start + month, "c", minutes(0)), (start + month, Duration::ZERO));
    }

    #[test]
    fn what_has_left_the_window_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = File::open(dir.path()).unwrap();
        file.commit([("org", &told(1, 10), false)].into_iter()).unwrap();
        let later = Statement { at: Minute(29_001_441).begins(), ..Statement::default() };
        file.commit([("org", &later, false)].into_iter()).unwrap();
        let rows: i64 = file.connection.query_row("SELECT count(*) FROM spent", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 0);
    }
}
