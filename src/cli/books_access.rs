//! The way to the books: looks go to the database itself, writes through a running daemon where there is one.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::admin_client;
use super::failure::Failure;
use crate::app::sqlite_options;
use crate::clock;
use crate::config::Settings;
use crate::storage::books::BooksError;
use crate::storage::sqlite::{self, DatabaseLock, Holder, MigrateError, Role, SqliteStore};

/// How long to wait for another command, or for a daemon that is starting or stopping.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Asks the database, whether a daemon runs on it or not.
pub async fn read<A>(
    settings: &Settings,
    ask: impl AsyncFnOnce(&SqliteStore) -> Result<A, BooksError>,
) -> Result<A, Failure> {
    let store = SqliteStore::open(sqlite_options(settings)?, clock::for_daemon()).await?;
    let answer = ask(&store).await;
    store.close().await;
    Ok(answer?)
}

/// Has the daemon write; where none runs, writes directly, and keeps daemons away meanwhile.
pub async fn write<Q: Serialize, A: DeserializeOwned>(
    settings: &Settings,
    route: &str,
    question: Q,
    directly: impl AsyncFnOnce(&SqliteStore, Q) -> Result<A, BooksError>,
) -> Result<A, Failure> {
    let options = sqlite_options(settings)?;
    let started = Instant::now();
    let lock = loop {
        if let Some(answer) = admin_client::post(&settings.admin.socket, route, &question).await? {
            return Ok(answer);
        }
        // Where there is no database, not even a lock file is made.
        sqlite::check(&options).await?;
        match DatabaseLock::take(&options, Role::Command, Duration::ZERO).await {
            Ok(lock) => break lock,
            Err(MigrateError::Held(holder)) if started.elapsed() >= PATIENCE => {
                return Err(out_of_reach(settings, &holder));
            }
            Err(MigrateError::Held(_)) => tokio::time::sleep(PAUSE).await,
            Err(error) => return Err(error.into()),
        }
    };
    let store = SqliteStore::open_locked(options, clock::for_daemon(), &lock).await?;
    let answer = directly(&store, question).await;
    store.close().await;
    Ok(answer?)
}

fn out_of_reach(settings: &Settings, holder: &Holder) -> Failure {
    let what_to_do = match holder.role {
        Role::Command => "try again when it has ended".to_owned(),
        Role::Daemon => format!(
            "it does not answer on {}, so nothing was written beside it: set admin.socket as it is set there, or stop \
             it first",
            settings.admin.socket.display()
        ),
    };
    Failure::refused(format!("{holder}: {what_to_do}"))
}
