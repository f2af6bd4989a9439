use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::future::poll_fn;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::pin::pin;
use std::task::Poll;

use karbor_bank::wrap::{Fault, Faulty, Rule};
use karbor_bank::{Bank, MemoryBank, PutMode};
use karbor_chunk::{AccountKey, Codec, IndexBuilder, PackInfo, PackKind, Salt, SeededEntropy, UsedSalt};
use karbor_sweep::{IndexObject, Place};
use karbor_types::AccountId;

use super::*;
use crate::index::dir::Dir;
use crate::index::merge::merge;

/// A name that is as random as names are.
fn id(n: u64) -> ChunkId {
    ChunkId(karbor_chunk::ObjectHash::of(&n.to_le_bytes()).0)
}

fn pack(n: u64) -> PackRef {
    PackRef {
        session: karbor_chunk::SessionId::new(uuid::Uuid::from_u128(u128::from(n % 3)), 1),
        info: PackInfo {
            hash: karbor_chunk::ObjectHash::of(&n.to_be_bytes()),
            kind: PackKind::Data,
            salt: UsedSalt([7; 32]),
            size_bytes: 1 << 29,
        },
    }
}

/// A pack of chunks; offsets as a pack has them.
fn chunks(ids: impl Iterator<Item = u64>) -> Vec<PackEntry> {
    let mut offset = 48;
    let entry = |n: u64| {
        let stored_len = 100 + u32::try_from(n % 900).unwrap();
        let entry = PackEntry { id: id(n), offset, stored_len, raw_len: 4096, codec: Codec::Zstd };
        offset += stored_len;
        entry
    };
    ids.map(entry).collect()
}

fn run_of(dir: &Dir, ids: std::ops::Range<u64>, number: u64) -> Run {
    let entropy = SeededEntropy::new(number);
    let (file, _) = dir.create(&entropy).unwrap();
    let packs = [pack(number)];
    let mut entries: Vec<RunEntry> =
        chunks(ids).into_iter().map(|chunk| RunEntry { pack: 0, chunk }).collect();
    entries.sort_by_key(|entry| entry.chunk.id);
    let mut writer = RunWriter::create(file, packs.iter(), entries.len() as u64).unwrap();
    for entry in &entries {
        writer.push(entry).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn a_run_finds_what_it_holds_and_nothing_else() {
    for count in [0, 1, 31, 1000, 40_000] {
        let run = run_of(&Dir::nameless(), 0..count, 1);
        assert_eq!(run.len(), count);
        let mut found = Vec::new();
        for n in 0..count {
            run.find(&id(n), &mut found).unwrap();
            let hit = found.pop().expect("it is there");
            assert!(hit.entry.chunk.id == id(n) && found.is_empty());
        }
        for n in count..count + 5000 {
            run.find(&id(n), &mut found).unwrap();
        }
        assert!(found.is_empty());
        let scanned: Vec<ChunkId> = run.scan().map(|entry| entry.unwrap().chunk.id).collect();
        assert!(scanned.is_sorted() && scanned.len() as u64 == count);
    }
}

#[test]
fn merged_runs_hold_what_each_held_once_and_without_what_is_refused() {
    let dir = Dir::nameless();
    let runs: Vec<Arc<Run>> =
        [(0..1000, 1), (500..1500, 2), (0..1000, 1)].map(|(ids, n)| Arc::new(run_of(&dir, ids, n))).into();
    let file = dir.create(&SeededEntropy::new(9)).unwrap().0;
    let all = merge(&runs, file, &|_| true).unwrap();
    assert_eq!((all.len(), all.pack_count()), (2000, 2));
    let view = View::new(vec![Arc::new(all)]);
    assert_eq!(view.find(&id(700)).unwrap().len(), 2);
    assert_eq!(view.find(&id(100)).unwrap()[0].pack, pack(1));
    let file = dir.create(&SeededEntropy::new(10)).unwrap().0;
    let gone = pack_name(&pack(1));
    let rest = merge(&runs, file, &|pack| *pack != gone).unwrap();
    assert_eq!((rest.len(), rest.pack_count()), (1000, 1));
}

#[test]
fn damage_anywhere_in_a_run_is_noticed_before_anything_is_believed() {
    let directory = tempfile::tempdir().unwrap();
    let dir = Dir::open(directory.path()).unwrap();
    let (file, name) = dir.create(&SeededEntropy::new(1)).unwrap();
    let packs = [pack(1)];
    let mut writer = RunWriter::create(file, packs.iter(), 200).unwrap();
    let mut entries: Vec<RunEntry> =
        chunks(0..200).into_iter().map(|chunk| RunEntry { pack: 0, chunk }).collect();
    entries.sort_by_key(|entry| entry.chunk.id);
    entries.iter().for_each(|entry| writer.push(entry).unwrap());
    drop(writer.finish().unwrap());
    let path = dir.path().join(name.unwrap());
    let whole = fs::read(&path).unwrap();
    let read_all = |path: &Path| -> io::Result<BTreeMap<ChunkId, Location>> {
        let view = View::new(vec![Arc::new(Run::open(fs::File::open(path)?)?)]);
        let mut all = BTreeMap::new();
        for n in 0..200 {
            let found = view.find(&id(n))?;
            all.extend(found.first().map(|location| (id(n), *location)));
        }
        Ok(all)
    };
    let expected = read_all(&path).unwrap();
    assert_eq!(expected.len(), 200);
    for at in 0..whole.len() {
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[whole[at] ^ 0x40], at as u64).unwrap();
        match read_all(&path) {
            Err(err) => assert_eq!(err.kind(), io::ErrorKind::InvalidData, "byte {at}"),
            // Bytes that mean nothing may be anything.
            Ok(all) => assert!(all == expected, "byte {at}"),
        }
        file.write_all_at(&whole[at..=at], at as u64).unwrap();
    }
    for len in [0, 79, 80, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..len]).unwrap();
        assert!(read_all(&path).is_err(), "cut to {len}");
    }
}

