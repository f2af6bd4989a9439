//! State machines. Each is one total function; everything that changes a state goes through it.
//!
//! Invariant 13: every state has a way out; the test at the end walks all of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Counts the owners of an operation: each claim makes a new one, and every write carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u32);

impl fmt::Display for Epoch {
    /// Writes eight hexadecimal digits, so that keys sort by epoch.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// A text that names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}")]
pub struct UnknownState {
    /// Which kind of state was expected.
    pub what: &'static str,
    /// The text that was given.
    pub text: String,
}

macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// All values, in order.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Returns the text that the API and the database use.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownState;
            fn from_str(text: &str) -> Result<Self, UnknownState> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(UnknownState { what: $what, text: text.to_owned() }),
                }
            }
        }
    };
}

pub(crate) use text_enum;

text_enum!(/** The state of a checkpoint. */ CheckpointState, "checkpoint state" {
    /** Its data is being stored. */ Protecting = "protecting",
    /** All of it is committed and can be restored. */ Available = "available",
    /** It failed; what is in the bank of it, if anything, is not whole. */ Error = "error",
    /** It is being deleted. */ Deleting = "deleting",
    /** It is gone. */ Deleted = "deleted",
    /** Deleting failed; delete it again. */ ErrorDeleting = "error-deleting",
    /** A copy that waits for its turn. */ WaitCopying = "wait_copying",
    /** A copy that is being made. */ Copying = "copying",
});

text_enum!(/** What happens to a checkpoint. */ CheckpointEvent, "checkpoint event" {
    /** The operation that makes it began. */ Started = "started",
    /** Its commit record stands. */ Finished = "finished",
    /** The operation that makes it failed or was cancelled. */ Failed = "failed",
    /** Somebody asked to delete it. */ DeleteRequested = "delete-requested",
    /** Its commit record is gone, and what plugins kept outside. */ Removed = "removed",
    /** Deleting failed. */ DeleteFailed = "delete-failed",
    /** Somebody reset it to available, and it was seen to be whole. */ ResetAvailable = "reset-available",
    /** Somebody reset it to error. */ ResetError = "reset-error",
});

impl CheckpointState {
    /// Returns the state after `event`, or `None` when the event does not apply.
    pub fn after(self, event: CheckpointEvent) -> Option<Self> {
        use {CheckpointEvent as E, CheckpointState as S};
        match (self, event) {
            (S::WaitCopying, E::Started) => Some(S::Copying),
            (S::Protecting | S::Copying, E::Finished) => Some(S::Available),
            (S::Protecting | S::Copying | S::WaitCopying, E::Failed) => Some(S::Error),
            // What is being made is not deleted under its maker: cancel it first.
            (S::Available | S::Error | S::ErrorDeleting, E::DeleteRequested) => Some(S::Deleting),
            (S::Deleting, E::Removed) => Some(S::Deleted),
            (S::Deleting, E::DeleteFailed) => Some(S::ErrorDeleting),
            (S::Available | S::Error | S::Copying | S::WaitCopying, E::ResetAvailable) => Some(S::Available),
            (S::Available | S::Error | S::Copying | S::WaitCopying, E::ResetError) => Some(S::Error),
            _ => None,
        }
    }
}

text_enum!(/** The state of a restore or a verification. */ RunState, "restore state" {
    /** It waits for a worker or runs. */ InProgress = "in_progress",
    /** All resources are done. */ Success = "success",
    /** At least one resource failed, or it was cancelled. */ Fail = "fail",
});

text_enum!(/** What happens to a restore or a verification. */ RunEvent, "restore event" {
    /** All resources are done. */ Finished = "finished",
    /** It failed or was cancelled. */ Failed = "failed",
    /** What was not done is tried again. */ Resumed = "resumed",
});

impl RunState {
    /// Returns the state after `event`, or `None` when the event does not apply.
    pub fn after(self, event: RunEvent) -> Option<Self> {
        match (self, event) {
            (Self::InProgress, RunEvent::Finished) => Some(Self::Success),
            (Self::InProgress, RunEvent::Failed) => Some(Self::Fail),
            (Self::Fail, RunEvent::Resumed) => Some(Self::InProgress),
            _ => None,
        }
    }
}

text_enum!(/** What an operation does. */ OperationKind, "operation kind" {
    /** Makes a checkpoint of a plan. */ Protect = "protect",
    /** Restores a checkpoint. */ Restore = "restore",
    /** Checks a checkpoint. */ Verify = "verify",
    /** Copies a checkpoint into another bank. */ Copy = "copy",
    /** Deletes a checkpoint. */ Delete = "delete",
    /** Frees what no checkpoint reaches. */ Sweep = "sweep",
});

text_enum!(/** The state of an operation. */ OperationState, "operation state" {
    /** Waits for a worker. */ Queued = "queued",
    /** A worker has it, as long as its lease lasts. */ Running = "running",
    /** Done. */ Succeeded = "succeeded",
    /** Ended with a reason. */ Failed = "failed",
    /** Ended because somebody asked for it. */ Cancelled = "cancelled",
});

impl OperationState {
    /// Returns whether nothing more will happen to it.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

text_enum!(/** The state of one step of an operation. */ StepState, "step state" {
    /** Not started, or to be started again. */ Pending = "pending",
    /** Started; after a crash it is started again. */ Running = "running",
    /** Done, and its outcome is durable. */ Done = "done",
    /** Failed for good. */ Failed = "failed",
    /** Not run, because something before it failed or there was nothing to do. */ Skipped = "skipped",
});

text_enum!(/** One of the four points at which a protection plugin is called for one resource, in this order. */ Hook, "hook" {
    /** Down the graph, parents first: quiesce. */ PrepareBegin = "prepare_begin",
    /** Up the graph, children first: snapshot, let go again. */ PrepareFinish = "prepare_finish",
    /** All in parallel: move the bytes. */ Main = "main",
    /** Up the graph, children first: put together what the children became. */ Complete = "complete",
});

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_checkpoint_state_has_a_way_to_deleted() {
        for &start in CheckpointState::ALL {
            let mut seen = BTreeSet::from([start]);
            let mut todo = vec![start];
            while let Some(state) = todo.pop() {
                for &event in CheckpointEvent::ALL {
                    if let Some(next) = state.after(event)
                        && seen.insert(next)
                    {
                        todo.push(next);
                    }
                }
            }
            assert!(seen.contains(&CheckpointState::Deleted), "{start} is a dead end");
        }
    }

    #[test]
    fn nothing_becomes_available_but_by_a_commit_or_a_checked_reset() {
        for &state in CheckpointState::ALL {
            for &event in CheckpointEvent::ALL {
                if state.after(event) == Some(CheckpointState::Available) {
                    assert!(matches!(event, CheckpointEvent::Finished | CheckpointEvent::ResetAvailable));
                }
            }
        }
    }

    #[test]
    fn texts_are_read_back() {
        for &state in CheckpointState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        assert_eq!(CheckpointState::ErrorDeleting.as_str(), "error-deleting");
        assert!("Available".parse::<CheckpointState>().is_err());
    }
}
