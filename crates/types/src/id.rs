//! Identifiers as types: a plan's id cannot be passed where a checkpoint's is wanted.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Instant;

/// What is wrong with the text of an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {what}: expected {expected}")]
pub struct InvalidId {
    /// Which kind of id was expected.
    pub what: &'static str,
    /// The text that was given.
    pub text: String,
    /// What a valid one looks like.
    pub expected: &'static str,
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// Returns the id as a UUID.
            pub fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            /// Accepts every spelling of a UUID: with or without hyphens, braces or `urn:uuid:`, any case.
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Uuid::parse_str(text.trim()).map(Self).map_err(|_| InvalidId {
                    what: $what,
                    text: text.to_owned(),
                    expected: "a UUID",
                })
            }
        }
    };
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks and wraps the text of an id.
            ///
            /// # Errors
            /// When it is empty, too long, or holds anything but ASCII letters, digits, `-`, `_` and `.`,
            /// or starts with a dot (so that it is always a safe part of an object's key).
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidId> {
                let text = text.into();
                let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
                if text.is_empty() || text.len() > $max || text.starts_with('.') || !text.bytes().all(allowed) {
                    return Err(InvalidId {
                        what: $what,
                        text,
                        expected: concat!("1 to ", $max, " of A-Z a-z 0-9 - _ . that does not start with a dot"),
                    });
                }
                Ok(Self(text))
            }

            /// Returns the id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

uuid_id!(/** Names one protection plan. */ PlanId, "plan id");
uuid_id!(
    /** Names one checkpoint. The operation that makes a checkpoint has the same UUID, so that its
    sessions and its commit record are found in a bank by prefix. */
    CheckpointId, "checkpoint id"
);
uuid_id!(/** Names one provider. */ ProviderId, "provider id");
uuid_id!(/** Names one restore. */ RestoreId, "restore id");
uuid_id!(/** Names one verification. */ VerificationId, "verification id");
uuid_id!(/** Names one durable piece of work. */ OperationId, "operation id");
uuid_id!(/** Names one record of the operation log. */ OperationLogId, "operation log id");
uuid_id!(/** Names one trigger. */ TriggerId, "trigger id");
uuid_id!(/** Names one scheduled operation. */ ScheduledOperationId, "scheduled operation id");
uuid_id!(
    /** Names one occurrence of a scheduled operation. It is derived from both, so that whoever hands the
    occurrence out a second time names the same one. */
    OccurrenceId, "occurrence id"
);

text_id!(/** Names a project (tenant); Keystone's are 32 hexadecimal digits. */ ProjectId, "project id", 64);
text_id!(/** Names a user. */ UserId, "user id", 64);
text_id!(
    /** Names a bank account: one project's area in a bank. It is a part of object keys. */
    AccountId, "account id", 64
);

/// The namespace of what is derived from a scheduled operation.
const SCHEDULE_SPACE: Uuid = Uuid::from_u128(0x6b61_7262_6f72_5000_8000_6f63_6375_7273);

impl OccurrenceId {
    /// Names the occurrence of a scheduled operation at an instant.
    pub fn of(operation: ScheduledOperationId, at: Instant) -> Self {
        let named = Uuid::new_v5(&SCHEDULE_SPACE, format!("{operation}/{}", at.as_micros()).as_bytes());
        let milliseconds = u64::try_from(at.as_micros() / 1000).unwrap_or(0);
        Self(dated(named, milliseconds))
    }

    /// Names what one attempt at the occurrence starts; `part` tells apart what it starts several of.
    pub fn started(&self, attempt: u32, part: &str) -> Uuid {
        let named = Uuid::new_v5(&self.0, format!("{attempt}/{part}").as_bytes());
        dated(named, self.0.as_u64_pair().0 >> 16)
    }
}

/// Puts milliseconds since 1970 before the rest of a name, where a UUID of version 7 has them: what is due together is
/// then together in a database's index, at its end, and not all over it (RFC 9562, version 8).
fn dated(named: Uuid, milliseconds: u64) -> Uuid {
    let mut bytes = named.into_bytes();
    let [_, _, date @ ..] = milliseconds.to_be_bytes();
    bytes[..date.len()].copy_from_slice(&date);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

impl From<CheckpointId> for OperationId {
    fn from(id: CheckpointId) -> Self {
        OperationId(id.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_like_spellings_name_the_same_plan() {
        let plain: PlanId = "6c6d6ad49fc441e7bc65e4d315421283".parse().expect("no hyphens");
        let urn: PlanId = "urn:uuid:6C6D6AD4-9FC4-41E7-BC65-E4D315421283".parse().expect("urn");
        assert_eq!(plain, urn);
        assert_eq!(plain.to_string(), "6c6d6ad4-9fc4-41e7-bc65-e4d315421283");
        assert!("My plan".parse::<PlanId>().is_err());
    }

    #[test]
    fn what_is_due_together_has_neighbouring_names() {
        let instant = |second: i64| Instant::from_micros(1_767_225_600_123_456).plus_seconds(second);
        let operation = |number| ScheduledOperationId(Uuid::from_u128(number));
        let of_second = |second| {
            let ids = (0..100).map(move |number| OccurrenceId::of(operation(number), instant(second)));
            ids.flat_map(|id| [id.0, id.started(1, ""), id.started(2, "log")])
        };
        let (first, second): (Vec<_>, Vec<_>) = (of_second(0).collect(), of_second(1).collect());
        assert!(first.iter().max() < second.iter().min());
        let names: std::collections::HashSet<Uuid> = first.iter().chain(&second).copied().collect();
        assert_eq!(names.len(), 600);
        for name in names {
            assert_eq!(name.get_version_num(), 8, "{name}");
            assert_eq!(name.get_variant(), uuid::Variant::RFC4122, "{name}");
        }
        let known = OccurrenceId::of(operation(1), instant(0));
        assert!(known.to_string().starts_with("019b76da-a87b-8"), "{known}");
        // Before 1970 there is nothing to be due.
        OccurrenceId::of(operation(1), Instant::from_micros(-1)).started(1, "");
    }

    #[test]
    fn account_ids_cannot_leave_their_directory() {
        for bad in ["", ".", "..", "../x", "a/b", "a\0b", "ü", &"x".repeat(65)] {
            assert!(AccountId::new(bad).is_err(), "{bad:?}");
        }
        assert!(AccountId::new("e486a2f49695423ca9c47e589b948108").is_ok());
    }
}
