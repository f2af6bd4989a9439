//! The session of who stores chunks.

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    BoxError, Doomed, Error, IndexObject, PackName, Place, Result, SessionId, SessionRecord, SweepEpoch,
};

/// A session that stores chunks and, if it is a writer's, commits. Used by many tasks at once.
#[derive(Debug)]
pub struct WriterSession {
    id: SessionId,
}

/// What was condemned since a session last looked.
#[derive(Debug, Clone, Default)]
pub struct News {
    /// The epochs, in order; [`WriterSession::acknowledge`] answers them.
    pub epochs: Vec<SweepEpoch>,
    /// What they condemn. It can still be read until this session has answered.
    pub condemned: Doomed,
}

/// Stores again what leaned on condemned packs.
#[async_trait]
pub trait StoreAgain: Send {
    /// Stores again every chunk that this session refers to and of which no usable copy is left
    /// ([`WriterSession::is_usable`] knows the news already): packs, then index objects, durably.
    async fn store_again(&mut self, news: &News) -> Result<(), BoxError>;
}

/// How a commit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitOutcome {
    /// The record stands (or stood, and was deleted since).
    Committed,
    /// A fence stood there first: begin again as the next attempt.
    Fenced,
}

impl WriterSession {
    /// Begins a session: puts its record, looks that its pins live, reads what is condemned, lists the index,
    /// reads what is gone; in this order.
    ///
    /// # Errors
    /// [`Error::SessionTaken`], [`Error::PinGone`], [`Error::Fenced`], and what the bank says.
    pub async fn begin(place: &Place, id: SessionId, record: SessionRecord) -> Result<Self> {
        let _ = (place, record);
        Err(Error::Fenced { session: id })
    }

    /// Returns its name.
    pub const fn id(&self) -> &SessionId {
        &self.id
    }

    /// Returns the index objects that the session found. Their content tells which chunk is in which pack; of
    /// those packs the ones count that [`Self::is_usable`] accepts. An object that is not there any more was
    /// merged or of no use: [`Self::list_index_again`], and read what is new.
    pub fn index(&self) -> Vec<IndexObject> {
        Vec::new()
    }

    /// Lists the index again, and reads again what is gone.
    ///
    /// # Errors
    /// What the bank says.
    pub async fn list_index_again(&self) -> Result<Vec<IndexObject>> {
        Ok(Vec::new())
    }

    /// Returns whether the session may refer to chunks in this pack: it is in no condemned list that the session
    /// has read, and not gone. Once `false`, always `false`.
    pub fn is_usable(&self, pack: &PackName) -> bool {
        let _ = pack;
        false
    }

    /// Reads the condemned lists that were not read before. From then on what is in them is not usable. Whoever
    /// decides on references must have written down those decided before, so that [`StoreAgain`] sees them.
    ///
    /// # Errors
    /// [`Error::Fenced`] when a list is gone that this session has not answered, and what the bank says.
    pub async fn refresh(&self) -> Result<News> {
        Ok(News::default())
    }

    /// Answers condemned lists: "I have read them and lean on none of it, now or later".
    ///
    /// # Errors
    /// What the bank says.
    pub async fn acknowledge(&self, news: &News) -> Result<()> {
        let _ = news;
        Ok(())
    }

    /// Reads condemned lists, has stored again what leaned on them, and answers, until nothing is new.
    /// To be done from time to time, and right before committing.
    ///
    /// # Errors
    /// As [`Self::refresh`], and [`Error::StoreAgain`].
    pub async fn before_commit(&self, again: &mut dyn StoreAgain) -> Result<()> {
        loop {
            let news = self.refresh().await?;
            if news.epochs.is_empty() {
                return Ok(());
            }
            again.store_again(&news).await.map_err(|source| Error::StoreAgain { source })?;
            self.acknowledge(&news).await?;
        }
    }

    /// Returns whether somebody fenced this session: it is in vain to go on.
    ///
    /// # Errors
    /// What the bank says.
    pub async fn is_fenced(&self) -> Result<bool> {
        Ok(true)
    }

    /// Puts the commit record. After an error it may have been put: commit the same bytes again, which tells.
    /// The record must not start with `{`, and every commit record must have other bytes than every other.
    ///
    /// # Errors
    /// [`Error::CannotCommit`], [`Error::CommittedElse`], and what the bank says.
    pub async fn commit(&self, record: Bytes) -> Result<CommitOutcome> {
        let _ = record;
        Ok(CommitOutcome::Fenced)
    }

    /// Ends the session without a commit, so that no sweep waits for it. Nothing happens if it was fenced.
    ///
    /// # Errors
    /// [`Error::AlreadyCommitted`], and what the bank says.
    pub async fn close(&self) -> Result<()> {
        Ok(())
    }
}
