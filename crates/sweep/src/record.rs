//! The small objects: session records, and the markers that stand at commit keys instead of commit records.
//!
//! Invariant: plain JSON that starts with its format number's member, so that a marker is told from a commit
//! record by its first byte (`{`; a commit record never starts with it), and readable without a key.

use bytes::Bytes;
use karbor_bank::Key;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Error, Result, SessionId};

/// The number of the format that is written, and the only one that is read.
pub const FORMAT: u32 = 1;

/// What a session is at work on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Kind {
    /// It stores chunks, leans on chunks that are there, and means to put a commit record.
    Writer,
    /// It reads what it pins.
    Reader,
    /// It stores living chunks again, so that packs that are mostly dead can go. It never commits, so no sweep
    /// waits for it.
    Rewrite,
}

/// What stands at `sessions/<session>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    format: u32,
    /// What it is at work on.
    pub kind: Kind,
    /// The commits that it leans on, unread: what a reader reads, the base of a writer. What they reach is kept
    /// as long as this session has no commit key, even if they are deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<SessionId>,
    /// Randomness: after a lost reply, a record with this nonce is one's own.
    pub nonce: String,
    /// When it began, in microseconds UTC by the clock of who put it. For people; nothing is decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<i64>,
    /// Who put it: a host and process, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
}

impl SessionRecord {
    /// Makes a record; what is for people may be set afterwards.
    pub fn new(kind: Kind, pins: Vec<SessionId>, nonce: impl Into<String>) -> Self {
        Self { format: FORMAT, kind, pins, nonce: nonce.into(), created_at: None, by: String::new() }
    }

    /// Writes the record.
    pub fn to_bytes(&self) -> Bytes {
        to_json(self)
    }

    /// Reads the record that stands at a key.
    ///
    /// # Errors
    /// When it is none, or of an unknown format.
    pub fn from_bytes(key: &Key, bytes: &[u8]) -> Result<Self> {
        from_json(key, bytes)
    }
}

/// How a session ended, if not by a commit that lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// It ended by itself without a commit.
    Closed,
    /// Somebody else took its commit key.
    Fence,
    /// It committed, and the commit was deleted.
    Deleted,
}

/// What stands at the commit key of a session that did not commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    format: u32,
    kind: MarkerKind,
    /// What the session was, where that is known: what is left of a reader can be forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Kind>,
    /// Who put it, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum MarkerKind {
    Fence,
    Closed,
}

impl Marker {
    /// The largest marker. What is larger is a commit record, and need not be read to know that.
    pub const MAX_BYTES: u64 = 512;
    /// The longest text for people in a marker, in bytes.
    const MAX_TEXT_BYTES: usize = 100;

    /// Makes a fence: that session can never commit.
    pub fn fence(of: Option<Kind>) -> Self {
        Self { format: FORMAT, kind: MarkerKind::Fence, of, by: String::new(), reason: String::new() }
    }

    /// Makes the end of a session that commits nothing.
    pub fn closed(of: Kind) -> Self {
        Self { kind: MarkerKind::Closed, ..Self::fence(Some(of)) }
    }

    /// Says for people who puts it and why; long texts are cut.
    #[must_use]
    pub fn because(mut self, by: &str, reason: &str) -> Self {
        let cut = |text: &str| text.chars().filter(is_plain).take(Self::MAX_TEXT_BYTES).collect();
        (self.by, self.reason) = (cut(by), cut(reason));
        self
    }

    /// Returns which end it marks.
    pub const fn end(&self) -> End {
        match self.kind {
            MarkerKind::Fence => End::Fence,
            MarkerKind::Closed => End::Closed,
        }
    }

    /// Writes the marker.
    pub fn to_bytes(&self) -> Bytes {
        to_json(self)
    }
}

/// Returns whether a character takes one byte in JSON.
fn is_plain(c: &char) -> bool {
    (c.is_ascii_graphic() || *c == ' ') && !matches!(c, '"' | '\\')
}

/// What stands at a commit key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// A commit record.
    Record(Bytes),
    /// A fence, or the session's own end.
    Marker(Marker),
}

impl Standing {
    /// Reads what stands at a commit key.
    ///
    /// # Errors
    /// When it is a marker that cannot be read.
    pub fn from_bytes(key: &Key, bytes: Bytes) -> Result<Self> {
        if is_marker(&bytes) {
            return Ok(Self::Marker(from_json(key, &bytes)?));
        }
        Ok(Self::Record(bytes))
    }
}

/// Tells markers from commit records.
pub(crate) fn is_marker(bytes: &[u8]) -> bool {
    bytes.first() == Some(&b'{')
}

/// Writes JSON.
pub(crate) fn to_json<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).expect("texts, numbers and lists always have a JSON form").into()
}

/// Reads JSON that stands at `key`, whose format must be known.
pub(crate) fn from_json<T: DeserializeOwned>(key: &Key, bytes: &[u8]) -> Result<T> {
    #[derive(Deserialize)]
    struct Numbered {
        format: u32,
    }
    let damaged = |source: serde_json::Error| Error::Damaged { key: key.clone(), source: source.into() };
    let Numbered { format } = serde_json::from_slice(bytes).map_err(damaged)?;
    if format != FORMAT {
        return Err(Error::UnknownFormat { key: key.clone(), format });
    }
    serde_json::from_slice(bytes).map_err(damaged)
}
