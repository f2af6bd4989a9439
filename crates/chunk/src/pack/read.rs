//! Reading packs: the end of one, one chunk of one, and what can be seen without a key.

use std::fmt;

use crate::header::{self, HEADER_BYTES, ObjectKind};
use crate::pack::{END_MAGIC, ENTRY_BYTES, FOOTER_BYTES};
use crate::seal::{ObjectKey, TAG};
use crate::{
    AccountKey, ChunkId, Codec, Decompressor, Encoded, Error, MAX_PACK_BYTES, Namer, PackEntry, PackKind,
    Result, UsedSalt,
};

const FOOTER: &str = "pack footer";
const INDEX: &str = "pack index";
const CHUNK: &str = "chunk";

/// What can be seen of a pack without a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackOutline {
    /// What it holds.
    pub kind: PackKind,
    /// The salt in its header.
    pub salt: UsedSalt,
    /// How many chunks it says that it holds.
    pub chunks: u32,
    /// How large the sealed index before the footer is.
    pub index_bytes: u32,
}

impl PackOutline {
    /// Looks at a whole pack: header and footer are there and say the same. Whether its bytes are those that were
    /// stored, its name tells: [`crate::ObjectHash::of`].
    ///
    /// # Errors
    /// When it is no pack, cut short, or of an unknown format.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let header = header::decode_pack(bytes)?;
        let outline = Self::from_footer(bytes.len() as u64, bytes)?;
        if header != (outline.kind, outline.salt) {
            return Err(Error::Malformed { part: FOOTER, what: "it repeats another header than the pack's" });
        }
        Ok(outline)
    }

    /// Reads the footer at the end of `tail`, which must hold it, of a pack that is `size_bytes` large.
    fn from_footer(size_bytes: u64, tail: &[u8]) -> Result<Self> {
        if size_bytes > MAX_PACK_BYTES {
            return Err(Error::TooLarge { part: "pack", found: size_bytes, limit: MAX_PACK_BYTES });
        }
        let Some(footer) = tail.last_chunk::<FOOTER_BYTES>() else {
            let need = (HEADER_BYTES + FOOTER_BYTES) as u64;
            return Err(Error::Truncated { part: "pack", need, have: size_bytes });
        };
        if &footer[56..] != END_MAGIC {
            return Err(Error::Magic { part: FOOTER });
        }
        let (kind, salt) = header::decode_pack(footer)?;
        let index_bytes = word(&footer[48..52]);
        let chunks = word(&footer[52..56]);
        let expected = u64::from(chunks) * ENTRY_BYTES as u64 + TAG as u64;
        if u64::from(index_bytes) != expected || chunks == 0 {
            return Err(Error::Malformed {
                part: FOOTER,
                what: "its index has another size than its chunks need",
            });
        }
        let need = (HEADER_BYTES + FOOTER_BYTES) as u64 + expected + u64::from(chunks) * (TAG as u64 + 1);
        if size_bytes < need {
            return Err(Error::Truncated { part: "pack", need, have: size_bytes });
        }
        Ok(Self { kind, salt, chunks, index_bytes })
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
        if tail.len() as u64 > size_bytes {
            return Err(Error::Misuse { what: "the end of a pack cannot be larger than the pack" });
        }
        if tail.len() < FOOTER_BYTES && (tail.len() as u64) < size_bytes {
            return Ok(TailStep::More(size_bytes.min(Self::FIRST_BYTES)));
        }
        let outline = PackOutline::from_footer(size_bytes, tail)?;
        let need = u64::from(outline.index_bytes) + FOOTER_BYTES as u64;
        let Some(start) = usize::try_from(need).ok().and_then(|need| tail.len().checked_sub(need)) else {
            return Ok(TailStep::More(need));
        };
        let (sealed, footer) = tail[start..].split_at(outline.index_bytes as usize);
        let object_key = key.object_key(ObjectKind::Pack(outline.kind), &outline.salt);
        let mut index = Vec::new();
        object_key.open(INDEX, size_bytes - need, footer, sealed, &mut index)?;
        let entries = decode_entries(&index, size_bytes - need)?;
        Ok(TailStep::Tail(Self { kind: outline.kind, salt: outline.salt, entries }))
    }
}

/// Reads the entries of a pack's index, which must fill the pack from its header to `end`.
pub(crate) fn decode_entries(index: &[u8], end: u64) -> Result<Vec<PackEntry>> {
    let (rows, rest) = index.as_chunks::<ENTRY_BYTES>();
    if !rest.is_empty() {
        return Err(Error::Malformed { part: INDEX, what: "it ends inside of an entry" });
    }
    let mut entries = Vec::with_capacity(rows.len());
    let mut offset = HEADER_BYTES as u64;
    for row in rows {
        let mut id = [0; 32];
        id.copy_from_slice(&row[..32]);
        let beyond = Error::Malformed { part: INDEX, what: "its chunks reach beyond the pack" };
        let Ok(start) = u32::try_from(offset) else { return Err(beyond) };
        let entry = PackEntry::from_parts(INDEX, ChunkId(id), start, word(&row[32..36]), word(&row[36..40]))?;
        offset = entry.range().end;
        if offset > end {
            return Err(beyond);
        }
        entries.push(entry);
    }
    if offset != end {
        return Err(Error::Malformed { part: INDEX, what: "its chunks do not fill the pack" });
    }
    Ok(entries)
}

/// Opens chunks of one pack. Making one derives the pack's key, so keep it for several chunks of the same pack.
pub struct PackOpener {
    kind: PackKind,
    key: ObjectKey,
    namer: Namer,
}

impl PackOpener {
    /// Derives the key of a pack.
    pub fn new(key: &AccountKey, kind: PackKind, salt: &UsedSalt) -> Self {
        Self { kind, key: key.object_key(ObjectKind::Pack(kind), salt), namer: key.namer() }
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
        match entry.codec {
            Codec::Raw => self.open_payload(entry, sealed, out)?,
            Codec::Zstd => {
                out.clear();
                let mut scratch = std::mem::take(&mut decompressor.scratch);
                let opened = self.open_payload(entry, sealed, &mut scratch).and_then(|()| {
                    let encoded = Encoded { codec: entry.codec, payload: &scratch, raw_len: entry.raw_len };
                    decompressor.decompress(encoded, out)
                });
                decompressor.scratch = scratch;
                opened?;
            }
        }
        let found = self.namer.chunk_id(self.kind, out);
        if found != entry.id {
            out.clear();
            return Err(Error::WrongChunk { expected: entry.id, found });
        }
        Ok(())
    }

    /// Opens the payload of a chunk as it was given to [`crate::PackBuilder::push_encoded`]: decrypted, but neither
    /// decompressed nor compared with its name. For moving chunks to another pack of the account.
    ///
    /// # Errors
    /// When the bytes are not those that were sealed under this entry; `out` is empty then.
    pub fn open_payload(&self, entry: &PackEntry, sealed: &[u8], out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        let (need, have) = (u64::from(entry.stored_len), sealed.len() as u64);
        if have < need {
            return Err(Error::Truncated { part: CHUNK, need, have });
        }
        if have > need {
            return Err(Error::Misuse { what: "more bytes than the chunk's were given" });
        }
        self.key.open(CHUNK, u64::from(entry.offset), &entry.aad(), sealed, out)
    }
}

impl fmt::Debug for PackOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackOpener").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Reads four bytes that the caller has measured.
fn word(bytes: &[u8]) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(bytes);
    u32::from_le_bytes(word)
}
