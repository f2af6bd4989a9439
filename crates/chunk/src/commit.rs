//! What stands at `commits/<session>`: a sealed commit record, or a marker (fence or closed) in plain JSON.
//!
//! Invariant: which of them it is can be told without a key, by the first byte. A record opens only as that of
//! the session it was sealed for, so one that was carried to another key does not pass for that key's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::header::{self, HEADER_BYTES, KNOWN_FORMATS, ObjectKind};
use crate::{AccountKey, Error, FORMAT, Result, Salt, SessionId, StreamRoot};

const PART: &str = "commit record";
const MARKER_PART: &str = "commit marker";
const SEALED_AT: usize = HEADER_BYTES + 8;
/// The level that records are compressed with: they are small, and kept for long.
const LEVEL: i32 = 9;

/// All that a restore of one checkpoint needs, beside the chunks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommitRecord {
    format: u16,
    /// The checkpoint.
    pub checkpoint: Uuid,
    /// When the checkpoint was begun, in microseconds UTC.
    pub created_at: i64,
    /// What else is to be known: plan, project, graph, parameters, plugin versions. Free to the caller.
    #[serde(default)]
    pub metadata: Value,
    /// What was protected.
    #[serde(default)]
    pub resources: Vec<ResourceRecord>,
}

/// What one resource left in the checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResourceRecord {
    /// The resource, in the caller's spelling: a JSON list of its type and its id, as text.
    pub key: String,
    /// Small typed data, by name.
    #[serde(default)]
    pub records: BTreeMap<String, Value>,
    /// Large data, by name.
    #[serde(default)]
    pub streams: BTreeMap<String, StreamRecord>,
}

/// One stream of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRecord {
    /// Where its bytes are.
    pub root: StreamRoot,
    /// What storing it took.
    #[serde(default)]
    pub stats: StreamStats,
}

/// What storing a stream took. For people and for billing; nothing is decided by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamStats {
    /// The bytes of it that are not zero runs.
    pub data_bytes: u64,
    /// The bytes that were read from the source.
    pub read_bytes: u64,
    /// The bytes of chunks that were not in the bank before, uncompressed.
    pub new_bytes: u64,
    /// The bytes that those take in packs.
    pub stored_bytes: u64,
    /// How many chunks it has, zero runs not counted.
    pub chunks: u64,
    /// How many of them were not in the bank before.
    pub new_chunks: u64,
}

impl CommitRecord {
    /// The largest record before compression: 1 GiB.
    pub const MAX_RAW_BYTES: u64 = 1 << 30;

    /// Makes a record of a checkpoint; resources and metadata are set afterwards.
    pub fn new(checkpoint: Uuid, created_at: i64) -> Self {
        Self { format: FORMAT, checkpoint, created_at, metadata: Value::Null, resources: Vec::new() }
    }

    /// Seals the record for the commit key of `session`.
    ///
    /// # Errors
    /// When its JSON is larger than [`Self::MAX_RAW_BYTES`].
    pub fn seal(&self, key: &AccountKey, session: &SessionId, salt: Salt) -> Result<Vec<u8>> {
        let json = serde_json::to_vec(self).map_err(|source| Error::Json { part: PART, source })?;
        let raw_bytes = json.len() as u64;
        if raw_bytes > Self::MAX_RAW_BYTES {
            return Err(Error::TooLarge { part: PART, found: raw_bytes, limit: Self::MAX_RAW_BYTES });
        }
        let salt = salt.used();
        let packed =
            zstd::bulk::compress(&json, LEVEL).map_err(|source| Error::Compress { part: PART, source })?;
        let mut bytes = Vec::with_capacity(SEALED_AT + packed.len() + crate::seal::TAG);
        bytes.extend_from_slice(&header::encode(ObjectKind::Commit, &salt));
        bytes.extend_from_slice(&raw_bytes.to_le_bytes());
        bytes.extend_from_slice(&packed);
        let (head, message) = bytes.split_at_mut(SEALED_AT);
        let object_key = key.object_key(ObjectKind::Commit, &salt);
        let tag = object_key.seal(SEALED_AT as u64, &aad(head, session), message)?;
        bytes.extend_from_slice(&tag);
        Ok(bytes)
    }

