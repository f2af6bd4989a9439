//! The database of the Python Karbor is taken over.

use karbor_store::{
    Engine, Error, Limit, OldKarbor, OperationLogQuery, PlanQuery, QuotaDefaults, QuotaResource,
    RestoreQuery, ScheduledOperationQuery, TriggerQuery, VerificationQuery,
};
use karbor_types::{Instant, OperationKind, RunState};
use serde_json::json;

use crate::kit::{World, run};

/// The old schema, as its third version is, with the types of an engine for times.
const SCHEMA: &str = "
CREATE TABLE migrate_version (repository_id VARCHAR(250) PRIMARY KEY, repository_path TEXT, version INTEGER);
INSERT INTO migrate_version VALUES ('karbor', '/usr/lib/karbor/migrate_repo', 3);
CREATE TABLE plans (created_at {time}, updated_at {time}, deleted_at {time}, deleted BOOLEAN,
    id VARCHAR(36) NOT NULL PRIMARY KEY, name VARCHAR(255), description VARCHAR(255), provider_id VARCHAR(36),
    project_id VARCHAR(255), status VARCHAR(64), parameters TEXT);
CREATE TABLE resources (created_at {time}, updated_at {time}, deleted_at {time}, deleted BOOLEAN,
    id INTEGER NOT NULL PRIMARY KEY, plan_id VARCHAR(36) NOT NULL REFERENCES plans (id), resource_id VARCHAR(36),
    resource_type VARCHAR(64), resource_name VARCHAR(255), resource_extra_info TEXT);
CREATE TABLE triggers (created_at {time}, updated_at {time}, deleted_at {time}, deleted BOOLEAN NOT NULL,
    id VARCHAR(36) NOT NULL PRIMARY KEY, name VARCHAR(255) NOT NULL, project_id VARCHAR(255) NOT NULL,
    type VARCHAR(64) NOT NULL, properties TEXT NOT NULL);
CREATE TABLE scheduled_operations (created_at {time}, updated_at {time}, deleted_at {time},
    deleted BOOLEAN NOT NULL, id VARCHAR(36) NOT NULL PRIMARY KEY, name VARCHAR(255) NOT NULL,
    description VARCHAR(255), operation_type VARCHAR(64) NOT NULL, user_id VARCHAR(64) NOT NULL,
    project_id VARCHAR(255) NOT NULL, trigger_id VARCHAR(36) NOT NULL REFERENCES triggers (id),
    operation_definition TEXT NOT NULL, enabled BOOLEAN NOT NULL);
CREATE TABLE restores (created_at {time}, updated_at {time}, deleted_at {time}, deleted BOOLEAN,
    id VARCHAR(36) NOT NULL PRIMARY KEY, project_id VARCHAR(255), provider_id VARCHAR(36),
    checkpoint_id VARCHAR(36), restore_target VARCHAR(255), parameters TEXT, status VARCHAR(64),
    resources_status TEXT, resources_reason TEXT);
CREATE TABLE verifications (created_at {time}, updated_at {time}, deleted_at {time}, deleted BOOLEAN,
    id VARCHAR(36) NOT NULL PRIMARY KEY, project_id VARCHAR(255) NOT NULL, provider_id VARCHAR(36) NOT NULL,
    checkpoint_id VARCHAR(36) NOT NULL, parameters TEXT, status VARCHAR(64), resources_status TEXT,
    resources_reason TEXT);
CREATE TABLE operation_logs (created_at {time}, updated_at {time}, deleted_at {time}, deleted BOOLEAN NOT NULL,
    id VARCHAR(36) NOT NULL PRIMARY KEY, project_id VARCHAR(255) NOT NULL, operation_type VARCHAR(255) NOT NULL,
    checkpoint_id VARCHAR(36), plan_id VARCHAR(36), provider_id VARCHAR(36), restore_id VARCHAR(36),
    scheduled_operation_id VARCHAR(36), status VARCHAR(64), started_at {time}, ended_at {time}, error_info TEXT,
    extra_info TEXT);
CREATE TABLE quotas (id INTEGER NOT NULL PRIMARY KEY, created_at {time}, updated_at {time}, deleted_at {time},
    deleted BOOLEAN, project_id VARCHAR(255) NOT NULL, resource VARCHAR(255) NOT NULL, hard_limit INTEGER);
