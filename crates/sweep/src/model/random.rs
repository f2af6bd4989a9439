//! Many actors at random: writers, readers, deleters, sweepers, rewriters, mergers, folders, fencers; paused for any
//! time, stopped anywhere, with replies lost and requests late.
//!
//! A failing seed is printed; `KARBOR_SWEEP_SEED=<n>` runs that one and prints each call,
//! `KARBOR_SWEEP_SEEDS=<n>` tries that many.

use std::cell::RefCell;
use std::rc::Rc;

use crate::model::actors::{Actor, Tally};
use crate::model::bank::{Fate, ModelBank};
use crate::model::casts::{self, Cast};
use crate::model::rest::rest;
use crate::model::rng::Rng;
use crate::model::vault::Service;
use crate::model::world::World;
use crate::rule::{Rule, without};
use crate::{FenceOutcome, Kind};

/// How a world is.
struct Profile {
    /// How many chunks there are.
    chunks: usize,
    /// How many actors come.
    actors: usize,
    /// How many of a hundred calls go wrong.
    faults: usize,
    /// Whether actors are stopped for good.
    kills: bool,
    /// How often each kind of actor comes: write, hijack, delete, read, sweep, fold, rewrite, merge, fence.
    mix: [usize; 9],
    /// Whether all actors are there from the beginning and do one thing each, around one commit.
    small: bool,
    /// Puts the actors into the world, if it is one of the known casts.
    cast: Option<Cast>,
}

impl Profile {
    fn of_cast(cast: Option<Cast>) -> Self {
        Self { chunks: 1, actors: 0, faults: 0, kills: false, mix: [0; 9], small: true, cast }
    }

    fn at_random(rng: &mut Rng) -> Self {
        let mix = [
            [34, 6, 14, 8, 18, 4, 7, 6, 3],
            [20, 2, 25, 8, 35, 2, 3, 3, 2],
            [25, 0, 20, 20, 30, 0, 5, 0, 0],
            [20, 10, 15, 0, 30, 10, 5, 5, 5],
        ];
        if rng.chance(35) {
            let cast = Some(casts::ALL[rng.below(casts::ALL.len())]);
            return Self::of_cast(cast);
        }
        if rng.chance(50) {
            let (chunks, actors) = (1 + rng.below(2), 2 + rng.below(4));
            let mix = [30, 0, 22, 10, 35, 0, 1, 1, 1];
            return Self { chunks, actors, faults: 0, kills: false, mix, small: true, cast: None };
        }
        let actors = [4, 6, 10, 20][rng.below(4)];
        Self {
            small: false,
            cast: None,
            chunks: [1, 1, 2, 3, 6][rng.below(5)],
            actors: 2 + rng.below(actors),
            faults: [0, 0, 0, 1, 3][rng.below(5)],
            kills: rng.chance(30),
            mix: mix[rng.below(4)],
        }
    }
}

/// Decides whose call is let through: the same actor's again and again, and then suddenly another's. Now and then
/// one is paused for long.
#[derive(Default)]
struct Turns {
    actor: usize,
    left: usize,
    paused: Option<(usize, usize)>,
}

impl Turns {
    fn next(&mut self, calls: &[(usize, bool)], rng: &mut Rng) -> usize {
        self.paused = self.paused.and_then(|(actor, left)| Some((actor, left.checked_sub(1)?)));
        let mut own: Vec<usize> = (0..calls.len()).filter(|at| calls[*at].0 == self.actor).collect();
        // Whoever is about to change something is paused more often: that is where races are.
        if own.iter().any(|at| calls[*at].1) && rng.chance(20) {
            self.left = 0;
            own.clear();
        }
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => {
                own.clear();
                if self.paused.is_none() && rng.chance(10) {
                    self.paused = Some((self.actor, rng.below(1000)));
                }
            }
        }
        if own.is_empty() {
            let paused = self.paused.map(|(actor, _)| actor);
            own = (0..calls.len()).filter(|position| Some(calls[*position].0) != paused).collect();
            if own.is_empty() {
                own = (0..calls.len()).collect();
            }
            let position = own[rng.below(own.len())];
            self.actor = calls[position].0;
            let longest = [1, 2, 4, 12, 40, 100][rng.below(6)];
            self.left = rng.below(longest);
            return position;
        }
        own[rng.below(own.len())]
    }
}

