//! Identity, for whatever bytes, holes, cuts and bases.

use std::ops::Range;
use std::sync::Arc;

use karbor_vault::{Account, BlockOptions};
use proptest::prelude::*;

use crate::support::{
    Bytes, Memory, account, begin, checkpoint, commit, noise, read_stream, resource, session,
};

const CHUNK: u32 = 64 << 10;

/// A source as parts: noise, zeros that are data, text that compresses, or a hole.
#[derive(Debug, Clone)]
enum Part {
    Noise(u64, usize),
    Zeros(usize),
    Text(u8, usize),
    Hole(usize),
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let part = prop_oneof![
        (0..4u64, 1..300_000usize).prop_map(|(seed, len)| Part::Noise(seed, len)),
        (1..200_000usize).prop_map(Part::Zeros),
        (any::<u8>(), 1..200_000usize).prop_map(|(byte, len)| Part::Text(byte, len)),
        (1..500_000usize).prop_map(Part::Hole),
    ];
    prop::collection::vec(part, 0..6)
}

fn lay_out(parts: &[Part]) -> (Vec<u8>, Vec<Range<u64>>) {
    let mut bytes = Vec::new();
    let mut holes = Vec::new();
    for part in parts {
        let start = bytes.len();
        match part {
            Part::Noise(seed, len) => bytes.extend(noise(*seed, *len)),
            Part::Zeros(len) => bytes.resize(start + len, 0),
            Part::Text(byte, len) => {
                bytes.extend((0..*len).map(|n| byte.wrapping_add(u8::try_from(n / 97 % 7).unwrap())));
            }
            Part::Hole(len) => {
                bytes.resize(start + len, 0);
                holes.push(start as u64..bytes.len() as u64);
            }
        }
    }
    (bytes, holes)
}

/// Where the bytes of two versions differ, as a source would tell it: coarser than it is.
fn changes(old: &[u8], new: &[u8], grain: usize) -> Vec<Range<u64>> {
    let mut changed = Vec::new();
    for start in (0..new.len()).step_by(grain) {
        let end = (start + grain).min(new.len());
        if old.get(start..end) != Some(&new[start..end]) {
            changed.push(start as u64..end as u64);
        }
    }
    changed
}

async fn put(
    account: &Account,
    n: u128,
    base: Option<u128>,
    parts: &[Part],
    changed: Option<Vec<Range<u64>>>,
) -> u64 {
    let (bytes, holes) = lay_out(parts);
    let writer = begin(account, n, base).await;
    let volume = writer.resource(&resource("v"));
    let options = BlockOptions { chunk_bytes: Some(CHUNK), changed, ..BlockOptions::default() };
    let source = Bytes::with_holes(bytes.clone(), holes);
    volume.put_blocks("blocks", source.clone(), &options).await.expect("stored");
    volume.put_stream("stream", &mut bytes.as_slice(), &Default::default()).await.expect("stored");
    commit(&writer, n).await;
    source.read.load(std::sync::atomic::Ordering::Relaxed)
}

async fn check(account: &Account, n: u128, expected: &[u8], cuts: &[(usize, usize)]) {
    let key = resource("v");
    for name in ["blocks", "stream"] {
        assert!(read_stream(account, n, &key, name).await == expected, "{name} differs");
        let reader = account.read(checkpoint(n)).await.expect("opens");
        let stream = reader.open_stream(&key, name).await.expect("opens");
        for (offset, len) in cuts {
            let from = (*offset).min(expected.len());
            let to = (from + len).min(expected.len());
            let part = stream.read_at(*offset as u64, *len).await.expect("reads");
            assert!(part == expected[from..to], "{name} at {offset} for {len}");
        }
        let same =
            stream.compare(Bytes::new(expected.to_vec()), &Default::default()).await.expect("compared");
        assert_eq!((same.different, same.compared_bytes), (vec![], expected.len() as u64));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_stored_comes_back(
        first in parts(),
        second in parts(),
        keep in 0..6usize,
        grain in prop::sample::select(vec![4096usize, 70_000, 1 << 20]),
        cuts in prop::collection::vec((0..1_500_000usize, 0..200_000usize), 1..5),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let (_, account) = account().await;
            put(&account, 1, None, &first, None).await;
            let old = lay_out(&first).0;
            check(&account, 1, &old, &cuts).await;
            // The second shares a beginning with the first, of another length than it.
            let mut next: Vec<Part> = first.iter().take(keep).cloned().collect();
            next.extend(second);
            let new = lay_out(&next).0;
            put(&account, 2, Some(1), &next, None).await;
            check(&account, 2, &new, &cuts).await;
            let changed = changes(&old, &new, grain);
            put(&account, 3, Some(1), &next, Some(changed)).await;
            check(&account, 3, &new, &cuts).await;
            check(&account, 1, &old, &cuts).await;
        });
    }
}

