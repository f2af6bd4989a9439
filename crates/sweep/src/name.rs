//! Names: sessions, packs, sweep epochs, and the hashes that objects are named by.
//!
//! Invariant: a name that was parsed is written back as the same text, and nothing else is accepted, so that a
//! key stands for one name and a name for one key.

use std::fmt;
use std::str::FromStr;

use karbor_types::Epoch;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text that is no name of this kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}")]
pub struct InvalidName {
    /// What was expected.
    pub what: &'static str,
    /// The text that was given.
    pub text: String,
}

impl InvalidName {
    fn new(what: &'static str, text: &str) -> Self {
        Self { what, text: text.to_owned() }
    }
}

/// Names one session: one attempt (the lease's epoch) of one operation.
///
/// A session is never begun twice: who tries again takes the next epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId {
    /// The operation; for protect that is the checkpoint.
    pub operation: Uuid,
    /// The attempt.
    pub epoch: Epoch,
}

impl SessionId {
    /// Names an attempt of an operation.
    pub const fn new(operation: Uuid, epoch: Epoch) -> Self {
        Self { operation, epoch }
    }
}

impl fmt::Display for SessionId {
    /// Writes `<uuid>-<8 hexadecimal digits>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.operation.hyphenated(), self.epoch)
    }
}

impl FromStr for SessionId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = || InvalidName::new("the name of a session", text);
        let (uuid, epoch) = text.rsplit_once('-').ok_or_else(invalid)?;
        let id = Self {
            operation: Uuid::try_parse(uuid).map_err(|_| invalid())?,
            epoch: Epoch(parse_hex_u32(epoch).ok_or_else(invalid)?),
        };
        // Other spellings of a UUID would let two keys stand for one session.
        if uuid.len() != 36 || uuid.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(invalid());
        }
        Ok(id)
    }
}

impl TryFrom<String> for SessionId {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<SessionId> for String {
    fn from(id: SessionId) -> String {
        id.to_string()
    }
}

/// Counts the sweeps of an account. Epochs are strictly sequential: the next begins when the last is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SweepEpoch(pub u32);

impl fmt::Display for SweepEpoch {
    /// Writes eight hexadecimal digits, so that keys sort by epoch.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl FromStr for SweepEpoch {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        parse_hex_u32(text).map(Self).ok_or_else(|| InvalidName::new("a sweep epoch", text))
    }
}

/// Parses exactly eight lower-case hexadecimal digits.
fn parse_hex_u32(text: &str) -> Option<u32> {
    let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if text.len() != 8 || !text.bytes().all(lower) {
        return None;
    }
    u32::from_str_radix(text, 16).ok()
}

/// The unkeyed BLAKE3 of an object's stored bytes; objects that hold chunks are named by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectHash([u8; 32]);

impl ObjectHash {
    /// Hashes an object's bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Wraps a hash that was computed elsewhere.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes of the hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ObjectHash {
    /// Writes 64 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for ObjectHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectHash({self})")
    }
}

impl FromStr for ObjectHash {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = || InvalidName::new("a hash", text);
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(invalid());
        }
        blake3::Hash::from_hex(text).map(|hash| Self(*hash.as_bytes())).map_err(|_| invalid())
    }
}

impl TryFrom<String> for ObjectHash {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<ObjectHash> for String {
    fn from(hash: ObjectHash) -> String {
        hash.to_string()
    }
}

/// Names one pack: the session that stored it, and the hash of its bytes.
///
/// A session stores under its own name only, so a pack that was deleted never comes back as another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackName {
    /// Who stored it.
    pub session: SessionId,
    /// The hash of its bytes.
    pub hash: ObjectHash,
}

impl PackName {
    /// Names a pack.
    pub const fn new(session: SessionId, hash: ObjectHash) -> Self {
        Self { session, hash }
    }
}

impl fmt::Display for PackName {
    /// Writes `<session>/<hash>`, as in the pack's key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.session, self.hash)
    }
}

impl FromStr for PackName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (session, hash) =
            text.split_once('/').ok_or_else(|| InvalidName::new("the name of a pack", text))?;
        Ok(Self { session: session.parse()?, hash: hash.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_they_are_read() {
        let session = "6c6d6ad4-9fc4-41e7-bc65-e4d315421283-0000001f";
        let pack = format!("{session}/{}", "0f".repeat(32));
        assert_eq!(session.parse::<SessionId>().unwrap().to_string(), session);
        assert_eq!(session.parse::<SessionId>().unwrap().epoch, Epoch(31));
        assert_eq!(pack.parse::<PackName>().unwrap().to_string(), pack);
        assert_eq!("0000000a".parse::<SweepEpoch>().unwrap(), SweepEpoch(10));
    }

    #[test]
    fn only_one_spelling_is_a_name() {
        for bad in [
            "",
            "6c6d6ad4-9fc4-41e7-bc65-e4d315421283",
            "6c6d6ad4-9fc4-41e7-bc65-e4d315421283-1f",
            "6c6d6ad4-9fc4-41e7-bc65-e4d315421283-0000001F",
            "6C6d6ad4-9fc4-41e7-bc65-e4d315421283-0000001f",
            "6c6d6ad49fc441e7bc65e4d315421283-0000001f",
            "{6c6d6ad4-9fc4-41e7-bc65-e4d315421283}-0000001f",
            "6c6d6ad4-9fc4-41e7-bc65-e4d315421283-+000001f",
        ] {
            assert!(bad.parse::<SessionId>().is_err(), "{bad}");
        }
        assert!("0F".repeat(32).parse::<ObjectHash>().is_err());
        assert!("0f".repeat(31).parse::<ObjectHash>().is_err());
    }
}
