//! Databases behind one face: statements are built once with sea-query, rendered for the engine at hand and run by
//! its own driver. The three-way dispatch is here and nowhere else.
//!
//! Only two types cross the border: 64-bit integers and texts. PostgreSQL compares types strictly, MariaDB has no
//! booleans and SQLite has no dates; an `i64` and a text mean the same to all three.

mod connect;
mod copier;
#[cfg(feature = "mysql")]
mod guarded;
#[cfg(feature = "postgres")]
mod limits;
mod list;
mod migrate;
mod render;
mod row;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};
use std::time::Duration;

use sea_query::{Expr, ExprTrait, Func, Query, QueryStatementWriter, SelectStatement, Value};
use sqlx::{AssertSqlSafe, SqlSafeStr, Sqlite, SqlitePool};

use crate::{Engine, Error, Result};

use self::copier::Copier;
use self::render::{Rendered, checked, render};

pub(crate) use list::{list_statement, marker_statement};
pub(crate) use migrate::{find_table, known_version};
pub(crate) use row::{Row, json, number, optional_json};

/// Connections to one database.
#[derive(Debug, Clone)]
pub(crate) enum Database {
    /// One connection that writes, some that read, and what looks after the log; the same one connection for a database in
    /// memory, which has no log.
    Sqlite { writer: SqlitePool, readers: SqlitePool, copier: Option<Arc<Copier>> },
    #[cfg(feature = "postgres")]
    Postgres(sqlx::PgPool),
    #[cfg(feature = "mysql")]
    Mysql(sqlx::MySqlPool),
}

/// A transaction. Dropped without [`Transaction::commit`], it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Transaction {
    doing: &'static str,
    inner: Begun,
}

#[derive(Debug)]
enum Begun {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    #[cfg(feature = "postgres")]
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
    #[cfg(feature = "mysql")]
    Mysql(guarded::Guarded),
}

/// The texts that find a row by its id, by table: what is asked all the time is not built each time.
static FINDERS: LazyLock<RwLock<Finders>> = LazyLock::new(RwLock::default);

type Finders = HashMap<(&'static str, Engine), Arc<str>>;

/// A column by which rows are checked that are looked for by another one.
///
/// Engines take an index of such a column for the better way whenever their statistics know no row with the value that is
/// asked for, although there are thousands just now; this they cannot look up.
pub(crate) fn compared(column: &'static str) -> Expr {
    Func::coalesce([Expr::col(column), Expr::col(column)]).into()
}

/// Runs a rendered statement on an executor of one engine: the one place where built text is declared safe. It
/// is, because it holds names from this crate and placeholders, and all else is bound.
macro_rules! run {
    ($rendered:expr, $executor:expr, $call:ident) => {{
        let rendered = $rendered;
        let mut query = sqlx::query(AssertSqlSafe(rendered.sql));
        for value in rendered.values {
            query = match value {
                Value::BigInt(number) => query.bind(number),
                Value::String(text) => query.bind(text),
                // `render` has let through nothing else.
                _ => query,
            };
        }
        query.$call($executor).await
    }};
}

impl Database {
    pub(crate) const fn engine(&self) -> Engine {
        match self {
            Self::Sqlite { .. } => Engine::Sqlite,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => Engine::Postgres,
            #[cfg(feature = "mysql")]
            Self::Mysql(_) => Engine::Mysql,
        }
    }

    /// Begins a transaction that writes; `doing` says for what, in errors. On SQLite it waits for its turn here,
    /// and then never for a lock.
    pub(crate) async fn begin(&self, doing: &'static str) -> Result<Transaction> {
        let inner = match self {
            Self::Sqlite { writer, .. } => writer.begin_with("BEGIN IMMEDIATE").await.map(Begun::Sqlite),
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => pool.begin().await.map(Begun::Postgres),
            #[cfg(feature = "mysql")]
            Self::Mysql(pool) => guarded::Guarded::begin(pool).await.map(Begun::Mysql),
        };
        Ok(Transaction { doing, inner: inner.map_err(|source| failed(doing, source))? })
    }

    /// Reads outside of any transaction.
    pub(crate) async fn rows(
        &self,
        doing: &'static str,
        statement: &(impl QueryStatementWriter + Sync),
    ) -> Result<Vec<Row>> {
        self.rows_of(doing, render(self.engine(), statement)?).await
    }

    /// Returns the row with that id, outside of any transaction.
    pub(crate) async fn find<T: Table>(&self, doing: &'static str, id: &str) -> Result<T> {
        let key = (T::TABLE, self.engine());
        let known = FINDERS.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let sql = match known {
            Some(sql) => sql,
            None => {
                let built = render(self.engine(), T::living().and_where(Expr::col("id").eq("")))?;
                let sql: Arc<str> = built.sql.into();
                FINDERS.write().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&sql));
                sql
            }
        };
        let values = checked(vec![Value::String(Some(id.to_owned()))])?;
        let rows = self.rows_of(doing, Rendered { sql, values }).await?;
        rows.first().map(T::read).unwrap_or_else(|| Err(not_found::<T>(id)))
    }

    async fn rows_of<S>(&self, doing: &'static str, rendered: Rendered<S>) -> Result<Vec<Row>>
    where
        AssertSqlSafe<S>: SqlSafeStr,
    {
        let rows = match self {
            Self::Sqlite { readers, .. } => run!(rendered, readers, fetch_all).map(Row::all),
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => run!(rendered, pool, fetch_all).map(Row::all),
            #[cfg(feature = "mysql")]
            Self::Mysql(pool) => {
                let mut guarded =
                    guarded::Guarded::acquire(pool).await.map_err(|source| failed(doing, source))?;
                let rows = run!(rendered, guarded.connection(), fetch_all).map(Row::all);
                guarded.keep();
                rows
            }
        };
        rows.map_err(|source| failed(doing, source))
    }

    /// Returns how the engine would go about a statement, in its own words.
    pub(crate) async fn explain(&self, statement: &(impl QueryStatementWriter + Sync)) -> Result<String> {
        let mut rendered = render(self.engine(), statement)?;
        let (word, column) = match self.engine() {
            Engine::Sqlite => ("EXPLAIN QUERY PLAN", "detail"),
            Engine::Postgres => ("EXPLAIN", "QUERY PLAN"),
            Engine::Mysql => ("EXPLAIN FORMAT=JSON", "EXPLAIN"),
        };
        rendered.sql = format!("{word} {}", rendered.sql);
        let doing = "asking how a statement is run";
        let rows = match self {
            Self::Sqlite { readers, .. } => run!(rendered, readers, fetch_all).map(Row::all),
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => run!(rendered, pool, fetch_all).map(Row::all),
            #[cfg(feature = "mysql")]
            Self::Mysql(pool) => run!(rendered, pool, fetch_all).map(Row::all),
        };
        let rows = rows.map_err(|source| failed(doing, source))?;
        Ok(rows.iter().map(|row| row.text(column)).collect::<Result<Vec<String>>>()?.join("\n"))
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite { writer, readers, copier } => {
                if let Some(copier) = copier {
                    copier.close().await;
                }
                readers.close().await;
                writer.close().await;
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => pool.close().await,
            #[cfg(feature = "mysql")]
            Self::Mysql(pool) => pool.close().await,
        }
    }
}

