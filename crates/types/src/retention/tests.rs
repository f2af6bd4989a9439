//! Retention by tables and by properties that hold for any history and any policy.

use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::*;

const OPERATION: ScheduledOperationId = ScheduledOperationId(Uuid::from_u128(1));
const OTHER: ScheduledOperationId = ScheduledOperationId(Uuid::from_u128(2));

fn at(text: &str) -> Instant {
    Instant::from_micros(text.parse::<jiff::Timestamp>().expect("a time").as_microsecond())
}

fn made_at(number: u128, created_at: &str) -> RetentionCandidate {
    RetentionCandidate {
        id: CheckpointId(Uuid::from_u128(number)),
        created_at: at(created_at),
        state: CheckpointState::Available,
        operation: Some(OPERATION),
        held: false,
    }
}

fn check(policy: RetentionPolicy, now: &str, cases: &[(&str, &str)]) {
    let checkpoints: Vec<_> =
        cases.iter().zip(1..).map(|((created_at, _), number)| made_at(number, created_at)).collect();
    let words =
        policy.decide(OPERATION, at(now), &checkpoints).into_iter().map(|(_, verdict)| verdict.word());
    let expected = cases.iter().map(|(_, word)| *word);
    assert!(words.clone().eq(expected), "{policy:?}: {:?}", words.collect::<Vec<_>>());
}

#[test]
fn limits_keep_the_newest() {
    let policy = RetentionPolicy { max_count: Some(2), ..RetentionPolicy::default() };
    // Whatever order they are listed in.
    check(
        policy,
        "2026-05-10T12:00:00Z",
        &[
            ("2026-05-02T01:00:00Z", "max_backups"),
            ("2026-05-04T01:00:00Z", "newest"),
            ("2026-05-01T01:00:00Z", "max_backups"),
            ("2026-05-03T01:00:00Z", "within_limits"),
        ],
    );
}

#[test]
fn days_count_from_midnight_as_they_did() {
    let policy = RetentionPolicy { max_days: Some(10), ..RetentionPolicy::default() };
    let cases = [("2026-05-01T23:00:00Z", "within_limits"), ("2026-05-02T01:00:00Z", "newest")];
    check(policy, "2026-05-11T23:59:59Z", &cases);
    let cases = [("2026-05-01T23:00:00Z", "retention_duration"), ("2026-05-02T01:00:00Z", "newest")];
    check(policy, "2026-05-12T00:00:00Z", &cases);
    // Even the oldest stays while it is the newest.
    check(policy, "2036-05-12T00:00:00Z", &[("2026-05-01T23:00:00Z", "newest")]);
}

#[test]
fn generations_keep_the_newest_of_each_period() {
    let generations = Generations { daily: 2, weekly: 2, monthly: 2, yearly: 2, hourly: 0 };
    let policy = RetentionPolicy { generations, minimum: 2, ..RetentionPolicy::default() };
    check(
        policy,
        "2026-05-31T12:00:00Z",
        &[
            ("2026-05-31T10:00:00Z", "newest"),
            ("2026-05-31T09:00:00Z", "keep_minimum"),
            ("2026-05-31T08:00:00Z", "no_generation"),
            ("2026-05-29T08:00:00Z", "keep_daily"),
            ("2026-05-25T08:00:00Z", "no_generation"),
            ("2026-05-24T08:00:00Z", "keep_weekly"),
            ("2026-04-30T08:00:00Z", "keep_monthly"),
            ("2026-03-30T08:00:00Z", "no_generation"),
            ("2025-12-31T08:00:00Z", "keep_yearly"),
            ("2024-12-31T08:00:00Z", "no_generation"),
        ],
    );
    // Limits add to generations.
    check(
        RetentionPolicy { max_count: Some(3), minimum: 0, ..policy },
        "2026-05-31T12:00:00Z",
        &[
            ("2026-05-31T10:00:00Z", "newest"),
            ("2026-05-31T09:00:00Z", "within_limits"),
            ("2026-05-31T08:00:00Z", "within_limits"),
            ("2026-05-31T07:00:00Z", "max_backups"),
            ("2026-05-29T08:00:00Z", "keep_daily"),
        ],
    );
}

