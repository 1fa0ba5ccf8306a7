//! Looks at tokens that no key had: which still have none, and which events may be settled now.

use sqlx::{Connection, SqliteConnection};

use super::writer::Context;
use crate::storage::StoreError;

/// Notes for every token that no key has that this was so now.
pub async fn look(connection: &mut SqliteConnection, context: &Context) -> Result<(), StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query(
        "UPDATE hookledger_unknown_tokens SET last_look_ms = max(last_look_ms, ?1) WHERE NOT EXISTS \
           (SELECT 1 FROM api_keys WHERE remoteKeyId = CAST(hookledger_unknown_tokens.remote_key_id AS TEXT))",
    )
    .bind(context.clock.now().as_millis())
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(())
}