CREATE TABLE quota_classes (id INTEGER NOT NULL PRIMARY KEY, created_at {time}, updated_at {time},
    deleted_at {time}, deleted BOOLEAN, class_name VARCHAR(255) NOT NULL, resource VARCHAR(255) NOT NULL,
    hard_limit INTEGER);
";

const P: &str = "e486a2f49695423ca9c47e589b948108";
const NOOP: &str = "b766f37c-d011-4026-8228-28730d734a3f";

fn rows() -> String {
    let t = "'2020-09-01 12:00:00', '2020-09-02 12:00:00.250000'";
    format!(
        r#"
INSERT INTO plans VALUES ({t}, NULL, FALSE, '00000000-0000-4000-8000-000000000001', 'nightly', NULL, '{NOOP}', '{P}',
    'suspended', '{{"OS::Cinder::Volume": {{"force": "True"}}}}');
INSERT INTO plans VALUES ({t}, {deleted}, TRUE, '00000000-0000-4000-8000-000000000002', 'gone', NULL, '{NOOP}', '{P}',
    'suspended', '{{}}');
INSERT INTO plans VALUES ({t}, NULL, FALSE, '00000000-0000-4000-8000-000000000003', 'no provider', NULL, NULL, '{P}',
    'suspended', NULL);
INSERT INTO resources VALUES ({t}, NULL, FALSE, 2, '00000000-0000-4000-8000-000000000001', 'v2', 'OS::Cinder::Volume',
    'second', '{{"availability_zone": "nova"}}');
INSERT INTO resources VALUES ({t}, {deleted}, TRUE, 1, '00000000-0000-4000-8000-000000000001', 'v0',
    'OS::Cinder::Volume', 'before', NULL);
INSERT INTO resources VALUES ({t}, NULL, FALSE, 3, '00000000-0000-4000-8000-000000000001', 'v1', 'OS::Cinder::Volume',
    'first', NULL);
INSERT INTO triggers VALUES ({t}, NULL, FALSE, '00000000-0000-4000-8000-000000000010', 'daily', '{P}', 'time',
    '{{"format": "crontab", "pattern": "0 3 * * *", "window": "900"}}');
INSERT INTO triggers VALUES ({t}, {deleted}, TRUE, '00000000-0000-4000-8000-000000000011', 'old', '{P}', 'time',
    '{{}}');
INSERT INTO scheduled_operations VALUES ({t}, NULL, FALSE, '00000000-0000-4000-8000-000000000020', 'backup', NULL,
    'retention_protect', 'u1', '{P}', '00000000-0000-4000-8000-000000000010',
    '{{"plan_id": "00000000-0000-4000-8000-000000000001", "max_backups": "3"}}', TRUE);
INSERT INTO scheduled_operations VALUES ({t}, NULL, FALSE, '00000000-0000-4000-8000-000000000021', 'dangling', NULL,
    'protect', 'u1', '{P}', '00000000-0000-4000-8000-000000000011', '{{}}', TRUE);
INSERT INTO restores VALUES ({t}, NULL, FALSE, '00000000-0000-4000-8000-000000000030', '{P}', '{NOOP}',
    '00000000-0000-4000-8000-000000000040', NULL, NULL, 'in_progress',
    '{{"OS::Cinder::Volume#v1": "restoring"}}', NULL);
INSERT INTO verifications VALUES ({t}, NULL, FALSE, '00000000-0000-4000-8000-000000000031', '{P}', '{NOOP}',
    '00000000-0000-4000-8000-000000000040', NULL, 'success', NULL, NULL);
INSERT INTO operation_logs VALUES ({t}, NULL, FALSE, '00000000-0000-4000-8000-000000000050', '{P}', 'protect',
    '00000000-0000-4000-8000-000000000040', '00000000-0000-4000-8000-000000000001', '{NOOP}', NULL, NULL, 'available',
    '2020-09-01 12:00:00', '2020-09-01 12:30:00', NULL, NULL);
INSERT INTO quotas VALUES (1, {t}, NULL, FALSE, '{P}', 'plans', 7);
INSERT INTO quotas VALUES (2, {t}, NULL, FALSE, '{P}', 'volumes', 7);
INSERT INTO quota_classes VALUES (1, {t}, NULL, FALSE, 'default', 'checkpoints', 9);
"#,
        deleted = "'2020-09-03 00:00:00'"
    )
}