impl Transaction {
    pub(crate) const fn engine(&self) -> Engine {
        match self.inner {
            Begun::Sqlite(_) => Engine::Sqlite,
            #[cfg(feature = "postgres")]
            Begun::Postgres(_) => Engine::Postgres,
            #[cfg(feature = "mysql")]
            Begun::Mysql(_) => Engine::Mysql,
        }
    }

    /// Runs a statement and returns how many rows it found to change, changed or not.
    pub(crate) async fn execute(&mut self, statement: &(impl QueryStatementWriter + Sync)) -> Result<u64> {
        let rendered = render(self.engine(), statement)?;
        let affected = match &mut self.inner {
            Begun::Sqlite(tx) => run!(rendered, &mut **tx, execute).map(|done| done.rows_affected()),
            #[cfg(feature = "postgres")]
            Begun::Postgres(tx) => run!(rendered, &mut **tx, execute).map(|done| done.rows_affected()),
            #[cfg(feature = "mysql")]
            Begun::Mysql(tx) => run!(rendered, tx.connection(), execute).map(|done| done.rows_affected()),
        };
        affected.map_err(|source| failed(self.doing, source))
    }

    /// Reads within the transaction.
    pub(crate) async fn rows(&mut self, statement: &(impl QueryStatementWriter + Sync)) -> Result<Vec<Row>> {
        let rendered = render(self.engine(), statement)?;
        let rows = match &mut self.inner {
            Begun::Sqlite(tx) => run!(rendered, &mut **tx, fetch_all).map(Row::all),
            #[cfg(feature = "postgres")]
            Begun::Postgres(tx) => run!(rendered, &mut **tx, fetch_all).map(Row::all),
            #[cfg(feature = "mysql")]
            Begun::Mysql(tx) => run!(rendered, tx.connection(), fetch_all).map(Row::all),
        };
        rows.map_err(|source| failed(self.doing, source))
    }

    /// Returns the row with that id.
    pub(crate) async fn find<T: Table>(&mut self, id: &str) -> Result<T> {
        let rows = self.rows(T::select().and_where(Expr::col("id").eq(id))).await?;
        rows.first().map(T::read).unwrap_or_else(|| Err(not_found::<T>(id)))
    }

