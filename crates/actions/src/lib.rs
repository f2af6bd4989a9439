//! What can be asked for: one function per action.
//!
//! Each action does the same in the same order: it asks the policy, with the right target; it checks what it
//! was given against what is there; it writes all that it has to write in one transaction of the store, quota
//! included; and it wakes the worker. What was refused has changed nothing, and what was answered is durable.
//!
//! Invariant 9: no action reads or changes an object before the policy has allowed it for the object's project.
//! An object that the caller may not know about answers exactly as one that does not exist, but for
//! checkpoints, where the API's first version tells the difference (403).
//!
//! Deliberately absent: HTTP. Whoever asks — the API, the dashboard, the scheduler — is a [`Caller`].

mod authority;
mod bank_accounts;
mod bank_index;
mod caller;
mod checkpoints;
mod copies;
mod delegations;
mod error;
mod holds;
mod list;
mod occurrences;
mod operation_logs;
mod operations;
mod plans;
mod protectables;
mod providers;
mod quotas;
mod reopen;
mod restores;
mod retention;
mod rpo;
mod scheduled_operations;
mod services;
mod settings;
mod triggers;
mod verifications;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use karbor_plugin::{Context, Registry};
use karbor_store::Store;
use karbor_types::{CheckpointId, Instant, ProjectId};
use uuid::Uuid;

pub use authority::{Authority, AuthorityError, PolicyFiles};
pub use bank_accounts::{AccountRefusal, BankAccountChange, BankAccountView, BankUsage, Credentials};
pub use bank_index::Refreshed;
pub use caller::{Caller, Principal};
pub use checkpoints::{CheckpointFilter, NewCheckpointRequest, Reset};
pub use copies::{Copied, CopyRequest};
pub use delegations::{DelegationError, Delegations};
pub use error::{Error, Kind, Result};
pub use holds::HoldRequest;
pub use list::{ListRequest, Page};
pub use occurrences::{Decision, RunNow};
pub use operations::{OperationView, ResourceResult, StepView};
pub use plans::{NewPlan, PlanChange};
pub use protectables::{Instance, InstanceList, ProtectableType};
pub use quotas::LimitChange;
pub use restores::{DryRun, NewRestoreRequest, RestoreView};
pub use retention::{RetentionPlan, RetentionVerdict};
pub use rpo::{LatePage, Rpo, Standing};
pub use scheduled_operations::{NewScheduledOperation, ScheduledOperationChange};
pub use services::{ServiceChange, ServiceView};
pub use settings::{Settings, TimeFormat};
pub use triggers::{Asked, EventAddress, MAX_PREVIEW, NewTrigger, Preview, TriggerChange, TriggerTimes};
pub use verifications::NewVerificationRequest;

// What actions take and give back, so that a front end needs no other room of the house.
pub use karbor_plugin::{Access, Login, Provider};
pub use karbor_store::{
    BankAccount, Checkpoint, Direction, Hold, Limit, Occurrence, Operation, OperationLog, OperationProgress,
    Plan, QuotaResource, Quotas, Restore, RunRules, ScheduledOperation, Service, ServiceStatus, Trigger,
    TriggerCall, Usage, Verification,
};

/// Tells what stands in the banks, for the one decision that the database alone may not make.
#[async_trait]
pub trait Evidence: fmt::Debug + Send + Sync {
    /// Returns whether the checkpoint's commit record stands in the provider's bank and is not deleted.
    ///
    /// # Errors
    /// Whatever keeps the bank from answering; its text goes to the log only.
    async fn is_committed(
        &self,
        project: &ProjectId,
        provider: &Provider,
        checkpoint: CheckpointId,
    ) -> std::result::Result<bool, BoxError>;

    /// Lists the checkpoints whose commit records stand in the project's account of the provider's bank, whoever put
    /// them there; `None` when that cannot be told.
    ///
    /// # Errors
    /// Whatever keeps the bank from answering; its text goes to the log only.
    async fn living(
        &self,
        project: &ProjectId,
        provider: &Provider,
    ) -> std::result::Result<Option<Vec<CheckpointId>>, BoxError> {
        let _ = (project, provider);
        Ok(None)
    }

    /// Returns what the project's account in the provider's bank holds.
    ///
    /// # Errors
    /// Whatever keeps the bank from answering; its text goes to the log only.
    async fn usage(
        &self,
        project: &ProjectId,
        provider: &Provider,
    ) -> std::result::Result<BankUsage, BoxError> {
        let _ = (project, provider);
        Ok(BankUsage::default())
    }