struct Fixture {
    bank: MemoryBank,
    place: Place,
    key: AccountKey,
}

impl Fixture {
    fn new() -> Self {
        let bank = MemoryBank::new();
        let place = Place::of_account(Arc::new(bank.clone()), &AccountId::new("a").unwrap());
        let key = AccountKey::generate(&SeededEntropy::new(1)).unwrap();
        Self { bank, place, key }
    }

    /// Puts an index object that tells of one pack, and the pack's key.
    async fn put(&self, number: u64, ids: std::ops::Range<u64>) {
        let mut builder = IndexBuilder::new();
        builder.add_pack(pack(number), &chunks(ids)).unwrap();
        let salt = Salt::generate(&SeededEntropy::new(number + 100)).unwrap();
        let sealed = builder.finish(&self.key, salt).unwrap();
        let name = pack_name(&pack(number));
        let hash = ObjectHash::from_bytes(sealed.hash.0);
        let put = |key, bytes: Vec<u8>| {
            let bank = self.bank.clone();
            async move { bank.put(&key, vec![bytes.into()], PutMode::Create).await.unwrap() }
        };
        put(self.place.pack_key(&name), vec![0]).await;
        put(self.place.index_key(&name.session, &hash), sealed.bytes).await;
    }

    async fn listed(&self) -> Vec<IndexObject> {
        karbor_sweep::list_index(&self.place).await.unwrap()
    }

    fn cache(&self, root: Option<&Path>) -> IndexCache {
        let entropy = Arc::new(karbor_chunk::SystemEntropy);
        IndexCache::open(root.map(Path::to_owned), self.place.clone(), self.key.clone(), entropy).unwrap()
    }
}

