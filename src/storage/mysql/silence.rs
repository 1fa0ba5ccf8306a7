//! Bounds how long a server may say nothing.
//!
//! A link can die without a word: a firewall forgets it, a machine is gone. TCP gives up after a quarter of an hour, and
//! the driver has no setting for less. So the owner of a connection does: it drops the transaction *together with its
//! connection*, as if the link had been cut, and what became of it is unknown until the claims are looked at. At the
//! server the session would keep its locks; it is ended from another connection.

use std::time::Duration;

use sqlx::{AssertSqlSafe, MySqlConnection};

use super::connect;
use super::options::MysqlOptions;
use crate::storage::StoreError;

/// Far longer than any transaction of ours takes on a server that works.
const PATIENCE: Duration = Duration::from_secs(30);

/// A transaction may wait for a lock this often and go on.
const LOCK_WAITS: u32 = 10;

/// How long ending a session may take.
const END_WAIT: Duration = Duration::from_secs(5);

/// The longest that anything waits here.
pub fn patience(options: &MysqlOptions) -> Duration {
    PATIENCE.max(connect::lock_wait(options) * LOCK_WAITS)
}

/// Waits for no longer than a server that works would need.
pub async fn bounded<T>(options: &MysqlOptions, work: impl Future<Output = T>) -> Result<T, StoreError> {
    tokio::time::timeout(patience(options), work).await.map_err(|_elapsed| StoreError::OutcomeUnknown)
}

/// The server's number of this connection.
pub async fn session(connection: &mut MySqlConnection) -> Result<Option<i64>, StoreError> {
    Ok(sqlx::query_scalar("SELECT CAST(CONNECTION_ID() AS SIGNED)").fetch_optional(connection).await?)
}

/// Has the server end a session that was given up, so that nobody waits for its locks. Best effort: the server ends it by
/// itself once it notices.
pub async fn end(options: &MysqlOptions, session: Option<i64>) {
    tracing::warn!(session, "the server has said nothing for too long: the connection was given up");
    let Some(session) = session else { return };
    let kill = async {
        let mut connection = connect::server(options).await?;
        sqlx::raw_sql(AssertSqlSafe(format!("KILL {session}"))).execute(&mut connection).await?;
        connect::close(connection).await;
        Ok::<(), sqlx::Error>(())
    };
    match tokio::time::timeout(END_WAIT, kill).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(session, %error, "the session could not be ended"),
        Err(_elapsed) => tracing::warn!(session, "the session could not be ended: the server does not answer"),
    }
}
