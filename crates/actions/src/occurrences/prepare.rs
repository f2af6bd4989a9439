//! What an occurrence starts: asked for as its user would ask for it, and refused for the same reasons.

use std::collections::{BTreeSet, HashMap};

use karbor_store::{
    CheckpointColumn, CheckpointQuery, Filter, NewOperation, NewWork, Occurrence, Origin, Plan,
    ScheduledOperation,
};
use karbor_types::{
    CheckpointId, CheckpointState, Instant, OccurrenceReason, OperationId, OperationLogId, Parameters,
    PlanId, ProjectId, ProviderId, ScheduledOperationId, Thoroughness, VerificationId,
};
use serde_json::{Map, Value};

use crate::checkpoints::SCHEDULED_OPERATION;
use crate::occurrences::wrong;
use crate::{
    Actions, Caller, CopyRequest, Error, Kind, NewRestoreRequest, NewVerificationRequest, Principal, Result,
};

/// What is to be done with an occurrence.
#[derive(Debug)]
pub enum Decision {
    /// It starts this.
    Begin(Vec<NewWork>),
    /// It is skipped.
    Pass(OccurrenceReason, String),
    /// It has failed.
    Fail(OccurrenceReason, String),
    /// Something cannot be reached now: it is looked at again later.
    Later(String),
}

/// The roles of who made a scheduled operation, where they were not written down.
const MEMBER: &str = "member";

/// What is looked up once for all of a batch.
struct Batch {
    operations: HashMap<ScheduledOperationId, ScheduledOperation>,
    plans: HashMap<PlanId, (Plan, Option<Instant>)>,
    room: HashMap<(ProjectId, ProviderId), Option<String>>,
}

impl Actions {
    /// Works out what occurrences start, in their order. Nothing is changed.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] and [`Kind::Internal`] when the database cannot be asked; what concerns single occurrences
    /// is a decision about them.
    pub async fn prepare_occurrences(&self, occurrences: &[Occurrence]) -> Result<Vec<Decision>> {
        let ids: Vec<ScheduledOperationId> = occurrences.iter().map(|one| one.operation).collect();
        let operations = self.store().scheduled_operations(&ids).await?;
        let mut plans: Vec<PlanId> = operations.iter().filter_map(|one| plan_of(one).ok()).collect();
        plans.sort_unstable();
        plans.dedup();
        let plans = self.store().plans_to_run(&plans).await?;
        let mut batch = Batch {
            operations: operations.into_iter().map(|one| (one.id, one)).collect(),
            plans: plans.into_iter().map(|(plan, since)| (plan.id, (plan, since))).collect(),
            room: HashMap::new(),
        };
        batch.room = self.unlimited(&batch).await?;
        let mut decisions = Vec::with_capacity(occurrences.len());
        for occurrence in occurrences {
            let decision = match self.prepare(&mut batch, occurrence).await {
                Ok(decision) => decision,
                Err(err) => judged(&err),
            };
            decisions.push(decision);
        }
        Ok(decisions)
    }

    async fn prepare(&self, batch: &mut Batch, occurrence: &Occurrence) -> Result<Decision> {
        let Some(operation) = batch.operations.get(&occurrence.operation) else {
            let gone = "the scheduled operation was deleted, or cannot be read".to_owned();
            return Ok(Decision::Pass(OccurrenceReason::Gone, gone));
        };
        if !operation.enabled && occurrence.origin == Origin::Trigger {
            return Ok(Decision::Pass(OccurrenceReason::Paused, "it is paused".to_owned()));
        }
        let id = plan_of(operation)?;
        let Some((plan, suspended_at)) = batch.plans.get(&id) else {
            return Ok(Decision::Pass(OccurrenceReason::Gone, format!("plan {id} was deleted")));
        };
        if let Some(since) = suspended_at {
            let detail = format!("plan {id} is suspended since {since}");
            return Ok(Decision::Pass(OccurrenceReason::PlanSuspended, detail));
        }
        if self.registry().provider(plan.provider).is_none() {
            let detail = format!("provider {} does not exist any more", plan.provider);
            return Ok(Decision::Pass(OccurrenceReason::ProviderDisabled, detail));
        }
        let caller = self.caller_of(operation, occurrence);
        if plan.project != operation.project && !caller.is_admin {
            return Err(Error::not_found("plan", &id));
        }
        let (plan, operation) = (plan.clone(), operation.clone());
        let work = match operation.operation_type.as_str() {
            "protect" | "retention_protect" => {
                if let Some(full) = self.room_of(&mut batch.room, &plan).await? {
                    return Ok(Decision::Pass(OccurrenceReason::Quota, full));
                }
                self.protect_work(&caller, occurrence, plan)?
            }
            "verify" => self.verify_work(&caller, occurrence, &operation, &plan).await?,
            "restore_test" => self.restore_test_work(&caller, occurrence, &operation, &plan).await?,
            "copy" => self.copy_work(&caller, occurrence, &operation, &plan).await?,
            other => return Err(Error::invalid(format!("`{other}` cannot be scheduled"))),
        };
        if work.is_empty() {
            let nothing = "there is no checkpoint for it".to_owned();
            return Ok(Decision::Pass(OccurrenceReason::NothingToDo, nothing));
        }
        Ok(Decision::Begin(work))
    }

