//! The routes under `/v1/{project}`.

mod bank_accounts;
mod checkpoints;
mod copies;
mod operation_logs;
mod operations;
mod plans;
mod protectables;
mod providers;
mod quotas;
mod restores;
mod scheduled_operations;
mod services;
mod triggers;
mod verifications;

use axum::Router;
use axum::routing::{MethodRouter, get, post};

use crate::State;
use crate::call::{method_not_allowed, not_here};
use crate::openapi::Answers::{List, Nothing, Object, One, Page, Texts};
use crate::openapi::{Node, Op, Takes, Told};

/// The routes, and what is told of them.
struct Routes {
    router: Router<State>,
    told: Told,
}

/// Returns the routes; none of them runs without a caller, which the gate around them sees to.
pub(crate) fn v1(state: State) -> Router {
    let routes = described().router;
    routes.fallback(not_here).method_not_allowed_fallback(method_not_allowed).with_state(state)
}

/// Returns what is told of the routes.
pub(crate) fn told() -> Told {
    described().told
}

fn described() -> Routes {
    let mut routes = Routes { router: Router::new(), told: Told::default() };
    plans(&mut routes);
    late_plans(&mut routes);
    checkpoints(&mut routes);
    holds(&mut routes);
    runs(&mut routes);
    schedules(&mut routes);
    things(&mut routes);
    administration(&mut routes);
    operations(&mut routes);
    accounts(&mut routes);
    routes
}

fn plans(routes: &mut Routes) {
    let filters = &["name", "description", "status"];
    routes.resource(
        "plans",
        Node::new()
            .get(Op::new("list-plans", "List plans", Page("plans", "Plan")).filters(filters), plans::list)
            .post(
                Op::new("create-plan", "Make a plan", One("plan", "Plan"))
                    .takes(Takes::One("plan", "NewPlan")),
                plans::create,
            ),
        Node::new()
            .get(Op::new("show-plan", "Show a plan", One("plan", "Plan")), plans::show)
            .put(
                Op::new("update-plan", "Change a plan", One("plan", "Plan"))
                    .takes(Takes::One("plan", "PlanChange"))
                    .or(&[409]),
                plans::update,
            )
            .delete(Op::new("delete-plan", "Delete a plan", Nothing).or(&[409]), plans::delete),
    );
}

fn late_plans(routes: &mut Routes) {
    routes.address(
        "/v1/{project}/late_plans",
        Node::new().get(
            Op::new("list-late-plans", "List plans that break their promise", List("plans", "Plan"))
                .filters(&["all_tenants"])
                .since("1.2"),
            plans::late,
        ),
    );
}

fn checkpoints(routes: &mut Routes) {
    let path = "/v1/{project}/providers/{provider}/checkpoints";
    let filters = &["plan_id", "start_date", "end_date", "status"];
    routes.address(
        path,
        Node::new()
            .get(
                Op::new(
                    "list-checkpoints",
                    "List a provider's checkpoints",
                    Page("checkpoints", "Checkpoint"),
                )
                .filters(filters),
                checkpoints::list,
            )
            .post(
                Op::new("create-checkpoint", "Protect a plan now", One("checkpoint", "Checkpoint"))
                    .takes(Takes::One("checkpoint", "NewCheckpoint")),
                checkpoints::create,
            ),
    );
    let action = format!("{path}/action");
    routes.address(
        &action,
        Node::new().post(
            Op::new("copy-checkpoints", "Copy a plan's checkpoints into another bank", One("copy", "Copy"))
                .takes(Takes::One("copy", "NewCopy")),
            copies::create,
        ),
    );
    // To the old service `action` was an id for every other method, and no id looks like that.
    let other = get(checkpoints::show).put(checkpoints::reset).delete(checkpoints::delete);
    routes.router = std::mem::take(&mut routes.router).route(&action, other);
    routes.address(
        &format!("{path}/{{id}}"),
        Node::new()
            .get(
                Op::new("show-checkpoint", "Show a checkpoint", One("checkpoint", "Checkpoint")),
                checkpoints::show,
            )
            .put(
                Op::new("reset-checkpoint", "Set a checkpoint's state by hand", Object)
                    .takes(Takes::One("os-resetState", "Reset"))
                    .or(&[409]),
                checkpoints::reset,
            )
            .delete(
                Op::new("delete-checkpoint", "Delete a checkpoint", Object).or(&[409]),
                checkpoints::delete,
            ),
    );
}