#[test]
fn without_rules_all_stay() {
    check(
        RetentionPolicy::default(),
        "2036-05-31T12:00:00Z",
        &[("2026-05-31T10:00:00Z", "newest"), ("2026-05-30T10:00:00Z", "no_rule")],
    );
}

#[test]
fn definitions_are_read_as_the_old_service_read_them() {
    let read = |definition: Value| match definition {
        Value::Object(map) => RetentionPolicy::from_definition(&map),
        other => panic!("{other} is no definition"),
    };
    assert_eq!(read(json!({})), Ok(RetentionPolicy::default()));
    assert_eq!(read(json!({"max_backups": -1, "retention_duration": "-1"})), Ok(RetentionPolicy::default()));
    assert_eq!(
        read(json!({"max_backups": " 3 ", "retention_duration": 0, "keep_daily": 7, "keep_minimum": "2"})),
        Ok(RetentionPolicy {
            max_count: Some(3),
            minimum: 2,
            generations: Generations { daily: 7, ..Generations::default() },
            ..RetentionPolicy::default()
        })
    );
    for (definition, field) in [
        (json!({"max_backups": "many"}), "max_backups"),
        (json!({"retention_duration": 1.5}), "retention_duration"),
        (json!({"keep_yearly": [1]}), "keep_yearly"),
        (json!({"keep_minimum": true}), "keep_minimum"),
    ] {
        assert_eq!(read(definition).expect_err(field).field, field);
    }
}

fn policies() -> impl Strategy<Value = RetentionPolicy> {
    let some = || proptest::option::of(1_u32..8);
    let few = || prop_oneof![2 => Just(0), 1 => 1_u32..5];
    (some(), some(), (few(), few(), few(), few(), few()), few()).prop_map(
        |(max_count, max_days, (hourly, daily, weekly, monthly, yearly), minimum)| RetentionPolicy {
            max_count,
            max_days,
            generations: Generations { hourly, daily, weekly, monthly, yearly },
            minimum,
        },
    )
}

/// Seconds of three years; many fall into the same hours and days.
fn times() -> impl Strategy<Value = i64> {
    prop_oneof![0_i64..94_608_000, 94_000_000_i64..94_608_000, 94_590_000_i64..94_608_000]
}

fn histories() -> impl Strategy<Value = Vec<RetentionCandidate>> {
    let state = prop_oneof![
        6 => Just(CheckpointState::Available),
        1 => Just(CheckpointState::Protecting),
        1 => Just(CheckpointState::Error),
        1 => Just(CheckpointState::Deleting),
    ];
    let operation = prop_oneof![6 => Just(Some(OPERATION)), 1 => Just(None), 1 => Just(Some(OTHER))];
    let one = (times(), state, operation, proptest::bool::weighted(0.1));
    proptest::collection::vec(one, 0..40).prop_map(|all| {
        let numbered = all.into_iter().zip(1..);
        numbered
            .map(|((seconds, state, operation, held), number)| RetentionCandidate {
                id: CheckpointId(Uuid::from_u128(number)),
                created_at: Instant::from_micros(1_700_000_000_000_000 + seconds * 1_000_000),
                state,
                operation,
                held,
            })
            .collect()
    })
}

fn now() -> Instant {
    Instant::from_micros(1_700_000_000_000_000 + 94_608_000 * 1_000_000)
}

fn counts(checkpoint: &RetentionCandidate) -> bool {
    checkpoint.state == CheckpointState::Available
        && checkpoint.operation == Some(OPERATION)
        && !checkpoint.held
}

fn remaining(
    policy: &RetentionPolicy,
    now: Instant,
    history: &[RetentionCandidate],
) -> Vec<RetentionCandidate> {
    let verdicts = policy.decide(OPERATION, now, history);
    let kept = history.iter().zip(verdicts).filter(|(_, (_, verdict))| !verdict.is_expired());
    kept.map(|(checkpoint, _)| *checkpoint).collect()
}

fn ids(history: &[RetentionCandidate]) -> Vec<CheckpointId> {
    history.iter().map(|checkpoint| checkpoint.id).collect()
}

