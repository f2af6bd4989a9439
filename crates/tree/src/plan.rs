//! Deciding what is read and what is taken over: files in, segments out. Pure.
//!
//! Files that have bytes are put into segments in the order of the walk. Where the walk meets the first file of a
//! segment of the base checkpoint and all files of that segment follow unchanged, with none added between them,
//! the segment is taken over; otherwise its files are read. Everything else (directories, links, empty files)
//! travels along in order and has no influence.

use std::ops::Range;

use crate::entry::{Entry, Kind, compare_paths};

/// Files up to this size share segments; larger ones have their own.
pub(crate) const LARGE_BYTES: u64 = 1 << 20;
/// A shared segment is closed once it holds so many bytes …
const SEGMENT_BYTES: u64 = 2 << 20;
/// … or so many files …
const SEGMENT_FILES: usize = 2048;
/// … or when so many entries wait for it.
pub(crate) const SEGMENT_ITEMS: usize = 8192;

/// An entry on its way, and whether its file is known to have holes.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) entry: Entry,
    pub(crate) holes: bool,
}

impl Item {
    /// Returns whether the entry is a file with bytes to be stored.
    pub(crate) fn has_data(&self) -> bool {
        matches!(&self.entry.kind, Kind::File(content) if content.data_bytes() > 0)
    }

    fn size_bytes(&self) -> u64 {
        match &self.entry.kind {
            Kind::File(content) => content.size_bytes,
            _ => 0,
        }
    }
}

/// A segment of the base checkpoint: its files, in order, and where their bytes are.
#[derive(Debug)]
pub(crate) struct BaseSegment {
    pub(crate) range: Range<u64>,
    pub(crate) files: Vec<Entry>,
}

/// What is to be done next, in order.
#[derive(Debug)]
pub(crate) enum Action {
    /// Read these files into one segment.
    Read(Vec<Item>),
    /// Read this large file into segments of its own.
    ReadLarge(Item),
    /// Take the segment over; the entries (of the walk) come with the base's content.
    Reuse(Range<u64>, Vec<Item>),
    /// Nothing to read: entries only.
    Pass(Vec<Item>),
}

/// Gives segments of the base in order.
pub(crate) trait Base {
    /// Returns the next segment, or `None` at the end.
    fn next_segment(&mut self) -> crate::Result<Option<BaseSegment>>;
}

/// Decides.
pub(crate) struct Planner<B> {
    base: B,
    /// The base's segment whose last file is not yet passed.
    segment: Option<BaseSegment>,
    /// How many of its files have followed unchanged; these wait in `matched`.
    hits: usize,
    matched: Vec<Item>,
    /// What will be read as one segment.
    group: Vec<Item>,
    group_bytes: u64,
    group_files: usize,
}

impl<B: Base> Planner<B> {
    pub(crate) fn new(mut base: B) -> crate::Result<Self> {
        let segment = base.next_segment()?;
        Ok(Self {
            base,
            segment,
            hits: 0,
            matched: Vec::new(),
            group: Vec::new(),
            group_bytes: 0,
            group_files: 0,
        })
    }

    /// Takes the next entry of the walk; `out` gets what is to be done now.
    pub(crate) fn push(&mut self, item: Item, out: &mut Vec<Action>) -> crate::Result<()> {
        if !item.has_data() {
            let waiting = if self.hits > 0 { &mut self.matched } else { &mut self.group };
            waiting.push(item);
            if self.matched.len() > SEGMENT_ITEMS {
                self.mismatch(out);
            }
            if self.group.len() > SEGMENT_ITEMS {
                self.flush(out);
            }
            return Ok(());
        }
        if self.hits > 0 && !self.fits(&item) {
            self.mismatch(out);
        }
        if self.hits == 0 {
            self.skip_base_before(&item.entry.path)?;
        }
        if self.fits(&item) {
            if self.hits == 0 {
                // The reused segment comes after what is being gathered.
                self.flush(out);
            }
            self.matched.push(item);
            self.hits += 1;
            if self.segment.as_ref().is_some_and(|segment| segment.files.len() == self.hits) {
                self.reuse(out);
                self.segment = self.base.next_segment()?;
            }
            return Ok(());
        }
        self.read(item, out);
        Ok(())
    }

    /// Ends the walk.
    pub(crate) fn finish(mut self, out: &mut Vec<Action>) {
        self.mismatch(out);
        self.flush(out);
    }

    fn fits(&self, item: &Item) -> bool {
        let next = self.segment.as_ref().and_then(|segment| segment.files.get(self.hits));
        next.is_some_and(|earlier| item.entry.path == earlier.path && item.entry.is_unchanged_since(earlier))
    }

    fn skip_base_before(&mut self, path: &[u8]) -> crate::Result<()> {
        while let Some(last) = self.segment.as_ref().and_then(|segment| segment.files.last()) {
            if compare_paths(&last.path, path).is_ge() {
                break;
            }
            self.segment = self.base.next_segment()?;
        }
        Ok(())
    }

