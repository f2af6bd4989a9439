//! Quotas: what is counted, how much is allowed, how much is used.

use std::fmt;
use std::str::FromStr;

use karbor_types::UnknownState;

/// What is counted per project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QuotaResource {
    /// Plans that are not deleted.
    Plans,
    /// Checkpoints that are not deleted, whatever their state.
    Checkpoints,
}

impl QuotaResource {
    /// All of them, in order.
    pub const ALL: &[Self] = &[Self::Plans, Self::Checkpoints];

    /// Returns the text that the API and the database use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plans => "plans",
            Self::Checkpoints => "checkpoints",
        }
    }
}

impl fmt::Display for QuotaResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for QuotaResource {
    type Err = UnknownState;
    fn from_str(text: &str) -> Result<Self, UnknownState> {
        let found = Self::ALL.iter().find(|resource| resource.as_str() == text);
        found.copied().ok_or_else(|| UnknownState { what: "quota resource", text: text.to_owned() })
    }
}

/// How much is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// As much as there is.
    Unlimited,
    /// That much, and no more.
    At(u64),
}

impl Limit {
    /// Reads the API's number: -1 (or any negative one) is unlimited.
    pub fn from_number(number: i64) -> Self {
        u64::try_from(number).map_or(Self::Unlimited, Self::At)
    }

    /// Returns the API's number: -1 for unlimited.
    pub fn as_number(self) -> i64 {
        match self {
            Self::Unlimited => -1,
            Self::At(limit) => i64::try_from(limit).unwrap_or(i64::MAX),
        }
    }
}

/// One limit for each resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Plans.
    pub plans: Limit,
    /// Checkpoints.
    pub checkpoints: Limit,
}

impl Quotas {
    /// Returns the limit of one resource.
    pub const fn limit(&self, resource: QuotaResource) -> Limit {
        match resource {
            QuotaResource::Plans => self.plans,
            QuotaResource::Checkpoints => self.checkpoints,
        }
    }

    /// Changes the limit of one resource.
    pub const fn set(&mut self, resource: QuotaResource, limit: Limit) {
        match resource {
            QuotaResource::Plans => self.plans = limit,
            QuotaResource::Checkpoints => self.checkpoints = limit,
        }
    }
}

/// The limits that hold where a project has none of its own: they come from the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaDefaults(pub Quotas);

impl Default for QuotaDefaults {
    /// 50 plans, any number of checkpoints.
    fn default() -> Self {
        Self(Quotas { plans: Limit::At(50), checkpoints: Limit::Unlimited })
    }
}

/// How much a project uses of one resource, beside its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The resource.
    pub resource: QuotaResource,
    /// The limit that holds for the project.
    pub limit: Limit,
    /// How many there are.
    pub in_use: u64,
    /// How many are being made.
    pub reserved: u64,
}