fn holds(routes: &mut Routes) {
    routes.address(
        "/v1/{project}/providers/{provider}/checkpoints/{id}/hold",
        Node::new()
            .put(
                Op::new("hold-checkpoint", "Keep a checkpoint from being deleted", One("hold", "Hold"))
                    .takes(Takes::One("hold", "NewHold"))
                    .or(&[409])
                    .since("1.2"),
                checkpoints::hold,
            )
            .delete(
                Op::new("release-checkpoint", "Let a checkpoint be deleted again", Nothing).since("1.2"),
                checkpoints::release,
            ),
    );
}

fn runs(routes: &mut Routes) {
    let filters = &["status", "checkpoint_id", "provider_id"];
    routes.resource(
        "restores",
        Node::new()
            .get(
                Op::new("list-restores", "List restores", Page("restores", "Restore")).filters(filters),
                restores::list,
            )
            .post(
                Op::new("create-restore", "Bring a checkpoint back", One("restore", "Restore"))
                    .takes(Takes::One("restore", "NewRestore"))
                    .or(&[409]),
                restores::create,
            ),
        Node::new().get(Op::new("show-restore", "Show a restore", One("restore", "Restore")), restores::show),
    );
    routes.resource(
        "verifications",
        Node::new()
            .get(
                Op::new("list-verifications", "List verifications", Page("verifications", "Verification"))
                    .filters(filters),
                verifications::list,
            )
            .post(
                Op::new(
                    "create-verification",
                    "Check that a checkpoint is whole",
                    One("verification", "Verification"),
                )
                .takes(Takes::One("verification", "NewVerification"))
                .or(&[409]),
                verifications::create,
            ),
        Node::new().get(
            Op::new("show-verification", "Show a verification", One("verification", "Verification")),
            verifications::show,
        ),
    );
}

fn schedules(routes: &mut Routes) {
    routes.resource(
        "triggers",
        Node::new()
            .get(
                Op::new("list-triggers", "List triggers", Page("triggers", "Trigger")).filters(&[
                    "name",
                    "type",
                    "properties",
                ]),
                triggers::list,
            )
            .post(
                Op::new("create-trigger", "Make a trigger", One("trigger_info", "Trigger"))
                    .takes(Takes::One("trigger_info", "NewTrigger")),
                triggers::create,
            ),
        Node::new()
            .get(Op::new("show-trigger", "Show a trigger", One("trigger_info", "Trigger")), triggers::show)
            .put(
                Op::new("update-trigger", "Change a trigger", One("trigger_info", "Trigger"))
                    .takes(Takes::One("trigger_info", "TriggerChange")),
                triggers::update,
            )
            .delete(Op::new("delete-trigger", "Delete a trigger", Nothing).or(&[424]), triggers::delete),
    );
    routes.address(
        "/v1/{project}/triggers/{id}/preview",
        Node::new().get(
            Op::new("preview-trigger", "Show when a trigger fires next", One("preview", "Preview"))
                .filters(&["count"])
                .since("1.2"),
            triggers::preview,
        ),
    );
    routes.address(
        "/v1/{project}/triggers/{id}/address",
        Node::new().put(
            Op::new(
                "rotate-trigger-address",
                "Make a new address for a trigger",
                One("trigger_info", "Trigger"),
            )
            .since("1.2"),
            triggers::rotate,
        ),
    );
    routes.address(
        "/v1/{project}/scheduled_operations/{id}/retention",
        Node::new().get(
            Op::new("preview-retention", "Show what retention would delete", One("retention", "Retention"))
                .since("1.2"),
            scheduled_operations::retention,
        ),
    );
    routes.address(
        "/v1/{project}/trigger_previews",
        Node::new().post(
            Op::new("preview-times", "Show when a new trigger would fire", One("preview", "Preview"))
                .takes(Takes::One("preview", "NewPreview"))
                .since("1.2"),
            triggers::preview_properties,
        ),
    );
    let one = || One("scheduled_operation", "ScheduledOperation");
    routes.resource(
        "scheduled_operations",
        Node::new()
            .get(
                Op::new(
                    "list-scheduled-operations",
                    "List scheduled operations",
                    Page("operations", "ScheduledOperation"),
                )
                .filters(&["name", "operation_type", "trigger_id", "operation_definition"]),
                scheduled_operations::list,
            )
            .post(
                Op::new("create-scheduled-operation", "Schedule an operation", one())
                    .takes(Takes::One("scheduled_operation", "NewScheduledOperation")),
                scheduled_operations::create,
            ),
        Node::new()
            .get(
                Op::new("show-scheduled-operation", "Show a scheduled operation", one()),
                scheduled_operations::show,
            )
            .put(
                Op::new("update-scheduled-operation", "Change, pause or resume a scheduled operation", one())
                    .takes(Takes::One("scheduled_operation", "ScheduledOperationChange"))
                    .since("1.2"),
                scheduled_operations::update,
            )
            .delete(
                Op::new("delete-scheduled-operation", "Delete a scheduled operation", Nothing),
                scheduled_operations::delete,
            ),
    );
    routes.address(
        "/v1/{project}/scheduled_operations/{id}/runs",
        Node::new()
            .get(
                Op::new(
                    "list-scheduled-operation-runs",
                    "List what was run, and what was not",
                    Page("runs", "Run"),
                )
                .filters(&["status", "reason", "origin"])
                .since("1.2"),
                scheduled_operations::runs,
            )
            .post(
                Op::new("run-scheduled-operation", "Run a scheduled operation now", One("run", "Run"))
                    .takes(Takes::One("run", "Nothing"))
                    .since("1.2"),
                scheduled_operations::run,
            ),
    );
    routes.resource(
        "operation_logs",
        Node::new().get(
            Op::new("list-operation-logs", "List what was done", Page("operation_logs", "OperationLog"))
                .filters(&["checkpoint_id", "plan_id", "restore_id", "status"]),
            operation_logs::list,
        ),
        Node::new().get(
            Op::new("show-operation-log", "Show what was done", One("operation_log", "OperationLog")),
            operation_logs::show,
        ),
    );
}

