//! Clears what is old, a small page at a time: looks for it on a reading connection, and deletes by id.
//!
//! The platform writes `webhook_logs` as well, and goes on with it. A processed row is ours, and may go, where its id has
//! the form of ours and our own tables tell of it: a claim of its event, or its id itself. Any other stays.

use std::collections::HashSet;
use std::sync::Arc;

use sqlx::{MySqlConnection, MySqlPool};

use super::context::{Context, Names};
use super::shard::End;
use super::{MysqlStore, snapshot, takeover};
use crate::domain::ids::RecordId;
use crate::domain::retention::BookTimes;
use crate::domain::time::UnixMillis;
use crate::failpoint;
use crate::storage::removal::Removal;
use crate::storage::rows::parameter;
use crate::storage::stored::{ClaimKey, claim_key, own_event_id, usage_event};
use crate::storage::{OldRows, Page, PagePlace, StoreError};

impl MysqlStore {
    pub(super) async fn remove(&self, removal: Removal) -> Result<u64, StoreError> {
        let removal = Arc::new(removal);
        self.write(move |connection, context| {
            let removal = removal.clone();
            Box::pin(async move { remove(connection, context, &removal).await })
        })
        .await
    }
}

/// What the books say of time. Parked tokens may wait for ever and hold nothing up.
pub async fn times(readers: &MySqlPool, names: &Names) -> Result<BookTimes, StoreError> {
    let (newest_call, oldest_unsettled, remembered_from_second) =
        sqlx::query_as::<_, (Option<i64>, Option<i64>, Option<i64>)>(names.sql(
            "SELECT (SELECT MAX(call_second) FROM hookledger_claims), \
               (SELECT MIN(called_at_ms) FROM hookledger_inbox \
                WHERE reason NOT IN ('unknown_key', 'beyond_grace', 'beyond_memory')), \
               (SELECT CAST(value AS SIGNED) FROM hookledger_meta WHERE name = 'claims_remembered_from_second')",
        ))
        .fetch_one(readers)
        .await?;
    Ok(BookTimes {
        newest_call: newest_call.map(|second| UnixMillis::new(second.saturating_mul(1000))),
        oldest_unsettled: oldest_unsettled.map(UnixMillis::new),
        remembered_from_second,
    })
}

// The pattern passes over what other programs name otherwise; bodies are read only where a claim has to be looked for.
const PROCESSED: &str = "SELECT CAST(w.createdAt AS CHAR), w.id, w.eventId, IF(o.log_id IS NULL, w.payload, NULL) \
     FROM webhook_logs AS w LEFT JOIN hookledger_log_rows AS o ON o.log_id = w.id COLLATE utf8mb4_bin \
     WHERE w.createdAt >= ? AND (w.createdAt > ? OR w.id > ?) AND w.createdAt < ? AND w.processedAt < ? \
       AND w.status = 'processed' AND w.id LIKE '________-____-7___-____-____________' \
     ORDER BY w.createdAt, w.id LIMIT ?";

const DEAD: &str = "SELECT i.inbox_id FROM hookledger_inbox AS i \
     STRAIGHT_JOIN webhook_logs AS w ON w.id = i.inbox_id COLLATE {collation} \
     WHERE i.state = 'dead' AND i.inbox_id > ? AND w.processedAt < ? ORDER BY i.inbox_id LIMIT ?";

const CLAIMS: &str = "SELECT call_second, claim_id FROM hookledger_claims WHERE call_second < ? \
     ORDER BY call_second, claim_id LIMIT ?";

const FOREIGN_RECORDS: &str = "SELECT record_id FROM hookledger_foreign_records WHERE noticed_at_ms < ? \
     ORDER BY noticed_at_ms LIMIT ?";

/// Rows that are looked at for each that may be cleared: most are there.
const LOOKED_AT: i64 = 16;

const LOG_ROWS: &str = "SELECT o.log_id, w.id IS NULL FROM \
       (SELECT log_id FROM hookledger_log_rows WHERE log_id > ? ORDER BY log_id LIMIT ?) AS o \
     LEFT JOIN webhook_logs AS w ON w.id = o.log_id COLLATE {collation} ORDER BY o.log_id";

