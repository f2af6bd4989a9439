//! `Host::PostgreSQL`: one database of a server, as a logical dump.
//!
//! `pg_dump` reads the whole database in one snapshot; what it writes goes straight into the checkpoint, and back
//! straight into `pg_restore`, without a file in between. It does not compress, so that the bank finds what it knows
//! already. A dump counts only when its process ended well, and a database gets its name only when it is whole:
//! restoring goes into a new database of a hidden name, in one transaction, and renaming is the last step. What stood
//! under the name is renamed away before and dropped after, so that at any moment one of the two is there.
//!
//! Not included, because they belong to the server and not to one database: roles and their passwords, tablespaces,
//! and settings made with ALTER DATABASE or ALTER ROLE.

mod process;
mod server;

use std::sync::Arc;

use async_trait::async_trait;
use karbor_plugin::{
    Error, ErrorKind, Finding, Intent, LedgerEntry, Outcome, PlannedAction, PlannedEffect, Purpose, Result,
    Schemas, Severity, Task,
};
use karbor_vault::{CopyOptions, StreamOptions};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::warn;

use crate::driver::{self, Driver, RECORD_FORMAT, announce, parameters, record};
use crate::inventory::{Instance, Inventory, Server, Source, is_database_name};
use crate::postgresql::process::{Dump, Load};
use crate::postgresql::server::{Access, Facts, Session};
use crate::{Kind, Shared, staging};

/// The record's name.
const RECORD: &str = "postgresql";
/// The stream's name.
const STREAM: &str = "dump";
/// The kind of the ledger's entry for a database that is not whole yet.
const SCRATCH: &str = "scratch-database";
/// The kind of the ledger's entry for the database that is renamed away.
const REPLACED: &str = "replaced-database";
/// The kind of the ledger's entry for the restored database.
const RESTORED: &str = "restored-database";
/// The longest name of a database, in bytes.
const MAX_NAME_BYTES: usize = 63;

/// Protects PostgreSQL databases.
#[derive(Debug)]
pub(crate) struct PostgreSqlDriver {
    shared: Arc<Shared>,
}

/// Options of protect.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    lock_timeout_seconds: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { lock_timeout_seconds: 60 }
    }
}

/// Parameters of restore.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RestoreParameters {
    in_place: bool,
    database: Option<String>,
    overwrite: bool,
    no_owner: bool,
}

/// Parameters of verify.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct VerifyParameters {
    deep: bool,
}

/// What is remembered of a protected database.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    format: u32,
    database: String,
    server_version: String,
    /// What the server said that the database occupied.
    size_bytes: u64,
    dump_bytes: u64,
    facts: Facts,
}

/// Where a restore goes.
struct Target {
    name: String,
    in_place: bool,
    exists: bool,
}

#[async_trait]
impl Driver for PostgreSqlDriver {
    fn schemas(&self) -> Schemas {
        let options = json!({
            "lock_timeout_seconds": {
                "type": "integer", "minimum": 1, "maximum": 86400, "default": 60, "title": "Lock timeout",
                "description": "How long to wait for tables that others hold locked.",
            },
        });
        let restore = json!({
            "in_place": {
                "type": "boolean", "default": false, "title": "In place",
                "description": "Restore to the database that was protected.",
            },
            "database": {
                "type": "string", "minLength": 1, "maxLength": 63, "title": "Database",
                "description": "Restore to a new database of this name, which the host's inventory must allow. \
                    Without it and without in_place: the original's name followed by _restored_ and a number.",
            },
            "overwrite": {
                "type": "boolean", "default": false, "title": "Overwrite",
                "description": "In place: replace the database that is there, and end the sessions that use it.",
            },
            "no_owner": {
                "type": "boolean", "default": false, "title": "No owner",
                "description": "Leave out owners and privileges: for a server that does not have the same roles.",
            },
        });
        let saved = json!({
            "database": {"type": "string", "title": "Database"},
            "server_version": {"type": "string", "title": "Version of the server"},
            "size_bytes": {"type": "integer", "title": "Size in bytes"},
            "dump_bytes": {"type": "integer", "title": "Size of the dump in bytes"},
            "facts": {"type": "object", "title": "Encoding, locale and owner"},
        });
        let deep = "Let pg_restore read the whole dump.";
        Schemas {
            options: driver::schema("Options of a PostgreSQL database", options),
            restore: driver::schema("Restoring a PostgreSQL database", restore),
            verify: driver::verify_schema("Verifying a PostgreSQL database", deep),
            saved_info: driver::saved_info("A protected PostgreSQL database", RECORD, saved),
        }
    }

