//! Sessions beside sweeps: condemned packs, pins, fences, adoption.

use std::sync::Arc;

use karbor_bank::MemoryBank;
use karbor_vault::{Account, BeginOptions, BlockOptions, CheckpointWriter, ErrorKind, SweepOptions};

use crate::support::{Bytes, account, begin, checkpoint, commit, noise, read_stream, resource, session};

async fn put(writer: &CheckpointWriter, bytes: &[u8]) {
    let source = Bytes::new(bytes.to_vec());
    writer.resource(&resource("v")).put_blocks("data", source, &BlockOptions::default()).await.unwrap();
}

async fn backup(account: &Account, n: u128, base: Option<u128>, bytes: &[u8]) {
    let writer = begin(account, n, base).await;
    put(&writer, bytes).await;
    commit(&writer, n).await;
}

fn packs(bank: &MemoryBank) -> usize {
    bank.contents().iter().filter(|(key, _)| key.as_str().contains("/packs/")).count()
}

fn fence_all() -> SweepOptions {
    SweepOptions { may_fence: Some(Arc::new(|_: &str| true)), ..SweepOptions::default() }
}

#[tokio::test]
async fn what_a_writer_leans_on_is_stored_again_before_it_is_freed() {
    let (_, account) = account().await;
    let bytes = noise(1, 6 << 20);
    backup(&account, 1, None, &bytes).await;
    let writer = begin(&account, 2, None).await;
    put(&writer, &bytes).await;
    assert_eq!(writer.stats().new_chunks, 0);
    account.delete(checkpoint(1)).await.unwrap();
    let waiting = account.sweep(&SweepOptions::default()).await.unwrap();
    assert!(!waiting.finished && waiting.waiting_for.len() == 1, "{waiting:?}");
    writer.check_sweeps().await.unwrap();
    let done = account.sweep(&SweepOptions::default()).await.unwrap();
    assert!(done.finished && done.deleted_packs > 0, "{done:?}");
    commit(&writer, 2).await;
    assert!(read_stream(&account, 2, &resource("v"), "data").await == bytes);
}

#[tokio::test]
async fn a_commit_answers_sweeps_by_itself() {
    let (_, account) = account().await;
    let bytes = noise(1, 6 << 20);
    backup(&account, 1, None, &bytes).await;
    let writer = begin(&account, 2, None).await;
    put(&writer, &bytes).await;
    account.delete(checkpoint(1)).await.unwrap();
    account.sweep(&SweepOptions::default()).await.unwrap();
    commit(&writer, 2).await;
    account.sweep(&SweepOptions::default()).await.unwrap();
    account.sweep(&SweepOptions::default()).await.unwrap();
    assert!(read_stream(&account, 2, &resource("v"), "data").await == bytes);
}

#[tokio::test]
async fn a_fenced_writer_cannot_commit_and_its_successor_can() {
    let (bank, account) = account().await;
    let bytes = noise(1, 6 << 20);
    let writer = begin(&account, 2, None).await;
    put(&writer, &bytes).await;
    writer.flush().await.unwrap();
    let saved = writer.resource(&resource("v")).save();
    let second = account.begin(&session(2, 2), &BeginOptions::default()).await.unwrap();
    let err = writer.commit(checkpoint(2), Default::default(), Default::default()).await.expect_err("fenced");
    assert_eq!(err.kind(), ErrorKind::Fenced);
    let before = packs(&bank);
    assert!(second.adopt(&resource("v"), &saved).await.unwrap());
    commit(&second, 2).await;
    assert_eq!(packs(&bank), before, "everything was there");
    account.sweep(&SweepOptions::default()).await.unwrap();
    assert!(read_stream(&account, 2, &resource("v"), "data").await == bytes);
    let third = account.begin(&session(2, 3), &BeginOptions::default()).await;
    assert_eq!(third.err().map(|err| err.kind()), Some(ErrorKind::AlreadyCommitted));
    let late = account.begin(&session(2, 1), &BeginOptions::default()).await;
    assert_eq!(late.err().map(|err| err.kind()), Some(ErrorKind::Fenced));
}

#[tokio::test]
async fn what_was_freed_meanwhile_is_not_adopted() {
    let (bank, account) = account().await;
    let writer = begin(&account, 2, None).await;
    put(&writer, &noise(1, 6 << 20)).await;
    writer.flush().await.unwrap();
    let saved = writer.resource(&resource("v")).save();
    let saved = serde_json::from_value(serde_json::to_value(saved).unwrap()).unwrap();
    drop(writer);
    account.sweep(&fence_all()).await.unwrap();
    account.sweep(&fence_all()).await.unwrap();
    assert_eq!(packs(&bank), 0);
    let second = account.begin(&session(2, 2), &BeginOptions::default()).await.unwrap();
    assert!(!second.adopt(&resource("v"), &saved).await.unwrap());
}

