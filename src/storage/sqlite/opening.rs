//! Opens the embedded database: to look into it, to write to it, or for a daemon, which has it to itself.

use std::sync::Arc;
use std::time::Duration;

use super::presence::Presence;
use super::writer::Writer;
use super::{DatabaseLock, MigrateError, Role, SqliteOptions, SqliteStore, connect, coverage, files, marker, migrate};
use crate::clock::SharedClock;

impl SqliteStore {
    /// Opens a database that exists and is up to date, to read in it.
    pub async fn open(options: SqliteOptions, clock: SharedClock) -> Result<Self, MigrateError> {
        let installation = migrate::check(&options).await?;
        SqliteStore::open_known(options, clock, installation, None).await
    }

    /// The same, to write to it as well. A database that an earlier version made is remembered from here on.
    pub async fn open_locked(
        options: SqliteOptions,
        clock: SharedClock,
        _lock: &DatabaseLock,
    ) -> Result<Self, MigrateError> {
        migrate::check_writable(&options)?;
        let installation = migrate::check(&options).await?;
        marker::keep(&options.path, &installation)?;
        SqliteStore::open_known(options, clock, installation, None).await
    }

    /// One try to open the database for a daemon, which keeps it locked until its process ends. `migrates`: it may be
    /// created and brought up to date.
    pub async fn open_for_daemon(
        options: &SqliteOptions,
        clock: SharedClock,
        migrates: bool,
    ) -> Result<Self, MigrateError> {
        if migrates {
            migrate::make_folder(options)?;
        } else {
            // Where there is no database, not even a lock file is made.
            migrate::check(options).await?;
        }
        let lock = DatabaseLock::take(options, Role::Daemon, Duration::ZERO).await?;
        if migrates {
            migrate::run(options).await?;
        }
        migrate::check_writable(options)?;
        let installation = migrate::check(options).await?;
        marker::keep(&options.path, &installation)?;
        // Whatever link led here, later connections are made to this very file.
        let options = SqliteOptions { path: files::resolved(&options.path), ..options.clone() };
        let presence = Arc::new(Presence::begin(&options).await?);
        let store = SqliteStore::open_known(options, clock, installation, Some(presence)).await?;
        lock.keep();
        Ok(store)
    }

    async fn open_known(
        options: SqliteOptions,
        clock: SharedClock,
        installation: String,
        presence: Option<Arc<Presence>>,
    ) -> Result<Self, MigrateError> {
        let readers = connect::readers(&options, presence.as_ref());
        let balance_readers = connect::readers(&options, presence.as_ref());
        let path = options.path.clone();
        let has_log = coverage::has_rows(&readers).await?;
        let writer = Writer::start(options, clock.clone(), installation, has_log, presence);
        let writer = writer.map_err(MigrateError::Thread)?;
        let (noticed, checked_spans) = Default::default();
        Ok(SqliteStore { writer, readers, balance_readers, clock, path, noticed, checked_spans })
    }
}
