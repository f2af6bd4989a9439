//! Attaching a bank: what it can do is tried, not believed, and its descriptor says whose bank it is.
//!
//! Invariant: a bank whose descriptor is of an unknown format is refused and not written to. The descriptor is
//! put create-only and then read back, so that all who attach a new bank at once agree on its id.
//! What is tried is tried under a scratch key that no other attacher uses, and is removed again, also when a
//! trial fails.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Bank, Capabilities, Error, ErrorKind, Key, PutMode, Result};

/// The key of the descriptor object.
pub const DESCRIPTOR_KEY: &str = "karbor-bank";

/// The prefix below which attaching tries what the bank can do.
pub const SCRATCH_PREFIX: &str = "karbor-scratch/";

/// The format of the descriptor that this program writes, and the only one that it reads.
const FORMAT: u64 = 1;

/// The largest descriptor that is read; it has fewer than a hundred bytes.
const MAX_DESCRIPTOR_BYTES: u64 = 64 << 10;

/// Says that a place is a Karbor bank, and which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// The bank's id, for ever.
    pub id: Uuid,
}

/// The descriptor as it lies in the bank.
#[derive(Serialize, Deserialize)]
struct StoredDescriptor {
    format: u64,
    id: Uuid,
}

/// What every format of a descriptor has.
#[derive(Deserialize)]
struct AnyDescriptor {
    format: u64,
}

/// Tries what `bank` can do and reads its descriptor, which is put if there is none.
///
/// # Errors
/// When the bank cannot be reached or written, fails a trial that nothing can do without, or holds a
/// descriptor that this program does not understand.
pub async fn attach(bank: &dyn Bank) -> Result<(Descriptor, Capabilities)> {
    attach_as(bank, Uuid::new_v4()).await
}

/// Does what [`attach`] does, with `fresh` as the id of a new bank and of the scratch keys.
///
/// # Errors
/// As [`attach`].
pub async fn attach_as(bank: &dyn Bank, fresh: Uuid) -> Result<(Descriptor, Capabilities)> {
    let known = match read_descriptor(bank).await {
        Ok(known) => Some(known),
        Err(error) if error.kind == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let trial = Trial { bank, prefix: format!("{SCRATCH_PREFIX}{fresh}/") };
    let found = trial.run().await;
    let cleaned = trial.clean().await;
    let capabilities = found?;
    cleaned?;
    let descriptor = match known {
        Some(known) => known,
        None => create_descriptor(bank, fresh).await?,
    };
    Ok((descriptor, capabilities))
}

/// Reads a bank's descriptor; writes nothing, so that it also serves a bank that can only be read.
///
/// # Errors
/// [`ErrorKind::NotFound`] when the place is no bank, [`ErrorKind::Unsupported`] when its format is unknown.
pub async fn read_descriptor(bank: &dyn Bank) -> Result<Descriptor> {
    let key = descriptor_key();
    let object = bank.get(&key, Some(0..MAX_DESCRIPTOR_BYTES)).await?;
    let refused = |kind, why: String| Err(Error::new(kind, "attach", DESCRIPTOR_KEY).with_source(why));
    let format = match serde_json::from_slice::<AnyDescriptor>(&object.bytes) {
        Ok(any) => any.format,
        Err(error) => return refused(ErrorKind::Other, format!("this is no bank descriptor: {error}")),
    };
    if format != FORMAT {
        let why = format!("the bank has format {format}, and this program knows format {FORMAT} only");
        return refused(ErrorKind::Unsupported, why);
    }
    match serde_json::from_slice::<StoredDescriptor>(&object.bytes) {
        Ok(stored) => Ok(Descriptor { id: stored.id }),
        Err(error) => refused(ErrorKind::Other, format!("the bank descriptor is damaged: {error}")),
    }
}

async fn create_descriptor(bank: &dyn Bank, fresh: Uuid) -> Result<Descriptor> {
    let stored = StoredDescriptor { format: FORMAT, id: fresh };
    let text = serde_json::to_vec(&stored).expect("a number and a UUID can be written as JSON");
    match bank.put(&descriptor_key(), vec![text.into()], PutMode::Create).await {
        Ok(_) => {}
        Err(error) if error.kind == ErrorKind::AlreadyExists => {}
        Err(error) if error.kind == ErrorKind::Unsupported => {
            let text = serde_json::to_vec(&stored).expect("a number and a UUID can be written as JSON");
            bank.put(&descriptor_key(), vec![text.into()], PutMode::Overwrite).await?;
        }
        Err(error) => return Err(error),
    }
    read_descriptor(bank).await
}

fn descriptor_key() -> Key {
    Key::new(DESCRIPTOR_KEY).expect("it is a valid key")
}

/// One series of trials under one scratch prefix.
struct Trial<'a> {
    bank: &'a dyn Bank,
    prefix: String,
}

