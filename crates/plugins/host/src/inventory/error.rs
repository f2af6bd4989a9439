//! What is wrong with an inventory file, and in which line.

use std::path::PathBuf;

/// The result of reading an inventory.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an inventory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("reading the inventory {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML, lacks a member, or has one that is not known.
    #[error("{}: {}", path.display(), message.trim_end())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The parser's words, with line and column.
        message: String,
    },
    /// Something in it cannot be.
    #[error("{}:{line}: {message}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The line, counted from one.
        line: usize,
        /// What is wrong, and what is allowed.
        message: String,
    },
}
