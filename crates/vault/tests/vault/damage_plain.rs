//! The damage matrix of the protocol's plain objects: accounts, sessions, tombstones, fences, marks, and all that
//! sweepers list. Whatever happens to one of them, no wrong byte is read; an error names the object; and a
//! checkpoint that could be read stays so, also after a sweep that met the damage.

use std::sync::Arc;

use karbor_bank::{Bank, Key, MemoryBank, PutMode};
use karbor_vault::{Account, BlockOptions, CheckpointWriter, CopyOptions, Error, SweepOptions};

use crate::support::{
    Bytes, account, account_id, begin, checkpoint, commit, master, noise, options, resource,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Missing,
    Cut,
    Flipped,
    Swapped,
}

const ALL: [Damage; 4] = [Damage::Missing, Damage::Cut, Damage::Flipped, Damage::Swapped];

/// Which kinds the world below has.
const KINDS: [&str; 10] =
    ["account", "acks", "bad", "commits", "condemned", "deleted", "done", "final", "sessions", "sweeps"];

async fn put(writer: &CheckpointWriter, bytes: &[u8]) {
    let source = Bytes::new(bytes.to_vec());
    writer.resource(&resource("v")).put_blocks("data", source, &BlockOptions::default()).await.unwrap();
}

async fn backup(account: &Account, n: u128, bytes: &[u8]) {
    let writer = begin(account, n, None).await;
    put(&writer, bytes).await;
    commit(&writer, n).await;
}