    async fn protect(&self, task: &Task, instance: &Instance) -> Result<Outcome> {
        let options: Options = parameters(task)?;
        let access = self.access(instance)?;
        let database = &access.server.database;
        // Errors of the connection are told precisely here, which a child process's words do not allow.
        let mut session = Session::open(&access, database).await?;
        let (facts, version, size_bytes) = session.facts(database).await?;
        session.close().await;
        if task.dry_run {
            return Ok(Outcome::default());
        }
        let mut dump = Dump::start(&access, options.lock_timeout_seconds)?;
        let stream = StreamOptions {
            expected_bytes: Some(size_bytes),
            progress: Some(task.progress.clone()),
            cancel: task.cancel.clone(),
        };
        let writer = task.writer()?;
        let stored = writer.put_stream(STREAM, &mut dump, &stream).await;
        // What the process says is the cause; that its output ended early only follows from it.
        let stored = match (dump.failure().await, stored) {
            (Some(err), _) if !task.cancel.is_cancelled() => return Err(err),
            (_, stored) => stored?,
        };
        let record = Record {
            format: RECORD_FORMAT,
            database: database.clone(),
            server_version: version,
            size_bytes,
            dump_bytes: stored.size_bytes,
            facts,
        };
        writer.put_record(RECORD, json!(record))?;
        Ok(Outcome::default())
    }

    async fn restore(
        &self,
        task: &Task,
        inventory: &Inventory,
        instance: Option<&Instance>,
    ) -> Result<Outcome> {
        let wanted: RestoreParameters = parameters(task)?;
        let saved: Record = record(task, RECORD)?;
        let Some(instance) = instance else {
            let text = format!(
                "`{}` is no longer in the host's inventory, so that its server is not known; put it back there",
                task.resource.name
            );
            return Err(Error::new(ErrorKind::NotFound, text));
        };
        let access = self.access(instance)?;
        let mut session = Session::open(&access, &access.server.maintenance_database).await?;
        if !task.dry_run {
            session.claim(&claim(task)).await?;
        }
        let target = self.choose(task, inventory, &access.server, &wanted, &mut session).await;
        if task.dry_run {
            return driver::planned(&saved.database, target, |target| PlannedAction {
                effect: if target.exists { PlannedEffect::Overwrite } else { PlannedEffect::Create },
                subject: target.name.clone(),
                details: json!({"in_place": target.in_place, "size_bytes": saved.size_bytes}),
                problem: check_existing(target, &wanted).err().map(|err| err.message().to_owned()),
                needs: Vec::new(),
            });
        }
        let target = target?;
        let mut findings = Vec::new();
        if !self.is_published(task, &target, &mut session).await? {
            check_existing(&target, &wanted)?;
            findings = self.replace(task, &access, &mut session, &target, &saved, &wanted).await?;
        }
        self.settle(task, &mut session).await?;
        session.close().await;
        let place = format!("{}:{}/{}", access.server.host, access.server.port, target.name);
        let mut restored = announce(task, Kind::PostgreSql, target.in_place, &place);
        if !target.in_place {
            restored.name.clone_from(&target.name);
        }
        Ok(Outcome { restored: Some(restored), findings, ..Outcome::default() })
    }

