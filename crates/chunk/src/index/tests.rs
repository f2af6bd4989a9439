use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{
    AccountKey, ChunkId, Codec, Error, PackKind, Result, Salt, SeededEntropy, TAG_BYTES, UsedSalt, fuzz,
    header,
};

fn pack_ref(number: u32) -> PackRef {
    let byte = u8::try_from(number % 251).unwrap();
    PackRef {
        session: SessionId::new(Uuid::from_u128(u128::from(number)), number),
        info: PackInfo {
            hash: ObjectHash([byte; 32]),
            kind: if number.is_multiple_of(2) { PackKind::Data } else { PackKind::Meta },
            salt: UsedSalt([byte ^ 255; 32]),
            size_bytes: 32 << 20,
        },
    }
}

fn entry(number: u32) -> PackEntry {
    let id = ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes());
    let raw_len = 1 + number % 1000;
    PackEntry { id, offset: 48 + number, stored_len: raw_len + TAG_BYTES, raw_len, codec: Codec::Raw }
}

fn salt() -> Salt {
    Salt::generate(&SeededEntropy::new(3)).unwrap()
}

fn build(packs: u32, chunks_per_pack: u32) -> SealedIndex {
    let mut builder = IndexBuilder::new();
    for number in 0..packs {
        let chunks: Vec<_> = (0..chunks_per_pack).map(|at| entry(number * chunks_per_pack + at)).collect();
        builder.add_pack(pack_ref(number), &chunks).unwrap();
    }
    let size_bytes = builder.size_bytes();
    let index = builder.finish(&fuzz::key(), salt()).unwrap();
    assert_eq!(index.bytes.len() as u64, size_bytes);
    index
}

fn decode(key: &AccountKey, bytes: &[u8], piece: usize) -> Result<Vec<IndexItem>> {
    let mut items = Vec::new();
    let mut decoder = IndexDecoder::new(key);
    for piece in bytes.chunks(piece) {
        decoder.feed(piece, &mut |item| items.push(item))?;
    }
    decoder.finish()?;
    Ok(items)
}

#[test]
fn a_segment_comes_back_sorted_however_it_is_split() {
    let key = fuzz::key();
    let (packs, per_pack) = (40, 100);
    let index = build(packs, per_pack);
    assert_eq!(index.hash, ObjectHash::of(&index.bytes));
    let items = decode(&key, &index.bytes, index.bytes.len()).unwrap();
    assert_eq!(items[0], IndexItem::Counts { packs, chunks: u64::from(packs * per_pack) });
    for number in 0..packs {
        assert_eq!(items[1 + number as usize], IndexItem::Pack(pack_ref(number)));
    }
    let mut expected: Vec<_> =
        (0..packs * per_pack).map(|at| IndexEntry { pack: at / per_pack, chunk: entry(at) }).collect();
    expected.sort_unstable_by_key(|entry| entry.chunk.id);
    let found: Vec<_> = items[1 + packs as usize..].to_vec();
    assert_eq!(found, expected.into_iter().map(IndexItem::Chunk).collect::<Vec<_>>());
    for piece in [1, 7, 4096, BLOCK_BYTES, BLOCK_BYTES + 20, 100_000] {
        assert_eq!(decode(&key, &index.bytes, piece).unwrap(), items, "pieces of {piece}");
    }
}

#[test]
fn an_entry_takes_48_bytes() {
    let few = build(1, 10).bytes.len();
    let many = build(1, 100_010).bytes.len();
    let per_entry = (many - few) as f64 / 100_000.0;
    assert!(per_entry < 48.05, "{per_entry}");
}

#[test]
fn every_flip_and_every_cut_is_noticed() {
    let key = fuzz::key();
    let bytes = build(2, 3).bytes;
    assert!(decode(&key, &bytes, 50).is_ok());
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            assert!(decode(&key, &flipped, 50).is_err(), "bit {bit} of byte {at}");
        }
        assert!(decode(&key, &bytes[..at], 50).is_err(), "cut at {at}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(decode(&key, &longer, 50).is_err());
}

