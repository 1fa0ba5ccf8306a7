//! What was read of new-api's log: spans that follow each other, and what was counted of rows that nobody pays for.

use sqlx::{MySqlConnection, MySqlPool};

use super::context::{Context, Names};
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
pub async fn has_rows(readers: &MySqlPool, names: &Names) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(names.sql("SELECT EXISTS (SELECT 1 FROM hookledger_rows)")).fetch_one(readers).await
}

pub async fn forget_unowned(
    connection: &mut MySqlConnection,
    context: &Context,
    source: &str,
    from_second: i64,
    until_second: i64,
    token: Option<RemoteKeyId>,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM hookledger_unowned_rows WHERE row_second BETWEEN ? AND ? AND source = ? \
               AND (? IS NULL OR remote_key_id = ?)";
    let token = token.map(RemoteKeyId::get);
    sqlx::query(context.sql(sql))
        .bind(from_second)
        .bind(until_second)
        .bind(source.to_owned())
        .bind(token)
        .bind(token)
        .execute(connection)
        .await?;
    Ok(())
}

pub async fn spans(readers: &MySqlPool, names: &Names, of: &SourceFilter) -> Result<Vec<Span>, StoreError> {
    let sql = "SELECT from_second, until_second, proof FROM hookledger_spans WHERE source = ? AND filter = ? \
               ORDER BY from_second";
    let rows: Vec<(i64, i64, String)> =
        sqlx::query_as(names.sql(sql)).bind(&of.source).bind(&of.filter).fetch_all(readers).await?;
    rows.into_iter().map(span).collect()
}

fn span((from_second, until_second, proof): (i64, i64, String)) -> Result<Span, StoreError> {
    let proof = Proof::parse(&proof).ok_or_else(|| unreadable("hookledger_spans.proof", proof))?;
    Ok(Span { from_second, until_second, proof })
}

