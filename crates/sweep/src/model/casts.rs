//! Small worlds, each around one race.

use std::num::NonZeroUsize;

use crate::model::vault::{Reach, Service, Writer};
use crate::model::world::World;
use crate::{Area, Endless, Kind, NoPatience, Patience, Result, SessionId, SweepOptions, Sweeper};

/// What writers and rewriters write to.
const STORING: &[Area] = &[Area::Sessions, Area::Packs, Area::Index, Area::Commits, Area::Acks];
/// What sweepers write to, and delete from, as long as they do not fold.
const SWEEPING: &[Area] = &[
    Area::Sweeps,
    Area::Lists,
    Area::Condemned,
    Area::Final,
    Area::Done,
    Area::Packs,
    Area::Index,
    Area::Sessions,
    Area::Deleted,
    Area::Commits,
    Area::Acks,
];
const FOLDING: &[Area] = &[Area::Folded, Area::Lists, Area::Acks];

/// Puts actors into a world.
pub(crate) type Cast = fn(&mut World, &Service);

/// All casts, for who chooses at random.
pub(crate) const ALL: &[Cast] = &[
    reading,
    writing,
    writing_partly,
    fencing,
    basing,
    committing_condemned,
    writing_for_two,
    deleting,
    rewriting,
    merging,
    folding,
    taking_over,
];

/// A reader of a commit, its deleter, a sweeper.
pub(crate) fn reading(world: &mut World, service: &Service) {
    let commit = committed(world, service, &[0]);
    delete(world, service, commit);
    read(world, service, commit);
    sweep(world, service, &Endless);
}

/// A writer that wants what nobody refers to any more, a sweeper.
pub(crate) fn writing(world: &mut World, service: &Service) {
    deleted(world, service, &[0]);
    write(world, service, Vec::new(), &[0]);
    sweep(world, service, &Endless);
}

/// A writer that wants a pack of a session of which another pack lives, so that its index objects stay; a sweeper.
pub(crate) fn writing_partly(world: &mut World, service: &Service) {
    let commit = committed(world, service, &[0, 1, 2]);
    committed(world, service, &[2]);
    world.bank.run(crate::delete(&service.place, &commit)).expect("it was committed");
    write(world, service, Vec::new(), &[0]);
    sweep(world, service, &Endless);
}

/// The same as [`writing`] with a sweeper that has no patience.
pub(crate) fn fencing(world: &mut World, service: &Service) {
    deleted(world, service, &[0]);
    write(world, service, Vec::new(), &[0]);
    sweep(world, service, &NoPatience);
}

/// A writer that leans on a base unread, the base's deleter, a sweeper.
pub(crate) fn basing(world: &mut World, service: &Service) {
    let commit = committed(world, service, &[0]);
    delete(world, service, commit);
    write(world, service, vec![commit], &[]);
    sweep(world, service, &Endless);
}

/// A commit that leans on what is condemned meanwhile, its deleter and its reader, a sweeper.
pub(crate) fn committing_condemned(world: &mut World, service: &Service) {
    deleted(world, service, &[0]);
    let commit = service.attempt(service.uuid());
    let mut writer = world.bank.run(async {
        let mut writer = begun(service, commit).await;
        writer.refer(&[0], false).await.expect("nothing is in the way");
        writer
    });
    world.spawn_writing(&[Area::Commits], async move {
        let _ = writer.put_commit().await;
    });
    delete(world, service, commit);
    read(world, service, commit);
    sweep(world, service, &Endless);
}

/// A writer and two sweepers.
pub(crate) fn writing_for_two(world: &mut World, service: &Service) {
    deleted(world, service, &[0]);
    write(world, service, Vec::new(), &[0]);
    sweep(world, service, &Endless);
    sweep(world, service, &Endless);
}

/// A deleter, a writer that wants the same, a sweeper.
pub(crate) fn deleting(world: &mut World, service: &Service) {
    let commit = committed(world, service, &[0]);
    delete(world, service, commit);
    write(world, service, Vec::new(), &[0]);
    sweep(world, service, &Endless);
}

/// A rewrite of everything, a deleter, a sweeper.
pub(crate) fn rewriting(world: &mut World, service: &Service) {
    committed(world, service, &[0]);
    let other = committed(world, service, &[0, 1]);
    delete(world, service, other);
    sweep(world, service, &Endless);
    let service = service.clone();
    world.spawn_writing(STORING, async move {
        let _ = service.rewrite(|_| true).await;
    });
}

