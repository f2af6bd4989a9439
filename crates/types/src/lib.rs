//! Ids, states and plain data that every other crate speaks.
//!
//! Invariant: pure. No I/O, no clock, no randomness: ids and instants come in from the composition root.
//! What is here crosses crate borders and processes, so all of it is `serde` data; what lies on disk or
//! goes over a wire has a type of its own elsewhere and is converted.

mod id;
mod instant;
mod metadata;
mod occurrence;
mod parameters;
mod progress;
mod request;
mod resource;
mod retention;
mod state;

pub use id::{
    AccountId, CheckpointId, InvalidId, OccurrenceId, OperationId, OperationLogId, PlanId, ProjectId,
    ProviderId, RestoreId, ScheduledOperationId, TriggerId, UserId, VerificationId,
};
pub use instant::Instant;
pub use metadata::{CheckpointMetadata, MetadataError, PlanRecord, PluginRecord, ProviderRecord};
pub use occurrence::{CatchUp, OccurrenceEvent, OccurrenceReason, OccurrenceState};
pub use parameters::{Parameters, ParametersError};
pub use progress::Progress;
pub use request::{CopySource, FAILURE, OperationRequest, REVOKED, Thoroughness};
pub use resource::{Graph, GraphError, PackedGraph, Resource, ResourceKey, ResourceType};
pub use retention::{
    ExpiredBecause, Generation, Generations, KeptBecause, Retention, RetentionCandidate, RetentionError,
    RetentionPolicy,
};
pub use state::{
    CheckpointEvent, CheckpointState, Epoch, Hook, OperationKind, OperationState, RunEvent, RunState,
    StepState, UnknownState,
};
