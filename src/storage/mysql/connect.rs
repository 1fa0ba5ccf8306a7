//! Opens connections to the server, with the session settings that the promises need, whatever the server's own are.

use std::time::Duration;

use secrecy::ExposeSecret;
use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions, MySqlSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, MySqlConnection, MySqlPool};

use super::options::{MysqlOptions, TlsMode};

/// How long a reader may wait for a connection.
const READER_WAIT: Duration = Duration::from_secs(5);

fn base(options: &MysqlOptions) -> MySqlConnectOptions {
    let tls = match options.tls {
        TlsMode::Off => MySqlSslMode::Disabled,
        TlsMode::Prefer => MySqlSslMode::Preferred,
        TlsMode::Require => MySqlSslMode::Required,
        TlsMode::VerifyCa => MySqlSslMode::VerifyCa,
        TlsMode::VerifyFull => MySqlSslMode::VerifyIdentity,
    };
    let mut connect = MySqlConnectOptions::new()
        .host(&options.host)
        .port(options.port)
        .username(&options.user)
        .ssl_mode(tls)
        .charset("utf8mb4")
        .collation("utf8mb4_unicode_ci")
        // Set below, as a whole: the library would only add to what the server has.
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .timezone(Some("+00:00".to_owned()))
        .statement_cache_capacity(128)
        .disable_statement_logging();
    if let Some(password) = &options.password {
        connect = connect.password(password.expose_secret());
    }
    if let Some(socket) = &options.socket {
        connect = connect.socket(socket);
    }
    if let Some(ca_file) = &options.ca_file {
        connect = connect.ssl_ca(ca_file);
    }
    connect
}

/// How long a session waits for a lock: the server counts whole seconds.
pub fn lock_wait(options: &MysqlOptions) -> Duration {
    Duration::from_secs(options.lock_wait.as_secs().max(1))
}

/// What every session is told: refuse what does not fit, see what others have committed, wait this long for a lock.
fn session(options: &MysqlOptions) -> String {
    let lock_wait_secs = lock_wait(options).as_secs();
    format!(
        "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO', \
         innodb_lock_wait_timeout = {lock_wait_secs}, lock_wait_timeout = {lock_wait_secs}"
    )
}

async fn prepare(connection: &mut MySqlConnection, options: &MysqlOptions) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(session(options))).execute(&mut *connection).await?;
    // Spelled so that MySQL and MariaDB both take it.
    sqlx::raw_sql("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").execute(&mut *connection).await?;
    Ok(())
}

/// A connection to the platform's database that may write.
pub async fn writer(options: &MysqlOptions) -> Result<MySqlConnection, sqlx::Error> {
    let mut connection = base(options).database(&options.database).connect().await?;
    prepare(&mut connection, options).await?;
    Ok(connection)
}

/// A connection to no database in particular.
pub async fn server(options: &MysqlOptions) -> Result<MySqlConnection, sqlx::Error> {
    let mut connection = base(options).connect().await?;
    prepare(&mut connection, options).await?;
    Ok(connection)
}

/// A connection to the own tables' database, which is made where the user may.
pub async fn state(options: &MysqlOptions) -> Result<MySqlConnection, sqlx::Error> {
    let mut connection = server(options).await?;
    let exists: bool = sqlx::query_scalar("SELECT COUNT(*) > 0 FROM information_schema.schemata WHERE schema_name = ?")
        .bind(&options.state_schema)
        .fetch_one(&mut connection)
        .await?;
    if !exists {
        let create = format!(
            "CREATE DATABASE IF NOT EXISTS `{}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
            options.state_schema
        );
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut connection).await?;
    }
    sqlx::raw_sql(AssertSqlSafe(format!("USE `{}`", options.state_schema))).execute(&mut connection).await?;
    Ok(connection)
}

/// Connections that only read, made as they are needed.
pub fn readers(options: &MysqlOptions) -> MySqlPool {
    let for_sessions = options.clone();
    MySqlPoolOptions::new()
        .max_connections(options.max_connections)
        .acquire_timeout(READER_WAIT)
        .after_connect(move |connection, _| {
            let options = for_sessions.clone();
            Box::pin(async move {
                prepare(connection, &options).await?;
                sqlx::raw_sql("SET SESSION TRANSACTION READ ONLY").execute(connection).await?;
                Ok(())
            })
        })
        .connect_lazy_with(base(options).database(&options.database))
}

/// Ends a connection in good order; the server notices in any case.
pub async fn close(connection: MySqlConnection) {
    connection.close().await.ok();
}
