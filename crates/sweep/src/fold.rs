//! Folding: many small lists of what is gone become one.
//!
//! Why nothing is lost: the folded objects hold all that the removed ones held, and they are put before those are
//! removed; the one that says through which epoch is put last. A folded object's key has a UUID of its own run, so
//! no key is put twice, and a remover that was delayed removes what others stand for already, for ever.
//! Several may fold at once: each removes only what it read, and all of that is in what it put.

use karbor_bank::Key;
use uuid::Uuid;

use crate::doomed::{Names, PAGE};
use crate::gone::Folded;
use crate::io::{self, Listing};
use crate::place::Area;
use crate::record::{FORMAT, to_json};
use crate::rule::{Rule, kept};
use crate::{Gone, Place, Result, SweepEpoch};

const PUTTING: &str = "putting what is folded";
const REMOVING: &str = "removing what was folded";

/// What folding did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FoldReport {
    /// Final lists that were folded.
    pub lists: u64,
    /// Objects that were removed.
    pub objects_freed: u64,
}

/// Folds the final lists of all done epochs into one object, and removes what it stands for.
///
/// `run` is a new random UUID for every call.
///
/// # Errors
/// What the bank says. After an error, fold again under a new UUID.
pub async fn fold(place: &Place, run: Uuid) -> Result<FoldReport> {
    let mut gone = Gone::read(place).await?;
    let done = done_epochs(place, gone.folded_through()).await?;
    let Some(newest) = done.last().copied() else {
        return Ok(FoldReport::default());
    };
    // The final list of an epoch stands before the epoch is done, so now they are all in here. Another may have
    // folded meanwhile, and further: what replaces his fold says so too.
    gone.refresh(place).await?;
    let through = gone.folded_through().map_or(newest, |folded| folded.max(newest));
    if kept(Rule::FoldBeforeRemove) {
        put_folded(place, run, &gone, through).await?;
    }
    let mut report = FoldReport { lists: done.len().try_into().unwrap_or(u64::MAX), objects_freed: 0 };
    for key in gone.folded() {
        io::remove(place, key, REMOVING).await?;
        report.objects_freed += 1;
    }
    report.objects_freed += remove_epochs(place, Area::Lists, through).await?;
    report.objects_freed += remove_epochs(place, Area::Acks, through).await?;
    if !kept(Rule::FoldBeforeRemove) {
        put_folded(place, run, &gone, through).await?;
    }
    Ok(report)
}

/// Returns the epochs that are done and not folded.
pub(crate) async fn done_epochs(place: &Place, folded: Option<SweepEpoch>) -> Result<Vec<SweepEpoch>> {
    let after = folded.map(|epoch| place.done_key(epoch));
    let listed = Listing::of(place, Area::Done, "listing done sweeps").after(after).all().await?;
    Ok(listed.iter().filter_map(|meta| io::name_of(place, Area::Done, &meta.key)).collect())
}

async fn put_folded(place: &Place, run: Uuid, gone: &Gone, through: SweepEpoch) -> Result<()> {
    let mut pieces = Names::pieces(gone.doomed(), PAGE).peekable();
    let mut part = 0;
    while let Some(names) = pieces.next() {
        let last = pieces.peek().is_none();
        let folded = Folded { format: FORMAT, through: last.then_some(through), names };
        io::put_once(place, &place.folded_key(&run, part), &to_json(&folded), PUTTING).await?;
        part += 1;
    }
    Ok(())
}

/// Removes the objects of done and folded epochs that lie below `<area>/<epoch>/`.
async fn remove_epochs(place: &Place, area: Area, through: SweepEpoch) -> Result<u64> {
    let mut removed = 0;
    let mut listing = Listing::of(place, area, REMOVING);
    while let Some(page) = listing.next().await? {
        for meta in page {
            match epoch_of(place, area, &meta.key) {
                Some(epoch) if epoch <= through => io::remove(place, &meta.key, REMOVING).await?,
                Some(_) => return Ok(removed),
                None => continue,
            }
            removed += 1;
        }
    }
    Ok(removed)
}

/// Returns the epoch of a key `<area>/<epoch>/…`.
pub(crate) fn epoch_of(place: &Place, area: Area, key: &Key) -> Option<SweepEpoch> {
    place.below(area, key)?.split_once('/')?.0.parse().ok()
}
