//! Verify: the data engine looks at every stream, then each plugin at its resource.

use std::sync::Arc;

use karbor_plugin::{Finding, Hook, Severity};
use karbor_types::{ResourceKey, Thoroughness};
use karbor_vault::{CopyOptions, DamagedRange, VerifyMode, VerifyReport};
use serde_json::json;

use crate::attempt::{Attempt, End};
use crate::cleanup::Goes;
use crate::crash::Place;
use crate::drive::Drive;
use crate::outcome::{Member, ResourceFailure};
use crate::restore::{Opened, close, drive, ending, open};
use crate::stop::{Failure, Stop};

pub(crate) async fn run(attempt: &Arc<Attempt>) -> Result<(), Stop> {
    let opened = open(attempt).await?;
    let end = verify(attempt, &opened).await;
    close(attempt, opened.reader).await;
    let end = end?;
    attempt.pass(Place::Closed).await;
    attempt.finish(end).await
}

async fn verify(attempt: &Arc<Attempt>, opened: &Opened) -> Result<End, Stop> {
    let parameters = match attempt.operation.verification {
        Some(id) if attempt.request.parameters.is_empty() => {
            attempt.store(|| attempt.shared.store.get_verification(id)).await?.parameters
        }
        _ => attempt.request.parameters.clone(),
    };
    let report = look(attempt, opened).await?;
    attempt.pass(Place::Checked).await;
    let mut drive = drive(attempt, opened, &parameters).await?;
    drive.run().await?;
    drive.clean_up(Goes::Scaffolds).await?;
    let lost = blame(&mut drive, &report.damaged);
    let mut end = ending(&drive, Some(("data", json!(report))));
    if end.failure.is_none() && !report.is_whole() {
        end.failure = Some(lost.unwrap_or_else(unnamed_damage));
        if let karbor_store::SubjectChange::Run(change) = &mut end.subject {
            change.event = Some(karbor_types::RunEvent::Failed);
        }
    }
    Ok(end)
}

/// What is said of damage that no resource has.
pub(crate) fn unnamed_damage() -> Failure {
    Failure::new(karbor_plugin::ErrorKind::Damaged, "data that no resource names is damaged")
}

/// Lets the data engine look, as thoroughly as was asked for.
pub(crate) async fn look(attempt: &Attempt, opened: &Opened) -> Result<VerifyReport, Stop> {
    let mode = match attempt.request.thoroughness {
        Thoroughness::Structure => VerifyMode::Structure,
        Thoroughness::Sample { percent } => VerifyMode::Sample {
            fraction: f64::from(percent.min(100)) / 100.0,
            // Every verification reads other chunks; a repeated attempt of one reads the same.
            seed: attempt.operation.id.as_uuid().as_u64_pair().1,
        },
        Thoroughness::All => VerifyMode::All,
    };
    let lease = &attempt.lease;
    let options = CopyOptions { progress: None, cancel: lease.cancelled.child_token() };
    tokio::select! {
        report = opened.reader.verify(mode, &options) => Ok(report?),
        () = lease.lost.cancelled() => Err(Stop::LeaseLost),
        () = lease.drained.cancelled() => Err(Stop::Drained),
    }
}

/// Lets the resources whose data is damaged fail with what is lost of them.
pub(crate) fn blame(drive: &mut Drive, damaged: &[DamagedRange]) -> Option<Failure> {
    let mut first = None;
    for member in &mut drive.members {
        let own: Vec<&DamagedRange> =
            damaged.iter().filter(|range| range.resource.as_ref() == Some(member.key())).collect();
        if own.is_empty() {
            continue;
        }
        let message = blamed(member, &own);
        let failure = Failure::new(karbor_plugin::ErrorKind::Damaged, message.clone());
        first.get_or_insert_with(|| failure.of(member.key()));
        let kind = karbor_plugin::ErrorKind::Damaged;
        member.failure.get_or_insert(ResourceFailure { hook: Hook::Main, kind, message });
    }
    first
}

/// How many damaged ranges of a resource are told one by one.
const TOLD: usize = 100;

fn blamed(member: &mut Member, ranges: &[&DamagedRange]) -> String {
    let stream = |range: &DamagedRange| range.stream.clone().unwrap_or_else(|| "a stream".to_owned());
    for range in ranges.iter().take(TOLD) {
        let message =
            format!("bytes {} to {} cannot be read: {}", range.range.start, range.range.end, range.reason);
        member.findings.push(Finding { severity: Severity::Error, subject: stream(range), message });
    }
    let bytes: u64 = ranges.iter().map(|range| range.range.end.saturating_sub(range.range.start)).sum();
    let key: &ResourceKey = member.key();
    format!(
        "{bytes} bytes of {key} cannot be restored, the first at {} of stream {}: {}",
        ranges[0].range.start,
        stream(ranges[0]),
        ranges[0].reason
    )
}
