//! Directory trees into and out of a vault.
//!
//! A tree becomes two streams of one resource: `entries`, what every name is (kind, mode, owner, times, links,
//! extended attributes, and where its bytes are), and `data`, the bytes of all regular files one after the other
//! without their holes. So a million files are a few hundred objects, and a restore reads packs from front to back.
//!
//! Files are read in *segments*: consecutive files up to a few MiB together, or a part of one large file. Cutting
//! starts anew at the borders of a segment, so a segment none of whose files has changed since the base checkpoint
//! (same size, inode, modification and change time) is taken over by reference and not read.
//!
//! Invariants: names are bytes and nothing is lost in a text; a file that changes while it is read is read again,
//! and reported when it will not hold still; memory does not grow with the number of files, but for hard links; a
//! restore never leaves its target, whatever the stored names say.

mod backup;
mod entry;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod plan;
mod read;
mod restore;
mod target;
mod walk;

pub use backup::{BackupOptions, backup};
pub use entry::{Content, Entry, Extent, Kind, Stamp};
pub use error::{Error, Result};
pub use restore::{Overwrite, RestoreOptions, compare, list, restore};

use serde::{Deserialize, Serialize};

/// The name of the stream that tells what every name is.
pub const ENTRIES: &str = "entries";

/// The name of the stream that holds the files' bytes.
pub const DATA: &str = "data";

/// What was found, taken over, and what went wrong without ending the work.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TreeReport {
    /// Directories, the root among them.
    pub directories: u64,
    /// Regular files, each once, however many names it has.
    pub files: u64,
    /// Further names of files.
    pub hard_links: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Pipes, sockets and device nodes.
    pub specials: u64,
    /// Sizes of all regular files together, in bytes, holes included.
    pub size_bytes: u64,
    /// Files that were not read because nothing about them had changed.
    pub unchanged_files: u64,
    /// What is not as it should be though the work went on; at most [`TreeReport::MAX_FINDINGS`] of them.
    pub findings: Vec<Finding>,
    /// How many findings there were in all.
    pub findings_total: u64,
}

impl TreeReport {
    /// How many findings are kept word by word.
    pub const MAX_FINDINGS: usize = 1_000;

    pub(crate) fn find(&mut self, path: &[u8], problem: impl Into<String>) {
        self.findings_total += 1;
        if self.findings.len() < Self::MAX_FINDINGS {
            let path = String::from_utf8_lossy(path).into_owned();
            self.findings.push(Finding { path, problem: problem.into() });
        }
    }

    pub(crate) fn count(&mut self, kind: &Kind) {
        match kind {
            Kind::Directory => self.directories += 1,
            Kind::File(content) => {
                self.files += 1;
                self.size_bytes += content.size_bytes;
            }
            Kind::HardLink { .. } => self.hard_links += 1,
            Kind::Symlink { .. } => self.symlinks += 1,
            Kind::Fifo | Kind::Socket | Kind::CharDevice { .. } | Kind::BlockDevice { .. } => {
                self.specials += 1;
            }
        }
    }
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The path below the root, as far as it can be written as text.
    pub path: String,
    /// What is wrong.
    pub problem: String,
}
