//! Copying a database that others use, and asking whether anybody does.
//!
//! In WAL mode one read transaction is held for the whole copy: writers are not kept waiting, and the copy is the state
//! at its beginning. In the other modes a reader keeps writers from committing, so the copy is made in steps that let
//! them in between; SQLite then begins anew by itself. When that has happened too often, the last attempt holds them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use karbor_plugin::{CancellationToken, Error, ErrorKind};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::sqlite::Check;

/// How long another's lock is waited for.
const BUSY: Duration = Duration::from_secs(30);
/// How long a step waits when it met a lock.
const PAUSE: Duration = Duration::from_millis(20);
/// How many pages are copied in one step.
const PAGES: i32 = 2000;
/// How often a copy may begin anew before writers are kept waiting.
const RESTARTS: u32 = 5;
/// How many of SQLite's findings an error names.
const NAMED: usize = 3;

/// What is known of a copied database.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) page_size: u32,
    pub(super) journal_mode: String,
}

/// Why a copy failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// SQLite said so, while doing this.
    Sqlite(&'static str, rusqlite::Error),
    /// A check found these.
    Unsound(Vec<String>),
    /// Somebody uses it.
    InUse,
    Cancelled,
}

impl Failure {
    /// Says what failed and what to do.
    pub(super) fn describe(self, shown: &str) -> Error {
        match self {
            Self::Cancelled => Error::cancelled(),
            Self::InUse => {
                let text = format!("the database {shown} is in use; stop what uses it and restore again");
                Error::new(ErrorKind::Conflict, text)
            }
            Self::Unsound(findings) => {
                let named = findings.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
                let text = format!(
                    "the database {shown} is damaged: {named}; repair it, or protect with check set to none"
                );
                Error::new(ErrorKind::Damaged, text)
            }
            Self::Sqlite(doing, err) => {
                let (kind, advice) = match err.sqlite_error_code() {
                    Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                        (ErrorKind::Unavailable, "; another program holds it locked")
                    }
                    Some(ErrorCode::DiskFull) => (ErrorKind::NoSpace, "; free some space"),
                    Some(ErrorCode::NotADatabase) => {
                        (ErrorKind::Invalid, "; it is no SQLite database, or an encrypted one")
                    }
                    Some(ErrorCode::DatabaseCorrupt) => (ErrorKind::Damaged, "; repair it"),
                    Some(
                        ErrorCode::PermissionDenied
                        | ErrorCode::ReadOnly
                        | ErrorCode::AuthorizationForStatementDenied,
                    ) => (ErrorKind::Denied, "; allow the service's user to read it and to write beside it"),
                    Some(ErrorCode::CannotOpen) => (
                        ErrorKind::Denied,
                        "; it is gone, behind a symbolic link, or not allowed to the service's user",
                    ),
                    _ => (ErrorKind::Other, ""),
                };
                Error::new(kind, format!("{doing} the database {shown} failed: {err}{advice}"))
                    .with_source(err)
            }
        }
    }
}

fn doing(what: &'static str) -> impl Fn(rusqlite::Error) -> Failure {
    move |err| Failure::Sqlite(what, err)
}

/// Copies the database at `from` into the empty file at `to`, and checks the copy.
pub(super) fn copy(
    from: &Path,
    to: &Path,
    check_as: Check,
    cancel: &CancellationToken,
) -> Result<Facts, Failure> {
    let source = open(from)?;
    let journal_mode: String =
        source.pragma_query_value(None, "journal_mode", |row| row.get(0)).map_err(doing("reading"))?;
    let page_size: u32 =
        source.pragma_query_value(None, "page_size", |row| row.get(0)).map_err(doing("reading"))?;
    let mut target = open_copy(to)?;
    let is_wal = journal_mode.eq_ignore_ascii_case("wal");
    let copied = !is_wal && copy_in_steps(&source, &mut target, cancel)?;
    if !copied {
        copy_holding(&source, &mut target, cancel)?;
    }
    drop(target);
    drop(source);
    check(to, check_as)?;
    Ok(Facts { page_size, journal_mode })
}

