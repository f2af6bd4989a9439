//! `Host::Application`: nothing of its own but its name, its members, and the commands around them.

use async_trait::async_trait;
use karbor_plugin::{LedgerEntry, Outcome, Result, Schemas, Task};
use serde_json::{Value, json};

use crate::Kind;
use crate::driver::{self, Driver, RECORD_FORMAT, announce};
use crate::inventory::{Instance, Inventory};

/// The record's name.
const RECORD: &str = "application";

/// Groups other instances.
#[derive(Debug)]
pub(crate) struct ApplicationDriver;

#[async_trait]
impl Driver for ApplicationDriver {
    fn schemas(&self) -> Schemas {
        let members = json!({"members": {"type": "array", "title": "Members", "items": {"type": "string"}}});
        Schemas {
            options: driver::schema("Options of an application", json!({})),
            restore: driver::schema("Restoring an application", json!({})),
            verify: driver::schema("Verifying an application", json!({})),
            saved_info: driver::saved_info("A protected application", RECORD, members),
        }
    }

    async fn protect(&self, task: &Task, _instance: &Instance) -> Result<Outcome> {
        if task.dry_run {
            return Ok(Outcome::default());
        }
        let members: Vec<Value> =
            task.children.iter().map(|child| child.resource.key.to_string().into()).collect();
        task.writer()?.put_record(RECORD, json!({"format": RECORD_FORMAT, "members": members}))?;
        Ok(Outcome::default())
    }

    async fn restore(
        &self,
        task: &Task,
        _inventory: &Inventory,
        _instance: Option<&Instance>,
    ) -> Result<Outcome> {
        let restored = (!task.dry_run).then(|| announce(task, Kind::Application, true, ""));
        Ok(Outcome { restored, ..Outcome::default() })
    }

    async fn verify(&self, task: &Task, _instance: Option<&Instance>) -> Result<Outcome> {
        let _: Value = driver::record(task, RECORD)?;
        Ok(Outcome::default())
    }

    async fn clean_up(&self, _task: &Task, _instance: Option<&Instance>, _entry: &LedgerEntry) -> Result<()> {
        Ok(())
    }
}
