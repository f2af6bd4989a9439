//! A bank in memory that does what it is asked only when a scheduler says so.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bytes::Bytes;
use karbor_bank::{Bank, Body, Capabilities, Error, ErrorKind, Key, Meta, Object, PutMode, Result, Version};

use crate::Area;
use crate::model::world::Oracle;

/// One call to the bank.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    Put(Key, Bytes, bool),
    Get(Key),
    Head(Key),
    Delete(Key),
    List(String, Option<Key>, usize),
}

/// What a call brought.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Reply {
    Done,
    Bytes(Bytes),
    Size(u64),
    Listed(Vec<(Key, u64)>),
    Failed(ErrorKind),
}

impl Op {
    pub(crate) const fn changes(&self) -> bool {
        matches!(self, Self::Put(..) | Self::Delete(_))
    }

    fn key(&self) -> &str {
        match self {
            Self::Put(key, ..) | Self::Get(key) | Self::Head(key) | Self::Delete(key) => key.as_str(),
            Self::List(prefix, ..) => prefix,
        }
    }
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is done, and the caller hears so.
    Served,
    /// It is done, and the reply is lost.
    ReplyLost,
    /// It is not done.
    RequestLost,
    /// The caller hears nothing, and it is done some time later.
    Late,
}

/// What goes wrong with one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The caller is killed before it.
    Killed,
    /// This happens to it.
    Fate(Fate),
}

/// A call that waits to be let through.
pub(crate) struct Waiting {
    pub(crate) id: u64,
    pub(crate) actor: usize,
    pub(crate) op: Op,
    waker: Waker,
}

#[derive(Default)]
pub(crate) struct Inner {
    pub(crate) objects: BTreeMap<Key, Bytes>,
    /// The sum of the hashes of all objects.
    objects_hash: u64,
    pub(crate) waiting: Vec<Waiting>,
    replies: BTreeMap<u64, Reply>,
    /// Calls whose caller has stopped, or believes them lost, and that may still be done.
    pub(crate) late: Vec<Op>,
    /// What each actor has seen so far, as a hash: with the objects, that is the state of the world.
    pub(crate) histories: BTreeMap<usize, u64>,
    /// Whether calls wait for a scheduler.
    pub(crate) gated: bool,
    /// Whether reads whose answer can never change are answered at once.
    pub(crate) skip_settled_reads: bool,
    /// Which areas each actor at work writes to, where that is known.
    pub(crate) writes: BTreeMap<usize, &'static [Area]>,
    /// Whether the calls of a stopped actor may still arrive.
    pub(crate) keep_late: bool,
    /// What goes wrong when so many more calls have been done, if nothing is held back.
    pub(crate) trouble: Option<(usize, Trouble)>,
    next: u64,
    pub(crate) calls: u64,
    pub(crate) oracle: Oracle,
    /// What was done, for people; empty unless asked for.
    pub(crate) trace: Option<Vec<String>>,
}

/// The bank; clones share it.
#[derive(Clone, Default)]
pub(crate) struct ModelBank {
    inner: Arc<Mutex<Inner>>,
}

thread_local! {
    /// Whose future is polled now.
    static ACTOR: Cell<usize> = const { Cell::new(0) };
}

impl ModelBank {
    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("a test that has panicked does not go on")
    }

    /// Polls a future on behalf of an actor.
    pub(crate) fn poll<F: Future + ?Sized>(actor: usize, future: Pin<&mut F>) -> Poll<F::Output> {
        ACTOR.set(actor);
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Runs a future to its end with every call let through at once.
    pub(crate) fn run<F: Future>(&self, future: F) -> F::Output {
        self.run_troubled(future, None).expect("nothing kills it")
    }

    /// Runs a future with every call let through at once, but for one that something happens to. `None` when it was
    /// killed.
    pub(crate) fn run_troubled<F: Future>(
        &self,
        future: F,
        trouble: Option<(usize, Trouble)>,
    ) -> Option<F::Output> {
        let gated = std::mem::replace(&mut self.inner().gated, false);
        self.inner().trouble = trouble;
        let mut future = std::pin::pin!(future);
        let polled = Self::poll(usize::MAX, future.as_mut());
        self.inner().gated = gated;
        match polled {
            Poll::Ready(out) => Some(out),
            Poll::Pending => None,
        }
    }

    /// Lets a waiting call through.
    pub(crate) fn serve(&self, position: usize, fate: Fate) {
        let mut inner = self.inner();
        let Waiting { id, actor, op, waker } = inner.waiting.remove(position);
        let reply = inner.meet(fate, &op);
        if let Some(trace) = &mut inner.trace {
            let key = op.key().rsplit_once("acct/").map_or("", |(_, key)| key).to_owned();
            trace.push(format!("{actor}: {} {key} {fate:?} -> {}", op.verb(), reply.short()));
        }
        inner.note(actor, &op, &reply);
        inner.replies.insert(id, reply);
        drop(inner);
        waker.wake();
    }

    /// Does a late call.
    pub(crate) fn arrive(&self, position: usize) {
        let mut inner = self.inner();
        let op = inner.late.remove(position);
        let reply = inner.apply(&op);
        if let Some(trace) = &mut inner.trace {
            trace.push(format!("late: {} {} -> {}", op.verb(), op.key(), reply.short()));
        }
    }

    async fn call(&self, op: Op) -> Reply {
        Call { bank: self.clone(), op: Some(op), id: None }.await
    }
}