fn things(routes: &mut Routes) {
    routes.resource(
        "providers",
        Node::new().get(
            Op::new("list-providers", "List providers", Page("providers", "Provider"))
                .filters(&["name", "description"]),
            providers::list,
        ),
        Node::new()
            .get(Op::new("show-provider", "Show a provider", One("provider", "Provider")), providers::show),
    );
    routes.resource(
        "protectables",
        Node::new().get(
            Op::new("list-protectables", "List the types that can be protected", Texts("protectable_type")),
            protectables::list,
        ),
        Node::new().get(
            Op::new("show-protectable", "Show a type", One("protectable_type", "ProtectableType")),
            protectables::show,
        ),
    );
    routes.address(
        "/v1/{project}/protectables/{type}/instances",
        Node::new().get(
            Op::new("list-instances", "List what can be protected", Page("instances", "Instance"))
                .filters(&["parameters"])
                .or(&[409]),
            protectables::instances,
        ),
    );
    routes.address(
        "/v1/{project}/protectables/{type}/instances/{id}",
        Node::new().get(
            Op::new("show-instance", "Show what can be protected", One("instance", "Instance"))
                .filters(&["parameters"])
                .or(&[409]),
            protectables::instance,
        ),
    );
}

fn administration(routes: &mut Routes) {
    routes.resource(
        "os-services",
        Node::new().get(
            Op::new("list-services", "List the processes", List("services", "Service"))
                .filters(&["host", "binary"]),
            services::list,
        ),
        Node::new().put(
            Op::new("update-service", "Switch a process off or on", One("service", "Service"))
                .takes(Takes::Flat("ServiceChange")),
            services::update,
        ),
    );
    routes.resource(
        "quotas",
        Node::new(),
        Node::new()
            .get(
                Op::new("show-quota", "Show how much a project may have", One("quota", "Quota")),
                quotas::show,
            )
            .put(
                Op::new("update-quota", "Set how much a project may have", One("quota", "Quota"))
                    .takes(Takes::One("quota", "Limits")),
                quotas::update,
            )
            .delete(Op::new("delete-quota", "Go back to the defaults", Nothing), quotas::delete),
    );
    routes.address(
        "/v1/{project}/quotas/{id}/defaults",
        Node::new().get(
            Op::new("show-quota-defaults", "Show the defaults", One("quota", "Quota")),
            quotas::defaults,
        ),
    );
    routes.address(
        "/v1/{project}/quotas/{id}/detail",
        Node::new().get(
            Op::new("show-quota-usage", "Show limits and what is used", One("quota", "QuotaUsage")),
            quotas::detail,
        ),
    );
    routes.resource(
        "quota_classes",
        Node::new(),
        Node::new()
            .get(
                Op::new("show-quota-class", "Show the limits of a class", One("quota_class", "Quota")),
                quotas::show_class,
            )
            .put(
                Op::new("update-quota-class", "Set the limits of a class", One("quota_class", "Quota"))
                    .takes(Takes::One("quota_class", "Limits")),
                quotas::update_class,
            ),
    );
}

