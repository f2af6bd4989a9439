//! How the database goes about what is asked of it all the time: for tests and for people who wonder.

use karbor_types::{
    Instant, OccurrenceEvent, OccurrenceId, OccurrenceState, OperationKind, OperationState, ProjectId,
    ProviderId, ScheduledOperationId, TriggerId,
};
use sea_query::QueryStatementWriter;
use uuid::Uuid;

use crate::store::{beginnings, delegations, handouts, occurrences, operations, promises};
use crate::{Advance, ClaimOptions, DueTrigger, HandOut, Outcome, Promising, Result, Store};

impl Store {
    /// Returns how the database goes about each statement with which schedulers look for work, by name, in its own words.
    ///
    /// # Errors
    /// [`crate::Error::Database`].
    pub async fn explain_schedule(&self, now: Instant) -> Result<Vec<(&'static str, String)>> {
        let id = Uuid::from_u128(1);
        let (provider, operation) = (ProviderId(id), ScheduledOperationId(id));
        let project = ProjectId::new("p").expect("a valid id");
        let options = ClaimOptions {
            owner: "nobody".to_owned(),
            kinds: vec![OperationKind::Protect, OperationKind::Restore],
            skip_projects: Vec::new(),
            lease_seconds: 30,
        };
        let mut statements = vec![
            ("due triggers", handouts::due_triggers(now, 500)),
            ("the next due trigger", handouts::next_due()),
            (
                "whom triggers concern",
                handouts::enlisted(&[TriggerId(id), TriggerId(Uuid::nil())], None, 500),
            ),
            ("more whom a trigger concerns", handouts::enlisted(&[TriggerId(id)], Some(operation), 500)),
            ("due retention", occurrences::to_retain(now, 500)),
            ("the first provider", occurrences::next_ready_provider(None)),
            ("the next provider", occurrences::next_ready_provider(Some(provider))),
            ("what is ready", occurrences::ready(provider, None, 500)),
            ("what else is ready", occurrences::ready(provider, Some(&project), 500)),
            ("how much is started", occurrences::started_counts()),
            (
                "what still runs",
                occurrences::open_operations(&[operation, ScheduledOperationId(Uuid::nil())]),
            ),
            (
                "what became of occurrences",
                occurrences::started_operations(&[OccurrenceId(id), OccurrenceId(Uuid::nil())]),
            ),
            ("old occurrences", occurrences::ended_before(now, 500)),
            ("the highest priority", operations::next_priority(None)),
            ("the next priority", operations::next_priority(Some(0))),
            ("abandoned work", operations::most_urgent(&options, 0, OperationState::Running, now)),
            ("work that waits", operations::most_urgent(&options, 0, OperationState::Queued, now)),
            ("rights of what has ended", delegations::ended(now, 500)),
            ("rights of what is deleted", delegations::unscheduled(delegations::RELEASED, now, 500)),
            ("rights nobody has claimed", delegations::unscheduled(delegations::NEW, now, 500)),
        ];
        let promising =
            Promising { operation, plan: None, trigger: TriggerId(id), created_at: now, updated_at: None };
        statements.push(("who promises checkpoints", promises::promising(None, Some(&promising), 500)));
        statements.push((
            "who promises checkpoints in a project",
            promises::promising(Some(&project), Some(&promising), 500),
        ));
        for state in [OccurrenceState::Waiting, OccurrenceState::Ready, OccurrenceState::Started] {
            statements.push(("what is to be looked at", occurrences::to_look_at(state, now, 500)));
        }
        self.explained(statements).await
    }

    /// Returns how the database goes about each change of rows that a scheduler knows by their ids, by name, in its own
    /// words.
    ///
    /// # Errors
    /// [`crate::Error::Database`].
    pub async fn explain_changes(
        &self,
        triggers: &[DueTrigger],
        known: &[OccurrenceId],
        now: Instant,
    ) -> Result<Vec<(&'static str, String)>> {
        let mut statements = Vec::new();
        if let Some(trigger) = triggers.first() {
            let handout = HandOut { trigger: trigger.clone(), advance: Advance::To(None) };
            let ids: Vec<String> = triggers.iter().map(|trigger| trigger.id.to_string()).collect();
            statements.push(("moving triggers on", handouts::advance(&handout, &ids)));
        }
        let ids: Vec<String> = known.iter().map(OccurrenceId::to_string).collect();
        let before = (OccurrenceState::Ready, 0);
        let outcome = Outcome::of(OccurrenceEvent::Passed);
        statements.push(("making ready", occurrences::ripened(ids.clone(), now)));
        statements.push(("beginning", beginnings::begun(0, &ids, now)));
        statements.push((
            "judging",
            occurrences::judged(before, OccurrenceState::Skipped, &outcome, ids.clone(), now),
        ));
        self.explained(statements).await
    }

    async fn explained(
        &self,
        statements: Vec<(&'static str, impl QueryStatementWriter + Sync)>,
    ) -> Result<Vec<(&'static str, String)>> {
        let mut told = Vec::with_capacity(statements.len());
        for (name, statement) in statements {
            told.push((name, self.inner.database.explain(&statement).await?));
        }
        Ok(told)
    }
}
