use proptest::prelude::*;

use super::*;
use crate::{AccountKey, CompressOptions, Compressor, Decompressor, Encoded, Salt, SeededEntropy, fuzz};

fn compressor() -> Compressor {
    Compressor::new(&CompressOptions::default()).unwrap()
}

fn salt(seed: u64) -> Salt {
    Salt::generate(&SeededEntropy::new(seed)).unwrap()
}

fn build(key: &AccountKey, kind: PackKind, chunks: &[Vec<u8>]) -> FinishedPack {
    let (namer, mut compressor) = (key.namer(), compressor());
    let mut builder = PackBuilder::new(key, kind, salt(7), Vec::new());
    for chunk in chunks {
        builder.push(namer.chunk_id(kind, chunk), chunk, &mut compressor).unwrap();
    }
    let size_bytes = builder.size_bytes();
    let pack = builder.finish().unwrap();
    assert_eq!(pack.bytes.len() as u64, size_bytes);
    pack
}

/// Reads everything in a pack as a restore would, but without looking at its name.
fn read_all(key: &AccountKey, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    PackOutline::read(bytes)?;
    let mut take = bytes.len().min(100);
    let tail = loop {
        match PackTail::read(key, bytes.len() as u64, &bytes[bytes.len() - take..])? {
            TailStep::Tail(tail) => break tail,
            TailStep::More(need) => take = usize::try_from(need).unwrap().min(bytes.len()),
        }
    };
    let opener = PackOpener::new(key, tail.kind, &tail.salt);
    let mut decompressor = Decompressor::new()?;
    let mut chunks = Vec::new();
    for entry in &tail.entries {
        let range =
            usize::try_from(entry.range().start).unwrap()..usize::try_from(entry.range().end).unwrap();
        let mut out = Vec::new();
        opener.open(entry, &bytes[range], &mut decompressor, &mut out)?;
        chunks.push(out);
    }
    Ok(chunks)
}

fn text(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| b"the quick brown fox"[at % 19] ^ (seed & 1) ^ u8::from(at % 97 == 0)).collect()
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    crate::Entropy::fill(&SeededEntropy::new(seed), &mut bytes).unwrap();
    bytes
}

#[test]
fn chunks_come_back_from_a_pack_and_shrink_if_they_can() {
    let key = fuzz::key();
    let chunks = [text(0, 1 << 20), noise(1, 1 << 20), vec![9], noise(2, 31), text(1, 100)];
    let pack = build(&key, PackKind::Data, &chunks);
    assert_eq!(read_all(&key, &pack.bytes).unwrap(), chunks);
    assert_eq!(pack.info.hash, ObjectHash::of(&pack.bytes));
    let codecs: Vec<_> = pack.entries.iter().map(|entry| entry.codec).collect();
    assert_eq!(codecs, [Codec::Zstd, Codec::Raw, Codec::Raw, Codec::Raw, Codec::Zstd]);
    assert!(pack.entries[0].stored_len < 1 << 16);
    assert_eq!(pack.entries[1].stored_len, (1 << 20) + TAG_BYTES);
}

#[test]
fn a_used_buffer_gives_the_same_pack_as_a_new_one() {
    let key = fuzz::key();
    let chunks = [text(0, 300_000), noise(1, 200_000)];
    let fresh = build(&key, PackKind::Meta, &chunks);
    let (namer, mut compressor) = (key.namer(), compressor());
    let mut builder = PackBuilder::new(&key, PackKind::Meta, salt(7), noise(3, 400_000));
    for chunk in &chunks {
        // This time compressed elsewhere and copied in.
        let encoded = compressor.compress(chunk).unwrap();
        builder.push_encoded(namer.chunk_id(PackKind::Meta, chunk), encoded).unwrap();
    }
    assert_eq!(builder.finish().unwrap().bytes, fresh.bytes);
}

