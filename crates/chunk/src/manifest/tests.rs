use std::collections::HashMap;
use std::ops::Range;

use proptest::prelude::*;

use super::*;
use crate::{Error, PackKind, fuzz};

/// What was given out, as a bank would hold it.
#[derive(Default)]
struct Nodes {
    bytes: HashMap<ChunkId, Vec<u8>>,
    given_out: usize,
    fetched: usize,
}

impl Nodes {
    fn take(&mut self, node: NewNode) {
        assert_eq!(node.id, fuzz::key().namer().chunk_id(PackKind::Meta, &node.bytes));
        self.given_out += 1;
        self.bytes.insert(node.id, node.bytes);
    }

    fn fetch(&mut self, node: &NodeRef) -> Vec<u8> {
        self.fetched += 1;
        self.bytes.get(&node.id).expect("the node was given out").clone()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Zero(u64),
    Chunk(u32, u32),
}

fn id(number: u32) -> ChunkId {
    ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn build(nodes: &mut Nodes, cutting: Cutting, parts: &[Part]) -> StreamRoot {
    let mut builder = ManifestBuilder::new(fuzz::key().namer(), cutting).unwrap();
    for part in parts {
        match *part {
            Part::Zero(len) => builder.push_zero(len, &mut |node| nodes.take(node)).unwrap(),
            Part::Chunk(number, len) => {
                builder.push_chunk(id(number), len, &mut |node| nodes.take(node)).unwrap();
            }
        }
    }
    builder.finish(&mut |node| nodes.take(node)).unwrap()
}

fn read(nodes: &mut Nodes, root: &StreamRoot, range: Range<u64>) -> Vec<ManifestEntry> {
    let mut cursor = ManifestCursor::new(root, range);
    let mut entries = Vec::new();
    loop {
        match cursor.step().unwrap() {
            CursorStep::Need(node) => {
                let upcoming = cursor.upcoming(3);
                assert_eq!(upcoming.first(), Some(&node), "what is needed is first among what comes");
                let bytes = nodes.fetch(&node);
                cursor.supply(&bytes).unwrap();
            }
            CursorStep::Entry(entry) => entries.push(entry),
            CursorStep::End => return entries,
        }
    }
}

/// The parts as entries, with zeros that touch as one.
fn entries_of(parts: &[Part]) -> Vec<ManifestEntry> {
    let mut offset = 0;
    let mut entries = Vec::new();
    for part in parts {
        let (len, piece) = match *part {
            Part::Zero(len) => (len, Piece::Zero),
            Part::Chunk(number, len) => (u64::from(len), Piece::Chunk(id(number))),
        };
        entries.push(ManifestEntry { offset, len, piece });
        offset += len;
    }
    join_zeros(&entries)
}

fn join_zeros(entries: &[ManifestEntry]) -> Vec<ManifestEntry> {
    let mut joined: Vec<ManifestEntry> = Vec::new();
    for entry in entries {
        if let (Some(ManifestEntry { len, piece: Piece::Zero, .. }), Piece::Zero) =
            (joined.last_mut(), entry.piece)
        {
            *len += entry.len;
            continue;
        }
        joined.push(*entry);
    }
    joined.retain(|entry| entry.len > 0);
    joined
}

const MIB: u64 = 1 << 20;
const SMALL: Cutting = Cutting::Fixed { chunk_bytes: 4 };
const CONTENT: Cutting = Cutting::Content { min_bytes: 64, average_bytes: 256, max_bytes: 1024 };

/// `count` chunks of the fixed size, numbered.
fn chunks(count: u32) -> Vec<Part> {
    (0..count).map(|number| Part::Chunk(number, 4)).collect()
}

#[test]
fn an_empty_stream_has_a_root_and_no_entries() {
    for cutting in [SMALL, CONTENT] {
        let mut nodes = Nodes::default();
        let root = build(&mut nodes, cutting, &[]);
        assert_eq!((root.size_bytes, root.depth, nodes.given_out), (0, 0, 1));
        assert_eq!(read(&mut nodes, &root, 0..100), []);
    }
}

#[test]
fn the_depth_follows_the_size() {
    for (count, depth) in [(1, 0), (1024, 0), (1025, 1), (1024 * 1024, 1), (1024 * 1024 + 1, 2)] {
        let mut nodes = Nodes::default();
        let root = build(&mut nodes, SMALL, &chunks(count));
        assert_eq!(root.depth, depth, "{count} chunks");
        assert_eq!(read(&mut nodes, &root, 0..root.size_bytes).len(), count as usize);
    }
}

#[test]
fn holes_cost_no_nodes() {
    let mut nodes = Nodes::default();
    // 100 TiB with one chunk in the middle of each TiB.
    let mut parts = Vec::new();
    for number in 0..100 {
        parts.push(Part::Zero(MIB * (1 << 19)));
        parts.push(Part::Chunk(number, 1 << 20));
        parts.push(Part::Zero(MIB * ((1 << 19) - 1)));
    }
    let root = build(&mut nodes, Cutting::DISK, &parts);
    assert_eq!((root.size_bytes, root.depth), (100 << 40, 2));
    assert_eq!(nodes.given_out, 100 * 2 + 1);
    assert_eq!(join_zeros(&read(&mut nodes, &root, 0..u64::MAX)), entries_of(&parts));
    // All zeros.
    let mut nodes = Nodes::default();
    let root = build(&mut nodes, Cutting::DISK, &[Part::Zero(100 << 40)]);
    assert_eq!((root.depth, nodes.given_out), (2, 1));
    assert_eq!(read(&mut nodes, &root, 0..u64::MAX).len(), 1);
}

#[test]
fn zeros_make_the_same_nodes_however_they_are_pushed() {
    for cutting in [SMALL, CONTENT] {
        for total in [4u64, 4096, 8192, 4096 * 1024, 4096 * 1024 + 4, 4096 * 1500 + 2] {
            let mut nodes = Nodes::default();
            let whole = build(&mut nodes, cutting, &[Part::Zero(total)]);
            let mut pieces: Vec<_> = (0..total / 4).map(|_| Part::Zero(4)).collect();
            pieces.push(Part::Zero(total % 4));
            assert_eq!(build(&mut nodes, cutting, &pieces), whole, "{total} zeros");
            assert_eq!(join_zeros(&read(&mut nodes, &whole, 0..total)), entries_of(&[Part::Zero(total)]));
        }
    }
}

#[test]
fn an_unchanged_part_is_taken_by_reference_and_gives_the_same_tree() {
    let mut nodes = Nodes::default();
    // Three nodes of level 1 and a bit; one chunk in the second is changed.
    let mut parts = chunks(3 * 1024 * 1024 + 5000);
    parts.push(Part::Chunk(77, 3));
    let base = build(&mut nodes, SMALL, &parts);
    let changed_at = 1024 * 1024 + 5;
    parts[changed_at] = Part::Chunk(u32::MAX, 4);
    let expected = build(&mut nodes, SMALL, &parts);

    let (mut fresh, mut given_out) = (0, 0);
    let mut builder = ManifestBuilder::new(fuzz::key().namer(), SMALL).unwrap();
    let changed = changed_at as u64 * 4..changed_at as u64 * 4 + 4;
    let mut sink = |_| given_out += 1;
    for unchanged in [0..changed.start, changed.end..base.size_bytes] {
        let mut cursor = ManifestCursor::new(&base, unchanged.clone());
        loop {
            match cursor.step().unwrap() {
                CursorStep::Need(node) => {
                    let within = unchanged.start <= node.offset && node.offset + node.len <= unchanged.end;
                    if within && builder.can_push_subtree(node.level, node.len) {
                        builder.push_subtree(node.id, node.level, node.len, &mut sink).unwrap();
                        cursor.skip().unwrap();
                        continue;
                    }
                    let bytes = nodes.fetch(&node);
                    cursor.supply(&bytes).unwrap();
                }
                CursorStep::Entry(ManifestEntry { piece: Piece::Chunk(id), len, .. }) => {
                    builder.push_chunk(id, u32::try_from(len).unwrap(), &mut sink).unwrap();
                }
                CursorStep::Entry(ManifestEntry { len, .. }) => builder.push_zero(len, &mut sink).unwrap(),
                CursorStep::End => break,
            }
        }
        if unchanged.start == 0 {
            builder.push_chunk(id(u32::MAX), 4, &mut sink).unwrap();
            fresh += 1;
        }
    }
    assert_eq!(builder.finish(&mut sink).unwrap(), expected);
    assert_eq!((fresh, given_out), (1, 3), "the leaf, its parent and the root");
    assert!(nodes.fetched <= 6, "{} nodes were read", nodes.fetched);
}

#[test]
fn content_defined_nodes_change_only_near_a_change() {
    let mut nodes = Nodes::default();
    let mut parts: Vec<_> = (0..200_000).map(|number| Part::Chunk(number, 100)).collect();
    let base = build(&mut nodes, CONTENT, &parts);
    let before = nodes.bytes.len();
    assert!((100..1600).contains(&before), "{before} nodes for 200,000 chunks");
    // A chunk more near the start moves all that follows.
    parts.insert(5000, Part::Chunk(u32::MAX, 77));
    let moved = build(&mut nodes, CONTENT, &parts);
    assert_ne!(moved.node, base.node);
    assert!(nodes.bytes.len() - before <= 2 * usize::from(moved.depth + 1), "few nodes are new");
    assert_eq!(read(&mut nodes, &moved, 0..moved.size_bytes), entries_of(&parts));
}

#[test]
fn a_whole_stream_can_be_taken_by_reference() {
    for (cutting, parts) in [(SMALL, chunks(5000)), (CONTENT, chunks(5000))] {
        let mut nodes = Nodes::default();
        let base = build(&mut nodes, cutting, &parts);
        let mut builder = ManifestBuilder::new(fuzz::key().namer(), cutting).unwrap();
        assert!(builder.can_push_subtree(base.depth, base.size_bytes));
        builder
            .push_subtree(base.node, base.depth, base.size_bytes, &mut |_| panic!("nothing is new"))
            .unwrap();
        assert_eq!(builder.finish(&mut |_| panic!("nothing is new")).unwrap(), base);
    }
}

#[test]
fn what_has_no_place_is_refused() {
    let mut builder = ManifestBuilder::new(fuzz::key().namer(), SMALL).unwrap();
    let mut sink = |_| ();
    assert!(builder.push_chunk(id(1), 0, &mut sink).is_err());
    assert!(builder.push_chunk(id(1), 5, &mut sink).is_err());
    builder.push_chunk(id(1), 4, &mut sink).unwrap();
    assert!(!builder.can_push_subtree(0, 4096), "not aligned");
    assert!(builder.push_subtree(id(1), 0, 4096, &mut sink).is_err());
    builder.push_chunk(id(2), 3, &mut sink).unwrap();
    assert!(builder.push_chunk(id(3), 4, &mut sink).is_err(), "behind the end");
    assert!(builder.push_zero(4, &mut sink).is_err(), "behind the end");
    assert_eq!(builder.offset(), 7);
    let mut builder = ManifestBuilder::new(fuzz::key().namer(), SMALL).unwrap();
    builder.push_zero(1 << 61, &mut sink).unwrap();
    assert!(builder.push_zero(1 << 61, &mut sink).is_err(), "too large");
    assert!(ManifestBuilder::new(fuzz::key().namer(), Cutting::Fixed { chunk_bytes: 0 }).is_err());
}

#[test]
fn a_node_that_is_not_what_its_parent_says_is_refused() {
    let mut nodes = Nodes::default();
    let root = build(&mut nodes, SMALL, &chunks(3000));
    let mut cursor = ManifestCursor::whole(&root);
    assert!(matches!(cursor.supply(&nodes.bytes[&root.node]), Ok(())));
    let CursorStep::Need(first) = cursor.step().unwrap() else { panic!("a leaf is needed") };
    assert!(matches!(cursor.supply(&nodes.bytes[&root.node]), Err(Error::Malformed { .. })), "another level");
    let shorter = Node::new(0, vec![NodeEntry::Zero { len: first.len - 1 }]).unwrap();
    assert!(matches!(cursor.supply_node(shorter), Err(Error::Malformed { .. })), "another length");
    let bytes = nodes.fetch(&first);
    cursor.supply(&bytes).unwrap();
    assert!(matches!(cursor.supply(&bytes), Err(Error::Misuse { .. })), "nothing was asked for");
    assert!(matches!(cursor.skip(), Err(Error::Misuse { .. })));
}

#[test]
fn nodes_have_one_form_and_no_other_is_read() {
    let entries = vec![
        NodeEntry::Child { id: id(1), len: 5 },
        NodeEntry::Zero { len: 1 << 40 },
        NodeEntry::Child { id: id(2), len: 6 },
    ];
    let node = Node::new(1, entries).unwrap();
    let bytes = node.encode();
    assert_eq!(bytes.len(), 24 + 3 * 8 + 2 * 32);
    assert_eq!(Node::decode(&bytes).unwrap(), node);
    for length in 0..bytes.len() {
        assert!(Node::decode(&bytes[..length]).is_err(), "cut at {length}");
    }
    // Magic, format, level too high, reserved, count, reserved, length, no more zero run, zero length.
    for (at, byte) in [(0, 0), (4, 2), (6, 8), (7, 1), (8, 2), (12, 1), (16, 0), (39, 0), (24, 0)] {
        let mut damaged = bytes.clone();
        damaged[at] = byte;
        assert!(Node::decode(&damaged).is_err(), "byte {at}");
    }
    let mut claims = bytes;
    claims[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(Node::decode(&claims), Err(Error::TooLarge { .. })), "nothing is allocated for a claim");
    assert!(Node::new(0, vec![NodeEntry::Child { id: id(1), len: 8 * MIB + 1 }]).is_err());
    assert!(Node::new(1, vec![NodeEntry::Zero { len: 1 << 62 }, NodeEntry::Zero { len: 1 << 62 }]).is_err());
}

fn diff(nodes: &mut Nodes, old: &StreamRoot, new: &StreamRoot) -> Vec<Range<u64>> {
    let mut diff = ManifestDiff::new(old, new);
    let mut changed = Vec::new();
    loop {
        match diff.step().unwrap() {
            DiffStep::NeedOld(node) | DiffStep::NeedNew(node) => {
                let bytes = nodes.fetch(&node);
                diff.supply(&bytes).unwrap();
            }
            DiffStep::Changed(range) => changed.push(range),
            DiffStep::End => return changed,
        }
    }
}

#[test]
fn comparing_reads_only_what_differs() {
    let mut nodes = Nodes::default();
    let mut parts = chunks(2 * 1024 * 1024);
    let old = build(&mut nodes, SMALL, &parts);
    assert_eq!(diff(&mut nodes, &old, &old), []);
    assert_eq!(nodes.fetched, 0, "equal roots are not read");
    parts[70_000] = Part::Chunk(u32::MAX, 4);
    parts[70_001] = Part::Zero(4);
    parts[2_000_000] = Part::Chunk(u32::MAX, 4);
    let new = build(&mut nodes, SMALL, &parts);
    assert_eq!(diff(&mut nodes, &old, &new), [280_000..280_008, 8_000_000..8_000_004]);
    assert_eq!(nodes.fetched, 2 * 5, "the root, two below it, two leaves, of each stream");
}

/// Parts for a fixed cutting of 4 bytes: mostly whole chunks and runs, few of them different.
fn fixed_parts() -> impl Strategy<Value = Vec<Part>> {
    let part = prop_oneof![
        6 => (0..3u32).prop_map(|number| Part::Chunk(number, 4)),
        1 => (1..3000u64).prop_map(|count| Part::Zero(count * 4)),
        1 => (1..3u64).prop_map(|count| Part::Zero(count * 4)),
    ];
    (prop::collection::vec(part, 0..3000), prop::option::of(0..4u32)).prop_map(|(mut parts, tail)| {
        match tail {
            Some(0) => parts.push(Part::Zero(2)),
            Some(len) => parts.push(Part::Chunk(9, len)),
            None => {}
        }
        parts
    })
}

fn content_parts() -> impl Strategy<Value = Vec<Part>> {
    let part = prop_oneof![
        6 => (any::<u32>(), 1..2000u32).prop_map(|(number, len)| Part::Chunk(number, len)),
        1 => (1..1_000_000u64).prop_map(Part::Zero),
    ];
    prop::collection::vec(part, 0..3000)
}

/// What stands at each place, chunk by chunk of 4 bytes.
fn places(parts: &[Part]) -> Vec<(Part, u64)> {
    let mut places = Vec::new();
    for part in parts {
        match *part {
            Part::Zero(len) => {
                places.extend((0..len.div_ceil(4)).map(|at| (Part::Zero(0), (len - at * 4).min(4))));
            }
            Part::Chunk(_, len) => places.push((*part, u64::from(len))),
        }
    }
    places
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_stream_is_described_and_found_again(
        (cutting, parts) in prop_oneof![
            fixed_parts().prop_map(|parts| (SMALL, parts)),
            content_parts().prop_map(|parts| (CONTENT, parts)),
        ],
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
    ) {
        let mut nodes = Nodes::default();
        let root = build(&mut nodes, cutting, &parts);
        let expected = entries_of(&parts);
        let size: u64 = expected.iter().map(|entry| entry.len).sum();
        prop_assert_eq!(root.size_bytes, size);
        prop_assert_eq!(&join_zeros(&read(&mut nodes, &root, 0..size)), &expected);
        // A range: chunks whole, zeros cut.
        let places = usize::try_from(size).unwrap() + 1;
        let (from, to) = (from.index(places) as u64, to.index(places) as u64);
        let touched = expected.iter().filter(|entry| from < to && entry.offset < to && entry.offset + entry.len > from);
        let cut: Vec<_> = touched
            .map(|entry| match entry.piece {
                Piece::Chunk(_) => *entry,
                Piece::Zero => {
                    let start = entry.offset.max(from);
                    let len = (entry.offset + entry.len).min(to) - start;
                    ManifestEntry { offset: start, len, ..*entry }
                }
            })
            .collect();
        prop_assert_eq!(join_zeros(&read(&mut nodes, &root, from..to)), cut);
    }

    #[test]
    fn any_two_streams_are_compared(old in fixed_parts(), edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4u32), 0..20), other in prop::option::of(fixed_parts())) {
        let mut new = other.unwrap_or_else(|| old.clone());
        for (at, kind) in edits {
            if new.is_empty() {
                break;
            }
            let at = at.index(new.len());
            match (new[at], kind) {
                (Part::Chunk(_, len), 0) => new[at] = Part::Zero(u64::from(len)),
                (Part::Chunk(_, len), number) => new[at] = Part::Chunk(number, len),
                _ => {}
            }
        }
        let mut nodes = Nodes::default();
        let (a, b) = (build(&mut nodes, SMALL, &old), build(&mut nodes, SMALL, &new));
        let (old, new) = (places(&old), places(&new));
        let mut expected: Vec<Range<u64>> = Vec::new();
        for at in 0..old.len().max(new.len()) {
            let differs = match (old.get(at), new.get(at)) {
                // Zeros at the end of one stream are equal to longer zeros at their place, as far as they go.
                (Some((Part::Zero(_), a)), Some((Part::Zero(_), b))) => (a != b).then(|| *a.min(b)..*a.max(b)),
                (Some(a), Some(b)) => (a != b).then(|| 0..a.1.max(b.1)),
                (Some(one), None) | (None, Some(one)) => Some(0..one.1),
                (None, None) => None,
            };
            let Some(range) = differs else { continue };
            let range = at as u64 * 4 + range.start..at as u64 * 4 + range.end;
            match expected.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => expected.push(range),
            }
        }
        prop_assert_eq!(diff(&mut nodes, &a, &b), expected);
    }
}
