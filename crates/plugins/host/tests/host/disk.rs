//! Disks: files and their holes, what changes, what is not whole.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use karbor_plugin::{ErrorKind, Severity};
use karbor_plugins_host::Kind;
use serde_json::json;

use crate::machine::{Machine, Vault};

const INVENTORY: &str = r#"
[[disk]]
name = "image"
project = "demo"
path = "{dir}/disk.img"
restore-roots = ["{dir}/restored"]
"#;

/// Makes a disk of 64 MiB with something here and there.
fn make(path: &Path) {
    let file = File::create(path).expect("a file");
    file.set_len(64 << 20).expect("a hole");
    for at in [0, 3 << 20, (17 << 20) + 5, (64 << 20) - 9] {
        file.write_all_at(b"something", at).expect("written");
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o640)).expect("a mode");
}

#[tokio::test]
async fn a_sparse_disk_comes_back_sparse_and_beside_itself() {
    let machine = Machine::new(INVENTORY);
    make(&machine.path("disk.img"));
    fs::create_dir(machine.path("restored")).expect("a directory");
    let vault = Vault::new(&machine, Kind::Disk, "image").await;
    let (checkpoint, outcome) = vault.protect(json!({})).await.expect("protected");
    assert_eq!(outcome.findings, []);
    let restored = vault.restore(checkpoint, json!({})).await.expect("restored").restored.expect("announced");
    let path = Path::new(&restored.name);
    assert_eq!(path.parent(), Some(machine.path("restored").as_path()));
    assert!(fs::read(path).expect("there") == fs::read(machine.path("disk.img")).expect("there"));
    let meta = fs::metadata(path).expect("there");
    assert_eq!(meta.mode() & 0o7777, 0o640);
    assert!(meta.blocks() * 512 < 8 << 20, "{} blocks", meta.blocks());
}

#[tokio::test]
async fn a_disk_is_replaced_only_when_that_is_asked_for() {
    let machine = Machine::new(INVENTORY);
    let disk = machine.path("disk.img");
    make(&disk);
    let original = fs::read(&disk).expect("there");
    let vault = Vault::new(&machine, Kind::Disk, "image").await;
    let (checkpoint, _) = vault.protect(json!({})).await.expect("protected");
    File::options().write(true).open(&disk).expect("there").write_all_at(b"changed", 0).expect("written");
    let err = vault.restore(checkpoint, json!({"in_place": true})).await.expect_err("refused");
    assert_eq!(err.kind(), ErrorKind::Conflict);
    assert!(fs::read(&disk).expect("there") != original);
    vault.restore(checkpoint, json!({"in_place": true, "overwrite": true})).await.expect("restored");
    assert!(fs::read(&disk).expect("there") == original);
    assert_eq!(vault.verify(checkpoint, json!({"deep": true})).await.expect("verified").findings, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_changes_while_it_is_read_is_refused_or_told() {
    let machine = Machine::new(INVENTORY);
    make(&machine.path("disk.img"));
    let vault = Vault::new(&machine, Kind::Disk, "image").await;
    let (stop, path) = (AtomicBool::new(false), machine.path("disk.img"));
    let (refused, told) = std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = File::options().write(true).open(&path).expect("there");
            for n in 0u64.. {
                file.write_all_at(&n.to_be_bytes(), (n % 64) << 20).expect("written");
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let work = async {
            let refused = vault.protect(json!({})).await;
            (refused, vault.protect(json!({"allow_changes": true})).await)
        };
        let both = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(work));
        stop.store(true, Ordering::Relaxed);
        both
    });
    let err = refused.expect_err("it changed");
    assert_eq!(err.kind(), ErrorKind::Changed);
    assert!(
        err.message().contains("disk.img") && err.message().ends_with("or protect with allow_changes"),
        "{err}"
    );
    let (_, outcome) = told.expect("allowed");
    assert_eq!(outcome.findings.len(), 1);
    assert_eq!(outcome.findings[0].severity, Severity::Warning);
}

#[tokio::test]
async fn a_qcow2_file_that_is_not_whole_alone_is_refused() {
    let machine = Machine::new(INVENTORY);
    let vault = Vault::new(&machine, Kind::Disk, "image").await;
    let mut header = vec![0; 4096];
    header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    for (at, byte, kind, reason) in [
        (15, 1, ErrorKind::Unsupported, "backing file"),
        (79, 4, ErrorKind::Unsupported, "another file"),
        (79, 1, ErrorKind::Conflict, "was not closed"),
    ] {
        let mut bytes = header.clone();
        bytes[at] = byte;
        fs::write(machine.path("disk.img"), &bytes).expect("written");
        let err = vault.protect(json!({})).await.expect_err(reason);
        assert_eq!(err.kind(), kind);
        assert!(err.message().contains(reason), "{err}");
    }
    fs::write(machine.path("disk.img"), &header).expect("written");
    let (checkpoint, _) = vault.protect(json!({})).await.expect("protected");
    fs::remove_file(machine.path("disk.img")).expect("removed");
    vault.restore(checkpoint, json!({"in_place": true})).await.expect("restored");
    assert_eq!(fs::read(machine.path("disk.img")).expect("there"), header);
}

#[tokio::test]
async fn what_is_no_disk_is_refused() {
    let machine = Machine::new(INVENTORY);
    let vault = Vault::new(&machine, Kind::Disk, "image").await;
    fs::create_dir(machine.path("disk.img")).expect("a directory");
    let err = vault.protect(json!({})).await.expect_err("a directory");
    assert_eq!(err.kind(), ErrorKind::Invalid);
    assert!(err.message().contains("neither a file nor a block device"), "{err}");
}
