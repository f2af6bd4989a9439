//! Providers: what can protect, and where to.

use std::sync::Arc;

use karbor_plugin::Provider;
use karbor_store::Direction;
use karbor_types::ProviderId;

use crate::{Actions, Caller, Error, ListRequest, Page, Result};

impl Actions {
    /// Lists providers, by id unless another order is asked for.
    ///
    /// What is not known of `sort` or `marker` is not heeded: the old service heeded neither, and its dashboard
    /// sends keys that providers do not have.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub async fn list_providers(
        &self,
        caller: &Caller,
        request: &ListRequest,
    ) -> Result<Page<Arc<Provider>>> {
        self.allow(caller, "provider:get_all")?;
        let mut providers: Vec<Arc<Provider>> = self.registry().providers().cloned().collect();
        for (key, direction) in request.sort.iter().rev() {
            let by: fn(&Provider) -> String = match key.as_str() {
                "id" => |provider| provider.id().to_string(),
                "name" => |provider| provider.name().to_owned(),
                "description" => |provider| provider.description().to_owned(),
                _ => continue,
            };
            providers.sort_by(|a, b| match direction {
                Direction::Ascending => by(a).cmp(&by(b)),
                Direction::Descending => by(b).cmp(&by(a)),
            });
        }
        for (name, value) in &request.filters {
            match name.as_str() {
                "name" => providers.retain(|provider| provider.name() == value),
                "description" => providers.retain(|provider| provider.description() == value),
                "id" if caller.is_admin => providers.retain(|provider| provider.id().to_string() == *value),
                _ => {}
            }
        }
        if let Some(marker) = &request.marker
            && let Some(at) = providers.iter().position(|provider| provider.id().to_string() == *marker)
        {
            providers.drain(..=at);
        }
        let offset = usize::try_from(request.offset).unwrap_or(usize::MAX).min(providers.len());
        providers.drain(..offset);
        Ok(Page::cut(providers, request.limit))
    }

    /// Returns a provider.
    ///
    /// # Errors
    /// [`Error::NotFound`], also when the policy does not let the caller see it.
    pub async fn get_provider(&self, caller: &Caller, id: ProviderId) -> Result<Arc<Provider>> {
        self.allow(caller, "provider:get").map_err(|_| Error::not_found("provider", &id))?;
        self.provider(id)
    }

    /// Returns a provider for an action on one of its checkpoints.
    pub(crate) fn provider(&self, id: ProviderId) -> Result<Arc<Provider>> {
        self.registry().provider(id).cloned().ok_or_else(|| Error::not_found("provider", &id))
    }
}
