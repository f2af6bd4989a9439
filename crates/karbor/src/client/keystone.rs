//! Logging in to Keystone v3 as a client does: password, token or application credential.

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::settings::Endpoint;

/// The type under which Karbor stands in the catalog.
const SERVICE_TYPE: &str = "data-protect";

/// One entry of `clouds.yaml`, as far as it matters here.
#[derive(Deserialize)]
pub(crate) struct Cloud {
    auth: CloudAuth,
    region_name: Option<String>,
    interface: Option<String>,
    auth_type: Option<String>,
}

/// What is needed to get a token, under the names of `clouds.yaml`.
#[derive(Default, Deserialize)]
pub(crate) struct CloudAuth {
    auth_url: Option<String>,
    username: Option<String>,
    user_id: Option<String>,
    password: Option<String>,
    token: Option<String>,
    project_name: Option<String>,
    project_id: Option<String>,
    user_domain_name: Option<String>,
    user_domain_id: Option<String>,
    project_domain_name: Option<String>,
    project_domain_id: Option<String>,
    application_credential_id: Option<String>,
    application_credential_name: Option<String>,
    application_credential_secret: Option<String>,
}

/// How to log in, and which endpoint to choose.
pub(crate) struct Auth {
    auth: CloudAuth,
    region: Option<String>,
    interface: String,
}

impl Auth {
    /// Takes an entry of `clouds.yaml`.
    pub(crate) fn from_cloud(cloud: Cloud) -> Result<Self> {
        if let Some(kind) = &cloud.auth_type {
            let known = ["password", "v3password", "token", "v3token", "v3applicationcredential"];
            if !known.contains(&kind.as_str()) {
                bail!("auth_type `{kind}` is not supported; use one of {}", known.join(", "));
            }
        }
        let interface = cloud.interface.unwrap_or_else(|| "public".to_owned());
        Ok(Self { auth: cloud.auth, region: cloud.region_name, interface })
    }

    /// Takes the `OS_*` variables.
    pub(crate) fn from_environment() -> Result<Self> {
        let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let auth = CloudAuth {
            auth_url: get("OS_AUTH_URL"),
            username: get("OS_USERNAME"),
            user_id: get("OS_USER_ID"),
            password: get("OS_PASSWORD"),
            token: get("OS_TOKEN"),
            project_name: get("OS_PROJECT_NAME").or_else(|| get("OS_TENANT_NAME")),
            project_id: get("OS_PROJECT_ID").or_else(|| get("OS_TENANT_ID")),
            user_domain_name: get("OS_USER_DOMAIN_NAME"),
            user_domain_id: get("OS_USER_DOMAIN_ID"),
            project_domain_name: get("OS_PROJECT_DOMAIN_NAME"),
            project_domain_id: get("OS_PROJECT_DOMAIN_ID"),
            application_credential_id: get("OS_APPLICATION_CREDENTIAL_ID"),
            application_credential_name: get("OS_APPLICATION_CREDENTIAL_NAME"),
            application_credential_secret: get("OS_APPLICATION_CREDENTIAL_SECRET"),
        };
        let interface = get("OS_INTERFACE").unwrap_or_else(|| "public".to_owned());
        Ok(Self { auth, region: get("OS_REGION_NAME"), interface })
    }

