//! What was read of new-api's log: spans that follow each other, and what was counted of rows that nobody pays for.

use sqlx::{Connection, SqliteConnection, SqlitePool};

use super::writer::Context;
use crate::domain::ids::RemoteKeyId;
use crate::domain::log_snapshot::{NumberedRow, RowWrite};
use crate::domain::settlement::Plan;
use crate::domain::time::UnixMillis;
use crate::storage::StoreError;
use crate::storage::agreed::{AgreedSpan, SpanLooks};
use crate::storage::log::{BookFigures, Figures, Proof, RowLoss, SourceFilter, Span};
use crate::storage::neighbours::stored_row;
use crate::storage::stored::unreadable;

/// Whether rows of a log were ever settled here.
pub async fn has_rows(readers: &SqlitePool) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM hookledger_rows)").fetch_one(readers).await
}

pub async fn forget_unowned(
    connection: &mut SqliteConnection,
    source: &str,
    from_second: i64,
    until_second: i64,
    token: Option<RemoteKeyId>,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM hookledger_unowned_rows WHERE row_second BETWEEN ?1 AND ?2 AND source = ?3 \
               AND (?4 IS NULL OR remote_key_id = ?4)";
    sqlx::query(sql)
        .bind(from_second)
        .bind(until_second)
        .bind(source)
        .bind(token.map(RemoteKeyId::get))
        .execute(connection)
        .await?;
    Ok(())
}

pub async fn spans(readers: &SqlitePool, of: &SourceFilter) -> Result<Vec<Span>, StoreError> {
    let rows: Vec<(i64, i64, String)> = sqlx::query_as(
        "SELECT from_second, until_second, proof FROM hookledger_spans WHERE source = ?1 AND filter = ?2 ORDER BY from_second",
    )
    .bind(&of.source)
    .bind(&of.filter)
    .fetch_all(readers)
    .await?;
    let span = |(from_second, until_second, proof): (i64, i64, String)| {
        let proof = Proof::parse(&proof).ok_or_else(|| unreadable("hookledger_spans.proof", proof))?;
        Ok(Span { from_second, until_second, proof })
    };
    rows.into_iter().map(span).collect()
}

/// Lays a span over what was there: older ones are cut, and one of the same proof beside it is joined.
pub async fn cover(
    connection: &mut SqliteConnection,
    of: &SourceFilter,
    span: Span,
    proved_at: UnixMillis,
) -> Result<(), StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let near: Vec<(i64, i64, String, i64)> = sqlx::query_as(
        "DELETE FROM hookledger_spans WHERE source = ?1 AND filter = ?2 AND from_second <= ?4 + 1 AND until_second >= ?3 - 1 \
         RETURNING from_second, until_second, proof, proved_at_ms",
    )
    .bind(&of.source)
    .bind(&of.filter)
    .bind(span.from_second)
    .bind(span.until_second)
    .fetch_all(&mut *transaction)
    .await?;
    let near = near.into_iter().filter_map(|(from_second, until_second, proof, proved_at)| {
        Some((Span { from_second, until_second, proof: Proof::parse(&proof)? }, UnixMillis::new(proved_at)))
    });
    for (laid, proved_at) in span.laid_over(proved_at, near) {
        sqlx::query(
            "INSERT INTO hookledger_spans (source, filter, from_second, until_second, proof, proved_at_ms) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .bind(&of.source)
        .bind(&of.filter)
        .bind(laid.from_second)
        .bind(laid.until_second)
        .bind(laid.proof.as_str())
        .bind(proved_at.as_millis())
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// What is charged in spans that had agreed opens them at once: from now on it looks for its rows.
pub async fn open_for(connection: &mut SqliteConnection, seconds: String) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE hookledger_spans SET proof = 'reopened' WHERE proof = 'agreed' \
         AND EXISTS (SELECT 1 FROM jsonb_each(?1) AS e WHERE e.value BETWEEN from_second AND until_second)",
    )
    .bind(seconds)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) const CHARGED_SINCE: &str = "SELECT value ->> 0, value ->> 1, value ->> 2 FROM jsonb_each(?1) \
     WHERE EXISTS (SELECT 1 FROM hookledger_claims AS c \
       WHERE c.call_second BETWEEN (value ->> 0) AND (value ->> 1) AND c.settled_at_ms >= (value ->> 2))";

