//! Puts a backup where the database should be. It never meets another database there: nothing is overwritten or mixed.
//!
//! The copy is checked before it gets its name, and the marker follows it; a crash in between leaves what a next
//! restore replaces, or what a start accepts.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::backup::{Damage, whole_contents};
use super::inspect::{self, Age, Contents};
use super::{DatabaseLock, Holder, MigrateError, Role, SqliteOptions, files, marker, migrate};
use crate::failpoint::{self, InjectedFault};
use crate::storage::backup::{BackupContents, Restored};

/// Of a copy that is not finished; the next restore replaces it.
const DRAFT_ENDING: &str = ".restoring";

/// SQLite's code for a database that contradicts itself.
const CORRUPT: &str = "11";

/// How long to wait for another command.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why nothing was put back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("{file} cannot be read: {error}", file = .0.display(), error = .1)]
    Read(PathBuf, io::Error),
    #[error("{file} is no hookledger database: {why}", file = .0.display(), why = .1)]
    NotOurs(PathBuf, String),
    #[error(
        "{} is a database in use, and not whole without {}: save it with `hookledger backup FILE`, and restore that \
         file", .0.display(), .1.display()
    )]
    InUse(PathBuf, PathBuf),
    #[error("{file} is damaged: {found}. Use another backup", file = .0.display(), found = .1)]
    Damaged(PathBuf, String),
    #[error(
        "{file} was made by another version (it has {versions:?}): restore it with the version that made it",
        file = .0.display(), versions = .1
    )]
    Version(PathBuf, Vec<i64>),
    #[error("{0}: stop it first, and move its database away")]
    Held(Holder),
    #[error("nothing is overwritten: with the daemon stopped, move away {}", list(.0))]
    InTheWay(Vec<PathBuf>),
    #[error(
        "the backup is of installation {installation}, and the database that was here of {remembered}: restore a \
         backup of that one; or, if this one is meant, remove {} by hand", .marker.display()
    )]
    OtherInstallation { installation: String, remembered: String, marker: PathBuf },
    #[error("{0}")]
    Database(MigrateError),
    #[error("{file} cannot be written: {error}", file = .0.display(), error = .1)]
    Write(PathBuf, io::Error),
}

impl From<MigrateError> for RestoreError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Held(holder) => RestoreError::Held(holder),
            error => RestoreError::Database(error),
        }
    }
}

/// Copies `file` to where the database should be. Blocks the thread while it copies.
pub async fn restore(options: &SqliteOptions, file: &Path) -> Result<Restored, RestoreError> {
    let (contents, installation) = judge(file).await?;
    migrate::make_folder(options)?;
    let database = files::resolved(&options.path);
    let _lock = DatabaseLock::take(options, Role::Command, PATIENCE).await?;
    refuse_what_is_there(&database)?;
    refuse_another_installation(&database, &installation)?;

    let written = |error| RestoreError::Write(database.clone(), error);
    let draft = files::beside(&database, DRAFT_ENDING);
    files::remove_draft(&draft).map_err(written)?;
    let restored = put_back(file, &draft, &database, installation.clone()).await;
    if restored.is_err() {
        // What cannot be removed is removed by the next restore.
        files::remove_draft(&draft).ok();
    }
    let restored = restored?;
    marker::keep(&database, &installation)?;
    Ok(Restored { database, contents: restored, is_outdated: contents.age() == Age::Older })
}

/// Refuses, before anything is made, what is no backup of a version that this program knows.
async fn judge(file: &Path) -> Result<(Contents, String), RestoreError> {
    let not_ours = |why: &str| RestoreError::NotOurs(file.to_owned(), why.to_owned());
    let metadata = std::fs::metadata(file).map_err(|error| RestoreError::Read(file.to_owned(), error))?;
    if !metadata.is_file() {
        return Err(not_ours("it is no file"));
    }
    for ending in ["-wal", "-journal"] {
        let companion = files::beside(&files::resolved(file), ending);
        if std::fs::metadata(&companion).is_ok_and(|metadata| metadata.len() > 0) {
            return Err(RestoreError::InUse(file.to_owned(), companion));
        }
    }
    let contents = inspect::look_at_file(file).await.map_err(|error| match error.as_database_error() {
        Some(found) if found.code().as_deref() == Some(CORRUPT) => {
            RestoreError::Damaged(file.to_owned(), found.message().to_owned())
        }
        _ => not_ours(&error.to_string()),
    })?;
    match (contents.age(), contents.installation.clone()) {
        (Age::Foreign, _) if contents.versions.is_empty() => Err(not_ours("it has none of its tables")),
        (Age::Foreign, _) => Err(RestoreError::Version(file.to_owned(), contents.versions)),
        (_, None) => Err(not_ours("it has no installation id")),
        (_, Some(installation)) => Ok((contents, installation)),
    }
}

fn refuse_what_is_there(database: &Path) -> Result<(), RestoreError> {
    let names = std::iter::once("").chain(files::SQLITES_OWN).map(|ending| files::beside(database, ending));
    let in_the_way: Vec<PathBuf> = names.filter(|path| files::is_there(path)).collect();
    if in_the_way.is_empty() { Ok(()) } else { Err(RestoreError::InTheWay(in_the_way)) }
}

/// A backup of another installation is no mistake that can be undone later.
fn refuse_another_installation(database: &Path, installation: &str) -> Result<(), RestoreError> {
    match marker::read(database)? {
        Some(remembered) if remembered != installation => Err(RestoreError::OtherInstallation {
            installation: installation.to_owned(),
            remembered,
            marker: marker::path(database),
        }),
        _ => Ok(()),
    }
}

async fn put_back(
    file: &Path,
    draft: &Path,
    database: &Path,
    installation: String,
) -> Result<BackupContents, RestoreError> {
    let written = |error| RestoreError::Write(database.to_owned(), error);
    let injected = |fault: InjectedFault| written(io::Error::other(fault));
    let mut source = File::open(file).map_err(|error| RestoreError::Read(file.to_owned(), error))?;
    let mut copy = files::create_new(draft).map_err(written)?;
    failpoint::hit("store.restore.begun").map_err(injected)?;
    let bytes = io::copy(&mut source, &mut copy).map_err(written)?;
    failpoint::hit("store.restore.copied").map_err(injected)?;
    let contents = whole_contents(draft, bytes, installation).await.map_err(|damage| match damage {
        Damage::Found(found) => RestoreError::Damaged(file.to_owned(), found),
        Damage::Unreadable(error) => RestoreError::Damaged(file.to_owned(), error.to_string()),
    })?;
    files::place(draft, &copy, database).map_err(written)?;
    failpoint::hit("store.restore.placed").map_err(injected)?;
    Ok(contents)
}

fn list(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    names.join(" and ")
}
