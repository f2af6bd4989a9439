//! The administrator's commands: their order, and that the one after always follows the one before.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use karbor_plugin::{ErrorKind, Hook, PlannedEffect, TaskVault};
use karbor_plugins_host::Kind;
use serde_json::json;

use crate::machine::{Machine, Operation, Vault, open_entries};

const INVENTORY: &str = r#"
[[disk]]
name = "image"
project = "demo"
path = "{dir}/disk.img"
before = { command = ["{dir}/note", "before"], timeout-seconds = 1 }
after = { command = ["{dir}/note", "after"] }
release = "copied"
"#;

/// A machine whose commands write down that they were run, and then do `and`.
fn machine(and: &str) -> Machine {
    let machine = Machine::new(INVENTORY);
    fs::write(machine.path("disk.img"), "a disk").expect("written");
    let log = machine.path("log").display().to_string();
    let script = format!("#!/bin/sh\necho $1 $KARBOR_PHASE $KARBOR_NAME >> {log}\n{and}\n");
    fs::write(machine.path("note"), script).expect("written");
    fs::set_permissions(machine.path("note"), fs::Permissions::from_mode(0o755)).expect("a mode");
    machine
}

fn log(machine: &Machine) -> Vec<String> {
    let text = fs::read_to_string(machine.path("log")).unwrap_or_default();
    let mut words: Vec<String> = text.lines().map(str::to_owned).collect();
    for word in &mut words {
        let phase = word.split(' ').next().unwrap_or_default().to_owned();
        assert_eq!(*word, format!("{phase} {phase} image"));
        *word = phase;
    }
    words
}

#[tokio::test]
async fn the_command_after_runs_once_the_bytes_are_copied_or_once_all_is_prepared() {
    for (release, last) in [("copied", Hook::Complete), ("prepared", Hook::PrepareFinish)] {
        let machine = machine("");
        machine.write_inventory(&INVENTORY.replace("copied", release));
        let vault = Vault::new(&machine, Kind::Disk, "image").await;
        let operation = vault.protecting(json!({}));
        let (_writer, task) = vault.begin(&operation).await;
        for hook in Hook::ALL {
            vault.hooks(&[*hook], &operation, &task).await.expect("run");
            let want: &[&str] = if *hook < last { &["before"] } else { &["before", "after"] };
            assert_eq!(log(&machine), want, "{release}: {hook}");
        }
        assert!(open_entries(&operation).await.is_empty());
    }
}

#[tokio::test]
async fn the_command_after_follows_a_failure_a_crash_and_a_cancellation() {
    // What stops the operation between the two commands.
    let ways: [fn(&Machine, &Operation); 3] = [
        |machine, _| fs::remove_file(machine.path("disk.img")).expect("removed"),
        |_, operation| operation.cancel.cancel(),
        |_, _| {},
    ];
    for stop in ways {
        let machine = machine("");
        let vault = Vault::new(&machine, Kind::Disk, "image").await;
        let operation = vault.protecting(json!({}));
        let (_writer, task) = vault.begin(&operation).await;
        vault.hooks(&[Hook::PrepareBegin], &operation, &task).await.expect("run");
        stop(&machine, &operation);
        // The second way's main hook and the first's fail; the third's is never run.
        let _ = vault.hooks(&[Hook::Main], &operation, &task).await;
        assert_eq!(log(&machine), ["before"]);
        vault.clean_up(&operation, &TaskVault::None).await.expect("cleaned up");
        assert_eq!(log(&machine), ["before", "after"]);
        assert!(open_entries(&operation).await.is_empty());
    }
}

#[tokio::test]
async fn an_operation_that_was_killed_goes_on_with_both_commands() {
    let machine = machine("");
    let vault = Vault::new(&machine, Kind::Disk, "image").await;
    let operation = vault.protecting(json!({}));
    let (_writer, task) = vault.begin(&operation).await;
    vault.hooks(&[Hook::PrepareBegin], &operation, &task).await.expect("run");
    // The next process knows the ledger only.
    vault.protect_as(&operation).await.expect("protected");
    assert_eq!(log(&machine), ["before", "before", "after"]);
    assert!(open_entries(&operation).await.is_empty());
}

#[tokio::test]
async fn a_command_before_that_fails_or_hangs_is_followed_by_the_one_after() {
    let ways = [
        ("[ $1 = after ] || exit 3", "it ended with status 3"),
        ("[ $1 = after ] || sleep 100", "within 1 seconds"),
    ];
    for (and, reason) in ways {
        let machine = machine(and);
        let vault = Vault::new(&machine, Kind::Disk, "image").await;
        let operation = vault.protecting(json!({}));
        let err = vault.protect_as(&operation).await.expect_err("failed");
        assert_eq!(err.kind(), ErrorKind::Other);
        assert!(err.message().starts_with("the command before protecting `image`"), "{err}");
        assert!(err.message().contains(reason), "{err}");
        assert_eq!(log(&machine), ["before", "after"]);
        assert!(open_entries(&operation).await.is_empty());
    }
}

#[tokio::test]
async fn a_command_after_that_fails_is_tried_again_by_cleaning_up() {
    let machine = machine(
        "[ $1 = before ] || [ -e {dir}/mended ] || exit 1".replace("{dir}", "$(dirname $0)").as_str(),
    );
    let vault = Vault::new(&machine, Kind::Disk, "image").await;
    let operation = vault.protecting(json!({}));
    let err = vault.protect_as(&operation).await.expect_err("failed");
    assert!(err.message().starts_with("the command after protecting `image` failed"), "{err}");
    assert_eq!(open_entries(&operation).await.len(), 1);
    assert!(vault.clean_up(&operation, &TaskVault::None).await.is_err());
    fs::write(machine.path("mended"), "").expect("written");
    vault.clean_up(&operation, &TaskVault::None).await.expect("cleaned up");
    assert!(open_entries(&operation).await.is_empty());
}

#[tokio::test]
async fn a_dry_run_tells_of_commands_and_runs_none() {
    let machine = machine("");
    let vault = Vault::new(&machine, Kind::Disk, "image").await;
    let operation = Operation { dry_run: true, ..vault.protecting(json!({})) };
    let outcome = vault.hooks(Hook::ALL, &operation, &TaskVault::None).await.expect("a plan");
    let effects: Vec<PlannedEffect> = outcome.plan.iter().map(|action| action.effect).collect();
    assert_eq!(effects, [PlannedEffect::Run, PlannedEffect::Run]);
    assert!(log(&machine).is_empty());
}
