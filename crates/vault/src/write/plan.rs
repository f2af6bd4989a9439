//! What comes next in a stream of blocks.
//!
//! The plan asks the source where its data is, so that holes cost nothing, and the base's manifest what stood there:
//! for what the caller says is unchanged, the base's nodes and chunks are taken unread; for the rest, the base's
//! chunk at the same place is what the piece is compared with first.
//! The base is pinned by the session, so what it reaches is present without further asking, except for chunks
//! that are marked bad: if there are such, every chunk taken from the base is asked for, and read if it is bad.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use karbor_chunk::{ChunkId, CursorStep, ManifestCursor, ManifestEntry, NodeRef, Piece, StreamRoot};
use tokio::runtime::Handle;
use tracing::warn;

use crate::session::Session;
use crate::write::buffers::lock;
use crate::{BlockSource, Error, Result};

/// A step of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Planned {
    /// Zeros that need not be read.
    Zero {
        /// How many.
        len: u64,
    },
    /// A chunk of the base that is unchanged.
    Known {
        /// Its name.
        id: ChunkId,
        /// Its length.
        len: u32,
    },
    /// A node of the base below which nothing is changed.
    Subtree {
        /// The node.
        node: NodeRef,
    },
    /// A piece to be read.
    Read {
        /// Where it is.
        range: Range<u64>,
        /// What stood there in the base.
        expected: Option<ChunkId>,
    },
}

/// What comes next; each step is told once, with its number.
pub(crate) struct Plan {
    state: Mutex<State>,
}

struct State {
    source: Arc<dyn BlockSource>,
    session: Arc<Session>,
    size: u64,
    chunk: u64,
    at: u64,
    number: u64,
    /// Where the source has data, as far as it was asked; aligned to chunks.
    data: Option<Range<u64>>,
    /// No data follows.
    only_holes: bool,
    /// What may have changed, aligned to chunks; `None`: everything.
    changed: Option<Vec<Range<u64>>>,
    next_changed: usize,
    base: Option<StreamRoot>,
    /// Walks the base beside the pieces that are read.
    beside: Option<Beside>,
    /// Walks an unchanged part.
    unchanged: Option<(ManifestCursor, u64)>,
    trust_base: bool,
}

struct Beside {
    cursor: ManifestCursor,
    entry: Option<ManifestEntry>,
}

impl Plan {
    pub(crate) fn new(
        source: Arc<dyn BlockSource>,
        chunk_bytes: u32,
        base: Option<StreamRoot>,
        changed: Option<&[Range<u64>]>,
        session: Arc<Session>,
    ) -> Self {
        let size = source.size_bytes();
        let chunk = u64::from(chunk_bytes);
        let trust_base = session.store.bad().is_empty();
        let changed = match (&base, changed) {
            (Some(base), Some(changed)) => Some(aligned(changed, base.size_bytes, size, chunk)),
            _ => None,
        };
        let beside = base
            .as_ref()
            .map(|base| Beside { cursor: ManifestCursor::new(base, 0..base.size_bytes), entry: None });
        let state = State {
            source,
            session,
            size,
            chunk,
            at: 0,
            number: 0,
            data: None,
            only_holes: false,
            changed,
            next_changed: 0,
            base,
            beside,
            unchanged: None,
            trust_base,
        };
        Self { state: Mutex::new(state) }
    }

    /// Returns the next step. Called on threads that may block.
    pub(crate) fn next(&self, runtime: &Handle) -> Result<Option<(u64, Planned)>> {
        let mut state = lock(&self.state);
        if state.at >= state.size {
            return Ok(None);
        }
        let planned = state.plan(runtime)?;
        let number = state.number;
        state.number += 1;
        Ok(Some((number, planned)))
    }
}

