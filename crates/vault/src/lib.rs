//! The data engine: streams to deduplicated, compressed, sealed objects in a bank account, and back.
//!
//! Invariant: what is committed can be read, byte for byte, until it is deleted, whatever crashes, is repeated, or
//! runs beside it. It holds because bytes move in one order only: data into packs, packs into the index, manifests
//! after the data they name, and the create-only commit record last; and because a chunk counts as present only as
//! `karbor-sweep`'s protocol allows.
//! Deliberately absent: any clock, and any lock in the bank.

mod account;
mod bad;
mod compose;
mod error;
mod index;
mod keys;
mod maintain;
mod progress;
mod read;
mod record;
mod session;
mod sessions;
mod source;
mod target;
mod write;

pub use karbor_chunk::{Entropy, MasterKey, Salt, SystemEntropy, open_secret, seal_secret};
pub use karbor_sweep::SessionId;

pub use account::{Account, AccountOptions};
pub use compose::{ComposeOptions, Composer, Grain, Produce, Segment};
pub use error::{DamagedRange, Error, ErrorKind, Result};
pub use maintain::{
    AccountStats, CopyCheckpoint, MayFence, RebuildReport, ScrubOptions, ScrubReport, SweepOptions,
    SweepReport, VerifyMode, VerifyReport, scrub,
};
pub use progress::ProgressSink;
pub use read::{CheckpointReader, CompareReport, CopyOptions, CopyReport, StreamReader};
pub use session::{BeginOptions, CheckpointInfo, CheckpointWriter, ResourceWriter};
pub use source::{BlockSource, FileSource};
pub use target::{BlockTarget, FileTarget};
pub use write::{BlockOptions, SavedResource, StreamOptions, StreamRecord, WriteStats};
