//! Protectables: types of things that can be protected, and the things themselves.

use futures::stream::{self, StreamExt, TryStreamExt};
use karbor_plugin::graph::direct_dependents;
use karbor_plugin::{Page as PluginPage, Protectable};
use karbor_types::{Resource, ResourceType};
use serde_json::{Map, Value};

use crate::{Actions, Caller, Error, Result};

/// How many instances' dependents are asked for at once.
const CONCURRENCY: usize = 16;

/// A type of thing that can be protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtectableType {
    /// Its name.
    pub name: ResourceType,
    /// The types of which its instances may have dependents.
    pub dependent_types: Vec<ResourceType>,
}

/// A thing that can be protected.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// The thing.
    pub resource: Resource,
    /// What directly depends on it.
    pub dependents: Vec<Resource>,
}

/// One page of instances.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceList {
    /// The instances.
    pub instances: Vec<Instance>,
    /// The marker of the next page; none after the last.
    pub next: Option<String>,
}

impl Actions {
    /// Lists the types.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub async fn list_protectables(&self, caller: &Caller) -> Result<Vec<ResourceType>> {
        self.allow(caller, "protectable:get_all")?;
        Ok(self.registry().kinds().cloned().collect())
    }

    /// Returns one type.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown one.
    pub async fn get_protectable(&self, caller: &Caller, kind: &ResourceType) -> Result<ProtectableType> {
        self.allow(caller, "protectable:get_all")?;
        self.allow(caller, "protectable:get")?;
        self.protectable(kind)?;
        Ok(ProtectableType { name: kind.clone(), dependent_types: self.registry().dependent_kinds(kind) })
    }

    /// Lists the instances of a type that the caller's project has.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown type; what the protectable answers.
    pub async fn list_instances(
        &self,
        caller: &Caller,
        kind: &ResourceType,
        after: Option<String>,
        limit: u32,
    ) -> Result<InstanceList> {
        self.allow(caller, "protectable:get_all")?;
        self.allow(caller, "protectable:instance_get_all")?;
        let context = self.context(caller);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let page = self.protectable(kind)?.list(&context, &PluginPage { after, limit }).await?;
        let instances = stream::iter(page.instances)
            .map(|resource| async {
                let dependents = direct_dependents(self.registry(), &context, &resource).await?;
                Ok::<_, Error>(Instance { resource, dependents })
            })
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        Ok(InstanceList { instances, next: page.next })
    }

    /// Returns one instance.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown type; what the protectable answers, not found above all.
    pub async fn get_instance(
        &self,
        caller: &Caller,
        kind: &ResourceType,
        id: &str,
        parameters: &Map<String, Value>,
    ) -> Result<Instance> {
        self.allow(caller, "protectable:get_all")?;
        self.allow(caller, "protectable:instance_get")?;
        let context = self.context(caller);
        let resource = self.protectable(kind)?.show(&context, id, parameters).await?;
        let dependents = direct_dependents(self.registry(), &context, &resource).await?;
        Ok(Instance { resource, dependents })
    }

    fn protectable(&self, kind: &ResourceType) -> Result<&dyn Protectable> {
        self.registry().protectable(kind).map(AsRef::as_ref).ok_or_else(|| {
            let known: Vec<&str> = self.registry().kinds().map(ResourceType::as_str).collect();
            Error::invalid(format!("`{kind}` is no protectable type; known are: {}", known.join(", ")))
        })
    }
}
