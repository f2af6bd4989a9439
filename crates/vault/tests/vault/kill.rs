//! The kill matrix: each operation is ended before each of its calls to the bank, with and without the call having
//! had its effect. Whatever stood stays readable, the operation can be done again, and nothing is left behind.

use std::pin::Pin;
use std::sync::Arc;

use karbor_bank::wrap::{Fault, Faulty, Rule};
use karbor_bank::{ErrorKind, MemoryBank};
use karbor_types::Instant;
use karbor_vault::{Account, BeginOptions, BlockOptions, CopyCheckpoint, Result, SweepOptions, VerifyMode};

use crate::support::{Bytes, account_in, checkpoint, noise, read_stream, resource, session};

const CHUNK: u32 = 64 << 10;

type Running<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

fn source(n: u64) -> Vec<u8> {
    noise(n, 20 * CHUNK as usize)
}

async fn backup(account: &Account, n: u128, epoch: u32, base: Option<u128>, bytes: Vec<u8>) -> Result<()> {
    let options = BeginOptions { base: base.map(checkpoint) };
    let writer = match account.begin(&session(n, epoch), &options).await {
        Err(karbor_vault::Error::AlreadyCommitted(_)) => return Ok(()),
        begun => begun?,
    };
    let blocks = BlockOptions { chunk_bytes: Some(CHUNK), ..BlockOptions::default() };
    writer.resource(&resource("v")).put_blocks("data", Bytes::new(bytes), &blocks).await?;
    writer.commit(checkpoint(n), Instant::default(), serde_json::Value::Null).await?;
    Ok(())
}

fn fencing() -> SweepOptions {
    SweepOptions { may_fence: Some(Arc::new(|_: &str| true)), ..SweepOptions::default() }
}

/// The account before: checkpoint 1 lives, 2 shares a tenth with it and is deleted, 3 is like 1.
async fn before(bank: &MemoryBank) {
    let account = account_in(Arc::new(bank.clone())).await;
    backup(&account, 1, 1, None, source(1)).await.expect("stored");
    let mut shared = source(2);
    shared[..2 * CHUNK as usize].copy_from_slice(&source(9)[..2 * CHUNK as usize]);
    backup(&account, 2, 1, None, shared.clone()).await.expect("stored");
    let mut third = source(1);
    third[..2 * CHUNK as usize].copy_from_slice(&shared[..2 * CHUNK as usize]);
    backup(&account, 3, 1, Some(1), third).await.expect("stored");
    account.delete(checkpoint(2)).await.expect("deleted");
}

fn third() -> Vec<u8> {
    let mut third = source(1);
    third[..2 * CHUNK as usize].copy_from_slice(&source(9)[..2 * CHUNK as usize]);
    third
}

/// Kills `operation` before (or, with its reply lost, after) each call, and does it again.
async fn matrix(
    name: &str,
    deletes_first: bool,
    operation: for<'a> fn(&'a Account, u32) -> Running<'a>,
    after: for<'a> fn(&'a Account) -> Running<'a>,
) {
    for with_effect in [false, true] {
        let mut calls = 0;
        loop {
            let bank = MemoryBank::new();
            before(&bank).await;
            let faulty = Arc::new(Faulty::new(Arc::new(bank.clone()), 1));
            let account = account_in(faulty.clone()).await;
            if with_effect {
                faulty.add(Rule::new(Fault::LoseReply).at(calls..calls + 1));
            }
            faulty.add(Rule::new(Fault::Refuse(ErrorKind::Unavailable)).at(calls..u64::MAX));
            let done = operation(&account, 1).await;
            drop(account);
            let account = account_in(Arc::new(bank.clone())).await;
            let case = format!("{name} killed at call {calls}, effect {with_effect}");
            let living: &[(u128, Vec<u8>)] =
                if deletes_first { &[(3, third())] } else { &[(1, source(1)), (3, third())] };
            for (n, bytes) in living {
                assert!(read_stream(&account, *n, &resource("v"), "data").await == *bytes, "{case}");
            }
            operation(&account, 2).await.unwrap_or_else(|err| panic!("{case}, again: {err:?}"));
            after(&account).await.unwrap_or_else(|err| panic!("{case}, after it: {err:?}"));
            for info in account.checkpoints().await.expect("listed") {
                let report =
                    account.verify(info.id, VerifyMode::All, &Default::default()).await.expect("verified");
                assert!(report.is_whole(), "{case}: {report:?}");
                account.delete(info.id).await.expect("deleted");
            }
            for _ in 0..3 {
                account.sweep(&fencing()).await.unwrap_or_else(|err| panic!("{case}, sweeping: {err:?}"));
            }
            let packs = bank.contents().iter().filter(|(key, _)| key.as_str().contains("/packs/")).count();
            assert_eq!(packs, 0, "{case}: nothing may be left");
            if done.is_ok() || calls > 400 {
                break;
            }
            calls += 1;
        }
        assert!((3..400).contains(&calls), "{name}: {calls} calls");
    }
}

fn nothing<'a>(_: &'a Account) -> Running<'a> {
    Box::pin(async { Ok(()) })
}

#[tokio::test]
async fn a_backup_can_be_killed_anywhere() {
    fn readable<'a>(account: &'a Account) -> Running<'a> {
        Box::pin(async move {
            assert!(read_stream(account, 5, &resource("v"), "data").await == source(5));
            Ok(())
        })
    }
    matrix(
        "backup",
        false,
        |account, epoch| Box::pin(backup(account, 5, epoch, Some(3), source(5))),
        readable,
    )
    .await;
}

#[tokio::test]
async fn a_deletion_can_be_killed_anywhere() {
    fn gone<'a>(account: &'a Account) -> Running<'a> {
        Box::pin(async move {
            assert!(account.find(checkpoint(1)).await?.is_none());
            Ok(())
        })
    }
    fn delete<'a>(account: &'a Account, _: u32) -> Running<'a> {
        Box::pin(async move { account.delete(checkpoint(1)).await.map(|_| ()) })
    }
    matrix("deletion", true, delete, gone).await;
}

#[tokio::test]
async fn a_sweep_with_its_rewriting_can_be_killed_anywhere() {
    fn sweep<'a>(account: &'a Account, _: u32) -> Running<'a> {
        Box::pin(async move {
            for _ in 0..2 {
                account.sweep(&fencing()).await?;
            }
            Ok(())
        })
    }
    matrix("sweep", false, sweep, nothing).await;
}

#[tokio::test]
async fn a_copy_can_be_killed_anywhere() {
    fn copy<'a>(account: &'a Account, epoch: u32) -> Running<'a> {
        Box::pin(async move {
            let copy = CopyCheckpoint {
                new_id: checkpoint(6),
                created_at: Instant::default(),
                metadata: None,
                progress: None,
                cancel: Default::default(),
            };
            // Into the same account: the names are the same, so nothing is read.
            account.copy(checkpoint(1), account, &session(6, epoch), &copy).await.map(|_| ())
        })
    }
    matrix("copy", false, copy, nothing).await;
}

#[tokio::test]
async fn rebuilding_the_index_can_be_killed_anywhere() {
    fn rebuild<'a>(account: &'a Account, _: u32) -> Running<'a> {
        Box::pin(async move { account.rebuild_index().await.map(|_| ()) })
    }
    matrix("rebuild", false, rebuild, nothing).await;
}
