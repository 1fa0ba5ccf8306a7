//! One writing process on a database: the daemon for its whole life, a command while it works.
//!
//! SQLite's own locks order transactions; this one keeps a second daemon away, and a command from writing beside a
//! daemon that believes to be alone. The kernel ends it with the process, however that ends. Readers never take it.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{MigrateError, SqliteOptions, files};

/// Lies beside the database and stays there: a lock on a file that comes and goes would not exclude anybody.
const ENDING: &str = ".lock";

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// How long it may take from locking the file to writing into it who did.
const INTRODUCTION: Duration = Duration::from_millis(200);

/// What the process is that has the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `serve`: it keeps the lock until it is stopped.
    Daemon,
    /// Anything else: it soon ends.
    Command,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Role::Daemon => "serve",
            Role::Command => "command",
        }
    }
}

/// Who has the lock, by its own words in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub database: PathBuf,
    /// None: it has not said so.
    pub pid: Option<u32>,
    pub role: Role,
}

impl fmt::Display for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pid = self.pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
        let database = self.database.display();
        match self.role {
            Role::Daemon => write!(formatter, "the database {database} is in use by another daemon (pid {pid})"),
            Role::Command => write!(formatter, "a hookledger command (pid {pid}) is at work on {database}"),
        }
    }
}

/// The right to write to the database; ends when it is dropped, or with the process.
#[derive(Debug)]
pub struct DatabaseLock {
    file: File,
}

impl DatabaseLock {
    /// Takes the lock, waiting up to `patience` for a command that has it, and for no daemon. Its folder must be there.
    pub async fn take(options: &SqliteOptions, role: Role, patience: Duration) -> Result<Self, MigrateError> {
        let database = files::resolved(&options.path);
        let path = files::beside(&database, ENDING);
        let started = Instant::now();
        loop {
            let taken = try_take(&path, role);
            let taken = taken.map_err(|error| MigrateError::Lock(path.display().to_string(), error))?;
            if let Some(file) = taken {
                return Ok(DatabaseLock { file });
            }
            let holder = holder(&path, &database);
            let patience = match holder.role {
                // Its words may be those of an earlier one, for a moment.
                Role::Daemon => INTRODUCTION,
                Role::Command => patience.max(INTRODUCTION),
            };
            if started.elapsed() >= patience {
                return Err(MigrateError::Held(holder));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Keeps the lock until the process ends: whatever is still at work then, is at work under it.
    pub fn keep(self) {
        std::mem::forget(self.file);
    }
}

fn try_take(path: &Path, role: Role) -> io::Result<Option<File>> {
    let mut file = File::options().create(true).append(true).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // For people, and for the words of a refusal; a disk too full to take it is no reason to refuse.
    let introduced = file.set_len(0).and_then(|()| file.write_all(introduction(role).as_bytes()));
    if let Err(error) = introduced {
        tracing::debug!(%error, "the lock file does not say who has the lock");
    }
    Ok(Some(file))
}

fn introduction(role: Role) -> String {
    format!("{}\n{}\n", std::process::id(), role.as_str())
}

fn holder(path: &Path, database: &Path) -> Holder {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut lines = text.lines();
    let pid = lines.next().and_then(|line| line.parse().ok());
    // One that has not said what it is, is not waited for.
    let role = if lines.next() == Some(Role::Command.as_str()) { Role::Command } else { Role::Daemon };
    Holder { database: database.to_owned(), pid, role }
}
