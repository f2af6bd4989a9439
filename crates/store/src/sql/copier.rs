//! Copies SQLite's write-ahead log into the database's file, beside the one connection that writes.
//!
//! Otherwise whoever writes the page that is one too many does so in the middle of a commit, for all that the log holds,
//! and everybody waits (<https://sqlite.org/wal.html>, "Avoiding Excessively Large WAL Files").

use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Row as _, SqlitePool};
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;
use tracing::debug;

/// How often the log is looked at. What has not grown since is copied: nobody is in a hurry then.
const PAUSE: Duration = Duration::from_secs(1);

/// From how many pages on that are not copied yet they are, also while it grows.
const MANY: i64 = 20_000;

/// From how many pages on writers are held up for a moment, so that the log can begin anew: it does so only when all of it
/// is copied, which under steady writing never happens by itself.
const TOO_MANY: i64 = 40_000;

/// The pages from which on a commit copies the log itself: so many come only when nobody else does.
pub(crate) const FAR_TOO_MANY: &str = "100000";

/// For how long readers are waited for while writers are held up.
const PATIENCE: Duration = Duration::from_millis(250);

/// The task that copies; it ends with this.
#[derive(Debug)]
pub(crate) struct Copier {
    pool: SqlitePool,
    task: AbortHandle,
}

impl Copier {
    /// Starts to look after the log of a database.
    pub(crate) async fn start(connect: SqliteConnectOptions) -> sqlx::Result<Self> {
        let pool = SqlitePoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
        let pool = pool.connect_with(connect.busy_timeout(PATIENCE)).await?;
        let task = tokio::spawn(copy_again_and_again(pool.clone())).abort_handle();
        Ok(Self { pool, task })
    }

    pub(crate) async fn close(&self) {
        self.task.abort();
        self.pool.close().await;
    }
}

impl Drop for Copier {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn copy_again_and_again(pool: SqlitePool) {
    let mut ticks = tokio::time::interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = 0;
    loop {
        ticks.tick().await;
        match copy(&pool, before, MANY, TOO_MANY).await {
            Ok(all) => before = all,
            Err(sqlx::Error::PoolClosed) => return,
            // The next commit that finds far too many does it, or the next look.
            Err(err) => {
                debug!(error = &err as &dyn std::error::Error, "The log was not copied into the file: {err}");
            }
        }
    }
}

/// Copies the log if it is time to; returns how many pages it has, of which there were so many `before`.
async fn copy(pool: &SqlitePool, before: i64, many: i64, too_many: i64) -> sqlx::Result<i64> {
    let (all, copied) = checkpoint(pool, "NOOP").await?;
    let left = all - copied;
    if left == 0 || (all != before && left < many) {
        return Ok(all);
    }
    let (all, _) = checkpoint(pool, "PASSIVE").await?;
    if all < too_many {
        return Ok(all);
    }
    checkpoint(pool, "RESTART").await.map(|(all, _)| all)
}

/// Runs a checkpoint of a mode; returns how many pages the log has, and how many of them are copied.
async fn checkpoint(pool: &SqlitePool, mode: &str) -> sqlx::Result<(i64, i64)> {
    let statement = AssertSqlSafe(format!("PRAGMA wal_checkpoint({mode})"));
    let row = sqlx::query(statement).fetch_one(pool).await?;
    Ok((row.try_get(1)?, row.try_get(2)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::sqlite::SqliteJournalMode;

    /// Writes a row of so many pages.
    async fn write(pool: &SqlitePool, pages: i64) {
        sqlx::query("INSERT INTO rows VALUES (zeroblob(4096 * ?))").bind(pages).execute(pool).await.unwrap();
    }

    #[tokio::test]
    async fn the_log_is_copied_beside_the_writer_and_begins_anew() {
        let home = tempfile::tempdir().unwrap();
        let connect = SqliteConnectOptions::new().filename(home.path().join("db")).create_if_missing(true);
        let connect = connect.journal_mode(SqliteJournalMode::Wal).pragma("wal_autocheckpoint", FAR_TOO_MANY);
        let one = SqlitePoolOptions::new().max_connections(1);
        let (writer, other) =
            (one.clone().connect_with(connect.clone()).await.unwrap(), one.connect_with(connect.clone()));
        let other = other.await.unwrap();
        sqlx::query("CREATE TABLE rows (content BLOB)").execute(&writer).await.unwrap();

        let log = async || checkpoint(&other, "NOOP").await.unwrap();
        write(&writer, 50).await;
        let before = copy(&other, 0, 100, 1000).await.unwrap();
        let (all, copied) = log().await;
        assert!(all >= 50 && all == before && copied == 0, "few, and it grows: {copied} of {all}");
        copy(&other, before, 100, 1000).await.unwrap();
        assert_eq!(log().await, (all, all), "it does not grow any more");

        write(&writer, 100).await;
        copy(&other, 0, 100, 1000).await.unwrap();
        let (all, copied) = log().await;
        assert!(all >= 100 && copied == all, "{copied} of {all}");

        // With a writer in the middle of a transaction, all of what is committed is copied.
        write(&writer, 5).await;
        let mut open = writer.begin().await.unwrap();
        sqlx::query("INSERT INTO rows VALUES (1)").execute(&mut *open).await.unwrap();
        copy(&other, 0, 0, 1000).await.unwrap();
        let (all, copied) = log().await;
        assert_eq!(copied, all);
        open.commit().await.unwrap();

        write(&writer, 200).await;
        copy(&other, 0, 100, 200).await.unwrap();
        write(&writer, 5).await;
        let (all, copied) = log().await;
        assert!(all < 20 && copied == 0, "it has begun anew: {copied} of {all}");

        let copier = Copier::start(connect).await.unwrap();
        let all_is_copied = async {
            loop {
                let (all, copied) = log().await;
                if copied == all {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all_is_copied).await.unwrap();
        copier.close().await;
    }
}
