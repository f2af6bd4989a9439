//! What can be protected: types, their instances, and what depends on an instance.

use std::fmt;

use async_trait::async_trait;
use karbor_types::{ProjectId, Resource, ResourceType, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Access, Result};

/// For whom a call is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// The project whose resources are meant; nothing of another project may be shown or touched.
    pub project: ProjectId,
    /// Who asked, if a person did.
    #[serde(default)]
    pub user: Option<UserId>,
    /// The request's id, for the logs.
    #[serde(default)]
    pub request_id: Option<String>,
    /// By what right a cloud is reached. It never leaves the process.
    #[serde(skip)]
    pub access: Access,
}

impl Context {
    /// Makes the context of a project, without user, request and rights.
    pub fn new(project: ProjectId) -> Self {
        Self { project, user: None, request_id: None, access: Access::default() }
    }
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The [`InstancePage::next`] of the page before; nothing for the first page.
    #[serde(default)]
    pub after: Option<String>,
    /// At most how many instances; at least one is taken for zero.
    pub limit: usize,
}

impl Default for Page {
    fn default() -> Self {
        Self { after: None, limit: 1000 }
    }
}

/// One page of instances.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InstancePage {
    /// The instances, in a stable order.
    pub instances: Vec<Resource>,
    /// Where the next page starts; nothing after the last.
    #[serde(default)]
    pub next: Option<String>,
}

/// One type of thing that can be protected.
///
/// Contract: only what belongs to the context's project is listed, shown or named as a dependent; another
/// project's instance answers exactly as one that does not exist. A listing that fails is an error, never a
/// shorter list. A name is no identity: two answers with the same type and id mean the same resource.
#[async_trait]
pub trait Protectable: fmt::Debug + Send + Sync {
    /// Returns the type.
    fn kind(&self) -> ResourceType;

    /// Returns the types of which an instance may have instances of this type as dependents.
    fn parents(&self) -> Vec<ResourceType>;

    /// Lists the project's instances.
    async fn list(&self, ctx: &Context, page: &Page) -> Result<InstancePage>;

    /// Returns one instance; [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when there is none, also when
    /// it is another project's.
    async fn show(&self, ctx: &Context, id: &str, parameters: &Map<String, Value>) -> Result<Resource>;

    /// Returns the instances *of this type* that directly depend on `parent`.
    async fn dependents(&self, ctx: &Context, parent: &Resource) -> Result<Vec<Resource>>;
}
