//! Every interleaving of few actors.
//!
//! Futures cannot be copied, so each schedule is run from its beginning; a state that was visited before is not
//! gone on with. A state is the objects in the bank and what each actor at work has seen: an actor's future depends on
//! nothing else. So schedules that differ only in the order of steps that have nothing to do with each other meet.
//! What cannot depend on others is no scheduling point: reads of keys that stand for ever, and reads of areas that
//! nobody else at work writes to.
//!
//! Where there are too many states, all schedules are visited in which an actor that could go on is interrupted at
//! most so many times. Most races need one or two interruptions.

use std::collections::HashMap;

use crate::model::bank::{Fate, ModelBank};
use crate::model::casts::{self, Cast};
use crate::model::rest::settle;
use crate::model::vault::Service;
use crate::model::world::World;
use crate::rule::{Rule, without};

/// What was visited.
#[derive(Debug, Default, Clone, Copy)]
struct Visited {
    states: usize,
    ends: usize,
    runs: usize,
}

/// A point where one of several actors goes on.
struct Choice {
    actors: Vec<usize>,
    chosen: usize,
    /// Interruptions that are left before this choice, and who would be interrupted.
    left: usize,
    current: Option<usize>,
}

impl Choice {
    fn actor(&self) -> usize {
        self.actors[self.chosen]
    }

    /// Returns how many interruptions are left after this choice.
    fn left_after(&self) -> usize {
        let interrupts = self.current.is_some_and(|current| current != self.actor());
        self.left - usize::from(interrupts)
    }
}

/// Visits all states of a cast that at most `interruptions` lead to. `Err` is a violation with the calls that led
/// to it.
fn explore(cast: Cast, interruptions: usize) -> Result<Visited, String> {
    let mut seen: HashMap<(u64, Option<usize>), usize> = HashMap::new();
    let mut choices: Vec<Choice> = Vec::new();
    let mut visited = Visited::default();
    loop {
        visited.runs += 1;
        if let Err(violation) = run(cast, interruptions, &mut choices, &mut seen, &mut visited, false) {
            // Once more, with each call written down.
            let told = run(cast, interruptions, &mut choices, &mut seen, &mut visited, true);
            return Err(told.err().unwrap_or(violation));
        }
        while let Some(choice) = choices.last_mut() {
            choice.chosen += 1;
            if choice.chosen < choice.actors.len() {
                break;
            }
            choices.pop();
        }
        if choices.is_empty() {
            return Ok(visited);
        }
    }
}

/// Runs one schedule: as it was chosen, and then on to where nothing new comes.
fn run(
    cast: Cast,
    interruptions: usize,
    choices: &mut Vec<Choice>,
    seen: &mut HashMap<(u64, Option<usize>), usize>,
    visited: &mut Visited,
    traced: bool,
) -> Result<(), String> {
    let bank = ModelBank::default();
    bank.inner().skip_settled_reads = true;
    let mut world = World::new(bank.clone());
    let service = Service::new(&bank, &world.place);
    cast(&mut world, &service);
    bank.inner().trace = traced.then(Vec::new);
    let told = |what: String| match bank.inner().trace.take() {
        Some(trace) => format!("{}\n{what}", trace.join("\n")),
        None => what,
    };
    for depth in 0.. {
        if let Some(violation) = world.violation() {
            return Err(told(violation));
        }
        if depth == choices.len() {
            let (left, current) =
                choices.last().map_or((interruptions, None), |last| (last.left_after(), Some(last.actor())));
            let mut actors: Vec<usize> = bank.inner().waiting.iter().map(|waiting| waiting.actor).collect();
            actors.sort_unstable();
            let current = current.filter(|current| actors.contains(current));
            let state = bank.inner().state(&world.running());
            let bounded = (interruptions < usize::MAX).then_some(()).and(current);
            match seen.get(&(state, bounded)) {
                Some(known) if *known >= left => return Ok(()),
                Some(_) => {}
                None => visited.states += 1,
            }
            seen.insert((state, bounded), left);
            if actors.is_empty() {
                visited.ends += 1;
                return settle(&bank, &service).map_err(told);
            }
            if let (0, Some(current)) = (left, current) {
                actors = vec![current];
            } else if let Some(current) = current {
                // Whoever is at work goes on first: that needs no interruption.
                actors.sort_by_key(|actor| *actor != current);
            }
            choices.push(Choice { actors, chosen: 0, left, current });
        }
        let actor = choices[depth].actor();
        let position = bank.inner().waiting.iter().position(|waiting| waiting.actor == actor);
        world.serve(position.expect("the same schedule leads to the same state"), Fate::Served);
    }
    Ok(())
}

/// Every interleaving.
const ALL: usize = usize::MAX;

/// Visits casts, and says how much that was.
fn check(casts: &[(&str, Cast, usize)]) {
    for (name, cast, interruptions) in casts {
        let start = std::time::Instant::now();
        match explore(*cast, *interruptions) {
            Ok(visited) => {
                eprintln!("{name}: {visited:?} in {:?}", start.elapsed());
                assert!(
                    visited.states > 500 && visited.ends > 1,
                    "{name}: too little was visited: {visited:?}"
                );
            }
            Err(violation) => panic!("{name}: {violation}"),
        }
    }
}

#[test]
fn every_interleaving_of_a_sweep_with_writers_readers_and_deleters() {
    check(&[
        ("reading", casts::reading, ALL),
        ("writing", casts::writing, ALL),
        ("writing partly", casts::writing_partly, ALL),
        ("fencing", casts::fencing, ALL),
        ("basing", casts::basing, ALL),
        ("deleting", casts::deleting, ALL),
    ]);
}

#[test]
fn every_interleaving_of_a_sweep_with_a_rewrite_and_a_deleter() {
    check(&[("rewriting", casts::rewriting, ALL)]);
}

#[test]
fn every_schedule_with_few_interruptions_of_many_actors() {
    check(&[
        ("committing condemned", casts::committing_condemned, 3),
        ("writing for two", casts::writing_for_two, 2),
        ("merging", casts::merging, 2),
        ("folding", casts::folding, 1),
        ("taking over", casts::taking_over, 2),
    ]);
}

/// Each of these rules is found to be missing by a small cast already.
#[test]
fn each_rule_left_out_is_found_out_exhaustively() {
    for (rule, cast, interruptions) in [
        (Rule::AnswerHonestly, casts::writing as Cast, ALL),
        (Rule::Resolve, casts::writing, ALL),
        (Rule::Fence, casts::fencing, ALL),
        (Rule::MarkAgain, casts::writing, ALL),
        (Rule::Pins, casts::reading, ALL),
        (Rule::WriterOrder, casts::writing_partly, ALL),
        (Rule::PinFirst, casts::reading, ALL),
        (Rule::MergeBeforeRemove, casts::merging, 2),
    ] {
        let start = std::time::Instant::now();
        let found = without(Some(rule), || explore(cast, interruptions));
        let Err(found) = found else {
            panic!("{rule:?} can be left out without harm: {found:?}");
        };
        eprintln!("{rule:?} in {:?}: {}", start.elapsed(), found.lines().last().unwrap_or_default());
    }
}
