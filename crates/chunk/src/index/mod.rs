//! Index segments: which chunk is where, for packs that are fully stored.
//!
//! Invariant: a segment is sealed in blocks of at most 64 KiB, each bound to its place and the last one marked, so
//! that it can be read as it comes in with little memory, and a cut, a swap or a splice is noticed. Inside, it is
//! a table of packs and a table of chunks sorted by name; an entry takes 48 bytes.

mod build;
mod decode;
#[cfg(test)]
mod tests;

pub(crate) use build::BlockWriter;
pub use build::IndexBuilder;
pub use decode::IndexDecoder;

use crate::{ObjectHash, PackEntry, PackInfo, SessionId};

const PART: &str = "index segment";
/// How much is sealed at once.
const BLOCK_BYTES: usize = 64 << 10;
/// Marks the word before the last block.
const LAST: u32 = 1 << 31;
/// Number of packs, four zero bytes, number of chunks.
const COUNTS_BYTES: usize = 16;
/// Session, kind, three zero bytes, hash, salt, size.
const PACK_BYTES: usize = 96;
/// Name, pack, offset, stored length, raw length and codec.
const CHUNK_BYTES: usize = 48;

/// A pack, and the session that it was stored under: `packs/<session>/<hash>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackRef {
    /// Which session's packs it is among.
    pub session: SessionId,
    /// What must be known to read from it.
    pub info: PackInfo,
}

/// One chunk of an index segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// Which of the segment's packs it is in, counted from 0.
    pub pack: u32,
    /// Where it is there.
    pub chunk: PackEntry,
}

/// What a decoder hands out, in this order: counts once, each pack, each chunk by ascending name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexItem {
    /// How many packs and chunks follow. Do not allocate for the number of chunks without a limit of your own.
    Counts {
        /// Packs.
        packs: u32,
        /// Chunks.
        chunks: u64,
    },
    /// The next pack; they count from 0.
    Pack(PackRef),
    /// The next chunk.
    Chunk(IndexEntry),
}

/// An index segment that is ready to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedIndex {
    /// What stands in the bank.
    pub bytes: Vec<u8>,
    /// Its name.
    pub hash: ObjectHash,
}
