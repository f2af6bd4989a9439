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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Cutting, Entropy, SeededEntropy, fuzz};

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        SeededEntropy::new(5).fill(&mut bytes).unwrap();
        bytes
    }

    /// Shows `bytes` to a cutter in pieces, and returns the lengths of the chunks.
    fn lengths(cutter: &mut dyn Cut, bytes: &[u8], piece: usize) -> Vec<usize> {
        let mut lengths = Vec::new();
        let mut current = 0;
        for mut piece in bytes.chunks(piece) {
            while let Some(end) = cutter.find(piece) {
                lengths.push(current + end);
                current = 0;
                piece = &piece[end..];
            }
            current += piece.len();
        }
        if current > 0 {
            lengths.push(current);
        }
        lengths
    }

    const SIZES: ContentSizes = ContentSizes { min_bytes: 512, average_bytes: 2048, max_bytes: 8192 };

    #[test]
    fn content_is_cut_where_the_published_algorithm_cuts_it() {
        let bytes = noise(1 << 20);
        for seed in [0, 1, 0x0123_4567_89ab_cdef] {
            let reference = fastcdc::v2020::FastCDC::with_level_and_seed(
                &bytes,
                512,
                2048,
                8192,
                Normalization::Level1,
                seed,
            );
            let expected: Vec<_> = reference.map(|chunk| chunk.length).collect();
            let mut cutter = ContentCutter::new(SIZES, seed).unwrap();
            assert_eq!(lengths(&mut cutter, &bytes, bytes.len()), expected, "seed {seed}");
            assert!(expected.len() > 300, "{}", expected.len());
        }
    }

    #[test]
    fn an_insertion_moves_few_cuts() {
        let bytes = noise(1 << 20);
        let mut moved = bytes.clone();
        moved.splice(1000..1000, *b"inserted");
        let cut = |bytes: &[u8]| lengths(&mut ContentCutter::new(SIZES, 1).unwrap(), bytes, 4096);
        let (before, after) = (cut(&bytes), cut(&moved));
        let shared = before.iter().rev().zip(after.iter().rev()).take_while(|(a, b)| a == b).count();
        assert!(shared + 5 > before.len(), "{shared} of {}", before.len());
    }

    #[test]
    fn what_never_matches_is_cut_at_the_largest_size() {
        let zeros = vec![0; 100_000];
        let mut cutter = ContentCutter::new(SIZES, 0).unwrap();
        let lengths = lengths(&mut cutter, &zeros, 1000);
        assert!(lengths.iter().rev().skip(1).all(|length| *length == 8192), "{lengths:?}");
    }

    #[test]
    fn an_account_cuts_its_streams_alike_and_unlike_others() {
        let bytes = noise(1 << 20);
        let cutting = Cutting::content(SIZES);
        let cut = |key: &crate::AccountKey| lengths(&mut *key.cutter(&cutting).unwrap(), &bytes, 4096);
        let other = crate::AccountKey::generate(&SeededEntropy::new(99)).unwrap();
        assert_eq!(cut(&fuzz::key()), cut(&fuzz::key()));
        assert_ne!(cut(&fuzz::key()), cut(&other));
    }

    #[test]
    fn fixed_cuts_are_aligned_after_a_seek() {
        let mut cutter = FixedCutter::new(1000).unwrap();
        cutter.seek(5_999_999_700);
        assert_eq!(lengths(&mut cutter, &[1; 2500], 90), [300, 1000, 1000, 200]);
        cutter.reset();
        assert_eq!(cutter.find(&[1; 999]), None);
        assert_eq!(cutter.find(&[1; 1]), Some(1));
    }

    #[test]
    fn sizes_that_make_no_sense_are_refused() {
        let sizes =
            |min_bytes, average_bytes, max_bytes| ContentSizes { min_bytes, average_bytes, max_bytes };
        let bad = [
            sizes(0, 2048, 8192),
            sizes(513, 2048, 8192),
            sizes(4096, 2048, 8192),
            sizes(512, 2048, 1024),
            sizes(512, 8 << 20, 8 << 20),
            sizes(512, 2048, 16 << 20),
        ];
        for sizes in bad {
            assert!(ContentCutter::new(sizes, 0).is_err(), "{sizes:?}");
        }
        assert!(FixedCutter::new(0).is_err());
        assert!(FixedCutter::new(MAX_CHUNK_BYTES + 1).is_err());
    }

    #[test]
    fn a_single_bit_anywhere_is_not_zero() {
        for length in [0, 1, 255, 256, 257, 1000, 4096] {
            let mut bytes = vec![0; length];
            assert!(is_zero(&bytes), "{length}");
            for at in 0..length {
                bytes[at] = 1 << (at % 8);
                assert!(!is_zero(&bytes), "{at} of {length}");
                bytes[at] = 0;
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn cuts_do_not_depend_on_how_a_stream_is_shown(
            bytes in prop::collection::vec(any::<u8>(), 0..50_000),
            piece in 1..20_000usize,
            size in 1..5000u32,
        ) {
            for cutter in [&mut ContentCutter::new(SIZES, 3).unwrap() as &mut dyn Cut, &mut FixedCutter::new(size).unwrap()] {
                let whole = lengths(cutter, &bytes, bytes.len().max(1));
                cutter.reset();
                prop_assert_eq!(&lengths(cutter, &bytes, piece), &whole);
                cutter.reset();
                prop_assert_eq!(whole.iter().sum::<usize>(), bytes.len());
            }
            let mut content = ContentCutter::new(SIZES, 3).unwrap();
            let content = lengths(&mut content, &bytes, piece);
            let (_, all_but_last) = content.split_last().unwrap_or((&0, &[]));
            prop_assert!(all_but_last.iter().all(|length| (512..=8192).contains(length)));
        }
    }
}
