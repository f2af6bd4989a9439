//! The simplest vault: chunks are small numbers, packs and index objects are JSON, a commit is a list of chunks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use karbor_types::Epoch;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::io;
use crate::model::bank::ModelBank;
use crate::model::world::{FirstPut, Oracle};
use crate::record::to_json;
use crate::rule::{Rule, kept};
use crate::{
    BoxError, Choice, CommitOutcome, Error, FenceOutcome, Gone, Kind, Needed, News, ObjectHash, PackName,
    Place, Reachability, ReaderSession, Result, Roots, SessionId, SessionRecord, StoreAgain, WriterSession,
    list_index,
};

#[derive(Serialize, Deserialize)]
pub(crate) struct PackBody {
    pub(crate) chunks: Vec<u8>,
    salt: u64,
}

#[derive(Serialize, Deserialize, Default)]
pub(crate) struct IndexBody {
    pub(crate) packs: BTreeMap<String, Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct CommitBody {
    pub(crate) refs: Vec<u8>,
    salt: u64,
}

impl PackBody {
    pub(crate) fn read(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).expect("packs are JSON")
    }
}

impl IndexBody {
    pub(crate) fn read(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).expect("index objects are JSON")
    }
}

impl CommitBody {
    pub(crate) fn read(bytes: &[u8]) -> Self {
        serde_json::from_slice(&bytes[1..]).expect("commits are JSON behind a letter")
    }

    fn to_bytes(&self) -> Bytes {
        [b"R".as_slice(), &to_json(self)].concat().into()
    }
}

pub(crate) fn mentioned(pack: &str) -> PackName {
    pack.parse().expect("the index mentions packs by name")
}

/// What actors share beside the bank: the service's database, so to speak.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) bank: ModelBank,
    pub(crate) place: Place,
    salt: Arc<AtomicU64>,
    /// The next attempt of each operation.
    attempts: Arc<Mutex<BTreeMap<Uuid, u32>>>,
}

impl Service {
    pub(crate) fn new(bank: &ModelBank, place: &Place) -> Self {
        Self { bank: bank.clone(), place: place.clone(), salt: Arc::default(), attempts: Arc::default() }
    }

    pub(crate) fn salt(&self) -> u64 {
        self.salt.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns a UUID that was not used before.
    pub(crate) fn uuid(&self) -> Uuid {
        Uuid::from_u128(u128::from(self.salt()))
    }

    /// Returns the next attempt of an operation.
    pub(crate) fn attempt(&self, operation: Uuid) -> SessionId {
        let mut attempts = self.attempts.lock().expect("nothing panics with it held");
        let next = attempts.entry(operation).or_default();
        *next += 1;
        SessionId::new(operation, Epoch(*next - 1))
    }

    pub(crate) fn oracle<T>(&self, look: impl FnOnce(&mut Oracle) -> T) -> T {
        look(&mut self.bank.inner().oracle)
    }

    /// Passes errors on; those that no fault of the bank explains are violations.
    pub(crate) fn expected<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            let explained = matches!(
                error,
                Error::Bank { .. }
                    | Error::Fenced { .. }
                    | Error::PinGone { .. }
                    | Error::NotCommitted { .. }
            );
            let from_bank = matches!(error, Error::Reachability { source } | Error::StoreAgain { source }
                if source.downcast_ref::<Error>().is_some_and(|e| matches!(e, Error::Bank { .. } | Error::Fenced { .. })));
            if !explained && !from_bank {
                self.oracle(|oracle| oracle.complain(format!("unexpected: {error:?}")));
            }
        }
        result
    }

    /// Begins a session, again and again if the bank fails.
    pub(crate) async fn begin_writer(
        &self,
        id: SessionId,
        kind: Kind,
        pins: Vec<SessionId>,
    ) -> Result<Writer> {
        let record = SessionRecord::new(kind, pins, self.salt().to_string());
        let mut tries = 0;
        let session = loop {
            match WriterSession::begin(&self.place, id, record.clone()).await {
                Err(error) if error.is_retryable() && tries < 3 => tries += 1,
                begun => break Arc::new(self.expected(begun)?),
            }
        };
        let mut writer = Writer {
            service: self.clone(),
            session,
            index: Index::default(),
            refs: BTreeSet::new(),
            unread: BTreeSet::new(),
        };
        writer.load_index().await?;
        Ok(writer)
    }

    /// Puts a reader's pin, reads all of what it pins, and closes.
    pub(crate) async fn read(&self, pin: SessionId) -> Result<()> {
        let id = self.attempt(self.uuid());
        let record = SessionRecord::new(Kind::Reader, vec![pin], self.salt().to_string());
        let session = self.expected(ReaderSession::begin(&self.place, id, record).await)?;
        self.oracle(|oracle| oracle.grant(id, &[pin]));
        let refs = self.oracle(|oracle| oracle.refs(&pin).to_vec());
        for chunk in refs {
            let read = self.read_chunk(chunk).await?;
            self.oracle(|oracle| {
                if !read && oracle.is_granted(&id) {
                    oracle.complain(format!("{id} was granted {pin} and cannot read chunk {chunk}"));
                }
            });
        }
        self.oracle(|oracle| oracle.release(&id));
        session.close().await
    }

    async fn read_chunk(&self, chunk: u8) -> Result<bool> {
        for _ in 0..20 {
            let index = load_index(&self.place).await?;
            for pack in index.packs_of(chunk) {
                let key = self.place.pack_key(&pack);
                if let Some(bytes) = io::find(&self.place, &key, "reading a pack").await? {
                    return Ok(PackBody::read(&bytes).chunks.contains(&chunk));
                }
            }
        }
        Ok(false)
    }

    /// Stores the chunks of some packs again.
    pub(crate) async fn rewrite(&self, choose: impl Fn(&PackName) -> bool) -> Result<()> {
        let mut writer = self.begin_writer(self.attempt(self.uuid()), Kind::Rewrite, Vec::new()).await?;
        let packs: Vec<PackName> = writer.index.packs.keys().copied().filter(|p| choose(p)).collect();
        for pack in packs {
            let key = self.place.pack_key(&pack);
            if let Some(bytes) = io::find(&self.place, &key, "reading a pack").await? {
                writer.store(&PackBody::read(&bytes).chunks).await?;
            }
        }
        self.expected(writer.session.close().await)
    }

    /// Merges some index objects into one.
    pub(crate) async fn merge(&self, choose: impl Fn(usize) -> bool) -> Result<()> {
        let gone = Gone::read(&self.place).await?;
        let mut merged = IndexBody::default();
        let mut replaced = Vec::new();
        for (n, object) in list_index(&self.place).await?.into_iter().enumerate() {
            let Some(bytes) = io::find(&self.place, &object.key, "reading the index").await? else {
                continue;
            };
            let mut body = IndexBody::read(&bytes);
            body.packs.retain(|pack, _| !gone.contains(&mentioned(pack)));
            if body.packs.is_empty() || choose(n) {
                merged.packs.extend(body.packs);
                replaced.push(object.key);
            }
        }
        if merged.packs.is_empty() {
            return crate::remove_index(&self.place, &replaced).await;
        }
        crate::publish_merged(&self.place, self.uuid(), to_json(&merged), &replaced).await.map(|_| ())
    }

    /// Fences a session from outside, and checks what that says.
    pub(crate) async fn fence(&self, session: SessionId) -> Result<FenceOutcome> {
        let outcome = crate::fence(&self.place, &session, None, "test", "").await?;
        self.oracle(|oracle| {
            let committed = matches!(oracle.ends.get(&session), Some(FirstPut::Record(_)));
            if committed != matches!(outcome, FenceOutcome::AlreadyCommitted { .. }) {
                oracle.complain(format!("a fence for {session} says {outcome:?}"));
            }
        });
        Ok(outcome)
    }
}

