use std::collections::BTreeMap;
use std::fs;
use std::ops::Bound;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use futures::future::join_all;
use karbor_bank::{Bank, ErrorKind, FileSystemBank, Key, PutMode, SWAP_MAX_BYTES};
use proptest::prelude::{Strategy, any, prop, proptest};
use proptest::test_runner::Config;
use rustix::fs::{FlockOperation, flock};

use crate::{body, key};

fn bank(directory: &Path) -> FileSystemBank {
    FileSystemBank::create(directory).expect("a bank")
}

fn staged(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory.join(".karbor/staging")) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("plain names"))
        .collect();
    names.sort();
    names
}

async fn keys(bank: &dyn Bank, prefix: &str) -> Vec<String> {
    let listed = bank.list(prefix, None, usize::MAX).await.expect("a listing");
    listed.into_iter().map(|meta| meta.key.to_string()).collect()
}

#[tokio::test]
async fn only_a_bank_is_opened() {
    let directory = tempfile::tempdir().expect("a directory");
    let error = FileSystemBank::open(directory.path()).expect_err("it is an empty directory");
    assert_eq!(error.kind, ErrorKind::NotFound);
    let error = FileSystemBank::open(directory.path().join("absent")).expect_err("there is nothing");
    assert_eq!(error.kind, ErrorKind::NotFound);

    let deep = directory.path().join("deep/down");
    bank(&deep).put(&key("k"), body("x"), PutMode::Create).await.expect("a put");
    let opened = FileSystemBank::open(&deep).expect("it is a bank");
    assert_eq!(opened.get(&key("k"), None).await.expect("a get").bytes, "x");
    assert_eq!(keys(&bank(&deep), "").await, ["k"], "creating it again changes nothing");
}

#[tokio::test]
async fn files_of_dead_writers_are_removed_and_those_of_living_ones_are_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let living = bank(path);
    living.put(&key("k"), body("x"), PutMode::Create).await.expect("a put");
    let own_lock = staged(path).pop().expect("the writer's lock file");
    let own = own_lock.strip_suffix(".lock").expect("it is one").to_owned();

    let staging = path.join(".karbor/staging");
    let put = |name: &str| fs::write(staging.join(name), "half").expect("a file");
    let (own_file, elsewhere_file) = (format!("{own}.77"), "999999999-0.5");
    put(&own_file);
    put("999999998-0.lock");
    put("999999998-0.1");
    put("999999998-0.2");
    put("999999997-3.9"); // Its lock file was removed.
    put("999999999-0.lock");
    put(elsewhere_file);
    let elsewhere = fs::File::open(staging.join("999999999-0.lock")).expect("it was made");
    flock(&elsewhere, FlockOperation::LockExclusive).expect("nobody holds it");

    drop(bank(path));
    assert_eq!(
        staged(path),
        [own_file.clone(), own_lock, elsewhere_file.to_owned(), "999999999-0.lock".to_owned()]
    );

    drop(living);
    drop(bank(path));
    // A writer that ends takes only its lock file with it; what it left is found without one.
    assert_eq!(staged(path), [elsewhere_file, "999999999-0.lock"]);
}

#[tokio::test]
async fn nothing_is_left_by_puts_that_fail() {
    let directory = tempfile::tempdir().expect("a directory");
    let bank = bank(directory.path());
    bank.put(&key("k"), body("first"), PutMode::Create).await.expect("a put");
    let version = bank.put(&key("s"), body("first"), PutMode::Create).await.expect("a put");
    bank.put(&key("s"), body("second"), PutMode::Overwrite).await.expect("a put");
    bank.put(&key("k"), body("second"), PutMode::Create).await.expect_err("it is taken");
    bank.put(&key("s"), body("third"), PutMode::Swap(version)).await.expect_err("it is stale");
    bank.put(&key("k/below"), body("x"), PutMode::Create).await.expect_err("above it is an object");
    assert_eq!(staged(directory.path()).len(), 1, "the writer's lock file");
    drop(bank);
    assert_eq!(staged(directory.path()), Vec::<String>::new());
}

