//! Directories: what is refused, what is replaced, what is told.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use karbor_bank::wrap::{Fault, Faulty, Operation as Call, Rule};
use karbor_bank::{ErrorKind as BankError, MemoryBank};
use karbor_plugin::conformance::drop_after;
use karbor_plugin::{ErrorKind, PlannedEffect, Severity};
use karbor_plugins_host::Kind;
use serde_json::json;

use crate::machine::{Machine, Vault};
use crate::tree::{self, Telling};

const INVENTORY: &str = r#"
[[directory]]
name = "web"
project = "demo"
path = "{dir}/www"
"#;

fn machine() -> Machine {
    let machine = Machine::new(INVENTORY);
    tree::make(&machine.path("www"));
    machine
}

fn everything(path: &Path) -> String {
    tree::describe(path, Telling::Everything)
}

#[tokio::test]
async fn a_restore_over_what_is_there_is_refused_and_changes_nothing() {
    let machine = machine();
    let vault = Vault::new(&machine, Kind::Directory, "web").await;
    let (checkpoint, _) = vault.protect(json!({})).await.expect("protected");
    fs::write(machine.path("www/docs/a.txt"), "changed since").expect("written");
    let before = everything(&machine.data());
    let err = vault.restore(checkpoint, json!({"in_place": true})).await.expect_err("refused");
    assert_eq!(err.kind(), ErrorKind::Conflict);
    assert!(err.message().ends_with(
        "www is a directory that is not empty already; restore with overwrite to replace it, or elsewhere with path"
    ));
    assert_eq!(everything(&machine.data()), before);
    let plan = vault.plan(checkpoint, json!({"in_place": true})).await.expect("a plan").plan;
    assert_eq!(plan[0].effect, PlannedEffect::Overwrite);
    assert_eq!(plan[0].problem.as_deref(), Some(err.message()));
}

#[tokio::test]
async fn overwriting_replaces_the_whole_directory() {
    let machine = machine();
    let original = everything(&machine.path("www"));
    let vault = Vault::new(&machine, Kind::Directory, "web").await;
    let (checkpoint, outcome) = vault.protect(json!({})).await.expect("protected");
    assert_eq!(outcome.findings, []);
    fs::write(machine.path("www/docs/a.txt"), "changed since").expect("written");
    fs::write(machine.path("www/new"), "new since").expect("written");
    fs::remove_file(machine.path("www/bin/tool")).expect("removed");
    let outcome =
        vault.restore(checkpoint, json!({"in_place": true, "overwrite": true})).await.expect("restored");
    assert_eq!(outcome.restored.expect("announced").key, vault.resource.key);
    assert_eq!(everything(&machine.path("www")), original);
    let names: Vec<_> = fs::read_dir(machine.data()).expect("a list").collect();
    assert_eq!(names.len(), 1, "what was replaced is gone: {names:?}");
}

#[tokio::test]
async fn overwriting_that_is_dropped_anywhere_leaves_the_old_or_the_new_and_goes_on() {
    let machine = machine();
    let original = everything(&machine.path("www"));
    let vault = Vault::new(&machine, Kind::Directory, "web").await;
    let (checkpoint, _) = vault.protect(json!({})).await.expect("protected");
    for waits in 0.. {
        fs::write(machine.path("www/docs/a.txt"), "changed since").expect("written");
        let changed = everything(&machine.path("www"));
        let operation = vault.restoring(checkpoint, json!({"in_place": true, "overwrite": true}));
        let ended = drop_after(waits, vault.restore_as(&operation)).await.is_some();
        let now = everything(&machine.path("www"));
        assert!(now == changed || now == original, "after {waits} waits:\n{now}");
        vault.restore_as(&operation).await.expect("restored at last");
        vault.clean_up(&operation, &vault.read(checkpoint).await).await.expect("cleaned up");
        assert_eq!(everything(&machine.path("www")), original, "after {waits} waits");
        assert_eq!(fs::read_dir(machine.data()).expect("a list").count(), 1, "after {waits} waits");
        if ended {
            break;
        }
    }
}

#[tokio::test]
async fn beside_is_the_default_and_has_an_identity_of_its_own() {
    let machine = machine();
    let vault = Vault::new(&machine, Kind::Directory, "web").await;
    let (checkpoint, _) = vault.protect(json!({})).await.expect("protected");
    let restored = vault.restore(checkpoint, json!({})).await.expect("restored").restored.expect("announced");
    assert!(
        restored.name.starts_with(&format!("{}.restored-", machine.path("www").display())),
        "{restored:?}"
    );
    assert_ne!(restored.key, vault.resource.key);
    assert_eq!(everything(Path::new(&restored.name)), everything(&machine.path("www")));
    let path = machine.path("www.again").display().to_string();
    let again = vault
        .restore(checkpoint, json!({"path": path}))
        .await
        .expect("restored")
        .restored
        .expect("announced");
    assert_eq!(again.name, path);
    assert_ne!(again.key, restored.key);
}

