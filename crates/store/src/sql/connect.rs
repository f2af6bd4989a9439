//! Connecting: which engine a URL names, and how its sessions are set up.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use crate::sql::copier::{Copier, FAR_TOO_MANY};
use crate::sql::{Database, failed};
use crate::{Error, Result, StoreOptions};

const DOING: &str = "connecting to the database";

impl Database {
    /// Connects to the database that a URL names.
    pub(crate) async fn open(url: &str, options: &StoreOptions) -> Result<Self> {
        let Some((scheme, rest)) = url.split_once(':') else {
            return Err(unusable("it has no scheme such as sqlite: or postgres:"));
        };
        match scheme {
            "sqlite" => open_sqlite(rest, options).await,
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => open_postgres(url, options).await,
            #[cfg(feature = "mysql")]
            "mysql" | "mariadb" => open_mysql(rest, options).await,
            #[cfg(not(feature = "postgres"))]
            "postgres" | "postgresql" => Err(unusable("this program is built without PostgreSQL")),
            #[cfg(not(feature = "mysql"))]
            "mysql" | "mariadb" => Err(unusable("this program is built without MariaDB")),
            _ => Err(unusable("its scheme is none of sqlite, postgres, mysql and mariadb")),
        }
    }
}

fn unusable(reason: &str) -> Error {
    Error::Url { reason: reason.to_owned() }
}

/// Connections to SQLite that only read, at most.
const SQLITE_READERS: u32 = 4;

async fn open_sqlite(path: &str, options: &StoreOptions) -> Result<Database> {
    let busy = Duration::from_secs(u64::from(options.busy_seconds));
    // A pool whose connections stay: a database in memory lives as long as its one connection.
    let pool = |connections: u32| {
        SqlitePoolOptions::new()
            .max_connections(connections)
            .min_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .acquire_timeout(busy)
    };
    let connect = SqliteConnectOptions::new().foreign_keys(true).busy_timeout(busy);
    let path = path.strip_prefix("//").unwrap_or(path);
    if path == ":memory:" {
        let both =
            pool(1).connect_with(connect.in_memory(true)).await.map_err(|source| failed(DOING, source))?;
        return Ok(Database::Sqlite { writer: both.clone(), readers: both, copier: None });
    }
    if path.is_empty() {
        return Err(unusable("it names no file"));
    }
    let connect = connect
        .filename(Path::new(path))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // A commit is on the disk when it returns, also in the write-ahead log.
        .synchronous(SqliteSynchronous::Full);
    // Many new rows touch index pages all over a large file: a cache in KiB, with a minus.
    let often = connect.clone().pragma("cache_size", "-16384").pragma("wal_autocheckpoint", FAR_TOO_MANY);
    let writer = pool(1).connect_with(often).await;
    let writer: SqlitePool = writer.map_err(|source| failed(DOING, source))?;
    // Each has a thread and a cache of its own, and two or three keep a disk busy.
    let readers = pool(options.connections.clamp(1, SQLITE_READERS))
        .connect_with(connect.clone().pragma("query_only", "ON"))
        .await;
    let readers = readers.map_err(|source| failed(DOING, source))?;
    let copier = Copier::start(connect).await.map_err(|source| failed(DOING, source))?;
    Ok(Database::Sqlite { writer, readers, copier: Some(Arc::new(copier)) })
}

#[cfg(feature = "postgres")]
async fn open_postgres(url: &str, options: &StoreOptions) -> Result<Database> {
    use sqlx::Executor as _;
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

    let connect: PgConnectOptions = url.parse().map_err(url_error)?;
    // Each statement looks at few rows by an index that has them in order. While a table has grown and the server's
    // statistics have not, it would guess otherwise: read all and sort it, or compile a program for it.
    let set_up = format!(
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED; SET lock_timeout = '{}s'; \
         SET jit = off; SET enable_sort = off",
        options.busy_seconds
    );
    let pool = PgPoolOptions::new()
        .max_connections(options.connections.max(1))
        .acquire_timeout(Duration::from_secs(u64::from(options.busy_seconds)))
        .test_before_acquire(false)
        .before_acquire(|connection, seen| Box::pin(is_well(connection, seen)))
        .after_connect(move |connection, _| {
            let set_up = set_up.clone();
            Box::pin(async move {
                connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(set_up))).await?;
                Ok(())
            })
        });
    Ok(Database::Postgres(pool.connect_with(connect).await.map_err(|source| failed(DOING, source))?))
}

#[cfg(feature = "mysql")]
async fn open_mysql(rest: &str, options: &StoreOptions) -> Result<Database> {
    use sqlx::Executor as _;
    use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};

    let connect: MySqlConnectOptions = format!("mysql:{rest}").parse().map_err(url_error)?;
    // Strict, so that what does not fit is refused and not cut.
    let set_up = format!(
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; \
         SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES'), \
         SESSION innodb_lock_wait_timeout = {}",
        options.busy_seconds.max(1)
    );
    let pool = MySqlPoolOptions::new()
        .max_connections(options.connections.max(1))
        .acquire_timeout(Duration::from_secs(u64::from(options.busy_seconds)))
        .test_before_acquire(false)
        .before_acquire(|connection, seen| Box::pin(is_well(connection, seen)))
        .after_connect(move |connection, _| {
            let set_up = set_up.clone();
            Box::pin(async move {
                connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(set_up))).await?;
                Ok(())
            })
        });
    Ok(Database::Mysql(pool.connect_with(connect).await.map_err(|source| failed(DOING, source))?))
}

/// How long a connection rests until its server may have left meanwhile.
#[cfg(any(feature = "postgres", feature = "mysql"))]
const RESTED: Duration = Duration::from_secs(1);

/// Asks whether the server is still there, of a connection that has rested: asking each time would be one more round trip
/// for every statement.
#[cfg(any(feature = "postgres", feature = "mysql"))]
async fn is_well(
    connection: &mut impl sqlx::Connection,
    seen: sqlx::pool::PoolConnectionMetadata,
) -> sqlx::Result<bool> {
    if seen.idle_for >= RESTED {
        connection.ping().await?;
    }
    Ok(true)
}

/// The parser's messages name what is wrong; the URL itself, with its password, they leave out.
#[cfg(any(feature = "postgres", feature = "mysql"))]
#[expect(clippy::needless_pass_by_value, reason = "it is used to map errors")]
fn url_error(error: sqlx::Error) -> Error {
    Error::Url { reason: error.to_string() }
}