impl Op {
    const fn verb(&self) -> &'static str {
        match self {
            Self::Put(..) => "put",
            Self::Get(_) => "get",
            Self::Head(_) => "head",
            Self::Delete(_) => "delete",
            Self::List(..) => "list",
        }
    }
}

impl Reply {
    fn short(&self) -> String {
        match self {
            Self::Done => "done".to_owned(),
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Size(size) => format!("{size} bytes"),
            Self::Listed(keys) => {
                let names: Vec<&str> =
                    keys.iter().map(|(key, _)| key.as_str().rsplit_once("acct/").unwrap().1).collect();
                names.join(" ")
            }
            Self::Failed(kind) => format!("{kind:?}"),
        }
    }
}

impl Inner {
    /// Does a call, or not, or later.
    fn meet(&mut self, fate: Fate, op: &Op) -> Reply {
        let failed = Reply::Failed(ErrorKind::Unavailable);
        match fate {
            Fate::Served => self.apply(op),
            Fate::ReplyLost => {
                self.apply(op);
                failed
            }
            Fate::RequestLost => failed,
            Fate::Late => {
                if op.changes() {
                    self.late.push(op.clone());
                }
                failed
            }
        }
    }

    /// Does a call.
    pub(crate) fn apply(&mut self, op: &Op) -> Reply {
        self.calls += 1;
        match op {
            Op::Put(key, bytes, create) => {
                if *create && self.objects.contains_key(key) {
                    return Reply::Failed(ErrorKind::AlreadyExists);
                }
                if let Some(old) = self.objects.insert(key.clone(), bytes.clone()) {
                    self.objects_hash = self.objects_hash.wrapping_sub(hash_of(&(key, old)));
                }
                self.objects_hash = self.objects_hash.wrapping_add(hash_of(&(key, bytes)));
                self.oracle.was_put(key, bytes, &self.objects);
                Reply::Done
            }
            Op::Get(key) => {
                self.objects.get(key).cloned().map_or(Reply::Failed(ErrorKind::NotFound), Reply::Bytes)
            }
            Op::Head(key) => self
                .objects
                .get(key)
                .map_or(Reply::Failed(ErrorKind::NotFound), |b| Reply::Size(b.len() as u64)),
            Op::Delete(key) => {
                if let Some(old) = self.objects.remove(key) {
                    self.objects_hash = self.objects_hash.wrapping_sub(hash_of(&(key, &old)));
                    self.oracle.was_deleted(key, &old);
                }
                Reply::Done
            }
            Op::List(prefix, after, limit) => {
                let start =
                    Key::new(prefix.trim_end_matches('/')).expect("prefixes are keys but for a slash");
                let keys = self
                    .objects
                    .range(start..)
                    .skip_while(|(key, _)| !key.as_str().starts_with(prefix.as_str()));
                let keys = keys.take_while(|(key, _)| key.as_str().starts_with(prefix.as_str()));
                let keys = keys.filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after));
                Reply::Listed(
                    keys.take(*limit).map(|(key, bytes)| (key.clone(), bytes.len() as u64)).collect(),
                )
            }
        }
    }

    /// Returns the state of the world as a hash: the objects, and what those actors have seen that are at work.
    pub(crate) fn state(&self, at_work: &[usize]) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.objects_hash.hash(&mut hasher);
        for actor in at_work {
            (actor, self.histories.get(actor)).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Returns whether a call is a read whose answer nobody can change any more: of a key that stands for ever, or
    /// in an area that nobody else at work writes to.
    fn is_settled(&self, op: &Op, actor: usize) -> bool {
        let Some(area) =
            Area::ALL.iter().find(|area| op.key().starts_with(&format!("acct/{}/", area.as_str())))
        else {
            return false;
        };
        let for_ever = matches!(area, Area::Sweeps | Area::Condemned | Area::Final | Area::Done);
        match op {
            Op::Put(..) | Op::Delete(_) => false,
            Op::Get(key) | Op::Head(key) if for_ever && self.objects.contains_key(key) => true,
            _ => self.writes.iter().all(|(other, areas)| *other == actor || !areas.contains(area)),
        }
    }

    fn note(&mut self, actor: usize, op: &Op, reply: &Reply) {
        let mut hasher = DefaultHasher::new();
        self.histories.get(&actor).hash(&mut hasher);
        op.hash(&mut hasher);
        reply.hash(&mut hasher);
        self.histories.insert(actor, hasher.finish());
    }
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A call under way.
struct Call {
    bank: ModelBank,
    op: Option<Op>,
    id: Option<u64>,
}

impl Future for Call {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reply> {
        let bank = self.bank.clone();
        let mut inner = bank.inner();
        if let Some(id) = self.id {
            let Some(reply) = inner.replies.remove(&id) else {
                return Poll::Pending;
            };
            self.id = None;
            return Poll::Ready(reply);
        }
        let op = self.op.take().expect("a call is polled no more after it has ended");
        let actor = ACTOR.get();
        if !inner.gated {
            let fate = match inner.trouble.take() {
                None => Fate::Served,
                Some((0, Trouble::Killed)) => {
                    inner.trouble = Some((0, Trouble::Killed));
                    return Poll::Pending;
                }
                Some((0, Trouble::Fate(fate))) => fate,
                Some((left, trouble)) => {
                    inner.trouble = Some((left - 1, trouble));
                    Fate::Served
                }
            };
            return Poll::Ready(inner.meet(fate, &op));
        }
        if inner.skip_settled_reads && inner.is_settled(&op, actor) {
            let reply = inner.apply(&op);
            inner.note(actor, &op, &reply);
            return Poll::Ready(reply);
        }
        let id = inner.next;
        inner.next += 1;
        self.id = Some(id);
        inner.waiting.push(Waiting { id, actor, op, waker: cx.waker().clone() });
        Poll::Pending
    }
}

impl Drop for Call {
    /// A request that is under way when its caller stops may still arrive.
    fn drop(&mut self) {
        let Some(id) = self.id else {
            return;
        };
        let Ok(mut inner) = self.bank.inner.lock() else {
            return;
        };
        inner.replies.remove(&id);
        if let Some(position) = inner.waiting.iter().position(|waiting| waiting.id == id) {
            let waiting = inner.waiting.remove(position);
            if waiting.op.changes() && inner.keep_late {
                inner.late.push(waiting.op);
            }
        }
    }
}

impl std::fmt::Debug for ModelBank {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ModelBank")
    }
}

