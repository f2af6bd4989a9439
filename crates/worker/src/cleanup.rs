//! Leaving nothing behind: what an operation made on the way, and did not end itself, is ended here.
//!
//! It runs after the last step of every attempt that gets that far, whether all went well or not. An operation that
//! cannot end an entry now is put off, as often as operations are tried; after that the entry does not change what the
//! operation came to: it stays in the ledger, and the resource says so.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use karbor_plugin::{ErrorKind, Finding, Purpose, Severity};
use tracing::warn;

use crate::backoff::Backoff;
use crate::crash::Place;
use crate::drive::Drive;
use crate::ledger::as_plugins_see;
use crate::progress::StepProgress;
use crate::stop::{Failure, Stop};

/// What is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goes {
    /// What was needed only on the way.
    Scaffolds,
    /// That, and what the operation was for: it failed, and nobody will use it.
    Everything,
}

impl Drive {
    /// Ends what stands open in the ledger, newest first, and returns why others could not be ended.
    pub(crate) async fn clean_up(&mut self, goes: Goes) -> Result<Vec<String>, Stop> {
        let attempt = Arc::clone(&self.attempt);
        let store = &attempt.shared.store;
        let entries = attempt.store(|| store.list_ledger(attempt.operation.id)).await?;
        let places: HashMap<_, _> =
            self.members.iter().enumerate().map(|(index, member)| (member.key().clone(), index)).collect();
        let is_last = attempt.operation.attempt >= attempt.shared.config.operation_attempts.get();
        let (mut left, mut later) = (Vec::new(), None);
        for row in entries.into_iter().rev() {
            let Some(&resource) = places.get(&row.resource) else { continue };
            let entry = as_plugins_see(row);
            let goes = goes == Goes::Everything || entry.purpose == Purpose::Scaffold;
            if !entry.is_open() || !goes {
                continue;
            }
            attempt.check()?;
            if let Err(err) = self.end(resource, &entry).await {
                if attempt.lease.lost.is_cancelled() {
                    return Err(Stop::LeaseLost);
                }
                let member = &mut self.members[resource];
                warn!(
                    operation.id = %attempt.operation.id, resource = %member.key(),
                    error = &err as &dyn std::error::Error,
                    "Left behind {} {} of {}: {}", entry.kind, entry.reference, member.key(), err.message()
                );
                let message = format!("this {} was left behind: {}", entry.kind, err.message());
                if may_pass(err.kind()) {
                    later.get_or_insert_with(|| {
                        let text =
                            format!("what was made on the way is still to be removed: {}", err.message());
                        Failure::new(err.kind(), text).of(member.key())
                    });
                }
                let (severity, subject) = (Severity::Warning, entry.reference.clone());
                member.findings.push(Finding { severity, subject, message });
                left.push(err.message().to_owned());
                continue;
            }
            let (claim, id) = (&attempt.lease.claim, entry.id.0);
            attempt.store(|| store.ledger_removed(claim, id, attempt.now())).await?;
        }
        if let Some(failure) = later.filter(|_| !is_last) {
            return Err(Stop::Later(failure));
        }
        attempt.pass(Place::CleanedUp).await;
        Ok(left)
    }

    async fn end(&self, resource: usize, entry: &karbor_plugin::LedgerEntry) -> karbor_plugin::Result<()> {
        let config = &self.attempt.shared.config;
        let member = &self.members[resource];
        let Some(protection) = &member.protection else {
            let text = format!("the plugin of {} is gone", member.key().kind);
            return Err(karbor_plugin::Error::new(ErrorKind::Unsupported, text));
        };
        let cancel = self.attempt.lease.lost.child_token();
        let task = self.task(resource, Arc::new(StepProgress::default()), cancel.clone());
        let mut pauses = Backoff::new(
            Duration::from_millis(config.retry_milliseconds.into()),
            Duration::from_secs(config.retry_limit_seconds.into()),
        );
        for tried in 1.. {
            match protection.clean_up(&task, entry).await {
                Err(err) if err.is_retryable() && tried < config.hook_attempts.get() => {
                    tokio::select! {
                        () = tokio::time::sleep(pauses.pause()) => {}
                        () = cancel.cancelled() => return Err(err),
                    }
                }
                result => return result,
            }
        }
        unreachable!("the loop ends by a return")
    }
}

/// Returns whether what failed in this way may go well later.
const fn may_pass(kind: ErrorKind) -> bool {
    use ErrorKind::{Damaged, Denied, Invalid, Revoked, Unsupported};
    !matches!(kind, Damaged | Denied | Invalid | Revoked | Unsupported)
}
