//! Trees through a real vault on a bank in memory: what comes back is what went in.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use karbor_bank::{Bank, MemoryBank};
use karbor_tree::{BackupOptions, Error, Overwrite, RestoreOptions, TreeReport};
use karbor_types::{AccountId, CheckpointId, Epoch, Instant, ResourceKey};
use karbor_vault::{
    Account, AccountOptions, BeginOptions, CheckpointReader, MasterKey, SessionId, WriteStats,
};
use proptest::prelude::*;
use uuid::Uuid;

struct World {
    account: Account,
    key: ResourceKey,
    _cache: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let bank: Arc<dyn Bank> = Arc::new(MemoryBank::default());
        let cache = tempfile::tempdir().expect("a cache directory");
        let options =
            AccountOptions { cache_dir: Some(cache.path().to_owned()), ..AccountOptions::default() };
        let id = AccountId::new("a").expect("valid");
        let account = Account::open_or_create(bank, id, &[MasterKey::from_bytes([7; 32])], options).await;
        Self {
            account: account.expect("an account"),
            key: ResourceKey::new("Host::Directory", "d"),
            _cache: cache,
        }
    }

    async fn backup(
        &self,
        root: &Path,
        base: Option<CheckpointId>,
    ) -> (CheckpointId, TreeReport, WriteStats) {
        let id = CheckpointId(Uuid::new_v4());
        let begin = BeginOptions { base };
        let writer = self.account.begin(&SessionId::new(id.0, Epoch(1)), &begin).await.expect("begins");
        let base = match base {
            Some(base) => Some(Arc::new(self.account.read(base).await.expect("the base opens"))),
            None => None,
        };
        let options = BackupOptions { base, ..BackupOptions::default() };
        let report =
            karbor_tree::backup(root, &writer.resource(&self.key), &options).await.expect("backs up");
        writer.commit(id, Instant::from_micros(0), serde_json::Value::Null).await.expect("commits");
        (id, report, writer.stats())
    }

    async fn read(&self, id: CheckpointId) -> CheckpointReader {
        self.account.read(id).await.expect("opens")
    }
}

fn options() -> RestoreOptions {
    RestoreOptions { owners: rustix::process::geteuid().is_root(), ..RestoreOptions::default() }
}

/// Waits until the files below a directory are so old that a further change would show in their times.
fn let_settle(root: &Path) {
    let changed = |path: &Path| {
        let metadata = path.symlink_metadata().expect("is there");
        let at = (metadata.ctime().try_into(), metadata.ctime_nsec().try_into());
        SystemTime::UNIX_EPOCH + Duration::new(at.0.expect("after 1970"), at.1.expect("below a second"))
    };
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        while changed(&path).elapsed().unwrap_or_default() < Duration::from_millis(40) {
            std::thread::yield_now();
        }
        if path.symlink_metadata().expect("is there").is_dir() {
            todo.extend(path.read_dir().expect("a list").map(|name| name.expect("a name").path()));
        }
    }
}

/// Describes everything below a directory that must come back.
fn describe(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let metadata = path.symlink_metadata().expect("is there");
        let kind = metadata.file_type();
        let content = if kind.is_symlink() {
            format!("-> {:?}", path.read_link().expect("a link"))
        } else if kind.is_file() {
            let bytes = std::fs::read(&path).expect("reads");
            format!(
                "{} bytes, {:x?}",
                bytes.len(),
                bytes.iter().fold(17_u64, |h, b| h.wrapping_mul(31) ^ u64::from(*b))
            )
        } else {
            String::new()
        };
        let time = if kind.is_symlink() {
            String::new()
        } else {
            format!("{}.{}", metadata.mtime(), metadata.mtime_nsec())
        };
        let mut attributes = vec![0_u8; 4096];
        let size = rustix::fs::llistxattr(&path, &mut attributes[..]).unwrap_or(0);
        attributes.truncate(size);
        let line = format!(
            "{kind:?} {:o} {}:{} {time} {} {content} {:?}",
            metadata.mode(),
            metadata.uid(),
            metadata.gid(),
            if kind.is_file() { metadata.nlink() } else { 0 },
            String::from_utf8_lossy(&attributes)
        );
        found.insert(path.strip_prefix(root).expect("below").to_owned(), line);
        if kind.is_dir() {
            todo.extend(
                std::fs::read_dir(&path).expect("lists").map(|entry| entry.expect("an entry").path()),
            );
        }
    }
    found
}