#[tokio::test]
async fn a_base_that_is_deleted_while_it_is_leant_on_unread_stays_until_the_commit() {
    let (_, account) = account().await;
    let mut bytes = noise(1, 12 << 20);
    backup(&account, 1, None, &bytes).await;
    let writer = begin(&account, 2, Some(1)).await;
    account.delete(checkpoint(1)).await.unwrap();
    let sweep = account.sweep(&SweepOptions::default()).await.unwrap();
    assert_eq!(sweep.deleted_packs, 0, "{sweep:?}");
    bytes[3 << 20] ^= 1;
    let at = 3u64 << 20;
    let changed = BlockOptions { changed: Some(std::iter::once(at..at + 1).collect()), ..Default::default() };
    let source = Bytes::new(bytes.clone());
    writer.resource(&resource("v")).put_blocks("data", source, &changed).await.unwrap();
    account.sweep(&SweepOptions::default()).await.unwrap();
    commit(&writer, 2).await;
    for _ in 0..3 {
        account.sweep(&SweepOptions::default()).await.unwrap();
    }
    assert!(read_stream(&account, 2, &resource("v"), "data").await == bytes);
}

#[tokio::test]
async fn a_deleted_checkpoint_can_be_read_to_its_end_by_who_has_opened_it() {
    let (bank, account) = account().await;
    let bytes = noise(1, 12 << 20);
    backup(&account, 1, None, &bytes).await;
    let reader = account.read(checkpoint(1)).await.unwrap();
    account.delete(checkpoint(1)).await.unwrap();
    account.sweep(&SweepOptions::default()).await.unwrap();
    let stream = reader.open_stream(&resource("v"), "data").await.unwrap();
    let mut out = Vec::new();
    stream.copy_out(&mut out, &Default::default()).await.unwrap();
    assert!(out == bytes);
    assert_eq!(account.read(checkpoint(1)).await.err().map(|err| err.kind()), Some(ErrorKind::NotFound));
    drop(stream);
    reader.close().await.unwrap();
    for _ in 0..2 {
        account.sweep(&SweepOptions::default()).await.unwrap();
    }
    assert_eq!(packs(&bank), 0);
}

#[tokio::test]
async fn an_abandoned_session_is_not_waited_for() {
    let (bank, account) = account().await;
    let writer = begin(&account, 1, None).await;
    put(&writer, &noise(1, 6 << 20)).await;
    writer.flush().await.unwrap();
    writer.abandon().await.unwrap();
    let err = writer.commit(checkpoint(1), Default::default(), Default::default()).await;
    assert!(err.is_err());
    let swept = account.sweep(&SweepOptions::default()).await.unwrap();
    assert!(swept.finished && packs(&bank) == 0, "{swept:?}");
}

#[tokio::test]
async fn committing_twice_is_committing_once() {
    let (_, account) = account().await;
    let writer = begin(&account, 1, None).await;
    put(&writer, &noise(1, 1 << 20)).await;
    let first = commit(&writer, 1).await;
    assert_eq!(commit(&writer, 1).await, first);
    let err = writer.abandon().await.expect_err("it is committed");
    assert_eq!(err.kind(), ErrorKind::AlreadyCommitted);
    assert_eq!(account.checkpoints().await.unwrap().len(), 1);
}

#[tokio::test]
async fn cancelling_stops_a_stream_and_nothing_else() {
    let (_, account) = account().await;
    let writer = begin(&account, 1, None).await;
    let options = BlockOptions::default();
    options.cancel.cancel();
    let source = Bytes::new(noise(1, 4 << 20));
    let volume = writer.resource(&resource("v"));
    let err = volume.put_blocks("data", source, &options).await.expect_err("cancelled");
    assert_eq!(err.kind(), ErrorKind::Cancelled);
    put(&writer, &noise(1, 4 << 20)).await;
    commit(&writer, 1).await;
    assert!(read_stream(&account, 1, &resource("v"), "data").await == noise(1, 4 << 20));
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    std::fs::write(&path, noise(1, 1 << 20)).unwrap();
    let source = karbor_vault::FileSource::open(&path).unwrap();
    std::fs::write(&path, noise(2, 1 << 20)).unwrap();
    let (_, account) = account().await;
    let writer = begin(&account, 1, None).await;
    let volume = writer.resource(&resource("v"));
    let err = volume.put_blocks("data", Arc::new(source), &Default::default()).await.expect_err("it changed");
    assert_eq!(err.kind(), ErrorKind::SourceChanged);
}

#[tokio::test]
async fn what_a_writer_left_that_answered_and_died_is_freed() {
    let (bank, account) = account().await;
    backup(&account, 1, None, &noise(1, 2 << 20)).await;
    account.delete(checkpoint(1)).await.unwrap();
    let writer = begin(&account, 2, None).await;
    put(&writer, &noise(2, 2 << 20)).await;
    writer.flush().await.unwrap();
    assert!(!account.sweep(&SweepOptions::default()).await.unwrap().finished);
    writer.check_sweeps().await.unwrap();
    drop(writer);
    assert!(account.sweep(&SweepOptions::default()).await.unwrap().finished);
    // Nothing else is to be freed, so nobody waits for it any more.
    assert!(packs(&bank) > 0);
    let swept = account.sweep(&SweepOptions::default()).await.unwrap();
    assert!(swept.fenced.is_empty() && packs(&bank) > 0, "who may fence nobody leaves it alone");
    let swept = account.sweep(&fence_all()).await.unwrap();
    assert_eq!(swept.fenced.len(), 1, "{swept:?}");
    assert_eq!(packs(&bank), 0);
}
