//! One sorted file of index entries in the local cache.
//!
//! Invariant: a run is never changed after it was finished, and nothing read from it is believed unchecked: header,
//! bucket heads, buckets and pack rows each carry a checksum, so that a damaged cache is noticed at the first touch
//! and made anew instead of sending a writer to a chunk that is not there.
//!
//! Names are uniformly distributed, so entries are spread over buckets by their first bytes. A bucket's head holds a
//! small filter and where its entries are: what is absent costs one small read, what is present two, and memory
//! holds nothing of it, however many chunks there are.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use karbor_chunk::{ChunkId, Codec, ObjectHash, PackEntry, PackInfo, PackKind, PackRef, SessionId, UsedSalt};

const MAGIC: &[u8; 16] = b"karbor-index-1\n\0";
const HEADER: usize = 80;
const HEADER_BYTES: u64 = HEADER as u64;
const PACK_BYTES: usize = 104;
const HEAD_BYTES: usize = 80;
const FILTER_BYTES: usize = 64;
const ENTRY_BYTES: usize = 48;
/// How many entries a bucket has on average.
const BUCKET_ENTRIES: u64 = 32;
const WRITE_BUFFER_BYTES: usize = 256 << 10;

/// An entry: a chunk, and the number of its pack in the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunEntry {
    pub(crate) pack: u32,
    pub(crate) chunk: PackEntry,
}

/// An entry that was found, and its number in the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) position: u64,
    pub(crate) entry: RunEntry,
}

/// A finished run, open for reading.
#[derive(Debug)]
pub(crate) struct Run {
    file: File,
    entries: u64,
    packs: u32,
    buckets: u64,
}

/// Returns the error that means: this file is damaged, make it anew.
pub(crate) fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the index cache is damaged: {what}"))
}

/// Reads a part of a run; one that is not there is damage as well.
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<()> {
    file.read_exact_at(buffer, at).map_err(|err| match err.kind() {
        io::ErrorKind::UnexpectedEof => damaged("a file was cut"),
        _ => err,
    })
}

fn checksum(bytes: &[u8]) -> [u8; 8] {
    let mut sum = [0; 8];
    sum.copy_from_slice(&ObjectHash::of(bytes).0[..8]);
    sum
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}

/// Returns the bucket of a name: the order of names is the order of buckets.
fn bucket_of(id: &ChunkId, buckets: u64) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&id.0[..8]);
    let scaled = (u128::from(u64::from_be_bytes(first)) * u128::from(buckets)) >> 64;
    u64::try_from(scaled).expect("the product of two 64-bit numbers has 128 bits")
}

/// The bits of a name in its bucket's filter, from bytes that the bucket does not depend on.
fn filter_bits(id: &ChunkId) -> [usize; 5] {
    let word = u64_at(&id.0, 8);
    std::array::from_fn(|n| usize::try_from((word >> (9 * n)) & 511).expect("nine bits"))
}

fn encode_entry(entry: &RunEntry) -> [u8; ENTRY_BYTES] {
    let mut bytes = [0; ENTRY_BYTES];
    bytes[..32].copy_from_slice(&entry.chunk.id.0);
    bytes[32..36].copy_from_slice(&entry.pack.to_le_bytes());
    bytes[36..40].copy_from_slice(&entry.chunk.offset.to_le_bytes());
    bytes[40..44].copy_from_slice(&entry.chunk.stored_len.to_le_bytes());
    // A chunk has at most 2^23 bytes, so the codec fits above its length.
    let raw = entry.chunk.raw_len | u32::from(entry.chunk.codec.code()) << 24;
    bytes[44..48].copy_from_slice(&raw.to_le_bytes());
    bytes
}

fn decode_entry(bytes: &[u8]) -> io::Result<RunEntry> {
    let mut id = [0; 32];
    id.copy_from_slice(&bytes[..32]);
    let raw = u32_at(bytes, 44);
    let [.., code] = raw.to_le_bytes();
    Ok(RunEntry {
        pack: u32_at(bytes, 32),
        chunk: PackEntry {
            id: ChunkId(id),
            offset: u32_at(bytes, 36),
            stored_len: u32_at(bytes, 40),
            raw_len: raw & 0x00ff_ffff,
            codec: Codec::from_code(code).ok_or_else(|| damaged("unknown codec"))?,
        },
    })
}

