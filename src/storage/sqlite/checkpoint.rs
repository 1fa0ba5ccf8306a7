//! Keeps the write-ahead log short without holding up commits.
//!
//! A second connection copies committed pages into the database file while the writer goes on; the writer itself,
//! between two batches, starts the log anew when little is left to copy. Neither waits for a reader.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use tokio::sync::Notify;

use super::presence::Presence;
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
        at_once(connection, "PRAGMA wal_checkpoint(RESTART)", lock_wait).await?;
    }
    Ok(())
}

/// Called by the writer before it goes on after a failure. On a disk that was full, what the log holds needs room in the
/// database: whatever is written before that takes the room away from it, and the log could never begin anew. An error
/// where there is no room yet.
pub async fn after_failure(connection: &mut SqliteConnection, lock_wait: Duration) -> Result<(), sqlx::Error> {
    match at_once(connection, "PRAGMA wal_checkpoint(TRUNCATE)", lock_wait).await {
        Err(error) if is_full(&error) => Err(error),
        // The write itself will tell.
        _ => Ok(()),
    }
}

/// Waits for nobody: busy with a reader or another writer, the next time will do.
async fn at_once(
    connection: &mut SqliteConnection,
    checkpoint: &'static str,
    lock_wait: Duration,
) -> Result<(), sqlx::Error> {
    sqlx::query("PRAGMA busy_timeout = 0").execute(&mut *connection).await?;
    let copied = sqlx::query(checkpoint).execute(&mut *connection).await;
    let restore = format!("PRAGMA busy_timeout = {}", lock_wait.as_millis());
    sqlx::query(AssertSqlSafe(restore)).execute(&mut *connection).await?;
    copied.map(drop)
}

fn is_full(error: &sqlx::Error) -> bool {
    /// SQLITE_FULL.
    const FULL: &str = "13";
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == FULL)
}

/// Copies everything and empties the log.
pub async fn fold(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(connection).await?;
    Ok(())
}

/// Copies pages whenever something was committed, until the writer closes.
pub async fn run(options: SqliteOptions, progress: Arc<Progress>, presence: Option<Arc<Presence>>) {
    let mut connection: Option<SqliteConnection> = None;
    let mut copied = 0;
    while !progress.is_closed.load(Ordering::Acquire) {
        // An elapsed pause is no error, it is the time to look.
        tokio::time::timeout(PAUSE, progress.closing.notified()).await.ok();
        let commits = progress.commits.load(Ordering::Acquire);
        // What took the database's place is left alone.
        let is_there = presence.as_ref().is_none_or(|presence| presence.check().is_ok());
        if commits == copied || !is_there {
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
    // The owner has seen to it that this is not the last connection to something else.
    if let Some(connection) = connection {
        connection.close().await.ok();
    }
}
