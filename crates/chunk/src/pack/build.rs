//! Writing a pack.

use std::fmt;

use crate::codec::check_raw_len;
use crate::header::{self, HEADER_BYTES, ObjectKind};
use crate::pack::{END_MAGIC, ENTRY_BYTES, FOOTER_BYTES};
use crate::seal::{ObjectKey, TAG};
use crate::{
    AccountKey, ChunkId, Codec, Compressor, Encoded, Error, FinishedPack, MAX_PACK_BYTES, ObjectHash,
    PackEntry, PackInfo, PackKind, Result, Salt, UsedSalt,
};

/// The pack is hashed in multiples of this: whole subtrees of BLAKE3 go faster than ragged ends.
const HASH_STRIDE: usize = 64 << 10;

/// Writes one pack in memory: each chunk is compressed, sealed in place and hashed as it comes, so finishing is
/// cheap. For several threads give each a builder of its own.
pub struct PackBuilder {
    kind: PackKind,
    salt: UsedSalt,
    key: ObjectKey,
    /// Always initialized as far as it is long, so that chunks are compressed right into it.
    buffer: Vec<u8>,
    used: usize,
    hasher: blake3::Hasher,
    hashed: usize,
    entries: Vec<PackEntry>,
}

impl PackBuilder {
    /// Starts a pack in `buffer`, whose contents are dropped and whose memory is used.
    ///
    /// The length of `buffer` is room that need not be made later: give `vec![0; n]`, or the bytes of a pack that
    /// is stored already.
    pub fn new(key: &AccountKey, kind: PackKind, salt: Salt, buffer: Vec<u8>) -> Self {
        let salt = salt.used();
        let object = ObjectKind::Pack(kind);
        let mut builder = Self {
            kind,
            salt,
            key: key.object_key(object, &salt),
            buffer,
            used: 0,
            hasher: blake3::Hasher::new(),
            hashed: 0,
            entries: Vec::new(),
        };
        builder.append(&header::encode(object, &salt));
        builder
    }

    /// Compresses and adds a chunk. The caller has named it (with the account's [`crate::Namer`], for this kind).
    ///
    /// # Errors
    /// When the chunk is empty or too large, or the pack would be. Nothing was added then.
    pub fn push(&mut self, id: ChunkId, raw: &[u8], compressor: &mut Compressor) -> Result<PackEntry> {
        let raw_len = check_raw_len(raw)?;
        let room = self.make_room(raw.len())?;
        let (codec, length) = match compressor.compress_into(raw, room) {
            Some(length) => (Codec::Zstd, length),
            None => {
                room[..raw.len()].copy_from_slice(raw);
                (Codec::Raw, raw.len())
            }
        };
        self.seal_chunk(id, raw_len, codec, length)
    }

    /// Adds a chunk that is compressed already.
    ///
    /// # Errors
    /// As [`Self::push`]; also when its lengths contradict its codec.
    pub fn push_encoded(&mut self, id: ChunkId, encoded: Encoded<'_>) -> Result<PackEntry> {
        let Encoded { codec, payload, raw_len } = encoded;
        let length = check_raw_len(payload)?;
        let plausible = match codec {
            Codec::Raw => length == raw_len,
            Codec::Zstd => length < raw_len && raw_len <= crate::MAX_CHUNK_BYTES,
        };
        if !plausible {
            return Err(Error::Misuse { what: "the lengths of an encoded chunk contradict its codec" });
        }
        self.make_room(payload.len())?[..payload.len()].copy_from_slice(payload);
        self.seal_chunk(id, raw_len, codec, payload.len())
    }

    /// Returns how large the pack would be if it were finished now.
    pub fn size_bytes(&self) -> u64 {
        (self.used + index_bytes(self.entries.len()) + FOOTER_BYTES) as u64
    }

    /// Returns the chunks added so far.
    pub fn entries(&self) -> &[PackEntry] {
        &self.entries
    }

