//! Named places at which the process can be made to die, for the tests that kill it at each of them.
//!
//! Without the feature `failpoints` there is nothing here but an empty function. With it, the composition root
//! arms one place; the name is `<operation>.<place>`, and `*<n>` behind it means the n-th time.

use karbor_types::OperationKind;

/// A place that every operation passes, or some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The operation is claimed, and nothing is done yet.
    Claimed,
    /// The account is open, and the session or the reader stands.
    Opened,
    /// The resource graph is stored.
    GraphStored,
    /// The steps are stored.
    StepsStored,
    /// Delete: what plugins need is stored apart from the commit record.
    RecordsStored,
    /// Delete: the tombstone stands.
    Tombstoned,
    /// Steps are recorded as started; the hooks of those that are recorded first have not begun.
    StepStarted,
    /// A hook has returned, and nothing of that is durable.
    HookDone,
    /// What steps wrote is durable in the bank, and their outcomes are not recorded.
    Flushed,
    /// Outcomes are recorded.
    StepRecorded,
    /// All steps have ended.
    FlowDone,
    /// What the operation made on the way is gone.
    CleanedUp,
    /// A sweep is queued.
    SweepQueued,
    /// Protect, copy: the commit record stands.
    Committed,
    /// Protect, copy: the session is closed without a commit.
    Abandoned,
    /// Restore, verify: the reader's session is closed.
    Closed,
    /// Verify: the data engine has looked.
    Checked,
    /// Sweep: sessions on which nobody is at work are ended.
    Fenced,
    /// Sweep: what could be freed is freed.
    Swept,
    /// The operation's end is recorded.
    Finished,
}

#[cfg(any(test, feature = "failpoints"))]
mod armed {
    use std::fmt;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::{OperationKind, Place};

    impl Place {
        const fn as_str(self) -> &'static str {
            match self {
                Self::Claimed => "claimed",
                Self::Opened => "opened",
                Self::GraphStored => "graph_stored",
                Self::StepsStored => "steps_stored",
                Self::RecordsStored => "records_stored",
                Self::Tombstoned => "tombstoned",
                Self::StepStarted => "step_started",
                Self::HookDone => "hook_done",
                Self::Flushed => "flushed",
                Self::StepRecorded => "step_recorded",
                Self::FlowDone => "flow_done",
                Self::CleanedUp => "cleaned_up",
                Self::SweepQueued => "sweep_queued",
                Self::Committed => "committed",
                Self::Abandoned => "abandoned",
                Self::Closed => "closed",
                Self::Checked => "checked",
                Self::Fenced => "fenced",
                Self::Swept => "swept",
                Self::Finished => "finished",
            }
        }
    }

    /// All names that can be armed. Those with `flushed` are passed only by operations that write streams, those
    /// with `abandoned` only by those that fail or are cancelled.
    pub const CRASH_POINTS: &[&str] = &[
        "protect.claimed",
        "protect.opened",
        "protect.graph_stored",
        "protect.steps_stored",
        "protect.step_started",
        "protect.hook_done",
        "protect.flushed",
        "protect.step_recorded",
        "protect.flow_done",
        "protect.cleaned_up",
        "protect.sweep_queued",
        "protect.committed",
        "protect.abandoned",
        "protect.finished",
        "restore.claimed",
        "restore.opened",
        "restore.steps_stored",
        "restore.step_started",
        "restore.hook_done",
        "restore.step_recorded",
        "restore.flow_done",
        "restore.cleaned_up",
        "restore.closed",
        "restore.finished",
        "verify.claimed",
        "verify.opened",
        "verify.checked",
        "verify.steps_stored",
        "verify.step_started",
        "verify.hook_done",
        "verify.step_recorded",
        "verify.flow_done",
        "verify.cleaned_up",
        "verify.closed",
        "verify.finished",
        "delete.claimed",
        "delete.opened",
        "delete.steps_stored",
        "delete.records_stored",
        "delete.tombstoned",
        "delete.step_started",
        "delete.hook_done",
        "delete.step_recorded",
        "delete.flow_done",
        "delete.cleaned_up",
        "delete.sweep_queued",
        "delete.finished",
        "copy.claimed",
        "copy.opened",
        "copy.graph_stored",
        "copy.sweep_queued",
        "copy.committed",
        "copy.abandoned",
        "copy.finished",
        "sweep.claimed",
        "sweep.opened",
        "sweep.fenced",
        "sweep.swept",
        "sweep.sweep_queued",
        "sweep.finished",
    ];

    /// What happens at the armed place.
    type Action = Arc<dyn Fn() + Send + Sync>;

    /// The place that is armed, if one is.
    #[derive(Clone, Default)]
    pub struct CrashPoints {
        armed: Option<Armed>,
    }

    #[derive(Clone)]
    struct Armed {
        name: String,
        left: Arc<AtomicU32>,
        action: Action,
    }

    /// A text that names no place.
    #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
    #[error("`{text}` is no crash point: it is one of the listed names, with *<count> behind it if need be")]
    pub struct UnknownCrashPoint {
        /// The text that was given.
        pub text: String,
    }

    impl CrashPoints {
        /// Lets the process abort, as if it were killed, at the place that `text` names.
        ///
        /// # Errors
        /// When there is no such place.
        pub fn abort_at(text: &str) -> Result<Self, UnknownCrashPoint> {
            Self::act_at(text, Arc::new(|| std::process::abort()))
        }

        /// Lets `action` be called at the place that `text` names; what came there waits for ever afterwards.
        ///
        /// # Errors
        /// When there is no such place.
        pub fn act_at(text: &str, action: Action) -> Result<Self, UnknownCrashPoint> {
            let unknown = || UnknownCrashPoint { text: text.to_owned() };
            let (name, count) = text.split_once('*').unwrap_or((text, "1"));
            let count: u32 = count.parse().map_err(|_| unknown())?;
            if !CRASH_POINTS.contains(&name) || count == 0 {
                return Err(unknown());
            }
            let left = Arc::new(AtomicU32::new(count));
            Ok(Self { armed: Some(Armed { name: name.to_owned(), left, action }) })
        }

        /// Dies here, if this is the place.
        pub(crate) async fn pass(&self, kind: OperationKind, place: Place) {
            let Some(armed) = &self.armed else { return };
            let Some((operation, name)) = armed.name.split_once('.') else { return };
            if operation == kind.as_str()
                && name == place.as_str()
                && armed.left.fetch_sub(1, Ordering::SeqCst) == 1
            {
                (armed.action)();
                // Whatever was armed, nothing goes on from here.
                std::future::pending::<()>().await;
            }
        }
    }

    impl fmt::Debug for CrashPoints {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_tuple("CrashPoints").field(&self.armed.as_ref().map(|armed| &armed.name)).finish()
        }
    }
}

#[cfg(any(test, feature = "failpoints"))]
pub use armed::{CRASH_POINTS, CrashPoints, UnknownCrashPoint};

/// Stands for the places that can be armed where none can.
#[cfg(not(any(test, feature = "failpoints")))]
#[derive(Debug, Default)]
pub(crate) struct CrashPoints(());

#[cfg(not(any(test, feature = "failpoints")))]
impl CrashPoints {
    #[expect(clippy::unused_async, reason = "it has a body with the feature")]
    pub(crate) async fn pass(&self, _kind: OperationKind, _place: Place) {}
}
