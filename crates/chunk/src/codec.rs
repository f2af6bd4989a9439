//! Compression: zstd with a context that is kept, and a fast way out for what does not shrink.

use std::fmt;

use crate::{Error, MAX_CHUNK_BYTES, Result};

/// How the payload of a chunk is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
        let zstd = zstd::bulk::Compressor::new(options.level)
            .map_err(|source| Error::Compress { part: "chunk", source })?;
        Ok(Self { zstd, scratch: Vec::new() })
    }

    /// Compresses a chunk, or returns it as it is when it would not shrink enough.
    pub fn compress<'a>(&'a mut self, raw: &'a [u8]) -> Result<Encoded<'a>> {
        let _ = (&mut self.zstd, &mut self.scratch, raw);
        Err(Error::Misuse { what: "not written yet" })
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
    pub(crate) scratch: Vec<u8>,
}

impl Decompressor {
    /// Makes a decompressor.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new() -> Result<Self> {
        let zstd =
            zstd::bulk::Decompressor::new().map_err(|source| Error::Decompress { part: "chunk", source })?;
        Ok(Self { zstd, scratch: Vec::new() })
    }

    /// Decompresses a payload into `out`, which then holds exactly `raw_len` bytes.
    ///
    /// # Errors
    /// When it claims more than [`MAX_CHUNK_BYTES`], or is not what it claims to be.
    pub fn decompress(&mut self, encoded: Encoded<'_>, out: &mut Vec<u8>) -> Result<()> {
        let _ = (&mut self.zstd, encoded, out, MAX_CHUNK_BYTES);
        Err(Error::Misuse { what: "not written yet" })
    }
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decompressor")
    }
}
