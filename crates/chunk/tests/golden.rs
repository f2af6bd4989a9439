//! One file per kind of object and format, read for ever, and a quick run of the fuzz entry points over them.
//!
//! The files were made once, of fixed keys, salts and contents. `KARBOR_WRITE_GOLDEN=1` writes those that are
//! missing; none is ever replaced. A change of zstd may compress the same bytes otherwise: then the writer's test
//! fails for good reason, and the new bytes become a second set of files, beside the ones that must still be read.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use karbor_chunk::{
    AccountKey, ChunkId, Codec, CommitObject, CommitRecord, CompressOptions, Compressor, CursorStep, Cutting,
    Decompressor, Entropy, FinishedPack, IndexBuilder, IndexDecoder, IndexItem, KeySlot, ManifestBuilder,
    ManifestCursor, ManifestEntry, MarkerKind, MasterKey, NewNode, ObjectHash, PackBuilder, PackKind,
    PackOpener, PackOutline, PackRef, PackTail, Piece, ResourceRecord, Salt, SeededEntropy, SessionId,
    StreamRecord, StreamRoot, StreamStats, TailStep, fuzz, open_secret, seal_secret,
};
use proptest::prelude::*;
use serde_json::json;

const ACCOUNT: &str = "e486a2f49695423ca9c47e589b948108";

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/format-1").join(name)
}

fn golden(name: &str) -> Vec<u8> {
    fs::read(path(name)).unwrap_or_else(|error| panic!("reading golden file {name}: {error}"))
}

fn master() -> MasterKey {
    MasterKey::from_text("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")
        .expect("32 bytes")
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    SeededEntropy::new(seed).fill(&mut bytes).expect("seeded bytes never end");
    bytes
}

fn salt(seed: u64) -> Salt {
    Salt::generate(&SeededEntropy::new(seed)).expect("seeded bytes never end")
}

/// The data chunks: one that shrinks, one that does not, one byte.
fn chunks() -> Vec<Vec<u8>> {
    vec![b"All that is stored can be restored. ".repeat(300), noise(20, 5000), vec![b'x']]
}

/// The entries of the stream: each chunk, with a hole before it.
fn entries(ids: &[ChunkId]) -> Vec<ManifestEntry> {
    let mut offset = 0;
    let mut entries = Vec::new();
    for (id, chunk) in ids.iter().zip(chunks()) {
        for (len, piece) in [(1 << 20, Piece::Zero), (chunk.len() as u64, Piece::Chunk(*id))] {
            entries.push(ManifestEntry { offset, len, piece });
            offset += len;
        }
    }
    entries
}

fn pack(key: &AccountKey, kind: PackKind, seed: u64, chunks: &[Vec<u8>]) -> FinishedPack {
    let namer = key.namer();
    let mut compressor = Compressor::new(&CompressOptions::default()).expect("default settings");
    let mut builder = PackBuilder::new(key, kind, salt(seed), Vec::new());
    for chunk in chunks {
        builder.push(namer.chunk_id(kind, chunk), chunk, &mut compressor).expect("a chunk of legal size");
    }
    builder.finish().expect("it holds chunks")
}

/// The manifest of the stream, and one of three levels that only its nodes are kept of.
fn manifests(key: &AccountKey) -> (StreamRoot, Vec<NewNode>, StreamRoot, Vec<NewNode>) {
    let namer = key.namer();
    let ids: Vec<_> = chunks().iter().map(|chunk| namer.chunk_id(PackKind::Data, chunk)).collect();
    let mut small = Vec::new();
    let cutting = Cutting::Content { min_bytes: 64, average_bytes: 256, max_bytes: 1 << 20 };
    let mut builder = ManifestBuilder::new(key.namer(), cutting).expect("legal sizes");
    for entry in entries(&ids) {
        let mut sink = |node| small.push(node);
        match entry.piece {
            Piece::Zero => builder.push_zero(entry.len, &mut sink).expect("zeros"),
            Piece::Chunk(id) => {
                builder.push_chunk(id, u32::try_from(entry.len).expect("short"), &mut sink).expect("a chunk");
            }
        }
    }
    let small_root = builder.finish(&mut |node| small.push(node)).expect("a short stream");
    let mut large = Vec::new();
    let mut builder = ManifestBuilder::new(namer, Cutting::DISK).expect("legal size");
    for id in ids {
        builder.push_zero(3 << 40, &mut |node| large.push(node)).expect("zeros");
        builder.push_chunk(id, 1 << 20, &mut |node| large.push(node)).expect("a chunk");
    }
    let large_root = builder.finish(&mut |node| large.push(node)).expect("9 TiB");
    (small_root, small, large_root, large)
}

