//! The way to the books: looks go to the database itself, writes through a running daemon where there is one.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::admin_client;
use super::failure::Failure;
use crate::app::sqlite_options;
use crate::clock;
use crate::config::Settings;
use crate::storage::books::BooksError;
use crate::storage::sqlite::SqliteStore;

/// Asks the database, whether a daemon runs on it or not.
pub async fn read<A>(
    settings: &Settings,
    ask: impl AsyncFnOnce(&SqliteStore) -> Result<A, BooksError>,
) -> Result<A, Failure> {
    let store = SqliteStore::open(sqlite_options(settings), clock::for_daemon()).await?;
    let answer = ask(&store).await;
    store.close().await;
    Ok(answer?)
}

/// Has the daemon write; where none runs, writes directly.
pub async fn write<Q: Serialize, A: DeserializeOwned>(
    settings: &Settings,
    route: &str,
    question: Q,
    directly: impl AsyncFnOnce(&SqliteStore, Q) -> Result<A, BooksError>,
) -> Result<A, Failure> {
    match admin_client::post(&settings.admin.socket, route, &question).await? {
        Some(answer) => Ok(answer),
        None => read(settings, async |store| directly(store, question).await).await,
    }
}
