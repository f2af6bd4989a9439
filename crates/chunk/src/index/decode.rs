//! Reading an index segment as it comes in.

use std::fmt;

use crate::header::{self, HEADER_BYTES, ObjectKind};
use crate::index::{BLOCK_BYTES, CHUNK_BYTES, COUNTS_BYTES, LAST, PACK_BYTES, PART};
use crate::seal::{ObjectKey, TAG};
use crate::{
    AccountKey, ChunkId, Error, IndexEntry, IndexItem, MAX_PACK_BYTES, ObjectHash, PackEntry, PackInfo,
    PackKind, PackRef, Result, SessionId, UsedSalt,
};

/// Reads an index segment as its bytes come in; it holds one block of 64 KiB and the sizes of the packs at a time.
///
/// Items are authentic when they are handed out, and in order; that none is missing is known when
/// [`Self::finish`] returns.
pub struct IndexDecoder {
    key: AccountKey,
    object_key: Option<ObjectKey>,
    frame: Frame,
    /// Bytes of the current frame, as long as they do not suffice for it.
    pending: Vec<u8>,
    /// Where in the object the current frame begins.
    position: u64,
    plain: Vec<u8>,
    rows: Rows,
}

/// What comes next in the object.
#[derive(Debug, Clone, Copy)]
enum Frame {
    Header,
    Word,
    Block { word: u32 },
    End,
}

impl Frame {
    fn bytes(self) -> usize {
        match self {
            Self::Header => HEADER_BYTES,
            Self::Word => 4,
            Self::Block { word } => (word & !LAST) as usize + TAG,
            Self::End => 0,
        }
    }
}

impl IndexDecoder {
    /// Starts to read a segment.
    pub fn new(key: &AccountKey) -> Self {
        Self {
            key: key.clone(),
            object_key: None,
            frame: Frame::Header,
            pending: Vec::new(),
            position: 0,
            plain: Vec::new(),
            rows: Rows::default(),
        }
    }

    /// Takes the next bytes, however the object was split, and hands out what is complete.
    ///
    /// # Errors
    /// When the bytes are damaged, of an unknown format or sealed with another key. The decoder is of no use then.
    pub fn feed(&mut self, mut bytes: &[u8], sink: &mut dyn FnMut(IndexItem)) -> Result<()> {
        while !bytes.is_empty() {
            if matches!(self.frame, Frame::End) {
                return Err(Error::Malformed { part: PART, what: "bytes follow its last block" });
            }
            let need = self.frame.bytes();
            // A frame that lies whole in `bytes` is read where it lies; any other is collected first.
            if self.pending.is_empty() && bytes.len() >= need {
                let (frame, rest) = bytes.split_at(need);
                bytes = rest;
                self.take_frame(frame, sink)?;
                continue;
            }
            let (now, rest) = bytes.split_at((need - self.pending.len()).min(bytes.len()));
            self.pending.extend_from_slice(now);
            bytes = rest;
            if self.pending.len() == need {
                let frame = std::mem::take(&mut self.pending);
                self.take_frame(&frame, sink)?;
                self.pending = frame;
                self.pending.clear();
            }
        }
        Ok(())
    }

    /// Checks that the segment was complete.
    ///
    /// # Errors
    /// When bytes or entries are missing.
    pub fn finish(self) -> Result<()> {
        if !matches!(self.frame, Frame::End) {
            let need = self.position + self.frame.bytes() as u64;
            let have = self.position + self.pending.len() as u64;
            return Err(Error::Truncated { part: PART, need, have });
        }
        self.rows.finish()
    }

    fn take_frame(&mut self, frame: &[u8], sink: &mut dyn FnMut(IndexItem)) -> Result<()> {
        self.frame = match self.frame {
            Frame::Header => {
                let salt = header::decode(ObjectKind::Index, frame)?;
                self.object_key = Some(self.key.object_key(ObjectKind::Index, &salt));
                Frame::Word
            }
            Frame::Word => {
                let mut word = [0; 4];
                word.copy_from_slice(frame);
                let word = u32::from_le_bytes(word);
                let length = u64::from(word & !LAST);
                if length > BLOCK_BYTES as u64 {
                    return Err(Error::TooLarge { part: PART, found: length, limit: BLOCK_BYTES as u64 });
                }
                Frame::Block { word }
            }
            Frame::Block { word } => {
                let Some(key) = &self.object_key else {
                    return Err(Error::Misuse { what: "a decoder that failed was fed again" });
                };
                key.open(PART, self.position, &word.to_le_bytes(), frame, &mut self.plain)?;
                self.rows.feed(&self.plain, sink)?;
                if word & LAST == 0 { Frame::Word } else { Frame::End }
            }
            Frame::End => Frame::End,
        };
        self.position += frame.len() as u64;
        Ok(())
    }
}

