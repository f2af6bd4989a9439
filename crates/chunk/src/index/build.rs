//! Writing an index segment.

use crate::header::{self, HEADER_BYTES, ObjectKind};
use crate::index::{BLOCK_BYTES, CHUNK_BYTES, COUNTS_BYTES, LAST, PACK_BYTES};
use crate::seal::{ObjectKey, TAG};
use crate::{
    AccountKey, Error, IndexEntry, MAX_PACK_BYTES, ObjectHash, PackEntry, PackRef, Result, Salt, SealedIndex,
};

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
    /// When a chunk reaches beyond the pack, or there are more packs than a segment takes.
    pub fn add_pack(&mut self, pack: PackRef, chunks: &[PackEntry]) -> Result<()> {
        let Ok(number) = u32::try_from(self.packs.len()) else {
            return Err(Error::Misuse { what: "an index segment takes at most 2^32 packs" });
        };
        let size_bytes = pack.info.size_bytes;
        if size_bytes > MAX_PACK_BYTES || chunks.iter().any(|chunk| chunk.range().end > size_bytes) {
            return Err(Error::Misuse { what: "a chunk reaches beyond its pack" });
        }
        self.packs.push(pack);
        self.entries.extend(chunks.iter().map(|chunk| IndexEntry { pack: number, chunk: *chunk }));
        Ok(())
    }

    /// Returns how many packs and chunks there are.
    pub fn counts(&self) -> (usize, usize) {
        (self.packs.len(), self.entries.len())
    }

    /// Returns how large the segment would be if it were finished now.
    pub fn size_bytes(&self) -> u64 {
        let plain = COUNTS_BYTES + self.packs.len() * PACK_BYTES + self.entries.len() * CHUNK_BYTES;
        (HEADER_BYTES + plain + plain.div_ceil(BLOCK_BYTES) * (4 + TAG)) as u64
    }

    /// Sorts and seals the segment.
    ///
    /// # Errors
    /// When there is no pack in it.
    pub fn finish(mut self, key: &AccountKey, salt: Salt) -> Result<SealedIndex> {
        let Ok(packs @ 1..) = u32::try_from(self.packs.len()) else {
            return Err(Error::Misuse { what: "an index segment must list a pack" });
        };
        self.entries.sort_unstable_by_key(|entry| (entry.chunk.id, entry.pack, entry.chunk.offset));
        let salt = salt.used();
        let mut bytes = Vec::with_capacity(usize::try_from(self.size_bytes()).unwrap_or(0));
        bytes.extend_from_slice(&header::encode(ObjectKind::Index, &salt));
        let mut blocks = BlockWriter::new(key.object_key(ObjectKind::Index, &salt), bytes);
        blocks.write(&packs.to_le_bytes())?;
        blocks.write(&[0; 4])?;
        blocks.write(&(self.entries.len() as u64).to_le_bytes())?;
        for pack in &self.packs {
            blocks.write(&encode_pack(pack))?;
        }
        for entry in &self.entries {
            blocks.write(&encode_chunk(entry))?;
        }
        let bytes = blocks.finish()?;
        let hash = ObjectHash::of(&bytes);
        Ok(SealedIndex { bytes, hash })
    }
}

fn encode_pack(pack: &PackRef) -> [u8; PACK_BYTES] {
    let mut row = [0; PACK_BYTES];
    row[..20].copy_from_slice(&pack.session.to_bytes());
    row[20] = pack.info.kind.code();
    row[24..56].copy_from_slice(&pack.info.hash.0);
    row[56..88].copy_from_slice(&pack.info.salt.0);
    row[88..].copy_from_slice(&pack.info.size_bytes.to_le_bytes());
    row
}

fn encode_chunk(entry: &IndexEntry) -> [u8; CHUNK_BYTES] {
    let mut row = [0; CHUNK_BYTES];
    row[..32].copy_from_slice(&entry.chunk.id.0);
    row[32..36].copy_from_slice(&entry.pack.to_le_bytes());
    row[36..40].copy_from_slice(&entry.chunk.offset.to_le_bytes());
    row[40..44].copy_from_slice(&entry.chunk.stored_len.to_le_bytes());
    row[44..].copy_from_slice(&entry.chunk.lengths_word().to_le_bytes());
    row
}

/// Seals what is written to it block by block, in place at the end of `bytes`.
pub(crate) struct BlockWriter {
    key: ObjectKey,
    bytes: Vec<u8>,
    /// Where the open block's word stands; its plaintext follows.
    block_at: usize,
}

impl BlockWriter {
    pub(crate) fn new(key: ObjectKey, mut bytes: Vec<u8>) -> Self {
        let block_at = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        Self { key, bytes, block_at }
    }

    pub(crate) fn write(&mut self, mut plain: &[u8]) -> Result<()> {
        while !plain.is_empty() {
            let room = BLOCK_BYTES - self.open_bytes();
            if room == 0 {
                self.close(0)?;
                self.block_at = self.bytes.len();
                self.bytes.extend_from_slice(&[0; 4]);
                continue;
            }
            let (now, later) = plain.split_at(room.min(plain.len()));
            self.bytes.extend_from_slice(now);
            plain = later;
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<Vec<u8>> {
        self.close(LAST)?;
        Ok(self.bytes)
    }

    fn open_bytes(&self) -> usize {
        self.bytes.len() - self.block_at - 4
    }

    fn close(&mut self, mark: u32) -> Result<()> {
        let length = u32::try_from(self.open_bytes()).expect("a block is at most 64 KiB");
        let word = (length | mark).to_le_bytes();
        let message_at = self.block_at + 4;
        self.bytes[self.block_at..message_at].copy_from_slice(&word);
        let tag = self.key.seal(message_at as u64, &word, &mut self.bytes[message_at..])?;
        self.bytes.extend_from_slice(&tag);
        Ok(())
    }
}
