//! Clears what is old, a small page at a time: looks for it on a reading connection, and deletes by id.

use sqlx::{Connection, SqliteConnection, SqlitePool};

use crate::domain::retention::BookTimes;
use crate::domain::time::UnixMillis;
use crate::failpoint;
use crate::storage::removal::Removal;
use crate::storage::rows::parameter as json;
use crate::storage::{OldRows, Page, StoreError};

/// What the books say of time. Parked tokens may wait for ever and hold nothing up.
pub async fn times(readers: &SqlitePool) -> Result<BookTimes, StoreError> {
    let (newest_call, oldest_unsettled, remembered_from_second) =
        sqlx::query_as::<_, (Option<i64>, Option<i64>, Option<i64>)>(
            "SELECT (SELECT MAX(call_second) FROM hookledger_claims), \
               (SELECT MIN(called_at_ms) FROM hookledger_inbox \
                WHERE reason NOT IN ('unknown_key', 'beyond_grace', 'beyond_memory')), \
               (SELECT CAST(value AS INTEGER) FROM hookledger_meta WHERE name = 'claims_remembered_from_second')",
        )
        .fetch_one(readers)
        .await?;
    Ok(BookTimes {
        newest_call: newest_call.map(|second| UnixMillis::new(second.saturating_mul(1000))),
        oldest_unsettled: oldest_unsettled.map(UnixMillis::new),
        remembered_from_second,
    })
}

/// One page of what is older than `before`, oldest first, and where the next page begins.
pub async fn find(
    readers: &SqlitePool,
    what: OldRows,
    before: UnixMillis,
    page: &Page,
) -> Result<(Removal, Option<(String, String)>), StoreError> {
    let (first, second) = page.after.clone().unwrap_or_default();
    let limit = i64::from(page.limit);
    let (removal, last) = match what {
        OldRows::Processed => {
            // The index over createdAt ends with the row's number: many rows of one instant are no matter.
            let rows = sqlx::query_as::<_, (String, i64, String)>(
                "SELECT createdAt, rowid, id FROM webhook_logs WHERE (createdAt, rowid) > (?1, ?2) AND createdAt < ?3 \
                   AND processedAt < ?3 AND status = 'processed' ORDER BY createdAt, rowid LIMIT ?4",
            )
            .bind(first)
            .bind(second.parse::<i64>().unwrap_or(0))
            .bind(before.to_column())
            .bind(limit)
            .fetch_all(readers)
            .await?;
            let last = rows.last().map(|(created_at, number, _)| (created_at.clone(), number.to_string()));
            (Removal::Processed(rows.into_iter().map(|(.., id)| id).collect()), last)
        }
        OldRows::Dead => {
            let rows: Vec<String> = sqlx::query_scalar(
                "SELECT i.inbox_id FROM hookledger_inbox AS i CROSS JOIN webhook_logs AS w ON w.id = i.inbox_id \
                 WHERE i.state = 'dead' AND i.inbox_id > ?1 AND w.processedAt < ?2 ORDER BY i.inbox_id LIMIT ?3",
            )
            .bind(first)
            .bind(before.to_column())
            .bind(limit)
            .fetch_all(readers)
            .await?;
            let last = rows.last().map(|id| (id.clone(), String::new()));
            (Removal::Dead(rows), last)
        }
        OldRows::Claims => {
            let rows = sqlx::query_as::<_, (i64, String)>(
                "SELECT call_second, claim_id FROM hookledger_claims WHERE call_second < ?1 \
                 ORDER BY call_second, claim_id LIMIT ?2",
            )
            .bind(before.as_secs())
            .bind(limit)
            .fetch_all(readers)
            .await?;
            // They are gone from the front when the next page is looked for.
            let last = rows.last().map(|_| (String::new(), String::new()));
            (Removal::Claims(rows), last)
        }
        // Nobody else writes here, and nothing is kept of it.
        OldRows::ForeignRecords => (Removal::ForeignRecords(Vec::new()), None),
        OldRows::LogRows => (Removal::LogRows(Vec::new()), None),
    };
    Ok((removal, last))
}