/// Lays a span over what was there: older ones are cut, and one of the same proof beside it is joined.
pub async fn cover(
    connection: &mut MySqlConnection,
    context: &Context,
    of: &SourceFilter,
    new: Span,
    proved_at: UnixMillis,
) -> Result<(), StoreError> {
    let near = "FROM hookledger_spans WHERE source = ? AND filter = ? AND from_second <= ? AND until_second >= ?";
    let rows: Vec<(i64, i64, String, i64)> = sqlx::query_as(
        context.sql(&format!("SELECT from_second, until_second, proof, proved_at_ms {near} FOR UPDATE")),
    )
    .bind(&of.source)
    .bind(&of.filter)
    .bind(new.until_second + 1)
    .bind(new.from_second - 1)
    .fetch_all(&mut *connection)
    .await?;
    let proved = |(from, until, proof, proved_at)| Ok((span((from, until, proof))?, UnixMillis::new(proved_at)));
    let old = rows.into_iter().map(proved).collect::<Result<Vec<_>, StoreError>>()?;
    sqlx::query(context.sql(&format!("DELETE {near}")))
        .bind(&of.source)
        .bind(&of.filter)
        .bind(new.until_second + 1)
        .bind(new.from_second - 1)
        .execute(&mut *connection)
        .await?;
    // Few of them are more than the new one: what touches its ends.
    for (laid, proved_at) in new.laid_over(proved_at, old.into_iter()) {
        let sql = "INSERT INTO hookledger_spans (source, filter, from_second, until_second, proof, proved_at_ms) \
                   VALUES (?, ?, ?, ?, ?, ?)";
        sqlx::query(context.sql(sql))
            .bind(&of.source)
            .bind(&of.filter)
            .bind(laid.from_second)
            .bind(laid.until_second)
            .bind(laid.proof.as_str())
            .bind(proved_at.as_millis())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// What is charged in spans that had agreed opens them at once: from now on it looks for its rows. Spans are seldom
/// among them, and only those are locked.
pub async fn open_for(connection: &mut MySqlConnection, context: &Context, seconds: String) -> Result<(), StoreError> {
    let hit = "SELECT s.source, s.filter, s.from_second FROM hookledger_spans AS s WHERE s.proof = 'agreed' AND EXISTS \
         (SELECT 1 FROM JSON_TABLE(?, '$[*]' COLUMNS (second BIGINT PATH '$')) AS e \
          WHERE e.second BETWEEN s.from_second AND s.until_second)";
    let spans: Vec<(String, String, i64)> =
        sqlx::query_as(context.sql(hit)).bind(seconds).fetch_all(&mut *connection).await?;
    for (source, filter, from_second) in spans {
        let sql = "UPDATE hookledger_spans SET proof = 'reopened' \
                   WHERE source = ? AND filter = ? AND from_second = ? AND proof = 'agreed'";
        sqlx::query(context.sql(sql)).bind(source).bind(filter).bind(from_second).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Looks by readers alone.
pub struct Looks<'a>(pub &'a MySqlPool, pub &'a Names);

impl SpanLooks for Looks<'_> {
    async fn agreed(&self, of: &SourceFilter) -> Result<Vec<AgreedSpan>, StoreError> {
        let sql = "SELECT from_second, until_second, proved_at_ms FROM hookledger_spans \
                   WHERE source = ? AND filter = ? AND proof = 'agreed' ORDER BY from_second";
        let query = sqlx::query_as(self.1.sql(sql)).bind(&of.source).bind(&of.filter);
        let rows: Vec<(i64, i64, i64)> = query.fetch_all(self.0).await?;
        Ok(AgreedSpan::listed(rows))
    }

    async fn charged_since(&self, spans: &str) -> Result<Vec<AgreedSpan>, StoreError> {
        let sql = "SELECT e.a, e.b, e.d FROM JSON_TABLE(?, '$[*]' COLUMNS (a BIGINT PATH '$[0]', b BIGINT PATH '$[1]', \
                     d BIGINT PATH '$[2]')) AS e \
                   WHERE EXISTS (SELECT 1 FROM hookledger_claims AS c \
                     WHERE c.call_second BETWEEN e.a AND e.b AND c.settled_at_ms >= e.d)";
        let rows: Vec<(i64, i64, i64)> = sqlx::query_as(self.1.sql(sql)).bind(spans).fetch_all(self.0).await?;
        Ok(AgreedSpan::listed(rows))
    }
}

/// `spans`: as [`AgreedSpan`] is listed.
pub async fn reopen(
    connection: &mut MySqlConnection,
    context: &Context,
    of: &SourceFilter,
    spans: &str,
) -> Result<(), StoreError> {
    let sql = "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (a BIGINT PATH '$[0]', b BIGINT PATH '$[1]', d BIGINT PATH '$[2]')) AS e \
               STRAIGHT_JOIN hookledger_spans AS s FORCE INDEX (PRIMARY) ON s.source = ? AND s.filter = ? \
                 AND s.from_second = e.a AND s.until_second = e.b AND s.proved_at_ms = e.d \
               SET s.proof = 'reopened' WHERE s.proof = 'agreed'";
    let query = sqlx::query(context.sql(sql)).bind(spans.to_owned());
    query.bind(of.source.clone()).bind(of.filter.clone()).execute(connection).await?;
    Ok(())
}

pub async fn take_back(
    connection: &mut MySqlConnection,
    context: &Context,
    of: &SourceFilter,
    after_second: i64,
) -> Result<(), StoreError> {
    let delete = "DELETE FROM hookledger_spans WHERE source = ? AND filter = ? AND from_second > ?";
    sqlx::query(context.sql(delete))
        .bind(of.source.clone())
        .bind(of.filter.clone())
        .bind(after_second)
        .execute(&mut *connection)
        .await?;
    let cut = "UPDATE hookledger_spans SET until_second = ? WHERE source = ? AND filter = ? AND until_second > ?";
    sqlx::query(context.sql(cut))
        .bind(after_second)
        .bind(of.source.clone())
        .bind(of.filter.clone())
        .bind(after_second)
        .execute(connection)
        .await?;
    Ok(())
}

pub async fn begin(
    connection: &mut MySqlConnection,
    context: &Context,
    of: &SourceFilter,
    from_second: i64,
) -> Result<i64, StoreError> {
    let name = of.coverage_name();
    sqlx::query(context.sql("INSERT IGNORE INTO hookledger_meta (name, value) VALUES (?, ?)"))
        .bind(&name)
        .bind(from_second.to_string())
        .execute(&mut *connection)
        .await?;
    let value: String = sqlx::query_scalar(context.sql("SELECT value FROM hookledger_meta WHERE name = ?"))
        .bind(&name)
        .fetch_one(connection)
        .await?;
    value.parse().map_err(|_| unreadable("hookledger_meta, the beginning of coverage", value))
}

// Where every row was read, an event without one has none: that is explained.
const FIGURES: &str = "SELECT \
     (SELECT COUNT(*) FROM hookledger_rows AS r WHERE r.row_second BETWEEN s.a AND s.b AND r.source = s.n \
       AND r.is_refund = 0), \
     (SELECT CAST(COALESCE(SUM(r.units), 0) AS SIGNED) FROM hookledger_rows AS r WHERE r.row_second BETWEEN s.a AND s.b \
       AND r.source = s.n AND r.is_refund = 0), \
     (SELECT COUNT(*) FROM hookledger_rows AS r WHERE r.row_second BETWEEN s.a AND s.b AND r.source = s.n \
       AND r.is_refund = 1), \
     (SELECT CAST(COALESCE(SUM(u.row_count), 0) AS SIGNED) FROM hookledger_unowned_rows AS u \
       WHERE u.row_second BETWEEN s.a AND s.b AND u.source = s.n), \
     (SELECT CAST(COALESCE(SUM(u.units), 0) AS SIGNED) FROM hookledger_unowned_rows AS u \
       WHERE u.row_second BETWEEN s.a AND s.b AND u.source = s.n), \
     (SELECT CAST(COALESCE(SUM(u.refund_count), 0) AS SIGNED) FROM hookledger_unowned_rows AS u \
       WHERE u.row_second BETWEEN s.a AND s.b AND u.source = s.n), \
     (SELECT COUNT(*) FROM hookledger_claims AS c WHERE c.call_second BETWEEN s.a AND s.b AND c.row_second IS NULL \
       AND NOT EXISTS (SELECT 1 FROM hookledger_spans AS p WHERE p.source = s.n AND p.filter = s.f AND p.proof = 'read' \
         AND c.call_second BETWEEN p.from_second AND p.until_second)), \
     (SELECT CAST(COALESCE(SUM(c.price_units), 0) AS SIGNED) FROM hookledger_claims AS c \
       WHERE c.call_second BETWEEN s.a AND s.b AND c.row_second IS NULL \
       AND NOT EXISTS (SELECT 1 FROM hookledger_spans AS p WHERE p.source = s.n AND p.filter = s.f AND p.proof = 'read' \
         AND c.call_second BETWEEN p.from_second AND p.until_second)), \
     (SELECT COUNT(*) FROM hookledger_claims AS c WHERE c.call_second BETWEEN s.a AND s.b AND c.row_second IS NULL \
       AND c.price_units IS NULL), \
     (SELECT COUNT(*) FROM hookledger_rows AS r WHERE r.row_second BETWEEN s.a AND s.b AND r.source = s.n \
       AND r.state IN ('waiting', 'disputed') \
       AND NOT EXISTS (SELECT 1 FROM hookledger_spans AS p WHERE p.source = s.n AND p.filter = s.f AND p.proof = 'read' \
         AND r.row_second BETWEEN p.from_second AND p.until_second)) \
     FROM (SELECT CAST(? AS CHAR CHARACTER SET utf8mb4) COLLATE utf8mb4_bin AS n, CAST(? AS SIGNED) AS a, \
       CAST(? AS SIGNED) AS b, CAST(? AS CHAR CHARACTER SET utf8mb4) COLLATE utf8mb4_bin AS f) AS s";

pub async fn figures(
    readers: &MySqlPool,
    names: &Names,
    of: &SourceFilter,
    from_second: i64,
    until_second: i64,
) -> Result<BookFigures, StoreError> {
    let query =
        sqlx::query_as(names.sql(FIGURES)).bind(&of.source).bind(from_second).bind(until_second).bind(&of.filter);
    let row: (i64, i64, i64, i64, i64, i64, i64, i64, i64, i64) = query.fetch_one(readers).await?;
    let figures = Figures { rows: row.0 + row.3 + row.6, units: row.1 + row.4 + row.7, refunds: row.2 + row.5 };
    Ok(BookFigures { figures, priced_in_credits: row.8, waiting_rows: row.9 })
}

pub async fn event_seconds(
    readers: &MySqlPool,
    names: &Names,
    from_second: i64,
    until_second: i64,
) -> Result<Vec<i64>, StoreError> {
    let sql = "SELECT DISTINCT call_second FROM hookledger_claims WHERE call_second BETWEEN ? AND ? \
               AND event_id IS NOT NULL ORDER BY call_second";
    Ok(sqlx::query_scalar(names.sql(sql)).bind(from_second).bind(until_second).fetch_all(readers).await?)
}

pub async fn row_loss(
    readers: &MySqlPool,
    names: &Names,
    of: &SourceFilter,
    from_second: i64,
    until_second: i64,
) -> Result<RowLoss, StoreError> {
    let sql = "SELECT COUNT(*), CAST(COALESCE(SUM(c.event_id IS NULL), 0) AS SIGNED), MAX(c.row_second) \
               FROM hookledger_claims AS c \
               LEFT JOIN hookledger_rows AS r ON r.row_second = c.row_second AND r.row_digest = c.row_digest \
                 AND r.row_nth = c.row_nth AND r.source = c.row_source \
               WHERE c.call_second BETWEEN ? AND ? AND (c.row_source IS NULL OR c.row_source = ?) \
                 AND r.task_id IS NULL";
    let row: (i64, i64, Option<i64>) =
        sqlx::query_as(names.sql(sql)).bind(from_second).bind(until_second).bind(&of.source).fetch_one(readers).await?;
    Ok(RowLoss { rows: row.0, without_event: row.1, newest_second: row.2 })
}

// Tokens with one owner, and their rows from their grace on.
const OWNED_MEANWHILE: &str = "SELECT MIN(u.row_second), MAX(u.row_second) \
     FROM (SELECT DISTINCT remote_key_id AS token FROM hookledger_unowned_rows) AS t \
     STRAIGHT_JOIN api_keys AS k ON k.remoteKeyId = CAST(t.token AS CHAR CHARACTER SET utf8mb4) COLLATE {collation} \
     STRAIGHT_JOIN hookledger_unowned_rows AS u ON u.remote_key_id = t.token AND u.source = ? \
       AND u.row_second >= TIMESTAMPDIFF(SECOND, '1970-01-01', k.createdAt) - ? \
     WHERE t.token <> 0 GROUP BY t.token HAVING COUNT(DISTINCT k.userId) = 1 LIMIT ?";

pub async fn owned_meanwhile(
    readers: &MySqlPool,
    names: &Names,
    of: &SourceFilter,
    grace_secs: i64,
    limit: usize,
) -> Result<Vec<(i64, i64)>, StoreError> {
    Ok(sqlx::query_as(names.sql(OWNED_MEANWHILE))
        .bind(&of.source)
        .bind(grace_secs)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(readers)
        .await?)
}

const WOKEN_ROWS: &str = "SELECT r.source, r.row_second, r.row_digest, r.row_nth, r.content \
     FROM (SELECT DISTINCT open_token AS token FROM hookledger_rows WHERE open_token > 0 AND state = 'ambiguous') AS t \
     STRAIGHT_JOIN hookledger_rows AS r ON r.open_token = t.token AND r.state = 'ambiguous' \
     WHERE (SELECT COUNT(DISTINCT k.userId) FROM api_keys AS k \
            WHERE k.remoteKeyId = CAST(t.token AS CHAR CHARACTER SET utf8mb4) COLLATE {collation}) < 2 \
     UNION ALL SELECT r.source, r.row_second, r.row_digest, r.row_nth, r.content FROM hookledger_rows AS r \
       WHERE r.open_token > 0 AND r.state = 'held' AND NOT EXISTS (SELECT 1 FROM hookledger_quota_holds AS h \
         WHERE h.named_second IS NULL AND r.row_second BETWEEN h.from_second AND h.until_second) \
     ORDER BY 2, 3, 4 LIMIT ?";

pub async fn woken_rows(readers: &MySqlPool, names: &Names, limit: usize) -> Result<Vec<NumberedRow>, StoreError> {
    let query = sqlx::query_as(names.sql(WOKEN_ROWS)).bind(i64::try_from(limit).unwrap_or(i64::MAX));
    let rows: Vec<(String, i64, String, i64, Option<String>)> = query.fetch_all(readers).await?;
    rows.into_iter().map(stored_row).collect()
}

/// A row that the database refuses to settle is kept as failed.
pub async fn set_row_aside(
    connection: &mut MySqlConnection,
    context: &Context,
    row: &NumberedRow,
    reason: &str,
) -> Result<(), StoreError> {
    let plan = Plan { rows: vec![RowWrite::failed(row, reason)], ..Plan::default() };
    super::log::write(connection, context, &plan, context.clock.now()).await
}

pub async fn tokens_with_waiting_sides(
    readers: &MySqlPool,
    names: &Names,
    after: Option<RemoteKeyId>,
    limit: usize,
) -> Result<Vec<RemoteKeyId>, StoreError> {
    let sql = "SELECT remote_key_id FROM hookledger_inbox WHERE reason = 'alike' AND remote_key_id > ? \
               UNION SELECT open_token FROM hookledger_rows WHERE open_token > ? AND state = 'waiting' \
               ORDER BY 1 LIMIT ?";
    let after = after.map_or(-1, RemoteKeyId::get);
    let tokens: Vec<i64> = sqlx::query_scalar(names.sql(sql))
        .bind(after)
        .bind(after)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(readers)
        .await?;
    tokens.into_iter().map(|token| RemoteKeyId::new(token).ok_or_else(|| unreadable("open_token", token))).collect()
}

pub async fn oldest_unpaid_row(
    readers: &MySqlPool,
    names: &Names,
    of: &SourceFilter,
    token: RemoteKeyId,
) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT MIN(found.second) FROM \
         (SELECT MIN(row_second) AS second FROM hookledger_unowned_rows WHERE remote_key_id = ? AND source = ? \
          UNION ALL SELECT MIN(row_second) FROM hookledger_rows WHERE open_token = ? AND source = ?) AS found";
    let query = sqlx::query_scalar(names.sql(sql)).bind(token.get()).bind(&of.source).bind(token.get());
    Ok(query.bind(&of.source).fetch_one(readers).await?)
}