#[test]
fn a_block_left_out_repeated_or_swapped_is_noticed() {
    let key = fuzz::key();
    let bytes = build(1, 6000).bytes;
    let block = 4 + BLOCK_BYTES + TAG_BYTES as usize;
    let [a, b, c, d] = [0, 1, 2, 3].map(|number| crate::header::HEADER_BYTES + number * block);
    assert!(bytes.len() > d);
    let left_out = [&bytes[..b], &bytes[c..]].concat();
    let repeated = [&bytes[..b], &bytes[a..]].concat();
    let swapped = [&bytes[..b], &bytes[c..d], &bytes[b..c], &bytes[d..]].concat();
    // Cut behind a whole block: all that is there is authentic, but the last one is missing.
    let cut = bytes[..d].to_vec();
    for (damage, bytes) in
        [("left out", left_out), ("repeated", repeated), ("swapped", swapped), ("cut", cut)]
    {
        let error = decode(&key, &bytes, 1 << 20).expect_err(damage);
        assert!(error.is_damage(), "{damage}: {error}");
    }
}

#[test]
fn another_account_cannot_read_it() {
    let other = AccountKey::generate(&SeededEntropy::new(99)).unwrap();
    let error = decode(&other, &build(1, 1).bytes, 1000).unwrap_err();
    assert!(matches!(error, Error::Unauthentic { part: "index segment" }), "{error}");
}

#[test]
fn rows_that_contradict_themselves_are_refused() {
    let key = fuzz::key();
    let row = |id: u8, pack: u32, offset: u32, stored: u32, lengths: u32| {
        let mut row = vec![id; 32];
        for number in [pack, offset, stored, lengths] {
            row.extend_from_slice(&number.to_le_bytes());
        }
        row
    };
    let seal = |chunks: u64, rows: &[Vec<u8>]| {
        let salt = salt().used();
        let head = header::encode(header::ObjectKind::Index, &salt).to_vec();
        let mut blocks = BlockWriter::new(key.object_key(header::ObjectKind::Index, &salt), head);
        blocks.write(&1u64.to_le_bytes()).unwrap();
        blocks.write(&chunks.to_le_bytes()).unwrap();
        let mut pack = [0; PACK_BYTES];
        pack[88..].copy_from_slice(&1000u64.to_le_bytes());
        blocks.write(&pack).unwrap();
        for row in rows {
            blocks.write(row).unwrap();
        }
        decode(&key, &blocks.finish().unwrap(), 1000)
    };
    let good = row(1, 0, 48, 100, 84);
    assert!(seal(1, std::slice::from_ref(&good)).is_ok());
    assert!(seal(2, std::slice::from_ref(&good)).is_err(), "fewer rows than said");
    assert!(seal(0, std::slice::from_ref(&good)).is_err(), "more rows than said");
    assert!(seal(2, &[row(2, 0, 48, 100, 84), good.clone()]).is_err(), "not sorted");
    assert!(seal(2, &[good.clone(), good.clone()]).is_err(), "twice the same");
    let bad = [
        (row(1, 1, 48, 100, 84), "a pack that is not listed"),
        (row(1, 0, 47, 100, 84), "inside the header"),
        (row(1, 0, 901, 100, 84), "beyond the pack"),
        (row(1, 0, u32::MAX, u32::MAX, 84), "beyond everything"),
        (row(1, 0, 48, 16, 0), "an empty chunk"),
        (row(1, 0, 48, 100, 85), "raw, of another length"),
        (row(1, 0, 48, 100, 84 | 1 << 24), "compressed and not smaller"),
        (row(1, 0, 48, 100, 100 | 2 << 24), "an unknown codec"),
        (row(1, 0, 48, 100, (8 << 20 | 1) | 1 << 24), "larger than a chunk may be"),
    ];
    for (row, what) in bad {
        assert!(seal(1, &[row]).is_err(), "{what}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_segment_comes_back(packs in 1..30u32, per_pack in 0..200u32, piece in 1..100_000usize) {
        let index = build(packs, per_pack);
        let items = decode(&fuzz::key(), &index.bytes, piece).unwrap();
        prop_assert_eq!(items.len(), 1 + packs as usize + (packs * per_pack) as usize);
    }
}
