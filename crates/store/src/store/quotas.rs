//! Quotas, quota classes and usage.

use karbor_types::{Instant, ProjectId};

use crate::{Limit, QuotaDefaults, QuotaResource, Quotas, Result, Store, Usage};

impl Store {
    /// Returns the limits that hold for a project: its own, else the defaults.
    ///
    /// # Errors
    /// [`Error::Database`](crate::Error::Database).
    pub async fn get_quotas(&self, project: &ProjectId, defaults: &QuotaDefaults) -> Result<Quotas> {
        self.pending((project, defaults))
    }

    /// Returns limits and usage of a project.
    ///
    /// # Errors
    /// [`Error::Database`](crate::Error::Database).
    pub async fn get_usage(&self, project: &ProjectId, defaults: &QuotaDefaults) -> Result<Vec<Usage>> {
        self.pending((project, defaults))
    }

    /// Sets limits of a project; resources that are not named keep theirs.
    ///
    /// # Errors
    /// [`Error::Database`](crate::Error::Database).
    pub async fn set_quotas(
        &self,
        project: &ProjectId,
        limits: &[(QuotaResource, Limit)],
        now: Instant,
    ) -> Result<()> {
        self.pending((project, limits, now))
    }

    /// Removes a project's own limits, so that the defaults hold. What it uses stays counted.
    ///
    /// # Errors
    /// [`Error::Database`](crate::Error::Database).
    pub async fn delete_quotas(&self, project: &ProjectId) -> Result<()> {
        self.pending((project,))
    }

    /// Returns the limits of a class; any class exists.
    ///
    /// # Errors
    /// [`Error::Database`](crate::Error::Database).
    pub async fn get_quota_class(&self, class: &str, defaults: &QuotaDefaults) -> Result<Quotas> {
        self.pending((class, defaults))
    }

    /// Sets limits of a class; resources that are not named keep theirs.
    ///
    /// # Errors
    /// [`Error::Database`](crate::Error::Database).
    pub async fn set_quota_class(
        &self,
        class: &str,
        limits: &[(QuotaResource, Limit)],
        now: Instant,
    ) -> Result<()> {
        self.pending((class, limits, now))
    }

    /// Counts again what a project uses, and returns whether the counters were wrong.
    ///
    /// # Errors
    /// [`Error::Database`](crate::Error::Database).
    pub async fn recount_usage(&self, project: &ProjectId, now: Instant) -> Result<bool> {
        self.pending((project, now))
    }
}
