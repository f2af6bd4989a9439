use std::collections::{BTreeSet, HashMap};

use karbor_types::{Graph, Resource, ResourceKey};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::Step;

fn resource(index: usize) -> Resource {
    let key = ResourceKey::new(format!("T{index}").as_str(), index.to_string());
    Resource { key, name: String::new(), extra_info: Value::Null }
}

/// A graph of `size` resources; each pair says (parent, child), and is turned so that there is no circle.
fn graph(size: usize, pairs: &[(usize, usize)]) -> Graph {
    let roots: Vec<Resource> = (0..size).map(resource).collect();
    let mut children: HashMap<ResourceKey, Vec<Resource>> = HashMap::new();
    for &(a, b) in pairs {
        let (a, b) = (a % size, b % size);
        if a != b {
            children.entry(resource(a.max(b)).key).or_default().push(resource(a.min(b)));
        }
    }
    Graph::build(&roots, &children).expect("edges only go down")
}

fn all_hooks() -> BTreeSet<Hook> {
    Hook::ALL.iter().copied().collect()
}

/// What must be over before what, written down once more from the reference: all pairs, transitively.
struct Oracle {
    before: Vec<BTreeSet<(usize, Hook)>>,
}

impl Oracle {
    fn new(graph: &Graph, kind: OperationKind) -> Self {
        let mut before: Vec<BTreeSet<(usize, Hook)>> = vec![BTreeSet::new(); graph.len() * 4];
        let mut rule = |first: (usize, Hook), second: (usize, Hook)| {
            before[node(second.0, second.1)].insert(first);
        };
        for p in 0..graph.len() {
            rule((p, Hook::PrepareBegin), (p, Hook::PrepareFinish));
            rule((p, Hook::PrepareFinish), (p, Hook::Main));
            rule((p, Hook::Main), (p, Hook::Complete));
            for &c in graph.children(p) {
                rule((p, Hook::PrepareBegin), (c, Hook::PrepareBegin));
                rule((c, Hook::PrepareFinish), (p, Hook::PrepareFinish));
                rule((c, Hook::Complete), (p, Hook::Complete));
                if kind == OperationKind::Restore {
                    rule((c, Hook::Main), (p, Hook::Main));
                    rule((c, Hook::Complete), (p, Hook::Main));
                }
            }
        }
        loop {
            let mut grown = false;
            for at in 0..before.len() {
                let far: BTreeSet<_> =
                    before[at].iter().flat_map(|&(r, h)| before[node(r, h)].iter().copied()).collect();
                let len = before[at].len();
                before[at].extend(far);
                grown |= before[at].len() > len;
            }
            if !grown {
                return Self { before };
            }
        }
    }

    fn check(&self, schedule: &Schedule, step: Step) {
        for &(resource, hook) in &self.before[node(step.resource, step.hook)] {
            if let Some(earlier) = schedule.flow().step(resource, hook) {
                let state = schedule.state(earlier).expect("a step of the flow");
                let ended = matches!(state, StepState::Done | StepState::Failed | StepState::Skipped);
                assert!(ended, "{step:?} began while {hook} of {resource} was {state}");
            }
        }
    }
}

#[derive(Debug, Clone)]
struct World {
    size: usize,
    pairs: Vec<(usize, usize)>,
    kind: OperationKind,
    /// For each resource the bits of the hooks that it has.
    hooks: Vec<u8>,
    /// What happens next, drawn upon one after the other and then from the start again.
    dice: Vec<u8>,
    failures: bool,
}

fn world() -> impl Strategy<Value = World> {
    let kinds = prop::sample::select(OperationKind::ALL.to_vec());
    (1_usize..9, prop::collection::vec((0_usize..9, 0_usize..9), 0..16), kinds).prop_flat_map(
        |(size, pairs, kind)| {
            let hooks = prop::collection::vec(0_u8..16, size);
            let dice = prop::collection::vec(any::<u8>(), 8..64);
            (hooks, dice, any::<bool>()).prop_map(move |(hooks, dice, failures)| World {
                size,
                pairs: pairs.clone(),
                kind,
                hooks,
                dice,
                failures,
            })
        },
    )
}

