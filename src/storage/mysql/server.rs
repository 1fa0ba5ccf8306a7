//! What the server gives, and how its tables are made: refused where it breaks a promise, warned of where it weakens
//! one, each with the setting to change.

use sqlx::MySqlConnection;
use sqlx::mysql::MySqlDatabaseError;

use super::context::Names;
use super::options::MysqlOptions;
use super::privileges::TABLES;

/// A promise that cannot be kept on this server as it is.
#[derive(Debug, thiserror::Error)]
pub enum ServerProblem {
    #[error("{0}")]
    Refused(String),
    #[error("the server is read-only (read_only = ON): point database.url to the one that takes writes")]
    ReadOnly,
    #[error("the database {0} lacks the platform's table {1}: is database.url the platform's database?")]
    NoTable(String, String),
    #[error("the account lacks privileges; an administrator of the server has to run:\n{}", .0.join("\n"))]
    Privileges(Vec<String>),
}

impl ServerProblem {
    pub fn may_pass(&self) -> bool {
        matches!(self, ServerProblem::ReadOnly)
    }
}

/// Errors of connecting that no waiting mends: no such account, password or database, no privilege, an account that is
/// locked, has no way in from here, or must come encrypted.
const LASTING: [u16; 11] = [1044, 1045, 1049, 1130, 1142, 1143, 1227, 1698, 3118, 3159, 4151];

/// Whether an error of opening may pass by itself.
pub fn may_pass(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            let number = error.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number);
            !number.is_some_and(|number| LASTING.contains(&number))
        }
        // A certificate that is not trusted, or not of this host.
        sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => false,
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Protocol(_) => true,
        _ => false,
    }
}

/// What the check found: names for the statements, and what an operator should know.
#[derive(Debug)]
pub struct Checked {
    pub names: Names,
    pub warnings: Vec<String>,
}

/// Looks at the server; `connection` is one of a writer's.
pub async fn check(connection: &mut MySqlConnection, options: &MysqlOptions) -> Result<Checked, CheckError> {
    let mut warnings = Vec::new();
    let collation = check_tables(connection, options).await?;
    let usage_index = usage_index(connection, options).await?;
    check_durability(connection, &mut warnings).await?;
    check_binlog(connection, &mut warnings).await?;
    let max_packet: i64 =
        sqlx::query_scalar("SELECT CAST(@@max_allowed_packet AS SIGNED)").fetch_one(connection).await?;
    let max_packet_bytes = usize::try_from(max_packet).unwrap_or(usize::MAX);
    if max_packet_bytes < SMALLEST_PACKET_BYTES {
        warnings.push(format!(
            "the server takes only {max_packet_bytes} bytes at a time (max_allowed_packet), which makes batches small: \
             set it to 16M or more"
        ));
    }
    Ok(Checked {
        names: Names::new(&options.state_schema, &collation, usage_index.as_deref(), max_packet_bytes),
        warnings,
    })
}

const SMALLEST_PACKET_BYTES: usize = 4 * 1024 * 1024;

