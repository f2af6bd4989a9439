//! Writers, readers, deleters and sweepers at once, with pauses of random length inside every call to the bank.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use karbor_bank::MemoryBank;
use karbor_bank::wrap::{Hooked, Moment};
use karbor_types::Instant;
use karbor_vault::{Account, BeginOptions, BlockOptions, ErrorKind, SweepOptions, VerifyMode};

use crate::support::{Bytes, account_in, checkpoint, noise, resource, session};

const CHUNK: u32 = 64 << 10;
const WRITERS: u128 = 3;
const ROUNDS: u128 = 6;

/// Versions of a source that share most of their pieces, so that everybody leans on everybody.
fn source(writer: u128, round: u128) -> Vec<u8> {
    let mut bytes = noise(1, 12 * CHUNK as usize);
    let piece = usize::try_from((writer * 5 + round) % 12).expect("small") * CHUNK as usize;
    let seed = u64::try_from(writer * 100 + round / 2).expect("small");
    bytes[piece..piece + CHUNK as usize].copy_from_slice(&noise(seed, CHUNK as usize));
    bytes
}

async fn write(account: Account, writer: u128) {
    let key = resource("v");
    let mut last: Option<u128> = None;
    for round in 0..ROUNDS {
        let n = writer * 1000 + round;
        let bytes = source(writer, round);
        // Two of three lean on their last checkpoint, unread parts and all.
        let base = last.filter(|_| round % 3 != 0);
        let mut epoch = 1;
        loop {
            match backup(&account, n, epoch, base, &bytes).await {
                Ok(()) => break,
                // Fenced by an impatient sweeper: begin again.
                Err(error) if error.kind() == ErrorKind::Fenced => epoch += 1,
                Err(error) => panic!("checkpoint {n}: {error:?}"),
            }
            assert!(epoch < 50, "checkpoint {n} comes to no end");
        }
        if let Some(last) = last {
            let reader = account.read(checkpoint(last)).await.expect("opened");
            account.delete(checkpoint(last)).await.expect("deleted");
            let stream = reader.open_stream(&key, "data").await.expect("opened");
            let mut out = Vec::new();
            stream.copy_out(&mut out, &Default::default()).await.expect("read after it was deleted");
            assert!(out == source(writer, round - 1));
            drop(stream);
            reader.close().await.expect("closed");
        }
        last = Some(n);
    }
}

async fn backup(
    account: &Account,
    n: u128,
    epoch: u32,
    base: Option<u128>,
    bytes: &[u8],
) -> Result<(), karbor_vault::Error> {
    let begin = BeginOptions { base: base.map(checkpoint) };
    let writer = match account.begin(&session(n, epoch), &begin).await {
        Err(karbor_vault::Error::AlreadyCommitted(_)) => return Ok(()),
        begun => begun?,
    };
    let options = BlockOptions { chunk_bytes: Some(CHUNK), ..BlockOptions::default() };
    let volume = writer.resource(&resource("v"));
    volume.put_blocks("data", Bytes::new(bytes.to_vec()), &options).await?;
    writer.check_sweeps().await?;
    writer.commit(checkpoint(n), Instant::default(), serde_json::Value::Null).await?;
    Ok(())
}

async fn sweep(account: Account, stop: tokio_util::sync::CancellationToken, fences_every: u64) {
    let mut sweeps = 0u64;
    while !stop.is_cancelled() {
        sweeps += 1;
        let fences = sweeps.is_multiple_of(fences_every);
        // Readers are never fenced here: they would rightly fail.
        let may_fence: karbor_vault::MayFence =
            Arc::new(move |name: &str| fences && name.starts_with("00000000"));
        let options = SweepOptions { may_fence: Some(may_fence), ..SweepOptions::default() };
        account.sweep(&options).await.expect("swept");
    }
}

#[test]
fn what_is_committed_is_readable_whatever_runs_beside_it() {
    for seed in 0..6 {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let memory = MemoryBank::new();
            let state = Arc::new(AtomicU64::new(seed * 7919 + 1));
            let pauses = Hooked::new(Arc::new(memory.clone()), move |moment, _| {
                let mixed = state
                    .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
                    .wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let turns = if moment == Moment::Before { mixed >> 59 } else { mixed >> 61 };
                async move {
                    for _ in 0..turns {
                        tokio::task::yield_now().await;
                    }
                    Ok(())
                }
            });
            let bank: Arc<dyn karbor_bank::Bank> = Arc::new(pauses);
            let stop = tokio_util::sync::CancellationToken::new();
            // Two sweepers, each as if it were another process.
            let sweepers: Vec<_> = {
                let mut sweepers = Vec::new();
                for every in [3, 7] {
                    let account = account_in(bank.clone()).await;
                    sweepers.push(tokio::spawn(sweep(account, stop.clone(), every)));
                }
                sweepers
            };
            let mut writers = Vec::new();
            for writer in 1..=WRITERS {
                writers.push(tokio::spawn(write(account_in(bank.clone()).await, writer)));
            }
            for writer in writers {
                writer.await.expect("a writer came to its end");
            }
            stop.cancel();
            for sweeper in sweepers {
                sweeper.await.expect("a sweeper came to its end");
            }
            let account = account_in(Arc::new(memory.clone())).await;
            let living = account.checkpoints().await.expect("listed");
            assert_eq!(living.len() as u128, WRITERS);
            for info in living {
                let report =
                    account.verify(info.id, VerifyMode::All, &Default::default()).await.expect("verified");
                assert!(report.is_whole(), "seed {seed}: {report:?}");
                account.delete(info.id).await.expect("deleted");
            }
            let all: karbor_vault::MayFence = Arc::new(|_: &str| true);
            for _ in 0..3 {
                let options = SweepOptions { may_fence: Some(all.clone()), ..SweepOptions::default() };
                account.sweep(&options).await.expect("swept");
            }
            let packs = memory.contents().iter().filter(|(key, _)| key.as_str().contains("/packs/")).count();
            assert_eq!(packs, 0, "seed {seed}");
        });
    }
}
