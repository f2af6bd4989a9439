//! `karbor bank backup`

use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use karbor_tree::BackupOptions;
use karbor_types::{
    CheckpointId, CheckpointMetadata, Epoch, Graph, Parameters, PlanId, PlanRecord, ProjectId, ProviderId,
    ProviderRecord, Resource, ResourceKey,
};
use karbor_vault::{BeginOptions, BlockOptions, CheckpointInfo, CheckpointWriter, FileSource, SessionId};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::bank::meter::Meter;
use crate::bank::{Opening, latest, now};
use crate::client::{Output, bytes};

/// The type of a file or block device.
pub(crate) const DISK: &str = "Host::Disk";
/// The type of a directory.
pub(crate) const DIRECTORY: &str = "Host::Directory";
/// The name of a disk's only stream.
pub(crate) const DISK_STREAM: &str = "disk";

/// How to back up.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Go on past what may not be read, and report it
    #[arg(long)]
    skip_unreadable: bool,
    /// Leave out what is mounted below the directory
    #[arg(long)]
    one_file_system: bool,
    /// Read everything, also what seems unchanged since the last backup of this name
    #[arg(long)]
    force: bool,
    /// File with byte ranges that may have changed since the last backup, a line `OFFSET LENGTH` each; the rest is not read
    #[arg(long, value_name = "FILE")]
    changed_blocks: Option<std::path::PathBuf>,
}

pub(crate) async fn run(
    output: &Output,
    opening: &Opening,
    name: &str,
    path: &Path,
    options: &Options,
) -> Result<()> {
    let metadata = std::fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    let kind = match metadata.file_type() {
        kind if kind.is_dir() => DIRECTORY,
        kind if kind.is_file() || kind.is_block_device() => DISK,
        _ => bail!("{} is neither a file, a block device nor a directory", path.display()),
    };
    let account = opening.open().await?;
    let base = if options.force { None } else { latest(&account, name).await? };
    // The same name is the same resource from one backup to the next, in every account.
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("karbor bank {kind} {name}").as_bytes());
    let key = ResourceKey::new(kind, id.to_string());
    let checkpoint = CheckpointId(Uuid::now_v7());
    let session = SessionId::new(checkpoint.0, Epoch(1));
    let begin = BeginOptions { base: base.as_ref().map(|info| info.id) };
    let writer = account.begin(&session, &begin).await.context("beginning the backup")?;
    let cancel = CancellationToken::new();
    let meter = Meter::new(output);
    let work = async {
        let findings = store(&account, &writer, &key, path, base.as_ref(), options, &meter, &cancel).await?;
        let metadata = describe(opening, name, &key, path)?;
        let info = writer.commit(checkpoint, now(), metadata).await.context("committing the backup")?;
        anyhow::Ok((info, findings))
    };
    let stopping = async {
        // Without a handler there is nothing to wait for; the work goes on.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        cancel.cancel();
        std::future::pending::<()>().await;
    };
    let done = tokio::select! {
        done = work => done,
        () = stopping => bail!("stopped"),
    };
    meter.clear();
    let (info, findings) = match done {
        Ok(done) => done,
        Err(err) => {
            // What was stored is freed by the next sweep; that the session ended should be known soon.
            if let Err(abandon) = writer.abandon().await {
                tracing::debug!(error = &abandon as &dyn std::error::Error, "could not close the session");
            }
            return Err(err);
        }
    };
    let stats = writer.stats();
    if output.is_json() {
        return output.json(&json!({
            "checkpoint": info.id, "name": name, "logical_bytes": info.logical_bytes,
            "stored_bytes": stats.stored_bytes, "read_bytes": stats.read_bytes, "new_bytes": stats.new_bytes,
            "new_chunks": stats.new_chunks, "known_chunks": stats.known_chunks, "findings": findings}));
    }
    for finding in findings.as_array().into_iter().flatten() {
        let text = |member: &str| finding[member].as_str().unwrap_or_default();
        output.say(&format!("warning: {}: {}", text("path"), text("problem")))?;
    }
    output.say(&format!(
        "{} protected, {} read, {} added to the bank",
        bytes(info.logical_bytes),
        bytes(stats.read_bytes),
        bytes(stats.stored_bytes)
    ))?;
    output.line(&info.id.to_string())
}

