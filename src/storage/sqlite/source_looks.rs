//! What tells one gateway from another, and how its rows agree with events; and small notes about it.

use sqlx::{SqliteConnection, SqlitePool};

use crate::domain::ids::RemoteKeyId;
use crate::domain::log_row::RowDigest;
use crate::storage::StoreError;
use crate::storage::log::{Agreement, KnownRow, NewestId, SourceFilter, token_named};

const AGREEMENT: &str = "SELECT \
     (SELECT COUNT(*) FROM hookledger_claims WHERE call_second BETWEEN ?1 AND ?2), \
     (SELECT COUNT(*) FROM hookledger_inbox WHERE reason = 'disputed' \
       AND called_at_ms BETWEEN ?1 * 1000 AND ?2 * 1000 + 999) \
     + (SELECT COUNT(*) FROM hookledger_rows WHERE row_second BETWEEN ?1 AND ?2 AND state = 'disputed')";

pub async fn agreement(readers: &SqlitePool, from_second: i64, until_second: i64) -> Result<Agreement, StoreError> {
    let (charges, disputed): (i64, i64) =
        sqlx::query_as(AGREEMENT).bind(from_second).bind(until_second).fetch_one(readers).await?;
    Ok(Agreement { calls: charges + disputed, disputed })
}

pub async fn newest_row(
    readers: &SqlitePool,
    of: &SourceFilter,
    until_second: i64,
) -> Result<Option<KnownRow>, StoreError> {
    let row: Option<(i64, String, i64)> = sqlx::query_as(
        "SELECT r.row_second, r.row_digest, r.is_refund FROM hookledger_rows AS r \
         WHERE r.row_second <= ?1 AND r.source = ?2 AND EXISTS (SELECT 1 FROM hookledger_spans AS s \
           WHERE s.source = ?2 AND s.filter = ?3 AND r.row_second BETWEEN s.from_second AND s.until_second) \
         ORDER BY r.row_second DESC LIMIT 1",
    )
    .bind(until_second)
    .bind(&of.source)
    .bind(&of.filter)
    .fetch_optional(readers)
    .await?;
    Ok(row.map(|(second, digest, is_refund)| KnownRow {
        second,
        digest: RowDigest::of_text(&digest),
        is_refund: is_refund != 0,
    }))
}

/// Among the newest charges: how many does not matter, since ids grow with time.
pub async fn newest_id(readers: &SqlitePool, source: &str) -> Result<Option<NewestId>, StoreError> {
    let row: Option<(i64, i64)> = sqlx::query_as(
        "SELECT row_second, row_log_id FROM (SELECT row_second, row_log_id, row_source FROM hookledger_claims \
           ORDER BY call_second DESC, claim_id DESC LIMIT 1024) \
         WHERE row_source = ?1 AND row_log_id IS NOT NULL ORDER BY row_log_id DESC LIMIT 1",
    )
    .bind(source)
    .fetch_optional(readers)
    .await?;
    Ok(row.map(|(second, log_id)| NewestId { second, log_id }))
}

pub async fn note(readers: &SqlitePool, name: &str) -> Result<Option<String>, StoreError> {
    let sql = "SELECT value FROM hookledger_meta WHERE name = ?1";
    Ok(sqlx::query_scalar(sql).bind(name).fetch_optional(readers).await?)
}

/// The larger value holds.
pub async fn raise_note(connection: &mut SqliteConnection, name: &str, value: i64) -> Result<(), StoreError> {
    let sql = "INSERT INTO hookledger_meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) \
               DO UPDATE SET value = max(CAST(value AS INTEGER), CAST(excluded.value AS INTEGER))";
    sqlx::query(sql).bind(name).bind(value.to_string()).execute(connection).await?;
    Ok(())
}

pub async fn set_note(connection: &mut SqliteConnection, name: &str, value: &str) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO hookledger_meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(name)
    .bind(value)
    .execute(connection)
    .await?;
    Ok(())
}

pub async fn token_of(readers: &SqlitePool, key: &str) -> Result<Option<RemoteKeyId>, StoreError> {
    let sql = "SELECT id, remoteKeyId FROM api_keys WHERE id = ?1 OR remoteKeyId = ?1 LIMIT 100";
    Ok(token_named(&sqlx::query_as(sql).bind(key).fetch_all(readers).await?, key))
}
