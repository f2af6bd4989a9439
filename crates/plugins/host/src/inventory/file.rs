//! The inventory file as it is written: TOML, and nothing in it that is not known here.

use serde::Deserialize;
use toml::Spanned;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct File {
    pub(crate) application: Vec<Application>,
    pub(crate) directory: Vec<Directory>,
    pub(crate) disk: Vec<Disk>,
    pub(crate) postgresql: Vec<PostgreSql>,
    pub(crate) sqlite: Vec<Sqlite>,
    pub(crate) restore_root: Vec<RestoreRoot>,
}

/// `[[application]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Application {
    pub(crate) name: Spanned<String>,
    pub(crate) project: Spanned<String>,
    #[serde(default)]
    pub(crate) members: Vec<Spanned<String>>,
    pub(crate) before: Option<Command>,
    pub(crate) after: Option<Command>,
    #[serde(default)]
    pub(crate) release: Release,
}

/// `[[directory]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Directory {
    pub(crate) name: Spanned<String>,
    pub(crate) project: Spanned<String>,
    #[serde(default)]
    pub(crate) depends_on: Vec<Spanned<String>>,
    pub(crate) before: Option<Command>,
    pub(crate) after: Option<Command>,
    #[serde(default)]
    pub(crate) release: Release,
    pub(crate) path: Spanned<String>,
    #[serde(default)]
    pub(crate) restore_roots: Vec<Spanned<String>>,
    #[serde(default)]
    pub(crate) one_file_system: bool,
}

/// `[[disk]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Disk {
    pub(crate) name: Spanned<String>,
    pub(crate) project: Spanned<String>,
    #[serde(default)]
    pub(crate) depends_on: Vec<Spanned<String>>,
    pub(crate) before: Option<Command>,
    pub(crate) after: Option<Command>,
    #[serde(default)]
    pub(crate) release: Release,
    pub(crate) path: Spanned<String>,
    #[serde(default)]
    pub(crate) restore_roots: Vec<Spanned<String>>,
}

/// `[[postgresql]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct PostgreSql {
    pub(crate) name: Spanned<String>,
    pub(crate) project: Spanned<String>,
    #[serde(default)]
    pub(crate) depends_on: Vec<Spanned<String>>,
    pub(crate) before: Option<Command>,
    pub(crate) after: Option<Command>,
    #[serde(default)]
    pub(crate) release: Release,
    pub(crate) database: Spanned<String>,
    #[serde(default = "default_host")]
    pub(crate) host: String,
    #[serde(default = "default_port")]
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password_file: Option<Spanned<String>>,
    pub(crate) password_env: Option<String>,
    #[serde(default)]
    pub(crate) ssl_mode: SslMode,
    pub(crate) ssl_root_cert: Option<Spanned<String>>,
    #[serde(default = "default_maintenance_database")]
    pub(crate) maintenance_database: String,
    pub(crate) bin_dir: Option<Spanned<String>>,
    #[serde(default)]
    pub(crate) restore_databases: Vec<Spanned<String>>,
}

fn default_host() -> String {
    "/var/run/postgresql".to_owned()
}

fn default_port() -> u16 {
    5432
}

fn default_maintenance_database() -> String {
    "postgres".to_owned()
}

/// `[[sqlite]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Sqlite {
    pub(crate) name: Spanned<String>,
    pub(crate) project: Spanned<String>,
    #[serde(default)]
    pub(crate) depends_on: Vec<Spanned<String>>,
    pub(crate) before: Option<Command>,
    pub(crate) after: Option<Command>,
    #[serde(default)]
    pub(crate) release: Release,
    pub(crate) path: Spanned<String>,
    #[serde(default)]
    pub(crate) restore_roots: Vec<Spanned<String>>,
}

/// `[[restore-root]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct RestoreRoot {
    pub(crate) project: Spanned<String>,
    pub(crate) path: Spanned<String>,
}

/// `{ command = ["/path", "argument"], timeout-seconds = 300 }`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Command {
    pub(crate) command: Spanned<Vec<String>>,
    #[serde(default = "default_timeout_seconds")]
    pub(crate) timeout_seconds: Spanned<u64>,
}

fn default_timeout_seconds() -> Spanned<u64> {
    Spanned::new(0..0, 300)
}

/// When the `after` command is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Release {
    /// Once the bytes of the instance, and of all that hangs on it, are copied.
    #[default]
    Copied,
    /// As soon as everything that hangs on it is prepared: for commands that take a snapshot.
    Prepared,
}

/// How the connection to a PostgreSQL server is encrypted; the words of its own clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SslMode {
    Disable,
    Allow,
    #[default]
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl SslMode {
    /// Returns the word as PostgreSQL's clients spell it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}