impl fmt::Debug for IndexDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndexDecoder").field("frame", &self.frame).field("position", &self.position).finish()
    }
}

/// Reads the rows of the tables, whose bytes are authentic but not yet believed.
#[derive(Debug, Default)]
struct Rows {
    /// The beginning of a row whose rest is in the next block.
    carry: Vec<u8>,
    counts: Option<(u32, u64)>,
    pack_bytes: Vec<u32>,
    chunks: u64,
    last: Option<IndexEntry>,
}

impl Rows {
    fn feed(&mut self, mut plain: &[u8], sink: &mut dyn FnMut(IndexItem)) -> Result<()> {
        while !plain.is_empty() {
            let need = self.row_bytes()?;
            if self.carry.is_empty() && plain.len() >= need {
                let (row, rest) = plain.split_at(need);
                plain = rest;
                self.take_row(row, sink)?;
                continue;
            }
            let (now, rest) = plain.split_at((need - self.carry.len()).min(plain.len()));
            self.carry.extend_from_slice(now);
            plain = rest;
            if self.carry.len() == need {
                let row = std::mem::take(&mut self.carry);
                self.take_row(&row, sink)?;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        let complete =
            self.counts == Some((u32::try_from(self.pack_bytes.len()).unwrap_or(u32::MAX), self.chunks));
        if complete && self.carry.is_empty() {
            return Ok(());
        }
        Err(Error::Malformed { part: PART, what: "it lists less than it says" })
    }

    /// How long the next row is.
    fn row_bytes(&self) -> Result<usize> {
        let Some((packs, chunks)) = self.counts else { return Ok(COUNTS_BYTES) };
        if self.pack_bytes.len() < packs as usize {
            return Ok(PACK_BYTES);
        }
        if self.chunks < chunks {
            return Ok(CHUNK_BYTES);
        }
        Err(Error::Malformed { part: PART, what: "it lists more than it says" })
    }

    fn take_row(&mut self, row: &[u8], sink: &mut dyn FnMut(IndexItem)) -> Result<()> {
        let Some((packs, _)) = self.counts else {
            let (packs, chunks) = (word(row, 0), u64::from_le_bytes(array(row, 8)));
            if word(row, 4) != 0 {
                return Err(Error::Malformed { part: PART, what: "its reserved bytes are not zero" });
            }
            self.counts = Some((packs, chunks));
            sink(IndexItem::Counts { packs, chunks });
            return Ok(());
        };
        if self.pack_bytes.len() < packs as usize {
            let pack = decode_pack(row)?;
            let limit = MAX_PACK_BYTES;
            let size_bytes =
                u32::try_from(pack.info.size_bytes).ok().filter(|size| u64::from(*size) <= limit);
            let too_large = Error::TooLarge { part: PART, found: pack.info.size_bytes, limit };
            self.pack_bytes.push(size_bytes.ok_or(too_large)?);
            sink(IndexItem::Pack(pack));
            return Ok(());
        }
        let entry = self.decode_chunk(row)?;
        self.chunks += 1;
        self.last = Some(entry);
        sink(IndexItem::Chunk(entry));
        Ok(())
    }

    fn decode_chunk(&self, row: &[u8]) -> Result<IndexEntry> {
        let malformed = |what| Error::Malformed { part: PART, what };
        let id = ChunkId(array(row, 0));
        let pack = word(row, 32);
        let chunk = PackEntry::from_parts(PART, id, word(row, 36), word(row, 40), word(row, 44))?;
        let Some(pack_bytes) = self.pack_bytes.get(pack as usize) else {
            return Err(malformed("a chunk is in a pack that it does not list"));
        };
        let range = chunk.range();
        if range.start < HEADER_BYTES as u64 || range.end > u64::from(*pack_bytes) {
            return Err(malformed("a chunk reaches beyond its pack"));
        }
        let place = |entry: &IndexEntry| (entry.chunk.id, entry.pack, entry.chunk.offset);
        let entry = IndexEntry { pack, chunk };
        if self.last.is_some_and(|last| place(&last) >= place(&entry)) {
            return Err(malformed("its chunks are not sorted"));
        }
        Ok(entry)
    }
}

fn decode_pack(row: &[u8]) -> Result<PackRef> {
    let kind = PackKind::from_code(row[20])
        .filter(|_| row[21..24] == [0; 3])
        .ok_or(Error::Malformed { part: PART, what: "the kind of a pack is unknown" })?;
    let info = PackInfo {
        hash: ObjectHash(array(row, 24)),
        kind,
        salt: UsedSalt(array(row, 56)),
        size_bytes: u64::from_le_bytes(array(row, 88)),
    };
    Ok(PackRef { session: SessionId::from_bytes(&array(row, 0)), info })
}

fn word(row: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(row, at))
}

/// Takes `N` bytes out of a row, which the caller has measured.
fn array<const N: usize>(row: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&row[at..at + N]);
    bytes
}
