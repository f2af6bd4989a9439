//! What a project has, listed once for everybody who asks within a few seconds.
//!
//! Building a graph asks for the dependents of each resource, one by one. Here the answers come from whole listings,
//! so that the number of calls grows with pages and not with resources.
//!
//! Invariant: a listing is used for the same project, right and request only, and forgotten soon; one that failed is
//! not kept at all.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use karbor_openstack_client::cinder::{Cinder, Volume};
use karbor_openstack_client::glance::{Glance, Image};
use karbor_openstack_client::{ServiceType, Session};
use karbor_plugin::{Access, Context, InstancePage, Page, Resource, Result};
use karbor_types::ProjectId;
use serde::Deserialize;
use tokio::sync::OnceCell;

use crate::Shared;
use crate::error::Doing;
use crate::made::SCAFFOLD_KEY;
use crate::network;

/// How long a listing is used.
const KEPT_FOR: Duration = Duration::from_secs(15);
/// How many there are at once.
const KEPT: usize = 32;
/// How many single things are shown to one request before the rest is taken from the listing.
const SHOWN_SINGLY: usize = 3;

/// The listings of all contexts.
#[derive(Debug, Default)]
pub(crate) struct Listings {
    kept: Mutex<VecDeque<Kept>>,
}

#[derive(Debug)]
struct Kept {
    project: ProjectId,
    access: Access,
    request: Option<String>,
    since: Instant,
    listing: Arc<Listing>,
}

/// What one project has, as one request sees it; each part is asked for when it is needed.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    volumes: OnceCell<Vec<Volume>>,
    images: OnceCell<Vec<Image>>,
    servers: OnceCell<Vec<ServerRow>>,
    server_images: OnceCell<HashMap<String, Image>>,
    topology: OnceCell<bool>,
    shown: AtomicUsize,
}

/// What is known of a server from the list.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ServerRow {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) name: String,
    pub(crate) status: String,
    /// The image; an empty text for a server that was booted from a volume.
    #[serde(default)]
    image: serde_json::Value,
}

impl ServerRow {
    /// Returns the image that the server was booted from, unless that was a volume.
    pub(crate) fn image_id(&self) -> Option<&str> {
        self.image.get("id").and_then(serde_json::Value::as_str)
    }
}

impl Listings {
    /// Returns the listing of a context.
    fn of(&self, ctx: &Context) -> Arc<Listing> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        kept.retain(|kept| now.duration_since(kept.since) < KEPT_FOR);
        let same = |kept: &&Kept| {
            kept.project == ctx.project && kept.access == ctx.access && kept.request == ctx.request_id
        };
        if let Some(found) = kept.iter().find(same) {
            return Arc::clone(&found.listing);
        }
        let listing = Arc::<Listing>::default();
        kept.push_back(Kept {
            project: ctx.project.clone(),
            access: ctx.access.clone(),
            request: ctx.request_id.clone(),
            since: now,
            listing: Arc::clone(&listing),
        });
        if kept.len() > KEPT {
            kept.pop_front();
        }
        listing
    }
}

/// A context's session and listing.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) session: Session,
    listing: Arc<Listing>,
}

impl Shared {
    /// Returns what a context sees.
    pub(crate) async fn view(&self, ctx: &Context) -> Result<View> {
        let session = self.sessions.of(ctx).await?;
        Ok(View { session, listing: self.listings.of(ctx) })
    }
}

impl View {
    /// Returns whether a single thing is better looked up in the listing than asked for.
    pub(crate) fn prefers_listing(&self) -> bool {
        self.listing.shown.fetch_add(1, Ordering::Relaxed) >= SHOWN_SINGLY
    }

    /// Returns the project's volumes, without those that are needed only on the way of an operation.
    pub(crate) async fn volumes(&self) -> Result<&[Volume]> {
        let list = || async {
            let listed = async { Cinder::new(&self.session)?.volumes(&[]).all().await }.await;
            let mut volumes = listed.doing(|| "listing the volumes".to_owned())?;
            volumes.retain(|volume| !volume.metadata.contains_key(SCAFFOLD_KEY));
            Ok(volumes)
        };
        self.listing.volumes.get_or_try_init(list).await.map(Vec::as_slice)
    }

    /// Returns the project's own images, without those that are needed only on the way of an operation.
    pub(crate) async fn images(&self) -> Result<&[Image]> {
        let list = || async {
            let listed = async {
                let project = self.session.project_id()?;
                Glance::new(&self.session)?.images(&[("owner", project)]).all().await
            };
            let mut images = listed.await.doing(|| "listing the images".to_owned())?;
            images.retain(|image| !image.others.contains_key(SCAFFOLD_KEY));
            Ok(images)
        };
        self.listing.images.get_or_try_init(list).await.map(Vec::as_slice)
    }

    /// Returns the project's servers.
    pub(crate) async fn servers(&self) -> Result<&[ServerRow]> {
        let list = || async {
            let listed = async {
                let nova = self.session.service(ServiceType::Compute)?;
                nova.pages("/servers/detail", &[("limit", "1000")], "servers").all().await
            };
            listed.await.doing(|| "listing the servers".to_owned())
        };
        self.listing.servers.get_or_try_init(list).await.map(Vec::as_slice)
    }

    /// Returns whether the project has any networks, or what hangs on them.
    pub(crate) async fn has_topology(&self) -> Result<bool> {
        self.listing.topology.get_or_try_init(|| network::has_topology(&self.session)).await.copied()
    }

    /// Returns the images that the project's servers were booted from, by id; those that are gone are not in it.
    pub(crate) async fn server_images(&self) -> Result<&HashMap<String, Image>> {
        let list = || async {
            let servers = self.servers().await?;
            let ids: BTreeSet<&str> = servers.iter().filter_map(ServerRow::image_id).collect();
            let ids: Vec<&str> = ids.into_iter().collect();
            let listed = async { Glance::new(&self.session)?.images_of(&ids).await }.await;
            let images = listed.doing(|| "listing the images of the servers".to_owned())?;
            Ok(images.into_iter().map(|image| (image.id.clone(), image)).collect())
        };
        self.listing.server_images.get_or_try_init(list).await
    }
}

/// Cuts one page out of a listing, in the order of the ids.
pub(crate) fn page(mut all: Vec<Resource>, page: &Page) -> InstancePage {
    all.sort_by(|one, two| one.key.id.cmp(&two.key.id));
    let after = page.after.as_deref();
    all.retain(|resource| after.is_none_or(|after| resource.key.id.as_str() > after));
    let limit = page.limit.max(1);
    let more = all.len() > limit;
    all.truncate(limit);
    let next = if more { all.last().map(|last| last.key.id.clone()) } else { None };
    InstancePage { instances: all, next }
}
