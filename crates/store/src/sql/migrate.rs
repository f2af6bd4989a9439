//! The schema and its versions.
//!
//! A migration is one text for all engines, with the types filled in. It runs in a transaction where the engine can
//! do that (SQLite, PostgreSQL: all or nothing); MariaDB commits each definition by itself, so there each statement
//! can be run again. The version is written last. Several processes may migrate at once: the engine's lock lets one
//! of them through at a time, and the others then find nothing to do.

use sea_query::{Expr, ExprTrait, Func, OnConflict, Query};

use crate::sql::{Database, Row, Transaction, failed};
use crate::{Engine, Error, Result};

/// The migrations, oldest first; the version of a schema is how many of them it has seen.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/0001_base.sql"),
    include_str!("../../migrations/0002_bank_accounts.sql"),
    include_str!("../../migrations/0003_delegations.sql"),
    include_str!("../../migrations/0004_bank_account_settings.sql"),
    include_str!("../../migrations/0005_occurrences.sql"),
    include_str!("../../migrations/0006_holds.sql"),
    include_str!("../../migrations/0007_delegations_settled.sql"),
    include_str!("../../migrations/0008_operations_by_urgency.sql"),
    include_str!("../../migrations/0009_partial_indexes.sql"),
    include_str!("../../migrations/0010_due_by_project.sql"),
];

/// The version that this program needs.
pub(crate) fn known_version() -> u32 {
    u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX)
}

const VERSIONS: &str = "karbor_schema";

/// A table that the old Karbor's migrations leave, and nobody else's: its tables have the names of ours.
const FOREIGN: &str = "migrate_version";

/// What a statement begins with that is for engines with partial indexes.
const PARTIAL: &str = "{partial}";

const DOING: &str = "migrating the database";

impl Database {
    /// Returns the version of the schema, 0 for an empty database.
    pub(crate) async fn version(&self) -> Result<u32> {
        let doing = "looking at the database's version";
        if self.rows(doing, &find_table(self.engine(), VERSIONS)).await?.is_empty() {
            return Ok(0);
        }
        newest(&self.rows(doing, &select_version()).await?)
    }

    /// Runs the migrations that the schema has not seen.
    pub(crate) async fn migrate(&self) -> Result<()> {
        let found = self.version().await?;
        if found == known_version() {
            return Ok(());
        }
        if found > known_version() {
            return Err(Error::NewerSchema { found, known: known_version() });
        }
        let mut tx = self.begin(DOING).await?;
        script(&mut tx, lock(self.engine())).await?;
        let done = run_migrations(&mut tx).await;
        // MariaDB's lock belongs to the connection, not to the transaction.
        let unlocked = script(&mut tx, unlock(self.engine())).await;
        match done {
            Ok(()) => {
                tx.commit().await?;
                unlocked
            }
            Err(error) => {
                tx.roll_back().await;
                Err(error)
            }
        }
    }
}

async fn run_migrations(tx: &mut Transaction) -> Result<()> {
    let engine = tx.engine();
    if tx.rows(&find_table(engine, VERSIONS)).await?.is_empty() {
        if !tx.rows(&find_table(engine, FOREIGN)).await?.is_empty() {
            return Err(Error::ForeignSchema { table: FOREIGN });
        }
        let versions = "CREATE TABLE {if_absent} karbor_schema (version {int} NOT NULL PRIMARY KEY) {table}";
        script(tx, &fill(engine, versions)).await?;
    }
    let found = newest(&tx.rows(&select_version()).await?)?;
    if found > known_version() {
        return Err(Error::NewerSchema { found, known: known_version() });
    }
    for (version, text) in (1u32..).zip(MIGRATIONS).skip(usize::try_from(found).unwrap_or(usize::MAX)) {
        for statement in statements(engine, &fill(engine, text)) {
            script(tx, statement).await?;
        }
        let mut insert = Query::insert();
        insert.into_table(VERSIONS).columns(["version"]).values_panic([Expr::val(i64::from(version))]);
        insert.on_conflict(OnConflict::column("version").do_nothing_on(["version"]).to_owned());
        tx.execute(&insert).await?;
        tracing::info!(version, "Migrated the database to schema version {version}");
    }
    Ok(())
}

/// Returns the statements of a migration that are for an engine.
fn statements(engine: Engine, filled: &str) -> impl Iterator<Item = &str> {
    // MariaDB has no partial indexes.
    let is_meant = move |statement: &&str| engine != Engine::Mysql || !statement.starts_with(PARTIAL);
    let statements = filled.split(';').map(str::trim).filter(|statement| !statement.is_empty());
    statements.filter(is_meant).map(|statement| statement.strip_prefix(PARTIAL).unwrap_or(statement))
}

