//! Many callers at once.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use tokio::sync::Barrier;
use tokio::task::JoinHandle;

use crate::conformance::random::Random;
use crate::conformance::{Place, body};
use crate::{Bank, ErrorKind, PutMode};

/// Of any number of create-only puts under one key exactly one succeeds, and its bytes stand.
///
/// # Panics
/// When none or several do.
pub async fn creates_race_with_one_winner(bank: &Arc<dyn Bank>, racers: usize, races: usize) {
    let place = Place::enter(bank, "creates-race-with-one-winner").await;
    for race in 0..races {
        // Large and small objects; in a directory that is new each time, which races as well.
        let size = if race % 4 == 0 { 200_000 } else { 10 };
        let key = place.key(&format!("race-{race}/k"));
        let start = Arc::new(Barrier::new(racers));
        let tasks = (0..racers).map(|racer| {
            let (bank, key, start) = (Arc::clone(bank), key.clone(), Arc::clone(&start));
            tokio::spawn(async move {
                let bytes = Bytes::from(format!("{racer:02}").repeat(size));
                start.wait().await;
                (bytes.clone(), bank.put(&key, vec![bytes], PutMode::Create).await)
            })
        });
        let mut winners = Vec::new();
        for (bytes, outcome) in finish(tasks.collect()).await {
            match outcome {
                Ok(_) => winners.push(bytes),
                Err(error) => {
                    assert_eq!(error.kind, ErrorKind::AlreadyExists, "a loser is told why: {error:?}");
                }
            }
        }
        assert_eq!(winners.len(), 1, "the number of winners of race {race}");
        let standing = bank.get(&key, None).await.expect("what the winner put");
        assert!(standing.bytes == winners[0], "what stands is not what the winner put");
    }
    place.leave().await;
}

/// Racing swaps that each add one to a number lose none.
///
/// # Panics
/// When one is lost.
pub async fn swaps_race_without_loss(bank: &Arc<dyn Bank>, racers: usize) {
    let place = Place::enter(bank, "swaps-race-without-loss").await;
    place.put("number", b"0").await;
    let key = place.key("number");
    let tasks = (0..racers).map(|_| {
        let (bank, key) = (Arc::clone(bank), key.clone());
        tokio::spawn(async move {
            loop {
                let standing = bank.get(&key, None).await.expect("the number");
                let number: u64 = std::str::from_utf8(&standing.bytes)
                    .ok()
                    .and_then(|text| text.parse().ok())
                    .expect("the number is whole whenever it is read");
                let next = (number + 1).to_string();
                match bank.put(&key, body(next.as_bytes()), PutMode::Swap(standing.version)).await {
                    Ok(_) => return,
                    Err(error) if error.kind == ErrorKind::Precondition => {}
                    // A store may say that it is busy with another swap.
                    Err(error) if error.kind.is_retryable() => {}
                    Err(error) => panic!("swapping: {error:?}"),
                }
            }
        })
    });
    finish(tasks.collect()).await;
    assert_eq!(place.read("number").await, racers.to_string());
    place.leave().await;
}

/// Whoever reads while an object is replaced, or appears, sees one whole object or none.
///
/// # Panics
/// When somebody sees a part, or a mixture.
pub async fn readers_see_whole_objects(bank: &Arc<dyn Bank>, rounds: usize) {
    let place = Place::enter(bank, "readers-see-whole-objects").await;
    let mut random = Random::new(4);
    let bodies: Arc<Vec<Bytes>> =
        Arc::new([2 << 20, 10_000, 500_000].map(|length| random.bytes(length)).into_iter().collect());
    let (key, done) = (place.key("k"), Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let readers = (0..3).map(|_| {
        let (bank, key, bodies, done) =
            (Arc::clone(bank), key.clone(), Arc::clone(&bodies), Arc::clone(&done));
        tokio::spawn(async move {
            let mut reads = 0_u64;
            while reads == 0 || !done.load(std::sync::atomic::Ordering::Relaxed) {
                match bank.get(&key, None).await {
                    Ok(object) => {
                        assert!(bodies.contains(&object.bytes), "{} bytes were read", object.bytes.len());
                        reads += 1;
                    }
                    Err(error) => assert_eq!(error.kind, ErrorKind::NotFound, "{error:?}"),
                }
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    for round in 0..rounds.max(bodies.len()) {
        let body = vec![bodies[round % bodies.len()].clone()];
        bank.put(&key, body, PutMode::Overwrite).await.expect("overwriting while others read");
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    finish(readers).await;
    place.leave().await;
}

/// Puts and deletes under one prefix do not get into each other's way, also where a prefix is a directory
/// that comes and goes.
///
/// # Panics
/// When one of them fails.
pub async fn puts_and_deletes_share_a_prefix(bank: &Arc<dyn Bank>, callers: usize, rounds: usize) {
    let place = Place::enter(bank, "puts-and-deletes-share-a-prefix").await;
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    // Nobody keeps an object there, so what is listed goes away while it is looked at.
    let onlookers = (0..2).map(|_| {
        let (bank, done, prefix) = (Arc::clone(bank), Arc::clone(&done), place.key("a/b/c").to_string());
        tokio::spawn(async move {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                bank.list(&prefix, None, 100).await.expect("listing what others put and delete");
                tokio::task::yield_now().await;
            }
        })
    });
    let onlookers = onlookers.collect();
    let tasks = (0..callers).map(|caller| {
        let (bank, key) = (Arc::clone(bank), place.key(&format!("a/b/c/{caller}")));
        tokio::spawn(async move {
            for round in 0..rounds {
                let bytes = format!("{caller} {round}");
                bank.put(&key, body(bytes.as_bytes()), PutMode::Create).await.expect("putting among others");
                assert_eq!(bank.get(&key, None).await.expect("what was put").bytes, bytes);
                let listed = bank.list(key.as_str(), None, 1).await.expect("listing what was put");
                assert_eq!(
                    listed.first().map(|meta| &meta.key),
                    Some(&key),
                    "what was put is listed at once"
                );
                bank.delete(&key).await.expect("deleting among others");
            }
        })
    });
    finish(tasks.collect()).await;
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    finish(onlookers).await;
    assert!(place.keys().await.is_empty(), "all was deleted");
    place.leave().await;
}

async fn finish<T>(tasks: Vec<JoinHandle<T>>) -> Vec<T> {
    let ended = join_all(tasks).await;
    ended
        .into_iter()
        .map(|outcome| outcome.unwrap_or_else(|error| panic!("a caller panicked: {error}")))
        .collect()
}
