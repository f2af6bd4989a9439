//! What an operation is asked to do: the `request` of its row, written by the actions and read by the worker; and the word
//! in its `result` that tells why it failed.

use serde::{Deserialize, Serialize};

use crate::{CheckpointId, Parameters, ProviderId};

/// The member of a failed operation's result that says in one word why it failed.
pub const FAILURE: &str = "failure";

/// The word for it when the right that the caller gave was taken back.
pub const REVOKED: &str = "revoked";

/// The request of an operation. What a kind has no use for is left at its default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OperationRequest {
    /// Protect, restore, verify, copy: parameters by type or resource, as they came in, checked member by member.
    #[serde(skip_serializing_if = "Parameters::is_empty")]
    pub parameters: Parameters,
    /// The id of the request that asked for it, for the logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Restore: only find out what would be done. Such an operation has no restore row: its
    /// `restore` is `None`, and what it found is its result.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Restore, with `dry_run`: a test, which fails if the restore would, and reads all that would be restored.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub test: bool,
    /// Verify: how much is read.
    #[serde(skip_serializing_if = "Thoroughness::is_default")]
    pub thoroughness: Thoroughness,
    /// Copy: what is copied. The operation's own checkpoint is the copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<CopySource>,
    /// Restore: into another project or site, with credentials that are not kept when it has ended.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub elsewhere: bool,
    /// Only remove what earlier runs of the operation made and left.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub undo: bool,
}

/// How much of a checkpoint a verification reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Thoroughness {
    /// Every manifest, and that every chunk is there.
    Structure,
    /// That, and so many percent of the chunks are read and compared with their names.
    Sample {
        /// How many of a hundred; 1 to 100.
        percent: u8,
    },
    /// Every byte.
    #[default]
    All,
}

impl Thoroughness {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What a copy is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopySource {
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// The provider in whose bank it lies.
    pub provider: ProviderId,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_are_read_back_and_the_usual_one_is_short() {
        let plain = OperationRequest::default();
        assert_eq!(serde_json::to_value(&plain).expect("to JSON"), json!({}));
        let parameters = Parameters::parse(&json!({"T": {"a": 1}})).expect("well formed");
        let full = OperationRequest {
            parameters,
            request_id: Some("req-1".to_owned()),
            dry_run: true,
            test: true,
            thoroughness: Thoroughness::Sample { percent: 5 },
            source: None,
            elsewhere: true,
            undo: true,
        };
        let json = serde_json::to_value(&full).expect("to JSON");
        assert_eq!(json["thoroughness"], json!({"sample": {"percent": 5}}));
        assert_eq!(serde_json::from_value::<OperationRequest>(json).expect("read back"), full);
    }
}
