//! Sweeping: what no commit reaches is condemned, waited for, and freed.
//!
//! Every step can be repeated, by several at once: what decides is put create-only, and whoever comes later takes
//! what stands there. A sweeper that is stopped anywhere is gone on with by any other; one that wakes up late
//! finds its epoch decided, and repeats what was done. Nothing here waits: a sweep that must wait for sessions says
//! so and ends, and is begun again later.

use std::num::NonZeroUsize;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::doomed::{Found, ListKind, put_list, read_list};
use crate::io::{self, Listing, list_sessions};
use crate::mark::{Survey, read_session};
use crate::place::Area;
use crate::record::{FORMAT, to_json};
use crate::rule::{Rule, kept};
use crate::{
    Doomed, Error, Gone, Kind, Place, Reachability, Result, SessionId, SessionRecord, SweepEpoch, commits,
    fold, free,
};

/// Decides whether a silent session may be fenced. A question of patience, never of safety: a fenced writer that
/// was alive begins again.
#[async_trait]
pub trait Patience: Send + Sync {
    /// Returns whether this session, which has neither answered nor ended, may be fenced.
    async fn may_fence(&self, session: &SessionId, record: &SessionRecord) -> bool;
}

/// Fences nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Endless;

#[async_trait]
impl Patience for Endless {
    async fn may_fence(&self, _session: &SessionId, _record: &SessionRecord) -> bool {
        false
    }
}

/// Fences everybody who has not answered: the operator knows that nobody is at work.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPatience;

#[async_trait]
impl Patience for NoPatience {
    async fn may_fence(&self, _session: &SessionId, _record: &SessionRecord) -> bool {
        true
    }
}

/// How sweeping is done.
#[derive(Debug, Clone)]
pub struct SweepOptions {
    /// How many objects are deleted at once.
    pub parallel: NonZeroUsize,
    /// Free what is not needed although chunks that living commits reach are missing.
    pub despite_missing_chunks: bool,
    /// Fold when that many final lists of done sweeps are not folded.
    pub fold_after: NonZeroUsize,
    /// Who sweeps, for people, in fences.
    pub by: String,
}

impl Default for SweepOptions {
    fn default() -> Self {
        let sixteen = NonZeroUsize::new(16).expect("sixteen is not zero");
        Self { parallel: sixteen, despite_missing_chunks: false, fold_after: sixteen, by: String::new() }
    }
}

/// How far a sweep came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Progress {
    /// There was nothing to free.
    #[default]
    Idle,
    /// An epoch waits for sessions: sweep again later.
    Waiting,
    /// An epoch is done.
    Done,
}

/// What a sweep did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SweepReport {
    /// How far it came.
    pub progress: Progress,
    /// The epoch that was worked on.
    pub epoch: Option<SweepEpoch>,
    /// Writers that have neither answered nor ended, and may not be fenced.
    pub waiting_for: Vec<SessionId>,
    /// Sessions that were fenced.
    pub fenced: Vec<SessionId>,
    /// Packs in the bank that were not gone when it was last looked.
    pub packs: u64,
    /// Packs that were needed when it was last looked.
    pub packs_needed: u64,
    /// Packs in the bank that are condemned, as far as this call has looked.
    pub packs_condemned: u64,
    /// Packs that were deleted.
    pub packs_freed: u64,
    /// Their bytes.
    pub bytes_freed: u64,
    /// Index objects, records and tombstones that were deleted.
    pub objects_freed: u64,
}

/// Sweeps one account. Several may work on the same one at once, and each can be stopped anywhere and begun again.
pub struct Sweeper<'a> {
    place: Place,
    reachability: &'a dyn Reachability,
    patience: &'a dyn Patience,
    options: SweepOptions,
}

