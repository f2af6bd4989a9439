//! Session names and session records.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::header::KNOWN_FORMATS;
use crate::{Error, FORMAT, Result};

const PART: &str = "session record";

/// One attempt of one operation: `<uuid>-<epoch as 8 hexadecimal digits>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId {
    /// The operation's id; for a protect it is the checkpoint's as well.
    pub operation: Uuid,
    /// Which attempt.
    pub epoch: u32,
}

impl SessionId {
    /// Names an attempt.
    pub const fn new(operation: Uuid, epoch: u32) -> Self {
        Self { operation, epoch }
    }

    /// Twenty bytes: the UUID as it is written, and the epoch, least significant byte first.
    pub(crate) fn to_bytes(self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[..16].copy_from_slice(self.operation.as_bytes());
        bytes[16..].copy_from_slice(&self.epoch.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; 20]) -> Self {
        let mut operation = [0; 16];
        operation.copy_from_slice(&bytes[..16]);
        let mut epoch = [0; 4];
        epoch.copy_from_slice(&bytes[16..]);
        Self { operation: Uuid::from_bytes(operation), epoch: u32::from_le_bytes(epoch) }
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08x}", self.operation.hyphenated(), self.epoch)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

impl FromStr for SessionId {
    type Err = Error;

    /// Reads the one spelling that [`fmt::Display`] writes: keys are compared as text.
    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (operation, epoch) = text.rsplit_once('-')?;
            let operation = Uuid::try_parse(operation).ok()?;
            let epoch = u32::from_be_bytes(crate::name::from_hex(epoch)?);
            let id = Self { operation, epoch };
            (id.to_string() == text).then_some(id)
        };
        parse().ok_or_else(|| Error::Text { what: "session id", text: text.to_owned() })
    }
}

impl TryFrom<String> for SessionId {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<SessionId> for String {
    fn from(id: SessionId) -> String {
        id.to_string()
    }
}

/// What a session is at work on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionKind {
    /// It stores chunks and means to put a commit record.
    Writer,
    /// It reads what it pins.
    Reader,
}

/// What stands at `sessions/<session>`: plain JSON, readable without a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    format: u16,
    /// Writer or reader.
    pub kind: SessionKind,
    /// The sessions whose commit records this one leans on: what a reader reads, the base that a writer takes
    /// unread parts from. They are kept as long as this session is unresolved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<SessionId>,
    /// 32 hexadecimal digits of randomness: after a lost reply, a record with this nonce is one's own.
    pub nonce: String,
    /// When it began, in microseconds UTC by the clock of who put it. For people; nothing is decided by it.
    #[serde(default)]
    pub created_at: i64,
    /// Who put it: a host and process, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
}

impl SessionRecord {
    /// The largest record that is read.
    pub const MAX_BYTES: usize = 1 << 20;

    /// Makes a record; the other fields may be set afterwards.
    pub fn new(kind: SessionKind, nonce: String) -> Self {
        Self { format: FORMAT, kind, pins: Vec::new(), nonce, created_at: 0, by: String::new() }
    }

    /// Writes the record.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a struct of texts and numbers always has a JSON form")
    }

    /// Reads a record.
    ///
    /// # Errors
    /// When it is none, or of a format that is not known.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        check_json(PART, bytes, Self::MAX_BYTES)?;
        serde_json::from_slice(bytes).map_err(|source| Error::Json { part: PART, source })
    }
}

/// Checks size and format number of a plain JSON object before the rest of it is read.
pub(crate) fn check_json(part: &'static str, bytes: &[u8], limit: usize) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> SessionId {
        SessionId::new(Uuid::from_u128(0x6c6d_6ad4_9fc4_41e7_bc65_e4d3_1542_1283), 0x2a)
    }

    #[test]
    fn a_session_id_has_one_spelling() {
        let text = "6c6d6ad4-9fc4-41e7-bc65-e4d315421283-0000002a";
        assert_eq!(session().to_string(), text);
        assert_eq!(text.parse::<SessionId>().unwrap(), session());
        assert_eq!(SessionId::from_bytes(&session().to_bytes()), session());
        let bad = [
            "",
            "6c6d6ad4-9fc4-41e7-bc65-e4d315421283",
            "6c6d6ad4-9fc4-41e7-bc65-e4d315421283-2a",
            "6C6D6AD4-9FC4-41E7-BC65-E4D315421283-0000002a",
            "6c6d6ad4-9fc4-41e7-bc65-e4d315421283-0000002A",
            "6c6d6ad49fc441e7bc65e4d315421283-0000002a",
            "{6c6d6ad4-9fc4-41e7-bc65-e4d315421283}-0000002a",
        ];
        for text in bad {
            assert!(text.parse::<SessionId>().is_err(), "{text}");
        }
    }

    #[test]
    fn later_attempts_sort_behind_earlier_ones() {
        let ids = [0, 1, 9, 10, 255, 256, u32::MAX].map(|epoch| SessionId { epoch, ..session() });
        assert!(ids.is_sorted());
        assert!(ids.map(|id| id.to_string()).is_sorted());
    }

    #[test]
    fn session_records_come_back() {
        let mut record = SessionRecord::new(SessionKind::Reader, "00".repeat(16));
        record.pins.push(session());
        assert_eq!(SessionRecord::from_bytes(&record.to_bytes()).unwrap(), record);
        // What a later writer of format 1 may add is passed over; what is missing has a meaning.
        let json = br#"{"format":1,"kind":"writer","nonce":"n","more":[1]}"#;
        let expected = SessionRecord::new(SessionKind::Writer, "n".to_owned());
        assert_eq!(SessionRecord::from_bytes(json).unwrap(), expected);
    }

    #[test]
    fn unknown_formats_are_named_before_anything_else_is_read() {
        let error = SessionRecord::from_bytes(br#"{"format":7,"kind":"dancer"}"#).unwrap_err();
        assert_eq!(error.to_string(), "the session record has format 7; this version knows 1");
        for json in [&b""[..], b"{}", b"[1]", b"{\"format\":1}", &[b' '; SessionRecord::MAX_BYTES + 1]] {
            assert!(SessionRecord::from_bytes(json).is_err());
        }
    }
}
