//! Collections that come in pages.

use std::marker::PhantomData;

use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::catalog::ServiceType;
use crate::error::{Error, ErrorKind, Result};
use crate::service::Service;

/// A collection that comes in pages, as many as the service makes of it or the parameter `limit` asks for.
///
/// Each service names the next page in its own way: `<collection>_links` (Nova, Cinder, Neutron, Manila), `next`
/// (Glance), `links.next` (Keystone). Only the parameters of that link are used: its host is often not the one that
/// can be reached.
#[derive(Debug)]
pub struct Pages<T> {
    service: Service,
    path: String,
    query: Option<Vec<(String, String)>>,
    /// The page size that was asked for, and how many things have come, for what is paged by offset.
    limit: Option<usize>,
    seen: usize,
    collection: &'static str,
    things: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Pages<T> {
    pub(crate) fn new(
        service: Service,
        path: String,
        query: &[(&str, &str)],
        collection: &'static str,
    ) -> Self {
        let limit = query.iter().find(|(name, _)| *name == "limit").and_then(|(_, limit)| limit.parse().ok());
        let query = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { service, path, query: Some(query), limit, seen: 0, collection, things: PhantomData }
    }

    /// Returns the next page; nothing after the last.
    ///
    /// # Errors
    /// Those of the service. A page that is not a list of such things is an error, never a shorter list.
    pub async fn next(&mut self) -> Result<Option<Vec<T>>> {
        let Some(query) = self.query.take() else { return Ok(None) };
        let mut request = self.service.request(Method::GET, self.path.clone());
        for (name, value) in &query {
            request = request.query(name, value);
        }
        let mut document: Value = request.read().await?;
        let things = document.get_mut(self.collection).map(Value::take).unwrap_or_default();
        let Value::Array(things) = things else {
            return Err(self.strange(format!("the answer has no list `{}`", self.collection)));
        };
        let count = things.len();
        self.seen += count;
        let next = self.after(&document, &query, count);
        if next.as_ref() == Some(&query) {
            return Err(self.strange("the next page is this page".to_owned()));
        }
        self.query = next;
        let mut read = Vec::with_capacity(count);
        for thing in things {
            read.push(serde_json::from_value(thing).map_err(|err| {
                self.strange(format!("an entry of `{}` is not what was expected", self.collection))
                    .with_source(err)
            })?);
        }
        Ok(Some(read))
    }

    /// Returns everything that is left.
    ///
    /// # Errors
    /// Those of any page.
    pub async fn all(mut self) -> Result<Vec<T>> {
        let mut all = Vec::new();
        while let Some(page) = self.next().await? {
            all.extend(page);
        }
        Ok(all)
    }

    fn after(
        &self,
        document: &Value,
        query: &[(String, String)],
        count: usize,
    ) -> Option<Vec<(String, String)>> {
        if count == 0 {
            return None;
        }
        let links = document.get(format!("{}_links", self.collection)).and_then(Value::as_array);
        let linked = links.into_iter().flatten().find(|link| link["rel"] == "next").map(|link| &link["href"]);
        let next = linked.unwrap_or_else(|| match &document["next"] {
            Value::Null => &document["links"]["next"],
            next => next,
        });
        if let Some(next) = next.as_str() {
            return Some(parameters(next));
        }
        // Manila has collections without links, which go on behind an offset.
        if self.service.kind() == ServiceType::SharedFileSystem && self.limit == Some(count) {
            let mut query: Vec<_> = query.iter().filter(|(name, _)| name != "offset").cloned().collect();
            query.push(("offset".to_owned(), self.seen.to_string()));
            return Some(query);
        }
        None
    }

    fn strange(&self, reason: String) -> Error {
        Error::new(ErrorKind::Other, self.service.kind().name(), format!("GET {}", self.path), reason)
    }
}

/// Reads the parameters of a link, which may be a whole URL or a path.
fn parameters(link: &str) -> Vec<(String, String)> {
    let query = link.split_once('?').map_or("", |(_, query)| query);
    let Ok(url) = reqwest::Url::parse(&format!("http://localhost/?{query}")) else { return Vec::new() };
    url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_links_are_decoded() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            parameters("/v2/images?marker=a%20b&limit=2"),
            [pair("marker", "a b"), pair("limit", "2")]
        );
        assert_eq!(parameters("http://inside:8774/v2.1/servers?marker=x"), [pair("marker", "x")]);
        assert_eq!(parameters("/v2/images"), []);
    }
}
