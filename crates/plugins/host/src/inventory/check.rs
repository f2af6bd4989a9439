//! From the file's text to an inventory that is whole.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use karbor_types::{Graph, ProjectId, Resource, ResourceKey};
use toml::Spanned;

use crate::inventory::file::{self, File};
use crate::inventory::{
    Command, Error, Files, Instance, Inventory, Kind, Password, Result, Server, Source, instance_id,
};

/// The longest that a command of the inventory may run.
const MAX_TIMEOUT_SECONDS: u64 = 24 * 3600;

/// Reads and checks the text of an inventory.
pub(super) fn check(path: &Path, text: &str) -> Result<Inventory> {
    let file: File = toml::from_str(text)
        .map_err(|err| Error::Syntax { path: path.to_owned(), message: err.to_string() })?;
    let mut checker = Checker { path, text, drafts: Vec::new(), restore_roots: BTreeMap::new() };
    checker.read(file)?;
    checker.finish()
}

/// An instance whose dependencies are still names.
struct Draft {
    instance: Instance,
    names: Vec<Spanned<String>>,
    span: Range<usize>,
}

/// What all entries have.
struct Common {
    name: Spanned<String>,
    project: Spanned<String>,
    names: Vec<Spanned<String>>,
    before: Option<file::Command>,
    after: Option<file::Command>,
    release: file::Release,
}

struct Checker<'a> {
    path: &'a Path,
    text: &'a str,
    drafts: Vec<Draft>,
    restore_roots: BTreeMap<ProjectId, Vec<PathBuf>>,
}

macro_rules! common {
    ($entry:ident, $names:ident) => {
        Common {
            name: $entry.name,
            project: $entry.project,
            names: $entry.$names,
            before: $entry.before,
            after: $entry.after,
            release: $entry.release,
        }
    };
}