/// Why the check did not end well.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error("{0}")]
    Problem(#[from] ServerProblem),
    #[error("{0}")]
    Database(#[from] sqlx::Error),
}

async fn variable(connection: &mut MySqlConnection, name: &'static str) -> Result<Option<String>, sqlx::Error> {
    let row: Option<(String, String)> =
        sqlx::query_as("SHOW GLOBAL VARIABLES WHERE Variable_name = ?").bind(name).fetch_optional(connection).await?;
    Ok(row.map(|(_, value)| value))
}

/// What was answered has to survive the loss of the machine's power.
async fn check_durability(connection: &mut MySqlConnection, warnings: &mut Vec<String>) -> Result<(), CheckError> {
    if variable(connection, "read_only").await?.is_some_and(|value| value == "ON" || value == "1") {
        return Err(ServerProblem::ReadOnly.into());
    }
    let flush = variable(connection, "innodb_flush_log_at_trx_commit").await?;
    if flush.as_deref() != Some("1") {
        let value = flush.unwrap_or_default();
        return Err(ServerProblem::Refused(format!(
            "the server does not write a commit to its disk at once (innodb_flush_log_at_trx_commit = {value}), so that \
             events that were answered could be lost: set it to 1"
        ))
        .into());
    }
    if variable(connection, "innodb_doublewrite").await?.is_some_and(|value| value == "OFF" || value == "0") {
        warnings.push(
            "innodb_doublewrite is off: a power cut in the middle of a write can damage tables; set it to ON"
                .to_owned(),
        );
    }
    if let Some(method) = variable(connection, "innodb_flush_method").await?
        && (method.eq_ignore_ascii_case("nosync") || method.eq_ignore_ascii_case("littlesync"))
    {
        let message = format!("innodb_flush_method = {method} does not wait for the disk: use fsync or O_DIRECT");
        return Err(ServerProblem::Refused(message).into());
    }
    Ok(())
}

async fn check_binlog(connection: &mut MySqlConnection, warnings: &mut Vec<String>) -> Result<(), CheckError> {
    let is_on = variable(connection, "log_bin").await?.is_some_and(|value| value == "ON" || value == "1");
    if !is_on {
        return Ok(());
    }
    if variable(connection, "binlog_format").await?.as_deref() == Some("STATEMENT") {
        let message = "binlog_format = STATEMENT cannot log READ COMMITTED transactions: set it to ROW (or MIXED)";
        return Err(ServerProblem::Refused(message.to_owned()).into());
    }
    if variable(connection, "sync_binlog").await?.as_deref() != Some("1") {
        warnings.push(
            "sync_binlog is not 1: after a power cut a replica may miss what this server has; set it to 1".to_owned(),
        );
    }
    Ok(())
}

/// The index of usage records that begins with key and time.
async fn usage_index(connection: &mut MySqlConnection, options: &MysqlOptions) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT a.index_name FROM information_schema.statistics AS a JOIN information_schema.statistics AS b \
           ON b.table_schema = a.table_schema AND b.table_name = a.table_name AND b.index_name = a.index_name \
         WHERE a.table_schema = ? AND a.table_name = 'usage_records' AND a.seq_in_index = 1 \
           AND a.column_name = 'apiKeyId' AND b.seq_in_index = 2 AND b.column_name = 'timestamp' LIMIT 1",
    )
    .bind(&options.database)
    .fetch_optional(connection)
    .await
}

/// Every table of the platform, transactional, with one collation for its ids; the collation.
async fn check_tables(connection: &mut MySqlConnection, options: &MysqlOptions) -> Result<String, CheckError> {
    let rows: Vec<(String, Option<String>)> =
        sqlx::query_as("SELECT table_name, engine FROM information_schema.tables WHERE table_schema = ?")
            .bind(&options.database)
            .fetch_all(&mut *connection)
            .await?;
    for (table, _) in TABLES {
        match rows.iter().find(|(name, _)| name == table) {
            None => return Err(ServerProblem::NoTable(options.database.clone(), table.to_owned()).into()),
            Some((_, Some(engine))) if engine.eq_ignore_ascii_case("InnoDB") => {}
            Some((_, engine)) => {
                let engine = engine.clone().unwrap_or_default();
                let message = format!(
                    "the table {table} is of the engine {engine}, which has no transactions: it must be InnoDB"
                );
                return Err(ServerProblem::Refused(message).into());
            }
        }
    }
    let columns: Vec<(String, String, Option<String>)> = sqlx::query_as(
        "SELECT table_name, column_name, collation_name FROM information_schema.columns WHERE table_schema = ? AND \
           (table_name, column_name) IN (('users', 'id'), ('api_keys', 'id'), ('api_keys', 'userId'), \
             ('api_keys', 'remoteKeyId'), ('webhook_logs', 'eventId'), ('webhook_logs', 'id'), \
             ('user_credit_balances', 'userId'), ('credit_transactions', 'userId'), ('usage_records', 'id'))",
    )
    .bind(&options.database)
    .fetch_all(connection)
    .await?;
    let mut collations: Vec<&str> = columns.iter().filter_map(|(.., collation)| collation.as_deref()).collect();
    collations.sort_unstable();
    collations.dedup();
    match collations.as_slice() {
        [one]
            if one.starts_with("utf8mb4_") && one.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') =>
        {
            Ok((*one).to_owned())
        }
        several => {
            let message = format!(
                "the platform's id columns have the collations {}; they must share one of utf8mb4",
                several.join(", ")
            );
            Err(ServerProblem::Refused(message).into())
        }
    }
}
