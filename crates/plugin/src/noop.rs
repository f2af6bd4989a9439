//! Plugins that do nothing: for trying out, for timing the service alone, and for tests.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use karbor_types::{Hook, OperationKind, ProjectId, Resource, ResourceKey, ResourceType};
use serde_json::{Map, Value};

use crate::{
    Context, Description, Error, ErrorKind, InstancePage, KindDescription, LedgerEntry, Outcome, Page,
    Protectable, Protection, Result, Schemas, Task,
};

/// Accepts every operation on resources of some types and does nothing.
#[derive(Debug, Clone)]
pub struct NoopProtection {
    kinds: Vec<ResourceType>,
}

impl NoopProtection {
    /// Makes one for the given types.
    pub fn new(kinds: impl IntoIterator<Item = ResourceType>) -> Self {
        Self { kinds: kinds.into_iter().collect() }
    }
}

#[async_trait]
impl Protection for NoopProtection {
    fn describe(&self) -> Description {
        use OperationKind as Op;
        let kind = |kind: &ResourceType| KindDescription {
            kind: kind.clone(),
            operations: BTreeSet::from([Op::Protect, Op::Restore, Op::Verify, Op::Copy, Op::Delete]),
            schemas: Schemas::default(),
            hooks: BTreeMap::new(),
        };
        Description {
            name: "noop".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kinds: self.kinds.iter().map(kind).collect(),
        }
    }

    async fn run(&self, _hook: Hook, task: &Task) -> Result<Outcome> {
        task.check_cancelled()?;
        Ok(Outcome::default())
    }

    async fn clean_up(&self, _task: &Task, _entry: &LedgerEntry) -> Result<()> {
        Ok(())
    }
}

/// Instances that somebody wrote down, with what depends on what.
#[derive(Debug, Clone)]
pub struct NoopProtectable {
    kind: ResourceType,
    parents: Vec<ResourceType>,
    instances: BTreeMap<(ProjectId, String), Resource>,
    dependents: BTreeMap<(ProjectId, ResourceKey), Vec<Resource>>,
}

impl NoopProtectable {
    /// Makes a type without instances.
    pub fn new(kind: impl Into<ResourceType>, parents: impl IntoIterator<Item = ResourceType>) -> Self {
        Self {
            kind: kind.into(),
            parents: parents.into_iter().collect(),
            instances: BTreeMap::new(),
            dependents: BTreeMap::new(),
        }
    }

    /// Adds an instance of this type that belongs to a project.
    #[must_use]
    pub fn with(mut self, project: &ProjectId, id: &str, name: &str) -> Self {
        let resource = Resource {
            key: ResourceKey { kind: self.kind.clone(), id: id.to_owned() },
            name: name.to_owned(),
            extra_info: Value::Null,
        };
        self.instances.insert((project.clone(), id.to_owned()), resource);
        self
    }

    /// Makes an instance of this type, which must have been added, a dependent of `parent`.
    #[must_use]
    pub fn below(mut self, project: &ProjectId, parent: &ResourceKey, id: &str) -> Self {
        if let Some(resource) = self.instances.get(&(project.clone(), id.to_owned())) {
            let key = (project.clone(), parent.clone());
            self.dependents.entry(key).or_default().push(resource.clone());
        }
        self
    }
}

#[async_trait]
impl Protectable for NoopProtectable {
    fn kind(&self) -> ResourceType {
        self.kind.clone()
    }

    fn parents(&self) -> Vec<ResourceType> {
        self.parents.clone()
    }

    async fn list(&self, ctx: &Context, page: &Page) -> Result<InstancePage> {
        let limit = page.limit.max(1);
        let after = page.after.as_deref();
        let own = self.instances.iter().filter(|((project, id), _)| {
            *project == ctx.project && after.is_none_or(|after| id.as_str() > after)
        });
        let mut instances: Vec<Resource> =
            own.take(limit + 1).map(|(_, resource)| resource.clone()).collect();
        let more = instances.len() > limit;
        instances.truncate(limit);
        let next = if more { instances.last().map(|last| last.key.id.clone()) } else { None };
        Ok(InstancePage { instances, next })
    }

    async fn show(&self, ctx: &Context, id: &str, _parameters: &Map<String, Value>) -> Result<Resource> {
        self.instances
            .get(&(ctx.project.clone(), id.to_owned()))
            .cloned()
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no {} with id {id}", self.kind)))
    }

    async fn dependents(&self, ctx: &Context, parent: &Resource) -> Result<Vec<Resource>> {
        Ok(self.dependents.get(&(ctx.project.clone(), parent.key.clone())).cloned().unwrap_or_default())
    }
}