fn encode_pack(pack: &PackRef) -> [u8; PACK_BYTES] {
    let mut bytes = [0; PACK_BYTES];
    bytes[..16].copy_from_slice(pack.session.operation.as_bytes());
    bytes[16..20].copy_from_slice(&pack.session.epoch.to_le_bytes());
    bytes[20] = pack.info.kind.code();
    bytes[24..32].copy_from_slice(&pack.info.size_bytes.to_le_bytes());
    bytes[32..64].copy_from_slice(&pack.info.hash.0);
    bytes[64..96].copy_from_slice(&pack.info.salt.0);
    let sum = checksum(&bytes[..96]);
    bytes[96..].copy_from_slice(&sum);
    bytes
}

fn decode_pack(bytes: &[u8]) -> io::Result<PackRef> {
    if checksum(&bytes[..96]) != bytes[96..] {
        return Err(damaged("a pack row"));
    }
    let mut operation = [0; 16];
    operation.copy_from_slice(&bytes[..16]);
    let mut hash = [0; 32];
    hash.copy_from_slice(&bytes[32..64]);
    let mut salt = [0; 32];
    salt.copy_from_slice(&bytes[64..96]);
    Ok(PackRef {
        session: SessionId::new(uuid::Uuid::from_bytes(operation), u32_at(bytes, 16)),
        info: PackInfo {
            hash: ObjectHash(hash),
            kind: PackKind::from_code(bytes[20]).ok_or_else(|| damaged("unknown kind of pack"))?,
            salt: UsedSalt(salt),
            size_bytes: u64_at(bytes, 24),
        },
    })
}

/// A bucket's head: filter, first entry, number of entries, checksum of the entries, checksum of all that.
struct Head {
    filter: [u8; FILTER_BYTES],
    start: u32,
    count: u32,
    sum: [u8; 4],
}

impl Head {
    fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..64].copy_from_slice(&self.filter);
        bytes[64..68].copy_from_slice(&self.start.to_le_bytes());
        bytes[68..72].copy_from_slice(&self.count.to_le_bytes());
        bytes[72..76].copy_from_slice(&self.sum);
        let sum = checksum(&bytes[..76]);
        bytes[76..].copy_from_slice(&sum[..4]);
        bytes
    }

    fn decode(bytes: &[u8; HEAD_BYTES]) -> io::Result<Self> {
        if checksum(&bytes[..76])[..4] != bytes[76..] {
            return Err(damaged("a bucket's head"));
        }
        let mut head =
            Self { filter: [0; 64], start: u32_at(bytes, 64), count: u32_at(bytes, 68), sum: [0; 4] };
        head.filter.copy_from_slice(&bytes[..64]);
        head.sum.copy_from_slice(&bytes[72..76]);
        Ok(head)
    }

    fn may_hold(&self, id: &ChunkId) -> bool {
        filter_bits(id).iter().all(|bit| self.filter[bit / 8] & (1 << (bit % 8)) != 0)
    }
}

impl Run {
    /// Opens a finished run and checks its header.
    pub(crate) fn open(file: File) -> io::Result<Self> {
        let mut header = [0; HEADER];
        read_at(&file, &mut header, 0)?;
        if &header[..16] != MAGIC || checksum(&header[..72]) != header[72..] {
            return Err(damaged("a header"));
        }
        let packs = u32::try_from(u64_at(&header, 24)).map_err(|_| damaged("too many packs"))?;
        let run = Self { file, entries: u64_at(&header, 16), packs, buckets: u64_at(&header, 32) };
        if run.file.metadata()?.len() != u64_at(&header, 40) {
            return Err(damaged("a file was cut"));
        }
        Ok(run)
    }

    /// Returns how many entries there are.
    pub(crate) fn len(&self) -> u64 {
        self.entries
    }

    /// Returns how many packs there are.
    pub(crate) fn pack_count(&self) -> u32 {
        self.packs
    }