#[tokio::test]
async fn an_object_cannot_be_a_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let bank = bank(directory.path());
    for mode in [PutMode::Create, PutMode::Overwrite] {
        bank.put(&key("a/b"), body("x"), PutMode::Create).await.expect("a put");
        let error = bank.put(&key("a"), body("x"), mode.clone()).await.expect_err("it is a directory");
        assert_eq!(error.kind, ErrorKind::Unsupported, "{mode:?}");
        let error =
            bank.put(&key("a/b/c"), body("x"), mode.clone()).await.expect_err("above it is an object");
        assert_eq!(error.kind, ErrorKind::Unsupported, "{mode:?}");
        bank.delete(&key("a/b")).await.expect("a delete");

        // An empty directory, as a crash leaves it, is in nobody's way.
        fs::create_dir_all(directory.path().join("a")).expect("a directory");
        bank.put(&key("a"), body("x"), mode).await.expect("the directory is empty");
        bank.delete(&key("a")).await.expect("a delete");
    }
}

#[tokio::test]
async fn directories_go_with_their_objects() {
    let directory = tempfile::tempdir().expect("a directory");
    let bank = bank(directory.path());
    bank.put(&key("a/b/c/k"), body("x"), PutMode::Create).await.expect("a put");
    bank.put(&key("a/k"), body("x"), PutMode::Create).await.expect("a put");
    bank.delete(&key("a/b/c/k")).await.expect("a delete");
    assert!(!directory.path().join("a/b").exists());
    assert!(directory.path().join("a/k").exists());
    bank.put(&key("a/b/c/k"), body("again"), PutMode::Create).await.expect("the directory is made again");
    bank.delete(&key("a/b/c/k")).await.expect("a delete");
    bank.delete(&key("a/k")).await.expect("a delete");
    assert!(!directory.path().join("a").exists());
    assert!(directory.path().exists());
}

