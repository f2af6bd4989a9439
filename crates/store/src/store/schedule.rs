//! Triggers and scheduled operations.

use karbor_types::{Instant, ScheduledOperationId, TriggerId};
use sea_query::{Expr, ExprTrait, Query};

use crate::sql::{Row, Table, Transaction, is_referred_to, json, not_found};
use crate::store::delegations::release;
use crate::store::transaction::transaction;
use crate::{
    DelegationOwner, Error, Result, RunRules, ScheduledOperation, ScheduledOperationQuery,
    ScheduledOperationUpdate, Store, Trigger, TriggerQuery, TriggerUpdate,
};

impl Table for Trigger {
    const TABLE: &'static str = "triggers";
    const WHAT: &'static str = "trigger";
    const COLUMNS: &'static [&'static str] =
        &["id", "name", "project_id", "kind", "properties", "next_at", "fault", "created_at", "updated_at"];

    fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.parsed("id")?,
            name: row.text("name")?,
            project: row.parsed("project_id")?,
            kind: row.text("kind")?,
            properties: row.json("properties")?,
            next_at: row.optional_instant("next_at")?,
            fault: row.optional_text("fault")?,
            created_at: row.instant("created_at")?,
            updated_at: row.optional_instant("updated_at")?,
        })
    }
}

impl Table for ScheduledOperation {
    const TABLE: &'static str = "scheduled_operations";
    const WHAT: &'static str = "scheduled operation";
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "name",
        "description",
        "operation_type",
        "user_id",
        "project_id",
        "trigger_id",
        "operation_definition",
        "enabled",
        "rules",
        "created_at",
        "updated_at",
    ];

    fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.parsed("id")?,
            name: row.text("name")?,
            description: row.optional_text("description")?,
            operation_type: row.text("operation_type")?,
            user: row.parsed("user_id")?,
            project: row.parsed("project_id")?,
            trigger: row.parsed("trigger_id")?,
            definition: row.json("operation_definition")?,
            enabled: row.truth("enabled")?,
            rules: row.optional_json::<Option<RunRules>>("rules")?.unwrap_or_default(),
            created_at: row.instant("created_at")?,
            updated_at: row.optional_instant("updated_at")?,
        })
    }
}

impl Store {
    /// Adds a trigger.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`].
    pub async fn create_trigger(&self, trigger: &Trigger) -> Result<()> {
        let id = trigger.id.to_string();
        let properties = json("the properties of a trigger", &trigger.properties)?;
        transaction!(self, "adding a trigger", |tx| {
            let values = vec![
                ("id", Expr::val(id.as_str())),
                ("name", Expr::val(trigger.name.as_str())),
                ("project_id", Expr::val(trigger.project.as_str())),
                ("kind", Expr::val(trigger.kind.as_str())),
                ("properties", Expr::val(properties.as_str())),
                ("next_at", Expr::val(trigger.next_at.map(Instant::as_micros))),
                ("fault", Expr::val(trigger.fault.clone())),
                ("created_at", Expr::val(trigger.created_at.as_micros())),
                ("updated_at", Expr::val(trigger.updated_at.map(Instant::as_micros))),
            ];
            tx.insert::<Trigger>(&id, values).await
        })
    }