#[async_trait]
impl Bank for ModelBank {
    async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<Version> {
        let op = Op::Put(key.clone(), body.concat().into(), mode == PutMode::Create);
        match self.call(op).await {
            Reply::Failed(kind) => Err(Error::new(kind, "put", key.as_str())),
            _ => Ok(Version(String::new())),
        }
    }

    async fn get(&self, key: &Key, _range: Option<Range<u64>>) -> Result<Object> {
        match self.call(Op::Get(key.clone())).await {
            Reply::Bytes(bytes) => {
                Ok(Object { size_bytes: bytes.len() as u64, bytes, version: Version(String::new()) })
            }
            Reply::Failed(kind) => Err(Error::new(kind, "get", key.as_str())),
            other => panic!("a get brought {other:?}"),
        }
    }

    async fn head(&self, key: &Key) -> Result<Meta> {
        match self.call(Op::Head(key.clone())).await {
            Reply::Size(size_bytes) => Ok(Meta { key: key.clone(), size_bytes, version: None }),
            Reply::Failed(kind) => Err(Error::new(kind, "head", key.as_str())),
            other => panic!("a head brought {other:?}"),
        }
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        match self.call(Op::Delete(key.clone())).await {
            Reply::Failed(kind) => Err(Error::new(kind, "delete", key.as_str())),
            _ => Ok(()),
        }
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Meta>> {
        match self.call(Op::List(prefix.to_owned(), after.cloned(), limit)).await {
            Reply::Listed(keys) => {
                let meta = |(key, size_bytes)| Meta { key, size_bytes, version: None };
                Ok(keys.into_iter().map(meta).collect())
            }
            Reply::Failed(kind) => Err(Error::new(kind, "list", prefix)),
            other => panic!("a list brought {other:?}"),
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::FULL
    }

    fn name(&self) -> String {
        "model".to_owned()
    }
}
