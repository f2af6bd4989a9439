//! What can go wrong with a tree.

use std::path::PathBuf;

/// The result of work on a tree.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why work on a tree ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something could not be done to a path of this machine.
    #[error("{doing} {}", path.display())]
    Path {
        /// Such as `reading`.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The root to protect is no directory.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// There is something where the tree shall be restored to.
    #[error("{} exists and is not empty", path.display())]
    TargetExists {
        /// The path.
        path: PathBuf,
    },
    /// The stored description of the tree does not follow its format.
    #[error("the stored tree is malformed: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// The stored description has a format that this version does not know.
    #[error("the stored tree has format {found}; this version reads format 1")]
    UnknownFormat {
        /// The number that was met.
        found: u8,
    },
    /// An entry could not be written.
    #[error("encoding an entry")]
    Encode {
        /// Why.
        source: postcard::Error,
    },
    /// An entry could not be read.
    #[error("decoding an entry")]
    Decode {
        /// Why.
        source: postcard::Error,
    },
    /// The vault failed.
    #[error("{doing}")]
    Vault {
        /// Such as `storing the files' bytes`.
        doing: &'static str,
        /// Why.
        source: karbor_vault::Error,
    },
    /// Somebody asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    pub(crate) fn malformed(reason: impl Into<String>) -> Self {
        Self::Malformed { reason: reason.into() }
    }

    pub(crate) fn vault(doing: &'static str) -> impl FnOnce(karbor_vault::Error) -> Self {
        move |source| Self::Vault { doing, source }
    }
}
