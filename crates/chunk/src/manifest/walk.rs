//! A place in a manifest, shared by the cursor and the comparison.

use crate::{ChunkId, Error, Node, NodeEntry, NodeRef, Result, StreamRoot};

/// Walks a manifest from left to right; nodes come from outside.
#[derive(Debug, Clone)]
pub(crate) struct Walker {
    root: Option<NodeRef>,
    stack: Vec<Frame>,
    /// How much of the head was taken already.
    taken: u64,
}

#[derive(Debug, Clone)]
struct Frame {
    node: Node,
    /// Which entry is next.
    index: usize,
    /// Where in the stream that entry begins.
    offset: u64,
}

/// What stands at the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Where what is left of it begins.
    pub(crate) offset: u64,
    /// How much of it is left.
    pub(crate) len: u64,
    /// Whether nothing of it was taken.
    pub(crate) whole: bool,
    pub(crate) what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Zero,
    Chunk(ChunkId),
    Node(NodeRef),
}

impl Walker {
    pub(crate) fn new(root: &StreamRoot) -> Self {
        let node = NodeRef { id: root.node, level: root.depth, offset: 0, len: root.size_bytes };
        // The root of an empty stream has nothing to tell.
        Self { root: (node.len > 0).then_some(node), stack: Vec::new(), taken: 0 }
    }

    /// Returns what stands here, or `None` at the end.
    pub(crate) fn head(&self) -> Option<Head> {
        let (what, offset, len) = if let Some(root) = self.root {
            (What::Node(root), root.offset, root.len)
        } else {
            let frame = self.stack.last()?;
            let entry = frame.node.entries().get(frame.index)?;
            (frame.what(entry, frame.offset), frame.offset, entry.len())
        };
        Some(Head { offset: offset + self.taken, len: len - self.taken, whole: self.taken == 0, what })
    }

    /// Takes `len` bytes of the head, or all of it.
    pub(crate) fn advance(&mut self, len: u64) {
        let Some(head) = self.head() else { return };
        if len < head.len {
            self.taken += len;
            return;
        }
        self.taken = 0;
        if self.root.take().is_some() {
            return;
        }
        while let Some(frame) = self.stack.last_mut() {
            frame.offset += frame.node.entries().get(frame.index).map_or(0, NodeEntry::len);
            frame.index += 1;
            if frame.index < frame.node.entries().len() {
                return;
            }
            self.stack.pop();
        }
    }

    /// Leaves the rest of the stream.
    pub(crate) fn advance_to_end(&mut self) {
        self.root = None;
        self.stack.clear();
        self.taken = 0;
    }

    /// Replaces the head, a node that was not begun, by what is in it.
    pub(crate) fn expand(&mut self, node: Node) -> Result<()> {
        let Some(Head { what: What::Node(wanted), whole: true, .. }) = self.head() else {
            return Err(Error::Misuse { what: "a node of a manifest was supplied that was not asked for" });
        };
        if node.level() != wanted.level || node.len() != wanted.len {
            return Err(Error::Malformed { part: "manifest node", what: "it is not what its parent says" });
        }
        self.root = None;
        self.stack.push(Frame { node, index: 0, offset: wanted.offset });
        Ok(())
    }

    /// Calls `see` with the nodes that follow the place and are known already, nearest first, until it says no.
    pub(crate) fn upcoming(&self, see: &mut dyn FnMut(NodeRef) -> bool) {
        if let Some(root) = self.root {
            see(root);
            return;
        }
        for (depth, frame) in self.stack.iter().rev().enumerate() {
            if frame.node.level() == 0 {
                continue;
            }
            let mut offset = frame.offset;
            for (place, entry) in frame.node.entries().iter().enumerate().skip(frame.index) {
                // The entry that the frame above was made of is not to come; it is being walked.
                let walked = depth > 0 && place == frame.index;
                if let (false, What::Node(node)) = (walked, frame.what(entry, offset))
                    && !see(node)
                {
                    return;
                }
                offset += entry.len();
            }
        }
    }
}

impl Frame {
    fn what(&self, entry: &NodeEntry, offset: u64) -> What {
        match (*entry, self.node.level()) {
            (NodeEntry::Zero { .. }, _) => What::Zero,
            (NodeEntry::Child { id, .. }, 0) => What::Chunk(id),
            (NodeEntry::Child { id, len }, level) => {
                What::Node(NodeRef { id, level: level - 1, offset, len })
            }
        }
    }
}
