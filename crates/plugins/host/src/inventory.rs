//! What exists on this host, for whom, and what depends on what: the administrator's inventory, checked.
//!
//! Invariant: nothing outside the inventory can be named, and no project reaches another's instance. An
//! [`Inventory`] is whole: every name that it refers to exists in the same project, nothing depends on itself,
//! and every path is absolute. An id is derived from project, type and name, so that the same inventory on
//! another machine gives the same ids, and renaming is a new instance.

mod check;
mod error;
mod file;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use karbor_types::{ProjectId, Resource, ResourceKey, ResourceType};
use serde_json::{Value, json};
use uuid::Uuid;

pub(crate) use check::{is_database_name, normal_path};
pub use error::{Error, Result};
pub(crate) use file::{Release, SslMode};

/// The name space of all ids that are derived from an inventory. It never changes.
const NAMESPACE: Uuid = Uuid::from_u128(0x6d1c_3c0a_52f8_4a53_9d0e_6b6f_7374_2d31);

/// A type of thing that an inventory knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `Host::Application`: groups others.
    Application,
    /// `Host::Directory`: a tree of files.
    Directory,
    /// `Host::Disk`: an image file or a block device.
    Disk,
    /// `Host::PostgreSQL`: one database of a server.
    PostgreSql,
    /// `Host::SQLite`: one database file.
    Sqlite,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Application, Self::Directory, Self::Disk, Self::PostgreSql, Self::Sqlite];

    /// Returns the name of the type.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Application => "Host::Application",
            Self::Directory => "Host::Directory",
            Self::Disk => "Host::Disk",
            Self::PostgreSql => "Host::PostgreSQL",
            Self::Sqlite => "Host::SQLite",
        }
    }

    /// Returns the resource type.
    pub fn resource_type(self) -> ResourceType {
        ResourceType::from(self.as_str())
    }
}

/// One thing that exists.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    pub(crate) kind: Kind,
    pub(crate) key: ResourceKey,
    pub(crate) project: ProjectId,
    pub(crate) name: String,
    /// What it depends on, in the order that the file gives.
    pub(crate) children: Vec<ResourceKey>,
    pub(crate) before: Option<Command>,
    pub(crate) after: Option<Command>,
    pub(crate) release: Release,
    pub(crate) source: Source,
}

impl Instance {
    /// Returns it as protectables show it.
    pub(crate) fn resource(&self) -> Resource {
        let extra_info = match &self.source {
            Source::Application => Value::Null,
            Source::Files(files) => json!({"path": files.path.to_string_lossy()}),
            Source::PostgreSql(server) => json!({"database": server.database}),
        };
        Resource { key: self.key.clone(), name: self.name.clone(), extra_info }
    }

    /// Returns the path, of what has one.
    pub(crate) fn files(&self) -> Option<&Files> {
        match &self.source {
            Source::Files(files) => Some(files),
            _ => None,
        }
    }
}

/// Where an instance's data is.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Application,
    Files(Files),
    PostgreSql(Box<Server>),
}

/// A path, and where it may be restored to.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) path: PathBuf,
    /// Places for restored copies; with none, only siblings whose names begin with the original's.
    pub(crate) restore_roots: Vec<PathBuf>,
    /// Leave out what is mounted below; directories only.
    pub(crate) one_file_system: bool,
}

/// One database of a PostgreSQL server, and how it is reached.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) database: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: Password,
    pub(crate) ssl_mode: SslMode,
    pub(crate) ssl_root_cert: Option<PathBuf>,
    pub(crate) maintenance_database: String,
    pub(crate) bin_dir: Option<PathBuf>,
    /// Names that restored copies may have, `*` standing for any text; with none, those that begin with the
    /// original's name and `_`.
    pub(crate) restore_databases: Vec<String>,
}

/// Where a password is found when it is needed.
#[derive(Debug, Clone)]
pub(crate) enum Password {
    None,
    File(PathBuf),
    Env(String),
}

/// A command of the administrator, run without a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) timeout: Duration,
}

/// Everything that exists on this host.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    instances: BTreeMap<ResourceKey, Instance>,
    restore_roots: BTreeMap<ProjectId, Vec<PathBuf>>,
}

impl Inventory {
    /// Reads an inventory from its text; `path` is only for errors.
    ///
    /// # Errors
    /// [`Error`] names the line and what is wrong in it.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        check::check(path, text)
    }

    /// Returns how many instances there are, over all projects.
    pub fn len(&self) -> usize {
        self.instances.len()
    }

    /// Returns whether there is no instance.
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }

    /// Returns a project's instances of one type, in the order of their ids.
    pub(crate) fn of(&self, project: &ProjectId, kind: Kind) -> impl Iterator<Item = &Instance> {
        let (project, kind) = (project.clone(), kind);
        self.instances.values().filter(move |instance| instance.kind == kind && instance.project == project)
    }

    /// Returns an instance, if it belongs to the project.
    pub(crate) fn find(&self, project: &ProjectId, key: &ResourceKey) -> Option<&Instance> {
        self.instances.get(key).filter(|instance| instance.project == *project)
    }

    /// Returns all instances of all projects.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values()
    }

    /// Returns the places to which anything of a project may be restored.
    pub(crate) fn restore_roots(&self, project: &ProjectId) -> &[PathBuf] {
        self.restore_roots.get(project).map_or(&[], Vec::as_slice)
    }
}

/// Returns the id of an instance.
pub(crate) fn instance_id(project: &ProjectId, kind: Kind, name: &str) -> String {
    derived_id(project, kind, "inventory", name)
}

/// Returns the id of something that stands in no inventory: what was restored beside its original.
pub(crate) fn restored_id(project: &ProjectId, kind: Kind, place: &str) -> String {
    derived_id(project, kind, "restored", place)
}

fn derived_id(project: &ProjectId, kind: Kind, space: &str, name: &str) -> String {
    // The parts are joined by a byte that no project id and no type can have, so that no two join to the same.
    let text = [project.as_str(), kind.as_str(), space, name].join("\0");
    Uuid::new_v5(&NAMESPACE, text.as_bytes()).hyphenated().to_string()
}