    fn request(&self) -> Result<Value> {
        let auth = &self.auth;
        let user_domain = domain(auth.user_domain_id.as_deref(), auth.user_domain_name.as_deref());
        let user = |password: &str| match (&auth.user_id, &auth.username) {
            (Some(id), _) => Ok(json!({"id": id, "password": password})),
            (None, Some(name)) => Ok(json!({"name": name, "domain": user_domain, "password": password})),
            (None, None) => Err(anyhow!("a user is missing: set OS_USERNAME (or username in clouds.yaml)")),
        };
        let identity = if let Some(secret) = &auth.application_credential_secret {
            let mut credential = json!({"secret": secret});
            match (&auth.application_credential_id, &auth.application_credential_name) {
                (Some(id), _) => credential["id"] = json!(id),
                (None, Some(name)) => {
                    credential["name"] = json!(name);
                    let mut user = user("")?;
                    user.as_object_mut().and_then(|user| user.remove("password"));
                    credential["user"] = user;
                }
                (None, None) => bail!("OS_APPLICATION_CREDENTIAL_ID is missing beside its secret"),
            }
            // An application credential brings its own scope.
            return Ok(json!({"auth": {"identity": {
                "methods": ["application_credential"], "application_credential": credential}}}));
        } else if let Some(password) = &auth.password {
            json!({"methods": ["password"], "password": {"user": user(password)?}})
        } else if let Some(token) = &auth.token {
            json!({"methods": ["token"], "token": {"id": token}})
        } else {
            bail!(
                "no password, token or application credential is given: set OS_PASSWORD or one of its fellows"
            );
        };
        let project = match (&auth.project_id, &auth.project_name) {
            (Some(id), _) => json!({"id": id}),
            (None, Some(name)) => {
                json!({"name": name, "domain": domain(auth.project_domain_id.as_deref(), auth.project_domain_name.as_deref())})
            }
            (None, None) => {
                bail!("a project is missing: set OS_PROJECT_NAME (or project_name in clouds.yaml)")
            }
        };
        Ok(json!({"auth": {"identity": identity, "scope": {"project": project}}}))
    }
}

fn domain(id: Option<&str>, name: Option<&str>) -> Value {
    match (id, name) {
        (Some(id), _) => json!({"id": id}),
        (None, Some(name)) => json!({"name": name}),
        (None, None) => json!({"id": "default"}),
    }
}

/// Gets a token and looks Karbor's endpoint up in the catalog.
pub(crate) async fn login(http: &reqwest::Client, auth: &Auth, origin: &str) -> Result<Endpoint> {
    let base =
        auth.auth.auth_url.as_deref().context("the address of Keystone is missing: set OS_AUTH_URL")?;
    let base = base.trim_end_matches('/');
    let base = if base.ends_with("/v3") { base.to_owned() } else { format!("{base}/v3") };
    let url = format!("{base}/auth/tokens");
    let response = http
        .post(&url)
        .json(&auth.request()?)
        .send()
        .await
        .map_err(reqwest::Error::without_url)
        .with_context(|| format!("Keystone at {base} does not answer"))?;
    let status = response.status();
    let token =
        response.headers().get("X-Subject-Token").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body: Value = response.json().await.unwrap_or(Value::Null);
    let (true, Some(token)) = (status.is_success(), token) else {
        let why = body["error"]["message"].as_str().unwrap_or("no reason given");
        bail!("Keystone at {base} refused the login from {origin}: {why} ({})", status.as_u16());
    };
    let catalog = body["token"]["catalog"].as_array().map_or(&[][..], Vec::as_slice);
    let endpoints = catalog
        .iter()
        .filter(|service| service["type"] == SERVICE_TYPE)
        .filter_map(|service| service["endpoints"].as_array())
        .flatten();
    let wanted = |endpoint: &&Value| {
        let region = auth.region.as_deref();
        endpoint["interface"] == auth.interface.as_str()
            && region.is_none_or(|region| endpoint["region"] == region || endpoint["region_id"] == region)
    };
    let endpoint = endpoints.into_iter().find(wanted).and_then(|endpoint| endpoint["url"].as_str());
    let Some(url) = endpoint else {
        bail!(
            "the catalog has no `{SERVICE_TYPE}` endpoint for interface {} and region {}: is Karbor registered in this cloud?",
            auth.interface,
            auth.region.as_deref().unwrap_or("any")
        );
    };
    Ok(Endpoint { url: url.trim_end_matches('/').to_owned(), token, origin: origin.to_owned() })
}