#[expect(clippy::too_many_arguments, reason = "one call, of what was gathered in one place")]
async fn store(
    account: &karbor_vault::Account,
    writer: &CheckpointWriter,
    key: &ResourceKey,
    path: &Path,
    base: Option<&CheckpointInfo>,
    options: &Options,
    meter: &Arc<Meter>,
    cancel: &CancellationToken,
) -> Result<Value> {
    let resource = writer.resource(key);
    if key.kind.as_str() == DISK {
        let source = FileSource::open(path).with_context(|| format!("opening {}", path.display()))?;
        let block_options = BlockOptions {
            changed: options.changed_blocks.as_deref().map(read_ranges).transpose()?,
            progress: Some(meter.clone()),
            cancel: cancel.clone(),
            ..BlockOptions::default()
        };
        let stored = resource.put_blocks(DISK_STREAM, Arc::new(source), &block_options).await;
        stored.with_context(|| format!("backing up {}", path.display()))?;
        return Ok(json!([]));
    }
    if options.changed_blocks.is_some() {
        bail!("--changed-blocks is for files and block devices, and {} is a directory", path.display());
    }
    let base = match base {
        Some(info) => {
            Some(Arc::new(account.read(info.id).await.context("opening the last backup of this name")?))
        }
        None => None,
    };
    let tree_options = BackupOptions {
        base,
        skip_unreadable: options.skip_unreadable,
        one_file_system: options.one_file_system,
        progress: Some(meter.clone()),
        cancel: cancel.clone(),
    };
    let report = karbor_tree::backup(path, &resource, &tree_options).await;
    let report = report.with_context(|| format!("backing up {}", path.display()))?;
    resource.put_record("tree", serde_json::to_value(&report)?).context("keeping the report")?;
    Ok(serde_json::to_value(report.findings)?)
}

fn read_ranges(path: &Path) -> Result<Vec<std::ops::Range<u64>>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let mut ranges = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let mut words = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(offset)), Some(Ok(length)), None) = (words.next(), words.next(), words.next()) else {
            bail!("line {} of {} is not `OFFSET LENGTH` in bytes", number + 1, path.display());
        };
        ranges.push(offset..offset.saturating_add(length));
    }
    ranges.sort_by_key(|range| range.start);
    Ok(ranges)
}

/// Describes the checkpoint as the service describes its own, so that each shows the other's.
fn describe(opening: &Opening, name: &str, key: &ResourceKey, path: &Path) -> Result<Value> {
    let resource = Resource {
        key: key.clone(),
        name: name.to_owned(),
        extra_info: json!({"path": path.to_string_lossy()}),
    };
    let graph = Graph::build(std::slice::from_ref(&resource), &std::collections::HashMap::new())?;
    let project = ProjectId::new(opening.account.as_str())?;
    let plan = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("karbor bank {project} {name}").as_bytes());
    let metadata = CheckpointMetadata {
        format: CheckpointMetadata::FORMAT,
        project,
        provider: ProviderRecord { id: ProviderId(Uuid::nil()), name: "karbor bank".to_owned() },
        plan: PlanRecord {
            id: PlanId(plan),
            name: name.to_owned(),
            resources: vec![resource],
            parameters: Parameters::default(),
        },
        extra_info: Map::from_iter([("created_by".to_owned(), json!("karbor bank"))]),
        graph: graph.pack(),
        parameters: BTreeMap::new(),
        plugins: BTreeMap::new(),
    };
    Ok(metadata.to_json())
}
