//! A sweep of an account: the protocol, then rewriting what is mostly dead, then merging small index objects.

use std::sync::Arc;

use async_trait::async_trait;
use karbor_sweep::{Patience, Progress, SessionId, SessionRecord, Sweeper};

use crate::account::Shared;
use crate::maintain::mark::{Marked, Reach};
use crate::maintain::{MayFence, SweepOptions, SweepReport, merge, rewrite};
use crate::{Error, Result, bad};

/// A pack is rewritten when at least this part of it is dead.
const REWRITE_DEAD_PERCENT: u8 = 50;

/// Sweeps.
pub(crate) async fn sweep(shared: &Arc<Shared>, options: &SweepOptions) -> Result<SweepReport> {
    let reach = Reach::new(shared.clone(), options.cancel.clone());
    let patience = Asked { may_fence: options.may_fence.clone() };
    let how = karbor_sweep::SweepOptions {
        by: shared.options.by.clone(),
        despite_missing_chunks: options.despite_missing_chunks,
        ..karbor_sweep::SweepOptions::default()
    };
    let sweeper = Sweeper::new(&shared.place, &reach, &patience, how);
    let swept = sweeper.sweep(shared.random_uuid()?).await.map_err(Error::protocol)?;
    let mut report = SweepReport {
        epoch: swept.epoch.map_or(0, |epoch| u64::from(epoch.0)),
        finished: swept.progress != Progress::Waiting,
        waiting_for: swept.waiting_for.iter().map(SessionId::to_string).collect(),
        fenced: swept.fenced.iter().map(SessionId::to_string).collect(),
        deleted_packs: swept.packs_freed,
        deleted_bytes: swept.bytes_freed,
        ..SweepReport::default()
    };
    let Some(marked) = reach.take() else { return Ok(report) };
    if swept.progress == Progress::Waiting {
        return Ok(report);
    }
    for pack in &marked.bad_gone {
        bad::unmark(&shared.place, pack).await?;
    }
    let percent = options.rewrite_dead_percent.unwrap_or(REWRITE_DEAD_PERCENT);
    let dead = mostly_dead(&marked, percent);
    if !dead.is_empty() {
        report.rewritten_packs = dead.len() as u64;
        rewrite::rewrite(shared, &marked, &dead, &options.cancel).await?;
    }
    drop(marked);
    merge::merge(shared, &options.cancel).await?;
    Ok(report)
}

/// Returns the packs that are worth rewriting, by number.
fn mostly_dead(marked: &Marked, percent: u8) -> Vec<u32> {
    let mut dead = Vec::new();
    for (number, fill) in (0..).zip(&marked.fills) {
        let index = number as usize;
        let kept = marked.chosen_bytes[index];
        let is_dead =
            u128::from(fill.total_bytes - kept) * 100 >= u128::from(fill.total_bytes) * u128::from(percent);
        // What keeps nothing is not rewritten but swept.
        if marked.standing[index] && kept > 0 && is_dead && kept < fill.total_bytes {
            dead.push(number);
        }
    }
    dead
}

/// Lets the caller decide whom to fence.
struct Asked {
    may_fence: Option<MayFence>,
}

#[async_trait]
impl Patience for Asked {
    async fn may_fence(&self, session: &SessionId, _record: &SessionRecord) -> bool {
        self.may_fence.as_ref().is_some_and(|may| may(&session.to_string()))
    }
}