    /// Makes a caller of who made a scheduled operation.
    pub(crate) fn caller_of(&self, operation: &ScheduledOperation, occurrence: &Occurrence) -> Caller {
        let roles = operation.rules.roles.clone().unwrap_or_else(|| vec![MEMBER.to_owned()]);
        let principal = Principal::new(operation.user.clone(), operation.project.clone(), roles);
        self.caller(principal, format!("req-{}", occurrence.id))
    }

    /// Finds out for all of a batch who has no quota of bytes where its plans are kept, and so has room.
    async fn unlimited(&self, batch: &Batch) -> Result<HashMap<(ProjectId, ProviderId), Option<String>>> {
        let mut wanted: HashMap<ProviderId, BTreeSet<&ProjectId>> = HashMap::new();
        for (plan, _) in batch.plans.values() {
            wanted.entry(plan.provider).or_default().insert(&plan.project);
        }
        let mut room = HashMap::new();
        for (id, projects) in wanted {
            let Some(provider) = self.registry().provider(id) else { continue };
            let projects: Vec<&ProjectId> = projects.into_iter().collect();
            let limited = self.store().projects_with_bytes_limited(&projects, provider.bank()).await?;
            let free = projects.into_iter().filter(|project| !limited.contains(project));
            room.extend(free.map(|project| ((project.clone(), id), None)));
        }
        Ok(room)
    }

    /// Says why a project has no room with the provider of a plan, if it has none.
    async fn room_of(
        &self,
        known: &mut HashMap<(ProjectId, ProviderId), Option<String>>,
        plan: &Plan,
    ) -> Result<Option<String>> {
        let key = (plan.project.clone(), plan.provider);
        if let Some(known) = known.get(&key) {
            return Ok(known.clone());
        }
        let Some(provider) = self.registry().provider(plan.provider) else { return Ok(None) };
        let full = match self.has_room(&plan.project, provider).await {
            Ok(()) => None,
            Err(err @ Error::BankFull { .. }) => Some(err.to_string()),
            Err(err) => return Err(err),
        };
        known.insert(key, full.clone());
        Ok(full)
    }

    fn protect_work(&self, caller: &Caller, occurrence: &Occurrence, plan: Plan) -> Result<Vec<NewWork>> {
        self.allow(caller, "provider:checkpoint_create")?;
        let id = CheckpointId(occurrence.id.started(occurrence.attempt, ""));
        let (checkpoint, operation) = self.checkpoint_of_plan(caller, plan, id, extra_info(occurrence))?;
        Ok(vec![NewWork::Checkpoint(Box::new((checkpoint, of(occurrence, operation))))])
    }

    async fn verify_work(
        &self,
        caller: &Caller,
        occurrence: &Occurrence,
        operation: &ScheduledOperation,
        plan: &Plan,
    ) -> Result<Vec<NewWork>> {
        let thoroughness = thoroughness(&operation.definition)?;
        let Some(checkpoint) = self.newest_of(plan).await? else { return Ok(Vec::new()) };
        let id = occurrence.id.started(occurrence.attempt, "");
        let parameters = Parameters::default();
        let request =
            NewVerificationRequest { provider: plan.provider, checkpoint, parameters, thoroughness };
        let made = self.verification_to_make(caller, request, VerificationId(id)).await?;
        Ok(vec![NewWork::Verification(Box::new((made.0, of(occurrence, made.1))))])
    }

    async fn restore_test_work(
        &self,
        caller: &Caller,
        occurrence: &Occurrence,
        operation: &ScheduledOperation,
        plan: &Plan,
    ) -> Result<Vec<NewWork>> {
        let parameters = parameters(&operation.definition)?;
        let Some(checkpoint) = self.newest_of(plan).await? else { return Ok(Vec::new()) };
        let request =
            NewRestoreRequest { provider: plan.provider, checkpoint, parameters, target: None, login: None };
        let id = OperationId(occurrence.id.started(occurrence.attempt, ""));
        let (operation, _) = self.restore_test_to_make(caller, &request, id).await?;
        Ok(vec![NewWork::Operation(Box::new(of(occurrence, operation)))])
    }

