//! The damage matrix: each kind of object, missing, cut, flipped, swapped. What is lost is named, the rest restores,
//! and what can be healed heals.

use std::sync::Arc;

use karbor_bank::{Bank, Key, MemoryBank, PutMode};
use karbor_types::Instant;
use karbor_vault::{
    Account, BlockOptions, CopyOptions, DamagedRange, ErrorKind, ScrubOptions, ScrubReport, VerifyMode, scrub,
};

use crate::support::{
    Bytes, Memory, account, account_id, account_in, begin, checkpoint, commit, master, noise, options,
    resource, session,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Missing,
    Cut,
    Flipped,
    Swapped,
}

const ALL: [Damage; 4] = [Damage::Missing, Damage::Cut, Damage::Flipped, Damage::Swapped];

async fn replace(bank: &MemoryBank, key: &Key, bytes: Vec<u8>) {
    bank.put(key, vec![bytes.into()], PutMode::Overwrite).await.unwrap();
}

/// Damages an object; `other` is one of the same kind.
async fn damage(bank: &MemoryBank, key: &Key, other: &Key, damage: Damage) {
    let read = async |key: &Key| bank.get(key, None).await.unwrap().bytes.to_vec();
    let mut bytes = read(key).await;
    match damage {
        Damage::Missing => bank.delete(key).await.unwrap(),
        Damage::Cut => {
            bytes.truncate(bytes.len() / 2);
            replace(bank, key, bytes).await;
        }
        Damage::Flipped => {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            replace(bank, key, bytes).await;
        }
        Damage::Swapped => {
            let there = read(other).await;
            replace(bank, key, there).await;
            replace(bank, other, bytes).await;
        }
    }
}

fn keys(bank: &MemoryBank, area: &str) -> Vec<Key> {
    let area = format!("accounts/a/{area}/");
    bank.contents().into_iter().map(|(key, _)| key).filter(|key| key.as_str().starts_with(&area)).collect()
}

/// Two checkpoints of different sources: packs, index, commits of both.
async fn two() -> (MemoryBank, Account, [Vec<u8>; 2]) {
    let (bank, account) = account().await;
    let sources = [noise(1, 11 << 20), noise(2, 7 << 20)];
    for (n, bytes) in (1..).zip(&sources) {
        backup(&account, n, bytes).await;
    }
    (bank, account, sources)
}

async fn backup(account: &Account, n: u128, bytes: &[u8]) {
    let writer = begin(account, n, None).await;
    let source = Bytes::new(bytes.to_vec());
    writer.resource(&resource("v")).put_blocks("data", source, &BlockOptions::default()).await.unwrap();
    commit(&writer, n).await;
}

async fn fresh(bank: &MemoryBank) -> Account {
    account_in(Arc::new(bank.clone())).await
}

async fn scrubbed(bank: &MemoryBank) -> ScrubReport {
    let options = ScrubOptions {
        state: None,
        account: None,
        now: Instant::from_micros(1),
        checked_before: None,
        bytes_per_second: None,
        threads: std::num::NonZeroUsize::MIN,
        progress: None,
        cancel: Default::default(),
    };
    scrub(Arc::new(bank.clone()), &options).await.unwrap()
}

/// Restores what can be restored; says what was named as damaged, and that all else is right.
async fn restore(account: &Account, n: u128, expected: &[u8]) -> Vec<DamagedRange> {
    let reader = account.read(checkpoint(n)).await.unwrap();
    let stream = reader.open_stream(&resource("v"), "data").await.unwrap();
    let target = Arc::new(Memory::default());
    let report = stream.copy_to(target.clone(), &CopyOptions::default()).await.unwrap();
    let restored = target.0.lock().unwrap().clone();
    let mut at = 0;
    for damaged in &report.damaged {
        let start = usize::try_from(damaged.range.start).unwrap();
        assert!(restored[at..start] == expected[at..start], "what is not named must be right");
        assert!(
            restored[start..][..16].iter().all(|byte| *byte == 0xee),
            "nothing is written where it is lost"
        );
        assert_eq!(damaged.stream.as_deref(), Some("data"));
        assert_eq!(damaged.checkpoint, Some(checkpoint(n)));
        at = usize::try_from(damaged.range.end).unwrap();
    }
    assert!(restored[at..] == expected[at..], "what is not named must be right");
    let mut out = Vec::new();
    let in_order = stream.copy_out(&mut out, &CopyOptions::default()).await;
    assert_eq!(in_order.is_err(), !report.damaged.is_empty());
    if let Err(err) = in_order {
        assert_eq!(err.kind(), ErrorKind::Damaged);
    }
    report.damaged
}

