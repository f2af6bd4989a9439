//! Compression: zstd with a context that is kept, and a fast way out for what does not shrink.

use std::fmt;

use zstd::zstd_safe::CParameter;

use crate::{Error, MAX_CHUNK_BYTES, Result};

const PART: &str = "chunk";

/// How the payload of a chunk is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// As it is.
    Raw,
    /// As one zstd frame.
    Zstd,
}

impl Codec {
    /// Returns the number that stands for it in indexes.
    pub const fn code(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Zstd => 1,
        }
    }

    /// Returns the codec of a number.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Raw),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// How hard to compress. Any reader reads what any settings wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompressOptions {
    /// The zstd level: negative ones are faster, 1 is the default here.
    ///
    /// Level 1 is tuned for chunks of a megabyte: a hash table of 2^15 and matches from 6 bytes store 4 % less
    /// than zstd's own level 1 (of a file system of programs), at nine tenths of its speed. Other levels are zstd's.
    pub level: i32,
}

impl Default for CompressOptions {
    fn default() -> Self {
        Self { level: 1 }
    }
}

/// A payload as it goes into a pack, before it is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoded<'a> {
    /// How it is stored.
    pub codec: Codec,
    /// The bytes.
    pub payload: &'a [u8],
    /// How many bytes they are when decompressed.
    pub raw_len: u32,
}

/// Compresses chunks. One per thread: making it costs memory and time, using it again does not.
pub struct Compressor {
    zstd: zstd::bulk::Compressor<'static>,
    scratch: Vec<u8>,
}

impl Compressor {
    /// Makes a compressor.
    ///
    /// # Errors
    /// When zstd refuses the settings.
    pub fn new(options: &CompressOptions) -> Result<Self> {
        let failed = |source| Error::Compress { part: PART, source };
        let mut zstd = zstd::bulk::Compressor::new(options.level).map_err(failed)?;
        if options.level == 1 {
            let tuned = [CParameter::WindowLog(23), CParameter::HashLog(15), CParameter::MinMatch(6)];
            for parameter in tuned {
                zstd.set_parameter(parameter).map_err(failed)?;
            }
        }
        Ok(Self { zstd, scratch: Vec::new() })
    }

    /// Compresses a chunk, or returns it as it is when it would not shrink by a thirty-second.
    ///
    /// # Errors
    /// When the chunk is empty or larger than [`MAX_CHUNK_BYTES`].
    pub fn compress<'a>(&'a mut self, raw: &'a [u8]) -> Result<Encoded<'a>> {
        let raw_len = check_raw_len(raw)?;
        let mut scratch = std::mem::take(&mut self.scratch);
        if scratch.len() < raw.len() {
            scratch.resize(raw.len(), 0);
        }
        let packed = self.compress_into(raw, &mut scratch);
        self.scratch = scratch;
        Ok(match packed {
            Some(length) => Encoded { codec: Codec::Zstd, payload: &self.scratch[..length], raw_len },
            None => Encoded { codec: Codec::Raw, payload: raw, raw_len },
        })
    }

    /// Compresses into `out`, which is as long as `raw` at least. `None` when `raw` is better stored as it is.
    ///
    /// There is no look at samples first: zstd's fast levels stride faster and faster through what has no matches
    /// (random bytes pass at 15 GB/s, compressed files at 6 GB/s), and running out of the room that it is given is
    /// how it gives up.
    pub(crate) fn compress_into(&mut self, raw: &[u8], out: &mut [u8]) -> Option<usize> {
        let room = raw.len() - (raw.len() / 32).max(1).min(raw.len());
        // Any failure means that the chunk is stored as it is, which is always right.
        self.zstd.compress_to_buffer(raw, &mut out[..room]).ok()
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compressor")
    }
}

/// Decompresses chunks, and holds the scratch space that opening them needs. One per thread.
pub struct Decompressor {
    zstd: zstd::bulk::Decompressor<'static>,
    /// Where [`crate::PackOpener`] decrypts to; taken out while the payload in it is decompressed.
    pub(crate) scratch: Vec<u8>,
}

