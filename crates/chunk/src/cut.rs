//! Cutting streams into chunks, and telling zeros.
//!
//! A cutter is shown the stream piece by piece and says where chunks end; it copies nothing and keeps nothing but
//! its place. However the stream is split into pieces, the cuts are the same.

use std::fmt;

use fastcdc::v2020::{Normalization, get_gear_with_seed, select_masks};

use crate::{Error, MAX_CHUNK_BYTES, Result};

/// Returns whether every byte is zero. Written so that the compiler vectorizes it.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<256>();
    let zero = |block: &[u8]| block.iter().fold(0, |seen, byte| seen | byte) == 0;
    blocks.iter().all(|block| zero(block)) && zero(rest)
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

impl ContentSizes {
    fn check(self) -> Result<()> {
        let Self { min_bytes, average_bytes, max_bytes } = self;
        let ordered = min_bytes <= average_bytes && average_bytes <= max_bytes;
        let within = (64..=1 << 20).contains(&min_bytes)
            && (256..=4 << 20).contains(&average_bytes)
            && (1024..=MAX_CHUNK_BYTES).contains(&max_bytes);
        let even = (min_bytes | average_bytes | max_bytes).is_multiple_of(2);
        if ordered && within && even {
            return Ok(());
        }
        Err(Error::Misuse { what: "the content-defined chunk sizes are odd, out of order or out of range" })
    }
}

/// Cuts where the content says so: FastCDC of 2020, with its first level of normalization.
///
/// A chunk ends before the byte that makes the rolling hash of what follows the first `min_bytes` match a mask, a
/// strict one below the average size and a lax one above it. So an insertion moves the cuts near it only.
#[derive(Clone)]
pub struct ContentCutter {
    sizes: ContentSizes,
    gear: Box<[u64; 256]>,
    strict: u64,
    lax: u64,
    /// How long the current chunk is so far.
    filled: usize,
    hash: u64,
}

impl ContentCutter {
    /// Makes a cutter with a seed of its own; [`crate::AccountKey::cutter`] knows the account's.
    ///
    /// # Errors
    /// When the sizes are odd, out of order or out of range.
    pub fn new(sizes: ContentSizes, seed: u64) -> Result<Self> {
        sizes.check()?;
        let (strict, lax) = select_masks(sizes.average_bytes as usize, Normalization::Level1);
        let (table, _) = get_gear_with_seed(seed);
        let mut gear = Box::new([0; 256]);
        gear.copy_from_slice(&table);
        Ok(Self { sizes, gear, strict, lax, filled: 0, hash: 0 })
    }

    /// Returns the sizes it aims for.
    pub fn sizes(&self) -> ContentSizes {
        self.sizes
    }

    /// Rolls over bytes until one completes a match of `mask`, and returns where that one is.
    fn roll(&mut self, bytes: &[u8], mask: u64) -> Option<usize> {
        let mut hash = self.hash;
        for (place, byte) in bytes.iter().enumerate() {
            hash = (hash << 1).wrapping_add(self.gear[usize::from(*byte)]);
            if hash & mask == 0 {
                return Some(place);
            }
        }
        self.hash = hash;
        self.filled += bytes.len();
        None
    }
}

impl Cut for ContentCutter {
    fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        let [min, average, max] = [self.sizes.min_bytes, self.sizes.average_bytes, self.sizes.max_bytes];
        let skipped = bytes.len().min((min as usize).saturating_sub(self.filled));
        self.filled += skipped;
        let mut done = skipped;
        for (end, mask) in [(average, self.strict), (max, self.lax)] {
            let length = (bytes.len() - done).min((end as usize).saturating_sub(self.filled));
            if let Some(place) = self.roll(&bytes[done..done + length], mask) {
                self.reset();
                return Some(done + place);
            }
            done += length;
        }
        if self.filled < max as usize {
            return None;
        }
        self.reset();
        Some(done)
    }

    fn reset(&mut self) {
        self.filled = 0;
        self.hash = 0;
    }
}

impl fmt::Debug for ContentCutter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContentCutter").field("sizes", &self.sizes).finish_non_exhaustive()
    }
}
