//! Where links point to: the address as the client sees it.

use axum::http::{HeaderMap, HeaderName, header};

/// Scheme, host and path prefix that links begin with, such as `https://cloud.example/data-protect`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct BaseUrl(String);

impl TryFrom<String> for BaseUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let url = text.trim_end_matches('/');
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let fine = rest.is_some_and(|rest| {
            let (host, path) = rest.split_once('/').map_or((rest, ""), |(host, path)| (host, path));
            is_host(host) && is_path(path)
        });
        if fine {
            Ok(Self(url.to_owned()))
        } else {
            Err(format!(
                "`{text}` is no base URL: expected http:// or https://, a host, and a path if there is one"
            ))
        }
    }
}

impl BaseUrl {
    /// Returns the base of a request's links: the configured one, or what the request and the proxies in front of us
    /// tell. What a proxy tells is believed only in its form, since it only goes back to whom it came from.
    pub(crate) fn of(configured: Option<&Self>, headers: &HeaderMap) -> Self {
        if let Some(base) = configured {
            return base.clone();
        }
        let last = |name: &'static str| {
            let value = headers.get(HeaderName::from_static(name))?.to_str().ok()?;
            value.rsplit(',').next().map(str::trim)
        };
        let scheme =
            last("x-forwarded-proto").filter(|scheme| matches!(*scheme, "http" | "https")).unwrap_or("http");
        let host = last("x-forwarded-host").filter(|host| is_host(host));
        let own = headers.get(header::HOST).and_then(|host| host.to_str().ok()).filter(|host| is_host(host));
        let host = host.or(own).unwrap_or("localhost");
        let prefix = last("x-forwarded-prefix")
            .map(|prefix| prefix.trim_matches('/'))
            .filter(|prefix| is_path(prefix));
        match prefix {
            Some(prefix) if !prefix.is_empty() => Self(format!("{scheme}://{host}/{prefix}")),
            _ => Self(format!("{scheme}://{host}")),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_host(text: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    !text.is_empty() && text.len() <= 255 && text.bytes().all(allowed)
}

fn is_path(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'~' | b'/');
    text.len() <= 255 && text.bytes().all(allowed)
}
