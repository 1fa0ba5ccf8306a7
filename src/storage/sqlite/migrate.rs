//! Creates the database and brings its tables up to date; refuses one that a newer version has changed.

use std::io::ErrorKind;

use sqlx::migrate::{MigrateError as SqlxMigrateError, Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, Connection, SqlSafeStr};
use uuid::Uuid;

use super::inspect::{Age, Contents, Found};
use super::lock::{Holder, Role};
use super::{SqliteOptions, connect, files, inspect, marker, presence};
use crate::failpoint::{self, InjectedFault};

/// The migration tool's own table lies beside ours.
pub const MIGRATIONS_TABLE: &str = "hookledger_migrations";

pub const MIGRATIONS: [(i64, &str, &str); 9] = [
    (1, "platform tables", include_str!("../../../migrations/sqlite/0001_platform_tables.sql")),
    (2, "own tables", include_str!("../../../migrations/sqlite/0002_own_tables.sql")),
    (3, "retries and tokens", include_str!("../../../migrations/sqlite/0003_retries_and_tokens.sql")),
    (4, "refunds, memory, owners", include_str!("../../../migrations/sqlite/0004_refunds_memory_owners.sql")),
    (5, "rows of the log", include_str!("../../../migrations/sqlite/0005_log_rows.sql")),
    (6, "groups of tasks", include_str!("../../../migrations/sqlite/0006_task_groups.sql")),
    (7, "holds of the quota per unit", include_str!("../../../migrations/sqlite/0007_quota_holds.sql")),
    (8, "audit", include_str!("../../../migrations/sqlite/0008_audit.sql")),
    (9, "near claims", include_str!("../../../migrations/sqlite/0009_near_claims.sql")),
];

/// Why the database cannot be brought up to date or opened.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error("there is no database at {0}: `hookledger migrate` or `hookledger serve` creates it")]
    Missing(String),
    #[error(
        "the database {database} {how}, and there was one: installation {installation}. Nothing was made in its place, \
         because an empty ledger would charge again what was charged. Restore a backup with `hookledger restore FILE`; \
         or, to begin anew with nothing, remove {marker} by hand"
    )]
    Lost { database: String, how: &'static str, installation: String, marker: String },
    #[error(
        "the database {database} is of installation {installation}, and the one that was here is of {remembered}: \
         another database was put in its place. Put the right one back; or, if this one is meant, remove {marker} by hand"
    )]
    Replaced { database: String, installation: String, remembered: String, marker: String },
    #[error("{0} is no SQLite database, and is left alone: set database.url to another file, or move this one away")]
    NoDatabase(String),
    #[error("{0} cannot be used, which remembers whose database this is: {1}")]
    Marker(String, std::io::Error),
    #[error("{0}: only one process may write to a database; stop that one, or set database.url to another file")]
    Held(Holder),
    #[error("the database {0} cannot be read ({1}): give the file to the user that hookledger runs as")]
    Unreadable(String, std::io::Error),
    #[error(
        "the database {0} cannot be written to ({1}): give the file to the user that hookledger runs as, or mount its \
         file system for writing"
    )]
    ReadOnly(String, std::io::Error),
    #[error("the folder {0} cannot be made: {1}")]
    Folder(String, std::io::Error),
    #[error("the lock file {0} cannot be used ({1}): whoever writes to the database must be able to write beside it")]
    Lock(String, std::io::Error),
    #[error("the database is of an earlier version (it has {0:?}): run `hookledger migrate`")]
    Outdated(Vec<i64>),
    #[error("the database is of another version ({0}): use the version that made it")]
    Version(String),
    #[error("the database cannot be opened: {0}")]
    Open(#[from] sqlx::Error),
    #[error(
        "only the embedded database is backed up and restored here, and database.url names a server: use the server's own tools"
    )]
    Unsupported,
    #[error("the writer's thread cannot be started: {0}")]
    Thread(std::io::Error),
}

impl MigrateError {
    /// Waiting may help: another process holds a lock, say.
    pub fn may_pass(&self) -> bool {
        /// SQLITE_CORRUPT and SQLITE_NOTADB: no waiting makes a database of it.
        const LASTING: [&str; 2] = ["11", "26"];
        match self {
            MigrateError::Open(error) => {
                let code = error.as_database_error().and_then(|error| error.code());
                !code.is_some_and(|code| LASTING.contains(&code.as_ref()))
            }
            MigrateError::Held(holder) => holder.role == Role::Command,
            _ => false,
        }
    }
}

