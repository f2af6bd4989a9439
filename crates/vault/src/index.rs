//! Which chunk is in which pack: the bank's index, as a cache on local disk knows it.
//!
//! Invariant: memory holds nothing per chunk. A view is a handful of sorted files; a lookup reads a filter, and
//! where that says "maybe", one small bucket.

mod cache;
mod dir;
mod merge;
mod run;

use std::io;
use std::sync::Arc;

use karbor_chunk::{ChunkId, PackEntry, PackRef};
use karbor_sweep::{ObjectHash, PackName, SessionId};
use karbor_types::Epoch;

pub(crate) use cache::{IndexCache, blocking};
pub(crate) use run::{Run, RunEntry, RunWriter};

/// Where a copy of a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) pack: PackRef,
    pub(crate) chunk: PackEntry,
}

impl Location {
    pub(crate) fn pack_name(&self) -> PackName {
        pack_name(&self.pack)
    }
}

/// Where an entry is in a view: the run, and the number in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Position {
    pub(crate) run: usize,
    pub(crate) entry: u64,
}

/// Sorted runs, as they were at one time.
#[derive(Debug, Default)]
pub(crate) struct View {
    runs: Vec<Arc<Run>>,
}

impl View {
    pub(crate) fn new(runs: Vec<Arc<Run>>) -> Self {
        Self { runs }
    }

    /// Returns the runs.
    pub(crate) fn runs(&self) -> &[Arc<Run>] {
        &self.runs
    }

    /// Returns all copies of a chunk.
    pub(crate) fn find(&self, id: &ChunkId) -> io::Result<Vec<Location>> {
        let found = self.find_at(id)?;
        let locate = |(at, entry): (Position, RunEntry)| {
            Ok(Location { pack: self.runs[at.run].pack(entry.pack)?, chunk: entry.chunk })
        };
        found.into_iter().map(locate).collect()
    }

    /// Returns where all entries of a chunk are.
    pub(crate) fn find_at(&self, id: &ChunkId) -> io::Result<Vec<(Position, RunEntry)>> {
        let mut all = Vec::new();
        let mut found = Vec::new();
        for (run, file) in self.runs.iter().enumerate() {
            file.find(id, &mut found)?;
            all.extend(found.drain(..).map(|hit| (Position { run, entry: hit.position }, hit.entry)));
        }
        Ok(all)
    }
}

/// Returns the name of a pack as the protocol knows it.
pub(crate) fn pack_name(pack: &PackRef) -> PackName {
    let session = SessionId::new(pack.session.operation, Epoch(pack.session.epoch));
    PackName::new(session, ObjectHash::from_bytes(pack.info.hash.0))
}

/// Returns a session as the formats know it.
pub(crate) fn format_session(session: &SessionId) -> karbor_chunk::SessionId {
    karbor_chunk::SessionId::new(session.operation, session.epoch.0)
}

#[cfg(test)]
mod tests;
