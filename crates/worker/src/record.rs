//! Making durable what steps came to: flush, then one transaction.

use std::sync::Arc;
use std::time::Duration;

use karbor_flow::Ready;
use karbor_plugin::ErrorKind;
use karbor_store::{StepChange, SubjectChange};
use karbor_vault::CheckpointWriter;
use tracing::warn;

use crate::attempt::Attempt;
use crate::backoff::Backoff;
use crate::crash::Place;
use crate::drive::Ended;
use crate::outcome::ResourceFailure;
use crate::stop::{Failure, Stop};

/// What is to be made durable together.
pub(crate) struct Recording {
    pub(crate) attempt: Arc<Attempt>,
    /// Changes of steps beside the ends below.
    pub(crate) changes: Vec<StepChange>,
    /// Steps that ended.
    pub(crate) ended: Vec<Ended>,
    /// Steps that begin once that is done; they are among the changes.
    pub(crate) starts: Vec<Ready>,
    /// Whose bytes are to be flushed first.
    pub(crate) flusher: Option<CheckpointWriter>,
    /// What is to be told in the row that the operation is about.
    pub(crate) subject: Option<SubjectChange>,
}

/// What is durable now.
pub(crate) struct Recorded {
    pub(crate) ended: Vec<Ended>,
    pub(crate) starts: Vec<Ready>,
}

impl Recording {
    pub(crate) async fn run(mut self) -> Result<Recorded, Stop> {
        let attempt = &self.attempt;
        if let Some(writer) = &self.flusher {
            match flush(attempt, writer).await {
                Ok(()) => attempt.pass(Place::Flushed).await,
                Err(stop @ (Stop::LeaseLost | Stop::Drained | Stop::Store(_))) => return Err(stop),
                Err(Stop::Later(failure)) if failure.kind == ErrorKind::Fenced => {
                    return Err(Stop::Later(failure));
                }
                Err(Stop::Later(failure) | Stop::Failed(failure)) => {
                    // What is not in the bank is not done, whatever the plugin thinks.
                    for ended in self.ended.iter_mut().filter(|ended| ended.wrote) {
                        let Failure { kind, ref message, .. } = failure;
                        let failure = ResourceFailure { hook: ended.hook, kind, message: message.clone() };
                        ended.failure.get_or_insert(failure);
                        ended.outcome.saved = None;
                    }
                }
                Err(Stop::Cancelled) => return Err(Stop::Cancelled),
            }
        }
        self.changes.extend(self.ended.iter().map(Ended::change));
        if !self.changes.is_empty() {
            let store = &attempt.shared.store;
            attempt.store(|| store.record_steps(&attempt.lease.claim, &self.changes, attempt.now())).await?;
        }
        if let Some(subject) = &self.subject {
            let store = &attempt.shared.store;
            attempt.store(|| store.change_subject(&attempt.lease.claim, subject, attempt.now())).await?;
        }
        if self.changes.iter().any(|change| matches!(change, StepChange::Started { .. })) {
            attempt.pass(Place::StepStarted).await;
        }
        if !self.ended.is_empty() {
            attempt.pass(Place::StepRecorded).await;
        }
        Ok(Recorded { ended: self.ended, starts: self.starts })
    }
}

/// Flushes, again and again while the bank cannot be reached, within reason.
pub(crate) async fn flush(attempt: &Attempt, writer: &CheckpointWriter) -> Result<(), Stop> {
    let config = &attempt.shared.config;
    let mut pauses = Backoff::new(
        Duration::from_millis(config.retry_milliseconds.into()),
        Duration::from_secs(config.retry_limit_seconds.into()),
    );
    for tried in 1.. {
        match writer.flush().await {
            Ok(()) => return Ok(()),
            Err(err) if err.is_retryable() && tried < config.hook_attempts.get() => {
                let id = attempt.operation.id;
                warn!(operation.id = %id, error = &err as &dyn std::error::Error, "Flushing failed: {err}");
                tokio::select! {
                    () = tokio::time::sleep(pauses.pause()) => {}
                    () = attempt.lease.lost.cancelled() => return Err(Stop::LeaseLost),
                }
            }
            Err(err) => return Err(err.into()),
        }
    }
    unreachable!("the loop ends by a return")
}
