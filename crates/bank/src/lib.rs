//! Object storage behind one trait: file system, S3, Swift, memory; wrappers that limit, count, retry and fail.
//!
//! Invariant: an object is never changed after it was put, and no partial object is ever visible.
//! Keys are relative paths of `[A-Za-z0-9._-]` segments joined by `/`; [`Key`] checks that once, so that no
//! driver can be led out of its place.

mod attach;
pub mod conformance;
mod error;
mod fs;
mod key;
mod memory;
#[cfg(feature = "s3")]
mod s3;
#[cfg(feature = "swift")]
mod swift;
mod url;
pub mod wrap;

use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

pub use attach::{DESCRIPTOR_KEY, Descriptor, SCRATCH_PREFIX, attach, attach_as, read_descriptor};
pub use error::{Error, ErrorKind, Result};
pub use fs::{FileSystemBank, SWAP_MAX_BYTES};
pub use key::{InvalidKey, Key};
pub use memory::MemoryBank;
#[cfg(feature = "s3")]
pub use s3::{S3Bank, S3Credentials, S3Location, S3Options};
#[cfg(feature = "swift")]
pub use swift::{SwiftBank, SwiftLocation, SwiftOptions};
pub use url::{BankUrl, InvalidUrl, OpenOptions, create_url, open_url};

/// Stores objects under keys.
///
/// Contract: a put is all-or-nothing and durable when it returns; an object listed is readable; a listing is in
/// key order (bytewise) and shows all that was put before it began; a create-only put succeeds for exactly one
/// of any number of racing callers. A call whose reply was lost may have had its effect.
///
/// A driver tries once: trying again is for [`wrap::Retrying`], which sees every attempt. A key that is also a
/// directory of another key (`a` and `a/b`) may be refused with [`ErrorKind::Unsupported`], and so may a swap of
/// more than [`SWAP_MAX_BYTES`]. `docs/bank-drivers.md` tells the rest, and [`conformance`] tries it.
#[async_trait]
pub trait Bank: fmt::Debug + Send + Sync {
    /// Stores `body` under `key`, as `mode` says, and returns the new version.
    async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<Version>;

    /// Returns an object's bytes, or the part of them that `range` names (cut at the object's end).
    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<Object>;

    /// Returns the size and version of an object.
    async fn head(&self, key: &Key) -> Result<Meta>;

    /// Removes an object; removing what is absent succeeds.
    async fn delete(&self, key: &Key) -> Result<()>;

    /// Lists objects whose keys start with `prefix` (plain text: it may end inside a segment) and are greater
    /// than `after`, in key order, at most `limit` of them. Fewer than `limit` means that there are no more.
    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Meta>>;

    /// Returns what this bank can do; [`Capabilities`] tells what follows from each answer.
    fn capabilities(&self) -> Capabilities;

    /// Returns a name for people, a path or a URL, never with credentials.
    fn name(&self) -> String;
}

/// The bytes of an object to be put: pieces that are stored one after the other, so that large objects need
/// not be copied together.
pub type Body = Vec<Bytes>;

/// When a put is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutMode {
    /// Refused with [`ErrorKind::AlreadyExists`] if the key is taken.
    Create,
    /// Refused with [`ErrorKind::Precondition`] unless this version stands there now.
    Swap(Version),
    /// Never refused. Only for objects that are hints; what the protocol relies on is put create-only.
    Overwrite,
}

/// Identifies the bytes that stand under a key, as the driver sees it (an ETag, a digest).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version(pub String);

/// What is known of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Its key.
    pub key: Key,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its version, where a listing tells it.
    pub version: Option<Version>,
}

/// An object, or a part of it, as read.
#[derive(Debug, Clone)]
pub struct Object {
    /// The bytes asked for.
    pub bytes: Bytes,
    /// The size of the whole object.
    pub size_bytes: u64,
    /// The version that was read.
    pub version: Version,
}

/// What a bank can do, as found by trying when it is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Capabilities {
    /// Create-only puts decide races. Without them nothing may be written by more than one process.
    pub create_only: bool,
    /// Compare-and-swap puts work.
    pub compare_and_swap: bool,
    /// A listing shows all that was put before it began. Without it sweeping needs the database's lists.
    pub consistent_listing: bool,
    /// The largest object that can be put, in bytes.
    pub max_object_bytes: u64,
}

impl Capabilities {
    /// Everything the engine can make use of.
    pub const FULL: Self = Self {
        create_only: true,
        compare_and_swap: true,
        consistent_listing: true,
        max_object_bytes: 5 << 30,
    };
}

/// Joins the pieces of a body; a body of one piece is not copied.
pub fn join(body: Body) -> Bytes {
    if body.len() <= 1 {
        return body.into_iter().next().unwrap_or_default();
    }
    let mut joined = Vec::with_capacity(body.iter().map(Bytes::len).sum());
    for piece in &body {
        joined.extend_from_slice(piece);
    }
    joined.into()
}

/// Cuts the part that a caller asks for at the object's end; nothing asked for means all of it.
fn cut_range(range: Option<Range<u64>>, size_bytes: u64) -> Range<u64> {
    let Some(range) = range else { return 0..size_bytes };
    let end = range.end.min(size_bytes);
    range.start.min(end)..end
}