/// Lets SQLite look a database over.
pub(super) fn check(path: &Path, check: Check) -> Result<(), Failure> {
    let pragma = match check {
        Check::None => return Ok(()),
        Check::Quick => "quick_check",
        Check::Full => "integrity_check",
    };
    let copy = open_copy(path)?;
    let mut findings = Vec::new();
    let checked = copy.pragma_query(None, pragma, |row| {
        let line: String = row.get(0)?;
        if line != "ok" {
            findings.push(line.replace('\n', " "));
        }
        Ok(())
    });
    match checked {
        // So damaged that it cannot even be looked over.
        Err(err) if err.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => {
            findings.push(err.to_string());
        }
        other => other.map_err(doing("checking"))?,
    }
    if findings.is_empty() { Ok(()) } else { Err(Failure::Unsound(findings)) }
}

/// Makes sure that nobody uses a database that is about to be replaced, as far as that can be seen, and that its
/// journals hold nothing. What is no database any more cannot be in use as one.
pub(super) fn make_quiet(path: &Path) -> Result<(), Failure> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let Ok(existing) = Connection::open_with_flags(path, flags) else { return Ok(()) };
    let exclusive = existing
        .busy_timeout(Duration::from_secs(1))
        .and_then(|()| existing.execute_batch("PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT;"));
    match exclusive.as_ref().map_err(rusqlite::Error::sqlite_error_code) {
        Err(Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)) => Err(Failure::InUse),
        _ => Ok(()),
    }
}

/// Opens the source: for reading only, or, when its journal has to be played back first, as a user would.
fn open(path: &Path) -> Result<Connection, Failure> {
    let common = OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let attempt = |flags: OpenFlags| -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(path, flags | common)?;
        connection.busy_timeout(BUSY)?;
        // The first read shows whether it can be read at all.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    };
    match attempt(OpenFlags::SQLITE_OPEN_READ_ONLY) {
        Err(err) if matches!(err.sqlite_error_code(), Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen)) => {
            attempt(OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(doing("opening"))
        }
        other => other.map_err(doing("opening")),
    }
}

/// Opens a copy that is nobody else's: without journal and without syncing, since it is thrown away after a crash.
fn open_copy(path: &Path) -> Result<Connection, Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let path: PathBuf = path.to_owned();
    let copy = Connection::open_with_flags(path, flags).map_err(doing("writing a copy of"))?;
    copy.execute_batch("PRAGMA synchronous=OFF;").map_err(doing("writing a copy of"))?;
    Ok(copy)
}

/// Copies under one read transaction.
fn copy_holding(
    source: &Connection,
    target: &mut Connection,
    cancel: &CancellationToken,
) -> Result<(), Failure> {
    source.execute_batch("BEGIN").map_err(doing("reading"))?;
    // A transaction begins with its first read.
    source.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(doing("reading"))?;
    let backup = Backup::new(source, target).map_err(doing("copying"))?;
    let mut waited = Duration::ZERO;
    loop {
        if cancel.is_cancelled() {
            return Err(Failure::Cancelled);
        }
        match backup.step(PAGES).map_err(doing("copying"))? {
            StepResult::Done => break,
            StepResult::More => {}
            _ => wait(&mut waited)?,
        }
    }
    drop(backup);
    source.execute_batch("ROLLBACK").map_err(doing("reading"))
}

/// Copies in steps between which others may write; returns whether that came to an end.
fn copy_in_steps(
    source: &Connection,
    target: &mut Connection,
    cancel: &CancellationToken,
) -> Result<bool, Failure> {
    let backup = Backup::new(source, target).map_err(doing("copying"))?;
    let (mut restarts, mut remaining, mut waited) = (0, i32::MAX, Duration::ZERO);
    loop {
        if cancel.is_cancelled() {
            return Err(Failure::Cancelled);
        }
        match backup.step(PAGES).map_err(doing("copying"))? {
            StepResult::Done => return Ok(true),
            StepResult::More => {}
            _ => wait(&mut waited)?,
        }
        let progress = backup.progress();
        if progress.remaining > remaining {
            restarts += 1;
            if restarts > RESTARTS {
                return Ok(false);
            }
        }
        remaining = progress.remaining;
    }
}

/// Waits for another's lock, but not for ever.
fn wait(waited: &mut Duration) -> Result<(), Failure> {
    if *waited > BUSY {
        let busy =
            rusqlite::ffi::Error { code: ErrorCode::DatabaseBusy, extended_code: rusqlite::ffi::SQLITE_BUSY };
        return Err(Failure::Sqlite("copying", rusqlite::Error::SqliteFailure(busy, None)));
    }
    std::thread::sleep(PAUSE);
    *waited += PAUSE;
    Ok(())
}
