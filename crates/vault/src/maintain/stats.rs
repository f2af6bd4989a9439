//! What an account holds.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::bad::BadChunks;
use crate::index::blocking;
use crate::maintain::AccountStats;
use crate::maintain::mark::{Marker, fills, streams_of};
use crate::{Account, Error, Result};

/// Counts what an account holds.
pub(crate) async fn stats(account: &Account) -> Result<AccountStats> {
    let shared = &account.shared;
    let mut stats = AccountStats::default();
    let bad = BadChunks::read(&shared.place).await?;
    let living = karbor_sweep::living_commits(&shared.place).await.map_err(Error::protocol)?;
    let marker = Marker::begin(shared.clone(), Arc::new(bad), CancellationToken::new()).await?;
    for session in living {
        let Some(streams) = streams_of(shared, &session).await? else { continue };
        stats.checkpoints += 1;
        stats.logical_bytes += streams.iter().map(|stream| stream.size_bytes).sum::<u64>();
        marker.mark(streams).await?;
    }
    let (snapshot, counting) = (marker.snapshot.clone(), shared.clone());
    let fills = blocking(move || fills(&snapshot, &counting)).await??;
    stats.chunks = marker.snapshot.run.len();
    let prefix = format!("{}/", shared.place.prefix());
    let packs = format!("{prefix}packs/");
    let mut after = None;
    loop {
        let page = shared.bank.list(&prefix, after.as_ref(), 1000).await;
        let page = page.map_err(|err| Error::bank("listing the account", err))?;
        for meta in &page {
            stats.total_bytes += meta.size_bytes;
            if meta.key.as_str().starts_with(&packs) {
                stats.packs += 1;
                stats.stored_bytes += meta.size_bytes;
            }
        }
        if page.len() < 1000 {
            break;
        }
        after = page.into_iter().next_back().map(|meta| meta.key);
    }
    let reached: u64 = fills.iter().map(|fill| fill.reached_bytes).sum();
    let total: u64 = fills.iter().map(|fill| fill.total_bytes).sum();
    stats.dead_bytes = (total - reached).min(stats.stored_bytes);
    Ok(stats)
}
