//! Banks named in one line of text.
//!
//! Invariant: a URL never holds credentials, so that it can be shown, logged and stored; one that does is
//! refused without being repeated.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use crate::{Bank, Error, FileSystemBank, MemoryBank, Result};
#[cfg(feature = "s3")]
use crate::{S3Bank, S3Options};
#[cfg(feature = "swift")]
use crate::{SwiftBank, SwiftLocation, SwiftOptions};

/// Where a bank is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BankUrl {
    /// `memory:`. Nothing outlives the process.
    Memory,
    /// A path, or `file:///path`.
    Directory(PathBuf),
    /// `s3://bucket[/prefix][?endpoint=…&region=…&path-style=true|false]`.
    #[cfg(feature = "s3")]
    S3(crate::S3Location),
    /// `swift://container[/prefix][?cloud=…&region=…&container-per-account=true&consistent-listing=true]`.
    #[cfg(feature = "swift")]
    Swift(SwiftLocation),
}

/// A text that names no bank.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidUrl {
    /// Nothing was given.
    #[error("a bank needs a path or a URL")]
    Empty,
    /// What comes before `://` is not known.
    #[error("`{scheme}` is not a kind of bank: there are a plain path, file://, s3://, swift:// and memory:")]
    Scheme {
        /// What comes before `://`.
        scheme: String,
    },
    /// A `file://` URL with a host, or without an absolute path.
    #[error("a file URL has three slashes and an absolute path: file:///srv/bank")]
    File,
    /// No bucket, or one with characters that a bucket's name cannot have.
    #[error("an S3 URL needs a bucket: s3://bucket/prefix")]
    Bucket,
    /// No container, or one with characters that are not used in the names of containers.
    #[error("a Swift URL needs a container: swift://container/prefix")]
    Container,
    /// A prefix that is not a valid start of a key.
    #[error("`{prefix}` cannot be the prefix of a bank's keys")]
    Prefix {
        /// The prefix.
        prefix: String,
    },
    /// A parameter that is not known.
    #[error("`{name}` is not a parameter of an S3 URL: there are endpoint, region and path-style")]
    Parameter {
        /// Its name.
        name: String,
    },
    /// A parameter that is not known.
    #[error(
        "`{name}` is not a parameter of a Swift URL: there are cloud, region, container-per-account and consistent-listing"
    )]
    SwiftParameter {
        /// Its name.
        name: String,
    },
    /// A value that the parameter cannot have.
    #[error("the parameter `{name}` cannot have this value")]
    Value {
        /// The parameter's name.
        name: String,
    },
    /// A user or a password before the host.
    #[error("credentials do not belong into a bank's URL: they come from the environment")]
    Credentials,
}

/// What opening a bank may need besides its URL.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// How to talk to S3.
    #[cfg(feature = "s3")]
    pub s3: S3Options,
    /// How to talk to Swift.
    #[cfg(feature = "swift")]
    pub swift: SwiftOptions,
}

impl OpenOptions {
    /// Takes credentials, and what URLs leave open, from the environment; `variable` looks one up.
    #[cfg_attr(
        not(any(feature = "s3", feature = "swift")),
        expect(unused_variables, reason = "no other bank needs any")
    )]
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        Self {
            #[cfg(feature = "s3")]
            s3: S3Options::from_environment(&variable),
            #[cfg(feature = "swift")]
            swift: SwiftOptions::from_environment(&variable),
        }
    }
}

/// Opens a bank that exists. What is returned is the bare driver: wrap it in [`crate::wrap::Retrying`].
///
/// # Errors
/// When there is no bank in the directory, or the settings are not complete. Whether a bucket can be reached
/// shows with the first call, which is best [`crate::attach`].
pub async fn open_url(url: &BankUrl, options: &OpenOptions) -> Result<Arc<dyn Bank>> {
    open(url, options, FileSystemBank::open).await
}

/// Opens a bank, and makes the directory one if it is none, or the container. Buckets are not created.
///
/// # Errors
/// As [`open_url`], or when the directory or the container cannot be created.
pub async fn create_url(url: &BankUrl, options: &OpenOptions) -> Result<Arc<dyn Bank>> {
    #[cfg(feature = "swift")]
    if let BankUrl::Swift(location) = url {
        let bank = SwiftBank::open(location.clone(), &options.swift)?;
        bank.create().await?;
        return Ok(Arc::new(bank));
    }
    open(url, options, FileSystemBank::create).await
}

