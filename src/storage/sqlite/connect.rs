//! Opens connections to the database file, with the settings that the promises need.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, SqliteConnection, SqlitePool};

use super::SqliteOptions;
use super::presence::Presence;

/// Page cache of the writer: 64 MiB, in KiB and negative, as SQLite wants it.
const WRITER_CACHE: &str = "-65536";

/// Page cache of each reader, in KiB: they go through many rows once, where a cache helps little, or look up single ones.
const READER_CACHE: &str = "-256";

/// Pages in the write-ahead log after which a commit copies by itself: a net below `checkpoint`.
const AUTOCHECKPOINT_PAGES: &str = "64000";

/// Bytes to which the write-ahead log is cut when it begins anew.
const LOG_BYTES_KEPT: &str = "67108864";

/// More of a daemon's readers than these are made only when they are needed.
const READERS_AT_ONCE: u32 = 16;

/// How long a reader may wait for a connection.
const READER_WAIT: Duration = Duration::from_secs(5);

/// Rows that the database's thread hands over at a time.
const ROW_BUFFER: usize = 1024;

fn base(options: &SqliteOptions) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(&options.path)
        .foreign_keys(true)
        .busy_timeout(options.lock_wait)
        .statement_cache_capacity(64)
        .row_buffer_size(ROW_BUFFER)
        .disable_statement_logging()
}

/// A commit answers after its bytes are on the disk. Only a test that proves this turns it off.
fn synchronous() -> SqliteSynchronous {
    #[cfg(feature = "failpoints")]
    if std::env::var("HOOKLEDGER_TEST_SYNCHRONOUS").as_deref() == Ok("OFF") {
        return SqliteSynchronous::Off;
    }
    SqliteSynchronous::Full
}

/// The writing connection; `create` makes the file where there is none. `thread` is the name of its thread, which does
/// what it asks of the disk.
pub async fn writer(
    options: &SqliteOptions,
    create: bool,
    thread: &'static str,
) -> Result<SqliteConnection, sqlx::Error> {
    writing(options, create, thread).pragma("cache_size", WRITER_CACHE).connect().await
}

/// The connection that copies the write-ahead log into the file. It keeps no pages.
pub async fn checkpointer(options: &SqliteOptions) -> Result<SqliteConnection, sqlx::Error> {
    writing(options, false, "ledger-copier").connect().await
}

fn writing(options: &SqliteOptions, create: bool, thread: &'static str) -> SqliteConnectOptions {
    base(options)
        .create_if_missing(create)
        .thread_name(move |_| thread.to_owned())
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous())
        .pragma("wal_autocheckpoint", AUTOCHECKPOINT_PAGES)
        .pragma("journal_size_limit", LOG_BYTES_KEPT)
        // What undoes a single statement is kept in memory, not in a file.
        .pragma("temp_store", "MEMORY")
}

/// One connection that only looks, at a database of whatever version.
pub async fn looker(options: &SqliteOptions) -> Result<SqliteConnection, sqlx::Error> {
    base(options).create_if_missing(false).pragma("query_only", "ON").connect().await
}

/// The connection from which a copy is taken. It only reads; that it could write lets it tidy up behind itself where
/// no daemon runs. The copy is synced once, when it is whole.
pub async fn copier(options: &SqliteOptions) -> Result<SqliteConnection, sqlx::Error> {
    base(options).create_if_missing(false).pragma("synchronous", "OFF").connect().await
}

/// A file that no program writes to: neither locked nor given a write-ahead log.
pub async fn still_file(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .immutable(true)
        .disable_statement_logging()
        .connect()
        .await
}

/// Connections that only read. In WAL mode they never wait for the writer. A command's are made as they are needed; a
/// daemon's, who has a `presence`, at once and for good: each has a thread and a heap of its own, which gives little
/// back, so that a daemon that renewed them would grow for hours.
/// None is made to what took the database's place.
pub fn readers(options: &SqliteOptions, presence: Option<&Arc<Presence>>) -> SqlitePool {
    let presence = presence.cloned();
    SqlitePoolOptions::new()
        .max_connections(options.max_readers)
        .min_connections(if presence.is_some() { options.max_readers.min(READERS_AT_ONCE) } else { 0 })
        .max_lifetime(None)
        .idle_timeout(None)
        .acquire_timeout(READER_WAIT)
        .after_connect(move |_, _| {
            let checked = presence.as_ref().map_or(Ok(()), |presence| presence.check());
            Box::pin(async move { checked.map_err(|lost| sqlx::Error::Io(std::io::Error::other(lost))) })
        })
        .connect_lazy_with(
            base(options).create_if_missing(false).pragma("query_only", "ON").pragma("cache_size", READER_CACHE),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A look by one reader would push out the writer's pages, and the bounds above would hold only together.
    #[tokio::test]
    async fn each_connection_has_a_page_cache_of_its_own() {
        let mut connection = SqliteConnectOptions::new().in_memory(true).connect().await.unwrap();
        let options: Vec<String> =
            sqlx::query_scalar("PRAGMA compile_options").fetch_all(&mut connection).await.unwrap();
        assert!(options.iter().any(|option| option.starts_with("THREADSAFE")), "{options:?}");
        let shared = "ENABLE_MEMORY_MANAGEMENT";
        assert!(!options.iter().any(|option| option == shared), "built without what .cargo/config.toml says");
    }
}
