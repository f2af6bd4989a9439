//! Who asks.

use karbor_plugin::Access;
use karbor_policy::Attributes;
use karbor_types::{ProjectId, UserId};
use serde_json::json;

/// Somebody who was identified, by Keystone or by the local file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The project that the token is for.
    pub project: ProjectId,
    /// Its name, where known.
    pub project_name: Option<String>,
    /// The domain of the project, where there are domains.
    pub project_domain: Option<String>,
    /// Who it is.
    pub user: UserId,
    /// Their name, where known.
    pub user_name: Option<String>,
    /// The domain of the user, where there are domains.
    pub user_domain: Option<String>,
    /// The roles in that project.
    pub roles: Vec<String>,
    /// Whether they are an administrator whatever the policy says: only where nobody is identified at all.
    pub is_admin: bool,
    /// What they showed, where it can be used to reach the cloud.
    pub access: Access,
}

impl Principal {
    /// Makes somebody with an id, a project and roles, and nothing else known.
    pub fn new(user: UserId, project: ProjectId, roles: impl IntoIterator<Item = String>) -> Self {
        Self {
            project,
            project_name: None,
            project_domain: None,
            user,
            user_name: None,
            user_domain: None,
            roles: roles.into_iter().collect(),
            is_admin: false,
            access: Access::None,
        }
    }

    /// Returns what a policy sees of them.
    pub(crate) fn credentials(&self, is_admin: bool) -> Attributes {
        let value = json!({
            "user_id": self.user, "user": self.user, "user_name": self.user_name,
            "user_domain_id": self.user_domain,
            "project_id": self.project, "tenant": self.project, "tenant_id": self.project,
            "project_name": self.project_name, "project_domain_id": self.project_domain,
            "roles": self.roles, "is_admin": is_admin, "is_admin_project": true,
            "system_scope": null, "domain_id": null,
        });
        match value {
            serde_json::Value::Object(members) => members,
            _ => Attributes::new(),
        }
    }
}

/// Who asks for an action, in which request.
#[derive(Debug, Clone, PartialEq)]
pub struct Caller {
    /// The project for which they act.
    pub project: ProjectId,
    /// Who they are.
    pub user: UserId,
    /// Their roles in the project.
    pub roles: Vec<String>,
    /// Whether the policy calls them an administrator.
    pub is_admin: bool,
    /// The request, for the logs.
    pub request_id: String,
    /// Whether another project's checkpoint does not exist for them. Without it they are told that it is not theirs,
    /// which is what old clients know.
    pub conceals: bool,
    /// By what right the cloud is reached while the request is answered.
    pub access: Access,
    /// What the policy sees of them.
    pub(crate) credentials: Attributes,
}

impl Caller {
    pub(crate) fn new(principal: Principal, is_admin: bool, request_id: String) -> Self {
        let credentials = principal.credentials(is_admin);
        Self {
            project: principal.project,
            user: principal.user,
            roles: principal.roles,
            is_admin,
            request_id,
            conceals: false,
            access: principal.access,
            credentials,
        }
    }

    /// Returns whether an object of that project may be touched as far as projects go.
    pub(crate) fn may_touch(&self, project: &ProjectId) -> bool {
        self.is_admin || self.project == *project
    }
}
