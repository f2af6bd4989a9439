//! Nodes, in memory and as bytes.
//!
//! A node is a column of lengths and then a column of names: the lengths, which are mostly equal, compress well
//! that way, and the names do not compress at all.

use crate::header::KNOWN_FORMATS;
use crate::{ChunkId, Error, FORMAT, MAX_CHUNK_BYTES, Result};

const PART: &str = "manifest node";
const MAGIC: &[u8; 4] = b"KBMN";
const HEAD_BYTES: usize = 24;
/// Marks the length of a run of zeros, which has no name.
const ZERO: u64 = 1 << 63;
/// The most entries that a node may have. Writers make at most 2048.
const MAX_ENTRIES: u64 = 1 << 16;
/// The highest level of a node.
pub(crate) const MAX_LEVEL: u8 = 7;

/// A node of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    level: u8,
    len: u64,
    entries: Vec<NodeEntry>,
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

impl NodeEntry {
    /// Returns how many bytes of the stream it stands for.
    pub fn len(&self) -> u64 {
        match *self {
            Self::Zero { len } | Self::Child { len, .. } => len,
        }
    }

    /// Returns whether it stands for nothing, which no entry of a node does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
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
    /// Makes a node of its entries.
    ///
    /// # Errors
    /// When the level is too high, there are too many entries, or one is empty, too long, or makes the sum too long.
    pub fn new(level: u8, entries: Vec<NodeEntry>) -> Result<Self> {
        let malformed = |what| Error::Malformed { part: PART, what };
        if level > MAX_LEVEL {
            return Err(Error::TooLarge { part: PART, found: u64::from(level), limit: u64::from(MAX_LEVEL) });
        }
        if entries.len() as u64 > MAX_ENTRIES {
            return Err(Error::TooLarge { part: PART, found: entries.len() as u64, limit: MAX_ENTRIES });
        }
        let mut total = 0u64;
        for entry in &entries {
            let is_chunk = level == 0 && matches!(entry, NodeEntry::Child { .. });
            if entry.is_empty() || (is_chunk && entry.len() > u64::from(MAX_CHUNK_BYTES)) {
                return Err(malformed("the length of an entry is out of range"));
            }
            let sum = total.checked_add(entry.len()).filter(|sum| *sum < ZERO);
            total = sum.ok_or(malformed("its length is out of range"))?;
        }
        Ok(Self { level, len: total, entries })
    }

    /// Returns its level: 0 for a leaf, otherwise one more than that of its children.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Returns how many bytes of the stream it stands for.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Returns whether it stands for nothing, as the root of an empty stream does.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns what it is made of, in the order of the stream.
    pub fn entries(&self) -> &[NodeEntry] {
        &self.entries
    }

    /// Reads a node.
    ///
    /// # Errors
    /// When the bytes are no node, or of an unknown format.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let malformed = |what| Error::Malformed { part: PART, what };
        let seen = bytes.len().min(MAGIC.len());
        if bytes[..seen] != MAGIC[..seen] {
            return Err(Error::Magic { part: PART });
        }
        let Some((head, columns)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
            return Err(Error::Truncated { part: PART, need: HEAD_BYTES as u64, have: bytes.len() as u64 });
        };
        let format = u16::from_le_bytes([head[4], head[5]]);
        if format != FORMAT {
            return Err(Error::UnknownFormat { part: PART, found: u32::from(format), known: KNOWN_FORMATS });
        }
        let level = head[6];
        let count = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
        if head[7] != 0 || head[12..16] != [0; 4] {
            return Err(malformed("its reserved bytes are not zero"));
        }
        if u64::from(count) > MAX_ENTRIES {
            return Err(Error::TooLarge { part: PART, found: u64::from(count), limit: MAX_ENTRIES });
        }
        let lengths_bytes = count as usize * 8;
        let Some((lengths, names)) = columns.split_at_checked(lengths_bytes) else {
            let need = (HEAD_BYTES + lengths_bytes) as u64;
            return Err(Error::Truncated { part: PART, need, have: bytes.len() as u64 });
        };
        let (lengths, _) = lengths.as_chunks::<8>();
        let (names, rest) = names.as_chunks::<32>();
        let mut names = names.iter();
        let mut entries = Vec::with_capacity(lengths.len());
        for length in lengths {
            let word = u64::from_le_bytes(*length);
            entries.push(if word & ZERO != 0 {
                NodeEntry::Zero { len: word & !ZERO }
            } else {
                let id = names.next().ok_or(malformed("it has fewer names than children"))?;
                NodeEntry::Child { id: ChunkId(*id), len: word }
            });
        }
        if names.next().is_some() || !rest.is_empty() {
            return Err(malformed("bytes follow its end"));
        }
        let node = Self::new(level, entries)?;
        if head[16..] != node.len.to_le_bytes() {
            return Err(malformed("its length is not the sum of its entries"));
        }
        Ok(node)
    }

    /// Writes a node.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.entries.len() * 40);
        let count = u32::try_from(self.entries.len()).expect("a node has at most 65,536 entries");
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&[self.level, 0]);
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.len.to_le_bytes());
        for entry in &self.entries {
            let word = match *entry {
                NodeEntry::Zero { len } => len | ZERO,
                NodeEntry::Child { len, .. } => len,
            };
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        for entry in &self.entries {
            if let NodeEntry::Child { id, .. } = entry {
                bytes.extend_from_slice(&id.0);
            }
        }
        bytes
    }
}