/// Runs one seed, of a cast or of any world. `Err` is a violation, with each call if they are traced.
fn run(seed: u64, cast: Option<Cast>) -> Result<Tally, String> {
    let bank = ModelBank::default();
    run_on(&bank, seed, cast).map_err(|violation| match &bank.inner().trace {
        Some(trace) => format!("{}\n{violation}", trace.join("\n")),
        None => violation,
    })
}

fn run_on(bank: &ModelBank, seed: u64, cast: Option<Cast>) -> Result<Tally, String> {
    let mut rng = Rng::new(seed);
    bank.inner().keep_late = true;
    if std::env::var_os("KARBOR_SWEEP_SEED").is_some() {
        bank.inner().trace = Some(Vec::new());
    }
    let mut world = World::new(bank.clone());
    let service = Service::new(bank, &world.place);
    let tally = Rc::new(RefCell::new(Tally::default()));
    let profile = match cast {
        Some(_) => Profile::of_cast(cast),
        None => Profile::at_random(&mut rng),
    };
    let spawner = Spawner {
        service: service.clone(),
        tally: tally.clone(),
        chunks: profile.chunks,
        once: profile.small,
    };
    let mut to_come = profile.actors;
    let mut turns = Turns::default();
    if let Some(cast) = profile.cast {
        cast(&mut world, &service);
    } else if profile.small {
        bank.run(spawner.actor(&mut rng).write());
        // Most races are about something that nobody refers to when the sweep begins.
        if rng.chance(50) {
            bank.run(spawner.actor(&mut rng).delete());
        }
        for _ in 0..std::mem::take(&mut to_come) {
            spawner.spawn_any(&mut world, &mut rng, &profile.mix);
        }
    } else {
        spawner.spawn(&mut world, &mut rng, 0);
    }
    for step in 0.. {
        if let Some(violation) = world.violation() {
            return Err(violation);
        }
        if step > 30_000 {
            return Err("it never ends".to_owned());
        }
        let running = world.running();
        if to_come > 0 && (rng.chance(4) || running.is_empty()) {
            to_come -= 1;
            spawner.spawn_any(&mut world, &mut rng, &profile.mix);
        }
        if profile.kills && rng.below(300) == 0 && !running.is_empty() {
            world.stop(running[rng.below(running.len())]);
        }
        let late = world.bank.inner().late.len();
        if late > 0 && rng.chance(1) {
            bank.arrive(rng.below(late));
        }
        let calls: Vec<(usize, bool)> =
            bank.inner().waiting.iter().map(|waiting| (waiting.actor, waiting.op.changes())).collect();
        if calls.is_empty() {
            if to_come == 0 && world.running().is_empty() {
                break;
            }
            continue;
        }
        let position = turns.next(&calls, &mut rng);
        let fate = match (rng.below(100) < profile.faults, calls[position].1, rng.below(3)) {
            (true, true, 0) => Fate::ReplyLost,
            (true, true, 1) => Fate::Late,
            (true, ..) => Fate::RequestLost,
            (false, ..) => Fate::Served,
        };
        world.serve(position, fate);
    }
    rest(&mut world, &service, &mut rng)?;
    let mut tally = *tally.borrow();
    tally.calls = bank.inner().calls;
    Ok(tally)
}

struct Spawner {
    service: Service,
    tally: Rc<RefCell<Tally>>,
    chunks: usize,
    once: bool,
}

impl Spawner {
    fn actor(&self, rng: &mut Rng) -> Actor {
        Actor {
            service: self.service.clone(),
            rng: Rc::new(RefCell::new(Rng::new(rng.next()))),
            tally: self.tally.clone(),
            chunks: self.chunks,
            once: self.once,
        }
    }

    fn spawn_any(&self, world: &mut World, rng: &mut Rng, mix: &[usize; 9]) {
        let mut at = rng.below(mix.iter().sum());
        for (kind, weight) in mix.iter().enumerate() {
            match at.checked_sub(*weight) {
                Some(rest) => at = rest,
                None => return self.spawn(world, rng, kind),
            }
        }
    }