proptest! {
    #[test]
    fn what_goes_was_counted_and_was_not_the_newest(policy in policies(), history in histories()) {
        let verdicts = policy.decide(OPERATION, now(), &history);
        prop_assert_eq!(verdicts.len(), history.len());
        let newest = history.iter().filter(|one| counts(one)).map(|one| (one.created_at, one.id)).max();
        for (checkpoint, (id, verdict)) in history.iter().zip(&verdicts) {
            prop_assert_eq!(checkpoint.id, *id);
            if verdict.is_expired() {
                prop_assert!(counts(checkpoint) && policy.has_rules());
                prop_assert_ne!(Some((checkpoint.created_at, checkpoint.id)), newest);
            }
        }
    }

    #[test]
    fn what_the_policy_promises_stays(policy in policies(), history in histories()) {
        let kept = remaining(&policy, now(), &history);
        let all = history.iter().filter(|one| counts(one)).count();
        let left: Vec<_> = kept.iter().filter(|one| counts(one)).collect();
        let promised = usize::try_from(policy.minimum.max(1)).expect("small");
        prop_assert!(left.len() >= promised.min(all));
        // Each of the latest periods still has a checkpoint, and it is the newest of its period.
        for (generation, count) in [
            (Generation::Hourly, policy.generations.hourly),
            (Generation::Daily, policy.generations.daily),
            (Generation::Weekly, policy.generations.weekly),
            (Generation::Monthly, policy.generations.monthly),
            (Generation::Yearly, policy.generations.yearly),
        ] {
            let mut newest = BTreeMap::new();
            for one in history.iter().filter(|one| counts(one)) {
                let found = newest.entry(generation.period(one.created_at)).or_insert((one.created_at, one.id));
                *found = (*found).max((one.created_at, one.id));
            }
            for (_, (_, id)) in newest.iter().rev().take(usize::try_from(count).expect("small")) {
                prop_assert!(kept.iter().any(|one| one.id == *id), "{:?} {}", generation, id);
            }
        }
        if policy.generations == Generations::default()
            && let Some(count) = policy.max_count
        {
            prop_assert!(left.len() <= usize::try_from(count.max(policy.minimum).max(1)).expect("small"));
        }
    }

    #[test]
    fn a_second_look_lets_nothing_more_go(policy in policies(), history in histories()) {
        let kept = remaining(&policy, now(), &history);
        prop_assert_eq!(ids(&remaining(&policy, now(), &kept)), ids(&kept));
    }

    #[test]
    fn the_order_of_the_list_decides_nothing(policy in policies(), history in histories()) {
        let reversed: Vec<_> = history.iter().rev().copied().collect();
        let mut kept = ids(&remaining(&policy, now(), &reversed));
        kept.reverse();
        prop_assert_eq!(kept, ids(&remaining(&policy, now(), &history)));
    }

    #[test]
    fn what_went_does_not_come_back(policy in policies(), history in histories(), later in 0_i64..90) {
        let kept = ids(&remaining(&policy, now(), &history));
        // Neither with time, nor when newer ones come.
        let then = now().plus_seconds(later * 86_400);
        let newer = made_at(1_000_000, "2027-01-01T00:00:00Z");
        let newer = RetentionCandidate { created_at: now().plus_seconds(1), ..newer };
        let grown: Vec<_> = history.iter().copied().chain([newer]).collect();
        for id in ids(&remaining(&policy, then, &history)) {
            prop_assert!(kept.contains(&id));
        }
        for id in ids(&remaining(&policy, then, &grown)) {
            prop_assert!(kept.contains(&id) || id == newer.id);
        }
    }

    #[test]
    fn a_wider_policy_keeps_no_less(policy in policies(), history in histories(), more in 1_u32..4) {
        let kept = ids(&remaining(&policy, now(), &history));
        let mut wider = policy;
        wider.minimum += more;
        wider.generations.daily += if policy.has_rules() { more } else { 0 };
        wider.max_count = policy.max_count.map(|count| count + more);
        wider.max_days = policy.max_days.map(|days| days + more);
        let kept_by_wider = ids(&remaining(&wider, now(), &history));
        for id in kept {
            prop_assert!(kept_by_wider.contains(&id));
        }
    }
}
