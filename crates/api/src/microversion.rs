//! Microversions: what goes beyond version 1 is asked for by a header.

use std::fmt;

use axum::http::{HeaderMap, HeaderName};

use crate::fault::Fault;

/// The header, in requests and answers.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("openstack-api-version");

/// The name of the service in the header.
const SERVICE: &str = "data-protect";

/// A microversion of version 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Microversion(u32);

impl Microversion {
    /// Version 1 as it always was.
    pub const V1_0: Self = Self(0);
    /// More members, operations, dry runs.
    pub const V1_1: Self = Self(1);
    /// Schedules, bank accounts, and whatever else came after.
    pub const V1_2: Self = Self(2);
    /// The newest.
    pub const NEWEST: Self = Self::V1_2;

    /// Reads the header: `data-protect 1.N`, or `data-protect latest`; other services may stand beside it.
    ///
    /// Returns whether there was one, too: only then the answer names the version.
    pub(crate) fn negotiate(headers: &HeaderMap) -> Result<(Self, bool), Fault> {
        for value in headers.get_all(&HEADER) {
            let text = value.to_str().map_err(|_| Fault::not_acceptable("the version header is not text"))?;
            for part in text.split(',') {
                let mut words = part.split_whitespace();
                let (Some(service), Some(version)) = (words.next(), words.next()) else { continue };
                if service.eq_ignore_ascii_case(SERVICE) {
                    return Ok((Self::parse(version)?, true));
                }
            }
        }
        Ok((Self::V1_0, false))
    }

    fn parse(text: &str) -> Result<Self, Fault> {
        if text.eq_ignore_ascii_case("latest") {
            return Ok(Self::NEWEST);
        }
        let minor = text.strip_prefix("1.").filter(|minor| minor.bytes().all(|byte| byte.is_ascii_digit()));
        let minor = minor.and_then(|minor| minor.parse().ok()).map(Self);
        minor.filter(|version| *version <= Self::NEWEST).ok_or_else(|| {
            let (oldest, newest) = (Self::V1_0, Self::NEWEST);
            Fault::not_acceptable(format!("version {text} is not spoken here; {oldest} to {newest} are"))
        })
    }

    /// Returns the answer's header.
    pub(crate) fn header(self) -> String {
        format!("{SERVICE} {self}")
    }
}

impl fmt::Display for Microversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.0)
    }
}