/// Which packs hold which chunks, as the index says.
#[derive(Debug, Default, Clone)]
pub(crate) struct Index {
    pub(crate) packs: BTreeMap<PackName, Vec<u8>>,
}

impl Index {
    fn add(&mut self, body: IndexBody) {
        self.packs.extend(body.packs.into_iter().map(|(pack, chunks)| (mentioned(&pack), chunks)));
    }

    fn packs_of(&self, chunk: u8) -> Vec<PackName> {
        self.packs.iter().filter(|(_, chunks)| chunks.contains(&chunk)).map(|(pack, _)| *pack).collect()
    }
}

/// Lists and reads the index.
async fn load_index(place: &Place) -> Result<Index> {
    let mut index = Index::default();
    let mut read = BTreeSet::new();
    'again: loop {
        for object in list_index(place).await? {
            if !read.contains(&object.key) {
                let Some(bytes) = io::find(place, &object.key, "reading the index").await? else {
                    continue 'again;
                };
                index.add(IndexBody::read(&bytes));
                read.insert(object.key);
            }
        }
        return Ok(index);
    }
}

/// A writer at work.
pub(crate) struct Writer {
    service: Service,
    pub(crate) session: Arc<WriterSession>,
    pub(crate) index: Index,
    /// Chunks that it refers to and has seen.
    refs: BTreeSet<u8>,
    /// Chunks that it refers to because its base does.
    unread: BTreeSet<u8>,
}

