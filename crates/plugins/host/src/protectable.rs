//! The inventory's instances of one type, as protectables show them.

use std::sync::Arc;

use async_trait::async_trait;
use karbor_plugin::{
    Context, Error, ErrorKind, InstancePage, Page, Protectable, Resource, ResourceKey, ResourceType, Result,
};
use serde_json::{Map, Value};

use crate::{Kind, Shared};

/// One type of the inventory.
#[derive(Debug)]
pub(crate) struct HostProtectable {
    kind: Kind,
    shared: Arc<Shared>,
}

impl HostProtectable {
    pub(crate) fn new(kind: Kind, shared: Arc<Shared>) -> Self {
        Self { kind, shared }
    }
}

#[async_trait]
impl Protectable for HostProtectable {
    fn kind(&self) -> ResourceType {
        self.kind.resource_type()
    }

    fn parents(&self) -> Vec<ResourceType> {
        // An application groups anything but applications; the others depend on whatever they are said to.
        let all = Kind::ALL.into_iter();
        all.map(Kind::resource_type).collect()
    }

    async fn list(&self, ctx: &Context, page: &Page) -> Result<InstancePage> {
        let inventory = self.shared.inventory.current();
        let limit = page.limit.max(1);
        let after = page.after.as_deref();
        let rest = inventory
            .of(&ctx.project, self.kind)
            .filter(|instance| after.is_none_or(|after| instance.key.id.as_str() > after));
        let mut instances: Vec<Resource> = rest.take(limit + 1).map(|instance| instance.resource()).collect();
        let more = instances.len() > limit;
        instances.truncate(limit);
        let next = if more { instances.last().map(|last| last.key.id.clone()) } else { None };
        Ok(InstancePage { instances, next })
    }

    async fn show(&self, ctx: &Context, id: &str, _parameters: &Map<String, Value>) -> Result<Resource> {
        let inventory = self.shared.inventory.current();
        let key = ResourceKey { kind: self.kind(), id: id.to_owned() };
        match inventory.find(&ctx.project, &key) {
            Some(instance) => Ok(instance.resource()),
            None => Err(not_found(&key)),
        }
    }

    async fn dependents(&self, ctx: &Context, parent: &Resource) -> Result<Vec<Resource>> {
        let inventory = self.shared.inventory.current();
        let Some(instance) = inventory.find(&ctx.project, &parent.key) else {
            return Err(not_found(&parent.key));
        };
        let own = instance.children.iter().filter(|key| key.kind.as_str() == self.kind.as_str());
        own.map(|key| match inventory.find(&ctx.project, key) {
            Some(child) => Ok(child.resource()),
            None => Err(not_found(key)),
        })
        .collect()
    }
}

/// Says that there is no such instance; the same for one of another project.
pub(crate) fn not_found(key: &ResourceKey) -> Error {
    let text = format!(
        "there is no {} with the id {} in this host's inventory for your project; \
         an instance that was renamed there has a new id",
        key.kind, key.id
    );
    Error::new(ErrorKind::NotFound, text)
}