    /// Appends the entries of a chunk to `found`.
    pub(crate) fn find(&self, id: &ChunkId, found: &mut Vec<Found>) -> io::Result<()> {
        let mut head = [0; HEAD_BYTES];
        self.file
            .read_exact_at(&mut head, self.heads_at() + bucket_of(id, self.buckets) * HEAD_BYTES as u64)?;
        let head = Head::decode(&head)?;
        if !head.may_hold(id) {
            return Ok(());
        }
        let bytes = self.bucket(&head)?;
        for (number, entry) in bytes.chunks_exact(ENTRY_BYTES).enumerate() {
            if entry[..32] == id.0 {
                found.push(Found {
                    position: u64::from(head.start) + number as u64,
                    entry: decode_entry(entry)?,
                });
            }
        }
        Ok(())
    }

    fn bucket(&self, head: &Head) -> io::Result<Vec<u8>> {
        if u64::from(head.start) + u64::from(head.count) > self.entries {
            return Err(damaged("a bucket's place"));
        }
        let mut bytes = vec![0; head.count as usize * ENTRY_BYTES];
        self.file
            .read_exact_at(&mut bytes, self.entries_at() + u64::from(head.start) * ENTRY_BYTES as u64)?;
        if checksum(&bytes)[..4] != head.sum {
            return Err(damaged("a bucket"));
        }
        Ok(bytes)
    }

    /// Returns a pack of the run.
    pub(crate) fn pack(&self, number: u32) -> io::Result<PackRef> {
        if number >= self.packs {
            return Err(damaged("the number of a pack"));
        }
        let mut bytes = [0; PACK_BYTES];
        read_at(&self.file, &mut bytes, HEADER_BYTES + u64::from(number) * PACK_BYTES as u64)?;
        decode_pack(&bytes)
    }

    /// Calls `sink` with each pack and its number.
    pub(crate) fn for_each_pack(&self, mut sink: impl FnMut(u32, PackRef)) -> io::Result<()> {
        let mut bytes = vec![0; 512 * PACK_BYTES];
        let mut number = 0;
        while number < self.packs {
            let rows = (self.packs - number).min(512);
            let part = &mut bytes[..rows as usize * PACK_BYTES];
            read_at(&self.file, part, HEADER_BYTES + u64::from(number) * PACK_BYTES as u64)?;
            for row in part.chunks_exact(PACK_BYTES) {
                sink(number, decode_pack(row)?);
                number += 1;
            }
        }
        Ok(())
    }

    /// Returns all entries in the order of their names.
    pub(crate) fn scan(&self) -> Scan<'_> {
        Scan { run: self, bucket: 0, bytes: Vec::new(), at: 0 }
    }

    fn heads_at(&self) -> u64 {
        HEADER_BYTES + u64::from(self.packs) * PACK_BYTES as u64
    }

    fn entries_at(&self) -> u64 {
        self.heads_at() + self.buckets * HEAD_BYTES as u64
    }
}

/// Reads a run from front to back.
pub(crate) struct Scan<'r> {
    run: &'r Run,
    bucket: u64,
    bytes: Vec<u8>,
    at: usize,
}

impl Iterator for Scan<'_> {
    type Item = io::Result<RunEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.at == self.bytes.len() {
            if self.bucket == self.run.buckets {
                return None;
            }
            let read = || {
                let mut head = [0; HEAD_BYTES];
                let at = self.run.heads_at() + self.bucket * HEAD_BYTES as u64;
                read_at(&self.run.file, &mut head, at)?;
                self.run.bucket(&Head::decode(&head)?)
            };
            match read() {
                Ok(bytes) => self.bytes = bytes,
                Err(err) => {
                    self.bucket = self.run.buckets;
                    self.bytes.clear();
                    self.at = 0;
                    return Some(Err(err));
                }
            }
            self.at = 0;
            self.bucket += 1;
        }
        let entry = decode_entry(&self.bytes[self.at..self.at + ENTRY_BYTES]);
        self.at += ENTRY_BYTES;
        Some(entry)
    }
}

/// Writes a run: packs are known at first, entries come in the order of their names.
pub(crate) struct RunWriter {
    file: File,
    packs: u32,
    buckets: u64,
    entries: u64,
    last: Option<(ChunkId, u32)>,
    bucket: u64,
    bucket_bytes: Vec<u8>,
    filter: [u8; FILTER_BYTES],
    heads: Region,
    rows: Region,
}

