//! `OS::Nova::Server`: what there is, and the plugin that protects it.

mod capture;
mod choose;
mod plugin;
mod record;
mod restore;

use std::sync::Arc;

use async_trait::async_trait;
use karbor_plugin::{
    Context, Error, ErrorKind, InstancePage, Page, Protectable, Resource, ResourceKey, ResourceType, Result,
};
use serde_json::{Map, Value};

pub(crate) use plugin::{NAME, make};

use crate::listing::ServerRow;
use crate::{Shared, kinds, listing};

/// The project's servers.
#[derive(Debug)]
pub(crate) struct ServerProtectable {
    shared: Arc<Shared>,
}

impl ServerProtectable {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

fn resource(row: &ServerRow) -> Resource {
    let key = ResourceKey::new(kinds::SERVER, row.id.clone());
    Resource { key, name: row.name.clone(), extra_info: Value::Null }
}

/// States in which there is nothing to protect.
const GONE: &[&str] = &["DELETED", "SOFT_DELETED"];
/// States that lists leave out besides: what is in them is not as its owner wants it.
const BROKEN: &[&str] = &["ERROR", "UNKNOWN", "RESCUE"];

fn is_there(row: &&ServerRow) -> bool {
    !GONE.contains(&row.status.as_str())
}

#[async_trait]
impl Protectable for ServerProtectable {
    fn kind(&self) -> ResourceType {
        ResourceType::from(kinds::SERVER)
    }

    fn parents(&self) -> Vec<ResourceType> {
        vec![ResourceType::from(kinds::PROJECT)]
    }

    async fn list(&self, ctx: &Context, page: &Page) -> Result<InstancePage> {
        let view = self.shared.view(ctx).await?;
        let servers = view.servers().await?.iter().filter(is_there);
        let whole = servers.filter(|row| !BROKEN.contains(&row.status.as_str()));
        Ok(listing::page(whole.map(resource).collect(), page))
    }

    async fn show(&self, ctx: &Context, id: &str, _parameters: &Map<String, Value>) -> Result<Resource> {
        let view = self.shared.view(ctx).await?;
        // The list is asked for anyway, for what hangs on the server.
        let found = view.servers().await?.iter().find(|row| row.id == id).filter(is_there);
        match found {
            Some(row) => Ok(resource(row)),
            None => Err(Error::new(ErrorKind::NotFound, format!("there is no server {id} in your project"))),
        }
    }

    async fn dependents(&self, ctx: &Context, _parent: &Resource) -> Result<Vec<Resource>> {
        let view = self.shared.view(ctx).await?;
        // A broken one is named too: what is known of it can be protected, and its volumes are.
        Ok(view.servers().await?.iter().filter(is_there).map(resource).collect())
    }
}