/// One page of what is older than `before`, oldest first, and where the next page begins.
pub async fn find(
    readers: &MySqlPool,
    context: &Context,
    what: OldRows,
    before: UnixMillis,
    page: &Page,
) -> Result<(Removal, Option<PagePlace>), StoreError> {
    let beginning = UnixMillis::ZERO.to_column();
    let (first, second) = page.after.clone().unwrap_or_default();
    let limit = i64::from(page.limit);
    Ok(match what {
        OldRows::Processed => {
            let first = if first.is_empty() { beginning } else { first };
            let rows = sqlx::query_as::<_, LogRow>(context.sql(PROCESSED))
                .bind(&first)
                .bind(&first)
                .bind(second)
                .bind(before.to_column())
                .bind(before.to_column())
                .bind(limit)
                .fetch_all(readers)
                .await?;
            let last = rows.last().map(|(created_at, id, ..)| (created_at.clone(), id.clone()));
            (Removal::Processed(ours(readers, context, rows).await?), last)
        }
        OldRows::Dead => {
            let rows: Vec<String> = sqlx::query_scalar(context.sql(DEAD))
                .bind(first)
                .bind(before.to_column())
                .bind(limit)
                .fetch_all(readers)
                .await?;
            let last = rows.last().map(|id| (id.clone(), String::new()));
            (Removal::Dead(rows.into_iter().filter(|id| RecordId::is_form_of_ours(id)).collect()), last)
        }
        OldRows::Claims => {
            let rows = sqlx::query_as::<_, (i64, String)>(context.sql(CLAIMS))
                .bind(before.as_secs())
                .bind(limit)
                .fetch_all(readers)
                .await?;
            // They are gone from the front when the next page is looked for.
            let last = rows.last().map(|_| (String::new(), String::new()));
            (Removal::Claims(rows), last)
        }
        OldRows::ForeignRecords => {
            let rows: Vec<String> = sqlx::query_scalar(context.sql(FOREIGN_RECORDS))
                .bind(before.as_millis())
                .bind(limit)
                .fetch_all(readers)
                .await?;
            let last = rows.last().map(|_| (String::new(), String::new()));
            (Removal::ForeignRecords(rows), last)
        }
        OldRows::LogRows => {
            let rows = sqlx::query_as::<_, (String, bool)>(context.sql(LOG_ROWS))
                .bind(first)
                .bind(limit * LOOKED_AT)
                .fetch_all(readers)
                .await?;
            let last = rows.last().map(|(id, _)| (id.clone(), String::new()));
            (Removal::LogRows(rows.into_iter().filter(|(_, is_gone)| *is_gone).map(|(id, _)| id).collect()), last)
        }
    })
}

/// Time, id, event id, and the body where our own tables do not tell of the id.
type LogRow = (String, String, String, Option<String>);

/// Which of these rows are known to be ours.
async fn ours(readers: &MySqlPool, context: &Context, rows: Vec<LogRow>) -> Result<Vec<String>, StoreError> {
    let (mut ours, mut claimed) = (Vec::new(), Vec::new());
    for (_, id, event_id, payload) in rows.into_iter().filter(|(_, id, ..)| RecordId::is_form_of_ours(id)) {
        match payload {
            None => ours.push(id),
            Some(payload) => claimed.extend(claim_of(&event_id, &payload).map(|key| (id, key))),
        }
    }
    if !claimed.is_empty() {
        let keys: HashSet<ClaimKey> = claimed.iter().map(|(_, key)| key.clone()).collect();
        let claims = snapshot::claims(&mut *readers.acquire().await?, context, &keys).await?;
        ours.extend(claimed.into_iter().filter(|(_, key)| claims.contains(key)).map(|(id, _)| id));
    }
    Ok(ours)
}

/// Where the claim of a row lies; none where its body is no call, or names another event than the row.
fn claim_of(stored_id: &str, payload: &str) -> Option<ClaimKey> {
    let event = usage_event(payload)?;
    own_event_id(stored_id, payload).filter(|own_id| *own_id == event.event_id)?;
    Some(claim_key(&event.event_id, &event.content))
}

pub(super) const IDS: &str = "JSON_TABLE(?, '$[*]' COLUMNS (v VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$')) AS e";
const KEYS: &str = "JSON_TABLE(?, '$[*]' COLUMNS (a BIGINT PATH '$[0]', \
     v VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[1]')) AS e";