/// A bank in the middle of everything: two checkpoints that live, two that were deleted, one of them swept; a sweep
/// that waits for one writer while another has answered; a fence; and marks of what could not be read.
async fn world() -> (MemoryBank, Vec<CheckpointWriter>, [Vec<u8>; 2]) {
    let (bank, account) = account().await;
    let living = [noise(1, 6 << 20), noise(2, 3 << 20)];
    backup(&account, 1, &living[0]).await;
    backup(&account, 2, &living[1]).await;
    for (n, gone) in [(3, 1), (4, 2)] {
        backup(&account, n, &noise(30 + gone, 2 << 20)).await;
        account.delete(checkpoint(n)).await.unwrap();
        let fence_all = SweepOptions { may_fence: Some(Arc::new(|_: &str| true)), ..Default::default() };
        let fenced = begin(&account, 10 + n, None).await;
        assert!(account.sweep(&fence_all).await.unwrap().finished);
        drop(fenced);
    }
    for n in [5, 6] {
        backup(&account, n, &noise(50, 2 << 20)).await;
        account.delete(checkpoint(n)).await.unwrap();
    }
    let writers = vec![begin(&account, 7, None).await, begin(&account, 8, None).await];
    put(&writers[0], &noise(70, 1 << 20)).await;
    assert!(!account.sweep(&SweepOptions::default()).await.unwrap().finished);
    writers[0].check_sweeps().await.unwrap();
    // Marks of two packs that are whole: what they say is believed until somebody has read them.
    for (key, _) in bank.contents().into_iter().filter(|(key, _)| key.as_str().contains("/packs/")).take(2) {
        let hash = key.as_str().rsplit('/').next().unwrap();
        let mark = Key::new(format!("accounts/a/bad/{hash}/pack")).unwrap();
        bank.put(&mark, vec![br#"{"format":1}"#.to_vec().into()], PutMode::Create).await.unwrap();
    }
    // Another account, to swap the only object of its kind with.
    Account::create(Arc::new(bank.clone()), account_id("b"), &master(1), options()).await.unwrap();
    (bank, writers, living)
}

fn kind_of(key: &Key) -> Option<&str> {
    key.as_str().strip_prefix("accounts/a/")?.split('/').next()
}

/// Returns the plain objects of the account, and for each another of its kind.
fn plain(bank: &MemoryBank) -> Vec<(Key, Key)> {
    let all: Vec<Key> = bank
        .contents()
        .into_iter()
        // Commit records are sealed and have a matrix of their own.
        .filter(|(key, bytes)| {
            kind_of(key).is_some_and(|kind| KINDS.contains(&kind)) && bytes.starts_with(b"{")
        })
        .map(|(key, _)| key)
        .collect();
    let other = |key: &Key| {
        let same = all.iter().find(|other| *other != key && kind_of(other) == kind_of(key)).cloned();
        same.unwrap_or_else(|| match kind_of(key) {
            Some("account") => Key::new("accounts/b/account").unwrap(),
            // The only fence or acknowledgement: with a tombstone.
            _ => all.iter().find(|other| kind_of(other) == Some("deleted")).cloned().unwrap(),
        })
    };
    all.iter().map(|key| (key.clone(), other(key))).collect()
}

async fn damage(bank: &MemoryBank, key: &Key, other: &Key, how: Damage) {
    let read = async |key: &Key| bank.get(key, None).await.unwrap().bytes.to_vec();
    let write = async |key: &Key, bytes: Vec<u8>| {
        bank.put(key, vec![bytes.into()], PutMode::Overwrite).await.unwrap();
    };
    let mut bytes = read(key).await;
    match how {
        Damage::Missing => bank.delete(key).await.unwrap(),
        Damage::Cut => {
            bytes.truncate(bytes.len() / 2);
            write(key, bytes).await;
        }
        Damage::Flipped => {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            write(key, bytes).await;
        }
        Damage::Swapped => {
            let there = read(other).await;
            write(key, there).await;
            write(other, bytes).await;
        }
    }
}

/// Opens the account anew, as another process would, and reads a checkpoint.
async fn read(bank: &MemoryBank, n: u128) -> Result<Vec<u8>, Error> {
    let account = open(bank).await?;
    let reader = account.read(checkpoint(n)).await?;
    let stream = reader.open_stream(&resource("v"), "data").await?;
    let mut out = Vec::new();
    stream.copy_out(&mut out, &CopyOptions::default()).await?;
    reader.close().await?;
    Ok(out)
}

async fn open(bank: &MemoryBank) -> Result<Account, Error> {
    Account::open(Arc::new(bank.clone()), account_id("a"), &[master(1)], options()).await
}

/// Says what an error and its causes say.
fn whole(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[tokio::test]
async fn no_plain_object_that_is_damaged_costs_a_checkpoint() {
    let (bank, _, _) = world().await;
    let mut met: Vec<&str> = Vec::new();
    let all = plain(&bank);
    met.extend(all.iter().filter_map(|(key, _)| kind_of(key)));
    met.dedup();
    assert_eq!(met, KINDS, "the world has them all");
    for (key, _) in &all {
        for how in ALL {
            let (bank, writers, living) = world().await;
            // Ids of sessions are the same in every world, hashes are not.
            let Some((key, other)) = plain(&bank).into_iter().find(|(there, _)| {
                there == key || (kind_of(key) == Some("bad") && kind_of(there) == Some("bad"))
            }) else {
                panic!("{key} is in no other world")
            };
            damage(&bank, &key, &other, how).await;
            let case = format!("{key} {how:?}");
            let named = |error: &Error| {
                let text = whole(error);
                // An account that cannot be opened is told by its name.
                let of_account = kind_of(&key) == Some("account") && text.contains("account a");
                assert!(
                    of_account || text.contains(key.as_str()) || text.contains(other.as_str()),
                    "{case}: {text}"
                );
            };
            // Without the account's key nothing is read; nothing else costs a reader anything.
            let readable = kind_of(&key) != Some("account");
            for turn in ["before", "after"] {
                for (n, bytes) in (1..).zip(&living) {
                    match read(&bank, n).await {
                        Ok(out) => assert!(out == *bytes, "{case}: wrong bytes {turn} a sweep"),
                        Err(err) if readable => panic!("{case}: lost {turn} a sweep: {}", whole(&err)),
                        Err(err) => named(&err),
                    }
                }
                for fences in [false, true] {
                    let Ok(account) = open(&bank).await else { continue };
                    let may_fence: Option<karbor_vault::MayFence> =
                        if fences { Some(Arc::new(|_: &str| true)) } else { None };
                    let options = SweepOptions { may_fence, ..Default::default() };
                    if let Err(err) = account.sweep(&options).await {
                        named(&err);
                    }
                }
            }
            drop(writers);
        }
    }
}
