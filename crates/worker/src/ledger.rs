//! The ledger of an operation, kept in the store under the operation's claim.

use std::sync::Arc;

use async_trait::async_trait;
use karbor_plugin::{Error, ErrorKind, Intent, Ledger, LedgerEntry, LedgerId, LedgerState, Purpose, Result};
use karbor_store::{Claim, NewLedgerEntry};
use karbor_types::ResourceKey;

use crate::service::Shared;

/// One resource's part of an operation's ledger.
#[derive(Debug)]
pub(crate) struct StoreLedger {
    pub(crate) shared: Arc<Shared>,
    pub(crate) claim: Claim,
    pub(crate) resource: ResourceKey,
}

#[async_trait]
impl Ledger for StoreLedger {
    async fn intend(&self, intent: Intent) -> Result<LedgerId> {
        let entry = NewLedgerEntry {
            resource: self.resource.clone(),
            kind: intent.kind,
            reference: intent.reference,
            purpose: match intent.purpose {
                Purpose::Scaffold => karbor_store::LedgerPurpose::Scaffold,
                Purpose::Product => karbor_store::LedgerPurpose::Product,
            },
            data: intent.data,
        };
        let id = self.shared.store.ledger_intend(&self.claim, &entry, self.now()).await.map_err(translate)?;
        Ok(LedgerId(id))
    }

    async fn created(&self, id: LedgerId, reference: &str) -> Result<()> {
        self.shared.store.ledger_created(&self.claim, id.0, reference, self.now()).await.map_err(translate)
    }

    async fn removed(&self, id: LedgerId) -> Result<()> {
        self.shared.store.ledger_removed(&self.claim, id.0, self.now()).await.map_err(translate)
    }

    async fn entries(&self) -> Result<Vec<LedgerEntry>> {
        let all = self.shared.store.list_ledger(self.claim.operation()).await.map_err(translate)?;
        Ok(all.into_iter().filter(|entry| entry.resource == self.resource).map(as_plugins_see).collect())
    }
}

impl StoreLedger {
    fn now(&self) -> karbor_types::Instant {
        (self.shared.clock)()
    }
}

/// Turns a row into what plugins know.
pub(crate) fn as_plugins_see(entry: karbor_store::LedgerEntry) -> LedgerEntry {
    LedgerEntry {
        id: LedgerId(entry.id),
        kind: entry.kind,
        reference: entry.reference,
        purpose: match entry.purpose {
            karbor_store::LedgerPurpose::Scaffold => Purpose::Scaffold,
            karbor_store::LedgerPurpose::Product => Purpose::Product,
        },
        state: match entry.state {
            karbor_store::LedgerState::Intended => LedgerState::Intended,
            karbor_store::LedgerState::Created => LedgerState::Created,
            karbor_store::LedgerState::Removed => LedgerState::Removed,
        },
        data: entry.data,
    }
}

fn translate(err: karbor_store::Error) -> Error {
    use karbor_store::Error as Store;
    let (kind, text) = match &err {
        Store::LeaseLost { .. } => (ErrorKind::Fenced, "another worker has taken over this operation"),
        Store::Busy { .. } | Store::Database { .. } => {
            (ErrorKind::Unavailable, "the operation's ledger cannot be written: the database does not answer")
        }
        Store::NotFound { .. } => (ErrorKind::NotFound, "the ledger has no such entry"),
        _ => (ErrorKind::Other, "the operation's ledger cannot be written"),
    };
    Error::new(kind, text).with_source(err)
}
