//! Saves the books into one file while a daemon goes on writing: one snapshot, checked before it gets its name.
//!
//! The copy holds one read transaction open. Meanwhile commits go on, and the write-ahead log grows by what they write;
//! `checkpoint` folds it afterwards.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::{Connection, SqliteConnection};

use super::{MigrateError, SqliteOptions, connect, files, migrate};
use crate::failpoint;
use crate::storage::backup::{BackupContents, Saved};

/// Of a copy that is not finished; the next backup to the same name replaces it.
const PARTIAL_ENDING: &str = ".partial";

/// Between two syncs of a copy that grows.
const SYNC_PAUSE: Duration = Duration::from_millis(100);

/// Endings of the names that belong to the database in use.
const OWN_ENDINGS: [&str; 6] = ["", "-wal", "-shm", "-journal", ".lock", ".installation"];

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("{0}")]
    Database(#[from] MigrateError),
    #[error("{} is there already, and a backup overwrites nothing: name a new file", .0.display())]
    Exists(PathBuf),
    #[error("{} belongs to the database in use: name another file", .0.display())]
    OwnFile(PathBuf),
    #[error("the name {} is no text: name another file", .0.display())]
    Name(PathBuf),
    #[error("another backup to {} is under way", .0.display())]
    UnderWay(PathBuf),
    #[error("{file} cannot be written, and nothing was left of it: {error}", file = .0.display(), error = .1)]
    Write(PathBuf, io::Error),
    #[error("the copy to {file} failed, and nothing was left of it: {error}", file = .0.display(), error = .1)]
    Copy(PathBuf, String),
    #[error("the copy was damaged and was removed, so the database may be: {0}")]
    Damaged(String),
}

/// Copies the database to `file`, as of one instant after the call.
pub async fn backup(options: &SqliteOptions, file: &Path) -> Result<Saved, BackupError> {
    let contents = migrate::known(options).await?;
    let Some(installation) = contents.installation else {
        return Err(MigrateError::Outdated(contents.versions).into());
    };
    let file = files::resolved(file);
    refuse_own_names(options, &file)?;
    if files::is_there(&file) {
        return Err(BackupError::Exists(file));
    }
    let partial = files::beside(&file, PARTIAL_ENDING);
    let written = |error| BackupError::Write(file.clone(), error);
    let open = begin(&partial, &file)?;
    let saved = async {
        failpoint::hit("store.backup.begun").map_err(|fault| written(io::Error::other(fault)))?;
        copy_steadily(options, &partial, &open, &file).await?;
        failpoint::hit("store.backup.copied").map_err(|fault| written(io::Error::other(fault)))?;
        let bytes = open.metadata().map_err(written)?.len();
        let contents = whole_contents(&partial, bytes, installation).await;
        let contents = contents.map_err(|damage| BackupError::Damaged(damage.to_string()))?;
        match files::place(&partial, &open, &file) {
            Ok(()) => Ok(Saved { file: file.clone(), contents }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(BackupError::Exists(file.clone())),
            Err(error) => Err(written(error)),
        }
    };
    let saved = saved.await;
    if saved.is_err() {
        // What cannot be removed has a name that says what it is.
        files::remove_draft(&partial).ok();
    }
    saved
}

fn refuse_own_names(options: &SqliteOptions, file: &Path) -> Result<(), BackupError> {
    let database = files::resolved(&options.path);
    match OWN_ENDINGS.iter().any(|ending| files::beside(&database, ending) == file) {
        true => Err(BackupError::OwnFile(file.to_owned())),
        false => Ok(()),
    }
}

/// A fresh file for the copy; whatever an earlier backup left unfinished goes.
fn begin(partial: &Path, file: &Path) -> Result<File, BackupError> {
    let written = |error| BackupError::Write(file.to_owned(), error);
    let lock = |open: &File| match open.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(BackupError::UnderWay(file.to_owned())),
        Err(TryLockError::Error(error)) => Err(written(error)),
    };
    match File::open(partial) {
        Ok(earlier) => {
            lock(&earlier)?;
            files::remove_draft(partial).map_err(written)?;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => files::remove_draft(partial).map_err(written)?,
        Err(error) => return Err(written(error)),
    }
    let open = match files::create_new(partial) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(BackupError::UnderWay(file.to_owned())),
        created => created.map_err(written)?,
    };
    lock(&open)?;
    Ok(open)
}

/// Copies, and has the disk take the copy as it grows: all of it at the end would hold up the daemon's own commits.
async fn copy_steadily(options: &SqliteOptions, partial: &Path, open: &File, file: &Path) -> Result<(), BackupError> {
    let mut copying = std::pin::pin!(copy(options, partial, file));
    loop {
        match tokio::time::timeout(SYNC_PAUSE, &mut copying).await {
            Ok(copied) => return copied,
            Err(_still_copying) => open.sync_data().map_err(|error| BackupError::Write(file.to_owned(), error))?,
        }
    }
}

async fn copy(options: &SqliteOptions, partial: &Path, file: &Path) -> Result<(), BackupError> {
    let name = partial.to_str().ok_or_else(|| BackupError::Name(file.to_owned()))?;
    let copied = async {
        let mut connection = connect::copier(options).await?;
        sqlx::query("VACUUM INTO ?1").bind(name).execute(&mut connection).await?;
        connection.close().await
    };
    copied.await.map_err(|error| BackupError::Copy(file.to_owned(), error.to_string()))
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    #[error("{0}")]
    Found(String),
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] sqlx::Error),
}

/// Checks a finished copy from end to end, and counts what is in it.
pub async fn whole_contents(path: &Path, bytes: u64, installation: String) -> Result<BackupContents, Damage> {
    let mut connection = connect::still_file(path).await?;
    let findings: Vec<String> = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_all(&mut connection).await?;
    if findings != ["ok"] {
        return Err(Damage::Found(findings.join("; ")));
    }
    let events = count(&mut connection, "SELECT COUNT(*) FROM webhook_logs").await?;
    let charges = count(&mut connection, "SELECT COUNT(*) FROM hookledger_claims").await?;
    let newest: Option<(String, String)> =
        sqlx::query_as("SELECT eventId, createdAt FROM webhook_logs ORDER BY createdAt DESC, id DESC LIMIT 1")
            .fetch_optional(&mut connection)
            .await?;
    connection.close().await?;
    let (newest_event, newest_event_at) = newest.unzip();
    Ok(BackupContents { bytes, installation, events, charges, newest_event, newest_event_at })
}

async fn count(connection: &mut SqliteConnection, sql: &'static str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(sql).fetch_one(connection).await
}
