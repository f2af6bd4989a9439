//! Actors on one bank, and what must be true of it whatever they do.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use karbor_bank::Key;
use serde_json::Value;

use crate::model::bank::{Fate, ModelBank};
use crate::model::vault::{CommitBody, IndexBody, PackBody, mentioned};
use crate::{Area, Doomed, PackName, Place, SessionId};

/// What should be true, kept beside the bank by watching what happens to it, not by asking the protocol.
#[derive(Default)]
pub(crate) struct Oracle {
    /// What was put first at each commit key; that counts for ever.
    pub(crate) ends: BTreeMap<SessionId, FirstPut>,
    pub(crate) deleted: BTreeSet<SessionId>,
    /// What readers were granted and have not given back.
    granted: BTreeMap<SessionId, Vec<SessionId>>,
    /// Which packs a chunk was ever stored in.
    copies: BTreeMap<u8, BTreeSet<PackName>>,
    /// Packs that stand now.
    present: BTreeSet<PackName>,
    /// How many index objects that stand now mention a pack.
    mentions: BTreeMap<PackName, usize>,
    gone: Doomed,
    pub(crate) violation: Option<String>,
}

/// What was put first at a commit key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FirstPut {
    Record(Vec<u8>),
    Marker,
}

impl Oracle {
    pub(crate) fn was_put(&mut self, key: &Key, bytes: &Bytes, objects: &BTreeMap<Key, Bytes>) {
        let (area, name) = split(key);
        match area {
            "packs" => {
                let pack: PackName = name.parse().expect("packs have names");
                for chunk in PackBody::read(bytes).chunks {
                    self.copies.entry(chunk).or_default().insert(pack);
                }
                self.present.insert(pack);
            }
            "index" => {
                for pack in IndexBody::read(bytes).packs.into_keys() {
                    *self.mentions.entry(mentioned(&pack)).or_default() += 1;
                }
            }
            "commits" => {
                let session: SessionId = name.parse().expect("commits have names");
                if self.ends.contains_key(&session) {
                    return;
                }
                self.granted.remove(&session);
                if bytes.starts_with(b"{") {
                    self.ends.insert(session, FirstPut::Marker);
                    return;
                }
                let twin = self.ends.iter().find(|(other, end)| {
                    other.operation == session.operation && matches!(end, FirstPut::Record(_))
                });
                if let Some((twin, _)) = twin {
                    self.violation = Some(format!("{session} commits, and {twin} has"));
                }
                self.ends.insert(session, FirstPut::Record(CommitBody::read(bytes).refs));
                self.check();
            }
            "deleted" => {
                let session: SessionId = name.parse().expect("tombstones have names");
                if matches!(self.ends.get(&session), Some(FirstPut::Record(_))) {
                    self.deleted.insert(session);
                }
            }
            "final" => {
                self.read_final(bytes, objects);
                self.check();
            }
            _ => {}
        }
    }

    pub(crate) fn was_deleted(&mut self, key: &Key, old: &Bytes) {
        let (area, name) = split(key);
        match area {
            "packs" => {
                self.present.remove(&name.parse().expect("packs have names"));
                self.check();
            }
            "index" => {
                for pack in IndexBody::read(old).packs.into_keys() {
                    *self.mentions.entry(mentioned(&pack)).or_default() -= 1;
                }
                self.check();
            }
            _ => {}
        }
    }

    /// A reader may read from now on.
    pub(crate) fn grant(&mut self, reader: SessionId, pins: &[SessionId]) {
        if !self.ends.contains_key(&reader) {
            self.granted.insert(reader, pins.to_vec());
            self.check();
        }
    }

    /// A reader has finished.
    pub(crate) fn release(&mut self, reader: &SessionId) {
        self.granted.remove(reader);
    }

    /// Returns whether a reader still has what it was granted: it was not fenced.
    pub(crate) fn is_granted(&self, reader: &SessionId) -> bool {
        self.granted.contains_key(reader)
    }

    pub(crate) fn living(&self) -> impl Iterator<Item = (&SessionId, &Vec<u8>)> {
        self.ends.iter().filter_map(|(session, end)| match end {
            FirstPut::Record(refs) if !self.deleted.contains(session) => Some((session, refs)),
            _ => None,
        })
    }

    pub(crate) fn refs(&self, session: &SessionId) -> &[u8] {
        match self.ends.get(session) {
            Some(FirstPut::Record(refs)) => refs,
            _ => &[],
        }
    }

