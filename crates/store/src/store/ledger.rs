//! Ledgers: what operations make outside the bank, durable before it is made.

use karbor_types::{Instant, OperationId, ResourceKey};
use sea_query::{Expr, ExprTrait, Func, Order, Query};

use crate::sql::{Row, Table, Transaction, optional_json};
use crate::store::operations::own;
use crate::store::transaction::transaction;
use crate::{Claim, Error, LedgerEntry, LedgerPurpose, LedgerState, NewLedgerEntry, Result, Store};

impl Table for LedgerEntry {
    const TABLE: &'static str = "ledger";
    const WHAT: &'static str = "ledger entry";
    const COLUMNS: &'static [&'static str] = &[
        "operation_id",
        "id",
        "resource_type",
        "resource_id",
        "kind",
        "reference",
        "purpose",
        "state",
        "data",
    ];

    fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            operation: row.parsed("operation_id")?,
            id: row.number("id")?,
            resource: ResourceKey::new(row.text("resource_type")?.as_str(), row.text("resource_id")?),
            kind: row.text("kind")?,
            reference: row.text("reference")?,
            purpose: row.parsed("purpose")?,
            state: row.parsed("state")?,
            data: row.optional_json("data")?,
        })
    }
}

impl Store {
    /// Writes into the operation's ledger what is about to be made, and returns the entry's number. The same
    /// resource, kind and reference a second time is the same entry, intended again if it had been removed.
    ///
    /// # Errors
    /// [`Error::LeaseLost`].
    pub async fn ledger_intend(&self, claim: &Claim, entry: &NewLedgerEntry, now: Instant) -> Result<i64> {
        transaction!(self, "writing a ledger", |tx| {
            own(tx, claim).await?;
            let known = LedgerEntry::select()
                .and_where(Expr::col("operation_id").eq(claim.operation.to_string()))
                .and_where(Expr::col("resource_type").eq(entry.resource.kind.as_str()))
                .and_where(Expr::col("resource_id").eq(entry.resource.id.as_str()))
                .and_where(Expr::col("kind").eq(entry.kind.as_str()))
                .and_where(Expr::col("reference").eq(entry.reference.as_str()))
                .take();
            match tx.rows(&known).await?.first() {
                Some(row) => intend_again(tx, &LedgerEntry::read(row)?, entry, now).await,
                None => intend(tx, claim.operation, entry, now).await,
            }
        })
    }

    /// Notes that an entry's thing was made, and by what it is found from now on.
    ///
    /// # Errors
    /// [`Error::LeaseLost`]; [`Error::NotFound`] of the entry.
    pub async fn ledger_created(&self, claim: &Claim, id: i64, reference: &str, now: Instant) -> Result<()> {
        self.change_entry(claim, id, LedgerState::Created, Some(reference), now).await
    }

    /// Notes that an entry's thing is gone.
    ///
    /// # Errors
    /// [`Error::LeaseLost`]; [`Error::NotFound`] of the entry.
    pub async fn ledger_removed(&self, claim: &Claim, id: i64, now: Instant) -> Result<()> {
        self.change_entry(claim, id, LedgerState::Removed, None, now).await
    }

    /// Returns the ledger of an operation, over all attempts, oldest first.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn list_ledger(&self, operation: OperationId) -> Result<Vec<LedgerEntry>> {
        let mut select = LedgerEntry::select();
        select.and_where(Expr::col("operation_id").eq(operation.to_string())).order_by("id", Order::Asc);
        self.rows("reading a ledger", &select).await?.iter().map(LedgerEntry::read).collect()
    }

    /// Returns what the ledger of an operation holds for one resource, over all attempts, oldest first.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn list_ledger_of(
        &self,
        operation: OperationId,
        resource: &ResourceKey,
    ) -> Result<Vec<LedgerEntry>> {
        let mut select = LedgerEntry::select();
        select.and_where(Expr::col("operation_id").eq(operation.to_string()));
        select.and_where(Expr::col("resource_type").eq(resource.kind.as_str()));
        select.and_where(Expr::col("resource_id").eq(resource.id.as_str())).order_by("id", Order::Asc);
        self.rows("reading a ledger", &select).await?.iter().map(LedgerEntry::read).collect()
    }

    async fn change_entry(
        &self,
        claim: &Claim,
        id: i64,
        state: LedgerState,
        reference: Option<&str>,
        now: Instant,
    ) -> Result<()> {
        transaction!(self, "writing a ledger", |tx| {
            own(tx, claim).await?;
            let mut update = Query::update();
            update.table(LedgerEntry::TABLE).value("state", state.as_str());
            update.value("updated_at", now.as_micros());
            if let Some(reference) = reference {
                update.value("reference", reference);
            }
            update.and_where(Expr::col("operation_id").eq(claim.operation.to_string()));
            update.and_where(Expr::col("id").eq(id));
            match tx.execute(&update).await? {
                0 => {
                    let id = format!("{id} of operation {}", claim.operation);
                    Err(Error::NotFound { what: LedgerEntry::WHAT, id })
                }
                _ => Ok(()),
            }
        })
    }
}

