//! The checks of the kit, one function each.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;

use karbor_bank::{Bank, Key};
use karbor_types::{Hook, OperationKind, Parameters, Resource};
use serde_json::{Map, Value, json};

use crate::conformance::bench::{Bench, Operation, Verdict, call_after, drop_after, merged};
use crate::conformance::kind;
use crate::schema::Schema;
use crate::{Error, ErrorKind, Page, Severity, TaskVault};

/// One check.
pub(super) type Check = for<'a, 'b> fn(&'a Bench<'b>) -> Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

/// At which waits a hook is dropped or cancelled.
const WAITS: [usize; 12] = [0, 1, 2, 3, 4, 6, 9, 13, 20, 40, 80, 160];

pub(super) async fn description(bench: &Bench<'_>) -> Verdict {
    let description = bench.fixture.protection().describe();
    if description != bench.fixture.protection().describe() {
        return Err("two objects of the plugin describe themselves differently".to_owned());
    }
    if description.name.is_empty() || description.version.is_empty() {
        return Err("it has no name or no version".to_owned());
    }
    let Some(own) = description.kind(&kind(bench.fixture)) else {
        return Err("it does not describe the type of the fixture's resource".to_owned());
    };
    for (operation, hooks) in &own.hooks {
        if !hooks.is_empty() && !own.operations.contains(operation) {
            return Err(format!("it has hooks for {operation}, which it does not implement"));
        }
    }
    for operation in [OperationKind::Protect, OperationKind::Restore, OperationKind::Delete] {
        if !own.operations.contains(&operation) {
            return Err(format!("it does not implement {operation}"));
        }
    }
    for schema in [&own.schemas.options, &own.schemas.restore, &own.schemas.verify, &own.schemas.saved_info] {
        Schema::compile(schema).map_err(|err| format!("a schema cannot be used: {err}"))?;
    }
    Ok(())
}

pub(super) async fn parameters(bench: &Bench<'_>) -> Verdict {
    let kind = kind(bench.fixture);
    for operation in [OperationKind::Protect, OperationKind::Restore, OperationKind::Verify] {
        let described = bench.provider.kind(&kind).and_then(|kind| kind.schemas.of(operation));
        let Some(properties) =
            described.and_then(|schema| schema.get("properties")).and_then(Value::as_object)
        else {
            continue;
        };
        let mut bad = vec![json!({"no-such-member": 1})];
        for (name, property) in properties {
            let wrong = match property.get("type").and_then(Value::as_str) {
                Some("boolean" | "integer" | "number" | "array" | "object") => json!("neither"),
                Some("string") => json!(5),
                _ => continue,
            };
            bad.push(json!({name: wrong}));
        }
        for members in bad {
            let given = Parameters::parse(&json!({kind.as_str(): members})).map_err(|err| err.to_string())?;
            match bench.provider.check_parameters(operation, &given) {
                Err(err) if err.kind() == ErrorKind::Invalid => {}
                other => return Err(format!("{operation} with {members} answered {other:?}")),
            }
        }
    }
    Ok(())
}

pub(super) async fn strangers(bench: &Bench<'_>) -> Verdict {
    let (own, stranger, resource) =
        (bench.fixture.context(), bench.fixture.stranger(), bench.fixture.resource());
    let mut listed: BTreeSet<String> = BTreeSet::new();
    for protectable in bench.fixture.protectables() {
        let mut page = Page { after: None, limit: 1 };
        loop {
            let found = protectable.list(&own, &page).await.map_err(|err| err.to_string())?;
            listed.extend(found.instances.iter().map(|instance| instance.key.to_string()));
            match found.next {
                Some(next) => page.after = Some(next),
                None => break,
            }
        }
        let seen = protectable.list(&stranger, &Page::default()).await.map_err(|err| err.to_string())?;
        if let Some(first) = seen.instances.first() {
            return Err(format!("another project's list has {}", first.key));
        }
        match protectable.dependents(&stranger, &resource).await {
            Err(err) => well_formed(&err)?,
            Ok(below) if below.is_empty() => {}
            Ok(below) => return Err(format!("another project sees {} dependents", below.len())),
        }
        if protectable.kind() != resource.key.kind {
            continue;
        }
        let shown = protectable.show(&own, &resource.key.id, &Map::new()).await;
        if shown.as_ref().map(|shown| &shown.key).ok() != Some(&resource.key) {
            return Err(format!("its own project is shown {shown:?}"));
        }
        for (context, id) in
            [(&stranger, resource.key.id.as_str()), (&own, "00000000-0000-0000-0000-000000000000")]
        {
            match protectable.show(context, id, &Map::new()).await {
                Err(err) if err.kind() == ErrorKind::NotFound => well_formed(&err)?,
                other => return Err(format!("showing what is not there answered {other:?}")),
            }
        }
    }
    if !listed.contains(&resource.key.to_string()) {
        return Err("the resource is not in its own project's list".to_owned());
    }
    // A plan that names another project's resource, or one that does not exist.
    let foreign = Operation { context: stranger, ..bench.protecting()? };
    refuse_protect(bench, &foreign, resource.clone()).await?;
    let mut missing = resource;
    missing.key.id = "00000000-0000-0000-0000-000000000000".to_owned();
    refuse_protect(bench, &bench.protecting()?, missing).await
}

