//! What becomes of one occurrence of a scheduled operation.
//!
//! Invariant 10: no due occurrence is lost or run twice, and a missed one is recorded with its reason. An occurrence is
//! a row from the moment at which it is due, and ends in one of three states; nothing leads out of those.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::UnknownState;
use crate::state::text_enum;

text_enum!(/** The state of one occurrence of a scheduled operation. */ OccurrenceState, "occurrence state" {
    /** Its time has not come: it is spread, or waits for another attempt. */ Waiting = "waiting",
    /** It can be started as soon as there is room. */ Ready = "ready",
    /** What it started has not ended. */ Started = "started",
    /** What it started did what it should. */ Succeeded = "succeeded",
    /** What it started failed, or it could not be started. */ Failed = "failed",
    /** It was not started, for a reason that is told. */ Skipped = "skipped",
});

text_enum!(/** What happens to an occurrence. */ OccurrenceEvent, "occurrence event" {
    /** Its time has come. */ Ripened = "ripened",
    /** Its operations were queued. */ Began = "began",
    /** All that it started went well. */ Succeeded = "succeeded",
    /** An attempt failed, and another one follows. */ PutOff = "put-off",
    /** It failed for good. */ Failed = "failed",
    /** It is not started. */ Passed = "passed",
});

impl OccurrenceState {
    /// Returns the state after `event`, or `None` when the event does not apply.
    pub fn after(self, event: OccurrenceEvent) -> Option<Self> {
        use {OccurrenceEvent as E, OccurrenceState as S};
        match (self, event) {
            (S::Waiting, E::Ripened) => Some(S::Ready),
            (S::Ready, E::Began) => Some(S::Started),
            (S::Started, E::Succeeded) => Some(S::Succeeded),
            (S::Started | S::Ready, E::PutOff) => Some(S::Waiting),
            (S::Started | S::Ready | S::Waiting, E::Failed) => Some(S::Failed),
            (S::Waiting | S::Ready, E::Passed) => Some(S::Skipped),
            _ => None,
        }
    }

    /// Returns whether nothing more will happen to it.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Skipped)
    }
}

text_enum!(/** Why an occurrence was skipped or failed. */ OccurrenceReason, "reason of an occurrence" {
    /** It could not be started inside its window. */ WindowMissed = "window_missed",
    /** The occurrence before it was still running. */ StillRunning = "still_running",
    /** The scheduled operation was paused. */ Paused = "paused",
    /** The plan was suspended. */ PlanSuspended = "plan_suspended",
    /** The project had used up what it may have. */ Quota = "quota",
    /** The provider did not exist, or did not do this. */ ProviderDisabled = "provider_disabled",
    /** There was nothing to do: nothing to copy, or no checkpoint to look at. */ NothingToDo = "nothing_to_do",
    /** The scheduled operation or its plan was deleted. */ Gone = "gone",
    /** The right by which it acts was taken back. */ TrustRevoked = "trust_revoked",
    /** The policy did not allow it, or it was refused for another reason. */ Refused = "refused",
    /** What it started failed. */ OperationFailed = "operation_failed",
    /** Somebody cancelled what it started. */ Cancelled = "cancelled",
});

text_enum!(/** What is done with the last occurrence that was missed. */ CatchUp, "catch-up rule" {
    /** It is run once, now. */ RunOnce = "run_once",
    /** It is skipped. */ Skip = "skip",
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Instant, OccurrenceId, ScheduledOperationId};
    use std::collections::BTreeSet;
    use uuid::Uuid;

    #[test]
    fn every_occurrence_comes_to_an_end_and_stays_there() {
        for &start in OccurrenceState::ALL {
            let mut seen = BTreeSet::from([start]);
            let mut todo = vec![start];
            while let Some(state) = todo.pop() {
                for &event in OccurrenceEvent::ALL {
                    let Some(next) = state.after(event) else { continue };
                    assert!(!state.is_final(), "{state} is left by {event}");
                    if seen.insert(next) {
                        todo.push(next);
                    }
                }
            }
            assert!(seen.iter().any(|state| state.is_final()), "{start} is a dead end");
        }
    }

    #[test]
    fn only_what_was_started_succeeds() {
        for &state in OccurrenceState::ALL {
            let succeeds = state.after(OccurrenceEvent::Succeeded).is_some();
            assert_eq!(succeeds, state == OccurrenceState::Started, "{state}");
        }
    }

    #[test]
    fn ids_are_derived_from_the_operation_and_the_instant() {
        let [one, other] = [1, 2].map(|number| ScheduledOperationId(Uuid::from_u128(number)));
        let at = Instant::from_micros(1_767_225_600_000_000);
        let id = OccurrenceId::of(one, at);
        assert_eq!(id, OccurrenceId::of(one, at));
        assert_ne!(id, OccurrenceId::of(other, at));
        assert_ne!(id, OccurrenceId::of(one, at.plus_seconds(1)));
        assert_eq!(id.started(1, ""), id.started(1, ""));
        assert_ne!(id.started(1, ""), id.started(2, ""));
        assert_ne!(id.started(1, ""), id.started(1, "a"));
    }
}
