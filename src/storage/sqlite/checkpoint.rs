//! Keeps the write-ahead log short without holding up commits.
//!
//! A second connection copies committed pages into the database file while the writer goes on; the writer itself,
//! between two batches, starts the log anew when little is left to copy. Neither waits for a reader.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use tokio::sync::Notify;

use super::{SqliteOptions, connect};

/// How often the second connection looks.
const PAUSE: Duration = Duration::from_millis(250);

/// Commits after which the writer starts the log anew.
const COMMITS_PER_LOG: u64 = 200;

/// What the writer tells the second connection.
#[derive(Debug, Default)]
pub struct Progress {
    commits: AtomicU64,
    is_closed: AtomicBool,
    closing: Notify,
}

impl Progress {
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.closing.notify_one();
    }
}

/// Called by the writer after each commit.
pub async fn after_commit(
    connection: &mut SqliteConnection,
    progress: &Progress,
    lock_wait: Duration,
) -> Result<(), sqlx::Error> {
    let commits = progress.commits.fetch_add(1, Ordering::AcqRel) + 1;
    if commits.is_multiple_of(COMMITS_PER_LOG) {
        // Busy with a reader: the next time will do.
        sqlx::query("PRAGMA busy_timeout = 0").execute(&mut *connection).await?;
        sqlx::query("PRAGMA wal_checkpoint(RESTART)").execute(&mut *connection).await?;
        let restore = format!("PRAGMA busy_timeout = {}", lock_wait.as_millis());
        sqlx::query(AssertSqlSafe(restore)).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Copies everything and empties the log.
pub async fn fold(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(connection).await?;
    Ok(())
}

/// Copies pages whenever something was committed, until the writer closes.
pub async fn run(options: SqliteOptions, progress: Arc<Progress>) {
    let mut connection: Option<SqliteConnection> = None;
    let mut copied = 0;
    while !progress.is_closed.load(Ordering::Acquire) {
        // An elapsed pause is no error, it is the time to look.
        tokio::time::timeout(PAUSE, progress.closing.notified()).await.ok();
        let commits = progress.commits.load(Ordering::Acquire);
        if commits == copied {
            continue;
        }
        let mut current = match connection.take() {
            Some(current) => current,
            None => match connect::checkpointer(&options).await {
                Ok(fresh) => fresh,
                Err(error) => {
                    tracing::debug!(%error, "the write-ahead log is not copied for now");
                    continue;
                }
            },
        };
        let looked: Result<(i64, i64, i64), _> =
            sqlx::query_as("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(&mut current).await;
        match looked {
            Ok((_, in_log, in_database)) => {
                // A reader that stands on an old state, as a backup does, holds the rest back: look again.
                if in_database >= in_log {
                    copied = commits;
                }
                connection = Some(current);
            }
            Err(error) => tracing::debug!(%error, "the write-ahead log is not copied for now"),
        }
    }
    if let Some(connection) = connection {
        connection.close().await.ok();
    }
}
