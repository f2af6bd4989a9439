//! The bank is the truth: the database's rows of checkpoints are an index of the commit records in the banks.
//!
//! What another site has put into a bank that both share is found before a list is answered, or when somebody asks
//! for it by its id; what it has deleted is noted. An index is only brought nearer to its bank: a record that names
//! another project or provider is not taken, and a bank that does not answer changes nothing.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use karbor_plugin::Provider;
use karbor_types::{CheckpointId, CheckpointState, Instant, ProjectId, ProviderId};
use tracing::{info, warn};

use crate::{Actions, Error, Result};

/// How long a list waits for the bank; then it is answered from the index as it is.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of how many projects and providers the time of the last look is remembered.
const REMEMBERED: usize = 10_000;

/// When the banks were last looked at.
#[derive(Debug, Default)]
pub(crate) struct LastLooks(Mutex<HashMap<(ProviderId, ProjectId), Instant>>);

impl LastLooks {
    /// Returns whether it is time to look again, and notes that somebody does.
    fn is_due(&self, provider: ProviderId, project: &ProjectId, now: Instant, seconds: u32) -> bool {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (provider, project.clone());
        if looks.get(&key).is_some_and(|last| now.seconds_since(*last).abs() < i64::from(seconds)) {
            return false;
        }
        if looks.len() >= REMEMBERED {
            looks.clear();
        }
        looks.insert(key, now);
        true
    }
}

/// What bringing an index up to date did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refreshed {
    /// Checkpoints that were found in the bank.
    pub added: u64,
    /// Checkpoints whose commit records are gone.
    pub gone: u64,
    /// Commit records that cannot be read, or are another project's or provider's.
    pub passed_over: u64,
}

impl Actions {
    /// Brings the index of a project's checkpoints up to date, if that was not done a moment ago. Never fails: what
    /// the bank does not tell now, it tells later.
    pub(crate) async fn look_into_bank(&self, project: &ProjectId, provider: &Provider) {
        let seconds = self.settings().bank_look_seconds;
        if !self.parts.looks.is_due(provider.id(), project, self.now(), seconds) {
            return;
        }
        let trouble = match tokio::time::timeout(PATIENCE, self.refresh(project, provider)).await {
            Ok(Ok(_)) => return,
            Ok(Err(err)) => err.to_string(),
            Err(_) => format!("no answer within {} seconds", PATIENCE.as_secs()),
        };
        warn!(
            provider.id = %provider.id(), project.id = %project,
            "The bank of provider {} was not looked at for {project}: {trouble}", provider.name()
        );
    }

    /// Brings the index of a project's checkpoints in a provider's bank up to date, those of other providers that keep
    /// theirs in the same bank included.
    ///
    /// # Errors
    /// [`crate::Kind::Unavailable`] when bank or database do not answer.
    pub async fn refresh(&self, project: &ProjectId, provider: &Provider) -> Result<Refreshed> {
        let evidence = &self.parts.evidence;
        let unavailable = |source| Error::Unavailable { what: "the bank", source };
        // The index first: what is available in it was committed before the bank is listed.
        let known = self.store().checkpoint_states(project).await?;
        let Some(living) = evidence.living(project, provider).await.map_err(unavailable)? else {
            return Ok(Refreshed::default());
        };
        let mut done = Refreshed::default();
        for id in living.iter().filter(|id| !known.contains_key(id)) {
            match evidence.committed(project, provider, *id).await {
                Ok(Some(row)) if !self.shares_bank(row.provider, provider) => done.passed_over += 1,
                Ok(Some(row)) if self.store().import_checkpoint(&row).await? => done.added += 1,
                Ok(_) => done.passed_over += 1,
                Err(err) => {
                    done.passed_over += 1;
                    warn!(checkpoint.id = %id, error = &*err as &dyn std::error::Error, "Commit record {id} is passed over: {err}");
                }
            }
        }
        let living: HashSet<CheckpointId> = living.into_iter().collect();
        for (id, (owner, state)) in known {
            let missing = state == CheckpointState::Available
                && !living.contains(&id)
                && self.shares_bank(owner, provider);
            // Asked for once more by its name: a list may have been taken while it was being put.
            if missing
                && evidence.committed(project, provider, id).await.map_err(unavailable)?.is_none()
                && self.store().checkpoint_is_gone(id, self.now()).await?
            {
                done.gone += 1;
            }
        }
        if done.added + done.gone > 0 {
            info!(
                provider.id = %provider.id(), project.id = %project, added = done.added, gone = done.gone,
                "The bank of provider {} holds {} checkpoints of {project} that were not known, and {} are gone",
                provider.name(), done.added, done.gone
            );
        }
        Ok(done)
    }

    /// Returns whether checkpoints of that provider lie in this one's bank.
    fn shares_bank(&self, owner: ProviderId, provider: &Provider) -> bool {
        self.registry().provider(owner).is_some_and(|owner| owner.bank() == provider.bank())
    }

    /// Looks whether a checkpoint that the index does not know stands in the bank.
    pub(crate) async fn find_in_bank(
        &self,
        project: &ProjectId,
        provider: &Provider,
        id: CheckpointId,
    ) -> Result<bool> {
        match self.parts.evidence.committed(project, provider, id).await {
            Ok(Some(row)) if self.shares_bank(row.provider, provider) => {
                Ok(self.store().import_checkpoint(&row).await?)
            }
            Ok(_) => Ok(false),
            Err(err) => {
                warn!(checkpoint.id = %id, error = &*err as &dyn std::error::Error, "The bank was not asked for {id}: {err}");
                Ok(false)
            }
        }
    }
}
