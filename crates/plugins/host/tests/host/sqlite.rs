//! SQLite databases that are written to while they are protected, and the journals of those that are replaced.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use karbor_plugin::ErrorKind;
use karbor_plugins_host::Kind;
use rusqlite::Connection;
use serde_json::json;

use crate::machine::{Machine, Vault, open_entries};

const INVENTORY: &str = r#"
[[sqlite]]
name = "bank"
project = "demo"
path = "{dir}/bank.db"
"#;

/// Makes a database of accounts whose balances are 1000 together, and some bulk.
fn make(path: &Path, journal_mode: &str) -> Connection {
    let database = Connection::open(path).expect("a database");
    database.busy_timeout(Duration::from_secs(60)).expect("set");
    let mode: String =
        database.pragma_update_and_check(None, "journal_mode", journal_mode, |row| row.get(0)).expect("set");
    assert_eq!(mode, journal_mode);
    database
        .execute_batch(
            "PRAGMA synchronous=OFF; CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER);
             CREATE TABLE bulk (id INTEGER PRIMARY KEY, text TEXT);
             INSERT INTO accounts VALUES (1, 500), (2, 500);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000)
             INSERT INTO bulk SELECT i, hex(randomblob(40)) FROM n;",
        )
        .expect("filled");
    database
}

/// Moves money between the accounts, and touches the bulk, in one transaction.
fn transfer(database: &Connection, round: u64) {
    let amount = i64::try_from(round % 7).expect("small");
    database
        .execute_batch(&format!(
            "BEGIN IMMEDIATE;
             UPDATE accounts SET balance = balance - {amount} WHERE id = 1;
             UPDATE bulk SET text = 'round {round}' WHERE id = 1 + {round} * 7919 % 50000;
             INSERT INTO bulk (text) VALUES (hex(randomblob(200)));
             UPDATE accounts SET balance = balance + {amount} WHERE id = 2;
             COMMIT;"
        ))
        .expect("a transfer");
}

/// Opens a database, and sees that it is one state that was committed.
fn check(path: &Path) -> i64 {
    let database = Connection::open(path).expect("a database");
    let sound: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a check");
    assert_eq!(sound, "ok");
    let sum: i64 =
        database.query_row("SELECT sum(balance) FROM accounts", [], |row| row.get(0)).expect("a sum");
    assert_eq!(sum, 1000);
    database.query_row("SELECT count(*) FROM bulk", [], |row| row.get(0)).expect("a count")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_written_to_is_protected_as_one_state() {
    for journal_mode in ["wal", "delete"] {
        let machine = Machine::new(INVENTORY);
        let database = make(&machine.path("bank.db"), journal_mode);
        let vault = Vault::new(&machine, Kind::Sqlite, "bank").await;
        let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
        let (checkpoint, during) = std::thread::scope(|scope| {
            let (stop, rounds) = (&stop, &rounds);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    transfer(&database, rounds.fetch_add(1, Ordering::Relaxed));
                }
            });
            while rounds.load(Ordering::Relaxed) < 20 {
                std::thread::yield_now();
            }
            let before = rounds.load(Ordering::Relaxed);
            let work = vault.protect(json!({"check": "full"}));
            let protected = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(work));
            let during = rounds.load(Ordering::Relaxed) - before;
            stop.store(true, Ordering::Relaxed);
            (protected.expect("protected").0, during)
        });
        assert!(during > 0, "{journal_mode}: nothing was written while it was protected");
        let restored =
            vault.restore(checkpoint, json!({})).await.expect("restored").restored.expect("announced");
        assert!(check(Path::new(&restored.name)) > 50_000, "{journal_mode}");
        assert!(fs::read_dir(machine.spool()).expect("a list").next().is_none(), "{journal_mode}");
    }
}

