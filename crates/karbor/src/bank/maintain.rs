//! `karbor bank verify|scrub|copy|sweep|stats|rotate|rebuild-index`

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;
use karbor_types::{AccountId, CheckpointId, Epoch};
use karbor_vault::{CopyCheckpoint, CopyOptions, ScrubOptions, SessionId, SweepOptions, VerifyMode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::bank::meter::Meter;
use crate::bank::restore::damage_rows;
use crate::bank::{Damage, Opening, Place, find, name_of, now};
use crate::client::{Output, bytes};
use crate::key;

/// How to scrub.
#[derive(Debug, Clone, Args)]
pub(crate) struct ScrubArguments {
    /// File that notes how far the scrub came and when each object was last checked
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Only this account
    #[arg(long, value_name = "ACCOUNT")]
    account: Option<AccountId>,
    /// Pass over objects that were checked within so many days (needs --state)
    #[arg(long, value_name = "DAYS", requires = "state")]
    older_than: Option<u32>,
    /// Read at most so many MiB a second
    #[arg(long, value_name = "MIB")]
    limit: Option<u64>,
}

/// How to sweep.
#[derive(Debug, Clone, Args)]
pub(crate) struct SweepArguments {
    /// End sessions that are silent: only when no other backup into this account is running
    #[arg(long)]
    end_silent_sessions: bool,
    /// Rewrite packs of which so many percent are not needed any more
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u8).range(1..=100))]
    rewrite: u8,
}

pub(crate) async fn verify(
    output: &Output,
    opening: &Opening,
    checkpoint: Option<&str>,
    read_data: bool,
) -> Result<()> {
    let account = opening.open().await?;
    let checkpoints = match checkpoint {
        Some(text) => vec![find(&account, text).await?],
        None => account.checkpoints().await.context("listing the checkpoints")?,
    };
    let mode = if read_data { VerifyMode::All } else { VerifyMode::Structure };
    let (mut rows, mut damaged) = (Vec::new(), 0);
    for info in &checkpoints {
        let meter = Meter::new(output);
        let options = CopyOptions { progress: Some(meter.clone()), ..CopyOptions::default() };
        let report = account.verify(info.id, mode, &options).await;
        meter.clear();
        let report = report.with_context(|| format!("verifying checkpoint {}", info.id))?;
        for part in &report.damaged {
            let of = part.resource.as_ref().map(ToString::to_string).unwrap_or_default();
            let stream = part.stream.as_deref().unwrap_or("?");
            let range = format!("bytes {} to {}", part.range.start, part.range.end);
            output.say(&format!(
                "damaged: checkpoint {}, {of}, stream {stream}, {range}: {}",
                info.id, part.reason
            ))?;
        }
        damaged += usize::from(!report.is_whole());
        let verdict = if report.is_whole() { "whole" } else { "damaged" };
        rows.push(json!({
            "id": info.id, "name": name_of(info), "verdict": verdict, "chunks": report.chunks,
            "read": bytes(report.read_bytes), "read_bytes": report.read_bytes, "damaged": damage_rows(&report.damaged)}));
    }
    let columns =
        [("ID", "id"), ("Name", "name"), ("Verdict", "verdict"), ("Chunks", "chunks"), ("Read", "read")];
    output.list(&rows, &columns)?;
    if damaged > 0 {
        return Err(Damage(format!("{damaged} of {} checkpoints are damaged", checkpoints.len())).into());
    }
    Ok(())
}

pub(crate) async fn scrub(output: &Output, place: &Place, arguments: &ScrubArguments) -> Result<()> {
    let bank = place.open().await?;
    let meter = Meter::new(output);
    let options = ScrubOptions {
        state: arguments.state.clone(),
        account: arguments.account.clone(),
        now: now(),
        checked_before: arguments.older_than.map(|days| now().plus_seconds(-i64::from(days) * 86_400)),
        bytes_per_second: arguments.limit.map(|limit| limit.saturating_mul(1 << 20)),
        threads: std::thread::available_parallelism().unwrap_or(std::num::NonZeroUsize::MIN),
        progress: Some(meter.clone()),
        cancel: CancellationToken::new(),
    };
    let report = karbor_vault::scrub(bank, &options).await;
    meter.clear();
    let report = report.with_context(|| format!("scrubbing {}", place.url))?;
    if output.is_json() {
        output.json(&serde_json::to_value(&report)?)?;
    }
    for (object, reason) in &report.damaged {
        output.say(&format!("damaged: {object}: {reason}"))?;
    }
    output.say(&format!("Checked {} objects, {}", report.objects, bytes(report.bytes)))?;
    if !report.damaged.is_empty() {
        let text = format!(
            "{} objects are damaged; the next backups store anew what they held",
            report.damaged.len()
        );
        return Err(Damage(text).into());
    }
    Ok(())
}