    /// Opens the record that stands at the commit key of `session`.
    ///
    /// # Errors
    /// When it is damaged, of an unknown format, sealed with another key or for another session.
    pub fn open(key: &AccountKey, session: &SessionId, bytes: &[u8]) -> Result<Self> {
        let salt = header::decode(ObjectKind::Commit, bytes)?;
        let Some((head, sealed)) = bytes.split_at_checked(SEALED_AT) else {
            return Err(Error::Truncated { part: PART, need: SEALED_AT as u64, have: bytes.len() as u64 });
        };
        let mut raw_bytes = [0; 8];
        raw_bytes.copy_from_slice(&head[HEADER_BYTES..]);
        let raw_bytes = u64::from_le_bytes(raw_bytes);
        if raw_bytes > Self::MAX_RAW_BYTES {
            return Err(Error::TooLarge { part: PART, found: raw_bytes, limit: Self::MAX_RAW_BYTES });
        }
        let mut packed = Vec::new();
        let object_key = key.object_key(ObjectKind::Commit, &salt);
        object_key.open(PART, SEALED_AT as u64, &aad(head, session), sealed, &mut packed)?;
        Self::open_payload(raw_bytes, &packed)
    }

    /// Reads what was sealed: `raw_bytes`, which the caller has checked, of compressed JSON.
    pub(crate) fn open_payload(raw_bytes: u64, packed: &[u8]) -> Result<Self> {
        let malformed = Error::Malformed { part: PART, what: "its length is not what it says" };
        let Ok(capacity) = usize::try_from(raw_bytes) else { return Err(malformed) };
        let json = zstd::bulk::decompress(packed, capacity)
            .map_err(|source| Error::Decompress { part: PART, source })?;
        if json.len() != capacity {
            return Err(malformed);
        }
        // The number is judged first: another format may not have these fields.
        check_json(PART, &json, capacity)?;
        serde_json::from_slice(&json).map_err(|source| Error::Json { part: PART, source })
    }
}

/// What a marker at a commit key says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MarkerKind {
    /// Somebody else took the key: that session can never commit.
    Fence,
    /// The session itself ended without a commit, as readers do.
    Closed,
}

/// What stands at a commit key, as far as it can be told without a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitObject {
    /// A sealed commit record: [`CommitRecord::open`] reads it.
    Record,
    /// A fence or an end. Whatever else it says is for people.
    Marker(MarkerKind),
}

impl CommitObject {
    /// The largest marker that is read.
    pub const MAX_MARKER_BYTES: usize = 1 << 16;

    /// Tells records from markers.
    ///
    /// # Errors
    /// When it is neither, or of an unknown format.
    pub fn classify(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Kind {
            kind: MarkerKind,
        }
        if bytes.first() == Some(&b'{') {
            check_json(MARKER_PART, bytes, Self::MAX_MARKER_BYTES)?;
            let marker = serde_json::from_slice(bytes);
            let Kind { kind } = marker.map_err(|source| Error::Json { part: MARKER_PART, source })?;
            return Ok(Self::Marker(kind));
        }
        header::decode(ObjectKind::Commit, bytes)?;
        Ok(Self::Record)
    }
}

/// Checks size and format number of a JSON object before the rest of it is read.
fn check_json(part: &'static str, bytes: &[u8], limit: usize) -> Result<()> {
    #[derive(Deserialize)]
    struct Numbered {
        format: u32,
    }
    if bytes.len() > limit {
        return Err(Error::TooLarge { part, found: bytes.len() as u64, limit: limit as u64 });
    }
    let numbered: Numbered = serde_json::from_slice(bytes).map_err(|source| Error::Json { part, source })?;
    if numbered.format != u32::from(FORMAT) {
        return Err(Error::UnknownFormat { part, found: numbered.format, known: KNOWN_FORMATS });
    }
    Ok(())
}