impl std::fmt::Debug for Sweeper<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sweeper")
            .field("place", &self.place)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<'a> Sweeper<'a> {
    /// Makes a sweeper.
    pub fn new(
        place: &Place,
        reachability: &'a dyn Reachability,
        patience: &'a dyn Patience,
        options: SweepOptions,
    ) -> Self {
        Self { place: place.clone(), reachability, patience, options }
    }

    /// Goes on with the epoch that is open, or begins the next, as far as it can without waiting.
    ///
    /// `run` is a new random UUID for every call.
    ///
    /// # Errors
    /// What the bank and the reachability say. Sweep again.
    pub async fn sweep(&self, run: Uuid) -> Result<SweepReport> {
        if !self.place.bank().capabilities().consistent_listing {
            return Err(Error::NoListing);
        }
        let mut report = SweepReport::default();
        let mut gone = Gone::read(&self.place).await?;
        let newest = self.newest_epoch(&gone).await?;
        let open = match newest {
            Some(newest) if !self.is_done(&gone, newest).await? => Some(newest),
            _ => None,
        };
        let epoch = open.map_or_else(|| next_epoch(newest), Ok)?;
        let Some(condemned) = self.condemn(epoch, open.is_some(), &mut gone, &mut report).await? else {
            if open.is_none() {
                free::free(&self.place, &gone, newest, self.options.parallel, &mut report).await?;
            }
            return Ok(report);
        };
        report.epoch = Some(epoch);
        if !self.resolve(epoch, &mut gone, &mut report).await? {
            report.progress = Progress::Waiting;
            return Ok(report);
        }
        if self.decide(epoch, &condemned, &mut gone, &mut report).await? {
            free::free(&self.place, &gone, Some(epoch), self.options.parallel, &mut report).await?;
            let done = to_json(&Done { format: FORMAT });
            io::put_once(&self.place, &self.place.done_key(epoch), &done, "ending a sweep").await?;
        }
        report.progress = Progress::Done;
        tracing::info!(
            sweep.epoch = epoch.0,
            packs = report.packs_freed,
            bytes = report.bytes_freed,
            "Sweep {epoch} is done"
        );
        let unfolded = fold::done_epochs(&self.place, gone.folded_through()).await?;
        if unfolded.len() >= self.options.fold_after.get() {
            report.objects_freed += fold::fold(&self.place, run).await?.objects_freed;
        }
        Ok(report)
    }

    /// Step 1: finds the newest epoch that exists.
    async fn newest_epoch(&self, gone: &Gone) -> Result<Option<SweepEpoch>> {
        let folded = gone.folded_through();
        let after = folded.map(|epoch| self.place.sweep_key(epoch));
        let listed = Listing::of(&self.place, Area::Sweeps, "listing sweeps").after(after).all().await?;
        let newest = listed.iter().filter_map(|meta| io::name_of(&self.place, Area::Sweeps, &meta.key)).max();
        Ok(newest.max(folded))
    }

    async fn is_done(&self, gone: &Gone, epoch: SweepEpoch) -> Result<bool> {
        if gone.folded_through() >= Some(epoch) || !kept(Rule::Sequential) {
            return Ok(true);
        }
        io::exists(&self.place, &self.place.done_key(epoch), "looking whether a sweep is done").await
    }

    /// Step 2: returns the condemned list of the epoch, which is made if it does not stand. `None` when there is
    /// nothing to condemn: then no epoch is begun; or when others have done and folded the epoch meanwhile.
    async fn condemn(
        &self,
        epoch: SweepEpoch,
        open: bool,
        gone: &mut Gone,
        report: &mut SweepReport,
    ) -> Result<Option<Doomed>> {
        if open {
            match read_list(&self.place, ListKind::Condemned, epoch).await? {
                Found::List(standing) => return Ok(Some(standing)),
                Found::Folded => return Ok(None),
                Found::Absent => {}
            }
        }
        let doomed = match self.find_doomed(open, gone, report).await {
            Ok(doomed) if doomed.is_empty() && !open => return Ok(None),
            Ok(doomed) => doomed,
            // Others may have gone on meanwhile, and freed what this survey wanted to look at.
            Err(error) => {
                return match read_list(&self.place, ListKind::Condemned, epoch).await? {
                    Found::List(standing) => Ok(Some(standing)),
                    Found::Folded => Ok(None),
                    Found::Absent => Err(error),
                };
            }
        };
        let exists = to_json(&Exists { format: FORMAT });
        io::put_once(&self.place, &self.place.sweep_key(epoch), &exists, "beginning a sweep").await?;
        match put_list(&self.place, ListKind::Condemned, epoch, doomed).await? {
            Found::List(standing) => Ok(Some(standing)),
            Found::Folded | Found::Absent => Ok(None),
        }
    }

    /// Returns what nobody needs. If that is nothing, no epoch would be begun that asks whether silent sessions may be
    /// fenced, so they are asked for here: what dead writers have left would never be freed in an idle account.
    async fn find_doomed(&self, open: bool, gone: &mut Gone, report: &mut SweepReport) -> Result<Doomed> {
        let mut survey = self.survey(gone, &Doomed::default(), report).await?;
        let mut doomed = survey.condemn();
        if doomed.is_empty() && !open {
            let fenced_before = report.fenced.len();
            for session in survey.at_work() {
                if let Some(record) = read_session(&self.place, &session).await?
                    && self.patience.may_fence(&session, &record).await
                {
                    self.fence(&session, &record, report).await?;
                }
            }
            if report.fenced.len() > fenced_before {
                survey = self.survey(gone, &Doomed::default(), report).await?;
                doomed = survey.condemn();
            }
        }
        report.packs_condemned = survey.count(&doomed);
        Ok(doomed)
    }

    async fn fence(
        &self,
        session: &SessionId,
        record: &SessionRecord,
        report: &mut SweepReport,
    ) -> Result<()> {
        let why = "a sweep waited for it";
        commits::fence(&self.place, session, Some(record.kind), &self.options.by, why).await?;
        tracing::info!(session.id = %session, "Fenced {session}, since a sweep waited for it");
        report.fenced.push(*session);
        Ok(())
    }

    /// Step 3: lists the sessions after the condemned list stands, and looks whether every writer among them is
    /// resolved: has a commit key, or has acknowledged. Fences those that may be. Returns whether all are.
    async fn resolve(&self, epoch: SweepEpoch, gone: &mut Gone, report: &mut SweepReport) -> Result<bool> {
        let place = &self.place;
        if !kept(Rule::Resolve) || self.is_decided(epoch).await? {
            return Ok(true);
        }
        let sessions = list_sessions(place, Area::Sessions, "listing sessions").await?;
        let mut resolved: std::collections::BTreeSet<SessionId> =
            list_sessions(place, Area::Commits, "listing commits")
                .await?
                .into_iter()
                .map(|(s, _)| s)
                .collect();
        let acks = format!("{}{epoch}/", place.area(Area::Acks));
        for meta in Listing::with_prefix(place, acks, "listing acknowledgements").all().await? {
            resolved.extend(meta.key.file_name().parse::<SessionId>());
        }
        gone.refresh(place).await?;
        for (session, _) in sessions {
            if resolved.contains(&session) || gone.end(&session).is_some() {
                continue;
            }
            // Removed since it was listed: it was a reader's that has ended, or its session is gone.
            let Some(record) = read_session(place, &session).await? else {
                continue;
            };
            if self.patience.may_fence(&session, &record).await {
                // Once the epoch is decided, acknowledgements are removed: whoever is late must not fence for it.
                if self.is_decided(epoch).await? {
                    return Ok(true);
                }
                self.fence(&session, &record, report).await?;
            } else if record.kind == Kind::Writer {
                report.waiting_for.push(session);
            }
        }
        Ok(report.waiting_for.is_empty())
    }

    /// Step 4: marks again, and puts the final list. Returns whether it stands and can be read; if not, it was
    /// folded, and the epoch is done.
    async fn decide(
        &self,
        epoch: SweepEpoch,
        condemned: &Doomed,
        gone: &mut Gone,
        report: &mut SweepReport,
    ) -> Result<bool> {
        if !self.is_decided(epoch).await? {
            let doomed = if kept(Rule::MarkAgain) {
                match self.survey(gone, condemned, report).await {
                    Ok(survey) => survey.confirm(condemned),
                    Err(_) if self.is_decided(epoch).await? => Doomed::default(),
                    Err(error) => return Err(error),
                }
            } else {
                condemned.clone()
            };
            if put_list(&self.place, ListKind::Final, epoch, doomed).await? == Found::Folded {
                return Ok(false);
            }
        }
        gone.refresh(&self.place).await?;
        Ok(true)
    }

    async fn is_decided(&self, epoch: SweepEpoch) -> Result<bool> {
        io::exists(&self.place, &self.place.final_key(epoch), "looking for a final list").await
    }

    async fn survey(&self, gone: &mut Gone, condemned: &Doomed, report: &mut SweepReport) -> Result<Survey> {
        let (survey, missing) = Survey::make(&self.place, gone, condemned, self.reachability).await?;
        report.packs = survey.present.len().try_into().unwrap_or(u64::MAX);
        report.packs_needed = survey.needed.len().try_into().unwrap_or(u64::MAX);
        report.packs_condemned = survey.count(condemned);
        if missing > 0 && !self.options.despite_missing_chunks {
            return Err(Error::MissingChunks { missing });
        }
        Ok(survey)
    }
}

/// What says that a sweep exists.
#[derive(Serialize)]
struct Exists {
    format: u32,
}

/// What says that a sweep is done.
#[derive(Serialize)]
struct Done {
    format: u32,
}

fn next_epoch(newest: Option<SweepEpoch>) -> Result<SweepEpoch> {
    let Some(newest) = newest else {
        return Ok(SweepEpoch(1));
    };
    newest.0.checked_add(1).map(SweepEpoch).ok_or(Error::LastEpoch { epoch: newest })
}
