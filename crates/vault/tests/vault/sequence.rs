//! Any sequence of backup, delete, sweep and crash, by several writers: what is committed is readable, what is deleted
//! is freed in the end. Without faults, and with a bank that loses replies, breaks connections and fills up.

use std::collections::BTreeMap;
use std::sync::Arc;

use karbor_bank::wrap::{Fault, Faulty, Operation, Rule};
use karbor_bank::{Bank, MemoryBank};
use karbor_vault::{
    Account, BeginOptions, BlockOptions, CheckpointReader, CheckpointWriter, ErrorKind, SweepOptions,
    VerifyMode,
};
use proptest::prelude::*;

use crate::support::{
    Bytes, account_id, account_in, checkpoint, master, noise, options, read_stream, resource, session,
};

const CHUNK: u32 = 64 << 10;

/// What happens next; numbers choose among what there is.
#[derive(Debug, Clone)]
enum Op {
    /// A writer begins, with or without the latest checkpoint as its base.
    Begin {
        base: bool,
    },
    /// A writer stores the source as it is now.
    Put {
        writer: usize,
    },
    /// The source changes.
    Change {
        piece: usize,
        seed: u64,
    },
    /// A writer answers sweeps.
    Answer {
        writer: usize,
    },
    Commit {
        writer: usize,
    },
    /// A writer is gone without a word.
    Crash {
        writer: usize,
    },
    /// The next attempt of an operation whose writer is gone or merely slow.
    TakeOver {
        writer: usize,
    },
    Delete {
        checkpoint: usize,
    },
    /// A sweep that may fence nobody.
    Sweep,
    /// A sweep that fences whoever is silent.
    SweepAll,
    /// A reader opens a checkpoint, and reads it later, when it may be deleted.
    Open {
        checkpoint: usize,
    },
    Read,
    /// Another process: the account is opened anew.
    Restart,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let some = 0..4usize;
    let op = prop_oneof![
        3 => any::<bool>().prop_map(|base| Op::Begin { base }),
        4 => some.clone().prop_map(|writer| Op::Put { writer }),
        3 => (0..24usize, 1..6u64).prop_map(|(piece, seed)| Op::Change { piece, seed }),
        2 => some.clone().prop_map(|writer| Op::Answer { writer }),
        4 => some.clone().prop_map(|writer| Op::Commit { writer }),
        1 => some.clone().prop_map(|writer| Op::Crash { writer }),
        1 => some.clone().prop_map(|writer| Op::TakeOver { writer }),
        3 => some.clone().prop_map(|checkpoint| Op::Delete { checkpoint }),
        3 => Just(Op::Sweep),
        1 => Just(Op::SweepAll),
        1 => some.prop_map(|checkpoint| Op::Open { checkpoint }),
        1 => Just(Op::Read),
        1 => Just(Op::Restart),
    ];
    prop::collection::vec(op, 1..40)
}

struct Writer {
    n: u128,
    epoch: u32,
    writer: CheckpointWriter,
    stored: Option<Vec<u8>>,
}

struct World {
    bank: Arc<dyn Bank>,
    account: Account,
    source: Vec<u8>,
    writers: Vec<Writer>,
    /// What must be readable.
    committed: BTreeMap<u128, Vec<u8>>,
    /// What a failed commit may have committed.
    unsure: BTreeMap<u128, Vec<u8>>,
    reader: Option<(CheckpointReader, Vec<u8>)>,
    next: u128,
    /// Faults are on: any call may fail, and then nothing is expected of it.
    faults: bool,
}

fn fencing(all: bool) -> SweepOptions {
    SweepOptions { may_fence: Some(Arc::new(move |_: &str| all)), ..SweepOptions::default() }
}

impl World {
    async fn new(bank: Arc<dyn Bank>, faults: bool) -> Self {
        let account = account_in(bank.clone()).await;
        Self {
            bank,
            account,
            source: noise(1, 24 * CHUNK as usize),
            writers: Vec::new(),
            committed: BTreeMap::new(),
            unsure: BTreeMap::new(),
            reader: None,
            next: 1,
            faults,
        }
    }

