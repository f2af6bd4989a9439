//! The session of who stores chunks.
//!
//! Why what it commits stays readable: it refers to a chunk only if a pack that holds it counts as present, that is,
//! the index mentions it, no final list names it, and no condemned list that this session has read does. The
//! order of the three readings matters: condemned lists first, then the index, then what is gone. A list that
//! condemns a pack either stood open before the first reading, and was read; or was done before, and then what it
//! freed was gone before the last reading; or came later, and then its sweep lists this session and waits for it.
//! `docs/sweep.md` has the whole argument.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use async_trait::async_trait;
use bytes::Bytes;
use karbor_bank::PutMode;

use crate::doomed::{Found, ListKind, read_list};
use crate::io::{self, Listing, Put};
use crate::place::Area;
use crate::record::{FORMAT, is_marker, to_json};
use crate::rule::{Rule, kept};
use crate::{
    BoxError, Doomed, End, Error, Gone, IndexObject, Kind, PackName, Place, Result, SessionId, SessionRecord,
    Standing, SweepEpoch, list_index, reader,
};

const CONDEMNED: &str = "listing condemned lists";

/// A session that stores chunks and, if it is a writer's, commits. Used by many tasks at once.
#[derive(Debug)]
pub struct WriterSession {
    place: Place,
    id: SessionId,
    kind: Kind,
    pins: Vec<SessionId>,
    state: RwLock<State>,
    /// Held by who reads condemned lists or the index, so that two do not mix up what the other has read.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    gone: Arc<Gone>,
    /// What counts as absent, list by list.
    condemned: Vec<Arc<Doomed>>,
    /// The newest epoch whose condemned list was read, or need not be because it was done when this began.
    known: Option<SweepEpoch>,
    /// Lists that were read and not answered.
    pending: Vec<(SweepEpoch, Arc<Doomed>)>,
    index: Vec<IndexObject>,
}

/// What was condemned since a session last answered.
#[derive(Debug, Clone, Default)]
pub struct News {
    /// The epochs, in order; [`WriterSession::acknowledge`] answers them.
    pub epochs: Vec<SweepEpoch>,
    /// What they condemn. It can still be read until this session has answered.
    pub condemned: Doomed,
}

impl News {
    /// Returns whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.epochs.is_empty()
    }
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

/// An acknowledgement.
#[derive(serde::Serialize)]
struct Ack {
    format: u32,
}

impl WriterSession {
    /// Begins a session: puts its record, looks which of its pins live, reads and answers what is condemned, lists
    /// the index, reads what is gone; in this order.
    ///
    /// A pin that is not committed or was deleted is no error: [`Self::pins`] tells which may be leaned on unread.
    /// After an error of the bank, begin again with the same record: it is recognized by its nonce.
    ///
    /// # Errors
    /// [`Error::SessionTaken`], [`Error::Fenced`], and what the bank says.
    pub async fn begin(place: &Place, id: SessionId, record: SessionRecord) -> Result<Self> {
        let begun = reader::begin(place, &id, &record).await?;
        let session = Self {
            place: place.clone(),
            id,
            kind: record.kind,
            pins: begun.pins,
            state: RwLock::new(State {
                known: begun.gone.folded_through(),
                gone: Arc::new(begun.gone),
                ..State::default()
            }),
            reading: tokio::sync::Mutex::new(()),
        };
        if kept(Rule::WriterOrder) {
            session.read_open_list().await?;
            session.list_index_again().await?;
        } else {
            session.list_index_again().await?;
            session.read_open_list().await?;
        }
        Ok(session)
    }

    /// Returns its name.
    pub const fn id(&self) -> &SessionId {
        &self.id
    }

    /// Returns its place.
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// Returns the pins that were granted: what those commits reach is kept until this session ends, and may be
    /// referred to without looking.
    pub fn pins(&self) -> &[SessionId] {
        &self.pins
    }

    /// Returns the index objects that the session found. Their content tells which chunk is in which pack; of
    /// those packs the ones count that [`Self::is_usable`] accepts. An object that is not there any more was
    /// merged or of no use: [`Self::list_index_again`], and read what is new.
    pub fn index(&self) -> Vec<IndexObject> {
        self.state().index.clone()
    }

    /// Lists the index again, and reads again what is gone.
    ///
    /// # Errors
    /// What the bank says.
    pub async fn list_index_again(&self) -> Result<Vec<IndexObject>> {
        let _reading = self.reading.lock().await;
        let index = list_index(&self.place).await?;
        let gone = self.state().gone.clone();
        let gone = gone.refreshed(&self.place).await?;
        let mut state = self.state_mut();
        state.gone = gone;
        state.index.clone_from(&index);
        Ok(index)
    }

    /// Returns whether the session may refer to chunks in this pack: it is in no condemned list that the session
    /// has read, and not gone. Once `false`, always `false`.
    pub fn is_usable(&self, pack: &PackName) -> bool {
        let state = self.state();
        !state.gone.contains(pack) && !state.condemned.iter().any(|list| list.contains(pack))
    }

    /// Reads the condemned lists that were not read before, and returns what was not answered. From then on what
    /// is in them is not usable. Whoever decides on references must have written down those decided before, so that
    /// [`StoreAgain`] sees them.
    ///
    /// # Errors
    /// [`Error::Fenced`] when a list is gone that this session has not answered, and what the bank says.
    pub async fn refresh(&self) -> Result<News> {
        let _reading = self.reading.lock().await;
        for epoch in self.list_condemned().await? {
            let Found::List(list) = read_list(&self.place, ListKind::Condemned, epoch).await? else {
                return Err(self.outrun(epoch));
            };
            let list = Arc::new(list);
            let mut state = self.state_mut();
            state.known = Some(epoch);
            state.condemned.push(list.clone());
            state.pending.push((epoch, list));
        }
        let state = self.state();
        let mut news = News::default();
        for (epoch, list) in &state.pending {
            news.epochs.push(*epoch);
            news.condemned.absorb(list);
        }
        Ok(news)
    }

