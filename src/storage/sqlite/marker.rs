//! Remembers beside the database that there is one: a ledger that vanished must not be replaced by an empty one, which
//! would charge again what was charged and know nobody.
//!
//! The marker is written after the database is whole and on the disk, so no crash leaves it without its database.

use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::inspect::Found;
use super::{MigrateError, SqliteOptions, files};
use crate::failpoint;

/// Holds the installation id of the database beside which it lies.
const ENDING: &str = ".installation";

const DRAFT_ENDING: &str = ".installation-draft";

pub fn path(database: &Path) -> PathBuf {
    files::beside(&files::resolved(database), ENDING)
}

/// The installation whose database was here; none where nothing is remembered.
pub fn read(database: &Path) -> Result<Option<String>, MigrateError> {
    let path = path(database);
    let failed = |error| MigrateError::Marker(path.display().to_string(), error);
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim().is_empty() => Err(failed(io::Error::new(ErrorKind::InvalidData, "it is empty"))),
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Refuses what is not the database that was here before.
pub fn check(options: &SqliteOptions, found: &Found) -> Result<(), MigrateError> {
    let Some(remembered) = read(&options.path)? else {
        return Ok(());
    };
    let lost = |how| MigrateError::Lost {
        database: options.path.display().to_string(),
        how,
        installation: remembered.clone(),
        marker: path(&options.path).display().to_string(),
    };
    match found {
        Found::Nothing => Err(lost("is missing")),
        Found::EmptyFile => Err(lost("is an empty file")),
        Found::Junk => Err(lost("is no SQLite database")),
        Found::Database(contents) if contents.versions.is_empty() => Err(lost("has no tables of hookledger")),
        Found::Database(contents) => match &contents.installation {
            None => Err(lost("has no installation id")),
            Some(installation) if *installation == remembered => Ok(()),
            Some(installation) => Err(MigrateError::Replaced {
                database: options.path.display().to_string(),
                installation: installation.clone(),
                remembered: remembered.clone(),
                marker: path(&options.path).display().to_string(),
            }),
        },
    }
}

/// Remembers the installation, if nothing is remembered yet. The caller holds the lock.
pub fn keep(database: &Path, installation: &str) -> Result<(), MigrateError> {
    if read(database)?.is_some() {
        return Ok(());
    }
    let path = path(database);
    let written = failpoint::hit("store.marker.before").map_err(io::Error::other).and_then(|()| {
        let draft = files::beside(&files::resolved(database), DRAFT_ENDING);
        files::remove(&draft)?;
        let mut file = files::create_new(&draft)?;
        file.write_all(format!("{installation}\n").as_bytes())?;
        failpoint::hit("store.marker.written").map_err(io::Error::other)?;
        files::place(&draft, &file, &path)
    });
    written.map_err(|error| MigrateError::Marker(path.display().to_string(), error))?;
    tracing::info!(installation, marker = %path.display(), "the database is remembered: no empty one will replace it");
    Ok(())
}
