//! What goes wrong between us and a server.

use std::io;

/// The result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection broke, or took too long.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// What the server says does not follow the protocol. The connection is of no use any more.
    #[error("the block device server does not follow the protocol: {reason}")]
    Protocol {
        /// What was wrong.
        reason: String,
    },
    /// The server does not offer what is needed.
    #[error("the block device server refuses {what}")]
    Refused {
        /// What it refuses.
        what: &'static str,
    },
    /// A request failed on the server; the connection is still good.
    #[error("the block device server cannot {command} {length} bytes at {offset}: {reason}")]
    Server {
        /// What was asked for.
        command: &'static str,
        /// Where.
        offset: u64,
        /// How much.
        length: u64,
        /// The error number, as Linux numbers them.
        code: u32,
        /// The server's words for it.
        reason: String,
    },
    /// The range does not lie in the export.
    #[error("bytes {offset} to {end} are not in an export of {size_bytes} bytes")]
    Range {
        /// Where it begins.
        offset: u64,
        /// Where it ends.
        end: u64,
        /// The export's size.
        size_bytes: u64,
    },
}

impl Error {
    pub(crate) fn protocol(reason: impl Into<String>) -> Self {
        Self::Protocol { reason: reason.into() }
    }

    /// Returns whether the connection can be used further.
    pub fn leaves_the_connection(&self) -> bool {
        matches!(self, Self::Server { .. } | Self::Range { .. })
    }
}

impl From<Error> for io::Error {
    fn from(err: Error) -> Self {
        let kind = match &err {
            Error::Io { source, .. } => source.kind(),
            Error::Server { code: 28, .. } => io::ErrorKind::StorageFull,
            Error::Server { code: 1, .. } => io::ErrorKind::PermissionDenied,
            Error::Range { .. } => io::ErrorKind::InvalidInput,
            Error::Protocol { .. } => io::ErrorKind::InvalidData,
            Error::Refused { .. } => io::ErrorKind::Unsupported,
            Error::Server { .. } => io::ErrorKind::Other,
        };
        Self::new(kind, err)
    }
}
