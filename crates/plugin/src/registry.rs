//! What this process knows: protectables by type, providers by id.

use std::collections::BTreeMap;
use std::sync::Arc;

use karbor_types::{ProviderId, ResourceType};

use crate::{Error, ErrorKind, Protectable, Provider, Result};

/// All protectables and providers. It is made at start and does not change.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    protectables: BTreeMap<ResourceType, Arc<dyn Protectable>>,
    providers: BTreeMap<ProviderId, Arc<Provider>>,
}

impl Registry {
    /// Adds a protectable.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when its type is taken.
    pub fn add_protectable(&mut self, protectable: Arc<dyn Protectable>) -> Result<()> {
        let kind = protectable.kind();
        if self.protectables.contains_key(&kind) {
            return Err(Error::new(ErrorKind::Conflict, format!("two protectables for the type {kind}")));
        }
        self.protectables.insert(kind, protectable);
        Ok(())
    }

    /// Adds a provider.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when its id is taken.
    pub fn add_provider(&mut self, provider: Provider) -> Result<()> {
        let id = provider.id();
        if let Some(other) = self.providers.get(&id) {
            let text =
                format!("the providers {} and {} have the same id {id}", other.name(), provider.name());
            return Err(Error::new(ErrorKind::Conflict, text));
        }
        self.providers.insert(id, Arc::new(provider));
        Ok(())
    }

    /// Returns the types that can be protected, in order.
    pub fn kinds(&self) -> impl Iterator<Item = &ResourceType> {
        self.protectables.keys()
    }

    /// Returns all protectables, in the order of their types.
    pub fn protectables(&self) -> impl Iterator<Item = &Arc<dyn Protectable>> {
        self.protectables.values()
    }

    /// Returns the protectable of a type.
    pub fn protectable(&self, kind: &ResourceType) -> Option<&Arc<dyn Protectable>> {
        self.protectables.get(kind)
    }

    /// Returns the types of which an instance of `kind` may have direct dependents, in order.
    pub fn dependent_kinds(&self, kind: &ResourceType) -> Vec<ResourceType> {
        self.below(kind).map(|protectable| protectable.kind()).collect()
    }

    /// Returns the protectables whose instances may directly depend on an instance of `kind`.
    pub fn below(&self, kind: &ResourceType) -> impl Iterator<Item = &Arc<dyn Protectable>> {
        self.protectables.values().filter(move |protectable| protectable.parents().contains(kind))
    }

    /// Returns the providers, in the order of their ids.
    pub fn providers(&self) -> impl Iterator<Item = &Arc<Provider>> {
        self.providers.values()
    }

    /// Returns a provider.
    pub fn provider(&self, id: ProviderId) -> Option<&Arc<Provider>> {
        self.providers.get(&id)
    }
}
