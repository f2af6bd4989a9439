//! Comparing two manifests without reading what they share.

use std::ops::Range;

use crate::manifest::walk::{Head, Walker, What};
use crate::{Error, Node, NodeRef, Result, StreamRoot};

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiffStep {
    /// A node of the old stream is needed: give it to [`ManifestDiff::supply`].
    NeedOld(NodeRef),
    /// A node of the new stream is needed: give it to [`ManifestDiff::supply`].
    NeedNew(NodeRef),
    /// These bytes of the new stream may differ from those at the same place in the old one. Ranges ascend
    /// and do not touch. Where the old stream is longer, the range past the new one's end is told as well.
    Changed(Range<u64>),
    /// Done.
    End,
}

/// Walks two streams side by side, and steps over equal nodes, chunks and zeros.
///
/// It compares places: bytes that moved are told as changed.
#[derive(Debug, Clone)]
pub struct ManifestDiff {
    old: Walker,
    new: Walker,
    size_bytes: u64,
    /// A changed range that may still grow.
    pending: Option<Range<u64>>,
    asked: Option<Side>,
}

#[derive(Debug, Clone, Copy)]
enum Side {
    Old,
    New,
}

impl ManifestDiff {
    /// Starts to compare.
    pub fn new(old: &StreamRoot, new: &StreamRoot) -> Self {
        let size_bytes = old.size_bytes.max(new.size_bytes);
        Self { old: Walker::new(old), new: Walker::new(new), size_bytes, pending: None, asked: None }
    }

    /// Goes on to the next step. A needed node is told until it is supplied.
    ///
    /// # Errors
    /// None at present; kept for what may be found out between nodes.
    pub fn step(&mut self) -> Result<DiffStep> {
        self.asked = None;
        loop {
            let (old, new) = match (self.old.head(), self.new.head()) {
                (Some(old), Some(new)) => (old, new),
                (None, None) => return Ok(self.pending.take().map_or(DiffStep::End, DiffStep::Changed)),
                // One stream has ended: the rest of the other is a change, whatever it is.
                (Some(head), None) | (None, Some(head)) => {
                    self.changed(head.offset..self.size_bytes);
                    self.old.advance_to_end();
                    self.new.advance_to_end();
                    continue;
                }
            };
            if let Some(len) = equal_bytes(&old, &new) {
                self.old.advance(len);
                self.new.advance(len);
                if let Some(range) = self.pending.take() {
                    return Ok(DiffStep::Changed(range));
                }
                continue;
            }
            match (old.what, new.what) {
                // The longer one is opened: what is in it may be the other.
                (What::Node(a), What::Node(b)) if a.len >= b.len => return Ok(self.ask(Side::Old, a)),
                (_, What::Node(b)) => return Ok(self.ask(Side::New, b)),
                (What::Node(a), _) => return Ok(self.ask(Side::Old, a)),
                _ => {
                    let len = old.len.min(new.len);
                    self.changed(new.offset..new.offset + len);
                    self.old.advance(len);
                    self.new.advance(len);
                }
            }
        }
    }

    /// Gives the bytes of the node that the last step asked for.
    ///
    /// # Errors
    /// When they are no node, or not of the level and length that its parent said; [`Error::Misuse`] when no node
    /// was asked for.
    pub fn supply(&mut self, bytes: &[u8]) -> Result<()> {
        let node = Node::decode(bytes)?;
        match self.asked.take() {
            Some(Side::Old) => self.old.expand(node),
            Some(Side::New) => self.new.expand(node),
            None => Err(Error::Misuse { what: "a node of a manifest was supplied that was not asked for" }),
        }
    }

    fn ask(&mut self, side: Side, node: NodeRef) -> DiffStep {
        self.asked = Some(side);
        match side {
            Side::Old => DiffStep::NeedOld(node),
            Side::New => DiffStep::NeedNew(node),
        }
    }

    fn changed(&mut self, range: Range<u64>) {
        match &mut self.pending {
            Some(pending) => pending.end = range.end,
            None => self.pending = Some(range),
        }
    }
}

/// How many bytes from here on are the same for certain, if any.
fn equal_bytes(old: &Head, new: &Head) -> Option<u64> {
    match (old.what, new.what) {
        (What::Zero, What::Zero) => Some(old.len.min(new.len)),
        (What::Chunk(a), What::Chunk(b)) => {
            let same = a == b && old.len == new.len && old.whole && new.whole;
            same.then_some(old.len)
        }
        (What::Node(a), What::Node(b)) => (a == b).then_some(old.len),
        _ => None,
    }
}
