-- The first schema. Types in braces are filled in per engine (see src/sql/migrate.rs).
-- Instants are microseconds UTC, truth values are 0 or 1, JSON is text.

CREATE TABLE {if_absent} plans (
    id {id} NOT NULL PRIMARY KEY,
    project_id {key} NOT NULL,
    name {text} NOT NULL,
    description {text},
    provider_id {id} NOT NULL,
    status {text},
    resources {text} NOT NULL,
    parameters {text} NOT NULL,
    created_at {int} NOT NULL,
    updated_at {int},
    deleted_at {int}
) {table};

CREATE INDEX plans_by_project ON plans (project_id, created_at, id);

CREATE TABLE {if_absent} checkpoints (
    id {id} NOT NULL PRIMARY KEY,
    project_id {key} NOT NULL,
    provider_id {id} NOT NULL,
    plan_id {id} NOT NULL,
    plan {text} NOT NULL,
    state {word} NOT NULL,
    revision {int} NOT NULL,
    graph {text},
    extra_info {text} NOT NULL,
    logical_bytes {int},
    stored_bytes {int},
    new_bytes {int},
    reason {text},
    session {text},
    committed_at {int},
    created_at {int} NOT NULL,
    updated_at {int}
) {table};

CREATE INDEX checkpoints_by_project ON checkpoints (project_id, created_at, id);

CREATE INDEX checkpoints_by_plan ON checkpoints (plan_id, created_at, id);

CREATE TABLE {if_absent} restores (
    id {id} NOT NULL PRIMARY KEY,
    project_id {key} NOT NULL,
    provider_id {id} NOT NULL,
    checkpoint_id {id} NOT NULL,
    restore_target {text},
    parameters {text} NOT NULL,
    state {word} NOT NULL,
    resources_status {text} NOT NULL,
    resources_reason {text} NOT NULL,
    reason {text},
    created_at {int} NOT NULL,
    updated_at {int}
) {table};

CREATE INDEX restores_by_project ON restores (project_id, created_at, id);

CREATE TABLE {if_absent} verifications (
    id {id} NOT NULL PRIMARY KEY,
    project_id {key} NOT NULL,
    provider_id {id} NOT NULL,
    checkpoint_id {id} NOT NULL,
    parameters {text} NOT NULL,
    state {word} NOT NULL,
    resources_status {text} NOT NULL,
    resources_reason {text} NOT NULL,
    reason {text},
    created_at {int} NOT NULL,
    updated_at {int}
) {table};

CREATE INDEX verifications_by_project ON verifications (project_id, created_at, id);

-- `claimable_at` is when somebody may claim it: its due time while queued, the end of its lease while running,
-- nothing once it has ended. `revision` grows with each write of its owner: touching it is what fences.
CREATE TABLE {if_absent} operations (
    id {id} NOT NULL PRIMARY KEY,
    kind {word} NOT NULL,
    project_id {key} NOT NULL,
    user_id {key},
    plan_id {id},
    checkpoint_id {id},
    restore_id {id},
    verification_id {id},
    provider_id {id},
    state {word} NOT NULL,
    epoch {int} NOT NULL,
    revision {int} NOT NULL,
    owner {text},
    lease_until {int},
    claimable_at {int},
    attempt {int} NOT NULL,
    priority {int} NOT NULL,
    due_at {int} NOT NULL,
    cancel_requested {int} NOT NULL,
    request {text},
    result {text},
    reason {text},
    created_at {int} NOT NULL,
    started_at {int},
    ended_at {int}
) {table};

CREATE INDEX operations_by_claim ON operations (claimable_at, kind);

CREATE INDEX operations_by_project ON operations (project_id, created_at, id);

CREATE INDEX operations_by_checkpoint ON operations (checkpoint_id);

CREATE TABLE {if_absent} steps (
    operation_id {id} NOT NULL,
    ordinal {int} NOT NULL,
    resource_type {text} NOT NULL,
    resource_id {text} NOT NULL,
    hook {text} NOT NULL,
    state {word} NOT NULL,
    outcome {text},
    reason {text},
    attempts {int} NOT NULL,
    bytes_done {int} NOT NULL,
    bytes_total {int},
    bytes_stored {int} NOT NULL,
    started_at {int},
    ended_at {int},
    PRIMARY KEY (operation_id, ordinal),
    FOREIGN KEY (operation_id) REFERENCES operations (id) ON DELETE CASCADE
) {table};