pub(crate) async fn copy(
    output: &Output,
    opening: &Opening,
    checkpoint: &str,
    target: &Opening,
) -> Result<()> {
    let account = opening.open().await?;
    let to = target.open().await?;
    let info = find(&account, checkpoint).await?;
    // The same copy has the same id, so that a second one finds the first instead of repeating it.
    let text = format!("karbor bank copy {} {} {}", info.id, target.place.url, target.account);
    let new_id = CheckpointId(Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()));
    if let Some(there) = to.find(new_id).await.context("looking for an earlier copy")? {
        output.say("It has been copied there before")?;
        return output.line(&there.id.to_string());
    }
    let meter = Meter::new(output);
    let request = CopyCheckpoint {
        new_id,
        created_at: info.created_at,
        metadata: None,
        progress: Some(meter.clone()),
        cancel: CancellationToken::new(),
    };
    let mut epoch = 1;
    let copied = loop {
        let session = SessionId::new(new_id.0, Epoch(epoch));
        match account.copy(info.id, &to, &session, &request).await {
            // An earlier attempt of this copy left its session behind.
            Err(err) if err.kind() == karbor_vault::ErrorKind::Fenced && epoch < 1000 => epoch += 1,
            other => break other,
        }
    };
    meter.clear();
    let copied = copied.with_context(|| format!("copying checkpoint {} to {}", info.id, target.place.url))?;
    if output.is_json() {
        return output.json(&serde_json::to_value(&copied)?);
    }
    output.say(&format!(
        "Copied {}, {} added there",
        bytes(copied.logical_bytes),
        bytes(copied.stored_bytes)
    ))?;
    output.line(&copied.id.to_string())
}

pub(crate) async fn sweep(output: &Output, opening: &Opening, arguments: &SweepArguments) -> Result<()> {
    let account = opening.open().await?;
    let end = arguments.end_silent_sessions;
    let may_fence: Arc<dyn Fn(&str) -> bool + Send + Sync> = Arc::new(move |_| end);
    let options = SweepOptions {
        may_fence: Some(may_fence),
        rewrite_dead_percent: Some(arguments.rewrite),
        cancel: CancellationToken::new(),
        ..SweepOptions::default()
    };
    let report = account.sweep(&options).await.context("sweeping")?;
    if output.is_json() {
        return output.json(&serde_json::to_value(&report)?);
    }
    output.say(&format!(
        "Freed {} in {} packs, rewrote {} packs",
        bytes(report.deleted_bytes),
        report.deleted_packs,
        report.rewritten_packs
    ))?;
    if !report.finished {
        let waiting = report.waiting_for.join(", ");
        output.say(&format!(
            "The sweep waits for backups that are running: {waiting}\n\
             They answer by themselves; if they are dead, run it again with --end-silent-sessions"
        ))?;
    }
    Ok(())
}

pub(crate) async fn stats(output: &Output, opening: &Opening) -> Result<()> {
    let account = opening.open().await?;
    let stats = account.stats().await.context("looking through the account")?;
    let mut value = serde_json::to_value(&stats)?;
    if output.is_json() {
        value["ratio"] = json!(stats.ratio());
        return output.json(&value);
    }
    let row = |name: &str, value: String| json!({"name": name, "value": value});
    let rows: Vec<Value> = vec![
        row("Checkpoints", stats.checkpoints.to_string()),
        row("Protected in all checkpoints", bytes(stats.logical_bytes)),
        row("Chunks", stats.chunks.to_string()),
        row("Packs", stats.packs.to_string()),
        row("Stored chunks", bytes(stats.stored_bytes)),
        row("Not needed any more", bytes(stats.dead_bytes)),
        row("All objects", bytes(stats.total_bytes)),
        row("Protected to stored", format!("{:.2}", stats.ratio())),
    ];
    output.list(&rows, &[("What", "name"), ("How much", "value")])
}

pub(crate) async fn rotate(output: &Output, opening: &Opening, new_key_file: &Path) -> Result<()> {
    let account = opening.open().await?;
    let old = key::read(opening.key_file.as_deref())?;
    let (new, made) = key::read_or_make(Some(new_key_file))?;
    account.rotate(&[old], &new).await.context("changing the master key")?;
    if made {
        output
            .say(&format!("Made the master key {}: keep a copy of it elsewhere", new_key_file.display()))?;
    }
    output.say(&format!("Account {} is opened by the new key only", opening.account))
}

pub(crate) async fn rebuild_index(output: &Output, opening: &Opening) -> Result<()> {
    let account = opening.open().await?;
    let report = account.rebuild_index().await.context("building the index again")?;
    if output.is_json() {
        output.json(&serde_json::to_value(&report)?)?;
    }
    for (pack, reason) in &report.damaged {
        output.say(&format!("damaged: {pack}: {reason}"))?;
    }
    output.say(&format!("Looked at {} packs, added {} to the index", report.packs, report.added_packs))?;
    if !report.damaged.is_empty() {
        return Err(Damage(format!("{} packs are damaged", report.damaged.len())).into());
    }
    Ok(())
}