    pub(crate) fn complain(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// Every living commit, and what every reader was granted, can be read as a whole.
    fn check(&mut self) {
        if self.violation.is_some() {
            return;
        }
        let pinned = self.granted.values().flatten().map(|pin| (pin, self.refs(pin)));
        let living = self.living().map(|(session, refs)| (session, refs.as_slice()));
        let mut wanted =
            living.chain(pinned).flat_map(|(session, refs)| refs.iter().map(move |chunk| (session, chunk)));
        let lost = wanted.find(|(_, chunk)| !self.is_readable(**chunk));
        let lost = lost
            .map(|(session, chunk)| format!("{session} needs chunk {chunk}, which no pack holds any more"));
        drop(wanted);
        self.violation = lost;
    }

    /// Returns whether a pack that stands, is mentioned, and is not gone, holds the chunk.
    fn is_readable(&self, chunk: u8) -> bool {
        self.copies.get(&chunk).is_some_and(|packs| {
            packs.iter().any(|pack| {
                let mentioned = self.mentions.get(pack).is_some_and(|times| *times > 0);
                self.present.contains(pack) && mentioned && !self.gone.contains(pack)
            })
        })
    }

    /// Reads a final list without the protocol's code.
    fn read_final(&mut self, bytes: &[u8], objects: &BTreeMap<Key, Bytes>) {
        let head: Value = serde_json::from_slice(bytes).expect("final lists are JSON");
        let mut parts = vec![head.clone()];
        for hash in head["pages"].as_array().into_iter().flatten() {
            let hash = hash.as_str().expect("a hash is a text");
            // It is there, unless the test has left out the rule that keeps it there.
            if let Some((_, page)) = objects.iter().find(|(key, _)| key.as_str().ends_with(hash)) {
                parts.push(serde_json::from_slice(page).expect("pages are JSON"));
            }
        }
        for part in parts {
            for sessions in part["sessions"].as_object().into_iter().flatten() {
                for session in sessions.1.as_array().expect("a list") {
                    let session = session.as_str().expect("a text").parse().expect("a name");
                    self.gone.sessions.insert(session, crate::End::Fence);
                }
            }
            for (session, hashes) in part["packs"].as_object().into_iter().flatten() {
                for hash in hashes.as_array().expect("a list") {
                    let hash = hash.as_str().expect("a text").parse().expect("a hash");
                    self.gone.packs.insert(PackName::new(session.parse().expect("a name"), hash));
                }
            }
        }
    }
}

fn split(key: &Key) -> (&str, &str) {
    key.as_str()
        .strip_prefix("acct/")
        .and_then(|below| below.split_once('/'))
        .expect("all keys are below acct/")
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Actors on one bank.
pub(crate) struct World {
    pub(crate) bank: ModelBank,
    pub(crate) place: Place,
    actors: Vec<Option<Task>>,
}

impl World {
    /// Makes a world on objects that stand already.
    pub(crate) fn new(bank: ModelBank) -> Self {
        bank.inner().gated = true;
        let place = Place::new(Arc::new(bank.clone()), "acct").expect("a short prefix");
        Self { bank, place, actors: Vec::new() }
    }

    /// Adds an actor, which goes as far as its first call. It writes to no other areas than these.
    pub(crate) fn spawn_writing(&mut self, areas: &'static [Area], task: impl Future<Output = ()> + 'static) {
        self.bank.inner().writes.insert(self.actors.len(), areas);
        self.spawn(task);
    }

    /// Adds an actor, which goes as far as its first call.
    pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + 'static) -> usize {
        let actor = self.actors.len();
        self.actors.push(Some(Box::pin(task)));
        self.poll(actor);
        actor
    }

    /// Lets a waiting call through, and its actor go on as far as its next call.
    pub(crate) fn serve(&mut self, position: usize, fate: Fate) {
        let actor = self.bank.inner().waiting[position].actor;
        self.bank.serve(position, fate);
        self.poll(actor);
    }

    /// Stops an actor for good. Its calls may still arrive.
    pub(crate) fn stop(&mut self, actor: usize) {
        self.actors[actor] = None;
        self.bank.inner().writes.remove(&actor);
    }

    pub(crate) fn is_running(&self, actor: usize) -> bool {
        self.actors[actor].is_some()
    }

    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.actors.len()).filter(|actor| self.is_running(*actor)).collect()
    }

    pub(crate) fn violation(&self) -> Option<String> {
        self.bank.inner().oracle.violation.clone()
    }

    fn poll(&mut self, actor: usize) {
        let Some(task) = &mut self.actors[actor] else {
            return;
        };
        if let Poll::Ready(()) = ModelBank::poll(actor, task.as_mut()) {
            self.stop(actor);
        }
    }
}