#[tokio::test]
async fn damage_to_packs_is_named_and_healed_by_the_next_backup() {
    for how in ALL {
        for kind in ["data", "meta"] {
            let (bank, account, sources) = two().await;
            let packs: Vec<Key> = keys(&bank, "packs");
            // The pack of manifest nodes of a session is much smaller than those of data.
            let of = |n: u128| {
                let session = session(n, 1).to_string();
                let mut own: Vec<(usize, Key)> = bank
                    .contents()
                    .into_iter()
                    .filter(|(key, _)| packs.contains(key) && key.as_str().contains(&session))
                    .map(|(key, bytes)| (bytes.len(), key))
                    .collect();
                own.sort();
                if kind == "meta" { own[0].1.clone() } else { own[1].1.clone() }
            };
            damage(&bank, &of(1), &of(2), how).await;
            let case = format!("{kind} pack {how:?}");
            drop(account);
            let account = fresh(&bank).await;
            let verified =
                account.verify(checkpoint(1), VerifyMode::All, &CopyOptions::default()).await.unwrap();
            assert!(!verified.is_whole(), "{case}");
            let named = restore(&account, 1, &sources[0]).await;
            let ranges =
                |damaged: &[DamagedRange]| damaged.iter().map(|d| d.range.clone()).collect::<Vec<_>>();
            assert_eq!(ranges(&named), ranges(&verified.damaged), "{case}");
            let lost: u64 = named.iter().map(|d| d.range.end - d.range.start).sum();
            let all = sources[0].len() as u64;
            assert_eq!(lost == all, kind == "meta", "{case}: {lost} of {all} lost");
            if how != Damage::Swapped {
                assert_eq!(restore(&account, 2, &sources[1]).await, [], "{case}");
            }
            let expected = match how {
                Damage::Missing => 0,
                Damage::Cut | Damage::Flipped => 1,
                Damage::Swapped => 2,
            };
            assert_eq!(scrubbed(&bank).await.damaged.len(), expected, "{case}");
            // What was found is marked, so the next backup of the same source stores it again; and since the chunks
            // are the same, the old checkpoint is whole again as well.
            backup(&account, 3, &sources[0]).await;
            backup(&account, 4, &sources[1]).await;
            for (n, bytes) in [(1, &sources[0]), (2, &sources[1]), (3, &sources[0]), (4, &sources[1])] {
                assert_eq!(restore(&account, n, bytes).await, [], "{case}: checkpoint {n}");
                let again =
                    account.verify(checkpoint(n), VerifyMode::All, &CopyOptions::default()).await.unwrap();
                assert!(again.is_whole(), "{case}: checkpoint {n}: {:?}", again.damaged);
            }
        }
    }
}

#[tokio::test]
async fn a_scrub_alone_takes_a_damaged_pack_out_of_deduplication() {
    let (bank, account, sources) = two().await;
    let pack = keys(&bank, "packs").into_iter().next().unwrap();
    damage(&bank, &pack, &pack, Damage::Flipped).await;
    assert_eq!(scrubbed(&bank).await.damaged.len(), 1);
    backup(&account, 3, &sources[0]).await;
    let report = account.verify(checkpoint(3), VerifyMode::All, &CopyOptions::default()).await.unwrap();
    assert!(report.is_whole(), "{report:?}");
}

#[tokio::test]
async fn damage_to_the_index_is_survived_and_repaired_from_the_packs() {
    for how in ALL {
        let (bank, account, sources) = two().await;
        let objects = keys(&bank, "index");
        drop(account);
        damage(&bank, &objects[0], &objects[1], how).await;
        let account = fresh(&bank).await;
        // A backup does without it, and is whole.
        let extra = noise(3, 2 << 20);
        backup(&account, 3, &extra).await;
        assert_eq!(restore(&account, 3, &extra).await, []);
        let report = account.rebuild_index().await.unwrap();
        assert_eq!(
            report.damaged.len(),
            usize::from(how == Damage::Cut || how == Damage::Flipped),
            "{how:?}"
        );
        for (n, bytes) in [(1, &sources[0]), (2, &sources[1]), (3, &extra)] {
            assert_eq!(restore(&account, n, bytes).await, [], "{how:?}: checkpoint {n}");
        }
    }
}