async fn intend_again(
    tx: &mut Transaction,
    known: &LedgerEntry,
    entry: &NewLedgerEntry,
    now: Instant,
) -> Result<i64> {
    let state = match known.state {
        LedgerState::Removed => LedgerState::Intended,
        state => state,
    };
    let mut update = Query::update();
    update.table(LedgerEntry::TABLE).value("state", state.as_str()).value("purpose", entry.purpose.as_str());
    update.value("data", optional_json("the data of a ledger entry", &entry.data)?);
    update.value("updated_at", now.as_micros());
    update.and_where(Expr::col("operation_id").eq(known.operation.to_string()));
    update.and_where(Expr::col("id").eq(known.id));
    tx.execute(&update).await?;
    Ok(known.id)
}

async fn intend(
    tx: &mut Transaction,
    operation: OperationId,
    entry: &NewLedgerEntry,
    now: Instant,
) -> Result<i64> {
    let mut newest = Query::select();
    newest.expr_as(Func::max(Expr::col("id")), "newest").from(LedgerEntry::TABLE);
    newest.and_where(Expr::col("operation_id").eq(operation.to_string()));
    // The operation's row is held, so nobody else numbers an entry now.
    let rows = tx.rows(&newest).await?;
    let newest = rows.first().map(|row| row.optional_number("newest")).transpose()?.flatten();
    let id = newest.map_or(0, |newest| newest + 1);
    let values = vec![
        ("operation_id", Expr::val(operation.to_string())),
        ("id", Expr::val(id)),
        ("resource_type", Expr::val(entry.resource.kind.as_str())),
        ("resource_id", Expr::val(entry.resource.id.as_str())),
        ("kind", Expr::val(entry.kind.as_str())),
        ("reference", Expr::val(entry.reference.as_str())),
        ("purpose", Expr::val(entry.purpose.as_str())),
        ("state", Expr::val(LedgerState::Intended.as_str())),
        ("data", Expr::val(optional_json("the data of a ledger entry", &entry.data)?)),
        ("created_at", Expr::val(now.as_micros())),
    ];
    tx.insert::<LedgerEntry>(&format!("{id} of operation {operation}"), values).await?;
    Ok(id)
}

impl LedgerState {
    /// Returns the text that the database uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Created => "created",
            Self::Removed => "removed",
        }
    }
}

impl LedgerPurpose {
    /// Returns the text that the database uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scaffold => "scaffold",
            Self::Product => "product",
        }
    }
}

impl std::str::FromStr for LedgerState {
    type Err = karbor_types::UnknownState;
    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let all = [Self::Intended, Self::Created, Self::Removed];
        let unknown = || karbor_types::UnknownState { what: "ledger state", text: text.to_owned() };
        all.into_iter().find(|state| state.as_str() == text).ok_or_else(unknown)
    }
}

impl std::str::FromStr for LedgerPurpose {
    type Err = karbor_types::UnknownState;
    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let all = [Self::Scaffold, Self::Product];
        let unknown = || karbor_types::UnknownState { what: "ledger purpose", text: text.to_owned() };
        all.into_iter().find(|purpose| purpose.as_str() == text).ok_or_else(unknown)
    }
}
