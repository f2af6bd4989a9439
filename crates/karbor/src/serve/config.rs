//! Settings of the service: a TOML file, every table of which can be left out.
//!
//! Defaults make a whole Karbor on one machine out of nothing: SQLite, a bank in a directory, the local identity,
//! loopback, all of it below one state directory.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use karbor_api::identity::keystone::KeystoneConfig;
use karbor_scheduler::SchedulerConfig;
use karbor_types::ProviderId;
use karbor_worker::WorkerConfig;
use serde::Deserialize;
use uuid::Uuid;

use crate::serve::openstack::OpenStackConfig;

/// All settings.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Config {
    /// Address and port of the API; port 0 takes a free one. 127.0.0.1:8799 when left out.
    pub(crate) listen: Option<SocketAddr>,
    /// The address under which clients reach the service, if it is another (a proxy); scheme, host and path prefix.
    pub(crate) public_url: Option<String>,
    /// The REST API.
    pub(crate) api: karbor_api::ApiConfig,
    /// Who may watch the process.
    pub(crate) metrics: MetricsConfig,
    /// The database.
    pub(crate) database: DatabaseConfig,
    /// Who callers are.
    pub(crate) identity: IdentityConfig,
    /// Who may do what: files in the language of oslo.policy.
    pub(crate) policy: PolicyConfig,
    /// The master keys.
    pub(crate) keys: KeyConfig,
    /// The data engine.
    pub(crate) engine: EngineConfig,
    /// The banks; without any, one in the state directory.
    #[serde(rename = "bank")]
    pub(crate) banks: Vec<BankConfig>,
    /// The providers; without any, one for the things of this host.
    #[serde(rename = "provider")]
    pub(crate) providers: Vec<ProviderConfig>,
    /// The plugins for the things of this host.
    pub(crate) host: HostConfig,
    /// Things that a file declares, for trials.
    pub(crate) declared: DeclaredConfig,
    /// The protection service.
    pub(crate) worker: WorkerConfig,
    /// The operation engine.
    pub(crate) scheduler: SchedulerConfig,
    /// The cloud whose things are protected; without it none.
    pub(crate) openstack: Option<OpenStackConfig>,
    /// What a project may have where nobody set its own limits.
    pub(crate) quota: QuotaConfig,
}

/// The `[metrics]` table.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct MetricsConfig {
    /// Address and port that serve `/metrics` and `/healthcheck` alone, also where there is no API. Without it the API
    /// serves them.
    pub(crate) listen: Option<SocketAddr>,
}

/// The `[database]` table.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct DatabaseConfig {
    /// `sqlite:PATH`, `postgres://…` or `mysql://…`; without it, `karbor.db` in the state directory.
    pub(crate) url: Option<String>,
}

/// How callers are identified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum IdentityKind {
    /// By a file of projects, users and hashed tokens in the state directory.
    #[default]
    Local,
    /// By Keystone v3.
    Keystone,
    /// Not at all: everybody is an administrator. For tests.
    Noauth,
}

/// The `[identity]` table.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct IdentityConfig {
    /// How callers are identified.
    pub(crate) kind: IdentityKind,
    /// The file of the local identity; without it, `identity.toml` in the state directory.
    pub(crate) file: Option<PathBuf>,
    /// How Keystone is asked.
    pub(crate) keystone: Option<KeystoneConfig>,
}

/// The `[policy]` table.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct PolicyConfig {
    /// Files of rules, YAML or JSON, the later over the earlier; without any, `policy.yaml` and `policy.json` in the
    /// state directory, which need not exist.
    pub(crate) files: Vec<PathBuf>,
    /// Directories of further files.
    pub(crate) directories: Vec<PathBuf>,
}

/// The `[keys]` table.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct KeyConfig {
    /// The file with the master key; without it, `master.key` in the state directory, made at the first start.
    pub(crate) master_key_file: Option<PathBuf>,
    /// Files with earlier master keys, which accounts may still be wrapped with.
    pub(crate) previous_key_files: Vec<PathBuf>,
    /// Further master keys by name, each in a file that must be there: an administrator can name one for a bank account,
    /// whose key it then wraps.
    pub(crate) named: BTreeMap<String, PathBuf>,
}