#[cfg_attr(
    not(any(feature = "s3", feature = "swift")),
    expect(unused_variables, reason = "no other bank needs any")
)]
async fn open(
    url: &BankUrl,
    options: &OpenOptions,
    open_directory: impl FnOnce(PathBuf) -> Result<FileSystemBank> + Send + 'static,
) -> Result<Arc<dyn Bank>> {
    match url {
        BankUrl::Memory => Ok(Arc::new(MemoryBank::new())),
        BankUrl::Directory(path) => {
            let owned = path.clone();
            match tokio::task::spawn_blocking(move || open_directory(owned)).await {
                Ok(bank) => Ok(Arc::new(bank?)),
                Err(error) => Err(Error::new(crate::ErrorKind::Unavailable, "open", path.to_string_lossy())
                    .with_source(error)),
            }
        }
        #[cfg(feature = "s3")]
        BankUrl::S3(location) => Ok(Arc::new(S3Bank::open(location.clone(), &options.s3)?)),
        #[cfg(feature = "swift")]
        BankUrl::Swift(location) => Ok(Arc::new(SwiftBank::open(location.clone(), &options.swift)?)),
    }
}

impl FromStr for BankUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        match text.split_once("://") {
            _ if text.is_empty() => Err(InvalidUrl::Empty),
            _ if text == "memory:" => Ok(Self::Memory),
            None => Ok(Self::Directory(text.into())),
            Some(("file", path)) if path.starts_with('/') => {
                Ok(Self::Directory(decoded(path).ok_or(InvalidUrl::File)?.into()))
            }
            Some(("file", _)) => Err(InvalidUrl::File),
            #[cfg(feature = "s3")]
            Some(("s3", rest)) => parse_s3(rest).map(Self::S3),
            #[cfg(feature = "swift")]
            Some(("swift", rest)) => parse_swift(rest).map(Self::Swift),
            Some((scheme, _)) => Err(InvalidUrl::Scheme { scheme: scheme.to_owned() }),
        }
    }
}

impl fmt::Display for BankUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory:"),
            Self::Directory(path) => path.display().fmt(f),
            #[cfg(feature = "s3")]
            Self::S3(location) => location.fmt(f),
            #[cfg(feature = "swift")]
            Self::Swift(location) => location.fmt(f),
        }
    }
}

#[cfg(feature = "s3")]
fn parse_s3(rest: &str) -> Result<crate::S3Location, InvalidUrl> {
    let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    if bucket.contains('@') {
        return Err(InvalidUrl::Credentials);
    }
    let is_bucket = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if bucket.is_empty() || !bucket.bytes().all(is_bucket) {
        return Err(InvalidUrl::Bucket);
    }
    let prefix = prefix.trim_end_matches('/');
    if !prefix.is_empty() && crate::Key::new(prefix).is_err() {
        return Err(InvalidUrl::Prefix { prefix: prefix.to_owned() });
    }
    let mut location =
        crate::S3Location { bucket: bucket.to_owned(), prefix: prefix.to_owned(), ..Default::default() };
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let invalid = || InvalidUrl::Value { name: name.to_owned() };
        let value = decoded(value).filter(|value| !value.is_empty()).ok_or_else(invalid)?;
        match name {
            "endpoint" => {
                let host = value.strip_prefix("https://").or_else(|| value.strip_prefix("http://"));
                let host = host.filter(|host| !host.trim_end_matches('/').is_empty()).ok_or_else(invalid)?;
                if host.contains('@') {
                    return Err(InvalidUrl::Credentials);
                }
                location.endpoint = Some(value.trim_end_matches('/').to_owned());
            }
            "region" => location.region = Some(value),
            "path-style" => location.path_style = Some(value.parse().map_err(|_| invalid())?),
            _ => return Err(InvalidUrl::Parameter { name: name.to_owned() }),
        }
    }
    Ok(location)
}

#[cfg(feature = "swift")]
fn parse_swift(rest: &str) -> Result<SwiftLocation, InvalidUrl> {
    let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let (container, prefix) = place.split_once('/').unwrap_or((place, ""));
    if container.contains('@') {
        return Err(InvalidUrl::Credentials);
    }
    let is_container = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if container.is_empty() || container.len() > 128 || !container.bytes().all(is_container) {
        return Err(InvalidUrl::Container);
    }
    let prefix = prefix.trim_end_matches('/');
    if !prefix.is_empty() && crate::Key::new(prefix).is_err() {
        return Err(InvalidUrl::Prefix { prefix: prefix.to_owned() });
    }
    let mut location = SwiftLocation {
        container: container.to_owned(),
        prefix: prefix.to_owned(),
        ..SwiftLocation::default()
    };
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let invalid = || InvalidUrl::Value { name: name.to_owned() };
        let value = decoded(value).filter(|value| !value.is_empty()).ok_or_else(invalid)?;
        match name {
            "cloud" => location.cloud = Some(value),
            "region" => location.region = Some(value),
            "container-per-account" => location.per_account = value.parse().map_err(|_| invalid())?,
            "consistent-listing" => location.consistent_listing = value.parse().map_err(|_| invalid())?,
            _ => return Err(InvalidUrl::SwiftParameter { name: name.to_owned() }),
        }
    }
    Ok(location)
}

