//! What is handed out when a trigger's time has come: pure.

use karbor_store::{Advance, DueTrigger, Enlisted, HandOut, NewOccurrence, Origin, Trigger};
use karbor_types::{CatchUp, Instant, OccurrenceId, OccurrenceReason, OccurrenceState, ScheduledOperationId};

use crate::{Firing, SchedulerConfig};

/// Works out what becomes of a due trigger and of those of its operations that are given.
///
/// `firing` is asked about the occurrence that is due; `more` is the last of the given operations when there are others
/// behind it, which get the same occurrence with the next step.
pub(crate) fn hand_out(
    trigger: &DueTrigger,
    firing: Firing,
    operations: &[Enlisted],
    more: Option<ScheduledOperationId>,
    config: &SchedulerConfig,
    now: Instant,
) -> (HandOut, Vec<NewOccurrence>) {
    let advance = more.map_or(Advance::To(firing.next), Advance::Beyond);
    let handout = HandOut { trigger: trigger.clone(), advance };
    if trigger.next_at == Trigger::UNPLANNED {
        return (handout, Vec::new());
    }
    let at = trigger.next_at;
    // Whoever was made after an occurrence was due has no part in it.
    let concerned = operations.iter().filter(|operation| operation.created_at <= at);
    let occurrences = concerned.map(|operation| occurrence(operation, at, firing, config, now)).collect();
    (handout, occurrences)
}

fn occurrence(
    operation: &Enlisted,
    at: Instant,
    firing: Firing,
    config: &SchedulerConfig,
    now: Instant,
) -> NewOccurrence {
    let window = i64::from(firing.window_seconds);
    let spread =
        operation.rules.jitter_seconds.unwrap_or(config.jitter_seconds).min(firing.window_seconds / 2);
    let delay = delay(OccurrenceId::of(operation.id, at), spread);
    let mut new = NewOccurrence {
        operation: operation.id,
        operation_type: operation.operation_type.clone(),
        trigger: operation.trigger,
        project: operation.project.clone(),
        provider: operation.provider,
        at,
        origin: Origin::Trigger,
        state: OccurrenceState::Waiting,
        reason: None,
        priority: operation.rules.priority,
        act_at: at.plus_seconds(delay),
        until: at.plus_seconds(window),
    };
    let skipped =
        |reason, new| NewOccurrence { state: OccurrenceState::Skipped, reason: Some(reason), ..new };
    if !operation.enabled {
        return skipped(OccurrenceReason::Paused, new);
    }
    if now > new.until {
        let is_last = firing.next.is_none_or(|next| next > now);
        let catch_up = operation.rules.catch_up.unwrap_or(config.catch_up);
        if !is_last || catch_up == CatchUp::Skip {
            return skipped(OccurrenceReason::WindowMissed, new);
        }
        new.act_at = now.plus_seconds(delay);
        new.until = now.plus_seconds(window);
    }
    if new.act_at <= now {
        // What is ready is looked at again when its window is over.
        return NewOccurrence { state: OccurrenceState::Ready, act_at: new.until, ..new };
    }
    new
}

/// Spreads occurrences over so many seconds, each always to the same.
fn delay(id: OccurrenceId, spread_seconds: u32) -> i64 {
    let (high, low) = id.as_uuid().as_u64_pair();
    let seed = high ^ low.rotate_left(32);
    i64::try_from(seed % (u64::from(spread_seconds) + 1)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use karbor_store::RunRules;
    use karbor_types::{ProjectId, ProviderId, TriggerId};
    use uuid::Uuid;

    const WINDOW: u32 = 900;

    fn at(second: i64) -> Instant {
        Instant::from_micros(1_767_225_600_000_000).plus_seconds(second)
    }

    fn trigger(next_at: Instant) -> DueTrigger {
        DueTrigger {
            id: TriggerId(Uuid::from_u128(1)),
            kind: "time".to_owned(),
            properties: "{}".to_owned(),
            next_at,
            revision: 0,
            handed_to: None,
        }
    }

    fn operation(rules: RunRules) -> Enlisted {
        Enlisted {
            id: ScheduledOperationId(Uuid::from_u128(2)),
            trigger: TriggerId(Uuid::from_u128(1)),
            project: ProjectId::new("p").expect("valid"),
            operation_type: "protect".to_owned(),
            provider: ProviderId(Uuid::from_u128(3)),
            enabled: true,
            rules,
            created_at: at(-100),
        }
    }

    /// What becomes of an occurrence at second 0 whose next one is at 3600.
    fn became(operation: Enlisted, now: i64) -> Option<(OccurrenceState, Option<OccurrenceReason>, i64)> {
        let firing = Firing { window_seconds: WINDOW, next: Some(at(3600)) };
        let config = SchedulerConfig { jitter_seconds: 0, ..SchedulerConfig::default() };
        let (_, new) = hand_out(&trigger(at(0)), firing, &[operation], None, &config, at(now));
        new.first().map(|one| (one.state, one.reason, one.until.seconds_since(at(0))))
    }

    #[test]
    fn each_rule_is_heeded() {
        use {OccurrenceReason as R, OccurrenceState as S};
        let rules = RunRules::default;
        let skip = || RunRules { catch_up: Some(CatchUp::Skip), ..rules() };
        let paused = || Enlisted { enabled: false, ..operation(rules()) };
        let young = || Enlisted { created_at: at(1), ..operation(rules()) };
        for (operation, now, wanted) in [
            (operation(rules()), 0, Some((S::Ready, None, 900))),
            (operation(rules()), 900, Some((S::Ready, None, 900))),
            (operation(rules()), 901, Some((S::Ready, None, 1801))),
            (operation(skip()), 900, Some((S::Ready, None, 900))),
            (operation(skip()), 901, Some((S::Skipped, Some(R::WindowMissed), 900))),
            (operation(rules()), 3600, Some((S::Skipped, Some(R::WindowMissed), 900))),
            (paused(), 0, Some((S::Skipped, Some(R::Paused), 900))),
            (young(), 5, None),
        ] {
            assert_eq!(became(operation.clone(), now), wanted, "{operation:?} at {now}");
        }
    }

    #[test]
    fn starts_are_spread_inside_the_window_and_always_alike() {
        let firing = Firing { window_seconds: WINDOW, next: None };
        let config = SchedulerConfig { jitter_seconds: 9999, ..SchedulerConfig::default() };
        let delays = |_: ()| -> Vec<i64> {
            let one = |number| {
                let operation = Enlisted {
                    id: ScheduledOperationId(Uuid::from_u128(number)),
                    ..operation(RunRules::default())
                };
                let (_, new) = hand_out(&trigger(at(0)), firing, &[operation], None, &config, at(-1));
                assert_eq!(new[0].state, OccurrenceState::Waiting);
                new[0].act_at.seconds_since(at(0))
            };
            (1..1000).map(one).collect()
        };
        let first = delays(());
        assert_eq!(first, delays(()));
        assert!(first.iter().all(|delay| (0..=450).contains(delay)));
        assert!(first.iter().collect::<std::collections::BTreeSet<_>>().len() > 200);
    }

    #[test]
    fn a_trigger_that_was_never_worked_out_only_moves_on() {
        let firing = Firing { window_seconds: WINDOW, next: Some(at(50)) };
        let config = SchedulerConfig::default();
        let (handout, new) = hand_out(
            &trigger(Trigger::UNPLANNED),
            firing,
            &[operation(RunRules::default())],
            None,
            &config,
            at(0),
        );
        assert_eq!((handout.advance, new.len()), (Advance::To(Some(at(50))), 0));
    }
}