#[tokio::test]
async fn a_damaged_commit_record_is_told_and_the_others_are_read() {
    for how in ALL {
        let (bank, account, sources) = two().await;
        let of = |n: u128| Key::new(format!("accounts/a/commits/{}", session(n, 1))).unwrap();
        damage(&bank, &of(1), &of(2), how).await;
        let listed = account.list_checkpoints(None, 10).await.unwrap();
        let (good, bad): (Vec<_>, Vec<_>) = listed.into_iter().partition(|(_, info)| info.is_ok());
        let expected = match how {
            Damage::Missing => (1, 0),
            Damage::Cut | Damage::Flipped => (1, 1),
            Damage::Swapped => (0, 2),
        };
        assert_eq!((good.len(), bad.len()), expected, "{how:?}");
        for (_, err) in bad {
            assert_eq!(err.err().map(|err| err.kind()), Some(ErrorKind::Damaged), "{how:?}");
        }
        if how != Damage::Swapped {
            assert_eq!(restore(&account, 2, &sources[1]).await, [], "{how:?}");
            let kind = if how == Damage::Missing { ErrorKind::NotFound } else { ErrorKind::Damaged };
            assert_eq!(account.read(checkpoint(1)).await.err().map(|err| err.kind()), Some(kind), "{how:?}");
        }
        if how != Damage::Missing {
            // A sweep frees nothing while it cannot know what lives; and there is a way out.
            let swept = account.sweep(&Default::default()).await;
            assert_eq!(swept.err().map(|err| err.kind()), Some(ErrorKind::Damaged), "{how:?}");
            account.delete(checkpoint(1)).await.unwrap();
            if how != Damage::Swapped {
                account.sweep(&Default::default()).await.unwrap();
                assert_eq!(restore(&account, 2, &sources[1]).await, [], "{how:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_damaged_key_slot_is_told_and_another_opens() {
    for how in ALL {
        let (bank, account, sources) = two().await;
        let first = keys(&bank, "keys").remove(0);
        // A second slot, for another master key, and one of another account to swap with.
        account.rotate(&[], &master(2)).await.unwrap();
        let other =
            Account::create(Arc::new(bank.clone()), account_id("b"), &master(1), options()).await.unwrap();
        let theirs = Key::new(first.as_str().replace("accounts/a/", "accounts/b/")).unwrap();
        drop((account, other));
        damage(&bank, &first, &theirs, how).await;
        let open = async |seed| {
            Account::open(Arc::new(bank.clone()), account_id("a"), &[master(seed)], options()).await
        };
        let err = open(1).await.expect_err("the slot is damaged").kind();
        let expected = if how == Damage::Missing { ErrorKind::WrongKey } else { ErrorKind::Damaged };
        assert_eq!(err, expected, "{how:?}");
        let account = open(2).await.expect("the other slot is whole");
        assert_eq!(restore(&account, 1, &sources[0]).await, []);
    }
}

#[tokio::test]
async fn a_lost_pack_stops_sweeps_until_somebody_decides() {
    let (bank, account, sources) = two().await;
    let pack = keys(&bank, "packs").into_iter().next().unwrap();
    bank.delete(&pack).await.unwrap();
    backup(&account, 9, &noise(9, 1 << 20)).await;
    account.delete(checkpoint(9)).await.unwrap();
    let before = keys(&bank, "packs").len();
    assert_eq!(
        account.sweep(&Default::default()).await.err().map(|err| err.kind()),
        Some(ErrorKind::Damaged)
    );
    assert_eq!(keys(&bank, "packs").len(), before);
    let despite = karbor_vault::SweepOptions { despite_missing_chunks: true, ..Default::default() };
    account.sweep(&despite).await.unwrap();
    assert!(keys(&bank, "packs").len() < before);
    let lost = restore(&account, 1, &sources[0]).await.len() + restore(&account, 2, &sources[1]).await.len();
    assert!(lost > 0);
}
