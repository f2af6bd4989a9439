//! Storing again what leans on packs that a sweep condemned.

use async_trait::async_trait;
use karbor_bank::ErrorKind;
use karbor_chunk::{ChunkId, PackKind, PackTail, TailStep};
use karbor_sweep::{BoxError, News, PackName, StoreAgain};

use crate::account::Shared;
use crate::index::blocking;
use crate::read::fetch::Fetcher;
use crate::session::Session;
use crate::{Error, Result};
use std::sync::Arc;

/// A session's answer to a condemned list.
pub(crate) struct Again<'s> {
    pub(crate) session: &'s Arc<Session>,
}

#[async_trait]
impl StoreAgain for Again<'_> {
    async fn store_again(&mut self, news: &News) -> Result<(), BoxError> {
        for (pack, ids) in self.session.store.leaned_on(&news.condemned) {
            let ids = match ids {
                Some(ids) => ids,
                None => chunks_of(&self.session.shared, &pack).await?,
            };
            for id in ids {
                self.store(&pack, id).await?;
            }
        }
        self.session.store.packer().flush().await?;
        Ok(())
    }
}

impl Again<'_> {
    /// Stores a chunk of a condemned pack again, unless there is another copy that may be used.
    async fn store(&self, pack: &PackName, id: ChunkId) -> Result<()> {
        let store = self.session.store.clone();
        let known =
            blocking(move || if store.refer(&id)? { Ok(Vec::new()) } else { store.find(&id) }).await??;
        let Some(copy) = known.iter().find(|copy| copy.pack_name() == *pack).or(known.first()) else {
            return Ok(());
        };
        let raw = read_copy(&self.session.fetcher, copy, &id).await?;
        let (session, kind) = (self.session.clone(), copy.pack.info.kind);
        blocking(move || put(&session, kind, id, &raw)).await?
    }
}

async fn read_copy(fetcher: &Arc<Fetcher>, copy: &crate::index::Location, id: &ChunkId) -> Result<Vec<u8>> {
    if let Ok(raw) = fetcher.copy(copy).await? {
        return Ok(raw);
    }
    fetcher.chunk(id).await?.map_err(|lost| lost.into_error("chunk"))
}

fn put(session: &Arc<Session>, kind: PackKind, id: ChunkId, raw: &[u8]) -> Result<()> {
    session.shared.codecs.compressing(|compressor| session.store.put(kind, id, raw, compressor))?;
    Ok(())
}

/// Returns the chunks of a pack, from its trailing index.
pub(crate) async fn chunks_of(shared: &Shared, pack: &PackName) -> Result<Vec<ChunkId>> {
    let tail = read_tail(shared, pack).await?;
    Ok(tail.entries.iter().map(|entry| entry.id).collect())
}

/// Reads the trailing index of a pack.
pub(crate) async fn read_tail(shared: &Shared, pack: &PackName) -> Result<PackTail> {
    let key = shared.place.pack_key(pack);
    let failed = |err: karbor_bank::Error| match err.kind {
        ErrorKind::NotFound => Error::damaged(format!("{key}: it is missing and")),
        _ => Error::bank("reading a pack", err),
    };
    let size = shared.place.bank().head(&key).await.map_err(failed)?.size_bytes;
    let mut want = PackTail::FIRST_BYTES.min(size);
    loop {
        let object = shared.place.bank().get(&key, Some(size - want..size)).await.map_err(failed)?;
        let step = PackTail::read(&shared.key, size, &object.bytes);
        match step.map_err(|err| Error::chunk(key.as_str(), err))? {
            TailStep::Tail(tail) => return Ok(tail),
            TailStep::More(more) if more > want && more <= size => want = more,
            TailStep::More(_) => return Err(Error::damaged(key.as_str())),
        }
    }
}
