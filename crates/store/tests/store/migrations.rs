//! The schema's versions.

use karbor_store::{Engine, Error};

use crate::kit::{World, open};
use crate::rows::{UNLIMITED, at, plan, project};

/// The newest version.
const NEWEST: u32 = 10;

pub(crate) async fn migrating_twice_or_at_once_is_harmless(world: World) {
    world.store.create_plan(&plan(1, "p"), &UNLIMITED).await.expect("created");
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let store = world.other().await;
        tasks.push(tokio::spawn(async move { store.migrate().await }));
    }
    for task in tasks {
        task.await.expect("no panic").expect("migrated");
    }
    assert_eq!(world.store.version().await.expect("read"), NEWEST);
    world.store.check_version().await.expect("the right one");
    world.store.ping().await.expect("it answers");
    world.store.get_plan(plan(1, "p").id).await.expect("still there");
}

pub(crate) async fn a_newer_schema_is_refused(world: World) {
    let newer = NEWEST + 1;
    world.run(&format!("INSERT INTO karbor_schema (version) VALUES ({newer})")).await;
    for refused in [world.store.migrate().await, world.store.check_version().await] {
        let Err(Error::NewerSchema { found, known: NEWEST }) = refused else { panic!("{refused:?}") };
        assert_eq!(found, newer);
    }
    let text = world.store.migrate().await.expect_err("refused").to_string();
    assert!(
        text.contains(&format!("version {newer}")) && text.contains(&format!("version {NEWEST}")),
        "{text}"
    );
}

/// On a database that nobody has touched yet.
pub(crate) async fn an_empty_database_is_migrated_and_a_foreign_one_left_alone(url: String) {
    let store = open(&url).await;
    assert_eq!(store.version().await.expect("read"), 0);
    let early = store.check_version().await;
    assert!(matches!(early, Err(Error::OlderSchema { found: 0, known: NEWEST })), "{early:?}");

    crate::kit::run(&url, "CREATE TABLE migrate_version (version INTEGER)").await;
    let refused = store.migrate().await;
    assert!(matches!(refused, Err(Error::ForeignSchema { table: "migrate_version" })), "{refused:?}");
    assert_eq!(store.version().await.expect("read"), 0);
    crate::kit::run(&url, "DROP TABLE migrate_version").await;

    let mut tasks = Vec::new();
    for _ in 0..4 {
        let store = open(&url).await;
        tasks.push(tokio::spawn(async move { store.migrate().await }));
    }
    for task in tasks {
        task.await.expect("no panic").expect("migrated, or waited for");
    }
    assert_eq!(store.version().await.expect("read"), NEWEST);
    store.create_plan(&plan(1, "p"), &UNLIMITED).await.expect("it can be used");
    if store.engine() == Engine::Mysql {
        // Its definitions are not part of a transaction: a migration may have been cut off before its last step.
        crate::kit::run(&url, "DELETE FROM karbor_schema").await;
        crate::kit::run(&url, "DROP TABLE quota_usages").await;
        assert_eq!(store.version().await.expect("read"), 0);
        store.migrate().await.expect("it goes on");
        assert_eq!(store.version().await.expect("read"), NEWEST);
        store.recount_usage(&project("p")).await.expect("the table is back");
    }
    store.delete_plan(plan(1, "p").id, at(1)).await.expect("it can be used");
}

#[tokio::test]
async fn an_empty_file_is_migrated_and_a_foreign_one_left_alone() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let url = format!("sqlite:{}", directory.path().join("karbor.db").display());
    an_empty_database_is_migrated_and_a_foreign_one_left_alone(url).await;
}

#[tokio::test]
async fn a_database_in_memory_works_like_a_file() {
    let store = open("sqlite::memory:").await;
    store.migrate().await.expect("migrated");
    store.create_plan(&plan(1, "p"), &UNLIMITED).await.expect("created");
    let clone = store.clone();
    drop(store);
    assert_eq!(clone.get_plan(plan(1, "p").id).await.expect("found"), plan(1, "p"));
    let another = open("sqlite::memory:").await;
    assert_eq!(another.version().await.expect("read"), 0, "each one is its own");
}

#[tokio::test]
async fn urls_that_name_no_database_are_refused_without_their_password() {
    for url in [
        "",
        "karbor.db",
        "oracle://u:hunter2@h/d",
        "sqlite:",
        "postgres://u:hunter2@[/d",
        "mysql://u:hunter2@[/d",
    ] {
        let refused = karbor_store::Store::open(url, &Default::default()).await;
        let Err(error @ Error::Url { .. }) = refused else { panic!("{url}: {refused:?}") };
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
}
