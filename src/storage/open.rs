//! Opens whichever database the settings name. Above here nobody knows which one that is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Store;
use super::mysql::{self, MysqlOpenError, MysqlOptions, MysqlStore};
use super::sqlite::{self, DatabaseLock, MigrateError, Role, SqliteOptions, SqliteStore};
use crate::clock::SharedClock;

/// Between two tries to take the lock of an embedded database.
const PAUSE: Duration = Duration::from_millis(100);

/// How to open a database.
#[derive(Debug, Clone)]
pub enum DatabaseOptions {
    Sqlite(SqliteOptions),
    Mysql(Box<MysqlOptions>),
}

/// Why a database cannot be opened or brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0}")]
    Sqlite(#[from] MigrateError),
    #[error("{0}")]
    Mysql(#[from] MysqlOpenError),
}

impl OpenError {
    /// Waiting may help.
    pub fn may_pass(&self) -> bool {
        match self {
            OpenError::Sqlite(error) => error.may_pass(),
            OpenError::Mysql(error) => error.may_pass(),
        }
    }

    /// Another program has the database to itself.
    pub fn is_held(&self) -> bool {
        matches!(self, OpenError::Sqlite(MigrateError::Held(_)))
    }

    /// The database is of another version, or the server must be set up otherwise: nothing that comes back by itself.
    pub fn needs_a_person(&self) -> bool {
        match self {
            OpenError::Sqlite(error) => matches!(error, MigrateError::Version(_) | MigrateError::Outdated(_)),
            OpenError::Mysql(error) => {
                matches!(error, MysqlOpenError::Version { .. })
                    || (matches!(error, MysqlOpenError::Server(_)) && !error.may_pass())
            }
        }
    }
}

/// One try to open the database for a daemon. `migrates`: it may be created and brought up to date.
pub async fn open_for_daemon(
    options: &DatabaseOptions,
    clock: SharedClock,
    migrates: bool,
) -> Result<Arc<dyn Store>, OpenError> {
    Ok(match options {
        DatabaseOptions::Sqlite(options) => {
            Arc::new(SqliteStore::open_for_daemon(options, clock, migrates).await?) as Arc<dyn Store>
        }
        DatabaseOptions::Mysql(options) => Arc::new(MysqlStore::open_for_daemon(options, clock, migrates).await?),
    })
}

/// Opens a database that is there and up to date, to look into it.
pub async fn open(options: &DatabaseOptions, clock: SharedClock) -> Result<Arc<dyn Store>, OpenError> {
    Ok(match options {
        DatabaseOptions::Sqlite(options) => {
            Arc::new(SqliteStore::open(options.clone(), clock).await?) as Arc<dyn Store>
        }
        DatabaseOptions::Mysql(options) => Arc::new(MysqlStore::open((**options).clone(), clock).await?),
    })
}

/// A store that a command writes with, and what keeps daemons away meanwhile.
pub struct Writing {
    pub store: Arc<dyn Store>,
    _lock: Option<DatabaseLock>,
}

/// One try to open the database for a command that writes. On a server nothing has to be kept away.
pub async fn open_to_write(options: &DatabaseOptions, clock: SharedClock) -> Result<Writing, OpenError> {
    let DatabaseOptions::Sqlite(options) = options else {
        return Ok(Writing { store: open(options, clock).await?, _lock: None });
    };
    // Where there is no database, not even a lock file is made.
    sqlite::check(options).await?;
    let lock = DatabaseLock::take(options, Role::Command, Duration::ZERO).await?;
    let store = Arc::new(SqliteStore::open_locked(options.clone(), clock, &lock).await?);
    Ok(Writing { store, _lock: Some(lock) })
}

/// Creates the database, or brings it up to date; waits up to `patience` for one that is away or held.
pub async fn migrate(options: &DatabaseOptions, clock: &SharedClock, patience: Duration) -> Result<(), OpenError> {
    match options {
        DatabaseOptions::Sqlite(options) => Ok(migrate_embedded(options, patience).await?),
        DatabaseOptions::Mysql(options) => {
            let started = Instant::now();
            loop {
                match mysql::migrate(options, clock).await {
                    Err(error) if error.may_pass() && started.elapsed() < patience => tokio::time::sleep(PAUSE).await,
                    result => return Ok(result?),
                }
            }
        }
    }
}

async fn migrate_embedded(options: &SqliteOptions, patience: Duration) -> Result<(), MigrateError> {
    sqlite::make_folder(options)?;
    match DatabaseLock::take(options, Role::Command, patience).await {
        Ok(lock) => sqlite::migrate(options, &lock).await,
        // Beside a daemon nothing is changed, and mostly nothing has to be.
        Err(MigrateError::Held(holder)) => match sqlite::check(options).await {
            Err(MigrateError::Outdated(_)) => Err(MigrateError::Held(holder)),
            checked => checked,
        },
        Err(error) => Err(error),
    }
}
