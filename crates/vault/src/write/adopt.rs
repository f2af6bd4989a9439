//! Taking over streams of an earlier attempt: every chunk must be present for this session.

use std::sync::Arc;

use karbor_chunk::{ChunkId, CursorStep, ManifestCursor, Piece, StreamRoot};

use crate::index::blocking;
use crate::session::Session;
use crate::{Error, Result};

/// How many chunks are looked up at once.
const AT_ONCE: usize = 1024;

/// Returns whether a stream's nodes and chunks are all present, and leans on them.
pub(crate) async fn is_present(session: &Arc<Session>, root: &StreamRoot) -> Result<bool> {
    let mut cursor = ManifestCursor::new(root, 0..root.size_bytes);
    let mut ids = Vec::new();
    loop {
        match cursor.step().map_err(|err| Error::chunk("a manifest", err))? {
            CursorStep::End => return refer_all(session, ids).await,
            CursorStep::Entry(entry) => {
                if let Piece::Chunk(id) = entry.piece {
                    ids.push(id);
                }
                if ids.len() >= AT_ONCE && !refer_all(session, std::mem::take(&mut ids)).await? {
                    return Ok(false);
                }
            }
            CursorStep::Need(node) => {
                if !refer_all(session, vec![node.id]).await? {
                    return Ok(false);
                }
                let Ok(bytes) = session.fetcher.node(&node).await? else { return Ok(false) };
                if cursor.supply_node(bytes.as_ref().clone()).is_err() {
                    return Ok(false);
                }
            }
        }
    }
}

async fn refer_all(session: &Arc<Session>, ids: Vec<ChunkId>) -> Result<bool> {
    let store = session.store.clone();
    blocking(move || {
        for id in &ids {
            if !store.refer(id)? {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await?
}