    fn spawn(&self, world: &mut World, rng: &mut Rng, kind: usize) {
        let actor = self.actor(rng);
        match kind {
            0 => world.spawn(actor.write()),
            1 => world.spawn(actor.hijack()),
            2 => world.spawn(actor.delete()),
            3 => world.spawn(actor.read()),
            4 => world.spawn(actor.sweep()),
            5 => world.spawn(actor.fold()),
            6 => world.spawn(actor.rewrite()),
            7 => world.spawn(actor.merge()),
            _ => world.spawn(actor.fence()),
        };
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn whatever_many_actors_do_what_lives_can_be_read() {
    if let Some(seed) = number("KARBOR_SWEEP_SEED") {
        let outcome = run(seed, None);
        assert!(outcome.is_ok(), "seed {seed}: {}", outcome.unwrap_err());
        return;
    }
    let seeds = number("KARBOR_SWEEP_SEEDS").unwrap_or(2_000);
    let mut sum = Tally::default();
    for seed in 0..seeds {
        match run(seed, None) {
            Ok(tally) => sum.add(tally),
            Err(violation) => panic!("seed {seed}: {violation} (KARBOR_SWEEP_SEED={seed} shows each call)"),
        }
    }
    // Something happened: otherwise all of this shows nothing.
    let Tally { commits, fenced, deleted, reads, done, waiting, freed, folds, rewrites, merges, calls } = sum;
    eprintln!("{seeds} seeds, {calls} calls: {sum:?}");
    for (what, count, permille) in [
        ("commits", commits, 1000),
        ("fenced attempts", fenced, 40),
        ("deletions", deleted, 250),
        ("reads", reads, 100),
        ("sweeps done", done, 250),
        ("sweeps that wait", waiting, 100),
        ("packs freed", freed, 250),
        ("folds", folds, 3),
        ("rewrites", rewrites, 40),
        ("merges", merges, 30),
    ] {
        assert!(1000 * count >= permille * seeds, "only {count} {what} in {seeds} seeds: {sum:?}");
    }
}

/// Every rule is there for a reason: without it, some seed loses something. Where the race is narrow, the worlds of
/// a cast around it are tried too.
#[test]
fn each_rule_left_out_is_found_out() {
    let limit = number("KARBOR_SWEEP_SEEDS").unwrap_or(20_000);
    let mut missed = Vec::new();
    for (rule, cast) in [
        (Rule::AnswerHonestly, None),
        (Rule::Resolve, None),
        (Rule::Fence, None),
        (Rule::MarkAgain, None),
        (Rule::Pins, Some(casts::reading as Cast)),
        (Rule::WriterOrder, Some(casts::writing_partly)),
        (Rule::PinFirst, Some(casts::reading)),
        (Rule::TombstonesFirst, Some(casts::committing_condemned)),
        (Rule::GoneEndsSessions, None),
        (Rule::WholeSessions, None),
        (Rule::CondemnSessions, None),
        (Rule::Sequential, Some(casts::writing_for_two)),
        (Rule::FoldBeforeRemove, None),
        (Rule::MergeBeforeRemove, None),
        (Rule::ForgetOnlyReaders, None),
        (Rule::StandingFinalList, Some(casts::writing_for_two)),
    ] {
        let fails = |seed, cast| without(Some(rule), || run(seed, cast)).err().map(|what| (seed, what));
        let found = (0..limit).find_map(|seed| fails(seed, None).or_else(|| fails(seed, Some(cast?))));
        match found {
            Some((seed, what)) => eprintln!("{rule:?}: seed {seed}: {what}"),
            None => missed.push(rule),
        }
    }
    assert!(missed.is_empty(), "{missed:?} can be left out without harm");
}

#[test]
fn a_fence_tells_what_it_met() {
    let bank = ModelBank::default();
    let world = World::new(bank.clone());
    let service = Service::new(&bank, &world.place);
    let silent = service.attempt(service.uuid());
    assert_eq!(bank.run(service.fence(silent)).unwrap(), FenceOutcome::Fenced);
    let error = bank.run(service.begin_writer(silent, Kind::Writer, Vec::new())).err();
    assert!(matches!(error, Some(crate::Error::Fenced { .. })), "{error:?}");
}
