//! What tells one gateway from another, and how its rows agree with events; and small notes about it.

use sqlx::{MySqlConnection, MySqlPool};

use super::context::{Context, Names};
use crate::domain::ids::RemoteKeyId;
use crate::domain::log_row::RowDigest;
use crate::storage::StoreError;
use crate::storage::log::{Agreement, KnownRow, NewestId, SourceFilter, token_named};

const AGREEMENT: &str = "SELECT \
     (SELECT COUNT(*) FROM hookledger_claims AS c WHERE c.call_second BETWEEN s.a AND s.b), \
     (SELECT COUNT(*) FROM hookledger_inbox AS i WHERE i.reason = 'disputed' \
       AND i.called_at_ms BETWEEN s.a * 1000 AND s.b * 1000 + 999) \
     + (SELECT COUNT(*) FROM hookledger_rows AS r WHERE r.row_second BETWEEN s.a AND s.b AND r.state = 'disputed') \
     FROM (SELECT ? AS a, ? AS b) AS s";

pub async fn agreement(
    readers: &MySqlPool,
    names: &Names,
    from_second: i64,
    until_second: i64,
) -> Result<Agreement, StoreError> {
    let (charges, disputed): (i64, i64) =
        sqlx::query_as(names.sql(AGREEMENT)).bind(from_second).bind(until_second).fetch_one(readers).await?;
    Ok(Agreement { calls: charges + disputed, disputed })
}

pub async fn newest_row(
    readers: &MySqlPool,
    names: &Names,
    of: &SourceFilter,
    until_second: i64,
) -> Result<Option<KnownRow>, StoreError> {
    let sql = "SELECT r.row_second, r.row_digest, CAST(r.is_refund AS SIGNED) FROM hookledger_rows AS r \
               WHERE r.row_second <= ? AND r.source = ? AND EXISTS (SELECT 1 FROM hookledger_spans AS s \
                 WHERE s.source = ? AND s.filter = ? AND r.row_second BETWEEN s.from_second AND s.until_second) \
               ORDER BY r.row_second DESC LIMIT 1";
    let row: Option<(i64, String, i64)> = sqlx::query_as(names.sql(sql))
        .bind(until_second)
        .bind(&of.source)
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
pub async fn newest_id(readers: &MySqlPool, names: &Names, source: &str) -> Result<Option<NewestId>, StoreError> {
    let sql = "SELECT n.row_second, n.row_log_id FROM (SELECT c.row_second, c.row_log_id, c.row_source \
                 FROM hookledger_claims AS c ORDER BY c.call_second DESC, c.claim_id DESC LIMIT 1024) AS n \
               WHERE n.row_source = ? AND n.row_log_id IS NOT NULL ORDER BY n.row_log_id DESC LIMIT 1";
    let row: Option<(i64, i64)> = sqlx::query_as(names.sql(sql)).bind(source).fetch_optional(readers).await?;
    Ok(row.map(|(second, log_id)| NewestId { second, log_id }))
}

pub async fn note(readers: &MySqlPool, names: &Names, name: &str) -> Result<Option<String>, StoreError> {
    let sql = "SELECT value FROM hookledger_meta WHERE name = ?";
    Ok(sqlx::query_scalar(names.sql(sql)).bind(name).fetch_optional(readers).await?)
}

/// The larger value holds.
pub async fn raise_note(
    connection: &mut MySqlConnection,
    context: &Context,
    name: &str,
    value: i64,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO hookledger_meta (name, value) VALUES (?, ?) ON DUPLICATE KEY UPDATE \
               value = GREATEST(CAST(value AS SIGNED), CAST(VALUES(value) AS SIGNED))";
    sqlx::query(context.sql(sql)).bind(name.to_owned()).bind(value.to_string()).execute(connection).await?;
    Ok(())
}

pub async fn set_note(
    connection: &mut MySqlConnection,
    context: &Context,
    name: &str,
    value: &str,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO hookledger_meta (name, value) VALUES (?, ?) ON DUPLICATE KEY UPDATE value = VALUES(value)";
    sqlx::query(context.sql(sql)).bind(name.to_owned()).bind(value.to_owned()).execute(connection).await?;
    Ok(())
}

pub async fn token_of(readers: &MySqlPool, key: &str) -> Result<Option<RemoteKeyId>, StoreError> {
    let sql = "SELECT id, remoteKeyId FROM api_keys WHERE id = ? OR remoteKeyId = ? LIMIT 100";
    let query = sqlx::query_as(sql).bind(key.to_owned()).bind(key.to_owned());
    Ok(token_named(&query.fetch_all(readers).await?, key))
}