    async fn copy_work(
        &self,
        caller: &Caller,
        occurrence: &Occurrence,
        operation: &ScheduledOperation,
        plan: &Plan,
    ) -> Result<Vec<NewWork>> {
        if self.newest_of(plan).await?.is_none() {
            return Ok(Vec::new());
        }
        let request = CopyRequest {
            plan: plan.id,
            provider: plan.provider,
            target: target(&operation.definition)?,
            parameters: parameters(&operation.definition)?,
        };
        let name = |source: CheckpointId| occurrence.id.started(occurrence.attempt, &source.to_string());
        let (_, rows) = self.copies_to_make(caller, request, name).await?;
        let work =
            |(checkpoint, operation)| NewWork::Checkpoint(Box::new((checkpoint, of(occurrence, operation))));
        Ok(rows.into_iter().map(work).collect())
    }

    /// Returns the newest available checkpoint of a plan with its own provider.
    async fn newest_of(&self, plan: &Plan) -> Result<Option<CheckpointId>> {
        let query = CheckpointQuery {
            project: Some(plan.project.clone()),
            filters: vec![
                Filter::Equals(CheckpointColumn::Plan, plan.id.to_string().into()),
                Filter::Equals(CheckpointColumn::Provider, plan.provider.to_string().into()),
                Filter::Equals(CheckpointColumn::State, CheckpointState::Available.as_str().into()),
            ],
            limit: 1,
            ..CheckpointQuery::default()
        };
        Ok(self.store().list_checkpoints(&query).await?.first().map(|checkpoint| checkpoint.id))
    }
}

/// Marks an operation as started by an occurrence. Its record in the log tells from which scheduled operation it comes,
/// and with it by what right it acts.
fn of(occurrence: &Occurrence, operation: NewOperation) -> NewOperation {
    let log = occurrence.id.started(occurrence.attempt, &format!("log/{}", operation.id));
    NewOperation {
        log: Some(OperationLogId(log)),
        scheduled_operation: Some(occurrence.operation),
        occurrence: Some((occurrence.id, occurrence.attempt)),
        ..operation
    }
}

/// What a checkpoint tells about who made it.
fn extra_info(occurrence: &Occurrence) -> Map<String, Value> {
    Map::from_iter([
        ("created_by".to_owned(), Value::from("operation-engine")),
        (SCHEDULED_OPERATION.to_owned(), Value::from(occurrence.operation.to_string())),
        ("trigger_id".to_owned(), Value::from(occurrence.trigger.to_string())),
        ("occurrence".to_owned(), Value::from(occurrence.at.to_string())),
    ])
}

fn judged(err: &Error) -> Decision {
    let detail = err.to_string();
    match err.kind() {
        Kind::Unavailable => Decision::Later(detail),
        Kind::OverQuota => Decision::Pass(OccurrenceReason::Quota, detail),
        Kind::NotFound => Decision::Pass(OccurrenceReason::Gone, detail),
        _ => Decision::Fail(OccurrenceReason::Refused, detail),
    }
}

fn plan_of(operation: &ScheduledOperation) -> Result<PlanId> {
    let id = operation.definition.get("plan_id").and_then(Value::as_str);
    id.and_then(|id| id.parse().ok()).ok_or_else(|| wrong("plan_id", "must be a plan's id"))
}

/// Reads how much a scheduled verification reads: `structure`, `all`, or a number of percent.
pub(crate) fn thoroughness(definition: &Map<String, Value>) -> Result<Thoroughness> {
    let refuse = || wrong("read", "must be `structure`, `all`, or 1 to 100 percent");
    let text = match definition.get("read") {
        None | Some(Value::Null) => return Ok(Thoroughness::All),
        Some(Value::String(text)) => text.trim().to_owned(),
        Some(Value::Number(number)) => number.to_string(),
        Some(_) => return Err(refuse()),
    };
    match text.as_str() {
        "structure" => Ok(Thoroughness::Structure),
        "all" => Ok(Thoroughness::All),
        number => match number.parse::<u8>() {
            Ok(percent @ 1..=100) => Ok(Thoroughness::Sample { percent }),
            _ => Err(refuse()),
        },
    }
}

/// Reads to which provider a scheduled copy goes.
pub(crate) fn target(definition: &Map<String, Value>) -> Result<Option<ProviderId>> {
    match definition.get("target_provider_id") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) => {
            id.parse().map(Some).map_err(|_| wrong("target_provider_id", "must be a provider's id"))
        }
        Some(_) => Err(wrong("target_provider_id", "must be a provider's id")),
    }
}

/// Reads the parameters of what is scheduled.
pub(crate) fn parameters(definition: &Map<String, Value>) -> Result<Parameters> {
    match definition.get("parameters") {
        None | Some(Value::Null) => Ok(Parameters::default()),
        Some(value) => {
            Parameters::parse(value).map_err(|err| wrong("parameters", &format!("are wrong: {err}")))
        }
    }
}