    async fn verify(&self, task: &Task, instance: Option<&Instance>) -> Result<Outcome> {
        let wanted: VerifyParameters = parameters(task)?;
        let saved: Record = record(task, RECORD)?;
        let stream = task.reader()?.open_stream(&task.resource.key, STREAM).await?;
        let mut findings = Vec::new();
        let mut find = |message: String| {
            findings.push(Finding { severity: Severity::Error, subject: STREAM.to_owned(), message });
        };
        if stream.size_bytes() != saved.dump_bytes {
            find(format!("the dump has {} bytes, and had {}", stream.size_bytes(), saved.dump_bytes));
        }
        if wanted.deep {
            let programs = match instance {
                Some(Instance { source: Source::PostgreSql(server), .. }) => server.bin_dir.as_deref(),
                _ => None,
            };
            let mut load = Load::into_nothing(programs)?;
            let options = CopyOptions { progress: Some(task.progress.clone()), cancel: task.cancel.clone() };
            let copied = stream.copy_out(load.input()?, &options).await;
            match (load.finish().await, copied) {
                (_, Err(err)) if err.kind() != karbor_vault::ErrorKind::TargetIo => match Error::from(err) {
                    err if err.kind() == ErrorKind::Damaged => find(err.message().to_owned()),
                    err => return Err(err),
                },
                (Err(err), _) => find(err.message().to_owned()),
                (Ok(()), Ok(_)) => {}
                (Ok(()), Err(err)) => return Err(err.into()),
            }
        }
        Ok(Outcome { findings, ..Outcome::default() })
    }

    async fn clean_up(&self, task: &Task, instance: Option<&Instance>, entry: &LedgerEntry) -> Result<()> {
        let Some(instance) = instance else {
            let text = format!(
                "the database {} cannot be looked after, because its instance is no longer in the host's inventory; \
                 put it back there, or drop the database by hand",
                entry.reference
            );
            return Err(Error::new(ErrorKind::NotFound, text));
        };
        let access = self.access(instance)?;
        let mut session = Session::open(&access, &access.server.maintenance_database).await?;
        session.claim(&claim(task)).await?;
        let done = clean_up(&mut session, entry).await;
        session.close().await;
        done
    }
}

/// Returns what sessions claim that work for a task.
fn claim(task: &Task) -> String {
    format!("karbor {} {}", task.operation_id, task.resource.key.id)
}

/// Refuses a database that is there, unless it is the original and may be replaced.
fn check_existing(target: &Target, wanted: &RestoreParameters) -> Result<()> {
    if !target.exists || (target.in_place && wanted.overwrite) {
        return Ok(());
    }
    let advice = match target.in_place {
        true => "restore with overwrite to replace it, or beside it with database",
        false => "which is never replaced; drop it, or give another name",
    };
    Err(Error::new(ErrorKind::Conflict, format!("the database {} exists already; {advice}", target.name)))
}

impl PostgreSqlDriver {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn access(&self, instance: &Instance) -> Result<Access> {
        match &instance.source {
            Source::PostgreSql(server) => Access::new(server, &self.shared.environment),
            _ => Err(Error::new(ErrorKind::Other, format!("`{}` is no PostgreSQL database", instance.name))),
        }
    }

    /// Chooses the database to restore to, as the parameters say and the inventory allows.
    async fn choose(
        &self,
        task: &Task,
        inventory: &Inventory,
        server: &Server,
        wanted: &RestoreParameters,
        session: &mut Session,
    ) -> Result<Target> {
        let invalid = |text: String| Err(Error::new(ErrorKind::Invalid, text));
        let name = match (&wanted.database, wanted.in_place) {
            (Some(_), true) => return invalid("give in_place or database, not both".to_owned()),
            (None, true) => server.database.clone(),
            (Some(name), false) => name.clone(),
            (None, false) => {
                let operation = task.operation_id.0.simple().to_string();
                let ending = format!("_restored_{}", &operation[operation.len() - 8..]);
                shortened(&server.database, MAX_NAME_BYTES - ending.len()) + &ending
            }
        };
        if !is_database_name(&name) {
            return invalid(format!(
                "`{name}` is not a database name: 1 to 63 bytes without control characters"
            ));
        }
        if !wanted.in_place {
            allow(&name, server, inventory, wanted.database.is_some())?;
        }
        let exists = session.exists(&name).await?;
        Ok(Target { name, in_place: wanted.in_place, exists })
    }

