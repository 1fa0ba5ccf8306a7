//! What a guest needs on the server, which of it is missing, and the exact statements that give it.

use sqlx::mysql::MySqlDatabaseError;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection};

use super::connect;
use super::migrate::MysqlOpenError;
use super::options::{MysqlOptions, TlsMode};
use super::server::ServerProblem;

/// The platform's tables, and what we do with each.
pub const TABLES: [(&str, &str); 7] = [
    ("users", "SELECT"),
    ("api_keys", "SELECT, UPDATE (`lastUsedAt`)"),
    ("usage_records", "SELECT, INSERT, UPDATE (`costUsd`, `creditCost`)"),
    ("credit_transactions", "SELECT, INSERT"),
    ("user_credit_balances", "SELECT, INSERT, UPDATE"),
    ("options", "SELECT"),
    ("webhook_logs", "SELECT, INSERT, UPDATE, DELETE"),
];

/// Stands for the schema of our own tables among those of the platform.
const STATE: &str = "";

/// Access denied: to a database, a table, a column, a routine, or to what takes a privilege of the whole server.
const DENIED: [u16; 5] = [1044, 1142, 1143, 1227, 1370];

/// No such user, another password; and MariaDB's answer to who comes in the clear where it demands TLS.
const NOT_LET_IN: u16 = 1045;

/// What is not there is named by other checks: no such table, no such database.
const MISSING: [u16; 2] = [1146, 1049];

fn number(error: &sqlx::Error) -> Option<u16> {
    Some(error.as_database_error()?.try_downcast_ref::<MySqlDatabaseError>()?.number())
}

/// What of the platform's tables each statement is about. Nothing of any of them stays.
fn attempts(options: &MysqlOptions) -> Vec<(&'static str, String)> {
    let database = &options.database;
    let of = |table: &'static str, sql: &str| (table, sql.replace("TABLE", &format!("`{database}`.{table}")));
    let nothing_inserted = "INSERT INTO TABLE SELECT * FROM TABLE WHERE 1 = 0";
    vec![
        of("users", "SELECT id FROM TABLE LIMIT 0 FOR UPDATE"),
        of("api_keys", "SELECT id FROM TABLE LIMIT 0 FOR UPDATE"),
        of("api_keys", "UPDATE TABLE SET lastUsedAt = lastUsedAt WHERE 1 = 0"),
        of("usage_records", "SELECT id FROM TABLE LIMIT 0"),
        of("usage_records", nothing_inserted),
        of("usage_records", "UPDATE TABLE SET costUsd = costUsd, creditCost = creditCost WHERE 1 = 0"),
        of("credit_transactions", nothing_inserted),
        of("user_credit_balances", nothing_inserted),
        of("user_credit_balances", "UPDATE TABLE SET currentCredits = currentCredits WHERE 1 = 0"),
        of("options", "SELECT value FROM TABLE LIMIT 0"),
        of("webhook_logs", nothing_inserted),
        of("webhook_logs", "UPDATE TABLE SET status = status WHERE 1 = 0"),
        of("webhook_logs", "DELETE FROM TABLE WHERE 1 = 0"),
        (STATE, format!("DELETE FROM `{}`.hookledger_inbox WHERE 1 = 0", options.state_schema)),
    ]
}

/// Tries what is needed, since a role, a wildcard or a proxy may give it under any name; the tables that are out of
/// reach.
async fn denied(connection: &mut MySqlConnection, options: &MysqlOptions) -> Result<Vec<&'static str>, sqlx::Error> {
    let mut denied = Vec::new();
    let mut transaction = connection.begin().await?;
    for (table, attempt) in attempts(options) {
        match sqlx::raw_sql(AssertSqlSafe(attempt)).execute(&mut *transaction).await {
            Ok(_) => {}
            Err(error) if number(&error).is_some_and(|number| DENIED.contains(&number)) => denied.push(table),
            Err(error) if number(&error).is_some_and(|number| MISSING.contains(&number)) => {}
            Err(error) => return Err(error),
        }
    }
    transaction.rollback().await?;
    Ok(denied)
}

/// The statements that give what is denied.
async fn grants(
    connection: &mut MySqlConnection,
    options: &MysqlOptions,
    denied: &[&str],
) -> Result<Vec<String>, sqlx::Error> {
    let (account, version): (String, String) =
        sqlx::query_as("SELECT CURRENT_USER(), VERSION()").fetch_one(connection).await?;
    let account = match account.rsplit_once('@') {
        Some((user, host)) => format!("'{user}'@'{host}'"),
        None => account,
    };
    let database = &options.database;
    let tables = TABLES.iter().filter(|(table, _)| denied.contains(table));
    let mut grants: Vec<String> =
        tables.map(|(table, rights)| format!("GRANT {rights} ON `{database}`.`{table}` TO {account};")).collect();
    // MySQL lets nobody lock the rows of a table that he may only read.
    if !version.contains("MariaDB") && denied.contains(&"users") {
        grants.push(format!("GRANT LOCK TABLES ON `{database}`.* TO {account};"));
    }
    if denied.contains(&STATE) {
        grants.push(format!("GRANT ALL PRIVILEGES ON `{}`.* TO {account};", options.state_schema));
    }
    Ok(grants)
}

/// Looks whether this account may do everything that is needed.
pub async fn check(connection: &mut MySqlConnection, options: &MysqlOptions) -> Result<(), MysqlOpenError> {
    let denied = denied(connection, options).await?;
    if denied.is_empty() {
        return Ok(());
    }
    Err(ServerProblem::Privileges(grants(connection, options, &denied).await?).into())
}

/// Where the server denied a way in, says which statements open it, or what else may be wrong; any other error stays
/// what it is.
pub async fn explain(error: MysqlOpenError, options: &MysqlOptions) -> MysqlOpenError {
    let error = match error {
        MysqlOpenError::Open(cause) if options.tls == TlsMode::Off && number(&cause) == Some(NOT_LET_IN) => {
            return MysqlOpenError::DeniedInTheClear(cause);
        }
        error => error,
    };
    match &error {
        MysqlOpenError::Open(cause) if number(cause).is_some_and(|number| DENIED.contains(&number)) => {}
        _ => return error,
    }
    match missing(options).await {
        Ok(grants) => ServerProblem::Privileges(grants).into(),
        Err(_) => error,
    }
}

async fn missing(options: &MysqlOptions) -> Result<Vec<String>, sqlx::Error> {
    let mut connection = connect::server(options).await?;
    let mut denied = denied(&mut connection, options).await?;
    if denied.is_empty() {
        // What was denied is none of the platform's: to make or to change our own tables.
        denied.push(STATE);
    }
    let grants = grants(&mut connection, options, &denied).await?;
    connect::close(connection).await;
    Ok(grants)
}
