//! Building a manifest from left to right.
//!
//! With fixed cutting, the node of level `k` number `n` stands for the bytes from `n * span(k)` on, where
//! `span(k)` is the chunk size times 1024^(k+1). A node that would be nothing but zeros is not stored: its parent
//! has a run of zeros instead, and runs that touch within a node are one. With content-defined cutting a node ends
//! behind a child whose name says so, or at 2048 entries.
//!
//! Either way a node follows from what is below it. A node is closed only when something comes after it (with
//! content-defined cutting: or when its last child ends it), so that runs of zeros are one however they were pushed.

use crate::manifest::node::MAX_LEVEL;
use crate::{ChunkId, Cutting, Error, MAX_CHUNK_BYTES, Namer, Node, NodeEntry, PackKind, Result, StreamRoot};

/// How many chunks, or nodes, a node stands for with fixed cutting.
const FIXED_FANOUT: u64 = 1024;
/// With content-defined cutting: no node but the last of its level has fewer entries.
const CONTENT_MIN: usize = 128;
/// With content-defined cutting: no node has more entries.
const CONTENT_MAX: usize = 2048;
/// With content-defined cutting: one in 512 names ends a node.
const CONTENT_MASK: u32 = 511;
const TOO_LARGE: Error = Error::Misuse { what: "the stream is larger than a manifest can describe" };

/// A node that is to be stored as a chunk of a meta pack, unless it is present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNode {
    /// Its name.
    pub id: ChunkId,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its level.
    pub level: u8,
}

/// Takes the entries of a stream in order, and gives out nodes as they become complete.
///
/// It holds one open node per level, whatever the size of the stream. A call gives out at most a few nodes.
#[derive(Debug)]
pub struct ManifestBuilder {
    namer: Namer,
    cutting: Cutting,
    offset: u64,
    /// Something shorter than its place was pushed: nothing may follow it.
    ended: bool,
    open: Vec<Open>,
}

/// The node of a level that is being filled.
#[derive(Debug, Default)]
struct Open {
    entries: Vec<NodeEntry>,
    len: u64,
}

impl Open {
    fn push(&mut self, entry: NodeEntry) {
        self.len += entry.len();
        if let (Some(NodeEntry::Zero { len }), NodeEntry::Zero { len: more }) =
            (self.entries.last_mut(), entry)
        {
            *len += more;
            return;
        }
        self.entries.push(entry);
    }

    /// The length of the run of zeros that it is, if it is one.
    fn only_zero(&self) -> Option<u64> {
        match self.entries.as_slice() {
            [NodeEntry::Zero { len }] => Some(*len),
            _ => None,
        }
    }
}

impl ManifestBuilder {
    /// Starts the manifest of a stream.
    ///
    /// # Errors
    /// When the size of fixed chunks is out of range.
    pub fn new(namer: Namer, cutting: Cutting) -> Result<Self> {
        if let Cutting::Fixed { chunk_bytes } = cutting
            && !(1..=MAX_CHUNK_BYTES).contains(&chunk_bytes)
        {
            return Err(Error::Misuse { what: "the chunk size must be 1 byte to 8 MiB" });
        }
        Ok(Self { namer, cutting, offset: 0, ended: false, open: Vec::new() })
    }

    /// Returns how many bytes of the stream were taken.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes the next chunk.
    ///
    /// # Errors
    /// [`Error::Misuse`] when it is empty or too large; with fixed cutting also when it is not exactly one chunk
    /// size, unless it is the last.
    pub fn push_chunk(&mut self, id: ChunkId, len: u32, sink: &mut dyn FnMut(NewNode)) -> Result<()> {
        let limit = match self.cutting {
            Cutting::Fixed { chunk_bytes } => chunk_bytes,
            Cutting::Content { .. } => MAX_CHUNK_BYTES,
        };
        if len == 0 || len > limit {
            return Err(Error::Misuse { what: "a chunk of the stream is empty or too large" });
        }
        self.begin(u64::from(len))?;
        self.close_full(sink)?;
        self.ended = matches!(self.cutting, Cutting::Fixed { chunk_bytes } if len < chunk_bytes);
        self.offset += u64::from(len);
        self.add(0, NodeEntry::Child { id, len: u64::from(len) }, sink)
    }

