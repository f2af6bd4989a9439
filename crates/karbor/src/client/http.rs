//! Calls to the service: one place for headers, faults and the words of errors.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::client::Connection;
use crate::client::settings::{self, Endpoint};

/// The microversion that the client speaks: everything of v1, and what came after.
const MICROVERSION: &str = "data-protect 1.2";

/// A connection to one project of one service.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    endpoint: Endpoint,
}

impl Client {
    /// Finds address and token as `settings` describes, logging in to Keystone where that is asked for.
    pub(crate) async fn connect(connection: &Connection) -> Result<Self> {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_secs(120))
            .build()
            .context("setting up the HTTP client")?;
        let endpoint = settings::find(connection, &http).await?;
        Ok(Self { http, endpoint })
    }

    /// Reads one object or collection; `path` starts with a slash and comes after the project.
    pub(crate) async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value> {
        self.call(Method::GET, path, query, None).await
    }

    /// Creates something, or asks for an action.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(Method::POST, path, &[], Some(body)).await
    }

    /// Changes something.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(Method::PUT, path, &[], Some(body)).await
    }

    /// Deletes something.
    pub(crate) async fn delete(&self, path: &str) -> Result<Value> {
        self.call(Method::DELETE, path, &[], None).await
    }

    /// Reads a collection page by page until `limit` items are there or no more come.
    pub(crate) async fn list(
        &self,
        path: &str,
        member: &str,
        query: &[(&str, String)],
        limit: Option<usize>,
    ) -> Result<Vec<Value>> {
        let mut items: Vec<Value> = Vec::new();
        loop {
            let mut query = query.to_vec();
            if let Some(limit) = limit {
                query.push(("limit", (limit - items.len()).min(1000).to_string()));
            }
            if let Some(id) = items.last().and_then(|item| item["id"].as_str()) {
                query.push(("marker", id.to_owned()));
            }
            let mut page = self.get(path, &query).await?;
            let more = page.get(format!("{member}_links")).is_some();
            let Value::Array(found) = page[member].take() else {
                bail!(
                    "the service's answer to GET {path} has no list `{member}`: is this address a Karbor service?"
                );
            };
            let empty = found.is_empty();
            items.extend(found);
            if empty || !more || limit.is_some_and(|limit| items.len() >= limit) {
                return Ok(items);
            }
        }
    }

    /// Finds the one item of a collection that a user means by an id or by a name.
    pub(crate) async fn find(&self, path: &str, member: &str, what: &str, text: &str) -> Result<Value> {
        let items = self.list(path, member, &[], None).await?;
        if let Some(item) = items.iter().find(|item| item["id"].as_str() == Some(text)) {
            return Ok(item.clone());
        }
        let named: Vec<&Value> = items.iter().filter(|item| item["name"].as_str() == Some(text)).collect();
        match named.as_slice() {
            [one] => Ok((*one).clone()),
            [] => bail!(
                "there is no {what} with the id or name `{text}`: `karbor {what} list` shows what there is"
            ),
            many => {
                let ids: Vec<&str> = many.iter().filter_map(|item| item["id"].as_str()).collect();
                bail!("{} {what}s are named `{text}`; give one of their ids: {}", many.len(), ids.join(", "))
            }
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<&Value>,
    ) -> Result<Value> {
        let url = format!("{}{path}", self.endpoint.url);
        let mut request = self
            .http
            .request(method.clone(), &url)
            .query(query)
            .header("X-Auth-Token", &self.endpoint.token)
            .header("OpenStack-API-Version", MICROVERSION);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|err| {
            let hint = if err.is_connect() {
                format!(
                    "nothing answers at {}: is the service running (`karbor serve`), and is the address right ({})?",
                    self.endpoint.url, self.endpoint.origin
                )
            } else {
                format!("{method} {url} failed")
            };
            anyhow!(err.without_url()).context(hint)
        })?;
        let status = response.status();
        let request_id = response
            .headers()
            .get("x-openstack-request-id")
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let bytes =
            response.bytes().await.with_context(|| format!("reading the answer to {method} {url}"))?;
        if status.is_success() {
            if bytes.is_empty() {
                return Ok(Value::Null);
            }
            return serde_json::from_slice(&bytes).with_context(|| {
                format!("the answer to {method} {url} is not JSON: is this a Karbor service?")
            });
        }
        Err(fault(&self.endpoint, status, &bytes, request_id.as_deref()))
    }
}

/// Turns a fault into what a person can act on.
fn fault(endpoint: &Endpoint, status: StatusCode, body: &[u8], request_id: Option<&str>) -> anyhow::Error {
    let parsed: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let message = parsed
        .as_object()
        .and_then(|object| object.values().next())
        .and_then(|fault| fault["message"].as_str())
        .map_or_else(|| format!("the service answered {status}"), str::to_owned);
    let hint = match status {
        StatusCode::UNAUTHORIZED => Some(format!(
            "the token from {} was not accepted; give another with --token or KARBOR_TOKEN",
            endpoint.origin
        )),
        StatusCode::INTERNAL_SERVER_ERROR => {
            request_id.map(|id| format!("the service's log tells more under request id {id}"))
        }
        _ => None,
    };
    match hint {
        Some(hint) => anyhow!("{message} ({})\n{hint}", status.as_u16()),
        None => anyhow!("{message} ({})", status.as_u16()),
    }
}
