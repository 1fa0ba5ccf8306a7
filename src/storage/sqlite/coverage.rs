//! What was read of new-api's log: spans that follow each other, and what was counted of rows that nobody pays for.

use sqlx::{Connection, SqliteConnection, SqlitePool};

use super::writer::Context;
use crate::domain::ids::RemoteKeyId;
use crate::storage::StoreError;
use crate::storage::log::{Proof, SourceFilter, Span};
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
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM hookledger_unowned_rows WHERE row_second BETWEEN ?1 AND ?2 AND source = ?3")
        .bind(from_second)
        .bind(until_second)
        .bind(source)
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
    context: &Context,
    of: &SourceFilter,
    span: Span,
) -> Result<(), StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let near: Vec<(i64, i64, String)> = sqlx::query_as(
        "DELETE FROM hookledger_spans WHERE source = ?1 AND filter = ?2 AND from_second <= ?4 + 1 AND until_second >= ?3 - 1 \
         RETURNING from_second, until_second, proof",
    )
    .bind(&of.source)
    .bind(&of.filter)
    .bind(span.from_second)
    .bind(span.until_second)
    .fetch_all(&mut *transaction)
    .await?;
    for laid in span.laid_over(near.into_iter().filter_map(|(from_second, until_second, proof)| {
        Some(Span { from_second, until_second, proof: Proof::parse(&proof)? })
    })) {
        sqlx::query(
            "INSERT INTO hookledger_spans (source, filter, from_second, until_second, proof, proved_at_ms) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .bind(&of.source)
        .bind(&of.filter)
        .bind(laid.from_second)
        .bind(laid.until_second)
        .bind(laid.proof.as_str())
        .bind(context.clock.now().as_millis())
        .execute(&mut *transaction)
        .await?;
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

pub async fn tokens_with_open_sides(
    readers: &SqlitePool,
    after: Option<RemoteKeyId>,
    limit: usize,
) -> Result<Vec<RemoteKeyId>, StoreError> {
    let tokens: Vec<i64> = sqlx::query_scalar(
        "SELECT remote_key_id FROM hookledger_inbox WHERE reason IN ('alike', 'disputed') AND remote_key_id > ?1 \
         UNION SELECT open_token FROM hookledger_rows WHERE open_token > ?1 AND state IN ('waiting', 'disputed') \
         ORDER BY 1 LIMIT ?2",
    )
    .bind(after.map_or(-1, RemoteKeyId::get))
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(readers)
    .await?;
    tokens.into_iter().map(|token| RemoteKeyId::new(token).ok_or_else(|| unreadable("open_token", token))).collect()
}
