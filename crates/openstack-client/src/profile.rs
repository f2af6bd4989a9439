//! A cloud and a login as people keep them: `clouds.yaml`, and the variables `OS_*`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::Deserialize;

use crate::cloud::CloudSettings;
use crate::error::{Error, ErrorKind, Result};
use crate::login::{Domain, Login, Project, User};

/// A cloud, and how to log in there.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Where it is.
    pub cloud: CloudSettings,
    /// Who logs in.
    pub login: Login,
}

#[derive(Deserialize)]
struct File {
    clouds: BTreeMap<String, Entry>,
}

/// What a `clouds.yaml` and the environment say, under the names of the former.
#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: Auth,
    #[serde(default)]
    auth_type: Option<String>,
    #[serde(default)]
    region_name: Option<String>,
    #[serde(default)]
    interface: Option<String>,
    #[serde(default)]
    cacert: Option<PathBuf>,
    #[serde(default)]
    verify: Option<bool>,
}

#[derive(Default, Deserialize)]
struct Auth {
    auth_url: Option<String>,
    username: Option<String>,
    user_id: Option<String>,
    password: Option<SecretString>,
    token: Option<SecretString>,
    trust_id: Option<String>,
    project_name: Option<String>,
    project_id: Option<String>,
    user_domain_name: Option<String>,
    user_domain_id: Option<String>,
    project_domain_name: Option<String>,
    project_domain_id: Option<String>,
    application_credential_id: Option<String>,
    application_credential_name: Option<String>,
    application_credential_secret: Option<SecretString>,
}

impl Profile {
    /// Takes what the `OS_*` variables say; `variable` looks one up.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if something is missing; the reason says what.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        let secret = |name: &str| get(name).map(SecretString::from);
        let auth = Auth {
            auth_url: get("OS_AUTH_URL"),
            username: get("OS_USERNAME"),
            user_id: get("OS_USER_ID"),
            password: secret("OS_PASSWORD"),
            token: secret("OS_TOKEN"),
            trust_id: get("OS_TRUST_ID"),
            project_name: get("OS_PROJECT_NAME").or_else(|| get("OS_TENANT_NAME")),
            project_id: get("OS_PROJECT_ID").or_else(|| get("OS_TENANT_ID")),
            user_domain_name: get("OS_USER_DOMAIN_NAME"),
            user_domain_id: get("OS_USER_DOMAIN_ID"),
            project_domain_name: get("OS_PROJECT_DOMAIN_NAME"),
            project_domain_id: get("OS_PROJECT_DOMAIN_ID"),
            application_credential_id: get("OS_APPLICATION_CREDENTIAL_ID"),
            application_credential_name: get("OS_APPLICATION_CREDENTIAL_NAME"),
            application_credential_secret: secret("OS_APPLICATION_CREDENTIAL_SECRET"),
        };
        let entry = Entry {
            auth,
            auth_type: get("OS_AUTH_TYPE"),
            region_name: get("OS_REGION_NAME"),
            interface: get("OS_INTERFACE"),
            cacert: get("OS_CACERT").map(PathBuf::from),
            verify: None,
        };
        entry.profile("the OS_* variables")
    }

    /// Takes an entry of a `clouds.yaml`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if there is no such entry, or something is missing in it.
    pub fn from_clouds_yaml(text: &str, name: &str) -> Result<Self> {
        // Not the parser's own words: they could show a line with a password.
        let mut file: File =
            serde_saphyr::from_str(text).map_err(|_| invalid("clouds.yaml", "this is not a clouds.yaml"))?;
        let names = file.clouds.keys().cloned().collect::<Vec<_>>().join(", ");
        match file.clouds.remove(name) {
            Some(entry) => entry.profile(&format!("cloud `{name}` of clouds.yaml")),
            None => Err(invalid("clouds.yaml", format!("it has no cloud `{name}`; it has: {names}"))),
        }
    }

    /// Reads an entry of a file.
    ///
    /// # Errors
    /// As [`Profile::from_clouds_yaml`], or when the file cannot be read.
    pub fn from_clouds_file(path: &Path, name: &str) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|err| invalid(&path.display().to_string(), "it cannot be read").with_source(err))?;
        Self::from_clouds_yaml(&text, name)
    }

    /// Returns where a `clouds.yaml` is looked for, in this order; `variable` looks up one of the environment.
    pub fn places(variable: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
        let named = variable("OS_CLIENT_CONFIG_FILE").map(PathBuf::from);
        let home = variable("HOME").map(|home| PathBuf::from(home).join(".config/openstack/clouds.yaml"));
        let here = Some(PathBuf::from("clouds.yaml"));
        let machine = Some(PathBuf::from("/etc/openstack/clouds.yaml"));
        [named, here, home, machine].into_iter().flatten().collect()
    }
}

impl Entry {
    fn profile(self, origin: &str) -> Result<Profile> {
        let auth_url = self.auth.auth_url.clone();
        let mut cloud = CloudSettings::new(auth_url.ok_or_else(|| invalid(origin, "auth_url is missing"))?);
        if self.verify == Some(false) {
            return Err(invalid(origin, "certificates are always verified: name their authority as cacert"));
        }
        if let Some(interface) = &self.interface {
            cloud.interface = interface.parse().map_err(|reason: String| invalid(origin, reason))?;
        }
        cloud.region = self.region_name;
        cloud.ca_file = self.cacert;
        let login = self.auth.login(self.auth_type.as_deref(), origin)?;
        Ok(Profile { cloud, login })
    }
}

