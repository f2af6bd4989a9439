//! Where a bucket is and how to be let in.

use std::fmt;
use std::num::NonZeroU64;

use secrecy::SecretString;

/// Where the objects are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct S3Location {
    /// The bucket.
    pub bucket: String,
    /// What all keys start with in the bucket, without a slash at either end; empty for all of the bucket.
    pub prefix: String,
    /// The address of the service, `https://host[:port]`; nothing means Amazon's.
    pub endpoint: Option<String>,
    /// The region; nothing means `us-east-1`.
    pub region: Option<String>,
    /// Whether the bucket is named in the path rather than in the host. Nothing means that it is wherever
    /// there is an endpoint.
    pub path_style: Option<bool>,
}

/// How to talk to the service.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// How to be let in.
    pub credentials: S3Credentials,
    /// The address of the service for locations that name none.
    pub default_endpoint: Option<String>,
    /// The region for locations that name none.
    pub default_region: Option<String>,
    /// After how many seconds a request counts as failed, with all its bytes.
    pub request_timeout_seconds: NonZeroU64,
}

impl S3Options {
    /// Takes what it can from the variables that Amazon's tools use; `variable` looks one up.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: [&str; 2]| names.into_iter().find_map(&variable).filter(|text| !text.is_empty());
        Self {
            default_endpoint: first(["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]),
            default_region: first(["AWS_REGION", "AWS_DEFAULT_REGION"]),
            credentials: S3Credentials::from_environment(variable),
            ..Self::default()
        }
    }
}

impl Default for S3Options {
    fn default() -> Self {
        Self {
            credentials: S3Credentials::default(),
            default_endpoint: None,
            default_region: None,
            request_timeout_seconds: NonZeroU64::new(300).expect("it is not zero"),
        }
    }
}

/// How to be let in. Credentials never come from a URL.
#[derive(Debug, Clone)]
pub enum S3Credentials {
    /// A key pair, with a token if it is a temporary one.
    Static {
        /// The name of the key.
        access_key_id: String,
        /// The key.
        secret_access_key: SecretString,
        /// The token of a temporary key.
        session_token: Option<SecretString>,
    },
    /// What the machine or the container is given: a web identity, a container's or an instance's role.
    Ambient {
        /// The environment's variables that say which.
        settings: Vec<(String, String)>,
    },
    /// Requests are not signed.
    Anonymous,
}

impl Default for S3Credentials {
    fn default() -> Self {
        Self::Ambient { settings: Vec::new() }
    }
}

/// The environment's variables that lead to a role.
const AMBIENT: [&str; 7] = [
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_ENDPOINT_URL_STS",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
];

impl S3Credentials {
    /// Takes the credentials from the variables that Amazon's tools use; `variable` looks one up.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let secret = |name| variable(name).filter(|text| !text.is_empty()).map(SecretString::from);
        let pair = (variable("AWS_ACCESS_KEY_ID"), secret("AWS_SECRET_ACCESS_KEY"));
        if let (Some(access_key_id), Some(secret_access_key)) = pair {
            let session_token = secret("AWS_SESSION_TOKEN");
            return Self::Static { access_key_id, secret_access_key, session_token };
        }
        let setting = |name: &&str| Some(((*name).to_owned(), variable(name)?));
        Self::Ambient { settings: AMBIENT.iter().filter_map(setting).collect() }
    }
}

impl S3Location {
    /// Fills in what the location leaves open.
    pub(super) fn or_defaults(mut self, options: &S3Options) -> Self {
        self.region = self.region.or_else(|| options.default_region.clone());
        self.endpoint = self.endpoint.or_else(|| options.default_endpoint.clone());
        self
    }

    pub(super) fn is_path_style(&self) -> bool {
        self.path_style.unwrap_or(self.endpoint.is_some())
    }

    pub(super) fn is_plain_http(&self) -> bool {
        self.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"))
    }

    /// Returns the address that requests go to: with the bucket before the host unless it is in the path.
    pub(super) fn request_endpoint(&self) -> Option<String> {
        let endpoint = self.endpoint.as_ref()?.trim_end_matches('/');
        match endpoint.split_once("://") {
            Some((scheme, host)) if !self.is_path_style() => {
                Some(format!("{scheme}://{}.{host}", self.bucket))
            }
            _ => Some(endpoint.to_owned()),
        }
    }
}

impl fmt::Display for S3Location {
    /// Writes the URL form, which [`crate::BankUrl`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        let path_style = self.path_style.map(|path_style| path_style.to_string());
        let settings = [("endpoint", &self.endpoint), ("region", &self.region), ("path-style", &path_style)];
        let mut separator = '?';
        for (name, value) in settings {
            if let Some(value) = value {
                let value =
                    value.replace('%', "%25").replace('&', "%26").replace('#', "%23").replace('+', "%2B");
                write!(f, "{separator}{name}={value}")?;
                separator = '&';
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_key_pair_comes_before_a_role_and_is_not_shown() {
        let variable = |name: &str| match name {
            "AWS_ACCESS_KEY_ID" => Some("id".to_owned()),
            "AWS_SECRET_ACCESS_KEY" => Some("hush".to_owned()),
            "AWS_ROLE_ARN" => Some("arn".to_owned()),
            _ => None,
        };
        let credentials = S3Credentials::from_environment(variable);
        let S3Credentials::Static { secret_access_key, session_token: None, .. } = &credentials else {
            panic!("{credentials:?}");
        };
        assert_eq!(secret_access_key.expose_secret(), "hush");
        assert!(!format!("{credentials:?}").contains("hush"));

        let role = |name: &str| (name == "AWS_ROLE_ARN").then(|| "arn".to_owned());
        let S3Credentials::Ambient { settings } = S3Credentials::from_environment(role) else {
            panic!("no key pair was there");
        };
        assert_eq!(settings, [("AWS_ROLE_ARN".to_owned(), "arn".to_owned())]);
    }

    #[test]
    fn a_location_comes_before_the_environment() {
        let variable = |name: &str| match name {
            "AWS_ENDPOINT_URL" => Some("https://general".to_owned()),
            "AWS_ENDPOINT_URL_S3" => Some("https://store".to_owned()),
            "AWS_DEFAULT_REGION" => Some("somewhere".to_owned()),
            _ => None,
        };
        let options = S3Options::from_environment(variable);
        let open = S3Location { bucket: "b".to_owned(), ..S3Location::default() };
        assert_eq!(open.or_defaults(&options).to_string(), "s3://b?endpoint=https://store&region=somewhere");
        let told = S3Location { region: Some("here".to_owned()), ..S3Location::default() };
        assert_eq!(told.or_defaults(&options).region.as_deref(), Some("here"));
    }

    #[test]
    fn the_bucket_is_in_the_path_of_an_endpoint_unless_told_otherwise() {
        let endpoint = Some("https://store.example:8443/".to_owned());
        let location = S3Location { bucket: "b".to_owned(), endpoint, ..S3Location::default() };
        assert_eq!(location.request_endpoint().as_deref(), Some("https://store.example:8443"));
        let hosted = S3Location { path_style: Some(false), ..location };
        assert_eq!(hosted.request_endpoint().as_deref(), Some("https://b.store.example:8443"));
        assert_eq!(S3Location::default().request_endpoint(), None);
    }
}