/// What goes is summed, so that what is left adds up with it: a page's parts of credits fit 64 bits. The whole credits
/// are set first, from the parts that were there.
fn sum_claims() -> String {
    const IS_CARRIED: &str = "c.source <> 'adopted' AND (c.rounding = 'carry' \
         OR (c.rounding IS NULL AND c.remainder_before <> c.remainder_after))";
    format!(
        "INSERT INTO hookledger_cleared_claims (user_id, carried_credits, carried_femtos, unpaid_credits) \
         SELECT m.user_id, CAST(SUM(m.credits) AS SIGNED), CAST(SUM(m.femtos) AS SIGNED), CAST(SUM(m.unpaid) AS SIGNED) \
         FROM (SELECT c.user_id, IF({IS_CARRIED}, c.price_credits - c.credits_moved - c.credits_unpaid, 0) AS credits, \
             IF({IS_CARRIED}, c.price_femtos, 0) AS femtos, c.credits_unpaid AS unpaid \
           FROM {KEYS} STRAIGHT_JOIN hookledger_claims AS c FORCE INDEX (PRIMARY) \
             ON c.call_second = e.a AND c.claim_id = e.v COLLATE utf8mb4_bin \
           UNION ALL SELECT r.user_id, 0, r.remainder_after - r.remainder_before, -r.unpaid_lowered \
           FROM {KEYS} STRAIGHT_JOIN hookledger_refunds AS r ON r.claim_id = e.v COLLATE utf8mb4_bin) AS m \
         GROUP BY m.user_id ON DUPLICATE KEY UPDATE \
           carried_credits = carried_credits + VALUES(carried_credits) \
             + (carried_femtos + VALUES(carried_femtos)) DIV 1000000000000000, \
           carried_femtos = (carried_femtos + VALUES(carried_femtos)) % 1000000000000000, \
           unpaid_credits = unpaid_credits + VALUES(unpaid_credits)"
    )
}

/// Clears one page; a row that has changed since it was found stays.
pub async fn remove(
    connection: &mut MySqlConnection,
    context: &Context,
    removal: &Removal,
) -> Result<End<u64>, StoreError> {
    let removed = match removal {
        Removal::Processed(ids) => {
            let removed = delete_logs(connection, context, ids, "processed").await?;
            forget_logs(connection, context, ids).await?;
            removed
        }
        Removal::LogRows(ids) => forget_logs(connection, context, ids).await?,
        Removal::ForeignRecords(ids) => takeover::forget(connection, context, ids).await?,
        Removal::Dead(ids) => {
            let removed = delete_logs(connection, context, ids, "dead").await?;
            let sql = format!(
                "DELETE i FROM {IDS} STRAIGHT_JOIN hookledger_inbox AS i FORCE INDEX (PRIMARY) ON i.inbox_id = e.v COLLATE utf8mb4_bin \
                 WHERE i.state = 'dead'"
            );
            sqlx::query(context.sql(&sql)).bind(parameter(ids)?).execute(&mut *connection).await?;
            removed
        }
        Removal::Claims(keys) => {
            let keys = parameter(keys)?;
            sqlx::query(context.sql(&sum_claims())).bind(&keys).bind(&keys).execute(&mut *connection).await?;
            let refunds = format!(
                "DELETE r FROM {KEYS} STRAIGHT_JOIN hookledger_refunds AS r ON r.claim_id = e.v COLLATE utf8mb4_bin"
            );
            sqlx::query(context.sql(&refunds)).bind(&keys).execute(&mut *connection).await?;
            let claims = format!(
                "DELETE c FROM {KEYS} STRAIGHT_JOIN hookledger_claims AS c FORCE INDEX (PRIMARY) \
                 ON c.call_second = e.a AND c.claim_id = e.v COLLATE utf8mb4_bin"
            );
            sqlx::query(context.sql(&claims)).bind(&keys).execute(&mut *connection).await?.rows_affected()
        }
        Removal::Mark(second) => {
            sqlx::query(context.sql(
                "INSERT INTO hookledger_meta (name, value) VALUES ('claims_remembered_from_second', ?) \
                 ON DUPLICATE KEY UPDATE value = GREATEST(CAST(value AS SIGNED), CAST(VALUES(value) AS SIGNED))",
            ))
            .bind(second.to_string())
            .execute(&mut *connection)
            .await?;
            1
        }
    };
    failpoint::hit("store.retention.written")?;
    Ok(End::Commit(removed))
}

async fn delete_logs(
    connection: &mut MySqlConnection,
    context: &Context,
    ids: &[String],
    status: &str,
) -> Result<u64, StoreError> {
    let sql = format!(
        "DELETE w FROM {IDS} STRAIGHT_JOIN webhook_logs AS w FORCE INDEX (PRIMARY) ON w.id = e.v COLLATE {{collation}} WHERE w.status = ?"
    );
    let done = sqlx::query(context.sql(&sql)).bind(parameter(&ids)?).bind(status).execute(connection).await?;
    Ok(done.rows_affected())
}

/// What was kept of these rows beside them.
async fn forget_logs(connection: &mut MySqlConnection, context: &Context, ids: &[String]) -> Result<u64, StoreError> {
    let sql = format!(
        "DELETE o FROM {IDS} STRAIGHT_JOIN hookledger_log_rows AS o FORCE INDEX (PRIMARY) \
         ON o.log_id = e.v COLLATE utf8mb4_bin"
    );
    let done = sqlx::query(context.sql(&sql)).bind(parameter(&ids)?).execute(connection).await?;
    Ok(done.rows_affected())
}
