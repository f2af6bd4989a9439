//! Comparing two manifests without reading what they share.

use std::ops::Range;

use crate::{Error, NodeRef, Result, StreamRoot};

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
#[derive(Debug, Clone)]
pub struct ManifestDiff {
    pending: Option<Range<u64>>,
}

impl ManifestDiff {
    /// Starts to compare.
    pub fn new(old: &StreamRoot, new: &StreamRoot) -> Self {
        let _ = (old, new);
        Self { pending: None }
    }

    /// Goes on to the next step.
    ///
    /// # Errors
    /// None at present; kept for what may be found out between nodes.
    pub fn step(&mut self) -> Result<DiffStep> {
        let _ = &self.pending;
        Err(Error::Misuse { what: "not written yet" })
    }

    /// Gives the bytes of the node that the last step asked for.
    ///
    /// # Errors
    /// When they are no node or not of the level and length that its parent said; [`Error::Misuse`] when no node was asked for.
    pub fn supply(&mut self, bytes: &[u8]) -> Result<()> {
        let _ = bytes;
        Err(Error::Misuse { what: "not written yet" })
    }
}
