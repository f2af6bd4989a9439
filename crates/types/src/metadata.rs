//! What a checkpoint's commit record says beside the resources' records and streams: format 1.
//!
//! It is all that a restore needs and that a lost database is rebuilt from, and it lies in banks for years. So
//! it has a number, a page (`docs/checkpoint-metadata.md`) and a golden file, and nothing in it is ever
//! renamed: members are added, or the number changes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    Graph, GraphError, PackedGraph, Parameters, PlanId, ProjectId, ProviderId, Resource, ResourceType,
};

/// The metadata of a commit record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointMetadata {
    /// The number of this format: [`CheckpointMetadata::FORMAT`].
    pub format: u32,
    /// The project that the checkpoint belongs to.
    pub project: ProjectId,
    /// The provider that made it.
    pub provider: ProviderRecord,
    /// The plan as it was.
    pub plan: PlanRecord,
    /// What its maker told about it.
    #[serde(default)]
    pub extra_info: Map<String, Value>,
    /// The resources and what depends on what.
    pub graph: PackedGraph,
    /// For each resource (`<type>#<id>`) the parameters it was protected with: resolved, defaults filled in.
    #[serde(default)]
    pub parameters: BTreeMap<String, Map<String, Value>>,
    /// For each type the plugin that protected it.
    #[serde(default)]
    pub plugins: BTreeMap<ResourceType, PluginRecord>,
}

/// The provider that made a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderRecord {
    /// Its id.
    pub id: ProviderId,
    /// Its name.
    #[serde(default)]
    pub name: String,
}

/// The plan that a checkpoint was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRecord {
    /// Its id.
    pub id: PlanId,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its resources, as the tenant picked them.
    pub resources: Vec<Resource>,
    /// Its parameters, as the tenant gave them.
    #[serde(default)]
    pub parameters: Parameters,
}

/// The plugin that protected a type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginRecord {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Why metadata cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// It was written by a newer program, or by none that we know.
    #[error(
        "the checkpoint's metadata has format {found}, and this program knows {}",
        CheckpointMetadata::FORMAT
    )]
    UnknownFormat {
        /// The number that stands there, or what stands in its place.
        found: String,
    },
    /// It does not follow its format.
    #[error("the checkpoint's metadata is malformed: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
}

impl CheckpointMetadata {
    /// The format that this program writes.
    pub const FORMAT: u32 = 1;

    /// Reads metadata as it lies in a commit record.
    ///
    /// # Errors
    /// [`MetadataError`].
    pub fn from_json(value: &Value) -> Result<Self, MetadataError> {
        let found = &value["format"];
        if found.as_u64() != Some(u64::from(Self::FORMAT)) {
            return Err(MetadataError::UnknownFormat { found: found.to_string() });
        }
        let malformed = |reason: String| MetadataError::Malformed { reason };
        let metadata: Self =
            serde_json::from_value(value.clone()).map_err(|err| malformed(err.to_string()))?;
        metadata.graph().map_err(|err| malformed(err.to_string()))?;
        Ok(metadata)
    }

    /// Returns the metadata as it goes into a commit record.
    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("maps with text keys, texts and numbers are always JSON")
    }

    /// Returns the resources and what depends on what.
    ///
    /// # Errors
    /// [`GraphError`] when the graph is malformed; one that was read by [`CheckpointMetadata::from_json`] is not.
    pub fn graph(&self) -> Result<Graph, GraphError> {
        Graph::unpack(&self.graph)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const GOLDEN: &str = include_str!("../golden/checkpoint-metadata-1.json");

    #[test]
    fn format_1_is_read_and_written_as_ever() {
        let value: Value = serde_json::from_str(GOLDEN).expect("the golden file is JSON");
        let metadata = CheckpointMetadata::from_json(&value).expect("format 1");
        assert_eq!(metadata.plan.name, "My 3 tier application");
        assert_eq!(metadata.graph().expect("well formed").len(), 3);
        assert_eq!(metadata.to_json(), value);
    }

    #[test]
    fn other_formats_and_broken_graphs_are_refused() {
        for value in [json!(null), json!({}), json!({"format": 2}), json!({"format": "1"})] {
            let err = CheckpointMetadata::from_json(&value).expect_err("no format 1");
            assert!(matches!(err, MetadataError::UnknownFormat { .. }), "{err}");
        }
        let mut value: Value = serde_json::from_str(GOLDEN).expect("the golden file is JSON");
        value["graph"][1] = json!([["0x7", ["0x0"]]]);
        let err = CheckpointMetadata::from_json(&value).expect_err("an edge from nowhere");
        assert!(err.to_string().contains("0x7"), "{err}");
    }
}
