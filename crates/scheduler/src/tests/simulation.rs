//! A year of many triggers, with everything that can go wrong: several schedulers between whose database calls the others
//! act, workers that die, calls that fail, replies that are lost after the commit, clocks that jump.
//!
//! All of it is drawn from a seed. `KARBOR_SIMULATION_SEED` runs one seed alone; a failure names its own.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use karbor_store::{DueTrigger, Interference, OccurrenceQuery, Store};
use karbor_types::{Instant, OccurrenceId, OccurrenceState, OperationState, ScheduledOperationId, TriggerId};
use tokio::sync::Mutex as AsyncMutex;

use super::world::{World, at, id, operation};
use crate::{Round, Scheduler};

const YEAR: i64 = 365 * 86_400;
const SCHEDULERS: usize = 3;
const TRIGGERS: u64 = 2000;

/// Draws numbers.
#[derive(Debug)]
struct Dice(Mutex<u64>);

impl Dice {
    fn next(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Is true so many times of a thousand.
    fn happens(&self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}

type Schedulers = Arc<OnceLock<Vec<AsyncMutex<Scheduler>>>>;

/// What comes between a scheduler or a worker and the database.
#[derive(Debug)]
struct Chaos {
    dice: Arc<Dice>,
    schedulers: Schedulers,
}

impl Interference for Chaos {
    fn before<'a>(&'a self, _: &'static str) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
        Box::pin(async move {
            // The database answers late: meanwhile another scheduler takes a whole round, which may be interrupted too.
            if self.dice.happens(30)
                && let Some(schedulers) = self.schedulers.get()
            {
                let other = usize::try_from(self.dice.below(SCHEDULERS as u64)).expect("small");
                if let Ok(mut scheduler) = schedulers[other].try_lock() {
                    let _ = scheduler.round(&mut Round::default()).await;
                }
            }
            !self.dice.happens(8)
        })
    }

    fn loses_reply(&self, _: &'static str) -> bool {
        self.dice.happens(8)
    }
}

/// The patterns of the triggers: most fire four times a year, a few each day.
fn pattern(number: u64, dice: &Dice) -> String {
    let (minute, hour, day) = (dice.below(60), dice.below(24), dice.below(28) + 1);
    match number % 200 {
        0 => format!("{minute} {hour} * * *"),
        1..=3 => format!("{minute} {hour} * * {}", dice.below(7)),
        4..=9 => format!("{minute} {hour} {day} * *"),
        _ => format!("{minute} {hour} {day} {},{},{},{} *", 1, 4, 7, 10),
    }
}

#[tokio::test]
async fn a_year_in_which_everything_goes_wrong_loses_nothing_and_runs_nothing_twice() {
    let seeds = match std::env::var("KARBOR_SIMULATION_SEED") {
        Ok(seed) => vec![seed.parse().expect("KARBOR_SIMULATION_SEED is a number")],
        Err(_) => vec![1],
    };
    for seed in seeds {
        simulate(seed).await;
    }
}

async fn simulate(seed: u64) {
    let dice = Arc::new(Dice(Mutex::new(seed)));
    let mut world = World::new().await;
    world.config.keep_days = 10_000.try_into().expect("not zero");
    let mut patterns = BTreeMap::new();
    for number in 0..TRIGGERS {
        let project = format!("p{}", number % 50);
        let (trigger, key) = (u128::from(number) + (1 << 32), u128::from(number));
        let pattern = pattern(number, &dice);
        world.add_trigger(trigger, &project, &pattern).await;
        world.add_plan(key + (2 << 32), &project).await;
        world.add_operation(operation(key + (3 << 32), trigger, key + (2 << 32), &project)).await;
        patterns.insert(key, trigger);
    }
    let schedulers: Schedulers = Arc::new(OnceLock::new());
    let chaos = || -> Store {
        let interference = Chaos { dice: Arc::clone(&dice), schedulers: Arc::clone(&schedulers) };
        world.store.with_interference(Arc::new(interference))
    };
    let all = (0..SCHEDULERS).map(|_| AsyncMutex::new(world.scheduler(chaos()))).collect();
    schedulers.set(all).expect("set once");
    let workers = chaos();
    // Whatever was not worked out yet is, at the beginning of the year.
    calm(&world).await;
    while world.now() < at(YEAR) {
        live(&world, &schedulers, &workers, &dice, &chaos).await;
    }
    // What is under way comes to its end once nothing goes wrong any more.
    let end = world.now();
    for _ in 0..40 {
        calm(&world).await;
        world.set(world.now().plus_seconds(1000).min(end.plus_seconds(3600 * 24)));
        while World::work(&world.store, world.now(), true).await.expect("worked") {}
    }
    // What has just become due too, with the clock standing.
    loop {
        calm(&world).await;
        if !World::work(&world.store, world.now(), true).await.expect("worked") {
            break;
        }
    }
    check(&world, &patterns, seed).await;
}

/// Lets the clock go on to the next thing that is due, or jump, and lets everybody act.
async fn live(
    world: &World,
    schedulers: &Schedulers,
    workers: &Store,
    dice: &Arc<Dice>,
    chaos: &impl Fn() -> Store,
) {
    let due = world.store.next_due().await.expect("asked").unwrap_or_else(|| at(YEAR));
    let mut now = world.now().plus_seconds(60).max(due);
    if dice.happens(10) {
        now = now.plus_seconds(i64::try_from(dice.below(30 * 3600)).expect("small"));
    } else if dice.happens(5) {
        now = now.plus_seconds(-i64::try_from(dice.below(3600)).expect("small"));
    }
    world.set(now);
    let all = schedulers.get().expect("set");
    for _ in 0..1 + dice.below(3) {
        let one = usize::try_from(dice.below(SCHEDULERS as u64)).expect("small");
        let mut scheduler = all[one].lock().await;
        if dice.happens(20) {
            // It dies, and another one begins in its place.
            *scheduler = world.scheduler(chaos());
        }
        // An error is what a crash at that call leaves.
        let _ = scheduler.round(&mut Round::default()).await;
    }
    for _ in 0..dice.below(30) {
        if dice.happens(10) {
            world.set(world.now().plus_seconds(31));
        }
        // One that fails has died with an operation in its hands: the lease runs out.
        if matches!(World::work(workers, world.now(), !dice.happens(50)).await, Ok(false)) {
            break;
        }
    }
}

/// Lets one scheduler to which nothing happens do all that there is.
async fn calm(world: &World) {
    let mut scheduler = world.scheduler(world.store.clone());
    loop {
        let mut round = Round::default();
        scheduler.round(&mut round).await.expect("nothing goes wrong");
        if !round.has_done_something() {
            return;
        }
    }
}

async fn check(world: &World, patterns: &BTreeMap<u128, u128>, seed: u64) {
    let mut found: BTreeMap<ScheduledOperationId, BTreeSet<Instant>> = BTreeMap::new();
    let mut states: BTreeMap<OccurrenceId, OccurrenceState> = BTreeMap::new();
    let mut query = OccurrenceQuery::default();
    loop {
        let page = world.store.list_occurrences(&query).await.expect("listed");
        let Some(last) = page.last() else { break };
        query.marker = Some(last.id);
        for one in page {
            assert!(one.state.is_final(), "seed {seed}: occurrence {one:?} has no end");
            assert!(found.entry(one.operation).or_default().insert(one.at), "seed {seed}: twice: {one:?}");
            states.insert(one.id, one.state);
        }
    }
    let actions = world.actions(world.store.clone());
    for (key, trigger) in patterns {
        let row = world.store.get_trigger(TriggerId(id(*trigger))).await.expect("found");
        let mut due = DueTrigger {
            id: row.id,
            kind: row.kind,
            properties: serde_json::to_string(&row.properties).expect("JSON"),
            next_at: at(0),
            revision: 0,
            handed_to: None,
        };
        let mut wanted = BTreeSet::new();
        while let (_, Some(next)) = actions.fires_after(&due, due.next_at).expect("readable") {
            if next > world.now() {
                break;
            }
            wanted.insert(next);
            due.next_at = next;
        }
        let operation = ScheduledOperationId(id(key + (3 << 32)));
        let got = found.remove(&operation).unwrap_or_default();
        assert_eq!(got, wanted, "seed {seed}: what was recorded of trigger {key} is not what was due");
    }
    let ids: Vec<OccurrenceId> = states.keys().copied().collect();
    let mut succeeded = 0;
    for chunk in ids.chunks(500) {
        let mut attempts = BTreeSet::new();
        let mut went_well = BTreeSet::new();
        for one in world.store.started_operations(chunk).await.expect("listed") {
            let attempt = (one.occurrence, one.attempt);
            assert!(attempts.insert(attempt), "seed {seed}: {attempt:?} was started twice");
            assert!(one.state.is_final(), "seed {seed}: {one:?} has no end");
            if one.state == OperationState::Succeeded {
                assert!(went_well.insert(one.occurrence), "seed {seed}: {attempt:?} ran twice");
            }
        }
        for id in chunk {
            let is_well = states.get(id) == Some(&OccurrenceState::Succeeded);
            assert_eq!(is_well, went_well.contains(id), "seed {seed}: {id} is not what its operation is");
            succeeded += usize::from(is_well);
        }
    }
    assert!(succeeded * 2 > states.len(), "seed {seed}: only {succeeded} of {} went well", states.len());
}
