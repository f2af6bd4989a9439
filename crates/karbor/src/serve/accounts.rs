//! What an administrator says of one project's account in a bank: where it lies, how to be let in, which key wraps it.
//!
//! A place is a prefix below the bank's own, or a whole one: then a directory must lie below the directory of some
//! configured bank, because whoever may speak to the API need not be whoever owns this machine's files.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use anyhow::{Context, Result, bail};
use karbor_actions::{BankAccount, Credentials};
use karbor_bank::{BankUrl, Key};
use karbor_types::ProjectId;
use karbor_vault::{Salt, SystemEntropy, open_secret, seal_secret};
use secrecy::{ExposeSecret, SecretString};

use crate::serve::delegations::{from_hex, to_hex};
use crate::serve::first::MasterKeys;

/// What stands before the accounts of a bank, and so cannot be the beginning of a place below it.
const OURS: [&str; 2] = ["accounts", "bank"];

/// What decides how an account is opened. When it changes, the account is opened anew.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct AccountSettings {
    /// Where it lies, when not in the bank's own place.
    pub(crate) place: Option<String>,
    /// How to be let in there, sealed.
    pub(crate) credentials: Option<String>,
    /// The name of the master key.
    pub(crate) key_source: Option<String>,
}

impl AccountSettings {
    /// Returns what a row says; without one, the defaults.
    pub(crate) fn of(row: Option<BankAccount>) -> Self {
        row.map_or_else(Self::default, |row| Self {
            place: row.place,
            credentials: row.credentials,
            key_source: row.key_source,
        })
    }

    /// Returns whether the account lies in the bank as the bank is configured.
    pub(crate) fn is_in_bank(&self) -> bool {
        self.place.is_none() && self.credentials.is_none()
    }

    /// Returns what tells its cache from those of other places.
    pub(crate) fn cache_name(&self, bank: &str) -> String {
        match &self.place {
            None => bank.to_owned(),
            Some(place) => {
                let digest = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, place.as_bytes());
                format!("{bank}-{}", digest.simple())
            }
        }
    }
}

/// Returns the URL of a place of a bank that is configured at `bank_url`; `all` are those of all banks.
pub(crate) fn url_of(bank_url: &str, place: Option<&str>, all: &[&str]) -> Result<String> {
    let Some(place) = place else { return Ok(bank_url.to_owned()) };
    let is_whole = place.contains("://") || place.starts_with('/') || place == "memory:";
    if !is_whole {
        let place = place.trim_end_matches('/');
        let first = place.split('/').next().unwrap_or_default();
        if Key::new(place).is_err() || OURS.contains(&first) {
            bail!(
                "`{place}` cannot be a place below a bank: it is parts of A-Z a-z 0-9 - _ . between slashes, none of \
                   which begins with a dot, and the first is none of {}",
                OURS.join(", ")
            );
        }
        let (base, parameters) = match bank_url.split_once('?') {
            Some((base, parameters)) => (base, format!("?{parameters}")),
            None => (bank_url, String::new()),
        };
        return Ok(format!("{}/{place}{parameters}", base.trim_end_matches('/')));
    }
    match place.parse::<BankUrl>()? {
        BankUrl::Memory => bail!("nothing outlives the process in memory"),
        BankUrl::Directory(path) => {
            let roots = all.iter().filter_map(|url| match url.parse::<BankUrl>() {
                Ok(BankUrl::Directory(root)) => Some(root),
                _ => None,
            });
            let is_plain =
                path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
            let is_below = |root: &Path| path.starts_with(root) && path != root;
            if !is_plain || !roots.into_iter().any(|root| is_below(&root)) {
                bail!("a directory must lie below the directory of a bank of this service");
            }
        }
        #[expect(clippy::allow_attributes, reason = "the drivers that there are depend on features")]
        #[allow(unreachable_patterns)]
        _ => {}
    }
    Ok(place.to_owned())
}

/// Seals credentials by the first master key.
pub(crate) fn seal(
    keys: &MasterKeys,
    project: &ProjectId,
    bank: &str,
    credentials: &Credentials,
) -> Result<String> {
    let texts: serde_json::Map<String, serde_json::Value> =
        credentials.iter().map(|(name, text)| (name.clone(), text.expose_secret().into())).collect();
    let text = SecretString::from(serde_json::to_string(&texts).context("writing credentials down")?);
    let keys = keys.all();
    let master = keys.first().context("there is no master key")?;
    let salt = Salt::generate(&SystemEntropy).context("drawing a salt")?;
    let sealed = seal_secret(master, &purpose(project, bank), text.expose_secret().as_bytes(), salt);
    Ok(to_hex(&sealed.context("sealing credentials")?))
}

/// Opens sealed credentials by whichever master key sealed them.
pub(crate) fn open(keys: &MasterKeys, project: &ProjectId, bank: &str, sealed: &str) -> Result<Credentials> {
    let doing = || {
        format!(
            "opening the credentials of {project} in the bank `{bank}`: set them again if their key is gone"
        )
    };
    let bytes = from_hex(sealed).with_context(doing)?;
    let text = open_secret(&keys.all(), &purpose(project, bank), &bytes).with_context(doing)?;
    let texts: BTreeMap<String, String> = serde_json::from_slice(&text).with_context(doing)?;
    Ok(texts.into_iter().map(|(name, text)| (name, SecretString::from(text))).collect())
}

/// What sealed credentials are for: they open nowhere else.
fn purpose(project: &ProjectId, bank: &str) -> String {
    format!("credentials of {project} in {bank}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_below_its_bank_or_a_whole_one() {
        let all = ["/srv/bank", "s3://b/own?region=r"];
        for (bank, place, url) in [
            ("/srv/bank", None, Some("/srv/bank")),
            ("/srv/bank/", Some("tenants/a"), Some("/srv/bank/tenants/a")),
            ("s3://b/own?region=r", Some("a/"), Some("s3://b/own/a?region=r")),
            (
                "/srv/bank",
                Some("s3://theirs/x?endpoint=https://s3.example.org"),
                Some("s3://theirs/x?endpoint=https://s3.example.org"),
            ),
            ("s3://b", Some("/srv/bank/deep/er"), Some("/srv/bank/deep/er")),
            ("s3://b", Some("file:///srv/bank/x"), Some("file:///srv/bank/x")),
            ("/srv/bank", Some("../etc"), None),
            ("/srv/bank", Some("a/../b"), None),
            ("/srv/bank", Some("accounts/x"), None),
            ("/srv/bank", Some(""), None),
            ("/srv/bank", Some("/etc"), None),
            ("/srv/bank", Some("/srv/bank"), None),
            ("/srv/bank", Some("/srv/bank/../other"), None),
            ("/srv/bank", Some("/srv/bankrupt"), None),
            ("/srv/bank", Some("memory:"), None),
            ("/srv/bank", Some("ftp://x"), None),
            ("/srv/bank", Some("s3://key:secret@bucket"), None),
        ] {
            assert_eq!(url_of(bank, place, &all).ok().as_deref(), url, "{bank} {place:?}");
        }
    }
}