/// Runs one statement of a migration. An index that stands already is one of an earlier, interrupted run.
async fn script(tx: &mut Transaction, sql: &str) -> Result<()> {
    if sql.is_empty() {
        return Ok(());
    }
    match tx.script(sql.to_owned()).await {
        Err(error) if is_existing_index(&error) => Ok(()),
        other => other.map_err(|source| failed(DOING, source)),
    }
}

#[cfg(feature = "mysql")]
fn is_existing_index(error: &sqlx::Error) -> bool {
    let error =
        error.as_database_error().and_then(|e| e.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>());
    error.is_some_and(|error| error.number() == 1061)
}

#[cfg(not(feature = "mysql"))]
fn is_existing_index(_: &sqlx::Error) -> bool {
    false
}

/// Fills the engine's types into a migration, and takes the comments out.
fn fill(engine: Engine, text: &str) -> String {
    let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
    let tokens: [(&str, &str); 10] = match engine {
        Engine::Sqlite => [
            ("{id}", "TEXT"),
            ("{key}", "TEXT"),
            ("{word}", "TEXT"),
            ("{name}", "TEXT"),
            ("{text}", "TEXT"),
            ("{start}", ""),
            ("{table}", ""),
            ("{if_absent}", ""),
            // Only MariaDB wants to hear whose index it is.
            ("{on}", "/*"),
            ("{of}", "*/"),
        ],
        // Bytewise, so that texts sort and compare alike on all engines.
        Engine::Postgres => [
            ("{id}", "TEXT COLLATE \"C\""),
            ("{key}", "TEXT COLLATE \"C\""),
            ("{word}", "TEXT COLLATE \"C\""),
            ("{name}", "TEXT COLLATE \"C\""),
            ("{text}", "TEXT COLLATE \"C\""),
            ("{start}", ""),
            ("{table}", ""),
            ("{if_absent}", ""),
            ("{on}", "/*"),
            ("{of}", "*/"),
        ],
        Engine::Mysql => [
            ("{id}", "VARCHAR(36)"),
            ("{key}", "VARCHAR(64)"),
            ("{word}", "VARCHAR(64)"),
            ("{name}", "VARCHAR(255)"),
            ("{text}", "LONGTEXT"),
            // It cannot index long texts whole.
            ("{start}", "(191)"),
            ("{table}", "ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin"),
            ("{if_absent}", "IF NOT EXISTS"),
            ("{on}", "ON"),
            ("{of}", ""),
        ],
    };
    let filled = code.join("\n").replace("{int}", "BIGINT");
    tokens.iter().fold(filled, |text, (token, meaning)| text.replace(token, meaning))
}

/// One process migrates at a time. SQLite's transaction is its lock.
fn lock(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => "",
        Engine::Postgres => "SELECT pg_advisory_xact_lock(7019126352143877985)",
        Engine::Mysql => "SELECT GET_LOCK('karbor-migrate', 600)",
    }
}

fn unlock(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite | Engine::Postgres => "",
        Engine::Mysql => "SELECT RELEASE_LOCK('karbor-migrate')",
    }
}

pub(crate) fn find_table(engine: Engine, table: &'static str) -> sea_query::SelectStatement {
    let mut select = Query::select();
    match engine {
        Engine::Sqlite => {
            select.column("name").from("sqlite_master").and_where(Expr::col("type").eq("table"));
            select.and_where(Expr::col("name").eq(table));
        }
        Engine::Postgres | Engine::Mysql => {
            let schema = if engine == Engine::Postgres { "current_schema" } else { "DATABASE" };
            select.column("table_name").from(("information_schema", "tables"));
            select.and_where(Expr::col("table_schema").eq(Func::cust(schema)));
            select.and_where(Expr::col("table_name").eq(table));
        }
    }
    select
}

fn select_version() -> sea_query::SelectStatement {
    Query::select().expr_as(Func::max(Expr::col("version")), "version").from(VERSIONS).take()
}

fn newest(rows: &[Row]) -> Result<u32> {
    Ok(rows.first().map(|row| row.optional_count("version")).transpose()?.flatten().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_every_migration_is_filled_in() {
        for engine in [Engine::Sqlite, Engine::Postgres, Engine::Mysql] {
            for text in MIGRATIONS {
                let filled = fill(engine, text);
                assert!(!filled.contains("--"), "a comment may hold a semicolon");
                for statement in statements(engine, &filled) {
                    assert!(!statement.contains(['{', '}']), "{engine:?}: {statement}");
                }
            }
        }
    }
}