async fn refuse_protect(bench: &Bench<'_>, operation: &Operation, resource: Resource) -> Verdict {
    let writer = bench.writer(operation).await?;
    let vault = TaskVault::Write(writer.resource(&resource.key));
    let mut state = Value::Null;
    for &hook in Hook::ALL {
        let mut task = bench.task(operation, &state, vault.clone());
        task.resource = resource.clone();
        match bench.fixture.protection().run(hook, &task).await {
            Ok(outcome) => state = merged(&state, &outcome.state),
            Err(err) if err.kind() == ErrorKind::NotFound => return well_formed(&err),
            Err(err) => return Err(format!("{hook} of a resource that is not there failed with {err:?}")),
        }
    }
    match bench.fixture.stores_data() {
        true => Err("a resource that is not there was protected".to_owned()),
        false => Ok(()),
    }
}

pub(super) async fn identity(bench: &Bench<'_>, times: u32) -> Verdict {
    let before = bench.fixture.fingerprint().await;
    let protected = bench.protect_as(&bench.protecting()?, times).await?;
    if bench.fixture.fingerprint().await != before {
        return Err("protecting changed something outside the bank for good".to_owned());
    }
    let schema = bench.provider.kind(&kind(bench.fixture)).map(|kind| kind.schemas.saved_info.clone());
    let schema = Schema::compile(&schema.unwrap_or_default()).map_err(|err| err.to_string())?;
    let records: Map<String, Value> = bench.records(&protected).into_iter().collect();
    schema.check(&records).map_err(|err| format!("what was saved does not follow its schema: {err}"))?;
    if bench.fixture.stores_data() == protected.saved.streams.is_empty() {
        return Err(format!("it stored {} streams", protected.saved.streams.len()));
    }
    bench.fixture.lose().await;
    bench.restore_as(&bench.restoring(&protected)?, times).await
}

pub(super) async fn dropped_protect(bench: &Bench<'_>) -> Verdict {
    for waits in WAITS {
        bench.fixture.reset().await;
        let operation = bench.protecting()?;
        let writer = bench.writer(&operation).await?;
        let vault = TaskVault::Write(writer.resource(&bench.fixture.resource().key));
        let ended = drop_after(waits, bench.hooks(&operation, &vault, 1)).await.is_some();
        operation.dropped.store(true, Ordering::Relaxed);
        let at = |reason: String| format!("dropped after {waits} waits: {reason}");
        let protected = bench.protect_as(&operation, 1).await.map_err(at)?;
        bench.fixture.lose().await;
        bench.restore_as(&bench.restoring(&protected)?, 1).await.map_err(at)?;
        if ended {
            break;
        }
    }
    Ok(())
}

pub(super) async fn dropped_restore(bench: &Bench<'_>) -> Verdict {
    for waits in WAITS {
        bench.fixture.reset().await;
        let protected = bench.protect().await?;
        bench.fixture.lose().await;
        let operation = bench.restoring(&protected)?;
        let vault = TaskVault::Read(bench.reader(protected.checkpoint).await?);
        let ended = drop_after(waits, bench.hooks(&operation, &vault, 1)).await.is_some();
        operation.dropped.store(true, Ordering::Relaxed);
        let again = bench.restore_as(&operation, 1).await;
        again.map_err(|reason| format!("dropped after {waits} waits: {reason}"))?;
        if ended {
            break;
        }
    }
    Ok(())
}

