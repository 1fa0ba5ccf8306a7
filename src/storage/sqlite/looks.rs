//! What an operator's status needs of the database: few rows each, also where millions lie there.

use sqlx::SqlitePool;

use crate::domain::time::UnixMillis;
use crate::storage::{AmbiguousToken, StoreError};

// From one token to the next along the index: the number of waiting events does not matter. Three users say enough.
const AMBIGUOUS_TOKENS: &str = "WITH RECURSIVE waiting (token, place) AS ( \
       SELECT MIN(remote_key_id), 1 FROM hookledger_inbox WHERE reason = 'ambiguous_key' \
       UNION ALL \
       SELECT (SELECT MIN(remote_key_id) FROM hookledger_inbox \
               WHERE reason = 'ambiguous_key' AND remote_key_id > waiting.token), place + 1 \
       FROM waiting WHERE token IS NOT NULL AND place < ?1) \
     SELECT token, COALESCE((SELECT GROUP_CONCAT(email, ', ') FROM \
         (SELECT DISTINCT u.email FROM api_keys AS k JOIN users AS u ON u.id = k.userId \
          WHERE k.remoteKeyId = CAST(token AS TEXT) ORDER BY u.email LIMIT 3)), 'nobody any more') \
     FROM waiting WHERE token IS NOT NULL ORDER BY token";

// By the youngest calls and the youngest waiting rows, which lie at the ends of their keys.
const LAST_EVENT: &str = "SELECT MAX(at) FROM ( \
       SELECT MAX(settled_at_ms) AS at FROM \
         (SELECT source, settled_at_ms FROM hookledger_claims ORDER BY call_second DESC, claim_id DESC LIMIT 256) \
       WHERE source = 'webhook' \
       UNION ALL \
       SELECT recorded_at_ms FROM (SELECT recorded_at_ms FROM hookledger_inbox ORDER BY inbox_id DESC LIMIT 1))";

/// At most `limit`, in their order.
pub async fn ambiguous_tokens(readers: &SqlitePool, limit: usize) -> Result<Vec<AmbiguousToken>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = sqlx::query_as::<_, (i64, String)>(AMBIGUOUS_TOKENS).bind(limit).fetch_all(readers).await?;
    Ok(rows.into_iter().map(|(remote_key_id, users)| AmbiguousToken { remote_key_id, users }).collect())
}

/// About when the newest webhook of a call came in.
pub async fn last_event_at(readers: &SqlitePool) -> Result<Option<UnixMillis>, StoreError> {
    let millis = sqlx::query_scalar::<_, Option<i64>>(LAST_EVENT).fetch_one(readers).await?;
    Ok(millis.map(UnixMillis::new))
}