#[tokio::test]
async fn merging_keeps_what_is_there_and_can_bring_back_one_file() {
    let machine = machine();
    let vault = Vault::new(&machine, Kind::Directory, "web").await;
    let (checkpoint, _) = vault.protect(json!({})).await.expect("protected");
    fs::write(machine.path("www/new"), "new since").expect("written");
    fs::write(machine.path("www/docs/empty"), "changed since").expect("written");
    fs::remove_file(machine.path("www/docs/deep/big")).expect("removed");
    let only = json!({"in_place": true, "only": "docs/deep/big"});
    let err = vault.restore(checkpoint, only).await.expect_err("refused");
    assert_eq!(err.kind(), ErrorKind::Invalid);
    let only = json!({"in_place": true, "merge": true, "only": "docs/deep/big"});
    vault.restore(checkpoint, only).await.expect("restored");
    assert_eq!(fs::read(machine.path("www/docs/deep/big")).expect("there").len(), 3_000_000);
    assert_eq!(fs::read(machine.path("www/docs/empty")).expect("there"), b"changed since");
    vault.restore(checkpoint, json!({"in_place": true, "merge": true})).await.expect("restored");
    assert_eq!(fs::read(machine.path("www/docs/empty")).expect("there"), b"");
    assert_eq!(fs::read(machine.path("www/new")).expect("there"), b"new since");
    let absent = json!({"only": "docs/absent"});
    let err = vault.restore(checkpoint, absent).await.expect_err("not there");
    assert_eq!(err.message(), "there is no `docs/absent` in the protected directory");
    assert_eq!(fs::read_dir(machine.data()).expect("a list").count(), 1);
}

#[tokio::test]
async fn a_missing_directory_is_told_with_what_to_do() {
    let machine = Machine::new(INVENTORY);
    let vault = Vault::new(&machine, Kind::Directory, "web").await;
    let err = vault.protect(json!({})).await.expect_err("missing");
    assert_eq!(err.kind(), ErrorKind::NotFound);
    assert!(
        err.message().ends_with("www does not exist; put it back, or correct the host's inventory"),
        "{err}"
    );
    fs::write(machine.path("www"), "a file").expect("written");
    let err = vault.protect(json!({})).await.expect_err("no directory");
    assert!(err.message().contains("www"), "{err}");
}

#[tokio::test]
async fn a_full_bank_is_told_and_another_attempt_goes_on() {
    let machine = machine();
    let bank = Arc::new(Faulty::new(Arc::new(MemoryBank::new()), 1));
    let vault = Vault::on(&machine, Kind::Directory, "web", Arc::<Faulty>::clone(&bank)).await;
    bank.add(Rule::new(Fault::Refuse(BankError::Full)).on(Call::Put).containing("/packs/"));
    let operation = vault.protecting(json!({}));
    let err = vault.protect_as(&operation).await.expect_err("full");
    assert_eq!(err.kind(), ErrorKind::NoSpace);
    assert!(err.message().starts_with("the bank is full: free some space"), "{err}");
    bank.heal();
    vault.protect_as(&operation).await.expect("protected at last");
}

/// What only a user who is not root meets; run by another test.
async fn unreadable() {
    let machine = machine();
    let vault = Vault::new(&machine, Kind::Directory, "web").await;
    let secret = machine.path("www/docs/deep");
    let mode = |mode| {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).expect("a mode");
    };
    mode(0);
    let err = vault.protect(json!({})).await.expect_err("unreadable");
    assert_eq!(err.kind(), ErrorKind::Denied);
    assert!(err.message().contains("www/docs/deep failed: Permission denied"), "{err}");
    assert!(err.message().ends_with("or protect with skip_unreadable"), "{err}");
    let (checkpoint, outcome) = vault.protect(json!({"skip_unreadable": true})).await.expect("protected");
    assert_eq!(outcome.findings.len(), 1, "{:?}", outcome.findings);
    assert_eq!(outcome.findings[0].severity, Severity::Warning);
    assert_eq!(outcome.findings[0].subject, "docs/deep");
    vault.restore(checkpoint, json!({})).await.expect("restored");
    mode(0o700);
}

#[tokio::test]
async fn what_may_not_be_read_ends_the_work_or_is_told() {
    if !rustix::process::geteuid().is_root() {
        return unreadable().await;
    }
    // Root may read everything: run this test again as somebody else, from a place that he can reach.
    let directory = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::chown(directory.path(), Some(65534), Some(65534)).expect("given away");
    let program = directory.path().join("test");
    fs::copy(std::env::current_exe().expect("a program"), &program).expect("copied");
    std::os::unix::fs::chown(&program, Some(65534), Some(65534)).expect("given away");
    let mut command = Command::new(&program);
    command.args(["--exact", "directory::what_may_not_be_read_ends_the_work_or_is_told", "--nocapture"]);
    command.env("TMPDIR", directory.path()).current_dir("/").uid(65534).gid(65534);
    let output = command.output().expect("run");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