// What goes is summed, so that what is left adds up with it: a page's parts of credits fit 64 bits.
const SUM_CLAIMS: &str = "INSERT INTO hookledger_cleared_claims (user_id, carried_credits, carried_femtos, unpaid_credits) \
     SELECT user_id, SUM(credits), SUM(femtos), SUM(unpaid) FROM ( \
       SELECT c.user_id, CASE WHEN c.rounding = 'carry' OR (c.rounding IS NULL AND c.remainder_before <> c.remainder_after) \
           THEN c.price_credits - c.credits_moved - c.credits_unpaid ELSE 0 END AS credits, \
         CASE WHEN c.rounding = 'carry' OR (c.rounding IS NULL AND c.remainder_before <> c.remainder_after) \
           THEN c.price_femtos ELSE 0 END AS femtos, c.credits_unpaid AS unpaid \
       FROM jsonb_each(?1) AS e CROSS JOIN hookledger_claims AS c \
         ON c.call_second = e.value ->> 0 AND c.claim_id = e.value ->> 1 \
       UNION ALL SELECT f.user_id, 0, f.remainder_after - f.remainder_before, -f.unpaid_lowered \
       FROM jsonb_each(?1) AS e CROSS JOIN hookledger_refunds AS f ON f.claim_id = e.value ->> 1) \
     WHERE true GROUP BY user_id ON CONFLICT (user_id) DO UPDATE SET \
       carried_credits = carried_credits + excluded.carried_credits \
         + (carried_femtos + excluded.carried_femtos) / 1000000000000000, \
       carried_femtos = (carried_femtos + excluded.carried_femtos) % 1000000000000000, \
       unpaid_credits = unpaid_credits + excluded.unpaid_credits";

/// Clears one page; a row that has changed since it was found stays.
pub async fn remove(connection: &mut SqliteConnection, removal: &Removal) -> Result<u64, StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let removed = match removal {
        Removal::Processed(ids) => sqlx::query(
            "DELETE FROM webhook_logs WHERE id IN (SELECT value FROM jsonb_each(?1)) AND status = 'processed'",
        )
        .bind(json(ids)?)
        .execute(&mut *transaction)
        .await?
        .rows_affected(),
        Removal::Dead(ids) => {
            let ids = json(ids)?;
            let removed = sqlx::query(
                "DELETE FROM webhook_logs WHERE id IN (SELECT value FROM jsonb_each(?1)) AND status = 'dead'",
            )
            .bind(&ids)
            .execute(&mut *transaction)
            .await?
            .rows_affected();
            sqlx::query(
                "DELETE FROM hookledger_inbox WHERE state = 'dead' AND inbox_id IN (SELECT value FROM jsonb_each(?1))",
            )
            .bind(&ids)
            .execute(&mut *transaction)
            .await?;
            removed
        }
        Removal::Claims(keys) => {
            let keys = json(keys)?;
            sqlx::query(SUM_CLAIMS).bind(&keys).execute(&mut *transaction).await?;
            sqlx::query("DELETE FROM hookledger_refunds WHERE claim_id IN (SELECT value ->> 1 FROM jsonb_each(?1))")
                .bind(&keys)
                .execute(&mut *transaction)
                .await?;
            sqlx::query(
                "DELETE FROM hookledger_claims WHERE (call_second, claim_id) IN \
                   (SELECT value ->> 0, value ->> 1 FROM jsonb_each(?1))",
            )
            .bind(&keys)
            .execute(&mut *transaction)
            .await?
            .rows_affected()
        }
        Removal::ForeignRecords(_) | Removal::LogRows(_) => 0,
        Removal::Mark(second) => {
            sqlx::query(
                "INSERT INTO hookledger_meta (name, value) VALUES ('claims_remembered_from_second', ?1) \
                 ON CONFLICT (name) DO UPDATE SET value = max(CAST(value AS INTEGER), CAST(excluded.value AS INTEGER))",
            )
            .bind(second)
            .execute(&mut *transaction)
            .await?;
            1
        }
    };
    failpoint::hit("store.retention.written")?;
    transaction.commit().await?;
    Ok(removed)
}