/// A part of the file that is written from front to back.
struct Region {
    at: u64,
    buffer: Vec<u8>,
}

impl Region {
    fn write(&mut self, file: &File, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= WRITE_BUFFER_BYTES { self.flush(file) } else { Ok(()) }
    }

    fn flush(&mut self, file: &File) -> io::Result<()> {
        file.write_all_at(&self.buffer, self.at)?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

impl RunWriter {
    /// Starts a run in an empty file, for at most `max_entries`.
    pub(crate) fn create<'p>(
        file: File,
        packs: impl ExactSizeIterator<Item = &'p PackRef>,
        max_entries: u64,
    ) -> io::Result<Self> {
        let count = u32::try_from(packs.len()).map_err(|_| io::Error::other("too many packs for a run"))?;
        let buckets = max_entries.div_ceil(BUCKET_ENTRIES).max(1);
        let mut rows = Region { at: HEADER_BYTES, buffer: Vec::new() };
        for pack in packs {
            rows.write(&file, &encode_pack(pack))?;
        }
        rows.flush(&file)?;
        let heads_at = HEADER_BYTES + u64::from(count) * PACK_BYTES as u64;
        let entries_at = heads_at + buckets * HEAD_BYTES as u64;
        Ok(Self {
            file,
            packs: count,
            buckets,
            entries: 0,
            last: None,
            bucket: 0,
            bucket_bytes: Vec::new(),
            filter: [0; FILTER_BYTES],
            heads: Region { at: heads_at, buffer: Vec::new() },
            rows: Region { at: entries_at, buffer: Vec::new() },
        })
    }

    /// Adds an entry; one that was just added is passed over.
    pub(crate) fn push(&mut self, entry: &RunEntry) -> io::Result<()> {
        let key = (entry.chunk.id, entry.pack);
        if self.last == Some(key) {
            return Ok(());
        }
        if self.last.is_some_and(|(last, _)| last > key.0) {
            return Err(damaged("entries are out of order"));
        }
        let bucket = bucket_of(&entry.chunk.id, self.buckets);
        while self.bucket < bucket {
            self.close_bucket()?;
        }
        for bit in filter_bits(&entry.chunk.id) {
            self.filter[bit / 8] |= 1 << (bit % 8);
        }
        self.bucket_bytes.extend_from_slice(&encode_entry(entry));
        self.last = Some(key);
        Ok(())
    }

    fn close_bucket(&mut self) -> io::Result<()> {
        let count = self.bucket_bytes.len() / ENTRY_BYTES;
        let too_many = |_| io::Error::other("too many entries for a run");
        let mut sum = [0; 4];
        sum.copy_from_slice(&checksum(&self.bucket_bytes)[..4]);
        let head = Head {
            filter: self.filter,
            start: u32::try_from(self.entries).map_err(too_many)?,
            count: u32::try_from(count).map_err(too_many)?,
            sum,
        };
        self.heads.write(&self.file, &head.encode())?;
        self.rows.write(&self.file, &self.bucket_bytes)?;
        self.entries += count as u64;
        self.bucket_bytes.clear();
        self.filter = [0; FILTER_BYTES];
        self.bucket += 1;
        Ok(())
    }

    /// Writes the rest and the header, and opens the run.
    pub(crate) fn finish(mut self) -> io::Result<Run> {
        while self.bucket < self.buckets {
            self.close_bucket()?;
        }
        self.heads.flush(&self.file)?;
        self.rows.flush(&self.file)?;
        let mut header = [0; HEADER];
        header[..16].copy_from_slice(MAGIC);
        header[16..24].copy_from_slice(&self.entries.to_le_bytes());
        header[24..32].copy_from_slice(&u64::from(self.packs).to_le_bytes());
        header[32..40].copy_from_slice(&self.buckets.to_le_bytes());
        header[40..48].copy_from_slice(&self.rows.at.to_le_bytes());
        let sum = checksum(&header[..72]);
        header[72..].copy_from_slice(&sum);
        self.file.write_all_at(&header, 0)?;
        // An empty run still has its heads, so the file is as long as the header says without this; a run without
        // entries after the heads is, too.
        Run::open(self.file)
    }
}
