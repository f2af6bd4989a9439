//! Freeing: deletes what is gone, and what readers that have ended left.
//!
//! Only what is listed is deleted, and only if it is gone for ever; so this can be stopped, repeated, done by
//! several at once and done late. It goes over the whole account, not over one final list: what a delayed put
//! brought back of earlier sweeps is deleted again on the way.

use futures::StreamExt;
use karbor_bank::{Key, Meta};
use std::num::NonZeroUsize;

use crate::commits::{CommitKind, standing_of};
use crate::fold::epoch_of;
use crate::io::{self, Listing};
use crate::place::Area;
use crate::rule::{Rule, kept};
use crate::{
    Error, Gone, IndexOwner, Kind, PackName, Place, Result, SessionId, SweepEpoch, SweepReport, list_index,
};

const FREEING: &str = "deleting what is gone";

/// Deletes everything that is gone. Acknowledgements go through `decided`, whose final list stands.
pub(crate) async fn free(
    place: &Place,
    gone: &Gone,
    decided: Option<SweepEpoch>,
    parallel: NonZeroUsize,
    report: &mut SweepReport,
) -> Result<()> {
    let mut listing = Listing::of(place, Area::Packs, "listing packs");
    while let Some(page) = listing.next().await? {
        let freed = page.into_iter().filter(|meta| {
            io::name_of::<PackName>(place, Area::Packs, &meta.key).is_some_and(|pack| gone.contains(&pack))
        });
        let freed: Vec<Meta> = freed.collect();
        report.packs_freed += u64::try_from(freed.len()).unwrap_or(u64::MAX);
        report.bytes_freed += freed.iter().map(|meta| meta.size_bytes).sum::<u64>();
        delete_all(place, freed.into_iter().map(|meta| meta.key), parallel).await?;
    }
    let index = list_index(place).await?.into_iter().filter(|object| match object.owner {
        IndexOwner::Session(session) => gone.end(&session).is_some(),
        IndexOwner::Merge(_) => false,
    });
    let index: Vec<Key> = index.map(|object| object.key).collect();
    report.objects_freed += delete_all(place, index, parallel).await?;
    for area in [Area::Sessions, Area::Deleted] {
        report.objects_freed += free_area(place, area, gone, parallel).await?;
    }
    report.objects_freed += free_commits(place, gone, parallel).await?;
    if let Some(decided) = decided {
        report.objects_freed += free_acks(place, decided, parallel).await?;
    }
    Ok(())
}

/// Deletes the keys of sessions that are gone.
async fn free_area(place: &Place, area: Area, gone: &Gone, parallel: NonZeroUsize) -> Result<u64> {
    let mut freed = 0;
    let mut listing = Listing::of(place, area, FREEING);
    while let Some(page) = listing.next().await? {
        let keys = page.into_iter().map(|meta| meta.key).filter(|key| {
            io::name_of::<SessionId>(place, area, key).is_some_and(|session| gone.end(&session).is_some())
        });
        freed += delete_all(place, keys, parallel).await?;
    }
    Ok(freed)
}

/// Frees the commit keys of sessions that are gone, and forgets readers that have ended: first the session with its
/// pins, then the key that says that it has ended.
async fn free_commits(place: &Place, gone: &Gone, parallel: NonZeroUsize) -> Result<u64> {
    let mut freed = 0;
    let mut listing = Listing::of(place, Area::Commits, FREEING);
    while let Some(page) = listing.next().await? {
        let mut commits = Vec::new();
        let mut sessions = Vec::new();
        for meta in page {
            let Some(session) = io::name_of::<SessionId>(place, Area::Commits, &meta.key) else {
                continue;
            };
            if gone.end(&session).is_some() {
                commits.push(meta.key);
            } else if is_ended_reader(place, &meta).await? {
                sessions.push(place.session_key(&session));
                commits.push(meta.key);
            }
        }
        freed += delete_all(place, sessions, parallel).await?;
        freed += delete_all(place, commits, parallel).await?;
    }
    Ok(freed)
}

async fn is_ended_reader(place: &Place, meta: &Meta) -> Result<bool> {
    Ok(match standing_of(place, meta).await? {
        Some(CommitKind::Marker(marker)) => marker.of == Some(Kind::Reader) || !kept(Rule::ForgetOnlyReaders),
        _ => false,
    })
}

/// Deletes the acknowledgements of epochs whose final lists stand: nobody asks for them any more.
async fn free_acks(place: &Place, decided: SweepEpoch, parallel: NonZeroUsize) -> Result<u64> {
    let mut freed = 0;
    let mut listing = Listing::of(place, Area::Acks, FREEING);
    while let Some(page) = listing.next().await? {
        let old = |key: &Key| epoch_of(place, Area::Acks, key).is_some_and(|epoch| epoch <= decided);
        freed += delete_all(place, page.into_iter().map(|meta| meta.key).filter(old), parallel).await?;
    }
    Ok(freed)
}

/// Deletes objects, several at once, and returns how many.
async fn delete_all(
    place: &Place,
    keys: impl IntoIterator<Item = Key>,
    parallel: NonZeroUsize,
) -> Result<u64> {
    let deletions = keys.into_iter().map(|key| async move { place.bank().delete(&key).await });
    let mut deletions = futures::stream::iter(deletions).buffer_unordered(parallel.get());
    let mut deleted = 0;
    while let Some(deletion) = deletions.next().await {
        deletion.map_err(Error::bank(FREEING))?;
        deleted += 1;
    }
    Ok(deleted)
}
