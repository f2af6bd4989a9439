//! What is told of an operation's resources: in its result, and in the row of a restore or verification.

use std::collections::BTreeMap;

use karbor_plugin::ErrorKind;
use karbor_store::{RunChange, SubjectChange};
use karbor_types::OperationKind;

use crate::drive::Drive;
use crate::outcome::{Member, ResourceFailure};
use crate::stop::Failure;

impl Drive {
    /// Returns the operation's result.
    pub(crate) fn resources_result(&self) -> serde_json::Value {
        self.members.iter().map(Member::result).collect()
    }

    /// Returns why the operation failed, if it did.
    pub(crate) fn failure(&self) -> Option<Failure> {
        if let Some(failure) = &self.hopeless {
            return Some(failure.clone());
        }
        if self.schedule.is_cancelled() {
            let unfinished = self.members.iter().any(|member| member.status() != "done");
            return unfinished.then(|| Failure::new(ErrorKind::Cancelled, "cancelled"));
        }
        let first = self.schedule.first_failure()?;
        let member = &self.members[first];
        let failed = self.members.iter().filter(|member| member.failure.is_some()).count();
        let mut failure = match &member.failure {
            Some(ResourceFailure { hook, kind, message }) => {
                Failure::new(*kind, message.clone()).of(member.key()).at(*hook)
            }
            None => Failure::new(ErrorKind::Other, "failed").of(member.key()),
        };
        if failed > 1 {
            failure.message = format!("{} (and {} more resources failed)", failure.message, failed - 1);
        }
        Some(failure)
    }

    /// Returns what is to be written of the resources into the restore's or verification's row, if that is new.
    pub(crate) fn news(&mut self) -> Option<SubjectChange> {
        let change = self.run_change()?;
        if change == self.told {
            return None;
        }
        self.told = change.clone();
        Some(SubjectChange::Run(change))
    }

    /// Returns how the resources fare, in the words of the v1 API; nothing where no row tells of it.
    pub(crate) fn run_change(&self) -> Option<RunChange> {
        let operation = &self.attempt.operation;
        let busy = match operation.kind {
            OperationKind::Restore if operation.restore.is_some() => "restoring",
            OperationKind::Verify if operation.verification.is_some() => "verifying",
            _ => return None,
        };
        let mut change = RunChange::default();
        let status = change.resources_status.insert(BTreeMap::new());
        let reasons = change.resources_reason.insert(BTreeMap::new());
        for member in &self.members {
            let word = match member.status() {
                "done" => "available",
                "running" => busy,
                "pending" => continue,
                _ => "error",
            };
            // What was restored is known by its new id, as ever.
            let key = member.restored.as_ref().map_or_else(|| member.key(), |restored| &restored.key);
            status.insert(key.to_string(), word.to_owned());
            if let Some(reason) = member.reason() {
                reasons.insert(key.to_string(), reason);
            }
        }
        Some(change)
    }
}
