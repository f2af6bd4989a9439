//! What was acknowledged is there after a `kill -9`, and what was not is there whole or not at all.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use karbor_store::{Error, QuotaResource, Store};
use karbor_types::{CheckpointId, OperationId};

use crate::kit::open;
use crate::rows::{UNLIMITED, at, checkpoint, project, protect, used, uuid};

/// Set in the process that writes until it is killed.
const WRITES_TO: &str = "KARBOR_TEST_WRITES_TO";
const FIRST: &str = "KARBOR_TEST_FIRST";

const ROUNDS: u128 = 6;

/// The test starts itself again as the process that is to be killed.
#[tokio::test]
async fn acknowledged_writes_survive_kill_9() {
    if let Ok(url) = std::env::var(WRITES_TO) {
        let first = std::env::var(FIRST).expect("both are set").parse().expect("a number");
        write_for_ever(&open(&url).await, first).await;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let url = format!("sqlite:{}", directory.path().join("karbor.db").display());
    let store = open(&url).await;
    store.migrate().await.expect("migrated");
    store.close().await;
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let first = round * 1_000_000;
        acknowledged.extend(write_and_kill(&url, first, 20 + 7 * usize::try_from(round).expect("small")));
        let store = open(&url).await;
        check(&store, &acknowledged).await;
        store.close().await;
    }
    assert!(!acknowledged.is_empty());
    assert!(Path::new(url.trim_start_matches("sqlite:")).exists());
}

/// Writes checkpoint after checkpoint and tells of each when the store has said that it stands.
async fn write_for_ever(store: &Store, first: u128) -> ! {
    let mut number = first;
    loop {
        let new = checkpoint(number, "p");
        store.create_checkpoint(&new, &protect(&new), &UNLIMITED, at(0)).await.expect("written");
        writeln!(std::io::stdout(), "stands {number}").expect("a reader");
        number += 1;
    }
}

/// Returns what was acknowledged before the process was killed in the middle of something.
fn write_and_kill(url: &str, first: u128, enough: usize) -> Vec<u128> {
    let program = std::env::current_exe().expect("this program");
    let mut child: Child = Command::new(program)
        .args(["--exact", "crash::acknowledged_writes_survive_kill_9", "--nocapture", "--test-threads=1"])
        .env(WRITES_TO, url)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("a second process");
    let output = child.stdout.take().expect("it is piped");
    let mut stands = Vec::new();
    for line in BufReader::new(output).lines() {
        let Ok(line) = line else { break };
        // The test runner's own lines come before, and a last line may have been cut.
        let number: Option<u128> = line.split_once("stands ").and_then(|(_, number)| number.parse().ok());
        stands.extend(number);
        if stands.len() == enough {
            child.kill().expect("killed");
        }
    }
    child.wait().expect("ended");
    assert!(stands.len() >= enough, "it ended by itself after {} writes", stands.len());
    stands
}

async fn check(store: &Store, acknowledged: &[u128]) {
    for &number in acknowledged {
        let id = CheckpointId(uuid(number));
        let there = store.get_checkpoint(id).await.expect("what was acknowledged is there");
        assert_eq!(there.plan, checkpoint(number, "p").plan);
        store.get_operation(OperationId(id.0)).await.expect("with its operation");
    }
    // What came after the last acknowledged one stands whole or not at all.
    for next in acknowledged.iter().map(|number| number + 1).filter(|next| !acknowledged.contains(next)) {
        let checkpoint = store.get_checkpoint(CheckpointId(uuid(next))).await.map(drop);
        let operation = store.get_operation(OperationId(uuid(next))).await.map(drop);
        let log =
            store.get_operation_log(karbor_types::OperationLogId(uuid(next + (1 << 64)))).await.map(drop);
        assert_eq!(checkpoint.is_ok(), operation.is_ok(), "{checkpoint:?} {operation:?}");
        assert_eq!(checkpoint.is_ok(), log.is_ok(), "{checkpoint:?} {log:?}");
        assert!(checkpoint.is_ok() || matches!(checkpoint, Err(Error::NotFound { .. })));
    }
    assert!(!store.recount_usage(&project("p")).await.expect("counted"), "usage is what stands");
    let (in_use, reserved) = used(store, "p", QuotaResource::Checkpoints).await;
    assert_eq!(in_use, 0);
    assert!(reserved >= u64::try_from(acknowledged.len()).expect("few"));
}