#[tokio::test]
async fn two_who_opened_one_bank_see_one_bank() {
    let directory = tempfile::tempdir().expect("a directory");
    let (one, two) = (bank(directory.path()), bank(directory.path()));
    for round in 0..20 {
        let place = key(&format!("d/{round}/k"));
        let puts = [&one, &two].map(|bank| bank.put(&place, body("x"), PutMode::Create));
        let won = join_all(puts).await.into_iter().filter(Result::is_ok).count();
        assert_eq!(won, 1, "round {round}");
        // Each deletes what the other may know to be there, and the directory with it.
        let (first, second) = if round % 2 == 0 { (&one, &two) } else { (&two, &one) };
        first.delete(&place).await.expect("a delete");
        second.put(&place, body("y"), PutMode::Create).await.expect("the key is free");
        assert_eq!(first.get(&place, None).await.expect("a get").bytes, "y");
        first.delete(&place).await.expect("a delete");
        assert_eq!(keys(second, "").await, Vec::<String>::new());
        second.delete(&place).await.expect("a second delete");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn swaps_exclude_each_other_between_two_who_opened_one_bank() {
    let directory = tempfile::tempdir().expect("a directory");
    let banks = [Arc::new(bank(directory.path())), Arc::new(bank(directory.path()))];
    banks[0].put(&key("n"), body("0"), PutMode::Create).await.expect("a put");
    let tasks = (0..16).map(|task| {
        let bank = Arc::clone(&banks[task % 2]);
        tokio::spawn(async move {
            loop {
                let object = bank.get(&key("n"), None).await.expect("a get");
                let number: u32 =
                    std::str::from_utf8(&object.bytes).expect("text").parse().expect("a number");
                let next = body(&(number + 1).to_string());
                match bank.put(&key("n"), next, PutMode::Swap(object.version)).await {
                    Ok(_) => return,
                    Err(error) => assert_eq!(error.kind, ErrorKind::Precondition),
                }
            }
        })
    });
    join_all(tasks).await.into_iter().for_each(|task| task.expect("no panic"));
    assert_eq!(banks[1].get(&key("n"), None).await.expect("a get").bytes, "16");
}

#[tokio::test]
async fn what_is_too_large_to_be_swapped_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let bank = bank(directory.path());
    let size = usize::try_from(SWAP_MAX_BYTES).expect("it fits");
    let (fits, large) = (vec![vec![1; size].into()], vec![vec![1; size + 1].into()]);
    let version = bank.put(&key("k"), fits.clone(), PutMode::Create).await.expect("a put");
    let version = bank.put(&key("k"), body("small"), PutMode::Swap(version)).await.expect("it fits");
    let error =
        bank.put(&key("k"), large.clone(), PutMode::Swap(version)).await.expect_err("it is too large");
    assert_eq!(error.kind, ErrorKind::Unsupported);
    let version = bank.put(&key("k"), large, PutMode::Overwrite).await.expect("a put");
    let error =
        bank.put(&key("k"), fits, PutMode::Swap(version)).await.expect_err("what stands is too large");
    assert_eq!(error.kind, ErrorKind::Precondition);
}

#[tokio::test]
async fn what_is_no_object_is_not_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, bank) = (directory.path(), bank(directory.path()));
    bank.put(&key("d/k"), body("x"), PutMode::Create).await.expect("a put");
    fs::create_dir(path.join("lost+found")).expect("a directory");
    fs::write(path.join("lost+found/file"), "x").expect("a file");
    fs::write(path.join("d/.hidden"), "x").expect("a file");
    fs::write(path.join("d/with space"), "x").expect("a file");
    fs::create_dir(path.join("d/empty")).expect("a directory");
    symlink("k", path.join("d/link")).expect("a link");
    symlink("../d", path.join("d/links")).expect("a link");
    assert_eq!(keys(&bank, "").await, ["d/k"]);
    bank.get(&key("d/link"), None).await.expect_err("links are not followed");
    bank.get(&key("d/empty"), None).await.expect_err("a directory is no object");
    assert_eq!(bank.get(&key("d"), None).await.expect_err("nor is this").kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn a_listing_passes_by_many_empty_directories() {
    let directory = tempfile::tempdir().expect("a directory");
    let bank = bank(directory.path());
    for number in 0..3000 {
        fs::create_dir(directory.path().join(format!("e{number:04}"))).expect("a directory");
    }
    bank.put(&key("f/k"), body("x"), PutMode::Create).await.expect("a put");
    assert_eq!(bank.list("", None, 1).await.expect("a listing")[0].key, key("f/k"));
}

/// Names of few letters, among them those that sort before and after the slash.
fn names() -> impl Strategy<Value = String> {
    let segment = prop::string::string_regex("[ab0_-][ab0._-]{0,2}").expect("it is one");
    prop::collection::vec(segment, 1..4).prop_map(|segments| segments.join("/"))
}

proptest! {
    #![proptest_config(Config { cases: 60, failure_persistence: None, ..Config::default() })]

    #[test]
    fn listings_are_those_of_a_sorted_map(
        names in prop::collection::vec(names(), 1..40),
        queries in prop::collection::vec((names(), any::<prop::sample::Index>(), prop::option::of(names()), 0_usize..9), 20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let directory = tempfile::tempdir().expect("a directory");
            let bank = bank(directory.path());
            let mut model = BTreeMap::new();
            for (size, name) in names.iter().enumerate() {
                let (key, content) = (key(name), vec![vec![0; size].into()]);
                // What is already a directory, or lies below an object, cannot be put on a file system.
                let below = |other: &Key| key.as_str().starts_with(&format!("{other}/"));
                let above = |other: &Key| other.as_str().starts_with(&format!("{key}/"));
                let fits = !model.keys().any(|other| below(other) || above(other));
                let put = bank.put(&key, content, PutMode::Overwrite).await;
                assert_eq!(put.as_ref().err().map(|error| error.kind), (!fits).then_some(ErrorKind::Unsupported));
                if fits {
                    model.insert(key, size as u64);
                }
            }
            for (name, cut, after, limit) in queries {
                let prefix = &name[..cut.index(name.len() + 1)];
                let after = after.map(|after| key(&after));
                let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
                let expected: Vec<_> = model
                    .range::<Key, _>((from, Bound::Unbounded))
                    .filter(|(key, _)| key.as_str().starts_with(prefix))
                    .take(limit)
                    .map(|(key, size)| (key.clone(), *size))
                    .collect();
                let listed = bank.list(prefix, after.as_ref(), limit).await.expect("a listing");
                let listed: Vec<_> = listed.into_iter().map(|meta| (meta.key, meta.size_bytes)).collect();
                assert_eq!(listed, expected, "{prefix:?} after {after:?}, at most {limit}");
            }
        });
    }
}