/// The `[engine]` table.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct EngineConfig {
    /// The memory that one account's streams may use together.
    pub(crate) memory_mib: u64,
    /// The size of packs.
    pub(crate) pack_mib: u32,
    /// The level of zstd.
    pub(crate) compression_level: i32,
    /// Where the banks' indices are cached; without it, `cache` in the state directory. Can be deleted at any time.
    pub(crate) cache_directory: Option<PathBuf>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        let options = karbor_vault::AccountOptions::default();
        Self {
            memory_mib: options.memory_bytes >> 20,
            pack_mib: options.pack_bytes >> 20,
            compression_level: options.compression_level,
            cache_directory: None,
        }
    }
}

/// A `[[bank]]` table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct BankConfig {
    /// What providers call it.
    pub(crate) name: String,
    /// A directory, or `s3://bucket/prefix`.
    pub(crate) url: String,
}

/// Which plugins a provider bundles: a set by its name, or one plugin for a cloud with its settings.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub(crate) enum PluginConfig {
    /// By name alone.
    Named(PluginName),
    /// One plugin for a cloud, with settings.
    Set(PluginTable),
}

/// What a name in a provider's list stands for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub(crate) enum PluginName {
    /// Directories, disks and databases of this host, as the inventory names them.
    Host,
    /// Nothing is stored of any OpenStack type: for trials.
    Noop,
    /// Nothing is stored of the types that the file of declared things has schemas for: for trials.
    Declared,
    /// The usual plugin for each type of the cloud.
    OpenStack,
    /// One plugin for the cloud.
    One(String),
}

/// One plugin for a cloud, with settings.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct PluginTable {
    /// The plugin.
    pub(crate) name: String,
    /// What is set for it.
    #[serde(default)]
    pub(crate) settings: serde_json::Map<String, serde_json::Value>,
}

impl From<String> for PluginName {
    fn from(name: String) -> Self {
        match name.as_str() {
            "host" => Self::Host,
            "noop" => Self::Noop,
            "declared" => Self::Declared,
            "openstack" => Self::OpenStack,
            _ => Self::One(name),
        }
    }
}

/// A `[[provider]]` table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ProviderConfig {
    /// Its id. Checkpoints belong to it: it must not change, and is the same on every site that shares the bank.
    pub(crate) id: ProviderId,
    /// Its name.
    pub(crate) name: String,
    /// What it is for.
    #[serde(default)]
    pub(crate) description: String,
    /// The bank's name.
    pub(crate) bank: String,
    /// Its plugins.
    pub(crate) plugins: Vec<PluginConfig>,
    /// The provider to whose bank its checkpoints are copied.
    #[serde(default)]
    pub(crate) copy_to: Option<ProviderId>,
}

/// The `[host]` table.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct HostConfig {
    /// The inventory; without it, `inventory.toml` in the state directory, which need not exist.
    pub(crate) inventory: Option<PathBuf>,
}

/// The `[declared]` table.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct DeclaredConfig {
    /// A JSON file of types, instances and schemas; without it nothing is declared.
    pub(crate) file: Option<PathBuf>,
}

/// The `[quota]` table; -1 is any number.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct QuotaConfig {
    /// Plans of a project.
    pub(crate) plans: i64,
    /// Checkpoints of a project.
    pub(crate) checkpoints: i64,
}

impl Default for QuotaConfig {
    fn default() -> Self {
        Self { plans: 50, checkpoints: -1 }
    }
}

/// The name of the bank in the state directory.
const DEFAULT_BANK: &str = "default";
/// The id of the provider that is there when none is configured: the same on every machine.
const DEFAULT_PROVIDER: Uuid = Uuid::from_u128(0x6b61_7262_6f72_4000_8000_0000_0000_0001);
/// The id of the no-op provider, which is the old Karbor's.
const NOOP_PROVIDER: Uuid = Uuid::from_u128(0xb766_f37c_d011_4026_8228_2873_0d73_4a3f);

