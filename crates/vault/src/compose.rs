//! Composing: a stream made of segments that are produced on the pipeline's own threads or taken over from the base.
//!
//! This is how directory trees are stored. The bytes of many files are one stream; a *segment* is a part of it at
//! whose borders cutting starts anew, so that a segment nothing in which has changed is a reference to the base's
//! chunks and is not read. Segments are produced in parallel and stand in the stream in the order they were given.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{Error, ProgressSink, ResourceWriter, Result, StreamRecord};

/// Appends a segment's bytes to the empty buffer it is given. Runs on a thread of the pipeline and may block.
/// An error ends the stream.
pub type Produce = Box<dyn FnOnce(&mut Vec<u8>) -> io::Result<()> + Send>;

/// How finely a segment is cut by content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grain {
    /// About 64 KiB: for many small files, of which a few will change.
    Fine,
    /// About 1 MiB: for large files.
    Coarse,
}

/// How a composed stream is stored.
#[derive(Clone, Default)]
pub struct ComposeOptions {
    /// Hears of progress.
    pub progress: Option<Arc<dyn ProgressSink>>,
    /// Stops the work.
    pub cancel: CancellationToken,
}

/// A segment that has its place in the stream: completions come in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// What the caller named it.
    pub tag: u64,
    /// Where it is in the stream.
    pub range: Range<u64>,
}

/// A stream that is being composed.
pub struct Composer {
    _writer: ResourceWriter,
}

impl ResourceWriter {
    /// Begins a composed stream. The receiver hears of each segment, in order, once its place is known; it must be
    /// read, or the stream comes to a halt.
    ///
    /// # Errors
    /// What the bank says when the base's manifest is looked at.
    #[expect(clippy::unused_async, reason = "the base's manifest will be looked at")]
    pub async fn compose(
        &self,
        name: &str,
        options: &ComposeOptions,
    ) -> Result<(Composer, mpsc::Receiver<Segment>)> {
        let _ = (name, options);
        Err(Error::Unsupported { what: "composing".to_owned() })
    }
}

impl Composer {
    /// Appends a segment that `produce` makes (at most 16 MiB). Waits while the memory budget is used up.
    ///
    /// # Errors
    /// Of this or an earlier segment: what producing or storing met.
    #[expect(clippy::unused_async, reason = "it will wait for the memory budget")]
    pub async fn produce(&mut self, tag: u64, grain: Grain, produce: Produce) -> Result<()> {
        let _ = (tag, grain, produce);
        Err(Error::Unsupported { what: "composing".to_owned() })
    }

    /// Appends a range of the base checkpoint's stream of the same resource and name, by reference. Returns
    /// whether that could be done: the range must begin and end at borders of chunks, and the base must be pinned.
    ///
    /// # Errors
    /// What the bank says when the base's manifest is looked at.
    #[expect(clippy::unused_async, reason = "the base's manifest will be looked at")]
    pub async fn reuse(&mut self, tag: u64, range: Range<u64>) -> Result<bool> {
        let _ = (tag, range);
        Ok(false)
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// What producing or storing met.
    #[expect(clippy::unused_async, reason = "it will wait for the last segments")]
    pub async fn finish(self) -> Result<StreamRecord> {
        Err(Error::Unsupported { what: "composing".to_owned() })
    }
}
