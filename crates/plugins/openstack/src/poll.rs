//! Waiting for the cloud: with pauses that grow, for as long as was allowed, and no longer than somebody wants it.

use std::future::Future;
use std::time::Duration;

use karbor_plugin::{Error, ErrorKind, Result, Task};
use serde::Deserialize;
use tokio::time::Instant;

/// How the cloud is waited for: settings that all plugins have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub(crate) struct Patience {
    /// The longest pause between two questions, in seconds.
    pub(crate) poll_interval: u32,
    /// How long something may take, in seconds.
    pub(crate) wait_limit: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self { poll_interval: 5, wait_limit: 6 * 3600 }
    }
}

/// The first pause: most of what is waited for takes a second or two.
const FIRST: Duration = Duration::from_millis(200);

/// The longest that something may take to be removed, in seconds.
const REMOVAL_LIMIT: u32 = 900;

impl Patience {
    /// Returns how the removal of something is waited for: what does not go within minutes does not go.
    pub(crate) fn for_removal(self) -> Self {
        Self { wait_limit: self.wait_limit.min(REMOVAL_LIMIT), ..self }
    }

    /// Asks until there is an answer. `what` is waited for, such as "snapshot 1234 to become available".
    pub(crate) async fn wait<T, F>(
        self,
        task: &Task,
        what: &str,
        mut ask: impl FnMut() -> F + Send,
    ) -> Result<T>
    where
        F: Future<Output = Result<Option<T>>> + Send,
    {
        let deadline = Instant::now() + Duration::from_secs(self.wait_limit.into());
        let longest = Duration::from_secs(self.poll_interval.into()).max(FIRST);
        let mut pause = FIRST;
        loop {
            task.check_cancelled()?;
            if let Some(answer) = ask().await? {
                return Ok(answer);
            }
            if Instant::now() + pause > deadline {
                let text =
                    format!("waited {} s in vain for {what}; see the log of that service", self.wait_limit);
                return Err(Error::new(ErrorKind::Other, text));
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = task.cancel.cancelled() => return Err(Error::cancelled()),
            }
            // So that no more than about a fifth of the time is waited in vain.
            pause = (pause * 6 / 5).min(longest);
        }
    }
}

/// What a state says of something that is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    /// It is what it should be.
    Yes,
    /// It is on the way.
    NotYet,
    /// It will not come to it.
    Never,
}

/// Sorts a state; anything that is neither wanted nor on the way is the end of it.
pub(crate) fn reached(status: &str, wanted: &[&str], on_the_way: &[&str]) -> Reached {
    if wanted.contains(&status) {
        Reached::Yes
    } else if on_the_way.contains(&status) {
        Reached::NotYet
    } else {
        Reached::Never
    }
}