    fn expect<T>(&self, what: &str, result: karbor_vault::Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            // Losing a race is no failure of the engine.
            Err(err) if matches!(err.kind(), ErrorKind::Fenced | ErrorKind::AlreadyCommitted) => None,
            Err(_) if self.faults => None,
            Err(err) => panic!("{what}: {err:?}"),
        }
    }

    async fn step(&mut self, op: &Op) {
        match *op {
            Op::Begin { base } => {
                if self.writers.len() >= 4 {
                    return;
                }
                let base = base.then(|| self.committed.keys().next_back().copied()).flatten();
                let n = self.next;
                self.next += 1;
                self.begin(n, 1, base).await;
            }
            Op::Change { piece, seed } => {
                let at = piece * CHUNK as usize;
                self.source[at..at + CHUNK as usize].copy_from_slice(&noise(seed, CHUNK as usize));
            }
            Op::Put { writer } => {
                let bytes = self.source.clone();
                let faults = self.faults;
                let Some(own) = self.writers.get_mut(writer) else { return };
                let volume = own.writer.resource(&resource("v"));
                let options = BlockOptions { chunk_bytes: Some(CHUNK), ..BlockOptions::default() };
                own.stored = None;
                match volume.put_blocks("data", Bytes::new(bytes.clone()), &options).await {
                    Ok(_) => own.stored = Some(bytes),
                    Err(err) if faults || err.kind() == ErrorKind::Fenced => {}
                    Err(err) => panic!("storing: {err:?}"),
                }
            }
            Op::Answer { writer } => {
                let Some(own) = self.writers.get(writer) else { return };
                let answered = own.writer.check_sweeps().await;
                self.expect("answering", answered);
            }
            Op::Commit { writer } => self.commit(writer).await,
            Op::Crash { writer } => {
                if writer < self.writers.len() {
                    self.writers.remove(writer);
                }
            }
            Op::TakeOver { writer } => {
                let Some(own) = self.writers.get(writer) else { return };
                let (n, epoch) = (own.n, own.epoch + 1);
                // The slow one stays, and may try to commit.
                self.begin(n, epoch, None).await;
            }
            Op::Delete { checkpoint: nth } => {
                let Some(n) = self.committed.keys().nth(nth).copied() else { return };
                let bytes = self.committed.remove(&n);
                let deleted = self.account.delete(checkpoint(n)).await;
                if self.expect("deleting", deleted).is_none() {
                    // It may or may not be deleted: try until it is known.
                    if let Some(bytes) = bytes {
                        self.unsure.insert(n, bytes);
                    }
                }
            }
            Op::Sweep | Op::SweepAll => {
                let all = matches!(op, Op::SweepAll);
                let swept = self.account.sweep(&fencing(all)).await;
                self.expect("sweeping", swept);
            }
            Op::Open { checkpoint: nth } => {
                let Some((n, bytes)) = self.committed.iter().nth(nth) else { return };
                let (n, bytes) = (*n, bytes.clone());
                let opened = self.account.read(checkpoint(n)).await;
                self.reader = self.expect("opening", opened).map(|reader| (reader, bytes));
            }
            Op::Read => {
                let Some((reader, bytes)) = self.reader.take() else { return };
                let stream = reader.open_stream(&resource("v"), "data").await.expect("the stream");
                let mut out = Vec::new();
                let read = stream.copy_out(&mut out, &Default::default()).await;
                if self.expect("reading what was opened", read).is_some() {
                    assert!(out == bytes, "what was opened reads differently");
                }
            }
            Op::Restart => {
                self.account =
                    match Account::open(self.bank.clone(), account_id("a"), &[master(1)], options()).await {
                        Ok(account) => account,
                        Err(_) if self.faults => return,
                        Err(err) => panic!("opening again: {err:?}"),
                    };
            }
        }
    }

    async fn begin(&mut self, n: u128, epoch: u32, base: Option<u128>) {
        let begun =
            self.account.begin(&session(n, epoch), &BeginOptions { base: base.map(checkpoint) }).await;
        if let Err(karbor_vault::Error::AlreadyCommitted(info)) = &begun {
            assert!(self.committed.contains_key(&info.id.0.as_u128()) || self.unsure.contains_key(&n));
        }
        if matches!(begun.as_ref().map_err(karbor_vault::Error::kind), Err(ErrorKind::NotFound)) {
            // An attempt had committed, and that was deleted.
            return;
        }
        if let Some(writer) = self.expect("beginning", begun) {
            self.writers.push(Writer { n, epoch, writer, stored: None });
        }
    }

    async fn commit(&mut self, writer: usize) {
        if self.writers.get(writer).is_none_or(|own| own.stored.is_none()) {
            return;
        }
        let own = self.writers.remove(writer);
        let Some(bytes) = own.stored else { return };
        let id = checkpoint(own.n);
        match own.writer.commit(id, Default::default(), serde_json::Value::Null).await {
            Ok(_) => {
                self.unsure.remove(&own.n);
                self.committed.insert(own.n, bytes);
            }
            Err(err) if err.kind() == ErrorKind::Fenced => {}
            Err(_) if self.faults => {
                self.unsure.entry(own.n).or_insert(bytes);
            }
            Err(err) => panic!("committing: {err:?}"),
        }
    }

    /// Says that everything that is committed can be read.
    async fn check(&self, account: &Account) {
        for (n, bytes) in &self.committed {
            assert!(
                read_stream(account, *n, &resource("v"), "data").await == *bytes,
                "checkpoint {n} differs"
            );
        }
        for info in account.checkpoints().await.expect("listed") {
            let n = info.id.0.as_u128();
            let expected = self.committed.get(&n).or_else(|| self.unsure.get(&n));
            assert!(expected.is_some(), "checkpoint {n} was never committed");
            let report =
                account.verify(info.id, VerifyMode::All, &Default::default()).await.expect("verified");
            assert!(report.is_whole(), "checkpoint {n}: {report:?}");
        }
    }
}

