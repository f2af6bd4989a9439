//! Sweep, verify, scrub, copy, rotation, statistics, rebuilding.

use std::sync::Arc;

use karbor_bank::MemoryBank;
use karbor_types::Instant;
use karbor_vault::{
    Account, BlockOptions, CopyCheckpoint, CopyOptions, ErrorKind, ScrubOptions, SweepOptions, VerifyMode,
    scrub,
};

use crate::support::{
    Bytes, account, account_id, account_in, begin, checkpoint, commit, master, noise, options, read_stream,
    resource, session,
};

async fn backup(account: &Account, n: u128, bytes: &[u8]) {
    let writer = begin(account, n, None).await;
    let source = Bytes::new(bytes.to_vec());
    writer.resource(&resource("v")).put_blocks("data", source, &BlockOptions::default()).await.unwrap();
    commit(&writer, n).await;
}

fn packs(bank: &MemoryBank) -> usize {
    bank.contents().iter().filter(|(key, _)| key.as_str().contains("/packs/")).count()
}

#[tokio::test]
async fn what_is_deleted_is_freed_and_what_is_not_stays() {
    let (bank, account) = account().await;
    let (one, two) = (noise(1, 12 << 20), noise(2, 9 << 20));
    backup(&account, 1, &one).await;
    backup(&account, 2, &two).await;
    let before = packs(&bank);
    let report = account.sweep(&SweepOptions::default()).await.unwrap();
    assert_eq!((report.deleted_packs, packs(&bank)), (0, before));
    account.delete(checkpoint(1)).await.unwrap();
    let report = account.sweep(&SweepOptions::default()).await.unwrap();
    assert!(report.finished && report.deleted_packs > 0, "{report:?}");
    assert!(read_stream(&account, 2, &resource("v"), "data").await == two);
    account.delete(checkpoint(2)).await.unwrap();
    account.sweep(&SweepOptions::default()).await.unwrap();
    assert_eq!(packs(&bank), 0);
    let stats = account.stats().await.unwrap();
    assert_eq!((stats.checkpoints, stats.packs, stats.logical_bytes), (0, 0, 0));
}

#[tokio::test]
async fn mostly_dead_packs_are_rewritten_and_go_with_the_next_sweep() {
    let (bank, account) = account().await;
    let bytes = noise(1, 16 << 20);
    backup(&account, 1, &bytes).await;
    // Every eighth piece lives on in the second.
    let kept: Vec<u8> = bytes.chunks(8 << 20).flat_map(|part| part[..1 << 20].to_vec()).collect();
    backup(&account, 2, &kept).await;
    account.delete(checkpoint(1)).await.unwrap();
    let first = account.sweep(&SweepOptions::default()).await.unwrap();
    assert!(first.rewritten_packs > 0, "{first:?}");
    let before = packs(&bank);
    let second = account.sweep(&SweepOptions::default()).await.unwrap();
    assert!(second.deleted_packs > 0, "{second:?}");
    assert!(packs(&bank) < before);
    assert!(read_stream(&account, 2, &resource("v"), "data").await == kept);
    let third = account.sweep(&SweepOptions::default()).await.unwrap();
    assert_eq!((third.rewritten_packs, third.deleted_packs), (0, 0));
    let stats = account.stats().await.unwrap();
    assert_eq!(stats.dead_bytes, 0, "{stats:?}");
}

#[tokio::test]
async fn a_checkpoint_is_copied_into_an_account_with_another_key() {
    let (_, from) = account().await;
    let bytes = noise(1, 5 << 20);
    backup(&from, 1, &bytes).await;
    let bank = MemoryBank::new();
    let to = Account::create(Arc::new(bank.clone()), account_id("b"), &master(9), options()).await.unwrap();
    let copy = CopyCheckpoint {
        new_id: checkpoint(7),
        created_at: Instant::from_micros(5),
        metadata: None,
        progress: None,
        cancel: Default::default(),
    };
    let info = from.copy(checkpoint(1), &to, &session(7, 1), &copy).await.unwrap();
    assert_eq!(info.metadata, serde_json::json!({"n": "1"}));
    assert!(read_stream(&to, 7, &resource("v"), "data").await == bytes);
    let stored = packs(&bank);
    // Again, as a new attempt: it is done. As another checkpoint: nothing is missing.
    assert_eq!(from.copy(checkpoint(1), &to, &session(7, 2), &copy).await.unwrap(), info);
    let again = CopyCheckpoint { new_id: checkpoint(8), ..copy };
    from.copy(checkpoint(1), &to, &session(8, 1), &again).await.unwrap();
    assert_eq!(packs(&bank), stored);
}

