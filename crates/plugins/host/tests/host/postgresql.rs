//! PostgreSQL: replacing under load, names, passwords, processes that die.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use karbor_plugin::conformance::drop_after;
use karbor_plugin::{ErrorKind, PlannedEffect};
use karbor_plugins_host::Kind;
use serde_json::json;

use crate::machine::{Machine, Vault, count_waits};
use crate::server::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_in_use_is_replaced_only_when_that_is_asked_for() {
    let server = Server::start();
    let machine = Machine::new(&server.inventory());
    let vault = Vault::new(&machine, Kind::PostgreSql, "shop").await;
    let original = server.dump("shop");
    let (checkpoint, outcome) = vault.protect(json!({})).await.expect("protected");
    assert_eq!(outcome.findings, []);
    server.sql("shop", "DELETE FROM orders; CREATE TABLE added (x int)");
    let changed = server.dump("shop");

    let err = vault.restore(checkpoint, json!({"in_place": true})).await.expect_err("there");
    assert_eq!(err.kind(), ErrorKind::Conflict);
    assert!(err.message().starts_with("the database shop exists already; restore with overwrite"), "{err}");
    let plan =
        vault.plan(checkpoint, json!({"in_place": true, "overwrite": true})).await.expect("a plan").plan;
    assert_eq!((plan[0].effect, plan[0].problem.as_ref()), (PlannedEffect::Overwrite, None));
    assert_eq!(server.dump("shop"), changed);

    // Somebody is connected all the time.
    let mut session = server.session("shop");
    let overwrite = json!({"in_place": true, "overwrite": true});
    let restored = vault.restore(checkpoint, overwrite).await.expect("restored").restored.expect("announced");
    assert_eq!(restored.key, vault.resource.key);
    assert_eq!(server.dump("shop"), original);
    assert_eq!(server.databases(), ["postgres", "shop"]);
    session.kill().expect("ended");
    session.wait().expect("ended");

    // Beside: under a name that the inventory allows.
    let beside = vault.restore(checkpoint, json!({})).await.expect("restored").restored.expect("announced");
    assert!(beside.name.starts_with("shop_restored_"), "{beside:?}");
    assert_eq!(server.dump(&beside.name), original);
    vault.restore(checkpoint, json!({"database": "shop_2"})).await.expect("restored");
    assert_eq!(server.dump("shop_2"), original);
    for (parameters, kind, reason) in [
        (json!({"database": "shop_2", "overwrite": true}), ErrorKind::Conflict, "which is never replaced"),
        (json!({"database": "other"}), ErrorKind::Denied, "allowed is: shop_*"),
        (json!({"database": "shop"}), ErrorKind::Denied, "kept for something else"),
        (json!({"database": "postgres"}), ErrorKind::Denied, "allowed is: shop_*"),
        (json!({"database": "shop_3", "in_place": true}), ErrorKind::Invalid, "not both"),
    ] {
        let err = vault.restore(checkpoint, parameters).await.expect_err(reason);
        assert_eq!(err.kind(), kind, "{err}");
        assert!(err.message().contains(reason), "{err}");
    }
    assert_eq!(vault.verify(checkpoint, json!({"deep": true})).await.expect("verified").findings, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replacing_that_is_dropped_anywhere_leaves_the_old_or_the_new() {
    let server = Server::start();
    let machine = Machine::new(&server.inventory());
    let vault = Vault::new(&machine, Kind::PostgreSql, "shop").await;
    let original = server.dump("shop");
    let (checkpoint, _) = vault.protect(json!({})).await.expect("protected");
    let replacing = || vault.restoring(checkpoint, json!({"in_place": true, "overwrite": true}));
    let (all, restored) = count_waits(vault.restore_as(&replacing())).await;
    restored.expect("restored");
    // While the dump is loaded each wait is like the next; what matters is before and after.
    let points = (0..6).chain((6..all).step_by(1 + all / 4)).chain(all.saturating_sub(14)..all + 2);
    let mut ends = 0;
    for (number, waits) in points.enumerate() {
        server.sql("shop", "CREATE TABLE IF NOT EXISTS added (x int)");
        let changed = server.dump("shop");
        let operation = replacing();
        let ended = drop_after(waits, vault.restore_as(&operation)).await.is_some();
        ends += usize::from(ended);
        if number % 2 == 0 {
            vault.restore_as(&operation).await.expect("restored at last");
            assert_eq!(server.dump("shop"), original, "after {waits} waits");
        }
        vault.clean_up(&operation, &vault.read(checkpoint).await).await.expect("cleaned up");
        assert_eq!(server.databases(), ["postgres", "shop"], "after {waits} waits");
        let now = server.dump("shop");
        assert!(now == changed || now == original, "after {waits} waits:\n{now}");
    }
    assert!(ends < 20, "nearly every restore came to its end before it was dropped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_failure_of_a_server_is_told_with_what_to_do() {
    let mut server = Server::start();
    let inventory = server.inventory();
    let machine = Machine::new(&inventory);
    let vault = Vault::new(&machine, Kind::PostgreSql, "shop").await;
    let (checkpoint, _) = vault.protect(json!({})).await.expect("protected");

    let password = machine.data().join("password");
    fs::write(&password, "wrong\n").expect("written");
    let from_file = format!("password-file = \"{}\"", password.display());
    let with_file = inventory.replace("password-env = \"TEST_PASSWORD\"", &from_file);
    machine.write_inventory(&with_file);
    let err = vault.protect(json!({})).await.expect_err("wrong password");
    assert_eq!(err.kind(), ErrorKind::Denied);
    assert!(err.message().contains("password authentication failed"), "{err}");
    assert!(err.message().ends_with("correct the password that the inventory refers to"), "{err}");
    fs::write(&password, crate::machine::PASSWORD).expect("written");
    vault.protect(json!({})).await.expect("the right password");
    machine.write_inventory(&inventory.replace("TEST_PASSWORD", "ABSENT"));
    let err = vault.protect(json!({})).await.expect_err("no password");
    assert!(err.message().contains("environment has no ABSENT"), "{err}");

    machine.write_inventory(&inventory.replace("database = \"shop\"", "database = \"absent\""));
    let err = vault.protect(json!({})).await.expect_err("no database");
    assert_eq!(err.kind(), ErrorKind::NotFound);
    assert!(err.message().contains("\"absent\" does not exist"), "{err}");

    // The roles of the source are not on every server.
    machine.write_inventory(&inventory);
    server.sql("postgres", "DROP DATABASE shop");
    server.sql("postgres", "ALTER ROLE clerk RENAME TO someone");
    let err = vault.restore(checkpoint, json!({"in_place": true})).await.expect_err("no such role");
    assert_eq!(err.kind(), ErrorKind::Invalid);
    assert!(err.message().contains("role \"clerk\" does not exist"), "{err}");
    assert!(err.message().ends_with("create that role first, or restore with no_owner"), "{err}");
    assert_eq!(server.databases(), ["postgres"]);
    vault.restore(checkpoint, json!({"in_place": true, "no_owner": true})).await.expect("restored");
    assert_eq!(server.sql("shop", "SELECT count(*) FROM orders").trim(), "5000");

    server.stop();
    let err = vault.protect(json!({})).await.expect_err("stopped");
    assert_eq!(err.kind(), ErrorKind::Unavailable);
    assert!(err.message().contains("is a PostgreSQL server running at"), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_whose_process_dies_is_no_dump() {
    let server = Server::start();
    let machine = Machine::new(&server.inventory());
    let vault = Vault::new(&machine, Kind::PostgreSql, "shop").await;
    let programs = machine.data().join("bin");
    fs::create_dir(&programs).expect("a directory");
    let ways = [
        ("exit 1", "it ended with status 1"),
        ("kill -9 $$", "it was ended by signal 9"),
        ("echo 'pg_dump: error: out of luck' >&2; exit 1", "error: out of luck"),
    ];
    for (way, reason) in ways {
        let real = server.programs().join("pg_dump");
        let script = format!("#!/bin/sh\n{} \"$@\" | head -c 100000\n{way}\n", real.display());
        fs::write(programs.join("pg_dump"), script).expect("written");
        fs::set_permissions(programs.join("pg_dump"), fs::Permissions::from_mode(0o755)).expect("a mode");
        let inventory = server.inventory();
        let bin_dir = format!("bin-dir = \"{}\"", server.programs().display());
        machine.write_inventory(&inventory.replace(&bin_dir, "bin-dir = \"{dir}/bin\""));
        let err = vault.protect(json!({})).await.expect_err(way);
        assert!(err.message().contains(reason), "{way}: {err}");
    }
    fs::remove_file(programs.join("pg_dump")).expect("removed");
    let err = vault.protect(json!({})).await.expect_err("not installed");
    assert_eq!(err.kind(), ErrorKind::Unsupported);
    assert!(err.message().contains("pg_dump is not installed"), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_database_is_little_to_store() {
    let server = Server::start();
    let machine = Machine::new(&server.inventory());
    server.sql(
        "shop",
        "INSERT INTO orders (customer, total) SELECT 1 + n % 200, n FROM generate_series(1, 600000) n",
    );
    let vault = Vault::new(&machine, Kind::PostgreSql, "shop").await;
    let store = async |operation| {
        let (writer, task) = vault.begin(&operation).await;
        vault.hooks(karbor_plugin::Hook::ALL, &operation, &task).await.expect("stored");
        writer.flush().await.expect("flushed");
        writer.stats().new_bytes
    };
    let first = store(vault.protecting(json!({}))).await;
    let second = store(vault.protecting(json!({}))).await;
    // What changes is the header, and so the chunk that it is in.
    assert!(first > 10_000_000 && second < first / 4, "{first} and then {second}");
}
