//! The administrator's commands before and after an instance is protected.
//!
//! Invariant: once `before` may have run, `after` is run: the ledger's entry is durable before `before` is started,
//! and it is closed only when `after` has succeeded. So a crash, a failure or a cancellation in between leaves an
//! open entry, which is cleaned up by running `after`. Both may run more than once.

use karbor_plugin::{
    CancellationToken, Intent, LedgerEntry, Outcome, PlannedAction, PlannedEffect, Purpose, Result, Task,
};
use serde_json::Value;
use tracing::warn;

use crate::command;
use crate::inventory::{Command, Instance};

/// The kind of the ledger's entry.
pub(crate) const KIND: &str = "quiesce";

/// Runs the command before.
pub(crate) async fn begin(task: &Task, instance: &Instance) -> Result<Outcome> {
    if task.dry_run {
        let commands = [("before", &instance.before), ("after", &instance.after)];
        let plan = commands.into_iter().filter_map(|(when, command)| {
            command.as_ref().map(|_| PlannedAction {
                effect: PlannedEffect::Run,
                subject: format!("the command {when} protecting `{}`", instance.name),
                details: Value::Null,
                problem: None,
                needs: Vec::new(),
            })
        });
        return Ok(Outcome { plan: plan.collect(), ..Outcome::default() });
    }
    if instance.before.is_none() && instance.after.is_none() {
        return Ok(Outcome::default());
    }
    let intent = Intent {
        kind: KIND.to_owned(),
        reference: instance.name.clone(),
        purpose: Purpose::Scaffold,
        data: Value::Null,
    };
    let id = task.ledger.intend(intent).await?;
    if let Some(before) = &instance.before
        && let Err(err) = run(before, "before", task, instance, &task.cancel).await
    {
        // It may have done a part of its work: let go at once, rather than when the operation has ended.
        match release(task, instance).await {
            Ok(()) => task.ledger.removed(id).await?,
            Err(second) => {
                warn!(error = %second, "The command after `{}` failed too: {second}", instance.name);
            }
        }
        return Err(err);
    }
    task.ledger.created(id, &instance.name).await?;
    Ok(Outcome::default())
}

/// Runs the command after, if the one before was begun and nobody has let go yet.
pub(crate) async fn end(task: &Task, instance: &Instance) -> Result<()> {
    for entry in task.ledger.entries().await? {
        if entry.kind == KIND && entry.is_open() {
            clean_up(task, instance, &entry).await?;
            task.ledger.removed(entry.id).await?;
        }
    }
    Ok(())
}

/// Runs the command after, whether the operation was cancelled or not.
pub(crate) async fn clean_up(task: &Task, instance: &Instance, _entry: &LedgerEntry) -> Result<()> {
    release(task, instance).await
}

async fn release(task: &Task, instance: &Instance) -> Result<()> {
    match &instance.after {
        Some(after) => run(after, "after", task, instance, &CancellationToken::new()).await,
        None => Ok(()),
    }
}

async fn run(
    command: &Command,
    when: &str,
    task: &Task,
    instance: &Instance,
    cancel: &CancellationToken,
) -> Result<()> {
    let what = format!("the command {when} protecting `{}`", instance.name);
    let environment = [
        ("KARBOR_PHASE", when.to_owned()),
        ("KARBOR_NAME", instance.name.clone()),
        ("KARBOR_TYPE", instance.kind.as_str().to_owned()),
        ("KARBOR_PROJECT", instance.project.to_string()),
        ("KARBOR_OPERATION", task.operation_id.to_string()),
    ];
    command::run(command, &what, &environment, cancel).await
}
