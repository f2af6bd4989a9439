//! `OS::Glance::Image`: what there is, and the plugin that protects it.
//!
//! Below a server stands the image that it was booted from, and there it means what the server has made of that image
//! since. It is another thing than the image itself, so it has an id of its own ([`of_server`]).

mod places;
pub(crate) mod plugin;
mod saved;
pub(crate) mod work;

use std::sync::Arc;

use async_trait::async_trait;
use karbor_openstack_client::glance::{Glance, Image};
use karbor_plugin::{
    Context, Error, ErrorKind, InstancePage, Page, Protectable, Resource, ResourceKey, ResourceType, Result,
};
use serde_json::{Map, Value, json};

pub(crate) use places::Places;

use crate::error::Doing;
use crate::{Shared, kinds, listing};

/// The project's images, and those that its servers were booted from.
#[derive(Debug)]
pub(crate) struct ImageProtectable {
    shared: Arc<Shared>,
}

/// What stands between image and server in the id of what a server made of an image.
const AT: char = '@';

/// Returns the key of what a server made of the image that it was booted from.
pub(crate) fn of_server(image: &str, server: &str) -> ResourceKey {
    ResourceKey::new(kinds::IMAGE, format!("{image}{AT}{server}"))
}

/// Returns the image, and the server if it is about what that made of it.
pub(crate) fn parts(id: &str) -> (&str, Option<&str>) {
    match id.split_once(AT) {
        Some((image, server)) => (image, Some(server)),
        None => (id, None),
    }
}

impl ImageProtectable {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

fn resource(image: &Image) -> Resource {
    Resource {
        key: ResourceKey::new(kinds::IMAGE, image.id.clone()),
        name: image.name.clone().unwrap_or_default(),
        extra_info: Value::Null,
    }
}

fn server_resource(image: &str, name: &str, server: &str) -> Resource {
    Resource {
        key: of_server(image, server),
        name: name.to_owned(),
        extra_info: json!({"server_id": server, "image_id": image}),
    }
}

/// States in which there is nothing to protect: no bytes any more, or none yet.
const GONE: &[&str] = &["killed", "deleted", "pending_delete", "deactivated", "queued"];

#[async_trait]
impl Protectable for ImageProtectable {
    fn kind(&self) -> ResourceType {
        ResourceType::from(kinds::IMAGE)
    }

    fn parents(&self) -> Vec<ResourceType> {
        [kinds::PROJECT, kinds::SERVER].map(ResourceType::from).into()
    }

    async fn list(&self, ctx: &Context, page: &Page) -> Result<InstancePage> {
        let view = self.shared.view(ctx).await?;
        let images = view.images().await?.iter().filter(|image| !GONE.contains(&image.status.as_str()));
        Ok(listing::page(images.map(resource).collect(), page))
    }

    async fn show(&self, ctx: &Context, id: &str, _parameters: &Map<String, Value>) -> Result<Resource> {
        let view = self.shared.view(ctx).await?;
        let not_found =
            || Error::new(ErrorKind::NotFound, format!("there is no image {id} that you can use"));
        let (image_id, server) = parts(id);
        if let Some(server) = server {
            let servers = view.servers().await?;
            let is_it = |row: &&listing::ServerRow| row.id == server && row.image_id() == Some(image_id);
            servers.iter().find(is_it).ok_or_else(not_found)?;
            let images = view.server_images().await?;
            let name = images.get(image_id).and_then(|image| image.name.as_deref()).unwrap_or_default();
            return Ok(server_resource(image_id, name, server));
        }
        let listed = if view.prefers_listing() {
            view.images().await?.iter().find(|image| image.id == id).cloned()
        } else {
            None
        };
        let image = match listed {
            Some(image) => image,
            // It may also be one that another project shares, or the cloud gives to all.
            None => match async { Glance::new(&view.session)?.image(id).await }.await {
                Err(err) if err.is_not_found() => return Err(not_found()),
                shown => shown.doing(|| format!("looking at image {id}"))?,
            },
        };
        if GONE.contains(&image.status.as_str()) {
            let text = format!("image {id} is in the state {} and cannot be protected", image.status);
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        Ok(resource(&image))
    }

    async fn dependents(&self, ctx: &Context, parent: &Resource) -> Result<Vec<Resource>> {
        let view = self.shared.view(ctx).await?;
        match parent.key.kind.as_str() {
            kinds::PROJECT => {
                let images = view.images().await?.iter();
                Ok(images.filter(|image| !GONE.contains(&image.status.as_str())).map(resource).collect())
            }
            kinds::SERVER => {
                let server = view.servers().await?.iter().find(|row| row.id == parent.key.id);
                let Some(image) = server.and_then(|row| row.image_id()) else { return Ok(Vec::new()) };
                // The server is there although its image may be gone.
                let images = view.server_images().await?;
                let name = images.get(image).and_then(|image| image.name.as_deref()).unwrap_or_default();
                Ok(vec![server_resource(image, name, &parent.key.id)])
            }
            _ => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_made_is_told_from_the_image() {
        let key = of_server("i", "s");
        assert_eq!(parts(&key.id), ("i", Some("s")));
        assert_eq!(parts("i"), ("i", None));
    }
}