#[tokio::test]
async fn a_cache_reads_each_object_once_and_again_after_it_was_deleted() {
    let fixture = Fixture::new();
    for n in 0..30 {
        fixture.put(n, n * 100..n * 100 + 100).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let cache = fixture.cache(Some(directory.path()));
    let view = cache.refresh(&fixture.listed().await).await.unwrap().view;
    assert_eq!(view.find(&id(2950)).unwrap().len(), 1);
    drop(cache);
    // The objects themselves are not needed again.
    let listed = fixture.listed().await;
    for object in &listed {
        fixture.bank.delete(&object.key).await.unwrap();
    }
    let cache = fixture.cache(Some(directory.path()));
    let refreshed = cache.refresh(&listed).await.unwrap();
    assert!(!refreshed.vanished);
    assert_eq!(refreshed.view.find(&id(17)).unwrap().len(), 1);
    // Two processes do not share a directory; the second one finds nothing to read.
    let second = fixture.cache(Some(directory.path()));
    assert!(second.refresh(&listed).await.unwrap().vanished);
    drop((cache, second));
    fs::remove_dir_all(directory.path()).unwrap();
    let third = fixture.cache(Some(directory.path()));
    assert!(third.refresh(&listed).await.unwrap().view.find(&id(17)).unwrap().is_empty());
}

#[tokio::test]
async fn a_cache_drops_packs_that_went_with_their_index_objects() {
    let fixture = Fixture::new();
    fixture.put(1, 0..100).await;
    fixture.put(2, 50..150).await;
    let cache = fixture.cache(None);
    cache.refresh(&fixture.listed().await).await.unwrap();
    let name = pack_name(&pack(1));
    fixture.bank.delete(&fixture.place.pack_key(&name)).await.unwrap();
    let listed = fixture.listed().await;
    let of_one = |object: &&IndexObject| object.key.as_str().contains(&name.session.to_string());
    let gone = listed.iter().find(of_one).unwrap().key.clone();
    fixture.bank.delete(&gone).await.unwrap();
    let view = cache.refresh(&fixture.listed().await).await.unwrap().view;
    assert!(view.find(&id(10)).unwrap().is_empty());
    assert_eq!(view.find(&id(70)).unwrap().len(), 1);
}

#[tokio::test]
async fn a_damaged_cache_is_made_anew() {
    let fixture = Fixture::new();
    fixture.put(1, 0..5000).await;
    let directory = tempfile::tempdir().unwrap();
    let cache = fixture.cache(Some(directory.path()));
    let view = cache.refresh(&fixture.listed().await).await.unwrap().view;
    for file in fs::read_dir(directory.path().join(fixture.key.id().to_string()).join("0")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "run") {
            let len = fs::metadata(&path).unwrap().len();
            OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&[0xff; 4096], len / 2).unwrap();
        }
    }
    let failed = (0..5000).find_map(|n| view.find(&id(n)).err()).expect("the damage is noticed");
    let _ = cache.error(failed);
    let view = cache.refresh(&fixture.listed().await).await.unwrap().view;
    for n in 0..5000 {
        assert_eq!(view.find(&id(n)).unwrap().len(), 1);
    }
}

const ENTRIES: &str = "KARBOR_TEST_INDEX_ENTRIES";

/// The child: an index of that many chunks is written, cached and asked.
fn run_child(entries: u64) {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let bank: Arc<dyn Bank> =
            Arc::new(karbor_bank::FileSystemBank::create(directory.path().join("bank")).unwrap());
        let place = Place::of_account(bank.clone(), &AccountId::new("a").unwrap());
        let key = AccountKey::generate(&SeededEntropy::new(1)).unwrap();
        for (number, start) in (0..entries).step_by(60_000).enumerate() {
            let end = entries.min(start + 60_000);
            let mut builder = IndexBuilder::new();
            for (nth, first) in (start..end).step_by(60).enumerate() {
                let pack = pack(number as u64 * 1000 + nth as u64);
                builder.add_pack(pack, &chunks(first..end.min(first + 60))).unwrap();
            }
            let salt = Salt::generate(&karbor_chunk::SystemEntropy).unwrap();
            let sealed = builder.finish(&key, salt).unwrap();
            let session = pack_name(&pack(0)).session;
            let object = place.index_key(&session, &ObjectHash::from_bytes(sealed.hash.0));
            bank.put(&object, vec![sealed.bytes.into()], PutMode::Create).await.unwrap();
        }
        let entropy = Arc::new(karbor_chunk::SystemEntropy);
        let root = directory.path().join("cache");
        let cache = IndexCache::open(Some(root), place.clone(), key, entropy).unwrap();
        let listed = karbor_sweep::list_index(&place).await.unwrap();
        let view = cache.refresh(&listed).await.unwrap().view;
        for n in (0..entries).step_by(997) {
            assert_eq!(view.find(&id(n)).unwrap().len(), 1);
            assert!(view.find(&id(entries + n)).unwrap().is_empty());
        }
    });
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let line = format!("\npeak-kib {}\n", peak.trim().trim_end_matches(" kB").trim());
    std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes()).unwrap();
}

