//! Plans: what belongs together and is protected as one.

use std::collections::HashSet;

use karbor_plugin::Provider;
use karbor_policy::Attributes;
use karbor_store::{Filter, Plan, PlanColumn, PlanUpdate, ScheduledOperationColumn, ScheduledOperationQuery};
use karbor_types::{OperationKind, Parameters, PlanId, ProviderId, Resource};
use serde_json::{Value, json};

use crate::list::{ListRules, Meaning, query};
use crate::{Actions, Caller, Error, ListRequest, Page, Result};

/// The status of a plan that is not being worked on; the one it starts with.
const SUSPENDED: &str = "suspended";

/// The statuses that a plan can have.
const STATUSES: [&str; 2] = [SUSPENDED, "started"];

/// A plan to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPlan {
    /// Its name.
    pub name: String,
    /// What people say about it.
    pub description: Option<String>,
    /// The provider that protects it.
    pub provider: ProviderId,
    /// What is protected; each resource once.
    pub resources: Vec<Resource>,
    /// Parameters by type or resource.
    pub parameters: Parameters,
}

/// What is changed of a plan; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlanChange {
    /// A new name.
    pub name: Option<String>,
    /// A new description, or none.
    pub description: Option<Option<String>>,
    /// A new status: `suspended` or `started`.
    pub status: Option<String>,
    /// All new resources.
    pub resources: Option<Vec<Resource>>,
}

impl Actions {
    /// Makes a plan.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown provider, a type that it does not handle, a resource that stands twice, or
    /// parameters that its schemas do not allow; [`Error::OverQuota`].
    pub async fn create_plan(&self, caller: &Caller, new: NewPlan) -> Result<Plan> {
        self.allow(caller, "plan:create")?;
        let provider = self
            .registry()
            .provider(new.provider)
            .ok_or_else(|| Error::invalid(format!("provider {} does not exist", new.provider)))?;
        if new.resources.is_empty() {
            return Err(Error::invalid("plan.resources must name at least one resource"));
        }
        check_resources(provider, &new.resources)?;
        let parameters = provider.check_parameters(OperationKind::Protect, &new.parameters)?;
        let plan = Plan {
            id: PlanId(self.new_id()),
            project: caller.project.clone(),
            name: new.name,
            description: new.description,
            provider: new.provider,
            status: Some(SUSPENDED.to_owned()),
            resources: new.resources,
            parameters,
            created_at: self.now(),
            updated_at: None,
        };
        self.store().create_plan(&plan, &self.settings().quota).await?;
        Ok(plan)
    }

    /// Returns a plan.
    ///
    /// # Errors
    /// [`Error::NotFound`], also when the policy does not let the caller see it.
    pub async fn get_plan(&self, caller: &Caller, id: PlanId) -> Result<Plan> {
        let plan = self.store().get_plan(id).await?;
        self.allow_seeing(caller, "plan:get", attributes(&plan), "plan", &id)?;
        Ok(plan)
    }

    /// Lists plans.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::UnknownMarker`].
    pub async fn list_plans(&self, caller: &Caller, request: &ListRequest) -> Result<Page<Plan>> {
        self.allow(caller, "plan:get_all")?;
        let rules = ListRules {
            open_filters: &["name", "status", "description"],
            column: PlanColumn::from_name,
            meaning: |name, value| match name {
                "name" => Meaning::Condition(Filter::Contains(PlanColumn::Name, value.to_owned())),
                "description" => {
                    Meaning::Condition(Filter::Contains(PlanColumn::Description, value.to_owned()))
                }
                "status" => Meaning::Condition(Filter::Equals(PlanColumn::Status, value.into())),
                _ => Meaning::Ignored,
            },
        };
        let Some(query) = query(caller, request, &rules)? else { return Ok(Page::empty()) };
        Ok(Page::cut(self.store().list_plans(&query).await?, request.limit))
    }

