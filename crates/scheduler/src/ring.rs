//! Fair turns between projects: pure.
//!
//! What is ready comes in pages, project after project round a ring, and within a project in its order of precedence.
//! Of a page each project gets one in turn until there is no room, so that one with thousands does not hold up one with
//! a single occurrence; the next page begins behind the last project that had its turn.

use std::collections::{BTreeMap, HashMap, VecDeque};

use karbor_store::{Occurrence, OccurrenceLimits, StartedCount};
use karbor_types::{ProjectId, ProviderId};

/// How much room there is.
#[derive(Debug, Default)]
pub(crate) struct Room {
    limits: OccurrenceLimits,
    providers: BTreeMap<ProviderId, u32>,
    projects: BTreeMap<ProjectId, u32>,
}

impl Room {
    pub(crate) fn new(limits: OccurrenceLimits, started: &[StartedCount]) -> Self {
        let mut room = Self { limits, ..Self::default() };
        for count in started {
            *room.providers.entry(count.provider).or_default() += count.number;
            *room.projects.entry(count.project.clone()).or_default() += count.number;
        }
        room
    }

    pub(crate) fn has_provider(&self, provider: ProviderId) -> bool {
        let used = self.providers.get(&provider).copied().unwrap_or(0);
        self.limits.provider.is_none_or(|limit| used < limit)
    }

    /// Takes a place for an occurrence, if there is one.
    fn take(&mut self, occurrence: &Occurrence) -> bool {
        if !self.limits.any() {
            return true;
        }
        let used = self.projects.get(&occurrence.project).copied().unwrap_or(0);
        if !self.has_provider(occurrence.provider) || self.limits.project.is_some_and(|limit| used >= limit) {
            return false;
        }
        *self.providers.entry(occurrence.provider).or_default() += 1;
        *self.projects.entry(occurrence.project.clone()).or_default() += 1;
        true
    }
}

/// What is taken of a page, and behind which project the next one begins; `None` is the beginning of the ring.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) chosen: Vec<Occurrence>,
    pub(crate) next: Option<ProjectId>,
}

/// Chooses of a page, which `is_full` when there may be more behind it.
pub(crate) fn choose(page: Vec<Occurrence>, is_full: bool, room: &mut Room) -> Turn {
    let last = page.last().map(|occurrence| occurrence.project.clone()).filter(|_| is_full);
    let mut queues: VecDeque<VecDeque<Occurrence>> = VecDeque::new();
    for occurrence in page {
        match queues.back_mut() {
            Some(queue) if queue.front().is_some_and(|first| first.project == occurrence.project) => {
                queue.push_back(occurrence);
            }
            _ => queues.push_back(VecDeque::from([occurrence])),
        }
    }
    let mut turn = Turn { chosen: Vec::new(), next: last };
    while let Some(mut queue) = queues.pop_front() {
        let Some(occurrence) = queue.pop_front() else { continue };
        if room.take(&occurrence) {
            if !room.has_provider(occurrence.provider) {
                turn.next = Some(occurrence.project.clone());
            }
            turn.chosen.push(occurrence);
            queues.push_back(queue);
        }
        // Without a place for its first, a project has none for the others of the page either.
    }
    turn
}