#[tokio::test]
async fn the_journal_of_a_replaced_database_is_not_played_into_the_new_one() {
    let machine = Machine::new(INVENTORY);
    let path = machine.path("bank.db");
    let database = make(&path, "wal");
    let vault = Vault::new(&machine, Kind::Sqlite, "bank").await;
    let (checkpoint, _) = vault.protect(json!({})).await.expect("protected");
    for round in 0..50 {
        transfer(&database, round);
    }
    // A process that was killed: its database and what was in its journal stay behind.
    for ending in ["", "-wal"] {
        fs::copy(machine.path(&format!("bank.db{ending}")), machine.path(&format!("left{ending}")))
            .expect("copied");
    }
    drop(database);
    for ending in ["", "-wal"] {
        fs::rename(machine.path(&format!("left{ending}")), machine.path(&format!("bank.db{ending}")))
            .expect("moved");
    }
    vault.restore(checkpoint, json!({"in_place": true, "overwrite": true})).await.expect("restored");
    assert_eq!(check(&path), 50_000);
    // What is no database any more is replaced too, and its journals with it.
    fs::write(&path, "no database at all").expect("written");
    fs::write(machine.path("bank.db-journal"), "nonsense").expect("written");
    vault.restore(checkpoint, json!({"in_place": true, "overwrite": true})).await.expect("restored");
    assert_eq!(check(&path), 50_000);
    assert!(!machine.path("bank.db-journal").exists());
}

#[tokio::test]
async fn a_database_in_use_is_not_replaced() {
    let machine = Machine::new(INVENTORY);
    let path = machine.path("bank.db");
    let database = make(&path, "wal");
    let vault = Vault::new(&machine, Kind::Sqlite, "bank").await;
    let (checkpoint, _) = vault.protect(json!({})).await.expect("protected");
    let err = vault.restore(checkpoint, json!({"in_place": true})).await.expect_err("there");
    assert_eq!(err.kind(), ErrorKind::Conflict);
    let overwrite = vault.restoring(checkpoint, json!({"in_place": true, "overwrite": true}));
    let err = vault.restore_as(&overwrite).await.expect_err("in use");
    assert_eq!(err.kind(), ErrorKind::Conflict);
    assert!(err.message().contains("is in use; stop what uses it"), "{err}");
    assert!(open_entries(&overwrite).await.is_empty());
    transfer(&database, 1);
    drop(database);
    vault.restore_as(&overwrite).await.expect("restored");
    assert_eq!(check(&path), 50_000);
}

#[tokio::test]
async fn what_cannot_be_copied_is_told_with_what_to_do() {
    let machine = Machine::new(INVENTORY);
    let path = machine.path("bank.db");
    let vault = Vault::new(&machine, Kind::Sqlite, "bank").await;
    fs::write(&path, vec![7; 8192]).expect("written");
    let operation = vault.protecting(json!({}));
    let err = vault.protect_as(&operation).await.expect_err("no database");
    assert_eq!(err.kind(), ErrorKind::Invalid);
    assert!(err.message().contains("it is no SQLite database, or an encrypted one"), "{err}");
    assert!(open_entries(&operation).await.is_empty());

    fs::remove_file(&path).expect("removed");
    drop(make(&path, "delete"));
    let mut bytes = fs::read(&path).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 40_000].fill(0xA5);
    fs::write(&path, &bytes).expect("written");
    let err = vault.protect(json!({})).await.expect_err("damaged");
    assert_eq!(err.kind(), ErrorKind::Damaged);
    assert!(err.message().contains("bank.db is damaged"), "{err}");
    let (checkpoint, _) = vault.protect(json!({"check": "none"})).await.expect("as it is");
    let verified = vault.verify(checkpoint, json!({"deep": true})).await.expect("looked at");
    assert_eq!(verified.findings.len(), 1, "{:?}", verified.findings);

    fs::rename(&path, machine.path("elsewhere.db")).expect("moved");
    std::os::unix::fs::symlink(machine.path("elsewhere.db"), &path).expect("a link");
    let err = vault.protect(json!({})).await.expect_err("a link");
    assert!(err.message().contains("symbolic link"), "{err}");
}

#[tokio::test]
async fn a_small_change_is_little_to_store() {
    let machine = Machine::new(INVENTORY);
    let database = make(&machine.path("bank.db"), "wal");
    let vault = Vault::new(&machine, Kind::Sqlite, "bank").await;
    let store = async |operation| {
        let (writer, task) = vault.begin(&operation).await;
        vault.hooks(karbor_plugin::Hook::ALL, &operation, &task).await.expect("stored");
        writer.flush().await.expect("flushed");
        writer.stats().new_bytes
    };
    let first = store(vault.protecting(json!({}))).await;
    transfer(&database, 1);
    let second = store(vault.protecting(json!({}))).await;
    assert!(first > 4_000_000 && second < first / 5, "{first} and then {second}");
}