fn sample(root: &Path) {
    use std::os::unix::ffi::OsStrExt;
    let at = |name: &str| root.join(name);
    std::fs::create_dir_all(at("deep/er/est")).expect("directories");
    std::fs::write(at("a"), b"hello").expect("a file");
    std::fs::write(at("empty"), b"").expect("an empty file");
    std::fs::write(at("deep/zeros"), vec![0; 300_000]).expect("zeros");
    let noise: Vec<u8> = (0..5_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(at("deep/large"), &noise).expect("a large file");
    std::fs::write(root.join(std::ffi::OsStr::from_bytes(b"not-utf8-\xff")), b"x").expect("any name");
    std::fs::hard_link(at("a"), at("deep/er/same-as-a")).expect("a hard link");
    symlink("../nowhere", at("deep/link")).expect("a link");
    std::fs::write(at("secret"), b"s").expect("a file");
    std::fs::set_permissions(at("secret"), std::fs::Permissions::from_mode(0o600)).expect("a mode");
    std::fs::set_permissions(at("deep/er"), std::fs::Permissions::from_mode(0o2750)).expect("a mode");
    let sparse = std::fs::File::create(at("sparse")).expect("a sparse file");
    sparse.set_len(64 << 20).expect("a size");
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"island", 40 << 20).expect("an island");
    std::fs::File::create(at("hole")).and_then(|file| file.set_len(1 << 20)).expect("one hole");
    // Some file systems have no attributes; then there is nothing to bring back.
    let _ = rustix::fs::lsetxattr(at("a"), "user.karbor", b"kept\0too", rustix::fs::XattrFlags::empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_a_tree_can_hold_comes_back() {
    let (world, home) = (World::new().await, tempfile::tempdir().expect("a directory"));
    let (root, target) = (home.path().join("root"), home.path().join("target"));
    sample(&root);
    let (id, report, _) = world.backup(&root, None).await;
    assert_eq!(report.findings, []);
    assert_eq!((report.directories, report.hard_links, report.symlinks), (4, 1, 1));
    let reader = world.read(id).await;
    let restored = karbor_tree::restore(&reader, &world.key, &target, &options()).await.expect("restores");
    assert_eq!(restored.findings, []);
    assert_eq!(describe(&target), describe(&root));
    let blocks = |path: &Path| path.metadata().expect("is there").blocks();
    assert!(blocks(&target.join("sparse")) <= blocks(&root.join("sparse")), "a sparse file stays sparse");
    let compared = karbor_tree::compare(&reader, &world.key, &target, &options()).await.expect("compares");
    assert_eq!(compared.findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_tree_is_not_read_again_and_a_changed_file_is() {
    let (world, home) = (World::new().await, tempfile::tempdir().expect("a directory"));
    let (root, target) = (home.path().join("root"), home.path().join("target"));
    sample(&root);
    let_settle(&root);
    let (first, _, _) = world.backup(&root, None).await;
    let (second, report, stats) = world.backup(&root, Some(first)).await;
    assert_eq!(report.unchanged_files, 6, "all that have bytes");
    assert!(stats.read_bytes < 64 << 10, "only entries are read: {}", stats.read_bytes);
    std::fs::write(root.join("a"), b"goodbye").expect("a change");
    std::fs::remove_file(root.join("secret")).expect("a removal");
    std::fs::write(root.join("deep/new"), b"new").expect("an addition");
    let (third, _, stats) = world.backup(&root, Some(second)).await;
    assert!(stats.read_bytes < 2 << 20, "the large file is not read: {}", stats.read_bytes);
    let reader = world.read(third).await;
    karbor_tree::restore(&reader, &world.key, &target, &options()).await.expect("restores");
    assert_eq!(describe(&target), describe(&root));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_named() {
    let (world, home) = (World::new().await, tempfile::tempdir().expect("a directory"));
    let root = home.path().join("root");
    sample(&root);
    let (id, _, _) = world.backup(&root, None).await;
    let reader = world.read(id).await;
    std::fs::write(root.join("deep/large"), vec![1; 5_000_000]).expect("a change");
    std::fs::remove_file(root.join("secret")).expect("a removal");
    std::fs::set_permissions(root.join("empty"), std::fs::Permissions::from_mode(0o777)).expect("a mode");
    let compared = karbor_tree::compare(&reader, &world.key, &root, &options()).await.expect("compares");
    let named = |path: &str, problem: &str| {
        compared.findings.iter().any(|finding| finding.path == path && finding.problem.contains(problem))
    };
    assert!(named("deep/large", "bytes differ"), "{:?}", compared.findings);
    assert!(named("secret", "missing"), "{:?}", compared.findings);
    assert!(named("empty", "mode"), "{:?}", compared.findings);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_not_touched_unless_asked_for() {
    let (world, home) = (World::new().await, tempfile::tempdir().expect("a directory"));
    let (root, target) = (home.path().join("root"), home.path().join("target"));
    sample(&root);
    let (id, _, _) = world.backup(&root, None).await;
    let reader = world.read(id).await;
    std::fs::create_dir(&target).expect("a directory");
    std::fs::write(target.join("mine"), b"mine").expect("a file");
    let refused = karbor_tree::restore(&reader, &world.key, &target, &options()).await;
    assert!(matches!(refused, Err(Error::TargetExists { .. })), "{refused:?}");
    assert_eq!(describe(&target).len(), 2);
    // A link that leads out must be replaced, never followed.
    let outside = home.path().join("outside");
    std::fs::create_dir(&outside).expect("a directory");
    symlink(&outside, target.join("deep")).expect("a link");
    let replace = RestoreOptions { overwrite: Overwrite::Replace, ..options() };
    karbor_tree::restore(&reader, &world.key, &target, &replace).await.expect("restores");
    assert_eq!(std::fs::read_dir(&outside).expect("lists").count(), 0, "nothing leaves the target");
    assert_eq!(std::fs::read(target.join("mine")).expect("still there"), b"mine");
    assert_eq!(std::fs::read(target.join("a")).expect("restored"), b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_path_is_restored_alone() {
    let (world, home) = (World::new().await, tempfile::tempdir().expect("a directory"));
    let (root, target) = (home.path().join("root"), home.path().join("target"));
    sample(&root);
    let (id, _, _) = world.backup(&root, None).await;
    let only = RestoreOptions { only: Some(b"deep/large".to_vec()), ..options() };
    karbor_tree::restore(&world.read(id).await, &world.key, &target, &only).await.expect("restores");
    let names: Vec<PathBuf> = describe(&target).into_keys().collect();
    assert_eq!(names, ["", "deep", "deep/large"].map(PathBuf::from));
    assert_eq!(std::fs::read(target.join("deep/large")).ok(), std::fs::read(root.join("deep/large")).ok());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_and_any_change_of_it_comes_back(
        files in proptest::collection::btree_map("[a-c]{1,2}(/[a-d]{1,3}){0,2}", (0_usize..200_000, any::<u8>()), 1..40),
        edits in proptest::collection::vec(("[a-c]{1,2}(/[a-d]{1,3}){0,2}", 0_usize..150_000, any::<u8>()), 0..8),
    ) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let (world, home) = (World::new().await, tempfile::tempdir().expect("a directory"));
            let root = home.path().join("root");
            std::fs::create_dir(&root).expect("a directory");
            let put = |name: &str, size: usize, seed: u8| {
                let path = root.join(name);
                // A name may be taken by a directory, or lead through a file: then it is left out.
                if path.parent().is_some_and(|parent| std::fs::create_dir_all(parent).is_ok()) && !path.is_dir() {
                    let bytes: Vec<u8> = (0..size).map(|n| ((n * usize::from(seed)) >> 3).to_le_bytes()[0]).collect();
                    std::fs::write(path, bytes).expect("writes");
                }
            };
            for (name, (size, seed)) in &files {
                put(name, *size, *seed);
            }
            let (first, _, _) = world.backup(&root, None).await;
            for (name, size, seed) in &edits {
                put(name, *size, *seed);
            }
            let (second, _, _) = world.backup(&root, Some(first)).await;
            let target = home.path().join("target");
            karbor_tree::restore(&world.read(second).await, &world.key, &target, &options()).await.expect("restores");
            assert_eq!(describe(&target), describe(&root));
        });
    }
}

#[tokio::test]
async fn a_change_in_the_tick_of_the_backup_is_not_taken_for_unchanged() {
    let (world, directory) = (World::new().await, tempfile::tempdir().expect("a directory"));
    let path = directory.path().join("file");
    let mut base = None;
    for round in 0..40_u8 {
        // The same size every time, and often the same times.
        std::fs::write(&path, [round; 100]).expect("written");
        let (id, _, _) = world.backup(directory.path(), base).await;
        base = Some(id);
        std::fs::write(&path, [round + 100; 100]).expect("written");
        let (id, _, _) = world.backup(directory.path(), base).await;
        let target = tempfile::tempdir().expect("a directory");
        let to = target.path().join("restored");
        karbor_tree::restore(&world.read(id).await, &world.key, &to, &options()).await.expect("restores");
        assert_eq!(std::fs::read(to.join("file")).expect("reads"), [round + 100; 100], "round {round}");
        base = Some(id);
    }
}