    /// Returns a trigger.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn get_trigger(&self, id: TriggerId) -> Result<Trigger> {
        self.find("looking up a trigger", &id.to_string()).await
    }

    /// Lists triggers.
    ///
    /// # Errors
    /// [`Error::UnknownMarker`].
    pub async fn list_triggers(&self, query: &TriggerQuery) -> Result<Vec<Trigger>> {
        self.list("listing triggers", query, None).await
    }

    /// Changes a trigger and returns it as it is then.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when it is not due as planned.
    pub async fn update_trigger(
        &self,
        id: TriggerId,
        update: &TriggerUpdate,
        now: Instant,
    ) -> Result<Trigger> {
        let id = id.to_string();
        let properties =
            update.properties.as_ref().map(|properties| json("the properties of a trigger", properties));
        let properties = properties.transpose()?;
        transaction!(self, "changing a trigger", |tx| {
            let mut statement = Query::update();
            statement.table(Trigger::TABLE).value("updated_at", now.as_micros());
            if let Some(name) = &update.name {
                statement.value("name", name.as_str());
            }
            if let Some(properties) = &properties {
                statement.value("properties", properties.as_str());
                statement.value("revision", Expr::col("revision").add(1i64));
                // Whatever kept it from being read was in what it said before.
                statement.value("fault", Option::<String>::None);
            }
            if let Some(next_at) = update.next_at {
                statement.value("next_at", next_at.map(Instant::as_micros));
                statement.value("handed_to", Option::<String>::None);
            }
            statement.and_where(Expr::col("id").eq(id.as_str()));
            match update.planned {
                None => {}
                Some(None) => _ = statement.and_where(Expr::col("next_at").is_null()),
                Some(Some(at)) => _ = statement.and_where(Expr::col("next_at").eq(at.as_micros())),
            }
            let changed = tx.execute(&statement).await?;
            let trigger = tx.find(&id).await?;
            if changed == 0 && update.planned.is_some() {
                let state = "due at another time".to_owned();
                return Err(Error::Conflict { what: Trigger::WHAT, id: id.clone(), state });
            }
            Ok(trigger)
        })
    }

    /// Deletes a trigger that no scheduled operation refers to.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InUse`].
    pub async fn delete_trigger(&self, id: TriggerId) -> Result<()> {
        let id = id.to_string();
        transaction!(self, "deleting a trigger", |tx| {
            delete::<Trigger>(tx, &id).await.map_err(|error| {
                if is_referred_to(&error) {
                    return Error::InUse { what: Trigger::WHAT, id: id.clone() };
                }
                error
            })
        })
    }

    /// Adds a scheduled operation.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`]; [`Error::NotFound`] of the trigger.
    pub async fn create_scheduled_operation(&self, operation: &ScheduledOperation) -> Result<()> {
        let id = operation.id.to_string();
        let definition = json("the definition of a scheduled operation", &operation.definition)?;
        let rules = json("the rules of a scheduled operation", &operation.rules)?;
        transaction!(self, "adding a scheduled operation", |tx| {
            let values = vec![
                ("id", Expr::val(id.as_str())),
                ("name", Expr::val(operation.name.as_str())),
                ("description", Expr::val(operation.description.clone())),
                ("operation_type", Expr::val(operation.operation_type.as_str())),
                ("user_id", Expr::val(operation.user.as_str())),
                ("project_id", Expr::val(operation.project.as_str())),
                ("trigger_id", Expr::val(operation.trigger.to_string())),
                ("operation_definition", Expr::val(definition.as_str())),
                ("enabled", Expr::val(i64::from(operation.enabled))),
                ("rules", Expr::val(rules.as_str())),
                ("created_at", Expr::val(operation.created_at.as_micros())),
                ("updated_at", Expr::val(operation.updated_at.map(Instant::as_micros))),
            ];
            tx.insert::<ScheduledOperation>(&id, values).await.map_err(|error| {
                if is_referred_to(&error) {
                    return not_found::<Trigger>(&operation.trigger.to_string());
                }
                error
            })
        })
    }

    /// Returns a scheduled operation.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn get_scheduled_operation(&self, id: ScheduledOperationId) -> Result<ScheduledOperation> {
        self.find("looking up a scheduled operation", &id.to_string()).await
    }

    /// Lists scheduled operations.
    ///
    /// # Errors
    /// [`Error::UnknownMarker`].
    pub async fn list_scheduled_operations(
        &self,
        query: &ScheduledOperationQuery,
    ) -> Result<Vec<ScheduledOperation>> {
        self.list("listing scheduled operations", query, None).await
    }

    /// Changes a scheduled operation and returns it as it is then.
    ///
    /// # Errors
    /// [`Error::NotFound`], also of the trigger.
    pub async fn update_scheduled_operation(
        &self,
        id: ScheduledOperationId,
        update: &ScheduledOperationUpdate,
        now: Instant,
    ) -> Result<ScheduledOperation> {
        let id = id.to_string();
        let definition = update.definition.as_ref();
        let definition = definition.map(|map| json("the definition of a scheduled operation", map));
        let definition = definition.transpose()?;
        let rules = update.rules.as_ref().map(|rules| json("the rules of a scheduled operation", rules));
        let rules = rules.transpose()?;
        transaction!(self, "changing a scheduled operation", |tx| {
            let mut statement = Query::update();
            statement.table(ScheduledOperation::TABLE).value("updated_at", now.as_micros());
            if let Some(name) = &update.name {
                statement.value("name", name.as_str());
            }
            if let Some(description) = &update.description {
                statement.value("description", description.clone());
            }
            if let Some(trigger) = update.trigger {
                statement.value("trigger_id", trigger.to_string());
            }
            if let Some(definition) = &definition {
                statement.value("operation_definition", definition.as_str());
            }
            if let Some(enabled) = update.enabled {
                statement.value("enabled", i64::from(enabled));
            }
            if let Some(rules) = &rules {
                statement.value("rules", rules.as_str());
            }
            statement.and_where(Expr::col("id").eq(id.as_str()));
            tx.execute(&statement).await.map_err(|error| match update.trigger {
                Some(trigger) if is_referred_to(&error) => not_found::<Trigger>(&trigger.to_string()),
                _ => error,
            })?;
            tx.find(&id).await
        })
    }

    /// Returns those of these scheduled operations that stand and can be read.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Database`].
    pub async fn scheduled_operations(
        &self,
        ids: &[ScheduledOperationId],
    ) -> Result<Vec<ScheduledOperation>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut select = ScheduledOperation::select();
        select.and_where(Expr::col("id").is_in(ids.iter().map(ScheduledOperationId::to_string)));
        let rows = self.rows("looking up scheduled operations", &select).await?;
        Ok(rows.iter().filter_map(|row| ScheduledOperation::read(row).ok()).collect())
    }

    /// Deletes a scheduled operation.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete_scheduled_operation(&self, id: ScheduledOperationId) -> Result<()> {
        let (owner, id) = (DelegationOwner::ScheduledOperation(id), id.to_string());
        transaction!(self, "deleting a scheduled operation", |tx| {
            delete::<ScheduledOperation>(tx, &id).await?;
            release(tx, owner).await
        })
    }
}

async fn delete<T: Table>(tx: &mut Transaction, id: &str) -> Result<()> {
    let mut delete = Query::delete();
    delete.from_table(T::TABLE).and_where(Expr::col("id").eq(id));
    match tx.execute(&delete).await? {
        0 => Err(not_found::<T>(id)),
        _ => Ok(()),
    }
}
