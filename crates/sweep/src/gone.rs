//! What is gone for ever: what all final lists name, folded or not.
//!
//! Invariant: what is gone stays gone, and nothing that lives refers to it, now or later. So it does not matter
//! when somebody looks, as long as it is not too early, nor how late a delayed put brings a pack, an index object
//! or a commit record of a gone session back: it counts for nothing, and the next sweep deletes it again.
//!
//! Final lists pile up, so from time to time they are *folded*: [`crate::fold`] puts all that is gone into a few
//! objects below `folded/`, the last of which says through which epoch. Only then are older folded objects and the
//! pages of the lists removed. So who lists `folded/`, reads all of it, and then reads the final lists behind the
//! greatest epoch that it found, has all that was gone when he began. If an object has vanished in between, it was
//! folded, and he begins again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karbor_bank::Key;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::doomed::{Found, ListKind, Names, read_list};
use crate::io::{self, Listing, SETTLE_TRIES};
use crate::place::Area;
use crate::record::from_json;
use crate::rule::{Rule, kept};
use crate::{Doomed, End, Error, PackName, Place, Result, SessionId, SweepEpoch};

const DOING: &str = "reading what is gone";

/// What all final lists name. It only ever grows.
#[derive(Debug, Clone, Default)]
pub struct Gone {
    doomed: Doomed,
    /// The newest epoch whose final list is in here.
    through: Option<SweepEpoch>,
    /// The newest epoch that is folded.
    folded_through: Option<SweepEpoch>,
    /// The objects below `folded/` that were read.
    folded: BTreeSet<Key>,
    /// Lists that are damaged are passed over.
    lenient: bool,
}

/// One object below `folded/`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Folded {
    pub(crate) format: u32,
    /// All epochs up to this one are done, and what their final lists name is in this object or in others that
    /// were put before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) through: Option<SweepEpoch>,
    #[serde(flatten)]
    pub(crate) names: Names,
}

impl Gone {
    /// Reads all of it.
    ///
    /// # Errors
    /// What the bank says.
    pub async fn read(place: &Place) -> Result<Self> {
        let mut gone = Self::default();
        gone.read_folded(place).await?;
        gone.refresh(place).await?;
        Ok(gone)
    }

    /// Reads all of it but what is damaged: for who only reads commits.
    ///
    /// What is missing from it makes a commit that is gone look alive. Reading that finds its chunks or does not; it
    /// frees nothing and refers to nothing. So a damaged list costs nobody his restore, while sweepers and writers,
    /// who would do harm, stop at it ([`Gone::read`]).
    pub(crate) async fn read_for_readers(place: &Place) -> Result<Self> {
        let mut gone = Self { lenient: true, ..Self::default() };
        gone.read_folded(place).await?;
        gone.refresh(place).await?;
        Ok(gone)
    }

    /// Reads what came since it was last read.
    ///
    /// # Errors
    /// What the bank says.
    pub async fn refresh(&mut self, place: &Place) -> Result<()> {
        for _ in 0..SETTLE_TRIES {
            let Some(epoch) = self.read_finals(place).await? else { return Ok(()) };
            // Pages are removed after what they say was folded, so that is listed now; or they are lost.
            self.read_folded(place).await?;
            if self.through < Some(epoch) {
                let source = "it or a page of it is missing".into();
                self.pass_over(Error::Damaged { key: place.final_key(epoch), source })?;
                self.through = Some(epoch);
            }
        }
        Err(Error::Unsettled { doing: DOING })
    }

    /// Returns this, or a newer one if something came since it was read: what is shared is not changed.
    pub(crate) async fn refreshed(self: Arc<Self>, place: &Place) -> Result<Arc<Self>> {
        let after = self.through.map(|epoch| place.final_key(epoch));
        let news = place.bank().list(&place.area(Area::Final), after.as_ref(), 1).await;
        if news.map_err(Error::bank(DOING))?.is_empty() {
            return Ok(self);
        }
        let mut newer = Arc::unwrap_or_clone(self);
        newer.refresh(place).await?;
        Ok(Arc::new(newer))
    }

    /// Returns whether a pack is gone: nothing refers to it, now or later, and it may be deleted at any time.
    pub fn contains(&self, pack: &PackName) -> bool {
        self.doomed.contains(pack)
    }

    /// Returns how a session ended that is gone as a whole, whatever stands at its keys.
    pub fn end(&self, session: &SessionId) -> Option<End> {
        self.doomed.sessions.get(session).copied()
    }

    /// Returns the single packs that are gone, of sessions that are not gone as a whole.
    pub const fn packs(&self) -> &crate::PackSet {
        &self.doomed.packs
    }

    /// Returns the sessions that are gone as a whole.
    pub const fn sessions(&self) -> &BTreeMap<SessionId, End> {
        &self.doomed.sessions
    }

    /// Returns the newest epoch that is folded.
    pub const fn folded_through(&self) -> Option<SweepEpoch> {
        self.folded_through
    }

    /// Returns the objects that were read below `folded/`.
    pub(crate) const fn folded(&self) -> &BTreeSet<Key> {
        &self.folded
    }

    pub(crate) const fn doomed(&self) -> &Doomed {
        &self.doomed
    }

    /// Adds what a final list names.
    fn absorb(&mut self, doomed: &Doomed) {
        self.doomed.absorb(doomed);
        for session in doomed.sessions.keys().filter(|_| kept(Rule::WholeSessions)) {
            self.doomed.packs.remove_session(session);
        }
    }

    /// Returns the error, unless it is damage that is to be passed over.
    fn pass_over(&self, error: Error) -> Result<()> {
        match error {
            Error::Damaged { key, source } if self.lenient => {
                warn!(object.key = %key, error = %source, "What {key} names as gone is not known, since it is damaged");
                Ok(())
            }
            error => Err(error),
        }
    }

    /// Reads the final lists that were not read. Returns the first that was not there as a whole.
    ///
    /// Epochs are sequential, so the final list of an epoch stands before that of the next.
    async fn read_finals(&mut self, place: &Place) -> Result<Option<SweepEpoch>> {
        let after = self.through.map(|epoch| place.final_key(epoch));
        let mut listing = Listing::of(place, Area::Final, DOING).after(after);
        while let Some(page) = listing.next().await? {
            for meta in page {
                let Some(epoch) = io::name_of(place, Area::Final, &meta.key) else {
                    continue;
                };
                match read_list(place, ListKind::Final, epoch).await {
                    Ok(Found::List(doomed)) => self.absorb(&doomed),
                    Ok(Found::Absent | Found::Folded) => return Ok(Some(epoch)),
                    Err(error) => self.pass_over(error)?,
                }
                self.through = self.through.max(Some(epoch));
            }
        }
        Ok(None)
    }

    async fn read_folded(&mut self, place: &Place) -> Result<()> {
        'again: for _ in 0..SETTLE_TRIES {
            for meta in Listing::of(place, Area::Folded, DOING).all().await? {
                if self.folded.contains(&meta.key) {
                    continue;
                }
                let Some(bytes) = io::find(place, &meta.key, DOING).await? else {
                    continue 'again;
                };
                match from_json::<Folded>(&meta.key, &bytes) {
                    Ok(folded) => {
                        let mut doomed = Doomed::default();
                        folded.names.add_to(&mut doomed);
                        self.absorb(&doomed);
                        self.folded_through = self.folded_through.max(folded.through);
                    }
                    Err(error) => self.pass_over(error)?,
                }
                self.folded.insert(meta.key);
            }
            self.through = self.through.max(self.folded_through);
            return Ok(());
        }
        Err(Error::Unsettled { doing: DOING })
    }
}
