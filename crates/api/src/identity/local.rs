//! Local identity: a file of projects, users and hashed tokens.
//!
//! The file holds no secret: a token has 256 random bits, so its hash can neither be reversed nor guessed, and
//! looking it up by hash takes no longer for a near miss. It is read again when it changes; a change that cannot
//! be read is logged once and what held before holds on, so that a slip of the editor locks nobody out.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use karbor_actions::{Clock, Principal};
use karbor_types::{ProjectId, UserId};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tracing::{error, info};

use crate::fault::chain;
use crate::identity::{Identity, IdentityError};

/// The format of the file that this program writes and reads.
const FORMAT: u32 = 1;

/// What stands before the hexadecimal digits of a hash.
const HASH_PREFIX: &str = "blake3:";

/// What stands before the hexadecimal digits of a token, so that people and scanners know one.
const TOKEN_PREFIX: &str = "karbor-";

/// What is wrong with the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// It cannot be read or written.
    #[error("{doing} the identity file {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It is not TOML of the right shape.
    #[error("the identity file {} is malformed", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The cause, with its line.
        source: toml::de::Error,
    },
    /// It contradicts itself.
    #[error("the identity file {}: {reason}", path.display())]
    Inconsistent {
        /// The file.
        path: PathBuf,
        /// How.
        reason: String,
    },
}

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalFile {
    /// The number of the format: 1.
    pub format: u32,
    /// The projects.
    #[serde(default, rename = "project", skip_serializing_if = "Vec::is_empty")]
    pub projects: Vec<LocalProject>,
    /// The users.
    #[serde(default, rename = "user", skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<LocalUser>,
    /// The tokens.
    #[serde(default, rename = "token", skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<LocalToken>,
}

/// A project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalProject {
    /// Its id; clients want one that looks like a UUID.
    pub id: ProjectId,
    /// Its name, for people.
    pub name: String,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalUser {
    /// The id.
    pub id: UserId,
    /// The name, for people.
    pub name: String,
}

/// A token: who it stands for, in which project, with which roles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalToken {
    /// `blake3:` and the hash of the token, in hexadecimal digits.
    pub hash: String,
    /// The user.
    pub user: UserId,
    /// The project.
    pub project: ProjectId,
    /// The roles in the project.
    #[serde(default)]
    pub roles: Vec<String>,
    /// When it is no longer accepted; never when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<jiff::Timestamp>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// Makes a token of random bytes.
pub fn new_token(random: &[u8; 32]) -> SecretString {
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    SecretString::from(format!("{TOKEN_PREFIX}{digits}"))
}

/// Returns the hash of a token, as the file holds it.
pub fn hash_token(token: &SecretString) -> String {
    format!("{HASH_PREFIX}{}", blake3::hash(token.expose_secret().as_bytes()).to_hex())
}

impl Default for LocalFile {
    fn default() -> Self {
        Self { format: FORMAT, projects: Vec::new(), users: Vec::new(), tokens: Vec::new() }
    }
}

impl LocalFile {
    /// Makes the file of a first start: one project, one user, who is an administrator.
    pub fn first(project: ProjectId, user: UserId, token: &SecretString) -> Self {
        let token = LocalToken {
            hash: hash_token(token),
            user: user.clone(),
            project: project.clone(),
            roles: vec!["admin".to_owned(), "member".to_owned()],
            expires_at: None,
            comment: Some("made at the first start".to_owned()),
        };
        Self {
            format: FORMAT,
            projects: vec![LocalProject { id: project, name: "default".to_owned() }],
            users: vec![LocalUser { id: user, name: "admin".to_owned() }],
            tokens: vec![token],
        }
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`LocalError`].
    pub fn read(path: &Path) -> Result<Self, LocalError> {
        let text = fs::read_to_string(path).map_err(|source| LocalError::Io {
            doing: "reading",
            path: path.to_owned(),
            source,
        })?;
        let file: Self = toml::from_str(&text)
            .map_err(|source| LocalError::Malformed { path: path.to_owned(), source })?;
        file.check().map_err(|reason| LocalError::Inconsistent { path: path.to_owned(), reason })?;
        Ok(file)
    }

    /// Writes the file, readable by its owner only; whoever reads it meanwhile sees the old one or the new one.
    ///
    /// # Errors
    /// [`LocalError`].
    pub fn write(&self, path: &Path) -> Result<(), LocalError> {
        self.check().map_err(|reason| LocalError::Inconsistent { path: path.to_owned(), reason })?;
        let body = toml::to_string(self).expect("texts, lists and times are always TOML");
        let text = format!("# Karbor's local identity. It is read again when it changes.\n{body}");
        write_owner_only(path, text.as_bytes()).map_err(|source| LocalError::Io {
            doing: "writing",
            path: path.to_owned(),
            source,
        })
    }

    fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("it has format {}; this program knows format {FORMAT}", self.format));
        }
        let mut projects = HashSet::new();
        if let Some(twice) = self.projects.iter().find(|project| !projects.insert(&project.id)) {
            return Err(format!("project {} stands twice", twice.id));
        }
        let mut users = HashSet::new();
        if let Some(twice) = self.users.iter().find(|user| !users.insert(&user.id)) {
            return Err(format!("user {} stands twice", twice.id));
        }
        let mut hashes = HashSet::new();
        for token in &self.tokens {
            let digits = token.hash.strip_prefix(HASH_PREFIX);
            if digits.and_then(|digits| blake3::Hash::from_hex(digits).ok()).is_none() {
                return Err(format!(
                    "`{}` is no hash of a token: {HASH_PREFIX} and 64 digits are expected",
                    token.hash
                ));
            }
            if !hashes.insert(&token.hash) {
                return Err(format!("the token {} stands twice", token.hash));
            }
            if !projects.contains(&token.project) {
                return Err(format!(
                    "the token {} is for project {}, which is not there",
                    token.hash, token.project
                ));
            }
            if !users.contains(&token.user) {
                return Err(format!("the token {} is for user {}, who is not there", token.hash, token.user));
            }
        }
        Ok(())
    }
}

/// Writes a file that only its owner may read, at once: a temporary file beside it is renamed into its place.
///
/// # Errors
/// Whatever the file system says.
pub fn write_owner_only(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    // What a crash left behind may have other permissions.
    match fs::remove_file(&temporary) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Knows the tokens of a file.
pub struct LocalIdentity {
    path: PathBuf,
    clock: Clock,
    loaded: Mutex<Loaded>,
}

/// What was read of the file, and what it looked like then.
struct Loaded {
    stamp: Option<(SystemTime, u64)>,
    tokens: HashMap<blake3::Hash, Known>,
}

#[derive(Clone)]
struct Known {
    principal: Principal,
    expires_at: Option<jiff::Timestamp>,
}

impl LocalIdentity {
    /// Opens the identity of a file that is there.
    ///
    /// # Errors
    /// [`LocalError`] tells the line.
    pub fn open(path: &Path, clock: Clock) -> Result<Self, LocalError> {
        let stamp = stamp(path);
        let tokens = known(&LocalFile::read(path)?);
        Ok(Self { path: path.to_owned(), clock, loaded: Mutex::new(Loaded { stamp, tokens }) })
    }

    fn find(&self, token: &str) -> Option<Known> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken before the file is read: what changes while it is read is read again.
        let stamp = stamp(&self.path);
        if stamp != loaded.stamp {
            loaded.stamp = stamp;
            match LocalFile::read(&self.path) {
                Ok(file) => {
                    loaded.tokens = known(&file);
                    info!("Read the identity file {} again, it has changed", self.path.display());
                }
                Err(err) => {
                    let text = chain(&err);
                    error!(
                        "The identity file has changed and cannot be used; what held before holds on: {text}"
                    );
                }
            }
        }
        loaded.tokens.get(&blake3::hash(token.as_bytes())).cloned()
    }
}

impl std::fmt::Debug for LocalIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalIdentity").field("path", &self.path).finish_non_exhaustive()
    }
}

#[async_trait]
impl Identity for LocalIdentity {
    async fn authenticate(&self, token: &str) -> Result<Principal, IdentityError> {
        let known = self.find(token).ok_or_else(|| IdentityError::refused("the token is not known"))?;
        let now = (self.clock)().as_micros();
        if known.expires_at.is_some_and(|end| end.as_microsecond() <= now) {
            return Err(IdentityError::refused("the token has expired"));
        }
        Ok(known.principal)
    }

    fn challenge(&self) -> String {
        "Token realm=\"karbor\"".to_owned()
    }
}

fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let found = fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len()))
}

/// Returns the tokens by their hashes. The file was checked.
fn known(file: &LocalFile) -> HashMap<blake3::Hash, Known> {
    let row = |token: &LocalToken| {
        let hash = blake3::Hash::from_hex(token.hash.strip_prefix(HASH_PREFIX)?).ok()?;
        let project = file.projects.iter().find(|project| project.id == token.project)?;
        let user = file.users.iter().find(|user| user.id == token.user)?;
        let principal = Principal {
            project_name: Some(project.name.clone()),
            user_name: Some(user.name.clone()),
            ..Principal::new(token.user.clone(), token.project.clone(), token.roles.iter().cloned())
        };
        Some((hash, Known { principal, expires_at: token.expires_at }))
    };
    file.tokens.iter().filter_map(row).collect()
}