/// Looks by readers alone.
pub struct Looks<'a>(pub &'a SqlitePool);

impl SpanLooks for Looks<'_> {
    async fn agreed(&self, of: &SourceFilter) -> Result<Vec<AgreedSpan>, StoreError> {
        let sql = "SELECT from_second, until_second, proved_at_ms FROM hookledger_spans \
                   WHERE source = ?1 AND filter = ?2 AND proof = 'agreed' ORDER BY from_second";
        let rows: Vec<(i64, i64, i64)> =
            sqlx::query_as(sql).bind(&of.source).bind(&of.filter).fetch_all(self.0).await?;
        Ok(AgreedSpan::listed(rows))
    }

    async fn charged_since(&self, spans: &str) -> Result<Vec<AgreedSpan>, StoreError> {
        let rows: Vec<(i64, i64, i64)> = sqlx::query_as(CHARGED_SINCE).bind(spans).fetch_all(self.0).await?;
        Ok(AgreedSpan::listed(rows))
    }
}

/// `spans`: as [`AgreedSpan`] is listed.
pub async fn reopen(connection: &mut SqliteConnection, of: &SourceFilter, spans: &str) -> Result<(), StoreError> {
    let sql = "UPDATE hookledger_spans SET proof = 'reopened' WHERE source = ?1 AND filter = ?2 AND proof = 'agreed' \
               AND (from_second, until_second, proved_at_ms) IN \
                 (SELECT value ->> 0, value ->> 1, value ->> 2 FROM jsonb_each(?3))";
    sqlx::query(sql).bind(&of.source).bind(&of.filter).bind(spans).execute(connection).await?;
    Ok(())
}

pub async fn take_back(
    connection: &mut SqliteConnection,
    of: &SourceFilter,
    after_second: i64,
) -> Result<(), StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    for sql in [
        "DELETE FROM hookledger_spans WHERE source = ?1 AND filter = ?2 AND from_second > ?3",
        "UPDATE hookledger_spans SET until_second = ?3 WHERE source = ?1 AND filter = ?2 AND until_second > ?3",
    ] {
        sqlx::query(sql).bind(&of.source).bind(&of.filter).bind(after_second).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}

pub async fn begin(connection: &mut SqliteConnection, of: &SourceFilter, from_second: i64) -> Result<i64, StoreError> {
    let name = of.coverage_name();
    sqlx::query("INSERT INTO hookledger_meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING")
        .bind(&name)
        .bind(from_second.to_string())
        .execute(&mut *connection)
        .await?;
    let value: String = sqlx::query_scalar("SELECT value FROM hookledger_meta WHERE name = ?1")
        .bind(&name)
        .fetch_one(connection)
        .await?;
    value.parse().map_err(|_| unreadable("hookledger_meta, the beginning of coverage", value))
}