fn commit_record(root: StreamRoot) -> CommitRecord {
    let stats = StreamStats {
        data_bytes: 15_801,
        read_bytes: 15_801,
        new_bytes: 15_801,
        stored_bytes: 5_300,
        chunks: 3,
        new_chunks: 3,
    };
    let mut record = CommitRecord::new(fuzz::session_id().operation, 1_795_386_554_505_248);
    // Keys in order: whether JSON objects keep or sort them depends on what else is built along.
    record.metadata = json!({"graph": [[], []], "plan": {"id": "p", "name": "My plan"}});
    record.resources.push(ResourceRecord {
        key: r#"["OS::Cinder::Volume","5f4f5a5e"]"#.to_owned(),
        records: BTreeMap::from([("volume".to_owned(), json!({"name": "näme", "size": 1}))]),
        streams: BTreeMap::from([("data".to_owned(), StreamRecord { root, stats })]),
    });
    record
}

/// What everything derives to, so that a second implementation can find its first mistake.
fn derived(key: &AccountKey, data: &FinishedPack, large_root: &StreamRoot) -> serde_json::Value {
    let namer = key.namer();
    let stream = noise(21, 4 << 20);
    let cutting = Cutting::Content { min_bytes: 16 << 10, average_bytes: 64 << 10, max_bytes: 256 << 10 };
    let mut cutter = key.cutter(&cutting).expect("legal sizes");
    let (mut cuts, mut at) = (Vec::new(), 0);
    while let Some(length) = cutter.find(&stream[at..]) {
        at += length;
        cuts.push(at);
    }
    json!({
        "master_key": master().to_text().as_str(),
        "master_key_id": master().id().to_string(),
        "account": ACCOUNT,
        "account_key_id": key.id().to_string(),
        "session": fuzz::session_id(),
        "chunk_id_of_abc_as_data": namer.chunk_id(PackKind::Data, b"abc"),
        "chunk_id_of_abc_as_meta": namer.chunk_id(PackKind::Meta, b"abc"),
        "data_pack_chunks": data.entries.iter().map(|entry| json!({
            "id": entry.id,
            "offset": entry.offset,
            "stored_len": entry.stored_len,
            "raw_len": entry.raw_len,
            "codec": entry.codec.code(),
        })).collect::<Vec<_>>(),
        "large_root": large_root,
        "cut_stream_hash": ObjectHash::of(&stream),
        "cuts": cuts,
    })
}

/// Every golden file, as this version writes it.
fn write_all() -> BTreeMap<&'static str, Vec<u8>> {
    let key = fuzz::key();
    let data = pack(&key, PackKind::Data, 30, &chunks());
    let (small_root, small, _, large) = manifests(&key);
    let nodes: Vec<_> = small.iter().chain(&large).map(|node| node.bytes.clone()).collect();
    let meta = pack(&key, PackKind::Meta, 31, &nodes);
    let mut index = IndexBuilder::new();
    for pack in [&data, &meta] {
        let pack_ref = PackRef { session: fuzz::session_id(), info: pack.info };
        index.add_pack(pack_ref, &pack.entries).expect("two packs");
    }
    let index = index.finish(&key, salt(32)).expect("it lists packs");
    let commit = commit_record(small_root).seal(&key, &fuzz::session_id(), salt(33)).expect("a small record");
    let slot = KeySlot::wrap(&master(), ACCOUNT, &key, salt(34)).expect("a key");
    let secret = seal_secret(&master(), "operation 1", b"open sesame", salt(35)).expect("a short secret");
    let leaf = small.last().expect("a root");
    let inner = large.last().expect("a root");
    BTreeMap::from([
        ("pack-data", data.bytes),
        ("pack-meta", meta.bytes),
        ("index", index.bytes),
        ("commit", commit),
        ("slot", slot.to_bytes()),
        ("secret", secret),
        ("node-leaf", leaf.bytes.clone()),
        ("node-inner", inner.bytes.clone()),
    ])
}

