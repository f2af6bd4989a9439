//! One attempt of one operation: from a fresh claim to its end, or to giving it back.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use karbor_plugin::{Access, Context, ErrorKind, Provider};
use karbor_store::{Finish, Operation, SubjectChange};
use karbor_types::{
    CheckpointEvent, Epoch, FAILURE, Instant, OperationKind, OperationRequest, OperationState, ProviderId,
    RunEvent,
};
use karbor_vault::{Account, SessionId};
use serde_json::{Value, json};
use tracing::{error, info, warn};

use crate::backoff::Backoff;
use crate::crash::Place;
use crate::lease::Lease;
use crate::service::Shared;
use crate::stop::{Failure, Stop};
use crate::{copy, delete, protect, restore, sweep, undo, verify};

/// What every part of an attempt works with.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) shared: Arc<Shared>,
    pub(crate) lease: Lease,
    pub(crate) operation: Operation,
    pub(crate) request: OperationRequest,
    /// Why this attempt only lets go of what earlier ones began: there were too many of them.
    pub(crate) hopeless: Option<Failure>,
    /// By what right a cloud is reached.
    pub(crate) access: Access,
}

/// What an operation came to, to be written as its end.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) result: Value,
    pub(crate) subject: SubjectChange,
    /// Why it failed although it ran to its end: some resources did not.
    pub(crate) failure: Option<Failure>,
}

/// The epoch of the first claim.
const FIRST: Epoch = Epoch(1);

/// How a call on the store is repeated while the database is in trouble.
const STORE_ATTEMPTS: u32 = 8;
const STORE_PAUSE: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// Runs a claimed operation as far as it goes. Never fails: what cannot be written now is left to the next claim.
pub(crate) async fn run(shared: Arc<Shared>, lease: Lease, operation: Operation) {
    let id = operation.id;
    let kind = operation.kind;
    info!(
        operation.id = %id, project.id = %operation.project, attempt = operation.attempt,
        "Begin {kind} {id}, attempt {}", operation.attempt
    );
    let request = serde_json::from_value(match &operation.request {
        Value::Null => json!({}),
        request => request.clone(),
    });
    let (request, malformed) = match request {
        Ok(request) => (request, None),
        Err(err) => (OperationRequest::default(), Some(err.to_string())),
    };
    let limit = shared.config.operation_attempts.get();
    let hopeless = (operation.attempt > limit).then(|| {
        let text =
            format!("given up after {limit} attempts, of which none came to its end; see the service's log");
        Failure::new(ErrorKind::Other, text)
    });
    let (access, hopeless, without) = match shared.rights.of(id).await {
        Ok(access) => (access, hopeless, None),
        Err(err) if err.kind().is_retryable() => (Access::None, hopeless, Some(Stop::from(err))),
        // What earlier attempts began is still let go of.
        Err(err) => (Access::None, hopeless.or_else(|| Some(err.into())), None),
    };
    let attempt = Arc::new(Attempt { shared, lease, operation, request, hopeless, access });
    let _running = attempt.shared.metrics.running(kind);
    attempt.pass(Place::Claimed).await;
    let stop = match without {
        Some(stop) => stop,
        None => match attempt.work(malformed).await {
            Ok(()) => return,
            Err(stop) => stop,
        },
    };
    match attempt.give_up(stop).await {
        Ok(()) => {}
        Err(Stop::LeaseLost) => {
            attempt.shared.metrics.lease_lost();
            warn!(operation.id = %id, "Stop {kind} {id}: somebody else has it");
        }
        Err(Stop::Store(err)) => {
            error!(
                operation.id = %id, error = &err as &dyn std::error::Error,
                "Leave {kind} {id} where it is, to be taken up when the database answers again: {err}"
            );
        }
        Err(stop) => error!(operation.id = %id, "Leave {kind} {id} to the next claim: {stop:?}"),
    }
}

impl Attempt {
    async fn work(self: &Arc<Self>, malformed: Option<String>) -> Result<(), Stop> {
        if let Some(reason) = malformed {
            let text = format!("the operation's request cannot be read: {reason}");
            return Err(Failure::new(ErrorKind::Invalid, text).into());
        }
        if self.operation.cancel_requested && self.lease.claim.epoch() <= FIRST {
            return Err(Stop::Cancelled);
        }
        if let Some(failure) = &self.hopeless
            && self.operation.attempt > self.shared.config.operation_attempts.get() + 1
        {
            // Not even letting go went through.
            return Err(failure.clone().into());
        }
        if self.request.undo {
            return undo::run(self).await;
        }
        match self.operation.kind {
            OperationKind::Protect => protect::run(self).await,
            OperationKind::Restore => restore::run(self).await,
            OperationKind::Verify => verify::run(self).await,
            OperationKind::Delete => delete::run(self).await,
            OperationKind::Sweep => sweep::run(self).await,
            OperationKind::Copy => copy::run(self).await,
        }
    }

