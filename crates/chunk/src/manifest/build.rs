//! Building a manifest from left to right.

use crate::{ChunkId, Cutting, Error, Namer, Result, StreamRoot};

/// A node that is to be stored as a chunk of a meta pack, unless it is present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNode {
    /// Its name.
    pub id: ChunkId,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its level.
    pub level: u8,
}

/// Takes the entries of a stream in order, and gives out nodes as they become complete.
///
/// It holds one open node per level, whatever the size of the stream. A call gives out at most a few nodes.
#[derive(Debug)]
pub struct ManifestBuilder {
    namer: Namer,
    cutting: Cutting,
    offset: u64,
}

impl ManifestBuilder {
    /// Starts the manifest of a stream.
    ///
    /// # Errors
    /// When the cutting's sizes are out of range.
    pub fn new(namer: Namer, cutting: Cutting) -> Result<Self> {
        Ok(Self { namer, cutting, offset: 0 })
    }

    /// Returns how many bytes of the stream were taken.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes the next chunk.
    ///
    /// # Errors
    /// [`Error::Misuse`] when it is empty or too large; with fixed cutting also when it is not exactly one chunk
    /// size, unless it is the last.
    pub fn push_chunk(&mut self, id: ChunkId, len: u32, sink: &mut dyn FnMut(NewNode)) -> Result<()> {
        let _ = (&self.namer, self.cutting, id, len, sink);
        Err(Error::Misuse { what: "not written yet" })
    }

    /// Takes zeros. With fixed cutting their number must be a multiple of the chunk size, unless they end the stream.
    ///
    /// # Errors
    /// [`Error::Misuse`] when it is not.
    pub fn push_zero(&mut self, len: u64, sink: &mut dyn FnMut(NewNode)) -> Result<()> {
        let _ = (len, sink);
        Err(Error::Misuse { what: "not written yet" })
    }

    /// Returns whether a node of this level that stands for `len` bytes can be taken whole here.
    pub fn can_push_subtree(&self, level: u8, len: u64) -> bool {
        let _ = (level, len);
        false
    }

    /// Takes a node that is in the bank already, with all that is below it.
    ///
    /// # Errors
    /// [`Error::Misuse`] unless [`Self::can_push_subtree`] says that it can be.
    pub fn push_subtree(
        &mut self,
        id: ChunkId,
        level: u8,
        len: u64,
        sink: &mut dyn FnMut(NewNode),
    ) -> Result<()> {
        let _ = (id, level, len, sink);
        Err(Error::Misuse { what: "not written yet" })
    }

    /// Closes the open nodes, the root last.
    ///
    /// # Errors
    /// None that the arguments can bring about.
    pub fn finish(self, sink: &mut dyn FnMut(NewNode)) -> Result<StreamRoot> {
        let _ = sink;
        Err(Error::Misuse { what: "not written yet" })
    }
}
