//! One account in a bank, and the keys of everything that the protocol keeps there.

use std::sync::Arc;

use karbor_bank::{Bank, InvalidKey, Key};
use karbor_types::AccountId;
use uuid::Uuid;

use crate::{ObjectHash, PackName, SessionId, SweepEpoch};

/// One account: a bank, and the prefix below which all of the account's keys lie.
#[derive(Debug, Clone)]
pub struct Place {
    bank: Arc<dyn Bank>,
    prefix: String,
}

/// The longest key below a prefix: `index/merged-<uuid>/<hash>` and `packs/<session>/<hash>` stay below it.
const LONGEST_BELOW: usize = 160;

impl Place {
    /// Names the account `accounts/<account>` of a bank.
    pub fn of_account(bank: Arc<dyn Bank>, account: &AccountId) -> Self {
        Self { bank, prefix: format!("accounts/{account}") }
    }

    /// Names the account whose keys lie below `prefix` (without a slash at its end).
    ///
    /// # Errors
    /// When the prefix is no key, or so long that keys below it would be too long.
    pub fn new(bank: Arc<dyn Bank>, prefix: impl Into<String>) -> Result<Self, InvalidKey> {
        let prefix = Key::new(prefix)?;
        if prefix.as_str().len() + LONGEST_BELOW > Key::MAX_BYTES {
            return Err(InvalidKey { text: prefix.to_string() });
        }
        Ok(Self { bank, prefix: prefix.to_string() })
    }

    /// Returns the bank.
    pub fn bank(&self) -> &dyn Bank {
        self.bank.as_ref()
    }

    /// Returns the bank, to be shared.
    pub fn shared_bank(&self) -> Arc<dyn Bank> {
        self.bank.clone()
    }

    /// Returns the prefix below which the account's keys lie, without a slash at its end.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns `<prefix>/<area>/`, where keys of one kind lie, as a listing wants it.
    pub fn area(&self, area: Area) -> String {
        format!("{}/{}/", self.prefix, area.as_str())
    }

    /// Returns the part of a key behind `<prefix>/<area>/`.
    pub fn below<'k>(&self, area: Area, key: &'k Key) -> Option<&'k str> {
        key.as_str()
            .strip_prefix(self.prefix.as_str())?
            .strip_prefix('/')?
            .strip_prefix(area.as_str())?
            .strip_prefix('/')
    }

    /// Returns the key of a session's record.
    pub fn session_key(&self, session: &SessionId) -> Key {
        self.key(Area::Sessions, session)
    }

    /// Returns the key of a pack.
    pub fn pack_key(&self, pack: &PackName) -> Key {
        self.key(Area::Packs, pack)
    }

    /// Returns the key of an index object of a session.
    pub fn index_key(&self, session: &SessionId, hash: &ObjectHash) -> Key {
        self.key(Area::Index, &format_args!("{session}/{hash}"))
    }

    /// Returns the key of an index object that was merged from others.
    pub fn merged_index_key(&self, merge: &Uuid, hash: &ObjectHash) -> Key {
        self.key(Area::Index, &format_args!("merged-{}/{hash}", merge.hyphenated()))
    }

    /// Returns the key that a session's commit record, or a fence, stands at.
    pub fn commit_key(&self, session: &SessionId) -> Key {
        self.key(Area::Commits, session)
    }

    /// Returns the key of a commit's tombstone.
    pub fn deleted_key(&self, session: &SessionId) -> Key {
        self.key(Area::Deleted, session)
    }

    /// Returns the key that says that a sweep epoch exists.
    pub fn sweep_key(&self, epoch: SweepEpoch) -> Key {
        self.key(Area::Sweeps, &epoch)
    }

    /// Returns the key of a condemned list.
    pub fn condemned_key(&self, epoch: SweepEpoch) -> Key {
        self.key(Area::Condemned, &epoch)
    }

    /// Returns the key of a session's acknowledgement of a condemned list.
    pub fn ack_key(&self, epoch: SweepEpoch, session: &SessionId) -> Key {
        self.key(Area::Acks, &format_args!("{epoch}/{session}"))
    }

    /// Returns the key of a final list.
    pub fn final_key(&self, epoch: SweepEpoch) -> Key {
        self.key(Area::Final, &epoch)
    }

    /// Returns the key that says that a sweep epoch is done.
    pub fn done_key(&self, epoch: SweepEpoch) -> Key {
        self.key(Area::Done, &epoch)
    }

    /// Returns the key of a page of an epoch's condemned or final list.
    pub fn page_key(&self, epoch: SweepEpoch, hash: &ObjectHash) -> Key {
        self.key(Area::Lists, &format_args!("{epoch}/{hash}"))
    }

    /// Returns the key of a part of what was folded by the run `fold`.
    pub fn folded_key(&self, fold: &Uuid, part: u32) -> Key {
        self.key(Area::Folded, &format_args!("{}-{part:08x}", fold.hyphenated()))
    }

    fn key(&self, area: Area, below: &dyn std::fmt::Display) -> Key {
        Key::new(format!("{}/{}/{below}", self.prefix, area.as_str()))
            .expect("the prefix was checked, and names hold letters, digits and hyphens only")
    }
}

/// The kinds of keys below an account's prefix that belong to the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is described where its key is built")]
pub enum Area {
    Sessions,
    Packs,
    Index,
    Commits,
    Deleted,
    Sweeps,
    Condemned,
    Acks,
    Final,
    Done,
    Lists,
    Folded,
}

impl Area {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Sessions,
        Self::Packs,
        Self::Index,
        Self::Commits,
        Self::Deleted,
        Self::Sweeps,
        Self::Condemned,
        Self::Acks,
        Self::Final,
        Self::Done,
        Self::Lists,
        Self::Folded,
    ];

    /// Returns the segment of the key.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Packs => "packs",
            Self::Index => "index",
            Self::Commits => "commits",
            Self::Deleted => "deleted",
            Self::Sweeps => "sweeps",
            Self::Condemned => "condemned",
            Self::Acks => "acks",
            Self::Final => "final",
            Self::Done => "done",
            Self::Lists => "lists",
            Self::Folded => "folded",
        }
    }
}
