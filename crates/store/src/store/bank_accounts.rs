//! Bank accounts.

use std::collections::HashSet;

use karbor_types::{CheckpointState, Instant, ProjectId, ProviderId};
use sea_query::{Expr, ExprTrait, Order, Query};

use crate::sql::{Row, Table, Transaction, not_found, number};
use crate::store::transaction::transaction;
use crate::{BankAccount, BankAccountUpdate, Error, Result, Store};

impl Table for BankAccount {
    const TABLE: &'static str = "bank_accounts";
    const WHAT: &'static str = "bank account";
    const COLUMNS: &'static [&'static str] = &[
        "project_id",
        "bank",
        "quota_bytes",
        "place",
        "credentials",
        "key_source",
        "created_at",
        "updated_at",
    ];

    fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            project: row.parsed("project_id")?,
            bank: row.text("bank")?,
            quota_bytes: row.optional_count("quota_bytes")?,
            place: row.optional_text("place")?,
            credentials: row.optional_text("credentials")?,
            key_source: row.optional_text("key_source")?,
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

    /// Returns which of these projects have a quota of bytes in a bank.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn projects_with_bytes_limited(
        &self,
        projects: &[&ProjectId],
        bank: &str,
    ) -> Result<HashSet<ProjectId>> {
        if projects.is_empty() {
            return Ok(HashSet::new());
        }
        let mut select = Query::select();
        select.column("project_id").from(BankAccount::TABLE).and_where(Expr::col("bank").eq(bank));
        select.and_where(Expr::col("project_id").is_in(projects.iter().map(|project| project.as_str())));
        select.and_where(Expr::col("quota_bytes").is_not_null());
        let rows = self.rows("looking who has a quota of bytes", &select).await?;
        rows.iter().map(|row| row.parsed("project_id")).collect()
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

    /// Changes what is said of a project's account in a bank; `providers` are those that keep their checkpoints there.
    ///
    /// # Errors
    /// [`Error::Invalid`] for more bytes than a database can hold; [`Error::Conflict`] for another place, or a way in to
    /// another, while one of these providers has a checkpoint of the project that is not deleted.
    pub async fn update_bank_account(
        &self,
        project: &ProjectId,
        bank: &str,
        update: &BankAccountUpdate,
        providers: &[ProviderId],
        now: Instant,
    ) -> Result<BankAccount> {
        let quota =
            update.quota_bytes.map(|quota| quota.map(|bytes| number("a quota of bytes", bytes)).transpose());
        let quota = quota.transpose()?;
        transaction!(self, "changing a bank account", |tx| {
            made(tx, project, bank, now).await?;
            let standing = find(tx, project, bank).await?;
            if update.place.as_ref().is_some_and(|place| *place != standing.place) {
                is_unused(tx, project, bank, providers).await?;
            }
            let mut change = Query::update();
            change.table(BankAccount::TABLE).value("updated_at", now.as_micros());
            if let Some(quota) = quota {
                change.value("quota_bytes", quota);
            }
            for (column, value) in [
                ("place", &update.place),
                ("credentials", &update.credentials),
                ("key_source", &update.key_source),
            ] {
                if let Some(value) = value {
                    change.value(column, value.clone());
                }
            }
            tx.execute(change.and_where(is_it(project, bank))).await?;
            find(tx, project, bank).await
        })
    }
}

/// Succeeds if no checkpoint of the project is in that bank, or on its way there.
async fn is_unused(
    tx: &mut Transaction,
    project: &ProjectId,
    bank: &str,
    providers: &[ProviderId],
) -> Result<()> {
    let mut select = Query::select();
    select.column("id").from("checkpoints").and_where(Expr::col("project_id").eq(project.as_str()));
    select.and_where(Expr::col("provider_id").is_in(providers.iter().map(ToString::to_string)));
    select.and_where(Expr::col("state").ne(CheckpointState::Deleted.as_str())).limit(1);
    if providers.is_empty() || tx.rows(&select).await?.is_empty() {
        return Ok(());
    }
    let state = "in use: checkpoints of the project are in it".to_owned();
    Err(Error::Conflict { what: BankAccount::WHAT, id: bank.to_owned(), state })
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