impl Auth {
    fn login(self, kind: Option<&str>, origin: &str) -> Result<Login> {
        let kind = match kind {
            Some(kind) => kind.strip_prefix("v3").unwrap_or(kind),
            None if self.application_credential_secret.is_some() => "applicationcredential",
            None if self.token.is_some() && self.password.is_none() => "token",
            None => "password",
        };
        let missing = |what: &str| invalid(origin, format!("{what} is missing"));
        let user_domain = domain(self.user_domain_id, self.user_domain_name);
        let user = match (self.user_id, self.username) {
            (Some(id), _) => Some(User::Id(id)),
            (None, Some(name)) => Some(User::Name(name, user_domain)),
            (None, None) => None,
        };
        let project_domain = domain(self.project_domain_id, self.project_domain_name);
        let project = match (self.project_id, self.project_name) {
            (Some(id), _) => Some(Project::Id(id)),
            (None, Some(name)) => Some(Project::Name(name, project_domain)),
            (None, None) => None,
        };
        match kind {
            "password" => {
                let user = user.ok_or_else(|| missing("username"))?;
                let password = self.password.ok_or_else(|| missing("password"))?;
                Ok(match self.trust_id {
                    Some(trust_id) => Login::Trust { user, password, trust_id },
                    None => Login::Password { user, password, project },
                })
            }
            "token" => Ok(Login::Token(self.token.ok_or_else(|| missing("token"))?)),
            "applicationcredential" => {
                let secret = self
                    .application_credential_secret
                    .ok_or_else(|| missing("application_credential_secret"))?;
                match (self.application_credential_id, self.application_credential_name) {
                    (Some(id), _) => Ok(Login::ApplicationCredential { id, secret }),
                    (None, Some(name)) => {
                        let user = user.ok_or_else(|| missing("username beside the credential's name"))?;
                        Ok(Login::NamedApplicationCredential { user, name, secret })
                    }
                    (None, None) => Err(missing("application_credential_id")),
                }
            }
            other => Err(invalid(
                origin,
                format!(
                    "auth_type `{other}` is not known: there are password, token and v3applicationcredential"
                ),
            )),
        }
    }
}

fn domain(id: Option<String>, name: Option<String>) -> Domain {
    match (id, name) {
        (Some(id), _) => Domain::Id(id),
        (None, Some(name)) => Domain::Name(name),
        (None, None) => Domain::default(),
    }
}

fn invalid(origin: &str, reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, "identity", format!("reading {origin}"), reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Interface;

    const CLOUDS: &str = "
clouds:
  byname:
    region_name: RegionOne
    identity_api_version: 3
    interface: internal
    auth:
      auth_url: https://keystone:5000/v3
      username: ann
      password: open sesame
      project_name: p
      user_domain_name: Default
  credential:
    auth_type: v3applicationcredential
    auth: {auth_url: 'http://k/', application_credential_id: i, application_credential_secret: open sesame}
  nobody:
    auth: {auth_url: 'http://k/', password: open sesame}
  careless:
    verify: false
    auth: {auth_url: 'http://k/', username: a, password: open sesame}
";

    #[test]
    fn entries_of_a_file_become_logins() {
        for (name, expected) in [
            (
                "byname",
                r#"Password { user: Name("ann", Name("Default")), project: Some(Name("p", Id("default"))), .. }"#,
            ),
            ("credential", r#"ApplicationCredential { id: "i", .. }"#),
            ("nobody", "identity: reading cloud `nobody` of clouds.yaml: username is missing"),
            (
                "careless",
                "identity: reading cloud `careless` of clouds.yaml: certificates are always verified: name their authority as cacert",
            ),
            (
                "other",
                "identity: reading clouds.yaml: it has no cloud `other`; it has: byname, careless, credential, nobody",
            ),
        ] {
            let shown = match Profile::from_clouds_yaml(CLOUDS, name) {
                Ok(profile) => format!("{:?}", profile.login),
                Err(error) => error.to_string(),
            };
            assert_eq!(shown, expected);
        }
        let profile = Profile::from_clouds_yaml(CLOUDS, "byname").expect("a profile");
        assert_eq!(profile.cloud.interface, Interface::Internal);
        assert_eq!(profile.cloud.region.as_deref(), Some("RegionOne"));
        assert!(!format!("{profile:?}").contains("sesame"));
    }

    #[test]
    fn variables_become_logins() {
        let check = |pairs: &[(&str, &str)], expected: &str| {
            let get =
                |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            let shown = match Profile::from_environment(get) {
                Ok(profile) => format!("{:?}", profile.login),
                Err(error) => error.to_string(),
            };
            assert_eq!(shown, expected);
        };
        check(&[], "identity: reading the OS_* variables: auth_url is missing");
        let at = ("OS_AUTH_URL", "http://k");
        check(&[at, ("OS_TOKEN", "t")], "Token([REDACTED])");
        check(
            &[at, ("OS_USER_ID", "u"), ("OS_PASSWORD", "p"), ("OS_TRUST_ID", "t")],
            r#"Trust { user: Id("u"), trust_id: "t", .. }"#,
        );
        check(
            &[at, ("OS_AUTH_TYPE", "v3kerberos")],
            "identity: reading the OS_* variables: auth_type `kerberos` is not known: there are password, token and v3applicationcredential",
        );
    }
}