impl Checker<'_> {
    fn read(&mut self, file: File) -> Result<()> {
        for entry in file.application {
            self.add(Kind::Application, common!(entry, members), Source::Application)?;
        }
        for entry in file.directory {
            let files = self.files(&entry.path, &entry.restore_roots, entry.one_file_system)?;
            self.add(Kind::Directory, common!(entry, depends_on), Source::Files(files))?;
        }
        for entry in file.disk {
            let files = self.files(&entry.path, &entry.restore_roots, false)?;
            self.add(Kind::Disk, common!(entry, depends_on), Source::Files(files))?;
        }
        for entry in file.sqlite {
            let files = self.files(&entry.path, &entry.restore_roots, false)?;
            self.add(Kind::Sqlite, common!(entry, depends_on), Source::Files(files))?;
        }
        for entry in file.postgresql {
            let server = self.server(&entry)?;
            self.add(Kind::PostgreSql, common!(entry, depends_on), Source::PostgreSql(Box::new(server)))?;
        }
        for entry in file.restore_root {
            let project = self.project(&entry.project)?;
            let root = self.absolute(&entry.path)?;
            self.restore_roots.entry(project).or_default().push(root);
        }
        Ok(())
    }

    fn add(&mut self, kind: Kind, common: Common, source: Source) -> Result<()> {
        let project = self.project(&common.project)?;
        let span = common.name.span();
        let name = common.name.into_inner();
        if name.is_empty() || name.len() > 255 || name.chars().any(char::is_control) {
            let text = "a name has 1 to 255 bytes and no control characters".to_owned();
            return Err(self.error(&span, text));
        }
        let key = ResourceKey { kind: kind.resource_type(), id: instance_id(&project, kind, &name) };
        let instance = Instance {
            kind,
            key,
            project,
            name,
            children: Vec::new(),
            before: common.before.map(|command| self.command(command)).transpose()?,
            after: common.after.map(|command| self.command(command)).transpose()?,
            release: common.release,
            source,
        };
        self.drafts.push(Draft { instance, names: common.names, span });
        Ok(())
    }

    /// Turns names into keys, and refuses two of one name, names that do not exist, and circles.
    fn finish(self) -> Result<Inventory> {
        let mut known: HashMap<(&ProjectId, &str), (&ResourceKey, &Range<usize>)> = HashMap::new();
        for draft in &self.drafts {
            let Instance { project, name, key, .. } = &draft.instance;
            if let Some((_, first)) = known.insert((project, name), (key, &draft.span)) {
                let text = format!(
                    "project {project} has an instance `{name}` already, in line {}; names are used once",
                    self.line(first)
                );
                return Err(self.error(&draft.span, text));
            }
        }
        let mut children: HashMap<ResourceKey, Vec<Resource>> = HashMap::new();
        for draft in &self.drafts {
            let mut below: Vec<Resource> = Vec::new();
            for name in &draft.names {
                let project = &draft.instance.project;
                let Some((key, _)) = known.get(&(project, name.get_ref().as_str())) else {
                    let text = format!("project {project} has no instance named `{}`", name.get_ref());
                    return Err(self.error(&name.span(), text));
                };
                if !below.iter().any(|child| child.key == **key) {
                    let (key, name) = ((*key).clone(), name.get_ref().clone());
                    below.push(Resource { key, name, extra_info: serde_json::Value::Null });
                }
            }
            children.insert(draft.instance.key.clone(), below);
        }
        for draft in &self.drafts {
            // From each alone, so that the error can name the line of one that is on the circle or leads to it.
            if let Err(err) = Graph::build(&[draft.instance.resource()], &children) {
                return Err(self.error(&draft.span, self.named(&err.to_string())));
            }
        }
        let with_children = self.drafts.into_iter().map(|draft| {
            let below = children.remove(&draft.instance.key).unwrap_or_default();
            let keys = below.into_iter().map(|child| child.key).collect();
            (draft.instance.key.clone(), Instance { children: keys, ..draft.instance })
        });
        Ok(Inventory { instances: with_children.collect(), restore_roots: self.restore_roots })
    }

    /// Puts names in the place of keys in a text for people.
    fn named(&self, text: &str) -> String {
        self.drafts.iter().fold(text.to_owned(), |text, draft| {
            text.replace(&draft.instance.key.to_string(), &format!("`{}`", draft.instance.name))
        })
    }

    fn files(
        &self,
        path: &Spanned<String>,
        roots: &[Spanned<String>],
        one_file_system: bool,
    ) -> Result<Files> {
        let path = self.absolute(path)?;
        let restore_roots = roots.iter().map(|root| self.absolute(root)).collect::<Result<_>>()?;
        Ok(Files { path, restore_roots, one_file_system })
    }

    fn server(&self, entry: &file::PostgreSql) -> Result<Server> {
        let path =
            |value: &Option<Spanned<String>>| value.as_ref().map(|path| self.absolute(path)).transpose();
        let password = match (path(&entry.password_file)?, &entry.password_env) {
            (None, None) => Password::None,
            (Some(file), None) => Password::File(file),
            (None, Some(name)) => Password::Env(name.clone()),
            (Some(_), Some(_)) => {
                let text = "give `password-file` or `password-env`, not both".to_owned();
                return Err(self.error(&entry.name.span(), text));
            }
        };
        self.database_name(&entry.database, false)?;
        for pattern in &entry.restore_databases {
            self.database_name(pattern, true)?;
        }
        Ok(Server {
            database: entry.database.get_ref().clone(),
            host: entry.host.clone(),
            port: entry.port,
            user: entry.user.clone(),
            password,
            ssl_mode: entry.ssl_mode,
            ssl_root_cert: path(&entry.ssl_root_cert)?,
            maintenance_database: entry.maintenance_database.clone(),
            bin_dir: path(&entry.bin_dir)?,
            restore_databases: entry.restore_databases.iter().map(|name| name.get_ref().clone()).collect(),
        })
    }

    fn database_name(&self, name: &Spanned<String>, pattern: bool) -> Result<()> {
        let text = name.get_ref();
        let plain = if pattern { text.replace('*', "x") } else { text.clone() };
        if is_database_name(&plain) {
            return Ok(());
        }
        let text = format!("`{text}` is not a database name: 1 to 63 bytes without control characters");
        Err(self.error(&name.span(), text))
    }

    fn command(&self, command: file::Command) -> Result<Command> {
        let span = command.command.span();
        let mut argv = command.command.into_inner().into_iter();
        let program = PathBuf::from(argv.next().unwrap_or_default());
        if !program.is_absolute() {
            let text = "a command is an array that begins with the absolute path of a program".to_owned();
            return Err(self.error(&span, text));
        }
        let seconds = *command.timeout_seconds.get_ref();
        if seconds == 0 || seconds > MAX_TIMEOUT_SECONDS {
            let text = format!("`timeout-seconds` must be from 1 to {MAX_TIMEOUT_SECONDS}");
            return Err(self.error(&command.timeout_seconds.span(), text));
        }
        Ok(Command { program, arguments: argv.collect(), timeout: Duration::from_secs(seconds) })
    }

    fn project(&self, project: &Spanned<String>) -> Result<ProjectId> {
        ProjectId::new(project.get_ref().as_str()).map_err(|err| self.error(&project.span(), err.to_string()))
    }

    /// Accepts a path that means one place whatever the working directory is.
    fn absolute(&self, path: &Spanned<String>) -> Result<PathBuf> {
        let text = path.get_ref();
        match normal_path(text) {
            Some(normal) => Ok(normal),
            None => {
                let text = format!("`{text}` is not an absolute path without `..`");
                Err(self.error(&path.span(), text))
            }
        }
    }

    fn error(&self, span: &Range<usize>, message: String) -> Error {
        Error::Entry { path: self.path.to_owned(), line: self.line(span), message }
    }

    fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }
}

/// Returns the path without doubled or trailing slashes if it is absolute, is more than `/`, and has no `..`.
pub(crate) fn normal_path(text: &str) -> Option<PathBuf> {
    let path = Path::new(text);
    if text.contains('\0') || !path.is_absolute() {
        return None;
    }
    let mut normal = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => normal.push(name),
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    (normal != Path::new("/")).then_some(normal)
}

/// Returns whether PostgreSQL can have a database of that name.
pub(crate) fn is_database_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 63 && !name.chars().any(char::is_control)
}