    /// Takes zeros. With fixed cutting their number must be a multiple of the chunk size, unless they end the stream.
    ///
    /// # Errors
    /// [`Error::Misuse`] when more follows what had to be the end.
    pub fn push_zero(&mut self, len: u64, sink: &mut dyn FnMut(NewNode)) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        self.begin(len)?;
        let Cutting::Fixed { chunk_bytes } = self.cutting else {
            self.offset += len;
            return self.add(0, NodeEntry::Zero { len }, sink);
        };
        let mut left = len;
        while left > 0 {
            self.close_full(sink)?;
            // The highest level at which whole children can be skipped from here.
            let mut level = 0;
            let mut unit = u64::from(chunk_bytes);
            while level < MAX_LEVEL {
                let span = self.span(level);
                if left < span || !self.offset.is_multiple_of(span) {
                    break;
                }
                (level, unit) = (level + 1, span);
            }
            let room = self.span(level) - self.open_len(level);
            let run = if left < unit { left } else { (left - left % unit).min(room) };
            self.ended = run < unit;
            self.offset += run;
            self.add(level, NodeEntry::Zero { len: run }, sink)?;
            left -= run;
        }
        Ok(())
    }

    /// Returns whether a node of this level that stands for `len` bytes can be taken whole here. With fixed
    /// cutting, one that is shorter than its level's nodes are ends the stream.
    pub fn can_push_subtree(&self, level: u8, len: u64) -> bool {
        if self.ended || level >= MAX_LEVEL || len == 0 {
            return false;
        }
        match self.cutting {
            Cutting::Fixed { .. } => {
                let span = self.span(level);
                self.offset.is_multiple_of(span) && len <= span
            }
            Cutting::Content { .. } => {
                self.open.iter().take(usize::from(level) + 1).all(|open| open.entries.is_empty())
            }
        }
    }

    /// Takes a node that is in the bank already, with all that is below it.
    ///
    /// # Errors
    /// [`Error::Misuse`] unless [`Self::can_push_subtree`] says that it can be.
    pub fn push_subtree(
        &mut self,
        id: ChunkId,
        level: u8,
        len: u64,
        sink: &mut dyn FnMut(NewNode),
    ) -> Result<()> {
        if !self.can_push_subtree(level, len) {
            return Err(Error::Misuse { what: "a node of a manifest was pushed where it cannot stand" });
        }
        self.begin(len)?;
        self.close_full(sink)?;
        self.ended = matches!(self.cutting, Cutting::Fixed { .. }) && len < self.span(level);
        self.offset += len;
        self.add(level + 1, NodeEntry::Child { id, len }, sink)
    }

    /// Closes the open nodes, the root last.
    ///
    /// # Errors
    /// When the stream is larger than a manifest can describe.
    pub fn finish(mut self, sink: &mut dyn FnMut(NewNode)) -> Result<StreamRoot> {
        let (node, depth) = match self.cutting {
            Cutting::Fixed { .. } => self.finish_fixed(sink)?,
            Cutting::Content { .. } => self.finish_content(sink)?,
        };
        Ok(StreamRoot { node, size_bytes: self.offset, depth, cutting: self.cutting })
    }

    /// The root stands at the lowest level whose nodes are long enough for the stream.
    fn finish_fixed(&mut self, sink: &mut dyn FnMut(NewNode)) -> Result<(ChunkId, u8)> {
        let mut depth = 0;
        while depth < MAX_LEVEL && self.span(depth) < self.offset {
            depth += 1;
        }
        for level in 0..depth {
            self.close(level, sink)?;
        }
        // A child that stands for the whole stream is the root; as zeros it has to be stored for once.
        let above = self.open.iter().enumerate().skip(usize::from(depth) + 1);
        for (level, open) in above {
            if let [NodeEntry::Child { id, .. }] = open.entries.as_slice() {
                let level = u8::try_from(level).expect("levels are few");
                return Ok((*id, level - 1));
            }
            if let Some(len) = open.only_zero() {
                return Ok((self.emit(depth, vec![NodeEntry::Zero { len }], sink)?, depth));
            }
        }
        let entries = self.open.get_mut(usize::from(depth)).map(|open| std::mem::take(&mut open.entries));
        Ok((self.emit(depth, entries.unwrap_or_default(), sink)?, depth))
    }

    /// The root is the first node that is alone on its level.
    fn finish_content(&mut self, sink: &mut dyn FnMut(NewNode)) -> Result<(ChunkId, u8)> {
        let mut level = 0;
        loop {
            let more_above =
                self.open.iter().skip(usize::from(level) + 1).any(|open| !open.entries.is_empty());
            if more_above {
                self.close(level, sink)?;
                level += 1;
                continue;
            }
            let entries = self.open.get_mut(usize::from(level)).map(|open| std::mem::take(&mut open.entries));
            let entries = entries.unwrap_or_default();
            if let ([NodeEntry::Child { id, .. }], 1..) = (entries.as_slice(), level) {
                return Ok((*id, level - 1));
            }
            return Ok((self.emit(level, entries, sink)?, level));
        }
    }

    fn begin(&self, len: u64) -> Result<()> {
        if self.ended {
            return Err(Error::Misuse { what: "something was pushed behind the end of the stream" });
        }
        // Half of the numbers are left for marks.
        match self.offset.checked_add(len) {
            Some(end) if end < 1 << 62 => Ok(()),
            _ => Err(TOO_LARGE),
        }
    }

    /// How many bytes a full node of a level stands for, with fixed cutting.
    fn span(&self, level: u8) -> u64 {
        let Cutting::Fixed { chunk_bytes } = self.cutting else { return u64::MAX };
        let fanout = FIXED_FANOUT.saturating_pow(u32::from(level) + 1);
        u64::from(chunk_bytes).saturating_mul(fanout)
    }

    fn open_len(&self, level: u8) -> u64 {
        self.open.get(usize::from(level)).map_or(0, |open| open.len)
    }

    /// With fixed cutting, closes the nodes that are full, now that something follows them.
    fn close_full(&mut self, sink: &mut dyn FnMut(NewNode)) -> Result<()> {
        if matches!(self.cutting, Cutting::Fixed { .. }) {
            let mut level = 0;
            while usize::from(level) < self.open.len() {
                if self.open_len(level) == self.span(level) {
                    self.close(level, sink)?;
                }
                level += 1;
            }
        }
        Ok(())
    }

    fn add(&mut self, level: u8, entry: NodeEntry, sink: &mut dyn FnMut(NewNode)) -> Result<()> {
        if level > MAX_LEVEL {
            return Err(TOO_LARGE);
        }
        let at = usize::from(level);
        while self.open.len() <= at {
            self.open.push(Open::default());
        }
        if matches!(self.cutting, Cutting::Fixed { .. }) {
            self.open[at].push(entry);
            return Ok(());
        }
        let last = self.open[at].entries.last();
        let joins = matches!((last, entry), (Some(NodeEntry::Zero { .. }), NodeEntry::Zero { .. }));
        if self.open[at].entries.len() >= CONTENT_MAX && !joins {
            self.close(level, sink)?;
        }
        self.open[at].push(entry);
        if let NodeEntry::Child { id, .. } = entry {
            let name = u32::from_le_bytes([id.0[0], id.0[1], id.0[2], id.0[3]]);
            if self.open[at].entries.len() >= CONTENT_MIN && name & CONTENT_MASK == 0 {
                self.close(level, sink)?;
            }
        }
        Ok(())
    }

    /// Gives out the open node of a level, and puts it into its parent.
    fn close(&mut self, level: u8, sink: &mut dyn FnMut(NewNode)) -> Result<()> {
        let Some(open) = self.open.get_mut(usize::from(level)) else { return Ok(()) };
        if open.entries.is_empty() {
            return Ok(());
        }
        let open = std::mem::take(open);
        let entry = match (open.only_zero(), self.cutting) {
            (Some(len), Cutting::Fixed { .. }) => NodeEntry::Zero { len },
            _ => NodeEntry::Child { id: self.emit(level, open.entries, sink)?, len: open.len },
        };
        self.add(level + 1, entry, sink)
    }

    fn emit(&self, level: u8, entries: Vec<NodeEntry>, sink: &mut dyn FnMut(NewNode)) -> Result<ChunkId> {
        let bytes = Node::new(level, entries)?.encode();
        let id = self.namer.chunk_id(PackKind::Meta, &bytes);
        sink(NewNode { id, bytes, level });
        Ok(id)
    }
}