// Where every row was read, an event without one has none: that is explained.
const FIGURES: &str = "WITH read (a, b) AS MATERIALIZED \
       (SELECT from_second, until_second FROM hookledger_spans WHERE source = ?1 AND filter = ?4 AND proof = 'read') \
     SELECT \
     (SELECT COUNT(*) FROM hookledger_rows WHERE row_second BETWEEN ?2 AND ?3 AND source = ?1 AND is_refund = 0), \
     (SELECT COALESCE(SUM(units), 0) FROM hookledger_rows WHERE row_second BETWEEN ?2 AND ?3 AND source = ?1 \
       AND is_refund = 0), \
     (SELECT COUNT(*) FROM hookledger_rows WHERE row_second BETWEEN ?2 AND ?3 AND source = ?1 AND is_refund = 1), \
     (SELECT COALESCE(SUM(row_count), 0) FROM hookledger_unowned_rows WHERE row_second BETWEEN ?2 AND ?3 AND source = ?1), \
     (SELECT COALESCE(SUM(units), 0) FROM hookledger_unowned_rows WHERE row_second BETWEEN ?2 AND ?3 AND source = ?1), \
     (SELECT COALESCE(SUM(refund_count), 0) FROM hookledger_unowned_rows WHERE row_second BETWEEN ?2 AND ?3 \
       AND source = ?1), \
     (SELECT COUNT(*) FROM hookledger_claims WHERE call_second BETWEEN ?2 AND ?3 AND row_second IS NULL \
       AND NOT EXISTS (SELECT 1 FROM read WHERE call_second BETWEEN read.a AND read.b)), \
     (SELECT COALESCE(SUM(price_units), 0) FROM hookledger_claims WHERE call_second BETWEEN ?2 AND ?3 \
       AND row_second IS NULL AND NOT EXISTS (SELECT 1 FROM read WHERE call_second BETWEEN read.a AND read.b)), \
     (SELECT COUNT(*) FROM hookledger_claims WHERE call_second BETWEEN ?2 AND ?3 AND row_second IS NULL \
       AND price_units IS NULL), \
     (SELECT COUNT(*) FROM hookledger_rows WHERE row_second BETWEEN ?2 AND ?3 AND source = ?1 \
       AND state IN ('waiting', 'disputed') AND NOT EXISTS (SELECT 1 FROM read WHERE row_second BETWEEN read.a AND read.b))";

pub async fn figures(
    readers: &SqlitePool,
    of: &SourceFilter,
    from_second: i64,
    until_second: i64,
) -> Result<BookFigures, StoreError> {
    let row: (i64, i64, i64, i64, i64, i64, i64, i64, i64, i64) = sqlx::query_as(FIGURES)
        .bind(&of.source)
        .bind(from_second)
        .bind(until_second)
        .bind(&of.filter)
        .fetch_one(readers)
        .await?;
    let figures = Figures { rows: row.0 + row.3 + row.6, units: row.1 + row.4 + row.7, refunds: row.2 + row.5 };
    Ok(BookFigures { figures, priced_in_credits: row.8, waiting_rows: row.9 })
}

pub async fn event_seconds(readers: &SqlitePool, from_second: i64, until_second: i64) -> Result<Vec<i64>, StoreError> {
    Ok(sqlx::query_scalar(
        "SELECT DISTINCT call_second FROM hookledger_claims WHERE call_second BETWEEN ?1 AND ?2 AND event_id IS NOT NULL \
         ORDER BY call_second",
    )
    .bind(from_second)
    .bind(until_second)
    .fetch_all(readers)
    .await?)
}

pub async fn row_loss(
    readers: &SqlitePool,
    of: &SourceFilter,
    from_second: i64,
    until_second: i64,
) -> Result<RowLoss, StoreError> {
    let row: (i64, i64, Option<i64>) = sqlx::query_as(
        "SELECT COUNT(*), COALESCE(SUM(c.event_id IS NULL), 0), MAX(c.row_second) FROM hookledger_claims AS c \
         LEFT JOIN hookledger_rows AS r ON r.row_second = c.row_second AND r.row_digest = c.row_digest \
           AND r.row_nth = c.row_nth AND r.source = c.row_source \
         WHERE c.call_second BETWEEN ?2 AND ?3 AND (c.row_source IS NULL OR c.row_source = ?1) AND r.task_id IS NULL",
    )
    .bind(&of.source)
    .bind(from_second)
    .bind(until_second)
    .fetch_one(readers)
    .await?;
    Ok(RowLoss { rows: row.0, without_event: row.1, newest_second: row.2 })
}

// Tokens with one owner, and their rows from their grace on. From token to token: there may be very many rows of each.
pub(super) const OWNED_MEANWHILE: &str = "WITH RECURSIVE t (token) AS (SELECT MIN(remote_key_id) FROM hookledger_unowned_rows \
       UNION ALL SELECT (SELECT MIN(n.remote_key_id) FROM hookledger_unowned_rows AS n WHERE n.remote_key_id > t.token) \
       FROM t WHERE t.token IS NOT NULL) \
     SELECT MIN(u.row_second), MAX(u.row_second) FROM t \
     CROSS JOIN api_keys AS k ON k.remoteKeyId = CAST(t.token AS TEXT) \
     CROSS JOIN hookledger_unowned_rows AS u ON u.remote_key_id = t.token AND u.source = ?1 \
       AND u.row_second >= CAST(strftime('%s', k.createdAt) AS INTEGER) - ?2 \
     WHERE t.token <> 0 GROUP BY t.token HAVING COUNT(DISTINCT k.userId) = 1 LIMIT ?3";