    /// Answers condemned lists: "I have read them and lean on none of it, now or later".
    ///
    /// # Errors
    /// What the bank says.
    pub async fn acknowledge(&self, news: &News) -> Result<()> {
        for epoch in &news.epochs {
            let key = self.place.ack_key(*epoch, &self.id);
            io::put_once(&self.place, &key, &to_json(&Ack { format: FORMAT }), "answering a sweep").await?;
            self.state_mut().pending.retain(|(pending, _)| pending != epoch);
        }
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
            if news.is_empty() {
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
        let key = self.place.commit_key(&self.id);
        let fenced = match io::find(&self.place, &key, "looking at the session's commit key").await? {
            Some(bytes) => {
                matches!(Standing::from_bytes(&key, bytes)?, Standing::Marker(marker) if marker.end() == End::Fence)
            }
            None => false,
        };
        Ok(fenced || matches!(self.end().await?, Some(End::Fence | End::Closed)))
    }

    /// Puts the commit record. After an error it may have been put: commit the same bytes again, which tells.
    /// The record must not start with `{`, and every commit record must have other bytes than every other.
    ///
    /// # Errors
    /// [`Error::CannotCommit`], [`Error::CommittedElse`], and what the bank says.
    pub async fn commit(&self, record: Bytes) -> Result<CommitOutcome> {
        let cannot = |why| Error::CannotCommit { session: self.id, why };
        if self.kind != Kind::Writer {
            return Err(cannot("it is no writer's session"));
        }
        if record.is_empty() || is_marker(&record) {
            return Err(cannot("a commit record is not empty and does not start with a brace"));
        }
        let key = self.place.commit_key(&self.id);
        match io::put_once(&self.place, &key, &record, "putting the commit record").await? {
            Put::Mine => {}
            Put::Other(bytes) if !is_marker(&bytes) => return Err(Error::CommittedElse { session: self.id }),
            Put::Other(_) if kept(Rule::Fence) => return Ok(CommitOutcome::Fenced),
            Put::Other(_) => {
                let put = self.place.bank().put(&key, vec![record], PutMode::Overwrite).await;
                put.map_err(Error::bank("putting the commit record"))?;
            }
        }
        // The key may have been free because this session is gone: what was put counts for nothing then.
        Ok(match self.end().await? {
            None | Some(End::Deleted) => CommitOutcome::Committed,
            Some(End::Fence | End::Closed) => CommitOutcome::Fenced,
        })
    }

    /// Ends the session without a commit, so that no sweep waits for it. Nothing happens if it was fenced.
    ///
    /// # Errors
    /// [`Error::AlreadyCommitted`], and what the bank says.
    pub async fn close(&self) -> Result<()> {
        reader::close(&self.place, &self.id, self.kind).await
    }

    /// Reads and answers the condemned list that is open, if one is. Nothing was referred to yet, so nothing leans on
    /// it; and a sweep that lists this session need not wait for it to look again.
    async fn read_open_list(&self) -> Result<()> {
        let Some(newest) = self.list_condemned().await?.last().copied() else {
            return Ok(());
        };
        // Epochs are sequential: all before the newest are done, and what they freed is read after the index.
        let done =
            io::exists(&self.place, &self.place.done_key(newest), "looking whether a sweep is done").await?;
        if done {
            self.state_mut().known = Some(newest);
            return Ok(());
        }
        // A list that is folded is done as well.
        let open = match read_list(&self.place, ListKind::Condemned, newest).await? {
            Found::List(list) => Some(Arc::new(list)),
            _ => None,
        };
        let is_open = open.is_some();
        {
            let mut state = self.state_mut();
            state.known = Some(newest);
            state.condemned.extend(open);
        }
        if is_open {
            self.acknowledge(&News { epochs: vec![newest], condemned: Doomed::default() }).await?;
        }
        Ok(())
    }

    /// Lists the epochs that have condemned lists behind the newest known one.
    async fn list_condemned(&self) -> Result<Vec<SweepEpoch>> {
        let after = self.state().known.map(|epoch| self.place.condemned_key(epoch));
        let listed = Listing::of(&self.place, Area::Condemned, CONDEMNED).after(after).all().await?;
        Ok(listed.iter().filter_map(|meta| io::name_of(&self.place, Area::Condemned, &meta.key)).collect())
    }

    /// A condemned list is folded only when its epoch is done, and that waited for every session that was at work
    /// before the list stood. This one was, and has not answered: so it was fenced.
    fn outrun(&self, epoch: SweepEpoch) -> Error {
        tracing::warn!(session.id = %self.id, "Sweep {epoch} went on without session {}, which was fenced", self.id);
        Error::Fenced { session: self.id }
    }

    /// Returns how this session ended, if it is gone as a whole.
    async fn end(&self) -> Result<Option<End>> {
        let gone = self.state().gone.clone();
        let gone = gone.refreshed(&self.place).await?;
        let end = gone.end(&self.id);
        Ok(if kept(Rule::GoneEndsSessions) { end } else { None })
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        // Nothing panics while the lock is held.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}