fn peak_of(entries: &str) -> u64 {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "index::tests::memory_does_not_grow_with_the_index", "--nocapture"])
        .env(ENTRIES, entries)
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&child.stdout).into_owned();
    let peak = out.lines().find_map(|line| line.strip_prefix("peak-kib "));
    peak.unwrap_or_else(|| panic!("{out}{}", String::from_utf8_lossy(&child.stderr))).parse().unwrap()
}

#[test]
fn memory_does_not_grow_with_the_index() {
    if let Ok(entries) = std::env::var(ENTRIES) {
        return run_child(entries.parse().unwrap());
    }
    // A batch of entries is full in both. What differs from run to run is how the four index objects that are read at
    // once fall together: some 15 MiB. Were entries held, 1,200,000 more would take 55 MiB more.
    let [small, large] = ["400000", "1600000"].map(peak_of);
    assert!(
        large <= small + (28 << 10),
        "{small} KiB for 400,000 chunks, {large} KiB for four times as many"
    );
    assert!(large <= 80 << 10, "{large} KiB for an index of 1,600,000 chunks");
}

#[tokio::test]
async fn a_refresh_that_is_dropped_or_fails_anywhere_loses_nothing() {
    let fixture = Fixture::new();
    for n in 0..12 {
        fixture.put(n, n * 100..n * 100 + 100).await;
    }
    let before = fixture.listed().await;
    // Then one of them goes with its pack, and another comes.
    let session = pack_name(&pack(3)).session.to_string();
    let gone = before.iter().find(|object| object.key.as_str().contains(&session)).unwrap().clone();
    fixture.put(12, 1200..1300).await;
    let after: Vec<IndexObject> =
        fixture.listed().await.into_iter().filter(|object| object.key != gone.key).collect();
    let whole = |view: &View, to: u64| (0..to).all(|n| view.find(&id(n)).unwrap().len() == 1);

    let directory = tempfile::tempdir().unwrap();
    for waits in 0.. {
        let root = directory.path().join(waits.to_string());
        let cache = fixture.cache(Some(&root));
        cache.refresh(&before).await.unwrap();
        let ended = {
            let mut refresh = pin!(cache.refresh(&after));
            let mut left = waits;
            poll_fn(|context| match refresh.as_mut().poll(context) {
                Poll::Ready(done) => Poll::Ready(Some(done.map(drop))),
                Poll::Pending if left == 0 => Poll::Ready(None),
                Poll::Pending => {
                    left -= 1;
                    Poll::Pending
                }
            })
            .await
        };
        let view = cache.refresh(&after).await.unwrap().view;
        assert!(whole(&view, 1300), "after {waits} waits");
        drop(cache);
        let view = fixture.cache(Some(&root)).refresh(&after).await.unwrap().view;
        assert!(whole(&view, 1300), "opened again after {waits} waits");
        if ended.is_some() {
            assert!(waits > 0, "it was dropped while it waited");
            break;
        }
    }

    let faulty = Arc::new(Faulty::new(Arc::new(fixture.bank.clone()), 1));
    let place = Place::of_account(faulty.clone(), &AccountId::new("a").unwrap());
    for call in 0..20 {
        let entropy = Arc::new(karbor_chunk::SystemEntropy);
        let cache = IndexCache::open(None, place.clone(), fixture.key.clone(), entropy).unwrap();
        faulty.add(Rule::new(Fault::Refuse(karbor_bank::ErrorKind::Unavailable)).at(call..call + 1));
        let first = cache.refresh(&before).await;
        faulty.heal();
        assert_eq!(first.is_err(), call < 12, "call {call}");
        assert!(whole(&cache.refresh(&before).await.unwrap().view, 1200), "after call {call} failed");
    }
}