pub(super) async fn abandoned_protect(bench: &Bench<'_>) -> Verdict {
    let before = bench.fixture.fingerprint().await;
    for waits in WAITS {
        let operation = bench.protecting()?;
        let writer = bench.writer(&operation).await?;
        let vault = TaskVault::Write(writer.resource(&bench.fixture.resource().key));
        let ended = drop_after(waits, bench.hooks(&operation, &vault, 1)).await.is_some();
        bench.clean_up(&operation, &vault, true).await?;
        if bench.fixture.fingerprint().await != before {
            return Err(format!("given up after {waits} waits, it left something"));
        }
        if ended {
            break;
        }
    }
    Ok(())
}

pub(super) async fn abandoned_restore(bench: &Bench<'_>) -> Verdict {
    let protected = bench.protect().await?;
    bench.fixture.lose().await;
    let before = bench.fixture.fingerprint().await;
    for waits in WAITS {
        let operation = bench.restoring(&protected)?;
        let vault = TaskVault::Read(bench.reader(protected.checkpoint).await?);
        let ended = drop_after(waits, bench.hooks(&operation, &vault, 1)).await.is_some();
        bench.clean_up(&operation, &vault, true).await?;
        if bench.fixture.fingerprint().await != before {
            return Err(format!("given up after {waits} waits, it left something"));
        }
        if ended {
            break;
        }
    }
    Ok(())
}

pub(super) async fn cancelled(bench: &Bench<'_>) -> Verdict {
    for kind in [OperationKind::Protect, OperationKind::Restore] {
        for waits in WAITS {
            bench.fixture.reset().await;
            let (operation, vault, _writer) = match kind {
                OperationKind::Protect => {
                    let operation = bench.protecting()?;
                    let writer = bench.writer(&operation).await?;
                    let vault = TaskVault::Write(writer.resource(&bench.fixture.resource().key));
                    (operation, vault, Some(writer))
                }
                _ => {
                    // What was reset may be another one than before.
                    let protected = bench.protect().await?;
                    bench.fixture.lose().await;
                    let reader = bench.reader(protected.checkpoint).await?;
                    (bench.restoring(&protected)?, TaskVault::Read(reader), None)
                }
            };
            let before = bench.fixture.fingerprint().await;
            let cancel = operation.cancel.clone();
            let hooks = Box::pin(bench.hooks(&operation, &vault, 1));
            let ended = match call_after(waits, move || cancel.cancel(), hooks).await {
                Ok(_) => true,
                Err(err) if err.kind() == ErrorKind::Cancelled => false,
                Err(err) => return Err(format!("a cancelled {kind} failed with {err:?}")),
            };
            bench.clean_up(&operation, &vault, true).await?;
            if bench.fixture.fingerprint().await != before {
                return Err(format!("a {kind} that was cancelled after {waits} waits left something"));
            }
            if ended {
                break;
            }
        }
    }
    Ok(())
}

pub(super) async fn dry_run(bench: &Bench<'_>) -> Verdict {
    for lost in [true, false] {
        bench.fixture.reset().await;
        let protected = bench.protect().await?;
        if lost {
            bench.fixture.lose().await;
        }
        let before = bench.fixture.fingerprint().await;
        let operation = Operation { dry_run: true, ..bench.restoring(&protected)? };
        let vault = TaskVault::Read(bench.reader(protected.checkpoint).await?);
        let outcomes = bench.hooks(&operation, &vault, 1).await;
        let outcomes = outcomes.map_err(|err| format!("a dry run failed: {err}"))?;
        if bench.fixture.fingerprint().await != before {
            return Err("a dry run changed something".to_owned());
        }
        let mut plan = outcomes.iter().flat_map(|outcome| &outcome.plan).peekable();
        if bench.fixture.stores_data() && plan.peek().is_none() {
            return Err("a dry run does not say what would be done".to_owned());
        }
        if lost && let Some(problem) = plan.find_map(|action| action.problem.as_ref()) {
            return Err(format!("a dry run sees a problem with what can be restored: {problem}"));
        }
        if outcomes.iter().any(|outcome| outcome.restored.is_some()) {
            return Err("a dry run announced something restored".to_owned());
        }
    }
    Ok(())
}

