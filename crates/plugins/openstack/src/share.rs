//! `OS::Manila::Share`: what there is, and the plugin that protects it by a snapshot.

mod plugin;

use std::sync::Arc;

use async_trait::async_trait;
use karbor_openstack_client::ServiceType;
use karbor_openstack_client::manila::{Manila, Share};
use karbor_plugin::{
    Context, Error, ErrorKind, InstancePage, Page, Protectable, Resource, ResourceKey, ResourceType, Result,
};
use serde_json::{Map, Value};

pub(crate) use plugin::{NAME, make};

use crate::error::Doing;
use crate::{Shared, kinds, listing};

/// The project's shares.
#[derive(Debug)]
pub(crate) struct ShareProtectable {
    shared: Arc<Shared>,
}

/// States in which there is nothing to protect.
const GONE: &[&str] = &[
    "deleting",
    "deleted",
    "error",
    "error_deleting",
    "manage_error",
    "unmanage_error",
    "extending_error",
    "shrinking_error",
    "reverting_error",
];

fn resource(share: &Share) -> Resource {
    Resource {
        key: ResourceKey::new(kinds::SHARE, share.id.clone()),
        name: share.name.clone().unwrap_or_default(),
        extra_info: Value::Null,
    }
}

impl ShareProtectable {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Lists the project's shares; none, where the cloud has no Manila.
    async fn own(&self, ctx: &Context) -> Result<Vec<Share>> {
        let session = self.shared.sessions.of(ctx).await?;
        if !session.has(ServiceType::SharedFileSystem) {
            return Ok(Vec::new());
        }
        let listed = async {
            let project = session.project_id()?;
            let mut shares = Manila::new(&session)?.shares(&[("limit", "1000")]).all().await?;
            // Public ones of others are listed too.
            shares.retain(|share| share.project_id == project);
            Ok(shares)
        };
        listed.await.doing(|| "listing the shares".to_owned())
    }
}

#[async_trait]
impl Protectable for ShareProtectable {
    fn kind(&self) -> ResourceType {
        ResourceType::from(kinds::SHARE)
    }

    fn parents(&self) -> Vec<ResourceType> {
        vec![ResourceType::from(kinds::PROJECT)]
    }

    async fn list(&self, ctx: &Context, page: &Page) -> Result<InstancePage> {
        let own = self.own(ctx).await?;
        let whole = own.iter().filter(|share| !GONE.contains(&share.status.as_str()));
        Ok(listing::page(whole.map(resource).collect(), page))
    }

    async fn show(&self, ctx: &Context, id: &str, _parameters: &Map<String, Value>) -> Result<Resource> {
        let own = self.own(ctx).await?;
        match own.iter().find(|share| share.id == id) {
            Some(share) if GONE.contains(&share.status.as_str()) => {
                let text = format!("share {id} is in the state {} and cannot be protected", share.status);
                Err(Error::new(ErrorKind::Invalid, text))
            }
            Some(share) => Ok(resource(share)),
            None => Err(Error::new(ErrorKind::NotFound, format!("there is no share {id} in your project"))),
        }
    }

    async fn dependents(&self, ctx: &Context, _parent: &Resource) -> Result<Vec<Resource>> {
        let own = self.own(ctx).await?;
        // One that failed is named too: its plugin says that it cannot be protected, rather than nobody.
        let there = own.iter().filter(|share| !share.status.starts_with("delet"));
        Ok(there.map(resource).collect())
    }
}