fn packs(bank: &MemoryBank) -> usize {
    bank.contents().iter().filter(|(key, _)| key.as_str().contains("/packs/")).count()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn what_is_committed_is_readable_and_what_is_deleted_is_freed(ops in ops()) {
        run(async {
            let bank = MemoryBank::new();
            let mut world = World::new(Arc::new(bank.clone()), false).await;
            for op in &ops {
                world.step(op).await;
                if matches!(op, Op::Sweep | Op::SweepAll | Op::Commit { .. } | Op::Delete { .. }) {
                    world.check(&world.account).await;
                }
            }
            world.writers.clear();
            world.reader = None;
            for n in world.committed.keys() {
                world.account.delete(checkpoint(*n)).await.expect("deleted");
            }
            for _ in 0..3 {
                world.account.sweep(&fencing(true)).await.expect("swept");
            }
            assert_eq!(packs(&bank), 0, "everything is deleted, so nothing may be left");
        });
    }

    #[test]
    fn faults_cost_work_and_never_a_checkpoint(ops in ops(), seed in any::<u64>(), chance in 0.0..0.08f64) {
        run(async {
            let bank = MemoryBank::new();
            let faulty = Arc::new(Faulty::new(Arc::new(bank.clone()), seed));
            let mut world = World::new(faulty.clone(), true).await;
            faulty.add(Rule::new(Fault::LoseReply).chance(chance));
            faulty.add(Rule::new(Fault::Torn).chance(chance / 2.0));
            faulty.add(Rule::new(Fault::FULL).on(Operation::Put).chance(chance / 4.0));
            for op in &ops {
                world.step(op).await;
            }
            faulty.heal();
            // Another process, when the bank is well again.
            let account = account_in(Arc::new(bank.clone())).await;
            world.check(&account).await;
            for n in 1..world.next {
                account.delete(checkpoint(n)).await.expect("deleted");
            }
            world.writers.clear();
            world.reader = None;
            for _ in 0..4 {
                account.sweep(&fencing(true)).await.expect("swept");
            }
            assert_eq!(packs(&bank), 0, "everything is deleted, so nothing may be left");
        });
    }
}

/// Rotation is killed before each of its calls to the bank: at every moment a key opens the account.
#[tokio::test]
async fn a_rotation_that_is_killed_anywhere_leaves_a_key_that_opens() {
    let mut calls = 0;
    loop {
        let bank = MemoryBank::new();
        let faulty = Arc::new(Faulty::new(Arc::new(bank.clone()), 1));
        let account = account_in(faulty.clone()).await;
        faulty.add(Rule::new(Fault::Refuse(karbor_bank::ErrorKind::Unavailable)).at(calls..u64::MAX));
        let rotated = account.rotate(&[master(1)], &master(2)).await;
        let keys = [master(1), master(2)];
        let open = |keys| Account::open(Arc::new(bank.clone()), account_id("a"), keys, options());
        open(&keys).await.expect("one of the keys opens");
        if rotated.is_ok() {
            open(&keys[1..]).await.expect("the new key opens");
            assert!(open(&keys[..1]).await.is_err());
            break;
        }
        calls += 1;
    }
    assert!(calls >= 3, "there were {calls} calls");
}

/// Creating an account is killed before each of its calls: trying again creates or finds it.
#[tokio::test]
async fn a_creation_that_is_killed_anywhere_can_be_repeated_by_anybody() {
    for other in [1, 2] {
        let mut calls = 0;
        loop {
            let bank = MemoryBank::new();
            let faulty = Arc::new(Faulty::new(Arc::new(bank.clone()), 1));
            faulty.add(Rule::new(Fault::Refuse(karbor_bank::ErrorKind::Unavailable)).at(calls..u64::MAX));
            let created = Account::create(faulty, account_id("a"), &master(1), options()).await.is_ok();
            let keys = if created { [master(1)] } else { [master(other)] };
            let account =
                Account::open_or_create(Arc::new(bank.clone()), account_id("a"), &keys, options()).await;
            account.unwrap_or_else(|err| panic!("after {calls} calls, key {other}: {err:?}"));
            if created {
                break;
            }
            calls += 1;
        }
        assert!(calls >= 2, "there were {calls} calls");
    }
}
