//! Commit records: between what lies in the bank and what callers see.

use std::collections::BTreeMap;

use karbor_chunk::{AccountKey, CommitRecord, ResourceRecord};
use karbor_sweep::SessionId;
use karbor_types::{CheckpointId, Instant, ResourceKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::index::format_session;
use crate::{CheckpointInfo, Error, Result, StreamRecord};

/// The records and streams of one resource.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Resource {
    pub(crate) records: BTreeMap<String, Value>,
    pub(crate) streams: BTreeMap<String, StreamRecord>,
}

/// How a resource's key is spelled in a commit record: a list of two, because both parts may hold any characters.
#[derive(Serialize, Deserialize)]
struct Spelled(String, String);

/// Opens the record of a session.
pub(crate) fn open(key: &AccountKey, session: &SessionId, bytes: &[u8]) -> Result<CommitRecord> {
    let opened = CommitRecord::open(key, &format_session(session), bytes);
    opened.map_err(|err| Error::chunk(format!("the commit record of session {session}"), err))
}

/// Returns what listings tell.
pub(crate) fn info(session: &SessionId, commit: &CommitRecord) -> CheckpointInfo {
    let streams = || commit.resources.iter().flat_map(|resource| resource.streams.values());
    CheckpointInfo {
        id: CheckpointId(commit.checkpoint),
        session: session.to_string(),
        created_at: Instant::from_micros(commit.created_at),
        metadata: commit.metadata.clone(),
        logical_bytes: streams().map(|stream| stream.root.size_bytes).sum(),
        stored_bytes: streams().map(|stream| stream.stats.stored_bytes).sum(),
    }
}

/// Returns the resources of a record.
pub(crate) fn resources(commit: CommitRecord) -> Result<BTreeMap<ResourceKey, Resource>> {
    let mut all = BTreeMap::new();
    for resource in commit.resources {
        let Spelled(kind, id) = serde_json::from_str(&resource.key)
            .map_err(|_| Error::damaged(format!("the commit record: resource `{}`", resource.key)))?;
        let streams = resource.streams.into_iter().map(|(name, stream)| (name, stream.into()));
        let found = Resource { records: resource.records, streams: streams.collect() };
        all.insert(ResourceKey::new(kind.as_str(), id), found);
    }
    Ok(all)
}

/// Writes resources as a record has them.
pub(crate) fn to_records<'r>(
    resources: impl Iterator<Item = (&'r ResourceKey, &'r Resource)>,
) -> Vec<ResourceRecord> {
    let spell = |(key, resource): (&ResourceKey, &Resource)| ResourceRecord {
        key: serde_json::json!([key.kind.as_str(), key.id]).to_string(),
        records: resource.records.clone(),
        streams: resource.streams.iter().map(|(name, stream)| (name.clone(), (*stream).into())).collect(),
    };
    resources.map(spell).collect()
}
