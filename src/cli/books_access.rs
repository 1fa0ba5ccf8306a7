//! The way to the books: looks go to the database itself, writes through a running daemon where there is one.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::admin_client;
use super::failure::Failure;
use crate::app::database_options;
use crate::clock;
use crate::config::Settings;
use crate::storage::Store;
use crate::storage::books::BooksError;
use crate::storage::open::{self, OpenError, Writing};
use crate::storage::sqlite::{Holder, MigrateError, Role};

/// How long to wait for another command, or for a daemon that is starting or stopping.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Asks the database, whether a daemon runs on it or not.
pub async fn read<A>(
    settings: &Settings,
    ask: impl AsyncFnOnce(&dyn Store) -> Result<A, BooksError>,
) -> Result<A, Failure> {
    let store = open::open(&database_options(settings), clock::for_daemon()).await?;
    let answer = ask(store.as_ref()).await;
    store.close().await;
    Ok(answer?)
}

/// Has the daemon write; where none runs, writes directly, and keeps daemons away meanwhile.
pub async fn write<Q: Serialize, A: DeserializeOwned>(
    settings: &Settings,
    route: &str,
    question: Q,
    directly: impl AsyncFnOnce(&dyn Store, Q) -> Result<A, BooksError>,
) -> Result<A, Failure> {
    let writing = match way(settings, route, &question).await? {
        Way::Daemon(answer) => return Ok(answer),
        Way::Direct(writing) => writing,
    };
    let answer = directly(writing.store.as_ref(), question).await;
    writing.store.close().await;
    Ok(answer?)
}

/// Who writes.
pub enum Way<A> {
    /// A daemon runs: its answer.
    Daemon(A),
    /// None does, and none can start meanwhile on an embedded database.
    Direct(Writing),
}

/// Asks the daemon; where none runs, opens the database to write.
pub async fn way<A: DeserializeOwned>(
    settings: &Settings,
    route: &str,
    question: &impl Serialize,
) -> Result<Way<A>, Failure> {
    let options = database_options(settings);
    let started = Instant::now();
    loop {
        if let Some(answer) = admin_client::post(&settings.admin.socket, route, question).await? {
            return Ok(Way::Daemon(answer));
        }
        match open::open_to_write(&options, clock::for_daemon()).await {
            Ok(writing) => return Ok(Way::Direct(writing)),
            Err(error) if error.is_held() && started.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
            Err(OpenError::Sqlite(MigrateError::Held(holder))) => return Err(out_of_reach(settings, &holder)),
            Err(error) => return Err(error.into()),
        }
    }
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