    /// Tries what an administrator wants of the project's account in the provider's bank, wraps its key as they want, and
    /// returns the credentials sealed: `None` where they stay, nothing where there shall be none.
    ///
    /// # Errors
    /// [`AccountRefusal`]: what is wrong with it, for the administrator.
    async fn settle(
        &self,
        project: &ProjectId,
        provider: &Provider,
        standing: &BankAccount,
        change: &BankAccountChange,
    ) -> std::result::Result<Option<Option<String>>, AccountRefusal> {
        let _ = (project, provider, standing, change);
        Err(AccountRefusal::Invalid(
            "the banks of this service have no settings for single accounts".to_owned(),
        ))
    }

    /// Returns the row that a commit record makes, if it stands in the provider's bank and is this project's;
    /// the provider that it names may be another one with the same bank.
    ///
    /// # Errors
    /// Whatever keeps the bank from answering, or the record from being read; its text goes to the log only.
    async fn committed(
        &self,
        project: &ProjectId,
        provider: &Provider,
        checkpoint: CheckpointId,
    ) -> std::result::Result<Option<Checkpoint>, BoxError> {
        let _ = (project, provider, checkpoint);
        Ok(None)
    }
}

/// Why a bank did not answer.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Gives out the time.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// Tells the workers of this process that there is something to do. A wake-up that is lost costs time only.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Gives out ids that nobody has.
pub type Ids = Arc<dyn Fn() -> Uuid + Send + Sync>;

/// What actions are made of.
#[derive(Clone)]
pub struct Parts {
    /// The database.
    pub store: Store,
    /// Protectables and providers.
    pub registry: Arc<Registry>,
    /// Who may do what.
    pub authority: Arc<Authority>,
    /// What stands in the banks.
    pub evidence: Arc<dyn Evidence>,
    /// Called after something was queued.
    pub wake: Wake,
    /// The time.
    pub clock: Clock,
    /// New ids.
    pub ids: Ids,
    /// Limits and defaults.
    pub settings: Settings,
}

/// Everything that can be asked for. Cheap to clone.
#[derive(Clone)]
pub struct Actions {
    parts: Arc<Inner>,
}

struct Inner {
    parts: Parts,
    looks: bank_index::LastLooks,
    delegations: Option<Arc<dyn Delegations>>,
    promises: rpo::Promises,
}

impl std::ops::Deref for Inner {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl fmt::Debug for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Actions").field("settings", &self.parts.settings).finish_non_exhaustive()
    }
}

impl Actions {
    /// Makes the actions.
    pub fn new(parts: Parts) -> Self {
        let looks = bank_index::LastLooks::default();
        Self {
            parts: Arc::new(Inner { parts, looks, delegations: None, promises: rpo::Promises::default() }),
        }
    }

    /// Lets operations act for their callers after the requests have ended.
    #[must_use]
    pub fn with_delegations(self, delegations: Arc<dyn Delegations>) -> Self {
        let parts = self.parts.parts.clone();
        let looks = bank_index::LastLooks::default();
        Self {
            parts: Arc::new(Inner {
                parts,
                looks,
                delegations: Some(delegations),
                promises: rpo::Promises::default(),
            }),
        }
    }

    /// Makes a caller of somebody who was identified: the policy says whether they are an administrator.
    pub fn caller(&self, principal: Principal, request_id: impl Into<String>) -> Caller {
        self.parts.authority.caller(principal, request_id.into(), self.now())
    }

    /// Succeeds if the database answers.
    ///
    /// # Errors
    /// [`Kind::Unavailable`].
    pub async fn ping(&self) -> Result<()> {
        self.store()
            .ping()
            .await
            .map_err(|source| Error::Unavailable { what: "the database", source: Box::new(source) })
    }

    /// Returns the limits and defaults.
    pub fn settings(&self) -> &Settings {
        &self.parts.settings
    }

    fn store(&self) -> &Store {
        &self.parts.store
    }

    fn registry(&self) -> &Registry {
        &self.parts.registry
    }

    fn now(&self) -> Instant {
        (self.parts.clock)()
    }

    fn new_id(&self) -> Uuid {
        (self.parts.ids)()
    }

    /// Tells the workers of this process that there is something to do.
    pub fn wake(&self) {
        (self.parts.wake)();
    }

    fn context(&self, caller: &Caller) -> Context {
        Context {
            project: caller.project.clone(),
            user: Some(caller.user.clone()),
            request_id: Some(caller.request_id.clone()),
            access: caller.access.clone(),
        }
    }
}
