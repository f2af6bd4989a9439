//! Session names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Error, Result};

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
}