/// Spreads occurrences over so many lanes, those of one project all on one: each lane changes what its projects use up,
/// and none waits for another.
pub(crate) fn spread(chosen: Vec<Occurrence>, lanes: usize) -> Vec<Vec<Occurrence>> {
    let mut all: Vec<Vec<Occurrence>> = vec![Vec::new(); lanes.max(1)];
    let mut lane_of = HashMap::new();
    for one in chosen {
        let next = lane_of.len() % all.len();
        let lane = *lane_of.entry(one.project.clone()).or_insert(next);
        if let Some(lane) = all.get_mut(lane) {
            lane.push(one);
        }
    }
    all.retain(|lane| !lane.is_empty());
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use karbor_store::Origin;
    use karbor_types::{Instant, OccurrenceId, OccurrenceState, ScheduledOperationId, TriggerId};
    use uuid::Uuid;

    fn page(projects: &[(&str, u32)]) -> Vec<Occurrence> {
        let provider = ProviderId(Uuid::from_u128(1));
        let mut page = Vec::new();
        for (name, many) in projects {
            for number in 0..*many {
                let at = Instant::from_micros(i64::from(number));
                let operation = ScheduledOperationId(Uuid::from_u128(u128::from(number)));
                page.push(Occurrence {
                    id: OccurrenceId::of(operation, at),
                    operation,
                    operation_type: "protect".to_owned(),
                    trigger: TriggerId(Uuid::nil()),
                    project: ProjectId::new(*name).expect("valid"),
                    provider,
                    at,
                    origin: Origin::Trigger,
                    state: OccurrenceState::Ready,
                    reason: None,
                    detail: None,
                    priority: 0,
                    attempt: 1,
                    act_at: None,
                    until: at,
                    checkpoint: None,
                    retain_at: None,
                    created_at: at,
                    started_at: None,
                    ended_at: None,
                    updated_at: None,
                });
            }
        }
        page
    }

    fn chosen(limits: (Option<u32>, Option<u32>), is_full: bool) -> (Vec<(String, i64)>, Option<String>) {
        let limits = OccurrenceLimits { provider: limits.0, project: limits.1 };
        let turn = choose(page(&[("a", 4), ("b", 1), ("c", 2)]), is_full, &mut Room::new(limits, &[]));
        let told = turn.chosen.iter().map(|one| (one.project.to_string(), one.at.as_micros())).collect();
        (told, turn.next.map(|project| project.to_string()))
    }

    #[test]
    fn projects_take_turns() {
        let told = |list: &[(&str, i64)]| list.iter().map(|(p, n)| ((*p).to_owned(), *n)).collect::<Vec<_>>();
        let all = told(&[("a", 0), ("b", 0), ("c", 0), ("a", 1), ("c", 1), ("a", 2), ("a", 3)]);
        assert_eq!(chosen((None, None), false), (all.clone(), None));
        assert_eq!(chosen((None, None), true), (all, Some("c".to_owned())));
        // One place: it is "a"'s turn, and the next one is for who comes behind.
        assert_eq!(chosen((Some(1), None), false), (told(&[("a", 0)]), Some("a".to_owned())));
        assert_eq!(chosen((Some(2), None), true), (told(&[("a", 0), ("b", 0)]), Some("b".to_owned())));
        let one_each = told(&[("a", 0), ("b", 0), ("c", 0)]);
        assert_eq!(chosen((None, Some(1)), false), (one_each, None));
    }

    #[test]
    fn what_runs_already_takes_its_place() {
        let one = page(&[("a", 1)]).remove(0);
        let count = StartedCount { provider: one.provider, project: one.project.clone(), number: 2 };
        for (limits, wanted) in [((Some(2), None), 0), ((Some(3), None), 1), ((None, Some(2)), 0)] {
            let limits = OccurrenceLimits { provider: limits.0, project: limits.1 };
            let mut room = Room::new(limits, std::slice::from_ref(&count));
            assert_eq!(choose(vec![one.clone()], false, &mut room).chosen.len(), wanted, "{limits:?}");
        }
    }

    #[test]
    fn a_project_has_one_lane_and_keeps_its_order() {
        let all = page(&[("a", 4), ("b", 1), ("c", 2), ("d", 1)]);
        let told = |lanes: usize| -> Vec<Vec<(String, i64)>> {
            let name = |one: Occurrence| (one.project.to_string(), one.at.as_micros());
            spread(all.clone(), lanes).into_iter().map(|lane| lane.into_iter().map(name).collect()).collect()
        };
        let list = |list: &[(&str, i64)]| list.iter().map(|(p, n)| ((*p).to_owned(), *n)).collect::<Vec<_>>();
        let (first, second) = (
            list(&[("a", 0), ("a", 1), ("a", 2), ("a", 3), ("c", 0), ("c", 1)]),
            list(&[("b", 0), ("d", 0)]),
        );
        assert_eq!(told(2), [first, second]);
        assert_eq!(told(9).len(), 4);
        assert_eq!(told(1).concat().len(), all.len());
        assert!(spread(Vec::new(), 3).is_empty());
    }
}
