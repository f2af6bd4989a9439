//! Things that a file declares: types, their instances, and the schemas of a provider's parameters.
//!
//! The plugins store nothing, as the no-op plugin. They let a service answer as one in a cloud would, without the
//! cloud: for trials, for clients' own tests, and for replaying recorded requests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use karbor_plugin::{
    Context, Description, Error, ErrorKind, Hook, InstancePage, KindDescription, LedgerEntry, OperationKind,
    Outcome, Page, Protectable, Protection, ResourceType, Schemas, Task,
};
use karbor_types::{Resource, ResourceKey};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// What stands in an id or name for the project of whoever asks.
const PROJECT: &str = "{project}";

/// The file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Declared {
    /// The types by name.
    types: BTreeMap<String, Type>,
    /// What the plugin `declared` says of each type that it handles.
    schemas: BTreeMap<String, DeclaredSchemas>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Type {
    /// The types whose instances may have instances of this one as dependents.
    parents: Vec<String>,
    instances: Vec<Instance>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Instance {
    id: String,
    name: String,
    #[serde(default)]
    extra_info: Value,
    /// The ids of what it depends on, of any type among the parents.
    #[serde(default)]
    below: Vec<Below>,
    /// Whether lists show it; it can be named anyway.
    #[serde(default = "yes")]
    listed: bool,
}

/// A parent: its id, and what is told of the instance where it is found below that parent.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Below {
    Id(String),
    Told { id: String, extra_info: Value },
}

impl Below {
    fn id(&self) -> &str {
        match self {
            Self::Id(id) | Self::Told { id, .. } => id,
        }
    }
}

fn yes() -> bool {
    true
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DeclaredSchemas {
    options: Option<Value>,
    restore: Option<Value>,
    verify: Option<Value>,
    saved_info: Option<Value>,
}

impl Declared {
    /// Reads the file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("reading the declared things {}", path.display()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("the declared things {} are wrong", path.display()))
    }

    /// Returns one protectable for each type.
    pub(crate) fn protectables(&self) -> Vec<Arc<dyn Protectable>> {
        let one = |(name, declared): (&String, &Type)| {
            Arc::new(DeclaredType { kind: ResourceType::from(name.as_str()), declared: declared.clone() })
                as _
        };
        self.types.iter().map(one).collect()
    }

    /// Returns the plugin.
    pub(crate) fn protection(&self) -> Arc<dyn Protection> {
        Arc::new(DeclaredProtection { schemas: self.schemas.clone() })
    }
}

#[derive(Debug)]
struct DeclaredType {
    kind: ResourceType,
    declared: Type,
}

impl DeclaredType {
    fn resource(&self, ctx: &Context, instance: &Instance) -> Resource {
        Resource {
            key: ResourceKey { kind: self.kind.clone(), id: of(ctx, &instance.id) },
            name: of(ctx, &instance.name),
            extra_info: instance.extra_info.clone(),
        }
    }
}

fn of(ctx: &Context, text: &str) -> String {
    text.replace(PROJECT, ctx.project.as_str())
}

#[async_trait]
impl Protectable for DeclaredType {
    fn kind(&self) -> ResourceType {
        self.kind.clone()
    }

    fn parents(&self) -> Vec<ResourceType> {
        self.declared.parents.iter().map(|parent| ResourceType::from(parent.as_str())).collect()
    }

    async fn list(&self, ctx: &Context, page: &Page) -> karbor_plugin::Result<InstancePage> {
        let listed = self.declared.instances.iter().filter(|instance| instance.listed);
        let mut all: Vec<Resource> = listed.map(|instance| self.resource(ctx, instance)).collect();
        all.sort_by(|a, b| a.key.id.cmp(&b.key.id));
        let after = page.after.as_deref();
        all.retain(|resource| after.is_none_or(|after| resource.key.id.as_str() > after));
        let limit = page.limit.max(1);
        let more = all.len() > limit;
        all.truncate(limit);
        let next = if more { all.last().map(|last| last.key.id.clone()) } else { None };
        Ok(InstancePage { instances: all, next })
    }

