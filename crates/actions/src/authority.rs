//! Who may do what: the policy's rules, read from files and kept up to date.
//!
//! A file that is wrong stops the start. One that becomes wrong later changes nothing: the rules before it hold
//! on, and the fault is logged once.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use karbor_policy::{Attributes, Policy, Source};
use karbor_types::{Instant, ProjectId};
use serde_json::Value;
use tracing::{error, info};

use crate::{Caller, Error, Principal, Result};

/// How often the files are looked at, in seconds.
const LOOK_SECONDS: i64 = 1;

/// Where the rules come from, beside the built-in ones. What does not exist holds no rules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicyFiles {
    /// The files, the later over the earlier.
    pub files: Vec<PathBuf>,
    /// Directories whose files come after them, in alphabetical order.
    pub directories: Vec<PathBuf>,
}

/// Why the rules could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// A file exists and cannot be read.
    #[error("reading the policy file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file's rules are not understood.
    #[error("the policy is not understood")]
    Policy(#[source] karbor_policy::Error),
}

/// Decides by the policy.
#[derive(Debug)]
pub struct Authority {
    files: PolicyFiles,
    policy: RwLock<Arc<Policy>>,
    seen: Mutex<Seen>,
}

/// What the files looked like when they were last looked at.
#[derive(Debug)]
struct Seen {
    at: Option<Instant>,
    stamps: Vec<Stamp>,
}

impl Authority {
    /// Decides by the built-in rules.
    pub fn builtin() -> Self {
        Self::with_policy(Policy::builtin())
    }

    /// Decides by rules that do not change.
    pub fn with_policy(policy: Policy) -> Self {
        Self {
            files: PolicyFiles::default(),
            policy: RwLock::new(Arc::new(policy)),
            seen: Mutex::new(Seen { at: None, stamps: Vec::new() }),
        }
    }

    /// Decides by the built-in rules and those of files, which are read again when they change.
    ///
    /// # Errors
    /// [`AuthorityError`] tells the file, the line and what is wrong there.
    pub fn from_files(files: PolicyFiles) -> std::result::Result<Self, AuthorityError> {
        let (stamps, policy) = read(&files)?;
        Ok(Self { files, policy: RwLock::new(Arc::new(policy)), seen: Mutex::new(Seen { at: None, stamps }) })
    }

    /// Returns the rules that hold now.
    pub fn policy(&self, now: Instant) -> Arc<Policy> {
        self.look(now);
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn caller(&self, principal: Principal, request_id: String, now: Instant) -> Caller {
        let credentials = principal.credentials(principal.is_admin);
        let target = own(&principal.project, principal.user.as_str());
        let is_admin =
            principal.is_admin || self.policy(now).allows("context_is_admin", &credentials, &target);
        Caller::new(principal, is_admin, request_id)
    }

    fn look(&self, now: Instant) {
        if self.files.files.is_empty() && self.files.directories.is_empty() {
            return;
        }
        // Somebody else is looking: what holds now is good enough for this request.
        let Ok(mut seen) = self.seen.try_lock() else { return };
        let elapsed = seen.at.map(|at| now.seconds_since(at));
        if elapsed.is_some_and(|seconds| (0..LOOK_SECONDS).contains(&seconds)) {
            return;
        }
        seen.at = Some(now);
        let found = stamps(&self.files);
        if found == seen.stamps {
            return;
        }
        seen.stamps = found;
        match read(&self.files) {
            Ok((stamps, policy)) => {
                seen.stamps = stamps;
                *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
                info!("Read the policy again, its files have changed");
            }
            Err(err) => {
                let err: &dyn std::error::Error = &err;
                error!(
                    error = err,
                    "The policy's files have changed and cannot be used; the rules before hold on"
                );
            }
        }
    }
}

/// By what a changed file is known.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    modified: SystemTime,
    size_bytes: u64,
}

/// Looks at the files and reads them. The stamps are taken first: what changes while it is read is read again.
fn read(files: &PolicyFiles) -> std::result::Result<(Vec<Stamp>, Policy), AuthorityError> {
    let stamps = stamps(files);
    let mut sources = Vec::new();
    for path in paths(files) {
        match std::fs::read_to_string(&path) {
            Ok(text) => sources.push(Source { name: path.display().to_string(), text }),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(AuthorityError::Read { path, source }),
        }
    }
    let policy = Policy::builtin().overridden(&sources).map_err(AuthorityError::Policy)?;
    Ok((stamps, policy))
}

fn paths(files: &PolicyFiles) -> Vec<PathBuf> {
    let mut paths = files.files.clone();
    for directory in &files.directories {
        let mut inside: Vec<PathBuf> =
            std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        inside.retain(|path| path.is_file() && !is_hidden(path));
        inside.sort();
        paths.append(&mut inside);
    }
    paths
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn stamps(files: &PolicyFiles) -> Vec<Stamp> {
    let stamp = |path: PathBuf| {
        let found = std::fs::metadata(&path).ok()?;
        Some(Stamp { path, modified: found.modified().ok()?, size_bytes: found.len() })
    };
    paths(files).into_iter().filter_map(stamp).collect()
}

/// The target of what a caller does in their own project.
pub(crate) fn own(project: &ProjectId, user: &str) -> Attributes {
    let mut target = Attributes::new();
    target.insert("project_id".to_owned(), Value::from(project.as_str()));
    target.insert("user_id".to_owned(), Value::from(user));
    target
}

impl crate::Actions {
    /// Asks the policy about something in the caller's own project.
    pub(crate) fn allow(&self, caller: &Caller, rule: &str) -> Result<()> {
        self.allow_on(caller, rule, Attributes::new())
    }

    /// Asks the policy about an object with these fields.
    pub(crate) fn allow_on(&self, caller: &Caller, rule: &str, object: Attributes) -> Result<()> {
        if self.is_allowed_on(caller, rule, object) {
            Ok(())
        } else {
            Err(Error::Forbidden { rule: rule.to_owned() })
        }
    }

    /// Asks the policy whether the caller may see an object; if not, it does not exist for them.
    pub(crate) fn allow_seeing(
        &self,
        caller: &Caller,
        rule: &str,
        object: Attributes,
        what: &'static str,
        id: &impl ToString,
    ) -> Result<()> {
        if self.is_allowed_on(caller, rule, object) { Ok(()) } else { Err(Error::not_found(what, id)) }
    }

    fn is_allowed_on(&self, caller: &Caller, rule: &str, object: Attributes) -> bool {
        let mut target = own(&caller.project, caller.user.as_str());
        target.extend(object);
        self.parts.authority.policy(self.now()).allows(rule, &caller.credentials, &target)
    }
}
