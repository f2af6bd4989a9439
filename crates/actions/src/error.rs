//! Why an action was refused or failed, as kinds that a front end turns into its own words.

use karbor_plugin::ErrorKind as PluginKind;
use karbor_store::{Error as StoreError, QuotaResource};

/// The result of an action.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of refusal or failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// What was asked for is wrong.
    Invalid,
    /// The policy does not allow it.
    Forbidden,
    /// It does not exist, as far as the caller may know.
    NotFound,
    /// The object's state does not allow it.
    Conflict,
    /// Something else refers to the object.
    InUse,
    /// The project has used up what it may have.
    OverQuota,
    /// Something that is needed cannot be reached now.
    Unavailable,
    /// A fault of the service.
    Internal,
}

/// Why an action was refused or failed. The texts of all kinds but [`Kind::Internal`] and
/// [`Kind::Unavailable`] are meant for the caller.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What was asked for is wrong.
    #[error("{message}")]
    Invalid {
        /// What is wrong, and what would be right.
        message: String,
    },
    /// The policy does not allow it.
    #[error("the policy does not allow you to do this ({rule})")]
    Forbidden {
        /// The rule that refused.
        rule: String,
    },
    /// The object belongs to another project.
    #[error("{what} {id} belongs to another project")]
    Foreign {
        /// What kind of object.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// It does not exist, as far as the caller may know.
    #[error("{what} {id} does not exist")]
    NotFound {
        /// What kind of object.
        what: &'static str,
        /// Its id, as given.
        id: String,
    },
    /// A list was asked for from behind something that is not in it.
    #[error("the marker {marker} is not in the list")]
    UnknownMarker {
        /// The marker, as given.
        marker: String,
    },
    /// The object's state does not allow it.
    #[error("{message}")]
    Conflict {
        /// What stands against it, and what to do.
        message: String,
    },
    /// Something else refers to the object.
    #[error("{what} {id} is in use")]
    InUse {
        /// What kind of object.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// The project has used up what it may have.
    #[error(
        "the project's quota of {limit} {resource} is used up: delete some, or ask an administrator for more"
    )]
    OverQuota {
        /// What is limited.
        resource: QuotaResource,
        /// The limit.
        limit: u64,
    },
    /// The project has used up its bytes in a bank.
    #[error("the project's quota of {limit} bytes in the bank {bank} is used up: {used} are stored")]
    BankFull {
        /// The bank.
        bank: String,
        /// The limit.
        limit: u64,
        /// What is stored.
        used: u64,
    },
    /// Something that is needed cannot be reached now.
    #[error("{what} cannot be reached")]
    Unavailable {
        /// What.
        what: &'static str,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A plugin refused or failed.
    #[error("{}", .0.message())]
    Plugin(#[source] karbor_plugin::Error),
    /// A fault of the service.
    #[error("{doing} failed")]
    Internal {
        /// What the action was doing.
        doing: &'static str,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// Returns what kind of refusal or failure it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Invalid { .. } => Kind::Invalid,
            Self::Forbidden { .. } | Self::Foreign { .. } => Kind::Forbidden,
            Self::NotFound { .. } | Self::UnknownMarker { .. } => Kind::NotFound,
            Self::Conflict { .. } => Kind::Conflict,
            Self::InUse { .. } => Kind::InUse,
            Self::OverQuota { .. } | Self::BankFull { .. } => Kind::OverQuota,
            Self::Unavailable { .. } => Kind::Unavailable,
            Self::Internal { .. } => Kind::Internal,
            Self::Plugin(err) => match err.kind() {
                PluginKind::NotFound => Kind::NotFound,
                PluginKind::Invalid | PluginKind::Unsupported => Kind::Invalid,
                PluginKind::Conflict | PluginKind::Changed => Kind::Conflict,
                PluginKind::Denied => Kind::Forbidden,
                PluginKind::Unavailable => Kind::Unavailable,
                _ => Kind::Internal,
            },
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into() }
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::Conflict { message: message.into() }
    }

    pub(crate) fn not_found(what: &'static str, id: &impl ToString) -> Self {
        Self::NotFound { what, id: id.to_string() }
    }
}

impl From<karbor_plugin::Error> for Error {
    fn from(err: karbor_plugin::Error) -> Self {
        Self::Plugin(err)
    }
}

impl From<StoreError> for Error {
    fn from(err: StoreError) -> Self {
        match err {
            StoreError::NotFound { what, id } => Self::NotFound { what, id },
            StoreError::Conflict { what, id, state } => {
                Self::Conflict { message: format!("{what} {id} is {state}") }
            }
            StoreError::AlreadyExists { what, id } => {
                Self::Conflict { message: format!("{what} {id} exists already") }
            }
            StoreError::InUse { what, id } => Self::InUse { what, id },
            StoreError::OverQuota { resource, limit } => Self::OverQuota { resource, limit },
            StoreError::UnknownMarker { marker } => Self::UnknownMarker { marker },
            StoreError::Invalid { what, reason } => {
                Self::Invalid { message: format!("{what} cannot be stored: {reason}") }
            }
            err @ StoreError::Busy { .. } => {
                Self::Unavailable { what: "the database", source: Box::new(err) }
            }
            err => Self::Internal { doing: "using the database", source: Box::new(err) },
        }
    }
}