    /// Writes what ended the attempt early.
    async fn give_up(&self, stop: Stop) -> Result<(), Stop> {
        let (id, kind) = (self.operation.id, self.operation.kind);
        match stop {
            Stop::LeaseLost | Stop::Store(_) => Err(stop),
            Stop::Drained => {
                info!(operation.id = %id, "Give {kind} {id} back: the service ends");
                let claim = &self.lease.claim;
                self.store(|| self.shared.store.release(claim, self.now())).await
            }
            Stop::Later(failure) if self.operation.attempt < self.shared.config.operation_attempts.get() => {
                let config = &self.shared.config;
                let first = Duration::from_millis(config.retry_milliseconds.into());
                let limit = Duration::from_secs(config.retry_limit_seconds.into());
                let pause = Backoff::new(first, limit).after(self.operation.attempt);
                let micros = i64::try_from(pause.as_micros()).unwrap_or(i64::MAX);
                let now = self.now();
                let due = Instant::from_micros(now.as_micros().saturating_add(micros));
                let text = failure.text();
                warn!(operation.id = %id, reason = %text, "Put {kind} {id} off for {pause:?}: {text}");
                let claim = &self.lease.claim;
                self.store(|| self.shared.store.postpone(claim, due, &text)).await
            }
            Stop::Later(failure) | Stop::Failed(failure) => {
                self.end(OperationState::Failed, Some(failure), self.failed_subject(), Value::Null).await
            }
            Stop::Cancelled => {
                let failure = Failure::new(ErrorKind::Cancelled, "cancelled");
                self.end(OperationState::Cancelled, Some(failure), self.failed_subject(), Value::Null).await
            }
        }
    }

    /// Ends the operation with what it came to.
    pub(crate) async fn finish(&self, end: End) -> Result<(), Stop> {
        let End { result, subject, failure } = end;
        let state = match &failure {
            None => OperationState::Succeeded,
            Some(failure) if failure.kind == ErrorKind::Cancelled => OperationState::Cancelled,
            Some(_) => OperationState::Failed,
        };
        self.end(state, failure, subject, result).await
    }

    async fn end(
        &self,
        state: OperationState,
        failure: Option<Failure>,
        subject: SubjectChange,
        result: Value,
    ) -> Result<(), Stop> {
        let (id, kind) = (self.operation.id, self.operation.kind);
        let reason = failure.as_ref().map(Failure::text);
        let counted = failure.clone();
        let result = with_failure(result, failure.as_ref());
        let mut finish =
            Finish { state, reason, result, subject: because(subject, failure), extra_info: Value::Null };
        let claim = &self.lease.claim;
        let ended = self.store(|| self.shared.store.finish(claim, &finish, self.now())).await;
        if let Err(Stop::Failed(conflict)) = ended {
            // Somebody changed the row under the operation (a reset), or it is gone. The operation ends all the
            // same, and what it is about stays as somebody wanted it.
            let text = match finish.reason.take() {
                Some(reason) => format!("{reason}; {}", conflict.message),
                None => conflict.message,
            };
            warn!(operation.id = %id, reason = %text, "End {kind} {id} without touching its subject: {text}");
            if finish.state == OperationState::Succeeded {
                finish.state = OperationState::Failed;
            }
            (finish.reason, finish.subject) = (Some(text), SubjectChange::None);
            self.store(|| self.shared.store.finish(claim, &finish, self.now())).await?;
        } else {
            ended?;
        }
        self.shared.metrics.ended(kind, finish.state, counted.as_ref());
        match finish.reason {
            None => info!(operation.id = %id, "{kind} {id} has {}", finish.state),
            Some(reason) => {
                info!(operation.id = %id, reason = %reason, "{kind} {id} has {}: {reason}", finish.state);
            }
        }
        self.pass(Place::Finished).await;
        Ok(())
    }

    /// Returns what becomes of the row that the operation is about when it fails as a whole.
    fn failed_subject(&self) -> SubjectChange {
        let checkpoint = |event| {
            SubjectChange::Checkpoint(karbor_store::CheckpointChange {
                event: Some(event),
                ..Default::default()
            })
        };
        let run = || {
            SubjectChange::Run(karbor_store::RunChange {
                event: Some(RunEvent::Failed),
                ..Default::default()
            })
        };
        if self.request.undo {
            return SubjectChange::None;
        }
        match self.operation.kind {
            OperationKind::Protect | OperationKind::Copy => checkpoint(CheckpointEvent::Failed),
            OperationKind::Delete => checkpoint(CheckpointEvent::DeleteFailed),
            OperationKind::Restore if self.operation.restore.is_some() => run(),
            OperationKind::Verify if self.operation.verification.is_some() => run(),
            OperationKind::Restore | OperationKind::Verify | OperationKind::Sweep => SubjectChange::None,
        }
    }