/// Writes a file that is missing, when asked to; none is ever replaced.
fn write_if_missing(name: &str, bytes: &[u8]) {
    if std::env::var_os("KARBOR_WRITE_GOLDEN").is_some() && !path(name).exists() {
        fs::create_dir_all(path("")).expect("the directory of golden files");
        fs::write(path(name), bytes).expect("a golden file");
    }
}

#[test]
fn the_same_input_is_written_to_the_same_bytes() {
    for (name, bytes) in write_all() {
        write_if_missing(name, &bytes);
        assert!(golden(name) == bytes, "{name} is written otherwise than it was");
    }
}

#[test]
fn names_keys_and_cuts_are_derived_as_ever() {
    let key = fuzz::key();
    let (_, _, large_root, _) = manifests(&key);
    let found = derived(&key, &pack(&key, PackKind::Data, 30, &chunks()), &large_root);
    write_if_missing("derived.json", &serde_json::to_vec_pretty(&found).expect("plain JSON"));
    let expected: serde_json::Value = serde_json::from_slice(&golden("derived.json")).expect("JSON");
    assert_eq!(found, expected);
}

#[test]
fn a_checkpoint_of_format_1_is_restored_with_the_master_key_alone() {
    let slot = KeySlot::from_bytes(&golden("slot")).expect("a slot");
    let key = slot.unwrap(&master(), ACCOUNT).expect("the key of the slot");
    // The commit record, under the key that it was put at.
    let session: SessionId = "6c6d6ad4-9fc4-41e7-bc65-e4d315421283-00000002".parse().expect("a session");
    let commit = golden("commit");
    assert_eq!(CommitObject::classify(&commit).expect("a record"), CommitObject::Record);
    let record = CommitRecord::open(&key, &session, &commit).expect("the record of that session");
    assert_eq!(record.checkpoint, session.operation);
    assert_eq!(record.created_at, 1_795_386_554_505_248);
    assert_eq!(record.metadata["plan"]["name"], "My plan");
    assert_eq!(record.resources[0].key, r#"["OS::Cinder::Volume","5f4f5a5e"]"#);
    assert_eq!(record.resources[0].records["volume"]["name"], "näme");
    let stream = &record.resources[0].streams["data"];
    assert_eq!(stream.stats.stored_bytes, 5_300);
    // The index, which leads to the packs by their names.
    let packs = BTreeMap::from(["pack-data", "pack-meta"].map(|name| {
        let bytes = golden(name);
        (ObjectHash::of(&bytes), bytes)
    }));
    let (mut listed, mut places) = (Vec::new(), BTreeMap::new());
    let mut decoder = IndexDecoder::new(&key);
    let sink = &mut |item| match item {
        IndexItem::Counts { packs, .. } => assert_eq!(packs, 2),
        IndexItem::Pack(pack) => listed.push(pack),
        IndexItem::Chunk(entry) => drop(places.insert(entry.chunk.id, entry)),
    };
    decoder.feed(&golden("index"), sink).expect("an index segment");
    decoder.finish().expect("all of it");
    let mut decompressor = Decompressor::new().expect("memory");
    let mut fetch = |kind: PackKind, id: &ChunkId| {
        let entry = places[id];
        let PackRef { session: from, info } = listed[entry.pack as usize];
        assert_eq!((from, info.kind), (session, kind));
        let bytes = &packs[&info.hash];
        assert_eq!(bytes.len() as u64, info.size_bytes);
        let range = entry.chunk.offset as usize..(entry.chunk.offset + entry.chunk.stored_len) as usize;
        let mut out = Vec::new();
        let opener = PackOpener::new(&key, kind, &info.salt);
        opener.open(&entry.chunk, &bytes[range], &mut decompressor, &mut out).expect("a chunk");
        out
    };
    // The stream.
    let mut restored = Vec::new();
    let mut cursor = ManifestCursor::whole(&stream.root);
    loop {
        match cursor.step().expect("a step") {
            CursorStep::Need(node) => cursor.supply(&fetch(PackKind::Meta, &node.id)).expect("a node"),
            CursorStep::Entry(entry) => match entry.piece {
                Piece::Zero => restored.resize(restored.len() + (1 << 20), 0),
                Piece::Chunk(id) => restored.extend(fetch(PackKind::Data, &id)),
            },
            CursorStep::End => break,
        }
    }
    let mut expected = Vec::new();
    for chunk in chunks() {
        expected.resize(expected.len() + (1 << 20), 0);
        expected.extend(chunk);
    }
    assert!(restored == expected, "the stream is restored byte for byte");
}

#[test]
fn packs_of_format_1_tell_their_chunks_without_an_index() {
    let key = fuzz::key();
    let bytes = golden("pack-data");
    let outline = PackOutline::read(&bytes).expect("an outline needs no key");
    assert_eq!((outline.kind, outline.chunks), (PackKind::Data, 3));
    let TailStep::Tail(tail) = PackTail::read(&key, bytes.len() as u64, &bytes).expect("its end") else {
        panic!("the whole pack was given");
    };
    let derived: serde_json::Value = serde_json::from_slice(&golden("derived.json")).expect("JSON");
    let rows = derived["data_pack_chunks"].as_array().expect("a list");
    assert_eq!(rows.len(), tail.entries.len());
    for ((entry, row), chunk) in tail.entries.iter().zip(rows).zip(chunks()) {
        assert_eq!(row["id"], entry.id.to_string());
        assert_eq!(row["offset"], entry.offset);
        assert_eq!(entry.raw_len as usize, chunk.len());
        let shrinks = chunk.len() == 10_800;
        assert_eq!(entry.codec, if shrinks { Codec::Zstd } else { Codec::Raw });
    }
}

#[test]
fn a_manifest_of_9_tib_of_format_1_is_walked_through_three_levels() {
    let key = fuzz::key();
    let (_, _, root, large) = manifests(&key);
    let mut nodes: BTreeMap<_, _> = large.into_iter().map(|node| (node.id, node.bytes)).collect();
    assert_eq!(root.depth, 2);
    nodes.insert(root.node, golden("node-inner"));
    let mut cursor = ManifestCursor::whole(&root);
    let mut found = Vec::new();
    loop {
        match cursor.step().expect("a step") {
            CursorStep::Need(node) => cursor.supply(&nodes[&node.id]).expect("a node"),
            CursorStep::Entry(ManifestEntry { offset, piece: Piece::Chunk(_), .. }) => found.push(offset),
            CursorStep::Entry(_) => {}
            CursorStep::End => break,
        }
    }
    assert_eq!(found, [3 << 40, (6 << 40) + (1 << 20), (9 << 40) + (2 << 20)]);
}

#[test]
fn a_secret_of_format_1_is_opened() {
    let secret =
        open_secret(&[master()], "operation 1", &golden("secret")).expect("it is sealed by that key");
    assert_eq!(secret.as_slice(), b"open sesame");
}

#[test]
fn markers_of_format_1_are_told_from_records() {
    for (kind, name) in [(MarkerKind::Fence, "fence.json"), (MarkerKind::Closed, "closed.json")] {
        assert_eq!(CommitObject::classify(&golden(name)).expect("a marker"), CommitObject::Marker(kind));
    }
}

/// Which golden file a fuzz target is best begun with; for payloads behind a seal there is none.
fn seed_of(target: &str) -> Vec<u8> {
    match target {
        "commit" => golden("commit"),
        "index" => golden("index"),
        "node" => golden("node-leaf"),
        "pack" => golden("pack-meta"),
        "session" => fuzz::session_id().to_string().into_bytes(),
        "slot" => golden("slot"),
        _ => noise(40, 300),
    }
}

#[test]
fn every_entry_point_has_a_fuzz_target() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
    let mut found: Vec<_> = fs::read_dir(directory)
        .expect("the fuzz targets")
        .map(|entry| {
            entry.expect("an entry").path().file_stem().expect("a name").to_string_lossy().into_owned()
        })
        .collect();
    // Those of other crates bear their names in front.
    let others = ["bank_", "sweep_", "tree_", "types_", "vault_"];
    found.retain(|name| !others.iter().any(|other| name.starts_with(other)));
    found.sort_unstable();
    let names: Vec<_> = fuzz::TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(found, names);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        for (_, target) in fuzz::TARGETS {
            target(&bytes);
        }
    }

    #[test]
    fn damaged_objects_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        length in prop::option::of(any::<prop::sample::Index>()),
    ) {
        for (name, target) in fuzz::TARGETS {
            let mut bytes = seed_of(name);
            if let Some(length) = length {
                bytes.truncate(length.index(bytes.len()));
            }
            for (at, byte) in &flips {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = *byte;
                }
            }
            target(&bytes);
        }
    }
}
