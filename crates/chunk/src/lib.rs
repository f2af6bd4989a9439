//! Cutting, naming, compressing and sealing chunks; the formats of packs, index segments, manifests, commit
//! records and key slots.
//!
//! Invariant: pure. Bytes come in, bytes go out; there is no I/O, no clock and no hidden randomness (what needs
//! random bytes is given an [`Entropy`]). Every stored object starts with a magic and a format number, every
//! length that was read is checked before anything is allocated for it, and nothing read from outside can panic.
//! `docs/format.md` tells every byte; the golden files beside the tests are read for ever.
//!
//! The way of a byte into a bank: [`FixedCutter`] or [`ContentCutter`] → [`is_zero`] → [`Namer::chunk_id`] →
//! (known? then only the manifest hears of it) → [`PackBuilder::push`] (compress, seal in place, hash) →
//! [`PackBuilder::finish`] → [`IndexBuilder`] → [`ManifestBuilder`] → [`CommitRecord::seal`].
//! And back: [`CommitRecord::open`] → [`ManifestCursor`] → index → [`PackOpener::open`].

mod codec;
mod commit;
mod cut;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod header;
mod index;
mod keys;
mod manifest;
mod name;
mod pack;
mod seal;
mod secret;
mod session;
mod slot;

pub use codec::{Codec, CompressOptions, Compressor, Decompressor, Encoded};
pub use commit::{CommitObject, CommitRecord, MarkerKind, ResourceRecord, StreamRecord, StreamStats};
pub use cut::{ContentCutter, ContentSizes, Cut, FixedCutter, is_zero};
pub use error::{Error, Result};
pub use header::{FORMAT, PackKind};
pub use index::{IndexBuilder, IndexDecoder, IndexEntry, IndexItem, PackRef, SealedIndex};
pub use keys::{
    AccountKey, AccountKeyId, Entropy, MasterKey, MasterKeyId, Salt, SeededEntropy, SystemEntropy, UsedSalt,
};
pub use manifest::{
    CursorStep, Cutting, DiffStep, ManifestBuilder, ManifestCursor, ManifestDiff, ManifestEntry, NewNode,
    Node, NodeEntry, NodeRef, Piece, StreamRoot,
};
pub use name::{ChunkId, Namer, ObjectHash};
pub use pack::{FinishedPack, PackBuilder, PackEntry, PackInfo, PackOpener, PackOutline, PackTail, TailStep};
pub use secret::{open_secret, seal_secret};
pub use session::SessionId;
pub use slot::KeySlot;

/// The largest chunk, before compression: 8 MiB.
pub const MAX_CHUNK_BYTES: u32 = 8 << 20;
/// What sealing adds to a message: the authentication tag.
pub const TAG_BYTES: u32 = 16;
/// The largest pack: 1 GiB. Writers stay near 32 MiB; readers refuse more than this.
pub const MAX_PACK_BYTES: u64 = 1 << 30;
