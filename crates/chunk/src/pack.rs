//! Packs: sealed chunks one after another, then a sealed index of them, then a footer that tells where that is.

use std::fmt;

use crate::{
    AccountKey, ChunkId, Codec, Compressor, Decompressor, Encoded, Error, ObjectHash, PackKind, Result, Salt,
    UsedSalt,
};

/// Where a chunk is in its pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    pub fn range(&self) -> std::ops::Range<u64> {
        u64::from(self.offset)..u64::from(self.offset) + u64::from(self.stored_len)
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

/// Writes one pack in memory: each chunk is compressed, sealed in place and hashed as it comes.
pub struct PackBuilder {
    entries: Vec<PackEntry>,
}

impl PackBuilder {
    /// Starts a pack in `buffer`, whose contents are dropped and whose memory is used.
    pub fn new(key: &AccountKey, kind: PackKind, salt: Salt, buffer: Vec<u8>) -> Self {
        let _ = (key, kind, salt, buffer);
        Self { entries: Vec::new() }
    }

    /// Compresses and adds a chunk. The caller has named it (with the account's [`crate::Namer`], for this kind).
    ///
    /// # Errors
    /// When the chunk is empty or too large, or the pack would be. Nothing was added then.
    pub fn push(&mut self, id: ChunkId, raw: &[u8], compressor: &mut Compressor) -> Result<PackEntry> {
        let _ = (id, raw, compressor);
        Err(Error::Misuse { what: "not written yet" })
    }

    /// Adds a chunk that is compressed already.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn push_encoded(&mut self, id: ChunkId, encoded: Encoded<'_>) -> Result<PackEntry> {
        let _ = (id, encoded);
        Err(Error::Misuse { what: "not written yet" })
    }

    /// Returns how large the pack would be if it were finished now.
    pub fn size_bytes(&self) -> u64 {
        0
    }

    /// Returns the chunks added so far.
    pub fn entries(&self) -> &[PackEntry] {
        &self.entries
    }

    /// Adds the index and the footer, and names the pack.
    ///
    /// # Errors
    /// When there is no chunk in it.
    pub fn finish(self) -> Result<FinishedPack> {
        Err(Error::Misuse { what: "not written yet" })
    }
}

/// What the end of a pack tells: its chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackTail {
    /// What the pack holds.
    pub kind: PackKind,
    /// The salt in its header.
    pub salt: UsedSalt,
    /// Its chunks, in the order of their offsets.
    pub entries: Vec<PackEntry>,
}

/// What came of reading the end of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TailStep {
    /// The index starts earlier: come again with this many bytes of the pack's end.
    More(u64),
    /// Done.
    Tail(PackTail),
}

impl PackTail {
    /// How much of a pack's end to read at first; nearly always enough.
    pub const FIRST_BYTES: u64 = 64 << 10;

    /// Reads the last bytes of a pack that is `size_bytes` large.
    ///
    /// # Errors
    /// When they are damaged, of an unknown format or sealed with another key.
    pub fn read(key: &AccountKey, size_bytes: u64, tail: &[u8]) -> Result<TailStep> {
        let _ = (key, size_bytes, tail);
        Err(Error::Misuse { what: "not written yet" })
    }
}

/// Opens chunks of one pack. Making one derives the pack's key, so keep it for several chunks of the same pack.
pub struct PackOpener {
    kind: PackKind,
}

impl PackOpener {
    /// Derives the key of a pack.
    pub fn new(key: &AccountKey, kind: PackKind, salt: &UsedSalt) -> Self {
        let _ = (key, salt);
        Self { kind }
    }

    /// Opens the chunk that stands in `sealed` (the bytes of [`PackEntry::range`]) into `out`: decrypts,
    /// decompresses, and checks that the bytes are those of the chunk's name.
    ///
    /// # Errors
    /// When they are not, for whatever reason; `out` is empty then.
    pub fn open(
        &self,
        entry: &PackEntry,
        sealed: &[u8],
        decompressor: &mut Decompressor,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let _ = (self.kind, entry, sealed, decompressor, out);
        Err(Error::Misuse { what: "not written yet" })
    }
}
