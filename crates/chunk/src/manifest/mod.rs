//! Manifests: the tree that says which chunks, in which order, are a stream.
//!
//! Invariant: a node is a function of the bytes of the stream below it and of the cutting, nothing else, so equal
//! parts of streams are equal nodes and are stored once. With fixed-size cutting, nodes stand at aligned positions;
//! with content-defined cutting they end where a chunk's name says so. Readers rely on neither: a node tells the
//! length of each thing below it, and each is checked against what its parent said.

mod build;
mod cursor;
mod diff;
mod node;
#[cfg(test)]
mod tests;
mod walk;

pub use build::{ManifestBuilder, NewNode};
pub use cursor::{CursorStep, ManifestCursor, ManifestEntry, Piece};
pub use diff::{DiffStep, ManifestDiff};
pub use node::{Node, NodeEntry, NodeRef};

use serde::{Deserialize, Serialize};

use crate::{ChunkId, ContentSizes};

/// How a stream was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Cutting {
    /// At multiples of one size.
    Fixed {
        /// That size.
        chunk_bytes: u32,
    },
    /// Where the content says so.
    Content {
        /// No chunk but the last is smaller.
        min_bytes: u32,
        /// About the mean size.
        average_bytes: u32,
        /// No chunk is larger.
        max_bytes: u32,
    },
}

impl Cutting {
    /// Fixed cuts of 1 MiB, for disks and images.
    pub const DISK: Self = Self::Fixed { chunk_bytes: 1 << 20 };

    /// Content-defined cuts of these sizes.
    pub const fn content(sizes: ContentSizes) -> Self {
        Self::Content {
            min_bytes: sizes.min_bytes,
            average_bytes: sizes.average_bytes,
            max_bytes: sizes.max_bytes,
        }
    }
}

/// What a commit record says of a stream: where the tree begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StreamRoot {
    /// The root node. There is one even for an empty stream.
    pub node: ChunkId,
    /// The size of the stream.
    pub size_bytes: u64,
    /// The level of the root node: 0 when it is a leaf.
    pub depth: u8,
    /// How the stream was cut.
    pub cutting: Cutting,
}
