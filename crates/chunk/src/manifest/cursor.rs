//! Walking a manifest. The cursor asks for nodes; fetching them is the caller's.

use std::ops::Range;

use crate::manifest::walk::{Head, Walker, What};
use crate::{ChunkId, Error, Node, NodeRef, Result, StreamRoot};

/// A part of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ManifestEntry {
    /// Where in the stream it begins.
    pub offset: u64,
    /// How long it is.
    pub len: u64,
    /// What it is.
    pub piece: Piece,
}

/// What a part of a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// Zeros.
    Zero,
    /// A data chunk, whole.
    Chunk(ChunkId),
}

/// What the cursor found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CursorStep {
    /// A node stands here: give it to [`ManifestCursor::supply`], or pass over all of it by
    /// [`ManifestCursor::skip`].
    Need(NodeRef),
    /// The next part of the stream. Chunks are told whole, also where the range begins or ends inside of one; zero
    /// runs are cut to the range.
    Entry(ManifestEntry),
    /// The range is done.
    End,
}

/// Walks the parts of a stream that a range touches, in order.
///
/// `loop { match cursor.step()? { Need(node) => cursor.supply(&fetch(node.id)?)?, Entry(entry) => …, End => break } }`
///
/// Passing over nodes serves two ends. A writer that knows a range to be unchanged offers each needed node that
/// lies in the range to [`crate::ManifestBuilder::push_subtree`] first, and descends only where that cannot be.
/// A marker passes over nodes that it has seen.
#[derive(Debug, Clone)]
pub struct ManifestCursor {
    walker: Walker,
    range: Range<u64>,
}

impl ManifestCursor {
    /// Starts at the beginning of `range`, which is cut to the stream.
    pub fn new(root: &StreamRoot, range: Range<u64>) -> Self {
        Self { walker: Walker::new(root), range }
    }

    /// Starts at the beginning of the stream.
    pub fn whole(root: &StreamRoot) -> Self {
        Self::new(root, 0..root.size_bytes)
    }

    /// Goes on to the next step. An entry is told once; a needed node is told until it is supplied or skipped.
    ///
    /// # Errors
    /// None at present; kept for what may be found out between nodes.
    pub fn step(&mut self) -> Result<CursorStep> {
        while let Some(Head { offset, len, what, .. }) = self.walker.head() {
            let end = offset + len;
            if self.range.is_empty() || offset >= self.range.end {
                break;
            }
            if end <= self.range.start {
                self.walker.advance(len);
                continue;
            }
            let entry = match what {
                What::Node(node) => return Ok(CursorStep::Need(node)),
                What::Chunk(id) => ManifestEntry { offset, len, piece: Piece::Chunk(id) },
                What::Zero => {
                    let start = offset.max(self.range.start);
                    ManifestEntry { offset: start, len: end.min(self.range.end) - start, piece: Piece::Zero }
                }
            };
            self.walker.advance(len);
            return Ok(CursorStep::Entry(entry));
        }
        Ok(CursorStep::End)
    }

    /// Gives the bytes of the node that the last step asked for.
    ///
    /// # Errors
    /// When they are no node, or not of the level and length that its parent said; [`Error::Misuse`] when no node
    /// was asked for.
    pub fn supply(&mut self, bytes: &[u8]) -> Result<()> {
        self.supply_node(Node::decode(bytes)?)
    }

    /// As [`Self::supply`], for a node that was decoded before (from a cache).
    ///
    /// # Errors
    /// As [`Self::supply`].
    pub fn supply_node(&mut self, node: Node) -> Result<()> {
        self.walker.expand(node)
    }

    /// Passes over the node that the last step asked for, and all that is below it.
    ///
    /// # Errors
    /// [`Error::Misuse`] when no node was asked for.
    pub fn skip(&mut self) -> Result<()> {
        match self.walker.head() {
            Some(Head { what: What::Node(_), len, .. }) => {
                self.walker.advance(len);
                Ok(())
            }
            _ => Err(Error::Misuse { what: "a node of a manifest was skipped that was not asked for" }),
        }
    }

    /// Returns nodes of the range that will be needed soon, nearest first, at most `limit`: for reading ahead.
    pub fn upcoming(&self, limit: usize) -> Vec<NodeRef> {
        let mut nodes = Vec::new();
        self.walker.upcoming(&mut |node| {
            let within = node.offset < self.range.end;
            if within && nodes.len() < limit && node.offset + node.len > self.range.start {
                nodes.push(node);
            }
            within && nodes.len() < limit
        });
        nodes
    }
}