#[tokio::test]
async fn a_difference_is_named_by_its_chunk() {
    let (_, account) = account().await;
    let bytes = noise(1, 1 << 20);
    let writer = begin(&account, 1, None).await;
    let options = BlockOptions { chunk_bytes: Some(CHUNK), ..BlockOptions::default() };
    writer.resource(&resource("v")).put_blocks("b", Bytes::new(bytes.clone()), &options).await.unwrap();
    commit(&writer, 1).await;
    let reader = account.read(checkpoint(1)).await.unwrap();
    let stream = reader.open_stream(&resource("v"), "b").await.unwrap();
    let mut other = bytes;
    other[200_000] ^= 1;
    other.push(7);
    let report = stream.compare(Bytes::new(other), &Default::default()).await.unwrap();
    let chunk = u64::from(CHUNK);
    assert_eq!(report.different, [3 * chunk..4 * chunk, 1 << 20..(1 << 20) + 1]);
}

/// A large volume whose change costs what the change is worth: neither data nor manifests of the rest are read.
#[tokio::test]
async fn a_change_costs_in_proportion_to_itself() {
    let (_, account) = account().await;
    let mut bytes = vec![0; 80 << 20];
    for piece in bytes.chunks_mut(CHUNK as usize) {
        // Different pieces that take little memory to make and to store.
        let seed = piece.as_ptr() as usize;
        piece[..8].copy_from_slice(&seed.to_le_bytes());
    }
    let options = BlockOptions { chunk_bytes: Some(CHUNK), ..BlockOptions::default() };
    let first = begin(&account, 1, None).await;
    first.resource(&resource("v")).put_blocks("b", Bytes::new(bytes.clone()), &options).await.unwrap();
    commit(&first, 1).await;
    bytes[70 << 20] ^= 0xff;
    let at = 70u64 << 20;
    let source = Bytes::new(bytes.clone());
    let second = begin(&account, 2, Some(1)).await;
    let changed = BlockOptions { changed: Some(std::iter::once(at..at + 1).collect()), ..options };
    let stream = second.resource(&resource("v")).put_blocks("b", source.clone(), &changed).await.unwrap();
    commit(&second, 2).await;
    assert_eq!(source.read.load(std::sync::atomic::Ordering::Relaxed), u64::from(CHUNK));
    assert_eq!((stream.stats.new_chunks, stream.stats.read_bytes), (1, u64::from(CHUNK)));
    // One leaf of 1024 pieces is told piece by piece; the other is one reference.
    assert!(stream.stats.chunks <= 1024, "{:?}", stream.stats);
    assert!(read_stream(&account, 2, &resource("v"), "b").await == bytes);
}

#[tokio::test]
async fn many_streams_at_once_store_what_they_share_once() {
    let (_, account) = account().await;
    let writer = begin(&account, 1, None).await;
    let bytes = noise(7, 3 << 20);
    let tasks: Vec<_> = (0..8)
        .map(|n| {
            let volume = writer.resource(&resource(&n.to_string()));
            let source = Bytes::new(bytes.clone());
            tokio::spawn(async move { volume.put_blocks("b", source, &BlockOptions::default()).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    commit(&writer, 1).await;
    let stats = writer.stats();
    assert_eq!((stats.new_chunks, stats.known_chunks), (3, 21));
    for n in 0..8 {
        assert!(read_stream(&account, 1, &resource(&n.to_string()), "b").await == bytes);
    }
}

/// Every future that callers box must be `Send`.
#[test]
fn futures_can_move_between_threads() {
    fn send<T: Send>(
        _: impl FnOnce(Account, karbor_vault::CheckpointWriter, karbor_vault::StreamReader) -> T,
    ) {
    }
    send(|account, writer, stream| async move {
        let base = Default::default();
        account.begin(&session(1, 1), &base).await.ok();
        account.checkpoints().await.ok();
        account.list_checkpoints(None, 1).await.ok();
        account.sweep(&Default::default()).await.ok();
        account.stats().await.ok();
        account.rebuild_index().await.ok();
        account.delete(checkpoint(1)).await.ok();
        let mode = karbor_vault::VerifyMode::All;
        account.verify(checkpoint(1), mode, &Default::default()).await.ok();
        let key = resource("v");
        let volume = writer.resource(&key);
        let source: Arc<Bytes> = Bytes::new(Vec::new());
        volume.put_blocks("b", source.clone(), &Default::default()).await.ok();
        volume.put_stream("s", &mut [].as_slice(), &Default::default()).await.ok();
        writer.adopt(&key, &volume.save()).await.ok();
        writer.commit(checkpoint(1), Default::default(), Default::default()).await.ok();
        writer.abandon().await.ok();
        stream.copy_to(Arc::new(Memory::default()), &Default::default()).await.ok();
        stream.copy_out(&mut Vec::new(), &Default::default()).await.ok();
        stream.compare(source, &Default::default()).await.ok();
        stream.read_at(0, 1).await.ok();
    });
}