pub(crate) async fn an_old_database_is_taken_over(world: World) {
    let old = world.beside().await;
    let time = match world.store.engine() {
        Engine::Postgres => "TIMESTAMP",
        _ => "DATETIME",
    };
    // MariaDB keeps fractions only where it is told to; the old service did not tell it.
    if world.store.engine() == Engine::Sqlite {
        drop(std::fs::File::create(old.trim_start_matches("sqlite:")).expect("a file"));
    }
    run(&old, &(SCHEMA.replace("{time}", time) + &rows())).await;
    let store = &world.store;
    let now = Instant::from_micros(1_795_386_554_000_000);
    let reader = OldKarbor::open(&old).await.expect("it is an old one");
    let done = reader.import_into(store, now).await.expect("it is taken over");
    let taken: Vec<_> = done.taken.iter().map(|(what, count)| (*what, *count)).collect();
    assert_eq!(
        taken,
        [
            ("operation log", 1),
            ("plan", 1),
            ("quota", 1),
            ("quota class", 1),
            ("restore", 1),
            ("scheduled operation", 1),
            ("trigger", 1),
            ("verification", 1)
        ]
    );
    let skipped: Vec<_> = done.skipped.iter().map(|one| (one.what, &one.id[one.id.len() - 1..])).collect();
    assert_eq!(skipped, [("plan", "3"), ("scheduled operation", "1"), ("quota", "2")], "{:?}", done.skipped);

    let plans = store.list_plans(&PlanQuery { limit: 10, ..PlanQuery::default() }).await.expect("plans");
    let [plan] = plans.as_slice() else { panic!("one plan: {plans:?}") };
    let members: Vec<_> = plan.resources.iter().map(|one| (one.key.id.as_str(), &one.extra_info)).collect();
    assert_eq!(members, [("v2", &json!({"availability_zone": "nova"})), ("v1", &json!(null))]);
    assert_eq!(plan.created_at.naive_iso(), "2020-09-01T12:00:00.000000");
    assert_eq!(json!(plan.parameters), json!({"OS::Cinder::Volume": {"force": "True"}}));

    let triggers =
        store.list_triggers(&TriggerQuery { limit: 10, ..TriggerQuery::default() }).await.expect("triggers");
    assert_eq!(triggers[0].properties["pattern"], "0 3 * * *");
    let query = ScheduledOperationQuery { limit: 10, ..ScheduledOperationQuery::default() };
    let scheduled = store.list_scheduled_operations(&query).await.expect("scheduled operations");
    assert_eq!((scheduled[0].definition["max_backups"].as_str(), scheduled[0].enabled), (Some("3"), true));
    let restores =
        store.list_restores(&RestoreQuery { limit: 10, ..RestoreQuery::default() }).await.expect("restores");
    assert_eq!(restores[0].state, RunState::Fail, "what was under way has ended");
    assert_eq!(restores[0].resources_status["OS::Cinder::Volume#v1"], "restoring");
    let query = VerificationQuery { limit: 10, ..VerificationQuery::default() };
    assert_eq!(store.list_verifications(&query).await.expect("verifications")[0].state, RunState::Success);
    let query = OperationLogQuery { limit: 10, ..OperationLogQuery::default() };
    let logs = store.list_operation_logs(&query).await.expect("logs");
    assert_eq!((logs[0].kind, logs[0].status.as_str()), (OperationKind::Protect, "available"));
    assert_eq!(logs[0].ended_at.map(Instant::naive_iso).as_deref(), Some("2020-09-01T12:30:00.000000"));

    let project = P.parse().expect("an id");
    let usage = store.get_usage(&project, &QuotaDefaults::default()).await.expect("usage");
    let of_plans = usage.iter().find(|usage| usage.resource == QuotaResource::Plans).expect("plans");
    assert_eq!((of_plans.limit, of_plans.in_use), (Limit::At(7), 1));

    let again = reader.import_into(store, now).await.expect("it can be repeated");
    assert_eq!(again.known.values().sum::<u64>(), 6);
    let usage = store.get_usage(&project, &QuotaDefaults::default()).await.expect("usage");
    assert!(usage.iter().any(|usage| usage.resource == QuotaResource::Plans && usage.in_use == 1));
}

pub(crate) async fn what_is_no_old_database_is_refused(world: World) {
    let url = world.beside().await;
    let refused = OldKarbor::open(&url).await.expect_err("it is empty");
    assert!(matches!(refused, Error::Invalid { .. }), "{refused}");
}
