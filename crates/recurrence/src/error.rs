//! Why a pattern is not taken: the field that is wrong, and what is wrong with it.

/// A recurrence that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The pattern cannot be read, or names no time at all.
    #[error("pattern: {reason}")]
    Pattern {
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// The time zone does not exist.
    #[error("time zone `{zone}` does not exist; names are those of the IANA database, such as Europe/Rome")]
    Zone {
        /// The name that was given.
        zone: String,
    },
    /// The end is not after the start.
    #[error("end_time must be later than start_time")]
    EndBeforeStart,
}

impl Error {
    pub(crate) fn pattern(reason: impl Into<String>) -> Self {
        Self::Pattern { reason: reason.into() }
    }

    /// Returns the property of a trigger that has to be changed.
    pub const fn field(&self) -> &'static str {
        match self {
            Self::Pattern { .. } => "pattern",
            Self::Zone { .. } => "time_zone",
            Self::EndBeforeStart => "end_time",
        }
    }

    /// Returns what is wrong, without the name of the field.
    pub fn reason(&self) -> String {
        match self {
            Self::Pattern { reason } => reason.clone(),
            Self::Zone { zone } => format!("`{zone}` does not exist; names are those of the IANA database"),
            Self::EndBeforeStart => "must be later than start_time".to_owned(),
        }
    }
}