    fn reuse(&mut self, out: &mut Vec<Action>) {
        let Some(segment) = self.segment.take() else { return };
        let mut files = segment.files.into_iter();
        for item in self.matched.iter_mut().filter(|item| item.has_data()) {
            // The walk's times and owner, the base's place.
            if let Some(earlier) = files.next() {
                item.entry.kind = earlier.kind;
            }
        }
        self.hits = 0;
        out.push(Action::Reuse(segment.range, std::mem::take(&mut self.matched)));
    }

    fn mismatch(&mut self, out: &mut Vec<Action>) {
        self.hits = 0;
        for item in std::mem::take(&mut self.matched) {
            if item.has_data() {
                self.read(item, out);
            } else {
                self.group.push(item);
            }
        }
    }

    fn read(&mut self, item: Item, out: &mut Vec<Action>) {
        let size = item.size_bytes();
        if size > LARGE_BYTES {
            self.flush(out);
            out.push(Action::ReadLarge(item));
            return;
        }
        if self.group_bytes + size > SEGMENT_BYTES {
            self.flush(out);
        }
        self.group.push(item);
        self.group_bytes += size;
        self.group_files += 1;
        if self.group_files >= SEGMENT_FILES || self.group_bytes >= SEGMENT_BYTES {
            self.flush(out);
        }
    }

    fn flush(&mut self, out: &mut Vec<Action>) {
        if self.group.is_empty() {
            return;
        }
        let group = std::mem::take(&mut self.group);
        out.push(if self.group_files > 0 { Action::Read(group) } else { Action::Pass(group) });
        self.group_bytes = 0;
        self.group_files = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Content, Stamp};
    use proptest::prelude::*;

    struct Segments(std::vec::IntoIter<BaseSegment>);
    impl Base for Segments {
        fn next_segment(&mut self) -> crate::Result<Option<BaseSegment>> {
            Ok(self.0.next())
        }
    }

    fn item(name: u32, version: i64) -> Item {
        let stamp = Stamp { seconds: version, nanos: 0 };
        // Every seventh is large, every fifth empty.
        let size = if name.is_multiple_of(7) { LARGE_BYTES + 1 } else { u64::from(name % 5) * 100_000 };
        let entry = Entry {
            path: format!("{name:08}").into_bytes(),
            kind: Kind::File(Content { size_bytes: size, ..Content::default() }),
            mode: 0o644,
            uid: 0,
            gid: 0,
            modified: stamp,
            changed: stamp,
            inode: u64::from(name),
            xattrs: Vec::new(),
        };
        Item { entry, holes: false }
    }

    fn plan(base: Vec<BaseSegment>, files: &std::collections::BTreeMap<u32, i64>) -> Vec<Action> {
        let mut planner = Planner::new(Segments(base.into_iter())).expect("plans");
        let mut out = Vec::new();
        for (name, version) in files {
            planner.push(item(*name, *version), &mut out).expect("plans");
        }
        planner.finish(&mut out);
        out
    }

    /// Gives each action its place in the stream, as storing does; returns the base that a next run would see.
    fn store(actions: &[Action]) -> (Vec<BaseSegment>, Vec<Vec<u8>>, u64) {
        let (mut base, mut order, mut at, mut read) = (Vec::new(), Vec::new(), 0_u64, 0_u64);
        for action in actions {
            let (items, reused): (Vec<&Item>, bool) = match action {
                Action::Read(items) | Action::Pass(items) => (items.iter().collect(), false),
                Action::ReadLarge(item) => (vec![item], false),
                Action::Reuse(_, items) => (items.iter().collect(), true),
            };
            order.extend(items.iter().map(|item| item.entry.path.clone()));
            let start = at;
            let mut files = Vec::new();
            for item in items.into_iter().filter(|item| item.has_data()) {
                let mut entry = item.entry.clone();
                let size = item.size_bytes();
                entry.kind = Kind::File(Content {
                    size_bytes: size,
                    offset: at,
                    segment: start,
                    ..Content::default()
                });
                files.push(entry);
                at += size;
                read += if reused { 0 } else { size };
            }
            if !files.is_empty() {
                base.push(BaseSegment { range: start..at, files });
            }
        }
        (base, order, read)
    }

    proptest! {
        #[test]
        fn order_is_kept_and_only_segments_with_a_change_are_read(
            names in proptest::collection::btree_map(0_u32..400, 0_i64..2, 0..150),
            edits in proptest::collection::vec((0_u32..400, 0_u8..3), 0..6),
        ) {
            let (base, _, _) = store(&plan(Vec::new(), &names));
            let mut changed = names.clone();
            for (name, edit) in &edits {
                match edit {
                    0 => { changed.remove(name); }
                    1 => { changed.insert(*name, 7); }
                    _ => { changed.entry(*name).or_insert(3); }
                }
            }
            let actions = plan(base, &changed);
            let (_, order, read) = store(&actions);
            let wanted: Vec<Vec<u8>> = changed.keys().map(|name| format!("{name:08}").into_bytes()).collect();
            prop_assert_eq!(order, wanted);
            if changed == names {
                prop_assert_eq!(read, 0);
            }
            // An edit can break its own segment and push into a neighboring group, never more.
            prop_assert!(read <= edits.len() as u64 * 2 * (SEGMENT_BYTES + LARGE_BYTES));
        }
    }
}