fn migrator() -> Migrator {
    let migrations = MIGRATIONS.iter().map(|(version, description, sql)| {
        Migration::new(*version, (*description).into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    migrator.dangerous_set_table_name(MIGRATIONS_TABLE);
    migrator
}

/// Makes the folder of the database, if it is missing.
pub fn make_folder(options: &SqliteOptions) -> Result<(), MigrateError> {
    let path = files::resolved(&options.path);
    let folder = path.parent().unwrap_or(&path).display().to_string();
    files::make_folder_of(&path).map_err(|error| MigrateError::Folder(folder, error))
}

/// Creates what is missing, under the lock; refuses to do so where something else is missing.
pub async fn run(options: &SqliteOptions) -> Result<(), MigrateError> {
    check_writable(options)?;
    let found = inspect::look(options).await?;
    marker::check(options, &found)?;
    if found == Found::Junk {
        return Err(MigrateError::NoDatabase(options.path.display().to_string()));
    }
    // Made here, since the library would let everybody read it.
    let path = files::resolved(&options.path);
    if !path.exists() {
        files::create_new(&path).map_err(|error| MigrateError::Folder(path.display().to_string(), error))?;
    }
    let mut connection = connect::writer(options, true, "migrator").await?;
    match migrator().run(&mut connection).await {
        Ok(()) => {}
        Err(SqlxMigrateError::Execute(error)) => return Err(MigrateError::Open(error)),
        Err(error) => return Err(MigrateError::Version(error.to_string())),
    }
    failpoint::hit("store.migrate.tables").map_err(injected)?;
    sqlx::query("INSERT INTO hookledger_meta (name, value) VALUES ('installation_id', ?1) ON CONFLICT DO NOTHING")
        .bind(Uuid::now_v7().to_string())
        .execute(&mut connection)
        .await?;
    let installation: String = sqlx::query_scalar("SELECT value FROM hookledger_meta WHERE name = 'installation_id'")
        .fetch_one(&mut connection)
        .await?;
    let application: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut connection).await?;
    let own = presence::application_id(&installation);
    if application != i64::from(own) {
        sqlx::query(AssertSqlSafe(format!("PRAGMA application_id = {own}"))).execute(&mut connection).await?;
    }
    connection.close().await?;
    marker::keep(&options.path, &installation)
}

/// Refuses a database that this user may not write to, where there is one: SQLite would open it all the same, to read.
pub fn check_writable(options: &SqliteOptions) -> Result<(), MigrateError> {
    let path = files::resolved(&options.path);
    match files::check_writable(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(MigrateError::ReadOnly(path.display().to_string(), error))
        }
        _ => Ok(()),
    }
}

/// What the database says of itself, if it is there, is the one that was here before, and no newer version changed it.
pub async fn known(options: &SqliteOptions) -> Result<Contents, MigrateError> {
    let found = inspect::look(options).await?;
    marker::check(options, &found)?;
    let contents = match found {
        Found::Nothing => return Err(MigrateError::Missing(options.path.display().to_string())),
        Found::EmptyFile => return Err(MigrateError::Outdated(Vec::new())),
        Found::Junk => return Err(MigrateError::NoDatabase(options.path.display().to_string())),
        Found::Database(contents) => contents,
    };
    if contents.age() == Age::Foreign && !contents.versions.is_empty() {
        let expected = MIGRATIONS.map(|(version, ..)| version);
        return Err(MigrateError::Version(format!("it has {:?}, this program {expected:?}", contents.versions)));
    }
    Ok(contents)
}

/// The same, and it is up to date; its installation id.
pub async fn check(options: &SqliteOptions) -> Result<String, MigrateError> {
    let contents = known(options).await?;
    match contents.installation {
        Some(installation) if contents.versions == MIGRATIONS.map(|(version, ..)| version) => Ok(installation),
        // Without an id: a first start that was cut off before its last step.
        _ => Err(MigrateError::Outdated(contents.versions)),
    }
}

fn injected(fault: InjectedFault) -> MigrateError {
    MigrateError::Open(sqlx::Error::Io(std::io::Error::other(fault)))
}
