//! The protection plugins of this crate: one frame for all types, with a [`Driver`] for what differs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use karbor_plugin::{
    Description, Error, ErrorKind, Hook, KindDescription, LedgerEntry, OperationKind, Outcome, Protection,
    Result, Task,
};

use crate::application::ApplicationDriver;
use crate::directory::DirectoryDriver;
use crate::disk::DiskDriver;
use crate::driver::Driver;
use crate::inventory::{Instance, Inventory, Release};
use crate::postgresql::PostgreSqlDriver;
use crate::protectable::not_found;
use crate::sqlite::SqliteDriver;
use crate::{Kind, Shared, quiesce};

/// Protects one type of the inventory.
#[derive(Debug)]
pub(crate) struct HostProtection {
    kind: Kind,
    shared: Arc<Shared>,
    driver: Box<dyn Driver>,
}

impl HostProtection {
    pub(crate) fn new(kind: Kind, shared: Arc<Shared>) -> Self {
        let driver: Box<dyn Driver> = match kind {
            Kind::Application => Box::new(ApplicationDriver),
            Kind::Directory => Box::new(DirectoryDriver),
            Kind::Disk => Box::new(DiskDriver),
            Kind::PostgreSql => Box::new(PostgreSqlDriver::new(Arc::clone(&shared))),
            Kind::Sqlite => Box::new(SqliteDriver::new(Arc::clone(&shared))),
        };
        Self { kind, shared, driver }
    }

    async fn protect(&self, hook: Hook, task: &Task, instance: &Instance) -> Result<Outcome> {
        match (hook, instance.release) {
            (Hook::PrepareBegin, _) => quiesce::begin(task, instance).await,
            (Hook::Main, _) => self.driver.protect(task, instance).await,
            (Hook::PrepareFinish, Release::Prepared) | (Hook::Complete, Release::Copied) => {
                if !task.dry_run {
                    quiesce::end(task, instance).await?;
                }
                Ok(Outcome::default())
            }
            (Hook::PrepareFinish, Release::Copied) | (Hook::Complete, Release::Prepared) => {
                Ok(Outcome::default())
            }
        }
    }
}

/// Returns the task's instance, if its project has it.
fn find<'a>(inventory: &'a Inventory, task: &Task) -> Option<&'a Instance> {
    inventory.find(&task.context.project, &task.resource.key)
}

#[async_trait]
impl Protection for HostProtection {
    fn describe(&self) -> Description {
        use OperationKind as Op;
        let main = BTreeSet::from([Hook::Main]);
        // Everything that is stored lies in the bank: copying and deleting checkpoints needs nothing of us.
        let hooks = BTreeMap::from([
            (Op::Protect, Hook::ALL.iter().copied().collect()),
            (Op::Restore, main.clone()),
            (Op::Verify, main),
        ]);
        let kind = KindDescription {
            kind: self.kind.resource_type(),
            operations: BTreeSet::from([Op::Protect, Op::Restore, Op::Verify, Op::Copy, Op::Delete]),
            schemas: self.driver.schemas(),
            hooks,
        };
        let name = match self.kind {
            Kind::Application => "host-application",
            Kind::Directory => "host-directory",
            Kind::Disk => "host-disk",
            Kind::PostgreSql => "host-postgresql",
            Kind::Sqlite => "host-sqlite",
        };
        Description {
            name: name.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kinds: vec![kind],
        }
    }

    async fn run(&self, hook: Hook, task: &Task) -> Result<Outcome> {
        task.check_cancelled()?;
        if task.resource.key.kind != self.kind.resource_type() {
            let text = format!("this plugin does not handle resources of type {}", task.resource.key.kind);
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        let inventory = self.shared.inventory.current();
        let instance = find(&inventory, task);
        match (task.operation, hook) {
            (OperationKind::Protect, hook) => match instance {
                Some(instance) => self.protect(hook, task, instance).await,
                None => Err(not_found(&task.resource.key)),
            },
            (OperationKind::Restore, Hook::Main) => self.driver.restore(task, &inventory, instance).await,
            (OperationKind::Verify, Hook::Main) => self.driver.verify(task, instance).await,
            _ => Ok(Outcome::default()),
        }
    }

    async fn clean_up(&self, task: &Task, entry: &LedgerEntry) -> Result<()> {
        let inventory = self.shared.inventory.current();
        let instance = find(&inventory, task);
        if entry.kind == quiesce::KIND {
            let Some(instance) = instance else {
                let text = format!(
                    "`{}` left the inventory while it was protected, so that the command after cannot be run; \
                     run it by hand, or put the instance back",
                    entry.reference
                );
                return Err(Error::new(ErrorKind::NotFound, text));
            };
            return quiesce::clean_up(task, instance, entry).await;
        }
        self.driver.clean_up(task, instance, entry).await
    }
}
