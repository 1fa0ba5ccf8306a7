//! Creates the database and brings its tables up to date; refuses one that a newer version has changed.

use sqlx::migrate::{Migrate, MigrateError as SqlxMigrateError, Migration, MigrationType, Migrator};
use sqlx::{Connection, SqlSafeStr, SqliteConnection};
use uuid::Uuid;

use super::{SqliteOptions, connect};

/// The migration tool's own table lies beside ours.
const MIGRATIONS_TABLE: &str = "hookledger_migrations";

const MIGRATIONS: [(i64, &str, &str); 4] = [
    (1, "platform tables", include_str!("../../../migrations/sqlite/0001_platform_tables.sql")),
    (2, "own tables", include_str!("../../../migrations/sqlite/0002_own_tables.sql")),
    (3, "retries and tokens", include_str!("../../../migrations/sqlite/0003_retries_and_tokens.sql")),
    (4, "refunds, memory, owners", include_str!("../../../migrations/sqlite/0004_refunds_memory_owners.sql")),
];

/// Why the database cannot be brought up to date or opened.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error("there is no database at {0}: `hookledger migrate` or `hookledger serve` creates it")]
    Missing(String),
    #[error("the folder {0} cannot be made: {1}")]
    Folder(String, std::io::Error),
    #[error("the lock file {0} cannot be used: {1}")]
    Lock(String, std::io::Error),
    #[error("the database is of another version ({0}): run `hookledger migrate`, or use the version that made it")]
    Version(String),
    #[error("the database cannot be opened: {0}")]
    Open(#[from] sqlx::Error),
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

/// Creates what is missing.
pub async fn run(options: &SqliteOptions) -> Result<(), MigrateError> {
    make_folder(options)?;
    let _turn = wait_for_turn(options)?;
    let mut connection = connect::writer(options, true).await?;
    match migrator().run(&mut connection).await {
        Ok(()) => {}
        Err(SqlxMigrateError::Execute(error)) => return Err(MigrateError::Open(error)),
        Err(error) => return Err(MigrateError::Version(error.to_string())),
    }
    sqlx::query("INSERT INTO hookledger_meta (name, value) VALUES ('installation_id', ?1) ON CONFLICT DO NOTHING")
        .bind(Uuid::now_v7().to_string())
        .execute(&mut connection)
        .await?;
    connection.close().await?;
    Ok(())
}

/// Opens what must be there and up to date; answers the installation id.
pub async fn check(options: &SqliteOptions) -> Result<String, MigrateError> {
    if !options.path.exists() {
        return Err(MigrateError::Missing(options.path.display().to_string()));
    }
    let mut connection = connect::writer(options, false).await?;
    let applied = applied_versions(&mut connection).await?;
    let expected: Vec<i64> = MIGRATIONS.iter().map(|(version, ..)| *version).collect();
    if applied != expected {
        return Err(MigrateError::Version(format!("it has {applied:?}, this program {expected:?}")));
    }
    let installation = sqlx::query_scalar("SELECT value FROM hookledger_meta WHERE name = 'installation_id'")
        .fetch_one(&mut connection)
        .await?;
    connection.close().await?;
    Ok(installation)
}

async fn applied_versions(connection: &mut SqliteConnection) -> Result<Vec<i64>, MigrateError> {
    let is_ours: bool =
        sqlx::query_scalar("SELECT COUNT(*) > 0 FROM sqlite_master WHERE name = 'hookledger_migrations'")
            .fetch_one(&mut *connection)
            .await?;
    if !is_ours {
        return Ok(Vec::new());
    }
    let applied = connection.list_applied_migrations(MIGRATIONS_TABLE).await;
    let applied = applied.map_err(|error| MigrateError::Version(error.to_string()))?;
    Ok(applied.into_iter().map(|migration| migration.version).collect())
}

/// Two programs that start at once migrate one after the other. The lock ends with the returned file.
fn wait_for_turn(options: &SqliteOptions) -> Result<std::fs::File, MigrateError> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut path = options.path.clone().into_os_string();
    path.push(".migrate-lock");
    let failed = |error| MigrateError::Lock(path.to_string_lossy().into_owned(), error);
    let file = std::fs::File::options().create(true).append(true).mode(0o600).open(&path).map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(file)
}

fn make_folder(options: &SqliteOptions) -> Result<(), MigrateError> {
    use std::os::unix::fs::DirBuilderExt;
    let Some(folder) = options.path.parent().filter(|folder| !folder.exists()) else {
        return Ok(());
    };
    // The ledger and the webhook secret lie here: for this user's eyes only.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| MigrateError::Folder(folder.display().to_string(), error))
}
