//! Makes the own tables and brings them up to date; refuses those that a newer version has changed. Never touches the
//! platform's.

use sqlx::{AssertSqlSafe, MySqlConnection};
use uuid::Uuid;

use super::connect;
use super::options::MysqlOptions;
use super::server::ServerProblem;
use crate::failpoint;
use crate::storage::StoreError;

const MIGRATIONS: [(i64, &str, &str); 8] = [
    (1, "own tables", include_str!("../../../migrations/mysql/0001_own_tables.sql")),
    (2, "taking over", include_str!("../../../migrations/mysql/0002_taking_over.sql")),
    (3, "own log rows", include_str!("../../../migrations/mysql/0003_own_log_rows.sql")),
    (4, "rows of the log", include_str!("../../../migrations/mysql/0004_log_rows.sql")),
    (5, "groups of tasks", include_str!("../../../migrations/mysql/0005_task_groups.sql")),
    (6, "holds of the quota per unit", include_str!("../../../migrations/mysql/0006_quota_holds.sql")),
    (7, "audit", include_str!("../../../migrations/mysql/0007_audit.sql")),
    (8, "near claims", include_str!("../../../migrations/mysql/0008_near_claims.sql")),
];

/// ER_DUP_FIELDNAME of a statement that adds, ER_CANT_DROP_FIELD_OR_KEY of one that only drops: it was carried out before.
const DONE_BEFORE: [u16; 2] = [1060, 1091];

/// The server can't take back what a migration has made, so each statement can be repeated, and the row comes last.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS hookledger_migrations (version BIGINT NOT NULL PRIMARY KEY, \
     description VARCHAR(191) NOT NULL, installed_at_ms BIGINT NOT NULL) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 \
     COLLATE utf8mb4_bin";

/// Name of the lock under which programs that start at once migrate one after the other, and how long one waits.
const LOCK: &str = "hookledger.migrate";
const LOCK_WAIT_SECS: i64 = 60;

/// Why the database cannot be brought up to date or opened.
#[derive(Debug, thiserror::Error)]
pub enum MysqlOpenError {
    #[error("the database cannot be opened: {0}")]
    Open(#[from] sqlx::Error),
    #[error(
        "the database cannot be opened: {0}: user or password are wrong, or the server lets this account in over TLS \
         alone, and database.tls is \"off\""
    )]
    DeniedInTheClear(sqlx::Error),
    #[error("the database cannot be looked at: {0}")]
    Look(#[from] StoreError),
    #[error("{0}")]
    Server(#[from] ServerProblem),
    #[error(
        "there are no tables of hookledger in the schema {0}: `hookledger migrate` or `hookledger serve` makes them"
    )]
    Missing(String),
    #[error("the schema {schema} is of another version ({found:?}, this program has {expected:?}): {cure}")]
    Version { schema: String, found: Vec<i64>, expected: Vec<i64>, cure: &'static str },
    #[error("another program has been migrating the schema for {LOCK_WAIT_SECS} seconds: try again")]
    Busy,
    #[error("a writer's thread cannot be started: {0}")]
    Thread(std::io::Error),
}

impl MysqlOpenError {
    /// Waiting may help: the server starts, restarts, or has no connection left.
    pub fn may_pass(&self) -> bool {
        match self {
            MysqlOpenError::Open(error) => super::server::may_pass(error),
            MysqlOpenError::Server(problem) => problem.may_pass(),
            MysqlOpenError::Busy | MysqlOpenError::Look(_) => true,
            _ => false,
        }
    }
}

/// Makes what is missing.
pub async fn run(options: &MysqlOptions, now_ms: i64) -> Result<(), MysqlOpenError> {
    let mut connection = connect::state(options).await?;
    let locked: Option<i64> =
        sqlx::query_scalar("SELECT GET_LOCK(?, ?)").bind(LOCK).bind(LOCK_WAIT_SECS).fetch_one(&mut connection).await?;
    if locked != Some(1) {
        return Err(MysqlOpenError::Busy);
    }
    sqlx::raw_sql(TABLE).execute(&mut connection).await?;
    let applied = applied(&mut connection).await?;
    check_versions(options, &applied, true)?;
    for (version, description, sql) in MIGRATIONS.iter().filter(|(version, ..)| !applied.contains(version)) {
        for statement in sql.split(";\n\n") {
            if let Err(error) = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await
                // It was there before the version was noted: a migration that was cut off is repeated.
                && !super::error::number(&error).is_some_and(|number| DONE_BEFORE.contains(&number))
            {
                return Err(error.into());
            }
            failpoint::hit("store.migrate.tables").map_err(StoreError::from)?;
        }
        sqlx::query("INSERT INTO hookledger_migrations (version, description, installed_at_ms) VALUES (?, ?, ?)")
            .bind(version)
            .bind(*description)
            .bind(now_ms)
            .execute(&mut connection)
            .await?;
    }
    sqlx::query("INSERT IGNORE INTO hookledger_meta (name, value) VALUES ('installation_id', ?)")
        .bind(Uuid::now_v7().to_string())
        .execute(&mut connection)
        .await?;
    // The lock goes with its connection.
    connect::close(connection).await;
    Ok(())
}

/// Looks at what must be there and up to date; answers the installation id.
pub async fn check(options: &MysqlOptions) -> Result<String, MysqlOpenError> {
    let mut connection = connect::writer(options).await?;
    let tables: bool = sqlx::query_scalar(
        "SELECT COUNT(*) > 0 FROM information_schema.tables WHERE table_schema = ? AND table_name = 'hookledger_migrations'",
    )
    .bind(&options.state_schema)
    .fetch_one(&mut connection)
    .await?;
    if !tables {
        return Err(MysqlOpenError::Missing(options.state_schema.clone()));
    }
    sqlx::raw_sql(AssertSqlSafe(format!("USE `{}`", options.state_schema))).execute(&mut connection).await?;
    let applied = applied(&mut connection).await?;
    check_versions(options, &applied, false)?;
    let installation: Option<String> =
        sqlx::query_scalar("SELECT value FROM hookledger_meta WHERE name = 'installation_id'")
            .fetch_optional(&mut connection)
            .await?;
    connect::close(connection).await;
    installation.ok_or_else(|| MysqlOpenError::Missing(options.state_schema.clone()))
}

async fn applied(connection: &mut MySqlConnection) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar("SELECT version FROM hookledger_migrations ORDER BY version").fetch_all(connection).await
}

fn check_versions(options: &MysqlOptions, found: &[i64], may_be_older: bool) -> Result<(), MysqlOpenError> {
    let expected: Vec<i64> = MIGRATIONS.iter().map(|(version, ..)| *version).collect();
    let is_newer = found.iter().any(|version| !expected.contains(version));
    if found == expected || (may_be_older && !is_newer) {
        return Ok(());
    }
    let cure = if is_newer { "use the version that made it" } else { "run `hookledger migrate`" };
    Err(MysqlOpenError::Version { schema: options.state_schema.clone(), found: found.to_vec(), expected, cure })
}