    /// Changes a plan.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the plan is `started` and the change does not suspend it, for an unknown status, or for
    /// resources that its provider does not handle; [`Error::Conflict`] for a change that would empty it.
    pub async fn update_plan(&self, caller: &Caller, id: PlanId, change: PlanChange) -> Result<Plan> {
        let plan = self.get_plan(caller, id).await?;
        self.allow_on(caller, "plan:update", attributes(&plan))?;
        if let Some(status) = &change.status
            && !STATUSES.contains(&status.as_str())
        {
            return Err(Error::invalid(format!("plan.status must be one of {}", STATUSES.join(", "))));
        }
        let stored = plan.status.as_deref().unwrap_or_default();
        if stored != SUSPENDED && change.status.as_deref() != Some(SUSPENDED) {
            return Err(Error::invalid(format!(
                "plan {id} is {stored}: set its status to {SUSPENDED} before (or with) other changes"
            )));
        }
        if let Some(resources) = &change.resources {
            if resources.is_empty() {
                return Err(Error::conflict(
                    "a plan cannot be emptied: name at least one resource, or delete the plan",
                ));
            }
            let provider = self.registry().provider(plan.provider).ok_or_else(|| {
                Error::conflict(format!("provider {} does not exist any more", plan.provider))
            })?;
            check_resources(provider, resources)?;
        }
        let update = PlanUpdate {
            name: change.name,
            description: change.description,
            status: change.status.map(Some),
            resources: change.resources,
            only_if_status: plan.status,
        };
        Ok(self.store().update_plan(id, &update, self.now()).await?)
    }

    /// Deletes a plan. Its checkpoints stay; each carries what it needs of the plan.
    ///
    /// # Errors
    /// [`Error::Conflict`] while a scheduled operation protects it.
    pub async fn delete_plan(&self, caller: &Caller, id: PlanId) -> Result<()> {
        let plan = self.get_plan(caller, id).await?;
        self.allow_on(caller, "plan:delete", attributes(&plan))?;
        let using = ScheduledOperationQuery {
            project: Some(plan.project.clone()),
            filters: vec![Filter::Contains(ScheduledOperationColumn::Definition, id.to_string())],
            limit: 1,
            ..ScheduledOperationQuery::default()
        };
        if let Some(operation) = self.store().list_scheduled_operations(&using).await?.first() {
            return Err(Error::conflict(format!(
                "plan {id} is used by the scheduled operation {} ({}): delete that first",
                operation.name, operation.id
            )));
        }
        Ok(self.store().delete_plan(id, self.now()).await?)
    }

    /// Returns a plan that the caller may use: one of their project, or any for administrators.
    pub(crate) async fn usable_plan(&self, caller: &Caller, id: PlanId) -> Result<Plan> {
        let plan = self.store().get_plan(id).await?;
        if caller.may_touch(&plan.project) { Ok(plan) } else { Err(Error::not_found("plan", &id)) }
    }
}

/// Checks that the provider handles every type, and that nothing stands twice.
fn check_resources(provider: &Provider, resources: &[Resource]) -> Result<()> {
    let mut seen = HashSet::new();
    for (index, resource) in resources.iter().enumerate() {
        provider
            .require(&resource.key.kind, OperationKind::Protect)
            .map_err(|err| Error::invalid(format!("plan.resources[{index}].type: {}", err.message())))?;
        if !seen.insert(&resource.key) {
            return Err(Error::invalid(format!("plan.resources[{index}]: {} stands twice", resource.key)));
        }
    }
    Ok(())
}

/// What a policy sees of a plan.
fn attributes(plan: &Plan) -> Attributes {
    let value = json!({
        "id": plan.id, "name": plan.name, "description": plan.description, "provider_id": plan.provider,
        "project_id": plan.project, "status": plan.status,
    });
    match value {
        Value::Object(members) => members,
        _ => Attributes::new(),
    }
}