    /// Adds the index and the footer, and names the pack.
    ///
    /// # Errors
    /// When there is no chunk in it.
    pub fn finish(mut self) -> Result<FinishedPack> {
        if self.entries.is_empty() {
            return Err(Error::Misuse { what: "a pack must hold a chunk" });
        }
        let start = self.used;
        let footer = footer(self.kind, &self.salt, self.entries.len());
        let mut index = Vec::with_capacity(index_bytes(self.entries.len()));
        for entry in &self.entries {
            index.extend_from_slice(&entry.id.0);
            index.extend_from_slice(&entry.stored_len.to_le_bytes());
            index.extend_from_slice(&entry.lengths_word().to_le_bytes());
        }
        let tag = self.key.seal(start as u64, &footer, &mut index)?;
        self.append(&index);
        self.append(&tag);
        self.append(&footer);
        self.hasher.update(&self.buffer[self.hashed..self.used]);
        let hash = ObjectHash(*self.hasher.finalize().as_bytes());
        self.buffer.truncate(self.used);
        let info = PackInfo { hash, kind: self.kind, salt: self.salt, size_bytes: self.used as u64 };
        Ok(FinishedPack { bytes: self.buffer, info, entries: self.entries })
    }

    /// Makes room for a payload of `length` bytes and its tag, and returns it.
    fn make_room(&mut self, length: usize) -> Result<&mut [u8]> {
        let end = self.used + length + TAG;
        let finished = (end + index_bytes(self.entries.len() + 1) + FOOTER_BYTES) as u64;
        if finished > MAX_PACK_BYTES {
            return Err(Error::Misuse { what: "the pack would be larger than a pack may be" });
        }
        if self.buffer.len() < end {
            self.buffer.resize(end, 0);
        }
        Ok(&mut self.buffer[self.used..end])
    }

    /// Seals the payload of `length` bytes that stands at the end, and counts it in.
    fn seal_chunk(&mut self, id: ChunkId, raw_len: u32, codec: Codec, length: usize) -> Result<PackEntry> {
        let narrow = |n: usize| u32::try_from(n).expect("a pack is at most 1 GiB");
        let start = self.used;
        let end = start + length + TAG;
        let entry = PackEntry { id, offset: narrow(start), stored_len: narrow(length + TAG), raw_len, codec };
        let message = &mut self.buffer[start..start + length];
        let tag = self.key.seal(start as u64, &entry.aad(), message)?;
        self.buffer[start + length..end].copy_from_slice(&tag);
        self.used = end;
        self.hash_strides();
        self.entries.push(entry);
        Ok(entry)
    }

    fn append(&mut self, bytes: &[u8]) {
        let end = self.used + bytes.len();
        if self.buffer.len() < end {
            self.buffer.resize(end, 0);
        }
        self.buffer[self.used..end].copy_from_slice(bytes);
        self.used = end;
    }

    /// Hashes what is complete, while it is still in the processor's cache.
    fn hash_strides(&mut self) {
        let end = self.used - self.used % HASH_STRIDE;
        if end > self.hashed {
            self.hasher.update(&self.buffer[self.hashed..end]);
            self.hashed = end;
        }
    }
}

impl fmt::Debug for PackBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("PackBuilder");
        debug.field("kind", &self.kind).field("chunks", &self.entries.len()).field("used_bytes", &self.used);
        debug.finish_non_exhaustive()
    }
}

/// The size of the sealed index of so many chunks.
fn index_bytes(chunks: usize) -> usize {
    chunks * ENTRY_BYTES + TAG
}

fn footer(kind: PackKind, salt: &UsedSalt, chunks: usize) -> [u8; FOOTER_BYTES] {
    let narrow =
        |n: usize| u32::try_from(n).expect("an index is smaller than its pack, which is at most 1 GiB");
    let mut footer = [0; FOOTER_BYTES];
    footer[..HEADER_BYTES].copy_from_slice(&header::encode(ObjectKind::Pack(kind), salt));
    footer[48..52].copy_from_slice(&narrow(index_bytes(chunks)).to_le_bytes());
    footer[52..56].copy_from_slice(&narrow(chunks).to_le_bytes());
    footer[56..].copy_from_slice(END_MAGIC);
    footer
}