/// Decodes `%` and two digits; nothing if that gives no text.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first != b'%' {
            bytes.push(*first);
            rest = tail;
            continue;
        }
        let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, InvalidUrl>) {
        let parsed: Result<BankUrl, _> = text.parse();
        match (&parsed, expected) {
            (Ok(url), Ok(shown)) => {
                assert_eq!(url.to_string(), shown, "{text}");
                assert_eq!(url.to_string().parse(), parsed, "{text} is read back as it is shown");
            }
            (_, expected) => {
                assert_eq!(parsed.map(|url| url.to_string()), expected.map(str::to_owned), "{text}");
            }
        }
    }

    #[test]
    fn paths_and_memory_are_banks() {
        check("", Err(InvalidUrl::Empty));
        check("memory:", Ok("memory:"));
        check("/srv/bank", Ok("/srv/bank"));
        check("relative/bank", Ok("relative/bank"));
        check("file:///srv/a%20bank", Ok("/srv/a bank"));
        check("file://srv/bank", Err(InvalidUrl::File));
        check("file:///srv/%zz", Err(InvalidUrl::File));
        check("ftp://host/x", Err(InvalidUrl::Scheme { scheme: "ftp".to_owned() }));
    }

    #[cfg(feature = "swift")]
    #[test]
    fn containers_are_banks() {
        check("swift://karbor", Ok("swift://karbor"));
        let full = "swift://c/a/b?cloud=x&region=r&container-per-account=true&consistent-listing=true";
        check(full, Ok(full));
        check("swift://c/?container-per-account=false", Ok("swift://c"));
        check("swift://", Err(InvalidUrl::Container));
        check("swift://a%2Fb", Err(InvalidUrl::Container));
        check("swift://user:secret@c", Err(InvalidUrl::Credentials));
        check("swift://c/../x", Err(InvalidUrl::Prefix { prefix: "../x".to_owned() }));
        check("swift://c?cloud", Err(InvalidUrl::Value { name: "cloud".to_owned() }));
        check(
            "swift://c?consistent-listing=y",
            Err(InvalidUrl::Value { name: "consistent-listing".to_owned() }),
        );
        check("swift://c?password=x", Err(InvalidUrl::SwiftParameter { name: "password".to_owned() }));
    }

    #[cfg(feature = "s3")]
    #[test]
    fn buckets_are_banks() {
        let value = |name: &str| Err(InvalidUrl::Value { name: name.to_owned() });
        check("s3://bucket", Ok("s3://bucket"));
        check("s3://bucket/", Ok("s3://bucket"));
        check("s3://bucket/a/b/?region=eu-1", Ok("s3://bucket/a/b?region=eu-1"));
        let full = "s3://b/p?endpoint=https://store.example:8443&region=r&path-style=false";
        check(full, Ok(full));
        check("s3://b?endpoint=http%3A%2F%2Flocalhost%3A9000/", Ok("s3://b?endpoint=http://localhost:9000"));
        check("s3://b?region=a%26b%25", Ok("s3://b?region=a%26b%25"));
        check("s3://", Err(InvalidUrl::Bucket));
        check("s3:///prefix", Err(InvalidUrl::Bucket));
        check("s3://key:secret@bucket/p", Err(InvalidUrl::Credentials));
        check("s3://b?endpoint=https://key:secret@host", Err(InvalidUrl::Credentials));
        check("s3://b/../x", Err(InvalidUrl::Prefix { prefix: "../x".to_owned() }));
        check("s3://b?endpoint=host", value("endpoint"));
        check("s3://b?endpoint=https://", value("endpoint"));
        check("s3://b?path-style=maybe", value("path-style"));
        check("s3://b?region", value("region"));
        check("s3://b?secret=x", Err(InvalidUrl::Parameter { name: "secret".to_owned() }));
    }
}