/// The header, the length, and which session's commit key this is for.
fn aad(head: &[u8], session: &SessionId) -> Vec<u8> {
    let mut aad = head.to_vec();
    aad.extend_from_slice(&session.to_bytes());
    aad
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cutting, SeededEntropy, fuzz};

    fn record() -> CommitRecord {
        let root = StreamRoot {
            node: crate::ChunkId([7; 32]),
            size_bytes: 1 << 40,
            depth: 1,
            cutting: Cutting::DISK,
        };
        let stats = StreamStats { data_bytes: 5, read_bytes: 6, ..StreamStats::default() };
        let mut record = CommitRecord::new(fuzz::session_id().operation, 1_795_386_554_505_248);
        record.metadata = serde_json::json!({"plan": {"name": "p"}});
        record.resources.push(ResourceRecord {
            key: r#"["OS::Cinder::Volume","v1"]"#.to_owned(),
            records: BTreeMap::from([("volume".to_owned(), serde_json::json!({"size": 1}))]),
            streams: BTreeMap::from([("data".to_owned(), StreamRecord { root, stats })]),
        });
        record
    }

    fn sealed() -> Vec<u8> {
        let salt = Salt::generate(&SeededEntropy::new(4)).unwrap();
        record().seal(&fuzz::key(), &fuzz::session_id(), salt).unwrap()
    }

    #[test]
    fn a_record_comes_back_for_its_session_only() {
        let bytes = sealed();
        assert_eq!(CommitObject::classify(&bytes).unwrap(), CommitObject::Record);
        let session = fuzz::session_id();
        assert_eq!(CommitRecord::open(&fuzz::key(), &session, &bytes).unwrap(), record());
        let next = SessionId { epoch: session.epoch + 1, ..session };
        assert!(matches!(CommitRecord::open(&fuzz::key(), &next, &bytes), Err(Error::Unauthentic { .. })));
        let other = AccountKey::generate(&SeededEntropy::new(99)).unwrap();
        assert!(matches!(CommitRecord::open(&other, &session, &bytes), Err(Error::Unauthentic { .. })));
    }

    #[test]
    fn every_flip_and_every_cut_of_a_record_is_noticed() {
        let bytes = sealed();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(CommitRecord::open(&fuzz::key(), &fuzz::session_id(), &flipped).is_err(), "byte {at}");
            assert!(
                CommitRecord::open(&fuzz::key(), &fuzz::session_id(), &bytes[..at]).is_err(),
                "cut at {at}"
            );
        }
    }

    #[test]
    fn markers_are_told_from_records_without_a_key() {
        let cases: [(&[u8], _); 3] = [
            (br#"{"format":1,"kind":"fence"}"#, MarkerKind::Fence),
            (
                br#"{"format":1,"kind":"fence","of":"writer","by":"worker-2","reason":"silent"}"#,
                MarkerKind::Fence,
            ),
            (br#"{"format":1,"kind":"closed","of":"reader"}"#, MarkerKind::Closed),
        ];
        for (bytes, kind) in cases {
            assert_eq!(CommitObject::classify(bytes).unwrap(), CommitObject::Marker(kind));
            assert!(CommitRecord::open(&fuzz::key(), &fuzz::session_id(), bytes).is_err());
        }
    }

    #[test]
    fn neither_record_nor_marker_is_refused() {
        let mut other_format = sealed();
        other_format[8] = 2;
        let cases: [(&[u8], &str); 5] = [
            (b"", "the commit record header is cut short: 0 of 48 bytes"),
            (b"KARBORPK", "the commit record header does not start with its magic"),
            (&other_format, "the commit record header has format 2; this version knows 1"),
            (br#"{"format":2,"kind":"x"}"#, "the commit marker has format 2; this version knows 1"),
            (br#"{"format":1,"kind":"x"}"#, "reading the JSON of the commit marker"),
        ];
        for (bytes, message) in cases {
            assert_eq!(CommitObject::classify(bytes).unwrap_err().to_string(), message);
        }
        let huge = [&b"{"[..], &vec![b' '; CommitObject::MAX_MARKER_BYTES]].concat();
        assert!(matches!(CommitObject::classify(&huge), Err(Error::TooLarge { .. })));
    }
}