    async fn show(
        &self,
        ctx: &Context,
        id: &str,
        _parameters: &Map<String, Value>,
    ) -> karbor_plugin::Result<Resource> {
        let found = self.declared.instances.iter().find(|instance| of(ctx, &instance.id) == id);
        found
            .map(|instance| self.resource(ctx, instance))
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no {} with id {id}", self.kind)))
    }

    async fn dependents(&self, ctx: &Context, parent: &Resource) -> karbor_plugin::Result<Vec<Resource>> {
        if !self.declared.parents.iter().any(|kind| *kind == parent.key.kind.as_str()) {
            return Ok(Vec::new());
        }
        let found = self.declared.instances.iter().filter_map(|instance| {
            let below = instance.below.iter().find(|below| of(ctx, below.id()) == parent.key.id)?;
            let mut resource = self.resource(ctx, instance);
            if let Below::Told { extra_info, .. } = below {
                resource.extra_info = extra_info.clone();
            }
            Some(resource)
        });
        Ok(found.collect())
    }
}

#[derive(Debug)]
struct DeclaredProtection {
    schemas: BTreeMap<String, DeclaredSchemas>,
}

#[async_trait]
impl Protection for DeclaredProtection {
    fn describe(&self) -> Description {
        use OperationKind as Op;
        let schema = |schema: &Option<Value>| schema.clone().unwrap_or_else(|| json!({}));
        let kind = |(name, declared): (&String, &DeclaredSchemas)| KindDescription {
            kind: ResourceType::from(name.as_str()),
            operations: BTreeSet::from([Op::Protect, Op::Restore, Op::Verify, Op::Copy, Op::Delete]),
            schemas: Schemas {
                options: schema(&declared.options),
                restore: schema(&declared.restore),
                verify: schema(&declared.verify),
                saved_info: schema(&declared.saved_info),
            },
            hooks: BTreeMap::new(),
        };
        Description {
            name: "declared".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kinds: self.schemas.iter().map(kind).collect(),
        }
    }

    async fn run(&self, _hook: Hook, task: &Task) -> karbor_plugin::Result<Outcome> {
        task.check_cancelled()?;
        Ok(Outcome::default())
    }

    async fn clean_up(&self, _task: &Task, _entry: &LedgerEntry) -> karbor_plugin::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use karbor_types::ProjectId;

    use super::*;

    #[tokio::test]
    async fn what_is_declared_is_listed_shown_and_hangs_together() {
        let text = json!({"types": {
            "A": {"instances": [{"id": "{project}", "name": "all"}]},
            "B": {"parents": ["A"], "instances": [
                {"id": "b2", "name": "two", "below": [{"id": "{project}", "extra_info": {"of": "all"}}]}, {"id": "b1", "name": "one"},
                {"id": "b0", "name": "none", "listed": false}]}}});
        let declared: Declared = serde_json::from_value(text).expect("declared");
        let types = declared.protectables();
        let ctx = Context::new(ProjectId::new("p1").expect("an id"));
        let first = types[1].list(&ctx, &Page { after: None, limit: 1 }).await.expect("lists");
        assert_eq!((first.instances[0].key.id.as_str(), first.next.as_deref()), ("b1", Some("b1")));
        let root = types[0].show(&ctx, "p1", &Map::new()).await.expect("shows");
        let below = types[1].dependents(&ctx, &root).await.expect("dependents");
        assert_eq!(below.iter().map(|one| one.key.id.as_str()).collect::<Vec<_>>(), ["b2"]);
        assert_eq!(below[0].extra_info, json!({"of": "all"}));
        assert_eq!(
            types[1].show(&ctx, "b9", &Map::new()).await.expect_err("none").kind(),
            ErrorKind::NotFound
        );
    }
}
