//! Each operation is killed at each of its calls, or loses the reply to it, and is then begun again: it ends as if
//! nothing had happened.

use std::pin::Pin;

use karbor_types::Epoch;
use uuid::Uuid;

use crate::model::bank::{Fate, ModelBank, Trouble};
use crate::model::casts::{committed, deleted};
use crate::model::rest::settle;
use crate::model::vault::{Reach, Service};
use crate::model::world::World;
use crate::{
    CommitOutcome, Kind, NoPatience, ReaderSession, Result, SessionId, SessionRecord, SweepOptions,
    SweepReport, Sweeper,
};

type Doing<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// An operation, and how it is gone on with: the same way, by the next attempt.
struct Operation {
    name: &'static str,
    attempt: for<'a> fn(&'a Scene, Epoch) -> Doing<'a>,
}

/// A bank in which much has happened.
struct Scene {
    bank: ModelBank,
    service: Service,
    /// Lives, to be deleted and read.
    victim: SessionId,
    /// The operation of the writer.
    operation: Uuid,
}

const OPERATIONS: &[Operation] = &[
    Operation { name: "sweep", attempt: |scene, _| Box::pin(async { sweep(scene).await.map(|_| ()) }) },
    Operation {
        name: "delete",
        attempt: |scene, _| {
            Box::pin(async { crate::delete(&scene.service.place, &scene.victim).await.map(|_| ()) })
        },
    },
    Operation { name: "write", attempt: |scene, epoch| Box::pin(write(scene, epoch)) },
    Operation { name: "read", attempt: |scene, epoch| Box::pin(read(scene, epoch)) },
    Operation { name: "rewrite", attempt: |scene, _| Box::pin(scene.service.rewrite(|_| true)) },
    Operation { name: "merge", attempt: |scene, _| Box::pin(scene.service.merge(|_| true)) },
    Operation {
        name: "fold",
        attempt: |scene, _| {
            Box::pin(async { crate::fold(&scene.service.place, scene.service.uuid()).await.map(|_| ()) })
        },
    },
];

impl Scene {
    fn new() -> Self {
        let bank = ModelBank::default();
        let world = World::new(bank.clone());
        let service = Service::new(&bank, &world.place);
        let scene = Self {
            victim: committed(&world, &service, &[0, 1, 2]),
            operation: service.uuid(),
            bank: bank.clone(),
            service: service.clone(),
        };
        // One that went half: it is fenced, and what it has stored is of use to others.
        let silent = service.attempt(service.uuid());
        bank.run(async {
            let mut writer =
                service.begin_writer(silent, Kind::Writer, Vec::new()).await.expect("nothing is in the way");
            writer.refer(&[3, 4], false).await.expect("nothing is in the way");
        });
        for chunks in [[0, 5], [3, 5], [6, 7]] {
            deleted(&world, &service, &chunks);
            let swept = bank.run(sweep(&scene)).expect("nothing is in the way");
            assert_eq!(swept.progress, crate::Progress::Done);
        }
        committed(&world, &service, &[1, 3]);
        deleted(&world, &service, &[2, 5, 8]);
        // One that is at work all the time: the sweep waits for it, and fences it.
        let slow = service.attempt(service.uuid());
        bank.run(service.begin_writer(slow, Kind::Writer, Vec::new())).expect("nothing is in the way");
        scene
    }

    fn living(&self) -> Vec<(Uuid, Vec<u8>)> {
        self.service.oracle(|oracle| oracle.living().map(|(s, refs)| (s.operation, refs.clone())).collect())
    }
}

async fn sweep(scene: &Scene) -> Result<SweepReport> {
    let reach = Reach { place: scene.service.place.clone() };
    let sweeper = Sweeper::new(&scene.service.place, &reach, &NoPatience, SweepOptions::default());
    sweeper.sweep(scene.service.uuid()).await
}

async fn write(scene: &Scene, epoch: Epoch) -> Result<()> {
    let service = &scene.service;
    let id = SessionId::new(scene.operation, epoch);
    if crate::take_over(&service.place, &id, None, "test").await?.is_some() {
        return Ok(());
    }
    let mut writer = service.begin_writer(id, Kind::Writer, vec![scene.victim]).await?;
    writer.lean_on_base();
    writer.refer(&[2, 3, 5, 9], false).await?;
    assert_eq!(writer.commit().await?, CommitOutcome::Committed);
    Ok(())
}

async fn read(scene: &Scene, epoch: Epoch) -> Result<()> {
    let id = SessionId::new(Uuid::from_u128(u128::MAX), epoch);
    let place = &scene.service.place;
    crate::take_over(place, &id, Some(Kind::Reader), "test").await?;
    let record = SessionRecord::new(Kind::Reader, vec![scene.victim], "nonce");
    ReaderSession::begin(place, id, record).await?.close().await
}

/// Does an operation with trouble at one of its calls, and goes on with it until it is done. Returns whether the
/// trouble came.
fn troubled(operation: &Operation, at: usize, trouble: Trouble) -> Result<bool, String> {
    let scene = Scene::new();
    let bank = &scene.bank;
    let first = bank.run_troubled((operation.attempt)(&scene, Epoch(0)), Some((at, trouble)));
    let came = bank.inner().trouble.take().is_none_or(|(left, _)| left == 0 && first.is_none());
    if !matches!(first, Some(Ok(()))) {
        let again = bank.run((operation.attempt)(&scene, Epoch(1)));
        again.map_err(|error| format!("begun again: {error:?}"))?;
    }
    // What was believed lost arrives after all.
    while !bank.inner().late.is_empty() {
        bank.arrive(0);
    }
    settle(bank, &scene.service)?;
    let expected = expected(operation);
    if scene.living() != expected {
        return Err(format!("{:?} live instead of {expected:?}", scene.living()));
    }
    Ok(came)
}

/// Returns what lives after the operation if nothing goes wrong.
fn expected(operation: &Operation) -> Vec<(Uuid, Vec<u8>)> {
    let scene = Scene::new();
    scene.bank.run((operation.attempt)(&scene, Epoch(0))).expect("nothing is in the way");
    scene.living()
}

#[test]
fn what_is_stopped_or_unheard_at_any_call_ends_as_if_nothing_had_happened() {
    for operation in OPERATIONS {
        for trouble in [
            Trouble::Killed,
            Trouble::Fate(Fate::ReplyLost),
            Trouble::Fate(Fate::RequestLost),
            Trouble::Fate(Fate::Late),
        ] {
            let mut calls = 0;
            loop {
                match troubled(operation, calls, trouble) {
                    Ok(true) => calls += 1,
                    Ok(false) => break,
                    Err(what) => panic!("{} with {trouble:?} at call {calls}: {what}", operation.name),
                }
            }
            assert!(calls > 5, "{} has only {calls} calls", operation.name);
        }
    }
}