#[tokio::test]
async fn verify_and_scrub_find_nothing_wrong_with_what_is_whole() {
    let (bank, account) = account().await;
    backup(&account, 1, &noise(1, 5 << 20)).await;
    for mode in [VerifyMode::Structure, VerifyMode::Sample { fraction: 0.5, seed: 1 }, VerifyMode::All] {
        let report = account.verify(checkpoint(1), mode, &CopyOptions::default()).await.unwrap();
        assert!(report.is_whole() && report.chunks == 6, "{report:?}");
        if mode == VerifyMode::All {
            assert_eq!(report.read_chunks, 5);
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let mut options = ScrubOptions {
        state: Some(directory.path().join("state")),
        account: None,
        now: Instant::from_micros(100),
        checked_before: Some(Instant::from_micros(50)),
        bytes_per_second: None,
        threads: std::num::NonZeroUsize::MIN,
        progress: None,
        cancel: Default::default(),
    };
    let bank: Arc<dyn karbor_bank::Bank> = Arc::new(bank);
    let first = scrub(bank.clone(), &options).await.unwrap();
    assert!(first.finished && first.damaged.is_empty() && first.fresh == 0, "{first:?}");
    options.now = Instant::from_micros(200);
    let second = scrub(bank.clone(), &options).await.unwrap();
    assert_eq!((second.objects, second.fresh), (0, first.objects));
    assert_eq!(second.oldest_check, Some(Instant::from_micros(100)));
    options.checked_before = Some(Instant::from_micros(150));
    let third = scrub(bank, &options).await.unwrap();
    assert_eq!(third.objects, first.objects);
}

#[tokio::test]
async fn keys_rotate_and_only_the_right_one_opens() {
    let bank = MemoryBank::new();
    let shared: Arc<dyn karbor_bank::Bank> = Arc::new(bank.clone());
    let first = account_in(shared.clone()).await;
    backup(&first, 1, &noise(1, 1 << 20)).await;
    let open = async |seed| {
        let opened = Account::open(shared.clone(), account_id("a"), &[master(seed)], options()).await;
        opened.map_err(|err| err.kind())
    };
    assert_eq!(open(2).await.err(), Some(ErrorKind::WrongKey));
    let before = bank.contents().len();
    first.rotate(&[master(1)], &master(2)).await.unwrap();
    first.rotate(&[master(1)], &master(2)).await.unwrap();
    assert_eq!(bank.contents().len(), before);
    assert_eq!(open(1).await.err(), Some(ErrorKind::WrongKey));
    let second = open(2).await.expect("the new key opens");
    assert_eq!(read_stream(&second, 1, &resource("v"), "data").await, noise(1, 1 << 20));
    let taken = Account::create(shared.clone(), account_id("a"), &master(3), options()).await;
    assert_eq!(taken.err().map(|err| err.kind()), Some(ErrorKind::AlreadyExists));
    Account::destroy_key(shared.clone(), &account_id("a")).await.unwrap();
    assert_eq!(open(2).await.err(), Some(ErrorKind::WrongKey));
    let again = Account::create(shared.clone(), account_id("a"), &master(3), options()).await;
    assert_eq!(again.err().map(|err| err.kind()), Some(ErrorKind::WrongKey));
    let other = Account::open(shared, account_id("other"), &[master(2)], options()).await;
    assert_eq!(other.err().map(|err| err.kind()), Some(ErrorKind::NotFound));
}

#[tokio::test]
async fn a_lost_index_is_rebuilt_from_the_packs() {
    let (bank, account) = account().await;
    let bytes = noise(1, 9 << 20);
    backup(&account, 1, &bytes).await;
    let indexes: Vec<_> = bank
        .contents()
        .into_iter()
        .map(|(key, _)| key)
        .filter(|key| key.as_str().contains("/index/"))
        .collect();
    assert!(!indexes.is_empty());
    for key in &indexes {
        karbor_bank::Bank::delete(&bank, key).await.unwrap();
    }
    let fresh = account_in(Arc::new(bank.clone())).await;
    let lost = fresh.verify(checkpoint(1), VerifyMode::Structure, &CopyOptions::default()).await.unwrap();
    assert!(!lost.is_whole());
    let report = fresh.rebuild_index().await.unwrap();
    assert_eq!(report.packs, report.added_packs);
    assert!(report.damaged.is_empty());
    assert!(read_stream(&fresh, 1, &resource("v"), "data").await == bytes);
    assert_eq!(fresh.rebuild_index().await.unwrap().added_packs, 0);
}
