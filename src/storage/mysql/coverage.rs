//! What was read of new-api's log: spans that follow each other, and what was counted of rows that nobody pays for.

use sqlx::{MySqlConnection, MySqlPool};

use super::context::{Context, Names};
use crate::domain::ids::RemoteKeyId;
use crate::storage::StoreError;
use crate::storage::log::{Proof, SourceFilter, Span};
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
) -> Result<(), StoreError> {
    let sql = "DELETE FROM hookledger_unowned_rows WHERE row_second BETWEEN ? AND ? AND source = ?";
    sqlx::query(context.sql(sql))
        .bind(from_second)
        .bind(until_second)
        .bind(source.to_owned())
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
) -> Result<(), StoreError> {
    let near = "FROM hookledger_spans WHERE source = ? AND filter = ? AND from_second <= ? AND until_second >= ?";
    let rows: Vec<(i64, i64, String)> =
        sqlx::query_as(context.sql(&format!("SELECT from_second, until_second, proof {near} FOR UPDATE")))
            .bind(&of.source)
            .bind(&of.filter)
            .bind(new.until_second + 1)
            .bind(new.from_second - 1)
            .fetch_all(&mut *connection)
            .await?;
    let old = rows.into_iter().map(span).collect::<Result<Vec<_>, _>>()?;
    sqlx::query(context.sql(&format!("DELETE {near}")))
        .bind(&of.source)
        .bind(&of.filter)
        .bind(new.until_second + 1)
        .bind(new.from_second - 1)
        .execute(&mut *connection)
        .await?;
    // At most two of them are more than the new one.
    for laid in new.laid_over(old.into_iter()) {
        let sql = "INSERT INTO hookledger_spans (source, filter, from_second, until_second, proof, proved_at_ms) \
                   VALUES (?, ?, ?, ?, ?, ?)";
        sqlx::query(context.sql(sql))
            .bind(&of.source)
            .bind(&of.filter)
            .bind(laid.from_second)
            .bind(laid.until_second)
            .bind(laid.proof.as_str())
            .bind(context.clock.now().as_millis())
            .execute(&mut *connection)
            .await?;
    }
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

pub async fn tokens_with_open_sides(
    readers: &MySqlPool,
    names: &Names,
    after: Option<RemoteKeyId>,
    limit: usize,
) -> Result<Vec<RemoteKeyId>, StoreError> {
    let sql = "SELECT remote_key_id FROM hookledger_inbox WHERE reason IN ('alike', 'disputed') AND remote_key_id > ? \
               UNION SELECT open_token FROM hookledger_rows WHERE open_token > ? AND state IN ('waiting', 'disputed') \
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