impl Config {
    /// Reads a file, or takes the defaults, and fills in what depends on the state directory.
    pub(crate) fn load(file: Option<&Path>, state_dir: &Path) -> Result<Self> {
        let mut config = match file {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("reading the settings {}", path.display()))?;
                toml::from_str(&text).with_context(|| format!("the settings {} are wrong", path.display()))?
            }
            None => Self::default(),
        };
        config.complete(state_dir)?;
        Ok(config)
    }

    fn complete(&mut self, state_dir: &Path) -> Result<()> {
        let inside = |name: &str| state_dir.join(name);
        self.database.url.get_or_insert_with(|| format!("sqlite:{}", inside("karbor.db").display()));
        self.identity.file.get_or_insert_with(|| inside("identity.toml"));
        if self.policy.files.is_empty() {
            self.policy.files = vec![inside("policy.json"), inside("policy.yaml")];
        }
        if self.identity.kind == IdentityKind::Keystone && self.identity.keystone.is_none() {
            bail!("identity.kind is \"keystone\", and the table [identity.keystone] is missing");
        }
        self.keys.master_key_file.get_or_insert_with(|| inside("master.key"));
        self.engine.cache_directory.get_or_insert_with(|| inside("cache"));
        self.host.inventory.get_or_insert_with(|| inside("inventory.toml"));
        if self.banks.is_empty() {
            let url = inside("bank").to_str().context("the state directory's path must be UTF-8")?.to_owned();
            self.banks.push(BankConfig { name: DEFAULT_BANK.to_owned(), url });
        }
        if self.providers.is_empty() {
            let bank = self.banks.first().map(|bank| bank.name.clone()).unwrap_or_default();
            self.providers.push(ProviderConfig {
                id: ProviderId(DEFAULT_PROVIDER),
                name: "Host Provider".to_owned(),
                description: "Directories, disks and databases of this host".to_owned(),
                bank: bank.clone(),
                plugins: vec![PluginConfig::Named(PluginName::Host)],
                copy_to: None,
            });
            self.providers.push(ProviderConfig {
                id: ProviderId(NOOP_PROVIDER),
                name: "No-Op Provider".to_owned(),
                description: "Stores nothing, for trials".to_owned(),
                bank,
                plugins: vec![PluginConfig::Named(PluginName::Noop)],
                copy_to: None,
            });
        }
        for (index, bank) in self.banks.iter().enumerate() {
            if self.banks[..index].iter().any(|other| other.name == bank.name) {
                bail!("two banks are called `{}`", bank.name);
            }
        }
        for provider in &self.providers {
            if !self.banks.iter().any(|bank| bank.name == provider.bank) {
                bail!(
                    "provider `{}` names the bank `{}`, which is not configured",
                    provider.name,
                    provider.bank
                );
            }
            let Some(target) = provider.copy_to else { continue };
            match self.providers.iter().find(|other| other.id == target) {
                None => bail!("provider `{}` copies to {target}, which is not configured", provider.name),
                Some(other) if other.bank == provider.bank => bail!(
                    "provider `{}` copies to `{}`, which keeps its checkpoints in the same bank",
                    provider.name,
                    other.name
                ),
                Some(_) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config> {
        let mut config: Config = toml::from_str(text)?;
        config.complete(Path::new("/state"))?;
        Ok(config)
    }

    #[test]
    fn nothing_configured_is_a_whole_service() {
        let config = parse("").expect("the defaults");
        assert_eq!(config.database.url.as_deref(), Some("sqlite:/state/karbor.db"));
        assert_eq!(config.banks[0].url, "/state/bank");
        assert_eq!(config.providers.len(), 2);
    }

    #[test]
    fn what_is_misspelt_or_does_not_fit_is_named() {
        for (text, wanted) in [
            ("listen-on = \"x\"", "listen-on"),
            ("[[bank]]\nname = \"a\"\nurl = \"/a\"\n[[bank]]\nname = \"a\"\nurl = \"/b\"", "two banks"),
            (
                "[[provider]]\nid = \"b766f37c-d011-4026-8228-28730d734a3f\"\nname = \"n\"\nbank = \"nowhere\"\nplugins = []",
                "nowhere",
            ),
        ] {
            let err = format!("{:#}", parse(text).expect_err("refused"));
            assert!(err.contains(wanted), "{err}");
        }
    }
}