/// Returns what may have changed as whole chunks, with what lies beyond the base and around its end.
fn aligned(changed: &[Range<u64>], base: u64, size: u64, chunk: u64) -> Vec<Range<u64>> {
    let up = |at: u64| at.div_ceil(chunk).saturating_mul(chunk).min(size);
    let mut all: Vec<Range<u64>> = changed
        .iter()
        .filter(|range| range.start < range.end && range.start < size)
        .map(|range| range.start / chunk * chunk..up(range.end))
        .collect();
    if base != size {
        // The last chunk of the shorter one is cut elsewhere in the other.
        all.push(base.min(size) / chunk * chunk..size);
    }
    all.retain(|range| range.start < range.end);
    all.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(all.len());
    for range in all {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

impl State {
    fn plan(&mut self, runtime: &Handle) -> Result<Planned> {
        let end_of_changed = match &self.changed {
            None => self.size,
            Some(changed) => {
                while changed.get(self.next_changed).is_some_and(|range| range.end <= self.at) {
                    self.next_changed += 1;
                }
                match changed.get(self.next_changed) {
                    Some(range) if range.start <= self.at => range.end,
                    next => {
                        let until = next.map_or(self.size, |range| range.start);
                        if let Some(planned) = self.take_unchanged(until, runtime)? {
                            return Ok(planned);
                        }
                        // The base cannot tell what stands here: read it.
                        until
                    }
                }
            }
        };
        self.plan_read(end_of_changed, runtime)
    }

    /// Takes the next part of the base, up to `until`.
    fn take_unchanged(&mut self, until: u64, runtime: &Handle) -> Result<Option<Planned>> {
        let Some(base) = self.base else { return Ok(None) };
        if self.unchanged.as_ref().is_none_or(|(_, end)| *end != until) {
            self.unchanged = Some((ManifestCursor::new(&base, self.at..until), until));
        }
        loop {
            let Some((cursor, _)) = &mut self.unchanged else { return Ok(None) };
            match cursor.step().map_err(|err| Error::chunk("a manifest", err))? {
                CursorStep::End => return Ok(None),
                CursorStep::Need(node) => {
                    let inside = node.offset == self.at && node.offset + node.len <= until;
                    if inside && self.trust_base && node.len >= self.chunk && node.len < base.size_bytes {
                        cursor.skip().map_err(|err| Error::chunk("a manifest", err))?;
                        self.at += node.len;
                        return Ok(Some(Planned::Subtree { node }));
                    }
                    let fetched = runtime.block_on(self.session.fetcher.node(&node))?;
                    let supplied = match fetched {
                        Ok(bytes) => {
                            cursor.supply_node(bytes.as_ref().clone()).map_err(|err| err.to_string())
                        }
                        Err(lost) => Err(lost.reason),
                    };
                    if let Err(reason) = supplied {
                        self.give_up_base(&reason);
                        return Ok(None);
                    }
                }
                CursorStep::Entry(entry) => return self.take_entry(&entry, until),
            }
        }
    }

    fn take_entry(&mut self, entry: &ManifestEntry, until: u64) -> Result<Option<Planned>> {
        if entry.offset != self.at || entry.offset + entry.len > until {
            self.give_up_base("its chunks are not where they should be");
            return Ok(None);
        }
        self.at += entry.len;
        Ok(Some(match entry.piece {
            Piece::Zero => Planned::Zero { len: entry.len },
            Piece::Chunk(id) if !self.trust_base && !self.session.store.refer(&id)? => {
                Planned::Read { range: entry.offset..entry.offset + entry.len, expected: None }
            }
            Piece::Chunk(id) => {
                let len = u32::try_from(entry.len).map_err(|_| Error::damaged("a manifest"))?;
                Planned::Known { id, len }
            }
        }))
    }

    fn give_up_base(&mut self, reason: &str) {
        warn!(reason, "Base of {} cannot be read, so it is read from the source", self.source.name());
        self.base = None;
        self.beside = None;
        self.unchanged = None;
    }

    /// Plans the next piece or hole, up to `until`.
    fn plan_read(&mut self, until: u64, runtime: &Handle) -> Result<Planned> {
        let hole_end = self.hole_end(until)?;
        if hole_end > self.at {
            let len = hole_end - self.at;
            self.at = hole_end;
            return Ok(Planned::Zero { len });
        }
        let range = self.at..self.size.min(self.at + self.chunk);
        let expected = self.expected(&range, runtime)?;
        self.at = range.end;
        Ok(Planned::Read { range, expected })
    }

    /// Returns where the hole ends that starts here, in whole chunks; here, if there is data.
    fn hole_end(&mut self, until: u64) -> Result<u64> {
        if self.data.as_ref().is_none_or(|data| data.end <= self.at) && !self.only_holes {
            let found = self.source.next_data(self.at).map_err(|source| Error::SourceIo {
                what: format!("{} at byte {}", self.source.name(), self.at),
                source,
            })?;
            match found {
                Some(data) => {
                    let end = data.end.div_ceil(self.chunk).saturating_mul(self.chunk).min(self.size);
                    self.data = Some(data.start / self.chunk * self.chunk..end);
                }
                None => {
                    self.data = None;
                    self.only_holes = true;
                }
            }
        }
        Ok(match &self.data {
            Some(data) if data.end > self.at => data.start.max(self.at).min(until),
            _ => until,
        })
    }

    /// Returns the chunk that stands at this place in the base.
    fn expected(&mut self, range: &Range<u64>, runtime: &Handle) -> Result<Option<ChunkId>> {
        if !self.trust_base {
            return Ok(None);
        }
        loop {
            let Some(beside) = &mut self.beside else { return Ok(None) };
            if let Some(entry) = &beside.entry
                && entry.offset + entry.len > range.start
            {
                let same = entry.offset == range.start && entry.len == range.end - range.start;
                return Ok(match entry.piece {
                    Piece::Chunk(id) if same => Some(id),
                    _ => None,
                });
            }
            match beside.cursor.step().map_err(|err| Error::chunk("a manifest", err))? {
                CursorStep::End => self.beside = None,
                CursorStep::Entry(entry) => beside.entry = Some(entry),
                CursorStep::Need(node) if node.offset + node.len <= range.start => {
                    beside.cursor.skip().map_err(|err| Error::chunk("a manifest", err))?;
                }
                CursorStep::Need(node) => {
                    let fetched = runtime.block_on(self.session.fetcher.node(&node))?;
                    let supplied = match fetched {
                        Ok(bytes) => beside.cursor.supply_node(bytes.as_ref().clone()).is_ok(),
                        Err(_) => false,
                    };
                    if !supplied {
                        self.beside = None;
                    }
                }
            }
        }
    }
}