impl Decompressor {
    /// Makes a decompressor.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new() -> Result<Self> {
        let zstd =
            zstd::bulk::Decompressor::new().map_err(|source| Error::Decompress { part: PART, source })?;
        Ok(Self { zstd, scratch: Vec::new() })
    }

    /// Decompresses a payload into `out`, which then holds exactly `raw_len` bytes.
    ///
    /// # Errors
    /// When it claims more than [`MAX_CHUNK_BYTES`], or is not what it claims to be; `out` is empty then.
    pub fn decompress(&mut self, encoded: Encoded<'_>, out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        if encoded.raw_len > MAX_CHUNK_BYTES {
            let (found, limit) = (u64::from(encoded.raw_len), u64::from(MAX_CHUNK_BYTES));
            return Err(Error::TooLarge { part: PART, found, limit });
        }
        let raw_len = encoded.raw_len as usize;
        match encoded.codec {
            Codec::Raw => out.extend_from_slice(encoded.payload),
            Codec::Zstd => {
                out.reserve(raw_len);
                // The room of `out` bounds what comes out, whatever the frame says.
                self.zstd.decompress_to_buffer(encoded.payload, out).map_err(|source| {
                    out.clear();
                    Error::Decompress { part: PART, source }
                })?;
            }
        }
        if out.len() != raw_len {
            out.clear();
            return Err(Error::Malformed { part: PART, what: "its length is not what its index entry says" });
        }
        Ok(())
    }
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decompressor")
    }
}

/// Returns the length of a chunk that may be stored.
pub(crate) fn check_raw_len(raw: &[u8]) -> Result<u32> {
    match u32::try_from(raw.len()) {
        Ok(raw_len) if (1..=MAX_CHUNK_BYTES).contains(&raw_len) => Ok(raw_len),
        _ => Err(Error::Misuse { what: "a chunk must be 1 byte to 8 MiB" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Entropy, SeededEntropy};

    fn compressor(level: i32) -> Compressor {
        Compressor::new(&CompressOptions { level }).unwrap()
    }

    #[test]
    fn every_level_can_be_read() {
        let raw: Vec<u8> = (0..500_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let mut decompressor = Decompressor::new().unwrap();
        let mut out = Vec::new();
        for level in [-5, -1, 1, 2, 3, 9, 19] {
            let mut compressor = compressor(level);
            // Twice, since the context is used again.
            for raw in [&raw[..], &raw[..1000]] {
                let encoded = compressor.compress(raw).unwrap();
                assert_eq!(encoded.codec, Codec::Zstd, "level {level}");
                decompressor.decompress(encoded, &mut out).unwrap();
                assert_eq!(out, raw, "level {level}");
            }
        }
    }

    #[test]
    fn what_hardly_shrinks_is_stored_as_it_is() {
        let mut raw = vec![0; 1 << 20];
        SeededEntropy::new(1).fill(&mut raw).unwrap();
        let mut compressor = compressor(1);
        assert_eq!(
            compressor.compress(&raw).unwrap(),
            Encoded { codec: Codec::Raw, payload: &raw, raw_len: 1 << 20 }
        );
        // 2 % of it would shrink to nothing: still not worth it. 5 % is.
        raw[..20_000].fill(0);
        assert_eq!(compressor.compress(&raw).unwrap().codec, Codec::Raw);
        raw[..52_000].fill(0);
        assert_eq!(compressor.compress(&raw).unwrap().codec, Codec::Zstd);
        for length in 1..40 {
            let encoded = compressor.compress(&raw[..length]).unwrap();
            assert!(encoded.codec == Codec::Raw || encoded.payload.len() < length, "{length} zeros");
        }
    }

    #[test]
    fn a_frame_that_holds_more_than_its_entry_says_is_refused() {
        let zeros = vec![0; 4 << 20];
        let mut compressor = compressor(1);
        let bomb = compressor.compress(&zeros).unwrap();
        let mut decompressor = Decompressor::new().unwrap();
        let mut out = Vec::new();
        for raw_len in [1, 1000, (4 << 20) - 1, (4 << 20) + 1, MAX_CHUNK_BYTES + 1, u32::MAX] {
            assert!(decompressor.decompress(Encoded { raw_len, ..bomb }, &mut out).is_err(), "{raw_len}");
            assert!(out.is_empty());
        }
        assert!(out.capacity() <= 2 * (4 << 20) + 1, "nothing was allocated for a claim: {}", out.capacity());
        decompressor.decompress(bomb, &mut out).unwrap();
        assert_eq!(out, zeros);
    }
}
