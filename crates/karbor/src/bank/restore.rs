//! `karbor bank restore`

use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use karbor_tree::{Overwrite, RestoreOptions};
use karbor_types::ResourceKey;
use karbor_vault::{CheckpointReader, CopyOptions, FileTarget};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::bank::meter::Meter;
use crate::bank::{Damage, Opening, find};
use crate::client::{Output, bytes};

/// How to restore.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Only what is at or below this path of the backed-up directory
    #[arg(long, value_name = "PATH")]
    path: Option<PathBuf>,
    /// Replace what is there
    #[arg(long)]
    overwrite: bool,
    /// Which resource of the checkpoint, by id; needed when it has several
    #[arg(long, value_name = "ID")]
    resource: Option<String>,
}

pub(crate) async fn run(
    output: &Output,
    opening: &Opening,
    text: &str,
    target: &Path,
    options: &Options,
) -> Result<()> {
    let account = opening.open().await?;
    let id = find(&account, text).await?.id;
    let reader = account.read(id).await.with_context(|| format!("opening checkpoint {id}"))?;
    let meter = Meter::new(output);
    let done = restore(&reader, target, options, &meter).await;
    meter.clear();
    let closed = reader.close().await;
    let (size, problems) =
        done.with_context(|| format!("restoring checkpoint {id} to {}", target.display()))?;
    closed.context("closing the reading session")?;
    if output.is_json() {
        output.json(&json!({"checkpoint": id, "size_bytes": size, "problems": problems}))?;
    }
    for problem in &problems {
        output.say(&format!("damaged: {problem}"))?;
    }
    if !problems.is_empty() {
        return Err(Damage(format!(
            "{} things could not be restored as they were; the rest was",
            problems.len()
        ))
        .into());
    }
    output.say(&format!("Restored {} to {}", bytes(size), target.display()))
}

async fn restore(
    reader: &CheckpointReader,
    target: &Path,
    options: &Options,
    meter: &Arc<Meter>,
) -> Result<(u64, Vec<String>)> {
    let key = choose(reader, options.resource.as_deref())?;
    let is_tree = reader.stream_names(&key).any(|name| name == karbor_tree::ENTRIES);
    if is_tree {
        let only = options.path.clone().map(|path| {
            let bytes = path.into_os_string().into_vec();
            let text = bytes.strip_prefix(b"./").unwrap_or(&bytes);
            let start = text.iter().position(|byte| *byte != b'/').unwrap_or(text.len());
            let end = text.iter().rposition(|byte| *byte != b'/').map_or(start, |last| last + 1);
            text[start..end].to_vec()
        });
        let restore_options = RestoreOptions {
            overwrite: if options.overwrite { Overwrite::Replace } else { Overwrite::Refuse },
            only: only.clone(),
            owners: is_root(),
            progress: Some(meter.clone()),
            cancel: CancellationToken::new(),
        };
        let report =
            karbor_tree::restore(reader, &key, target, &restore_options).await.map_err(hint_overwrite)?;
        if let (Some(path), 0..=1) =
            (&options.path, report.files + report.symlinks + report.hard_links + report.directories)
            && report.files + report.symlinks + report.hard_links == 0
        {
            bail!("the checkpoint has nothing at {}", path.display());
        }
        let problems = report.findings.iter().map(|finding| format!("{}: {}", finding.path, finding.problem));
        return Ok((report.size_bytes, problems.collect()));
    }
    if options.path.is_some() {
        bail!("--path is for directories, and this checkpoint is of a file or block device");
    }
    let names: Vec<&str> = reader.stream_names(&key).collect();
    let [name] = names.as_slice() else {
        bail!("{key} has {} streams and is restored by the service only", names.len());
    };
    let exists = target.exists();
    if exists && !options.overwrite {
        bail!("{} exists: name another target, or replace it with --overwrite", target.display());
    }
    let stream = reader.open_stream(&key, name).await.context("opening the stream")?;
    let file = FileTarget::create(target).with_context(|| format!("opening {}", target.display()))?;
    let copy_options = CopyOptions { progress: Some(meter.clone()), ..CopyOptions::default() };
    let copied = stream.copy_to(Arc::new(file), &copy_options).await?;
    let problems = copied
        .damaged
        .iter()
        .map(|damaged| format!("bytes {} to {}: {}", damaged.range.start, damaged.range.end, damaged.reason));
    Ok((copied.size_bytes, problems.collect()))
}

fn choose(reader: &CheckpointReader, id: Option<&str>) -> Result<ResourceKey> {
    let all: Vec<&ResourceKey> =
        reader.resources().filter(|key| reader.stream_names(key).next().is_some()).collect();
    let fits: Vec<&&ResourceKey> = all.iter().filter(|key| id.is_none_or(|id| key.id == id)).collect();
    match fits.as_slice() {
        [one] => Ok((**one).clone()),
        _ => {
            let all: Vec<String> = all.iter().map(ToString::to_string).collect();
            bail!("choose one of the checkpoint's resources with --resource ID: {}", all.join(", "))
        }
    }
}

fn hint_overwrite(err: karbor_tree::Error) -> anyhow::Error {
    let hint = matches!(err, karbor_tree::Error::TargetExists { .. });
    let err = anyhow::Error::new(err);
    if hint {
        err.context("name another target, or replace files of the same names with --overwrite")
    } else {
        err
    }
}

/// Only root can give files to others.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Makes a list of damaged parts for programs.
pub(crate) fn damage_rows(damaged: &[karbor_vault::DamagedRange]) -> Value {
    serde_json::to_value(damaged).unwrap_or(Value::Null)
}