fn accounts(routes: &mut Routes) {
    let path = "/v1/{project}/bank_accounts";
    routes.address(
        path,
        Node::new().get(
            Op::new(
                "list-bank-accounts",
                "List a project's areas in banks",
                List("bank_accounts", "BankAccount"),
            )
            .filters(&["all_tenants"])
            .since("1.1"),
            bank_accounts::list,
        ),
    );
    routes.address(
        &format!("{path}/{{bank}}"),
        Node::new()
            .get(
                Op::new(
                    "show-bank-account",
                    "Show an area and what it holds",
                    One("bank_account", "BankAccount"),
                )
                .filters(&["project_id"])
                .since("1.1"),
                bank_accounts::show,
            )
            .put(
                Op::new(
                    "update-bank-account",
                    "Set where an area lies, how it is opened, and how many bytes it may hold",
                    One("bank_account", "BankAccount"),
                )
                .takes(Takes::One("bank_account", "BankAccountChange"))
                .filters(&["project_id"])
                .or(&[409])
                .since("1.1"),
                bank_accounts::update,
            ),
    );
}

fn operations(routes: &mut Routes) {
    let path = "/v1/{project}/operations";
    routes.address(
        path,
        Node::new().get(
            Op::new("list-operations", "List operations", Page("operations", "Operation"))
                .filters(&["kind", "state", "plan_id", "checkpoint_id", "provider_id"])
                .since("1.1"),
            operations::list,
        ),
    );
    routes.address(
        &format!("{path}/{{id}}"),
        Node::new().get(
            Op::new("show-operation", "Show an operation and its progress", One("operation", "Operation"))
                .since("1.1"),
            operations::show,
        ),
    );
    routes.address(
        &format!("{path}/{{id}}/resources"),
        Node::new().get(
            Op::new(
                "show-operation-resources",
                "Show how its resources fared",
                List("resources", "ResourceResult"),
            )
            .since("1.1"),
            operations::resources,
        ),
    );
    routes.address(
        &format!("{path}/{{id}}/action"),
        Node::new().post(
            Op::new("act-on-operation", "End, resume or undo an operation", One("operation", "Operation"))
                .takes(Takes::Flat("OperationAction"))
                .or(&[409])
                .since("1.1"),
            operations::act,
        ),
    );
}

impl Routes {
    /// Adds an address.
    fn address(&mut self, path: &str, node: Node) {
        self.told.add(path, &node);
        self.router = std::mem::take(&mut self.router).route(path, node.router);
    }

    /// Adds a collection and its members, with the suffixes that they may have and the addresses beside them that the
    /// old service knew without anything behind them. Methods that only the old service's routes knew are not there.
    fn resource(&mut self, name: &str, collection: Node, member: Node) {
        let path = format!("/v1/{{project}}/{name}");
        let item = format!("{path}/{{id}}");
        self.told.add(&path, &collection);
        self.told.add(&item, &member);
        let collection = known(collection, &["get", "post"]);
        let member = known(member, &["get", "put", "delete"]);
        let router = std::mem::take(&mut self.router)
            .route(&format!("{path}.json"), collection.clone())
            .route(&format!("{path}.xml"), collection.clone())
            .route(&path, collection)
            .route(&format!("{item}/edit"), get(not_here));
        let router = if matches!(name, "providers" | "protectables") {
            // These have addresses of their own below their members, with their own name for the member.
            router
        } else {
            router.route(&format!("{item}/action"), post(not_here))
        };
        self.router = router.route(&item, member);
    }
}

/// Answers the methods that an address always knew, and that have nothing behind them, as an address that is not there.
fn known(node: Node, methods: &[&str]) -> MethodRouter<State> {
    let mut router = node.router;
    for method in methods {
        if node.told.iter().any(|(told, _)| told == method) {
            continue;
        }
        router = match *method {
            "get" => router.get(not_here),
            "post" => router.post(not_here),
            "put" => router.put(not_here),
            _ => router.delete(not_here),
        };
    }
    router
}
