//! Whether another program keeps the platform's tables locked, as a dump or a change of their definition does: then
//! nothing can be booked, and no event is to blame.

use sqlx::MySqlConnection;

use crate::storage::StoreError;

/// What a settlement does to each of the platform's tables, without a row.
const LOOKS: [&str; 7] = [
    "SELECT id FROM users LIMIT 0 FOR UPDATE",
    "UPDATE api_keys SET lastUsedAt = lastUsedAt WHERE 1 = 0",
    "SELECT value FROM options LIMIT 0",
    "UPDATE user_credit_balances SET currentCredits = currentCredits WHERE 1 = 0",
    "INSERT INTO usage_records SELECT * FROM usage_records WHERE 1 = 0",
    "INSERT INTO credit_transactions SELECT * FROM credit_transactions WHERE 1 = 0",
    "UPDATE webhook_logs SET status = status WHERE 1 = 0",
];

/// Waits for no row. `Unavailable` if a table is not given in time.
pub async fn look(connection: &mut MySqlConnection) -> Result<(), StoreError> {
    for look in LOOKS {
        sqlx::raw_sql(look).execute(&mut *connection).await.map_err(|error| match StoreError::from(error) {
            StoreError::Contended(reason) => {
                StoreError::Unavailable(format!("another program keeps the platform's tables locked: {reason}"))
            }
            other => other,
        })?;
    }
    Ok(())
}
