//! What the database's files take of their disk, and what is left. Asks the file system; knows no SQL.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::storage::{DiskUsage, StoreError};

/// Size of the database with its write-ahead log, and the free space beside them.
/// `look` is done there as well, where it may take its time.
pub async fn usage(database: PathBuf, look: impl FnOnce() + Send + 'static) -> Result<DiskUsage, StoreError> {
    // A file system that hangs must hold up nobody else.
    let measured = tokio::task::spawn_blocking(move || {
        look();
        measure(&database)
    });
    let measured = measured.await;
    measured
        .map_err(io::Error::other)
        .flatten()
        .map_err(|error| StoreError::Unavailable(format!("its files cannot be looked at: {error}")))
}

fn measure(database: &Path) -> io::Result<DiskUsage> {
    let size_bytes = std::fs::metadata(database)?.len().saturating_add(log_bytes(database)?);
    let file_system = rustix::fs::statvfs(database)?;
    // What is available to this user: less than what is free where some is kept for root.
    let free_bytes = file_system.f_bavail.saturating_mul(file_system.f_frsize);
    Ok(DiskUsage { size_bytes, free_bytes: Some(free_bytes) })
}

/// The write-ahead log is there only while somebody has the database open and has written.
fn log_bytes(database: &Path) -> io::Result<u64> {
    let mut log = OsString::from(database);
    log.push("-wal");
    match std::fs::metadata(log) {
        Ok(found) => Ok(found.len()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}