    /// Returns whether an earlier attempt of this operation finished the database under its name.
    async fn is_published(&self, task: &Task, target: &Target, session: &mut Session) -> Result<bool> {
        let entries = task.ledger.entries().await?;
        let find = |kind: &str| entries.iter().find(|entry| entry.kind == kind && entry.is_open());
        let Some(product) = find(RESTORED).filter(|entry| entry.reference == target.name) else {
            return Ok(false);
        };
        if product.state == karbor_plugin::LedgerState::Created {
            return Ok(target.exists);
        }
        // It was about to be renamed to its name, which was free. If the hidden name is gone, it was.
        match product.data.get("scratch").and_then(Value::as_str) {
            Some(hidden) => Ok(target.exists && !session.exists(hidden).await?),
            None => Ok(false),
        }
    }

    /// Returns a word for the names of this attempt, and drops what earlier ones left.
    async fn fresh_tag(&self, task: &Task, session: &mut Session) -> Result<String> {
        let session = tokio::sync::Mutex::new(session);
        staging::fresh_tag(task, SCRATCH, async |entry| clean_up(*session.lock().await, &entry).await).await
    }

    /// Ends what an earlier attempt, or this one, left open after its success.
    async fn settle(&self, task: &Task, session: &mut Session) -> Result<()> {
        for entry in task.ledger.entries().await? {
            match entry.kind.as_str() {
                RESTORED if entry.is_open() => task.ledger.created(entry.id, &entry.reference).await?,
                SCRATCH | REPLACED if entry.is_open() => {
                    clean_up(session, &entry).await?;
                    task.ledger.removed(entry.id).await?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Restores into a database of a hidden name, and renames it when it is whole.
    async fn replace(
        &self,
        task: &Task,
        access: &Access,
        session: &mut Session,
        target: &Target,
        saved: &Record,
        wanted: &RestoreParameters,
    ) -> Result<Vec<Finding>> {
        let tag = self.fresh_tag(task, session).await?;
        let hidden = format!("karbor_{tag}");
        let scratch = intend(task, SCRATCH, &hidden, Purpose::Scaffold, Value::Null).await?;
        session.create(&hidden, &saved.facts).await?;
        if let Err(err) = self.load(task, access, &hidden, wanted.no_owner).await {
            match session.drop(&hidden).await {
                Ok(()) => task.ledger.removed(scratch).await?,
                Err(second) => warn!(error = %second, "Cannot drop the database {hidden} yet: {second}"),
            }
            return Err(err);
        }
        let mut findings = Vec::new();
        let owner = match target.exists {
            true => session.owner(&target.name).await?,
            false => Some(saved.facts.owner.clone()),
        };
        if let Some(owner) = owner.filter(|_| !wanted.no_owner)
            && let Err(err) = session.set_owner(&hidden, &owner).await
        {
            findings.push(Finding {
                severity: Severity::Warning,
                subject: target.name.clone(),
                message: format!(
                    "the database belongs to the connecting user and not to {owner}: {}",
                    err.message()
                ),
            });
        }
        let away = format!("karbor_old_{tag}");
        if target.exists {
            let data = json!({"database": target.name});
            intend(task, REPLACED, &away, Purpose::Scaffold, data).await?;
            session.rename_away(&target.name, &away).await?;
        }
        let data = json!({"replaced": target.exists, "scratch": hidden});
        intend(task, RESTORED, &target.name, Purpose::Product, data).await?;
        session.rename(&hidden, &target.name).await?;
        Ok(findings)
    }

    /// Streams the dump into `pg_restore`.
    async fn load(&self, task: &Task, access: &Access, database: &str, no_owner: bool) -> Result<()> {
        let stream = task.reader()?.open_stream(&task.resource.key, STREAM).await?;
        let mut load = Load::into_database(access, database, no_owner)?;
        let options = CopyOptions { progress: Some(task.progress.clone()), cancel: task.cancel.clone() };
        let copied = stream.copy_out(load.input()?, &options).await;
        match copied {
            // The process went away: what it says is the cause.
            Err(err) if err.kind() == karbor_vault::ErrorKind::TargetIo => match load.finish().await {
                Err(cause) => Err(cause),
                Ok(()) => Err(err.into()),
            },
            Err(err) => {
                load.abort().await;
                Err(err.into())
            }
            Ok(_) => load.finish().await,
        }
    }
}

async fn intend(
    task: &Task,
    kind: &str,
    reference: &str,
    purpose: Purpose,
    data: Value,
) -> Result<karbor_plugin::LedgerId> {
    let intent = Intent { kind: kind.to_owned(), reference: reference.to_owned(), purpose, data };
    task.ledger.intend(intent).await
}

/// Removes what a ledger entry tells of; a database that was renamed away gets its name back if nobody has it.
async fn clean_up(session: &mut Session, entry: &LedgerEntry) -> Result<()> {
    match entry.kind.as_str() {
        SCRATCH => session.drop(&entry.reference).await,
        REPLACED => {
            let name = entry.data.get("database").and_then(Value::as_str).unwrap_or_default();
            if !session.exists(&entry.reference).await? {
                // It was renamed back, or nobody came further than keeping its users out.
                return session.let_in(name).await;
            }
            match session.exists(name).await? {
                true => session.drop(&entry.reference).await,
                false => session.rename_back(&entry.reference, name).await,
            }
        }
        RESTORED if entry.data.get("replaced") == Some(&Value::Bool(true)) => {
            let text =
                format!("the database {} replaced another, which cannot be brought back", entry.reference);
            Err(Error::new(ErrorKind::Unsupported, text))
        }
        RESTORED if entry.state == karbor_plugin::LedgerState::Created => {
            session.drop(&entry.reference).await
        }
        _ => Ok(()),
    }
}

/// Refuses a name that the inventory does not allow, and one that is another instance's.
fn allow(name: &str, server: &Server, inventory: &Inventory, chosen: bool) -> Result<()> {
    let denied = |text: String| Err(Error::new(ErrorKind::Denied, text));
    for other in inventory.all() {
        if let Source::PostgreSql(other) = &other.source
            && (other.host.as_str(), other.port, other.database.as_str()) == (&server.host, server.port, name)
        {
            return denied(format!("the database name {name} is kept for something else; choose another"));
        }
    }
    let own = format!("{}_*", server.database);
    let patterns = match server.restore_databases.is_empty() {
        true => std::slice::from_ref(&own),
        false => server.restore_databases.as_slice(),
    };
    // The name that we give is unique, and needs nobody's permission.
    if !chosen || patterns.iter().any(|pattern| matches(pattern, name)) {
        return Ok(());
    }
    denied(format!("a restored database may not be called {name}; allowed is: {}", patterns.join(", ")))
}

/// Returns whether a name follows a pattern, in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Cuts a text to so many bytes, between two characters.
fn shortened(text: &str, max_bytes: usize) -> String {
    let mut end = text.len().min(max_bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, want) in [
            ("shop_*", "shop_", true),
            ("shop_*", "shop_2", true),
            ("shop_*", "shop", false),
            ("shop_*", "xshop_2", false),
            ("*", "anything", true),
            ("shop", "shop", true),
            ("shop", "shop2", false),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "a1c2b", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, name), want, "{pattern} {name}");
        }
    }

    #[test]
    fn names_are_cut_between_characters() {
        assert_eq!(shortened("größe", 3), "gr");
        assert_eq!(shortened("größe", 4), "grö");
        assert_eq!(shortened("ab", 9), "ab");
    }
}