/// The names that are put to try the listing, in the order that it must have.
const LISTED: [&str; 7] = ["l-a", "l.a", "l/a", "l/a-", "l/a.b", "l/b/a", "l0"];

/// How many callers race for one key, and how often.
const RACERS: usize = 8;
const RACES: usize = 3;

impl Trial<'_> {
    async fn run(&self) -> Result<Capabilities> {
        let mut capabilities = self.bank.capabilities();
        // What a driver does not claim is not believed because it went well a few times.
        capabilities.create_only &= self.creates_once().await? && self.races_have_one_winner().await?;
        capabilities.compare_and_swap &= self.swaps().await?;
        self.reads_ranges().await?;
        capabilities.consistent_listing &= self.lists().await?;
        capabilities.consistent_listing &= self.deletes().await?;
        Ok(capabilities)
    }

    async fn creates_once(&self) -> Result<bool> {
        let key = self.key("once");
        match self.put(&key, "first", PutMode::Create).await {
            Ok(()) => {}
            Err(error) if error.kind == ErrorKind::Unsupported => return Ok(false),
            Err(error) => return Err(error),
        }
        self.expect(&key, b"first").await?;
        match self.put(&key, "second", PutMode::Create).await {
            Ok(()) => Ok(false),
            Err(error) if error.kind == ErrorKind::AlreadyExists => {
                self.expect(&key, b"first").await?;
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    async fn races_have_one_winner(&self) -> Result<bool> {
        for race in 0..RACES {
            let key = self.key(&format!("race-{race}"));
            let racers = (0..RACERS).map(|racer| {
                let (key, body) = (&key, format!("racer {racer}"));
                async move { (racer, self.put(key, &body, PutMode::Create).await) }
            });
            let mut winner = None;
            for (racer, outcome) in futures::future::join_all(racers).await {
                match outcome {
                    Ok(()) if winner.is_some() => return Ok(false),
                    Ok(()) => winner = Some(racer),
                    // A bank may refuse some of the racers for now.
                    Err(error) if matches!(error.kind, ErrorKind::AlreadyExists | ErrorKind::Unavailable) => {
                    }
                    Err(error) => return Err(error),
                }
            }
            let Some(winner) = winner else {
                return Err(self.failed(ErrorKind::Unavailable, "of racing creates none succeeded"));
            };
            if self.bank.get(&key, None).await?.bytes != format!("racer {winner}") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn swaps(&self) -> Result<bool> {
        let key = self.key("swap");
        self.put(&key, "one", PutMode::Overwrite).await?;
        let stale = self.bank.get(&key, None).await?.version;
        match self.put(&key, "two", PutMode::Swap(stale.clone())).await {
            Ok(()) => {}
            Err(error) if error.kind == ErrorKind::Unsupported => return Ok(false),
            Err(error) => return Err(error),
        }
        self.expect(&key, b"two").await?;
        match self.put(&key, "three", PutMode::Swap(stale)).await {
            Ok(()) => Ok(false),
            Err(error) if error.kind == ErrorKind::Precondition => {
                self.expect(&key, b"two").await?;
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    async fn reads_ranges(&self) -> Result<()> {
        let key = self.key("range");
        let pieces = [Bytes::from_static(b"0123"), Bytes::new(), Bytes::from_static(b"456789")];
        self.bank.put(&key, pieces.to_vec(), PutMode::Overwrite).await?;
        for (range, wanted) in [(0..10, "0123456789"), (3..5, "34"), (8..99, "89"), (0..1, "0")] {
            let part = self.bank.get(&key, Some(range.clone())).await?;
            if part.bytes != wanted || part.size_bytes != 10 {
                let why = format!("reading bytes {range:?} of ten gave {} bytes", part.bytes.len());
                return Err(self.failed(ErrorKind::Unsupported, why));
            }
        }
        if self.bank.head(&key).await?.size_bytes != 10 {
            return Err(self.failed(ErrorKind::Unsupported, "the size of an object is told wrong"));
        }
        Ok(())
    }

    async fn lists(&self) -> Result<bool> {
        for name in LISTED {
            self.put(&self.key(name), name, PutMode::Overwrite).await?;
        }
        let prefix = format!("{}l", self.prefix);
        let listed = self.bank.list(&prefix, None, 100).await?;
        if !listed.is_sorted_by(|a, b| a.key < b.key) {
            return Err(self.failed(ErrorKind::Unsupported, "a listing is not in the order of the keys"));
        }
        if listed.len() < LISTED.len() {
            return Ok(false);
        }
        let after = self.key(LISTED[1]);
        let page = self.bank.list(&prefix, Some(&after), 2).await?;
        let wanted = [self.key(LISTED[2]), self.key(LISTED[3])];
        if !page.iter().map(|meta| &meta.key).eq(&wanted) {
            return Err(self.failed(ErrorKind::Unsupported, "a part of a listing is not what was asked for"));
        }
        Ok(true)
    }

    async fn deletes(&self) -> Result<bool> {
        let key = self.key(LISTED[0]);
        self.bank.delete(&key).await?;
        self.bank.delete(&key).await?;
        match self.bank.get(&key, None).await {
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(self.failed(ErrorKind::Unsupported, "a deleted object can still be read")),
        }
        Ok(self.bank.list(key.as_str(), None, 1).await?.is_empty())
    }

    async fn clean(&self) -> Result<()> {
        // The names are known: a listing that lags would leave some of them.
        let fixed = ["once", "swap", "range"].iter().chain(&LISTED).map(|name| self.key(name));
        let races = (0..RACES).map(|race| self.key(&format!("race-{race}")));
        let removals = fixed.chain(races).map(|key| async move { self.bank.delete(&key).await });
        futures::future::join_all(removals).await.into_iter().collect()
    }

    async fn put(&self, key: &Key, text: &str, mode: PutMode) -> Result<()> {
        self.bank.put(key, vec![Bytes::copy_from_slice(text.as_bytes())], mode).await.map(drop)
    }

    async fn expect(&self, key: &Key, wanted: &[u8]) -> Result<()> {
        if self.bank.get(key, None).await?.bytes == wanted {
            return Ok(());
        }
        Err(self.failed(ErrorKind::Unsupported, format!("reading {key} did not give what was put")))
    }

    fn key(&self, name: &str) -> Key {
        Key::new(format!("{}{name}", self.prefix)).expect("the prefix and the names are valid")
    }

    fn failed(&self, kind: ErrorKind, why: impl Into<String>) -> Error {
        Error::new(kind, "attach", self.bank.name()).with_source(why.into())
    }
}

impl Capabilities {
    /// Says in a sentence each what the bank cannot do and what follows; empty when it can do everything.
    pub fn shortcomings(&self) -> Vec<&'static str> {
        let mut sentences = Vec::new();
        if !self.create_only {
            sentences.push(
                "Create-only puts do not decide races on this bank: only one process may write to it, and \
                 no operation on it may be taken over by another.",
            );
        }
        if !self.compare_and_swap {
            sentences.push(
                "Compare-and-swap puts do not work on this bank: hints that several processes change may \
                 be lost and are then computed again.",
            );
        }
        if !self.consistent_listing {
            sentences.push(
                "Listings of this bank do not show at once what was put: sweeping takes the lists of \
                 sessions and sweeps from the database, and refuses to run without one.",
            );
        }
        sentences
    }
}

impl fmt::Display for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bank {}", self.id)
    }
}