impl Writer {
    async fn load_index(&mut self) -> Result<()> {
        let mut objects = self.session.index();
        let mut read = BTreeSet::new();
        'again: loop {
            for object in &objects {
                if read.contains(&object.key) {
                    continue;
                }
                let Some(bytes) = io::find(&self.service.place, &object.key, "reading the index").await?
                else {
                    objects = self.session.list_index_again().await?;
                    continue 'again;
                };
                self.index.add(IndexBody::read(&bytes));
                read.insert(object.key.clone());
            }
            return Ok(());
        }
    }

    fn is_present(&self, chunk: u8) -> bool {
        self.index.packs_of(chunk).iter().any(|pack| self.session.is_usable(pack))
    }

    /// Refers to chunks; stores those that are not present, and all if `anew`.
    pub(crate) async fn refer(&mut self, chunks: &[u8], anew: bool) -> Result<()> {
        let missing: Vec<u8> =
            chunks.iter().copied().filter(|chunk| anew || !self.is_present(*chunk)).collect();
        self.refs.extend(chunks.iter().filter(|chunk| !missing.contains(chunk)));
        for pack in missing.chunks(2) {
            self.store(pack).await?;
            self.refs.extend(pack);
        }
        Ok(())
    }

    /// Refers to what the pinned base refers to, without looking.
    pub(crate) fn lean_on_base(&mut self) {
        for pin in self.session.pins() {
            let refs = self.service.oracle(|oracle| oracle.refs(pin).to_vec());
            self.unread.extend(refs.iter().take(2));
        }
    }

    /// Stores a pack and its index object.
    pub(crate) async fn store(&mut self, chunks: &[u8]) -> Result<()> {
        let (pack, body) = self.put_pack(chunks).await?;
        let index = to_json(&body);
        let key = self.service.place.index_key(self.session.id(), &ObjectHash::of(&index));
        io::put_once(&self.service.place, &key, &index, "putting an index object").await?;
        self.index.packs.insert(pack, chunks.to_vec());
        Ok(())
    }

    async fn put_pack(&self, chunks: &[u8]) -> Result<(PackName, IndexBody)> {
        let bytes = to_json(&PackBody { chunks: chunks.to_vec(), salt: self.service.salt() });
        let pack = PackName::new(*self.session.id(), ObjectHash::of(&bytes));
        io::put_once(&self.service.place, &self.service.place.pack_key(&pack), &bytes, "putting a pack")
            .await?;
        Ok((pack, IndexBody { packs: BTreeMap::from([(pack.to_string(), chunks.to_vec())]) }))
    }

    /// Answers sweeps.
    pub(crate) async fn look(&mut self) -> Result<()> {
        if !kept(Rule::AnswerHonestly) {
            let news = self.session.refresh().await?;
            return self.session.acknowledge(&news).await;
        }
        let session = self.session.clone();
        let answered = session.before_commit(self).await;
        self.service.expected(answered)
    }

    /// Answers sweeps and commits.
    pub(crate) async fn commit(&mut self) -> Result<CommitOutcome> {
        self.look().await?;
        self.put_commit().await
    }

    /// Commits, again and again if the bank fails.
    pub(crate) async fn put_commit(&mut self) -> Result<CommitOutcome> {
        let refs = self.refs.union(&self.unread).copied().collect();
        let record = CommitBody { refs, salt: self.service.salt() }.to_bytes();
        let mut tries = 0;
        let outcome = loop {
            match self.session.commit(record.clone()).await {
                Err(error) if error.is_retryable() && tries < 3 => tries += 1,
                outcome => break self.service.expected(outcome)?,
            }
        };
        let id = self.session.id();
        self.service.oracle(|oracle| {
            let committed = matches!(oracle.ends.get(id), Some(FirstPut::Record(_)));
            if committed != (outcome == CommitOutcome::Committed) {
                oracle.complain(format!("the commit of {id} says {outcome:?}"));
            }
        });
        Ok(outcome)
    }
}

#[async_trait]
impl StoreAgain for Writer {
    async fn store_again(&mut self, _news: &News) -> Result<(), BoxError> {
        let lost: Vec<u8> = self.refs.iter().copied().filter(|chunk| !self.is_present(*chunk)).collect();
        for pack in lost.chunks(2) {
            self.store(pack).await?;
        }
        Ok(())
    }
}

/// Reads commits and the index.
pub(crate) struct Reach {
    pub(crate) place: Place,
}

#[async_trait]
impl Reachability for Reach {
    async fn needed(&self, roots: &Roots, choice: &Choice<'_>) -> Result<Needed, BoxError> {
        let mut reached = BTreeSet::new();
        let mut living = BTreeSet::new();
        for session in &roots.living {
            let key = self.place.commit_key(session);
            let bytes =
                io::find(&self.place, &key, "reading a commit").await?.ok_or("a living commit is gone")?;
            living.extend(CommitBody::read(&bytes).refs);
        }
        for session in &roots.pinned {
            if let Some(bytes) =
                io::find(&self.place, &self.place.commit_key(session), "reading a commit").await?
            {
                reached.extend(CommitBody::read(&bytes).refs);
            }
        }
        reached.extend(&living);
        let index = load_index(&self.place).await?;
        let fullness = |pack: &PackName| {
            let chunks = &index.packs[pack];
            100 * chunks.iter().filter(|chunk| reached.contains(chunk)).count() / chunks.len()
        };
        let mut needed = Needed::default();
        for chunk in &reached {
            let best = index
                .packs_of(*chunk)
                .into_iter()
                .filter_map(|pack| Some((choice.rank(&pack)?, fullness(&pack), pack)));
            match best.max() {
                Some((_, _, pack)) => {
                    needed.packs.insert(pack);
                }
                None if living.contains(chunk) => needed.missing_chunks += 1,
                None => {}
            }
        }
        Ok(needed)
    }
}
