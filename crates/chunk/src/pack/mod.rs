//! Packs: sealed chunks one after another, then a sealed index of them, then a footer that tells where that is.
//!
//! Invariant: a pack's name is the hash of all its bytes, so a scrub needs no key; each chunk is sealed together
//! with its name, length and codec, at its place, so that no other chunk can stand in for it. What must be known
//! to open one chunk (kind and salt of the pack, place and lengths of the chunk) is in index segments, so that it
//! takes one read of just the chunk's bytes.

mod build;
mod read;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;

pub use build::PackBuilder;
pub(crate) use read::decode_entries;
pub use read::{PackOpener, PackOutline, PackTail, TailStep};

use crate::header::HEADER_BYTES;
use crate::{ChunkId, Codec, Error, MAX_CHUNK_BYTES, ObjectHash, PackKind, Result, TAG_BYTES, UsedSalt};

/// What a pack ends with, after its footer's fields.
const END_MAGIC: &[u8; 8] = b"KARBORPE";
/// A copy of the header, the size of the sealed index, the number of chunks, the magic.
const FOOTER_BYTES: usize = HEADER_BYTES + 16;
/// Name, stored length, raw length and codec.
const ENTRY_BYTES: usize = 40;

/// Where a chunk is in its pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackEntry {
    /// The chunk's name.
    pub id: ChunkId,
    /// Where it starts in the pack.
    pub offset: u32,
    /// How many bytes it takes there, tag included.
    pub stored_len: u32,
    /// How many bytes it is.
    pub raw_len: u32,
    /// How its payload is stored.
    pub codec: Codec,
}

impl PackEntry {
    /// Returns the range of the pack's bytes that [`PackOpener::open`] wants.
    pub fn range(&self) -> Range<u64> {
        let start = u64::from(self.offset);
        start..start + u64::from(self.stored_len)
    }

    /// What a chunk is sealed together with.
    fn aad(&self) -> [u8; 36] {
        let mut aad = [0; 36];
        aad[..32].copy_from_slice(&self.id.0);
        aad[32..].copy_from_slice(&self.lengths_word().to_le_bytes());
        aad
    }

    /// The raw length in the low 24 bits, the codec in the high 8.
    pub(crate) fn lengths_word(&self) -> u32 {
        self.raw_len | u32::from(self.codec.code()) << 24
    }

    /// Reads an entry's numbers, and checks all that can be checked without knowing the pack's size.
    pub(crate) fn from_parts(
        part: &'static str,
        id: ChunkId,
        offset: u32,
        stored_len: u32,
        lengths_word: u32,
    ) -> Result<Self> {
        let raw_len = lengths_word & 0x00ff_ffff;
        let [.., code] = lengths_word.to_le_bytes();
        let codec = Codec::from_code(code).ok_or(Error::Malformed { part, what: "a codec is unknown" })?;
        if raw_len > MAX_CHUNK_BYTES {
            let (found, limit) = (u64::from(raw_len), u64::from(MAX_CHUNK_BYTES));
            return Err(Error::TooLarge { part, found, limit });
        }
        let payload_len = stored_len.checked_sub(TAG_BYTES).filter(|length| *length > 0);
        let plausible = match codec {
            Codec::Raw => payload_len == Some(raw_len),
            Codec::Zstd => payload_len.is_some_and(|length| length < raw_len),
        };
        if !plausible {
            return Err(Error::Malformed { part, what: "the lengths of a chunk contradict each other" });
        }
        Ok(Self { id, offset, stored_len, raw_len, codec })
    }
}

/// What must be known of a pack to read from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackInfo {
    /// Its name: the hash of all its bytes.
    pub hash: ObjectHash,
    /// What it holds.
    pub kind: PackKind,
    /// The salt in its header, so that a chunk can be opened without reading the header.
    pub salt: UsedSalt,
    /// Its size.
    pub size_bytes: u64,
}

/// A pack that is ready to be stored.
pub struct FinishedPack {
    /// What stands in the bank.
    pub bytes: Vec<u8>,
    /// What index segments tell of it.
    pub info: PackInfo,
    /// Its chunks, in the order of their offsets.
    pub entries: Vec<PackEntry>,
}

impl fmt::Debug for FinishedPack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FinishedPack").field("info", &self.info).field("chunks", &self.entries.len()).finish()
    }
}
