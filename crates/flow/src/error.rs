//! What can go wrong when a flow is rebuilt or driven.

use karbor_types::{Hook, StepState};

/// The result of a call to this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A call that does not fit the flow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A stored step names a resource that the graph does not have.
    #[error("step {step} belongs to resource {resource}, and the graph has only {resources}")]
    UnknownResource {
        /// The step's place in the list.
        step: usize,
        /// The resource that it names.
        resource: usize,
        /// How many resources there are.
        resources: usize,
    },
    /// Two stored steps are the same hook of the same resource.
    #[error("step {step} repeats the hook {hook} of resource {resource}")]
    Repeated {
        /// The later step's place in the list.
        step: usize,
        /// The resource that it names.
        resource: usize,
        /// The hook.
        hook: Hook,
    },
    /// As many states are needed as there are steps.
    #[error("{states} states were given for {steps} steps")]
    StateCount {
        /// How many states were given.
        states: usize,
        /// How many steps there are.
        steps: usize,
    },
    /// Only a step that was handed out ends.
    #[error("step {step} cannot end: it is {state}")]
    NotRunning {
        /// The step.
        step: usize,
        /// What it is.
        state: StepState,
    },
    /// There is no such step.
    #[error("there is no step {step} among {steps}")]
    NoSuchStep {
        /// The step that was named.
        step: usize,
        /// How many there are.
        steps: usize,
    },
}
