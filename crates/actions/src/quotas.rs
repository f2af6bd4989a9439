//! Quotas and quota classes: how much a project may have, and has.

use karbor_store::{Limit, QuotaResource, Quotas, Usage};
use karbor_types::ProjectId;

use crate::{Actions, Caller, Error, Result};

/// New limits; resources that are not named keep theirs.
pub type LimitChange = Vec<(QuotaResource, Limit)>;

impl Actions {
    /// Returns the limits of a project.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for another project's, unless the caller is an administrator.
    pub async fn get_quotas(&self, caller: &Caller, project: &ProjectId) -> Result<Quotas> {
        self.allow_quota(caller, "quota:get", project)?;
        Ok(self.store().get_quotas(project, &self.settings().quota).await?)
    }

    /// Returns the limits and the usage of a project.
    ///
    /// # Errors
    /// As [`Actions::get_quotas`].
    pub async fn get_usage(&self, caller: &Caller, project: &ProjectId) -> Result<Vec<Usage>> {
        self.allow_quota(caller, "quota:get", project)?;
        Ok(self.store().get_usage(project, &self.settings().quota).await?)
    }

    /// Returns the limits that hold where nobody set others.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub async fn default_quotas(&self, caller: &Caller) -> Result<Quotas> {
        self.allow(caller, "quota:get_default")?;
        Ok(self.store().default_quotas(&self.settings().quota).await?)
    }

    /// Sets limits of a project and returns all of them.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub async fn set_quotas(
        &self,
        caller: &Caller,
        project: &ProjectId,
        limits: LimitChange,
    ) -> Result<Quotas> {
        self.allow_admin(caller, "quota:update")?;
        if !limits.is_empty() {
            self.store().set_quotas(project, &limits, self.now()).await?;
        }
        Ok(self.store().get_quotas(project, &self.settings().quota).await?)
    }

    /// Removes a project's own limits, so that the defaults hold. What it uses stays counted.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub async fn delete_quotas(&self, caller: &Caller, project: &ProjectId) -> Result<()> {
        self.allow_admin(caller, "quota:delete")?;
        Ok(self.store().delete_quotas(project).await?)
    }

    /// Returns the limits of a class; any class exists.
    ///
    /// # Errors
    /// [`Error::Forbidden`], also for everybody who is no administrator.
    pub async fn get_quota_class(&self, caller: &Caller, class: &str) -> Result<Quotas> {
        self.allow_admin(caller, "quota_class:get")?;
        Ok(self.store().get_quota_class(class, &self.settings().quota).await?)
    }

    /// Sets limits of a class and returns all of them.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub async fn set_quota_class(&self, caller: &Caller, class: &str, limits: LimitChange) -> Result<Quotas> {
        self.allow_admin(caller, "quota_class:update")?;
        if !limits.is_empty() {
            self.store().set_quota_class(class, &limits, self.now()).await?;
        }
        Ok(self.store().get_quota_class(class, &self.settings().quota).await?)
    }

    fn allow_quota(&self, caller: &Caller, rule: &str, project: &ProjectId) -> Result<()> {
        self.allow(caller, rule)?;
        if caller.may_touch(project) { Ok(()) } else { Err(Error::Forbidden { rule: rule.to_owned() }) }
    }

    /// Asks the policy, and for an administrator beside: loosening the policy is not enough.
    pub(crate) fn allow_admin(&self, caller: &Caller, rule: &str) -> Result<()> {
        self.allow(caller, rule)?;
        if caller.is_admin { Ok(()) } else { Err(Error::Forbidden { rule: rule.to_owned() }) }
    }
}