impl World {
    fn flow(&self, graph: &Graph) -> Flow {
        Flow::new(graph, self.kind, |kind| {
            let index: usize = kind.as_str()[1..].parse().expect("T<index>");
            let bits = self.hooks[index];
            Hook::ALL.iter().copied().filter(|&hook| bits >> node(0, hook) & 1 == 1).collect()
        })
    }
}

/// Runs a world to its end: steps end in any order and manner, the process dies at any point, somebody cancels.
fn run(world: &World) {
    let graph = graph(world.size, &world.pairs);
    let oracle = Oracle::new(&graph, world.kind);
    let flow = world.flow(&graph);
    let steps = flow.steps().to_vec();
    let mut schedule = Schedule::new(flow);
    let mut running: Vec<usize> = Vec::new();
    let mut begun: BTreeSet<usize> = BTreeSet::new();
    // What was begun in lives that are over.
    let mut begun_before: BTreeSet<usize> = BTreeSet::new();
    let mut cleaned: BTreeSet<usize> = BTreeSet::new();
    let mut done: BTreeSet<usize> = BTreeSet::new();
    let mut rolls = 0;
    let mut roll = || {
        rolls += 1;
        assert!(rolls < 100_000, "it never ends");
        // After the dice have been cast a few times all goes well, so that the end is reached.
        if rolls > 4 * world.dice.len() { 255 } else { world.dice[rolls % world.dice.len()] }
    };
    while !schedule.is_finished() {
        let room = Room { moving: usize::from(roll() % 3), others: usize::from(roll() % 3) };
        let room = if running.is_empty() && room.moving + room.others == 0 { Room::UNLIMITED } else { room };
        for ready in schedule.ready(room) {
            let step = steps[ready.step];
            assert!(!done.contains(&ready.step), "{step:?} is handed out after it was done");
            assert!(!running.contains(&ready.step), "{step:?} is handed out twice");
            oracle.check(&schedule, step);
            if ready.cleanup {
                assert_eq!(step.hook, Hook::PrepareFinish, "only what lets go runs in vain");
                assert!(begun.contains(&step.resource));
            }
            match step.hook {
                Hook::PrepareBegin => drop(begun.insert(step.resource)),
                Hook::PrepareFinish => drop(cleaned.insert(step.resource)),
                Hook::Main | Hook::Complete => {}
            }
            running.push(ready.step);
        }
        if running.is_empty() {
            // Rooms of one kind may have been too small for what is ready; with room for all something is.
            let mut probe = schedule.clone();
            assert!(probe.is_finished() || !probe.ready(Room::UNLIMITED).is_empty(), "stuck");
            continue;
        }
        match roll() {
            0..=15 => {
                // The process dies. What was running is stored as such, or not yet.
                let states: Vec<StepState> = (0..steps.len())
                    .map(|step| match schedule.state(step).expect("a step of the flow") {
                        StepState::Running if roll() % 2 == 0 && steps[step].hook != Hook::PrepareBegin => {
                            StepState::Pending
                        }
                        state => state,
                    })
                    .collect();
                let cancelled = schedule.is_cancelled();
                let flow = Flow::from_steps(&graph, world.kind, steps.clone()).expect("as it was made");
                schedule = Schedule::resume(flow, &states).expect("as many as steps");
                if cancelled {
                    schedule.cancel();
                }
                running.clear();
                begun_before.clone_from(&begun);
            }
            16..=19 if world.failures => schedule.cancel(),
            dice => {
                let step = running.swap_remove(usize::from(roll()) % running.len());
                let end = match dice {
                    20..=49 if world.failures => End::Failed,
                    50..=54 if world.failures => End::NotRun,
                    _ => End::Done,
                };
                if end == End::Done {
                    done.insert(step);
                }
                let at = steps[step];
                if end == End::NotRun && at.hook == Hook::PrepareBegin && !begun_before.contains(&at.resource)
                {
                    begun.remove(&at.resource);
                }
                schedule.finished(step, end).expect("it was running");
            }
        }
    }
    assert!(schedule.ready(Room::UNLIMITED).is_empty(), "nothing is left when all has ended");
    let counts = schedule.counts();
    assert_eq!((counts.running, counts.done), (0, done.len()));
    assert_eq!(counts.total, counts.done + counts.failed + counts.skipped);
    for resource in begun {
        if schedule.flow().step(resource, Hook::PrepareFinish).is_some() {
            assert!(cleaned.contains(&resource), "resource {resource} is never let go");
        }
    }
    if !world.failures {
        assert_eq!(counts.done, counts.total, "without a failure all is done");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_holds_and_everything_ends_whatever_happens(world in world()) {
        run(&world);
    }
}

/// Runs a schedule where some steps fail, and tells in which state each step ended.
fn ends(graph: &Graph, kind: OperationKind, failing: &[(usize, Hook)]) -> HashMap<(usize, Hook), StepState> {
    let flow = Flow::new(graph, kind, |_| all_hooks());
    let steps = flow.steps().to_vec();
    let mut schedule = Schedule::new(flow);
    while !schedule.is_finished() {
        for ready in schedule.ready(Room::UNLIMITED) {
            let step = steps[ready.step];
            let fails = failing.contains(&(step.resource, step.hook));
            schedule.finished(ready.step, if fails { End::Failed } else { End::Done }).expect("running");
        }
    }
    let state = |index| schedule.state(index).expect("a step of the flow");
    steps.iter().enumerate().map(|(index, step)| ((step.resource, step.hook), state(index))).collect()
}

#[test]
fn a_failed_protect_lets_go_of_all_and_moves_nothing_more() {
    // 0 is the child of 1; 2 stands alone.
    let graph = graph(3, &[(1, 0)]);
    let ends = ends(&graph, OperationKind::Protect, &[(0, Hook::PrepareFinish)]);
    for resource in [1, 2] {
        assert_eq!(ends[&(resource, Hook::PrepareBegin)], StepState::Done);
        assert_eq!(ends[&(resource, Hook::PrepareFinish)], StepState::Done);
        assert_eq!(ends[&(resource, Hook::Complete)], StepState::Skipped);
    }
    assert_eq!(ends[&(0, Hook::Main)], StepState::Skipped);
    assert_eq!(ends[&(1, Hook::Main)], StepState::Skipped);
}

#[test]
fn a_failed_prepare_begin_is_let_go_too() {
    let ends = ends(&graph(1, &[]), OperationKind::Protect, &[(0, Hook::PrepareBegin)]);
    assert_eq!(ends[&(0, Hook::PrepareFinish)], StepState::Done);
    assert_eq!(ends[&(0, Hook::Main)], StepState::Skipped);
}

#[test]
fn a_failed_restore_skips_what_is_above_and_goes_on_beside() {
    // 2 has 1 has 0; 4 has 3.
    let graph = graph(5, &[(2, 1), (1, 0), (4, 3)]);
    let flow = Flow::new(&graph, OperationKind::Restore, |_| all_hooks());
    let zero = flow.step(0, Hook::Main).expect("it has all hooks");
    let mut schedule = Schedule::new(flow);
    let mut skipped = Vec::new();
    while !schedule.is_finished() {
        for ready in schedule.ready(Room::UNLIMITED) {
            let end = if ready.step == zero { End::Failed } else { End::Done };
            schedule.finished(ready.step, end).expect("running");
        }
        skipped.extend(schedule.take_skipped());
    }
    let reason = |resource, hook| {
        let step = schedule.flow().step(resource, hook).expect("it has all hooks");
        skipped.iter().find(|skip| skip.step == step).map(|skip| skip.reason)
    };
    assert_eq!(reason(0, Hook::Complete), Some(SkipReason::Own));
    for above in [1, 2] {
        assert_eq!(reason(above, Hook::Main), Some(SkipReason::Dependency { resource: 0 }));
        assert_eq!(reason(above, Hook::Complete), Some(SkipReason::Dependency { resource: 0 }));
    }
    for beside in [3, 4] {
        assert_eq!(reason(beside, Hook::Main), None);
        assert_eq!(reason(beside, Hook::Complete), None);
    }
    assert_eq!(schedule.first_failure(), Some(0));
}

#[test]
fn a_failed_deletion_goes_on_with_all_others() {
    let ends = ends(&graph(3, &[(2, 1), (1, 0)]), OperationKind::Delete, &[(0, Hook::Main)]);
    assert_eq!(ends[&(0, Hook::Complete)], StepState::Skipped);
    for resource in [1, 2] {
        assert_eq!(ends[&(resource, Hook::Complete)], StepState::Done);
    }
}

#[test]
fn hooks_that_do_nothing_are_no_steps_and_a_flow_without_any_is_finished() {
    let graph = graph(4, &[(3, 2), (2, 1), (1, 0)]);
    let none = Flow::new(&graph, OperationKind::Protect, |_| BTreeSet::new());
    assert!(none.steps().is_empty());
    assert!(Schedule::new(none).is_finished());
    // The order of the ends of a chain holds through a middle without hooks.
    let ends = Flow::new(&graph, OperationKind::Protect, |kind| match kind.as_str() {
        "T0" | "T3" => BTreeSet::from([Hook::PrepareBegin]),
        _ => BTreeSet::new(),
    });
    let steps = ends.steps().to_vec();
    let mut schedule = Schedule::new(ends);
    let first = schedule.ready(Room::UNLIMITED);
    assert_eq!(first.len(), 1);
    assert_eq!(graph.nodes()[steps[first[0].step].resource].key.id, "3");
}

#[test]
fn a_wide_and_deep_graph_costs_no_more_than_its_size() {
    // Two full layers: each of the upper is above each of the lower. Joining predecessors and successors of
    // hooks that do nothing pair by pair would square the number of edges.
    let size = 400;
    let pairs: Vec<_> = (0..size).flat_map(|low| (size..2 * size).map(move |high| (high, low))).collect();
    let graph = graph(2 * size, &pairs);
    let flow =
        Flow::new(&graph, OperationKind::Restore, |_| BTreeSet::from([Hook::PrepareBegin, Hook::Main]));
    let edges: usize = flow.before().iter().sum();
    assert_eq!(edges, 4 * pairs.len() + 3 * 2 * size);
    let mut schedule = Schedule::new(flow);
    while !schedule.is_finished() {
        for ready in schedule.ready(Room::UNLIMITED) {
            schedule.finished(ready.step, End::Done).expect("running");
        }
    }
}

#[test]
fn calls_that_do_not_fit_are_refused() {
    let graph = graph(1, &[]);
    let flow = Flow::new(&graph, OperationKind::Protect, |_| all_hooks());
    let err = Schedule::resume(flow.clone(), &[StepState::Done]).expect_err("too few");
    assert_eq!(err, Error::StateCount { states: 1, steps: 4 });
    let mut schedule = Schedule::new(flow);
    let err = schedule.finished(0, End::Done).expect_err("not handed out");
    assert_eq!(err, Error::NotRunning { step: 0, state: StepState::Pending });
    assert_eq!(schedule.finished(9, End::Done), Err(Error::NoSuchStep { step: 9, steps: 4 }));
    let step = Step { resource: usize::MAX, hook: Hook::Main };
    let err = Flow::from_steps(&graph, OperationKind::Protect, vec![step]).expect_err("no such resource");
    assert!(matches!(err, Error::UnknownResource { .. }), "{err}");
    let step = Step { resource: 0, hook: Hook::Main };
    let err = Flow::from_steps(&graph, OperationKind::Protect, vec![step, step]).expect_err("twice");
    assert!(matches!(err, Error::Repeated { step: 1, .. }), "{err}");
}