CREATE TABLE {if_absent} ledger (
    operation_id {id} NOT NULL,
    id {int} NOT NULL,
    resource_type {text} NOT NULL,
    resource_id {text} NOT NULL,
    kind {text} NOT NULL,
    reference {text} NOT NULL,
    purpose {word} NOT NULL,
    state {word} NOT NULL,
    data {text},
    created_at {int} NOT NULL,
    updated_at {int},
    PRIMARY KEY (operation_id, id),
    FOREIGN KEY (operation_id) REFERENCES operations (id) ON DELETE CASCADE
) {table};

CREATE INDEX ledger_by_resource ON ledger (operation_id, resource_id{start});

CREATE TABLE {if_absent} operation_logs (
    id {id} NOT NULL PRIMARY KEY,
    project_id {key} NOT NULL,
    operation_type {word} NOT NULL,
    operation_id {id},
    checkpoint_id {id},
    plan_id {id},
    provider_id {id},
    restore_id {id},
    scheduled_operation_id {id},
    status {word} NOT NULL,
    started_at {int} NOT NULL,
    ended_at {int},
    error_info {text},
    extra_info {text},
    created_at {int} NOT NULL,
    updated_at {int}
) {table};

CREATE INDEX operation_logs_by_project ON operation_logs (project_id, created_at, id);

CREATE INDEX operation_logs_by_operation ON operation_logs (operation_id);

CREATE TABLE {if_absent} triggers (
    id {id} NOT NULL PRIMARY KEY,
    name {text} NOT NULL,
    project_id {key} NOT NULL,
    kind {word} NOT NULL,
    properties {text} NOT NULL,
    next_at {int},
    created_at {int} NOT NULL,
    updated_at {int}
) {table};

CREATE INDEX triggers_by_project ON triggers (project_id, created_at, id);

CREATE INDEX triggers_by_next ON triggers (next_at);

CREATE TABLE {if_absent} scheduled_operations (
    id {id} NOT NULL PRIMARY KEY,
    name {text} NOT NULL,
    description {text},
    operation_type {word} NOT NULL,
    user_id {key} NOT NULL,
    project_id {key} NOT NULL,
    trigger_id {id} NOT NULL,
    operation_definition {text} NOT NULL,
    enabled {int} NOT NULL,
    created_at {int} NOT NULL,
    updated_at {int},
    FOREIGN KEY (trigger_id) REFERENCES triggers (id)
) {table};

CREATE INDEX scheduled_operations_by_project ON scheduled_operations (project_id, created_at, id);

CREATE INDEX scheduled_operations_by_trigger ON scheduled_operations (trigger_id);

CREATE TABLE {if_absent} services (
    id {int} NOT NULL PRIMARY KEY,
    binary_name {name} NOT NULL,
    host {name} NOT NULL,
    enabled {int} NOT NULL,
    disabled_reason {text},
    created_at {int} NOT NULL,
    updated_at {int}
) {table};

CREATE UNIQUE INDEX services_by_place ON services (binary_name, host);

CREATE TABLE {if_absent} quotas (
    project_id {key} NOT NULL,
    resource {word} NOT NULL,
    hard_limit {int} NOT NULL,
    updated_at {int} NOT NULL,
    PRIMARY KEY (project_id, resource)
) {table};

CREATE TABLE {if_absent} quota_classes (
    class_name {name} NOT NULL,
    resource {word} NOT NULL,
    hard_limit {int} NOT NULL,
    updated_at {int} NOT NULL,
    PRIMARY KEY (class_name, resource)
) {table};

CREATE TABLE {if_absent} quota_usages (
    project_id {key} NOT NULL,
    resource {word} NOT NULL,
    in_use {int} NOT NULL,
    reserved {int} NOT NULL,
    PRIMARY KEY (project_id, resource)
) {table};
