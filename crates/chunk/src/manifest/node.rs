//! Nodes, in memory and as bytes.

use crate::{ChunkId, Error, Result};

/// A node of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// 0 for a leaf; otherwise one more than the level of its children.
    pub level: u8,
    /// What it is made of, in the order of the stream.
    pub entries: Vec<NodeEntry>,
}

/// A part of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeEntry {
    /// A run of zeros.
    Zero {
        /// How long.
        len: u64,
    },
    /// In a leaf a data chunk, in other nodes a node one level below.
    Child {
        /// Its name.
        id: ChunkId,
        /// How many bytes of the stream it stands for.
        len: u64,
    },
}

/// Refers to a node below the root, or to the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeRef {
    /// Its name.
    pub id: ChunkId,
    /// Its level.
    pub level: u8,
    /// Where in the stream it begins.
    pub offset: u64,
    /// How many bytes of the stream it stands for.
    pub len: u64,
}

impl Node {
    /// Reads a node.
    ///
    /// # Errors
    /// When the bytes are no node, or of an unknown format.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let _ = bytes;
        Err(Error::Misuse { what: "not written yet" })
    }

    /// Writes a node.
    pub fn encode(&self) -> Vec<u8> {
        Vec::new()
    }
}
