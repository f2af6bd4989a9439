//! When a trigger will fire, asked before it does.

use karbor_types::{Instant, TriggerId};
use serde_json::{Map, Value};

use crate::triggers::{TIME, TriggerTimes};
use crate::{Actions, Caller, Error, Result};

/// How many times can be asked for at once.
pub const MAX_PREVIEW: u32 = 100;

/// The next times of a trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// The times, in order.
    pub occurrences: Vec<Instant>,
    /// The shortest and the longest time between two of them, in seconds; nothing when there is only one.
    pub gaps: Option<(i64, i64)>,
    /// How many seconds after its time the trigger may still fire.
    pub window_seconds: u32,
}

impl Actions {
    /// Returns the next times of a trigger.
    ///
    /// # Errors
    /// [`Error::NotFound`], also when the policy does not let the caller see it; [`Error::Invalid`] for too many.
    pub async fn preview_trigger(&self, caller: &Caller, id: TriggerId, count: u32) -> Result<Preview> {
        let trigger = self.get_trigger(caller, id).await?;
        if trigger.kind != TIME {
            return Err(Error::invalid(format!("trigger {id} fires when it is called, not at times")));
        }
        let times = TriggerTimes::read(&trigger.properties, self.settings(), trigger.created_at);
        let times = times.map_err(|asked| Error::invalid(format!("trigger {id} cannot be read: {asked}")))?;
        self.preview(&times, count)
    }

    /// Returns the times that a trigger with these properties would fire at, and refuses those that could not be
    /// stored; stores nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the property and what is wrong with it.
    pub fn preview_properties(
        &self,
        caller: &Caller,
        properties: Map<String, Value>,
        count: u32,
    ) -> Result<Preview> {
        self.allow(caller, "trigger:create")?;
        let (_, times) = self.checked_times(TIME, properties)?;
        self.preview(&times, count)
    }

    fn preview(&self, times: &TriggerTimes, count: u32) -> Result<Preview> {
        if !(1..=MAX_PREVIEW).contains(&count) {
            return Err(Error::invalid(format!("count must be 1 to {MAX_PREVIEW}")));
        }
        let wanted = usize::try_from(count).unwrap_or(usize::MAX);
        Ok(Preview {
            occurrences: times.upcoming(self.now()).take(wanted).collect(),
            gaps: times.extent().map(|extent| (extent.shortest, extent.longest)),
            window_seconds: times.window_seconds(),
        })
    }
}
