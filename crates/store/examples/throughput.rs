//! Measures what a worker asks of the store: `cargo run --release -p karbor-store --example throughput [URL]`.
//!
//! Without a URL it measures SQLite in a temporary directory of the current one (so that it is on a real disk).
#![expect(clippy::print_stdout, reason = "it is there to print figures")]

use std::future::Future;
use std::time::Instant as Clock;

use karbor_store::{
    ClaimOptions, Finish, LedgerPurpose, NewLedgerEntry, NewOperation, NewStep, Result, StepChange, StepEnd,
    Store, StoreOptions, SubjectChange,
};
use karbor_types::{Instant, OperationId, OperationKind, OperationState, ProjectId, ResourceKey, StepState};
use serde_json::{Value, json};
use uuid::Uuid;

const RESOURCES: u32 = 1000;
const HOOKS: [&str; 4] = ["prepare_begin", "prepare_finish", "main", "complete"];
const NOW: Instant = Instant::from_micros(1_767_225_600_000_000);

#[tokio::main]
async fn main() -> Result<()> {
    let directory = tempfile::tempdir_in(".").expect("a temporary directory here");
    let own = format!("sqlite:{}", directory.path().join("karbor.db").display());
    let url = std::env::args().nth(1).unwrap_or(own);
    let store = Store::open(&url, &StoreOptions::default()).await?;
    store.migrate().await?;
    for batch in [4000, 256, 64, 16] {
        timed(&format!("4000 steps, {batch} changes to a transaction"), steps(&store, batch)).await?;
    }
    timed("100 steps, each start and each end in its own transaction", single_steps(&store)).await?;
    timed("100 entries of a ledger, intended and created", ledger(&store)).await?;
    timed("100 operations queued, claimed and ended", operations(&store)).await?;
    store.close().await;
    Ok(())
}

async fn timed(what: &str, work: impl Future<Output = Result<()>>) -> Result<()> {
    let started = Clock::now();
    work.await?;
    println!("{:>8.1} ms  {what}", started.elapsed().as_secs_f64() * 1000.0);
    Ok(())
}

fn new_operation() -> NewOperation {
    NewOperation {
        id: OperationId(Uuid::new_v4()),
        kind: OperationKind::Sweep,
        project: ProjectId::new("p").expect("a valid id"),
        user: None,
        plan: None,
        checkpoint: None,
        restore: None,
        verification: None,
        provider: None,
        priority: 0,
        due_at: NOW,
        request: Value::Null,
        log: None,
        scheduled_operation: None,
        occurrence: None,
    }
}

fn claim_options() -> ClaimOptions {
    let kinds = OperationKind::ALL.to_vec();
    ClaimOptions { owner: "measure".to_owned(), lease_seconds: 60, kinds, skip_projects: Vec::new() }
}

async fn claimed(store: &Store) -> Result<karbor_store::Claim> {
    store.create_operation(&new_operation(), NOW).await?;
    Ok(store.claim(&claim_options(), NOW).await?.expect("one is due").claim)
}

async fn finish(store: &Store, claim: &karbor_store::Claim) -> Result<()> {
    let end = Finish {
        state: OperationState::Succeeded,
        reason: None,
        result: Value::Null,
        subject: SubjectChange::None,
        extra_info: Value::Null,
    };
    store.finish(claim, &end, NOW).await
}

fn end(ordinal: u32) -> StepEnd {
    // One hook in four leaves something that is unlike all others.
    let outcome =
        if ordinal % 4 == 2 { json!({"stream": ordinal, "root": "0".repeat(64)}) } else { Value::Null };
    StepEnd { state: StepState::Done, outcome, reason: None, progress: None }
}

fn new_steps() -> Vec<NewStep> {
    let step = |(ordinal, (resource, hook)): (u32, (u32, &str))| NewStep {
        resource: ResourceKey::new("OS::Cinder::Volume", Uuid::from_u128(u128::from(resource)).to_string()),
        hook: hook.to_owned(),
        ordinal,
    };
    let all = (0..RESOURCES).flat_map(|resource| HOOKS.into_iter().map(move |hook| (resource, hook)));
    (0u32..).zip(all).map(step).collect()
}

async fn steps(store: &Store, batch: usize) -> Result<()> {
    let claim = claimed(store).await?;
    let new = new_steps();
    store.save_steps(&claim, &new).await?;
    let changes: Vec<StepChange> = new
        .iter()
        .flat_map(|step| {
            let ordinal = step.ordinal;
            [StepChange::Started { ordinal }, StepChange::Finished { ordinal, end: end(ordinal) }]
        })
        .collect();
    for some in changes.chunks(batch) {
        store.record_steps(&claim, some, NOW).await?;
    }
    finish(store, &claim).await
}

async fn single_steps(store: &Store) -> Result<()> {
    let claim = claimed(store).await?;
    store.save_steps(&claim, &new_steps()[..100]).await?;
    for ordinal in 0..100 {
        store.step_started(&claim, ordinal, NOW).await?;
        store.step_finished(&claim, ordinal, end(ordinal), NOW).await?;
    }
    finish(store, &claim).await
}

async fn ledger(store: &Store) -> Result<()> {
    let claim = claimed(store).await?;
    for number in 0..100 {
        let entry = NewLedgerEntry {
            resource: ResourceKey::new("OS::Cinder::Volume", number.to_string()),
            kind: "snapshot".to_owned(),
            reference: format!("karbor-{number}"),
            purpose: LedgerPurpose::Scaffold,
            data: Value::Null,
        };
        let id = store.ledger_intend(&claim, &entry, NOW).await?;
        store.ledger_created(&claim, id, "snap", NOW).await?;
    }
    finish(store, &claim).await
}

async fn operations(store: &Store) -> Result<()> {
    for _ in 0..100 {
        let claim = claimed(store).await?;
        finish(store, &claim).await?;
    }
    Ok(())
}