/// A merge of the index, a writer, a sweeper.
pub(crate) fn merging(world: &mut World, service: &Service) {
    committed(world, service, &[0]);
    deleted(world, service, &[1]);
    write(world, service, Vec::new(), &[1]);
    sweep(world, service, &Endless);
    let service = service.clone();
    world.spawn_writing(&[Area::Index], async move {
        let _ = service.merge(|_| true).await;
    });
}

/// Two folds at once, a writer, a sweeper.
pub(crate) fn folding(world: &mut World, service: &Service) {
    committed(world, service, &[0]);
    for chunk in [1, 2] {
        deleted(world, service, &[chunk]);
        world.bank.run(swept(service, &Endless)).expect("nothing is in the way");
    }
    deleted(world, service, &[3]);
    for _ in 0..2 {
        let service = service.clone();
        world.spawn_writing(FOLDING, async move {
            let folded = crate::fold(&service.place, service.uuid()).await;
            let _ = service.expected(folded);
        });
    }
    write(world, service, Vec::new(), &[1]);
    sweep(world, service, &Endless);
}

/// Two attempts of one operation, a sweeper.
pub(crate) fn taking_over(world: &mut World, service: &Service) {
    deleted(world, service, &[0]);
    let operation = service.uuid();
    for _ in 0..2 {
        let service = service.clone();
        let id = service.attempt(operation);
        world.spawn_writing(STORING, async move {
            if let Ok(None) = crate::take_over(&service.place, &id, None, "test").await
                && let Ok(mut writer) = service.begin_writer(id, Kind::Writer, Vec::new()).await
            {
                let _ = store(&mut writer, &[0]).await;
            }
        });
    }
    sweep(world, service, &Endless);
}

/// Commits chunks before the others come.
pub(crate) fn committed(world: &World, service: &Service, chunks: &[u8]) -> SessionId {
    let id = service.attempt(service.uuid());
    world.bank.run(async {
        let mut writer = begun(service, id).await;
        writer.refer(chunks, false).await.expect("nothing is in the way");
        writer.commit().await.expect("nothing is in the way");
    });
    id
}

/// Commits chunks and deletes the commit before the others come.
pub(crate) fn deleted(world: &World, service: &Service, chunks: &[u8]) -> SessionId {
    let commit = committed(world, service, chunks);
    world.bank.run(crate::delete(&service.place, &commit)).expect("it was committed");
    commit
}

async fn begun(service: &Service, id: SessionId) -> Writer {
    service.begin_writer(id, Kind::Writer, Vec::new()).await.expect("nothing is in the way")
}

fn delete(world: &mut World, service: &Service, commit: SessionId) {
    let service = service.clone();
    world.spawn_writing(&[Area::Deleted], async move {
        let deleted = crate::delete(&service.place, &commit).await;
        let _ = service.expected(deleted);
    });
}

fn read(world: &mut World, service: &Service, commit: SessionId) {
    let service = service.clone();
    world.spawn_writing(&[Area::Sessions, Area::Commits], async move {
        let _ = service.read(commit).await;
    });
}

fn write(world: &mut World, service: &Service, pins: Vec<SessionId>, chunks: &'static [u8]) {
    let service = service.clone();
    let id = service.attempt(service.uuid());
    world.spawn_writing(STORING, async move {
        let begun = service.begin_writer(id, Kind::Writer, pins).await;
        if let Ok(mut writer) = begun {
            let _ = store(&mut writer, chunks).await;
        }
    });
}

/// Refers to chunks, or without any to those of the base, and commits.
async fn store(writer: &mut Writer, chunks: &[u8]) -> Result<()> {
    if chunks.is_empty() {
        writer.lean_on_base();
    }
    writer.refer(chunks, false).await?;
    writer.commit().await.map(|_| ())
}

fn sweep(world: &mut World, service: &Service, patience: &'static dyn Patience) {
    let service = service.clone();
    world.spawn_writing(SWEEPING, async move {
        // One that waits is begun again, but not for ever.
        for _ in 0..3 {
            match service.expected(swept(&service, patience).await) {
                Ok(report) if report.progress == crate::Progress::Waiting => {}
                _ => return,
            }
        }
    });
}

async fn swept(service: &Service, patience: &dyn Patience) -> Result<crate::SweepReport> {
    let reach = Reach { place: service.place.clone() };
    let options = SweepOptions { parallel: NonZeroUsize::MIN, ..SweepOptions::default() };
    Sweeper::new(&service.place, &reach, patience, options).sweep(service.uuid()).await
}