#[test]
fn a_chunk_moves_to_another_pack_without_being_compressed_again() {
    let key = fuzz::key();
    let chunks = [text(0, 5000), noise(1, 5000)];
    let old = build(&key, PackKind::Data, &chunks);
    let opener = PackOpener::new(&key, old.info.kind, &old.info.salt);
    let mut builder = PackBuilder::new(&key, PackKind::Data, salt(8), Vec::new());
    for entry in old.entries.iter().rev() {
        let range =
            usize::try_from(entry.range().start).unwrap()..usize::try_from(entry.range().end).unwrap();
        let mut payload = Vec::new();
        opener.open_payload(entry, &old.bytes[range], &mut payload).unwrap();
        let encoded = Encoded { codec: entry.codec, payload: &payload, raw_len: entry.raw_len };
        builder.push_encoded(entry.id, encoded).unwrap();
    }
    let moved = builder.finish().unwrap();
    let mut expected = chunks.to_vec();
    expected.reverse();
    assert_eq!(read_all(&key, &moved.bytes).unwrap(), expected);
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_pack_is_noticed_without_its_name() {
    let key = fuzz::key();
    let pack = build(&key, PackKind::Data, &[text(0, 400), noise(1, 40)]);
    assert!(read_all(&key, &pack.bytes).is_ok());
    for at in 0..pack.bytes.len() {
        for bit in 0..8 {
            let mut bytes = pack.bytes.clone();
            bytes[at] ^= 1 << bit;
            assert!(read_all(&key, &bytes).is_err(), "bit {bit} of byte {at}");
            assert_ne!(ObjectHash::of(&bytes), pack.info.hash);
        }
        assert!(read_all(&key, &pack.bytes[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn another_key_or_another_place_does_not_open_a_chunk() {
    let key = fuzz::key();
    let pack = build(&key, PackKind::Data, &[text(0, 400), text(0, 400), text(1, 400)]);
    let other = AccountKey::generate(&SeededEntropy::new(99)).unwrap();
    assert!(matches!(read_all(&other, &pack.bytes), Err(Error::Unauthentic { part: "pack index" })));
    let opener = PackOpener::new(&key, pack.info.kind, &pack.info.salt);
    let [first, second, third] = [0, 1, 2].map(|number| pack.entries[number]);
    let bytes_of = |entry: &PackEntry| {
        &pack.bytes
            [usize::try_from(entry.range().start).unwrap()..usize::try_from(entry.range().end).unwrap()]
    };
    let (mut decompressor, mut out) = (Decompressor::new().unwrap(), Vec::new());
    opener.open(&first, bytes_of(&first), &mut decompressor, &mut out).unwrap();
    // The same chunk, sealed twice, at the other's place.
    assert_eq!(first.id, second.id);
    let swapped = opener.open(&first, bytes_of(&second), &mut decompressor, &mut out);
    assert!(matches!(swapped, Err(Error::Unauthentic { part: "chunk" })));
    assert!(out.is_empty());
    // Another chunk's name for these bytes.
    let renamed = PackEntry { id: third.id, ..first };
    assert!(opener.open(&renamed, bytes_of(&first), &mut decompressor, &mut out).is_err());
    // The other kind of pack has other keys.
    let opener = PackOpener::new(&key, PackKind::Meta, &pack.info.salt);
    assert!(opener.open(&first, bytes_of(&first), &mut decompressor, &mut out).is_err());
}

#[test]
fn a_chunk_that_was_stored_under_a_wrong_name_is_told() {
    let key = fuzz::key();
    let mut builder = PackBuilder::new(&key, PackKind::Data, salt(7), Vec::new());
    let wrong = ChunkId([5; 32]);
    builder.push(wrong, b"what it is", &mut compressor()).unwrap();
    let error = read_all(&key, &builder.finish().unwrap().bytes).unwrap_err();
    assert!(matches!(error, Error::WrongChunk { expected, .. } if expected == wrong), "{error}");
}

#[test]
fn what_cannot_be_read_back_is_not_packed() {
    let key = fuzz::key();
    let mut builder = PackBuilder::new(&key, PackKind::Data, salt(7), Vec::new());
    let id = ChunkId([5; 32]);
    assert!(builder.push(id, &[], &mut compressor()).is_err());
    assert!(builder.push(id, &vec![0; MAX_CHUNK_BYTES as usize + 1], &mut compressor()).is_err());
    for (codec, raw_len) in [(Codec::Raw, 4), (Codec::Zstd, 3), (Codec::Zstd, MAX_CHUNK_BYTES + 1)] {
        let encoded = Encoded { codec, payload: b"abc", raw_len };
        assert!(builder.push_encoded(id, encoded).is_err(), "{codec:?} {raw_len}");
    }
    assert!(builder.entries().is_empty());
    assert!(builder.finish().is_err());
}

#[test]
fn unknown_formats_are_told_apart_from_damage() {
    let key = fuzz::key();
    let mut bytes = build(&key, PackKind::Data, &[text(0, 400)]).bytes;
    bytes[8] = 2;
    let error = PackOutline::read(&bytes).unwrap_err();
    assert_eq!(error.to_string(), "the pack header has format 2; this version knows 1");
    assert!(!error.is_damage());
    let error = PackOutline::read(b"PK\x03\x04 some other file").unwrap_err();
    assert_eq!(error.to_string(), "the pack header does not start with its magic");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_chunks_come_back(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..2000), 1..20)) {
        let key = fuzz::key();
        let pack = build(&key, PackKind::Data, &chunks);
        prop_assert_eq!(read_all(&key, &pack.bytes).unwrap(), chunks);
    }

    #[test]
    fn a_flipped_byte_in_a_large_pack_is_noticed(at in any::<prop::sample::Index>(), flip in 1..=255u8) {
        let key = fuzz::key();
        let mut bytes = build(&key, PackKind::Data, &[text(0, 50_000), noise(1, 30_000), text(1, 20_000)]).bytes;
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(read_all(&key, &bytes).is_err());
    }
}
