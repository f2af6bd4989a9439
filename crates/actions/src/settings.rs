//! Limits and defaults of the actions.

pub use karbor_recurrence::Format as TimeFormat;
use karbor_store::QuotaDefaults;

/// Limits and defaults of the actions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What a project may have where nobody set its own limits.
    pub quota: QuotaDefaults,
    /// The most items of one page of a list.
    pub max_limit: u32,
    /// The shortest time between two runs of a trigger, in seconds.
    pub min_interval_seconds: u32,
    /// The shortest window of a trigger, in seconds.
    pub min_window_seconds: u32,
    /// The longest window of a trigger, in seconds.
    pub max_window_seconds: u32,
    /// How patterns are read when triggers do not say.
    pub time_format: TimeFormat,
    /// After how many seconds without a sign of life a service is down.
    pub service_down_seconds: u32,
    /// How old an index of checkpoints may be when they are listed; then the bank is looked at.
    pub bank_look_seconds: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            quota: QuotaDefaults::default(),
            max_limit: 1000,
            min_interval_seconds: 3600,
            min_window_seconds: 900,
            max_window_seconds: 1800,
            time_format: TimeFormat::Calendar,
            service_down_seconds: 60,
            bank_look_seconds: 10,
        }
    }
}