    /// Calls the store until it answers, within reason.
    pub(crate) async fn store<T, F>(&self, call: impl Fn() -> F) -> Result<T, Stop>
    where
        F: Future<Output = karbor_store::Result<T>>,
    {
        use karbor_store::Error;
        let mut pauses = STORE_PAUSE;
        for attempt in 1.. {
            if self.lease.lost.is_cancelled() {
                return Err(Stop::LeaseLost);
            }
            let err = match call().await {
                Ok(answer) => return Ok(answer),
                Err(err) => err,
            };
            match err {
                Error::LeaseLost { .. } => return Err(Stop::LeaseLost),
                Error::Busy { .. } | Error::Database { .. } if attempt < STORE_ATTEMPTS => {
                    let id = self.operation.id;
                    warn!(operation.id = %id, error = %err, "The database did not answer: {err}");
                    tokio::select! {
                        () = tokio::time::sleep(pauses.pause()) => {}
                        () = self.lease.lost.cancelled() => return Err(Stop::LeaseLost),
                    }
                }
                Error::Busy { .. } | Error::Database { .. } => return Err(Stop::Store(err)),
                err => {
                    let kind = match err {
                        Error::NotFound { .. } => ErrorKind::NotFound,
                        Error::Conflict { .. } => ErrorKind::Conflict,
                        _ => ErrorKind::Other,
                    };
                    return Err(Stop::Failed(Failure::new(kind, err.to_string())));
                }
            }
        }
        unreachable!("the loop ends by a return")
    }

    /// Returns whether an earlier attempt has stored steps.
    pub(crate) async fn has_steps(&self) -> Result<bool, Stop> {
        let first = self.store(|| self.shared.store.list_steps(self.operation.id, None, 1)).await?;
        Ok(!first.is_empty())
    }

    /// Returns the present time.
    pub(crate) fn now(&self) -> Instant {
        (self.shared.clock)()
    }

    /// Returns for whom the operation is done.
    pub(crate) fn context(&self) -> Context {
        Context {
            project: self.operation.project.clone(),
            user: self.operation.user.clone(),
            request_id: self.request.request_id.clone(),
            access: self.access.clone(),
        }
    }

    /// Returns the provider, or says that this process has none of that id.
    pub(crate) fn provider(&self, id: ProviderId) -> Result<Arc<Provider>, Failure> {
        self.shared.registry.provider(id).cloned().ok_or_else(|| {
            let text =
                format!("there is no provider {id} in this service's configuration; add it and try again");
            Failure::new(ErrorKind::NotFound, text)
        })
    }

    /// Opens a project's account in a provider's bank.
    pub(crate) async fn account(
        &self,
        provider: ProviderId,
        project: &karbor_types::ProjectId,
    ) -> Result<Account, Stop> {
        Ok(self.shared.banks.account(provider, project).await?)
    }

    /// Names this attempt in a bank.
    pub(crate) fn session(&self) -> SessionId {
        SessionId::new(self.operation.id.0, self.lease.claim.epoch())
    }

    /// Fails when the operation is to stop before its next part.
    pub(crate) fn check(&self) -> Result<(), Stop> {
        if self.lease.lost.is_cancelled() {
            Err(Stop::LeaseLost)
        } else if self.lease.drained.is_cancelled() {
            Err(Stop::Drained)
        } else {
            Ok(())
        }
    }

    /// Passes a place at which tests let the process die.
    pub(crate) async fn pass(&self, place: Place) {
        self.shared.crash.pass(self.operation.kind, place).await;
    }

    /// Returns what an operation must name.
    pub(crate) fn required<T>(&self, what: Option<T>, name: &str) -> Result<T, Failure> {
        what.ok_or_else(|| {
            let text = format!("the {} operation names no {name}", self.operation.kind);
            Failure::new(ErrorKind::Invalid, text)
        })
    }
}

/// Adds to a result why the operation failed, in one word that others can decide on.
fn with_failure(mut result: Value, failure: Option<&Failure>) -> Value {
    let Some(failure) = failure else { return result };
    if result.is_null() {
        result = json!({});
    }
    if let Some(members) = result.as_object_mut() {
        members.insert(FAILURE.to_owned(), json!(failure.kind));
    }
    result
}

/// Writes the reason into what becomes of the row.
fn because(subject: SubjectChange, failure: Option<Failure>) -> SubjectChange {
    let Some(failure) = failure else { return subject };
    match subject {
        SubjectChange::None => SubjectChange::None,
        SubjectChange::Checkpoint(mut change) => {
            change.reason.get_or_insert_with(|| failure.text());
            SubjectChange::Checkpoint(change)
        }
        SubjectChange::Run(mut change) => {
            change.reason.get_or_insert_with(|| failure.text());
            SubjectChange::Run(change)
        }
    }
}
