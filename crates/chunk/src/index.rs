//! Index segments: which chunk is where, for packs that are fully stored.

use crate::{AccountKey, Error, ObjectHash, PackEntry, PackInfo, Result, Salt, SessionId};

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
    /// How many packs and chunks follow.
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

/// Collects packs for one segment.
#[derive(Debug, Default)]
pub struct IndexBuilder {
    packs: Vec<PackRef>,
    entries: Vec<IndexEntry>,
}

impl IndexBuilder {
    /// Starts a segment.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a pack that is stored, with all its chunks.
    ///
    /// # Errors
    /// When there are more packs or chunks than a segment takes.
    pub fn add_pack(&mut self, pack: PackRef, chunks: &[PackEntry]) -> Result<()> {
        let _ = (pack, chunks);
        Err(Error::Misuse { what: "not written yet" })
    }

    /// Returns how many packs and chunks there are.
    pub fn counts(&self) -> (usize, usize) {
        (self.packs.len(), self.entries.len())
    }

    /// Sorts and seals the segment.
    ///
    /// # Errors
    /// When there is no pack in it.
    pub fn finish(self, key: &AccountKey, salt: Salt) -> Result<SealedIndex> {
        let _ = (key, salt);
        Err(Error::Misuse { what: "not written yet" })
    }
}

/// Reads an index segment as its bytes come in; it holds one block of 64 KiB and the pack table's sizes at a time.
///
/// Items are authentic when they are handed out, and in order; that none is missing is known when
/// [`Self::finish`] returns.
pub struct IndexDecoder {
    key: AccountKey,
}

impl IndexDecoder {
    /// Starts to read a segment.
    pub fn new(key: &AccountKey) -> Self {
        Self { key: key.clone() }
    }

    /// Takes the next bytes, however the object was split, and hands out what is complete.
    ///
    /// # Errors
    /// When the bytes are damaged, of an unknown format or sealed with another key. The decoder is of no use then.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut dyn FnMut(IndexItem)) -> Result<()> {
        let _ = (&self.key, bytes, sink);
        Err(Error::Misuse { what: "not written yet" })
    }

    /// Checks that the segment was complete.
    ///
    /// # Errors
    /// When bytes are missing.
    pub fn finish(self) -> Result<()> {
        Err(Error::Misuse { what: "not written yet" })
    }
}