pub async fn owned_meanwhile(
    readers: &SqlitePool,
    of: &SourceFilter,
    grace_secs: i64,
    limit: usize,
) -> Result<Vec<(i64, i64)>, StoreError> {
    Ok(sqlx::query_as(OWNED_MEANWHILE)
        .bind(&of.source)
        .bind(grace_secs)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(readers)
        .await?)
}

// Few rows are open. Left to choose, the database goes through all rows in the order that is asked for.
pub(super) const WOKEN_ROWS: &str = "SELECT r.source, r.row_second, r.row_digest, r.row_nth, r.content \
     FROM (SELECT DISTINCT open_token AS token FROM hookledger_rows INDEXED BY hookledger_rows_open \
       WHERE open_token > 0 AND state = 'ambiguous') AS t \
     CROSS JOIN hookledger_rows AS r ON r.open_token = t.token AND r.state = 'ambiguous' \
     WHERE (SELECT COUNT(DISTINCT k.userId) FROM api_keys AS k WHERE k.remoteKeyId = CAST(t.token AS TEXT)) < 2 \
     UNION ALL SELECT r.source, r.row_second, r.row_digest, r.row_nth, r.content \
       FROM hookledger_rows AS r INDEXED BY hookledger_rows_open \
       WHERE r.open_token > 0 AND r.state = 'held' AND NOT EXISTS (SELECT 1 FROM hookledger_quota_holds AS h \
         WHERE h.named_second IS NULL AND r.row_second BETWEEN h.from_second AND h.until_second) \
     ORDER BY 2, 3, 4 LIMIT ?1";

pub async fn woken_rows(readers: &SqlitePool, limit: usize) -> Result<Vec<NumberedRow>, StoreError> {
    let rows: Vec<(String, i64, String, i64, Option<String>)> =
        sqlx::query_as(WOKEN_ROWS).bind(i64::try_from(limit).unwrap_or(i64::MAX)).fetch_all(readers).await?;
    rows.into_iter().map(stored_row).collect()
}

/// A row that the database refuses to settle is kept as failed.
pub async fn set_row_aside(
    connection: &mut SqliteConnection,
    context: &Context,
    row: &NumberedRow,
    reason: &str,
) -> Result<(), StoreError> {
    let plan = Plan { rows: vec![RowWrite::failed(row, reason)], ..Plan::default() };
    super::log::write(connection, &plan, context.clock.now()).await
}

pub async fn tokens_with_waiting_sides(
    readers: &SqlitePool,
    after: Option<RemoteKeyId>,
    limit: usize,
) -> Result<Vec<RemoteKeyId>, StoreError> {
    let tokens: Vec<i64> = sqlx::query_scalar(
        "SELECT remote_key_id FROM hookledger_inbox WHERE reason = 'alike' AND remote_key_id > ?1 \
         UNION SELECT open_token FROM hookledger_rows WHERE open_token > ?1 AND state = 'waiting' \
         ORDER BY 1 LIMIT ?2",
    )
    .bind(after.map_or(-1, RemoteKeyId::get))
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(readers)
    .await?;
    tokens.into_iter().map(|token| RemoteKeyId::new(token).ok_or_else(|| unreadable("open_token", token))).collect()
}

pub async fn oldest_unpaid_row(
    readers: &SqlitePool,
    of: &SourceFilter,
    token: RemoteKeyId,
) -> Result<Option<i64>, StoreError> {
    Ok(sqlx::query_scalar(
        "SELECT MIN(second) FROM \
           (SELECT MIN(row_second) AS second FROM hookledger_unowned_rows WHERE remote_key_id = ?1 AND source = ?2 \
            UNION ALL SELECT MIN(row_second) FROM hookledger_rows WHERE open_token = ?1 AND source = ?2)",
    )
    .bind(token.get())
    .bind(&of.source)
    .fetch_one(readers)
    .await?)
}
