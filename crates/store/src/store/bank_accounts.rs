//! Bank accounts.

use karbor_types::{Instant, ProjectId};
use sea_query::{Expr, ExprTrait, Order, Query};

use crate::sql::{Row, Table, Transaction, not_found, number};
use crate::store::transaction::transaction;
use crate::{BankAccount, Error, Result, Store};

impl Table for BankAccount {
    const TABLE: &'static str = "bank_accounts";
    const WHAT: &'static str = "bank account";
    const COLUMNS: &'static [&'static str] =
        &["project_id", "bank", "quota_bytes", "created_at", "updated_at"];

    fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            project: row.parsed("project_id")?,
            bank: row.text("bank")?,
            quota_bytes: row.optional_count("quota_bytes")?,
            created_at: row.instant("created_at")?,
            updated_at: row.optional_instant("updated_at")?,
        })
    }
}

impl Store {
    /// Returns a project's account in a bank; made with defaults when it is first asked for.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn bank_account(&self, project: &ProjectId, bank: &str, now: Instant) -> Result<BankAccount> {
        if let Some(known) = self.known_bank_account(project, bank).await? {
            return Ok(known);
        }
        transaction!(self, "making a bank account", |tx| {
            made(tx, project, bank, now).await?;
            find(tx, project, bank).await
        })
    }

    /// Returns a project's account in a bank, if it has been used.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn known_bank_account(&self, project: &ProjectId, bank: &str) -> Result<Option<BankAccount>> {
        let mut select = BankAccount::select();
        select.and_where(is_it(project, bank));
        self.rows("looking up a bank account", &select).await?.first().map(BankAccount::read).transpose()
    }

    /// Lists the accounts that have been used, of one project or of all.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn list_bank_accounts(&self, project: Option<&ProjectId>) -> Result<Vec<BankAccount>> {
        let mut select = BankAccount::select();
        if let Some(project) = project {
            select.and_where(Expr::col("project_id").eq(project.as_str()));
        }
        select.order_by("project_id", Order::Asc).order_by("bank", Order::Asc);
        self.rows("listing bank accounts", &select).await?.iter().map(BankAccount::read).collect()
    }

    /// Sets how many bytes a project may have in a bank.
    ///
    /// # Errors
    /// [`Error::Invalid`] for more than a database can hold.
    pub async fn set_bank_quota(
        &self,
        project: &ProjectId,
        bank: &str,
        quota_bytes: Option<u64>,
        now: Instant,
    ) -> Result<BankAccount> {
        let quota = quota_bytes.map(|bytes| number("a quota of bytes", bytes)).transpose()?;
        transaction!(self, "setting the quota of a bank account", |tx| {
            made(tx, project, bank, now).await?;
            let mut update = Query::update();
            update.table(BankAccount::TABLE).value("quota_bytes", quota).value("updated_at", now.as_micros());
            tx.execute(update.and_where(is_it(project, bank))).await?;
            find(tx, project, bank).await
        })
    }
}

fn is_it(project: &ProjectId, bank: &str) -> Expr {
    Expr::col("project_id").eq(project.as_str()).and(Expr::col("bank").eq(bank))
}

async fn find(tx: &mut Transaction, project: &ProjectId, bank: &str) -> Result<BankAccount> {
    let rows = tx.rows(BankAccount::select().and_where(is_it(project, bank))).await?;
    rows.first().map(BankAccount::read).unwrap_or_else(|| Err(not_found::<BankAccount>(bank)))
}

/// Adds the row if it is not there.
async fn made(tx: &mut Transaction, project: &ProjectId, bank: &str, now: Instant) -> Result<()> {
    if !tx.rows(BankAccount::select().and_where(is_it(project, bank))).await?.is_empty() {
        return Ok(());
    }
    let values = vec![
        ("project_id", Expr::val(project.as_str())),
        ("bank", Expr::val(bank)),
        ("created_at", Expr::val(now.as_micros())),
    ];
    match tx.insert::<BankAccount>(bank, values).await {
        // Another one was quicker: look again.
        Err(Error::AlreadyExists { .. }) => Err(Error::Busy { doing: "making a bank account", source: None }),
        done => done,
    }
}