    /// Adds a row.
    pub(crate) async fn insert<T: Table>(
        &mut self,
        id: &str,
        values: Vec<(&'static str, Expr)>,
    ) -> Result<()> {
        let (columns, values): (Vec<_>, Vec<_>) = values.into_iter().unzip();
        let mut insert = Query::insert();
        insert.into_table(T::TABLE).columns(columns).values_panic(values);
        self.execute(&insert).await.map(drop).map_err(|error| {
            if is_duplicate(&error) {
                Error::AlreadyExists { what: T::WHAT, id: id.to_owned() }
            } else {
                error
            }
        })
    }

    pub(crate) async fn commit(self) -> Result<()> {
        let done = match self.inner {
            Begun::Sqlite(tx) => tx.commit().await,
            #[cfg(feature = "postgres")]
            Begun::Postgres(tx) => tx.commit().await,
            #[cfg(feature = "mysql")]
            Begun::Mysql(tx) => tx.commit().await,
        };
        done.map_err(|source| failed(self.doing, source))
    }

    /// Gives the transaction up at once; dropping it does so when its connection is used again.
    pub(crate) async fn roll_back(self) {
        let done = match self.inner {
            Begun::Sqlite(tx) => tx.rollback().await,
            #[cfg(feature = "postgres")]
            Begun::Postgres(tx) => tx.rollback().await,
            #[cfg(feature = "mysql")]
            Begun::Mysql(tx) => tx.roll_back().await,
        };
        if let Err(error) = done {
            // A connection that cannot roll back is broken, and its server rolls back by itself.
            tracing::debug!(error = &error as &dyn std::error::Error, "Rolling back failed");
        }
    }

    /// Runs one statement of a migration, as it stands.
    async fn script(&mut self, sql: String) -> sqlx::Result<()> {
        let script = sqlx::raw_sql(AssertSqlSafe(sql));
        match &mut self.inner {
            Begun::Sqlite(tx) => script.execute(&mut **tx).await.map(drop),
            #[cfg(feature = "postgres")]
            Begun::Postgres(tx) => script.execute(&mut **tx).await.map(drop),
            #[cfg(feature = "mysql")]
            Begun::Mysql(tx) => script.execute(tx.connection()).await.map(drop),
        }
    }
}

/// A table, and what one of its rows is.
pub(crate) trait Table: Sized {
    /// Its name.
    const TABLE: &'static str;
    /// What one row is called in messages.
    const WHAT: &'static str;
    /// The columns that [`Table::read`] needs.
    const COLUMNS: &'static [&'static str];

    /// Reads a row.
    fn read(row: &Row) -> Result<Self>;

    /// Returns the statement that reads all columns of all rows.
    fn select() -> SelectStatement {
        Query::select().columns(Self::COLUMNS.iter().copied()).from(Self::TABLE).take()
    }

    /// Returns the statement that reads all columns of those rows that can be looked up by their id.
    fn living() -> SelectStatement {
        Self::select()
    }
}

/// Says that a table has no such row.
pub(crate) fn not_found<T: Table>(id: &str) -> Error {
    Error::NotFound { what: T::WHAT, id: id.to_owned() }
}

/// Tells what a refusal of the database means for the caller.
pub(crate) fn failed(doing: &'static str, source: sqlx::Error) -> Error {
    if is_transient(&source) {
        return Error::Busy { doing, source: Some(source) };
    }
    Error::Database { doing, source }
}

/// Returns whether the same transaction may succeed if it is tried again: it lost against another one, and was
/// rolled back.
fn is_transient(error: &sqlx::Error) -> bool {
    let database = match error {
        sqlx::Error::PoolTimedOut => return true,
        sqlx::Error::Database(database) => database,
        _ => return false,
    };
    #[cfg(feature = "mysql")]
    if let Some(error) = database.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
        // Changed since it was read, not ready (Galera), lock wait time-out, deadlock (also Galera's conflicts).
        return matches!(error.number(), 1020 | 1047 | 1205 | 1213);
    }
    let code = database.code().unwrap_or_default();
    #[cfg(feature = "postgres")]
    if database.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some() {
        // Serialization failure, deadlock, lock not available.
        return matches!(code.as_ref(), "40001" | "40P01" | "55P03");
    }
    // SQLite's extended codes hold the primary one in the low byte: 5 is busy, 6 is locked.
    code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6))
}

/// Returns whether an insert was refused because such a row stands already.
pub(crate) fn is_duplicate(error: &Error) -> bool {
    let Error::Database { source: sqlx::Error::Database(database), .. } = error else { return false };
    database.is_unique_violation()
}

/// Returns whether a foreign key stood against it.
pub(crate) fn is_referred_to(error: &Error) -> bool {
    let Error::Database { source: sqlx::Error::Database(database), .. } = error else { return false };
    database.is_foreign_key_violation()
}

/// Returns how long to wait before attempt number `attempt` + 1, spread by `salt` so that losers do not meet again.
pub(crate) fn pause(attempt: u32, salt: u64) -> Duration {
    let step_micros = 1_000u64 << attempt.clamp(1, 7);
    let spread = salt.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    Duration::from_micros(step_micros + spread % step_micros)
}
