//! What is done with arbitrary bytes: the entry points of the fuzz targets, and of the quick runs in the tests.
//!
//! Each takes bytes as they might come from a bank and must neither panic nor allocate for what they merely claim.
//! Authentication would keep a fuzzer out of what lies behind it, so some entry points seal the bytes first.

use crate::header::ObjectKind;
use crate::index::BlockWriter;
use crate::{
    AccountKey, ChunkId, Codec, CommitObject, CommitRecord, CursorStep, Cutting, Decompressor, Encoded,
    IndexDecoder, KeySlot, ManifestBuilder, ManifestCursor, Node, PackOutline, PackTail, Salt, SeededEntropy,
    SessionId, header,
};

/// An entry point and its name, which is the name of its fuzz target.
pub type Target = (&'static str, fn(&[u8]));

/// All entry points.
pub const TARGETS: &[Target] = &[
    ("commit", commit),
    ("commit_payload", commit_payload),
    ("index", index),
    ("index_rows", index_rows),
    ("manifest", manifest),
    ("node", node),
    ("pack", pack),
    ("pack_index", pack_index),
    ("payload", payload),
    ("session", session),
    ("slot", slot),
];

/// What stands at a commit key.
pub fn commit(bytes: &[u8]) {
    if let Ok(CommitObject::Marker(_)) = CommitObject::classify(bytes) {
        assert_eq!(bytes.first(), Some(&b'{'), "a marker is told by its first byte");
    }
    drop(CommitRecord::open(&key(), &session_id(), bytes));
}

/// A commit record whose seal is right and whose payload is not.
pub fn commit_payload(bytes: &[u8]) {
    let (claim, payload) = bytes.split_at(bytes.len().min(4));
    let mut raw_bytes = [0; 8];
    raw_bytes[..claim.len()].copy_from_slice(claim);
    drop(CommitRecord::open_payload(u64::from_le_bytes(raw_bytes) & 0x00ff_ffff, payload));
}

/// An index segment, fed in pieces.
pub fn index(bytes: &[u8]) {
    let mut decoder = IndexDecoder::new(&key());
    let piece = usize::from(bytes.first().copied().unwrap_or(0)) + 1;
    if bytes.chunks(piece).all(|piece| decoder.feed(piece, &mut |_| ()).is_ok()) {
        drop(decoder.finish());
    }
}

/// An index segment whose blocks are sealed well, and whose rows are these bytes.
pub fn index_rows(bytes: &[u8]) {
    let key = key();
    let Ok(salt) = Salt::generate(&SeededEntropy::new(2)).map(Salt::used) else { return };
    let head = header::encode(ObjectKind::Index, &salt).to_vec();
    let mut blocks = BlockWriter::new(key.object_key(ObjectKind::Index, &salt), head);
    let Ok(sealed) = blocks.write(bytes).and_then(|()| blocks.finish()) else { return };
    let mut decoder = IndexDecoder::new(&key);
    if decoder.feed(&sealed, &mut |_| ()).is_ok() {
        drop(decoder.finish());
    }
}

/// A stream described by bytes, two for each part: its manifest is built, and walked again.
pub fn manifest(bytes: &[u8]) {
    let Some((first, parts)) = bytes.split_first() else { return };
    let cutting = if first & 1 == 0 {
        Cutting::Fixed { chunk_bytes: 1 << (first >> 4) }
    } else {
        Cutting::Content { min_bytes: 64, average_bytes: 256, max_bytes: 1024 }
    };
    let mut nodes = std::collections::HashMap::new();
    let mut sink = |node: crate::NewNode| drop(nodes.insert(node.id, node.bytes));
    let Ok(mut builder) = ManifestBuilder::new(key().namer(), cutting) else { return };
    for (number, part) in parts.chunks_exact(2).enumerate() {
        let size = u32::from(part[0]) + 1;
        // What the builder refuses is not there; the rest must come back.
        drop(match part[1] {
            0..100 => builder.push_zero(u64::from(size) << (part[1] / 3), &mut sink),
            tag => {
                let len = if let Cutting::Fixed { chunk_bytes } = cutting { chunk_bytes } else { size };
                let mut id = [tag; 32];
                id[..8].copy_from_slice(&(number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
                builder.push_chunk(ChunkId(id), len, &mut sink)
            }
        });
    }
    let Ok(root) = builder.finish(&mut sink) else { return };
    let mut cursor = ManifestCursor::whole(&root);
    let mut reached = 0;
    loop {
        match cursor.step() {
            Ok(CursorStep::Need(node)) => {
                let bytes = nodes.get(&node.id).expect("every node that is referred to was given out");
                cursor.supply(bytes).expect("a node that was built is what its parent says");
            }
            Ok(CursorStep::Entry(entry)) => {
                assert_eq!(entry.offset, reached, "the parts of a stream follow one another");
                reached += entry.len;
            }
            Ok(CursorStep::End) => break,
            Err(error) => panic!("walking what was built: {error}"),
        }
    }
    assert_eq!(reached, root.size_bytes, "the parts of a stream are all of it");
}

/// A manifest node.
pub fn node(bytes: &[u8]) {
    if let Ok(node) = Node::decode(bytes) {
        assert_eq!(node.encode(), bytes, "a node has one form");
    }
}

/// A pack: as a whole without a key, and its end with one.
pub fn pack(bytes: &[u8]) {
    drop(PackOutline::read(bytes));
    drop(PackTail::read(&key(), bytes.len() as u64, bytes));
    drop(PackTail::read(&key(), 1 << 20, bytes));
}

/// The opened index of a pack, behind the place where the pack's chunks are to end.
pub fn pack_index(bytes: &[u8]) {
    let (end, rows) = bytes.split_at(bytes.len().min(4));
    let mut word = [0; 4];
    word[..end.len()].copy_from_slice(end);
    drop(crate::pack::decode_entries(rows, u64::from(u32::from_le_bytes(word))));
}

/// The payload of a chunk, behind its claimed length.
pub fn payload(bytes: &[u8]) {
    let (claim, payload) = bytes.split_at(bytes.len().min(4));
    let mut word = [0; 4];
    word[..claim.len()].copy_from_slice(claim);
    let raw_len = u32::from_le_bytes(word);
    let Ok(mut decompressor) = Decompressor::new() else { return };
    let mut out = Vec::new();
    for codec in [Codec::Raw, Codec::Zstd] {
        if decompressor.decompress(Encoded { codec, payload, raw_len }, &mut out).is_ok() {
            assert_eq!(out.len() as u64, u64::from(raw_len), "a chunk has the length that its entry says");
        }
    }
}

/// The text of a session id.
pub fn session(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(id) = text.parse::<SessionId>()
    {
        assert_eq!(id.to_string(), text, "a session id has one spelling");
    }
}

/// A key slot.
pub fn slot(bytes: &[u8]) {
    if let Ok(slot) = KeySlot::from_bytes(bytes) {
        assert_eq!(slot.to_bytes(), bytes, "a slot has one form");
    }
}

/// The account key of the golden files, so that those are opened and not only refused.
pub fn key() -> AccountKey {
    AccountKey::generate(&SeededEntropy::new(1)).expect("seeded bytes never end")
}

/// The session of the golden commit record.
pub fn session_id() -> SessionId {
    SessionId::new(uuid::Uuid::from_u128(0x6c6d_6ad4_9fc4_41e7_bc65_e4d3_1542_1283), 2)
}