pub(super) async fn verify_whole(bench: &Bench<'_>) -> Verdict {
    let protected = bench.protect().await?;
    for given in [Map::new(), bench.fixture.verify_parameters()] {
        if let Some(wrong) =
            verify(bench, &bench.on(protected.checkpoint, OperationKind::Verify, given)?).await?
        {
            return Err(wrong);
        }
    }
    Ok(())
}

/// Verifies a checkpoint; returns what was found wrong with it.
async fn verify(bench: &Bench<'_>, operation: &Operation) -> Verdict<Option<String>> {
    let reader = match bench.account.read(operation.checkpoint).await {
        Ok(reader) => reader,
        Err(err) => return Ok(Some(err.to_string())),
    };
    let before = bench.fixture.fingerprint().await;
    let vault = TaskVault::Read(reader.into());
    let verified = bench.hooks(operation, &vault, 1).await;
    bench.clean_up(operation, &vault, true).await?;
    if bench.fixture.fingerprint().await != before {
        return Err("verifying left something".to_owned());
    }
    match verified {
        Err(err) => {
            well_formed(&err)?;
            Ok(Some(err.message().to_owned()))
        }
        Ok(outcomes) => {
            let mut findings = outcomes.into_iter().flat_map(|outcome| outcome.findings);
            let wrong = findings.find(|finding| finding.severity == Severity::Error);
            Ok(wrong.map(|finding| finding.message))
        }
    }
}

pub(super) async fn damage(bench: &Bench<'_>) -> Verdict {
    if !bench.fixture.stores_data() {
        return Ok(());
    }
    let protected = bench.protect().await?;
    bench.fixture.lose().await;
    let before = bench.fixture.fingerprint().await;
    let packs: Vec<Key> = bench
        .bank
        .contents()
        .into_iter()
        .map(|(key, _)| key)
        .filter(|key| key.as_str().contains("/packs/"))
        .collect();
    for key in packs {
        bench.bank.delete(&key).await.map_err(|err| err.to_string())?;
    }
    // Nothing that was read before may hide the damage.
    let bench = Bench {
        account: bench.reopened().await?,
        provider: bench.provider.clone(),
        bank: bench.bank.clone(),
        ..*bench
    };
    let given = bench.fixture.verify_parameters();
    let verifying = bench.on(protected.checkpoint, OperationKind::Verify, given)?;
    if verify(&bench, &verifying).await?.is_none() {
        return Err("verifying found nothing wrong although the data is gone".to_owned());
    }
    let restoring = bench.restoring(&protected)?;
    if let Ok(reader) = bench.account.read(protected.checkpoint).await {
        let vault = TaskVault::Read(reader.into());
        match bench.hooks(&restoring, &vault, 1).await {
            Ok(_) => return Err("restoring went well although the data is gone".to_owned()),
            Err(err) => well_formed(&err)?,
        }
        bench.clean_up(&restoring, &vault, true).await?;
    }
    if bench.fixture.fingerprint().await != before {
        return Err("a restore of data that is gone left something".to_owned());
    }
    Ok(())
}

pub(super) async fn copy_and_delete(bench: &Bench<'_>) -> Verdict {
    let protected = bench.protect().await?;
    bench.fixture.lose().await;
    let described = bench.provider.kind(&kind(bench.fixture)).map(|kind| kind.operations.clone());
    if described.is_some_and(|operations| operations.contains(&OperationKind::Copy)) {
        let vault = TaskVault::Read(bench.reader(protected.checkpoint).await?);
        let copying = bench.on(protected.checkpoint, OperationKind::Copy, Map::new())?;
        bench.hooks(&copying, &vault, 2).await.map_err(|err| format!("copying: {err}"))?;
    }
    let vault = TaskVault::Records(bench.records(&protected));
    let deleting = bench.on(protected.checkpoint, OperationKind::Delete, Map::new())?;
    bench.hooks(&deleting, &vault, 2).await.map_err(|err| format!("deleting: {err}"))?;
    Ok(())
}

/// Sees that an error can be shown to a person.
fn well_formed(err: &Error) -> Verdict {
    let text = err.message();
    if text.trim().is_empty() || text.contains("/proc/self/fd") {
        return Err(format!("an error does not say what is wrong: {text:?}"));
    }
    Ok(())
}
