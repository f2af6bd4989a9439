//! The names that policies have, their defaults and what they guard.
//!
//! The names are those of the old Karbor: operators' files name them.

/// A rule that exists without any file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Builtin {
    /// Its name.
    pub name: &'static str,
    /// What holds unless a file says otherwise.
    pub default: &'static str,
    /// What it guards.
    pub guards: &'static str,
}

const fn rule(name: &'static str, default: &'static str, guards: &'static str) -> Builtin {
    Builtin { name, default, guards }
}

const OWNER: &str = "rule:admin_or_owner";
const ADMIN: &str = "rule:admin_api";

/// All built-in rules.
pub const BUILTIN: &[Builtin] = &[
    rule("context_is_admin", "role:admin", "Who is an administrator."),
    rule(
        "admin_or_owner",
        "is_admin:True or (role:admin and is_admin_project:True) or project_id:%(project_id)s",
        "Administrators, and the project that owns the object.",
    ),
    rule("admin_api", "is_admin:True or (role:admin and is_admin_project:True)", "Administrators only."),
    rule("default", OWNER, "What holds for a name that is no rule."),
    rule("plan:create", OWNER, "POST /plans"),
    rule("plan:get", OWNER, "GET /plans/{id}; the first step of PUT and DELETE"),
    rule("plan:get_all", OWNER, "GET /plans"),
    rule("plan:update", OWNER, "PUT /plans/{id}"),
    rule("plan:delete", OWNER, "DELETE /plans/{id}"),
    rule("restore:create", OWNER, "POST /restores"),
    rule("restore:update", OWNER, "POST /restores/{id}/action (cancel)"),
    rule("restore:get", OWNER, "GET /restores/{id}"),
    rule("restore:get_all", OWNER, "GET /restores"),
    rule("verification:create", OWNER, "POST /verifications"),
    rule("verification:get", OWNER, "GET /verifications/{id}"),
    rule("verification:get_all", OWNER, "GET /verifications"),
    rule("protectable:get_all", OWNER, "GET /protectables; the first step of the next three"),
    rule("protectable:get", OWNER, "GET /protectables/{type}"),
    rule("protectable:instance_get_all", OWNER, "GET /protectables/{type}/instances"),
    rule("protectable:instance_get", OWNER, "GET /protectables/{type}/instances/{id}"),
    rule("provider:get", OWNER, "GET /providers/{id}"),
    rule("provider:get_all", OWNER, "GET /providers"),
    rule("provider:checkpoint_create", OWNER, "POST /providers/{id}/checkpoints"),
    rule("provider:checkpoint_get", OWNER, "GET /providers/{id}/checkpoints/{id}"),
    rule("provider:checkpoint_get_all", OWNER, "GET /providers/{id}/checkpoints"),
    rule("provider:checkpoint_delete", OWNER, "DELETE /providers/{id}/checkpoints/{id}"),
    rule("provider:checkpoint_update", OWNER, "PUT /providers/{id}/checkpoints/{id} (reset state)"),
    rule(
        "provider:checkpoint_hold",
        OWNER,
        "PUT, DELETE /providers/{id}/checkpoints/{id}/hold (microversion 1.2)",
    ),
    rule("copy:create", OWNER, "POST /providers/{id}/checkpoints/action"),
    rule("trigger:create", OWNER, "POST /triggers"),
    rule("trigger:get", OWNER, "GET /triggers/{id}"),
    rule("trigger:list", OWNER, "GET /triggers"),
    rule("trigger:update", OWNER, "PUT /triggers/{id}"),
    rule("trigger:delete", OWNER, "DELETE /triggers/{id}"),
    rule("scheduled_operation:create", OWNER, "POST /scheduled_operations"),
    rule("scheduled_operation:get", OWNER, "GET /scheduled_operations/{id}"),
    rule("scheduled_operation:list", OWNER, "GET /scheduled_operations"),
    rule("scheduled_operation:delete", OWNER, "DELETE /scheduled_operations/{id}"),
    rule("scheduled_operation:update", OWNER, "PUT /scheduled_operations/{id}"),
    rule("scheduled_operation:run", OWNER, "POST /scheduled_operations/{id}/action (run)"),
    rule("operation_log:get", OWNER, "GET /operation_logs/{id}"),
    rule("operation_log:list", OWNER, "GET /operation_logs"),
    rule("operation:get", OWNER, "GET /operations/{id}"),
    rule("operation:get_all", OWNER, "GET /operations"),
    rule("operation:cancel", OWNER, "POST /operations/{id}/action (cancel)"),
    rule("operation:resume", OWNER, "POST /operations/{id}/action (resume)"),
    rule("operation:undo", OWNER, "POST /operations/{id}/action (undo)"),
    rule("bank_account:get", OWNER, "GET /bank_accounts/{bank}"),
    rule("bank_account:get_all", OWNER, "GET /bank_accounts"),
    rule("bank_account:update", ADMIN, "PUT /bank_accounts/{bank}"),
    rule("service:get_all", ADMIN, "GET /os-services"),
    rule("service:update", ADMIN, "PUT /os-services/{id}"),
    rule("quota:get", OWNER, "GET /quotas/{project}, GET /quotas/{project}/detail"),
    rule("quota:get_default", OWNER, "GET /quotas/{project}/defaults"),
    rule("quota:update", ADMIN, "PUT /quotas/{project}"),
    rule("quota:delete", ADMIN, "DELETE /quotas/{project}"),
    rule("quota_class:get", OWNER, "GET /quota_classes/{name}"),
    rule("quota_class:update", ADMIN, "PUT /quota_classes/{name}"),
];
